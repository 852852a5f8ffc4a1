"""After-tasks: `depends_on` from the document to the child's run, on each store."""
import json

import pytest

from tests.harness.fake_executor import Accept, Done
from tests.harness.kelou import wait_for
from tests.harness.world import at

ERROR = {"type": "Boom", "message": "it broke"}
MANUAL = {"kind": "MANUAL"}


def after(*parents, **more):
    return {"tasks": [p.name for p in parents], **more}


def child(scene, name, *parents, mode="ALL", ends="SUCCESS", **more):
    return scene.task(name, depends_on=after(*parents, mode=mode, ends=ends), **more)


def end_one(scene, task, state="SUCCESS"):
    run = scene.wait_run(task.trigger())
    assert run["state"] == state, run
    return run


@pytest.fixture
def worker(scene):
    executor = scene.executor()
    executor.answer(lambda d: Done({"of": d.task_name, "n": d.payload.get("n") if isinstance(d.payload, dict) else None}))
    return executor


# ---------------------------------------------------------------- what ends lead to

def test_any_makes_a_run_of_each_end(scene, worker):
    a, b = scene.task("a"), scene.task("b")
    c = child(scene, "c", a, b, mode="ANY", payload={"own": [1]}, overlap_policy="QUEUE_ALL")
    ends = [end_one(scene, t) for t in (a, b, a)]
    runs = c.wait_runs(3, state="SUCCESS")
    assert sorted(r["origin_run"] for r in runs) == sorted(e["id"] for e in ends)
    by_parent = {r["origin_run"]: r for r in runs}
    for end, name in zip(ends, (a.name, b.name, a.name)):
        run = scene.run(by_parent[end["id"]]["id"])
        assert run["origin"] == "DEPENDENCY" and "retry_of" not in run and run["scheduled_at"] == end["finished_at"]
        assert run["parents"] == [{"task": name, "run_id": end["id"], "state": "SUCCESS", "finished_at": end["finished_at"]}]
        told = {"own": [1], "parents": [{**run["parents"][0], "result": {"of": name, "n": None}}]}
        assert run["payload"] == told
        assert [d.payload for d in worker.deliveries if d.run_id == run["id"]] == [told]


def test_many_large_children_of_one_end(scene, worker):
    """More than one turn has room for."""
    parent, big = scene.task("a"), "x" * 480_000
    children = [child(scene, f"c{i}", parent, payload={"n": i, "big": big}) for i in range(40)]
    end_one(scene, parent)
    for i, c in enumerate(children):
        run, = c.wait_runs(1, state="SUCCESS", timeout=60)
        assert scene.run(run["id"])["result"] == {"of": c.name, "n": i}


def test_all_waits_for_each_of_them(scene, worker):
    a, b = scene.task("a"), scene.task("b")
    c = child(scene, "c", b, a)
    late = child(scene, "late", c)  # says when c has been served
    first, second = end_one(scene, a), end_one(scene, a)
    assert c.runs() == []
    last = end_one(scene, b)
    run = scene.run(c.wait_runs(1, state="SUCCESS")[0]["id"])
    assert run["origin_run"] == last["id"]
    assert [(p["task"], p["run_id"], p.get("ends")) for p in run["parents"]] == [(b.name, last["id"], None), (a.name, second["id"], 2)]
    late.wait_runs(1, state="SUCCESS")
    end_one(scene, b)
    third = end_one(scene, a)
    runs = c.wait_runs(2, state="SUCCESS")
    assert [r["origin_run"] for r in runs] == [last["id"], third["id"]]
    assert first["id"] not in json.dumps(scene.run(runs[0]["id"])["payload"])


