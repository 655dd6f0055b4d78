# SPDX-License-Identifier: Apache-2.0
"""Busy connections, whose numbers are lent to the cache: no packet can tell, and nothing is lost."""
import time

import pytest
from flow_test import Connection
from packets import tcp, unreachable
from world import PATIENCE, STATES, XDP, number

HOT = 1 << 6  # HD_FLOW_HOT
LOAN = number("hot.h", "HD_HOT_TICKS")


@pytest.fixture(params=[True, False], ids=["inbound", "outbound"])
def busy(world, ingress_hook, family, request):
    return converse(world, Connection(world, ingress_hook, family, request.param).shake())


def pass_time(world, loans):
    """So many times as long as a loan, and a little."""
    begin = world.now()
    while (world.now() - begin) & 0xFFFFFFFF < LOAN * loans + 20:
        time.sleep(0.05)


@pytest.fixture
def waiting(world, family):
    """For tests that wait: of one kind only."""
    return converse(world, Connection(world, XDP, family).shake())


def converse(world, connection):
    """40 segments each way, the host's and the peer's in turn."""
    for _ in range(40):
        assert connection.send(True, "PA", payload=b"x" * 100).passed
        assert connection.send(False, "PA", payload=b"y" * 50).passed
    assert world.flow()[1].flags & HOT
    return connection


def test_listed_as_it_is(world, busy):
    flow = world.listed()
    assert list(flow.packets) == [42, 41]
    assert list(flow.seq_end) == [busy.next[True], busy.next[False]]
    head = 40 if busy.family == 4 else 60
    assert flow.bytes[0] == 40 * (head + 100) + 2 * head + 4 and flow.bytes[1] == 40 * (head + 50) + head + 4


def test_given_back_in_time(world, waiting):
    pass_time(world, 1)
    for _ in range(3):
        assert waiting.send(True, "PA", payload=b"x").passed
    flow = world.flow()[1]
    assert flow.packets[0] >= 42 and flow.flags & HOT
    assert list(world.listed().packets) == [45, 41]


def test_given_back_by_the_sweep(world, waiting):
    world.age()
    deadline = time.monotonic() + 30
    while world.flow()[1].flags & HOT and time.monotonic() < deadline:
        time.sleep(0.1)
    flow = world.flow()[1]
    assert list(flow.packets) == [42, 41] and not flow.flags & HOT
    assert waiting.send(True, "PA", payload=b"x").passed


def test_reset(world, busy):
    peer = busy.opened_in
    assert busy.send(peer, "R", seq=busy.next[peer] + 0x20000000).reason == "tcp-window"
    assert busy.send(peer, "R", seq=busy.next[peer] + 1).passed
    assert world.flow()[1].name == "established"
    for _ in range(3):
        assert busy.send(True, "PA", payload=b"x").passed
    assert busy.send(peer, "R").passed
    assert (world.flow()[0], world.flow()[1].name) == ("flows_new", "closed")
    assert busy.send(not peer, "PA", payload=b"late").reason == "tcp-state"


def test_end(world, busy):
    for originator, state in ((True, "fin-originator"), (False, "closed")):
        assert busy.send(originator, "FA").passed
        assert world.flow()[1].name == state
    assert list(world.flow()[1].packets) == [43, 42]


def test_forged_data_moves_nothing(world, busy):
    peer = busy.opened_in
    far = busy.next[peer] + 0x30000000
    assert busy.send(peer, "PA", seq=far, payload=b"x" * 10).passed
    assert busy.send(peer, "R", seq=far + 10).reason == "tcp-window"
    assert world.flow()[1].name == "established"


def test_policy_change(world, busy):
    direction = "ingress" if busy.opened_in else "egress"
    world.rules(**{direction: ["{name: no, action: deny, ports: [{protocol: TCP, port: 80}]}"]})
    assert busy.send(False, "PA", payload=b"x").reason == "policy-deny"
    assert world.flows() == []
    assert busy.send(True, "PA", payload=b"x").reason == "tcp-no-flow"
    world.rules()
    assert busy.send(True, "PA", payload=b"x").reason == "tcp-no-flow"


def test_rule_is_counted(world, busy):
    world.rules(ingress=["{name: web, action: allow, ports: [{protocol: TCP, port: 80}]}"], egress=["{name: web, action: allow, ports: [{protocol: TCP, port: 80}]}"])
    assert busy.send(True, "PA", payload=b"x").passed
    rule = world.listed().rule
    assert world.rule_name(rule) == "web"
    before = world.percpu("rule_counters", rule, 16)[0]
    for _ in range(5):
        assert busy.send(True, "PA", payload=b"x").passed
    assert world.percpu("rule_counters", rule, 16)[0] == before + 5


def test_expired(world, waiting):
    world.control.timeout[STATES.index("established")] = 2
    pass_time(world, 2)
    assert waiting.send(True, "A").reason == "tcp-no-flow"
    assert world.flows() == []


def test_error_about_it(world, ingress_hook, family):
    world.rules(default="{ingress: deny, egress: allow}")
    connection = Connection(world, ingress_hook, family, False).shake()
    for _ in range(60):
        assert connection.send(True, "PA", payload=b"x" * 1400).passed
        assert connection.send(False, "A").passed
    late = tcp(family, False, "PA", 40000, 80, connection.next[True] - 1400, connection.next[False], payload=b"x" * 100)
    assert world.run(ingress_hook, unreachable(family, late)).passed
    early = tcp(family, False, "PA", 40000, 80, connection.isn[True] + 1, connection.next[False], payload=b"x" * 100)
    assert world.run(ingress_hook, unreachable(family, early)).reason == "policy-deny"
    assert connection.send(True, "PA", payload=b"x").passed


def test_three_in_one_pair(world, ingress_hook, family):
    """The hash is public: many flows at once, of which some must share a pair, all keep their own numbers."""
    peers = [Connection(world, ingress_hook, family, peer={4: f"198.51.{n >> 8}.{n & 255}", 6: f"2001:db8:1::{n:x}"}[family]).shake() for n in range(1, 120 // PATIENCE)]
    rounds = 12 // PATIENCE
    for _ in range(rounds):
        for connection in peers:
            assert connection.send(True, "PA", payload=b"x").passed
            assert connection.send(False, "A").passed
    for connection in peers:
        assert connection.send(True, "R", seq=connection.next[True] + 0x10000000).reason == "tcp-window"
        assert connection.send(True, "R").passed
    assert {flow.name for _, _, flow in world.flows()} == {"closed"}
    assert {tuple(flow.packets) for _, _, flow in world.flows()} == {(rounds + 3, rounds + 1)}
