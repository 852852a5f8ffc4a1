"""What runs log: taken in any order, kept in theirs, once; bounded, marked where something is missing, read to the end, gone with retention."""
import json
import signal
import sqlite3
import subprocess
from datetime import datetime, timedelta, timezone

import pytest

from tests.harness.fake_executor import Accept, Done
from tests.harness.kelou import binary, wait_for
from tests.harness.world import Scene

US_PER_DAY = 86_400_000_000


@pytest.fixture(scope="module")
def world_settings():
    return {"report.log_max_lines": 50, "report.log_max_bytes": "20KiB", "report.log_max_line": "1KiB"}


def line(seq, text=None, **more):
    return {"seq": seq, "text": f"line {seq}" if text is None else text, **more}


class Log:
    """The log of one open run, and the executor that writes it."""

    def __init__(self, scene, executor, **task):
        executor.answer(Accept(report=None))
        seen = len(executor.deliveries)
        self.scene, self.executor = scene, executor
        self.id = scene.task(**task).trigger()
        self.delivery = executor.wait_deliveries(seen + 1)[seen]
        scene.wait_run(self.id, "PENDING", "RUNNING")

    def entry(self, lines, attempt=1, **more):
        return {"run_id": self.id, "attempt": attempt, "fence": self.delivery.fence, "log": lines, **more}

    def send(self, *lines, attempt=1, **more):
        """The status of a report with these lines."""
        answer = self.executor.report_many([self.entry(list(lines), attempt, **more)])
        assert answer.status_code == 200, answer.text
        (result,) = answer.json()["results"]
        assert result["run_id"] == self.id
        return result["status"]

    def end(self, state="SUCCESS", **more):
        answer = self.executor.report(self.id, 1, self.delivery.fence, state, **more)
        assert answer.status_code == 200, answer.text

    def page(self, **params):
        return self.scene.api.ok("GET", f"/runs/{self.id}/logs", params=params)

    def rows(self, **params):
        """All rows to the present end: (attempt, seq) of a line, (attempt, "gap" or "cut", from, to) of what is not there."""
        found = []
        while True:
            page = self.page(**params)
            found += [short(row) for row in page["items"]]
            if not page["more"]:
                return found
            params["cursor"] = page["next_cursor"]


def short(row):
    for kind in ("gap", "cut"):
        if kind in row:
            assert set(row) == {"attempt", kind}
            return row["attempt"], kind, row[kind]["from"], row[kind]["to"]
    return row["attempt"], row["seq"]


def test_lines_are_read_in_their_order(scene):
    log = Log(scene, scene.executor())
    assert log.page() == {"items": [], "next_cursor": log.page()["next_cursor"], "more": False, "ended": False,
                          "state": scene.run(log.id)["state"]}
    assert log.send(line(3, "c"), line(2, "b", level="ERROR")) == "recorded"
    assert log.send(line(1, "a", at="2026-11-23T04:46:10.5Z"), line(2, "another b")) == "recorded"
    assert log.send(line(4, "")) == "recorded"
    page = log.page()
    assert [row["text"] for row in page["items"]] == ["a", "b", "c", ""]
    assert [row["level"] for row in page["items"]] == ["INFO", "ERROR", "INFO", "INFO"]
    assert page["items"][0] == {"attempt": 1, "seq": 1, "at": "2026-11-23T04:46:10.500Z", "level": "INFO", "text": "a"}
    assert page["items"][1]["at"] > "2026-11-30"  # not said: when it came
    assert scene.run(log.id)["state"] in ("PENDING", "RUNNING") and not page["ended"]
    log.end()
    assert log.page()["ended"] and log.page()["state"] == "SUCCESS"


def test_repeated_lines_are_harmless(scene):
    log = Log(scene, scene.executor())
    for _ in range(3):
        assert log.send(line(1), line(2), line(2), line(1)) == "recorded"
    assert log.rows() == [(1, 1), (1, 2)]


