# SPDX-License-Identifier: Apache-2.0
"""
Workers and the host's own route: from a port out by an uplink (xdp_switch), from an uplink to a port or another uplink (xdp_uplink). What is taken leaves
everything as the hooks leave it that the packet meets in the kernel, one after the other; what is not goes on as it came.
"""
import struct

import pytest
from packets import ICMP, IP, TCP, UDP, Ether, ICMPv6EchoReply, ICMPv6EchoRequest, IPOption_NOP, IPv6, Raw
from port_test import A, GATEWAY, HANDSHAKE, ip
from ports import GATEWAY_MAC, IS_GATEWAY, L2, NETWORK_HOST, NEXT, TUNNEL_PORT, VXLAN
from ports import HOST as TO_HOST
from switch_test import LIMIT_IN, LIMIT_OUT, Sent, goes_on, index_of, with_fields
from workers import DROP, FAST, INSIDE, PASSED, PORT, TOO_BIG, XDP_DROP, XDP_PASS, XDP_REDIRECT, Left, Routes, Workers, own_mac, uplink_flags
from world import BUILTIN, EGRESS, PORT_OUT, PORT_TUNNEL, TC_OUT, XDP

UP, OTHER, IN = 5, 6, 1  # indexes of the devices
HOT = 1 << 6  # HD_FLOW_HOT
FAR, ELSEWHERE = {4: "198.51.100.9", 6: "2001:db8:51::9"}, {4: "203.0.113.9", 6: "2001:db8:52::9"}
SECOND_OWN, SECOND_HOP = {4: "192.0.2.129", 6: "2001:db8:2::1"}, {4: "192.0.2.135", 6: "2001:db8:2::7"}


@pytest.fixture(scope="module")
def routed(switch):
    """Two uplinks with routes, the plane's ports 4 and 5; a port's own addresses are routed to it by the host."""
    workers = Workers(switch)
    one = Routes(switch.ports[4])
    two = Routes(switch.ports[5], ("203.0.113.0/24", "2001:db8:52::/64"), SECOND_OWN, SECOND_HOP)
    inside = Routes(switch.ports[0], ("10.1.0.1/32", "2001:db8:a::1/128"), {4: "10.1.0.254", 6: "2001:db8:a::fe"}, A)
    yield workers
    workers.close()
    for each in (one, two, inside):
        each.close()


@pytest.fixture
def net(plane, routed):
    """A port whose network reaches the host, and the uplinks, all of workers."""
    flags = L2 | TO_HOST
    plane.network(1, NETWORK_HOST)
    plane.a = plane.port(0, 1, [A[4], A[6]], flags=flags, mtu=1500)
    for address in GATEWAY.values():
        plane.endpoint(1, address, flags=IS_GATEWAY, mac=GATEWAY_MAC)
    plane.up, plane.other, plane.workers = plane.ports[4], plane.ports[5], routed
    plane.judged = False
    routed.clear()
    uplinks(plane)
    routed.add(plane.a, IN)
    routed.add(plane.up, UP, flags=0)
    routed.add(plane.other, OTHER, flags=0)
    yield plane
    routed.clear()
    for device in (plane.up, plane.other):
        plane.world.port(device.ifindex, present=False)


def uplinks(plane, judge=False, more=0):
    for device in (plane.up, plane.other):
        plane.world.port(device.ifindex, uplink_flags(judge) | more)


def body(kind, back, sport=1000, dport=2000, **fields):
    if kind == "udp":
        return UDP(sport=dport if back else sport, dport=sport if back else dport)
    if kind == "tcp":
        return TCP(sport=dport if back else sport, dport=sport if back else dport, window=8000, **fields)
    if kind == 4:
        return ICMP(type=0 if back else 8, id=77)
    return (ICMPv6EchoReply if back else ICMPv6EchoRequest)(id=77)


