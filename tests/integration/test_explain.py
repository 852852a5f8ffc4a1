"""Every instant accounted for: what `explain` answers of real tasks, for every code that a test can bring about."""
import re
from datetime import datetime, timedelta, timezone

import pytest

from tests.harness.fake_executor import Accept, Answer, Done
from tests.harness.kelou import wait_for
from tests.harness.world import Scene, at, soon, text_of

SECONDLY = {"kind": "CRON", "expression": "* * * * * ?"}
ERROR = {"type": "T", "message": "no such file"}
BERLIN = "Europe/Berlin"


def explain(task, instant=None, **query):
    query.update({} if instant is None else {"at": instant})
    return task.api.ok("GET", f"{task.path}/explain", params=query)


def one(task, instant=None, code=None, **query):
    """The one item of an answer."""
    items = explain(task, instant, **query)["items"]
    assert len(items) == 1 and code in (None, items[0]["code"]), items
    item = items[0]
    assert item["text"] and not re.search(r"\{[a-z_]+\}", item["text"] + "".join(n["text"] for n in item["notes"])), item
    return item


def notes(item):
    return [n["code"] for n in item["notes"]]


def shifted(instant, **delta):
    return text_of(at(instant) + timedelta(**delta))


def parts(item):
    """Its parts, which follow each other without a gap."""
    found = item["parts"]
    for before, after in zip(found, found[1:]):
        assert before["to"] == after["from"], found
    assert all(p["ms"] >= 0 for p in found)
    return [(p["part"], p.get("attempt")) for p in found]


# ---------------------------------------------------------------- what ran

def test_a_run_and_where_its_time_went(scene):
    scene.executor().answer(Accept(delay=0.3))
    task = scene.task("runs", SECONDLY)
    run = task.wait_runs(2, state="SUCCESS")[1]
    item = one(task, run["scheduled_at"], "SUCCESS")
    assert item["run"]["id"] == run["id"] and item["verdict"] == "RAN" and notes(item) == []
    assert item["at"] == item["due_at"] == run["scheduled_at"]
    assert item["previous_at"] == shifted(run["scheduled_at"], seconds=-1).replace(".000000", "")
    assert item["next_at"] == shifted(run["scheduled_at"], seconds=1).replace(".000000", "")
    assert (item["version"]["version"], item["version"]["state"]) == (1, "ENABLED") and "change" not in item
    assert [p for p in parts(item) if p[0] != "WAIT"] == [("DECIDE", None), ("DELIVER", 1), ("RUN", 1)]
    assert item["parts"][0]["from"] == run["scheduled_at"] and item["parts"][-1]["to"] == run["finished_at"]
    assert item["parts"][-1]["ms"] >= 250 and abs(item["late_ms"] - run["lateness_ms"]) < 0.01
    other = one(task, shifted(run["scheduled_at"], milliseconds=300), "NOT_IN_CRON")
    assert other["mismatch"] == ["second"] and other["previous_at"] == run["scheduled_at"]


