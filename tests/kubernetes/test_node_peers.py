# SPDX-License-Identifier: Apache-2.0
"""Policies whose peers are Nodes: by labels that change, and all addresses of a Node; the Pods' own node is one of them."""

import pytest
from cluster import Cluster, cidrs_of
from lib import apiserver as api
from lib.heddled import wait_for
from lib.nat import WhoAmI, ask, ask_patiently

POLICY = "policy.networking.k8s.io"
DB = {"nodes": {"matchLabels": {"role": "db"}}}
EVERY = {"namespaces": {}}


def admin(name, *egress):
    return {"apiVersion": f"{POLICY}/v1alpha1", "kind": "AdminNetworkPolicy", "metadata": {"name": name},
            "spec": {"priority": 5, "subject": EVERY, "egress": list(egress)}}


def cluster_wide(name, *egress):
    return {"apiVersion": f"{POLICY}/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {"name": name},
            "spec": {"tier": "Admin", "priority": 5, "subject": EVERY, "egress": list(egress)}}


def baseline(*egress):
    return {"apiVersion": f"{POLICY}/v1alpha1", "kind": "BaselineAdminNetworkPolicy", "metadata": {"name": "default"},
            "spec": {"subject": EVERY, "egress": list(egress)}}


class Ends:
    """A Pod on node-1, and who answers at both nodes' own addresses."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.pod = cluster.pod(cluster.nodes[0], "client")

    def label(self, number, **labels):
        node = self.cluster.nodes[number - 1]
        addresses = [self.cluster.fabric.address(number, family) for family in (4, 6)]
        self.cluster.server.put(api.node(node.name, addresses, *cidrs_of(number), labels=labels))

    def reaches(self, number, family=4, timeout=0.5):
        return ask(self.pod.ns, self.cluster.fabric.address(number, family), 9000, timeout=timeout) is not None

    def wait(self, *wanted):
        """Whether node-1 and node-2 can be reached, by either family."""
        for family in (4, 6):
            for number, open_ in enumerate(wanted, 1):
                wait_for(lambda n=number, f=family, o=open_: self.reaches(n, f) == o, 15, what=f"node-{number} by IPv{family}: {open_}")


@pytest.fixture
def ends():
    with Cluster(to_host=True, absent=()) as cluster:
        with WhoAmI(cluster.nodes[0].ns, 9000), WhoAmI(cluster.nodes[1].ns, 9000):
            ends = Ends(cluster)
            for number in (1, 2):
                for family in (4, 6):
                    assert ask_patiently(ends.pod.ns, cluster.fabric.address(number, family), 9000)
            yield ends


@pytest.mark.parametrize("make", [lambda *rules: admin("a", *rules), lambda *rules: cluster_wide("a", *rules), baseline], ids=["admin", "cluster", "baseline"])
def test_nodes_are_selected_by_their_labels(ends, make):
    ends.label(2, role="db")
    ends.cluster.server.put(make({"action": "Deny", "to": [DB]}))
    ends.wait(True, False)
    # labels of Nodes change, and not the policy
    ends.label(1, role="db")
    ends.wait(False, False)
    ends.label(2, role="web")
    ends.wait(False, True)
    ends.label(1)
    ends.wait(True, True)


def test_what_it_knew_outlives_the_server_and_the_agent(ends):
    one, server = ends.cluster.nodes[0], ends.cluster.server
    server.put(admin("a", {"action": "Allow", "to": [DB], "ports": [{"portNumber": {"protocol": "TCP", "port": 9000}}]},
                     {"action": "Deny", "to": [{"networks": ["0.0.0.0/0", "::/0"]}]}))
    ends.label(2, role="db")
    ends.wait(False, True)
    (host,) = one.daemon.api.get("/v1/objects/host")["items"]
    assert host["metadata"]["labels"]["kubernetes.io/hostname"] == "node-1"
    assert host["spec"].get("addresses") == [ends.cluster.fabric.address(1, 6)]
    listening = server.down()
    one.daemon.stop()
    one.daemon.start()
    ends.wait(False, True)
    for namespace in listening:
        server.listen(namespace)
    ends.cluster.wait_synced(one, 30)
    # the Node goes, and with it who it was
    server.delete("Node", "node-2")
    ends.wait(False, False)
    ends.label(2, role="db")
    ends.wait(False, True)
