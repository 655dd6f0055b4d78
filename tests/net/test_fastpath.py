# SPDX-License-Identifier: Apache-2.0
"""Packets to and from user space: AF_XDP sockets that the agent hands to processes without a capability."""

import contextlib
import ctypes
import mmap
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import time

import pytest
from lib import documents as doc
from lib.documents import DENY_IN, policy, rule
from lib.fixtures import Guarded
from lib.heddled import BUILD, wait_for
from lib.netns import Namespace
from lib.ports import PortHost

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
            try:
                wait_for(lambda: self.text().count("frames,") == len(names), 20, what="the consumer")
            except AssertionError as e:
                raise AssertionError(f"{e}: it said {self.text()!r}, is {self.process.poll()}; the agent: {up.daemon.status()['fastPaths']}") from e

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


class Holder:
    """An AF_XDP socket of somebody else, bound to queue 0 of a device."""

    AF_XDP, SOL_XDP = 44, 283
    RX_RING, UMEM_REG, FILL_RING, COMPLETION_RING, COPY = 2, 4, 5, 6, 2

    def __init__(self, ns, device):
        length, frame = 1 << 16, 4096
        self.memory = mmap.mmap(-1, length)
        self.socket = ns.socket(self.AF_XDP, socket.SOCK_RAW)
        start_of = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.socket.setsockopt(self.SOL_XDP, self.UMEM_REG, struct.pack("=QQII", start_of, length, frame, 0))
        for ring in (self.FILL_RING, self.COMPLETION_RING, self.RX_RING):
            self.socket.setsockopt(self.SOL_XDP, ring, struct.pack("=I", 16))
        self.address = struct.pack("=HHIII", self.AF_XDP, self.COPY, ns.ifindex(device), 0, 0)
        wait_for(self._bind, what=f"queue 0 of {device}")

    def _bind(self):
        return ctypes.CDLL(None).bind(self.socket.fileno(), self.address, len(self.address)) == 0

    def close(self):
        self.socket.close()


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
    # explain knows, and changes nothing
    taken = up.path()["taken"]
    request = {"uplink": "up0", "from": up.client4, "to": up.server4, "protocol": "UDP"}
    assert up.daemon.explain(**request, dport=7)["path"][-1]["fastPath"] == "echo"
    assert "fastPath" not in up.daemon.explain(**request, dport=9)["path"][-1]
    path = up.path()
    assert path["taken"] == taken
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


def test_queues_that_are_not_free_yet():
    """Whose queue is held for a moment is served after that: of several fast paths that wait for theirs each one."""
    with PortUp() as up:
        wait_for(lambda: up.path("switch")["state"] == "idle", 5, what="the fast path")
        up.ns.ip("link add sw2 type veth peer name sw3", "link set sw2 up", "link set sw3 up")
        up.daemon.apply(doc.port("more", "sw2", "blue", addresses=["10.77.0.6"]), fast_path("more", port="more"))
        up.wait_port("more")
        names = ("switch", "more")
        for served in range(6):
            for _ in range(5):
                holders = [Holder(up.ns, device) for device in ("sw1", "sw3")]
                consumers = [Consumer(up, up.ns, name, wait=False) for name in names]
                wait_for(lambda: all("held by" in (up.path(name)["reason"] or "") for name in names), 10, what="both wait")
                for holder in holders:
                    holder.close()
                wait_for(lambda c=consumers: all("\n" in consumer.text() for consumer in c), 10, what="a word of both")
                said = [consumer.text() for consumer in consumers]
                # on a busy machine the second one may have come when the first one had waited for long enough
                if not any("held by" in text for text in said):
                    break
                end_all(up, consumers, names)
            assert all("frames," in text for text in said), (served, said)
            assert [up.wait_phase("live", name)["process"] for name in names] == [c.process.pid for c in consumers]
            end_all(up, consumers, names)


def end_all(up, consumers, names):
    for consumer, name in zip(consumers, names):
        consumer.end()
        up.wait_phase("idle", name)


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
    consumer = Consumer(up, up.server, "echo", wait=False)
    wait_for(consumer.text, 10, what="a word of the consumer")
    if "older than 6.4" in consumer.text():
        assert consumer.process.wait(timeout=10) == 1
        pytest.skip("this kernel maps rings only before a socket is bound: nobody untrusted may have an uplink")
    wait_for(lambda: "frames," in consumer.text(), 10, what="the consumer")
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


# --- a port ---

NETWORK = doc.network("blue", subnets=["10.77.0.0/24"], gateway=["10.77.0.254"], learning=False)
SWITCH_MAC = "02:00:00:00:77:05"


