# SPDX-License-Identifier: Apache-2.0
"""One heddled with directories of its own, and its API and CLI."""

import contextlib
import glob
import http.client
import itertools
import json
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from . import documents as doc
from . import netns

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("HEDDLE_BUILD", os.path.join(ROOT, "build"))
HEDDLED = os.environ.get("HEDDLED", os.path.join(BUILD, "heddled"))
HEDDLE = os.environ.get("HEDDLE", os.path.join(BUILD, "heddle"))
TMP_PREFIX = "hdt-"
LATE = 20  # seconds: how late a busy machine may be with what comes


class ApiError(Exception):
    def __init__(self, status, body):
        super().__init__(f"HTTP {status}: {body}")
        self.status, self.body = status, body


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout=30):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Api:
    """A kept-alive connection to the daemon's socket."""

    def __init__(self, path, timeout=30):
        self.path, self.timeout = path, timeout
        self.connection = None

    def request(self, method, url, body=None):
        data = body if isinstance(body, (str, bytes)) or body is None else json.dumps(body)
        for attempt in (0, 1):
            try:
                if self.connection is None:
                    self.connection = UnixConnection(self.path, self.timeout)
                self.connection.request(method, url, body=data, headers={"Content-Type": "application/json"} if data else {})
                response = self.connection.getresponse()
                raw = response.read()
                break
            except (http.client.HTTPException, OSError):
                self.close()
                if attempt:
                    raise
        if response.status >= 400:
            raise ApiError(response.status, raw.decode(errors="replace"))
        if response.getheader("Content-Type", "").startswith("application/json"):
            return json.loads(raw)
        return raw.decode()

    def close(self):
        if self.connection:
            self.connection.close()
            self.connection = None

    def get(self, url):
        return self.request("GET", url)

    def post(self, url, body=""):
        return self.request("POST", url, body)

    def delete(self, url):
        return self.request("DELETE", url)


