# SPDX-License-Identifier: Apache-2.0
"""Frames that XDP moves from device to device itself (way: redirect, auto): where they leave by a device that takes them, and only there."""

import os
import socket

import pytest
from lib import documents as doc
from lib import traffic
from lib.documents import DENY_ALL, DENY_IN, policy, rule
from lib.heddled import wait_for
from lib.netns import Namespace
from lib.traffic import expect_tcp, expect_udp
from test_fastpath_forward import Router, Stream, backend, between, descriptors, hop_limit_ends, too_big  # noqa: F401 pylint: disable=unused-import
from test_fastpath_ports import Plane, exchange, xdp  # noqa: F401 pylint: disable=unused-import


def tells():
    """Whether this kernel tells which devices take frames from XDP: the family `netdev` of generic netlink, Linux 6.3."""
    ns = Namespace("probe")
    try:
        return "netdev" in ns.run("genl", "ctrl", "list", check=False).stdout
    finally:
        ns.delete()


pytestmark = pytest.mark.skipif(os.geteuid() == 0 and not tells(), reason="the kernel does not tell which devices take frames from XDP (6.3)")


class Direct(Router):
    """The Router, whose far ends take frames from XDP."""

    def __init__(self, kind, *docs, gro="on", way="redirect", **spec):
        super().__init__(kind, *docs, way=way, **spec)
        self.gro("on", "wire0")
        self.gro(gro)

    def gro(self, state, device="eth9"):
        (self.client if device == "wire0" else self.inside).run("ethtool", "-K", device, "gro", state)

    def device(self, name):
        return next(d for d in self.path()["devices"] if d["device"] == name)

    def wait_way(self, way, device="in0"):
        wait_for(lambda: self.device(device)["way"] == way, 15, what=f"{device} by {way}: {self.path()}")
        return self.device(device)

    def ready(self):
        self.wait_state("live")
        for device in ("up0", "in0"):
            assert self.wait_way("redirect", device)["wayReason"] is None
        return self.path()

    def redirected(self):
        return sum(d["redirected"] for d in self.path()["devices"])


def test_traffic(backend):  # noqa: F811
    """TCP both ways, UDP of any size and ping, of both families; each frame straight to the other device, and no thread or socket of the agent's."""
    with Direct(backend, policy(default=DENY_ALL)) as up:
        path = up.ready()
        assert path["workers"] == 0 and path["sockets"] == []
        with traffic.Servers(up.inside, tcp=[7700], udp=[7700]), traffic.Servers(up.client, tcp=[7701], udp=[7701]):
            for family in (4, 6):
                expect_tcp(up.client, up.target(family), 7700, "open")
                expect_tcp(up.inside, up.source(family), 7701, "open")
                expect_udp(up.inside, up.source(family), 7701, "reply")
                for size in (1, 100, 1400):
                    assert up.far(family, size=size, tries=3)
                assert traffic.ping(up.client, up.target(family), 2)
        for family, port in ((4, 7703), (6, 7704)):
            c, s = traffic.accept_pair(up.client, up.inside, up.target(family), port)
            for sender, receiver in ((c, s), (s, c)):
                sent, got = traffic.transfer(sender, receiver, 4 << 20)
                assert sent == got
            c.close()
            s.close()
        path = up.path()
        assert path["taken"] == up.redirected() > 4 * (4 << 20) // 1500, path
        assert path["passed"] == path["dropped"] == 0, path
        assert all(d["redirected"] > 100 for d in path["devices"])
        assert descriptors(up.daemon.process.pid)[1] == 1
        assert "up0:redirect in0:redirect" in up.daemon.cli("status").stdout
        metrics = up.daemon.api.get("/metrics")
        assert f'heddle_fast_path_redirected_total{{fast_path="between",device="in0"}} {up.device("in0")["redirected"]}' in metrics


