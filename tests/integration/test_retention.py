"""Ended runs leave the database: by age and by number, by days and by rows, by way of the archive, whatever is killed in between."""
import gzip
import json
import os
import sqlite3
from datetime import datetime, timedelta, timezone

import pytest

from tests.harness.kelou import run_cli, wait_for
from tests.harness.world import Scene, text_of

DAY = timedelta(days=1)
US_PER_DAY = 86_400_000_000
POINTS = ("retention.before_publish", "retention.before_mark", "retention.in_drop")
STATES = {2: "SUCCESS", 3: "FAIL", 5: "SKIPPED"}


class Rows:
    """What stands in a node's database, read and written beside the node."""

    def __init__(self, node, request):
        self.node, self.request = node, request
        self.postgres = node.store_url.startswith("postgres")

    def sql(self, text):
        if self.postgres:
            server = self.request.getfixturevalue("postgres_server")
            found = server.psql(text, self.node.store_url.rpartition("/")[2])
            return [line.split("|") for line in found.splitlines()]
        with sqlite3.connect(self.node.store_url.partition(":")[2], timeout=20) as db:
            return [[str(v) for v in row] for row in db.execute(text).fetchall()]

    def count(self, table, where="true"):
        return int(self.sql(f"SELECT count(*) FROM {table} WHERE {where}")[0][0])

    def add_day(self, day):
        """A partition as upkeep makes them ahead of the time."""
        if self.postgres:
            low = int(day.timestamp()) * 1_000_000
            self.sql(f"CREATE TABLE run_history_{day:%Y%m%d} PARTITION OF run_history FOR VALUES FROM ({low}) TO ({low + US_PER_DAY})")

    def add_runs(self, task, first, count, state=2, step=60, part=0):
        """Ended runs of a task, one a minute from `first` on; failed ones have two attempts."""
        shard = self.sql(f"SELECT shard FROM task WHERE id = {task.id}")[0][0]
        low, reason = int(first.timestamp()) * 1_000_000, {2: 0, 3: 8, 5: 14}[state]
        series = f"generate_series(0, {count - 1}) AS s(i)" if self.postgres else \
            f"(WITH RECURSIVE s(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM s WHERE i < {count - 1}) SELECT i FROM s) AS s"
        at, none = f"{low} + CAST(s.i AS bigint) * {step * 1_000_000}", "NULL" if self.postgres else "0"
        started, attempt = (none, 0) if state == 5 else (f"{at} + 10", 2 if state == 3 else 1)
        self.sql("INSERT INTO run_history (scheduled_at, task_id, part, shard, version, state, reason, origin, attempt, fired_at, attempt_at, "
                 "started_at, finished_at, missed_first, missed_count, executor, error_type, error_message, result, payload) "
                 f"SELECT {at}, {task.id}, {part}, {shard}, 1, {state}, {reason}, 0, {attempt}, {at}, {at}, {started}, {at} + 1010, {none}, {none}, "
                 f"'x', {'NULL' if state != 3 else chr(39) + 'Sad' + chr(39)}, NULL, '{{\"n\": 1}}', '\"cut off' FROM {series}")
        if state == 3:
            for n in (1, 2):
                self.sql("INSERT INTO attempt (scheduled_at, task_id, part, attempt, dispatched_at, started_at, finished_at, state, reason, executor) "
                         f"SELECT {at}, {task.id}, {part}, {n}, {at}, {at}, {at} + 5, 3, 8, 'x' FROM {series}")


def archived(folder):
    """Every archived run, by file."""
    found = {}
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        if name.endswith(".jsonl.gz"):
            with gzip.open(os.path.join(folder, name), "rt", encoding="utf-8") as f:
                found[name] = [json.loads(line) for line in f]
    return found


@pytest.fixture
def make_scene(make_node, tmp_path, request):
    def make(settings=None, environment=None):
        node = make_node(settings={"retention.every": "200ms", **(settings or {})}, environment=environment).start()
        scene = Scene(node, tmp_path)
        return scene, Rows(node, request)
    return make


def days_ago(n):
    return datetime.now(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0) - n * DAY


