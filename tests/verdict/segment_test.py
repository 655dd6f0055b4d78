# SPDX-License-Identifier: Apache-2.0
"""L2 networks: learning, flooding, VLANs."""
import pytest
from packets import ARP, IP, UDP, Dot1AD, Dot1Q, Ether, IPv6, Raw
from port_test import A, B, C, OTHER_MAC, between, ip
from ports import (ACCESS, ACT_FLOOD, ACT_PORT, GATEWAY_MAC, IS_GATEWAY, L2, LEARNING, PEER, QINQ, REDIRECT, RULE_DENY, RULE_OUT, RULE_PEER, SHOT, TRUNK, Learnt, Witness, leaf)
from world import DENY, EGRESS, INGRESS, REJECT

D = {4: "10.1.0.4", 6: "2001:db8:a::4"}
BROADCAST = "ff:ff:ff:ff:ff:ff"
DISCOVER = IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67) / Raw(bytes(40))


def lldp(port, to=BROADCAST):
    return Ether(src=port.mac, dst=to, type=0x88B5) / Raw(bytes(46))


@pytest.fixture
def lan(plane):
    """a, b and c in network 1, a fourth in network 2."""
    plane.network(1)
    plane.network(2)
    plane.a, plane.b, plane.c = (plane.port(i, 1, [address[4], address[6]]) for i, address in enumerate((A, B, C)))
    plane.d = plane.port(3, 2, [D[4], D[6]])
    return plane


# --- floods ---

def flood(plane, port, packet, *others):
    with Witness(*others) as witness:
        result = plane.run(port, packet)
        assert (result.action, result.reason) == (SHOT, "none")
        return [witness.frames(other) for other in others]


def test_broadcast_stays_in_its_network(lan):
    packet = bytes(lldp(lan.a))
    before = lan.count("switched")
    assert lan.explain(lan.a, packet).action == ACT_FLOOD
    assert flood(lan, lan.a, packet, lan.a, lan.b, lan.c, lan.d) == [[], [packet], [packet], []]
    assert lan.count("switched") == before + 1


def test_unknown_unicast(lan):
    packet = bytes(lldp(lan.a, OTHER_MAC))
    assert flood(lan, lan.a, packet, lan.b, lan.c, lan.d) == [[packet], [packet], []]
    assert lan.run(lan.a, lldp(lan.a, lan.b.mac)).action == REDIRECT


def test_arp_and_its_announcements(lan):
    packet = bytes(Ether(src=lan.a.mac, dst=BROADCAST) / ARP(op=1, hwsrc=lan.a.mac, psrc=A[4], pdst=A[4]))
    assert flood(lan, lan.a, packet, lan.b, lan.d) == [[packet], []]


def test_groups_are_judged_at_both_ends(lan):
    packet = bytes(Ether(src=lan.a.mac, dst="01:00:5e:00:00:fb") / IP(src=A[4], dst="224.0.0.251") / UDP(sport=5353, dport=5353) / Raw(bytes(20)))
    lan.policy(lan.b, INGRESS, leaf(RULE_DENY, DENY))
    before = lan.count(RULE_DENY), lan.count(RULE_OUT)
    assert flood_judged(lan, packet, lan.b, lan.c) == [[], [packet]]
    assert (lan.count(RULE_DENY), lan.count(RULE_OUT)) == (before[0] + 1, before[1] + 1)
    event = lan.world.events()[-1]
    assert (event.ifindex, event.rule, event.direction, event.network) == (lan.b.ifindex, RULE_DENY, INGRESS, 1)
    lan.policy(lan.a, EGRESS, leaf(RULE_DENY, DENY))
    assert lan.run(lan.a, packet).reason == "policy-deny"
    assert lan.world.flows() == []


