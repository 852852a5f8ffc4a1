"""`kelou apply`, `diff`, `export`, `task history|rollback` and `import` as people and pipelines use them, on each store."""
import json
import re

import pytest

from tests.harness.kelou import run_cli, wait_for
from tests.integration.test_config_as_code import Place

TASK = """\
name: {name}
executor_group: g
handler: h
schedule: {{kind: CRON, expression: "{cron}"}}
"""


class Files:
    """A folder of documents, and kelou upon it in the test's namespace."""

    def __init__(self, place, folder):
        self.place, self.folder = place, folder
        folder.mkdir()

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def task(self, file, name, cron="0 0 9 * * ?", more=""):
        return self.write(file, TASK.format(name=name, cron=cron) + more)

    def run(self, *arguments, code=0, stdin=None):
        return self.place.node.cli(*arguments, "--namespace", self.place.name, check=code, stdin=stdin)

    def apply(self, *arguments, code=0, path=None):
        return self.run("apply", "-f", path or self.folder, "--source", self.place.source, *arguments, code=code)

    def diff(self, *arguments, code=0, path=None):
        return self.run("diff", "-f", path or self.folder, "--source", self.place.source, *arguments, code=code)


@pytest.fixture
def files(world, tmp_path):
    return Files(Place(world), tmp_path / "documents")


def complaints(got):
    lines = got.stderr.splitlines()
    assert all(line.startswith("kelou: ") for line in lines), got.stderr
    return [line[len("kelou: "):] for line in lines]


def test_a_folder_becomes_what_is(files):
    files.task("a.yaml", "a")
    files.write("more/b.yml", TASK.format(name="b", cron="0 0 1 * * ?") + "---\n" + TASK.format(name="c", cron="0 0 2 * * ?"))
    files.write("more/deep/d.json", json.dumps({"groups": [{"name": "g"}], "tasks": [{
        "name": "d", "executor_group": "g", "handler": "h", "schedule": {"kind": "MANUAL"}}]}))
    files.write("more/readme.txt", "not a document")
    files.write(".hidden/e.yaml", TASK.format(name="e", cron="0 0 1 * * ?"))
    got = files.apply()
    ns = files.place.name
    assert [line for line in got.stdout.splitlines() if not line.startswith(" ")] == [
        f"+ task {ns}/a (version 1)", f"+ task {ns}/b (version 1)", f"+ task {ns}/c (version 1)", f"+ group {ns}/g (version 1)",
        f"+ task {ns}/d (version 1)"]
    assert re.search(r"^    secret: kls_\S+$", got.stdout, re.M)
    assert complaints(got) == ["5 created, 0 changed, 0 unchanged, 0 deleted"]
    assert files.place.names() == ["a", "b", "c", "d"]
    again = files.apply()
    assert again.stdout == "" and complaints(again) == ["0 created, 0 changed, 5 unchanged, 0 deleted"]
    files.task("a.yaml", "a", "0 0 10 * * ?")
    assert files.apply("--note", "later").stdout == f"~ task {ns}/a (version 1 → 2)\n"
    assert files.place.get("a")["note"] == "later"
    answer = json.loads(files.apply("-o", "json").stdout)
    assert {i["action"] for i in answer["items"]} == {"unchanged"} and str(answer["items"][0]["file"]).endswith("a.yaml")
    assert files.apply("-o", "name").stdout.splitlines()[0] == f"{ns}/a"


def test_diff_and_dry_run_say_all_and_write_nothing(files):
    files.task("a.yaml", "a")
    files.task("b.yaml", "b")
    files.apply()
    assert files.diff().stdout == "" and files.diff("--prune").stdout == ""
    files.task("a.yaml", "a", "0 0 10 * * ?", 'payload: {text: "你好"}\n')
    (files.folder / "b.yaml").unlink()
    files.task("c.yaml", "c")
    ns, before = files.place.name, files.place.api.items("/tasks")
    wanted = [f"~ task {ns}/a (version 1)", '    /schedule/expression: "0 0 9 * * ?" → "0 0 10 * * ?"', '    /payload/text: - → "你好"',
              f"+ task {ns}/c"]
    for got in (files.diff(code=9), files.apply("--dry-run")):
        lines = got.stdout.splitlines()
        assert lines[:4] == wanted and '    /handler: - → "h"' in lines
        assert complaints(got) == ["nothing was written; it would be: 1 created, 1 changed, 0 unchanged, 0 deleted"]
    assert f"- task {ns}/b (version 1)" in files.diff("--prune", code=9).stdout.splitlines()
    assert f"- task {ns}/b (version 1)" in files.apply("--prune", "--dry-run").stdout.splitlines()
    assert files.place.api.items("/tasks") == before
    assert "新建 1，修改 1，未变 0，删除 0" in files.diff("--lang", "zh", code=9).stderr


