# SPDX-License-Identifier: Apache-2.0
"""State: replies, errors about flows, TCP's own rules, and what a change of policy does to a running flow."""

import errno
import socket
import struct
import time

import pytest
from lib import raw, traffic
from lib.documents import DENY_ALL, DENY_IN, group, policy, rule
from lib.fixtures import Guarded
from lib.heddled import wait_for
from lib.netns import Behind
from lib.traffic import expect_tcp, expect_udp, roundtrip
from scapy.layers.inet6 import ICMPv6DestUnreach


@pytest.fixture
def up(guarded):
    return guarded


def ip_pair(up, family, **kwargs):
    """IP header from the client to the server."""
    if family == 4:
        return raw.IP(src=up.client4, dst=up.server4, **kwargs)
    return raw.IPv6(src=up.client6, dst=up.server6, **kwargs)


def from_client(up, packet):
    return raw.Ether(src=up.client_mac, dst=up.server_mac) / packet


def flow_of(up, **match):
    flows = up.daemon.flows(**match)
    assert len(flows) == 1, flows
    return flows[0]


def test_flow_is_listed_with_its_states(up, family):
    source, target = up.client_address(family), up.server_address(family)
    up.policy(policy(ingress=[rule("allow", "TCP", 7200, name="web")], default=DENY_IN))
    c, s = traffic.accept_pair(up.client, up.server, target, 7200)
    sport = c.getsockname()[1]
    c.sendall(b"x" * 1000)
    s.recv(2000)
    f = wait_for(lambda: up.daemon.flows(sourcePort=sport, state="established"), what="established flow")[0]
    assert (f["protocol"], f["source"], f["destination"], f["destinationPort"]) == ("TCP", source, target, 7200)
    assert f["packets"] >= 4 and f["bytes"] >= 1000
    c.close()
    time.sleep(0.05)
    assert up.daemon.flows(sourcePort=sport)[0]["state"] in ("fin-originator", "fin-responder", "closed")
    s.close()
    wait_for(lambda: all(f["state"] == "closed" for f in up.daemon.flows(sourcePort=sport)), what="closed")


def test_mid_stream_segments_without_a_flow_are_refused(up, family):
    """pickupSeconds is 0 on this host: no data without a handshake, whatever the policy allows."""
    port = 7201
    with raw.Wire(up.client, "wire0") as wire, raw.LocalWitness(up.server, [6], [6]) as witness:
        for flags in ("A", "PA", "SA", "FA", "RA"):
            before = up.daemon.drops().get(("tcp-no-flow", "ingress"), 0)
            mark = b"mid-stream " + flags.encode()
            wire.send(from_client(up, ip_pair(up, family) / raw.TCP(sport=4200, dport=port, flags=flags, seq=1000, ack=2000) / mark))
            assert not witness.saw(mark, 0.1), flags
            assert up.daemon.drops().get(("tcp-no-flow", "ingress"), 0) == before + 1, flags


def established(up, family, port):
    """A connected pair, and the sequence numbers on the wire as a tap at the client saw them."""
    with up.client:
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3)
        tap.bind(("wire0", 3))
        tap.setblocking(False)
    with tap:
        c, s = traffic.accept_pair(up.client, up.server, up.server_address(family), port)
        c.sendall(b"hello")
        assert s.recv(10) == b"hello"
        s.sendall(b"world")
        assert c.recv(10) == b"world"
        time.sleep(0.1)
        client_next = server_next = None
        for frame in raw.drain(tap):
            p = raw.Ether(frame)
            if raw.TCP not in p or port not in (p[raw.TCP].sport, p[raw.TCP].dport):
                continue
            tcp = p[raw.TCP]
            length = (p[raw.IP].len - p[raw.IP].ihl * 4 if raw.IP in p else p[raw.IPv6].plen) - tcp.dataofs * 4
            end = (tcp.seq + length + (1 if tcp.flags & 3 else 0)) & 0xFFFFFFFF
            if tcp.dport == port:
                client_next = end
            else:
                server_next = end
    return c, s, client_next, server_next


