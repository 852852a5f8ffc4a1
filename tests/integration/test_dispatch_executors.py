"""Which executor gets a run, and what becomes of its runs when it goes."""
from collections import Counter

from tests.harness.fake_executor import Accept, Done
from tests.harness.kelou import wait_for


def held(scene, names, routing="ROUND_ROBIN", **options):
    """Executors that accept and do not report."""
    scene.group("g", routing=routing)
    made = [scene.executor(name, **options) for name in names]
    for executor in made:
        executor.answer(Accept(report=None))
    return made


def let_go(*executors):
    for executor in executors:
        if executor.deliveries:
            executor.report_many([executor.report_of(d.run_id, d.attempt, d.fence) for d in executor.deliveries])


def state_of(scene, executor):
    return scene.api.ok("GET", f"/executors/{executor.name}", params={"namespace": "default", "group": executor.group.name})


def test_round_robin_spreads_evenly(scene):
    executors = [scene.executor(name) for name in "abc"]
    for executor in executors:
        executor.answer(Done())
    task = scene.task(overlap_policy="ALLOW")
    for _ in range(12):
        scene.wait_run(task.trigger(), "SUCCESS")
    assert [len(e.deliveries) for e in executors] == [4, 4, 4]


def test_least_busy_prefers_who_has_room(scene):
    small, large = held(scene, ("small", "large"), "LEAST_BUSY")
    small.slots, large.slots = 2, 8
    for executor in (small, large):
        executor.register()
    task = scene.task(overlap_policy="ALLOW")
    ids = [task.trigger() for _ in range(10)]
    wait_for(lambda: len(small.deliveries) + len(large.deliveries) == 10, what="ten deliveries")
    assert (len(small.deliveries), len(large.deliveries)) == (2, 8)
    assert state_of(scene, large)["slots_taken"] == 8
    more = task.trigger()
    assert scene.wait_run(more, "PENDING")["reason"] == "DISPATCHING"  # full
    d = large.deliveries[0]
    large.report(d.run_id, 1, d.fence)
    wait_for(lambda: more in {d.run_id for d in large.deliveries}, what="the freed slot is used")
    let_go(small, large)
    for run_id in ids + [more]:
        scene.wait_run(run_id, "SUCCESS")
    wait_for(lambda: state_of(scene, large)["slots_taken"] == state_of(scene, small)["slots_taken"] == 0, what="all slots are free")


def test_slots_are_respected(scene):
    (executor,) = held(scene, ("one",), slots=3)
    task = scene.task(overlap_policy="ALLOW", dispatch_timeout="1m")
    ids = [task.trigger() for _ in range(9)]
    executor.wait_deliveries(3)
    for run_id in ids:
        scene.wait_run(run_id, "PENDING", "RUNNING")
    assert len(executor.deliveries) == 3
    for done in range(9):
        d = executor.wait_deliveries(min(done + 3, 9))[done]
        assert len(executor.deliveries) <= done + 3
        executor.report(d.run_id, d.attempt, d.fence)
    assert Counter(scene.wait_run(i, "SUCCESS")["attempt"] for i in ids) == {1: 9}
    came = [d.run_id for d in executor.deliveries]  # first come, first served; the first three are on their way at once
    assert (sorted(came[:3]), came[3:]) == (sorted(ids[:3]), ids[3:])


def test_handlers_are_respected(scene):
    mail, any_ = scene.executor("mail", handlers=("mail", "print")), scene.executor("any", handlers=("*",))
    other = scene.executor("sms", handlers=("sms",))
    for executor in (mail, any_, other):
        executor.answer(Done())
    counts = {}
    for handler in ("mail", "sms", "fax"):
        task = scene.task(handler, handler=handler)
        counts[handler] = Counter(scene.wait_run(task.trigger(), "SUCCESS")["executor"] for _ in range(4))
    assert counts == {"mail": {"mail": 2, "any": 2}, "sms": {"sms": 2, "any": 2}, "fax": {"any": 4}}
    any_.deregister()
    run = scene.wait_run(scene.task("none", handler="fax", dispatch_timeout="400ms").trigger())
    assert (run["state"], run["reason"]) == ("FAIL", "NO_EXECUTOR")


def test_a_lost_executor_gives_its_runs_to_another(scene):
    lost, heir = held(scene, ("lost", "heir"))
    heir.answer(Done("by the heir"))
    task = scene.task("retry", overlap_policy="ALLOW", retry={"max_attempts": 2, "initial_interval": "10ms"})
    fail = scene.task("fail", overlap_policy="ALLOW", on_lost="FAIL", retry={"max_attempts": 5, "initial_interval": "10ms"})
    once = scene.task("once", overlap_policy="ALLOW", retry={"max_attempts": 1})
    ids = {t: t.trigger(executor="lost") for t in (fail, once)}
    moved = [task.trigger() for _ in range(2)]  # one of the two is there
    lost.wait_deliveries(3)
    stays = lost.deliveries[0]
    lost.crash()
    runs = [scene.wait_run(i, timeout=20) for i in moved]
    run = next(r for r in runs if r["attempt"] == 2)
    assert (run["state"], run["executor"], run["result"]) == ("SUCCESS", "heir", "by the heir")
    assert [(a["attempt"], a["state"], a["reason"], a["executor"]) for a in run["attempts"]] == [
        (1, "FAIL", "LOST", "lost"), (2, "SUCCESS", "NONE", "heir")]
    for t in (fail, once):
        run = scene.wait_run(ids[t])
        assert (run["state"], run["reason"], run["attempt"]) == ("FAIL", "LOST", 1), run
    assert state_of(scene, lost)["state"] == "LOST"
    late = lost.report(stays.run_id, 1, stays.fence)  # thawed: too late
    assert late.json()["results"][0]["status"] == "late"


