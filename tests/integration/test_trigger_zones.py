"""tzdata changes while the node runs: instants are computed anew; a zone that vanishes stops its own tasks only."""
import os
import shutil
from datetime import datetime, timedelta, timezone

from tests.harness.fake_executor import Done
from tests.harness.kelou import wait_for
from tests.harness.world import Scene, at

SYSTEM = "/usr/share/zoneinfo"


class Zones:
    """A folder of our own; `put` and `remove` are one update of it each, as a package would do it."""

    def __init__(self, folder):
        self.folder = str(folder)
        self.count = 0
        for name in ("Etc/UTC", "Europe/Berlin", "Asia/Shanghai"):
            self.copy(name, name)
        self.stamp()

    def copy(self, name, source):
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        shutil.copyfile(os.path.join(SYSTEM, source), path + ".new")
        os.replace(path + ".new", path)

    def stamp(self):
        self.count += 1
        path = os.path.join(self.folder, "tzdata.zi")
        with open(path + ".new", "w", encoding="utf-8") as f:
            f.write(f"# version test{self.count}\n")
        os.replace(path + ".new", path)

    def put(self, name, source):
        self.copy(name, source)
        self.stamp()

    def remove(self, name):
        os.unlink(os.path.join(self.folder, name))
        self.stamp()


def test_a_zone_changes_and_another_vanishes(make_node, tmp_path):
    zones = Zones(tmp_path / "zoneinfo")
    zones.copy("Test/Moves", "Etc/GMT-5")  # five hours east of UTC
    zones.put("Test/Goes", "Asia/Shanghai")
    node = make_node(settings={"trigger.zone_dir": zones.folder, "trigger.zone_poll": "1s"}).start()
    scene = Scene(node, tmp_path)
    scene.executor().answer(Done())
    second = {"kind": "CRON", "expression": "* * * * * ?"}
    goes = scene.task("goes", {**second, "timezone": "Test/Goes"})
    stays = scene.task("stays", {**second, "timezone": "Europe/Berlin"})
    utc = scene.task("utc", {"kind": "FIXED_RATE", "every": "1s"})
    for task in (goes, stays, utc):
        task.wait_runs(1)
    # due in six seconds by the clock of eight hours east, and only in three hours by the one that the zone has now
    due = (datetime.now(timezone.utc) + timedelta(seconds=6)).replace(microsecond=0)
    local = due + timedelta(hours=8)
    moves = scene.task("moves", {"kind": "CRON", "expression": f"{local.second} {local.minute} {local.hour} * * ?", "timezone": "Test/Moves"})
    assert abs(at(moves.stats()["next_at"]) - due - timedelta(hours=3)) < timedelta(seconds=1)
    zones.put("Test/Moves", "Asia/Shanghai")
    run = moves.wait_runs(1)[0]
    assert at(run["scheduled_at"]) == due
    wait_for(lambda: abs(at(moves.stats()["next_at"]) - due - timedelta(days=1)) < timedelta(seconds=1), 15, "the API knows it, too")
    # what was decided stays decided: nothing twice, nothing lost
    for task in (stays, utc):
        instants = [at(r["scheduled_at"]) for r in task.runs()]
        assert {b - a for a, b in zip(instants, instants[1:])} == {timedelta(seconds=1)}
    zones.remove("Test/Goes")
    wait_for(lambda: "stands still" in node.log_text(), 15, "the log says so")
    line = next(x for x in node.log_text().splitlines() if "stands still" in x)
    assert "level=error" in line and goes.id in line and "Test/Goes" in line
    count, others = len(goes.runs()), len(stays.runs())
    stays.wait_runs(others + 3)
    assert len(goes.runs()) <= count + 1  # never in UTC instead
    stays.trigger()
    refused = scene.api.problem("POST", "/tasks", scene.body("new", {**second, "timezone": "Test/Nowhere"}), 400, "unknown_zone")
    assert refused["errors"][0]["pointer"] == "/schedule/timezone"
    zones.put("Test/Goes", "Asia/Shanghai")
    goes.wait_runs(count + 2)
    scene.done()
