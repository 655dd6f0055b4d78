# SPDX-License-Identifier: Apache-2.0
"""Networks between hosts: what goes into a tunnel, what comes out of one, and who may have sent it."""
import struct

import pytest
from packets import ARP, ICMP, IP, TCP, UDP, Dot1AD, Dot1Q, Ether, ICMPv6ND_NS, ICMPv6ND_RA, ICMPv6PacketTooBig, IPv6, IPv6ExtHdrFragment, Raw
from port_test import A, B, C, GATEWAY, OTHER_MAC, ip, link_local
from ports import (ACCESS, ACT_ARP, ACT_FLOOD, ACT_PEER, ACT_PORT, DEVICE_PEER, GATEWAY_MAC, GENEVE, IS_GATEWAY, L2, MARK, NETWORK_L3, NETWORK_PEER_LEARNING, NEXT, PEER,
                   QINQ, REDIRECT, RULE_DENY, RULE_IN, RULE_OUT, SHOT, TRUNK, TUNNEL_PORT, VXLAN, Learnt, Witness, leaf)
from reasons_test import TUNNEL_REASONS
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr
from world import DENY, EGRESS, INGRESS, META_MAGIC, PORT_IN, PORT_TUNNEL, PORT_UPLINK, PORT_XDP, TC_IN, TC_OUT, TUNNEL_IN, U32, XDP

OWN = {4: "192.0.2.1", 6: "2001:db8:1::1"}
FAR = {4: "198.51.100.2", 6: "2001:db8:2::2"}  # peer 1, which has R
SECOND = {4: "198.51.100.3", 6: "2001:db8:2::3"}  # peer 2, which has S
NOBODY = {4: "198.51.100.99", 6: "2001:db8:2::99"}
R = {4: "10.1.0.101", 6: "2001:db8:a::101"}
S = {4: "10.1.0.102", 6: "2001:db8:a::102"}
R_MAC, S_MAC = "02:00:00:00:03:01", "02:00:00:00:03:02"
HOP, SECOND_HOP = "02:00:00:00:05:01", "02:00:00:00:05:02"
BROADCAST = "ff:ff:ff:ff:ff:ff"
VNI, OTHER_VNI = 0x123456, 0x222222
OUTER = {4: 34, 6: 54}


@pytest.fixture(params=[4, 6], ids=["over4", "over6"])
def under(request):
    return request.param


@pytest.fixture(params=[VXLAN, GENEVE], ids=["vxlan", "geneve"])
def protocol(request):
    return request.param


def overlay(plane, under=4, protocol=VXLAN, flags=0, slow=0, mtu=0):
    """a and b here, R behind peer 1, S behind peer 2; what the host's own policy is asked about is denied."""
    plane.world.rules(default="{ingress: deny, egress: deny}")
    plane.network(1, flags)
    plane.a = plane.port(0, 1, [A[4], A[6]], flags=(0 if flags & NETWORK_L3 else L2) | PEER)
    plane.b = plane.port(1, 1, [B[4], B[6]], flags=0 if flags & NETWORK_L3 else L2)
    plane.up, plane.slow = plane.ports[4], plane.ports[5]
    plane.under, plane.protocol = under, protocol
    plane.tunnel(OWN[under], plane.up, protocol=protocol, slow=plane.slow.ifindex if slow else 0)
    plane.peer(1, FAR[under], (plane.up, HOP), mtu=mtu)
    plane.peer(2, SECOND[under], (plane.up, SECOND_HOP), mtu=mtu)
    plane.vni(1, VNI, 1, 2)
    for peer, addresses, mac in ((1, R, R_MAC), (2, S, S_MAC)):
        for address in addresses.values():
            plane.endpoint(1, address, peer=peer, mac=mac)
        plane.endpoint(1, mac, peer=peer, mac=mac)
    for address in GATEWAY.values():
        plane.endpoint(1, address, flags=IS_GATEWAY, mac=GATEWAY_MAC)
    return plane


@pytest.fixture
def net(plane):
    return overlay(plane)


def header(plane, vni=VNI):
    if plane.protocol == GENEVE:
        return struct.pack("!BBHI", 0, 0, 0x6558, vni << 8)
    return struct.pack("!BBHI", 8, 0, 0, vni << 8)


def wrapped(plane, inner, peer=1, out=False, sport=50000, vni=VNI, tos=0, head=None, mac=None, **fields):
    """The inner frame in its tunnel: from a peer, or to one as it has to look."""
    under, inner = plane.under, bytes(inner)
    far = {1: FAR, 2: SECOND, None: NOBODY}[peer][under]
    source, destination = (OWN[under], far) if out else (far, OWN[under])
    eth = Ether(src=plane.up.mac, dst=mac or (HOP if peer == 1 else SECOND_HOP)) if out else Ether(src=HOP, dst=plane.up.mac)
    outer = IP(src=source, dst=destination, id=0, flags="DF", ttl=64, tos=tos, **fields) if under == 4 else \
        IPv6(src=source, dst=destination, hlim=64, tc=tos, **fields)
    return eth / outer / UDP(sport=sport, dport=TUNNEL_PORT[plane.protocol], chksum=0) / Raw((header(plane, vni) if head is None else head) + inner)


def sport_of(plane, out):
    return struct.unpack_from("!H", out, OUTER[plane.under])[0]


def sent(plane, result, inner, **fields):
    """What went out is that frame, in a tunnel."""
    assert (result.action, result.reason, result.mark) == (REDIRECT, "none", MARK)
    sport = sport_of(plane, result.out)
    assert sport >= 49152
    assert result.out == bytes(wrapped(plane, inner, out=True, sport=sport, **fields))
    return sport


def to_peer(plane, family, l4=None, to=R, mac=R_MAC, payload=b"x" * 20, **fields):
    return Ether(src=plane.a.mac, dst=mac) / ip(family, A[family], to[family], **fields) / (l4 or UDP(sport=1000, dport=2000)) / Raw(payload)


def from_peer(plane, family, l4=None, source=None, mac=R_MAC, to=None, payload=b"x" * 20, destination=None, **fields):
    to = to or plane.a
    return Ether(src=mac, dst=to.mac) / ip(family, source or R[family], destination or A[family], **fields) / (l4 or UDP(sport=2000, dport=1000)) / Raw(payload)


def arrive(plane, inner, hook=TC_IN, **fields):
    return plane.run(plane.up, wrapped(plane, inner, **fields), hook=hook)


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


def arp(mac, sender, target, operation=1, hwsrc=None, to=BROADCAST):
    return Ether(src=mac, dst=to) / ARP(op=operation, hwsrc=hwsrc or mac, psrc=sender, hwdst="00:00:00:00:00:00", pdst=target)


def test_arp_both_ways(plane, under, protocol):
    overlay(plane, under, protocol)
    answer = arp(plane.a.mac, A[4], R[4], operation=2, to=R_MAC)
    sent(plane, plane.run(plane.a, answer), answer)
    answer = arp(R_MAC, R[4], A[4], operation=2, to=plane.a.mac)
    result = arrive(plane, answer)
    assert (result.action, result.reason, result.out) == (REDIRECT, "none", bytes(answer))


# --- reasons ---

def geneve(*options, flags=0, protocol=0x6558, version=0, length=None):
    """A Geneve header with options: (class, type, data)."""
    body = b"".join(struct.pack("!HBB", kind, number, len(data) // 4) + data for kind, number, data in options)
    return struct.pack("!BBHI", version << 6 | (len(body) // 4 if length is None else length), flags, protocol, VNI << 8) + body


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
