"""What the tests of the whole life share: one node for a module, and for each test a scene of its own in it."""
import itertools
from datetime import datetime, timedelta, timezone

from .fake_executor import FakeExecutor
from .kelou import Group, wait_for

ENDED = ("SUCCESS", "FAIL", "CANCELLED", "SKIPPED")
BEAT_SECONDS = 0.4


def at(text):
    """An instant of the API as a datetime."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def text_of(moment):
    return moment.astimezone(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")


def soon(seconds):
    """The instant so many seconds from now, as text."""
    return text_of(datetime.now(timezone.utc) + timedelta(seconds=seconds))


def seconds_between(earlier, later):
    return (at(later) - at(earlier)).total_seconds()


class Task:
    """A task of a scene."""

    def __init__(self, scene, document):
        self.scene, self.api = scene, scene.api
        self.id, self.name, self.made = document["id"], document["name"], document

    @property
    def path(self):
        return f"/tasks/{self.id}"

    def read(self):
        return self.api.ok("GET", self.path)

    def patch(self, **fields):
        return self.api.ok("PATCH", self.path, fields)

    def pause(self):
        return self.api.ok("POST", f"{self.path}/pause")

    def resume(self, catch_up=False):
        return self.api.ok("POST", f"{self.path}/resume", {"catch_up": catch_up})

    def trigger(self, headers=None, **body):
        return self.api.ok("POST", f"{self.path}/trigger", body or None, status=202, headers=headers)["run_id"]

    def stats(self):
        return self.api.ok("GET", f"{self.path}/stats")

    def runs(self, **filters):
        """Its runs in the order of their instants."""
        return self.api.items("/runs", task=self.id, **filters)[::-1]

    def wait_runs(self, count, timeout=15.0, **filters):
        """At least so many runs, oldest first."""
        def look():
            found = self.runs(**filters)
            assert len(found) >= count, [(r["scheduled_at"], r["state"], r["reason"]) for r in found]
            return found
        return wait_for(look, timeout, f"{count} runs of {self.name} {filters or ''}", every=0.05)

    def wait_state(self, state, timeout=10.0):
        return wait_for(lambda: self.read()["state"] == state, timeout, f"{self.name} is {state}", every=0.05)


class Scene:
    """One test's part of a node: a group, executors and tasks with names of their own, ended after the test."""

    _numbers = itertools.count(1)

    def __init__(self, node, folder, api=None):
        self.node, self.folder, self.number = node, folder, next(self._numbers)
        self.api = api or node.api()
        self.tasks, self.executors, self._groups = [], [], {}

    def group(self, name="g", **fields):
        if name not in self._groups:
            self._groups[name] = Group(self.node, f"{name}-{self.number}", **fields)
        return self._groups[name]

    def executor(self, name="one", group="g", beat=BEAT_SECONDS, **options):
        executor = FakeExecutor(self.node, self.group(group), name, **options)
        executor.heartbeat_every = beat
        self.executors.append(executor)
        return executor.start()

    def body(self, name, schedule=None, group="g", **more):
        return {"name": f"{name}-{self.number}", "schedule": schedule or {"kind": "MANUAL"},
                "executor_group": self.group(group).name, "handler": "any", **more}

    def task(self, name="t", schedule=None, group="g", **more):
        made = Task(self, self.api.ok("POST", "/tasks", self.body(name, schedule, group, **more), status=201))
        self.tasks.append(made)
        return made

    def every(self, seconds, name="t", **more):
        return self.task(name, {"kind": "FIXED_RATE", "every": seconds}, **more)

    def run(self, run_id):
        return self.api.ok("GET", f"/runs/{run_id}")

    def wait_run(self, run_id, *states, timeout=15.0, reason=None):
        """The run once it is in one of these states (any ended one unless given), and has this reason."""
        def look():
            answer = self.api.get(f"/runs/{run_id}")  # 404 until the owner has taken it in
            assert answer.status_code in (200, 404), answer.text
            run = answer.json()
            assert answer.ok and run["state"] in (states or ENDED) and reason in (None, run["reason"]), run
            return run
        return wait_for(look, timeout, f"run {run_id} in {states or ENDED} {reason or ''}", every=0.03)

    def cancel(self, run_id):
        return self.api.post(f"/runs/{run_id}/cancel")

    def done(self):
        for task in self.tasks[::-1]:  # a parent is not deleted before its children
            self.api.delete(f"{task.path}?cancel=true")  # 404: deleted by the test
        for executor in self.executors:
            executor.stop()
