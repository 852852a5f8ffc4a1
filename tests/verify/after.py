"""After-tasks (docs/semantics.md, section 5): each end that counts leads to one run of the child (ANY), or is part of one (ALL)."""
import json
from collections import Counter, defaultdict

from .instants import hash_u64
from .rules import DOUBLED, LOST
from .tables import ENDED, run_key

ENDS = {"SUCCESS": ("SUCCESS",), "FAIL": ("FAIL",), "ANY": ("SUCCESS", "FAIL", "CANCELLED")}


class After:
    """The children of one database. What depended on what never changes here but by making and deleting a child."""

    def __init__(self, rules):
        self.r, self.t, self.f = rules, rules.t, rules.f
        self.ids = {v.place: v.task_id for vs in self.t.versions.values() for v in vs}

    def check(self):
        for task_id, versions in sorted(self.t.versions.items()):
            wanted = [v.definition.get("depends_on") for v in versions]
            if any(wanted) and all(w == wanted[0] for w in wanted):
                self.child(task_id, versions, wanted[0])

    def child(self, task_id, versions, wanted):
        parents = [self.ids.get((versions[0].place[0], name)) for name in wanted["tasks"]]
        states = ENDS[wanted.get("ends", "SUCCESS")]
        ends = {r.key: r for p in parents for r in self.r.runs_of.get(p, ()) if r.state in states and r.state in ENDED}
        rows = [r for r in self.r.runs_of[task_id] if r.origin == "DEPENDENCY"]
        must = {key for key, r in ends.items() if self.must(r, task_id, versions)}
        times = Counter(run_key(r.origin_run) for r in rows)
        self.f.instants += len(must)
        for key, n in times.items():
            if n > 1:
                self.f.add(DOUBLED, f"task {task_id}: {n} runs after the end of {key}", n - 1)
            if key not in ends:
                self.f.add(DOUBLED, f"task {task_id}: a run after {key}, which did not end as it asks")
        if wanted.get("mode", "ALL") == "ANY":
            for key in sorted(must - set(times)):
                self.f.add(LOST, f"task {task_id}: no run after the end of {ends[key]}, which ended at {ends[key].finished_at}")
        else:
            self.collected(task_id, versions, rows, ends, must)

    def must(self, end, task_id, versions):
        """The child was there when it was written, and is not paused or deleted before it can have been taken in."""
        if end.finished_at <= versions[0].effective_at or (end.scheduled_at, end.task_id, end.part) in self.t.events:
            return False
        until = end.finished_at + self.r.o.grace
        if any(v.state in ("PAUSED", "DELETED") and v.effective_at <= until and later > end.finished_at for v, later in lives(versions)):
            return False
        return not self.t.inbox.get(hash_u64(task_id) % max(1, len(self.t.shards)))

    def collected(self, task_id, versions, rows, ends, must):
        """ALL: of each parent, what was told and what is kept are its ends."""
        told = defaultdict(int)
        for r in rows:
            for p in json.loads(r.payload)["parents"] if r.payload else ():
                told[run_key(p["run_id"])[2]] += p.get("ends", 1)
        paused = any(v.state != "ENABLED" for v in versions) or any(not r.payload for r in rows)
        for parent in sorted({key[2] for key in ends}):
            have = told[parent] + self.t.kept.get((task_id, parent), 0)
            most, least = (sum(key[2] == parent for key in keys) for keys in (ends, must))
            if have > most:
                self.f.add(DOUBLED, f"task {task_id}: stands for {have} ends of task {parent}, there were {most}", have - most)
            elif have < least and not paused:
                self.f.add(LOST, f"task {task_id}: stands for {have} ends of task {parent}, {least} count", least - have)


def lives(versions):
    """(version, until when it was in force)"""
    return zip(versions, [v.effective_at for v in versions[1:]] + [1 << 62])