def test_pages_and_places(scene):
    log = Log(scene, scene.executor())
    log.send(*[line(n) for n in range(1, 8)])
    log.send(*[line(n) for n in range(1, 4)], attempt=2)
    everything = [(1, n) for n in range(1, 8)] + [(2, n) for n in range(1, 4)]
    for limit in (1, 2, 3, 7, 10, 11):
        assert log.rows(limit=limit) == everything, limit
    assert log.rows(attempt=2) == everything[7:] and log.rows(attempt=9) == []
    assert log.rows(after=5) == everything[5:] and log.rows(attempt=1, after=6) == [(1, 7)] and log.rows(attempt=2, after=2) == [(2, 3)]
    first = log.page(limit=4)
    assert first["more"]
    second = log.page(limit=100, cursor=first["next_cursor"])
    assert [short(r) for r in second["items"]] == everything[4:] and not second["more"]
    at_end = log.page(cursor=second["next_cursor"])  # the present end is a place, too
    assert at_end["items"] == [] and not at_end["more"]
    log.send(line(4), attempt=2)
    assert [short(r) for r in log.page(cursor=at_end["next_cursor"])["items"]] == [(2, 4)]
    for query, where in (("limit=0", "?limit"), ("attempt=0", "?attempt"), ("attempt=101", "?attempt"), ("after=-1", "?after"),
                         ("after=x", "?after"), ("cursor=zz", "?cursor"), ("cursor=" + first["next_cursor"] + "&attempt=1", "?cursor")):
        problem = scene.api.problem("GET", f"/runs/{log.id}/logs?{query}", status=400)
        assert problem["errors"][0]["parameter"] == where[1:], problem
    scene.api.problem("GET", f"/runs/{'0' * 36}/logs", status=404)


def test_holes_are_marked(scene):
    log = Log(scene, scene.executor())
    log.send(line(1), line(2))
    log.send(line(5))
    page = log.page()
    assert [short(r) for r in page["items"]] == [(1, 1), (1, 2)]  # what is sent at the same time may overtake
    cursor = page["next_cursor"]
    log.send(line(4))
    log.send(line(3))
    assert [short(r) for r in log.page(cursor=cursor)["items"]] == [(1, 3), (1, 4), (1, 5)]
    log.send(line(9))
    rows = wait_for(lambda: log.rows()[5:], 20, "the hole is old enough", every=0.2)
    assert rows == [(1, "gap", 6, 8), (1, 9)]
    log.send(line(20))
    log.end()
    assert log.rows()[7:] == [(1, "gap", 10, 19), (1, 20)]  # nothing is waited for when the run has ended
    log.send(line(10), line(19))
    assert log.rows()[7:] == [(1, 10), (1, "gap", 11, 18), (1, 19), (1, 20)]


def test_a_run_is_bounded(scene):
    executor = scene.executor()
    log = Log(scene, executor)
    before = scene.node.metrics()
    log.send(*[line(n) for n in range(1, 61)])
    assert log.rows() == [(1, n) for n in range(1, 51)] + [(1, "cut", 51, 60)]
    for _ in range(2):
        log.send(*[line(n) for n in range(49, 71)], line(1))
    log.send(line(1), attempt=2)
    assert log.rows() == [(1, n) for n in range(1, 51)] + [(1, "cut", 51, 70), (2, "cut", 1, 1)]
    log.end(log=[line(71, "the last")])
    assert scene.run(log.id)["state"] == "SUCCESS"
    other = Log(scene, executor, name="other")
    other.send(line(1))
    assert other.rows() == [(1, 1)]  # each run for itself
    after = scene.node.metrics()

    def grown(name, result):
        key = f'{name}{{result="{result}"}}'
        return after[key] - before[key]
    assert grown("kelou_run_log_lines_total", "taken") == 51 and grown("kelou_run_log_lines_total", "dropped") == 10 + 2 * 20 + 1 + 1
    assert grown("kelou_run_log_lines_total", "repeated") == 2 * 3
    assert grown("kelou_run_log_bytes_total", "taken") == sum(len(f"line {n}") for n in range(1, 51)) + len("line 1")


def test_bytes_are_bounded_and_long_lines_cut(scene):
    log = Log(scene, scene.executor())
    log.send(line(1, "é" * 600))
    (row,) = log.page()["items"]
    assert row["text"] == "é" * 512 and row["cut_bytes"] == 176
    log.send(*[line(n, "x" * 1024) for n in range(2, 30)])
    assert log.rows() == [(1, n) for n in range(1, 21)] + [(1, "cut", 21, 29)]
    log.send(line(30, ""))  # beyond is beyond, however small
    assert log.rows()[20:] == [(1, "cut", 21, 30)]


