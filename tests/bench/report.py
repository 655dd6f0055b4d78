# SPDX-License-Identifier: Apache-2.0
"""Tables for docs/performance.md out of the results."""

import os
import re
import statistics

import fastpath as fast
import overlay as overlay_bench
import ports as port_bench
import workers as worker_bench
from paths import MODES, PLACED
from paths import medians as medians_of
from paths import ratio as ratio_of

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PAGE = os.path.join(ROOT, "docs/performance.md")


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def put(name, text):
    """Replaces what stands between the markers `<!-- NAME -->` and `<!-- /NAME -->`."""
    with open(PAGE, encoding="utf-8") as f:
        page = f.read()
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
    assert pattern.search(page), f"docs/performance.md has no markers for {name}"
    with open(PAGE, "w", encoding="utf-8") as f:
        f.write(pattern.sub(lambda m: m.group(1) + text + m.group(2), page))


def established_ratio(ns, hook, family, what="established"):
    """Of a program to the bare empty one; the shell's own share (drawing, tail call) taken out."""
    floor = ns[f"{hook} empty{family}"]["ns"]
    cost = ns[f"{hook} {what}{family}"]["ns"] - ns[f"{hook} drawn empty{family}"]["ns"]
    return cost, (floor + cost) / floor


def programs(result):
    ns = result["established"]["ns"]
    rows = []
    targets = {}
    for hook in ("xdp", "tc"):
        for family, limit in ((4, 3.0), (6, 3.5)):
            cost, ratio = established_ratio(ns, hook, family)
            floor = ns[f"{hook} empty{family}"]["ns"]
            rows.append((f"{hook.upper()}, IPv{family}", f"{floor:.0f}", f"{floor + cost:.0f}", f"**{ratio:.2f}**", f"≤ {limit}"))
            targets[f"established {hook.upper()} IPv{family}"] = (ratio, limit, ratio <= limit)
    for family in (4, 6):
        xdp, tc = established_ratio(ns, "xdp", family)[0], established_ratio(ns, "tc", family)[0]
        floor = ns[f"xdp empty{family}"]["ns"] + ns[f"tc empty{family}"]["ns"]
        rows.append((f"XDP and TC, both judging in full, IPv{family}", f"{floor:.0f}", f"{floor + xdp + tc:.0f}",
            f"{(floor + xdp + tc) / floor:.2f}", ""))  # fmt: skip
    cost, ratio = (ns["xdp one flow4"]["ns"] - ns["xdp drawn empty4"]["ns"], None)
    floor = ns["xdp empty4"]["ns"]
    rows.append(("XDP, IPv4, one flow over and over", f"{floor:.0f}", f"{floor + cost:.0f}", f"{(floor + cost) / floor:.2f}", ""))
    if "xdp-filter" in ns:
        value = ns["xdp-filter"]["ns"]
        rows.append(("xdp-filter (all features, nothing matched)", f"{floor:.0f}", f"{value:.0f}", f"{value / floor:.2f}", ""))
    text = table(("established TCP packet", "empty program, ns", "whole program, ns", "ratio", "target"), rows)

    new = result["new_flows"]
    few, many = min(new["all"]), max(new["all"])
    rows = [
        (f"{count:,}", *(cell for draw in ("peers", "all") for cell in (f"{new[draw][count]:.0f}", f"**{new[draw][count] / new[draw][few]:.2f}**")))
        for count in sorted(new["all"])
    ]  # fmt: skip
    worst = {draw: new[draw][many] / new[draw][few] for draw in new}
    targets["new flow from one of 1,000 blocks, 100,000 rules against 10"] = (worst["peers"], 1.15, worst["peers"] <= 1.15)
    targets["new flow from one of all 100,000 blocks, 100,000 rules against 10"] = (worst["all"], "", None)
    text += "\n" + table(
        ("rules", "new flow from 1,000 of the blocks, ns above the empty program", "ratio to 10 rules (target ≤ 1.15)",
            "new flow from all of the blocks, ns", "ratio to 10 rules"), rows)  # fmt: skip

    block = {k: v["ns"] for k, v in result["block_list"].items()}
    ratio = block["heddle"] / block["bare LPM"]
    targets["blocked by 100,000 prefixes against a bare LPM lookup"] = (ratio, 1.5, ratio <= 1.5)
    rows = [(k, f"{v:.0f}", f"{v / block['bare LPM']:.2f}") for k, v in block.items()]
    text += "\n" + table(("a packet from a list of 100,000 prefixes (the shell's share included)", "ns", "to bare LPM (target ≤ 1.5)"), rows)

    rows = [(k, f"{v['ns']:.0f}", f"{1000 / v['ns']:.2f}") for k, v in result["live_frames"].items()]
    text += "\n" + table(("live frames", "ns a frame", "Mpps, one core"), rows)
    put("programs", text)
    return targets


