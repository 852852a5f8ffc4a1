"""Real servers for tests: started on loopback with a data folder and a port of their own, stopped by pid."""
import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time

START_SECONDS = 60
STOP_SECONDS = 20


class ServerError(RuntimeError):
    """A server did not start, or did not do what it was asked."""


def free_port():
    """A port of 127.0.0.1 that was free just now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def dies_with_me(command, user=None):
    """The command, started so that it gets SIGKILL when the thread that started it ends (and as `user`)."""
    prefix = ["setpriv", "--pdeathsig", "KILL"]
    if user:
        prefix += [f"--reuid={user}", f"--regid={user}", "--init-groups"]
    return [*prefix, "--", *command]


def end_process(process, stop=signal.SIGTERM, seconds=STOP_SECONDS):
    """Ask a child to end, insist after `seconds`. Returns its exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.send_signal(stop)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait(STOP_SECONDS)


def children_of(pid):
    """The ids of the processes whose parent is `pid`."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as f:
                if int(f.read().rpartition(")")[2].split()[1]) == pid:
                    found.append(int(name))
        except OSError:
            pass
    return found


def postgres_bin():
    """The folder of the newest PostgreSQL, or None."""
    found = glob.glob("/usr/lib/postgresql/*/bin/postgres")
    return os.path.dirname(max(found, key=lambda p: int(p.split("/")[4]))) if found else None


class Postgres:
    """A PostgreSQL with fsync on. PostgreSQL refuses root, so as root it runs as the user postgres.

    After start(): `port`, `url(database)`, create_database(), restart(), kill(), stop(). stop() removes the folder."""

    def __init__(self, settings=None):
        self.bin = postgres_bin()
        if not self.bin:
            raise ServerError("PostgreSQL is not installed (tools/setup test)")
        self.user = "postgres" if os.geteuid() == 0 else None
        self.role = self.user or pwd.getpwuid(os.geteuid()).pw_name
        self.settings = settings or {}
        self.folder = self.process = self.port = None
        self.made = 0

    def _run(self, *command):
        got = subprocess.run(dies_with_me(command, self.user), capture_output=True, text=True, check=False, cwd="/")
        if got.returncode:
            raise ServerError(f"{os.path.basename(command[0])}: {got.stderr.strip()[-2000:]}")
        return got.stdout

    def make_folder(self):
        self.folder = tempfile.mkdtemp(prefix="kelou-pg-")
        os.chmod(self.folder, 0o711)
        self.data = os.path.join(self.folder, "data")
        self.own_folder("data")

    def own_folder(self, name):
        """A folder beside the data that belongs to the server; returns its path."""
        path = os.path.join(self.folder, name)
        os.mkdir(path, 0o700)
        if self.user:
            entry = pwd.getpwnam(self.user)
            os.chown(path, entry.pw_uid, entry.pw_gid)
        return path

    def start(self):
        """Make a cluster in a scratch folder and start it. Returns self."""
        self.make_folder()
        self._run(f"{self.bin}/initdb", "-D", self.data, "-A", "trust", "-U", self.role, "-E", "UTF8", "--locale=C.UTF-8",
                  "--no-instructions", "--no-sync")
        self.resume()
        return self

    def standby(self):
        """A started server that follows this one by streaming."""
        other = Postgres(self.settings)
        other.make_folder()
        other._run(f"{self.bin}/pg_basebackup", "-D", other.data, "-R", "--checkpoint=fast", "--no-sync", "-h", "127.0.0.1", "-p", str(self.port), "-U",
                   self.role)
        other.resume()
        return other

    def configure(self, **settings):
        """Change settings of the running server."""
        for name, value in settings.items():
            self.psql(f"ALTER SYSTEM SET {name} = '{value}'")
        self.psql("SELECT pg_reload_conf()")

    def resume(self):
        """Start the cluster that is there (after stop_hard or kill)."""
        for attempt in range(3):
            self.port = self.port or free_port()
            settings = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": self.data,
                        "shared_buffers": "128MB", "max_connections": 100, "logging_collector": "off",
                        "log_min_messages": "warning", **self.settings}
            options = [f"--{name}={value}" for name, value in settings.items()]
            with open(os.path.join(self.folder, "log"), "ab") as log:
                self.process = subprocess.Popen(
                    dies_with_me([f"{self.bin}/postgres", "-D", self.data, *options], self.user),
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/")
            if self._becomes_ready():
                return
            self.port = None
        raise ServerError(f"PostgreSQL does not start: {self.log_tail()}")

    def _becomes_ready(self):
        limit = time.monotonic() + START_SECONDS
        while time.monotonic() < limit and self.process.poll() is None:
            got = subprocess.run([f"{self.bin}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False)
            if got.returncode == 0:
                return True
            time.sleep(0.05)
        end_process(self.process, signal.SIGQUIT)
        return False

    def log_tail(self):
        """The last lines of the server's log."""
        with open(os.path.join(self.folder, "log"), encoding="utf-8", errors="replace") as f:
            return f.read()[-2000:]

    def url(self, database="postgres"):
        """The URL of a database, as keloud's store.url takes it."""
        return f"postgresql://{self.role}@127.0.0.1:{self.port}/{database}"

    def psql(self, sql, database="postgres"):
        """Run SQL; returns the rows as text, fields separated by |."""
        got = subprocess.run([f"{self.bin}/psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql,
                              self.url(database)], capture_output=True, text=True, check=False)
        if got.returncode:
            raise ServerError(got.stderr.strip())
        return got.stdout.strip()

    def configure_offline(self, name, value):
        """Change a setting of the server that is down."""
        with open(os.path.join(self.data, "postgresql.auto.conf"), "a", encoding="utf-8") as f:
            f.write(f"{name} = '{value}'\n")

    def create_database(self, name=None):
        """A new empty database; returns its URL."""
        self.made += 1
        name = name or f"kelou_{os.getpid()}_{self.made}"
        self.psql(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def kill(self):
        """What a crash does: every process of the server ends at once, nothing is flushed."""
        backends = children_of(self.process.pid)
        for pid in [self.process.pid, *backends]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait(STOP_SECONDS)

    def stop_hard(self):
        """An immediate shutdown: recovery runs at the next start."""
        end_process(self.process, signal.SIGQUIT)

    def restart(self):
        """A fast shutdown and a start on the same port."""
        end_process(self.process, signal.SIGINT)
        self.resume()

    def stop(self):
        """End the server and remove its folder."""
        if self.process:
            end_process(self.process, signal.SIGINT)
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()
