# SPDX-License-Identifier: Apache-2.0
"""A network that is a VLAN on the uplinks: what comes in with its tag, and what goes out."""
import struct

import pytest
from packets import ARP, IP, TCP, UDP, Dot1AD, Dot1Q, Ether, ICMPv6ND_NS, ICMPv6ND_RA, IPv6, Raw, unreachable
from port_test import A, B, GATEWAY, OTHER_MAC, ip, link_local
from ports import (ACT_PORT, ACT_WIRE, DEVICE_PEER, GATEWAY_MAC, IS_GATEWAY, L2, LEARNING, MARK, NETWORK_L3, PEER, REDIRECT, RULE_DENY, RULE_IN, RULE_OUT,
                   RULE_PEER, SHOT, Learnt, Witness, leaf)
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr
from world import DENY, EGRESS, INGRESS, META_MAGIC, PORT_UPLINK, PORT_XDP, REJECT, TC_IN, TC_OUT, U32, WIRE_IN, XDP

VLAN, OTHER_VLAN = 100, 200
X = {4: "10.1.0.77", 6: "2001:db8:a::77"}  # a station out there
STATION, SECOND = "02:00:00:00:07:01", "02:00:00:00:07:02"
BROADCAST = "ff:ff:ff:ff:ff:ff"
ANY_MAC = "00:00:00:00:00:00"
WIRE = 0xFFFFFFFF


def on_the_uplinks(plane, **first):
    """a and b in network 1, which is a VLAN on two uplinks. What the host's own policy is asked about is denied."""
    plane.world.rules(default="{ingress: deny, egress: deny}")
    plane.network(1)
    plane.a = plane.port(0, 1, [A[4], A[6]], **first)
    plane.b = plane.port(1, 1, [B[4], B[6]])
    plane.up, plane.second = plane.ports[4], plane.ports[5]
    plane.wire(1, VLAN, plane.up, plane.second)
    plane.endpoint(1, GATEWAY[4], flags=IS_GATEWAY, mac=GATEWAY_MAC)
    plane.endpoint(1, GATEWAY[6], flags=IS_GATEWAY, mac=GATEWAY_MAC)
    return plane


@pytest.fixture
def lan(plane):
    return on_the_uplinks(plane, flags=L2 | PEER)


def tag(frame, vlan=VLAN, prio=0, kind=Dot1Q):
    """A whole frame again, behind a tag."""
    frame = Ether(bytes(frame))
    return Ether(src=frame.src, dst=frame.dst, type=0x8100 if kind is Dot1Q else 0x88A8) / kind(vlan=vlan, prio=prio, type=frame.type) / frame.payload


def inbound(plane, family, to=None, l4=None, mac=STATION, source=None):
    to = to or plane.a
    return Ether(src=mac, dst=to.mac) / ip(family, source or X[family], A[family]) / (l4 or UDP(sport=2000, dport=1000)) / Raw(b"x" * 20)


def outbound(plane, family, l4=None, to_mac=STATION, destination=None):
    return Ether(src=plane.a.mac, dst=to_mac) / ip(family, A[family], destination or X[family]) / (l4 or UDP(sport=1000, dport=2000)) / Raw(b"x" * 20)


def arrive(plane, frame, uplink=None, vlan=VLAN, **options):
    return plane.run(uplink or plane.up, tag(frame, vlan), hook=TC_IN, **options)


def learn(plane, mac=STATION, uplink=None):
    assert arrive(plane, Ether(src=mac, dst=plane.b.mac, type=0x88B5) / Raw(bytes(46)), uplink).action == REDIRECT


# --- in ---

def test_to_a_port(lan, family):
    frame = inbound(lan, family)
    before = lan.count(RULE_IN)
    result = arrive(lan, frame)
    assert (result.action, result.reason, result.out) == (REDIRECT, "none", bytes(frame))
    assert lan.count(RULE_IN) == before + 1
    _, flow = lan.world.flow()
    assert (list(flow.device), flow.rule, flow.second_rule) == ([WIRE, lan.a.ifindex], RULE_IN, 0)


