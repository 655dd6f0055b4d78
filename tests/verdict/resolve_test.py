# SPDX-License-Identifier: Apache-2.0
"""ARP, neighbour discovery and echo requests that are answered without anybody's help, to the byte."""
import pytest
from packets import ARP, ICMP, IP, Dot1Q, Ether, ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6ND_NS, IPv6, Raw
from port_test import A, B, C, GATEWAY, NODE, OTHER_MAC, link_local
from ports import ACT_ARP, ACT_FLOOD, ACT_ND, GATEWAY_MAC, IS_GATEWAY, IS_TAKEN, L2, MARK, NEXT, REDIRECT, SHOT, TRUNK
from ports import HOST as TO_HOST
from scapy.layers.inet6 import ICMPv6MLReport2, ICMPv6ND_NA, ICMPv6ND_RS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr
from world import PORT_IN, PORT_OUT

BROADCAST, NOBODY = "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"


@pytest.fixture(params=["l2", "l3"])
def net(plane, request):
    flags = L2 if request.param == "l2" else 0
    plane.network(1)
    plane.switched = bool(flags)
    plane.a = plane.port(0, 1, [A[4], A[6]], flags=flags)
    plane.b = plane.port(1, 1, [B[4], B[6]], flags=flags)
    for family in (4, 6):
        plane.endpoint(1, GATEWAY[family], flags=IS_GATEWAY, mac=GATEWAY_MAC)
        plane.endpoint(1, NODE[family], flags=IS_TAKEN)
    return plane


def who_has(port, target, sender=A[4], to=BROADCAST, pad=b""):
    return Ether(src=port.mac, dst=to) / ARP(op=1, hwsrc=port.mac, psrc=sender, hwdst=NOBODY, pdst=target) / Raw(pad)


def is_at(port, target, mac, sender=A[4], pad=b""):
    return Ether(src=mac, dst=port.mac) / ARP(op=2, hwsrc=mac, psrc=target, hwdst=port.mac, pdst=sender) / Raw(pad)


def solicit(port, target, source=A[6], to=None, option=True):
    packet = Ether(src=port.mac, dst=to or "33:33:ff:00:00:02") / IPv6(src=source, dst="ff02::1:ff00:2", hlim=255) / ICMPv6ND_NS(tgt=target)
    return packet / ICMPv6NDOptSrcLLAddr(lladdr=port.mac) if option else packet


def advertise(port, target, mac, source=A[6], router=0, anonymous=False):
    to = ("33:33:00:00:00:01", "ff02::1") if anonymous else (port.mac, source)
    return (Ether(src=mac, dst=to[0]) / IPv6(src=target, dst=to[1], hlim=255) / ICMPv6ND_NA(R=router, S=0 if anonymous else 1, O=1, tgt=target) /
            ICMPv6NDOptDstLLAddr(lladdr=mac))


def answered(net, packet, want):
    before = net.count("gateway")
    result = net.run(net.a, packet)
    assert (result.action, result.reason, result.mark) == (REDIRECT, "none", MARK)
    assert result.out == bytes(want)
    assert net.count("gateway") == before + 1


@pytest.mark.parametrize("pad", [b"", bytes(18)], ids=["bare", "padded"])
def test_arp_for_the_gateway(net, pad):
    answered(net, who_has(net.a, GATEWAY[4], pad=pad), is_at(net.a, GATEWAY[4], GATEWAY_MAC, pad=pad))
    answered(net, who_has(net.a, GATEWAY[4], to=GATEWAY_MAC, pad=pad), is_at(net.a, GATEWAY[4], GATEWAY_MAC, pad=pad))
    answered(net, who_has(net.a, GATEWAY[4], "0.0.0.0", pad=pad), is_at(net.a, GATEWAY[4], GATEWAY_MAC, "0.0.0.0", pad=pad))


def test_arp_for_a_neighbour(net):
    """With its own MAC where frames are switched, with the gateway's where they are routed."""
    mac = net.b.mac if net.switched else GATEWAY_MAC
    answered(net, who_has(net.a, B[4]), is_at(net.a, B[4], mac))
    answered(net, who_has(net.a, B[4], "0.0.0.0"), is_at(net.a, B[4], mac, "0.0.0.0"))


