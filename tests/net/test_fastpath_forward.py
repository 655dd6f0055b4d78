# SPDX-License-Identifier: Apache-2.0
"""The agent's own workers: what the host would forward from one uplink to another goes through AF_XDP sockets."""

import os
import re
import socket
import threading

import pytest
from lib import documents as doc
from lib import traffic
from lib.documents import DENY_ALL, DENY_IN, policy, rule
from lib.fixtures import BACKENDS, Guarded
from lib.heddled import wait_for
from lib.netns import Routed
from lib.traffic import expect_tcp, expect_udp


def between(name="between", **spec):
    return doc.document("FastPath", name, {"consumer": "forward", "devices": ["up0", "in0"], "match": [{}], **spec})


class Router(Guarded):
    """client (wire0) --- (up0) router (in0) --- (eth9) inside, with both ends of the router guarded."""

    def __init__(self, backend, *docs, forward="pass", topology=None, **spec):
        xdp = BACKENDS[backend]["xdp"]
        uplinks = [{"device": "up0", "xdp": xdp}, {"device": "in0", "xdp": xdp}]
        self.path_document = between(**spec)
        super().__init__(
            backend, topology=Routed, host_spec={"uplinks": uplinks, "forward": forward}, docs=docs,
            config_docs=[self.path_document], **(topology or {}),
        )
        # frames without a checksum would go on without one
        self.client.run("ethtool", "-K", "wire0", "tx", "off")
        self.inside.run("ethtool", "-K", "eth9", "tx", "off")

    def path(self, name="between"):
        return next(p for p in self.daemon.status()["fastPaths"] if p["name"] == name)

    def wait_state(self, state, timeout=15):
        wait_for(lambda: self.path()["state"] == state, timeout, what=f"{state}: {self.path()}")
        return self.path()

    def ready(self):
        return self.wait_state("live")

    def moved(self):
        """Frames that did not go by the kernel."""
        return self.sum("rx")

    def sum(self, what):
        return sum(s[what] for s in self.path()["sockets"])

    def target(self, family):
        return self.inner.b4 if family == 4 else self.inner.b6

    def source(self, family):
        return self.outer.a4 if family == 4 else self.outer.a6

    def far(self, family=4, tries=1, size=100, timeout=2.0):
        """What an echo of UDP behind the router answers."""
        text = os.urandom(size)
        with self.client.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as s:
            s.settimeout(timeout)
            for _ in range(tries):
                s.sendto(text, (self.target(family), 7700))
                try:
                    return s.recvfrom(4096)[0] == text
                except TimeoutError:
                    pass
        return False


@pytest.fixture(params=["native", "generic"])
def backend(request):
    return request.param


@pytest.fixture(params=[1, 2], ids=["one", "two"])
def workers(request):
    return request.param


def both_ways(up):
    """TCP both ways, UDP of any size and ping, of both families, byte by byte."""
    with traffic.Servers(up.inside, tcp=[7700], udp=[7700]), traffic.Servers(up.client, tcp=[7701], udp=[7701]):
        for family in (4, 6):
            expect_tcp(up.client, up.target(family), 7700, "open")
            expect_tcp(up.inside, up.source(family), 7701, "open")
            expect_udp(up.inside, up.source(family), 7701, "reply")
            for size in (1, 100, 1400):
                assert up.far(family, size=size, tries=3)
            assert traffic.ping(up.client, up.target(family), 2)
    for family, port in ((4, 7703), (6, 7704)):
        c, s = traffic.accept_pair(up.client, up.inside, up.target(family), port)
        for sender, receiver in ((c, s), (s, c)):
            sent, got = traffic.transfer(sender, receiver, 4 << 20)
            assert sent == got
        c.close()
        s.close()


