# SPDX-License-Identifier: Apache-2.0
"""The host's own stack and workloads behind peers: what a host opens, and what answers it; nothing else comes that way."""

import socket

import pytest
from lib import documents as doc
from lib import overlay
from lib.heddled import wait_for
from lib.nat import WhoAmI, ask, ask_patiently
from lib.overlay import Fabric, tunnelled, wrap
from lib.ports import GATEWAY_MAC
from lib.raw import IP, UDP, Ether, IPv6, Raw, Wire
from lib.traffic import accept_pair, ping, roundtrip_pair, transfer

VNI = 100
DEVICE = "heddle-host"
BEYOND = {4: "203.0.113.9", 6: "2001:db8:9::9"}


class Scene:
    """Two hosts whose network routes to them; `a` lives at the first, `b` at the second."""

    def __init__(self, mode="l3", family=4, **options):
        self.family = family
        self.fabric = f = Fabric(family)
        try:
            self.one, self.two = f.heddle(**options), f.heddle(**options)
            for end in (self.one, self.two):
                end.peer = lambda end=end: self.peer(end)
            self.blue = f.network("blue", VNI, mode=mode, routesTo=["host"], mtu=1500)
            self.a, self.b = self.one.work(self.blue, 1), self.two.work(self.blue, 2, labels={"app": "b"})
            f.up()
            for end in (self.one, self.two):
                wait_for(lambda end=end: end.daemon.status()["tunnel"]["host"]["device"], what="the device")
        except BaseException:
            f.close()
            raise

    def other_address(self, end):
        return self.fabric.address(end.number, 6 if self.family == 4 else 4)

    def peer(self, end):
        document = overlay.End.peer(end)
        document["spec"]["hostAddresses"] = [self.other_address(end)]
        return document

    def host(self, end, family):
        return self.fabric.address(end.number, family)

    def close(self):
        self.fabric.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


@pytest.fixture(scope="module", params=[("l3", 4), ("l2", 4), ("l3", 6)], ids=lambda p: f"{p[0]}-{p[1]}")
def scene(request):
    with Scene(*request.param) as s:
        yield s


def answers(ns, address):
    try:
        return ping(ns, address, timeout=0.5)
    except OSError:
        return False  # there is no way there


def isolate(name="quiet", **spec):
    spec = {"podSelector": {"matchLabels": {"app": "b"}}, "policyTypes": ["Ingress"], **spec}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


@pytest.mark.parametrize("family", [4, 6])
def test_host_to_workload_and_back(scene, family):
    one, b = scene.one, scene.b
    with WhoAmI(b.ns, 8080):
        for protocol in ("tcp", "udp"):
            assert ask_patiently(one.ns, b.ip(family), 8080, protocol) == scene.host(one, family)
    for size in (84, 1500, 3000):
        assert overlay.echo(one.ns, b.ip(family), size)
    client, server = accept_pair(one.ns, b.ns, b.ip(family), 9000)
    with client, server:
        transfer(client, server, 1 << 20)
        transfer(server, client, 1 << 20)
    flows = [f for f in one.daemon.flows(protocol="TCP") if f["destination"] == b.ip(family) and f["destinationPort"] == 9000]
    assert len(flows) == 1
    # an error of the workload's own stack is an answer, too
    with one.ns.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect((b.ip(family), 7))
        s.send(b"anybody?")
        s.settimeout(3)
        with pytest.raises(ConnectionRefusedError):
            s.recv(10)


@pytest.mark.parametrize("family", [4, 6])
def test_fragments(scene, family):
    """Of what the host sends, and of what answers it."""
    one, b = scene.one, scene.b
    for _ in range(2):
        assert overlay.echo(one.ns, b.ip(family), 6000)


@pytest.mark.parametrize("family", [4, 6])
def test_isolated_workload(scene, family):
    """Another host is no exception to a policy: it is named by a block, with its address."""
    one, two, b = scene.one, scene.two, scene.b
    bits = 32 if family == 4 else 128
    with WhoAmI(b.ns, 8080):
        assert ask_patiently(one.ns, b.ip(family), 8080)
        two.put(*two.documents(), isolate())
        assert ask(one.ns, b.ip(family), 8080, timeout=0.5) is None
        assert ask(two.ns, b.ip(family), 8080), "its own host reaches it, whatever the policy"
        assert two.drops("policy-deny")
        two.put(*two.documents(), isolate(ingress=[{"from": [{"ipBlock": {"cidr": f"{scene.host(one, family)}/{bits}"}}]}]))
        assert ask(one.ns, b.ip(family), 8080) == scene.host(one, family)
        two.put()


