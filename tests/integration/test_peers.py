"""Reports and cancels that arrive at another node than the owner of the run (docs/adr/0024): several nodes on one PostgreSQL."""
import hashlib
import hmac
import json
import os
import re
import shutil
import time

import pytest
import requests

from tests.harness.fake_executor import Accept
from tests.harness.kelou import Group, wait_for
from tests.integration.conftest import end_node

LABEL = b"kelou peer link 1"


class Cluster:
    """Nodes that share a database and its secret.key, an executor group, and what the database says about owners."""

    def __init__(self, server, make_node, count, settings=None):
        self.server = server
        self.url = server.create_database()
        self.database = self.url.rsplit("/", 1)[1]
        self.make_node = make_node
        self.settings = settings or {}
        self.nodes = []
        for _ in range(count):
            self.add()

    def add(self, key=None, settings=None, **more):
        index = len(self.nodes)
        node = self.make_node(f"n{index}", {"node.id": f"n{index}", **self.settings, **(settings or {})}, url=self.url, **more)
        if self.nodes:
            shutil.copy(os.path.join(self.nodes[0].folder, "admin.token"), node.folder)
            path = os.path.join(node.folder, "secret.key")
            if key is None:
                shutil.copy(os.path.join(self.nodes[0].folder, "secret.key"), path)
            else:
                with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as f:
                    f.write(key)
        node.start(wait=not self.nodes)
        self.nodes.append(node)
        if index:
            wait_for(lambda: self.answers(node), 20, "the node answers")
        return node

    @staticmethod
    def answers(node):
        try:
            return requests.get(node.base_url + "/healthz", timeout=2).ok
        except requests.RequestException:
            return False

    def sql(self, text):
        return self.server.psql(text, self.database).strip()

    def owner(self, run_id, api):
        """The node that owns the shard of this run's task."""
        task = api.ok("GET", f"/runs/{run_id}")["task_id"]
        name = self.sql(f"SELECT owner FROM shard WHERE id = (SELECT shard FROM task WHERE id = {task})")
        return next((n for n in self.nodes if n.settings["node.id"] == name), None)

    def inbox(self):
        return int(self.sql("SELECT count(*) FROM inbox WHERE kind = 5"))


def knows_the_owner(node):
    """Whether the node has asked another one, and was answered (it does so once when it sees it)."""
    return node.metrics().get('kelou_peer_requests_total{result="answered"}', 0) > 0


@pytest.fixture
def pair(postgres_server, make_node, tmp_path):
    """Two nodes; the first has the shards (the second came later) or some of them."""
    made = Cluster(postgres_server, make_node, 2)
    wait_for(lambda: knows_the_owner(made.nodes[1]), 20, "the second node knows the first")
    return made


@pytest.fixture
def store():
    return "postgres"


@pytest.fixture
def make_node(tmp_path):
    from tests.harness.kelou import Keloud
    made = []

    def make(name, settings, url, environment=None):
        node = Keloud(tmp_path / name, url, settings, environment)
        made.append(node)
        return node
    yield make
    for node in made:
        if node.process and node.alive():
            node.cont()
        end_node(node)


@pytest.fixture
def workers(pair, tmp_path):
    """An executor registered with the first node; it accepts and reports nothing by itself."""
    from tests.harness.fake_executor import FakeExecutor
    group = Group(pair.nodes[0])
    executor = FakeExecutor(pair.nodes[0], group, "w", journal=str(tmp_path / "w.journal"), slots=200).start()
    executor.answer(Accept(report=None))
    yield group, executor
    executor.stop()


def run_of(pair, executor, count=1, **more):
    """`count` runs that the executor has accepted, as its deliveries."""
    api = pair.nodes[0].api()
    before = len(executor.deliveries)
    task = api.ok("POST", "/tasks", {"name": f"t{time.monotonic_ns()}", "namespace": "default", "executor_group": "sample", "handler": "h",
                                     "schedule": {"kind": "MANUAL"}, "overlap_policy": "ALLOW", **more})
    for _ in range(count):
        api.ok("POST", f"/tasks/{task['id']}/trigger", {})
    return executor.wait_deliveries(before + count)[before:]


def other_than(pair, node):
    return next(n for n in pair.nodes if n is not node)


