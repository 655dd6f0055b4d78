# SPDX-License-Identifier: Apache-2.0
"""
Port to port on one host: carried by workers of a FastPath, by the same ports' TC programs alone, and by a bridge with nftables. Veths: frames without a
sender's stack (forward.c), and real sockets (traffic.c), in turn; taps: frames that a process writes and reads (taps.c). Who sends has CPU 0, and
with it goes what the first device's programs do; who receives has CPU 1, and a worker with it: on CPU 0 it would be starved by frames that nothing holds back.
"""

import contextlib
import json
import os
import signal
import subprocess
import time

from fastpath import FORWARD, Program
from paths import busy_ns
from ports import BARE, CLIENT, NATIVE, SERVER, STATEFUL, bare_pair, bridge, join, nft_policy, policies, port_documents, rigs_of, workloads
from rigs import BUILD, SERVICE_PORT, TRAFFIC, doc, udp_frame

from lib import cluster
from lib.cluster import WORKLOAD_DEVICE, six
from lib.heddled import wait_for

TC, WORKERS, SPIN = "heddle, TC", "heddle, workers", "heddle, workers that never sleep"
ONE = {"workers": 1, "cpus": [1]}
PORTS = (9000, SERVICE_PORT + 2)
SENT = ("frames", "udp", "rr", "bulk")


def frame(rig):
    """Of a flow that the policy allows."""
    return udp_frame(rig.client_mac, rig.server_mac, rig.client4, rig.server4, *PORTS)


def ends(rig):
    """near: the host's end of the client's veth."""
    if rig.cluster:
        client, server = rig.cluster.workload(CLIENT), rig.cluster.workload(SERVER)
        rig.client_dev = rig.server_dev = WORKLOAD_DEVICE
        rig.client_mac, rig.server_mac, rig.client4 = client.mac, server.mac, CLIENT
        rig.near = (rig.cluster.host, client.device)
    else:
        rig.server_dev, rig.near = rig.uplink, (rig.server, rig.uplink)
    return rig


def pair(stack):
    rig = bare_pair(stack)
    rig.cluster = None
    return rig


def put(rig, devices, ports, fast):
    spec = {"consumer": "forward", "devices": devices, "match": [{}], **fast}
    rig.cluster.put(*ports, *policies(10), *([doc.document("FastPath", "between", spec)] if fast else []), timeout=60)
    if fast:
        wait_for(lambda: path(rig)["state"] == "live", 20, what="workers")


def heddle(**fast):
    """fast: more of the FastPath; none of it: no FastPath."""

    def make(stack):
        c, rig = workloads(stack, mode="l2")
        rig.spins = fast.get("spin")
        put(rig, [c.workload(ip).device for ip in (CLIENT, SERVER)], port_documents(c), fast)
        return rig

    return make


def path(rig):
    return next(iter(rig.cluster.daemon.status()["fastPaths"]), None) if rig.cluster and rig.cluster.daemon else None


def carried(rig):
    """Frames that workers have received so far."""
    return sum(s["rx"] for s in path(rig)["sockets"]) if path(rig) else 0


def asleep(stack, rigs):
    """From now on, but while they are awake(). To be ended they have to be awake."""
    for rig in rigs.values():
        with awake(rig):
            pass
    stack.callback(lambda: [rig.cluster.daemon.process.send_signal(signal.SIGCONT) for rig in rigs.values() if getattr(rig, "spins", False)])


@contextlib.contextmanager
def awake(rig):
    """Workers that never sleep do so while they are measured: they would take a CPU from the others."""
    spins = getattr(rig, "spins", False)
    if spins:
        rig.cluster.daemon.process.send_signal(signal.SIGCONT)
    yield
    if spins:
        rig.cluster.daemon.process.send_signal(signal.SIGSTOP)


def subjects():
    return {
        BARE: pair,
        NATIVE: bridge(nft_policy("bridge", 10)),
        STATEFUL: bridge(nft_policy("inet", 10)),
        TC: heddle(),
        WORKERS: heddle(**ONE),
        SPIN: heddle(**ONE, spin=True),
    }


class Frames:
    """Made on CPU 0, which also does what the sender's device and the programs on it do. Counted behind the making of the skb at the far end."""

    def __init__(self, rig):
        self.rig, self.bytes = rig, frame(rig).hex()
        # veths take such frames by NAPI alone, which they begin when this is turned on; for sockets it is as it always is
        self.ns, self.device = rig.near
        self.ns.run("ethtool", "-K", self.device, "gro", "on")
        counting = type("Server", (), {"ns": rig.server})
        self.counter = Program(counting, "count", rig.server_dev)

    def rate(self, seconds):
        """(frames a second that arrived, CPU ns of the machine for each)"""
        before, busy = self.counter.received(), busy_ns()
        took = json.loads(self.rig.client.run(FORWARD, "send", self.rig.client_dev, seconds, self.bytes, timeout=60).stdout)["seconds"]
        time.sleep(0.02)
        busy, got = busy_ns() - busy, self.counter.received() - before
        return got / took, busy / max(1, got)

    def close(self):
        self.counter.close()
        self.ns.run("ethtool", "-K", self.device, "gro", "off")


