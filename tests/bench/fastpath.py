# SPDX-License-Identifier: Apache-2.0
"""
64-byte frames through a host with two devices (forward.c): the AF_XDP workers beside DPDK's testpmd over net_af_xdp, AF_PACKET with its rings, and
XDP_REDIRECT as the limit, in turn. Each that polls has CPU 1; CPU 0 makes the frames, and takes them in as far as the first device's driver. These move all that
comes and look at nothing. The whole of heddle beside them: the agent with a policy, and UDP that it judges, counts and routes, moved by XDP or by a worker.
"""

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import time

from rigs import BUILD, Heddled, doc, udp_frame
from lib.heddled import wait_for
from lib.netns import Namespace

FORWARD = os.path.join(BUILD, "tests/bench/forward")
TESTPMD = "dpdk-testpmd"
OURS, DPDK, PACKET, LIMIT = "heddle's workers", "testpmd, net_af_xdp", "AF_PACKET, TPACKET_V3", "XDP_REDIRECT"
REDIRECT, WHOLE = "heddle, redirect", "heddle, workers"  # with all that it does to a packet
BATCHES = (1, 4, 16, 32, 64, 128, 256)


class Host:
    """in0 and out0 are the host's devices, in1 and out1 their far ends. All in one namespace: no frame meets a stack."""

    def __init__(self):
        self.frame = None  # forward.c's own
        self.ns = Namespace("forward")
        for one, other in (("in0", "in1"), ("out0", "out1")):
            self.ns.ip(f"link add {one} type veth peer name {other}")
            for device in (one, other):
                self.ns.sysctl(f"net.ipv6.conf.{device}.disable_ipv6", 1)
                self.ns.ip(f"link set {device} up")
                # veths take redirected frames by NAPI alone, which they begin when this is turned on
                self.ns.run("ethtool", "-K", device, "gro", "off")
                self.ns.run("ethtool", "-K", device, "gro", "on")

    def tool(self, *argv):
        return json.loads(self.ns.run(FORWARD, *argv, *([self.frame] if self.frame else []), timeout=60).stdout)

    def close(self):
        self.ns.delete()


class Program:
    """One of forward.c's, running."""

    def __init__(self, host, *argv):
        self.process = host.ns.popen(FORWARD, *argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def received(self):
        self.process.stdin.write(".")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())["received"]

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=10)


class Whole:
    """heddled, which judges, counts and routes what it moves: by XDP, or by a worker that spins."""

    MACS = {"in0": "02:00:00:00:00:02", "out0": "02:00:00:00:00:03", "out1": "02:00:00:00:00:04"}

    def __init__(self, host, way):
        ns = host.ns
        for device, mac in self.MACS.items():
            ns.ip(f"link set {device} address {mac}")
        for device in ("all", "in0", "out0"):
            ns.sysctl(f"net.ipv4.conf.{device}.rp_filter", 0)
        ns.sysctl("net.ipv4.conf.in0.forwarding", 1)
        ns.ip("addr add 198.51.100.1/24 dev in0", "addr add 203.0.113.1/24 dev out0", f"neigh add 203.0.113.7 lladdr {self.MACS['out1']} dev out0")
        host.frame = udp_frame("02:00:00:00:00:01", self.MACS["in0"], "198.51.100.7", "203.0.113.7", 40000, 7000).hex()
        spec = {"consumer": "forward", "devices": ["in0", "out0"], "match": [{}], "way": way}
        if way == "workers":
            spec |= {"cpus": [1], "spin": True, "memory": {"ring": 2048}}
        uplinks = [{"device": device, "xdp": "native"} for device in ("in0", "out0")]
        rules = [{"name": "transit", "action": "allow", "ports": [{"protocol": "UDP", "port": 7000}]}]
        self.daemon = Heddled(
            ns,
            [
                doc.host("in0", "native", uplinks=uplinks, forward="judge", pickupSeconds=0),
                doc.policy(ingress=rules, default=doc.DENY_IN),
                doc.document("FastPath", "between", spec),
            ],
        )
        self.daemon.start()
        wanted = "redirect" if way == "redirect" else "worker-copy"
        wait_for(lambda: [d["way"] for d in self.path()["devices"]] == [wanted] * 2, 20, what=f"all by {wanted}: {self.path()}")

    def path(self):
        return self.daemon.status()["fastPaths"][0]

    def close(self):
        path = self.path()
        self.daemon.remove()
        assert path["taken"] > 100 * (path["passed"] + path["dropped"]), path


