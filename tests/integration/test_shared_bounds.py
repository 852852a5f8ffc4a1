"""max_concurrent of a group on several nodes of one database: the sum keeps to the bound, everybody comes to it, also over kill -9."""
import shutil
import threading
import time

import pytest
import requests

from tests.harness.fake_executor import Accept
from tests.harness.kelou import Api, Keloud, wait_for
from tests.harness.world import Scene

SETTINGS = {"node.lease_ttl": "1s", "executor.lost_after": "1m"}


def healthy(node):
    try:
        return requests.get(node.base_url + "/healthz", timeout=5).status_code == 200
    except requests.RequestException:
        return False


class Cluster:
    def __init__(self, folder, server, url, count):
        self.nodes = [Keloud(folder / f"node{i}", url, SETTINGS) for i in range(count)]
        self.nodes[0].start()
        for node in self.nodes[1:]:
            shutil.copy(folder / "node0" / "secret.key", folder / node.folder / "secret.key")  # it seals the groups' secrets
            node.start(wait=False)
        for node in self.nodes:
            wait_for(lambda n=node: healthy(n), 30, "it answers")
        self.divide(server, url)
        for node in self.nodes:
            node.wait_ready()

    def alive(self):
        return [node for node in self.nodes if node.process and node.alive()]

    def owned(self):
        return [node.metrics().get("kelou_shards_owned", 0) for node in self.alive()]

    def divide(self, server, url):
        """Each node has some shards: what those that came later were not given is taken from the first."""
        if min(self.owned()) > 0:
            return
        odd = f"id % {len(self.nodes)} <> 0"
        server.psql(f"BEGIN; UPDATE shard SET owner = NULL, epoch = epoch + 1 WHERE {odd}; "
                    f"UPDATE shard_finish SET epoch = epoch + 1 WHERE {odd}; COMMIT", url.rsplit("/", 1)[1].split("?")[0])
        wait_for(lambda: min(self.owned()) > 0, 30, "each node has shards")

    def end(self):
        for node in self.alive():
            assert node.stop() == 0, node.log_text()[-3000:]


class Work:
    """An executor that ends what it has been given one by one, and knows how much it had at once."""

    def __init__(self, cluster, scene, seconds):
        self.cluster, self.scene, self.seconds = cluster, scene, seconds
        self.lock, self.active, self.most, self.ended, self.starts = threading.Lock(), {}, 0, set(), []
        self.over = threading.Event()
        self.executor = scene.executor("one", slots=1000)
        self.executor.answer(self.take)
        self.apis = {node: Api(node.base_url, self.executor.group.token) for node in cluster.nodes}
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def take(self, delivery):
        with self.lock:
            if delivery.run_id not in self.active and delivery.run_id not in self.ended:
                self.active[delivery.run_id] = (time.monotonic(), delivery)
                self.starts.append(delivery.run_id)
                self.most = max(self.most, len(self.active))
        return Accept(report=None)

    def run(self):
        while not self.over.wait(0.02):
            with self.lock:
                due = [d for at, d in self.active.values() if time.monotonic() - at > self.seconds]
                for delivery in due:
                    del self.active[delivery.run_id]
                    self.ended.add(delivery.run_id)
            for delivery in due:
                self.report(delivery)

    def report(self, delivery):
        """To whoever takes it: a node that does not own the shard may say that it cannot."""
        body = {"reports": [self.executor.report_of(delivery.run_id, delivery.attempt, delivery.fence)]}
        while not self.over.is_set():
            for node in self.cluster.alive():
                try:
                    if self.apis[node].post("/reports", body).status_code == 200:
                        return
                except requests.RequestException:
                    pass
            time.sleep(0.05)


@pytest.mark.parametrize("bound, count", [(1, 3), (4, 2)])
def test_the_sum_is_the_bound(postgres_server, tmp_path, bound, count):
    url = postgres_server.create_database()
    cluster = Cluster(tmp_path, postgres_server, url, count)
    try:
        scene = Scene(cluster.nodes[0], tmp_path)
        scene.group("g", max_concurrent=bound)
        work = Work(cluster, scene, 0.1)
        name = scene.group("g").name
        for node in cluster.nodes:  # each has read the group: until then it knows of no bound
            wait_for(lambda n=node: any(f'group="{name}"' in k or f'/{name}"' in k for k in n.metrics()), 20, "the group is known")
        tasks = [scene.task(f"t{n}", timeout="10m", dispatch_timeout="5m", overlap_policy="QUEUE_ALL") for n in range(24)]
        of_shard = {task.read()["shard"] for task in tasks}
        assert len(of_shard) > count
        ids = [task.trigger() for task in tasks for _ in range(2)]  # the second one waits in its task
        wait_for(lambda: len(work.ended) >= len(ids) // 3, 60, "a third has ended")
        cluster.nodes[-1].kill()
        wait_for(lambda: len(work.ended) >= len(ids), 90, f"all have ended ({len(work.ended)})")
        assert 1 <= work.most <= bound
        assert sorted(work.starts) == sorted(ids)
        for run_id in ids:
            run = scene.wait_run(run_id)
            assert (run["state"], run["attempt"]) == ("SUCCESS", 1)
        if bound > 1:
            assert work.most > 1
        work.over.set()
        scene.executors[0].stop()
    finally:
        cluster.end()


def test_a_node_alone_has_all_of_it(postgres_server, tmp_path):
    """No other node has ever been there: the bound is the bound, and nobody is asked."""
    url = postgres_server.create_database()
    cluster = Cluster(tmp_path, postgres_server, url, 1)
    try:
        scene = Scene(cluster.nodes[0], tmp_path)
        scene.group("g", max_concurrent=3)
        one = scene.executor("one")
        one.answer(Accept(report=None))
        for n in range(5):
            scene.task(f"t{n}").trigger()
        one.wait_deliveries(3)
        wait_for(lambda: len(scene.api.items("/runs", state="PENDING")) == 2, what="two wait")
        assert len(one.deliveries) == 3
        assert postgres_server.psql("SELECT count(*) FROM bound_part", url.rsplit("/", 1)[1].split("?")[0]) == "0"
        one.stop()
    finally:
        cluster.end()
