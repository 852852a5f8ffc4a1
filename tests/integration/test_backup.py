"""keloud --backup while it fires, --restore and --after-restore: refused while a node is alive, epochs raised beyond all."""
import os
import sqlite3
import subprocess
import threading

import pytest

from tests.harness.kelou import binary, wait_for
from tests.harness.world import Scene

STEP = 1 << 20


def keloud(node, *arguments, check=None):
    command = [binary("keloud"), *map(str, arguments)]
    for key, value in node.settings.items():
        command += ["--set", f"{key}={value}"]
    got = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if check is not None:
        assert got.returncode == check, got.stdout + got.stderr
    return got


def sqlite_rows(path, sql):
    with sqlite3.connect(path, timeout=20) as db:
        return db.execute(sql).fetchall()


@pytest.fixture
def sqlite_node(make_node, store, tmp_path):
    if store != "sqlite":
        pytest.skip("a file: SQLite only")
    return make_node(url=f"sqlite:{tmp_path}/kelou.db").start()


def test_backup_online_and_restore(sqlite_node, tmp_path):
    node, folder = sqlite_node, tmp_path / "backup"
    scene = Scene(node, tmp_path)
    executor = scene.executor(slots=200)
    task = scene.every("20ms", overlap_policy="ALLOW")
    wait_for(lambda: task.stats()["success"] >= 20, 20, "it fires")
    got = keloud(node, "--backup", folder, check=0)
    assert str(folder) in got.stdout and sorted(os.listdir(folder)) == ["kelou.db", "secret.key"]
    assert [oct(os.stat(folder / name).st_mode)[-3:] for name in sorted(os.listdir(folder))] == ["600", "600"]
    keloud(node, "--backup", folder, check=1)  # a backup is never overwritten
    copied = sqlite_rows(folder / "kelou.db", "SELECT count(*) FROM run_history")[0][0]
    assert copied >= 20
    wait_for(lambda: task.stats()["success"] >= copied + 20, 20, "it goes on firing")
    late = scene.task("made-later")
    for command in (("--restore", folder), ("--after-restore",)):
        assert "in use by the process" in keloud(node, *command, check=1).stderr
    assert node.alive() and task.stats()["success"]
    before = {r["id"]: r["scheduled_at"] for r in task.runs(state="SUCCESS")}
    epochs = dict(sqlite_rows(node.store_url.partition(":")[2], "SELECT id, epoch FROM shard"))
    node.stop()
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "secret.key").write_bytes((folder / "secret.key").read_bytes())
    (damaged / "kelou.db").write_bytes(os.urandom(100_000))
    keloud(node, "--restore", damaged, check=1)
    keloud(node, "--restore", tmp_path / "none", check=1)
    assert sqlite_rows(node.store_url.partition(":")[2], "SELECT count(*) FROM task")[0][0] == 2  # as it was
    keloud(node, "--restore", folder, check=0)
    path = node.store_url.partition(":")[2]
    for table in ("shard", "shard_finish"):
        raised = dict(sqlite_rows(path, f"SELECT id, epoch FROM {table}"))
        assert all(raised[i] >= e - 5 + STEP for i, e in epochs.items())
    assert sqlite_rows(path + ".before-restore", "SELECT count(*) FROM task")[0][0] == 2
    node.start()
    assert scene.api.get(late.path).status_code == 404
    made = scene.task("made-after")
    assert int(made.id) > STEP  # never an id that the lost time gave out
    # what the lost time fired, and what it missed, is fired again, under the same ids; the secret still signs
    wait_for(lambda: before.keys() <= {r["id"] for r in task.runs()} and task.stats()["success"] > len(before), 30, "every instant has its run")
    assert executor.deliveries
    scene.done()


def test_a_backup_is_of_one_instant(sqlite_node, tmp_path):
    """Every copied run is open or ended, never both; the watermark is that of the runs."""
    node = sqlite_node
    scene = Scene(node, tmp_path)
    scene.executor(slots=500)
    task = scene.every("10ms", overlap_policy="ALLOW")
    wait_for(lambda: task.stats()["success"] >= 10, 20, "it fires")
    threads = [threading.Thread(target=keloud, args=(node, "--backup", tmp_path / f"b{i}"), kwargs={"check": 0}) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for i in range(4):
        path = tmp_path / f"b{i}" / "kelou.db"
        assert not os.path.exists(f"{path}-wal")
        runs = sorted(r[0] for r in sqlite_rows(path, "SELECT scheduled_at FROM run UNION ALL SELECT scheduled_at FROM run_history"))
        assert len(runs) == len(set(runs)) and {b - a for a, b in zip(runs, runs[1:])} == {10_000}
        assert sqlite_rows(path, "PRAGMA integrity_check") == [("ok",)]
    scene.done()


def test_dump_and_after_restore(make_node, postgres_server, tmp_path, store):
    if store != "postgres":
        pytest.skip("PostgreSQL only")
    node = make_node(url=postgres_server.create_database()).start()
    scene = Scene(node, tmp_path)
    scene.executor(slots=200)
    task = scene.every("50ms", overlap_policy="ALLOW")
    wait_for(lambda: task.stats()["success"] >= 10, 20, "it fires")
    for command in (("--backup", tmp_path / "x"), ("--restore", tmp_path / "x")):
        assert "its own tools" in keloud(node, *command, check=1).stderr
    dump = tmp_path / "dump"
    subprocess.run([f"{postgres_server.bin}/pg_dump", "-Fc", "-f", dump, node.store_url], check=True, capture_output=True)
    assert "alive" in keloud(node, "--after-restore", check=1).stderr
    wait_for(lambda: task.stats()["success"] >= 30, 20, "it goes on firing")
    before = {r["id"] for r in task.runs(state="SUCCESS")}
    node.stop()
    old, new = node.store_url, postgres_server.create_database()
    subprocess.run([f"{postgres_server.bin}/pg_restore", "--no-owner", "-d", new, dump], check=True, capture_output=True)
    node.settings["store.url"] = node.store_url = new
    epochs = [int(e) for e in postgres_server.psql("SELECT epoch FROM shard ORDER BY id", old.rpartition("/")[2]).split()]
    # the node's lease came with the dump: it looks alive until that has passed
    wait_for(lambda: keloud(node, "--after-restore").returncode == 0, 20, "the restored lease has passed", every=0.3)
    for table in ("shard", "shard_finish"):
        raised = [int(e) for e in postgres_server.psql(f"SELECT epoch FROM {table} ORDER BY id", new.rpartition("/")[2]).split()]
        assert len(raised) == len(epochs) and all(n > o for n, o in zip(raised, epochs))
    node.start()
    assert int(scene.task("made-after").id) > STEP
    wait_for(lambda: before <= {r["id"] for r in task.runs()}, 30, "every instant has its run")
    scene.done()
