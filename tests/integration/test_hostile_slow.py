"""Clients that are slow, silent, too many or too eager: each is cut at its bound, with the answer it should get, while others are
served and what is scheduled goes on."""
import os
import resource
import signal
import sqlite3
import subprocess
import time

import pytest

from tests.harness.kelou import Group, Keloud, binary, wait_for
from tests.harness.raw import Raw, ends_well, get, post, statuses

FAR = "10m"  # a deadline that a test does not mean


@pytest.fixture
def make(tmp_path):
    """make(setting=value, …) → a node that is ready; a double underscore stands for the dot."""
    made = []

    def start(**settings):
        node = Keloud(tmp_path / f"node{len(made)}", settings={k.replace("__", "."): v for k, v in settings.items()})
        made.append(node)
        return node.start()
    yield start
    for node in made:
        if node.process and node.process.returncode is None:
            ends_well(node)


def refused(node, cause):
    return node.metrics()[f'kelou_http_refused_total{{cause="{cause}"}}']


def counted(node, cause, more_than=0):
    wait_for(lambda: refused(node, cause) > more_than, 10, f"a count of {cause}")


def served(node, source="127.0.0.1"):
    with Raw(node.port, source) as raw:
        return raw.ask(get())[0]


# ---------------------------------------------------------------- deadlines: absolute, whatever drips in

SLOW = {
    "header": ({"http__header_timeout": "400ms"}, "header_timeout", b"GET /healthz HTTP/1.1\r\nX: ", b"x", [408]),
    "blank lines": ({"http__header_timeout": "400ms"}, "header_timeout", b"\r\n", b"\r\n", [408]),
    "body": ({"http__body_timeout": "400ms"}, "body_timeout", post("/api/v1/tasks", b"", length=100_000), b"x", [408]),
    "chunks": ({"http__body_timeout": "400ms"}, "body_timeout",
               b"POST /api/v1/tasks HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", [408]),
    "whole request": ({"http__request_timeout": "400ms"}, "request_timeout", post("/api/v1/tasks", b"", length=100_000), b"x", [408]),
}


@pytest.mark.parametrize("name", SLOW)
def test_a_byte_now_and_then_does_not_help(make, name):
    settings, cause, begin, drop, expected = SLOW[name]
    node = make(**settings)
    with Raw(node.port) as raw:
        raw.send(begin)
        assert statuses(raw.drip(drop)) == expected
    counted(node, cause)
    assert served(node) == 200


def test_silence_is_cut_without_a_word(make):
    node = make(http__idle_timeout="400ms")
    with Raw(node.port) as silent, Raw(node.port) as used:
        assert used.ask(get())[0] == 200
        assert silent.rest() == b"" and used.rest() == b""
    counted(node, "idle_timeout", more_than=1)


def memory(node):
    with open(f"/proc/{node.pid}/status", encoding="utf-8") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmRSS:"))


def test_who_does_not_read_is_cut(make):
    """Ten clients ask for megabytes and read nothing: what waits for them is bounded, and they are reset."""
    node = make(http__write_timeout="1s", http__rate_per_address=0)
    document = "/api/v1/openapi.json"
    with Raw(node.port) as raw:
        size = len(raw.ask(get(document))[2])
    before, greedy = memory(node), [Raw(node.port, receive_buffer=4096) for _ in range(10)]
    asked = (64 << 20) // size  # 64 MB each
    for raw in greedy:
        raw.socket.setblocking(False)
        raw.send(get(document) * asked)
    for raw in greedy:
        raw.wait_closed()
        assert memory(node) - before < 256 << 20  # of 640 MB; AddressSanitizer keeps some of what is freed
        raw.close()
    counted(node, "write_timeout", more_than=9)
    assert served(node) == 200