def test_the_ingress_policy_of_the_port_decides(lan, family):
    lan.policy(lan.a, INGRESS, leaf(RULE_DENY, DENY))
    assert arrive(lan, inbound(lan, family)).reason == "policy-deny"
    event = lan.world.events()[-1]
    assert (event.hook, event.ifindex, event.rule, event.direction, event.network) == (WIRE_IN, lan.up.ifindex, RULE_DENY, INGRESS, 1)
    lan.policy(lan.a, INGRESS, leaf(RULE_DENY, REJECT))
    assert arrive(lan, inbound(lan, family)).reason == "policy-reject"
    assert [event.name for event in lan.world.events()] == ["drop"], "nobody answers on the wire"


def test_the_peer_is_the_source_in_the_network(lan):
    lan.networks[1].roots[0].addr4 = lan.addresses({X[4]: 7})
    lan.world.store("networks", struct.pack("I", 1), lan.networks[1])
    lan.policy(lan.a, INGRESS, leaf(RULE_DENY, DENY))
    lan.class_rules(7, {lan.set_of(lan.a, INGRESS): lan.tree({(2, 1000): leaf(RULE_PEER)}, order=1)})
    assert arrive(lan, inbound(lan, 4, source="10.1.0.78")).reason == "policy-deny"
    before = lan.count(RULE_PEER)
    assert arrive(lan, inbound(lan, 4)).action == REDIRECT
    assert lan.count(RULE_PEER) == before + 1


def test_xdp_leaves_it_to_tc(lan, family):
    lan.world.port(lan.up.ifindex, PORT_UPLINK | PORT_XDP)
    frame = tag(inbound(lan, family))
    run = lan.world.raw(XDP, frame, ifindex=lan.up.ifindex)
    assert run.verdict == 2
    assert lan.world.flows() == []
    # Metadata of somebody else, which looks like ours, is not handed on.
    forged = struct.pack("4I", META_MAGIC, lan.generation, 0, 0)
    run = lan.world.raw(XDP, forged + bytes(frame), meta_length=16, ifindex=lan.up.ifindex)
    assert run.verdict == 2 and struct.pack("I", META_MAGIC) not in bytes(run.out[:run.meta_left])


@pytest.mark.parametrize("hook", [XDP, TC_IN])
def test_other_tags_are_the_hosts(lan, family, hook):
    """The host's policy denies, so what is dropped was its to judge."""
    frame = inbound(lan, family)
    for other in (tag(frame, OTHER_VLAN), tag(frame, VLAN, kind=Dot1AD), tag(tag(frame, VLAN), OTHER_VLAN), frame,
                  tag(tag(frame, VLAN), OTHER_VLAN, kind=Dot1AD), tag(tag(frame, VLAN, kind=Dot1AD), VLAN, kind=Dot1AD)):
        assert lan.run(lan.up, other, hook=hook).reason == "policy-deny"


def test_a_second_tag(lan, family):
    frame = Ether(bytes(tag(tag(inbound(lan, family), OTHER_VLAN), VLAN)))
    assert lan.run(lan.up, frame, hook=TC_IN).reason == "source-vlan"


def test_without_its_program_the_host_judges(lan, family):
    lan.world.lib.bpf_map_delete_elem(lan.world.fd("wire_programs"), bytes(4))
    try:
        assert arrive(lan, inbound(lan, family)).reason == "policy-deny"
    finally:
        lan.world.store("wire_programs", bytes(4), U32(lan.world.program(WIRE_IN)))
    assert arrive(lan, inbound(lan, family)).action == REDIRECT


def test_a_network_that_has_gone(lan, family):
    lan.networks[1].vlan = 0
    lan.world.store("networks", struct.pack("I", 1), lan.networks[1])
    assert arrive(lan, inbound(lan, family)).reason == "source-vlan"


def test_it_never_reaches_the_host(lan, family):
    for frame in (Ether(src=STATION, dst=GATEWAY_MAC) / ip(family, X[family], GATEWAY[family]) / UDP(sport=1, dport=2),
                  Ether(src=STATION, dst=GATEWAY_MAC) / ip(family, X[family], A[family]) / UDP(sport=1, dport=2),
                  Ether(src=STATION, dst=GATEWAY_MAC, type=0x88B5) / Raw(bytes(46))):
        assert arrive(lan, frame).reason == "no-destination"


