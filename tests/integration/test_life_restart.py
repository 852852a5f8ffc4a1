"""The node stops, is killed, comes back: what was open goes on, what was missed gets what its policy says."""
import time
from datetime import datetime, timedelta, timezone

import pytest

from tests.harness.fake_executor import Accept, Done, Hang
from tests.harness.kelou import wait_for
from tests.harness.world import Scene, at, seconds_between, soon, text_of

ERROR = {"type": "T", "message": "m"}


def scene_of(node, tmp_path, request):
    scene = Scene(node, tmp_path)

    def end():
        if node.ready():
            scene.done()
        for executor in scene.executors:
            executor.stop()
    request.addfinalizer(end)
    return scene


def each_instant_once(runs, anchor, every):
    """No instant between the first and the last row is left out or in two rows; a row may stand for a range."""
    covered = []
    for run in runs:
        last = at(run["scheduled_at"])
        count = run.get("missed", {"count": 1})["count"]
        first = at(run["missed"]["first"]) if count > 1 else last
        assert (last - first) == (count - 1) * every, run
        covered += [first + n * every for n in range(count)]
    covered.sort()
    assert all((i - anchor) % every == timedelta(0) for i in covered)
    assert {b - a for a, b in zip(covered, covered[1:])} <= {every}, [i.isoformat() for i in covered]
    return covered


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_open_runs_survive_the_node(make_node, tmp_path, request, how):
    node = make_node(settings={"run.write_running_after": "100ms", "executor.lost_after": "15s"}).start()
    scene = scene_of(node, tmp_path, request)
    works, late, mute, slow = (scene.executor(name, name) for name in ("works", "late", "mute", "slow"))
    works.answer(Accept(report=None))
    mute.answer(Hang(60))
    slow.answer(Accept(delay=1.0, result="while it was down"))
    late.close_port()
    ticking = scene.task("tick", {"kind": "FIXED_RATE", "every": "100ms", "anchor": soon(-1)}, group="tick", overlap_policy="ALLOW",
                         timeout="1h", dispatch_timeout="10m", misfire_threshold="10m")
    running = scene.task("running", group="works", overlap_policy="QUEUE_ALL")
    watched = scene.task("watched", group="works", attempt_timeout="3s")
    ids = {"running": running.trigger(), "watched": watched.trigger()}
    works.wait_deliveries(2)
    scene.wait_run(ids["running"], "RUNNING", reason="ACCEPTED")
    scene.wait_run(ids["watched"], "RUNNING")
    ids["queued"] = running.trigger()
    scene.wait_run(ids["queued"], "PENDING", reason="QUEUED")
    ids["mute"] = scene.task("mute", group="mute", dispatch_timeout="1m").trigger()
    mute.wait_deliveries(1)
    ids["nobody"] = scene.task("nobody", group="nobody", dispatch_timeout="1m").trigger()
    scene.wait_run(ids["nobody"], "PENDING", reason="DISPATCHING")
    works.script(Done(state="FAIL", error=ERROR))
    ids["retry"] = scene.task("retry", group="works", retry={"max_attempts": 2, "initial_interval": "2s", "jitter": 0}).trigger()
    scene.wait_run(ids["retry"], "PENDING", reason="RETRY_WAIT")
    delay = scene.task("delay", {"kind": "FIXED_DELAY", "every": "200ms"}, group="slow")
    slow.wait_deliveries(1)
    ids["delay"] = slow.deliveries[0].run_id
    scene.wait_run(ids["delay"], "RUNNING")
    ids["asked"] = scene.task("asked", group="slow").trigger()  # acknowledged: it is durable
    seen = len(works.deliveries)
    if how == "kill":
        node.kill()
    else:
        node.stop()
    ended = wait_for(lambda: time.time() - slow.deliveries[0].at > 1.2, 10, "reports are due while nobody listens")
    assert ended
    node.start()
    # RUNNING: watched, not delivered again, ended by its report
    run = scene.run(ids["running"])
    assert (run["state"], run["attempt"], run["executor"]) == ("RUNNING", 1, "works")
    first = works.deliveries[0]
    answer = works.report(ids["running"], 1, first.fence, "SUCCESS", result="after the restart")
    assert answer.json()["results"][0]["status"] == "recorded"
    assert scene.run(ids["running"])["result"] == "after the restart"
    # QUEUED: released by that
    wait_for(lambda: ids["queued"] in {d.run_id for d in works.deliveries}, what="the queued one is delivered")
    assert [d.run_id for d in works.deliveries].count(ids["running"]) == 1 and len(works.deliveries) > seen
    # its time-out goes on
    run = scene.wait_run(ids["watched"], "FAIL")
    assert run["reason"] == "TIMEOUT" and 3 <= seconds_between(run["fired_at"], run["finished_at"])
    # RETRY_WAIT: the second attempt comes
    second = wait_for(lambda: next((d for d in works.deliveries if d.run_id == ids["retry"] and d.attempt == 2), None), 15, "attempt 2")
    works.report(ids["retry"], 2, second.fence)
    run = scene.run(ids["retry"])
    assert (run["state"], [a["attempt"] for a in run["attempts"]]) == ("SUCCESS", [1, 2])
    # being delivered: again, with the same id and attempt, and a fence that is not lower
    mute.answer(Done("heard"))
    run = scene.wait_run(ids["mute"])
    again = [d for d in mute.deliveries if d.run_id == ids["mute"]]
    assert (run["state"], run["attempt"], {d.attempt for d in again}) == ("SUCCESS", 1, {1})
    assert len(again) >= 2 and again[-1].fence >= again[0].fence and again[-1].idempotency_key == ids["mute"]
    # waiting for an executor: still
    assert scene.run(ids["nobody"])["reason"] == "DISPATCHING"
    nobody = scene.executor("nobody", "nobody")
    nobody.answer(Done())
    assert scene.wait_run(ids["nobody"], "SUCCESS")["attempt"] == 1
    # reported when somebody listened again; FIXED_DELAY goes on from there
    run = scene.wait_run(ids["delay"], "SUCCESS")
    assert run["result"] == "while it was down" and run["attempt"] == 1
    nxt = delay.wait_runs(2)[1]
    assert at(nxt["scheduled_at"]) - at(run["finished_at"]) == timedelta(milliseconds=200)
    assert scene.wait_run(ids["asked"], "SUCCESS")["attempt"] == 1
    # no instant was lost or doubled
    tick = scene.executor("tick", "tick", slots=5000)
    tick.answer(Done())
    ticking.pause()
    wait_for(lambda: not ticking.runs(state="PENDING,RUNNING"), 30, "all instants have their run")
    runs = ticking.runs()
    each_instant_once(runs, at(ticking.made["schedule"]["anchor"]), timedelta(milliseconds=100))
    assert len(runs) >= 20 and all(r["state"] == "SUCCESS" and r["attempt"] == 1 for r in runs)


