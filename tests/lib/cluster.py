# SPDX-License-Identifier: Apache-2.0
"""
Workloads on one host: a namespace each, joined to the host's by a veth whose host end is a Port. State says what there is (Kubernetes'
namespaces, pods and policies); Cluster makes the documents of it, and waits until they are in force.
"""

import dataclasses
import itertools
import subprocess

from . import documents as doc
from . import heddled, matrix, netns

NETWORK = "pods"
NETWORKS = (NETWORK, "other")  # with the same addresses, and no way from one to the other
SUBNETS = ("10.244.0.0/16", "10.200.0.0/16", "fd00:244::/64", "fd00:200::/64")
GATEWAY = ("10.244.255.254", "fd00:244::ffff")
WORKLOAD_DEVICE = "eth0"


def six(ipv4):
    """A workload's IPv6 address, made of its IPv4 one: fd00:200::1:2 of 10.200.1.2."""
    _, net, a, b = ipv4.split(".")
    return f"fd00:{net}::{a}:{b}"


# --- documents ---


def namespaced(kind, namespace, name, spec, api=doc.API, labels=None):
    metadata = {"name": name, "namespace": namespace}
    if labels:
        metadata["labels"] = labels
    return {"apiVersion": api, "kind": kind, "metadata": metadata, "spec": spec}


def namespace_document(name, labels=None):
    metadata = {"name": name}
    if labels:
        metadata["labels"] = labels
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def network_document(mode, name=NETWORK, subnets=SUBNETS, gateway=GATEWAY, **spec):
    return doc.document("Network", name, {"mode": mode, "subnets": list(subnets), "gateway": list(gateway), **spec})


def network_policy(name, spec, namespace="default"):
    return namespaced("NetworkPolicy", namespace, name, spec, "networking.k8s.io/v1")


# --- states ---


@dataclasses.dataclass
class Pod:
    namespace: str
    name: str
    ip: str
    labels: dict = dataclasses.field(default_factory=dict)
    ports: list = dataclasses.field(default_factory=list)  # {"name", "protocol", "port"}, as in a Port document
    network: str = NETWORK

    @property
    def key(self):
        return f"{self.namespace}/{self.name}"


@dataclasses.dataclass
class State:
    namespaces: dict  # name: labels; None: no document
    pods: list
    policies: list  # documents
    comment: str = ""


class Workload:
    """A namespace with one address of each family; it stays while states come and go, since it is known by its address."""

    def __init__(self, host, number, ip, mode, mtu=1500):
        self.number, self.ip, self.ip6 = number, ip, six(ip)
        self.end = None
        self.device = f"pod{number}"
        self.mac = f"02:68:70:00:{number >> 8:02x}:{number & 255:02x}"
        self.ns = netns.Namespace(f"pod{number}")
        subprocess.run(
            ["ip", "link", "add", "name", self.device, "netns", host.name, "mtu", str(mtu), "type", "veth", "peer", "name", WORKLOAD_DEVICE]
            + ["netns", self.ns.name, "address", self.mac, "mtu", str(mtu)],
            check=True,
        )
        host.sysctl(f"net.ipv6.conf.{self.device}.disable_ipv6", 1)
        host.ip(f"link set {self.device} up")
        bits4, bits6 = (32, 128) if mode == "l3" else (16, 64)
        self.ns.ip(
            f"link set {WORKLOAD_DEVICE} up",
            f"addr add {ip}/{bits4} dev {WORKLOAD_DEVICE}",
            f"addr add {self.ip6}/{bits6} dev {WORKLOAD_DEVICE} nodad",
            f"route add default via {GATEWAY[0]} dev {WORKLOAD_DEVICE} onlink",
            f"route add default via {GATEWAY[1]} dev {WORKLOAD_DEVICE} onlink",
        )

    @property
    def addresses(self):
        return {4: self.ip, 6: self.ip6}


