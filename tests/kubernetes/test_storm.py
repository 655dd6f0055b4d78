# SPDX-License-Identifier: Apache-2.0
"""Pods come and go on a node that follows an API server, while daemon and plugin are killed at any moment: at the end nothing is left of them."""

import itertools
import json

from cluster import PODS, Cluster
from lib import apiserver as api
from lib.fixtures import SLOW
from lib.heddled import wait_for
from storm import Storm

STORM = {"count": 500} if SLOW else {"count": 200, "seconds": 15}
ROUTES = {**PODS, "spec": {**PODS["spec"], "routesTo": ["host"]}}


class Pods(Storm):
    """As kubelet has them: each is a Pod at the server from before its ADD until after its DEL, and has its address in its status while it runs."""

    pause = 1  # it has to list the cluster first

    def __init__(self, cluster, node, **much):
        super().__init__(node.ns, node.daemon, lambda: cluster.runtime(node), **much)
        self.server, self.node = cluster.server, node
        self.numbers, self.names = itertools.count(1), {}

    def arguments(self, c):
        return f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={self.names[c.id]};K8S_POD_UID=uid-{c.id}"

    def pod(self, c, phase, ips=()):
        return api.pod(self.names[c.id], self.node.name, ips, labels={"app": f"app-{len(c.id) % 3}"}, phase=phase, uid=f"uid-{c.id}", ports=[("http", 80)])

    def arrive(self, c):
        # names are used again, as a StatefulSet's are: what belongs to one Pod is not to be taken for another's
        self.names[c.id] = f"pod-{next(self.numbers) % 16}-{c.id[-1]}"
        self.server.put(self.pod(c, "Pending"))

    def add(self, runtime, c):
        answer = super().add(runtime, c)
        if answer:
            self.server.put(self.pod(c, "Running", [ip["address"].split("/")[0] for ip in answer["ips"]]))
        return answer

    def depart(self, c):
        with self.server.lock:
            current = self.server.kinds[api.PATHS["Pod"]].objects.get(("default", self.names[c.id]))
            if current and current["metadata"]["uid"] == f"uid-{c.id}":
                self.server.delete("Pod", self.names[c.id], "default")


def left(node):
    """Whatever of a Pod can be found on a node, anywhere."""
    host, daemon = node.host, node.daemon

    def ip(*words):
        return json.loads(node.ns.run("ip", "-j", *words).stdout or "[]")

    present = {d["ifindex"] for d in ip("link") if not d["ifname"].startswith("hd")}

    def maps(name):
        """Rows of a device; those of the node's own are there, whatever runs on it, as long as the device is."""
        rows = [(r, r[part]["ifindex"]) for r in host.dump(name) for part in ("key", "value") if isinstance(r[part], dict) and r[part].get("ifindex")]
        return [r for r, ifindex in rows if r["value"].get("network") or ifindex not in present]

    return {
        "devices": [d["ifname"] for d in ip("link") if d["ifname"].startswith("hd")],
        "routes": [r["dst"] for f in ("-4", "-6") for r in ip(f, "route", "show", "proto", "104") if r["dev"] != "heddle-host"],
        "neighbours": [n["dst"] for f in ("-4", "-6") for n in ip(f, "neigh", "show", "proto", "104") if "10.77." in n["dst"] or "fd77" in n["dst"]],
        "attachments": daemon.api.get("/v1/cni/attachments")["items"],
        "ports": [p["name"] for p in daemon.status()["ports"]],
        "maps": [maps(name) for name in ("endpoints", "members", "ports") if maps(name)],
        "settings": [line for line in host_file(daemon, "settings").splitlines() if "disable_ipv6" in line],
    }


def host_file(daemon, name):
    try:
        with open(f"{daemon.run_dir}/{name}", encoding="ascii") as f:
            return f.read()
    except FileNotFoundError:
        return ""


def test_storm_of_pods():
    with Cluster(nodes=1, network=ROUTES) as cluster:
        node, = cluster.nodes
        cluster.server.put(api.network_policy("some", podSelector={"matchLabels": {"app": "app-1"}}, policyTypes=["Ingress"]))
        # once, to have everything loaded and pinned
        first = cluster.pod(node, "first")
        cluster.runtime(node).delete(first.container)
        cluster.server.delete("Pod", "first", "default")
        nothing = {key: [] for key in left(node)}
        wait_for(lambda: left(node) == nothing, 20, what="nothing is there")
        pins, ruleset = node.daemon.pinned_maps(), node.ns.run("nft", "list", "ruleset").stdout
        storm = Pods(cluster, node, **STORM)
        storm.run()
        assert storm.added and storm.failed
        print(f"{storm.added} added, {storm.failed} killed or failed")
        cluster.wait_synced(node, 20)
        try:
            wait_for(lambda: left(node) == nothing, 20, 0.2, what="nothing is left")
        finally:
            print({key: value for key, value in left(node).items() if value})
        assert node.daemon.pinned_maps() == pins and node.ns.run("nft", "list", "ruleset").stdout == ruleset
        wait_for(lambda: cluster.status(node)["kinds"][2]["objects"] == 0, what="no Pod is known")
        last = cluster.pod(node, "last")
        assert last.ip and last.ip != first.ip
