# SPDX-License-Identifier: Apache-2.0
"""What heddle says of the overlay: explain, flows, monitor and preview name peers, and what explain says is what then happens."""

import contextlib
import json
import os
import random
import re
import threading
import time

import pytest
from lib import documents as doc
from lib import traffic
from lib.fixtures import SLOW
from lib.heddled import ApiError, wait_for
from lib.overlay import Fabric, tunnelled, wrap
from lib.ports import GATEWAY_MAC
from lib.raw import ICMP, IP, TCP, UDP, Dot1Q, Ether, IPv6, Raw, Wire
from lib.traffic import Servers, expect_tcp
from scapy.layers.inet6 import IPv6ExtHdrFragment

VNI = 100
CASES = int(os.environ.get("CASES", "4000" if SLOW else "400"))
SEED = int(os.environ.get("SEED", random.SystemRandom().randrange(1 << 32)))


def netpol(name, selected, **spec):
    policy = doc.document("NetworkPolicy", name, {"podSelector": {"matchLabels": {"app": selected}}, **spec})
    return {**policy, "apiVersion": "networking.k8s.io/v1"}


def ports_of(app, port):
    return {"from": [{"podSelector": {"matchLabels": {"app": app}}}], "ports": [{"protocol": "TCP", "port": port}]}


IN = netpol("in", "web", policyTypes=["Ingress"], ingress=[ports_of("etc", 80), ports_of("db", 7000)])
OUT = netpol("out", "guest", policyTypes=["Egress"], egress=[{"to": [{"podSelector": {"matchLabels": {"app": "db"}}}], "ports": [{"protocol": "TCP", "port": 7000}]}])


class Scene:
    """
    Two hosts. At the first: `web`, which a policy isolates but for TCP 7000 from what has the label app: db; `guest`, which may only send there; `r`
    in red, to which blue routes. At the second: `db`, and a prefix of blue.
    """

    def __init__(self, protocol="vxlan", family=4, xdp="off"):
        self.fabric = f = Fabric(family, protocol)
        try:
            tunnel = {"decapsulate": "xdp"} if xdp == "native" else {}
            self.one, self.two = f.heddle(docs=[IN, OUT], xdp=xdp, tunnel=tunnel), f.heddle()
            self.blue = f.network("blue", VNI, routesTo=["red"])
            self.red, self.green = f.network("red", 200, 78), f.network("green", 300)
            self.web = self.one.work(self.blue, 1, labels={"app": "web"})
            self.guest = self.one.work(self.blue, 3, labels={"app": "guest"})
            self.r, self.same = self.one.work(self.red, 1), self.one.work(self.green, 1)
            self.db = self.two.work(self.blue, 2, labels={"app": "db"})
            self.db_green, self.s = self.two.work(self.green, 2), self.two.work(self.red, 2)
            self.two.prefixes.append(("blue", "10.77.9.0/24"))
            f.up()
        except BaseException:
            f.close()
            raise

    def explain(self, *argv):
        return self.one.daemon.json("explain", *argv)

    def close(self):
        self.fabric.close()


@pytest.fixture(scope="module", params=[("vxlan", 4, "off"), ("geneve", 6, "native")], ids=lambda p: f"{p[0]}{p[1]}-{p[2]}")
def scene(request):
    s = Scene(*request.param)
    yield s
    s.close()


def said(answer):
    """[(direction, port, policy, index or name)]"""
    return [(r["direction"], r.get("port"), r["policy"], r["name"] if r["policy"] == "builtin" else r["index"]) for r in answer["rules"]]


BLUE = ("--network", "blue")


def test_status_lists_what_is_attached(scene):
    """Of each device the programs that are there; of what is not, XDP on an uplink alone, with the reason."""
    programs = scene.one.daemon.status()["programs"]
    assert [p for p in programs if not p["id"] and (p["hook"], p["device"]) != ("xdp_uplink", "up0")] == []
    assert [p for p in programs if not p["id"] and not p.get("reason")] == []
    hooks = {"tc_uplink_in", "tc_uplink_out", "tc_tunnel_in"}
    assert {p["hook"] for p in programs if p["device"] == "heddle-tunnel"} == hooks
    assert {p["hook"] for p in programs if p["device"] == "up0"} == {*hooks, "xdp_uplink"}


