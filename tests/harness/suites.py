"""What tools/test runs: builds, suites, counts, and the one line at the end."""
import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as xml

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)
from tests.harness.servers import Postgres, ServerError  # noqa: E402

PLAIN, SANITIZED, THREADED, COVERED = "build-test", "build-san", "build-tsan", "build-cov"
LOGS = os.path.join(ROOT, PLAIN, "log")
SANITIZER_ENVIRONMENT = {
    "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=1:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
}
# black-box tests that keep many threads busy
THREADED_TESTS = ("test_trigger_quick", "test_life_overlap", "test_life_attempts", "test_life_cancel", "test_api_runs")
THREAD_ENVIRONMENT = {"TSAN_OPTIONS": "halt_on_error=1:abort_on_error=0:exitcode=66:second_deadlock_stack=1"}
COVERED_ROOMS, COVERED_LEAST = ("core", "run"), 95.0  # lines, in percent
EXIT_SKIPPED = 77
LAST_LINE = re.compile(r"(\d+) passed, (\d+) failed(?:, (\d+) skipped)?\s*$", re.M)


class Counts:
    """Passed, failed, skipped, and the words for the last two."""

    def __init__(self, passed=0, failed=0, skipped=0, notes=()):
        self.passed, self.failed, self.skipped, self.notes = passed, failed, skipped, list(notes)

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.notes += other.notes

    def __str__(self):
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def failure(text):
    return Counts(failed=1, notes=["failed: " + text])


class Session:
    """One call of tools/test: its options, its server, its log folder."""

    def __init__(self, options):
        self.options = options
        self.long = options.long
        self._postgres = None
        self._postgres_error = None
        os.makedirs(LOGS, exist_ok=True)

    def environment(self):
        """The environment of a suite, with a database of its own where PostgreSQL is to be had."""
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "KELOU_BUILD": PLAIN}
        if self._postgres is None and self._postgres_error is None:
            try:
                self._postgres = Postgres().start()
            except (ServerError, OSError) as e:
                self._postgres_error = str(e)
        if self._postgres:
            environment["KELOU_TEST_PG_URL"] = self._postgres.create_database()
        return environment

    def close(self):
        if self._postgres:
            self._postgres.stop()

    def run(self, name, command, seconds, environment=None, mode="wb"):
        """Run a command with its output in log/NAME.log. Returns (exit code or None when it took too long, text)."""
        path = os.path.join(LOGS, name + ".log")
        with open(path, mode) as log:
            child = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                     env=environment or dict(os.environ), start_new_session=True)
            try:
                code = child.wait(seconds)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                if child.poll() is None:
                    end_group(child)
        with open(path, encoding="utf-8", errors="replace") as log:
            return code, log.read()


def end_group(child):
    """End a command that we started and all that it started: asked first, so that it can stop its servers."""
    for how, seconds in ((signal.SIGTERM, 20), (signal.SIGKILL, 10)):
        try:
            os.killpg(child.pid, how)
            child.wait(seconds)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def tail(text, lines=15):
    return "\n".join("    " + line for line in text.rstrip().splitlines()[-lines:])


# builds

def build(session, folder, options, seconds):
    code, text = session.run("build-" + folder, ["tools/build", folder, *options], seconds)
    if code == 0:
        return Counts(passed=1)
    errors = [line for line in text.splitlines() if "error:" in line or "ERROR" in line or "FAILED" in line]
    return failure(f"{folder} does not build (log/build-{folder}.log)\n" + tail("\n".join(errors[:12]) or text))


def build_plain(session):
    return build(session, PLAIN, ["-Dfailpoints=true"], 1200)


def build_sanitized(session):
    return build(session, SANITIZED, ["-Dfailpoints=true", "-Db_sanitize=address,undefined", "-Db_lundef=false"],
                 1800)


def build_threaded(session):
    return build(session, THREADED, ["-Dfailpoints=true", "-Db_sanitize=thread", "-Db_lundef=false"], 1800)


def build_covered(session):
    return build(session, COVERED, ["-Dfailpoints=true", "-Db_coverage=true", "-Doptimization=0"], 1800)


# suites

