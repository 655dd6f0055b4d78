# SPDX-License-Identifier: Apache-2.0
"""Frames in tunnels: their bytes out and in, every reason to drop one, policy, and what fits."""
import struct

import pytest
from overlay import (BROADCAST, FAR, HOP, OTHER_VNI, OWN, R, R_MAC, S, SECOND_HOP, S_MAC, VNI, arp, arrive, from_peer, geneve, header, large, overlay,
                     sent, sport_of, to_peer, wrapped)
from packets import ICMP, IP, TCP, UDP, Ether, IPOption_NOP, ICMPv6ND_NS, ICMPv6ND_RA, ICMPv6PacketTooBig, IPv6, IPv6ExtHdrFragment, Raw
from port_test import A, GATEWAY, OTHER_MAC, ip, link_local
from ports import (ACCESS, ACT_FLOOD, ACT_PEER, ACT_PORT, DEVICE_PEER, GATEWAY_MAC, GENEVE, L2, NEXT, REDIRECT, RULE_DENY, RULE_IN, RULE_OUT, SHOT, VXLAN,
                   Witness, leaf)
from reasons_test import TUNNEL_REASONS
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptSrcLLAddr
from world import DENY, EGRESS, INGRESS, TC_IN, TUNNEL_IN


# --- bytes ---

def test_out(plane, under, protocol, family):
    overlay(plane, under, protocol)
    frame = to_peer(plane, family)
    ports = {sent(plane, plane.run(plane.a, frame), frame) for _ in range(3)}  # the second one finds its flow
    assert len(ports) == 1
    _, flow = plane.world.flow()
    assert (list(flow.device), flow.rule, flow.second_rule, bytes(flow.peer_mac)) == ([plane.a.ifindex, DEVICE_PEER | 1], RULE_OUT, 0, bytes.fromhex(R_MAC.replace(":", "")))
    assert flow.packets[0] == 3


def test_in(plane, under, protocol, family):
    overlay(plane, under, protocol)
    frame = from_peer(plane, family)
    for _ in range(3):
        result = arrive(plane, frame)
        assert (result.action, result.reason, result.out) == (REDIRECT, "none", bytes(frame))
    _, flow = plane.world.flow()
    assert (list(flow.device), flow.rule, flow.second_rule) == ([DEVICE_PEER | 1, plane.a.ifindex], RULE_IN, 0)
    assert flow.packets[0] == 3
    # and the answer
    answer = to_peer(plane, family)
    for _ in range(2):
        sent(plane, plane.run(plane.a, answer), answer)


def test_arp_both_ways(plane, under, protocol):
    overlay(plane, under, protocol)
    answer = arp(plane.a.mac, A[4], R[4], operation=2, to=R_MAC)
    sent(plane, plane.run(plane.a, answer), answer)
    answer = arp(R_MAC, R[4], A[4], operation=2, to=plane.a.mac)
    result = arrive(plane, answer)
    assert (result.action, result.reason, result.out[:len(answer)]) == (REDIRECT, "none", bytes(answer))
    assert not any(result.out[len(answer):]), "padding, over IPv6 on kernels that leave no less than its header"


# --- reasons ---

def plain(plane, mac=R_MAC, source=R[4]):
    return from_peer(plane, 4, source=source, mac=mac)


