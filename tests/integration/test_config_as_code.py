"""Config as code through the API: apply, export, history and rollback, on each store."""
import itertools
import threading

import pytest

from tests.harness.kelou import wait_for

_numbers = itertools.count(1)


class Place:
    """A namespace of one test in the module's node, and the API as its user sees it."""

    def __init__(self, node):
        self.node, self.api = node, node.api()
        self.name = f"place-{next(_numbers)}"
        self.source = f"{self.name}-source"
        self.api.ok("POST", "/namespaces", {"name": self.name})

    def doc(self, name, **more):
        return {"name": name, "namespace": self.name, "schedule": {"kind": "MANUAL"}, "executor_group": "g", "handler": "h",
                **more}

    def group(self, name="g", **more):
        return {"name": name, "namespace": self.name, **more}

    def request(self, *tasks, **more):
        body = {"tasks": list(tasks), "source": self.source, **more}
        return {key: value for key, value in body.items() if value is not None}

    def apply(self, *tasks, **more):
        return self.api.ok("POST", "/apply", self.request(*tasks, **more), status=200)

    def refused(self, *tasks, status, code=None, **more):
        """The refusal's pointer and detail."""
        problem = self.api.problem("POST", "/apply", self.request(*tasks, **more), status, code)
        return problem["errors"][0].get("pointer"), problem["errors"][0]["detail"]

    def get(self, name):
        return self.api.ok("GET", f"/tasks/{self.name}%2F{name}")

    def path(self, name):
        return f"/tasks/{self.name}%2F{name}"

    def names(self):
        return sorted(t["name"] for t in self.api.items("/tasks", namespace=self.name))

    def export(self, **more):
        return self.api.items("/export", namespace=self.name, **more)


@pytest.fixture
def place(world):
    return Place(world)


def actions(answer):
    return {item["name"]: item["action"] for item in answer["items"]}


def differences(answer, name):
    item = next(i for i in answer["items"] if i["name"] == name)
    return {d["field"]: (d.get("from"), d.get("to")) for d in item["differences"]}


def test_what_the_documents_say_is_what_is(place):
    cron = {"kind": "CRON", "expression": "0 0 9 * * ?", "timezone": "Europe/Berlin"}
    first = place.apply(place.doc("a", schedule=cron, payload={"n": 1}), place.doc("b"), groups=[place.group()])
    assert (first["created"], first["changed"], first["unchanged"], first["deleted"]) == (3, 0, 0, 0) and not first["dry_run"]
    assert [(i["kind"], i["name"], i["from_version"], i["version"]) for i in first["items"]] == \
        [("group", "g", 0, 1), ("task", "a", 0, 1), ("task", "b", 0, 1)]
    assert first["items"][0]["secret"].startswith("kls_")
    assert differences(first, "a")["/schedule/expression"] == (None, "0 0 9 * * ?")
    task = place.get("a")
    assert task["managed_by"] == place.source and task["schedule"]["timezone"] == "Europe/Berlin" and task["payload"] == {"n": 1}
    assert task["id"] == first["items"][1]["id"] and task["created_by"] == task["updated_by"]
    # the same again: nothing; a default that is written out is no change
    again = place.apply(place.doc("a", schedule=cron, payload={"n": 1}, priority=5, retry={"max_attempts": 1}), place.doc("b"),
                        groups=[place.group(routing="ROUND_ROBIN")])
    assert set(actions(again).values()) == {"unchanged"} and again["unchanged"] == 3 and "secret" not in again["items"][0]
    assert place.get("a")["version"] == 1
    # one field
    more = place.apply(place.doc("a", schedule={**cron, "expression": "0 0 10 * * ?"}, payload={"n": 1, "m": 2}), place.doc("b"),
                       groups=[place.group(max_connections=4)], note="later")
    assert actions(more) == {"g": "changed", "a": "changed", "b": "unchanged"}
    assert differences(more, "a") == {"/schedule/expression": ("0 0 9 * * ?", "0 0 10 * * ?"), "/payload/m": (None, 2)}
    assert differences(more, "g") == {"/max_connections": (16, 4)}
    task = place.get("a")
    assert task["version"] == 2 == more["items"][1]["version"] and task["note"] == "later"
    # a field that is left out has its default again
    less = place.apply(place.doc("a", schedule={**cron, "expression": "0 0 10 * * ?"}), groups=[place.group()])
    assert differences(less, "a") == {"/payload/m": (2, None), "/payload/n": (1, None)} and "payload" not in place.get("a")
    assert differences(less, "g") == {"/max_connections": (4, 16)}


