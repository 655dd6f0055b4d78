# SPDX-License-Identifier: Apache-2.0
"""How much a port may send and be sent: what a packet costs, what is too early, and when the rest shall leave."""
import ctypes
import struct
import time

import pytest
from overlay import from_peer, overlay, to_peer, wrapped
from packets import ARP, IP, TCP, UDP, Ether, ICMPv6ND_NS, IPv6, Raw
from port_test import A, B, GATEWAY, WIDE, between, ip
from ports import GATEWAY_MAC, HOST, IS_GATEWAY, L2, NEXT, REDIRECT, SHOT, Witness
from reasons_test import REASONS
from world import EGRESS, INGRESS, PORT_IN, PORT_OUT, TC_IN, U32, U64

LIMIT_IN, LIMIT_OUT = 1 << 13, 1 << 14
CONTROL_FQ = 4
RATE = 8000  # kbit/s: a byte lasts 1000 ns
BURST = 20000000  # µs: a slow machine must not make up for what a test says was used
MS = 1000000


class State(ctypes.Structure):
    _fields_ = [("next", U64 * 2), ("packets", U64 * 2), ("bytes", U64 * 2), ("rate", U32 * 2)]


@pytest.fixture
def two(plane):
    """a and b of network 1, which reaches the host."""
    for key in plane.world.keys("port_limits", 4):
        plane.world.lib.bpf_map_delete_elem(plane.world.fd("port_limits"), key)
    plane.network(1)
    plane.a = plane.port(0, 1, [A[4], A[6]], flags=L2 | HOST)
    plane.b = plane.port(1, 1, [B[4], B[6]], flags=L2 | HOST)
    plane.endpoint(1, GATEWAY[4], flags=IS_GATEWAY, mac=GATEWAY_MAC)
    plane.endpoint(1, GATEWAY[6], flags=IS_GATEWAY, mac=GATEWAY_MAC)
    return plane


def limit(plane, port, direction, rate=RATE, burst=BURST):
    port.record.limit[direction][:] = [rate, burst]
    port.record.flags |= LIMIT_IN if direction == INGRESS else LIMIT_OUT
    plane.write(port)


def state(plane, port):
    return plane.world.lookup("port_limits", struct.pack("I", port.ifindex), State)


def ahead(plane, port, direction, ms, rate=RATE):
    """What went already is that much more than the rate; returns the clock."""
    entry = state(plane, port) or State()
    entry.next[direction] = time.monotonic_ns() + int(ms * MS)
    entry.rate[direction] = rate
    plane.world.store("port_limits", struct.pack("I", port.ifindex), entry)
    return entry.next[direction]


def frame(plane, family, size=200, l4=None, **fields):
    return between(plane.a, plane.b, ip(family, A[family], B[family], **fields) / (l4 or UDP(sport=1, dport=2)) / Raw(bytes(size)))


def length(packet):
    return len(packet) - 14


