# SPDX-License-Identifier: Apache-2.0
"""Outer packets on an uplink: which are of the tunnel, and what else is said of it."""
import struct

import pytest
from overlay import (AD, FAR, HOP, NOBODY, OTHER_VNI, OUTER, OWN, Q, R, R_MAC, VNI, arp, arrive, from_peer, geneve, header, large, overlay, sent, tagged,
                     to_peer, wrapped)
from packets import ICMP, IP, TCP, UDP, Ether, ICMPv6DestUnreach, ICMPv6PacketTooBig, IPv6, IPv6ExtHdrFragment, Raw
from port_test import A, ip
from ports import GENEVE, MARK, NETWORK_USED, NEXT, REDIRECT, SHOT, TUNNEL_PORT, mapped
from world import META_MAGIC, META_TUNNEL, PORT_DECAP, PORT_TUNNEL, PORT_UPLINK, PORT_XDP, TC_IN, TC_OUT, TUNNEL_IN, U32, XDP, number


# --- the uplink ---

def router_error(plane, mtu, destination=None, sport=50000, dport=None, source=None, kind=None):
    """About a tunnel packet of ours."""
    own, far = OWN[plane.under], destination or FAR[plane.under]
    inner = UDP(sport=sport, dport=dport or TUNNEL_PORT[plane.protocol], chksum=0) / Raw(header(plane) + bytes(30))
    eth = Ether(src=HOP, dst=plane.up.mac)
    if plane.under == 4:
        quoted = bytes(IP(src=source or own, dst=far, flags="DF") / inner)[:60]
        return eth / IP(src="203.0.113.9", dst=own) / ICMP(type=3, code=4 if kind is None else kind, nexthopmtu=mtu) / Raw(quoted)
    quoted = bytes(IPv6(src=source or own, dst=far) / inner)[:100]
    return eth / IPv6(src="2001:db8:9::9", dst=own) / (ICMPv6PacketTooBig(mtu=mtu) if kind is None else ICMPv6DestUnreach(code=kind)) / Raw(quoted)


@pytest.fixture(params=[TC_IN, XDP], ids=["tc", "xdp"])
def uplink_hook(request, plane):
    plane.world.port(plane.ports[4].ifindex, PORT_UPLINK | PORT_TUNNEL | (PORT_XDP if request.param == XDP else 0))
    return request.param


def passes(hook):
    return 2 if hook == XDP else NEXT


def test_path_mtu(plane, under, uplink_hook):
    overlay(plane, under, mtu=1500)
    before = plane.count("tunnel")

    def told(mtu, **fields):
        result = plane.run(plane.up, router_error(plane, mtu, **fields), hook=uplink_hook)
        assert (result.action, result.reason) == (passes(uplink_hook), "none")
        return plane.read_peer(1).path_mtu

    assert told(1400) == 1400
    assert told(1450) == 1400, "never more"
    assert told(1300) == 1300
    assert told(100) == 1280, "not so low"
    assert plane.count("tunnel") == before + 4
    fits = 1280 - (50 if under == 4 else 70)
    plane.peers[1] = plane.read_peer(1)
    assert plane.run(plane.a, large(plane, 4, fits + 1)).reason == "too-big"
    assert plane.world.events()[-1].mtu == fits
    # for ten minutes
    plane.peers[1].path_mtu_seen = (plane.world.now() - 21 * plane.world.control.reserved[0]) & 0xFFFFFFFF
    plane.write_peer(1)
    assert plane.run(plane.a, large(plane, 4, fits + 1)).action == REDIRECT
    assert told(1450) == 1450


