# SPDX-License-Identifier: Apache-2.0
"""The story of connections, from their first packet to their end."""
import time

import pytest
from packets import ping, pong, tcp, udp
from world import STATES, TC_IN, TC_OUT, U32, XDP, Slot, World

SCALE = [("WScale", 7)]


class Connection:
    """Both ends of one TCP connection. opened_in: the peer is the originator."""

    def __init__(self, world, hook, family, opened_in=True, **address):
        self.world, self.family, self.opened_in, self.address = world, family, opened_in, address
        self.hooks = {True: hook if hook != TC_OUT else TC_IN, False: TC_OUT}
        self.isn = {True: 1000, False: 0xFFFFFF00}  # the responder's numbers wrap
        self.next = dict(self.isn)  # by side: True the originator

    def send(self, originator, flags, seq=None, ack=None, payload=b"", **more):
        inbound = originator == self.opened_in
        ports = (40000, 80) if originator else (80, 40000)
        packet = tcp(self.family, inbound, flags, ports[0], ports[1], self.next[originator] if seq is None else seq,
                     (self.next[not originator] if ack is None else ack) if "A" in flags else 0, payload=payload, **{**self.address, **more})
        result = self.world.run(self.hooks[inbound], packet)
        if result.passed and seq is None:
            self.next[originator] = (self.next[originator] + len(payload) + ("S" in flags) + ("F" in flags)) & 0xFFFFFFFF
        return result

    def shake(self):
        assert self.send(True, "S", options=SCALE).passed
        assert self.send(False, "SA", options=SCALE).passed
        assert self.send(True, "A").passed
        return self


@pytest.fixture(params=[True, False], ids=["inbound", "outbound"])
def connection(world, ingress_hook, family, request):
    return Connection(world, ingress_hook, family, request.param)


def test_handshake_proves(world, connection):
    assert connection.send(True, "S", options=SCALE).passed
    table, flow = world.flow()
    assert (table, flow.name) == ("flows_new", "syn-sent")
    assert connection.send(False, "SA", options=SCALE).passed
    table, flow = world.flow()
    assert (table, flow.name, list(flow.wscale)) == ("flows_new", "syn-received", [7, 7])
    assert connection.send(True, "A").passed
    table, flow = world.flow()
    assert (table, flow.name) == ("flows", "established")
    assert flow.slot and list(flow.packets) == [2, 1]
    assert bool(flow.flags & 2) == (not connection.opened_in)
    assert connection.send(True, "PA", payload=b"GET").passed
    assert connection.send(False, "PA", payload=b"200 OK").passed
    table, flow = world.flow()
    assert list(flow.packets) == [3, 2]
    assert list(flow.seq_end) == [connection.next[True], connection.next[False]]


def test_data_without_handshake(world, connection):
    for flags in ("A", "PA", "FA", "R", "RA", "SA"):
        assert connection.send(True, flags, payload=b"x" if "P" in flags else b"").reason == "tcp-no-flow"
    assert connection.send(True, "S").passed
    assert connection.send(True, "PA", payload=b"x").reason == "tcp-state"
    assert connection.send(False, "PA", payload=b"x").reason == "tcp-state"
    assert world.flow()[1].name == "syn-sent"


def test_syn_ack_must_acknowledge_the_syn(world, connection):
    connection.send(True, "S")
    assert connection.send(False, "SA", ack=connection.next[True] + 1).reason == "tcp-state"
    assert connection.send(False, "SA", ack=connection.next[True] - 1).reason == "tcp-state"
    assert world.flow()[1].name == "syn-sent"
    assert connection.send(False, "SA").passed


def test_wrong_ack_proves_nothing(world, connection):
    connection.send(True, "S")
    connection.send(False, "SA")
    for wrong in (connection.next[False] + 1, connection.isn[False], connection.next[False] + 70000, 0):
        assert connection.send(True, "A", ack=wrong).reason == "tcp-state"
    assert world.flow()[0] == "flows_new"
    assert connection.send(True, "A").passed
    assert world.flow()[0] == "flows"


def test_syn_again(world, connection):
    connection.send(True, "S")
    assert connection.send(True, "S", seq=connection.isn[True]).passed
    connection.send(False, "SA")
    assert connection.send(True, "S", seq=connection.isn[True]).passed
    assert connection.send(False, "SA", seq=connection.isn[False]).passed
    assert connection.send(True, "A").passed
    assert connection.send(False, "SA", seq=connection.isn[False]).passed  # the ACK was lost
    assert world.flow()[1].name == "established"


def test_another_syn_begins_anew(world, connection):
    connection.send(True, "S")
    assert connection.send(True, "S", seq=777000).passed
    connection.next[True] = 777001
    assert connection.send(False, "SA").passed
    assert connection.send(True, "A").passed
    assert world.flow()[1].name == "established"


