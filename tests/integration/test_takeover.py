"""Two nodes on one PostgreSQL, kill -9 of the one that has all runs in flight: the other goes on with each of them as it was."""
import os
import shutil
import subprocess
from datetime import timedelta

import pytest
import requests

from tests.harness.fake_executor import Accept, Busy, Done, Hang
from tests.harness.kelou import Api, Keloud, wait_for
from tests.harness.servers import Postgres, dies_with_me, postgres_bin
from tests.harness.world import Scene, at, seconds_between, soon

LEASE = "1s"
ERROR = {"type": "T", "message": "m"}


def run_sql(url, text):
    subprocess.run([os.path.join(postgres_bin(), "psql"), url, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", text], check=True)


class Pair:
    """A node that has everything, and one that comes later."""

    def __init__(self, folder, url, settings):
        settings = {"node.lease_ttl": LEASE, "executor.lost_after": "1m", "run.write_running_after": "100ms", **settings}
        self.first = Keloud(folder / "first", url, settings).start()
        self.second = Keloud(folder / "second", url, settings)
        shutil.copy(folder / "first" / "secret.key", folder / "second" / "secret.key")  # it seals the groups' secrets
        self.scene = Scene(self.first, folder)
        self.token = self.first.admin_token()

    def take_over(self, before_start=None):
        """kill -9 of the first node; the second one is ready when it has its shards."""
        self.first.kill()
        if before_start:
            before_start()
        self.second.start()
        self.scene.api = Api(self.second.base_url, self.token)
        self.scene.node = self.second
        for executor in self.scene.executors:
            executor.node, executor.api = self.second, Api(self.second.base_url, executor.group.token)
        for task in self.scene.tasks:
            task.api = self.scene.api

    def end(self):
        for executor in self.scene.executors:
            executor.stop()
        for node in (self.first, self.second):
            if node.process and node.alive():
                assert node.stop() == 0, node.log_text()[-3000:]


@pytest.fixture
def make_pair(postgres_server, tmp_path):
    made = []

    def make(**settings):
        made.append(Pair(tmp_path, postgres_server.create_database(), settings))
        return made[-1]
    yield make
    for pair in made:
        pair.end()


def deliveries_of(executor, run_id):
    return [d for d in executor.deliveries if d.run_id == run_id]


def test_runs_in_flight(make_pair):
    pair = make_pair()
    scene = pair.scene
    works, mute, slow, full = (scene.executor(name, name) for name in ("works", "mute", "slow", "full"))
    works.answer(Accept(report=None))
    mute.answer(Hang(60))
    full.answer(Busy())
    slow.answer(Accept(delay=1.5, result="meanwhile"))
    ids = {}
    running = scene.task("running", group="works", overlap_policy="QUEUE_ALL")
    ids["running"] = running.trigger()
    ids["watched"] = scene.task("watched", group="works", attempt_timeout="6s").trigger()
    works.wait_deliveries(2)
    for name in ("running", "watched"):
        scene.wait_run(ids[name], "RUNNING", reason="ACCEPTED")
    ids["queued"] = running.trigger()
    scene.wait_run(ids["queued"], "PENDING", reason="QUEUED")
    ids["mute"] = scene.task("mute", group="mute", dispatch_timeout="1m").trigger()
    mute.wait_deliveries(1)
    ids["full"] = scene.task("full", group="full", dispatch_timeout="1m").trigger()
    full.wait_deliveries(1)
    works.script(Done(state="FAIL", error=ERROR))
    retry = {"max_attempts": 2, "initial_interval": "3s", "jitter": 0}
    ids["retry"] = scene.task("retry", group="works", retry=retry).trigger()
    due = scene.wait_run(ids["retry"], "PENDING", reason="RETRY_WAIT")["not_before"]
    ids["expires"] = scene.task("expires", group="nobody", dispatch_timeout="10m", timeout="5s").trigger()
    fired = scene.wait_run(ids["expires"], "PENDING", reason="DISPATCHING")["fired_at"]
    delay = scene.task("delay", {"kind": "FIXED_DELAY", "every": "300ms"}, group="slow")
    slow.wait_deliveries(1)
    ids["delay"] = slow.deliveries[0].run_id
    scene.wait_run(ids["delay"], "RUNNING")
    ids["asked"] = scene.task("asked", group="slow").trigger()  # acknowledged, perhaps not fired yet
    pair.take_over()
    # RUNNING: watched, not delivered again, ended by its report; QUEUED: let go by that
    run = scene.run(ids["running"])
    assert (run["state"], run["attempt"], run["executor"]) == ("RUNNING", 1, "works")
    first = deliveries_of(works, ids["running"])[0]
    assert not deliveries_of(works, ids["queued"])
    works.report(ids["running"], 1, first.fence, result="after it")
    assert scene.wait_run(ids["running"], "SUCCESS")["result"] == "after it"  # by way of the inbox, if nobody had the shard yet
    wait_for(lambda: deliveries_of(works, ids["queued"]), what="the queued one")
    assert len(deliveries_of(works, ids["running"])) == 1
    # its time-outs go on: of the attempt, of the run
    run = scene.wait_run(ids["watched"], "FAIL")
    assert run["reason"] == "TIMEOUT" and 6 <= seconds_between(run["fired_at"], run["finished_at"]) < 30
    run = scene.wait_run(ids["expires"], "FAIL")
    assert run["reason"] == "TIMEOUT" and 5 <= seconds_between(fired, run["finished_at"]) < 30
    # RETRY_WAIT: not before it is due
    second = wait_for(lambda: next((d for d in deliveries_of(works, ids["retry"]) if d.attempt == 2), None), 15, "attempt 2")
    assert second.at >= at(due).timestamp() - 0.2
    works.report(ids["retry"], 2, second.fence)
    assert [a["attempt"] for a in scene.run(ids["retry"])["attempts"]] == [1, 2]
    # PENDING: delivered again, with the same id and attempt and a fence that is higher
    for executor, name in ((mute, "mute"), (full, "full")):
        executor.answer(Done("heard"))
        run = scene.wait_run(ids[name], "SUCCESS")
        again = deliveries_of(executor, ids[name])
        assert (run["attempt"], {d.attempt for d in again}) == (1, {1})
        assert again[-1].fence > again[0].fence and again[-1].idempotency_key == ids[name]
    # FIXED_DELAY: from the end of the run
    run = scene.wait_run(ids["delay"], "SUCCESS")
    nxt = delay.wait_runs(2)[1]
    assert at(nxt["scheduled_at"]) - at(run["finished_at"]) == timedelta(milliseconds=300)
    assert scene.wait_run(ids["asked"], "SUCCESS")["attempt"] == 1


def test_bounds_go_on(make_pair):
    """max_concurrent of a group: what runs is counted by the new owner before anything starts."""
    pair = make_pair()
    scene = pair.scene
    scene.group("g", max_concurrent=2)
    one = scene.executor("one")
    one.answer(Accept(report=None))
    tasks = [scene.task(f"t{n}") for n in range(6)]
    ids = [task.trigger() for task in tasks]
    one.wait_deliveries(2)
    for run_id in ids:
        scene.wait_run(run_id, "PENDING", "RUNNING")
    wait_for(lambda: len(scene.api.items("/runs", state="RUNNING")) == 2, what="two run, and are written as running")
    pair.take_over()
    assert len(one.deliveries) == 2
    for n in range(6):
        started = one.wait_deliveries(n + 1)[n]
        running = scene.api.items("/runs", state="RUNNING")
        assert len(running) <= 2, running
        one.report(started.run_id, 1, started.fence)
    assert {scene.wait_run(run_id)["state"] for run_id in ids} == {"SUCCESS"}
    assert sorted(d.run_id for d in one.deliveries) == sorted(ids)


@pytest.mark.parametrize("on_lost", ["RETRY", "FAIL"])
def test_an_executor_that_started_anew_meanwhile(make_pair, on_lost):
    """Its process died and registered anew while nobody owned its run: the run was that process's, and is lost."""
    pair = make_pair()
    scene = pair.scene
    one, stays = scene.executor("one"), scene.executor("stays", "other")
    for executor in (one, stays):
        executor.answer(Accept(report=None))
    lost = scene.task("lost", on_lost=on_lost, retry={"max_attempts": 2, "initial_interval": "10ms"}).trigger()
    kept = scene.task("kept", group="other").trigger()
    before = scene.wait_run(lost, "RUNNING")
    scene.wait_run(kept, "RUNNING")
    wait_for(lambda: scene.run(lost).get("executor_incarnation") == one.incarnation, what="the row names the process")

    def anew():
        """As if it had registered at a node that owns nothing: this one was to take the shards over a moment later."""
        run_sql(pair.first.store_url, "UPDATE executor SET incarnation = incarnation + 1 WHERE id = 'one'")
    pair.take_over(anew)
    one.incarnation += 1
    assert before["attempt"] == 1
    if on_lost == "FAIL":
        run = scene.wait_run(lost, "FAIL")
        assert (run["reason"], run["attempt"]) == ("LOST", 1)
    else:
        second = wait_for(lambda: next((d for d in deliveries_of(one, lost) if d.attempt == 2), None), 20, "attempt 2")
        one.report(lost, 2, second.fence)
        assert scene.run(lost)["attempts"][0]["reason"] == "LOST"
    assert (scene.run(kept)["state"], scene.run(kept)["attempt"]) == ("RUNNING", 1)


def test_no_instant_is_lost_or_doubled(make_pair):
    pair = make_pair()
    scene = pair.scene
    one = scene.executor("one", slots=5000)
    one.answer(Done())
    task = scene.task("tick", {"kind": "FIXED_RATE", "every": "100ms", "anchor": soon(-1)}, overlap_policy="ALLOW")
    task.wait_runs(10)
    pair.take_over()
    seen = len(task.runs())
    task.wait_runs(seen + 20, timeout=30)
    task.pause()
    wait_for(lambda: not task.runs(state="PENDING,RUNNING"), 30, "all have ended")
    due = [at(r["scheduled_at"]) for r in task.runs()]
    assert {b - a for a, b in zip(due, due[1:])} == {timedelta(milliseconds=100)}
    assert {(r["state"], r["attempt"]) for r in task.runs()} == {("SUCCESS", 1)}


def test_without_a_lease_nothing_is_sent(tmp_path):
    """The database is away, the lease runs out: what waits for an executor is kept, and goes when the lease is renewed."""
    with Postgres() as server:
        node = Keloud(tmp_path / "node", server.create_database(), {"node.lease_ttl": LEASE, "executor.lost_after": "1m"}).start()
        scene = Scene(node, tmp_path)
        one = scene.executor("one")
        one.answer(Busy(retry_after=0))
        try:
            run_id = scene.task("t", dispatch_timeout="5m").trigger()
            one.wait_deliveries(5)
            server.kill()
            wait_for(lambda: not node.ready(), 20, "the lease has passed")
            wait_for(lambda: "lease" in requests.get(node.base_url + "/readyz", timeout=5).text, what="and that is why")
            count = len(one.deliveries)
            server.resume()
            # all the while that took
            assert len(one.deliveries) == count
            one.answer(Done())
            run = scene.wait_run(run_id, "SUCCESS", timeout=60)
            assert run["attempt"] == 1
        finally:
            one.stop()
            assert node.stop() == 0


def test_a_thawed_node_sends_nothing_stale(make_pair):
    """A node frozen past its lease looks at what became of its shards before it sends what waited, however long that takes."""
    pair = make_pair()
    scene = pair.scene
    full = scene.executor("full", "full", slots=100)
    full.answer(Busy())
    ids = [scene.task(f"t{i}", group="full", dispatch_timeout="5m").trigger() for i in range(20)]
    wait_for(lambda: {d.run_id for d in full.deliveries} >= set(ids), what="each was delivered once")
    pair.first.pause()
    before = {i: max(d.fence for d in deliveries_of(full, i)) for i in ids}
    pair.second.start()
    wait_for(lambda: all(deliveries_of(full, i)[-1].fence > before[i] for i in ids), 30, "the second node delivers them")
    locked = subprocess.Popen(dies_with_me([os.path.join(postgres_bin(), "psql"), pair.first.store_url, "-X", "-q"]), stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True)
    locked.stdin.write("BEGIN; LOCK TABLE shard IN ACCESS EXCLUSIVE MODE;\n\\echo locked\n")
    locked.stdin.flush()
    assert locked.stdout.readline() == "locked\n"
    pair.first.cont()
    wait_for(lambda: "lease not renewed" in pair.first.log_text(), 30, "the first node cannot look")
    locked.communicate("COMMIT;\n", timeout=30)
    wait_for(lambda: "joining anew" in pair.first.log_text(), 30, "the first node knows")
    pair.first.wait_ready()
    for i in ids:
        fences = [d.fence for d in deliveries_of(full, i)]
        assert fences == sorted(fences), fences
