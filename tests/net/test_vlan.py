# SPDX-License-Identifier: Apache-2.0
"""A network that is a VLAN on the uplinks. This kernel has no VLAN devices: the far end is a script, or a second host with heddled."""

import threading

import pytest
from lib import documents as doc
from lib import traffic
from lib.heddled import wait_for
from lib.netns import Link, Namespace
from lib.ports import PortHost, Workload
from lib.raw import ARP, ICMP, IP, UDP, Capture, Dot1AD, Dot1Q, Ether, Raw, Wire
from lib.traffic import NO_LOSS, Load, Servers, expect_tcp, expect_udp, ping

VLAN = 100
STATION = "02:00:00:00:77:01"
STATION_IP = "10.77.0.200"
VLAN_OFFLOADS = ("txvlan", "rxvlan", "tx-vlan-stag-hw-insert", "rx-vlan-stag-hw-parse")
CLOSED = doc.policy(default=doc.DENY_ALL)


def network(vlan=VLAN):
    return doc.network("blue", subnets=["10.77.0.0/24", "fd77::/64"], **({"vlan": vlan} if vlan else {}))


def workload(host, number, last, name="blue"):
    """Its MAC and device by its number, which no other host of the test uses."""
    w = Workload(host.ns, number)
    host.stack.callback(w.close)
    w.ip4, w.ip6 = f"10.77.0.{last}", f"fd77::{last}"
    w.address(f"{w.ip4}/24", f"{w.ip6}/64")
    w.name = f"w{number}"
    w.document = doc.port(w.name, w.device, name, addresses=[w.ip4, w.ip6])
    return w


def host_with(xdp="off", env=None):
    return PortHost(host_spec={"uplinks": [{"device": "up0", "xdp": xdp}]}, docs=[CLOSED], env=env)


def install(host, *workloads, docs=None):
    host.daemon.apply(*(docs or [network()]), *[w.document for w in workloads])
    for w in workloads:
        host.wait_port(w.name)
    wait_for(lambda: host.daemon.programs("up0"), what="up0 is guarded")


class Hosts:
    """Two hosts with heddled, their uplinks one veth; a workload of the network on each, and one beside the first."""

    def __init__(self, xdp="off", env=None, shown=True):
        self.one, self.two = host_with(xdp, env), host_with(xdp, env)
        self.link = Link(self.one.ns, "up0", self.two.ns, "up0", 1)
        if xdp != "off" and shown:  # XDP is to see the tags
            for host in (self.one, self.two):
                host.ns.run("ethtool", "-K", "up0", *(word for name in VLAN_OFFLOADS for word in (name, "off")))
        self.a, self.b, self.c = workload(self.one, 1, 1), workload(self.two, 2, 2), workload(self.one, 3, 3)
        install(self.one, self.a, self.c)
        install(self.two, self.b)

    def close(self):
        self.two.close()
        self.one.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


@pytest.fixture
def hosts():
    with Hosts() as h:
        yield h


def expect_all(a, b, outcome="open", port=7000):
    with Servers(b.ns, tcp=[port], udp=[port]):
        for address in (b.ip4, b.ip6):
            expect_tcp(a.ns, address, port, outcome)
            expect_udp(a.ns, address, port, "reply" if outcome == "open" else outcome)
            assert bool(ping(a.ns, address, answered=outcome == "open")) == (outcome == "open")


@pytest.mark.parametrize("env", [None, {"HEDDLE_TC": "clsact"}], ids=["tcx", "clsact"])
@pytest.mark.parametrize("xdp", ["off", "native", "generic"])
def test_between_hosts(xdp, env):
    """Ports of both hosts reach each other, though the hosts themselves may not: no policy of theirs is asked."""
    with Hosts(xdp, env) as h:
        assert h.one.daemon.programs("up0").get("xdp_uplink", "off") == xdp
        witness = Capture(h.two.ns, "up0", "not", "icmp6")
        expect_all(h.a, h.b)
        expect_all(h.b, h.a)
        expect_all(h.a, h.c)
        lines = witness.lines()
        ours = [line for line in lines if h.link.a_mac not in line and h.link.b_mac not in line]
        assert ours and [line for line in ours if f"vlan {VLAN}," not in line] == []
        groups = ("ff:ff:ff:ff:ff:ff", "33:33:")
        assert not any(h.c.mac in line for line in ours if not any(g in line for g in groups)), "what is between a and c stays on their host"
        ping(h.one.ns, h.link.b4, answered=False)


