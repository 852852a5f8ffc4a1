"""exactly_one_start: an attempt is claimed before it starts, by one process, whatever is killed in between."""
import collections
import json

import pytest
import requests

from tests.harness.fake_executor import Accept
from tests.harness.kelou import SampleExecutor, wait_for
from tests.harness.world import Scene

ONCE = {"exactly_one_start": True, "dispatch_timeout": "1m"}
QUIET = Accept(report=None)


def claim(executor, delivery, api=None, **other):
    """One claim in the name of an executor; the Response."""
    body = {"run_id": delivery.run_id, "attempt": delivery.attempt, "fence": delivery.fence, "executor": executor.name,
            "incarnation": executor.incarnation, **other}
    return (api or executor.api).post("/claims", {"claims": [body]})


def said(answer):
    assert answer.status_code == 200, answer.text
    result = answer.json()["results"][0]
    return result["status"], result.get("why")


def claim_until_decided(executor, delivery):
    """As an executor has to: in the same words until the answer is known."""
    def ask():
        try:
            answer = claim(executor, delivery)
        except requests.RequestException:
            return None
        return answer if answer.status_code == 200 else None
    return said(wait_for(ask, 30, "the claim is decided"))


def starts_of(*executors):
    """How often each attempt was started, as the executors' journals say."""
    count = collections.Counter()
    for executor in executors:
        with open(executor.journal, encoding="utf-8") as f:
            for line in f:
                row = json.loads(line)
                if row["event"] == "start":
                    count[row["run_id"], row["attempt"]] += 1
    return count


def test_a_claim_and_what_it_writes(scene):
    one, two = scene.executor("one"), scene.executor("two")
    one.answer(QUIET)
    task = scene.task("once", executor="one", **ONCE)
    assert task.read()["exactly_one_start"] is True
    run_id = task.trigger()
    got = one.wait_deliveries(1)[0]
    assert got.message["exactly_one_start"] is True
    run = scene.wait_run(run_id, "PENDING", reason="DISPATCHING")
    assert "executor_incarnation" not in run
    assert said(claim(two, got)) == ("refused", "claimed")  # it was not delivered there
    assert said(claim(one, got, incarnation=one.incarnation + 1)) == ("refused", "claimed")
    assert said(claim(one, got, attempt=2)) == ("refused", "late")
    assert said(claim(one, got)) == ("granted", None)
    run = scene.run(run_id)  # durable when it was answered
    assert (run["state"], run["reason"], run["executor"], run["executor_incarnation"], run["attempt"]) == \
        ("RUNNING", "ACCEPTED", "one", one.incarnation, 1)
    assert said(claim(one, got)) == ("granted", None)  # its answer was lost
    assert said(claim(one, got, incarnation=one.incarnation + 1)) == ("refused", "claimed")
    assert said(claim(two, got)) == ("refused", "claimed")
    shown = scene.node.cli("run", "get", run_id, check=0).stdout
    assert f"EXECUTOR_INCARNATION  {one.incarnation}" in shown
    one.report(run_id, 1, got.fence)
    assert scene.run(run_id)["state"] == "SUCCESS"
    assert said(claim(one, got)) == ("refused", "late")


def test_a_task_without_it(scene):
    one = scene.executor("one")
    one.answer(QUIET)
    run_id = scene.task("any").trigger()
    got = one.wait_deliveries(1)[0]
    assert "exactly_one_start" not in got.message
    scene.wait_run(run_id, "RUNNING")
    assert said(claim(one, got)) == ("refused", "claimed")


def test_another_group_may_not_claim(scene):
    one, other = scene.executor("one"), scene.executor("one", "other")
    one.answer(QUIET)
    scene.task("once", **ONCE).trigger()
    got = one.wait_deliveries(1)[0]
    answer = claim(other, got)
    assert answer.status_code == 403 and answer.json()["results"][0]["status"] == "forbidden"
    assert said(claim(one, got)) == ("granted", None)


