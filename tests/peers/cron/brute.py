"""A brute-force evaluator of the cron schedules, written from the specification only (semantics, "Schedules").

It is the judge: slow, naive, without a line shared with the C code. It walks day by day over the local
calendar, lists every local time of the schedule on that day, and asks the zone what instants that local
time has: one, none (a gap) or two (an overlap).
"""

import calendar
import datetime as dt
import re

MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
DAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
FIRST_YEAR, LAST_YEAR = 1970, 2199
LONGEST_JUMP = 3 * 3600  # a jump of three hours or more gets no make-up under AUTO
EPOCH = dt.datetime(1970, 1, 1)
SECOND = dt.timedelta(seconds=1)
MACROS = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}
# field -> (lowest, highest, largest step, names, number of the first name)
QUARTZ_FIELDS = {
    "second": (0, 59, 59, [], 0), "minute": (0, 59, 59, [], 0), "hour": (0, 23, 23, [], 0),
    "dom": (1, 31, 31, [], 0), "month": (1, 12, 12, MONTHS, 1), "dow": (1, 7, 7, DAYS, 1),
    "year": (FIRST_YEAR, LAST_YEAR, LAST_YEAR - FIRST_YEAR, [], 0),
}
UNIX_FIELDS = dict(QUARTZ_FIELDS, dow=(0, 7, 7, DAYS, 0))


class Refused(Exception):
    """The expression is wrong, or never fires."""


