"""A few of each kind of trial, and that the database sees a stale write when there is one. Times are shown, not judged."""
import argparse

import pytest

from tests.fault.audit import stale_writes
from tests.fault.cluster import Cluster
from tests.fault.trials import GapTrials, Rolling, StopTrials, options
from tests.harness.servers import Postgres


@pytest.fixture(scope="module")
def server():
    with Postgres({"max_connections": 200}) as running:
        yield running


def tried(trials, folder, server, *arguments):
    parser = argparse.ArgumentParser()
    options(parser, 3, 1.0, 200)
    o = parser.parse_args(["--judge", "0", "--warm", "1", *arguments])
    got = trials(folder / "trials", server, o.trials, o).run(0)
    print(got.text)
    assert got.good, "\n".join([got.text, *got.wrong])
    assert got.found.instants > 300, got.text
    return got


def test_a_stopped_owner_writes_nothing_when_it_goes_on(tmp_path, server):
    tried(StopTrials, tmp_path, server)


def test_the_shards_of_a_killed_node_fire_again(tmp_path, server):
    tried(GapTrials, tmp_path, server)


def test_a_rolling_restart_starts_nothing_twice(tmp_path, server):
    tried(Rolling, tmp_path, server)


@pytest.mark.long
def test_two_hundred_stops(tmp_path, server):
    assert tried(StopTrials, tmp_path, server, "--trials", "200", "--rate", "500").numbers["fencing rejections"] > 0


@pytest.mark.long
def test_thirty_kills(tmp_path, server):
    tried(GapTrials, tmp_path, server, "--trials", "30", "--lease", "5", "--judge", "1")


def test_a_stale_write_is_seen(tmp_path, server):
    """The audit notes what another node than the owner writes, and nothing of the owner's."""
    cluster = Cluster(tmp_path / "cluster", server, nodes=1)
    try:
        cluster.start()
        cluster.nodes[0].stop()
        assert not stale_writes(cluster)
        cluster.sql("UPDATE shard SET owner = 'node-1'")
        writes = ("UPDATE shard SET fired_at = fired_at + 1 WHERE id = 3; INSERT INTO run_history (scheduled_at, task_id, part, shard, version, "
                  "state, reason, origin, attempt, fired_at) VALUES (1, {task}, 0, 4, 1, 5, 0, 0, 0, 1)")
        cluster.sql("SET kelou.node = 'node-1'; " + writes.format(task=1))
        assert not stale_writes(cluster)
        cluster.sql("SET kelou.node = 'node-2'; " + writes.format(task=2))
        found = {(what, int(shard), node, owner) for what, shard, _, node, owner, _ in stale_writes(cluster)}
        assert found == {("watermark", 3, "node-2", "node-1"), ("INSERT run_history", 4, "node-2", "node-1")}
    finally:
        cluster.stop()
