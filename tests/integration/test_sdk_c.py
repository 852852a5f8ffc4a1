"""The sample executor of the C SDK with a real node: what docs/executors.md promises, black box."""
import hashlib
import hmac
import json
import os
import subprocess
import time

import pytest
import requests

from tests.harness.kelou import SampleExecutor, wait_for


def manual(name, handler, **more):
    return {"name": name, "schedule": {"kind": "MANUAL"}, "executor_group": "sample", "handler": handler, **more}


def run_in(api, run_id, *states, timeout=20):
    def look():
        answer = api.get(f"/runs/{run_id}")
        assert answer.ok and answer.json()["state"] in states, answer.text
        return answer.json()
    return wait_for(look, timeout, f"run {run_id} in {states}")


def start_run(api, handler, payload=None, name=None, **fields):
    """Create a task of its own and trigger it: the run's id."""
    start_run.count = getattr(start_run, "count", 0) + 1
    task = manual(name or f"{handler}-{start_run.count}", handler, **fields)
    if payload is not None:
        task["payload"] = payload
    made = api.ok("POST", "/tasks", task)
    return api.ok("POST", f"/tasks/{made['id']}/trigger", {}, status=202)["run_id"]


def journal(executor):
    try:
        with open(executor.journal, encoding="utf-8") as f:
            return [json.loads(line) for line in f.read().split("\n") if line.endswith("}")]
    except FileNotFoundError:
        return []


def events(executor, run_id):
    return [(e["event"], e["attempt"], e["state"]) for e in journal(executor) if e["run_id"] == run_id]


def online(api, name):
    return any(x["id"] == name and x["state"] == "ONLINE" for x in api.items("/executors"))


@pytest.fixture
def make_sample(node, api, group, tmp_path):
    """make_sample(name, *options) → a registered sample executor; all are ended after the test."""
    made = []

    def make(name="sample-1", *options, wait=True):
        executor = SampleExecutor(tmp_path / name, node, group, name, ("--heartbeat", "500ms", *options)).start()
        made.append(executor)
        if wait:
            wait_for(lambda: online(api, name), 20, f"{name} registered")
        return executor
    yield make
    for executor in made:
        alive = executor.alive()
        code = executor.stop()
        log = executor.log_text()
        assert "AddressSanitizer" not in log and "runtime error:" not in log, log[-6000:]
        assert not alive or code == 0, f"{code}: {log[-3000:]}"


@pytest.fixture
def sample(make_sample):
    return make_sample()


