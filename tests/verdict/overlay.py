# SPDX-License-Identifier: Apache-2.0
"""Two peers behind an uplink, the tunnel to them, and short ways to say what travels in it."""
import struct

from packets import ARP, IP, UDP, Dot1AD, Dot1Q, Ether, IPv6, Raw
from port_test import A, B, GATEWAY, ip
from ports import GATEWAY_MAC, GENEVE, IS_GATEWAY, L2, MARK, NETWORK_L3, PEER, REDIRECT, TUNNEL_PORT, VXLAN
from world import TC_IN

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
Q, AD = Dot1Q, Dot1AD


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


def arp(mac, sender, target, operation=1, hwsrc=None, to=BROADCAST):
    return Ether(src=mac, dst=to) / ARP(op=operation, hwsrc=hwsrc or mac, psrc=sender, hwdst="00:00:00:00:00:00", pdst=target)


def geneve(*options, flags=0, protocol=0x6558, version=0, length=None):
    """A Geneve header with options: (class, type, data)."""
    body = b"".join(struct.pack("!HBB", kind, number, len(data) // 4) + data for kind, number, data in options)
    return struct.pack("!BBHI", version << 6 | (len(body) // 4 if length is None else length), flags, protocol, VNI << 8) + body


def tagged(packet, *tags):
    made = Ether(src=packet.src, dst=packet.dst)
    for kind, vlan, priority in tags:
        made.lastlayer().type = 0x88A8 if kind is AD else 0x8100
        made = made / kind(vlan=vlan, prio=priority)
    made.lastlayer().type = packet.type
    return made / packet.payload.copy()


def large(net, family, size, **fields):
    """An IP packet of that many bytes."""
    payload = size - (20 if family == 4 else 40) - 8
    return to_peer(net, family, payload=bytes(payload), **({"flags": "DF"} if family == 4 else {}), **fields)
