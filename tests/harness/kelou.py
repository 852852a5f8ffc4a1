"""keloud, its command line and the sample executor as black boxes."""
import json
import os
import signal
import subprocess
import sys
import time

import requests

from .servers import dies_with_me, end_process, free_port

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
READY_SECONDS = 30
HTTP_SECONDS = 20


def binary(name):
    """The path of a built program: KELOU_BUILD names the build folder (default build-test, then build)."""
    places = {"keloud": "src/server/keloud", "kelou": "src/cli/kelou",
              "kelou-sample-executor": "sdk/c/kelou-sample-executor"}
    builds = [os.environ["KELOU_BUILD"]] if os.environ.get("KELOU_BUILD") else ["build-test", "build"]
    for build in builds:
        path = os.path.join(ROOT, build, places[name])
        if os.path.exists(path):
            return path
    raise FileNotFoundError(f"{places[name]} is in none of {', '.join(builds)}: run tools/build, or set KELOU_BUILD")


def wait_for(condition, timeout=10.0, what="the condition", every=0.02):
    """Poll until condition() is true and return its value; AssertionError names `what` after `timeout` seconds.

    Raise AssertionError inside the condition to have its text shown when time is up."""
    limit, last = time.monotonic() + timeout, None
    while True:
        try:
            value = condition()
            last = value
            if value:
                return value
        except AssertionError as e:
            last = e
        if time.monotonic() >= limit:
            raise AssertionError(f"{what}: not within {timeout} s; last: {str(last)[:800]}")
        time.sleep(every)


class Api:
    """The REST API with one token. Paths are relative to /api/v1; get/post/… return the Response, `ok` the parsed body
    after it has checked the status."""

    def __init__(self, base_url, token=None):
        self.base_url = base_url
        self.token = token
        self.session = requests.Session()
        self.session.trust_env = False

    def request(self, method, path, body=None, headers=None, raw=None, **more):
        url = self.base_url + (path if path.startswith(("/healthz", "/readyz", "/metrics", "/api/")) else "/api/v1" + path)
        head = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        data = raw
        if body is not None:
            head["Content-Type"] = "application/json"
            data = json.dumps(body)
        elif raw is not None:
            head["Content-Type"] = "application/json"
        head.update(headers or {})
        return self.session.request(method, url, data=data, headers=head, timeout=more.pop("timeout", HTTP_SECONDS),
                                    allow_redirects=False, **more)

    def get(self, path, **more):
        return self.request("GET", path, **more)

    def post(self, path, body=None, **more):
        return self.request("POST", path, body=body, **more)

    def put(self, path, body=None, **more):
        return self.request("PUT", path, body=body, **more)

    def patch(self, path, body=None, **more):
        return self.request("PATCH", path, body=body, **more)

    def delete(self, path, **more):
        return self.request("DELETE", path, **more)

    def ok(self, method, path, body=None, status=None, **more):
        """The parsed answer (None when it is empty); fails the test unless the status is `status` or any 2xx."""
        answer = self.request(method, path, body=body, **more)
        good = answer.status_code == status if status else answer.ok
        assert good, f"{method} {path}: {answer.status_code} {answer.text[:1000]}"
        return answer.json() if answer.content else None

    def items(self, path, **params):
        """Every item of a list, over all its pages."""
        found, cursor = [], None
        for _ in range(10_000):
            page = self.ok("GET", path, params={**params, **({"cursor": cursor} if cursor else {})})
            found += page["items"]
            cursor = page.get("next_cursor")
            if not cursor:
                return found
        raise AssertionError(f"{path}: the pages do not end")

    def problem(self, method, path, body=None, status=400, code=None, **more):
        """The problem document of a refused request."""
        answer = self.request(method, path, body=body, **more)
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text[:1000]}"
        assert answer.headers["Content-Type"].startswith("application/problem+json"), answer.headers
        document = answer.json()
        assert document["status"] == status
        if code:
            assert document["code"] == code, document
        return document


