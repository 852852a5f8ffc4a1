"""Alerts: a final failure reaches a signed webhook, once in words and at least once in fact, over kill -9 and restarts."""
import re

import pytest

from tests.harness.fake_executor import Accept, Done, FakeExecutor
from tests.harness.kelou import Group, wait_for
from tests.harness.webhook import Webhook

QUICK = {"alert.allowed_networks": "loopback", "alert.poll": "50ms", "alert.retry_first": "100ms", "alert.timeout": "1s"}


@pytest.fixture
def hook():
    with Webhook() as server:
        yield server


@pytest.fixture
def node(make_node):
    return make_node(settings=QUICK).start()


@pytest.fixture
def alarm(api, hook):
    """alarm(**rule) → the secret of the channel `ops` to the receiver, which the rule `failures` tells."""
    def make(**rule):
        secret = api.ok("POST", "/alert-channels", {"name": "ops", "url": hook.url + "/hooks/a?key=1"}, status=201)["secret"]
        api.ok("POST", "/alert-rules", {"name": "failures", "channels": ["ops"], **rule}, status=201)
        return secret
    return make


def make_task(api, name="job", **fields):
    return api.ok("POST", "/tasks", {"name": name, "executor_group": "sample", "handler": "h", "schedule": {"kind": "MANUAL"},
                                     "overlap_policy": "ALLOW", **fields})


def fail(api, name="job", times=1):
    return [api.ok("POST", f"/tasks/{name}/trigger")["run_id"] for _ in range(times)]


def broken():
    return Done(state="FAIL", error={"type": "IOError", "message": "disk full"})


def settled(api, state="DELIVERED", count=1):
    """Alerts in this state, when there are that many."""
    return wait_for(lambda: (lambda found: found if len(found) >= count else None)(api.items("/alerts", state=state)), 15,
                    f"{count} alerts {state}")


def test_a_failure_is_told(api, executor, hook, alarm):
    secret = alarm(window="0s")
    executor.answer(broken())
    task = make_task(api)
    run_id = fail(api)[0]
    got = hook.wait(1)[0]
    assert got.path == "/hooks/a?key=1" and got.headers["Content-Type"] == "application/json"
    assert got.signed_by(secret) and not got.signed_by(secret + "x")
    message = got.message
    assert message["event"] == "RUN_FAILED" and message["count"] == 1 and message["summary"] is False
    assert message["rule"] == "failures" and message["channel"] == "ops" and message["namespace"] == "default"
    assert message["task"] == {"id": task["id"], "name": "job", "executor_group": "sample", "handler": "h"}
    run = message["run"]
    assert run["id"] == run_id and run["state"] == "FAIL" and run["reason"] == "ERROR" and run["attempt"] == 1
    assert run["error_type"] == "IOError" and run["error_message"] == "disk full" and run["executor"] == executor.name
    listed = settled(api)[0]
    assert listed["id"] == got.alert_id == message["alert_id"] and listed["attempts"] == 1 and listed["status"] == 200
    whole = api.ok("GET", f"/alerts/{listed['id']}")
    assert whole["details"]["run"] == run and whole["delivered_at"]
    assert [(t["attempt"], t["status"]) for t in whole["log"]] == [(1, 200)] and "error" not in whole["log"][0]


def test_only_final_failures_are_told(api, executor, hook, alarm):
    alarm(window="0s")
    answers = {"good": Done({}), "second": None, "gone": Accept(report=None)}
    seen = []

    def answer(delivery):
        seen.append((delivery.task_name, delivery.attempt))
        if delivery.task_name == "second":
            return broken() if delivery.attempt == 1 else Done({})
        return answers.get(delivery.task_name, broken())
    executor.answer(answer)
    for name in ("good", "second", "gone"):
        make_task(api, name, retry={"max_attempts": 2, "initial_interval": "10ms"})
    make_task(api, "bad", retry={"max_attempts": 2, "initial_interval": "10ms"})
    fail(api, "good")
    fail(api, "second")
    cancelled = fail(api, "gone")[0]
    wait_for(lambda: ("gone", 1) in seen and ("second", 2) in seen)
    api.post(f"/runs/{cancelled}/cancel")
    fail(api, "bad")
    messages = [r.message for r in hook.wait(1)]
    assert [(m["task"]["name"], m["run"]["attempt"]) for m in messages] == [("bad", 2)]
    settled(api)
    assert len(hook.received) == 1 and len(api.items("/alerts")) == 1


