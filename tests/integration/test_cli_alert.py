"""kelou alert and kelou doctor, as people type them."""
import json
import os
import socket
import subprocess

import pytest

from tests.harness.fake_executor import Done
from tests.harness.kelou import binary, run_cli, wait_for
from tests.harness.webhook import Webhook

QUICK = {"alert.allowed_networks": "loopback", "alert.poll": "50ms", "alert.retry_first": "100ms"}


@pytest.fixture
def node(make_node):
    return make_node(settings=QUICK).start()


def test_from_nothing_to_an_alert(node, api, executor):
    executor.answer(Done(state="FAIL", error={"type": "E", "message": "boom"}))
    api.ok("POST", "/tasks", {"name": "job", "executor_group": "sample", "handler": "h", "schedule": {"kind": "MANUAL"},
                              "retry": {"max_attempts": 1}})
    with Webhook() as hook:
        made = json.loads(node.cli("alert", "channel", "create", "ops", "--url", hook.url, "-o", "json", check=0).stdout)
        tested = node.cli("alert", "channel", "test", "ops", check=0).stdout
        assert "DELIVERED  true" in tested and hook.wait(1)[0].signed_by(made["secret"])
        rule = json.loads(node.cli("alert", "rule", "create", "failures", "--channels", "ops", "--tasks", "job,other", "--reasons",
                                   "error,timeout", "--window", "0s", "-o", "json", check=0).stdout)
        assert rule["tasks"] == ["job", "other"] and rule["reasons"] == ["ERROR", "TIMEOUT"] and rule["channels"] == ["ops"]
        node.cli("task", "trigger", "job", "--wait", check=6)
        assert hook.wait(2)[1].message["task"]["name"] == "job"
        wait_for(lambda: "DELIVERED" in node.cli("alert", "list", check=0).stdout)
        listed = node.cli("alert", "list", "--task", "job", "--rule", "failures", "--channel", "ops", "--state", "delivered", "-o",
                          "name", check=0).stdout.split()
        assert len(listed) == 1
        shown = node.cli("alert", "get", listed[0], check=0).stdout
        assert "DETAILS" in shown and "LOG.1.STATUS" in shown and "boom" in shown
        node.cli("alert", "redeliver", listed[0], check=0)
        assert hook.wait(3)[2].alert_id == listed[0]
    assert "ops" in node.cli("alert", "channel", "list", check=0).stdout
    node.cli("alert", "channel", "delete", "ops", check=5)
    assert "false" in node.cli("alert", "rule", "update", "failures", "--patch", '{"enabled": false}', check=0).stdout
    node.cli("alert", "rule", "delete", "failures", check=0)
    node.cli("alert", "channel", "delete", "ops", check=0)
    node.cli("alert", "channel", "get", "ops", check=3)


def test_mistakes(node):
    for words, code in ((["alert"], 2), (["alert", "channel"], 2), (["alert", "channel", "paint"], 2), (["alert", "paint"], 2),
                        (["alert", "channel", "create", "x"], 2), (["alert", "channel", "create", "x", "--url", "ftp://x"], 2),
                        (["alert", "rule", "create", "x", "--channels", "none"], 3), (["alert", "get", "1"], 3),
                        (["alert", "rule", "create", "x", "--channels", "none", "--window", "x"], 2)):
        node.cli(*words, check=code)
    assert "--url" in node.cli("alert", "channel", "create", "x", "--url", "ftp://x").stderr


def test_doctor(node, executor):
    got = node.cli("doctor", check=0)
    assert "OK    store: " in got.stdout and "OK    executors: 1 online" in got.stdout and not got.stderr
    assert "个在线" in node.cli("doctor", "--lang", "zh", check=0).stdout
    document = json.loads(node.cli("doctor", "-o", "json", check=0).stdout)
    assert document["level"] in ("OK", "WARN") and {f["check"] for f in document["findings"]} >= {"node", "store", "clock", "disk"}


def test_doctor_finds_a_failure(node, api, group):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    node.api(group.token).ok("POST", "/executors/register", {"id": "ghost", "url": f"http://127.0.0.1:{port}", "handlers": ["*"]})
    got = node.cli("doctor", check=1)
    assert "FAIL  executors: sample/ghost" in got.stdout and "→ check the URL" in got.stdout
    viewer = api.ok("POST", "/tokens", {"name": "v", "role": "VIEWER"})["token"]
    path = os.path.join(node.folder, "viewer.token")
    with open(path, "w", encoding="utf-8") as f:
        f.write(viewer)
    got = run_cli("--server", node.base_url, "--token-file", path, "doctor", check=1)
    assert "FAIL  token: " in got.stdout and "ADMIN" in got.stdout


def test_doctor_without_a_server(tmp_path):
    """keloud looks for itself, at the settings that are named."""
    settings = tmp_path / "kelou.yaml"
    settings.write_text(f"node:\n  state_dir: {tmp_path}/state\nstore:\n  url: sqlite:{tmp_path}/state/kelou.db\n"
                        "http:\n  listen: 127.0.0.1:0\n", encoding="utf-8")
    got = run_cli("--server", "http://127.0.0.1:1", "--token-file", "/dev/null", "doctor", "--config", str(settings))
    if got.returncode == 2:  # an empty token file is no token
        got = subprocess.run([binary("kelou"), "--server", "http://127.0.0.1:1", "doctor", "--config", str(settings)], text=True,
                             capture_output=True, timeout=60, check=False,
                             env={**{k: v for k, v in os.environ.items() if not k.startswith("KELOU_TOKEN")}, "LC_ALL": "C"})
    assert got.returncode == 8 and "cannot be reached" in got.stderr and "OK    settings: " in got.stdout, got
    assert "there is no folder" in got.stdout
    settings.write_text("run:\n  queue: 5\n", encoding="utf-8")
    got = subprocess.run([binary("kelou"), "--server", "http://127.0.0.1:1", "doctor", "--config", str(settings)], text=True,
                         capture_output=True, timeout=60, check=False,
                         env={**{k: v for k, v in os.environ.items() if not k.startswith("KELOU_TOKEN")}, "LC_ALL": "C"})
    assert got.returncode == 1 and "FAIL  settings: " in got.stdout, got