def nd(mac, source, message, destination="ff02::1"):
    return Ether(src=mac, dst="33:33:00:00:00:01") / IPv6(src=source, dst=destination, hlim=255) / message


def arp(sender, mac=STATION, operation=1, hwsrc=None):
    return Ether(src=mac, dst=BROADCAST) / ARP(op=operation, hwsrc=hwsrc or mac, psrc=sender, hwdst=ANY_MAC, pdst=B[4])


SOURCES = {
    "source-mac": lambda a: [inbound_as(a, mac=mac) for mac in (a.mac, GATEWAY_MAC, "03:00:00:00:00:01")],
    "source-ip4": lambda a: [inbound_as(a, 4, source) for source in (A[4], B[4], GATEWAY[4], "0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255")],
    "source-ip6": lambda a: [inbound_as(a, 6, source) for source in (A[6], B[6], GATEWAY[6], "::", "::1", "ff02::1", link_local(a), "fe80::68:65ff:fe64:646c")],
    "arp-sender": lambda a: [arp(A[4]), arp(GATEWAY[4]), arp(X[4], hwsrc=SECOND), arp("0.0.0.0", operation=2), arp(A[4], operation=2)],
    "nd-source": lambda a: [nd(STATION, A[6], ICMPv6ND_NS(tgt=B[6])), nd(STATION, link_local(a), ICMPv6ND_NS(tgt=B[6])),
                            nd(STATION, X[6], ICMPv6ND_NS(tgt=B[6]) / ICMPv6NDOptSrcLLAddr(lladdr=SECOND)), nd(STATION, "fe80::1", ICMPv6ND_RA())],
    "nd-target": lambda a: [nd(STATION, X[6], ICMPv6ND_NA(tgt=target) / ICMPv6NDOptDstLLAddr(lladdr=STATION)) for target in (A[6], GATEWAY[6], link_local(a))],
}


def inbound_as(port, family=4, source=None, mac=STATION):
    return Ether(src=mac, dst=port.mac) / ip(family, source or X[family], A[family]) / UDP(sport=1, dport=2) / Raw(bytes(20))


@pytest.mark.parametrize("reason", SOURCES)
def test_what_the_wire_may_not_claim(lan, reason):
    for frame in SOURCES[reason](lan.a):
        result = arrive(lan, frame)
        assert (result.action, result.reason) == (SHOT, reason), frame.summary()


def test_resolution(lan):
    """Asked for by a station, and answered by the port itself."""
    with Witness(lan.a, lan.b, lan.second) as witness:
        question = arp(X[4])
        assert arrive(lan, question).reason == "none"
        assert [witness.frames(port) for port in (lan.a, lan.b, lan.second)] == [[bytes(question)], [bytes(question)], []]
    answer = Ether(src=lan.b.mac, dst=STATION) / ARP(op=2, hwsrc=lan.b.mac, psrc=B[4], hwdst=STATION, pdst=X[4])
    result = lan.run(lan.b, answer)
    assert (result.action, result.reason, result.out, result.mark) == (REDIRECT, "none", bytes(answer), MARK)


def test_groups_are_judged_by_each_member(lan):
    lan.policy(lan.a, INGRESS, leaf(RULE_DENY, DENY))
    frame = Ether(src=STATION, dst="01:00:5e:00:00:fb") / IP(src=X[4], dst="224.0.0.251") / UDP(sport=5353, dport=5353) / Raw(bytes(20))
    with Witness(lan.a, lan.b, lan.up, lan.second) as witness:
        assert arrive(lan, frame).action == SHOT
        assert [witness.frames(port) for port in (lan.a, lan.b, lan.up, lan.second)] == [[], [bytes(frame)], [], []]


# --- out: the tag is beside the frame, where a test run does not show it; floods are real ---

