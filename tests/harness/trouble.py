"""Nodes under load while something is done to their database or their clock, and the proof that nothing was lost or doubled.

    with Trouble(tmp_path, url, nodes=2) as t:
        server.stop_hard(); t.wait_not_ready(); server.resume(); t.wait_ready()
        t.prove()

The load: tasks that fire often, at an executor that answers with the result (so that any node may deliver), and on one node people, too,
who call the API all the while (tests/fault/workload.py). `prove` lets everything end and asks the verifier (tests/verify)."""
import os
import re
import shutil
import subprocess
import sys
import time

import requests

from tests.fault.workload import People, cron, rate, task
from tests.verify.rules import DOUBLED, LOST, OTHER, STUCK
from tests.verify.verify import report, verify

from .kelou import ROOT, Group, Keloud, Process, binary, wait_for

TAIL = ("before it was fired", "was started and has no row")  # a FIXED_DELAY counts anew from what is left
END_SECONDS, STATE_FILES = 90, ("secret.key", "admin.token")
LEASE_SECONDS, SHARDS = 2.0, 32
RECOVERY_SECONDS = LEASE_SECONDS + 10  # after the trouble has ended
SETTINGS = {"log.level": "info", "node.lease_ttl": "2s", "executor.lost_after": "60s", "store.statement_timeout": "3s"}


def standing(misfires="SKIP"):
    """About 60 fires a second whose results come in the answer. `misfires`: what becomes of an instant that is no lateness any more."""
    made = [task(f"tick-{n}", rate("500ms"), "inline", overlap_policy="ALLOW", misfire_policy=misfires) for n in range(16)]
    made += [task(f"fast-{n}", rate("200ms"), "inline", overlap_policy="QUEUE_ALL", misfire_policy=misfires) for n in range(4)]
    made += [task(f"cron-{n}", cron("* * * * * ?"), "inline", overlap_policy="ALLOW", misfire_policy=misfires) for n in range(4)]
    return made + [task(f"delay-{n}", {"kind": "FIXED_DELAY", "every": "500ms"}, "inline") for n in range(4)]