def test_unread_answers_count_as_memory(make):
    """The same with a small budget for all: cut before the deadline."""
    node = make(http__write_timeout=FAR, http__request_timeout=FAR, http__max_buffered="1MiB", http__rate_per_address=0)
    greedy = [Raw(node.port, receive_buffer=4096) for _ in range(60)]
    for raw in greedy:
        raw.socket.setblocking(False)
        raw.send(get("/api/v1/openapi.json") * 200)
    counted(node, "memory")
    assert served(node) == 200
    for raw in greedy:
        raw.close()


def test_bodies_count_as_memory(make):
    """Bodies that do not end: beyond the budget 503 with Retry-After; small requests are served."""
    node = make(http__max_buffered="4MiB")
    senders = [Raw(node.port) for _ in range(8)]
    for raw in senders:
        raw.send(post("/api/v1/tasks", b"x" * 1_500_000, length=1_600_000))
    counted(node, "memory")
    assert served(node) == 200
    answers = []
    for raw in senders:
        raw.send(b"x" * 100_000)
        raw.end()
        answers.append(raw.rest())
        raw.close()
    got = [statuses(a)[0] for a in answers if a]
    assert 401 in got and 503 in got and set(got) <= {401, 503}
    assert all(b"\r\nRetry-After: 1\r\n" in a for a in answers if b" 503 " in a)


# ---------------------------------------------------------------- caps

def test_one_address_has_a_cap(make):
    node = make(http__max_connections_per_address=10)
    idle = [Raw(node.port, "127.0.0.2") for _ in range(10)]
    with Raw(node.port, "127.0.0.2") as raw:
        said = raw.rest()
    assert statuses(said) == [429] and b"\r\nRetry-After: 1\r\n" in said and b"Connection: close" in said
    assert served(node, "127.0.0.3") == 200 and served(node) == 200
    assert idle[0].ask(get())[0] == 200  # those within the cap are served
    counted(node, "address")
    for raw in idle:
        raw.close()
    wait_for(lambda: served(node, "127.0.0.2") == 200, 10, "a place for the address")


def test_idle_ones_make_room(make):
    """All places are taken by clients that do nothing: a new one is served all the same."""
    node = make(http__max_connections=20)
    idle = [Raw(node.port, f"127.0.0.{2 + i}") for i in range(20)]
    wait_for(lambda: served(node) == 200, 10, "room for a new client")
    assert refused(node, "room") >= 1
    for raw in idle:
        raw.close()


def test_too_many_at_work(make):
    """All places are taken by requests that are on their way: 503 until one of them ends."""
    node = make(http__max_connections=20, http__header_timeout=FAR)
    slow = [Raw(node.port, f"127.0.0.{2 + i}") for i in range(20)]
    for raw in slow:
        raw.send(b"GET /healthz HTTP/1.1\r\n")
    with Raw(node.port) as raw:
        raw.send(get())
        said = raw.rest()
    assert statuses(said) == [503] and b"\r\nRetry-After: 1\r\n" in said
    assert slow[0].ask(b"Host: h\r\n\r\n")[0] == 200
    slow[0].close()
    wait_for(lambda: served(node) == 200, 10, "a place")
    counted(node, "connections")
    for raw in slow:
        raw.close()


def test_the_rate_of_an_address(make):
    """Ten a second, twenty at once. Another address does not notice."""
    node = make(http__rate_per_address=10)
    with Raw(node.port, "127.0.0.2") as raw, Raw(node.port, "127.0.0.3") as other:
        answers = [raw.ask(get()) for _ in range(60)]
        got = [status for status, _, _ in answers]
        assert got[:10] == [200] * 10 and 429 in got and set(got) == {200, 429}
        assert all(b"\r\nRetry-After: " in top for status, top, _ in answers if status == 429)
        assert other.ask(get())[0] == 200
        wait_for(lambda: raw.ask(get())[0] == 200, 10, "the rate has recovered", every=0.2)
        raw.send(get() * 100)  # who does not wait for answers is told once, and cut
        said = raw.rest()
        assert statuses(said)[-1] == 429 and statuses(said).count(429) == 1 and b"Connection: close" in said
    counted(node, "address_rate")


