"""`kelou` as people and scripts use it: every noun, every form, every exit code. The centre is on SQLite: the tool knows no store."""
import json
import os
import pty
import re
import socket
import subprocess
import threading

import pytest

from tests.harness.fake_executor import Accept, Done, Hang
from tests.harness.kelou import binary, run_cli, wait_for
from tests.harness.servers import free_port


@pytest.fixture
def store_url(tmp_path):
    """Once, not on each store."""
    return f"sqlite:{tmp_path}/node/kelou.db"


def task(name="a", **more):
    return {"name": name, "schedule": {"kind": "MANUAL"}, "executor_group": "sample", "handler": "h", **more}


class Cli:
    """kelou against one node as the administrator."""

    def __init__(self, node):
        self.node = node

    def __call__(self, *arguments, code=0, document=None, **more):
        """Run it; the code must be `code`. What it wrote on standard output, or for a failure on standard error (one line)."""
        stdin = json.dumps(document) if document is not None else more.pop("stdin", None)
        got = self.node.cli(*arguments, stdin=stdin, check=code, **more)
        if code == 0:
            return got.stdout
        lines = got.stderr.splitlines()
        assert len(lines) == 1 and lines[0].startswith("kelou: "), got.stderr
        return lines[0][len("kelou: "):]

    def json(self, *arguments, **more):
        return json.loads(self(*arguments, "-o", "json", **more))

    def create(self, name="a", **more):
        return self.json("task", "create", "-f", "-", document=task(name, **more))


@pytest.fixture
def cli(node):
    return Cli(node)


def rows(table):
    """The table as lists of cells, the header first."""
    return [re.split(r" {2,}", line.rstrip()) for line in table.splitlines()]


# ---------------------------------------------------------------- help

@pytest.mark.parametrize("command", ["task create", "task preview", "alert channel create"])
def test_the_example_in_the_help_works(cli, tmp_path, command):
    _, _, shown = cli(*command.split(), "--help").partition("Example:\n  $ kelou ")
    call, *lines = shown.partition("\n\n")[0].splitlines()
    *words, file = call.split()
    (tmp_path / file).write_text("".join(line.removeprefix("  ") + "\n" for line in lines))
    cli("group", "create", "sample")
    assert words[:len(command.split())] == command.split() and lines
    cli(*words, str(tmp_path / file))


# ---------------------------------------------------------------- the nouns

def test_a_task_from_its_making_to_its_end(cli, group, tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps(task(schedule={"kind": "CRON", "expression": "0 0 9 * * ?"}, payload={"x": 1})))
    assert rows(cli("task", "create", "-f", file))[0] == ["ID", "NAME", "STATE", "SCHEDULE_TEXT", "NEXT_AT"]
    made = cli.json("task", "get", "a")
    assert made["payload"] == {"x": 1} and made["version"] == 1
    assert rows(cli("task", "list"))[1][:3] == [made["id"], "a", "ENABLED"]
    assert cli("task", "list", "-o", "name") == "default/a\n"
    assert cli.json("task", "get", made["id"]) == cli.json("task", "get", "default/a") == made
    shown = dict(r for r in rows(cli("task", "get", "a")) if len(r) == 2)
    assert shown["SCHEDULE.EXPRESSION"] == "0 0 9 * * ?" and shown["PAYLOAD"] == '{"x":1}' and shown["STATE"] == "ENABLED"
    assert rows(cli("task", "pause", "a"))[1][2] == "PAUSED"
    assert cli("task", "list", "--state", "paused", "-o", "name") == "default/a\n"
    assert rows(cli("task", "resume", "a", "--catch-up"))[1][2] == "ENABLED"
    assert cli.json("task", "patch", "a", "--patch", '{"priority": 9, "payload": null}', "--note", "why")["note"] == "why"
    changed = {**cli.json("task", "get", "a"), "description": "new"}
    assert cli.json("task", "update", "a", "-f", "-", document=changed)["description"] == "new"
    versions = cli.json("task", "versions", "a")["items"]
    assert [v["version"] for v in versions] == list(range(len(versions), 0, -1))
    assert cli.json("task", "get", "a", "--version", "1")["version"] == 1
    nexts = rows(cli("task", "next", "a", "-n", "3"))
    assert nexts[0] == ["AT", "LOCAL", "NOTE", "CALENDAR"] and len(nexts) == 4 and all(n[0].endswith("T09:00:00Z") for n in nexts[1:])
    assert cli.json("task", "stats", "a")["fires"] == 0
    assert cli("task", "delete", "a") == ""
    assert cli.json("task", "list") == {"items": [], "next_cursor": None}