def paths(result):
    samples = result["samples"]
    rows = []
    for name, m in medians_of(samples).items():
        to = {mode: f"{ratio_of(samples, name, 'nftables, 10 rules', mode):.2f}" for mode in MODES}
        rows.append((name, f"{m['rr']:,.0f} ({to['rr']})", f"{m['rr64']:,.0f} ({to['rr64']})", f"{m['crr']:,.0f} (**{to['crr']}**)",
            f"{m['udp']:,.0f} ({to['udp']})", f"{m['bulk'] * 8 / 1e9:.1f} ({to['bulk']})"))  # fmt: skip
    text = table(("firewall", "TCP_RR/s", "TCP_RR/s, 64 under way", "new connections/s", "UDP 64 B packets/s", "TCP bulk Gbit/s"), rows)
    text += "\nIn brackets: ratio to nftables with 10 rules, the median of the rounds'.\n"
    for name, why in result["skipped"].items():
        text += f"\nLeft out: {name}: {why}\n"
    put("paths", text)
    ratio = max(ratio_of(samples, n, "nftables, 10 rules", "crr") for n in samples if n.startswith("heddle") and " 10 " in n)
    return {"new connections a second against nftables with conntrack": (ratio, 1.2, ratio >= 1.2)}


def updates(result):
    r, nft = result["rules"], result["nft"]
    rss = r["memory"]["rss_kib"] / 1024
    rows = [
        ("load 100,000 rules (prefix × port), `heddle apply` to in force", f"{r['load_ms']:.0f} ms", f"{nft['load_ms']:.0f} ms", "< 1 s"),
        ("change one of them: its document (1,000 rules) posted, to in force", f"{r['change_ms']:.1f} ms", "", "< 20 ms"),
        ("the same by a new process: `heddle apply`, `nft -f`", f"{r['change_cli_ms']:.1f} ms", f"{nft['change_ms']:.0f} ms", ""),
        ("apply a policy of one rule beside them (API)", f"{r['change_small_api_ms']:.1f} ms", "", "< 20 ms"),
        ("start to in force, 1,000 rules", f"{result['start_up']:.0f} ms", "", "< 200 ms"),
        ("heddled's memory (RSS), 100,000 rules", f"{rss:.1f} MiB", "", "≤ 15 MiB"),
        ("heddled's memory (RSS), no rules", f"{r['memory_empty']['rss_kib'] / 1024:.1f} MiB", "", ""),
        ("all maps, 100,000 rules", f"{r['memory']['maps_kib'] / 1024:.1f} MiB", "", ""),
        ("all maps, no rules", f"{r['memory_empty']['maps_kib'] / 1024:.1f} MiB", "", ""),
        ("wake-ups in 5 s of idleness", r["idle_wakeups_5s"], "", "0"),
    ]
    put("updates", table(("what", "heddle", "nftables, a set", "target"), rows))
    return {
        "load 100,000 rules, ms": (r["load_ms"], 1000, r["load_ms"] < 1000),
        "change one of 100,000, ms": (r["change_ms"], 20, r["change_ms"] < 20),
        "start with 1,000 rules, ms": (result["start_up"], 200, result["start_up"] < 200),
        "RSS with 100,000 rules, MiB": (rss, 15, rss <= 15),
        "wake-ups when idle": (r["idle_wakeups_5s"], 0, r["idle_wakeups_5s"] == 0),
    }


