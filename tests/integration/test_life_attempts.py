"""Attempts: success, failure, retries with back-off, and every time-out that bounds a run."""
from tests.harness.fake_executor import Accept, Done, Hang, Refuse
from tests.harness.kelou import wait_for
from tests.harness.world import at, seconds_between, soon

ERROR = {"type": "Boom", "message": "it broke: 坏", "detail": "line 1\nline 2"}


def fail(error=None):
    return Done(state="FAIL", error=error or ERROR)


def retry(most, first="100ms", **more):
    return {"max_attempts": most, "initial_interval": first, "jitter": 0, "multiplier": 2, **more}


def test_success_and_failure_at_once_and_by_report(scene):
    executor = scene.executor()
    task = scene.task(overlap_policy="ALLOW")
    for by_report in (False, True):
        result = {"sum": 3, "深": [1.5, None, True]}
        executor.script(Accept(delay=0.05, result=result, started_at=soon(-0.01)) if by_report else Done(result))
        run = scene.wait_run(task.trigger())
        assert (run["state"], run["reason"], run["result"], run["attempt"]) == ("SUCCESS", "NONE", result, 1)
        assert run["started_at"] <= run["finished_at"] and "error" not in run and not run.get("attempts")
        executor.script(Accept("FAIL", error=ERROR) if by_report else fail())
        run = scene.wait_run(task.trigger())
        assert (run["state"], run["reason"], run["error"]) == ("FAIL", "ERROR", ERROR)
        assert [(a["attempt"], a["state"], a["reason"]) for a in run["attempts"]] == [(1, "FAIL", "ERROR")]
    stats = task.stats()
    assert (stats["fires"], stats["success"], stats["fail"], stats["success_rate"], stats["open"]) == (4, 2, 2, 0.5, 0)


def test_any_body_of_200_is_a_result(scene):
    executor = scene.executor()
    task = scene.task(overlap_policy="ALLOW")
    for body in ([1, 2], "text", 7, None):
        answer = Done()
        answer.body = body
        executor.script(answer)
        run = scene.wait_run(task.trigger())
        assert run["state"] == "SUCCESS" and run.get("result") in (body, {} if body is None else body)


def test_long_texts_are_cut_with_a_notice(scene):
    executor = scene.executor()
    executor.answer(Accept("FAIL", error={"type": "T", "message": "m" * 70000, "detail": "深" * 40000}))
    run = scene.wait_run(scene.task().trigger(), "FAIL")
    assert len(run["error"]["message"].encode()) <= 65536 and run["error"]["message"].endswith("[cut]")
    assert len(run["error"]["detail"].encode()) <= 65536 and run["error"]["detail"].endswith("[cut]")


def test_retries_back_off_and_keep_each_attempt(scene):
    executor = scene.executor()
    executor.script(fail(), fail({"type": "Second", "message": "again"}))
    executor.answer(Done("in the end"))
    task = scene.task(retry=retry(4, "200ms"))
    run = scene.wait_run(task.trigger())
    assert (run["state"], run["attempt"], run["result"]) == ("SUCCESS", 3, "in the end")
    assert [(a["attempt"], a["state"], a["reason"], a.get("error", {}).get("type")) for a in run["attempts"]] == [
        (1, "FAIL", "ERROR", "Boom"), (2, "FAIL", "ERROR", "Second"), (3, "SUCCESS", "NONE", None)]
    first, second, third = executor.deliveries
    assert [d.attempt for d in (first, second, third)] == [1, 2, 3] and third.max_attempts == 4
    assert len({d.run_id for d in executor.deliveries}) == len({d.scheduled_at for d in executor.deliveries}) == 1
    assert first.fence <= second.fence <= third.fence
    waits = [seconds_between(a["finished_at"], b["dispatched_at"]) for a, b in zip(run["attempts"], run["attempts"][1:])]
    assert waits[0] >= 0.2 and waits[1] >= 0.4  # the interval doubles
    assert run["scheduled_at"] == first.scheduled_at and task.stats()["attempts"] == 3


