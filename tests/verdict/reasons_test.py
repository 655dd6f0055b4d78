# SPDX-License-Identifier: Apache-2.0
"""Every drop reason, under a policy that allows everything: on each hook, in both families where it exists, behind tags."""
import pytest
from packets import (ARP, HOST, ICMP, IP, PEER, SCTP, TAGS, UDP, Dot1Q, Ether, ICMPv6ND_NS, IPOption_LSRR, IPOption_SSRR, IPv6, IPv6ExtHdrDestOpt,
                     IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, Raw, frame, ip, pong, tagged, tcp, udp)
from world import REASONS, TC_OUT, XDP

TEXT = b"some payload that is long enough to be cut"


def cut(packet, length):
    return bytes(packet)[:length]


def patch(packet, at, data):
    raw = bytearray(bytes(packet))
    raw[at:at + len(data)] = data
    return bytes(raw)


def proto(family, number, payload=b""):
    """An IP packet of any protocol."""
    return ip(family, proto=number) / Raw(payload) if family == 4 else ip(family, nh=number) / Raw(payload)


L4 = {4: 34, 6: 54}
PORT_REASONS = REASONS[REASONS.index("source-mac"):REASONS.index("tunnel-malformed")]
TUNNEL_REASONS = REASONS[REASONS.index("tunnel-malformed"):REASONS.index("fast-path")]