class Process:
    """A program that a test starts, freezes, kills and starts again. Output goes to `log`."""

    def __init__(self, command, log, environment=None):
        self.command, self.log = command, log
        self.environment = {**os.environ, **(environment or {})}
        self.process = None

    def start(self):
        assert not self.alive(), "it runs already"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(dies_with_me(self.command), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=self.environment)
        return self

    @property
    def pid(self):
        return self.process.pid

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        """kill -9."""
        if self.process:
            self.process.kill()
            self.process.wait()

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def cont(self):
        self.process.send_signal(signal.SIGCONT)

    def stop(self, seconds=20):
        """Ask it to end; returns its exit code."""
        return end_process(self.process, seconds=seconds) if self.process else 0

    def wait(self, seconds=20):
        """Wait until it ends by itself; returns its exit code."""
        return self.process.wait(seconds)

    def log_text(self):
        try:
            with open(self.log, encoding="utf-8", errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""


class Keloud(Process):
    """One node. `start()` returns when /readyz says yes; `restart()` keeps database, port and state folder."""

    def __init__(self, folder, store_url=None, settings=None, environment=None, port=None, name="keloud"):
        self.folder = str(folder)
        os.makedirs(self.folder, exist_ok=True)
        self.port = port or free_port()
        self.store_url = store_url or f"sqlite:{self.folder}/kelou.db"
        self.settings = {"store.url": self.store_url, "http.listen": f"127.0.0.1:{self.port}",
                         "node.state_dir": self.folder, **(settings or {})}
        super().__init__([], os.path.join(self.folder, f"{name}.log"), environment)
        self.base_url = f"http://127.0.0.1:{self.port}"

    def start(self, wait=True):
        self.command = [binary("keloud")]
        for key, value in self.settings.items():
            self.command += ["--set", f"{key}={value}"]
        super().start()
        if wait:
            self.wait_ready()
        return self

    def ready(self):
        """Whether /readyz says yes."""
        try:
            return requests.get(self.base_url + "/readyz", timeout=5).status_code == 200
        except requests.RequestException:
            return False

    def wait_ready(self, seconds=READY_SECONDS):
        def check():
            if not self.alive():
                raise RuntimeError(f"keloud ended with {self.process.returncode}: {self.log_text()[-3000:]}")
            return self.ready()
        wait_for(check, seconds, f"keloud ready ({self.log})")

    def restart(self, kill=False, wait=True):
        """Stop (or kill -9) and start again on the same database."""
        if kill:
            self.kill()
        else:
            self.stop()
        return self.start(wait)

    def admin_token(self):
        with open(os.path.join(self.folder, "admin.token"), encoding="utf-8") as f:
            return f.read().strip()

    def api(self, token=None):
        return Api(self.base_url, token or self.admin_token())

    def cli(self, *arguments, stdin=None, token=True, check=None):
        """Run `kelou` against this node. Returns the CompletedProcess; with `check` its exit code must be that."""
        options = ["--server", self.base_url]
        if token:
            options += ["--token-file", os.path.join(self.folder, "admin.token")]
        return run_cli(*options, *arguments, stdin=stdin, check=check)

    def metrics(self, seconds=HTTP_SECONDS):
        """{'name{labels}': value} of /metrics."""
        found = {}
        for line in requests.get(self.base_url + "/metrics", timeout=seconds).text.splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                found[name] = float(value)
        return found


def run_cli(*arguments, stdin=None, check=None, seconds=60):
    """Run `kelou` without a server."""
    got = subprocess.run([binary("kelou"), *map(str, arguments)], input=stdin, capture_output=True, text=True,
                         timeout=seconds, check=False)
    if check is not None:
        assert got.returncode == check, f"kelou {' '.join(map(str, arguments))}: {got.returncode}\n{got.stdout}{got.stderr}"
    return got


class Group:
    """An executor group with its HMAC secret and an executor token, made through the API."""

    def __init__(self, node, name="sample", namespace="default", **fields):
        self.name, self.namespace = name, namespace
        admin = node.api()
        made = admin.ok("POST", "/executor-groups", {"name": name, "namespace": namespace, **fields})
        self.secret = made["secret"]
        token = admin.ok("POST", "/tokens", {"name": f"{name}-executor", "role": "EXECUTOR", "namespace": namespace,
                                             "group": name})
        self.token = token["token"]


class SampleExecutor(Process):
    """kelou-sample-executor (sdk/c) registered with a node."""

    def __init__(self, folder, node, group, name="sample-1", arguments=(), environment=None):
        os.makedirs(str(folder), exist_ok=True)
        self.port = free_port()
        files = {}
        for what, text in (("token", group.token), ("secret", group.secret)):
            files[what] = os.path.join(str(folder), f"{name}.{what}")
            with os.fdopen(os.open(files[what], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
                f.write(text + "\n")
        self.journal = os.path.join(str(folder), f"{name}.journal")
        command = [binary("kelou-sample-executor"), "--server", node.base_url, "--token-file", files["token"],
                   "--secret-file", files["secret"], "--namespace", group.namespace, "--group", group.name,
                   "--name", name, "--listen", f"127.0.0.1:{self.port}", "--journal", self.journal, *arguments]
        super().__init__(command, os.path.join(str(folder), f"{name}.log"), environment)


def main():
    """Start one node in a folder and print where it is: for trying things by hand."""
    node = Keloud(sys.argv[1]).start()
    print(node.base_url, flush=True)
    try:
        node.process.wait()
    except KeyboardInterrupt:
        node.stop()


if __name__ == "__main__":
    main()