def test_xdp_where_the_device_hides_tags():
    """Then XDP would judge a network's frames by the host's policy: it is off, and says why. Without such a network it is on."""
    with Hosts("native", shown=False) as h:
        (uplink,) = h.one.daemon.status()["uplinks"]
        assert uplink["xdp"] == "off" and "rxvlan" in uplink["xdpReason"]
        expect_all(h.a, h.b)
        h.a.document["spec"]["vlan"] = {"mode": "access", "id": 7}
        h.one.daemon.apply(h.a.document)
        wait_for(lambda: "stag" in h.one.daemon.status()["uplinks"][0]["xdpReason"], what="service tags are hidden as well")
        h.one.daemon.apply(network(vlan=None))
        wait_for(lambda: h.one.daemon.programs("up0").get("xdp_uplink") == "native", what="XDP")


def test_bulk(hosts):
    """Segments stay large: nothing cuts them up on the way, and no checksum is wrong."""
    sizes = Capture(hosts.two.ns, "up0", "vlan", "and", "tcp", "and", "greater", "3000")
    with hosts.b.ns.socket() as listener:
        listener.bind((hosts.b.ip4, 7100))
        listener.listen()
        client = traffic.connect(hosts.a.ns, hosts.b.ip4, 7100)
        server, _ = listener.accept()
        with client, server:
            traffic.transfer(client, server, 32 << 20)
    assert sizes.lines(), "no frame was larger than 3000 bytes"


def test_policy_at_both_ends(hosts):
    """The peer is known by its address only."""
    rule = {"from": [{"ipBlock": {"cidr": f"{hosts.a.ip4}/32"}}], "ports": [{"port": 7000}]}
    only = {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [rule]}
    guard = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "guard"}, "spec": only}
    hosts.two.daemon.apply(guard)
    with Servers(hosts.b.ns, tcp=[7000, 7001]):
        expect_tcp(hosts.a.ns, hosts.b.ip4, 7000, "open")
        assert traffic.tcp_probe(hosts.a.ns, hosts.b.ip4, 7001, timeout=1) != "open"
        assert traffic.tcp_probe(hosts.c.ns, hosts.b.ip4, 7000, timeout=1) != "open"
    out = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cidr": f"{hosts.c.ip4}/32"}}]}]}
    hosts.one.daemon.apply({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "leash"}, "spec": out})
    with Servers(hosts.b.ns, tcp=[7000]), Servers(hosts.c.ns, tcp=[7000]):
        assert traffic.tcp_probe(hosts.a.ns, hosts.b.ip4, 7000, timeout=1) != "open"
        expect_tcp(hosts.a.ns, hosts.c.ip4, 7000, "open")


@pytest.mark.parametrize("xdp", ["off", "native"])
def test_segments_between_hosts(xdp):
    """In a segment of its own each port finds its like on the other host, and nobody else: the network's tag is around that of the segment."""
    with Hosts(xdp) as h:
        for w, vlan in ((h.a, {"mode": "access", "id": 7}), (h.b, {"mode": "trunk", "allowed": [7, 9], "native": 7}), (h.c, {"mode": "access", "id": 8})):
            w.document["spec"]["vlan"] = vlan
        h.one.daemon.apply(h.a.document, h.c.document)
        h.two.daemon.apply(h.b.document)
        witness = Capture(h.two.ns, "up0", "not", "icmp6")
        expect_all(h.a, h.b)
        expect_all(h.b, h.a)
        ping(h.c.ns, h.b.ip4, answered=False)
        lines = [line for line in witness.lines() if h.link.a_mac not in line and h.link.b_mac not in line]
        assert lines and [line for line in lines if "802.1Q-QinQ (0x88a8)" not in line or f"vlan {VLAN}," not in line] == []
        assert all(("vlan 8," if h.c.mac in line else "vlan 7,") in line for line in lines)
        # back in no segment, they meet with the network's tag alone
        for w in (h.a, h.b):
            del w.document["spec"]["vlan"]
        h.one.daemon.apply(h.a.document)
        h.two.daemon.apply(h.b.document)
        expect_all(h.a, h.b)


def test_restarts_lose_nothing(hosts):
    load = Load(hosts.a.ns, hosts.b.ns, hosts.b.ip4, 7200, 7201)
    for change in (hosts.two.daemon.kill, hosts.two.daemon.start, hosts.one.daemon.restart, hosts.two.daemon.restart):
        change()
        load.wait_exchanges(20)
    assert load.finish() == NO_LOSS


def test_the_network_leaves_the_wire(hosts):
    expect_all(hosts.a, hosts.b)
    hosts.one.daemon.apply(network(vlan=None))
    ping(hosts.a.ns, hosts.b.ip4, answered=False)
    expect_all(hosts.a, hosts.c)
    hosts.one.daemon.apply(network())
    expect_all(hosts.a, hosts.b)


