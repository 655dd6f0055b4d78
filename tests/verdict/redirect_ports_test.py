# SPDX-License-Identifier: Apache-2.0
"""
Frames that XDP sends from and to ports itself, without a worker: as the kernel's way would have them leave, counted alike, and only with the leave of the
port's policy. A frame whose checksum is left to its device is none of them, as nobody would complete it.
"""
import random
import struct

import pytest
from packets import IP, TCP, UDP, IPv6
from ports import HOST as TO_HOST
from ports import REDIRECT
from switch_test import begin, echo, goes_on, index_of, pair, shake, tcp, to_gateway, udp, workers_of  # noqa: F401 pylint: disable=unused-import
from worker_test import (DENY_2000, IN, LIMIT_IN, UP, Judged, Sent, by_kernel_home, by_kernel_out, converse, homeward, net,  # noqa: F401
                         not_taken, outward, put_in_force, routed)  # pylint: disable=unused-import
from workers import DIRECT_SEVERAL, DROP, DROPPED, PASSED, PORT, QUEUES, TAKEN, TOO_BIG, XDP_DROP, XDP_PASS, XDP_REDIRECT, told
from world import EGRESS, INGRESS, REASONS, U32

DIRECT = 1 << 5  # HD_FAST_DIRECT


def take_from_xdp(plane, there=True):
    """Every device takes frames from XDP, and there is no socket; or as it was."""
    workers, world = plane.workers, plane.world
    for index, device in workers.devices.items():
        key = struct.pack("<I", device.ifindex)
        if there:
            workers.forward(device, index, DIRECT | (PORT if device not in plane.ports[4:] else 0))
            workers.remove_socket(index)
            world.store("fast_exits", key, key)
        else:
            world.lib.bpf_map_delete_elem(world.fd("fast_exits"), key)


@pytest.fixture
def direct(net):  # noqa: F811 pylint: disable=redefined-outer-name
    """A port and two uplinks."""
    take_from_xdp(net)
    yield net
    take_from_xdp(net, False)


@pytest.fixture
def two(pair):  # noqa: F811 pylint: disable=redefined-outer-name
    """Two ports."""
    take_from_xdp(pair)
    yield pair
    take_from_xdp(pair, False)


def redirected(plane, look, frame, to, way):
    """look() at the frame as it comes in; way() is the kernel's. It leaves by `to` as it would by that, with nothing in front."""
    workers, kept = plane.workers, plane.workers.keep()
    exits = {index: plane.world.percpu("fast_redirects", index, 16) for index in workers.devices}
    sent = look(frame)
    assert sent.action == XDP_REDIRECT, (sent.action, sent.counters, sent.fast)
    changed = {index: plane.world.percpu("fast_redirects", index, 16)[0] - n for index, (n, _) in exits.items()}
    assert changed == {index: int(device is to) for index, device in workers.devices.items()}
    workers.restore(kept)
    counters = workers.counters()
    want = way(frame)
    assert sent.out[sent.meta:] == want, (sent.out[sent.meta:].hex(), want)
    assert sent.counters == workers.since(counters) != {}
    assert sent.flows == workers.flows()
    return sent


def out_of(plane, frame):
    """From the port by the uplink."""
    sent = redirected(plane, lambda f: Sent(plane, plane.a, f), frame, plane.up, lambda f: by_kernel_out(plane, f))
    assert sent.meta == 0 and sent.fast == {(IN, TAKEN): (1, len(bytes(frame)))}


def into(plane, frame):
    """From the uplink to the port."""
    sent = redirected(plane, lambda f: Judged(plane, f, plane.up), frame, plane.a, lambda f: by_kernel_home(plane, f))
    assert sent.fast == {(UP, TAKEN): (1, len(bytes(frame)))}


def across(plane, port, frame):
    """From a port to the other one."""
    def by_kernel(packet):
        result = plane.run(port, packet)
        assert (result.action, result.reason) == (REDIRECT, "none")
        return result.out

    sent = redirected(plane, lambda f: Sent(plane, port, f), frame, plane.b if port is plane.a else plane.a, by_kernel)
    assert sent.meta == 0 and sent.fast == {(index_of(plane, port), TAKEN): (1, len(bytes(frame)))}


# --- what goes ---


