"""/api/v1/runs as a client sees it."""
from tests.harness.fake_executor import Accept, Done
from tests.harness.kelou import wait_for


def manual(name, **more):
    return {"name": name, "schedule": {"kind": "MANUAL"}, "executor_group": "sample", "handler": "default", **more}


def trigger(api, task, body=None, **more):
    return api.ok("POST", f"/tasks/{task}/trigger", body, status=202, **more)["run_id"]


def run_in(api, run_id, *states, timeout=15):
    """The run once it is in one of these states."""
    def look():
        answer = api.get(f"/runs/{run_id}")
        assert answer.status_code in (200, 404), answer.text
        run = answer.json()
        assert answer.ok and run["state"] in states, run
        return run
    return wait_for(look, timeout, f"run {run_id} in {states}")


def test_a_run_tells_its_whole_story(api, executor):
    executor.answer(Done({"n": 42}))
    task = api.ok("POST", "/tasks", manual("a", payload={"own": 1}))
    first = run_in(api, trigger(api, "a"), "SUCCESS")
    assert first["payload"] == {"own": 1} and first["result"] == {"n": 42}
    assert first["task_id"] == task["id"] and first["task_name"] == "a" and first["namespace"] == "default"
    assert first["origin"] == "API" and first["attempt"] == 1 and first["executor"] == executor.name
    assert first["scheduled_at"] <= first["fired_at"] <= first["finished_at"] and first["lateness_ms"] >= 0
    second = run_in(api, trigger(api, "a", {"payload": {"other": 2}}), "SUCCESS")
    assert second["payload"] == {"other": 2}
    assert [d.payload for d in executor.deliveries] == [{"own": 1}, {"other": 2}]
    listed = api.items("/runs", task="a")
    assert [r["id"] for r in listed] == [second["id"], first["id"]]
    assert not {"payload", "result", "attempts"} & set(listed[0])
    stats = api.ok("GET", "/tasks/a/stats")
    assert stats["fires"] == stats["success"] == 2 and stats["success_rate"] == 1.0 and stats["last_state"] == "SUCCESS"


def test_a_failure_says_why_for_each_attempt(api, executor):
    error = {"type": "Boom", "message": "it broke", "detail": "line 1\nline 2"}
    executor.answer(Done(state="FAIL", error=error))
    api.ok("POST", "/tasks", manual("a", retry={"max_attempts": 2, "initial_interval": "10ms"}))
    run = run_in(api, trigger(api, "a"), "FAIL")
    assert run["reason"] == "ERROR" and run["error"] == error and run["attempt"] == 2
    assert [(a["attempt"], a["state"], a["error"]["type"]) for a in run["attempts"]] == [(1, "FAIL", "Boom"), (2, "FAIL", "Boom")]
    assert "detail" not in api.items("/runs", state="FAIL")[0]["error"]


def test_lists_filter_and_page(api, executor):
    executor.answer(Done())
    for name in ("a", "b"):
        api.ok("POST", "/tasks", manual(name, overlap_policy="ALLOW"))
    runs = {name: [trigger(api, name) for _ in range(5)] for name in ("a", "b")}
    for run_id in runs["a"] + runs["b"]:
        run_in(api, run_id, "SUCCESS")
    everything = api.items("/runs", limit=3)
    assert sorted(r["id"] for r in everything) == sorted(runs["a"] + runs["b"])
    instants = [r["scheduled_at"] for r in everything]
    assert instants == sorted(instants, reverse=True)
    task_id = api.ok("GET", "/tasks/b")["id"]
    for ref in ("b", "default/b", task_id):
        assert {r["id"] for r in api.items("/runs", task=ref, limit=2)} == set(runs["b"])
    assert api.items("/runs", state="FAIL,PENDING,RUNNING") == []
    assert len(api.items("/runs", state="SUCCESS,FAIL", executor=executor.name)) == 10
    assert api.items("/runs", executor="nobody") == [] == api.items("/runs", reason="TIMEOUT")
    middle = everything[4]["scheduled_at"]
    assert len(api.items("/runs", since=middle)) + len(api.items("/runs", until=middle)) == 10
    problem = api.problem("GET", "/runs", status=404, params={"task": "nothing"})
    assert problem["errors"][0]["parameter"] == "task"


