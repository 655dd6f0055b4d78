# SPDX-License-Identifier: Apache-2.0
"""Frames that XDP sends to another device itself: only where the row and the device are there, and policy has nothing against it; changed as a router would."""
import socket
import struct

import pytest
from match_test import DROP, DROPPED, FAST, FORWARD, PASSED, PORT_UPLINK, TAKEN, TOO_BIG, counted, steer  # noqa: F401 pylint: disable=unused-import
from packets import HOST_MAC, IP, Ether, IPv6, udp
from workers import DIRECT, DIRECT_SEVERAL, XDP_DROP, XDP_PASS, XDP_REDIRECT, forward_row
from world import EGRESS, PORT_FORWARD_JUDGE, PORT_XDP, UPLINK, XDP, sh

GROUP = 8
IN, OUT, OTHER = 8, 9, 10  # indexes
BEYOND = {4: "203.0.113.7", 6: "2001:db8:7::7"}
NEXT_MAC = "02:00:00:00:00:99"


@pytest.fixture(scope="module")
def exits():
    """Two devices to leave by: (ifindex, MAC) each; the first one leads to BEYOND."""
    for n in (0, 1):
        sh(f"ip link add fx{n} address 02:00:00:00:01:0{n} type veth peer name fy{n} && ip link set fy{n} up && ip link set fx{n} up")
    sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
    sh("ip addr add 203.0.113.1/24 dev fx0 && ip addr add 2001:db8:7::1/64 dev fx0 nodad")
    sh(f"ip neigh add {BEYOND[4]} lladdr {NEXT_MAC} dev fx0 && ip neigh add {BEYOND[6]} lladdr {NEXT_MAC} dev fx0")
    yield [(socket.if_nametoindex(f"fx{n}"), f"02:00:00:00:01:0{n}") for n in (0, 1)]
    sh("ip link del fx0; ip link del fx1")


@pytest.fixture
def forwards(world, steer, exits):  # noqa: F811 pylint: disable=redefined-outer-name
    """forwards(flags of the row of the exit, whether XDP finds it, flags of the row it comes in by)"""
    (ifindex, _), (other, _) = exits

    def set_(flags=DIRECT, there=True, entry=0, group=GROUP, judge=0):
        steer({}, flags=FORWARD | entry)
        world.port(flags=PORT_UPLINK | PORT_XDP | FAST | judge)
        world.port(ifindex=ifindex, flags=PORT_UPLINK | judge)
        for device, index, bits, of in ((UPLINK, IN, entry, GROUP), (ifindex, OUT, flags, group), (other, OTHER, DIRECT, GROUP)):
            world.store("fast_forwards", struct.pack("<I", device), forward_row(index, of, bits, HOST_MAC))
        # another one's is never taken for it
        world.store("fast_exits", struct.pack("<I", other), struct.pack("<I", other))
        if there:
            world.store("fast_exits", struct.pack("<I", ifindex), struct.pack("<I", ifindex))
        else:
            world.lib.bpf_map_delete_elem(world.fd("fast_exits"), struct.pack("<I", ifindex))

    yield set_
    for device in (UPLINK, ifindex, other):
        world.lib.bpf_map_delete_elem(world.fd("fast_forwards"), struct.pack("<I", device))
        world.lib.bpf_map_delete_elem(world.fd("fast_exits"), struct.pack("<I", device))
    world.port(ifindex=ifindex, present=False)


def counters(world):
    """As those of the device that it comes in by, and what was sent to each."""
    totals = [counted(world, IN, what) for what in (TAKEN, PASSED, DROPPED, TOO_BIG)]
    return totals + [world.percpu("fast_redirects", index, 16)[0] for index in (OUT, OTHER)]


def went(world, packet, **options):
    """(verdict of XDP, frame, how the counters changed)"""
    before = counters(world)
    run = world.raw(XDP, packet, **options)
    return run.verdict, bytes(run.out[run.meta_left : run.out_length]), [b - a for a, b in zip(before, counters(world))]


