"""Pause, resume, edit and delete in the middle of a task's life."""
import time
from datetime import datetime, timedelta, timezone

from tests.harness.fake_executor import Accept, Done
from tests.harness.kelou import wait_for
from tests.harness.world import at, seconds_between, soon

BOUND = 3.0  # generous: a change takes effect within this


def test_nothing_fires_after_a_pause_was_acknowledged(scene):
    executor = scene.executor()
    executor.answer(Done())
    task = scene.every("50ms", overlap_policy="ALLOW")
    witness = scene.every("50ms", "witness", overlap_policy="ALLOW")
    task.wait_runs(5)
    paused = task.pause()
    acknowledged = soon(0)
    seen = len(witness.runs())
    witness.wait_runs(seen + 20)  # a second has passed, and the node fires
    runs = task.runs()
    assert all(at(r["scheduled_at"]) <= at(paused["effective_at"]) for r in runs)
    assert all(at(r["fired_at"]) <= at(acknowledged) + timedelta(seconds=BOUND) for r in runs)
    assert "next_at" not in task.stats()
    # up to the pause none is missing
    instants = [at(r["scheduled_at"]) for r in runs]
    assert {b - a for a, b in zip(instants, instants[1:])} == {timedelta(milliseconds=50)}
    assert at(paused["effective_at"]) - instants[-1] <= timedelta(milliseconds=50)
    # a trigger is for people: it works
    assert scene.wait_run(task.trigger(), "SUCCESS")["origin"] == "API"
    resumed = task.resume()
    after = [r for r in task.wait_runs(len(runs) + 4) if r["origin"] == "SCHEDULE"][len(runs):]
    assert after and all(at(r["scheduled_at"]) > at(resumed["effective_at"]) for r in after)  # from now on, no gap filled
    anchor = instants[0]
    assert all((at(r["scheduled_at"]) - anchor) % timedelta(milliseconds=50) == timedelta(0) for r in after)


def test_a_pause_leaves_its_runs_alone(scene):
    executor = scene.executor()
    executor.answer(Accept(report=None))
    task = scene.task(overlap_policy="QUEUE_ALL")
    first, second = task.trigger(), task.trigger()
    d = executor.wait_deliveries(1)[0]
    task.pause()
    executor.answer(Done("went on"))
    executor.report(first, 1, d.fence, "SUCCESS")
    assert scene.wait_run(second)["result"] == "went on" and scene.run(first)["state"] == "SUCCESS"


def test_resume_catches_up_when_asked_to(scene):
    executor = scene.executor(slots=1000)
    executor.answer(Done())
    anchor = soon(-1)
    schedule = {"kind": "FIXED_RATE", "every": "100ms", "anchor": anchor}
    tasks = {p: scene.task(p.lower(), schedule, misfire_policy=p, overlap_policy="ALLOW", catchup_rate=1000)
             for p in ("FIRE_ONCE", "SKIP", "FIRE_ALL")}
    few = scene.task("few", schedule, misfire_policy="FIRE_ALL", overlap_policy="ALLOW", catchup_max_runs=4, catchup_rate=20)
    tasks["FEW"] = few
    for task in tasks.values():
        task.wait_runs(2)
    paused = {p: at(t.pause()["effective_at"]) for p, t in tasks.items()}
    time_up = time.monotonic() + 1.2
    wait_for(lambda: time.monotonic() > time_up, 5, "instants pass while the tasks are paused")
    resumed = {p: at(t.resume(catch_up=True)["effective_at"]) for p, t in tasks.items()}
    for task in tasks.values():
        wait_for(lambda t=task: len([r for r in t.runs(state="SUCCESS") if r["origin"] == "SCHEDULE" and at(r["scheduled_at"]) > max(resumed.values())]) >= 2,
                 15, "goes on")
        wait_for(lambda t=task: not [r for r in t.runs(state="PENDING,RUNNING") if r["origin"] == "CATCHUP"], 15, "caught up")
    for policy, task in tasks.items():
        whole = [at(anchor) + k * timedelta(milliseconds=100) for k in range(300)]
        missed = [i for i in whole if paused[policy] < i <= resumed[policy]]
        assert len(missed) >= 10
        runs = task.runs()
        rows = [r for r in runs if paused[policy] < at(r["scheduled_at"]) <= resumed[policy]]
        covered = []
        for row in rows:
            assert row["origin"] == "CATCHUP" or row["state"] == "SKIPPED", row
            first = at(row["missed"]["first"]) if "missed" in row else at(row["scheduled_at"])
            one = [i for i in missed if first <= i <= at(row["scheduled_at"])]
            assert row.get("missed", {"count": 1})["count"] == len(one)
            covered += one
        assert sorted(covered) == missed, policy  # each instant of the pause has one row, or is in one
        made = [r for r in rows if r["state"] == "SUCCESS"]
        folded = [r for r in rows if (r["state"], r["reason"]) == ("SKIPPED", "MISFIRE")]
        assert len(made) + len(folded) == len(rows)
        if policy == "FIRE_ONCE":
            assert len(made) == 1 and not folded and at(made[0]["scheduled_at"]) == missed[-1]
            assert at(made[0]["missed"]["first"]) == missed[0] and at(made[0]["missed"]["last"]) == missed[-1]
        elif policy == "SKIP":
            assert not made and len(folded) == 1
        elif policy == "FIRE_ALL":
            assert len(made) == len(missed)
        else:
            assert len(made) == 4 and sum(r.get("missed", {"count": 1})["count"] for r in folded) == len(missed) - 4
            given = sorted(at(d.fired_at) for d in executor.deliveries if d.run_id in {r["id"] for r in made})
            assert len(given) == 4


