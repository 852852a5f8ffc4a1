"""Several nodes under load and faults by plan, proved by the verifier; and the plan itself."""
import pytest

from tests.fault import alive
from tests.fault.plan import KINDS, Size, make_plan
from tests.fault.storm import Storm
from tests.harness.servers import Postgres

QUICK = ("kill", "freeze", "db-restart", "db-backends", "db-hole", "db-oneway", "run-cut", "executor-kill", "clock-step")


def test_the_same_seed_makes_the_same_plan_and_another_one_another():
    assert make_plan(7, 600, Size()) == make_plan(7, 600, Size())
    assert make_plan(7, 600, Size()) != make_plan(8, 600, Size())


@pytest.mark.parametrize("seed", range(20))
def test_a_plan_is_bounded_and_leaves_nothing_open(seed):
    plan = make_plan(seed, 600, Size())
    assert 20 < len(plan) < 200
    for step in plan:
        kind = KINDS[step.kind]
        assert kind.least <= step.seconds <= kind.most + 5 * Size().lease and step.end < 600
        others = [s for s in plan if s is not step and s.resource == step.resource]
        assert all(s.at >= step.end or s.end <= step.at for s in others), f"{step} and another at once: {others}"
    assert len({s.kind for s in plan}) > len(KINDS) / 2


def test_recovery_is_measured_to_the_last_late_instant():
    second = 1_000_000
    late = [(10 * second, 3 * second), (11 * second, 2 * second + 1)]  # fired at 13 s, a fault ended at 10.5 s
    assert alive.recovered(late, int(10.5 * second), 60 * second) == pytest.approx(0.5)
    assert alive.recovered([], 10 * second, 60 * second) == 0
    assert alive.recovered(late, int(10.5 * second), 12 * second) is None, "the next fault came before it could be seen"


def test_rounds_join_faults_that_overlap():
    assert alive.rounds([(None, 1, 5), (None, 4, 9), (None, 12, 13)]) == [[1, 9], [12, 13]]


def carried_out(tmp_path, seed, seconds, rate, kinds, judge=False):
    size = Size(3, 3, 1.0, 3)
    plan = make_plan(seed, seconds, size, kinds, tail=2)
    with Postgres({"max_connections": 200}) as server:
        storm = Storm(tmp_path / "storm", plan, size, seed, rate, server)
        storm.judge_times = judge
        got = storm.run(seconds)
    print("\n".join([*map(str, plan), got.text]))
    assert got.good, "\n".join([*map(str, plan), got.text, *got.wrong])
    assert plan and got.found.instants > seconds * rate / 2, got.text
    return got


def test_three_nodes_lose_and_double_nothing(tmp_path):
    """A short storm: what may happen to a node, its database and its executors."""
    carried_out(tmp_path, 1, 20, 200, QUICK)


@pytest.mark.long
def test_a_long_storm(tmp_path):
    """Ten minutes of every kind that needs no network namespace (tests/fault/chaos has the others, too)."""
    carried_out(tmp_path, 2, 600, 500, tuple(k for k in KINDS if not k.endswith("-drop")), judge=True)
