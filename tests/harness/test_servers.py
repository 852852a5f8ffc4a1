"""The harness's own promises: a server starts on its own, survives a crash with its data, and leaves nothing behind."""
import os

import pytest

from .kelou import wait_for
from .servers import Postgres, children_of, postgres_bin

pytestmark = pytest.mark.skipif(not postgres_bin(), reason="PostgreSQL is not installed")


def test_postgres_survives_a_crash_with_its_data():
    with Postgres() as server:
        server.create_database("one")
        server.psql("CREATE TABLE t (n int); INSERT INTO t VALUES (7)", "one")
        assert server.psql("SELECT current_setting('fsync'), current_setting('synchronous_commit')") == "on|on"
        server.kill()
        assert server.process.poll() is not None
        server.resume()
        assert server.psql("SELECT n FROM t", "one") == "7"
        server.stop_hard()
        server.resume()
        server.restart()
        assert server.psql("SELECT n FROM t", "one") == "7"
        folder, pid = server.folder, server.process.pid
    assert not os.path.exists(folder)
    assert not children_of(pid)


def test_two_servers_live_side_by_side():
    with Postgres() as one, Postgres({"synchronous_commit": "off"}) as two:
        assert one.port != two.port
        assert two.psql("SHOW synchronous_commit") == "off"
        assert one.create_database() != one.create_database()


def test_wait_for_names_what_it_waited_for():
    with pytest.raises(AssertionError, match="the impossible: not within 0.05 s; last: because"):
        def never():
            raise AssertionError("because")
        wait_for(never, 0.05, "the impossible")
    assert wait_for(lambda: 5) == 5
