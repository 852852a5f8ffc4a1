"""Which instants were due: computed anew from the stored versions, apart from what the centre did with them."""
import bisect
import json
import subprocess
from dataclasses import dataclass

from .tables import duration, instant

NEVER = 1 << 62
CRON_PAGE = 1000
MASK = (1 << 64) - 1


def hash_u64(x):
    """The output function of SplitMix64, as core uses it for shards and jitter."""
    z = (x + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


@dataclass(frozen=True)
class Due:
    """One instant of a version: nominal, and when it is due (with jitter)."""
    due: int
    nominal: int
    version: int


class Crons:
    """Instants of cron expressions through `kelou cron next`; each expression is computed once over the range it is asked for."""

    def __init__(self, kelou):
        self.kelou, self.known = kelou, {}

    def _ask(self, schedule, from_ms):
        question = {"expr": schedule["expression"], "tz": schedule.get("timezone", "UTC"), "from_ms": from_ms, "n": CRON_PAGE,
                    **{name: schedule[name] for name in ("dialect", "dst_gap", "dst_overlap") if name in schedule}}
        if question.get("dialect") == "AUTO":
            del question["dialect"]
        got = subprocess.run([self.kelou, "cron", "next"], input=json.dumps(question) + "\n", capture_output=True, text=True,
                             check=True, timeout=120)
        answer = json.loads(got.stdout)
        if "error" in answer:
            raise ValueError(f"kelou cron next: {schedule}: {answer['error']}")
        return [ms * 1000 for ms in answer["next_ms"]]

    def between(self, schedule, after, until):
        """Instants in (after, until], and one more when there is one."""
        name = json.dumps(schedule, sort_keys=True)
        start, found, ended = self.known.get(name, (None, [], False))
        if start is None or after < start:
            start, found, ended = after // 1000 * 1000 - 1000, [], False
        while not ended and (not found or found[-1] <= until):
            page = self._ask(schedule, (found[-1] if found else start) // 1000)
            found += page
            ended = len(page) < CRON_PAGE
        self.known[name] = (start, found, ended)
        low = bisect.bisect_right(found, after)
        return found[low:bisect.bisect_right(found, until) + 1]


class Instants:
    """The instants that a version of a task owns."""

    def __init__(self, crons):
        self.crons = crons

    def nominals(self, v, after, until):
        """Ascending nominal instants in (after, until] and possibly some beyond."""
        s = v.schedule
        low = max(after, (instant(s["start_at"]) if "start_at" in s else 0) - 1)
        high = min(until, instant(s["end_at"]) if "end_at" in s else NEVER)
        if low >= high:
            return []
        if v.kind == "CRON":
            return [t for t in self.crons.between(s, low, high) if t <= high]
        if v.kind == "FIXED_RATE":
            every = duration(s["every"])
            first = v.anchor if low < v.anchor else v.anchor + ((low - v.anchor) // every + 1) * every
            return list(range(first, high + 1, every))
        if v.kind == "ONE_TIME":
            return [v.anchor] if low < v.anchor <= high else []
        return []

    def jitter(self, v, nominal):
        """How much later than nominal it is due."""
        room = duration(v.schedule.get("jitter", "0s"))
        if not room:
            return 0
        if v.kind == "CRON":
            following = self.crons.between(v.schedule, nominal, nominal + 1)
            room = min(room, following[0] - nominal) if following else room
        return hash_u64(hash_u64(v.task_id) ^ nominal) * room >> 64

    def has(self, v, nominal):
        """Is this one of its instants?"""
        return self.nominals(v, nominal - 1, nominal)[:1] == [nominal]

    def due(self, v, nominal):
        """With its jitter, but not before the version rules."""
        return max(nominal + self.jitter(v, nominal), v.effective_at + 1)

    def decided(self, ruling, at, nominal):
        """What becomes of an instant that comes under the version at `at` of [(version, end)]: until it is due it goes from each to the next,
        as long as that has it, too. Its Due, or None."""
        v, end = ruling[at]
        while True:
            due = self.due(v, nominal)
            if due <= end:
                return Due(due, nominal, v.version)
            at += 1
            v, end = ruling[at]
            if not self.has(v, nominal):
                return None

    def all(self, versions, until):
        """The Dues of a task up to `until`, whether it was paused or not, by due time."""
        ruling, found = list(windows(versions)), []
        for at, (v, end) in enumerate(ruling):
            if v.kind in ("FIXED_DELAY", "MANUAL"):
                continue
            come = [t for t in self.nominals(v, v.effective_at, min(end, until)) if v.effective_at < t <= min(end, until)]
            if v.kind == "ONE_TIME" and v.version == 1 and v.anchor <= v.effective_at:
                come = [v.anchor]  # it had passed when the task was made
            found += [self.decided(ruling, at, nominal) for nominal in come]
        return sorted((d for d in found if d and d.due <= until), key=lambda d: (d.due, d.nominal))


def enabled(v):
    """While a version was in force the schedule ran (COMPLETED is what an ENABLED one becomes at its end)."""
    return v.state in ("ENABLED", "COMPLETED")


def windows(versions):
    """(version, the instant at which the next one takes over)."""
    for i, v in enumerate(versions):
        yield v, versions[i + 1].effective_at if i + 1 < len(versions) else NEVER
