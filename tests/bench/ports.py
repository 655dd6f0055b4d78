# SPDX-License-Identifier: Apache-2.0
"""
Port to port on one host: two workloads under a policy, beside a Linux bridge with and without nftables, and a bare veth pair between the
two as the limit. And what a thousand ports under a thousand policies cost.
"""

import contextlib
import itertools
import json
import os
import re
import signal
import statistics
import subprocess
import tempfile
import time

from paths import PLACED, traffic_rounds
from programs import PEERS, save
from rigs import FIRST, PROGBENCH, SERVICE_PORT, SHELL, Pair, doc, ipv4_number, new_flow_sources, prefixes, rule_port, source, write_sources
from updates import memory, timed

from lib import cluster, netns, traffic
from lib.cluster import Pod, network_policy
from lib.heddled import ROOT, Heddled

CLIENT, SERVER = "10.244.0.1", "10.244.0.2"
BRIDGE_NF = ("net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables", "net.bridge.bridge-nf-call-arptables")


# --- the same policy in every language ---


def policies(count, per_policy=1000):
    """
    The server is isolated: count rules of one block and one port each, and the service for the client, which may reach nobody else.
    """
    blocks = prefixes(count)
    server = {"matchLabels": {"app": "server"}}
    result = []
    for start in range(0, count, per_policy):
        ingress = [
            {"from": [{"ipBlock": {"cidr": blocks[i]}}], "ports": [{"protocol": "TCP", "port": rule_port(i)}]}
            for i in range(start, min(start + per_policy, count))
        ]
        spec = {"podSelector": server, "policyTypes": ["Ingress"], "ingress": ingress}
        result.append(network_policy(f"rules-{start // per_policy:04d}", spec))
    service = [{"protocol": p, "port": SERVICE_PORT, "endPort": SERVICE_PORT + 3} for p in ("TCP", "UDP")]
    client = {"matchLabels": {"app": "client"}}
    allow = {"podSelector": server, "policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": client}], "ports": service}]}
    reach = {"podSelector": client, "policyTypes": ["Egress"], "egress": [{"to": [{"podSelector": server}]}]}
    return [*result, network_policy("service", allow), network_policy("client", reach)]


def nft_policy(family, count, stateful=True, as_set=False):
    """In the forward chain of the bridge (family bridge), or of the IP stack that br_netfilter lends it (family inet)."""
    blocks = list(enumerate(prefixes(count)))
    declaration, rules = "", ""
    if as_set:
        elements = ",".join(f"{block} . {rule_port(i)}" for i, block in blocks)
        declaration = f"set peers {{ type ipv4_addr . inet_service; flags interval; elements = {{ {elements} }} }}\n"
        rules = f"ip daddr {SERVER} ip saddr . tcp dport @peers accept\n"
    else:
        rules = "".join(f"ip saddr {block} ip daddr {SERVER} tcp dport {rule_port(i)} accept\n" for i, block in blocks)
    before = "ct state established,related accept\n" if stateful else f"ip saddr {SERVER} ip daddr {CLIENT} accept\n"
    if family == "bridge":
        before = "ether type arp accept\n" + before
    service = f"ip saddr {CLIENT} ip daddr {SERVER}"
    return f"""table {family} guard {{
{declaration}chain f {{ type filter hook forward priority 0; policy drop;
{before}{rules}{service} tcp dport {SERVICE_PORT}-{SERVICE_PORT + 3} accept
{service} udp dport {SERVICE_PORT}-{SERVICE_PORT + 3} accept
}}
}}
"""


# --- rigs: each has .client and .server (namespaces) and .server4; those of workloads .cluster ---


class Rig:
    def __init__(self, cluster_, client, server, server4):
        self.cluster, self.client, self.server, self.server4 = cluster_, client, server, server4


def bare_pair(stack):
    pair = Pair()
    stack.callback(pair.close)
    return pair


def workloads(stack, **kwargs):
    c = cluster.Cluster(**kwargs)
    stack.callback(c.close)
    return c, Rig(c, c.workload(CLIENT).ns, c.workload(SERVER).ns, SERVER)


def join(host, devices, ruleset=None):
    """By a bridge."""
    # br_netfilter hands frames to the IP stack's hooks only where rules of the IP stack are asked for: it costs
    for name in BRIDGE_NF:
        host.sysctl(name, int(bool(ruleset and "table inet" in ruleset)))
    host.ip("link add br0 type bridge", *(f"link set {d} master br0" for d in devices), "link set br0 up")
    if ruleset:
        host.run("nft", "-f", "-", input=ruleset)