class Testpmd:
    def __init__(self, host, *arguments, devices=("in0", "out0")):
        ports = [w for n, d in enumerate(devices) for w in ("--vdev", f"net_af_xdp{n},iface={d}")]
        eal = ["-l", "0,1", "--main-lcore", "0", "--no-huge", "-m", "1024", "--no-pci", "--log-level=lib.eal:4"]
        pmd = ["--nb-cores=1", "--auto-start", "--total-num-mbufs=32768", "--no-mlockall", *arguments]
        self.process = host.ns.popen(TESTPMD, *eal, *ports, "--", *pmd, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # what it says is in its buffers until it ends: it is ready some time after its last XDP program is there
        end = time.monotonic() + 20
        while "xdp" not in host.ns.run("ip", "link", "show", devices[-1]).stdout:
            assert time.monotonic() < end and self.process.poll() is None, "testpmd does not start"
            time.sleep(0.1)
        time.sleep(1)

    def close(self):
        self.process.stdin.write(b"\n")
        self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=10)
        self.process.kill()


@contextlib.contextmanager
def moving(make):
    """(a host, and what moves its frames)"""
    host = Host()
    try:
        program = make(host)
        try:
            yield host, program
        finally:
            program.close()
    finally:
        host.close()


def rate(make, seconds, far=("in1", "out1")):
    """Frames a second that came out of the far end."""
    with moving(make) as (host, _):
        return host.tool("rate", *far, seconds)["received"]


def latency(make, count):
    with moving(make) as (host, _):
        return host.tool("latency", "in1", "out1", count)


def taken(seconds):
    """Frames a second that a worker receives and drops."""
    with moving(lambda host: Program(host, "drop", "in0", "out0")) as (host, program):
        before, begin = program.received(), time.monotonic()
        host.tool("rate", "in1", "out1", seconds)
        return (program.received() - before) / (time.monotonic() - begin)


def run(rounds, seconds, count):
    forward = {
        OURS: lambda host: Program(host, "workers", "in0", "out0"),
        DPDK: lambda host: Testpmd(host, "--forward-mode=io"),
        PACKET: lambda host: Program(host, "packet", "in0", "out0"),
        LIMIT: lambda host: Program(host, "redirect", "in0", "out0"),
        REDIRECT: lambda host: Whole(host, "redirect"),
        WHOLE: lambda host: Whole(host, "workers"),
    }
    echo = {
        OURS: lambda host: Program(host, "echo", "in0", "out0"),
        DPDK: lambda host: Testpmd(host, "--forward-mode=macswap", devices=("in0",)),
    }
    skipped = {}
    if not shutil.which(TESTPMD):
        skipped[DPDK] = "dpdk-testpmd is not installed (Debian's dpdk-dev)"
        del forward[DPDK], echo[DPDK]
    result = {"forward": {n: [] for n in forward}, "echo": {n: [] for n in echo}, "latency": {n: [] for n in forward if n != LIMIT}, "drop": [],
              "batches": {str(b): [] for b in BATCHES}, "handoff": [], "skipped": skipped}  # fmt: skip
    for _ in range(rounds):
        for name, make in forward.items():
            result["forward"][name].append(rate(make, seconds))
            if name in result["latency"]:
                result["latency"][name].append(latency(make, count))
        for name, make in echo.items():
            result["echo"][name].append(rate(make, seconds, ("in1", "in1")))
        result["drop"].append(taken(seconds))
        for batch in BATCHES:
            result["batches"][str(batch)].append(rate(lambda host, batch=batch: Program(host, "workers", "in0", "out0", batch), seconds))
        result["handoff"].append(json.loads(subprocess.run([FORWARD, "handoff", str(seconds)], check=True, capture_output=True, text=True).stdout)["per_second"])
    return result


def ratio(samples, name, other):
    """The median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(samples[name], samples[other]))