def test_several_buffers(two, family):
    """From port to port: only where the other one takes frames in several buffers, whatever the port that it came by takes."""
    begin(two, family)
    index = index_of(two, two.a)
    frame = udp(two, family, payload=bytes(1300))
    for a, b, goes in ((DIRECT_SEVERAL, 0, False), (0, DIRECT_SEVERAL, True)):
        for port, more in ((two.a, a), (two.b, b)):
            two.workers.forward(port, index_of(two, port), DIRECT | PORT | more)
        sent = Sent(two, two.a, frame, linear=600)
        if goes:
            assert sent.action == XDP_REDIRECT and sent.fast == {(index, TAKEN): (1, len(bytes(frame)))}
        else:
            assert sent.action == XDP_PASS and sent.out == sent.packet and sent.counters == {}
            assert sent.fast == {(index, PASSED): (1, len(bytes(frame))), (index, TOO_BIG): (1, len(bytes(frame)))}


@pytest.mark.parametrize("kind", ["udp", "echo"])
def test_datagrams(direct, family, kind):
    converse(direct, family, kind)
    for ttl in (2, 64):
        out_of(direct, outward(direct, family, kind, ttl=ttl))
        into(direct, homeward(direct, family, kind, ttl=ttl))
    goes_on(direct, direct.a, outward(direct, family, kind, ttl=1))
    not_taken(direct, homeward(direct, family, kind, ttl=1))


def test_tcp(direct, family):
    converse(direct, family, "tcp")
    for n in range(2):
        out_of(direct, outward(direct, family, "tcp", b"x" * 10, flags="PA", seq=101 + 10 * n, ack=501 + 5 * n))
        into(direct, homeward(direct, family, "tcp", b"y" * 5, flags="PA", seq=501 + 5 * n, ack=111 + 10 * n))
    for flags in ("S", "FA", "RA"):
        goes_on(direct, direct.a, outward(direct, family, "tcp", b"", flags=flags, seq=121, ack=511))


def test_between_ports(two, family):
    """Switched and routed."""
    begin(two, family)
    shake(two, family)
    for port, back in ((two.a, False), (two.b, True)):
        assert two.run(port, echo(two, family, back)).action == REDIRECT
    for port, back in ((two.a, False), (two.b, True)):
        across(two, port, udp(two, family, back))
        across(two, port, echo(two, family, back))
        across(two, port, to_gateway(udp(two, family, back, payload=b"z" * 1001)))
    across(two, two.a, tcp(two, family, "PA", seq=101, ack=501, payload=b"x" * 10))


# --- the port's policy ---


def test_nobody_asked_for_it(direct, family):
    """A port that opens nothing gets nothing past its policy: neither what has no flow yet, nor the first answer, which proves one."""
    def goes_on_home(frame):
        sent = Judged(direct, frame, direct.up)
        assert (sent.action, sent.out[sent.meta:], sent.fast) == (XDP_PASS, sent.packet, {})

    goes_on_home(homeward(direct, family))
    goes_on_home(homeward(direct, family, "tcp", b"", flags="S", seq=501))
    assert isinstance(by_kernel_out(direct, outward(direct, family)), bytes)
    goes_on_home(homeward(direct, family))


@pytest.mark.parametrize("change", ["policy", "mtu", "limit", "moved", "network"])
def test_the_port_has_changed(direct, family, change):
    """Its policy, or what else would have the port's own program look: that has the next one, and XDP touches nothing."""
    converse(direct, family)
    into(direct, homeward(direct, family))
    record = direct.a.record
    if change == "policy":
        for direction in range(2):
            direct.policy(direct.a, direction, record.policy[0].root[direction], version=direct.generation + 7)
    elif change == "mtu":
        record.mtu = 47
    elif change == "limit":
        record.flags |= LIMIT_IN
    elif change == "moved":
        record.moved = direct.world.now() + 1 or 1
    else:
        record.flags &= ~TO_HOST
    direct.write(direct.a)
    not_taken(direct, homeward(direct, family))


@pytest.mark.parametrize("change", ["sender", "receiver"])
def test_a_port_of_two_has_changed(two, family, change):
    begin(two, family)
    across(two, two.a, udp(two, family))
    port, direction = (two.a, EGRESS) if change == "sender" else (two.b, INGRESS)
    two.policy(port, direction, port.record.policy[0].root[direction], version=two.generation + 7)
    goes_on(two, two.a, udp(two, family))


