# SPDX-License-Identifier: Apache-2.0
"""Networks between hosts with heddled: every kind of tunnel, underlay and network, and what of a network stays its own."""

import time

import pytest
from lib import documents as doc
from lib import overlay, traffic
from lib.heddled import wait_for
from lib.overlay import Fabric, expect_all, expect_bytes, expect_echoes, expect_nothing, tunnelled
from lib.ports import GATEWAY_MAC
from lib.raw import ARP, ICMP, IP, UDP, Dot1Q, Ether, IPv6, Raw, Wire
from lib.traffic import Servers, expect_tcp, expect_udp, ping

BROADCAST = "ff:ff:ff:ff:ff:ff"


def two_hosts(f, **kwargs):
    one, two = f.heddle(**kwargs), f.heddle(**kwargs)
    return one, two


@pytest.mark.parametrize("mode", ["l2", "l3"])
@pytest.mark.parametrize("protocol", ["vxlan", "geneve"])
@pytest.mark.parametrize("underlay", [4, 6], ids=["over4", "over6"])
def test_between_hosts(protocol, underlay, mode):
    with Fabric(underlay, protocol) as f:
        one, two = two_hosts(f)
        blue = f.network("blue", 100, mode=mode)
        a, b, c = one.work(blue, 1), two.work(blue, 2), one.work(blue, 3)
        f.up()
        with one.witness() as witness:
            expect_all(a, b)
            sent = tunnelled(witness.frames())
        expect_echoes(a, c)
        assert {t.udp.dport for t in sent} == {overlay.PORT[protocol]} and {t.vni for t in sent} == {100}
        assert (one.faults(), two.faults()) == ({}, {})


@pytest.mark.parametrize(
    "xdp, env, decapsulate",
    [("native", None, "tc"), ("native", None, "xdp"), ("generic", None, "auto"), ("off", {"HEDDLE_TC": "clsact"}, "auto")],
    ids=["native", "decapsulating", "generic", "clsact"],
)
@pytest.mark.parametrize("protocol, underlay", [("vxlan", 4), ("geneve", 6)], ids=["vxlan4", "geneve6"])
def test_other_hooks(protocol, underlay, xdp, env, decapsulate):
    """XDP on the uplink takes nothing away that TC would have let through, and clsact serves as TCX does."""
    with Fabric(underlay, protocol) as f:
        one, two = two_hosts(f, xdp=xdp, env=env, tunnel={"decapsulate": decapsulate})
        blue = f.network()
        a, b = one.work(blue, 1), two.work(blue, 2)
        f.up()
        assert one.daemon.programs("up0").get("xdp_uplink", "off") == xdp
        expect_all(a, b)


def test_another_port():
    with Fabric() as f:
        one, two = two_hosts(f, tunnel={"port": 8472})
        blue = f.network()
        a, b = one.work(blue, 1), two.work(blue, 2)
        f.up()
        with one.witness() as witness:
            expect_echoes(a, b)
            ports = {Ether(frame)[UDP].dport for frame in witness.frames() if UDP in Ether(frame)}
        assert 8472 in ports and 4789 not in ports


def test_the_hosts_policy_is_not_asked():
    """Not of tunnel packets; of everything else it is."""
    with Fabric() as f:
        one, two = two_hosts(f, docs=[doc.policy(default=doc.DENY_ALL)])
        blue = f.network()
        a, b = one.work(blue, 1), two.work(blue, 2)
        f.up()
        ping(one.ns, two.address, answered=False)
        expect_all(a, b)
        with Servers(two.ns, udp=[4790]):
            expect_udp(one.ns, two.address, 4790, "timeout")


# --- networks ---


