# SPDX-License-Identifier: Apache-2.0
"""What changes under traffic: agents that are killed and started, workloads and peers that move, uplinks and routes that come and go."""

import contextlib
import os
import signal
import threading
import time

import pytest
from lib import documents as doc
from lib import overlay, traffic
from lib.heddled import wait_for
from lib.overlay import Fabric, echo, expect_echoes, tunnelled
from lib.raw import IP, UDP, Ether, Raw, Wire
from lib.traffic import NO_LOSS, Load, expect_tcp


@contextlib.contextmanager
def loaded(*pairs, family=4, port=7900):
    """Streams between the pairs that must lose nothing while the body runs."""
    loads = [Load(a.ns, b.ns, b.ip(family), port + 2 * i, port + 2 * i + 1) for i, (a, b) in enumerate(pairs)]
    try:
        for load in loads:
            load.wait_exchanges(30)
        yield loads
        for load in loads:
            load.wait_exchanges(30)
    finally:
        results = [load.finish() for load in loads]
    assert results == [NO_LOSS] * len(loads)


def two(f, **kwargs):
    one, other = f.heddle(**kwargs), f.heddle(**kwargs)
    blue = f.network()
    a, b = one.work(blue, 1), other.work(blue, 2)
    f.up()
    return one, other, a, b


@pytest.mark.parametrize(
    "protocol, underlay, xdp, tunnel",
    [("vxlan", 4, "off", {}), ("geneve", 6, "native", {}), ("vxlan", 6, "off", {"checksum": "full"})],
    ids=["vxlan4-tc", "geneve6-xdp", "vxlan6-checksum"],
)
def test_agents_die_and_start(protocol, underlay, xdp, tunnel):
    with Fabric(underlay, protocol) as f:
        one, other, a, b = two(f, xdp=xdp, tunnel=tunnel)
        with loaded((a, b), family=4 if underlay == 6 else 6) as (load,):
            for host in (one, other):
                for sig in (signal.SIGKILL, signal.SIGTERM):
                    host.daemon.kill(sig)
                    load.wait_exchanges(30)
                    host.daemon.start()
                    load.wait_exchanges(30)
            # More than the tables hold: programs and tables are loaded anew, as at an upgrade
            many = [doc.network(f"n{i}", subnets=["10.0.0.0/8"], gateway=[f"10.{i // 250}.{i % 250}.1"]) for i in range(1100)]
            one.daemon.apply(*many)
            load.wait_exchanges(30)


def test_an_agent_is_upgraded():
    """Both agents away, then new ones that find other documents: as when a package is replaced."""
    with Fabric() as f:
        one, other, a, b = two(f)
        c = other.work(f.networks[0], 3)
        with loaded((a, b)) as (load,):
            one.daemon.stop()
            other.daemon.stop()
            load.wait_exchanges(30)
            many = [doc.network(f"n{i}", vni=1000 + i, subnets=["10.0.0.0/8"]) for i in range(1100)]
            for host in (one, other):
                host.daemon.write("60-more.yaml", *many)
                host.daemon.write("50-overlay.yaml", *host.documents())
                host.daemon.start()
                load.wait_exchanges(30)
        assert echo(a.ns, c.ip4, 84)


def test_peers_come_and_go_beside_traffic():
    with Fabric() as f:
        one, other, a, b = two(f)
        with loaded((a, b)) as (load,):
            for i in range(6):
                others = [
                    doc.document("Peer", f"other-{n}", {"address": f"192.168.77.{100 + n}", "ports": [
                        {"name": f"w{n}", "network": "blue", "mac": f"02:00:00:00:88:{n:02x}", "addresses": [f"10.77.9.{n}"]}]})
                    for n in range(i * 20 % 50)
                ]  # fmt: skip
                one.extra = others
                one.put()
                load.wait_exchanges(10)


def move(w, host):
    """The workload as it is, with its MAC and addresses, on another host."""
    w.delete_device()
    w.host = host.ns
    w.create()
    w.setup()