def gigabits(bytes_a_second):
    return f"{bytes_a_second * 8 / 1e9:.1f}"


def ports(result):
    """Beside each figure: its ratio to the bridge with nftables, and to the bare veth pair."""
    samples = result["paths"]["samples"]
    # The peer: what keeps state as heddle does; the kernel's own bridge conntrack where there is one.
    peer, bare = port_bench.NATIVE if port_bench.NATIVE in samples else port_bench.STATEFUL, port_bench.BARE
    rows, targets = [], {}
    for name, m in medians_of(samples).items():
        rows.append(
            [name] + [f"{shown(m[mode])} ({ratio_of(samples, name, peer, mode):.2f}, {ratio_of(samples, name, bare, mode):.2f})"
                for mode, shown in ((mode, gigabits if mode == "bulk" else "{:,.0f}".format) for mode in PLACED)]
        )  # fmt: skip
    head = ("from port to port", "TCP_RR/s, one CPU", "TCP_RR/s, one CPU, 64 under way", "TCP_RR/s, a CPU for each end", "the same, both awake",
        "new connections/s", "UDP 64 B packets/s", "TCP bulk Gbit/s")  # fmt: skip
    text = table(head, rows)
    text += f"\nIn brackets: ratio to \"{peer}\", and to the bare veth pair, the median of the rounds'.\n"
    for name, why in result["paths"]["skipped"].items():
        text += f"\nLeft out: {name}: {why}\n"
    for subject, label in ((port_bench.SWITCHED, "l2"), (port_bench.ROUTED, "l3")):
        if subject not in samples:
            continue
        for mode, what in (("rr", "TCP_RR, one CPU,"), ("udp", "UDP 64 B")):
            over, of = (ratio_of(samples, subject, other, mode) for other in (peer, bare))
            targets[f"ports ({label}), {what} against the bridge with nftables"] = (over, 1.3, over >= 1.3)
            targets[f"ports ({label}), {what} against the bare veth pair"] = (of, 0.85, of >= 0.85)
        for mode, what in (("rr64", "one CPU, 64 under way"), ("apart", "a CPU for each end"), ("awake", "a CPU for each end, both awake")):
            over = ratio_of(samples, subject, peer, mode)
            targets[f"ports ({label}), TCP_RR, {what}, against the bridge with nftables"] = (over, "", None)
        of = ratio_of(samples, subject, bare, "bulk")
        targets[f"ports ({label}), TCP bulk against the bare veth pair"] = (of, 0.95, of >= 0.95)

    for part, what, change in (
        ("rules", "rules (block × port), from outside to a port", "one rule changes"),
        ("identities", "ports, each an identity, port to port", "one label changes"),
    ):
        costs = result[part]
        if "failed" in costs:
            text += f"\nLeft out: new flows by {part}: {costs['failed']}\n"
            continue
        costs = {int(count): cost for count, cost in costs.items()}
        base, few, most = costs[min(costs)], min(costs), max(costs)
        every = "every_ns" in base
        rows = [
            (f"{count:,}", f"{c['ns']:.0f}", f"**{c['ns'] / base['ns']:.2f}**",
                *((f"{c['every_ns']:.0f}", f"**{c['every_ns'] / base['every_ns']:.2f}**") if every else ()),
                f"{c['change_ms']:.1f} ms", f"{c['load_ms']:,.0f} ms",
                f"{c['memory']['policy_kib'] / 1024:.1f} MiB", f"{c['memory']['rss_kib'] / 1024:.1f} MiB")
            for count, c in sorted(costs.items())
        ]  # fmt: skip
        head = (what, f"new flow{' from 1,000 of the blocks' * every}, ns above the empty program", f"ratio to {few} (target ≤ 1.15)",
            *(("from all of the blocks, ns", f"ratio to {few}") if every else ()), change, "all of it at once",
            "kernel memory for policy", "RSS")  # fmt: skip
        text += "\n" + table(head, rows)
        ratio = costs[most]["ns"] / base["ns"]
        targets[f"ports, new flow{' from one of 1,000 blocks' * every}, {most:,} {part} against {few}"] = (ratio, 1.15, ratio <= 1.15)
        if every:
            ratio = costs[most]["every_ns"] / base["every_ns"]
            targets[f"ports, new flow from one of all {most:,} blocks, {most:,} {part} against {few}"] = (ratio, "", None)

    t = result["thousand"]
    if "failed" in t:
        text += f"\nLeft out: a thousand ports: {t['failed']}\n"
    else:
        memory, n = t["memory"], f"{t['ports']:,}"
        rss, policy = memory["rss_kib"] / 1024, memory["policy_kib"] / 1024
        rows = [
            ("one label change, its Port posted, to in force: median", f"{t['change_ms']:.1f} ms", "< 50 ms"),
            ("the same, the worst", f"{t['change_worst_ms']:.1f} ms", ""),
            ("one label change by its file, renamed over the old one, to in force: median", f"{t['edit_ms']:.1f} ms", "< 50 ms"),
            ("the same, the worst", f"{t['edit_worst_ms']:.1f} ms", ""),
            ("a port that was deleted comes again", f"{t['add_port_ms']:.1f} ms", ""),
            ("all of them at once, posted to in force", f"{t['load_ms']:.0f} ms", ""),
            ("kernel memory for policy (maps of policy.bpf.h)", f"{policy:.1f} MiB", "≤ 64 MiB"),
            ("all maps", f"{memory['maps_kib'] / 1024:.1f} MiB", ""),
            ("heddled's memory (RSS)", f"{rss:.1f} MiB", "≤ 40 MiB"),
            ("the same at its peak", f"{memory['peak_kib'] / 1024:.1f} MiB", ""),
            ("heddled's memory (RSS), no port", f"{t['memory_empty']['rss_kib'] / 1024:.1f} MiB", ""),
        ]
        text += "\n" + table((f"{n} ports under {n} policies", "heddle", "target"), rows)
        targets[f"one label change with {n} ports and policies, ms"] = (t["change_ms"], 50, t["change_ms"] < 50)
        targets[f"one label change by a file with {n} ports and policies, ms"] = (t["edit_ms"], 50, t["edit_ms"] < 50)
        targets[f"kernel memory for policy with {n} ports, MiB"] = (policy, 64, policy <= 64)
        targets[f"RSS with {n} ports and policies, MiB"] = (rss, 40, rss <= 40)
    a = result["appearing"]
    if "failed" in a:
        text += f"\nLeft out: ports that appear at once: {a['failed']}\n"
    else:
        rows = [
            ("all attached under their policies, the first time", f"{a['first_ms']:.0f} ms", "< 1000 ms"),
            ("again: median", f"{a['median_ms']:.0f} ms", ""),
            ("the worst", f"{a['worst_ms']:.0f} ms", ""),
        ]
        text += "\n" + table((f"{a['ports']} ports whose devices appear at once", "heddle", "target"), rows)
        targets[f"{a['ports']} ports appear at once, all attached, ms"] = (a["worst_ms"], 1000, a["worst_ms"] < 1000)
    put("ports", text)
    return targets