def test_a_rule_says_which(api, node, executor, hook):
    api.ok("POST", "/alert-channels", {"name": "ops", "url": hook.url})
    for name, rule in {"by-task": {"tasks": ["one", "two"]}, "by-group": {"groups": ["other"]}, "by-reason": {"reasons": ["TIMEOUT"]},
                       "off": {"enabled": False}, "all": {}}.items():
        api.ok("POST", "/alert-rules", {"name": name, "channels": ["ops"], "window": "0s", **rule})
    executor.answer(lambda d: Accept(report=None) if d.task_name == "three" else broken())
    for name in ("one", "three"):
        make_task(api, name, attempt_timeout="200ms" if name == "three" else "10s", retry={"max_attempts": 1})
        fail(api, name)
    got = {(r.message["rule"], r.message["task"]["name"]) for r in hook.wait(4)}
    assert got == {("by-task", "one"), ("all", "one"), ("by-reason", "three"), ("all", "three")}
    assert {a["rule"] for a in api.items("/alerts", task="one")} == {"by-task", "all"}
    assert [a["task_name"] for a in api.items("/alerts", rule="by-reason", channel="ops")] == ["three"]
    api.ok("POST", "/namespaces", {"name": "team"})
    stranger = node.api(api.ok("POST", "/tokens", {"name": "t", "role": "ADMIN", "namespace": "team"})["token"])
    assert stranger.items("/alerts") == [] and stranger.items("/alert-rules") == []
    number = api.items("/alerts", limit=1)[0]["id"]
    stranger.problem("GET", f"/alerts/{number}", status=404, code="not_found")
    stranger.problem("POST", f"/alerts/{number}/redeliver", status=404, code="not_found")
    stranger.problem("GET", "/alert-channels/default%2Fops", status=404, code="not_found")


def test_storms_become_summaries(api, executor, hook, alarm):
    alarm(window="3s")
    executor.answer(broken())
    make_task(api)
    fail(api)
    first = hook.wait(1)[0]
    runs = fail(api, times=20)
    summary = hook.wait(2)[1]
    assert 2.5 <= summary.at - first.at, "a summary waits for the window's end"
    assert summary.message["summary"] is True and summary.message["count"] == 20
    assert summary.message["run"]["id"] in runs and summary.alert_id != first.alert_id
    settled(api, count=2)
    assert len(hook.received) == 2
    make_task(api, "other")
    fail(api, "other")
    assert hook.wait(3)[2].message["summary"] is False  # another task is told at once


def test_it_is_tried_again_with_the_same_id(api, node, executor, hook, alarm):
    alarm(window="0s")
    hook.script(500, 503, 404)
    executor.answer(broken())
    make_task(api)
    fail(api)
    got = hook.wait(4)
    assert len({r.alert_id for r in got}) == 1 and len({r.raw for r in got}) == 1
    pauses = [b.at - a.at for a, b in zip(got, got[1:])]
    assert pauses[0] >= 0.09 and pauses[1] >= 0.19 and pauses[2] >= 0.39, pauses
    alert = settled(api)[0]
    log = api.ok("GET", f"/alerts/{alert['id']}")["log"]
    assert [t["status"] for t in log] == [500, 503, 404, 200] and log[0]["error"] == "the receiver answered 500"
    metrics = node.metrics()
    assert metrics['kelou_alerts_sent_total{channel="default/ops",result="failed"}'] == 3
    assert metrics['kelou_alerts_sent_total{channel="default/ops",result="delivered"}'] == 1
    assert metrics['kelou_alerts_sent_total{channel="default/ops",result="given_up"}'] == 0


def test_it_is_given_up_and_sent_again_on_request(make_node, hook, tmp_path):
    node = make_node(settings={**QUICK, "alert.retry_for": "500ms"}).start()
    api, group = node.api(), Group(node)
    with FakeExecutor(node, group, journal=str(tmp_path / "x.journal")) as executor:
        api.ok("POST", "/alert-channels", {"name": "ops", "url": hook.url})
        api.ok("POST", "/alert-rules", {"name": "failures", "channels": ["ops"]})
        hook.answer = 500
        executor.answer(broken())
        make_task(api)
        fail(api)
        alert = settled(api, "FAILED")[0]
        assert alert["attempts"] >= 2 and alert["status"] == 500
        assert "alert given up" in node.log_text()
        hook.answer = 204
        again = api.ok("POST", f"/alerts/{alert['id']}/redeliver", status=202)
        assert again["id"] == alert["id"] and again["state"] == "PENDING"
        settled(api)
        assert len({r.alert_id for r in hook.received}) == 1