def outward(net, family, kind="udp", payload=b"x" * 20, ttl=64, to=FAR, **fields):
    """From the workload to somebody far away."""
    kind = family if kind == "echo" else kind
    packet = Ether(src=net.a.mac, dst=GATEWAY_MAC) / ip(family, A[family], to[family]) / body(kind, False, **fields) / Raw(payload)
    return with_fields(packet, family, ttl=ttl)


def homeward(net, family, kind="udp", payload=b"x" * 20, ttl=64, **fields):
    """The answer, as it comes in by the uplink."""
    kind = family if kind == "echo" else kind
    packet = Ether(src=Routes.HOP_MAC, dst=own_mac(net.up.device)) / ip(family, FAR[family], A[family]) / body(kind, True, **fields) / Raw(payload)
    return with_fields(packet, family, ttl=ttl)


def across(net, family, back=False, ttl=64, payload=b"x" * 20, **fields):
    """From one uplink to the other."""
    source, destination, device = (ELSEWHERE, FAR, net.other) if back else (FAR, ELSEWHERE, net.up)
    layer = ip(family, source[family], destination[family]) / body("udp", back, **fields) / Raw(payload)
    return with_fields(Ether(src=Routes.HOP_MAC, dst=own_mac(device.device)) / layer, family, ttl=ttl)


def forwarded(frame, out, mac=None):
    """As the host's stack sends it on."""
    packet = Ether(bytes(frame))
    packet.src, packet.dst = own_mac(out.device), mac or Routes.HOP_MAC
    family = 4 if IP in packet else 6
    return bytes(with_fields(packet, family, ttl=(packet[IP].ttl if family == 4 else packet[IPv6].hlim) - 1))


# --- the kernel's way ---


def by_kernel_out(net, frame, up=None):
    """tc_port_in, the stack, tc_uplink_out. The frame that leaves, or the reason of the one that drops it."""
    up = up or net.up
    result = net.run(net.a, frame)
    if (result.action, result.reason) != (NEXT, "none"):
        return result.reason
    assert result.out == bytes(frame)
    sent = forwarded(frame, up)
    result = net.run(up, sent, hook=TC_OUT, ingress_ifindex=net.a.ifindex)
    return sent if result.action == NEXT else result.reason


def in_by(net, frame, device=None):
    """xdp_uplink as if there were no workers: tc_uplink_in believes it, and asks nothing more."""
    device = device or net.up
    net.world.port(device.ifindex, uplink_flags(net.judged) & ~FAST)
    run = net.world.raw(XDP, frame, ifindex=device.ifindex)
    net.world.port(device.ifindex, uplink_flags(net.judged))
    return run.verdict == XDP_PASS


def by_kernel_home(net, frame):
    """xdp_uplink, the stack, tc_port_out."""
    if not in_by(net, frame):
        return "dropped by XDP"
    sent = forwarded(frame, net.a, A_MAC)
    result = net.run(net.a, sent, hook=PORT_OUT, ingress_ifindex=net.up.ifindex)
    return sent if (result.action, result.out) == (NEXT, sent) else result.reason


A_MAC = Routes.HOP_MAC  # of the host's neighbour table, which says where the port's addresses are


def by_kernel_across(net, frame, back=False):
    """xdp_uplink, the stack, tc_uplink_out."""
    device, out = (net.other, net.up) if back else (net.up, net.other)
    if not in_by(net, frame, device):
        return "dropped by XDP"
    sent = forwarded(frame, out)
    result = net.run(out, sent, hook=TC_OUT, ingress_ifindex=device.ifindex)
    return sent if result.action == NEXT else result.reason


class Judged(Left):
    """By xdp_uplink."""

    def __init__(self, net, frame, device, linear=0):
        super().__init__(net, XDP, frame, device, linear)


def compare(net, frame, sent, kept, way, index, to, metadata):
    """sent was taken: by the kernel's way the same frame would leave, and the same be counted."""
    assert sent.action == XDP_REDIRECT, (sent.action, sent.counters, sent.fast)

    def by_kernel():
        want = way(net, frame)
        assert isinstance(want, bytes), want
        return want

    assert sent.taken_as_by(by_kernel, kept, index) == to and sent.meta == (8 if metadata else 0)