def overlay(result):
    """Beside each figure: its ratio to the kernel's VXLAN device with nftables, and without."""
    text, targets = "", {}
    if "failed" in result["paths"]:
        text += f"\nLeft out: host to host: {result['paths']['failed']}\n"
    else:
        samples = result["paths"]["samples"]
        peer = overlay_bench.NATIVE if overlay_bench.NATIVE in samples else overlay_bench.STATEFUL
        plain = overlay_bench.PLAIN
        columns = (("rr", "{:,.0f}".format), ("crr", "{:,.0f}".format), ("udp", "{:,.0f}".format), ("bulk", gigabits))
        rows = [
            [name]
            + [f"{shown(m[mode])} ({ratio_of(samples, name, peer, mode):.2f}, {ratio_of(samples, name, plain, mode):.2f})"
                for mode, shown in columns]
            + [f"{m['udp_cpu']:,.0f}", f"{m['bulk_cpu'] * 1448:,.0f}"]
            for name, m in medians_of(samples).items()
        ]  # fmt: skip
        head = ("from host to host", "TCP_RR/s", "new connections/s", "UDP 64 B packets/s", "TCP bulk Gbit/s", "CPU ns a UDP packet",
            "CPU ns for 1448 bytes of bulk")  # fmt: skip
        text += table(head, rows)
        text += f"\nIn brackets: ratio to \"{peer}\", and to \"{plain}\", the median of the rounds'.\n"
        for name, why in result["paths"]["skipped"].items():
            text += f"\nLeft out: {name}: {why}\n"
        if overlay_bench.OURS in samples:
            limits = (("udp", "UDP 64 B", 1.5), ("rr", "TCP_RR", 1.15), ("crr", "new connections", 1.3), ("bulk", "TCP bulk", 1.0))
            for mode, what, limit in limits:
                ratio = ratio_of(samples, overlay_bench.OURS, peer, mode)
                targets[f"overlay, {what} against the kernel's VXLAN with nftables"] = (ratio, limit, ratio >= limit)

    if "failed" in result["programs"]:
        text += f"\nLeft out: programs of the overlay: {result['programs']['failed']}\n"
    else:
        floors, rows = result["programs"]["floors"], []
        for protocol, cost in result["programs"]["costs"].items():
            name = {"vxlan": "VXLAN", "geneve": "Geneve", "vxlan6": "VXLAN over IPv6"}[protocol]
            local = floors["tc"] + cost["local delivery"]
            rows.append((f"{name}, local delivery, TC", f"{local:.0f}", ""))
            whole = floors["tc"] + cost["encapsulation"] - cost.get("new buffer", 0)
            if "new buffer" in cost:
                text += f"\n{name}: without {cost['new buffer']:.0f} ns of a test run alone, whose packets have no headroom for the headers.\n"
            rows.append((f"{name}, encapsulation, TC", f"{whole:.0f}", f"**{whole / local:.2f}** of local delivery (target ≤ 2)"))
            targets[f"overlay, {name} encapsulation against local delivery"] = (whole / local, 2.0, whole / local <= 2)
            for hook in ("tc", "xdp"):
                if f"decapsulation {hook}" not in cost:
                    text += f"\nLeft out: {name}, decapsulation in {hook.upper()}: the program leaves it to another one\n"
                    continue
                whole = floors[hook] + cost[f"decapsulation {hook}"]
                ratio = whole / floors[hook]
                limit = " (target ≤ 4)" if hook == "xdp" else ""
                rows.append((f"{name}, decapsulation, {hook.upper()}", f"{whole:.0f}", f"**{ratio:.2f}** of the empty program{limit}"))
                if hook == "xdp":
                    targets[f"overlay, {name} decapsulation in XDP against the empty program"] = (ratio, 4.0, ratio <= 4)
        text += "\n" + table(("packet of an established flow", "whole program, ns", ""), rows)
        text += f"\nThe empty programs: {floors['tc']:.0f} ns in TC, {floors['xdp']:.0f} ns in XDP.\n"

    if "failed" in result["scale"]:
        text += f"\nLeft out: a thousand peers: {result['scale']['failed']}\n"
    else:
        costs = {tuple(map(int, key.split(","))): cost for key, cost in result["scale"].items()}
        few, many = min(costs), max(costs)
        rows = [
            (f"{peers:,} × {addresses}", f"{c['load_ms']:,.0f} ms", f"{c['change_ms']:.1f} ms", f"{c['ns']:.0f}",
                f"**{c['ns'] / costs[few]['ns']:.2f}**", f"{c['every_ns']:.0f}", f"{c['memory']['maps_kib'] / 1024:.1f} MiB", f"{c['memory']['rss_kib'] / 1024:.1f} MiB")
            for (peers, addresses), c in sorted(costs.items())
        ]  # fmt: skip
        head = ("peers × addresses of each", "all at once, posted to in force", "one peer's labels change",
            "new flow to one of 1,000 addresses, ns above the empty program", "ratio (target ≤ 1.2)", "to one of all, ns", "all maps", "RSS")  # fmt: skip
        text += "\n" + table(head, rows)
        ratio, load = costs[many]["ns"] / costs[few]["ns"], costs[many]["load_ms"]
        targets["overlay, lookup with 1,000 peers and 100,000 addresses against 10"] = (ratio, 1.2, ratio <= 1.2)
        targets["overlay, load 1,000 peers and 100,000 addresses, ms"] = (load, 2000, load < 2000)
        change = costs[many]["change_ms"]
        targets["overlay, labels of one of 1,000 peers, ms"] = (change, 50, change <= 50)
    put("overlay", text)
    return targets


