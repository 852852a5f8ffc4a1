"""Which executor of a group gets a run: routings, weights, labels."""
from collections import Counter

import pytest

from tests.harness.fake_executor import Accept, Done
from tests.harness.kelou import wait_for
from tests.harness.world import Scene

ALLOW = {"overlap_policy": "ALLOW"}


@pytest.fixture(scope="module")
def world_settings():
    return {"executor.lost_after": "4s", "executor.breaker_failures": 3, "executor.breaker_open_first": "10s"}


def members(scene, *names, answer=None, **options):
    made = {}
    for name in names:
        made[name] = scene.executor(name, **options)
        made[name].answer(answer or Done())
    return made


def where(scene, executor):
    return {"namespace": "default", "group": executor.group.name}


def seen(scene, executor):
    return scene.api.ok("GET", f"/executors/{executor.name}", params=where(scene, executor))


def ran_on(scene, task, count=1, **trigger):
    return [scene.wait_run(task.trigger(**trigger), "SUCCESS")["executor"] for _ in range(count)]


def fails(scene, run_id, *words):
    run = scene.wait_run(run_id)
    assert (run["state"], run["reason"]) == ("FAIL", "NO_EXECUTOR"), run
    for word in words:
        assert word in run["error"]["message"], run
    return run


def holds(scene, executor, task, **trigger):
    """A run that the executor has accepted and not reported."""
    executor.answer(Accept(report=None))
    run_id = task.trigger(**trigger)
    wait_for(lambda: run_id in {d.run_id for d in executor.deliveries}, what="the run is held")
    return next(d for d in executor.deliveries if d.run_id == run_id)


def test_first_is_the_only_one(scene):
    scene.group(routing="FIRST")
    both = members(scene, "b", "a", slots=1)  # by id, not by registration
    task = scene.task(dispatch_timeout="1m", **ALLOW)
    assert ran_on(scene, task, 4) == ["a"] * 4
    held = holds(scene, both["a"], task)
    waits = task.trigger()
    assert scene.wait_run(waits, "PENDING", reason="DISPATCHING") and not both["b"].deliveries
    both["a"].answer(Done())
    both["a"].report(held.run_id, 1, held.fence)
    assert scene.wait_run(waits, "SUCCESS")["executor"] == "a"
    both["a"].deregister()
    assert ran_on(scene, task, 2) == ["b", "b"]
    both["a"].register()
    assert ran_on(scene, task) == ["a"] and len(both["b"].deliveries) == 2


def test_failover_goes_down_the_line(scene):
    scene.group(routing="FAILOVER")
    three = members(scene, "c", "b", "a", slots=1)
    task = scene.task(dispatch_timeout="1m", **ALLOW)
    assert ran_on(scene, task, 3) == ["a"] * 3
    held = holds(scene, three["a"], task)
    assert ran_on(scene, task, 2) == ["b"] * 2  # the first is full
    three["a"].answer(Done())
    three["a"].report(held.run_id, 1, held.fence)
    scene.wait_run(held.run_id, "SUCCESS")
    assert ran_on(scene, task) == ["a"]
    three["a"].close_port()  # it goes on beating
    runs = [scene.wait_run(task.trigger(), "SUCCESS") for _ in range(5)]
    assert {(r["executor"], r["attempt"]) for r in runs} == {("b", 1)}
    three["b"].deregister()
    assert ran_on(scene, task, 2) == ["c"] * 2
    three["b"].register()
    assert ran_on(scene, task) == ["b"]


def test_failover_stays_after_a_failure_of_the_work(scene):
    scene.group(routing="FAILOVER")
    two = members(scene, "a", "b")
    two["a"].script(Done(state="FAIL", error={"type": "t", "message": "m"}))
    task = scene.task(retry={"max_attempts": 2, "initial_interval": "10ms"})
    run = scene.wait_run(task.trigger(), "SUCCESS")
    assert (run["attempt"], run["executor"]) == (2, "a") and not two["b"].deliveries


