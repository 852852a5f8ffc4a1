"""An executor for many short runs: one process, one event loop, batched reports, repeated deliveries refused.

    busy_executor.py --server URL[,URL…] --token T --secret S --group G --name N --journal FILE

What it does is the handler: `inline` is answered 200 with its result, `sleep` takes payload.ms, `fail` fails in the first payload.times
attempts (all of them when it is not said); anything else succeeds at once. Attempts of tasks with exactly_one_start are claimed first. It is written against docs/semantics.md and shares no code with the SDK."""
import argparse
import asyncio
import hashlib
import hmac
import json
import os
import queue
import signal
import threading
import time

import requests

BATCH, BEAT_SECONDS, HTTP_SECONDS, MANY = 500, 2.0, 20, 200_000


class Journal:
    """JSON lines; each one is in the kernel before it is acted upon, so that a kill loses none."""

    def __init__(self, path, executor):
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.executor = executor

    def note(self, event, message, state=""):
        row = {"t": time.time_ns() // 1000, "event": event, "run_id": message["run_id"], "attempt": message["attempt"],
               "fence": message["fence"], "executor": self.executor, "state": state}
        os.write(self.fd, json.dumps(row).encode() + b"\n")


def session(options):
    """A connection to the centre with our token."""
    http = requests.Session()
    http.trust_env = False
    http.headers["Authorization"] = f"Bearer {options.token}"
    return http


class Reporter(threading.Thread):
    """Sends what has ended until the centre has recorded it; registers and beats."""

    def __init__(self, options, journal, url):
        super().__init__(daemon=True)
        self.o, self.journal, self.url = options, journal, url
        self.wake, self.waiting, self.incarnation = threading.Condition(), [], None
        self.servers, self.at = options.server.split(","), 0
        self.http = session(options)
        self.beat_at = 0.0
        self.stopping = False

    def put(self, message, state):
        with self.wake:
            self.waiting.append((message, state))
            self.wake.notify()

    def post(self, path, body, **params):
        return self.http.post(f"{self.servers[self.at]}/api/v1{path}", json=body, params=params, timeout=HTTP_SECONDS)

    def next_server(self):
        """This one is away, or cannot take it now: the next."""
        self.at = (self.at + 1) % len(self.servers)

    def register(self):
        answer = self.post("/executors/register", {"id": self.o.name, "group": self.o.group, "namespace": "default",
                                                   "url": self.url, "handlers": ["*"], "slots": 2000, "version": "test"})
        if answer.status_code == 200 or answer.status_code == 201:
            self.incarnation = answer.json()["incarnation"]

    def beat(self):
        if time.monotonic() < self.beat_at:
            return
        self.beat_at = time.monotonic() + BEAT_SECONDS
        if self.incarnation is None:
            return self.register()
        answer = self.post(f"/executors/{self.o.name}/heartbeat", {"incarnation": self.incarnation, "running": 0},
                           namespace="default", group=self.o.group)
        if answer.status_code == 404:
            self.register()
        return None

    def send(self, batch):
        """Report these; returns what has to be sent again."""
        body = []
        for m, state in batch:
            report = {"run_id": m["run_id"], "attempt": m["attempt"], "fence": m["fence"], "state": state, "executor": self.o.name}
            if state == "FAIL":
                report["error"] = {"type": "Asked", "message": "told to fail"}
            body.append(report)
        answer = self.post("/reports", {"reports": body})
        if answer.status_code not in (200, 503) or "results" not in answer.json():
            self.next_server()
            return batch
        left = []
        for (m, state), result in zip(batch, answer.json()["results"]):
            if result["status"] == "retry":  # its owner is away, or another node
                left.append((m, state))
            else:
                self.journal.note("acked-" + result["status"], m, state)
        if left:
            self.next_server()
        return left

    def run(self):
        batch = []
        while not self.stopping:
            try:
                self.beat()
                if not batch:
                    with self.wake:
                        if not self.waiting:
                            self.wake.wait(0.1)
                        batch, self.waiting = self.waiting[:BATCH], self.waiting[BATCH:]
                if batch:
                    batch = self.send(batch)
                    if batch:
                        time.sleep(0.1)
            except (requests.RequestException, ValueError):
                self.next_server()
                time.sleep(0.05)


