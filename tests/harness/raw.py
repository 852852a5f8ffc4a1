"""Raw TCP to a node: for clients that do not keep to HTTP."""
import re
import select
import socket
import time

BOUND_SECONDS = 20
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n")


class Raw:
    """One connection. `source`: the loopback address it comes from."""

    def __init__(self, port, source=None, receive_buffer=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            self.socket.bind((source, 0))
        self.socket.settimeout(BOUND_SECONDS)
        self.socket.connect(("127.0.0.1", port))
        self.got = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def fileno(self):
        return self.socket.fileno()

    def close(self):
        self.socket.close()

    def send(self, data):
        """False when the peer does not take it any more."""
        try:
            self.socket.sendall(data)
            return True
        except OSError:
            return False

    def end(self):
        """No more will be sent."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def _receive(self):
        """False at the end, of whatever kind."""
        try:
            piece = self.socket.recv(1 << 16)
        except socket.timeout:
            raise AssertionError(f"neither answered nor closed within {BOUND_SECONDS} s; so far: {self.got[:300]!r}")
        except OSError:
            return False
        self.got += piece
        return bool(piece)

    def rest(self):
        """All that comes until the peer closes."""
        while self._receive():
            pass
        return self.got

    def answer(self):
        """(status, head, body) of the next answer, which has a Content-Length; status 0: the peer has closed."""
        while b"\r\n\r\n" not in self.got:
            if not self._receive():
                return 0, b"", b""
        head, _, body = self.got.partition(b"\r\n\r\n")
        length = re.search(rb"\r\nContent-Length: (\d+)", head)
        want = int(length.group(1)) if length else 0
        while len(body) < want:
            if not self._receive():
                return 0, head, body
            body = self.got.partition(b"\r\n\r\n")[2]
        self.got = body[want:]
        return int(STATUS.match(head + b"\r\n").group(1)), head, body[:want]

    def ask(self, data):
        """Send and read one answer."""
        self.send(data)
        return self.answer()

    def drip(self, data, every=0.02):
        """Send byte by byte, each after a pause, until the peer answers, closes or takes no more; gives all it says."""
        limit = time.monotonic() + BOUND_SECONDS
        while time.monotonic() < limit:
            if select.select([self.socket], [], [], every)[0]:
                return self.rest()
            if not self.send(data[:1]):
                return self.rest()
            data = data[1:] + data[:1]
        raise AssertionError(f"fed for {BOUND_SECONDS} s, and still not cut")

    def wait_closed(self):
        """Until the peer has closed or reset it; nothing is read on purpose: what is unread stays so."""
        poll = select.poll()
        poll.register(self.socket, select.POLLRDHUP)
        assert poll.poll(BOUND_SECONDS * 1000), f"not closed within {BOUND_SECONDS} s"


def statuses(answers):
    """All statuses in what a peer said."""
    return [int(s) for s in STATUS.findall(answers)]


def exchange(port, data, end=True):
    """One connection, one go: everything the peer says until it closes. `end`: half-close after sending."""
    with Raw(port) as raw:
        raw.send(data)
        if end:
            raw.end()
        return raw.rest()


def get(path="/healthz", *fields):
    return b"".join([b"GET ", path.encode(), b" HTTP/1.1\r\nHost: h\r\n", *(f + b"\r\n" for f in fields), b"\r\n"])


def post(path, body, *fields, length=None):
    """A POST with JSON. `length`: announce this many bytes instead."""
    size = len(body) if length is None else length
    return b"".join([b"POST ", path.encode(), b" HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: ",
                     str(size).encode(), b"\r\n", *(f + b"\r\n" for f in fields), b"\r\n", body])


def ends_well(node):
    """Stop a node that hostile clients have not brought down, and that no sanitizer complains about."""
    alive, code, log = node.alive(), node.stop(), node.log_text()
    assert alive and code == 0, f"keloud ended with {code}: {log[-4000:]}"
    assert not re.search(r"AddressSanitizer|runtime error:|LeakSanitizer", log), log[-6000:]
