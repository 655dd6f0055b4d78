# SPDX-License-Identifier: Apache-2.0
"""
Flows that NICs forward to the wire, by the VLAN of their network, and to peers, in a tunnel. As in test_offload.py the kernel plays the NIC: its own VXLAN
and Geneve make the tunnel packets that rules ask for. What comes in a tunnel our programs take before the kernel's device can: rules for that get their
packets from another rule here, which says of a frame in which tunnel packet it came.
"""

import os
import socket
import time

import pytest
from lib import documents as doc
from lib.flower import SOFTWARE, counted, has_flower, reserve, rules
from lib.heddled import wait_for
from lib.netns import PATIENCE, Link, Namespace
from lib.overlay import PORT, Fabric, tunnelled
from lib.ports import GATEWAY_MAC, PortHost, Workload
from lib.raw import ARP, IP, UDP, Capture, Dot1Q, Ether, IPv6, Raw, Wire
from lib.traffic import accept_pair, roundtrip_pair, transfer

pytestmark = pytest.mark.skipif(not has_flower(), reason="this kernel has no cls_flower: make check-kernels runs it in guests")

DEVICE = "heddle-offload"
VLAN = 100
DATA = b"over the wire, by a tunnel" * 4
STATION, STATION_IP = "02:00:00:00:77:01", "10.77.0.200"
# Of an uplink rules are asked only ahead of programs on clsact.
ENV = {**SOFTWARE, "HEDDLE_TC": "clsact"}


def flow(daemon, **match):
    flows = daemon.flows(**match)
    assert len(flows) == 1, flows
    return flows[0]


def wait_offloaded(daemon, going, yes=True, **match):
    """going: keeps the flow alive, and learnt, all the while."""

    def there():
        going()
        return bool(flow(daemon, **match).get("offloaded")) == yes

    wait_for(there, 10, interval=0.1, what=f"offloaded: {yes} {match}")


def software(daemon):
    return [(r["reason"], r["flows"]) for r in daemon.status()["offload"]["software"]]


def wait_software(daemon, going, reason):
    def there():
        going()
        return software(daemon) == [(reason, 1)]

    wait_for(there, 10, interval=0.2, what=f"software: {reason}")


# --- the wire ---


class OnTheWire:
    """A host with a workload, and a station on the other end of its uplink that speaks tagged Ethernet."""

    def __init__(self, **spec):
        self.host = PortHost(env=ENV, start=False, host_spec={"offload": "auto", "uplinks": [{"device": "up0", "xdp": "off"}], **spec})
        self.daemon = self.host.daemon
        self.far = Namespace("far")
        self.host.stack.callback(self.far.delete)
        self.link = Link(self.far, "wire0", self.host.ns, "up0", 1)
        self.work = Workload(self.host.ns, 11)
        self.host.stack.callback(self.work.close)
        self.other = Workload(self.host.ns, 12)
        self.host.stack.callback(self.other.close)
        self.work.address("10.77.0.1/24")
        for device in ("up0", self.work.device):
            reserve(self.host.ns, device)
        self.sink = self.work.ns.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.host.stack.callback(self.sink.close)
        self.sink.bind(("", 4000))
        self.daemon.start()
        self.port = doc.port("a", self.work.device, "blue", addresses=["10.77.0.1"])
        self.daemon.apply(doc.network("blue", subnets=["10.77.0.0/24"], vlan=VLAN), self.port)
        self.host.wait_port("a")
        wait_for(lambda: self.daemon.programs("up0"), what="up0 is guarded")
        self.at_work, self.wire = Wire(self.work.ns, "eth0"), Wire(self.far, "wire0")
        self.host.stack.callback(self.wire.close)
        self.host.stack.callback(self.at_work.close)

    def exchange(self, prio=0, mac=STATION):
        """The same datagram each way; what came out at the other end."""
        there = IP(src="10.77.0.1", dst=STATION_IP, tos=0x28, id=77) / UDP(sport=4000, dport=5000) / Raw(DATA)
        back = IP(src=STATION_IP, dst="10.77.0.1", tos=0x28, id=77) / UDP(sport=5000, dport=4000) / Raw(DATA)
        self.at_work.send(Ether(src=self.work.mac, dst=mac) / there)
        out = self.wire.wait_frame(lambda p: DATA in bytes(p), timeout=5 * PATIENCE)
        self.wire.send(Ether(src=mac, dst=self.work.mac) / Dot1Q(vlan=VLAN, prio=prio) / back)
        into = self.at_work.wait_frame(lambda p: DATA in bytes(p), timeout=5 * PATIENCE)
        assert out is not None and into is not None, (out, into)
        return [bytes(out), bytes(into)]

    def learn(self, mac=STATION):
        self.wire.send(Ether(src=mac, dst="ff:ff:ff:ff:ff:ff") / Dot1Q(vlan=VLAN) / ARP(op=1, hwsrc=mac, psrc=STATION_IP, pdst="10.77.0.1"))
        assert self.wire.wait_frame(lambda p: ARP in p and p[ARP].op == 2, timeout=5 * PATIENCE)

    def offload(self, **kwargs):
        wait_offloaded(self.daemon, lambda: self.exchange(**kwargs), destinationPort=5000)

    def rules(self):
        return rules(self.host.ns, self.work.device, "up0")

    def seen(self):
        """When each MAC was last seen to be learnt, in ticks."""
        return [r["value"]["seen"] for r in self.host.dump("fdb") if r["value"]["ifindex"]]

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.host.close()


