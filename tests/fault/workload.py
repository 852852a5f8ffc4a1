"""What goes on while the centre is killed: about 500 fires a second, and people who create, trigger, change, pause and delete.

Every promise that the API made is written to a journal for the verifier: {"t","event":"created|triggered","task_id"|"run_id"}."""
import json
import os
import random
import threading
import time
import uuid
from datetime import datetime, timedelta, timezone

import requests

RETRY_SECONDS = 0.05
HERD, BATCH = 100, 500
PER_SCALE = 500  # fires a second of the standing tasks at scale 1, about


def task(name, schedule, handler="echo", **more):
    return {"name": name, "schedule": schedule, "executor_group": "fault", "handler": handler, "dispatch_timeout": "30s",
            "attempt_timeout": "60s", "timeout": "5m", **more}


def rate(every):
    return {"kind": "FIXED_RATE", "every": every}


def cron(expression, **more):
    return {"kind": "CRON", "expression": expression, **more}


def tasks(scale):
    """The standing tasks: about 500 × scale fires a second."""
    made = []

    def add(count, name, *arguments, **more):
        for i in range(max(1, round(count * scale))):
            made.append(task(f"{name}-{i}", *arguments, **more))
    add(80, "rate-1s", rate("1s"))
    add(20, "rate-250ms", rate("250ms"), overlap_policy="ALLOW")
    add(10, "rate-250ms-inline", rate("250ms"), "inline", overlap_policy="ALLOW")
    add(10, "rate-250ms-queued", rate("250ms"), overlap_policy="QUEUE_ALL")
    add(10, "rate-100ms-skip", rate("100ms"), "sleep", overlap_policy="SKIP", payload={"ms": 150})
    add(60, "cron-1s", cron("* * * * * ?"))
    add(20, "cron-2s-shanghai", cron("0/2 * * * * ?", timezone="Asia/Shanghai"))
    add(20, "cron-1s-jitter", cron("* * * * * ?", jitter="700ms"))
    add(20, "delay-200ms", {"kind": "FIXED_DELAY", "every": "200ms"})
    add(10, "delay-500ms-sleep", {"kind": "FIXED_DELAY", "every": "500ms"}, "sleep", payload={"ms": 50})
    add(10, "flaky", rate("1s"), "fail", payload={"times": 1}, retry={"max_attempts": 3, "initial_interval": "200ms"})
    add(10, "fail", rate("2s"), "fail", retry={"max_attempts": 2, "initial_interval": "100ms"})
    add(10, "long-queue-one", rate("1s"), "sleep", payload={"ms": 2500})
    add(10, "max-runs", {**rate("500ms"), "max_runs": 30})
    add(10, "all", rate("1s"), misfire_policy="FIRE_ALL", misfire_threshold="15s", catchup_rate=100)
    add(10, "all-few", rate("500ms"), misfire_policy="FIRE_ALL", misfire_threshold="15s", catchup_window="10s", catchup_max_runs=5)
    add(10, "skip", rate("1s"), misfire_policy="SKIP", misfire_threshold="15s")
    add(10, "once", cron("* * * * * ?"), misfire_threshold="15s")
    add(10, "one-start", rate("1s"), exactly_one_start=True, retry={"max_attempts": 3, "initial_interval": "200ms"})
    add(10, "one-start-sleep", rate("1s"), "sleep", exactly_one_start=True, overlap_policy="QUEUE_ALL", payload={"ms": 20})
    add(10, "manual", {"kind": "MANUAL"}, overlap_policy="ALLOW")
    return made


def after_tasks(scale):
    """What runs after the standing tasks: chains, one end and several, successes and failures."""
    made = []

    def add(name, i, parents, mode, ends="SUCCESS", **more):
        made.append(task(f"{name}-{i}", {"kind": "MANUAL"}, depends_on={"tasks": parents, "mode": mode, "ends": ends}, **more))
    for i in range(max(1, round(10 * scale))):
        add("after-any", i, [f"rate-1s-{i}"], "ANY", overlap_policy="ALLOW")
        add("after-after", i, [f"after-any-{i}", f"flaky-{i}"], "ANY", overlap_policy="ALLOW")
        add("after-one", i, [f"rate-250ms-{i}"], "ANY")
        add("after-fail", i, [f"fail-{i}"], "ANY", "FAIL", overlap_policy="QUEUE_ALL")
        add("after-all", i, [f"rate-1s-{i}", f"cron-1s-{i}", f"delay-200ms-{i}"], "ALL", overlap_policy="ALLOW")
    return made


