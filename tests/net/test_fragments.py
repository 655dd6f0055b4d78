# SPDX-License-Identifier: Apache-2.0
"""Fragments follow their first one; what cannot be known is dropped; payload bytes are never taken for a header."""

import random
import socket
import struct

import pytest
from lib import raw, traffic
from lib.documents import DENY_IN, policy, rule
from lib.heddled import wait_for


@pytest.fixture
def up(guarded):
    guarded.policy(policy(ingress=[rule("allow", "UDP", 7600), rule("deny", "UDP", 7601)], default=DENY_IN))
    return guarded


def udp_bytes(up, family, dport, payload, sport=4600):
    """A UDP datagram (header and payload) with its checksum."""
    ip = raw.IP(src=up.client4, dst=up.server4) if family == 4 else raw.IPv6(src=up.client6, dst=up.server6)
    whole = bytes(ip / raw.UDP(sport=sport, dport=dport) / payload)
    return whole[20 if family == 4 else 40 :]


def fragments(up, family, data, size, proto=17, ident=None):
    """Frames for data in pieces of size bytes (a multiple of 8)."""
    ident = ident if ident is not None else random.getrandbits(16 if family == 4 else 32)
    pieces = []
    for offset in range(0, len(data), size):
        part, more = data[offset : offset + size], offset + size < len(data)
        if family == 4:
            ip = raw.IP(src=up.client4, dst=up.server4, id=ident, flags="MF" if more else 0, frag=offset // 8, proto=proto) / part
        else:
            header = struct.pack("!BBHI", proto, 0, offset | (1 if more else 0), ident)
            ip = raw.IPv6(src=up.client6, dst=up.server6, nh=44, plen=8 + len(part)) / raw.Raw(header + part)
        pieces.append(bytes(raw.Ether(src=up.client_mac, dst=up.server_mac) / ip))
    return pieces


def listen(up, family, port):
    s = up.server.socket(traffic.family_of(up.server_address(family)), socket.SOCK_DGRAM)
    s.bind((up.server_address(family), port))
    s.settimeout(2)
    return s


@pytest.mark.parametrize("size", [1473, 4000, 20000, 60000])
def test_large_udp_both_ways(up, family, size):
    payload = random.randbytes(size)
    with traffic.Servers(up.server, udp=[7600, 7601]), traffic.Servers(up.client, udp=[7602]):
        assert traffic.udp_probe(up.client, up.server_address(family), 7600, payload=payload) == "reply"
        assert traffic.udp_probe(up.client, up.server_address(family), 7601, payload=payload, timeout=traffic.QUICK) == "timeout"
        assert traffic.udp_probe(up.server, up.client_address(family), 7602, payload=payload) == "reply"


def test_large_ping_both_ways(up, family):
    up.policy(policy(ingress=[rule("allow", icmp=[{"type": 8}, {"type": 128, "family": "IPv6"}])], default=DENY_IN))
    for ns, target in ((up.client, up.server_address(family)), (up.server, up.client_address(family))):
        with traffic.Pinger(ns, target) as pinger:
            pinger.send(b"p" * 30000)
            assert pinger.collect(3) == 1


def test_first_then_later(up, family):
    data = udp_bytes(up, family, 7600, b"one two " * 40)
    with listen(up, family, 7600) as s, raw.Wire(up.client, "wire0") as wire:
        for frame in fragments(up, family, data, 120):
            wire.send(frame)
        assert s.recv(1000) == b"one two " * 40


def test_the_middle_may_come_in_any_order_behind_the_first(up, family):
    data = udp_bytes(up, family, 7600, b"any order " * 40)
    first, *rest = fragments(up, family, data, 80)
    random.shuffle(rest)
    with listen(up, family, 7600) as s, raw.Wire(up.client, "wire0") as wire:
        for frame in [first, *rest]:
            wire.send(frame)
        assert s.recv(1000) == b"any order " * 40


def test_later_fragments_of_an_unknown_datagram_are_dropped(up, family):
    data = udp_bytes(up, family, 7600, b"late first " * 40)
    first, *rest = fragments(up, family, data, 80)
    before = up.daemon.drops().get(("frag-unknown", "ingress"), 0)
    with listen(up, family, 7600) as s, raw.Wire(up.client, "wire0") as wire:
        for frame in rest:
            wire.send(frame)
        wait_for(lambda: up.daemon.drops().get(("frag-unknown", "ingress"), 0) == before + len(rest), what="frag-unknown")
        wire.send(first)
        s.settimeout(traffic.QUICK)
        with pytest.raises(TimeoutError):
            s.recv(1000)


def test_later_fragments_of_a_denied_first_are_dropped(up, family):
    """Their payload looks like the UDP header of an allowed datagram: it must not be read as one."""
    lure = udp_bytes(up, family, 7600, b"lure")
    data = udp_bytes(up, family, 7601, b"\0" * 72 + (lure + b"\0" * 64)[:80])
    frames = fragments(up, family, data, 80)
    assert len(frames) >= 2
    passed_through = []
    with raw.LocalWitness(up.server, [17], [17]) as witness, raw.Wire(up.client, "wire0") as wire:
        before = sum(up.daemon.drops().values())
        for frame in frames:
            wire.send(frame)
        wait_for(lambda: sum(up.daemon.drops().values()) >= before + len(frames), what="all fragments dropped")
        passed_through = [d for d in witness.received(0.05) if b"lure" in d]
    assert not passed_through


def test_a_first_fragment_too_small_for_its_header_is_dropped(up, family):
    data = bytes(raw.TCP(sport=4600, dport=7600, flags="S", chksum=0)) + b"x" * 24
    before = up.daemon.drops().get(("frag-tiny", "ingress"), 0)
    with raw.Wire(up.client, "wire0") as wire:
        wire.send(fragments(up, family, data, 8, proto=6)[0])
        wait_for(lambda: up.daemon.drops().get(("frag-tiny", "ingress"), 0) == before + 1, what="frag-tiny")


def test_a_later_fragment_that_would_overlay_the_header_is_dropped(up, family):
    """RFC 1858 overlapping fragment: offset 8 rewrites the flags of the TCP header of the first."""
    header = bytes(raw.TCP(sport=4600, dport=7600, flags="S"))
    up.policy(policy(ingress=[rule("allow", "TCP", 7600)], default=DENY_IN))
    ident = 0x7777
    before = up.daemon.drops().get(("frag-tiny", "ingress"), 0)
    with raw.Wire(up.client, "wire0") as wire:
        first = fragments(up, family, header + b"y" * 28, 40, proto=6, ident=ident)[0]
        overlay = fragments(up, family, b"z" * 40, 8, proto=6, ident=ident)[1]
        wire.send(first)
        wire.send(overlay)
        wait_for(lambda: up.daemon.drops().get(("frag-tiny", "ingress"), 0) == before + 1, what="overlay dropped")


def test_ipv6_atomic_fragment_is_a_whole_packet(up):
    payload = udp_bytes(up, 6, 7600, b"atomic")
    header = struct.pack("!BBHI", 17, 0, 0, 0x1234)
    frame = raw.Ether(src=up.client_mac, dst=up.server_mac) / raw.IPv6(src=up.client6, dst=up.server6, nh=44) / raw.Raw(header + payload)
    with listen(up, 6, 7600) as s, raw.Wire(up.client, "wire0") as wire:
        wire.send(frame)
        assert s.recv(100) == b"atomic"
