# SPDX-License-Identifier: Apache-2.0
"""The kernel's VXLAN and Geneve devices as the far end: the same bytes, and real traffic both ways."""

import time

import pytest
from lib import overlay
from lib.fixtures import needs_device
from lib.heddled import wait_for
from lib.overlay import Fabric, dissect, expect_all, expect_echoes, tunnelled
from lib.raw import ARP, IP, UDP, Capture, Dot1Q, Ether, IPv6, Raw, Wire


class Mixed(overlay.Rig):
    """One host with heddled, one with the kernel's device, a workload of one network on each."""

    def __init__(self, protocol, family, quiet=False, xdp="off", mode="l2", checksums=False, **fabric):
        super().__init__(Fabric(family, protocol, **fabric), quiet=quiet, xdp=xdp, mode=mode, checksums=checksums)

    def build(self, quiet, xdp, mode, checksums):
        self.ours, self.theirs = self.fabric.heddle(xdp=xdp), self.fabric.kernel(checksums=checksums)
        self.blue = self.fabric.network("blue", 0x123456, mode=mode)
        self.a, self.b = self.ours.work(self.blue, 1), self.theirs.work(self.blue, 2)
        if quiet:
            self.a.quiet()
            self.b.quiet()


family = pytest.mark.parametrize("family", [4, 6], ids=["over4", "over6"])
protocol = pytest.mark.parametrize("protocol", ["vxlan", pytest.param("geneve", marks=needs_device("geneve"))])
HEADERS = {"vxlan": "0800000012345600", "geneve": "0000655812345600"}


@protocol
@family
@pytest.mark.parametrize("xdp", ["off", "native"])
def test_traffic(protocol, family, xdp):
    with Mixed(protocol, family, xdp=xdp) as m:
        expect_all(m.a, m.b)
        # The kernel's bridge itself reports groups, from no address at all
        assert set(m.ours.faults()) <= {("tunnel-source", "ingress")}


@protocol
@family
def test_the_same_bytes(protocol, family):
    """What leaves here beside what the kernel's device sends: the same headers but for ports, and the frame as the workload sent it."""
    with Mixed(protocol, family, quiet=True) as m:
        expect_echoes(m.a, m.b, (84,))  # each knows the other
        wait_for(lambda: m.ours.peers("ways")[0] >> 1, what="a way: before, the agent's socket sends")
        with m.ours.witness() as ours, m.theirs.witness() as theirs, Wire(m.b.ns, "eth0") as at_b, Wire(m.a.ns, "eth0") as at_a:
            expect_echoes(m.a, m.b, (84,))
            expect_echoes(m.b, m.a, (84,))
            frames = ours.frames(), theirs.frames()
            arrived = {bytes(f) for f in at_b.frames()}, {bytes(f) for f in at_a.frames()}
        for sent, seen, source, to in ((frames[0], arrived[0], 1, 2), (frames[1], arrived[1], 2, 1)):
            # The kernel's bridge and its ports speak for themselves, too, as long as they are new
            sent = [t for t in tunnelled(sent) if t.inner[12:14] != b"\x08\x06" and Ether(t.inner).src in (m.a.mac, m.b.mac)]
            assert len(sent) >= 4
            for t in sent:
                assert (t.ether.src, t.ether.dst) == (m.fabric.mac(source), m.fabric.mac(to))
                assert (t.ip.src, t.ip.dst) == (m.fabric.address(source), m.fabric.address(to))
                if family == 4:
                    assert (t.ip.ttl, t.ip.tos, t.ip.ihl, t.ip.len) == (64, 0, 5, 20 + 16 + len(t.inner))
                else:
                    assert (t.ip.hlim, t.ip.tc, t.ip.plen) == (64, 0, 16 + len(t.inner))
                assert (t.udp.dport, t.udp.chksum, t.udp.len) == (overlay.PORT[protocol], 0, 16 + len(t.inner))
                assert t.header == bytes.fromhex(HEADERS[protocol])
                assert t.inner in seen, "the frame that came out is not the one in the tunnel"
                if source == 1:
                    assert t.udp.sport >= 49152
                    assert family == 6 or t.ip.flags == "DF"
        dissect([f for sent in frames for f in sent])


@protocol
@family
def test_dissected(protocol, family):
    """Handshakes and payloads of both protocols, all their checksums right."""
    with Mixed(protocol, family, quiet=True) as m:
        with m.ours.witness() as ours, m.theirs.witness() as theirs:
            expect_all(m.a, m.b)
            frames = ours.frames() + theirs.frames()
        rows = dissect([f for f in frames if len(f) <= m.fabric.mtu + overlay.ETHERNET], f"{protocol}.vni", "frame.protocols")
        assert len([r for r in rows if r[0] and int(r[0], 0) == 0x123456]) > 100
        assert len([r for r in rows if f":{protocol}:" in r[1] and ":tcp" in r[1]]) > 50


