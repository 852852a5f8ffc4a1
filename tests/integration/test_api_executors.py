"""/api/v1/executor-groups and /api/v1/executors as their clients see them."""
from tests.harness.kelou import Group


def registration(**more):
    return {"id": "e1", "url": "http://127.0.0.1:9", "handlers": ["a", "b"], **more}


def test_a_secret_is_shown_once(api):
    made = api.ok("POST", "/executor-groups", {"name": "g"}, status=201)
    assert made["secret"] and made["channel"] == "HTTP" and made["routing"] == "ROUND_ROBIN" and made["max_connections"] == 16
    read = api.get("/executor-groups/g")
    assert read.headers["ETag"] == '"1"' and "secret" not in read.json() and made["secret"] not in read.text
    assert made["secret"] not in api.get("/executor-groups").text
    rotated = api.ok("POST", "/executor-groups/g/rotate-secret")
    assert rotated["secret"] != made["secret"] and rotated["version"] > made["version"]
    assert "secret" not in api.ok("POST", "/executor-groups/g/retire-secret")
    problem = api.problem("POST", "/executor-groups", {"name": "g"}, 409, "conflict")
    assert "secret" not in problem["detail"]


def test_a_group_changes_under_its_version(api):
    api.ok("POST", "/executor-groups", {"name": "g", "max_connections": 4})
    changed = api.ok("PATCH", "/executor-groups/g", {"routing": "LEAST_BUSY"})
    assert changed["routing"] == "LEAST_BUSY" and changed["max_connections"] == 4 and changed["version"] == 2
    api.problem("PATCH", "/executor-groups/g", {"max_connections": 5}, 412, "stale_version", headers={"If-Match": '"1"'})
    assert api.ok("PATCH", "/executor-groups/default%2Fg", {"max_connections": 5}, headers={"If-Match": '"2"'})["max_connections"] == 5
    assert api.get("/executor-groups/g", headers={"If-None-Match": '"3"'}).status_code == 304
    assert api.problem("PATCH", "/executor-groups/g", {"max_connections": 0}, 400)["errors"][0]["pointer"] == "/max_connections"


def test_a_group_in_use_stays(api, group):
    api.ok("POST", "/tasks", {"name": "a", "schedule": {"kind": "MANUAL"}, "executor_group": "sample", "handler": "h"})
    api.problem("DELETE", "/executor-groups/sample", status=409, code="conflict")
    api.ok("DELETE", "/tasks/a")
    api.ok("DELETE", "/executor-groups/sample", status=204)
    api.problem("GET", "/executor-groups/sample", status=404, code="not_found")


def test_the_life_of_an_executor(api, node, group):
    own = node.api(group.token)
    first = own.ok("POST", "/executors/register", registration(slots=3, version="1.2", labels={"zone": "a"}), status=200)
    assert first["heartbeat_interval"] == "10s" and first["lost_after"] == "30s" and first["group"] == "sample"
    executor = api.ok("GET", "/executors/e1")
    assert executor["state"] == "ONLINE" and executor["slots"] == 3 and executor["handlers"] == ["a", "b"]
    assert executor["labels"] == {"zone": "a"} and executor["version"] == "1.2" and executor["url"] == "http://127.0.0.1:9"
    beat = {"incarnation": first["incarnation"], "running": 2}
    assert own.ok("POST", "/executors/e1/heartbeat", beat) == {"state": "ONLINE"}
    assert api.ok("POST", "/executors/e1/drain")["state"] == "DRAINING"
    assert own.ok("POST", "/executors/e1/heartbeat", beat) == {"state": "DRAINING"}
    assert api.ok("POST", "/executors/default%2Fsample%2Fe1/resume")["state"] == "ONLINE"
    second = own.ok("POST", "/executors/register", registration())
    assert second["incarnation"] > first["incarnation"]
    own.problem("POST", "/executors/e1/heartbeat", beat, 412, "stale_version")
    own.ok("POST", "/executors/e1/deregister", status=204)
    assert api.ok("GET", "/executors/e1")["state"] == "OFFLINE"
    own.problem("POST", "/executors/e1/heartbeat", {}, 404, "not_found")
    own.problem("POST", "/executors/nobody/heartbeat", {}, 404, "not_found")


BAD_REGISTRATIONS = [
    (registration(url="ftp://127.0.0.1"), "/url"), (registration(url="http://u:p@127.0.0.1"), "/url"),
    (registration(url="http://169.254.169.254"), "/url"), (registration(url="http://8.8.8.8"), "/url"),
    (registration(handlers=[]), "/handlers"), (registration(handlers=["a", ""]), "/handlers/1"),
    (registration(slots=0), "/slots"), (registration(slots=10001), "/slots"), (registration(id=""), "/id"),
    (registration(labels={"x": "y" * 5000}), "/labels"), (registration(capacity=1), "/capacity")]


def test_a_bad_registration_names_its_field(node, group):
    for body, pointer in BAD_REGISTRATIONS:
        answer = node.api(group.token).post("/executors/register", body)
        assert 400 <= answer.status_code < 500 and answer.json()["errors"][0]["pointer"] == pointer, answer.text
    assert node.api().items("/executors") == []
    for url, said in (("http://8.8.8.8", "8.8.8.8 is outside the networks of executor.allowed_networks"),
                      ("http://169.254.169.254", "169.254.169.254 is never called: it is link-local, where cloud metadata lives")):
        problem = node.api(group.token).problem("POST", "/executors/register", registration(url=url), 400, "address_not_allowed")
        assert problem["errors"][0]["detail"] == said and "role" not in problem["title"], problem


def test_a_token_speaks_for_its_group_only(api, node, group):
    other = Group(node, "other")
    node.api(other.token).ok("POST", "/executors/register", registration(id="x"))
    own = node.api(group.token)
    assert own.problem("POST", "/executors/register", registration(group="other"), 403, "forbidden")["errors"][0]["pointer"] == "/group"
    own.problem("POST", "/executors/register", registration(namespace="elsewhere"), 403, "forbidden")
    own.problem("POST", "/executors/x/heartbeat", {}, 404, "not_found")
    own.problem("POST", "/executors/default%2Fother%2Fx/heartbeat", {}, 403, "forbidden")
    own.problem("POST", "/executors/default%2Fother%2Fx/deregister", status=403, code="forbidden")
    own.problem("GET", "/executors", status=403, code="forbidden")
    api.problem("POST", "/executors/register", registration(), 400, "missing_field")  # bound to no group: say which
    api.problem("POST", "/executors/register", registration(group="none"), 404, "not_found")


def test_an_id_of_two_groups_wants_the_group(api, node, group):
    for g in (group, Group(node, "other")):
        node.api(g.token).ok("POST", "/executors/register", registration(id="same"))
    problem = api.problem("POST", "/executors/same/drain", status=400)
    assert problem["errors"][0]["parameter"] == "group"
    assert api.ok("POST", "/executors/same/drain", params={"namespace": "default", "group": "other"})["group"] == "other"
    states = {e["group"]: e["state"] for e in api.items("/executors")}
    assert states == {"sample": "ONLINE", "other": "DRAINING"}
    assert [e["group"] for e in api.items("/executors", group="other")] == ["other"]
