"""kelou completion: the scripts in the shells themselves, and the manual pages through groff."""
import os
import shutil
import subprocess

import pytest

from tests.harness.kelou import binary, run_cli

# one line of words with the one that is completed, and some that must (+) or must not (-) be offered
LINES = [
    (["ta"], "+task"), (["task", ""], "+create +list -channel -task"), (["task", "cr"], "+create"),
    (["alert", ""], "+list +channel +rule -create"), (["alert", "channel", ""], "+create +test -list2 -redeliver"),
    (["task", "create", "--"], "+--file +--idempotency-key +--server ---cancel"),
    (["task", "list", "--l"], "+--limit +--lang"), (["run", "list", "-o", ""], "+json +yaml -list"),
    (["run", "list", "-o", "json", "--st"], "+--state"), (["--lang", ""], "+en +zh -task"),
    (["--namespace", "team", "run", ""], "+wait -create"), (["completion", ""], "+bash +zsh +fish"),
    (["fsm", "show", ""], "-show"), (["apply", "--d"], "+--dry-run"), (["nonsense", ""], "+task"),
]


def completion(shell):
    return run_cli("completion", shell, check=0).stdout


def has(shell):
    return pytest.mark.skipif(not shutil.which(shell), reason=f"{shell} is not installed")


def environment(**more):
    folder = os.path.dirname(binary("kelou"))
    kept = {k: v for k, v in os.environ.items() if not k.startswith("KELOU_")}
    return {**kept, "PATH": folder + os.pathsep + os.environ["PATH"], "LC_ALL": "C.UTF-8", **more}


def bash(words, **more):
    script = completion("bash") + r'''
COMP_WORDS=(kelou "$@") COMP_CWORD=$# COMPREPLY=()
_kelou
printf '%s\n' "${COMPREPLY[@]}"
'''
    got = subprocess.run(["bash", "--norc", "-c", script, "bash", *words], capture_output=True, text=True, timeout=60, check=False,
                         env=environment(**more))
    assert got.returncode == 0 and not got.stderr, got.stderr
    return set(got.stdout.split())


def zsh(words, **more):
    script = completion("zsh") + "\n_kelou_words \"$argv[-1]\" \"${(@)argv[1,-2]}\"\nprint -r -- $REPLY_WORDS\n"
    got = subprocess.run(["zsh", "-f", "-c", script, "zsh", *words], capture_output=True, text=True, timeout=60, check=False,
                         env=environment(**more))
    assert got.returncode == 0 and not got.stderr, got.stderr
    return {w for w in got.stdout.split() if w.startswith(words[-1])}


def fish(words, tmp_path, **more):
    (tmp_path / "kelou.fish").write_text(completion("fish"), encoding="utf-8")
    line = " ".join(["kelou", *words])
    got = subprocess.run(["fish", "--no-config", "-c", f"source {tmp_path}/kelou.fish; complete -C '{line}'"], capture_output=True,
                         text=True, timeout=60, check=False, env=environment(HOME=str(tmp_path), **more))
    assert got.returncode == 0 and not got.stderr, got.stderr
    return {line.split("\t")[0] for line in got.stdout.splitlines()}


def check(offered, wanted, words):
    for rule in wanted.split():
        assert (rule[1:] in offered) == (rule[0] == "+"), f"{words}: {rule}, offered: {sorted(offered)}"


@pytest.mark.parametrize("words,wanted", LINES, ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_bash(words, wanted):
    check(bash(words), wanted, words)


def test_bash_options_with_equals_and_files(tmp_path):
    assert "json" in bash(["run", "list", "-o", "=", "j"])  # as bash splits -o=j
    (tmp_path / "some.yaml").write_text("", encoding="utf-8")
    assert f"{tmp_path}/some.yaml" in bash(["task", "create", "-f", f"{tmp_path}/so"])


@has("zsh")
@pytest.mark.parametrize("words,wanted", LINES, ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_zsh(words, wanted):
    check(zsh(words), wanted, words)


@has("fish")
@pytest.mark.parametrize("words,wanted", LINES, ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_fish(words, wanted, tmp_path):
    check(fish(words, tmp_path), wanted, words)


def test_names_come_from_the_centre(node, api):
    api.ok("POST", "/executor-groups", {"name": "sample"})
    for name in ("one", "two"):
        api.ok("POST", "/tasks", {"name": name, "executor_group": "sample", "handler": "h", "schedule": {"kind": "MANUAL"}})
    there = {"KELOU_SERVER": node.base_url, "KELOU_TOKEN_FILE": os.path.join(node.folder, "admin.token")}
    assert bash(["task", "get", ""], **there) == {"default/one", "default/two"}
    assert bash(["task", "get", "default/o"], **there) == {"default/one"}
    assert bash(["group", "get", ""], **there) == {"default/sample"}
    assert bash(["task", "get", "one", ""], **there) == set()
    assert bash(["task", "get", ""], KELOU_SERVER="http://127.0.0.1:1") == set()  # nobody answers: nothing, and nothing is said


def pages():
    keloud = binary("keloud")
    doc = os.path.join(os.path.dirname(binary("kelou")), "kelou-cli-doc")
    return {"kelou.1": [doc, "--man"], "kelou.yaml.5": [keloud, "--doc-man", "5"], "keloud.8": [keloud, "--doc-man", "8"]}


@pytest.mark.parametrize("page", ["kelou.1", "kelou.yaml.5", "keloud.8"])
def test_manual_pages(page):
    roff = subprocess.run(pages()[page], capture_output=True, text=True, timeout=60, check=True).stdout
    assert roff.isascii() and ".SH NAME" in roff and "SEE ALSO" in roff
    if page == "kelou.1":
        assert "kelou alert channel create NAME" in roff and "\\-\\-idempotency\\-key" in roff
    if page == "kelou.yaml.5":
        assert ".B alert.allowed_networks" in roff and ".B http.listen" in roff
    if shutil.which("groff"):
        got = subprocess.run(["groff", "-man", "-Tutf8", "-ww"], input=roff, capture_output=True, text=True, timeout=60, check=False)
        assert got.returncode == 0 and not got.stderr, got.stderr
