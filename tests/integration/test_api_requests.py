"""Requests generated from the served OpenAPI document: whatever is sent, the answer is one that the document knows, never a 5xx, and a
refusal names the place. The long form sends more, from a new seed each time."""
import itertools
import json
import re
from urllib.parse import quote

import jsonschema
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz import requests_of
from tests.integration.test_api_openapi import fits

TASK = {"name": "good", "description": "d", "schedule": {"kind": "CRON", "expression": "0 0 3 1 1 ?", "timezone": "UTC", "jitter": "1s", "max_runs": 9},
        "executor_group": "keep", "handler": "h", "misfire_policy": "SKIP", "misfire_threshold": "1m", "catchup_max_runs": 5, "catchup_rate": 2.5,
        "overlap_policy": "ALLOW", "retry": {"max_attempts": 2, "initial_interval": "1s", "multiplier": 1.5, "retry_on": ["ERROR"]},
        "timeout": "1h", "on_lost": "FAIL", "priority": 3, "routing": "CONSISTENT_HASH", "routing_key": "k", "executor_labels": {"zone": "a"}, "payload": {"a": 1}}
REPORT = {"run_id": "0" * 36, "attempt": 1, "fence": 1, "state": "FAIL", "started_at": "2026-11-23T04:46:10Z", "finished_at": "2026-11-23T04:46:11Z",
          "error": {"type": "t", "message": "m", "detail": "d"}, "executor": "e-1", "progress": 0.5,
          "log": [{"seq": 1, "at": "2026-11-23T04:46:10Z", "level": "WARN", "text": "x"}, {"seq": 2, "text": "y"}]}
# bodies that are good: each is sent once as it is, then spoiled at each of its places
GOOD = {"tasks_create": TASK, "tasks_create_many": {"tasks": [{**TASK, "name": "many"}]}, "tasks_replace": TASK,
        "tasks_patch": {"description": "x", "priority": 4, "timeout": "2h", "on_lost": "RETRY"},
        "tasks_resume": {"catch_up": False}, "tasks_trigger": {"executor": "e-1", "ignore_overlap": True},
        "schedules_preview": {"schedule": TASK["schedule"], "n": 3}, "groups_create": {"name": "g-new", "routing": "LEAST_BUSY", "max_connections": 3},
        "groups_patch": {"routing": "ROUND_ROBIN", "max_connections": 5},
        "executors_register": {"id": "e-1", "group": "keep", "url": requests_of.LOOPBACK, "handlers": ["*"], "slots": 2, "weight": 3, "labels": {"a": "b"}},
        "executors_patch": {"weight": 4}, "executors_beat": {"running": 1}, "tokens_create": {"name": "t", "role": "VIEWER", "expires_at": "2999-01-01T00:00:00Z"},
        "namespaces_create": {"name": "n-new"}, "reports": {"reports": [REPORT]}}
EXAMPLES, LONG_EXAMPLES = 16, 400
NAMES = ["keep", "default%2Fkeep", "none", "1", "9" * 30, "a%2Fb%2Fc", "%ff", "%00", "é"]  # of resources without a list of their own
SHARED = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck), "phases": (Phase.explicit, Phase.generate, Phase.shrink),
          "print_blob": True}


