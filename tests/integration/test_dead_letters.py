"""Dead letters: a run that failed for good stays on the list until somebody has replayed or discarded it, each exactly once."""
import re
import threading

import pytest

from tests.harness.fake_executor import Accept, Done, FakeExecutor
from tests.harness.kelou import Group, wait_for
from tests.harness.world import Scene, at

BROKEN = {"type": "Broken", "message": "it broke"}
ONCE = {"retry": {"max_attempts": 1}}


def broken(kind="Broken"):
    return Done(state="FAIL", error={"type": kind, "message": "it broke"})


def letters(task, **filters):
    return task.api.items("/dead-letters", task=task.id, **filters)


def make_dead(scene, executor, task, count=1, kind="Broken", **body):
    """So many runs of the task fail; their ids, oldest first."""
    executor.answer(broken(kind))
    before = {d["id"] for d in letters(task)}
    for _ in range(count):
        task.trigger(**body)
    wait_for(lambda: len(letters(task)) == len(before) + count, 20, f"{count} more dead letters", every=0.05)
    executor.answer(Done({"ok": 1}))
    return [d["id"] for d in reversed(letters(task)) if d["id"] not in before]


def path(run_id, verb=""):
    return f"/dead-letters/{run_id}{'/' + verb if verb else ''}"


def test_a_failure_is_a_dead_letter(scene):
    executor = scene.executor()
    task = scene.task("dies", overlap_policy="ALLOW", retry={"max_attempts": 2, "initial_interval": "10ms"})
    dead = make_dead(scene, executor, task, payload={"n": 1})[0]
    good = task.trigger()
    scene.wait_run(good, "SUCCESS")
    assert [d["id"] for d in letters(task)] == [dead]
    shown = scene.api.ok("GET", path(dead))
    assert (shown["state"], shown["reason"], shown["attempt"], shown["error"]) == ("OPEN", "ERROR", 2, BROKEN)
    assert shown["executor_group"] == task.made["executor_group"] and shown["handler"] == "any" and "handled_at" not in shown
    assert shown["run"]["payload"] == {"n": 1} and len(shown["run"]["attempts"]) == 2 and shown["run"]["id"] == dead
    assert shown["finished_at"] == scene.run(dead)["finished_at"]
    for missing in (good, "0" * 36, "nonsense"):
        scene.api.problem("GET", path(missing), status=404)
        scene.api.problem("POST", path(missing, "replay"), status=404)
        scene.api.problem("POST", path(missing, "discard"), status=404)


def test_replay(scene):
    executor = scene.executor()
    task = scene.task("again", overlap_policy="ALLOW", **ONCE)
    first, second = make_dead(scene, executor, task, payload={"n": 7}) + make_dead(scene, executor, task)
    scene.executor("two").answer(Done({"ok": 1}))
    made = scene.api.ok("POST", path(first, "replay"), status=202, headers={"Idempotency-Key": f"a-{first}"})
    assert made["retry_of"] == first
    repeated = scene.api.post(path(first, "replay"), headers={"Idempotency-Key": f"a-{first}"})
    assert repeated.json() == made and repeated.headers["Idempotent-Replayed"] == "true"
    run = scene.wait_run(made["run_id"], "SUCCESS")
    assert (run["origin"], run["retry_of"], run["payload"]) == ("RETRY", first, {"n": 7})
    letter = scene.api.ok("GET", path(first))
    assert (letter["state"], letter["replay_run_id"], letter["handled_by"]) == ("REPLAYED", made["run_id"], "bootstrap")
    assert at(letter["handled_at"]) >= at(letter["finished_at"])
    problem = scene.api.problem("POST", path(first, "replay"), status=409, code="conflict")
    assert made["run_id"] in problem["detail"]
    scene.api.problem("POST", path(first, "discard"), status=409)
    # with another payload, to another executor
    made = scene.api.ok("POST", path(second, "replay"), {"payload": [1, 2], "executor": "two"}, status=202)
    run = scene.wait_run(made["run_id"], "SUCCESS")
    assert run["payload"] == [1, 2] and run["executor"] == "two" and run["pinned_to"] == "two"
    assert {d["state"] for d in letters(task)} == {"REPLAYED"} and not letters(task, state="OPEN")


def test_a_replay_that_fails_is_a_new_one(scene):
    executor = scene.executor()
    task = scene.task("still", overlap_policy="ALLOW", **ONCE)
    dead = make_dead(scene, executor, task)[0]
    executor.answer(broken("Worse"))
    made = scene.api.ok("POST", path(dead, "replay"), status=202)["run_id"]
    scene.wait_run(made, "FAIL")
    wait_for(lambda: len(letters(task)) == 2, 10, "a second letter")
    newest = letters(task)[0]
    assert (newest["id"], newest["state"], newest["retry_of"], newest["error"]["type"]) == (made, "OPEN", dead, "Worse")