def last_line(session, name, command, seconds):
    """A program that ends with `N passed, N failed[, N skipped]`."""
    code, text = session.run(name, command, seconds, session.environment())
    if code is None:
        return failure(f"{name} took longer than {seconds} s\n{tail(text)}")
    found = LAST_LINE.findall(text)
    if code == EXIT_SKIPPED and not found:
        return Counts(skipped=1, notes=[f"skip {name}: {(text.strip().splitlines() or ['no reason given'])[-1]}"])
    if not found:
        return failure(f"{name} ended with {code} and without its last line\n{tail(text)}")
    counts = Counts(int(found[-1][0]), int(found[-1][1]), int(found[-1][2] or 0))
    if counts.failed or code:
        counts.failed = max(counts.failed, 1)
        worth = "\n".join(line for line in text.splitlines() if not line.startswith("ok "))
        counts.notes.append(f"failed: {name} (log/{name}.log)\n{tail(worth, 40)}")
    counts.notes += [line for line in text.splitlines() if line.startswith("skip ")]
    return counts


def cmocka_counts(test):
    """The counts of one test program in meson's log; a program that fell over counts as a failure more."""
    text = (test.get("stdout") or "") + "\n" + (test.get("stderr") or "")

    def total(word):
        return sum(int(n) for n in re.findall(rf"\[  {word} *\] (\d+) test\(s\)", text))
    counts = Counts(total("PASSED"), total("FAILED"), total("SKIPPED"))
    if test["result"] == "SKIP":
        return Counts(skipped=max(counts.skipped, 1), notes=[f"skip {test['name']}: the program says so"])
    if test["result"] != "OK":
        counts.failed = max(counts.failed, 1)
        counts.notes.append(f"failed: {test['name']}: {test['result']} after {test.get('duration', 0):.1f} s\n{tail(text, 25)}")
    elif counts.passed + counts.failed + counts.skipped == 0:
        counts.passed = 1
    if counts.skipped:
        names = dict.fromkeys(re.findall(r"^\[  SKIPPED \] (\w+)$", text, re.M))
        reasons = [line[5:].strip() for line in text.splitlines() if line.startswith("skip:")]
        counts.notes.append(f"skip {test['name']}: {', '.join(names)}: {'; '.join(reasons) or 'the test gives no reason'}")
    return counts


def meson_suites(session, folder, suites, factor=1, more=None):
    total = Counts()
    for suite in suites:
        name = f"{folder}-{suite}"
        environment = {**session.environment(), "KELOU_BUILD": folder, **(more or {})}
        command = ["meson", "test", "-C", folder, "--no-rebuild", "--logbase", name, "--suite", suite,
                   "--timeout-multiplier", str(factor * (10 if session.long else 4)),
                   "--num-processes", "1" if suite == "store" else "2"]
        journal = os.path.join(ROOT, folder, "meson-logs", name + ".json")
        if os.path.exists(journal):
            os.unlink(journal)
        code, text = session.run(name, command, 1200, environment)
        tests = []
        if os.path.exists(journal):
            with open(journal, encoding="utf-8") as f:
                tests = [json.loads(line) for line in f]
        if not tests or code is None:
            total.add(failure(f"suite {suite} in {folder} ran no test\n{tail(text)}"))
        for test in tests:
            total.add(cmocka_counts(test))
    return total


def suite_check(session):
    """the gates of the style page (tools/check)"""
    return last_line(session, "check", ["tools/check", *(["--long"] if session.long else [])], 1800 if session.long else 240)


def suite_unit(session):
    """unit tests (cmocka)"""
    return meson_suites(session, PLAIN, ["unit"])


def suite_fsm(session):
    """the state machine: every state and event"""
    return meson_suites(session, PLAIN, ["fsm"])


def suite_store(session):
    """the store contract over every store"""
    return meson_suites(session, PLAIN, ["store"])


def suite_sim(session):
    """the seeded simulator"""
    return meson_suites(session, PLAIN, ["sim"])


def suite_model(session):
    """the spin models of docs/model: they hold, and each guard that is taken away is missed; --long: larger sizes"""
    return last_line(session, "model", ["tests/model/verify", *(["--long"] if session.long else [])], 7200 if session.long else 300)


def suite_fuzz(session):
    """the fuzz targets over their kept inputs; --long: ten minutes of libFuzzer each"""
    counts = meson_suites(session, PLAIN, ["fuzz"])
    if session.long:
        counts.add(last_line(session, "fuzz", ["tools/fuzz", "--for", "10m"], 4 * 3600))
    return counts


