"""Each kind of schedule through the whole life: which instants become runs, and when the task is COMPLETED."""
from datetime import datetime, timedelta, timezone

from tests.harness.fake_executor import Accept, Done
from tests.harness.world import at, seconds_between, soon, text_of


def ended(task, count, **filters):
    """The first `count` runs, once they have ended."""
    task.wait_runs(count, state="SUCCESS,FAIL,CANCELLED,SKIPPED", **filters)
    runs = task.runs()[:count]
    return runs if all(r["finished_at"] for r in runs) else ended(task, count + 1, **filters)[:count]


def test_cron_fires_at_each_of_its_instants_once(scene):
    executor = scene.executor()
    executor.answer(Done({"ok": 1}))
    task = scene.task("cron", {"kind": "CRON", "expression": "* * * * * ?", "timezone": "Asia/Kathmandu"}, payload={"n": 1})
    runs = ended(task, 4)
    instants = [at(r["scheduled_at"]) for r in runs]
    assert all(i.microsecond == 0 for i in instants) and instants[0] > at(task.made["effective_at"])
    assert [b - a for a, b in zip(instants, instants[1:])] == [timedelta(seconds=1)] * 3
    for run in runs:
        assert (run["state"], run["reason"], run["origin"], run["attempt"]) == ("SUCCESS", "NONE", "SCHEDULE", 1)
        assert at(run["scheduled_at"]) <= at(run["fired_at"]) <= at(run["finished_at"]) and run["task_version"] == 1
        assert run["executor"] == "one" and run["lateness_ms"] >= 0
    delivered = {d.run_id: d for d in executor.deliveries}
    assert len(delivered) == len(executor.deliveries)  # each once
    first = delivered[runs[0]["id"]]
    assert first.signed and first.payload == {"n": 1} and first.idempotency_key == first.run_id and first.task_name == task.name
    assert first.scheduled_at == runs[0]["scheduled_at"] and first.fired_at == runs[0]["fired_at"] and first.fence > 0
    assert (first.attempt, first.max_attempts, first.namespace, first.handler, first.task_id) == (1, 1, "default", "any", task.id)


def test_unix_cron_in_a_zone_previews_what_it_would_fire(scene):
    task = scene.task("unix", {"kind": "CRON", "expression": "30 4 * * 1", "timezone": "Europe/Berlin"})
    nxt = scene.api.ok("GET", f"{task.path}/next", params={"n": 2})["items"]
    assert task.stats()["next_at"] == nxt[0]["at"] and at(nxt[0]["local"]).isoformat()[11:16] == "04:30"
    assert at(nxt[0]["local"]).weekday() == 0


def test_fixed_rate_never_drifts(scene):
    executor = scene.executor()
    executor.answer(Accept(delay=0.25))  # longer than a third of the interval: has no influence
    anchor = datetime.now(timezone.utc) - timedelta(seconds=7.123457)
    task = scene.task("rate", {"kind": "FIXED_RATE", "every": "300ms", "anchor": text_of(anchor)}, overlap_policy="ALLOW")
    runs = task.wait_runs(8)[:8]
    steps = [(at(r["scheduled_at"]) - at(text_of(anchor))) / timedelta(milliseconds=300) for r in runs]
    assert all(s == int(s) for s in steps)
    assert [int(s) for s in steps] == list(range(int(steps[0]), int(steps[0]) + 8))  # none left out, none twice


def test_fixed_rate_without_an_anchor_counts_from_its_creation(scene):
    scene.executor().answer(Done())
    task = scene.task("rate", {"kind": "FIXED_RATE", "every": "400ms"})
    anchor = at(task.read()["schedule"].get("anchor", task.made["effective_at"]))
    for run in task.wait_runs(3):
        assert ((at(run["scheduled_at"]) - anchor) % timedelta(milliseconds=400)) == timedelta(0)


