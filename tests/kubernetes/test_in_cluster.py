# SPDX-License-Identifier: Apache-2.0
"""What a Pod is given to reach its API server, and which Pod is meant by what kubelet says."""

import os
import signal

import pytest
from cluster import Cluster, Pod
from lib import apiserver as api
from lib.heddled import wait_for
from lib.traffic import Servers, expect_tcp
from runtime import CniError, Container
from test_server import Follower

ACCOUNT = "secrets/kubernetes.io/serviceaccount"
# /run of its own: the machine's is left alone
IN_POD = 'mount --bind "$0/run" /run && exec "$@"'


class Projected:
    """A volume as kubelet projects it: names lead to ..data, which is replaced by a rename."""

    def __init__(self, folder):
        self.folder, self.number = folder, 0
        os.makedirs(folder)

    def write(self, **files):
        self.number += 1
        os.mkdir(now := os.path.join(self.folder, f"..{self.number}"))
        for name, content in files.items():
            name = name.replace("_", ".")
            with open(os.path.join(now, name), "w", encoding="ascii") as f:
                f.write(content)
            if not os.path.islink(os.path.join(self.folder, name)):
                os.symlink(f"..data/{name}", os.path.join(self.folder, name))
        os.symlink(f"..{self.number}", os.path.join(self.folder, "..new"))
        os.rename(os.path.join(self.folder, "..new"), os.path.join(self.folder, "..data"))


def test_in_a_pod():
    """The service account's token over TLS with the cluster's own CA; the token is another one after an hour, and so may the CA be."""
    env = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "16443", "NODE_NAME": "node-1"}
    with Follower(start=False, env=env) as f:
        volume = Projected(os.path.join(f.server.dir, "run", ACCOUNT))
        with open(f.server.certificate, encoding="ascii") as ca:
            certificate = ca.read()
        volume.write(token="first", ca_crt=certificate)
        whole = f.daemon.argv
        f.daemon.options = ["--kubernetes"]
        f.daemon.argv = lambda *more: ["unshare", "-m", "sh", "-c", IN_POD, f.server.dir, *whole(*more)]
        f.daemon.start()
        f.synced()
        status = f.status()
        assert (status["server"], status["node"]) == ("https://127.0.0.1:16443", "node-1")
        f.server.put(api.network_policy("one"))
        f.expect("one")
        assert {token for _, _, token in f.server.requests} == {"first"}
        # what runs goes on with what it has; the next request has the new one
        volume.write(token="second", ca_crt=certificate)
        f.server.tokens = {"second"}
        f.server.drop()
        f.server.put(api.network_policy("two"))
        f.expect("one", "two")
        assert "second" in {token for _, _, token in f.server.requests}
        # expired, and not written anew yet
        f.server.tokens = {"third"}
        f.server.drop()
        wait_for(lambda: "401" in (f.kind("NetworkPolicy")["error"] or ""), what="refused")
        assert f.policies() == ["one", "two"]
        volume.write(token="third", ca_crt=certificate)
        f.server.put(api.network_policy("three"))
        f.expect("one", "two", "three", timeout=20)


# --- cluster-wide policies ---

API = "policy.networking.k8s.io"


def cluster_wide(kind, name, version="v1alpha1", **spec):
    return {"apiVersion": f"{API}/{version}", "kind": kind, "metadata": {"name": name}, "spec": spec}


