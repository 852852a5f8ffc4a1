"""What the verifier reads: the rows of a Kelou database (SQLite file or PostgreSQL URL) and the journals of executors and clients."""
import base64
import json
import re
import sqlite3
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

RUN_STATES = ("PENDING", "RUNNING", "SUCCESS", "FAIL", "CANCELLED", "SKIPPED")
REASONS = ("NONE", "SCHEDULED", "QUEUED", "DISPATCHING", "RETRY_WAIT", "ACCEPTED", "PROGRESS", "CANCELLING", "ERROR", "TIMEOUT",
           "LOST", "REJECTED", "NO_EXECUTOR", "EXPIRED", "OVERLAP", "CALENDAR", "MISFIRE", "LIMIT")
ORIGINS = ("SCHEDULE", "CATCHUP", "API", "RETRY", "BACKFILL", "DEPENDENCY", "BROADCAST")
TASK_STATES = ("ENABLED", "PAUSED", "COMPLETED", "DELETED")
KINDS = ("CRON", "FIXED_RATE", "FIXED_DELAY", "ONE_TIME", "MANUAL")
ENDED = RUN_STATES[2:]
DURATION_UNITS = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
RUN_ID_BYTES = 22
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def duration(text):
    """Microseconds of `1h30m`, `250ms`, …"""
    parts = re.findall(r"(\d+)(us|ms|s|m|h|d)", text)
    if "".join(n + unit for n, unit in parts) != text or not parts:
        raise ValueError(f"no duration: {text}")
    return sum(int(n) * DURATION_UNITS[unit] for n, unit in parts)


def instant(text):
    """Microseconds since 1970 of an RFC 3339 text."""
    return (datetime.fromisoformat(text.replace("Z", "+00:00")) - EPOCH) // timedelta(microseconds=1)


def run_key(run_id):
    """(shard, scheduled_at, task_id, part) of a public run id; None when it is none."""
    try:
        raw = base64.b32hexdecode(run_id.upper() + "=" * (-len(run_id) % 8))
    except (ValueError, AttributeError):
        return None
    if len(raw) != RUN_ID_BYTES:
        return None
    return tuple(int.from_bytes(raw[a:b], "big") for a, b in ((0, 2), (2, 10), (10, 18), (18, 22)))


@dataclass
class Version:
    """One version of a task."""
    task_id: int
    version: int
    state: str
    effective_at: int
    anchor: int
    kind: str
    definition: dict
    name: str = ""

    @property
    def place(self):
        """Its namespace and name."""
        return (self.definition.get("namespace", "default"), self.name)

    @property
    def schedule(self):
        return self.definition["schedule"]

    def limit(self, name, default):
        """A duration of the definition, in microseconds."""
        return duration(self.definition.get(name, default))

    @property
    def overlap_policy(self):
        return self.definition.get("overlap_policy", "QUEUE_ONE")

    @property
    def max_attempts(self):
        return self.definition.get("retry", {}).get("max_attempts", 1)


@dataclass
class Run:
    """A row of run (open) or run_history."""
    open: bool
    shard: int
    scheduled_at: int
    task_id: int
    part: int
    version: int
    state: str
    reason: str
    origin: str
    attempt: int
    fired_at: int
    not_before: int
    attempt_at: int
    started_at: int
    finished_at: int
    missed_first: int
    missed_count: int
    executor: str
    origin_run: str = ""
    payload: str = ""  # of runs after other tasks only

    @property
    def key(self):
        return (self.shard, self.scheduled_at, self.task_id, self.part)

    @property
    def first(self):
        """The first instant for which it stands."""
        return self.missed_first or self.scheduled_at

    @property
    def count(self):
        """How many instants it stands for."""
        return max(1, self.missed_count)

    def __str__(self):
        return (f"task {self.task_id} at {self.scheduled_at} part {self.part} "
                f"({self.state}{'/' + self.reason if self.reason != 'NONE' else ''}, attempt {self.attempt})")


@dataclass
class Attempt:
    """A row of attempt."""
    key: tuple  # (scheduled_at, task_id, part)
    attempt: int
    state: str
    dispatched_at: int
    finished_at: int
    reason: str = "NONE"
    started_at: int = 0


@dataclass
class Shard:
    """The two fence rows of a shard."""
    id: int
    epoch: int
    finish_epoch: int
    fired_at: int
    fired_task: int


