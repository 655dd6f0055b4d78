# SPDX-License-Identifier: Apache-2.0
"""Twins change nothing; nothing makes a live packet a dry one."""
import ctypes
import random
import struct

from flow_test import Connection
from packets import ARP, Ether, Raw, frame, ip, ping, pong, tagged, tcp, udp, unreachable
from reasons_test import CASES, GOOD
from world import HOOK_NAMES, PATIENCE, PORT_UPLINK, PORT_XDP, TC_OUT, XDP

FRAG = ctypes.c_uint8 * 16
WRITABLE = ["drops", "totals", "rule_counters", "full", "rates"]
SIZES = {"drops": 16, "totals": 16, "rule_counters": 16, "full": 8, "rates": 16}


def snapshot(world):
    """Everything that a packet may change."""
    state = [(table, key, bytes(flow)) for table, key, flow in world.flows()]
    state += [(key, bytes(world.lookup("frags", key, FRAG))) for key in world.keys("frags", 40)]
    for name in WRITABLE:
        index = 0
        while True:
            try:
                state.append((name, index, world.percpu(name, index, SIZES[name])))
            except OSError:
                break
            index += 1
    state += [bytes(event) for event in world.events()]
    return state


def instructions(fd):
    """Of a loaded program, after the verifier took out what cannot be reached: (opcode, registers, imm)."""
    info = (ctypes.c_uint8 * 256)()
    lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
    size = ctypes.c_uint32(256)
    assert lib.bpf_obj_get_info_by_fd(fd, info, ctypes.byref(size)) == 0
    xlated = struct.unpack_from("I", info, 20)[0]
    buffer = (ctypes.c_uint8 * xlated)()
    info = (ctypes.c_uint8 * 256)()
    struct.pack_into("I", info, 20, xlated)
    struct.pack_into("Q", info, 32, ctypes.addressof(buffer))
    size = ctypes.c_uint32(256)
    assert lib.bpf_obj_get_info_by_fd(fd, info, ctypes.byref(size)) == 0
    return [struct.unpack_from("<BBhi", buffer, at) for at in range(0, xlated, 8)]


def maps_of(fd):
    """Ids of the maps that its instructions use."""
    return {imm for opcode, registers, _, imm in instructions(fd) if opcode == 0x18 and registers >> 4 in (1, 2)}


def map_id(world, name):
    lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
    info = (ctypes.c_uint8 * 128)()
    size = ctypes.c_uint32(128)
    assert lib.bpf_obj_get_info_by_fd(world.fd(name), info, ctypes.byref(size)) == 0
    return struct.unpack_from("I", info, 4)[0]


PACKETS = [tcp(4), tcp(6), udp(4), udp(6), ping(4), pong(6), Ether() / ARP(), tcp(4, flags="A"), tcp(6, flags="R"), tagged(tcp(4), [(0x8100, 4)]),
           frame(ip(4) / Raw(b"x"))] + GOOD + [one for families in CASES.values() if isinstance(families, dict) for frames in families.values() for one in frames]


def test_purity(world, hook, family):
    world.rules(ingress=["{name: l, action: reject, log: true, ports: [{protocol: TCP, port: 80}]}"], egress=["{name: l, action: deny, log: true, ports: [{protocol: TCP, port: 80}]}"])
    other = Connection(world, XDP, family, peer={4: "198.51.100.9", 6: "2001:db8:1::9"}[family])
    other.address["dport"] = 80
    ours = udp(family, False, 5353, 53)
    world.run(TC_OUT, ours)
    before = snapshot(world)
    world.control.flags = 1
    for packet in PACKETS + [ours, udp(family, True, 53, 5353), unreachable(family, ours)]:
        try:
            world.explain(hook, packet)
        except OSError:  # frames that the kernel's test run refuses
            pass
    assert snapshot(world) == before


