# SPDX-License-Identifier: Apache-2.0
"""Sizes: what an uplink and the way behind it take, what a sender is told, and fragments inside and outside of the tunnel."""

import socket
import threading
import time

import pytest
from lib import documents as doc
from lib import overlay, traffic
from lib.heddled import wait_for
from lib.overlay import OUTER, Fabric, echo, expect_all, expect_bytes, expect_echoes, tunnelled
from lib.raw import IP, TCP, Ether, IPv6, Wire
from lib.traffic import icmp_error, udp_send

UDP_HEADERS = {4: 28, 6: 48}
TOO_BIG = {4: (3, 4), 6: (2, 0)}
underlay = pytest.mark.parametrize("underlay", [4, 6], ids=["over4", "over6"])


def inside_mtu(mtu, underlay):
    """The inner IP packet's size behind an outer one of `mtu`."""
    return mtu - OUTER[underlay] - overlay.ETHERNET


class Two(overlay.Rig):
    def __init__(self, underlay=4, protocol="vxlan", mode="l2", xdp="off", **fabric):
        super().__init__(Fabric(underlay, protocol, **fabric), mode=mode, xdp=xdp)

    def build(self, mode, xdp):
        self.one, self.two = self.fabric.heddle(xdp=xdp), self.fabric.heddle(xdp=xdp)
        self.blue = self.fabric.network("blue", 100, mode=mode)
        self.a, self.b = self.one.work(self.blue, 1), self.two.work(self.blue, 2)

    def settled(self):
        for end in (self.one, self.two):
            wait_for(lambda: end.peers("mtu") == [self.fabric.mtu], what="the MTU of the way is known")

    def told(self, family, size):
        """What the sender of a datagram that makes an IP packet of `size` is told."""
        return icmp_error(self.a.ns, family, udp_send(self.a.ns, self.b.ip(family), size - UDP_HEADERS[family]))


def forget(w):
    """What the workload's own stack knows of path MTUs."""
    w.ns.run("ip", "route", "flush", "cache")
    w.ns.run("ip", "-6", "route", "flush", "cache")


@underlay
@pytest.mark.parametrize("protocol", ["vxlan", "geneve"])
def test_jumbo(protocol, underlay):
    """An uplink of 9000: what fits goes through whole, to the byte, and one byte more is told to its sender."""
    with Two(underlay, protocol, mtu=9000, work_mtu=9000) as t:
        most = inside_mtu(9000, underlay)
        for family in (4, 6):
            with t.one.witness() as witness:
                assert echo(t.a.ns, t.b.ip(family), most)
                assert most in {len(x.inner) - overlay.ETHERNET for x in tunnelled(witness.frames())}
            assert t.told(family, most + 1)[:2] == TOO_BIG[family]
        expect_all(t.a, t.b, sizes=(84, 1600, 3200, 8900))


@underlay
@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_too_big_for_the_uplink(underlay, mode):
    """Told to the sender, from the network's gateway, with what does fit; then large payloads arrive."""
    with Two(underlay, mode=mode, mtu=1500) as t:
        fits = inside_mtu(1500, underlay)
        for family in (4, 6):
            kind, code, source, mtu = t.told(family, 1500)
            assert (kind, code, mtu) == (*TOO_BIG[family], fits)
            assert source == t.blue.gateway[family]
            forget(t.a)
        expect_all(t.a, t.b)


@underlay
def test_the_mtu_is_known_before_the_neighbour(underlay):
    """Nobody has the peer's address, so nothing is resolved; what is too large for the uplink is told all the same."""
    with Fabric(underlay, mtu=1500) as f:
        one = f.heddle()
        a = one.work(f.network(), 1)
        silent = {4: "10.77.0.9", 6: "fd77::9"}
        there = {"name": "w", "network": "blue", "mac": "02:00:00:00:88:01", "addresses": list(silent.values())}
        one.extra = [doc.document("Peer", "silent", {"address": f.address(99), "ports": [there]})]
        f.up()
        wait_for(lambda: one.peers("mtu") == [1500], what="the MTU of the way is known")
        assert [n >> 1 for n in one.peers("ways")] == [0]
        for family, address in silent.items():
            kind, code, source, mtu = icmp_error(a.ns, family, udp_send(a.ns, address, 1500 - UDP_HEADERS[family]))
            assert (kind, code, source, mtu) == (*TOO_BIG[family], f.networks[0].gateway[family], inside_mtu(1500, underlay))


