"""Packets that vanish, one way or both, by nft in a network namespace of our own: what no proxy can do, since the kernels at both ends go on
by themselves (retransmission, tcp_user_timeout, keep-alive)."""
import os
import shutil
import subprocess
import sys

INSIDE = "CHAOS_OWN_NETWORK"  # set in the namespace


def inside():
    return os.environ.get(INSIDE) == "1"


def enter(script, arguments):
    """Run the script anew in a network namespace with loopback only, where this machine gives one; returns why not."""
    if inside():
        return ""
    if os.geteuid() != 0:
        return "not root"
    for program in ("unshare", "ip", "nft"):
        if not shutil.which(program):
            return f"{program} is not installed"
    test = "ip link set lo up && nft add table inet kelou_try"
    got = subprocess.run(["unshare", "-n", "sh", "-c", test], capture_output=True, text=True, check=False)
    if got.returncode:
        return got.stderr.strip()[-200:] or "no network namespaces"
    os.environ[INSIDE] = "1"
    sys.stdout.flush()
    os.execvp("unshare", ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", sys.executable, script, *arguments])


class Drops:
    """One table of nft; each port of a link may lose what goes to it (up), what comes from it (down), or both."""

    def __init__(self):
        self.ports = {}
        if inside():
            self.nft("add table inet kelou", "add chain inet kelou in { type filter hook input priority 0; }")

    @staticmethod
    def nft(*lines):
        subprocess.run(["nft", "-f", "-"], input="\n".join(lines) + "\n", text=True, check=True)

    def write(self):
        lines = ["flush chain inet kelou in"]
        for port, way in sorted(self.ports.items()):
            if way in ("up", "both"):
                lines.append(f"add rule inet kelou in tcp dport {port} counter drop")
            if way in ("down", "both"):
                lines.append(f"add rule inet kelou in tcp sport {port} counter drop")
        self.nft(*lines)

    def drop(self, port, way):
        self.ports[port] = way
        self.write()

    def heal(self, port):
        self.ports.pop(port, None)
        self.write()
