# SPDX-License-Identifier: Apache-2.0
"""
xdp_switch: what a port sends, and a worker is to have. A packet that is taken leaves everything as tc_port_in and delivery leave it: that is run on the same
packet, from the same state. A packet that is not has changed nothing, itself included.
"""
import random
import struct
import time

import pytest
from packets import ICMP, IP, SCTP, TCP, UDP, Dot1Q, Ether, ICMPv6EchoRequest, IPOption_NOP, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, Raw, pong, unreachable
from port_test import A, B, C, GATEWAY, HANDSHAKE, OTHER_MAC, between, ip, shake, tcp, udp
from ports import DEVICE_PEER, GATEWAY_MAC, IS_GATEWAY, L2, LEARNING, REDIRECT, RULE_DENY, TRUNK, leaf
from workers import DROP, DROPPED, PASSED, PORT, STAMP, XDP_DROP, XDP_PASS, XDP_REDIRECT, Left, Workers, own_mac, told
from world import DENY, EGRESS, INGRESS, PATIENCE, REASONS, STATES, Flow

LIMIT_IN, LIMIT_OUT = 1 << 13, 1 << 14
BULK_TICKS = 64
INDEX = {"a": 1, "b": 2}


@pytest.fixture(scope="module")
def workers_of(switch):
    workers = Workers(switch)
    yield workers
    workers.close()


@pytest.fixture(params=["l2", "l3"])
def pair(plane, workers_of, request):
    """Two ports of network 1, switched or routed, both of workers; a gateway; a third port that is not of the document."""
    flags = L2 if request.param == "l2" else 0
    plane.network(1)
    plane.a = plane.port(0, 1, [A[4], A[6]], flags=flags, mtu=1500)
    plane.b = plane.port(1, 1, [B[4], B[6]], flags=flags, mtu=1500)
    plane.c = plane.port(2, 1, [C[4], C[6]], flags=flags, mtu=1500)
    for address in GATEWAY.values():
        plane.endpoint(1, address, flags=IS_GATEWAY, mac=GATEWAY_MAC)
    plane.switched = bool(flags)
    plane.workers = workers_of
    workers_of.clear()
    workers_of.add(plane.a, INDEX["a"])
    workers_of.add(plane.b, INDEX["b"])
    yield plane
    workers_of.clear()


class Sent(Left):
    """By xdp_switch."""

    def __init__(self, plane, port, packet, linear=0):
        super().__init__(plane, plane.workers.switch, packet, port, linear)

    def passed_by(self):
        """It went on to tc_port_in as if nobody had looked."""
        assert self.action == XDP_PASS and self.out == self.packet and self.meta == 0, (self.action, self.out, self.packet)
        assert self.flows == self.flows_before and self.counters == {} and self.fast == {}, (self.counters, self.fast)


def goes_on(plane, port, packet):
    Sent(plane, port, packet).passed_by()


def like_tc(plane, port, packet, kept, sent):
    """A packet that was taken: the same from tc_port_in and delivery, from what was before."""

    def by_tc():
        want = plane.run(port, packet)
        assert (want.action, want.reason) == (REDIRECT, "none"), (want, bytes(packet).hex())
        return want.out

    return plane.workers.devices[sent.taken_as_by(by_tc, kept, index_of(plane, port))]


def index_of(plane, port):
    return next(index for index, device in plane.workers.devices.items() if device is port)


def taken(plane, port, packet, to=None):
    """A worker has it, for that port; nothing differs from what tc_port_in does."""
    kept = plane.workers.keep()
    sent = Sent(plane, port, packet)
    assert sent.action == XDP_REDIRECT, (sent.action, bytes(packet).hex())
    device = like_tc(plane, port, packet, kept, sent)
    assert device is (to or (plane.b if port is plane.a else plane.a))
    return sent


