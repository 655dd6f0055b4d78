# SPDX-License-Identifier: Apache-2.0
"""Flows that a NIC forwards: what it has counted becomes theirs, and they end as others do."""
import errno
import time

from port_test import pair, shake, tcp, udp  # noqa: F401 pylint: disable=unused-import
from ports import REDIRECT, RULE_IN, RULE_OUT

SEEN, BEGINS = 1, 2
PICKED_UP = 4


def test_what_a_nic_counts_is_the_flows(pair, family):
    shake(pair, family)
    table, before = pair.world.flow()
    assert table == "flows"
    rules = [pair.world.percpu("rule_counters", rule, 16)[0] for rule in (RULE_OUT, RULE_IN)]
    assert pair.world.credit(0, 0, BEGINS) == 0
    assert pair.world.credit(10, 1000) == 0
    flow = pair.world.flow()[1]
    assert [n - m for n, m in zip(flow.packets, before.packets)] == [10, 20]
    assert [n - m for n, m in zip(flow.bytes, before.bytes)] == [1000, 2000]
    assert (flow.last_seen, flow.flags) == (before.last_seen, before.flags | PICKED_UP)
    assert [pair.world.percpu("rule_counters", rule, 16)[0] - n for rule, n in zip((RULE_OUT, RULE_IN), rules)] == [30, 30]
    # another connection's is nobody's
    assert pair.world.credit(10, 1000, SEEN, forged=True) == -errno.ENOENT
    assert list(pair.world.flow()[1].packets) == list(flow.packets)


def test_what_a_nic_sees_keeps_a_flow_alive(pair, family):
    assert pair.run(pair.a, udp(pair, family)).action == REDIRECT
    assert pair.world.credit(1, 1) == -errno.ENOENT  # nothing that is not proven
    assert pair.run(pair.b, udp(pair, family, back=True)).action == REDIRECT
    before = pair.world.flow()[1]
    time.sleep(0.05)
    assert pair.world.credit(1, 1) == 0
    assert pair.world.flow()[1].last_seen == before.last_seen
    assert pair.world.credit(1, 1, SEEN | BEGINS) == 0
    flow = pair.world.flow()[1]
    assert (flow.last_seen - before.last_seen) & 0xFFFFFFFF > 0 and flow.flags == before.flags


def moved_on(pair, family):
    """An established connection whose numbers have gone on without us."""
    shake(pair, family)
    assert pair.world.credit(1000, 1 << 31, BEGINS) == 0
    return 100 + (3 << 29), 500 + (1 << 31) + 77


def test_a_connection_ends_whose_numbers_are_not_known(pair, family):
    a, b = moved_on(pair, family)
    assert pair.run(pair.a, tcp(pair, family, "FA", seq=a, ack=b)).action == REDIRECT
    assert pair.world.flow()[1].name == "fin-originator"
    assert pair.run(pair.b, tcp(pair, family, "FA", True, seq=b, ack=a + 1)).action == REDIRECT
    # what acknowledges the last FIN, and a FIN sent again
    assert pair.run(pair.a, tcp(pair, family, "A", seq=a + 1, ack=b + 1)).action == REDIRECT
    assert pair.run(pair.b, tcp(pair, family, "FA", True, seq=b, ack=a + 1)).action == REDIRECT
    assert pair.world.flow()[1].name == "closed"
    # past its FIN an end has nothing to say
    assert pair.run(pair.a, tcp(pair, family, "A", seq=a + 1, ack=b + 1, payload=b"x")).reason == "tcp-state"


def test_a_reset_ends_a_connection_whose_numbers_are_not_known(pair, family):
    a, b = moved_on(pair, family)
    assert pair.run(pair.b, tcp(pair, family, "R", True, seq=b)).action == REDIRECT
    assert pair.world.flow()[1].name == "closed"