def test_a_preview_stores_nothing(cli, group, tmp_path):
    schedule = {"kind": "CRON", "expression": "0 0 9 * * ?", "timezone": "Asia/Tokyo"}
    asks = [task(schedule=schedule), schedule, {"schedule": schedule}]
    answers = [cli("task", "preview", "-f", "-", "--from", "2027-01-01T00:00:00Z", "-n", "2", "-o", "name", document=ask) for ask in asks]
    assert answers == ["2027-01-02T00:00:00Z\n2027-01-03T00:00:00Z\n"] * 3
    assert cli("task", "list", "-o", "name") == ""


def test_runs(cli, executor):
    executor.answer(Done({"n": 1}))
    cli.create()
    run = cli.json("task", "trigger", "a", "--payload", '{"own": 1}', "--wait")
    assert run["state"] == "SUCCESS" and run["result"] == {"n": 1} and run["payload"] == {"own": 1}
    made = cli("task", "trigger", "a", "-o", "name").strip()
    assert rows(cli("run", "wait", made))[0] == ["ID", made]
    assert set(cli("run", "list", "--task", "a", "--state", "success,fail", "--since", "1h", "-o", "name").split()) == {run["id"], made}
    assert cli("run", "list", "--until", "1h", "-o", "name") == ""
    table = rows(cli("run", "list"))
    assert table[0] == ["ID", "TASK", "STATE", "REASON", "SCHEDULED_AT", "ATTEMPT", "EXECUTOR"] and table[1][0] == made
    assert table[1][2] == "SUCCESS" and table[1][-1] == executor.name
    again = cli.json("run", "retry", made)
    assert again["retry_of"] == made
    assert cli.json("run", "wait", again["run_id"])["retry_of"] == made
    assert cli.json("task", "stats", "a", "--since", "1970-01-01T00:00:00Z")["success"] == 3
    assert cli.json("run", "list", "--executor", executor.name, "--limit", "2")["next_cursor"]


def test_a_run_can_be_cancelled(cli, executor):
    executor.answer(Accept(report=None))
    cli.create(cancel_timeout="100ms")
    made = cli("task", "trigger", "a", "-o", "name").strip()
    wait_for(lambda: cli("run", "list", "--state", "running", "-o", "name"), what="the run to run")
    assert rows(cli("run", "cancel", made))[1][0] == made
    assert cli("run", "wait", made, code=6) == f"run {made} ended in CANCELLED"


def test_groups_executors_tokens_namespaces(cli, node, tmp_path):
    assert cli("namespace", "create", "东京", "-o", "name") == "东京\n"
    assert cli("namespace", "list", "-o", "name").split() == ["default", "东京"]
    made = cli.json("group", "create", "g", "--namespace", "东京", "--routing", "least_busy", "--max-connections", "3")
    assert made["secret"] and (made["routing"], made["max_connections"], made["namespace"]) == ("LEAST_BUSY", 3, "东京")
    assert cli("group", "list", "--namespace", "东京", "-o", "name") == "东京/g\n"
    assert "secret" not in cli.json("group", "get", "东京/g")
    assert cli.json("group", "update", "g", "--namespace", "东京", "--routing", "round_robin", "--version", "1")["version"] == 2
    rotated = cli.json("group", "rotate-secret", "东京/g")
    assert rotated["secret"] != made["secret"]
    assert "secret" not in cli.json("group", "retire-secret", "东京/g")
    token = cli.json("token", "create", "--name", "t", "--role", "executor", "--namespace", "东京", "--group", "g", "--expires", "90d")
    assert token["token"] and token["expires_at"] > token["created_at"]
    assert dict(rows(cli("token", "create", "--name", "v", "--role", "viewer")))["TOKEN"]
    executor_api = node.api(token["token"])
    executor_api.ok("POST", "/executors/register", {"id": "e-1", "url": "http://127.0.0.1:9", "handlers": ["h"]})
    here = ["--namespace", "东京", "--group", "g"]
    assert rows(cli("executor", "list", *here))[1][:3] == ["e-1", "g", "ONLINE"]
    assert cli.json("executor", "get", "e-1", *here)["handlers"] == ["h"]
    assert rows(cli("executor", "list", *here))[0][:4] == ["ID", "GROUP", "STATE", "BREAKER"] and rows(cli("executor", "list", *here))[1][3] == "CLOSED"
    assert cli.json("executor", "update", "e-1", "--weight", "5", *here)["weight"] == 5
    assert cli("executor", "update", "e-1", "--weight", "1001", *here, code=2).startswith("--weight: ")
    assert cli.json("executor", "drain", "e-1", *here)["state"] == "DRAINING"
    assert cli.json("executor", "resume", "e-1", *here)["state"] == "ONLINE"
    assert cli("executor", "deregister", "e-1", *here) == ""
    assert cli("token", "delete", token["id"]) == ""
    assert [t["name"] for t in cli.json("token", "list")["items"]] == ["bootstrap", "v"]
    assert cli("group", "delete", "东京/g") == ""


