# SPDX-License-Identifier: Apache-2.0
"""Workers between ports: veths of workloads, taps of machines, and uplinks. The first packets of a flow are judged in TC, the others known in XDP."""

import os
import socket
import struct
import threading

import pytest
from lib import documents as doc
from lib import traffic
from lib.documents import policy
from lib.heddled import wait_for
from lib.machine import Machine, NEEDS_CSUM
from lib.netns import Link, Namespace
from lib.ports import GATEWAY_MAC, PortHost
from lib.traffic import expect_tcp, expect_udp

BLUE = doc.network("blue", subnets=["10.77.0.0/24", "fd77::/64"], gateway=["10.77.0.254", "fd77::fe"], routesTo=["host"])
ALLOW = {"ingress": "allow", "egress": "allow"}


def between(devices, **spec):
    return doc.document("FastPath", "between", {"consumer": "forward", "devices": devices, "match": [{}], **spec})


def port_documents(plane):
    return [doc.port(d, d, "blue", mac=e.mac, addresses=[e.a4, e.a6], labels={"end": d}) for d, e in plane.ends.items()]


class Plane(PortHost):
    """client (wire0) --- (up0) host, two workloads behind veths (port1, port2) and two machines behind taps (vm3, vm4)."""

    def __init__(self, ports=("port1", "port2", "vm3", "vm4"), xdp="native", networks=(BLUE,), policies=(), uplink=True, forward="pass", **spec):
        self.outside = Namespace("client")
        super().__init__(start=False, host_spec={"uplinks": [{"device": "up0", "xdp": xdp}], "forward": forward})
        self.stack.callback(self.outside.delete)
        try:
            self._build(ports, networks, policies, uplink, spec)
        except BaseException:
            self.close()
            raise

    def _build(self, ports, networks, policies, uplink, spec):
        self.link = Link(self.outside, "wire0", self.ns, "up0", 1)
        self.outside.run("ethtool", "-K", "wire0", "tx", "off")  # as off a wire
        self.outside.ip(f"route add 10.77.0.0/24 via {self.link.b4}", f"route add fd77::/64 via {self.link.b6}")
        self.ns.sysctl("net.ipv4.ip_forward", 1)
        self.ns.sysctl("net.ipv6.conf.all.forwarding", 1)
        self.ends = dict(zip(("port1", "port2"), self.add(2)))
        for number in (3, 4):
            self.ends[f"vm{number}"] = Machine(self.ns, number)
            self.stack.callback(self.ends[f"vm{number}"].close)
        for n, end in enumerate(self.ends.values(), 1):
            end.address(f"10.77.0.{n}/24", f"fd77::{n}/64")
            end.via("10.77.0.254", "fd77::fe")
            end.a4, end.a6 = f"10.77.0.{n}", f"fd77::{n}"
        self.path_document = between((["up0"] if uplink else []) + list(ports), **spec)
        self.daemon.start()
        self.daemon.put("10-ports.yaml", policy(default=ALLOW), *networks, *port_documents(self), *policies, self.path_document)

    def path(self):
        return next(p for p in self.daemon.status()["fastPaths"] if p["name"] == "between")

    def live(self, timeout=20):
        wait_for(lambda: self.path()["state"] == "live", timeout, what=f"live workers: {self.path()}")
        reasons = [d["reason"] for d in self.path()["devices"]]
        assert reasons == [None] * len(reasons), reasons
        return self.path()

    def sockets(self, what):
        """{device: sum} of all its queues."""
        sums = {}
        for s in self.path()["sockets"]:
            sums[s["device"]] = sums.get(s["device"], 0) + s[what]
        return sums

    def far(self, device):
        """(namespace, IPv4, IPv6) of an end."""
        if device == "up0":
            return self.outside, self.link.a4, self.link.a6
        end = self.ends[device]
        return end.ns, end.a4, end.a6


@pytest.fixture(params=["native", "generic"])
def xdp(request):
    return request.param


PAIRS = [("port1", "port2"), ("port1", "vm3"), ("vm3", "vm4"), ("up0", "port1"), ("up0", "vm3"), ("vm3", "up0"), ("port2", "up0")]