# {reason: (protocol, packets on the uplink)}
CASES = {
    "tunnel-malformed": (VXLAN, lambda n: [
        wrapped(n, plain(n), head=struct.pack("!BBHI", 0, 0, 0, VNI << 8)),
        wrapped(n, b"", head=b"\x08\0\0\0"),
        wrapped(n, bytes(plain(n))[:10])]),
    "tunnel-option": (GENEVE, lambda n: [
        wrapped(n, plain(n), head=geneve((0x102, 0x80, bytes(4)))),
        wrapped(n, plain(n), head=geneve((0x102, 1, bytes(8)), (0x102, 0x81, b""), flags=0x40))]),
    "tunnel-vni": (VXLAN, lambda n: [wrapped(n, plain(n), vni=vni) for vni in (0, OTHER_VNI, VNI + 1, 0xFFFFFF)]),
    "tunnel-peer": (VXLAN, lambda n: [wrapped(n, plain(n), peer=None)]),
    "tunnel-source": (VXLAN, lambda n: [wrapped(n, one) for one in (
        plain(n, source=A[4]), plain(n, source=S[4]), plain(n, source=GATEWAY[4]), plain(n, source="10.1.0.200"),
        from_peer(n, 6, source=S[6]), from_peer(n, 6, source=link_local(n.a)), from_peer(n, 6, source="fe80::68:65ff:fe64:646c"),
        plain(n, mac=n.b.mac), plain(n, mac=S_MAC), plain(n, mac=OTHER_MAC), plain(n, mac="03:00:00:00:00:01"),
        plain(n, mac=GATEWAY_MAC, source=S[4]),
        Ether(src=GATEWAY_MAC, dst=n.a.mac, type=0x88B5) / Raw(bytes(46)),
        arp(R_MAC, S[4], A[4]), arp(R_MAC, R[4], A[4], hwsrc=S_MAC), arp(R_MAC, GATEWAY[4], GATEWAY[4]), arp(GATEWAY_MAC, R[4], A[4]), arp(R_MAC, "0.0.0.0", A[4], operation=2),
        Ether(src=R_MAC, dst=n.a.mac) / IPv6(src=S[6], dst=A[6], hlim=255) / ICMPv6ND_NS(tgt=A[6]),
        Ether(src=R_MAC, dst=n.a.mac) / IPv6(src=R[6], dst=A[6], hlim=255) / ICMPv6ND_NA(tgt=S[6]),
        Ether(src=R_MAC, dst=n.a.mac) / IPv6(src=R[6], dst=A[6], hlim=255) / ICMPv6ND_NS(tgt=A[6]) / ICMPv6NDOptSrcLLAddr(lladdr=S_MAC),
        Ether(src=R_MAC, dst=n.a.mac) / IPv6(src=R[6], dst=A[6], hlim=255) / ICMPv6ND_RA())]),
    "tunnel-ecn": (VXLAN, lambda n: [wrapped(n, from_peer(n, family), tos=3) for family in (4, 6)]),
    "no-way": None,  # test_no_way
}


def test_every_reason_of_tunnels_has_a_case():
    assert set(CASES) == set(TUNNEL_REASONS)


@pytest.mark.parametrize("reason", [reason for reason, case in CASES.items() if case])
def test_reason(plane, reason):
    protocol, packets = CASES[reason]
    overlay(plane, 4, protocol)
    for packet in packets(plane):
        result = plane.run(plane.up, packet, hook=TC_IN)
        assert (result.action, result.reason) == (SHOT, reason), packet.summary()
        event = plane.world.events()[-1]
        assert (event.name, event.hook, event.peer) == ("drop", TUNNEL_IN, 0 if reason == "tunnel-peer" else 1)
    assert plane.world.flows() == [] and plane.world.keys("fdb", 12) == []


def test_no_way(net, family):
    """Neither a next hop nor somebody who could wait for one."""
    net.peers[1].ways = 0
    net.write_peer(1)
    assert net.explain(net.a, to_peer(net, family)).why == "no-way"
    assert net.run(net.a, to_peer(net, family)).reason == "no-way"
    (event,) = net.world.events()
    assert (event.name, event.peer) == ("drop", 1)


# --- what travels ---

def test_gso_and_sizes_of_frames(net):
    """Not IP, short, and with a length for a type: whatever an Ethernet frame may be."""
    for frame in (Ether(src=net.a.mac, dst=R_MAC, type=0x88B5) / Raw(bytes(46)), Ether(src=net.a.mac, dst=R_MAC, type=0x88B5) / Raw(b"ab"),
                  Ether(src=net.a.mac, dst=R_MAC, type=0x0026) / Raw(b"\xaa\xaa\x03" + bytes(35))):
        sent(net, net.run(net.a, frame), frame)
        back = Ether(src=R_MAC, dst=net.a.mac, type=frame.type) / frame.payload.copy()
        result = arrive(net, back)
        assert (result.action, result.reason) == (REDIRECT, "none") and result.out[:len(back)] == bytes(back)