def test_late_lines_are_taken(scene):
    executor = scene.executor()
    executor.script(Done(state="FAIL", error={"type": "T", "message": "m"}))
    log = Log(scene, executor, retry={"max_attempts": 2, "initial_interval": "10ms"})
    second = executor.wait_deliveries(2)[1]
    assert second.run_id == log.id and second.attempt == 2
    assert log.send(line(1, "of the second"), attempt=2) == "recorded"
    assert log.send(line(1, "of the first")) == "recorded"
    assert executor.report(log.id, 2, second.fence, "SUCCESS").json()["results"][0]["status"] == "recorded"
    assert log.send(line(2, "after the end"), attempt=2) == "recorded"
    assert log.send(line(3), attempt=2, state="FAIL") == "late"  # the state is, the lines are not
    assert [row["text"] for row in log.page()["items"]] == ["of the first", "of the second", "after the end", "line 3"]
    assert scene.run(log.id)["state"] == "SUCCESS"


def test_only_the_runs_own_group_may_log(scene):
    executor, stranger = scene.executor(), scene.executor("stranger", "other")
    log = Log(scene, executor)
    for ended in (False, True):
        if ended:
            log.end()
        for entry in (log.entry([line(1)]), log.entry([line(1)], state="SUCCESS")):
            answer = stranger.report_many([entry])
            assert answer.status_code == 403 and answer.json()["code"] == "forbidden", answer.text
            assert [r["status"] for r in answer.json()["results"]] == ["forbidden"]
        assert log.rows() == [] and (scene.run(log.id)["state"] == "SUCCESS") == ended
    other = Log(scene, stranger, name="other", group="other")
    answer = stranger.report_many([log.entry([line(1)]), other.entry([line(1)])])
    assert [r["status"] for r in answer.json()["results"]] == ["forbidden", "recorded"]
    assert log.rows() == [] and other.rows() == [(1, 1)]
    assert scene.api.ok("POST", "/reports", {"reports": [log.entry([line(1)])]})["results"][0]["status"] == "recorded"  # bound to no group


def test_only_those_who_see_a_run_read_its_log(scene):
    log = Log(scene, scene.executor())
    log.send(line(1))
    assert scene.api.post("/namespaces", {"name": "elsewhere"}).ok
    for namespace, status in (("elsewhere", 404), ("default", 200)):
        token = scene.api.ok("POST", "/tokens", {"name": f"v-{scene.number}-{namespace}", "role": "VIEWER", "namespace": namespace}, status=201)["token"]
        assert scene.node.api(token).get(f"/runs/{log.id}/logs").status_code == status
    assert log.executor.api.get(f"/runs/{log.id}/logs").status_code == 403


def test_states_and_lines_in_one_request(scene):
    executor = scene.executor()
    a, b, c = Log(scene, executor, name="a"), Log(scene, executor, name="b"), Log(scene, executor, name="c")
    never = a.id[:-4] + ("0" if a.id[-4] != "0" else "1") + a.id[-3:]  # well formed; there is no such run
    answer = executor.report_many([a.entry([line(1)]), b.entry([line(1)], state="SUCCESS", result=7), {**c.entry([]), "state": "FAIL"},
                                   a.entry([line(2)], state="RUNNING", progress=0.5), {**a.entry([line(1)]), "run_id": never}])
    assert [r["status"] for r in answer.json()["results"]] == ["recorded"] * 4 + ["late"], answer.text
    assert scene.wait_run(a.id, "RUNNING")["progress"] == 0.5
    assert [scene.run(x.id)["state"] for x in (b, c)] == ["SUCCESS", "FAIL"] and scene.run(b.id)["result"] == 7
    assert a.rows() == [(1, 1), (1, 2)] and b.rows() == [(1, 1)] and c.rows() == []


def test_bad_lines_are_refused_by_their_place(scene):
    executor = scene.executor()
    log = Log(scene, executor)
    good = log.entry([line(1)])
    bad = {"/log": {"log": {}}, "/log ": {"log": "x"}, "/log  ": {"log": [line(n + 1) for n in range(1001)]}, "/log/0": {"log": [1]},
           "/log/1/seq": {"log": [line(1), {"text": "x"}]}, "/log/0/seq": {"log": [line(0)]}, "/log/0/seq ": {"log": [line(2 ** 31)]},
           "/log/0/seq  ": {"log": [line("1")]}, "/log/0/text": {"log": [{"seq": 1}]}, "/log/0/text ": {"log": [{"seq": 1, "text": 5}]},
           "/log/0/level": {"log": [line(1, level="NOTICE")]}, "/log/0/at": {"log": [line(1, at="noon")]},
           "/log/0/more": {"log": [line(1, more=1)]}, "/state": {"progress": 0.5}, "/state ": {"result": 1}, "/state  ": {"log": []},
           "/state   ": {"error": {"type": "x"}}, "/state    ": {"finished_at": "2026-11-23T04:46:10Z"}, "/attempt": {"attempt": 0}}
    for pointer, change in bad.items():
        problem = executor.api.problem("POST", "/reports", {"reports": [good, {**good, **change}]}, status=400)
        assert problem["errors"][0]["pointer"] == "/reports/1" + pointer.strip(), (pointer, problem)
    assert log.rows() == []  # nothing of a request that is refused
    assert log.send(line(1, level=None, at=None)) == "recorded"
    assert log.send(state="RUNNING") == "recorded"  # an empty list is none