def test_prune_deletes_only_what_the_source_made(files):
    place = files.place
    place.api.ok("POST", "/tasks", place.doc("by-hand"))
    place.apply(place.doc("theirs"), source="another")
    files.task("a.yaml", "a")
    files.task("b.yaml", "b")
    files.write("hand.yaml", TASK.format(name="by-hand", cron="0 0 9 * * ?"))
    files.apply()
    for name in ("b.yaml", "hand.yaml"):
        (files.folder / name).unlink()
    got = files.apply("--prune")
    assert got.stdout == f"- task {place.name}/b (version 1)\n" and place.names() == ["a", "by-hand", "theirs"]
    assert files.apply("--prune").stdout == ""
    # without a source nothing says what may go
    got = files.run("apply", "-f", files.folder, "--prune", code=2)
    assert "--source" in complaints(got)[0]
    # an empty folder is a mistake rather than the wish that nothing be
    (files.folder / "a.yaml").unlink()
    assert "no documents" in complaints(files.apply("--prune", code=2))[0]
    files.write("none.yaml", "tasks: []\n")
    assert files.apply("--prune").stdout == f"- task {place.name}/a (version 1)\n"


def test_a_mistake_is_named_by_file_document_and_field_and_nothing_is_written(files):
    files.task("a.yaml", "a")
    files.write("b.yaml", TASK.format(name="b", cron="0 0 9 * * ?") + "---\n" + TASK.format(name="c", cron="0 0 99 * * ?"))
    files.write("c.json", json.dumps({"tasks": [{"name": "d", "executor_group": "g", "handler": "h",
                                                 "schedule": {"kind": "MANUAL"}, "priority_": 1}]}))
    path = files.folder
    got = complaints(files.apply(code=2))
    assert got[0].startswith(f'{path}/b.yaml: document 2: /schedule/expression:5: hour: expected 0 to 23, not "99"')
    assert got[1].startswith(f"{path}/c.json: /tasks/0/priority_: ") and "priority" in got[1]
    assert got[2:] == ["nothing was written"] and files.place.names() == []
    # what cannot be read at all is said for all files before the centre is asked
    files.write("b.yaml", "name: b\n  schedule: {")
    files.write("c.json", "{")
    files.write("d.yaml", "name: d\nhandler: h\n")
    files.write("e.yaml", "tasks: {}\n")
    files.write("f.yaml", "tasks: []\ncolour: red\n")
    got = complaints(files.apply(code=2))
    assert [line.split(":")[0] for line in got] == [f"{path}/{name}" for name in ("b.yaml", "c.json", "d.yaml", "e.yaml", "f.yaml")]
    assert "line 2" in got[0] and "line 1" in got[1] and '"schedule"' in got[2] and "/tasks" in got[3] and "/colour" in got[4]
    assert complaints(files.apply(code=1, path=path / "none.yaml"))
    assert complaints(files.run("apply", code=2)) == ["-f is missing; see --help"]


def test_the_same_task_in_two_files_is_refused(files):
    files.task("a.yaml", "same")
    files.task("b.yaml", "same", "0 0 1 * * ?")
    got = complaints(files.apply(code=5))
    assert "b.yaml" in got[0] and "a.yaml" in got[0] and got[1] == "nothing was written" and files.place.names() == []


def test_a_version_in_a_document_is_the_one_it_was_made_for(files):
    files.task("a.yaml", "a")
    files.write("b.yaml", TASK.format(name="b", cron="0 0 1 * * ?") + "---\n" + TASK.format(name="c", cron="0 0 2 * * ?"))
    files.apply()
    files.task("a.yaml", "a", "0 0 5 * * ?")
    files.write("b.yaml", TASK.format(name="b", cron="0 0 3 * * ?") + "---\n" + TASK.format(name="c", cron="0 0 4 * * ?") +
                "version: 7\n")
    got = complaints(files.apply(code=5))
    assert "b.yaml: document 2: /version: " in got[0] and "version 1, not 7" in got[0] and got[1:] == ["nothing was written"]
    assert {files.place.get(name)["version"] for name in "abc"} == {1}


def test_what_was_written_before_a_failure_is_said(files):
    """A dry run cannot know of runs that will be open when it comes to a deletion."""
    place = files.place
    files.task("a.yaml", "a")
    files.task("b.yaml", "b", more="retry: {max_attempts: 100, initial_interval: 9m}\n")
    files.apply()
    run = place.api.ok("POST", place.path("b") + "/trigger")["run_id"]  # there is no executor: it waits
    wait_for(lambda: place.api.get(f"/runs/{run}").status_code == 200, what="the run")
    (files.folder / "b.yaml").unlink()
    files.task("a.yaml", "a", "0 0 5 * * ?")
    got = files.apply("--prune", code=5)
    assert got.stdout == f"~ task {place.name}/a (version 1 → 2)\n" and "1 of 1 files were written" in got.stderr
    assert place.names() == ["a", "b"]
    assert files.apply("--prune", "--cancel").stdout == f"- task {place.name}/b (version 1)\n"
    assert place.names() == ["a"]