def test_random_reaches_all_by_weight(scene):
    scene.group(routing="RANDOM")
    light, heavy, none = (scene.executor(n, weight=w) for n, w in (("light", 1), ("heavy", 9), ("none", 0)))
    for executor in (light, heavy, none):
        executor.answer(Done())
    task = scene.task(**ALLOW)
    ids = [task.trigger() for _ in range(120)]
    got = Counter(scene.wait_run(i, "SUCCESS")["executor"] for i in ids)
    assert got["none"] == 0 and got["heavy"] > 2 * got["light"] > 0, got


def test_a_key_stays_at_its_executor(scene):
    scene.group(routing="CONSISTENT_HASH")
    members(scene, "x0", "x1", "x2")
    tasks = [scene.task(f"t{n}", routing_key=f"customer-{n % 6}", **ALLOW) for n in range(12)]
    homes = [ran_on(scene, t, 2) for t in tasks]
    assert all(a == b for a, b in homes)
    assert [h[0] for h in homes[:6]] == [h[0] for h in homes[6:]]  # whatever the task
    assert len({h[0] for h in homes}) > 1
    plain = [scene.task(f"plain{n}", **ALLOW) for n in range(8)]  # their ids are the keys
    assert len({ran_on(scene, t, 2)[0] for t in plain}) > 1
    more = members(scene, "x3")["x3"]
    after = [ran_on(scene, t)[0] for t in tasks]
    assert all(new in (old[0], "x3") for old, new in zip(homes, after))
    more.deregister()
    assert [ran_on(scene, t)[0] for t in tasks] == [h[0] for h in homes]


def test_a_trigger_may_say_another_key(scene):
    scene.group(routing="CONSISTENT_HASH")
    members(scene, "x0", "x1", "x2")
    keyed = {n: ran_on(scene, scene.task(f"k{n}", routing_key=f"k{n}"))[0] for n in range(8)}
    assert len(set(keyed.values())) > 1
    task = scene.task("any", **ALLOW)
    for n, home in keyed.items():
        run = scene.wait_run(task.trigger(routing_key=f"k{n}"), "SUCCESS")
        assert (run["executor"], run["routing_key"]) == (home, f"k{n}") and "pinned_to" not in run
        again = scene.api.ok("POST", f"/runs/{run['id']}/retry", status=202)["run_id"]
        assert scene.wait_run(again, "SUCCESS")["executor"] == home
    assert scene.wait_run(task.trigger(executor="x1", headers={"Idempotency-Key": "both"}), "SUCCESS")["pinned_to"] == "x1"
    problem = scene.api.problem("POST", f"{task.path}/trigger", {"executor": "x1", "routing_key": "k"}, status=400)
    assert problem["errors"][0]["pointer"] == "/routing_key"


def test_a_key_waits_for_its_executor_and_holds_nobody_up(scene):
    scene.group(routing="CONSISTENT_HASH")
    two = members(scene, "a", "b", slots=1)
    tasks = {}
    for n in range(40):
        task = scene.task(f"t{n}", routing_key=f"k{n}", dispatch_timeout="1m", **ALLOW)
        tasks.setdefault(ran_on(scene, task)[0], task)
        if len(tasks) == 2:
            break
    held = holds(scene, two["a"], tasks["a"])
    waits = [tasks["a"].trigger() for _ in range(3)]
    for run_id in waits:
        scene.wait_run(run_id, "PENDING", reason="DISPATCHING")
    assert ran_on(scene, tasks["b"], 3) == ["b"] * 3  # another key, another executor
    assert {scene.run(i)["state"] for i in waits} == {"PENDING"}
    two["a"].answer(Done())
    two["a"].report(held.run_id, 1, held.fence)
    assert {scene.wait_run(i, "SUCCESS")["executor"] for i in waits} == {"a"}
    held = holds(scene, two["a"], tasks["a"])
    waits = [tasks["a"].trigger() for _ in range(3)]
    scene.wait_run(waits[0], "PENDING", reason="DISPATCHING")
    two["a"].deregister()  # gone: the key belongs to the other one, and so do those that wait
    assert {scene.wait_run(i, "SUCCESS")["executor"] for i in waits} == {"b"}