def test_a_stop_in_the_middle_of_deliveries(make_node, tmp_path, request):
    """An executor that has been sent runs and has not answered when the node stops: only that one is asked again."""
    node = make_node(settings={"executor.lost_after": "30s", "dispatch.ack_timeout": "1m"}).start()
    scene = scene_of(node, tmp_path, request)
    one = scene.executor("one")
    one.answer(Hang(60))
    task = scene.task("hangs", overlap_policy="ALLOW", dispatch_timeout="5m")
    ids = [task.trigger() for _ in range(6)]
    one.wait_deliveries(len(ids))
    two = scene.executor("two")
    node.stop()
    for executor in (one, two):
        executor.answer(Done())
    node.start()
    for run_id in ids:
        run = scene.wait_run(run_id, "SUCCESS")
        assert (run["executor"], run["attempt"]) == ("one", 1)
    assert two.deliveries == []
    assert scene.wait_run(task.trigger(), "SUCCESS")["attempt"] == 1


def test_instants_missed_by_a_stop_of_the_node(make_node, tmp_path, request):
    """One stop of more than the least misfire_threshold for all policies."""
    node = make_node(settings={"executor.lost_after": "2m"}).start()
    scene = scene_of(node, tmp_path, request)
    executor = scene.executor(slots=2000)
    executor.answer(Done())
    quarter, second = timedelta(milliseconds=250), timedelta(seconds=1)
    anchor = datetime.now(timezone.utc).replace(microsecond=0)
    end = anchor + timedelta(seconds=6)
    ends = {"kind": "FIXED_RATE", "every": "250ms", "anchor": text_of(anchor), "end_at": text_of(end)}
    goes_on = {"kind": "FIXED_RATE", "every": "1s", "anchor": text_of(anchor)}
    common = {"misfire_threshold": "15s", "overlap_policy": "ALLOW"}
    tasks = {
        "once": scene.task("once", ends, misfire_policy="FIRE_ONCE", **common),
        "skip": scene.task("skip", ends, misfire_policy="SKIP", **common),
        "all": scene.task("all", ends, misfire_policy="FIRE_ALL", catchup_rate=10, **common),
        "few": scene.task("few", ends, misfire_policy="FIRE_ALL", catchup_max_runs=3, catchup_rate=1000, **common),
        "window": scene.task("window", ends, misfire_policy="FIRE_ALL", catchup_window="10s", **common),
        "late": scene.task("late", ends, misfire_policy="SKIP", overlap_policy="ALLOW", misfire_threshold="10m"),
        "queue": scene.task("queue", ends, misfire_policy="FIRE_ALL", overlap_policy="QUEUE_ONE", misfire_threshold="15s", catchup_rate=1000)}
    on = scene.task("on", goes_on, misfire_policy="FIRE_ONCE", **common)
    cron = scene.task("cron", {"kind": "CRON", "expression": "* * * * * ?", "end_at": text_of(end)}, misfire_policy="FIRE_ONCE", **common)
    one = {p: scene.task(f"one-{p}", {"kind": "ONE_TIME", "run_at": text_of(end)}, misfire_policy=p, **common)
           for p in ("FIRE_ONCE", "SKIP", "FIRE_ALL")}
    delay = scene.task("delay", {"kind": "FIXED_DELAY", "every": "500ms"}, misfire_threshold="15s", misfire_policy="FIRE_ONCE")
    paused = scene.task("paused", goes_on, misfire_policy="FIRE_ALL", catchup_rate=1000, **common)
    for task in (*tasks.values(), on, cron, delay, paused):
        task.wait_runs(1)
    held_from = at(paused.pause()["effective_at"])
    assert node.stop() == 0
    stopped = datetime.now(timezone.utc)
    assert stopped < end - 4 * quarter, "the node took too long to be tested so"
    wait_for(lambda: datetime.now(timezone.utc) > end + timedelta(seconds=15.5), 60, "the instants are misfires")
    node.start()
    for task in (*tasks.values(), cron, *one.values()):
        task.wait_state("COMPLETED", 20)
        wait_for(lambda t=task: not t.runs(state="PENDING,RUNNING"), 20, f"{task.name} has caught up")
    rows, missed = {}, {}
    for name, task in tasks.items():
        runs = task.runs()
        covered = each_instant_once(runs, anchor, quarter)
        assert covered[-1] <= end < covered[-1] + quarter, name  # up to the last one
        rows[name] = [r for r in runs if at(r["scheduled_at"]) > stopped]
        missed[name] = [i for i in covered if i > stopped]
        assert len(missed[name]) >= 4
    made = {name: [r for r in found if r["state"] == "SUCCESS"] for name, found in rows.items()}
    folded = {name: [r for r in found if (r["state"], r["reason"]) == ("SKIPPED", "MISFIRE")] for name, found in rows.items()}
    assert all(len(made[n]) + len(folded[n]) == len(rows[n]) for n in rows)

    (run,) = rows["once"]
    assert (run["state"], run["origin"]) == ("SUCCESS", "CATCHUP") and run["missed"]["count"] >= len(missed["once"])
    assert at(run["missed"]["last"]) == at(run["scheduled_at"]) == missed["once"][-1] and at(run["missed"]["first"]) <= missed["once"][0]
    (run,) = rows["skip"]
    assert (run["state"], run["reason"], run["attempt"]) == ("SKIPPED", "MISFIRE", 0) and run["missed"]["count"] >= len(missed["skip"])
    assert not folded["all"] and all(r["origin"] == "CATCHUP" for r in made["all"]) and len(made["all"]) == len(missed["all"])
    given = {d.run_id: d for d in executor.deliveries}
    times = sorted(given[r["id"]].at for r in made["all"])
    assert times[-1] - times[0] >= (len(times) - 1) * 0.1 - 0.1  # released at catchup_rate
    assert len([r for r in tasks["few"].runs() if r["origin"] == "CATCHUP"]) == 3 and len(folded["few"]) == 1
    assert not made["window"] and len(folded["window"]) == 1  # all older than the window
    assert not folded["late"] and all(r["origin"] == "SCHEDULE" for r in made["late"])  # lateness, no misfire
    order = [d.scheduled_at for d in executor.deliveries if d.run_id in {r["id"] for r in made["queue"]}]
    assert not folded["queue"] and [at(t) for t in order] == missed["queue"]  # one after the other, none skipped for the overlap
    wanted = {"FIRE_ONCE": "SUCCESS", "SKIP": "SKIPPED", "FIRE_ALL": "SUCCESS"}
    for policy, task in one.items():
        (run,) = task.runs()
        assert (run["state"], at(run["scheduled_at"])) == (wanted[policy], end), policy
    assert each_instant_once(cron.runs(), anchor, second)[-1] == end
    assert [r["state"] for r in cron.runs() if at(r["scheduled_at"]) > stopped] == ["SUCCESS"]
    # one that goes on: what is older than the threshold is one row, what is younger fires
    on.pause()
    wait_for(lambda: not on.runs(state="PENDING,RUNNING"), 20, "on has caught up")
    each_instant_once(on.runs(), anchor, second)
    assert {r["state"] for r in on.runs()} == {"SUCCESS", "SKIPPED"}
    runs = delay.wait_runs(2)
    assert not [r for r in delay.runs() if r["state"] == "SKIPPED"] and runs[1]["state"] in ("PENDING", "RUNNING", "SUCCESS")
    # a pause is no outage: nothing of it fires until it is asked for
    assert not [r for r in paused.runs() if at(r["scheduled_at"]) > held_from]
    until = at(paused.resume(catch_up=True)["effective_at"])
    wait_for(lambda: [r for r in paused.runs(state="SUCCESS") if at(r["scheduled_at"]) > until], 20, "goes on")
    paused.pause()
    wait_for(lambda: not paused.runs(state="PENDING,RUNNING"), 20, "has caught up")
    runs = paused.runs()
    each_instant_once(runs, anchor, second)
    assert all(r["origin"] == ("CATCHUP" if held_from < at(r["scheduled_at"]) <= until else "SCHEDULE") for r in runs)


def test_what_waits_is_fired_by_whoever_comes_after_the_edit(make_node, tmp_path, request):
    node = make_node().start()
    scene = scene_of(node, tmp_path, request)
    scene.executor().answer(Done())
    schedule = {"kind": "FIXED_RATE", "every": "300d", "anchor": soon(1.5), "jitter": "7d", "max_runs": 1}
    tasks = [scene.task(f"w{n}", schedule) for n in range(20)]
    wait_for(lambda: datetime.now(timezone.utc) > at(schedule["anchor"]), 5, "their instant has come")
    for task in tasks[:10]:
        task.patch(schedule={"jitter": "0s"})
    node.kill()  # some of them are fired by now, some are not
    node.start()
    for task in tasks[10:]:
        task.patch(schedule={"jitter": "0s"})
    for task in tasks:
        task.wait_runs(1, state="SUCCESS,SKIPPED")
        task.wait_state("COMPLETED", 30)
        assert [at(r["scheduled_at"]) for r in task.runs()] == [at(schedule["anchor"])]