def taken_out(net, frame, way=by_kernel_out):
    kept = net.workers.keep()
    compare(net, frame, Sent(net, net.a, frame), kept, way, IN, UP, False)


def taken_home(net, frame):
    kept = net.workers.keep()
    compare(net, frame, Judged(net, frame, net.up), kept, by_kernel_home, UP, IN, True)


def not_taken(net, frame, device=None):
    """It went on as it came, and as xdp_uplink without workers leaves it."""
    device, kept = device or net.up, net.workers.keep()
    sent = Judged(net, frame, device)
    assert sent.action == XDP_PASS and sent.out[sent.meta:] == sent.packet and sent.meta == 16 and sent.fast == {}
    assert sent.as_by(lambda: in_by(net, frame, device), kept)


# --- a port to an uplink, and back ---


def converse(net, family, kind="udp", **ports):
    """A flow that both sides have heard of."""
    if kind == "tcp":
        for flags, back, seq, ack in HANDSHAKE:
            make, way = (homeward, by_kernel_home) if back else (outward, by_kernel_out)
            assert isinstance(way(net, make(net, family, "tcp", b"", flags=flags, seq=seq, ack=ack)), bytes)
        return
    assert isinstance(by_kernel_out(net, outward(net, family, kind, **ports)), bytes)
    assert isinstance(by_kernel_home(net, homeward(net, family, kind, **ports)), bytes)


@pytest.mark.parametrize("kind", ["udp", "echo"])
def test_datagrams(net, family, kind):
    goes_on(net, net.a, outward(net, family, kind))
    assert isinstance(by_kernel_out(net, outward(net, family, kind)), bytes)
    taken_out(net, outward(net, family, kind))
    assert isinstance(by_kernel_home(net, homeward(net, family, kind)), bytes)
    for ttl in (2, 64, 255):
        taken_out(net, outward(net, family, kind, ttl=ttl))
        taken_home(net, homeward(net, family, kind, ttl=ttl))
    for ttl in (0, 1):
        goes_on(net, net.a, outward(net, family, kind, ttl=ttl))
        not_taken(net, homeward(net, family, kind, ttl=ttl))


def test_first_answer(net, family):
    """It proves the flow, which is the port's program's."""
    assert isinstance(by_kernel_out(net, outward(net, family)), bytes)
    sent = Judged(net, homeward(net, family), net.up)
    assert (sent.action, sent.fast) == (XDP_PASS, {})


def test_tcp(net, family):
    converse(net, family, "tcp")
    for n in range(3):
        taken_out(net, outward(net, family, "tcp", b"x" * 10, flags="PA", seq=101 + 10 * n, ack=501 + 5 * n))
        taken_home(net, homeward(net, family, "tcp", b"y" * 5, flags="PA", seq=501 + 5 * n, ack=111 + 10 * n))
    for flags in ("S", "FA", "RA", "SA"):
        goes_on(net, net.a, outward(net, family, "tcp", b"", flags=flags, seq=131, ack=516))
    for flags in ("FA", "RA"):
        sent = Judged(net, homeward(net, family, "tcp", b"", flags=flags, seq=516, ack=131), net.up)
        assert (sent.action, sent.fast) == (XDP_PASS, {}), flags


def put_in_force(net, judge, **rules):
    """Of the uplinks: the records of ports go along with the generation."""
    net.judged = judge
    net.world.rules(default="{ingress: allow, egress: allow}", host=f"  forward: {'judge' if judge else 'pass'}\n", **rules)
    net.a.record.policy[0].generation = net.generation
    net.write(net.a)
    net.network(1, NETWORK_HOST)
    uplinks(net, judge)


DENY_2000 = {"egress": [{"action": "deny", "ports": [{"protocol": p, "port": 2000} for p in ("UDP", "TCP")]}]}