class Centre:
    """Speaks to an executor as the centre does, with the group's secret."""

    def __init__(self, executor, group):
        self.base, self.secret, self.session = f"http://127.0.0.1:{executor.port}", group.secret, requests.Session()
        self.session.trust_env = False

    def post(self, path, message, at=None, secret=None, signature=None):
        body = json.dumps(message).encode()
        at = int(time.time()) if at is None else at
        mac = hmac.new((secret or self.secret).encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
        headers = {"Content-Type": "application/json", "X-Kelou-Signature": signature or f"t={at},v1={mac}"}
        if signature == "":
            del headers["X-Kelou-Signature"]
        return self.session.post(self.base + "/kelou/v1/" + path, data=body, headers=headers, timeout=20)

    def run(self, run_id, attempt=1, fence=1, handler="echo", **more):
        return self.post("run", {"run_id": run_id, "attempt": attempt, "fence": fence, "handler": handler,
                                 "task_id": "1", "task_name": "by-hand", "namespace": "default", **more})

    def cancel(self, run_id, attempt=1, fence=1):
        return self.post("cancel", {"run_id": run_id, "attempt": attempt, "fence": fence})


@pytest.fixture
def centre(sample, group):
    return Centre(sample, group)


# with the centre


def test_a_run_succeeds_with_its_result(api, sample):
    run = run_in(api, start_run(api, "echo", {"a": [1, "ü", None]}), "SUCCESS")
    assert run["result"] == {"a": [1, "ü", None]} and run["executor"] == "sample-1" and run["attempt"] == 1
    assert events(sample, run["id"]) == [("start", 1, "RUNNING"), ("end", 1, "SUCCESS")]
    lines = wait_for(lambda: api.ok("GET", f"/runs/{run['id']}/logs")["items"], 10, "its line")  # the README's first task shows something
    assert len(lines) == 1 and lines[0]["text"].startswith("echo: {") and "ü" in lines[0]["text"]
    assert {e["executor"] for e in journal(sample)} == {"sample-1"}


def test_a_handler_on_the_pool_succeeds(api, sample):
    run = run_in(api, start_run(api, "sleep", {"ms": 10}), "SUCCESS")
    assert run["result"] == {"slept_ms": 10} and run["started_at"] <= run["finished_at"]


def test_a_failure_is_retried(api, sample):
    retry = {"max_attempts": 3, "initial_interval": "10ms"}
    run = run_in(api, start_run(api, "fail", {"message": "twice", "times": 2}, retry=retry), "SUCCESS")
    assert run["attempt"] == 3 and run["result"] == {"attempt": 3}
    assert [(a["state"], a["error"]["type"], a["error"]["message"]) for a in run["attempts"][:2]] == [("FAIL", "ASKED", "twice")] * 2
    assert [e for e in events(sample, run["id"]) if e[0] == "end"] == [("end", 1, "FAIL"), ("end", 2, "FAIL"), ("end", 3, "SUCCESS")]
    run = run_in(api, start_run(api, "fail", {"message": "for \"good\"\n\x01"}), "FAIL")
    assert run["error"]["message"] == "for \"good\"\n\x01" and run["reason"] == "ERROR"


def test_an_unknown_handler_is_refused(api, make_sample):
    make_sample("sample-1", "--handlers", "echo,sleep")
    listed = api.items("/executors")
    assert listed[0]["handlers"] == ["echo", "sleep"]


def test_weight_and_labels_are_registered(api, make_sample):
    make_sample("w", "--weight", "0", "--labels", '{"zone": "x"}')
    seen = api.ok("GET", "/executors/w")
    assert (seen["weight"], seen["labels"], seen["breaker"]) == (0, {"zone": "x"}, "CLOSED")
    make_sample("o", "--labels", '{"zone": "y"}')
    api.ok("PATCH", "/executors/o", {"weight": 7})
    run = run_in(api, start_run(api, "echo", executor_labels={"zone": "y"}), "SUCCESS")
    assert run["executor"] == "o"
    assert api.ok("GET", "/executors/o")["weight"] == 7


def test_answered_at_once(api, make_sample):
    sample = make_sample("sample-1", "--answer-inline")
    run = run_in(api, start_run(api, "echo", {"quick": True}), "SUCCESS")
    assert run["result"] == {"quick": True} and events(sample, run["id"]) == [("start", 1, "RUNNING"), ("end", 1, "SUCCESS")]


def test_cancel_reaches_the_handler(api, sample):
    run_id = start_run(api, "sleep", {"ms": 600000})
    wait_for(lambda: events(sample, run_id), 15, "started")
    api.ok("POST", f"/runs/{run_id}/cancel", {})
    run_in(api, run_id, "CANCELLED")
    wait_for(lambda: events(sample, run_id)[1:] == [("end", 1, "CANCELLED")], 15, "ended here too")


def test_an_attempt_that_takes_too_long_is_told_to_stop(api, sample):
    run_id = start_run(api, "sleep", {"ms": 600000}, attempt_timeout="300ms")
    run = run_in(api, run_id, "FAIL")
    assert run["reason"] == "TIMEOUT"
    wait_for(lambda: len(events(sample, run_id)) == 2, 15, "the handler was stopped")


def test_progress_is_reported(api, sample):
    run_id = start_run(api, "sleep", {"ms": 600000, "steps": 600})
    wait_for(lambda: api.ok("GET", f"/runs/{run_id}")["state"] == "RUNNING"
             and api.ok("GET", f"/runs/{run_id}").get("progress", 0) > 0, 20, "progress")
    api.ok("POST", f"/runs/{run_id}/cancel", {})
    run_in(api, run_id, "CANCELLED")


def test_a_killed_executor_s_run_goes_to_another(api, make_sample):
    first = make_sample("sample-1")
    run_id = start_run(api, "sleep", {"ms": 1500}, retry={"max_attempts": 3, "initial_interval": "10ms"})
    wait_for(lambda: events(first, run_id), 15, "started at the first")
    second = make_sample("sample-2")
    first.kill()
    make_sample("sample-1b")  # the group goes on whatever the first one's port does
    api.ok("POST", "/executors/sample-1/deregister", {})
    run = run_in(api, run_id, "SUCCESS", timeout=40)
    assert run["attempt"] == 2 and run["executor"] in ("sample-2", "sample-1b")
    assert events(first, run_id) == [("start", 1, "RUNNING")]
    assert second.alive()


def test_a_restart_under_the_same_name_loses_nothing(api, make_sample):
    executor = make_sample("sample-1")
    run_id = start_run(api, "sleep", {"ms": 700}, retry={"max_attempts": 3, "initial_interval": "10ms"})
    wait_for(lambda: events(executor, run_id), 15, "started")
    executor.kill()
    executor.start()
    run = run_in(api, run_id, "SUCCESS", timeout=40)
    assert run["attempt"] == 2
    assert events(executor, run_id)[-1] == ("end", 2, "SUCCESS")


def test_drain_finishes_reports_and_deregisters(api, make_sample):
    executor = make_sample("sample-1")
    run_id = start_run(api, "sleep", {"ms": 1000})
    wait_for(lambda: events(executor, run_id), 15, "started")
    assert executor.stop() == 0
    assert run_in(api, run_id, "SUCCESS")["attempt"] == 1
    assert [x["state"] for x in api.items("/executors")] == ["OFFLINE"]


def test_stop_during_drain_leaves_the_run_to_others(api, make_sample):
    executor = make_sample("sample-1", "--grace", "0s")
    run_id = start_run(api, "sleep", {"ms": 600000}, retry={"max_attempts": 2, "initial_interval": "10ms"})
    wait_for(lambda: events(executor, run_id), 15, "started")
    assert executor.stop() == 1
    assert events(executor, run_id)[-1] == ("end", 1, "STOPPED")
    other = make_sample("sample-2")
    wait_for(lambda: events(other, run_id), 30, "given to the other")
    api.ok("POST", f"/runs/{run_id}/cancel", {})
    run_in(api, run_id, "CANCELLED")


def test_registers_when_the_centre_comes_later(node, group, tmp_path):
    node.stop()
    executor = SampleExecutor(tmp_path / "late", node, group, "late").start()
    try:
        wait_for(lambda: "not registered" in executor.log_text(), 15, "the first try failed")
        node.start()
        wait_for(lambda: online(node.api(), "late"), 30, "registered")
    finally:
        assert executor.stop() == 0


def test_reports_survive_an_outage_of_the_centre(node, api, sample):
    ids = [start_run(api, "sleep", {"ms": 1200}) for _ in range(3)]
    wait_for(lambda: all(events(sample, i) for i in ids), 15, "all started")
    node.kill()
    wait_for(lambda: all(len(events(sample, i)) == 2 for i in ids), 15, "all ended while the centre was away")
    node.start()
    api = node.api()
    for run_id in ids:
        assert run_in(api, run_id, "SUCCESS", timeout=40)["attempt"] == 1


# by hand


def test_the_same_delivery_twice_starts_once(sample, centre):
    assert centre.run("twice", handler="sleep", payload={"ms": 600000}).status_code == 202
    assert centre.run("twice", handler="sleep", payload={"ms": 600000}).status_code == 202
    assert centre.run("twice", fence=7, handler="sleep").status_code == 202  # a new owner of the run
    assert centre.run("twice", fence=6, handler="sleep").status_code == 409
    assert centre.cancel("twice", fence=6).status_code == 409
    assert centre.cancel("twice", fence=7).status_code == 202
    wait_for(lambda: len(events(sample, "twice")) == 2, 15, "ended")
    assert centre.run("twice", fence=7).status_code == 202
    assert events(sample, "twice") == [("start", 1, "RUNNING"), ("end", 1, "CANCELLED")]


def test_stale_attempts_and_fences(sample, centre):
    assert centre.run("r", attempt=2, fence=5).status_code == 202
    stale = centre.run("r", attempt=2, fence=4)
    assert stale.status_code == 409 and stale.json()["code"] == "conflict"
    assert stale.headers["Content-Type"] == "application/problem+json"
    assert centre.run("r", attempt=1, fence=5).status_code == 409
    assert centre.run("r", attempt=3, fence=4).status_code == 409
    assert centre.run("r", attempt=3, fence=5).status_code == 202
    wait_for(lambda: len(events(sample, "r")) == 4, 15, "two attempts")


def test_a_later_attempt_stops_the_earlier_one(sample, centre):
    assert centre.run("r", handler="sleep", payload={"ms": 600000}).status_code == 202
    wait_for(lambda: events(sample, "r"), 15, "started")
    assert centre.run("r", attempt=2, handler="echo").status_code == 202
    wait_for(lambda: ("end", 1, "CANCELLED") in events(sample, "r"), 15, "the first was stopped")
    assert ("end", 2, "SUCCESS") in events(sample, "r")


def test_full(make_sample, group):
    sample = make_sample("sample-1", "--slots", "2", "--queue", "1")
    centre = Centre(sample, group)
    for n in range(3):
        assert centre.run(f"r{n}", handler="sleep", payload={"ms": 600000}).status_code == 202
    busy = centre.run("r3", handler="sleep")
    assert busy.status_code == 429 and int(busy.headers["Retry-After"]) >= 1
    assert centre.run("inline", handler="echo").status_code == 202
    assert centre.run("r0", handler="sleep").status_code == 202
    for n in range(3):  # the one that waits first, so that it never starts
        assert centre.cancel(f"r{2 - n}").status_code == 202
    wait_for(lambda: all(len(events(sample, f"r{n}")) == 2 for n in (0, 1)), 15, "stopped")
    assert events(sample, "r2") == []


def test_signatures(sample, centre):
    now = int(time.time())
    message = {"run_id": "r", "attempt": 1, "fence": 1, "handler": "echo"}
    for refused in ({"signature": ""}, {"signature": "t=1"}, {"signature": "nonsense"}, {"secret": "another"},
                    {"at": now - 400}, {"at": now + 400}):
        answer = centre.post("run", message, **refused)
        assert answer.status_code == 401 and answer.json()["code"] == "unauthenticated", (refused, answer.text)
    assert centre.post("cancel", message, signature="").status_code == 401
    assert events(sample, "r") == []
    assert centre.post("run", message, at=now - 200).status_code == 202


@pytest.mark.parametrize("change,status", [
    ({"run_id": None}, 400), ({"run_id": "a b"}, 400), ({"run_id": "a" * 65}, 400), ({"attempt": 0}, 400),
    ({"attempt": "1"}, 400), ({"fence": None}, 400), ({"fence": -1}, 400), ({"handler": None}, 400),
    ({"handler": "nobody"}, 404), ({"scheduled_at": "today"}, 400), ({"future": {"field": 1}}, 202)])
def test_bad_messages(centre, change, status):
    message = {"run_id": "r", "attempt": 1, "fence": 1, "handler": "echo", **change}
    answer = centre.post("run", {k: v for k, v in message.items() if v is not None})
    assert answer.status_code == status, answer.text
    if status == 400:
        assert answer.json()["errors"][0]["pointer"] == "/" + list(change)[0]


def test_the_rest_of_the_surface(sample, centre):
    assert centre.session.get(centre.base + "/kelou/v1/ping", timeout=20).json() == {"status": "ok"}
    assert centre.session.get(centre.base + "/kelou/v1/run", timeout=20).status_code == 405
    assert centre.session.get(centre.base + "/", timeout=20).status_code == 404
    assert centre.cancel("nobody").status_code == 404
    assert centre.post("cancel", {"run_id": "r", "attempt": 1, "fence": 1, "handler": "echo"}).status_code == 400


# the sample's handlers


def gone(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as f:
            return f.read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_shell(api, make_sample, tmp_path):
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/sh\necho out $1 $KELOU_ATTEMPT\necho err >&2\nexit ${2:-0}\n", encoding="utf-8")
    script.chmod(0o755)
    make_sample("sample-1", "--allow", f"job={script} fixed", "--allow-fixed", "true=/bin/true", "--allow", "none=/no/such")
    run = run_in(api, start_run(api, "shell", {"command": "job"}), "SUCCESS")
    assert run["result"]["stdout"] == "out fixed 1\n" and run["result"]["stderr"] == "err\n" and run["result"]["exit_code"] == 0
    lines = api.ok("GET", f"/runs/{run['id']}/logs")["items"]  # they were there before the end was
    assert {(row["level"], row["text"]) for row in lines} == {("INFO", "out fixed 1"), ("WARN", "err")} and [row["seq"] for row in lines] == [1, 2]
    run = run_in(api, start_run(api, "shell", {"command": "job", "args": ["3; echo no"]}), "FAIL")
    assert run["error"]["type"] == "EXIT"
    run = run_in(api, start_run(api, "shell", {"command": "job", "args": ["3"]}), "FAIL")
    assert (run["error"]["type"], run["error"]["message"], run["error"]["detail"]) == ("EXIT", "exit code 3", "err\n")
    run = run_in(api, start_run(api, "shell", {"command": "true"}), "SUCCESS")
    for payload, kind in (({"command": "rm"}, "NOT_ALLOWED"), ({}, "BAD_PAYLOAD"), ({"command": "true", "args": ["x"]}, "BAD_PAYLOAD"),
                          ({"command": "job", "args": "x"}, "BAD_PAYLOAD"), ({"command": "job", "shell": 1}, "BAD_PAYLOAD"),
                          ({"command": "none"}, "NOT_STARTED"), ([1], "BAD_PAYLOAD")):
        assert run_in(api, start_run(api, "shell", payload), "FAIL")["error"]["type"] == kind, payload


def test_shell_is_killed_with_its_children(api, make_sample, tmp_path):
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/sh\ntrap '' TERM\nsleep 600 &\necho $! $$ >$1\nwhile :; do wait; done\n", encoding="utf-8")
    script.chmod(0o755)
    make_sample("sample-1", "--allow", f"job={script}")
    for name, fields in (("timeout", {"timeout": "300ms"}), ("cancel", {})):
        pids = tmp_path / name
        run_id = start_run(api, "shell", {"command": "job", "args": [str(pids)], **fields})
        wait_for(lambda p=pids: p.exists() and len(p.read_text(encoding="ascii").split()) == 2, 15, "started")
        if name == "cancel":
            api.ok("POST", f"/runs/{run_id}/cancel", {})
            run_in(api, run_id, "CANCELLED")
        else:
            assert run_in(api, run_id, "FAIL")["error"]["type"] == "TIMEOUT"
        for pid in pids.read_text(encoding="ascii").split():
            wait_for(lambda p=pid: gone(p), 15, f"{pid} was killed")


def test_shell_keeps_the_tail_of_much_output(api, make_sample, tmp_path):
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/sh\nseq 1 100000\n", encoding="utf-8")
    script.chmod(0o755)
    make_sample("sample-1", "--allow", f"job={script}")
    run = run_in(api, start_run(api, "shell", {"command": "job"}), "SUCCESS")
    assert run["result"]["stdout"].endswith("\n99999\n100000\n") and run["result"]["stdout_cut"] is True
    assert len(run["result"]["stdout"]) <= 16384
    rows = run_log(api, run["id"])  # too many lines for the executor's memory, or for the centre's bound: no line is unaccounted for
    assert rows[0]["text"] == "1" and len(rows) < 20000
    ends = [row[k][e] for row in rows for k in ("gap", "cut") if k in row for e in ("from", "to")]
    numbers = sorted([row["seq"] for row in rows if "seq" in row] + ends)
    assert ends and numbers[-1] in (100000, 100001) and all(row["text"] == str(row["seq"]) for row in rows if row.get("seq", 100001) <= 100000)


def run_log(api, run_id):
    rows, params = [], {"limit": 1000}
    while True:
        page = api.ok("GET", f"/runs/{run_id}/logs", params=params)
        rows += page["items"]
        if not page["more"]:
            return rows
        params["cursor"] = page["next_cursor"]


def test_http(api, node, make_sample):
    make_sample("sample-1", "--http-networks", "loopback")
    run = run_in(api, start_run(api, "http", {"url": node.base_url + "/healthz", "headers": {"X-A": "b"}}), "SUCCESS")
    assert run["result"]["status"] == 200 and json.loads(run["result"]["body"])["status"] == "ok"
    run = run_in(api, start_run(api, "http", {"url": node.base_url + "/nowhere"}), "FAIL")
    assert run["error"]["type"] == "HTTP_STATUS"
    run_in(api, start_run(api, "http", {"url": node.base_url + "/nowhere", "status": 404}), "SUCCESS")
    for payload, kind in (({"url": "http://10.1.2.3/"}, "NOT_ALLOWED"), ({"url": "http://127.0.0.1:9/"}, "UNREACHABLE"),
                          ({"url": "ftp://127.0.0.1/"}, "BAD_PAYLOAD"), ({}, "BAD_PAYLOAD"),
                          ({"url": "http://169.254.169.254/"}, "NOT_ALLOWED")):
        assert run_in(api, start_run(api, "http", payload), "FAIL")["error"]["type"] == kind, payload


def test_options_are_checked(sample):
    program = sample.command[0]

    def code(*arguments):
        got = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=20, check=False)
        return got.returncode, got.stdout + got.stderr
    assert code("--help")[0] == 0
    assert code("--nonsense")[0] == 2
    assert code("--slots", "many") == (2, "kelou-sample-executor: --slots: " + code("--slots", "many")[1].split("--slots: ")[1])
    assert code("--token-file", os.devnull + "/x")[0] == 2
    assert code("--server", "http://127.0.0.1:1")[0] == 1