def test_lines_are_no_beat(scene):
    """A run that only logs is silent for its heartbeat_timeout: RUNNING is the beat, with lines or without."""
    executor = scene.executor()
    log = Log(scene, executor, heartbeat_timeout="1s", on_lost="FAIL", retry={"max_attempts": 1})
    log.send(line(1), state="RUNNING")
    seq = [1]

    def look():
        seq[0] += 1
        log.send(line(seq[0]))
        assert scene.run(log.id)["state"] == "FAIL"
        return True
    wait_for(look, 20, "the run is lost", every=0.1)
    assert scene.run(log.id)["reason"] in ("TIMEOUT", "LOST")


# ---------------------------------------------------------------- the whole way, by hand

def scene_of(node, tmp_path, request):
    scene = Scene(node, tmp_path)

    def end():
        for executor in scene.executors:
            executor.stop()
    request.addfinalizer(end)
    return scene


def test_acknowledged_lines_survive_a_kill(make_node, tmp_path, request):
    node = make_node().start()
    scene = scene_of(node, tmp_path, request)
    log = Log(scene, scene.executor())
    sent = 0
    for _ in range(3):
        for _ in range(20):
            assert log.send(line(sent + 1), line(sent + 2)) == "recorded"
            sent += 2
        node.kill()
        node.start()
        assert log.rows(limit=1000) == [(1, n) for n in range(1, sent + 1)]
    log.send(line(sent + 1, "the last"), state="SUCCESS")
    assert log.rows(limit=1000)[-1] == (1, sent + 1) and scene.run(log.id)["state"] == "SUCCESS"


