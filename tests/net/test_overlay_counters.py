# SPDX-License-Identifier: Apache-2.0
"""What is counted of each peer: packets from it and to it, in whatever way they come, and those that were not let through."""

import re

import pytest
from lib import overlay, traffic
from lib.heddled import wait_for
from lib.overlay import Fabric, echo, expect_echoes, wrap
from lib.raw import IP, UDP, Ether, Raw


def counts(end, name):
    return next({"in": p["received"], "out": p["sent"]} for p in end.daemon.status()["peers"] if p["name"] == name)


def metric(end, what, name, direction):
    line = rf'^heddle_peer_{what}_total{{peer="{name}",direction="{direction}"}} (\d+)$'
    return int(re.search(line, end.daemon.api.get("/metrics"), re.M).group(1))


@pytest.mark.parametrize("xdp", ["off", "native"])
def test_counters(xdp):
    with Fabric() as f:
        one, two, other = (f.heddle(xdp=xdp, tunnel={"decapsulate": "xdp"} if xdp == "native" else {}) for _ in range(3))
        blue = f.network()
        a, b = one.work(blue, 1), two.work(blue, 2)
        other.work(blue, 3)
        f.up()
        expect_echoes(a, b, (84,))
        before, elsewhere = counts(one, "node-2"), counts(one, "node-3")
        for _ in range(10):
            assert echo(a.ns, b.ip4, 100)
        client, server = traffic.accept_pair(a.ns, b.ns, b.ip4, 7300)
        with client, server:
            sent, got = traffic.transfer(client, server, 1 << 20)
            assert sent == got
        after = counts(one, "node-2")
        for way in ("in", "out"):
            assert after[way]["packets"] - before[way]["packets"] >= 10
            assert after[way]["bytes"] - before[way]["bytes"] >= 1000
            assert after[way]["dropped"] == before[way]["dropped"]
        # Super-packets count as what they are cut into
        assert after["out"]["packets"] - before["out"]["packets"] > 500 and after["out"]["bytes"] - before["out"]["bytes"] > 1 << 20
        now = counts(one, "node-3")  # a workload may still say which groups it listens to
        assert all(now[way]["packets"] - elsewhere[way]["packets"] < 5 for way in ("in", "out"))
        assert metric(one, "packets", "node-2", "egress") >= after["out"]["packets"]
        assert metric(one, "bytes", "node-2", "ingress") >= after["in"]["bytes"]

        # What the peer may not send, and what it has no network for
        rogue = f.rogue()
        foreign = Ether(src=b.mac, dst=a.mac) / IP(src="10.77.9.9", dst=a.ip4) / UDP() / Raw(b"x")
        for vni in (blue.vni, 999):
            rogue.send(wrap(foreign, vni, two.address, one.address, f.mac(1)))
        wait_for(lambda: counts(one, "node-2")["in"]["dropped"] - after["in"]["dropped"] == 2, what="both are counted")
        assert metric(one, "drops", "node-2", "ingress") == after["in"]["dropped"] + 2

        # They stay with the name
        before = counts(one, "node-2")
        one.daemon.restart()
        now = counts(one, "node-2")
        assert now["in"]["dropped"] == before["in"]["dropped"] and now["out"]["packets"] >= before["out"]["packets"]
        assert "node-2" in one.daemon.cli("status").stdout


def test_another_peer_begins_anew():
    """Also where more of them than the table holds come later: then it is copied."""
    with Fabric() as f:
        one, two = f.heddle(), f.heddle()
        blue = f.network()
        a, b = one.work(blue, 1), two.work(blue, 2)
        f.up()
        expect_echoes(a, b, (84,))
        before = counts(one, "node-2")
        more = [overlay.doc.document("Peer", f"more-{i}", {"address": f.address(100 + i)}) for i in range(40)]
        one.put(*one.documents(), *more)
        assert counts(one, "node-2")["out"]["packets"] >= before["out"]["packets"] > 0
        assert all(counts(one, f"more-{i}")["out"]["packets"] == 0 for i in range(40))
