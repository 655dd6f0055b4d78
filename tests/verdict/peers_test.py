# SPDX-License-Identifier: Apache-2.0
"""Who is behind a peer, who may send what, floods, segments, and networks that meet."""
import struct

import pytest
from overlay import (AD, BROADCAST, OTHER_VNI, OUTER, OWN, Q, R, R_MAC, S, SECOND_HOP, S_MAC, VNI, arp, arrive, from_peer, overlay, sent, sport_of, tagged,
                     to_peer, wrapped)
from packets import ARP, IP, TCP, UDP, Ether, ICMPv6ND_NS, IPv6, Raw
from port_test import A, B, GATEWAY, OTHER_MAC, ip, link_local
from ports import (ACCESS, ACT_ARP, ACT_PEER, DEVICE_PEER, GATEWAY_MAC, L2, MARK, NETWORK_L3, NETWORK_PEER_LEARNING, QINQ, REDIRECT, RULE_DENY, SHOT,
                   TRUNK, Learnt, Witness, leaf, mapped)
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr
from world import DENY, INGRESS, TC_IN


# --- who is where ---

def test_a_mac_and_an_address_of_two(net, family):
    for mac, address in ((R_MAC, S), (R_MAC, B), (net.b.mac, R), (R_MAC, {4: "10.1.0.200", 6: "2001:db8:a::200"}), (OTHER_MAC, R)):
        assert net.run(net.a, to_peer(net, family, to=address, mac=mac)).reason == "no-destination", (mac, address)
        assert net.world.flows() == []
    # nor with a flow that is known
    frame = to_peer(net, family)
    sent(net, net.run(net.a, frame), frame)
    assert net.run(net.a, to_peer(net, family, mac=S_MAC)).reason == "no-destination"


def test_link_local(net):
    """By the MAC, as between ports."""
    far = link_local(type("Far", (), {"mac": R_MAC}))
    frame = Ether(src=net.a.mac, dst=R_MAC) / IPv6(src=link_local(net.a), dst=far) / UDP(sport=1000, dport=2000) / Raw(bytes(20))
    sent(net, net.run(net.a, frame), frame)
    back = Ether(src=R_MAC, dst=net.a.mac) / IPv6(src=far, dst=link_local(net.a)) / UDP(sport=2000, dport=1000) / Raw(bytes(20))
    assert arrive(net, back).out == bytes(back)
    back[IPv6].src = "fe80::1"
    assert arrive(net, back).reason == "tunnel-source"


def test_routed_to_a_peer(net, family):
    """By the gateway: TTL lowered once, the endpoint's MAC, or the gateway's where none is known."""
    for mac in (R_MAC, None):
        if not mac:
            net.endpoint(1, R[family], peer=1)
            net.world.clear()
        frame = to_peer(net, family, mac=GATEWAY_MAC)
        routed = Ether(bytes(frame))
        routed.src, routed.dst = GATEWAY_MAC, mac or GATEWAY_MAC
        if family == 4:
            routed[IP].ttl, routed[IP].chksum = 63, None
        else:
            routed[IPv6].hlim = 63
        for _ in range(3):
            sent(net, net.run(net.a, frame), routed)
    frame = to_peer(net, family, mac=GATEWAY_MAC, **{"ttl" if family == 4 else "hlim": 1})
    assert net.run(net.a, frame).reason == "ttl-exceeded"


def test_for_the_gateway_of_this_host(net, family):
    """What a peer's gateway could not name by a MAC is routed here, its TTL as it is; nothing else is there for peers."""
    frame = from_peer(net, family, mac=GATEWAY_MAC, to=type("To", (), {"mac": GATEWAY_MAC}))
    expected = from_peer(net, family, mac=GATEWAY_MAC)
    for _ in range(2):
        assert arrive(net, frame).out == bytes(expected)
    for address in (GATEWAY[family], S[family], {4: "203.0.113.7", 6: "2001:db8:7::7"}[family]):
        frame = from_peer(net, family, mac=GATEWAY_MAC, to=type("To", (), {"mac": GATEWAY_MAC}), destination=address)
        assert arrive(net, frame).reason == "no-destination"