def begin(plane, family, **ports):
    """A UDP flow from a to b, with an answer."""
    assert plane.run(plane.a, udp(plane, family, **ports)).action == REDIRECT
    assert plane.run(plane.b, udp(plane, family, True, **ports)).action == REDIRECT


def echo(plane, family, back=False, **fields):
    if back:
        layer = pong(family, host=B[family], peer=A[family], inbound=False)
        return Ether(src=plane.b.mac, dst=plane.a.mac) / layer.payload
    layer = ICMP(type=8, id=77) if family == 4 else ICMPv6EchoRequest(id=77)
    return between(plane.a, plane.b, ip(family, A[family], B[family], **fields) / layer / Raw(b"x" * 40))


def with_fields(packet, family, **fields):
    """The IP header with other fields, and a checksum that fits."""
    packet = packet.copy()
    header = packet[IP if family == 4 else IPv6]
    for name, value in fields.items():
        header.setfieldval({"ttl": "ttl" if family == 4 else "hlim", "tos": "tos" if family == 4 else "tc"}.get(name, name), value)
    if family == 4:
        del header.chksum
    return packet


def to_gateway(packet):
    packet = packet.copy()
    packet.dst = GATEWAY_MAC
    return packet


# --- what is taken ---


def test_udp(pair, family):
    """Both ways, and the first direction before any answer."""
    first = udp(pair, family)
    goes_on(pair, pair.a, first)
    assert pair.run(pair.a, first).action == REDIRECT
    taken(pair, pair.a, first)
    goes_on(pair, pair.b, udp(pair, family, True))  # it proves the flow
    assert pair.world.flow()[0] == "flows_new"
    assert pair.run(pair.b, udp(pair, family, True)).action == REDIRECT
    assert pair.world.flow()[0] == "flows_other"
    for size in (0, 1, 18, 1400):
        taken(pair, pair.a, udp(pair, family, payload=b"y" * size))
        taken(pair, pair.b, udp(pair, family, True, payload=b"z" * size))


def test_tcp(pair, family):
    """From the end of the handshake to the first FIN."""
    for flags, back, seq, ack in HANDSHAKE:
        packet = tcp(pair, family, flags, back, seq=seq, ack=ack)
        goes_on(pair, pair.b if back else pair.a, packet)
        assert pair.run(pair.b if back else pair.a, packet).action == REDIRECT
    assert (pair.world.flow()[0], pair.world.flow()[1].name) == ("flows", "established")
    for n in range(3):
        taken(pair, pair.a, tcp(pair, family, "PA", seq=101 + 10 * n, ack=501 + 5 * n, payload=b"x" * 10))
        taken(pair, pair.b, tcp(pair, family, "PA", True, seq=501 + 5 * n, ack=111 + 10 * n, payload=b"y" * 5))
    flow = pair.world.flow()[1]
    assert list(flow.packets) == [5, 4] and list(flow.seq_end) == [131, 516]
    for flags in ("S", "SA", "FA", "F", "R", "RA", "SF", "SR", "FPU"):
        goes_on(pair, pair.a, tcp(pair, family, flags, seq=131, ack=516))
        goes_on(pair, pair.b, tcp(pair, family, flags, True, seq=516, ack=131))
    assert pair.run(pair.a, tcp(pair, family, "FA", seq=131, ack=516)).action == REDIRECT
    goes_on(pair, pair.b, tcp(pair, family, "A", True, seq=516, ack=132))
    goes_on(pair, pair.a, tcp(pair, family, "A", seq=132, ack=516))


def test_echo(pair, family):
    goes_on(pair, pair.a, echo(pair, family))
    assert pair.run(pair.a, echo(pair, family)).action == REDIRECT
    assert pair.run(pair.b, echo(pair, family, True)).action == REDIRECT
    taken(pair, pair.a, echo(pair, family))
    taken(pair, pair.b, echo(pair, family, True))