@pytest.mark.parametrize("to", [2, 0], ids=["third", "asker"])
def test_a_workload_moves_to_another_host(to):
    """Documents on three hosts and the device, to a host that was not in it, or to that of the one who asks: how long nobody hears it."""
    with Fabric() as f:
        hosts = [f.heddle() for _ in range(3)]
        blue = f.network()
        a, c, other = hosts[0].work(blue, 1), hosts[1].work(blue, 3), hosts[2].work(blue, 4)
        f.up()
        expect_echoes(a, c, (84,))
        expect_echoes(other, c, (84,))
        answered, stop = [], threading.Event()

        def ask():
            with traffic.Pinger(a.ns, c.ip4) as pinger:
                while not stop.is_set():
                    pinger.send()
                    before = len(pinger.replies)
                    if pinger.collect(0.0) > before:
                        answered.append(time.monotonic())
                    time.sleep(0.005)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        with loaded((a, other)):
            wait_for(lambda: len(answered) > 20, what="answers")
            began = time.monotonic()
            move(c, hosts[to])
            hosts[1].works.remove(c)
            hosts[to].works.append(c)
            for h in (hosts[to], hosts[1], hosts[2 - to]):
                h.put()
            hosts[to].host.wait_port(c.name)
            wait_for(lambda: answered[-1] > began + 0.1 and len([t for t in answered if t > began]) > 20, what="answers after the move")
        stop.set()
        thread.join()
        gaps = [b - a for a, b in zip(answered, answered[1:])]
        assert max(gaps) < 2, f"nobody answered for {max(gaps):.2f} s"
        expect_echoes(a, c)
        expect_echoes(c, a)
        expect_echoes(other, c, (84,))
        with traffic.Servers(c.ns, tcp=[7000]):
            expect_tcp(a.ns, c.ip4, 7000, "open")


def test_a_peer_has_another_address():
    """One host renumbers: documents on all three say so, and between the other two nothing is lost."""
    with Fabric() as f:
        hosts = [f.heddle() for _ in range(3)]
        blue = f.network()
        a, b, c = (h.work(blue, i + 1) for i, h in enumerate(hosts))
        f.up()
        expect_echoes(a, b, (84,))
        moved = hosts[1]
        with loaded((a, c)):
            moved.ns.ip(f"addr add {f.address(52)}/24 dev up0")
            peer = moved.peer()
            peer["spec"]["address"] = f.address(52)
            tunnel = {"protocol": "vxlan", "address": f.address(52)}
            moved.daemon.write("00-host.yaml", doc.host("up0", "off", pickupSeconds=0, tunnel=tunnel))
            for h in (hosts[0], hosts[2]):
                h.put(*[d for d in h.documents() if d["metadata"]["name"] != moved.name], peer)
            with hosts[0].witness() as witness:
                wait_for(lambda: echo(a.ns, b.ip4, 84, 0.2), what="an echo by way of the new address")
                wait_for(lambda: {t.ip.dst for t in tunnelled(witness.frames(0.2))} >= {f.address(52)}, what="tunnel packets to it")
        expect_echoes(a, b)
        expect_echoes(b, c)


def test_documents_of_other_peers_change():
    with Fabric() as f:
        one, other, a, b = two(f)
        with loaded((b, a)):
            rename = [d for d in one.documents() if d["kind"] != "Peer"]
            one.put(*rename, other.peer(), doc.document("Peer", "spare", {"address": f.address(99)}))
            one.put(*rename, other.peer())


def test_the_first_packets_are_not_lost():
    """Nobody has resolved anything yet: the first frames of a flow all arrive, in order or not, and soon."""
    with Fabric() as f:
        one, other, a, b = two(f)
        for round_ in range(3):
            for host in (one, other):
                host.ns.ip("neigh flush all dev up0")
            with Wire(b.ns, "eth0") as at_b, Wire(a.ns, "eth0") as wire:
                wanted = {b"early-%d-%d-" % (round_, i) for i in range(20)}
                for mark in sorted(wanted):
                    wire.send(Ether(src=a.mac, dst=b.mac) / IP(src=a.ip4, dst=b.ip4) / UDP(sport=7, dport=9) / Raw(mark))
                got = []

                def all_there(got=got, wanted=wanted, at_b=at_b):
                    got += at_b.frames(0.05)
                    return {w for w in wanted if any(w in f for f in got)} == wanted

                wait_for(all_there, timeout=3, what="all of the first packets")


