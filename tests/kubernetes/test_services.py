# SPDX-License-Identifier: Apache-2.0
"""Services as kube-proxy makes them, in the node's own nftables beside ours; and what passes between Pods and their node."""

import kubeproxy
import pytest
from cluster import Cluster
from kubeproxy import Service
from lib import apiserver as api
from lib.heddled import wait_for
from lib.nat import WhoAmI, ask, ask_patiently
from lib.traffic import ping

VIP = {4: "10.96.0.10", 6: "fd96::10"}


@pytest.fixture
def cluster():
    with Cluster(to_host=True) as c:
        yield c


def address(pod, family):
    return pod.container.address(family)


def services(*pods, port=80, **options):
    return [Service(f"web{family}-{protocol}", VIP[family], port, [(address(p, family), 8080) for p in pods], protocol=protocol, **options)
            for family in (4, 6) for protocol in ("tcp", "udp")]


def in_force(cluster, node, *names):
    wait_for(lambda: cluster.names(node, "networkpolicy") == sorted(names), what=f"policies {names}")


def policy(name, select, **spec):
    return api.network_policy(name, podSelector={"matchLabels": {"app": select}}, **spec)


def pods_with(label):
    return {"podSelector": {"matchLabels": {"app": label}}}


@pytest.mark.parametrize("family", [4, 6])
def test_pod_to_cluster_ip_to_pod(cluster, family):
    """Client and Pod know each other by their own addresses, and so do both policies."""
    one = cluster.nodes[0]
    web, client, other = (cluster.pod(one, name, {"app": name}) for name in ("web", "client", "other"))
    kubeproxy.put(one.ns, services(web))
    vip = VIP[family]
    with WhoAmI(web.ns, 8080):
        for protocol in ("tcp", "udp"):
            for pod in (client, other):
                assert ask_patiently(pod.ns, vip, 80, protocol) == address(pod, family)
            # beside it the Pod itself, without a Service
            assert ask_patiently(client.ns, address(web, family), 8080, protocol) == address(client, family)
            # what goes to itself kube-proxy masquerades
            assert ask_patiently(web.ns, vip, 80, protocol) not in (None, address(web, family))
            # and the node's own
            assert ask_patiently(one.ns, vip, 80, protocol)
        cluster.server.put(policy("in", "web", policyTypes=["Ingress"], ingress=[{"from": [pods_with("client")], "ports": [{"port": 8080}]}]))
        in_force(cluster, one, "in")
        assert ask(client.ns, vip, 80) == address(client, family)
        assert ask(other.ns, vip, 80, timeout=0.5) is None
        assert ask(client.ns, vip, 80, "udp", timeout=0.5) is None
        assert ask(one.ns, vip, 80), "from the node, whatever the policy"


@pytest.mark.parametrize("family", [4, 6])
def test_pod_to_cluster_ip_by_iptables(cluster, family):
    """kube-proxy's other mode: the table nat of iptables, beside our table of nftables."""
    one, two = cluster.nodes
    near, far, client = cluster.pod(one, "near", {"app": "web"}), cluster.pod(two, "far", {"app": "web"}), cluster.pod(one, "client", {"app": "client"})
    kubeproxy.put_iptables(one.ns, services(near, far))
    with WhoAmI(near.ns, 8080), WhoAmI(far.ns, 8080):
        for protocol in ("tcp", "udp"):
            for _ in range(8):
                assert ask_patiently(client.ns, VIP[family], 80, protocol) == address(client, family)
        assert ask_patiently(one.ns, VIP[family], 80)
        cluster.server.put(policy("out", "client", policyTypes=["Egress"], egress=[{"to": [pods_with("web")], "ports": [{"port": 8080}]}]))
        in_force(cluster, one, "out")
        for _ in range(4):
            assert ask(client.ns, VIP[family], 80) == address(client, family)
        assert ask(client.ns, VIP[family], 80, "udp", timeout=0.5) is None, "the policy is about TCP"
        assert one.daemon.status()["nat"]["state"] == "in-force"