def test_how_runs_ended(scene):
    worker, rude = scene.executor("worker", "w"), scene.executor("rude", "r")
    worker.answer(Done(state="FAIL", error=ERROR))
    rude.answer(Answer(400, {"error": "no"}))

    def ends(code, task, run_id=None):
        run = scene.wait_run(run_id or task.trigger())
        item = one(task, run["scheduled_at"], code)
        assert "TRIGGERED" in notes(item) and item["run"]["id"] == run["id"], item
        return item

    retry = {"max_attempts": 3, "initial_interval": "100ms", "jitter": 0}
    item = ends("FAIL_ERROR", scene.task("error", group="w", retry=retry))
    assert "no such file" in item["text"] and "RETRIED" in notes(item)
    kinds = parts(item)
    assert kinds.count(("RETRY_WAIT", None)) == 2 and [a for k, a in kinds if k == "DELIVER"] == [1, 2, 3], kinds
    assert all(p["ms"] >= 99 for p in item["parts"] if p["part"] == "RETRY_WAIT")
    ends("FAIL_REJECTED", scene.task("rejected", group="r"))
    ends("FAIL_NO_EXECUTOR", scene.task("nobody", group="nobody", dispatch_timeout="300ms"))
    worker.answer(Accept(report=None))
    ends("FAIL_TIMEOUT", scene.task("slow", group="w", attempt_timeout="300ms"))

    queue = scene.task("queue", group="w", overlap_policy="QUEUE_ALL")
    held = queue.trigger()
    scene.wait_run(held, "RUNNING", "PENDING")
    queue.patch(timeout="300ms")
    item = ends("FAIL_EXPIRED", queue)
    assert item["behind"] == held and item["parts"][-1]["part"] == "WAIT"
    assert (item["parts"][-1]["waited_for"], item["parts"][-1]["behind"]) == ("TASK", held)
    scene.cancel(held)

    cancelled = scene.task("cancelled", group="w", cancel_timeout="200ms")
    run_id = cancelled.trigger()
    scene.wait_run(run_id, "PENDING", "RUNNING")
    scene.cancel(run_id)
    ends("CANCELLED", cancelled, run_id)

    replaced = scene.task("replaced", group="w", overlap_policy="REPLACE", cancel_timeout="200ms")
    run_id = replaced.trigger()
    scene.wait_run(run_id, "PENDING", "RUNNING")
    replaced.trigger()
    ends("REPLACED", replaced, run_id)

    lost = scene.task("lost", group="l", on_lost="FAIL")
    gone = scene.executor("gone", "l")
    gone.answer(Accept(report=None))
    run_id = lost.trigger()
    gone.wait_deliveries(1)
    scene.wait_run(run_id, "PENDING", "RUNNING")
    gone.deregister()
    item = ends("FAIL_LOST", lost, run_id)
    assert "gone" in item["text"]


def test_what_is_under_way(scene):
    worker = scene.executor("worker", "w", slots=100)
    worker.answer(Accept(report=None))
    running = scene.task("running", group="w", overlap_policy="QUEUE_ALL", cancel_timeout="1m")
    first = running.trigger()
    run = scene.wait_run(first, "RUNNING")
    item = one(running, run["scheduled_at"], "RUNNING")
    assert item["verdict"] == "UNDER_WAY" and "to" not in item["parts"][-1] and item["parts"][-1]["ms"] > 0
    assert one(running)["run"]["id"] == first  # the present
    second = scene.wait_run(running.trigger(), "PENDING", reason="QUEUED")
    item = one(running, second["scheduled_at"], "QUEUED_TASK")
    assert item["behind"] == first and item["run"]["waits_for"] == "TASK" and first in item["text"]
    assert one(running)["run"]["id"] == first
    scene.cancel(first)
    one(running, run["scheduled_at"], "CANCELLING")

    nobody = scene.task("nobody", group="nobody", dispatch_timeout="1m")
    run = scene.wait_run(nobody.trigger(), "PENDING", reason="DISPATCHING")
    one(nobody, run["scheduled_at"], "DISPATCHING")
    retry = scene.task("retry", group="w", retry={"max_attempts": 2, "initial_interval": "1m", "jitter": 0})
    worker.script(Done(state="FAIL", error=ERROR))
    run = scene.wait_run(retry.trigger(), "PENDING", reason="RETRY_WAIT")
    item = one(retry, run["scheduled_at"], "RETRY_WAIT")
    assert item["parts"][-1]["part"] == "RETRY_WAIT" and "no such file" in item["text"]

    scene.group("bounded", max_concurrent=1)
    scene.group("rated", rate_limit=0.001, rate_burst=1)
    for group, code in (("bounded", "QUEUED_GROUP"), ("rated", "QUEUED_RATE")):
        scene.executor(f"x-{group}", group).answer(Accept(report=None))
        tasks = [scene.task(f"{group}{n}", group=group) for n in range(2)]
        scene.wait_run(tasks[0].trigger(), "PENDING", "RUNNING", reason=None)
        run = scene.wait_run(tasks[1].trigger(), "PENDING", reason="QUEUED")
        item = one(tasks[1], run["scheduled_at"], code)
        assert scene.group(group).name in item["text"] and item["parts"][-1]["waited_for"] == code[len("QUEUED_"):]

    name = f"ns-{scene.number}"
    scene.api.ok("POST", "/namespaces", {"name": name})
    scene.api.ok("PATCH", f"/namespaces/{name}", {"max_concurrent": 1})
    scene.api.ok("POST", "/executor-groups", {"name": "g", "namespace": name})
    tasks = [scene.task(f"ns{n}", namespace=name, executor_group="g", dispatch_timeout="1m") for n in range(2)]
    scene.wait_run(tasks[0].trigger(), "PENDING", reason="DISPATCHING")
    run = scene.wait_run(tasks[1].trigger(), "PENDING", reason="QUEUED")
    assert name in one(tasks[1], run["scheduled_at"], "QUEUED_NAMESPACE")["text"]


