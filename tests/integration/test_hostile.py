"""Requests that two readers could read differently, that are too large, or that are none: each with the answer it gets. While they
come, another client is served over the same connection all the time."""
import gzip
import json

import pytest

from tests.harness.kelou import Keloud
from tests.harness.raw import Raw, ends_well, exchange, get, post, statuses

H = b"Host: h\r\n"
MAX_HEADER, MAX_BODY = 16 * 1024, 2 * 1024 * 1024


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    node = Keloud(tmp_path_factory.mktemp("hostile")).start()
    yield node
    ends_well(node)


@pytest.fixture(scope="module")
def witness(target):
    """A client that keeps its connection open through all the tests."""
    with Raw(target.port) as raw:
        yield raw


def head(*lines):
    return b"\r\n".join([*lines, b"", b""])


def chunked(framed, *fields):
    return head(b"POST /api/v1/tasks HTTP/1.1", b"Host: h", b"Transfer-Encoding: chunked", *fields) + framed


FRAMING = {
    "two Content-Lengths": (400, post("/healthz", b"hello", b"Content-Length: 6")),
    "two equal Content-Lengths": (400, post("/healthz", b"hello", b"Content-Length: 5")),
    "a list of lengths": (400, head(b"POST / HTTP/1.1", b"Host: h", b"Content-Length: 5, 5") + b"hello"),
    "a length with a sign": (400, head(b"POST / HTTP/1.1", b"Host: h", b"Content-Length: +5") + b"hello"),
    "a negative length": (400, head(b"POST / HTTP/1.1", b"Host: h", b"Content-Length: -5") + b"hello"),
    "a hexadecimal length": (400, head(b"POST / HTTP/1.1", b"Host: h", b"Content-Length: 0x5") + b"hello"),
    "a length with a space": (400, head(b"POST / HTTP/1.1", b"Host: h", b"Content-Length: 1 2") + b"hello"),
    "an empty length": (400, head(b"POST / HTTP/1.1", b"Host: h", b"Content-Length:") + b"hello"),
    "a length beyond 64 bits": (400, head(b"POST / HTTP/1.1", b"Host: h", b"Content-Length: 99999999999999999999")),
    "a space before the colon": (400, head(b"POST / HTTP/1.1", b"Host: h", b"Content-Length : 5") + b"hello"),
    "CL and TE": (400, chunked(b"0\r\n\r\n", b"Content-Length: 5")),
    "TE and CL": (400, head(b"POST / HTTP/1.1", b"Host: h", b"Content-Length: 5", b"Transfer-Encoding: chunked") + b"0\r\n\r\n"),
    "an empty TE and CL": (400, head(b"POST / HTTP/1.1", b"Host: h", b"Transfer-Encoding:", b"Content-Length: 5") + b"hello"),
    "two TEs": (400, chunked(b"0\r\n\r\n", b"Transfer-Encoding: chunked")),
    "TE gzip": (400, head(b"POST / HTTP/1.1", b"Host: h", b"Transfer-Encoding: gzip")),
    "TE gzip, chunked": (400, head(b"POST / HTTP/1.1", b"Host: h", b"Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n"),
    "TE chunked, identity": (400, head(b"POST / HTTP/1.1", b"Host: h", b"Transfer-Encoding: chunked, identity") + b"0\r\n\r\n"),
    "TE xchunked": (400, head(b"POST / HTTP/1.1", b"Host: h", b"Transfer-Encoding: xchunked") + b"0\r\n\r\n"),
    "TE with a vertical tab": (400, head(b"POST / HTTP/1.1", b"Host: h", b"Transfer-Encoding: chunked\x0b") + b"0\r\n\r\n"),
    "TE on a folded line": (400, head(b"POST / HTTP/1.1", b"Host: h", b"Transfer-Encoding:", b" chunked") + b"0\r\n\r\n"),
    "TE in HTTP/1.0": (400, head(b"POST / HTTP/1.0", b"Transfer-Encoding: chunked") + b"0\r\n\r\n"),
    "a folded field": (400, head(b"GET /healthz HTTP/1.1", b"Host: h", b"X: a", b" b")),
    "a folded first field": (400, head(b"GET /healthz HTTP/1.1", b" X: a", b"Host: h")),
    "a chunk with a sign": (400, chunked(b"+3\r\nabc\r\n0\r\n\r\n")),
    "a hexadecimal prefix": (400, chunked(b"0x3\r\nabc\r\n0\r\n\r\n")),
    "a chunk longer than it says": (400, chunked(b"3\r\nabcd\r\n0\r\n\r\n")),
    "a chunk size beyond 64 bits": (400, chunked(b"fffffffffffffffff\r\na")),
    "a chunk size with a space": (400, chunked(b"3 \r\nabc\r\n0\r\n\r\n")),
    "a chunk line with LF": (400, chunked(b"3\nabc\r\n0\r\n\r\n")),
    "a chunk end with LF": (400, chunked(b"3\r\nabc\n0\r\n\r\n")),
    "a chunk line with CR": (400, chunked(b"3\rabc\r\n0\r\n\r\n")),
    "an extension with LF": (400, chunked(b"3;a\nb\r\nabc\r\n0\r\n\r\n")),
    "a trailer with LF": (400, chunked(b"0\r\nX: y\n\r\n")),
    "a last chunk with LF": (400, chunked(b"0\n\n")),
    "LF after the request line": (400, b"GET /healthz HTTP/1.1\nHost: h\r\n\r\n"),
    "LF after a field": (400, b"GET /healthz HTTP/1.1\r\nHost: h\n\r\n"),
    "LF at the end of the head": (400, b"GET /healthz HTTP/1.1\r\nHost: h\r\n\n"),
    "LF in front": (400, b"\nGET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"),
    "CR in front": (400, b"\rGET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"),
    "CR between fields": (400, b"GET /healthz HTTP/1.1\r\nHost: h\rX: y\r\n\r\n"),
    "CR twice": (400, b"GET /healthz HTTP/1.1\r\nHost: h\r\nX: y\r\r\n\r\n"),
    "NUL in a value": (400, get("/healthz", b"X: a\x00b")),
    "a control character in a value": (400, get("/healthz", b"X: a\x01b")),
    "a field without a name": (400, get("/healthz", b": a")),
    "a field without a colon": (400, get("/healthz", b"nothing")),
    "a space in a name": (400, get("/healthz", b"X y: a")),
    "a byte above 127 in a name": (400, get("/healthz", b"X\xff: a")),
    "two spaces before the target": (400, head(b"GET  /healthz HTTP/1.1", b"Host: h")),
    "two spaces behind the target": (400, head(b"GET /healthz  HTTP/1.1", b"Host: h")),
    "a tab in the request line": (400, head(b"GET\t/healthz HTTP/1.1", b"Host: h")),
    "a space behind the version": (400, head(b"GET /healthz HTTP/1.1 ", b"Host: h")),
    "no version": (400, b"GET /healthz\r\n\r\n"),
    "HTTP/0.9": (505, head(b"GET /healthz HTTP/0.9", b"Host: h")),
    "HTTP/1.2": (505, head(b"GET /healthz HTTP/1.2", b"Host: h")),
    "HTTP/2.0": (505, head(b"GET /healthz HTTP/2.0", b"Host: h")),
    "the preface of HTTP/2": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "RTSP": (400, head(b"DESCRIBE /healthz RTSP/1.0", b"Host: h")),
    "a small method": (400, head(b"get /healthz HTTP/1.1", b"Host: h")),
    "an unknown method": (400, head(b"BREW /healthz HTTP/1.1", b"Host: h")),
    "TLS": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "NUL": (400, b"\x00"),
    "SSH": (400, b"SSH-2.0-OpenSSH_9.2\r\n"),
}

TARGETS = {
    "absolute": (200, head(b"GET http://h/healthz HTTP/1.1", b"Host: h")),
    "absolute, in capitals": (200, head(b"GET HTTP://h:80/healthz HTTP/1.1", b"Host: h")),
    "absolute, without a host": (400, head(b"GET http:///healthz HTTP/1.1", b"Host: h")),
    "absolute, with a user": (400, head(b"GET http://u:p@h/healthz HTTP/1.1", b"Host: h")),
    "of another scheme": (400, head(b"GET ftp://h/healthz HTTP/1.1", b"Host: h")),
    "a file": (400, head(b"GET file:///etc/passwd HTTP/1.1", b"Host: h")),
    "relative": (400, head(b"GET healthz HTTP/1.1", b"Host: h")),
    "a star": (400, head(b"GET * HTTP/1.1", b"Host: h")),
    "with a fragment": (400, head(b"GET /healthz#x HTTP/1.1", b"Host: h")),
    "with NUL": (400, head(b"GET /heal\x00thz HTTP/1.1", b"Host: h")),
    "with a raw byte": (400, head(b"GET /heal\xffthz HTTP/1.1", b"Host: h")),
    "upwards": (404, get("/../../etc/passwd")),
    "upwards, encoded": (404, get("/%2e%2e/%2e%2e/etc/passwd")),
    "with two slashes": (404, get("//healthz")),
    "CONNECT": (501, head(b"CONNECT h:443 HTTP/1.1", b"Host: h")),
    "without Host": (400, head(b"GET /healthz HTTP/1.1")),
    "two Hosts": (400, get("/healthz", b"Host: h")),
    "an empty Host": (400, head(b"GET /healthz HTTP/1.1", b"Host:")),
    "a Host with a path": (400, head(b"GET /healthz HTTP/1.1", b"Host: h/x")),
    "a list of Hosts": (400, head(b"GET /healthz HTTP/1.1", b"Host: a, b")),
    "two Authorizations": (400, get("/healthz", b"Authorization: Bearer a", b"Authorization: Bearer b")),
    "an offer to upgrade": (200, get("/healthz", b"Upgrade: h2c", b"Connection: Upgrade")),
    "an unknown expectation": (417, get("/healthz", b"Expect: tea")),
}

BOMB = gzip.compress(b"0" * (64 << 20), 9)
SIZES = {
    "64 KB of fields": (431, get("/healthz", *[b"X-%d: " % i + b"x" * 600 for i in range(100)])),
    "one field of 64 KB": (431, get("/healthz", b"X: " + b"x" * 65536)),
    "a target of 64 KB": (431, get("/" + "x" * 65536)),
    "101 fields": (431, get("/healthz", *[b"A: b"] * 100)),
    "64 KB of spaces in a value": (431, get("/healthz", b"X:" + b" " * 65536 + b"y")),
    "64 KB of empty lines": (431, b"\r\n" * 32768),
    "64 KB of trailers": (431, chunked(b"0\r\n" + b"X: y\r\n" * 11000 + b"\r\n")),
    "more announced than allowed": (413, post("/api/v1/tasks", b"", length=MAX_BODY + 1)),
    "more than allowed, in chunks": (413, chunked((b"10000\r\n" + b"x" * 65536 + b"\r\n") * 33)),
    "chunks that are all extension": (400, chunked((b"1;" + b"x" * 60000 + b"\r\nx\r\n") * 60)),
    "a gzip bomb": (415, post("/api/v1/tasks", BOMB, b"Content-Encoding: gzip")),
    "another coding": (415, post("/api/v1/tasks", b"x", b"Content-Encoding: br")),
}


@pytest.mark.parametrize("name", FRAMING)
def test_framing(target, witness, name):
    refused(target, witness, *FRAMING[name])


@pytest.mark.parametrize("name", TARGETS)
def test_targets(target, witness, name):
    status, data = TARGETS[name]
    if status < 300 or status == 404:
        assert statuses(exchange(target.port, data)) == [status]
    else:
        refused(target, witness, status, data)


@pytest.mark.parametrize("name", SIZES)
def test_sizes(target, witness, name):
    refused(target, witness, *SIZES[name])


def refused(target, witness, status, data):
    """One problem document, Connection: close, and nothing of a second request is looked at. Others do not notice."""
    smuggled = get("/api/v1/openapi.json")
    said = exchange(target.port, data + smuggled, end=False)
    assert statuses(said) == [status], said[:500]
    top, _, body = said.partition(b"\r\n\r\n")
    assert b"\r\nConnection: close" in top and b"\r\nContent-Type: application/problem+json" in top
    assert json.loads(body)["status"] == status
    assert witness.ask(get())[0] == 200


def test_every_split_gets_the_same_answer(target):
    """A request in two pieces, cut at every place: good and bad ones."""
    good = chunked(b"2\r\n{}\r\n0\r\n\r\n", b"Content-Type: application/json")
    bad = head(b"GET /healthz HTTP/1.1", b"Host: h", b"X: a", b" b")
    for data, status in ((good, 401), (bad, 400)):
        for cut in range(1, len(data)):
            with Raw(target.port) as raw:
                raw.send(data[:cut])
                assert raw.ask(data[cut:])[0] == status, cut


def test_pipelining(target):
    """Thousands of requests at once: all answered, in order, the last one closes."""
    paths = ["/healthz", "/nowhere", "/api/v1/tasks"] * 1000
    said = exchange(target.port, b"".join(get(p) for p in paths))
    assert statuses(said) == [200, 404, 401] * 1000


def test_a_bad_one_behind_good_ones(target):
    said = exchange(target.port, get() * 5 + b"GET /healthz HTTP/1.1\nHost: h\n\n" + get() * 5, end=False)
    assert statuses(said) == [200] * 5 + [400]


def test_an_endless_body(target, witness):
    """It is cut at the limit, however long the client would go on."""
    sent = 0
    with Raw(target.port) as raw:
        raw.send(chunked(b""))
        while raw.send(b"4000\r\n" + b"x" * 0x4000 + b"\r\n"):
            sent += 0x4000
            assert sent < 64 * MAX_BODY, "it takes everything"
        assert witness.ask(get())[0] == 200
        assert statuses(raw.rest()) in ([413], [])  # a client that goes on for too long may lose the answer


def test_an_endless_header(target, witness):
    sent = 0
    with Raw(target.port) as raw:
        raw.send(b"GET /healthz HTTP/1.1\r\nHost: h\r\n")
        while raw.send(b"X: " + b"x" * 1000 + b"\r\n"):
            sent += 1000
            assert sent < 1024 * MAX_HEADER, "it takes everything"
        assert witness.ask(get())[0] == 200
        assert statuses(raw.rest()) in ([431], [])


DOCUMENTS = {
    "deep arrays": (400, b"[" * 500_000),
    "deep objects": (400, b'{"a":' * 300_000),
    "deep and closed": (400, b"[" * 100_000 + b"]" * 100_000),
    "a wide list": (400, b"[" + b"{}," * 600_000 + b"{}]"),
    "a wide object": (400, b"{" + b",".join(b'"k%d":0' % i for i in range(150_000)) + b"}"),
    "the same key twice": (400, b'{"name":"a","name":"b"}'),
    "bad UTF-8": (400, b'{"name":"\xff\xfe"}'),
    "an overlong NUL": (400, b'{"name":"\xc0\x80"}'),
    "a lone surrogate": (400, b'{"name":"\\ud800"}'),
    "NUL in a text": (400, b'{"name":"a\x00b"}'),
    "an escaped NUL": (400, b'{"name":"a\\u0000b"}'),
    "NUL behind the document": (400, b"{}\x00"),
    "a number beyond all bounds": (400, b'{"priority":1e999}'),
    "a number of 1 MB": (400, b'{"priority":' + b"9" * (1 << 20) + b"}"),
    "a gzip bomb without its name": (400, BOMB),
}


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("path", ["/api/v1/tasks", "/api/v1/reports"])
def test_documents(target, witness, path, name):
    """JSON that is deep, huge or none, from a client with a good token: a problem; and the connection goes on."""
    status, body = DOCUMENTS[name]
    token = b"Authorization: Bearer " + target.admin_token().encode()
    with Raw(target.port) as raw:
        got, _, problem = raw.ask(post(path, body, token))
        assert got == status and json.loads(problem)["status"] == status, problem[:500]
        assert raw.ask(get())[0] == 200
    assert witness.ask(get())[0] == 200


def test_the_causes_are_counted(target):
    counted = target.metrics()
    assert counted['kelou_http_refused_total{cause="malformed"}'] >= len(FRAMING) - 5
    assert counted['kelou_http_refused_total{cause="size"}'] >= 8
    assert counted["kelou_http_connections"] >= 1
