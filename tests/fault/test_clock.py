"""A node whose wall clock is wrong: what it signs and what expires goes by the database's."""
import os

import pytest

from tests.fault.cluster import FAKETIME, Cluster
from tests.harness.kelou import wait_for
from tests.harness.servers import Postgres


@pytest.mark.skipif(not os.path.exists(FAKETIME), reason="libfaketime is not installed (tools/setup test)")
@pytest.mark.parametrize("by", ["-3600", "+3600"])
def test_an_executor_takes_the_deliveries_of_a_node_an_hour_off(tmp_path, by):
    with Postgres() as server:
        cluster = Cluster(tmp_path / "cluster", server, nodes=1, clock_node=1)
        cluster.nodes[0].set_clock(by)
        try:
            cluster.start().add_executors(("sample",))
            api = cluster.nodes[0].api()
            task = api.ok("POST", "/tasks", {"name": "t", "schedule": {"kind": "MANUAL"}, "executor_group": "fault", "handler": "echo"})
            run = api.ok("POST", f"/tasks/{task['id']}/trigger", status=202)["run_id"]

            def ended():
                answer = api.get(f"/runs/{run}")  # 404 until the owner has taken it in
                assert answer.ok and answer.json()["state"] == "SUCCESS", answer.text
                return True
            wait_for(ended, 20, "the run succeeds", every=0.05)
            offset = cluster.nodes[0].metrics()["kelou_clock_offset_seconds"]
            assert abs(offset + float(by)) < 60, f"libfaketime does nothing here: {offset}"
        finally:
            cluster.stop()