class Schedule:
    """One parsed expression: sets of numbers, and a list of rules for each of the two day fields."""

    def __init__(self, text, dialect):
        self.text = text
        fields = MACROS.get(text.lower(), text).split()
        self.dialect = dialect if not text.startswith("@") else "UNIX"
        if self.dialect == "QUARTZ" and len(fields) in (6, 7):
            names = ["second", "minute", "hour", "dom", "month", "dow", "year"]
            fields = fields + ["*"] * (7 - len(fields))
        elif self.dialect == "UNIX" and len(fields) == 5:
            names = ["second", "minute", "hour", "dom", "month", "dow", "year"]
            fields = ["0"] + fields + ["*"]
        else:
            raise Refused("number of fields")
        self.field = dict(zip(names, fields))
        plain = {n: self._plain(n) for n in ("second", "minute", "hour", "month", "year")}
        self.seconds, self.minutes, self.hours = (sorted(plain[n]) for n in ("second", "minute", "hour"))
        self.months, self.years = plain["month"], plain["year"]
        self.dom, self.dow = self._day_rules("dom"), self._day_rules("dow")
        if self.dialect == "QUARTZ" and (self.dom is None) == (self.dow is None):
            raise Refused("exactly one of the day fields must be ?")

    def _value(self, name, text):
        low, high, _, names, first = (QUARTZ_FIELDS if self.dialect == "QUARTZ" else UNIX_FIELDS)[name]
        if text.upper() in names:
            return names.index(text.upper()) + first
        if not re.fullmatch("[0-9]+", text) or not low <= int(text) <= high:
            raise Refused(f"{name}: {text}")
        return int(text)

    def numbers(self, name, text):
        """The numbers that one member of a list means: *, a, a-b, each with an optional step."""
        low, high, max_step, _, _ = (QUARTZ_FIELDS if self.dialect == "QUARTZ" else UNIX_FIELDS)[name]
        body, slash, step = text.partition("/")
        if slash and (not re.fullmatch("[0-9]+", step) or not 1 <= int(step) <= max_step):
            raise Refused(f"{name}: step {step}")
        start, dash, stop = body.partition("-")
        if body == "*":
            first, last = low, high
        elif dash:
            first, last = self._value(name, start), self._value(name, stop)
        else:
            first = self._value(name, start)
            if slash and self.dialect == "UNIX":
                raise Refused(f"{name}: a step needs a range or *")
            last = high if slash else first
        if first > last:
            if self.dialect == "UNIX" or name == "year":
                raise Refused(f"{name}: backward range")
            last += high - low + 1  # a range that wraps around
        return {(n - low) % (high - low + 1) + low for n in range(first, last + 1, int(step or 1))}

    def _plain(self, name):
        return set().union(*(self.numbers(name, t) for t in self.field[name].split(",")))

    def _day_rules(self, name):
        """None for ?, else a list of predicates over a date; one of them must hold."""
        text = self.field[name].upper()
        if text == "?" and self.dialect == "QUARTZ":
            return None
        return [self._day_rule(name, item) for item in text.split(",")]

    def _day_rule(self, name, item):
        special = None
        if self.dialect == "QUARTZ":
            special = self._special_dom(item) if name == "dom" else self._special_dow(item)
        if special:
            return special
        values = self.numbers(name, item)
        if name == "dom":
            return lambda d: d.day in values
        zero_based = {(v - 1 if self.dialect == "QUARTZ" else v) % 7 for v in values}  # 0 = Sunday
        return lambda d: d.isoweekday() % 7 in zero_based

    def _special_dom(self, item):
        m = re.fullmatch(r"L(?:-([0-9]+))?(W?)", item)
        if m:
            back = int(m[1] or 0)
            if back > 30:
                raise Refused("dom: L-" + m[1])
            if m[2]:
                return lambda d: d.day == nearest_weekday(d.year, d.month, days_in(d) - back)
            return lambda d: d.day == days_in(d) - back
        m = re.fullmatch("([0-9]+)W", item)
        if m:
            day = self._value("dom", m[1])
            return lambda d: d.day == nearest_weekday(d.year, d.month, day)
        return None

    def _special_dow(self, item):
        if item == "L":
            return lambda d: d.isoweekday() == 6
        m = re.fullmatch("([0-9A-Z]+)L", item)
        if m:
            day = self._value("dow", m[1]) - 1
            return lambda d: d.isoweekday() % 7 == day and d.day + 7 > days_in(d)
        m = re.fullmatch("([0-9A-Z]+)#([0-9]+)", item)
        if m:
            day, nth = self._value("dow", m[1]) - 1, int(m[2])
            if not 1 <= nth <= 5:
                raise Refused("dow: #" + m[2])
            return lambda d: d.isoweekday() % 7 == day and (d.day - 1) // 7 + 1 == nth
        return None

    def day_matches(self, d):
        if d.year not in self.years or d.month not in self.months:
            return False
        dom = self.dom is not None and any(rule(d) for rule in self.dom)
        dow = self.dow is not None and any(rule(d) for rule in self.dow)
        if self.dialect == "QUARTZ":
            return dom or dow
        if self.field["dom"].startswith("*") or self.field["dow"].startswith("*"):
            return dom and dow  # cronie: a field that starts with * restricts nothing by itself
        return dom or dow

    def matches(self, t):
        """Does this local time belong to the schedule?"""
        return (self.day_matches(t.date()) and t.hour in self.hours and t.minute in self.minutes
                and t.second in self.seconds)

    def days_from(self, start):
        """Every date of the schedule from start to the end of the last year."""
        year, month, day = max((start.year, start.month, start.day), (FIRST_YEAR, 1, 1))
        while year <= LAST_YEAR:
            if year in self.years and month in self.months:
                for n in range(day, calendar.monthrange(year, month)[1] + 1):
                    if self.day_matches(dt.date(year, month, n)):
                        yield dt.date(year, month, n)
            year, month, day = (year, month + 1, 1) if month < 12 else (year + 1, 1, 1)

    def times_from(self, lowest):
        """Every local time of the schedule from lowest on, in order."""
        for d in self.days_from(lowest.date()):
            for hour in self.hours:
                if dt.datetime(d.year, d.month, d.day, hour, 59, 59) < lowest:
                    continue
                for minute in self.minutes:
                    for second in self.seconds:
                        t = dt.datetime(d.year, d.month, d.day, hour, minute, second)
                        if t >= lowest:
                            yield t

    def ever_fires(self):
        return next(self.days_from(dt.date(FIRST_YEAR, 1, 1)), None) is not None

    def has_local(self, low, high):
        """Is there a local time of the schedule in [low, high)?"""
        first = next(self.times_from(low), None)
        return first is not None and first < high