# --- the far end is a script ---

class Station:
    """Somebody on the wire who speaks tagged Ethernet."""

    def __init__(self, xdp="off"):
        self.host = host_with(xdp)
        self.ns = Namespace("far")
        self.host.stack.callback(self.ns.delete)
        self.link = Link(self.ns, "wire0", self.host.ns, "up0", 1)
        self.host.ns.run("ethtool", "-K", "up0", "rxvlan", "off")
        self.a, self.b = workload(self.host, 11, 1), workload(self.host, 12, 2)
        install(self.host, self.a, self.b)
        self.wire = Wire(self.ns, "wire0")

    def send(self, packet, to=None, vlan=VLAN, source=STATION, prio=0):
        self.wire.send(Ether(src=source, dst=to or self.a.mac) / Dot1Q(vlan=vlan, prio=prio) / packet)

    def close(self):
        self.wire.close()
        self.host.close()


@pytest.fixture(params=["off", "native", "generic"])
def station(request):
    s = Station(request.param)
    yield s
    s.close()


def tags(frame):
    return [layer.vlan for layer in (frame.getlayer(Dot1Q, 1), frame.getlayer(Dot1Q, 2)) if layer]


def ask(station, **fields):
    station.send(ARP(op=1, hwsrc=STATION, psrc=STATION_IP, pdst=station.a.ip4), to="ff:ff:ff:ff:ff:ff", **fields)


def echo(identifier, **fields):
    return IP(src=fields.get("source", STATION_IP), dst=fields["to"]) / ICMP(type=8, id=identifier) / Raw(b"over the wire")


def wire_tags(station):
    """Tags are beside the frame when a packet socket sees it: only tcpdump shows them."""
    return Capture(station.ns, "wire0", "-Q", "in")


def test_a_station_on_the_wire(station):
    capture = wire_tags(station)
    ask(station)
    answer = station.wire.wait_frame(lambda f: ARP in f and f[ARP].op == 2)
    assert answer and answer.src == station.a.mac and answer[ARP].psrc == station.a.ip4
    station.send(echo(7, to=station.a.ip4))
    assert station.wire.wait_frame(lambda f: ICMP in f and f[ICMP].type == 0 and f[ICMP].id == 7)
    with Servers(station.a.ns, udp=[7000]):
        station.send(IP(src=STATION_IP, dst=station.a.ip4) / UDP(sport=5, dport=7000) / Raw(b"hello"))
        assert station.wire.wait_frame(lambda f: UDP in f and f[UDP].sport == 7000)
    lines = [line for line in capture.lines() if "ethertype IPv6" not in line]
    assert len([line for line in lines if f"vlan {VLAN}," in line]) >= 3
    assert all(f"vlan {VLAN}," in line for line in lines if station.a.mac in line)


def test_what_is_not_the_networks(station):
    """Another tag, a service tag, none: the host's own, whose policy denies."""
    ask(station)
    assert station.wire.wait_frame(lambda f: ARP in f and f[ARP].op == 2)
    for number, frame in enumerate((
        Ether(src=STATION, dst=station.a.mac) / Dot1Q(vlan=VLAN + 1) / echo(20, to=station.a.ip4),
        Ether(src=STATION, dst=station.a.mac) / Dot1AD(vlan=VLAN) / echo(21, to=station.a.ip4),
        Ether(src=STATION, dst=station.a.mac) / echo(22, to=station.a.ip4),
        Ether(src=STATION, dst=station.link.b_mac) / Dot1Q(vlan=VLAN) / echo(23, to=station.link.b4),
        Ether(src=STATION, dst=station.link.b_mac) / echo(24, to=station.link.b4),
    )):
        station.wire.send(frame)
        assert station.wire.wait_frame(lambda f, i=20 + number: ICMP in f and f[ICMP].type == 0 and f[ICMP].id == i, 0.3) is None


def test_who_the_wire_may_not_be(station):
    a, b = station.a, station.b
    for reason, packet, source in (
        ("source-ip4", echo(30, to=a.ip4, source=b.ip4), STATION),
        ("source-mac", echo(31, to=a.ip4), b.mac),
        ("arp-sender", ARP(op=2, hwsrc=STATION, psrc=b.ip4, hwdst=a.mac, pdst=a.ip4), STATION),
    ):
        before = station.host.daemon.drops().get((reason, "ingress"), 0)
        station.send(packet, source=source)
        wait_for(lambda r=reason, n=before: station.host.daemon.drops().get((r, "ingress"), 0) == n + 1, what=reason)


