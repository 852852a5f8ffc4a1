"""What bad input gets: one problem document that names the place; and the frame around every answer."""
import json
import socket

HEAD = {"Content-Type": "application/json"}


def task(**more):
    return {"name": "a", "schedule": {"kind": "MANUAL"}, "executor_group": "sample", "handler": "h", **more}


def cron(expression, **more):
    return task(schedule={"kind": "CRON", "expression": expression, **more})


BAD_TASKS = [
    (task(names="x"), "unknown_field", "/names", None), (task(name=None), "missing_field", "/name", None),
    (task(name=5), "invalid_field", "/name", None), (task(name="x" * 129), "invalid_field", "/name", None),
    (task(priority=10), "invalid_field", "/priority", None), (task(timeout="1x"), "invalid_field", "/timeout", None),
    (task(retry={"max_attempts": 0}), "invalid_field", "/retry/max_attempts", None),
    (task(retry={"retry_on": ["BORED"]}), "invalid_field", "/retry/retry_on/0", None),
    (task(schedule={"kind": "WEEKLY"}), "invalid_field", "/schedule/kind", None),
    (task(schedule={"kind": "FIXED_RATE"}), "missing_field", "/schedule/every", None),
    (cron("0 0 30 2 *"), "never_fires", "/schedule/expression", None), (cron("0 0 12 * * ? junk"), "invalid_field", "/schedule/expression", 14),
    (cron("0 0 12 * * ?", timezone="Europe/Atlantis"), "unknown_zone", "/schedule/timezone", None),
    (cron("0 0 12 * * ?", at="1s"), "unknown_field", "/schedule/at", None),
    (task(schedule={"kind": "ONE_TIME", "run_at": "2020-01-01T00:00:00Z"}), "in_the_past", "/schedule/run_at", None),
    (task(namespace="nowhere"), "not_found", "/namespace", None)]


def test_a_bad_task_names_its_field(api, group):
    for body, code, pointer, column in BAD_TASKS:
        answer = api.post("/tasks", body)
        problem = answer.json()
        assert not answer.ok and (problem["code"], problem["errors"][0]["pointer"]) == (code, pointer), problem
        assert column is None or problem["errors"][0]["column"] == column
        assert problem["type"] == f"urn:kelou:problem:{code}" and problem["status"] == answer.status_code
        assert problem["request_id"] == answer.headers["X-Request-Id"]
    assert api.items("/tasks") == []  # nothing half-written


NO_DOCUMENTS = [
    (b"", 400, "missing_field"), (b"{", 400, "malformed"), (b"[1]", 400, "invalid_field"), (b'{"name":"a","name":"b"}', 400, "malformed"),
    (b'{"name":"\xff"}', 400, "malformed"), (b'{"name":"a\\u0000"}', 400, "malformed"), (b"{} x", 400, "malformed"), (b"null", 400, "invalid_field"),
    (b"[" * 100000, 400, "malformed")]


def test_what_is_no_document(api):
    for raw, status, code in NO_DOCUMENTS:
        answer = api.post("/tasks", raw=raw, headers=HEAD)
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def test_payloads_have_a_limit(api, group):
    fits = task(payload="x" * (1024 * 1024 - 2))
    assert api.post("/tasks", fits).status_code == 201
    answer = api.post("/tasks", task(name="b", payload="x" * (1024 * 1024)))
    assert answer.status_code in (400, 413) and answer.json()["errors"][0]["pointer"] == "/payload"
    huge = api.post("/tasks", raw=b'{"payload":"' + b"x" * (2 * 1024 * 1024) + b'"}', headers=HEAD)
    assert huge.status_code == 413 and huge.json()["code"] == "too_large"
    trigger = api.post("/tasks/a/trigger", {"payload": "x" * (1024 * 1024)})
    assert trigger.status_code == 413 and trigger.json()["errors"][0]["pointer"] == "/payload"


def test_media_types(api):
    for kind in ("text/plain", "application/xml", "application/json; charset=utf-16", "application/x-www-form-urlencoded"):
        problem = api.problem("POST", "/tasks", status=415, code="unsupported_media_type", raw=b"{}", headers={"Content-Type": kind})
        assert problem["errors"][0]["header"] == "Content-Type"


