"""Bounds and priorities: max_concurrent of a task, a group and a namespace, rate_limit of a group; who goes first, and what the others wait for."""
import itertools
import time

from tests.harness.fake_executor import Accept, Done
from tests.harness.kelou import wait_for
from tests.harness.world import Scene, at

_numbers = itertools.count(1)


class Held:
    """An executor that keeps what it gets until it is told to end it."""

    def __init__(self, scene, name="one", group="g", **options):
        self.executor = scene.executor(name, group, **options)
        self.executor.answer(Accept(report=None))

    def held(self):
        return [d.run_id for d in self.executor.deliveries]

    def wait(self, count):
        return [d.run_id for d in self.executor.wait_deliveries(count)]

    def end(self, run_id):
        d = next(d for d in self.executor.deliveries if d.run_id == run_id)
        assert self.executor.report(run_id, d.attempt, d.fence).status_code == 200

    def then(self, run_id):
        """End one; the run that comes in its place."""
        before = len(self.executor.deliveries)
        self.end(run_id)
        return self.executor.wait_deliveries(before + 1)[-1].run_id


def bound(scene, group="g", **fields):
    name = scene.group(group).name
    return scene.api.ok("PATCH", f"/executor-groups/{name}", fields)


def waits_for(scene, run_id):
    run = scene.wait_run(run_id, "PENDING", reason="QUEUED")
    return run["waits_for"]


def queued_metric(scene, cause):
    return scene.node.metrics().get(f'kelou_runs_queued{{cause="{cause}"}}', 0)


def test_a_task(scene):
    one = Held(scene)
    for policy in ("ALLOW", "QUEUE_ALL"):
        before = len(one.held())
        task = scene.task(policy.lower(), overlap_policy=policy, max_concurrent=2)
        ids = [task.trigger() for _ in range(4)]
        assert set(one.wait(before + 2)[before:]) == set(ids[:2])
        for run_id in ids[2:]:
            assert waits_for(scene, run_id) == "TASK"
        assert one.then(ids[0]) == ids[2] and one.then(ids[1]) == ids[3]
        assert len(one.held()) == before + 4
        forced = task.trigger(ignore_overlap=True)  # a bound is not lifted
        assert waits_for(scene, forced) == "TASK"
        assert one.then(ids[2]) == forced
    problem = scene.api.problem("POST", "/tasks", scene.body("bad", overlap_policy="SKIP", max_concurrent=2), status=400)
    assert problem["errors"][0]["pointer"] == "/max_concurrent"


def test_a_group_by_priority(scene):
    one = Held(scene)
    group = bound(scene, max_concurrent=2)
    assert (group["max_concurrent"], group["rate_limit"], group["rate_burst"]) == (2, 0, 0)
    tasks = {p: scene.task(f"p{p}", priority=p, overlap_policy="ALLOW") for p in (1, 5, 9)}
    first, second = tasks[5].trigger(), tasks[5].trigger()
    one.wait(2)
    low, middle, high, other = tasks[1].trigger(), tasks[5].trigger(), tasks[9].trigger(), tasks[5].trigger()
    for run_id in (low, middle, high, other):
        assert waits_for(scene, run_id) == "GROUP"
    listed = {r["id"]: r.get("waits_for") for r in tasks[5].runs()}
    assert listed == {first: None, second: None, middle: "GROUP", other: "GROUP"}
    assert queued_metric(scene, "GROUP") >= 4
    assert [one.then(first), one.then(second), one.then(high), one.then(middle)] == [high, middle, other, low]
    for run_id in (other, low):
        one.end(run_id)
    bound(scene, max_concurrent=0)
    free = [tasks[1].trigger() for _ in range(3)]
    one.wait(9)
    assert set(one.held()[6:]) == set(free)


def test_a_group_lets_expire_and_cancel(scene):
    one = Held(scene)
    bound(scene, max_concurrent=1)
    task = scene.task("t", overlap_policy="ALLOW")
    short = scene.task("short", overlap_policy="ALLOW", timeout="700ms", priority=9)
    first = task.trigger()
    one.wait(1)
    expires, cancelled, last = short.trigger(), task.trigger(), task.trigger()
    scene.wait_run(cancelled, "PENDING", reason="QUEUED")
    assert scene.cancel(cancelled).status_code == 200
    run = scene.wait_run(expires)
    assert (run["state"], run["reason"], run["attempt"]) == ("FAIL", "EXPIRED", 0) and "waits_for" not in run
    assert one.then(first) == last