def test_traffic(backend, workers):
    """TCP both ways, UDP of any size and ping, of both families; by the workers, byte by byte, and by nobody else."""
    with Router(backend, policy(default=DENY_ALL), workers=workers, latency=True) as up:
        path = up.wait_state("live")
        assert path["workers"] == workers
        mode = "copy" if backend == "native" else "generic"
        assert {s["mode"] for s in path["sockets"]} == {mode}
        assert {s["device"] for s in path["sockets"]} == {"up0", "in0"}
        both_ways(up)
        # the last packets of the connections may still be on their way
        wait_for(lambda: up.path()["taken"] == up.sum("rx") == up.sum("tx"), 5, what=f"all sent: {up.path()}")
        path, rx = up.path(), up.sum("rx")
        assert rx > 4 * (4 << 20) // 1500
        assert path["passed"] == path["dropped"] == 0, path
        assert (up.sum("handed") > 0) == (workers == 2)
        assert sum(sum(s["latency"]) for s in path["sockets"]) == rx
        # the flows' numbers are those of any forwarded packet
        flows = up.daemon.flows()
        assert flows
        table = up.daemon.cli("status").stdout
        assert "between" in table and "up0/0:" + mode in table


def numbers(make, forward, *paths):
    """What flows, rules and totals say of the same packets."""
    docs = policy(ingress=[rule("allow", "UDP", 7700)], egress=[rule("allow", "UDP", 7700)], default=DENY_ALL)
    with make("native", docs, forward=forward) as up:
        up.daemon.put("00-host.yaml", up.host_document, *paths)
        if paths:
            up.ready()
        with traffic.Servers(up.inside, udp=[7700]), up.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(10)
            s.bind(("", 4000))
            for _ in range(50):
                s.sendto(b"a packet", (up.target(4), 7700))
                s.recv(100)
        assert not paths or up.moved() == 100
        flows = [(f["packets"], f["bytes"], f["state"]) for f in up.daemon.flows(protocol="UDP")]
        rules = {r["id"]: (r["packets"], r["bytes"]) for r in up.daemon.rules() if r["packets"] >= 50}
        return flows, rules


@pytest.mark.parametrize("forward", ["pass", "judge"])
def test_counted_alike(forward):
    """The flow and its rule have the same numbers, whoever moved the packets."""
    counted_alike(Router, forward)


def counted_alike(make, forward, **spec):
    kernel, others = numbers(make, forward), numbers(make, forward, between(**spec))
    assert kernel[0], kernel
    assert kernel == others


def test_the_rest_is_the_kernels(backend):
    """For the host itself, at the end of its hops, too big, a fragment, with options: the kernel has it and answers as ever."""
    the_rest_is_the_kernels(Router, backend)


def the_rest_is_the_kernels(make, backend):
    with make(backend, policy(default={"ingress": "allow", "egress": "allow"}), topology={"inside_mtu": 1300}) as up:
        up.ready()
        with traffic.Servers(up.inside, udp=[7700]), traffic.Servers(up.router, udp=[7700]):
            assert up.far(tries=3)
            before = up.path()["taken"]
            expect_udp(up.client, up.outer.b4, 7700, "reply")
            expect_udp(up.client, up.outer.b6, 7700, "reply")
            assert traffic.ping(up.client, up.outer.b4, 1)
            # fragmented by the client, put together inside
            assert up.far(size=3000, tries=3)
            for family in (4, 6):
                hop_limit_ends(up, family)
            # nothing but what the far end answered in one piece
            assert up.path()["taken"] - before <= 3, up.path()
            for family in (4, 6):
                too_big(up, family)


def hop_limit_ends(up, family):
    with up.client.socket(traffic.family_of(up.target(family)), socket.SOCK_DGRAM) as s:
        if family == 4:
            s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
        else:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)
        s.setsockopt(socket.IPPROTO_IP if family == 4 else socket.IPPROTO_IPV6, 11 if family == 4 else 25, 1)  # *_RECVERR
        s.connect((up.target(family), 33434))
        s.settimeout(5)
        s.send(b"how far")
        with pytest.raises(OSError, match="No route"):
            s.recv(100)


def too_big(up, family):
    """The kernel says what fits; with that, it goes through."""
    c, s = traffic.accept_pair(up.client, up.inside, up.target(family), 7704 + family)
    sent, got = traffic.transfer(c, s, 1 << 20, timeout=10)
    assert sent == got
    c.close()
    s.close()


