"""A stage for one measurement: a database, keloud as a process of its own, executors as processes of theirs."""
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from datetime import datetime, timezone

from tests.bench import measure
from tests.harness.kelou import ROOT, Group, Keloud, wait_for
from tests.harness.servers import Postgres, dies_with_me

BATCH = 1000
SLOTS_SECONDS, SHARE_SECONDS = 20, 30


def built(name):
    folder = os.environ["KELOU_BUILD"]
    return os.path.join(ROOT, folder, name)


def rfc3339(us):
    return datetime.fromtimestamp(us / 1e6, timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")


class Database:
    """A fresh database of a store; PostgreSQL runs with fsync on."""

    def __init__(self, store, server, folder):
        self.store, self.server = store, server
        self.folder = folder
        self.url = server.create_database() if store == "postgres" else f"sqlite:{folder}/kelou.db"

    @property
    def pid(self):
        return self.server.process.pid if self.store == "postgres" else 0

    def cpu_us(self):
        return measure.tree_cpu_us(self.pid) if self.pid else 0.0

    def size(self):
        if self.store == "postgres":
            return int(self.server.psql("SELECT pg_database_size(current_database())", self.url.rpartition("/")[2]))
        return sum(os.path.getsize(f"{self.folder}/{n}") for n in os.listdir(self.folder) if n.startswith("kelou.db") and not n.endswith("lock"))

    def rows(self, sql):
        if self.store == "postgres":
            text = self.server.psql(sql, self.url.rpartition("/")[2])
            return [line.split("|") for line in text.splitlines()]
        with sqlite3.connect(f"file:{self.folder}/kelou.db?mode=ro", uri=True, timeout=20) as db:
            return db.execute(sql).fetchall()

    def decided(self, low, high):
        """p50, p99, p99.9, max of fired_at − scheduled_at (ms) over scheduled_at in (low, high]."""
        rows = sorted(int(r[0]) for r in self.rows(f"SELECT fired_at - scheduled_at FROM run_history WHERE scheduled_at > {low} "
                                                   f"AND scheduled_at <= {high} AND part = 0"))
        return [rows[min(len(rows) - 1, int(len(rows) * q))] / 1000 for q in (.5, .99, .999, 1)] if rows else [0.0] * 4


class Executor:
    """One kelou-bench-executor."""

    def __init__(self, stage, number, inline):
        files = {}
        for what, text in (("token", stage.group.token), ("secret", stage.group.secret)):
            files[what] = os.path.join(stage.folder, f"{what}.{number}")
            with os.fdopen(os.open(files[what], os.O_WRONLY | os.O_CREAT, 0o600), "w") as f:
                f.write(text + "\n")
        turn = number % len(stage.nodes)
        servers = ",".join(n.base_url for n in stage.nodes[turn:] + stage.nodes[:turn])
        command = [built("tests/bench/kelou-bench-executor"), "--server", servers, "--token-file", files["token"], "--secret-file",
                   files["secret"], "--group", "bench", "--id", f"bench-{number}", *(["--answer-inline"] if inline else [])]
        self.process = subprocess.Popen(dies_with_me(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if self.process.stdout.readline().strip() != "registered":
            raise RuntimeError(f"the executor does not start: {self.process.stderr.read()[-2000:]}")
        self.late = None

    def begin(self):
        self.process.send_signal(signal.SIGUSR1)

    def end(self):
        """Its receipts since begin()."""
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=SLOTS_SECONDS)
        self.late = json.loads(out.strip().splitlines()[-1])
        return self.late


class Stage:
    """Use as a context manager; `node` is ready inside; with several `nodes` each has its share of the shards."""

    def __init__(self, store, server, executors=0, inline=False, settings=None, nodes=1):
        self.folder = tempfile.mkdtemp(prefix="kelou-bench-")
        self.database = Database(store, server, self.folder)
        settings = {"log.level": "warn", "dispatch.connections": 32, **(settings or {})}
        self.node = Keloud(self.folder, self.database.url, settings)
        self.nodes = [self.node] + [Keloud(f"{self.folder}/node-{i + 1}", self.database.url, settings) for i in range(1, nodes)]
        self.wanted, self.inline = executors, inline
        self.group, self.executors = None, []

    def __enter__(self):
        self.node.start()
        for other in self.nodes[1:]:
            shutil.copy(f"{self.folder}/secret.key", f"{other.folder}/secret.key")
            other.start()
        wait_for(self.shared, SHARE_SECONDS, "each node has its share of the shards")
        if self.wanted:
            self.group = Group(self.node, "bench")
            self.executors = [Executor(self, i, self.inline) for i in range(self.wanted)]
        return self

    def shared(self):
        """Is each node ready, with as many shards as any other, one more or less?"""
        owned = [measure.total(measure.metrics(n.base_url), "kelou_shards_owned") for n in self.nodes]
        assert len(owned) == 1 or (min(owned) > 0 and max(owned) - min(owned) <= 1), owned
        return all(n.ready() for n in self.nodes)

    def __exit__(self, *_):
        for x in self.executors:
            if x.process.poll() is None:
                x.process.kill()
                x.process.wait()
        for node in self.nodes:
            node.kill()
        subprocess.run(["rm", "-rf", self.folder], check=False)

    def make(self, tasks):
        """Create tasks through the API, a thousand a call."""
        api = self.node.api()
        for i in range(0, len(tasks), BATCH):
            api.ok("POST", "/tasks/batch", {"tasks": tasks[i:i + BATCH]}, timeout=60)

    def make_rate(self, count, rate):
        """`count` FIXED_RATE tasks that fire `rate` times a second together, evenly spread. Returns when the first is due (µs)."""
        every_ms = max(1, round(count * 1000 / rate))
        begin = time.time_ns() // 1000 + 2_000_000 + count * 60
        self.make([{"name": f"b{i}", "executor_group": "bench", "handler": "noop", "overlap_policy": "ALLOW", "timeout": "10m",
                    "schedule": {"kind": "FIXED_RATE", "every": f"{every_ms}ms", "anchor": rfc3339(begin + i * every_ms * 1000 // count)}}
                   for i in range(count)])
        return begin

    def make_herd(self, count, seconds=6):
        """`count` ONE_TIME tasks due at one instant. Returns it (µs)."""
        at = (time.time_ns() // 1_000_000_000 + seconds) * 1_000_000
        self.make([{"name": f"h{i}", "executor_group": "bench", "handler": "noop", "schedule": {"kind": "ONE_TIME", "run_at": rfc3339(at)}}
                   for i in range(count)])
        return at

    def counted(self):
        """/metrics of all nodes, added up."""
        found = {}
        for node in self.nodes:
            for name, value in measure.metrics(node.base_url).items():
                found[name] = found.get(name, 0.0) + value
        return found

    def usage(self):
        counted = self.counted()
        return {"at": time.monotonic(), "node": sum(measure.cpu_us(n.pid) for n in self.nodes), "database": self.database.cpu_us(),
                "executors": sum(measure.cpu_us(x.process.pid) for x in self.executors), "size": self.database.size(),
                "lives": measure.total(counted, "kelou_runs_total"), "fires": measure.total(counted, "kelou_fires_total")}

    def window(self, seconds):
        """Measure for so long: what happened a second and what each life cost."""
        for x in self.executors:
            x.begin()
        low, a = time.time_ns() // 1000, self.usage()
        time.sleep(seconds)
        b, high = self.usage(), time.time_ns() // 1000
        lives, took = max(1.0, b["lives"] - a["lives"]), b["at"] - a["at"]
        got = {"lives_s": lives / took, "fires_s": (b["fires"] - a["fires"]) / took, "seconds": took, "low": low, "high": high,
               "rss_mb": sum(measure.rss_mb(n.pid) for n in self.nodes), "bytes": (b["size"] - a["size"]) / lives}
        for name in ("node", "database", "executors"):
            got[f"{name}_us"] = (b[name] - a[name]) / lives
        got["busy"] = sum(b[n] - a[n] for n in ("node", "database", "executors")) / took / 1e4 / os.cpu_count()
        return got

    def finish(self):
        """End the executors; their receipts, merged (the worst of each quantile)."""
        found = [x.end() for x in self.executors]
        return {name: max(f[name] for f in found) for name in found[0]} if found else {}


def wait_until(us):
    wait_for(lambda: time.time_ns() // 1000 >= us, max(1.0, us / 1e6 - time.time() + 5), "the start", every=0.01)


def postgres():
    """A server as a careful administrator would set it up on a small machine; fsync and synchronous_commit stay on."""
    return Postgres({"shared_buffers": "256MB", "max_wal_size": "2GB", "checkpoint_timeout": "15min"})