@underlay
@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_an_underlay_too_small_for_ipv6(underlay, mode):
    """
    What is left inside is less than the 1280 that any link of IPv6 has to take (RFC 8200 section 5): such packets get through all the same, in pieces
    of the outer packet; no less is ever told, and TCP makes segments that need no pieces.
    """
    with Two(underlay, mode=mode, mtu=1280 if underlay == 6 else 1300) as t:
        fits = inside_mtu(t.fabric.mtu, underlay)
        assert fits < 1280
        for size in (fits, fits + 1, 1279, 1280):
            with t.one.witness() as witness:
                # At the first try: nobody was told that it was too big
                assert t.a.ns.run("ping", "-6", "-c", "3", "-i", "0.1", "-W", "2", "-s", str(size - 48), t.b.ip6).stdout.count("bytes from") == 3
                frames = [Ether(f) for f in witness.frames()]
            cut = [f for f in frames if (f[IPv6].nh == 44 if underlay == 6 else f[IP].flags.MF) and f.src == t.fabric.mac(1)]
            assert bool(cut) == (size > fits)
        kind, code, source, mtu = t.told(6, 1281)
        assert (kind, code, source, mtu) == (*TOO_BIG[6], t.blue.gateway[6], 1280)
        forget(t.a)
        expect_all(t.a, t.b)
        # Of a datagram whose first fragment was too big, the rest still travels
        assert t.one.faults().keys() | t.two.faults().keys() <= {("too-big", "egress"), ("frag-unknown", "ingress")}


def syn_sizes(w, family):
    """MSS options of the SYNs and SYN-ACKs that reach a workload during connections to and from it."""
    return {dict(p[TCP].options).get("MSS") for p in map(Ether, w) if TCP in p and p[TCP].flags.S and (IPv6 in p) == (family == 6)}


@underlay
def test_segment_sizes_are_lowered(underlay):
    with Two(underlay, mtu=1500) as t:
        with Wire(t.b.ns, "eth0") as at_b, Wire(t.a.ns, "eth0") as at_a:
            for family, headers in ((4, 40), (6, 60)):
                client, server = traffic.accept_pair(t.a.ns, t.b.ns, t.b.ip(family), 7400 + family)
                wanted = {inside_mtu(1500, underlay) - headers}
                with client, server:
                    assert syn_sizes(at_b.frames(0.2), family) == wanted, "SYN"
                    assert syn_sizes(at_a.frames(0.2), family) == wanted, "SYN-ACK"
                    sent, got = traffic.transfer(client, server, 4 << 20, timeout=20)
                    assert sent == got
        assert (t.one.faults(), t.two.faults()) == ({}, {}), "segments that do not fit"


def test_small_segments_are_left_alone():
    with Two(mtu=1500, work_mtu=1400) as t:
        with Wire(t.b.ns, "eth0") as at_b:
            client, server = traffic.accept_pair(t.a.ns, t.b.ns, t.b.ip4, 7400)
            client.close()
            server.close()
            assert syn_sizes(at_b.frames(0.2), 4) == {1360}


@underlay
@pytest.mark.parametrize("xdp", ["off", "native"])
def test_outer_fragments(underlay, xdp):
    """An inner packet of 1500 without DF, over an underlay of 1500: it arrives, in fragments of the outer packet."""
    with Two(underlay, mtu=1500, xdp=xdp) as t:
        with t.one.witness() as witness:
            data = overlay.payload(1472)
            with t.a.ns.socket(socket.AF_INET, socket.SOCK_DGRAM) as c, t.b.ns.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                c.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER: never
                s.bind((t.b.ip4, 7500))
                s.settimeout(2)
                for _ in range(3):
                    c.sendto(data, (t.b.ip4, 7500))
                    assert s.recv(65536) == data
            frames = [Ether(f) for f in witness.frames()]
        if underlay == 4:
            fragments = [f for f in frames if IP in f and f[IP].src == t.one.address and (f[IP].flags.MF or f[IP].frag)]
        else:
            fragments = [f for f in frames if IPv6 in f and f[IPv6].src == t.one.address and f[IPv6].nh == 44]
        assert len(fragments) >= 6
        assert t.two.faults() == {}


