"""The fixtures themselves, and with them the shortest whole path: a task fires, an executor works, the run tells the truth."""
import json

from tests.harness.fake_executor import Busy, Done, Hang, Reset
from tests.harness.kelou import wait_for


def task(name, **more):
    return {"name": name, "executor_group": "sample", "handler": "any", "schedule": {"kind": "FIXED_RATE", "every": "1s"},
            **more}


def manual(name, **more):
    return task(name, schedule={"kind": "MANUAL"}, **more)


def run_of(api, name, *states, timeout=15):
    """The one run of a task, once it is in one of the states."""
    return wait_for(lambda: next(iter(r for r in api.items("/runs", task=name) if r["state"] in states), None), timeout,
                    f"a run of {name} in {states}")


def test_a_task_fires_and_its_runs_end(api, executor):
    api.ok("POST", "/tasks", task("hello", payload={"n": 2**53 + 1}), status=201)
    first, second = executor.wait_deliveries(2)
    assert first.signed and first.payload == {"n": 2**53 + 1}
    assert first.run_id != second.run_id and first.attempt == 1
    run = run_of(api, "hello", "SUCCESS")
    assert run["executor"] == executor.name


def test_the_journal_knows_what_was_delivered(api, make_executor, tmp_path):
    journal = tmp_path / "own.journal"
    executor = make_executor("own", journal=str(journal))
    api.ok("POST", "/tasks", manual("once"))
    made = api.ok("POST", "/tasks/once/trigger", {}, status=202)
    run_of(api, "once", "SUCCESS")
    executor.stop()
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [(r["event"], r["run_id"]) for r in rows] == [("start", made["run_id"]), ("end", made["run_id"])]


def test_scripted_answers_reach_the_centre(api, executor):
    """A busy, a mute and a broken connection are troubles of the delivery, not of the attempt: the run still succeeds."""
    executor.answer(Done({"sum": 3}))
    executor.script(Busy(429), Busy(503), Reset())
    api.ok("POST", "/tasks", manual("patient", dispatch_timeout="60s"))
    api.ok("POST", "/tasks/patient/trigger", {})
    run = run_of(api, "patient", "SUCCESS", "FAIL", timeout=40)
    assert run["state"] == "SUCCESS", run
    assert api.ok("GET", f"/runs/{run['id']}")["result"] == {"sum": 3}


def test_a_hanging_executor_runs_into_the_dispatch_timeout(api, executor):
    executor.answer(Hang())
    api.ok("POST", "/tasks", manual("mute", dispatch_timeout="1s"))
    api.ok("POST", "/tasks/mute/trigger", {})
    assert run_of(api, "mute", "SUCCESS", "FAIL", timeout=30)["state"] == "FAIL"


def test_a_node_comes_back_after_a_kill(node, executor):
    api = node.api()
    api.ok("POST", "/tasks", task("steady"))
    executor.wait_deliveries(1)
    node.restart(kill=True)
    seen = len(executor.deliveries)
    wait_for(lambda: len(executor.deliveries) > seen + 1, 30, "deliveries after the kill")
    node.restart()
    assert node.api().ok("GET", "/tasks/steady")["state"] == "ENABLED"


def test_a_frozen_node_goes_on(node, executor):
    api = node.api()
    api.ok("POST", "/tasks", task("frozen"))
    executor.wait_deliveries(1)
    node.pause()
    node.cont()
    seen = len(executor.deliveries)
    wait_for(lambda: len(executor.deliveries) > seen, 30, "deliveries after the pause")


def test_metrics_and_refusals(node, api):
    assert any(name.startswith("kelou_") for name in node.metrics())
    assert api.problem("POST", "/tasks", {"name": "x"}, 400)["code"]
    node.api("klt_wrong").problem("GET", "/tasks", status=401)