@pytest.mark.parametrize("how", ["gateway", "device"])
def test_routed(pair, family, how):
    """To the gateway's MAC, or the device's own, which is the host's: a hop less, MACs of the gateway's."""
    begin(pair, family)
    packet = udp(pair, family)
    packet.dst = GATEWAY_MAC if how == "gateway" else own_mac(pair.a.device)
    for ttl in (2, 64, 255):
        sent = taken(pair, pair.a, with_fields(packet, family, ttl=ttl, tos=0xB9))
        frame = Ether(told(sent.out)[3])
        assert (frame.src, frame.dst) == (GATEWAY_MAC, pair.b.mac)
        assert (frame[IP].ttl if family == 4 else frame[IPv6].hlim) == ttl - 1
    for ttl in (0, 1):
        goes_on(pair, pair.a, with_fields(packet, family, ttl=ttl))


def test_switched_frames_stay_as_they_are(pair, family):
    """Whatever their hop limit is."""
    begin(pair, family)
    for ttl in (0, 1, 64) if pair.switched else (64,):
        packet = with_fields(udp(pair, family), family, ttl=ttl)
        frame = told(taken(pair, pair.a, packet).out)[3]
        assert (frame == bytes(packet)) == pair.switched


@pytest.mark.parametrize("checksum", [0xFEFF, 0xFFFF, 0x0000, 0xFEFE, 0x00FF])
def test_routed_checksum_wraps(pair, checksum):
    begin(pair, 4)
    packet = to_gateway(udp(pair, 4))
    packet[IP].id = 0
    base = int.from_bytes(bytes(packet)[24:26], "big")
    packet[IP].id = (base - checksum) % 0xFFFF
    out = IP(told(taken(pair, pair.a, packet).out)[3][14:])
    want = out.copy()
    del want.chksum
    assert bytes(out)[:20] == bytes(IP(bytes(want)))[:20] and out.ttl == 63


def test_padding_goes_along(pair, family):
    begin(pair, family)
    taken(pair, pair.a, bytes(udp(pair, family, payload=b"")) + b"\xaa" * 30)


def test_any_checksum_goes_along(pair, family):
    """A workload leaves it to its device, or has none, or a wrong one: nobody asks here, as nobody does in tc_port_in."""
    begin(pair, family)
    for checksum in (0, 1, 0xFFFF):
        packet = udp(pair, family)
        packet[UDP].chksum = checksum
        taken(pair, pair.a, packet)


def test_stamp(pair, family):
    begin(pair, family)
    pair.workers.forward(pair.a, INDEX["a"], PORT | STAMP)
    before = time.monotonic_ns()
    sent = Sent(pair, pair.a, udp(pair, family))
    device, flags, stamp, _ = told(sent.out)
    assert (sent.action, device, flags) == (XDP_REDIRECT, INDEX["b"], 1)
    assert (stamp - before) & 0xFFFFFFFF < 10**9 * PATIENCE


# --- what is not ---


def test_other_flows(pair, family):
    """Neither another's ports, nor protocols that are not followed, nor what is no IP."""
    begin(pair, family)
    goes_on(pair, pair.a, udp(pair, family, sport=1001))
    goes_on(pair, pair.a, tcp(pair, family, "PA", seq=5, ack=6, payload=b"x"))
    goes_on(pair, pair.a, between(pair.a, pair.b, Raw(bytes(46))))
    for layer in (SCTP(sport=1000, dport=2000), Raw(bytes(30))):
        packet = between(pair.a, pair.b, ip(family, A[family], B[family]) / layer)
        goes_on(pair, pair.a, packet)
        pair.run(pair.a, packet)
        goes_on(pair, pair.a, packet)


def test_quoting_errors(pair, family):
    """They follow a flow of another packet."""
    begin(pair, family)
    quoted = udp(pair, family)
    error = Ether(src=pair.b.mac, dst=pair.a.mac) / unreachable(family, quoted, sender=B[family]).payload
    goes_on(pair, pair.b, error)
    assert pair.run(pair.b, error).action == REDIRECT
    goes_on(pair, pair.b, error)


