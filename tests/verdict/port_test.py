# SPDX-License-Identifier: Apache-2.0
"""Between ports: who may send as whom, who is reached, who has a say, and what is sent on."""
import struct

import pytest
from packets import ARP, ICMP, IP, SCTP, TCP, UDP, Dot1Q, Ether, ICMPv6EchoRequest, ICMPv6ND_NS, ICMPv6ND_RA, IPv6, IPv6ExtHdrFragment, Raw, pong, unreachable
from ports import ACT_PORT, ALLOW, AUDIT, GATEWAY_MAC, IS_GATEWAY, IS_TAKEN, L2, LEAF, LEARNING, LOG, MARK, NEXT, NONE_HERE, PASS, REDIRECT, RULE_DENY, RULE_IN
from ports import HOST as TO_HOST
from ports import ICMP as L4_ICMP
from ports import PEER as BY_PEER
from ports import RULE_OUT, RULE_PEER, RULE_REJECT, RULE_SECOND, SHOT, leaf
from ports import TCP as L4_TCP
from ports import UDP as L4_UDP
from reasons_test import PORT_REASONS
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_Redirect, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, ICMPv6PacketTooBig
from world import DENY, EGRESS, INGRESS, PORT_IN, PORT_OUT, REASONS, REJECT, U32, number

A = {4: "10.1.0.1", 6: "2001:db8:a::1"}
B = {4: "10.1.0.2", 6: "2001:db8:a::2"}
C = {4: "10.1.0.3", 6: "2001:db8:a::3"}
GATEWAY = {4: "10.1.0.254", 6: "2001:db8:a::fe"}
NODE = {4: "192.0.2.1", 6: "2001:db8::1"}
WIDE = {4: "203.0.113.7", 6: "2001:db8:7::7"}
OTHER_MAC = "02:00:00:00:09:09"


def ip(family, source, destination, **fields):
    return (IP if family == 4 else IPv6)(src=source, dst=destination, **fields)


def between(source, destination, packet, to_mac=None, from_mac=None):
    return Ether(src=from_mac or source.mac, dst=to_mac or destination.mac) / packet


def link_local(port):
    raw = bytes.fromhex(port.mac.replace(":", ""))
    words = (bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:]).hex()
    return "fe80::" + ":".join(words[i:i + 4] for i in range(0, 16, 4))


@pytest.fixture(params=["l2", "l3"])
def pair(plane, request):
    """Two ports of network 1, switched or routed."""
    flags = L2 if request.param == "l2" else 0
    plane.network(1)
    plane.a = plane.port(0, 1, [A[4], A[6]], flags=flags)
    plane.b = plane.port(1, 1, [B[4], B[6]], flags=flags)
    plane.switched = bool(flags)
    return plane


def udp(pair, family, back=False, sport=1000, dport=2000, payload=b"x" * 20, **fields):
    if back:
        return between(pair.b, pair.a, ip(family, B[family], A[family], **fields) / UDP(sport=dport, dport=sport) / Raw(payload))
    return between(pair.a, pair.b, ip(family, A[family], B[family], **fields) / UDP(sport=sport, dport=dport) / Raw(payload))


def tcp(pair, family, flags="S", back=False, sport=1000, dport=80, seq=0, ack=0, payload=b""):
    head = ip(family, B[family], A[family]) if back else ip(family, A[family], B[family])
    segment = TCP(sport=dport if back else sport, dport=sport if back else dport, flags=flags, seq=seq, ack=ack, window=8000) / Raw(payload)
    return between(*((pair.b, pair.a) if back else (pair.a, pair.b)), head / segment)


HANDSHAKE = (("S", False, 100, 0), ("SA", True, 500, 101), ("A", False, 101, 501))  # flags, back, seq, ack


def shake(pair, family):
    for flags, back, seq, ack in HANDSHAKE:
        assert pair.run(pair.b if back else pair.a, tcp(pair, family, flags, back, seq=seq, ack=ack)).reason == "none"


# --- reasons ---

def ns(port, **fields):
    return Ether(src=port.mac, dst="33:33:ff:00:00:02") / IPv6(src=A[6], dst="ff02::1:ff00:2", hlim=255) / ICMPv6ND_NS(tgt=B[6], **fields)


def na(port, target, **fields):
    return Ether(src=port.mac, dst="33:33:00:00:00:01") / IPv6(src=A[6], dst="ff02::1", hlim=255) / ICMPv6ND_NA(tgt=target, **fields)


def arp(port, sender, mac=None, operation=1):
    return Ether(src=port.mac, dst="ff:ff:ff:ff:ff:ff") / ARP(op=operation, hwsrc=mac or port.mac, psrc=sender, hwdst="00:00:00:00:00:00", pdst=B[4])


def datagram(source, family, sender, receiver, to_mac, **fields):
    return Ether(src=source.mac, dst=to_mac) / ip(family, sender, receiver, **fields) / UDP(sport=1, dport=2) / Raw(bytes(30))


