"""Runs the peers over many cases at once: kelou, Quartz, croniter, and the brute-force judge."""

import concurrent.futures
import functools
import json
import os
import shutil
import subprocess
import time
import zoneinfo
from dataclasses import dataclass

import brute
from exceptions import ANSWERS

HERE = os.path.dirname(os.path.abspath(__file__))
JAVA_PATH = ["/usr/share/java/quartz2.jar", "/usr/share/java/slf4j-api.jar", "/usr/share/java/slf4j-nop.jar"]
PEER_TIMEOUT_S = 1200


@dataclass(frozen=True)
class Case:
    """One question: the next instants of an expression in a zone after an instant."""
    expr: str
    dialect: str
    tz: str
    from_ms: int
    gap: str = "AUTO"
    overlap: str = "AUTO"

    def line(self):
        ask = {"expr": self.expr, "tz": self.tz, "from_ms": self.from_ms, "n": ANSWERS, "dialect": self.dialect}
        if self.gap != "AUTO":
            ask["dst_gap"] = self.gap
        if self.overlap != "AUTO":
            ask["dst_overlap"] = self.overlap
        return json.dumps(ask)


class Kelou:
    """Answers are lists of ms, or a dict {"column", "message"} for an expression that was refused."""

    def __init__(self, path):
        self.path = path
        self.lines = 0
        self.seconds = 0.0

    def __call__(self, cases):
        text = "".join(case.line() + "\n" for case in cases)
        start = time.monotonic()
        done = subprocess.run([self.path, "cron", "next"], input=text, capture_output=True, text=True,
                              timeout=PEER_TIMEOUT_S, check=False)
        self.seconds += time.monotonic() - start
        self.lines += len(cases)
        answers = done.stdout.splitlines()
        if len(answers) != len(cases):
            raise SystemExit(f"kelou cron next answered {len(answers)} lines for {len(cases)}; exit {done.returncode}; "
                             f"first line not answered: {(cases[len(answers):] or cases)[0].line()}; {done.stderr[-500:]}")
        return [self._answer(json.loads(a)) for a in answers]

    @staticmethod
    def _answer(reply):
        return reply["next_ms"] if "next_ms" in reply else reply["error"]


class Quartz:
    """Answers are lists of ms, or a string: "TIMEOUT", or "ERR …"."""

    def __init__(self, build_dir):
        self.build_dir = build_dir
        self.path = ":".join(JAVA_PATH + [build_dir])
        subprocess.run(["javac", "-nowarn", "-Xlint:none", "-cp", self.path, "-d", build_dir, f"{HERE}/QuartzNext.java"],
                       check=True, stderr=subprocess.DEVNULL)

    @staticmethod
    def missing():
        if any(not os.path.exists(jar) for jar in JAVA_PATH):
            return "Quartz: libquartz2-java and libslf4j-java are not installed"
        if not (shutil.which("java") and shutil.which("javac")):
            return "Quartz: openjdk-17-jdk-headless is not installed"
        return None

    def _run(self, lines):
        done = subprocess.run(["java", "-Xshare:auto", "-XX:+UseSerialGC", "-Xmx512m", "-cp", self.path, "QuartzNext"],
                              input="".join(line + "\n" for line in lines), capture_output=True, text=True,
                              timeout=PEER_TIMEOUT_S, check=True)
        answers = done.stdout.splitlines()
        assert len(answers) == len(lines), done.stderr[-500:]
        return answers

    def __call__(self, questions):
        """questions: (Quartz expression, zone, from_ms)"""
        answers = self._run([f"N\t{expr}\t{tz}\t{from_ms}\t{ANSWERS}" for expr, tz, from_ms in questions])
        return [a if a.startswith(("ERR", "TIMEOUT")) else [int(ms) for ms in a.split(",") if ms] for a in answers]

    def transitions(self, zones, start_ms, end_ms):
        answers = self._run([f"Z\t{tz}\t{start_ms}\t{end_ms}" for tz in zones])
        return [[tuple(map(int, change.split(":"))) for change in a.split(",")] for a in answers]


def quartz_text(schedule):
    """The same schedule in Quartz's words, or None when Quartz cannot say it."""
    if schedule.dialect == "QUARTZ":
        return schedule.text
    f = schedule.field
    months = ",".join(map(str, sorted(schedule.months)))
    if f["dow"] == "*":
        return f"0 {f['minute']} {f['hour']} {f['dom']} {months} ?"
    if f["dom"] == "*":
        week = range(1, 8)  # 2023-01-01 was a Sunday: day n of that month is Quartz's weekday n
        days = [str(n) for n in week if any(rule(brute.dt.date(2023, 1, n)) for rule in schedule.dow)]
        return f"0 {f['minute']} {f['hour']} ? {months} {','.join(days)}"
    return None


def croniter_missing():
    try:
        import croniter  # noqa: F401  pylint: disable=unused-import,import-outside-toplevel
    except ImportError:
        return "croniter: python3-croniter is not installed"
    return None


def _croniter_one(question):
    import croniter  # pylint: disable=import-outside-toplevel
    expr, from_ms = question
    try:
        it = croniter.croniter(expr, from_ms // 1000)
        return [int(it.get_next(float)) * 1000 for _ in range(ANSWERS)]
    except (croniter.CroniterError, ValueError, TypeError, KeyError, IndexError) as e:
        return f"ERR {type(e).__name__}: {e}"


@functools.lru_cache(64)
def _schedule(expr, dialect):
    """The parsed schedule, or why it is refused."""
    try:
        schedule = brute.Schedule(expr, dialect)
        return schedule if schedule.ever_fires() else "never fires"
    except brute.Refused as e:
        return str(e)


def _brute_one(case):
    schedule = _schedule(case.expr, case.dialect)
    if isinstance(schedule, str):
        return {"column": 1, "message": schedule}
    zone = zoneinfo.ZoneInfo(case.tz)
    return brute.next_instants(schedule, zone, case.from_ms, ANSWERS, case.gap, case.overlap)


def _valid_one(question):
    return not isinstance(_schedule(*question), str)


class Pool:
    """The judges written in Python, on all processors."""

    def __init__(self):
        self.workers = concurrent.futures.ProcessPoolExecutor(os.cpu_count())

    def _map(self, function, items):
        return list(self.workers.map(function, items, chunksize=max(1, min(500, len(items) // 8 or 1))))

    def close(self):
        self.workers.shutdown()

    def croniter(self, questions):
        return self._map(_croniter_one, questions)

    def brute(self, cases):
        return self._map(_brute_one, cases)

    def valid(self, questions):
        return self._map(_valid_one, questions)
