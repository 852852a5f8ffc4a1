"""Several nodes on one PostgreSQL: shares, hand-over, drain, take-over; and the nodes in API, CLI, doctor and metrics."""
import collections
import json
import os
import shutil
from datetime import timedelta

import pytest

from tests.harness.fake_executor import Done, FakeExecutor
from tests.harness.kelou import Api, Group, wait_for
from tests.harness.world import at, soon

SHARDS = 32
TASKS = 24
EVERY = timedelta(milliseconds=250)
SETTINGS = {"node.lease_ttl": "2s", "executor.lost_after": "1m"}
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"


class Cluster:
    """Nodes with one database and one secret.key, ticking tasks, and an executor that counts."""

    def __init__(self, make_node, url, tmp_path):
        self.make_node, self.url, self.tmp_path = make_node, url, tmp_path
        self.nodes, self.tasks, self.executor = {}, [], None

    def node(self, name, settings=None, environment=None):
        made = self.make_node(name=name, url=self.url, environment=environment,
                              settings={**SETTINGS, "node.id": name, **(settings or {})})
        for file in ("secret.key", "admin.token"):
            if self.nodes:
                shutil.copy(os.path.join(self.first.folder, file), made.folder)
        self.nodes[name] = made
        return made

    @property
    def first(self):
        return next(iter(self.nodes.values()))

    def api(self, name):
        return Api(self.nodes[name].base_url, self.first.admin_token())

    def tick(self):
        """Tasks in all parts of the shards, and one executor for them."""
        group = Group(self.first, "tick")
        self.executor = FakeExecutor(self.first, group, "one", slots=1000).start()
        self.executor.answer(Done())
        api = self.first.api()
        for i in range(TASKS):
            self.tasks.append(api.ok("POST", "/tasks", {
                "name": f"tick-{i}", "executor_group": "tick", "handler": "any", "overlap_policy": "ALLOW",
                "misfire_threshold": "10m", "schedule": {"kind": "FIXED_RATE", "every": "250ms", "anchor": soon(0)}})["id"])
        self.flows(20)

    def flows(self, more):
        """So many further deliveries."""
        seen = len(self.executor.deliveries)
        self.executor.wait_deliveries(seen + more, 30)

    def owned(self, through):
        """{node: shards}, as this node says."""
        return {n["id"]: n["shards"] for n in self.api(through).items("/nodes")}

    def state(self, through, name):
        return self.api(through).ok("GET", f"/nodes/{name}")["state"]

    def wait_owned(self, through, **wanted):
        def look():
            found = self.owned(through)
            assert {k: found.get(k) for k in wanted} == wanted, found
            return True
        wait_for(look, 30, f"the nodes own {wanted}", every=0.05)

    def verify(self, through):
        """Each instant once, each attempt sent once, and nothing is left open."""
        api = self.api(through)
        for task in self.tasks:
            api.ok("POST", f"/tasks/{task}/pause")
        wait_for(lambda: not any(api.items("/runs", task=t, state="PENDING,RUNNING") for t in self.tasks), 30, "all runs end")
        for task in self.tasks:
            runs = api.items("/runs", task=task)
            instants = sorted(at(r["scheduled_at"]) for r in runs)
            assert {b - a for a, b in zip(instants, instants[1:])} == {EVERY}, [i.isoformat() for i in instants]
            assert {r["state"] for r in runs} == {"SUCCESS"}, [(r["scheduled_at"], r["state"], r["reason"]) for r in runs]
        starts = collections.Counter((d.run_id, d.attempt) for d in self.executor.deliveries)
        return [start for start, n in starts.items() if n > 1]

    def close(self):
        if self.executor:
            self.executor.stop()


@pytest.fixture
def cluster(make_node, postgres_server, tmp_path):
    made = Cluster(lambda **more: make_node(**more), postgres_server.create_database(), tmp_path)
    yield made
    made.close()


@pytest.fixture
def store_url(postgres_server):
    return postgres_server.create_database()


def three(cluster):
    for name in ("a", "b", "c"):
        cluster.node(name).start()
    wait_for(lambda: sorted(cluster.owned("a").values()) == [10, 11, 11], 30, "three shares", every=0.05)