def test_a_dry_run_says_all_and_writes_nothing(place):
    place.apply(place.doc("a"), place.doc("gone"))
    before = place.api.items("/tasks", namespace=place.name)
    plan = place.apply(place.doc("a", priority=9), place.doc("new"), groups=[place.group()], dry_run=True,
                       remove=[{"namespace": place.name, "name": "gone", "version": 1}])
    assert plan["dry_run"] and actions(plan) == {"g": "created", "a": "changed", "new": "created", "gone": "deleted"}
    assert all("version" not in i and "secret" not in i for i in plan["items"])
    assert differences(plan, "a") == {"/priority": (5, 9)}
    assert place.api.items("/tasks", namespace=place.name) == before
    assert place.api.get(f"/executor-groups/{place.name}%2Fg").status_code == 404
    # what is wrong is said by a dry run, too
    assert place.refused(place.doc("a", priority=99), status=400, dry_run=True)[0] == "/tasks/0/priority"


def test_all_of_a_document_or_nothing(place):
    place.apply(place.doc("a"), place.doc("b"))
    bad = [(place.doc("c", schedule={"kind": "CRON", "expression": "0 99 * * * ?"}), 400, "invalid_field", "/tasks/2/schedule/expression"),
           (place.doc("a", priority=8), 409, "conflict", "/tasks/2/name"),
           (place.doc("c", version=3), 412, "stale_version", "/tasks/2/version"),
           (place.doc("b", version=7), 409, "conflict", "/tasks/2/name"),
           (place.doc("c", colour="red"), 400, "unknown_field", "/tasks/2/colour"),
           (place.doc("c", state="COMPLETED"), 400, "invalid_field", "/tasks/2/state"),
           (place.doc("c", namespace="nowhere"), 404, "not_found", "/tasks/2/namespace"),
           ([], 400, "invalid_field", "/tasks/2")]
    for document, status, code, pointer in bad:
        assert place.refused(place.doc("a", priority=1), place.doc("b", priority=2), document, status=status, code=code)[0] == pointer
    assert place.refused(place.doc("a", priority=1), groups=[place.group(), place.group("h", routing="FIRST?")], status=400)[0] \
        == "/groups/1/routing"
    assert place.refused(place.doc("a", priority=1), remove=[{"name": "b", "namespace": place.name, "version": 2}], status=412)[0] \
        == "/remove/0/version"
    place.api.problem("POST", "/apply", {"source": "x"}, 400, "missing_field")
    assert place.names() == ["a", "b"] and place.get("a")["version"] == place.get("b")["version"] == 1
    assert place.api.get(f"/executor-groups/{place.name}%2Fg").status_code == 404


def test_a_version_may_be_expected(place):
    place.apply(place.doc("a", version=0))
    assert place.refused(place.doc("a", version=0), status=412)[0] == "/tasks/0/version"
    place.apply(place.doc("a", version=1, priority=6))
    pointer, detail = place.refused(place.doc("a", version=1, priority=7), status=412)
    assert pointer == "/tasks/0/version" and "version 2, not 1" in detail
    assert place.get("a")["priority"] == 6
    place.apply(groups=[place.group(version=0)], tasks=None)
    assert place.refused(groups=[place.group(version=2)], status=412)[0] == "/groups/0/version"


def test_one_of_two_writers_wins(place):
    place.apply(place.doc("a"))
    codes, start = [], threading.Barrier(4)

    def write(n):
        api = place.node.api()
        start.wait(10)
        codes.append(api.post("/apply", place.request(place.doc("a", version=1, priority=n))).status_code)
    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(30)
    assert sorted(codes) == [200, 412, 412, 412] and place.get("a")["version"] == 2


def test_a_state_may_be_wished_for(place):
    place.apply(place.doc("a", state="PAUSED"), place.doc("b"))
    assert place.get("a")["state"] == "PAUSED" and place.get("b")["state"] == "ENABLED"
    assert actions(place.apply(place.doc("a"), place.doc("b", state="ENABLED"))) == {"a": "unchanged", "b": "unchanged"}
    done = place.apply(place.doc("a", state="ENABLED"), place.doc("b", state="PAUSED", priority=1))
    assert differences(done, "a") == {"/state": ("PAUSED", "ENABLED")}
    assert differences(done, "b") == {"/state": ("ENABLED", "PAUSED"), "/priority": (5, 1)}
    assert (place.get("a")["state"], place.get("b")["state"]) == ("ENABLED", "PAUSED")


def test_only_what_the_source_made_can_be_removed(place):
    place.api.ok("POST", "/tasks", place.doc("by-hand"))
    place.apply(place.doc("mine"), place.doc("by-hand", priority=7))  # changed, and still nobody's
    assert "managed_by" not in place.get("by-hand") and place.get("by-hand")["priority"] == 7
    place.apply(place.doc("theirs"), source="another")
    for name in ("by-hand", "theirs"):
        assert place.refused(remove=[{"namespace": place.name, "name": name}], status=409, code="conflict")[0] == "/remove/0"
    assert place.refused(remove=[{"namespace": place.name, "name": "mine"}], source=None, status=409)[0] == "/remove/0"
    assert actions(place.apply(remove=[{"namespace": place.name, "name": n} for n in ("mine", "never")])) == \
        {"mine": "deleted", "never": "unchanged"}
    assert place.names() == ["by-hand", "theirs"]
    assert [t["name"] for t in place.api.items("/tasks", managed_by="another", namespace=place.name)] == ["theirs"]