def test_a_namespace(scene):
    name = f"tenant-{next(_numbers)}"
    api = scene.api
    api.ok("POST", "/namespaces", {"name": name}, status=201)
    assert api.ok("PATCH", f"/namespaces/{name}", {"max_concurrent": 2})["max_concurrent"] == 2
    scene.group("g", namespace=name)
    scene.group("h", namespace=name)
    one, two = Held(scene), Held(scene, "two", "h")
    tasks = [scene.task(f"t{i}", None, group, namespace=name, overlap_policy="ALLOW", priority=p)
             for i, (group, p) in enumerate((("g", 5), ("h", 5), ("g", 2), ("h", 8)))]
    ids = [t.trigger() for t in tasks[:2]]
    one.wait(1), two.wait(1)  # which of several shards is looked at first is nobody's promise
    ids += [t.trigger() for t in tasks[2:]]
    assert [waits_for(scene, i) for i in ids[2:]] == ["NAMESPACE", "NAMESPACE"]
    one.end(ids[0])
    assert two.wait(2)[-1] == ids[3]  # the higher priority, whatever its group
    two.end(ids[1])
    assert one.wait(2)[-1] == ids[2]
    more = tasks[0].trigger()
    assert waits_for(scene, more) == "NAMESPACE"
    assert api.ok("PATCH", f"/namespaces/{name}", {"max_concurrent": None})["max_concurrent"] == 0
    assert one.wait(3)[-1] == more


def test_a_rate(scene):
    executor = scene.executor()
    executor.answer(Done())
    group = bound(scene, rate_limit=5, rate_burst=2)
    assert (group["rate_limit"], group["rate_burst"]) == (5, 2)
    task = scene.task("t", overlap_policy="ALLOW")
    ids = [task.trigger() for _ in range(12)]
    assert waits_for(scene, ids[-1]) == "RATE"
    runs = [scene.wait_run(i, "SUCCESS", timeout=20) for i in ids]
    starts = sorted(at(r["started_at"]) for r in runs)
    took = (starts[-1] - starts[0]).total_seconds()
    assert took >= (12 - 2) / 5 - 0.5, took  # never faster than the bucket; slower on a slow machine
    assert [d.run_id for d in executor.deliveries] == ids
    api = scene.api
    name = scene.group().name
    assert api.problem("PATCH", f"/executor-groups/{name}", {"rate_limit": 0.0001}, status=400)["errors"][0]["pointer"] == "/rate_limit"
    assert api.problem("PATCH", f"/executor-groups/{name}", {"max_concurrent": -1}, status=400)["errors"][0]["pointer"] == "/max_concurrent"


def test_slots_by_priority(scene):
    """Among those that wait for a slot of an executor the higher priority goes first."""
    one = Held(scene, slots=1)
    tasks = {p: scene.task(f"s{p}", priority=p, overlap_policy="ALLOW", dispatch_timeout="1m", handler=f"h{p % 2}") for p in (0, 4, 9)}
    first = tasks[4].trigger()
    one.wait(1)
    waiting = [tasks[p].trigger() for p in (0, 4, 9, 4)]
    for run_id in waiting:
        scene.wait_run(run_id, "PENDING", reason="DISPATCHING")
    low, middle, high, other = waiting
    wait_for(lambda: scene.node.metrics().get("kelou_dispatch_waiting", 0) >= 4, what="all wait for the slot")
    assert [one.then(first), one.then(high), one.then(middle), one.then(other)] == [high, middle, other, low]


def test_a_bound_holds_through_a_crash(make_node, tmp_path):
    """Killed with runs under way and waiting: never more than the bound at the executor, and all of them end."""
    node = make_node(settings={"store.shards": 16}).start()
    scene = Scene(node, tmp_path)
    one = Held(scene)
    bound(scene, max_concurrent=3)
    tasks = [scene.task(f"t{i}", overlap_policy="ALLOW") for i in range(12)]
    ids = [t.trigger() for t in tasks]
    begun = set(one.wait(3))  # of several shards: in whatever order
    for run_id in set(ids) - begun:
        scene.wait_run(run_id, "PENDING", reason="QUEUED")
    node.restart(kill=True)
    scene.api = node.api()
    done = set()
    deadline = time.monotonic() + 60
    while len(done) < len(ids):
        assert time.monotonic() < deadline, (len(done), len(ids))
        open_here = {d.run_id for d in one.executor.deliveries} - done
        assert len(open_here) <= 3, open_here
        for run_id in list(open_here)[:1]:
            d = [d for d in one.executor.deliveries if d.run_id == run_id][-1]
            if one.executor.report(run_id, d.attempt, d.fence).status_code == 200:
                done.add(run_id)
        time.sleep(0.05)
    for run_id in ids:
        scene.wait_run(run_id, "SUCCESS")
    scene.done()
