# SPDX-License-Identifier: Apache-2.0
"""What ports may send and be sent: rates of real TCP, whatever way it takes, and what becomes of more than that."""

import contextlib
import json
import socket
import threading
import time

import pytest
from lib import documents as doc
from lib.heddled import Monitor, wait_for
from lib.netns import Link, Namespace
from lib.overlay import Fabric
from lib.ports import PortHost
from lib.raw import IP, UDP, Ether, Raw
from lib.traffic import accept_pair

BLUE = doc.network("blue", subnets=["10.77.0.0/24", "fd77::/64"], gateway=["10.77.0.254", "fd77::fe"], routesTo=["host"])
NODE = {4: "192.0.2.1", 6: "2001:db8:77::1"}
RATE = 20_000_000
TCP_SHARE = {4: 1448 / 1500, 6: 1428 / 1500}  # of a full packet with timestamps, which is what counts
SECONDS = 8


class Stream:
    """TCP as fast as it goes; what has arrived is counted."""

    def __init__(self, stack, client_ns, server_ns, address, port=7700):
        self.bytes, self.family = 0, 6 if ":" in address else 4
        self._client, self._server = accept_pair(client_ns, server_ns, address, port)
        stack.callback(self.close)
        self._threads = [threading.Thread(target=t, daemon=True) for t in (self._send, self._receive)]
        for t in self._threads:
            t.start()

    def _send(self):
        data = bytes(1 << 16)
        with contextlib.suppress(OSError):
            while True:
                self._client.sendall(data)

    def _receive(self):
        with contextlib.suppress(OSError):
            while data := self._server.recv(1 << 20):
                self.bytes += len(data)

    def close(self):
        for s in (self._client, self._server):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
        for t in self._threads:
            t.join(timeout=10)
        for s in (self._client, self._server):
            s.close()


def rates_of(streams, seconds):
    """bit/s of whole packets, by stream."""
    before, start = {s: s.bytes for s in streams}, time.monotonic()
    time.sleep(seconds)
    now, elapsed = {s: s.bytes for s in streams}, time.monotonic() - start
    return {s: (now[s] - before[s]) * 8 / TCP_SHARE[s.family] / elapsed for s in streams}


def expect_rate(streams, rate=RATE):
    """
    Within 5%, once TCP has found out. TCP comes in bursts between its timeouts, and a machine that is busy elsewhere holds up a sender until its burst has run
    full: a window that shows too little is no proof, one that shows too much is.
    """
    time.sleep(1)
    left, seen = set(streams.values()), []
    for _ in range(4):
        measured = rates_of(left, SECONDS)
        seen.append({name: round(measured[s] / rate, 3) for name, s in streams.items() if s in measured})
        assert all(r < rate * 1.05 for r in measured.values()), seen
        left = {s for s in left if measured[s] < rate * 0.95}
        if not left:
            return
    raise AssertionError(f"too little: {seen}")


@pytest.fixture
def host():
    with PortHost() as h:
        h.ns.ip(f"addr add {NODE[4]}/32 dev lo", f"addr add {NODE[6]}/128 dev lo nodad")
        yield h


def work(host, count):
    ports = host.add(count)
    for w in ports if count > 1 else [ports]:
        w.ip = {4: f"10.77.0.{w.number}", 6: f"fd77::{w.number}"}
        w.address(f"{w.ip[4]}/24", f"{w.ip[6]}/64")
        w.via("10.77.0.254", "fd77::fe")
    return ports


def port(w, ingress=None, egress=None, **burst):
    limits = {way: {"rate": rate, **burst} for way, rate in (("ingress", ingress), ("egress", egress)) if rate}
    return doc.port(f"p{w.number}", w.device, "blue", addresses=list(w.ip.values()), **({"bandwidth": limits} if limits else {}))


def bandwidth(host, w):
    return host.port(f"p{w.number}")["bandwidth"]