def test_a_task_of_another_source_is_taken_over_only_when_asked_for(place):
    place.api.ok("POST", "/tasks", place.doc("by-hand"))
    place.apply(place.doc("theirs"), source="another")
    pointer, detail = place.refused(place.doc("theirs", priority=1), status=409, code="conflict")
    assert pointer == "/tasks/0" and "another" in detail
    place.apply(place.doc("theirs", priority=2), source=None)  # who names no source takes nothing over
    assert place.get("theirs")["managed_by"] == "another"
    done = place.apply(place.doc("theirs", priority=2), place.doc("by-hand"), adopt=True)
    assert differences(done, "theirs") == {"/managed_by": ("another", place.source)}
    assert differences(done, "by-hand") == {"/managed_by": (None, place.source)}
    assert all(i["action"] == "changed" for i in done["items"]) and place.get("by-hand")["version"] == 1
    place.apply(remove=[{"namespace": place.name, "name": "by-hand", "version": 1}])
    assert place.names() == ["theirs"]


def test_open_runs_hold_a_removal(place):
    place.apply(place.doc("a", retry={"max_attempts": 100, "initial_interval": "9m"}))
    run = place.api.ok("POST", place.path("a") + "/trigger")["run_id"]  # there is no executor: it waits
    wait_for(lambda: place.api.get(f"/runs/{run}").status_code == 200, what="the run")
    remove = [{"namespace": place.name, "name": "a"}]
    assert place.refused(remove=remove, status=409, code="conflict")[0] == "/remove/0"
    place.apply(remove=remove, cancel=True)
    assert place.names() == []
    wait_for(lambda: place.api.ok("GET", f"/runs/{run}")["state"] == "CANCELLED", what="the end of the run")


def test_export_and_apply_are_a_circle(place):
    schedules = [{"kind": "CRON", "expression": "0 0/5 * * * ?", "timezone": "Asia/Shanghai", "jitter": "3s"},
                 {"kind": "FIXED_RATE", "every": "90s"}, {"kind": "FIXED_DELAY", "every": "1h30m"},
                 {"kind": "ONE_TIME", "run_at": "2199-01-01T00:00:00Z"}, {"kind": "MANUAL"}]
    tasks = [place.doc(f"t{i}", schedule=s, payload=[i, {"深": None}], description="说明", retry={"max_attempts": 3}, timeout="1h")
             for i, s in enumerate(schedules)]
    place.apply(*tasks, place.doc("held", state="PAUSED"))
    exported = place.export(limit=2)
    assert len(exported) == 6
    assert set(actions(place.apply(*exported)).values()) == {"unchanged"}
    for task in exported:
        assert "id" not in task and "version" not in task and task.get("state", "PAUSED") == "PAUSED"
    # and makes the same elsewhere
    other = Place(place.node)
    other.apply(*[{**t, "namespace": other.name} for t in exported])
    assert [{**t, "namespace": place.name} for t in other.export()] == exported
    assert other.get("held")["state"] == "PAUSED"
    # a document as the server prints it may be given, too
    assert actions(place.apply(place.get("t0"))) == {"t0": "unchanged"}
    # filters
    assert [t["name"] for t in place.export(name_prefix="he")] == ["held"]
    assert len(place.export(managed_by=place.source)) == 6 and place.export(managed_by="nobody") == []


def test_a_schedule_that_has_passed_is_no_hindrance_for_what_is_there(place):
    document = place.doc("once", schedule={"kind": "ONE_TIME", "run_at": "2020-01-01T00:00:00Z"})
    assert place.refused(document, status=400, code="in_the_past")[0].startswith("/tasks/0/schedule")
    document["misfire_policy"] = "SKIP"
    place.apply(document)
    assert actions(place.apply(document)) == {"once": "unchanged"}
    assert differences(place.apply({**document, "priority": 1}), "once") == {"/priority": (5, 1)}


def test_many_tasks_at_once(place):
    tasks = [place.doc(f"t{i:04}", priority=i % 10) for i in range(1000)]
    assert place.apply(*tasks)["created"] == 1000
    assert place.apply(*[{**t, "priority": 3} for t in tasks])["changed"] == 900
    assert place.apply(remove=[{"namespace": place.name, "name": t["name"]} for t in tasks])["deleted"] == 1000
    assert place.refused(*tasks, place.doc("one-more"), status=400)[0] == "/tasks"
    assert place.names() == []


