# SPDX-License-Identifier: Apache-2.0
"""Flows that a NIC forwards to the wire or to peers: whom frames go to is noted, and what it has counted is counted as our programs do."""
import time

import pytest
from overlay import R_MAC, arrive as arrive_from_peer, from_peer, overlay, sent, to_peer
from packets import UDP
from ports import DEVICE_PEER, REDIRECT
from wire_test import STATION, WIRE, arrive, inbound, lan, learn, outbound  # noqa: F401 pylint: disable=unused-import
from world import EGRESS, INGRESS, U32

SEEN = 1


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def totals(plane):
    return {way: plane.world.percpu("totals", way, 16) for way in (INGRESS, EGRESS)}


def more(plane, before):
    return {way: tuple(n - m for n, m in zip(now, before[way])) for way, now in totals(plane).items()}


def seen(plane, of):
    """When the MAC was last seen to be learnt."""
    (key,) = [key for key in plane.world.keys("fdb", 12) if key.startswith(mac(of))]
    return plane.world.lookup("fdb", key, U32 * 3)[1]


def test_whom_a_port_sends_to_on_the_wire(lan, family):
    learn(lan)
    assert lan.run(lan.a, outbound(lan, family)).action == REDIRECT
    assert bytes(lan.world.flow()[1].peer_mac) == mac(STATION)
    # Somebody else has the address; answers tell nothing of it, since another MAC may send them.
    other = "02:00:00:00:77:02"
    learn(lan, mac=other)
    assert arrive(lan, inbound(lan, family, mac=other, l4=UDP(sport=2000, dport=1000))).action == REDIRECT
    assert bytes(lan.world.flow()[1].peer_mac) == mac(STATION)
    assert lan.run(lan.a, outbound(lan, family, to_mac=other)).action == REDIRECT
    assert bytes(lan.world.flow()[1].peer_mac) == mac(other)


def test_who_opens_from_the_wire(lan, family):
    assert arrive(lan, inbound(lan, family)).action == REDIRECT
    _, flow = lan.world.flow()
    assert (flow.device[0], bytes(flow.peer_mac)) == (WIRE, bytes(6))
    assert lan.run(lan.a, outbound(lan, family)).action == REDIRECT
    assert bytes(lan.world.flow()[1].peer_mac) == mac(STATION)


def test_what_is_counted_on_the_wire(lan, family):
    learn(lan)
    assert lan.run(lan.a, outbound(lan, family)).action == REDIRECT
    assert arrive(lan, inbound(lan, family)).action == REDIRECT
    before, at = totals(lan), seen(lan, STATION)
    time.sleep(0.05)
    # Of the first side, the port, 10 packets; of the other one 20.
    assert lan.world.credit(10, 1000) == 0
    assert more(lan, before) == {EGRESS: (10, 1000), INGRESS: (20, 2000)}
    assert seen(lan, STATION) == at, "what was counted some time ago says nothing of now"
    assert lan.world.credit(10, 1000, SEEN) == 0
    assert (seen(lan, STATION) - at) & 0xFFFFFFFF > 0
    # It has moved: what came by the NIC came from elsewhere.
    key = next(key for key in lan.world.keys("fdb", 12) if key.startswith(mac(STATION)))
    lan.world.store("fdb", key, (U32 * 3)(0, at, 1))
    assert lan.world.credit(10, 1000, SEEN) == 0
    assert seen(lan, STATION) == at


@pytest.mark.parametrize("opened", ["here", "there"])
def test_what_is_counted_of_a_peer(plane, family, opened):
    overlay(plane)
    there, back = to_peer(plane, family), from_peer(plane, family)
    for out in (True, False) if opened == "here" else (False, True):
        if out:
            sent(plane, plane.run(plane.a, there), there)
        else:
            assert arrive_from_peer(plane, back).action == REDIRECT
    _, flow = plane.world.flow()
    assert list(flow.device) == ([plane.a.ifindex, DEVICE_PEER | 1] if opened == "here" else [DEVICE_PEER | 1, plane.a.ifindex])
    before, peer = totals(plane), plane.world.percpu("peer_counters", 1, 64)
    assert plane.world.credit(10, 1000, SEEN) == 0
    out, into = ((10, 1000), (20, 2000)) if opened == "here" else ((20, 2000), (10, 1000))
    assert more(plane, before) == {EGRESS: out, INGRESS: into}
    now = plane.world.percpu("peer_counters", 1, 64)
    passed = [n - m for n, m in zip(now, peer)]
    assert passed == [*into, *out, 0, 0, 0, 0]
    assert bytes(plane.world.flow()[1].peer_mac) == mac(R_MAC)