# {reason: (port index, [frames])}; a of network 1 (L2), its neighbour b, c of network 3, which only routes.
CASES = {
    "source-mac": (0, lambda a, b, c: [between(a, b, ip(f, A[f], B[f]) / UDP(), from_mac=mac) for f in (4, 6) for mac in (OTHER_MAC, b.mac, GATEWAY_MAC)]),
    "source-ip4": (0, lambda a, b, c: [datagram(a, 4, sender, B[4], b.mac) for sender in
                                       (B[4], GATEWAY[4], NODE[4], "198.51.100.9", "0.0.0.0", "255.255.255.255", "224.0.0.1", "127.0.0.1")]),
    "source-ip6": (0, lambda a, b, c: [datagram(a, 6, sender, B[6], b.mac) for sender in
                                       (B[6], GATEWAY[6], NODE[6], "2001:db8:9::9", "::", "ff02::1", "::1", link_local(b), "fe80::1")]),
    "source-vlan": (0, lambda a, b, c: [Ether(src=a.mac, dst=b.mac) / Dot1Q(vlan=5) / ip(4, A[4], B[4]) / UDP(),
                                        Ether(src=a.mac, dst=b.mac) / Dot1Q(vlan=0) / Dot1Q(vlan=5) / ip(4, A[4], B[4]) / UDP()]),
    "arp-sender": (0, lambda a, b, c: [arp(a, B[4]), arp(a, GATEWAY[4]), arp(a, A[4], b.mac), arp(a, NODE[4]), arp(a, "0.0.0.0", operation=2),
                                       arp(a, B[4], operation=2)]),
    "nd-source": (0, lambda a, b, c: [
        ns(a) / ICMPv6NDOptSrcLLAddr(lladdr=b.mac),
        ns(a) / Raw(b"\x01\x00" + bytes(6)),
        Ether(src=a.mac, dst="33:33:ff:00:00:02") / IPv6(src=B[6], dst="ff02::1:ff00:2", hlim=255) / ICMPv6ND_NS(tgt=C[6]),
        Ether(src=a.mac, dst="33:33:ff:00:00:02") / IPv6(src=link_local(b), dst="ff02::1:ff00:2", hlim=255) / ICMPv6ND_NS(tgt=C[6]),
        Ether(src=a.mac, dst="33:33:ff:00:00:02") / IPv6(src="::", dst="ff02::1:ff00:2", hlim=255) / ICMPv6ND_NS(tgt=C[6]) / ICMPv6NDOptSrcLLAddr(lladdr=a.mac),
        Ether(src=a.mac, dst=b.mac) / IPv6(src="::", dst=B[6], hlim=255) / ICMPv6ND_NS(tgt=B[6]),
        Ether(src=a.mac, dst="33:33:00:00:00:01") / IPv6(src=A[6], dst="ff02::1", hlim=255) / ICMPv6ND_RA(),
        Ether(src=a.mac, dst=b.mac) / IPv6(src=link_local(a), dst=B[6], hlim=255) / ICMPv6ND_Redirect(tgt=A[6], dst=C[6]),
        na(a, A[6]) / ICMPv6NDOptDstLLAddr(lladdr=b.mac),
        Ether(src=a.mac, dst=b.mac) / IPv6(src=A[6], dst=B[6], hlim=255) / IPv6ExtHdrFragment(m=1, id=4) / ICMPv6ND_NS(tgt=B[6])]),
    "nd-target": (0, lambda a, b, c: [na(a, B[6]), na(a, GATEWAY[6]), na(a, link_local(b))]),
    "no-destination": (0, lambda a, b, c: [
        datagram(a, 4, A[4], "198.51.100.9", GATEWAY_MAC), datagram(a, 6, A[6], "2001:db8:9::9", GATEWAY_MAC),
        datagram(a, 6, A[6], "fe80::9", GATEWAY_MAC),
        datagram(a, 4, A[4], GATEWAY[4], GATEWAY_MAC),  # the gateway has no services
        datagram(a, 4, A[4], B[4], c.mac), datagram(a, 4, A[4], B[4], OTHER_MAC),  # a MAC and an address of two different ones
        datagram(a, 4, A[4], C[4], b.mac), datagram(a, 6, A[6], link_local(c), b.mac),
        datagram(a, 4, A[4], B[4], "ff:ff:ff:ff:ff:ff"), datagram(a, 4, A[4], A[4], a.mac)]),
    "ttl-exceeded": (0, lambda a, b, c: [datagram(a, 4, A[4], B[4], GATEWAY_MAC, ttl=1), datagram(a, 6, A[6], B[6], GATEWAY_MAC, hlim=1),
                                         datagram(a, 4, A[4], B[4], GATEWAY_MAC, ttl=0)]),
    "too-big": (0, lambda a, b, c: [Ether(src=a.mac, dst=GATEWAY_MAC) / IP(src=A[4], dst=B[4], flags="DF") / UDP() / Raw(bytes(1400)),
                                    Ether(src=a.mac, dst=GATEWAY_MAC) / IPv6(src=A[6], dst=B[6]) / UDP() / Raw(bytes(1400))]),
    "not-routed": (2, lambda a, b, c: [
        Ether(src=c.mac, dst="ff:ff:ff:ff:ff:ff", type=0x88CC) / Raw(bytes(46)), Ether(src=c.mac, dst=b.mac, type=0x9999) / Raw(bytes(46)),
        datagram(c, 4, C[4], "224.0.0.251", "01:00:5e:00:00:fb"), datagram(c, 4, C[4], "255.255.255.255", "ff:ff:ff:ff:ff:ff"),
        datagram(c, 4, C[4], "127.0.0.1", GATEWAY_MAC), datagram(c, 4, C[4], "224.0.0.9", GATEWAY_MAC), datagram(c, 6, C[6], "::1", GATEWAY_MAC),
        datagram(c, 4, C[4], WIDE[4], "ff:ff:ff:ff:ff:ff"),
        Ether(src=c.mac, dst="33:33:00:00:00:02") / IPv6(src=link_local(c), dst="ff02::2", hlim=255) / Raw(b"")]),
}


@pytest.fixture
def three(plane):
    plane.network(1)
    plane.network(3)
    plane.a = plane.port(0, 1, [A[4], A[6]])
    plane.b = plane.port(1, 1, [B[4], B[6]], mtu=1400)
    plane.c = plane.port(2, 3, [C[4], C[6]], flags=0)
    plane.endpoint(1, GATEWAY[4], flags=IS_GATEWAY, mac=GATEWAY_MAC)
    plane.endpoint(1, GATEWAY[6], flags=IS_GATEWAY, mac=GATEWAY_MAC)
    plane.endpoint(1, NODE[4], flags=IS_TAKEN)
    plane.endpoint(1, NODE[6], flags=IS_TAKEN)
    return plane


def test_every_reason_of_ports_has_a_case():
    assert set(CASES) == set(PORT_REASONS)


