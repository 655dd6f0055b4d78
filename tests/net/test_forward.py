# SPDX-License-Identifier: Apache-2.0
"""A guarded router: Host.spec.forward pass and judge, errors that the router itself sends, PMTU."""

import errno
import socket

import pytest
from lib import raw, traffic
from lib.documents import DENY_ALL, DENY_IN, policy, rule
from lib.fixtures import Guarded
from lib.netns import Routed
from lib.traffic import expect_tcp, expect_udp


@pytest.fixture
def router(main_backend):
    hosts = []

    def make(forward, *docs, inside_mtu=1500):
        g = Guarded(main_backend, topology=Routed, host_spec={"forward": forward}, docs=docs, inside_mtu=inside_mtu)
        hosts.append(g)
        return g

    yield make
    for g in hosts:
        g.close()


def inside(up, family):
    return up.inner.b4 if family == 4 else up.inner.b6


def client(up, family):
    return up.outer.a4 if family == 4 else up.outer.a6


def test_forward_pass_leaves_routed_traffic_alone(router, family):
    up = router("pass", policy(default=DENY_ALL))
    with traffic.Servers(up.inside, tcp=[7700], udp=[7700]), traffic.Servers(up.client, tcp=[7701], udp=[7701]):
        expect_tcp(up.client, inside(up, family), 7700, "open")
        expect_udp(up.client, inside(up, family), 7700, "reply")
        expect_tcp(up.inside, client(up, family), 7701, "open")
        expect_udp(up.inside, client(up, family), 7701, "reply")
        assert traffic.ping(up.client, inside(up, family), 2)
    # the router's own addresses are guarded all the same
    with traffic.Servers(up.router, tcp=[7700]):
        expect_tcp(up.client, up.outer.b4 if family == 4 else up.outer.b6, 7700, "timeout")
        expect_tcp(up.client, up.inner.a4 if family == 4 else up.inner.a6, 7700, "timeout")


def test_forward_judge_applies_the_policy(router, family):
    up = router(
        "judge",
        policy(ingress=[rule("allow", "TCP", 7700)], egress=[rule("allow", "UDP", 7701)], default=DENY_ALL),
    )
    with traffic.Servers(up.inside, tcp=[7700, 7702], udp=[7700]), traffic.Servers(up.client, tcp=[7701], udp=[7701]):
        expect_tcp(up.client, inside(up, family), 7700, "open")
        expect_tcp(up.client, inside(up, family), 7702, "timeout")
        expect_udp(up.client, inside(up, family), 7700, "timeout")
        expect_udp(up.inside, client(up, family), 7701, "reply")
        expect_tcp(up.inside, client(up, family), 7701, "timeout")


def test_bulk_through_the_router(router, family):
    up = router("pass", policy(default=DENY_ALL))
    c, s = traffic.accept_pair(up.client, up.inside, inside(up, family), 7703)
    for sender, receiver in ((c, s), (s, c)):
        sent, got = traffic.transfer(sender, receiver, 20 << 20)
        assert sent == got
    c.close()
    s.close()


@pytest.mark.parametrize("forward", ["pass", "judge"])
def test_packet_too_big_reaches_the_sender(router, family, forward):
    """The inner link is narrower: the router's ICMP error must pass its own egress hook, though nothing allows ICMP."""
    up = router(forward, policy(ingress=[rule("allow", "TCP", 7704)], default=DENY_ALL), inside_mtu=1300)
    c, s = traffic.accept_pair(up.client, up.inside, inside(up, family), 7704)
    sent, got = traffic.transfer(c, s, 1 << 20, timeout=10)
    assert sent == got
    c.close()
    s.close()


@pytest.mark.parametrize("forward", ["pass", "judge"])
def test_traceroute_step(router, family, forward):
    """Hop limit 1: the router's time-exceeded comes back to the client's socket."""
    up = router(forward, policy(ingress=[rule("allow", "UDP", 33434)], default=DENY_IN))
    with up.client.socket(traffic.family_of(inside(up, family)), socket.SOCK_DGRAM) as s:
        if family == 4:
            s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
        else:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)
        s.setsockopt(socket.IPPROTO_IP if family == 4 else socket.IPPROTO_IPV6, 11 if family == 4 else 25, 1)  # *_RECVERR
        s.connect((inside(up, family), 33434))
        s.settimeout(2)
        s.send(b"how far")
        with pytest.raises(OSError) as error:
            s.recv(100)
        assert error.value.errno == errno.EHOSTUNREACH


def test_unreachable_from_inside_comes_back(router, family):
    """`forward: pass`: an ICMP error of the inner host about a forwarded flow is forwarded too."""
    up = router("pass", policy(default=DENY_ALL))
    expect_udp(up.client, inside(up, family), 7799, "refused")
    with raw.Wire(up.client, "wire0"):
        expect_tcp(up.client, inside(up, family), 7799, "refused")
