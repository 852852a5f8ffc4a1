"""An executor on loopback whose behaviour a test scripts (docs/semantics.md, "The message to an executor").

    with FakeExecutor(node, group, journal=path) as executor:
        executor.answer(Accept(report="SUCCESS"))          # what every delivery gets from now on
        executor.script(Busy(429), Done({"n": 1}))         # the next two deliveries first

Each delivery is appended to the journal and fsynced before it is answered: {"event","run_id","attempt",…}."""
import hashlib
import hmac
import json
import os
import queue
import socket
import struct
import sys
import threading
import time
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests

from .kelou import Api, wait_for

SIGNATURE_WINDOW_SECONDS = 300
REPORT_SECONDS = 60
RETRY_SECONDS, RETRY_EVERY_SECONDS = 15, 0.1


def now_rfc3339():
    return datetime.now(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")


class Answer:
    """What happens to one delivery. `status`, `body`, `headers` go back; `report` (a state) follows a 202."""

    def __init__(self, status=202, body=None, headers=None, report=None, delay=0.0, **report_fields):
        self.status, self.body, self.headers = status, body, headers or {}
        self.report, self.delay, self.report_fields = report, delay, report_fields


class Accept(Answer):
    """202, and after `delay` seconds a report of this state (None = never reported)."""

    def __init__(self, report="SUCCESS", delay=0.0, **fields):
        super().__init__(202, None, None, report, delay, **fields)


class Done(Answer):
    """200 with the result: done at once."""

    def __init__(self, result=None, state="SUCCESS", error=None):
        body = {"state": state, "result": result}
        if error:
            body["error"] = error
        super().__init__(200, body)


class Busy(Answer):
    """429 or 503 with Retry-After."""

    def __init__(self, status=429, retry_after=1):
        super().__init__(status, {"error": "busy"}, {"Retry-After": str(retry_after)})


class Refuse(Answer):
    """409: the fence is too low."""

    def __init__(self):
        super().__init__(409, {"error": "fence"})


class Hang(Answer):
    """Takes the request and answers nothing until the executor stops or `seconds` have passed."""

    def __init__(self, seconds=3600.0):
        super().__init__()
        self.seconds = seconds


class Reset(Answer):
    """Takes the request and resets the connection."""


class Delivery:
    """One request as it came in."""

    def __init__(self, kind, message, signed):
        self.kind, self.message, self.signed, self.at = kind, message, signed, time.time()

    def __getattr__(self, name):
        try:
            return self.message[name]
        except KeyError:
            raise AttributeError(name) from None


class FakeExecutor:
    """A scripted HTTP executor. `deliveries` and `cancels` list what came; `reports` what was answered to reports."""

    def __init__(self, node, group, name="fake-1", handlers=("*",), journal=None, slots=100, register=True, **more):
        """`more`: further fields of its registration, such as weight and labels."""
        self.node, self.group, self.name = node, group, name
        self.handlers, self.slots, self.want_register, self.more = list(handlers), slots, register, more
        self.api = Api(node.base_url, group.token)
        self.deliveries, self.cancels, self.reports = [], [], []
        self._default, self._script, self._lock = Accept(), [], threading.Lock()
        self._journal = open(journal, "ab", buffering=0) if journal else None
        self._stopping = threading.Event()
        self._to_report = queue.Queue()
        self._workers = []
        self._connections = set()
        self.incarnation = None
        self.last_signature = ""  # X-Kelou-Signature of the last request
        self._server = None
        self.heartbeat_every = 2.0

    # what a test says

    def answer(self, answer):
        """Every delivery from now on gets this (an Answer, or a function of the Delivery)."""
        with self._lock:
            self._default = answer

    def script(self, *answers):
        """The next deliveries get these, one each."""
        with self._lock:
            self._script += answers

    def wait_deliveries(self, count, timeout=15.0):
        wait_for(lambda: len(self.deliveries) >= count, timeout, f"{count} deliveries at {self.name}")
        return self.deliveries[:count]

    def report(self, run_id, attempt, fence, state="SUCCESS", **fields):
        """Send one report now; returns the Response."""
        return self.report_many([self.report_of(run_id, attempt, fence, state, **fields)])

    @staticmethod
    def report_of(run_id, attempt, fence, state="SUCCESS", **fields):
        body = {"run_id": run_id, "attempt": attempt, "fence": fence, "state": state, **fields}
        if state in ("SUCCESS", "FAIL", "CANCELLED"):
            body.setdefault("finished_at", now_rfc3339())
        return body

    def report_many(self, reports):
        """Send them in one request, again while the answer is 503 ("not all could be recorded now"); returns the Response."""
        limit = time.monotonic() + RETRY_SECONDS
        while True:
            answer = self.api.post("/reports", {"reports": reports})
            if answer.status_code != 503 or time.monotonic() > limit or self._stopping.wait(RETRY_EVERY_SECONDS):
                break
        self.reports.append(answer)
        return answer

    # life

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self):
        executor = self

        class Handler(_Handler):
            owner = executor
        self._server = _Server(("127.0.0.1", 0), Handler)
        self._spawn(self._server.serve_forever, 0.05)
        self._spawn(self._report_loop)
        if self.want_register:
            self.register()
            self._spawn(self._heartbeat_loop)
        return self

    def _spawn(self, work, *arguments):
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        thread.start()
        self._workers.append(thread)

    def register(self):
        body = {"id": self.name, "namespace": self.group.namespace, "group": self.group.name, "url": self.url,
                "handlers": self.handlers, "slots": self.slots, "version": "test", **self.more}
        self.incarnation = self.api.ok("POST", "/executors/register", body)["incarnation"]

    def _verb(self, verb, body):
        where = {"namespace": self.group.namespace, "group": self.group.name}
        return self.api.post(f"/executors/{self.name}/{verb}", body, params=where)

    def heartbeat(self):
        return self._verb("heartbeat", {"incarnation": self.incarnation, "running": 0})

    def deregister(self):
        """Gone until register()."""
        self.incarnation = None
        return self._verb("deregister", {})

    def close_port(self):
        """Be unreachable from now on, and go on beating: new connections are refused, open ones end."""
        server, self._server = self._server, None
        if not server:
            return
        server.shutdown()
        server.server_close()
        with self._lock:
            open_ones = list(self._connections)
        for connection in open_ones:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def crash(self):
        """Stop answering and beating without a word: the port is closed."""
        self._stopping.set()
        self.close_port()

    def stop(self):
        """Deregister if possible, then stop."""
        if self.incarnation and not self._stopping.is_set():
            try:
                self.deregister()
            except requests.RequestException:
                pass
        self.crash()
        for thread in self._workers:
            thread.join(5)
        if self._journal:
            self._journal.close()
            self._journal = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    # inside

    def take(self, delivery):
        """Record a delivery and choose its answer."""
        self.note("start", delivery.message, signed=delivery.signed)
        with self._lock:
            self.deliveries.append(delivery)
            answer = self._script.pop(0) if self._script else self._default
        if callable(answer):
            answer = answer(delivery)
        if answer.status == 202 and answer.report:
            self._to_report.put((time.monotonic() + answer.delay, delivery, answer))
        return answer

    def note(self, event, message, **more):
        if not self._journal:
            return
        row = {"event": event, "at": now_rfc3339(), "executor": self.name,
               **{k: message.get(k) for k in ("run_id", "task_id", "attempt", "fence", "scheduled_at", "part_index")}, **more}
        with self._lock:
            self._journal.write(json.dumps(row).encode() + b"\n")
            os.fsync(self._journal.fileno())

    def verify(self, header, body):
        """Whether X-Kelou-Signature is the group's signature of the body and fresh."""
        parts = [part.strip().split("=", 1) for part in (header or "").split(",") if "=" in part]
        at = next((value for name, value in parts if name == "t"), "")
        if not at.isdigit() or abs(time.time() - int(at)) > SIGNATURE_WINDOW_SECONDS:
            return False
        good = hmac.new(self.group.secret.encode(), at.encode() + b"." + body, hashlib.sha256).hexdigest()
        # one v1= for each secret that is valid while a rotation lasts
        return any(hmac.compare_digest(good, value) for name, value in parts if name == "v1")

    def _report_loop(self):
        waiting = []
        while not self._stopping.is_set():
            try:
                waiting.append(self._to_report.get(timeout=0.01))
            except queue.Empty:
                pass
            while not self._to_report.empty():
                waiting.append(self._to_report.get())
            due = [w for w in waiting if w[0] <= time.monotonic()]
            if due:
                waiting = [w for w in waiting if w[0] > time.monotonic()]
                waiting += self._send_reports(due)

    def _send_reports(self, due):
        """Report until the centre has answered; what it did not take stays for the next round."""
        body = []
        for _, d, answer in due:
            self.note("end", d.message, state=answer.report)
            body.append(self.report_of(d.run_id, d.attempt, d.fence, answer.report, **answer.report_fields))
        limit = time.monotonic() + REPORT_SECONDS
        while time.monotonic() < limit and not self._stopping.is_set():
            try:
                if self.report_many(body).status_code < 500:
                    return []
            except requests.RequestException:
                pass
            self._stopping.wait(0.2)
        return due

    def _heartbeat_loop(self):
        while not self._stopping.wait(self.heartbeat_every):
            try:
                if self.incarnation and self.heartbeat().status_code == 404 and self.incarnation and self._server:
                    self.register()
            except (requests.RequestException, AssertionError):
                pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        """A client that has gone is no news."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16  # header and body leave in one write
    owner = None

    def setup(self):
        super().setup()
        with self.owner._lock:
            self.owner._connections.add(self.connection)

    def finish(self):
        with self.owner._lock:
            self.owner._connections.discard(self.connection)
        try:
            super().finish()
        except OSError:
            pass  # the other side, or crash(), has closed it

    def log_message(self, *_):
        """Quiet."""

    def do_GET(self):  # noqa: N802 (the library's name)
        self._reply(Answer(200, {"ok": True}))

    def do_POST(self):  # noqa: N802
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            message = json.loads(body or b"{}")
        except ValueError:
            return self._reply(Answer(400, {"error": "no JSON"}))
        self.owner.last_signature = self.headers.get("X-Kelou-Signature") or ""
        signed = self.owner.verify(self.owner.last_signature, body)
        kind = self.path.rpartition("/")[2]
        if kind == "cancel":
            self.owner.note("cancel", message, signed=signed)
            self.owner.cancels.append(Delivery(kind, message, signed))
            return self._reply(Answer(202))
        if kind != "run":
            return self._reply(Answer(200, {"ok": True}))
        if not signed:
            self.owner.note("unsigned", message)
            return self._reply(Answer(401, {"error": "signature"}))
        answer = self.owner.take(Delivery(kind, message, signed))
        if isinstance(answer, Hang):
            self.owner._stopping.wait(answer.seconds)
            self.close_connection = True
            return None
        if isinstance(answer, Reset):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            return None
        return self._reply(answer)

    def _reply(self, answer):
        data = json.dumps(answer.body if answer.body is not None else {}).encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        return None