def test_simultaneous_open(world, connection):
    connection.send(True, "S")
    assert connection.send(False, "S").passed
    assert connection.send(True, "SA", seq=connection.isn[True]).passed
    assert connection.send(False, "SA", seq=connection.isn[False]).passed
    assert connection.send(True, "PA", payload=b"x").passed
    assert world.flow()[:1] == ("flows",)


def test_fast_open(world, connection):
    assert connection.send(True, "S", payload=b"data in the SYN").passed
    assert connection.send(False, "SA").passed
    assert connection.send(False, "PA", payload=b"early").passed
    assert connection.send(True, "A").passed
    assert world.flow()[1].name == "established"


def test_orderly_end(world, connection):
    connection.shake()
    assert connection.send(True, "FA").passed
    assert world.flow()[1].name == "fin-originator"
    assert connection.send(False, "PA", payload=b"still talking").passed
    assert connection.send(True, "A").passed
    assert connection.send(True, "PA", payload=b"after my FIN").reason == "tcp-state"
    assert connection.send(False, "FA").passed
    table, flow = world.flow()
    assert (table, flow.name, flow.slot) == ("flows_new", "closed", 0)  # gives its place up at once
    assert connection.send(True, "A").passed
    assert connection.send(False, "FA", seq=connection.next[False] - 1).passed  # again
    assert connection.send(False, "PA", payload=b"more").reason == "tcp-state"
    # the same ports again
    assert connection.send(True, "S", seq=5000000).passed
    assert world.flow()[1].name == "syn-sent"


def test_responder_ends_first(world, connection):
    connection.shake()
    assert connection.send(False, "FA").passed
    assert world.flow()[1].name == "fin-responder"
    assert connection.send(True, "FA").passed
    assert world.flow()[1].name == "closed"


def test_refused(world, connection):
    connection.send(True, "S")
    assert connection.send(False, "RA", seq=0).passed
    assert world.flow()[1].name == "closed"


def test_forged_refusal(world, ingress_hook, family):
    connection = Connection(world, ingress_hook, family, opened_in=False)
    connection.send(True, "S")
    assert connection.send(False, "RA", seq=0, ack=connection.next[True] + 9).reason == "tcp-window"
    assert connection.send(False, "R", seq=0).reason == "tcp-window"
    assert world.flow()[1].name == "syn-sent"


@pytest.mark.parametrize("opened_in", [True, False], ids=["inbound", "outbound"])
def test_reset_from_the_wire(world, ingress_hook, family, opened_in):
    connection = Connection(world, ingress_hook, family, opened_in).shake()
    peer = opened_in
    connection.send(not peer, "PA", payload=b"x" * 100)
    connection.send(peer, "PA", payload=b"x" * 100)
    exact = connection.next[peer]
    for far in (exact + 0x40000000, exact - 0x1000000, exact + 1024 * 128 + 200):
        assert connection.send(peer, "R", seq=far).reason == "tcp-window"
    assert connection.send(peer, "R", seq=exact + 10).passed  # the host answers it with a challenge
    assert world.flow()[1].name == "established"
    assert connection.send(peer, "R", seq=exact).passed
    assert (world.flow()[0], world.flow()[1].name) == ("flows_new", "closed")


@pytest.mark.parametrize("opened_in", [True, False], ids=["inbound", "outbound"])
def test_reset_for_what_came_late(world, ingress_hook, family, opened_in):
    """A segment that the FIN behind it has overtaken meets nobody any more: the RST that answers it has its old numbers, and ends nothing."""
    connection = Connection(world, ingress_hook, family, opened_in).shake()
    peer = opened_in
    late = connection.next[peer]
    for side in (not peer, peer):
        assert connection.send(side, "FA").passed
    assert connection.send(not peer, "A").passed
    before = world.flow()[1].name
    assert connection.send(peer, "R", seq=late).reason == "tcp-window"
    assert world.flow()[1].name == before


@pytest.mark.parametrize("opened_in", [True, False], ids=["inbound", "outbound"])
def test_reset_by_the_host(world, ingress_hook, family, opened_in):
    connection = Connection(world, ingress_hook, family, opened_in).shake()
    host = not opened_in
    assert connection.send(host, "R", seq=connection.next[host] + 5000000).passed
    assert world.flow()[1].name == "established"
    assert connection.send(host, "RA").passed
    assert world.flow()[1].name == "closed"


def test_forged_data_moves_nothing(world, ingress_hook, family):
    """A segment far outside the window, then a RST that would fit it."""
    connection = Connection(world, ingress_hook, family).shake()
    far = connection.next[True] + 0x30000000
    assert connection.send(True, "PA", seq=far, payload=b"x" * 10).passed  # the stack's to judge
    assert connection.send(True, "R", seq=far + 10).reason == "tcp-window"
    assert connection.send(True, "FA", seq=far).passed
    assert world.flow()[1].name == "established"