@underlay
def test_large_datagrams_without_df(underlay):
    with Two(underlay, mtu=1500) as t:
        for size in (1600, 3200, 20_000):
            assert echo(t.a.ns, t.b.ip4, size), size
            assert echo(t.b.ns, t.a.ip6, size) or echo(t.b.ns, t.a.ip6, size), size  # the first may teach the path MTU


@underlay
@pytest.mark.parametrize("xdp", ["off", "native"])
def test_fragments_that_do_not_fit(underlay, xdp):
    """A datagram that the workload has cut to its own MTU, which is more than fits: there and back at the first try, and nothing is cut outside."""
    with Two(underlay, mtu=1500, xdp=xdp) as t:
        for size in (3000, 20_000):
            with t.one.witness() as witness:
                output = t.a.ns.run("ping", "-c", "1", "-W", "2", "-M", "dont", "-s", str(size), t.b.ip4, check=False).stdout
                assert " 1 received" in output, output
                frames = [Ether(f) for f in witness.frames()]
            sent = [x for x in tunnelled(map(bytes, frames)) if Ether(x.inner).src == t.a.mac and IP in Ether(x.inner)]
            assert max(len(x.inner) for x in sent) <= inside_mtu(1500, underlay) + overlay.ETHERNET
            offsets = [Ether(x.inner)[IP].frag for x in sent]
            assert offsets == sorted(offsets) and len(offsets) > size // 1500 + 1
        assert (t.one.faults(), t.two.faults()) == ({}, {})


def test_fragments_of_somebody_else():
    """What a peer that is not ours fragments: the kernel's device does, with DF off."""
    with Fabric(4, mtu=1500) as f:
        ours, theirs = f.heddle(), f.kernel(mtu=1500)
        blue = f.network("blue", 100)
        a, b = ours.work(blue, 1), theirs.work(blue, 2)
        f.up()
        data = overlay.payload(1472)
        with b.ns.socket(socket.AF_INET, socket.SOCK_DGRAM) as c, a.ns.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            c.setsockopt(socket.IPPROTO_IP, 10, 0)
            s.bind((a.ip4, 7500))
            s.settimeout(2)
            with theirs.witness() as witness:
                for _ in range(3):
                    c.sendto(data, (a.ip4, 7500))
                    assert s.recv(65536) == data
                assert [x for x in map(Ether, witness.frames()) if IP in x and x[IP].frag], "nothing was fragmented"


@underlay
@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_black_hole(underlay, mode):
    """
    Both uplinks take 1600, a link between them 1400 and no more, which only its router says. The sender's host believes it, tells the
    sender, and a connection that has begun goes on.
    """
    with Two(underlay, mode=mode, mtu=1600, routed=True) as t:
        expect_echoes(t.a, t.b)
        client, server = traffic.accept_pair(t.a.ns, t.b.ns, t.b.ip4, 7600)
        with client, server:
            assert traffic.roundtrip_pair(client, server)
            # From here on the link of the second host is narrower, at both of its ends
            t.fabric.ns.ip(f"link set {t.fabric.tap_of(2)} mtu 1400")
            t.two.ns.ip("link set up0 mtu 1400")
            sent, got = traffic.transfer(client, server, 1 << 20, timeout=20)
            assert sent == got
        fits = inside_mtu(1400, underlay)
        for family in (4, 6):
            kind, code, source, mtu = t.told(family, 1450)
            assert (kind, code, source, mtu) == (*TOO_BIG[family], t.blue.gateway[family], fits)
            expect_bytes(t.a, t.b, family)
        assert t.one.peers("path_mtu") == [1400]


