# SPDX-License-Identifier: Apache-2.0
"""5,000 Pods on 50 nodes and 500 policies: memory, start, and how long a policy takes from the watch into force. Figures are printed; limits are generous."""

import time

from cluster import Cluster
from lib import apiserver as api
from lib.heddled import wait_for

NODES, PODS, POLICIES, APPS = 50, 5000, 500, 100
EVENTS = 100


def rss(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) / 1024 for line in f if line.startswith("VmRSS"))


def policy(number, port):
    selector = {"matchLabels": {"app": f"app-{number % APPS}"}}
    rule = {"from": [{"podSelector": {"matchLabels": {"app": f"app-{(number * 7 + 1) % APPS}"}}}], "ports": [{"port": port}]}
    return api.network_policy(f"policy-{number}", ns=f"ns-{number % 10}", podSelector=selector, policyTypes=["Ingress"], ingress=[rule])


def test_a_large_cluster(capsys):
    with Cluster(nodes=1, start=False) as c:
        one = c.nodes[0]
        c.server.put(*(api.namespace(f"ns-{i}", team=f"t{i % 3}") for i in range(10)))
        c.server.put(*(api.node(f"node-{i}", f"192.0.2.{i + 100}", f"10.77.{i}.0/24") for i in range(2, NODES + 2)))
        c.server.put(*(
            api.pod(f"pod-{i}", f"node-{2 + i % NODES}", [f"10.77.{2 + i % NODES}.{1 + i // NODES}"], ns=f"ns-{i % 10}",
                    labels={"app": f"app-{i % APPS}", "pod-template-hash": f"{i % APPS:x}"}, ports=[("http", 8080)])
            for i in range(PODS)
        ))  # fmt: skip
        c.server.put(*(policy(i, 8080) for i in range(POLICIES)))
        one.daemon.start(wait=False)
        began = time.monotonic()
        wait_for(lambda: _names(c, one) == POLICIES, 60, interval=0.01, what="all is in force")
        cold = time.monotonic() - began
        # Pods of this node, which the policies are for
        for i in range(4):
            c.pod(one, f"local-{i}", {"app": f"app-{i}"}, ns=f"ns-{i}")
        delays = []
        for i in range(EVENTS):
            number = i % 4
            began = time.monotonic()
            c.server.put(policy(number, 9000 + i))
            wait_for(lambda n=number, p=9000 + i: _port(one, n) == p, 5, interval=0.001, what="in force")
            delays.append(time.monotonic() - began)
        delays.sort()
        p50, p99 = delays[len(delays) // 2] * 1e3, delays[int(len(delays) * 0.99) - 1] * 1e3
        memory = rss(one.daemon.process.pid)
        one.daemon.stop()
        began = time.monotonic()
        one.daemon.start()
        warm = time.monotonic() - began
        with capsys.disabled():
            print(f"\n{PODS} Pods, {POLICIES} policies: cold start {cold:.2f} s, from the last state {warm:.2f} s; "
                  f"policy event to in force p50 {p50:.1f} ms, p99 {p99:.1f} ms; RSS {memory:.1f} MiB")
        assert cold < 10 and p99 < 400 and memory < 80


def _names(c, node):
    try:
        return len(c.names(node, "networkpolicy"))
    except OSError:
        return 0


def _port(node, number):
    spec = node.daemon.api.get(f"/v1/objects/networkpolicy/policy-{number}?namespace=ns-{number}")["spec"]
    return spec["ingress"][0]["ports"][0]["port"]