def test_answers_leave_with_the_tag(lan, family):
    assert arrive(lan, inbound(lan, family)).action == REDIRECT
    answer = outbound(lan, family)
    result = lan.run(lan.a, answer)
    assert (result.action, result.reason, result.out, result.mark) == (REDIRECT, "none", bytes(answer), MARK)
    (_, flow), = [(key, flow) for _, key, flow in lan.world.flows()]
    assert list(flow.packets) == [1, 1]


def test_a_learnt_mac(lan, family):
    learn(lan, uplink=lan.second)
    frame = outbound(lan, family)
    page = lan.explain(lan.a, frame)
    assert (page.action, page.to, page.rule, page.second_rule) == (ACT_WIRE, lan.second.ifindex, RULE_OUT, 0)
    assert lan.run(lan.a, frame).action == REDIRECT
    _, flow = lan.world.flow()
    assert list(flow.device) == [lan.a.ifindex, WIRE]
    # The answer may come by the other uplink: the station has moved there.
    assert arrive(lan, inbound(lan, family), lan.up).action == REDIRECT
    assert lan.explain(lan.a, frame).to == lan.up.ifindex
    lan.policy(lan.a, EGRESS, leaf(RULE_DENY, DENY), version=lan.generation + 1)
    assert lan.run(lan.a, frame).reason == "policy-deny"


def test_unknown_and_groups_go_by_every_uplink(lan, family):
    for to, destination in ((OTHER_MAC, X[family]), (BROADCAST, "10.1.0.255") if family == 4 else ("33:33:00:00:00:fb", "ff02::fb")):
        frame = outbound(lan, family, to_mac=to, destination=destination)
        with Witness(lan.a, lan.b, lan.up, lan.second) as witness:
            assert lan.run(lan.a, tag(frame, 0, prio=3) if to == OTHER_MAC else frame).reason == "none"
            tagged = bytes(tag(frame, VLAN, prio=3 if to == OTHER_MAC else 0))
            assert [witness.frames(port) for port in (lan.up, lan.second)] == [[tagged], [tagged]]
            assert [len(witness.frames(port)) for port in (lan.a, lan.b)] == [0, 1]


def test_an_answer_of_somebody_unknown(lan, family):
    """The first packet is flooded, and still has a flow."""
    assert lan.run(lan.a, outbound(lan, family)).reason == "none"
    lan.policy(lan.a, INGRESS, leaf(RULE_DENY, DENY))
    assert arrive(lan, inbound(lan, family)).action == REDIRECT
    assert arrive(lan, inbound(lan, family, l4=UDP(sport=2000, dport=1001))).reason == "policy-deny"


def test_an_answer_by_the_wire_or_a_peer(lan, family):
    """Where the network has peers as well, the answer may come from either; the flow ends where it comes from."""
    lan.tunnel("192.0.2.1")
    lan.peer(1, "198.51.100.2", (lan.second, SECOND))
    lan.vni(1, 77, 1)
    assert lan.run(lan.a, outbound(lan, family)).reason == "none"
    assert list(lan.world.flow()[1].device) == [lan.a.ifindex, DEVICE_PEER]
    lan.policy(lan.a, INGRESS, leaf(RULE_DENY, DENY))
    assert arrive(lan, inbound(lan, family)).action == REDIRECT
    assert list(lan.world.flow()[1].device) == [lan.a.ifindex, WIRE]


def test_an_address_that_a_port_has_is_not_out_there(lan, family):
    """Policy judges by address: who names a MAC of the wire may not name a port's address."""
    learn(lan)
    assert lan.run(lan.a, outbound(lan, family, destination=B[family])).reason == "no-destination"


def test_no_bridge_between_uplinks(lan, family):
    learn(lan, SECOND, lan.second)
    learn(lan, STATION, lan.up)
    frame = Ether(src=STATION, dst=SECOND) / ip(family, X[family], "10.1.0.78" if family == 4 else "2001:db8:a::78") / UDP(sport=1, dport=2)
    assert arrive(lan, frame).reason == "no-destination"
    assert arrive(lan, Ether(src=SECOND, dst=STATION, type=0x88B5) / Raw(bytes(46)), lan.second).reason == "no-destination"