def test_short_packets_of_another_family(plane):
    """Less than the kernel leaves of an IPv6 packet, if it thinks it one."""
    overlay(plane, 6)
    for frame in (arp(R_MAC, R[4], A[4], operation=2, to=plane.a.mac), from_peer(plane, 4, payload=b""), Ether(src=R_MAC, dst=plane.a.mac, type=0x88B5) / Raw(b"ab")):
        result = arrive(plane, frame)
        assert (result.action, result.reason) == (REDIRECT, "none"), frame.summary()
        assert result.out[:len(frame)] == bytes(frame) and not any(result.out[len(frame):])


@pytest.mark.parametrize("tos", [0, 1, 2, 3, 0xB8, 0xB9])
def test_dscp_goes_along(plane, under, family, tos):
    overlay(plane, under)
    frame = to_peer(plane, family, **({"tos": tos} if family == 4 else {"tc": tos}))
    sent(plane, plane.run(plane.a, frame), frame, tos=tos)


# RFC 6040 figure 4: {(inner, outer): what comes out}; None: dropped.
NOT, ECT1, ECT0, CE = range(4)
ECN = {(NOT, NOT): NOT, (NOT, ECT0): NOT, (NOT, ECT1): NOT, (NOT, CE): None, (ECT0, NOT): ECT0, (ECT0, ECT0): ECT0, (ECT0, ECT1): ECT1, (ECT0, CE): CE,
       (ECT1, NOT): ECT1, (ECT1, ECT0): ECT1, (ECT1, ECT1): ECT1, (ECT1, CE): CE, (CE, NOT): CE, (CE, ECT0): CE, (CE, ECT1): CE, (CE, CE): CE}


@pytest.mark.parametrize("inner, outer", ECN)
def test_ecn(plane, under, family, inner, outer):
    overlay(plane, under)
    field = "tos" if family == 4 else "tc"
    result = arrive(plane, from_peer(plane, family, **{field: 0xB8 | inner}), tos=outer)
    if ECN[inner, outer] is None:
        assert (result.action, result.reason) == (SHOT, "tunnel-ecn")
    else:
        assert (result.action, result.out) == (REDIRECT, bytes(from_peer(plane, family, **{field: 0xB8 | ECN[inner, outer]})))


def test_frames_that_are_not_ip_have_no_ecn(net):
    frame = Ether(src=R_MAC, dst=net.a.mac, type=0x88B5) / Raw(bytes(46))
    assert arrive(net, frame, tos=3).out == bytes(frame)


def test_geneve_options(plane, family, under):
    """Skipped, but for those that say they must not be."""
    overlay(plane, under, GENEVE)
    frame = from_peer(plane, family)
    for head in (geneve((0x102, 1, bytes(4))), geneve((0x102, 1, b""), (0x103, 0x7F, bytes(124))), geneve(*[(0x102, 5, b"")] * 63),
                 geneve((0x102, 1, bytes(4)), flags=0x40), geneve((0x102, 1, bytes(120)), (0x102, 1, bytes(120)))):
        assert arrive(plane, frame, head=head).out == bytes(frame)
    for head in (geneve((0x102, 1, bytes(8)), length=2), geneve(version=1), geneve(protocol=0x0800)):
        assert arrive(plane, frame, head=head).reason == "tunnel-malformed"


def test_oam_is_the_hosts(plane):
    overlay(plane, 4, GENEVE)
    before = plane.count("tunnel")
    packet = wrapped(plane, from_peer(plane, 4), head=geneve((0x102, 0x80, b""), flags=0x80))
    result = plane.run(plane.up, packet, hook=TC_IN)
    assert (result.action, result.out, plane.count("tunnel")) == (NEXT, bytes(packet), before + 1)
    assert plane.run(plane.up, wrapped(plane, from_peer(plane, 4), head=geneve(flags=0x80), peer=None), hook=TC_IN).reason == "tunnel-peer"


def test_flags_of_vxlan_that_mean_nothing(net):
    frame = from_peer(net, 4)
    assert arrive(net, frame, head=struct.pack("!BBHI", 0xFF, 0xFF, 0xFFFF, VNI << 8 | 0xFF)).out == bytes(frame)


