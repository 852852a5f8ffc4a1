"""keloud --doctor and GET /api/v1/doctor: what is wrong is found, and each finding says what to do."""
import os
import re
import socket
import subprocess

import pytest

from tests.harness.kelou import Keloud, binary, wait_for


@pytest.fixture(autouse=True)
def closed_folder(monkeypatch):
    """State folders as keloud makes them."""
    made = os.makedirs
    monkeypatch.setattr("tests.harness.kelou.os.makedirs", lambda path, **more: made(path, mode=0o700, **more))


def look(node, *more, environment=None):
    """keloud --doctor with a node's settings: (exit code, text)."""
    command = [binary("keloud"), "--doctor", *more]
    for key, value in node.settings.items():
        command += ["--set", f"{key}={value}"]
    got = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False,
                         env={**os.environ, "LC_ALL": "C", **(environment or {})})
    assert not got.stderr, got.stderr
    return got.returncode, got.stdout


def level_of(text, check):
    """The worst level of a check's lines."""
    levels = re.findall(rf"^(OK|WARN|FAIL) +{check}: ", text, re.M)
    return max(levels, key=["OK", "WARN", "FAIL"].index) if levels else None


def by_code(document):
    return {f["code"]: f for f in document["findings"]}


def test_before_the_first_start(make_node, store):
    code, text = look(make_node())
    assert code == 0, text
    assert level_of(text, "settings") == "OK" and level_of(text, "port") == "OK"
    assert level_of(text, "store") == "WARN", text  # not there yet, or without the schema
    assert level_of(text, "time_zones") == "OK" and level_of(text, "file_descriptors") == "OK"


def test_beside_a_running_node(node, store):
    code, text = look(node)
    if store == "sqlite":
        assert code == 0 and "some keloud has the database open" in text
    else:  # somebody listens: here it is that very node
        assert code == 1 and level_of(text, "port") == "FAIL"
    assert level_of(text, "store") == "OK" and level_of(text, "state_folder") == "OK"


def test_a_bad_setting(make_node):
    node = make_node(settings={"run.queue": "5"})
    code, text = look(node)
    assert code == 1 and level_of(text, "settings") == "FAIL" and "run.queue" in text and "--check-config" in text


def test_no_database(tmp_path):
    node = Keloud(tmp_path, "postgres://nobody@127.0.0.1:1/none")
    code, text = look(node)
    assert code == 1 and level_of(text, "store") == "FAIL" and "store.url" in text


@pytest.mark.parametrize("url", ["mysql://x", "postgres://nobody@127.0.0.1:1/none", "sqlite:/nowhere/at/all/x.db"])
def test_a_start_without_a_database_names_the_setting(tmp_path, url):
    got = subprocess.run([binary("keloud"), "--set", f"store.url={url}", "--set", f"node.state_dir={tmp_path}/state",
                          "--set", "http.listen=127.0.0.1:0"], capture_output=True, text=True, timeout=60, check=False)
    assert got.returncode == 1 and re.search(r"cannot start.*field=.?store\.url", got.stderr + got.stdout), got.stderr


def test_a_schema_of_tomorrow(make_node, store, request):
    node = make_node().start()
    node.stop()
    if store == "sqlite":
        import sqlite3
        with sqlite3.connect(node.store_url.partition(":")[2]) as db:
            db.execute("INSERT INTO schema_migration VALUES (99, 'x', 'x', 0)")
    else:
        import psycopg2
        with psycopg2.connect(node.store_url) as db, db.cursor() as cursor:
            cursor.execute("INSERT INTO schema_migration VALUES (99, 'x', 'x', 0)")
    code, text = look(node)
    assert code == 1 and level_of(text, "store") == "FAIL" and "newer one" in text


def test_open_files(make_node):
    node = make_node().start()
    node.stop()
    os.chmod(os.path.join(node.folder, "secret.key"), 0o644)
    os.chmod(node.folder, 0o755)
    code, text = look(node)
    assert code == 1 and level_of(text, "state_folder") == "FAIL"
    assert "secret.key can be read by others (mode 0644)" in text and "chmod 600" in text and "chmod 700" in text