def test_fragments_to_a_group(lan):
    """Nobody remembers for each member what it got of a datagram."""
    whole = bytes(UDP(sport=5353, dport=5353) / Raw(bytes(100)))
    first, later = (Ether(src=lan.a.mac, dst="01:00:5e:00:00:fb") / IP(src=A[4], dst="224.0.0.251", id=5, proto=17, frag=offset // 8, flags=more) /
                    Raw(whole[offset:offset + 64]) for offset, more in ((0, "MF"), (64, 0)))
    assert flood(lan, lan.a, bytes(first), lan.b) == [[bytes(first)]]
    assert lan.run(lan.a, later).reason == "frag-unknown"


def test_a_member_that_rejects(lan):
    """It is one of many, and does not answer for them."""
    lan.policy(lan.b, INGRESS, leaf(RULE_DENY, REJECT))
    packet = bytes(Ether(src=lan.a.mac, dst=OTHER_MAC) / IP(src=A[4], dst="10.1.0.99") / UDP(sport=5, dport=6))
    assert flood_judged(lan, packet, lan.b, lan.c) == [[], [packet]]
    assert [event.name for event in lan.world.events()] == ["drop"]


def flood_judged(plane, packet, *others):
    with Witness(*others) as witness:
        assert plane.run(plane.a, packet).action == SHOT
        return [witness.frames(other) for other in others]


def test_dhcp(lan):
    """Who has no address yet may ask for one, in no other way."""
    packet = bytes(Ether(src=lan.a.mac, dst=BROADCAST) / DISCOVER)
    assert flood(lan, lan.a, packet, lan.b, lan.d) == [[packet], []]
    for wrong in (IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=67, dport=68), IP(src="0.0.0.0", dst=B[4]) / UDP(sport=68, dport=67),
                  IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=53)):
        assert lan.run(lan.a, Ether(src=lan.a.mac, dst=BROADCAST) / wrong).reason == "source-ip4"


def test_a_member_that_is_none_any_more(lan):
    packet = bytes(lldp(lan.a))
    lan.b.record.network = 2
    lan.write(lan.b)
    assert flood(lan, lan.a, packet, lan.b, lan.c) == [[], [packet]]
    lan.world.store("ports", lan.c.ifindex.to_bytes(4, "little"), bytes(128))
    assert flood(lan, lan.a, packet, lan.b, lan.c) == [[], []]


# --- learning ---

STATION, SECOND = "02:00:00:00:07:01", "02:00:00:00:07:02"


@pytest.fixture
def bridge(lan):
    for port in (lan.a, lan.b):
        port.record.flags |= LEARNING
        lan.write(port)
    return lan


def from_station(port, to, mac=STATION):
    return Ether(src=mac, dst=to, type=0x88B5) / Raw(bytes(46))


def test_learning(bridge):
    assert bridge.explain(bridge.c, from_station(bridge.c, STATION, bridge.c.mac)).action == ACT_FLOOD
    assert bridge.run(bridge.a, from_station(bridge.a, bridge.c.mac)).action == REDIRECT
    page = bridge.explain(bridge.c, from_station(bridge.c, STATION, bridge.c.mac))
    assert (page.action, page.to) == (ACT_PORT, bridge.a.ifindex)
    # It moves to b.
    assert bridge.run(bridge.b, from_station(bridge.b, bridge.c.mac)).action == REDIRECT
    assert bridge.explain(bridge.c, from_station(bridge.c, STATION, bridge.c.mac)).to == bridge.b.ifindex
    # Behind one port, and within one network.
    assert bridge.run(bridge.b, from_station(bridge.b, STATION, SECOND)).reason == "no-destination"
    assert bridge.explain(bridge.d, from_station(bridge.d, STATION, bridge.d.mac)).action == ACT_FLOOD


def test_what_is_learnt_is_forgotten(bridge):
    bridge.run(bridge.a, from_station(bridge.a, bridge.c.mac))
    (key,) = bridge.world.keys("fdb", 12)
    entry = bridge.world.lookup("fdb", key, Learnt)
    seconds = bridge.world.control.reserved[0]  # fragment_timeout, 30 s in ticks
    for age, action in ((9 * seconds, ACT_PORT), (11 * seconds, ACT_FLOOD)):
        entry.seen = (bridge.world.now() - age) & 0xFFFFFFFF
        bridge.world.store("fdb", key, entry)
        assert bridge.explain(bridge.c, from_station(bridge.c, STATION, bridge.c.mac)).action == action
    bridge.run(bridge.a, from_station(bridge.a, bridge.c.mac))
    assert bridge.explain(bridge.c, from_station(bridge.c, STATION, bridge.c.mac)).action == ACT_PORT