def bridge(ruleset=None):
    def make(stack):
        c, rig = workloads(stack, mode="l2", guarded=False)
        join(c.host, [w.device for w in c.workloads.values()], ruleset)
        return rig

    return make


def port_documents(c, client=None, server=None):
    """client, server: where they are, if they are none of the cluster's workloads."""
    ends = ("client", CLIENT, client), ("server", SERVER, server)
    return [c.port_document(Pod("default", name, ip, {"app": name}), end) for name, ip, end in ends]


def heddle(mode, count):
    def make(stack):
        c, rig = workloads(stack, mode=mode)
        c.put(*port_documents(c), *policies(count), timeout=60)
        return rig

    return make


STATEFUL, STATELESS = "bridge, nftables with conntrack (br_netfilter), 10 rules", "bridge, nftables without state, 10 rules"
NATIVE = "bridge, nftables with conntrack (table bridge), 10 rules"
BARE, PLAIN = "bare veth pair", "bridge, no rules"
SWITCHED, ROUTED = "heddle, switched (l2), 10 rules", "heddle, routed (l3), 10 rules"


def subjects():
    return {
        BARE: bare_pair,
        PLAIN: bridge(),
        # Needs NF_CONNTRACK_BRIDGE, which not every kernel has: then it is left out, and the table says so.
        NATIVE: bridge(nft_policy("bridge", 10)),
        STATELESS: bridge(nft_policy("bridge", 10, stateful=False)),
        STATEFUL: bridge(nft_policy("inet", 10)),
        "bridge, nftables with conntrack (br_netfilter), set of 10,000": bridge(nft_policy("inet", 10_000, as_set=True)),
        SWITCHED: heddle("l2", 10),
        ROUTED: heddle("l3", 10),
        "heddle, routed (l3), 10,000 rules": heddle("l3", 10_000),
    }


