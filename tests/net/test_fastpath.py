# SPDX-License-Identifier: Apache-2.0
"""Packets to and from user space: AF_XDP sockets that the agent hands to processes without a capability."""

import os
import re
import signal
import socket
import subprocess
import time

import pytest
from lib import documents as doc
from lib.documents import DENY_IN, policy, rule
from lib.fixtures import Guarded
from lib.heddled import BUILD, wait_for

ECHO = os.path.join(BUILD, "asan", "fastpath-echo")
NOBODY = 65534
UDP7 = {"protocol": "UDP", "port": 7}
ALLOW = policy(ingress=[rule("allow", "UDP", 7, name="echo"), rule("allow", "UDP", 9, name="other")], default=DENY_IN)


def fast_path(name="echo", **spec):
    if "port" not in spec:
        spec = {"uplink": "up0", "match": [UDP7], "trusted": True, **spec}
    return doc.document("FastPath", name, {"allow": {"users": [NOBODY]}, **spec})


class Consumer:
    """A process with neither capabilities nor a user of its own, that has one fast path."""

    def __init__(self, up, ns, *names, program=ECHO, wait=True, user=NOBODY, options=()):
        self.out = os.path.join(up.daemon.dir, f"consumer-{names[0]}-{time.monotonic_ns()}")
        up.open_directories()
        with open(self.out, "wb") as log:
            self.process = ns.popen(
                "setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all",
                program, "-d", up.daemon.run_dir, *options, *names, stdout=log, stderr=log,
                env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
            )
        if wait:
            wait_for(lambda: self.text().count("frames,") == len(names), 10, what=f"the consumer: {self.text()}")

    def text(self):
        with open(self.out, encoding="utf-8") as f:
            return f.read()

    def send(self, number):
        self.process.send_signal(number)

    def end(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
        return self.process.wait(timeout=10)

    def number(self, what):
        return sum(int(n) for n in re.findall(rf" {what} (\d+)", self.text()))


class Up(Guarded):
    def open_directories(self):
        """The daemon's directories are in one that only root may enter; where it is installed they are in /run."""
        os.chmod(self.daemon.dir, 0o711)
        os.chmod(self.daemon.run_dir, 0o711)

    def path(self, name="echo"):
        return next(p for p in self.daemon.status()["fastPaths"] if p["name"] == name)

    def wait_phase(self, phase, name="echo", timeout=15):
        wait_for(lambda: self.path(name)["state"] == phase, timeout, what=f"{name} {phase}")
        return self.path(name)


def ask(up, port=7, text=b"hello", tries=1, timeout=1.0, family=4, source=0):
    """What an echo of UDP answers; None: nothing came."""
    with up.client.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as s:
        s.settimeout(timeout)
        s.bind(("", source))
        for _ in range(tries):
            s.sendto(text, (up.server_address(family), port))
            try:
                return s.recvfrom(2048)[0]
            except TimeoutError:
                pass
    return None


def start(backend, *documents, **kwargs):
    up = Up(backend, docs=[ALLOW], config_docs=documents, **kwargs)
    up.client.run("ethtool", "-K", "wire0", "tx", "off")
    return up


@pytest.fixture(params=["native", "generic"])
def up(request):
    with start(request.param, fast_path()) as host:
        yield host
        print("--- heddled's log:\n" + host.daemon.log()[-4000:])


# --- an uplink ---


def test_echo(up):
    """A consumer without capabilities gets what policy lets in and the document asks for, and answers; the rest is the kernel's."""
    consumer = Consumer(up, up.server, "echo")
    path = up.wait_phase("live")
    mode = "copy" if up.backend == "native" else "generic"
    assert [(s["queue"], s["mode"]) for s in path["sockets"]] == [(0, mode)]
    assert path["sockets"][0]["reason"]
    assert f"queue 0 {mode}" in consumer.text()
    assert (path["process"], path["user"]) == (consumer.process.pid, NOBODY)
    for family in (4, 6):
        for size in (0, 1, 1000, 1400):
            text = os.urandom(size)
            assert ask(up, text=text, family=family, tries=3) == text
    # not asked for: the kernel has it, and nobody listens there
    with up.server.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("", 9))
        s.settimeout(5)
        ask(up, 9, b"to the kernel", timeout=0.01)
        assert s.recvfrom(100)[0] == b"to the kernel"
    path = up.path()
    assert path["sockets"][0]["rx"] >= 8 and path["sockets"][0]["tx"] >= 8
    assert path["taken"] >= 8 and path["passed"] == path["dropped"] == 0
    assert consumer.end() == 0
    assert consumer.number("received") == consumer.number("transmitted") >= 8
    up.wait_phase("idle")


