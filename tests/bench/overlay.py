# SPDX-License-Identifier: Apache-2.0
"""
From a workload on one host to one on another, under a policy: beside the kernel's VXLAN device on a bridge, with and without nftables, and
Open vSwitch's userspace datapath. What encapsulation and decapsulation cost by themselves, and a thousand peers with 100,000 addresses.
"""

import contextlib
import os
import socket
import statistics
import subprocess
import tempfile
import time

from paths import traffic_rounds
from ports import BRIDGE_NF, CLIENT, SERVER, frame_to, memory_of, nft_policy, pinned, policies, progbench, rigs_of, why
from programs import save
from rigs import doc, ipv4_number, source, write_sources
from updates import timed

from lib import overlay
from lib.overlay import Fabric

UNDERLAY, INSIDE = 1500, 1450
NET, VNI = 244, 100  # CLIENT and SERVER are of this network


# --- real traffic: rigs with .client, .server and .server4, as in ports.py ---


class Rig:
    def __init__(self, fabric, client, server):
        self.fabric, self.client, self.server, self.server4 = fabric, client.ns, server.ns, server.ip4
        assert (client.ip4, server.ip4) == (CLIENT, SERVER)


def bridge_calls(ns, on):
    """Whether what passes a bridge passes the hooks of IP, too. On by default, where the kernel has that."""
    for key in BRIDGE_NF:
        if os.path.exists(f"/proc/sys/{key.replace('.', '/')}"):
            ns.sysctl(key, int(bool(on)))


def hosts(stack, kind, protocol="vxlan", mode="l2", documents=(), **kwargs):
    fabric = Fabric(4, protocol, mtu=UNDERLAY, work_mtu=INSIDE)
    stack.callback(fabric.close)
    bridge_calls(fabric.ns, False)  # the wire between the hosts is nobody's firewall
    one, two = (getattr(fabric, kind)(**kwargs) for _ in range(2))
    network = fabric.network("blue", VNI, NET, mode=mode)
    client, server = one.work(network, 1, labels={"app": "client"}), two.work(network, 2, labels={"app": "server"})
    for end in (one, two):
        end.extra = list(documents)
    fabric.up()
    return Rig(fabric, client, server)


def heddle(protocol, mode="l2", **kwargs):
    return lambda stack: hosts(stack, "heddle", protocol, mode, policies(10), **kwargs)


def kernel(ruleset=None):
    def make(stack):
        rig = hosts(stack, "kernel")
        for end in rig.fabric.ends:
            bridge_calls(end.ns, ruleset and "table inet" in ruleset)
            if ruleset:
                end.ns.run("nft", "-f", "-", input=ruleset)
        return rig

    return make


def ovs(stack):
    missing = overlay.OvsEnd.missing()
    assert not missing, f"Open vSwitch\n{missing}"
    return hosts(stack, "ovs")


PLAIN = "kernel VXLAN on a bridge, no rules"
NATIVE = "kernel VXLAN on a bridge, nftables with conntrack (table bridge), 10 rules"
STATEFUL = "kernel VXLAN on a bridge, nftables with conntrack (br_netfilter), 10 rules"
STATELESS = "kernel VXLAN on a bridge, nftables without state, 10 rules"
OVS = "Open vSwitch, userspace datapath, VXLAN, no rules"
OURS, OURS_GENEVE, OURS_XDP = "heddle, VXLAN, 10 rules", "heddle, Geneve, 10 rules", "heddle, VXLAN, XDP on the uplinks, 10 rules"
OURS_CHECKSUM = "heddle, VXLAN with UDP checksums, 10 rules"
OPEN = (PLAIN, OVS)  # of these the policy's closed port is open


