# SPDX-License-Identifier: Apache-2.0
"""Loading rules, changing one, starting, and what it takes in memory; nftables beside."""

import contextlib
import http.client
import json
import os
import statistics
import subprocess
import tempfile
import time

import paths
from rigs import ApiError, Guarded, Heddled, Pair, base_documents, doc, prefixes, rule_documents, rule_port, rules_text

COUNT = 100_000


def timed(action):
    begin = time.monotonic()
    action()
    return (time.monotonic() - begin) * 1000


def memory(heddled):
    with open(f"/proc/{heddled.process.pid}/status", encoding="ascii") as f:
        fields = dict(line.split(":", 1) for line in f if ":" in line)
    maps = json.loads(subprocess.run(["bpftool", "-j", "map", "show"], check=True, capture_output=True).stdout)
    own = set()
    for path in heddled.pinned_maps():
        shown = json.loads(subprocess.run(["bpftool", "-j", "map", "show", "pinned", path], check=True, capture_output=True).stdout)
        own.add(shown["id"])
    return {
        "rss_kib": int(fields["VmRSS"].split()[0]),
        "anonymous_kib": int(fields["RssAnon"].split()[0]),
        "peak_kib": int(fields["VmHWM"].split()[0]),
        "maps_kib": sum(m.get("bytes_memlock", 0) for m in maps if m["id"] in own) // 1024,
    }


def idle_wakeups(heddled, seconds=5):
    """Voluntary context switches of the idle daemon."""

    def switches():
        with open(f"/proc/{heddled.process.pid}/status", encoding="ascii") as f:
            return sum(int(line.split()[1]) for line in f if line.startswith("voluntary_ctxt_switches"))

    before = switches()
    time.sleep(seconds)
    return switches() - before


def in_force(daemon):
    """Asks the daemon itself: a `heddle wait` would add the start of a process of its own."""
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException, ApiError):
            if daemon.status()["ready"]:
                return
        time.sleep(0.002)


def start_up(rounds, count=1000):
    """From exec to in force (READY), cold: nothing pinned, nothing remembered."""
    times = []
    pair = Pair()
    try:
        for _ in range(rounds):
            daemon = Heddled(pair.server, [*base_documents(), *rule_documents(count)])
            try:
                times.append(timed(lambda: in_force(daemon.start(wait=False))))
            finally:
                daemon.remove()
    finally:
        pair.close()
    return statistics.median(times)


def rules(rounds):
    documents = rule_documents(COUNT)
    with Guarded(*base_documents()) as guarded, tempfile.TemporaryDirectory() as folder:
        heddled = guarded.heddled
        empty = memory(heddled)
        path = os.path.join(folder, "rules.yaml")
        with open(path, "w", encoding="utf-8") as f:
            f.write(rules_text(documents))
        load = timed(lambda: heddled.cli("apply", "-f", path, timeout=120))
        assert len(heddled.rules()) >= COUNT
        one, cli, changed = [], [], documents[len(documents) // 2]
        api = []
        for i in range(rounds):
            changed["spec"]["ingress"][500]["ports"][0]["port"] = 40000 + i
            small = os.path.join(folder, "one.yaml")
            with open(small, "w", encoding="utf-8") as f:
                f.write(rules_text([changed]))
            # One change by itself: right behind another it would wait for that one's grace period as well.
            time.sleep(0.2)
            cli.append(timed(lambda: heddled.cli("apply", "-f", small)))
            changed["spec"]["ingress"][500]["ports"][0]["port"] = 50000 + i
            again = rules_text([changed])
            time.sleep(0.2)
            one.append(timed(lambda: heddled.api.post("/v1/apply", again)))
            time.sleep(0.2)
            text = doc.text(doc.policy("single", 500, ingress=[{"action": "allow", "from": [{"cidr": "198.51.100.0/24"}],
                "ports": [{"protocol": "TCP", "port": 1000 + i}]}]))  # fmt: skip
            api.append(timed(lambda: heddled.api.post("/v1/apply", text)))
        time.sleep(1)
        return {
            "load_ms": load,
            "change_ms": statistics.median(one),
            "change_cli_ms": statistics.median(cli),
            "change_small_api_ms": statistics.median(api),
            "memory": memory(heddled),
            "memory_empty": empty,
            "idle_wakeups_5s": idle_wakeups(heddled),
        }


def nft_rules(rounds):
    """The same as one nftables set: load it, and change one element."""
    pair = Pair()
    try:
        text = paths.nft_set(COUNT)
        load = timed(lambda: pair.server.run("nft", "-f", "-", input=text, timeout=120))
        times = []
        for i in range(rounds):
            block = prefixes(COUNT)[COUNT // 2]
            old, new = rule_port(COUNT // 2) if i == 0 else 40000 + i - 1, 40000 + i
            change = (
                f"delete element inet guard peers {{ {block} . {old} }}\nadd element inet guard peers {{ {block} . {new} }}\n"
            )
            times.append(timed(lambda: pair.server.run("nft", "-f", "-", input=change, timeout=120)))
        return {"load_ms": load, "change_ms": statistics.median(times)}
    finally:
        pair.close()