def test_a_backfill_waits_for_its_release(scene):
    task = scene.task("fill", {"kind": "CRON", "expression": "0 0 2 * * ?"}, group="nobody", overlap_policy="ALLOW")
    to = datetime.now(timezone.utc).replace(hour=3, minute=0, second=0, microsecond=0) - timedelta(days=2)
    scene.api.ok("POST", f"{task.path}/backfill", {"from": text_of(to - timedelta(days=3)), "to": text_of(to), "rate": 0.01}, status=202)
    last = text_of(to - timedelta(hours=1))
    item = wait_for(lambda: one(task, last, "RELEASE_WAIT"), what="the last one waits for its release")
    assert "BACKFILLED" in notes(item) and item["parts"][-1]["waited_for"] == "RELEASE"
    one(task, shifted(last, days=-10), "BEFORE_CREATION")


# ---------------------------------------------------------------- what was skipped

def test_skipped(scene):
    calendar = f"cal-{scene.number}"
    today = datetime.now(timezone.utc).date()
    scene.api.ok("PUT", f"/calendars/{calendar}", {"excluded": [f"{today - timedelta(days=1)}/{today + timedelta(days=1)}"]}, status=201)
    scene.executor().answer(Accept(report=None))
    excluded = scene.task("calendar", {**SECONDLY, "calendar": calendar})
    overlap = scene.task("overlap", SECONDLY, overlap_policy="SKIP")
    run = excluded.wait_runs(1)[0]
    item = one(excluded, run["scheduled_at"], "SKIPPED_CALENDAR")
    assert item["verdict"] == "SKIPPED" and calendar in item["text"]
    ahead = one(excluded, shifted(soon(0), seconds=30)[:19] + "Z", "FUTURE_CALENDAR")
    assert ahead["verdict"] == "AHEAD" and calendar in ahead["text"]
    runs = overlap.wait_runs(2)
    item = one(overlap, runs[1]["scheduled_at"], "SKIPPED_OVERLAP")
    assert item["behind"] == runs[0]["id"] and "SKIP" in item["text"]


def test_pauses_and_catching_up(scene):
    """A resume with catch_up does to the instants of the pause what an outage does to those that it missed."""
    scene.executor().answer(Done())
    codes = {"SKIP": ("SKIPPED_MISFIRE", "FOLDED"), "FIRE_ONCE": ("MADE_UP", "STANDS_FOR"), "FIRE_ALL": ("SUCCESS", "AFTER_PAUSE")}
    tasks = {p: scene.task(p.lower(), SECONDLY, misfire_policy=p, catchup_rate=100) for p in codes}
    left = scene.task("left", SECONDLY)
    for task in (*tasks.values(), left):
        task.wait_runs(1)
        task.pause()
    begin = at(left.read()["effective_at"])
    instant = (begin + timedelta(seconds=2)).replace(microsecond=0)
    assert one(left, code="PAUSED_NOW")["change"]["by"] == left.made["created_by"]
    for code in ("FUTURE_PAUSED",):
        assert one(left, text_of(instant + timedelta(hours=1)), code)["change"]["version"] == 2
    left.api.ok("PATCH", left.path, {"description": "changed while it was paused"})
    wait_for(lambda: datetime.now(timezone.utc) > instant + timedelta(seconds=2), what="a few instants have passed")
    item = wait_for(lambda: one(left, text_of(instant), "PAUSED"), what="paused then")
    assert item["verdict"] == "NOT_DUE" and item["change"]["version"] == 2 and item["version"]["version"] in (2, 3)
    for task in (*tasks.values(), left):
        task.resume(catch_up=task is not left)
    assert one(left, text_of(instant), "PAUSED")["change"]["version"] == 2
    for policy, (code, note) in codes.items():
        item = wait_for(lambda: one(tasks[policy], text_of(instant), code), what=f"{policy} is caught up")
        assert note in notes(item) and (item["version"]["state"], item["version"]["version"]) == ("ENABLED", 3), item
        assert {"AFTER_PAUSE"} == set(notes(item)) & {"AFTER_PAUSE", "JITTERED", "LATE", "CAUGHT_UP"}, item
        assert item["due_at"] == item["at"] and (item["change"]["version"], item["other"]["version"]) == (2, 3)
        said = next(n["text"] for n in item["notes"] if n["code"] == "AFTER_PAUSE")
        assert item["change"]["by"] in said and item["other"]["effective_at"] in said, said
        assert [k for k, _ in parts(item)][:2] == ["PAUSED", "DECIDE"] and item["parts"][0]["to"] == item["other"]["effective_at"]
        if code != "SUCCESS":
            missed = item["run"]["missed"]
            assert at(missed["first"]) <= instant < at(missed["last"]) and str(missed["count"]) in str(item["notes"])
            odd = one(tasks[policy], text_of(instant + timedelta(milliseconds=500)), "NOT_IN_CRON")
            assert notes(odd) == ["WAS_PAUSED"]