def test_the_runs_of_a_deleted_task_stay(api, executor):
    executor.answer(Done())
    task = api.ok("POST", "/tasks", manual("a"))
    run_id = trigger(api, "a")
    run_in(api, run_id, "SUCCESS")
    api.ok("DELETE", "/tasks/a")
    assert [r["id"] for r in api.items("/runs", task=task["id"])] == [run_id]
    assert api.ok("GET", f"/runs/{run_id}")["state"] == "SUCCESS"


def test_cancel_of_a_queued_run_ends_it_at_once(api, executor):
    executor.answer(Accept(report=None))
    api.ok("POST", "/tasks", manual("a", overlap_policy="QUEUE_ALL"))
    first = trigger(api, "a")
    executor.wait_deliveries(1)
    second = trigger(api, "a")
    run_in(api, second, "PENDING")
    cancelled = api.ok("POST", f"/runs/{second}/cancel", status=200)
    assert cancelled["state"] == "CANCELLED" and cancelled["finished_at"]
    api.problem("POST", f"/runs/{second}/cancel", status=409, code="conflict")
    told = api.post(f"/runs/{first}/cancel")
    assert told.status_code == 202 and told.json()["reason"] == "CANCELLING", told.text
    wait_for(lambda: executor.cancels, what="the executor is told")
    d = executor.deliveries[0]
    assert executor.report(first, d.attempt, d.fence, "CANCELLED").ok
    run_in(api, first, "CANCELLED")


def test_only_an_ended_run_is_retried_and_as_a_new_one(api, executor):
    executor.script(Done(state="FAIL", error={"type": "T", "message": "m"}))
    executor.answer(Accept(report=None))
    api.ok("POST", "/tasks", manual("a"))
    failed = trigger(api, "a", {"payload": {"once": 1}})
    run_in(api, failed, "FAIL")
    made = api.ok("POST", f"/runs/{failed}/retry", status=202)
    assert made["retry_of"] == failed and made["run_id"] != failed
    executor.wait_deliveries(2)
    again = run_in(api, made["run_id"], "PENDING", "RUNNING")
    assert again["retry_of"] == failed and again["origin"] == "RETRY" and again["payload"] == {"once": 1}
    api.problem("POST", f"/runs/{made['run_id']}/retry", status=409, code="conflict")
    assert api.ok("GET", f"/runs/{failed}")["state"] == "FAIL"


def test_what_is_no_run(api):
    for text in ("x", "0" * 36, "v" * 36, "0" * 35 + "%2F", "1"):
        api.problem("GET", f"/runs/{text}", status=404, code="not_found")
    api.problem("POST", f"/runs/{'0' * 36}/cancel", status=404, code="not_found")


def test_reports_are_answered_after_their_commit(api, executor, group, node):
    executor.answer(Accept(report=None))
    api.ok("POST", "/tasks", manual("a"))
    run_id = trigger(api, "a")
    d = executor.wait_deliveries(1)[0]
    answer = executor.report(run_id, d.attempt, d.fence, "SUCCESS", result={"ok": True})
    assert answer.json() == {"results": [{"run_id": run_id, "status": "recorded"}]}
    assert api.ok("GET", f"/runs/{run_id}")["state"] == "SUCCESS"  # no waiting: it is durable
    late = executor.report(run_id, d.attempt, d.fence, "FAIL")
    assert late.status_code == 200 and late.json()["results"][0]["status"] == "late"
    assert api.ok("GET", f"/runs/{run_id}")["state"] == "SUCCESS"
    bad = [executor.report_of(run_id, 1, 1), {**executor.report_of(run_id, 1, 1), "stat": 1}]
    problem = executor.api.problem("POST", "/reports", {"reports": bad}, 400, "unknown_field")
    assert problem["errors"][0]["pointer"] == "/reports/1/stat"
    viewer = node.api(api.ok("POST", "/tokens", {"name": "v", "role": "VIEWER"})["token"])
    viewer.problem("POST", "/reports", {"reports": [executor.report_of(run_id, 1, 1)]}, 403, "forbidden")