class PortUp(PortHost):
    """Workload a, and the port `switch` whose veth has both ends on the host: the consumer's are the far one's sockets."""

    def __init__(self, *documents, **spec):
        super().__init__()
        self.ns.ip("link add sw0 type veth peer name sw1 address " + SWITCH_MAC, "link set sw0 up", "link set sw1 up")
        self.a = self.add()
        self.a.address("10.77.0.1/24")
        self.path_document = fast_path("switch", port="switch", **spec)
        self.daemon.apply(
            NETWORK,
            doc.port("a", self.a.device, "blue", addresses=["10.77.0.1"]),
            doc.port("switch", "sw0", "blue", addresses=["10.77.0.5"], mac=SWITCH_MAC),
            self.path_document,
            *documents,
        )
        self.wait_port("a")
        self.wait_port("switch")

    open_directories = Up.open_directories
    path = Up.path
    wait_phase = Up.wait_phase

    def ask(self, text=b"hello", tries=3, timeout=1.0, to="10.77.0.5"):
        with self.a.ns.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(timeout)
            for _ in range(tries):
                s.sendto(text, (to, 7))
                try:
                    return s.recvfrom(2048)[0]
                except TimeoutError:
                    pass
        return None


def test_port():
    """The consumer is a workload: it has what is let through to the port, checksums and all, and answers as the port."""
    with PortUp() as up:
        wait_for(lambda: up.path("switch")["state"] == "idle", 5, what="the fast path")
        consumer = Consumer(up, up.ns, "switch")
        for size in (1, 500, 1400):
            text = os.urandom(size)
            assert up.ask(text) == text
        path = up.path("switch")
        assert path["port"] == "default/switch" and path["device"] == "sw1" and path["sockets"][0]["mode"] == "copy"
        assert path["sockets"][0]["tx"] >= 3
        # policy of the port comes first
        up.daemon.apply(
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {"name": "none", "namespace": "default"},
                "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
            }
        )
        # address resolution may come, and is not echoed
        before = up.path("switch")["sockets"][0]["tx"]
        assert up.ask(tries=1, timeout=0.3) is None
        assert up.path("switch")["sockets"][0]["tx"] == before
        assert any(reason == "policy-deny" for reason, _ in up.daemon.drops()), up.daemon.drops()
        up.daemon.api.delete("/v1/objects/networkpolicy/none?namespace=default")
        assert up.ask() == b"hello"
        # the agent may go and come back
        up.daemon.kill()
        assert up.ask() == b"hello"
        up.daemon.start()
        up.wait_phase("live", "switch")
        assert up.ask() == b"hello"
        assert consumer.end() == 0
        # nobody there: what is for a port goes nowhere else
        up.wait_phase("idle", "switch")
        assert up.ask(tries=1, timeout=0.2) is None
        wait_for(lambda: up.path("switch")["dropped"] >= 1, 5, what="a drop")
        up.daemon.api.delete("/v1/objects/fastpath/switch")
        wait_for(lambda: "xdp" not in up.ns.run("ip", "link", "show", "sw1").stdout, 5, what="the far end without a program")