@pytest.mark.parametrize("reason", CASES)
def test_reason(three, reason):
    index, frames = CASES[reason]
    port = (three.a, three.b, three.c)[index]
    for number, one in enumerate(frames(three.a, three.b, three.c)):
        page = three.explain(port, one)
        assert page.why == reason, (number, page.why)
        result = three.run(port, one)
        assert (result.action, result.reason) == (SHOT, reason), number
        events = [event for event in three.world.events() if REASONS[event.reason] == reason]
        assert len(events) == 1 and events[0].verdict == 3 and events[0].ifindex == port.ifindex and events[0].network == port.record.network
    assert three.world.flows() == [] or reason == "too-big"


@pytest.mark.parametrize("reason, answered", [("no-destination", True), ("ttl-exceeded", True), ("too-big", True), ("source-ip4", False)])
def test_the_agent_is_asked_to_answer(three, reason, answered):
    packet = bytes(CASES[reason][1](three.a, three.b, three.c)[0])
    three.run(three.a, packet)
    (event,) = three.world.events()
    assert event.name == ("reject" if answered else "drop")
    if answered:
        assert bytes(event.packet[:event.packet_length]) == packet[:192] and event.l3_offset == 14
    assert event.mtu == (1400 if reason == "too-big" else 0)


# --- delivery ---

def test_unicast(pair, family):
    result = pair.run(pair.a, udp(pair, family))
    assert (result.action, result.reason, result.mark) == (REDIRECT, "none", MARK)
    assert pair.run(pair.b, udp(pair, family, True)).action == REDIRECT
    table, flow = pair.world.flow()
    assert (table, flow.name, list(flow.packets)) == ("flows_other", "udp-replied", [1, 1])
    assert list(flow.device) == [pair.a.ifindex, pair.b.ifindex]
    assert (flow.rule, flow.second_rule) == (RULE_OUT, RULE_IN)
    for _ in range(3):  # and so on, the short way
        assert pair.run(pair.a, udp(pair, family)).action == REDIRECT
        assert pair.run(pair.b, udp(pair, family, True)).action == REDIRECT
    assert list(pair.world.flow()[1].packets) == [4, 4]


def hint_of(key):
    """Index in flow_hints: hd_flow_hash() of include/heddle/hot.h."""
    factors = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0xFF51AFD7ED558CCD, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F)
    x = 0
    for word, factor in zip(struct.unpack(f"<{len(key) // 8}Q", key), factors):
        x ^= (word ^ word >> 32) * factor & 2**64 - 1
    x = (x ^ x >> 32) * 0xE7037ED1A0B428DB & 2**64 - 1
    return struct.pack("<I", (x >> 40) & number("flow.h", "HD_FLOW_HINTS") - 1)


HINT_NEW = number("flow.h", "HD_FLOW_HINT_NEW")


def test_hints_of_flows_that_are_not_tcp(pair, family):
    """They save a lookup, and nothing else: whatever a hint says, the flow is found where it is."""
    world, there, back = pair.world, udp(pair, family), udp(pair, family, True)
    pair.run(pair.a, there)
    hint = hint_of(world.flows()[0][1])
    count = 1
    for wrong in (0, 5, HINT_NEW - 1, HINT_NEW):
        world.store("flow_hints", hint, struct.pack("<I", wrong))
        assert pair.run(pair.a, there).action == REDIRECT
        count += 1
        assert (world.flow()[0], list(world.flow()[1].packets)) == ("flows_new", [count, 0])
        assert world.lookup("flow_hints", hint, U32).value == HINT_NEW
    assert pair.run(pair.b, back).action == REDIRECT
    for extra, wrong in enumerate((HINT_NEW, 0, 7)):  # proven: a slot that some TCP flow left there leads to the right table
        world.store("flow_hints", hint, struct.pack("<I", wrong))
        assert pair.run(pair.a, there).action == REDIRECT
        assert (world.flow()[0], list(world.flow()[1].packets)) == ("flows_other", [count + 1 + extra, 1])
        assert world.lookup("flow_hints", hint, U32).value == (0 if wrong == HINT_NEW else wrong)


def test_an_unproven_twin_of_a_proven_flow_does_not_stay_in_its_way(pair, family):
    """Two CPUs may leave both behind, when one opens what the other one proves."""
    world, there, back = pair.world, udp(pair, family), udp(pair, family, True)
    pair.run(pair.a, there)
    ((_, key, unproven),) = world.flows()
    pair.run(pair.b, back)
    world.store(f"flows{family}_new", key, bytes(unproven))
    world.store("flow_hints", hint_of(key), struct.pack("<I", HINT_NEW))
    for _ in range(3):
        assert pair.run(pair.b, back).action == REDIRECT
        assert pair.run(pair.a, there).action == REDIRECT
    found = {table: list(flow.packets) for table, _, flow in world.flows()}
    assert found == {"flows_other": [4, 4], "flows_new": [1, 0]}


def test_tcp(pair, family):
    shake(pair, family)
    table, flow = pair.world.flow()
    assert (table, flow.name) == ("flows", "established")
    for number in range(20):
        assert pair.run(pair.a, tcp(pair, family, "PA", seq=101 + 10 * number, ack=501, payload=b"x" * 10)).action == REDIRECT
    assert pair.world.flow()[1].packets[0] == 22
    assert not pair.world.flow()[1].flags & 64  # the cache of busy flows is for uplinks
    assert pair.run(pair.b, tcp(pair, family, "FA", True, seq=501, ack=301)).action == REDIRECT
    assert pair.run(pair.a, tcp(pair, family, "FA", seq=301, ack=502)).action == REDIRECT
    assert pair.world.flow()[0] == "flows_new" and pair.world.flow()[1].name == "closed"
    assert pair.run(pair.a, tcp(pair, family, "A", sport=9)).reason == "tcp-no-flow"


def test_switched_frames_stay_as_they_are(plane, family):
    plane.network(1)
    plane.a, plane.b = plane.port(0, 1, [A[family]]), plane.port(1, 1, [B[family]])
    for packet in (udp(plane, family), udp(plane, family), tcp(plane, family)):
        assert plane.run(plane.a, packet).out == bytes(packet)


