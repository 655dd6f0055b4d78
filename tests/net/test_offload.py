# SPDX-License-Identifier: Apache-2.0
"""
Flows that NICs forward. No NIC is at hand: with HEDDLE_OFFLOAD=skip_hw the kernel itself applies the rules (cls_flower), on veths in the place of
representors and ahead of our programs, whose part they take over. So what a NIC would do to packets is seen, and that programs are past by: they count
nothing then. Without cls_flower every rule is refused, and everything stays as it is.
"""

import json
import os
import re
import socket
import struct
import time

import pytest
from lib import documents as doc
from lib.flower import SOFTWARE, has_flower, reserve, rules
from lib.heddled import wait_for
from lib.netns import PATIENCE
from lib.ports import GATEWAY_MAC, PortHost
from lib.raw import IP, UDP, Ether, IPv6, Wire
from lib.traffic import accept_pair, expect_udp, roundtrip_pair, transfer

FLOWER = has_flower()
flower = pytest.mark.skipif(not FLOWER, reason="this kernel has no cls_flower: make check-kernels runs it in guests")


class Pair:
    """Two workloads of a network, `offload: auto`."""

    def __init__(self, env=None, offload="auto", spec=None, **network):
        self.host = PortHost(env=SOFTWARE if env is None else env, host_spec={"offload": offload, **(spec or {})})
        self.a, self.b = self.host.add(2)
        self.addresses = [[f"10.77.0.{n}", f"fd77::{n}"] for n in (1, 2)]
        gateways = ["10.77.0.254", "fd77::fe"]
        for w, addresses in zip((self.a, self.b), self.addresses):
            if FLOWER:
                reserve(self.host.ns, w.device)
            if network.get("mode") == "l3":
                w.address_l3(addresses, gateways)
            else:
                w.address(f"{addresses[0]}/24", f"{addresses[1]}/64")
        # whoever answers that a port is closed does so within the flow
        self.sinks = [w.ns.socket(socket.AF_INET6, socket.SOCK_DGRAM) for w in (self.a, self.b)]
        for sink, port in zip(self.sinks, (4000, 5000)):
            sink.bind(("::", port))
        self.daemon = self.host.daemon
        self.daemon.apply(
            doc.network("blue", subnets=["10.77.0.0/24", "fd77::/64"], gateway=gateways, **network),
            doc.port("a", self.a.device, "blue", labels={"app": "a"}, addresses=self.addresses[0]),
            doc.port("b", self.b.device, "blue", labels={"app": "b"}, addresses=self.addresses[1]),
        )
        for name in "ab":
            self.host.wait_port(name)
        time.sleep(0.2)  # what was sent before may have gone where the ports were a moment ago: such a flow waits for its next packet

    def offload(self):
        return self.daemon.status()["offload"]

    def rules(self):
        """What is ours on both devices, by the cookie."""
        return rules(self.host.ns, self.a.device, self.b.device)

    def flow(self, **match):
        flows = self.daemon.flows(**match)
        assert len(flows) == 1, flows
        return flows[0]

    def wait_offloaded(self, yes=True, ends=None, **match):
        """ends: of a connection, which goes on all the while."""

        def there():
            assert ends is None or roundtrip_pair(*ends)
            return bool(self.flow(**match).get("offloaded")) == yes

        wait_for(there, 10, interval=0.1, what=f"offloaded: {yes} {match}")

    def close(self):
        for sink in self.sinks:
            sink.close()
        self.host.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def udp_frame(pair, index, from_a, payload, routed=False, ttl=64, sport=4000, dport=5000):
    """Made by hand, so that the same one can be sent again."""
    ends = [(pair.a, pair.addresses[0], sport), (pair.b, pair.addresses[1], dport)]
    (w, source, s), (to, destination, d) = ends if from_a else ends[::-1]
    ether = Ether(src=w.mac, dst=GATEWAY_MAC if routed else to.mac)
    ip = IP(src=source[0], dst=destination[0], ttl=ttl, tos=0x28, id=77, flags="DF") if index == 0 else IPv6(src=source[1], dst=destination[1], hlim=ttl, tc=0x28)
    return bytes(ether / ip / UDP(sport=s, dport=d) / payload)


def send_udp(pair, wires, index, count=1, **kwargs):
    """Both ways; returns what came out at the other end."""
    seen = []
    for n in range(count):
        for from_a in (True, False):
            mark = b"frame %d " % n + b"x" * 100
            wires[0 if from_a else 1].send(udp_frame(pair, index, from_a, mark, **kwargs))
            other = wires[1 if from_a else 0]
            packet = other.wait_frame(lambda p, m=mark: p.haslayer(UDP) and m in bytes(p), timeout=5 * PATIENCE)
            assert packet is not None, (n, from_a)
            seen.append(bytes(packet))
    return seen


