"""A node of two dies at a named place of its membership: joining, claiming, renewing, releasing. The other one goes on, nothing is lost."""
import pytest

from tests.harness.kelou import wait_for
from tests.harness.servers import Postgres, postgres_bin
from tests.harness.trouble import Trouble

pytestmark = pytest.mark.skipif(not postgres_bin(), reason="PostgreSQL is not installed")
CRASHED = 137
UP = ("node_join.before", "node_join.after", "shard_claim.before", "shard_claim.after", "task_load.after", "run_load.after", "node_renew.after:3")
DOWN = ("shard_release.before", "shard_release.after", "node_leave.before", "node_leave.after")


@pytest.fixture(scope="module")
def server():
    with Postgres() as mine:
        yield mine


def start_at(node, point):
    """Start it so that it dies there."""
    name, _, nth = point.partition(":")
    node.environment["KELOU_FAILPOINTS"] = f"db.{name}=crash:{nth or 1}"
    node.start(wait=False)
    del node.environment["KELOU_FAILPOINTS"]


def test_it_dies_while_it_comes(server, tmp_path):
    with Trouble(tmp_path, server.create_database(), nodes=2) as t:
        for point in UP:
            victim, other = t.nodes[::-1]
            victim.kill()
            if point.startswith(("shard", "task", "run")):
                other.kill()  # so that it has something to take over
            start_at(victim, point)
            assert wait_for(lambda v=victim: v.process.poll(), 20, f"it dies at {point}") == CRASHED
            for node in (victim, other):
                if not node.alive():
                    node.start(wait=False)
            t.wait_ready()
        t.wait_on_time()
        t.prove()


def test_it_dies_while_it_goes(server, tmp_path):
    url = server.create_database()
    with Trouble(tmp_path, url, nodes=2) as t:
        for point in DOWN:
            victim = t.node
            victim.kill()
            start_at(victim, point)
            victim.wait_ready()
            reached = victim.stop(40) == CRASHED
            assert reached or point.startswith("shard_release"), point  # a node that owns nothing releases nothing
            victim.start(wait=False)
            t.wait_ready()
        t.wait_on_time()
        t.prove()