def test_outer_options_and_checksum(net):
    frame = from_peer(net, 4)
    packet = wrapped(net, frame)
    packet[UDP].chksum = 0x1234  # not ours to check (RFC 7348 section 4.3)
    assert net.run(net.up, packet, hook=TC_IN).out == bytes(frame)
    packet = Ether(src=HOP, dst=net.up.mac) / IP(src=FAR[4], dst=OWN[4], options=[IPOption_NOP()]) / UDP(sport=1, dport=4789, chksum=0) / Raw(header(net) + bytes(frame))
    assert net.run(net.up, packet, hook=TC_IN).out == bytes(frame)


def test_source_ports_and_ways(net):
    """One flow, one port and one way; many flows spread over both, and are reached by the other when one has gone."""
    net.peer(1, FAR[4], (net.up, HOP), (net.slow, SECOND_HOP))
    seen = {}
    for number in range(64):
        frame = to_peer(net, 4, UDP(sport=number + 1, dport=9))
        for _ in range(2):
            out = net.run(net.a, frame).out
            key = (sport_of(net, out), out[:6])
            assert seen.setdefault(number, key) == key
    assert len({port for port, _ in seen.values()}) > 50
    assert {hop for _, hop in seen.values()} == {bytes.fromhex(hop.replace(":", "")) for hop in (HOP, SECOND_HOP)}
    record = net.peers[1]
    record.way[1][0] = record.way[0][1]
    record.ways = 1 << 1 | 1  # the other set, of one
    net.write_peer(1)
    assert {net.run(net.a, to_peer(net, 4, UDP(sport=number + 1, dport=9))).out[:6] for number in range(64)} == {bytes.fromhex(SECOND_HOP.replace(":", ""))}