def test_routed_frames(pair, family):
    """Also on an L2 network, where the gateway's MAC says so."""
    for port in (1000, 1000, 1001):  # the long and the short way
        packet = udp(pair, family, sport=port)
        packet.dst = GATEWAY_MAC
        want = packet.copy()
        want.src, want.dst = GATEWAY_MAC, pair.b.mac
        if family == 4:
            want[IP].ttl = 63
            del want[IP].chksum
        else:
            want[IPv6].hlim = 63
        assert pair.run(pair.a, packet).out == bytes(want)


@pytest.mark.parametrize("checksum", [0xFEFF, 0xFFFF, 0x0000, 0xFEFE, 0x00FF])
def test_routed_checksum_wraps(pair, checksum):
    """Identifications are chosen so that the header sum before comes near its wrap."""
    packet = udp(pair, 4)
    packet.dst = GATEWAY_MAC
    packet[IP].id = 0
    base = int.from_bytes(bytes(packet)[24:26], "big")
    packet[IP].id = (base - checksum) % 0xFFFF
    out = IP(pair.run(pair.a, packet).out[14:])
    want = out.copy()
    del want.chksum
    assert bytes(out)[:20] == bytes(IP(bytes(want)))[:20] and out.ttl == 63


def test_peer_redirect(plane, family):
    plane.network(1)
    plane.a, plane.b = plane.port(0, 1, [A[family]]), plane.port(1, 1, [B[family]], flags=L2 | BY_PEER)
    result = plane.run(plane.a, udp(plane, family))
    assert (result.action, result.mark) == (REDIRECT, 0)


def test_marks(pair, family):
    """What a workload writes there goes; ours passes tc_port_out, which takes it off."""
    assert pair.run(pair.a, udp(pair, family), mark=0x20000001).mark == MARK
    result = pair.run(pair.b, udp(pair, family), PORT_OUT, mark=MARK)
    assert (result.action, result.reason, result.mark) == (NEXT, "none", 0)
    assert pair.run(pair.b, udp(pair, family), PORT_OUT, mark=0x1FFFFFFF).reason == "no-destination"


def test_ttl_on_the_short_way(pair, family):
    packet = udp(pair, family)
    packet.dst = GATEWAY_MAC
    assert pair.run(pair.a, packet).action == REDIRECT
    packet[IP if family == 4 else IPv6].setfieldval("ttl" if family == 4 else "hlim", 1)
    if family == 4:
        del packet[IP].chksum
    assert pair.run(pair.a, packet).reason == "ttl-exceeded"


def test_mtu(plane):
    plane.network(1)
    plane.a, plane.b = plane.port(0, 1, [A[4]], flags=0), plane.port(1, 1, [B[4]], flags=0, mtu=1400)
    small, large = udp(plane, 4, payload=bytes(1372), flags="DF"), udp(plane, 4, payload=bytes(1373), flags="DF")
    assert plane.run(plane.a, large).reason == "too-big"
    assert plane.run(plane.a, small).action == REDIRECT
    assert plane.run(plane.a, large).reason == "too-big"
    assert plane.run(plane.a, udp(plane, 4, payload=bytes(1373))).action == REDIRECT  # may be cut
    # A packet that a device will cut counts by its pieces.
    shake(plane, 4)
    segment = tcp(plane, 4, "PA", seq=101, ack=501, payload=bytes(3000))
    segment[IP].flags = "DF"
    assert plane.run(plane.a, segment, gso_segs=3, gso_size=1360).action == REDIRECT
    assert plane.run(plane.a, segment, gso_segs=3, gso_size=1361).reason == "too-big"


def test_switched_frames_know_no_mtu(plane):
    plane.network(1)
    plane.a, plane.b = plane.port(0, 1, [A[4]]), plane.port(1, 1, [B[4]], mtu=1400)
    assert plane.run(plane.a, udp(plane, 4, payload=bytes(1450), flags="DF")).action == REDIRECT


def test_port_without_record_is_left_alone(plane):
    assert plane.run(plane.ports[5], Ether() / IP() / TCP(flags="SF")).action == NEXT
    assert plane.run(plane.ports[5], Ether() / IP() / TCP(flags="SF"), PORT_OUT).action == NEXT


def test_not_ready(pair, family):
    pair.b.record.policy[0].generation = pair.generation + 1
    pair.write(pair.b)
    assert pair.run(pair.a, udp(pair, family)).reason == "no-destination"
    pair.a.record.policy[0].generation = pair.generation + 1
    pair.write(pair.a)
    assert pair.run(pair.a, udp(pair, family)).reason == "not-ready"


# --- sources ---

@pytest.mark.parametrize("own", [True, False], ids=["by its MAC", "given"])
def test_link_local(plane, own):
    plane.network(1)
    plane.a, plane.b = plane.port(0, 1, [A[6]]), plane.port(1, 1, [B[6]])
    source, destination = (link_local(plane.a), link_local(plane.b)) if own else ("fe80::a", "fe80::b")
    packet = between(plane.a, plane.b, ip(6, source, destination) / UDP(sport=1, dport=2))
    if not own:
        assert plane.run(plane.a, packet).reason == "source-ip6"
        plane.endpoint(1, "fe80::a", plane.a)
        assert plane.run(plane.a, packet).reason == "no-destination"
        plane.endpoint(1, "fe80::b", plane.b)
    assert plane.run(plane.a, packet).action == REDIRECT
    # A document that gives an address to somebody overrules what a MAC would say.
    plane.world.clear()
    plane.endpoint(1, source, plane.b)
    assert plane.run(plane.a, packet).reason == "source-ip6"


def test_another_port_cannot_ride_on_a_flow(pair, family):
    """C sends what belongs to the connection of A and B, with a MAC of its own: it has no part in it."""
    c = pair.port(2, 1, [C[family]], flags=L2 if pair.switched else 0)
    shake(pair, family)
    before = bytes(pair.world.flow()[1])
    packet = tcp(pair, family, "PA", seq=101, ack=501, payload=b"x")
    packet.src = c.mac
    assert pair.run(c, packet).reason == f"source-ip{family}"
    packet.src = pair.a.mac
    assert pair.run(c, packet).reason == "source-mac"
    assert bytes(pair.world.flow()[1]) == before


