# SPDX-License-Identifier: Apache-2.0
"""`heddle explain` of ports: which program, both policies' rules, where the packet goes; what it says is what then happens."""

import json

import pytest
from lib import documents as doc
from lib import traffic
from lib.heddled import ApiError
from lib.ports import PortHost
from lib.traffic import Servers, expect_tcp


def netpol(name, selected, namespace="default", **spec):
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name, "namespace": namespace},
            "spec": {"podSelector": {"matchLabels": {"app": selected}}, **spec}}


def peers(app):
    return [{"podSelector": {"matchLabels": {"app": app}}}]


def tcp(port):
    return [{"protocol": "TCP", "port": port}]


@pytest.fixture(scope="module", params=["l2", "l3"])
def up(request):
    """web and db in blue, a port of another namespace in red, which has the same addresses."""
    with PortHost() as host:
        host.web, host.db, host.other = host.add(3)
        docs = [doc.network("blue", mode=request.param, subnets=["10.77.0.0/24", "fd77::/64"], gateway=["10.77.0.254", "fd77::fe"], routesTo=["host"]),
                doc.network("red", mode=request.param, subnets=["10.77.0.0/24"], gateway=["10.77.0.254"])]
        for w, name, number in ((host.web, "web", 1), (host.db, "db", 2)):
            addresses = [f"10.77.0.{number}", f"fd77::{number}"]
            if request.param == "l2":
                w.address(f"{addresses[0]}/24", f"{addresses[1]}/64")
                w.via("10.77.0.254", "fd77::fe")
            else:
                w.address_l3(addresses, ["10.77.0.254", "fd77::fe"])
            docs.append(doc.port(name, w.device, "blue", labels={"app": name}, addresses=addresses))
        docs.append(doc.port("web", host.other.device, "red", namespace="shop", labels={"app": "web"}, addresses=["10.77.0.1"]))
        docs += [netpol("out", "web", policyTypes=["Egress"], egress=[{"to": peers("db"), "ports": tcp(7000)}, {"to": peers("db"), "ports": tcp(7001)}]),
                 netpol("in", "db", ingress=[{"from": peers("etc")}, {"from": peers("web"), "ports": tcp(7000)}])]
        host.daemon.apply(*docs)
        for name in ("web", "db", "shop/web"):
            host.wait_port(name)
        yield host


def explain(up, *argv):
    return up.daemon.json("explain", *argv)


def said(answer):
    """[(direction, port, policy, index or name)]"""
    return [(r["direction"], r["port"], r["policy"], r["name"] if r["policy"] == "builtin" else r["index"]) for r in answer["rules"]]


FROM_WEB = ("--port", "web", "--from", "10.77.0.1", "--to", "10.77.0.2")


def test_both_rules_are_named(up):
    answer = explain(up, *FROM_WEB, "--dport", "7000")
    assert (answer["verdict"], answer["reason"], answer["audit"]) == ("allow", "none", False)
    assert (answer["network"], answer["port"], answer["program"], answer["direction"]) == ("blue", "default/web", "tc_port_in", "egress")
    assert said(answer) == [("egress", "default/web", "out", 0), ("ingress", "default/db", "in", 1)]
    assert answer["rule"]["policy"] == "out"
    delivery = answer["path"][-1]
    assert (delivery["step"], delivery["port"]) == ("delivery", "default/db")
    # denied by the second: it decides, and the first is named too
    answer = explain(up, *FROM_WEB, "--dport", "7001")
    assert (answer["verdict"], answer["reason"], answer["rule"]["name"]) == ("deny", "policy-deny", "isolated")
    assert said(answer) == [("egress", "default/web", "out", 1), ("ingress", "default/db", "builtin", "isolated")]
    # a built-in rule is in no document: those are named that it follows from
    by = [(p["kind"], p["namespace"], p["policy"], p["source"], p["file"]) for p in answer["rules"][1]["isolatedBy"]]
    assert by == [("NetworkPolicy", "default", "in", "api", None)] and "isolatedBy" not in answer["rules"][0]
    assert "    default/db is isolated by default/in, applied\n" in up.daemon.cli("explain", *FROM_WEB, "--dport", "7001").stdout
    # denied by the first: the second is not asked
    answer = explain(up, *FROM_WEB, "--dport", "7002")
    assert (answer["verdict"], said(answer)) == ("deny", [("egress", "default/web", "builtin", "isolated")])
    assert [p["policy"] for p in answer["rules"][0]["isolatedBy"]] == ["out"]
    # and so it is
    with Servers(up.db.ns, tcp=[7000, 7001, 7002]):
        for port, outcome in ((7000, "open"), (7001, "timeout"), (7002, "timeout")):
            expect_tcp(up.web.ns, "10.77.0.2", port, outcome)
    text = up.daemon.cli("explain", *FROM_WEB, "--dport", "7000").stdout
    assert "egress of default/web: default/out#0" in text and "ingress of default/db: default/in#1" in text