def test_overlap_as_for_triggers(scene):
    executor = scene.executor()
    task = scene.task("held", overlap_policy="SKIP", **ONCE)
    dead, more = make_dead(scene, executor, task)[0], make_dead(scene, executor, task)[0]
    executor.answer(Accept(report=None))
    open_run = task.trigger()
    scene.wait_run(open_run, "PENDING", "RUNNING")
    made = scene.api.ok("POST", path(dead, "replay"), status=202)["run_id"]
    assert scene.wait_run(made)["reason"] == "OVERLAP"
    made = scene.api.ok("POST", path(more, "replay"), {"ignore_overlap": True}, status=202)["run_id"]
    executor.wait_deliveries(4)
    for run_id in (open_run, made):
        scene.cancel(run_id)


def test_discard(scene):
    executor = scene.executor()
    task = scene.task("gone", overlap_policy="ALLOW", **ONCE)
    dead, other = make_dead(scene, executor, task, 2)
    shown = scene.api.ok("POST", path(dead, "discard"), {"note": "known: 4711"}, status=200, headers={"Idempotency-Key": dead})
    assert (shown["state"], shown["note"], shown["handled_by"]) == ("DISCARDED", "known: 4711", "bootstrap")
    repeated = scene.api.post(path(dead, "discard"), {"note": "known: 4711"}, headers={"Idempotency-Key": dead})
    assert repeated.status_code == 200 and repeated.headers["Idempotent-Replayed"] == "true"
    scene.api.problem("POST", path(dead, "discard"), status=409)
    assert "DISCARDED" in scene.api.problem("POST", path(dead, "replay"), status=409)["detail"]
    # but who retries its run has changed his mind
    made = scene.api.ok("POST", f"/runs/{dead}/retry", status=202)["run_id"]
    shown = scene.api.ok("GET", path(dead))
    assert (shown["state"], shown["replay_run_id"]) == ("REPLAYED", made) and "note" not in shown
    again = scene.api.ok("POST", f"/runs/{dead}/retry", status=202)["run_id"]
    assert again != made and scene.api.ok("GET", path(dead))["replay_run_id"] == made
    assert [d["id"] for d in letters(task, state="OPEN")] == [other]


def test_filters_and_pages(scene):
    executor = scene.executor()
    task = scene.task("many", overlap_policy="ALLOW", **ONCE)
    first = make_dead(scene, executor, task, 3, kind="One")
    second = make_dead(scene, executor, task, 2, kind="Two")
    ids = (first + second)[::-1]
    assert [d["id"] for d in letters(task)] == ids
    assert [d["id"] for d in letters(task, limit=2)] == ids
    assert [d["id"] for d in letters(task, error_type="Two")] == second[::-1]
    assert [d["id"] for d in letters(task, group=task.made["executor_group"], handler="any", reason="ERROR", state="OPEN")] == ids
    assert [d["id"] for d in scene.api.items("/dead-letters", group=task.made["executor_group"], limit=2)] == ids
    for empty in ({"reason": "TIMEOUT"}, {"state": "DISCARDED"}, {"handler": "other"}, {"error_type": "Three"}, {"group": "nobody"}):
        assert letters(task, **empty) == []
    border = scene.api.ok("GET", path(second[0]))["scheduled_at"]
    assert [d["id"] for d in letters(task, since=border)] == second[::-1]
    assert [d["id"] for d in letters(task, until=border)] == first[::-1]
    for name, value in (("state", "LOST"), ("reason", "x"), ("limit", "0"), ("since", "yesterday"), ("cursor", "x"), ("error_type", "")):
        problem = scene.api.problem("GET", "/dead-letters", params={name: value})
        assert problem["errors"][0]["parameter"] == name, problem
    scene.api.problem("GET", "/dead-letters", params={"task": "no-such-task"}, status=404)


def bulk(api, verb, status=202, headers=None, **body):
    return api.ok("POST", f"/dead-letters/{verb}", body, status=status, headers=headers)