def test_the_wire_sees_the_same_frames():
    with OnTheWire() as w:
        w.learn()
        capture = Capture(w.far, "wire0", "-Q", "in", "udp", "and", "port", "5000")
        by_programs = w.exchange()
        w.offload()
        assert w.exchange() == by_programs
        before = flow(w.daemon, destinationPort=5000)["packets"]
        first = [counted(r) for r in w.rules()]
        assert len(first) == 2
        for _ in range(20):
            assert w.exchange(prio=5) == by_programs
        assert [counted(r) - n for r, n in zip(w.rules(), first)] == [20, 20]
        wait_for(lambda: flow(w.daemon, destinationPort=5000)["packets"] >= before + 40, 10, what="counters come back")
        lines = [line for line in capture.lines() if f"{w.work.mac} > {STATION}" in line]
        assert len(lines) > 20 and all(f"vlan {VLAN}, p 0, ethertype IPv4" in line for line in lines)
        assert not w.daemon.drops()


def test_who_is_on_the_wire_stays_learnt():
    """By what hardware counts; and rules go when the MAC is learnt no more, comes from elsewhere or is given to somebody by a document."""
    with OnTheWire() as w:
        w.learn()
        w.offload()
        w.exchange()
        (before,) = w.seen()
        until = time.monotonic() + 3 * PATIENCE
        first = [counted(r) for r in w.rules()]
        while time.monotonic() < until:
            w.exchange()
            time.sleep(0.1)
        assert all(counted(r) > n + 5 for r, n in zip(w.rules(), first)), "no program has seen them"
        wait_for(lambda: w.seen()[0] > before, 10, what="it is learnt by what is counted")
        # Nobody knows where it is: what is sent there is flooded again, and no rule says otherwise.
        w.host.forget("fdb")
        wait_for(lambda: not w.rules(), 5, what="the rules go")
        w.learn()
        w.offload()
        # Another MAC has the address: with its first frames the flow is that one's.
        other = "02:00:00:00:77:02"
        w.learn(mac=other)
        w.offload(mac=other)
        wait_for(lambda: all(other in r for r in w.rules()) and len(w.rules()) == 2, 10, what="rules for the new one")
        # And a document says that it is somebody's here.
        w.daemon.apply(doc.port("b", w.other.device, "blue", addresses=[STATION_IP]))
        assert not w.rules()


