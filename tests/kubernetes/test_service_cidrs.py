# SPDX-License-Identifier: Apache-2.0
"""The blocks of Services' addresses, as the cluster says them: of the Network, unless its document says them."""

import json
import os

import kubeproxy
from cluster import PODS, SERVICES, Cluster
from kubeproxy import Service
from lib import apiserver as api
from lib.heddled import wait_for
from lib.nat import WhoAmI, ask, ask_patiently

POLICIES = ("AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "ClusterNetworkPolicy")


def services(node):
    (network,) = node.daemon.api.get("/v1/objects/network")["items"]
    return network["spec"].get("services")


def wait_services(node, wanted):
    wait_for(lambda: services(node) == wanted, 15, what=f"services are {wanted}")


def kind_status(cluster, node):
    return next(k for k in cluster.status(node)["kinds"] if k["kind"] == "ServiceCIDR")


def test_services_of_the_cluster_count_as_those_of_a_document():
    """A Pod's egress policy is about the Pod behind a ClusterIP as soon as the cluster says where these are, and as long as it does."""
    with Cluster(nodes=1, to_host=True, services=None, absent=POLICIES) as cluster:
        one, = cluster.nodes
        assert services(one) is None and kind_status(cluster, one)["state"] == "watching"
        web, client = (cluster.pod(one, name, {"app": name}) for name in ("web", "client"))
        kubeproxy.put(one.ns, [Service("web", "10.96.0.10", 80, [(web.ip, 8080)])])
        cluster.server.put(api.network_policy("out", podSelector={"matchLabels": {"app": "client"}}, policyTypes=["Egress"],
                                              egress=[{"to": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]))
        with WhoAmI(web.ns, 8080):
            wait_for(lambda: cluster.names(one, "networkpolicy") == ["out"], what="the policy")
            assert ask(client.ns, "10.96.0.10", 80, timeout=0.5) is None, "nobody has said that this is a Service's"
            cluster.server.put(api.service_cidr("kubernetes", *SERVICES))
            wait_services(one, SERVICES)
            assert ask_patiently(client.ns, "10.96.0.10", 80) == client.ip
            # more of them, in any order; what lies in another one is nothing new
            cluster.server.put(api.service_cidr("a", "10.112.0.0/16", "10.96.4.0/24"))
            wait_services(one, ["10.96.0.0/12", "fd96::/108", "10.112.0.0/16"])
            one.daemon.restart()
            cluster.wait_synced(one)
            wait_services(one, ["10.96.0.0/12", "fd96::/108", "10.112.0.0/16"])
            assert ask_patiently(client.ns, "10.96.0.10", 80) == client.ip
            # one that cannot be: it is said, and the others' policy stays in force
            cluster.server.put(api.service_cidr("a", "10.77.0.0/16"))
            wait_for(lambda: "Network pods of the cluster is left out" in one.daemon.log(), what="it is said")
            wait_services(one, None)
            assert ask(client.ns, "10.96.0.10", 80, timeout=0.5) is None
            cluster.server.delete("ServiceCIDR", "a")
            wait_services(one, SERVICES)
            assert ask_patiently(client.ns, "10.96.0.10", 80) == client.ip
            cluster.server.delete("ServiceCIDR", "kubernetes")
            wait_services(one, None)
            assert ask(client.ns, "10.96.0.10", 80, timeout=0.5) is None


def test_a_document_is_right():
    with Cluster(nodes=1, to_host=True, services=["10.97.0.0/16"], absent=POLICIES) as cluster:
        one, = cluster.nodes
        cluster.server.put(api.service_cidr("kubernetes", *SERVICES))
        wait_for(lambda: kind_status(cluster, one)["objects"] == 1, what="it is known")
        assert services(one) == ["10.97.0.0/16"]
        for said, wanted in (({"services": []}, []), ({}, SERVICES)):
            one.daemon.write("10-network.yaml", {**PODS, "spec": {**PODS["spec"], "routesTo": ["host"], **said}})
            wait_services(one, wanted)
        # a network that does not lead to the host has no use for them
        one.daemon.write("10-network.yaml", PODS)
        wait_services(one, None)


def test_an_applied_network_can_be_applied_again():
    with Cluster(nodes=1, to_host=True, services=None, absent=POLICIES) as cluster:
        one, = cluster.nodes
        os.unlink(os.path.join(one.daemon.config, "10-network.yaml"))
        routes = {**PODS, "spec": {**PODS["spec"], "routesTo": ["host"]}}
        wait_for(lambda: one.daemon.api.get("/v1/objects/network")["items"] == [], what="no Network")
        one.daemon.apply(routes)
        cluster.server.put(api.service_cidr("kubernetes", *SERVICES))
        wait_services(one, SERVICES)
        one.daemon.apply({**routes, "spec": {**routes["spec"], "mtu": 1400}})
        wait_services(one, SERVICES)
        one.daemon.api.delete("/v1/objects/network/pods")
        wait_for(lambda: one.daemon.api.get("/v1/objects/network")["items"] == [], what="no Network")


def test_where_it_was_in_earlier_versions():
    with Cluster(nodes=1, to_host=True, services=None, absent=POLICIES, beta=("ServiceCIDR",)) as cluster:
        one, = cluster.nodes
        cluster.server.put(api.service_cidr("kubernetes", *SERVICES))
        wait_services(one, SERVICES)
        assert cluster.server.asked(api.PATHS["ServiceCIDR"]) and cluster.server.asked(api.BETA["ServiceCIDR"], watch="1")
        # the server is upgraded, and the beta is no longer there: what is in force stays until it was asked at the other place
        cluster.server.beta.clear()
        cluster.server.drop()
        wait_for(lambda: cluster.server.asked(api.PATHS["ServiceCIDR"], watch="1"), 20, what="it is followed where it is now")
        assert services(one) == SERVICES and json.dumps(kind_status(cluster, one)["error"]) in ("null", '""')