class Hostile:
    """tests/lib/hostile.py in the place of a consumer."""

    def __init__(self, up, ns, name, *what):
        script = os.path.join(up.daemon.dir, "hostile.py")
        shutil.copy(os.path.join(os.path.dirname(__file__), "..", "lib", "hostile.py"), script)
        os.chmod(script, 0o755)
        up.open_directories()
        self.process = ns.popen(
            "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all",
            "/usr/bin/python3", script, up.daemon.run_dir, name, *what, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        line = self.process.stdout.readline()
        assert line.startswith("done"), line + self.process.stdout.read()

    def end(self):
        self.process.kill()
        self.process.wait(timeout=10)
        self.process.stdout.close()


def test_what_a_consumer_sends_is_judged():
    """Frames with another's MAC or address, and a tag, are dropped at the port as any workload's would be."""
    from scapy.all import IP, UDP, Dot1Q, Ether, Raw  # pylint: disable=import-outside-toplevel

    with PortUp() as up:
        body = UDP(sport=7, dport=7) / Raw(b"x")
        good = Ether(src=SWITCH_MAC, dst=up.a.mac) / IP(src="10.77.0.5", dst="10.77.0.1") / body
        frames = [
            good,
            Ether(src="02:00:00:00:00:99", dst=up.a.mac) / IP(src="10.77.0.5", dst="10.77.0.1") / body,
            Ether(src=SWITCH_MAC, dst=up.a.mac) / IP(src="10.77.0.6", dst="10.77.0.1") / body,
            Ether(src=SWITCH_MAC, dst=up.a.mac) / Dot1Q(vlan=5) / IP(src="10.77.0.5", dst="10.77.0.1") / body,
        ]
        with up.a.ns.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind(("", 7))
            s.settimeout(5)
            sender = Hostile(up, up.ns, "switch", "send", *[bytes(f).hex() for f in frames])
            assert s.recvfrom(100) == (b"x", ("10.77.0.5", 7))
            s.settimeout(0.3)
            more = []
            with contextlib.suppress(TimeoutError):
                while True:
                    more.append(s.recvfrom(100))
        assert more == [], up.daemon.drops()
        drops = up.daemon.drops()
        assert [drops.get((r, "egress"), 0) for r in ("source-mac", "source-ip4", "source-vlan")] == [1, 1, 1], drops
        sender.end()


def test_hostile(up):
    """Whatever a consumer does to its memory, rings and connection, another one and the agent do not notice."""
    up.daemon.put("00-host.yaml", up.host_document, fast_path(), fast_path("bad", match=[{"protocol": "UDP", "port": 9}], queues=[0]))
    # both want queue 0 of the uplink, which has one socket: the bad one has it first
    bad = Hostile(up, up.server, "bad", "descriptors")
    wait_for(lambda: up.path("bad")["sockets"][0]["invalid"] >= 5, 5, what="refused descriptors")
    for _ in range(5):
        ask(up, 9, timeout=0.01)
    assert up.daemon.process.poll() is None
    bad.end()
    up.wait_phase("idle", "bad")
    consumer = Consumer(up, up.server, "echo")
    assert ask(up, tries=3) == b"hello"
    Hostile(up, up.server, "echo", "nonsense").end()
    Hostile(up, up.server, "echo", "resume").end()
    assert ask(up, tries=3) == b"hello"
    assert up.path()["process"] == consumer.process.pid
    assert consumer.end() == 0
    up.wait_phase("idle")
    # who takes a grant and says nothing loses it
    silent = Hostile(up, up.server, "echo", "silent")
    assert up.path()["state"] == "connecting"
    up.wait_phase("idle")
    silent.end()
    again = Consumer(up, up.server, "echo")
    assert ask(up, tries=3) == b"hello"
    assert again.end() == 0


def test_forwarder():
    """The other example: frames of one fast path leave by the other, both ways."""
    with PortUp() as up:
        far = Namespace("far")
        try:
            subprocess.run(
                ["ip", "link", "add", "fw0", "netns", up.ns.name, "type", "veth", "peer", "name", "fw1", "netns", far.name], check=True
            )
            # the far host has the port's address and MAC: it is the workload, behind an uplink that is forwarded to the port
            far.ip(f"link set fw1 address {SWITCH_MAC}", "link set fw1 up", "addr add 10.77.0.5/24 dev fw1")
            far.ip(f"neigh replace 10.77.0.1 lladdr {up.a.mac} dev fw1")
            up.ns.ip("link set fw0 up")
            far.run("ethtool", "-K", "fw1", "tx", "off")
            host = doc.host("fw0", "native", pickupSeconds=0)
            everything = fast_path("wire", uplink="fw0", match=[{}])
            up.daemon.put("00-host.yaml", host, policy(default={"ingress": "allow", "egress": "allow"}), everything)
            wait_for(lambda: up.path("wire")["state"] == "idle", 5, what="the fast path of the uplink")
            consumer = Consumer(up, up.ns, "switch", "wire", program=ECHO.replace("echo", "forward"))
            with far.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                s.bind(("", 7))
                s.settimeout(10)
                with up.a.ns.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                    client.settimeout(5)
                    for _ in range(20):
                        client.sendto(b"there", ("10.77.0.5", 7))
                        data, address = s.recvfrom(100)
                        s.sendto(data + b" and back", address)
                        assert client.recvfrom(100)[0] == b"there and back"
            assert consumer.end() == 0, consumer.text()
        finally:
            far.delete()


def test_queues_without_a_socket():
    """What RSS brings by a queue that the document does not name is said; a queue that is not there is waited for."""
    with start("native", fast_path(queues=[0])) as up:
        assert up.path()["uncoveredQueues"] == []
        up.server.run("ip", "link", "set", "up0", "down")
        up.server.run("ethtool", "-L", "up0", "rx", "2", "tx", "2", check=False)
        up.server.run("ip", "link", "set", "up0", "up")
        queues = int(re.findall(r"RX:\s+(\d+)", up.server.run("ethtool", "-l", "up0").stdout)[-1])
        up.daemon.put("00-host.yaml", up.host_document, fast_path(queues=[0], stall="9s"))
        assert up.path()["uncoveredQueues"] == list(range(1, queues))
        up.daemon.put("00-host.yaml", up.host_document, fast_path(queues=[0, 60]))
        path = up.path()
        assert path["state"] == "waiting" and "ethtool -l" in path["reason"]
        assert "no socket" in up.daemon.cli("status").stdout or queues == 1


def test_detach():
    """--detach ends what is served too, and leaves neither a program at the far end nor a socket to connect to."""
    with PortUp() as up:
        consumer = Consumer(up, up.ns, "switch")
        assert up.ask() == b"hello"
        up.daemon.detach()
        assert "xdp" not in up.ns.run("ip", "link", "show", "sw1").stdout
        assert not os.path.exists(os.path.join(up.daemon.run_dir, "fastpath"))
        assert up.ask(tries=1, timeout=0.2) is None
        assert consumer.process.poll() is None
        assert consumer.end() == 0