def test_busy_tcp(net, family):
    """The uplink's numbers are lent to the cache: workers' packets go on from there, and nothing is lost; nor do they after the policy has changed."""
    put_in_force(net, True)
    converse(net, family, "tcp")
    count = 0
    for n in range(60):
        # where the time of a loan is over, it is the kernel's to renew it
        frame = outward(net, family, "tcp", b"x" * 10, flags="PA", seq=101 + 10 * n, ack=501 + 5 * n)
        workers = n % 2 and Sent(net, net.a, frame).action == XDP_REDIRECT
        assert workers or isinstance(by_kernel_out(net, frame), bytes)
        count += workers
        frame = homeward(net, family, "tcp", b"y" * 5, flags="PA", seq=501 + 5 * n, ack=111 + 10 * n)
        assert Judged(net, frame, net.up).action == XDP_REDIRECT if n % 3 else isinstance(by_kernel_home(net, frame), bytes)
    assert count >= 15
    (inside,) = [(key, flow) for _, key, flow in net.world.flows() if net.a.ifindex in list(flow.device)]
    (outside,) = [flow for _, _, flow in net.world.flows() if net.a.ifindex not in list(flow.device)]
    assert outside.flags & HOT and list(inside[1].packets) == [62, 61]
    frame = outward(net, family, "tcp", b"x" * 10, flags="PA", seq=701, ack=801)
    put_in_force(net, True, **DENY_2000)
    goes_on(net, net.a, frame)
    put_in_force(net, True)
    goes_on(net, net.a, frame)  # judged by an older one, which says the same
    assert isinstance(by_kernel_out(net, frame), bytes)
    assert Sent(net, net.a, frame).action == XDP_REDIRECT
    net.world.lib.bpf_map_delete_elem(net.world.fd(f"flows{family}"), inside[0])
    outside = net.world.listed()
    assert list(outside.packets) == [64, 61] and list(outside.seq_end) == [711, 801]


@pytest.mark.parametrize("judge", [False, True], ids=["pass", "judge"])
def test_egress_policy(net, family, judge):
    """After a change the uplink's program has the next packet: it denies it, under forward: judge, or it notes that it is to go on."""
    put_in_force(net, judge)
    converse(net, family)
    taken_out(net, outward(net, family))
    put_in_force(net, judge, **DENY_2000)
    goes_on(net, net.a, outward(net, family))
    if judge:
        assert by_kernel_out(net, outward(net, family)) == "policy-deny"
        goes_on(net, net.a, outward(net, family))
    else:
        assert isinstance(by_kernel_out(net, outward(net, family)), bytes)
        taken_out(net, outward(net, family))


def test_judged_from_now_on(net, family):
    """forward: judge comes after the flow."""
    put_in_force(net, False)
    converse(net, family)
    uplinks(net, True)
    goes_on(net, net.a, outward(net, family))


def test_masqueraded(net, family):
    """Netfilter has to see what leaves."""
    converse(net, family)
    net.workers.forward(net.a, IN, PORT | INSIDE)
    goes_on(net, net.a, outward(net, family))
    net.workers.forward(net.a, IN, PORT)
    taken_out(net, outward(net, family))


def test_service(net, family):
    """A flow to a Service is the host's to turn."""
    converse(net, family)
    for table, key, flow in net.world.flows():
        if net.a.ifindex in list(flow.device):
            flow.rule = BUILTIN.index("service")
            net.world.store(table.replace("flows", f"flows{family}", 1), key, flow)
    goes_on(net, net.a, outward(net, family))