def each_pair(plane, count, counting=lambda a, b: (a, b)):
    """TCP with all bytes both ways, UDP and ping, in both families; count(): {device: frames so far}, of which some are of each that counting(a, b) names."""
    for n, (a, b) in enumerate(PAIRS):
        (near, _, _), (far, *addresses) = plane.far(a), plane.far(b)
        for family, address in zip((4, 6), addresses):
            before = count()
            with traffic.Servers(far, udp=[7700]):
                for size in (1, 2, 3):
                    expect_udp(near, address, 7700, "reply", sport=4000 + n, payload=os.urandom(400 * size + 1))
            assert traffic.ping(near, address, 5)
            c, s = traffic.accept_pair(near, far, address, 7800 + n * 2 + (family == 6))
            # request and answer, none of it larger than the MTU
            for _ in range(50):
                exchange(c, s)
            for sender, receiver in ((c, s), (s, c)):
                sent, got = traffic.transfer(sender, receiver, 1 << 20, chunk=1 << 18)
                assert sent == got, (a, b, family)
            c.close()
            s.close()
            after = count()
            for device in counting(a, b):
                assert after[device] - before[device] >= 20, (a, b, family, before, after)


@pytest.mark.parametrize("workers", [1, 2])
def test_traffic(xdp, workers):
    """TCP with all bytes both ways, UDP and ping, in both families, between each kind of device; most of it by workers."""
    with Plane(xdp=xdp, workers=workers) as plane:
        plane.live()
        each_pair(plane, lambda: plane.sockets("rx"))
        path = plane.path()
        assert sum(s["noDevice"] + s["malformed"] + s["dropped"] + s["invalid"] for s in path["sockets"]) == 0, path
        assert path["dropped"] == 0
        # the machines' stack has left checksums open, and so has that of workloads
        sums = plane.sockets("checksums")
        assert all(sums[d] > 0 for d in ("port1", "port2", "vm3", "vm4")), sums
        assert plane.ends["vm3"].unsummed and plane.ends["vm3"].large


def exchange(a, b, size=700):
    for sender, receiver in ((a, b), (b, a)):
        text = os.urandom(size)
        sender.sendall(text)
        got = b""
        while len(got) < size:
            got += receiver.recv(size - len(got))
        assert got == text


def numbers(*documents):
    """What the flow and the rules say of 50 requests and answers."""
    with Plane(uplink=False) as plane:
        plane.live()
        if not documents:
            plane.daemon.put("10-ports.yaml", *[d for d in plane_documents(plane) if d["kind"] != "FastPath"])
            wait_for(lambda: plane.daemon.status()["fastPaths"] == [], 10, what="no FastPath")
        with traffic.Servers(plane.ends["port2"].ns, udp=[7700]), plane.ends["port1"].ns.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(10)
            s.bind(("", 4000))
            for _ in range(50):
                s.sendto(b"a packet", (plane.ends["port2"].a4, 7700))
                s.recv(100)
        if documents:
            assert sum(plane.sockets("rx").values()) >= 97
        return [(f["packets"], f["bytes"], f["state"]) for f in plane.daemon.flows(protocol="UDP")]


def plane_documents(plane):
    return [policy(default=ALLOW), BLUE, *port_documents(plane), plane.path_document]


def test_counted_alike():
    assert numbers() == numbers("workers") != []


def isolate(device, direction, *rules):
    kind = "Ingress" if direction == "ingress" else "Egress"
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": f"{device}-{direction}", "namespace": "default"},
        "spec": {"podSelector": {"matchLabels": {"end": device}}, "policyTypes": [kind], direction: list(rules)},
    }


def test_policy_comes_first():
    """What a NetworkPolicy denies does not get to a worker, nor goes on there once it is denied."""
    only = isolate("port2", "ingress", {"ports": [{"protocol": "UDP", "port": 7700}]})
    with Plane(policies=[only]) as plane:
        plane.live()
        target = plane.ends["port2"]
        with traffic.Servers(target.ns, tcp=[7701], udp=[7700, 7701]):
            for source in (plane.ends["port1"].ns, plane.ends["vm3"].ns, plane.outside):
                for address in (target.a4, target.a6):
                    for _ in range(3):
                        expect_udp(source, address, 7700, "reply", sport=4001)
                    expect_udp(source, address, 7701, "timeout")
                    expect_tcp(source, address, 7701, "timeout")
            assert plane.daemon.drops()[("policy-deny", "ingress")] + plane.daemon.drops().get(("policy-deny", "egress"), 0) >= 12
            taken = plane.path()["taken"]
            assert taken > 0
            # a flow that workers carry ends at its next packet
            plane.daemon.put("10-ports.yaml", *plane_documents(plane), isolate("port2", "ingress"))
            before = plane.sockets("rx")
            expect_udp(plane.ends["port1"].ns, target.a4, 7700, "timeout", sport=4001)
            expect_udp(plane.outside, target.a4, 7700, "timeout", sport=4001)
            assert plane.sockets("tx")["port2"] and plane.sockets("rx")["port1"] == before["port1"]