def test_the_uplinks_policy_has_changed(direct, family):
    put_in_force(direct, True)
    take_from_xdp(direct)
    converse(direct, family)
    out_of(direct, outward(direct, family))
    put_in_force(direct, True, **DENY_2000)
    goes_on(direct, direct.a, outward(direct, family))


# --- checksums ---


def left(frame, family):
    """The frame as a workload sends it that leaves the checksum to its device: the sum of the pseudo-header is all there is."""
    packet = frame.copy()
    header, layer = packet[IP if family == 4 else IPv6], packet[TCP if TCP in packet else UDP]
    words = struct.pack("!HH", len(bytes(layer)), 6 if TCP in packet else 17)
    words += b"".join(bytes(header)[at:at + 4 * (1 if family == 4 else 4)] for at in ((12, 16) if family == 4 else (8, 24)))
    total = sum(struct.unpack(f"!{len(words) // 2}H", words))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    layer.chksum = total
    return packet


def stays(plane, port, frame):
    """By no device: to the kernel, which completes it, where no worker is; else to the worker, which does."""
    index, frame = index_of(plane, port), bytes(frame)
    exits = [plane.world.percpu("fast_redirects", n, 16) for n in plane.workers.devices]
    sent = Sent(plane, port, frame)
    assert (sent.action, sent.out, sent.counters, sent.flows) == (XDP_PASS, frame, {}, sent.flows_before)
    assert sent.fast == {(index, PASSED): (1, len(frame))}
    plane.world.store("xsks", struct.pack("<I", index * QUEUES), U32(plane.workers.socket.fileno()))
    sent = Sent(plane, port, frame)
    assert sent.action == XDP_REDIRECT and plane.workers.devices[told(sent.out)[0]] is not port
    plane.workers.remove_socket(index)
    assert exits == [plane.world.percpu("fast_redirects", n, 16) for n in plane.workers.devices]


def payloads(seed):
    """Of even and odd length: what of it is in the sum must make no difference."""
    chance = random.Random(seed)
    return [b"", b"x", b"\xff" * 20] + [chance.randbytes(chance.randrange(1, 1400)) for _ in range(5)]


def test_checksums_that_are_left_to_the_device(two, family):
    begin(two, family)
    shake(two, family)
    for payload in payloads(f"ports {family}"):
        frame = udp(two, family, payload=payload)
        stays(two, two.a, left(frame, family))
        across(two, two.a, frame)
        # each time the same segment, by its numbers: nothing is new for the flow
        frame = tcp(two, family, "PA", seq=101, ack=501, payload=payload)
        stays(two, two.a, left(frame, family))
        across(two, two.a, frame)


def test_checksums_that_are_left_to_the_device_by_an_uplink(direct, family):
    converse(direct, family)
    for payload in payloads(f"uplink {family}"):
        stays(direct, direct.a, left(outward(direct, family, payload=payload), family))
        out_of(direct, outward(direct, family, payload=payload))


def test_checksums_of_any_other_kind(two, family):
    """None at all, or one that is wrong, is the sender's own: as it came."""
    begin(two, family)
    for checksum in (0, 1, 0xFFFF):
        frame = udp(two, family)
        frame[UDP].chksum = checksum
        across(two, two.a, frame)


@pytest.mark.parametrize("why", ["checksum", "gone"])
def test_fallback_drop(two, family, why):
    """What XDP cannot send is `fallback`'s: dropped by its name where the document says so, and nothing of another flow."""
    begin(two, family)
    two.workers.forward(two.a, index_of(two, two.a), PORT | DIRECT | DROP)
    frame = udp(two, family)
    across(two, two.a, frame)
    if why == "checksum":
        frame = left(frame, family)
    else:
        two.world.lib.bpf_map_delete_elem(two.world.fd("fast_exits"), struct.pack("<I", two.b.ifindex))
    sent = Sent(two, two.a, frame)
    dropped = ("drop", REASONS.index("fast-path") * 2 + EGRESS)
    assert sent.action == XDP_DROP and sent.flows == sent.flows_before and sent.counters[dropped] == (1, len(frame))
    assert sent.fast == {(index_of(two, two.a), DROPPED): (1, len(frame))}
    goes_on(two, two.a, udp(two, family, sport=1001))