def test_replay_many(scene):
    executor = scene.executor()
    task = scene.task("bulk", overlap_policy="SKIP", **ONCE)
    ids = [i for n in range(6) for i in make_dead(scene, executor, task, payload={"n": n})]
    dry = bulk(scene.api, "replay", 200, task=task.id, dry_run=True)
    assert (dry["count"], dry["more"], dry["dry_run"]) == (6, False, True) and len(letters(task, state="OPEN")) == 6
    part = bulk(scene.api, "replay", task=task.id, limit=2, rate=1000, error_type="Broken")
    assert (part["count"], part["more"], part["rate"]) == (2, True, 1000)
    assert sorted(d["id"] for d in letters(task, state="OPEN")) == sorted(ids[2:])  # the oldest first
    key = {"Idempotency-Key": f"bulk-{task.id}"}
    done = bulk(scene.api, "replay", headers=key, task=task.id, rate=1000)
    again = bulk(scene.api, "replay", headers=key, task=task.id, rate=1000)
    assert done == again and (done["count"], done["more"]) == (4, False)
    scene.api.problem("POST", "/dead-letters/replay", {"task": task.id, "rate": 999}, status=422, headers=key)
    runs = task.wait_runs(6, state="SUCCESS")
    assert {r["retry_of"] for r in runs} == set(ids) and {r["origin"] for r in runs} == {"REPLAY"} and len(runs) == 6
    payloads = sorted(scene.run(r["id"])["payload"]["n"] for r in runs)
    assert payloads == list(range(6))  # none is skipped though they overlap: each waits for its turn
    spans = sorted((at(r["started_at"]), at(r["finished_at"])) for r in runs)
    assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:]))
    by_letter = {d["id"]: d["replay_run_id"] for d in letters(task)}
    assert by_letter == {r["retry_of"]: r["id"] for r in runs}
    assert bulk(scene.api, "replay", task=task.id)["count"] == 0


def test_the_rate_holds(scene):
    executor = scene.executor()
    task = scene.task("slow", overlap_policy="ALLOW", **ONCE)
    make_dead(scene, executor, task, 4)
    done = bulk(scene.api, "replay", task=task.id, rate=0.01)  # one at once, then one every 100 s
    task.wait_runs(1, state="SUCCESS")
    rest = task.wait_runs(3, state="PENDING", reason="SCHEDULED")
    assert at(done["last_release_at"]) == max(at(r["not_before"]) for r in rest)
    gaps = sorted(at(r["not_before"]) for r in rest)
    assert [(b - a).total_seconds() for a, b in zip(gaps, gaps[1:])] == [100, 100]
    for run in rest:
        scene.cancel(run["id"])


def test_discard_many(scene):
    executor = scene.executor()
    task = scene.task("sweep", overlap_policy="ALLOW", **ONCE)
    make_dead(scene, executor, task, 2, kind="Old")
    kept = make_dead(scene, executor, task, 1, kind="New")
    done = bulk(scene.api, "discard", task=task.id, error_type="Old", note="the disk was full")
    assert (done["count"], done["more"]) == (2, False) and "rate" not in done
    assert {d["note"] for d in letters(task, state="DISCARDED")} == {"the disk was full"}
    assert [d["id"] for d in letters(task, state="OPEN")] == kept


def test_bad_input(scene):
    api, task = scene.api, scene.task("bad")
    for verb in ("replay", "discard"):
        api.problem("POST", f"/dead-letters/{verb}", {})
        api.problem("POST", f"/dead-letters/{verb}", {"dry_run": True, "limit": 3})
        api.problem("POST", f"/dead-letters/{verb}", {"task": "no-such-task"}, status=404)
        for field, value in (("namespace", 7), ("reason", "SAD"), ("since", "soon"), ("limit", 0), ("limit", "3"), ("dry_run", "yes"),
                             ("error_type", ""), ("group", "a/b"), ("color", "red")):
            problem = api.problem("POST", f"/dead-letters/{verb}", {"task": task.id, field: value})
            assert problem["errors"][0]["pointer"] == f"/{field}", problem
        problem = api.problem("POST", f"/dead-letters/{verb}", {"task": task.id, "limit": 5000}, status=409)
        assert problem["errors"][0]["pointer"] == "/limit"
    problem = api.problem("POST", "/dead-letters/replay", {"task": task.id, "rate": 0.001})
    assert problem["errors"][0]["pointer"] == "/rate"