def test_judged_at_the_uplink():
    """forward: judge. The egress policy of the uplink has its say about what a port sends, and a change of it about what workers carry."""
    rules = [doc.rule("deny", "UDP", 7703)]
    with Plane(("port1",), forward="judge") as plane:
        plane.live()
        documents = plane_documents(plane)
        plane.daemon.put("10-ports.yaml", policy(egress=rules, default=ALLOW), *documents[1:])
        plane.live()
        one = plane.ends["port1"]
        with traffic.Servers(plane.outside, udp=[7700, 7703]):
            for address in (plane.link.a4, plane.link.a6):
                for _ in range(4):
                    expect_udp(one.ns, address, 7700, "reply", sport=4000)
                expect_udp(one.ns, address, 7703, "timeout")
            assert plane.sockets("tx")["up0"] >= 4 and plane.sockets("tx")["port1"] >= 4, plane.path()
            plane.daemon.put("10-ports.yaml", policy(egress=[doc.rule("deny", "UDP", 7700)], default=ALLOW), *documents[1:])
            before = plane.sockets("tx")["up0"]
            expect_udp(one.ns, plane.link.a4, 7700, "timeout", sport=4000)
            assert plane.sockets("tx")["up0"] == before
            assert plane.daemon.drops()[("policy-deny", "egress")] >= 3


def test_sends_only_as_itself():
    """The source checks of tc_port_in: in a flow that workers carry, with another's MAC or address, or somebody else's flow."""
    from scapy.all import IP, UDP, Ether, Raw  # pylint: disable=import-outside-toplevel

    with Plane() as plane:
        plane.live()
        one, two, vm = plane.ends["port1"], plane.ends["port2"], plane.ends["vm3"]
        with traffic.Servers(two.ns, udp=[7700]):
            for end in (one, vm):
                for _ in range(3):
                    expect_udp(end.ns, two.a4, 7700, "reply", sport=4000)
        with two.ns.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as sniff, one.ns.socket(
            socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)
        ) as wire:
            sniff.bind(("eth0", 0))
            sniff.settimeout(0.5)
            wire.bind(("eth0", 0))
            before = plane.sockets("rx")["port1"]
            body = IP(src=one.a4, dst=two.a4) / UDP(sport=4000, dport=7700) / Raw(b"a forged packet")
            other = IP(src=vm.a4, dst=two.a4) / UDP(sport=4000, dport=7700) / Raw(b"a forged packet")
            for frame in (
                Ether(src=vm.mac, dst=two.mac) / body,
                Ether(src=one.mac, dst=two.mac) / other,
                Ether(src=vm.mac, dst=two.mac) / other,
            ):
                for _ in range(10):
                    wire.send(bytes(frame))
            with pytest.raises(TimeoutError):
                while b"a forged packet" not in sniff.recv(2000):
                    pass
            assert plane.sockets("rx")["port1"] == before
            drops = plane.daemon.drops()
            assert drops[("source-mac", "egress")] >= 20 and drops[("source-ip4", "egress")] >= 10, drops
            # the same flow, its own: by the workers
            wire.send(bytes(Ether(src=one.mac, dst=two.mac) / body))
            wait_for(lambda: plane.sockets("rx")["port1"] == before + 1, 5, what="its own packet")