def test_purity_of_tcp(world, ingress_hook, family):
    """Each step of a connection, asked for before it happens."""
    connection = Connection(world, ingress_hook, family)
    run = world.run

    def both(hook, packet, **options):
        before = snapshot(world)
        page = world.explain(hook, packet)
        assert snapshot(world) == before
        result = run(hook, packet, **options)
        assert page.why == result.reason
        world.events()
        return result

    world.run = both
    try:
        connection.shake()
        for originator, flags in ((True, "PA"), (False, "PA"), (False, "R"), (True, "FA"), (False, "A"), (False, "FA"), (True, "A"), (True, "R"), (True, "S")):
            connection.send(originator, flags, payload=b"x" if "P" in flags else b"", seq=3000000000 if flags == "R" else None)
    finally:
        del world.run


def test_rejudging_is_only_asked(world, ingress_hook, family):
    connection = Connection(world, ingress_hook, family).shake()
    world.rules(default="{ingress: deny, egress: deny}")
    before = snapshot(world)
    page = world.explain(ingress_hook, tcp(family, True, "A", 40000, 80, connection.next[True], connection.next[False]))
    assert (page.why, page.rejudged) == ("policy-deny", 1)
    assert snapshot(world) == before


def test_live_programs_do_not_know_the_page(world, hook):
    world.explain(hook, tcp(4))
    page = map_id(world, "explain")
    assert page not in maps_of(world.program(hook)), HOOK_NAMES[hook]
    twin = maps_of(world.program(hook, twin=True))
    assert page in twin
    for name in ("drops", "rule_counters", "totals", "full", "rates", "events", "flow_free"):
        assert map_id(world, name) not in twin, name
        assert map_id(world, name) in maps_of(world.program(hook)), name


def test_nothing_makes_a_live_packet_dry(world, hook):
    """Marks, control blocks, metadata, the page itself filled with whatever: a live packet is counted and leaves its flow."""
    page = bytes(range(1, 145))
    world.store("explain", bytes(4), page)
    world.port(flags=PORT_UPLINK | (PORT_XDP if hook == XDP else 0))
    number = 0
    for options in ({}, {"mark": 0xFFFFFFFF}, {"cb": 0xFFFFFFFF}, {"mark": 0x6865646C, "cb": 0x6865646C}):
        if hook == XDP and options:
            continue
        number += 1
        assert world.run(hook, udp(4, hook != TC_OUT, sport=number), **options).passed
    if hook == XDP:
        for length in (4, 16, 32):
            number += 1
            assert world.run(hook, b"\x6c\x64\x65\x68" * (length // 4) + bytes(udp(4, sport=number)), meta_length=length).passed
    assert len(world.flows()) == number
    assert bytes(world.lookup("explain", bytes(4), ctypes.c_uint8 * 144)) == page


def test_explain_says_what_happens(world, hook):
    """On packets of all kinds, in turn, asked just before they are sent."""
    chance = random.Random(4711)
    rules = ["{name: a, action: allow, ports: [{protocol: TCP, port: 80}]}", "{name: b, action: reject, ports: [{protocol: UDP, port: 53}]}", "{name: c, action: allow, icmp: [{type: 8}]}"]
    world.rules(ingress=rules, egress=rules, default="{ingress: deny, egress: deny}")
    for _ in range(600 // PATIENCE):
        family = chance.choice((4, 6))
        inbound = hook != TC_OUT
        packet = bytes(chance.choice([
            lambda: tcp(family, inbound, chance.choice(["S", "SA", "A", "PA", "FA", "R", "RA"]), chance.randrange(1, 5), chance.choice([80, 81]), chance.randrange(4) * 1000, chance.randrange(4) * 1000),
            lambda: udp(family, inbound, chance.randrange(1, 5), chance.choice([53, 54])),
            lambda: ping(family, inbound, chance.randrange(3)), lambda: pong(family, inbound, chance.randrange(3)),
        ])())
        packet = tagged(packet, chance.choice([[], [(0x8100, 5)]]))
        if chance.random() < 0.3:
            raw = bytearray(packet)
            raw[chance.randrange(12, len(raw))] ^= 1 << chance.randrange(8)
            packet = bytes(raw)
        try:
            page = world.explain(hook, packet)
        except OSError:
            continue
        assert page.why == world.run(hook, packet).reason
