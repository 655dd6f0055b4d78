# SPDX-License-Identifier: Apache-2.0
"""What a switched network carries for those who do not know each other yet: DHCP, broadcast and multicast, the search for duplicate addresses."""

import contextlib
import json
import socket
import subprocess

import pytest
from lib import documents as doc
from lib.heddled import wait_for
from lib.ports import PortHost
from lib.raw import Capture
from lib.traffic import ping

PORT = 7070
GROUP4, GROUP6 = "239.1.2.3", "ff02::1234"
SCRIPT = """#!/bin/sh
[ "$1" = bound ] && ip addr add "$ip/24" dev "$interface"
exit 0
"""


def network(name):
    return doc.network(name, subnets=["10.77.0.0/24", "fd77::/64"], gateway=["10.77.0.254", "fd77::fe"])


@pytest.fixture
def lans():
    """Two networks with the same addresses, three workloads in blue and one in red, which have no addresses yet."""
    with PortHost() as host:
        made = host.add(4)
        docs = [network("blue"), network("red")]
        for i, w in enumerate(made, 1):
            w.ip4, w.ip6, w.name = f"10.77.0.{i}", f"fd77::{i}", f"port-{i}"
            docs.append(doc.port(w.name, w.device, "red" if i == 4 else "blue", addresses=[w.ip4, w.ip6]))
        host.daemon.apply(*docs)
        for w in made:
            host.wait_port(w.name)
        host.made = made
        yield host


def address(*workloads):
    for w in workloads:
        w.address(f"{w.ip4}/24", f"{w.ip6}/64")


@contextlib.contextmanager
def dhcp_server(w, folder, offered):
    config = folder / "udhcpd.conf"
    lines = ["interface eth0", f"start {offered}", f"end {offered}", f"lease_file {folder}/leases", "opt subnet 255.255.255.0", "opt router 10.77.0.254"]
    config.write_text("\n".join(lines) + "\n")
    (folder / "leases").touch()
    server = w.ns.popen("busybox", "udhcpd", "-f", config, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        line = "started"
        while "started" not in (line := server.stderr.readline()):
            assert server.poll() is None, line
        yield
    finally:
        server.kill()
        server.communicate()


def test_a_lease(lans, tmp_path):
    """A client without an address asks everybody, and both ends make sure that nobody has the one it gets."""
    client, server, other, red = lans.made
    address(server, other, red)
    script = tmp_path / "script"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    heard = {w: Capture(w.ns, "eth0", "udp", "port", "67") for w in (other, red)}
    with dhcp_server(server, tmp_path, client.ip4):
        client.ns.run("busybox", "udhcpc", "-i", "eth0", "-f", "-n", "-q", "-a", "-t", "10", "-T", "2", "-s", script, timeout=60)
    assert client.ip4 in {a["local"] for link in json.loads(client.ns.run("ip", "-j", "addr", "show", "dev", "eth0").stdout) for a in link["addr_info"]}
    assert ping(client.ns, server.ip4) and ping(other.ns, client.ip4)
    assert any("BOOTP/DHCP, Request" in line for line in heard[other].lines())
    assert heard[red].lines() == []


def receiver(w, family):
    s = w.ns.socket(family, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("", PORT))
    with w.ns:
        index = socket.if_nametoindex("eth0")
    if family == socket.AF_INET:
        request = socket.inet_aton(GROUP4) + socket.inet_aton("0.0.0.0") + index.to_bytes(4, "little")
        s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
    else:
        request = socket.inet_pton(socket.AF_INET6, GROUP6) + index.to_bytes(4, "little")
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
    s.setblocking(False)
    return s, index


def drained(s, seen):
    with contextlib.suppress(BlockingIOError):
        while True:
            seen.add(s.recv(64))
    return seen


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
def test_groups_stay_in_their_network(lans, family):
    a, b, c, red = lans.made
    address(*lans.made)
    with contextlib.ExitStack() as stack:
        sockets = {}
        for w in lans.made:
            sockets[w], index = receiver(w, family)
            stack.callback(sockets[w].close)
        with a.ns:
            index = socket.if_nametoindex("eth0")
        with a.ns.socket(family, socket.SOCK_DGRAM) as s, red.ns.socket(family, socket.SOCK_DGRAM) as elsewhere:
            if family == socket.AF_INET:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                s.bind((a.ip4, 0))
                to = {b"group": (GROUP4, PORT), b"all": ("10.77.0.255", PORT), b"everybody": ("255.255.255.255", PORT)}
            else:
                s.bind((a.ip6, 0))
                to = {b"group": (GROUP6, PORT, 0, index), b"all": ("ff02::1", PORT, 0, index)}
            seen = {w: set() for w in lans.made}

            def everybody_in_blue():
                for what, where in to.items():
                    s.sendto(what, where)
                return all(drained(sockets[w], seen[w]) == set(to) for w in (b, c))

            # IPv6 takes a while until its addresses and groups count
            wait_for(everybody_in_blue, what="each kind at each member")
            # Red is as able to hear as blue is: it hears what is sent there.
            elsewhere.bind((red.ip4 if family == socket.AF_INET else red.ip6, 0))
            with red.ns:
                own = socket.if_nametoindex("eth0")
            elsewhere.sendto(b"red", (GROUP4, PORT) if family == socket.AF_INET else (GROUP6, PORT, 0, own))
            wait_for(lambda: b"red" in drained(sockets[red], seen[red]), what="red's own")
            assert seen[red] == {b"red"}
            assert all(b"red" not in drained(sockets[w], seen[w]) for w in (b, c))


def test_an_address_of_ones_own_is_no_duplicate(lans):
    """Duplicate address detection (RFC 4862 section 5.4): nobody answers for the address, though the agent answers for those of others."""
    a, b = lans.made[:2]
    for w in (a, b):
        w.ns.sysctl("net.ipv6.conf.eth0.accept_dad", 1)
        w.ns.ip(f"addr add {w.ip6}/64 dev eth0")

    def states(w):
        (link,) = json.loads(w.ns.run("ip", "-6", "-j", "addr", "show", "dev", "eth0").stdout)
        return {x["local"]: (bool(x.get("tentative")), bool(x.get("dadfailed"))) for x in link["addr_info"]}

    wait_for(lambda: states(a)[a.ip6] == states(b)[b.ip6] == (False, False), what="both addresses count")
    assert ping(a.ns, b.ip6)