class Stream(threading.Thread):
    """Requests and answers over one connection, on and on, each byte looked at."""

    def __init__(self, near, far, address, port):
        super().__init__(daemon=True)
        self.c, self.s = traffic.accept_pair(near, far, address, port)
        self.c.settimeout(30)
        self.s.settimeout(30)
        self.moved, self.wrong, self.stop = 0, None, False

    def run(self):
        try:
            while not self.stop:
                self.turn()
        except (OSError, AssertionError) as error:
            self.wrong = error

    def turn(self):
        exchange(self.c, self.s)
        self.moved += 1

    def more(self):
        before = self.moved
        wait_for(lambda: self.moved > before + 200 or self.wrong, 60, what="more of the stream")
        assert self.wrong is None

    def end(self):
        self.stop = True
        self.join(timeout=30)
        self.c.close()
        self.s.close()
        assert self.wrong is None


STREAMS = (("port1", "vm3"), ("vm4", "port2"), ("up0", "vm3"), ("port1", "up0"))


def streams_of(plane, kind=Stream):
    return [kind(plane.far(a)[0], plane.far(b)[0], plane.far(b)[1], 7900 + n) for n, (a, b) in enumerate(STREAMS)]


def test_agent_restarts():
    """Killed under traffic: it goes on by the kernel, and by workers again when there is an agent. No connection notices."""
    with Plane() as plane:
        plane.live()
        streams = streams_of(plane)
        for stream in streams:
            stream.start()
        for _ in range(2):
            before = plane.sockets("rx")
            for stream in streams:
                stream.more()
            assert all(n > before[d] for d, n in plane.sockets("rx").items())
            plane.daemon.kill()
            for stream in streams:
                stream.more()
            plane.daemon.start()
            plane.live()
            wait_for(lambda: all(n > 50 for n in plane.sockets("rx").values()), 20, what="workers at work")
        for stream in streams:
            stream.end()


def test_hostile_machine():
    """Headers and frames that make no sense: the kernel or the data plane refuses them, others' packets go on."""
    with Plane() as plane:
        plane.live()
        vm, two = plane.ends["vm4"], plane.ends["port2"]
        stream = Stream(plane.ends["vm3"].ns, plane.ends["port1"].ns, plane.ends["port1"].a4, 7950)
        stream.start()
        with traffic.Servers(two.ns, udp=[7700]):
            for _ in range(3):
                expect_udp(vm.ns, two.a4, 7700, "reply", sport=4000)
            from scapy.all import IP, UDP, Ether, Raw  # pylint: disable=import-outside-toplevel

            frame = bytes(Ether(src=vm.mac, dst=two.mac) / IP(src=vm.a4, dst=two.a4) / UDP(sport=4000, dport=7700) / Raw(b"x" * 100))
            headers = [struct.pack("<BBHHHH", *h) for h in (
                (NEEDS_CSUM, 0, 0, 0, 0xffff, 0xffff), (NEEDS_CSUM, 0, 0, 0, 34, 0xffff), (NEEDS_CSUM, 0, 0, 0, 2000, 6),
                (NEEDS_CSUM, 1, 54, 0, 34, 16), (NEEDS_CSUM, 1, 0xffff, 1, 34, 16), (0, 1, 54, 1448, 0, 0), (0, 3, 42, 8, 34, 6),
                (NEEDS_CSUM, 4, 54, 1, 34, 16), (0, 0xff, 0xffff, 0xffff, 0xffff, 0xffff), (NEEDS_CSUM, 5, 42, 1, 34, 6),
            )]
            refused = 0
            for _ in range(50):
                for header in headers:
                    refused += not vm.write(header + frame)
                    refused += not vm.write(header + frame[: 1 + os.urandom(1)[0] % len(frame)])
                    refused += not vm.write(header + os.urandom(64))
                    refused += not vm.write(header[: os.urandom(1)[0] % 10])
            assert refused > 0
            # lengths that the frame has not, and far more bytes behind than it says
            for length in (0, 19, 20, 27, 28, 0xffff):
                forged = frame[:16] + struct.pack("!H", length) + frame[18:]
                vm.write(bytes(10) + forged)
            for _ in range(20):
                vm.write(bytes(10) + frame + bytes(3000))
            stream.more()
            expect_udp(vm.ns, two.a4, 7700, "reply", sport=4002)
            stream.end()
        assert plane.path()["state"] == "live"


