# SPDX-License-Identifier: Apache-2.0
"""
ADD and DEL of heddle-cni beside those of the reference plugin ptp with host-local, from the start of the plugin's process to its end, in turn, with
few containers on the host and with many. ptp makes a veth pair, addresses and routes, and no policy.
"""

import contextlib
import json
import os
import statistics
import subprocess
import time

from rigs import doc

from lib.heddled import BUILD
from lib.netns import Namespace
from lib.ports import PortHost

HEDDLE_CNI = os.path.join(BUILD, "heddle-cni")
DEBIAN = "/usr/lib/cni"
FAMILIES = {"IPv4": (["10.77.0.0/16"], ["10.77.255.254"]), "both families": (["10.77.0.0/16", "fd77::/64"], ["10.77.255.254", "fd77::fe"])}
DENY = {
    "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p", "namespace": "bench"},
    "spec": {"podSelector": {"matchLabels": {"io.kubernetes.pod.name": "p"}}, "policyTypes": ["Ingress", "Egress"],
             "ingress": [{"from": [{"ipBlock": {"cidr": "10.77.0.0/16"}}]}]},
}  # fmt: skip


class Plugin:
    def __init__(self, host, binary, config):
        self.host, self.binary, self.text = host, binary, json.dumps({"cniVersion": "1.0.0", "name": "bench", **config})

    def call(self, command, ns, number):
        """Milliseconds."""
        env = {"CNI_COMMAND": command, "CNI_CONTAINERID": f"c{number}", "CNI_NETNS": ns.path, "CNI_IFNAME": "eth0", "CNI_PATH": DEBIAN,
               "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME=p", "PATH": os.environ["PATH"]}  # fmt: skip
        begin = time.monotonic()
        process = subprocess.Popen([self.binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, text=True)
        output, _ = process.communicate(self.text)
        took = (time.monotonic() - begin) * 1000
        assert process.returncode == 0, output
        return took


def quantiles(values):
    ordered = sorted(values)
    return {"median": statistics.median(ordered), "p99": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], "n": len(ordered)}


def compare(family, rounds, present):
    """present: containers of heddle's that are there all the time."""
    subnets, gateways = FAMILIES[family]
    with PortHost(docs=[doc.network("blue", mode="l3", subnets=subnets, gateway=gateways), DENY]) as host, contextlib.ExitStack() as stack:
        ipam = {"type": "host-local", "dataDir": f"{host.daemon.dir}/host-local", "ranges": [[{"subnet": s.replace("77", "78")}] for s in subnets],
                "routes": [{"dst": "::/0" if ":" in s else "0.0.0.0/0"} for s in subnets]}  # fmt: skip
        plugins = {
            "heddle-cni": Plugin(host, HEDDLE_CNI, {"type": "heddle-cni", "network": "blue", "socket": host.daemon.socket}),
            "ptp": Plugin(host, f"{DEBIAN}/ptp", {"type": "ptp", "ipMasq": False, "ipam": ipam}),
        }
        times = {name: {"ADD": [], "DEL": []} for name in plugins}
        with host.ns:
            for i in range(present):
                ns = Namespace("there")
                stack.callback(ns.delete)
                plugins["heddle-cni"].call("ADD", ns, f"there{i}")
            for i in range(rounds + 2):
                for name, plugin in plugins.items():
                    ns = Namespace("cont")
                    try:
                        for verb in ("ADD", "DEL"):
                            took = plugin.call(verb, ns, i)
                            # the first ones load programs and pages
                            if i >= 2:
                                times[name][verb].append(took)
                    finally:
                        ns.delete()
        return {name: {verb: quantiles(values) for verb, values in verbs.items()} for name, verbs in times.items()}


def run(rounds, present):
    result = {}
    for family in FAMILIES:
        for there in (0, present):
            result[f"{family}, {there} containers there" if there else family] = compare(family, rounds, there)
    return result
