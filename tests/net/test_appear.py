# SPDX-License-Identifier: Apache-2.0
"""Many ports whose devices come at once, as VF representors do when a NIC is told to have VFs: veths stand in for them."""

import os
import signal
import time

import pytest
from lib import cluster
from lib import documents as doc
from lib.heddled import wait_for
from lib.netns import Namespace
from lib.ports import PortHost

COUNT = 128
NETWORK = doc.document("Network", "vms", {"mode": "l3", "subnets": ["10.9.0.0/16"], "gateway": ["10.9.255.254"]})


def mac(i):
    return f"02:70:00:00:00:{i:02x}"


def port(i):
    spec = {"device": f"rep{i}", "network": "vms", "mac": mac(i), "addresses": [f"10.9.0.{i + 1}"]}
    return cluster.namespaced("Port", "default", f"vm-{i}", spec, labels={"app": f"a{i}"})


def policy(i):
    allowed = {"from": [{"podSelector": {"matchLabels": {"app": f"a{(i + 1) % COUNT}"}}}], "ports": [{"protocol": "TCP", "port": 1000 + i}]}
    spec = {"podSelector": {"matchLabels": {"app": f"a{i}"}}, "policyTypes": ["Ingress"], "ingress": [allowed]}
    return cluster.network_policy(f"p{i}", spec)


@pytest.fixture
def host():
    with PortHost([NETWORK]) as h:
        h.far = Namespace("vms")
        h.stack.callback(h.far.delete)
        for ns in (h.ns, h.far):
            ns.sysctl("net.ipv6.conf.all.disable_ipv6", 1)
            ns.sysctl("net.ipv6.conf.default.disable_ipv6", 1)
        h.daemon.apply(*map(port, range(COUNT)), *map(policy, range(COUNT)))
        yield h


def states(host):
    return [p["state"] for p in host.daemon.status()["ports"]]


def cpu_ms(pid):
    """What a process has used so far."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        user, system = file.read().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) * 1000 // os.sysconf("SC_CLK_TCK")


def test_ports_that_appear_at_once(host):
    """
    Their programs are loaded ahead, so all that is left is to attach them: in less than a second, of which a busy machine may take most for
    others; the agent's own time is held to it in any case. The agent is stopped while the devices are made: to it all of them come at once.
    """
    pid = host.daemon.process.pid
    assert states(host) == ["waiting"] * COUNT
    os.kill(pid, signal.SIGSTOP)
    try:
        host.ns.ip(
            *(f"link add name rep{i} up type veth peer name vf{i} address {mac(i)} netns {host.far.name}" for i in range(COUNT)),
        )
        host.far.ip(*(f"link set vf{i} up" for i in range(COUNT)))
    finally:
        before, started = cpu_ms(pid), time.monotonic()
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: set(states(host)) == {"ready"}, 20, what="all ports are ready")
    took, used = time.monotonic() - started, cpu_ms(pid) - before
    print(f"{COUNT} ports: {took * 1000:.0f} ms, the agent {used} ms of CPU")
    assert used < 500, f"{used} ms of CPU"
    # each carries its programs, and its policy is another's
    attached = {hook["devname"] for part in host.daemon.bpftool("net", "show") for hook in part.get("tc", [])}
    assert {f"rep{i}" for i in range(COUNT)} <= attached
    answer = host.daemon.api.post("/v1/explain", {"from": "10.9.0.2", "to": "10.9.0.1", "protocol": "tcp", "dport": 1000})
    assert answer["verdict"] == "allow", answer
    answer = host.daemon.api.post("/v1/explain", {"from": "10.9.0.3", "to": "10.9.0.1", "protocol": "tcp", "dport": 1000})
    assert answer["verdict"] == "deny", answer
    # and all go at once
    host.ns.ip(*(f"link delete rep{i}" for i in range(COUNT)))
    wait_for(lambda: set(states(host)) == {"waiting"}, 20, what="all ports wait again")