def test_a_run_waits_visibly_and_is_given_up_after_the_last_attempt(scene):
    executor = scene.executor()
    executor.answer(fail())
    waiting = scene.task("waiting", retry=retry(2, "1h", max_interval="1h"))
    run = scene.wait_run(waiting.trigger(), "PENDING", reason="RETRY_WAIT")
    assert 3500 < seconds_between(run["attempts"][0]["finished_at"], run["not_before"]) < 3700 and run["attempt"] == 1
    three = scene.task("three", retry=retry(3, "10ms"))
    run = scene.wait_run(three.trigger())
    assert (run["state"], run["reason"], run["attempt"], len(run["attempts"])) == ("FAIL", "ERROR", 3, 3)
    elapsed = scene.task("elapsed", retry=retry(100, "300ms", multiplier=1, max_elapsed="500ms"))
    run = scene.wait_run(elapsed.trigger())
    assert run["state"] == "FAIL" and run["attempt"] == 2  # the third would begin later than 500 ms after the fire
    capped = scene.task("capped", retry=retry(4, "100ms", multiplier=10, max_interval="150ms"))
    run = scene.wait_run(capped.trigger())
    waits = [seconds_between(a["finished_at"], b["dispatched_at"]) for a, b in zip(run["attempts"], run["attempts"][1:])]
    assert len(waits) == 3 and waits[0] >= 0.1 and all(0.15 <= w < 10 for w in waits[1:])


def test_retry_on_chooses_the_reasons(scene):
    executor = scene.executor()
    executor.answer(fail())
    not_errors = scene.task("a", retry=retry(3, "10ms", retry_on=["TIMEOUT", "LOST"]))
    assert scene.wait_run(not_errors.trigger())["attempt"] == 1
    executor.answer(Accept(report=None))
    timeouts = scene.task("b", retry=retry(2, "10ms", retry_on=["TIMEOUT"]), attempt_timeout="200ms")
    run = scene.wait_run(timeouts.trigger())
    assert (run["attempt"], run["reason"], [a["reason"] for a in run["attempts"]]) == (2, "TIMEOUT", ["TIMEOUT"] * 2)


def test_refused_is_an_attempt_of_its_own(scene):
    executor = scene.executor()
    executor.script(Refuse())
    executor.answer(Done())
    run = scene.wait_run(scene.task("again", retry=retry(2, "10ms")).trigger())
    assert (run["state"], run["attempt"]) == ("SUCCESS", 2) and run["attempts"][0]["reason"] == "REJECTED"
    executor.answer(Refuse())
    run = scene.wait_run(scene.task("no").trigger())
    assert (run["state"], run["reason"], run["error"]["type"]) == ("FAIL", "REJECTED", "REJECTED")
    assert "409" in run["error"]["message"]


def test_every_timeout_ends_what_it_bounds(scene):
    executor = scene.executor()
    executor.answer(Accept(report=None))
    quick = scene.executor("quick", "q")
    quick.answer(fail())
    never = scene.group("nobody")
    assert never
    attempt = scene.task("attempt", attempt_timeout="500ms")
    whole = scene.task("whole", timeout="700ms", retry=retry(9, "10ms"), attempt_timeout="500ms")
    between = scene.task("between", group="q", timeout="600ms", retry=retry(5, "400ms", multiplier=1))
    silent = scene.task("silent", heartbeat_timeout="500ms")
    nobody = scene.task("nobody", group="nobody", dispatch_timeout="400ms")
    queued = scene.task("queued", timeout="600ms", cancel_timeout="100ms", overlap_policy="QUEUE_ALL")
    ids = {t: t.trigger() for t in (attempt, whole, between, silent, nobody)}
    held, waiting = queued.trigger(), queued.trigger()
    run = scene.wait_run(ids[attempt])
    assert (run["state"], run["reason"]) == ("FAIL", "TIMEOUT") and run["error"]["message"] == "attempt time-out"
    assert seconds_between(run["fired_at"], run["finished_at"]) >= 0.5
    run = scene.wait_run(ids[whole])
    assert (run["state"], run["reason"], run["attempt"]) == ("FAIL", "TIMEOUT", 2)
    assert 0.7 <= seconds_between(run["fired_at"], run["finished_at"])
    run = scene.wait_run(ids[between])
    assert run["state"] == "FAIL" and run["attempt"] == 2 and run["reason"] in ("TIMEOUT", "ERROR")
    run = scene.wait_run(ids[silent])
    assert (run["state"], run["reason"], run["error"]["message"]) == ("FAIL", "TIMEOUT", "no progress beat in time")
    run = scene.wait_run(ids[nobody])
    assert (run["state"], run["reason"], run["attempt"]) == ("FAIL", "NO_EXECUTOR", 1) and "executor" not in run
    assert scene.wait_run(held)["reason"] == "TIMEOUT"
    run = scene.wait_run(waiting)
    assert run["state"] == "FAIL" and run["reason"] in ("EXPIRED", "TIMEOUT")
    # who is given up may still be at work: the executor is told
    told = {c.run_id for c in wait_for(lambda: len(executor.cancels) >= 3 and executor.cancels, what="cancels")}
    assert {ids[attempt], ids[silent]} <= told


