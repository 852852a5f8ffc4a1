"""Two nodes on one PostgreSQL beside one: what a life costs, and how late instants are."""
from tests.bench import measure
from tests.bench.stage import Stage, wait_until

RATIO_MOST, MIDDLE_MS, MOST_MS = 1.15, 2, 10
KEPT = ("node_us", "database_us", "executors_us", "rss_mb", "bytes")


def window(server, count, tasks, rate, seconds):
    """Offer `rate` lives a second to so many nodes, two executors, one registered at each end."""
    with Stage("postgres", server, executors=2, inline=False, nodes=count) as s:
        wait_until(s.make_rate(tasks, rate) + 3_000_000)
        before = s.counted()
        w = s.window(seconds)
        after = s.counted()
        w["committed"] = [measure.quantile(before, after, "kelou_fire_lateness_seconds", q) for q in (.5, .99)]
        late = s.finish()
        w["accepted"] = [late[q] for q in ("p50_ms", "p99_ms", "p999_ms", "max_ms")]
        w["decided"] = s.database.decided(w["low"], w["high"] - 1_000_000)
    return w


def row(w, what, asked, reached, ok):
    return {"what": what, "asked": asked, "reached": reached, "ok": ok, **{k: w[k] for k in (*KEPT, "decided", "accepted")}}


def nodes(server, short):
    """The same offer to one node and to two, in turn; then 1,000 fires a second."""
    seconds, rate, found = (4 if short else 12), 4_000, []
    one, two = (window(server, n, 8_000, rate, seconds) for n in (1, 2))
    cost = [w["node_us"] + w["database_us"] for w in (one, two)]
    ratio = cost[1] / cost[0]
    for w, count, us in ((one, "one node", cost[0]), (two, "two nodes", cost[1])):
        found.append(row(w, f"PostgreSQL, {count}, {rate:,} lives/s", "" if w is one else f"CPU per life ≤ {RATIO_MOST} × that of one",
                         f"{w['lives_s']:,.0f} lives/s, {us:.0f} µs" + ("" if w is one else f": {ratio:.2f} ×"), w is one or ratio <= RATIO_MOST))
    for count in (1, 2):
        w = window(server, count, 4_000, 1_000, seconds)
        p50, p99 = w["committed"]
        found.append(row(w, f"PostgreSQL, {'one node' if count == 1 else 'two nodes'}, lateness at 1,000 fires/s",
                         f"committed p50 ≤ {MIDDLE_MS} ms, p99 ≤ {MOST_MS} ms", f"committed p50 {p50:.1f} ms, p99 {p99:.1f} ms",
                         p50 <= MIDDLE_MS and p99 <= MOST_MS))
    return found
