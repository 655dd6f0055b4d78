# SPDX-License-Identifier: Apache-2.0
"""Nanoseconds a packet, whole programs, under BPF_PROG_TEST_RUN."""

import json
import os
import struct
import subprocess
import tempfile

from rigs import FIRST, PROGBENCH, SHELL, Guarded, base_documents, doc, ipv4_number, new_flow_sources, prefixes, rule_documents
from rigs import source, tcp_frame, write_sources

FLOWS = 100_000
DRAWN = 10_000
PEERS = 1000  # as many blocks as a host usually hears from
XDP_FILTER = "/usr/lib/x86_64-linux-gnu/bpf/xdpfilt_alw_all.o"


def progbench(guarded, *argv):
    result = guarded.pair.server.run(*FIRST, PROGBENCH, *argv, timeout=600)
    return json.loads(result.stdout)


def save(folder, name, data):
    path = os.path.join(folder, name)
    with open(path, "wb") as f:
        f.write(data)
    return path


def flow_sources(folder, family):
    if family == 4:
        entries = (source((10 << 24) + (64 << 16) + i, 1024 + i % 60000) for i in range(FLOWS))
    else:
        entries = (source(bytes.fromhex("fd640000000000000000") + struct.pack(">HI", 0, i), 1024 + i % 60000) for i in range(FLOWS))
    return write_sources(os.path.join(folder, f"flows{family}"), entries)


def established(rounds, repeat):
    """Packets of established TCP flows, 100,000 in the table, drawn from 10,000 of them; the empty programs beside."""
    with tempfile.TemporaryDirectory() as folder, Guarded(*base_documents(limits={"flows": 262144})) as guarded:
        subjects = {}
        filled = {}
        for family in (4, 6):
            sources = flow_sources(folder, family)

            def frame(name, *args, family=family, **kwargs):
                return save(folder, f"{name}{family}", tcp_frame(guarded.pair, family, *args, **kwargs))

            filled[family] = progbench(
                guarded, "fill", "--shell", SHELL, "--ifindex", guarded.ifindex, "--in", guarded.program("xdp_uplink"),
                "--out", guarded.program("tc_uplink_out"), "--syn", frame("syn", "S", 1000), "--synack",
                frame("synack", "SA", 5000, 1001, reply=True), "--ack", frame("ack", "A", 1001, 5001), "--sources", sources,
                "--count", FLOWS,
            )  # fmt: skip
            data = frame("data", "PA", 1001, 5001)
            for hook, target in (("xdp", "xdp_uplink"), ("tc", "tc_uplink_in")):
                subjects[f"{hook} empty{family}"] = f"{hook},empty_{hook},{data},-,0"
                subjects[f"{hook} drawn empty{family}"] = f"{hook},empty_{hook},{data},{sources},{DRAWN}"
                subjects[f"{hook} established{family}"] = f"{hook},{guarded.program(target)},{data},{sources},{DRAWN}"
            # One flow again and again, its entry in the nearest cache: what most benchmarks of others show.
            subjects[f"xdp one flow{family}"] = f"xdp,{guarded.program('xdp_uplink')},{data},{sources},1"
            if family == 4:
                with_filter = xdp_filter(guarded)
                if with_filter:
                    subjects["xdp-filter"] = f"xdp,{with_filter},{data},-,0"
        result = progbench(
            guarded, "measure", "--shell", SHELL, "--ifindex", guarded.ifindex, "--rounds", rounds, "--repeat", repeat, "--lap",
            *(f"{name}={spec}" for name, spec in subjects.items()),
        )  # fmt: skip
        proven = guarded.heddled.status()["flows"]["proven"]
        return {"filled": filled, "proven": proven, "ns": result}


def xdp_filter(guarded):
    if not os.path.exists(XDP_FILTER):
        return None
    path = os.path.join(guarded.heddled.bpffs, "bench_xdp_filter")
    loaded = subprocess.run(["bpftool", "prog", "load", XDP_FILTER, path, "type", "xdp"], check=False, capture_output=True)
    return path if loaded.returncode == 0 else None