def numbers(forward, *paths):
    """What flows, rules and totals say of the same packets."""
    docs = policy(ingress=[rule("allow", "UDP", 7700)], egress=[rule("allow", "UDP", 7700)], default=DENY_ALL)
    with Direct("native", docs, forward=forward) as up:
        up.daemon.put("00-host.yaml", up.host_document, *paths)
        if paths:
            up.ready()
        with traffic.Servers(up.inside, udp=[7700]), up.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(10)
            s.bind(("", 4000))
            for _ in range(50):
                s.sendto(b"a packet", (up.target(4), 7700))
                s.recv(100)
        assert not paths or up.redirected() == 100
        flows = [(f["packets"], f["bytes"], f["state"]) for f in up.daemon.flows(protocol="UDP")]
        rules = {r["id"]: (r["packets"], r["bytes"]) for r in up.daemon.rules() if r["packets"] >= 50}
        return flows, rules


@pytest.mark.parametrize("forward", ["pass", "judge"])
def test_counted_alike(forward):
    """The flow and its rule have the same numbers as by the kernel, and so by workers (test_fastpath_forward)."""
    kernel, redirect = numbers(forward), numbers(forward, between(way="redirect"))
    assert kernel[0], kernel
    assert kernel == redirect


def test_the_rest_is_the_kernels(backend):  # noqa: F811
    """For the host itself, at the end of its hops, too big, a fragment: the kernel has it and answers as ever."""
    with Direct(backend, policy(default={"ingress": "allow", "egress": "allow"}), topology={"inside_mtu": 1300}) as up:
        up.ready()
        with traffic.Servers(up.inside, udp=[7700]), traffic.Servers(up.router, udp=[7700]):
            assert up.far(tries=3)
            before = up.path()["taken"]
            expect_udp(up.client, up.outer.b4, 7700, "reply")
            expect_udp(up.client, up.outer.b6, 7700, "reply")
            assert up.far(size=3000, tries=3)
            for family in (4, 6):
                hop_limit_ends(up, family)
            assert up.path()["taken"] - before <= 3, up.path()
            for family in (4, 6):
                too_big(up, family)


def test_hop_limit_and_macs(backend):  # noqa: F811
    """What arrives has one hop less, the checksum right, the router's MAC, and nothing in front of it."""
    from scapy.all import IP, UDP, Ether, IPv6, Raw  # pylint: disable=import-outside-toplevel

    with Direct(backend, policy(default=DENY_ALL)) as up:
        up.ready()
        wire, far = (ns.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) for ns in (up.client, up.inside))
        with wire, far:
            wire.bind(("wire0", 0))
            far.bind(("eth9", 0))
            far.settimeout(5)
            for ip, ttl in ((IP(src=up.outer.a4, dst=up.inner.b4, ttl=17), "ttl"), (IPv6(src=up.outer.a6, dst=up.inner.b6, hlim=17), "hlim")):
                body = ip / UDP(sport=1, dport=2) / Raw(b"a packet that is forwarded")
                wire.send(bytes(Ether(src=up.outer.a_mac, dst=up.outer.b_mac) / body))
                kind = IP if ttl == "ttl" else IPv6
                while True:
                    got = Ether(far.recv(2000))
                    if kind in got and UDP in got and got[UDP].dport == 2:
                        break
                assert (got.src, got.dst) == (up.inner.a_mac, up.inner.b_mac)
                expected = ip.copy()
                setattr(expected, ttl, 16)
                assert bytes(got[kind])[: len(body)] == bytes(expected / body[UDP])
        assert up.device("in0")["redirected"] == 2


def test_policy_comes_first(backend):  # noqa: F811
    """judge: ingress of the device that it came in by and egress of the one that it leaves by; a change of policy ends flows."""
    docs = policy(
        ingress=[rule("allow", "TCP", 7700), rule("allow", "UDP", 7700), rule("allow", "UDP", 7703)],
        egress=[rule("allow", "UDP", 7700), rule("allow", "TCP", 7700), rule("deny", "UDP", 7703)],
        default=DENY_ALL,
    )
    with Direct(backend, docs, forward="judge") as up:
        up.ready()
        with traffic.Servers(up.inside, tcp=[7700, 7702], udp=[7700, 7702, 7703]):
            for family in (4, 6):
                expect_tcp(up.client, up.target(family), 7700, "open")
                expect_udp(up.client, up.target(family), 7700, "reply")
                expect_tcp(up.client, up.target(family), 7702, "timeout")
                expect_udp(up.client, up.target(family), 7702, "timeout")
                expect_udp(up.client, up.target(family), 7703, "timeout")
        drops = up.daemon.drops()
        assert drops[("policy-deny", "ingress")] >= 4 and drops[("policy-deny", "egress")] >= 2, drops
        with traffic.Servers(up.inside, udp=[7700]):
            assert up.far(tries=3)
            up.policy(policy(default=DENY_ALL))
            before = up.device("in0")["redirected"]
            assert not up.far(timeout=0.3)
            assert up.device("in0")["redirected"] == before