# ---------------------------------------------------------------- what was no instant

def test_versions(scene):
    scene.executor().answer(Done())
    task = scene.task("versions", {"kind": "FIXED_RATE", "every": "1h", "anchor": "2026-01-01T00:00:00Z"})
    before = one(task, "2026-01-01T05:00:00Z", "BEFORE_CREATION")
    assert before["change"]["version"] == 1 and before["change"]["by"] == task.made["created_by"] and "version" not in before
    tomorrow = (datetime.now(timezone.utc) + timedelta(days=1)).replace(minute=0, second=0, microsecond=0)
    assert one(task, text_of(tomorrow), "FUTURE")["due_at"] == text_of(tomorrow).replace(".000000", "")
    odd = text_of(tomorrow + timedelta(minutes=30))
    assert "1h" in one(task, odd, "NOT_IN_RATE")["text"]
    changed = task.api.ok("PATCH", task.path, {"schedule": {"anchor": "2026-01-01T00:30:00Z"}}, params={"note": "half past"})
    gone = one(task, text_of(tomorrow), "IN_EARLIER_VERSION")
    assert (gone["other"]["version"], gone["change"]["version"], gone["change"]["note"]) == (1, 2, "half past")
    one(task, odd, "FUTURE")
    later = shifted(changed["effective_at"], microseconds=-5)
    task.patch(schedule={"kind": "ONE_TIME", "run_at": later, "every": None, "anchor": None}, misfire_policy="FIRE_ONCE")
    made = one(task, later, "IN_LATER_VERSION")
    assert made["other"]["version"] == made["change"]["version"] == 3
    task.wait_state("COMPLETED")
    one(task, code="COMPLETED")
    assert one(task, text_of(tomorrow + timedelta(minutes=7)), "NOT_THE_ONE_TIME")["version"]["version"] == 3
    scene.api.ok("DELETE", task.path, status=204)
    deleted = one(task, text_of(tomorrow), "AFTER_DELETION")
    assert deleted["change"]["state"] == "DELETED" and deleted["change"]["by"] == task.made["created_by"]
    one(task, code="AFTER_DELETION")
    one(task, "2026-01-01T05:00:00Z", "BEFORE_CREATION")
    scene.api.problem("GET", f"/tasks/default%2F{task.name}/explain", status=404)


def test_bounds_and_kinds(scene):
    scene.executor().answer(Done())
    window = scene.task("window", {**SECONDLY, "start_at": soon(3600), "end_at": soon(7200)})
    assert one(window, soon(60), "BEFORE_START")["next_at"] > soon(3500)
    one(window, soon(9000), "AFTER_END")
    few = scene.task("few", {**SECONDLY, "max_runs": 1})
    run = few.wait_runs(1)[0]
    few.wait_state("COMPLETED")
    assert "1" in one(few, shifted(run["scheduled_at"], seconds=1)[:19] + "Z", "MAX_RUNS")["text"]
    one(few, code="MAX_RUNS")
    manual = scene.task("manual")
    one(manual, soon(5), "NO_SCHEDULE")
    assert one(manual)["code"] == "NO_SCHEDULE"
    delay = scene.task("delay", {"kind": "FIXED_DELAY", "every": "1h"})
    one(delay, soon(5), "FIXED_DELAY")
    ahead = one(delay, code="DELAY_AHEAD")
    assert ahead["next_at"] == delay.stats()["next_at"]
    jitter = scene.task("jitter", {"kind": "CRON", "expression": "0 0 * * * ?", "jitter": "30m"})
    hour = (datetime.now(timezone.utc) + timedelta(hours=30)).replace(minute=0, second=0, microsecond=0)
    item = one(jitter, text_of(hour), "FUTURE")
    assert notes(item) == ["JITTERED"] and hour < at(item["due_at"]) < hour + timedelta(minutes=30)


