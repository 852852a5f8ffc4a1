"""The database restarts, is away, loses sessions, hangs, is slow: the node says so, loses nothing, and goes on by itself."""
import os
import random
import signal
import time

import pytest

from tests.harness.kelou import wait_for
from tests.harness.servers import Postgres, children_of, postgres_bin
from tests.harness.trouble import RECOVERY_SECONDS, Trouble, get
from tests.verify.tables import REASONS

pytestmark = pytest.mark.skipif(not postgres_bin(), reason="PostgreSQL is not installed")
ABSENCE_SECONDS = 4


@pytest.fixture(scope="module")
def server():
    """A server of this module's own: what is done to it is done to nobody else."""
    with Postgres() as mine:
        yield mine


@pytest.fixture
def url(server):
    if server.process.poll() is not None:  # a test failed in the middle
        server.resume()
    return server.create_database()


def sessions(server, url, where="true"):
    """The process ids of the sessions in that database."""
    database = url.rpartition("/")[2]
    rows = server.psql(f"SELECT pid FROM pg_stat_activity WHERE datname = '{database}' AND application_name LIKE 'kelou %' AND {where}")
    return [int(pid) for pid in rows.split()]


def test_the_server_restarts_under_load(server, url, tmp_path):
    """Immediate stops: unknown commits are read back, nothing is lost or doubled."""
    with Trouble(tmp_path, url, people=True) as t:
        for _ in range(3):
            server.stop_hard()
            server.resume()
            t.wait_ready()
            t.wait_fires(50)
        t.prove()


def absent(server, url, folder, seconds):
    with Trouble(folder, url) as t:
        server.stop_hard()
        t.wait_not_ready()
        problem = t.wait_problem()
        assert problem["code"] == "unavailable" and "database" in problem["detail"], problem
        assert get(t.node, "/healthz") == 200 and get(t.node, "/metrics") == 200
        until = time.monotonic() + seconds
        wait_for(lambda: time.monotonic() > until, seconds + 5, "the absence")
        assert t.node.alive() and not t.node.ready()
        server.resume()
        t.wait_ready()
        t.wait_on_time()
        t.prove()
        missed = server.psql(f"SELECT count(*) FROM run_history WHERE reason = {REASONS.index('MISFIRE')}", url.rpartition("/")[2])
        assert missed == "0"  # what was due meanwhile is late, and no misfire


def test_the_server_is_away(server, url, tmp_path):
    absent(server, url, tmp_path, ABSENCE_SECONDS)


@pytest.mark.long
def test_the_server_is_away_for_thirty_seconds(server, url, tmp_path):
    absent(server, url, tmp_path, 30)


def test_sessions_are_ended_at_random(server, url, tmp_path):
    """Also in the middle of FIRE's and FINISH's commits."""
    with Trouble(tmp_path, url, people=True) as t:
        chance, ended = random.Random(7), 0
        until = time.monotonic() + 4
        while time.monotonic() < until:
            busy = sessions(server, url, "state <> 'idle'") or sessions(server, url)
            if busy:
                ended += server.psql(f"SELECT pg_terminate_backend({chance.choice(busy)})") == "t"
        assert ended >= 10
        t.wait_ready()
        t.wait_on_time()
        t.prove()


def hang(server, url, name):
    """Stop the process of that session between two transactions: one that holds locks would hold up everybody, whatever a node does."""
    def stop():
        (pid,) = sessions(server, url, f"application_name = 'kelou {name}'")
        os.kill(pid, signal.SIGSTOP)
        if server.psql(f"SELECT count(*) FROM pg_locks WHERE pid = {pid}", url.rpartition("/")[2]) == "0":
            return pid
        os.kill(pid, signal.SIGCONT)
        return None
    return wait_for(stop, 20, f"the {name} session is between two transactions")


def test_sessions_that_hang(server, url, tmp_path):
    """Their processes are stopped and never go on: each thread gives its session up in time and goes on with another one."""
    names = ("lease", "fire", "finish")
    with Trouble(tmp_path, url) as t:
        stopped = {name: hang(server, url, name) for name in names}
        try:
            for name in names:
                wait_for(lambda n=name: set(sessions(server, url, f"application_name = 'kelou {n}'")) - {stopped[n]}, 30, f"another {name} session")
            t.wait_ready()
            t.wait_on_time()
        finally:
            for pid in stopped.values():
                os.kill(pid, signal.SIGCONT)
        t.prove()


def test_the_whole_server_hangs(server, url, tmp_path):
    """SIGSTOP of all of its processes: not ready, /healthz and /readyz answer all the while, and it goes on by itself."""
    with Trouble(tmp_path, url) as t:
        stopped = [server.process.pid, *children_of(server.process.pid)]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            t.wait_not_ready()
            t.wait_problem(seconds=60)
            for path, status in (("/healthz", 200), ("/readyz", 503), ("/metrics", 200)):
                assert get(t.node, path) == status
        finally:
            for pid in stopped[::-1]:
                os.kill(pid, signal.SIGCONT)
        t.wait_ready(RECOVERY_SECONDS)
        t.wait_on_time()
        t.prove()
