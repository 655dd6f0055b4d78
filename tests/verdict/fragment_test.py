# SPDX-License-Identifier: Apache-2.0
"""Later fragments follow their first one, and are never matched by what they carry."""
import pytest
from packets import HOST, IP, PEER, UDP, IPv6, IPv6ExtHdrFragment, Raw, frame, tagged
from world import TC_OUT

DATA = bytes(UDP(sport=40000, dport=53, len=8 + 64)) + bytes(64)


def part(family, offset, length, more, inbound=True, data=DATA, ident=7, number=17):
    source, destination = (PEER, HOST) if inbound else (HOST, PEER)
    piece = Raw(data[offset:offset + length])
    if family == 4:
        return frame(IP(src=source[4], dst=destination[4], id=ident, frag=offset // 8, flags="MF" if more else 0, proto=number) / piece, inbound)
    return frame(IPv6(src=source[6], dst=destination[6]) / IPv6ExtHdrFragment(nh=number, offset=offset // 8, m=int(more), id=ident) / piece, inbound)


def allow_dns(world):
    rules = ["{name: dns, action: allow, ports: [{protocol: UDP, port: 53}]}"]
    world.rules(ingress=rules, egress=rules, default="{ingress: deny, egress: deny}")


@pytest.mark.parametrize("tags", [[], [(0x8100, 5)]], ids=["untagged", "tagged"])
def test_followers(world, hook, family, tags):
    allow_dns(world)
    inbound = hook != TC_OUT
    assert world.run(hook, tagged(part(family, 24, 24, True, inbound), tags)).reason == "frag-unknown"
    assert world.run(hook, tagged(part(family, 0, 24, True, inbound), tags)).passed
    page = world.explain(hook, tagged(part(family, 24, 24, True, inbound), tags))
    assert (page.why, page.fragment, world.rule_name(page.rule)) == ("none", 2, "fragment")
    assert world.run(hook, tagged(part(family, 24, 24, True, inbound), tags)).passed
    assert world.run(hook, tagged(part(family, 48, 24, False, inbound), tags)).passed
    # another datagram, another direction
    assert world.run(hook, part(family, 24, 24, True, inbound, ident=8)).reason == "frag-unknown"
    if hook != TC_OUT:
        assert world.run(TC_OUT, part(family, 24, 24, True, True)).reason == "frag-unknown"


def test_denied_with_the_first(world, hook, family):
    allow_dns(world)
    inbound = hook != TC_OUT
    denied = bytes(UDP(sport=40000, dport=54, len=72)) + bytes(64)
    assert world.run(hook, part(family, 0, 24, True, inbound, denied)).reason == "policy-deny"
    assert world.run(hook, part(family, 24, 24, True, inbound, denied)).reason == "policy-deny"


def test_payload_is_no_header(world, hook, family):
    """What stands where a header would be, in a later fragment, matches nothing."""
    allow_dns(world)
    lie = bytes(24) + bytes(UDP(sport=1, dport=53, len=8 + 40)) + bytes(40)
    assert world.run(hook, part(family, 24, 24, True, hook != TC_OUT, lie)).reason == "frag-unknown"


def test_overlay(world, hook, family):
    """A later fragment that would write over the header that was judged (RFC 1858)."""
    inbound = hook != TC_OUT
    assert world.run(hook, part(family, 0, 24, True, inbound)).passed
    assert world.run(hook, part(family, 8, 24, True, inbound)).reason == "frag-tiny"
    assert world.run(hook, part(family, 16, 8, True, inbound)).reason == "frag-tiny"
    assert world.run(hook, part(family, 24, 24, True, inbound)).passed


def test_policy_change_between_fragments(world, hook, family):
    inbound = hook != TC_OUT
    assert world.run(hook, part(family, 0, 24, True, inbound)).passed
    allow_dns(world)
    assert world.run(hook, part(family, 24, 24, True, inbound)).reason == "frag-unknown"


def test_first_fragment_opens_a_flow(world, ingress_hook, family):
    assert world.run(ingress_hook, part(family, 0, 24, True)).passed
    assert world.flow()[1].name == "udp-new"
