"""The served OpenAPI document is sound, and live answers are as it says."""
from tests.harness.fake_executor import Done
from tests.harness.kelou import wait_for

TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict, "null": type(None)}


def resolve(doc, ref):
    assert ref.startswith("#/"), ref
    for part in ref[2:].split("/"):
        doc = doc[part]
    return doc


def walk(doc, node, seen):
    if isinstance(node, dict):
        if "$ref" in node:
            resolve(doc, node["$ref"])
            seen.add(node["$ref"])
        for value in node.values():
            walk(doc, value, seen)
    elif isinstance(node, list):
        for value in node:
            walk(doc, value, seen)


def fits(doc, schema, value, place="$"):
    """Fails where the value is not what the schema says (types, required, unknown fields, enums, bounds)."""
    if "$ref" in schema:
        schema = {**resolve(doc, schema["$ref"]), **{k: v for k, v in schema.items() if k != "$ref"}}
    kind = schema.get("type")
    if kind:
        kinds = kind if isinstance(kind, list) else [kind]
        assert any(isinstance(value, TYPES[k]) and (k == "boolean" or not isinstance(value, bool)) for k in kinds), f"{place}: {value!r} is no {kind}"
    if "enum" in schema:
        assert value in schema["enum"], f"{place}: {value!r}"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        assert schema.get("minimum", value) <= value <= schema.get("maximum", value), f"{place}: {value}"
    if isinstance(value, dict) and "properties" in schema:
        missing = set(schema.get("required", [])) - set(value)
        assert not missing, f"{place}: without {missing}"
        unknown = set(value) - set(schema["properties"])
        assert not unknown, f"{place}: {unknown} not described"
        for key, item in value.items():
            fits(doc, schema["properties"][key], item, f"{place}.{key}")
    if isinstance(value, list) and "items" in schema:
        for i, item in enumerate(value):
            fits(doc, schema["items"], item, f"{place}[{i}]")


def test_the_document_is_sound(api):
    doc = api.ok("GET", "/openapi.json")
    assert doc["openapi"].startswith("3.1") and doc["info"]["version"]
    seen, ids = set(), []
    walk(doc, doc, seen)
    unused = {f"#/components/schemas/{name}" for name in doc["components"]["schemas"]} - seen
    assert not unused, unused
    for path, item in doc["paths"].items():
        for method, operation in item.items():
            ids.append(operation["operationId"])
            assert operation["summary"] and any(s[0] == "2" for s in operation["responses"]), path
            assert operation.get("security") == [] or operation["x-role"] in ("VIEWER", "OPERATOR", "ADMIN", "EXECUTOR")
            in_path = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
            assert all("{%s}" % name in path for name in in_path) and len(in_path) == path.count("{"), path
            assert method in ("get", "post", "put", "patch", "delete")
    assert len(ids) == len(set(ids))


def test_live_answers_are_as_described(api, executor):
    doc = api.ok("GET", "/openapi.json")
    executor.answer(Done({"r": 1}))

    def call(method, path, template, body=None, **more):
        answer = api.request(method, path, body=body, **more)
        operation = doc["paths"]["/api/v1" + template][method.lower()]
        said = operation["responses"][str(answer.status_code)]
        said = resolve(doc, said["$ref"]) if "$ref" in said else said
        value = answer.json()
        fits(doc, said["content"][answer.headers["Content-Type"].split(";")[0]]["schema"], value, f"{method} {path}")
        if body is not None and answer.ok:
            fits(doc, operation["requestBody"]["content"]["application/json"]["schema"], body, f"body of {method} {path}")
        return value

    call("POST", "/tasks", "/tasks", {"name": "a", "schedule": {"kind": "CRON", "expression": "0 0 1 1 * ?", "jitter": "5s"}, "executor_group": "sample",
                                      "handler": "default", "payload": [1], "retry": {"max_attempts": 3}})
    call("POST", "/tasks/batch", "/tasks/batch", {"tasks": [{"name": "b", "schedule": {"kind": "FIXED_DELAY", "every": "7d"},
                                                             "executor_group": "sample", "handler": "default"}]})
    call("GET", "/tasks", "/tasks")
    call("GET", "/tasks/a", "/tasks/{task}")
    call("GET", "/tasks/nothing", "/tasks/{task}")
    call("PATCH", "/tasks/a", "/tasks/{task}", {"description": "d"})
    call("POST", "/tasks/a/pause", "/tasks/{task}/pause")
    call("POST", "/tasks/a/resume", "/tasks/{task}/resume", {"catch_up": False})
    run_id = call("POST", "/tasks/a/trigger", "/tasks/{task}/trigger", {"payload": {"x": None}})["run_id"]
    wait_for(lambda: api.get(f"/runs/{run_id}").json().get("state") == "SUCCESS", what="the run's end")
    call("GET", f"/runs/{run_id}", "/runs/{run}")
    call("GET", "/runs", "/runs")
    call("GET", f"/runs/{run_id}/logs", "/runs/{run}/logs")
    call("POST", f"/runs/{run_id}/cancel", "/runs/{run}/cancel")
    call("POST", f"/runs/{run_id}/retry", "/runs/{run}/retry")
    for part in ("versions", "stats", "next"):
        call("GET", f"/tasks/a/{part}", "/tasks/{task}/" + part)
    call("POST", "/schedules/preview", "/schedules/preview", {"schedule": {"kind": "FIXED_RATE", "every": "1m"}, "n": 2})
    call("GET", "/executor-groups", "/executor-groups")
    call("POST", "/executor-groups", "/executor-groups", {"name": "g2", "routing": "LEAST_BUSY"})
    call("POST", "/executor-groups/g2/rotate-secret", "/executor-groups/{group}/rotate-secret")
    call("GET", "/executors", "/executors")
    call("GET", f"/executors/{executor.name}", "/executors/{executor}")
    call("POST", f"/executors/{executor.name}/drain", "/executors/{executor}/drain")
    call("POST", f"/executors/{executor.name}/heartbeat", "/executors/{executor}/heartbeat", {"running": 1})
    call("POST", "/executors/register", "/executors/register",
         {"id": "z", "group": "sample", "url": "http://127.0.0.1:1", "handlers": ["*"], "labels": {"a": "b"}})
    call("POST", "/tokens", "/tokens", {"name": "t", "role": "EXECUTOR", "namespace": "default", "group": "sample"})
    call("GET", "/tokens", "/tokens")
    call("POST", "/namespaces", "/namespaces", {"name": "n2"})
    call("GET", "/namespaces", "/namespaces")
