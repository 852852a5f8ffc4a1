"""Kill the centre again and again under load, let everything end, and have it proved that nothing was lost or doubled."""
import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass, field

from tests.fault.workload import People
from tests.harness.kelou import ROOT, Group, Keloud, Process, SampleExecutor, binary, wait_for
from tests.verify.tables import read_tables, run_key
from tests.verify.verify import report, verify

POINTS = ("fire.before_commit", "fire.after_commit", "run.before_commit", "run.after_commit")
END_SECONDS, POINT_SECONDS = 120, 20


@dataclass
class Plan:
    """What is done to the centre. `points`: also crash at named places; `outage`: one longer downtime, in seconds."""
    kills: int
    seed: int = 1
    points: tuple = ()
    point_rounds: int = 1
    outage: float = 0
    scale: float = 1.0
    longest_life: float = 2.5
    longest_pause: float = 3.0


@dataclass
class Outcome:
    """`found` of the verifier, `text` for people, and how often the centre died."""
    found: object
    text: str
    deaths: int
    ready: list = field(default_factory=list)
    wrong: list = field(default_factory=list)


class Loop:
    """One run of a plan on one database."""

    def __init__(self, folder, store_url, plan, say=lambda text: None):
        self.folder, self.plan, self.say = str(folder), plan, say
        os.makedirs(self.folder, exist_ok=True)
        self.random = random.Random(plan.seed)
        self.node = Keloud(os.path.join(self.folder, "node"), store_url, {"log.level": "warn"})
        self.journals = [os.path.join(self.folder, name + ".journal") for name in ("executor-1", "executor-2", "people")]
        self.executors, self.people, self.deaths, self.ready, self.downtime = [], None, 0, [], 0.0

    def executor(self, group, name, journal):
        command = [sys.executable, os.path.join(ROOT, "tests", "fault", "busy_executor.py"), "--server", self.node.base_url, "--token",
                   group.token, "--secret", group.secret, "--group", group.name, "--name", name, "--journal", journal]
        return Process(command, os.path.join(self.folder, name + ".log")).start()

    def start_all(self):
        self.node.start()
        group = Group(self.node, "fault")
        sample = SampleExecutor(self.folder, self.node, group, "executor-2", ("--handlers", "echo,sleep,fail", "--slots", "64", "--queue", "500"))
        self.executors = [self.executor(group, "executor-1", self.journals[0]), sample.start()]
        self.journals[1] = sample.journal
        wait_for(lambda: len([x for x in self.node.api().items("/executors") if x["state"] == "ONLINE"]) == 2, 20, "executors")
        self.people = People(self.node, self.journals[2], self.plan.seed)
        self.people.make_standing(self.plan.scale)
        self.people.start()

    def up(self):
        """Start the node without waiting for it."""
        begin = time.monotonic()
        self.node.start(wait=False)
        return begin

    def note_death(self, what):
        self.deaths += 1
        self.say(f"{self.deaths}: {what}")

    def pause(self, seconds=None):
        seconds = self.random.choice((0, 0, self.random.uniform(0, self.plan.longest_pause))) if seconds is None else seconds
        self.downtime += seconds
        time.sleep(seconds)

    def kill_once(self):
        life = self.random.uniform(0, self.plan.longest_life)
        time.sleep(life)
        assert self.node.alive(), f"keloud ended by itself: {self.node.log_text()[-3000:]}"
        self.node.kill()
        self.note_death(f"killed after {life:.2f} s")
        self.pause(self.plan.outage if self.plan.outage and self.deaths == max(1, self.plan.kills // 2) else None)
        self.up()

    def crash_at(self, point):
        """Restart it so that it dies at that place, and wait until it has."""
        self.node.kill()
        nth = self.random.randint(1, 60)
        self.node.environment["KELOU_FAILPOINTS"] = f"{point}=crash:{nth}"
        self.up()
        del self.node.environment["KELOU_FAILPOINTS"]
        try:
            code = self.node.wait(POINT_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{point} was not reached {nth} times in {POINT_SECONDS} s: is this a build with "
                                 "-Dfailpoints=true?") from None
        self.note_death(f"{point} for the {nth}th time: exit {code}")
        self.pause()
        self.up()
        self.node.wait_ready()

    def all_ended(self):
        """No open run is left."""
        for state in ("PENDING", "RUNNING"):
            page = self.node.api().ok("GET", "/runs", params={"state": state, "limit": 100})
            if page["items"]:
                raise AssertionError(f"open: {page['items'][0]}")
        left = read_tables(self.node.store_url)
        assert not left.events and not left.inbox, f"ends of parents {len(left.events)} and requests {left.inbox} that wait"
        return True

    def run(self):
        try:
            self.start_all()
            time.sleep(1)
            for _ in range(self.plan.kills):
                self.kill_once()
            self.node.wait_ready()
            for point in self.plan.points * self.plan.point_rounds:
                self.crash_at(point)
            begin = time.monotonic()
            self.node.wait_ready()
            self.ready.append(time.monotonic() - begin)
            time.sleep(1)
            self.people.finish()
            wait_for(self.all_ended, END_SECONDS, "every run ends", every=0.3)
            code = self.node.stop()
            assert code == 0, f"keloud ended with {code}: {self.node.log_text()[-3000:]}"
        finally:
            self.end()
        return self.judge()

    def end(self):
        if self.people:
            self.people.stopping.set()
        for p in (self.node, *self.executors):
            p.stop()

    def judge(self):
        found = verify(self.node.store_url, self.journals, binary("kelou"), all_ended=True, grace_seconds=60 + self.downtime)
        wrong = list(self.people.wrong)
        keys = {run_key(run_id) for run_id in self.people.triggered}
        asked = {r.key for r in read_tables(self.node.store_url).runs if r.origin == "API"}
        if asked != keys:
            wrong.append(f"{len(asked)} triggered runs in the database, {len(keys)} acknowledged; differ: {sorted(asked ^ keys)[:5]}")
        text = report(found) + f"\n{self.deaths} deaths, {found.runs} runs, calls {self.people.done}"
        return Outcome(found, text, self.deaths, self.ready, wrong)