def test_hop_limit_and_macs(backend):
    """What arrives has one hop less, the checksum right, the router's MAC; what is sent to another MAC is not forwarded."""
    with Router(backend, policy(default=DENY_ALL)) as up:
        up.ready()
        hop_limit_and_macs(up)
        assert [s["rx"] for s in up.path()["sockets"] if s["device"] == "up0"] == [2]


def hop_limit_and_macs(up):
    """One packet of each family, and nothing in front of it."""
    from scapy.all import IP, UDP, Ether, IPv6, Raw  # pylint: disable=import-outside-toplevel

    wire, far = (ns.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) for ns in (up.client, up.inside))
    with wire, far:
        wire.bind(("wire0", 0))
        far.bind(("eth9", 0))
        far.settimeout(5)
        for ip, ttl in ((IP(src=up.outer.a4, dst=up.inner.b4, ttl=17), "ttl"), (IPv6(src=up.outer.a6, dst=up.inner.b6, hlim=17), "hlim")):
            body = ip / UDP(sport=1, dport=2) / Raw(b"a packet that is forwarded")
            wire.send(bytes(Ether(src=up.outer.a_mac, dst="02:00:00:00:00:99") / body))
            wire.send(bytes(Ether(src=up.outer.a_mac, dst=up.outer.b_mac) / body))
            kind = IP if ttl == "ttl" else IPv6
            while True:
                got = Ether(far.recv(2000))
                if kind in got and UDP in got and got[UDP].dport == 2:
                    break
            assert (got.src, got.dst) == (up.inner.a_mac, up.inner.b_mac)
            expected = ip.copy()
            setattr(expected, ttl, 16)
            assert bytes(got[kind])[: len(body)] == bytes(expected / body[UDP])
        far.settimeout(0.3)
        with pytest.raises(TimeoutError):
            while True:
                again = Ether(far.recv(2000))
                assert UDP not in again or again[UDP].dport != 2


def test_policy_comes_first(backend):
    """judge: ingress of the device that it came in by and egress of the one that it leaves by, as without workers."""
    with Router(backend, JUDGED, forward="judge") as up:
        up.ready()
        judged(up)
        assert up.sum("rx") == up.sum("tx") > 10
        denied_from_now_on(up)


JUDGED = policy(
    ingress=[rule("allow", "TCP", 7700), rule("allow", "UDP", 7700), rule("allow", "UDP", 7703)],
    egress=[rule("allow", "UDP", 7700), rule("allow", "TCP", 7700), rule("deny", "UDP", 7703)],
    default=DENY_ALL,
)


def judged(up):
    with traffic.Servers(up.inside, tcp=[7700, 7702], udp=[7700, 7702, 7703]):
        for family in (4, 6):
            expect_tcp(up.client, up.target(family), 7700, "open")
            expect_udp(up.client, up.target(family), 7700, "reply")
            expect_tcp(up.client, up.target(family), 7702, "timeout")
            expect_udp(up.client, up.target(family), 7702, "timeout")
            expect_udp(up.client, up.target(family), 7703, "timeout")
    drops = up.daemon.drops()
    assert drops[("policy-deny", "ingress")] >= 4 and drops[("policy-deny", "egress")] >= 2, drops


def denied_from_now_on(up):
    """A flow that there is ends."""
    with traffic.Servers(up.inside, udp=[7700]):
        assert up.far(tries=3)
        up.policy(policy(default=DENY_ALL))
        before = up.moved()
        assert not up.far(timeout=0.3)
        assert up.moved() == before


def test_match():
    """Only what the document asks for; by the kernel what is left."""
    with Router("native", policy(default=DENY_ALL), match=[{"protocol": "UDP", "port": 7700}]) as up:
        up.wait_state("live")
        with traffic.Servers(up.inside, tcp=[7700], udp=[7700]):
            expect_tcp(up.client, up.target(4), 7700, "open")
            assert up.sum("rx") == 0
            assert up.far(tries=3)
            assert up.sum("rx") >= 1
            assert all(s["rx"] == 0 for s in up.path()["sockets"] if s["device"] == "in0")
            explained = up.daemon.explain(**{"uplink": "up0", "from": up.outer.a4, "to": up.inner.b4, "protocol": "UDP"}, dport=7700)
            assert explained["path"][-1]["fastPath"] == "between"