def cni(result):
    rows, targets = [], {}
    for name, plugins in result.items():
        ours, theirs = plugins["heddle-cni"], plugins["ptp"]
        rows.append([name] + [f"{q[verb][of]:.1f}" for verb in ("ADD", "DEL") for of in ("median", "p99") for q in (ours, theirs)])
        over = ours["ADD"]["p99"] - theirs["ADD"]["p99"]
        targets[f"ADD of a container ({name}), p99 over ptp's, ms"] = (over, 5, over <= 5)
    head = [f"{verb} {of}, {who}" for verb in ("ADD", "DEL") for of in ("median", "p99") for who in ("heddle-cni", "ptp")]
    put("cni", table(("ms", *head), rows))
    return targets


def bandwidth(result):
    rows, targets = [], {}
    for rate, ways in result.items():
        shares = {way: statistics.median(values) for way, values in ways.items()}
        rows.append([rate, *(f"{100 * value:.1f}%" for value in shares.values())])
        worst = max(shares.values(), key=lambda value: abs(value - 1))
        targets[f"one TCP stream at a port's rate of {rate}, share of it"] = (worst, "0.95 to 1.05", abs(worst - 1) <= 0.05)
    put("bandwidth", table(("rate", *next(iter(result.values()))), rows))
    return targets


