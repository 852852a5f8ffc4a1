"""Reports: the first result wins, whatever else is said; nothing of a document that is refused is applied."""
from tests.harness.fake_executor import Accept, Done, now_rfc3339
from tests.harness.world import soon


def statuses(answer):
    assert answer.status_code == 200, answer.text
    return [r["status"] for r in answer.json()["results"]]


def open_runs(scene, executor, count, **more):
    executor.answer(Accept(report=None))
    task = scene.task(more.pop("name", "t"), overlap_policy="ALLOW", **more)
    ids = [task.trigger() for _ in range(count)]
    executor.wait_deliveries(len(executor.deliveries) and count)
    by_id = {d.run_id: d for d in executor.wait_deliveries(count)}
    return task, [by_id[i] for i in ids]


def test_duplicates_and_late_ones_are_answered_and_harmless(scene):
    executor = scene.executor()
    task, (d,) = open_runs(scene, executor, 1)
    done = executor.report_of(d.run_id, 1, d.fence, "SUCCESS", result={"first": True})
    assert statuses(executor.report_many([done])) == ["recorded"]
    before = scene.run(d.run_id)
    for other in (done, {**done, "result": "other"}, executor.report_of(d.run_id, 1, d.fence, "FAIL", error={"type": "T", "message": "m"}),
                  executor.report_of(d.run_id, 1, d.fence, "RUNNING", progress=0.1), executor.report_of(d.run_id, 1, d.fence, "CANCELLED"),
                  executor.report_of(d.run_id, 7, d.fence, "FAIL")):
        assert statuses(executor.report_many([other])) == ["late"]
    assert scene.run(d.run_id) == before and task.stats()["success"] == 1 and task.stats()["attempts"] == 1


def test_a_report_for_another_attempt_changes_nothing(scene):
    executor = scene.executor()
    executor.script(Done(state="FAIL", error={"type": "T", "message": "m"}))
    executor.answer(Accept(report=None))
    run_id = scene.task(retry={"max_attempts": 3, "initial_interval": "10ms"}).trigger()
    second = executor.wait_deliveries(2)[1]
    assert second.attempt == 2
    for attempt in (1, 3):
        assert statuses(executor.report(run_id, attempt, second.fence, "SUCCESS", result="wrong")) == ["late"]
    assert scene.run(run_id)["state"] in ("PENDING", "RUNNING")
    assert statuses(executor.report(run_id, 2, second.fence, "SUCCESS", result="right")) == ["recorded"]
    assert scene.run(run_id)["result"] == "right"


def test_duplicates_within_one_batch(scene):
    executor = scene.executor()
    _, (a, b) = open_runs(scene, executor, 2)
    answer = executor.report_many([
        executor.report_of(a.run_id, 1, a.fence, "RUNNING", progress=0.5), executor.report_of(b.run_id, 1, b.fence, "FAIL", error={"type": "B", "message": "b"}),
        executor.report_of(a.run_id, 1, a.fence, "SUCCESS", result=1), executor.report_of(a.run_id, 1, a.fence, "FAIL"),
        executor.report_of(b.run_id, 1, b.fence, "SUCCESS")])
    assert statuses(answer) == ["recorded", "recorded", "recorded", "late", "late"]
    assert [r["run_id"] for r in answer.json()["results"]] == [a.run_id, b.run_id, a.run_id, a.run_id, b.run_id]
    assert scene.run(a.run_id)["state"] == "SUCCESS" and scene.run(a.run_id)["result"] == 1
    assert scene.run(b.run_id)["state"] == "FAIL" and scene.run(b.run_id)["error"]["type"] == "B"


def test_a_large_batch(scene):
    executor = scene.executor(slots=500)
    task, deliveries = open_runs(scene, executor, 120)
    reports = [executor.report_of(d.run_id, d.attempt, d.fence, "SUCCESS", result=n) for n, d in enumerate(deliveries)]
    assert statuses(executor.report_many(reports)) == ["recorded"] * 120
    runs = {r["id"]: r for r in task.runs()}
    assert len(runs) == 120 and all(r["state"] == "SUCCESS" for r in runs.values())
    assert scene.run(deliveries[77].run_id)["result"] == 77
    limit = [executor.report_of(deliveries[0].run_id, 1, 1)] * 1001
    assert executor.api.problem("POST", "/reports", {"reports": limit})["errors"][0]["pointer"] == "/reports"