def fragment(family, offset, more, payload, number=17, ident=5):
    """offset in bytes."""
    if family == 4:
        return frame(IP(src=PEER[4], dst=HOST[4], id=ident, frag=offset // 8, flags="MF" if more else 0, proto=number) / Raw(payload))
    return frame(ip(6) / IPv6ExtHdrFragment(nh=number, offset=offset // 8, m=int(more), id=ident) / Raw(payload))


# reason: {family: [frames]}; family 0: not IP. The last frame is the one that is dropped.
CASES = {
    "eth-truncated": {},  # no test run takes so short a frame: see below
    "vlan-truncated": {0: [cut(Ether() / Dot1Q(vlan=5), 16)]},
    "vlan-depth": {0: [Ether() / Dot1Q(vlan=1) / Dot1Q(vlan=2) / Dot1Q(vlan=3) / IP()]},
    "arp-malformed": {0: [cut(Ether() / ARP(), 40)]},
    "ip4-truncated": {4: [cut(tcp(4), 30)]},
    "ip4-version": {4: [patch(tcp(4), 14, b"\x65")]},
    "ip4-ihl": {4: [patch(tcp(4), 14, b"\x44")]},
    "ip4-total-length": {4: [patch(tcp(4), 16, b"\x00\x80")]},
    "ip4-options": {4: [frame(ip(4, options=[IPOption_LSRR(routers=["10.0.0.1"])]) / UDP() / Raw(TEXT))]},
    "ip6-truncated": {6: [cut(tcp(6), 50)]},
    "ip6-version": {6: [patch(tcp(6), 14, b"\x45")]},
    "ip6-payload-length": {6: [patch(tcp(6), 18, b"\x01\x00")]},
    "ip6-mapped": {6: [frame(IPv6(src="::ffff:198.51.100.7", dst=HOST[6]) / UDP() / Raw(TEXT))]},
    "ip6-ext-truncated": {6: [frame(ip(6, nh=60) / Raw(bytes([17, 9]) + bytes(10)))]},
    "ip6-ext-chain": {6: [frame(ip(6) / IPv6ExtHdrDestOpt() / IPv6ExtHdrHopByHop() / UDP())]},
    "ip6-routing": {6: [frame(ip(6) / IPv6ExtHdrRouting(type=0, addresses=["2001:db8::9"]) / UDP())]},
    "frag-unknown": {f: [fragment(f, 64, False, TEXT)] for f in (4, 6)},
    "frag-tiny": {f: [fragment(f, 0, True, bytes(8), 6)] for f in (4, 6)},
    "frag-length": {f: [fragment(f, 64, True, bytes(30))] for f in (4, 6)},
    "tcp-truncated": {f: [frame(proto(f, 6, bytes(10)))] for f in (4, 6)},
    "tcp-offset": {f: [patch(tcp(f), L4[f] + 12, b"\x40")] for f in (4, 6)},
    "tcp-flags": {f: [tcp(f, flags="SF")] for f in (4, 6)},
    "udp-truncated": {f: [frame(proto(f, 17, bytes(7)))] for f in (4, 6)},
    "udp-length": {f: [patch(udp(f), L4[f] + 4, b"\x00\x40")] for f in (4, 6)},
    "sctp-truncated": {f: [frame(ip(f) / SCTP(sport=1, dport=2))] for f in (4, 6)},
    "icmp-truncated": {f: [frame(proto(f, 1 if f == 4 else 58, bytes([8, 0, 0, 0])))] for f in (4, 6)},
    # a quote without the 8 bytes of L4 that it must have
    "icmp-embedded": {4: [frame(ip(4) / ICMP(type=3, code=1) / Raw(bytes(IP(src=HOST[4], dst=PEER[4]))))],
                      6: [frame(ip(6, nh=58) / Raw(bytes([1, 0, 0, 0]) + bytes(4) + bytes(IPv6(src=HOST[6], dst=PEER[6], nh=6))))]},
    "nd-hop-limit": {6: [frame(ip(6, hlim=64) / ICMPv6ND_NS(tgt=HOST[6]))]},
    "l4-truncated": {f: [frame(proto(f, 50, bytes(6)))] for f in (4, 6)},
    "tcp-no-flow": {f: [tcp(f, flags="A")] for f in (4, 6)},
    "tcp-state": {f: [tcp(f, flags="S"), tcp(f, flags="PA", seq=1001, payload=TEXT)] for f in (4, 6)},
    "icmp-unrelated": {f: [pong(f)] for f in (4, 6)},
    # these need more than packets, and are shown elsewhere
    "none": None,
    "policy-deny": "test_policy_reasons",
    "policy-reject": "test_policy_reasons",
    "not-ready": "test_not_ready",
    "tcp-window": "flow_test.py: test_reset_from_the_wire",
    "flow-table": "test_new_table_without_room",
    "rule-tree": "test_broken_tables",
    "nonlinear": "test_nonlinear",
    # of ports
    **{reason: "port_test.py: CASES" for reason in PORT_REASONS},
    **{reason: "tunnel_test.py: CASES" for reason in TUNNEL_REASONS},
    # of sockets, which a test run has none of
    "fast-path": "tests/net/test_fastpath.py: test_without_a_consumer",
    "bandwidth": "limit_test.py",
}

ROWS = [(reason, family, frames) for reason, families in CASES.items() if isinstance(families, dict) for family, frames in families.items()]


def test_every_reason_has_a_case():
    assert set(CASES) == set(REASONS)


@pytest.mark.parametrize("tags", TAGS.values(), ids=TAGS)
@pytest.mark.parametrize("reason, family, frames", ROWS, ids=[f"{reason}-ipv{family}" if family else reason for reason, family, _ in ROWS])
def test_reason(world, hook, tags, reason, family, frames):
    if reason.startswith("vlan") and tags:
        pytest.skip("is about tags itself")
    *before, last = [tagged(one, tags) for one in frames]
    for one in before:
        assert world.run(hook, one).passed
    if hook != XDP and reason in ("ip4-truncated", "ip6-truncated") and not tags:
        pytest.skip("the kernel's test run of TC programs refuses such a frame itself")
    counted = world.drops()
    page = world.explain(hook, last)
    assert world.drops() == counted
    assert world.run(hook, last).reason == reason
    assert page.why == reason and page.verdict in (1, 2, 3)
    assert [event for event in world.events() if event.reason == REASONS.index(reason) and event.name == "drop" and event.verdict == 3]


def test_shorter_than_ethernet(world):
    """The kernel hands out no such frame, and its test run takes none: the check is there for drivers."""
    with pytest.raises(OSError):
        world.raw(XDP, bytes(13))


MORE = {
    "ip4-ihl": [patch(tcp(4), 14, b"\x4f")[:14 + 60]],
    "ip4-total-length": [patch(tcp(4), 16, b"\x00\x13"), patch(tcp(4), 16, b"\x00\x00")],
    "ip4-options": [frame(ip(4, options=[IPOption_SSRR(routers=["10.0.0.1"])]) / UDP()),
                    patch(frame(ip(4, options=[b"\x07\x03\x04", b"\x00"]) / UDP()), 35, b"\x01"),
                    patch(frame(ip(4, options=[b"\x07\x03\x04", b"\x00"]) / UDP()), 35, b"\x09")],
    "ip6-ext-chain": [frame(ip(6) / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt() /
                            IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt() / UDP()),
                      frame(ip(6) / IPv6ExtHdrFragment(m=1) / IPv6ExtHdrFragment(m=1) / UDP() / Raw(bytes(8)))],
    "ip6-mapped": [frame(IPv6(src=PEER[6], dst="::ffff:192.0.2.1") / UDP() / Raw(TEXT))],
    "ip6-payload-length": [patch(frame(ip(6) / IPv6ExtHdrHopByHop() / UDP()), 18, b"\x00\x00")],
    "tcp-offset": [patch(tcp(4), 46, b"\xf0"), patch(tcp(6), 66, b"\xf0")],
    "tcp-flags": [tcp(f, flags=flags) for f in (4, 6) for flags in ("", "F", "FU", "FSA", "SR", "FRA", "P", "FPU")],
    "udp-length": [patch(udp(4), 38, b"\x00\x07"), patch(udp(6), 58, b"\x00\x00")],
    "l4-truncated": [frame(proto(f, number, bytes(length))) for f in (4, 6) for number, length in ((47, 3), (33, 11), (136, 7))] +
                    [frame(proto(4, 51, bytes(11)))],
    "frag-length": [frame(IP(src=PEER[4], dst=HOST[4], frag=8190, proto=17) / Raw(bytes(40)))],
    "frag-tiny": [fragment(4, 0, True, bytes([0, 80] * 6 + [0xF0] + [2] * 11), 6), fragment(4, 0, True, b"", 17)],
    "arp-malformed": [Ether() / ARP(hwtype=6), Ether() / ARP(ptype=0x86DD), Ether() / ARP(hwlen=8), Ether() / ARP(plen=16)],
}


@pytest.mark.parametrize("reason, one", [(reason, one) for reason, frames in MORE.items() for one in frames])
def test_more_of_a_reason(world, hook, reason, one):
    assert world.run(hook, one).reason == reason


GOOD = [
    frame(ip(4) / UDP() / Raw(TEXT)) / Raw(bytes(20)),  # padding
    frame(IP(src=PEER[4], dst=HOST[4], len=28) / UDP(len=8) / Raw(bytes(18))),
    frame(ip(4) / UDP(len=8) / Raw(TEXT)),  # less than the packet holds
    frame(ip(4, options=[b"\x07\x07\x04\x00\x00\x00\x00\x01"]) / UDP()),  # record route
    frame(ip(4, options=[b"\x94\x04\x00\x00"]) / UDP()),  # router alert
    frame(ip(6) / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP()),
    frame(ip(6) / IPv6ExtHdrRouting(type=4, addresses=["2001:db8::9"]) / UDP()),
    frame(ip(6) / IPv6ExtHdrFragment(m=0, offset=0, id=3) / UDP() / Raw(TEXT)),  # an atomic fragment is a whole packet
    frame(ip(6) / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt() / UDP()),
    frame(ip(6, hlim=255) / ICMPv6ND_NS(tgt=HOST[6])),
    frame(proto(4, 50, bytes(8))), frame(proto(6, 59)), frame(proto(4, 47, bytes(4))), frame(proto(4, 253)),
    frame(ip(4) / SCTP(sport=1, dport=2) / Raw(bytes([1, 0, 0, 4]))),
    Ether() / ARP(), Ether(type=0x88CC) / Raw(bytes(46)), Ether(type=0x26) / Raw(bytes(46)), Ether(type=0x8847) / Raw(bytes(46)),
]


@pytest.mark.parametrize("tags", TAGS.values(), ids=TAGS)
@pytest.mark.parametrize("number", range(len(GOOD)))
def test_well_formed_passes(world, hook, number, tags):
    one = tagged(GOOD[number], tags)
    page = world.explain(hook, one)
    assert page.why == "none" and page.verdict == 0
    assert world.run(hook, one).reason == "none"


def test_policy_reasons(world, hook, family):
    direction = "egress" if hook == TC_OUT else "ingress"
    inbound = hook != TC_OUT
    world.rules(**{direction: ["{name: no, action: deny, ports: [{protocol: TCP, port: 23}]}", "{name: go, action: reject, ports: [{protocol: TCP, port: 24}]}"]})
    assert world.run(hook, tcp(family, inbound, dport=23)).reason == "policy-deny"
    assert world.run(hook, tcp(family, inbound, dport=24)).reason == "policy-reject"
    assert world.run(hook, tcp(family, inbound, dport=25)).passed
    assert [(event.name, event.verdict, world.rule_name(event.rule)) for event in world.events()] == [("drop", 1, "no"), ("reject", 2, "go")]


def test_not_ready(world, hook):
    generation = world.control.generation
    world.control.generation = 0
    try:
        assert world.run(hook, tcp(4)).reason == "not-ready"
        assert world.run(hook, Ether() / ARP()).reason == "not-ready"
    finally:
        world.control.generation = generation
    assert world.run(hook, tcp(4)).passed


def test_broken_tables(world, hook):
    """A node that is not there: no rule is guessed."""
    world.rules(ingress=["{name: a, action: allow, from: [{cidr: 198.51.100.0/24}]}"], egress=["{name: a, action: allow, to: [{cidr: 198.51.100.0/24}]}"])
    slot = 4 * (world.control.generation & 1)
    saved = list(world.control.roots)
    for broken in (0x3FFFFFFF, 0x80000000 | 0x3FFFFFFF):
        world.control.roots[slot + 1] = broken
        assert world.run(hook, tcp(4, hook != TC_OUT)).reason == "rule-tree"
    world.control.roots[slot] = 0
    assert world.run(hook, tcp(4, hook != TC_OUT)).reason == "rule-tree"
    world.control.roots[:] = saved
    assert world.run(hook, tcp(4, hook != TC_OUT)).passed


def test_nonlinear(world):
    """Headers in a later buffer of a frame: XDP cannot read them by direct access, and says so."""
    packet = tcp(4, payload=bytes(3000))
    try:
        world.raw(XDP, packet, linear=60)
    except OSError:
        pytest.skip("this kernel's test run does not split frames")
    assert world.run(XDP, packet, linear=20).reason == "nonlinear"
    assert world.run(XDP, packet, linear=40).reason == "nonlinear"
    assert world.run(XDP, packet, linear=54).passed


def test_new_table_without_room():
    pytest.skip("an LRU table takes every entry, until two CPUs want the last places at once: not to be made to happen here")


def test_unguarded_device_is_left_alone(world, hook):
    world.port(present=False)
    try:
        assert world.run(hook, bytes(14)).passed
        assert world.run(hook, tcp(4, flags="SF")).passed
        assert world.flows() == []
    finally:
        world.rules()


def test_two_devices_of_one_slot(world, hook):
    """4097 shares the slot of 1. Once 1 has gone, the record in the hash still counts."""
    world.port(4097)
    world.port(present=False)
    try:
        assert world.explain(hook, tcp(4, flags="SF"), ifindex=4097).why == "tcp-flags"
    finally:
        world.port(4097, present=False)
        world.rules()