def test_a_failing_executor_gives_its_keys_away_and_gets_them_back(scene):
    scene.group(routing="CONSISTENT_HASH")
    members(scene, "a", "b", "c")
    task = scene.task(dispatch_timeout="30s", **ALLOW)
    home = ran_on(scene, task)[0]
    executor = next(e for e in scene.executors if e.name == home)
    executor.close_port()
    others = set(ran_on(scene, task, 3))
    assert len(others) == 1 and home not in others  # the next one of this key
    assert seen(scene, executor)["breaker"] == "OPEN"
    executor.start()
    executor.answer(Done())
    assert ran_on(scene, task) == [home]  # registered anew


def test_a_task_may_name_its_executor(scene):
    two = members(scene, "a", "b")
    task = scene.task(executor="b", **ALLOW)
    assert ran_on(scene, task, 3) == ["b"] * 3
    assert ran_on(scene, task, executor="a") == ["a"]  # the call says more
    two["b"].deregister()
    absent = scene.task("absent", executor="b", routing="PINNED", dispatch_timeout="400ms", **ALLOW)
    fails(scene, absent.trigger(), 'no executor "b"')
    waits = scene.task("waits", executor="b", dispatch_timeout="1m").trigger()
    scene.wait_run(waits, "PENDING", reason="DISPATCHING")
    two["b"].register()
    assert scene.wait_run(waits, "SUCCESS")["executor"] == "b"


def test_a_pinned_group_wants_a_name(scene):
    scene.group(routing="PINNED")
    members(scene, "a", "b")
    task = scene.task(dispatch_timeout="400ms", **ALLOW)
    fails(scene, task.trigger(), "names no executor")
    assert ran_on(scene, task, executor="a") == ["a"]
    assert ran_on(scene, scene.task("named", executor="b")) == ["b"]
    assert set(ran_on(scene, scene.task("free", routing="ROUND_ROBIN", **ALLOW), 2)) == {"a", "b"}


def test_a_task_may_have_a_routing_of_its_own(scene):
    scene.group(routing="FIRST")
    members(scene, "a", "b")
    task = scene.task(routing="ROUND_ROBIN", **ALLOW)
    assert Counter(ran_on(scene, task, 6)) == {"a": 3, "b": 3}
    task.patch(routing=None)
    assert ran_on(scene, task, 3) == ["a"] * 3
    scene.api.ok("PATCH", f"/executor-groups/{scene.group().name}", {"routing": "ROUND_ROBIN"})
    assert Counter(ran_on(scene, task, 6)) == {"a": 3, "b": 3}


def test_round_robin_by_weight(scene):
    executors = [scene.executor(n, weight=w) for n, w in (("a", 3), ("b", 1), ("c", 0))]
    for executor in executors:
        executor.answer(Done())
    task = scene.task(**ALLOW)
    assert Counter(ran_on(scene, task, 12)) == {"a": 9, "b": 3}
    assert ran_on(scene, task, executor="c") == ["c"]  # whoever names it
    changed = scene.api.ok("PATCH", "/executors/c", {"weight": 4}, params=where(scene, executors[2]))
    assert (changed["weight"], changed["state"]) == (4, "ONLINE")
    assert Counter(ran_on(scene, task, 16)) == {"a": 6, "b": 2, "c": 8}


def test_least_busy_by_weight(scene):
    scene.group(routing="LEAST_BUSY")
    light, heavy = (scene.executor(n, weight=w) for n, w in (("light", 1), ("heavy", 3)))
    for executor in (light, heavy):
        executor.answer(Accept(report=None))
    task = scene.task(**ALLOW)
    for _ in range(12):
        task.trigger()
    wait_for(lambda: len(light.deliveries) + len(heavy.deliveries) == 12, what="twelve deliveries")
    assert (len(light.deliveries), len(heavy.deliveries)) == (3, 9)