class Claimer(threading.Thread):
    """Asks whether attempts may be started, the same again until that is answered."""

    def __init__(self, executor):
        super().__init__(daemon=True)
        self.x, self.waiting, self.stopping = executor, queue.SimpleQueue(), False
        self.loop, self.http, self.at = asyncio.get_running_loop(), session(executor.o), 0
        self.servers = executor.o.server.split(",")

    def batch(self):
        found = [self.waiting.get()]
        while len(found) < BATCH and not self.waiting.empty():
            found.append(self.waiting.get())
        return found

    def ask(self, batch):
        """Ask for these; returns what has to be asked again."""
        incarnation = self.x.reporter.incarnation
        body = [{"run_id": m["run_id"], "attempt": m["attempt"], "fence": m["fence"], "executor": self.x.o.name, "incarnation": incarnation}
                for m in batch]
        answer = self.http.post(f"{self.servers[self.at]}/api/v1/claims", json={"claims": body}, timeout=HTTP_SECONDS)
        left = []
        results = answer.json().get("results") or [{"status": "retry"}] * len(batch)
        for m, result in zip(batch, results):
            if result["status"] in ("granted", "refused", "forbidden"):
                self.loop.call_soon_threadsafe(self.x.claimed, m, result["status"] == "granted")
            else:
                left.append(m)
        return left

    def run(self):
        left = []
        while not self.stopping:
            left = left or self.batch()
            try:
                left = self.ask(left)
            except (requests.RequestException, ValueError):
                pass
            if left:
                self.at = (self.at + 1) % len(self.servers)
                time.sleep(0.05)


class Executor:
    """The deliveries' side."""

    def __init__(self, options):
        self.o, self.journal = options, Journal(options.journal, options.name)
        self.seen, self.reporter, self.claimer = {}, None, None

    def signed(self, header, body):
        parts = dict(p.strip().split("=", 1) for p in header.split(",") if "=" in p)
        good = hmac.new(self.o.secret.encode(), parts.get("t", "").encode() + b"." + body, hashlib.sha256).hexdigest()
        return hmac.compare_digest(good, parts.get("v1", ""))

    def deliver(self, m):
        """(status, body) for a delivery."""
        key = (m["run_id"], m["attempt"])
        known = self.seen.get(key)
        if known is not None:
            self.seen[key] = max(known, m["fence"])
            return (409, {}) if m["fence"] < known else (202, {})
        if len(self.seen) > MANY:
            self.seen.pop(next(iter(self.seen)))
        self.seen[key] = m["fence"]
        if m.get("exactly_one_start"):
            self.claimer.waiting.put(m)
            return 202, {}
        self.journal.note("start", m)
        if m["handler"] == "inline":
            del self.seen[key]  # a repeated delivery asks for the result: done again
            self.journal.note("end", m, "SUCCESS")
            return 200, {"state": "SUCCESS", "result": {"n": m["attempt"]}}
        return self.work(m)

    def claimed(self, m, granted):
        if granted:
            self.journal.note("start", m)
            self.work(m)
        else:
            self.seen.pop((m["run_id"], m["attempt"]), None)

    def work(self, m):
        wait = (m.get("payload") or {}).get("ms", 0) / 1000
        asyncio.get_running_loop().call_later(wait, self.end, m)
        return 202, {}

    def end(self, m):
        failed = m["handler"] == "fail" and m["attempt"] <= (m.get("payload") or {}).get("times", m["attempt"])
        state = "FAIL" if failed else "SUCCESS"
        self.journal.note("end", m, state)
        self.reporter.put(m, state)

    async def client(self, reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
                low = {k.lower(): v for k, v in fields.items()}
                body = await reader.readexactly(int(low.get("content-length", 0)))
                status, answer = 200, {"ok": True}
                if head.startswith("POST") and "/run " in head:
                    status, answer = self.deliver(json.loads(body)) if self.signed(low.get("x-kelou-signature", ""), body) else (401, {})
                data = json.dumps(answer).encode()
                writer.write(b"HTTP/1.1 %d x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(data)) + data)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def main(self):
        server = await asyncio.start_server(self.client, "127.0.0.1", self.o.port)
        self.reporter = Reporter(self.o, self.journal, self.o.url or f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        self.claimer = Claimer(self)
        self.reporter.start()
        self.claimer.start()
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await stop.wait()
        self.reporter.stopping = True


def main():
    parser = argparse.ArgumentParser()
    for name in ("server", "token", "secret", "group", "name", "journal"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--url", help="how the centre reaches it, if not there")
    asyncio.run(Executor(parser.parse_args()).main())


if __name__ == "__main__":
    main()