class Heddled:
    """
    The daemon in a namespace. Directories live in one temporary folder named after this process, which remove() (or a
    later run, see sweep_dead_runs) unmounts and deletes.
    """

    def __init__(self, ns, docs=(), options=(), env=None):
        self.ns = ns
        self.dir = tempfile.mkdtemp(prefix=f"{TMP_PREFIX}{os.getpid()}-")
        self.config, self.run_dir, self.state_dir, self.bpffs = (
            os.path.join(self.dir, d) for d in ("config", "run", "state", "bpffs")
        )
        for d in (self.config, self.run_dir, self.state_dir, self.bpffs):
            os.mkdir(d)
        self.socket = os.path.join(self.run_dir, "heddled.sock")
        self.options, self.env = list(options), dict(env or {})
        self.process = None
        self._markers = itertools.count(1)
        self.log_path = os.path.join(self.dir, "log")
        self.api = Api(self.socket)
        if docs:
            self.write("00-host.yaml", *docs)

    # --- files ---

    def write(self, name, *docs):
        """Replaces a configuration file the way an editor does: a new file renamed over the old one."""
        path = os.path.join(self.config, name)
        content = docs[0] if len(docs) == 1 and isinstance(docs[0], str) else doc.text(*docs)
        with open(path + ".tmp~", "w", encoding="utf-8") as f:
            f.write(content)
        os.rename(path + ".tmp~", path)
        return path

    def put(self, name, *docs, timeout=10):
        """
        Exactly these documents in the file of that name, in one transaction; returns once they are in force. An address group of a name of
        its own goes with them: when the daemon has it, it has the rest.
        """
        marker = f"state-{next(self._markers)}"
        self.write(name, *docs, doc.group(marker, "192.0.2.1/32"))
        before = self.status().get("lastError")

        def in_force():
            try:
                self.api.get(f"/v1/objects/addressgroup/{marker}")
                return True
            except ApiError as e:
                if e.status != 404:
                    raise
            error = self.status().get("lastError")
            assert not error or error == before, f"refused: {error}"
            return False

        wait_for(in_force, timeout, interval=0.005, what=f"{marker} in force")

    def unlink(self, name):
        os.unlink(os.path.join(self.config, name))

    # --- the process ---

    def argv(self, *more):
        return [HEDDLED, "--run-dir", self.run_dir, "--bpffs", self.bpffs, *more]

    def start(self, wait=True, timeout=60):
        assert self.process is None or self.process.poll() is not None
        with open(self.log_path, "ab") as log:
            self.process = self.ns.popen(
                *self.argv("--config", self.config, "--state-dir", self.state_dir, *self.options),
                stdout=log,
                stderr=log,
                env={**os.environ, **self.env},
            )
        with open(os.path.join(self.dir, "pid"), "w", encoding="ascii") as f:
            f.write(str(self.process.pid))
        if wait:
            self.wait(timeout)
        return self

    def wait(self, timeout=15):
        result = self.cli("wait", "--timeout", f"{timeout * netns.PATIENCE}s", check=False, timeout=timeout + 10)
        if result.returncode != 0:
            code = self.process.poll()
            raise AssertionError(f"heddled not in force (exit {code}): {result.stderr}\n--- its log:\n{self.log()}")

    def kill(self, sig=signal.SIGKILL):
        self.api.close()
        if self.process and self.process.poll() is None:
            self.process.send_signal(sig)
        if self.process:
            self.process.wait(timeout=20)
        self.process = None

    def stop(self):
        self.kill(signal.SIGTERM)

    def restart(self):
        self.kill()
        self.start()

    def detach(self, check=True):
        self.kill(signal.SIGTERM)
        return self.ns.run(*self.argv("--detach"), check=check)

    def remove(self):
        """Leaves nothing: not an assertion of --detach, which has a test of its own."""
        with contextlib.suppress(Exception):
            self.kill()
        with contextlib.suppress(Exception):
            self.detach(check=False)
        remove_directory(self.dir)

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    # --- the CLI ---

    def cli(self, *argv, check=True, timeout=30, **kwargs):
        return self.ns.run(HEDDLE, "--socket", self.socket, *argv, check=check, timeout=timeout, **kwargs)

    def json(self, *argv, **kwargs):
        return json.loads(self.cli("-o", "json", *argv, **kwargs).stdout)

    def cli_popen(self, *argv):
        return self.ns.popen(HEDDLE, "--socket", self.socket, *argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    # --- policy ---

    def apply(self, *docs, confirm=None):
        return self.api.post("/v1/apply" + (f"?confirm={confirm}" if confirm else ""), doc.text(*docs))

    def status(self):
        return self.api.get("/v1/status")

    def programs(self, device="up0"):
        """{hook: mode} of what is really attached to the device."""
        return {p["hook"]: p["mode"] for p in self.status()["programs"] if p["device"] == device and p["mode"] != "off"}

    def generation(self):
        return self.status()["generation"]

    def set_objects(self, *docs):
        """Exactly these applied objects: the new ones in one transaction, then those that are not wanted any more go."""
        wanted = {(d["kind"], d["metadata"]["name"]) for d in docs}
        if docs:
            self.apply(*docs)
        for kind in ("HostPolicy", "AddressGroup"):
            for item in self.api.get(f"/v1/objects/{kind.lower()}")["items"]:
                name = item["metadata"]["name"]
                if (kind, name) not in wanted:
                    self.api.delete(f"/v1/objects/{kind.lower()}/{name}")

    def explain(self, **request):
        return self.api.post("/v1/explain", request)

    def drops(self):
        """{(reason, direction): packets}, only those that are not zero."""
        result = {}
        for item in self.api.get("/v1/counters")["drops"]:
            if item["packets"]:
                result[(item["reason"], item["direction"])] = item["packets"]
        return result

    def rules(self):
        return self.api.get("/v1/rules")["items"]

    def rule_packets(self, policy, name):
        return sum(r["packets"] for r in self.rules() if r["policy"] == policy and r.get("name") == name)

    def flows(self, **match):
        items = self.api.get("/v1/flows")["items"]
        return [f for f in items if all(f.get(k) == v for k, v in match.items())]

    # --- bpftool ---

    def bpftool(self, *argv):
        return json.loads(self.ns.run("bpftool", "-j", *argv).stdout or "null")

    def pinned_maps(self):
        return sorted(glob.glob(os.path.join(self.bpffs, "heddle", "maps", "*")))


class Monitor:
    """`heddle -o json monitor`, read line by line."""

    def __init__(self, daemon, *options):
        before = self._connections(daemon)
        self.process = daemon.cli_popen("-o", "json", "monitor", *options)
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        # The stream has no greeting. Once it is connected its request is as good as there, and what is asked after that is answered after it.
        wait_for(lambda: self._connections(daemon) > before, interval=0.01, what="the monitor is connected")
        time.sleep(0.1 * netns.PATIENCE)
        daemon.status()

    @staticmethod
    def _connections(daemon):
        """To the daemon's socket, whose folder is bound by another name than ours."""
        rows = [line.split() for line in daemon.ns.run("cat", "/proc/net/unix").stdout.splitlines()]
        return sum(row[5] == "03" and row[-1].endswith("/heddled.sock") for row in rows)

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(json.loads(line))

    def find(self, timeout=LATE, **match):
        deadline = time.monotonic() + timeout * netns.PATIENCE
        seen = []
        while True:
            try:
                event = self.lines.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no event {match}; seen: {seen}") from None
            if all(event.get(k) == v for k, v in match.items()):
                return event
            seen.append(event)

    def seen(self):
        """What has come so far and was not asked for."""
        events = []
        with contextlib.suppress(queue.Empty):
            while True:
                events.append(self.lines.get_nowait())
        return events

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.kill()
        self.process.wait()


def wait_for(condition, timeout=5, interval=0.02, what="condition"):
    """Polls until condition() is true and returns its value. No measure of time: what takes longer than `timeout` may be the machine, and is waited for."""
    timeout = max(timeout, LATE) * netns.PATIENCE
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout} s (last: {value!r})")
        time.sleep(interval)


def remove_directory(path):
    with open("/proc/self/mounts", encoding="utf-8") as f:
        mounts = [line.split()[1] for line in f]
    for mount in sorted((m for m in mounts if m.startswith(path + "/")), reverse=True):
        subprocess.run(["umount", "-l", mount], check=False)
    shutil.rmtree(path, ignore_errors=True)


def sweep_dead_runs():
    """Ends daemons and removes directories of test runs that died; only what carries our own prefix."""
    for path in glob.glob(os.path.join(tempfile.gettempdir(), TMP_PREFIX + "*")):
        match = re.match(rf"{TMP_PREFIX}(\d+)-", os.path.basename(path))
        if not match or netns.pid_alive(int(match.group(1))):
            continue
        with contextlib.suppress(OSError, ValueError):
            with open(os.path.join(path, "pid"), encoding="ascii") as f:
                pid = int(f.read())
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                if path.encode() in f.read():  # the number may belong to somebody else by now
                    os.kill(pid, signal.SIGKILL)
        remove_directory(path)
    netns.sweep_dead_runs()
