# SPDX-License-Identifier: Apache-2.0
"""Real packets between ports of one host: within a network, between networks, to and from the host's stack, and while the agent is busy or dead."""

import contextlib
import signal
import socket
import time

import pytest
from lib import documents as doc
from lib import traffic
from lib.heddled import wait_for
from lib.ports import GATEWAY_MAC, PortHost, Tap
from lib.raw import Capture
from lib.traffic import NO_LOSS, Load, Servers, expect_tcp, expect_udp, icmp_error, ping, udp_send

SUBNETS = ["10.77.0.0/24", "fd77::/64"]
GATEWAY = ["10.77.0.254", "fd77::fe"]
MODES = ["l2", "l3"]


def addresses(number, net=77):
    return [f"10.{net}.0.{number}", f"fd{net}::{number}"]


def network(name="blue", net=77, **spec):
    return doc.network(name, subnets=[f"10.{net}.0.0/24", f"fd{net}::/64"], gateway=[f"10.{net}.0.254", f"fd{net}::fe"], **spec)


def join(host, mode, name="blue", net=77, count=2, first=1, **spec):
    """Workloads first.. of a network, each with both families, as they would be set up for its mode."""
    made = host.add(count) if count > 1 else [host.add()]
    docs = [network(name, net, mode=mode, **spec)]
    for i, w in enumerate(made, first):
        w.ip4, w.ip6 = addresses(i, net)
        if mode == "l2":
            w.address(f"{w.ip4}/24", f"{w.ip6}/64")
            w.via(f"10.{net}.0.254", f"fd{net}::fe")
        else:
            w.address_l3([w.ip4, w.ip6], [f"10.{net}.0.254", f"fd{net}::fe"])
        w.name = f"{name}-{i}"
        docs.append(doc.port(w.name, w.device, name, addresses=[w.ip4, w.ip6]))
    host.daemon.apply(*docs)
    for w in made:
        host.wait_port(w.name)
    return made


@pytest.fixture
def host():
    with PortHost() as h:
        yield h


@pytest.fixture(params=[None, {"HEDDLE_TC": "clsact"}], ids=["tcx", "clsact"])
def any_host(request):
    with PortHost(env=request.param) as h:
        yield h


def expect_all(a, b, outcome="open", port=7000):
    """TCP, UDP and echo in both families from a to b, where servers listen."""
    with Servers(b.ns, tcp=[port], udp=[port]):
        for address in (b.ip4, b.ip6):
            expect_tcp(a.ns, address, port, outcome)
            expect_udp(a.ns, address, port, "reply" if outcome == "open" else outcome)
            assert bool(ping(a.ns, address, answered=outcome == "open")) == (outcome == "open")


@pytest.mark.parametrize("mode", MODES)
def test_ports_of_a_network_reach_each_other(any_host, mode):
    a, b, c = join(any_host, mode, count=3)
    expect_all(a, b)
    expect_all(b, a)
    expect_all(c, a)


@pytest.mark.parametrize("mode", MODES)
def test_super_packets_stay_whole(any_host, mode, family):
    """Neither cut up nor made to have their checksums before the receiver gets them; each byte is what it was."""
    a, b = join(any_host, mode)
    large = Capture(b.ns, "eth0", "tcp", "and", "greater", "2500")
    client, server = traffic.accept_pair(a.ns, b.ns, b.ip4 if family == 4 else b.ip6, 7100)
    with client, server:
        sent, got = traffic.transfer(client, server, 4 << 20)
    assert sent == got
    assert large.lines(), "no frame was larger than 2500 bytes"


@pytest.mark.parametrize("mode", MODES)
def test_the_gateway_answers(host, mode):
    a, _ = join(host, mode)
    for address in GATEWAY:
        assert ping(a.ns, address, count=2)
    assert [r for r in host.daemon.rules() if r["name"] == "gateway"][0]["packets"] > 0


@pytest.mark.parametrize("mode", MODES)
def test_networks_with_the_same_addresses(host, mode):
    a, b = join(host, mode, "blue")
    c, d = join(host, mode, "red")
    assert (c.ip4, d.ip6) == (a.ip4, b.ip6)
    expect_all(a, b)
    with Servers(b.ns, tcp=[7001], udp=[7001]) as blue, Servers(d.ns, tcp=[7001], udp=[7001]) as red:
        expect_tcp(a.ns, b.ip4, 7001, "open")
        expect_udp(a.ns, b.ip6, 7001, "reply")
        wait_for(lambda: (blue.accepted, red.accepted, red.datagrams) == ({7001: 1}, {}, {}), what="all in blue")
        expect_tcp(c.ns, d.ip4, 7001, "open")
        wait_for(lambda: (blue.accepted, red.accepted) == ({7001: 1}, {7001: 1}), what="one connection in each")
    networks = {f["network"] for f in host.daemon.flows(protocol="TCP", destinationPort=7001)}
    assert networks == {"blue", "red"}