def test_another_source_and_adoption(files):
    place = files.place
    place.apply(place.doc("a"), source="another")
    files.task("a.yaml", "a")
    assert "another" in complaints(files.apply(code=5))[0] and place.get("a")["version"] == 1
    assert f"~ task {place.name}/a" in files.apply("--adopt").stdout and place.get("a")["managed_by"] == place.source


def test_export_and_apply_are_a_circle(files, tmp_path):
    place = files.place
    place.apply(place.doc("a", payload={"x": [1, 1e300, "no", "1", None, "多\n行", 0.5]}, description="a: b # c", timeout="2h"),
                place.doc("b", schedule={"kind": "FIXED_RATE", "every": "5m"}), place.doc("c", state="PAUSED"),
                groups=[place.group(max_connections=3), place.group("unused")])
    for form in ((), ("-o", "json")):
        text = files.run("export", *form).stdout
        got = files.run("apply", "-f", "-", stdin=text)
        assert got.stdout == "" and complaints(got) == ["0 created, 0 changed, 5 unchanged, 0 deleted"]
    files.run("export", "--to", tmp_path / "out")
    found = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.yaml"))
    assert found == [f"{place.name}/{p}.yaml" for p in ("groups/g", "groups/unused", "tasks/a", "tasks/b", "tasks/c")]
    assert files.run("diff", "-f", tmp_path / "out").stdout == ""
    # the same somewhere else
    other = Place(place.node)
    for path in (tmp_path / "out").rglob("*.yaml"):
        path.write_text(path.read_text().replace(f"namespace: {place.name}", f"namespace: {other.name}"))
    files.run("apply", "-f", tmp_path / "out")
    assert [{**t, "namespace": place.name} for t in other.export()] and other.names() == ["a", "b", "c"]
    assert other.get("a")["payload"] == place.get("a")["payload"] and other.get("c")["state"] == "PAUSED"
    # a selection brings its groups
    some = json.loads(files.run("export", "--prefix", "a", "-o", "json").stdout)
    assert [t["name"] for t in some["tasks"]] == ["a"] and [g["name"] for g in some["groups"]] == ["g"]
    assert files.run("export", "-o", "name").stdout.split() == [f"{place.name}/{n}" for n in "abc"]


def test_history_and_rollback(files):
    place = files.place
    files.task("a.yaml", "a")
    files.apply()
    files.task("a.yaml", "a", "0 0 10 * * ?")
    files.apply("--note", "because")
    lines = files.run("task", "history", "a").stdout.splitlines()
    assert re.fullmatch(r"version 2  \S+Z  bootstrap  ENABLED  # because", lines[0])
    assert lines[1] == '    /schedule/expression: "0 0 9 * * ?" → "0 0 10 * * ?"' and lines[2].startswith("version 1  ")
    assert [i["version"] for i in json.loads(files.run("task", "history", "a", "-o", "json").stdout)["items"]] == [2, 1]
    files.run("task", "rollback", "a", "--to", "1", "--version", "2")
    assert place.get("a")["schedule"]["expression"] == "0 0 9 * * ?" and place.get("a")["version"] == 3
    assert files.diff(code=9).stdout.splitlines()[1] == '    /schedule/expression: "0 0 9 * * ?" → "0 0 10 * * ?"'
    assert "version 3, not 1" in complaints(files.run("task", "rollback", "a", "--to", "2", "--version", "1", code=5))[0]
    assert "--to" in complaints(files.run("task", "rollback", "a", "--to", "9", code=3))[0]
    files.run("task", "rollback", "a", code=2)


def test_an_imported_crontab_can_be_applied(files, tmp_path):
    tab = tmp_path / "crontab"
    tab.write_text("# nightly\n30 2 * * * /usr/bin/backup --all\n@reboot /bin/x\n")
    got = run_cli("import", "crontab", tab, "--group", "jobs", "--timezone", "Asia/Shanghai", check=9)
    assert "@reboot" in got.stderr and f"{tab}:3" in got.stderr
    files.run("apply", "-f", "-", "--source", "crontab", stdin=got.stdout)
    task = files.place.get("backup")
    assert task["schedule"]["timezone"] == "Asia/Shanghai" and task["payload"] == {"command": "/usr/bin/backup --all"}
    assert task["handler"] == "command"  # not the sample executor's shell: that takes no command lines
    assert task["description"] == "nightly" and task["overlap_policy"] == "ALLOW" and task["misfire_policy"] == "SKIP"
    assert files.run("diff", "-f", "-", stdin=got.stdout).stdout == ""