def test_a_network_that_routes_only(plane, family, under):
    overlay(plane, under, flags=NETWORK_L3)
    frame = to_peer(plane, family, mac=GATEWAY_MAC)
    for _ in range(2):
        result = plane.run(plane.a, frame)
        inner = Ether(result.out[OUTER[under] + 16:])
        assert (result.action, inner.src, inner.dst, inner[IP if family == 4 else IPv6].src) == (REDIRECT, GATEWAY_MAC, R_MAC, A[family])
    back = from_peer(plane, family, mac=GATEWAY_MAC)
    for mac in (plane.a.mac, GATEWAY_MAC, OTHER_MAC):
        back.dst = mac
        for _ in range(2):
            result = arrive(plane, back)
            assert (result.action, result.out) == (REDIRECT, bytes(from_peer(plane, family, mac=GATEWAY_MAC)))
    assert arrive(plane, from_peer(plane, family, mac=GATEWAY_MAC, source=S[family])).reason == "tunnel-source"
    assert arrive(plane, arp(R_MAC, R[4], A[4])).reason == "not-routed"
    assert plane.explain(plane.a, arp(plane.a.mac, A[4], R[4])).action == ACT_ARP


PREFIX = {4: ("10.1.7.0/24", "10.1.7.9"), 6: ("2001:db8:a:7::/64", "2001:db8:a:7::9")}


def test_prefixes(net, family):
    prefix, address = PREFIX[family]
    net.prefix(1, prefix, 2, mac=S_MAC)
    frame = to_peer(net, family, to={family: address}, mac=GATEWAY_MAC)
    result = net.run(net.a, frame)
    assert Ether(result.out[OUTER[4] + 16:]).dst == S_MAC and result.out[:6] == bytes.fromhex(SECOND_HOP.replace(":", ""))
    # on the link, by the MAC of the router
    frame = to_peer(net, family, to={family: address}, mac=S_MAC)
    sent(net, net.run(net.a, frame), frame, peer=2)
    assert net.run(net.a, to_peer(net, family, to={family: address}, mac=R_MAC)).reason == "no-destination"
    back = from_peer(net, family, source=address, mac=S_MAC)
    assert arrive(net, back, peer=2).action == REDIRECT
    assert arrive(net, back, peer=1).reason == "tunnel-source"
    # An endpoint within it, of somebody else, goes first.
    net.endpoint(1, address, peer=1, mac=R_MAC)
    net.peers[2].moved = (net.world.now() + 1) & 0xFFFFFFFF
    net.write_peer(2)
    assert arrive(net, back, peer=2).reason == "tunnel-source"
    assert arrive(net, from_peer(net, family, source=address), peer=1).action == REDIRECT


NOBODY = {4: ("0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"), 6: ("::", "::1", "ff02::1")}


def test_nobody_behind_a_prefix(net, family):
    """However wide the prefix is: what no host can send from is nobody's, on the link and routed."""
    net.prefix(1, {4: "0.0.0.0/0", 6: "::/0"}[family], 2, mac=OTHER_MAC)
    _, address = PREFIX[family]
    for mac in (GATEWAY_MAC, OTHER_MAC):
        for source in NOBODY[family]:
            assert arrive(net, from_peer(net, family, source=source, mac=mac), peer=2).reason == "tunnel-source", (source, mac)
        assert arrive(net, from_peer(net, family, source=address, mac=mac), peer=2).action == REDIRECT


def test_the_router_of_a_prefix(net, family):
    """Its MAC is no endpoint's: the prefix says it."""
    prefix, address = PREFIX[family]
    net.prefix(1, prefix, 2, mac=OTHER_MAC)
    assert arrive(net, from_peer(net, family, source=address, mac=OTHER_MAC), peer=2).action == REDIRECT
    assert arrive(net, from_peer(net, family, source=S[family], mac=OTHER_MAC), peer=2).reason == "tunnel-source"