class People(threading.Thread):
    """Calls the API all the time, patiently: what has an Idempotency-Key is asked again until it is answered."""

    def __init__(self, node, journal, seed, pause=0.05):
        super().__init__(daemon=True)
        self.node, self.random, self.pause = node, random.Random(seed), pause
        self.fd = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.stopping = threading.Event()
        self.api, self.ids, self.manual, self.after = None, [], [], []
        self.triggered, self.done, self.wrong, self.given_up = set(), {}, [], 0

    def note(self, event, **fields):
        os.write(self.fd, json.dumps({"t": time.time_ns() // 1000, "event": event, **fields}).encode() + b"\n")

    def call(self, method, path, body=None, again=False, expect=(200, 201, 202, 204), **more):
        """The answer, or None when the centre was away and the call must not be repeated blindly."""
        limit = time.monotonic() + 120
        while True:
            try:
                answer = self.api.request(method, path, body=body, timeout=20, **more)
                if answer.status_code in expect:
                    return answer
                if answer.status_code not in (429, 503):
                    self.wrong.append(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
                    return None
            except requests.RequestException:
                pass
            if not again or time.monotonic() > limit:
                return None
            time.sleep(RETRY_SECONDS)

    def create(self, body):
        answer = self.call("POST", "/tasks", body, again=True, headers={"Idempotency-Key": str(uuid.UUID(int=self.random.getrandbits(128)))})
        if answer is not None:
            self.note("created", task_id=answer.json()["id"])
            self.ids.append(answer.json()["id"])

    def make_standing(self, scale):
        """The tasks of the whole test, in one batch."""
        self.api = self.node.api()
        wanted, made = tasks(scale) + after_tasks(scale), []
        for i in range(0, len(wanted), BATCH):
            made += self.api.ok("POST", "/tasks/batch", {"tasks": wanted[i:i + BATCH]})["items"]
        for t in made:
            self.note("created", task_id=t["id"])
            (self.manual if t["name"].startswith("manual") else self.ids if not t["name"].startswith("after") else self.after).append(t["id"])

    def herd(self):
        at = datetime.now(timezone.utc) + timedelta(seconds=self.random.uniform(0.5, 4))
        run_at = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        name = f"herd-{self.random.getrandbits(60):x}"
        body = [task(f"{name}-{i}", {"kind": "ONE_TIME", "run_at": run_at}, misfire_policy="FIRE_ONCE") for i in range(HERD)]
        answer = self.call("POST", "/tasks/batch", {"tasks": body})
        for t in answer.json()["items"] if answer is not None else ():
            self.note("created", task_id=t["id"])

    def trigger(self):
        key = {"Idempotency-Key": str(uuid.UUID(int=self.random.getrandbits(128)))}
        answer = self.call("POST", f"/tasks/{self.random.choice(self.manual)}/trigger", {"payload": {"ms": 5}}, again=True, headers=key)
        if answer is None:
            self.given_up += 1
        else:
            self.note("triggered", run_id=answer.json()["run_id"])
            self.triggered.add(answer.json()["run_id"])

    def change(self):
        task_id = self.random.choice(self.ids)
        every = self.random.choice(("400ms", "700ms", "1s"))
        what = self.random.choice(("pause", "resume", "catch_up", "edit", "edit", "switch"))
        if what == "edit":
            self.call("PATCH", f"/tasks/{task_id}", {"description": f"changed at {time.time()}"}, expect=(200, 404, 412))
        elif what == "switch":
            self.call("PATCH", f"/tasks/{task_id}", {"schedule": {**rate(every), **{name: None for name in ("expression", "timezone", "jitter")}}},
                      expect=(200, 400, 404, 412, 422))
        elif what == "catch_up":
            self.call("POST", f"/tasks/{task_id}/resume", {"catch_up": True}, expect=(200, 404, 409))
        else:
            self.call("POST", f"/tasks/{task_id}/{what}", expect=(200, 404, 409))

    def delete(self):
        task_id = self.random.choice(self.ids)
        if self.call("DELETE", f"/tasks/{task_id}?cancel=true", expect=(204, 404, 409)) is not None:
            self.ids.remove(task_id)

    def once(self):
        what = self.random.choices(("trigger", "change", "create", "herd", "delete"), (50, 25, 15, 4, 2))[0]
        self.done[what] = self.done.get(what, 0) + 1
        if what == "create":
            schedule = self.random.choice((rate("1s"), cron("* * * * * ?"), {"kind": "FIXED_DELAY", "every": "500ms"}))
            self.create(task(f"way-{self.random.getrandbits(60):x}", schedule))
            if len(self.ids) > 800:
                self.delete()
        else:
            getattr(self, what)()

    def run(self):
        while not self.stopping.wait(self.pause):
            self.once()

    def finish(self):
        """Stop the calls and hold every schedule."""
        self.stopping.set()
        if self.is_alive():
            self.join(150)
        for t in self.api.items("/tasks", limit=1000):
            if t["state"] == "ENABLED" and t["schedule"]["kind"] not in ("MANUAL", "ONE_TIME"):
                self.call("POST", f"/tasks/{t['id']}/pause", again=True, expect=(200, 404, 409))