def test_explain_to_a_peer(scene):
    """Where it goes; and the policy of the sender, which is asked here."""
    there = f"peer node-2 ({scene.two.address}) as VNI"
    way = f"by up0 (next hop {scene.two.address})"
    answer = scene.explain(*BLUE, "--from", scene.guest.ip4, "--to", scene.db.ip4, "--dport", "7000")
    assert (answer["verdict"], answer["program"], answer["network"]) == ("allow", "tc_port_in", "blue")
    assert (answer["sourcePeer"], answer["destinationPeer"]) == (None, "node-2")
    assert said(answer) == [("egress", "default/blue-3", "out", 0)]
    delivery = answer["path"][-1]
    assert delivery["text"] == f"switched to {there} 100 {way}"
    assert (delivery["peer"], delivery["vni"], delivery["ways"][0]["device"], delivery["ways"][0]["nextHop"]) == ("node-2", 100, "up0", scene.two.address)
    # to a prefix, by the gateway; routed into another network, with its VNI
    assert scene.explain(*BLUE, "--from", scene.web.ip4, "--to", "10.77.9.7", "--dport", "1")["path"][-1]["text"] == f"routed to {there} 100 {way}"
    assert scene.explain(*BLUE, "--from", scene.web.ip6, "--to", scene.s.ip6, "--dport", "1")["path"][-1]["text"] == f"routed to {there} 200 {way}"
    denied = scene.explain(*BLUE, "--from", scene.guest.ip6, "--to", scene.db.ip6, "--dport", "7001")
    assert (denied["verdict"], denied["destinationPeer"], said(denied)) == ("deny", "node-2", [("egress", "default/blue-3", "builtin", "isolated")])
    # and so it is
    with Servers(scene.db.ns, tcp=[7000, 7001]):
        for port, outcome in ((7000, "open"), (7001, "timeout")):
            expect_tcp(scene.guest.ns, scene.db.ip6, port, outcome)


def test_explain_from_a_peer(scene):
    answer = scene.explain(*BLUE, "--from", scene.db.ip4, "--to", scene.web.ip4, "--dport", "7000")
    assert (answer["verdict"], answer["program"], answer["network"], answer["device"]) == ("allow", "tc_tunnel_in", "blue", "up0")
    assert (answer["sourcePeer"], answer["destinationPeer"]) == ("node-2", None)
    assert said(answer) == [("ingress", "default/blue-1", "in", 1)]
    assert answer["rule"]["file"].endswith("50-overlay.yaml") and answer["rule"]["line"] > 1
    assert (answer["path"][-1]["step"], answer["path"][-1]["port"]) == ("delivery", "default/blue-1")
    denied = scene.explain(*BLUE, "--from", scene.db.ip6, "--to", scene.web.ip6, "--dport", "7001")
    assert (denied["verdict"], denied["rule"]["name"], said(denied)) == ("deny", "isolated", [("ingress", "default/blue-1", "builtin", "isolated")])
    assert "known flow" in denied["path"][2]["text"]
    # an address of a prefix has no labels
    assert scene.explain("--from", "10.77.9.7", "--to", scene.web.ip4, *BLUE, "--dport", "7000")["verdict"] == "deny"
    # what was routed at its source is in the destination's network
    routed = scene.explain("--from", scene.db.ip6, "--to", scene.r.ip6, "--dport", "1")
    assert (routed["verdict"], routed["network"], routed["sourcePeer"]) == ("allow", "red", "node-2")
    with Servers(scene.web.ns, tcp=[7000, 7001]):
        for port, outcome in ((7000, "open"), (7001, "timeout")):
            expect_tcp(scene.db.ns, scene.web.ip4, port, outcome)


def test_explain_replies(scene):
    c, s = traffic.accept_pair(scene.guest.ns, scene.db.ns, scene.db.ip4, 7000)
    with c, s:
        c.sendall(b"x")
        assert s.recv(1) == b"x"
        sport = str(c.getsockname()[1])
        wait_for(lambda: scene.one.daemon.flows(sourcePort=int(sport), state="established"), what="flow")
        answer = scene.explain(*BLUE, "--from", scene.db.ip4, "--to", scene.guest.ip4, "--reply", "--sport", "7000", "--dport", sport)
        assert (answer["verdict"], answer["program"]) == ("allow", "tc_tunnel_in")
        assert said(answer) == [("egress", "default/blue-3", "out", 0)]
    stray = scene.explain(*BLUE, "--from", scene.db.ip4, "--to", scene.guest.ip4, "--reply", "--sport", "7003", "--dport", "4000")
    assert (stray["verdict"], stray["reason"], stray["rules"]) == ("drop", "tcp-no-flow", [])


