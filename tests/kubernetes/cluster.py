# SPDX-License-Identifier: Apache-2.0
"""Two nodes joined by an underlay, each with its heddled, an API server that both follow, and Pods that the CNI plugin connects."""

import contextlib
import itertools

from lib import apiserver as api
from lib import documents as doc
from lib.heddled import wait_for
from lib.overlay import Fabric
from runtime import Container, Runtime

PODS = doc.network("pods", vni=77, mode="l3", subnets=["10.77.0.0/16", "fd77::/48"], gateway=["10.77.255.254", "fd77::fe"])

SERVICES = ["10.96.0.0/12", "fd96::/108"]


_numbers = itertools.count(1)


class Pod:
    def __init__(self, node, name, container, labels, ports, ns):
        self.node, self.name, self.container, self.ns_name = node, name, container, ns
        self.ns, self.labels, self.ports = container.ns, labels, ports
        self.uid = f"uid-{next(_numbers)}"

    @property
    def ip(self):
        return self.container.address()

    def document(self, **more):
        ips = [a for a in (self.container.address(4), self.container.address(6)) if a] if self.container.result else []
        return api.pod(self.name, self.node.name, ips, ns=self.ns_name, labels=self.labels, ports=self.ports, **{"uid": self.uid, **more})


def cidrs_of(number):
    return f"10.77.{number}.0/24", f"fd77:0:0:{number}::/64"


class Cluster:
    """The nodes are node-1 and node-2; their podCIDRs 10.77.1.0/24 and so on."""

    def __init__(self, nodes=2, start=True, network=PODS, cidrs=cidrs_of, to_host=False, services=SERVICES, **server):
        self.stack = contextlib.ExitStack()
        if to_host:
            network = {**network, "spec": {**network["spec"], "routesTo": ["host"], **({} if services is None else {"services": services})}}
        try:
            self.server = self.stack.enter_context(api.ApiServer(**server))
            self.fabric = self.stack.enter_context(Fabric())
            self.nodes = []
            for number in range(1, nodes + 1):
                options = [f"--kubernetes={self.server.kubeconfig()}", f"--node-name=node-{number}"]
                end = self.fabric.heddle(options=options, docs=[network], start=False)
                self.server.listen(end.ns)
                if to_host:
                    end.ns.sysctl("net.ipv4.ip_forward", 1)
                    end.ns.sysctl("net.ipv6.conf.all.forwarding", 1)
                    # a node has a way for what it sends to a Service
                    end.ns.ip("route add default dev up0", "route add ::/0 dev up0")
                self.nodes.append(end)
            self.server.put(api.namespace("default"))
            for n in self.nodes:
                self.server.put(api.node(n.name, [self.fabric.address(n.number, family) for family in (4, 6)], *cidrs(n.number)))
            for n in self.nodes:
                n.daemon.write("10-network.yaml", network)
                if start:
                    n.daemon.start()
                    self.wait_synced(n)
        except BaseException:
            self.close()
            raise

    def close(self):
        self.stack.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    # --- what a node knows ---

    @staticmethod
    def status(node):
        return node.daemon.status()["kubernetes"]

    def wait_synced(self, node, timeout=10):
        return wait_for(lambda: self.status(node)["connected"] and self.status(node)["synced"], timeout, what=f"{node.name} follows")

    @staticmethod
    def names(node, kind):
        return sorted(o["metadata"]["name"] for o in node.daemon.api.get(f"/v1/objects/{kind}")["items"])

    @staticmethod
    def peer_ports(node, peer):
        items = [p for p in node.daemon.api.get("/v1/objects/peer")["items"] if p["metadata"]["name"] == peer]
        return {p["name"]: p for p in items[0]["spec"].get("ports", [])} if items else {}

    # --- Pods, as kubelet and the scheduler make them ---

    def runtime(self, node, **config):
        return Runtime(node.ns, node.daemon.socket, network="pods", name="pods", **config)

    def pod(self, node, name, labels=None, ports=(), ns="default", **config):
        """Scheduled, then connected once the agent knows of it, then with its addresses in its status."""
        made = Container()
        self.stack.callback(made.close)
        pod = Pod(node, name, made, labels or {}, ports, ns)
        self.server.put(pod.document(phase="Pending"))
        wait_for(lambda: self.status(node)["kinds"][2]["objects"] == len(self.server.kinds[api.PATHS["Pod"]].objects), what="the Pod is known")
        self.add(pod, **config)
        self.server.put(pod.document())
        for other in self.nodes:
            if other is not node and other.daemon.process:
                wait_for(lambda o=other: name in self.peer_ports(o, node.name), what=f"{name} is known at {other.name}")
        return pod

    def add(self, pod, **config):
        args = f"IgnoreUnknown=1;K8S_POD_NAMESPACE={pod.ns_name};K8S_POD_NAME={pod.name};K8S_POD_UID={pod.uid};K8S_POD_INFRA_CONTAINER_ID={pod.container.id}"
        self.runtime(pod.node, **config).add(pod.container, args=args)
