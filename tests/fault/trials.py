"""Trials of one fault, again and again under load: an owner stopped past its lease, a node killed, a rolling restart."""
import os
import random
import time

from tests.fault.alive import instants, p
from tests.fault.cluster import now_us
from tests.fault.plan import Size
from tests.fault.storm import EXECUTORS, Storm
from tests.harness.kelou import wait_for

TAKEN_SECONDS, WELL_SECONDS, REST_SECONDS = 20, 60, 0.5
LATE_MS, GAP_SECONDS = 250, 1.0  # what issue and docs/testing.md ask for


class Trials(Storm):
    """`each(number)` is one trial; what it returns is kept in `results`."""
    people_too = True

    def __init__(self, folder, server, count, o, say=lambda text: None):
        super().__init__(folder, [], Size(o.nodes, len(EXECUTORS), o.lease, 0), o.seed, o.rate, server, say)
        self.random, self.count, self.o, self.results = random.Random(o.seed), count, o, []
        self.judge_times = bool(o.judge)
        self.down = 0.0  # seconds in which somebody was away

    def start(self):
        super().start()
        if not self.people_too:
            self.people.stopping.set()

    def carry_out(self, seconds):
        self.well()
        time.sleep(self.o.warm)  # figures of the first instants are not those of a steady load
        for number in range(self.count):
            begin = time.monotonic()
            result = self.each(number)
            self.results.append(result)
            self.say(f"{number + 1}/{self.count}: {self.told(result)}")
            self.well()
            self.down += time.monotonic() - begin
            self.look()

    def well(self):
        wait_for(self.c.settled, WELL_SECONDS, "all is well again", every=0.05)
        wait_for(self.c.balanced, WELL_SECONDS, "every node has its share", every=0.05)

    def disturbed(self):
        return self.down

    def each(self, number):
        raise NotImplementedError

    def told(self, result):
        return str(result)

    def summary(self):
        """(lines, what must not have been)"""
        return [], []

    def judge(self):
        got = super().judge()
        lines, wrong = self.summary()
        got.text += "\n" + "\n".join(lines)
        got.wrong += wrong
        return got

    def owned_by(self, node):
        return {shard for shard, (owner, _) in self.c.owners().items() if owner == node.name}


class StopTrials(Trials):
    """SIGSTOP of an owner until others have all its shards, SIGCONT: what it then tries to write is refused."""

    def each(self, number):
        victim = self.random.choice([n for n in self.c.nodes if self.owned_by(n)])
        before = self.owned_by(victim)
        time.sleep(self.random.uniform(0, REST_SECONDS))
        since = time.monotonic()
        victim.pause()
        try:
            wait_for(lambda: not self.owned_by(victim), TAKEN_SECONDS + self.o.lease, f"others take the shards of {victim.name}", every=0.02)
            time.sleep(self.random.choice((0, 0, self.random.uniform(0, self.o.lease))))
        finally:
            victim.cont()
        return victim.name, len(before), time.monotonic() - since

    def told(self, result):
        return "{} with {} shards stopped for {:.2f} s".format(*result)

    def summary(self):
        refused = int(self.c.counted("kelou_fencing_rejections_total"))
        stale = self.numbers["stale writes"]
        lines = [f"{len(self.results)} trials, {sum(n for _, n, _ in self.results)} shards taken from a stopped owner, "
                 f"{stale} stale writes taken, {refused} refused by the epoch"]
        return lines, [] if refused or self.count < 20 else ["no stale write was ever tried: the trials show nothing"]


class GapTrials(Trials):
    """kill -9 of one node: how long its shards do not fire."""

    def each(self, number):
        victim = self.random.choice([n for n in self.c.nodes if self.owned_by(n)])
        shards = self.owned_by(victim)
        time.sleep(self.random.uniform(0, self.o.lease))
        at = now_us()
        victim.kill()
        first = wait_for(lambda: self.fired_again(shards, at), TAKEN_SECONDS + self.o.lease, f"the shards of {victim.name} fire", every=0.1)
        victim.start(wait=False)
        return max(first) / 1e6 - at / 1e6

    def fired_again(self, shards, at):
        """When each of the shards fired next; empty until all have."""
        names = ",".join(map(str, sorted(shards)))
        rows = self.c.sql("SELECT shard, min(fired_at) FROM (SELECT shard, fired_at FROM run UNION ALL SELECT shard, fired_at FROM run_history "
                          f"WHERE scheduled_at > {at - 60_000_000}) r WHERE shard IN ({names}) AND fired_at > {at} GROUP BY shard")
        return [int(fired) for _, fired in rows] if len(rows) == len(shards) else []

    def told(self, result):
        return f"{result:.2f} s"

    def summary(self):
        bound = self.o.lease + GAP_SECONDS
        line = (f"{len(self.results)} kills: until all its shards fired again {p(self.results, .5):.2f} s in the middle, "
                f"{max(self.results):.2f} s at worst (bound {bound:.2f} s)")
        return [line], [line] if self.o.judge and max(self.results) > bound else []


class Rolling(Trials):
    """One node after the other is drained, ended and started again."""
    people_too = False

    def each(self, number):
        node = self.c.nodes[number % len(self.c.nodes)]
        begin = time.monotonic()
        code = node.stop(60)
        if code:
            self.wrong.append(f"{node.name} was asked to end and ended with {code}: {node.log_text()[-1000:]}")
        ended = time.monotonic() - begin
        node.start(wait=False)
        self.well()
        return node.name, ended, time.monotonic() - begin

    def told(self, result):
        return "{} ended in {:.2f} s, all had their share after {:.2f} s".format(*result)

    def summary(self):
        late = [by / 1000 for at, by in instants(self.c) if at > self.begin_us]
        line = (f"{len(self.results)} restarts, {len(late)} instants: p50 {p(late, .5):.1f} ms, p99 {p(late, .99):.0f} ms, latest {max(late):.0f} ms "
                f"(bound {LATE_MS} ms); {len(self.found.starts)} starts doubled")
        return [line], [line] if self.found.starts or self.o.judge and max(late) > LATE_MS else []


def options(parser, count, lease, rate):
    """The options that all three have."""
    parser.add_argument("--trials", type=int, default=count)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--rate", type=int, default=rate, help="fires a second, all tasks together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lease", type=float, default=lease, help="node.lease_ttl, seconds")
    parser.add_argument("--warm", type=float, default=3.0, help="seconds of load before the first trial")
    parser.add_argument("--judge", type=int, choices=(0, 1), default=1, help="0: figures are shown, not judged (a busy machine)")
    parser.add_argument("--keep", action="store_true", help="keep the scratch folder in any case")


def main(trials, count, lease, rate):
    """One of the tools; its exit code."""
    import argparse
    from tests.fault.tool import run_in_scratch
    parser = argparse.ArgumentParser(description=trials.__doc__)
    options(parser, count, lease, rate)
    o = parser.parse_args()
    return run_in_scratch(lambda folder, server, say: trials(os.path.join(folder, "trials"), server, o.trials, o, say).run(0), o.keep,
                          trials.__name__.lower())
