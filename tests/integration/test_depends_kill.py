"""After-tasks over kill -9: each end of a parent led to exactly one run of its child, on each store."""
import random
import time
from collections import Counter

import pytest
import requests

from tests.harness.fake_executor import Done
from tests.harness.kelou import wait_for
from tests.harness.world import Scene

CHAIN = 4
LIVES, EACH_LIFE = 6, 6  # and so many runs at its end in each of them


@pytest.fixture
def stage(make_node, tmp_path, request):
    """A node, a group with an executor that is done at once, and ended after the test."""
    node = make_node(settings={"executor.lost_after": "60s"}).start()
    scene = Scene(node, tmp_path)
    executor = scene.executor(beat=5)
    executor.answer(lambda d: Done({"of": d.run_id}))
    request.addfinalizer(executor.stop)
    return scene


def successes(scene, task):
    return {r["id"]: r for r in scene.api.items("/runs", task=task.id, state="SUCCESS")}


def all_of(scene, task):
    return scene.api.items("/runs", task=task.id)


def served(scene, parent, child):
    """Each end of the parent has exactly one run of the child, and each run of the child an end."""
    ends = successes(scene, parent)
    runs = Counter(r["origin_run"] for r in all_of(scene, child))
    assert set(runs) == set(ends), (len(runs), len(ends), list(set(ends) - set(runs))[:3])
    assert set(runs.values()) <= {1}, [k for k, n in runs.items() if n > 1]
    return len(ends)


def all_ended(scene, tasks):
    return all(not scene.api.items("/runs", task=t.id, state="PENDING,RUNNING") for t in tasks)


def test_kills_while_chains_run(stage):
    scene = stage
    top = scene.task("top", overlap_policy="ALLOW", misfire_policy="SKIP")
    chain = [top]
    for i in range(CHAIN):
        chain.append(scene.task(f"after{i}", overlap_policy="ALLOW", depends_on={"tasks": [chain[-1].name], "mode": "ALL" if i % 2 else "ANY"}))
    side = scene.task("side", overlap_policy="ALLOW", depends_on={"tasks": [top.name, chain[2].name], "mode": "ANY"})
    top.patch(schedule={"kind": "FIXED_RATE", "every": "30ms"})  # now that all its children are there
    random.seed(7)
    for _ in range(LIVES):
        seen = len(chain[-1].runs())
        wait_for(lambda: len(chain[-1].runs()) >= seen + EACH_LIFE, 60, "the end of the chain runs")
        time.sleep(random.uniform(0, 0.3))  # when it is killed is left to chance
        scene.node.restart(kill=True)
    top.pause()
    wait_for(lambda: all_ended(scene, chain), 60, "all runs have ended")

    def exact():
        return [served(scene, a, b) for a, b in zip(chain, chain[1:])]
    counts = wait_for(exact, 30, "each end led to one run")
    assert len(set(counts)) == 1 and counts[0] >= LIVES * EACH_LIFE, counts
    ends = Counter([*successes(scene, top), *successes(scene, chain[2])])

    def both_parents():
        runs = Counter(r["origin_run"] for r in all_of(scene, side))
        assert runs == ends, (list((runs - ends).items())[:3], list((ends - runs).items())[:3], len(ends), len(runs))
        return True
    wait_for(both_parents, 30, "each end of both parents led to one run")


POINTS = ("run.before_commit", "run.after_commit", "depend.before_apply", "depend.after_apply", "fire.before_commit",
          "fire.after_commit")


@pytest.mark.parametrize("point", POINTS)
def test_a_death_between_the_end_and_the_run(stage, point):
    """The end is written and nobody has asked for the child's run; or it has been asked for, and nobody has heard of it; …"""
    scene = stage
    a, b = scene.task("a"), scene.task("b")
    any_end = scene.task("any", overlap_policy="ALLOW", depends_on={"tasks": [a.name], "mode": "ANY"})
    both = scene.task("both", overlap_policy="ALLOW", depends_on={"tasks": [a.name, b.name]})
    scene.wait_run(b.trigger(), "SUCCESS")
    scene.node.environment = {**scene.node.environment, "KELOU_FAILPOINTS": f"{point}=crash:1"}
    scene.node.restart()
    key = {"Idempotency-Key": f"once-{point}"}

    def dies():
        try:
            scene.api.post(f"/tasks/{a.id}/trigger", headers=key)
        except requests.RequestException:
            pass  # it died before it answered
        return not scene.node.alive()
    try:
        wait_for(dies, 20, f"the node to die at {point}")
    finally:
        scene.node.environment = {**scene.node.environment, "KELOU_FAILPOINTS": ""}
    scene.node.start()
    run_id = a.trigger(headers=key)
    scene.wait_run(run_id, "SUCCESS", timeout=30)
    for task in (any_end, both):
        run = task.wait_runs(1, timeout=30, state="SUCCESS")[0]
        assert run["origin_run"] == run_id
    assert [p["task"] for p in scene.run(both.runs()[0]["id"])["parents"]] == [a.name, b.name]
    last = scene.wait_run(a.trigger(), "SUCCESS")  # and no second one behind it
    assert [r["origin_run"] for r in any_end.wait_runs(2, state="SUCCESS")] == [run_id, last["id"]]
    assert len(both.runs()) == 1
