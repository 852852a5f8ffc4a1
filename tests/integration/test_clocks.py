"""Wall clocks that step and drift (libfaketime), and time zone data that differs, on one node of three: the database's clock decides."""
import os
import shutil
import time

import pytest

from tests.harness.kelou import wait_for
from tests.harness.servers import Postgres, postgres_bin
from tests.harness.trouble import SHARDS, Trouble
from tests.harness.world import at

FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
pytestmark = pytest.mark.skipif(not postgres_bin(), reason="PostgreSQL is not installed")
needs_faketime = pytest.mark.skipif(not os.path.exists(FAKETIME), reason="libfaketime is not installed")
HOUR = 3600


@pytest.fixture(scope="module")
def server():
    with Postgres() as mine:
        yield mine


class Clock:
    """The wall clock of one node. Its monotonic clock stays true, as on a real machine."""

    def __init__(self, folder):
        self.file = os.path.join(str(folder), "clock")
        self.set("+0")
        self.environment = {"LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": self.file, "FAKETIME_NO_CACHE": "1",
                            "FAKETIME_DONT_FAKE_MONOTONIC": "1"}

    def set(self, text):
        """`+SECONDS` or `+0 xRATE`, as libfaketime reads it."""
        with open(self.file + ".new", "w", encoding="utf-8") as f:
            f.write(text + "\n")
        os.replace(self.file + ".new", self.file)


def offset_of(node):
    return node.metrics()["kelou_clock_offset_seconds"]


def keeps_to_the_bound(t, seconds):
    """A node whose clock is past node.max_clock_skew owns nothing, and its shards have other owners."""
    found = t.node.metrics()
    if "kelou_clock_skewed" not in found:
        return True
    assert found["kelou_clock_skewed"] == (seconds != 0) and t.metric("kelou_shards_owned") == SHARDS
    assert (found["kelou_shards_owned"] == 0) == (seconds != 0), found["kelou_shards_owned"]
    return True


def times_of(document):
    """Every instant in an answer."""
    if isinstance(document, dict):
        for name, value in document.items():
            yield from times_of(value) if isinstance(value, (dict, list)) else [(name, value)] if name.endswith("_at") and value else []
    elif isinstance(document, list):
        for item in document:
            yield from times_of(item)


def check_times(t, node):
    """What the API of that node tells is the database's time, whatever its own wall clock says."""
    api = node.api()
    made = api.ok("POST", "/tasks", {"name": f"made-{time.time_ns()}", "schedule": {"kind": "MANUAL"}, "executor_group": "fault", "handler": "inline",
                                     "overlap_policy": "ALLOW"})
    t.people.note("created", task_id=made["id"])
    run_id = api.ok("POST", f"/tasks/{made['id']}/trigger", status=202)["run_id"]

    def ended():
        run = api.get(f"/runs/{run_id}")
        assert run.ok and run.json()["state"] == "SUCCESS", run.text
        return run.json()
    run = wait_for(ended, 20, "the triggered run")
    group = api.ok("POST", "/executor-groups", {"name": f"g-{time.time_ns()}"})
    for name, text in times_of([made, run, group, api.ok("GET", f"/tasks/{made['id']}")]):
        assert abs(at(text).timestamp() - time.time()) < 60, (name, text)


@needs_faketime
def test_a_clock_that_steps(server, tmp_path):
    """An hour forth, an hour back, under load."""
    clock = Clock(tmp_path)
    with Trouble(tmp_path, server.create_database(), nodes=3, environments=(clock.environment,)) as t:
        for seconds in (HOUR, -HOUR, 0):
            clock.set(f"{seconds:+d}")
            wait_for(lambda s=seconds: abs(offset_of(t.node) + s) < 5, 20, "the node shows what its clock is off")
            wait_for(lambda s=seconds: keeps_to_the_bound(t, s), 30, "a clock past the bound owns nothing, others own all")
            t.wait_fires(60)
            t.wait_on_time()
            check_times(t, t.node)
        assert t.metric("kelou_fires_missed_total") == 0
        t.prove()


@needs_faketime
def test_a_clock_that_drifts(server, tmp_path):
    """The node that owns the shards, a hundredth too fast."""
    clock = Clock(tmp_path)
    with Trouble(tmp_path, server.create_database(), environments=(clock.environment,)) as t:
        clock.set("+0 x1.01")
        t.wait_fires(300, 30)
        t.wait_on_time()
        assert t.node.ready() and t.metric("kelou_fires_missed_total") == 0
        t.prove()


def test_a_node_with_other_time_zone_data(server, tmp_path):
    """Shanghai is somewhere else for one of two nodes: whoever fires, each node shows which data it has."""
    zones = tmp_path / "zoneinfo"
    os.makedirs(zones / "Asia")
    shutil.copy("/usr/share/zoneinfo/UTC", zones / "UTC")
    shutil.copy("/usr/share/zoneinfo/Asia/Kathmandu", zones / "Asia" / "Shanghai")
    (zones / "tzdata.zi").write_text("# version 1999z\n", encoding="utf-8")
    url = server.create_database()
    with Trouble(tmp_path, url, nodes=2) as t:
        other = t.nodes[1]
        other.stop()
        other.settings["trigger.zone_dir"] = str(zones)
        other.start(wait=False)
        versions = "SELECT count(DISTINCT tzdata) FROM node WHERE lease_until > extract(epoch FROM now()) * 1000000"
        wait_for(lambda: server.psql(versions, url.rpartition("/")[2]) == "2", 20, "two versions are shown")
        t.wait_ready()
        t.wait_on_time()
        t.prove()