def frames(rig, seconds):
    source = Frames(rig)
    try:
        return source.rate(seconds)
    finally:
        source.close()


def sockets(rig, mode, seconds):
    busy = busy_ns()
    out = rig.client.run("taskset", "-c", "0", TRAFFIC, mode, rig.server4, SERVICE_PORT, seconds, timeout=seconds + 20)
    rate = json.loads(out.stdout)["per_second"]
    return rate, (busy_ns() - busy) / max(1, rate * seconds)


# --- taps ---

TAPS = os.path.join(BUILD, "tests/bench/taps")


class Machine:
    """What a cluster has to know of a workload."""

    def __init__(self, number, ip):
        self.device, self.mac, self.ip, self.ip6 = f"tap{number}", f"02:68:70:01:00:{number:02x}", ip, six(ip)


class Machines:
    """Two taps and the process behind them, and whatever joins them."""

    def __init__(self, stack, ruleset=None, **fast):
        self.cluster = c = cluster.Cluster(mode="l2", guarded=ruleset is None)
        stack.callback(c.close)
        self.spins = fast.get("spin")
        ends_ = [Machine(1, CLIENT), Machine(2, SERVER)]
        frames_ = [udp_frame(a.mac, b.mac, a.ip, b.ip, *ports).hex() for a, b, ports in zip(ends_, ends_[::-1], (PORTS, PORTS[::-1]))]
        self.tool = c.host.popen(TAPS, ends_[0].device, ends_[1].device, *frames_, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        stack.callback(self.tool.kill)
        assert self.tool.stdout.readline() == "ready\n"
        for end in ends_:
            c.host.sysctl(f"net.ipv6.conf.{end.device}.disable_ipv6", 1)
            c.host.ip(f"link set {end.device} up")
        devices = [end.device for end in ends_]
        if ruleset:
            join(c.host, devices, ruleset)
        else:
            put(self, devices, port_documents(c, *ends_), fast)

    def ask(self, *words):
        self.tool.stdin.write(" ".join(map(str, words)) + "\n")
        self.tool.stdin.flush()
        return json.loads(self.tool.stdout.readline())


def machines():
    return {
        NATIVE: {"ruleset": nft_policy("bridge", 10)},
        STATEFUL: {"ruleset": nft_policy("inet", 10)},
        TC: {},
        WORKERS: ONE,
        SPIN: {**ONE, "spin": True},
    }


def taps(rounds, seconds, count):
    samples = {}
    with contextlib.ExitStack() as stack:
        rigs = {}
        for name, what in machines().items():
            with contextlib.suppress(AssertionError):  # what this kernel does not have: the veths' table says so
                rigs[name] = Machines(stack, **what)
        asleep(stack, rigs)
        for _ in range(rounds):
            for name, rig in rigs.items():
                with awake(rig):
                    sample = samples.setdefault(name, {"frames": [], "rtt": [], "frames_cpu": []})
                    rig.ask("latency", 50)
                    latency = rig.ask("latency", count)
                    before, busy = carried(rig), busy_ns()
                    rate = rig.ask("rate", seconds)
                    sample["frames"].append(rate["received"])
                    sample["rtt"].append(latency["p50"])
                    sample["frames_cpu"].append((busy_ns() - busy) / max(1, rate["received"] * seconds))
                    assert name not in (WORKERS, SPIN) or carried(rig) - before > rate["received"] * seconds / 2, "not by the workers"
    return samples


def run(rounds, seconds):
    return {**veths(rounds, seconds), "taps": taps(rounds, seconds, 1000)}


def veths(rounds, seconds):
    samples, share = {}, {}
    with contextlib.ExitStack() as stack:
        rigs, skipped = rigs_of(stack, subjects(), (BARE,))
        for rig in map(ends, rigs.values()):
            server = rig.server.popen("taskset", "-c", "1", TRAFFIC, "server", rig.server4, SERVICE_PORT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            stack.callback(server.kill)
            server.stdout.readline()
        asleep(stack, rigs)
        for mode in SENT:
            for _ in range(rounds):
                for name, rig in rigs.items():
                    with awake(rig):
                        before = carried(rig)
                        rate, cpu = frames(rig, seconds) if mode == "frames" else sockets(rig, mode, seconds)
                        after = carried(rig)
                    samples.setdefault(name, {}).setdefault(mode, []).append(rate)
                    samples[name].setdefault(f"{mode}_cpu", []).append(cpu)
                    share.setdefault(name, {}).setdefault(mode, []).append((after - before) / seconds)
    return {"samples": samples, "skipped": skipped, "carried": {n: s for n, s in share.items() if n in (WORKERS, SPIN)}}