def why(error):
    """One line of what a rig said when it could not be made: the first one that is no command line."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[1:] or lines or [repr(error)])[0].strip()


def rigs_of(stack, makers, unguarded, patience=lambda name: 1):
    """{name: rig}, and {name: why} of those that this kernel has not. unguarded: names of those that filter nothing."""
    rigs, skipped = {}, {}
    for name, make in makers.items():
        try:
            rig = make(stack)
            # That a firewall is fast means something only if it filters.
            got = traffic.tcp_probe(rig.client, rig.server4, SERVICE_PORT - 1, patience(name))
            want = "refused" if name in unguarded else "timeout"
            assert got == want, f"{name}\na port that the policy closes: {got}, not {want}"
            rigs[name] = rig
        except AssertionError as error:
            skipped[name] = "this kernel has no connection tracking for bridges" if "(table bridge)" in name else why(error)
    return rigs, skipped


def paths(rounds, seconds):
    with contextlib.ExitStack() as stack:
        rigs, skipped = rigs_of(stack, subjects(), (BARE, PLAIN))
        return {"samples": traffic_rounds(rigs, rounds, seconds, placed=True, modes=PLACED), "skipped": skipped}


# --- scale ---


class Scale:
    """Many ports in one namespace, every one with labels of its own: veth pairs whose other ends are in a second one, but for `near`."""

    def __init__(self, count, policy_count, networks=1, mode="l3", near=(), files=False):
        self.stack = contextlib.ExitStack()
        self.count, self.networks, self.mode = count, networks, mode
        try:
            self.ns = netns.Namespace("scale")
            self.stack.callback(self.ns.delete)  # does nothing the second time
            self.far = netns.Namespace("far")
            self.stack.callback(self.far.delete)
            for ns, key in itertools.product((self.ns, self.far), ("all", "default")):
                ns.sysctl(f"net.ipv6.conf.{key}.disable_ipv6", 1)
            lines = [
                f"link add name p{i} address {self.mac(i, 1)} up type veth peer name w{i} address {self.mac(i, 0)}"
                + ("" if i in near else f" netns {self.far.name}")
                for i in range(count)
            ]
            self.made_ms = timed(lambda: self.ns.ip(*lines))
            self.daemon = Heddled(self.ns, [doc.host(uplinks=[]), *(self.network(n) for n in range(networks))])
            self.stack.callback(self.daemon.remove)
            # The daemon first, then all devices at once, then the directories: thousands of links one by one take their time.
            self.stack.callback(self.ns.delete)
            self.stack.callback(self.daemon.kill)
            everything = [*map(self.port, range(count)), *map(self.policy, range(policy_count))]
            self.daemon.api.timeout = 600  # attaching to thousands of devices takes its time
            if files:  # one each, as who keeps them in a repository has them
                for document in everything:
                    self.daemon.write(f"{document['metadata']['name']}.yaml", document)
                self.load_ms = timed(lambda: self.daemon.start(timeout=60))
                return
            self.daemon.start(timeout=60)
            self.base = memory_of(self.daemon)
            self.load_ms = timed(lambda: self.daemon.api.post("/v1/apply", doc.text(*everything)))
        except BaseException:
            self.stack.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stack.close()

    @staticmethod
    def mac(i, side):
        return f"02:70:{side:02x}:{i >> 16:02x}:{i >> 8 & 255:02x}:{i & 255:02x}"

    def network(self, n):
        return doc.document("Network", f"n{n}", {"mode": self.mode, "subnets": [f"10.{n}.0.0/16"], "gateway": [f"10.{n}.255.254"]})

    def address(self, i):
        host = i // self.networks + 1
        return f"10.{i % self.networks}.{host >> 8}.{host & 255}"

    def port(self, i, group=None):
        labels = {"app": f"a{i}", "group": f"g{i % 100 if group is None else group}"}
        spec = {"device": f"p{i}", "network": f"n{i % self.networks}", "mac": self.mac(i, 0), "addresses": [self.address(i)]}
        return cluster.namespaced("Port", "default", f"port-{i}", spec, labels=labels)

    def policy(self, i):
        """Each selects one port; ten others may reach it."""
        spec = {
            "podSelector": {"matchLabels": {"app": f"a{i}"}},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [{"podSelector": {"matchLabels": {"group": f"g{(i + 1) % 100}"}}}],
                    "ports": [{"protocol": "TCP", "port": 1000 + i % 1000}],
                }
            ],
        }
        return network_policy(f"policy-{i}", spec)


def policy_maps():
    with open(os.path.join(ROOT, "maps/policy.bpf.h"), encoding="utf-8") as f:
        return set(re.findall(r"^\} (\w+) SEC\(\"\.maps\"\);", f.read(), re.M))


def memory_of(daemon):
    result = memory(daemon)
    names, total = policy_maps(), 0
    for path in daemon.pinned_maps():
        if os.path.basename(path) in names:
            total += daemon.bpftool("map", "show", "pinned", path).get("bytes_memlock", 0)
    return {**result, "policy_kib": total // 1024}


def label_changes(scale, rounds):
    """One port's labels change: its document posted, to in force. The answer of the API comes when it is."""
    times = []
    for i in range(rounds):
        body = doc.text(scale.port(500 % scale.count, group=(i + 1) % 100))
        time.sleep(0.2)  # right behind another it would wait for that one's grace period as well
        times.append(timed(lambda body=body: scale.daemon.api.post("/v1/apply", body)))
    return times


def label_edits(scale, rounds):
    """The same by a file: renamed over the old one, to when the API has the object so. It is asked all the time, which costs the daemon little."""
    times, name = [], f"port-{500 % scale.count}"
    time.sleep(3)  # younger files are read again each time
    for i in range(rounds):
        document = scale.port(500 % scale.count, group=(i + 1) % 100)
        time.sleep(0.2)

        def edit(document=document):
            scale.daemon.write(f"{name}.yaml", document)
            while scale.daemon.api.get(f"/v1/objects/port/{name}")["metadata"]["labels"] != document["metadata"]["labels"]:
                time.sleep(0.0005)

        times.append(timed(edit))
    return times


def thousand(rounds, count=1000):
    with Scale(count, count) as scale:
        changes = label_changes(scale, rounds)
        added = []
        for _ in range(3):
            time.sleep(0.2)
            scale.daemon.api.delete(f"/v1/objects/port/port-{count - 1}")
            time.sleep(0.2)
            added.append(timed(lambda: scale.daemon.api.post("/v1/apply", doc.text(scale.port(count - 1)))))
        time.sleep(1)
        result = {
            "ports": count,
            "made_ms": scale.made_ms,
            "load_ms": scale.load_ms,
            "change_ms": statistics.median(changes),
            "change_worst_ms": max(changes),
            "add_port_ms": statistics.median(added),
            "memory": memory_of(scale.daemon),
            "memory_empty": scale.base,
        }
    with Scale(count, count, files=True) as scale:
        edits = label_edits(scale, rounds)
        return {**result, "edit_ms": statistics.median(edits), "edit_worst_ms": max(edits)}


