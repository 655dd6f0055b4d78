# SPDX-License-Identifier: Apache-2.0
"""Tunnel packets of somebody who is no peer, or of a peer that sends what is not its own, or broken: dropped, each with its reason."""

import itertools
import time

import pytest
from lib import documents as doc
from lib import overlay
from lib.heddled import wait_for
from lib.overlay import Fabric, tunnelled, wrap
from lib.ports import GATEWAY_MAC
from lib.raw import IP, UDP, Ether, IPv6, LocalWitness, Raw, Wire

VNI = 100


class Scene:
    """
    Two hosts with heddled, a third that only documents know (its tunnel packets come from here), and somebody who is no peer. `a` is a
    workload at the first host, `b` at the second, `c` at the third.
    """

    def __init__(self, protocol, family):
        self.protocol, self.family = protocol, family
        self.fabric = f = Fabric(family, protocol)
        try:
            self.one, self.two = f.heddle(), f.heddle()
            self.blue, self.red = f.network("blue", VNI), f.network("red", VNI + 1, 78)
            self.a, self.near, self.b = self.one.work(self.blue, 1), self.one.work(self.blue, 4), self.two.work(self.blue, 2)
            self.elsewhere = self.one.work(self.red, 1)
            f.up()
            self.wire = f.rogue()
            self.third, self.nobody = f.address(100), f.address(200)
            entry = {"name": "c", "network": "blue", "mac": "02:00:00:00:01:03", "addresses": ["10.77.0.3", "fd77::3"]}
            self.c_mac = entry["mac"]
            third = doc.document("Peer", "node-100", {"address": self.third, "ports": [entry]})
            self.one.extra = [third]
            self.one.put()
            self.heard = Wire(self.a.ns, "eth0")
            self.sent = self.one.witness()
        except BaseException:
            f.close()
            raise
        self.marks = itertools.count(1)

    def inner(self, mark, source_mac=None, source=None, to_mac=None, to=None, v6=False, tos=0, dport=9):
        source = source or ("fd77::3" if v6 else "10.77.0.3")
        to = to or (self.a.ip6 if v6 else self.a.ip4)
        layer = IPv6(src=source, dst=to, tc=tos) if v6 else IP(src=source, dst=to, tos=tos)
        return Ether(src=source_mac or self.c_mac, dst=to_mac or self.a.mac) / layer / UDP(sport=7, dport=dport) / Raw(mark)

    def send(self, inner, vni=VNI, source=None, **fields):
        self.wire.send(wrap(inner, vni, source or self.third, self.one.address, self.fabric.mac(1), self.protocol, **fields))

    def mark(self):
        return b"mark-%04d-" % next(self.marks)

    def passes(self, heard=None, outer=None, **fields):
        """The frame reaches the workload; returns it as it arrived."""
        mark = self.mark()
        self.send(self.inner(mark, **fields), **(outer or {}))
        got = (heard or self.heard).wait_frame(lambda p: mark in bytes(p))
        assert got is not None, f"{fields} {outer}: did not arrive; drops: {self.one.daemon.drops()}"
        return got

    def dropped(self, reason, make=None, outer=None, **fields):
        """Counted with the reason (one of several), and not seen by any workload, nor by another host."""
        mark = self.mark()
        reasons = (reason,) if isinstance(reason, str) else reason

        def count():
            return sum(self.one.drops(r) for r in reasons)

        before = count()
        inner = make(mark) if make else self.inner(mark, **fields)
        self.send(inner, **(outer or {}))
        try:
            wait_for(lambda: count() == before + 1, timeout=2, what=f"{reasons}")
        except AssertionError as error:
            arrived = self.heard.wait_frame(lambda p: mark in bytes(p), 0.1)
            raise AssertionError(f"{error}; {'it arrived' if arrived else 'it did not arrive'}; drops: {self.one.daemon.drops()}") from None
        assert self.heard.wait_frame(lambda p: mark in bytes(p), 0.05) is None
        assert not [t for t in tunnelled(self.sent.frames()) if mark in t.inner]

    def close(self):
        self.heard.close()
        self.sent.close()
        self.fabric.close()


@pytest.fixture(scope="module", params=[("vxlan", 4), ("vxlan", 6), ("geneve", 4), ("geneve", 6)], ids=lambda p: f"{p[0]}{p[1]}")
def scene(request):
    s = Scene(*request.param)
    yield s
    s.close()