@pytest.mark.parametrize("mode", MODES)
def test_routes_are_one_way(host, mode):
    (b,) = join(host, mode, "blue", 78, count=1)
    (a,) = join(host, mode, "red", 79, count=1, routesTo=["blue"])
    expect_all(a, b)
    flows = [f for f in host.daemon.flows(protocol="TCP", destinationPort=7000)]
    assert {f["network"] for f in flows} == {"blue>red"}
    with Servers(a.ns, tcp=[7000], udp=[7000]) as there:
        for address in (a.ip4, a.ip6):
            assert traffic.tcp_probe(b.ns, address, 7000, timeout=1) != "open"
            assert traffic.udp_probe(b.ns, address, 7000, timeout=0.3) != "reply"
            ping(b.ns, address, answered=False)
        assert there.accepted == {} and there.datagrams == {}
    # and no longer when the document says so no more, not even what is established
    with Servers(b.ns, tcp=[7002]):
        c = traffic.connect(a.ns, b.ip4, 7002)
        assert traffic.roundtrip(c)
        host.daemon.apply(network("red", 79, mode=mode))
        c.settimeout(0.5)
        c.send(b"still?")
        with pytest.raises(OSError):
            c.recv(10)
        c.close()


@pytest.mark.parametrize("mode", MODES)
def test_nothing_leaks_to_the_host(host, mode):
    a, _ = join(host, mode)
    host.ns.ip("addr add 192.0.2.1/32 dev lo", "addr add 2001:db8::1/128 dev lo nodad")
    with Servers(host.ns, tcp=[7003], udp=[7003]) as there:
        for address in ("192.0.2.1", "2001:db8::1"):
            assert traffic.tcp_probe(a.ns, address, 7003, timeout=0.5) != "open"
            assert traffic.udp_probe(a.ns, address, 7003, timeout=0.3) != "reply"
        assert there.accepted == {} and there.datagrams == {}
    drops = host.daemon.drops()
    assert drops[("no-destination", "egress")] > 0


@pytest.mark.parametrize("mode", MODES)
def test_the_host_and_its_ports(any_host, mode):
    host = any_host
    a, b = join(host, mode, routesTo=["host"])
    host.ns.ip("addr add 192.0.2.1/32 dev lo", "addr add 2001:db8::1/128 dev lo nodad")
    host.ip4, host.ip6 = "192.0.2.1", "2001:db8::1"
    expect_all(a, host)
    expect_all(host, a)
    expect_all(a, b)
    flows = host.daemon.flows(protocol="TCP", destinationPort=7000)
    assert {f["network"] for f in flows} == {"blue"}


def test_the_way_out(host):
    """A port, the host as its router, and somebody behind that, who knows nothing of networks."""
    (a,) = join(host, "l3", count=1, routesTo=["host"])
    outside = host.add()
    host.ns.sysctl("net.ipv4.ip_forward", 1)
    host.ns.sysctl("net.ipv6.conf.all.forwarding", 1)
    host.ns.ip(f"addr add 198.51.100.1/24 dev {outside.device}", f"addr add 2001:db8:1::1/64 dev {outside.device} nodad")
    outside.address("198.51.100.2/24", "2001:db8:1::2/64")
    outside.via("198.51.100.1", "2001:db8:1::1")
    outside.ip4, outside.ip6 = "198.51.100.2", "2001:db8:1::2"
    expect_all(a, outside)
    expect_all(outside, a)


@pytest.mark.parametrize("mode", MODES)
def test_a_tap(host, mode):
    """A virtual machine's interface: no peer, so the document gives its MAC."""
    (a,) = join(host, mode, count=1, learning=False)
    tap = Tap(host.ns, "tap0", "02:00:00:00:00:77", "10.77.0.7")
    host.stack.callback(tap.close)
    host.daemon.apply(doc.port("vm", "tap0", "blue", mac=tap.mac, addresses=[tap.address]))
    host.wait_port("vm", mac=tap.mac)
    assert ping(a.ns, tap.address, count=3)
    # of another MAC, or with another address, nothing gets anywhere
    mine, theirs = bytes.fromhex(tap.mac.replace(":", "")), bytes.fromhex(a.mac.replace(":", ""))
    request = next(f for f in tap.frames if f[12:14] == b"\x08\x00" and f[23] == 1)
    head = theirs if mode == "l2" else bytes.fromhex(GATEWAY_MAC.replace(":", ""))
    packet = request[12:26] + request[30:34] + request[26:30] + request[34:]
    tap.send(head + bytes.fromhex("020000000066") + packet)
    tap.send(head + mine + packet[:14] + socket.inet_aton("10.77.0.8") + packet[18:])
    wait_for(lambda: {("source-mac", "egress"), ("source-ip4", "egress")} <= host.daemon.drops().keys(), what="both are dropped")
    # its process ends: the device is gone, and so is the port
    tap.close()
    host.wait_port("vm", "waiting")
    ping(a.ns, tap.address, answered=False)