def test_the_port_follows_from_the_address(up):
    for argv in (("--from", "fd77::1", "--to", "fd77::2"), ("--network", "blue", "--from", "10.77.0.1", "--to", "10.77.0.2")):
        assert said(explain(up, *argv, "--dport", "7000")) == [("egress", "default/web", "out", 0), ("ingress", "default/db", "in", 1)]
    with pytest.raises(ApiError) as refused:
        up.daemon.api.post("/v1/explain", json.dumps({"from": "10.77.0.1", "to": "10.77.0.2", "dport": 7000}))
    assert "network: want the name of one" in refused.value.body
    # the other network's port of the same address: the destination is not there
    for argv in (("--network", "red"), ("--port", "web", "-n", "shop")):
        answer = explain(up, *argv, "--from", "10.77.0.1", "--to", "10.77.0.2", "--dport", "7000")
        assert (answer["network"], answer["port"]) == ("red", "shop/web")
        assert [r["port"] for r in answer["rules"]] in ([], ["shop/web"])


def test_the_host_and_its_ports(up):
    up.ns.ip("addr add 10.99.0.1/32 dev lo")
    # the host's own
    answer = explain(up, "--from", "10.99.0.1", "--to", "10.77.0.2", "--network", "blue", "--dport", "7003")
    assert (answer["verdict"], answer["program"], answer["rule"]["name"]) == ("allow", "tc_port_out", "node")
    assert said(answer) == [("ingress", "default/db", "builtin", "node")]
    # what it forwards
    answer = explain(up, "--from", "192.0.2.9", "--to", "10.77.0.2", "--network", "blue", "--dport", "7003")
    assert (answer["verdict"], said(answer)) == ("deny", [("ingress", "default/db", "builtin", "isolated")])
    # to the host
    answer = explain(up, "--port", "db", "--from", "10.77.0.2", "--to", "10.99.0.1", "--dport", "7003")
    assert (answer["verdict"], said(answer)) == ("allow", [("egress", "default/db", "builtin", "default-egress")])
    assert "host's stack" in answer["path"][-1]["text"]


def test_replies_and_claims(up):
    answer = explain(up, "--port", "db", "--from", "10.77.0.2", "--to", "10.77.0.1", "--reply", "--sport", "7000", "--dport", "4000")
    assert (answer["verdict"], answer["reason"]) == ("drop", "tcp-no-flow")
    assert answer["rules"] == []
    c, s = traffic.accept_pair(up.web.ns, up.db.ns, "10.77.0.2", 7000)
    with c, s:
        c.sendall(b"x")
        assert s.recv(1) == b"x"
        sport = str(c.getsockname()[1])
        for argv in ((*FROM_WEB, "--dport", "7000", "--sport", sport, "--tcp-flags", "A"),
                     ("--port", "db", "--from", "10.77.0.2", "--to", "10.77.0.1", "--reply", "--sport", "7000", "--dport", sport)):
            answer = explain(up, *argv)
            assert said(answer) == [("egress", "default/web", "out", 0), ("ingress", "default/db", "in", 1)], answer
    answer = explain(up, "--port", "web", "--from", "10.77.0.9", "--to", "10.77.0.2", "--dport", "7000")
    assert (answer["verdict"], answer["reason"]) == ("drop", "source-ip4")


def test_audit(up):
    policy = netpol("in", "db", ingress=[{"from": peers("etc")}, {"from": peers("web"), "ports": tcp(7000)}])
    policy["metadata"]["annotations"] = {"heddle.dev/audit": "true"}
    up.daemon.apply(policy)
    try:
        answer = explain(up, *FROM_WEB, "--dport", "7001")
        assert (answer["verdict"], answer["audit"]) == ("allow", True)
        assert said(answer) == [("egress", "default/web", "out", 1), ("ingress", "default/db", "builtin", "isolated")]
        with Servers(up.db.ns, tcp=[7001]):
            expect_tcp(up.web.ns, "10.77.0.2", 7001, "open")
    finally:
        del policy["metadata"]["annotations"]
        up.daemon.apply(policy)


@pytest.mark.parametrize("request_, mistake", [
    ({"port": "nobody"}, "port: want a Port"),
    ({"port": "web", "network": "red"}, "network: want the network of the port, blue"),
    ({"network": "green"}, "network: want a Network"),
    ({"port": "web", "uplink": "eth0"}, "not both"),
    ({"network": "blue", "from": "10.77.0.200", "to": "10.77.0.201"}, "from: want the address of a port"),
])
def test_refused(up, request_, mistake):
    with pytest.raises(ApiError) as refused:
        up.daemon.api.post("/v1/explain", json.dumps({"from": "10.77.0.1", "to": "10.77.0.2", "dport": 1, **request_}))
    assert mistake in refused.value.body
