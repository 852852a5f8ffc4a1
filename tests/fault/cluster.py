"""Nodes on one PostgreSQL, executors, and a link of the proxy for every way between them."""
import os
import random
import shutil
import sys
import time
from types import SimpleNamespace as Plain

import requests

from tests.fault import audit
from tests.fault.drops import Drops, inside
from tests.fault.proxy import Proxy
from tests.harness.kelou import ROOT, Api, Group, Keloud, Process, SampleExecutor, wait_for
from tests.harness.servers import dies_with_me, free_port

FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
GROUP, READY_SECONDS = "fault", 60
BEAT_SECONDS, LOST_SECONDS = 2, 8
LOOK_SECONDS = 0.3  # a node that does not answer must not hold up the plan


class AnyApi(Api):
    """The API of all nodes: each call goes to one of them, by lot; which one must not matter."""

    def __init__(self, apis, dice):
        super().__init__("", None)
        self.apis, self.random = apis, dice

    def request(self, method, path, body=None, headers=None, raw=None, **more):
        return self.random.choice(self.apis).request(method, path, body, headers, raw, **more)


class Node(Keloud):
    """One of several: its database, its peers and its clients reach it through links `db-N`, `peer-N` and `api-N`."""

    def __init__(self, cluster, number):
        self.number, self.name = number, f"node-{number}"
        self.direct = cluster.database
        port = free_port()
        db = cluster.proxy.open(f"db-{number}", cluster.server.port)
        self.peer_port = cluster.proxy.open(f"peer-{number}", port, http=True)
        self.api_port = cluster.proxy.open(f"api-{number}", port, http=True)
        url = cluster.database.replace(f":{cluster.server.port}/", f":{db}/") + f"?options=-c%20kelou.node%3D{self.name}"
        super().__init__(os.path.join(cluster.folder, self.name), url, {
            "node.id": self.name, "node.address": f"127.0.0.1:{self.peer_port}", "node.lease_ttl": f"{cluster.lease:g}s", "log.level": "warn",
            "executor.lost_after": f"{LOST_SECONDS}s", **cluster.settings}, port=port, name=self.name)
        self.counted, self.last = {}, {}
        self.clock = None
        if number == cluster.clock_node:
            self.clock = os.path.join(self.folder, "clock")
            self.set_clock("+0")
            self.environment.update(LD_PRELOAD=FAKETIME, FAKETIME_TIMESTAMP_FILE=self.clock, FAKETIME_NO_CACHE="1",
                                    FAKETIME_DONT_FAKE_MONOTONIC="1")

    def set_clock(self, text):
        """What libfaketime reads: +SECONDS, or `+0 xRATE`."""
        with open(self.clock + ".new", "w", encoding="utf-8") as f:
            f.write(text + "\n")
        os.replace(self.clock + ".new", self.clock)

    def up(self):
        """Whether it answers at all."""
        try:
            return requests.get(self.base_url + "/healthz", timeout=5).status_code == 200
        except requests.RequestException:
            return False

    def look(self):
        """Add up its counters over its lives, as far as they can be read now."""
        try:
            got = {k: v for k, v in self.metrics(LOOK_SECONDS).items() if k.partition("{")[0] in COUNTED}
        except Exception:  # pylint: disable=broad-except
            return  # frozen, dead or busy
        for name, value in got.items():
            before = self.last.get(name, 0.0)
            self.counted[name] = self.counted.get(name, 0.0) + (value - before if value >= before else value)
        self.last = got

    def start(self, wait=True):
        self.last = {}
        return super().start(wait)


COUNTED = ("kelou_shard_takeovers_total", "kelou_fencing_rejections_total", "kelou_fires_total", "kelou_fire_refusals_total",
           "kelou_fire_errors_total", "kelou_runs_total", "kelou_reports_total", "kelou_dispatch_total", "kelou_db_errors_total")