# --- what a router says ---


def test_errors_come_from_the_gateway(host, family):
    a, b = join(host, "l3")
    to, gateway, nobody = (b.ip4, GATEWAY[0], "10.77.0.99") if family == 4 else (b.ip6, GATEWAY[1], "fd77::99")
    exceeded, unreachable, too_big = ((11, 0), (3, 1), (3, 4)) if family == 4 else ((3, 0), (1, 3), (2, 0))
    assert icmp_error(a.ns, family, udp_send(a.ns, to, ttl=1))[:3] == (*exceeded, gateway)
    assert icmp_error(a.ns, family, udp_send(a.ns, nobody))[:3] == (*unreachable, gateway)
    host.daemon.apply(network(mode="l3", mtu=1400), doc.port("blue-1", a.device, "blue", addresses=[a.ip4, a.ip6]))
    kind, code, source, mtu = icmp_error(a.ns, family, udp_send(a.ns, to, size=1440))
    assert (kind, code, source, mtu) == (*too_big, gateway, 1400)


# --- changes under traffic ---


def test_a_killed_agent_changes_nothing(any_host, family):
    host = any_host
    a, b = join(host, "l2")
    load = Load(a.ns, b.ns, b.ip4 if family == 4 else b.ip6, 7900, 7901)
    try:
        load.wait_exchanges(50)
        for sig in (signal.SIGKILL, signal.SIGTERM):
            host.daemon.kill(sig)
            load.wait_exchanges(50)
            host.daemon.start()
            load.wait_exchanges(50)
        # a growth of the tables is a fresh load of the programs
        host.daemon.apply(*[doc.network(f"n{i}", subnets=["10.0.0.0/8"], gateway=[f"10.{i // 250}.{i % 250}.1"]) for i in range(1100)])
        load.wait_exchanges(50)
    finally:
        result = load.finish()
    assert result == NO_LOSS


def test_ports_come_and_go_beside_traffic(host):
    a, b = join(host, "l2")
    c = host.add()
    c.address("10.77.0.9/24")
    load = Load(a.ns, b.ns, b.ip4, 7900, 7901)
    try:
        for _ in range(5):
            host.daemon.apply(doc.port("c", c.device, "blue", addresses=["10.77.0.9"]))
            host.wait_port("c")
            assert ping(c.ns, a.ip4)
            host.daemon.api.delete("/v1/objects/port/c")
            ping(c.ns, a.ip4, answered=False)
            load.wait_exchanges(20)
    finally:
        result = load.finish()
    assert result == NO_LOSS


def test_a_port_by_another_name(host):
    """The document is renamed in one transaction; nobody on the wire notices."""
    a, b = join(host, "l2")
    host.daemon.api.delete(f"/v1/objects/port/{b.name}")
    for name in ("first", "second", "third"):
        host.daemon.write("20-ports.yaml", doc.port(name, b.device, "blue", addresses=[b.ip4, b.ip6]))
        host.wait_port(name)
        if name == "first":
            load = Load(a.ns, b.ns, b.ip4, 7900, 7901)
        load.wait_exchanges(20)
    assert load.finish() == NO_LOSS


def test_a_device_made_anew_under_traffic(host):
    a, b = join(host, "l2")
    expect_all(a, b)
    b.delete_device()
    host.wait_port(b.name, "waiting")
    ping(a.ns, b.ip4, answered=False)
    b.create()
    b.address(f"{b.ip4}/24", f"{b.ip6}/64")
    host.wait_port(b.name)
    expect_all(a, b)


def test_an_address_that_moves_takes_no_flow_along(host):
    """The connection was the earlier owner's: the new one gets none of it, and what it may not is judged as its own."""
    a, b, c = join(host, "l2", count=3)
    with Servers(b.ns, tcp=[7005]):
        s = traffic.connect(a.ns, b.ip4, 7005)
        assert traffic.roundtrip(s)
        c.ns.ip("addr flush dev eth0")
        host.daemon.apply(
            doc.port(b.name, b.device, "blue", addresses=[b.ip6]), doc.port(c.name, c.device, "blue", addresses=[b.ip4, c.ip6])
        )
        time.sleep(0.15)
        s.settimeout(0.5)
        with contextlib.suppress(OSError):
            s.send(b"still there?")
            assert s.recv(20) == b"", "the earlier owner answered"
        s.close()
    c.address(f"{b.ip4}/24")
    a.ns.ip("neigh flush dev eth0")
    with Servers(c.ns, tcp=[7005]):
        expect_tcp(a.ns, b.ip4, 7005, "open")
