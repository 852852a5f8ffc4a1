"""Calendars: excluded days and extra working days, shared by name; tasks follow their changes."""
from datetime import datetime, timedelta, timezone

from tests.harness.fake_executor import Done
from tests.harness.kelou import wait_for
from tests.harness.world import at


def day(offset=0):
    return (datetime.now(timezone.utc) + timedelta(days=offset)).date().isoformat()


AROUND = [f"{day(-1)}/{day(1)}"]  # today, wherever midnight is while the test runs


def make(scene, name, **lists):
    return scene.api.ok("PUT", f"/calendars/{name}", lists, status=201)


def test_crud(scene):
    api = scene.api
    made = make(scene, "crud", description="x", excluded=["2026-10-02", "2026-10-01", "2026-10-03/2026-10-04"])
    path = f"/calendars/{made['name']}"
    assert made["excluded"] == ["2026-10-01/2026-10-04"] and made["extra_days"] == [] and made["version"] == 1
    assert made["description"] == "x" and made["namespace"] == "default" and made["tasks"] == 0
    answer = api.request("GET", path)
    assert answer.headers["ETag"] == '"1"'
    assert api.request("GET", path, headers={"If-None-Match": '"1"'}).status_code == 304
    same = api.request("PUT", path, {"description": "x", "excluded": ["2026-10-01/2026-10-04"]})
    assert same.status_code == 200 and same.json()["version"] == 1  # nothing was changed
    changed = api.ok("PUT", path, {"extra_days": ["2026-10-10"]}, headers={"If-Match": '"1"'})
    assert changed["version"] == 2 and changed["excluded"] == [] and "description" not in changed
    api.problem("PUT", path, {}, status=412, code="stale_version", headers={"If-Match": '"1"'})
    api.problem("POST", "/calendars", {"name": made["name"]}, status=409)
    problem = api.problem("PUT", path, {"excluded": ["2026-10-01", "2026-02-30"]})
    assert problem["errors"][0]["pointer"] == "/excluded/1"
    assert "2026-10-01 is excluded as well" in str(api.problem(
        "PUT", path, {"excluded": ["2026-10-01"], "extra_days": ["2026-10-01"]}))
    api.problem("PUT", "/calendars/nowhere%2Fx", {}, status=404)
    assert made["name"] in [c["name"] for c in api.items("/calendars", namespace="default")]
    api.problem("DELETE", path, status=412, headers={"If-Match": '"1"'})
    api.ok("DELETE", path, status=204)
    api.problem("GET", path, status=404)


def test_an_unknown_calendar_is_refused(scene):
    schedule = {"kind": "CRON", "expression": "* * * * * ?", "calendar": "never-made"}
    problem = scene.api.problem("POST", "/tasks", {"name": "t", "executor_group": "g", "handler": "h", "schedule": schedule})
    assert "/schedule/calendar" in str(problem) and "never-made" in str(problem)
    assert "/schedule/calendar" in str(scene.api.problem("POST", "/schedules/preview", {"schedule": schedule}))
    scene.api.problem("POST", "/tasks", {"name": "t", "executor_group": "g", "handler": "h",
                                         "schedule": {"kind": "MANUAL", "calendar": "never-made"}})


def test_excluded_instants_are_skipped_until_the_calendar_changes(scene):
    scene.executor().answer(Done())
    calendar = make(scene, "life", excluded=AROUND)
    path = f"/calendars/{calendar['name']}"
    task = scene.task("held", {"kind": "CRON", "expression": "* * * * * ?", "calendar": calendar["name"]})
    assert scene.api.ok("GET", path)["tasks"] == 1
    scene.api.problem("DELETE", path, status=409)
    for run in task.wait_runs(3):
        assert (run["state"], run["reason"], run["origin"]) == ("SKIPPED", "CALENDAR", "SCHEDULE")
    scene.api.ok("PUT", path, {"excluded": [day(100)]})
    now = wait_for(lambda: task.read() if task.read()["version"] == 2 else None, 10, "the task follows")
    assert now["note"] == "its calendar has changed" and now["schedule"]["calendar"] == calendar["name"]
    runs = task.wait_runs(1, state="SUCCESS")
    assert runs[0]["task_version"] == 2
    task.pause()
    everything = task.runs()
    instants = [at(r["scheduled_at"]) for r in everything]
    counted = sum(r["missed"]["count"] if "missed" in r else 1 for r in everything)
    first = at(everything[0]["missed"]["first"]) if "missed" in everything[0] else instants[0]
    assert counted == (instants[-1] - first).total_seconds() + 1  # each second of both versions in exactly one row
    # patched otherwise it keeps what it has; without the calendar it lets it go
    task.patch(priority=7)
    assert task.read()["schedule"]["calendar"] == calendar["name"]
    task.patch(schedule={"calendar": None})
    assert scene.api.ok("GET", path)["tasks"] == 0
    scene.api.ok("DELETE", path, status=204)