class Cluster:
    """`start()` returns when all nodes are ready and all executors are known."""

    def __init__(self, folder, server, nodes=3, lease=2.0, seed=0, settings=None, clock_node=0):
        self.folder, self.lease, self.settings = str(folder), lease, settings or {}
        os.makedirs(self.folder, exist_ok=True)
        self.clock_node = clock_node if os.path.exists(FAKETIME) else 0
        self.random = random.Random(seed)
        self.server, self.database = server, server.create_database()
        self.database_name = self.database.rpartition("/")[2]
        self.proxy, self.drops = Proxy(self.folder, dies_with_me, seed), Drops() if inside() else None
        self.nodes = [Node(self, i + 1) for i in range(nodes)]
        self.executors, self.journals, self.group = [], [], None

    def api(self):
        return AnyApi([n.api() for n in self.nodes], self.random)

    def share_files(self):
        """What nodes of one cluster have in common: the key of the secrets, and here the admin's token."""
        for node in self.nodes[1:]:
            for name in ("secret.key", "admin.token"):
                shutil.copy(os.path.join(self.nodes[0].folder, name), os.path.join(node.folder, name))

    def start(self):
        self.nodes[0].start()
        self.share_files()
        audit.install(self)
        for node in self.nodes[1:]:
            node.start(wait=False)
        wait_for(self.settled, READY_SECONDS, "all shards have an owner", every=0.1)
        self.group = Group(self.nodes[0], GROUP)
        return self

    def servers(self, first):
        """The base URLs of all nodes through their links, another one first for each executor."""
        turn = [f"http://127.0.0.1:{n.api_port}" for n in self.nodes]
        return ",".join(turn[first % len(turn):] + turn[:first % len(turn)])

    def add_executors(self, kinds):
        """`sample` (the SDK in C), `inline` (the same, answering at once), `busy` (in Python, shares no code with it); returns when all are
        known to every node."""
        for kind in kinds:
            number = len(self.executors) + 1
            name = f"executor-{number}"
            journal = os.path.join(self.folder, name + ".journal")
            if kind == "busy":
                x = self.busy(name, number, journal)
            else:
                extra = ("--handlers", "echo", "--answer-inline") if kind == "inline" else ("--handlers", "echo,sleep,fail")
                shim = Plain(base_url=self.servers(number))
                x = SampleExecutor(self.folder, shim, self.group, name, (
                    "--slots", "100", "--queue", "900", "--weight", "4", "--grace", "1s", "--heartbeat",
                    f"{BEAT_SECONDS}s", *extra))
                x.command += ["--url", f"http://127.0.0.1:{self.proxy.open(f'run-{number}', x.port, http=True)}"]
            self.executors.append(x)
            self.journals.append(journal)
            x.start()
        wait_for(self.executors_known, 30, "executors", every=0.2)
        return self

    def busy(self, name, number, journal):
        port = free_port()
        url = f"http://127.0.0.1:{self.proxy.open(f'run-{number}', port, http=True)}"
        command = [sys.executable, os.path.join(ROOT, "tests", "fault", "busy_executor.py"), "--server", self.servers(number), "--token",
                   self.group.token, "--secret", self.group.secret, "--group", GROUP, "--name", name, "--journal", journal, "--port", str(port),
                   "--url", url]
        return Process(command, os.path.join(self.folder, name + ".log"))

    def executors_known(self):
        for node in self.nodes:
            online = [x for x in node.api().items("/executors") if x["state"] == "ONLINE"]
            assert len(online) == len(self.executors), f"{node.settings['node.id']}: {len(online)}"
        return True

    def sql(self, text):
        """Rows of text, fields separated by |."""
        return [line.split("|") for line in self.server.psql(text, self.database_name).splitlines()]

    def owners(self):
        """{shard: (node, epoch)}"""
        return {int(s): (owner, int(epoch)) for s, owner, epoch in self.sql("SELECT id, coalesce(owner, ''), epoch FROM shard")}

    def balanced(self):
        """Every node has its share."""
        owned = [owner for owner, _ in self.owners().values()]
        counts = {n.settings["node.id"]: owned.count(n.settings["node.id"]) for n in self.nodes if n.alive()}
        assert sum(counts.values()) == len(owned) and max(counts.values()) - min(counts.values()) <= 1, counts
        return True

    def settled(self):
        """Every node is up, every shard has an owner that lives, and who owns any is ready."""
        owners = {owner for owner, _ in self.owners().values()}
        for node in self.nodes:
            assert node.alive() and node.up(), f"{node.name} is not up"
            assert node.name not in owners or node.ready(), f"{node.name} is not ready"
        assert owners <= {n.name for n in self.nodes}, f"owners: {owners}"
        return True

    def calm(self):
        """Every link is whole again."""
        for name, port in self.proxy.ports.items():
            self.proxy.calm(name)
            if self.drops:
                self.drops.heal(port)

    def counted(self, name):
        """A counter, or the sum of a family, over all nodes and their lives."""
        return sum(v for n in self.nodes for k, v in n.counted.items() if k.partition("{")[0] == name)

    def look(self):
        for node in self.nodes:
            if node.alive():
                node.look()

    def stop(self):
        for p in (*self.executors, *self.nodes):
            p.stop()
        self.proxy.stop()


def now_us():
    return time.time_ns() // 1000