def test_daylight_saving(scene):
    number = iter(range(100))

    def task(expression, **more):
        return scene.task(f"dst{next(number)}", {"kind": "CRON", "expression": expression, "timezone": BERLIN, **more})

    daily = task("0 30 2 * * ?")
    gap = explain(daily, "2027-03-28T02:30:00")["items"]
    assert [(i["code"], i["at"]) for i in gap] == [("DST_MADE_UP", "2027-03-28T01:00:00Z"), ("FUTURE", "2027-03-28T01:00:00Z")]
    assert gap[0]["local"] == "2027-03-28T02:30:00" and gap[1]["local"] == "2027-03-28T03:00:00+02:00"
    assert notes(gap[1]) == ["GAP_MADE_UP"] and BERLIN in gap[0]["text"]
    assert one(daily, "2027-03-28T02:31:00", "DST_LEFT_OUT")["next_at"]
    one(task("0 30 * * * ?"), "2027-03-28T02:30:00", "DST_SKIPPED")
    shift = explain(task("0 30 2 * * ?", dst_gap="SHIFT"), "2027-03-28T02:30:00")["items"]
    assert [(i["code"], i["at"]) for i in shift][1] == ("FUTURE", "2027-03-28T01:30:00Z") and notes(shift[1]) == ["GAP_SHIFTED"]
    twice = explain(daily, "2027-10-31T02:30:00")["items"]
    assert [(i["code"], i["at"]) for i in twice] == [("FUTURE", "2027-10-31T00:30:00Z"), ("DST_OTHER_COPY", "2027-10-31T01:30:00Z")]
    assert notes(twice[0]) == ["FIRST_COPY"]
    both = explain(task("0 30 2 * * ?", dst_overlap="BOTH"), "2027-10-31T02:30")["items"]
    assert [i["code"] for i in both] == ["FUTURE", "FUTURE"] and notes(both[1]) == ["SECOND_COPY"]
    item = one(task("0 0 9 ? * MON-FRI"), "2027-06-05T08:30:00", "NOT_IN_CRON")
    assert item["mismatch"] == ["minute", "hour", "day"] and "Saturday" in item["text"] and "Monday to Friday" in item["text"]
    assert item["local"] == "2027-06-05T08:30:00+02:00" and item["next_at"] == "2027-06-07T07:00:00Z"


# ---------------------------------------------------------------- the question

def test_a_range(scene):
    scene.executor().answer(Done())
    task = scene.task("range", {"kind": "FIXED_RATE", "every": "250ms"})
    run = task.wait_runs(8)[4]
    got = explain(task, run["scheduled_at"], within="500ms")
    instants = [i["at"] for i in got["items"]]
    assert instants == sorted(instants) and len(instants) == 5 and instants[2] == run["scheduled_at"] and not got["more"]
    assert at(got["to"]) - at(got["from"]) == timedelta(seconds=1)
    hours = scene.task("hours", {"kind": "CRON", "expression": "0 * * * * ?"})
    ahead = (datetime.now(timezone.utc) + timedelta(days=2)).strftime("%Y-%m-%dT%H:%M")
    assert one(hours, ahead, "FUTURE")["at"].startswith(ahead)
    many = explain(hours, ahead, within="2h")
    assert len(many["items"]) == 100 and many["more"] is True
    assert one(hours, ahead + ":30Z", "NOT_IN_CRON", within="29s")["at"] == ahead + ":30Z"  # none in it: what was asked for


def test_the_present(scene):
    scene.executor().answer(Done())
    task = scene.task("now", {"kind": "CRON", "expression": "0 0 3 * * ?"})
    item = one(task, code="NEXT_AHEAD")
    assert item["next_at"] == task.stats()["next_at"] and "at" not in item and "last" not in item
    run = scene.wait_run(task.trigger())
    assert one(task)["last"]["id"] == run["id"]
    zh = one(task, lang="zh")
    assert "下一个时刻" in zh["text"] and zh["code"] == "NEXT_AHEAD"