def test_fixed_delay_counts_from_the_end_whatever_the_state(scene):
    executor = scene.executor()
    executor.script(Accept(delay=0.3), Done(state="FAIL", error={"type": "T", "message": "m"}), Done(state="CANCELLED"))
    executor.answer(Accept(delay=0.1))
    task = scene.task("delay", {"kind": "FIXED_DELAY", "every": "350ms"})
    runs = ended(task, 5)
    assert [r["state"] for r in runs] == ["SUCCESS", "FAIL", "CANCELLED", "SUCCESS", "SUCCESS"]
    assert at(runs[0]["scheduled_at"]) == at(task.made["effective_at"]) + timedelta(milliseconds=350)
    for before, after in zip(runs, runs[1:]):
        assert at(after["scheduled_at"]) - at(before["finished_at"]) == timedelta(milliseconds=350)


def test_one_time_fires_once_and_is_completed(scene):
    executor = scene.executor()
    instant = soon(1.0)
    local = at(instant).astimezone(timezone(timedelta(hours=8))).replace(tzinfo=None).isoformat(timespec="microseconds")
    one = scene.task("once", {"kind": "ONE_TIME", "run_at": instant})
    two = scene.task("local", {"kind": "ONE_TIME", "run_at": local, "timezone": "Asia/Shanghai"})
    for task in (one, two):
        task.wait_state("COMPLETED")
        run = ended(task, 1)[0]
        assert at(run["scheduled_at"]) == at(instant) and run["state"] == "SUCCESS" and run["origin"] == "SCHEDULE"
        assert "next_at" not in task.stats()
    again = scene.wait_run(one.trigger(), "SUCCESS")  # completed is not dead
    assert again["origin"] == "API" and len(one.runs()) == 2 and one.read()["state"] == "COMPLETED"
    assert len(executor.deliveries) == 3


def test_one_time_in_the_past_needs_a_misfire_policy(scene):
    scene.executor()
    past = {"kind": "ONE_TIME", "run_at": soon(-600)}
    problem = scene.api.problem("POST", "/tasks", scene.body("no", past), 400, "in_the_past")
    assert problem["errors"][0]["pointer"] == "/schedule/run_at"
    wanted = {"FIRE_ONCE": ("SUCCESS", "NONE", "CATCHUP"), "FIRE_ALL": ("SUCCESS", "NONE", "CATCHUP"),
              "SKIP": ("SKIPPED", "MISFIRE", "SCHEDULE")}
    tasks = {policy: scene.task(policy.lower(), past, misfire_policy=policy) for policy in wanted}
    late = scene.task("late", {"kind": "ONE_TIME", "run_at": soon(-5)}, misfire_policy="SKIP")  # within the threshold
    for policy, task in tasks.items():
        task.wait_state("COMPLETED")
        run = ended(task, 1)[0]
        assert (run["state"], run["reason"], run["origin"]) == wanted[policy], policy
        assert at(run["scheduled_at"]) == at(past["run_at"]) and "missed" not in run
    assert ended(late, 1)[0]["state"] == "SUCCESS"


def test_manual_runs_when_asked_only(scene):
    executor = scene.executor()
    executor.answer(lambda d: Done({"saw": d.payload}))
    scene.executor("two").answer(Done({"saw": "two"}))
    task = scene.task("manual", payload="own")
    assert "next_at" not in task.stats() and task.runs() == []
    run = scene.wait_run(task.trigger(executor="one"), "SUCCESS")
    assert (run["origin"], run["result"], run["pinned_to"]) == ("API", {"saw": "own"}, "one")
    for n in range(3):
        assert scene.wait_run(task.trigger(payload={"n": n}, executor="two"), "SUCCESS")["executor"] == "two"
    assert scene.wait_run(task.trigger(payload=None, executor="one"), "SUCCESS")["result"]["saw"] in (None, "own")
    assert len(task.runs()) == 5 and task.stats()["fires"] == 5