def test_a_document_overrules_what_is_learnt(bridge):
    for mac in (bridge.b.mac, bridge.c.mac, GATEWAY_MAC, "01:00:5e:00:00:01", BROADCAST):
        assert bridge.run(bridge.a, from_station(bridge.a, bridge.c.mac, mac)).reason == "source-mac"
    assert bridge.run(bridge.c, from_station(bridge.c, bridge.a.mac)).reason == "source-mac"  # does not learn
    bridge.endpoint(1, SECOND, bridge.c, mac=SECOND)
    assert bridge.run(bridge.a, from_station(bridge.a, bridge.c.mac, SECOND)).reason == "source-mac"
    assert bridge.world.keys("fdb", 12) == []


def test_explain_learns_nothing(bridge):
    assert bridge.explain(bridge.a, from_station(bridge.a, bridge.c.mac)).why == "none"
    assert bridge.world.keys("fdb", 12) == []


def test_addresses_behind_a_bridge(bridge, family):
    """MACs may be anybody's there, addresses are not."""
    packet = between(bridge.a, bridge.b, ip(family, A[family], B[family]) / UDP(), from_mac=STATION, to_mac=SECOND)
    bridge.run(bridge.b, from_station(bridge.b, bridge.c.mac, SECOND))
    for _ in range(2):
        assert bridge.run(bridge.a, packet).action == REDIRECT
    packet[1].src = C[family]
    assert bridge.run(bridge.a, packet).reason == f"source-ip{family}"


def test_routed_behind_a_bridge(bridge):
    """Each address there may have a MAC of its own."""
    bridge.endpoint(1, "10.1.0.77", bridge.b, mac=SECOND)
    for address, mac in (("10.1.0.77", SECOND), (B[4], bridge.b.mac)):
        result = bridge.run(bridge.c, between(bridge.c, None, ip(4, C[4], address) / UDP(sport=1, dport=2), to_mac=GATEWAY_MAC))
        assert result.action == REDIRECT and result.out[:6] == bytes.fromhex(mac.replace(":", ""))


# --- VLANs ---

def plain(source, destination, family=4):
    return between(source, destination, ip(family, *(((A, B)[source is not None and source.ifindex > destination.ifindex][family],
                                                      (B, A)[source.ifindex > destination.ifindex][family]))) / UDP(sport=1, dport=2) / Raw(bytes(20)))


def tagged(packet, *tags):
    """(tag class, id, priority)"""
    made = Ether(src=packet.src, dst=packet.dst)
    for kind, vlan, priority in tags:
        made.lastlayer().type = 0x88A8 if kind is AD else 0x8100
        made = made / kind(vlan=vlan, prio=priority)
    made.lastlayer().type = packet.type
    return made / packet.payload.copy()