def metrics(daemon):
    """Those of flows that have no label."""
    return {m[1]: int(m[2]) for m in re.finditer(r"^heddle_offload_(?!drop)(\w+) (\d+)$", daemon.api.get("/metrics"), re.M)}


# --- where there is nothing to offload ---


def test_off_unless_asked_for():
    with PortHost() as host:
        assert host.daemon.status()["offload"] is None and metrics(host.daemon) == {}
        assert "offload" not in host.daemon.json("get", "host", "host")["spec"]


def test_without_representors_it_waits():
    with Pair(env={}) as pair:
        state = pair.offload()
        assert (state["state"], state["flows"]) == ("waiting", 0)
        assert state["reason"] == "no port is a representor of a NIC in switchdev mode"
        assert "offload: waiting: no port is a representor" in pair.daemon.cli("status").stdout
        c, s = accept_pair(pair.a.ns, pair.b.ns, pair.addresses[1][0], 7000)
        with c, s:
            assert roundtrip_pair(c, s)
        assert pair.rules() == []
        pair.daemon.put("00-host.yaml", doc.document("Host", "host", {"pickupSeconds": 0, "uplinks": [], "offload": "off"}))
        assert pair.offload() is None


@pytest.mark.skipif(FLOWER, reason="this kernel has cls_flower: it refuses nothing")
def test_what_is_refused_stays_in_software():
    with Pair(env={"HEDDLE_OFFLOAD": "skip_hw:26724"}) as pair:
        c, s = accept_pair(pair.a.ns, pair.b.ns, pair.addresses[1][0], 7000)
        with c, s:

            def refused():
                # of a port that was made a moment ago it is not known where it is: the next packet says so
                assert roundtrip_pair(c, s)
                state = pair.offload()
                return [(r["reason"], r["flows"]) for r in state["software"]] == [("refused", 1)] and state

            state = wait_for(refused, 10, interval=0.1, what="a rule is refused")
            assert (state["state"], state["flows"], state["refused"]) == ("on", 0, 1)
            assert state["lastRefusal"] == "No such file or directory" and "classifier" in state["lastRefusalText"]
            text = pair.daemon.cli("status").stdout
            assert metrics(pair.daemon) == {"active": 1, "flows": 0, "refused_total": 1, "packets_total": 0, "bytes_total": 0, "paused": 0}
            assert "offload: on, 0 flows forwarded by NICs" in text and "1 in software, refused: the NIC does not take it" in text
            # once, not once a round
            time.sleep(2.5 * PATIENCE)
            assert pair.offload()["refused"] == 1
            assert roundtrip_pair(c, s)
            assert "offloaded" not in pair.flow(destinationPort=7000)


# --- and where there is ---


@flower
@pytest.mark.parametrize("mode", ["l2", "l3"])
@pytest.mark.parametrize("index", [0, 1], ids=["ipv4", "ipv6"])
def test_same_bytes(mode, index):
    """Frames of a UDP flow come out as our programs make them: switched, and routed with another TTL and other MACs."""
    routed = {"routed": mode == "l3"}
    with Pair(mode=mode) as pair, Wire(pair.a.ns, "eth0") as at_a, Wire(pair.b.ns, "eth0") as at_b:
        wires = (at_a, at_b)
        by_programs = send_udp(pair, wires, index, **routed)
        before = pair.flow(destinationPort=5000)
        pair.wait_offloaded(destinationPort=5000)
        assert send_udp(pair, wires, index, **routed) == by_programs
        assert len(pair.rules()) == 2
        send_udp(pair, wires, index, count=20, **routed)
        # its own length, whatever the kernel counts
        size = len(by_programs[0]) - 14
        after = {"packets": before["packets"] + 42, "bytes": before["bytes"] + 2 * size + 20 * 2 * size}
        wait_for(lambda: (f := pair.flow(destinationPort=5000))["packets"] == after["packets"] and f, 10, what="counters come back")
        assert abs(pair.flow(destinationPort=5000)["bytes"] - after["bytes"]) <= 20
        counted = [int(m[1]) for rule in pair.rules() for m in [re.search(r"Sent \d+ bytes (\d+) pkt", rule)]]
        assert counted == [21, 21]
        state, numbers = pair.offload(), metrics(pair.daemon)
        assert (state["packets"], state["bytes"]) == (42, numbers["bytes_total"]) and state["bytes"] >= 42 * size - 20
        assert numbers["packets_total"] == 42 and numbers["flows"] == 1
        assert "offload: on, 1 flows forwarded by NICs, 42 packets" in pair.daemon.cli("status").stdout
        if mode == "l3":
            # what has to be answered is the programs'
            at_a.send(udp_frame(pair, index, True, b"last hop", routed=True, ttl=1))
            assert at_a.wait_frame(lambda p: p.haslayer("ICMP") or p.haslayer("ICMPv6TimeExceeded"), timeout=5 * PATIENCE)