def arrive(up, n=200):
    """One way to the inside: how many of n datagrams arrived, one at a time."""
    with up.inside.socket(socket.AF_INET, socket.SOCK_DGRAM) as far, up.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as near:
        far.bind(("", 7710))
        far.settimeout(5)
        got = 0
        for i in range(n):
            near.sendto(b"%d" % i, (up.target(4), 7710))
            got += far.recv(100) == b"%d" % i
        return got


def test_agent_gone(backend):  # noqa: F811
    """Killed, restarted with its programs loaded anew: packets go on as before, not by the kernel, and none is lost."""
    with Direct(backend, policy(default=DENY_ALL)) as up:
        up.ready()
        stream = Stream(up)
        stream.start()
        stream.more()
        for _ in range(2):
            before = up.path()
            up.daemon.kill()
            stream.more()
            assert arrive(up) == 200
            up.daemon.start()
            up.ready()
            after = up.path()
            assert after["taken"] - before["taken"] > (1 << 20) // 1500 and after["passed"] == before["passed"], (before, after)
            stream.more()
        stream.end()
        assert up.path()["taken"] == up.redirected()


def test_far_end_changes(backend):  # noqa: F811
    """A veth whose other end has no GRO would lose all: it is left to the kernel, with the reason; live, both ways."""
    with Direct(backend, policy(default=DENY_ALL), gro="off") as up:
        up.wait_state("live")
        up.wait_way("redirect", "up0")
        with traffic.Servers(up.inside, udp=[7700]):
            for state in ("on", "off", "on"):
                assert "neither GRO on nor an XDP program" in up.wait_way("kernel")["wayReason"]
                before = up.device("in0")["redirected"]
                assert up.far(tries=3)
                assert up.device("in0")["redirected"] == before and up.path()["passed"] > 0
                assert "in0: the other end of the veth" in up.daemon.cli("status").stdout
                up.gro(state)
                if state == "on":
                    up.wait_way("redirect")
                    assert up.far(tries=3)
                    assert up.device("in0")["redirected"] > before
                    up.gro("off")


def test_auto(backend):  # noqa: F811
    """Workers for what leaves by a device that takes nothing from XDP, as long as there is one."""
    with Direct(backend, policy(default=DENY_ALL), way="auto") as up:
        up.ready()
        mode = "worker-copy" if backend == "native" else "worker-generic"
        with traffic.Servers(up.inside, udp=[7700]):
            assert up.far(tries=3)
            assert up.path()["workers"] == 0
            up.gro("off")
            assert "neither GRO" in up.wait_way(mode)["wayReason"]
            assert up.path()["workers"] == 1 and up.device("up0")["way"] == "redirect"
            to, back = up.sum("tx"), up.device("up0")["redirected"]
            assert up.far(tries=3)
            assert up.sum("tx") > to and up.device("up0")["redirected"] > back
            up.gro("on")
            up.wait_way("redirect")
            assert up.path()["workers"] == 0 and descriptors(up.daemon.process.pid)[1] == 1
            assert up.far(tries=3)


def test_fallback_drop():
    """What no device takes is dropped where the document says so, as without workers."""
    with Direct("native", policy(default={"ingress": "allow", "egress": "allow"}), gro="off", fallback="drop") as up:
        up.wait_way("kernel")
        with traffic.Servers(up.inside, udp=[7700]), traffic.Servers(up.router, udp=[7700]):
            assert not up.far(timeout=0.3)
            expect_udp(up.client, up.outer.b4, 7700, "reply")
            assert up.daemon.drops()[("fast-path", "ingress")] >= 1
            up.gro("on")
            up.wait_way("redirect")
            assert up.far(tries=3)


