# SPDX-License-Identifier: Apache-2.0
"""Pods of two nodes that find each other by what the API server says, and policy that comes from there."""

import pytest
from lib import apiserver as api
from lib import documents as doc
from lib.heddled import ApiError, wait_for
from lib.traffic import Servers, expect_tcp
from runtime import CniError


def deny_all_but(label, port=None):
    rule = {"from": [{"podSelector": {"matchLabels": {"app": label}}}]}
    if port:
        rule["ports"] = [{"port": port}]
    return api.network_policy("only", podSelector={"matchLabels": {"app": "db"}}, policyTypes=["Ingress"], ingress=[rule])


def test_pods_reach_each_other_and_policy_holds(cluster):
    one, two = cluster.nodes
    web, other = cluster.pod(one, "web", {"app": "web"}), cluster.pod(one, "other", {"app": "other"})
    db = cluster.pod(two, "db", {"app": "db"}, ports=[("sql", 8080)])
    assert web.ip.startswith("10.77.1.") and db.ip.startswith("10.77.2."), "from the nodes' own podCIDRs"
    assert db.container.address(6).startswith("fd77:0:0:2:")
    with Servers(db.ns, tcp=[8080, 8081]):
        for client in (web, other):
            for ip in (db.ip, db.container.address(6)):
                expect_tcp(client.ns, ip, 8080, "open")
        cluster.server.put(deny_all_but("web", "sql"))
        wait_for(lambda: cluster.names(two, "networkpolicy") == ["only"], what="the policy")
        expect_tcp(web.ns, db.ip, 8080, "open")
        expect_tcp(web.ns, db.ip, 8081, "timeout")
        expect_tcp(other.ns, db.ip, 8080, "timeout")
        expect_tcp(other.ns, db.container.address(6), 8080, "timeout")
        # a Pod's labels change under it
        other.labels = {"app": "web"}
        cluster.server.put(other.document())
        wait_for(lambda: cluster.peer_ports(two, "node-1")["other"]["labels"] == {"app": "web"}, what="the label")
        expect_tcp(other.ns, db.ip, 8080, "open")
        # and the policy's own: it holds for local Ports by their Pod's labels
        db.labels = {"app": "cache"}
        cluster.server.put(db.document())
        wait_for(lambda: any(p["metadata"]["labels"].get("app") == "cache" for p in two.daemon.api.get("/v1/objects/port")["items"]),
                 what="the label")
        expect_tcp(web.ns, db.ip, 8081, "open")
        cluster.server.delete("NetworkPolicy", "only", "default")
        wait_for(lambda: cluster.names(two, "networkpolicy") == [], what="the policy is gone")


def test_a_pod_that_the_watch_does_not_know_waits(cluster):
    """It would be connected without the policy for its labels. The runtime tries again."""
    one = cluster.nodes[0]
    from cluster import Pod
    from runtime import Container

    pod = Pod(one, "late", Container(), {}, (), "default")
    cluster.stack.callback(pod.container.close)
    with pytest.raises(CniError) as caught:
        cluster.add(pod)
    assert caught.value.code == 11 and "labels" in caught.value.msg
    cluster.server.put(pod.document(phase="Pending"))
    wait_for(lambda: cluster.status(one)["kinds"][2]["objects"] == 1, what="the Pod")
    cluster.add(pod)