def test_a_calendar_that_starts_to_exclude_holds_running_tasks(scene):
    scene.executor().answer(Done())
    calendar = make(scene, "later", excluded=[])
    task = scene.task("runs", {"kind": "FIXED_RATE", "every": "500ms", "calendar": calendar["name"]})
    task.wait_runs(1, state="SUCCESS")
    scene.api.ok("PUT", f"/calendars/{calendar['name']}", {"excluded": AROUND})
    skipped = task.wait_runs(2, state="SKIPPED")
    assert {r["reason"] for r in skipped} == {"CALENDAR"} and {r["task_version"] for r in skipped} == {2}


def test_preview_shows_both_kinds_of_days(scene):
    calendar = make(scene, "cn", excluded=["2026-10-01/2026-10-07"], extra_days=["2026-10-10"])
    schedule = {"kind": "CRON", "expression": "0 0 9 ? * MON-FRI", "timezone": "Asia/Shanghai", "calendar": calendar["name"]}
    ask = {"schedule": schedule, "from": "2026-09-29T16:00:00Z", "n": 9}
    items = scene.api.ok("POST", "/schedules/preview", ask)["items"]
    assert [(i["local"][:10], i.get("calendar")) for i in items] == [
        ("2026-09-30", None), ("2026-10-01", "excluded"), ("2026-10-02", "excluded"), ("2026-10-05", "excluded"),
        ("2026-10-06", "excluded"), ("2026-10-07", "excluded"), ("2026-10-08", None), ("2026-10-09", None),
        ("2026-10-10", "extra_day")]
    task = scene.task("cn", schedule)
    got = scene.api.ok("GET", f"{task.path}/next", params={"n": 9, "from": "2026-09-29T16:00:00Z"})["items"]
    assert got == items


def test_a_rollback_takes_the_calendar_as_it_is_now(scene):
    calendar = make(scene, "back", excluded=AROUND)
    task = scene.task("back", {"kind": "CRON", "expression": "59 59 23 ? * SUN#5", "calendar": calendar["name"]})
    task.patch(priority=1)
    scene.api.ok("PUT", f"/calendars/{calendar['name']}", {"excluded": ["2026-01-01"], "extra_days": [day(2)]})
    wait_for(lambda: task.read()["version"] == 3, 10, "the task follows")
    back = scene.api.ok("POST", f"{task.path}/rollback", {"version": 1})
    assert back["version"] == 4 and back["schedule"]["calendar"] == calendar["name"]
    assert task.read()["next_at"][:10] == day(2)  # an extra day of the calendar as it is now


ICS = """BEGIN:VCALENDAR
BEGIN:VEVENT
SUMMARY:National Day (off)
DTSTART;VALUE=DATE:20261001
DTEND;VALUE=DATE:20261008
END:VEVENT
BEGIN:VEVENT
SUMMARY:National Day (work)
DTSTART;VALUE=DATE:20261010
END:VEVENT
END:VCALENDAR
"""


def test_cli(scene, tmp_path):
    cli = scene.node.cli
    file = tmp_path / "holidays.ics"
    file.write_text(ICS)
    cli("calendar", "import", "from-ics", str(file), "--workday-if", "work", check=0)
    document = tmp_path / "calendar.json"
    document.write_text(cli("calendar", "get", "from-ics", "-o", "json", check=0).stdout)
    assert '"2026-10-01/2026-10-07"' in document.read_text() and '"2026-10-10"' in document.read_text()
    assert "from-ics" in cli("calendar", "list", "-o", "name", check=0).stdout
    cli("calendar", "put", "copied", "-f", str(document), check=0)
    assert cli("calendar", "put", "copied", "--excluded", "2026-12-25", "--version", "7").returncode == 5
    cli("calendar", "put", "copied", "--excluded", "2026-12-25,2026-12-26", check=0)
    assert "2026-12-25/2026-12-26" in cli("calendar", "get", "copied", "-o", "json", check=0).stdout
    file.write_text(ICS.replace(";VALUE=DATE:20261010", ":20261010T090000"))
    refused = cli("calendar", "import", "from-ics", str(file))
    assert refused.returncode == 2 and "line 9: a time of day" in refused.stderr
    for name in ("copied", "from-ics"):
        cli("calendar", "delete", name, check=0)
    assert cli("calendar", "get", "copied").returncode == 3
