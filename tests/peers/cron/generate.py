"""Random cron expressions of both dialects, random wrong ones, zones and instants; all from one seed."""

import datetime as dt
import random
import zoneinfo

from brute import DAYS, EPOCH, MONTHS, utc_offset

# Zones that have something of their own: half-hour and two-hour jumps, gaps at midnight, lost days, odd offsets.
SPECIAL_ZONES = [
    "UTC", "America/New_York", "Europe/London", "Europe/Dublin", "Australia/Lord_Howe", "America/Sao_Paulo",
    "Asia/Beirut", "America/St_Johns", "Antarctica/Troll", "Asia/Kathmandu", "Pacific/Apia", "Africa/Casablanca",
    "Antarctica/Casey",
]
SECOND_CHANCE = ["America/Havana", "America/Santiago", "Asia/Tehran", "Pacific/Chatham", "Asia/Gaza",
                 "America/Scoresbysund", "America/Caracas", "Asia/Pyongyang", "Asia/Shanghai", "Asia/Amman"]
FROM_YEAR, TO_YEAR = 1990, 2060
START_MS = int((dt.datetime(FROM_YEAR, 1, 1) - EPOCH).total_seconds()) * 1000
END_MS = int((dt.datetime(TO_YEAR, 12, 31) - EPOCH).total_seconds()) * 1000
DAY_MS = 86_400_000
TABLE_END_MS = int((dt.datetime(dt.date.today().year + 101, 1, 3) - EPOCH).total_seconds()) * 1000  # Quartz knows no later year