def report(node, group, executor, deliveries, state="SUCCESS", **fields):
    """POST /reports at this node."""
    body = {"reports": [executor.report_of(d.run_id, d.attempt, d.fence, state, **fields) for d in deliveries]}
    return node.api(group.token).request("POST", "/reports", body)


def statuses(answer):
    assert answer.status_code == 200, answer.text
    return [r["status"] for r in answer.json()["results"]]


def test_a_report_at_the_wrong_node_is_recorded_by_the_owner(pair, workers):
    group, executor = workers
    first = pair.nodes[0].api()
    for d in run_of(pair, executor, 6):
        wrong = other_than(pair, pair.owner(d.run_id, first))
        assert statuses(report(wrong, group, executor, [d], result={"n": "ä\n"})) == ["recorded"]
        run = first.ok("GET", f"/runs/{d.run_id}")  # answered after the commit: everybody sees it now
        assert run["state"] == "SUCCESS" and run["result"] == {"n": "ä\n"} and run["executor"] == "w"
        for node in pair.nodes:
            assert statuses(report(node, group, executor, [d], "FAIL")) == ["late"]
    forwarded = sum(n.metrics()['kelou_events_forwarded_total{way="node"}'] for n in pair.nodes)
    assert forwarded >= 6 and pair.inbox() == 0


def test_one_request_for_many_owners(pair, workers):
    group, executor = workers
    deliveries = [d for _ in range(5) for d in run_of(pair, executor, 4)]
    for node in pair.nodes[::-1]:
        answer = statuses(report(node, group, executor, deliveries, result=1))
        assert answer == (["recorded"] if node is pair.nodes[-1] else ["late"]) * len(deliveries)


def test_rights_travel_with_a_report(pair, workers):
    group, executor = workers
    stranger = Group(pair.nodes[0], "stranger")
    d, = run_of(pair, executor)
    for node in pair.nodes:
        answer = report(node, stranger, executor, [d])
        assert answer.status_code == 403, answer.text
    assert pair.nodes[0].api().ok("GET", f"/runs/{d.run_id}")["state"] != "SUCCESS"


def test_lines_and_state_in_one_report_at_the_wrong_node(pair, workers):
    group, executor = workers
    d, = run_of(pair, executor)
    first = pair.nodes[0].api()
    wrong = other_than(pair, pair.owner(d.run_id, first))
    assert statuses(report(wrong, group, executor, [d], log=[{"seq": 1, "text": "from afar"}])) == ["recorded"]
    assert first.ok("GET", f"/runs/{d.run_id}")["state"] == "SUCCESS"
    assert "from afar" in json.dumps(first.ok("GET", f"/runs/{d.run_id}/logs"))


def test_cancel_at_the_wrong_node(pair, workers):
    _, executor = workers
    d, = run_of(pair, executor)
    first = pair.nodes[0].api()
    wrong = other_than(pair, pair.owner(d.run_id, first))
    answer = wrong.api().request("POST", f"/runs/{d.run_id}/cancel")
    assert answer.status_code in (200, 202), answer.text
    run = first.ok("GET", f"/runs/{d.run_id}")
    assert run["state"] == "CANCELLED" or run["reason"] == "CANCELLING", run
    assert wait_for(lambda: executor.cancels, 10, "the executor is told")


def test_an_owner_that_stands_still_loses_nothing(pair, workers):
    """Its reports go into the inbox; thawed within its lease, or as the next owner's, they are carried out."""
    group, executor = workers
    deliveries = [d for _ in range(3) for d in run_of(pair, executor, 3)]
    first = pair.nodes[0].api()
    owners = {d.run_id: pair.owner(d.run_id, first) for d in deliveries}
    owner = owners[deliveries[0].run_id]
    mine = [d for d in deliveries if owners[d.run_id] is owner]
    cancelled = mine.pop()
    wrong = other_than(pair, owner)
    owner.pause()
    try:
        answer = report(wrong, group, executor, mine)
        assert statuses(answer) == ["recorded"] * len(mine)
        asked = wrong.api().request("POST", f"/runs/{cancelled.run_id}/cancel")
        assert asked.status_code == 202, asked.text
    finally:
        owner.cont()
    api = wrong.api()
    wait_for(lambda: all(api.ok("GET", f"/runs/{d.run_id}")["state"] == "SUCCESS" for d in mine), 30, "the reports are carried out")
    wait_for(lambda: api.ok("GET", f"/runs/{cancelled.run_id}")["reason"] == "CANCELLING"
             or api.ok("GET", f"/runs/{cancelled.run_id}")["state"] == "CANCELLED", 30, "the cancel is carried out")
    wait_for(lambda: pair.inbox() == 0, 10, "the inbox is empty")
    assert statuses(report(owner, group, executor, mine)) == ["late"] * len(mine)