def waiting_task(scene, name, **more):
    """Its instant comes at once, and its jitter holds it back for days."""
    task = scene.task(name, {"kind": "FIXED_RATE", "every": "300d", "anchor": soon(0.5), "jitter": "7d", "max_runs": 1}, **more)
    assert seconds_between(task.stats()["next_at"], task.stats()["next_due"]) > 60  # a hash of its id: all but certain
    return task


def has_come(task):
    instant = at(task.read()["schedule"]["anchor"])
    wait_for(lambda: datetime.now(timezone.utc) > instant, 5, "its instant has come")
    return instant


def test_a_shorter_jitter_fires_what_waits(scene):
    scene.executor().answer(Done())
    tasks = [waiting_task(scene, f"w{n}") for n in range(3)]
    instants = [has_come(t) for t in tasks]
    tasks[1].pause()
    assert not any(t.runs() for t in tasks)
    for task in tasks:
        task.patch(schedule={"jitter": "0s"})
    tasks[2].patch(schedule={"jitter": "6d"})  # longer again: it has been fired
    for n in (0, 2):
        (run,) = tasks[n].wait_runs(1, state="SUCCESS")
        assert (at(run["scheduled_at"]), run["origin"], run["task_version"]) == (instants[n], "SCHEDULE", 2)
        tasks[n].wait_state("COMPLETED", 30)
    assert tasks[1].resume(catch_up=True)["state"] == "ENABLED"  # it was due in the pause: asked for, it is caught up
    (run,) = tasks[1].wait_runs(1, state="SUCCESS")
    assert (at(run["scheduled_at"]), run["origin"]) == (instants[1], "CATCHUP")
    assert all(len(t.runs()) == 1 for t in tasks)


def test_what_waits_goes_with_the_schedule_that_has_it(scene):
    scene.executor().answer(Done())
    moved, paused = waiting_task(scene, "moved"), waiting_task(scene, "paused")
    has_come(moved), has_come(paused)
    moved.patch(schedule={"anchor": soon(1), "jitter": "0s"})  # another instant
    (run,) = moved.wait_runs(1, state="SUCCESS")
    assert at(run["scheduled_at"]) == at(moved.read()["schedule"]["anchor"])
    moved.wait_state("COMPLETED", 30)
    assert len(moved.runs()) == 1
    paused.pause()
    paused.resume()
    assert paused.read()["state"] == "ENABLED" and not paused.runs()  # it waits on
    paused.patch(schedule={"jitter": "0s"})
    paused.wait_runs(1, state="SUCCESS")


def test_an_edit_rules_from_its_acknowledgement_and_open_runs_keep_their_version(scene):
    executor = scene.executor()
    executor.answer(Accept(report=None))
    task = scene.task("t", payload={"v": 1}, overlap_policy="QUEUE_ALL", retry={"max_attempts": 2, "initial_interval": "10ms"})
    first, queued = task.trigger(), task.trigger()
    d = executor.wait_deliveries(1)[0]
    scene.wait_run(queued, "PENDING", reason="QUEUED")
    task.patch(payload={"v": 2}, handler="other", retry={"max_attempts": 1})
    later = task.trigger()
    scene.wait_run(later, "PENDING", reason="QUEUED")
    executor.report(first, 1, d.fence, "FAIL", error={"type": "T", "message": "m"})
    second = executor.wait_deliveries(2)[1]
    assert (second.run_id, second.attempt, second.payload, second.handler) == (first, 2, {"v": 1}, "any")
    executor.answer(Done())
    executor.report(first, 2, second.fence)
    for run_id in (queued, later):
        scene.wait_run(run_id, "SUCCESS")
    third, fourth = executor.deliveries[2:]
    assert (third.run_id, third.payload, third.handler) == (queued, {"v": 1}, "any")
    assert (fourth.run_id, fourth.payload, fourth.handler) == (later, {"v": 2}, "other")
    assert [scene.run(i)["task_version"] for i in (first, queued, later)] == [1, 1, 2]