def test_a_connection_over_the_wire():
    """With another host, whose programs see what the rules of this one send."""
    with OnTheWire() as w, PortHost(host_spec={"uplinks": [{"device": "wire0", "xdp": "off"}]}, start=False) as two:
        link = Link(two.ns, "wire0", w.host.ns, "up1", 2)
        assert link
        reserve(w.host.ns, "up1")
        two.daemon.start()
        b = Workload(two.ns, 22)
        two.stack.callback(b.close)
        b.address("10.77.0.2/24")
        w.daemon.put("00-host.yaml", doc.document("Host", "host", {
            "pickupSeconds": 0, "offload": "auto", "uplinks": [{"device": "up0", "xdp": "off"}, {"device": "up1", "xdp": "off"}]}))  # fmt: skip
        two.daemon.apply(doc.network("blue", subnets=["10.77.0.0/24"], vlan=VLAN), doc.port("b", b.device, "blue", addresses=["10.77.0.2"]))
        two.wait_port("b")
        wait_for(lambda: w.daemon.programs("up1") and two.daemon.programs("wire0"), what="both are guarded")
        c, s = accept_pair(w.work.ns, b.ns, "10.77.0.2", 7000)
        with c, s:
            wait_offloaded(w.daemon, lambda: roundtrip_pair(c, s), destinationPort=7000)
            for one, other in ((c, s), (s, c)):
                sent, got = transfer(one, other, 4 << 20)
                assert sent == got
            ours = rules(w.host.ns, w.work.device, "up1")
            assert len(ours) == 2 and all(counted(r) > 50 for r in ours)
            # a policy that says otherwise cuts it at once
            w.daemon.apply({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "closed", "namespace": "default"},
                "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": []}})  # fmt: skip
            assert not rules(w.host.ns, w.work.device, "up1")
            assert not roundtrip_pair(c, s, timeout=1)
            w.daemon.cli("delete", "networkpolicy", "closed")
        c, s = accept_pair(w.work.ns, b.ns, "10.77.0.2", 7100)
        with c, s:
            wait_offloaded(w.daemon, lambda: roundtrip_pair(c, s), destinationPort=7100)
        wait_for(lambda: not rules(w.host.ns, w.work.device, "up1"), 5, what="the rules go with the connection")


# --- tunnels ---