class Stream(threading.Thread):
    """TCP from the client to the inside, on and on, every byte looked at."""

    def __init__(self, up):
        super().__init__(daemon=True)
        self.c, self.s = traffic.accept_pair(up.client, up.inside, up.target(4), 7703)
        self.c.settimeout(30)
        self.s.settimeout(30)
        self.moved, self.wrong, self.stop = 0, None, False

    def run(self):
        block = bytes(range(256)) * 64
        try:
            while not self.stop:
                self.c.sendall(block)
                got = b""
                while len(got) < len(block):
                    got += self.s.recv(len(block) - len(got))
                if got != block:
                    self.wrong = "other bytes"
                    return
                self.moved += len(block)
        except OSError as error:
            self.wrong = error

    def more(self):
        before = self.moved
        wait_for(lambda: self.moved > before + (1 << 20) or self.wrong, 30, what="more of the stream")
        assert self.wrong is None

    def end(self):
        self.stop = True
        self.join(timeout=30)
        self.c.close()
        self.s.close()
        assert self.wrong is None


def test_agent_restarts(backend):
    """Killed under traffic, packets go by the kernel; the next agent has workers again. No connection notices."""
    with Router(backend, policy(default=DENY_ALL)) as up:
        up.wait_state("live")
        stream = Stream(up)
        stream.start()
        stream.more()
        for _ in range(2):
            assert up.sum("rx") > 0
            up.daemon.kill()
            stream.more()
            up.daemon.start()
            up.wait_state("live")
            stream.more()
            wait_for(lambda: up.sum("rx") > 100, 10, what="workers at work")
        stream.end()
        assert up.path()["passed"] > 0


def test_fallback_drop():
    """Without workers `drop` drops what they would have had, and nothing else."""
    with Router("native", policy(default={"ingress": "allow", "egress": "allow"}), fallback="drop") as up:
        up.wait_state("live")
        with traffic.Servers(up.inside, udp=[7700]), traffic.Servers(up.router, udp=[7700]):
            assert up.far(tries=3)
            up.daemon.kill()
            assert not up.far(timeout=0.3)
            expect_udp(up.client, up.outer.b4, 7700, "reply")
            up.daemon.start()
            up.wait_state("live")
            assert up.far(tries=3)
            assert up.daemon.drops()[("fast-path", "ingress")] >= 1


def test_devices_come_and_go(backend):
    """Set down and up; taken away and made anew."""
    with Router(backend, policy(default=DENY_ALL)) as up:
        up.wait_state("live")
        with traffic.Servers(up.inside, udp=[7700]):
            assert up.far(tries=3)
            down_and_up(up)
            up.ready()
            moves_again(up)
            up.inner.delete()
            wait_for(lambda: up.path()["state"] == "waiting", 10, what="its end")
            assert [d["reason"] for d in up.path()["devices"]][1] == "the device is not there"
        made_anew(up)


def down_and_up(up):
    up.router.ip("link set in0 down")
    assert not up.far(timeout=0.2)
    up.router.ip("link set in0 up", f"neigh replace {up.inner.b4} lladdr {up.inner.b_mac} dev in0")
    wait_for(lambda: up.far(timeout=0.3), 15, what="an answer")


def moves_again(up):
    before = up.moved()
    wait_for(lambda: up.far(timeout=0.3) and up.moved() > before, 15, what="frames not by the kernel")


def made_anew(up, *features):
    """The device inside, which had gone."""
    up.inner.create()
    up.inside.run("ethtool", "-K", "eth9", "tx", "off", *features)
    up.inside.ip(f"route add 10.66.1.0/24 via {up.inner.a4}")
    up.ready()
    with traffic.Servers(up.inside, udp=[7700]):
        moves_again(up)