def test_deregistration_counts_at_once(scene):
    leaves, heir = held(scene, ("leaves", "heir"))
    heir.answer(Done())
    task = scene.task(overlap_policy="ALLOW", retry={"max_attempts": 2, "initial_interval": "10ms"})
    ids = [task.trigger() for _ in range(4)]
    leaves.wait_deliveries(2)
    leaves.deregister()
    for run_id in ids:
        scene.wait_run(run_id, "SUCCESS", timeout=3)  # long before it would count as lost
    assert state_of(scene, leaves)["state"] == "OFFLINE"
    assert {d.run_id for d in heir.deliveries} == set(ids)


def test_a_new_incarnation_ends_the_runs_of_the_one_before(scene):
    (executor,) = held(scene, ("one",))
    task = scene.task(retry={"max_attempts": 2, "initial_interval": "10ms"})
    run_id = task.trigger()
    executor.wait_deliveries(1)
    executor.answer(Done("second life"))
    executor.register()
    run = scene.wait_run(run_id)
    assert (run["state"], run["attempt"], run["attempts"][0]["reason"]) == ("SUCCESS", 2, "LOST")


def test_drain_gives_no_new_runs_and_leaves_the_old_ones(scene):
    drained, other = held(scene, ("drained", "other"))
    task = scene.task(overlap_policy="ALLOW")
    ids = [task.trigger() for _ in range(2)]
    drained.wait_deliveries(1)
    other.wait_deliveries(1)
    where = {"namespace": "default", "group": drained.group.name}
    assert scene.api.ok("POST", "/executors/drained/drain", params=where)["state"] == "DRAINING"
    other.answer(Done())
    for _ in range(4):
        assert scene.wait_run(task.trigger(), "SUCCESS")["executor"] == "other"
    assert len(drained.deliveries) == 1
    drained.register()  # the drain survives a restart of the executor? its runs are lost, and it is online anew
    assert state_of(scene, drained)["state"] in ("ONLINE", "DRAINING")
    scene.api.ok("POST", "/executors/drained/resume", params=where)
    drained.answer(Done())
    seen = Counter(scene.wait_run(task.trigger(), "SUCCESS")["executor"] for _ in range(6))
    assert seen == {"drained": 3, "other": 3}
    let_go(other)
    assert {scene.wait_run(i)["state"] for i in ids} <= {"SUCCESS", "FAIL"}


def test_a_drained_executor_still_reports(scene):
    (executor,) = held(scene, ("one",))
    run_id = scene.task().trigger()
    d = executor.wait_deliveries(1)[0]
    where = {"namespace": "default", "group": executor.group.name}
    scene.api.ok("POST", "/executors/one/drain", params=where)
    assert executor.heartbeat().json()["state"] == "DRAINING"
    executor.report(run_id, 1, d.fence, "SUCCESS", result=1)
    assert scene.run(run_id)["state"] == "SUCCESS"


def test_a_pinned_run_waits_for_its_executor(scene):
    here, there = scene.executor("here"), scene.executor("there")
    for executor in (here, there):
        executor.answer(Done())
    there.deregister()
    task = scene.task(dispatch_timeout="1m")
    run_id = task.trigger(executor="there")
    run = scene.wait_run(run_id, "PENDING", reason="DISPATCHING")
    assert run["pinned_to"] == "there" and not here.deliveries
    there.register()
    assert scene.wait_run(run_id, "SUCCESS")["executor"] == "there"


def test_the_list_shows_what_an_executor_does(scene):
    (executor,) = held(scene, ("one",), slots=7)
    task = scene.task(overlap_policy="ALLOW")
    ids = [task.trigger() for _ in range(2)]
    executor.wait_deliveries(2)
    seen = state_of(scene, executor)
    assert (seen["state"], seen["slots"], seen["slots_taken"], seen["url"]) == ("ONLINE", 7, 2, executor.url)
    assert sorted(r["id"] for r in scene.api.items("/runs", executor="one", task=task.id)) in ([], sorted(ids))
    let_go(executor)
    for run_id in ids:
        scene.wait_run(run_id, "SUCCESS")
    assert sorted(r["id"] for r in scene.api.items("/runs", executor="one", task=task.id)) == sorted(ids)
