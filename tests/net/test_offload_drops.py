# SPDX-License-Identifier: Apache-2.0
"""
Denied packets that NICs drop, the kernel playing the NIC as in test_offload.py. That programs are past by is seen where the agent is not there to add what
the rules have counted: then nothing is counted any more.
"""

import contextlib
import itertools
import json
import os
import re
import threading
import time

import pytest
from lib import documents as doc
from lib.heddled import wait_for
from lib.netns import PATIENCE
from lib.ports import GATEWAY_MAC
from lib.raw import ICMP, IP, TCP, UDP, Ether, ICMPv6EchoRequest, IPv6, Wire
from lib.traffic import accept_pair, expect_tcp, ping, roundtrip_pair
from test_offload import DENY, SOFTWARE, Pair, flower

pytestmark = flower

DENIED = ("policy-deny", "egress")


def isolated(app, **spec):
    deny = json.loads(json.dumps(DENY))
    deny["metadata"]["name"] = f"closed-{app}"
    deny["spec"] = {"podSelector": {"matchLabels": {"app": app}}, "policyTypes": ["Ingress"], "ingress": [], **spec}
    return deny


class Flood:
    """Sends one frame after another from a thread, some hundreds a second wherever it runs, and counts them."""

    def __init__(self, wire, frames):
        self.wire, self.frames = wire, itertools.cycle([bytes(f) for f in frames])
        self.sent, self.size, self.done = 0, 0, threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.done.wait(0.008):
            for frame in itertools.islice(self.frames, 4):
                self.wire.send(frame)
                self.sent += 1
                self.size += len(frame) - 14

    def stop(self):
        self.done.set()
        self.thread.join()
        return self.sent


@contextlib.contextmanager
def flooded(pair, *frames, w=None):
    with Wire((w or pair.a).ns, "eth0") as wire:
        flood = Flood(wire, frames)
        try:
            yield flood
        finally:
            flood.stop()


def head(pair, index, routed=False, from_a=True):
    (w, source), (to, destination) = ((pair.a, pair.addresses[0]), (pair.b, pair.addresses[1]))[:: 1 if from_a else -1]
    ether = Ether(src=w.mac, dst=GATEWAY_MAC if routed else to.mac)
    return ether / (IP(src=source[0], dst=destination[0]) if index == 0 else IPv6(src=source[1], dst=destination[1]))


def syns(pair, index, sports=range(30000, 30016), dport=7000, **kwargs):
    return [head(pair, index, **kwargs) / TCP(sport=s, dport=dport, flags="S", seq=s) for s in sports]


def wait_dropped(pair, n=1):
    def there():
        state = pair.offload()["drops"]
        return (state["now"], len(pair.rules())) == (n, n) and state

    return wait_for(there, 10, interval=0.1, what=f"{n} rules that drop")


def wait_matched(pair):
    wait_for(lambda: pair.offload()["drops"]["packets"] > 20, 10, interval=0.1, what="the rule drops")


def isolated_packets(pair):
    return sum(r["packets"] for r in pair.daemon.rules() if r["policy"] == "builtin" and r["name"] == "isolated")


def counted(pair):
    """What software counts a denied packet in."""
    totals = pair.daemon.api.get("/v1/counters")["totals"]["egress"]
    drops = [d for d in pair.daemon.api.get("/v1/counters")["drops"] if (d["reason"], d["direction"]) == DENIED]
    return {"drops": sum(d["packets"] for d in drops), "frames": sum(d["bytes"] for d in drops), "rule": isolated_packets(pair), "bytes": totals["bytes"]}