BAD_PARAMETERS = [
    ("limit=0", "limit"), ("limit=x", "limit"), ("limit=1&limit=2", "limit"), ("state=enabled", "state"), ("kind=YEARLY", "kind"),
    ("names=x", "names"), ("cursor=zzz", "cursor"), ("namespace=%ff", "namespace"), ("handler=%4", "handler")]


def test_a_bad_parameter_is_named(api):
    for query, name in BAD_PARAMETERS:
        assert api.problem("GET", f"/tasks?{query}", status=400)["errors"][0]["parameter"] == name


def test_paths_and_methods(api):
    api.problem("GET", "/nothing", status=404, code="not_found")
    api.problem("GET", "/tasks/", status=404, code="not_found")
    answer = api.request("DELETE", "/runs")
    assert answer.status_code == 405 and answer.headers["Allow"] == "GET, HEAD" and answer.json()["code"] == "method_not_allowed"
    api.problem("GET", "/tasks/%ff", status=404, code="not_found")
    api.problem("GET", "/tasks/" + "x" * 600, status=404, code="not_found")
    api.problem("GET", "/tasks", {"a": 1}, 400)  # no body there


def test_head_is_get_without_the_body(api, group):
    api.ok("POST", "/tasks", task())
    head, get = api.request("HEAD", "/tasks/a"), api.get("/tasks/a")
    assert head.status_code == 200 and not head.content and head.headers["ETag"] == get.headers["ETag"]
    assert head.headers["Content-Length"] == get.headers["Content-Length"]


def test_every_answer_has_its_frame(api):
    seen = set()
    for path in ("/healthz", "/readyz", "/tasks", "/nothing"):
        answer = api.get(path)
        assert answer.headers["Cache-Control"] == "no-store" and answer.headers["X-Content-Type-Options"] == "nosniff"
        seen.add(answer.headers["X-Request-Id"])
    assert len(seen) == 4


def raw_exchange(node, request):
    with socket.create_connection(("127.0.0.1", node.port), 10) as s:
        s.sendall(request)
        s.settimeout(10)
        got = b""
        while chunk := s.recv(65536):
            got += chunk
    head, _, body = got.partition(b"\r\n\r\n")
    return head, body


def test_what_is_no_http(node):
    for request, status in ((b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", b"400"), (b"nonsense\r\n\r\n", b"400"),
                            (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 20000 + b"\r\n\r\n", b"431")):
        head, body = raw_exchange(node, request)
        assert head.split()[1] == status and b"application/problem+json" in head, head
        assert json.loads(body)["status"] == int(status)


def test_metrics_count_the_requests(api, node):
    api.problem("GET", "/runs/x", status=404)
    api.items("/tasks")
    found = node.metrics()
    assert found['kelou_http_requests_total{route="/api/v1/runs/{run}",method="GET",code="4xx"}'] == 1
    assert found['kelou_http_requests_total{route="/api/v1/tasks",method="GET",code="2xx"}'] == 1
    assert found['kelou_http_requests_total{route="/api/v1/tasks",method="POST",code="2xx"}'] == 0
    assert found['kelou_http_request_duration_seconds_count{route="/api/v1/tasks",method="GET"}'] == 1


def test_readiness_is_told_from_life(node):
    assert node.api("x").get("/healthz").json() == {"status": "ok"}
    assert node.api("x").get("/readyz").json() == {"status": "ok"}


def test_a_full_queue_says_so_and_loses_nothing(make_node):
    """One worker, one place in the queue: many at once are answered, each with 200 or 503 and Retry-After."""
    node = make_node(settings={"api.workers": "1", "api.queue": "1"}).start()
    token, busy, good = node.admin_token(), 0, 0
    request = (f"GET /api/v1/tasks HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n").encode()
    for _ in range(50):
        sockets = [socket.create_connection(("127.0.0.1", node.port), 10) for _ in range(20)]
        for s in sockets:
            s.sendall(request)
        for s in sockets:
            with s:
                head, _, body = b"".join(iter(lambda s=s: s.recv(65536), b"")).partition(b"\r\n\r\n")
            status = int(head.split()[1])
            assert status in (200, 503), head
            busy += status == 503
            good += status == 200
            if status == 503:
                assert b"Retry-After: 1" in head and json.loads(body)["code"] == "unavailable"
        if busy and good:
            break
    assert busy and good
    assert node.api().get("/tasks").ok