def test_an_address_that_moved(pair, family):
    """Its flows end with the next packet, from either end; `moved` tells those that are not looked up any more."""
    shake(pair, family)
    c = pair.port(2, 1, [], flags=L2 if pair.switched else 0)
    pair.endpoint(1, A[family], c)
    pair.a.record.moved = pair.world.now() + 1
    pair.write(pair.a)
    assert pair.run(pair.a, tcp(pair, family, "PA", seq=101, ack=501, payload=b"x")).reason == f"source-ip{family}"
    answer = tcp(pair, family, "PA", True, seq=501, ack=101, payload=b"x")
    answer.dst = c.mac
    assert pair.run(pair.b, answer).reason == "tcp-no-flow"
    assert pair.world.flows() == []


def test_a_port_that_is_gone(pair, family):
    shake(pair, family)
    pair.world.store("ports", pair.b.ifindex.to_bytes(4, "little"), bytes(128))
    assert pair.run(pair.a, tcp(pair, family, "PA", seq=101, ack=501, payload=b"x")).reason == "no-destination"


# --- networks ---

def test_networks_with_the_same_addresses(plane, family):
    plane.network(1)
    plane.network(2)
    first = plane.port(0, 1, [A[family]], flags=0), plane.port(1, 1, [B[family]], flags=0)
    second = plane.port(2, 2, [A[family]], flags=0), plane.port(3, 2, [B[family]], flags=0)
    for a, b in (first, second):
        packet = between(a, b, ip(family, A[family], B[family]) / UDP(sport=1, dport=2))
        for _ in range(2):
            result = plane.run(a, packet)
            assert result.action == REDIRECT and result.out[:6] == bytes.fromhex(b.mac.replace(":", ""))
    assert sorted(list(flow.device) for _, _, flow in plane.world.flows()) == sorted([p.ifindex for p in pair] for pair in (first, second))


def test_macs_of_another_network(plane, family):
    """Nobody is reached by a MAC of a network that is not one's own."""
    plane.network(1)
    plane.network(2)
    a, b = plane.port(0, 1, [A[family]]), plane.port(1, 2, [B[family]])
    assert plane.run(a, between(a, b, ip(family, A[family], B[family]) / UDP())).action == SHOT
    assert plane.world.flows() == []


@pytest.fixture
def routed(plane, family):
    """Network 1 and network 2 route to each other, network 3 to nobody."""
    plane.far = {4: "10.2.0.1", 6: "2001:db8:b::1"}[family]
    prefixes = {4: ("10.1.0.0/24", "10.2.0.0/24"), 6: ("2001:db8:a::/64", "2001:db8:b::/64")}[family]
    for index in (1, 2, 3):
        plane.network(index)
    plane.route(1, prefixes[1], 2, 5000)
    plane.route(2, prefixes[0], 1, 5000)
    plane.a = plane.port(0, 1, [A[family]], flags=0)
    plane.b = plane.port(1, 2, [plane.far], flags=L2)
    plane.c = plane.port(2, 3, [C[family]], flags=0)
    return plane


def test_routes_between_networks(routed, family):
    there = between(routed.a, routed.b, ip(family, A[family], routed.far) / UDP(sport=1, dport=2), to_mac=GATEWAY_MAC)
    back = between(routed.b, routed.a, ip(family, routed.far, A[family]) / UDP(sport=2, dport=1), to_mac=GATEWAY_MAC)
    page = routed.explain(routed.a, there)
    assert (page.why, page.action, page.to, page.network, page.routed) == ("none", ACT_PORT, routed.b.ifindex, 5000, 1)
    for _ in range(2):
        assert routed.run(routed.a, there).action == REDIRECT
        assert routed.run(routed.b, back).action == REDIRECT
    (table, key, flow), = routed.world.flows()
    assert (table, int.from_bytes(key[:2], "little"), list(flow.packets)) == ("flows_other", 5000, [2, 2])


def test_only_where_the_map_says(routed, family):
    for port, source, destination in ((routed.a, A, C[family]), (routed.c, C, A[family]), (routed.c, C, routed.far)):
        packet = between(port, None, ip(family, source[family], destination) / UDP(), to_mac=GATEWAY_MAC)
        assert routed.run(port, packet).reason == "no-destination"
    # Nobody there has it, though the prefix is routed.
    other = {4: "10.2.0.9", 6: "2001:db8:b::9"}[family]
    assert routed.run(routed.a, between(routed.a, None, ip(family, A[family], other) / UDP(), to_mac=GATEWAY_MAC)).reason == "no-destination"


def test_peers_are_looked_up_in_their_network(plane):
    """The same address has another class in each network: rules for A of network 1 are not for A of network 2."""
    for index in (1, 2):
        plane.network(index, addr4=plane.addresses({A[4]: index}))
    ports, roots = {}, {}
    for index in (1, 2):
        a, b = plane.port(2 * index - 2, index, [A[4]], flags=0), plane.port(2 * index - 1, index, [B[4]], flags=0, ingress=leaf(RULE_DENY, DENY))
        roots[plane.set_of(b, INGRESS)] = plane.tree({(L4_UDP, 2): leaf(RULE_PEER)}, order=1)
        ports[index] = a, b
    plane.class_rules(1, roots)
    plane.class_rules(2, {})
    for index, reason in ((1, "none"), (2, "policy-deny")):
        a, b = ports[index]
        assert plane.run(a, between(a, b, ip(4, A[4], B[4]) / UDP(sport=1, dport=2))).reason == reason


# --- policy ---

