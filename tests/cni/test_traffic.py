# SPDX-License-Identifier: Apache-2.0
"""What containers can send, and when."""

import json
import socket
import threading
import time

import pytest
from lib import documents as doc
from lib.heddled import wait_for
from lib.traffic import Servers, expect_tcp, ping

POLICY = {
    "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "web", "namespace": "shop"},
    "spec": {"podSelector": {"matchLabels": {"io.kubernetes.pod.name": "web"}}, "policyTypes": ["Ingress"],
             "ingress": [{"from": [{"podSelector": {"matchLabels": {"io.kubernetes.pod.name": "good"}}}]}]},
}


# What a port's programs neither drop nor redirect.
STRAYS = """table inet stray {
 counter strays {}
 chain pre { type filter hook prerouting priority -300; iifname "hd*" counter name strays; }
}"""


def pod(host, runtime, name, namespace="shop"):
    return host.added(runtime, args=f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}")


@pytest.mark.parametrize("network", ["blue", "green"])
def test_containers_talk_and_policy_blocks_one(host, network):
    runtime = host.runtime(network=network)
    web, good, bad = (pod(host, runtime, name) for name in ("web", "good", "bad"))
    with Servers(web.ns, tcp=[8080]):
        for family in (4, 6):
            for c in (good, bad):
                expect_tcp(c.ns, web.address(family), 8080, "open")
        host.daemon.apply(POLICY)
        try:
            for family in (4, 6):
                expect_tcp(good.ns, web.address(family), 8080, "open")
                expect_tcp(bad.ns, web.address(family), 8080, "timeout")
            # one that comes while the policy is there has it from its first packet
            late = pod(host, runtime, "bad2")
            expect_tcp(late.ns, web.address(), 8080, "timeout")
        finally:
            host.daemon.api.delete("/v1/objects/networkpolicy/web?namespace=shop")
    runtime.delete(web)
    assert not ping(good.ns, web.address(), answered=False)


def test_nothing_gets_out_before_the_policy(host):
    """Somebody inside sends from the first moment there is a way to: nothing of it may arrive, at another container or in the host's stack."""
    runtime = host.runtime()
    witness = pod(host, runtime, "witness")
    policy = {**POLICY, "metadata": {"name": "silent", "namespace": "prison"},
              "spec": {"podSelector": {}, "policyTypes": ["Egress", "Ingress"]}}
    host.daemon.apply(policy)
    host.ns.run("nft", "-f", "-", input=STRAYS)
    arrived, stop = [], threading.Event()
    with witness.ns:
        listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listening.bind(("0.0.0.0", 9000))
    listening.settimeout(0.05)

    def listen():
        while not stop.is_set():
            try:
                arrived.append(listening.recvfrom(100))
            except TimeoutError:
                pass

    sent = [0]

    def shout(c):
        with c.ns:
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            while not stop.is_set():
                try:
                    s.sendto(b"x", (witness.address(), 9000))
                    sent[0] += 1
                except OSError:
                    time.sleep(0)

    made = [host.container() for _ in range(5)]
    threads = [threading.Thread(target=listen), *(threading.Thread(target=shout, args=(c,)) for c in made)]
    for t in threads:
        t.start()
    try:
        for c in made:
            runtime.add(c, args="IgnoreUnknown=1;K8S_POD_NAMESPACE=prison;K8S_POD_NAME=p")
        wait_for(lambda: sent[0] > 1000, what="containers send")
    finally:
        stop.set()
        for t in threads:
            t.join()
        listening.close()
        host.daemon.api.delete("/v1/objects/networkpolicy/silent?namespace=prison")
    counted = json.loads(host.ns.run("nft", "-j", "list", "counters").stdout)
    host.ns.run("nft", "delete", "table", "inet", "stray")
    assert arrived == []
    assert [x["counter"]["packets"] for x in counted["nftables"] if "counter" in x] == [0]


def test_a_container_sends_as_itself_alone(host):
    runtime = host.runtime()
    a, b = host.added(runtime, 2)
    assert ping(a.ns, b.address())
    a.ns.run("ip", "addr", "add", "10.77.0.200/32", "dev", "eth0")
    before = host.daemon.drops()
    a.ns.run("ping", "-c1", "-W0.3", "-I", "10.77.0.200", b.address(), check=False)
    assert host.daemon.drops() != before


def test_mtu_of_the_network(host):
    host.daemon.apply(doc.network("narrow", mode="l3", subnets=["10.80.0.0/24"], gateway=["10.80.0.1"], mtu=1300))
    runtime = host.runtime(network="narrow", version="1.1.0")
    c = host.added(runtime)
    assert c.interface()["mtu"] == 1300 and {i["mtu"] for i in c.result["interfaces"]} == {1300}
    assert next(d["mtu"] for d in host.ip_json("link") if d["ifname"] == host.devices()[0]) == 1300
    runtime.delete(c)
    host.daemon.api.delete("/v1/objects/network/narrow")


def test_ipv6_where_the_namespace_has_it_off(host):
    c = host.container()
    c.ns.sysctl("net.ipv6.conf.all.disable_ipv6", 1)
    c.ns.sysctl("net.ipv6.conf.default.disable_ipv6", 1)
    host.runtime().add(c)
    other = host.added(host.runtime())
    assert ping(c.ns, other.address(6))