# mode of the sender, mode of the receiver, tags sent, tags received or why not. A tag that was pushed is beside the frame, where a test run
# does not show it: MORE says it is there, and test_floods_stay_in_their_segment sees it.
MORE = "beside the frame"
UNTAGGED, ACCESS10, ACCESS20 = ({}, {"flags": L2 | ACCESS, "vlan": 10}, {"flags": L2 | ACCESS, "vlan": 20})
TUNNEL10 = {"flags": L2 | ACCESS | QINQ, "vlan": 10}
TRUNKS, NATIVE = {"flags": L2 | TRUNK, "vlans": [10, 20]}, {"flags": L2 | TRUNK, "vlan": 10, "vlans": [20]}
Q, AD = Dot1Q, Dot1AD
MODES = [
    (UNTAGGED, UNTAGGED, [], []),
    (UNTAGGED, UNTAGGED, [(Q, 0, 5)], [(Q, 0, 5)]),  # a priority is kept
    (UNTAGGED, UNTAGGED, [(Q, 10, 0)], "source-vlan"),
    (UNTAGGED, ACCESS10, [], "no-destination"),
    (ACCESS10, ACCESS10, [], []),
    (ACCESS10, ACCESS10, [(Q, 0, 3)], [(Q, 0, 3)]),
    (ACCESS10, ACCESS20, [], "no-destination"),
    (ACCESS10, ACCESS10, [(Q, 10, 0)], "source-vlan"),
    (ACCESS10, TRUNKS, [], [MORE]),
    (ACCESS10, TRUNKS, [(Q, 0, 6)], [MORE]),
    (ACCESS10, NATIVE, [], []),
    (ACCESS20, NATIVE, [], [MORE]),
    (TRUNKS, ACCESS10, [(Q, 10, 0)], []),
    (TRUNKS, ACCESS10, [(Q, 20, 0)], "no-destination"),
    (TRUNKS, ACCESS10, [(Q, 30, 0)], "source-vlan"),
    (TRUNKS, ACCESS10, [], "source-vlan"),
    (TRUNKS, ACCESS10, [(Q, 0, 1)], "source-vlan"),
    (TRUNKS, TRUNKS, [(Q, 20, 4)], [(Q, 20, 4)]),
    (TRUNKS, TRUNKS, [(AD, 20, 4), (Q, 7, 2)], [(AD, 20, 4), (Q, 7, 2)]),  # the outer one is the segment
    (TRUNKS, ACCESS20, [(AD, 20, 0), (Q, 7, 2)], [MORE]),
    (TRUNKS, NATIVE, [(Q, 10, 0)], []),
    (NATIVE, TRUNKS, [], [MORE]),
    (NATIVE, ACCESS10, [], []),
    (NATIVE, ACCESS10, [(Q, 0, 2)], [(Q, 0, 2)]),
    (NATIVE, UNTAGGED, [], "no-destination"),
    # The customer's tags are payload, and have a service tag around them on a trunk.
    (TUNNEL10, TUNNEL10, [], []),
    (TUNNEL10, TUNNEL10, [(Q, 10, 5)], [(Q, 10, 5)]),
    (TUNNEL10, TUNNEL10, [(AD, 7, 1), (Q, 8, 2)], [(AD, 7, 1), (Q, 8, 2)]),
    (TUNNEL10, ACCESS10, [(Q, 7, 5)], [(Q, 7, 5)]),
    (TUNNEL10, ACCESS20, [(Q, 20, 0)], "no-destination"),
    (TUNNEL10, UNTAGGED, [], "no-destination"),
    (TUNNEL10, TRUNKS, [], [MORE]),
    (TUNNEL10, TRUNKS, [(Q, 7, 3)], [MORE, (Q, 7, 3)]),
    (TUNNEL10, NATIVE, [(Q, 20, 0)], [MORE, (Q, 20, 0)]),  # not without: it would be in another segment there
    (TUNNEL10, TRUNKS, [(AD, 7, 3), (Q, 8, 0)], "vlan-depth"),
    (ACCESS10, TUNNEL10, [], []),
    (TRUNKS, TUNNEL10, [(AD, 10, 0)], []),
    (TRUNKS, TUNNEL10, [(AD, 10, 0), (Q, 7, 2)], [MORE]),
    (TRUNKS, NATIVE, [(AD, 10, 0), (Q, 20, 0)], [(AD, 10, 0), (Q, 20, 0)]),
]


@pytest.mark.parametrize("sender, receiver, sent, received", MODES)
def test_modes(plane, sender, receiver, sent, received):
    plane.network(1)
    plane.a, plane.b = plane.port(0, 1, [A[4]], **sender), plane.port(1, 1, [B[4]], **receiver)
    base = plain(plane.a, plane.b)
    for _ in range(2):  # the second one finds a flow
        result = plane.run(plane.a, tagged(base, *sent))
        if isinstance(received, str):
            assert (result.action, result.reason) == (SHOT, received)
        else:
            assert (result.action, result.reason) == (REDIRECT, "none")
            assert result.out == bytes(tagged(base, *[tag for tag in received if tag != MORE]))