class Tunnel:
    """Two hosts with heddle; the first one offloads. A workload on each."""

    def __init__(self, protocol="vxlan", underlay=4, mode="l2", work_mtu=None, prepare=None, tunnel=None):
        room = 1600 - (50 if underlay == 4 else 70)
        self.fabric = Fabric(underlay, protocol, work_mtu=work_mtu or (1500 if mode == "l2" else room))
        self.stack = self.fabric.stack
        try:
            self.one = self.fabric.heddle(env=ENV, start=False, offload="auto", tunnel=tunnel)
            self.two = self.fabric.heddle(tunnel=tunnel)
            self.blue = self.fabric.network("blue", 100, mode=mode)
            self.a, self.b = self.one.work(self.blue, 1), self.two.work(self.blue, 2)
            reserve(self.one.ns, self.a.device)
            if prepare:
                prepare(self.one.ns)
            self.sinks = [w.ns.socket(socket.AF_INET6, socket.SOCK_DGRAM) for w in (self.a, self.b)]
            for sink, port in zip(self.sinks, (4000, 5000)):
                self.stack.callback(sink.close)
                sink.bind(("::", port))
            self.one.daemon.start()
            self.fabric.up()
            if protocol == "geneve":
                self.deliver_geneve()
            self.wires = [Wire(w.ns, "eth0") for w in (self.a, self.b)]
            self.witness = Wire(self.two.ns, "up0")
            for wire in (*self.wires, self.witness):
                self.stack.callback(wire.close)
        except BaseException:
            self.fabric.close()
            raise
        self.daemon = self.one.daemon

    def deliver_geneve(self):
        """
        While our own socket has the tunnel's port the kernel's device has the next one, and Geneve's sends to no other than its own, whatever a rule says: here
        the underlay puts that right. A NIC has no socket.
        """
        protocol, tap = "ip" if self.fabric.family == 4 else "ipv6", self.fabric.tap_of(1)
        self.fabric.ns.run("tc", "qdisc", "add", "dev", tap, "clsact")
        words = f"filter add dev {tap} ingress protocol {protocol} flower ip_proto udp dst_port {PORT['geneve'] + 1}"
        self.fabric.ns.run("tc", *words.split(), *f"action pedit ex munge udp dport set {PORT['geneve']} pipe action pass".split())

    def frame(self, family, from_a, tos=0, ttl=64, data=DATA):
        (w, sport), (to, dport) = ((self.a, 4000), (self.b, 5000)) if from_a else ((self.b, 5000), (self.a, 4000))
        ether = Ether(src=w.mac, dst=to.mac if self.blue.switched else GATEWAY_MAC)
        source, destination = w.ip(family), to.ip(family)
        ip = IP(src=source, dst=destination, ttl=ttl, tos=tos, id=77) if family == 4 else IPv6(src=source, dst=destination, hlim=ttl, tc=tos)
        return bytes(ether / ip / UDP(sport=sport, dport=dport) / Raw(data))

    def exchange(self, family, **kwargs):
        """The same datagram each way: the tunnel packet that a's became, and what came out at b and at a."""
        self.witness.frames()
        arrived = []
        for from_a in (True, False):
            self.wires[not from_a].send(self.frame(family, from_a, **kwargs))
            packet = self.wires[from_a].wait_frame(lambda p: DATA in bytes(p), timeout=5 * PATIENCE)
            assert packet is not None, (from_a, self.daemon.drops(), self.two.daemon.drops(), self.rules())
            arrived.append(bytes(packet))
        (sent,) = [t for t in tunnelled(self.witness.frames()) if DATA in t.inner]
        return sent, arrived

    def match(self, family):
        return {"destinationPort": 5000, "destination": self.b.ip(family)}

    def offload(self, family):
        wait_offloaded(self.daemon, lambda: self.exchange(family), **self.match(family))

    def rules(self, family=None):
        """Into the tunnel, and out of it."""
        kind = {4: " ip pref", 6: " ipv6 pref", None: " "}[family]
        return tuple([r for r in rules(self.one.ns, device) if r.startswith(kind)] for device in (self.a.device, DEVICE))

    def peer(self):
        return next(p for p in self.daemon.status()["peers"] if p["name"] == "node-2")

    def device(self):
        return self.one.ns.run("ip", "-d", "link", "show", DEVICE, check=False).stdout

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.fabric.close()


# Since then a rule says that DF is set.
SAYS_DF = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 4)


def outer(sent):
    """All that a rule is to write as our programs do: everything but the source port, IPv4's id, and the checksum with it."""
    ip = sent.ip
    if ip.version == 4:
        fields = (ip.version, ip.ihl, ip.tos, ip.len, SAYS_DF and int(ip.flags), ip.frag, ip.ttl, ip.proto, ip.src, ip.dst)
    else:
        fields = (ip.version, ip.tc, ip.plen, ip.nh, ip.hlim, ip.src, ip.dst)
    return (sent.ether.src, sent.ether.dst, fields, sent.udp.dport, sent.udp.len, sent.udp.chksum, sent.header)


KINDS = pytest.mark.parametrize(
    "protocol, underlay", [("vxlan", 4), ("vxlan", 6), ("geneve", 4), ("geneve", 6)], ids=["vxlan-over4", "vxlan-over6", "geneve-over4", "geneve-over6"]
)
MODES = pytest.mark.parametrize("mode", ["l2", "l3"])