class Appearing(Scale):
    """The documents are there; the devices come and go."""

    def __init__(self, count):
        super().__init__(0, 0)
        self.count = count
        self.daemon.api.post("/v1/apply", doc.text(*map(self.port, range(count)), *map(self.policy, range(count))))

    def states(self):
        return {port["state"] for port in self.daemon.status()["ports"]}

    def wait(self, state):
        while self.states() != {state}:
            time.sleep(0.002)

    def appear(self):
        """The agent is stopped while they are made, so that to it all come at once. ms from then to the last one ready."""
        os.kill(self.daemon.process.pid, signal.SIGSTOP)
        try:
            self.ns.ip(
                *(
                    f"link add name p{i} address {self.mac(i, 1)} up type veth peer name w{i} address {self.mac(i, 0)} netns {self.far.name}"
                    for i in range(self.count)
                )
            )
            self.far.ip(*(f"link set w{i} up" for i in range(self.count)))
        finally:
            os.kill(self.daemon.process.pid, signal.SIGCONT)
        taken = timed(lambda: self.wait("ready"))
        self.ns.ip(*(f"link delete p{i}" for i in range(self.count)))
        self.wait("waiting")
        return taken


def appearing(rounds, count=128):
    """The first time too: nothing was attached to any port before."""
    with Appearing(count) as scale:
        times = [scale.appear() for _ in range(rounds)]
        return {"ports": count, "first_ms": times[0], "median_ms": statistics.median(times), "worst_ms": max(times)}


# --- what a new flow costs ---


def frame_to(mac, source_mac, source_address, destination, dport):
    from scapy.all import IP, TCP, Ether, Raw

    tcp = TCP(sport=1234, dport=dport, flags="S", seq=1000, options=[("NOP", None), ("NOP", None), ("Timestamp", (1, 1))])
    return bytes(Ether(src=source_mac, dst=mac) / IP(src=source_address, dst=destination) / tcp / Raw(b"x" * 8))


def progbench(ns, ifindex, subject_list, *options):
    command = (*FIRST, PROGBENCH, "measure", "--shell", SHELL, "--ifindex", ifindex, "--rounds", 1, *options, *subject_list)
    result = ns.run(*command, timeout=600)
    return json.loads(result.stdout)


def pinned(daemon, hook):
    """A path of the program behind a hook of ports, for progbench to open. It goes with the daemon's bpffs."""
    path = os.path.join(daemon.bpffs, f"bench_{hook}")
    number = next(p["id"] for p in daemon.status()["programs"] if p["hook"] == hook)
    daemon.ns.run("bpftool", "prog", "pin", "id", number, path)
    return path


class Outside:
    """
    A port that rules of blocks and ports guard, and what the host forwards to it from outside: tc_port_out. "new": its source drawn from PEERS
    of the blocks, "every": from all of them.
    """

    def __init__(self, folder, count):
        self.cluster = cluster.Cluster("l3", networks=[cluster.NETWORK], routesTo=["host"])
        try:
            c = self.cluster
            c.put(c.port_document(Pod("default", "server", SERVER, {"app": "server"})))
            self.policies = policies(count)
            # As objects of the API, so that one of them can be changed by itself
            self.load_ms = timed(lambda: c.daemon.api.post("/v1/apply", doc.text(*self.policies)))
            w = c.workload(SERVER)
            self.ns, self.ifindex = c.host, c.host.ifindex(w.device)
            drawn = {
                draw: write_sources(os.path.join(folder, f"{draw}{count}"), new_flow_sources(count, blocks))
                for draw, blocks in (("new", min(PEERS, count)), ("every", count))
            }
            syn = save(folder, f"outsyn{count}", frame_to(w.mac, "02:68:65:64:64:6c", "16.0.0.1", SERVER, 80))
            program = pinned(c.daemon, "tc_port_out")
            self.subjects = [f"base=tc,empty_tc,{syn},{drawn['every']},131000"]
            self.subjects += [f"{draw}=tc,{program},{syn},{sources},131000" for draw, sources in drawn.items()]
            # forwarded, not the host's own
            self.options = ["--ingress", 1]
        except BaseException:
            self.cluster.close()
            raise

    def updates(self, rounds):
        """One rule of the first policy (up to 1,000 rules) changes; what it all takes."""
        daemon, changed, times = self.cluster.daemon, self.policies[0], []
        for i in range(rounds):
            changed["spec"]["ingress"][5]["ports"][0]["port"] = 50000 + i
            body = doc.text(changed)
            time.sleep(0.2)
            times.append(timed(lambda body=body: daemon.api.post("/v1/apply", body)))
        time.sleep(1)
        return {"load_ms": self.load_ms, "change_ms": statistics.median(times), "memory": memory_of(daemon)}

    def close(self):
        self.cluster.close()