def test_neighbours_are_refreshed():
    """Flushed, or with another MAC: traffic goes on."""
    with Fabric() as f:
        one, other, a, b = two(f)
        with loaded((a, b)) as (load,):
            for _ in range(5):
                one.ns.ip("neigh flush all dev up0")
                other.ns.ip("neigh flush all dev up0")
                load.wait_exchanges(20)
        # The second host's card is replaced
        other.ns.ip("link set up0 down", "link set up0 address 02:75:00:00:00:77", "link set up0 up")
        other.ns.run("arping", "-c", "1", "-U", "-I", "up0", other.address, check=False)
        wait_for(lambda: echo(a.ns, b.ip4, 84, 0.3), timeout=10, what="an echo by the new MAC")


# --- several uplinks ---


def far_apart(f, **kwargs):
    """Two hosts with two uplinks each, routed; addresses of tunnels on their loopback devices."""
    one, other = f.heddle(uplinks=["up0", "up1"], **kwargs), f.heddle(uplinks=["up0", "up1"], **kwargs)
    for host in (one, other):
        for key in ("net.ipv4.fib_multipath_hash_policy", "net.ipv6.fib_multipath_hash_policy"):
            f.ns.sysctl(key, 1)
            host.ns.sysctl(key, 1)
    blue = f.network()
    a, b = one.work(blue, 1), other.work(blue, 2)
    f.up()
    return one, other, a, b


def ways(end):
    """How many next hops each peer has."""
    return [n >> 1 for n in end.peers("ways")]


def devices(end):
    """By which uplinks each peer is reached."""
    return [[way["device"] for way in peer["ways"]] for peer in end.daemon.status()["peers"]]


@pytest.mark.parametrize("underlay", [4, 6], ids=["over4", "over6"])
def test_flows_are_spread(underlay):
    with Fabric(underlay, routed=True) as f:
        one, _, a, b = far_apart(f)
        wait_for(lambda: ways(one) == [2], what="two ways")
        expect_echoes(a, b)
        with one.witness(0) as first, one.witness(1) as second, Wire(a.ns, "eth0") as wire:
            for sport in range(20000, 20064):
                for _ in range(3):
                    wire.send(Ether(src=a.mac, dst=b.mac) / IP(src=a.ip4, dst=b.ip4) / UDP(sport=sport, dport=9) / Raw(b"spread"))
            time.sleep(0.2)
            seen = []
            for witness in (first, second):
                inner = [Ether(t.inner) for t in tunnelled(witness.frames())]
                seen.append([p[UDP].sport for p in inner if UDP in p and p[UDP].dport == 9])
        assert len(seen[0]) + len(seen[1]) == 192
        assert not set(seen[0]) & set(seen[1]), "a flow took both ways"
        assert min(len(s) for s in seen) > 192 // 5, [len(s) for s in seen]


@pytest.mark.parametrize("underlay", [4, 6], ids=["over4", "over6"])
def test_an_uplink_goes_down(underlay):
    """Traffic goes on by the other one, after a bounded gap, and comes back to both."""
    with Fabric(underlay, routed=True) as f:
        one, other, a, b = far_apart(f)
        wait_for(lambda: (ways(one), ways(other)) == ([2], [2]), what="two ways")
        load = Load(a.ns, b.ns, b.ip4, 7900, 7901)
        try:
            for way in (0, 1):
                load.wait_exchanges(20)
                f.ns.ip(f"link set {f.tap_of(1, way)} down")
                wait_for(lambda: ways(one) == [1], what="one way is left")
                load.wait_exchanges(20)
                f.ns.ip(f"link set {f.tap_of(1, way)} up")
                f.routes_to(1, 2)
                f.routes_of(one.ns, 1, "up0", "up1")
                wait_for(lambda: ways(one) == [2], timeout=10, what="two ways again")
            load.wait_exchanges(20)
        finally:
            result = load.finish()
        assert result["tcp_broken"] is None and load.longest_gap < 3, (result, load.longest_gap)