@pytest.fixture
def vxlan(scene):
    if scene.protocol != "vxlan":
        pytest.skip("of VXLAN only")
    return scene


@pytest.fixture
def geneve(scene):
    if scene.protocol != "geneve":
        pytest.skip("of Geneve only")
    return scene


def test_what_is_right_passes(scene):
    for v6 in (False, True):
        got = scene.passes(v6=v6)
        assert (got.src, got.dst) == (scene.c_mac, scene.a.mac)


def test_who_sends(scene):
    scene.dropped("tunnel-peer", outer={"source": scene.nobody})
    scene.dropped("tunnel-vni", outer={"vni": 4711})
    scene.dropped("tunnel-vni", outer={"vni": 0})
    scene.dropped("tunnel-vni", outer={"vni": VNI << 8})


def test_what_a_peer_does_not_own(scene):
    """Addresses of this host's ports, of another peer, of nobody; of another network; as the gateway."""
    for v6, field in ((False, "ip4"), (True, "ip6")):
        nobody = ("fd77::77", "fd01::1") if v6 else ("10.77.0.77", "192.0.2.1")
        for source in (getattr(scene.near, field), getattr(scene.b, field), *nobody):
            scene.dropped("tunnel-source", v6=v6, source=source)
        scene.dropped("tunnel-source", v6=v6, source=scene.blue.gateway[6 if v6 else 4])
    for mac in (scene.near.mac, scene.b.mac):
        scene.dropped(("tunnel-source", "source-mac"), source_mac=mac)
    scene.dropped(("tunnel-source", "source-mac"), source_mac="01:00:5e:00:00:01")


def test_addresses_in_another_network(scene):
    """The peer owns 10.77.0.3 in one network; that makes it nobody in another one, even with the same address."""
    with Wire(scene.elsewhere.ns, "eth0") as heard:
        mark = scene.mark()
        before = scene.one.drops("tunnel-source")
        scene.send(scene.inner(mark, to=scene.elsewhere.ip4, to_mac=scene.elsewhere.mac), vni=VNI + 1)
        wait_for(lambda: scene.one.drops("tunnel-source") == before + 1, what="tunnel-source")
        assert heard.wait_frame(lambda p: mark in bytes(p), 0.1) is None


def test_arp_and_neighbours(scene):
    """A peer claims an address in ARP or neighbour discovery that is not its own."""
    from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr
    from scapy.layers.l2 import ARP

    def arp(mark):
        claim = ARP(op=2, hwsrc=scene.c_mac, psrc=scene.near.ip4, hwdst=scene.a.mac, pdst=scene.a.ip4)
        return Ether(src=scene.c_mac, dst=scene.a.mac) / claim / Raw(mark)

    scene.dropped(("tunnel-source", "arp-sender"), make=arp)

    def advert(_mark):
        na = ICMPv6ND_NA(tgt=scene.near.ip6, S=1, O=1) / ICMPv6NDOptDstLLAddr(lladdr=scene.c_mac)
        return Ether(src=scene.c_mac, dst=scene.a.mac) / IPv6(src="fd77::3", dst=scene.a.ip6, hlim=255) / na

    scene.dropped(("tunnel-source", "nd-target", "nd-source"), make=advert)


def test_nothing_goes_from_a_peer_to_another_peer(scene):
    mark = scene.mark()
    scene.send(scene.inner(mark, to=scene.b.ip4, to_mac=scene.b.mac))
    time.sleep(0.1)
    assert not [t for t in tunnelled(scene.sent.frames()) if mark in t.inner]
    mark = scene.mark()
    scene.send(Ether(src=scene.c_mac, dst="ff:ff:ff:ff:ff:ff", type=0x88B5) / Raw(mark + b" " * 40))
    assert scene.heard.wait_frame(lambda p: mark in bytes(p))
    assert not [t for t in tunnelled(scene.sent.frames()) if mark in t.inner]


def test_the_gateway_is_no_way_round(scene):
    """Routed at its source means: from a network whose way back leads to that peer. This network has no routes at all."""
    mark = scene.mark()
    before = scene.one.daemon.drops()
    scene.send(scene.inner(mark, source_mac=GATEWAY_MAC, source="10.78.0.9"))
    assert scene.heard.wait_frame(lambda p: mark in bytes(p), 0.3) is None
    assert scene.one.daemon.drops() != before


