"""Cancel: of a run that waits, that is being delivered, that runs, and of one that has ended."""
from tests.harness.fake_executor import Accept, Busy, Done, Hang
from tests.harness.kelou import wait_for
from tests.harness.world import seconds_between


def hold(scene, **more):
    """A task whose first run is at an executor that never reports; the run's delivery, too."""
    executor = scene.executors[0] if scene.executors else scene.executor()
    executor.answer(Accept(report=None))
    task = scene.task(more.pop("name", "t"), **more)
    before = len(executor.deliveries)
    run_id = task.trigger()
    return executor, task, run_id, executor.wait_deliveries(before + 1)[-1]


def test_runs_that_wait_end_at_once(scene):
    executor, task, first, _ = hold(scene, overlap_policy="QUEUE_ALL")
    queued = [task.trigger() for _ in range(3)]
    for run_id in queued:
        scene.wait_run(run_id, "PENDING", reason="QUEUED")
    assert scene.cancel(queued[1]).status_code == 200
    gone = scene.run(queued[1])
    assert (gone["state"], gone["reason"], gone["attempt"]) == ("CANCELLED", "NONE", 0) and gone["finished_at"]
    executor.answer(Done(state="FAIL", error={"type": "T", "message": "m"}))
    again = scene.task("again", retry={"max_attempts": 2, "initial_interval": "10m"})
    between = again.trigger()
    scene.wait_run(between, "PENDING", reason="RETRY_WAIT")
    assert scene.cancel(between).json()["state"] == "CANCELLED"
    run = scene.run(between)
    assert [(a["attempt"], a["state"]) for a in run["attempts"]] == [(1, "FAIL")]
    nobody = scene.task("nobody", group="empty", dispatch_timeout="1m")
    waiting = nobody.trigger()
    scene.wait_run(waiting, "PENDING", reason="DISPATCHING")
    assert scene.cancel(waiting).json()["state"] == "CANCELLED"  # surely nowhere: no bound to wait for
    busy = scene.executor("busy", "b")
    busy.answer(Busy(429, retry_after=20))
    turned_away = scene.task("busy", group="b", dispatch_timeout="1m").trigger()
    busy.wait_deliveries(1)

    def cancelled():
        answer = scene.cancel(turned_away)
        assert answer.status_code in (200, 202, 409), answer.text
        return scene.run(turned_away)["state"] == "CANCELLED"
    assert wait_for(cancelled, 5, "the run that was turned away is cancelled")
    assert not busy.cancels or busy.cancels[0].run_id == turned_away
    assert scene.run(first)["state"] in ("PENDING", "RUNNING")
    executor.report(first, 1, executor.deliveries[0].fence)
    scene.wait_run(queued[0])
    assert queued[1] not in {d.run_id for d in executor.deliveries}  # the queue goes on without it


def test_a_running_run_is_told_and_confirms(scene):
    executor, _, run_id, d = hold(scene)
    answer = scene.cancel(run_id)
    assert answer.status_code == 202 and (answer.json()["state"], answer.json()["reason"]) == ("RUNNING", "CANCELLING")
    told = wait_for(lambda: executor.cancels and executor.cancels[0], what="the executor is told")
    assert told.signed and (told.run_id, told.attempt) == (run_id, 1)
    assert scene.cancel(run_id).status_code in (200, 202)  # twice is not an error
    assert executor.report(run_id, 1, d.fence, "CANCELLED").json()["results"][0]["status"] == "recorded"
    run = scene.run(run_id)
    assert (run["state"], run["reason"]) == ("CANCELLED", "NONE") and run["started_at"] <= run["finished_at"]
    scene.api.problem("POST", f"/runs/{run_id}/cancel", status=409, code="conflict")


def test_who_does_not_confirm_is_given_up(scene):
    executor, task, run_id, d = hold(scene, cancel_timeout="700ms", retry={"max_attempts": 3, "initial_interval": "10ms"})
    asked = scene.cancel(run_id)
    assert asked.status_code == 202
    run = scene.wait_run(run_id, "CANCELLED")
    assert seconds_between(run["fired_at"], run["finished_at"]) >= 0.7 and run["attempt"] == 1
    late = executor.report(run_id, 1, d.fence, "SUCCESS")
    assert late.status_code == 200 and late.json()["results"][0]["status"] == "late"
    assert scene.run(run_id)["state"] == "CANCELLED" and task.stats()["cancelled"] == 1


def test_a_result_that_comes_first_counts(scene):
    executor, task, run_id, d = hold(scene, cancel_timeout="1m", retry={"max_attempts": 3, "initial_interval": "10ms"})
    assert scene.cancel(run_id).status_code == 202
    executor.report(run_id, 1, d.fence, "SUCCESS", result="done before")
    assert (scene.run(run_id)["state"], scene.run(run_id)["result"]) == ("SUCCESS", "done before")
    failing = task.trigger()
    d = executor.wait_deliveries(2)[1]
    assert scene.cancel(failing).status_code == 202
    executor.report(failing, 1, d.fence, "FAIL", error={"type": "T", "message": "while stopping"})
    run = scene.run(failing)
    assert (run["state"], run["reason"], run["attempt"]) == ("FAIL", "ERROR", 1)  # somebody wanted it to end: no retry


def test_cancel_while_the_delivery_hangs(scene):
    executor = scene.executor()
    executor.answer(Hang(2))
    run_id = scene.task(dispatch_timeout="1m", cancel_timeout="600ms").trigger()
    executor.wait_deliveries(1)
    assert scene.cancel(run_id).status_code == 202  # it may have been received
    assert scene.wait_run(run_id)["state"] == "CANCELLED"
    told = wait_for(lambda: executor.cancels, what="the executor is told")
    assert told[0].run_id == run_id


def test_cancelling_ends_with_its_executor(scene):
    executor, _, run_id, _ = hold(scene, cancel_timeout="1h")
    assert scene.cancel(run_id).status_code == 202
    executor.deregister()
    assert scene.wait_run(run_id)["state"] == "CANCELLED"


def test_an_ended_run_stays_as_it_is(scene):
    executor = scene.executor()
    task = scene.task(overlap_policy="SKIP")
    executor.script(Done(1), Done(state="FAIL", error={"type": "T", "message": "m"}))
    ended = []
    for state in ("SUCCESS", "FAIL"):
        ended.append(scene.wait_run(task.trigger(), state))
    executor.answer(Accept(report=None))
    task.trigger()
    executor.wait_deliveries(3)
    ended.append(scene.wait_run(task.trigger(), "SKIPPED"))
    for run in ended:
        scene.api.problem("POST", f"/runs/{run['id']}/cancel", status=409, code="conflict")
        assert scene.run(run["id"]) == run