def test_a_diamond_and_a_chain(scene, worker):
    top = scene.task("top")
    left, right = child(scene, "left", top), child(scene, "right", top)
    bottom = child(scene, "bottom", left, right)
    chain = [bottom]
    for i in range(4):
        chain.append(child(scene, f"chain{i}", chain[-1]))
    for count in (1, 2):
        end_one(scene, top)
        chain[-1].wait_runs(count, timeout=30, state="SUCCESS")
        for task in (left, right, *chain):  # each as often as the top has ended, no more
            assert [r["state"] for r in task.runs()] == ["SUCCESS"] * count
    instants = [[at(r["scheduled_at"]) for r in task.runs()] for task in (top, left, *chain)]
    assert all(a < b for earlier, later in zip(instants, instants[1:]) for a, b in zip(earlier, later))


@pytest.mark.parametrize("ends, count", [("SUCCESS", 1), ("FAIL", 1), ("ANY", 3)])
def test_which_ends_count(scene, worker, ends, count):
    a = scene.task("a", cancel_timeout="200ms", group="p")
    parent = scene.executor("parent", "p")
    c = child(scene, "c", a, mode="ANY", ends=ends, overlap_policy="ALLOW")
    parent.script(Done({"n": 1}), Done(state="FAIL", error=ERROR), Accept(report=None))
    done = [scene.wait_run(a.trigger(), "SUCCESS"), scene.wait_run(a.trigger(), "FAIL")]
    stuck = a.trigger()
    scene.wait_run(stuck, "RUNNING")
    assert scene.cancel(stuck).ok
    done.append(scene.wait_run(stuck, "CANCELLED"))
    every = child(scene, "every", a, mode="ANY", ends="ANY", overlap_policy="ALLOW")  # its run comes after all those
    parent.script(Done(state="FAIL", error=ERROR) if ends == "SUCCESS" else Done())
    last = scene.wait_run(a.trigger())
    every.wait_runs(1, state="SUCCESS")
    expected = {r["id"] for r in done if ends in ("ANY", r["state"])} | ({last["id"]} if ends == "ANY" else set())
    runs = c.wait_runs(len(expected))
    assert {r["origin_run"] for r in runs} == expected and count <= len(expected)
    if ends != "SUCCESS":
        failed = next(r for r in runs if r["origin_run"] == done[1]["id"])
        told = scene.run(failed["id"])["payload"]["parents"][0]
        assert told["state"] == "FAIL" and told["error"] == {"reason": "ERROR", "type": "Boom", "message": "it broke"}


def test_a_retry_has_the_results_too(scene, worker):
    a = scene.task("a")
    c = child(scene, "c", a)
    end_one(scene, a)
    run = scene.run(c.wait_runs(1, state="SUCCESS")[0]["id"])
    again = scene.api.ok("POST", f"/runs/{run['id']}/retry", {}, status=202)["run_id"]
    made = scene.wait_run(again, "SUCCESS")
    assert made["retry_of"] == run["id"] and made["payload"] == run["payload"] and "origin_run" not in made


def test_the_overlap_policy_of_the_child_holds(scene, worker):
    a = scene.task("a")
    c = child(scene, "c", a, mode="ANY", group="slow", overlap_policy="SKIP")
    slow = scene.executor("slow", "slow")
    slow.answer(Accept(report=None))
    end_one(scene, a)
    slow.wait_deliveries(1)
    ends = [end_one(scene, a), end_one(scene, a)]
    runs = c.wait_runs(2, state="SKIPPED")
    assert {r["origin_run"] for r in runs} == {e["id"] for e in ends} and {r["reason"] for r in runs} == {"OVERLAP"}


def test_long_results_are_cut_with_a_notice(scene):
    executor = scene.executor()
    executor.answer(lambda d: Done("x" * 60000) if d.task_name.startswith("p") else Done())
    parents = [scene.task(f"p{i}") for i in range(8)]
    c = child(scene, "c", *parents, payload={"k": "y" * 500000})
    for parent in parents:
        end_one(scene, parent)
    payload = scene.run(c.wait_runs(1, state="SUCCESS")[0]["id"])["payload"]
    cut = [p for p in payload["parents"] if p.get("result_cut")]
    assert cut and len(payload["parents"]) == 8 and all(set(p["result"]) == {"x"} or p["result"].lstrip('"')[0] == "x" for p in cut)
    assert len(json.dumps(payload)) < 1024 * 1024
    scene.api.problem("POST", "/tasks", scene.body("big", depends_on=after(c), payload={"k": "y" * 530000}), 413)