class Follower:
    """kelou run logs -f, and what it has written."""

    def __init__(self, node, *arguments):
        token = node.admin_token()
        self.process = subprocess.Popen([binary("kelou"), "run", "logs", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        env={"KELOU_SERVER": node.base_url, "KELOU_TOKEN": token, "KELOU_LANG": "en", "PATH": "/usr/bin"})

    def lines(self, count):
        return [self.process.stdout.readline() for _ in range(count)]

    def end(self, code=0):
        out, err = self.process.communicate(timeout=30)
        assert self.process.returncode == code, (self.process.returncode, out, err)
        return out, err


def test_the_command_follows_to_the_end(scene):
    executor = scene.executor()
    log = Log(scene, executor)
    log.send(line(1, "first"), line(2, "two\nlines", level="WARN"))
    follower = Follower(scene.node, log.id, "-f")
    assert [part.rstrip("\n").split(" ", 1)[-1].strip() for part in follower.lines(3)] == ["INFO  first", "WARN  two", "lines"]
    log.send(line(3, "third"))
    assert follower.lines(1)[0].endswith("third\n")
    log.end(log=[line(6, "with the end")])
    out, err = follower.end()
    assert out.endswith("INFO  with the end\n") and out.count("\n") == 1
    assert err == "kelou: attempt 1: lines 4-5 are missing\n"
    shown = scene.node.cli("run", "logs", log.id, check=0)
    assert len(shown.stdout.splitlines()) == 5 and shown.stderr == err
    wide = scene.node.cli("run", "logs", log.id, "-o", "wide", check=0).stdout
    assert wide.startswith("1/1 ")
    rows = [json.loads(row) for row in scene.node.cli("run", "logs", log.id, "-o", "json", check=0).stdout.splitlines()]
    assert [short(row) for row in rows] == log.rows()
    assert scene.node.cli("run", "logs", log.id, "--attempt", "2", check=0).stdout == ""
    assert len(scene.node.cli("run", "logs", log.id, "--since-seq", "2", check=0).stdout.splitlines()) == 2


def test_an_empty_log_is_said_to_be_empty(scene):
    executor = scene.executor()
    executor.answer(Done())
    run = scene.wait_run(scene.task("silent").trigger())
    for options in ([], ["-f"]):
        got = scene.node.cli("run", "logs", run["id"], *options, check=0)
        assert (got.stdout, got.stderr) == ("", f"kelou: run {run['id']} has logged nothing\n")
    assert "没有写过日志" in scene.node.cli("--lang", "zh", "run", "logs", run["id"], "-f", check=0).stderr
    assert scene.node.cli("run", "logs", run["id"], "--attempt", "1", check=0).stderr == ""  # a part of it says nothing of the whole


def test_the_command_ends_when_it_is_told_to(scene):
    log = Log(scene, scene.executor())
    log.send(line(1))
    follower = Follower(scene.node, log.id, "-f")
    follower.lines(1)
    follower.process.send_signal(signal.SIGINT)
    assert follower.end(0) == ("", "")
    timeout = Follower(scene.node, log.id, "-f", "--timeout", "300ms")
    assert timeout.end(7)[1].startswith("kelou: run ")
    scene.node.cli("run", "logs", "0" * 36, check=3)
    scene.node.cli("run", "logs", log.id, "-o", "yaml", check=2)
    scene.node.cli("run", "logs", log.id, "-o", "name", check=2)
    assert "--attempt" in scene.node.cli("run", "logs", log.id, "--attempt", "x", check=2).stderr
    assert "上限" in scene.node.cli("run", "logs", many(scene), "--lang", "zh", check=0).stderr


def many(scene):
    log = Log(scene, scene.executor("more", "more"), name="many", group="more")
    log.send(*[line(n) for n in range(1, 61)])
    log.end()
    return log.id


# ---------------------------------------------------------------- retention

class Rows:
    def __init__(self, node, request):
        self.node, self.request = node, request

    def sql(self, text):
        if self.node.store_url.startswith("postgres"):
            server = self.request.getfixturevalue("postgres_server")
            return server.psql(text, self.node.store_url.rpartition("/")[2]).splitlines()
        with sqlite3.connect(self.node.store_url.partition(":")[2], timeout=20) as db:
            return [str(row[0]) for row in db.execute(text).fetchall()]

    def count(self, table):
        return int(self.sql(f"SELECT count(*) FROM {table}")[0])


def backdate(rows, run, days, postgres):
    """Move an ended run and its log into the past: as if it had been due so many days ago. Its day has tables of its own."""
    day = datetime.now(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days)
    low = int(day.timestamp()) * 1_000_000
    if postgres:
        for table in ("run_history", "run_log"):
            rows.sql(f"CREATE TABLE IF NOT EXISTS {table}_{day:%Y%m%d} PARTITION OF {table} FOR VALUES FROM ({low}) TO ({low + US_PER_DAY})")
    task = run["task_id"]
    rows.sql(f"UPDATE run_history SET scheduled_at = {low} + 5, finished_at = {low} + 9 WHERE task_id = {task}")
    for table in ("run_log", "run_log_head"):
        rows.sql(f"UPDATE {table} SET scheduled_at = {low} + 5 WHERE task_id = {task}")


@pytest.mark.parametrize("what", ["with its run", "by age"])
def test_retention(make_node, tmp_path, request, what):
    node = make_node(settings={"retention.age": "30d", "retention.log_age": "10d" if what == "by age" else "0s", "retention.every": "1h"}).start()
    scene, rows = scene_of(node, tmp_path, request), Rows(node, request)
    executor = scene.executor()
    kept, gone = Log(scene, executor, name="kept"), Log(scene, executor, name="gone")
    for log in (kept, gone):
        for first in range(1, 1500, 500):
            log.send(*[line(n) for n in range(first, first + 500)])
        log.end()
    assert rows.count("run_log") == 3000 and rows.count("run_log_head") == 2
    backdate(rows, scene.run(gone.id), 20 if what == "by age" else 40, node.store_url.startswith("postgres"))
    backdate(rows, scene.run(kept.id), 5, node.store_url.startswith("postgres"))
    node.restart()  # a pass begins with the start
    wait_for(lambda: rows.count("run_log") == 1500 and rows.count("run_log_head") == 1, 30, "the old log is gone")
    left = scene.tasks[0].runs()
    assert len(left) == 1
    kept.id = left[0]["id"]  # its instant is another one now
    assert len(kept.rows(limit=1000)) == 1500
    assert rows.count("run_history") == (2 if what == "by age" else 1)
    assert len(scene.tasks[1].runs()) == (1 if what == "by age" else 0)