def test_bandwidth_of_pods(cluster):
    """What the runtime passes counts, direction by direction; elsewhere the Pod's annotations, also when they change."""
    one = cluster.nodes[0]
    told, annotated = cluster.pod(one, "told"), cluster.pod(one, "annotated")
    cluster.runtime(one).delete(told.container)
    args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=told"
    cluster.runtime(one).add(told.container, args=args, runtime_config={"bandwidth": {"ingressRate": 3000000, "ingressBurst": 4294967295}})

    def annotate(pod, ingress, egress):
        document = pod.document()
        for key, value in (("ingress", ingress), ("egress", egress)):
            if value:
                document["metadata"]["annotations"][f"kubernetes.io/{key}-bandwidth"] = value
        cluster.server.put(document)

    def rates(pod):
        (port,) = [p for p in one.daemon.status()["ports"] if p["name"].startswith(pod.name)]
        return {way: limit["rate"] for way, limit in (port["bandwidth"] or {}).items() if limit}

    annotate(told, "10M", "1.5M")
    annotate(annotated, "10M", None)
    wait_for(lambda: rates(annotated) == {"ingress": 10000000}, what="the annotation")
    wait_for(lambda: rates(told) == {"ingress": 3000000, "egress": 1500000}, what="the other direction's")
    annotate(annotated, "20M", "fast")
    wait_for(lambda: rates(annotated) == {"ingress": 20000000}, what="the new one")
    assert "kubernetes.io/egress-bandwidth: want bits a second from 1k to 4T, such as 10M, got fast" in one.daemon.log()
    annotate(annotated, None, None)
    wait_for(lambda: rates(annotated) == {}, what="no annotation, no rate")


def test_what_counts_of_pods_and_nodes(cluster):
    one, two = cluster.nodes
    server = cluster.server
    server.put(
        api.pod("plain", "node-2", ["10.77.2.9"], labels={"a": "b"}, ports=[("http", 80)]),
        api.pod("host", "node-2", [two.address], hostNetwork=True),
        api.pod("done", "node-2", ["10.77.2.10"], phase="Succeeded"),
        api.pod("elsewhere", "node-2", ["192.0.2.1"]),
        api.pod("unplaced"),
        api.pod("nowhere", "node-9", ["10.77.9.1"]),
        api.node("node-3", "2001:db8::1", "10.77.3.0/24", **{"heddle.dev/tunnel-address": "192.0.2.33"}),
        api.node("node-4", "2001:db8::2", "10.77.4.0/24"),
    )
    wait_for(lambda: "node-3" in cluster.names(one, "peer"), what="node-3")
    assert cluster.names(one, "peer") == ["node-2", "node-3"] and cluster.names(two, "peer") == ["node-1", "node-3"]
    ports = cluster.peer_ports(one, "node-2")
    assert list(ports) == ["plain"]
    assert ports["plain"]["labels"] == {"a": "b"} and ports["plain"]["ports"] == [{"name": "http", "protocol": "TCP", "port": 80}]
    spec = [p for p in one.daemon.api.get("/v1/objects/peer")["items"] if p["metadata"]["name"] == "node-3"][0]["spec"]
    assert spec["address"] == "192.0.2.33" and [p["cidr"] for p in spec["prefixes"]] == ["10.77.3.0/24"]
    # an address goes to the Pod that has it now
    server.put(api.pod("newer", "node-3", ["10.77.2.9"]))
    wait_for(lambda: "newer" in cluster.peer_ports(one, "node-3") and not cluster.peer_ports(one, "node-2"), what="newer has it")
    server.delete("Pod", "newer", "default")
    wait_for(lambda: "plain" in cluster.peer_ports(one, "node-2"), what="plain has it again")
    server.put(api.pod("plain", "node-2", ["10.77.2.9"], phase="Failed"))
    wait_for(lambda: not cluster.peer_ports(one, "node-2"), what="plain is done")
    server.delete("Node", "node-3")
    wait_for(lambda: cluster.names(one, "peer") == ["node-2"], what="node-3 is gone")