def test_a_blind_rst_does_not_end_a_flow(up, family):
    port = 7202
    c, s, client_next, server_next = established(up, family, port)
    sport = c.getsockname()[1]
    with raw.Wire(up.client, "wire0") as wire:
        before = up.daemon.drops().get(("tcp-window", "ingress"), 0)
        for offset in (0x40000000, 0x80000000, -0x40000000):
            seq = (client_next + offset) & 0xFFFFFFFF
            wire.send(from_client(up, ip_pair(up, family) / raw.TCP(sport=sport, dport=port, flags="R", seq=seq)))
        wait_for(lambda: up.daemon.drops().get(("tcp-window", "ingress"), 0) == before + 3, what="tcp-window drops")
        # inside the window but not the very next number: the server's stack challenges it (RFC 5961), the flow stays
        wire.send(from_client(up, ip_pair(up, family) / raw.TCP(sport=sport, dport=port, flags="R", seq=(client_next + 50) & 0xFFFFFFFF)))
        time.sleep(0.05)
    c.sendall(b"alive")
    s.settimeout(2)
    assert s.recv(10) == b"alive"
    assert flow_of(up, sourcePort=sport)["state"] == "established"
    c.close()
    s.close()


def test_a_right_rst_ends_the_flow(up, family):
    port = 7203
    c, s, _, _ = established(up, family, port)
    sport = c.getsockname()[1]
    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    c.close()
    s.settimeout(2)
    with pytest.raises(ConnectionResetError):
        s.recv(10)
    assert flow_of(up, sourcePort=sport)["state"] == "closed"
    s.close()


def test_icmp_error_about_a_flow_passes_and_others_do_not(up, family):
    """A `port unreachable` from the far end reaches the host's socket under default deny; one about nothing does not."""
    up.policy(policy(default=DENY_IN))
    with up.server.socket(traffic.family_of(up.server_address(family)), socket.SOCK_DGRAM) as s:
        s.connect((up.client_address(family), 7999))
        s.settimeout(2)
        s.send(b"anybody there")
        with pytest.raises(ConnectionRefusedError):
            s.recv(10)
    # the same error about a tuple that no flow has
    embedded = raw.UDP(sport=5999, dport=7999) / b"never sent"
    if family == 4:
        error = ip_pair(up, 4) / raw.ICMP(type=3, code=3) / (raw.IP(src=up.server4, dst=up.client4) / embedded)
    else:
        error = ip_pair(up, 6) / ICMPv6DestUnreach(code=4) / (raw.IPv6(src=up.server6, dst=up.client6) / embedded)
    with raw.Wire(up.client, "wire0") as wire, raw.LocalWitness(up.server, [1], [58]) as witness:
        wire.send(from_client(up, error))
        assert not witness.saw(b"never sent", traffic.QUICK)


def test_icmp_error_whose_inside_contradicts_its_outside_is_dropped(up, family):
    """The embedded packet was not sent by the host the error is addressed to."""
    inner = raw.UDP(sport=5000, dport=6000) / b"somebody else's"
    if family == 4:
        error = ip_pair(up, 4) / raw.ICMP(type=3, code=3) / (raw.IP(src="192.0.2.1", dst="192.0.2.2") / inner)
    else:
        error = ip_pair(up, 6) / ICMPv6DestUnreach(code=4) / (raw.IPv6(src="2001:db8::1", dst="2001:db8::2") / inner)
    before = up.daemon.drops().get(("icmp-embedded", "ingress"), 0)
    with raw.Wire(up.client, "wire0") as wire, raw.LocalWitness(up.server, [1], [58]) as witness:
        wire.send(from_client(up, error))
        assert not witness.saw(b"somebody else's", 0.1)
    assert up.daemon.drops().get(("icmp-embedded", "ingress"), 0) == before + 1