@pytest.mark.parametrize("text", ["now", "2026-01-01", "2026-01-01T25:00", "2026-01-01T00:00:00+99:00", "1969-12-31T23:59:59Z", "x" * 65, ""])
def test_a_bad_instant_is_named(scene, text):
    task = scene.task("bad")
    problem = scene.api.problem("GET", f"{task.path}/explain", params={"at": text})
    assert problem["errors"][0]["parameter"] == "at", problem


def test_bad_input(scene):
    task = scene.task("bad")
    path = f"{task.path}/explain"
    for query, name in (({"within": "1h"}, "within"), ({"at": soon(0), "within": "2d"}, "within"), ({"at": soon(0), "within": "-1s"}, "within"),
                        ({"at": soon(0), "lang": "fr"}, "lang"), ({"when": "now"}, "when")):
        assert scene.api.problem("GET", path, params=query)["errors"][0]["parameter"] == name
    scene.api.problem("GET", "/tasks/999999999/explain", status=404)
    scene.api.problem("GET", "/tasks/nobody/explain", status=404)


def test_too_many_runs_in_a_range(scene):
    scene.executor().answer(Done())
    task = scene.task("busy", {"kind": "FIXED_RATE", "every": "10ms"}, overlap_policy="ALLOW")
    task.wait_runs(100)
    wait_for(lambda: len(task.runs()) > 200, 20, "more than 200 runs")
    task.pause()
    problem = scene.api.problem("GET", f"{task.path}/explain", params={"at": soon(0), "within": "1h"})
    assert problem["errors"][0]["parameter"] == "within" and "200" in problem["detail"]


def test_a_backfill_is_never_late(scene):
    scene.executor().answer(Done())
    task = scene.task("filled", {"kind": "CRON", "expression": "0 0 3 * * ?", "timezone": "Asia/Shanghai"})
    task.api.ok("POST", f"{task.path}/backfill", {"from": "2026-01-02T00:00:00Z", "to": "2026-01-02T23:00:00Z"}, status=202)
    run = task.wait_runs(1, state="SUCCESS")[0]
    assert run["origin"] == "BACKFILL" and "lateness_ms" not in run
    item = one(task, run["scheduled_at"], "SUCCESS")
    assert notes(item) == ["BACKFILLED"] and "late_ms" not in item and "DECIDE" not in [k for k, _ in parts(item)]
    assert item["parts"][0]["from"] == run["fired_at"] and run["fired_at"][:4] in item["notes"][0]["text"]
    shown = scene.node.cli("task", "explain", task.name, "--at", run["scheduled_at"], check=0).stdout
    assert "previous instant: 2026-01-02T03:00:00+08:00" in shown and "next instant: 2026-01-04T03:00:00+08:00" in shown
    instants = re.findall(r"\d{4}-\d\d-\d\dT[\d:.]+(\S{0,6})", shown)
    assert len(instants) >= 4 and set(instants) == {"+08:00"}, shown  # one notation in one answer
    now = scene.node.cli("task", "explain", task.name, check=0).stdout
    assert set(re.findall(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-][\d:]{5})", now)) == {"+08:00"}, now


def test_who_has_to_take_it_is_named(scene):
    scene.executor()
    task = scene.task("pinned", dispatch_timeout="1m")
    run = scene.wait_run(task.trigger(executor="ops-9"), "PENDING", reason="DISPATCHING")
    assert "ops-9" in one(task, run["scheduled_at"], "DISPATCHING")["text"]
    scene.cancel(run["id"])


def test_who_may_ask(scene):
    name = f"own-{scene.number}"
    scene.api.ok("POST", "/namespaces", {"name": name})
    tokens = {role: scene.node.api(scene.api.ok("POST", "/tokens", {"name": f"{role}-{scene.number}", "role": role, **more})["token"])
              for role, more in (("VIEWER", {}), ("OPERATOR", {"namespace": name}))}
    task = scene.task("mine")
    assert tokens["VIEWER"].ok("GET", f"{task.path}/explain")["task_name"] == task.name
    tokens["OPERATOR"].problem("GET", f"{task.path}/explain", status=404)
    scene.api.ok("DELETE", task.path, status=204)
    assert tokens["VIEWER"].ok("GET", f"{task.path}/explain")["items"][0]["code"] == "AFTER_DELETION"
    tokens["OPERATOR"].problem("GET", f"{task.path}/explain", status=404)
    scene.node.api(scene.group().token).problem("GET", f"{task.path}/explain", status=403)