def test_explain_by_the_peers_name(scene):
    """What a peer does not own; and the same address in two networks."""
    spoofed = scene.explain("--peer", "node-2", *BLUE, "--from", "10.77.0.66", "--to", scene.web.ip4, "--dport", "7000")
    assert (spoofed["verdict"], spoofed["reason"], spoofed["sourcePeer"]) == ("drop", "tunnel-source", "node-2")
    assert not any("flow" == step["step"] and step["found"] != "none" for step in spoofed["path"])
    answers = [scene.explain("--network", n, "--from", scene.db.ip4, "--to", scene.web.ip4, "--dport", "1") for n in ("blue", "green")]
    assert [(a["network"], a["verdict"]) for a in answers] == [("blue", "deny"), ("green", "allow")]
    for request, mistake in (
        ({"from": scene.db.ip4, "to": scene.web.ip4}, "network: want the name of one"),
        ({"from": scene.db.ip4, "to": scene.web.ip4, "peer": "node-2"}, "network: want the name of the one"),
        ({"from": scene.db.ip4, "to": scene.web.ip4, "peer": "nobody"}, "peer: want a Peer"),
        ({"from": scene.db.ip4, "to": scene.web.ip4, "peer": "node-2", "port": "blue-1"}, "peer: want a peer, or a port or egress"),
    ):
        with pytest.raises(ApiError) as refused:
            scene.one.daemon.api.post("/v1/explain", json.dumps({"dport": 1, **request}))
        assert mistake in refused.value.body


def test_explain_without_a_way(scene):
    entry = {"name": "far", "network": "blue", "mac": "02:00:00:00:09:09", "addresses": ["10.77.0.99"]}
    address = "fd99::9" if scene.fabric.family == 6 else "198.51.100.9"
    scene.one.extra = [doc.document("Peer", "node-far", {"address": address, "ports": [entry]})]
    scene.one.put()
    try:
        wait_for(lambda: [p for p in scene.one.daemon.status()["peers"] if p["state"] == "no-route"], what="no route")
        answer = scene.explain(*BLUE, "--from", scene.web.ip4, "--to", "10.77.0.99", "--dport", "1")
        assert answer["destinationPeer"] == "node-far"
        said_ = [step["text"] for step in answer["path"] if step["step"] in ("verdict", "delivery")]
        assert f"node-far ({address})" in said_[-1] and "route" in said_[-1]
    finally:
        scene.one.extra = []
        scene.one.put()


# --- what then happens ---