@protocol
@family
def test_ports_by_flow(protocol, family):
    """One source port a flow, and many of them among many flows, in both directions of the IP address family."""
    with Mixed(protocol, family) as m:
        expect_echoes(m.a, m.b, (84,))
        with m.ours.witness() as ours:
            for v6 in (False, True):
                for sport in range(20000, 20064):
                    layer = IPv6(src=m.a.ip6, dst=m.b.ip6) if v6 else IP(src=m.a.ip4, dst=m.b.ip4)
                    with Wire(m.a.ns, "eth0") as wire:
                        for _ in range(2):
                            wire.send(Ether(src=m.a.mac, dst=m.b.mac) / layer / UDP(sport=sport, dport=9) / Raw(b"flow"))
            time.sleep(0.2)
            ports = {}
            for t in tunnelled(ours.frames()):
                inner = Ether(t.inner)
                if UDP in inner and inner[UDP].dport == 9:
                    ports.setdefault((inner.type, inner[UDP].sport), []).append(t.udp.sport)
        assert len(ports) == 128 and {len(p) for p in ports.values()} == {2}
        assert all(len(set(p)) == 1 for p in ports.values()), "packets of one flow had different ports"
        for kind in (0x0800, 0x86DD):
            assert len({p[0] for (k, _), p in ports.items() if k == kind}) > 48


@protocol
def test_the_kernel_learns_from_us_and_we_from_it(protocol):
    """No document names the far workload: its MAC is learnt from the ARP answer that comes by flooding."""
    with Mixed(protocol, 4) as m:
        m.theirs.prefixes = [("blue", "10.77.0.0/25"), ("blue", "fd77::/112")]
        peer = m.theirs.peer()
        del peer["spec"]["ports"]
        m.ours.put(*[d for d in m.ours.documents() if d["kind"] != "Peer"], peer)
        m.a.ns.ip("neigh flush dev eth0")
        m.b.ns.ip("neigh flush dev eth0")
        expect_echoes(m.a, m.b)
        assert m.theirs.learnt(m.blue, m.a.mac, m.ours)


@protocol
@family
def test_inner_tags(protocol, family):
    """A trunk's tags are in the tunnelled frame, as the kernel's device has them in its own."""
    with Fabric(family, protocol) as f:
        ours, theirs = f.heddle(), f.kernel()
        blue = f.network("blue", 100)
        a, b = ours.work(blue, 1), theirs.work(blue, 2)
        trunk = {"mode": "trunk", "allowed": [30, 31]}
        port = a.port()
        port["spec"]["vlan"] = trunk
        theirs.up()
        ours.put(*[d for d in ours.documents() if d["kind"] != "Port"], port)
        ours.host.wait_port(a.name)
        for vlan, prio in ((30, 0), (31, 5)):
            asks = ARP(op=1, hwsrc=a.mac, psrc=a.ip4, pdst="10.77.0.9")
            for packet in (asks, IP(src=a.ip4, dst=b.ip4) / UDP(sport=5) / Raw(b"tagged" * 10)):
                to = "ff:ff:ff:ff:ff:ff" if ARP in packet else b.mac
                frame = Ether(src=a.mac, dst=to) / Dot1Q(vlan=vlan, prio=prio) / packet
                capture = Capture(b.ns, "eth0", "-Q", "in", "-XX")
                with Wire(a.ns, "eth0") as wire, ours.witness() as witness:
                    wire.send(frame)
                    time.sleep(0.2)
                    assert bytes(frame) in [t.inner for t in tunnelled(witness.frames())]
                arrived = [line for line in capture.lines() if f"vlan {vlan}, p {prio}" in line and a.mac in line]
                assert arrived, "with its tag at the far workload"
        # and back
        capture = Capture(a.ns, "eth0", "-Q", "in")
        with Wire(b.ns, "eth0") as wire:
            wire.send(Ether(src=b.mac, dst=a.mac) / Dot1Q(vlan=31, prio=3) / IP(src=b.ip4, dst=a.ip4) / UDP(sport=6) / Raw(b"tagged" * 10))
            time.sleep(0.3)
        assert [line for line in capture.lines() if "vlan 31, p 3" in line and b.mac in line]


@protocol
@family
def test_checksums(protocol, family):
    """The kernel's device sends UDP checksums: no matter."""
    with Mixed(protocol, family, checksums=True) as m:
        with m.theirs.witness() as witness:
            expect_all(m.a, m.b)
            assert 0 not in {t.udp.chksum for t in tunnelled(witness.frames())}


@protocol
def test_policy_towards_the_kernel(protocol):
    with Mixed(protocol, 4) as m:
        closed = {"podSelector": {}, "policyTypes": ["Ingress"]}
        m.ours.extra = [{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "closed"}, "spec": closed}]
        m.ours.put()
        assert not overlay.echo(m.b.ns, m.a.ip4, 84, 0.3)
        assert overlay.echo(m.a.ns, m.b.ip4, 84)
