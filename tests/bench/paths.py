# SPDX-License-Identifier: Apache-2.0
"""Real traffic through a guarded veth: the same client, server and rules for every firewall, interleaved."""

import contextlib
import json
import os
import statistics
import subprocess

from rigs import FIRST, SERVICE_PORT, TRAFFIC, Heddled, Pair, base_documents, prefixes, rule_documents, rule_port

MODES = ("rr", "rr64", "crr", "udp", "bulk")
# Where ends are placed: rr with a CPU for each end besides, which sleeps while it waits ("apart") or does not ("awake").
PLACED = ("rr", "rr64", "apart", "awake", "crr", "udp", "bulk")
ONE_CPU = ("rr", "rr64", "crr")


def nft_rules(count):
    lines = "".join(f"ip saddr {block} tcp dport {rule_port(i)} accept\n" for i, block in enumerate(prefixes(count)))
    return nft_table(lines)


def nft_set(count):
    elements = ",".join(f"{block} . {rule_port(i)}" for i, block in enumerate(prefixes(count)))
    declaration = f"set peers {{ type ipv4_addr . inet_service; flags interval; elements = {{ {elements} }} }}\n"
    return nft_table("ip saddr . tcp dport @peers accept\n", declaration)


def nft_table(rules, declarations=""):
    return f"""table inet guard {{
{declarations}chain in {{ type filter hook input priority 0; policy drop;
ct state established,related accept
iifname "lo" accept
meta l4proto {{ icmp, ipv6-icmp }} accept
{rules}tcp dport {SERVICE_PORT}-{SERVICE_PORT + 3} accept
udp dport {SERVICE_PORT}-{SERVICE_PORT + 3} accept
}}
chain out {{ type filter hook output priority 0; policy accept; ct state established,related accept; }}
}}
"""


def iptables_rules(count):
    lines = "".join(f"-A INPUT -s {block} -p tcp --dport {rule_port(i)} -j ACCEPT\n" for i, block in enumerate(prefixes(count)))
    return f"""*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A INPUT -p icmp -j ACCEPT
{lines}-A INPUT -p tcp --dport {SERVICE_PORT}:{SERVICE_PORT + 3} -j ACCEPT
-A INPUT -p udp --dport {SERVICE_PORT}:{SERVICE_PORT + 3} -j ACCEPT
COMMIT
"""


def load(command, text):
    def install(pair, stack):
        pair.server.run(*command, input=text)

    return install


def heddle(count, xdp):
    def install(pair, stack):
        daemon = Heddled(pair.server, [*base_documents(xdp=xdp), *rule_documents(count)])
        stack.callback(daemon.remove)
        daemon.start(timeout=60)

    return install


def subjects():
    result = {"no firewall": lambda pair, stack: None}
    for count in (10, 1000, 10_000):
        result[f"nftables, {count:,} rules"] = load(["nft", "-f", "-"], nft_rules(count))
    result["nftables, set of 10,000"] = load(["nft", "-f", "-"], nft_set(10_000))
    for count in (10, 1000):
        result[f"iptables, {count:,} rules"] = load(["iptables-restore"], iptables_rules(count))
    for count in (10, 10_000):
        result[f"heddle XDP+TC, {count:,} rules"] = heddle(count, "auto")
    result["heddle TC alone, 10,000 rules"] = heddle(10_000, "off")
    return result


def busy_ns():
    """Time that all CPUs together were not idle."""
    with open("/proc/stat", encoding="ascii") as f:
        ticks = [int(x) for x in f.readline().split()[1:]]
    return (sum(ticks[:3]) + sum(ticks[5:7])) * 10**9 // os.sysconf("SC_CLK_TCK")


def traffic_rounds(rigs, rounds, seconds, placed=False, busy=False, modes=MODES):
    """
    {rig: {mode: one value a round}}, interleaved. A rig has namespaces `client` and `server`, and the server's address `server4`. placed: who runs
    where is not left to the scheduler, and nobody else gets much of their CPUs. To and fro, both ends share one, so that the path is measured and not
    how long the other CPU takes to wake up; one way, each has its own. busy: also MODE_cpu, the machine's CPU time in ns for one of what the mode
    counts.
    """
    samples = {name: {} for name in rigs}
    with contextlib.ExitStack() as stack:
        servers, first = {}, FIRST if placed else ()
        for name, rig in rigs.items():
            server = servers[name] = rig.server.popen(*first, TRAFFIC, "server", rig.server4, SERVICE_PORT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            stack.callback(server.kill)
            server.stdout.readline()
        for _ in range(rounds):
            for mode in modes:
                for name, rig in rigs.items():
                    place = []
                    if placed:
                        place = [*first, "taskset", "-c", "0"]
                        os.sched_setaffinity(servers[name].pid, {0 if mode in ONE_CPU else os.cpu_count() - 1})
                    before = busy_ns()
                    what = "rr" if mode == "apart" else mode
                    out = rig.client.run(*place, TRAFFIC, what, rig.server4, SERVICE_PORT, seconds, timeout=seconds + 20)
                    rate = json.loads(out.stdout)["per_second"]
                    samples[name].setdefault(mode, []).append(rate)
                    if busy:
                        samples[name].setdefault(f"{mode}_cpu", []).append((busy_ns() - before) / max(1, rate * seconds))
    return samples


def medians(samples):
    return {name: {mode: statistics.median(values) for mode, values in modes.items()} for name, modes in samples.items()}


def ratio(samples, name, peer, mode):
    """Of two rigs: the median of the ratios within the rounds. A machine that others share is not as fast in one round as in another."""
    return statistics.median(a / b for a, b in zip(samples[name][mode], samples[peer][mode]))


def run(rounds, seconds):
    with contextlib.ExitStack() as stack:
        rigs = {}
        skipped = {}
        for name, install in subjects().items():
            pair = Pair()
            stack.callback(pair.close)
            try:
                install(pair, stack)
                rigs[name] = pair
            except AssertionError as error:  # a peer that this machine does not have
                skipped[name] = str(error).splitlines()[0]
        return {"samples": traffic_rounds(rigs, rounds, seconds), "skipped": skipped}
