# SPDX-License-Identifier: Apache-2.0
"""ICMP errors and what they speak of; other ICMP leaves no flows."""
import pytest
from flow_test import Connection
from packets import HOST, ICMP, IP, PEER, ICMPv6ND_NS, ICMPv6Unknown, IPv6, IPv6ExtHdrDestOpt, Raw, frame, ip, ping, pong, tagged, tcp, udp, unreachable
from world import TC_OUT


@pytest.fixture
def closed(world):
    """New packets pass to the outside only."""
    world.rules(default="{ingress: deny, egress: allow}")
    return world


def test_error_about_our_packet(closed, ingress_hook, family):
    ours = udp(family, False, 5353, 53)
    assert closed.run(TC_OUT, ours).passed
    error = unreachable(family, ours)
    page = closed.explain(ingress_hook, error)
    assert (page.why, page.related, closed.rule_name(page.rule)) == ("none", 1, "related")
    assert closed.run(ingress_hook, error).passed
    assert closed.run(ingress_hook, tagged(error, [(0x8100, 3)])).passed
    assert list(closed.flow()[1].packets) == [1, 2]
    assert closed.run(ingress_hook, unreachable(family, udp(family, False, 5353, 54))).reason == "policy-deny"
    assert closed.run(TC_OUT, error).reason == "none"  # outwards the policy allows everything


def test_echo_of_identifier_0_carries_nothing_else(closed, ingress_hook, family):
    """Other ICMP has no identifier, and is not taken for an echo whose identifier is 0."""
    assert closed.run(TC_OUT, ping(family, False, ident=0)).passed
    assert closed.run(ingress_hook, pong(family, True, ident=0)).passed
    other = ip(4) / ICMP(type=5) if family == 4 else ip(6) / ICMPv6Unknown(type=200)
    assert closed.run(ingress_hook, frame(other / Raw(bytes(28)))).reason == "policy-deny"


def test_error_the_wrong_way_round(closed, ingress_hook, family):
    """A quote of what the peer sent can only go to the peer."""
    assert closed.run(TC_OUT, udp(family, False, 5353, 53)).passed
    theirs = udp(family, True, 53, 5353)
    assert closed.run(ingress_hook, theirs).passed
    assert closed.run(ingress_hook, unreachable(family, theirs)).reason == "policy-deny"


def test_error_that_contradicts_itself(world, ingress_hook, family):
    ours = udp(family, False, 5353, 53)
    assert world.run(TC_OUT, ours).passed
    inner = bytes(ours)[14:]
    if family == 4:
        other = IP(src="203.0.113.9", dst="192.0.2.99") / ICMP(type=3, code=1) / Raw(inner)
    else:
        other = IPv6(src="2001:db8:9::9", dst="2001:db8::99", nh=58) / Raw(bytes([1, 0, 0, 0]) + bytes(4) + inner)
    assert world.run(ingress_hook, frame(other)).reason == "icmp-embedded"


@pytest.mark.parametrize("keep", [0, 10, 19, 27])
def test_cut_quote(world, ingress_hook, keep):
    ours = udp(4, False, 5353, 53)
    assert world.run(TC_OUT, ours).passed
    short = frame(IP(src="203.0.113.9", dst=HOST[4]) / ICMP(type=3, code=1) / Raw(bytes(ours)[14:14 + keep]))
    assert world.run(ingress_hook, short).reason == "icmp-embedded"


def test_quote_behind_extension_headers(closed, ingress_hook):
    ours = frame(ip(6, False) / IPv6ExtHdrDestOpt() / udp(6, False, 5353, 53).getlayer("UDP"), False)
    assert closed.run(TC_OUT, ours).passed
    assert closed.run(ingress_hook, unreachable(6, ours)).passed


def test_tcp_quote_must_be_in_flight(closed, ingress_hook, family):
    connection = Connection(closed, ingress_hook, family, opened_in=False).shake()
    connection.send(True, "PA", payload=b"x" * 50)
    sent = tcp(family, False, "PA", 40000, 80, connection.next[True] - 50, connection.next[False], payload=b"x" * 50)
    assert closed.run(ingress_hook, unreachable(family, sent)).passed
    never = tcp(family, False, "PA", 40000, 80, connection.next[True] + 100000, connection.next[False], payload=b"x" * 50)
    assert closed.run(ingress_hook, unreachable(family, never)).reason == "policy-deny"
    assert closed.flow()[1].name == "established"


def test_error_about_a_ping(closed, ingress_hook, family):
    ours = ping(family, False)
    assert closed.run(TC_OUT, ours).passed
    assert closed.run(ingress_hook, unreachable(family, ours)).passed
    assert closed.run(ingress_hook, unreachable(family, ping(family, False, ident=78))).reason == "policy-deny"
    # the quote of a request that the peer would have sent
    assert closed.run(ingress_hook, unreachable(family, pong(family, False))).reason == "policy-deny"


def test_error_under_a_changed_policy(closed, ingress_hook, family):
    ours = udp(family, False, 5353, 53)
    assert closed.run(TC_OUT, ours).passed
    closed.rules(default="{ingress: deny, egress: deny}")
    assert closed.run(ingress_hook, unreachable(family, ours)).reason == "policy-deny"


def test_redirect_is_judged(closed, ingress_hook):
    ours = udp(4, False, 5353, 53)
    assert closed.run(TC_OUT, ours).passed
    redirect = frame(IP(src=PEER[4], dst=HOST[4]) / ICMP(type=5, code=1, gw="192.0.2.254") / Raw(bytes(ours)[14:]))
    assert closed.run(ingress_hook, redirect).reason == "policy-deny"


def test_other_icmp_leaves_no_flow(world, hook, family):
    inbound = hook != TC_OUT
    if family == 4:
        packets = [frame(ip(4, inbound) / ICMP(type=13), inbound), frame(ip(4, inbound) / ICMP(type=9), inbound)]
    else:
        packets = [frame(ip(6, inbound, hlim=255) / ICMPv6ND_NS(tgt=HOST[6]), inbound), frame(ip(6, inbound, hlim=1) / ICMPv6Unknown(type=143) / Raw(bytes(4)), inbound)]
    for packet in packets:
        assert world.run(hook, packet).passed
    assert world.flows() == []


def test_types_and_codes(world, hook, family):
    direction, inbound = ("egress", False) if hook == TC_OUT else ("ingress", True)
    number = 8 if family == 4 else 128
    world.rules(**{direction: [f"{{name: ping, action: allow, icmp: [{{type: {number}, family: IPv{family}}}]}}", "{name: rest, action: deny}"]})
    assert world.run(hook, ping(family, inbound)).passed
    assert world.run(hook, frame(ip(family, inbound) / (ICMP(type=13) if family == 4 else ICMPv6Unknown(type=200) / Raw(bytes(4))), inbound)).reason == "policy-deny"
