# SPDX-License-Identifier: Apache-2.0
"""Which packets of an uplink a fast path asks for: by each field, by shapes, after the verdict, and never a fragment. No socket is there to take one."""
import ipaddress
import socket
import struct

import pytest
from packets import HOST, IP, PEER, UDP, Raw, frame, tagged, tcp, udp
from world import INGRESS, PORT_UPLINK, PORT_XDP, UPLINK, XDP

FAST = 1 << 12
RULE, PROTOCOL, SPORT, DPORT, VLAN = (1 << n for n in range(5))
DROP, FORWARD = 1, 2
TAKEN, PASSED, DROPPED, TOO_BIG = range(4)
SHAPES = 8


def address(block):
    """(value, mask) as 16 bytes each, and how many bits count; IPv4 is mapped."""
    if block is None:
        return bytes(16), bytes(16), 0
    net = ipaddress.ip_network(block)
    bits = net.prefixlen + (96 if net.version == 4 else 0)
    value = net.network_address.packed if net.version == 6 else bytes(10) + b"\xff\xff" + net.network_address.packed
    mask = ((1 << 128) - (1 << (128 - bits))).to_bytes(16, "big")
    return value, mask, bits


def shape_of(match):
    fields = sum(bit for name, bit in (("rule", RULE), ("protocol", PROTOCOL), ("sport", SPORT), ("dport", DPORT), ("vlan", VLAN)) if name in match)
    (_, source, n), (_, destination, m) = address(match.get("source")), address(match.get("destination"))
    return struct.pack("<16s16sII", source, destination, fields, fields | n << 8 | m << 16)


def match_key(ifindex, match):
    """Of the table of matches."""
    (shape,) = struct.unpack("<I", shape_of(match)[36:])
    (source, *_), (destination, *_) = address(match.get("source")), address(match.get("destination"))
    ports = struct.pack("!HH", match.get("sport", 0), match.get("dport", 0))
    return struct.pack("<II16s16sI", ifindex, shape, source, destination, match.get("rule", 0)) + ports + struct.pack(
        "<HB5x", match.get("vlan", 0), match.get("protocol", 0))


@pytest.fixture
def steer(world):
    """steer(match...): what eth of index 3, 4... asks for, the narrowest first."""
    device, keys = struct.pack("<I", UPLINK), []

    def forget():
        while keys:
            world.lib.bpf_map_delete_elem(world.fd("fast_matches"), keys.pop())

    def set_(*matches, flags=0):
        forget()
        world.port(flags=PORT_UPLINK | PORT_XDP | FAST)
        shapes = []
        for n, match in enumerate(matches):
            shape = shape_of(match)
            if shape not in shapes:
                shapes.append(shape)
            keys.append(match_key(UPLINK, match))
            world.store("fast_matches", keys[-1], struct.pack("<HH", 3 + n, match.get("flags", flags)))
        world.store("fast_devices", device, struct.pack("<IHH", len(shapes), 0, 0) + b"".join(shapes).ljust(40 * SHAPES, b"\0"))

    yield set_
    forget()
    world.lib.bpf_map_delete_elem(world.fd("fast_devices"), device)


def counted(world, index, what):
    return world.percpu("fast_counters", index * 4 + what, 16)[0]


def asked(world, packet, index=3):
    """Whether the fast path asks for it: as explain says, and as its counter of what no socket took."""
    before, passed = counted(world, index, PASSED), world.run(XDP, packet).passed
    count = counted(world, index, PASSED) - before
    said = world.explain(XDP, packet).fast_path
    assert passed and count in (0, 1) and (said == index + 1) == bool(count), (passed, count, said)
    return bool(count)


def test_everything(world, steer, family):
    steer({})
    assert asked(world, udp(family)) and asked(world, tcp(family))


def test_fields(world, steer, family):
    """Each asks about its own, and about nothing else."""
    steer({"protocol": socket.IPPROTO_UDP})
    assert asked(world, udp(family)) and not asked(world, tcp(family))
    steer({"protocol": socket.IPPROTO_UDP, "dport": 53})
    assert asked(world, udp(family, dport=53, sport=1)) and not asked(world, udp(family, dport=54))
    steer({"protocol": socket.IPPROTO_UDP, "sport": 777})
    assert asked(world, udp(family, sport=777)) and not asked(world, udp(family, sport=53, dport=777))