def test_what_was_learnt_when_it_was_a_vlan(lan, family):
    learn(lan)
    lan.networks[1].vlan = 0
    lan.world.store("networks", struct.pack("I", 1), lan.networks[1])
    frame = bytes(outbound(lan, family))
    with Witness(lan.b, lan.up) as witness:
        assert lan.run(lan.a, frame).action == SHOT
        assert [witness.frames(port) for port in (lan.b, lan.up)] == [[frame], []]


def test_a_mark_alone_opens_no_uplink(lan, family):
    """Without the tag of a network beside the frame it is the host's, whatever its mark."""
    for frame in (outbound(lan, family), tag(outbound(lan, family))):
        assert lan.run(lan.up, frame, hook=TC_OUT, mark=MARK).reason == "policy-deny"


# --- segments: an 802.1ad tag around that of the segment ---

SEGMENT, OTHER_SEGMENT = 7, 8
MODES = {"access": {"flags": L2 | 1 << 8, "vlan": SEGMENT}, "native": {"flags": L2 | 1 << 9, "vlan": SEGMENT},
         "trunk": {"flags": L2 | 1 << 9, "vlans": (SEGMENT, OTHER_SEGMENT)}, "qinq": {"flags": L2 | 1 << 8 | 1 << 10, "vlan": SEGMENT}}


def in_segment(frame, segment=SEGMENT, vlan=VLAN):
    return tag(tag(frame, segment), vlan, kind=Dot1AD)


def sent_by(plane, frame):
    """As a workload in the segment sends it."""
    return tag(frame, SEGMENT) if plane.mode == "trunk" else frame


@pytest.fixture(params=MODES)
def segments(plane, request):
    """a is in the segment, b in none; a third port is in another one."""
    on_the_uplinks(plane, **MODES[request.param])
    plane.mode = request.param
    plane.c = plane.port(2, 1, ["10.1.0.3"], flags=L2 | 1 << 8, vlan=OTHER_SEGMENT)
    return plane


def test_a_segment_comes_in(segments, family):
    frame = inbound(segments, family)
    result = segments.run(segments.up, in_segment(frame), hook=TC_IN)
    assert (result.action, result.reason, result.out) == (REDIRECT, "none", bytes(frame))  # a trunk's tag is beside it
    assert list(segments.world.flow()[1].device) == [WIRE, segments.a.ifindex]
    assert segments.run(segments.up, in_segment(inbound(segments, family, l4=UDP(sport=1, dport=1)), 9), hook=TC_IN).reason == "no-destination"
    assert arrive(segments, inbound(segments, family)).reason == "no-destination", "the tag of segment 0"
    for xdp in (tag(frame), in_segment(frame)):
        assert segments.world.raw(XDP, xdp, ifindex=segments.up.ifindex).verdict == 2
    segments.policy(segments.a, INGRESS, leaf(RULE_DENY, DENY))
    assert segments.run(segments.up, in_segment(inbound(segments, family, l4=UDP(sport=1, dport=1))), hook=TC_IN).reason == "policy-deny"
    assert segments.world.events()[-1].vlan[:] == [0x1000 | VLAN, 0x1000 | SEGMENT]


def test_a_flood_of_a_segment_comes_in(segments):
    frame = Ether(src=STATION, dst=BROADCAST, type=0x88B5) / Raw(bytes(46))
    with Witness(segments.a, segments.b, segments.c, segments.second) as witness:
        assert segments.run(segments.up, in_segment(frame), hook=TC_IN).reason == "none"
        got = [witness.frames(port) for port in (segments.a, segments.b, segments.c, segments.second)]
    assert got == [[bytes(tag(frame, SEGMENT) if segments.mode == "trunk" else frame)], [], [], []]