def test_the_rate_of_new_connections(make):
    node = make(http__rate_per_address=10)
    cut = 0
    for _ in range(60):
        with Raw(node.port, "127.0.0.2") as raw:
            raw.end()
            cut += raw.rest() == b""
    assert cut == 60  # closed for their silence or for their number
    assert refused(node, "address_rate") >= 20 and served(node) == 200


def test_the_rate_of_a_token(make):
    """Counted by the token, not by the connection, the address or the way in which it is written."""
    node = make(http__rate_per_token=5)
    admin = node.api()
    tokens = [admin.ok("POST", "/tokens", {"name": n, "role": "VIEWER"})["token"].encode() for n in ("eager", "modest")]
    got = []
    for i in range(40):
        with Raw(node.port, f"127.0.0.{2 + i % 3}") as raw:
            got.append(raw.ask(get("/api/v1/tasks", (b"Authorization: Bearer ", b"authorization:  bearer   ")[i % 2] + tokens[0]))[0])
    assert got[:5] == [200] * 5 and set(got) == {200, 429} and got.count(429) >= 10
    with Raw(node.port) as raw:
        status, _, body = raw.ask(get("/api/v1/tasks", b"Authorization: Bearer " + tokens[1]))
        assert status == 200, body
    counted(node, "token_rate")


def hold_writes(node):
    """The database's only write lock: API calls that write wait until it is given back."""
    database = sqlite3.connect(os.path.join(node.folder, "kelou.db"), isolation_level=None, timeout=10)
    database.execute("BEGIN IMMEDIATE")
    return database


def namespace(node, name):
    return post("/api/v1/namespaces", b'{"name":"%s"}' % name, b"Authorization: Bearer " + node.admin_token().encode())


def test_requests_in_progress_of_one_token(make):
    node = make(http__max_requests_per_token=2)
    other = node.api().ok("POST", "/tokens", {"name": "other", "role": "VIEWER"})["token"].encode()
    busy = [Raw(node.port) for _ in range(2)]
    locked = hold_writes(node)
    try:
        for i, raw in enumerate(busy):
            raw.send(namespace(node, b"n%d" % i))
        with Raw(node.port) as raw:
            mine = get("/api/v1/namespaces", b"Authorization: Bearer " + node.admin_token().encode())
            wait_for(lambda: raw.ask(mine)[0] == 429, 4, "the token's cap", every=0.01)
            assert raw.ask(get("/api/v1/namespaces", b"Authorization: Bearer " + other))[0] == 200
    finally:
        locked.rollback()
        locked.close()
    assert [raw.answer()[0] for raw in busy] == [201, 201]
    for raw in busy:
        raw.close()
    with Raw(node.port) as raw:
        assert raw.ask(mine)[0] == 200


# ---------------------------------------------------------------- SIGTERM

def test_a_graceful_end(make):
    """Idle clients are let go, new ones find nobody, what is in progress is finished and says that it was the last."""
    node = make(node__drain_grace="20s")
    idle, busy = Raw(node.port), Raw(node.port)
    assert idle.ask(get())[0] == 200
    locked = hold_writes(node)
    try:
        busy.send(namespace(node, b"late"))
        node.process.send_signal(signal.SIGTERM)
        assert idle.rest() == b""

        def nobody():
            try:
                Raw(node.port).close()
            except ConnectionRefusedError:
                return True
        wait_for(nobody, 10, "the end of listening")
    finally:
        locked.rollback()
        locked.close()
    status, top, _ = busy.answer()
    assert status == 201 and b"\r\nConnection: close" in top
    assert busy.rest() == b"" and node.wait() == 0
    idle.close()
    busy.close()