def test_routes(net, family):
    """Nobody has a route, the next hop's MAC is not known, the way is by a device that is not the document's, or back where it came from."""
    converse(net, family)
    nowhere = {4: "100.64.0.9", 6: "2001:db8:ffff::9"}
    near = {4: "192.0.2.50", 6: "2001:db8::50"}
    for to in (nowhere, near):
        frame = outward(net, family, to=to)
        net.run(net.a, frame)
        goes_on(net, net.a, frame)
    net.workers.remove_device(UP)
    goes_on(net, net.a, outward(net, family))
    net.workers.forward(net.up, UP, 0, group=8)
    goes_on(net, net.a, outward(net, family))
    net.workers.forward(net.up, UP, PORT)
    goes_on(net, net.a, outward(net, family))
    net.workers.forward(net.up, UP, 0)
    net.world.port(net.up.ifindex, 0)
    goes_on(net, net.a, outward(net, family))
    net.world.port(net.up.ifindex, uplink_flags())
    taken_out(net, outward(net, family))


def test_what_the_network_says(net, family):
    """It does not reach the host any more; what is switched is not for the host."""
    converse(net, family)
    frame = outward(net, family)
    frame.dst = "02:00:00:00:09:09"
    goes_on(net, net.a, frame)
    net.a.record.flags &= ~TO_HOST
    net.write(net.a)
    goes_on(net, net.a, outward(net, family))
    not_taken(net, homeward(net, family))


def test_the_overlays_own(net, family):
    """What looks like a packet of the tunnel's, by an uplink that has it."""
    port = TUNNEL_PORT[VXLAN]
    converse(net, family, dport=port)
    goes_on(net, net.a, outward(net, family, dport=port))  # nobody completes a checksum within
    converse(net, family, sport=5000, dport=7777)
    taken_out(net, outward(net, family, sport=5000, dport=7777))
    net.tunnel({4: "192.0.2.1", 6: "2001:db8::1"}[family], net.up)
    net.own.port = struct.unpack("=H", struct.pack("!H", 7777))[0]
    net.world.store("tunnel", bytes(4), net.own)
    uplinks(net, more=PORT_TUNNEL)
    goes_on(net, net.a, outward(net, family, sport=5000, dport=7777))


@pytest.mark.parametrize("flag", [LIMIT_OUT, LIMIT_IN], ids=["out", "in"])
def test_limits(net, family, flag):
    converse(net, family)
    net.a.record.flags |= flag
    net.write(net.a)
    if flag == LIMIT_OUT:
        goes_on(net, net.a, outward(net, family))
        assert Judged(net, homeward(net, family), net.up).action == XDP_REDIRECT
    else:
        not_taken(net, homeward(net, family))
        assert Sent(net, net.a, outward(net, family)).action == XDP_REDIRECT


def test_too_big(net, family):
    converse(net, family)
    head = 28 if family == 4 else 48
    taken_home(net, homeward(net, family, payload=bytes(1400 - head)))
    net.a.record.mtu = 1400
    net.write(net.a)
    taken_home(net, homeward(net, family, payload=bytes(1400 - head)))
    not_taken(net, homeward(net, family, payload=bytes(1401 - head)))


def test_room(net, family):
    """What the sockets take: longer than they say, or in several buffers where they say nothing of these, it is the kernel's, before any policy is asked."""
    converse(net, family)
    net.a.record.mtu = 9000
    net.write(net.a)
    for index, device, make in ((IN, net.a, outward), (UP, net.up, homeward)):
        def look(frame, linear=0, device=device):
            return Sent(net, net.a, frame, linear) if device is net.a else Judged(net, frame, net.up, linear)

        def is_passed(sent, index=index):
            kept = {key[1]: n for key, n in sent.fast.items()}
            return (sent.action, kept) == (XDP_PASS, {PASSED: (1, len(sent.packet)), TOO_BIG: (1, len(sent.packet))}) and {key[0] for key in sent.fast} == {index}

        frame = make(net, family, payload=bytes(1300))
        length = len(bytes(frame))
        assert look(frame).action == XDP_REDIRECT
        assert is_passed(look(frame, 600))
        for several, goes in ((length - 1, False), (length, True)):
            net.workers.room(index, 1784, several)
            sent = look(frame, 600)
            assert is_passed(sent) if not goes else sent.action == XDP_REDIRECT
        # in one buffer: of the one kind, and only what is longer than any frame is asked about
        net.workers.room(index, 100, 0)
        assert look(frame).action == XDP_REDIRECT
        net.workers.room(index)


