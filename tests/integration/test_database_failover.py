"""The database goes over to another server of the list: the nodes follow by themselves, all of them, and nobody stays behind."""
import pytest

from tests.harness.kelou import wait_for
from tests.harness.servers import Postgres, postgres_bin
from tests.harness.trouble import Trouble

pytestmark = pytest.mark.skipif(not postgres_bin(), reason="PostgreSQL is not installed")
EPOCHS_OF_A_TIMELINE = 1 << 20


@pytest.fixture
def pair():
    """(primary, standby that streams)."""
    with Postgres() as primary:
        standby = primary.standby()
        try:
            wait_for(lambda: primary.psql("SELECT state FROM pg_stat_replication") == "streaming", 20, "streaming")
            yield primary, standby
        finally:
            standby.stop()


def database(primary, standby):
    """(name, URL of both servers, the first one first)."""
    name = primary.create_database().rpartition("/")[2]
    return name, f"postgresql://{primary.role}@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/{name}?target_session_attrs=read-write"


def nodes_at(server, name):
    """How many nodes are there: their leases' sessions. Sessions that nobody uses may stay."""
    return int(server.psql(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND application_name = 'kelou lease'"))


def least_epoch(server, name):
    return int(server.psql("SELECT min(epoch) FROM shard", name))


def test_fail_over_with_a_synchronous_standby(pair, tmp_path):
    """The primary is killed: nothing that was acknowledged is lost. It comes back and takes writes: nobody uses it."""
    old, new = pair
    old.configure(synchronous_standby_names="*")
    name, url = database(old, new)
    with Trouble(tmp_path, url, nodes=2) as t:
        t.url = new.url(name)
        old.kill()
        t.wait_not_ready()
        new.psql("SELECT pg_promote()")
        t.wait_ready()
        t.wait_on_time()
        wait_for(lambda: least_epoch(new, name) >= EPOCHS_OF_A_TIMELINE, 20, "epochs of the new timeline")
        old.configure_offline("synchronous_standby_names", "")
        old.resume()
        assert old.psql("SELECT pg_is_in_recovery()") == "f"
        for node in t.nodes:  # one that starts anew and has seen nothing of it
            node.restart(kill=True, wait=False)
            t.wait_ready()
        new.psql(f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{name}'")
        wait_for(lambda: nodes_at(old, name) == 0 and nodes_at(new, name) == 2, 20, "both have connected anew, to the new primary")
        t.wait_ready()
        t.wait_on_time()
        assert nodes_at(old, name) == 0
        t.prove()


def test_a_standby_is_promoted_while_the_primary_lives(pair, tmp_path):
    """Asynchronous, and nobody has fenced the primary: its last commits are gone, every node leaves it, and what it had fired and finished
    since is fired once more, by the same run ids."""
    old, new = pair
    name, url = database(old, new)
    with Trouble(tmp_path, url, nodes=2) as t:
        t.url = new.url(name)
        new.configure(primary_conninfo="")
        wait_for(lambda: old.psql("SELECT count(*) FROM pg_stat_replication") == "0", 20, "the standby follows no more")
        t.wait_fires(50)
        new.psql("SELECT pg_promote()")
        wait_for(lambda: nodes_at(old, name) == 0 and nodes_at(new, name) == 2, 30, "all have gone over")
        t.wait_ready()
        wait_for(lambda: least_epoch(new, name) >= EPOCHS_OF_A_TIMELINE, 20, "epochs of the new timeline")
        t.wait_on_time()
        found = t.prove(tail_lost=True)
        assert found.starts  # the tail was lost


def test_a_primary_that_takes_no_writes_any_more(pair, tmp_path):
    """Switched to read-only under its sessions: they leave it."""
    old, new = pair
    old.configure(synchronous_standby_names="*")
    name, url = database(old, new)
    with Trouble(tmp_path, url) as t:
        t.url = new.url(name)
        old.configure(default_transaction_read_only="on")
        t.wait_not_ready()
        wait_for(lambda: new.psql("SELECT pg_last_wal_replay_lsn()") >= old.psql("SELECT pg_current_wal_lsn()"), 20, "the standby has it all")
        new.psql("SELECT pg_promote()")
        t.wait_ready()
        t.wait_on_time()
        t.prove()