def fastpath(result):
    def median_of(values):
        return statistics.median(values)

    ours, targets = fast.OURS, {}
    rows = []
    for name, samples in result["forward"].items():
        waits = [f"{median_of([r[of] for r in result['latency'].get(name, [])] or [0]):.1f}" for of in ("p50", "p99")]
        echo = f"{median_of(result['echo'][name]) / 1e6:.2f}" if name in result["echo"] else ""
        ratios = [f"{fast.ratio(result['forward'], of, name):.2f}" if name not in (of, without) else ""
                  for of, without in ((ours, fast.WHOLE), (fast.REDIRECT, None))]
        rows.append((name, f"{median_of(samples) / 1e6:.2f}", *ratios, echo,
            *(waits if name in result["latency"] else ("", ""))))  # fmt: skip
    text = table(("64-byte frames, one core", "forward, M/s", "workers to it", "redirect to it", "echo, M/s", "one way, median us", "p99 us"), rows)
    text += f"\nReceived and dropped by a worker: {median_of(result['drop']) / 1e6:.2f} M/s.\n\n"
    text += table(["frames at once", *result["batches"]], [["forward, M/s", *(f"{median_of(v) / 1e6:.2f}" for v in result["batches"].values())]])
    text += f"\nThe ring between two threads, alone: {median_of(result['handoff']) / 1e6:.0f} million items a second.\n"
    for name, why in result["skipped"].items():
        text += f"\nLeft out: {name}: {why}\n"
    put("fastpath", text)
    for name, what, limit in ((fast.DPDK, "testpmd", 1.0), (fast.PACKET, "AF_PACKET", 3.0), (fast.LIMIT, "XDP_REDIRECT", 0.6)):
        if name in result["forward"]:
            value = fast.ratio(result["forward"], ours, name)
            targets[f"AF_XDP workers, forwarding against {what}"] = (value, limit, value >= limit)
            # not like with like: this one judges and routes, on the CPU that makes the frames
            targets[f"the whole data plane by XDP alone, against {what}"] = (fast.ratio(result["forward"], fast.REDIRECT, name), "", None)
    if fast.DPDK in result["latency"]:
        pairs = zip(result["latency"][ours], result["latency"][fast.DPDK])
        value = median_of([a["p50"] / b["p50"] for a, b in pairs])
        targets["AF_XDP workers, median time one way against testpmd"] = (value, 1.0, value <= 1)
    value = median_of(result["handoff"]) / 1e6
    targets["ring between threads, million items a second"] = (value, 50, value >= 50)
    return targets


