# SPDX-License-Identifier: Apache-2.0
"""How the other ends of the tunnel are reached. host (up0, up1) === router (in) --- far, which is what the peers are behind."""

import contextlib
import re
import signal
import socket
import time

import pytest
from lib import documents as doc
from lib.heddled import Heddled, wait_for
from lib.netns import Link, Namespace

OWN, OWN6 = "10.99.0.1", "fd99::1"
FAR, FAR6 = "10.90.0.2", "fd90::2"
SLOW = "heddle-tunnel"
PORT = 4789


def peer(name, address, *ports, **spec):
    return doc.document("Peer", name, {"address": address, "ports": list(ports), **spec})


class Underlay:
    """Tunnel addresses on lo, as routed fabrics have them; the far hosts' addresses behind the router, by both uplinks."""

    def __init__(self, family=4, start=True, protocol="vxlan", xdp="off"):
        self.stack = contextlib.ExitStack()
        self.family = family
        self.host, self.router, self.far = (self._namespace(role) for role in ("host", "router", "far"))
        self.links = [Link(self.router, f"r{i}", self.host, f"up{i}", i + 1, neighbours=False) for i in (0, 1)]
        self.inner = Link(self.router, "in", self.far, "eth0", 3, neighbours=False)
        for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            self.router.sysctl(key, 1)
        self.host.ip(f"addr add {OWN}/32 dev lo", f"addr add {OWN6}/128 dev lo")
        self.far.ip(f"addr add {FAR}/32 dev lo", f"addr add {FAR6}/128 dev lo")
        self.far.ip(f"route add default via {self.inner.a4}", f"route add default via {self.inner.a6}")
        self.router.ip(f"route add 10.90.0.0/16 via {self.inner.b4}", f"route add fd90::/64 via {self.inner.b6}")
        self.router.ip(f"route add {OWN} nexthop via {self.links[0].b4} nexthop via {self.links[1].b4}")
        self.router.ip(f"route add {OWN6} nexthop via {self.links[0].b6} nexthop via {self.links[1].b6}")
        self.route()
        self.own, self.address = (OWN, FAR) if family == 4 else (OWN6, FAR6)
        uplinks = [{"device": f"up{i}", "xdp": xdp} for i in (0, 1)]
        tunnel = {"protocol": protocol, "address": self.own, "port": PORT}
        self.documents = [
            doc.document("Host", "host", {"pickupSeconds": 0, "uplinks": uplinks, "tunnel": tunnel}),
            doc.network("blue", vni=100, subnets=["10.77.0.0/24"]),
            peer("far", self.address, {"name": "w", "network": "blue", "mac": "02:00:00:00:01:02", "addresses": ["10.77.0.2"]}),
            peer("near", self.gateway(0), {"name": "v", "network": "blue", "mac": "02:00:00:00:01:03", "addresses": ["10.77.0.3"]}),
        ]
        self.daemon = Heddled(self.host, self.documents)
        self.stack.callback(self.daemon.remove)
        if start:
            self.daemon.start()

    def _namespace(self, role):
        ns = Namespace(role)
        self.stack.callback(ns.delete)
        return ns

    def gateway(self, i, family=None):
        return self.links[i].a4 if (family or self.family) == 4 else self.links[i].a6

    def route(self):
        """To the far hosts, by both uplinks."""
        ways = [f"nexthop via {self.gateway(i)} dev up{i}" for i in (0, 1)]
        self.host.ip(f"route replace {'10.90.0.0/16' if self.family == 4 else 'fd90::/64'} " + " ".join(ways))

    def peer(self, name="far"):
        return next((p for p in self.daemon.status()["peers"] if p["name"] == name), None)

    def comes_to(self, *devices, name="far", state="reachable", timeout=5):
        found = {}

        def check():
            found.update(self.peer(name) or {})
            return found.get("state") == state and [w["device"] for w in found["ways"]] == list(devices)

        try:
            wait_for(check, timeout=timeout, what=f"{name} by {devices}, {state}")
        except AssertionError as e:
            links = self.host.run("ip", "link").stdout
            raise AssertionError(f"{e}: {found}\n{links}\n{self.daemon.log()}") from None
        return found

    def map(self, name):
        return f"{self.daemon.bpffs}/heddle/maps/{name}"

    def record(self, name="far"):
        """(address, mtu, [(ifindex, destination, source)]) of the peer's record, as packets find it."""
        index = self.peer(name)["index"].to_bytes(4, "little")
        value = self.daemon.bpftool("map", "lookup", "pinned", self.map("peers"), "key", "hex", *[f"{b:02x}" for b in index])["value"]
        raw = bytes(int(b, 16) for b in value)
        ways, mtu = int.from_bytes(raw[16:20], "little"), int.from_bytes(raw[22:24], "little")
        at = 40 + (ways & 1) * 64
        return raw[:16], mtu, [
            (int.from_bytes(raw[o : o + 4], "little"), raw[o + 4 : o + 10].hex(":"), raw[o + 10 : o + 16].hex(":"))
            for o in range(at, at + (ways >> 1) * 16, 16)
        ]

    def slow_ifindex(self):
        value = self.daemon.bpftool("map", "lookup", "pinned", self.map("tunnel"), "key", "hex", "00", "00", "00", "00")["value"]
        return int.from_bytes(bytes(int(b, 16) for b in value)[24:28], "little")

    def wait_slow(self):
        def check():
            index = self.slow_ifindex()
            return index and index == self.host.ifindex(SLOW) and index

        with contextlib.suppress(OSError):
            return wait_for(check, what=f"{SLOW} is in use")
        raise AssertionError(f"no {SLOW}:\n{self.daemon.log()}")

    def managed(self):
        """The neighbour entries that the kernel keeps for the agent."""
        lines = self.host.run("ip", "neigh", "show", "nud", "all").stdout.splitlines()
        return sorted(line.split()[0] for line in lines if " managed " in line and "proto 104" in line)

    def metric(self, name):
        text = self.daemon.api.get("/metrics")
        return {m[1]: int(m[2]) for m in re.finditer(rf'^{name}\{{[^"]*"([^"]*)"\}} (\d+)$', text, re.M)}

    def close(self):
        self.stack.close()