def test_joiners_take_their_shares(cluster):
    cluster.node("a").start()
    cluster.tick()
    cluster.wait_owned("a", a=SHARDS)
    b = cluster.node("b").start()
    cluster.wait_owned("b", a=16, b=16)
    cluster.flows(100)
    cluster.node("c").start()
    wait_for(lambda: sorted(cluster.owned("a").values()) == [10, 11, 11], 30, "three shares", every=0.05)
    owners = [i for n in cluster.api("c").items("/nodes") for i in n["shard_ids"]]
    assert sorted(owners) == list(range(SHARDS))
    cluster.flows(100)
    assert b.metrics()["kelou_shards_owned"] == cluster.owned("a")["b"]
    assert b.metrics()["kelou_nodes_alive"] == 3
    assert cluster.first.metrics()["kelou_shard_handovers_total"] >= 16
    assert cluster.verify("b") == []


def test_drain_and_resume(cluster):
    three(cluster)
    cluster.tick()
    a, b = cluster.nodes["a"], cluster.nodes["b"]
    got = a.cli("node", "drain", "b", "-o", "json", check=0)
    assert json.loads(got.stdout)["shards"] == 0 and json.loads(got.stdout)["state"] == "DRAINED"
    cluster.wait_owned("c", a=16, b=0, c=16)
    assert b.ready() and cluster.api("b").ok("GET", "/tasks")["items"]  # it goes on serving
    assert any(f["code"] == "node_drained" for f in cluster.api("a").ok("GET", "/doctor")["findings"])
    cluster.flows(50)
    for kill in (False, True):
        b.restart(kill=kill)
        wait_for(lambda: cluster.state("a", "b") == "DRAINED", 20, "it is drained after the restart")
        cluster.flows(50)
        assert cluster.owned("a") == {"a": 16, "b": 0, "c": 16}
    a.cli("node", "resume", "b", check=0)
    wait_for(lambda: sorted(cluster.owned("a").values()) == [10, 11, 11], 30, "three shares", every=0.05)
    assert cluster.state("a", "b") == "ACTIVE"
    cluster.flows(50)
    assert cluster.verify("a") == []


def test_rolling_restart(cluster):
    three(cluster)
    cluster.tick()
    for name in ("c", "b", "a"):
        cluster.nodes[name].stop()
        other = "a" if name != "a" else "b"
        assert name not in cluster.owned(other)
        assert '"shards handed over before leaving" left=0' in cluster.nodes[name].log_text()
        cluster.flows(50)
        cluster.nodes[name].start()
        wait_for(lambda: sorted(cluster.owned(other).values()) == [10, 11, 11], 30, "three shares", every=0.05)
        cluster.flows(50)
    assert cluster.verify("b") == []


def test_kill(cluster):
    three(cluster)
    cluster.tick()
    cluster.nodes["b"].kill()
    cluster.wait_owned("a", a=16, c=16)
    assert cluster.state("a", "b") == "DEAD"
    assert any(f["code"] == "node_dead" for f in cluster.api("a").ok("GET", "/doctor")["findings"])
    cluster.flows(100)
    cluster.nodes["b"].start()
    wait_for(lambda: sorted(cluster.owned("a").values()) == [10, 11, 11], 30, "three shares", every=0.05)
    cluster.verify("a")  # a kill may double the delivery of what was on its way


def test_frozen_past_its_lease(cluster):
    three(cluster)
    cluster.tick()
    before = cluster.api("a").ok("GET", "/nodes/b")["incarnation"]
    cluster.nodes["b"].pause()
    try:
        cluster.wait_owned("a", a=16, c=16)
    finally:
        cluster.nodes["b"].cont()
    wait_for(lambda: sorted(cluster.owned("a").values()) == [10, 11, 11], 30, "three shares", every=0.05)
    assert int(cluster.api("a").ok("GET", "/nodes/b")["incarnation"]) > int(before)
    cluster.flows(100)
    cluster.verify("a")


