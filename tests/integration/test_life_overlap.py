"""Overlap: what becomes of an instant or a trigger while a run of the same task has not ended."""
import threading

from tests.harness.fake_executor import Accept, Done
from tests.harness.kelou import wait_for
from tests.harness.world import at


class OneAtATime:
    """Counts how many runs are at an executor at once, as the executor sees it: from the delivery to its own report."""

    def __init__(self, executor, seconds):
        self.executor, self.seconds, self.now, self.most, self.order = executor, seconds, 0, 0, []
        self.lock = threading.Lock()
        executor.answer(self.take)

    def take(self, delivery):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.order.append(delivery.run_id)
        threading.Timer(self.seconds, self.end, (delivery,)).start()
        return Accept(report=None)

    def end(self, delivery):
        with self.lock:
            self.now -= 1
        self.executor.report(delivery.run_id, delivery.attempt, delivery.fence, "SUCCESS")


def held(scene, policy, **more):
    """A task with one run at the executor."""
    executor = scene.executors[0] if scene.executors else scene.executor()
    executor.answer(Accept(report=None))
    task = scene.task(policy.lower(), overlap_policy=policy, **more)
    before = len(executor.deliveries)
    first = task.trigger()
    return executor, task, first, executor.wait_deliveries(before + 1)[-1]


def test_each_policy_for_triggers(scene):
    executor, allow, first, _ = held(scene, "ALLOW")
    second = allow.trigger()
    executor.wait_deliveries(2)
    assert {d.run_id for d in executor.deliveries} == {first, second}

    executor, skip, _, _ = held(scene, "SKIP")
    run = scene.wait_run(skip.trigger())
    assert (run["state"], run["reason"], run["attempt"]) == ("SKIPPED", "OVERLAP", 0) and "executor" not in run
    stats = skip.stats()
    assert (stats["fires"], stats["skipped"], stats["open"]) == (1, 1, 1)
    forced = skip.trigger(ignore_overlap=True)
    wait_for(lambda: forced in {d.run_id for d in executor.deliveries}, what="the override is delivered")

    executor, one, first, d = held(scene, "QUEUE_ONE")
    waits, too_much = one.trigger(), one.trigger()
    assert scene.wait_run(waits, "PENDING")["reason"] == "QUEUED"
    run = scene.wait_run(too_much)
    assert (run["state"], run["reason"]) == ("SKIPPED", "OVERLAP")
    assert waits not in {x.run_id for x in executor.deliveries}
    executor.report(first, 1, d.fence)
    wait_for(lambda: waits in {x.run_id for x in executor.deliveries}, what="the queued one is delivered")
    third = one.trigger()
    assert scene.wait_run(third, "PENDING")["reason"] == "QUEUED"

    executor, every, first, d = held(scene, "QUEUE_ALL")
    ids = [every.trigger() for _ in range(5)]
    for run_id in ids:
        assert scene.wait_run(run_id, "PENDING")["reason"] == "QUEUED"
    executor.answer(Done())
    executor.report(first, 1, d.fence)
    for run_id in ids:
        scene.wait_run(run_id, "SUCCESS")
    assert [x.run_id for x in executor.deliveries if x.run_id in ids] == ids  # in the order of the requests


def test_a_schedule_that_overlaps_itself(scene):
    executor = scene.executor()
    queue_all = OneAtATime(executor, 0.35)
    other = scene.executor("other", "o")
    queue_one = OneAtATime(other, 0.35)
    third = scene.executor("third", "p")
    skip = OneAtATime(third, 0.35)
    tasks = {"QUEUE_ALL": scene.every("200ms", "all", overlap_policy="QUEUE_ALL"),
             "QUEUE_ONE": scene.every("200ms", "one", group="o", overlap_policy="QUEUE_ONE"),
             "SKIP": scene.every("200ms", "skip", group="p", overlap_policy="SKIP")}
    for task in tasks.values():
        task.wait_runs(4, state="SUCCESS")
        task.pause()
    for task in tasks.values():
        wait_for(lambda t=task: not t.runs(state="PENDING,RUNNING"), 20, "the queue is empty")
    assert queue_all.most == queue_one.most == skip.most == 1  # never two at once
    for policy, task in tasks.items():
        runs = task.runs()
        instants = [at(r["scheduled_at"]) for r in runs]
        gaps = {round((b - a).total_seconds(), 6) for a, b in zip(instants, instants[1:])}
        assert gaps == {0.2}, (policy, gaps)  # one row for each instant
        skipped = [r for r in runs if r["state"] == "SKIPPED"]
        assert all(r["reason"] == "OVERLAP" for r in skipped) and bool(skipped) == (policy != "QUEUE_ALL")
        assert {r["state"] for r in runs} <= {"SUCCESS", "SKIPPED"}
    order = [r["id"] for r in tasks["QUEUE_ALL"].runs()]
    assert queue_all.order == order


