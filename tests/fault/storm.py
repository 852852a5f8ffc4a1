"""A plan carried out on a cluster under load; then everything is healed, let end, and proved."""
import os
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.fault.alive import alive
from tests.fault.audit import stale_writes
from tests.fault.cluster import READY_SECONDS, Cluster, now_us
from tests.fault.faults import fault_of
from tests.fault.workload import PER_SCALE, People
from tests.harness.kelou import binary, wait_for
from tests.verify.tables import REASONS, read_tables, run_key
from tests.verify.verify import report, verify

END_SECONDS, TICK_SECONDS, LOOK_SECONDS, AGAIN_SECONDS = 240, 0.05, 1.0, 1.0
TAIL_BYTES, MOST_WRONG = 600, 30
EXECUTORS = ("sample", "inline", "busy")


@dataclass
class Outcome:
    """`found` of the verifier, `text` for people, `wrong`: what must not have been, beside that."""
    found: object
    text: str
    wrong: list
    counts: Counter
    numbers: dict = field(default_factory=dict)

    @property
    def good(self):
        return not self.found.bad and not self.wrong


class Storm:
    """One plan on one cluster."""

    def __init__(self, folder, plan, size, seed, rate, server, say=lambda text: None):
        self.plan, self.size, self.seed, self.rate, self.say = plan, size, seed, rate, say
        self.c = Cluster(folder, server, size.nodes, size.lease, seed, clock_node=size.clock_node)
        self.people, self.wrong, self.counts = None, [], Counter()
        self.judge_times = True  # False: I6 and I7 are shown, not judged (a machine that others use)
        self.again_at = {}  # process → when it may be started again
        self.open, self.ended = {}, []  # step → fault; (step, from, until) in µs
        self.begin, self.begin_us, self.found, self.numbers = 0.0, 0, None, {}
        self.proxied = {}

    def start(self):
        self.c.start()
        self.c.add_executors(EXECUTORS[:self.size.executors])
        self.c.journals.append(os.path.join(self.c.folder, "people.journal"))
        self.people = People(self.c, self.c.journals[-1], self.seed)
        self.people.make_standing(self.rate / PER_SCALE)
        self.people.start()

    def now(self):
        return time.monotonic() - self.begin

    def begins(self, step):
        fault = self.open[step] = fault_of(self.c, step)
        fault.since = now_us()
        self.say(f"{self.now():7.2f} {step.kind} {step.target or ''} begins")
        fault.begin()
        self.counts[step.kind] += 1

    def heals(self, step):
        fault = self.open.pop(step)
        fault.heal()
        self.wrong += fault.notes
        self.ended.append((step, fault.since, now_us()))
        self.say(f"{self.now():7.2f} {step.kind} {step.target or ''} is healed")

    def supervised(self):
        """I6: no process ends by itself. But one that finds no database at its start does, and is started again, as a supervisor would."""
        meant = {id(f.node) for s, f in self.open.items() if s.kind in ("kill", "drain")}
        meant |= {id(f.executor) for s, f in self.open.items() if s.kind == "executor-kill"}
        for p in (*self.c.nodes, *self.c.executors):
            if p.alive() or id(p) in meant or time.monotonic() < self.again_at.get(id(p), 0):
                continue
            self.again_at[id(p)] = time.monotonic() + AGAIN_SECONDS
            if p.process.returncode == 1 and 'msg="cannot start" field=store.url' in p.log_text()[-TAIL_BYTES:]:
                self.counts["start without a database"] += 1
            else:
                self.wrong.append(f"{p.log} ended by itself with {p.process.returncode}: {p.log_text()[-TAIL_BYTES:]}")
            p.start(**({"wait": False} if p in self.c.nodes else {}))

    def carry_out(self, seconds):
        todo = sorted([(s.at, 1, s) for s in self.plan] + [(s.end, 0, s) for s in self.plan], key=lambda x: x[:2])
        looked = 0.0
        while todo or self.now() < seconds:
            while todo and todo[0][0] <= self.now():
                _, begins, step = todo.pop(0)
                (self.begins if begins else self.heals)(step)
            for fault in self.open.values():
                fault.tick()
            self.supervised()
            if time.monotonic() - looked > LOOK_SECONDS:
                looked = time.monotonic()
                self.look()
            time.sleep(TICK_SECONDS)

    def look(self):
        frozen = {s.target for s in self.open if s.kind == "freeze"}
        for node in self.c.nodes:
            if node.number not in frozen and node.alive():
                node.look()

    def all_ended(self):
        rows = self.c.sql("SELECT shard, scheduled_at, task_id, part, state, reason, attempt, executor FROM run LIMIT 3")
        assert not rows, f"open: {rows}"
        waits = self.c.sql("SELECT (SELECT count(*) FROM dependency_event), (SELECT count(*) FROM inbox)")
        assert waits == [["0", "0"]], f"ends of parents and requests that wait: {waits}"
        return True

    def well_again(self):
        self.supervised()
        return self.c.settled()

    def finish(self):
        """Nothing is wrong any more; everything is let end."""
        for step in list(self.open):
            self.heals(step)
        self.c.calm()
        wait_for(self.well_again, READY_SECONDS, "all is well again", every=0.2)
        self.look()
        self.people.finish()
        try:
            wait_for(self.all_ended, END_SECONDS, "every run ends", every=0.5)
        except AssertionError as e:
            self.wrong.append(str(e))
        self.look()
        for node in self.c.nodes:
            code = node.stop(60)
            if code:
                self.wrong.append(f"{node.name} ended with {code}: {node.log_text()[-TAIL_BYTES:]}")

    def run(self, seconds):
        try:
            self.start()
            self.begin, self.begin_us = time.monotonic(), now_us()
            self.carry_out(seconds)
            self.finish()
        finally:
            self.end()
        return self.judge()

    def end(self):
        if self.people:
            self.people.stopping.set()
        self.proxied = self.c.proxy.counts() if self.c.proxy.process.poll() is None else {}
        for step in list(self.open):
            if step.kind == "freeze":
                self.c.nodes[step.target - 1].cont()
        self.c.stop()

    def disturbed(self):
        return sum(s.seconds for s in self.plan)

    def promised(self):
        """What callers were told about triggers is there, and nothing else."""
        keys = {run_key(run_id) for run_id in self.people.triggered}
        asked = {r.key for r in read_tables(self.c.database).runs if r.origin == "API"}
        if keys - asked or len(asked - keys) > self.people.given_up:
            self.wrong.append(f"{len(asked)} triggered runs in the database, {len(keys)} acknowledged; differ: {sorted(asked ^ keys)[:5]}")

    def failed(self):
        """How many runs failed that were not told to, by reason."""
        rows = self.c.sql("SELECT r.reason, count(*) FROM run_history r JOIN task_version v ON v.task_id = r.task_id AND v.version = r.version "
                          "WHERE r.state = 3 AND v.handler <> 'fail' GROUP BY 1")
        return {REASONS[int(reason)]: int(n) for reason, n in rows}

    def judge(self):
        found = self.found = verify(self.c.database, self.c.journals, binary("kelou"), all_ended=True, grace_seconds=60 + self.disturbed())
        self.promised()
        life = alive(self.c, self.ended, self.size.lease)
        wrong = [*self.wrong, *self.people.wrong, *(life.wrong if self.judge_times else ())]
        epochs = sum(epoch for _, epoch in self.c.owners().values())
        again = sum(link["again"] for link in self.proxied.values())
        stale = stale_writes(self.c)
        wrong += [f"stale write: {' '.join(row)}" for row in stale[:20]]
        numbers = self.numbers = {"stale writes": sum(int(row[-1]) for row in stale), "epochs": epochs, "take-overs counted": int(self.c.counted("kelou_shard_takeovers_total")),
                   "fencing rejections": int(self.c.counted("kelou_fencing_rejections_total")),
                   "runs that failed, not told to": self.failed() or 0, "FIRE refusals": int(self.c.counted("kelou_fire_refusals_total")), "FIREs read back": int(self.c.counted("kelou_fire_errors_total")),
                   "database errors": int(self.c.counted("kelou_db_errors_total")), "requests sent again by the proxy": again, **life.numbers}
        life.lines += [] if self.judge_times else [f"not judged: {text}" for text in life.wrong]
        lines = [report(found), "faults: " + ", ".join(f"{n} {kind}" for kind, n in sorted(self.counts.items())),
                 ", ".join(f"{name} {value}" for name, value in numbers.items()), *life.lines,
                 f"{found.runs} runs, calls {self.people.done}, given up {self.people.given_up}"]
        return Outcome(found, "\n".join(lines), wrong[:MOST_WRONG], self.counts, numbers)