@pytest.fixture(name="make")
def _make():
    with contextlib.ExitStack() as stack:

        def make(**kwargs):
            underlay = Underlay(**kwargs)
            stack.callback(underlay.close)
            return underlay

        yield make


@pytest.mark.parametrize("family", [4, 6])
def test_ways(make, family):
    u = make(family=family)
    far = u.comes_to("up0", "up1")
    assert far["address"] == u.address and far["mtu"] == (1450 if family == 4 else 1430) and far["reason"] is None
    assert [(w["nextHop"], w["mac"]) for w in far["ways"]] == [(u.gateway(i), u.links[i].a_mac) for i in (0, 1)]
    address, mtu, ways = u.record()
    assert mtu == 1500 and ways == [(u.host.ifindex(f"up{i}"), u.links[i].a_mac, u.links[i].b_mac) for i in (0, 1)]
    family_ = socket.AF_INET if family == 4 else socket.AF_INET6
    assert address.endswith(socket.inet_pton(family_, u.address))
    # a peer on the link is its own next hop
    near = u.comes_to("up0", name="near")
    assert near["ways"][0]["nextHop"] == u.gateway(0)
    assert u.managed() == sorted(u.gateway(i) for i in (0, 1))
    tunnel = u.daemon.status()["tunnel"]
    assert (tunnel["protocol"], tunnel["address"], tunnel["port"], tunnel["decapsulation"]) == ("vxlan", u.own, PORT, "tc")
    assert tunnel["mtu"] == far["mtu"]
    assert u.metric("heddle_peers")["reachable"] == 2
    text = u.daemon.cli("status").stdout
    assert re.search(rf"^far +{re.escape(u.address)} +reachable +{far['mtu']} +up0 via {re.escape(u.gateway(0))},up1 via", text, re.M), text
    assert f"tunnel: vxlan, {u.own} port {PORT}, decapsulation in tc, MTU {far['mtu']}" in text