# ---------------------------------------------------------------- outages, retention

def test_an_outage(make_node, tmp_path, request):
    """kill -9, and up again after more than the threshold: what was missed says so."""
    node = make_node(settings={"node.lease_ttl": "1s"}).start()
    scene = Scene(node, tmp_path)
    request.addfinalizer(scene.done)
    scene.executor().answer(Done())
    codes = {"SKIP": "SKIPPED_MISFIRE", "FIRE_ONCE": "SKIPPED_MISFIRE", "FIRE_ALL": "SUCCESS"}  # a later one is in time: nothing is made up
    tasks = {p: scene.task(p.lower(), SECONDLY, misfire_policy=p, misfire_threshold="15s", catchup_rate=100) for p in codes}
    late = scene.task("late", SECONDLY, misfire_threshold="10m", overlap_policy="ALLOW")
    for task in (*tasks.values(), late):
        task.wait_runs(1)
    node.kill()
    down = datetime.now(timezone.utc)
    instant = text_of(down.replace(microsecond=0) + timedelta(seconds=2))
    wait_for(lambda: datetime.now(timezone.utc) > down + timedelta(seconds=19), 30, "the threshold has passed")
    node.start()
    for policy, code in codes.items():
        item = wait_for(lambda: one(tasks[policy], instant, code), 20, f"{policy} has been decided")
        assert item["late_ms"] > 15000 and "LATE" in notes(item), item
        assert ("CAUGHT_UP" if policy == "FIRE_ALL" else "FOLDED") in notes(item)
    item = wait_for(lambda: one(late, instant, "SUCCESS"), 20, "late, but no misfire")
    assert "LATE" in notes(item) and item["late_ms"] > 10000 and "CAUGHT_UP" not in notes(item)
    assert item["parts"][0]["part"] == "DECIDE" and abs(item["parts"][0]["ms"] - item["late_ms"]) < 1


def test_records_that_are_gone(make_node, tmp_path, request):
    node = make_node(settings={"retention.every": "200ms"}).start()
    scene = Scene(node, tmp_path)
    request.addfinalizer(scene.done)
    api = scene.api
    api.ok("POST", "/namespaces", {"name": "short"})
    api.ok("POST", "/executor-groups", {"name": "g", "namespace": "short"})
    task = scene.task("short", SECONDLY, namespace="short", executor_group="g", overlap_policy="ALLOW", timeout="200ms")
    run = task.wait_runs(2, state="FAIL")[0]
    api.ok("PATCH", "/namespaces/short", {"retention_age": "1s"})
    item = wait_for(lambda: one(task, run["scheduled_at"], "RECORD_DROPPED"), 20, "the record has been dropped")
    assert item["verdict"] == "UNKNOWN" and at(item["kept_since"]) > at(run["scheduled_at"])
    api.ok("PATCH", "/namespaces/short", {"retention_age": "0s"})
    one(task, run["scheduled_at"], "NO_RECORD")


def test_the_tool(scene):
    scene.executor().answer(Done())
    task = scene.task("tool", SECONDLY)
    run = task.wait_runs(1, state="SUCCESS")[0]
    shown = scene.node.cli("task", "explain", task.name, "--at", run["scheduled_at"], check=0).stdout
    assert "SUCCESS" in shown and run["id"] in shown and "until the centre decided it" in shown and " ms" in shown
    zh = scene.node.cli("--lang", "zh", "task", "explain", task.name, "--at", run["scheduled_at"][:19], check=0).stdout
    assert "结果为 SUCCESS" in zh and "后一个时刻" in zh
    raw = scene.node.cli("task", "explain", task.name, "--at", run["scheduled_at"], "-o", "json", check=0).stdout
    assert '"code": "SUCCESS"' in raw
    assert scene.node.cli("task", "explain", task.name, check=0).stdout.strip()
    names = scene.node.cli("task", "explain", task.name, "--at", run["scheduled_at"], "--within", "1s", "-o", "name", check=0).stdout
    assert run["scheduled_at"] in names.split()
    bad = scene.node.cli("task", "explain", task.name, "--at", "noon", check=2).stderr
    assert "--at" in bad