@pytest.mark.parametrize("change, pointer", [
    ({"run_id": None}, "/claims/0/run_id"), ({"run_id": "x"}, "/claims/0/run_id"), ({"attempt": None}, "/claims/0/attempt"),
    ({"attempt": 0}, "/claims/0/attempt"), ({"executor": None}, "/claims/0/executor"), ({"executor": ""}, "/claims/0/executor"),
    ({"incarnation": None}, "/claims/0/incarnation"), ({"incarnation": 0}, "/claims/0/incarnation"),
    ({"fence": -1}, "/claims/0/fence"), ({"state": "RUNNING"}, "/claims/0/state")])
def test_what_is_wrong_with_a_claim(scene, change, pointer):
    one = scene.executor("one")
    body = {"run_id": "000g01j0techl8b00000000000002t89anf0", "attempt": 1, "fence": 1, "executor": "one", "incarnation": 1}
    body.update(change)
    body = {k: v for k, v in body.items() if v is not None}
    answer = one.api.post("/claims", {"claims": [body]})
    assert answer.status_code == 400 and answer.json()["errors"][0]["pointer"] == pointer, answer.text


def test_bad_field(scene):
    scene.group()
    problem = scene.api.problem("POST", "/tasks", scene.body("once", exactly_one_start="yes"))
    assert problem["errors"][0]["pointer"] == "/exactly_one_start"


def test_cancelled_before_it_was_claimed(scene):
    """It has not started, so there is nothing to wait for."""
    one = scene.executor("one")
    one.answer(QUIET)
    run_id = scene.task("once", cancel_timeout="1h", **ONCE).trigger()
    got = one.wait_deliveries(1)[0]
    scene.cancel(run_id)
    assert scene.wait_run(run_id, "CANCELLED")
    assert said(claim(one, got)) == ("refused", "late")
    wait_for(lambda: one.cancels, what="its executor is told")


def test_lost_before_it_was_claimed(scene):
    """Nobody has started it: another one gets it, whatever the policies say of lost executors."""
    one, two = scene.executor("one"), scene.executor("two")
    one.answer(QUIET)
    two.answer(QUIET)
    run_id = scene.task("once", on_lost="FAIL", retry={"max_attempts": 1}, routing="FAILOVER", **ONCE).trigger()
    got = one.wait_deliveries(1)[0]
    gone = one.incarnation
    one.deregister()
    again = two.wait_deliveries(1)[0]
    assert (again.run_id, again.attempt) == (run_id, 2)
    assert said(claim(one, got, incarnation=gone)) == ("refused", "late")
    assert said(claim(two, again)) == ("granted", None)
    two.report(run_id, 2, again.fence)
    run = scene.run(run_id)
    assert (run["state"], [(a["attempt"], a["reason"]) for a in run["attempts"]]) == ("SUCCESS", [(1, "LOST"), (2, "NONE")])


def test_lost_after_it_was_claimed(scene):
    """It has started: on_lost decides."""
    one = scene.executor("one")
    one.answer(QUIET)
    run_id = scene.task("once", on_lost="FAIL", **ONCE).trigger()
    got = one.wait_deliveries(1)[0]
    assert said(claim(one, got)) == ("granted", None)
    one.deregister()
    run = scene.wait_run(run_id, "FAIL")
    assert (run["reason"], run["attempt"]) == ("LOST", 1)


def scene_of(node, tmp_path, request):
    scene = Scene(node, tmp_path)

    def end():
        if node.ready():
            scene.done()
        for executor in scene.executors:
            executor.stop()
    request.addfinalizer(end)
    return scene