def test_errors_that_are_not_about_ours(plane, under, uplink_hook):
    overlay(plane, under, mtu=1500)
    for error in (router_error(plane, 1300, destination=NOBODY[under]), router_error(plane, 1300, dport=53)):
        assert plane.run(plane.up, error, hook=uplink_hook).reason == "policy-deny"
    assert plane.run(plane.up, router_error(plane, 1300, source=FAR[under]), hook=uplink_hook).reason in ("icmp-embedded", "policy-deny")
    assert plane.read_peer(1).path_mtu == 0
    assert plane.run(plane.up, router_error(plane, 0, kind=1), hook=uplink_hook).action == passes(uplink_hook), "unreachable"
    assert plane.read_peer(1).path_mtu == 0


def outer_fragments(plane, peer=1):
    packet = wrapped(plane, from_peer(plane, 4, payload=bytes(600)), peer=peer)
    raw = bytes(packet)[OUTER[plane.under]:]
    source = packet[IP].src if plane.under == 4 else packet[IPv6].src
    eth = Ether(src=HOP, dst=plane.up.mac)
    for at, more in ((0, 1), (400, 0)):
        piece = raw[at:at + 400]
        if plane.under == 4:
            yield eth / IP(src=source, dst=OWN[4], id=9, proto=17, frag=at // 8, flags="MF" if more else 0) / Raw(piece)
        else:
            yield eth / IPv6(src=source, dst=OWN[6]) / IPv6ExtHdrFragment(nh=17, offset=at // 8, m=more, id=9) / Raw(piece)


def test_outer_fragments(plane, under, uplink_hook):
    """Are put together by the host's stack, for the agent; only of those who are known."""
    overlay(plane, under)
    first, later = outer_fragments(plane)
    assert plane.run(plane.up, later, hook=uplink_hook).reason == "frag-unknown"
    before = plane.count("tunnel")
    for piece in (first, later):
        assert plane.run(plane.up, piece, hook=uplink_hook).action == passes(uplink_hook)
    assert plane.count("tunnel") == before + 1
    plane.world.clear()
    for piece, reason in zip(outer_fragments(plane, None), ("tunnel-peer", "tunnel-peer")):
        assert plane.run(plane.up, piece, hook=uplink_hook).reason == reason


def test_what_the_host_itself_sends_to_a_peer(plane, under):
    """The agent's socket does; anything else is HostPolicy's."""
    overlay(plane, under)
    packet = wrapped(plane, to_peer(plane, 4), out=True)
    before = plane.count("tunnel")
    assert plane.run(plane.up, packet, hook=TC_OUT).action == NEXT
    assert plane.count("tunnel") == before + 1
    for wrong in (wrapped(plane, to_peer(plane, 4), peer=None, out=True),
                  Ether(src=plane.up.mac, dst=HOP) / ip(under, OWN[under], FAR[under]) / UDP(sport=1, dport=53) / Raw(bytes(20)),
                  Ether(src=plane.up.mac, dst=HOP) / ip(under, NOBODY[under], FAR[under]) / UDP(sport=1, dport=4789) / Raw(bytes(20))):
        assert plane.run(plane.up, wrong, hook=TC_OUT).reason == "policy-deny"


def test_the_mark(net):
    """Only what came in somewhere is believed to carry ours: a process of the host can set any."""
    packet = wrapped(net, to_peer(net, 4), peer=None, out=True)
    result = net.run(net.up, packet, hook=TC_OUT, mark=MARK, ingress_ifindex=net.a.ifindex)
    assert (result.action, result.mark) == (NEXT, 0)
    assert net.run(net.up, packet, hook=TC_OUT, mark=MARK).reason == "policy-deny"
    assert net.run(net.up, packet, hook=TC_OUT, ingress_ifindex=net.a.ifindex).action in (NEXT, SHOT)
    # What a port says is no mark.
    assert net.run(net.a, to_peer(net, 4, to={4: "10.1.0.250"}), mark=MARK).reason == "no-destination"


def test_only_where_the_tunnel_ends(net):
    """Another address, port or protocol, an uplink without tunnels, a tag: the host's policy is asked."""
    frame = from_peer(net, 4)
    eth = Ether(src=HOP, dst=net.up.mac)
    body = Raw(header(net) + bytes(frame))
    for packet in (eth / IP(src=FAR[4], dst="192.0.2.9") / UDP(sport=1, dport=4789) / body, eth / IP(src=FAR[4], dst=OWN[4]) / UDP(sport=1, dport=4790) / body,
                   eth / IP(src=FAR[4], dst=OWN[4]) / UDP(sport=4789, dport=1) / body, eth / IP(src=FAR[4], dst=OWN[4]) / TCP(sport=1, dport=4789),
                   tagged(wrapped(net, frame), (Q, 5, 0))):
        assert net.run(net.up, packet, hook=TC_IN).reason == "policy-deny"
    net.world.port(net.up.ifindex, PORT_UPLINK)
    assert arrive(net, frame).reason == "policy-deny"


def test_without_its_program_the_host_judges(net):
    net.world.lib.bpf_map_delete_elem(net.world.fd("wire_programs"), struct.pack("I", 1))
    try:
        assert arrive(net, from_peer(net, 4)).reason == "policy-deny"
    finally:
        net.world.store("wire_programs", struct.pack("I", 1), U32(net.world.program(TUNNEL_IN)))
    assert arrive(net, from_peer(net, 4)).action == REDIRECT


def test_xdp_leaves_it_to_tc(net, family):
    """Without metadata that would say it was judged."""
    net.world.port(net.up.ifindex, PORT_UPLINK | PORT_TUNNEL | PORT_XDP)
    packet = wrapped(net, from_peer(net, family))
    forged = struct.pack("4I", META_MAGIC, net.generation, 0, 0)
    run = net.world.raw(XDP, forged + bytes(packet), meta_length=16, ifindex=net.up.ifindex)
    assert run.verdict == 2 and struct.pack("I", META_MAGIC) not in bytes(run.out[:run.meta_left])
    assert net.world.flows() == []
    assert arrive(net, from_peer(net, family)).action == REDIRECT


def test_networks_with_the_same_addresses(net, family):
    """The VNI alone says which one it is."""
    net.network(2)
    other = net.port(2, 2, [A[family]])
    net.vni(2, OTHER_VNI, 2)
    net.endpoint(2, R[family], peer=2, mac=R_MAC)
    net.endpoint(2, R_MAC, peer=2, mac=R_MAC)
    frame = Ether(src=other.mac, dst=R_MAC) / ip(family, A[family], R[family]) / UDP(sport=1000, dport=2000) / Raw(b"x" * 20)
    for _ in range(2):
        sent(net, net.run(other, frame), frame, peer=2, vni=OTHER_VNI)
        sent(net, net.run(net.a, to_peer(net, family)), to_peer(net, family))
    assert arrive(net, from_peer(net, family), vni=OTHER_VNI).reason == "tunnel-source"
    assert arrive(net, from_peer(net, family, to=other), vni=OTHER_VNI, peer=2).action == REDIRECT


# --- XDP takes frames out ---

TAKES = PORT_UPLINK | PORT_TUNNEL | PORT_XDP | PORT_DECAP


def taken(plane, packet):
    """(verdict, reason, network and peer that TC is told, inner frame)"""
    before = plane.world.drops()
    run = plane.world.raw(XDP, packet, ifindex=plane.up.ifindex)
    changed = [reason for (reason, direction), n in plane.world.drops().items() if n != before.get((reason, direction), 0)]
    meta = struct.unpack("4I", bytes(run.out[:16])) if run.meta_left == 16 else (0,) * 4
    return run.verdict, changed[0] if changed else "none", meta[2:] if meta[0] == META_TUNNEL else None, bytes(run.out[run.meta_left:run.out_length])


@pytest.fixture
def native(plane, under, protocol):
    overlay(plane, under, protocol)
    plane.world.port(plane.up.ifindex, TAKES)
    return plane


def test_taken_out(native, family):
    """Tags and all, nothing judged yet: that is tc_tunnel_in's."""
    for frame in (from_peer(native, family), tagged(from_peer(native, family), (Q, 10, 3)), tagged(from_peer(native, family), (AD, 10, 3), (Q, 7, 0)),
                  arp(R_MAC, R[4], A[4]), Ether(src=R_MAC, dst=native.a.mac, type=0x88B5) / Raw(b"ab")):
        assert taken(native, wrapped(native, frame)) == (2, "none", (1, 1), bytes(frame))
    assert native.world.flows() == []
    if native.protocol == GENEVE:
        frame = from_peer(native, family)
        assert taken(native, wrapped(native, frame, head=geneve((0x102, 1, bytes(120)))))[2:] == ((1, 1), bytes(frame))


def test_taken_out_of_several_buffers(native, family):
    """A jumbo frame's headers are in the first one."""
    for size in (3000, 5000, 8000):
        frame = from_peer(native, family, payload=bytes(range(256)) * (size // 256))
        assert taken(native, wrapped(native, frame)) == (2, "none", (1, 1), bytes(frame))


def test_odd_forms(native, family):
    """What is not of the plainest form goes the full way, to the same end."""
    frame = from_peer(native, family)
    plain = bytes(wrapped(native, frame))
    assert taken(native, plain + b"tail")[:3] == (2, "none", (1, 1)), "padding behind the packet"
    udp = 14 + (20 if plain[12:14] == b"\x08\0" else 40)
    for length, reason in ((7, "udp-length"), (len(plain) - udp + 1, "udp-length")):
        broken = plain[:udp + 4] + struct.pack("!H", length) + plain[udp + 6:]
        assert taken(native, broken)[:2] == (1, reason)
    other = plain[:udp + 2] + b"\0\7" + plain[udp + 4:]
    assert taken(native, other)[2:] == (None, other), "another port is not the tunnel's"


def test_metadata_of_somebody_else(native):
    frame = from_peer(native, 4)
    forged = struct.pack("4I", META_TUNNEL, 0, 7, 7)
    run = native.world.raw(XDP, forged + bytes(wrapped(native, frame)), meta_length=16, ifindex=native.up.ifindex)
    assert struct.unpack("4I", bytes(run.out[:16])) == (META_TUNNEL, native.generation, 1, 1) and run.meta_left == 16
    # and on what is not in a tunnel
    native.world.rules()
    native.world.port(native.up.ifindex, TAKES)
    for other in (Ether(src=HOP, dst=native.up.mac) / IP(src=FAR[4], dst="192.0.2.9") / UDP(sport=1, dport=2), tagged(frame, (Q, 5, 0))):
        run = native.world.raw(XDP, forged + bytes(other), meta_length=16, ifindex=native.up.ifindex)
        assert run.verdict == 2 and struct.pack("I", META_TUNNEL) not in bytes(run.out[:run.meta_left])


def test_reasons_in_xdp(native, family):
    frame = from_peer(native, family)
    for packet, reason in ((wrapped(native, frame, peer=None), "tunnel-peer"), (wrapped(native, frame, vni=OTHER_VNI), "tunnel-vni"),
                           (wrapped(native, frame, tos=3), "tunnel-ecn"), (wrapped(native, bytes(frame)[:10]), "tunnel-malformed"),
                           (wrapped(native, tagged(frame, (Q, 1, 0), (Q, 2, 0), (Q, 3, 0))), "vlan-depth")):
        assert taken(native, packet)[:2] == (1, reason)
    if native.protocol == GENEVE:
        assert taken(native, wrapped(native, frame, head=geneve((0x102, 0x80, b""))))[:2] == (1, "tunnel-option")
        control = wrapped(native, frame, head=geneve(flags=0x80))
        verdict, _, meta, out = taken(native, control)
        assert (verdict, meta, out) == (2, None, bytes(control)), "the host's"


HINTS = number("overlay.h", "HD_TUNNEL_HINTS")


def hint(plane, peer, network):
    """Whatever address and VNI a frame has, that is what is remembered of them."""
    for at in range(HINTS):
        plane.world.store("tunnel_hints", struct.pack("I", at), struct.pack("II", peer, network))


def hints(plane):
    """Those that say something."""
    every = (bytes(plane.world.lookup("tunnel_hints", struct.pack("I", at), U32 * 2)) for at in range(HINTS))
    return [struct.unpack("II", one) for one in every if any(one)]


@pytest.mark.parametrize("peer, network", [(0, 0), (1, 0), (0, 1), (2, 1), (1, 2), (0xffffffff, 0xffffffff)])
def test_wrong_hints(native, peer, network):
    """They save lookups, and nothing else."""
    native.network(2)
    native.vni(2, OTHER_VNI, 2)
    frame = from_peer(native, 4)
    hint(native, peer, network)
    assert taken(native, wrapped(native, frame)) == (2, "none", (1, 1), bytes(frame))
    hint(native, peer, network)
    assert arrive(native, frame).action == REDIRECT
    assert (1, 1) in hints(native), "it is found without a lookup the next time"
    hint(native, peer, network)
    for packet, reason in ((wrapped(native, frame, peer=None), "tunnel-peer"), (wrapped(native, frame, vni=OTHER_VNI + 1), "tunnel-vni")):
        assert taken(native, packet)[:2] == (1, reason)
        assert native.run(native.up, packet, hook=TC_IN).reason == reason


def test_what_a_hint_remembers_has_gone(native):
    """The records have the last word: of the peer, of its address, of the network and its VNI."""
    frame = wrapped(native, from_peer(native, 4))
    hint(native, 0, 0)

    def outcome():
        return taken(native, frame)[1], native.run(native.up, frame, hook=TC_IN).reason

    assert outcome() == ("none", "none") and hints(native) == [(1, 1)]
    peer, network = native.peers[1], native.networks[1]
    peer.flags = 0
    native.write_peer(1)
    assert outcome() == ("tunnel-peer",) * 2
    peer.flags = 1
    peer.address[:] = mapped(NOBODY[native.under])
    native.write_peer(1)
    native.world.lib.bpf_map_delete_elem(native.world.fd("peer_addresses"), mapped(FAR[native.under]))
    assert outcome() == ("tunnel-peer",) * 2
    native.peer(1, FAR[native.under])
    for flags, vni in ((0, VNI), (NETWORK_USED, OTHER_VNI), (NETWORK_USED, 0)):
        network.flags, network.vni = flags, vni
        native.world.store("networks", struct.pack("I", 1), network)
        assert outcome() == ("tunnel-vni",) * 2, (flags, vni)


@pytest.mark.parametrize("tags", [[], [(Q, 10, 0)], [(AD, 10, 0), (Q, 7, 0)]], ids=["untagged", "one tag", "two tags"])
@pytest.mark.parametrize("inner, outer, marked", [(2, 3, 3), (1, 3, 3), (2, 1, 1), (1, 2, 1), (3, 1, 3), (2, 0, 2)])
def test_ecn_in_xdp(net, family, tags, inner, outer, marked):
    net.world.port(net.up.ifindex, TAKES)
    field = "tos" if family == 4 else "tc"
    frame, expected = (tagged(from_peer(net, family, **{field: 0xB8 | ecn}), *tags) for ecn in (inner, marked))
    assert taken(net, wrapped(net, frame, tos=outer)) == (2, "none", (1, 1), bytes(expected))


def test_where_it_is_not_to_take_out(net, family):
    """Only where TC believes its metadata, and is told to."""
    packet = wrapped(net, from_peer(net, family))
    for flags in (TAKES & ~PORT_DECAP, TAKES & ~PORT_XDP):
        net.world.port(net.up.ifindex, flags)
        verdict, reason, meta, out = taken(net, packet)
        assert (verdict, reason, meta, out) == (2, "none", None, bytes(packet))