@dataclass
class Tables:
    """Everything that was read."""
    shards: dict = field(default_factory=dict)
    versions: dict = field(default_factory=dict)   # task id → [Version], ascending
    deleted: set = field(default_factory=set)
    tasks: set = field(default_factory=set)
    runs: list = field(default_factory=list)
    attempts: list = field(default_factory=list)
    kept: dict = field(default_factory=dict)    # (child, parent) → ends that its next run will stand for
    events: set = field(default_factory=set)    # (scheduled_at, task_id, part) of ends that nobody has taken in yet
    inbox: dict = field(default_factory=dict)   # shard → requests that wait

    @property
    def now(self):
        """The database's latest instant."""
        return max((s.fired_at for s in self.shards.values()), default=0)


def open_database(url):
    """(connection) of `sqlite:FILE`, a file name, or a PostgreSQL URL; read only."""
    if url.startswith(("postgres://", "postgresql://")):
        import psycopg2  # pylint: disable=import-outside-toplevel
        connection = psycopg2.connect(url)
        connection.set_session(readonly=True, isolation_level="REPEATABLE READ")
        return connection
    path = url[len("sqlite:"):] if url.startswith("sqlite:") else url
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True)


def select(connection, sql):
    """The rows of a question; NULL is 0 or the empty text."""
    cursor = connection.cursor()
    cursor.execute(sql)
    while True:
        rows = cursor.fetchmany(10_000)
        if not rows:
            return
        yield from rows


RUN_COLUMNS = ("shard, scheduled_at, task_id, part, version, state, reason, origin, attempt, fired_at, {not_before}, attempt_at, "
               "started_at, {finished_at}, missed_first, missed_count, executor, origin_run, CASE WHEN origin = 5 THEN payload END")


def read_runs(connection, table):
    is_open = table == "run"
    columns = RUN_COLUMNS.format(not_before="not_before" if is_open else "0", finished_at="0" if is_open else "finished_at")
    for row in select(connection, f"SELECT {columns} FROM {table}"):
        n = [value or 0 for value in row[:16]]
        yield Run(is_open, *n[:5], RUN_STATES[n[5]], REASONS[n[6]], ORIGINS[n[7]], *n[8:16], *(text or "" for text in row[16:]))


def read_tables(url):
    """Read the whole database in one snapshot."""
    connection, t = open_database(url), Tables()
    if isinstance(connection, sqlite3.Connection):
        connection.execute("BEGIN")
    for row in select(connection, "SELECT s.id, s.epoch, f.epoch, s.fired_at, s.fired_task FROM shard s "
                                  "LEFT JOIN shard_finish f ON f.id = s.id"):
        t.shards[row[0]] = Shard(*(value or 0 for value in row))
    for task_id, state in select(connection, "SELECT id, state FROM task"):
        t.tasks.add(task_id)
        if TASK_STATES[state] == "DELETED":
            t.deleted.add(task_id)
    for row in select(connection, "SELECT task_id, version, state, effective_at, anchor, kind, definition, name FROM task_version "
                                  "ORDER BY task_id, version"):
        t.versions.setdefault(row[0], []).append(Version(row[0], row[1], TASK_STATES[row[2]], row[3], row[4] or 0, KINDS[row[5]],
                                                         json.loads(row[6]), row[7]))
    t.runs = [*read_runs(connection, "run_history"), *read_runs(connection, "run")]
    for row in select(connection, "SELECT scheduled_at, task_id, part, attempt, state, dispatched_at, finished_at, reason, started_at "
                                  "FROM attempt"):
        t.attempts.append(Attempt(tuple(row[:3]), row[3], RUN_STATES[row[4]], row[5] or 0, row[6] or 0, REASONS[row[7]],
                                  row[8] or 0))
    for child, parent, kept in select(connection, "SELECT child_id, parent_id, kept FROM dependency"):
        t.kept[(child, parent)] = kept
    t.events = {tuple(row) for row in select(connection, "SELECT scheduled_at, task_id, part FROM dependency_event")}
    t.inbox = dict(select(connection, "SELECT shard, count(*) FROM inbox GROUP BY shard"))
    connection.close()
    return t


@dataclass
class Entry:
    """A line of a journal: an executor's start or end, or what a client was promised (created, triggered)."""
    t: int
    event: str
    key: tuple
    attempt: int
    fence: int
    executor: str
    state: str
    task_id: int
    where: str


def read_journal(path):
    """The entries of one file. A last line cut short by a crash is left out; any other unreadable line is an error."""
    with open(path, "rb") as f:
        lines = f.read().split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            row = json.loads(line)
        except ValueError:
            if number == len(lines):
                continue
            raise ValueError(f"{path}:{number}: no JSON") from None
        at = row["t"] if "t" in row else instant(row["at"])
        yield Entry(at, row["event"], run_key(row["run_id"]) if row.get("run_id") else None, row.get("attempt") or 0,
                    row.get("fence") or 0, row.get("executor") or "", row.get("state") or "", int(row.get("task_id") or 0),
                    f"{path}:{number}")