@pytest.mark.parametrize("direction", [INGRESS, EGRESS], ids=["ingress", "egress"])
def test_policy_in_force(pair, family, direction):
    """Of either end: another version than the flow was judged by, and tc_port_in asks again; after that, it is known by the new one."""
    begin(pair, family)
    shake(pair, family)
    segment = tcp(pair, family, "PA", seq=101, ack=501, payload=b"x")
    for port in (pair.b,) if direction == INGRESS else (pair.a,):
        pair.policy(port, direction, port.record.policy[0].root[direction], version=pair.generation + 7)
    for packet in (udp(pair, family), segment):
        goes_on(pair, pair.a, packet)
    goes_on(pair, pair.b, udp(pair, family, True))
    for packet in (udp(pair, family), segment):
        assert pair.run(pair.a, packet).action == REDIRECT
        taken(pair, pair.a, packet)


def test_generation(pair, family):
    """Ports that have nothing for the generation in force."""
    begin(pair, family)
    for port in (pair.a, pair.b):
        port.record.policy[0].generation = pair.generation + 1
        pair.write(port)
        goes_on(pair, pair.a, udp(pair, family))
        port.record.policy[0].generation = pair.generation
        pair.write(port)
    taken(pair, pair.a, udp(pair, family))


def test_denied(pair, family):
    """A policy that forbids it now: tc_port_in ends the flow, no worker ever sees a packet of it."""
    begin(pair, family)
    pair.policy(pair.b, INGRESS, leaf(RULE_DENY, DENY), version=pair.generation + 7)
    for _ in range(2):
        goes_on(pair, pair.a, udp(pair, family))
        assert pair.run(pair.a, udp(pair, family)).reason == "policy-deny"
    assert pair.world.flows() == []


def test_forged(pair, family):
    """Another's MAC, another's address, another's flow."""
    begin(pair, family)
    begin_between(pair, pair.c, pair.b, family)
    for mac in (pair.b.mac, pair.c.mac, OTHER_MAC, GATEWAY_MAC, own_mac(pair.a.device)):
        packet = udp(pair, family)
        packet.src = mac
        goes_on(pair, pair.a, packet)
    others = between(pair.c, pair.b, ip(family, C[family], B[family]) / UDP(sport=1000, dport=2000) / Raw(b"x" * 20))
    goes_on(pair, pair.a, others)
    others.src = pair.a.mac
    goes_on(pair, pair.a, others)
    assert pair.run(pair.a, others).reason == f"source-ip{family}"
    goes_on(pair, pair.b, udp(pair, family))


def begin_between(plane, source, destination, family):
    addresses = {id(plane.a): A, id(plane.b): B, id(plane.c): C}
    s, d = addresses[id(source)][family], addresses[id(destination)][family]
    assert plane.run(source, between(source, destination, ip(family, s, d) / UDP(sport=1000, dport=2000) / Raw(b"x" * 20))).action == REDIRECT
    assert plane.run(destination, between(destination, source, ip(family, d, s) / UDP(sport=2000, dport=1000) / Raw(b"x" * 20))).action == REDIRECT