@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_routed_at_the_source(mode):
    """The frame leaves with the destination's VNI, from the gateway, one hop older; the way back is the other network's."""
    with Fabric() as f:
        one, two = two_hosts(f)
        blue = f.network("blue", 100, 78, mode=mode, routesTo=["red"])
        red = f.network("red", 101, 79, mode=mode)
        a, b = one.work(blue, 1), two.work(red, 2)
        f.up()
        with one.witness() as there, two.witness() as back:
            expect_echoes(a, b, (84,))
            out, home = tunnelled(there.frames()), tunnelled(back.frames())
        requests = [Ether(t.inner) for t in out if t.vni == 101]
        replies = [Ether(t.inner) for t in home if t.vni == 100]
        assert {(r.src, r.dst) for r in requests if IP in r} == {(GATEWAY_MAC, b.mac)}
        assert {r[IP].ttl for r in requests if IP in r} == {63} and {r[IPv6].hlim for r in requests if IPv6 in r} == {63}
        assert {(r.src, r.dst) for r in replies if IP in r} == {(GATEWAY_MAC, a.mac)} and {r[IP].ttl for r in replies if IP in r} == {63}
        for size in (1600, 3200):
            assert overlay.echo(a.ns, b.ip4, size) and overlay.echo(a.ns, b.ip6, size)
        for family in (4, 6):
            expect_bytes(a, b, family)
        expect_nothing(b, a)


@pytest.mark.parametrize("mode", ["l2", "l3"])
@pytest.mark.parametrize("protocol", ["vxlan", "geneve"])
def test_four_networks_with_the_same_addresses(protocol, mode):
    with Fabric(protocol=protocol) as f:
        one, two = two_hosts(f)
        networks = [f.network(f"n{i}", 200 + i, mode=mode) for i in range(4)]
        near = [one.work(n, 1) for n in networks]
        far = [two.work(n, 2) for n in networks]
        f.up()
        servers = [Servers(w.ns, tcp=[7000], udp=[7000]) for w in far]
        try:
            for i, w in enumerate(near):
                before = [(s.accepted.get(7000, 0), s.datagrams.get(7000, 0)) for s in servers]
                for family in (4, 6):
                    expect_tcp(w.ns, far[i].ip(family), 7000, "open")
                    expect_udp(w.ns, far[i].ip(family), 7000, "reply")

                def counted(i=i, before=before):
                    now = [(s.accepted.get(7000, 0), s.datagrams.get(7000, 0)) for s in servers]
                    return [(n[0] - b[0], n[1] - b[1]) for n, b in zip(now, before)] == [(2, 2) if j == i else (0, 0) for j in range(4)]

                wait_for(counted, what=f"all of it in network {i}")
        finally:
            for s in servers:
                s.close()
        expect_bytes(near[3], far[3], 4)


def test_a_network_that_only_one_of_them_has():
    """Its VNI is nobody's at the other: dropped, and counted."""
    with Fabric() as f:
        one, two = two_hosts(f)
        blue = f.network()
        a, b = one.work(blue, 1), two.work(blue, 2)
        f.up()
        expect_echoes(a, b, (84,))
        peers = [d for d in two.documents() if d["kind"] == "Peer"]
        for peer in peers:
            del peer["spec"]["ports"]
        two.put(*peers)
        expect_nothing(a, b)
        assert two.drops("tunnel-vni") >= 2
        metrics = two.daemon.api.get("/metrics")
        assert 'heddle_drops_total{reason="tunnel-vni"' in metrics


def test_three_hosts():
    with Fabric() as f:
        hosts = [f.heddle() for _ in range(3)]
        blue = f.network()
        works = [h.work(blue, i + 1) for i, h in enumerate(hosts)]
        f.up()
        for a in works:
            for b in works:
                if a is not b:
                    expect_echoes(a, b)
                    expect_bytes(a, b, 4)
                    expect_bytes(a, b, 6)


def test_prefixes_behind_a_peer():
    """Addresses that no document lists one by one: a router's, that a peer has in its network."""
    with Fabric() as f:
        one, two = two_hosts(f)
        blue = f.network("blue", 100, mode="l3")
        a, b = one.work(blue, 1), two.work(blue, 0x0A02)
        two.prefixes = [("blue", "10.77.10.0/24"), ("blue", "fd77::a00/120")]
        f.up()
        peer = two.peer()
        del peer["spec"]["ports"]
        one.put(*[d for d in one.documents() if d["kind"] != "Peer"], peer)
        expect_all(a, b)
        with one.witness() as witness:
            ping(a.ns, "10.77.11.2", answered=False)
            assert tunnelled(witness.frames()) == []


# --- policy ---


def network_policy(name, spec):
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec}


def selects(**labels):
    return {"podSelector": {"matchLabels": labels}}