@flower
@pytest.mark.parametrize("index", [0, 1], ids=["ipv4", "ipv6"])
def test_a_connection_from_its_begin_to_its_end(index):
    with Pair() as pair:
        c, s = accept_pair(pair.a.ns, pair.b.ns, pair.addresses[1][index], 7000, sport=7001)
        with c, s:
            assert roundtrip_pair(c, s)
            pair.wait_offloaded(destinationPort=7000)
            before = pair.flow(destinationPort=7000)["packets"]
            sent, got = transfer(c, s, 4 << 20)
            assert sent == got
            wait_for(lambda: pair.flow(destinationPort=7000)["packets"] > before + 100, 10, what="what was transferred is counted")
            assert pair.offload()["flows"] == 1
            assert "yes, offloaded" in pair.daemon.cli("flows").stdout
            s.close()
            c.close()
        # both ends went by the programs: the flow has ended, and its rules with it
        wait_for(lambda: not pair.rules(), 5, what="the rules go")
        wait_for(lambda: all(f["state"] == "closed" for f in pair.daemon.flows(destinationPort=7000)), 5, what="the flow is closed")
        # the same ports again
        c, s = accept_pair(pair.a.ns, pair.b.ns, pair.addresses[1][index], 7000, sport=7002)
        with c, s:
            assert roundtrip_pair(c, s)
            pair.wait_offloaded(destinationPort=7000, sourcePort=7002)
            # a reset ends it too
            c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wait_for(lambda: not pair.rules(), 5, what="the rules go")
        assert not pair.daemon.drops()


@flower
def test_it_ages_with_its_flow():
    """As long as the NIC counts packets its flow lives; idle, both end by the flow's timeout."""
    with Pair(spec={"timeouts": {"udpStream": "5s"}}) as pair, Wire(pair.a.ns, "eth0") as at_a, Wire(pair.b.ns, "eth0") as at_b:
        send_udp(pair, (at_a, at_b), 0)
        pair.wait_offloaded(destinationPort=5000)
        created = pair.flow(destinationPort=5000)["ageMs"]
        until = time.monotonic() + 8
        while time.monotonic() < until:
            send_udp(pair, (at_a, at_b), 0)
            time.sleep(0.5)
        flow = pair.flow(destinationPort=5000)
        assert flow["offloaded"] and flow["ageMs"] >= created + 7000
        wait_for(lambda: not pair.daemon.flows(destinationPort=5000), 10, what="the idle flow ends")
        wait_for(lambda: not pair.rules(), 5, what="and its rules")


@flower
def test_too_short_a_timeout_stays_in_software():
    with Pair(spec={"timeouts": {"udpStream": "2s"}}) as pair, Wire(pair.a.ns, "eth0") as at_a, Wire(pair.b.ns, "eth0") as at_b:
        def known():
            send_udp(pair, (at_a, at_b), 0)
            return [(r["reason"], r["flows"]) for r in pair.offload()["software"]] == [("timeout", 1)]

        wait_for(known, 10, interval=0.2, what="said why")
        assert not pair.rules()


DENY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "closed", "namespace": "default"},
    "spec": {"podSelector": {"matchLabels": {"app": "b"}}, "policyTypes": ["Ingress"], "ingress": []},
}


@flower
def test_policy_cuts_it_at_once():
    with Pair() as pair:
        c, s = accept_pair(pair.a.ns, pair.b.ns, pair.addresses[1][0], 7000)
        with c, s:
            assert roundtrip_pair(c, s)
            pair.wait_offloaded(destinationPort=7000)
            pair.daemon.apply(DENY)
            # with the answer, not a round later
            assert not pair.rules()
            assert not roundtrip_pair(c, s, timeout=1)
            assert not pair.daemon.flows(destinationPort=7000)
            pair.daemon.cli("delete", "networkpolicy", "closed")
        # one that says something else and lets it be costs the rules no more than a round
        c, s = accept_pair(pair.a.ns, pair.b.ns, pair.addresses[1][0], 7100)
        with c, s:
            assert roundtrip_pair(c, s)
            pair.wait_offloaded(destinationPort=7100)
            allow = json.loads(json.dumps(DENY))
            allow["spec"]["ingress"] = [{"ports": [{"protocol": "TCP", "port": 7100}]}]
            pair.daemon.apply(allow)
            assert not pair.rules()
            assert roundtrip_pair(c, s)
            pair.wait_offloaded(destinationPort=7100)
            assert roundtrip_pair(c, s)