def test_arp_for_others(net):
    page = net.explain(net.a, who_has(net.a, C[4]))
    if net.switched:  # whoever it is may answer
        assert (page.why, page.action) == ("none", ACT_FLOOD)
    else:
        assert page.why == "no-destination"
        net.network(2)
        net.route(1, "10.1.0.3/32", 2, 5000)
        answered(net, who_has(net.a, C[4]), is_at(net.a, C[4], GATEWAY_MAC))
    # Its own: others are to know, and nobody says it is theirs.
    for sender in (A[4], "0.0.0.0"):
        assert net.explain(net.a, who_has(net.a, A[4], sender)).action == (ACT_FLOOD if net.switched else 0)


def test_arp_where_the_host_is_the_way(net):
    net.a.record.flags |= TO_HOST
    net.write(net.a)
    if not net.switched:
        answered(net, who_has(net.a, "198.51.100.1"), is_at(net.a, "198.51.100.1", GATEWAY_MAC))
    answered(net, who_has(net.a, NODE[4]), is_at(net.a, NODE[4], GATEWAY_MAC))


def test_arp_replies(net):
    reply = Ether(src=net.a.mac, dst=net.b.mac) / ARP(op=2, hwsrc=net.a.mac, psrc=A[4], hwdst=net.b.mac, pdst=B[4])
    result = net.run(net.a, reply)
    assert (result.action, result.reason) == ((REDIRECT, "none") if net.switched else (SHOT, "not-routed"))
    if net.switched:
        assert result.out == bytes(reply)
    reply.dst = GATEWAY_MAC
    assert net.run(net.a, reply).reason == "no-destination"
    net.a.record.flags |= TO_HOST
    net.write(net.a)
    assert net.run(net.a, reply).action == NEXT


def test_solicitation_for_the_gateway(net):
    want = advertise(net.a, GATEWAY[6], GATEWAY_MAC, router=1)
    answered(net, solicit(net.a, GATEWAY[6]), want)
    answered(net, solicit(net.a, GATEWAY[6], option=False), want)
    answered(net, solicit(net.a, GATEWAY[6], to=GATEWAY_MAC), want)
    answered(net, solicit(net.a, GATEWAY[6]) / Raw(b"\x0e\x01" + bytes(6)), want)  # a nonce, RFC 3971
    own = link_local(net.a)
    answered(net, solicit(net.a, GATEWAY[6], own), advertise(net.a, GATEWAY[6], GATEWAY_MAC, own, router=1))


def test_solicitation_for_a_neighbour(net):
    mac, router = (net.b.mac, 0) if net.switched else (GATEWAY_MAC, 1)
    answered(net, solicit(net.a, B[6]), advertise(net.a, B[6], mac, router=router))
    # Who wants to know whether the address is free hears that it is not.
    answered(net, solicit(net.a, B[6], "::", option=False), advertise(net.a, B[6], mac, router=router, anonymous=True))


def test_solicitation_for_others(net):
    for target in (C[6], A[6], link_local(net.a), "fe80::77"):
        page = net.explain(net.a, solicit(net.a, target, "::", option=False))
        if net.switched:
            assert (page.why, page.action) == ("none", ACT_FLOOD)
        else:
            assert page.why == ("not-routed" if target == link_local(net.a) else "no-destination")


def test_advertisements(net):
    packet = Ether(src=net.a.mac, dst=net.b.mac) / IPv6(src=A[6], dst=B[6], hlim=255) / ICMPv6ND_NA(tgt=A[6]) / ICMPv6NDOptDstLLAddr(lladdr=net.a.mac)
    result = net.run(net.a, packet)
    assert (result.action, result.reason) == ((REDIRECT, "none") if net.switched else (SHOT, "not-routed"))
    page = net.explain(net.a, Ether(src=net.a.mac, dst="33:33:00:00:00:01") / IPv6(src=link_local(net.a), dst="ff02::1", hlim=255) /
                       ICMPv6ND_NA(tgt=link_local(net.a)) / ICMPv6NDOptDstLLAddr(lladdr=net.a.mac))
    assert page.why == ("none" if net.switched else "not-routed")