def test_names_in_a_namespace(cli, group):
    cli("namespace", "create", "other")
    cli("group", "create", "sample", "--namespace", "other")
    assert cli.json("task", "create", "-f", "-", "--namespace", "other", document=task())["namespace"] == "other"
    assert cli("task", "get", "a", "--namespace", "other", "-o", "name") == "other/a\n"
    assert cli("task", "list", "--namespace", "other", "-o", "name") == "other/a\n"
    cli("task", "get", "a", code=3)
    assert cli("task", "list", "--namespace", "default", "-o", "name") == ""


def test_without_a_server():
    assert re.fullmatch(r"kelou \d+\.\d+\.\d+\n", run_cli("version", check=0).stdout)
    for option in ("--version", "-V"):
        assert run_cli(option, check=0).stdout == run_cli("version", check=0).stdout
        assert "more" in run_cli(option, "more", check=2).stderr
    assert run_cli("fsm", "show", check=0).stdout.startswith("stateDiagram-v2\n")
    moves = json.loads(run_cli("fsm", "show", "-o", "json", check=0).stdout)
    assert len(rows(run_cli("fsm", "show", "-o", "table", check=0).stdout)) == len(moves) + 1
    assert run_cli("cron", "explain", "0 0 9 * * ?", "--lang", "zh", check=0).stdout == "每天 09:00（UTC）\n"
    assert run_cli("--lang", "zh", "cron", "explain", "0 0 9 * * ?", check=0).stdout == "每天 09:00（UTC）\n"


# ---------------------------------------------------------------- forms

def test_forms(cli, group):
    made = cli.create(payload={"text": "no", "list": [1, [], {}]})
    yaml = cli("task", "get", "a", "-o", "yaml")
    assert 'text: "no"' in yaml and "handler: h" in yaml
    wide = rows(cli("task", "list", "-o", "wide"))
    assert len(wide[0]) > 5 and wide[1][0] == made["id"]
    file = json.loads(cli("task", "get", "a", "-o", "json"))
    assert file == made
    assert cli.json("task", "list")["items"][0]["id"] == made["id"]


def test_yaml_goes_round(cli, group, tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("name: a\nexecutor_group: sample\nhandler: h   # a remark\n"
                    "schedule:\n  kind: CRON\n  expression: 0 30 9 ? * MON-FRI\npayload: {answer: no, n: 1.5}\n")
    assert cli.json("task", "create", "-f", file)["payload"] == {"answer": "no", "n": 1.5}
    file.write_text(cli("task", "get", "a", "-o", "yaml"))
    assert cli.json("task", "update", "a", "-f", file)["version"] in (1, 2)
    file.write_text("a: &x 1\n")
    assert cli("task", "create", "-f", file, code=2) == f"{file}: line 1, column 4: anchors and aliases are not allowed here"


def test_lists_go_over_pages(cli, api, group):
    for first in range(0, 1200, 600):
        api.ok("POST", "/tasks/batch", {"tasks": [task(f"t{i}") for i in range(first, first + 600)]})
    got = cli.node.cli("task", "list", check=0)
    assert len(got.stdout.splitlines()) == 101 and "more than these 100" in got.stderr
    for limit in (1, 1000, 1150):
        got = cli.node.cli("task", "list", "--limit", str(limit), "-o", "name", check=0)
        assert len(set(got.stdout.splitlines())) == limit and got.stderr == ""
    page = cli.json("task", "list", "--limit", "1150")
    assert len(cli.json("task", "list", "--cursor", page["next_cursor"], "--all")["items"]) == 50
    assert len(set(cli("task", "list", "--all", "-o", "name").split())) == 1200
    assert cli("task", "list", "--prefix", "t119", "--limit", "0", code=2).startswith("--limit: ")
    assert len(cli("task", "list", "--prefix", "t119", "-o", "name").split()) == 11


def test_both_languages(cli, group, monkeypatch):
    assert "名称" in cli("task", "list", "--lang", "zh")
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert "名称" in cli("task", "list")
    assert cli("task", "get", code=2) == "缺少 TASK；见 --help"
    monkeypatch.setenv("KELOU_LANG", "en")
    assert "NAME" in cli("task", "list")
    for nouns in ([], ["task"], ["task", "create"], ["cron"]):
        assert run_cli("help", *nouns, check=0).stdout
    assert run_cli("task", "create", "--help", "--lang", "zh", check=0).stdout.startswith("用法：kelou task create")
    assert run_cli(check=2).stdout == ""


def on_terminal(arguments, **environment):
    """What a program shows on a terminal, and its code."""
    master, slave = pty.openpty()
    env = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave, env={**env, "TERM": "xterm", **environment})
    os.close(slave)
    shown = b""
    try:
        while part := os.read(master, 65536):
            shown += part
    except OSError:  # its other end is closed
        pass
    os.close(master)
    return shown.decode(), process.wait(30)


