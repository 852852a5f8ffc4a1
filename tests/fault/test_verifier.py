"""The verifier notices what it is there for: a good database passes, and each corruption of it is found."""
import json
import shutil
import sqlite3
import time
from types import SimpleNamespace as Plain

import pytest

from tests.fault.loop import Loop, Plan
from tests.harness.kelou import binary
from tests.verify.instants import Due
from tests.verify.rules import Rules
from tests.verify.tables import run_key
from tests.verify.verify import report, verify


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A SQLite database and journals of a short, quiet life."""
    folder = tmp_path_factory.mktemp("good")
    loop = Loop(folder, None, Plan(kills=0, scale=0.3))
    loop.start_all()
    time.sleep(4)
    loop.kill_once()
    loop.node.wait_ready()
    loop.people.finish()
    loop.node.stop()
    loop.end()
    return folder


@pytest.fixture
def copy(good, tmp_path):
    """The same again, to be spoilt."""
    for name in ("node/kelou.db", "node/kelou.db-wal", "executor-1.journal", "executor-2.journal", "people.journal"):
        if (good / name).exists():
            shutil.copy(good / name, tmp_path / name.rpartition("/")[2])
    return tmp_path


def found_in(folder):
    journals = [str(p) for p in sorted(folder.glob("*.journal"))]
    return verify(str(folder / "kelou.db"), journals, binary("kelou"))


def spoil(folder, *statements):
    with sqlite3.connect(folder / "kelou.db") as db:
        for sql in statements:
            assert db.execute(sql).rowcount > 0, f"nothing to spoil: {sql}"
    return found_in(folder)


ONE = "(SELECT rowid_of FROM (SELECT scheduled_at || '/' || task_id || '/' || part AS rowid_of FROM run_history WHERE {} LIMIT 1))"
KEY = "scheduled_at || '/' || task_id || '/' || part"


def one_row(condition):
    return f"WHERE {KEY} = " + ONE.format(condition)


PLAIN = "part = 0 AND state = 2 AND version = 1 AND task_id IN (SELECT task_id FROM task_version WHERE version = 1 AND name LIKE 'rate-1s-%')"
DELAY = "part = 0 AND state = 2 AND version = 1 AND task_id IN (SELECT task_id FROM task_version WHERE version = 1 AND name LIKE 'delay-200ms-%')"

OPEN = ("shard, scheduled_at, task_id, part, version, state, reason, origin, attempt, fired_at, not_before, attempt_at, started_at, missed_first, "
        "missed_count, executor")
AFTER = "origin = 5 AND task_id IN (SELECT task_id FROM task_version WHERE version = 1 AND name LIKE '{}-%')"

CORRUPTIONS = {
    "an end of a parent without a run": ("lost", [f"DELETE FROM run_history {one_row(AFTER.format('after-any'))}"]),
    "two runs after one end": ("doubled", ["UPDATE run_history SET origin_run = (SELECT origin_run FROM run_history r WHERE r.task_id = "
                                           f"run_history.task_id AND r.part <> run_history.part) {one_row(AFTER.format('after-any'))}"]),
    "a run after the end of a run that did not fail": ("doubled", ["UPDATE run_history SET state = 2, reason = 0 WHERE part = 0 AND state = 3 AND "
                                                                   "task_id = (SELECT id FROM task WHERE name = 'fail-0')"]),
    "an end that no run stands for (ALL)": ("lost", [f"DELETE FROM run_history {one_row(AFTER.format('after-all'))}"]),
    "an instant without a row": ("lost", [f"DELETE FROM run_history {one_row(PLAIN)}"]),
    "a cron instant moved by a second too few": ("lost", [f"UPDATE run_history SET scheduled_at = scheduled_at + 1 {one_row(PLAIN)}"]),
    "a run that nobody asked for": ("doubled", ["INSERT INTO run_history SELECT scheduled_at + 1, task_id, part, shard, version, state, "
                                                "reason, origin, attempt, fired_at, attempt_at, started_at, finished_at, missed_first, "
                                                "missed_count, progress, executor, pin, origin_run, error_type, error_message, "
                                                f"error_detail, result, payload FROM run_history {one_row(PLAIN)}"]),
    "a run open and ended at once": ("doubled", [f"INSERT INTO run ({OPEN}) SELECT shard, scheduled_at, task_id, part, version, 0, 3, 0, 1, fired_at, 0, "
                                                 "attempt_at, 0, 0, 0, executor FROM run_history "
                                                 f"{one_row(PLAIN)}"]),
    "a range with too great a count": ("doubled", ["UPDATE run_history SET missed_first = scheduled_at - 1, missed_count = 5 "
                                                   f"{one_row(PLAIN)}"]),
    "a FIXED_DELAY run missing in the chain": ("lost", [f"DELETE FROM run_history {one_row(DELAY)}"]),
    "a run that never ends": ("stuck", [f"INSERT INTO run ({OPEN}) SELECT shard, scheduled_at, task_id, part, version, 0, 3, 0, 1, fired_at - 900000000, "
                                        "0, attempt_at, 0, 0, 0, executor FROM run_history "
                                        f"{one_row(PLAIN)}", f"DELETE FROM run_history WHERE {KEY} IN (SELECT {KEY} FROM run)"]),
    "a run that ended too late": ("stuck", [f"UPDATE run_history SET finished_at = fired_at + 900000000 {one_row(PLAIN)}"]),
    "two runs of one task at once": ("other", ["UPDATE run_history SET finished_at = finished_at + 60000000 WHERE task_id = (SELECT id FROM task "
                                               "WHERE name = 'rate-1s-0')"]),
    "a reason that is none of its state": ("other", [f"UPDATE run_history SET reason = 9 {one_row(PLAIN)}"]),
    "an end before its start": ("other", [f"UPDATE run_history SET finished_at = fired_at - 1 {one_row(PLAIN)}"]),
    "the rows of earlier attempts gone": ("other", ["DELETE FROM attempt WHERE attempt = 1"]),
    "a promised task that is not there": ("lost", ["DELETE FROM run_history WHERE task_id = (SELECT id FROM task WHERE name = 'rate-1s-1')",
                                                   "DELETE FROM task_version WHERE name = 'rate-1s-1'",
                                                   "DELETE FROM task WHERE name = 'rate-1s-1'"]),
    "a success that no executor made": ("other", [f"UPDATE run_history SET attempt_at = attempt_at, state = 2, attempt = 1, "
                                                  f"executor = 'executor-1', reason = 0 {one_row('state = 3')}"]),
    "fences that differ": ("other", ["UPDATE shard_finish SET epoch = epoch + 1 WHERE id = 3"]),
}


def test_a_good_database_passes(copy):
    found = found_in(copy)
    assert not found.bad, report(found)
    assert found.instants > 300, report(found)


@pytest.mark.parametrize("what", CORRUPTIONS)
def test_each_corruption_is_noticed(copy, what):
    kind, statements = CORRUPTIONS[what]
    found = spoil(copy, *statements)
    assert found.counts[kind] > 0, report(found)


def test_a_run_that_was_started_and_never_committed_is_noticed(copy):
    with sqlite3.connect(copy / "kelou.db") as db:
        assert db.execute("SELECT count(*) FROM run_history").fetchone()[0] > 0
    line = json.loads((copy / "executor-1.journal").read_text().splitlines()[0])
    part = "v" if line["run_id"][31] != "v" else "u"  # inside the key's last number: no run has it
    line["run_id"] = line["run_id"][:31] + part + line["run_id"][32:]
    with open(copy / "executor-1.journal", "a", encoding="utf-8") as f:
        f.write(json.dumps(line) + "\n")
    assert found_in(copy).counts["other"] > 0


def test_further_starts_are_listed_with_their_cause(copy):
    lines = (copy / "executor-1.journal").read_text().splitlines()
    start = next(json.loads(line) for line in lines if json.loads(line)["event"] == "start")
    before = len(found_in(copy).starts)
    with open(copy / "executor-2.journal", "a", encoding="utf-8") as f:
        f.write(json.dumps({**start, "t": start["t"] + 1, "executor": "executor-2"}) + "\n")
    found = found_in(copy)
    assert len(found.starts) == before + 1, report(found)
    assert any("acknowledgement was lost, at executor-2 after executor-1" in text for text in found.starts), found.starts


def test_a_second_start_is_a_finding_where_the_task_asks_for_one(copy):
    with sqlite3.connect(copy / "kelou.db") as db:
        tasks = {r[0] for r in db.execute("SELECT task_id FROM task_version WHERE name LIKE 'one-start-%'")}
    lines = [json.loads(line) for name in ("executor-1", "executor-2") for line in (copy / f"{name}.journal").read_text().splitlines()]
    start = next(e for e in lines if e["event"] == "start" and run_key(e["run_id"])[2] in tasks)
    with open(copy / "executor-2.journal", "a", encoding="utf-8") as f:
        f.write(json.dumps({**start, "t": start["t"] + 1}) + "\n")
    found = found_in(copy)
    assert found.counts["doubled"] == 1, report(found)


def row(first, last, state="SUCCESS", origin="SCHEDULE"):
    return Plain(first=first, scheduled_at=last, state=state, origin=origin, version=1)


@pytest.mark.parametrize("stands", [row(2, 5, "SKIPPED"), row(2, 5, "SUCCESS", "CATCHUP")], ids=lambda r: r.state)
def test_a_range_does_not_use_up_max_runs(stands):
    """What was missed in an outage and stands in one row counts as often as it was fired."""
    versions = [Plain(version=1, schedule={"max_runs": 3})]
    rows = [row(1, 1), stands, row(6, 6), row(7, 7)]
    kept, may = Rules.cut_at_max_runs(None, versions, rows, [Due(t, t, 1) for t in range(1, 11)])
    fired = 1 if stands.state == "SUCCESS" else 0
    assert ([d.nominal for d in kept], may) == (list(range(1, 8 - fired)), set())