def test_to_another_mac(pair, family):
    """Of a switched network: MAC and address are of one port. Groups are nobody's."""
    begin(pair, family)
    macs = ["ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "33:33:00:00:00:01"]
    for mac in macs + ([OTHER_MAC, pair.c.mac, own_mac(pair.b.device)] if pair.switched else []):
        packet = udp(pair, family)
        packet.dst = mac
        goes_on(pair, pair.a, packet)


def test_tags(pair, family):
    begin(pair, family)
    for tags in ([(0x8100, 0)], [(0x8100, 7)], [(0x88A8, 7)], [(0x88A8, 7), (0x8100, 9)], [(0x8100, 0), (0x8100, 0)]):
        packet, rest = udp(pair, family), b""
        for kind, vlan in tags:
            rest += struct.pack("!HH", kind, vlan)
        raw = bytes(packet)
        goes_on(pair, pair.a, raw[:12] + rest + raw[12:])


def test_fragments(pair, family):
    begin(pair, family)
    packet = udp(pair, family, payload=bytes(64))
    if family == 4:
        for fields in ({"flags": "MF"}, {"frag": 8}, {"flags": "MF", "frag": 8}):
            goes_on(pair, pair.a, with_fields(packet, 4, **fields))
        taken(pair, pair.a, with_fields(packet, 4, flags="DF"))
    else:
        for fields in ({"m": 1}, {"offset": 8}, {}):  # an atomic fragment, too, has the header
            head = IPv6(src=A[6], dst=B[6]) / IPv6ExtHdrFragment(id=3, **fields)
            goes_on(pair, pair.a, between(pair.a, pair.b, head / packet[UDP].copy()))


def test_options(pair, family):
    begin(pair, family)
    if family == 4:
        head = IP(src=A[4], dst=B[4], options=[IPOption_NOP()] * 4)
    else:
        head = IPv6(src=A[6], dst=B[6]) / IPv6ExtHdrDestOpt()
    packet = between(pair.a, pair.b, head / UDP(sport=1000, dport=2000) / Raw(b"x" * 20))
    goes_on(pair, pair.a, packet)
    assert pair.run(pair.a, packet).action == REDIRECT


@pytest.mark.parametrize("end, flag", [("a", LIMIT_OUT), ("b", LIMIT_IN), ("a", TRUNK), ("b", TRUNK)], ids=["out", "in", "from-trunk", "to-trunk"])
def test_limits_and_trunks(pair, family, end, flag):
    begin(pair, family)
    port = getattr(pair, end)
    port.record.flags |= flag
    pair.write(port)
    goes_on(pair, pair.a, udp(pair, family))
    port.record.flags &= ~flag
    # the limits of the other direction are none of this packet's
    port.record.flags |= {LIMIT_OUT: LIMIT_IN, LIMIT_IN: LIMIT_OUT}.get(flag, 0)
    pair.write(port)
    taken_alone(pair, pair.a, udp(pair, family))


def taken_alone(plane, port, packet):
    """As taken(), where a test run of tc_port_in would need what the test has not set up."""
    sent = Sent(plane, port, packet)
    assert sent.action == XDP_REDIRECT
    return sent


def test_segments(pair, family):
    """Ends that are in different segments."""
    begin(pair, family)
    pair.b.record.vlan = 5
    pair.write(pair.b)
    goes_on(pair, pair.a, udp(pair, family))
    pair.a.record.vlan = 5
    pair.write(pair.a)
    taken(pair, pair.a, udp(pair, family))


def test_a_port_that_learns(pair, family):
    """Several may live there: the full way asks which of them it is. Switched frames say it themselves."""
    begin(pair, family)
    pair.b.record.flags |= LEARNING
    pair.write(pair.b)
    goes_on(pair, pair.a, to_gateway(udp(pair, family)))
    if pair.switched:
        taken(pair, pair.a, udp(pair, family))
    pair.a.record.flags |= LEARNING  # of whoever sends, its own MAC alone
    pair.write(pair.a)
    packet = udp(pair, family)
    packet.src = OTHER_MAC
    goes_on(pair, pair.a, packet)


@pytest.mark.parametrize("end", ["a", "b"])
def test_an_address_that_moved(pair, family, end):
    """Of either end, since the flow was last seen."""
    begin(pair, family)
    port = getattr(pair, end)
    port.record.moved = pair.world.now() + 1 or 1
    pair.write(port)
    goes_on(pair, pair.a, udp(pair, family))


def test_other_networks(pair, family):
    begin(pair, family)
    pair.network(2)
    pair.b.record.network = 2
    pair.write(pair.b)
    goes_on(pair, pair.a, udp(pair, family))


def test_expired(pair, family):
    begin(pair, family)
    shake(pair, family)
    for state in ("udp-replied", "established"):
        pair.world.control.timeout[STATES.index(state)] = 1
    start = pair.world.now()
    while (pair.world.now() - start) & 0xFFFFFFFF < 4:
        time.sleep(0.005)
    goes_on(pair, pair.a, udp(pair, family))
    goes_on(pair, pair.a, tcp(pair, family, "PA", seq=101, ack=501, payload=b"x"))


def test_too_big(pair, family):
    """For the other end: by the kernel, as is what its sender's device should not have let out, and what comes behind that for a while."""
    begin(pair, family)
    head = 28 if family == 4 else 48
    pair.b.record.mtu = 1400
    pair.write(pair.b)
    taken(pair, pair.a, udp(pair, family, payload=bytes(1400 - head)))
    goes_on(pair, pair.a, udp(pair, family, payload=bytes(1401 - head)))
    taken(pair, pair.a, udp(pair, family))
    pair.b.record.mtu = 1500
    pair.write(pair.b)
    taken(pair, pair.a, udp(pair, family, payload=bytes(1500 - head)))
    sent = Sent(pair, pair.a, udp(pair, family, payload=bytes(1501 - head)))
    assert (sent.action, sent.out, sent.counters, sent.fast) == (XDP_PASS, sent.packet, {}, {})
    noted = pair.world.now()
    flow = pair.world.flow()[1]
    side = 0 if list(flow.device) == [pair.a.ifindex, pair.b.ifindex] else 1
    bulk = struct.unpack("<II", bytes(flow.reserved[:8]))
    assert bulk[side] and not bulk[1 - side]
    taken(pair, pair.b, udp(pair, family, True))  # the other way nothing large was sent
    goes_on(pair, pair.a, udp(pair, family))
    while (pair.world.now() - noted) & 0xFFFFFFFF <= BULK_TICKS + 1:
        time.sleep(0.02)
    sent = Sent(pair, pair.a, udp(pair, family))
    assert sent.action == XDP_REDIRECT and not any(pair.world.flow()[1].reserved)


def test_own_tunnels(pair, family):
    """UDP to a tunnel's port may have a checksum within that nobody here completes."""
    for port in (4789, 6081, 8472):
        begin(pair, family, sport=1000, dport=port)
        goes_on(pair, pair.a, udp(pair, family, dport=port))
        taken(pair, pair.b, udp(pair, family, True, dport=port))  # from that port it is none


def test_devices_of_other_documents(pair, family):
    """Only between devices of one group, both of which are there."""
    begin(pair, family)
    begin_between(pair, pair.a, pair.c, family)
    packet = between(pair.a, pair.c, ip(family, A[family], C[family]) / UDP(sport=1000, dport=2000) / Raw(b"x" * 20))
    goes_on(pair, pair.a, packet)
    goes_on(pair, pair.c, between(pair.c, pair.a, ip(family, C[family], A[family]) / UDP(sport=2000, dport=1000) / Raw(b"x" * 20)))
    pair.workers.add(pair.c, 3, group=8)
    goes_on(pair, pair.a, packet)
    pair.workers.forward(pair.c, 3, 0)  # of this group, and no port
    goes_on(pair, pair.a, packet)
    pair.workers.forward(pair.c, 3, PORT)
    taken(pair, pair.a, packet, pair.c)
    pair.workers.remove_device(3)
    goes_on(pair, pair.a, packet)


def test_matches(pair, family):
    """Only what the document asks for."""
    begin(pair, family)
    begin(pair, family, sport=1001, dport=2001)
    pair.workers.clear()
    pair.workers.add(pair.b, INDEX["b"])
    pair.workers.add(pair.a, INDEX["a"], match={"protocol": 17, "dport": 2001})
    goes_on(pair, pair.a, udp(pair, family))
    taken(pair, pair.a, udp(pair, family, sport=1001, dport=2001))


def test_no_socket(pair, family):
    """No agent: by the kernel, unless the document says that flows of workers end with them; others' packets go on even then."""
    begin(pair, family)
    pair.workers.remove_socket(INDEX["a"])
    packet = udp(pair, family)
    sent = Sent(pair, pair.a, packet)
    assert (sent.action, sent.out, sent.counters, sent.flows) == (XDP_PASS, sent.packet, {}, sent.flows_before)
    assert sent.fast == {(INDEX["a"], PASSED): (1, len(packet))}
    pair.workers.forward(pair.a, INDEX["a"], PORT | DROP)
    sent = Sent(pair, pair.a, packet)
    dropped = ("drop", REASONS.index("fast-path") * 2 + EGRESS)
    assert sent.action == XDP_DROP and sent.flows == sent.flows_before and sent.counters[dropped] == (1, len(packet))
    assert sent.fast == {(INDEX["a"], DROPPED): (1, len(packet))}
    goes_on(pair, pair.a, udp(pair, family, sport=1001))
    goes_on(pair, pair.a, tcp(pair, family))
    taken(pair, pair.b, udp(pair, family, True))


def test_peers_and_turned_flows(pair, family):
    """What has an end behind a peer goes by the tunnel; what the host has turned, or answers a Service, goes by the host."""
    begin(pair, family)
    ((table, key, flow),) = pair.world.flows()
    table = table.replace("flows", f"flows{family}", 1)
    side = list(flow.device).index(pair.b.ifindex)
    for change in ("peer", "turned"):
        other = Flow.from_buffer_copy(bytes(flow))
        if change == "peer":
            other.device[side] = DEVICE_PEER | 1
        else:
            other.flags |= 1 << 7  # HD_FLOW_TURNED
        pair.world.store(table, key, other)
        goes_on(pair, pair.a, udp(pair, family))
    pair.world.store(table, key, flow)
    taken(pair, pair.a, udp(pair, family))


def test_unknown_devices(pair, family):
    """Neither a device that is no port, nor a port that is not of workers, nor one that has gone."""
    begin(pair, family)
    goes_on(pair, pair.ports[4], udp(pair, family))
    pair.workers.remove_device(INDEX["a"])
    goes_on(pair, pair.a, udp(pair, family))
    pair.workers.forward(pair.a, INDEX["a"], PORT)
    port, pair.b.record.ifindex = pair.b, 0
    pair.write(port)
    goes_on(pair, pair.a, udp(pair, family))


def test_truncated(pair, family):
    """Cut anywhere it says more than there is."""
    begin(pair, family)
    packet = bytes(udp(pair, family))
    for length in range(14, len(packet)):
        goes_on(pair, pair.a, packet[:length])


# --- at random ---

FLIPS = 60


class Chance:
    """A packet of some flow, and now and then something wrong with it. plain: nothing is."""

    def __init__(self, plane, family, seed):
        self.plane, self.family, self.random = plane, family, random.Random(seed)
        self.seq = {False: 101, True: 501}

    def maybe(self, chance=0.06):
        self.plain &= not (hit := self.random.random() < chance)
        return hit

    def packet(self):
        r, family, plane = self.random, self.family, self.plane
        self.plain, back = True, r.random() < 0.5
        kind = r.choice(["udp", "udp", "tcp", "tcp", "echo"])
        payload = r.randbytes(r.choice([0, 1, 18, 100, 500, 1300]))
        if kind == "udp":
            packet = udp(plane, family, back, payload=payload)
        elif kind == "tcp":
            flags = "".join(r.sample("PAU", r.randrange(4))) if self.maybe(0.2) else r.choice(["A", "PA"])
            if self.maybe(0.1):
                flags += r.choice("SFRE")
            seq, ack = self.seq[back], self.seq[not back]
            if self.maybe(0.1):
                seq, ack = (r.choice([seq, ack, r.getrandbits(32)]) for _ in range(2))
            packet = tcp(plane, family, flags, back, seq=seq & 0xFFFFFFFF, ack=ack, payload=payload)
            packet[TCP].window = r.getrandbits(16)
        else:
            packet = echo(plane, family, back)
        if r.random() < 0.4:
            packet = to_gateway(packet)
        fields = {"tos": r.getrandbits(8), "ttl": r.choice([0, 1]) if self.maybe() else r.randrange(2, 256)}
        if family == 4:
            fields.update(id=r.getrandbits(16), flags=r.choice(["", "DF"]))
            if self.maybe():
                fields.update(r.choice([{"flags": "MF"}, {"frag": 3}, {"options": [IPOption_NOP()] * 4}, {"src": r.choice([B[4], C[4], "10.9.9.9"])}]))
        elif self.maybe():
            fields.update(r.choice([{"src": C[6]}, {"dst": C[6]}, {"nh": 0}, {"plen": 3}]))
        packet = with_fields(packet, family, **fields)
        if self.maybe():
            packet.src = r.choice([plane.a.mac, plane.b.mac, plane.c.mac, GATEWAY_MAC, OTHER_MAC])
        if self.maybe():
            packet.dst = r.choice([plane.a.mac, plane.b.mac, plane.c.mac, "ff:ff:ff:ff:ff:ff", OTHER_MAC])
        raw = bytearray(bytes(packet))
        if self.maybe():
            raw[12:12] = struct.pack("!HH", r.choice([0x8100, 0x88A8]), r.choice([0, 5]))
        while self.maybe(0.08):
            raw[r.randrange(min(FLIPS, len(raw)))] ^= 1 << r.randrange(8)
        if self.maybe():
            del raw[r.randrange(14, len(raw)):]
        if r.random() < 0.2:
            raw += r.randbytes(r.randrange(30))
        return plane.b if back else plane.a, bytes(raw), kind, back, len(payload)


@pytest.mark.parametrize("seed", range(2))
def test_at_random(pair, family, seed):
    """Whatever it is: taken, and then tc_port_in would have sent the same frame to the same port and counted the same; or as it was."""
    chance, count = Chance(pair, family, f"{seed} {family} {pair.switched}"), [0, 0]
    begin(pair, family)
    shake(pair, family)
    for port, back in ((pair.a, False), (pair.b, True)):
        assert pair.run(port, echo(pair, family, back)).action == REDIRECT
    for _ in range(250 // PATIENCE):
        port, packet, kind, back, size = chance.packet()
        kept = pair.workers.keep()
        sent = Sent(pair, port, packet)
        if sent.action == XDP_REDIRECT:
            page = pair.explain(port, packet)
            pair.workers.restore(kept)
            to = like_tc(pair, port, packet, kept, sent)
            assert page.to == to.ifindex, packet.hex()
            count[0] += 1
            chance.seq[back] += size if kind == "tcp" and chance.plain else 0
            continue
        sent.passed_by()
        assert not chance.plain, (kind, back, packet.hex())
        count[1] += 1
    assert min(count) > 40 // PATIENCE, count


def test_never_more_than_tc(pair, family):
    """Every flip of one bit in the headers of each kind of packet (of every so many, where that takes long)."""
    begin(pair, family)
    shake(pair, family)
    packets = (udp(pair, family), to_gateway(udp(pair, family)), tcp(pair, family, "PA", seq=101, ack=501, payload=b"x"))
    for original in packets:
        for bit in range(0, 8 * (len(original) - len(original.lastlayer())), PATIENCE):
            packet = bytearray(bytes(original))
            packet[bit // 8] ^= 1 << bit % 8
            kept = pair.workers.keep()
            sent = Sent(pair, pair.a, bytes(packet))
            if sent.action == XDP_REDIRECT:
                like_tc(pair, pair.a, bytes(packet), kept, sent)
                pair.workers.restore(kept)
            else:
                sent.passed_by()