def test_syn_in_a_live_connection(world, ingress_hook, family):
    connection = Connection(world, ingress_hook, family).shake()
    assert connection.send(True, "S", seq=99).passed  # for a challenge ACK
    assert world.flow()[1].name == "established"
    world.rules(ingress=["{name: no, action: deny, ports: [{protocol: TCP, port: 80}]}"])
    assert connection.send(True, "S", seq=99).reason == "policy-deny"


def test_expired_is_absent(world, connection):
    connection.shake()
    world.control.timeout[STATES.index("established")] = 2
    time.sleep(0.1)
    assert connection.send(True, "A").reason == "tcp-no-flow"
    assert world.flows() == []
    assert connection.send(True, "S", seq=1).passed
    assert world.flow()[1].name == "syn-sent"


def test_ageing(world, connection):
    connection.shake()
    slot = world.flow()[1].slot.to_bytes(4, "little")
    aged = world.total(4)
    world.control.timeout[STATES.index("established")] = 2
    world.age()
    deadline = time.monotonic() + 20
    while world.flows() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert world.flows() == []
    assert world.total(4) == aged + 1
    assert world.lookup("flow_slots", slot, Slot).used == 0


def test_ageing_leaves_the_living(world, connection):
    connection.shake()
    world.age()
    time.sleep(1)
    assert world.flow()[0] == "flows"


def test_udp(world, ingress_hook, family):
    assert world.run(ingress_hook, udp(family)).passed
    table, flow = world.flow()
    assert (table, flow.name) == ("flows_new", "udp-new")
    assert world.run(ingress_hook, udp(family)).passed
    assert world.flow()[0] == "flows_new"  # more of the same proves nothing
    assert world.run(TC_OUT, udp(family, False, 53, 40000)).passed
    table, flow = world.flow()
    assert (table, flow.name, list(flow.packets)) == ("flows_other", "udp-replied", [2, 1])
    assert world.run(ingress_hook, udp(family)).passed
    assert list(world.flow()[1].packets) == [3, 1]


def test_reply_rides(world, ingress_hook, family):
    world.rules(default="{ingress: deny, egress: allow}")
    assert world.run(ingress_hook, udp(family)).reason == "policy-deny"
    assert world.run(TC_OUT, udp(family, False, 5353, 53)).passed
    assert world.run(ingress_hook, udp(family, True, 53, 5353)).passed
    assert world.run(ingress_hook, udp(family, True, 53, 5354)).reason == "policy-deny"


def test_ping(world, ingress_hook, family):
    assert world.run(ingress_hook, ping(family)).passed
    assert world.flow()[1].name == "icmp-new"
    assert world.run(TC_OUT, pong(family, False)).passed
    assert (world.flow()[0], world.flow()[1].name) == ("flows_other", "icmp-replied")
    assert world.run(TC_OUT, pong(family, False, ident=78)).reason == "icmp-unrelated"


def test_request_never_rides_on_a_ping(world, ingress_hook, family):
    world.rules(default="{ingress: deny, egress: allow}")
    assert world.run(TC_OUT, ping(family, False)).passed
    assert world.run(ingress_hook, pong(family)).passed
    assert world.run(ingress_hook, ping(family)).reason == "policy-deny"
    assert world.run(TC_OUT, pong(family, False)).reason == "icmp-unrelated"


def test_full_table(tmp_path_factory, family):
    world = World(str(tmp_path_factory.mktemp("small")), flows=8)
    try:
        world.rules()
        world.port()
        peers = [Connection(world, XDP, family, peer={4: f"198.51.100.{n}", 6: f"2001:db8:1::{n}"}[family]).shake() for n in range(1, 12)]
        tables = [table for table, _, _ in world.flows()]
        assert tables.count("flows") == 7 and tables.count("flows_new") == 4  # slot 0 is never used
        assert world.percpu("full", 0, 8)[0] >= 4
        assert "full" in [event.name for event in world.events()]
        for peer in peers:
            assert peer.send(True, "PA", payload=b"still works").passed
            assert peer.send(False, "PA", payload=b"both ways").passed
        # a place becomes free, and the next of them to speak takes it
        assert peers[0].send(True, "R").passed
        time.sleep(0.05)
        assert peers[-1].send(True, "PA", payload=b"x").passed
        assert [table for table, _, _ in world.flows()].count("flows") == 7
    finally:
        world.close()


def test_timeouts_are_compared_by_difference(world, ingress_hook, family):
    """A flow that another CPU saw a tick later than this packet's clock says is not expired."""
    connection = Connection(world, ingress_hook, family).shake()
    flow = world.flow()[1]
    index = bytes(U32(flow.slot))
    slot = world.lookup("flow_slots", index, Slot)
    slot.flow.last_seen = (flow.last_seen + 1000) & 0xFFFFFFFF
    world.store("flow_slots", index, slot)
    assert connection.send(True, "A").passed