def test_by_age_through_the_archive(make_scene, tmp_path):
    folder = str(tmp_path / "archive")
    scene, rows = make_scene({"retention.age": "30d", "archive.dir": folder, "retention.every": "1h"})
    task, other = scene.task("old"), scene.task("other")
    rows.add_day(days_ago(40))
    rows.add_runs(task, days_ago(40), 100)
    rows.add_runs(task, days_ago(40) + timedelta(hours=12), 10, state=3)
    rows.add_runs(other, days_ago(40), 5, state=5)
    rows.add_runs(other, days_ago(50), 7)  # of no day's partition
    rows.add_runs(task, days_ago(20), 9)
    before = task.stats()
    assert (before["success"], before["fail"], before["attempts"]) == (109, 10, 129)
    node = scene.node
    node.stop()
    node.start()  # a pass begins with the start
    wait_for(lambda: rows.count("run_history") == 9 and rows.count("run_old") == 0, 20, "what is old is gone")
    assert rows.count("attempt") == 0
    assert len(task.runs()) == 9 and not other.runs()
    after = task.stats()
    assert after == before
    assert (other.stats()["success"], other.stats()["skipped"]) == (7, 5)
    assert task.api.ok("GET", f"{task.path}/stats", params={"since": text_of(days_ago(60))})["fires"] == 9
    files = wait_for(lambda: archived(folder), 5, "the archive")
    runs = [r for f in files.values() for r in f]
    assert len(runs) == 122 == len({r["id"] for r in runs}) and not [n for n in os.listdir(folder) if n.endswith(".part")]
    for name, lines in files.items():
        _, _, first, last, count = name.split(".")[0].split("-")
        assert int(count) == len(lines)
        assert [r["scheduled_at"] for r in lines] == sorted(r["scheduled_at"] for r in lines)
        assert lines[0]["scheduled_at"].replace("-", "")[:8] == first and lines[-1]["scheduled_at"].replace("-", "")[:8] == last
    failed = [r for r in runs if r["state"] == "FAIL"]
    assert len(failed) == 10 and all([a["attempt"] for a in r["attempts"]] == [1, 2] and r["error"] == {"type": "Sad"} for r in failed)
    assert all(r["result"] == {"n": 1} and r["payload"] == '"cut off' and r["namespace"] == "default" for r in runs)
    assert {r["task_name"] for r in runs} == {task.name, other.name}
    scene.done()


def test_by_namespace(make_scene):
    scene, rows = make_scene({"retention.age": "0s"})
    api = scene.api
    for name, body in (("short", {"retention_age": "1d"}), ("few", {"retention_runs": 6}), ("all", {})):
        api.ok("POST", "/namespaces", {"name": name}, status=201)
        api.ok("PATCH", f"/namespaces/{name}", body, status=200)
    tasks = {}
    for name in ("short", "few", "all", "default"):
        api.ok("POST", "/executor-groups", {"name": "g", "namespace": name})
        tasks[name] = scene.task(f"in-{name}", namespace=name, executor_group="g")
    for n in (2, 5, 100):
        rows.add_day(days_ago(n))
    for n in (2, 5, 100, 200):
        for task in tasks.values():
            rows.add_runs(task, days_ago(n), 4)
    for task in tasks.values():
        rows.add_runs(task, datetime.now(timezone.utc) - timedelta(hours=2), 2)

    def left(**wanted):
        found = {name: len(task.runs()) for name, task in tasks.items() if name in wanted}
        assert found == wanted, found
        return True
    scene.node.restart()  # what is new in the past is looked for once a day, and at the start
    wait_for(lambda: left(short=2, few=6, all=18, default=18), 20, "each namespace keeps what it says")
    assert min(r["scheduled_at"] for r in tasks["few"].runs()) == min(r["scheduled_at"] for r in tasks["few"].runs(since=text_of(days_ago(3))))
    assert all(t.stats()["success"] == 18 for t in tasks.values())
    # a rule that changes is obeyed; null is the setting again
    got = api.ok("PATCH", "/namespaces/few", {"retention_age": "36h", "retention_runs": None})
    assert got == {"name": "few", "max_concurrent": 0, "retention_age": "36h"}
    scene.node.restart()
    wait_for(lambda: left(few=2), 20, "the new rule")
    assert {n["name"]: n.get("retention_runs") for n in api.items("/namespaces")} == {"default": None, "short": None, "few": None, "all": None}
    scene.done()


@pytest.mark.parametrize("point", POINTS)
def test_killed_in_between(make_scene, tmp_path, point):
    """Nothing is lost and nothing is archived twice, wherever the node ends."""
    folder = str(tmp_path / "archive")
    scene, rows = make_scene({"retention.age": "30d", "archive.dir": folder, "retention.every": "1h"})
    node, task = scene.node, scene.task("old")
    rows.add_day(days_ago(40))
    rows.add_runs(task, days_ago(40), 300)
    rows.add_runs(task, days_ago(45), 600, state=3)
    before = task.stats()
    node.stop()
    node.environment = {**node.environment, "KELOU_FAILPOINTS": f"{point}=crash:1"}
    node.start(wait=False)
    assert node.wait(20) == 137
    node.start(wait=False)  # the second batch, or once more
    wait_for(lambda: not node.alive(), 20, "it ends again") if point != "retention.in_drop" else node.wait(20)
    node.environment = {**node.environment, "KELOU_FAILPOINTS": ""}
    rows.add_runs(task, days_ago(40), 50, part=7)  # more for the batch that is half done: goes with a later one
    node.start()
    wait_for(lambda: rows.count("run_history") == 0 and rows.count("run_old") == 0, 20, "all is gone")
    runs = [r for f in archived(folder).values() for r in f]
    assert len(runs) == len({r["id"] for r in runs}) == 950
    after = task.stats()
    assert (after["fires"], after["fail"]) == (before["fires"] + 50, 600)
    assert after["last_scheduled_at"] == before["last_scheduled_at"]