def test_namespaces_and_roles(scene):
    executor = scene.executor()
    task = scene.task("mine", overlap_policy="ALLOW", **ONCE)
    dead = make_dead(scene, executor, task)[0]
    scene.api.ok("POST", "/namespaces", {"name": "dead-elsewhere"})

    def token(role, **more):
        made = scene.api.ok("POST", "/tokens", {"name": f"dead-{role}-{scene.number}", "role": role, **more})
        return scene.node.api(made["token"])
    viewer, stranger = token("VIEWER"), token("OPERATOR", namespace="dead-elsewhere")
    assert viewer.ok("GET", path(dead))["state"] == "OPEN"
    for verb in (path(dead, "replay"), path(dead, "discard"), "/dead-letters/replay", "/dead-letters/discard"):
        viewer.problem("POST", verb, {}, status=403)
    stranger.problem("GET", path(dead), status=404)
    stranger.problem("POST", path(dead, "replay"), {}, status=404)
    stranger.problem("GET", "/dead-letters", params={"namespace": "default"}, status=403)
    stranger.problem("POST", "/dead-letters/replay", {"namespace": "default"}, status=403)
    assert stranger.items("/dead-letters") == []
    assert bulk(stranger, "replay", group=task.made["executor_group"])["count"] == 0
    assert letters(task, state="OPEN")


def test_a_deleted_task(scene):
    executor = scene.executor()
    task = scene.task("deleted", overlap_policy="ALLOW", **ONCE)
    dead = make_dead(scene, executor, task)[0]
    scene.api.ok("DELETE", task.path)
    assert "deleted" in scene.api.problem("POST", path(dead, "replay"), status=409)["detail"]
    assert bulk(scene.api, "replay", task=task.id)["count"] == 0
    assert scene.api.ok("POST", path(dead, "discard"))["state"] == "DISCARDED"


def test_two_operators_at_once(scene):
    """Both ask for the same letters: each letter has one replay, whoever makes it."""
    executor = scene.executor()
    task = scene.task("rivals", overlap_policy="ALLOW", **ONCE)
    ids = make_dead(scene, executor, task, 60)
    answers = []

    def ask():
        answers.append(bulk(scene.node.api(), "replay", task=task.id, rate=1000)["count"])
    rivals = [threading.Thread(target=ask) for _ in range(4)]
    for rival in rivals:
        rival.start()
    for rival in rivals:
        rival.join()
    assert len(answers) == 4 and sum(answers) == 60
    runs = task.wait_runs(60, state="SUCCESS")
    assert len(runs) == 60 and {r["retry_of"] for r in runs} == set(ids)


@pytest.mark.parametrize("point", ["dead_letters.before_commit", "dead_letters.after_commit"])
def test_killed_in_a_bulk_replay(make_node, tmp_path, point):
    """The caller repeats with his key: every letter has been replayed once, and the answer is the first one."""
    node = make_node().start()
    scene = Scene(node, tmp_path)
    executor = scene.executor()
    task = scene.task("killed", overlap_policy="ALLOW", **ONCE)
    ids = make_dead(scene, executor, task, 20)
    node.stop()
    node.environment["KELOU_FAILPOINTS"] = f"{point}=crash:1"
    node.start()
    key = {"Idempotency-Key": "bulk"}
    with pytest.raises(OSError):
        node.api().post("/dead-letters/replay", {"task": task.id, "rate": 1000}, headers=key)
    assert node.wait() == 137
    del node.environment["KELOU_FAILPOINTS"]
    node.start()
    scene.api = task.api = node.api()
    answer = scene.api.post("/dead-letters/replay", {"task": task.id, "rate": 1000}, headers=key)
    assert answer.status_code == 202 and answer.json()["count"] == 20
    assert answer.headers.get("Idempotent-Replayed") == ("true" if point.endswith("after_commit") else None)
    runs = task.wait_runs(20, 30, state="SUCCESS")
    assert len(runs) == 20 and {r["retry_of"] for r in runs} == set(ids) and not letters(task, state="OPEN")
    scene.done()


