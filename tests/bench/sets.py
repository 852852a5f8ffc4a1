"""The sets of tests/bench/run: each is a function of the PostgreSQL server that returns rows for the table."""
import re
import subprocess
import sys
import time

from tests.bench import measure
from tests.bench.history import history
from tests.bench.nodes import nodes
from tests.bench.stage import Stage, built, wait_until
from tests.harness.kelou import ROOT, wait_for
from tests.harness.servers import dies_with_me

QUANTILES = ("p50_ms", "p99_ms", "p999_ms", "max_ms")
LIVE_LIMIT = 0.97  # of what was offered: held


def http_row(server, store, what, rate, tasks, seconds, inline, asked):
    """Offer `rate` lives a second over HTTP and see what is held."""
    with Stage(store, server, executors=1, inline=inline) as s:
        wait_until(s.make_rate(tasks, rate) + 3_000_000)
        w = s.window(seconds)
        late = s.finish()
        decided = s.database.decided(w["low"], w["high"] - 1_000_000)
    keep = {k: w[k] for k in ("node_us", "database_us", "executors_us", "rss_mb", "bytes")}
    return {"what": what, "asked": f"≥ {asked:,} lives/s", "reached": f"{w['lives_s']:,.0f} of {rate:,} offered, {w['busy']:.0f} % busy",
            "ok": w["lives_s"] >= asked * LIVE_LIMIT, **keep, "decided": decided, "accepted": [late[q] for q in QUANTILES]}


def http_postgres(server, short):
    seconds = 4 if short else 12
    return [http_row(server, "postgres", "PostgreSQL, HTTP, report", 8_200, 16_400, seconds, False, 8_000),
            http_row(server, "postgres", "PostgreSQL, HTTP, inline", 8_200, 16_400, seconds, True, 8_000),
            http_row(server, "postgres", "PostgreSQL, HTTP, inline, more", 12_000, 24_000, seconds, True, 8_000)]


def http_sqlite(server, short):
    seconds = 4 if short else 12
    return [http_row(server, "sqlite", "SQLite, HTTP, report", 6_200, 12_400, seconds, False, 6_000),
            http_row(server, "sqlite", "SQLite, HTTP, inline", 6_200, 12_400, seconds, True, 6_000)]


def lateness(server, short):
    """1,000 fires a second, spread evenly."""
    found = []
    for store in ("postgres", "sqlite"):
        with Stage(store, server, executors=1, inline=False) as s:
            wait_until(s.make_rate(4_000, 1_000) + 3_000_000)
            before = measure.metrics(s.node.base_url)
            w = s.window(4 if short else 12)
            committed = [measure.quantile(before, measure.metrics(s.node.base_url), "kelou_fire_lateness_seconds", q) for q in (.5, .99)]
            late = s.finish()
            decided = s.database.decided(w["low"], w["high"] - 1_000_000)
        keep = {k: w[k] for k in ("node_us", "database_us", "executors_us", "rss_mb", "bytes")}
        found.append({"what": f"{'PostgreSQL' if store == 'postgres' else 'SQLite'}, lateness at 1,000 fires/s", "asked": "committed p50 ≤ 2 ms, p99 ≤ 10 ms",
                      "reached": f"committed p50 {committed[0]:.1f} ms, p99 {committed[1]:.1f} ms", "ok": committed[0] <= 2 and committed[1] <= 10,
                      **keep, "decided": decided, "accepted": [late[q] for q in QUANTILES]})
    return found