def test_an_owner_that_is_killed_loses_nothing(pair, workers):
    group, executor = workers
    deliveries = run_of(pair, executor, 5)
    first = pair.nodes[0].api()
    owner = pair.owner(deliveries[0].run_id, first)
    wrong = other_than(pair, owner)
    api = wrong.api()
    owner.kill()
    assert statuses(report(wrong, group, executor, deliveries)) == ["recorded"] * 5
    wait_for(lambda: all(api.ok("GET", f"/runs/{d.run_id}")["state"] == "SUCCESS" for d in deliveries), 40, "the next owner carries it out")
    wait_for(lambda: pair.inbox() == 0, 10, "the inbox is empty")


def test_killed_before_the_row_is_written_nobody_is_answered(postgres_server, make_node, tmp_path):
    """A node that dies between the owner's silence and the inbox has acknowledged nothing."""
    made = Cluster(postgres_server, make_node, 1)
    made.add(environment={"KELOU_FAILPOINTS": "forward.before_inbox=crash:1"})
    wait_for(lambda: knows_the_owner(made.nodes[1]), 20, "the second node knows the first")
    from tests.harness.fake_executor import FakeExecutor
    group = Group(made.nodes[0])
    executor = FakeExecutor(made.nodes[0], group, "w", journal=str(tmp_path / "w.journal")).start()
    executor.answer(Accept(report=None))
    d, = run_of(made, executor)
    owner, wrong = made.nodes
    owner.pause()
    try:
        with pytest.raises(requests.ConnectionError):
            report(wrong, group, executor, [d])
    finally:
        owner.cont()
    assert wrong.wait() != 0 and made.inbox() == 0
    # what it had asked the owner may have been carried out all the same, or not: both are told truly
    assert statuses(report(owner, group, executor, [d])) in (["recorded"], ["late"])
    assert owner.api().ok("GET", f"/runs/{d.run_id}")["state"] == "SUCCESS"
    executor.stop()


# ------------------------------------------------------------------ who may

def signed(key, body, at=None):
    secret = hmac.new(key, LABEL, hashlib.sha256).digest()
    t = int(time.time() if at is None else at)
    mac = hmac.new(secret, f"{t}.".encode() + body, hashlib.sha256).hexdigest()
    return {"X-Kelou-Signature": f"t={t},v1={mac}", "Content-Type": "application/json"}


def envelope(to, kind="ping", body=None, nonce="0a"):
    return json.dumps({"from": "nobody", "to": to, "nonce": nonce, "kind": kind, "body": body or {}}).encode()


def test_only_nodes_may_call_the_peer_route(pair, workers):
    group, _ = workers
    node = pair.nodes[0]
    with open(os.path.join(node.folder, "secret.key"), "rb") as f:
        key = f.read()
    url = node.base_url + "/api/v1/peer"
    good = envelope("n0")
    answer = requests.post(url, good, headers=signed(key, good), timeout=10)
    assert answer.status_code == 200 and answer.json()["nonce"] == "0a" and answer.json()["from"] == "n0"
    mac = re.search("t=([0-9]+),v1=([0-9a-f]+)", answer.headers["X-Kelou-Signature"])
    assert signed(key, answer.content, int(mac[1]))["X-Kelou-Signature"] == mac[0]
    before = node.metrics()["kelou_peer_refusals_total"]
    tokens = [node.admin_token(), group.token]
    plain = {"Content-Type": "application/json"}
    bad = [({**plain, "Authorization": f"Bearer {t}"}, good, 401) for t in tokens]
    bad += [(plain, good, 401), (signed(b"x" * 32, good), good, 401), (signed(key, good), good + b" ", 401),
            (signed(key, good, time.time() - 120), good, 401), (signed(key, good, time.time() + 120), good, 401)]
    for other, status in ((envelope("n1"), 404), (envelope("n0", "no such"), 400), (envelope("n0", nonce='"'), 400), (b"{", 400),
                          (b"[]", 400), (b'{"from":"a"}', 404)):
        bad.append((signed(key, other), other, status))
    for headers, body, status in bad:
        answer = requests.post(url, body, headers=headers, timeout=10)
        assert answer.status_code == status, (body, answer.text)
        assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert node.metrics()["kelou_peer_refusals_total"] == before + len(bad)