# A packet each way that a direction of b's or a's limit is asked: (who is limited, direction, where it runs, the packet).
WAYS = {
    "from": lambda t, family: (t.a, EGRESS, t.a, PORT_IN, frame(t, family)),
    "to": lambda t, family: (t.b, INGRESS, t.a, PORT_IN, frame(t, family)),
    "from-to-host": lambda t, family: (t.a, EGRESS, t.a, PORT_IN, Ether(src=t.a.mac, dst=GATEWAY_MAC) / ip(family, A[family], WIDE[family]) / UDP() / Raw(bytes(199))),
    "host-to": lambda t, family: (t.b, INGRESS, t.b, PORT_OUT, Ether(src=GATEWAY_MAC, dst=t.b.mac) / ip(family, WIDE[family], B[family]) / UDP() / Raw(bytes(199))),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_a_packet_costs(two, family, way):
    port, direction, at, hook, packet = WAYS[way](two, family)
    limit(two, port, direction)
    before = time.monotonic_ns()
    assert two.run(at, packet, hook).reason == "none"
    # one that waited for long has all of its burst, and no more
    cost = length(packet) * 1000
    first = state(two, port)
    assert before + cost <= first.next[direction] <= time.monotonic_ns() + cost
    assert first.next[not direction] == 0 and first.packets[direction] == 0
    for ms in (5000, 15000):
        clock = ahead(two, port, direction, ms)
        assert two.run(at, packet, hook).reason == "none"
        assert state(two, port).next[direction] == clock + cost
    # the other direction has no rate
    assert state(two, port).next[not direction] == 0


@pytest.mark.parametrize("way", WAYS)
def test_too_early(two, family, way):
    port, direction, at, hook, packet = WAYS[way](two, family)
    limit(two, port, direction)
    clock = ahead(two, port, direction, BURST / 1000 + 60000)
    for n in (1, 2):
        page = two.explain(at, packet, hook)
        assert (page.why, state(two, port).packets[direction]) == ("bandwidth", n - 1)
        result = two.run(at, packet, hook)
        assert (result.action, result.reason) == (SHOT, "bandwidth")
        entry = state(two, port)
        assert (entry.next[direction], entry.packets[direction], entry.bytes[direction]) == (clock, n, n * length(packet))
    events = [e for e in two.world.events() if e.name == "drop"]
    assert len(events) == 2 and {REASONS[e.reason] for e in events} == {"bandwidth"}


def test_no_limit_no_entry(two, family):
    assert two.run(two.a, frame(two, family)).reason == "none"
    limit(two, two.b, EGRESS)
    limit(two, two.a, INGRESS)
    assert two.run(two.a, frame(two, family)).reason == "none"
    assert two.world.keys("port_limits", 4) == []


def test_explain_makes_no_entry(two, family):
    limit(two, two.a, EGRESS)
    assert two.explain(two.a, frame(two, family)).why == "none"
    assert two.world.keys("port_limits", 4) == []


@pytest.mark.parametrize("l4, head", [(TCP(sport=1, dport=2, flags="S"), 20), (TCP(sport=1, dport=2, flags="S", options=[("NOP", None)] * 12), 32),
                                      (UDP(sport=1, dport=2), 8)], ids=["tcp", "tcp-options", "udp"])
def test_pieces_have_headers_of_their_own(two, family, l4, head):
    """However many the sender says there are."""
    limit(two, two.a, EGRESS)
    packet = frame(two, family, 1200, l4)
    head += 20 if family == 4 else 40
    for size, pieces in ((400, 3), (399, 4), (1200, 1), (1199, 2), (1500, 1)):
        for said in (0, pieces):
            clock = ahead(two, two.a, EGRESS, 5000)
            assert two.run(two.a, packet, gso_size=size, gso_segs=said).reason == "none"
            assert state(two, two.a).next[EGRESS] == clock + (1200 + pieces * head) * 1000, (size, said)


def test_a_large_packet_needs_no_large_burst(two, family):
    limit(two, two.a, EGRESS, rate=1, burst=1)
    packet = frame(two, family, 1200)
    assert two.run(two.a, packet).reason == "none"
    assert state(two, two.a).next[EGRESS] >= time.monotonic_ns() + 5000 * MS
    assert two.run(two.a, packet).reason == "bandwidth"
    ahead(two, two.a, EGRESS, -1, rate=1)
    assert two.run(two.a, packet).reason == "none"


def test_both_ends(two, family):
    """What the destination's rate does not let through has gone over the sender's."""
    limit(two, two.a, EGRESS)
    limit(two, two.b, INGRESS)
    clock = ahead(two, two.a, EGRESS, 5000)
    ahead(two, two.b, INGRESS, 80000)
    packet = frame(two, family)
    assert two.run(two.a, packet).reason == "bandwidth"
    assert state(two, two.a).next[EGRESS] == clock + length(packet) * 1000
    assert (state(two, two.a).packets[EGRESS], state(two, two.b).packets[INGRESS]) == (0, 1)


def test_another_rate(two, family):
    """What was used by another rate's measure leaves no more than this one's burst to wait for; what is less stays."""
    limit(two, two.a, EGRESS)
    ahead(two, two.a, EGRESS, 3600 * 1000, rate=1)
    before = time.monotonic_ns()
    packet = frame(two, family)
    assert two.run(two.a, packet).reason == "none"
    entry = state(two, two.a)
    waits = BURST * 1000 + length(packet) * 1000
    assert before + waits <= entry.next[EGRESS] <= time.monotonic_ns() + waits and entry.rate[EGRESS] == RATE
    clock = ahead(two, two.a, EGRESS, 5000, rate=1)
    assert two.run(two.a, packet).reason == "none"
    assert state(two, two.a).next[EGRESS] == clock + length(packet) * 1000


def test_a_rate_that_went(two, family):
    """Its flag is read before."""
    limit(two, two.a, EGRESS, rate=0)
    assert two.run(two.a, frame(two, family)).reason == "none"


def test_policy_is_asked_first(two, family):
    limit(two, two.a, EGRESS)
    ahead(two, two.a, EGRESS, 80000)
    assert two.run(two.a, between(two.a, two.b, ip(family, B[family], B[family]) / UDP() / Raw(b"x"))).reason == f"source-ip{family}"


def test_small_packets_have_twice_the_burst(two):
    """Who sends much must not take from others what their connections live of."""
    limit(two, two.a, EGRESS)
    arp = Ether(src=two.a.mac, dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=two.a.mac, psrc=A[4], pdst=GATEWAY[4])
    nd = Ether(src=two.a.mac, dst="33:33:ff:00:00:fe") / IPv6(src=A[6], dst="ff02::1:ff00:fe", hlim=255) / ICMPv6ND_NS(tgt=GATEWAY[6])
    ack = frame(two, 4, 0, TCP(sport=5, dport=6, flags="S"))
    for packet in (arp, nd, ack, frame(two, 4, 100), frame(two, 6, 80)):
        ahead(two, two.a, EGRESS, BURST / 1000 * 1.8)
        assert two.run(two.a, packet).reason == "none"
        assert two.run(two.a, frame(two, 4, 101)).reason == "bandwidth"
        ahead(two, two.a, EGRESS, BURST / 1000 * 2.5)
        assert two.run(two.a, packet).reason == "bandwidth"


def test_who_knows_of_congestion_is_told(two, family):
    """From half of the burst on."""
    limit(two, two.a, EGRESS)
    at = 15 if family == 4 else 14
    for tos, ms, marked in ((2, 15000, True), (1, 15000, True), (3, 15000, True), (0, 15000, False), (2, 5000, False)):
        packet = bytes(frame(two, family, **{"tos" if family == 4 else "tc": tos}))
        ahead(two, two.a, EGRESS, ms)
        out = two.run(two.a, packet).out
        seen = out[at] & 3 if family == 4 else out[at + 1] >> 4 & 3
        assert seen == (3 if marked else tos)
        if family == 4:
            assert IP(out[14:]).chksum == IP(bytes(IP(out[14:]).copy())).chksum


def leaves(plane, port, packet, hook=PORT_IN):
    """ns from now; None: at once."""
    run = plane.world.raw(hook, packet, ifindex=port.ifindex)
    return run.leaves - time.monotonic_ns() if run.leaves else None


def test_when_it_leaves_an_uplink(two, family):
    """Only where there is a queue that looks at it, and not what stays here."""
    limit(two, two.a, EGRESS)
    out = Ether(src=two.a.mac, dst=GATEWAY_MAC) / ip(family, A[family], WIDE[family]) / UDP() / Raw(bytes(199))
    ahead(two, two.a, EGRESS, 1500)
    assert leaves(two, two.a, out) is None
    two.world.control.flags |= CONTROL_FQ
    clock = ahead(two, two.a, EGRESS, 1500)
    run = two.world.raw(PORT_IN, out, ifindex=two.a.ifindex)
    assert (run.verdict & 0xFFFFFFFF, run.leaves) == (NEXT & 0xFFFFFFFF, clock)
    assert leaves(two, two.a, frame(two, family)) is None
    # nobody waits for longer than the queue would let it
    limit(two, two.a, EGRESS, burst=60000000)
    ahead(two, two.a, EGRESS, 50000)
    assert 1000 * MS < leaves(two, two.a, out) <= 2000 * MS
    # idle: now
    ahead(two, two.a, EGRESS, -5000)
    assert -1000 * MS < leaves(two, two.a, out) <= 0


def test_flood_gives_no_more_than_the_rate(two):
    limit(two, two.b, INGRESS)
    group = Ether(src=two.a.mac, dst="ff:ff:ff:ff:ff:ff", type=0x88B5) / Raw(bytes(46))
    with Witness(two.b) as witness:
        clock = ahead(two, two.b, INGRESS, 5000)
        assert two.run(two.a, group).reason == "none"
        assert state(two, two.b).next[INGRESS] == clock + 46 * 1000
        ahead(two, two.b, INGRESS, 80000)
        assert two.run(two.a, group).reason == "bandwidth"
        assert witness.frames(two.b) == [bytes(group)]


@pytest.fixture
def far(plane, family):
    for key in plane.world.keys("port_limits", 4):
        plane.world.lib.bpf_map_delete_elem(plane.world.fd("port_limits"), key)
    overlay(plane, family)
    plane.world.control.flags |= CONTROL_FQ
    return plane


def test_over_the_overlay(far, family):
    """The inner packet counts; it leaves in its tunnel when it should."""
    limit(far, far.a, EGRESS)
    limit(far, far.a, INGRESS)
    packet = to_peer(far, family)
    clock = ahead(far, far.a, EGRESS, 500)
    run = far.world.raw(PORT_IN, packet, ifindex=far.a.ifindex)
    assert (run.verdict, run.leaves) == (REDIRECT, clock)
    assert state(far, far.a).next[EGRESS] == clock + length(packet) * 1000
    back = from_peer(far, family)
    clock = ahead(far, far.a, INGRESS, 500)
    assert far.run(far.up, wrapped(far, back), TC_IN).action == REDIRECT
    assert state(far, far.a).next[INGRESS] == clock + length(back) * 1000
    ahead(far, far.a, INGRESS, 80000)
    assert far.run(far.up, wrapped(far, back), TC_IN).reason == "bandwidth"
    ahead(far, far.a, EGRESS, 80000)
    assert far.run(far.a, packet).reason == "bandwidth"
