"""The invariants I1–I5 of docs/testing.md over what was read. Each rule adds findings; `Findings` counts them."""
import bisect
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from .instants import NEVER, Instants, enabled, hash_u64, windows
from .tables import ENDED, RUN_STATES, duration, instant

MS, SECOND = 1_000, 1_000_000
AHEAD = 50 * MS          # a watermark may be ahead of the database's clock by so much
ROW_SLACK = 500 * MS     # decision and end of two runs are stamped by two threads
DELAY_SLACK = 5 * SECOND  # the end of a FIXED_DELAY run is durable before the trigger knows of it
LOST, DOUBLED, STUCK, OTHER = "lost", "doubled", "stuck", "other"
PENDING_REASONS = ("SCHEDULED", "QUEUED", "DISPATCHING", "RETRY_WAIT")
RUNNING_REASONS = ("ACCEPTED", "PROGRESS", "CANCELLING")
FAIL_REASONS = ("ERROR", "TIMEOUT", "LOST", "REJECTED", "NO_EXECUTOR", "EXPIRED")
SKIP_REASONS = ("OVERLAP", "CALENDAR", "MISFIRE", "LIMIT")
REASONS_OF = {"PENDING": PENDING_REASONS, "RUNNING": RUNNING_REASONS, "FAIL": FAIL_REASONS, "SKIPPED": SKIP_REASONS,
              "SUCCESS": ("NONE",), "CANCELLED": ("NONE",)}


@dataclass
class Findings:
    """What the rules found. `instants` counts those that were expected and looked for."""
    texts: dict = field(default_factory=lambda: defaultdict(list))
    counts: Counter = field(default_factory=Counter)
    tasks: int = 0
    runs: int = 0
    instants: int = 0
    starts: list = field(default_factory=list)  # further starts of an attempt, with their cause

    def add(self, kind, text, count=1):
        self.counts[kind] += count
        self.texts[kind].append(text)

    @property
    def bad(self):
        return sum(self.counts.values()) > 0


@dataclass
class Options:
    """What the caller knows: `all_ended`: no run may be open any more; `grace`: how long nobody could act (downtime and the like)."""
    all_ended: bool = False
    grace: int = 60 * SECOND