def test_what_is_no_segment(segments, family):
    frame = inbound(segments, family)
    assert segments.run(segments.up, in_segment(frame, 0), hook=TC_IN).reason == "source-vlan"
    assert segments.run(segments.up, tag(tag(frame, SEGMENT), VLAN), hook=TC_IN).reason == "source-vlan"
    for other in (tag(frame, VLAN, kind=Dot1AD), tag(tag(frame, SEGMENT, kind=Dot1AD), VLAN, kind=Dot1AD)):
        assert segments.run(segments.up, other, hook=TC_IN).reason == "policy-deny", "the host's"
    assert segments.run(segments.up, tag(in_segment(frame, SEGMENT, SEGMENT), VLAN, kind=Dot1AD), hook=TC_IN).reason == "vlan-depth"


def test_a_segment_goes_out(segments, family):
    """Flooded, since those are really sent; with what other members want in between."""
    segments.port(3, 1, ["10.1.0.4"], **MODES["access" if segments.mode == "trunk" else "trunk"])
    frame = outbound(segments, family, to_mac=OTHER_MAC)
    with Witness(segments.b, segments.c, segments.ports[3], segments.up, segments.second) as witness:
        assert segments.run(segments.a, sent_by(segments, frame)).reason == "none"
        for uplink in (segments.up, segments.second):
            assert witness.frames(uplink) == [bytes(in_segment(frame))]
        assert [len(witness.frames(port)) for port in (segments.b, segments.c, segments.ports[3])] == [0, 0, 1]


def test_a_learnt_mac_is_of_its_segment(segments, family):
    probe = Ether(src=STATION, dst=segments.a.mac, type=0x88B5) / Raw(bytes(46))
    assert segments.run(segments.up, in_segment(probe), hook=TC_IN).action == REDIRECT
    frame = sent_by(segments, outbound(segments, family))
    page = segments.explain(segments.a, frame)
    assert (page.action, page.to) == (ACT_WIRE, segments.up.ifindex)
    result = segments.run(segments.a, frame)
    # the outer tag is beside it
    assert (result.action, result.reason, result.out) == (REDIRECT, "none", bytes(tag(outbound(segments, family), SEGMENT)))
    assert segments.explain(segments.b, Ether(src=segments.b.mac, dst=STATION, type=0x88B5) / Raw(bytes(46))).action != ACT_WIRE


def test_three_tags_do_not_go_out(segments, family):
    frame = outbound(segments, family, to_mac=OTHER_MAC)
    if segments.mode in ("trunk", "qinq"):
        inner = tag(frame, 5)
        with Witness(segments.up) as witness:
            assert segments.run(segments.a, sent_by(segments, inner)).reason == "vlan-depth"
            assert witness.frames(segments.up) == []


def test_explain_a_segment(segments, family):
    for vlan, why in ((SEGMENT, "none"), (9, "no-destination")):
        page = segments.world.explain(WIRE_IN, tag(inbound(segments, family), vlan), ifindex=segments.up.ifindex, vlan=VLAN)
        assert page.why == why


# --- connections ---

def segment(plane, family, flags, out, seq=0, ack=0):
    l4 = TCP(sport=1000 if out else 80, dport=80 if out else 1000, flags=flags, seq=seq, ack=ack, window=8000)
    return outbound(plane, family, l4) if out else inbound(plane, family, l4=l4)


def test_the_wire_is_not_trusted(lan, family):
    learn(lan)
    assert lan.run(lan.a, segment(lan, family, "S", True, 100)).reason == "none"
    assert arrive(lan, segment(lan, family, "SA", False, 500, 101)).reason == "none"
    assert lan.run(lan.a, segment(lan, family, "A", True, 101, 501)).reason == "none"
    assert arrive(lan, segment(lan, family, "R", False, 501 + 70000)).reason == "tcp-window"
    assert arrive(lan, segment(lan, family, "A", False, 501, 121)).reason == "none"
    assert arrive(lan, segment(lan, family, "R", False, 521)).reason == "none"
    assert arrive(lan, inbound(lan, family, l4=TCP(sport=81, dport=1000, flags="A"))).reason == "tcp-no-flow"


def test_a_new_policy_cuts(lan, family):
    assert arrive(lan, inbound(lan, family)).action == REDIRECT
    lan.policy(lan.a, INGRESS, leaf(RULE_DENY, DENY), version=lan.generation + 1)
    assert arrive(lan, inbound(lan, family)).reason == "policy-deny"
    assert lan.world.flows() == []


