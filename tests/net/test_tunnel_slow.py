# SPDX-License-Identifier: Apache-2.0
"""Tunnel packets that only the kernel can send: the first ones, before a next hop has answered, and fragments. a --- router --- b, heddled on both."""

import contextlib
import re
import socket
import subprocess
import threading
import time

import pytest
from lib import documents as doc
from lib.heddled import Heddled, wait_for
from lib.netns import Link, Namespace
from lib.ports import Workload
from lib.traffic import ping

CLOSED = doc.policy(default=doc.DENY_ALL)


class End:
    def __init__(self, stack, router, number, family):
        self.name, self.ip = "ab"[number - 1], f"10.77.0.{number}"
        self.ns = Namespace(self.name)
        stack.callback(self.ns.delete)
        self.link = Link(router, f"r{number}", self.ns, "up0", number, neighbours=False)
        self.ns.ip(f"route add default via {self.link.a4}", f"route add default via {self.link.a6}")
        self.address = self.link.b4 if family == 4 else self.link.b6
        self.workload = Workload(self.ns, number)
        stack.callback(self.workload.close)
        self.workload.address(f"{self.ip}/24")

    def configure(self, stack, other, protocol):
        port = {"name": f"w-{other.name}", "network": "blue", "mac": other.workload.mac, "addresses": [other.ip]}
        tunnel = {"protocol": protocol, "address": self.address}
        uplinks = [{"device": "up0", "xdp": "off"}]
        self.daemon = Heddled(
            self.ns,
            [
                doc.document("Host", self.name, {"pickupSeconds": 0, "uplinks": uplinks, "tunnel": tunnel}),
                doc.network("blue", vni=100, subnets=["10.77.0.0/24"]),
                doc.port(f"w-{self.name}", self.workload.device, "blue", addresses=[self.ip], mac=self.workload.mac),
                doc.document("Peer", other.name, {"address": other.address, "ports": [port]}),
                CLOSED,
            ],
        )
        stack.callback(self.daemon.remove)
        self.daemon.start()
        wait_for(lambda: self.daemon.status()["tunnel"]["slowPath"]["device"], what="the device")
        wait_for(lambda: self.daemon.programs("heddle-tunnel"), what="programs on it")

    def state(self):
        return self.daemon.status()["peers"][0]["state"]

    def slow(self, what):
        text = self.daemon.api.get("/metrics")
        return int(re.search(rf'^heddle_tunnel_slow_packets_total{{what="{what}"}} (\d+)$', text, re.M).group(1))


@pytest.fixture(name="hosts", params=[(4, "vxlan"), (6, "geneve")], ids=["4-vxlan", "6-geneve"])
def _hosts(request):
    family, protocol = request.param
    with contextlib.ExitStack() as stack:
        router = Namespace("router")
        stack.callback(router.delete)
        for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            router.sysctl(key, 1)
        a, b = (End(stack, router, number, family) for number in (1, 2))
        a.configure(stack, b, protocol)
        b.configure(stack, a, protocol)
        yield router, a, b, family


def move_next_hop(router, a, b, family):
    """To an address of the router that it does not have yet."""
    to, prefix, hop = (b.address, 32, "10.66.1.77") if family == 4 else (b.address, 128, "fd66:1::77")
    a.ns.ip(f"route replace {to}/{prefix} via {hop}")
    wait_for(lambda: a.state() in ("resolving", "unresolved"), what="a next hop that does not answer")
    return lambda: router.ip(f"addr add {hop}/{24 if family == 4 else 64} dev r1" + (" nodad" if family == 6 else ""))


def test_the_first_packets_wait(hosts):
    router, a, b, family = hosts
    wait_for(lambda: a.state() == b.state() == "reachable", what="ways both ways")
    assert ping(a.workload.ns, b.ip)
    answer = move_next_hop(router, a, b, family)
    sent = a.slow("sent")
    process = a.workload.ns.popen("ping", "-c", "3", "-i", "0.3", "-W", "10", b.ip, stdout=subprocess.PIPE, text=True)
    time.sleep(0.5)
    answer()
    output, _ = process.communicate(timeout=20)
    assert " 3 received" in output, output
    assert a.slow("sent") > sent
    wait_for(lambda: a.state() == "reachable", timeout=10, what="a way")
    sent = a.slow("sent")
    assert ping(a.workload.ns, b.ip)
    assert a.slow("sent") == sent


def test_fragments_of_a_peer(hosts):
    """What is too big and may be cut is cut on the outside: all of it arrives, byte for byte."""
    _, a, b, _ = hosts
    wait_for(lambda: a.state() == b.state() == "reachable", what="ways both ways")
    payload = bytes(i * 7 & 0xFF for i in range(1472))
    with b.workload.ns, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((b.ip, 5000))
        server.settimeout(5)
        with a.workload.ns, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER: no DF
            client.sendto(payload, (b.ip, 5000))
        assert server.recv(2000) == payload
    assert a.slow("sent") and b.slow("received")


def test_super_packets_by_the_slow_path(hosts):
    """TCP while no way is known: the kernel cuts super-packets ahead of the device."""
    router, a, b, family = hosts
    wait_for(lambda: a.state() == b.state() == "reachable", what="ways both ways")
    answer = move_next_hop(router, a, b, family)
    received = []
    with b.workload.ns:
        server = socket.create_server((b.ip, 5000))

    def serve():
        connection, _ = server.accept()
        with connection:
            while data := connection.recv(65536):
                received.append(data)

    thread = threading.Thread(target=serve)
    thread.start()
    payload = bytes(range(256)) * 4096
    with a.workload.ns:
        client = socket.socket()
    client.settimeout(10)
    threading.Timer(0.2, answer).start()
    client.connect((b.ip, 5000))
    client.sendall(payload)
    client.close()
    thread.join(15)
    server.close()
    assert b"".join(received) == payload


def test_the_device_is_set_down(hosts):
    """By somebody else, as by a network manager that takes it for its own: it would swallow what it is given, so it is made again."""
    router, a, b, family = hosts
    wait_for(lambda: a.state() == b.state() == "reachable", what="ways both ways")
    with a.ns:
        before = socket.if_nametoindex("heddle-tunnel")
    a.ns.ip("link set heddle-tunnel down")

    def is_there():
        with a.ns, contextlib.suppress(OSError):
            return socket.if_nametoindex("heddle-tunnel") != before
        return False

    wait_for(is_there, timeout=10, what="another device")
    wait_for(lambda: "tc_tunnel_in" in a.daemon.programs("heddle-tunnel"), what="its programs")
    answer = move_next_hop(router, a, b, family)
    process = a.workload.ns.popen("ping", "-c", "3", "-i", "0.3", "-W", "10", b.ip, stdout=subprocess.PIPE, text=True)
    time.sleep(0.5)
    answer()
    output, _ = process.communicate(timeout=20)
    assert " 3 received" in output, output