@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_policy_follows_the_workload(mode):
    """Ingress by the receiver's host, egress by the sender's, each selecting workloads of the other one by their labels."""
    with Fabric() as f:
        one, two = two_hosts(f)
        blue = f.network("blue", 100, mode=mode)
        web, other = one.work(blue, 1, labels={"app": "web"}), one.work(blue, 2, labels={"app": "other"})
        db, cache = two.work(blue, 3, labels={"app": "db"}), two.work(blue, 4, labels={"app": "cache"})
        two.extra = [
            network_policy("db", {**selects(app="db"), "ingress": [{"from": [selects(app="web")], "ports": [{"port": 7000}]}]}),
        ]
        one.extra = [
            network_policy("web", {**selects(app="web"), "policyTypes": ["Egress"], "egress": [{"to": [selects(app="db")]}]}),
        ]
        f.up()
        with Servers(db.ns, tcp=[7000, 7001]), Servers(cache.ns, tcp=[7000]) as cached:
            for family in (4, 6):
                expect_tcp(web.ns, db.ip(family), 7000, "open")
                expect_tcp(web.ns, db.ip(family), 7001, "timeout")
                expect_tcp(other.ns, db.ip(family), 7000, "timeout")
                expect_tcp(other.ns, cache.ip(family), 7000, "open")
            wait_for(lambda: cached.accepted.get(7000) == 2, what="both are accepted")
            with one.witness() as witness:
                for family in (4, 6):
                    expect_tcp(web.ns, cache.ip(family), 7000, "timeout")
                    expect_tcp(other.ns, cache.ip(family), 7000, "open")
                # the stack of web may well report its groups, and end earlier connections, meanwhile
                assert _senders(tunnelled(witness.frames()), cache) == {other.ip4, other.ip6}
            wait_for(lambda: cached.accepted == {7000: 4}, what="two more, of the other one")
            assert two.drops("policy-deny") > 0 and one.drops("policy-deny") > 0
            # a label that changes by document cuts what was let through because of it
            client = traffic.connect(web.ns, db.ip4, 7000)
            with client:
                assert traffic.roundtrip(client)
                web.labels["app"] = "former"
                two.put()
                assert not traffic.roundtrip(client, timeout=0.5)


def _senders(packets, to):
    """Whose addresses packets to that workload have as their source."""
    inner = [Ether(t.inner) for t in packets]
    ip = [p[layer] for p in inner for layer in (IP, IPv6) if layer in p]
    return {p.src for p in ip if p.dst in (to.ip4, to.ip6)}


# --- L2 ---


def test_what_is_known_is_answered_here():
    """No ARP and no neighbour solicitation crosses the underlay for an address that a document gives a MAC."""
    with Fabric() as f:
        one, two = two_hosts(f)
        blue = f.network()
        a, b = one.work(blue, 1), two.work(blue, 2)
        f.up()
        with one.witness() as there, two.witness() as back:
            for w in (a, b):
                w.ns.ip("neigh flush dev eth0")
            expect_echoes(a, b, (84,))
            expect_echoes(b, a, (84,))
            seen = tunnelled(there.frames()) + tunnelled(back.frames())
        assert seen and not [t.inner for t in seen if t.inner[12:14] == b"\x08\x06"]
        for t in seen:
            packet = Ether(t.inner)
            solicits = IPv6 in packet and packet[IPv6].nh == 58 and t.inner[54] == 135
            assert not (solicits and packet[IPv6].dst.startswith("ff")), packet.summary()
        known = a.ns.run("ip", "neigh", "show", "dev", "eth0").stdout
        assert f"{b.ip4} lladdr {b.mac}" in known and f"{b.ip6} lladdr {b.mac}" in known