def test_colours_and_progress_only_on_a_terminal(cli, node, executor):
    executor.answer(Accept(delay=0.3))
    cli.create()
    options = [binary("kelou"), "--server", node.base_url, "--token-file", f"{node.folder}/admin.token"]
    shown, code = on_terminal([*options, "task", "trigger", "a", "--wait"])
    assert code == 0 and "\033[32mSUCCESS\033[0m" in shown and re.search(r"kelou: run \w+: (PENDING|RUNNING)", shown)
    assert "\033" not in on_terminal([*options, "run", "list"], NO_COLOR="1")[0]
    assert "\033[32mSUCCESS" in on_terminal([*options, "run", "list"])[0]
    got = cli.node.cli("task", "trigger", "a", "--wait", check=0)
    assert "\033" not in got.stdout and got.stderr == ""


def test_what_executors_write_does_not_steer_a_terminal(cli, executor):
    executor.answer(Done(state="FAIL", error={"type": "T", "message": "a\033[2J\u202eb"}))
    cli.create()
    got = cli.node.cli("task", "trigger", "a", "--wait", check=6)
    assert "a\\u001b[2J\\u202eb" in got.stdout and "\033" not in got.stdout


# ---------------------------------------------------------------- what goes wrong

def test_usage_is_2(cli, group, tmp_path):
    bad = tmp_path / "bad.json"
    bad.write_text('{"name": "a",\n oops}')
    cases = [
        (["tsk"], 'there is no "tsk"; did you mean "task"?'), (["task", "get"], "expected TASK; see --help"),
        (["task", "list", "--stat", "x"], "--stat is not an option here; did you mean --state?"),
        (["run", "list", "--state", "foo"], "--state: expected one of: PENDING, RUNNING"), (["task", "create"], "nothing to send: give -f"),
        (["run", "list", "--since", "never"], "--since:1: expected an instant"), (["task", "create", "-f", bad], f"{bad}: line 2"),
        (["task", "trigger", "a", "--payload", "{"], "--payload: line 1"), (["group", "create", " a"], "/name: "),
        (["group", "create", "g", "--max-connections", "many"], "--max-connections: expected a whole number"),
        (["token", "create", "--name", "x", "--role", "king"], "--role: expected one of: VIEWER"),
        (["--server", "ftp://x", "task", "list"], ""), (["task", "list", "--token-file", bad], "")]
    for arguments, want in cases:
        if arguments[0] == "--server" or "--token-file" in arguments:
            got = run_cli(*arguments, check=2)
            assert got.stdout == "" and len(got.stderr.splitlines()) == 1
        else:
            assert cli(*arguments, code=2).startswith(want), arguments
    assert cli("task", "create", "-f", "-", code=2, document=task(schedule={"kind": "CRON", "expression": "0 0 99 * * ?"})) == \
        '/schedule/expression:5: hour: expected 0 to 23, not "99"'
    assert cli("task", "list", "-o", "name") == ""


def test_failure_is_1(cli, tmp_path):
    assert cli("task", "create", "-f", tmp_path / "none", code=1) == f"{tmp_path}/none: No such file or directory"
    full = subprocess.run([binary("kelou"), "fsm", "show"], stdout=open("/dev/full", "w"), stderr=subprocess.PIPE, text=True, check=False)
    assert full.returncode == 1 and full.stderr == "kelou: standard output cannot be written\n"


def test_not_found_is_3(cli, group):
    for arguments in (["task", "get", "a"], ["task", "delete", "9"], ["run", "get", "x"], ["group", "get", "x"], ["executor", "get", "x"],
                      ["token", "delete", "99"], ["task", "trigger", "a", "--wait"], ["run", "list", "--task", "a"]):
        cli(*arguments, code=3)