def test_a_failure_survives_kill_9(api, node, executor, hook, alarm):
    """The receiver is away when the runs fail and the node dies: every failure is told after the restart."""
    secret = alarm(window="0s")
    hook.answer = 503
    executor.answer(broken())
    make_task(api)
    runs = fail(api, times=8)
    wait_for(lambda: len(api.items("/runs", state="FAIL")) == 8, what="8 failed runs")
    node.restart(kill=True)
    hook.answer = 200
    wait_for(lambda: len(api.items("/alerts", state="DELIVERED")) == 8, 20, "8 alerts delivered")
    good = [r for r in hook.received if r.signed_by(secret)]
    assert len(good) == len(hook.received)
    told = {}
    for received in hook.received:
        told.setdefault(received.message["run"]["id"], set()).add(received.alert_id)
    assert set(told) == set(runs) and all(len(ids) == 1 for ids in told.values())
    log = api.ok("GET", f"/alerts/{api.items('/alerts')[0]['id']}")["log"]
    assert log[-1]["status"] == 200


def test_a_failure_survives_a_death_right_after_its_commit(make_node, hook, tmp_path):
    """The node dies between the commit of the FINISH and anything that could have followed it in memory."""
    node = make_node(settings={**QUICK, "run.write_running_after": "10m"}).start()
    api, group = node.api(), Group(node)
    with FakeExecutor(node, group, journal=str(tmp_path / "x.journal")) as executor:
        api.ok("POST", "/alert-channels", {"name": "ops", "url": hook.url})
        api.ok("POST", "/alert-rules", {"name": "failures", "channels": ["ops"], "window": "0s"})
        executor.answer(Accept(report=None))
        make_task(api)
        run_id = fail(api)[0]
        delivery = executor.wait_deliveries(1)[0]
        node.stop()
        node.environment["KELOU_FAILPOINTS"] = "run.after_commit=crash:1"
        node.start(wait=False)
        report = {"run_id": run_id, "attempt": delivery.attempt, "fence": delivery.fence, "state": "FAIL"}

        def report_until_dead():
            try:
                executor.api.post("/reports", {"reports": [report]})
            except OSError:
                pass  # it is not up yet, or has died
            return not node.alive()
        wait_for(report_until_dead, 30, "the node dies after a commit", every=0.05)
        assert node.wait() == 137 and not hook.received
        del node.environment["KELOU_FAILPOINTS"]
        node.start()
        assert hook.wait(1, 30)[0].message["run"]["id"] == run_id
        wait_for(lambda: api.items("/alerts", state="DELIVERED"))
        assert len({r.alert_id for r in hook.received}) == 1


def test_secrets_turn(api, executor, hook, alarm, node):
    first = alarm(window="0s")
    executor.answer(broken())
    make_task(api)
    second = api.ok("POST", "/alert-channels/ops/rotate-secret")["secret"]
    fail(api)
    got = hook.wait(1)[0]
    assert got.signed_by(first) and got.signed_by(second) and first != second
    assert "secret" not in api.ok("POST", "/alert-channels/ops/retire-secret")
    fail(api)
    got = hook.wait(2)[1]
    assert got.signed_by(second) and not got.signed_by(first)
    for text in (api.get("/alert-channels").text, node.log_text()):
        assert first not in text and second not in text


def test_the_test_alert(api, hook, alarm):
    secret = alarm()
    assert api.ok("POST", "/alert-channels/ops/test")["delivered"] is True
    got = hook.wait(1)[0]
    assert got.message["event"] == "TEST" and got.signed_by(secret)
    hook.script(401)
    answer = api.ok("POST", "/alert-channels/ops/test")
    assert answer["delivered"] is False and answer["status"] == 401 and answer["error"]
    hook.delay = 5
    answer = api.ok("POST", "/alert-channels/ops/test")
    assert answer["delivered"] is False and "status" not in answer and answer["error"]
    assert api.items("/alerts") == []


