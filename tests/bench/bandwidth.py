# SPDX-License-Identifier: Apache-2.0
"""
How near one TCP stream comes to the rate of a port: from a port, to one, and with the host at the other end. What has arrived is counted at the device of
who receives, once the burst that may go ahead is through, over seconds: TCP comes in bursts between its timeouts.
"""

import contextlib
import json
import subprocess
import time

from rigs import TRAFFIC, doc

from lib.ports import PortHost

BLUE = doc.network("blue", subnets=["10.77.0.0/24"], gateway=["10.77.0.254"], routesTo=["host"])
NODE = "192.0.2.1"
RATES = {"100 Mbit/s": ("100M", 100_000_000), "1 Gbit/s": ("1G", 1_000_000_000)}
PORT = 7700
HEADERS = 52  # IP and TCP with timestamps: they count, 14 bytes of Ethernet do not
WARM_UP = 2.0


def arrived(ns, device, mtu=1500):
    """Bytes of IP packets as they would be on a wire: a device counts many segments as one packet."""
    (link,) = json.loads(ns.run("ip", "-j", "-s", "link", "show", device).stdout)
    received = link["stats64"]["rx"]
    payload = received["bytes"] - received["packets"] * (HEADERS + 14)
    return payload * mtu / (mtu - HEADERS)


def measure(client, server, address, device, seconds):
    """bit/s."""
    with contextlib.ExitStack() as stack:
        listening = server.popen(TRAFFIC, "server", address, PORT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        stack.callback(lambda: (listening.kill(), listening.wait()))
        listening.stdout.readline()
        sending = client.popen(TRAFFIC, "bulk", address, PORT, WARM_UP + seconds + 2, stdout=subprocess.DEVNULL)
        stack.callback(lambda: (sending.kill(), sending.wait()))
        time.sleep(WARM_UP)
        before, begin = arrived(server, device), time.monotonic()
        time.sleep(seconds)
        return (arrived(server, device) - before) * 8 / (time.monotonic() - begin)


def run(rounds, seconds):
    """{rate: {way: [share of the rate]}}"""
    result = {}
    with PortHost() as host:
        host.ns.ip(f"addr add {NODE}/32 dev lo")
        a, b = host.add(2)
        for w in (a, b):
            w.ip = f"10.77.0.{w.number}"
            w.address(f"{w.ip}/24")
            w.via("10.77.0.254")

        def put(first, second):
            limits = [{"bandwidth": limit} if limit else {} for limit in (first, second)]
            host.daemon.apply(BLUE, *(doc.port(f"p{w.number}", w.device, "blue", addresses=[w.ip], **more) for w, more in zip((a, b), limits)))
            for w in (a, b):
                host.wait_port(f"p{w.number}", timeout=30)

        for name, (text, rate) in RATES.items():
            ways = {
                "from a port": ({"egress": {"rate": text}}, None, a.ns, b.ns, b.ip, "eth0"),
                "to a port": (None, {"ingress": {"rate": text}}, a.ns, b.ns, b.ip, "eth0"),
                "to a port, from the host": (None, {"ingress": {"rate": text}}, host.ns, b.ns, b.ip, "eth0"),
            }
            result[name] = {way: [] for way in ways}
            for _ in range(rounds):
                for way, (first, second, *ends) in ways.items():
                    put(first, second)
                    result[name][way].append(measure(*ends, seconds) / rate)
    return result