def test_learning(plane, family):
    """MACs behind peers, where the network learns them; addresses are by documents all the same."""
    overlay(plane, flags=NETWORK_PEER_LEARNING)
    prefix, address = PREFIX[family]
    plane.prefix(1, prefix, 1)
    assert arrive(plane, from_peer(plane, family, source={4: "10.1.8.1", 6: "2001:db8:8::1"}[family], mac=OTHER_MAC)).reason == "tunnel-source"
    back = from_peer(plane, family, source=address, mac=OTHER_MAC)
    assert arrive(plane, back).action == REDIRECT
    (key,) = plane.world.keys("fdb", 12)
    entry = plane.world.lookup("fdb", key, Learnt)
    assert (entry.ifindex, entry.peer) == (0, 1)
    frame = to_peer(plane, family, to={family: address}, mac=OTHER_MAC)
    for _ in range(2):
        sent(plane, plane.run(plane.a, frame), frame)
    # Not what a document gives to somebody.
    for mac in (plane.b.mac, S_MAC, GATEWAY_MAC):
        assert arrive(plane, arp(mac, R[4], A[4])).reason == "tunnel-source"
    # It moves to the other peer, and who sends to it learns that.
    plane.prefix(1, prefix, 2)
    assert arrive(plane, back, peer=2).action == REDIRECT
    assert plane.world.lookup("fdb", key, Learnt).peer == 2 and plane.read_peer(1).moved
    for _ in range(2):
        sent(plane, plane.run(plane.a, frame), frame, peer=2)
    # to a port that learns
    plane.b.record.flags |= 1 << 5
    plane.write(plane.b)
    assert plane.run(plane.b, Ether(src=OTHER_MAC, dst=plane.a.mac, type=0x88B5) / Raw(bytes(46))).action == REDIRECT
    assert (plane.world.lookup("fdb", key, Learnt).ifindex, plane.world.lookup("fdb", key, Learnt).peer) == (plane.b.ifindex, 0)


@pytest.mark.parametrize("vlan", [0, 40])
def test_an_answer_of_somebody_unknown(plane, family, vlan):
    """A SYN that is flooded has a flow. Whose the answer is says where the flow ends, and an answer it is only if the address can be theirs."""
    overlay(plane, flags=NETWORK_PEER_LEARNING)
    prefix, address = PREFIX[family]
    plane.prefix(1, prefix, 1)
    plane.networks[1].vlan = vlan
    plane.world.store("networks", struct.pack("I", 1), plane.networks[1])
    plane.policy(plane.a, INGRESS, leaf(RULE_DENY, DENY))

    def segment(flags, outward, **numbers):
        ports = {"sport": 1000, "dport": 80} if outward else {"sport": 80, "dport": 1000}
        l4 = TCP(flags=flags, **ports, **numbers)
        if outward:
            return to_peer(plane, family, l4, to={family: address}, mac=OTHER_MAC, payload=b"")
        return from_peer(plane, family, l4, source=address, mac=OTHER_MAC, payload=b"")

    def ends():
        return list(plane.world.flow()[1].device)

    answer = segment("SA", False, seq=7, ack=2)
    assert arrive(plane, answer).reason == "tcp-no-flow"
    for key in plane.world.keys("fdb", 12):
        plane.world.lib.bpf_map_delete_elem(plane.world.fd("fdb"), key)
    with Witness(plane.up) as witness:
        for _ in range(2):
            assert plane.run(plane.a, segment("S", True, seq=1)).reason == "none"
            assert ends() == [plane.a.ifindex, DEVICE_PEER]
        assert len(witness.frames(plane.up)) == 4, "to both peers"
    assert arrive(plane, answer, peer=2).reason == "tunnel-source"
    assert arrive(plane, segment("SA", False, seq=7, ack=3)).reason == "tcp-state"
    assert arrive(plane, answer).out == bytes(answer)
    assert ends() == [plane.a.ifindex, DEVICE_PEER | 1]
    sent(plane, plane.run(plane.a, segment("A", True, seq=2, ack=8)), segment("A", True, seq=2, ack=8))
    # Forgotten, it is flooded again, and the flow stays what it is.
    for key in plane.world.keys("fdb", 12):
        plane.world.lib.bpf_map_delete_elem(plane.world.fd("fdb"), key)
    plane.peers[1].moved = (plane.world.now() + 1) & 0xFFFFFFFF
    plane.write_peer(1)
    assert plane.run(plane.a, segment("A", True, seq=2, ack=8)).action == SHOT
    table, flow = plane.world.flow()
    assert (table, list(flow.device)) == ("flows", [plane.a.ifindex, DEVICE_PEER | 1])
    assert arrive(plane, segment("A", False, seq=8, ack=2)).action == REDIRECT


