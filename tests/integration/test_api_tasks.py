"""/api/v1/tasks as a client sees it."""
import uuid

import pytest

from tests.harness.kelou import Group


def manual(name, **more):
    return {"name": name, "schedule": {"kind": "MANUAL"}, "executor_group": "sample", "handler": "default", **more}


def daily(name, **more):
    return manual(name, schedule={"kind": "CRON", "expression": "0 30 4 * * ?", "timezone": "Asia/Shanghai"}, **more)


def test_a_task_is_what_was_asked_for(api, group):
    made = api.post("/tasks", daily("report", payload={"深": [1, 2.5, None]}, description="日报"))
    assert made.status_code == 201
    task = made.json()
    assert made.headers["ETag"] == '"1"' and made.headers["Location"] == f"/api/v1/tasks/{task['id']}"
    assert task["payload"] == {"深": [1, 2.5, None]} and task["description"] == "日报"
    assert task["state"] == "ENABLED" and task["version"] == 1 and task["namespace"] == "default"
    assert task["overlap_policy"] == "QUEUE_ONE" and task["retry"]["max_attempts"] == 1  # defaults are shown
    assert task["next_at"].endswith("T20:30:00Z") and api.items("/tasks")[0]["next_at"] == task["next_at"]
    for ref in (task["id"], "report", "default%2Freport"):
        assert api.ok("GET", f"/tasks/{ref}") == task


def test_reading_again_costs_nothing_while_unchanged(api, group):
    api.ok("POST", "/tasks", manual("a"))
    tag = api.get("/tasks/a").headers["ETag"]
    again = api.get("/tasks/a", headers={"If-None-Match": tag})
    assert again.status_code == 304 and not again.content and again.headers["ETag"] == tag
    api.ok("PATCH", "/tasks/a", {"description": "new"})
    assert api.get("/tasks/a", headers={"If-None-Match": tag}).status_code == 200


def test_replace_needs_to_know_what_it_replaces(api, group):
    task = api.ok("POST", "/tasks", manual("a", description="one"))
    new = manual("a", description="two")
    problem = api.problem("PUT", "/tasks/a", new, 428, "precondition_required")
    assert problem["errors"][0]["header"] == "If-Match"
    replaced = api.put("/tasks/a", new, headers={"If-Match": '"1"'})
    assert replaced.status_code == 200 and replaced.headers["ETag"] == '"2"'
    api.problem("PUT", "/tasks/a", manual("a", description="three"), 412, "stale_version", headers={"If-Match": '"1"'})
    assert api.ok("GET", "/tasks/a")["description"] == "two"
    # a document as the server gave it may be sent back
    whole = {**api.ok("GET", "/tasks/a"), "description": "four"}
    assert api.ok("PUT", "/tasks/a", whole, headers={"If-Match": "*"})["version"] == 3
    assert api.ok("GET", f"/tasks/{task['id']}")["id"] == task["id"]


def test_patch_changes_only_what_it_names(api, group):
    api.ok("POST", "/tasks", daily("a", description="one", priority=7))
    changed = api.ok("PATCH", "/tasks/a?note=because", {"schedule": {"expression": "0 0 5 * * ?"}, "description": None})
    assert changed["schedule"]["expression"] == "0 0 5 * * ?" and changed["schedule"]["timezone"] == "Asia/Shanghai"
    assert "description" not in changed and changed["priority"] == 7 and changed["note"] == "because"
    api.problem("PATCH", "/tasks/a", {"priority": 1}, 412, "stale_version", headers={"If-Match": '"1"'})
    api.problem("PATCH", "/tasks/a", {"namespace": "other"}, 400)
    merge = {"Content-Type": "application/merge-patch+json"}
    assert api.ok("PATCH", "/tasks/a", {"priority": 1}, headers={**merge, "If-Match": '"2"'})["version"] == 3


def test_every_version_stays_readable(api, group):
    api.ok("POST", "/tasks", manual("a", payload={"v": 1}))
    for v in range(2, 8):
        api.ok("PATCH", "/tasks/a", {"payload": {"v": v}})
    assert [t["version"] for t in api.items("/tasks/a/versions", limit=2)] == [7, 6, 5, 4, 3, 2, 1]
    old = api.ok("GET", "/tasks/a?version=3")
    assert old["version"] == 3 and old["payload"] == {"v": 3}
    api.problem("GET", "/tasks/a?version=99", status=404, code="not_found")


def test_pause_and_resume(api, group):
    api.ok("POST", "/tasks", daily("a"))
    paused = api.ok("POST", "/tasks/a/pause")
    assert paused["state"] == "PAUSED" and "next_at" not in paused
    assert "next_at" not in api.ok("GET", "/tasks/a/stats")
    assert api.ok("POST", "/tasks/a/pause")["version"] == paused["version"]  # it was so already
    assert api.ok("POST", "/tasks/a/resume", {"catch_up": True})["state"] == "ENABLED"
    problem = api.problem("POST", "/tasks/a/resume", {"catchup": True}, 400, "unknown_field")
    assert problem["errors"][0]["pointer"] == "/catchup" and "catch_up" in problem["detail"]
    api.problem("POST", "/tasks/a/pause", None, 412, "stale_version", headers={"If-Match": '"1"'})


def test_delete(api, group):
    api.ok("POST", "/tasks", manual("a"))
    gone = api.delete("/tasks/a")
    assert gone.status_code == 204 and not gone.content
    api.problem("GET", "/tasks/a", status=404, code="not_found")
    api.problem("DELETE", "/tasks/a", status=404, code="not_found")
    api.ok("POST", "/tasks", manual("a"), status=201)  # the name is free again