def test_devices_come_and_go(backend):  # noqa: F811
    """Set down and up; called otherwise; taken away, also while no agent runs, and made anew."""
    with Direct(backend, policy(default=DENY_ALL)) as up:
        up.ready()
        with traffic.Servers(up.inside, udp=[7700]):
            assert up.far(tries=3)
            up.router.ip("link set in0 down")
            assert not up.far(timeout=0.2)
            up.router.ip("link set in0 up", f"neigh replace {up.inner.b4} lladdr {up.inner.b_mac} dev in0")
            wait_for(lambda: up.far(timeout=0.3), 15, what="an answer")
            before = up.redirected()
            wait_for(lambda: up.far(timeout=0.3) and up.redirected() > before, 15, what="by XDP again")
            up.router.ip("link set in0 down", "link set in0 name other", "link set other up")
            wait_for(lambda: up.path()["state"] == "waiting", 10, what="its end")
            assert up.device("in0")["reason"] == "the device is not there" and up.device("in0")["way"] is None
            up.router.ip(f"neigh replace {up.inner.b4} lladdr {up.inner.b_mac} dev other")
            wait_for(lambda: up.far(timeout=0.3), 15, what="by the kernel")
            up.router.ip("link set other down", "link set other name in0", "link set in0 up")
            up.router.ip(f"neigh replace {up.inner.b4} lladdr {up.inner.b_mac} dev in0")
            up.ready()
            before = up.redirected()
            wait_for(lambda: up.far(timeout=0.3) and up.redirected() > before, 15, what="by XDP again")
            up.daemon.kill()
            up.inner.delete()
            up.daemon.start()
            assert up.wait_state("waiting")["devices"][1]["reason"] == "the device is not there"
        up.inner.create()
        up.inside.run("ethtool", "-K", "eth9", "tx", "off", "gro", "on")
        up.inside.ip(f"route add 10.66.1.0/24 via {up.inner.a4}")
        up.ready()
        before = up.redirected()
        with traffic.Servers(up.inside, udp=[7700]):
            wait_for(lambda: up.far(timeout=0.3) and up.redirected() > before, 15, what="by XDP again")


def test_next_hop_changes():
    """The kernel goes on asking for next hops that only XDP sends to: one that has another MAC is found."""
    with Direct("native", policy(default=DENY_ALL)) as up:
        up.ready()
        for name, value in (("base_reachable_time_ms", 4000), ("delay_first_probe_time", 1), ("gc_stale_time", 3600)):
            up.router.sysctl(f"net.ipv4.neigh.in0.{name}", value)
        up.router.ip(f"neigh del {up.inner.b4} dev in0")
        with traffic.Servers(up.inside, udp=[7700]):
            wait_for(lambda: up.far(timeout=0.5), 10, what="an answer")
            wait_for(lambda: "STALE" in up.router.run("ip", "neigh", "show", up.inner.b4).stdout, 20, what="it grows stale")
            up.inside.ip("link set eth9 address 02:00:00:00:00:77", f"neigh replace {up.inner.a4} lladdr {up.inner.a_mac} dev eth9")
            up.inside.ip(f"route replace 10.66.1.0/24 via {up.inner.a4}")
            wait_for(lambda: up.far(timeout=0.5), 30, what="the new MAC")


def test_documents_change():
    """From workers to XDP and back, while packets go; without the document nothing is left."""
    with Direct("native", policy(default=DENY_ALL), way="workers") as up:
        up.wait_state("live")
        stream = Stream(up)
        stream.start()
        stream.more()
        assert up.redirected() == 0 and up.device("in0")["way"] == "worker-copy" and up.device("in0")["wayReason"] == "by the document"
        for way, there in (("redirect", 0), ("workers", 1), ("auto", 0)):
            up.daemon.put("00-host.yaml", up.host_document, between(way=way))
            up.wait_way("worker-copy" if there else "redirect")
            wait_for(lambda there=there: up.path()["workers"] == there, 15, what="workers as they are asked for")
            before = up.redirected()
            stream.more()
            assert (up.redirected() > before) == (not there)
        up.daemon.put("00-host.yaml", up.host_document)
        assert up.daemon.status()["fastPaths"] == []
        stream.more()
        stream.end()