# ---------------------------------------------------------------- in between

def test_a_paused_child_is_not_due(scene, worker):
    a = scene.task("a")
    any_end, both = child(scene, "any", a, mode="ANY"), child(scene, "both", a, scene.task("b"))
    b = scene.tasks[-2]
    seen = child(scene, "seen", a, mode="ANY", overlap_policy="QUEUE_ALL")
    any_end.pause()
    both.pause()
    end_one(scene, a)
    seen.wait_runs(1, state="SUCCESS")
    assert any_end.trigger()  # by hand all the same
    any_end.resume()
    both.resume()
    end_one(scene, b)
    later = end_one(scene, a)
    assert [r["origin_run"] for r in any_end.wait_runs(2)[-1:]] == [later["id"]] and len(any_end.runs()) == 2
    run = scene.run(both.wait_runs(1, state="SUCCESS")[0]["id"])
    assert [(p["run_id"], p.get("ends")) for p in run["parents"]] == [(later["id"], None), (b.runs()[0]["id"], None)]


def test_a_first_child_just_before_the_end(scene):
    executor = scene.executor()
    executor.answer(Accept(report=None))
    a = scene.task("a")
    run_id = a.trigger()
    delivery = executor.wait_deliveries(1)[0]
    c = child(scene, "c", a)
    executor.answer(Done())
    executor.report(run_id, 1, delivery.fence)
    assert c.wait_runs(1, state="SUCCESS")[0]["origin_run"] == run_id
    d = child(scene, "d", a)  # after it: that end is none of its
    second = end_one(scene, a)
    assert [r["origin_run"] for r in d.wait_runs(1, state="SUCCESS")] == [second["id"]]


def test_edits(scene, worker):
    a, b, b2 = scene.task("a"), scene.task("b"), scene.task("b2")
    c = child(scene, "c", a, b)
    kept = end_one(scene, a)
    marker = child(scene, "marker", a, mode="ANY")
    end_one(scene, b2)
    made = c.patch(depends_on={"tasks": [a.name, b2.name]})  # a stays, with what was collected of it
    assert made["depends_on"] == {"tasks": [a.name, b2.name], "mode": "ALL", "ends": "SUCCESS"}
    assert made["schedule_text"] == f"after {a.name} and {b2.name} have succeeded"
    assert marker.runs() == [] and c.runs() == []
    end_one(scene, b2)
    run = scene.run(c.wait_runs(1, state="SUCCESS")[0]["id"])
    assert run["parents"][0]["run_id"] == kept["id"]
    c.patch(depends_on=None)
    shown = c.read()
    assert "depends_on" not in shown and shown["schedule_text"] == "only when triggered by hand"
    end_one(scene, a)
    end_one(scene, b2)
    marker.wait_runs(1, state="SUCCESS")
    assert len(c.runs()) == 1
    scene.api.ok("POST", f"{c.path}/rollback", {"version": 1})
    assert c.read()["depends_on"]["tasks"] == [a.name, b.name]


def test_parents_that_are_named_stay(scene):
    a = scene.task("a")
    c = child(scene, "c", a)
    problem = scene.api.problem("DELETE", a.path, status=409, code="conflict")
    assert c.name in problem["errors"][0]["detail"] if problem.get("errors") else c.name in problem["detail"]
    problem = scene.api.problem("PATCH", a.path, {"name": a.name + "x"}, 409)
    assert problem["errors"][0]["pointer"] == "/name"
    a.pause()
    assert scene.api.delete(c.path).status_code == 204
    assert scene.api.delete(a.path).status_code == 204