def test_both_have_a_say(pair, family):
    for direction, port in ((EGRESS, pair.a), (INGRESS, pair.b)):
        for verdict, rule, reason in ((DENY, RULE_DENY, "policy-deny"), (REJECT, RULE_REJECT, "policy-reject")):
            pair.policy(port, direction, leaf(rule, verdict))
            page = pair.explain(pair.a, udp(pair, family))
            assert (page.why, page.rule) == (reason, rule)
            assert pair.run(pair.a, udp(pair, family)).reason == reason
            event = pair.world.events()[-1]
            assert (event.rule, event.verdict, event.ifindex) == (rule, verdict, pair.a.ifindex)
        pair.policy(port, direction, leaf(RULE_IN if direction == INGRESS else RULE_OUT))
    assert pair.world.flows() == []
    # Nobody asks the other two.
    pair.policy(pair.a, INGRESS, leaf(RULE_DENY, DENY))
    pair.policy(pair.b, EGRESS, leaf(RULE_DENY, DENY))
    page = pair.explain(pair.a, udp(pair, family))
    assert (page.why, page.rule, page.second_rule, page.to) == ("none", RULE_OUT, RULE_IN, pair.b.ifindex)
    assert pair.run(pair.a, udp(pair, family)).action == REDIRECT
    assert pair.run(pair.b, udp(pair, family, True)).action == REDIRECT
    assert pair.run(pair.b, udp(pair, family, True, sport=77)).reason == "policy-deny"


def test_both_rules_count(pair, family):
    before = pair.count(RULE_OUT), pair.count(RULE_IN)
    for _ in range(3):
        pair.run(pair.a, udp(pair, family))
        pair.run(pair.b, udp(pair, family, True))
    assert (pair.count(RULE_OUT) - before[0], pair.count(RULE_IN) - before[1]) == (6, 6)


def test_rules_by_peer_and_port(pair):
    pair.network(1, addr4=pair.addresses({A[4]: 7}))
    pair.policy(pair.b, INGRESS, leaf(RULE_DENY, DENY))
    pair.class_rules(7, {pair.set_of(pair.b, INGRESS): pair.tree({(L4_TCP, 80): leaf(RULE_PEER)}, order=1)})
    assert pair.run(pair.a, tcp(pair, 4, dport=80)).action == REDIRECT
    assert pair.world.flow()[1].second_rule == RULE_PEER
    assert pair.run(pair.a, tcp(pair, 4, dport=81)).reason == "policy-deny"
    assert pair.run(pair.a, udp(pair, 4, dport=80)).reason == "policy-deny"


def test_pass(pair, family):
    """A rule that passes hands the question to the second set, whose answer counts; without one the packet may pass."""
    pair.policy(pair.b, INGRESS, leaf(RULE_PEER, ALLOW, PASS), passes=leaf(RULE_DENY, DENY))
    assert pair.run(pair.a, udp(pair, family)).reason == "policy-deny"
    assert pair.world.events()[-1].rule == RULE_DENY
    pair.policy(pair.b, INGRESS, leaf(RULE_PEER, ALLOW, PASS), passes=leaf(RULE_SECOND))
    assert pair.run(pair.a, udp(pair, family)).action == REDIRECT
    assert pair.world.flow()[1].second_rule == RULE_SECOND
    pair.world.clear()
    pair.policy(pair.b, INGRESS, leaf(RULE_PEER, ALLOW, PASS))
    assert pair.run(pair.a, udp(pair, family)).action == REDIRECT
    assert pair.world.flow()[1].second_rule == RULE_PEER
    # Egress too, and only where the rule says so.
    pair.world.clear()
    pair.policy(pair.a, EGRESS, pair.tree({(L4_UDP, 2000): leaf(RULE_PEER, ALLOW, PASS)}, otherwise=leaf(RULE_OUT)), passes=leaf(RULE_REJECT, REJECT))
    assert pair.run(pair.a, udp(pair, family)).reason == "policy-reject"
    assert pair.run(pair.a, udp(pair, family, dport=2001)).action == REDIRECT


def test_pass_asks_about_the_peer_again(pair):
    pair.network(1, addr4=pair.addresses({A[4]: 7}))
    pair.policy(pair.b, INGRESS, leaf(RULE_PEER, ALLOW, PASS), passes=leaf(RULE_DENY, DENY))
    pair.class_rules(7, {pair.b.record.policy[0].pass_set[INGRESS]: pair.tree({(L4_UDP, 2000): leaf(RULE_SECOND)}, order=1)})
    assert pair.run(pair.a, udp(pair, 4)).action == REDIRECT
    assert pair.run(pair.a, udp(pair, 4, dport=2001)).reason == "policy-deny"


@pytest.mark.parametrize("verdict, reason", [(DENY, "policy-deny"), (REJECT, "policy-reject")])
def test_audit(pair, family, verdict, reason):
    pair.policy(pair.b, INGRESS, leaf(RULE_DENY, verdict, AUDIT | LOG))
    before = pair.count(RULE_DENY)
    assert pair.run(pair.a, udp(pair, family)).action == REDIRECT
    (event,) = pair.world.events()
    assert (event.name, event.rule, REASONS[event.reason], event.verdict) == ("log", RULE_DENY, reason, ALLOW)
    assert pair.count(RULE_DENY) == before + 1
    pair.run(pair.a, udp(pair, family))
    assert pair.world.events() == []  # of a flow, once


@pytest.mark.parametrize("side", ["source", "destination"])
def test_a_change_of_either_policy_is_asked_for(pair, family, side):
    shake(pair, family)
    port, direction = (pair.a, EGRESS) if side == "source" else (pair.b, INGRESS)
    packets = [(pair.a, tcp(pair, family, "PA", seq=101, ack=501, payload=b"x")), (pair.b, tcp(pair, family, "PA", True, seq=501, ack=101, payload=b"x"))]
    version = pair.generation
    for sender, packet in packets:
        version += 1
        pair.policy(port, direction, leaf(RULE_PEER), version=version)
        page = pair.explain(sender, packet)
        assert (page.why, page.rejudged) == ("none", 1)
        assert pair.run(sender, packet).action == REDIRECT
        flow = pair.world.flow()[1]
        assert (flow.rule if side == "source" else flow.second_rule) == RULE_PEER
        assert (flow.version if side == "source" else flow.second_version) == version
        assert pair.explain(sender, packet).rejudged == 0
    for sender, packet in packets:
        pair.policy(port, direction, leaf(RULE_DENY, DENY), version=version + 1)
        assert pair.run(sender, packet).reason == "policy-deny"
        assert pair.world.flows() == []
        pair.policy(port, direction, leaf(RULE_PEER), version=version)
        shake(pair, family)


