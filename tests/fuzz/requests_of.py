"""Requests made from an OpenAPI document: valid ones, and ones that are spoiled at a known place."""
import copy
import json
import string

from hypothesis import strategies as st

LOOPBACK = "http://127.0.0.1:1"  # nobody listens there
INSTANTS = ("2026-11-23T04:46:10Z", "1970-01-01T00:00:00Z", "2999-12-31T23:59:59.999999+14:00")
DURATIONS = ("30s", "1h30m", "7d", "0s", "90m")
EXPRESSIONS = ("0 0 3 1 1 ?", "@yearly", "5 4 3 2 *", "0 0 0 L-3 * ?", "61 * * * *", "0 0 0 30 2 ?")
# texts of fields that mean something: without them nothing would ever be accepted
KNOWN = {"expression": EXPRESSIONS, "timezone": ("UTC", "Europe/Berlin", "+08:00", "Nowhere/Else"), "run_at": INSTANTS + ("2999-03-29T02:30:00",),
         "url": (LOOPBACK, "http://[::1]:1/base", "ftp://127.0.0.1"), "executor_group": ("keep", "g-none"), "group": ("keep", "g-none"),
         "namespace": ("default", "n-none"), "executor": ("e-1", "e-none"), "id": ("e-1", "e-2"), "cursor": ("", "0" * 60, "zz")}
NAME_LETTERS = string.ascii_letters + string.digits + "_.-:" + "é刻"


def resolve(doc, schema):
    """The schema behind a reference."""
    while "$ref" in schema:
        target = doc
        for part in schema["$ref"][2:].split("/"):
            target = target[part]
        schema = {**target, **{k: v for k, v in schema.items() if k != "$ref"}}
    return schema


def any_json():
    leaf = st.none() | st.booleans() | st.integers(-(2 ** 63), 2 ** 63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)
    return st.recursive(leaf, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=10)


def texts(schema, name):
    if name in KNOWN:
        return st.sampled_from(KNOWN[name])
    if schema.get("format") == "date-time":
        return st.sampled_from(INSTANTS)
    if "pattern" in schema:
        return st.sampled_from(DURATIONS)
    least, most = schema.get("minLength", 0), min(schema.get("maxLength", 24), 24)
    return st.text(NAME_LETTERS, min_size=min(least, most), max_size=max(least, most))


def values(doc, schema, name=""):
    """A strategy for what a schema allows."""
    schema = resolve(doc, schema)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object" and "properties" in schema:
        needed = {k: values(doc, v, k) for k, v in schema["properties"].items() if k in schema.get("required", [])}
        others = {k: values(doc, v, k) for k, v in schema["properties"].items() if k not in needed}
        return st.fixed_dictionaries(needed, optional=others)
    if kind == "object":
        return st.dictionaries(st.text(NAME_LETTERS, min_size=1, max_size=8), st.text(NAME_LETTERS, min_size=1, max_size=8), max_size=3)
    if kind == "array":
        return st.lists(values(doc, schema.get("items", {}), name), min_size=schema.get("minItems", 0), max_size=min(schema.get("maxItems", 3), 3))
    if kind == "string":
        return texts(schema, name)
    if kind == "integer":
        return st.integers(schema.get("minimum", 0), min(schema.get("maximum", 1000), 1000))
    if kind == "number":
        return st.floats(schema.get("minimum", 0), schema.get("maximum", 1000), allow_nan=False)
    return st.booleans() if kind == "boolean" else any_json()


def pointer(path):
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def damages(doc, schema, value, path=()):
    """[(pointer, function that spoils a copy of the whole body)]: each makes a body that the schema refuses at that place."""
    schema = resolve(doc, schema)
    found = []
    if path:
        for wrong in wrong_values(schema):
            found.append((pointer(path), replacing(path, wrong)))
    if isinstance(value, dict) and "properties" in schema:
        if schema.get("additionalProperties") is False:
            found.append((pointer(path + ("zz_nobody",)), replacing(path + ("zz_nobody",), 1)))
        for key in schema.get("required", []):
            found.append((pointer(path + (key,)), removing(path + (key,))))
        for key, item in value.items():
            if key in schema["properties"]:
                found += damages(doc, schema["properties"][key], item, path + (key,))
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value[:2]):
            found += damages(doc, schema["items"], item, path + (index,))
    return found


def wrong_values(schema):
    kind = schema.get("type")
    if kind == "string":
        wrong = [7, True, [], {}]
        if "enum" in schema:
            wrong.append("NOBODY")
        if schema.get("maxLength", 99999) <= 4096:
            wrong.append("x" * (schema["maxLength"] + 1))
        if schema.get("minLength"):
            wrong.append("")
        if "pattern" in schema or schema.get("format"):
            wrong += ["soon", "-1", "1h1"]
        return wrong
    if kind in ("integer", "number"):
        wrong = ["7", True, [], {}, 1e300]
        if kind == "integer":
            wrong.append(1.5)
        if "minimum" in schema:
            wrong.append(schema["minimum"] - 1)
        if "maximum" in schema:
            wrong.append(schema["maximum"] + 1)
        return wrong
    return {"boolean": ["true", 1, []], "array": [{}, "x", 1], "object": [[], "x", 1]}.get(kind, [])


def holder(body, path):
    for part in path[:-1]:
        body = body[part]
    return body


def replacing(path, wrong):
    def spoil(body):
        body = copy.deepcopy(body)
        holder(body, path)[path[-1]] = wrong
        return body
    return spoil


def removing(path):
    def spoil(body):
        body = copy.deepcopy(body)
        holder(body, path).pop(path[-1], None)
        return body
    return spoil


# bytes that are no good JSON document of any schema
BROKEN = (b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"a":1,"a":2}', b'{"a":"\\u0000"}', b"{}{}", b"[" * 3000, b'{"a":' * 300 + b"1" + b"}" * 300,
          b'{"a":1e999}', b'{"a":9223372036854775808}', b"{'a':1}", b"\x00", b'{"name":"\xc3\x28"}', json.dumps({"x" * 300: 1}).encode())
