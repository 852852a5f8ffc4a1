"""I6 and I7 from the database: how soon after a fault instants are fired in time again, and how late they are when all is well."""
from dataclasses import dataclass, field

LATE_US, CALM_US = 1_000_000, 2_000_000
RECOVER_SECONDS, NORMAL_AFTER_SECONDS = 10, 30
NORMAL_FACTOR, NORMAL_LEAST_MS = 3.0, 250.0  # p99 is normal up to so many times that before the first fault, or this
EXPLAINED = ("SELECT r.scheduled_at, r.fired_at FROM run_history r JOIN task_version v ON v.task_id = r.task_id AND v.version = r.version "
             "WHERE r.part = 0 AND r.origin = 0 AND r.state <> 5 AND coalesce(r.missed_count, 0) < 2 AND v.kind IN (0, 1) AND r.scheduled_at > v.effective_at + 1000000 "
             "AND r.definition_free ORDER BY 1")


@dataclass
class Life:
    """What was found."""
    wrong: list = field(default_factory=list)
    lines: list = field(default_factory=list)
    numbers: dict = field(default_factory=dict)


def p(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * q))] if values else 0


def instants(cluster):
    """(scheduled_at, lateness) of what the schedule fired, both in µs: CRON and FIXED_RATE without jitter, whose version was known for a while."""
    sql = EXPLAINED.replace("r.definition_free", "position('jitter' in v.definition::text) = 0")
    return [(int(at), int(fired) - int(at)) for at, fired in cluster.sql(sql)]


def rounds(ended):
    """[(from, until)] of the times in which something was wrong, overlapping faults together."""
    found = []
    for _, since, until in sorted(ended, key=lambda e: e[1]):
        if found and since <= found[-1][1]:
            found[-1][1] = max(found[-1][1], until)
        else:
            found.append([since, until])
    return found


def recovered(late, end, limit):
    """Seconds from `end` until two seconds follow in which nothing is late; None when the time up to `limit` does not show it."""
    last = end
    for at, by in late:
        if at > limit:
            break
        if by > LATE_US and at + by > last:  # late, and still so when it was fired
            if at > last + CALM_US:
                break
            last = max(last, at)
    return (last - end) / 1e6 if last + CALM_US <= limit else None


def alive(cluster, ended, lease):
    found, all_of = Life(), instants(cluster)
    if not all_of:
        found.wrong.append("nothing was fired")
        return found
    bad, finish = rounds(ended), all_of[-1][0]
    first = bad[0][0] if bad else finish
    before = [late / 1000 for at, late in all_of if at + late < first]
    normal = max(NORMAL_LEAST_MS, NORMAL_FACTOR * p(before, .99))
    took, judged = [], 0
    for i, (since, until) in enumerate(bad):
        limit = bad[i + 1][0] if i + 1 < len(bad) else finish
        late = [(at, by) for at, by in all_of if since <= at <= limit and by > LATE_US and at + by > until]
        seconds = recovered(late, until, limit)
        if seconds is not None:
            took.append(seconds)
        elif limit - until > (lease + RECOVER_SECONDS) * 1e6 + CALM_US:
            seconds = (limit - until) / 1e6
        if seconds is not None and seconds > lease + RECOVER_SECONDS:
            found.wrong.append(f"I6: {seconds:.1f} s until it was fired in time again, after what ended at {until} "
                               f"({', '.join(str(s) for s, a, b in ended if a >= since and b <= until)})")
        calm = [by / 1000 for at, by in all_of if until + NORMAL_AFTER_SECONDS * 1_000_000 <= at <= limit]
        if len(calm) > 100:
            judged += 1
            if p(calm, .99) > normal:
                found.wrong.append(f"I7: p99 {p(calm, .99):.0f} ms 30 s after what ended at {until}; normal is up to {normal:.0f} ms")
    span = max(1.0, (finish - all_of[0][0]) / 1e6)
    found.numbers = {"fires a second": round(len(all_of) / span), "p99 ms before the first fault": round(p(before, .99), 1),
                     "rounds of faults": len(bad), "rounds judged for I6": len(took), "rounds judged for I7": judged}
    if took:
        found.lines.append(f"I6: in time again after {p(took, .5):.1f} s in the middle, {max(took):.1f} s at worst (bound {lease + RECOVER_SECONDS:.0f} s)")
    found.lines.append(f"lateness over all: p50 {p([x for _, x in all_of], .5) / 1000:.1f} ms, p99 {p([x for _, x in all_of], .99) / 1000:.0f} ms, "
                       f"most {max(x for _, x in all_of) / 1000:.0f} ms")
    return found
