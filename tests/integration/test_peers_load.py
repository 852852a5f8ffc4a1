"""Reports to random nodes while owners are killed in turn: none lost, and what was acknowledged stands (docs/adr/0024)."""
import asyncio
import json
import queue
import random
import threading
import time

import pytest
import requests

from tests.harness.kelou import Group, wait_for
from tests.harness.servers import free_port
from tests.integration.test_peers import Cluster, make_node  # noqa: F401  pylint: disable=unused-import

TASKS, EVERY, BATCH, REPORTERS = 50, "100ms", 10, 4


@pytest.fixture
def store():
    return "postgres"


class Acceptor(threading.Thread):
    """Answers every delivery 202 and puts it into a queue, once."""

    def __init__(self):
        super().__init__(daemon=True)
        self.port, self.got, self.seen = free_port(), queue.Queue(), set()
        self.loop = asyncio.new_event_loop()
        self.ready = threading.Event()

    async def _serve(self, reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0)
                body = await reader.readexactly(length)
                if head.startswith(b"POST") and b"/run " in head.split(b"\r\n")[0]:
                    message = json.loads(body)
                    key = (message["run_id"], message["attempt"])
                    if key not in self.seen:
                        self.seen.add(key)
                        self.got.put(message)
                writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _main(self):
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.ready.set()
        async with server:
            await server.serve_forever()

    def run(self):
        try:
            self.loop.run_until_complete(self._main())
        except (asyncio.CancelledError, RuntimeError):
            pass

    def stop(self):
        self.loop.call_soon_threadsafe(lambda: [t.cancel() for t in asyncio.all_tasks(self.loop)])


class Reporter(threading.Thread):
    """Reports SUCCESS of what has come to a random node, and again to another one until it is answered."""

    def __init__(self, nodes, token, got, over):
        super().__init__(daemon=True)
        self.nodes, self.got, self.over = nodes, got, over
        self.acknowledged, self.tries = {}, 0
        self.http = requests.Session()
        self.http.trust_env = False
        self.http.headers["Authorization"] = f"Bearer {token}"

    def _take(self):
        batch = []
        try:
            batch.append(self.got.get(timeout=0.2))
            while len(batch) < BATCH:
                batch.append(self.got.get_nowait())
        except queue.Empty:
            pass
        return batch

    def _post(self, batch):
        """The answer by run, or nothing: not answered, or not all recorded."""
        body = {"reports": [{"run_id": m["run_id"], "attempt": m["attempt"], "fence": m["fence"], "state": "SUCCESS", "executor": "w",
                             "result": {"of": m["run_id"]}} for m in batch]}
        self.tries += 1
        try:
            answer = self.http.post(random.choice(self.nodes).base_url + "/api/v1/reports", json=body, timeout=10)
            return [r["status"] for r in answer.json()["results"]] if answer.status_code == 200 else None
        except requests.RequestException:
            return None

    def run(self):
        while True:
            batch = self._take()
            if not batch and self.over.is_set() and self.got.empty():
                return
            statuses = self._post(batch) if batch else []
            while statuses is None:
                time.sleep(0.05)
                statuses = self._post(batch)
            for message, status in zip(batch, statuses):
                self.acknowledged[(message["run_id"], message["attempt"])] = status


def kill_in_turn(made, rounds):
    for n in range(rounds):
        node = made.nodes[n % len(made.nodes)]
        time.sleep(3)  # load, not a wait: the others work meanwhile
        node.kill()
        time.sleep(3)
        node.start(wait=False)
        wait_for(lambda it=node: Cluster.answers(it), 30, "the node is back")


def test_reports_to_random_nodes_while_owners_are_killed(postgres_server, make_node, request):  # noqa: F811
    made = Cluster(postgres_server, make_node, 3, {"node.lease_ttl": "2s", "executor.lost_after": "10m", "log.level": "warn"})
    group, acceptor, over = Group(made.nodes[0]), Acceptor(), threading.Event()
    acceptor.start()
    acceptor.ready.wait(10)
    made.nodes[0].api(group.token).ok("POST", "/executors/register", {
        "id": "w", "namespace": "default", "group": "sample", "url": f"http://127.0.0.1:{acceptor.port}", "handlers": ["h"], "slots": 10000})
    reporters = [Reporter(made.nodes, group.token, acceptor.got, over) for _ in range(REPORTERS)]
    for r in reporters:
        r.start()
    began = time.monotonic()
    made.nodes[0].api().ok("POST", "/tasks/batch", {"tasks": [
        {"name": f"t{n}", "namespace": "default", "executor_group": "sample", "handler": "h", "overlap_policy": "ALLOW",
         "schedule": {"kind": "FIXED_RATE", "every": EVERY}} for n in range(TASKS)]})
    kill_in_turn(made, 12 if request.config.getoption("--long") else 3)
    for n in range(TASKS):
        made.nodes[n % 3].api().ok("POST", f"/tasks/default%2Ft{n}/pause")
    wait_for(lambda: made.sql("SELECT count(*) FROM run") == "0", 120, "every run ends", every=0.5)
    took = time.monotonic() - began
    over.set()
    for r in reporters:
        r.join(60)
        assert not r.is_alive()
    acceptor.stop()
    acknowledged = {k: v for r in reporters for k, v in r.acknowledged.items()}
    ended = dict(row.split("|") for row in made.sql("SELECT state, count(*) FROM run_history GROUP BY 1").splitlines())
    assert set(ended) <= {"2", "5"}, f"not every run ended in SUCCESS: {ended}"
    assert set(acknowledged) == acceptor.seen and made.inbox() == 0
    assert set(acknowledged.values()) <= {"recorded", "late"}
    assert len({k[0] for k in acknowledged}) == int(ended["2"]) > 0
    wrong = made.sql("SELECT count(*) FROM run_history WHERE state = 2 AND (result IS NULL OR attempt <> 1 OR executor <> 'w')")
    assert wrong == "0", wrong
    ways = {way: sum(n.metrics()[f'kelou_events_forwarded_total{{way="{way}"}}'] for n in made.nodes) for way in ("node", "inbox", "refused")}
    print(f"{len(acknowledged)} reports in {took:.0f} s, {sum(r.tries for r in reporters)} requests; in the nodes' last lives forwarded: {ways}")