def suite_san(session):
    """unit, fsm, store, sim and fuzz under address and undefined-behaviour sanitizers; --long: integration too"""
    counts = build_sanitized(session)
    if counts.failed:
        return counts
    counts.add(meson_suites(session, SANITIZED, ["unit", "fsm", "store", "sim", "fuzz"], 5, SANITIZER_ENVIRONMENT))
    if session.long:
        counts.add(pytest_suite(session, "san-integration", ["tests/integration"], 7200,
                                {"KELOU_BUILD": SANITIZED, **SANITIZER_ENVIRONMENT}, workers=2))
    return counts


def suite_tsan(session):
    """--long: queue, pool, net, run, trigger and a node under load, under the thread sanitizer"""
    if not session.long:
        return Counts(skipped=1, notes=["skip tsan: only with --long"])
    counts = build_threaded(session)
    if counts.failed:
        return counts
    counts.add(meson_suites(session, THREADED, ["unit"], 5, THREAD_ENVIRONMENT))
    counts.add(pytest_suite(session, "tsan-integration", [f"tests/integration/{name}.py" for name in THREADED_TESTS], 3600,
                            {"KELOU_BUILD": THREADED, **THREAD_ENVIRONMENT}))
    state = os.path.join(ROOT, THREADED, "load-state")
    shutil.rmtree(state, ignore_errors=True)
    os.makedirs(state)
    code, text = session.run("tsan-load", [os.path.join(THREADED, "tests/bench/kelou-bench"), "--store", f"sqlite:{state}/kelou.db",
                                           "--state-dir", state, "--tasks", "500", "--rate", "200", "--seconds", "20", "--warmup", "2"], 300,
                             {**os.environ, **THREAD_ENVIRONMENT})
    good = code == 0 and "ThreadSanitizer" not in text
    counts.add(Counts(passed=1) if good else failure(f"a node under load ended with {code}\n{tail(text, 60)}"))
    return counts


def suite_coverage(session):
    """--long: unit, fsm, sim and integration reach 95 of 100 lines of core and of run"""
    if not session.long:
        return Counts(skipped=1, notes=["skip coverage: only with --long"])
    counts = build_covered(session)
    if counts.failed:
        return counts
    counts.add(meson_suites(session, COVERED, ["unit", "fsm", "sim"], 3))
    counts.add(pytest_suite(session, "coverage-integration", ["tests/integration"], 3600, {"KELOU_BUILD": COVERED}, workers=2))
    for room in COVERED_ROOMS:
        code, text = session.run("coverage-" + room, ["gcovr", "--root", ".", COVERED, "--filter", f"src/{room}/", "--fail-under-line",
                                                      str(COVERED_LEAST), "--exclude-throw-branches", "--print-summary"], 300)
        found = re.search(r"^lines: ([\d.]+)%", text, re.M)
        said = f"src/{room}: {found[1] if found else '?'} of 100 lines, at least {COVERED_LEAST:.0f}"
        counts.add(Counts(passed=1) if code == 0 else failure(f"{said}\n{tail(text, 40)}"))
        print(f"  coverage {said}", flush=True)
    return counts


def suite_mutants(session):
    """--long: each seeded mutant of core and run is killed"""
    if not session.long:
        return Counts(skipped=1, notes=["skip mutants: only with --long"])
    return last_line(session, "mutants", ["tools/mutants"], 7200)


def suite_cron(session):
    """cron compared with Quartz, croniter and a brute-force evaluator"""
    command = ["tests/peers/cron/compare", "--kelou", os.path.join(PLAIN, "src", "cli", "kelou"),
               "--expressions", "5000" if session.long else "600"]
    return last_line(session, "cron", command, 3600 if session.long else 600)


