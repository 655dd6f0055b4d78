# SPDX-License-Identifier: Apache-2.0
"""Big payloads, compared byte by byte: what GSO and GRO make of a stream passes both hooks unharmed."""

import os
import socket

import pytest
from lib import traffic
from lib.documents import DENY_IN, policy, rule

SIZE = 100 << 20


@pytest.fixture
def up(guarded):
    guarded.policy(policy(ingress=[rule("allow", "TCP", 7650, 7659), rule("allow", "UDP", 7650)], default=DENY_IN))
    return guarded


def test_stream_both_ways(up, family):
    c, s = traffic.accept_pair(up.client, up.server, up.server_address(family), 7650)
    for sender, receiver in ((c, s), (s, c)):
        sent, got = traffic.transfer(sender, receiver, SIZE)
        assert sent == got
    c.close()
    s.close()


def test_one_send_of_more_than_60_kilobytes(up, family):
    with traffic.Servers(up.server, tcp=[7651]):
        c = traffic.connect(up.client, up.server_address(family), 7651)
        assert traffic.roundtrip(c, os.urandom(65000))
        c.close()


def test_connection_that_the_host_opens(up, family):
    c, s = traffic.accept_pair(up.server, up.client, up.client_address(family), 7652)
    for sender, receiver in ((c, s), (s, c)):
        sent, got = traffic.transfer(sender, receiver, 20 << 20)
        assert sent == got
    c.close()
    s.close()


def test_udp_segmentation_offload(up, family):
    """UDP_SEGMENT: one send of many datagrams, cut up by the kernel behind the egress hook."""
    target = up.server_address(family)
    kind = traffic.family_of(target)
    with up.server.socket(kind, socket.SOCK_DGRAM) as s, up.client.socket(kind, socket.SOCK_DGRAM) as c:
        s.bind((target, 7650))
        s.settimeout(2)
        c.connect((target, 7650))
        c.setsockopt(socket.IPPROTO_UDP, 103, 1000)
        data = os.urandom(40000)
        c.send(data)
        got = [s.recv(2000) for _ in range(40)]
        assert b"".join(got) == data
        # and back, through the host's egress
        peer = c.getsockname()[:2]
        s.setsockopt(socket.IPPROTO_UDP, 103, 1000)
        s.sendto(data, peer)
        c.settimeout(2)
        assert b"".join(c.recv(2000) for _ in range(40)) == data


def test_jumbo_frames(fresh, family):
    up = fresh(mtu=9000, docs=[policy(ingress=[rule("allow", "TCP", 7650)], default=DENY_IN)])
    c, s = traffic.accept_pair(up.client, up.server, up.server_address(family), 7650)
    for sender, receiver in ((c, s), (s, c)):
        sent, got = traffic.transfer(sender, receiver, 20 << 20)
        assert sent == got
    c.close()
    s.close()
