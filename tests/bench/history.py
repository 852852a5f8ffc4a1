"""A large history in PostgreSQL: is a list still quick, does a dropped day disturb anybody, do lives cost more?"""
import subprocess
import time
from datetime import datetime, timedelta, timezone
from statistics import median

from tests.bench import measure
from tests.bench.stage import Stage, built, rfc3339, wait_until
from tests.harness.kelou import wait_for
from tests.harness.servers import dies_with_me

DAYS = 10
LIST_MS = 50
DROP_SECONDS = 1.0
FIRE_LATE_MS = 100
COST_LIMIT = 1.2
US_PER_DAY = 86_400_000_000
RARE = 100  # tasks and runs that are easy to miss among all the others

# of ended runs: state, reason and executor by a number that is different for each
RUN_OF = """SELECT {low} + (n * 7919 % 86400000) * 1000, id, {low}, {low} + (n * 7919 % 86400000) * 1000 + 9000, {low}, {low},
 NULL, NULL, NULL, shard, 0, 1, 1,
 CASE WHEN n % 100000 < 4000 THEN 3 WHEN n % 100000 < 4500 THEN 4 WHEN n % 100000 < 5000 THEN 5 ELSE 2 END,
 CASE WHEN n % 100000 = 7 THEN 9 WHEN n % 100000 < 4000 THEN 8 WHEN n % 100000 BETWEEN 4500 AND 4999 THEN 14 ELSE 0 END, 0,
 CASE WHEN n % 500000 = 11 THEN 'seldom' ELSE 'x' || n % 50 END, NULL, NULL, NULL, '"done"', NULL, NULL, NULL
 FROM (SELECT id, shard, row_number() OVER () + {seed} AS n FROM task LIMIT {rows}) t"""