def test_rules_say_that_they_are_the_clusters(cluster):
    """What nobody finds in a file, and nobody applied: where a rule can be changed is part of the answer, wherever one is shown."""
    two = cluster.nodes[1]
    db = cluster.pod(two, "db", {"app": "db"})
    cluster.server.put(deny_all_but("web", 8080))
    two.daemon.apply(api.network_policy("own", podSelector={"matchLabels": {"app": "db"}}, policyTypes=["Ingress"],
                                        ingress=[{"from": [{"ipBlock": {"cidr": "192.0.2.7/32"}}]}, {"from": [{"ipBlock": {"cidr": "192.0.2.7/32"}}]}]))
    two.daemon.write("20-filed.yaml", api.network_policy("filed", podSelector={"matchLabels": {"app": "db"}}, policyTypes=["Egress"],
                                                         egress=[{"to": [{"ipBlock": {"cidr": "192.0.2.8/32"}}]}]))
    web = cluster.pod(two, "web", {"app": "web"})
    wait_for(lambda: cluster.names(two, "networkpolicy") == ["filed", "only", "own"], what="the policies")
    of = {r["policy"]: r for r in two.daemon.rules() if r["policy"] != "builtin"}
    assert {name: r["source"] for name, r in of.items()} == {"filed": "file", "only": "kubernetes", "own": "api"}
    assert not any("source" in r for r in two.daemon.rules() if r["policy"] == "builtin")
    shown = {line.split()[0]: line.split()[-1] for line in two.daemon.cli("rules").stdout.splitlines()[1:]}
    assert shown["default/only"] == "kubernetes" and shown["default/own"] == "applied" and "20-filed.yaml:" in shown["default/filed"]
    argv = ("explain", "--from", web.ip, "--to", db.ip, "--protocol", "tcp", "--dport", "8080")
    answer = two.daemon.json(*argv)
    (rule,) = [r for r in answer["rules"] if r["direction"] == "ingress"]
    assert rule["policy"] == "only" and rule["source"] == "kubernetes" and rule["file"] is None, answer
    assert any("only.spec.ingress[0] (kubernetes)" in step.get("text", "") for step in answer["path"]), answer["path"]
    text = two.daemon.cli(*argv).stdout
    assert "kubernetes" in text and "applied" not in text
    (twice,) = [f for f in two.daemon.json("policy", "lint")["items"] if f["policy"] == "own"]
    assert twice["rule"]["source"] == "api"


def test_what_others_own_and_what_is_bad(cluster):
    """A file's object comes first; the cluster's cannot be changed here; a bad one is left out, or stays what it was."""
    one, server = cluster.nodes[0], cluster.server
    one.daemon.write("20-own.yaml", {**api.network_policy("both", policyTypes=["Egress"])})
    server.put(api.network_policy("both"), api.network_policy("theirs"), api.namespace("blue", team="a"))
    server.put(api.network_policy("bad", ingress=[{"unheard": "of"}]), {**api.pod("bad one!", "node-2", ["10.77.2.7"])})
    server.put(api.pod("good", "node-2", ["10.77.2.8"]))
    wait_for(lambda: "good" in cluster.peer_ports(one, "node-2"), what="the good Pod")
    wait_for(lambda: cluster.names(one, "networkpolicy") == ["both", "theirs"], what="policies")
    assert one.daemon.api.get("/v1/objects/networkpolicy/both?namespace=default")["spec"]["policyTypes"] == ["Egress"]
    kinds = {k["kind"]: k for k in cluster.status(one)["kinds"]}
    assert kinds["NetworkPolicy"]["leftOut"] == 1 and kinds["Pod"]["leftOut"] == 1
    with pytest.raises(ApiError) as caught:
        one.daemon.apply(api.network_policy("theirs", policyTypes=["Egress"]))
    assert "the cluster owns the object" in caught.value.body and "of the cluster" in caught.value.body
    server.put(api.network_policy("theirs", ingress=[{"unheard": "of"}]))
    wait_for(lambda: {k["kind"]: k for k in cluster.status(one)["kinds"]}["NetworkPolicy"]["leftOut"] == 2, what="it is seen")
    assert cluster.names(one, "networkpolicy") == ["both", "theirs"]
    # in the way of a document here
    one.daemon.apply(doc.document("Peer", "mine", {"address": "192.0.2.44"}))
    server.put(api.node("node-5", "192.0.2.44"), api.node("node-6", "192.0.2.46"))
    wait_for(lambda: "node-6" in cluster.names(one, "peer"), what="node-6")
    assert cluster.names(one, "peer") == ["mine", "node-2", "node-6"]
    one.daemon.api.delete("/v1/objects/peer/mine")
    wait_for(lambda: cluster.names(one, "peer") == ["node-2", "node-5", "node-6"], what="node-5")