@pytest.mark.parametrize("family", [4, 6])
def test_nothing_but_answers_comes_back(scene, family):
    """A workload at another host opens nothing towards this one's stack through the tunnel, nor does a peer."""
    one, b = scene.one, scene.b
    kind = IPv6 if family == 6 else IP
    here = scene.host(one, family)
    with Wire(one.ns, DEVICE) as heard:
        rogue = scene.fabric.rogue(150 + family)
        for number, (dport, sport) in enumerate([(9, 7), (22, 4000)]):
            mark = b"mark-%04d-" % number
            before = one.drops("no-destination")
            inner = Ether(src=GATEWAY_MAC, dst=GATEWAY_MAC) / kind(src=b.ip(family), dst=here) / UDP(sport=sport, dport=dport) / Raw(mark)
            rogue.send(wrap(inner, VNI, scene.two.address, one.address, scene.fabric.mac(1)))
            wait_for(lambda before=before: one.drops("no-destination") == before + 1, what="dropped")
            assert heard.wait_frame(lambda p, mark=mark: mark in bytes(p), 0.1) is None
        # nor is the host a way for them to somewhere else
        before = one.drops("no-destination")
        beyond = Ether(src=GATEWAY_MAC, dst=GATEWAY_MAC) / kind(src=b.ip(family), dst=BEYOND[family]) / UDP(sport=7, dport=9) / Raw(b"mark-out")
        rogue.send(wrap(beyond, VNI, scene.two.address, one.address, scene.fabric.mac(1)))
        wait_for(lambda: one.drops("no-destination") == before + 1, what="dropped")
        assert heard.wait_frame(lambda p: b"mark-out" in bytes(p), 0.1) is None


@pytest.mark.parametrize("family", [4, 6])
def test_nobody_claims_the_address_of_a_host(scene, family):
    one, two, a, b = scene.one, scene.two, scene.a, scene.b
    kind = IPv6 if family == 6 else IP
    mac = b.mac if scene.blue.switched else GATEWAY_MAC
    mark = b"who-am-i-"
    with Wire(b.ns, "eth0") as heard, Wire(a.ns, "eth0") as sender:
        # a workload: as its own host, and as the other one
        for end in (one, two):
            reason = f"source-ip{family}"
            before = one.drops(reason)
            sender.send(Ether(src=a.mac, dst=mac) / kind(src=scene.host(end, family), dst=b.ip(family)) / UDP(sport=7, dport=9) / Raw(mark))
            wait_for(lambda before=before, reason=reason: one.drops(reason) == before + 1, what=reason)
        # a peer: as the host that it sends to, as a third one, and as a workload of that host
        rogue = scene.fabric.rogue(160 + family)
        for source in (scene.host(two, family), scene.fabric.address(99, family), scene.b.ip(family)):
            before = two.drops("tunnel-source")
            inner = Ether(src=GATEWAY_MAC, dst=b.mac) / kind(src=source, dst=b.ip(family)) / UDP(sport=7, dport=9) / Raw(mark)
            rogue.send(wrap(inner, VNI, one.address, two.address, scene.fabric.mac(2)))
            wait_for(lambda before=before: two.drops("tunnel-source") == before + 1, what="tunnel-source")
        assert heard.wait_frame(lambda p: mark in bytes(p), 0.1) is None


@pytest.mark.parametrize("family", [4, 6])
def test_what_the_host_forwards_for_others(scene, family):
    """Who has no address in the network does not come in by the host's stack: not from the underlay, and not from another network."""
    one, b = scene.one, scene.b
    kind = IPv6 if family == 6 else IP
    one.ns.sysctl("net.ipv4.ip_forward", 1)
    one.ns.sysctl("net.ipv6.conf.all.forwarding", 1)
    rogue = scene.fabric.rogue(170 + family)
    mark = b"from-outside-"
    with Wire(b.ns, "eth0") as heard:
        before = one.drops(f"source-ip{family}")
        stranger = scene.fabric.address(170 + family, family)
        rogue.send(Ether(src="02:75:00:00:00:ee", dst=scene.fabric.mac(1)) / kind(src=stranger, dst=b.ip(family)) / UDP(sport=7, dport=9) / Raw(mark))
        wait_for(lambda: one.drops(f"source-ip{family}") > before, what="dropped")
        assert heard.wait_frame(lambda p: mark in bytes(p), 0.1) is None