# ---------------------------------------------------------------- what is refused

def refused(scene, method, path, body, pointer, status=400):
    problem = scene.api.problem(method, path, body, status)
    assert problem["errors"][0]["pointer"] == pointer, problem
    return problem["errors"][0]["detail"]


def test_what_is_refused(scene):
    a = scene.task("a")

    def bad(pointer, depends_on, **more):
        return refused(scene, "POST", "/tasks", scene.body("bad", depends_on=depends_on, **more), pointer)
    assert "there is no task" in bad("/depends_on/tasks/1", {"tasks": [a.name, "nobody"]})
    assert "twice" in bad("/depends_on/tasks/1", {"tasks": [a.name, a.name]})
    bad("/depends_on/tasks", {"tasks": []})
    bad("/depends_on/tasks", {"tasks": [f"t{i}" for i in range(33)]})
    bad("/depends_on/tasks", {"mode": "ALL"})
    bad("/depends_on/tasks", {"tasks": a.name})
    bad("/depends_on/tasks/0", {"tasks": [7]})
    bad("/depends_on/tasks/0", {"tasks": [" "]})
    bad("/depends_on/mode", {"tasks": [a.name], "mode": "SOME"})
    bad("/depends_on/ends", {"tasks": [a.name], "ends": "GOOD"})
    bad("/depends_on/on", {"tasks": [a.name], "on": "FAIL"})
    bad("/depends_on", [a.name])
    bad("/depends_on", {"tasks": [a.name]}, schedule={"kind": "FIXED_RATE", "every": "1h"})
    bad("/payload", {"tasks": [a.name]}, payload=[1])
    bad("/payload/parents", {"tasks": [a.name]}, payload={"parents": 1})
    own = scene.body("bad")["name"]
    assert "after itself" in bad("/depends_on/tasks/0", {"tasks": [own]})
    assert "after itself" in refused(scene, "PATCH", a.path, {"depends_on": {"tasks": [a.name]}}, "/depends_on/tasks/0")


def test_cycles_are_refused_on_every_way_in(scene):
    a = scene.task("a")
    c = child(scene, "c", child(scene, "b", a))
    b = scene.tasks[1]
    detail = refused(scene, "PATCH", a.path, {"depends_on": {"tasks": [c.name]}}, "/depends_on/tasks/0")
    assert detail == f"the task would come after itself: {a.name} after {c.name} after {b.name} after {a.name}"
    whole = scene.body("a", depends_on=after(c))
    problem = scene.api.problem("PUT", a.path, whole, 400, headers={"If-Match": f'"{a.read()["version"]}"'})
    assert problem["errors"][0]["pointer"] == "/depends_on/tasks/0"
    for dry in (True, False):
        refused(scene, "POST", "/apply", {"tasks": [whole], "dry_run": dry}, "/tasks/0/depends_on/tasks/0")
    x, y = scene.body("x"), scene.body("y")
    x["depends_on"], y["depends_on"] = {"tasks": [y["name"]]}, {"tasks": [x["name"]]}
    problem = scene.api.problem("POST", "/apply", {"tasks": [x, y]}, 400)
    assert problem["errors"][0]["pointer"] in ("/tasks/0/depends_on/tasks/0", "/tasks/1/depends_on/tasks/0")
    # a rollback to a version that would close one
    b.patch(depends_on=None)
    a.patch(depends_on=after(c))
    refused(scene, "POST", f"{b.path}/rollback", {"version": 1}, "/depends_on/tasks/0")
    a.patch(depends_on=None)
    assert scene.api.ok("POST", f"{b.path}/rollback", {"version": 1})["depends_on"]["tasks"] == [a.name]