def test_tcp(host, family):
    """From a port and to one; between ports and with the host. Others are not held up."""
    a, b, c, d, free = work(host, 5)
    host.daemon.apply(BLUE, port(a, egress="20M"), port(b), port(c, ingress="20M"), port(d, ingress="20M", egress="20M"), port(free))
    for w in (a, b, c, d, free):
        host.wait_port(f"p{w.number}")
    assert bandwidth(host, b) is None
    assert bandwidth(host, a) == {"ingress": None, "egress": {"rate": RATE, "burst": 8_000_000, "droppedPackets": 0, "droppedBytes": 0}}
    with contextlib.ExitStack() as stack:
        expect_rate({
            "from": Stream(stack, a.ns, b.ns, b.ip[family]),
            "to": Stream(stack, b.ns, c.ns, c.ip[family]),
            "from the host": Stream(stack, host.ns, d.ns, d.ip[family]),
            "to the host": Stream(stack, d.ns, host.ns, NODE[family]),
        })
        other = Stream(stack, b.ns, free.ns, free.ip[family])
        assert rates_of([other], 2)[other] > 5 * RATE
    for w, way in ((a, "egress"), (c, "ingress"), (d, "ingress"), (d, "egress")):
        assert bandwidth(host, w)[way]["droppedPackets"] > 0
    assert {reason for reason, _ in host.daemon.drops() if reason == "bandwidth"}
    # without a limit there is none
    host.daemon.apply(port(a))
    assert bandwidth(host, a) is None
    with contextlib.ExitStack() as stack:
        other = Stream(stack, a.ns, b.ns, b.ip[family], 7701)
        assert rates_of([other], 2)[other] > 5 * RATE


def test_several_streams_share(host):
    a, b = work(host, 2)
    host.daemon.apply(BLUE, port(a, egress="20M"), port(b))
    for w in (a, b):
        host.wait_port(f"p{w.number}")
    with contextlib.ExitStack() as stack:
        streams = [Stream(stack, a.ns, b.ns, b.ip[4], 7700 + n) for n in range(4)]
        time.sleep(1)
        seen = []
        for _ in range(4):
            seen.append(sum(rates_of(streams, SECONDS).values()) / RATE)
            assert seen[-1] < 1.05, seen
            if seen[-1] > 0.95:
                return
        raise AssertionError(seen)


@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_over_the_overlay(mode):
    with Fabric() as f:
        one, two = f.heddle(), f.heddle()
        blue = f.network("blue", 100, mode=mode)
        a, b, c, d = one.work(blue, 1), two.work(blue, 2), two.work(blue, 3), one.work(blue, 4)
        f.up()
        for end, limits in ((one, {a.name: {"egress": {"rate": "20M"}}}), (two, {c.name: {"ingress": {"rate": "20M"}}})):
            documents = end.documents()
            for document in documents:
                if document["kind"] == "Port" and document["metadata"]["name"] in limits:
                    document["spec"]["bandwidth"] = limits[document["metadata"]["name"]]
            end.put(*documents)
        with contextlib.ExitStack() as stack:
            expect_rate({"from": Stream(stack, a.ns, b.ns, b.ip4), "to": Stream(stack, d.ns, c.ns, c.ip4)})


def fq_statistics(ns):
    (queue,) = [q for q in json.loads(ns.run("tc", "-j", "-s", "qdisc", "show", "dev", "up0").stdout) if q["kind"] == "fq"]
    return queue


def test_an_uplink_with_fq():
    """What leaves there waits in that queue until it is time: hardly anything is lost. Routed by the host, which hands on when that is."""
    rate = 5_000_000
    with PortHost(start=False, host_spec={"uplinks": [{"device": "up0", "xdp": "off"}]}) as h, contextlib.ExitStack() as stack:
        far = Namespace("far")
        stack.callback(far.delete)
        link = Link(far, "far0", h.ns, "up0", 1)
        if h.ns.run("tc", "qdisc", "add", "dev", "up0", "root", "fq", check=False).returncode:
            pytest.skip("no fq in this kernel: make check-kernels runs it in guests")
        h.ns.sysctl("net.ipv4.ip_forward", 1)
        far.run("ip", "route", "add", "10.77.0.0/24", "via", link.b4)
        h.daemon.start()
        a = work(h, 1)
        h.daemon.apply(BLUE, port(a, egress="5M"))
        h.wait_port("p1", timeout=30)
        assert [u["queue"] for u in h.daemon.status()["uplinks"]] == ["fq"]
        expect_rate({"out": Stream(stack, a.ns, far, link.a4)}, rate)
        statistics, dropped = fq_statistics(h.ns), bandwidth(h, a)["egress"]
        assert statistics["throttled"] > 20, statistics
        assert dropped["droppedBytes"] < statistics["bytes"] / 10, (statistics, dropped)
        # without it, what is too much is lost again
        h.ns.run("tc", "qdisc", "del", "dev", "up0", "root")
        wait_for(lambda: not h.dump("control")[0]["value"]["flags"] & 4, 30, what="the queue is gone")