def test_the_other_direction_is_nobodys_business(pair, family):
    """The policies that a flow was not judged by may change as they like."""
    shake(pair, family)
    pair.policy(pair.a, INGRESS, leaf(RULE_DENY, DENY), version=pair.generation + 1)
    pair.policy(pair.b, EGRESS, leaf(RULE_DENY, DENY), version=pair.generation + 1)
    packet = tcp(pair, family, "PA", True, seq=501, ack=101, payload=b"x")
    assert pair.explain(pair.b, packet).rejudged == 0
    assert pair.run(pair.b, packet).action == REDIRECT


# --- what flows know ---

def test_ping(pair, family):
    request = ICMP(type=8, id=5) if family == 4 else ICMPv6EchoRequest(id=5)
    there = between(pair.a, pair.b, ip(family, A[family], B[family]) / request)
    back = between(pair.b, pair.a, ip(family, B[family], A[family]) / pong(family, ident=5)[1].payload)
    assert pair.run(pair.b, back).reason == "icmp-unrelated"
    assert pair.run(pair.a, there).action == REDIRECT
    assert pair.run(pair.b, back).action == REDIRECT
    assert pair.world.flow()[1].name == "icmp-replied"


def error(family, packet, sender, to):
    made = unreachable(family, packet, sender=sender)
    made.src, made.dst = to
    return made


def test_icmp_errors(pair, family):
    pair.policy(pair.b, EGRESS, leaf(RULE_DENY, DENY))
    pair.policy(pair.a, INGRESS, leaf(RULE_DENY, DENY))
    packet = udp(pair, family)
    assert pair.run(pair.b, error(family, packet, B[family], (pair.b.mac, pair.a.mac))).reason == "policy-deny"
    assert pair.run(pair.a, packet).action == REDIRECT
    result = pair.run(pair.b, error(family, packet, B[family], (pair.b.mac, pair.a.mac)))
    assert result.action == REDIRECT
    assert pair.explain(pair.b, error(family, packet, B[family], (pair.b.mac, pair.a.mac))).related == 1
    # Not of another port's flow, and not from an address that is not one's own.
    c = pair.port(2, 1, [C[family]], flags=L2 if pair.switched else 0, egress=leaf(RULE_DENY, DENY))
    assert pair.run(c, error(family, packet, C[family], (c.mac, pair.a.mac))).reason == "policy-deny"
    assert pair.run(c, error(family, packet, B[family], (c.mac, pair.a.mac))).reason == f"source-ip{family}"