def test_killed_again_and_again(make_node, tmp_path):
    """kill -9 while letters are made and replayed: each failed run is a letter, and no letter has two replays."""
    node = make_node().start()
    group = Group(node)
    with FakeExecutor(node, group, journal=str(tmp_path / "x.journal")) as executor:
        executor.answer(broken())
        api = node.api()
        task = api.ok("POST", "/tasks", {"name": "loop", "executor_group": "sample", "handler": "h", "schedule": {"kind": "MANUAL"},
                                         "overlap_policy": "ALLOW", **ONCE})["id"]
        asked = set()
        for turn in range(4):
            asked |= {api.ok("POST", f"/tasks/{task}/trigger", status=202)["run_id"] for _ in range(15)}
            stop = threading.Event()

            def replay():
                while not stop.is_set():
                    try:
                        node.api().post("/dead-letters/replay", {"task": task, "rate": 1000, "limit": 7})
                    except OSError:
                        pass  # it is down
            worker = threading.Thread(target=replay)
            worker.start()
            wait_for(lambda: len(api.items("/dead-letters", task=task, state="REPLAYED")) > 5 * turn, 20, "some are replayed")
            node.restart(kill=True)
            stop.set()
            worker.join()
            api = node.api()

        def settled():  # what is acknowledged may still stand in the inbox
            promised = asked | {d["replay_run_id"] for d in api.items("/dead-letters", task=task, state="REPLAYED")}
            return promised <= {r["id"] for r in api.items("/runs", task=task)} and \
                not api.items("/runs", task=task, state="PENDING,RUNNING")
        wait_for(settled, 30, "what is open fails")
        executor.answer(Done())
        wait_for(lambda: bulk(api, "replay", task=task, rate=1000)["count"] == 0 and settled() and
                 not api.items("/dead-letters", task=task, state="OPEN"), 30, "all are replayed")
        runs = api.items("/runs", task=task)
        failed = {r["id"] for r in runs if r["state"] == "FAIL"}
        found = api.items("/dead-letters", task=task)
        assert {d["id"] for d in found} == failed and len(found) == len(failed) and asked <= failed
        replays = [r["retry_of"] for r in runs if "retry_of" in r]
        assert sorted(replays) == sorted(failed) and len(set(replays)) == len(replays)
        assert {d["id"]: d["replay_run_id"] for d in found} == {r["retry_of"]: r["id"] for r in runs if "retry_of" in r}


def test_gone_with_the_run(make_node, tmp_path):
    node = make_node(settings={"retention.every": "100ms"}).start()
    scene = Scene(node, tmp_path)
    executor = scene.executor()
    task = scene.task("short", overlap_policy="ALLOW", **ONCE)
    dead = make_dead(scene, executor, task, 3)
    scene.api.ok("PATCH", "/namespaces/default", {"retention_runs": 1})
    wait_for(lambda: len(letters(task)) == 1, 20, "two of them are gone")
    assert letters(task)[0]["id"] == dead[-1]
    scene.api.problem("GET", path(dead[0]), status=404)
    scene.api.problem("POST", path(dead[0], "replay"), status=404)
    assert bulk(scene.api, "replay", 200, task=task.id, dry_run=True)["count"] == 1
    scene.done()


def test_metrics(make_node, tmp_path):
    node = make_node().start()
    scene = Scene(node, tmp_path)
    executor = scene.executor()
    task = scene.task("counted", overlap_policy="ALLOW", **ONCE)

    def value(name):
        return float(re.search(rf"^{re.escape(name)} (\S+)$", node.api().get("/metrics").text, re.M).group(1))
    assert value('kelou_dead_letters_total{state="DISCARDED"}') == 0
    dead = make_dead(scene, executor, task, 5)
    wait_for(lambda: value("kelou_dead_letters_open") == 5, 20, "the gauge")
    scene.api.ok("POST", path(dead[0], "replay"), status=202)
    bulk(scene.api, "replay", task=task.id, limit=2)
    bulk(scene.api, "discard", task=task.id, limit=1)
    assert [value(f'kelou_dead_letters_total{{state="{s}"}}') for s in ("OPEN", "REPLAYED", "DISCARDED")] == [5, 3, 1]
    wait_for(lambda: value("kelou_dead_letters_open") == 1, 20, "the gauge follows")
    scene.done()


def test_cli(scene):
    executor, cli = scene.executor(), scene.node.cli
    task = scene.task("shell", overlap_policy="ALLOW", **ONCE)
    ids = make_dead(scene, executor, task, 5)
    listed = cli("dead-letter", "list", "--task", task.id, "--state", "open", "--reason", "error", "--error-type", "Broken", "-o", "name",
                 check=0).stdout.split()
    assert listed == ids[::-1]
    assert "Broken" in cli("dead-letter", "list", "--task", task.id, check=0).stdout
    assert "it broke" in cli("dead-letter", "get", ids[0], check=0).stdout
    assert "SUCCESS" in cli("dead-letter", "replay", ids[0], "--payload", '{"x": 1}', "--wait", check=0).stdout
    assert "DISCARDED" in cli("dead-letter", "discard", ids[1], "--note", "no", check=0).stdout
    cli("dead-letter", "replay", ids[0], check=5)
    cli("dead-letter", "get", "0" * 36, check=3)
    cli("dead-letter", "replay-all", check=2)
    assert "3" in cli("dead-letter", "replay-all", "--task", task.id, "--dry-run", check=0).stdout
    cli("dead-letter", "discard-all", "--task", task.id, "--limit", "1", "--note", "old", check=0)
    cli("dead-letter", "replay-all", "--task", task.id, "--since", "1h", "--rate", "500", check=0)
    assert letters(task, state="OPEN") == []
    assert "死信" in cli("dead-letter", "--help", "--lang", "zh", check=0).stdout