class Blast:
    """UDP packets of 1000 bytes of L3, several times as many as may pass; what arrives is counted."""

    def __init__(self, stack, client_ns, server_ns, address, rate, port=7800):
        self.packets, self.rate, self._stop = 0, rate, threading.Event()
        self._receiver = server_ns.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._receiver.bind(("0.0.0.0", port))
        self._receiver.settimeout(0.2)
        self._sender = client_ns.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sender.connect((address, port))
        self._threads = [threading.Thread(target=t, daemon=True) for t in (self._send, self._receive)]
        for t in self._threads:
            t.start()
        stack.callback(self.close)

    def _send(self):
        sent, start = 0, time.monotonic()
        while not self._stop.is_set():
            if sent * 8000 < (time.monotonic() - start) * self.rate:
                with contextlib.suppress(OSError):
                    self._sender.send(bytes(972))
                sent += 1
            else:
                time.sleep(0.002)

    def _receive(self):
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                self._receiver.recv(2048)
                self.packets += 1

    def measure(self, seconds):
        before, start = self.packets, time.monotonic()
        time.sleep(seconds)
        return (self.packets - before) * 8000 / (time.monotonic() - start)

    def expect_rate(self, rate):
        """Within 5%; as above, a window in which a busy machine held up the sender is no proof."""
        seen = []
        for _ in range(4):
            seen.append(self.measure(4) / rate)
            assert seen[-1] < 1.05, seen
            if seen[-1] > 0.95:
                return
        raise AssertionError(f"too little: {seen}")

    def close(self):
        self._stop.set()
        for t in self._threads:
            t.join(timeout=10)
        self._sender.close()
        self._receiver.close()


@pytest.mark.parametrize("way", ["ingress", "egress"])
def test_more_than_may_pass(host, way):
    a, b = work(host, 2)
    limited, options = (a, {"egress": "2M"}) if way == "egress" else (b, {"ingress": "2M"})
    host.daemon.apply(BLUE, *(port(w, **(options if w is limited else {}), burst="200k") for w in (a, b)))
    for w in (a, b):
        host.wait_port(f"p{w.number}")
    with contextlib.ExitStack() as stack, Monitor(host.daemon, "--drops") as monitor:
        blast = Blast(stack, a.ns, b.ns, b.ip[4], 8_000_000)
        event = monitor.find(reason="bandwidth", protocol="UDP")
        assert (event["verdict"], event["destination"], event["port"]) == ("drop", b.ip[4], f"default/p{a.number}")
        time.sleep(0.5)
        blast.expect_rate(2_000_000)
        # it is told while it lasts; a packet between two may still find room
        frame = Ether(src=a.mac, dst=b.mac) / IP(src=a.ip[4], dst=b.ip[4]) / UDP(sport=7800, dport=7800) / Raw(bytes(972))
        asked = {"frame": bytes(frame).hex(), "port": f"p{a.number}"}
        answer = wait_for(lambda: (r := host.daemon.explain(**asked))["reason"] == "bandwidth" and r, what="explain says so")
        assert answer["verdict"] == "drop"
        dropped = bandwidth(host, limited)[way]
    counted = host.daemon.drops()[("bandwidth", "egress")]
    assert dropped["droppedPackets"] > 1000 and dropped["droppedBytes"] == dropped["droppedPackets"] * 1000
    assert abs(counted - bandwidth(host, limited)[way]["droppedPackets"]) < 10


def test_restarts_and_changes(host):
    """The burst is given once; a new rate counts at once, and loses nothing of what it lets through."""
    a, b = work(host, 2)
    documents = [BLUE, port(a, egress="1M", burst="4M"), port(b)]
    host.daemon.apply(*documents)
    for w in (a, b):
        host.wait_port(f"p{w.number}")
    with contextlib.ExitStack() as stack:
        start = time.monotonic()
        blast = Blast(stack, a.ns, b.ns, b.ip[4], 4_000_000)
        wait_for(lambda: blast.packets > 600, 10, what="the burst has passed")  # 500 packets, and those of its own time
        for _ in range(2):
            host.daemon.restart()
        dropped = bandwidth(host, a)["egress"]["droppedPackets"]
        assert dropped > 0
        time.sleep(1)
        assert blast.packets * 8000 < (time.monotonic() - start) * 1_000_000 * 1.02 + 4_000_000
        host.daemon.apply(port(a, egress="2M", burst="100k"))
        time.sleep(0.5)
        blast.expect_rate(2_000_000)
        assert bandwidth(host, a)["egress"]["droppedPackets"] > dropped
        assert host.dump("port_limits")[0]["key"] == host.port("p1")["ifindex"]
        host.daemon.apply(port(a))
        wait_for(lambda: host.dump("port_limits") == [], what="the state goes with the rate")
    # and with the port
    host.daemon.apply(port(b, ingress="1M"))
    assert b.ns.run("ping", "-c1", "-W2", "10.77.0.1", check=False).returncode == 0
    assert len(host.dump("port_limits")) == 1
    b.delete_device()
    wait_for(lambda: host.dump("port_limits") == [], what="the state goes with the port")