def fragments(pair, family, ident=9):
    whole = UDP(sport=1000, dport=2000) / Raw(bytes(range(64)))
    raw = bytes(ip(family, A[family], B[family]) / whole)[20 if family == 4 else 40:]
    made = []
    for offset, more in ((0, True), (40, False)):
        piece = raw[offset:offset + 40]
        if family == 4:
            head = IP(src=A[4], dst=B[4], id=ident, frag=offset // 8, flags="MF" if more else 0, proto=17)
        else:
            head = IPv6(src=A[6], dst=B[6]) / IPv6ExtHdrFragment(nh=17, offset=offset // 8, m=int(more), id=ident)
        made.append(between(pair.a, pair.b, head / Raw(piece)))
    return made


def test_fragments(pair, family):
    first, later = fragments(pair, family)
    assert pair.run(pair.a, later).reason == "frag-unknown"
    assert pair.run(pair.a, first).action == REDIRECT
    assert pair.run(pair.a, later).action == REDIRECT
    # What the destination's policy was is part of it.
    pair.policy(pair.b, INGRESS, leaf(RULE_IN), version=pair.generation + 5)
    assert pair.run(pair.a, later).reason == "frag-unknown"
    pair.policy(pair.b, INGRESS, leaf(RULE_DENY, DENY), version=pair.generation + 6)
    first, later = fragments(pair, family, 10)
    assert (pair.run(pair.a, first).reason, pair.run(pair.a, later).reason) == ("policy-deny", "policy-deny")


def test_later_fragments_need_a_source_too(pair, family):
    c = pair.port(2, 1, [C[family]], flags=L2 if pair.switched else 0)
    first, later = fragments(pair, family)
    assert pair.run(pair.a, first).action == REDIRECT
    later.src = c.mac
    assert pair.run(c, later).reason == f"source-ip{family}"


def test_running_connections_are_picked_up(pair, family):
    control = pair.world.control
    control.flags, control.pickup_until = 2, (pair.world.now() + 100000) & 0xFFFFFFFF
    assert pair.run(pair.a, tcp(pair, family, "A", seq=1, ack=1)).action == REDIRECT
    pair.world.clear()
    control.flags = 2
    # Only B may have opened it: A's packet is not taken for its answer, B's own next one picks it up.
    pair.policy(pair.a, EGRESS, leaf(RULE_DENY, DENY))
    assert pair.run(pair.a, tcp(pair, family, "A", seq=1, ack=1)).reason == "policy-deny"
    assert pair.run(pair.b, tcp(pair, family, "A", True, seq=1, ack=1)).action == REDIRECT
    flow = pair.world.flow()[1]
    assert list(flow.device) == [pair.b.ifindex, pair.a.ifindex]
    assert pair.run(pair.a, tcp(pair, family, "A", seq=1, ack=1)).action == REDIRECT
    assert pair.explain(pair.a, tcp(pair, family, "A", seq=1, ack=1)).rejudged == 0


# --- the host ---

@pytest.fixture
def hosted(plane, family):
    plane.network(1)
    plane.a = plane.port(0, 1, [A[family]], flags=TO_HOST)
    return plane


def outside(plane, family, back=False, sport=5, dport=6, address=None, **fields):
    far = address or WIDE[family]
    if back:
        return Ether(src=OTHER_MAC, dst=plane.a.mac) / ip(family, far, A[family], **fields) / UDP(sport=dport, dport=sport)
    return Ether(src=plane.a.mac, dst=GATEWAY_MAC) / ip(family, A[family], far, **fields) / UDP(sport=sport, dport=dport)


def test_to_the_host(hosted, family):
    result = hosted.run(hosted.a, outside(hosted, family))
    assert (result.action, result.reason, result.out, result.mark) == (NEXT, "none", bytes(outside(hosted, family)), 0)
    flow = hosted.world.flow()[1]
    assert (list(flow.device), flow.rule, flow.second_rule) == ([hosted.a.ifindex, 0], RULE_OUT, 0)
    hosted.policy(hosted.a, INGRESS, leaf(RULE_DENY, DENY), version=hosted.generation + 1)
    assert hosted.run(hosted.a, outside(hosted, family, True), PORT_OUT, ingress_ifindex=99).action == NEXT
    assert hosted.run(hosted.a, outside(hosted, family)).action == NEXT
    assert hosted.world.flow()[1].name == "udp-replied"
    assert hosted.run(hosted.a, outside(hosted, family, True, sport=7), PORT_OUT, ingress_ifindex=99).reason == "policy-deny"
    hosted.policy(hosted.a, EGRESS, leaf(RULE_DENY, DENY), version=hosted.generation + 1)
    assert hosted.run(hosted.a, outside(hosted, family, True), PORT_OUT, ingress_ifindex=99).reason == "policy-deny"
    assert hosted.world.flows() == []


def test_from_outside(hosted, family):
    """Judged by the ingress policy, with the peer in the tree of the port's network."""
    if family == 4:
        hosted.network(1, addr4=hosted.addresses({WIDE[4]: 9}))
        hosted.policy(hosted.a, INGRESS, leaf(RULE_DENY, DENY))
        hosted.class_rules(9, {hosted.set_of(hosted.a, INGRESS): hosted.tree({(L4_UDP, 5): leaf(RULE_PEER)}, order=1)})
        assert hosted.run(hosted.a, outside(hosted, 4, True, address="203.0.113.8"), PORT_OUT, ingress_ifindex=99).reason == "policy-deny"
    assert hosted.run(hosted.a, outside(hosted, family, True), PORT_OUT, ingress_ifindex=99).action == NEXT
    flow = hosted.world.flow()[1]
    assert list(flow.device) == [0, hosted.a.ifindex] and flow.rule == (RULE_PEER if family == 4 else RULE_IN)
    hosted.policy(hosted.a, EGRESS, leaf(RULE_DENY, DENY))
    assert hosted.run(hosted.a, outside(hosted, family)).action == NEXT
    hosted.policy(hosted.a, INGRESS, leaf(RULE_DENY, DENY), version=hosted.generation + 1)
    if family == 6:
        assert hosted.run(hosted.a, outside(hosted, family)).reason == "policy-deny"


def test_the_hosts_own_traffic(hosted, family):
    """No policy keeps the node from its ports, nor their answers from it; other packets of theirs are judged."""
    hosted.policy(hosted.a, INGRESS, leaf(RULE_DENY, DENY))
    hosted.policy(hosted.a, EGRESS, leaf(RULE_DENY, DENY))
    before = hosted.count("node")
    assert hosted.run(hosted.a, outside(hosted, family, True), PORT_OUT).action == NEXT
    assert hosted.run(hosted.a, outside(hosted, family)).action == NEXT
    assert hosted.count("node") == before + 2
    assert hosted.run(hosted.a, outside(hosted, family, sport=99)).reason == "policy-deny"
    hosted.policy(hosted.a, INGRESS, leaf(RULE_DENY, DENY), version=hosted.generation + 1)
    assert hosted.run(hosted.a, outside(hosted, family)).action == NEXT


def test_without_the_host(plane, family):
    plane.network(1)
    plane.a = plane.port(0, 1, [A[family]], flags=0)
    assert plane.run(plane.a, outside(plane, family)).reason == "no-destination"
    assert plane.run(plane.a, outside(plane, family, True), PORT_OUT).reason == "no-destination"
    assert plane.run(plane.a, Ether() / ARP(), PORT_OUT).reason == "no-destination"


def test_nobody_outside_is_a_port(hosted, family):
    """An address of a port that comes from the host's stack is a lie."""
    b = hosted.port(1, 1, [B[family]], flags=TO_HOST)
    packet = outside(hosted, family, True, address=B[family])
    assert hosted.run(hosted.a, packet, PORT_OUT, ingress_ifindex=99).reason == f"source-ip{family}"
    hosted.b = b
    assert hosted.run(hosted.a, between(hosted.a, b, ip(family, A[family], B[family]) / UDP(sport=5, dport=6))).action == REDIRECT
    assert hosted.run(hosted.a, packet, PORT_OUT, ingress_ifindex=99).reason == f"source-ip{family}"


def test_icmp_errors_from_outside(hosted, family):
    hosted.policy(hosted.a, INGRESS, leaf(RULE_DENY, DENY))
    sent = outside(hosted, family)
    assert hosted.run(hosted.a, error(family, sent, WIDE[family], (OTHER_MAC, hosted.a.mac)), PORT_OUT, ingress_ifindex=99).reason == "policy-deny"
    assert hosted.run(hosted.a, sent).action == NEXT
    assert hosted.run(hosted.a, error(family, sent, {4: "203.0.113.200", 6: "2001:db8:7::200"}[family], (OTHER_MAC, hosted.a.mac)), PORT_OUT, ingress_ifindex=99).action == NEXT


def test_explain_of_ports_changes_nothing(pair, family):
    pair.run(pair.a, udp(pair, family))
    before = [bytes(flow) for _, _, flow in pair.world.flows()], pair.world.drops(), pair.count(RULE_OUT), pair.world.events()
    for port, packet in ((pair.a, udp(pair, family)), (pair.a, udp(pair, family, sport=3)), (pair.b, udp(pair, family, True)), (pair.a, tcp(pair, family))):
        for hook in (PORT_IN, PORT_OUT):
            pair.explain(port, packet, hook)
    assert before == ([bytes(flow) for _, _, flow in pair.world.flows()], pair.world.drops(), pair.count(RULE_OUT), pair.world.events())
