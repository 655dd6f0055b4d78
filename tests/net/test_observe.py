# SPDX-License-Identifier: Apache-2.0
"""What heddle says: status, monitor, rule counters, drop counters, metrics; and what bpftool sees without it."""

import json
import time

import pytest
from lib import raw, traffic
from lib.documents import DENY_IN, policy, rule
from lib.heddled import Monitor, wait_for
from lib.traffic import expect_tcp, expect_udp


def test_status_names_what_runs_where(guarded):
    status = guarded.daemon.json("status")
    assert status["ready"] is True and isinstance(status["generation"], int)
    assert all({"hook", "device", "mode"} <= set(p) for p in status["programs"])
    tc = "clsact" if guarded.backend == "clsact" else "tcx"
    expected = {"tc_uplink_in": tc, "tc_uplink_out": tc}
    if guarded.backend in ("native", "generic"):
        expected["xdp_uplink"] = guarded.backend
    assert guarded.daemon.programs() == expected
    assert guarded.daemon.cli("status").stdout.strip()


def test_monitor_names_the_rule_of_a_drop(guarded, family):
    up = guarded
    up.policy(policy("edge", ingress=[rule("deny", "UDP", 7850, name="no-udp")]))
    with Monitor(up.daemon, "--drops") as monitor:
        expect_udp(up.client, up.server_address(family), 7850, "timeout", sport=4850)
        event = monitor.find(destinationPort=7850)
    assert (event["verdict"], event["reason"], event["protocol"]) == ("deny", "policy-deny", "UDP")
    assert (event["source"], event["sourcePort"]) == (up.client_address(family), 4850)
    assert event["destination"] == up.server_address(family)
    assert (event["rule"]["policy"], event["rule"]["name"], event["rule"]["index"]) == ("edge", "no-udp", 0)
    assert event["rule"]["file"] is None
    assert (event["direction"], event["device"]) == ("ingress", "up0")


def test_monitor_shows_a_logging_rule_and_allowed_flows(guarded):
    up = guarded
    up.policy(policy("edge", ingress=[rule("allow", "TCP", 7851, name="logged", log=True), rule("allow", "TCP", 7852, name="plain")]))
    with traffic.Servers(up.server, tcp=[7851, 7852]), Monitor(up.daemon) as monitor:
        expect_tcp(up.client, up.server4, 7851, "open")
        event = monitor.find(destinationPort=7851, verdict="allow")
        assert event["rule"]["name"] == "logged"
        expect_tcp(up.client, up.server4, 7852, "open")
        assert monitor.find(destinationPort=7852, verdict="allow")["rule"]["name"] == "plain"


def test_a_rule_of_a_file_is_named_with_its_line(plain):
    up = plain(start=False)
    up.daemon.write(
        "10-edge.yaml",
        "apiVersion: heddle.dev/v1alpha1\nkind: HostPolicy\nmetadata: {name: edge}\nspec:\n  priority: 5\n  ingress:\n"
        "  - {action: allow, ports: [{protocol: TCP, port: 1}]}\n  - {name: second, action: deny, ports: [{protocol: TCP, port: 7853}]}\n",
    )
    up.daemon.start()
    answer = up.daemon.json("explain", "--from", up.client4, "--to", up.server4, "--protocol", "tcp", "--dport", "7853")
    assert answer["verdict"] == "deny" and answer["reason"] == "policy-deny"
    found = answer["rule"]
    assert (found["policy"], found["index"], found["line"]) == ("edge", 1, 8)
    assert found["file"].endswith("10-edge.yaml")
    assert answer["path"]


def test_rule_counters_are_kept_across_updates_and_restarts(guarded):
    up = guarded
    web = rule("allow", "UDP", 7854, name="kept")
    up.policy(policy("edge", ingress=[web], default=DENY_IN))
    with traffic.Servers(up.server, udp=[7854, 7855]):
        for _ in range(5):
            expect_udp(up.client, up.server4, 7854, "reply")
        first = up.daemon.rule_packets("edge", "kept")
        assert first >= 5
        # an update around it: other rules before and after, another policy
        up.policy(
            policy("edge", ingress=[rule("deny", "UDP", 1), web, rule("allow", "UDP", 7855)], default=DENY_IN),
            policy("other", 50, ingress=[rule("deny", "UDP", 2)]),
        )
        assert up.daemon.rule_packets("edge", "kept") == first
        expect_udp(up.client, up.server4, 7854, "reply")
        assert up.daemon.rule_packets("edge", "kept") > first
        second = up.daemon.rule_packets("edge", "kept")
        up.daemon.restart()
        assert up.daemon.rule_packets("edge", "kept") == second
    out = up.daemon.cli("rules").stdout
    assert "kept" in out


def test_rule_counters_survive_growing_tables(plain):
    up = plain(docs=[policy("edge", ingress=[rule("allow", "UDP", 7854, name="kept")])])
    with traffic.Servers(up.server, udp=[7854]):
        expect_udp(up.client, up.server4, 7854, "reply")
        before = up.daemon.rule_packets("edge", "kept")
        assert before >= 1
        many = [rule("deny", "TCP", 10000 + i, peers=[f"198.{18 + i // 65536}.{i // 256 % 256}.{i % 256}/32"]) for i in range(5000)]
        up.daemon.apply(policy("many", 500, ingress=many))
        assert up.daemon.rule_packets("edge", "kept") == before
        expect_udp(up.client, up.server4, 7854, "reply")
        assert up.daemon.rule_packets("edge", "kept") > before