def test_not_allowed_is_4(cli, node, tmp_path, monkeypatch):
    viewer = cli.json("token", "create", "--name", "v", "--role", "viewer")["token"]
    file = tmp_path / "token"
    file.write_text(viewer + "\n")
    assert run_cli("--server", node.base_url, "--token-file", file, "task", "list", check=0)
    assert run_cli("--server", node.base_url, "--token-file", file, "token", "list", check=4).stderr.count("\n") == 1
    none = run_cli("--server", node.base_url, "task", "list", check=4).stderr
    assert all(word in none for word in ("no token", "--token-file", "KELOU_TOKEN")) and "Bearer" not in none
    assert "令牌" in run_cli("--lang", "zh", "--server", node.base_url, "task", "list", check=4).stderr
    monkeypatch.setenv("KELOU_TOKEN", "klt_wrong")
    assert "no token:" not in run_cli("--server", node.base_url, "task", "list", check=4).stderr
    monkeypatch.setenv("KELOU_SERVER", node.base_url)
    monkeypatch.setenv("KELOU_TOKEN", viewer)
    run_cli("task", "list", check=0)
    monkeypatch.delenv("KELOU_TOKEN")
    monkeypatch.setenv("KELOU_TOKEN_FILE", str(file))
    run_cli("task", "list", check=0)


def test_conflict_is_5(cli, group):
    cli.create()
    assert "--version" not in cli("task", "create", "-f", "-", code=5, document=task())
    cli("task", "pause", "a", "--version", "7", code=5)
    cli("task", "update", "a", "-f", "-", code=5, document={**task(), "version": 7})
    cli("task", "update", "a", "-f", "-", "--version", "7", code=5, document=task())
    assert cli.json("task", "update", "a", "-f", "-", document=task(priority=1))["priority"] == 1
    cli("group", "delete", "sample", code=5)


def test_the_run_that_failed_is_6(cli, executor):
    executor.answer(Done(state="FAIL", error={"type": "Boom", "message": "it broke"}))
    cli.create()
    got = cli.node.cli("task", "trigger", "a", "--wait", check=6)
    assert "it broke" in got.stdout and re.fullmatch(r"kelou: run \w+ ended in FAIL\n", got.stderr)


def test_time_that_is_up_is_7(cli, executor):
    executor.answer(Hang())
    cli.create()
    assert "has not ended within 200ms" in cli("task", "trigger", "a", "--wait", "--timeout", "200ms", code=7)
    made = cli("task", "trigger", "a", "-o", "name").strip()
    assert cli("run", "wait", made, "--timeout", "100ms", code=7)
    executor.answer(Done())


class Listener:
    """A server that is none: takes one connection, reads, answers `reply` (None: never) and closes."""

    def __init__(self, reply):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.reply, self.done, self.request = reply, threading.Event(), b""
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        connection, _ = self.socket.accept()
        with connection:
            self.request = connection.recv(65536)
            if self.reply is None:
                self.done.wait(60)
            else:
                connection.sendall(self.reply)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join(10)
        self.socket.close()


def test_a_mute_server_is_7():
    with Listener(None) as server:
        got = run_cli("--server", server.url, "task", "list", "--timeout", "200ms", check=7)
    assert got.stderr == f"kelou: {server.url}: no answer within 200ms\n"


def test_unreachable_is_8():
    got = run_cli("--server", f"http://127.0.0.1:{free_port()}", "task", "list", check=8)
    assert len(got.stderr.splitlines()) == 1 and got.stdout == ""
    run_cli("--server", "http://no-such-host.invalid", "task", "list", check=8)


def test_a_lost_answer_says_how_to_repeat_it(cli, group):
    cli.create()
    with Listener(b"") as server:
        got = run_cli("--server", server.url, "task", "trigger", "a", check=8)
    key = re.search(r"--idempotency-key (\S+)\n", got.stderr).group(1)
    assert f"Idempotency-Key: {key}".encode() in server.request
    first = cli("task", "trigger", "a", "--idempotency-key", key, "-o", "name")
    assert cli("task", "trigger", "a", "--idempotency-key", key, "-o", "name") == first
    assert cli("task", "trigger", "a", "--idempotency-key", key, "--payload", "1", code=5)


def test_somebody_elses_answers(cli):
    for reply in (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n<htm>", b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
                  b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 2\r\n\r\n{}", b"HTTP/1.1 500 x\r\nContent-Length: 2\r\n\r\n{}"):
        with Listener(reply) as server:
            got = run_cli("--server", server.url, "task", "list", check=1)
        assert "is not Kelou's" in got.stderr and got.stdout == ""