class Rules:
    """All rules over one set of tables and journals."""

    def __init__(self, tables, journal, crons, options):
        self.t, self.journal, self.o = tables, sorted(journal, key=lambda e: e.t), options
        self.instants, self.f = Instants(crons), Findings()
        self.version_of = {(v.task_id, v.version): v for vs in tables.versions.values() for v in vs}
        self.runs_of = defaultdict(list)
        for r in tables.runs:
            self.runs_of[r.task_id].append(r)
        self.by_key = {r.key: r for r in tables.runs}
        self.attempts_of = defaultdict(dict)
        for a in tables.attempts:
            self.attempts_of[a.key][a.attempt] = a

    def check(self):
        self.keys()
        self.shards()
        for task_id in sorted(self.t.versions):
            self.task(task_id)
        for r in self.t.runs:
            self.row(r)
            self.bounds(r)
        for runs in self.runs_of.values():
            self.overlap(runs)
        self.journals()
        return self.f

    # I2: no (task, instant, part) twice

    def keys(self):
        for key, n in Counter((r.task_id, r.scheduled_at, r.part) for r in self.t.runs).items():
            if n > 1:
                self.f.add(DOUBLED, f"task {key[0]} at {key[1]} part {key[2]} has {n} rows", n - 1)

    def shards(self):
        count = len(self.t.shards)
        for s in self.t.shards.values():
            if s.epoch != s.finish_epoch:
                self.f.add(OTHER, f"shard {s.id}: epoch {s.epoch} in shard, {s.finish_epoch} in shard_finish")
        for r in self.t.runs:
            if count and r.shard != hash_u64(r.task_id) % count:
                self.f.add(OTHER, f"{r}: is in shard {r.shard}")
        for task_id in self.t.tasks - set(self.t.versions):
            self.f.add(OTHER, f"task {task_id} has no version")

    # I1: each instant exactly one row

    def task(self, task_id):
        versions = self.t.versions[task_id]
        rows = sorted((r for r in self.runs_of[task_id] if r.part == 0), key=lambda r: r.scheduled_at)
        chain, plain = [], []
        for r in rows:
            v = self.version_of.get((task_id, r.version))
            if not v:
                self.f.add(OTHER, f"{r}: version {r.version} is unknown")
            elif v.kind == "MANUAL":
                self.f.add(DOUBLED, f"{r}: a MANUAL task has no instants")
            else:
                (chain if v.kind == "FIXED_DELAY" else plain).append(r)
        if any(v.kind == "FIXED_DELAY" for v in versions):
            self.delay_chain(task_id, versions, chain)
        self.plain_instants(task_id, versions, plain)

    def watermark(self, task_id):
        s = self.t.shards.get(hash_u64(task_id) % max(1, len(self.t.shards)))
        return (s.fired_at, s.fired_task) if s else (0, 0)

    def expected(self, task_id, versions, rows):
        """The Dues that the watermark has passed, and the instants of those that may be missing."""
        mark = self.watermark(task_id)
        by_number = {v.version: v for v in versions}
        found = [d for d in self.instants.all(versions, mark[0]) if (d.due, task_id) <= mark and enabled(by_number[d.version])]
        return self.cut_at_max_runs(versions, rows, found)

    def cut_at_max_runs(self, versions, rows, dues):
        """max_runs counts what was fired, not what was skipped, and a row that stands for a range once at most; what was caught up on request
        counts, too, at some time after the resume."""
        most = {v.version: v.schedule.get("max_runs", 0) for v in versions}
        if not any(most.values()):
            return dues, set()
        due = {d.nominal for d in dues}
        order, uncounted = sorted(due), set()
        for r in rows:
            covered = order[bisect.bisect_left(order, r.first):bisect.bisect_right(order, r.scheduled_at)]
            uncounted.update(covered if r.state == "SKIPPED" else (t for t in covered if t != r.scheduled_at))
        asked = sum(r.origin == "CATCHUP" and r.state != "SKIPPED" and r.scheduled_at not in due and most.get(r.version, 0) > 0
                    for r in rows)
        fired, kept, may = 0, [], set()
        for d in dues:
            if most[d.version] and fired >= most[d.version]:
                continue
            if most[d.version] and fired + asked >= most[d.version]:
                may.add(d.nominal)
            kept.append(d)
            fired += d.nominal not in uncounted
        return kept, may

    def optional(self, versions):
        """Instants of pauses: `resume` with catch_up may have made rows of them."""
        found, room = [], max(duration(v.schedule.get("jitter", "0s")) for v in versions)
        for i, v in enumerate(versions):
            if v.state != "PAUSED" or i + 1 == len(versions):
                continue
            for later in versions[i + 1:]:
                if enabled(later) and later.kind not in ("FIXED_DELAY", "MANUAL"):
                    found += self.instants.nominals(later, v.effective_at - room - 1, versions[i + 1].effective_at)
        return sorted(set(found))

    def plain_instants(self, task_id, versions, rows):
        dues, may = self.expected(task_id, versions, rows)
        self.f.instants += len(dues)
        extra = None
        times = {d.nominal: 0 for d in dues}
        order = sorted(times)
        place = 0
        for r in rows:
            while place < len(order) and order[place] < r.first:
                place += 1
            end, covered = place, []
            while end < len(order) and order[end] <= r.scheduled_at:
                covered.append(order[end])
                end += 1
            for t in covered:
                times[t] += 1
            if len(covered) == r.count and r.scheduled_at in times:
                continue
            if extra is None:
                extra = set(self.optional(versions)) - set(order)
            self.uneven(r, covered, sum(r.first <= t <= r.scheduled_at for t in extra), versions)
        for t, n in times.items():
            if n == 0 and t not in may:
                self.f.add(LOST, f"task {task_id} at {t}: no row")
            elif n > 1:
                self.f.add(DOUBLED, f"task {task_id} at {t}: {n} rows stand for it", n - 1)

    def uneven(self, r, covered, paused, versions):
        """A row that does not stand for exactly the instants that were due in its range."""
        if r.origin == "CATCHUP" or r.reason == "MISFIRE":
            if len(covered) <= r.count <= len(covered) + paused and r.count:
                return
        if not covered and r.count == 1:
            beyond = r.scheduled_at > self.watermark(r.task_id)[0]
            self.f.add(DOUBLED, f"{r}: nothing was due then{' (beyond the watermark)' if beyond else ''}, versions "
                                f"{[(v.version, v.state, v.effective_at) for v in versions]}")
        elif len(covered) > r.count:
            self.f.add(LOST, f"{r}: stands for {r.count} instants, {len(covered)} were due from {r.first} on", len(covered) - r.count)
        else:
            self.f.add(DOUBLED, f"{r}: stands for {r.count} instants, {len(covered)} were due from {r.first} on",
                       max(1, r.count - len(covered)))

    # FIXED_DELAY: each instant is the end of the run before and `every`

    @staticmethod
    def next_delays(versions, base):
        """What may come next, by version: {nominal: version}."""
        found = {}
        for v, limit in windows(versions):
            if v.kind != "FIXED_DELAY" or not enabled(v):
                continue
            every = duration(v.schedule["every"])
            start = instant(v.schedule["start_at"]) if "start_at" in v.schedule else 0
            nominal = base + every if base else 0
            if nominal <= v.effective_at:
                nominal = start if start > v.effective_at else v.effective_at + every
            end = instant(v.schedule["end_at"]) if "end_at" in v.schedule else NEVER
            if nominal <= min(end, limit):
                found.setdefault(nominal, v)
        return found

    def delay_chain(self, task_id, versions, rows):
        base, fired, before = 0, 0, None
        for r in rows:
            self.f.instants += 1
            if before and before.open:
                self.f.add(DOUBLED, f"{r}: the scheduled run before, at {before.scheduled_at}, has not ended")
            may = self.next_delays(versions, base)
            if r.scheduled_at not in may and not (before and before.open):
                least = min(may, default=NEVER)
                self.f.add(DOUBLED if r.scheduled_at < least else LOST, f"{r}: the FIXED_DELAY chain goes on at {sorted(may)}")
            fired += r.state != "SKIPPED"
            base, before = r.finished_at, r
        last = versions[-1]
        if (before and before.open) or last.kind != "FIXED_DELAY" or not enabled(last):
            return
        most = last.schedule.get("max_runs", 0)
        may = self.next_delays(versions[-1:], base)
        if may and not (most and fired >= most) and min(may) + DELAY_SLACK < self.watermark(task_id)[0]:
            self.f.add(LOST, f"task {task_id}: the FIXED_DELAY chain broke off, due at {min(may)}")

    # I3: every run ends

    def bounds(self, r):
        v = self.version_of.get((r.task_id, r.version))
        if not v:
            return
        bound = v.limit("timeout", "1d") + v.limit("cancel_timeout", "30s") + self.o.grace
        if r.open and (self.o.all_ended or self.t.now - max(r.fired_at, r.not_before) > bound):
            self.f.add(STUCK, f"{r}: still open, fired at {r.fired_at}, attempt at {r.attempt_at}")
        if not r.open and r.finished_at - r.fired_at > bound:
            self.f.add(STUCK, f"{r}: ended {(r.finished_at - r.fired_at) / SECOND:.1f} s after its fire")
        if r.attempt > v.max_attempts + self.unclaimed(r, v):
            self.f.add(OTHER, f"{r}: at most {v.max_attempts} attempts were allowed")

    def unclaimed(self, r, v):
        """Attempts that do not count: of a task with exactly_one_start, lost before they were claimed."""
        rows = self.attempts_of[(r.scheduled_at, r.task_id, r.part)].values()
        return sum(a.reason == "LOST" and not a.started_at for a in rows) if v.definition.get("exactly_one_start") else 0

    # I4: overlap, as committed by the centre

    def first_dispatch(self, r):
        """When the run began to count: 0 when it never did."""
        first = self.attempts_of[(r.scheduled_at, r.task_id, r.part)].get(1)
        return first.dispatched_at if first and first.dispatched_at else r.attempt_at if r.attempt else 0

    def overlap(self, runs):
        spans = []
        for r in runs:
            v = self.version_of.get((r.task_id, r.version))
            begin = self.first_dispatch(r)
            if v and begin and r.state != "SKIPPED":
                spans.append((begin, NEVER if r.open else r.finished_at, v.overlap_policy, r))
        spans.sort(key=lambda s: s[:2])
        latest = None
        for s in spans:
            if latest and s[2] != "ALLOW" and s[0] + ROW_SLACK < latest[1]:
                self.f.add(OTHER, f"{s[3]}: began at {s[0]}, while {latest[3]} ran until {latest[1]}")
            if not latest or s[1] > latest[1]:
                latest = s

    # I5: rows agree with themselves

    def row(self, r):
        def bad(what):
            self.f.add(OTHER, f"{r}: {what}")
        if (r.state in ENDED) == r.open:
            bad("its state does not belong into its table")
        if r.state not in RUN_STATES or r.reason not in REASONS_OF[r.state]:
            bad(f"the reason {r.reason} does not belong to its state")
        if r.part == 0 and r.origin not in ("SCHEDULE", "CATCHUP"):
            bad(f"origin {r.origin} in part 0")
        if r.part and r.origin in ("SCHEDULE", "CATCHUP"):
            bad(f"origin {r.origin} in part {r.part}")
        if r.part == 0 and r.fired_at + AHEAD < r.scheduled_at:
            bad(f"fired {(r.scheduled_at - r.fired_at) / MS:.1f} ms before its instant")
        if r.missed_first > r.scheduled_at or (r.missed_first and r.missed_count < 2):
            bad(f"{r.missed_count} instants from {r.missed_first} to {r.scheduled_at}")
        if not r.open:
            self.ended_row(r, bad)
        rows = self.attempts_of[(r.scheduled_at, r.task_id, r.part)]
        missing = [n for n in range(1, r.attempt + (0 if r.open else 1)) if n not in rows] if r.attempt > 1 else []
        if missing:
            bad(f"no rows of the attempts {missing}")
        if any(n > r.attempt for n in rows):
            bad(f"rows of attempts {sorted(rows)}")

    @staticmethod
    def ended_row(r, bad):
        if r.finished_at < r.fired_at:
            bad(f"finished at {r.finished_at}, fired at {r.fired_at}")
        if r.started_at > r.finished_at:
            bad(f"started at {r.started_at}, finished at {r.finished_at}")
        if r.state == "SUCCESS" and not (r.attempt and r.executor):
            bad("a success without an attempt or an executor")
        if r.state == "SKIPPED" and r.attempt:
            bad("skipped, but attempted")

    # the journals: what executors did, what clients were promised

    def journals(self):
        if not self.journal:
            return
        starts, ends = defaultdict(list), defaultdict(list)
        for e in self.journal:
            if e.event == "start":
                starts[(e.key, e.attempt)].append(e)
            elif e.event == "end":
                ends[(e.key, e.attempt)].append(e)
            elif e.event in ("created", "triggered"):
                self.promised(e)
        for key, entries in starts.items():
            self.started(key, entries, ends[key])
        if starts:
            self.unstarted(starts, ends)
            self.overlap_at_executors(starts, ends)

    def promised(self, e):
        if e.event == "created" and e.task_id not in self.t.tasks and e.task_id not in self.t.versions:
            self.f.add(LOST, f"task {e.task_id} was acknowledged and is not there ({e.where})")
        if e.event == "triggered" and e.key not in self.by_key:
            self.f.add(LOST, f"the run {e.key} was acknowledged and is not there ({e.where})")

    def started(self, key, entries, ends):
        run, attempt = self.by_key.get(key[0]), key[1]
        if not run:
            self.f.add(OTHER, f"the run {key[0]} was started and has no row ({entries[0].where})")
            return
        if attempt > run.attempt:
            self.f.add(OTHER, f"{run}: attempt {attempt} was started ({entries[0].where})")
        if run.fired_at > entries[0].t + ROW_SLACK:
            self.f.add(OTHER, f"{run}: started at {entries[0].t}, before it was fired at {run.fired_at}")
        v = self.version_of.get((run.task_id, run.version))
        if len(entries) > 1 and v and v.definition.get("exactly_one_start"):
            self.f.add(DOUBLED, f"{run}: attempt {attempt} was started {len(entries)} times, its task asks for exactly_one_start "
                                f"({', '.join(e.where for e in entries)})", len(entries) - 1)
            return
        for earlier, later in zip(entries, entries[1:]):
            self.f.starts.append(f"{run}: attempt {attempt} started again: {self.cause(earlier, later, ends)}")

    @staticmethod
    def cause(earlier, later, ends):
        if later.fence < earlier.fence:
            return f"a stale owner delivered it (fence {later.fence} after {earlier.fence})"
        ended = any(e.executor == earlier.executor and earlier.t <= e.t <= later.t for e in ends)
        where = "at the same executor" if later.executor == earlier.executor else f"at {later.executor} after {earlier.executor}"
        why = ("a new owner delivered it again" if later.fence > earlier.fence else "its acknowledgement was lost")
        return f"{why}, {where}, {'before its report arrived' if ended else 'while it ran or after it died there'}"

    def unstarted(self, starts, ends):
        """A result that no executor ever made."""
        known = {e.executor for entries in starts.values() for e in entries}
        for r in self.t.runs:
            if r.state != "SUCCESS" or r.executor not in known:
                continue
            if (r.key, r.attempt) not in starts:
                self.f.add(OTHER, f"{r}: succeeded at {r.executor}, which never started it")
            elif not any(e.state == "SUCCESS" for e in ends[(r.key, r.attempt)]):
                self.f.add(OTHER, f"{r}: succeeded, which {r.executor} never said")

    def overlap_at_executors(self, starts, ends):
        """Two runs of one task at work at once, though their policy forbids it (runs that timed out or were lost may linger)."""
        spans = defaultdict(list)
        for (key, attempt), entries in starts.items():
            run = self.by_key.get(key)
            v = run and self.version_of.get((run.task_id, run.version))
            if not v or v.overlap_policy == "ALLOW" or run.state != "SUCCESS" or attempt != run.attempt or len(entries) > 1:
                continue
            end = [e.t for e in ends[(key, attempt)]]
            if end:
                spans[run.task_id].append((entries[0].t, min(end), run))
        for found in spans.values():
            found.sort(key=lambda s: s[:2])
            for a, b in zip(found, found[1:]):
                if b[0] < a[1]:
                    self.f.add(OTHER, f"{b[2]}: started at its executor {(a[1] - b[0]) / MS:.1f} ms before {a[2]} ended")
