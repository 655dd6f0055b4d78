# SPDX-License-Identifier: Apache-2.0
"""A HostPolicy in audit mode: what it would drop passes, and is reported with the rule that would have dropped it."""

import pytest
from lib import traffic
from lib.documents import DENY_IN, policy, rule, text
from lib.traffic import expect_tcp, expect_udp, ping
from test_observe import Monitor

TCP, UDP, OTHER = 7750, 7751, 7752


@pytest.fixture
def up(guarded):
    with traffic.Servers(guarded.server, tcp=[TCP, OTHER], udp=[UDP]):
        yield guarded


def audited(event):
    return event["type"], event["verdict"], event["audit"], event["reason"]


def test_deny_and_reject_pass_and_are_told(up, family):
    source, target = up.client_address(family), up.server_address(family)
    up.policy(policy("trial", audit=True, ingress=[rule("reject", "TCP", TCP, name="no-tcp"), rule("deny", "UDP", UDP, name="no-udp")]))
    with Monitor(up.daemon) as monitor:
        expect_tcp(up.client, target, TCP, "open", sport=4750 + family)
        event = monitor.find(destinationPort=TCP, sourcePort=4750 + family)
        assert audited(event) == ("log", "allow", True, "policy-reject")
        assert (event["rule"]["policy"], event["rule"]["name"], event["rule"]["index"]) == ("trial", "no-tcp", 0)
        assert (event["source"], event["destination"], event["direction"], event["device"]) == (source, target, "ingress", "up0")
        expect_udp(up.client, target, UDP, "reply", sport=4760 + family)
        event = monitor.find(destinationPort=UDP, sourcePort=4760 + family)
        assert audited(event) == ("log", "allow", True, "policy-deny") and event["rule"]["name"] == "no-udp"
        expect_tcp(up.client, target, OTHER, "open")
        event = monitor.find(destinationPort=OTHER)
        assert audited(event) == ("flow", "allow", False, "none")
    # each packet counts for the rule; nothing counts as dropped
    assert up.daemon.rule_packets("trial", "no-tcp") >= 3 and up.daemon.rule_packets("trial", "no-udp") >= 2
    (flow,) = up.daemon.flows(destinationPort=UDP, sourcePort=4760 + family)
    assert flow["rule"]["name"] == "no-udp" and flow["state"] == "udp-replied"


def test_it_is_no_drop(up):
    up.policy(policy("trial", audit=True, ingress=[rule("deny", "UDP", UDP, name="no-udp"), rule("deny", "UDP", UDP + 100)]))
    before = up.daemon.drops().get(("policy-deny", "ingress"), 0)
    with Monitor(up.daemon, "--drops") as monitor:
        expect_udp(up.client, up.server4, UDP, "reply")
        up.policy(policy("real", ingress=[rule("deny", "UDP", UDP + 100, name="real")]))
        expect_udp(up.client, up.server4, UDP + 100, "timeout")
        assert monitor.find(destinationPort=UDP + 100)["rule"]["name"] == "real"
        assert monitor.lines.empty()
    assert up.daemon.drops()[("policy-deny", "ingress")] == before + 1


def test_default_and_egress(up, family):
    up.policy(policy("trial", audit=True, ingress=[], egress=[rule("deny", name="silent", direction="egress")], default=DENY_IN))
    with Monitor(up.daemon) as monitor:
        assert ping(up.client, up.server_address(family), 2)
        event = monitor.find(verdict="allow", direction="ingress", protocol="ICMP" if family == 4 else "ICMPV6", icmpType=8 if family == 4 else 128)
        assert audited(event) == ("log", "allow", True, "policy-deny") and event["rule"]["name"] == "default-ingress"
        with traffic.Servers(up.client, tcp=[TCP]):
            expect_tcp(up.server, up.client_address(family), TCP, "open")
        event = monitor.find(direction="egress", destinationPort=TCP)
        assert audited(event) == ("log", "allow", True, "policy-deny") and event["rule"]["name"] == "silent"


def test_its_order_is_what_it_will_be(up):
    """A rule in audit mode decides as any other: what it would drop passes even where a later policy drops it. The others are enforced."""
    up.policy(policy("a", priority=1, audit=True, ingress=[rule("deny", "TCP", TCP, name="trial")]),
              policy("b", priority=2, ingress=[rule("deny", "TCP", TCP, name="later"), rule("deny", "TCP", OTHER, name="real")]))
    expect_tcp(up.client, up.server4, TCP, "open")
    expect_tcp(up.client, up.server4, OTHER, "timeout")
    # enforced from now on: the flow is judged again
    c, s = traffic.accept_pair(up.client, up.server, up.server4, OTHER + 10)
    with c, s:
        deny = [rule("deny", "TCP", OTHER + 10, name="trial")]
        up.policy(policy("a", audit=True, ingress=deny))
        assert up.daemon.json("preview", "-f", "-", input=text(policy("a", audit=False, ingress=deny)))["items"]
        c.sendall(b"x")
        s.settimeout(2)
        assert s.recv(10) == b"x"
        up.policy(policy("a", ingress=deny))
        c.sendall(b"y")
        s.settimeout(1)
        with pytest.raises(OSError):
            s.recv(10)