@pytest.mark.parametrize("family", [4, 6])
def test_workload_to_the_other_host(scene, family):
    """By its own host's stack and the underlay, as before: the tunnel has answers alone."""
    one, two, a = scene.one, scene.two, scene.a
    for end in (one, two):
        end.ns.sysctl("net.ipv4.ip_forward", 1)
        end.ns.sysctl("net.ipv6.conf.all.forwarding", 1)
    there = scene.host(two, family)
    with Wire(two.ns, "up0") as heard:
        a.ns.run("ping", "-c1", "-W1", there, check=False)
        seen = heard.wait_frame(lambda p: (IPv6 if family == 6 else IP) in p and p[IPv6 if family == 6 else IP].src == a.ip(family))
        assert seen is not None, "it is no tunnel packet"
        assert not tunnelled([bytes(seen)])


def test_explain(scene):
    one, two, b = scene.one, scene.two, scene.b
    for family in (4, 6):
        packet = {"protocol": "tcp", "dport": 8080}
        said = one.daemon.explain(**{"from": scene.host(one, family), "to": b.ip(family), **packet})
        assert (said["verdict"], said["program"], said["network"], said["destinationPeer"]) == ("allow", "tc_host_out", "blue", two.name)
        said = one.daemon.explain(**{"from": scene.host(one, family), "to": "10.77.9.9" if family == 4 else "fd77::999", **packet})
        assert (said["verdict"], said["reason"]) == ("drop", "no-destination")
        said = two.daemon.explain(**{"from": scene.host(one, family), "to": b.ip(family), **packet})
        assert (said["verdict"], said["program"], said["sourcePeer"]) == ("allow", "tc_tunnel_in", one.name)
        said = one.daemon.explain(**{"from": b.ip(family), "to": scene.host(one, family), "peer": two.name, "network": "blue", **packet})
        assert (said["verdict"], said["reason"]) == ("drop", "no-destination")
        said = one.daemon.explain(**{"from": scene.a.ip(family), "to": scene.host(two, family), **packet})
        assert said["program"] == "tc_port_in" and said["destinationPeer"] is None


def test_restart_and_detach():
    with Scene() as s:
        one, b = s.one, s.b
        before = one.ns.run("ip", "-o", "link", "show", "dev", DEVICE).stdout
        client, server = accept_pair(one.ns, b.ns, b.ip4, 9000)
        with client, server:
            one.daemon.kill()
            roundtrip_pair(client, server)
            assert ping(one.ns, b.ip6), "without the agent"
            one.daemon.start()
            roundtrip_pair(client, server)
        assert one.ns.run("ip", "-o", "link", "show", "dev", DEVICE).stdout == before, "the same device"
        assert ping(one.ns, b.ip4)
        # somebody removes it
        one.ns.ip(f"link del {DEVICE}")
        wait_for(lambda: answers(one.ns, b.ip4), timeout=10, what="made again")
        # routes of somebody else's come before ours
        one.ns.run("ip", "route", "add", "10.77.0.0/16", "dev", "lo")
        assert "dev lo" in one.ns.run("ip", "route", "get", "10.77.0.2").stdout
        one.ns.run("ip", "route", "del", "10.77.0.0/16", "dev", "lo")
        # no network routes to the host any more
        s.blue.spec["routesTo"] = []
        one.put()
        wait_for(lambda: DEVICE not in one.ns.run("ip", "-o", "link").stdout, what="gone")
        s.blue.spec["routesTo"] = ["host"]
        one.put()
        wait_for(lambda: answers(one.ns, b.ip4), timeout=10, what="there again")
        one.daemon.stop()
        one.daemon.detach()
        for what in ("link", "route", "-6 route"):
            said = one.ns.run("ip", "-o", *what.split(), "show").stdout if "route" in what else one.ns.run("ip", "-o", "link").stdout
            assert "heddle" not in said and "10.77" not in said and "fd77" not in said, said
