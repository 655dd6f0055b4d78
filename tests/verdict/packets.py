# SPDX-License-Identifier: Apache-2.0
"""Short ways to say a packet. HOST is the guarded host, PEER somebody on the wire; `inward` is the packet's direction."""
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_LSRR, IPOption_NOP, IPOption_RR, IPOption_SSRR
from scapy.layers.inet6 import (ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6ND_NS, ICMPv6ND_RA, ICMPv6PacketTooBig,
                                ICMPv6TimeExceeded, ICMPv6Unknown, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop,
                                IPv6ExtHdrRouting)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.layers.sctp import SCTP, SCTPChunkInit
from scapy.packet import Raw

__all__ = ["ARP", "Dot1AD", "Dot1Q", "Ether", "ICMP", "IP", "IPv6", "Raw", "SCTP", "SCTPChunkInit", "TCP", "UDP", "IPOption_LSRR", "IPOption_NOP",
           "IPOption_RR", "IPOption_SSRR", "ICMPv6DestUnreach", "ICMPv6EchoReply", "ICMPv6EchoRequest", "ICMPv6ND_NS", "ICMPv6ND_RA",
           "ICMPv6PacketTooBig", "ICMPv6TimeExceeded", "ICMPv6Unknown", "IPv6ExtHdrDestOpt", "IPv6ExtHdrFragment", "IPv6ExtHdrHopByHop", "IPv6ExtHdrRouting",
           "HOST", "PEER", "HOST_MAC", "PEER_MAC", "frame", "ip", "tcp", "udp", "ping", "pong", "unreachable", "inward", "TAGS", "tagged"]

HOST = {4: "192.0.2.1", 6: "2001:db8::1"}
PEER = {4: "198.51.100.7", 6: "2001:db8:1::7"}
HOST_MAC, PEER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"

TAGS = {"untagged": [], "one tag": [(0x8100, 10)], "two tags": [(0x88A8, 20), (0x8100, 10)]}


def inward(hook):
    """Whether packets at this hook come from the wire."""
    return hook != 2


def frame(packet, inbound=True, tags=()):
    ether = Ether(dst=HOST_MAC, src=PEER_MAC) if inbound else Ether(dst=PEER_MAC, src=HOST_MAC)
    for ethertype, vlan in tags:
        ether.lastlayer().type = ethertype
        ether = ether / (Dot1AD(vlan=vlan) if ethertype == 0x88A8 else Dot1Q(vlan=vlan))
    return ether / packet


def tagged(packet, tags):
    """A whole frame again, behind tags."""
    raw = bytes(packet)
    head, rest = raw[:12], raw[12:]
    for ethertype, vlan in reversed(tags):
        rest = ethertype.to_bytes(2, "big") + vlan.to_bytes(2, "big") + rest
    return head + rest


def ip(family, inbound=True, host=None, peer=None, **fields):
    host, peer = host or HOST[family], peer or PEER[family]
    source, destination = (peer, host) if inbound else (host, peer)
    return (IP if family == 4 else IPv6)(src=source, dst=destination, **fields)


def tcp(family, inbound=True, flags="S", sport=40000, dport=80, seq=1000, ack=0, window=1024, payload=b"", options=(), **address):
    return frame(ip(family, inbound, **address) / TCP(sport=sport, dport=dport, flags=flags, seq=seq & 0xFFFFFFFF, ack=ack & 0xFFFFFFFF, window=window,
                                                      options=list(options)) / Raw(payload), inbound)


def udp(family, inbound=True, sport=40000, dport=53, payload=b"x" * 8, **address):
    return frame(ip(family, inbound, **address) / UDP(sport=sport, dport=dport) / Raw(payload), inbound)


def ping(family, inbound=True, ident=77, **address):
    return frame(ip(family, inbound, **address) / (ICMP(type=8, id=ident) if family == 4 else ICMPv6EchoRequest(id=ident)), inbound)


def pong(family, inbound=True, ident=77, **address):
    return frame(ip(family, inbound, **address) / (ICMP(type=0, id=ident) if family == 4 else ICMPv6EchoReply(id=ident)), inbound)


def unreachable(family, quoted, inbound=True, sender=None):
    """An ICMP error from a router (or the peer) about a frame that was sent the other way."""
    inner = bytes(quoted)[14:]
    source = {4: "203.0.113.9", 6: "2001:db8:9::9"}[family] if sender is None else sender
    original = quoted.getlayer(IP if family == 4 else IPv6)
    if family == 4:
        outer = IP(src=source, dst=original.src) / ICMP(type=3, code=4, nexthopmtu=1400) / Raw(inner[:60])
    else:
        outer = IPv6(src=source, dst=original.src) / ICMPv6PacketTooBig(mtu=1400) / Raw(inner[:200])
    return frame(outer, inbound)