def new_flows(rounds, repeat, counts=(10, 1000, 10_000, 100_000)):
    """
    A SYN that opens a flow every time, with so many rules, above what the empty program costs: "all", its source drawn from all the
    rules' blocks, and "peers", drawn from PEERS of them.
    """
    result = {"all": {}, "peers": {}}
    rigs = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            for count in counts:
                guarded = Guarded(*base_documents(), *rule_documents(count))
                rigs.append(guarded)
                guarded.sources = {
                    draw: write_sources(os.path.join(folder, f"{draw}{count}"), new_flow_sources(count, drawn))
                    for draw, drawn in (("all", count), ("peers", min(PEERS, count)))
                }
                guarded.syn = save(folder, f"syn{count}", tcp_frame(guarded.pair, 4, "S"))
            # Interleaved across the daemons: a few rounds of each, again and again.
            samples = {(draw, count): [] for draw in result for count in counts}
            for _ in range(rounds):
                for count, guarded in zip(counts, rigs):
                    program = guarded.program("xdp_uplink")
                    ns = progbench(
                        guarded, "measure", "--shell", SHELL, "--ifindex", guarded.ifindex, "--rounds", 1, "--repeat", repeat,
                        f"base=xdp,empty_xdp,{guarded.syn},{guarded.sources['all']},131000",
                        *(f"{draw}=xdp,{program},{guarded.syn},{guarded.sources[draw]},131000" for draw in result),
                    )  # fmt: skip
                    for draw in result:
                        assert ns[draw]["retval"] == 2, f"{count} rules: the SYN did not pass ({ns})"
                        samples[draw, count].append(ns[draw]["ns"] - ns["base"]["ns"])
            for (draw, count), values in samples.items():
                result[draw][count] = sorted(values)[len(values) // 2]
    finally:
        for guarded in rigs:
            guarded.stack.close()
    return result


def block_list(rounds, repeat, count=100_000):
    """Packets from a list of 100,000 blocks that one rule denies, and the kernel's LPM trie over the same list alone."""
    blocks = prefixes(count)
    documents = [
        *base_documents(),
        doc.group("blocked", *blocks),
        doc.policy("block", 10, ingress=[{"name": "list", "action": "deny", "from": [{"addressGroup": "blocked"}]}]),
    ]
    with tempfile.TemporaryDirectory() as folder, Guarded(*documents) as guarded:
        sources = write_sources(os.path.join(folder, "blocked"), (source(ipv4_number(b) + 7, 1024) for b in blocks))
        lpm = save(folder, "lpm", b"".join(struct.pack("<I", 24) + struct.pack(">I", ipv4_number(b)) for b in blocks))
        syn = save(folder, "syn", tcp_frame(guarded.pair, 4, "S"))
        return progbench(
            guarded, "measure", "--shell", SHELL, "--ifindex", guarded.ifindex, "--rounds", rounds, "--repeat", repeat, "--lpm", lpm,
            f"drawn empty=xdp,empty_xdp,{syn},{sources},{count}", f"bare LPM=xdp,lpm_xdp,{syn},{sources},{count}",
            f"heddle=xdp,{guarded.program('xdp_uplink')},{syn},{sources},{count}",
        )  # fmt: skip


def live_frames(rounds, packets):
    """Live frames that are dropped: the kernel's cost of a frame included, no sender's."""
    documents = [
        *base_documents(),
        doc.policy("block", 10, ingress=[{"name": "list", "action": "deny", "from": [{"cidr": "10.64.0.0/16"}]}]),
    ]
    with tempfile.TemporaryDirectory() as folder, Guarded(*documents) as guarded:
        syn = save(folder, "syn", tcp_frame(guarded.pair, 4, "S"))
        return progbench(
            guarded, "live", "--shell", SHELL, "--ifindex", guarded.ifindex, "--rounds", rounds, "--packets", packets,
            f"XDP_DROP alone=drop_xdp,{syn}", f"heddle denies=" + f"{guarded.program('xdp_uplink')},{syn}",
        )  # fmt: skip
