"""PgBouncer between a node and PostgreSQL: in transaction mode it is refused at start, and said so; in session mode it works."""
import os
import shutil
import subprocess

import pytest

from tests.harness.kelou import Keloud, wait_for
from tests.harness.servers import Postgres, dies_with_me, end_process, free_port, postgres_bin
from tests.harness.trouble import Trouble

PGBOUNCER = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
pytestmark = pytest.mark.skipif(not postgres_bin() or not os.path.exists(PGBOUNCER), reason="PostgreSQL or PgBouncer is not installed")


@pytest.fixture(scope="module")
def server():
    with Postgres() as mine:
        yield mine


@pytest.fixture
def pooler(server):
    """pooler(mode) → the URL of a new database through it."""
    started = []

    def start(mode):
        folder, port = server.own_folder(f"pool-{mode}"), free_port()
        with open(os.path.join(folder, "ini"), "w", encoding="utf-8") as f:
            f.write(f"[databases]\n* = host=127.0.0.1 port={server.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
                    f"auth_type = trust\nauth_file = {folder}/users\npool_mode = {mode}\nunix_socket_dir =\nlogfile = {folder}/log\n")
        with open(os.path.join(folder, "users"), "w", encoding="utf-8") as f:
            f.write(f'"{server.role}" ""\n')
        process = subprocess.Popen(dies_with_me([PGBOUNCER, "-q", f"{folder}/ini"], server.user), stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
        started.append(process)
        name = server.create_database().rpartition("/")[2]
        ready = [f"{server.bin}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port), "-U", server.role, "-d", name]
        wait_for(lambda: subprocess.run(ready, check=False).returncode == 0, 20, "PgBouncer")
        return f"postgresql://{server.role}@127.0.0.1:{port}/{name}", server.url(name)
    yield start
    for process in started:
        end_process(process)


@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_refused_at_start(pooler, make_node_on, mode):
    url, _ = pooler(mode)
    node = make_node_on(url)
    assert node.wait() == 1
    assert "field=store.url" in node.log_text(), node.log_text()
    assert "pooler" in node.log_text() or mode == "statement", node.log_text()


@pytest.fixture
def make_node_on(tmp_path):
    made = []

    def make(url):
        made.append(Keloud(tmp_path / "node", url).start(wait=False))
        return made[-1]
    yield make
    for node in made:
        node.stop()


def test_session_mode_works(pooler, tmp_path):
    url, direct = pooler("session")
    with Trouble(tmp_path, url) as t:
        t.url = direct
        t.prove(least=20)