def test_start_and_end_bound_the_instants(scene):
    scene.executor().answer(Done())
    anchor, start, end = soon(-5), soon(0.9), soon(2.1)
    rate = scene.task("rate", {"kind": "FIXED_RATE", "every": "250ms", "anchor": anchor, "start_at": start, "end_at": end},
                      overlap_policy="ALLOW")
    cron = scene.task("cron", {"kind": "CRON", "expression": "* * * * * ?", "start_at": start, "end_at": end})
    delay = scene.task("delay", {"kind": "FIXED_DELAY", "every": "200ms", "start_at": start, "end_at": end})
    whole = [at(anchor) + k * timedelta(milliseconds=250) for k in range(100)]
    rate.wait_state("COMPLETED")
    assert [at(r["scheduled_at"]) for r in rate.runs()] == [i for i in whole if at(start) <= i <= at(end)]
    cron.wait_state("COMPLETED")
    second = at(start).replace(microsecond=0)
    assert [at(r["scheduled_at"]) for r in cron.runs()] == [
        i for i in (second + timedelta(seconds=k) for k in range(5)) if at(start) <= i <= at(end)]
    delay.wait_state("COMPLETED")
    runs = delay.runs()
    assert at(runs[0]["scheduled_at"]) == at(start) and len(runs) >= 2 and at(runs[-1]["scheduled_at"]) <= at(end)


def test_max_runs_completes_the_task(scene):
    scene.executor().answer(Done())
    kinds = [{"kind": "FIXED_RATE", "every": "150ms"}, {"kind": "FIXED_DELAY", "every": "150ms"},
             {"kind": "CRON", "expression": "* * * * * ?"}]
    tasks = [scene.task(f"max{n}", {**kind, "max_runs": 3 if n < 2 else 2}, overlap_policy="ALLOW") for n, kind in enumerate(kinds)]
    manual = scene.wait_run(tasks[0].trigger(), "SUCCESS")  # does not count
    for n, task in enumerate(tasks):
        task.wait_state("COMPLETED")
        wanted = 3 if n < 2 else 2
        scheduled = [r for r in ended(task, wanted + (n == 0)) if r["id"] != manual["id"]]
        assert len(scheduled) == wanted and "next_at" not in task.stats()
    again = tasks[1].patch(schedule={"kind": "FIXED_DELAY", "every": "100ms", "max_runs": 5})
    assert again["state"] == "ENABLED"  # a changed schedule may have instants again
    tasks[1].wait_runs(4)
    tasks[1].wait_state("COMPLETED")
    assert len(tasks[1].runs()) == 5


def test_jitter_spreads_the_fires_and_not_the_instants(scene):
    scene.executor().answer(Done())
    anchor = soon(-3)
    tasks = [scene.task(f"j{n}", {"kind": "FIXED_RATE", "every": "1s", "jitter": "800ms", "anchor": anchor}) for n in range(8)]
    told = [t.stats() for t in tasks]  # next_due is told beforehand, and kept
    shares = set()
    for task, said in zip(tasks, told):
        share = seconds_between(said["next_at"], said.get("next_due", said["next_at"]))
        assert 0 <= share < 0.8
        shares.add(share)
        runs = {r["scheduled_at"]: r for r in task.wait_runs(2)}
        assert ((at(said["next_at"]) - at(anchor)) % timedelta(seconds=1)) == timedelta(0)
        for nominal, run in runs.items():
            assert ((at(nominal) - at(anchor)) % timedelta(seconds=1)) == timedelta(0)  # scheduled_at is the nominal instant
            if nominal == said["next_at"]:
                assert at(run["fired_at"]) >= at(said.get("next_due", nominal))
    assert len(shares) >= 6 and max(shares) - min(shares) > 0.15  # a hash spreads them
    shortest = {"kind": "FIXED_RATE", "every": "1s", "jitter": "1s"}
    assert scene.api.problem("POST", "/tasks", scene.body("bad", shortest))["errors"][0]["pointer"] == "/schedule/jitter"
