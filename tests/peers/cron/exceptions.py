"""Where the peers are known to differ from the specification, each class with its reason and a narrow predicate.

A reading flaw of Quartz is described by the expression that Quartz acts on (as_quartz_reads): its answer must be
kelou's answer to that other expression, so the class covers nothing but the flaw itself. What remains may differ
only inside the hours of a jump of the zone, or where Java's zone data differ. For croniter the same.
"""

import bisect
import datetime as dt
import re
import zoneinfo

import brute

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
ANSWERS = 5  # next instants asked for in every case
QUARTZ_LAST_YEAR = dt.date.today().year + 100

REASONS = {
    "quartz-step-after-name": "Quartz ignores a step behind a name (JAN/3, MON-FRI/2); here it works as written",
    "quartz-smallest-W-day": "in a list with nW Quartz uses only the smallest day, as a nearest weekday",
    "quartz-smallest-#-day": "in a list with n#k Quartz uses only the smallest day, with that k",
    "quartz-refuses-list": "Quartz refuses L or a second # in a list; here it works as written",
    "quartz-W-outside-month": "Quartz moves a nearest weekday that the month lacks (31W in June) to its last day",
    "quartz-W-milliseconds": "asked with a fraction of a second, Quartz compares it with that of the clock on the wall, "
                             "and leaves the day of a W whose next instant is the next second",
    "quartz-endless-loop": "Quartz never answers: L-nW in a month without that day, or a W day whose midnight is in a gap",
    "quartz-year-bound": "Quartz knows no year after the running year + 100; here the last year is 2199",
    "quartz-dst": "Quartz shifts local times out of a gap and fires ambiguous ones in the second copy; here the AUTO rule",
    "quartz-loses-day": "Quartz loses the local day after a gap that touches midnight, and as much of the next as the gap",
    "quartz-zone-data": "Java's zone has another offset than the system's zoneinfo at that instant",
    "quartz-never-fires": "Quartz accepts an expression that never fires; here it is refused",
    "croniter-star-step": "both day fields set, one of them *, */n: croniter says OR, cronie and the specification AND",
    "croniter-after-short-month": "after a month that lacks a listed day croniter skips the first days of the next month",
    "croniter-full-is-star": "croniter takes a day field that lists every day for *; cronie looks only at the character *",
}


def _as_quartz_reads_dow(schedule):
    text = schedule.field["dow"].upper()
    items = text.split(",")
    if len(items) > 1 and ("L" in text or text.count("#") > 1):
        return None, {"quartz-refuses-list"}
    tags = set()
    read = [re.sub(r"^([A-Z].*)/[0-9]+$", r"\1", item) for item in items]
    if read != items:
        tags.add("quartz-step-after-name")
    if len(items) > 1 and "#" in text:
        tags.add("quartz-smallest-#-day")
        days = [d for item in read for d in schedule.numbers("dow", item.split("#")[0])]
        read = [f"{min(days)}#{text.partition('#')[2][0]}"]
    return ",".join(read), tags


def _as_quartz_reads_dom(schedule):
    text = schedule.field["dom"].upper()
    items = text.split(",")
    if len(items) > 1 and "L" in text:
        return None, {"quartz-refuses-list"}
    if len(items) > 1 and "W" in text:
        days = [d for item in items for d in schedule.numbers("dom", item.rstrip("W"))]
        return f"{min(days)}W", {"quartz-smallest-W-day"}
    return text, set()


def as_quartz_reads(schedule):
    """(the expression Quartz acts on, or None when it refuses; the names of the flaws that apply)"""
    field = dict(schedule.field)
    months = field["month"].upper().split(",")
    read = [re.sub(r"^([A-Z].*)/[0-9]+$", r"\1", item) for item in months]
    tags = {"quartz-step-after-name"} if read != months else set()
    dom, dom_tags = _as_quartz_reads_dom(schedule)
    dow, dow_tags = _as_quartz_reads_dow(schedule)
    tags |= dom_tags | dow_tags
    if dom is None or dow is None:
        return None, {"quartz-refuses-list"}
    field.update(month=",".join(read), dom=dom, dow=dow)
    if not tags:
        return schedule.text, tags
    return " ".join(field[n] for n in ("second", "minute", "hour", "dom", "month", "dow", "year")), tags


def weekday_outside_month(text):
    """How Quartz is asked for the weekday nearest to a day that some month does not have: "nW", "L-nW" or ""."""
    dom = text.split()[3].upper()
    m = re.fullmatch("(?:L-)?([0-9]+)W", dom)
    if not m or int(m[1]) < (28 if dom.startswith("L") else 29):
        return ""
    return "L-nW" if dom.startswith("L") else "nW"