def test_router_solicitations_and_listener_reports(net):
    for source in (link_local(net.a), "::"):
        for packet in (ICMPv6ND_RS(), ICMPv6MLReport2(records=[])):
            page = net.explain(net.a, Ether(src=net.a.mac, dst="33:33:00:00:00:02") / IPv6(src=source, dst="ff02::2", hlim=255) / packet)
            assert (page.why, page.action) == (("none", ACT_FLOOD) if net.switched else ("not-routed", 0))
    page = net.explain(net.a, Ether(src=net.a.mac, dst="33:33:00:00:00:16") / IPv6(src=link_local(net.b), dst="ff02::16") / ICMPv6MLReport2(records=[]))
    assert page.why == "source-ip6"


def test_echo_of_the_gateway(net, family):
    if family == 4:
        ask = Ether(src=net.a.mac, dst=GATEWAY_MAC) / IP(src=A[4], dst=GATEWAY[4], ttl=64, id=7) / ICMP(type=8, id=3, seq=9) / Raw(b"hello world")
        want = Ether(src=GATEWAY_MAC, dst=net.a.mac) / IP(src=GATEWAY[4], dst=A[4], ttl=64, id=7) / ICMP(type=0, id=3, seq=9) / Raw(b"hello world")
    else:
        ask = Ether(src=net.a.mac, dst=GATEWAY_MAC) / IPv6(src=A[6], dst=GATEWAY[6]) / ICMPv6EchoRequest(id=3, seq=9, data=b"hello world")
        want = Ether(src=GATEWAY_MAC, dst=net.a.mac) / IPv6(src=GATEWAY[6], dst=A[6]) / ICMPv6EchoReply(id=3, seq=9, data=b"hello world")
    for _ in range(2):
        answered(net, ask, want)
    assert net.world.flows() == []


def test_twins_answer_too(net):
    assert net.explain(net.a, who_has(net.a, GATEWAY[4])).action == ACT_ARP
    assert net.explain(net.a, solicit(net.a, GATEWAY[6])).action == ACT_ND


def test_the_hosts_own_resolution(net):
    """What the host's stack asks a port, and is told."""
    net.a.record.flags |= TO_HOST
    net.write(net.a)
    assert net.run(net.a, Ether(src=OTHER_MAC, dst=BROADCAST) / ARP(op=1, psrc=NODE[4], pdst=A[4]), PORT_OUT).action == NEXT
    assert net.run(net.a, Ether(src=OTHER_MAC, dst="33:33:ff:00:00:01") / IPv6(src=NODE[6], dst="ff02::1:ff00:1", hlim=255) / ICMPv6ND_NS(tgt=A[6]), PORT_OUT).action == NEXT


def test_behind_a_tag(plane):
    """A trunk's question is answered in its segment, the tag in its place."""
    plane.network(1)
    plane.a = plane.port(0, 1, [A[4], A[6]], flags=L2 | TRUNK, vlans=[10])
    plane.endpoint(1, GATEWAY[4], flags=IS_GATEWAY, mac=GATEWAY_MAC)
    plane.endpoint(1, GATEWAY[6], flags=IS_GATEWAY, mac=GATEWAY_MAC)

    def tag(packet):
        packet = packet.copy()
        inner, packet = packet.payload, packet.copy()
        packet.remove_payload()
        return Ether(src=packet.src, dst=packet.dst) / Dot1Q(vlan=10) / inner

    assert plane.run(plane.a, tag(who_has(plane.a, GATEWAY[4]))).out == bytes(tag(is_at(plane.a, GATEWAY[4], GATEWAY_MAC)))
    want = tag(advertise(plane.a, GATEWAY[6], GATEWAY_MAC, router=1))
    for option in (True, False):
        assert plane.run(plane.a, tag(solicit(plane.a, GATEWAY[6], option=option)), PORT_IN).out == bytes(want)