def zones(rng, count):
    """The special zones, some of the second list, the rest drawn from all zones of the system."""
    real = sorted(z for z in zoneinfo.available_timezones() if "/" in z and not z.startswith(("Etc/", "System")))
    wanted = list(SPECIAL_ZONES)[:count]
    rng.shuffle(extra := list(SECOND_CHANCE))
    wanted += extra[:max(0, (count - len(wanted)) // 2)]
    while len(wanted) < count:
        zone = rng.choice(real)
        if zone not in wanted:
            wanted.append(zone)
    return wanted


def transitions(zone, start_ms=START_MS, end_ms=TABLE_END_MS):
    """[(ms, offset after it in ms)], the first entry being start_ms itself; found by looking at every day."""
    def offset(ms):
        return utc_offset(zone, EPOCH + dt.timedelta(milliseconds=ms)) // dt.timedelta(milliseconds=1)
    found = [(start_ms, offset(start_ms))]
    for day in range(start_ms, end_ms, DAY_MS):
        old = found[-1][1]
        if offset(day + DAY_MS) != old:
            low, high = day, day + DAY_MS
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(middle) == old else (low, middle)
            found.append((high, offset(high)))
    return found


def changes_asked(changes):
    """The changes of offset in the years that are asked about."""
    return [change for change in changes[1:] if change[0] < END_MS]


def instant(rng, changes):
    """A random instant; in most cases shortly before (sometimes shortly after) a change of the zone's offset."""
    if changes_asked(changes) and rng.random() < 0.65:
        at = rng.choice(changes_asked(changes))[0]
        back = rng.choice([1, 1000, 1001, 60_000, 1_800_000, 3_600_000, 7_200_000, 10_800_000, 86_400_000])
        return at - rng.randrange(back) - 1 if rng.random() < 0.85 else at + rng.randrange(back)
    ms = rng.randrange(START_MS, END_MS)
    return ms if rng.random() < 0.5 else ms // 1000 * 1000


class Expressions:
    """A stream of expressions. One in two thirds of the time fires often enough to meet a change of offset."""

    def __init__(self, rng):
        self.rng = rng

    def quartz(self):
        rng = self.rng
        kind = rng.random()
        if kind < 0.25:  # every day, at night: where the zones jump
            return f"{self._few(0, 59)} {self._few(0, 59)} {self._night()} {self._any_day()}"
        if kind < 0.45:  # a cadence
            return f"{rng.choice(['0', '30', self._steps(0, 59)])} {self._cadence(59)} {self._cadence(23)} {self._any_day()}"
        day, weekday = (self._dom(), "?") if rng.random() < 0.55 else ("?", self._dow_quartz())
        parts = [self._list(0, 59), self._list(0, 59), self._list(0, 23), day, self._month(True), weekday]
        if rng.random() < 0.25:
            parts.append(self._year())
        return " ".join(parts)

    def unix(self):
        rng = self.rng
        kind = rng.random()
        if kind < 0.02:
            return rng.choice(["@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"])
        if kind < 0.3:
            return f"{self._few(0, 59)} {self._night()} * * *"
        if kind < 0.5:
            return f"{self._cadence(59)} {self._cadence(23)} * * *"
        dom = rng.choice(["*", "*", "*/" + str(rng.randint(2, 15)), self._list(1, 31, False), self._list(1, 31, False)])
        dow = rng.choice(["*", "*", "*/" + str(rng.randint(2, 6)), self._dow_unix(), self._dow_unix()])
        return " ".join([self._list(0, 59, False), self._list(0, 23, False), dom, self._month(False), dow])

    def _any_day(self):
        return self.rng.choice(["* * ?", "? * *", "*/1 * ?", "? * 1-7", "1-31 * ?", "* 1-12 ?", "? * SUN-SAT"])

    def _night(self):
        rng = self.rng
        return rng.choice([str(rng.randint(0, 3)), str(rng.randint(0, 3)), "0,2", "1-3", "2-3", "0", "1", "2", "3"])

    def _few(self, low, high):
        rng = self.rng
        return rng.choice(["0", "0", str(rng.randint(low, high)), ",".join(
            str(rng.randint(low, high)) for _ in range(rng.randint(1, 3)))])

    def _steps(self, low, high):
        rng = self.rng
        return f"*/{rng.choice([2, 5, 10, 15, 20, 30, rng.randint(1, high)])}"

    def _cadence(self, high):
        rng = self.rng
        if high == 23:
            return rng.choice(["*", "*", "*", "*/2", "*/3", "0-6", "0-5/2", f"*/{rng.randint(1, 12)}"])
        return rng.choice(["*", "0", "0,30", "*/15", "*/5", "*/20", "0-30/10", str(rng.randint(0, 59))])

    def _range(self, low, high, quartz):
        a, b = self.rng.randint(low, high), self.rng.randint(low, high)
        return f"{a}-{b}" if quartz else f"{min(a, b)}-{max(a, b)}"

    def _item(self, low, high, quartz=True):
        rng = self.rng
        step = rng.randint(1, high if rng.random() < 0.3 else max(2, high // 4))
        kind = rng.random()
        if kind < 0.5:
            return str(rng.randint(low, high))
        if kind < 0.7:
            return self._range(low, high, quartz)
        if kind < 0.85:
            return f"{self._range(low, high, quartz)}/{step}"
        return f"{rng.randint(low, high)}/{step}" if quartz and kind < 0.93 else f"*/{step}"

    def _list(self, low, high, quartz=True):
        rng = self.rng
        if rng.random() < 0.2:
            return "*"
        return ",".join(self._item(low, high, quartz) for _ in range(rng.choice([1, 1, 1, 2, 2, 3, 5])))

    def _name(self, names):
        name = self.rng.choice(names)
        return self.rng.choice([name, name, name.lower(), name.capitalize()])

    def _named_item(self, names, quartz):
        rng = self.rng
        a, b = self._name(names), self._name(names)
        if not quartz and names.index(a.upper()) > names.index(b.upper()):
            a, b = b, a
        kind = rng.random()
        if kind < 0.5:
            return a
        if kind < 0.8:
            return f"{a}-{b}"
        step = rng.randint(1, 4)
        return f"{a}/{step}" if quartz and kind < 0.9 else f"{a}-{b}/{step}"

    def _month(self, quartz):
        rng = self.rng
        kind = rng.random()
        if kind < 0.45:
            return "*"
        if kind < 0.75:
            return self._list(1, 12, quartz)
        return ",".join(self._named_item(MONTHS, quartz) for _ in range(rng.randint(1, 3)))

    def _dom_special(self):
        rng = self.rng
        return rng.choice(["L", "LW", f"L-{rng.randint(1, 30)}", f"L-{rng.randint(1, 30)}W", f"{rng.randint(1, 31)}W",
                           f"{rng.randint(1, 31)}W"])

    def _dom(self):
        rng = self.rng
        kind = rng.random()
        if kind < 0.15:
            return "*"
        if kind < 0.5:
            return self._list(1, 31)
        if kind < 0.85:
            return self._dom_special()
        items = [self._dom_special() if rng.random() < 0.6 else self._item(1, 31) for _ in range(rng.randint(2, 4))]
        return ",".join(items)

    def _dow_special(self):
        rng = self.rng
        day = str(rng.randint(1, 7)) if rng.random() < 0.6 else self._name(DAYS)
        return rng.choice([f"{day}L", f"{day}#{rng.randint(1, 5)}", f"{day}#{rng.randint(1, 5)}", "L"])

    def _dow_quartz(self):
        rng = self.rng
        kind = rng.random()
        if kind < 0.1:
            return "*"
        if kind < 0.35:
            return self._list(1, 7)
        if kind < 0.55:
            return ",".join(self._named_item(DAYS, True) for _ in range(rng.randint(1, 3)))
        if kind < 0.85:
            return self._dow_special()
        items = [self._dow_special() if rng.random() < 0.6 else self._item(1, 7) for _ in range(rng.randint(2, 3))]
        return ",".join(items)

    def _dow_unix(self):
        rng = self.rng
        if rng.random() < 0.5:
            return ",".join(self._named_item(DAYS, False) for _ in range(rng.randint(1, 3)))
        step = f"/{rng.randint(2, 3)}" if rng.random() < 0.2 else ""
        low = rng.randint(0, 7)
        return rng.choice([str(low), f"{low}-{rng.randint(low, 7)}{step}", f"{rng.randint(0, 7)},{rng.randint(0, 7)}"])

    def _year(self):
        rng = self.rng
        year = rng.randint(1990, 2060)
        return rng.choice([
            "*", str(year), f"{year}-{year + rng.randint(0, 40)}", f"{year}/{rng.randint(1, 20)}", f"*/{rng.randint(1, 9)}",
            f"{year},{year + rng.randint(1, 9)}", f"{rng.randint(1970, 2199)}-2199", f"{year}-2199/{rng.randint(2, 30)}"])


def mutate(rng, text):
    """Breaks an expression in a small way; what comes out may still be right, the judge decides."""
    fields = text.split()
    kind = rng.random()
    at = rng.randrange(len(fields))
    if kind < 0.12:
        del fields[at]
    elif kind < 0.24:
        fields.insert(at, rng.choice(["*", "?", "0", "1"]))
    elif kind < 0.6:
        place = rng.randrange(len(fields[at]) + 1)
        fields[at] = fields[at][:place] + rng.choice("0123456789,-/*?LW#ASZx") + fields[at][place:]
    elif kind < 0.75 and len(fields[at]) > 1:
        place = rng.randrange(len(fields[at]))
        fields[at] = fields[at][:place] + fields[at][place + 1:]
    else:
        fields[at] = rng.choice(["60", "99", "0", "32", "*/0", "*/99", "1-99", "5-", "-5", "FOO", "JANUARY", "0W", "32W", "8L",
                                 "2#0", "2#6", "L-31", "1969", "2200", "1,", ",1", "1,,2", "?", "*5", "1-2-3", "*/", "/"])
    return " ".join(fields)


def rng_for(seed, part):
    return random.Random(f"{seed}/{part}")