def days_ago(n):
    midnight = datetime.now(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight - timedelta(days=n)


def make_tasks(s, count):
    """As many tasks as the million set, in the state of a database that has been used for a while."""
    command = [built("tests/bench/kelou-bench"), "--store", s.database.url, "--state-dir", s.folder, "--tasks", str(count), "--rate", "1",
               "--seconds", "0", "--warmup", "0"]
    subprocess.run(dies_with_me(command), capture_output=True, text=True, timeout=240, check=True)
    sql = s.database.rows
    sql("TRUNCATE run, attempt")  # nobody was there to do what has fired since
    sql(f"TRUNCATE run_history_{days_ago(0):%Y%m%d}")
    sql("DELETE FROM executor_group")  # the stage makes it anew, with a secret of its own
    sql("INSERT INTO namespace (name) VALUES ('rare')")
    some = f"(shard, id) IN (SELECT shard, id FROM task WHERE id % 7 = 3 ORDER BY shard, id LIMIT {RARE})"
    sql(f"UPDATE task SET ns = 'rare', group_name = 'small', handler = 'seldom', name = 'needle-' || id WHERE {some}")
    sql(f"UPDATE task SET state = 1 WHERE state = 0 AND (shard, id) IN (SELECT shard, id FROM task WHERE id % 11 = 5 ORDER BY shard, id LIMIT {RARE})")
    sql(f"UPDATE task SET kind = 4 WHERE (shard, id) IN (SELECT shard, id FROM task WHERE id % 13 = 5 ORDER BY shard, id LIMIT {RARE})")


def make_history(s, runs):
    """Days of ended runs, each loaded like a restored partition: rows, then indexes, then attached."""
    sql = s.database.rows
    columns = [r[0] for r in sql("SELECT indexdef FROM pg_indexes WHERE tablename = 'run_history' ORDER BY indexname <> 'run_history_pkey'")]
    for day in range(1, DAYS + 1):
        low = int(days_ago(day).timestamp()) * 1_000_000
        name = f"run_history_{days_ago(day):%Y%m%d}"
        if sql(f"SELECT 1 FROM pg_class WHERE relname = '{name}'"):
            sql(f"DROP TABLE {name}")  # yesterday's, made by the node
        sql(f"CREATE TABLE {name} (LIKE run_history INCLUDING DEFAULTS)")
        sql(f"INSERT INTO {name} {RUN_OF.format(low=low, seed=day * 1_000_003, rows=runs // DAYS)} ORDER BY 1")
        sql(f"ALTER TABLE {name} ADD PRIMARY KEY (scheduled_at, task_id, part)")
        for at, definition in enumerate(columns[1:]):
            head, _, tail = definition.partition(" ON ONLY public.run_history ")
            sql(f"CREATE INDEX {name}_{at} ON {name} {tail}" if tail else head)
        sql(f"ALTER TABLE run_history ATTACH PARTITION {name} FOR VALUES FROM ({low}) TO ({low + US_PER_DAY})")
    sql("VACUUM ANALYZE")


def timed(api, path, **params):
    """Median and greatest of three looks (ms), after one that warms up; the items of the last."""
    api.ok("GET", path, params=params, timeout=60)
    took = []
    for _ in range(3):
        begin = time.monotonic()
        page = api.ok("GET", path, params=params, timeout=60)
        took.append((time.monotonic() - begin) * 1000)
    return median(took), max(took), page


def lists(s):
    """Every filter of both lists, what it finds often, seldom or never, and a cursor deep inside."""
    api, middle = s.node.api(), rfc3339(int(days_ago(5).timestamp()) * 1_000_000)
    rare = s.database.rows("SELECT id FROM task WHERE ns = 'rare' LIMIT 1")[0][0]
    often = s.database.rows("SELECT id FROM task WHERE ns = 'default' LIMIT 1")[0][0]
    asked = [("/runs", p) for p in (
        {}, {"namespace": "default"}, {"namespace": "rare"}, {"task": often}, {"task": rare}, {"state": "SUCCESS"}, {"state": "FAIL"},
        {"state": "CANCELLED"}, {"state": "SKIPPED,CANCELLED"}, {"state": "PENDING"}, {"state": "RUNNING"}, {"reason": "ERROR"},
        {"reason": "TIMEOUT"}, {"reason": "LOST"}, {"reason": "MISFIRE"}, {"executor": "x7"}, {"executor": "seldom"}, {"executor": "nobody"},
        {"until": middle}, {"since": middle}, {"namespace": "rare", "state": "FAIL"}, {"state": "FAIL", "until": middle},
        {"state": "FAIL", "executor": "nobody"}, {"executor": "seldom", "until": middle})]
    asked += [("/tasks", p) for p in (
        {}, {"namespace": "default"}, {"namespace": "rare"}, {"group": "small"}, {"namespace": "rare", "group": "small"}, {"group": "nobody"},
        {"handler": "seldom"}, {"handler": "nobody"}, {"state": "ENABLED"}, {"state": "PAUSED"}, {"state": "COMPLETED"}, {"kind": "FIXED_RATE"},
        {"kind": "MANUAL"}, {"kind": "CRON"}, {"name_prefix": "needle"}, {"name_prefix": "nobody"}, {"name_contains": "eedle-"},
        {"name_contains": "nobody"})]
    found = {}
    for path, params in asked:
        found[f"{path} {params}"] = timed(api, path, **params)[:2]
        if path == "/runs" and params in ({"until": middle}, {"namespace": "default"}):
            cursor = api.ok("GET", path, params=params)["next_cursor"]
            found[f"{path} {params} next page"] = timed(api, path, cursor=cursor, **params)[:2]
    cursor = None
    for _ in range(100):
        page = api.ok("GET", "/tasks", params={"limit": 100, **({"cursor": cursor} if cursor else {})}, timeout=60)
        cursor = page["next_cursor"]
    found["/tasks, page 101"] = timed(api, "/tasks", cursor=cursor)[:2]
    return found


def lives(server, s, rate, seconds, tasks):
    """What a life costs while `rate` a second are offered."""
    wait_until(s.make_rate(tasks, rate) + 3_000_000)
    w = s.window(seconds)
    late = s.database.decided(w["low"], w["high"] - 1_000_000)
    return w, late


def drop_day(s, seconds):
    """Let the oldest day go while runs are fired: how long it takes, and how late the latest fire is."""
    sql = s.database.rows
    oldest = f"run_history_{days_ago(DAYS):%Y%m%d}"
    sql(f"UPDATE namespace SET retention_age = {(DAYS - 1) * US_PER_DAY}")  # of all at once: else the day could not go as a whole
    begin, low = time.monotonic(), time.time_ns() // 1000

    def parent():
        rows = sql(f"SELECT i.inhparent::regclass FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE c.relname = '{oldest}'")
        return rows[0][0] if rows else ""
    wait_for(lambda: parent() != "run_history", 60, "the day is taken", every=0.01)
    taken = time.monotonic()
    wait_for(lambda: not parent(), 240, "the day is gone", every=0.05)
    gone = time.monotonic()
    time.sleep(max(0.0, seconds - (gone - begin)))
    return taken - begin, gone - taken, low


def history(server, short):
    """10 million ended runs and a million tasks: every list ≤ 50 ms, a day gone ≤ 1 s without a late fire, no dearer lives."""
    count, runs, rate, seconds = (50_000, 500_000, 500, 4) if short else (1_000_000, 10_000_000, 2_000, 10)
    with Stage("postgres", server, executors=1) as s:
        empty, empty_late = lives(server, s, rate, seconds, rate * 2)
    rows = []
    s = Stage("postgres", server, executors=1, settings={"retention.age": "0s", "retention.every": "500ms"})
    begin = time.monotonic()
    make_tasks(s, count)
    made, begin = time.monotonic() - begin, time.monotonic()
    make_history(s, runs)
    loaded = time.monotonic() - begin
    with s:
        begin = time.monotonic()
        wait_for(lambda: int(s.database.rows("SELECT count(*) FROM pg_index WHERE indisvalid AND indexrelid::regclass::text ~ '_[0-9]{8}_executor$'")[0][0]) >= DAYS, 400,
                 "the days that are over have their last index", every=0.5)
        settled = time.monotonic() - begin
        found = lists(s)
        worst = sorted(found.items(), key=lambda kv: -kv[1][0])
        for name, (mid, most) in worst[:12]:
            print(f"    {mid:8.1f} {most:8.1f} ms  {name}", flush=True)
        rows.append({"what": f"PostgreSQL, {runs:,} ended runs, {count:,} tasks: lists", "asked": f"each ≤ {LIST_MS} ms",
                     "reached": f"{len(found)} lists, median {median(m for m, _ in found.values()):.1f} ms, slowest {worst[0][1][0]:.0f} ms "
                                f"({worst[0][0]}); loaded in {made:.0f} + {loaded:.0f} s, last indexes {settled:.0f} s", "ok": worst[0][1][0] <= LIST_MS})
        full, full_late = lives(server, s, rate, seconds, rate * 2)
        cost, before = full["node_us"] + full["database_us"], empty["node_us"] + empty["database_us"]
        rows.append({"what": "the same: lives beside it", "asked": f"{rate:,}/s, ≤ {COST_LIMIT:.1f} × the empty one's CPU",
                     "reached": f"{full['lives_s']:,.0f}/s for {cost:.0f} µs; empty: {empty['lives_s']:,.0f}/s for {before:.0f} µs",
                     "ok": cost <= before * COST_LIMIT and full["lives_s"] >= empty["lives_s"] / COST_LIMIT,
                     **{k: full[k] for k in ("node_us", "database_us", "executors_us", "rss_mb", "bytes")}, "decided": full_late})
        taken, gone, low = drop_day(s, seconds)
        late = s.database.decided(low, time.time_ns() // 1000 - 1_000_000)
        rows.append({"what": f"the same: a day of {runs // DAYS:,} runs dropped", "asked": f"out of the history ≤ {DROP_SECONDS:.0f} s, no fire later than {FIRE_LATE_MS} ms",
                     "reached": f"out of it {taken:.2f} s after the order, counted per task and off the disk {gone:.1f} s later",
                     "ok": taken <= DROP_SECONDS + 0.5 and late[3] <= FIRE_LATE_MS, "decided": late})
    return rows