def test_apply_turns_a_chain_round(scene):
    """All documents at once: what counts is how it is when all is written."""
    x, y, z = (scene.body(n) for n in "xyz")
    y["depends_on"], z["depends_on"] = {"tasks": [x["name"]]}, {"tasks": [y["name"]]}
    source = f"source-{scene.number}"
    dry = scene.api.ok("POST", "/apply", {"tasks": [z, y, x], "dry_run": True, "source": source})
    assert [i["action"] for i in dry["items"]] == ["created"] * 3
    scene.api.ok("POST", "/apply", {"tasks": [z, y, x], "source": source})
    y["depends_on"], x["depends_on"] = {"tasks": [z["name"]], "ends": "ANY"}, {"tasks": [y["name"]]}
    del z["depends_on"]
    done = scene.api.ok("POST", "/apply", {"tasks": [x, y, z], "source": source})
    assert [i["action"] for i in done["items"]] == ["changed"] * 3
    exported = {t["name"]: t for t in scene.api.items("/export", managed_by=source) if "schedule" in t}
    assert exported[x["name"]]["depends_on"] == x["depends_on"] and exported[y["name"]]["depends_on"] == y["depends_on"]
    again = scene.api.ok("POST", "/apply", {"tasks": list(exported.values()), "source": source})
    assert [i["action"] for i in again["items"]] == ["unchanged"] * 3
    remove = [{"name": t["name"]} for t in (z, y, x)]
    problem = scene.api.problem("POST", "/apply", {"tasks": [], "remove": remove[:1], "source": source}, 409)
    assert problem["errors"][0]["pointer"] == "/remove/0"
    scene.api.ok("POST", "/apply", {"tasks": [], "remove": remove, "source": source})


# ---------------------------------------------------------------- what people see

def test_what_people_see(scene, worker):
    a, b = scene.task("a"), scene.task("b")
    c = child(scene, "c", a, b, mode="ANY", ends="FAIL")
    assert c.made["schedule_text"] == f"after any of {a.name} and {b.name} has failed"
    upcoming = scene.api.ok("GET", f"{c.path}/next")
    assert upcoming["items"] == [] and upcoming["remark"] == f"it runs {c.made['schedule_text']}"
    got = scene.node.cli("task", "get", c.name, check=0).stdout
    assert a.name in got and b.name in got and "FAIL" in got
    d = child(scene, "d", a)
    end = end_one(scene, a)
    d.wait_runs(1, state="SUCCESS")
    lines = scene.node.cli("run", "list", "--task", d.name, "-o", "wide", check=0).stdout.splitlines()
    assert "ORIGIN" in lines[0] and "DEPENDENCY" in lines[1] and end["id"] in lines[1]
    run = json.loads(scene.node.cli("run", "get", d.runs()[0]["id"], "-o", "json", check=0).stdout)
    assert run["parents"][0]["run_id"] == end["id"] and run["payload"]["parents"][0]["result"]["of"] == a.name
    document = scene.folder / "child.yaml"
    document.write_text(f"name: made-{scene.number}\nschedule: {{kind: MANUAL}}\nexecutor_group: {scene.group().name}\nhandler: h\n"
                        f"depends_on:\n  tasks: [{d.name}]\n  ends: ANY\n")
    scene.node.cli("task", "create", "-f", document, check=0)
    made = scene.api.ok("GET", f"/tasks/default%2Fmade-{scene.number}")
    assert made["depends_on"] == {"tasks": [d.name], "mode": "ALL", "ends": "ANY"}
    got = scene.node.cli("diff", "-f", document, "--source", f"s{scene.number}", "--adopt")
    assert "depends_on" not in got.stdout
    assert scene.api.delete(f"/tasks/{made['id']}").status_code == 204
    fired = lambda: sum(v for k, v in scene.node.metrics().items() if k.startswith("kelou_fires_total") and 'trigger="DEPENDENCY"' in k)
    assert wait_for(lambda: fired() >= 1, what="the fire is counted")
