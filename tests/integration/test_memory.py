"""Memory that runs out: whichever allocation fails, a program says so and ends, or does without; it never falls over."""
import os
import re
import subprocess

import pytest

from tests.harness.kelou import ROOT, Keloud, binary

EXHAUSTED = 71
KNOWN = (0, 1, 2, 3, EXHAUSTED)  # docs/cli.md, and what src/base/mem.h ends with
CONFIG = "http:\n  listen: 127.0.0.1:1\nlog: {level: debug}\n"
QUESTION = '{"expr":"0 0 3 ? * MON","tz":"Europe/Berlin","from_ms":0,"n":3}\n{"expr":"x"}\n'


def shim():
    path = os.path.join(ROOT, os.environ.get("KELOU_BUILD", "build-test"), "tests/fuzz/libfail_malloc.so")
    if not os.path.exists(path):
        pytest.skip("built with a sanitizer: it has an allocator of its own")
    return path


def environment(number, on=False):
    return {**os.environ, "LD_PRELOAD": shim(), "FAIL_MALLOC": str(number), **({"FAIL_MALLOC_ON": "1"} if on else {})}


def call(command, stdin, **env):
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=20, check=False, **env)


def allocations(command, stdin):
    """How many a good call makes."""
    got = call(command, stdin, env={**environment(0), "FAIL_MALLOC_SAY": "1"})
    return int(re.search(r"allocations (\d+)", got.stderr)[1])


@pytest.mark.parametrize("command, stdin", [(("kelou", "cron", "explain", "0 0 3 ? * MON-FRI"), ""), (("kelou", "cron", "next"), QUESTION),
                                            (("keloud", "--config", "CONFIG", "--check-config"), ""), (("kelou", "task", "--help"), "")],
                         ids=("explain", "lines", "config", "help"))
def test_a_failed_allocation_ends_in_good_order(command, stdin, tmp_path, request):
    (tmp_path / "kelou.yaml").write_text(CONFIG)
    command = [binary(command[0]), *(str(tmp_path / "kelou.yaml") if word == "CONFIG" else word for word in command[1:])]
    total, most = allocations(command, stdin), 1000 if request.config.getoption("--long") else 60
    seen = set()
    for on in (False, True):
        for number in range(1, total + 1, max(1, total // most)):
            got = call(command, stdin, env=environment(number, on))
            assert got.returncode in KNOWN, f"allocation {number} of {total}: {got.returncode}: {got.stderr[-2000:]}"
            assert got.returncode == 0 or got.stderr or got.stdout, f"allocation {number} of {total}: silent"
            seen.add(got.returncode)
    assert EXHAUSTED in seen or total < 10


def test_a_node_without_memory_ends_in_good_order(tmp_path, request):
    """During its start, and when it serves already: what it had committed is there after the next start."""
    step = 150 if request.config.getoption("--long") else 1200
    node = Keloud(tmp_path / "node").start()
    made = node.api().ok("POST", "/executor-groups", {"name": "g"})
    assert node.stop() == 0
    for number in range(50, 12000, step):
        node.environment = {**(node.environment or os.environ), **environment(number)}
        node.start(wait=False)
        for _ in range(200):
            if not node.alive() or node.ready():
                break
        if node.alive():
            code = node.stop()
        else:
            code = node.process.returncode
        assert code in KNOWN, f"allocation {number}: {code}: {node.log_text()[-3000:]}"
    for key in ("LD_PRELOAD", "FAIL_MALLOC"):
        node.environment.pop(key)
    node.start()
    assert node.api().ok("GET", "/executor-groups/g")["name"] == made["name"]
    assert node.stop() == 0
