"""Full disks and locks: what cannot be written is not acknowledged, and goes on when there is room."""
import os
import subprocess

import pytest

from tests.harness.servers import Postgres, postgres_bin
from tests.harness.trouble import SmallDisk, Trouble

needs_a_disk = pytest.mark.skipif(SmallDisk.why_not() is not None, reason=f"no small disk: {SmallDisk.why_not()}")
needs_postgres = pytest.mark.skipif(not postgres_bin(), reason="PostgreSQL is not installed")
PAGE = os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module")
def server():
    with Postgres() as mine:
        yield mine


def fill_and_clear(t, disk):
    """Not ready while it is full, at once ready when there is room."""
    disk.fill()
    try:
        t.wait_not_ready(40)
        problem = t.wait_problem("/readyz")
        assert "database" in problem["detail"], problem
    finally:
        disk.clear()
    t.wait_ready()
    t.wait_on_time()
    t.prove()


@needs_a_disk
@needs_postgres
def test_the_disk_of_the_server_is_full(server, tmp_path):
    """Its tables cannot grow (a full WAL stops it: that is a restart)."""
    with SmallDisk(server.own_folder("small"), 40, server.user) as disk:
        place = os.path.join(disk.folder, "tables")
        os.mkdir(place, 0o700)
        if server.user:
            subprocess.run(["chown", server.user, place], check=True)
        server.psql(f"CREATE TABLESPACE small LOCATION '{place}'")
        server.psql("CREATE DATABASE small TABLESPACE small")
        try:
            with Trouble(tmp_path, server.url("small")) as t:
                fill_and_clear(t, disk)
        finally:
            server.psql("DROP DATABASE small WITH (FORCE)")
            server.psql("DROP TABLESPACE small")


@needs_a_disk
def test_the_disk_of_sqlite_is_full(tmp_path):
    with SmallDisk(tmp_path / "small", 16) as disk, Trouble(tmp_path, f"sqlite:{disk.folder}/kelou.db") as t:
        fill_and_clear(t, disk)


@needs_a_disk
def test_the_disk_of_the_log_is_full(tmp_path):
    """Lines are lost, and nothing else."""
    with SmallDisk(tmp_path / "small", 1) as disk:
        settings = {"log.file": os.path.join(disk.folder, "keloud.log"), "log.level": "debug"}
        with Trouble(tmp_path, f"sqlite:{tmp_path}/kelou.db", settings=settings) as t:
            disk.fill()
            length = os.path.getsize(settings["log.file"])
            t.wait_fires(100)
            assert t.node.ready() and os.path.getsize(settings["log.file"]) <= (length // PAGE + 1) * PAGE
            t.prove()


@needs_postgres
def test_a_storm_of_locks(server, tmp_path):
    """Somebody locks the tables of runs again and again, longer than our lock_timeout: late, then as before."""
    url = server.create_database()
    name = url.rpartition("/")[2]
    with Trouble(tmp_path, url) as t:
        for table in ("run", "run_history", "shard", "node", "shard_finish"):
            server.psql(f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(1.2); COMMIT", name)
        t.wait_ready()
        t.wait_on_time()
        t.prove()