def test_redirected(world, forwards, exits, family):
    """A hop less, the MACs of the next one, nothing else; counted where it came in and where it left, in flow and rule."""
    forwards()
    packet = udp(family, host=BEYOND[family])
    verdict, out, changed = went(world, packet)
    assert verdict == XDP_REDIRECT and changed == [1, 0, 0, 0, 1, 0]
    kind = IP if family == 4 else IPv6
    got, expected = Ether(out), Ether(bytes(packet))[kind]
    assert (got.dst, got.src) == (NEXT_MAC, exits[0][1])
    if family == 4:
        expected.ttl -= 1
        del expected.chksum
    else:
        expected.hlim -= 1
    assert bytes(got[kind]) == bytes(expected)
    assert world.flow()[1].packets[0] == 2  # as without: where it comes in, and where it leaves


def test_several_buffers(world, forwards, family):
    """A frame in several buffers goes only where such frames are taken: another device would lose it."""
    sh("ip link set fx0 mtu 4000")
    packet = udp(family, host=BEYOND[family], payload=b"x" * 2500)
    forwards()
    verdict, out, changed = went(world, packet, linear=1000)
    assert verdict == XDP_PASS and out == bytes(packet) and changed == [0, 1, 0, 1, 0, 0]
    # in one buffer it may be of any length
    assert went(world, packet)[::2] == (XDP_REDIRECT, [1, 0, 0, 0, 1, 0])
    forwards(DIRECT | DIRECT_SEVERAL)
    verdict, out, changed = went(world, packet, linear=1000)
    assert verdict == XDP_REDIRECT and len(out) == len(packet) and changed == [1, 0, 0, 0, 1, 0]
    assert out[-2500:] == bytes(packet)[-2500:]
    sh("ip link set fx0 mtu 1500")


@pytest.mark.parametrize("how", [{"flags": 0}, {"there": False}, {"group": GROUP + 1}], ids=["takes nothing", "gone", "another document's"])
def test_kernel(world, forwards, family, how):
    """No device that takes it: on to the kernel, as it came."""
    forwards(**how)
    packet = udp(family, host=BEYOND[family])
    verdict, out, changed = went(world, packet)
    assert verdict == XDP_PASS and out == bytes(packet)
    # of another document: it was never a matter of this one
    assert changed == [0, 0 if "group" in how else 1, 0, 0, 0, 0]


def test_fallback_drop(world, forwards, family):
    """The device has gone, and the document says drop: by its name, as without a worker."""
    forwards(there=False, entry=DROP)
    before = counters(world)
    result = world.run(XDP, udp(family, host=BEYOND[family]))
    assert not result.passed and result.reason == "fast-path"
    assert [b - a for a, b in zip(before, counters(world))] == [0, 0, 1, 0, 0, 0]
    forwards(entry=DROP)
    assert went(world, udp(family, host=BEYOND[family]))[0] == XDP_REDIRECT


def test_policy(world, forwards, family):
    """forward: judge. Denied where it comes in it is nobody's; denied where it leaves, it is dropped as there."""
    world.rules(default={"ingress": "deny"})
    forwards(judge=PORT_FORWARD_JUDGE)
    verdict, _, changed = went(world, udp(family, host=BEYOND[family]))
    assert verdict == XDP_DROP and changed == [0] * 6
    world.rules(default={"egress": "deny"})
    forwards(judge=PORT_FORWARD_JUDGE)
    before = world.drops().get(("policy-deny", EGRESS), 0)
    assert went(world, udp(family, host=BEYOND[family]))[0] == XDP_DROP
    assert world.drops()[("policy-deny", EGRESS)] == before + 1


def test_left_to_the_kernel(world, forwards, family):
    """At the end of its hops, to another MAC, for the host itself, too big for the way."""
    forwards()
    hops = {"ttl": 1} if family == 4 else {"hlim": 1}
    other = udp(family, host=BEYOND[family])
    other.dst = "02:00:00:00:00:77"
    for packet in (udp(family, host=BEYOND[family], **hops), other, udp(family), udp(family, host=BEYOND[family], payload=b"x" * 1500)):
        verdict, out, changed = went(world, packet)
        assert verdict == XDP_PASS and out == bytes(packet) and changed[TAKEN] == 0 and changed[4:] == [0, 0]