def test_no_socket(net, family):
    converse(net, family)
    for index, device, frame in ((IN, net.a, outward(net, family)), (UP, net.up, homeward(net, family))):
        net.workers.remove_socket(index)
        flows = net.workers.flows()
        sent = Sent(net, net.a, frame) if device is net.a else Judged(net, frame, net.up)
        assert sent.action == XDP_PASS and sent.fast == {(index, PASSED): (1, len(bytes(frame)))}
        assert device is net.up or (sent.flows == flows and sent.counters == {} and sent.out == sent.packet)
    net.workers.forward(net.a, IN, PORT | DROP)
    net.workers.forward(net.up, UP, DROP)
    for device, frame in ((net.a, outward(net, family)), (net.up, homeward(net, family))):
        sent = Sent(net, net.a, frame) if device is net.a else Judged(net, frame, net.up)
        assert sent.action == XDP_DROP


def test_changed_policy_of_the_port(net, family):
    """The one that judged the flow, and no other: out of the port, and into it."""
    converse(net, family)
    net.policy(net.a, EGRESS, net.a.record.policy[0].root[EGRESS], version=net.generation + 7)
    goes_on(net, net.a, outward(net, family))
    not_taken(net, homeward(net, family))


def test_moved(net, family):
    converse(net, family)
    net.a.record.moved = net.world.now() + 1 or 1
    net.write(net.a)
    goes_on(net, net.a, outward(net, family))
    not_taken(net, homeward(net, family))


def test_forged(net, family):
    converse(net, family)
    frame = outward(net, family)
    frame.src = Routes.HOP_MAC
    goes_on(net, net.a, frame)
    source = {4: "10.1.0.77", 6: "2001:db8:a::77"}[family]
    goes_on(net, net.a, with_fields(outward(net, family), family, src=source))


def test_odd_frames(net, family):
    """Tags, fragments, options, and what has come to another's MAC."""
    converse(net, family)
    for frame in (outward(net, family), homeward(net, family)):
        raw = bytes(frame)
        odd = [raw[:12] + b"\x81\x00\x00\x00" + raw[12:]]
        if family == 4:
            odd += [with_fields(frame, 4, flags="MF"), with_fields(frame, 4, frag=4)]
            frame = frame.copy()
            frame[IP].options = [IPOption_NOP()] * 4
            frame[IP].ihl = frame[IP].len = None
            odd.append(Ether(bytes(frame)))
        for one in odd:
            if raw[6:12] == bytes.fromhex(net.a.mac.replace(":", "")):
                goes_on(net, net.a, one)
            else:
                sent = Judged(net, one, net.up)
                assert sent.action != XDP_REDIRECT and sent.fast == {}
    frame = homeward(net, family)
    for mac in ("02:00:00:00:09:09", own_mac(net.other.device)):
        frame.dst = mac
        not_taken(net, frame)


# --- an uplink to an uplink ---


def test_across(net, family):
    """As ever, whatever is known: what HostPolicy lets in."""
    for ttl in (64, 2):
        for back in (False, True):
            frame = across(net, family, back, ttl=ttl)
            device, index, to = (net.other, OTHER, UP) if back else (net.up, UP, OTHER)
            assert isinstance(by_kernel_across(net, frame, back), bytes)
            kept = net.workers.keep()
            compare(net, frame, Judged(net, frame, device), kept, lambda n, f, back=back: by_kernel_across(n, f, back), index, to, True)
    not_taken(net, across(net, family, ttl=1))


def test_across_denied(net, family):
    """forward: judge. The egress policy of the device that it leaves by: in XDP, where nothing else would ask it."""
    put_in_force(net, True, **DENY_2000)
    sent = Judged(net, across(net, family), net.up)
    assert sent.action == XDP_DROP
    assert net.drops("policy-deny")