def subjects():
    return {
        PLAIN: kernel(),
        NATIVE: kernel(nft_policy("bridge", 10)),
        STATELESS: kernel(nft_policy("bridge", 10, stateful=False)),
        STATEFUL: kernel(nft_policy("inet", 10)),
        OVS: ovs,
        OURS: heddle("vxlan"),
        "heddle, VXLAN, routed (l3), 10 rules": heddle("vxlan", "l3"),
        OURS_GENEVE: heddle("geneve"),
        OURS_CHECKSUM: heddle("vxlan", tunnel={"checksum": "full"}),
        OURS_XDP: heddle("vxlan", xdp="native"),
    }


def paths(rounds, seconds):
    with contextlib.ExitStack() as stack:
        rigs, skipped = rigs_of(stack, subjects(), OPEN, lambda name: 5 if name in OPEN else 1)
        return {"samples": traffic_rounds(rigs, rounds, seconds, placed=True, busy=True), "skipped": skipped}


# --- nanoseconds a packet ---


def udp_flow(a, b, sport, dport):
    """An established flow: a datagram, and its answer."""
    with a.ns.socket(kind=socket.SOCK_DGRAM) as c, b.ns.socket(kind=socket.SOCK_DGRAM) as s:
        for sock, address in ((c, (a.ip4, sport)), (s, (b.ip4, dport))):
            sock.bind(address)
            sock.settimeout(5)
        for _ in range(3):
            c.sendto(b"x", (b.ip4, dport))
            data, sender = s.recvfrom(64)
            s.sendto(data, sender)
            c.recv(64)


def udp_frame(a, b, sport, dport):
    from scapy.all import IP, UDP, Ether, Raw

    return Ether(src=a.mac, dst=b.mac) / IP(src=a.ip4, dst=b.ip4) / UDP(sport=sport, dport=dport) / Raw(b"x" * 22)


class Wrapped:
    """Packets of an established flow to a peer and from it, and of one between two ports here."""

    def __init__(self, folder, protocol, family):
        self.fabric = Fabric(family, protocol, mtu=UNDERLAY, work_mtu=INSIDE - 20 * (family == 6))
        try:
            f = self.fabric
            self.one, two = f.heddle(xdp="native", tunnel={"decapsulate": "xdp"}), f.heddle()
            blue = f.network("blue", VNI, NET)
            a, near, b = self.one.work(blue, 1), self.one.work(blue, 3), two.work(blue, 2)
            f.up()
            udp_flow(a, b, 5000, 6000)
            udp_flow(a, near, 5001, 6001)
            out = save(folder, f"out-{protocol}-{family}", bytes(udp_frame(a, b, 5000, 6000)))
            local = save(folder, f"local-{protocol}-{family}", bytes(udp_frame(a, near, 5001, 6001)))
            ends = {"source": two.address, "destination": self.one.address, "to_mac": f.mac(1), "from_mac": f.mac(2)}
            back = overlay.wrap(udp_frame(b, a, 6000, 5000), VNI, protocol=protocol, **ends, **({"flags": "DF", "ttl": 64} if family == 4 else {}))
            back = save(folder, f"in-{protocol}-{family}", bytes(back))
            port_in = pinned(self.one.daemon, "tc_port_in")
            progs = os.path.join(self.one.daemon.bpffs, "heddle", "progs")
            self.port = (self.one.ns, self.one.ns.ifindex(a.device))
            self.uplink = (self.one.ns, self.one.ns.ifindex(overlay.UPLINK))
            self.out = [f"empty=tc,empty_tc,{out},-,0", f"encapsulation=tc,{port_in},{out},-,0", f"local delivery=tc,{port_in},{local},-,0"]
            if family == 6:
                self.out += [f"{name}=tc,{name}_tc,{out},-,0" for name in ("room4", "room6")]
            self.back = [
                f"empty tc=tc,empty_tc,{back},-,0",
                f"decapsulation tc=tc,{progs}/tc_uplink_in,{back},-,0",
                f"empty xdp=xdp,empty_xdp,{back},-,0",
                f"decapsulation xdp=xdp,{progs}/xdp_uplink,{back},-,0",
            ]
            self.floor = [f"tc=tc,empty_tc,{out},-,0", f"xdp=xdp,empty_xdp,{out},-,0"]
        except BaseException:
            self.fabric.close()
            raise

    def measure(self, repeat):
        """{what: (ns above the empty program, return value)}, and {hook: ns of the empty program in a loop}."""
        out = progbench(*self.port, self.out, "--fresh", "--repeat", repeat)
        back = progbench(*self.uplink, self.back, "--fresh", "--repeat", repeat)
        floor = progbench(*self.uplink, self.floor, "--repeat", repeat * 5)
        result = {name: (out[name]["ns"] - out["empty"]["ns"], out[name]["retval"]) for name in ("encapsulation", "local delivery")}
        if "room6" in out:
            result["new buffer"] = (out["room6"]["ns"] - out["room4"]["ns"], 0)
        for hook in ("tc", "xdp"):
            name, empty = f"decapsulation {hook}", back[f"empty {hook}"]
            if back[name]["length"] < empty["length"]:  # otherwise it left that to somebody else
                result[name] = (back[name]["ns"] - empty["ns"], back[name]["retval"])
        return result, {hook: floor[hook]["ns"] for hook in floor}