class Cluster:
    """guarded=False: the same workloads with no daemon; whoever made it joins them by other means."""

    def __init__(self, mode="l3", guarded=True, networks=NETWORKS, extra=(), env=None, **network):
        self.mode = mode
        self.host = netns.Namespace("cluster")
        self.workloads = {}  # by network and IPv4 address
        self.prober = matrix.Prober()
        self.daemon = None
        self.base = [*(network_document(mode, name, **network) for name in networks), *extra]
        try:
            if guarded:
                self.daemon = heddled.Heddled(self.host, [doc.host(uplinks=[], pickupSeconds=0), *self.base], env=env)
                self.daemon.start()
        except BaseException:
            self.close()
            raise

    def workload(self, ip, network=NETWORK):
        if (network, ip) not in self.workloads:
            self.workloads[network, ip] = Workload(self.host, len(self.workloads) + 1, ip, self.mode)
        return self.workloads[network, ip]

    def another(self, ip):
        """A further workload that claims an address another one has already."""
        w = Workload(self.host, len(self.workloads) + 1, ip, self.mode)
        self.workloads[w.device, ip] = w
        return w

    def port_document(self, pod, workload=None, **spec):
        w = workload or self.workload(pod.ip, pod.network)
        body = {"device": w.device, "network": pod.network, "mac": w.mac, "addresses": [w.ip, w.ip6], **spec}
        if pod.ports:
            body["ports"] = pod.ports
        return namespaced("Port", pod.namespace, pod.name, body, labels=pod.labels)

    def documents(self, state):
        """Every document of the state but those that stay (the Host and the Network)."""
        result = [namespace_document(name, labels) for name, labels in state.namespaces.items() if labels is not None]
        result += [self.port_document(pod) for pod in state.pods]
        return result + list(state.policies)

    def put(self, *documents, timeout=10):
        """Exactly these documents beside those that stay; returns once they are in force."""
        self.daemon.put("50-cluster.yaml", *documents, timeout=timeout)

    def set(self, state):
        """The state in force, and its pods under their names as the prober's ends."""
        workloads = {pod.key: self.workload(pod.ip, pod.network) for pod in state.pods}
        if self.daemon:
            self.put(*self.documents(state))
        self.name(workloads)

    def name(self, workloads):
        """{name: workload} are the prober's ends from now on. Each has its sockets for good, whatever it is called later."""
        self.prober.ends = {}
        for name, w in workloads.items():
            if w.end is None:
                w.end = matrix.End(self.prober, w.ns, w.addresses)
            self.prober.ends[name] = w.end

    def route_by_kernel(self):
        """For clusters that nobody guards: the host forwards between its workloads, as any Linux would."""
        self.host.sysctl("net.ipv4.ip_forward", 1)
        self.host.sysctl("net.ipv6.conf.all.forwarding", 1)
        for w in self.workloads.values():
            self.host.sysctl(f"net.ipv6.conf.{w.device}.disable_ipv6", 0)
            self.host.ip(
                f"addr add {GATEWAY[0]}/32 dev {w.device}",
                f"addr add {GATEWAY[1]}/128 dev {w.device} nodad",
                f"route add {w.ip} dev {w.device}",
                f"route add {w.ip6} dev {w.device}",
            )

    def report(self, wrong, wanted):
        """What differs, in lines a person can read, with what the daemon says of a few of them."""
        lines = [f"{len(wrong)} of {len(wanted)} cells differ:"]
        for cell in itertools.islice(wrong, 24):
            what = f"{cell.source} -> {cell.destination} {cell.protocol}/{cell.port} IPv{cell.family}"
            lines.append(f"  {what}: {wrong[cell]}, not {wanted[cell]}")
        if self.daemon:
            lines.append(f"drops: {self.daemon.drops()}")
            lines.append("heddled's log:\n" + self.daemon.log()[-2000:])
        return "\n".join(lines)

    def matrix(self, allowed, protocol="TCP", port=80, families=(4, 6)):
        """For check(): every ordered pair of ends in one column, open where `allowed` has (source, destination)."""
        pairs = itertools.permutations(self.prober.ends, 2)
        return {
            matrix.Cell(a, b, protocol, port, family): "open" if (a, b) in allowed else "silent" for a, b in pairs for family in families
        }

    def check(self, wanted, context=""):
        """Every cell as it should be; second tries are for a machine that was busy, so many of them are a failure too."""
        wrong, again = self.prober.compare(wanted)
        assert not wrong, f"{context}\n{self.report(wrong, wanted)}"
        assert again <= max(5, len(wanted) // 50), f"{context}: {again} of {len(wanted)} cells answered at the second try only"

    def close(self):
        self.prober.close()
        if self.daemon:
            self.daemon.remove()
        for w in self.workloads.values():
            w.ns.delete()  # and with it the veth pair
        self.host.delete()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