def test_what_is_no_event_is_refused_by_name(pair):
    node = pair.nodes[0]
    with open(os.path.join(node.folder, "secret.key"), "rb") as f:
        key = f.read()
    run = "000g01i0mnncs000000000000000e000002g"
    for events, field in ((None, "/body/events"), ([], "/body/events"), ([1], "/body/events/0"), ([{}], "/body/events/0/run_id"),
                          ([{"run_id": run, "event": "ACCEPT", "attempt": 1}], "/body/events/0/event"),
                          ([{"run_id": run, "event": "SUCCESS", "attempt": 0}], "/body/events/0/attempt"),
                          ([{"run_id": run, "event": "CANCEL", "attempt": 0, "group": 5}], "/body/events/0/group")):
        body = envelope("n0", "events", {"events": events})
        answer = requests.post(node.base_url + "/api/v1/peer", body, headers=signed(key, body), timeout=10)
        assert answer.status_code == 400 and answer.json()["errors"][0]["pointer"] == field, answer.text


def test_another_secret_is_refused_visibly_and_nothing_is_lost(postgres_server, make_node, tmp_path):
    made = Cluster(postgres_server, make_node, 1)
    made.add(key=b"k" * 32)
    owner, stranger = made.nodes
    wait_for(lambda: stranger.metrics().get('kelou_peer_requests_total{result="refused"}', 0) > 0, 20, "it is refused")
    assert owner.metrics()["kelou_peer_refusals_total"] > 0
    assert "secret.key" in owner.log_text() and "secret.key" in stranger.log_text()
    codes = [f["code"] for f in stranger.api().ok("GET", "/doctor")["findings"]]
    assert "peer_refused" in codes and "peers_good" not in codes
    group = Group(owner)
    from tests.harness.fake_executor import FakeExecutor
    executor = FakeExecutor(owner, group, "w", journal=str(tmp_path / "w.journal")).start()
    executor.answer(Accept(report=None))
    d, = run_of(made, executor)
    assert statuses(report(stranger, group, executor, [d])) == ["recorded"]  # by the inbox
    wait_for(lambda: owner.api().ok("GET", f"/runs/{d.run_id}")["state"] == "SUCCESS", 10, "the owner carries it out")
    executor.stop()


def test_an_address_that_leads_nowhere_is_said(postgres_server, make_node):
    made = Cluster(postgres_server, make_node, 1)
    node = made.add(settings={"node.address": "0.0.0.0:8390"})
    assert "set node.address" in node.log_text()
    codes = [f["code"] for f in node.api().ok("GET", "/doctor")["findings"]]
    assert "address_nowhere" in codes
    wait_for(lambda: "cannot be used" in made.nodes[0].log_text(), 20, "the other node says so, too")


def test_a_claim_at_the_wrong_node_is_decided_by_the_owner(pair, tmp_path):
    from tests.harness.fake_executor import FakeExecutor
    group = Group(pair.nodes[0])
    executor = FakeExecutor(pair.nodes[0], group, "w", journal=str(tmp_path / "w.journal")).start()
    executor.answer(Accept(report=None))
    deliveries = run_of(pair, executor, 2, exactly_one_start=True)
    first = pair.nodes[0].api()
    owner = pair.owner(deliveries[0].run_id, first)
    wrong = other_than(pair, owner)

    def claim(node, d, incarnation):
        body = {"claims": [{"run_id": d.run_id, "attempt": 1, "fence": d.fence, "executor": "w", "incarnation": incarnation}]}
        return node.api(group.token).request("POST", "/claims", body)
    d = deliveries[0]
    assert claim(wrong, d, executor.incarnation).json()["results"][0]["status"] == "granted"
    for node in pair.nodes:
        assert claim(node, d, executor.incarnation).json()["results"][0]["status"] == "granted"
        assert claim(node, d, executor.incarnation + 1).json()["results"][0]["status"] == "refused"
    owner.pause()
    try:
        assert claim(wrong, deliveries[1], executor.incarnation).status_code == 503  # never by the inbox: nobody has said yes
        assert pair.inbox() == 0
    finally:
        owner.cont()
    executor.stop()
