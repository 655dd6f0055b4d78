# SPDX-License-Identifier: Apache-2.0
"""`heddle preview`: which live flows a policy would cut. What it says is what then happens; and it changes nothing."""

import contextlib

import pytest
from lib import documents as doc
from lib import traffic
from lib.documents import DENY_IN, group, policy, rule
from lib.heddled import ApiError, wait_for
from lib.netns import Routed
from lib.ports import PortHost

PORT, OTHER = 7700, 7701


@pytest.fixture
def up(guarded):
    return guarded


def preview(up, *docs):
    """Of connections that are open: those of earlier tests leave flows behind."""
    items = up.daemon.json("preview", "-f", "-", input=doc.text(*docs))["items"]
    return [i for i in items if i["state"] not in ("closed", "fin-originator", "fin-responder") and i["idleMs"] < 5000]


def tcp(items):
    return [i for i in items if i["protocol"] == "TCP"]


def alive(pair):
    client, server = pair
    client.settimeout(1)
    server.settimeout(1)
    for sender, receiver in ((client, server), (server, client)):
        try:
            sender.sendall(b"still here?")
            if receiver.recv(100) != b"still here?":
                return False
        except OSError:
            return False
    return True


@contextlib.contextmanager
def connections(up, family, *ports):
    pairs = [traffic.accept_pair(up.client, up.server, up.server_address(family), port) for port in ports]
    try:
        for client, server in pairs:
            assert alive((client, server))
        for port in ports:
            wait_for(lambda port=port: up.daemon.flows(destinationPort=port, state="established"), what="flow")
        yield pairs
    finally:
        for pair in pairs:
            for end in pair:
                end.close()
        wait_for(lambda: not any(up.daemon.flows(destinationPort=port, state="established") for port in ports), what="the end of the flows")


def test_it_says_what_then_happens(up, family):
    up.policy(policy(ingress=[rule("allow", "TCP", PORT, OTHER, name="both")], default=DENY_IN))
    candidate = policy(ingress=[rule("deny", "TCP", PORT, name="shut"), rule("allow", "TCP", OTHER, name="open")], default=DENY_IN)
    with connections(up, family, PORT, OTHER) as pairs:
        generation, denied = up.daemon.status()["generation"], up.daemon.drops().get(("policy-deny", "ingress"))
        flows = up.daemon.flows(destinationPort=PORT)
        (item,) = preview(up, candidate)
        assert (item["now"], item["then"], item["audit"]) == ("allow", "deny", False)
        assert (item["source"], item["sourcePort"]) == (up.client_address(family), pairs[0][0].getsockname()[1])
        assert (item["destination"], item["destinationPort"]) == (up.server_address(family), PORT)
        assert (item["protocol"], item["state"], item["network"]) == ("TCP", "established", "host")
        assert (item["rule"]["policy"], item["rule"]["name"], item["rule"]["index"], item["rule"]["id"]) == ("base", "shut", 0, None)
        assert (item["nowRule"]["name"], item["nowRule"]["index"]) == ("both", 0)
        # nothing has changed
        assert up.daemon.status()["generation"] == generation
        assert up.daemon.drops().get(("policy-deny", "ingress")) == denied
        assert [f["packets"] for f in up.daemon.flows(destinationPort=PORT)] == [f["packets"] for f in flows]
        assert all(alive(pair) for pair in pairs)
        assert preview(up) == []
        up.policy(candidate)
        assert [alive(pair) for pair in pairs] == [False, True]


def test_other_protocols_and_directions(up, family):
    target, client = up.server_address(family), up.client_address(family)
    port = 7702 + family
    up.policy(policy(ingress=[rule("allow", "UDP", port, name="udp"), rule("allow", name="rest")]))
    with traffic.Servers(up.server, udp=[port]), traffic.Servers(up.client, udp=[OTHER]):
        traffic.expect_udp(up.client, target, port, "reply")
        traffic.expect_udp(up.server, client, OTHER, "reply")
        assert traffic.ping(up.client, target, 2)
        echo = [{"type": 8}] if family == 4 else [{"type": 128, "family": "IPv6"}]
        items = preview(up, policy(ingress=[rule("reject", "UDP", port, name="udp"), rule("deny", name="echo", icmp=echo)],
                                   egress=[rule("deny", "UDP", OTHER, name="out", direction="egress")]))
    found = {(i["protocol"], i["direction"], i["destinationPort"]): i for i in items
             if i["source"] in (target, client) and i["destination"] in (target, client)}
    ping = ("ICMP" if family == 4 else "ICMPV6", "ingress", 0)
    assert {k: (i["then"], i["rule"]["name"]) for k, i in found.items()} == {
        ("UDP", "ingress", port): ("reject", "udp"),
        ("UDP", "egress", OTHER): ("deny", "out"),
        ping: ("deny", "echo"),
    }


def test_a_flow_that_is_no_longer_wanted(up):
    """It lives until its next packet: a policy that wants it again would let it be."""
    allow = policy(ingress=[rule("allow", "TCP", PORT, name="web")], default=DENY_IN)
    up.policy(allow)
    with connections(up, 4, PORT) as (pair,):
        up.policy(policy(ingress=[], default=DENY_IN))
        (item,) = preview(up, allow)
        assert (item["now"], item["then"], item["rule"]["name"]) == ("deny", "allow", "web")
        assert item["nowRule"]["name"] == "default-ingress"
        up.policy(allow)
        assert alive(pair)


