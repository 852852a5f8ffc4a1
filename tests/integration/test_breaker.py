"""An executor whose deliveries fail gets none for a while; one probe decides how it goes on."""
import threading

import pytest

from tests.harness.fake_executor import Answer, Busy, Done, Hang
from tests.harness.kelou import wait_for
from tests.harness.world import Scene

FAILURES = 3


@pytest.fixture(scope="module")
def world_settings():
    return {"executor.lost_after": "20s", "executor.breaker_failures": FAILURES, "executor.breaker_open_first": "2s",
            "executor.breaker_open_most": "3s"}


def broken(_):
    return Answer(500, {"error": "broken"})


def breaker(scene, executor):
    where = {"namespace": "default", "group": executor.group.name}
    return scene.api.ok("GET", f"/executors/{executor.name}", params=where)["breaker"]


def gauge(scene, executor, state):
    name = f'kelou_executor_breakers{{group="default/{executor.group.name}",state="{state}"}}'
    return scene.node.metrics()[name]


def opened(scene):
    return scene.node.metrics()["kelou_executor_breaker_opened_total"]


def open_it(scene, executor):
    executor.answer(broken)
    task = scene.task("breaks", overlap_policy="ALLOW", retry={"max_attempts": 1})
    for n in range(FAILURES):
        assert breaker(scene, executor) == "CLOSED", n
        run = scene.wait_run(task.trigger(executor=executor.name))
        assert (run["state"], run["reason"]) == ("FAIL", "REJECTED")
    wait_for(lambda: breaker(scene, executor) == "OPEN", what="the breaker is open")


def test_it_opens_and_one_probe_closes_it(scene):
    executor, before = scene.executor(), opened(scene)
    open_it(scene, executor)
    assert opened(scene) == before + 1
    assert (gauge(scene, executor, "OPEN"), gauge(scene, executor, "CLOSED")) == (1, 0)
    asked = len(executor.deliveries)
    run = scene.wait_run(scene.task("early", dispatch_timeout="300ms").trigger())
    assert (run["state"], run["reason"]) == ("FAIL", "NO_EXECUTOR") and "breaker" in run["error"]["message"]
    assert len(executor.deliveries) == asked  # it was left alone, and the run did not wait longer than it may
    hold = threading.Event()

    def probe(_):
        hold.wait(20)
        return Done()
    executor.answer(probe)
    task = scene.task("waits", overlap_policy="ALLOW", dispatch_timeout="1m")
    ids = [task.trigger() for _ in range(4)]
    executor.wait_deliveries(asked + 1)
    assert breaker(scene, executor) == "HALF_OPEN" and gauge(scene, executor, "HALF_OPEN") == 1
    assert [scene.run(i)["state"] for i in ids] == ["PENDING"] * 4
    assert len(executor.deliveries) == asked + 1  # the probe alone
    hold.set()
    for run_id in ids:
        assert scene.wait_run(run_id, "SUCCESS")["attempt"] == 1
    assert breaker(scene, executor) == "CLOSED" and gauge(scene, executor, "CLOSED") == 1
    assert opened(scene) == before + 1


def test_a_failed_probe_opens_it_again(scene):
    executor, before = scene.executor(), opened(scene)
    open_it(scene, executor)
    task = scene.task("probe", overlap_policy="ALLOW", dispatch_timeout="1m", retry={"max_attempts": 1})
    run = scene.wait_run(task.trigger())  # the probe: answered 500
    assert (run["state"], run["reason"]) == ("FAIL", "REJECTED")
    wait_for(lambda: breaker(scene, executor) == "OPEN", what="open again")
    assert opened(scene) == before + 2
    executor.answer(Done())
    assert scene.wait_run(task.trigger(), "SUCCESS")
    assert breaker(scene, executor) == "CLOSED"


def test_others_get_the_runs(scene):
    bad, good = scene.executor("bad"), scene.executor("good")
    good.answer(Done())
    open_it(scene, bad)
    asked = len(bad.deliveries)
    task = scene.task(overlap_policy="ALLOW", retry={"max_attempts": 1})
    assert {scene.wait_run(task.trigger(), "SUCCESS")["executor"] for _ in range(6)} == {"good"}
    assert len(bad.deliveries) <= asked + 1  # a probe at most, if that took so long


def test_what_does_not_count(scene):
    executor = scene.executor()
    task = scene.task(overlap_policy="ALLOW", dispatch_timeout="1m", retry={"max_attempts": 1})
    for answer in (Done(state="FAIL", error={"type": "t", "message": "m"}), Answer(404, {"error": "no such handler"})):
        executor.answer(answer)
        for _ in range(2 * FAILURES):
            assert scene.wait_run(task.trigger())["state"] == "FAIL"
        assert breaker(scene, executor) == "CLOSED"
    executor.script(*[Busy(429, 0)] * FAILURES, *[Answer(503, {})] * FAILURES)
    executor.answer(Done())
    scene.wait_run(task.trigger(), "SUCCESS")
    for _ in range(FAILURES):  # an answer in between begins anew
        executor.script(*[broken(None)] * (FAILURES - 1), Done())
        for _ in range(FAILURES):
            scene.wait_run(task.trigger())
    assert breaker(scene, executor) == "CLOSED"


def test_no_connection_and_no_answer_count(scene):
    gone = scene.executor("gone", "a")
    gone.close_port()
    run = scene.wait_run(scene.task("gone", group="a", dispatch_timeout="1s").trigger())
    assert (run["state"], run["reason"]) == ("FAIL", "NO_EXECUTOR")
    assert "breaker" not in run["error"]["message"]  # what it met itself says more
    assert breaker(scene, gone) in ("OPEN", "HALF_OPEN")
    mute = scene.executor("mute", "b")
    mute.answer(Hang(0.05))
    run = scene.wait_run(scene.task("mute", group="b", dispatch_timeout="2s").trigger())
    assert (run["state"], run["reason"]) == ("FAIL", "LOST")
    assert breaker(scene, mute) in ("OPEN", "HALF_OPEN")


def test_a_new_registration_begins_anew(scene):
    executor = scene.executor()
    open_it(scene, executor)
    executor.answer(Done())
    executor.register()
    assert breaker(scene, executor) == "CLOSED"
    assert scene.wait_run(scene.task("then", dispatch_timeout="1s").trigger(), "SUCCESS")


def test_a_restart_of_the_node_forgets_it(make_node):
    node = make_node(settings={"executor.breaker_failures": FAILURES, "executor.breaker_open_first": "1h",
                               "executor.breaker_open_most": "1h"}).start()
    scene = Scene(node, None)
    executor = scene.executor()
    open_it(scene, executor)
    executor.answer(Done())
    waits = scene.task("waits", dispatch_timeout="1m").trigger()
    scene.wait_run(waits, "PENDING", reason="DISPATCHING")
    node.restart(kill=True)
    assert scene.wait_run(waits, "SUCCESS")["executor"] == executor.name
    assert breaker(scene, executor) == "CLOSED"
    scene.done()