@pytest.mark.parametrize("mode", ["l2", "l3"])
@pytest.mark.parametrize("index", [0, 1], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("kind", ["tcp", "icmp", "udp"])
def test_counted_as_in_software(kind, mode, index):
    """The rule comes, and what it drops is counted as what programs drop: every packet that was sent, once."""
    routed = {"routed": mode == "l3"}
    with Pair(mode=mode) as pair:
        # what UDP is sent to may not send the same way
        pair.daemon.apply(isolated("b"), isolated("a"))
        echo = ICMP(type=8, id=7, seq=1) if index == 0 else ICMPv6EchoRequest(id=7, seq=1)
        frames = {
            "tcp": lambda: syns(pair, index, **routed),
            "icmp": lambda: [head(pair, index, **routed) / echo / b"echo"],
            "udp": lambda: [head(pair, index, **routed) / UDP(sport=4100, dport=5000) / b"datagram"],
        }[kind]()
        before = counted(pair)
        with flooded(pair, *frames) as flood:
            wait_dropped(pair)
            wait_matched(pair)
            item = pair.offload()["drops"]["items"][0]
            assert (item["device"], item["source"], item["destination"]) == (pair.a.device, pair.addresses[0][index], pair.addresses[1][index])
            assert item["rule"]["name"] == "isolated" and item.get("destinationPort") == {"tcp": 7000, "udp": 5000}.get(kind)
            assert re.search(r"offload: drops (TCP|UDP|ICMP\S*) \S+ > \S+ from port1, .*isolated", pair.daemon.cli("status").stdout)
        sent = flood.stop()
        wait_for(lambda: counted(pair)["drops"] - before["drops"] >= sent, 10, interval=0.1, what="counters come back")
        after = {k: v - before[k] for k, v in counted(pair).items()}
        assert (after["drops"], after["rule"]) == (sent, sent)
        # neighbours' own packets are in the totals too
        assert after["bytes"] >= flood.size - 64 and abs(after["frames"] - flood.size - 14 * sent) <= 64, (after, flood.size)
        state = pair.offload()["drops"]
        assert 0 < state["packets"] < sent and state["refused"] == 0
        text = pair.daemon.api.get("/metrics")
        assert f"\nheddle_offload_dropped_packets_total {state['packets']}\n" in text and "\nheddle_offload_drops 1\n" in text
        # idle, it goes
        wait_for(lambda: not pair.rules() and not pair.offload()["drops"]["now"], 15, interval=0.2, what="the idle rule goes")


def test_no_program_sees_them():
    """With the agent gone nobody adds what the rules count."""
    with Pair() as pair:
        pair.daemon.apply(isolated("b"))
        with flooded(pair, *syns(pair, 0)) as flood:
            wait_dropped(pair)
            wait_matched(pair)
            pair.daemon.kill()

            def seen():
                rows = pair.host.dump("drops")
                return sum(value["value"]["packets"] for row in rows for value in row["values"])

            before, sent = seen(), flood.sent
            wait_for(lambda: flood.sent > sent + 100, 10, what="it goes on")
            assert seen() == before
            assert len(pair.rules()) == 1
            # the next agent begins without it
            pair.daemon.start()
            assert "rules of an earlier agent" in pair.daemon.log()
            wait_dropped(pair)
            # a clean end takes it along
            pair.daemon.stop()
            assert not pair.rules()
            pair.daemon.start()
            wait_dropped(pair)
            pair.daemon.kill()
            pair.host.ns.run(*pair.daemon.argv("--detach"), env={**os.environ, **SOFTWARE})
            assert not pair.rules()


def test_policy_comes_first():
    """With the answer to who changes the policy, not a round later."""
    with Pair() as pair:
        pair.daemon.apply(isolated("b"))
        with flooded(pair, *syns(pair, 0)):
            wait_dropped(pair)
            wait_matched(pair)
            expect_tcp(pair.a.ns, pair.addresses[1][0], 7000, "timeout")
            pair.daemon.apply(isolated("b", ingress=[{"ports": [{"protocol": "TCP", "port": 7000}]}]))
            assert not pair.rules()
            # nobody listens there, and says so
            expect_tcp(pair.a.ns, pair.addresses[1][0], 7000, "refused")
            time.sleep(2.5 * PATIENCE)
            assert not pair.rules()
            pair.daemon.apply(isolated("b"))
            wait_dropped(pair)
            # a rule that has nothing to do with it costs no more than a moment
            pair.daemon.apply(isolated("a", ingress=[{}]))
            wait_dropped(pair)
            pair.daemon.cli("delete", "networkpolicy", "closed-b")
            assert not pair.rules()
            expect_tcp(pair.a.ns, pair.addresses[1][0], 7000, "refused")


def test_who_is_denied_may_answer():
    """Connections that the other end opens have answers of the same addresses and ports as what is dropped."""
    with Pair() as pair:
        pair.daemon.apply(isolated("b"))
        with flooded(pair, *syns(pair, 0, sports=[4200], dport=7000)):
            wait_dropped(pair)
            wait_matched(pair)
            c, s = accept_pair(pair.b.ns, pair.a.ns, pair.addresses[0][0], 4200, sport=7000)
            with c, s:
                assert roundtrip_pair(c, s)
                assert len(pair.rules()) >= 1
        echo = ICMP(type=8, id=7, seq=1)
        with flooded(pair, head(pair, 0) / echo / b"echo"):
            wait_for(lambda: any("icmp_type 8" in r for r in pair.rules()), 10, what="echo requests are dropped")
            ping(pair.b.ns, pair.addresses[0][0], count=3)


def test_udp_that_may_be_an_answer():
    with Pair() as pair:
        pair.daemon.apply(isolated("b"))
        datagram = head(pair, 0) / UDP(sport=4000, dport=5000) / b"datagram"
        with flooded(pair, datagram), Wire(pair.b.ns, "eth0") as at_b:
            # b may send to a, and what comes back would look the same
            wait_for(lambda: pair.daemon.drops().get(DENIED, 0) > 1200, 20 * PATIENCE, interval=0.2, what="some seconds of it")
            assert not pair.rules()
            at_b.frames()
            at_b.send(head(pair, 0, from_a=False) / UDP(sport=5000, dport=4000) / b"opens")
            assert at_b.wait_frame(lambda p: p.haslayer(UDP) and b"datagram" in bytes(p), timeout=5 * PATIENCE), "what a sends is an answer now"


def test_what_is_reported_is_reported():
    """The sender's policy is on trial: it tells of each packet, and lets it go on to the one that denies it."""
    trial = isolated("a", policyTypes=["Egress"], egress=[])
    del trial["spec"]["ingress"]
    trial["metadata"]["annotations"] = {"heddle.dev/audit": "true"}
    with Pair() as pair:
        pair.daemon.apply(isolated("b"), trial)
        with flooded(pair, *syns(pair, 0)):
            wait_for(lambda: pair.daemon.drops().get(DENIED, 0) > 1200, 20 * PATIENCE, interval=0.2, what="some seconds of it")
            assert not pair.rules()
            pair.daemon.cli("delete", "networkpolicy", "closed-a")
            wait_dropped(pair)


def test_what_the_host_may_send_stays_open():
    """To somebody who is no port of ours, TCP that opens connections alone."""
    egress = isolated("a", policyTypes=["Egress"], egress=[])
    del egress["spec"]["ingress"]
    with Pair(mode="l3", routesTo=["host"]) as pair:
        pair.daemon.apply(egress)
        ether = Ether(src=pair.a.mac, dst=GATEWAY_MAC)
        tcp = [ether / IP(src=pair.addresses[0][0], dst="192.0.2.9", ttl=255) / TCP(sport=s, dport=443, flags="S") for s in range(2000, 2010)]
        udp = ether / IP(src=pair.addresses[0][0], dst="192.0.2.9", ttl=255) / UDP(sport=4000, dport=53) / b"asks"
        with flooded(pair, *tcp, udp, udp, udp, udp, udp, udp, udp, udp, udp, udp):
            state = wait_dropped(pair)
            assert state["items"][0]["protocol"] == "TCP"
            wait_matched(pair)
            time.sleep(2.5 * PATIENCE)
            assert pair.offload()["drops"]["now"] == 1
            # somebody gets that address
            third = pair.host.add()
            third.address_l3(["192.0.2.9"], ["10.77.0.254"])
            pair.daemon.apply(
                doc.port("c", third.device, "blue", labels={"app": "c"}, addresses=["10.77.0.3"]),
                {**egress, "spec": {**egress["spec"], "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "c"}}}]}]}},
            )
            assert not pair.rules()


def test_rules_go_with_the_port():
    with Pair() as pair:
        pair.daemon.apply(isolated("b"))
        b = doc.port("b", pair.b.device, "blue", labels={"app": "b"}, addresses=pair.addresses[1])
        with flooded(pair, *syns(pair, 0)):
            wait_dropped(pair)
            pair.daemon.cli("delete", "port", "b")
            assert not pair.rules()
            pair.daemon.apply(b)
            pair.host.wait_port("b")
            wait_dropped(pair)
            # whom it is for has another device now, where anything may be sent to
            pair.daemon.apply(doc.port("b", pair.b.device, "blue", labels={"app": "other"}, addresses=pair.addresses[1]))
            assert not pair.rules()
            expect_tcp(pair.a.ns, pair.addresses[1][0], 7000, "refused")
            pair.daemon.apply(b)
            wait_dropped(pair)
            pair.daemon.put("00-host.yaml", doc.document("Host", "host", {"pickupSeconds": 0, "uplinks": [], "offload": "off"}))
            assert not pair.rules()
            expect_tcp(pair.a.ns, pair.addresses[1][0], 7000, "timeout")


def test_a_trickle_stays_in_software():
    with Pair() as pair, Wire(pair.a.ns, "eth0") as wire:
        pair.daemon.apply(isolated("b"))
        frame = syns(pair, 0)[0]
        until = time.monotonic() + 4
        n = 0
        while time.monotonic() < until:
            wire.send(frame)
            n += 1
            time.sleep(0.05)
        assert not pair.rules() and pair.offload()["drops"]["rules"]["added"] == 0
        assert pair.daemon.drops()[DENIED] == n
