"""Who may do what, asked of every route."""
from tests.harness.kelou import Group

RANK = {"VIEWER": 0, "OPERATOR": 1, "ADMIN": 2}
METHODS = ("get", "post", "put", "patch", "delete")


def operations(api):
    """(method, path with made-up parameters, operation) of every route."""
    for path, item in api.ok("GET", "/openapi.json")["paths"].items():
        for method in METHODS:
            if method in item:
                names = [p["name"] for p in item[method].get("parameters", []) if p["in"] == "path"]
                for name in names:
                    path = path.replace("{%s}" % name, "nothing")
                yield method.upper(), path, item[method]


def allowed(role, wanted):
    if wanted == "EXECUTOR":
        return role in ("EXECUTOR", "OPERATOR", "ADMIN")
    return role != "EXECUTOR" and RANK[role] >= RANK[wanted]


def test_every_route_keeps_its_role(api, node, group):
    tokens = {"EXECUTOR": group.token}
    for role in RANK:
        tokens[role] = api.ok("POST", "/tokens", {"name": role, "role": role})["token"]
    clients = {role: node.api(token) for role, token in tokens.items()}
    nobody = node.api("klt_" + "A" * 43)
    count = 0
    for method, path, operation in operations(api):
        if operation.get("security") == []:
            assert nobody.request(method, path).ok, path
            continue
        count += 1
        refused = nobody.problem(method, path, status=401, code="unauthenticated")
        assert "klt_" not in str(refused)
        for role, client in clients.items():
            answer = client.request(method, path)
            good = allowed(role, operation["x-role"])
            assert (answer.status_code == 403) != good and answer.status_code != 401, f"{role} {method} {path}: {answer.text}"
    assert count >= 35
    assert node.metrics()['kelou_auth_failures_total{reason="token"}'] >= count


def test_what_is_no_token(node):
    for header in (None, "", "Bearer", "Bearer ", "Basic YTpi", "klt_x", "Bearer klt_short", "Bearer x\u00e9"):
        answer = node.api("unused").get("/tasks", headers={"Authorization": header.encode("latin-1") if header else header})
        assert answer.status_code == 401 and answer.json()["code"] == "unauthenticated", header
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_token_is_shown_once_and_ends(api, node):
    made = api.ok("POST", "/tokens", {"name": "ci", "role": "VIEWER"}, status=201)
    client = node.api(made["token"])
    assert client.get("/tasks").ok
    assert made["token"] not in api.get("/tokens").text
    listed = {t["name"]: t for t in api.items("/tokens", limit=1)}
    assert listed["ci"]["id"] == made["id"] and listed["ci"]["created_by"] and "token" not in listed["ci"]
    assert api.delete(f"/tokens/{made['id']}").status_code == 204
    client.problem("GET", "/tasks", status=401, code="unauthenticated")
    api.problem("DELETE", f"/tokens/{made['id']}", status=404, code="not_found")
    api.problem("DELETE", "/tokens/x", status=404, code="not_found")


BAD_TOKENS = [
    ({"role": "VIEWER"}, "/name", "missing_field"), ({"name": "a"}, "/role", "missing_field"),
    ({"name": "a", "role": "ROOT"}, "/role", "invalid_field"), ({"name": " a", "role": "VIEWER"}, "/name", "invalid_field"),
    ({"name": "a", "role": "EXECUTOR", "namespace": "default"}, "/group", "missing_field"),
    ({"name": "a", "role": "EXECUTOR"}, "/namespace", "missing_field"),
    ({"name": "a", "role": "VIEWER", "group": "g"}, "/group", "invalid_field"),
    ({"name": "a", "role": "VIEWER", "expires_at": "2020-01-01T00:00:00Z"}, "/expires_at", "in_the_past"),
    ({"name": "a", "role": "VIEWER", "namespace": "nowhere"}, "/namespace", "not_found")]


def test_a_bad_token_names_its_field(api):
    for body, pointer, code in BAD_TOKENS:
        answer = api.post("/tokens", body)
        assert answer.json()["errors"][0]["pointer"] == pointer and answer.json()["code"] == code, answer.text
    assert len(api.items("/tokens")) == 1


def test_what_is_elsewhere_does_not_exist(api, node, executor):
    api.ok("POST", "/namespaces", {"name": "team"})
    inside = Group(node, "work", "team")
    boss = node.api(api.ok("POST", "/tokens", {"name": "boss", "role": "ADMIN", "namespace": "team"})["token"])
    task = {"schedule": {"kind": "MANUAL"}, "handler": "default"}
    api.ok("POST", "/tasks", {"name": "hidden", "executor_group": "sample", **task})
    run_id = api.ok("POST", "/tasks/hidden/trigger")["run_id"]
    executor.wait_deliveries(1)
    boss.ok("POST", "/tasks", {"name": "mine", "namespace": "team", "executor_group": "work", **task})
    assert [t["name"] for t in boss.items("/tasks")] == ["mine"] and boss.items("/runs") == []
    assert boss.ok("GET", "/tasks/mine")["namespace"] == "team"  # a bare name is in the token's own namespace
    for method, path in (("GET", "/tasks/default%2Fhidden"), ("POST", "/tasks/default%2Fhidden/pause"), ("GET", f"/runs/{run_id}"),
                         ("POST", f"/runs/{run_id}/cancel"), ("GET", "/executor-groups/default%2Fsample"),
                         ("DELETE", "/executor-groups/default%2Fsample")):
        boss.problem(method, path, status=404, code="not_found")
    boss.problem("POST", "/tasks", {"name": "x", "namespace": "default", "executor_group": "sample", **task}, 403, "forbidden")
    boss.problem("POST", "/executor-groups", {"name": "x", "namespace": "default"}, 403, "forbidden")
    boss.problem("POST", "/tokens", {"name": "x", "role": "ADMIN", "namespace": "default"}, 403, "forbidden")
    boss.problem("POST", "/namespaces", {"name": "x"}, 403, "forbidden")
    boss.problem("GET", "/runs", status=403, code="forbidden", params={"namespace": "default"})
    boss.problem("GET", "/executors", status=403, code="forbidden", params={"namespace": "default"})
    assert [n["name"] for n in boss.items("/namespaces")] == ["team"]
    assert {g["name"] for g in boss.items("/executor-groups")} == {"work"}
    assert {t["name"] for t in boss.items("/tokens")} == {"boss", "work-executor"}
    admin = next(t for t in api.items("/tokens") if t["role"] == "ADMIN" and "namespace" not in t)
    boss.problem("DELETE", f"/tokens/{admin['id']}", status=404, code="not_found")
    assert boss.ok("POST", "/tokens", {"name": "reader", "role": "VIEWER"})["namespace"] == "team"  # bound like its maker
    assert inside.secret


def test_metrics_may_want_a_token(make_node):
    node = make_node(settings={"api.metrics_public": "false"}).start()
    node.api("klt_x").problem("GET", "/metrics", status=401, code="unauthenticated")
    assert "kelou_http_requests_total" in node.api().get("/metrics").text