def test_a_taken_port(make_node):
    node = make_node()
    with socket.create_server(("127.0.0.1", node.port)):
        code, text = look(node)
    assert code == 1 and level_of(text, "port") == "FAIL" and "ss -ltnp" in text


@pytest.mark.parametrize("setting,check,level", [("trigger.zone_dir=/nowhere", "time_zones", "FAIL"),
                                                 ("http.max_connections=100000", "file_descriptors", None),
                                                 ("http.listen=0.0.0.0:1", "settings", "WARN")])
def test_settings_that_do_not_fit_the_machine(tmp_path, setting, check, level):
    name, value = setting.split("=")
    node = Keloud(tmp_path, settings={name: value})
    _, text = look(node)
    assert level_of(text, check) == level or level is None, text


def test_it_speaks_chinese(tmp_path):
    node = Keloud(tmp_path, "postgres://nobody@127.0.0.1:1/none")
    assert "数据库无应答" in look(node, "--lang", "zh")[1]
    assert "数据库无应答" in look(node, environment={"KELOU_LANG": "zh_CN.UTF-8"})[1]


def test_the_server_is_asked(node, api, executor):
    found = api.ok("GET", "/doctor")
    codes = by_code(found)
    assert found["level"] == "OK", found
    assert {"node_running", "store_good", "clock_good", "zones_good", "folder_good", "executors_good", "alerts_good"} <= set(codes)
    assert all(f["message"] and ("advice" in f) == (f["level"] != "OK") for f in found["findings"])
    assert any("个在线" in f["message"] for f in api.ok("GET", "/doctor", params={"lang": "zh"})["findings"])
    api.problem("GET", "/doctor", status=400, params={"lang": "fr"})
    for role, status in (("OPERATOR", 403), ("VIEWER", 403)):
        node.api(api.ok("POST", "/tokens", {"name": role, "role": role})["token"]).problem("GET", "/doctor", status=status)


def test_tasks_that_nobody_can_do(node, api, executor):
    api.ok("POST", "/executor-groups", {"name": "idle"})
    base = {"handler": "echo", "schedule": {"kind": "MANUAL"}}
    api.ok("POST", "/tasks", {"name": "served", "executor_group": "sample", **base})
    assert "tasks_unserved" not in by_code(api.ok("GET", "/doctor"))
    for name, group in (("nobody", "idle"), ("nowhere", "no-such-group")):
        api.ok("POST", "/tasks", {"name": name, "executor_group": group, **base})
    found = by_code(api.ok("GET", "/doctor"))["tasks_unserved"]
    assert found["level"] == "WARN" and found["check"] == "tasks" and found["advice"]
    assert found["message"].endswith("for default/nobody, default/nowhere")
    for i in range(4):
        api.ok("POST", "/tasks", {"name": f"more-{i}", "executor_group": "idle", **base})
    message = by_code(api.ok("GET", "/doctor"))["tasks_unserved"]["message"]
    assert message.endswith("default/more-2, …") and "more-3" not in message and "served" not in message
    for name in ["nobody", "nowhere"] + [f"more-{i}" for i in range(4)]:
        api.ok("POST", f"/tasks/default%2F{name}/pause")
    assert "tasks_unserved" not in by_code(api.ok("GET", "/doctor"))


def test_executors_that_cannot_be_reached(make_node, tmp_path):
    from tests.harness.kelou import Group
    node = make_node(settings={"executor.lost_after": "2s"}).start()
    api, group = node.api(), Group(node)
    assert by_code(api.ok("GET", "/doctor"))["executors_none"]["level"] == "WARN"
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    node.api(group.token).ok("POST", "/executors/register", {"id": "ghost", "url": f"http://127.0.0.1:{port}", "handlers": ["*"]})
    found = api.ok("GET", "/doctor")
    ghost = by_code(found)["executor_unreachable"]
    assert found["level"] == "FAIL" and "sample/ghost" in ghost["message"] and str(port) in ghost["message"] and ghost["advice"]
    wait_for(lambda: "executor_lost" in by_code(api.ok("GET", "/doctor")), 15, "the executor is lost")