def test_detach():
    """Nothing is left, and the kernel forwards."""
    with Direct("native", policy(default=DENY_IN)) as up:
        up.ready()
        up.daemon.detach()
        with traffic.Servers(up.inside, udp=[7700]):
            assert up.far(tries=3)


# --- ports ---


class Direct2(Plane):
    """The ports' Plane, whose far ends take frames from XDP: veths with GRO on, taps as they are."""

    def __init__(self, *args, way="redirect", **spec):
        super().__init__(*args, way=way, **spec)
        self.outside.run("ethtool", "-K", "wire0", "gro", "on")
        self.offload("gro", "on")

    def offload(self, what, state, devices=("port1", "port2")):
        for device in devices:
            self.ends[device].ns.run("ethtool", "-K", "eth0", what, state)

    def ready(self, **ways):
        wanted = {d["device"]: ways.get(d["device"], "redirect") for d in self.path()["devices"]}
        wait_for(lambda: {d["device"]: d["way"] for d in self.path()["devices"]} == wanted, 20, what=f"{wanted}: {self.path()}")

    def redirected(self):
        return {d["device"]: d["redirected"] for d in self.path()["devices"]}


PAIRS = [("port1", "port2"), ("port1", "vm3"), ("vm3", "vm4"), ("up0", "port1"), ("up0", "vm3"), ("vm3", "up0"), ("port2", "up0")]


def test_ports(xdp):  # noqa: F811
    """TCP with all bytes both ways, UDP and ping, between each kind of device: by XDP what has its checksum, by the kernel what has none yet."""
    with Direct2(xdp=xdp) as plane:
        plane.ready()
        plane.offload("tx", "off", ("port1",))
        for n, (a, b) in enumerate(PAIRS):
            (near, _, _), (far, *addresses) = plane.far(a), plane.far(b)
            for family, address in zip((4, 6), addresses):
                before = plane.redirected()
                with traffic.Servers(far, udp=[7700]):
                    for size in (1, 2, 3):
                        expect_udp(near, address, 7700, "reply", sport=4000 + n, payload=os.urandom(400 * size + 1))
                assert traffic.ping(near, address, 5)
                c, s = traffic.accept_pair(near, far, address, 7800 + n * 2 + (family == 6))
                for _ in range(50):
                    exchange(c, s)
                for sender, receiver in ((c, s), (s, c)):
                    sent, got = traffic.transfer(sender, receiver, 1 << 20, chunk=1 << 18)
                    assert sent == got, (a, b, family)
                c.close()
                s.close()
                after = plane.redirected()
                # port1 and wire0 make their checksums themselves
                for sender, device in ((a, b), (b, a)):
                    if sender in ("port1", "up0"):
                        assert after[device] - before[device] >= 20, (a, b, family, before, after)
        path = plane.path()
        assert path["sockets"] == [] and path["workers"] == 0 and path["dropped"] == 0
        assert path["passed"] > 0, "checksums left to devices"


def test_ports_auto(xdp):  # noqa: F811
    """Workers beside XDP as soon as one device takes nothing from it: they complete checksums, XDP has the others' frames."""
    with Direct2(way="auto", xdp=xdp) as plane:
        plane.ready()
        plane.offload("gro", "off", ("port2",))
        wait_for(lambda: plane.path()["workers"] == 1, 20, what=f"workers: {plane.path()}")
        plane.live()
        plane.offload("tx", "off", ("port1",))
        far = plane.ends["vm3"]
        c, s = traffic.accept_pair(plane.ends["port1"].ns, far.ns, far.a4, 7800)
        before, sums = plane.redirected(), plane.sockets("checksums")
        for _ in range(50):
            exchange(c, s)
        after = plane.redirected()
        assert after["vm3"] - before["vm3"] >= 50 and plane.sockets("checksums")["vm3"] - sums["vm3"] >= 50
        c.close()
        s.close()