def test_a_workload_finds_a_station(station):
    """ARP out, the answer in, and the priority that a workload asks for on its way."""
    stop = threading.Event()

    def asked(f):
        return (ARP in f and f[ARP].pdst == STATION_IP and f[ARP].op == 1) or (ICMP in f and f[ICMP].type == 8)

    def answer():
        while not stop.is_set():
            frame = station.wire.wait_frame(asked, 0.2)
            if frame is None:
                continue
            if ARP in frame:
                station.send(ARP(op=2, hwsrc=STATION, psrc=STATION_IP, hwdst=frame.src, pdst=frame[ARP].psrc), to=frame.src)
            else:
                reply = ICMP(type=0, id=frame[ICMP].id, seq=frame[ICMP].seq) / frame[ICMP].payload
                station.send(IP(src=STATION_IP, dst=frame[IP].src) / reply, to=frame.src)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        assert ping(station.a.ns, STATION_IP, timeout=3)
    finally:
        stop.set()
        thread.join()


def test_explain(station):
    packet = {"uplink": "up0", "from": STATION_IP, "to": station.a.ip4, "protocol": "udp", "sport": 5, "dport": 7000}
    result = station.host.daemon.explain(vlan=VLAN, **packet)
    assert (result["verdict"], result["program"]) == ("allow", "tc_wire_in")
    result = station.host.daemon.explain(vlan=VLAN + 1, **packet)
    assert (result["verdict"], result["reason"]) == ("deny", "policy-deny")


# --- ports whose tags are their own affair ---

def test_a_tunnel():
    """A customer's tagged frames between two ports as they are, and with a service tag around them on a trunk."""
    with PortHost() as host:
        a, b, trunk = host.add(3)
        docs = [doc.network("blue")]
        for w, vlan in ((a, {"mode": "qinq", "id": 30}), (b, {"mode": "qinq", "id": 30}), (trunk, {"mode": "trunk", "allowed": [30, 31]})):
            docs.append(doc.port(w.device, w.device, "blue", vlan=vlan))
        host.daemon.apply(*docs)
        for w in (a, b, trunk):
            host.wait_port(w.device)
        frame = Ether(src=a.mac, dst="ff:ff:ff:ff:ff:ff") / Dot1Q(vlan=7, prio=5) / ARP(op=1, hwsrc=a.mac, psrc="0.0.0.0", pdst="10.77.0.9")
        captures = [Capture(w.ns, "eth0", "-Q", "in") for w in (b, trunk)]
        with Wire(a.ns, "eth0") as wire, Wire(b.ns, "eth0") as at_b, Wire(trunk.ns, "eth0") as at_trunk:
            wire.send(frame)
            for far in (at_b, at_trunk):
                assert far.wait_frame(lambda f: f.src == a.mac)
        at_b, at_trunk = ([line for line in capture.lines() if a.mac in line and "10.77.0.9" in line] for capture in captures)
        assert len(at_b) == 1 and "ethertype 802.1Q (0x8100), length 46: vlan 7, p 5, ethertype ARP" in at_b[0]
        assert len(at_trunk) == 1 and "802.1Q-QinQ (0x88a8)" in at_trunk[0] and "vlan 30, p 0, ethertype 802.1Q (0x8100), vlan 7, p 5" in at_trunk[0]


# --- the uplink ---


def test_the_uplink_takes_frames_for_workloads():
    """A NIC hands on what is for its own MAC alone: it is told otherwise while a network is on the wire, and only by who wants it so."""

    def promiscuous():
        return "PROMISC" in host.ns.run("ip", "-o", "link", "show", "up0").stdout

    with host_with() as host:
        far = Namespace("far")
        host.stack.callback(far.delete)
        Link(host.ns, "up0", far, "far0", 1)
        a = workload(host, 1, 1)
        install(host, a, docs=[network(vlan=None)])
        assert not promiscuous()
        install(host, a)
        wait_for(promiscuous, what="promiscuous mode")
        host.daemon.restart()
        assert promiscuous()
        install(host, a, docs=[network(vlan=None)])
        wait_for(lambda: not promiscuous(), what="its end")
        # Somebody else's stays
        host.ns.ip("link set up0 promisc on")
        install(host, a)
        host.daemon.detach()
        assert promiscuous()
        host.ns.ip("link set up0 promisc off")
        host.daemon.start()
        install(host, a)
        wait_for(promiscuous, what="promiscuous mode")
        host.daemon.detach()
        assert not promiscuous()