def days_in(d):
    return calendar.monthrange(d.year, d.month)[1]


def nearest_weekday(year, month, day):
    """The day of the month of the working day nearest to a day, never leaving the month; 0 when there is none."""
    last = calendar.monthrange(year, month)[1]
    if not 1 <= day <= last:
        return 0
    weekday = dt.date(year, month, day).isoweekday()
    if weekday == 6:
        return day - 1 if day > 1 else day + 2
    if weekday == 7:
        return day + 1 if day < last else day - 2
    return day


def utc_offset(zone, utc):
    """Offset at an instant given as a naive UTC datetime."""
    return utc.replace(tzinfo=dt.timezone.utc).astimezone(zone).utcoffset()


def transition_between(zone, before, after):
    """The first instant in (before, after] at which the zone no longer has the offset it has at before."""
    old = utc_offset(zone, before)
    low, high = 0, int((after - before).total_seconds())
    while high - low > 1:
        middle = (low + high) // 2
        if utc_offset(zone, before + middle * SECOND) == old:
            low = middle
        else:
            high = middle
    return before + high * SECOND


def gap_instants(schedule, zone, t, offsets, rule):
    """A local time that does not exist: the offset before the jump is offsets[0], after it offsets[1]."""
    jump = offsets[1] - offsets[0]
    first_after = transition_between(zone, t - offsets[1], t - offsets[0])
    gap_start = first_after + offsets[0]
    if rule == "SKIP":
        return []
    if rule == "ONCE_AFTER":
        return [first_after]
    if rule == "SHIFT":
        return [t - offsets[0]]
    if jump.total_seconds() >= LONGEST_JUMP:
        return []
    return [] if schedule.has_local(gap_start + jump, gap_start + 2 * jump) else [first_after]


def overlap_instants(schedule, zone, t, offsets, rule):
    """A local time that comes twice: first with offsets[0], then with offsets[1]."""
    copies = [t - offsets[0], t - offsets[1]]
    if rule == "FIRST":
        return copies[:1]
    if rule == "LAST":
        return copies[1:]
    if rule == "BOTH":
        return copies
    jump = offsets[0] - offsets[1]
    start = transition_between(zone, copies[0], copies[1]) + offsets[1]
    both = (jump.total_seconds() < LONGEST_JUMP and schedule.has_local(start - jump, start)
            and schedule.has_local(start + jump, start + 2 * jump))
    return copies if both else copies[:1]


def instants_of(schedule, zone, t, gap, overlap):
    """All instants (naive UTC) at which a local time of the schedule fires."""
    offsets = [t.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1)]
    if offsets[0] == offsets[1]:
        return [t - offsets[0]]
    if offsets[0] < offsets[1]:
        return gap_instants(schedule, zone, t, offsets, gap)
    return overlap_instants(schedule, zone, t, offsets, overlap)


def to_ms(utc):
    return (utc - EPOCH) // SECOND * 1000


def offsets_around(zone, utc):
    """The smallest offset in the two days before and after, and the size of all jumps there."""
    offsets = [utc_offset(zone, utc + dt.timedelta(hours=h)) for h in range(-48, 49)]
    return min(offsets), max(offsets) - min(offsets)


def next_instants(schedule, zone, from_ms, n, gap="AUTO", overlap="AUTO"):
    """The next n instants strictly after from_ms, in milliseconds; fewer when the schedule ends."""
    start = EPOCH + dt.timedelta(milliseconds=from_ms)
    earliest, jumps = offsets_around(zone, start)
    found = set()
    limit = None
    for t in schedule.times_from(start.replace(microsecond=0) + earliest - jumps):
        if limit is not None and t > limit:
            break
        found.update(ms for ms in map(to_ms, instants_of(schedule, zone, t, gap, overlap)) if ms > from_ms)
        if limit is None and len(found) >= n:  # a jump may put a later local time before one already found
            limit = t + 2 * offsets_around(zone, t)[1]
    return sorted(found)[:n]
