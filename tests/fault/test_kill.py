"""kill -9 at random moments and crashes at named places, on each store, proved by the verifier."""
import pytest

from tests.fault.loop import POINTS, Loop, Plan


def judge(outcome):
    print(outcome.text)
    assert not outcome.found.bad and not outcome.wrong, "\n".join([outcome.text, *outcome.wrong])
    assert outcome.found.instants > 500 and outcome.found.runs > 500, outcome.text


def test_kills_lose_and_double_nothing(tmp_path, store_url):
    """Six kills at random moments of its life, start-up included."""
    judge(Loop(tmp_path / "loop", store_url, Plan(kills=6, seed=11, scale=0.5)).run())


def test_crash_points_lose_and_double_nothing(tmp_path, store_url):
    """Death just before and just after the commit of a FIRE and of a FINISH."""
    judge(Loop(tmp_path / "loop", store_url, Plan(kills=0, seed=12, points=POINTS, scale=0.5)).run())


@pytest.mark.long
def test_a_hundred_kills(tmp_path, store_url):
    """The long form: 100 kills while more than 500 instants a second become due, three rounds of the crash points, one long outage (misfires)."""
    judge(Loop(tmp_path / "loop", store_url, Plan(kills=100, seed=13, points=POINTS, point_rounds=3, outage=20, scale=1.6)).run())
