"""A receiver of alert webhooks on loopback: a real HTTP server that checks signatures and answers as a test says.

    with Webhook() as hook:
        hook.script(503, 503)        # the next two answers; then 200
        hook.wait(1)                 # → the deliveries so far, at least one"""
import hashlib
import hmac
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from .kelou import wait_for


class Received:
    """One POST as it came in."""

    def __init__(self, path, headers, raw):
        self.path, self.headers, self.raw, self.at = path, headers, raw, time.time()
        self.message = json.loads(raw)
        self.alert_id = headers.get("X-Kelou-Alert-Id")

    def signed_by(self, secret, window=300):
        """Whether one of the signatures in the header is made with this secret, now."""
        parts = [p.split("=", 1) for p in self.headers.get("X-Kelou-Signature", "").split(",")]
        stamp = next((value for name, value in parts if name == "t"), None)
        if stamp is None or abs(time.time() - int(stamp)) > window:
            return False
        mac = hmac.new(secret.encode(), f"{stamp}.".encode() + self.raw, hashlib.sha256).hexdigest()
        return any(name == "v1" and hmac.compare_digest(value, mac) for name, value in parts)


class Webhook:
    """The server. `received` is what came, in order; `answer` the status of answers that no script says."""

    def __init__(self, answer=200):
        self.received, self.answer, self.delay, self.headers = [], answer, 0.0, {}
        self._script, self._lock = [], threading.Lock()
        self._free = threading.Event()
        self._server = None

    def start(self):
        hook = self

        class Handler(BaseHTTPRequestHandler):
            """One request."""
            protocol_version = "HTTP/1.1"

            def do_POST(self):  # noqa: N802 the base class names it
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                status = hook.take(Received(self.path, self.headers, raw))
                if hook.delay:
                    hook._free.wait(hook.delay)
                self.send_response(status)
                for name, value in hook.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def stop(self):
        self._free.set()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.server_port}"

    def script(self, *statuses):
        with self._lock:
            self._script += statuses

    def take(self, received):
        with self._lock:
            self.received.append(received)
            return self._script.pop(0) if self._script else self.answer

    def wait(self, count, seconds=15):
        wait_for(lambda: len(self.received) >= count, seconds, f"{count} alerts received")
        return list(self.received)
