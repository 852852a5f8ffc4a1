"""What `meson install` puts where, and the unit of systemd."""
import os
import re
import shutil
import signal
import socket
import subprocess

import pytest

from tests.harness.kelou import ROOT, Keloud, binary, wait_for


def build_folder():
    return os.path.dirname(os.path.dirname(os.path.dirname(binary("keloud"))))


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The root of an installation of the build under test."""
    root = tmp_path_factory.mktemp("root")
    if not shutil.which("meson"):
        pytest.skip("meson is not installed")
    got = subprocess.run(["meson", "install", "-C", build_folder(), "--no-rebuild", "--destdir", str(root)], capture_output=True,
                         text=True, timeout=300, check=False)
    assert got.returncode == 0, got.stdout[-2000:] + got.stderr[-2000:]
    return root


def find(root, ending):
    found = [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names
             if os.path.join(folder, name).endswith(ending)]
    assert len(found) == 1, f"{ending}: {found}"
    return found[0]


def test_everything_is_there(installed):
    for ending in ("/bin/keloud", "/bin/kelou", "/man1/kelou.1", "/man5/kelou.yaml.5", "/man8/keloud.8",
                   "/bash-completion/completions/kelou", "/site-functions/_kelou", "/vendor_completions.d/kelou.fish",
                   "/systemd/system/keloud.service", "/kelou/examples/kelou.yaml"):
        assert os.path.getsize(find(installed, ending)) > 200
    for ending in ("/bin/keloud", "/bin/kelou"):
        subprocess.run([find(installed, ending), "--version"], check=True, timeout=20, capture_output=True)


def test_the_shipped_settings_are_good(installed):
    settings = find(installed, "/kelou/examples/kelou.yaml")
    got = subprocess.run([binary("keloud"), "--check-config", "--config", settings], capture_output=True, text=True, timeout=20, check=False)
    assert got.returncode == 0, got.stderr


def test_the_unit(installed, tmp_path):
    unit = find(installed, "/systemd/system/keloud.service")
    with open(unit, encoding="utf-8") as f:
        text = f.read()
    program = re.search(r"^ExecStart=(\S+)", text, re.M)[1]
    assert os.path.basename(program) == "keloud" and "@" not in re.sub(r"=@system-service|~@\w+", "", text)
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    copy = tmp_path / "keloud.service"  # with programs that are there
    copy.write_text(text.replace(program, binary("keloud")), encoding="utf-8")
    got = subprocess.run(["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, timeout=60, check=False)
    ours = [line for line in got.stderr.splitlines() if "keloud" in line]
    assert not ours, got.stderr
    got = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=20", str(copy)], capture_output=True, text=True,
                         timeout=60, check=False)
    if "unrecognized option" in got.stderr:
        pytest.skip("this systemd-analyze has no offline check")
    assert got.returncode == 0, (got.stdout + got.stderr)[-1500:]


def test_the_service_manager_is_told(tmp_path):
    """READY after the start, RELOADING and READY around SIGHUP, STOPPING at the end."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(20)
        node = Keloud(tmp_path / "node", environment={"NOTIFY_SOCKET": path}).start(wait=False)
        try:
            assert manager.recv(64) == b"READY=1" and wait_for(node.ready)
            node.process.send_signal(signal.SIGHUP)
            assert [manager.recv(64), manager.recv(64)] == [b"RELOADING=1", b"READY=1"]
            assert node.stop() == 0
            assert manager.recv(64) == b"STOPPING=1"
        finally:
            node.kill()


def test_no_manager_no_harm(tmp_path):
    for path in ("", "x", "/nowhere/at/all", "@kelou-nobody", "/" + "x" * 200):
        node = Keloud(tmp_path / "node", environment={"NOTIFY_SOCKET": path}).start()
        assert node.stop() == 0
    assert os.path.isdir(ROOT)