class Checker:
    """Sends requests and looks at what comes back."""

    def __init__(self, api):
        self.api = api
        self.doc = api.ok("GET", "/openapi.json")
        self.operations = {operation["operationId"]: (method.upper(), path, operation)
                           for path, item in self.doc["paths"].items() for method, operation in item.items()}
        self.resolver = jsonschema.RefResolver.from_schema(self.doc)
        self.pool = {"task": NAMES, "run": ["0" * 36, "v" * 36, "x", "0" * 35], "group": ["keep", "default%2Fkeep", "none", "a%2Fb%2Fc", "%20"],
                     "executor": ["e-1", "none", "%c3%28"], "token": ["999999999", "x", "-1", "%00"]}
        self.count = itertools.count(1)

    def places(self, noun):
        return self.pool.get(noun, NAMES)

    def body_schema(self, operation_id):
        content = self.operations[operation_id][2].get("requestBody", {}).get("content")
        return next(iter(content.values()))["schema"] if content else None

    def send(self, operation_id, place=None, query="", headers=None, raw=None, token=None):
        """Send a request; the answer must be as the document says. Returns (status, parsed body)."""
        method, path, operation = self.operations[operation_id]
        path = re.sub(r"\{(\w+)\}", lambda m: place or self.places(m[1])[0], path)
        head = {"Authorization": f"Bearer {self.api.token}" if token is None else token, **(headers or {})}
        if raw is not None:
            head.setdefault("Content-Type", "application/json")
        answer = self.api.session.request(method, self.api.base_url + path + ("?" + query if query else ""), data=raw, headers=head, timeout=20,
                                          allow_redirects=False)
        said = f"{method} {path}?{query} {head} {raw!r}: {answer.status_code} {answer.text[:600]}"
        assert answer.status_code < 500, said
        assert str(answer.status_code) in operation["responses"], "undocumented: " + said
        described = operation["responses"][str(answer.status_code)]
        described = requests_of.resolve(self.doc, described)
        if "content" not in described:
            assert not answer.content, said
            return answer.status_code, None
        kind = answer.headers["Content-Type"].split(";")[0]
        assert kind in described["content"], said
        if not kind.endswith("json"):
            return answer.status_code, answer.text
        value = answer.json()
        schema = described["content"][kind]["schema"]
        fits(self.doc, schema, value, said)
        jsonschema.Draft202012Validator(schema, resolver=self.resolver).validate(value)
        if answer.status_code >= 400:
            self.check_problem(answer.status_code, value, said)
        return answer.status_code, value

    @staticmethod
    def check_problem(status, problem, said):
        assert problem["status"] == status and problem["code"] and problem["detail"] and problem["title"], said
        assert problem["type"] == "urn:kelou:problem:" + problem["code"], said

    def remember(self, operation_id, status, value):
        """What was made can be asked for by later requests."""
        if status == 201 and operation_id == "tasks_create":
            self.pool["task"] = self.pool["task"][:60] + [value["id"]]
        if status == 202 and operation_id in ("tasks_trigger", "runs_retry"):
            self.pool["run"] = self.pool["run"][:60] + [value["run_id"]]
        if status == 201 and operation_id == "tokens_create":
            self.pool["token"] = self.pool["token"][:60] + [value["id"]]


@pytest.fixture(scope="module")
def world_settings():
    return {"executor.lost_after": "60s"}


@pytest.fixture(scope="module")
def checker(world):
    api = world.api()
    api.ok("POST", "/executor-groups", {"name": "keep"})
    api.ok("POST", "/tasks", {**TASK, "name": "keep"})
    api.ok("POST", "/executors/register", GOOD["executors_register"])
    made = Checker(api)
    made.pool["run"].append(api.ok("POST", "/tasks/keep/trigger", status=202)["run_id"])
    return made


@pytest.fixture
def how_many(request):
    """Settings of hypothesis: the same few requests each time, or many new ones."""
    if request.config.getoption("--long"):
        return settings(max_examples=LONG_EXAMPLES, **SHARED)
    return settings(max_examples=EXAMPLES, derandomize=True, **SHARED)


def query_of(draw, checker, operation):
    pairs = []
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "query" and draw(st.integers(0, 3)) == 0:
            good = requests_of.values(checker.doc, parameter["schema"], parameter["name"])
            value = draw(good | st.text(max_size=12) | st.sampled_from(["", "0", "-1", "99999999999999999999", "%", "a,b", "%ff", "%00"]))
            value = ",".join(map(str, value)) if isinstance(value, list) else str(value).lower() if isinstance(value, bool) else str(value)
            pairs.append((parameter["name"], value if re.fullmatch(r"%[0-9a-f]{0,2}", value) else quote(value, safe=",")))
    if draw(st.integers(0, 15)) == 0:
        pairs.append(draw(st.sampled_from([("zz_nobody", "1"), ("", ""), ("limit", "5"), ("limit", "6")])))
    return "&".join(f"{name}={value}" for name, value in pairs)


def headers_of(draw, operation):
    values = {"If-Match": ["*", '"1"', '"2"', 'W/"1"', "x", '"99999999999999999999"', ""], "If-None-Match": ["*", '"1"', 'W/"1", "2"', "x"],
              "Idempotency-Key": ["k1", "k2", "a b", "x" * 256, ""]}
    return {p["name"]: draw(st.sampled_from(values[p["name"]])) for p in operation.get("parameters", [])
            if p["in"] == "header" and draw(st.booleans())}