class Trouble:
    """`nodes` nodes on one database, under load. `environments`: per node, added to its environment."""

    def __init__(self, folder, url, nodes=1, settings=None, environments=(), people=False, seed=1):
        self.folder = str(folder)
        environments = [*environments, *[None] * nodes][:nodes]
        self.nodes = [Keloud(os.path.join(self.folder, f"node-{n}"), url, {**SETTINGS, "node.id": f"n{n}", **(settings or {})}, environment)
                      for n, environment in enumerate(environments)]
        self.url, self.seed, self.with_people = url, seed, people
        self.journals = [os.path.join(self.folder, name) for name in ("executor.journal", "people.journal")]
        self.executor = self.people = None
        self.began, self.paused = time.monotonic(), []

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, kind, *_):
        self.end(kind is None)

    @property
    def node(self):
        return self.nodes[0]

    def start(self):
        first, *others = self.nodes
        first.start()
        for node in others:  # one cluster: one key
            for name in STATE_FILES:
                shutil.copy(os.path.join(first.folder, name), node.folder)
            node.start(wait=False)
        group = Group(first, "fault")
        command = [sys.executable, os.path.join(ROOT, "tests", "fault", "busy_executor.py"), "--server", first.base_url, "--token", group.token,
                   "--secret", group.secret, "--group", group.name, "--name", "executor", "--journal", self.journals[0]]
        self.executor = Process(command, os.path.join(self.folder, "executor.log")).start()
        self.wait_ready()
        wait_for(lambda: first.api().items("/executors"), 20, "the executor")
        self.people = People(first, self.journals[1], self.seed)
        if self.with_people:
            self.people.make_standing(0.3)
            self.people.start()
        else:
            self.people.api = first.api()
            for made in self.people.api.ok("POST", "/tasks/batch", {"tasks": standing()})["items"]:
                self.people.note("created", task_id=made["id"])
        self.wait_fires(50)

    # what a test waits for

    def ready(self):
        return [node.ready() for node in self.nodes]

    def wait_ready(self, seconds=RECOVERY_SECONDS):
        """Every shard has an owner that is ready."""
        def look():
            assert all(node.alive() for node in self.nodes), [node.log_text()[-1500:] for node in self.nodes]
            ready = [node for node in self.nodes if node.ready()]
            assert ready, "no node is ready"
            owned = self.metric("kelou_shards_owned", nodes=ready)
            assert owned == SHARDS, f"{owned} of {SHARDS} shards are owned by nodes that are ready"
            return True
        wait_for(look, seconds, "all shards have an owner that is ready", every=0.05)

    def wait_not_ready(self, seconds=20):
        wait_for(lambda: not any(self.ready()), seconds, "no node is ready")

    def metric(self, name, labels="", nodes=None):
        """The sum over the nodes that answer."""
        total = 0
        for node in nodes or self.nodes:
            try:
                found = node.metrics()
            except requests.RequestException:
                continue
            total += sum(value for key, value in found.items() if key.partition("{")[0] == name and labels in key)
        return total

    def fires(self):
        return self.metric("kelou_fires_total")

    def wait_fires(self, more, seconds=RECOVERY_SECONDS):
        """So many more fires than now."""
        before = self.fires()
        wait_for(lambda: self.fires() >= before + more, seconds, f"{more} more fires", every=0.05)

    def wait_on_time(self, seconds=30):
        """Nothing that is due waits any more: what fires now was due less than a second ago."""
        bucket = "kelou_fire_lateness_seconds_bucket"

        def counts():
            try:
                found = [node.metrics() for node in self.nodes]  # both of one moment
            except requests.RequestException as e:
                raise AssertionError(f"a node does not answer yet: {e}") from None
            return [sum(m[f'{bucket}{{le="{bound}"}}'] for m in found) for bound in ("1", "+Inf")]

        def look():
            before = counts()
            self.wait_fires(20)
            on_time, fired = (now - then for now, then in zip(counts(), before))
            assert on_time >= fired > 0, f"{on_time} of {fired}"
            return True
        wait_for(look, seconds, "fires are on time again", every=0.05)

    def problem(self, path="/tasks", node=None):
        """(status, document) of a request to the API; a document only of a problem."""
        node = node or self.node
        answer = node.api().get(path)
        return answer.status_code, answer.json() if not answer.ok else None

    def wait_problem(self, path="/tasks", seconds=30):
        """The API says 503 and why; returns the problem."""
        def look():
            status, document = self.problem(path)
            assert status == 503, (status, document)
            return document
        found = wait_for(look, seconds, f"{path} answers 503")
        assert found["detail"] and found["code"], found
        return found

    def log(self):
        return "\n".join(node.log_text() for node in self.nodes)

    # the end

    def all_ended(self):
        for state in ("PENDING", "RUNNING"):
            page = self.node.api().ok("GET", "/runs", params={"state": state, "limit": 100})
            assert not page["items"], page["items"][0]
        return True

    def prove(self, least=100, tail_lost=False):
        """Let everything end, stop the nodes, and have the verifier look. Returns what it found. `tail_lost`: the database has lost its last
        commits, so executors know of starts before what is now the fire."""
        self.people.finish() if self.with_people else self.hold()
        wait_for(self.all_ended, END_SECONDS, "every run ends", every=0.2)
        for node in self.nodes:
            code = node.stop()
            assert code == 0, f"keloud ended with {code}: {node.log_text()[-3000:]}"
        found = verify(self.url, self.journals, binary("kelou"), all_ended=True, grace_seconds=60 + time.monotonic() - self.began)
        text = report(found)
        print(text)
        wrong = [t for kind in (LOST, DOUBLED, STUCK, OTHER) for t in found.texts[kind] if not (tail_lost and any(x in t for x in TAIL))]
        assert not wrong and not self.people.wrong, "\n".join([*wrong[:10], text, *self.people.wrong])
        assert found.instants >= least, text
        return found

    def hold(self):
        for made in self.node.api().items("/tasks", limit=1000):
            if made["state"] == "ENABLED":
                self.node.api().ok("POST", f"/tasks/{made['id']}/pause")

    def end(self, good=False):
        if self.people:
            self.people.stopping.set()
        for process in (*self.nodes, self.executor):
            if process:
                process.stop(40)
        log = self.log()
        assert not re.search(r"AddressSanitizer|ThreadSanitizer|runtime error:|LeakSanitizer", log), log[-6000:]
        assert not good or all(node.process is None or node.process.returncode == 0 for node in self.nodes), log[-4000:]


class SmallDisk:
    """A file system of a few megabytes in memory. Needs root; `why_not()` says why there is none."""

    def __init__(self, folder, megabytes, owner=None):
        self.folder, self.megabytes, self.owner = str(folder), megabytes, owner
        self.ballast = os.path.join(self.folder, "ballast")

    @staticmethod
    def why_not():
        if os.geteuid() != 0:
            return "only root can mount a small disk"
        trial = subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, text=True, check=False)
        return trial.stderr.strip() if trial.returncode else None

    def __enter__(self):
        os.makedirs(self.folder, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={self.megabytes}m,mode=0755", "tmpfs", self.folder], check=True)
        if self.owner:
            shutil.chown(self.folder, self.owner)
        return self

    def __exit__(self, *_):
        subprocess.run(["umount", "-l", self.folder], check=False)

    def fill(self):
        """Take all the room there is."""
        with open(self.ballast, "ab", buffering=0) as f:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while f.write(b"\0" * size) == size:
                        pass
                except OSError:
                    pass

    def clear(self):
        os.unlink(self.ballast)


def get(node, path):
    """A request without patience: the status, or None."""
    try:
        return requests.get(node.base_url + path, timeout=5).status_code
    except requests.RequestException:
        return None
