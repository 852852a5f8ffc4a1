"""What executors answer to a delivery, and what the centre makes of it: busy, refused, mute, broken, gone."""
import threading

from tests.harness.fake_executor import Accept, Answer, Busy, Done, Hang, Refuse, Reset
from tests.harness.kelou import wait_for
from tests.harness.world import seconds_between


def test_a_busy_executor_is_asked_again_with_the_same_attempt(scene):
    executor = scene.executor()
    executor.script(Busy(429, 1), Busy(503, 1), Answer(503, {"error": "no header"}))
    executor.answer(Done("at last"))
    run = scene.wait_run(scene.task(dispatch_timeout="1m", retry={"max_attempts": 1}).trigger())
    assert (run["state"], run["attempt"], run["result"]) == ("SUCCESS", 1, "at last") and not run.get("attempts")
    assert [d.attempt for d in executor.deliveries] == [1] * 4
    assert len({(d.run_id, d.fence) for d in executor.deliveries}) == 1
    times = [d.at for d in executor.deliveries]
    assert times[1] - times[0] >= 0.9 and times[2] - times[1] >= 0.9  # Retry-After was heeded


def test_a_busy_executor_hands_over_to_another(scene):
    busy, free = scene.executor("busy"), scene.executor("free")
    busy.answer(Busy(429, 30))
    free.answer(Done())
    task = scene.task(dispatch_timeout="20s", overlap_policy="ALLOW")
    scene.wait_run(task.trigger(executor="free"), "SUCCESS")
    for run_id in (task.trigger(), task.trigger()):  # the round comes to the busy one
        scene.wait_run(run_id)
    asked = len(busy.deliveries)
    assert asked
    for run_id in [task.trigger() for _ in range(6)]:
        run = scene.wait_run(run_id)
        assert (run["state"], run["executor"], run["attempt"]) == ("SUCCESS", "free", 1)
    assert len(busy.deliveries) == asked and len(free.deliveries) == 9  # left alone for as long as it asked


def test_busy_until_the_time_is_up(scene):
    executor = scene.executor()
    executor.answer(Busy(429, 0))
    run = scene.wait_run(scene.task(dispatch_timeout="700ms").trigger())
    assert (run["state"], run["reason"]) == ("FAIL", "REJECTED") and "429" in run["error"]["message"]


def test_a_broken_connection_is_delivered_again_with_the_same_attempt(scene):
    executor = scene.executor()
    executor.script(Reset(), Reset())
    executor.answer(Accept())
    run = scene.wait_run(scene.task(dispatch_timeout="1m").trigger())
    assert (run["state"], run["attempt"]) == ("SUCCESS", 1)
    assert [(d.attempt, d.fence) for d in executor.deliveries] == [(1, executor.deliveries[0].fence)] * 3
    executor.answer(Reset())
    run = scene.wait_run(scene.task("never", dispatch_timeout="1s").trigger())
    assert (run["state"], run["reason"], run["executor"]) == ("FAIL", "LOST", "one")


def test_what_may_have_been_received_goes_to_the_same_executor_again(scene):
    mute, other = scene.executor("mute"), scene.executor("other")
    other.answer(Done())
    mute.script(Hang(0.1), Hang(0.1), Hang(0.1))
    mute.answer(Accept())
    run = scene.wait_run(scene.task(dispatch_timeout="1m").trigger(executor="mute"))
    assert (run["state"], run["attempt"], run["executor"]) == ("SUCCESS", 1, "mute") and len(mute.deliveries) == 4
    task = scene.task("any", dispatch_timeout="1m", overlap_policy="ALLOW")
    mute.script(*[Hang(0.1)] * 2)
    for run_id in [task.trigger() for _ in range(6)]:
        scene.wait_run(run_id, "SUCCESS")
    for name, executor in (("mute", mute), ("other", other)):
        for d in executor.deliveries:
            assert scene.run(d.run_id)["executor"] == name  # nobody else got what it may have got


def test_a_refused_connection_goes_to_another(scene):
    gone, here = scene.executor("gone"), scene.executor("here")
    here.answer(Done())
    gone.close_port()  # its beats go on
    task = scene.task(dispatch_timeout="20s", overlap_policy="ALLOW")
    for run_id in [task.trigger() for _ in range(5)]:
        run = scene.wait_run(run_id)
        assert (run["state"], run["executor"], run["attempt"]) == ("SUCCESS", "here", 1)
    alone = scene.executor("alone", "lonely")
    alone.close_port()
    run = scene.wait_run(scene.task("alone", group="lonely", dispatch_timeout="600ms").trigger())
    assert (run["state"], run["reason"]) == ("FAIL", "NO_EXECUTOR")
    assert scene.api.ok("GET", "/executors/alone", params={"namespace": "default", "group": alone.group.name})["state"] == "ONLINE"


def test_an_executor_that_comes_late_gets_what_waits(scene):
    scene.group()
    task = scene.task(dispatch_timeout="1m", overlap_policy="ALLOW")
    ids = [task.trigger() for _ in range(3)]
    for run_id in ids:
        scene.wait_run(run_id, "PENDING", reason="DISPATCHING")
    scene.executor().answer(Done())
    for run_id in ids:
        assert scene.wait_run(run_id, "SUCCESS")["attempt"] == 1