def test_a_change_of_policy_cuts_at_the_next_packet(up, family):
    target = up.server_address(family)
    allow = policy(ingress=[rule("allow", "TCP", 7204), rule("allow", "TCP", 7205)], default=DENY_IN)
    with traffic.Servers(up.server, tcp=[7204, 7205], udp=[7204]):
        up.policy(allow)
        cut, kept = traffic.connect(up.client, target, 7204), traffic.connect(up.client, target, 7205)
        assert roundtrip(cut) and roundtrip(kept)
        up.policy(policy(ingress=[rule("allow", "TCP", 7205)], default=DENY_IN))
        assert not roundtrip(cut, timeout=0.4), "a denied flow went on"
        assert roundtrip(kept), "a flow that is still allowed was cut"
        # allowed again: the old connection was ended, a new one works
        up.policy(allow)
        expect_tcp(up.client, target, 7204, "open")
        assert roundtrip(kept)
        cut.close()
        kept.close()


def test_a_group_changes_live(up, family):
    target = up.server_address(family)
    mine = up.client_address(family) + ("/32" if family == 4 else "/128")
    other = "203.0.113.0/24" if family == 4 else "2001:db8:1::/48"
    base = policy(ingress=[rule("allow", "TCP", 7206, peers=["friends"])], default=DENY_IN)
    with traffic.Servers(up.server, tcp=[7206]):
        up.policy(group("friends", other), base)
        expect_tcp(up.client, target, 7206, "timeout")
        up.daemon.apply(group("friends", other, mine))
        s = traffic.connect(up.client, target, 7206)
        assert roundtrip(s)
        up.daemon.apply(group("friends", other))
        assert not roundtrip(s, timeout=0.4)
        expect_tcp(up.client, target, 7206, "timeout")
        s.close()


def test_replies_ride_and_new_flows_do_not(up, family):
    """Under deny-all for ingress, what the host opened works both ways, and the far end can open nothing back."""
    up.policy(policy(default=DENY_IN))
    with traffic.Servers(up.client, tcp=[7300], udp=[7300]), traffic.Servers(up.server, udp=[7301], tcp=[7301]):
        s = traffic.connect(up.server, up.client_address(family), 7300)
        assert roundtrip(s, b"z" * 100000)
        expect_udp(up.server, up.client_address(family), 7300, "reply")
        expect_udp(up.client, up.server_address(family), 7301, "timeout")
        expect_tcp(up.client, up.server_address(family), 7301, "timeout", sport=7302)
        s.close()


def test_udp_flow_is_one_tuple(up, family):
    """A reply is from the very address and port that were spoken to; a neighbour port is a new flow and denied."""
    up.policy(policy(default=DENY_IN))
    target = up.client_address(family)
    kind = traffic.family_of(target)
    with up.server.socket(kind, socket.SOCK_DGRAM) as host, up.client.socket(kind, socket.SOCK_DGRAM) as peer, up.client.socket(
        kind, socket.SOCK_DGRAM
    ) as stranger:
        peer.bind((target, 7310))
        stranger.bind((target, 7311))
        host.sendto(b"question", (target, 7310))
        peer.settimeout(2)
        _, back = peer.recvfrom(100)
        stranger.sendto(b"forged", back[:2])
        peer.sendto(b"answer", back[:2])
        host.settimeout(2)
        assert host.recv(100) == b"answer"
        host.settimeout(traffic.QUICK)
        with pytest.raises(TimeoutError):
            host.recv(100)


# What takes real time runs for both families at once: a list of two where other tests have a parameter.


def both(up, far="server"):
    return [getattr(up, f"{far}4"), getattr(up, f"{far}6")]