def test_errors_about_what_was_sent(lan, family):
    learn(lan)
    sent = outbound(lan, family)
    assert lan.run(lan.a, sent).action == REDIRECT
    error = Ether(bytes(unreachable(family, sent, sender="203.0.113.9" if family == 4 else "2001:db8:9::9")))
    error.src, error.dst = STATION, lan.a.mac
    lan.policy(lan.a, INGRESS, leaf(RULE_DENY, DENY))
    assert arrive(lan, error).action == REDIRECT
    error.getlayer(IP if family == 4 else IPv6).payload = Raw(bytes(error.getlayer(IP if family == 4 else IPv6).payload))
    other = Ether(bytes(unreachable(family, outbound(lan, family, UDP(sport=9, dport=9)), sender="203.0.113.9" if family == 4 else "2001:db8:9::9")))
    other.src, other.dst = STATION, lan.a.mac
    assert arrive(lan, other).reason == "policy-deny"


# --- what is learnt ---

def test_documents_overrule_the_wire(lan):
    (key, *_) = [k for k in lan.world.keys("fdb", 12)] or [None]
    assert key is None
    learn(lan)
    (key,) = lan.world.keys("fdb", 12)
    assert lan.world.lookup("fdb", key, Learnt).ifindex == lan.up.ifindex
    lan.endpoint(1, STATION, lan.b)
    assert lan.explain(lan.a, Ether(src=lan.a.mac, dst=STATION, type=0x88B5) / Raw(bytes(46))).to == lan.b.ifindex
    assert arrive(lan, inbound(lan, 4)).reason == "source-mac"


def test_a_station_moves_between_port_and_wire(lan):
    lan.b.record.flags |= LEARNING
    lan.write(lan.b)
    probe = Ether(src=lan.a.mac, dst=STATION, type=0x88B5) / Raw(bytes(46))
    learn(lan)
    assert lan.explain(lan.a, probe).action == ACT_WIRE
    assert lan.run(lan.b, Ether(src=STATION, dst=lan.a.mac, type=0x88B5) / Raw(bytes(46))).action == REDIRECT
    page = lan.explain(lan.a, probe)
    assert (page.action, page.to) == (ACT_PORT, lan.b.ifindex)


# --- explain, and networks that only route ---

def test_explain(lan, family):
    page = lan.world.explain(WIRE_IN, inbound(lan, family), ifindex=lan.up.ifindex, vlan=VLAN)
    assert (page.action, page.to, page.rule, page.why, page.network) == (ACT_PORT, lan.a.ifindex, RULE_IN, "none", 1)
    assert lan.world.flows() == [] and lan.world.keys("fdb", 12) == []
    lan.policy(lan.a, INGRESS, leaf(RULE_DENY, DENY))
    assert lan.world.explain(WIRE_IN, inbound(lan, family), ifindex=lan.up.ifindex, vlan=VLAN).why == "policy-deny"


def test_a_network_that_only_routes(plane, family):
    plane.world.rules(default="{ingress: deny, egress: deny}")
    plane.network(1, NETWORK_L3)
    plane.a = plane.port(0, 1, [A[4], A[6]], flags=0)
    plane.up = plane.ports[4]
    plane.wire(1, VLAN, plane.up)
    to_gateway = Ether(src=STATION, dst=GATEWAY_MAC) / ip(family, X[family], A[family]) / UDP(sport=2000, dport=1000) / Raw(bytes(20))
    result = arrive(plane, to_gateway)
    out = Ether(result.out)
    assert (result.action, out.src, out.dst, out.type) == (REDIRECT, GATEWAY_MAC, plane.a.mac, 0x800 if family == 4 else 0x86DD)
    assert (out.payload.ttl if family == 4 else out.payload.hlim) == 63
    assert arrive(plane, inbound(plane, family)).reason == "no-destination"
    # There is no way back: nothing says which MAC the station has.
    assert plane.run(plane.a, outbound(plane, family, to_mac=GATEWAY_MAC)).reason == "no-destination"
    assert plane.world.keys("fdb", 12) == []