def test_another_groups_token_is_refused(scene):
    executor, stranger = scene.executor(), scene.executor("stranger", "other")
    _, (d, e) = open_runs(scene, executor, 2)
    answer = stranger.report(d.run_id, 1, d.fence, "SUCCESS")
    assert answer.status_code == 403 and answer.json()["code"] == "forbidden" and answer.headers["Content-Type"].startswith("application/problem+json")
    stranger.answer(Accept(report=None))
    own = scene.task("own", group="other").trigger()
    f = stranger.wait_deliveries(1)[0]
    mixed = stranger.report_many([stranger.report_of(e.run_id, 1, e.fence), stranger.report_of(own, 1, f.fence)])
    assert statuses(mixed) == ["forbidden", "recorded"]
    assert scene.run(own)["state"] == "SUCCESS"
    for run_id in (d.run_id, e.run_id):
        assert scene.run(run_id)["state"] in ("PENDING", "RUNNING")
    admin = scene.api.ok("POST", "/reports", {"reports": [executor.report_of(d.run_id, 1, d.fence)]})
    assert admin["results"][0]["status"] == "recorded"  # bound to no group: may report for all


def test_an_unknown_run(scene):
    executor = scene.executor()
    _, (d,) = open_runs(scene, executor, 1)
    for text in ("", "nonsense", "0" * 36, "é" * 18, "v" * 36):
        bad = executor.api.problem("POST", "/reports", {"reports": [executor.report_of(text, 1, 1)]}, 400, "invalid_field")
        assert bad["errors"][0]["pointer"] == "/reports/0/run_id", text
    never = d.run_id[:-1] + ("0" if d.run_id[-1] != "0" else "1")  # well formed, or not: never a server error, changes nothing
    assert executor.report(never, 1, 1).status_code in (200, 400)
    assert scene.run(d.run_id)["state"] in ("PENDING", "RUNNING")


def test_nothing_of_a_malformed_batch_is_applied(scene):
    executor = scene.executor()
    _, (d,) = open_runs(scene, executor, 1)
    good = executor.report_of(d.run_id, 1, d.fence, "SUCCESS", result=1)
    bad = {
        "/reports/1/state": {**good, "state": "DONE"}, "/reports/1/attempt": {**good, "attempt": 0},
        "/reports/1/progress": {**good, "progress": 1.5}, "/reports/1/started_at": {**good, "started_at": "yesterday"},
        "/reports/1/finished_at": {**good, "finished_at": 5}, "/reports/1/error": {**good, "error": "text"},
        "/reports/1/error/type": {**good, "error": {"type": 5}}, "/reports/1/error/kind": {**good, "error": {"kind": "x"}},
        "/reports/1/fence": {**good, "fence": -1}, "/reports/1/executor": {**good, "executor": 7},
        "/reports/1/log_lines": {**good, "log_lines": []}}
    for missing in ("run_id", "attempt", "state"):
        bad[f"/reports/1/{missing} "] = {k: v for k, v in good.items() if k != missing}
    for pointer, document in bad.items():
        answer = executor.api.post("/reports", {"reports": [good, document]})
        problem = answer.json()
        assert answer.status_code == 400 and problem["errors"][0]["pointer"] == pointer.strip(), (pointer, problem)
    for body in ({}, {"reports": {}}, {"reports": []}, {"report": [good]}, {"reports": [good], "more": 1}, {"reports": [good, 5]}):
        assert executor.api.post("/reports", body).status_code == 400, body
    for raw in (b"", b"{", b'{"reports":[' + b'{"run_id":"' + b"\xff" + b'"}]}', b"[" * 5000):
        assert executor.api.post("/reports", raw=raw, headers={"Content-Type": "application/json"}).status_code == 400, raw[:20]
    assert scene.run(d.run_id)["state"] in ("PENDING", "RUNNING")
    assert statuses(executor.report_many([good])) == ["recorded"]


def test_what_executors_say_of_time_is_kept_within_reason(scene):
    executor = scene.executor()
    _, (a, b) = open_runs(scene, executor, 2)
    executor.report_many([executor.report_of(a.run_id, 1, a.fence, "SUCCESS", started_at=now_rfc3339()),
                          executor.report_of(b.run_id, 1, b.fence, "SUCCESS", started_at=soon(3600), finished_at=soon(-3600))])
    for d in (a, b):
        run = scene.run(d.run_id)
        assert run["fired_at"] <= run["finished_at"] <= soon(1) and run["started_at"] <= run["finished_at"], run
        assert run["duration_ms"] >= 0


def test_a_report_before_the_acknowledgement_counts(scene):
    executor = scene.executor()

    def eager(d):
        assert statuses(executor.report(d.run_id, d.attempt, d.fence, "SUCCESS", result="eager")) == ["recorded"]
        return Accept(report=None)
    executor.answer(eager)
    run = scene.wait_run(scene.task().trigger())
    assert (run["state"], run["result"], run["attempt"]) == ("SUCCESS", "eager", 1)