def test_where_webhooks_may_be(make_node):
    """Only public addresses unless the settings say otherwise; link-local never."""
    node = make_node().start()
    api = node.api()
    for url in ("http://127.0.0.1:9/x", "http://10.0.0.1/", "https://192.168.1.1/hook", "http://[::1]/", "http://169.254.169.254/x",
                "http://2130706433/"):
        answer = api.post("/alert-channels", {"name": "x", "url": url})
        assert answer.status_code == 400 and answer.json()["errors"][0]["pointer"] == "/url", answer.text
    problem = api.problem("POST", "/alert-channels", {"name": "x", "url": "http://10.0.0.1/"}, 400, "address_not_allowed")
    assert problem["errors"][0]["detail"] == "10.0.0.1 is outside the networks of alert.allowed_networks"
    for url in ("ftp://host/", "https://", "https://host?x=1", "https://user:pw@198.51.99.1/", "https://198.51.99.1/a b",
                "https://198.51.99.1/#x"):
        api.problem("POST", "/alert-channels", {"name": "x", "url": url}, 400)
    api.ok("POST", "/alert-channels", {"name": "x", "url": "https://8.8.8.8/hook/SECRET?key=SECRET"})
    viewer = node.api(api.ok("POST", "/tokens", {"name": "v", "role": "VIEWER"})["token"])
    assert "SECRET" not in viewer.get("/alert-channels").text and "8.8.8.8" in viewer.get("/alert-channels").text
    assert api.ok("GET", "/alert-channels/x")["url"].endswith("SECRET")
    operator = node.api(api.ok("POST", "/tokens", {"name": "o", "role": "OPERATOR"})["token"])
    operator.problem("POST", "/alert-channels", {"name": "y", "url": "https://8.8.8.8/"}, 403)
    operator.ok("POST", "/alert-rules", {"name": "r", "channels": ["x"]})


BAD_RULES = [
    ({"channels": ["ops"]}, "/name", "missing_field"), ({"name": "r"}, "/channels", "missing_field"),
    ({"name": "r", "channels": []}, "/channels", "invalid_field"), ({"name": "r", "channels": ["no"]}, "/channels", "not_found"),
    ({"name": "r", "channels": ["ops"], "reasons": ["OVERLAP"]}, "/reasons", "invalid_field"),
    ({"name": "r", "channels": ["ops"], "window": "1y"}, "/window", "invalid_field"),
    ({"name": "r", "channels": ["ops"], "window": "8d"}, "/window", "invalid_field"),
    ({"name": "r", "channels": ["ops"], "tasks": "x"}, "/tasks", "invalid_field"),
    ({"name": "r", "channels": ["ops"], "event": "RUN_LATE"}, "/event", "invalid_field"),
    ({"name": "r", "channels": ["ops"], "colour": "red"}, "/colour", "unknown_field"),
    ({"name": "failures", "channels": ["ops"]}, "/name", "conflict")]


def test_rules_and_channels_are_checked(api, alarm):
    alarm()
    for body, pointer, code in BAD_RULES:
        answer = api.post("/alert-rules", body)
        assert answer.json()["code"] == code and answer.json()["errors"][0]["pointer"] == pointer, answer.text
    api.problem("DELETE", "/alert-channels/ops", status=409, code="conflict")
    rule = api.ok("PATCH", "/alert-rules/failures", {"tasks": ["a"], "window": "1m", "description": "night"})
    assert rule["tasks"] == ["a"] and rule["window"] == "1m" and rule["version"] == 2 and rule["channels"] == ["ops"]
    rule = api.ok("PATCH", "/alert-rules/failures", {"tasks": None, "window": None})
    assert "tasks" not in rule and rule["window"] == "5m"
    api.problem("PATCH", "/alert-rules/failures", {"enabled": False}, 412, headers={"If-Match": '"1"'})
    assert api.ok("PATCH", "/alert-channels/ops", {"enabled": False})["enabled"] is False
    assert api.ok("GET", "/alert-channels/ops")["url"].endswith("key=1")
    assert api.delete("/alert-rules/failures").status_code == 204
    assert api.delete("/alert-channels/ops").status_code == 204
    api.problem("GET", "/alert-rules/failures", status=404)
    api.problem("GET", "/alerts/1", status=404)
    api.problem("GET", "/alerts/x", status=404)


def test_pages(api, executor, hook, alarm):
    alarm(window="0s")
    executor.answer(broken())
    make_task(api)
    fail(api, times=7)
    settled(api, count=7)
    ids = [int(a["id"]) for a in api.items("/alerts", limit=3)]
    assert len(ids) == 7 and ids == sorted(ids, reverse=True)
    assert re.fullmatch(r"\d+[um]?s", api.ok("GET", f"/alerts/{ids[0]}")["log"][0]["took"])