def test_audit_cuts_nothing(up):
    up.policy(policy(ingress=[rule("allow", "TCP", PORT)], default=DENY_IN))
    with connections(up, 4, PORT):
        assert tcp(preview(up, policy(ingress=[rule("deny", "TCP", PORT)], audit=True))) == []


def test_groups_and_unguarded(up):
    """A change of a group, and of the Host."""
    up.policy(group("friends", up.client4 + "/32"), policy(ingress=[rule("allow", "TCP", PORT, peers=["friends"], name="friends")], default=DENY_IN))
    with connections(up, 4, PORT):
        (item,) = tcp(preview(up, group("friends", "198.51.100.0/24")))
        assert (item["then"], item["rule"]["policy"], item["rule"]["name"]) == ("deny", "builtin", "default-ingress")
        assert tcp(preview(up, group("friends", "0.0.0.0/0"))) == []
        # the Host is a file's: it can be looked at all the same
        assert tcp(preview(up, doc.host("other0", "off"), group("friends", "198.51.100.0/24"))) == []


def test_refused(up):
    up.policy(policy(ingress=[rule("allow", "TCP", PORT)]))
    with pytest.raises(ApiError) as refused:
        up.daemon.api.post("/v1/preview", doc.text(policy(ingress=[rule("allow", "TCP", 70000)])))
    assert refused.value.status == 400 and "70000" in refused.value.body
    result = up.daemon.cli("preview", "-f", "-", check=False, input=doc.text(policy(ingress=[rule("allow", peers=["nobody"])])))
    assert result.returncode == 1 and "nobody" in result.stderr


def test_forwarded_flows(plain):
    """Under forward: pass nothing changes for them; forward: judge would."""
    up = plain(topology=Routed, docs=[policy(ingress=[rule("allow", "TCP", PORT)], default=DENY_IN)])
    candidate = policy(ingress=[rule("deny", name="all")], default=DENY_IN)
    pair = traffic.accept_pair(up.client, up.inside, up.inner.b4, PORT)
    try:
        assert alive(pair)
        assert wait_for(lambda: up.daemon.flows(destinationPort=PORT), what="flow")[0]["forwarded"]
        assert preview(up, candidate) == []
        judged = {**up.host_document, "spec": {**up.host_document["spec"], "forward": "judge"}}
        (item,) = preview(up, judged, candidate)
        assert (item["now"], item["then"], item["rule"]["name"], item["nowRule"]["name"]) == ("allow", "deny", "all", "forward")
        assert preview(up, judged) == []
    finally:
        for end in pair:
            end.close()


# --- between ports ---


def netpol(name, selected, **spec):
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name},
            "spec": {"podSelector": {"matchLabels": {"app": selected}}, **spec}}


def allow_from(app, port):
    return {"from": [{"podSelector": {"matchLabels": {"app": app}}}], "ports": [{"protocol": "TCP", "port": port}]}


def test_between_ports():
    """Of two ports either policy can cut; the host's own traffic to its ports is nobody's."""
    with PortHost() as up:
        web, db = up.add(2)
        documents = [doc.network("blue", subnets=["10.77.0.0/24"], gateway=["10.77.0.254"], routesTo=["host"])]
        for workload, name, address in ((web, "web", "10.77.0.1"), (db, "db", "10.77.0.2")):
            workload.address(address + "/24")
            documents.append(doc.port(name, workload.device, "blue", labels={"app": name}, addresses=[address]))
        up.daemon.apply(*documents)
        up.wait_port("web"), up.wait_port("db")
        up.ns.ip("addr add 10.77.0.254/32 dev lo")
        pair = traffic.accept_pair(web.ns, db.ns, "10.77.0.2", PORT)
        own = traffic.accept_pair(up.ns, db.ns, "10.77.0.2", OTHER)
        try:
            assert alive(pair) and alive(own)
            assert preview(up, netpol("db", "db", ingress=[allow_from("web", PORT)])) == []
            for candidate in (netpol("db", "db", ingress=[allow_from("web", OTHER)]), netpol("db", "db", ingress=[allow_from("etc", PORT)]),
                              netpol("web", "web", policyTypes=["Egress"])):
                (item,) = preview(up, candidate)
                assert (item["now"], item["then"]) == ("allow", "deny")
                assert (item["network"], item["source"], item["destination"], item["destinationPort"]) == ("blue", "10.77.0.1", "10.77.0.2", PORT)
                assert (item["rule"]["policy"], item["rule"]["name"]) == ("builtin", "isolated")
            candidate["metadata"]["annotations"] = {"heddle.dev/audit": "true"}
            assert preview(up, candidate) == []
            del candidate["metadata"]["annotations"]
            # a port of another network is not there for this one any more
            (item,) = [i for i in preview(up, doc.port("web", "other0", "blue", labels={"app": "web"}, addresses=["10.77.0.1"])) if i["source"] == "10.77.0.1"]
            assert (item["then"], item["rule"]) == ("drop", None)
            with pytest.raises(ApiError) as refused:
                up.daemon.api.post("/v1/preview", doc.text(doc.port("twice", "x0", "blue", addresses=["10.77.0.1"])))
            assert refused.value.status == 400
            up.daemon.apply(candidate)
            assert not alive(pair) and alive(own)
        finally:
            for end in (*pair, *own):
                end.close()