def test_ready_waits_for_nobody(make):
    u = make(start=False)
    u.router.ip("link set r0 arp off", "link set r1 arp off")  # nobody answers
    u.daemon.start()
    assert u.peer()["state"] in ("pending", "resolving")
    u.comes_to(state="unresolved", timeout=15)
    assert u.record()[2] == [] and u.record()[1] == 1500 and u.peer()["reason"] == "no next hop answers"
    u.router.ip("link set r0 arp on", "link set r1 arp on")
    u.comes_to("up0", "up1", timeout=15)


def test_a_link_goes(make):
    u = make()
    u.comes_to("up0", "up1")
    times = []
    for down, up in (("link set up1 down", "link set up1 up"), ("link set up0 down", "link set up0 up")):
        began = time.monotonic()
        u.host.ip(down)
        left = "up0" if "up1" in down else "up1"
        index = u.host.ifindex(left)
        wait_for(lambda: [w[0] for w in u.record()[2]] == [index], interval=0.001, what=f"{left} is left")
        times.append(time.monotonic() - began)
        assert u.peer()["state"] == "reachable"
        u.host.ip(up)
        u.route()  # the kernel took it away with the link
        u.comes_to("up0", "up1")
    assert min(times) < 1 and max(times) < 3, "not when the kernel told of it"  # a busy machine may be late once
    # The far end of the cable. The kernel is in no hurry to tell of carriers, and all namespaces share its patience.
    u.router.ip("link set r0 down")
    u.comes_to("up1", timeout=30)
    u.comes_to(name="near", state="link-down")
    u.router.ip("link set r0 up")
    u.comes_to("up0", "up1", timeout=30)
    u.comes_to("up0", name="near")


def test_a_next_hop_has_another_mac(make):
    u = make()
    u.comes_to("up0", "up1")
    u.router.ip("link set r0 address 02:00:00:00:77:77")
    # It says so, as routers do: a gratuitous ARP request.
    address = socket.inet_aton(u.gateway(0))
    frame = bytes.fromhex("ffffffffffff 020000007777 0806 0001 0800 0604 0001 020000007777") + address
    frame += bytes.fromhex("000000000000") + address
    with u.router, socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
        s.bind(("r0", 0))
        s.send(frame + bytes(18))
    wait_for(lambda: u.record()[2][0][1] == "02:00:00:00:77:77", what="the new MAC")
    assert u.record("near")[2][0][1] == "02:00:00:00:77:77"
    assert u.record()[2][1][1] == u.links[1].a_mac


def test_routes_change(make):
    u = make()
    u.comes_to("up0", "up1")
    u.host.ip(f"route replace 10.90.0.0/16 via {u.gateway(1)} mtu 1400")
    assert u.comes_to("up1")["mtu"] == 1350
    u.host.ip(f"route add blackhole {FAR}/32")
    assert u.comes_to(state="no-route")["reason"] == "the route is a blackhole"
    u.host.ip(f"route del {FAR}/32")
    u.comes_to("up1")
    # A rule for the tunnel alone.
    u.host.ip(f"route add 10.90.0.0/16 via {u.gateway(0)} table 90", f"rule add from {OWN} ipproto udp dport {PORT} table 90 pref 90")
    u.comes_to("up0")
    u.host.ip("rule del pref 90")
    u.comes_to("up1")
    u.host.ip("route del 10.90.0.0/16")
    assert u.comes_to(state="no-route")["reason"] == "no route leads there from the tunnel's address"
    assert u.managed() == [u.gateway(0)]  # of the peer on the link
    assert u.metric("heddle_peers") == {**dict.fromkeys(u.metric("heddle_peers"), 0), "reachable": 1, "no-route": 1}
    u.route()
    u.comes_to("up0", "up1")
    u.host.ip("link set up1 mtu 1300")
    wait_for(lambda: u.record()[1] == 1300 and u.peer()["mtu"] == 1250, what="the MTU")


