"""Answers worked out by hand from the specification's daylight-saving rule; the brute force must give them too.

Instants are local times with their offset, so that both copies of an ambiguous time can be told apart.
"""

import datetime as dt
import zoneinfo

from brute import EPOCH

GOLDEN = [
    # (dialect, expression, zone, from, gap, overlap, expected)
    # A daily task in the gap: once, at the first instant after it.
    ("QUARTZ", "0 30 2 * * ?", "America/New_York", "2026-03-07T12:00:00-05:00", "AUTO", "AUTO",
     ["2026-03-08T03:00:00-04:00", "2026-03-09T02:30:00-04:00"]),
    # Several local times in the gap are still one run.
    ("QUARTZ", "0 0,15,30 2 * * ?", "America/New_York", "2026-03-07T12:00:00-05:00", "AUTO", "AUTO",
     ["2026-03-08T03:00:00-04:00", "2026-03-09T02:00:00-04:00"]),
    # With a local time in the hour after the gap nothing is made up for.
    ("QUARTZ", "0 30 2,3 * * ?", "America/New_York", "2026-03-07T12:00:00-05:00", "AUTO", "AUTO",
     ["2026-03-08T03:30:00-04:00", "2026-03-09T02:30:00-04:00"]),
    ("UNIX", "0 * * * *", "America/New_York", "2026-03-08T00:30:00-05:00", "AUTO", "AUTO",
     ["2026-03-08T01:00:00-05:00", "2026-03-08T03:00:00-04:00", "2026-03-08T04:00:00-04:00"]),
    # A daily task in the overlap: the first copy only; hourly and every 15 minutes: both copies.
    ("QUARTZ", "0 30 1 * * ?", "America/New_York", "2026-10-31T12:00:00-04:00", "AUTO", "AUTO",
     ["2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"]),
    ("QUARTZ", "0 0 * * * ?", "America/New_York", "2026-11-01T00:30:00-04:00", "AUTO", "AUTO",
     ["2026-11-01T01:00:00-04:00", "2026-11-01T01:00:00-05:00", "2026-11-01T02:00:00-05:00"]),
    ("UNIX", "*/15 * * * *", "America/New_York", "2026-11-01T01:40:00-04:00", "AUTO", "AUTO",
     ["2026-11-01T01:45:00-04:00", "2026-11-01T01:00:00-05:00", "2026-11-01T01:15:00-05:00"]),
    # A local time before the overlap but none after it: the first copy only.
    ("QUARTZ", "0 30 0,1 * * ?", "America/New_York", "2026-11-01T00:45:00-04:00", "AUTO", "AUTO",
     ["2026-11-01T01:30:00-04:00", "2026-11-02T00:30:00-05:00"]),
    # Asked in the second copy, the first is over.
    ("QUARTZ", "0 30 1 * * ?", "America/New_York", "2026-11-01T01:10:00-05:00", "AUTO", "AUTO",
     ["2026-11-02T01:30:00-05:00"]),
    # Half an hour: the windows of the rule are half an hour too.
    ("QUARTZ", "0 15 2 * * ?", "Australia/Lord_Howe", "2026-10-03T12:00:00+10:30", "AUTO", "AUTO",
     ["2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"]),
    ("QUARTZ", "0 0/30 1-3 * * ?", "Australia/Lord_Howe", "2026-04-05T01:10:00+11:00", "AUTO", "AUTO",
     ["2026-04-05T01:30:00+11:00", "2026-04-05T01:30:00+10:30", "2026-04-05T02:00:00+10:30"]),
    # Two hours.
    ("QUARTZ", "0 30 1,2 * * ?", "Antarctica/Troll", "2026-03-28T12:00:00+00:00", "AUTO", "AUTO",
     ["2026-03-29T03:00:00+02:00", "2026-03-30T01:30:00+02:00"]),
    # Midnight does not exist.
    ("QUARTZ", "0 0 0 * * ?", "Asia/Beirut", "2026-03-28T12:00:00+02:00", "AUTO", "AUTO",
     ["2026-03-29T01:00:00+03:00", "2026-03-30T00:00:00+03:00"]),
    # A lost day, and jumps of three hours: no make-up, the first copy only.
    ("QUARTZ", "0 0 12 * * ?", "Pacific/Apia", "2011-12-29T13:00:00-10:00", "AUTO", "AUTO",
     ["2011-12-31T12:00:00+14:00"]),
    ("QUARTZ", "0 0 3 * * ?", "Antarctica/Casey", "2009-10-17T12:00:00+08:00", "AUTO", "AUTO",
     ["2009-10-19T03:00:00+11:00"]),
    ("QUARTZ", "0 0 * * * ?", "Antarctica/Casey", "2010-03-05T01:30:00+11:00", "AUTO", "AUTO",
     ["2010-03-05T02:00:00+08:00", "2010-03-05T03:00:00+08:00"]),
    # The overrides.
    ("QUARTZ", "0 30 2 * * ?", "America/New_York", "2026-03-07T12:00:00-05:00", "SKIP", "AUTO",
     ["2026-03-09T02:30:00-04:00"]),
    ("QUARTZ", "0 30 2,3 * * ?", "America/New_York", "2026-03-07T12:00:00-05:00", "ONCE_AFTER", "AUTO",
     ["2026-03-08T03:00:00-04:00", "2026-03-08T03:30:00-04:00"]),
    ("QUARTZ", "0 10,30 2 * * ?", "America/New_York", "2026-03-07T12:00:00-05:00", "SHIFT", "AUTO",
     ["2026-03-08T03:10:00-04:00", "2026-03-08T03:30:00-04:00", "2026-03-09T02:10:00-04:00"]),
    ("QUARTZ", "0 30 1 * * ?", "America/New_York", "2026-10-31T12:00:00-04:00", "AUTO", "LAST",
     ["2026-11-01T01:30:00-05:00", "2026-11-02T01:30:00-05:00"]),
    ("QUARTZ", "0 30 1 * * ?", "America/New_York", "2026-10-31T12:00:00-04:00", "AUTO", "BOTH",
     ["2026-11-01T01:30:00-04:00", "2026-11-01T01:30:00-05:00"]),
    ("UNIX", "0 * * * *", "America/New_York", "2026-11-01T00:30:00-04:00", "AUTO", "FIRST",
     ["2026-11-01T01:00:00-04:00", "2026-11-01T02:00:00-05:00"]),
    # Days: as written.
    ("QUARTZ", "0 0 12 15W,1W * ?", "UTC", "2026-07-31T13:00:00+00:00", "AUTO", "AUTO",
     ["2026-08-03T12:00:00+00:00", "2026-08-14T12:00:00+00:00"]),
    ("QUARTZ", "0 0 12 L,LW * ?", "UTC", "2026-01-30T00:00:00+00:00", "AUTO", "AUTO",
     ["2026-01-30T12:00:00+00:00", "2026-01-31T12:00:00+00:00", "2026-02-27T12:00:00+00:00", "2026-02-28T12:00:00+00:00"]),
    ("QUARTZ", "0 0 12 ? * MON#1,6L", "UTC", "2026-02-01T00:00:00+00:00", "AUTO", "AUTO",
     ["2026-02-02T12:00:00+00:00", "2026-02-27T12:00:00+00:00", "2026-03-02T12:00:00+00:00"]),
    ("QUARTZ", "0 0 12 ? * MON-FRI/2", "UTC", "2026-02-01T00:00:00+00:00", "AUTO", "AUTO",
     ["2026-02-02T12:00:00+00:00", "2026-02-04T12:00:00+00:00", "2026-02-06T12:00:00+00:00"]),
    ("QUARTZ", "0 0 12 31W * ?", "UTC", "2026-01-31T00:00:00+00:00", "AUTO", "AUTO",
     ["2026-03-31T12:00:00+00:00", "2026-05-29T12:00:00+00:00"]),
    ("QUARTZ", "0 0 12 L-30W * ?", "UTC", "2026-01-15T00:00:00+00:00", "AUTO", "AUTO",
     ["2026-03-02T12:00:00+00:00", "2026-05-01T12:00:00+00:00"]),
    ("QUARTZ", "0 0 22-1/2 ? * FRI-SUN", "UTC", "2026-01-30T01:00:00+00:00", "AUTO", "AUTO",
     ["2026-01-30T22:00:00+00:00", "2026-01-31T00:00:00+00:00", "2026-01-31T22:00:00+00:00"]),
    ("UNIX", "0 0 13 * FRI", "UTC", "2026-01-01T00:00:00+00:00", "AUTO", "AUTO",
     ["2026-01-02T00:00:00+00:00", "2026-01-09T00:00:00+00:00", "2026-01-13T00:00:00+00:00"]),
    ("UNIX", "0 0 */2 * MON", "UTC", "2026-01-01T00:00:00+00:00", "AUTO", "AUTO",
     ["2026-01-05T00:00:00+00:00", "2026-01-19T00:00:00+00:00", "2026-02-09T00:00:00+00:00"]),
    ("QUARTZ", "0 0 0 31 12 ? 2198-2199", "UTC", "2190-01-01T00:00:00+00:00", "AUTO", "AUTO",
     ["2198-12-31T00:00:00+00:00", "2199-12-31T00:00:00+00:00"]),
]


def ms(text):
    at = dt.datetime.fromisoformat(text).astimezone(dt.timezone.utc).replace(tzinfo=None)
    return (at - EPOCH) // dt.timedelta(milliseconds=1)


def local(instants, tz):
    return [dt.datetime.fromtimestamp(at // 1000, zoneinfo.ZoneInfo(tz)).isoformat() for at in instants]