def test_a_changed_schedule_takes_effect(scene):
    scene.executor().answer(Done())
    task = scene.every("1h", overlap_policy="ALLOW")
    far = scene.task("far", {"kind": "CRON", "expression": "0 0 0 1 1 ?"})
    begin = time.monotonic()
    changed = task.patch(schedule={"every": "100ms"})
    cron = far.patch(schedule={"expression": "* * * * * ?"})
    runs = task.wait_runs(3, timeout=BOUND)
    assert time.monotonic() - begin < BOUND + 1
    assert all(at(r["scheduled_at"]) > at(changed["effective_at"]) and r["task_version"] == 2 for r in runs)
    assert at(far.wait_runs(1, timeout=BOUND)[0]["scheduled_at"]) > at(cron["effective_at"])
    # an edit keeps the anchor
    anchor = at(task.made["effective_at"])
    assert all((at(r["scheduled_at"]) - anchor) % timedelta(milliseconds=100) == timedelta(0) for r in runs)
    slow = task.patch(schedule={"every": "1h"})
    kept = at(slow["effective_at"])
    wait_for(lambda: soon(-1) > slow["effective_at"], 5, "a second after the edit")
    assert all(at(r["scheduled_at"]) <= kept for r in task.runs())
    kinds = [({"kind": "FIXED_DELAY", "every": "100ms"}, 2), ({"kind": "ONE_TIME", "run_at": soon(0.8)}, 1), ({"kind": "MANUAL"}, 0)]
    for schedule, more in kinds:
        before = len(task.runs())
        made = scene.api.ok("PUT", task.path, {**scene.body("t"), "schedule": schedule}, headers={"If-Match": "*"})
        assert made["schedule"]["kind"] == schedule["kind"]
        task.wait_runs(before + more, timeout=BOUND + 2)
    assert scene.wait_run(task.trigger(), "SUCCESS")


def test_delete_waits_for_its_runs_or_cancels_them(scene):
    executor = scene.executor()
    executor.answer(Accept(report=None))
    task = scene.task(overlap_policy="QUEUE_ALL", cancel_timeout="5s")
    first, second = task.trigger(), task.trigger()
    d = executor.wait_deliveries(1)[0]
    scene.wait_run(second, "PENDING")
    scene.api.problem("DELETE", task.path, status=409, code="conflict")
    assert task.read()["state"] == "ENABLED"
    assert scene.api.delete(f"{task.path}?cancel=true").status_code == 204
    scene.api.problem("GET", task.path, status=404, code="not_found")
    assert scene.wait_run(second)["state"] == "CANCELLED"
    told = wait_for(lambda: executor.cancels, what="the executor is told")
    assert told[0].run_id == first
    executor.report(first, 1, d.fence, "CANCELLED")
    assert scene.wait_run(first)["state"] == "CANCELLED"
    again = scene.task("t")  # the name is free
    assert again.name == task.name and again.id != task.id
    executor.answer(Done())
    scene.wait_run(again.trigger(), "SUCCESS")
    assert {r["id"] for r in task.runs()} == {first, second} and len(again.runs()) == 1


def test_a_deleted_schedule_fires_no_more(scene):
    executor = scene.executor()
    executor.answer(Done())
    task = scene.every("60ms", overlap_policy="ALLOW")
    witness = scene.every("60ms", "witness", overlap_policy="ALLOW")
    task.wait_runs(3)
    wait_for(lambda: scene.api.delete(f"{task.path}?cancel=true").status_code == 204, what="deleted")
    gone = soon(0)
    seen = len(witness.runs())
    witness.wait_runs(seen + 15)
    assert all(r["scheduled_at"] <= gone for r in task.runs())
    wait_for(lambda: not task.runs(state="PENDING,RUNNING"), what="its runs have ended")
    scene.api.problem("POST", f"{task.path}/trigger", status=404, code="not_found")