def test_clock_past_the_bound(cluster):
    """Its wall clock is an hour ahead: others own its shards; alone it goes on."""
    if not os.path.exists(FAKETIME):
        pytest.skip("faketime is not installed")
    cluster.node("a", environment={"LD_PRELOAD": FAKETIME, "FAKETIME": "+1h", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}).start()
    cluster.wait_owned("a", a=SHARDS)
    b = cluster.node("b").start()
    cluster.wait_owned("b", a=0, b=SHARDS)
    assert cluster.state("b", "a") == "CLOCK"
    node = cluster.api("b").ok("GET", "/nodes/a")
    assert -3700 < node["clock_offset_seconds"] < -3500
    assert not cluster.first.ready()
    problem = cluster.api("a").get("/readyz")
    assert problem.status_code == 503 and "node.max_clock_skew" in problem.text
    assert cluster.first.metrics()["kelou_clock_skewed"] == 1 and b.metrics()["kelou_clock_skewed"] == 0
    assert any(f["code"] == "clock_past" for f in cluster.api("a").ok("GET", "/doctor")["findings"])
    b.stop()
    cluster.wait_owned("a", a=SHARDS)


def test_different_time_zone_data(cluster, tmp_path):
    cluster.node("a").start()
    assert cluster.first.metrics()["kelou_nodes_tzdata_versions"] == 1
    zones = tmp_path / "zones"
    zones.mkdir()
    for entry in os.listdir("/usr/share/zoneinfo"):
        if entry != "tzdata.zi":
            (zones / entry).symlink_to(f"/usr/share/zoneinfo/{entry}")
    (zones / "tzdata.zi").write_text("# version 1999z\n", encoding="utf-8")
    b = cluster.node("b", settings={"trigger.zone_dir": str(zones)}).start()
    wait_for(lambda: cluster.first.metrics()["kelou_nodes_tzdata_versions"] == 2, 20, "a sees the other version")
    assert cluster.api("a").ok("GET", "/nodes/b")["tzdata"] == "1999z"
    assert any(f["code"] == "nodes_zones" for f in cluster.api("a").ok("GET", "/doctor")["findings"])
    assert "different time zone data" in cluster.first.log_text()
    b.stop()
    wait_for(lambda: cluster.first.metrics()["kelou_nodes_tzdata_versions"] == 1, 20, "the other one has left")


def test_dead_nodes_are_forgotten(cluster):
    cluster.node("a", settings={"node.forget_after": "1m"}).start()
    cluster.node("b").start()
    cluster.wait_owned("a", a=16, b=16)
    cluster.nodes["b"].kill()
    cluster.wait_owned("a", a=SHARDS, b=0)
    assert cluster.state("a", "b") == "DEAD"  # not before node.forget_after; the contract tests forget


@pytest.mark.parametrize("store_of", ["sqlite", "postgres"])
def test_one_node(make_node, request, tmp_path, store_of):
    url = request.getfixturevalue("postgres_server").create_database() if store_of == "postgres" else f"sqlite:{tmp_path}/one.db"
    node = make_node(url=url, settings={"node.id": "only"}).start()
    api = node.api()
    shown = api.ok("GET", "/nodes/only")
    assert (shown["state"], shown["shards"], shown["drained"]) == ("ACTIVE", SHARDS, False)
    assert [n["id"] for n in api.items("/nodes")] == ["only"]
    assert "only" in node.cli("node", "list", check=0).stdout
    api.problem("GET", "/nodes/other", status=404)
    api.problem("POST", "/nodes/other/drain", status=404)
    node.cli("node", "drain", "other", check=3)
    viewer = api.ok("POST", "/tokens", {"name": "looks", "role": "OPERATOR"})["token"]
    Api(node.base_url, viewer).problem("POST", "/nodes/only/drain", status=403)
    assert Api(node.base_url, viewer).ok("GET", "/nodes/only")["state"] == "ACTIVE"
    # drained, and nobody else is there: it owns nothing, and says what that means
    node.cli("node", "drain", "only", check=0)
    assert api.ok("GET", "/nodes/only")["state"] == "DRAINED"
    wait_for(lambda: any(f["code"] == "shards_unowned" for f in api.ok("GET", "/doctor")["findings"]), 10, "the doctor says so")
    node.restart()
    assert api.ok("GET", "/nodes/only")["state"] == "DRAINED"
    node.cli("node", "resume", "only", check=0)
    wait_for(lambda: api.ok("GET", "/nodes/only")["shards"] == SHARDS, 10, "it owns all shards again")