def test_bulk_stays_in_order():
    """A machine that sends segments of many times the MTU: by the kernel, so that nothing overtakes them; small ones of other flows by workers."""
    with Plane(uplink=False) as plane:
        plane.live()
        vm, other = plane.ends["vm3"], plane.ends["vm4"]
        c, s = traffic.accept_pair(vm.ns, other.ns, other.a4, 7960)
        sent, got = traffic.transfer(c, s, 8 << 20)
        assert sent == got and vm.large > 20
        assert plane.sockets("rx")["vm3"] * 1500 < 4 << 20
        before = plane.sockets("rx")["vm3"]
        with traffic.Servers(other.ns, udp=[7700]):
            for _ in range(5):
                expect_udp(vm.ns, other.a4, 7700, "reply", sport=4000)
        assert plane.sockets("rx")["vm3"] >= before + 3
        c.close()
        s.close()


def test_devices_come_and_go():
    with Plane(("port1", "port2"), uplink=False) as plane:
        plane.live()
        one, two = plane.ends["port1"], plane.ends["port2"]
        with traffic.Servers(two.ns, udp=[7700]):
            for _ in range(3):
                expect_udp(one.ns, two.a4, 7700, "reply", sport=4000)
            one.delete_device()
            wait_for(lambda: plane.path()["state"] == "waiting", 10, what="its end")
            one.create()
            one.address(f"{one.a4}/24")
            plane.live()
            wait_for(lambda: traffic.udp_probe(one.ns, two.a4, 7700, timeout=0.5, sport=4000) == "reply", 10, what="an answer")
            wait_for(lambda: traffic.udp_probe(one.ns, two.a4, 7700, timeout=0.5, sport=4000) == "reply" and plane.sockets("rx")["port1"] > 0,
                     10, what="the workers")
        plane.daemon.detach()
        assert "xdp" not in plane.ns.run("ip", "-d", "link", "show", "dev", "port2").stdout


def test_masqueraded_stays_inside():
    """What netfilter has to see on its way out goes to the host's stack; between ports workers carry it."""
    blue = doc.network(
        "blue", subnets=["10.77.0.0/24", "fd77::/64"], gateway=["10.77.0.254", "fd77::fe"], routesTo=["host"], masquerade={"enabled": True}
    )
    with Plane(networks=[blue]) as plane:
        plane.live()
        one, two = plane.ends["port1"], plane.ends["port2"]
        with traffic.Servers(plane.outside, udp=[7700]), traffic.Servers(two.ns, udp=[7700]):
            for _ in range(5):
                expect_udp(one.ns, plane.link.a4, 7700, "reply", sport=4000)
            assert plane.sockets("rx")["port1"] == 0 and plane.sockets("tx")["up0"] == 0
            for _ in range(5):
                expect_udp(one.ns, two.a4, 7700, "reply", sport=4000)
            assert plane.sockets("rx")["port1"] >= 3


def test_gateway_mac():
    """Frames to the gateway's MAC, between ports: a hop less, MACs of the gateway's, by workers."""
    from scapy.all import IP, UDP, Ether, Raw  # pylint: disable=import-outside-toplevel

    blue = doc.network("blue", mode="l3", subnets=["10.77.0.0/24", "fd77::/64"], gateway=["10.77.0.254", "fd77::fe"], routesTo=["host"])
    with Plane(networks=[blue], uplink=False) as plane:
        plane.live()
        one, two = plane.ends["port1"], plane.ends["port2"]
        with traffic.Servers(two.ns, udp=[7700]):
            expect_udp(one.ns, two.a4, 7700, "reply", sport=4000)
        with one.ns.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as wire, two.ns.socket(
            socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)
        ) as sniff:
            wire.bind(("eth0", 0))
            sniff.bind(("eth0", 0))
            sniff.settimeout(5)
            before = plane.sockets("rx")["port1"]
            body = IP(src=one.a4, dst=two.a4, ttl=9) / UDP(sport=4000, dport=7700) / Raw(b"by the gateway")
            wire.send(bytes(Ether(src=one.mac, dst=GATEWAY_MAC) / body))
            while True:
                got = Ether(sniff.recv(2000))
                if UDP in got and got[UDP].dport == 7700:
                    break
            assert (got.src, got.dst, got[IP].ttl) == (GATEWAY_MAC, two.mac, 8)
            assert plane.sockets("rx")["port1"] == before + 1
            expected = body.copy()
            expected.ttl = 8
            assert bytes(got[IP])[: len(body)] == bytes(expected)