def pytest_suite(session, name, paths, seconds, more=None, workers=1):
    """`workers`: so many files at once, each worker with servers of its own."""
    report = os.path.join(LOGS, name + ".xml")
    if os.path.exists(report):
        os.unlink(report)
    command = ["/usr/bin/python3", "-m", "pytest", "-q", "-ra", "-p", "no:cacheprovider", "--junitxml", report,
               *(["-n", str(workers), "--dist", "loadfile"] if workers > 1 else []), *(["--long"] if session.long else []), *paths]
    code, text = session.run(name, command, seconds, {**session.environment(), **(more or {})})
    counts = Counts()
    if os.path.exists(report):
        for case in xml.parse(report).getroot().iter("testcase"):
            outcome = {child.tag: child for child in case}
            title = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
            if "failure" in outcome or "error" in outcome:
                element = outcome["failure"] if "failure" in outcome else outcome["error"]
                counts.add(failure(f"{title}: {(element.get('message') or '')[:300]}"))
            elif "skipped" in outcome:
                counts.add(Counts(skipped=1, notes=[f"skip {title}: {outcome['skipped'].get('message')}"]))
            else:
                counts.passed += 1
    if code is None:
        counts.add(failure(f"{name} took longer than {seconds} s\n{tail(text)}"))
    elif code != 0 and not counts.failed:
        counts.add(failure(f"pytest ended with {code}\n{tail(text)}"))
    return counts


def suite_harness(session):
    """the test harness itself: real servers start, crash and come back"""
    return pytest_suite(session, "harness", ["tests/harness"], 300)


def suite_integration(session):
    """black box over REST and CLI, on SQLite and PostgreSQL"""
    return pytest_suite(session, "integration", ["tests/integration"], 1800, workers=2)


def suite_fault(session):
    """kills and freezes of real processes, proved by the verifier"""
    return pytest_suite(session, "fault", ["tests/fault"], 7200 if session.long else 900)


def run_ids(text):
    return set(re.findall(r"^[0-9a-v]{36}\b", text, re.M))


def suite_run(session):
    """tools/run shows runs of the sample task and ends by itself; started again it shows none of the earlier ones"""
    state = os.path.join(ROOT, PLAIN, "run-state")
    command = ["tools/run", "--no-setup", "--built", PLAIN, "--for", "15s", "--state", state, "--fresh"]
    code, text = session.run("run", command, 600)
    if code != 0:
        return failure(f"tools/run ended with {code}\n{tail(text)}")
    code, again = session.run("run-again", command[:-1], 600)
    both = run_ids(text) & run_ids(again)
    if code != 0 or both or not run_ids(again):
        return failure(f"tools/run started again ended with {code} and shows {both or 'no'} earlier runs\n{tail(again)}")
    return Counts(passed=2)


SUITES = {"check": suite_check, "unit": suite_unit, "fsm": suite_fsm, "store": suite_store,
          "sim": suite_sim, "model": suite_model, "fuzz": suite_fuzz, "cron": suite_cron, "harness": suite_harness,
          "integration": suite_integration, "fault": suite_fault, "run": suite_run, "san": suite_san,
          "tsan": suite_tsan, "coverage": suite_coverage, "mutants": suite_mutants}
NEEDS_NO_BUILD = {"check", "model", "harness", "san", "tsan", "coverage", "mutants"}
LONG_ONLY = {"tsan", "coverage", "mutants"}


def one(session, name, suite, total):
    """Run a suite and print what came of it."""
    begin = time.monotonic()
    try:
        counts = suite(session)
    except (OSError, ServerError, ValueError, xml.ParseError) as e:
        counts = failure(f"{name}: {type(e).__name__}: {e}")
    print(f"{name:<12} {counts} ({time.monotonic() - begin:.0f} s)", flush=True)
    for note in counts.notes:
        print("  " + note, flush=True)
    total.add(counts)
    return counts


def main():
    parser = argparse.ArgumentParser(prog="tools/test")
    parser.add_argument("--long", action="store_true", help="the long forms: every gate, more seeds, longer chaos")
    parser.add_argument("--list", action="store_true", help="name the suites and end")
    parser.add_argument("suites", nargs="*", metavar="suite")
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{name:<12} {suite.__doc__}" for name, suite in SUITES.items()))
        return 0
    for name in options.suites:
        if name not in SUITES:
            parser.error(f"no suite {name}; there are {' '.join(SUITES)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen = options.suites or [name for name in SUITES if options.long or name not in LONG_ONLY]
    session, total, begin = Session(options), Counts(), time.monotonic()
    try:
        if not set(chosen) <= NEEDS_NO_BUILD:
            built = one(session, "build", build_plain, total)
            if built.failed:
                chosen = [name for name in chosen if name in NEEDS_NO_BUILD]
        for name in chosen:
            one(session, name, SUITES[name], total)
    finally:
        session.close()
    print(f"whole run: {time.monotonic() - begin:.0f} s; logs in {os.path.relpath(LOGS, ROOT)}/")
    print(total)
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
