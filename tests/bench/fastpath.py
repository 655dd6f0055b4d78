# SPDX-License-Identifier: Apache-2.0
"""
64-byte frames through a host with two devices (forward.c): the AF_XDP workers beside DPDK's testpmd over net_af_xdp, AF_PACKET with its rings, and
XDP_REDIRECT as the limit, in turn. Each that polls has CPU 1; CPU 0 makes the frames, and takes them in as far as the first device's driver.
"""

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import time

from rigs import BUILD
from lib.netns import Namespace

FORWARD = os.path.join(BUILD, "tests/bench/forward")
TESTPMD = "dpdk-testpmd"
OURS, DPDK, PACKET, LIMIT = "heddle's workers", "testpmd, net_af_xdp", "AF_PACKET, TPACKET_V3", "XDP_REDIRECT"
BATCHES = (1, 4, 16, 32, 64, 128, 256)


class Host:
    """in0 and out0 are the host's devices, in1 and out1 their far ends. All in one namespace: no frame meets a stack."""

    def __init__(self):
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
        return json.loads(self.ns.run(FORWARD, *argv, timeout=60).stdout)

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


def rate(make, seconds, far=("in1", "out1")):
    """Frames a second that came out of the far end."""
    host = Host()
    try:
        program = make(host)
        try:
            return host.tool("rate", *far, seconds)["received"]
        finally:
            program.close()
    finally:
        host.close()


def latency(make, count):
    host = Host()
    try:
        program = make(host)
        try:
            return host.tool("latency", "in1", "out1", count)
        finally:
            program.close()
    finally:
        host.close()


def taken(seconds):
    """Frames a second that a worker receives and drops."""
    host = Host()
    try:
        program = Program(host, "drop", "in0", "out0")
        try:
            before, begin = program.received(), time.monotonic()
            host.tool("rate", "in1", "out1", seconds)
            return (program.received() - before) / (time.monotonic() - begin)
        finally:
            program.close()
    finally:
        host.close()


def run(rounds, seconds, count):
    forward = {
        OURS: lambda host: Program(host, "workers", "in0", "out0"),
        DPDK: lambda host: Testpmd(host, "--forward-mode=io"),
        PACKET: lambda host: Program(host, "packet", "in0", "out0"),
        LIMIT: lambda host: Program(host, "redirect", "in0", "out0"),
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
