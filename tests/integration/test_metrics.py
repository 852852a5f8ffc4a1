"""/metrics and docs/metrics.md say the same, and the numbers move."""
import os
import re
import shutil
import subprocess

from tests.harness.fake_executor import Accept, Done
from tests.harness.kelou import ROOT, wait_for
from tests.harness.webhook import Webhook


def families(text):
    """{name: (type, {label names}, help)} of an exposition; checks its form line by line."""
    found, labels = {}, {}
    kinds, helps, samples = {}, {}, set()
    for line in text.splitlines():
        head = re.fullmatch(r"# (HELP|TYPE) ([a-z_]+) (.+)", line)
        if head:
            target = helps if head[1] == "HELP" else kinds
            assert head[2] not in target, f"{head[2]} is described twice"
            target[head[2]] = head[3]
            continue
        sample = re.fullmatch(r'([a-z_]+)(?:\{((?:[a-z_]+="(?:\\.|[^"\\])*",?)*)\})? (\S+)', line)
        assert sample, f"not a sample: {line}"
        assert line.rpartition(" ")[0] not in samples, f"twice: {line}"
        samples.add(line.rpartition(" ")[0])
        float(sample[3].replace("+Inf", "inf"))
        name = sample[1] if sample[1] in kinds else re.sub(r"_(bucket|sum|count)$", "", sample[1])
        assert name in kinds and name in helps, f"without TYPE or HELP: {name}"
        labels.setdefault(name, set()).update(set(re.findall(r'([a-z_]+)="', sample[2] or "")) - {"le"})
    for name, kind in kinds.items():
        found[name] = (kind, labels.get(name, set()), helps[name])
    return found


def documented():
    with open(os.path.join(ROOT, "docs/metrics.md"), encoding="utf-8") as f:
        rows = re.findall(r"^\| `((?:kelou|process)_[a-z_]+)` \| (\w+) \| ([^|]*) \| ([^|]+) \|$", f.read(), re.M)
    assert len(rows) == len({name for name, *_ in rows}), "a metric is documented twice"
    return {name: (kind, set(re.findall(r"`([a-z_]+)`", labels))) for name, kind, labels, _ in rows}


def promtool(text):
    """Debian's linter, where it is installed."""
    tool = shutil.which("promtool")
    if tool:
        got = subprocess.run([tool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False)
        assert got.returncode == 0, got.stdout + got.stderr


def test_the_page_and_the_node_say_the_same(make_node, tmp_path):
    node = make_node(settings={"alert.allowed_networks": "loopback"}).start()
    api = node.api()
    api.ok("POST", "/executor-groups", {"name": "sample"})
    api.ok("POST", "/alert-channels", {"name": "ops", "url": "http://127.0.0.1:9/"})
    wait_for(lambda: "kelou_alerts_sent_total" in node.api().get("/metrics").text)

    def same():
        text = api.get("/metrics").text
        there = {name: (kind, labels) for name, (kind, labels, _) in families(text).items()}
        page = documented()
        assert there.keys() - page.keys() == set(), "not in docs/metrics.md"
        assert page.keys() - there.keys() == set(), "only in docs/metrics.md"
        assert there == page
        promtool(text)
        return True
    wait_for(same)
    for name, (kind, _) in documented().items():
        assert (kind == "counter") == name.endswith("_total"), name
        assert kind != "histogram" or name.endswith("_seconds"), name


def test_the_numbers_move(node, api, group, executor):
    before = node.metrics()
    executor.answer(lambda d: Done(state="FAIL") if d.payload == "bad" else Accept(report="SUCCESS"))
    api.ok("POST", "/tasks", {"name": "job", "executor_group": "sample", "handler": "h", "schedule": {"kind": "MANUAL"},
                              "overlap_policy": "ALLOW", "retry": {"max_attempts": 1}})
    for payload in ("good", "bad", "good"):
        api.ok("POST", "/tasks/job/trigger", {"payload": payload})

    def moved():
        now = node.metrics()
        more = {name: value - before.get(name, 0) for name, value in now.items()}
        assert more['kelou_fires_total{group="default/sample",trigger="API"}'] == 3
        assert more['kelou_runs_total{group="default/sample",state="SUCCESS",reason=""}'] == 2
        assert more['kelou_runs_total{group="default/sample",state="FAIL",reason="ERROR"}'] == 1
        assert more['kelou_run_wait_seconds_count{group="default/sample"}'] >= 2
        assert more['kelou_dispatch_total{transport="http",result="accepted"}'] == 2
        assert more['kelou_reports_total{transport="http",result="recorded"}'] == 2
        assert now['kelou_executors{group="default/sample",state="ONLINE"}'] == 1
        assert now['kelou_executor_slots{group="default/sample",kind="total"}'] == executor.slots
        assert now['kelou_executor_slots{group="default/sample",kind="used"}'] == 0
        assert now["kelou_shards_owned"] == 32 and now["process_open_fds"] > 5
        assert now["process_resident_memory_bytes"] > 1e6 and now["process_threads"] > 5
        assert abs(now["process_start_time_seconds"] - os.stat(f"/proc/{node.pid}").st_ctime) < 10
        return True
    wait_for(moved)
    assert node.metrics()["process_cpu_seconds_total"] >= before["process_cpu_seconds_total"]


def test_waiting_alerts_are_seen(make_node):
    node = make_node(settings={"alert.allowed_networks": "loopback", "alert.poll": "50ms", "alert.retry_first": "100ms"}).start()
    api = node.api()
    with Webhook(answer=500) as hook:
        api.ok("POST", "/alert-channels", {"name": "ops", "url": hook.url})
        api.ok("POST", "/alert-rules", {"name": "all", "channels": ["ops"], "window": "0s"})
        api.ok("POST", "/executor-groups", {"name": "sample"})
        api.ok("POST", "/tasks", {"name": "job", "executor_group": "sample", "handler": "h", "schedule": {"kind": "MANUAL"},
                                  "dispatch_timeout": "100ms", "retry": {"max_attempts": 1}})
        assert node.metrics()['kelou_alerts_sent_total{channel="default/ops",result="failed"}'] == 0
        api.ok("POST", "/tasks/job/trigger")
        wait_for(lambda: node.metrics()["kelou_alerts_pending"] == 1)
        hook.answer = 200
        wait_for(lambda: node.metrics()["kelou_alerts_pending"] == 0)
        wait_for(lambda: node.metrics()["kelou_alert_oldest_due_age_seconds"] == 0)