def test_fires_go_on(make_scene):
    """Runs are counted off while others end: those that are kept are the youngest, and none of them is late."""
    scene, rows = make_scene({"retention.runs": 20, "retention.every": "100ms"})
    executor = scene.executor(slots=100)
    task = scene.every("50ms", overlap_policy="ALLOW")
    wait_for(lambda: task.stats()["success"] >= 100, 30, "a hundred runs")
    task.pause()
    wait_for(lambda: rows.count("run_history") == 20 and rows.count("run_old") == 0, 20, "twenty are kept")
    assert len(executor.deliveries) == task.stats()["success"]
    kept = [r["scheduled_at"] for r in task.runs()]
    gone = task.stats()["fires"] - len(kept)
    assert len(kept) == 20 and gone >= 80 and kept[-1] == task.stats()["last_scheduled_at"]
    scene.done()


def test_the_archive_cannot_be_written(make_scene, tmp_path):
    """Nothing is dropped then; what was taken comes into the archive later."""
    folder = tmp_path / "archive"
    folder.write_text("a file is in the way", encoding="utf-8")
    scene, rows = make_scene({"retention.age": "30d", "archive.dir": str(folder)})
    task = scene.task("old")
    rows.add_runs(task, days_ago(40), 30)
    wait_for(lambda: "old runs not dropped" in scene.node.log_text(), 10, "it says so")
    assert task.stats()["success"] == 30 and rows.count("run_history") + rows.count("run_old") == 30
    folder.unlink()
    wait_for(lambda: rows.count("run_history") + rows.count("run_old") == 0, 10, "now it goes")
    assert sum(len(f) for f in archived(str(folder)).values()) == 30
    assert task.stats()["success"] == 30
    scene.done()


def test_command_line(make_scene, tmp_path):
    """`kelou namespace set`; `kelou archive` reads without a server, also what is damaged."""
    folder = tmp_path / "archive"
    scene, rows = make_scene({"archive.dir": str(folder), "retention.every": "1h"})
    node = scene.node
    node.cli("namespace", "set", "default", check=2)
    got = json.loads(node.cli("namespace", "set", "default", "--retention-age", "30d", "--retention-runs", "100000", "-o", "json", check=0).stdout)
    assert got == {"name": "default", "max_concurrent": 0, "retention_age": "30d", "retention_runs": 100000}
    assert "30d" in node.cli("namespace", "list", check=0).stdout
    node.cli("namespace", "set", "nowhere", "--retention-age", "30d", check=3)
    node.cli("namespace", "set", "default", "--retention-age", "soon", check=2)
    first, second = scene.task("first"), scene.task("second")
    rows.add_runs(first, days_ago(40), 20)
    rows.add_runs(second, days_ago(39), 10, state=3)
    node.restart()
    wait_for(lambda: rows.count("run_history") + rows.count("run_old") == 0, 20, "all is archived")
    node.stop()
    (line,) = run_cli("archive", "list", folder, "-o", "json", check=0).stdout.splitlines()
    listed = json.loads(line)
    assert (listed["batch"], listed["runs"], listed["first"]) == (1, 30, f"{days_ago(40):%Y-%m-%d}")
    assert "BATCH" in run_cli("archive", "list", folder, check=0).stdout
    runs = [json.loads(x) for x in run_cli("archive", "cat", folder, check=0).stdout.splitlines()]
    assert len(runs) == 30
    table = [(("--task", first.id), 20), (("--task", second.name), 10), (("--task", f"default/{second.name}"), 10), (("--state", "FAIL,SKIPPED"), 10),
             (("--since", text_of(days_ago(39))), 10), (("--until", text_of(days_ago(39))), 20), (("-n", 3), 3), (("--run", runs[7]["id"]), 1),
             (("--namespace", "default", "--executor", "x", "--since", runs[3]["scheduled_at"], "--until", runs[5]["scheduled_at"]), 2)]
    for options, count in table:
        assert len(run_cli("archive", "find", folder, *options, check=0).stdout.splitlines()) == count, options
    for options in (("--task", "nobody"), ("--namespace", "other"), ("--since", text_of(days_ago(1)))):
        assert run_cli("archive", "find", folder, *options, check=3).stdout == ""
    for wrong in (("find", folder, "--state", "GOOD"), ("find", folder, "--run", "x"), ("find",), ("find", folder, "--bad"), ("steal", folder)):
        assert run_cli("archive", *wrong).returncode in (2, 3), wrong
    assert run_cli("archive", "cat", tmp_path / "none", check=3).stdout == ""
    whole = (folder / os.listdir(folder)[0]).read_bytes()
    (folder / "runs-0000000002-20260101-20260101-5.jsonl.gz").write_bytes(whole[:len(whole) // 2])
    got = run_cli("archive", "cat", folder, check=1)
    assert "ends in the middle" in got.stderr and len(got.stdout.splitlines()) >= 30
    (folder / "runs-0000000002-20260101-20260101-5.jsonl.gz").write_bytes(b"no gzip at all")
    assert "damaged" in run_cli("archive", "cat", folder, check=1).stderr