@MODES
@KINDS
def test_the_underlay_sees_the_same_packets(protocol, underlay, mode):
    with Tunnel(protocol, underlay, mode) as t:
        for family in (4, 6):
            sent, arrived = t.exchange(family)
            want = outer(sent), sent.inner, arrived
            t.offload(family)
            (into,), (_,) = t.rules(family)
            before, peer = counted(into), t.peer()["sent"]
            for _ in range(10):
                sent, arrived = t.exchange(family)
                assert (outer(sent), sent.inner, arrived) == want
            (into,), _ = t.rules(family)
            assert counted(into) == before + 10
            size = len(sent.inner) - 14
            wait_for(lambda p=peer: t.peer()["sent"]["packets"] >= p["packets"] + 10, 10, what="counted as sent to the peer")
            assert t.peer()["sent"]["bytes"] - peer["bytes"] >= 10 * (size - 1)
            # What has a DSCP is our programs': the outer header has the same.
            sent, _ = t.exchange(family, tos=0x28)
            assert (sent.ip.tos if underlay == 4 else sent.ip.tc) == 0x28
            # So is what has to be answered.
            if mode == "l3":
                t.wires[0].send(t.frame(family, True, ttl=1))
                assert t.wires[0].wait_frame(lambda p: p.haslayer("ICMP") or p.haslayer("ICMPv6TimeExceeded"), timeout=5 * PATIENCE)
        t.daemon.stop()
        assert t.rules() == ([], []) and not t.device()
        assert not t.two.faults()


class Feed:
    """Frames as if a NIC had them out of a tunnel packet with these outer headers."""

    def __init__(self, ns, t, vni=100, source=None, tos=0):
        ns.ip("link add feed0 type veth peer name feed1", "link set feed0 up", "link set feed1 up")
        ns.run("tc", "qdisc", "add", "dev", "feed0", "clsact")
        key = f"id {vni} src_ip {source or t.two.address} dst_ip {t.one.address} dst_port {PORT[t.fabric.protocol]} tos {tos}"
        words = f"filter add dev feed0 ingress matchall action tunnel_key set {key} pipe action mirred ingress redirect dev {DEVICE}"
        ns.run("tc", *words.split())
        self.ns, self.wire = ns, Wire(ns, "feed1")

    def __enter__(self):
        return self.wire

    def __exit__(self, *exc):
        self.wire.close()
        self.ns.ip("link del feed0")


@MODES
@KINDS
def test_what_comes_out_of_a_tunnel(protocol, underlay, mode):
    with Tunnel(protocol, underlay, mode) as t:
        for family in (4, 6):
            _, (inner, want) = t.exchange(family)
            t.offload(family)
            _, (out_of,) = t.rules(family)
            assert counted(out_of) == 0, "our programs have taken all there was"
            _, arrived = t.exchange(family)
            # as the other host sends it
            inner = t.frame(family, False) if mode == "l2" else routed(t.frame(family, False), t.a.mac, family)
            before, packets = t.peer()["received"], flow(t.daemon, **t.match(family))["packets"]
            with Feed(t.one.ns, t) as feed:
                for _ in range(10):
                    feed.send(inner)
                    packet = t.wires[0].wait_frame(lambda p: DATA in bytes(p), timeout=5 * PATIENCE)
                    assert packet is not None and bytes(packet) == want == arrived[1]
                # what opens or ends nothing, but is another flow's, is not this rule's
                feed.send(t.frame(family, False)[:-1] + b"!")
            _, (out_of,) = t.rules(family)
            assert counted(out_of) >= 10
            wait_for(lambda b=before: t.peer()["received"]["packets"] >= b["packets"] + 10, 10, what="counted as received from the peer")
            wait_for(lambda n=packets, m=t.match(family): flow(t.daemon, **m)["packets"] >= n + 10, 10, what="and as the flow's")
            # Another network, somebody else, a mark of congestion: not by this rule.
            elsewhere = "192.168.77.9" if underlay == 4 else "fd66::9"
            for fields in ({"vni": 101}, {"source": elsewhere}, {"tos": 3}):
                t.wires[0].frames()
                with Feed(t.one.ns, t, **fields) as feed:
                    feed.send(inner)
                    assert t.wires[0].wait_frame(lambda p: DATA in bytes(p), timeout=0.5 * PATIENCE) is None, fields