def group_frames(source):
    """Mark: a frame for everybody, or for a group."""
    def udp(layer):
        return layer / UDP(sport=5000, dport=5353)

    return {
        b"broadcast-4": Ether(src=source.mac, dst=BROADCAST) / udp(IP(src=source.ip4, dst="255.255.255.255")),
        b"subnet-broadcast": Ether(src=source.mac, dst=BROADCAST) / udp(IP(src=source.ip4, dst="10.77.255.255")),
        b"multicast-4": Ether(src=source.mac, dst="01:00:5e:00:00:fb") / udp(IP(src=source.ip4, dst="224.0.0.251")),
        b"multicast-6": Ether(src=source.mac, dst="33:33:00:00:00:fb") / udp(IPv6(src=source.ip6, dst="ff02::fb")),
        b"not-ip": Ether(src=source.mac, dst=BROADCAST, type=0x88B5),
        b"unknown-mac": Ether(src=source.mac, dst="02:00:00:00:66:66", type=0x88B5),
    }


def test_broadcast_and_multicast():
    """Once to every peer of the network and the ports beside, to nobody of another one."""
    with Fabric() as f:
        hosts = [f.heddle() for _ in range(3)]
        blue, red = f.network("blue", 100), f.network("red", 101)
        a, near, b, c = hosts[0].work(blue, 1), hosts[0].work(blue, 4), hosts[1].work(blue, 2), hosts[2].work(blue, 3)
        strangers = [h.work(red, 9 + h.number) for h in hosts]
        f.up()
        wires = {w.name: Wire(w.ns, "eth0") for w in (near, b, c, *strangers)}
        try:
            with Wire(a.ns, "eth0") as wire, hosts[1].witness() as echoes:
                for mark, frame in group_frames(a).items():
                    wire.send(bytes(frame / Raw(mark + b" " * 40)))
                time.sleep(0.3)
                got = {name: w.frames(0.1) for name, w in wires.items()}
                assert not [t for t in tunnelled(echoes.frames()) if a.mac == Ether(t.inner).src], "a peer sent it on to another one"
        finally:
            for w in wires.values():
                w.close()
        for mark in group_frames(a):
            counts = {name: len([x for x in frames if mark in x]) for name, frames in got.items()}
            wanted = {w.name: 1 for w in (near, b, c)} | {w.name: 0 for w in strangers}
            assert counts == wanted, mark


def test_a_network_that_only_routes_floods_nothing():
    with Fabric() as f:
        one, two = two_hosts(f)
        blue = f.network("blue", 100, mode="l3")
        a, b = one.work(blue, 1), two.work(blue, 2)
        f.up()
        with Wire(a.ns, "eth0") as wire, one.witness() as witness:
            for mark, frame in group_frames(a).items():
                wire.send(bytes(frame / Raw(mark + b" " * 40)))
            time.sleep(0.2)
            assert not [t for t in tunnelled(witness.frames()) if Ether(t.inner).src == a.mac]
        expect_echoes(a, b, (84,))


def unlisted(one, two):
    """What the first host is told of the second: a part of the subnet, and no workload by itself."""
    two.prefixes = [("blue", "10.77.0.0/25"), ("blue", "fd77::/112")]
    peer = two.peer()
    del peer["spec"]["ports"]
    return [d for d in one.documents() if d["kind"] != "Peer"] + [peer]


def test_macs_are_learnt_from_peers():
    with Fabric() as f:
        one, two = two_hosts(f)
        blue = f.network("blue", 100, learning=True)
        a, b = one.work(blue, 200), two.work(blue, 2)
        f.up()
        one.put(*unlisted(one, two))
        expect_echoes(a, b)
        rows = {bytes(int(x, 16) if isinstance(x, str) else x for x in r["key"]["mac"]): r["value"] for r in one.host.dump("fdb")}
        mine = rows.get(bytes.fromhex(b.mac.replace(":", "")))
        assert mine and mine["peer"] and not mine["ifindex"], rows
        # Once learnt, it is no longer asked of everybody
        with one.witness() as witness:
            assert overlay.echo(a.ns, b.ip4, 84)
            assert {Ether(t.inner).dst for t in tunnelled(witness.frames()) if IP in Ether(t.inner)} == {b.mac}


def test_the_first_answer_of_somebody_unknown():
    """The workload knows the MAC, its host does not: the SYN goes to every peer, and the connection is there with the first answer to it."""
    with Fabric() as f:
        one, two = two_hosts(f)
        blue = f.network("blue", 100, learning=True)
        a, b = one.work(blue, 200), two.work(blue, 2)
        f.up()
        one.put(*unlisted(one, two))
        for family in (4, 6):
            a.ns.ip(f"neigh replace {b.ip(family)} lladdr {b.mac} nud permanent dev eth0")
            for _ in range(3):
                one.host.forget("fdb")
                client, server = traffic.accept_pair(a.ns, b.ns, b.ip(family), 7100 + family)
                with client, server:
                    assert traffic.retransmits(client) == 0
        assert one.drops("tcp-no-flow") == 0