class Between:
    """
    Port to port with so many ports around, each an identity; the flows are new because their ports are. Switched, and to a workload in the
    host's own namespace: otherwise the packet is changed (routed; made one for the host), and BPF_PROG_TEST_RUN gives the same one again.
    """

    def __init__(self, folder, count):
        networks = (count + 999) // 1000
        self.scale = Scale(count, min(count, 1000), networks, mode="l2", near=(networks,))
        try:
            s = self.scale
            self.ns, self.ifindex = s.ns, s.ns.ifindex("p0")
            # From port-0 to a port of its network, as that one's policy wants it
            target = networks
            s.daemon.api.post("/v1/apply", doc.text(s.port(0, group=(target + 1) % 100)))
            entries = (source(ipv4_number(s.address(0)), 1024 + i % 64000, 0) for i in range(64_000))
            sources = write_sources(os.path.join(folder, f"between{count}"), entries)
            frame = frame_to(s.mac(target, 0), s.mac(0, 0), s.address(0), s.address(target), 1000 + target % 1000)
            syn = save(folder, f"between-syn{count}", frame)
            self.subjects = [f"base=tc,empty_tc,{syn},{sources},64000"]
            self.subjects.append(f"new=tc,{pinned(s.daemon, 'tc_port_in')},{syn},{sources},64000")
            self.options = []
        except BaseException:
            self.scale.stack.close()
            raise

    def updates(self, rounds):
        """One port's labels change."""
        times = label_changes(self.scale, rounds)
        time.sleep(1)
        return {"load_ms": self.scale.load_ms, "change_ms": statistics.median(times), "memory": memory_of(self.scale.daemon)}

    def close(self):
        self.scale.stack.close()


def growth(kind, counts, wanted, loads, rounds, repeat):
    """
    By count: median ns of a new flow above the empty program, interleaved across the daemons, and every_ns where the kind has "every"; what a
    change costs, and memory. All of it is loaded anew so many times: which pages the tables get is decided then, and a twentieth or so of the cost.
    """
    samples, result = {}, {}
    for load in range(loads):
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            rigs = {}
            for count in counts:
                rigs[count] = kind(folder, count)
                stack.callback(rigs[count].close)
            for _ in range(rounds):
                for count, rig in rigs.items():
                    ns = progbench(rig.ns, rig.ifindex, rig.subjects, "--repeat", repeat, *rig.options)
                    base = ns.pop("base")["ns"]
                    for draw, run_ in ns.items():
                        assert run_["retval"] in wanted, f"{count}: the SYN did not pass ({ns})"
                        samples.setdefault((count, "ns" if draw == "new" else f"{draw}_ns"), []).append(run_["ns"] - base)
            if load == 0:
                result = {count: rig.updates(max(3, rounds // 2)) for count, rig in rigs.items()}
    for (count, what), values in samples.items():
        result[count][what] = statistics.median(values)
    return result


TC_NEXT, TC_OK, TC_REDIRECT = -1, 0, 7


def run(rounds, seconds, quick=False):
    result, loads, few = {"paths": paths(rounds, seconds)}, *((1, 1) if quick else (5, 7))
    parts = {
        "thousand": lambda: thousand(3 if quick else 15),
        "appearing": lambda: appearing(3 if quick else 7),
        "rules": lambda: growth(Outside, (10, 1000) if quick else (10, 1000, 10_000, 100_000), (TC_NEXT, TC_OK), loads, few, 50_000),
        "identities": lambda: growth(Between, (10, 1000) if quick else (10, 1000, 5000), (TC_REDIRECT,), 1, few, 50_000),
    }
    for name, part in parts.items():
        try:
            result[name] = part()
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            result[name] = {"failed": why(error)}
    return result