def test_a_queued_run_expires(scene):
    executor = scene.executor()
    executor.answer(Accept(report=None))
    task = scene.task("q", overlap_policy="QUEUE_ALL", timeout="1h")
    first = task.trigger()
    executor.wait_deliveries(1)
    task.patch(timeout="400ms")
    second = task.trigger()
    run = scene.wait_run(second)
    assert (run["state"], run["reason"], run["attempt"]) == ("FAIL", "EXPIRED", 0)
    assert scene.run(first)["state"] in ("PENDING", "RUNNING") and len(executor.deliveries) == 1


def test_progress_beats_keep_a_run_alive(scene):
    executor = scene.executor()
    executor.answer(Accept(report=None))
    run_id = scene.task("beats", heartbeat_timeout="600ms").trigger()
    d = executor.wait_deliveries(1)[0]
    begin = scene.wait_run(run_id, "PENDING", "RUNNING")["fired_at"]
    step = 0

    def beat():
        nonlocal step
        step += 1
        answer = executor.report(run_id, 1, d.fence, "RUNNING", progress=min(step / 100, 1))
        assert answer.json()["results"][0]["status"] == "recorded"
        return seconds_between(begin, soon(0)) > 2.6
    wait_for(beat, 20, "beats", every=0.15)
    run = scene.wait_run(run_id, "RUNNING", reason="PROGRESS")  # written for those who look, too
    assert 0 < run["progress"] <= step / 100
    assert executor.report(run_id, 1, d.fence, "SUCCESS").ok
    assert scene.run(run_id)["state"] == "SUCCESS"


def test_the_deadline_in_the_message_is_the_nearest_bound(scene):
    executor = scene.executor()
    task = scene.task(attempt_timeout="30s", timeout="10m")
    scene.wait_run(task.trigger())
    d = executor.deliveries[0]
    assert abs(seconds_between(d.fired_at, d.deadline) - 30) < 5
    task.patch(attempt_timeout="1h", timeout="20s")
    scene.wait_run(task.trigger())
    d = executor.deliveries[1]
    assert seconds_between(d.fired_at, d.deadline) == 20 and at(d.fired_at)


def test_a_hanging_executor_gets_it_again_and_only_then_gives_it_up(scene):
    executor = scene.executor()
    executor.script(Hang(1.0))
    executor.answer(Accept())
    again = scene.task("again", dispatch_timeout="3s")  # the acknowledgement is waited for half of that
    run = scene.wait_run(again.trigger())
    assert (run["state"], run["attempt"]) == ("SUCCESS", 1)
    first, second = executor.deliveries[:2]
    assert (first.run_id, first.attempt, first.fence) == (second.run_id, second.attempt, second.fence)
    executor.answer(Hang(30))
    mute = scene.task("mute", dispatch_timeout="800ms")
    run = scene.wait_run(mute.trigger())
    assert (run["state"], run["reason"]) == ("FAIL", "LOST") and seconds_between(run["fired_at"], run["finished_at"]) >= 0.8
