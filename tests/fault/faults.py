"""How each kind of fault begins and how it is healed. A fault object lives from its step's begin to its end."""
import random
import signal
import time

from tests.fault.plan import KINDS

BACKEND_SECONDS = 0.5


class Fault:
    """One fault; `tick` is called several times a second while it lasts."""

    def __init__(self, cluster, step):
        self.c, self.step, self.more = cluster, step, dict(step.more)
        self.kind = KINDS[step.kind]
        self.notes = []  # what should not have happened

    def begin(self):
        raise NotImplementedError

    def tick(self):
        pass

    def heal(self):
        raise NotImplementedError

    @property
    def node(self):
        return self.c.nodes[self.step.target - 1]

    @property
    def executor(self):
        return self.c.executors[self.step.target - 1]

    @property
    def link(self):
        """The name of its link."""
        return f"{self.kind.what.partition(':')[2]}-{self.step.target}"


class Kill(Fault):
    """kill -9 and, later, a new life."""

    def begin(self):
        self.node.kill()

    def heal(self):
        self.node.start(wait=False)


class Freeze(Fault):
    """SIGSTOP, SIGCONT."""

    def begin(self):
        self.node.pause()

    def heal(self):
        self.node.cont()


class Drain(Fault):
    """A graceful end, and a start."""

    def begin(self):
        self.node.process.send_signal(signal.SIGTERM)

    def heal(self):
        code = self.node.stop(40)
        if code:
            self.notes.append(f"{self.node.name} was asked to end and ended with {code}")
        self.node.start(wait=False)


class Clock(Fault):
    """The wall clock of one node steps, or runs at another rate."""

    def begin(self):
        self.node.set_clock(f"{self.more['by']:+d}" if "by" in self.more else f"+0 x{self.more['rate']}")

    def heal(self):
        self.node.set_clock("+0")


class Database(Fault):
    """PostgreSQL ends and comes back on the same port."""

    def begin(self):
        server, how = self.c.server, self.more["how"]
        if how == "kill":
            server.kill()
        elif how == "immediate":
            server.stop_hard()
        else:
            server.process.send_signal(signal.SIGINT)
            server.process.wait(60)

    def heal(self):
        self.c.server.resume()


class Backends(Fault):
    """Sessions of the nodes are ended by the administrator, again and again."""

    def begin(self):
        self.random, self.next = random.Random(str(self.step)), 0.0

    def tick(self):
        if time.monotonic() < self.next:
            return
        self.next = time.monotonic() + BACKEND_SECONDS
        pids = [int(pid) for (pid,) in self.c.sql("SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND "
                                                  "application_name LIKE 'kelou %' ORDER BY pid")]
        for pid in self.random.sample(pids, min(len(pids), self.more["each"])):
            self.c.sql(f"SELECT pg_terminate_backend({pid})")

    def heal(self):
        pass


class Link(Fault):
    """A link is told something, and at the end to be whole again."""

    def begin(self):
        said = {"cut": {"refuse": True}, "hole": {"hold": "both"}, "oneway": {"hold": self.more.get("way")},
                "slow": {"delay": self.more.get("delay", 0) / 2, "spread": self.more.get("delay", 0)},
                "twice": {"twice": self.more.get("share")}}
        self.c.proxy.set(self.link, **said[self.kind.name.partition("-")[2]])

    def heal(self):
        self.c.proxy.calm(self.link, reset=self.more.get("reset", False))


class Drop(Fault):
    """Packets of a link vanish in the kernel."""

    def begin(self):
        self.c.drops.drop(self.c.proxy.ports[self.link], self.more["way"])

    def heal(self):
        self.c.drops.heal(self.c.proxy.ports[self.link])


class ExecutorKill(Fault):
    def begin(self):
        self.executor.kill()

    def heal(self):
        self.executor.start()


class ExecutorFreeze(Fault):
    def begin(self):
        self.executor.pause()

    def heal(self):
        self.executor.cont()


OF = {"kill": Kill, "freeze": Freeze, "drain": Drain, "clock-step": Clock, "clock-drift": Clock, "db-restart": Database, "db-backends": Backends,
      "executor-kill": ExecutorKill, "executor-freeze": ExecutorFreeze}


def fault_of(cluster, step):
    """The fault of a step of the plan."""
    return (OF.get(step.kind) or (Drop if step.kind.endswith("-drop") else Link))(cluster, step)