def test_a_weight_stays_until_another_is_said(scene):
    (executor,) = members(scene, "a").values()
    assert seen(scene, executor)["weight"] == 1
    scene.api.ok("PATCH", "/executors/a", {"weight": 0}, params=where(scene, executor))
    executor.register()  # says nothing of it
    assert seen(scene, executor)["weight"] == 0
    fails(scene, scene.task(dispatch_timeout="400ms").trigger(), "weight 0")
    executor.more = {"weight": 5}
    executor.register()
    assert seen(scene, executor)["weight"] == 5
    for bad in (-1, 1001, "5", 1.5):
        problem = scene.api.problem("PATCH", "/executors/a", {"weight": bad}, status=400, params=where(scene, executor))
        assert problem["errors"][0]["pointer"] == "/weight"
    assert scene.api.ok("PATCH", "/executors/a", {}, params=where(scene, executor))["weight"] == 5


@pytest.mark.parametrize("routing", ["ROUND_ROBIN", "LEAST_BUSY", "RANDOM", "CONSISTENT_HASH", "FIRST", "FAILOVER"])
def test_only_who_has_the_labels(scene, routing):
    scene.group(routing=routing)
    for name, labels in (("a", {"zone": "x"}), ("b", {"zone": "y", "gpu": True}), ("c", {"zone": "y", "cores": 8}), ("d", {})):
        scene.executor(name, labels=labels).answer(Done())
    expected = {"x": ({"zone": "x"}, {"a"}), "gpu": ({"zone": "y", "gpu": True}, {"b"}), "cores": ({"cores": 8}, {"c"}), "y": ({"zone": "y"}, {"b", "c"})}
    for name, (labels, may) in expected.items():
        assert set(ran_on(scene, scene.task(name, executor_labels=labels, **ALLOW), 4)) <= may
    none = scene.task("none", executor_labels={"zone": "x", "gpu": True}, dispatch_timeout="400ms")
    fails(scene, none.trigger(), 'with the labels {"gpu":true,"zone":"x"}')
    fails(scene, scene.task("pin", executor="d", executor_labels={"zone": "x"}, dispatch_timeout="400ms").trigger(), '"d"', "labels")


def test_who_comes_with_the_labels_gets_what_waits(scene):
    members(scene, "plain")
    wants = scene.task("wants", executor_labels={"zone": "x"}, dispatch_timeout="1m").trigger()
    scene.wait_run(wants, "PENDING", reason="DISPATCHING")
    assert ran_on(scene, scene.task("any")) == ["plain"]  # it stands in nobody's way
    scene.executor("late", labels={"zone": "x"}).answer(Done())
    assert scene.wait_run(wants, "SUCCESS")["executor"] == "late"


def test_a_busy_label_holds_nobody_up(scene):
    x = scene.executor("x", labels={"zone": "x"}, slots=1)
    members(scene, "plain")
    wants = scene.task("wants", executor_labels={"zone": "x"}, dispatch_timeout="1m", **ALLOW)
    held = holds(scene, x, wants)
    waits = wants.trigger()
    scene.wait_run(waits, "PENDING", reason="DISPATCHING")
    assert ran_on(scene, scene.task("any", **ALLOW), 2) == ["plain"] * 2
    x.answer(Done())
    x.report(held.run_id, 1, held.fence)
    assert scene.wait_run(waits, "SUCCESS")["executor"] == "x"