def hostile(server, short):
    """The same with 10,000 idle and 1,000 slow connections."""
    idle, slow, found = 10_000, 1_000, []
    for store in ("postgres", "sqlite"):
        with Stage(store, server, executors=1, inline=False, settings={"http.max_connections": idle + slow + 500, "http.idle_timeout": "10m"}) as s:
            alone = measure.rss_mb(s.node.pid)
            crowd = subprocess.Popen(dies_with_me([sys.executable, "-m", "tests.bench.crowd", str(s.node.port), str(idle), str(slow)]), cwd=ROOT,
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            try:
                there = crowd.stdout.readline().strip() == "in"
                each = (measure.rss_mb(s.node.pid) - alone) * 1e6 / (idle + slow)
                wait_until(s.make_rate(4_000, 1_000) + 3_000_000)
                before = measure.metrics(s.node.base_url)
                w = s.window(4 if short else 12)
                committed = [measure.quantile(before, measure.metrics(s.node.base_url), "kelou_fire_lateness_seconds", q) for q in (.5, .99)]
                late = s.finish()
                decided = s.database.decided(w["low"], w["high"] - 1_000_000)
                stayed, cut = map(int, crowd.communicate("", timeout=30)[0].split())
            finally:
                crowd.kill()
        keep = {k: w[k] for k in ("node_us", "database_us", "executors_us", "rss_mb", "bytes")}
        found.append({"what": f"{'PostgreSQL' if store == 'postgres' else 'SQLite'}, the same with {idle:,} idle and {slow:,} slow connections",
                      "asked": "committed p99 ≤ 20 ms",
                      "reached": f"committed p50 {committed[0]:.1f} ms, p99 {committed[1]:.1f} ms; {stayed:,} idle ones stayed, slow ones cut {cut:,} times, "
                                 f"{each:,.0f} B a connection",
                      "ok": there and committed[1] <= 20 and stayed == idle, **keep, "decided": decided, "accepted": [late[q] for q in QUANTILES]})
    return found


def in_process(server, short):
    """kelou-bench: the executor is a function in the node."""
    found = []
    for store, asked, rate in (("postgres", 30_000, 32_000), ("sqlite", 30_000, 32_000)):
        s = Stage(store, server)
        command = [built("tests/bench/kelou-bench"), "--store", s.database.url, "--state-dir", s.folder, "--tasks", "64000", "--rate", str(rate),
                   "--seconds", "4" if short else "10", "--warmup", "3", *(["--database-pid", str(s.database.pid)] if s.database.pid else [])]
        got = subprocess.run(dies_with_me(command), capture_output=True, text=True, timeout=150, check=False)
        subprocess.run(["rm", "-rf", s.folder], check=False)
        what = f"{'PostgreSQL' if store == 'postgres' else 'SQLite'}, in process"
        lives = re.search(r"lives (\d+)/s", got.stdout)
        cpu = re.search(r"node ([\d.]+)\s+database ([\d.]+).*?(\d+) %\s+RSS (\d+)", got.stdout)
        late = re.search(r"p50 ([\d.]+)\s+p99 ([\d.]+)\s+p99.9 ([\d.]+)\s+max ([\d.]+)", got.stdout)
        if not lives or not cpu:
            found.append({"what": what, "asked": f"≥ {asked:,} lives/s", "reached": (got.stderr or got.stdout)[-200:].strip().replace("\n", " "), "ok": False})
            continue
        reached = int(lives.group(1))
        found.append({"what": what, "asked": f"≥ {asked:,} lives/s", "reached": f"{reached:,} of {rate:,} offered, {cpu.group(3)} % busy",
                      "ok": reached >= asked * LIVE_LIMIT, "node_us": float(cpu.group(1)), "database_us": float(cpu.group(2)), "rss_mb": float(cpu.group(4)),
                      "accepted": [float(x) for x in late.groups()] if late else []})
    return found


def herd(server, short):
    """10,000 ONE_TIME tasks due at one instant, over HTTP."""
    count, found = (2_000 if short else 10_000), []
    for store in ("postgres", "sqlite"):
        with Stage(store, server, executors=1, inline=False) as s:
            at = s.make_herd(count)
            committed = counted(s, "kelou_fires_total", count, at)
            ended = counted(s, "kelou_runs_total", count, at)
            late = s.finish()
            n = int(s.database.rows(f"SELECT count(*) FROM run_history WHERE scheduled_at = {at} AND state = 2")[0][0])
            decided = s.database.decided(at - 1, at)
        found.append({"what": f"{'PostgreSQL' if store == 'postgres' else 'SQLite'}, herd of {count:,}, HTTP", "asked": "all fired ≤ 1.5 s",
                      "reached": f"{n:,} succeeded; all fires committed within {committed:.2f} s, all ended within {ended:.2f} s",
                      "ok": n == count and committed <= 1.5, "decided": decided, "accepted": [late[q] for q in QUANTILES]})
    return found


def counted(s, name, count, at):
    """Seconds from `at` (µs) until the node has counted so many."""
    limit = time.time() + 60
    while time.time() < limit and measure.total(measure.metrics(s.node.base_url), name) < count:
        time.sleep(0.02)
    return time.time() - at / 1e6


def million(server, short):
    """1,000,000 stored tasks on PostgreSQL: how soon a node is ready, and how much memory it takes."""
    count = 100_000 if short else 1_000_000
    s = Stage("postgres", server)
    begin = time.monotonic()
    command = [built("tests/bench/kelou-bench"), "--store", s.database.url, "--state-dir", s.folder, "--tasks", str(count), "--rate", "100",
               "--seconds", "0", "--warmup", "0"]
    got = subprocess.run(dies_with_me(command), capture_output=True, text=True, timeout=240, check=False)
    made, begin = time.monotonic() - begin, time.monotonic()
    with s:
        ready, rss = time.monotonic() - begin, measure.rss_mb(s.node.pid)
        tasks = wait_for(lambda: measure.total(measure.metrics(s.node.base_url), "kelou_timer_entries"), 20, "the number of tasks")
    return [{"what": f"PostgreSQL, {count:,} stored tasks", "asked": "ready ≤ 10 s, RSS ≤ 400 MB",
             "reached": f"ready after {ready:.1f} s, {rss:.0f} MB ({tasks:,.0f} loaded; made in {made:.0f} s)",
             "ok": got.returncode == 0 and ready <= 10 and rss <= 400, "rss_mb": rss}]


SETS = (http_postgres, http_sqlite, lateness, nodes, hostile, in_process, herd, million, history)
WHEN_ASKED = (history,)  # minutes: only with --only