def test_pieces_of_a_datagram_have_one_port(net):
    whole = bytes(UDP(sport=5353, dport=5353) / Raw(bytes(100)))
    ports = set()
    for offset, more in ((0, "MF"), (64, 0)):
        frame = Ether(src=net.a.mac, dst=R_MAC) / IP(src=A[4], dst=R[4], id=7, proto=17, frag=offset // 8, flags=more) / Raw(whole[offset:offset + 64])
        ports.add(sent(net, net.run(net.a, frame), frame))
    assert len(ports) == 1


def test_inner_fragments_in(net):
    whole = bytes(UDP(sport=5353, dport=5353) / Raw(bytes(100)))
    first, later = (Ether(src=R_MAC, dst=net.a.mac) / IP(src=R[4], dst=A[4], id=7, proto=17, frag=offset // 8, flags=more) / Raw(whole[offset:offset + 64])
                    for offset, more in ((0, "MF"), (64, 0)))
    assert arrive(net, later).reason == "frag-unknown"
    assert arrive(net, first).action == arrive(net, later).action == REDIRECT


# --- policy ---

def test_egress_is_asked_here_and_ingress_there(net, family):
    net.policy(net.a, EGRESS, leaf(RULE_DENY, DENY))
    assert net.run(net.a, to_peer(net, family)).reason == "policy-deny"
    event = net.world.events()[-1]
    assert (event.rule, event.direction, event.network, event.peer) == (RULE_DENY, EGRESS, 1, 1)
    assert arrive(net, from_peer(net, family)).action == REDIRECT
    answer = to_peer(net, family)
    sent(net, net.run(net.a, answer), answer)
    net.policy(net.a, INGRESS, leaf(RULE_DENY, DENY), version=net.generation + 7)
    assert arrive(net, from_peer(net, family)).reason == "policy-deny"
    event = net.world.events()[-1]
    assert (event.rule, event.direction, event.network, event.peer, event.hook) == (RULE_DENY, INGRESS, 1, 1, TUNNEL_IN)


def handshake(net, family, steps):
    for flags, outward, seq, ack in steps:
        segment = TCP(sport=1000 if outward else 80, dport=80 if outward else 1000, flags=flags, seq=seq, ack=ack, window=8000)
        result = net.run(net.a, to_peer(net, family, segment, payload=b"")) if outward else arrive(net, from_peer(net, family, segment, payload=b""))
        assert (result.action, result.reason) == (REDIRECT, "none")


def test_tcp(net, family):
    handshake(net, family, [("S", True, 100, 0), ("SA", False, 500, 101), ("A", True, 101, 501), ("A", False, 501, 101)])
    table, flow = net.world.flow()
    assert (table, flow.name) == ("flows", "established")
    assert arrive(net, from_peer(net, family, TCP(sport=80, dport=1001, flags="SA", seq=1, ack=1))).reason == "tcp-no-flow"
    # A forged reset has to hit the number.
    assert arrive(net, from_peer(net, family, TCP(sport=80, dport=1000, flags="R", seq=90000))).reason == "tcp-window"


def test_another_peer_cannot_ride_on_a_flow(net, family):
    assert net.run(net.a, to_peer(net, family)).action == REDIRECT
    assert arrive(net, from_peer(net, family), peer=2).reason == "tunnel-source"
    assert net.run(net.b, Ether(src=net.b.mac, dst=net.a.mac) / ip(family, R[family], A[family]) / UDP(sport=2000, dport=1000)).reason == f"source-ip{family}"


def test_an_address_that_moved(net, family):
    frame = to_peer(net, family)
    for _ in range(2):
        sent(net, net.run(net.a, frame), frame)
    net.endpoint(1, R[family], peer=2, mac=R_MAC)
    net.endpoint(1, R_MAC, peer=2, mac=R_MAC)
    net.peers[1].moved = (net.world.now() + 1) & 0xFFFFFFFF
    net.write_peer(1)
    for _ in range(2):
        sent(net, net.run(net.a, frame), frame, peer=2)
    assert list(net.world.flow()[1].device) == [net.a.ifindex, DEVICE_PEER | 2], "another flow"
    assert arrive(net, from_peer(net, family), peer=1).reason == "tunnel-source"
    assert arrive(net, from_peer(net, family), peer=2).action == REDIRECT


def test_a_port_that_moved(net, family):
    """To a peer, from a port: its record says it, too."""
    assert arrive(net, from_peer(net, family)).action == REDIRECT
    net.endpoint(1, A[family], peer=2, mac=net.a.mac)
    net.endpoint(1, net.a.mac, peer=2, mac=net.a.mac)
    net.a.record.moved = (net.world.now() + 1) & 0xFFFFFFFF
    net.write(net.a)
    assert arrive(net, from_peer(net, family)).reason == "no-destination", "what came from a peer goes to none"
    assert net.run(net.a, to_peer(net, family)).reason in ("source-mac", f"source-ip{family}")


def test_related_errors(net, family):
    frame = to_peer(net, family)
    assert net.run(net.a, frame).action == REDIRECT
    quoted = bytes(frame)[14:]
    error = IP(src=R[4], dst=A[4]) / ICMP(type=3, code=3) / Raw(quoted[:60]) if family == 4 else IPv6(src=R[6], dst=A[6]) / ICMPv6PacketTooBig(mtu=1300) / Raw(quoted[:100])
    net.policy(net.a, INGRESS, leaf(RULE_DENY, DENY))
    before = net.count("related")
    assert arrive(net, Ether(src=R_MAC, dst=net.a.mac) / error).action == REDIRECT
    assert net.count("related") == before + 1


# --- sizes ---

@pytest.mark.parametrize("routed", [False, True], ids=["switched", "routed"])
def test_too_big(plane, under, family, routed):
    """On an L2 network, too: its sender is told what fits."""
    overlay(plane, under, mtu=1400)
    fits = 1400 - (50 if under == 4 else 70)
    mac = {"mac": GATEWAY_MAC} if routed else {}
    for _ in range(2):
        assert plane.run(plane.a, large(plane, family, fits, **mac)).action == REDIRECT
        plane.world.events()
        assert plane.run(plane.a, large(plane, family, fits + 1, **mac)).reason == "too-big"
        (event,) = plane.world.events()
        assert (event.name, event.mtu, event.peer, event.packet_length) == ("reject", fits, 1, 192)
    assert plane.explain(plane.a, large(plane, family, fits + 1, **mac)).why == "too-big"


def test_super_packets_are_cut_to_size(net, family):
    """Their pieces count. (What fits is not encapsulated: a test run's packet has a size of pieces, and no kind that the kernel could cut.)"""
    net.peers[1].mtu = 1500
    net.write_peer(1)
    handshake(net, family, [("S", True, 100, 0), ("SA", False, 500, 101), ("A", True, 101, 501)])
    packet = to_peer(net, family, TCP(sport=1000, dport=80, flags="A", seq=101, ack=501), payload=bytes(3000), **({"flags": "DF"} if family == 4 else {}))
    room = 1450 - (40 if family == 4 else 60)
    assert net.run(net.a, packet, gso_size=room, gso_segs=3).reason == "nonlinear"
    assert net.run(net.a, packet, gso_size=room + 1, gso_segs=3).reason == "too-big"
    assert net.world.events()[-1].mtu == 1450


def test_tags_take_room(net):
    net.peers[1].mtu = 1400
    net.write_peer(1)
    net.port(0, 1, [A[4]], flags=L2 | ACCESS, vlan=10)
    assert net.run(net.a, large(net, 4, 1346)).action == REDIRECT
    assert net.run(net.a, large(net, 4, 1347)).reason == "too-big"


def test_what_may_be_cut_is_cut_outside(plane, under):
    """By the kernel, as what the agent's socket sends: the frame is wrapped, and has no MACs."""
    overlay(plane, under, slow=1, mtu=1400)
    frames = [to_peer(plane, 4, payload=bytes(1400)), Ether(src=plane.a.mac, dst=R_MAC, type=0x88B5) / Raw(bytes(1400))]
    for frame in frames:
        result = plane.run(plane.a, frame)
        assert (result.action, result.out[:12]) == (REDIRECT, bytes(12))
        assert result.out[12:] == bytes(wrapped(plane, frame, out=True, sport=sport_of(plane, result.out)))[12:]
    with Witness(plane.slow, plane.up) as witness:
        plane.run(plane.a, Ether(src=plane.a.mac, dst=BROADCAST, type=0x88B5) / Raw(bytes(1400)))
        assert [len(witness.frames(port)) for port in (plane.slow, plane.up)] == [2, 0]
    overlay(plane, under, mtu=1400)
    assert [plane.run(plane.a, frame).reason for frame in frames] == ["too-big"] * 2


def part(plane, family, offset, size, more=True, ident=7):
    data = (bytes(UDP(sport=1000, dport=2000, len=4000)) + bytes(4000))[offset:offset + size]
    if family == 4:
        l3 = IP(src=A[4], dst=R[4], id=ident, frag=offset // 8, flags="MF" if more else 0, proto=17)
    else:
        l3 = IPv6(src=A[6], dst=R[6]) / IPv6ExtHdrFragment(nh=17, offset=offset // 8, m=int(more), id=ident)
    return Ether(src=plane.a.mac, dst=R_MAC) / l3 / Raw(data)


def test_fragments_are_cut_inside(plane, under):
    """By the agent, which is told how small they have to be; those behind, however small, go the same way."""
    overlay(plane, under, slow=1, mtu=1400)
    room = 1400 - (50 if under == 4 else 70)

    def slow(frame, cut):
        result = plane.run(plane.a, frame)
        assert (result.action, result.reason, result.out[:12]) == (REDIRECT, "none", bytes(10) + struct.pack("!H", cut))
        assert result.out[12:] == bytes(wrapped(plane, frame, out=True, sport=sport_of(plane, result.out)))[12:]

    assert plane.run(plane.a, part(plane, 4, 1480, 1480)).reason == "frag-unknown"
    slow(part(plane, 4, 0, 1480), room)
    slow(part(plane, 4, 1480, 1480), room)
    slow(part(plane, 4, 2960, 48, False), 0)
    # Another datagram, of small ones
    for offset, more in ((0, True), (48, False)):
        frame = part(plane, 4, offset, 48, more, ident=8)
        sent(plane, plane.run(plane.a, frame), frame)
    # Only its sender cuts a packet of IPv6, and what may not be cut stays whole.
    assert plane.run(plane.a, part(plane, 6, 0, 1480)).reason == "too-big"
    whole = part(plane, 4, 0, 1480, ident=9)
    whole[IP].flags = "MF+DF"
    assert plane.run(plane.a, whole).reason == "too-big"
    overlay(plane, under, mtu=1400)
    assert plane.run(plane.a, part(plane, 4, 0, 1480)).reason == "too-big"


def test_slow(plane, under, family):
    """Nobody knows the next hop yet: the frame waits with the agent, not here."""
    overlay(plane, under, slow=1)
    plane.peers[1].ways = 0
    plane.write_peer(1)
    frame = to_peer(plane, family)
    for _ in range(2):
        result = plane.run(plane.a, frame)
        assert (result.action, result.reason, result.out[:12]) == (REDIRECT, "none", bytes(12))
        assert result.out[12:] == bytes(wrapped(plane, frame, out=True, sport=sport_of(plane, result.out)))[12:]
    with Witness(plane.slow, plane.up) as witness:
        plane.run(plane.a, Ether(src=plane.a.mac, dst=BROADCAST, type=0x88B5) / Raw(bytes(46)))
        assert [len(witness.frames(port)) for port in (plane.slow, plane.up)] == [1, 1]


def test_ipv6_gets_through_whatever_the_way_takes(net):
    """Its least MTU (RFC 8200 section 5), in pieces on the outside where it has to be."""
    net.tunnel("192.0.2.1", net.up, slow=net.slow.ifindex)
    net.peers[1].mtu = 1300
    net.write_peer(1)
    assert net.run(net.a, large(net, 6, 1250)).out[:6] != bytes(6)
    result = net.run(net.a, large(net, 6, 1280))
    assert (result.action, result.out[:12]) == (REDIRECT, bytes(12))
    assert net.run(net.a, large(net, 6, 1281)).reason == "too-big"
    assert net.world.events()[-1].mtu == 1280
    assert net.run(net.a, large(net, 4, 1251)).reason == "too-big"
    assert net.world.events()[-1].mtu == 1250


MSS_OPTIONS = {"alone": [("MSS", 1460)], "odd": [("NOP", None), ("MSS", 1460), ("WScale", 7)], "last": [("Timestamp", (1, 0)), ("NOP", None), ("NOP", None), ("MSS", 1460)]}


@pytest.mark.parametrize("options", MSS_OPTIONS.values(), ids=MSS_OPTIONS)
def test_mss(plane, under, family, options):
    """Lowered to what fits, both ways; the checksum is right."""
    overlay(plane, under, mtu=1500)
    fits = 1500 - (50 if under == 4 else 70) - (40 if family == 4 else 60)

    def with_mss(value, sent_options, flags, outward):
        changed = [(name, value if name == "MSS" else what) for name, what in sent_options]
        segment = TCP(sport=1000 if outward else 80, dport=80 if outward else 1000, flags=flags, seq=1, ack=2 if flags == "SA" else 0, options=changed)
        return to_peer(plane, family, segment, payload=b"") if outward else from_peer(plane, family, segment, payload=b"")

    result = plane.run(plane.a, with_mss(1460, options, "S", True))
    sent(plane, result, with_mss(min(fits, 1460), options, "S", True))
    assert arrive(plane, with_mss(1460, options, "SA", False)).out == bytes(with_mss(fits, options, "SA", False))
    plane.world.clear()
    result = plane.run(plane.a, with_mss(536, options, "S", True))
    sent(plane, result, with_mss(536, options, "S", True))


# --- explain ---

def test_explain(net, family):
    page = net.explain(net.a, to_peer(net, family))
    assert (page.why, page.action, page.to, page.vni, page.rule) == ("none", ACT_PEER, DEVICE_PEER | 1, VNI, RULE_OUT)
    page = net.world.explain_tunnel(from_peer(net, family), 1, 1, net.up.ifindex)
    assert (page.why, page.action, page.to, page.vni, page.rule) == ("none", ACT_PORT, net.a.ifindex, 0, RULE_IN)
    assert net.world.explain_tunnel(from_peer(net, family), 1, 2, net.up.ifindex).why == "tunnel-source"
    assert net.world.explain_tunnel(from_peer(net, family), 2, 1, net.up.ifindex).why == "tunnel-vni"
    assert net.world.explain_tunnel(from_peer(net, family), 1, 9, net.up.ifindex).why == "tunnel-peer"
    page = net.explain(net.up, wrapped(net, from_peer(net, family)), hook=TC_IN)
    assert (page.why, net.world.rule_name(page.rule)) == ("none", "tunnel")
    assert net.explain(net.up, wrapped(net, from_peer(net, family), peer=None), hook=TC_IN).why == "tunnel-peer"
    assert net.world.flows() == [] and net.explain(net.a, Ether(src=net.a.mac, dst=BROADCAST, type=0x88B5) / Raw(bytes(46))).action == ACT_FLOOD