def test_flows_do_not_cross_segments(plane):
    """A trunk may speak in two segments: what is allowed in one is nobody's business in the other."""
    plane.network(1)
    plane.a, plane.b = plane.port(0, 1, [A[4]], **TRUNKS), plane.port(1, 1, [B[4]], **ACCESS10)
    base = plain(plane.a, plane.b)
    assert plane.run(plane.a, tagged(base, (Q, 10, 0))).action == REDIRECT
    assert plane.run(plane.a, tagged(base, (Q, 20, 0))).reason == "no-destination"


def test_floods_stay_in_their_segment(plane):
    plane.network(1)
    modes = [ACCESS10, ACCESS10, ACCESS20, TRUNKS, NATIVE, UNTAGGED]
    ports = [plane.port(i, 1, [], **mode) for i, mode in enumerate(modes)]
    untagged = lldp(ports[0])
    for sent, trunk in ((untagged, tagged(untagged, (Q, 10, 0))), (tagged(untagged, (Q, 0, 5)), tagged(untagged, (Q, 10, 5)))):
        assert flood(plane, ports[0], sent, *ports[1:]) == [[bytes(sent)], [], [bytes(trunk)], [bytes(sent)], []]
    # From a trunk, with the customer's own tag inside.
    for sent, inner in ((tagged(lldp(ports[3]), (Q, 10, 3)), lldp(ports[3])), (tagged(lldp(ports[3]), (AD, 10, 3), (Q, 7, 1)), tagged(lldp(ports[3]), (Q, 7, 1)))):
        # Where the outer tag is not needed, it stays in front of another one, which would be taken for it.
        native = sent if Dot1AD in sent else inner
        assert flood(plane, ports[3], sent, ports[0], ports[1], ports[2], ports[4]) == [[bytes(inner)], [bytes(inner)], [], [bytes(native)]]


def test_a_tunnel_floods(plane):
    plane.network(1)
    ports = [plane.port(i, 1, [], **mode) for i, mode in enumerate([TUNNEL10, TUNNEL10, ACCESS10, ACCESS20, TRUNKS, NATIVE])]
    for customer in ([], [(Q, 20, 3)]):
        sent = tagged(lldp(ports[0]), *customer)
        outer = tagged(lldp(ports[0]), (AD, 10, 0), *customer)
        assert flood(plane, ports[0], sent, *ports[1:]) == [[bytes(sent)], [bytes(sent)], [], [bytes(outer)], [bytes(outer)]]
    deep = tagged(lldp(ports[0]), (Q, 5, 0), (Q, 6, 0), (Q, 7, 0))
    assert plane.run(ports[0], deep).reason == "vlan-depth"


def test_the_gateway_knows_no_tags_of_a_tunnel(plane):
    plane.network(1)
    plane.a, plane.b = plane.port(0, 1, [A[4]], **TUNNEL10), plane.port(1, 1, [B[4]], **TUNNEL10)
    plane.endpoint(1, "10.1.0.254", flags=IS_GATEWAY, mac=GATEWAY_MAC)
    packet = plain(plane.a, plane.b)
    packet.dst = GATEWAY_MAC
    for _ in range(2):
        assert plane.run(plane.a, packet).action == REDIRECT
        assert plane.run(plane.a, tagged(packet, (Q, 7, 0))).reason == "source-vlan"


def test_routed_to_a_trunk(plane):
    """Routed packets go to where untagged frames belong, if they belong anywhere."""
    plane.network(1)
    plane.a = plane.port(0, 1, [A[4]], **ACCESS20)
    plane.b = plane.port(1, 1, [B[4]], **NATIVE)
    packet = plain(plane.a, plane.b)
    packet.dst = GATEWAY_MAC
    for _ in range(2):
        result = plane.run(plane.a, packet)
        assert result.action == REDIRECT and result.out[12:14] == b"\x08\x00"
    plane.port(1, 1, [B[4]], **TRUNKS)
    assert plane.run(plane.a, packet).reason == "no-destination"