def test_what_is_learnt_stays_while_it_is_heard(plane):
    """A flow that is known keeps its MAC from being forgotten."""
    overlay(plane, flags=NETWORK_PEER_LEARNING)
    prefix, address = PREFIX[4]
    plane.prefix(1, prefix, 1)
    back = from_peer(plane, 4, source=address, mac=OTHER_MAC)
    assert arrive(plane, back).action == REDIRECT
    (key,) = plane.world.keys("fdb", 12)
    entry = plane.world.lookup("fdb", key, Learnt)
    entry.seen = (plane.world.now() - 1000) & 0xFFFFFFFF
    plane.world.store("fdb", key, entry)
    ((table, flow_key, flow),) = plane.world.flows()
    flow.last_seen = (plane.world.now() - 300) & 0xFFFFFFFF
    plane.world.store(table.replace("flows", "flows4"), flow_key, flow)
    assert arrive(plane, back).action == REDIRECT
    assert ((plane.world.now() - plane.world.lookup("fdb", key, Learnt).seen) & 0xFFFFFFFF) < 900


def test_dad_and_mld(net):
    """Who has no address yet, and who listens: the MAC is the peer's."""
    with Witness(net.a, net.b) as witness:
        dad = Ether(src=R_MAC, dst="33:33:ff:00:01:01") / IPv6(src="::", dst="ff02::1:ff00:101", hlim=255) / ICMPv6ND_NS(tgt=R[6])
        assert arrive(net, dad).reason == "none"
        report = Ether(src=R_MAC, dst="33:33:00:00:00:16") / IPv6(src="::", dst="ff02::16", hlim=1, nh=58) / Raw(b"\x8f\0\0\0\0\0\0\0" + bytes(8))
        assert arrive(net, report).reason == "none"
        assert witness.frames(net.a) == witness.frames(net.b) == [bytes(dad), bytes(report)]


def test_resolution_is_answered_here(net):
    question = arp(net.a.mac, A[4], R[4])
    page = net.explain(net.a, question)
    assert page.action == ACT_ARP
    result = net.run(net.a, question)
    answer = Ether(result.out)
    assert (result.action, answer[ARP].op, answer[ARP].hwsrc, answer[ARP].psrc, answer.dst) == (REDIRECT, 2, R_MAC, R[4], net.a.mac)
    solicitation = Ether(src=net.a.mac, dst="33:33:ff:00:01:01") / IPv6(src=A[6], dst="ff02::1:ff00:101", hlim=255) / ICMPv6ND_NS(tgt=R[6]) / ICMPv6NDOptSrcLLAddr(lladdr=net.a.mac)
    answer = Ether(net.run(net.a, solicitation).out)
    assert answer[ICMPv6ND_NA].tgt == R[6] and answer[ICMPv6NDOptDstLLAddr].lladdr == R_MAC


# --- floods ---

def test_head_end(plane, under, protocol):
    """To local members first, then to each peer with its own outer addresses; not back."""
    overlay(plane, under, protocol)
    for frame in (Ether(src=plane.a.mac, dst=BROADCAST, type=0x88B5) / Raw(bytes(46)), arp(plane.a.mac, A[4], "10.1.0.222"),
                  Ether(src=plane.a.mac, dst="01:00:5e:00:00:fb") / IP(src=A[4], dst="224.0.0.251", tos=0x20) / UDP(sport=5353, dport=5353) / Raw(bytes(20)),
                  Ether(src=plane.a.mac, dst=OTHER_MAC, type=0x88B5) / Raw(bytes(46))):
        with Witness(plane.a, plane.b, plane.up) as witness:
            result = plane.run(plane.a, frame)
            assert (result.action, result.reason) == (SHOT, "none")
            out = witness.frames(plane.up)
            sport = sport_of(plane, out[0])
            tos = 0x20 if IP in frame else 0
            assert out == [bytes(wrapped(plane, frame, peer=peer, out=True, sport=sport, tos=tos)) for peer in (1, 2)]
            assert [witness.frames(port) for port in (plane.a, plane.b)] == [[], [bytes(frame)]]