# --- headers ---


def test_malformed_vxlan(vxlan):
    for header in (bytes(8), b"\x00\0\0\0\0\0\x64\0", b"\xf7\0\0\0\0\0\x64\0"):  # without the flag I
        vxlan.dropped("tunnel-malformed", outer={"header": header})
    for size in (0, 4, 7):
        vxlan.dropped("tunnel-malformed", make=lambda _: b"", outer={"header": bytes([8, 0, 0, 0, 0, 0, VNI, 0])[:size]})
    for size in (0, 1, 13):  # less than an Ethernet header
        vxlan.dropped(("tunnel-malformed", "eth-truncated"), make=lambda mark, n=size: bytes(vxlan.inner(mark))[:n])


def test_reserved_bits_of_vxlan_are_ignored(vxlan):
    vxlan.passes(outer={"header": bytes([0xFF, 0xFF, 0xFF, 0xFF, 0, 0, VNI, 0xFF])})


def geneve_header(*options, version=0, length=None, flags=0, kind=0x6558, vni=VNI):
    data = b"".join(options)
    words = len(data) // 4 if length is None else length
    return bytes([version << 6 | words, flags]) + kind.to_bytes(2, "big") + vni.to_bytes(3, "big") + b"\0" + data


def option(kind, data=b"\1\2\3\4", option_class=0x0102, length=None):
    return option_class.to_bytes(2, "big") + bytes([kind, len(data) // 4 if length is None else length]) + data


def test_options_of_geneve_are_skipped(geneve):
    several = [option(1), option(2, bytes(124)), option(3, b"")]
    for options in ([option(1)], [option(1, b"")], several, [option(0x7F, b"")] * 63, [option(9, bytes(120))] * 2):
        geneve.passes(outer={"header": geneve_header(*options)})


def test_critical_options_of_geneve(geneve):
    for options in ([option(0x81)], [option(1), option(0x80, b"")], [option(1, b"")] * 62 + [option(0x80, b"")]):
        geneve.dropped("tunnel-option", outer={"header": geneve_header(*options, flags=0x40)})


def test_malformed_geneve(geneve):
    for header in (
        geneve_header(version=1),
        geneve_header(version=3),
        geneve_header(option(1, length=5)),  # past the options
        geneve_header(option(1), option(2, b"", length=1)),
        geneve_header(kind=0x0800),  # IP without Ethernet, which no network here has
    ):
        geneve.dropped("tunnel-malformed", outer={"header": header})
    geneve.dropped("tunnel-malformed", make=lambda _: b"", outer={"header": geneve_header(option(1), length=63)})
    for size in (0, 4, 7):
        geneve.dropped("tunnel-malformed", make=lambda _: b"", outer={"header": geneve_header()[:size]})
    for size in (0, 13):
        geneve.dropped(("tunnel-malformed", "eth-truncated"), make=lambda mark, n=size: bytes(geneve.inner(mark))[:n])


def test_control_packets_of_geneve_are_the_hosts(geneve):
    mark = geneve.mark()
    with LocalWitness(geneve.one.ns, [17], [17]) as host:
        geneve.send(geneve.inner(mark), header=geneve_header(flags=0x80))
        assert host.saw(mark, 1)
    assert geneve.heard.wait_frame(lambda p: mark in bytes(p), 0.1) is None


def test_broken_inner_packets(scene):
    """The checks of every other packet are those of one that came out of a tunnel."""
    def broken(mark, **fields):
        return Ether(src=scene.c_mac, dst=scene.a.mac) / IP(src="10.77.0.3", dst=scene.a.ip4, **fields) / UDP(sport=7, dport=9) / Raw(mark)

    scene.dropped("ip4-total-length", make=lambda m: broken(m, len=4000))
    scene.dropped(("ip4-ihl", "ip4-total-length"), make=lambda m: broken(m, ihl=4))
    scene.dropped("ip4-version", make=lambda m: broken(m, version=6))


# --- not tunnel packets ---


def test_what_only_looks_like_one(scene):
    """To another port or address it is the host's own affair; to a port of a workload in plain it is nobody's."""
    before = scene.one.daemon.drops()
    with LocalWitness(scene.one.ns, [17], [17]) as host:
        mark = scene.mark()
        frame = wrap(scene.inner(mark), VNI, scene.nobody, scene.one.address, scene.fabric.mac(1), scene.protocol)
        frame[UDP].dport = 4790
        scene.wire.send(frame)
        assert host.saw(mark, 1)
    assert scene.heard.wait_frame(lambda p: mark in bytes(p), 0.1) is None
    assert scene.one.daemon.drops() == before
    scene.wire.send(scene.inner(scene.mark(), to_mac=scene.fabric.mac(1)))
    assert scene.heard.wait_frame(lambda p: b"mark-" in bytes(p), 0.2) is None


# --- marks of congestion (RFC 6040), and hop limits ---

NOT_ECT, ECT1, ECT0, CE = range(4)


@pytest.mark.parametrize("v6", [False, True], ids=["inner4", "inner6"])
def test_congestion_marks(scene, v6):
    """Figure 4 of the RFC: what arrives, by the inner mark and the outer one. The outer DSCP is not the workload's."""
    key = "tos" if scene.family == 4 else "tc"
    wanted = {
        (NOT_ECT, NOT_ECT): NOT_ECT, (NOT_ECT, ECT0): NOT_ECT, (NOT_ECT, ECT1): NOT_ECT, (NOT_ECT, CE): None,
        (ECT0, NOT_ECT): ECT0, (ECT0, ECT0): ECT0, (ECT0, ECT1): ECT1, (ECT0, CE): CE,
        (ECT1, NOT_ECT): ECT1, (ECT1, ECT0): ECT1, (ECT1, ECT1): ECT1, (ECT1, CE): CE,
        (CE, NOT_ECT): CE, (CE, ECT0): CE, (CE, ECT1): CE, (CE, CE): CE,
    }  # fmt: skip
    for (inner, outer), want in wanted.items():
        fields = {"v6": v6, "tos": 0x28 << 2 | inner, "outer": {key: 0x0A << 2 | outer}}
        if want is None:
            scene.dropped("tunnel-ecn", **fields)
            continue
        got = scene.passes(**fields)
        seen = got[IPv6].tc if v6 else got[IP].tos
        assert seen == 0x28 << 2 | want, f"inner {inner}, outer {outer}: {seen & 3}"
        if not v6:
            sum_before = got[IP].chksum
            del got[IP].chksum
            assert Ether(bytes(got))[IP].chksum == sum_before


@pytest.mark.parametrize("v6", [False, True], ids=["inner4", "inner6"])
def test_marks_on_the_way_out(scene, v6):
    """The outer header has the inner one's DSCP and ECN, RFC 6040's normal mode."""
    with Wire(scene.a.ns, "eth0") as wire:
        for tos in (0, 0x2E << 2, 0x2E << 2 | ECT0, ECT1, CE):
            mark = scene.mark()
            layer = IPv6(src=scene.a.ip6, dst=scene.b.ip6, tc=tos) if v6 else IP(src=scene.a.ip4, dst=scene.b.ip4, tos=tos)
            wire.send(Ether(src=scene.a.mac, dst=scene.b.mac) / layer / UDP(sport=5, dport=6) / Raw(mark))
            found = []

            def there(mark=mark, found=found):
                found += [t for t in tunnelled(scene.sent.frames(0.1)) if mark in t.inner]
                return found

            wait_for(there, timeout=2, what=f"a tunnel packet for tos {tos:#x}")
            assert (found[0].ip.tc if scene.family == 6 else found[0].ip.tos) == tos


def test_echo_to_a_peer_that_is_not_one_any_more():
    """The document goes: so do its addresses, and what it still sends."""
    with Fabric() as f:
        one, two = f.heddle(), f.heddle()
        blue = f.network()
        a, b = one.work(blue, 1), two.work(blue, 2)
        f.up()
        assert overlay.echo(a.ns, b.ip4, 84)
        one.put(*[d for d in one.documents() if d["kind"] != "Peer"])
        overlay.expect_nothing(b, a)
        assert one.drops("tunnel-peer") > 0
        with one.witness() as witness:
            overlay.expect_nothing(a, b)
            assert tunnelled(witness.frames()) == []
        one.put()
        assert overlay.echo(a.ns, b.ip4, 84)