def expect_cut_with_the_policy(cluster, client, web, vip, family):
    """A connection by a Service ends when the egress policy of who opened it does."""
    listening = web.ns.socket(10 if family == 6 else 2)
    listening.bind(("::" if family == 6 else "0.0.0.0", 9000))
    listening.listen()
    kubeproxy.put(cluster.nodes[0].ns, [Service("late", vip, 81, [(address(web, family), 9000)])])
    cluster.server.put(policy("out", "client", policyTypes=["Egress"], egress=[{"to": [pods_with("web")]}]))
    with listening, client.ns.socket(10 if family == 6 else 2) as s:
        wait_for(lambda: ask(client.ns, address(web, family), 8080, "udp", timeout=0.3), what="UDP too")
        s.settimeout(3)
        s.connect((vip, 81))
        end, _ = listening.accept()
        with end:
            end.settimeout(3)
            for _ in range(3):
                s.sendall(b"there")
                assert end.recv(10) == b"there"
                end.sendall(b"back")
                assert s.recv(10) == b"back"
            cluster.server.put(policy("out", "client", policyTypes=["Egress"]))
            wait_for(lambda: ask(client.ns, address(web, family), 8080, timeout=0.3) is None, what="nothing more")
            end.settimeout(0.5)
            s.sendall(b"cut")
            with pytest.raises(TimeoutError):
                end.recv(10)


@pytest.mark.parametrize("family", [4, 6])
def test_egress_is_about_the_pod_behind_the_service(cluster, family):
    """As for DNS by the Service of kube-dns: the policy selects Pods, the client asks the ClusterIP."""
    one = cluster.nodes[0]
    web, client, other = (cluster.pod(one, name, {"app": name}) for name in ("web", "client", "other"))
    vip = VIP[family]
    kubeproxy.put(one.ns, services(web))
    with WhoAmI(web.ns, 8080):
        cluster.server.put(policy("out", "client", policyTypes=["Egress"], egress=[{"to": [pods_with("web")], "ports": [{"port": 8080}]}]),
                           policy("none", "other", policyTypes=["Egress"]), policy("own", "web", policyTypes=["Egress"], egress=[{"to": [pods_with("web")]}]))
        in_force(cluster, one, "none", "out", "own")
        assert ask(client.ns, vip, 80) == address(client, family)
        assert ask(client.ns, vip, 80, "udp", timeout=0.5) is None, "the policy is about TCP"
        assert ask(other.ns, vip, 80, timeout=0.5) is None
        # masqueraded on its way to itself, which its policy has to allow
        assert ask_patiently(web.ns, vip, 80, "udp") not in (None, address(web, family))
        assert one.daemon.explain(**{"from": address(client, family), "to": vip, "protocol": "tcp", "dport": 80})["verdict"] == "allow"
        expect_cut_with_the_policy(cluster, client, web, vip, family)


@pytest.mark.parametrize("family", [4, 6])
def test_a_service_is_no_way_around_an_egress_policy(cluster, family):
    """Endpoints that are no Pods: of this node, of another one, outside."""
    one, two = cluster.nodes
    free, shut = (cluster.pod(one, name, {"app": name}) for name in ("free", "shut"))
    here, there, vip = cluster.fabric.address(1, family), cluster.fabric.address(2, family), VIP[family]
    kubeproxy.put(one.ns, [Service("here", vip, 81, [(here, 9090)]), Service("there", vip, 82, [(there, 9090)])])
    bits = 32 if family == 4 else 128
    cluster.server.put(policy("shut", "shut", policyTypes=["Egress"], egress=[{"to": [{"ipBlock": {"cidr": f"{a}/{bits}"}} for a in (here, there)]}]))
    in_force(cluster, one, "shut")
    with WhoAmI(one.ns, 9090), WhoAmI(two.ns, 9090):
        for port in (81, 82):
            assert ask(free.ns, vip, port)
            assert ask(shut.ns, vip, port, timeout=0.5) is None, "it may send there, but not to the Service: see docs/kubernetes.md"
        assert ask(shut.ns, here, 9090) and ask(shut.ns, there, 9090)
        # nor without what stops it behind the programs, until that is back
        one.ns.run("nft", "delete", "table", "inet", one.daemon.status()["nat"]["table"])
        assert ask(shut.ns, vip, 82, timeout=0.5) is None
        cluster.server.put(policy("shut", "shut", policyTypes=["Egress"], egress=[{"to": [{"ipBlock": {"cidr": f"{vip}/{bits}"}}]}]))
        wait_for(lambda: ask(shut.ns, vip, 81, timeout=0.5), what="by the Service's own address")
        assert ask(shut.ns, vip, 82)