def test_names_are_unique_in_their_namespace(api, group):
    api.ok("POST", "/tasks", manual("a"))
    problem = api.problem("POST", "/tasks", manual("a"), 409, "conflict")
    assert problem["errors"][0]["pointer"] == "/name"
    api.ok("POST", "/namespaces", {"name": "other"}, status=201)
    api.ok("POST", "/namespaces", {"name": "other"}, status=200)
    assert {"default", "other"} <= {n["name"] for n in api.items("/namespaces")}


def test_lists_filter_and_page(api, node, group):
    Group(node, "second")
    for i in range(7):
        api.ok("POST", "/tasks", manual(f"manual-{i}", handler="h" if i % 2 else "g"))
    api.ok("POST", "/tasks", daily("daily", executor_group="second"))
    names = [t["name"] for t in api.items("/tasks", limit=3)]
    assert names == [f"manual-{i}" for i in range(7)] + ["daily"]

    def listed(**params):
        return [t["name"] for t in api.items("/tasks", **params)]
    assert listed(handler="h", limit=2) == ["manual-1", "manual-3", "manual-5"]
    assert listed(group="second") == ["daily"] == listed(kind="CRON") == listed(name_prefix="dai") == listed(name_contains="ail")
    assert listed(namespace="nowhere") == [] and listed(state="PAUSED") == []
    api.ok("POST", "/tasks/daily/pause")
    assert listed(state="PAUSED") == ["daily"]
    page = api.ok("GET", "/tasks", params={"limit": 3})
    for params in ({"cursor": page["next_cursor"], "handler": "h"}, {"cursor": page["next_cursor"][:-1]}, {"cursor": "0"}):
        problem = api.problem("GET", "/tasks", status=400, code="invalid_field", params=params)
        assert problem["errors"][0]["parameter"] == "cursor"


def test_many_at_once_or_none(api, group):
    made = api.ok("POST", "/tasks/batch", {"tasks": [manual(f"t{i}", payload=i) for i in range(300)]}, status=201)["items"]
    assert [t["name"] for t in made] == [f"t{i}" for i in range(300)] and len({t["id"] for t in made}) == 300
    assert api.ok("GET", f"/tasks/{made[299]['id']}")["payload"] == 299
    bad = [manual("x1"), manual("x2", priority=77), manual("x3")]
    assert api.problem("POST", "/tasks/batch", {"tasks": bad}, 400)["errors"][0]["pointer"] == "/tasks/1/priority"
    taken = [manual("x1"), manual("t5")]
    assert api.problem("POST", "/tasks/batch", {"tasks": taken}, 409)["errors"][0]["pointer"] == "/tasks/1/name"
    assert api.items("/tasks", name_prefix="x") == []  # nothing half-written
    api.problem("POST", "/tasks/batch", {"tasks": [manual(f"y{i}") for i in range(1001)]}, 400, "invalid_field")


@pytest.mark.parametrize("path,body,other", [
    ("/tasks", manual("a"), manual("b")),
    ("/tasks/known/trigger", {"payload": 1}, {"payload": 2})])
def test_a_repeat_with_a_key_changes_nothing(api, group, path, body, other):
    api.ok("POST", "/tasks", manual("known"))
    key = {"Idempotency-Key": str(uuid.uuid4())}
    first, again = api.post(path, body, headers=key), api.post(path, body, headers=key)
    assert first.status_code == again.status_code and first.ok, first.text
    assert first.json() == again.json()
    assert again.headers["Idempotent-Replayed"] == "true" and "Idempotent-Replayed" not in first.headers
    api.problem("POST", path, other, 422, "idempotency_mismatch", headers=key)
    assert api.post(path, body if "trigger" in path else other, headers={"Idempotency-Key": "other"}).ok


def test_a_key_belongs_to_its_token(api, node, group):
    key = {"Idempotency-Key": "k"}
    second = node.api(api.ok("POST", "/tokens", {"name": "second", "role": "OPERATOR"})["token"])
    api.ok("POST", "/tasks", manual("a"), headers=key)
    second.ok("POST", "/tasks", manual("b"), headers=key)


def test_a_key_is_refused_where_it_would_not_help(api):
    problem = api.problem("POST", "/executor-groups", {"name": "g"}, 400, headers={"Idempotency-Key": "k"})
    assert problem["errors"][0]["header"] == "Idempotency-Key"


def test_previews(api, group):
    schedule = {"kind": "CRON", "expression": "0 30 2 * * ?", "timezone": "Europe/Berlin"}
    ask = {"schedule": schedule, "from": "2026-03-27T12:00:00Z", "n": 3}
    items = api.ok("POST", "/schedules/preview", ask)["items"]
    assert [i["local"] for i in items] == ["2026-03-28T02:30:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]
    assert items[1]["at"] == "2026-03-29T01:00:00Z" and items[1]["offset_seconds"] == 7200 and items[1]["note"]
    api.ok("POST", "/tasks", manual("a", schedule=schedule))
    assert api.ok("GET", "/tasks/a/next", params={"from": ask["from"], "n": 3})["items"] == items
    assert api.ok("POST", "/schedules/preview", {"schedule": {"kind": "MANUAL"}}) ["remark"]
    problem = api.problem("POST", "/schedules/preview", {"schedule": {**schedule, "expression": "0 61 2 * * ?"}}, 400)
    assert problem["errors"][0]["pointer"] == "/schedule/expression" and problem["errors"][0]["column"] == 3


def test_statistics_of_a_task_without_runs(api, group):
    api.ok("POST", "/tasks", daily("a"))
    stats = api.ok("GET", "/tasks/a/stats")
    assert stats["fires"] == 0 and stats["success_rate"] is None and stats["next_at"]