def test_timeouts_end_flows_also_without_the_agent(fresh):
    up = fresh(host_spec={"timeouts": {"udp": "1s", "udpStream": "1s", "icmp": "1s"}}, docs=[policy(default=DENY_IN)])
    up.daemon.kill()
    exchanges = []
    for target in both(up, "client"):
        kind = traffic.family_of(target)
        host, peer = up.server.socket(kind, socket.SOCK_DGRAM), up.client.socket(kind, socket.SOCK_DGRAM)
        peer.bind((target, 7310))
        peer.settimeout(2)
        host.settimeout(traffic.QUICK)
        host.sendto(b"question", (target, 7310))
        _, back = peer.recvfrom(100)
        peer.sendto(b"in time", back[:2])
        assert host.recv(100) == b"in time"
        exchanges.append((host, peer, back))
    time.sleep(1.6)
    for host, peer, back in exchanges:
        peer.sendto(b"too late", back[:2])
        with pytest.raises(TimeoutError):
            host.recv(100)
        host.close()
        peer.close()


def test_an_idle_connection_ends_after_its_timeout(fresh):
    up = fresh(host_spec={"timeouts": {"tcpEstablished": "2s"}}, docs=[policy(ingress=[rule("allow", "TCP", 7330)], default=DENY_IN)])
    with traffic.Servers(up.server, tcp=[7330]):
        sockets = [traffic.connect(up.client, target, 7330) for target in both(up)]
        for _ in range(4):  # traffic keeps it
            assert all(roundtrip(s) for s in sockets)
            time.sleep(0.6)
        time.sleep(2.3)
        for s in sockets:
            assert not roundtrip(s, timeout=0.4), "data went on after the timeout"
            s.close()
        for target in both(up):
            expect_tcp(up.client, target, 7330, "open")


def test_half_closed_connections_still_carry_data(up, family):
    """The client says FIN at once, as `nc -N` does, and then receives for a while."""
    up.policy(policy(ingress=[rule("allow", "TCP", 7331)], default=DENY_IN))
    c, s = traffic.accept_pair(up.client, up.server, up.server_address(family), 7331)
    c.shutdown(socket.SHUT_WR)
    s.settimeout(2)
    assert s.recv(10) == b""
    sent, got = traffic.transfer(s, c, 5 << 20, timeout=10)
    assert sent == got
    s.close()
    assert c.recv(10) == b""
    c.close()


