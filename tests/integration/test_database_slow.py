"""Slow commits: lateness, and no take-over from a node that lives."""
import os
import subprocess

import pytest

from tests.harness.kelou import wait_for
from tests.harness.servers import Postgres, children_of, dies_with_me, postgres_bin
from tests.harness.trouble import LEASE_SECONDS, SHARDS, Trouble

STRACE = "/usr/bin/strace"
pytestmark = [pytest.mark.skipif(not postgres_bin(), reason="PostgreSQL is not installed"),
              pytest.mark.skipif(not os.path.exists(STRACE) or os.geteuid() != 0, reason="strace is not installed, or not root")]


@pytest.fixture(scope="module")
def server():
    with Postgres() as mine:
        yield mine


def slow_down(server, seconds):
    """Every commit of the server waits so long for the disk."""
    processes = [server.process.pid, *children_of(server.process.pid)]
    command = [STRACE, "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", f"inject=fdatasync:delay_enter={int(seconds * 1e6)}"]
    for pid in processes:
        command += ["-p", str(pid)]
    child = subprocess.Popen(dies_with_me(command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def traced():
        for pid in children_of(server.process.pid):
            try:
                with open(f"/proc/{pid}/status", encoding="utf-8") as f:
                    assert f"TracerPid:\t{child.pid}\n" in f.read(), pid
            except FileNotFoundError:
                pass  # it has ended meanwhile
        return True
    wait_for(traced, 20, "strace has the server")
    return child


def renewals(server, url):
    return int(server.psql("SELECT min(renewals) FROM node", url.rpartition("/")[2]))


@pytest.mark.parametrize("share", [0.2, 0.75], ids=["bearable", "unbearable"])
def test_slow_commits(server, tmp_path, share):
    """Each flush to the disk takes that share of the lease. Bearable: late, and no node takes over from one that lives. Unbearable (a renewal takes
    longer than the lease): nothing fires. Nothing is lost or doubled."""
    url = server.create_database()
    with Trouble(tmp_path, url, nodes=2) as t:
        wait_for(lambda: balanced(server, url), 20, "each has its half of the shards")
        before = owners(server, url)
        child = slow_down(server, share * LEASE_SECONDS)
        try:
            if share < 0.5:
                late = t.metric("kelou_fire_lateness_seconds_sum")
                wait_for(lambda: t.metric("kelou_fire_lateness_seconds_sum") > late + 5, 60, "lateness shows")
            else:
                t.wait_not_ready()
            done = renewals(server, url)
            wait_for(lambda: renewals(server, url) >= done + 3, 60, "three renewals of each")
            assert owners(server, url) == before or share > 0.5, "a slow disk has become a take-over"
            assert all(node.alive() for node in t.nodes)
        finally:
            child.terminate()
            child.wait(20)
        t.wait_ready()
        t.wait_on_time()
        t.prove()


def balanced(server, url):
    return [row.count("|n0|") for row in owners(server, url)].count(1) == SHARDS // 2


def owners(server, url):
    """Of each shard, with its epoch."""
    rows = server.psql("SELECT id, owner, epoch FROM shard ORDER BY id", url.rpartition("/")[2])
    return rows.split()