def test_a_small_mtu_is_not_believed():
    """An ICMP error that quotes none of our packets changes nothing; one that says less than IPv6 needs does not make it so small."""
    from scapy.layers.inet import ICMP, UDP

    with Two(mtu=1600) as t:
        expect_echoes(t.a, t.b, (84,))
        rogue = t.fabric.rogue()

        def lie(mtu, source, destination, dport=4789):
            udp = UDP(sport=50000, dport=dport, chksum=0) / (b"\x08\0\0\0\0\0\x64\0" + bytes(64))
            quoted = IP(src=source, dst=destination, flags="DF") / udp
            error = ICMP(type=3, code=4, nexthopmtu=mtu) / quoted
            rogue.send(Ether(src="02:75:ff:00:00:ff", dst=t.fabric.mac(1)) / IP(src=t.fabric.address(200), dst=t.one.address) / error)

        lie(1400, t.one.address, t.fabric.address(77))
        lie(1400, t.fabric.address(77), t.two.address)
        lie(1400, t.one.address, t.two.address, dport=53)
        time.sleep(0.2)
        assert echo(t.a.ns, t.b.ip4, 1500)
        assert t.one.peers("path_mtu") == [0]
        lie(576, t.one.address, t.two.address)
        time.sleep(0.2)
        assert t.one.peers("path_mtu") in ([0], [1280])


def test_mtu_of_the_uplink_changes():
    with Two(mtu=1600) as t:
        assert echo(t.a.ns, t.b.ip4, 1500)
        t.one.ns.ip("link set up0 mtu 1500")
        wait_for(lambda: t.one.peers("mtu") == [1500], what="the new MTU is known")
        kind, code, _, mtu = t.told(4, 1500)
        assert (kind, code, mtu) == (3, 4, inside_mtu(1500, 4))
        t.one.ns.ip("link set up0 mtu 1600")
        wait_for(lambda: t.one.peers("mtu") == [1600], what="the old MTU is known")
        forget(t.a)
        assert echo(t.a.ns, t.b.ip4, 1500)


def test_bulk_stays_whole():
    """Super-packets leave as they are: the witness on the underlay sees frames far larger than the MTU."""
    with Two(mtu=1600) as t:
        sizes = []
        client, server = traffic.accept_pair(t.a.ns, t.b.ns, t.b.ip4, 7700)
        stop = threading.Event()
        with client, server, t.one.witness() as witness:

            def read():
                while not stop.is_set():
                    sizes.extend(len(f) for f in witness.frames(0.05))

            thread = threading.Thread(target=read, daemon=True)
            thread.start()
            sent, got = traffic.transfer(client, server, 32 << 20)
            stop.set()
            thread.join()
        assert sent == got and max(sizes) > 10_000


TUNNEL_OFFLOADS = ("tx-udp_tnl-segmentation", "off", "tx-udp_tnl-csum-segmentation", "off")


@underlay
def test_a_tunnel_of_the_workloads_own(underlay):
    """The kernel cuts super-packets of one tunnel only. A workload whose device makes none of those gets its own tunnel through ours."""
    with Two(underlay, mtu=1600) as t:
        for w, peer, last in ((t.a, t.b, 1), (t.b, t.a, 2)):
            w.ns.ip(
                f"link add vx0 type vxlan id 9 local {w.ip4} remote {peer.ip4} dstport 4790",
                f"addr add 10.9.0.{last}/24 dev vx0",
                "link set vx0 up",
            )
        assert echo(t.a.ns, "10.9.0.2", 84)
        client, server = traffic.accept_pair(t.a.ns, t.b.ns, "10.9.0.2", 7800)
        with client, server:
            client.send(bytes(64 << 10))
            wait_for(lambda: t.one.drops("nonlinear") > 0, what="a super-packet is dropped")
        for w in (t.a, t.b):
            w.ns.run("ethtool", "-K", "eth0", *TUNNEL_OFFLOADS)
        dropped = t.one.drops("nonlinear")
        client, server = traffic.accept_pair(t.a.ns, t.b.ns, "10.9.0.2", 7801)
        with client, server:
            sent, got = traffic.transfer(client, server, 16 << 20, timeout=20)
            assert sent == got and t.one.drops("nonlinear") == dropped