def test_a_route_changes():
    """To one uplink and back by `ip route`: no packet is lost, since both ways work all the time."""
    with Fabric(routed=True) as f:
        one, other, a, b = far_apart(f)
        wait_for(lambda: (ways(one), ways(other)) == ([2], [2]), what="two ways")
        with loaded((a, b)) as (load,):
            for way in (0, 1):
                one.ns.run("ip", "route", "replace", "default", "via", f.link_address(1, 4, way, 254), "dev", f"up{way}")
                wait_for(lambda way=way: devices(one) == [[f"up{way}"]], what="one way, and that one")
                with one.witness(1 - way) as witness:
                    load.wait_exchanges(20)
                    assert tunnelled(witness.frames()) == []
            f.routes_of(one.ns, 1, "up0", "up1")
            wait_for(lambda: ways(one) == [2], what="two ways again")


def test_no_route_at_all():
    """The workload hears nothing while there is no way to the peer, and all is well again when there is one."""
    with Fabric(routed=True) as f:
        one, other = f.heddle(), f.heddle()
        blue = f.network()
        a, b = one.work(blue, 1), other.work(blue, 2)
        f.up()
        expect_echoes(a, b, (84,))
        one.ns.run("ip", "route", "del", "default")
        wait_for(lambda: ways(one) == [0], what="no way")
        overlay.expect_nothing(a, b)
        f.routes_of(one.ns, 1, "up0")
        wait_for(lambda: ways(one) == [1], what="a way")
        expect_echoes(a, b)


# --- no trace ---


def all_of(ns):
    """What of a host's network somebody could have changed, but for what comes and goes by itself."""
    devices = sorted(line.split(":")[1].split("@")[0].strip() for line in ns.run("ip", "-o", "link").stdout.splitlines())
    shown = {
        "links": ns.run("ip", "-d", "link").stdout,
        "addresses": ns.run("ip", "-o", "addr").stdout,
        "routes": ns.run("ip", "route", "show", "table", "all").stdout + ns.run("ip", "-6", "route", "show", "table", "all").stdout,
        "rules": ns.run("ip", "rule").stdout + ns.run("ip", "-6", "rule").stdout,
        "qdiscs": ns.run("tc", "qdisc").stdout,
        "programs": ns.run("bpftool", "net", "show").stdout,
        "features": [ns.run("ethtool", "-k", d).stdout for d in devices],
        "sysctl": ns.run("sysctl", "-a", "--pattern", r"net\.ipv[46]\.(conf|neigh|ip_forward|route)", check=False).stdout,
    }
    kept = [line for family in ("-4", "-6") for line in ns.run("ip", family, "-d", "neigh").stdout.splitlines() if _is_kept(line)]
    return {**shown, "neighbours": kept}


def _is_kept(line):
    return any(word in line for word in ("PERMANENT", "extern_learn", "managed", "proto"))


@pytest.mark.parametrize("protocol, underlay, xdp, decapsulate", [("vxlan", 4, "off", "tc"), ("geneve", 6, "native", "xdp")], ids=["vxlan4", "geneve6"])
def test_detach_leaves_nothing(protocol, underlay, xdp, decapsulate):
    with Fabric(underlay, protocol) as f:
        one, other = f.heddle(start=False, xdp=xdp, tunnel={"decapsulate": decapsulate}), f.heddle()
        blue = f.network()
        a, b = one.work(blue, 1), other.work(blue, 2)
        wait_for(lambda: "tentative" not in one.ns.run("ip", "-6", "addr").stdout, what="the kernel's own addresses")
        before = all_of(one.ns)
        one.daemon.start()
        f.up()
        expect_echoes(a, b, (84,))
        during = all_of(one.ns)
        assert "heddle-tunnel" in during["links"] and during["neighbours"]
        assert {what for what in before if before[what] != during[what]} >= {"links", "programs", "neighbours"}
        one.daemon.kill()
        one.daemon.detach()
        after = all_of(one.ns)
        for what, was in before.items():
            assert after[what] == was, what
        assert not os.path.exists(f"{one.daemon.bpffs}/heddle")
        overlay.expect_nothing(b, a)