def test_addresses(world, steer, family):
    peer, host = PEER[family], HOST[family]
    bits = 32 if family == 4 else 128
    wide = str(ipaddress.ip_network(f"{peer}/{bits - 8}", strict=False))
    for match in ({"source": f"{peer}/{bits}"}, {"destination": f"{host}/{bits}"}, {"source": wide}):
        steer(match)
        assert asked(world, udp(family))
    for match in ({"source": f"{host}/{bits}"}, {"destination": f"{peer}/{bits}"}):
        steer(match)
        assert not asked(world, udp(family))


def test_other_family(world, steer):
    """A block of one family never has a packet of the other."""
    steer({"source": "0.0.0.0/0"})
    assert asked(world, udp(4)) and not asked(world, udp(6))


def test_vlan(world, steer):
    steer({"vlan": 12})
    assert asked(world, tagged(udp(4), [(0x8100, 12)])) and not asked(world, tagged(udp(4), [(0x8100, 13)])) and not asked(world, udp(4))


def test_rule(world, steer):
    """The rule that let it in, by its number; another one's packets go on."""
    world.rules(ingress=[{"name": "dns", "action": "allow", "ports": [{"protocol": "UDP", "port": 53}]}, {"name": "rest", "action": "allow"}])
    number = world.explain(XDP, udp(4, dport=53)).rule
    assert world.rule_name(number)
    steer({"rule": number})
    assert asked(world, udp(4, dport=53)) and not asked(world, udp(4, dport=54, sport=9))


def test_narrowest_first(world, steer):
    """Of two that fit, the one that stands first: another shape's row is not even looked for."""
    narrow, wide = {"protocol": socket.IPPROTO_UDP, "dport": 53}, {}
    steer(narrow, wide)
    packet, other = udp(4, dport=53), udp(4, dport=99)
    assert asked(world, packet, 3) and not asked(world, packet, 4)
    assert asked(world, other, 4) and not asked(world, other, 3)


def test_eighth_shape(world, steer):
    """As many kinds as there may be: the last one is found, too."""
    matches = [{"source": f"192.168.{n}.0/{24 + n % 8}"} for n in range(7)] + [{"protocol": socket.IPPROTO_TCP}]
    matches[6] = {"protocol": socket.IPPROTO_UDP, "dport": 9}
    steer(*matches)
    assert asked(world, tcp(4), 10) and not asked(world, udp(4), 10)


def test_fallback_drop(world, steer):
    """Without a socket, `drop` drops it as fast-path, and counts it; what is not asked for goes on."""
    steer({"protocol": socket.IPPROTO_UDP}, flags=DROP)
    before = counted(world, 3, DROPPED)
    result = world.run(XDP, udp(4))
    assert not result.passed and result.reason == "fast-path"
    assert counted(world, 3, DROPPED) == before + 1 and world.run(XDP, tcp(4)).passed
    assert world.drops()[("fast-path", INGRESS)] == 1


def test_policy_first(world, steer):
    """What policy denies is nobody's."""
    world.rules(default={"ingress": "deny"})
    steer({})
    before = [counted(world, 3, what) for what in (TAKEN, PASSED, DROPPED)]
    result = world.run(XDP, udp(4))
    assert not result.passed and result.reason == "policy-deny"
    assert [counted(world, 3, what) for what in (TAKEN, PASSED, DROPPED)] == before


def test_fragments(world, steer):
    """The kernel has to see all of a datagram or none."""
    steer({})
    for offset, more in ((0, "MF"), (100, 0)):
        packet = IP(src=PEER[4], dst=HOST[4], id=7, flags=more, frag=offset) / (UDP(sport=1, dport=2, len=1000) if not offset else Raw(b"")) / Raw(b"x" * 64)
        before = counted(world, 3, PASSED)
        world.raw(XDP, frame(packet))
        assert counted(world, 3, PASSED) == before


def test_no_flag(world, steer):
    """The record of the device says whether anything is asked at all."""
    steer({})
    world.port(flags=PORT_UPLINK | PORT_XDP)
    before = counted(world, 3, PASSED)
    assert world.run(XDP, udp(4)).passed and counted(world, 3, PASSED) == before


def test_workers_elsewhere(world, steer):
    """For workers, and nothing leads to another device of theirs: the kernel has it, and no counter of theirs says otherwise."""
    steer({}, flags=FORWARD | DROP)
    before = [counted(world, 3, what) for what in range(4)]
    assert world.run(XDP, udp(4)).passed
    assert [counted(world, 3, what) for what in range(4)] == before