def subject(app):
    return {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": app}}}}


ADMIN = cluster_wide("AdminNetworkPolicy", "admin", priority=10, subject=subject("db"),
                     ingress=[{"name": "no", "action": "Deny", "from": [subject("web")]}])
BASELINE = cluster_wide("BaselineAdminNetworkPolicy", "default", subject=subject("db"),
                        ingress=[{"name": "no", "action": "Deny", "from": [{"namespaces": {}}]}])
CLUSTER = cluster_wide("ClusterNetworkPolicy", "tiered", "v1alpha2", tier="Admin", priority=5, subject=subject("db"),
                       ingress=[{"name": "yes", "action": "Accept", "from": [subject("web")]}])


def test_cluster_wide_policies_come_from_the_watch():
    with Cluster(absent=()) as c:
        one, two = c.nodes
        web, db = c.pod(one, "web", {"app": "web"}), c.pod(two, "db", {"app": "db"})

        def known(**names):
            for kind, wanted in names.items():
                wait_for(lambda k=kind, w=wanted: c.names(two, k) == w, what=f"{kind} {wanted}")

        with Servers(db.ns, tcp=[8080]):
            expect_tcp(web.ns, db.ip, 8080, "open")
            c.server.put(BASELINE)
            known(baselineadminnetworkpolicy=["default"])
            expect_tcp(web.ns, db.ip, 8080, "timeout")
            c.server.put(api.network_policy("let", podSelector={}, policyTypes=["Ingress"], ingress=[{}]))
            known(networkpolicy=["let"])
            expect_tcp(web.ns, db.ip, 8080, "open")
            c.server.put(ADMIN)
            known(adminnetworkpolicy=["admin"])
            expect_tcp(web.ns, db.ip, 8080, "timeout")
            c.server.put(CLUSTER)
            known(clusternetworkpolicy=["tiered"])
            expect_tcp(web.ns, db.ip, 8080, "open")
            c.server.delete("ClusterNetworkPolicy", "tiered")
            known(clusternetworkpolicy=[])
            expect_tcp(web.ns, db.ip, 8080, "timeout")
            c.server.delete("AdminNetworkPolicy", "admin")
            known(adminnetworkpolicy=[])
            expect_tcp(web.ns, db.ip, 8080, "open")


def test_kinds_that_the_server_has_later_and_no_more():
    with Follower() as f:
        f.synced()
        assert f.kind("AdminNetworkPolicy")["state"] == "absent"
        f.server.put(ADMIN)
        f.server.absent.discard("AdminNetworkPolicy")
        # it is asked for again once a minute, or when it is told to
        f.daemon.process.send_signal(signal.SIGHUP)
        wait_for(lambda: f.kind("AdminNetworkPolicy")["state"] == "watching", what="it is there now")
        assert Cluster.names(f, "adminnetworkpolicy") == ["admin"] and f.kind("ClusterNetworkPolicy")["state"] == "absent"
        # and gone with its definition
        f.server.absent.add("AdminNetworkPolicy")
        f.server.drop()
        wait_for(lambda: f.kind("AdminNetworkPolicy")["state"] == "absent", what="it is gone")
        wait_for(lambda: Cluster.names(f, "adminnetworkpolicy") == [], what="and so are those of it")


# --- which Pod ---


def waiting(c, pod, word):
    with pytest.raises(CniError) as caught:
        c.add(pod)
    assert caught.value.code == 11 and word in caught.value.msg


def new(c, node, name, labels=None, uid=None):
    pod = Pod(node, name, Container(), labels or {}, (), "default")
    pod.uid = uid or pod.uid
    c.stack.callback(pod.container.close)
    return pod


def put(c, pod, **more):
    c.server.put(pod.document(**more))
    wait_for(lambda: uid_known(c, pod, more.get("uid", pod.uid)), what="the Pod is known")


def uid_known(c, pod, uid):
    """What the agent kept of it at its last write is not to be waited for: a second Pod behind it in the stream is."""
    marker = f"after-{uid}"
    c.server.put(api.pod(marker, "node-9"))
    wait_for(lambda: c.status(pod.node)["kinds"][2]["objects"] == len(c.server.kinds[api.PATHS["Pod"]].objects), what="what came behind it")
    c.server.delete("Pod", marker, "default")
    return True


def test_a_pod_of_the_same_name_as_one_before_it():
    with Cluster(nodes=1) as c:
        node, = c.nodes
        # of a StatefulSet, say: the one before it was another's, or ran elsewhere
        old, pod = new(c, node, "db-0", {"app": "old"}), new(c, node, "db-0", {"app": "new"})
        put(c, old)
        waiting(c, pod, "earlier Pod")
        c.server.put(api.pod("db-0", "node-2", ["10.77.2.3"], uid=pod.uid))
        uid_known(c, pod, pod.uid)
        waiting(c, pod, "earlier Pod")
        put(c, pod)
        c.add(pod)
        port, = node.daemon.api.get("/v1/objects/port")["items"]
        assert port["metadata"]["labels"]["app"] == "new"
        # kubelet makes a new sandbox for the same Pod
        c.runtime(node).delete(pod.container)
        node.daemon.stop()
        node.daemon.start()
        c.add(pod)


def test_a_static_pod_is_known_by_its_mirror():
    with Cluster(nodes=1) as c:
        node, = c.nodes
        pod = new(c, node, "etcd-node-1", uid="0123456789abcdef")
        waiting(c, pod, "labels")
        put(c, pod, uid="uid-of-the-mirror", annotations={"kubernetes.io/config.mirror": "another"})
        waiting(c, pod, "earlier Pod")
        put(c, pod, uid="uid-of-the-mirror", annotations={"kubernetes.io/config.mirror": "0123456789abcdef", "kubernetes.io/config.source": "file"})
        c.add(pod)
        c.runtime(node).delete(pod.container)
        # the same from the last state on disk, without the server
        node.daemon.stop()
        c.server.down()
        node.daemon.start()
        c.add(pod)


def test_a_finished_pods_address_is_the_next_ones(cluster):
    """A Job's Pod stays at the server for long after its address was given to another, on its own node and for others."""
    one, two = cluster.nodes
    client, job = cluster.pod(one, "client", {"app": "client"}), cluster.pod(two, "job", {"app": "job"})
    deny = api.network_policy("jobs", podSelector={"matchLabels": {"app": "job"}}, policyTypes=["Ingress"])
    only = api.network_policy("callers", podSelector={"matchLabels": {"app": "client"}}, policyTypes=["Ingress"],
                              ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "next"}}}]}])
    cluster.server.put(deny, only)
    for node in (one, two):
        wait_for(lambda n=node: cluster.names(n, "networkpolicy") == ["callers", "jobs"], what="the policies")
    ips = [job.ip, job.container.address(6)]
    with Servers(client.ns, tcp=[8080]), Servers(job.ns, tcp=[8080]):
        expect_tcp(client.ns, job.ip, 8080, "timeout")
        expect_tcp(job.ns, client.ip, 8080, "timeout")
    cluster.server.put(job.document(phase="Succeeded"))
    cluster.runtime(two).delete(job.container)
    wait_for(lambda: "job" not in cluster.peer_ports(one, "node-2"), what="it is done")
    following = cluster.pod(two, "next", {"app": "next"}, args={"cni": {"ips": ips}})
    assert following.ip == job.ip
    with Servers(client.ns, tcp=[8080]), Servers(following.ns, tcp=[8080]):
        for family in (4, 6):
            expect_tcp(client.ns, following.container.address(family), 8080, "open")
            expect_tcp(following.ns, client.container.address(family), 8080, "open")
        # what is said of the old one still is of no one
        cluster.server.put(job.document(phase="Succeeded", annotations={"more": "news"}))
        cluster.server.delete("Pod", "job", "default")
        wait_for(lambda: cluster.status(one)["kinds"][2]["objects"] == 2, what="it is forgotten")
        expect_tcp(client.ns, following.ip, 8080, "open")
        expect_tcp(following.ns, client.ip, 8080, "open")