def test_documents_change(make):
    u = make()
    u.comes_to("up0", "up1")
    before = u.peer("near")["index"]
    # Its address moves: to the one on the other link.
    moved = peer("far", u.gateway(1), {"name": "w", "network": "blue", "mac": "02:00:00:00:01:02", "addresses": ["10.77.0.2"]})
    u.daemon.write("00-host.yaml", *u.documents[:2], moved, u.documents[3])
    far = wait_for(lambda: u.peer()["address"] == u.gateway(1) and u.comes_to("up1"), what="the new address")
    assert far["ways"][0]["nextHop"] == u.gateway(1) and u.record()[2][0][0] == u.host.ifindex("up1")
    u.daemon.write("00-host.yaml", *u.documents[:2], u.documents[3])
    wait_for(lambda: len(u.daemon.status()["peers"]) == 1, what="one peer")
    wait_for(lambda: u.managed() == [u.gateway(0)], what="its neighbour alone")
    assert u.peer("near")["index"] == before
    # No tunnel any more.
    spec = {k: v for k, v in u.documents[0]["spec"].items() if k != "tunnel"}
    u.daemon.write("00-host.yaml", doc.document("Host", "host", spec))
    wait_for(lambda: u.daemon.status()["tunnel"] is None and u.managed() == [], what="no tunnel")
    assert SLOW not in u.host.run("ip", "link").stdout
    u.daemon.write("00-host.yaml", *u.documents)
    u.comes_to("up0", "up1")
    u.wait_slow()


def test_restart_and_detach(make):
    u = make()
    u.comes_to("up0", "up1")
    u.wait_slow()
    record = u.record()
    u.daemon.kill(signal.SIGKILL)
    assert len(u.managed()) == 2 and SLOW not in u.host.run("ip", "link").stdout
    u.daemon.start()
    assert u.record() == record  # from the first moment on
    u.comes_to("up0", "up1")
    assert u.record() == record
    u.wait_slow()
    u.daemon.stop()
    u.daemon.detach()
    assert u.managed() == []
    assert SLOW not in u.host.run("ip", "link").stdout


def test_the_device(make):
    u = make(protocol="geneve")
    u.comes_to("up0", "up1")
    u.wait_slow()
    link = u.host.run("ip", "-d", "-o", "link", "show", SLOW).stdout
    assert "mtu 65521" in link and "UP" in link and "NOARP" in link and "persist off" in link
    assert u.host.run("ip", "-o", "addr", "show", SLOW).stdout == ""
    status = u.daemon.status()
    assert status["tunnel"]["slowPath"] == {"device": SLOW, "reason": None}
    assert SLOW not in status["unguarded"] and SLOW not in [up["device"] for up in status["uplinks"]]
    assert {"tc_uplink_in", "tc_uplink_out"} <= set(u.daemon.programs(SLOW))
    # Fragments of a peer are put together, and come in by the device, once; nothing there is for the host.
    with u.far, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER: no DF
        s.bind((FAR, 50000))
        s.sendto(bytes.fromhex("0000655800ffff00") + bytes(3000), (OWN, PORT))
        s.sendto(bytes.fromhex("0080655800ffff00") + bytes(3000), (OWN, PORT))  # OAM
    wait_for(lambda: u.metric("heddle_tunnel_slow_packets_total")["received"] == 1, what="what was fragmented")
    time.sleep(0.2)
    counts = u.metric("heddle_tunnel_slow_packets_total")
    assert counts["received"] == 1 and counts["ignored"] == 1
    assert sum(u.daemon.drops().values()) == 1


def test_the_device_is_taken_away(make):
    u = make()
    first = u.wait_slow()
    u.host.ip(f"link del {SLOW}")
    wait_for(lambda: u.slow_ifindex() not in (0, first), what="another one")
    u.wait_slow()


def test_the_port_is_taken(make):
    u = make(start=False)
    u.host.ip(f"link add vx0 type vxlan id 5 dstport {PORT} local {OWN}")
    u.host.ip("link set vx0 up")
    u.daemon.start()
    u.comes_to("up0", "up1")
    wait_for(lambda: u.daemon.status()["tunnel"]["slowPath"]["reason"], what="that it says so")
    assert u.daemon.status()["tunnel"]["slowPath"] == {"device": None, "reason": "somebody else has the tunnel's port"}
    assert u.slow_ifindex() == 0
    u.host.ip("link del vx0")
    wait_for(u.slow_ifindex, timeout=10, what="the device, once the port is free")