def test_split_horizon(net):
    """What came from a peer is flooded to ports, and to no peer."""
    net.endpoint(1, "10.1.0.222", peer=2, mac=S_MAC)
    for frame in (Ether(src=R_MAC, dst=BROADCAST, type=0x88B5) / Raw(bytes(46)), arp(R_MAC, R[4], "10.1.0.222"), Ether(src=R_MAC, dst=OTHER_MAC, type=0x88B5) / Raw(bytes(46))):
        with Witness(net.a, net.b, net.up) as witness:
            result = arrive(net, frame)
            assert (result.action, result.reason) == (SHOT, "none")
            assert [witness.frames(port) for port in (net.a, net.b, net.up)] == [[bytes(frame)], [bytes(frame)], []]
    assert arrive(net, Ether(src=R_MAC, dst=S_MAC, type=0x88B5) / Raw(bytes(46))).reason == "no-destination"
    assert arrive(net, from_peer(net, 4, to=type("To", (), {"mac": S_MAC}), destination=S[4])).reason == "no-destination"


def test_members_ingress_is_asked_of_what_peers_flood(net):
    net.policy(net.b, INGRESS, leaf(RULE_DENY, DENY))
    frame = Ether(src=R_MAC, dst="01:00:5e:00:00:fb") / IP(src=R[4], dst="224.0.0.251") / UDP(sport=5353, dport=5353) / Raw(bytes(20))
    with Witness(net.a, net.b) as witness:
        assert arrive(net, frame).action == SHOT
        assert [witness.frames(port) for port in (net.a, net.b)] == [[bytes(frame)], []]


# --- tags ---

# mode of the port, tags that it sends, tags in the tunnel
SEGMENTS = [
    ({}, [], []),
    ({}, [(Q, 0, 5)], [(Q, 0, 5)]),
    ({"flags": L2 | ACCESS, "vlan": 10}, [], [(Q, 10, 0)]),
    ({"flags": L2 | ACCESS, "vlan": 10}, [(Q, 0, 3)], [(Q, 10, 3)]),
    ({"flags": L2 | TRUNK, "vlans": [10]}, [(Q, 10, 2)], [(Q, 10, 2)]),
    ({"flags": L2 | TRUNK, "vlan": 10}, [], [(Q, 10, 0)]),
    ({"flags": L2 | TRUNK, "vlans": [10]}, [(Q, 10, 2), (Q, 7, 1)], [(Q, 10, 2), (Q, 7, 1)]),
    ({"flags": L2 | ACCESS | QINQ, "vlan": 10}, [], [(AD, 10, 0)]),
    ({"flags": L2 | ACCESS | QINQ, "vlan": 10}, [(Q, 7, 1)], [(AD, 10, 0), (Q, 7, 1)]),
    ({"flags": L2 | ACCESS | QINQ, "vlan": 10}, [(Q, 7, 1), (Q, 8, 0)], "vlan-depth"),
]


@pytest.mark.parametrize("mode, tags, inside", SEGMENTS)
def test_segments_out(net, mode, tags, inside):
    net.port(0, 1, [A[4]], **mode)
    for frame in (to_peer(net, 4), Ether(src=net.a.mac, dst=R_MAC, type=0x88B5) / Raw(bytes(46)), arp(net.a.mac, A[4], R[4], operation=2, to=R_MAC)):
        for _ in range(2):
            result = net.run(net.a, tagged(frame, *tags))
            if isinstance(inside, str):
                assert result.reason == inside
            else:
                sent(net, result, tagged(frame, *inside))
    with Witness(net.up) as witness:
        frame = Ether(src=net.a.mac, dst=BROADCAST, type=0x88B5) / Raw(bytes(46))
        result = net.run(net.a, tagged(frame, *tags))
        out = witness.frames(net.up)
        if isinstance(inside, str):
            assert (result.reason, out) == (inside, [])
        else:
            assert out == [bytes(wrapped(net, tagged(frame, *inside), peer=peer, out=True, sport=sport_of(net, out[0]))) for peer in (1, 2)]