def moved_to_last_day(text, tz, ms):
    """Is it the last day of a month, a Friday, while the day of nW would be the Saturday after it?"""
    day = dt.datetime.fromtimestamp(ms // 1000, zoneinfo.ZoneInfo(tz)).date()
    return (weekday_outside_month(text) == "nW" and day.isoweekday() == 5 and day.day == brute.days_in(day)
            and int(text.split()[3].upper().rstrip("W")) == day.day + 1)


def left_the_day(case, text, ours, ms):
    """Is it on the day of the very next second, which Quartz may leave because of the fraction of `from`?"""
    if ms not in ours:
        return False
    zone = zoneinfo.ZoneInfo(case.tz)
    first, this = (dt.datetime.fromtimestamp(at // 1000, zone).date() for at in (ours[0], ms))
    return ("W" in text.split()[3].upper() and case.from_ms % 1000 != 0
            and ours[0] == case.from_ms // 1000 * 1000 + 1000 and first == this)


def endless(case, text, zones):
    """Does Quartz look for the weekday nearest to a day that is not there: none in the month, or no midnight in the zone?"""
    if weekday_outside_month(text) == "L-nW":
        return True
    if "W" not in text.split()[3].upper():
        return False
    rules = brute.Schedule(text, "QUARTZ").dom
    return any(rule(day) for day in zones.midnights_in_gaps(case.tz, case.from_ms) for rule in rules)


class Zones:
    """The changes of offset of each zone, as zoneinfo and as Java have them."""

    def __init__(self, system, java):
        self.system, self.java = system, java

    @staticmethod
    def _at(changes, ms):
        return changes[max(0, bisect.bisect_right(changes, (ms, 1 << 60)) - 1)][1]

    def differ(self, tz, ms):
        """Has Java another offset for this instant, or for the same time of the day some hours around it?"""
        return any(self._at(self.system[tz], ms + h * HOUR_MS) != self._at(self.java[tz], ms + h * HOUR_MS)
                   for h in (-3, -1, 0, 1, 3))

    def near_jump(self, tz, ms):
        """Is the instant less than the size of the jump away from a change of offset?"""
        changes = self.system[tz]
        i = bisect.bisect_right(changes, (ms, 1 << 60))
        for k in (i - 1, i):
            if 1 <= k < len(changes):
                at, jump = changes[k][0], changes[k][1] - changes[k - 1][1]
                if at - abs(jump) <= ms < at + abs(jump):
                    return True
        return False

    def midnights_in_gaps(self, tz, from_ms):
        """The dates without a midnight from the day before an instant on."""
        changes = self.system[tz]
        for (_, before), (at, after) in zip(changes, changes[1:]):
            if after > before and at > from_ms - DAY_MS:
                midnight = -((-at - before) // DAY_MS) * DAY_MS  # the first at or after the start of the gap
                while midnight < at + after:
                    yield (brute.EPOCH + dt.timedelta(milliseconds=midnight)).date()
                    midnight += DAY_MS

    def day_after_midnight_gap(self, tz, ms):
        """Is it in the local day on which a gap ended that touches midnight, or in the jump's size of the next day?"""
        changes = self.system[tz]
        i = bisect.bisect_right(changes, (ms, 1 << 60)) - 1
        if i < 1 or changes[i][1] < changes[i - 1][1]:
            return False
        at, before, after = changes[i][0], changes[i - 1][1], changes[i][1]
        midnight = (at + after) // DAY_MS * DAY_MS  # of the local day on which the gap ended
        return at + before <= midnight <= ms + after < midnight + DAY_MS + after - before


def differing(ours, theirs):
    """The instants that only one list has, as far as both lists reach (a short list is a schedule that ended)."""
    horizon = min(answers[-1] if len(answers) == ANSWERS else 1 << 62 for answers in (ours, theirs))
    return [ms for ms in sorted(set(ours) ^ set(theirs)) if ms <= horizon]


def after_last_year(ms):
    return (brute.EPOCH + dt.timedelta(milliseconds=ms)).year > QUARTZ_LAST_YEAR


def explain_quartz(case, text, ours, theirs, zones):
    """The classes that explain why Quartz answers otherwise than kelou does to what Quartz reads; None if nothing does."""
    if theirs == "TIMEOUT":
        return {"quartz-endless-loop"} if endless(case, text, zones) else None
    if isinstance(theirs, str):
        return None
    tags = set()
    if isinstance(ours, dict):
        tags.add("quartz-never-fires")
        ours = []
    if any(after_last_year(ms) for ms in ours):
        tags.add("quartz-year-bound")
        ours = [ms for ms in ours if not after_last_year(ms)]
    for ms in differing(ours, theirs):
        if ms in theirs and moved_to_last_day(text, case.tz, ms):
            tags.add("quartz-W-outside-month")
        elif zones.near_jump(case.tz, ms):
            tags.add("quartz-dst")
        elif ms in ours and zones.day_after_midnight_gap(case.tz, ms):
            tags.add("quartz-loses-day")
        elif left_the_day(case, text, ours, ms):
            tags.add("quartz-W-milliseconds")
        elif zones.differ(case.tz, ms):
            tags.add("quartz-zone-data")
        else:
            return None
    return tags


def as_croniter_reads(schedule):
    """(the expression croniter acts on, the names of the flaws that apply)"""
    field, tags = dict(schedule.field), set()
    for name, high, whole in (("dom", 31, set(range(1, 32))), ("dow", 7, set(range(7)))):
        values = set().union(*(schedule.numbers(name, item) for item in field[name].split(",")))
        if name == "dow":
            values = {v % 7 for v in values}
        if values == whole:
            if field[name] != "*":
                tags.add("croniter-full-is-star")
            field[name] = "*"
        elif field[name].startswith("*"):
            tags.add("croniter-star-step")
            field[name] = f"{min(whole)}-{high}" + field[name][1:]
    return " ".join(field[n] for n in ("minute", "hour", "dom", "month", "dow")), tags


def explain_croniter(text, ours, theirs):
    """The classes that explain why croniter answers otherwise than kelou does to what croniter reads; None if nothing does."""
    if isinstance(ours, dict) and isinstance(theirs, str):
        return set()
    if isinstance(ours, dict) or isinstance(theirs, str):
        return None
    schedule = brute.Schedule(text, "UNIX")
    dom = schedule.field["dom"]
    last = 0 if dom == "*" else max(max(schedule.numbers("dom", item)) for item in dom.split(","))
    for ms in differing(ours, theirs):
        day = (brute.EPOCH + dt.timedelta(milliseconds=ms)).date()
        days_before = brute.days_in(day.replace(day=1) - dt.timedelta(days=1))
        if ms in theirs or day.day >= last - days_before:
            return None
    return set() if ours == theirs else {"croniter-after-short-month"}