@flower
def test_rules_go_with_the_port_and_the_agent():
    with Pair() as pair:
        c, s = accept_pair(pair.a.ns, pair.b.ns, pair.addresses[1][0], 7000)
        with c, s:
            assert roundtrip_pair(c, s)
            pair.wait_offloaded(destinationPort=7000)
            # a limit is counted in software
            b = doc.port("b", pair.b.device, "blue", labels={"app": "b"}, addresses=pair.addresses[1])
            limited = json.loads(json.dumps(b))
            limited["spec"]["bandwidth"] = {"ingress": {"rate": "1G"}}
            pair.daemon.apply(limited)
            assert not pair.rules()
            assert roundtrip_pair(c, s)
            wait_for(lambda: [r["reason"] for r in pair.offload()["software"]] == ["rate"], 10, what="said why")
            pair.daemon.apply(b)
            pair.wait_offloaded(ends=(c, s), destinationPort=7000)
            # a clean end, and a crash: traffic goes on either way, and nothing forwards by what an agent once knew
            pair.daemon.stop()
            assert not pair.rules()
            assert roundtrip_pair(c, s)
            pair.daemon.start()
            pair.wait_offloaded(ends=(c, s), destinationPort=7000)
            pair.daemon.kill()
            assert len(pair.rules()) == 2
            assert roundtrip_pair(c, s)
            before = set(re.findall(r"handle (0x\w+)", "".join(pair.rules())))
            pair.daemon.start()
            assert "rules of an earlier agent" in pair.daemon.log()
            pair.wait_offloaded(ends=(c, s), destinationPort=7000)
            assert len(pair.rules()) == 2, before
            pair.daemon.cli("delete", "port", "b")
            assert not pair.rules()
            pair.daemon.apply(b)
            pair.host.wait_port("b")
        c, s = accept_pair(pair.a.ns, pair.b.ns, pair.addresses[1][0], 7200)
        with c, s:
            pair.wait_offloaded(ends=(c, s), destinationPort=7200)
            pair.daemon.kill()
            assert len(pair.rules()) == 2
            pair.host.ns.run(*pair.daemon.argv("--detach"), env={**os.environ, **SOFTWARE})
            assert not pair.rules()


@flower
def test_who_takes_a_rule_away_puts_the_flow_back():
    with Pair() as pair:
        c, s = accept_pair(pair.a.ns, pair.b.ns, pair.addresses[1][0], 7000)
        with c, s:
            assert roundtrip_pair(c, s)
            pair.wait_offloaded(destinationPort=7000)
            handle = re.search(r"handle (0x\w+)", pair.rules()[0])[1]
            words = f"filter del dev {pair.a.device} ingress protocol ip prio 1 handle {handle} flower"
            pair.host.ns.run("tc", *words.split())
            pair.wait_offloaded(False, destinationPort=7000)
            assert not pair.rules() and roundtrip_pair(c, s)
            assert pair.offload()["lastRefusalText"] == "the rule is not there any more"


def test_the_device_of_tunnels_goes_with_what_asked_for_it():
    """It needs no flower: it is there as soon as there is a port that could be a NIC's, and a tunnel. However that ends, the agent goes on, or ends well."""
    tunnel = {"protocol": "vxlan", "address": "192.0.2.1"}
    with Pair(spec={"tunnel": tunnel}) as pair:
        ns, daemon = pair.host.ns, pair.daemon
        device = lambda: ns.run("ip", "link", "show", "heddle-offload", check=False).returncode == 0  # noqa: E731
        spec = {"pickupSeconds": 0, "uplinks": [], "tunnel": tunnel, "offload": "auto"}
        wait_for(device, what="the device of tunnels")
        for change in ({"offload": "off"}, {"tunnel": None}):
            daemon.put("00-host.yaml", doc.document("Host", "host", {k: v for k, v in {**spec, **change}.items() if v}))
            wait_for(lambda: not device(), what=f"gone with {change}")
            daemon.put("00-host.yaml", doc.document("Host", "host", spec))
            wait_for(device, what="there again")
        daemon.stop()
        assert not device()
        daemon.start()
        wait_for(device, what="there again")
        daemon.kill()
        assert device()
        ns.run(*daemon.argv("--detach"), env={**os.environ, **SOFTWARE})
        assert not device()