MORE = "beside the frame"  # where a test run does not show it


@pytest.mark.parametrize("inside, mode, tags", [
    ([(Q, 10, 2)], {"flags": L2 | ACCESS, "vlan": 10}, []),
    ([(Q, 10, 2)], {"flags": L2 | TRUNK, "vlans": [10]}, [MORE]),
    ([(Q, 10, 2)], {"flags": L2 | TRUNK, "vlan": 10}, []),
    ([(Q, 10, 2), (Q, 7, 1)], {"flags": L2 | TRUNK, "vlans": [10]}, [MORE, (Q, 7, 1)]),
    ([(Q, 10, 2), (Q, 7, 1)], {"flags": L2 | ACCESS | QINQ, "vlan": 10}, [MORE]),
    ([(Q, 10, 0)], {"flags": L2 | ACCESS, "vlan": 20}, "no-destination"),
    ([(Q, 10, 0)], {}, "no-destination"),
    ([], {"flags": L2 | ACCESS, "vlan": 10}, "no-destination"),
    ([(Q, 0, 4)], {}, [MORE]),
    ([(Q, 1, 0), (Q, 2, 0), (Q, 3, 0)], {}, "vlan-depth"),
])
def test_segments_in(net, inside, mode, tags):
    net.port(0, 1, [A[4]], **mode)
    for frame in (from_peer(net, 4), Ether(src=R_MAC, dst=net.a.mac, type=0x88B5) / Raw(bytes(46))):
        for _ in range(2):
            result = arrive(net, tagged(frame, *inside))
            if isinstance(tags, str):
                assert (result.action, result.reason) == (SHOT, tags)
            else:
                assert (result.action, result.reason) == (REDIRECT, "none")
                assert result.out == bytes(tagged(frame, *[tag for tag in tags if tag != MORE]))


# --- between networks ---

T = {4: "10.2.0.101", 6: "2001:db8:b::101"}
D = {4: "10.2.0.1", 6: "2001:db8:b::1"}
SUBNET = {1: {4: "10.1.0.0/16", 6: "2001:db8:a::/48"}, 2: {4: "10.2.0.0/16", 6: "2001:db8:b::/48"}}
ZONE, REPLY = 5000, 1


@pytest.fixture
def two(net):
    """Network 1 routes to network 2, which has d here and T behind peer 2."""
    net.network(2)
    net.d = net.port(2, 2, [D[4], D[6]])
    net.vni(2, OTHER_VNI, 2)
    for family in (4, 6):
        net.endpoint(2, T[family], peer=2, mac=S_MAC)
        net.route(1, SUBNET[2][family], 2, ZONE)
        net.route(2, SUBNET[1][family], 1, ZONE)
        address, length = SUBNET[1][family].split("/")
        bits = 16 + int(length) + (0 if family == 6 else 96)
        net.world.store("routes", struct.pack("=IH", bits, 2 << 8) + mapped(address) + bytes(2), struct.pack("HHI", 1, ZONE, REPLY))
    return net


def test_routed_to_another_network(two, family):
    """The VNI is that of where it goes; the answer comes with that of here, and rides on the flow."""
    frame = Ether(src=two.a.mac, dst=GATEWAY_MAC) / ip(family, A[family], T[family]) / UDP(sport=1000, dport=2000) / Raw(b"x" * 20)
    page = two.explain(two.a, frame)
    assert (page.action, page.to, page.vni, page.network, page.routed) == (ACT_PEER, DEVICE_PEER | 2, OTHER_VNI, ZONE, 1)
    answer = Ether(src=GATEWAY_MAC, dst=two.a.mac) / ip(family, T[family], A[family]) / UDP(sport=2000, dport=1000) / Raw(b"x" * 20)
    assert arrive(two, answer, peer=2).reason == "no-destination", "nobody asked"
    for _ in range(2):
        result = two.run(two.a, frame)
        assert result.action == REDIRECT and struct.unpack_from("!I", result.out, OUTER[4] + 12)[0] >> 8 == OTHER_VNI
    for _ in range(2):
        assert arrive(two, answer, peer=2).out == bytes(answer)
    _, flow = two.world.flow()
    assert list(flow.packets) == [2, 2]
    # In the network that the way leads to, and from who owns it there.
    assert arrive(two, answer, peer=2, vni=OTHER_VNI).action == SHOT, "nobody has the MAC there"
    assert arrive(two, answer, peer=1).reason == "tunnel-source"
    answer.src = S_MAC
    assert arrive(two, answer, peer=2).reason == "tunnel-source"