def test_one_that_refuses_is_left_alone_for_a_while(scene):
    bad, good = scene.executor("bad"), scene.executor("good")
    scene.api.ok("PATCH", f"/executor-groups/{scene.group().name}", {"routing": "LEAST_BUSY"})
    bad.answer(lambda d: Answer(500, {"error": "broken"}))
    good.answer(Accept(report=None))  # always busier than the one that refuses everything
    task = scene.task(overlap_policy="ALLOW", retry={"max_attempts": 2, "initial_interval": "10ms"}, dispatch_timeout="10s")
    ids = [task.trigger() for _ in range(8)]
    good.wait_deliveries(8)
    for run_id in ids:
        run = scene.run(run_id)
        assert run["state"] in ("PENDING", "RUNNING") and run["attempt"] <= 2, run
    assert len(bad.deliveries) <= 4
    for d in good.deliveries:
        good.report(d.run_id, d.attempt, d.fence)


def test_a_mute_executor_with_one_slot_gets_its_run_again(scene):
    executor = scene.executor(slots=1)
    executor.script(Hang(0.3))
    executor.answer(Accept())
    task = scene.task(overlap_policy="ALLOW", dispatch_timeout="8s")
    first = task.trigger()
    executor.wait_deliveries(1)
    rest = [task.trigger() for _ in range(3)]  # they wait for the slot that the first one holds
    for run_id in [first, *rest]:
        run = scene.wait_run(run_id, timeout=20)
        assert (run["state"], run["attempt"]) == ("SUCCESS", 1), run
    assert [d.run_id for d in executor.deliveries][:2] == [first, first]


def test_a_dead_and_a_slow_executor_slow_nobody_else(scene):
    dead, slow, mute, well = (scene.executor(name, name) for name in ("dead", "slow", "mute", "well"))
    dead.close_port()
    slow.answer(lambda d: threading.Event().wait(1.0) or Done())
    mute.answer(Hang(60))
    well.answer(Done())
    for name in ("dead", "slow", "mute"):
        task = scene.task(name, group=name, overlap_policy="ALLOW", dispatch_timeout="10s")
        for _ in range(40):
            task.trigger()
    task = scene.task("well", group="well", overlap_policy="ALLOW")
    for run_id in [task.trigger() for _ in range(20)]:
        run = scene.wait_run(run_id, "SUCCESS")
        assert seconds_between(run["fired_at"], run["finished_at"]) < 3  # the others take ten and more
    assert len(mute.deliveries) and len(slow.deliveries) and not dead.deliveries


def test_an_unsigned_or_forged_delivery_would_be_seen(scene):
    """The executor verifies with the secret that was shown once; while a rotation lasts there is a v1= for each."""
    executor = scene.executor()
    executor.answer(Done())
    task = scene.task(overlap_policy="ALLOW", dispatch_timeout="5s")
    scene.wait_run(task.trigger(), "SUCCESS")
    group = executor.group
    old = group.secret
    new = scene.api.ok("POST", f"/executor-groups/{group.name}/rotate-secret")["secret"]
    assert new != old

    def signed_with(secret):
        group.secret = secret
        before = len(executor.deliveries)
        run = scene.wait_run(task.trigger())
        return run["state"] == "SUCCESS" and len(executor.deliveries) == before + 1
    assert signed_with(old) and signed_with(new)  # executors of both sides of the rotation
    assert executor.last_signature.count("v1=") == 2
    scene.api.ok("POST", f"/executor-groups/{group.name}/retire-secret")
    assert signed_with(new) and executor.last_signature.count("v1=") == 1
    group.secret = old
    run = scene.wait_run(task.trigger())
    assert (run["state"], run["reason"]) == ("FAIL", "REJECTED")
    assert "answered 401, it did not accept the signature (the secret of the group, its clock)" in run["error"]["message"]


def test_an_old_fence_is_refused_by_the_executor_and_ends_the_attempt(scene):
    executor = scene.executor()
    executor.answer(Refuse())
    run = scene.wait_run(scene.task(retry={"max_attempts": 1}).trigger())
    assert (run["state"], run["reason"]) == ("FAIL", "REJECTED")
    assert len(executor.deliveries) == 1  # not asked again and again


def test_a_refusal_without_a_text_ends_with_its_number(scene):
    executor = scene.executor()
    task = scene.task(retry={"max_attempts": 1})
    for answer, said in ((Answer(404), "the executor answered 404"), (Answer(404, "no"), "the executor answered 404: ")):
        executor.answer(answer)
        message = scene.wait_run(task.trigger())["error"]["message"]
        assert message.startswith(said) and not message.endswith(": "), message


def test_cancel_of_a_run_at_a_dead_executor_is_bounded(scene):
    executor = scene.executor()
    executor.answer(Accept(report=None))
    run_id = scene.task(cancel_timeout="500ms").trigger()
    executor.wait_deliveries(1)
    executor.close_port()
    assert scene.cancel(run_id).status_code == 202
    assert scene.wait_run(run_id)["state"] == "CANCELLED"
    assert wait_for(lambda: not executor.cancels, what="it could not be told")
