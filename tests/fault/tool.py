"""What the tools that a person starts have in common: a scratch folder with a PostgreSQL, and the verdict."""
import os
import shutil
import signal
import subprocess
import tempfile

from tests.harness.servers import Postgres


def machine_state():
    """Load of the machine, for people who read the output."""
    return subprocess.run(["uptime"], capture_output=True, text=True, check=False).stdout.strip()


def run_in_scratch(work, keep, name, folder=None):
    """work(folder, server, say) → Outcome; prints it and returns the exit code. What was found stays where it is."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = tempfile.mkdtemp(prefix=f"kelou-{name}-", dir=folder)
    os.chmod(folder, 0o755)
    server, good = Postgres({"max_connections": 200}).start(), False
    print(machine_state(), flush=True)
    try:
        got = work(folder, server, lambda text: print("  " + text, flush=True))
        print("\n".join([got.text, *(f"wrong: {text}" for text in got.wrong), machine_state()]))
        good = got.good
    finally:
        if good and not keep:
            server.stop()
            shutil.rmtree(folder, ignore_errors=True)
        else:
            server.stop_hard()
            print(f"database in {server.folder} (port {server.port}), journals and logs in {folder}")
    print("good" if good else "FOUND")
    return 0 if good else 1