def test_next_hop_changes():
    """The kernel goes on asking for next hops that only workers send to: one that has another MAC is found."""
    next_hop_changes(Router)


def next_hop_changes(make):
    with make("native", policy(default=DENY_ALL)) as up:
        up.ready()
        # what the kernel makes of the first of them is half of it to one and a half: more than the second, or it would ask again by itself
        for name, value in (("base_reachable_time_ms", 4000), ("delay_first_probe_time", 1), ("gc_stale_time", 3600)):
            up.router.sysctl(f"net.ipv4.neigh.in0.{name}", value)
        up.router.ip(f"neigh del {up.inner.b4} dev in0")
        with traffic.Servers(up.inside, udp=[7700]):
            # the first packet is the kernel's, which has to ask
            wait_for(lambda: up.far(timeout=0.5), 10, what="an answer")
            wait_for(lambda: "STALE" in up.router.run("ip", "neigh", "show", up.inner.b4).stdout, 20, what="it grows stale")
            up.inside.ip("link set eth9 address 02:00:00:00:00:77", f"neigh replace {up.inner.a4} lladdr {up.inner.a_mac} dev eth9")
            up.inside.ip(f"route replace 10.66.1.0/24 via {up.inner.a4}")
            wait_for(lambda: up.far(timeout=0.5), 30, what="the new MAC")


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))


def test_documents_change():
    """Only what changes begins anew; without the document nothing is left, neither threads nor descriptors nor memory."""
    with Router("native", policy(default=DENY_ALL)) as up:
        up.wait_state("live")
        pid = up.daemon.process.pid
        with traffic.Servers(up.inside, udp=[7700]):
            assert up.far(tries=3)
            rx = up.sum("rx")
            # matches are the data plane's: the sockets stay
            up.daemon.put("00-host.yaml", up.host_document, between(match=[{"protocol": "UDP"}]))
            assert up.wait_state("live")["sockets"] and up.sum("rx") == rx
            up.daemon.put("00-host.yaml", up.host_document, between(workers=2, cpus=[0, 0], spin=True, batch=8))
            wait_for(lambda: up.path()["state"] == "live" and up.path()["workers"] == 2, 15, what="two workers")
            assert up.sum("rx") == 0
            assert up.far(tries=3)
            up.daemon.put("00-host.yaml", up.host_document)
            wait_for(lambda: descriptors(pid)[1] == 1, 5, what="the end of the threads")
            assert up.daemon.status()["fastPaths"] == []
            assert up.far(tries=3)
            few = descriptors(pid)
            for _ in range(3):
                up.daemon.put("00-host.yaml", up.host_document, between())
                up.wait_state("live")
                assert up.far(tries=3)
                up.daemon.put("00-host.yaml", up.host_document)
                wait_for(lambda: descriptors(pid) == few, 5, what="nothing left")
            with open(f"/proc/{pid}/maps", encoding="ascii") as f:
                assert "heddle-fastpath" not in f.read()


def test_confined():
    """The workers have what the agent has: its few capabilities, no new privileges, its filter of system calls."""
    with Router("native", policy(default=DENY_ALL)) as up:
        up.wait_state("live")
        tasks = f"/proc/{up.daemon.process.pid}/task"
        texts = [open(f"{tasks}/{task}/status", encoding="ascii").read() for task in os.listdir(tasks)]
        assert len(texts) == 2
        assert len({re.search(r"CapEff:\s+(\w+)", text)[1] for text in texts}) == 1
        assert all("NoNewPrivs:\t1" in text for text in texts)
        assert len({re.search(r"Seccomp:\s+(\d)", text)[1] for text in texts}) == 1


def test_detach():
    """Nothing is left, and the kernel forwards."""
    detach(Router)


def detach(make):
    with make("native", policy(default=DENY_IN)) as up:
        up.ready()
        up.daemon.detach()
        with traffic.Servers(up.inside, udp=[7700]):
            assert up.far(tries=3)
