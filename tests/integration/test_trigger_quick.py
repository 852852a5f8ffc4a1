"""How soon a task that was created, changed, resumed or triggered takes effect. The bound is generous; the medians are printed."""
import statistics
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

from tests.harness.fake_executor import Done
from tests.harness.kelou import wait_for
from tests.harness.world import at

BOUND_SECONDS = 2.0
ROUNDS = 9


def median(name, seconds, store):
    found = statistics.median(seconds)
    print(f"\n{store}: {name}: median {found * 1000:.1f} ms, greatest {max(seconds) * 1000:.1f} ms")
    assert found < BOUND_SECONDS, (name, seconds)


def test_effect_follows_the_acknowledgement(scene, store, capsys):
    executor = scene.executor()
    executor.answer(Done())
    never = {"kind": "FIXED_RATE", "every": "1d"}
    quick = {"kind": "FIXED_RATE", "every": "10ms"}
    took = {"created": [], "changed": [], "resumed": [], "triggered": []}

    def first_delivery(task, since, count=0):
        wait_for(lambda: len([d for d in executor.deliveries if d.task_id == task.id]) > count, 10, "a delivery", every=0.002)
        return next(d for d in executor.deliveries if d.task_id == task.id and d.at >= since).at - since
    for n in range(ROUNDS):
        begin = time.time()
        task = scene.task(f"made{n}", quick, overlap_policy="ALLOW")
        took["created"].append(first_delivery(task, begin))
        task.pause()
        seen = len([d for d in executor.deliveries if d.task_id == task.id])
        settled = wait_for(lambda t=task: not t.runs(state="PENDING,RUNNING"), what="the paused task is quiet")
        assert settled
        seen = len([d for d in executor.deliveries if d.task_id == task.id])
        begin = time.time()
        task.resume()
        took["resumed"].append(first_delivery(task, begin, seen))
        task.pause()
        task = scene.task(f"slow{n}", never, overlap_policy="ALLOW")
        begin = time.time()
        task.trigger()
        took["triggered"].append(first_delivery(task, begin))
        begin = time.time()
        task.patch(schedule=quick)
        took["changed"].append(first_delivery(task, begin, 1))
        task.pause()
    with capsys.disabled():
        for name, seconds in took.items():
            median(name, seconds, store)


def test_one_key_makes_one_run(scene):
    executor = scene.executor()
    executor.answer(Done())
    task = scene.task(overlap_policy="ALLOW")
    key = {"Idempotency-Key": str(uuid.uuid4())}

    def ask(_):
        answer = scene.node.api().post(f"{task.path}/trigger", {"payload": 1}, headers=key)
        assert answer.status_code in (202, 409), answer.text  # 409: the first one is still under way
        return answer.json().get("run_id")
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(ask, range(8))) - {None}
    ids.add(ask(0))
    assert len(ids) == 1
    scene.wait_run(ids.pop(), "SUCCESS")
    other = scene.wait_run(task.trigger(payload=2), "SUCCESS")
    assert len(task.runs()) == 2 and len(executor.deliveries) == 2 and other["payload"] == 2
    scene.api.problem("POST", f"{task.path}/trigger", {"payload": 3}, 422, "idempotency_mismatch", headers=key)


def test_triggers_of_one_task_keep_their_order(scene):
    executor = scene.executor()
    executor.answer(Done())
    task = scene.task(overlap_policy="QUEUE_ALL")
    ids = [task.trigger(payload=n) for n in range(20)]
    for run_id in ids:
        scene.wait_run(run_id, "SUCCESS")
    assert [d.payload for d in executor.deliveries] == list(range(20))
    assert [r["id"] for r in task.runs()] == ids
    instants = [at(r["scheduled_at"]) for r in task.runs()]
    assert instants == sorted(instants)


def test_a_herd_fires_whole(scene):
    """Many tasks due at one instant: each has its one run."""
    executor = scene.executor(slots=2000)
    executor.answer(Done())
    instant = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3))
    bodies = [scene.body(f"herd{n}", {"kind": "ONE_TIME", "run_at": instant}) for n in range(400)]
    made = scene.api.ok("POST", "/tasks/batch", {"tasks": bodies}, status=201)["items"]
    wait_for(lambda: len(executor.deliveries) >= 400, 30, "all are delivered")
    ids = [d.task_id for d in executor.deliveries]
    assert len(ids) == len(set(ids)) == 400 and set(ids) == {t["id"] for t in made}
    assert {d.scheduled_at for d in executor.deliveries} == {instant}
    wait_for(lambda: all(not scene.api.items("/runs", task=t["id"], state="PENDING,RUNNING") for t in made[::40]), 20, "their runs end")
    for t in made:
        scene.api.delete(f"/tasks/{t['id']}?cancel=true")