@pytest.mark.parametrize("first", ["client", "server", "reset"])
def test_one_source_port_again_and_again(up, family, first):
    """A tuple that was closed a moment ago is a new connection at its next SYN."""
    up.policy(policy(ingress=[rule("allow", "TCP", 7332)], default=DENY_IN))
    target = up.server_address(family)
    with up.server.socket(traffic.family_of(target)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((target, 7332))
        listener.listen()
        listener.settimeout(5)
        for number in range(20):
            c = traffic.connect(up.client, target, 7332, sport=5332)
            s, _ = listener.accept()
            c.sendall(bytes([number]))
            s.settimeout(5)
            assert s.recv(1) == bytes([number])
            if first == "reset":
                c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one, other = (s, c) if first == "server" else (c, s)
            if first == "client":
                # the client's own TIME-WAIT would hold the port: it is the far end's business, not ours
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.shutdown(socket.SHUT_WR)
                assert other.recv(1) == b""
            one.close()
            other.close()
            time.sleep(0.01)


def test_a_slow_reader(up, family):
    """Zero windows and their probes, with the window scaled."""
    up.policy(policy(ingress=[rule("allow", "TCP", 7333)], default=DENY_IN))
    c, s = traffic.accept_pair(up.client, up.server, up.server_address(family), 7333)
    c.setblocking(False)
    sent = 0
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        try:
            sent += c.send(b"w" * 65536)
        except BlockingIOError:
            time.sleep(0.05)
    s.settimeout(5)
    got = 0
    while got < sent:
        got += len(s.recv(1 << 20))
    c.setblocking(True)
    c.sendall(b"end")
    assert s.recv(10) == b"end"
    c.close()
    s.close()


@pytest.fixture(scope="module", params=["native", "tcx"])
def behind(request):
    with Guarded(request.param, topology=Behind, outer_mtu=1300, docs=[policy(default=DENY_IN)]) as up:
        yield up


@pytest.mark.parametrize("error", ["time exceeded", "too big"])
def test_errors_of_a_router_on_the_way_reach_the_host(behind, family, error):
    """Default deny; the router between host and client answers what the host sent. Errors come from an address no flow has."""
    up = behind
    target = up.outer.a4 if family == 4 else up.outer.a6
    level = socket.IPPROTO_IP if family == 4 else socket.IPPROTO_IPV6
    with up.server.socket(traffic.family_of(target), socket.SOCK_DGRAM) as s:
        s.setsockopt(level, 11 if family == 4 else 25, 1)  # IP_RECVERR, IPV6_RECVERR
        if error == "time exceeded":
            s.setsockopt(level, socket.IP_TTL if family == 4 else socket.IPV6_UNICAST_HOPS, 1)
        else:
            s.setsockopt(level, 10 if family == 4 else 23, 2)  # IP_MTU_DISCOVER, IPV6_MTU_DISCOVER: never fragment
        s.connect((target, 7320))
        s.settimeout(2)
        s.send(b"x" * 1400)
        with pytest.raises(OSError) as caught:
            s.recv(10)
        assert caught.value.errno == (errno.EHOSTUNREACH if error == "time exceeded" else errno.EMSGSIZE)


# --- pickup ---


@pytest.mark.parametrize("opened_by", ["client", "server"])
def test_pickup_of_running_connections(fresh, opened_by):
    """heddle is installed on a host with live connections: those that policy allows go on, the others end."""
    up = fresh(start=False, host_spec={"pickupSeconds": 3})
    client, server = (up.client, up.server) if opened_by == "client" else (up.server, up.client)
    targets = both(up, "server" if opened_by == "client" else "client")
    with traffic.Servers(server, tcp=[7400, 7401]):
        good = [traffic.connect(client, target, 7400) for target in targets]
        bad = [traffic.connect(client, target, 7401) for target in targets]
        assert all(roundtrip(s) for s in good + bad)
        rules = {"ingress" if opened_by == "client" else "egress": [rule("allow", "TCP", 7400)]}
        up.daemon.write("10-policy.yaml", policy(default=DENY_ALL, **rules))
        up.daemon.start()
        started = time.monotonic()
        assert all(roundtrip(s) for s in good), "a live connection was not picked up"
        assert not any(roundtrip(s, timeout=0.4) for s in bad), "a connection that policy denies was picked up"
        assert all(roundtrip(s, b"a" * 200000) for s in good)
        # the pickup time is over: a stray segment of an unknown connection is refused
        time.sleep(max(0, started + 3.2 - time.monotonic()))
        with raw.Wire(up.client, "wire0") as wire:
            for family in (4, 6):
                before = up.daemon.drops().get(("tcp-no-flow", "ingress"), 0)
                wire.send(from_client(up, ip_pair(up, family) / raw.TCP(sport=7400, dport=7400, flags="PA", seq=1, ack=1) / b"stray"))
                wait_for(lambda before=before: up.daemon.drops().get(("tcp-no-flow", "ingress"), 0) > before, what="stray segment dropped")
        assert all(roundtrip(s) for s in good), "a picked-up connection ended with the pickup time"
        for s in good + bad:
            s.close()


def test_no_pickup_after_a_restart(fresh):
    """Pickup is for the first start only: a restart must not open the door again."""
    up = fresh(start=False, host_spec={"pickupSeconds": 1})
    up.daemon.start()
    time.sleep(1.2)
    up.daemon.restart()
    with raw.Wire(up.client, "wire0") as wire, raw.LocalWitness(up.server, [6], [6]) as witness:
        for family in (4, 6):
            wire.send(from_client(up, ip_pair(up, family) / raw.TCP(sport=4400, dport=7400, flags="PA", seq=1, ack=1) / b"stray"))
        assert not witness.saw(b"stray", traffic.QUICK)