@pytest.mark.parametrize("point", ["run.before_commit", "run.after_commit"])
def test_killed_before_the_answer(make_node, tmp_path, request, point):
    """kill -9 of the node while it decides: the process that asked gets it, nobody else does, and it is not delivered twice when it is
    written."""
    node = make_node(settings={"executor.lost_after": "1m"}, environment={"KELOU_FAILPOINTS": f"{point}=crash:1"}).start()
    scene = scene_of(node, tmp_path, request)
    one, two = scene.executor("one"), scene.executor("two")
    for executor in (one, two):
        executor.answer(QUIET)
    run_id = scene.task("once", executor="one", **ONCE).trigger()
    got = one.wait_deliveries(1)[0]
    with pytest.raises(requests.RequestException):
        claim(one, got)
    assert node.wait() == 137
    node.environment = {**node.environment, "KELOU_FAILPOINTS": ""}
    node.start()
    assert claim_until_decided(one, got) == ("granted", None)
    assert said(claim(two, got)) == ("refused", "claimed")
    assert said(claim(one, got, incarnation=one.incarnation + 1)) == ("refused", "claimed")
    one.report(run_id, 1, got.fence)
    assert scene.run(run_id)["state"] == "SUCCESS"
    delivered = [(d.run_id, d.attempt) for d in one.deliveries + two.deliveries]
    assert delivered == [(run_id, 1)] * (1 if point == "run.after_commit" else 2)


@pytest.mark.parametrize("point", ["run.before_commit", "run.after_commit"])
def test_the_sdk_over_a_kill(make_node, tmp_path, request, point):
    """Many claims of two processes, the node killed in the midst of them: each attempt starts once, all end."""
    node = make_node(settings={"executor.lost_after": "1m"}, environment={"KELOU_FAILPOINTS": f"{point}=crash:4"}).start()
    scene = scene_of(node, tmp_path, request)
    group = scene.group()
    executors = [SampleExecutor(tmp_path, node, group, name, ["--slots", "4"]).start() for name in ("one", "two")]
    try:
        wait_for(lambda: len(scene.api.ok("GET", "/executors")["items"]) == 2, what="both have registered")
        task = scene.task("once", handler="sleep", payload={"ms": 20}, overlap_policy="ALLOW", **ONCE)
        ids = []
        for _ in range(60):
            try:
                ids.append(task.trigger())
            except requests.RequestException:
                break
        assert node.wait() == 137
        node.environment = {**node.environment, "KELOU_FAILPOINTS": ""}
        node.start()
        for run_id in ids:
            assert scene.wait_run(run_id, "SUCCESS", timeout=60)["attempt"] == 1
        starts = starts_of(*executors)
        assert set(starts.values()) == {1} and {(i, 1) for i in ids} <= set(starts)
    finally:
        for executor in executors:
            executor.stop()


def test_the_sdk_killed_after_its_claim(scene, tmp_path):
    """The process dies at work: its attempt counts as started, the next process of that name gets the next one."""
    group = scene.group()
    executor = SampleExecutor(tmp_path, scene.node, group, "one").start()
    try:
        task = scene.task("once", handler="sleep", payload={"ms": 60000}, retry={"max_attempts": 2, "initial_interval": "10ms"}, **ONCE)
        run_id = task.trigger()
        first = scene.wait_run(run_id, "RUNNING")["executor_incarnation"]
        executor.kill()
        task.patch(payload={"ms": 10})
        executor.start()
        run = wait_for(lambda: (lambda r: r if r["attempt"] == 2 and r["state"] == "RUNNING" else None)(scene.run(run_id)), 20, "attempt 2")
        assert run["executor_incarnation"] > first
        assert starts_of(executor) == {(run_id, 1): 1, (run_id, 2): 1}
        scene.cancel(run_id)
        scene.wait_run(run_id, "CANCELLED")
    finally:
        executor.stop()


def test_config_as_code_and_cli(scene):
    scene.group()
    task = scene.task("once", exactly_one_start=True)
    shown = scene.node.cli("task", "get", task.id, "-o", "json", check=0).stdout
    assert json.loads(shown)["exactly_one_start"] is True
    wanted = scene.api.ok("GET", "/export", params={"name_prefix": "once"})["items"]
    assert [w.get("exactly_one_start") for w in wanted if w["name"] == task.name] == [True]