TC_REDIRECT, XDP_PASS = 7, 2


def programs(rounds, repeat):
    """
    {tunnel: {what: median ns above the empty program}}, interleaved; and the empty programs. "new buffer": what the encapsulation costs more
    than outside of test runs, whose packets have no headroom for the headers of IPv6.
    """
    samples, floors = {}, {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        subjects_ = {}
        for name, protocol, family in (("vxlan", "vxlan", 4), ("geneve", "geneve", 4), ("vxlan6", "vxlan", 6)):
            subjects_[name] = Wrapped(folder, protocol, family)
            stack.callback(subjects_[name].fabric.close)
        for _ in range(rounds):
            for name, subject in subjects_.items():
                costs, floor = subject.measure(repeat)
                assert costs["encapsulation"][1] == costs["local delivery"][1] == TC_REDIRECT, costs
                assert costs.get("decapsulation xdp", (0, XDP_PASS))[1] == XDP_PASS, costs
                for what, (ns, _) in costs.items():
                    samples.setdefault(name, {}).setdefault(what, []).append(ns)
                for hook, ns in floor.items():
                    floors.setdefault(hook, []).append(ns)
        return {
            "costs": {name: {what: statistics.median(ns) for what, ns in costs.items()} for name, costs in samples.items()},
            "floors": {hook: statistics.median(ns) for hook, ns in floors.items()},
        }


# --- scale ---


class Many:
    """So many peers with so many addresses each, all in one network; `a` is a workload here."""

    def __init__(self, folder, peers, addresses):
        self.peers, self.addresses = peers, addresses
        self.fabric = Fabric(4, mtu=UNDERLAY, work_mtu=INSIDE)
        try:
            f = self.fabric
            self.end = f.heddle()
            f.ns.ip("addr add 192.168.77.254/24 dev br0")
            self.end.ns.run("ip", "route", "add", "default", "via", "192.168.77.254")
            self.network = f.network("blue", VNI, NET, mode="l3")
            self.network.spec.update(subnets=["10.0.0.0/8", "fd44::/64"], gateway=["10.255.255.254", "fd44::fe"])
            self.network.gateway[4] = "10.255.255.254"
            a = self.end.work(self.network, 1)
            f.up()
            daemon = self.end.daemon
            self.empty = memory_of(daemon)
            documents = doc.text(*(self.peer(i) for i in range(peers)))
            daemon.api.timeout = 600
            self.load_ms = timed(lambda: daemon.api.post("/v1/apply", documents))
            self.changed = [self.change(i) for i in range(5)]
            time.sleep(1)
            self.memory = memory_of(daemon)
            # The next hop is the gateway for all of them
            time.sleep(1)
            total = peers * addresses
            step = max(1, total // 1000)
            chosen = [self.address(i) for i in range(0, total, step)][:1000]
            entries = [source(ipv4_number(chosen[i % len(chosen)]), 1024 + i // len(chosen) % 60000) for i in range(64_000)]
            drawn = write_sources(os.path.join(folder, f"many{total}"), entries)
            every = [source(ipv4_number(self.address(i * 7919 % total)), 1024 + i % 60000) for i in range(100_000)]
            everyone = write_sources(os.path.join(folder, f"every{total}"), every)
            frame = frame_to("02:68:65:64:64:6c", a.mac, a.ip4, self.address(0), 80)
            syn = save(folder, f"syn{total}", frame)
            self.ns, self.ifindex = self.end.ns, self.end.ns.ifindex(a.device)
            port_in = pinned(daemon, "tc_port_in")
            self.subjects = [
                f"base=tc,empty_tc,{syn},{drawn},{len(entries)}", f"drawn=tc,{port_in},{syn},{drawn},{len(entries)}",
                f"every=tc,{port_in},{syn},{everyone},{len(every)}",
            ]  # fmt: skip
        except BaseException:
            self.fabric.close()
            raise

    @staticmethod
    def address(i):
        return f"10.{1 + (i >> 16)}.{i >> 8 & 255}.{i & 255}"

    def peer(self, i, label="x"):
        ports = []
        for j in range(self.addresses):
            n = i * self.addresses + j
            mac = f"02:88:{n >> 24 & 255:02x}:{n >> 16 & 255:02x}:{n >> 8 & 255:02x}:{n & 255:02x}"
            ports.append({"name": f"w{n}", "network": "blue", "mac": mac, "addresses": [self.address(n)], "labels": {"app": label}})
        return doc.document("Peer", f"peer-{i}", {"address": f"172.16.{i // 200}.{i % 200 + 1}", "ports": ports})

    def change(self, i):
        """One peer's document, all of its workloads relabelled."""
        body = doc.text(self.peer(3 % self.peers, f"x{i}"))
        time.sleep(0.2)
        return timed(lambda: self.end.daemon.api.post("/v1/apply", body))


def scale(rounds, repeat, counts=((10, 1), (1000, 100))):
    """By (peers, addresses of each): loading, a change, memory, and a new flow to one of 1,000 of the addresses, or of all."""
    samples, rigs = {}, {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        for count in counts:
            rigs[count] = Many(folder, *count)
            stack.callback(rigs[count].fabric.close)
        for _ in range(rounds):
            for count, rig in rigs.items():
                ns = progbench(rig.ns, rig.ifindex, rig.subjects, "--fresh", "--repeat", repeat)
                assert ns["drawn"]["retval"] == TC_REDIRECT, f"{count}: the SYN did not leave ({ns})"
                for draw in ("drawn", "every"):
                    samples.setdefault((count, draw), []).append(ns[draw]["ns"] - ns["base"]["ns"])
        return {
            f"{peers},{addresses}": {
                "ns": statistics.median(samples[(peers, addresses), "drawn"]),
                "every_ns": statistics.median(samples[(peers, addresses), "every"]),
                "load_ms": rig.load_ms,
                "change_ms": statistics.median(rig.changed),
                "memory": rig.memory,
                "memory_empty": rig.empty,
            }
            for (peers, addresses), rig in rigs.items()
        }


def run(rounds, seconds, quick=False):
    result = {}
    parts = {
        "paths": lambda: paths(rounds, seconds),
        "programs": lambda: programs(3 if quick else 15, 2000 if quick else 20_000),
        "scale": lambda: scale(3 if quick else 9, 10_000),
    }
    for name, part in parts.items():
        try:
            result[name] = part()
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            result[name] = {"failed": why(error)}
    return result