def routed(frame, mac, family):
    """By the other host, where nothing is switched: to the workload's MAC, its TTL less by one."""
    packet = Ether(frame)
    packet.src, packet.dst = GATEWAY_MAC, mac
    if family == 4:
        packet[IP].ttl -= 1
        del packet[IP].chksum
    else:
        packet[IPv6].hlim -= 1
    return bytes(packet)


@KINDS
def test_a_connection_to_a_peer(protocol, underlay):
    with Tunnel(protocol, underlay) as t:
        for family, port in ((4, 7000), (6, 7100)):
            c, s = accept_pair(t.a.ns, t.b.ns, t.b.ip(family), port)
            with c, s:
                wait_offloaded(t.daemon, lambda c=c, s=s: roundtrip_pair(c, s), destinationPort=port)
                sent, got = transfer(c, s, 4 << 20)
                assert sent == got
                (into,), _ = t.rules()
                assert counted(into) > 50
                sent, got = transfer(s, c, 1 << 20)
                assert sent == got
            wait_for(lambda: t.rules() == ([], []), 5, what="the rules go with the connection")
        assert not t.two.faults() and not t.one.faults()


def test_the_device_comes_and_goes():
    with Tunnel() as t:
        assert t.device() and t.daemon.status()["tunnel"]["slowPath"]["reason"] is None
        t.offload(4)
        # A killed agent's rules and device are in nobody's way.
        t.daemon.kill()
        assert [len(r) for r in t.rules()] == [1, 1]
        t.daemon.start()
        assert "rules of an earlier agent" in t.daemon.log()
        t.offload(4)
        # Somebody removes it: the rules are gone with it, and it is made again.
        t.one.ns.ip(f"link del {DEVICE}")
        wait_for(t.device, 10, what="it is made again")
        t.offload(4)
        t.daemon.put("00-host.yaml", doc.document("Host", "host", {
            "pickupSeconds": 0, "uplinks": [{"device": "up0", "xdp": "off"}],
            "tunnel": {"protocol": "vxlan", "address": t.one.address, "port": 4789}}))  # fmt: skip
        assert not t.device() and t.rules() == ([], [])
        t.exchange(4)


def test_the_device_goes_with_detach():
    with Tunnel() as t:
        t.offload(4)
        t.daemon.kill()
        assert t.device()
        t.one.ns.run(*t.daemon.argv("--detach"), env={**os.environ, **ENV})
        assert not t.device() and t.rules() == ([], [])


def test_somebody_elses_device():
    with Tunnel(prepare=lambda ns: ns.ip(f"link add {DEVICE} type veth peer name other0")) as t:
        wait_software(t.daemon, lambda: t.exchange(4), "tunnel")
        reason = f"somebody else has a device of the name {DEVICE}"
        assert t.daemon.status()["offload"]["tunnelReason"] == reason
        assert f"offload: none to peers: {reason}" in t.daemon.cli("status").stdout
        t.daemon.stop()
        assert t.device()


def test_what_rules_cannot_do():
    """Checksums that no NIC fills in, and packets that have to be answered for their size."""
    with Tunnel(tunnel={"checksum": "full"}) as t:
        wait_software(t.daemon, lambda: t.exchange(4), "checksum")
        assert not t.device() and t.rules() == ([], [])
    with Tunnel(mode="l2", work_mtu=1551) as t:
        wait_software(t.daemon, lambda: t.exchange(4), "mtu")
