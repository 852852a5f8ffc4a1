"""The harm that the proxy does is the harm that was ordered, and it heals."""
import http.server
import socket
import threading

import pytest
import requests

from tests.fault.proxy import Proxy, Requests
from tests.harness.kelou import wait_for
from tests.harness.servers import dies_with_me

SECONDS = 10


class Counting(http.server.BaseHTTPRequestHandler):
    """Answers everything and counts it."""
    protocol_version = "HTTP/1.1"

    def do_POST(self):  # pylint: disable=invalid-name
        self.server.seen.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):  # pylint: disable=arguments-differ
        pass


@pytest.fixture
def link(tmp_path):
    """(proxy, server, base URL through the link `web`)"""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counting)
    server.seen = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    proxy = Proxy(tmp_path, dies_with_me, 1)
    yield proxy, server, f"http://127.0.0.1:{proxy.open('web', server.server_port, http=True)}"
    proxy.stop()
    server.shutdown()
    server.server_close()


def later(url, body, got):
    """Post it from a thread; its status comes into `got`."""
    def post():
        try:
            got.append(requests.post(url, data=body, timeout=SECONDS).status_code)
        except requests.RequestException as e:
            got.append(type(e).__name__)
    thread = threading.Thread(target=post, daemon=True)
    thread.start()
    return thread


def test_requests_are_cut_where_they_end():
    one = b"POST /api/v1/reports HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"
    parser, found = Requests(), []
    stream = one * 3
    for i in range(0, len(stream), 7):
        found += parser.feed(stream[i:i + 7])
    assert found == [one] * 3
    chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello"
    assert parser.feed(chunked) == [chunked] and parser.feed(b"more") == [b"more"]


@pytest.mark.parametrize("way", ["up", "down", "both"])
def test_what_is_held_goes_on_when_it_is_let_go(link, way):
    proxy, server, url = link
    proxy.set("web", hold=way)
    got = []
    thread = later(url + "/x", b"a", got)
    if way == "down":
        wait_for(lambda: server.seen, SECONDS, "the request went through")
    else:
        wait_for(lambda: proxy.counts()["web"]["connections"], SECONDS, "the connection was taken")
        assert not server.seen
    assert not got
    proxy.calm("web")
    thread.join(SECONDS)
    assert got == [200] and server.seen == [("/x", b"a")]


def test_a_link_that_refuses_cuts_what_is_there_and_comes_back_on_its_port(link):
    proxy, _, url = link
    port = proxy.ports["web"]
    with socket.create_connection(("127.0.0.1", port), SECONDS) as there:
        wait_for(lambda: proxy.counts()["web"]["connections"], SECONDS, "the connection was taken")
        proxy.set("web", refuse=True)
        there.settimeout(SECONDS)
        try:
            assert there.recv(1) == b""
        except ConnectionResetError:
            pass
    with pytest.raises(requests.ConnectionError):
        requests.post(url + "/x", data=b"a", timeout=SECONDS)
    proxy.calm("web")
    assert requests.post(url + "/x", data=b"a", timeout=SECONDS).status_code == 200


def test_reports_are_sent_again_and_other_requests_are_not(link):
    proxy, server, url = link
    proxy.set("web", twice=1.0)
    for path in ("/api/v1/reports", "/api/v1/tasks"):
        assert requests.post(url + path, data=b"body", timeout=SECONDS).status_code == 200
    wait_for(lambda: len(server.seen) == 3, SECONDS, "the report came again")
    assert sorted(path for path, _ in server.seen) == ["/api/v1/reports", "/api/v1/reports", "/api/v1/tasks"]