def test_policy_comes_first(up):
    """What policy denies never gets to user space, however the document asks for it."""
    consumer = Consumer(up, up.server, "echo")
    assert ask(up, tries=3) == b"hello"
    up.policy(policy(ingress=[rule("deny", "UDP", 7)], default=DENY_IN))
    assert ask(up) is None
    assert up.daemon.drops()[("policy-deny", "ingress")] >= 1
    before = up.path()["taken"]
    assert ask(up, timeout=0.2) is None
    assert up.path()["taken"] == before
    up.policy(ALLOW)
    assert ask(up, tries=3) == b"hello"
    assert consumer.end() == 0


def test_without_a_consumer(up):
    """fallback: pass leaves packets to the kernel, drop drops them under a reason of its own; both are counted."""
    with up.server.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("", 7))
        s.settimeout(5)
        ask(up, text=b"kernel", timeout=0.01)
        assert s.recvfrom(100)[0] == b"kernel"
        assert up.path()["passed"] == 1
        up.daemon.put("00-host.yaml", up.host_document, fast_path(fallback="drop"))
        ask(up, text=b"nobody", timeout=0.2)
        s.settimeout(0.2)
        with pytest.raises(TimeoutError):
            s.recvfrom(100)
    assert up.path()["dropped"] == 1
    assert up.daemon.drops()[("fast-path", "ingress")] == 1


def test_killed_and_restarted(up):
    """A consumer that is killed in the middle of a flow is noticed at once, and the next one has what it had."""
    for _ in range(3):
        consumer = Consumer(up, up.server, "echo")
        assert ask(up, tries=3) == b"hello"
        consumer.end(signal.SIGKILL)
        path = up.wait_phase("idle")
        assert path["sockets"] == [] and path["reason"] == "the consumer went"
    with up.server.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("", 7))
        s.settimeout(5)
        ask(up, text=b"kernel", timeout=0.01)
        assert s.recvfrom(100)[0] == b"kernel"
    assert up.path()["sessions"] == 3


def locked(pid):
    with open(f"/proc/{pid}/smaps", encoding="ascii") as f:
        return f.read().count("heddle-fastpath")


def test_nothing_leaks(up):
    """Sessions come and go; the agent has as many descriptors and mappings as before."""
    Consumer(up, up.server, "echo").end()
    up.wait_phase("idle")
    pid = up.daemon.process.pid
    before = len(os.listdir(f"/proc/{pid}/fd")), len(open(f"/proc/{pid}/maps", encoding="ascii").readlines())
    for i in range(20):
        consumer = Consumer(up, up.server, "echo")
        consumer.end(signal.SIGKILL if i % 2 else signal.SIGTERM)
        up.wait_phase("idle")
    assert len(os.listdir(f"/proc/{pid}/fd")) == before[0]
    assert len(open(f"/proc/{pid}/maps", encoding="ascii").readlines()) <= before[1] + 2
    assert locked(pid) == 0


def test_stalled():
    """A consumer that takes nothing is taken for hung; packets go the other way; awake, it is told."""
    with start("native", fast_path(stall="1s")) as up:
        consumer = Consumer(up, up.server, "echo")
        assert ask(up, tries=3) == b"hello"
        consumer.send(signal.SIGSTOP)
        # nothing for it to take: it may sleep as long as it likes
        time.sleep(2)
        assert up.path()["state"] == "live"
        ask(up, timeout=0.01)
        path = up.wait_phase("idle")
        assert path["hung"] == 1 and "hung" in path["reason"]
        with up.server.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind(("", 7))
            s.settimeout(5)
            ask(up, text=b"kernel", timeout=0.01)
            assert s.recvfrom(100)[0] == b"kernel"
        # the queue is the hung one's as long as that has its socket: another is told so
        second = Consumer(up, up.server, "echo", wait=False)
        assert second.process.wait(timeout=10) == 1
        assert "held by another socket" in second.text()
        consumer.send(signal.SIGCONT)
        assert consumer.process.wait(timeout=10) == 1
        assert "hung" in consumer.text()
        third = Consumer(up, up.server, "echo")
        assert ask(up, tries=3) == b"hello"
        assert third.end() == 0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_agent_restarts(up, how):
    """The consumer keeps its socket and its packets while no agent runs, and the next agent has it in its books."""
    consumer = Consumer(up, up.server, "echo")
    assert ask(up, tries=3) == b"hello"
    up.daemon.kill(how)
    assert ask(up, tries=2) == b"hello"
    up.daemon.start()
    path = up.wait_phase("live")
    assert path["process"] == consumer.process.pid and path["sockets"][0]["mode"] in ("copy", "generic")
    assert ask(up, tries=1, timeout=3) == b"hello"
    # no packet of it went elsewhere
    assert path["passed"] == 0 and path["dropped"] == 0
    assert consumer.end() == 0
    up.wait_phase("idle")
    again = Consumer(up, up.server, "echo")
    assert ask(up, tries=3) == b"hello"
    assert again.end() == 0