def test_several_backends(cluster):
    one = cluster.nodes[0]
    pods = [cluster.pod(one, f"web-{i}", {"app": "web"}) for i in range(2)]
    client = cluster.pod(one, "client", {"app": "client"})
    kubeproxy.put(one.ns, services(*pods))
    with WhoAmI(pods[0].ns, 8080), WhoAmI(pods[1].ns, 8080):
        for _ in range(20):
            assert ask(client.ns, VIP[4], 80) == address(client, 4)
        flows = [f for f in one.daemon.flows(protocol="TCP") if f["destinationPort"] == 8080 and f["source"] == address(client, 4)]
        assert {f["destination"] for f in flows} == {address(p, 4) for p in pods}


@pytest.mark.parametrize("family", [4, 6])
def test_outside_to_node_port_to_pod(cluster, family):
    one, two = cluster.nodes
    web, client = cluster.pod(one, "web", {"app": "web"}), cluster.pod(one, "client", {"app": "client"})
    here, there = cluster.fabric.address(1, family), cluster.fabric.address(2, family)
    with WhoAmI(web.ns, 8080):
        for local in (False, True):
            kubeproxy.put(one.ns, services(web, node_port=30080, local=local))
            for protocol in ("tcp", "udp"):
                assert ask_patiently(two.ns, here, 30080, protocol) == (there if local else here)
                assert ask_patiently(client.ns, here, 30080, protocol)
        cidr = f"{there}/{32 if family == 4 else 128}"
        cluster.server.put(policy("in", "web", policyTypes=["Ingress"], ingress=[{"from": [{"ipBlock": {"cidr": cidr}}]}]))
        in_force(cluster, one, "in")
        assert ask(two.ns, here, 30080) == there, "externalTrafficPolicy: Local: the client is who it is"
        assert ask(client.ns, here, 30080, timeout=0.5) is None


@pytest.mark.parametrize("family", [4, 6])
def test_pod_to_cluster_ip_to_pod_on_the_other_node(cluster, family):
    """As to one of this node: both know each other by their own addresses, and both policies are about that."""
    one, two = cluster.nodes
    web = cluster.pod(two, "web", {"app": "web"})
    client, other = (cluster.pod(one, name, {"app": name}) for name in ("client", "other"))
    vip = VIP[family]
    kubeproxy.put(one.ns, services(web))
    with WhoAmI(web.ns, 8080):
        for protocol in ("tcp", "udp"):
            for pod in (client, other):
                assert ask_patiently(pod.ns, vip, 80, protocol) == address(pod, family)
            assert ask_patiently(one.ns, vip, 80, protocol) == cluster.fabric.address(1, family), "a process of the node"
        cluster.server.put(policy("in", "web", policyTypes=["Ingress"], ingress=[{"from": [pods_with("client")], "ports": [{"port": 8080}]}]))
        in_force(cluster, two, "in")
        assert ask(client.ns, vip, 80) == address(client, family)
        assert ask(other.ns, vip, 80, timeout=0.5) is None
        assert ask(one.ns, vip, 80, timeout=0.5) is None, "another node is no exception"
        cluster.server.put(policy("out", "client", policyTypes=["Egress"], egress=[{"to": [pods_with("web")], "ports": [{"port": 8080}]}]),
                           policy("none", "other", policyTypes=["Egress"]), policy("in", "web", policyTypes=["Ingress"], ingress=[{}]))
        in_force(cluster, one, "in", "none", "out")
        in_force(cluster, two, "in", "none", "out")
        assert ask_patiently(client.ns, vip, 80) == address(client, family), "egress is about the Pod behind the Service"
        assert ask(client.ns, vip, 80, "udp", timeout=0.5) is None, "the policy is about TCP"
        assert ask(other.ns, vip, 80, timeout=0.5) is None
        expect_cut_with_the_policy(cluster, client, web, vip, family)


@pytest.mark.parametrize("family", [4, 6])
def test_masqueraded_to_a_pod_on_the_other_node(cluster, family):
    """With the node's address as its source it is still the Pod's that its egress policy is asked about."""
    one, two = cluster.nodes
    web = cluster.pod(two, "web", {"app": "web"})
    client, other = (cluster.pod(one, name, {"app": name}) for name in ("client", "other"))
    here = cluster.fabric.address(1, family)
    kubeproxy.put(one.ns, services(web, node_port=30080))
    cluster.server.put(policy("out", "client", policyTypes=["Egress"], egress=[{"to": [pods_with("web")]}, {"to": [{"ipBlock": {"cidr": f"{here}/{32 if family == 4 else 128}"}}]}]),
                       policy("none", "other", policyTypes=["Egress"]))
    in_force(cluster, one, "none", "out")
    with WhoAmI(web.ns, 8080):
        assert ask_patiently(client.ns, here, 30080) == here
        assert ask(other.ns, here, 30080, timeout=0.5) is None