def test_metrics(guarded):
    up = guarded
    up.policy(policy("edge", ingress=[rule("deny", "UDP", 7856, name="no")]))
    expect_udp(up.client, up.server4, 7856, "timeout")
    text = up.daemon.api.get("/metrics")
    lines = text.splitlines()
    assert lines[-1] == "# EOF"
    drop = next(line for line in lines if line.startswith("heddle_drops_total{") and 'reason="policy-deny"' in line and "ingress" in line)
    assert float(drop.rsplit(" ", 1)[1]) >= 1
    families = {line.split()[2] for line in lines if line.startswith("# TYPE ")}
    for line in lines:
        if not line.startswith("#"):
            name = line.split("{")[0].split(" ")[0]
            assert any(name.startswith(f) for f in families), line


def test_flows_watch(guarded):
    up = guarded
    process = up.daemon.cli_popen("-o", "json", "flows", "--watch")
    try:
        time.sleep(0.3)
        with traffic.Servers(up.server, tcp=[7857]):
            s = traffic.connect(up.client, up.server4, 7857)
            found = []
            for line in process.stdout:
                found.append(json.loads(line))
                if found[-1].get("destinationPort") == 7857:
                    break
            s.close()
    finally:
        process.kill()
        process.wait()
    assert found[-1]["source"] == up.client4


# --- bpftool: what an operator sees without the agent ---


def test_every_pinned_map_has_btf_and_named_fields(guarded):
    up = guarded
    up.policy(policy("edge", ingress=[rule("allow", "TCP", 7858, peers=["10.0.0.0/8", "fd00::/8"], name="web")], default=DENY_IN))
    with traffic.Servers(up.server, tcp=[7858]):
        sockets = [traffic.connect(up.client, up.server_address(f), 7858) for f in (4, 6)]
        expect_udp(up.server, up.client4, 7859, "refused")
        paths = up.daemon.pinned_maps()
        names = {p.rsplit("/", 1)[1] for p in paths}
        assert {"flows4", "flows6", "flows4_new", "control", "ports", "rules", "drops", "addr4_nodes", "addr4_tables", "addr6_nodes", "classes", "rule_nodes"} <= names
        for path in paths:
            info = up.daemon.bpftool("map", "show", "pinned", path)
            # the kernel takes none for these: two have no key, the others sockets and devices for values
            assert info.get("btf_id") or info["type"] in ("ringbuf", "stack", "xskmap", "devmap_hash"), f"{path}: no BTF"
            assert info["name"] == path.rsplit("/", 1)[1][:15]
        for path in paths:
            info = up.daemon.bpftool("map", "show", "pinned", path)
            if info["type"] in ("ringbuf", "stack", "queue", "xskmap", "devmap_hash") or info["max_entries"] > 20000:
                continue  # cannot be dumped, or too long for a test: flow_slots is an array of its maximum
            for entry in up.daemon.bpftool("map", "dump", "pinned", path):
                assert "formatted" in entry, f"{path}: {str(entry)[:200]}"
        flow = up.daemon.bpftool("map", "dump", "pinned", f"{up.daemon.bpffs}/heddle/maps/flows4")[0]["formatted"]
        assert {"lo", "hi", "lo_port", "hi_port", "protocol", "kind", "network"} <= set(flow["key"])
        slot = up.daemon.bpftool(
            *("map", "lookup", "pinned", f"{up.daemon.bpffs}/heddle/maps/flow_slots", "key"), *flow["value"].to_bytes(4, "little")
        )["formatted"]["value"]
        assert {"packets", "bytes", "state", "rule", "version", "last_seen"} <= set(slot["flow"])
        control = up.daemon.bpftool("map", "dump", "pinned", f"{up.daemon.bpffs}/heddle/maps/control")[0]["formatted"]["value"]
        assert control["generation"] == up.daemon.generation()
        rules = up.daemon.bpftool("map", "dump", "pinned", f"{up.daemon.bpffs}/heddle/maps/rules")
        assert any(r["formatted"]["value"].get("name") == "web" for r in rules)
        for s in sockets:
            s.close()


def test_program_names_are_readable(guarded):
    names = {p.get("name") for p in guarded.daemon.bpftool("prog", "show")}
    assert {"tc_uplink_in", "tc_uplink_out"} <= names
    if guarded.backend in ("native", "generic"):
        assert "xdp_uplink" in names
    net = json.dumps(guarded.daemon.bpftool("net", "show"))
    if guarded.backend == "clsact":
        assert "tc_uplink_in" in net and "tc_uplink_out" in net  # Debian 12's bpftool does not know TCX


@pytest.mark.parametrize("reason,packet", [("tcp-flags", "SF"), ("tcp-flags", "")])
def test_a_nonsense_packet_has_a_reason(guarded, reason, packet):
    up = guarded
    before = up.daemon.drops().get((reason, "ingress"), 0)
    with raw.Wire(up.client, "wire0") as wire:
        wire.send(
            raw.Ether(src=up.client_mac, dst=up.server_mac)
            / raw.IP(src=up.client4, dst=up.server4)
            / raw.TCP(sport=1, dport=7860, flags=packet)
        )
        wait_for(lambda: up.daemon.drops().get((reason, "ingress"), 0) == before + 1, what=reason)