def test_roles_and_namespaces(place):
    place.apply(place.doc("a"), groups=[place.group()])

    def token(role, **more):
        made = place.api.ok("POST", "/tokens", {"name": f"t-{role}", "role": role, **more})
        return place.node.api(made["token"])
    bound, viewer = token("OPERATOR", namespace=place.name), token("VIEWER")
    mine = {key: value for key, value in place.doc("a", priority=6).items() if key != "namespace"}
    request = place.request(mine, groups=[{"name": "g"}])
    assert bound.ok("POST", "/apply", request)["changed"] == 1 and place.get("a")["priority"] == 6
    assert bound.problem("POST", "/apply", place.request(mine, groups=[{"name": "h"}]), 403)["errors"][0]["pointer"] == "/groups/0"
    bound.problem("POST", "/apply", place.request(place.doc("x", namespace="default")), 403, "forbidden")
    bound.problem("POST", "/apply", place.request(tasks=[], remove=[{"namespace": "default", "name": "a"}]), 403)
    assert [t["name"] for t in bound.items("/export")] == ["a"] == [t["name"] for t in viewer.items("/export", namespace=place.name)]
    viewer.problem("POST", "/apply", request, 403, "forbidden")
    assert bound.items("/export", namespace="default") == []


# ---------------------------------------------------------------- versions

def test_history_says_who_changed_what_and_when(place):
    api = place.api
    maker = api.ok("POST", "/tokens", {"name": "alice", "role": "OPERATOR"})
    alice = place.node.api(maker["token"])
    alice.ok("POST", "/tasks", place.doc("a", payload={"v": 1, "w": {"x": 1}}))
    api.ok("PATCH", place.path("a") + "?note=because", {"payload": {"v": 2}, "priority": 7})
    alice.ok("POST", place.path("a") + "/pause")
    api.ok("PATCH", place.path("a"), {"payload": None})
    items = api.items(place.path("a") + "/history", limit=1)
    assert [i["version"] for i in items] == [4, 3, 2, 1] and items == api.items(place.path("a") + "/history")
    assert [i["updated_by"] for i in items] == ["bootstrap", "alice", "bootstrap", "alice"]
    assert [i.get("note") for i in items] == [None, None, "because", None]
    assert items[1]["differences"] == [{"field": "/state", "from": "ENABLED", "to": "PAUSED"}]
    assert {d["field"]: (d.get("from"), d.get("to")) for d in items[2]["differences"]} == \
        {"/payload/v": (1, 2), "/priority": (None, 7)}
    assert items[0]["differences"] == [{"field": "/payload/v", "from": 2}, {"field": "/payload/w/x", "from": 1}]
    assert items[3]["differences"] == [] and [i["updated_at"] for i in items] == sorted((i["updated_at"] for i in items), reverse=True)
    api.problem("GET", "/tasks/nothing/history", status=404)


def test_rollback(place):
    api, path = place.api, place.path("a")
    api.ok("POST", "/tasks", place.doc("a", payload={"v": 1}, schedule={"kind": "FIXED_RATE", "every": "1h"}))
    first = place.get("a")
    api.ok("PATCH", path, {"payload": {"v": 2}, "schedule": {"every": "2h", "anchor": "2024-01-01T00:00:00Z"}})
    api.ok("POST", path + "/pause")
    back = api.ok("POST", path + "/rollback", {"version": 1})
    assert back["version"] == 4 and back["payload"] == {"v": 1} and back["schedule"] == first["schedule"]
    assert back["state"] == "PAUSED" and back["note"] == "rolled back to version 1"
    assert api.ok("POST", path + "/rollback", {"version": 1})["version"] == 4  # it is the same already
    assert api.ok("POST", path + "/rollback?note=again", {"version": 2}, headers={"If-Match": '"4"'})["note"] == "again"
    api.problem("POST", path + "/rollback", {"version": 1}, 412, "stale_version", headers={"If-Match": '"4"'})
    problem = api.problem("POST", path + "/rollback", {"version": 99}, 404, "not_found")
    assert problem["errors"][0]["pointer"] == "/version"
    api.problem("POST", path + "/rollback", {}, 400, "missing_field")


def test_a_rollback_takes_the_name_back_if_it_is_free(place):
    api = place.api
    task = api.ok("POST", "/tasks", place.doc("old"))
    api.ok("PATCH", f"/tasks/{task['id']}", {"name": "new"})
    api.ok("POST", "/tasks", place.doc("old"))
    problem = api.problem("POST", f"/tasks/{task['id']}/rollback", {"version": 1}, 409, "conflict")
    assert problem["errors"][0]["pointer"] == "/name"
    api.delete(place.path("old"))
    assert api.ok("POST", f"/tasks/{task['id']}/rollback", {"version": 1})["name"] == "old"