def test_a_consumer_that_died_with_the_agent(up):
    """Nobody comes back for what an earlier agent handed out: it is given up, and given to another."""
    consumer = Consumer(up, up.server, "echo")
    up.daemon.kill()
    consumer.end(signal.SIGKILL)
    up.daemon.start()
    assert up.path()["state"] == "orphaned"
    up.wait_phase("idle", timeout=20)
    again = Consumer(up, up.server, "echo")
    assert ask(up, tries=3) == b"hello"
    assert again.end() == 0


def test_who_may(up):
    stranger = Consumer(up, up.server, "echo", wait=False, user=12345)
    assert stranger.process.wait(timeout=10) == 1
    assert "the document does not let this user in" in stranger.text()
    consumer = Consumer(up, up.server, "echo")
    second = Consumer(up, up.server, "echo", wait=False)
    assert second.process.wait(timeout=10) == 1
    assert f"process {consumer.process.pid} has it" in second.text()
    # whoever is not let in any more goes
    up.daemon.put("00-host.yaml", up.host_document, fast_path(allow={"groups": [4242]}))
    assert consumer.process.wait(timeout=10) == 1
    assert "does not let this user in any more" in consumer.text()
    absent = Consumer(up, up.server, "absent", wait=False)
    assert absent.process.wait(timeout=10) == 1


def test_untrusted(up):
    """Without trust the uplink's consumer receives, in copy mode, and cannot send."""
    up.daemon.put("00-host.yaml", up.host_document, fast_path(trusted=False))
    consumer = Consumer(up, up.server, "echo")
    assert "receives only" in consumer.text()
    assert ask(up, timeout=0.5) is None
    wait_for(lambda: up.path()["sockets"][0]["rx"] == 1, 5, what="the packet")
    path = up.path()
    assert path["sockets"][0]["tx"] == 0
    if up.backend == "native":
        assert "untrusted" in path["sockets"][0]["reason"]
    assert consumer.end() == 0


MATCHES = [
    ({"protocol": "UDP", "port": 7}, {7}),
    ({"protocol": "UDP"}, {7, 9}),
    ({}, {7, 9}),
    ({"protocol": "UDP", "port": 7, "source": "10.66.1.0/24"}, {7}),
    ({"source": "10.66.1.1/32", "destination": "10.66.1.2/32"}, {7, 9}),
    ({"source": "10.67.0.0/16"}, set()),
    ({"destination": "10.66.1.3/32"}, set()),
    ({"protocol": "TCP"}, set()),
    ({"vlan": 7}, set()),
    ({"protocol": "UDP", "sourcePort": 4000}, {7, 9}),
    ({"protocol": "UDP", "sourcePort": 4001}, set()),
    ({"hostPolicy": "base"}, {7, 9}),
    ({"hostPolicy": "base", "rule": "other"}, {9}),
    ({"hostPolicy": "base", "rule": "other", "protocol": "UDP", "port": 7}, set()),
]


def test_matches():
    """Each field, alone and with others; by the rule that let a packet in; the narrower match first."""
    with start("native") as up:
        for match, taken in MATCHES:
            up.daemon.put("00-host.yaml", up.host_document, fast_path(match=[match]))
            consumer = Consumer(up, up.server, "echo")
            assert {p for p in (7, 9) if ask(up, p, source=4000, timeout=1.0 if p in taken else 0.2)} == taken, match
            consumer.end()
            up.wait_phase("idle")
        wide, narrow = fast_path("wide", match=[{"protocol": "UDP"}], fallback="drop"), fast_path("narrow")
        up.daemon.put("00-host.yaml", up.host_document, wide, narrow)
        ask(up, 7, timeout=0.01)
        ask(up, 9, timeout=0.01)
        wait_for(lambda: (up.path("narrow")["passed"], up.path("wide")["dropped"]) == (1, 1), 5, what="one each")