def workers(result):
    """Beside each figure: its ratio to the same ports without workers, and to the bridge with nftables."""
    samples, rows = result["samples"], []
    peer = port_bench.NATIVE if port_bench.NATIVE in samples else port_bench.STATEFUL
    shown = {"frames": lambda v: f"{v / 1e6:.2f}", "udp": "{:,.0f}".format, "rr": lambda v: f"{1e6 / v:.1f}", "bulk": gigabits}
    for name, m in medians_of(samples).items():
        ratios = {mode: [f"{ratio_of(samples, name, other, mode):.2f}" for other in (worker_bench.TC, peer)] for mode in shown}
        for mode in ("rr",):  # a time: the smaller the better, as it stands in the table
            ratios[mode] = [f"{ratio_of(samples, other, name, mode):.2f}" for other in (worker_bench.TC, peer)]
        cells = [f"{show(m[mode])} ({', '.join(ratios[mode])})" for mode, show in shown.items()]
        rows.append([name, cells[0], f"{m['frames_cpu']:,.0f}", cells[1], f"{m['udp_cpu']:,.0f}", *cells[2:]])
    head = ("from port to port", "frames, M/s", "CPU ns a frame", "UDP 64 B of sockets/s", "CPU ns a packet", "TCP to and fro, us", "TCP bulk Gbit/s")
    text = table(head, rows)
    text += f"\nIn brackets: ratio to \"{worker_bench.TC}\", and to \"{peer}\", the median of the rounds'; of times it is better when it is less.\n"
    for name, why in result["skipped"].items():
        text += f"\nLeft out: {name}: {why}\n"
    samples, rows = result["taps"], []
    for name, m in medians_of(samples).items():
        others = (worker_bench.TC, peer if peer in samples else port_bench.STATEFUL)
        ratios = {mode: ", ".join(f"{ratio_of(samples, name, other, mode):.2f}" for other in others) for mode in ("frames", "rtt")}
        rows.append((name, f"{m['frames'] / 1e6:.2f} ({ratios['frames']})", f"{m['frames_cpu']:,.0f}", f"{m['rtt']:.1f} ({ratios['rtt']})"))
    text += "\n" + table(("from tap to tap", "frames, M/s", "CPU ns a frame", "frame to and fro, median us"), rows)
    put("workers", text)
    return {}


def summary(targets):
    word = {None: "", True: "reached", False: "**missed**"}  # None: shown, without a limit
    rows = [(name, f"{value:.2f}", limit, word[ok]) for name, (value, limit, ok) in targets.items()]
    text = table(("target", "measured", "limit", ""), rows)
    put("targets", text)
    return text