def test_routed_from_another_network(two, family):
    """R, of network 1, opens to d, of network 2: routed where R is, judged here as going from 1 to 2."""
    frame = Ether(src=GATEWAY_MAC, dst=two.d.mac) / ip(family, R[family], D[family]) / UDP(sport=1000, dport=2000) / Raw(b"x" * 20)
    for _ in range(2):
        assert arrive(two, frame, vni=OTHER_VNI).out == bytes(frame)
    answer = Ether(src=two.d.mac, dst=GATEWAY_MAC) / ip(family, D[family], R[family]) / UDP(sport=2000, dport=1000) / Raw(b"x" * 20)
    for _ in range(2):
        result = two.run(two.d, answer)
        inner = Ether(result.out[OUTER[4] + 16:])
        assert (result.action, inner.src, inner.dst, struct.unpack_from("!I", result.out, OUTER[4] + 12)[0] >> 8) == (REDIRECT, GATEWAY_MAC, R_MAC, VNI)
    _, flow = two.world.flow()
    assert list(flow.packets) == [2, 2]
    assert arrive(two, frame, peer=2, vni=OTHER_VNI).reason == "tunnel-source"
    # The other way round nobody may open.
    assert two.run(two.d, Ether(src=two.d.mac, dst=GATEWAY_MAC) / ip(family, D[family], S[family]) / UDP(sport=1, dport=2)).reason == "no-destination"


# --- a network that is a VLAN here, and a VNI towards others ---

STATION, STATION_MAC = {4: "10.1.0.77", 6: "2001:db8:a::77"}, "02:00:00:00:07:01"


def test_from_the_wire_to_peers_and_back(net, family):
    """No policy is asked, no flow made: both have a host that does."""
    net.wire(1, 100, net.up)
    net.tunnel(OWN[4], net.up)
    frame = Ether(src=STATION_MAC, dst=R_MAC) / ip(family, STATION[family], R[family]) / UDP(sport=1, dport=2) / Raw(bytes(20))
    result = net.run(net.up, tagged(frame, (Q, 100, 3)), hook=TC_IN)
    sent(net, result, frame)
    back = Ether(src=R_MAC, dst=STATION_MAC) / ip(family, R[family], STATION[family]) / UDP(sport=2, dport=1) / Raw(bytes(20))
    result = arrive(net, back)
    assert (result.action, result.reason, result.out, result.mark) == (REDIRECT, "none", bytes(back), MARK)  # the tag is beside it
    assert net.world.flows() == []
    prefix, address = PREFIX[family]
    net.prefix(1, prefix, 2)
    for source in (R[family], address):
        frame[1].src = source
        assert net.run(net.up, tagged(frame, (Q, 100, 0)), hook=TC_IN).reason == f"source-ip{family}"


def test_floods_between_the_wire_and_peers(net):
    net.wire(1, 100, net.up)
    net.tunnel(OWN[4], net.up)
    frame = Ether(src=STATION_MAC, dst=BROADCAST, type=0x88B5) / Raw(bytes(46))
    with Witness(net.a, net.up) as witness:
        assert net.run(net.up, tagged(frame, (Q, 100, 0)), hook=TC_IN).action == SHOT
        out = witness.frames(net.up)
        assert out == [bytes(wrapped(net, frame, peer=peer, out=True, sport=sport_of(net, out[0]))) for peer in (1, 2)]
        assert witness.frames(net.a) == [bytes(frame)]
    frame.src = R_MAC
    with Witness(net.a, net.up) as witness:
        assert arrive(net, frame).action == SHOT
        assert [witness.frames(port) for port in (net.a, net.up)] == [[bytes(frame)], [bytes(tagged(frame, (Q, 100, 0)))]]
