"""Backfill: runs of a past range, bounded, at a rate, beside the schedule's own."""
from datetime import timedelta

from tests.harness.fake_executor import Accept, Done
from tests.harness.kelou import wait_for
from tests.harness.world import at

HOURLY = {"kind": "CRON", "expression": "0 0 * * * ?"}
DAY = {"from": "2026-01-05T00:00:00Z", "to": "2026-01-05T23:59:59Z"}


def ask(task, status=202, headers=None, **body):
    return task.api.ok("POST", f"{task.path}/backfill", {**DAY, **body}, status=status, headers=headers)


def state(task, made):
    return task.api.ok("GET", f"{task.path}/backfill", params={"id": made["id"]})


def test_a_day_from_before_the_task_was_made(scene):
    executor = scene.executor()
    executor.answer(Done({"ok": 1}))
    task = scene.task("fill", HOURLY)
    dry = ask(task, status=200, dry_run=True)
    assert dry["instants"] == 24 and "id" not in dry and task.runs() == []
    assert (dry["first"], dry["last"]) == ("2026-01-05T00:00:00Z", "2026-01-05T23:00:00Z")
    made = ask(task, rate=1000, payload={"again": True}, headers={"Idempotency-Key": "fill-1"})
    again = ask(task, rate=1000, payload={"again": True}, headers={"Idempotency-Key": "fill-1"})
    assert again["id"] == made["id"] and made["instants"] == 24
    runs = task.wait_runs(24, state="SUCCESS")
    assert len(runs) == 24 and {r["origin"] for r in runs} == {"BACKFILL"}
    assert [at(r["scheduled_at"]) for r in runs] == [at("2026-01-05T00:00:00Z") + timedelta(hours=h) for h in range(24)]
    assert {d.payload["again"] for d in executor.deliveries} == {True} and len(executor.deliveries) == 24
    now = state(task, made)
    assert (now["runs"], now["success"], now["pending"], now["running"]) == (24, 24, 0, 0)
    other = ask(task, rate=1000)  # another one: runs of its own
    assert other["id"] != made["id"]
    wait_for(lambda: state(task, other)["success"] == 24, 15, "the second backfill")
    assert len(task.runs()) == 48


def test_refused(scene):
    task = scene.task("bounds", HOURLY)
    api, path = scene.api, f"{task.path}/backfill"
    api.problem("POST", path, {**DAY, "to": "2025-01-01T00:00:00Z"})
    api.problem("POST", path, {**DAY, "to": "2199-01-01T00:00:00Z"})
    assert "more than 1000" in str(api.problem("POST", path, {**DAY, "to": "2026-06-01T00:00:00Z"}, status=409))
    api.problem("POST", path, {**DAY, "rate": 0.001})
    manual = scene.task("manual", {"kind": "MANUAL"})
    api.problem("POST", f"{manual.path}/backfill", DAY, status=409)
    api.problem("GET", path, params={"id": "7-1-2"}, status=404)
    api.problem("GET", path, status=400)
    none = ask(task, status=200, **{"from": "2026-01-05T00:10:00Z", "to": "2026-01-05T00:20:00Z"})
    assert none["instants"] == 0 and "id" not in none


def test_overlap_rate_and_cancel(scene):
    """One after the other as the policy wants it, and none is lost; what has not ended can be cancelled."""
    scene.executor().answer(Accept(delay=0.05))
    task = scene.task("turns", HOURLY, overlap_policy="QUEUE_ONE")
    made = ask(task, rate=1000, to="2026-01-05T05:00:00Z")
    runs = task.wait_runs(6, state="SUCCESS")
    spans = sorted((at(r["started_at"]), at(r["finished_at"])) for r in runs)
    assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:]))
    assert state(task, made)["success"] == 6
    slow = ask(task, rate=0.01)  # one at once, then one every 100 s
    wait_for(lambda: state(task, slow)["success"] >= 1, 15, "the first one is released at once")
    now = state(task, slow)
    assert now["runs"] == 24 and now["pending"] >= 22
    done = scene.api.ok("POST", f"{task.path}/backfill/cancel", {"id": slow["id"]})
    assert done["pending"] == 0 and done["cancelled"] >= 22 and done["runs"] == 24


def test_calendar_and_fixed_rate(scene):
    scene.executor().answer(Done())
    scene.api.ok("PUT", "/calendars/fill-cal", {"excluded": ["2026-01-06"]})
    task = scene.task("rate", {"kind": "FIXED_RATE", "every": "6h", "anchor": "2026-11-01T03:00:00Z", "calendar": "fill-cal"})
    made = ask(task, to="2026-01-07T23:59:59Z", rate=1000)
    assert made["instants"] == 8 and made["first"] == "2026-01-05T03:00:00Z"  # reckoned back beyond the anchor
    runs = wait_for(lambda: (lambda r: r if len(r) == 8 else None)(task.runs(since="2026-01-05T00:00:00Z", until="2026-01-08T00:00:00Z",
                                                                           state="SUCCESS")), 15, "8 runs")
    assert {r["scheduled_at"][:10] for r in runs} == {"2026-01-05", "2026-01-07"}


def test_cli(scene):
    scene.executor().answer(Done())
    task = scene.task("shell", HOURLY)
    cli = scene.node.cli
    assert "24" in cli("task", "backfill", task.id, "--from", DAY["from"], "--to", DAY["to"], "--dry-run", check=0).stdout
    made = cli("task", "backfill", task.id, "--from", DAY["from"], "--to", DAY["to"], "--rate", "500", "-o", "name", check=0).stdout.strip()
    wait_for(lambda: state(task, {"id": made})["success"] == 24, 15, "all have run")
    assert made in cli("task", "backfill-status", task.id, "--id", made, check=0).stdout
    cli("task", "backfill-cancel", task.id, "--id", made, check=0)