class Frames:
    """Random tunnel packets for the first host, most of them hostile."""

    def __init__(self, scene, rng):
        self.scene, self.rng = scene, rng
        self.mac = scene.fabric.mac(1)

    def inner(self, mark):
        r, s = self.rng, self.scene
        to = r.choice([s.web, s.web, s.guest, s.same])
        v6 = r.random() < 0.4
        source = r.choice([s.db.ip(6 if v6 else 4)] * 4 + (["fd77::66", s.guest.ip6] if v6 else ["10.77.9.7", "10.77.0.66", s.guest.ip4]))
        destination = r.choice([to.ip(6 if v6 else 4)] * 6 + (["fd77::99"] if v6 else ["10.77.0.99", "224.0.0.5"]))
        ip = (IPv6 if v6 else IP)(src=source, dst=destination)
        if v6:
            ip.tc = r.choice([0, 0, 1, 2, 3])
        else:
            ip.tos = r.choice([0, 0, 1, 2, 3])
        l4 = r.choice(
            [TCP(sport=r.choice([1000, 1001]), dport=r.choice([7000, 7000, 7001]), flags=r.choice(["S", "S", "A", "SA", "R", "FA", ""])), UDP(sport=5, dport=6)]
            + ([] if v6 else [ICMP(type=r.choice([0, 8]))])
        )
        if v6 and r.random() < 0.1:
            ip /= IPv6ExtHdrFragment(offset=r.choice([0, 5]), m=1, id=7)
        ether = Ether(src=r.choice([s.db.mac] * 6 + [GATEWAY_MAC, s.guest.mac, "02:00:00:00:77:77"]), dst=r.choice([to.mac] * 6 + [GATEWAY_MAC]))
        if r.random() < 0.08:
            ether /= Dot1Q(vlan=r.choice([0, 5]))
        return bytes(ether / ip / l4 / Raw(mark))

    def header(self, vni):
        r = self.rng
        if self.scene.fabric.protocol == "vxlan":
            flags = r.choice([8] * 9 + [0, 0xFF])
            return bytes([flags, 0, 0, 0]) + vni.to_bytes(3, "big") + b"\0"
        options = r.choice([b""] * 6 + [bytes([0, 1, 0x01, 1]) + b"abcd", bytes([0, 1, 0x81, 0]), bytes([0, 1, 0x01, 9])])
        first = r.choice([len(options) // 4] * 12 + [0x40, 3])
        return bytes([first, r.choice([0] * 9 + [0x40]), 0x65, r.choice([0x58] * 12 + [0])]) + vni.to_bytes(3, "big") + b"\0" + options

    def frame(self, mark):
        r, s = self.rng, self.scene
        v6 = s.fabric.family == 6
        fields = {"tc" if v6 else "tos": r.choice([0, 0, 1, 3])}
        source = r.choice([s.two.address] * 9 + [s.fabric.address(66)])
        vni = r.choice([VNI] * 8 + [300, 200, 4711])
        data = bytearray(bytes(wrap(self.inner(mark), vni, source, s.one.address, self.mac, s.fabric.protocol, self.header(vni), **fields)))
        if r.random() < 0.1:
            if r.random() < 0.5:
                data[r.randrange(12, min(len(data), 120))] = r.getrandbits(8)
            else:
                del data[r.randrange(14, len(data)) :]
        return bytes(data)


def mute(scene):
    """Answers of the workloads would add packets that nobody asked explain about."""
    for ns in (scene.web.ns, scene.guest.ns, scene.same.ns, scene.r.ns, scene.db.ns, scene.db_green.ns, scene.s.ns):
        ns.run("nft", "-f", "-", input="table inet mute {\n chain out {\n  type filter hook output priority 0;\n  drop\n }\n}\n")
        ns.run("ip", "neigh", "flush", "all")


HOOKS = [("vxlan", 4, "off"), ("vxlan", 6, "native"), ("geneve", 4, "native"), ("geneve", 6, "off"), ("vxlan", 4, "generic")]


@pytest.fixture(scope="module", params=HOOKS, ids=lambda p: f"{p[0]}{p[1]}-{p[2]}")
def quiet(request):
    s = Scene(*request.param)
    mute(s)
    yield s
    s.close()


def changed(daemon, before):
    return {k: v - before.get(k, 0) for k, v in daemon.drops().items() if v != before.get(k, 0)}


def test_what_explain_says_of_tunnel_packets_then_happens(quiet):
    print(f"SEED={SEED} CASES={CASES}")
    scene, daemon = quiet, quiet.one.daemon
    frames = Frames(scene, random.Random(f"{SEED}-{scene.fabric.protocol}{scene.fabric.family}"))
    works = (scene.web, scene.guest, scene.same)
    seen, wrong = {}, []
    with contextlib.ExitStack() as stack:
        wire = stack.enter_context(Wire(scene.fabric.ns, scene.fabric.tap_of(1)))
        heard = [stack.enter_context(Wire(w.ns, "eth0")) for w in works]
        for number in range(CASES):
            mark = b"<%06d>" % number
            frame = frames.frame(mark)
            answer = daemon.explain(frame=frame.hex(), uplink="up0")
            before, totals = daemon.drops(), judged(daemon)
            wire.send(frame)
            wait_for(lambda: judged(daemon) > totals, timeout=2, interval=0.001, what="the packet judged")
            passed = answer["verdict"] == "allow"
            new = changed(daemon, before)
            outcome = "allow" if passed else answer["reason"]
            seen[outcome] = seen.get(outcome, 0) + 1
            text = {"verdict": answer["verdict"], "reason": answer["reason"], "path": [step["text"] for step in answer["path"]]}
            flooded = passed and "as the policy of each" in answer["path"][-1]["text"]
            if not flooded and new != ({} if passed else {(answer["reason"], "ingress"): 1}):
                wrong.append((number, frame.hex(), text, f"counted {new}"))
            delivery = answer["path"][-1]
            arrives = delivery.get("port") if passed and delivery["step"] == "delivery" else None
            for w, tap in zip(works, heard):
                got = any(mark in data for data in tap.frames(0.3 if arrives == f"default/{w.name}" else 0))
                if arrives and got != (arrives == f"default/{w.name}") and len(frame) > 100 and mark in frame:
                    wrong.append((number, frame.hex(), text, f"{w.name}: arrived {got}"))
            if len(wrong) > 3:
                break
    print("outcomes:", seen)
    assert not wrong, json.dumps(wrong, indent=1)
    assert {"allow", "tunnel-source", "tunnel-vni", "tunnel-peer", "tunnel-malformed", "policy-deny", "tunnel-ecn"} <= set(seen), seen
    assert scene.fabric.protocol == "vxlan" or "tunnel-option" in seen


def judged(daemon):
    return daemon.api.get("/v1/counters")["totals"]["ingress"]["packets"]


def test_what_explain_says_of_packets_to_peers_then_happens(quiet):
    """From a workload's device: dropped with the reason that was said, or in the tunnel with the VNI that was said."""
    scene, daemon = quiet, quiet.one.daemon
    rng = random.Random(f"{SEED}-out-{scene.fabric.protocol}{scene.fabric.family}")
    wrong, seen = [], {}
    with Wire(scene.guest.ns, "eth0") as wire, scene.one.witness() as witness:
        for number in range(CASES // 2):
            mark = b"<%06d>" % number
            v6 = rng.random() < 0.4
            to = rng.choice([scene.db.ip(6 if v6 else 4)] * 3 + [scene.s.ip(6 if v6 else 4)] + (["fd77::99"] if v6 else ["10.77.9.7", "10.77.0.99"]))
            source = rng.choice([scene.guest.ip(6 if v6 else 4)] * 5 + [scene.web.ip(6 if v6 else 4)])
            l4 = rng.choice([TCP(sport=1000, dport=rng.choice([7000, 7000, 7001]), flags=rng.choice(["S", "S", "A", "SA"])), UDP(sport=1, dport=7000)])
            ip = (IPv6(src=source, dst=to, hlim=rng.choice([64, 64, 1])) if v6 else IP(src=source, dst=to, ttl=rng.choice([64, 64, 1])))
            frame = bytes(Ether(src=scene.guest.mac, dst=rng.choice([scene.db.mac, GATEWAY_MAC])) / ip / l4 / Raw(mark))
            answer = daemon.explain(frame=frame.hex(), port="blue-3")
            before, totals = daemon.drops(), daemon.api.get("/v1/counters")["totals"]["egress"]["packets"]
            witness.frames()
            wire.send(frame)
            wait_for(lambda: daemon.api.get("/v1/counters")["totals"]["egress"]["packets"] > totals, timeout=2, interval=0.001, what="the packet judged")
            passed = answer["verdict"] == "allow"
            outcome = "allow" if passed else answer["reason"]
            seen[outcome] = seen.get(outcome, 0) + 1
            text = {"verdict": answer["verdict"], "reason": answer["reason"], "path": [step["text"] for step in answer["path"]]}
            flooded = passed and "as the policy of each" in answer["path"][-1]["text"]
            if not flooded and changed(daemon, before) != ({} if passed else {(answer["reason"], "egress"): 1}):
                wrong.append((number, frame.hex(), text, f"counted {changed(daemon, before)}"))
            if passed and answer["path"][-1].get("peer"):
                got = [t for t in tunnelled(witness.frames(1)) if mark in t.inner]
                if [t.vni for t in got] != [answer["path"][-1]["vni"]]:
                    wrong.append((number, frame.hex(), text, f"in the tunnel: {[t.vni for t in got]}"))
            if len(wrong) > 3:
                break
    print("outcomes:", seen)
    assert not wrong, json.dumps(wrong, indent=1)
    assert {"allow", "policy-deny", "ttl-exceeded", "source-ip4"} <= set(seen), seen


def test_explain_changes_nothing(quiet):
    scene, daemon = quiet, quiet.one.daemon
    frames = Frames(scene, random.Random(SEED))

    def counted():
        state = (daemon.drops(), daemon.flows(), daemon.api.get("/v1/counters")["totals"], daemon.rules())
        for items in state:
            for item in items if isinstance(items, list) else ():
                item.pop("idleMs", None)
                item.pop("ageMs", None)
        return state

    # A stack may say something of its own meanwhile: what explain counts, it counts each time
    for attempt in range(4):
        before = counted()
        for number in range(200):
            daemon.explain(frame=frames.frame(b"%08d" % number).hex(), uplink="up0")
        after = counted()
        if before == after:
            break
    assert before == after


def test_explain_control_packets_and_fragments(quiet):
    """They are the host's: no network has them."""
    scene = quiet
    to = scene.fabric.mac(1)
    if scene.fabric.protocol == "geneve":
        frame = bytes(wrap(b"", VNI, scene.two.address, scene.one.address, to, "geneve", bytes([0, 0x80, 0, 0, 0, 0, 100, 0])))
        answer = scene.one.daemon.explain(frame=frame.hex(), uplink="up0")
        assert (answer["verdict"], answer["rule"]["name"], answer["network"]) == ("allow", "tunnel", None)
        assert "control packet from node-2" in answer["path"][-2]["text"]
    if scene.fabric.family == 4:
        frame = bytes(wrap(bytes(64), VNI, scene.two.address, scene.one.address, to, scene.fabric.protocol, flags="MF"))
        answer = scene.one.daemon.explain(frame=frame.hex(), uplink="up0")
        program = "tc_uplink_in" if scene.one.daemon.status()["uplinks"][0]["xdp"] == "off" else "xdp_uplink"
        assert (answer["verdict"], answer["rule"]["name"], answer["program"]) == ("allow", "tunnel", program)


# --- status, flows, monitor, preview ---


def test_status_says_where_headers_are_taken_off(scene):
    (uplink,) = scene.one.daemon.status()["uplinks"]
    where = "xdp" if uplink["xdp"] == "native" else "tc"
    assert uplink["decapsulation"] == where
    table = scene.one.daemon.cli("status").stdout
    header, row = [line for line in table.splitlines() if line.startswith(("UPLINK", "up0"))]
    assert row[header.index("DECAPSULATION") :].split()[0] == where


def test_flows_name_peers(scene):
    c, s = traffic.accept_pair(scene.guest.ns, scene.db.ns, scene.db.ip6, 7000)
    back = traffic.accept_pair(scene.db.ns, scene.web.ns, scene.web.ip4, 7000)
    routed = traffic.accept_pair(scene.web.ns, scene.s.ns, scene.s.ip4, 7100)
    try:

        def flow(pair):
            sport = pair[0].getsockname()[1]
            return wait_for(lambda: scene.one.daemon.flows(sourcePort=sport, state="established"), what="flow")[0]

        there = flow((c, s))
        assert there["destinationPeer"] == "node-2" and "sourcePeer" not in there and there["network"] == "blue"
        here = flow(back)
        assert here["sourcePeer"] == "node-2" and "destinationPeer" not in here and here["network"] == "blue"
        zone = flow(routed)
        assert zone["destinationPeer"] == "node-2" and sorted(zone["network"].split(">")) == ["blue", "red"]
        table = scene.one.daemon.cli("flows").stdout
        assert f"[{scene.db.ip6}]:7000 (node-2)" in table and f"{scene.db.ip4}:{back[0].getsockname()[1]} (node-2)" in table
    finally:
        for sock in (c, s, *back, *routed):
            sock.close()


@contextlib.contextmanager
def monitored(daemon, *argv):
    lines = []
    process = daemon.cli_popen("-o", "json", "monitor", *argv)
    threading.Thread(target=lambda: lines.extend(json.loads(line) for line in process.stdout), daemon=True).start()
    time.sleep(0.3)
    try:
        yield lines
    finally:
        process.kill()
        process.wait()


def test_monitor_names_peers(scene):
    to = scene.fabric.mac(1)
    protocol, nobody = scene.fabric.protocol, scene.fabric.address(66)

    def inner(source):
        return Ether(src=scene.db.mac, dst=scene.web.mac) / IP(src=source, dst=scene.web.ip4) / TCP(sport=5, dport=7001, flags="S")

    with Wire(scene.fabric.ns, scene.fabric.tap_of(1)) as wire, monitored(scene.one.daemon, "--drops") as lines:

        def event(reason, vni=VNI, source=None, inner_source=None, **fields):
            lines.clear()
            wire.send(wrap(inner(inner_source or scene.db.ip4), vni, source or scene.two.address, scene.one.address, to, protocol, **fields))
            return wait_for(lambda: [line for line in lines if line["reason"] == reason], what=reason)[0]

        got = event("policy-deny")
        assert (got["sourcePeer"], got["network"], got["source"]) == ("node-2", "blue", scene.db.ip4)
        got = event("tunnel-source", inner_source="10.77.0.66")
        assert (got["sourcePeer"], got["network"], got["source"]) == ("node-2", "blue", "10.77.0.66")
        got = event("tunnel-vni", vni=4711)
        assert (got["sourcePeer"], got["source"], got["protocol"]) == ("node-2", scene.two.address, "UDP")
        assert "network" not in got
        got = event("tunnel-malformed", header=bytes(4))
        assert (got["sourcePeer"], got["source"]) == ("node-2", scene.two.address)
        got = event("tunnel-peer", source=nobody)
        assert got["source"] == nobody and "sourcePeer" not in got
        # out: a workload's packet to somebody behind a peer, whom its policy does not let it reach
        lines.clear()
        expect_tcp(scene.guest.ns, scene.db.ip4, 7009, "timeout")
        out = wait_for(lambda: [line for line in lines if line["reason"] == "policy-deny" and line.get("port")], what="the event")[0]
        assert (out["port"], out["network"], out["destinationPeer"]) == ("default/blue-3", "blue", "node-2")
    text = scene.one.daemon.cli_popen("monitor", "--drops")
    try:
        time.sleep(0.3)
        with Wire(scene.fabric.ns, scene.fabric.tap_of(1)) as wire:
            wire.send(wrap(inner(scene.db.ip4), 4711, scene.two.address, scene.one.address, to, protocol))
        line = text.stdout.readline()
        # with the ports, where the program had come so far when it dropped the packet
        ends = (re.escape(a) for a in (scene.two.address, scene.one.address))
        assert re.search(r"UDP \[?{}(\]?:\d+)? \(node-2\) > \[?{}".format(*ends), line) and "tunnel-vni" in line
    finally:
        text.kill()
        text.wait()


def test_preview_of_flows_from_a_peer(scene):
    """The receiving host's policy selects the remote workload by its labels: preview shows the flow that another label would cut."""
    pair = traffic.accept_pair(scene.db.ns, scene.web.ns, scene.web.ip4, 7000)
    other = traffic.accept_pair(scene.guest.ns, scene.db.ns, scene.db.ip4, 7000)
    try:
        sport = pair[0].getsockname()[1]
        wait_for(lambda: scene.one.daemon.flows(sourcePort=sport, state="established"), what="flow")
        candidate = netpol("in", "web", policyTypes=["Ingress"], ingress=[ports_of("cache", 7000)])
        items = scene.one.daemon.json("preview", "-f", "-", input=doc.text(candidate))["items"]
        (item,) = [i for i in items if i["state"] == "established" and i["sourcePort"] == sport]
        assert (item["now"], item["then"], item["sourcePeer"]) == ("allow", "deny", "node-2")
        assert (item["rule"]["name"], item["nowRule"]["policy"], item["nowRule"]["index"]) == ("isolated", "in", 1)
        assert not [i for i in items if i["sourcePort"] == other[0].getsockname()[1]]
        # and so it is
        scene.one.own[0] = candidate
        scene.one.put()
        pair[0].sendall(b"still here?")
        wait_for(lambda: not scene.one.daemon.flows(sourcePort=sport, state="established"), what="the flow cut")
        other[0].sendall(b"x")
        assert other[1].recv(1) == b"x"
    finally:
        scene.one.own[0] = IN
        scene.one.put()
        for sock in (*pair, *other):
            sock.close()