def test_what_is_refused(scene):
    scene.group()
    for fields, pointer in (({"routing": "NEAREST"}, "/routing"), ({"routing": "PINNED"}, "/executor"),
                            ({"routing": "FIRST", "executor": "a"}, "/executor"), ({"executor": ""}, "/executor"),
                            ({"routing": "RANDOM", "routing_key": "k"}, "/routing_key"), ({"routing_key": "k" * 129}, "/routing_key"),
                            ({"executor_labels": "zone"}, "/executor_labels"), ({"executor_labels": {"zone": ["x"]}}, "/executor_labels"),
                            ({"executor_labels": {"zone": None}}, "/executor_labels")):
        problem = scene.api.problem("POST", "/tasks", scene.body("bad", **fields), status=400)
        assert problem["errors"][0]["pointer"] == pointer, (fields, problem)
    large = scene.api.problem("POST", "/tasks", scene.body("bad", executor_labels={f"k{n}": "v" * 100 for n in range(12)}), status=413)
    assert large["errors"][0]["pointer"] == "/executor_labels"
    problem = scene.api.problem("PATCH", f"/executor-groups/{scene.group().name}", {"routing": "NEAREST"}, status=400)
    assert problem["errors"][0]["pointer"] == "/routing"
    body = {"id": "e", "namespace": "default", "group": scene.group().name, "url": "http://127.0.0.1:1", "handlers": ["*"]}
    for bad in (-1, 1001, "1"):
        problem = scene.api.problem("POST", "/executors/register", {**body, "weight": bad}, status=400)
        assert problem["errors"][0]["pointer"] == "/weight"
    scene.api.problem("PATCH", "/executors/nobody", {"weight": 1}, status=404, params={"namespace": "default", "group": scene.group().name})


def test_apply_and_export_know_it(scene):
    name = scene.group().name
    wanted = {"name": f"routed-{name}", "schedule": {"kind": "MANUAL"}, "executor_group": name, "handler": "h", "routing": "CONSISTENT_HASH",
              "routing_key": "k", "executor_labels": {"zone": "x"}}
    body = {"groups": [{"name": name, "routing": "FAILOVER"}], "tasks": [wanted]}
    assert scene.api.ok("POST", "/apply", body)["changed"] == 1
    assert scene.api.ok("POST", "/apply", body)["unchanged"] == 2
    assert scene.api.ok("GET", f"/executor-groups/{name}")["routing"] == "FAILOVER"
    (out,) = scene.api.items("/export", group=name)
    assert {k: out[k] for k in wanted} == wanted
    scene.api.ok("DELETE", f"/tasks/{wanted['name']}", status=204)


def test_restart(make_node):
    """Weights, labels, and the key that a trigger gave outlive a kill -9; the key still belongs to the same executor."""
    node = make_node(settings={"executor.lost_after": "30s"}).start()
    scene = Scene(node, None)
    scene.group(routing="CONSISTENT_HASH")
    for name, labels in (("a", {"zone": "x"}), ("b", {"zone": "x"}), ("c", {})):
        scene.executor(name, labels=labels, slots=1).answer(Done())
    first = scene.executors[0]
    scene.api.ok("PATCH", "/executors/a", {"weight": 3}, params=where(scene, first))
    task = scene.task(executor_labels={"zone": "x"}, dispatch_timeout="1m", **ALLOW)
    home = ran_on(scene, task)[0]
    other = next(e for e in scene.executors[:2] if e.name != home)
    key = next(k for k in (f"k{n}" for n in range(200)) if ran_on(scene, task, routing_key=k) == [other.name])
    held = holds(scene, other, task, routing_key=key)
    waits = task.trigger(routing_key=key)
    scene.wait_run(waits, "PENDING", reason="DISPATCHING")
    node.restart(kill=True)
    assert seen(scene, first)["weight"] == 3
    assert ran_on(scene, task, 3) == [home] * 3
    other.answer(Done())
    last = [d for d in other.deliveries if d.run_id == held.run_id][-1]
    other.report(held.run_id, 1, last.fence)
    for run_id in (held.run_id, waits):
        run = scene.wait_run(run_id, "SUCCESS")
        assert (run["executor"], run["routing_key"]) == (other.name, key)
    scene.done()