def test_an_end_that_nobody_can_hold_up(make):
    """Clients that drip on are cut when the grace is over."""
    node = make(node__drain_grace="500ms", http__header_timeout=FAR, http__request_timeout=FAR)
    with Raw(node.port) as slow:
        slow.send(b"GET /healthz HTTP/1.1\r\nX: ")
        node.process.send_signal(signal.SIGTERM)
        assert statuses(slow.drip(b"x")) == []
        assert node.wait() == 0


# ---------------------------------------------------------------- file descriptors

def limited(soft, hard):
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_too_few_descriptors_for_the_connections(tmp_path):
    got = subprocess.run([binary("keloud"), "--set", f"store.url=sqlite:{tmp_path}/k.db", "--set", f"node.state_dir={tmp_path}",
                          "--set", "http.listen=127.0.0.1:0", "--set", "http.max_connections=4000"],
                         capture_output=True, text=True, timeout=60, check=False, preexec_fn=limited(1024, 4096))
    assert got.returncode == 1 and "field=http.max_connections" in got.stderr and "4096" in got.stderr and "LimitNOFILE" in got.stderr


def test_the_soft_limit_is_raised(make):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
    try:
        node = make(http__max_connections=1000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    with open(f"/proc/{node.pid}/limits", encoding="utf-8") as f:
        assert next(line.split()[3] for line in f if line.startswith("Max open files")) == str(before[1])


# ---------------------------------------------------------------- a crowd

IDLE, DRIPPING = 10_000, 1_000
OWN = 2_000  # descriptors of this process beside the crowd
BYTES_EACH = 6_000  # of memory for each connection, at most


def test_a_crowd(make, tmp_path):
    """10,000 idle and 1,000 slow clients from a few addresses: others are served, fires go on, memory stays small; and each slow one is
    cut with 408."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < IDLE + DRIPPING + OWN:
        pytest.skip(f"at most {hard} file descriptors for a process here, {IDLE + DRIPPING + OWN} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    crowd = []
    try:
        node = make(http__max_connections=IDLE + DRIPPING + 500, http__max_connections_per_address=1500, http__idle_timeout="10m",
                    http__header_timeout="8s")
        group = Group(node)
        api = node.api()
        api.ok("POST", "/tasks", {"name": "beat", "executor_group": group.name, "handler": "h", "overlap_policy": "ALLOW", "timeout": "10m",
                                  "schedule": {"kind": "FIXED_RATE", "every": "100ms"}})
        before = memory(node)
        with Raw(node.port) as witness:
            for i in range(IDLE):
                crowd.append(Raw(node.port, f"127.0.1.{i % 8}"))
                if i % 1000 == 0:
                    assert witness.ask(get())[0] == 200
            slow = [Raw(node.port, "127.0.2.1") for _ in range(DRIPPING)]
            crowd += slow
            for raw in slow:
                raw.send(b"GET /healthz HTTP/1.1\r\nX: ")
            wait_for(lambda: node.metrics()["kelou_http_connections"] >= IDLE, 10, "the crowd is in")
            assert memory(node) - before < (IDLE + DRIPPING) * BYTES_EACH
            fired = sum(v for k, v in node.metrics().items() if k.startswith("kelou_fires_total"))
            limit = time.monotonic() + 30
            while slow and time.monotonic() < limit:
                assert witness.ask(get())[0] == 200
                for raw in slow:
                    raw.send(b"x")
                if refused(node, "header_timeout") >= DRIPPING:
                    break
            assert refused(node, "header_timeout") == DRIPPING
            assert all(statuses(raw.rest()) in ([408], []) for raw in slow)  # dripping on may cost the answer
            assert sum(statuses(raw.got) == [408] for raw in slow) > DRIPPING // 2
            wait_for(lambda: sum(v for k, v in node.metrics().items() if k.startswith("kelou_fires_total")) >= fired + 10, 20, "fires")
            assert crowd[0].ask(get())[0] == 200 and api.get("/tasks").status_code == 200
    finally:
        for raw in crowd:
            raw.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