def send_drawn(checker, operation_id, draw):
    """One generated request: good, spoiled, broken, or by somebody who may not."""
    _, path, operation = checker.operations[operation_id]
    found = re.search(r"\{(\w+)\}", path)
    place = draw(st.sampled_from(checker.places(found[1]))) if found else None
    schema, raw, headers = checker.body_schema(operation_id), None, headers_of(draw, operation)
    if schema and draw(st.integers(0, 9)):
        body = draw(requests_of.values(checker.doc, schema))
        spoiled = requests_of.damages(checker.doc, schema, body) if draw(st.integers(0, 2)) == 0 else []
        if spoiled:
            body = draw(st.sampled_from(spoiled))[1](body)
        raw = json.dumps(body).encode()
    elif draw(st.integers(0, 3)) == 0:
        raw = draw(st.sampled_from(requests_of.BROKEN) | st.binary(max_size=40))
        headers["Content-Type"] = draw(st.sampled_from(["application/json", "text/plain", "application/json; charset=utf-8", ""]))
    token = draw(st.sampled_from([None] * 12 + ["", "Bearer x", "Basic eA==", "Bearer " + "k" * 300]))
    checker.remember(operation_id, *checker.send(operation_id, place, query_of(draw, checker, operation), headers, raw, token))


def test_generated_requests(checker, how_many):
    failed = []
    for operation_id in checker.operations:
        @how_many
        @given(st.data())
        def examples(data):
            send_drawn(checker, operation_id, data.draw)  # pylint: disable=cell-var-from-loop
        try:
            examples()
        except AssertionError as e:
            failed.append(f"{operation_id}: {e}")
    assert not failed, "\n\n".join(failed)


@pytest.mark.parametrize("operation_id", sorted(GOOD))
def test_a_spoiled_body_is_refused_by_its_place(checker, operation_id):
    schema, good = checker.body_schema(operation_id), GOOD[operation_id]
    jsonschema.Draft202012Validator(schema, resolver=checker.resolver).validate(good)
    headers = {"If-Match": "*"} if operation_id == "tasks_replace" else {}
    status, _ = checker.send(operation_id, raw=json.dumps({**good, **({"name": "keep"} if operation_id == "tasks_replace" else {})}).encode(),
                             headers=headers)
    assert status < 300 or operation_id == "reports"
    failed = []
    if operation_id == "reports":
        good = {"reports": [{**REPORT, "run_id": checker.pool["run"][-1]}]}
    for where, spoil in requests_of.damages(checker.doc, schema, good):
        body = spoil(good)
        status, problem = checker.send(operation_id, raw=json.dumps(body).encode(), headers=headers)
        if status != 400 or problem.get("errors", [{}])[0].get("pointer") != where:
            failed.append(f"{where}: {status} {json.dumps((problem or {}).get('errors', problem))[:300]} for {json.dumps(body)}")
    assert not failed, "\n".join(failed)


def test_broken_bodies_are_refused(checker):
    for operation_id in sorted(GOOD):
        for raw in requests_of.BROKEN:
            status, problem = checker.send(operation_id, raw=raw, headers={"If-Match": "*"} if operation_id == "tasks_replace" else {})
            optional = checker.operations[operation_id][2]["requestBody"]["required"] is False
            assert status in (400, 413) or (optional and not raw), (operation_id, raw, problem)


def test_other_methods_are_refused(checker):
    for path, item in checker.doc["paths"].items():
        for method in {"get", "post", "put", "patch", "delete"} - set(item) - {"head"}:
            answer = checker.api.session.request(method.upper(), checker.api.base_url + re.sub(r"\{\w+\}", "x", path), timeout=20,
                                                 headers={"Authorization": f"Bearer {checker.api.token}"})
            if not any(method in other and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", pattern), re.sub(r"\{\w+\}", "x", path))
                       for pattern, other in checker.doc["paths"].items()):
                assert answer.status_code == 405 and answer.headers["Allow"], (method, path, answer.text)
                assert set(item) <= set(answer.headers["Allow"].lower().split(", ")), (method, path)