def test_what_a_document_says_is_not_learnt_otherwise():
    """A MAC that is a port's here stays its own, whoever sends with it from elsewhere."""
    with Fabric() as f:
        one, two = two_hosts(f)
        blue = f.network("blue", 100, learning=True)
        a, c, b = one.work(blue, 200), one.work(blue, 201), two.work(blue, 2)
        f.up()
        one.put(*unlisted(one, two))
        expect_echoes(a, b, (84,))
        forged = Ether(src=c.mac, dst=a.mac) / IP(src="10.77.0.3", dst=a.ip4) / UDP(sport=1, dport=2) / Raw(b"forged")
        rogue = f.rogue()
        with Wire(a.ns, "eth0") as wire:
            rogue.send(overlay.wrap(forged, 100, two.address, one.address, f.mac(one.number)))
            assert wire.wait_frame(lambda p: b"forged" in bytes(p), 0.3) is None
        expect_echoes(a, c, (84,))
        assert c.mac.replace(":", "") not in str(one.host.dump("fdb")).replace(":", "")


# --- a network that is a VLAN here and a VNI there ---


class Station:
    """Somebody on the underlay's wire who speaks tagged Ethernet, and answers ARP and echo requests."""

    MAC, IP4, VLAN = "02:00:00:00:77:01", "10.77.0.200", 40

    def __init__(self, wire):
        self.wire = wire

    def send(self, packet, to):
        self.wire.send(Ether(src=self.MAC, dst=to) / Dot1Q(vlan=self.VLAN) / packet)

    def ask(self, w):
        """Resolves a workload's address and sends it an echo request; what came back."""
        self.send(ARP(op=1, hwsrc=self.MAC, psrc=self.IP4, pdst=w.ip4), BROADCAST)
        answer = self.wire.wait_frame(lambda f: ARP in f and f[ARP].op == 2 and f[ARP].psrc == w.ip4)
        assert answer and answer[ARP].hwsrc == w.mac, f"ARP for {w.ip4}: {answer and answer.summary()}"
        self.send(IP(src=self.IP4, dst=w.ip4) / ICMP(type=8, id=77) / Raw(b"from the wire"), w.mac)

        def asked_or_answered(f):
            return ARP in f and f[ARP].op == 1 and f[ARP].pdst == self.IP4 or ICMP in f and f[ICMP].type == 0

        reply = self.wire.wait_frame(asked_or_answered)
        if reply and ARP in reply:
            self.send(ARP(op=2, hwsrc=self.MAC, psrc=self.IP4, hwdst=reply.src, pdst=reply[ARP].psrc), reply.src)
            reply = self.wire.wait_frame(lambda f: ICMP in f and f[ICMP].type == 0)
        return reply


def test_a_vlan_here_and_a_vni_there():
    """A station on the wire of one host reaches workloads of both, and they it; between the hosts the network is tunnelled, untagged."""
    with Fabric() as f:
        one, two = two_hosts(f)
        blue = f.network("blue", 100)
        a, b = one.work(blue, 1), two.work(blue, 2)
        one.prefixes = [("blue", f"{Station.IP4}/32")]
        f.up()
        documents = one.documents()
        for d in documents:
            if d["kind"] == "Network":
                d["spec"]["vlan"] = Station.VLAN
        one.put(*documents)
        station = Station(f.rogue())
        for w in (a, b):
            with one.witness() as witness:
                reply = station.ask(w)
                sent = witness.frames()
            assert reply and reply[IP].src == w.ip4 and bytes(reply[ICMP].payload).startswith(b"from the wire")
            to_two = [t for t in tunnelled(sent) if ICMP in Ether(t.inner)]
            assert (len(to_two) > 0) == (w is b) and not [t for t in to_two if Dot1Q in Ether(t.inner)]
        expect_all(a, b)
