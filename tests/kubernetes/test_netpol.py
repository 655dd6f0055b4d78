# SPDX-License-Identifier: Apache-2.0
"""
The policy cases (lib/cases.py) as a cluster has them: Namespaces, Pods on two nodes and policies are objects of the API server, each node's agent
follows it, and every pod is tried to every other on every port, within a node and across. A spread of them; all with HEDDLE_NETPOL_ALL=1.
"""

import os

import pytest
from cluster import Cluster, Pod
from lib import apiserver as api
from lib import cases, documents, matrix
from lib.cluster import GATEWAY, NETWORK, SUBNETS, six
from lib.heddled import wait_for
from runtime import Container

ALL = os.environ.get("HEDDLE_NETPOL_ALL") == "1"
SPREAD, SPREAD_OWN = 15, 6
NETWORK_POLICY = "NetworkPolicy"
# Kinds whose policies may be others under the same name from one case to the next: they go before the new ones come.
CLUSTER_WIDE = ("AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "ClusterNetworkPolicy")
MARKS = "marks"
# Where what marks the end of a state is: a node without an agent, at an address that nobody has.
NOWHERE = api.node("nowhere", "192.168.77.200", "10.244.250.0/24")


class Watched:
    """Two nodes, and whatever the current state's pods are. Workloads are known by what names them, and stay as long as that does."""

    def __init__(self):
        network = documents.network(NETWORK, vni=77, mode="l3", subnets=list(SUBNETS), gateway=list(GATEWAY))
        self.cluster = Cluster(absent=(), network=network, cidrs=lambda n: (f"10.244.{200 + n}.0/24", f"fd00:244::{n:x}:0:0/96"))
        self.server, self.nodes = self.cluster.server, self.cluster.nodes
        self.prober = matrix.Prober()
        self.pods, self.number, self.ours = {}, 0, set()
        self.server.put(NOWHERE, api.namespace(MARKS))

    # --- objects ---

    def put(self, wanted):
        """Exactly these objects beside the nodes' own."""
        keys = {self._key(o) for o in wanted}
        for kind, namespace, name in self.ours - keys:
            self.server.delete(kind, name, namespace)
        self.server.put(*wanted)
        self.ours = keys

    @staticmethod
    def _key(o):
        return o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]

    def settle(self):
        """Each stream is in order: once its last object is in force, so is what came before."""
        self.number += 1
        name = f"mark-{self.number}"
        before = f"mark-{self.number - 1}"
        self.server.put(api.namespace(name), api.pod(name, "nowhere", [f"10.244.250.{self.number % 250 + 1}"], ns=MARKS),
                        api.network_policy(name, ns=MARKS, podSelector={"matchLabels": {"no": "pod"}}))
        if self.number > 1:
            self.server.delete("Namespace", before)
            self.server.delete("Pod", before, MARKS)
            self.server.delete(NETWORK_POLICY, before, MARKS)
        for node in self.nodes:
            wait_for(lambda n=node: self.marked(n, name), 20, what=f"{node.name} has {name}")
            for kind in CLUSTER_WIDE:
                names = sorted(key[2] for key in self.ours if key[0] == kind)
                wait_for(lambda n=node, k=kind, w=names: Cluster.names(n, k.lower()) == w, 20, what=f"{node.name}: {kind} {names}")

    @staticmethod
    def marked(node, name):
        return (
            name in Cluster.names(node, "namespace")
            and name in Cluster.names(node, "networkpolicy")
            and name in Cluster.peer_ports(node, "nowhere")
        )

    # --- states ---

    def set(self, state):
        wanted = {(p.namespace, p.name, p.ip): p for p in state.pods}
        for key in [key for key in self.pods if key not in wanted]:
            pod, end = self.pods.pop(key)
            end.close()
            self.cluster.runtime(pod.node).delete(pod.container)
            pod.container.close()
        policies = [p for p in state.policies if p["kind"] in CLUSTER_WIDE]
        if {self._key(p) for p in policies} & self.ours:
            self.put([o for o in self.server_objects() if o["kind"] not in CLUSTER_WIDE])
            self.settle()
        objects = [api.namespace(name, **labels) for name, labels in state.namespaces.items() if labels is not None]
        self.put([*objects, *(self.pod(p).document() for p in state.pods), *state.policies])
        self.settle()
        for pod in state.pods:
            self.connect(pod)
        self.settle()
        self.prober.ends = {p.key: self.pods[p.namespace, p.name, p.ip][1] for p in state.pods}

    def server_objects(self):
        return [self.server.kinds[api.PATHS[kind]].objects[namespace, name] for kind, namespace, name in self.ours]

    def pod(self, p):
        """On the nodes in turn, by the last number of its address."""
        key = p.namespace, p.name, p.ip
        if key not in self.pods:
            made = Pod(self.nodes[int(p.ip.rsplit(".", 1)[1]) % 2], p.name, Container(), p.labels, (), p.namespace)
            self.pods[key] = made, None
        pod = self.pods[key][0]
        pod.labels = p.labels
        pod.document = lambda: self.document(pod, p)
        return pod

    @staticmethod
    def document(pod, p):
        result = api.pod(p.name, pod.node.name, [p.ip, six(p.ip)], ns=p.namespace, labels=p.labels, uid=pod.uid)
        ports = [{"name": port["name"], "containerPort": port["port"], "protocol": port["protocol"]} for port in p.ports]
        result["spec"]["containers"][0]["ports"] = ports
        return result

    def connect(self, p):
        key = p.namespace, p.name, p.ip
        pod, end = self.pods[key]
        if end is None:
            ips = [p.ip, six(p.ip)]
            self.cluster.add(pod, args={"cni": {"ips": ips}}, ipam={"ranges": list(SUBNETS)})
            assert {pod.container.address(f) for f in (4, 6)} == set(ips)
            self.pods[key] = pod, matrix.End(self.prober, pod.ns, dict(zip((4, 6), ips)))

    def check(self, wanted, context):
        wrong, again = self.prober.compare(wanted)
        lines = [f"{c.source} -> {c.destination} {c.protocol}/{c.port} IPv{c.family}: {got}, not {wanted[c]}" for c, got in list(wrong.items())[:24]]
        for node in self.nodes if wrong else ():
            lines.append(f"{node.name}: {node.daemon.drops()}\n{node.daemon.log()[-1500:]}")
        assert not wrong, f"{context}: {len(wrong)} of {len(wanted)} cells differ\n" + "\n".join(lines)
        assert again <= max(5, len(wanted) // 50), f"{context}: {again} of {len(wanted)} cells answered at the second try only"

    def close(self):
        self.prober.close()
        for pod, _ in self.pods.values():
            pod.container.close()
        self.cluster.close()


@pytest.fixture(scope="module")
def watched():
    w = Watched()
    yield w
    w.close()


def fits(case):
    """One network with Kubernetes' own objects; other hosts are told by address here, not by labels of a Host."""
    text = str(case)
    return all(p.get("network", NETWORK) == NETWORK for step in case.get("steps", [case]) for p in step["pods"]) and "'nodes'" not in text


def chosen(folder, spread):
    names = [name for name in cases.files(folder) if fits(cases.read(folder, name))]
    several = [name for name in names if len(cases.read(folder, name).get("steps", [])) > 1]
    if not names:
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"no policy cases in {folder}"))]
    return [pytest.param(name, id=name.removesuffix(".json")) for name in (names if ALL else sorted({*names[::spread], *several[::6]}))]


def run(watched, folder, name):
    for state, wanted in cases.steps(cases.read(folder, name)):
        watched.set(state)
        watched.check(wanted, f"{name}: {state.comment}")


@pytest.mark.parametrize("name", chosen(cases.SHARED, SPREAD))
def test_shared_case(watched, name):
    run(watched, cases.SHARED, name)


@pytest.mark.parametrize("name", chosen(cases.OWN, SPREAD_OWN))
def test_own_case(watched, name):
    run(watched, cases.OWN, name)
