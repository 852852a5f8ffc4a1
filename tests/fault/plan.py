"""What is done to a cluster, and when: drawn from a seed, printed, the same for the same seed."""
import random
from dataclasses import dataclass, field

WARM_SECONDS, TAIL_SECONDS = 8.0, 36.0  # before the first fault, after the last one (I7 is judged 30 s after)
SPREAD_SECONDS = 2.0                    # the faults of one round begin so close to each other


@dataclass(frozen=True)
class Kind:
    """A kind of fault: what it is done to (node, db, executor, or the links of a node or an executor) and how long it lasts, in seconds;
    `leases`: so many leases at least and at most are added."""
    name: str
    what: str
    least: float
    most: float
    leases: tuple = (0.0, 0.0)
    choices: dict = field(default_factory=dict)


HELD = {"reset": (False, False, True)}  # what is held goes on afterwards, as after a partition; or the connection is cut
KINDS = {k.name: k for k in (
    Kind("kill", "node", 0.1, 4, (0, 2)),
    Kind("freeze", "node", 0.2, 1, (0.5, 5)),
    Kind("drain", "node", 1, 4),
    Kind("clock-step", "node", 6, 15, (), {"by": (-3600, 3600)}),
    Kind("clock-drift", "node", 6, 15, (), {"rate": (0.9, 1.1)}),
    Kind("db-restart", "db", 0.2, 8, (), {"how": ("immediate", "immediate", "kill", "fast")}),
    Kind("db-backends", "db", 2, 6, (), {"each": (1, 3)}),
    Kind("db-cut", "node:db", 0.5, 2, (0, 3)),
    Kind("db-hole", "node:db", 0.5, 2, (0.5, 4), HELD),
    Kind("db-oneway", "node:db", 0.5, 2, (0.5, 4), {**HELD, "way": ("up", "down")}),
    Kind("db-slow", "node:db", 3, 8, (), {"delay": (0.02, 0.1, 0.4)}),
    Kind("peer-cut", "node:peer", 1, 6),
    Kind("peer-hole", "node:peer", 1, 6, (), HELD),
    Kind("peer-oneway", "node:peer", 1, 6, (), {**HELD, "way": ("up", "down")}),
    Kind("peer-slow", "node:peer", 3, 8, (), {"delay": (0.05, 0.3, 0.8)}),
    Kind("peer-twice", "node:peer", 4, 10, (), {"share": (0.1, 0.5)}),
    Kind("run-cut", "executor:run", 1, 6),
    Kind("run-hole", "executor:run", 1, 7, (), HELD),
    Kind("run-oneway", "executor:run", 1, 7, (), {**HELD, "way": ("up", "down")}),
    Kind("run-slow", "executor:run", 3, 8, (), {"delay": (0.05, 0.3)}),
    Kind("run-twice", "executor:run", 4, 10, (), {"share": (0.05, 0.3)}),
    Kind("report-cut", "node:api", 1, 6),
    Kind("report-hole", "node:api", 1, 7, (), HELD),
    Kind("report-oneway", "node:api", 1, 7, (), {**HELD, "way": ("up", "down")}),
    Kind("report-slow", "node:api", 3, 8, (), {"delay": (0.05, 0.3)}),
    Kind("report-twice", "node:api", 4, 10, (), {"share": (0.1, 0.5)}),
    Kind("executor-kill", "executor", 0.1, 4),
    Kind("executor-freeze", "executor", 0.5, 6),
)}
DROPPED = tuple(f"{at}-drop" for at in ("db", "peer", "run", "report"))  # packets lost without a word, by nft: one way or both
KINDS.update({name: Kind(name, {"db": "node:db", "peer": "node:peer", "run": "executor:run", "report": "node:api"}[name[:-5]], 1, 3, (0.5, 3),
                         {"way": ("up", "down", "both")}) for name in DROPPED})


@dataclass(frozen=True)
class Step:
    """One fault: from `at` on, for `seconds`, done to `target` (a node's or executor's number, from 1; 0: the database)."""
    at: float
    seconds: float
    kind: str
    target: int
    more: tuple = ()

    @property
    def end(self):
        return self.at + self.seconds

    @property
    def resource(self):
        """Two faults of one round never share one."""
        return (KINDS[self.kind].what, self.target)

    def __str__(self):
        what = KINDS[self.kind].what.partition(":")[0]
        who = what if what == "db" else f"{what} {self.target}"
        more = "".join(f" {name}={value}" for name, value in self.more)
        return f"{self.at:7.2f} s  {self.kind:<16} {who:<11} for {self.seconds:5.2f} s{more}"


@dataclass(frozen=True)
class Size:
    """What there is to be harmed."""
    nodes: int = 3
    executors: int = 3
    lease: float = 2.0
    clock_node: int = 3  # only this one's clock can be set


class Deck:
    """Every kind once before any comes again."""

    def __init__(self, kinds, dice):
        self.kinds, self.random, self.left = list(kinds), dice, []

    def draw(self):
        if not self.left:
            self.left = list(self.kinds)
            self.random.shuffle(self.left)
        return KINDS[self.left.pop()]


def drawn(kind, at, size, dice):
    leases = [n * size.lease for n in kind.leases] or [0.0, 0.0]
    seconds = dice.uniform(kind.least, kind.most) + dice.uniform(*leases)
    what = kind.what.partition(":")[0]
    target = {"node": dice.randint(1, size.nodes), "executor": dice.randint(1, size.executors), "db": 0}[what]
    if kind.name.startswith("clock"):
        target = size.clock_node
    more = tuple((name, dice.choice(values)) for name, values in kind.choices.items())
    return Step(round(at, 2), round(seconds, 2), kind.name, target, more)


def make_plan(seed, seconds, size, kinds=tuple(KINDS), tail=TAIL_SECONDS):
    """Rounds of one to three faults, each healed before a calm that is short, long enough for I6, or long enough for I7."""
    dice = random.Random(f"{seed} {size} {sorted(kinds)}")
    deck, steps, at = Deck(kinds, dice), [], min(WARM_SECONDS, seconds / 4)
    while at < seconds - min(tail, seconds / 3):
        taken, end = set(), at
        for _ in range(dice.choices((1, 2, 3), (5, 3, 2))[0]):
            step = drawn(deck.draw(), at + dice.uniform(0, SPREAD_SECONDS), size, dice)
            if step.resource not in taken:
                taken.add(step.resource)
                steps.append(step)
                end = max(end, step.end)
        at = end + dice.choices((dice.uniform(1, 5), size.lease + 11, 33), (6, 5, 1))[0]
    return sorted(steps, key=lambda s: s.at)