def test_a_retry_keeps_the_place(scene):
    executor = scene.executor()
    executor.script(Done(state="FAIL", error={"type": "T", "message": "m"}))
    executor.answer(Done())
    task = scene.task(overlap_policy="QUEUE_ALL", retry={"max_attempts": 2, "initial_interval": "1500ms", "jitter": 0})
    first, second = task.trigger(), task.trigger()
    scene.wait_run(first, "PENDING", reason="RETRY_WAIT")
    scene.wait_run(second, "PENDING", reason="QUEUED")  # the first has not ended
    scene.wait_run(first, "SUCCESS")
    scene.wait_run(second, "SUCCESS")
    assert [d.run_id for d in executor.deliveries] == [first, first, second]


def test_the_schedule_and_a_trigger_obey_each_other(scene):
    executor = scene.executor()
    executor.answer(Accept(report=None))
    task = scene.every("300ms", overlap_policy="SKIP")
    executor.wait_deliveries(1)
    run = scene.wait_run(task.trigger())
    assert (run["state"], run["reason"], run["origin"]) == ("SKIPPED", "OVERLAP", "API")
    task.wait_runs(2, state="SKIPPED")
    assert len(executor.deliveries) == 1


def test_replace(scene):
    """The newest waits, the one in progress is told to stop, one that waited is skipped."""
    executor, task, first, d = held(scene, "REPLACE", cancel_timeout="1m")
    second = task.trigger()
    scene.wait_run(first, "RUNNING", reason="CANCELLING")
    told = wait_for(lambda: executor.cancels and executor.cancels[0], what="the executor is told")
    assert (told.run_id, told.attempt) == (first, 1)
    assert scene.wait_run(second, "PENDING")["reason"] == "QUEUED"
    third = task.trigger()
    run = scene.wait_run(second)
    assert (run["state"], run["reason"], run["attempt"]) == ("SKIPPED", "OVERLAP", 0)
    assert scene.wait_run(third, "PENDING")["reason"] == "QUEUED"
    assert {x.run_id for x in executor.deliveries} == {first} and len(executor.cancels) == 1
    executor.answer(Done())
    executor.report(first, 1, d.fence, "CANCELLED")
    run = scene.wait_run(first)
    assert (run["state"], run["reason"]) == ("CANCELLED", "REPLACED")
    scene.wait_run(third, "SUCCESS")
    stats = task.stats()
    assert (stats["fires"], stats["cancelled"], stats["skipped"], stats["success"], stats["open"]) == (2, 1, 1, 1, 0), stats
    assert [r["id"] for r in task.runs(reason="REPLACED")] == [first]


def test_replace_gives_up_who_does_not_confirm(scene):
    executor, task, first, d = held(scene, "REPLACE", cancel_timeout="500ms")
    second = task.trigger()
    run = scene.wait_run(first)
    assert (run["state"], run["reason"]) == ("CANCELLED", "REPLACED")
    wait_for(lambda: second in {x.run_id for x in executor.deliveries}, what="the newest is delivered")
    assert executor.report(first, 1, d.fence, "SUCCESS").json()["results"][0]["status"] == "late"
    beside = task.trigger(ignore_overlap=True)
    wait_for(lambda: beside in {x.run_id for x in executor.deliveries}, what="the override replaces nothing")
    assert scene.run(second)["state"] in ("PENDING", "RUNNING")


def test_a_schedule_that_replaces_itself(scene):
    executor = scene.executor()
    counted = OneAtATime(executor, 0.5)
    task = scene.every("200ms", overlap_policy="REPLACE", cancel_timeout="5s")
    wait_for(lambda: len(executor.cancels) >= 2, what="two runs are told to stop")
    task.pause()
    wait_for(lambda: not task.runs(state="PENDING,RUNNING"), 20, "the last one has ended")
    assert counted.most == 1
    assert {(r["state"], r["reason"]) for r in task.runs()} <= {("SUCCESS", "NONE"), ("CANCELLED", "REPLACED"), ("SKIPPED", "OVERLAP")}