@pytest.mark.parametrize("family", [4, 6])
def test_outside_to_node_port_to_pod_on_the_other_node(cluster, family):
    """By the node that was asked, whose address it has from there on."""
    one, two = cluster.nodes
    web = cluster.pod(two, "web", {"app": "web"})
    here, there = (cluster.fabric.address(n, family) for n in (1, 2))
    kubeproxy.put(one.ns, services(web, node_port=30080))
    bits = 32 if family == 4 else 128
    with WhoAmI(web.ns, 8080):
        for protocol in ("tcp", "udp"):
            assert ask_patiently(two.ns, here, 30080, protocol) == here
        cluster.server.put(policy("in", "web", policyTypes=["Ingress"], ingress=[{"from": [{"ipBlock": {"cidr": f"{there}/{bits}"}}]}]))
        in_force(cluster, two, "in")
        assert ask(two.ns, here, 30080, timeout=0.5) is None, "it is the other node that asks"
        cluster.server.put(policy("in", "web", policyTypes=["Ingress"], ingress=[{"from": [{"ipBlock": {"cidr": f"{here}/{bits}"}}]}]))
        wait_for(lambda: ask(two.ns, here, 30080, timeout=0.5) == here, what="named by its block")


@pytest.mark.parametrize("family", [4, 6])
def test_the_node_and_its_pods(cluster, family):
    """kubelet's probes come in whatever the policy; what a Pod sends to its node is its egress policy's."""
    one, two = cluster.nodes
    web, other = cluster.pod(one, "web", {"app": "web"}), cluster.pod(one, "other", {"app": "other"})
    here = cluster.fabric.address(1, family)
    cluster.server.put(api.network_policy("deny", podSelector={}, policyTypes=["Ingress", "Egress"]))
    in_force(cluster, one, "deny")
    with WhoAmI(web.ns, 8080), WhoAmI(one.ns, 9090):
        for protocol in ("tcp", "udp"):
            assert ask_patiently(one.ns, address(web, family), 8080, protocol)
        assert ping(one.ns, address(web, family))
        assert ask(other.ns, address(web, family), 8080, timeout=0.5) is None
        # another node is not this one
        two.ns.run("ip", f"-{family}", "route", "add", f"{address(web, family)}/{32 if family == 4 else 128}", "via", here)
        assert ask(two.ns, address(web, family), 8080, timeout=0.5) is None
        # a process of the node, or a Pod with hostNetwork: by its address
        assert ask(web.ns, here, 9090, timeout=0.5) is None
        cidr = f"{here}/{32 if family == 4 else 128}"
        cluster.server.put(policy("out", "web", policyTypes=["Egress"], egress=[{"to": [{"ipBlock": {"cidr": cidr}}], "ports": [{"port": 9090}]}]))
        in_force(cluster, one, "deny", "out")
        assert ask(web.ns, here, 9090) == address(web, family)
        assert ask(other.ns, here, 9090, timeout=0.5) is None


def test_pods_go_outside_as_the_node(cluster):
    """On by default in a cluster's network; Pods of other nodes know each other as they are."""
    one, two = cluster.nodes
    web, client = cluster.pod(two, "web", {"app": "web"}), cluster.pod(one, "client", {"app": "client"})
    assert one.daemon.status()["nat"]["state"] == "in-force"
    with WhoAmI(web.ns, 8080), WhoAmI(two.ns, 9090):
        for family in (4, 6):
            assert ask(client.ns, address(web, family), 8080) == address(client, family)
            assert ask(client.ns, cluster.fabric.address(2, family), 9090) == cluster.fabric.address(1, family)
        listed = one.daemon.api.get("/v1/objects/network/pods")
        one.daemon.write("10-network.yaml", {"apiVersion": listed["apiVersion"], "kind": "Network", "metadata": {"name": "pods"},
                                             "spec": {**listed["spec"], "masquerade": {"enabled": False}}})
        table = one.daemon.status()["nat"]["table"]
        wait_for(lambda: "masquerade" not in one.ns.run("nft", "list", "table", "inet", table).stdout, what="it is off")
