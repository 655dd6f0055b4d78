# SPDX-License-Identifier: Apache-2.0
"""Every verb: what it asks the daemon, what it prints, how it exits."""
import json
import struct

import pytest
import yaml

from fake import stream

RULE = {"policy": "base", "name": "ssh", "index": 0, "direction": "ingress", "file": "/etc/heddle/base.yaml", "line": 14, "id": 64}
STATUS = {
    "ready": True, "generation": 7, "version": "0.1.0", "uptime": 3723, "lastError": None, "pendingConfirm": None,
    "programs": [{"hook": "xdp_uplink", "device": "eth1", "mode": "native", "id": 41},
                 {"hook": "tc_uplink_out", "device": "eth1", "mode": "tcx", "id": 43, "reason": "because"}],
    "uplinks": [{"device": "eth1", "ifindex": 4, "state": "attached", "xdp": "native", "xdpReason": "", "tc": "tcx", "foreignAhead": 2}],
    "unguarded": ["lo", "wg0"], "ports": [], "flows": {"proven": 3, "unproven": 1, "limits": {"flows": 65536, "flowsNew": 32768, "flowsOther": 16}},
    "objects": {"Host": 1, "Port": 0, "HostPolicy": 3}, "memory": {"rss": 7340032, "maps": {"policyBytes": 1000}}, "lockdown": False,
}
POLICY = {"apiVersion": "heddle.dev/v1alpha1", "kind": "HostPolicy", "metadata": {"name": "base"},
          "spec": {"priority": 100, "ingress": [{"name": "ssh", "action": "allow", "ports": [{"protocol": "TCP", "port": 22}]}],
                   "egress": [], "default": {"ingress": "deny", "egress": "allow"}}}
GROUP = {"apiVersion": "heddle.dev/v1alpha1", "kind": "AddressGroup", "metadata": {"name": "admins"},
         "spec": {"cidrs": ["10.0.0.0/8", "fd00::/8"]}}


def words(text):
    """The table without its spacing."""
    return [line.split() for line in text.splitlines()]


def test_status(fake, cli):
    fake.answers["GET /v1/status"] = STATUS
    out, _ = cli("status")
    assert out.startswith("heddled 0.1.0: ready, generation 7, up 1h02m\n")
    assert ["eth1", "attached", "native", "tcx", "2"] in words(out)
    assert ["tc_uplink_out", "eth1", "tcx", "43", "because"] in words(out)
    assert "flows: 3 proven (at most 65536 of TCP, 16 of others), 1 unproven (at most 32768)\n" in out
    assert "not guarded: lo wg0\n" in out
    assert "objects: Host 1 HostPolicy 3\nmemory: agent 7.0 MiB, policy maps 1000 B\n" in out
    assert "DECAPSULATION" not in out
    assert cli.json("status") == STATUS
    assert yaml.safe_load(cli("status", "-o", "yaml")[0]) == STATUS
    assert [request[:2] for request in fake.requests] == [("GET", "/v1/status")] * 3


@pytest.mark.parametrize("xdp_reason, note", [(None, ""), ("not there", "not there; ")])
def test_status_of_decapsulation(fake, cli, xdp_reason, note):
    uplink = {**STATUS["uplinks"][0], "xdpReason": xdp_reason, "decapsulation": "tc", "decapsulationReason": "XDP is off"}
    tunnel = {"protocol": "vxlan", "address": "192.0.2.1", "port": 4789, "decapsulation": "tc", "mtu": 1450, "slowPath": {}}
    waiting = {"device": "eth2", "state": "waiting", "decapsulation": None, "decapsulationReason": None}
    fake.answers["GET /v1/status"] = {**STATUS, "uplinks": [uplink, waiting], "tunnel": tunnel}
    out, _ = cli("status")
    assert ["UPLINK", "STATE", "XDP", "TC", "DECAPSULATION", "AHEAD", "OF", "US", "NOTE"] in words(out)
    assert ["eth1", "attached", "native", "tcx", "tc", "2", *f"{note}decapsulation in tc: XDP is off".split()] in words(out)
    assert [line for line in words(out) if line[:2] == ["eth2", "waiting"]][0][-2:] == ["-", "0"]


def test_status_that_is_not_well(fake, cli):
    fake.answers["GET /v1/status"] = {**STATUS, "ready": False, "lockdown": True, "adopted": True, "unguarded": [], "uplinks": [], "programs": [],
                                      "objects": {"Host": 0},
                                      "lastError": {"time": "T", "details": ["a.yaml:3: spec.x: want \x1b[2J", "b"]},
                                      "unsaved": [{"file": "ipam", "what": "addresses", "reason": "No space", "since": "T"}],
                                      "pendingConfirm": {"confirmBefore": "2026-01-01T00:00:00Z"}}
    out, _ = cli("status")
    assert "no uplink is declared: nothing is guarded" in out and "HOOK" not in out
    assert "objects: none\n" in out
    assert "NOT READY" in out and "not guarded: none" in out
    assert "an unconfirmed apply rolls back at 2026-01-01T00:00:00Z" in out
    assert "LOCKDOWN" in out and "ADOPTED" in out
    assert "NOT ON DISK since T: addresses (ipam): No space\n" in out
    assert "last error, T:\n  a.yaml:3: spec.x: want \\x1b[2J\n  b\n" in out


def test_wait_returns_when_ready(fake, cli):
    asked = []

    def answer(handler):
        asked.append(1)
        handler.say(200, json.dumps({**STATUS, "ready": len(asked) >= 3}).encode())

    fake.answers["GET /v1/status"] = answer
    assert cli("wait") == ("", "")
    assert len(asked) == 3


def test_wait_gives_up(fake, cli, lonely):
    fake.answers["GET /v1/status"] = {**STATUS, "ready": False, "lastError": {"time": "T", "details": ["no Host"]}}
    _, err = cli("wait", "--timeout", "100ms", expect=1)
    assert err == "heddle: the data plane is not in force\n  no Host\n"
    lonely("wait", "--timeout", "100ms", expect=3)
    lonely("wait", "--timeout", "0s", expect=3)


def test_apply(fake, cli, tmp_path):
    fake.answers["POST /v1/apply"] = {"items": [{"kind": "HostPolicy", "name": "base", "result": "created"}], "generation": 8}
    text = b"kind: HostPolicy\n---\n# \xc3\xa4\n" * 1000
    path = tmp_path / "a.yaml"
    path.write_bytes(text)
    out, _ = cli("apply", "-f", str(path))
    assert out == "HostPolicy/base created\ngeneration 8\n"
    fake.answers["POST /v1/apply"]["items"][0] = {"kind": "Port", "namespace": "shop", "name": "web-1", "result": "created"}
    assert cli("apply", "-f", str(path))[0] == "Port/shop/web-1 created\ngeneration 8\n"
    assert fake.requests[-1][2] == text
    cli("apply", "-f", "-", stdin=text)
    assert fake.requests[-1][2] == text
    assert cli.json("apply", "--filename", str(path))["generation"] == 8


def test_apply_confirm(fake, cli):
    fake.answers["POST /v1/apply?confirm=1m30s"] = {"items": [], "generation": 8, "confirmBefore": "2026-01-01T00:00:00Z"}
    fake.answers["POST /v1/confirm"] = {"generation": 8}
    out, _ = cli("apply", "-f", "-", "--confirm", "1m30s", stdin=b"")
    assert out.startswith("there is no document in it\n")
    assert "rolls back at 2026-01-01T00:00:00Z unless confirmed" in out
    assert cli("confirm")[0] == "confirmed\n"
    assert fake.requests[-1][:2] == ("POST", "/v1/confirm")


def test_apply_refused(fake, cli):
    fake.answers["POST /v1/apply"] = (400, {"error": "2 mistakes", "details": ["line 3: spec.x: want y", "line 4: z"]})
    out, err = cli("apply", "-f", "-", stdin=b"x", expect=1)
    assert out == "" and err == "heddle: 2 mistakes\n  line 3: spec.x: want y\n  line 4: z\n"


def test_get(fake, cli):
    fake.answers["GET /v1/objects/hostpolicy"] = {"items": [POLICY, {**POLICY, "metadata": {"name": "x"}}], "origins": [
        {"name": "base", "file": "/etc/heddle/base.yaml", "line": 9}, {"name": "x", "file": None, "line": None}]}
    fake.answers["GET /v1/objects/HostPolicies/base"] = POLICY
    fake.answers["GET /v1/objects/builtin"] = {"items": [{"kind": "Builtin", "name": "arp", "description": "address resolution"}]}
    out, _ = cli("get", "hostpolicy")
    assert words(out)[1][:3] == ["HostPolicy", "base", "/etc/heddle/base.yaml:9"]
    assert words(out)[2][:3] == ["HostPolicy", "x", "applied"]
    assert "priority 100, 1 ingress, 0 egress, default deny / allow" in out
    assert cli.json("get", "hostpolicy")["items"][0] == POLICY
    for output in ("table", "yaml"):
        assert yaml.safe_load(cli("get", "HostPolicies", "base", "-o", output)[0]) == POLICY
    assert ["Builtin", "arp", "built", "in", "address", "resolution"] in words(cli("get", "builtin")[0])


def port(namespace, name):
    return {"apiVersion": "heddle.dev/v1alpha1", "kind": "Port", "metadata": {"name": name, "namespace": namespace},
            "spec": {"device": "veth-" + name, "network": "blue", "addresses": ["10.77.0.1", "fd77::1"]}}


def test_get_of_a_namespace(fake, cli):
    fake.answers["GET /v1/objects/ports"] = {"items": [port("default", "a"), port("shop", "b")], "origins": [
        {"name": "a", "namespace": "default", "file": None, "line": None}, {"name": "b", "namespace": "shop", "file": "/p.yaml", "line": 3}]}
    fake.answers["GET /v1/objects/ports?namespace=shop"] = {"items": [port("shop", "b")], "origins": []}
    fake.answers["GET /v1/objects/port/a"] = port("default", "a")
    fake.answers["GET /v1/objects/port/b?namespace=shop"] = port("shop", "b")
    out, _ = cli("get", "ports")
    assert words(out)[0] == ["KIND", "NAMESPACE", "NAME", "ORIGIN", "WHAT"]
    assert words(out)[1][:4] == ["Port", "default", "a", "applied"]
    assert words(out)[2] == ["Port", "shop", "b", "/p.yaml:3", "veth-b,", "network", "blue,", "10.77.0.1,", "fd77::1"]
    assert len(words(cli("get", "-n", "shop", "ports")[0])) == 2
    assert len(words(cli("get", "ports", "--namespace", "shop")[0])) == 2
    assert yaml.safe_load(cli("get", "port", "a")[0]) == port("default", "a")
    for argv in (["shop/b"], ["-n", "shop", "shop/b"]):  # as tables and messages have it
        assert yaml.safe_load(cli("get", "port", *argv)[0]) == port("shop", "b")
    assert "since -n says so" in cli("get", "port", "shop/b", "-n", "lab", expect=2)[1]
    assert cli.json("get", "port", "b", "-n", "shop") == port("shop", "b")
    _, err = cli("get", "port", "-n", "", expect=2)
    assert "-n needs a namespace" in err
    fake.answers["GET /v1/objects/ports"]["origins"] = [{"name": "a", "file": None, "source": "kubernetes"}, {"name": "b", "file": None, "source": "cni"}]
    assert [line[3] for line in words(cli("get", "ports")[0])[1:]] == ["kubernetes", "cni"]
    fake.answers["GET /v1/objects/ports"]["origins"][0]["source"] = "api"
    assert words(cli("get", "ports")[0])[1][3] == "applied"


@pytest.mark.parametrize("kind, spec, summary", [
    ("Network", {"vni": 100, "vlan": 10, "mode": "l2", "subnets": ["10.77.0.0/24"]}, "vni 100, vlan 10, l2, 10.77.0.0/24"),
    ("Port", {"vf": {"pf": "eth1", "index": 3}, "network": "blue", "addresses": []}, "vf 3 of eth1, network blue"),
    ("Port", {"pci": "0000:01:00.0", "network": "blue"}, "0000:01:00.0, network blue"),
    ("Peer", {"address": "192.0.2.2", "ports": [{}, {}], "prefixes": [{}]}, "192.0.2.2, 2 ports, 1 prefixes"),
    ("NetworkPolicy", {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]}, "Ingress, 1 ingress, 0 egress"),
    ("ClusterNetworkPolicy", {"tier": "Admin", "priority": 5}, "Admin, priority 5, 0 ingress, 0 egress"),
    ("HostPolicy", {"priority": 5, "audit": True}, "priority 5, 0 ingress, 0 egress, audit"),
    ("Host", {"uplinks": [{"device": "eth0"}, {"device": "eth1"}]}, "uplinks eth0, eth1"),
])
def test_get_tells_what_it_is(fake, cli, kind, spec, summary):
    fake.answers["GET /v1/objects/x"] = {"items": [{"kind": kind, "metadata": {"name": "n"}, "spec": spec}], "origins": [{"file": None}]}
    assert cli("get", "x")[0].splitlines()[1].endswith("  " + summary)


def test_get_namespaces(fake, cli):
    labels = {"kubernetes.io/metadata.name": "shop", "team": "a", "x": "y"}
    fake.answers["GET /v1/objects/ns"] = {"items": [{"kind": "Namespace", "metadata": {"name": "shop", "labels": labels}, "spec": {}}], "origins": []}
    assert words(cli("get", "ns")[0])[1] == ["Namespace", "shop", "built", "in", "team=a,", "x=y"]


def test_a_long_summary_is_cut(fake, cli):
    spec = {"mode": "l2", "subnets": [f"10.{i}.0.0/16" for i in range(250)]}
    fake.answers["GET /v1/objects/network"] = {"items": [{"kind": "Network", "metadata": {"name": "n"}, "spec": spec}], "origins": []}
    assert "l2, 10.0.0.0/16, 10.1.0.0/16" in cli("get", "network")[0]


def test_names_are_escaped(fake, cli):
    fake.answers["GET /v1/objects/a%2Fb/..%3Fx%20%C3%A4"] = POLICY
    cli("get", "a/b", "..?x ä")
    fake.answers["GET /v1/objects/port/..%3Fx?namespace=..%20"] = POLICY
    cli("get", "port", ".. /..?x")
    fake.answers["DELETE /v1/objects/host/.."] = {}
    cli("delete", "host", "..")
    cli("get", "host", "x" * 5000, expect=1)


def test_delete(fake, cli):
    fake.answers["DELETE /v1/objects/hostpolicy/base"] = {"generation": 9}
    fake.answers["DELETE /v1/objects/hostpolicy/file"] = (409, {"error": "HostPolicy/file belongs to /etc/heddle/a.yaml"})
    assert cli("delete", "hostpolicy", "base")[0] == "hostpolicy/base deleted\n"
    fake.answers["DELETE /v1/objects/netpol/web?namespace=shop"] = {"generation": 9}
    assert cli("delete", "netpol", "web", "-n", "shop")[0] == "netpol/shop/web deleted\n"
    assert cli("delete", "netpol", "shop/web")[0] == "netpol/shop/web deleted\n"
    assert "want NAME or NAMESPACE/NAME" in cli("delete", "netpol", "shop/", expect=2)[1]
    cli("delete", "netpol", "web", "-n", "", expect=2)
    _, err = cli("delete", "hostpolicy", "file", expect=1)
    assert err == "heddle: HostPolicy/file belongs to /etc/heddle/a.yaml\n"


def diff(fake, cli, *items):
    fake.answers["POST /v1/diff"] = {"items": list(items)}
    return cli("diff", "-f", "-", stdin=b"x")[0]


def test_diff(fake, cli):
    ssh, web, dns = ({"name": name, "action": "allow", "ports": [{"protocol": "TCP", "port": port}]}
                     for name, port in (("ssh", 22), ("web", 80), ("dns", 53)))
    before = {**POLICY, "spec": {"priority": 100, "ingress": [ssh, web], "egress": []}}
    after = {**POLICY, "spec": {"priority": 50, "ingress": [dns, ssh, {**web, "action": "deny"}], "log": True}}
    out = diff(fake, cli, {"kind": "HostPolicy", "name": "base", "change": "update", "before": before, "after": after},
               {"kind": "Host", "name": "n", "change": "none", "before": None, "after": None})
    assert out.splitlines() == [
        "~ HostPolicy/base",
        "    ~ spec.priority: 100 -> 50",
        '    ~ spec.ingress[web].action: "allow" -> "deny"',
        '    + spec.ingress[dns]: {"action": "allow", "name": "dns", "ports": [{"port": 53, "protocol": "TCP"}]}',
        "    + spec.log: true",
    ]


def test_diff_order_counts(fake, cli):
    a, b = {"name": "a", "action": "allow"}, {"name": "b", "action": "deny"}
    out = diff(fake, cli, {"kind": "HostPolicy", "name": "p", "change": "update", "before": {"spec": {"ingress": [a, b]}},
                           "after": {"spec": {"ingress": [b, a]}}})
    assert out == "~ HostPolicy/p\n    ~ spec.ingress: order: a was at place 0, b comes here now\n"


def test_diff_lists_without_names(fake, cli):
    cidrs = [f"10.{i // 256}.{i % 256}.0/24" for i in range(3000)]
    out = diff(fake, cli, {"kind": "AddressGroup", "name": "g", "change": "update", "before": {"spec": {"cidrs": cidrs}},
                           "after": {"spec": {"cidrs": ["192.0.2.0/24"] + cidrs[:10] + cidrs[11:]}}})
    assert out == '~ AddressGroup/g\n    - spec.cidrs: "10.0.10.0/24"\n    + spec.cidrs: "192.0.2.0/24"\n'
    out = diff(fake, cli, {"kind": "X", "name": "g", "change": "update", "before": {"l": [{"p": 1}, {"p": 2}, 3]},
                           "after": {"l": [{"p": 1}, {"p": 4}, 3, 5]}})
    assert out == "~ X/g\n    ~ l[1].p: 2 -> 4\n    + l[3]: 5\n"


def test_diff_of_a_peers_ports(fake, cli):
    """The same name in two namespaces is two."""
    a, b = {"name": "db", "namespace": "default", "network": "blue"}, {"name": "db", "namespace": "shop", "network": "blue"}
    new = {"name": "web", "namespace": "shop", "network": "blue"}
    out = diff(fake, cli, {"kind": "Peer", "name": "n", "change": "update", "before": {"spec": {"ports": [a, b]}},
                           "after": {"spec": {"ports": [a, {**b, "labels": {"app": "db"}}, new], "prefixes": []}}})
    assert out == ('~ Peer/n\n    + spec.ports[shop/db].labels: {"app": "db"}\n'
                   '    + spec.ports[shop/web]: {"name": "web", "namespace": "shop", "network": "blue"}\n')


def test_diff_new_and_none(fake, cli):
    out = diff(fake, cli, {"kind": "AddressGroup", "name": "admins", "change": "create", "before": None, "after": GROUP})
    assert out == '+ AddressGroup/admins\n    + cidrs: "10.0.0.0/8"\n    + cidrs: "fd00::/8"\n'
    out = diff(fake, cli, {"kind": "Port", "namespace": "shop", "name": "b", "change": "create", "before": None, "after": port("shop", "b")})
    assert out.startswith("+ Port/shop/b\n    + device: \"veth-b\"\n")
    out = diff(fake, cli, {"kind": "AddressGroup", "name": "admins", "namespace": None, "change": "none", "before": None, "after": None})
    assert out == "nothing would change (1 object)\n"
    assert cli.json("diff", "-f", "-", stdin=b"x")["items"][0]["change"] == "none"


FLOW = {"network": "host", "protocol": "TCP", "source": "192.0.2.1", "sourcePort": 40000, "destination": "2001:db8::1",
        "destinationPort": 22, "state": "established", "proven": True, "packets": 10, "bytes": 1000, "idleMs": 1500, "rule": RULE,
        "device": "eth1"}


def test_flows(fake, cli):
    ping = {**FLOW, "protocol": "ICMP", "destination": "192.0.2.9", "sourcePort": 0, "destinationPort": 0, "icmpId": 7, "rule": None, "network": "blue"}
    fake.answers["GET /v1/flows"] = {"items": [FLOW, ping]}
    rows = words(cli("flows")[0])
    assert rows[0] == ["PROTOCOL", "SOURCE", "DESTINATION", "STATE", "PROVEN", "PACKETS", "BYTES", "IDLE", "NETWORK", "DEVICE", "RULE"]
    assert rows[1] == ["TCP", "192.0.2.1:40000", "[2001:db8::1]:22", "established", "yes", "10", "1000", "1s", "-", "eth1", "base/ssh"]
    assert rows[2][:3] == ["ICMP", "192.0.2.1", "192.0.2.9"] and rows[2][8:10] == ["blue", "eth1"]
    assert cli.json("flows") == {"items": [FLOW, ping]}


def test_long_lists_come_in_pieces(fake, cli):
    odd = {**FLOW, "rule": {"policy": 'a "quoted" {[name\\', "name": "}]\u00e4"}, "items": [{"x": [[]]}]}
    everything = {"other": [{"a": 1}], "items": [{**odd, "packets": i} for i in range(3000)], "more": {"items": [{}]}}
    fake.answers["GET /v1/flows"] = stream(json.dumps(everything, indent=1).encode())
    assert cli.json("flows") == {"items": everything["items"]}
    fake.answers["GET /v1/flows"] = everything
    assert yaml.load(cli("-o", "yaml", "flows")[0], yaml.CSafeLoader) == {"items": everything["items"]}
    assert len(cli("flows")[0].splitlines()) == 3001
    fake.answers["GET /v1/flows"] = {"items": []}
    assert cli.json("flows") == {"items": []}
    assert yaml.safe_load(cli("-o", "yaml", "flows")[0]) == {"items": []}


def test_preview(fake, cli):
    cut = {**FLOW, "now": "allow", "then": "deny", "audit": False, "nowRule": RULE}
    let = {**FLOW, "now": "reject", "then": "allow", "audit": True, "rule": None, "nowRule": RULE}
    fake.answers["POST /v1/preview"] = {"items": [cut, let]}
    rows = words(cli("preview", "-f", "-", stdin=b"some: document")[0])
    assert rows[0][:3] == ["NOW", "THEN", "PROTOCOL"]
    assert rows[1] == ["allow", "deny", "TCP", "192.0.2.1:40000", "[2001:db8::1]:22", "established", "10", "eth1", "base/ssh", "/etc/heddle/base.yaml:14"]
    assert rows[2][:4] == ["reject", "allow", "(audit)", "TCP"]
    assert fake.requests[0][0] == "POST" and fake.requests[0][2] == b"some: document"
    assert cli.json("preview", "-f", "-", stdin=b"x") == {"items": [cut, let]}
    fake.answers["POST /v1/preview"] = {"items": []}
    assert len(cli("preview", "-f", "-", stdin=b"x")[0].splitlines()) == 1
    fake.answers["POST /v1/preview"] = (400, {"error": "refused", "details": ["a.yaml:3: spec: want an object, got a list"]})
    assert "a.yaml:3" in cli("preview", "-f", "-", stdin=b"x", expect=1)[1]


FINDING = {"kind": "shadowed", "severity": "warning", "policyKind": "HostPolicy", "namespace": None, "policy": "base",
           "rule": {"kind": "HostPolicy", "policy": "base", "name": "ssh", "index": 3, "direction": "ingress", "file": "/etc/heddle/base.yaml", "line": 14},
           "because": {"rule": RULE, "rules": [RULE], "more": 0}, "message": "HostPolicy base ingress[0] decides all that it matches"}


def test_policy_lint(fake, cli):
    whole = {**FINDING, "kind": "unreachable", "severity": "info", "rule": {"kind": "NetworkPolicy", "namespace": "shop", "policy": "web", "name": None, "index": None,
                                                                            "direction": None, "file": None, "line": None}}
    fake.answers["GET /v1/lint"] = {"items": [FINDING, whole], "omitted": 7}
    lines = cli("policy", "lint")[0].splitlines()
    assert lines[0].split() == ["SEVERITY", "KIND", "RULE", "WHERE", "WHY"]
    assert "HostPolicy/base ingress[3] ssh" in lines[1] and "/etc/heddle/base.yaml:14" in lines[1] and FINDING["message"] in lines[1]
    assert lines[2].split()[:4] == ["info", "unreachable", "NetworkPolicy/shop/web", "applied"]
    assert lines[3] == "and 7 more"
    assert cli.json("policy", "lint") == {"items": [FINDING, whole], "omitted": 7}
    cli("policy", "lint", "--strict", expect=1)
    fake.answers["POST /v1/lint"] = {"items": [], "omitted": 0}
    assert cli("policy", "lint", "-f", "-", "--strict", stdin=b"some: document")[0] == "nothing found\n"
    assert fake.requests[-1][:3] == ("POST", "/v1/lint", b"some: document")
    fake.answers["POST /v1/lint"] = (400, {"error": "refused", "details": ["a.yaml:3: spec: want an object, got a list"]})
    assert "a.yaml:3" in cli("policy", "lint", "-f", "-", stdin=b"x", expect=1)[1]


def test_flows_watch(fake, cli):
    fake.answers["GET /v1/flows?watch=1"] = stream({"type": "new", **FLOW}, {"type": "end", **FLOW, "network": "blue"})
    out, err = cli("flows", "--watch", expect=1)
    assert err == "heddle: the daemon ended the stream\n"
    assert [line.split()[0] for line in out.splitlines()] == ["new", "end"]
    assert "TCP 192.0.2.1:40000 > [2001:db8::1]:22" in out
    assert ["  blue  base/ssh" in line for line in out.splitlines()] == [False, True]
    out, _ = cli("-o", "json", "flows", "-w", expect=1)
    assert [json.loads(line)["type"] for line in out.splitlines()] == ["new", "end"]
    out, _ = cli("-o", "yaml", "flows", "-w", expect=1)
    assert [document["type"] for document in yaml.safe_load_all(out)] == ["new", "end"]


EVENT = {"type": "drop", "time": "2026-01-01T00:00:00.123Z", "verdict": "drop", "reason": "tcp-no-flow", "hook": "xdp_uplink",
         "device": "eth1", "direction": "ingress", "rule": RULE, "generation": 7, "vlan": [10, 20], "length": 64, "protocol": "TCP",
         "source": "192.0.2.1", "destination": "192.0.2.2", "sourcePort": 1, "destinationPort": 2, "tcpFlags": "A"}


def test_monitor(fake, cli):
    other = {"type": "drop", "verdict": "deny", "reason": "policy-deny", "etherType": "0x88b5", "vlan": [], "rule": None}
    full = {"type": "full", "time": "T", "table": "flows", "device": "eth1"}
    trial = {**EVENT, "type": "log", "verdict": "allow", "audit": True, "reason": "policy-deny"}
    ping = {"verdict": "allow", "reason": "none", "protocol": "ICMP", "source": "::1", "destination": "::2", "icmpType": 8, "icmpCode": 0,
            "rule": {"policy": "builtin", "name": "nd", "file": None}}
    fake.answers["GET /v1/monitor"] = stream(EVENT, other, full, ping, b"", {"type": "lost", "count": 5}, trial)
    fake.answers["GET /v1/monitor?drops=1"] = stream(EVENT)
    lines = cli("monitor", expect=1)[0].splitlines()
    assert lines[0] == ("2026-01-01T00:00:00.123Z  drop    xdp_uplink eth1 ingress  TCP 192.0.2.1:1 > 192.0.2.2:2 [A] vlan 10,20 64 bytes"
                        "  tcp-no-flow  base/ssh (/etc/heddle/base.yaml:14)")
    assert "EtherType 0x88b5  policy-deny" in lines[1]
    assert lines[2] == "T  full    the table flows took no entry"
    assert "ICMP ::1 > ::2 type 8 code 0  builtin/nd (built in)" in lines[3]
    assert lines[4] == "... 5 lines were lost here"
    assert lines[5].startswith("2026-01-01T00:00:00.123Z  audit   xdp_uplink eth1 ingress  TCP") and "  policy-deny  base/ssh" in lines[5]
    assert len(lines) == 6
    out, _ = cli("-o", "json", "monitor", "--drops", expect=1)
    assert json.loads(out) == EVENT


EXPLANATION = {"verdict": "deny", "reason": "policy-deny", "rule": RULE, "path": [
    {"step": "hook", "program": "xdp_uplink", "device": "eth1", "text": "xdp_uplink on eth1 judges"},
    {"step": "packet", "text": "TCP 192.0.2.1 port 1 > 192.0.2.2 port 22 flags S", "protocol": "TCP"}]}


def test_explain(fake, cli):
    fake.answers["POST /v1/explain"] = EXPLANATION
    out, _ = cli("explain", "--from", "192.0.2.1", "--to", "192.0.2.2", "--protocol", "tcp", "--dport", "22", "--sport", "1",
                 "--tcp-flags", "S", "--vlan", "10,20", "--reply", "--uplink", "eth1")
    assert json.loads(fake.requests[-1][2]) == {"from": "192.0.2.1", "to": "192.0.2.2", "protocol": "tcp", "dport": 22, "sport": 1,
                                                "tcpFlags": "S", "vlan": [10, 20], "reply": True, "uplink": "eth1"}
    assert out.splitlines() == ["verdict: deny", "reason:  policy-deny", "rule:    base/ssh, ingress rule 0, /etc/heddle/base.yaml:14",
                                "path:", "  1. xdp_uplink on eth1 judges", "  2. TCP 192.0.2.1 port 1 > 192.0.2.2 port 22 flags S"]
    cli("explain", "--from", "::1", "--to", "::2", "--icmp-type", "128", "--icmp-code", "0", "--vlan", "10", "--egress", "e")
    assert json.loads(fake.requests[-1][2]) == {"from": "::1", "to": "::2", "icmpType": 128, "icmpCode": 0, "vlan": 10, "egress": "e"}
    assert cli.json("explain", "--from", "::1", "--to", "::2") == EXPLANATION


def test_explain_ports(fake, cli):
    egress = {**RULE, "policy": "out", "name": None, "index": 2, "direction": "egress", "port": "default/web"}
    fake.answers["POST /v1/explain"] = {**EXPLANATION, "verdict": "allow", "audit": True, "reason": "none",
                                        "rules": [egress, {**RULE, "direction": "ingress", "port": "shop/db"}]}
    out, _ = cli("explain", "--from", "::1", "--to", "::2", "--dport", "1", "--network", "n", "--port", "p", "-n", "shop")
    assert json.loads(fake.requests[-1][2]) == {"from": "::1", "to": "::2", "dport": 1, "network": "n", "port": "p", "namespace": "shop"}
    isolated = {"policy": "builtin", "name": "isolated", "index": None, "direction": "ingress", "port": "shop/db",
                "isolatedBy": [{"namespace": "shop", "policy": "only", "file": None, "line": None, "source": "kubernetes"}]}
    fake.answers["POST /v1/explain"] = {**EXPLANATION, "rules": [isolated]}
    assert "    shop/db is isolated by shop/only, kubernetes\n" in cli("explain", "--from", "::1", "--to", "::2", "--dport", "1")[0]
    cli("explain", "--from", "::1", "--to", "::2", "--dport", "1", "--port", "shop/p")
    assert json.loads(fake.requests[-1][2]) == {"from": "::1", "to": "::2", "dport": 1, "port": "p", "namespace": "shop"}
    cli("explain", "--from", "::1", "--to", "::2", "--dport", "1", "--port", "/p", expect=2)
    assert out.splitlines()[:4] == ["verdict: allow (audit: it would be dropped)", "rule:    base/ssh, ingress rule 0, /etc/heddle/base.yaml:14",
                                    "  egress of default/web: out#2, /etc/heddle/base.yaml:14", "  ingress of shop/db: base/ssh, /etc/heddle/base.yaml:14"]


def pcap(path, frames, link=1):
    with open(path, "wb") as file:
        file.write(struct.pack("<IHHiIII", 0xa1b2c3d4, 2, 4, 0, 0, 262144, link))
        for data, length in frames:
            file.write(struct.pack("<IIII", 1767225600, 500000, len(data), length) + data)


def test_explain_pcap(fake, cli, tmp_path):
    path = tmp_path / "a.pcap"
    frame = bytes(range(60))
    pcap(path, [(frame, 60), (frame[:20], 64)])
    fake.answers["POST /v1/explain"] = EXPLANATION
    out, _ = cli("explain", "--pcap", str(path), "--uplink", "eth1")
    asked = [json.loads(request[2]) for request in fake.requests]
    assert asked == [{"frame": frame.hex(), "uplink": "eth1"}, {"frame": frame[:20].hex() + "00" * 44, "uplink": "eth1"}]
    lines = out.splitlines()
    assert lines[0] == "1  2026-01-01T00:00:00.500000Z  deny    TCP 192.0.2.1 port 1 > 192.0.2.2 port 22 flags S  base/ssh  policy-deny"
    assert lines[1].endswith("(captured in part: the rest taken as zeros)")
    out, _ = cli("-o", "json", "explain", "--pcap", "-", stdin=path.read_bytes())
    results = [json.loads(line) for line in out.splitlines()]
    assert [(result["frame"], result["verdict"], result.get("padded")) for result in results] == [(1, "deny", None), (2, "deny", True)]
    nowhere = tmp_path / "nowhere.pcap"
    assert cli("explain", "--pcap", str(nowhere), expect=1)[1] == f"heddle: {nowhere}: No such file or directory\n"


def test_explain_pcap_other_links(fake, cli, tmp_path):
    path = tmp_path / "a.pcap"
    fake.answers["POST /v1/explain"] = EXPLANATION
    ethernet = "020000000001020000000002"
    ip = bytes([0x45]) + bytes(19)
    ip6 = bytes([0x60]) + bytes(39)
    for link, data, wanted in ((101, ip, "0800" + ip.hex()), (101, ip6, "86dd" + ip6.hex()),
                               (113, bytes(14) + b"\x08\x06" + ip, "0806" + ip.hex()),
                               (276, b"\x86\xdd" + bytes(18) + ip6, "86dd" + ip6.hex())):
        pcap(path, [(data, len(data))], link)
        cli("explain", "--pcap", str(path))
        assert json.loads(fake.requests[-1][2])["frame"] == ethernet + wanted
    pcap(path, [], 105)
    _, err = cli("explain", "--pcap", str(path), expect=1)
    assert "link type" in err


def test_explain_pcap_goes_on_after_a_bad_frame(fake, cli, tmp_path):
    path = tmp_path / "a.pcap"
    pcap(path, [(b"", 0), (bytes(60), 60)])

    def answer(handler):
        good = json.loads(handler.body)["frame"]
        handler.say(200 if good else 400, json.dumps(EXPLANATION if good else {"error": "frame: too short"}).encode())

    fake.answers["POST /v1/explain"] = answer
    out, err = cli("explain", "--pcap", str(path), expect=1)
    assert "frame: too short" in out.splitlines()[0] and "deny" in out.splitlines()[1]
    assert err == "heddle: 1 frames could not be explained\n"
    path.write_bytes(b"not a capture")
    cli("explain", "--pcap", str(path), expect=1)
    cli("explain", "--pcap", str(tmp_path / "none"), expect=1)


def test_rules(fake, cli):
    fake.answers["GET /v1/rules"] = {"items": [
        {"id": 3, "policy": "builtin", "name": "arp", "direction": None, "index": None, "action": None, "file": None, "line": None,
         "packets": 2, "bytes": 84},
        {**RULE, "action": "allow", "packets": 10, "bytes": 1000},
        {**RULE, "name": None, "file": None, "line": None, "action": "deny", "index": 1, "packets": 0, "bytes": 0}]}
    # by policy and place, not by age; policies of the same name in two namespaces are two
    web = {**RULE, "kind": "NetworkPolicy", "policy": "web", "name": None, "file": None, "line": None, "action": "allow", "packets": 0, "bytes": 0}
    fake.answers["GET /v1/rules"]["items"] += [{**web, "namespace": "shop", "index": 10}, {**web, "namespace": "shop", "index": 9}, {**web, "namespace": "lab"}]
    fake.answers["GET /v1/rules"]["items"].insert(0, fake.answers["GET /v1/rules"]["items"].pop(2))
    rows = words(cli("rules")[0])
    assert [r[:3] for r in rows[4:]] == [["lab/web", "ingress", "0"], ["shop/web", "ingress", "9"], ["shop/web", "ingress", "10"]]
    assert rows[1] == ["builtin", "-", "-", "arp", "-", "2", "84", "built", "in"]
    assert rows[2] == ["base", "ingress", "0", "ssh", "allow", "10", "1000", "/etc/heddle/base.yaml:14"]
    assert rows[3] == ["base", "ingress", "1", "-", "deny", "0", "0", "applied"]
    assert len(cli.json("rules")["items"]) == 6


def test_counters(fake, cli):
    answer = {"drops": [{"reason": "policy-deny", "direction": "ingress", "packets": 5, "bytes": 300, "description": "a rule says so"}],
              "totals": {"ingress": {"packets": 9, "bytes": 900}, "cut": 1}, "tableFull": {"flows": 2}, "eventsLost": 0}
    fake.answers["GET /v1/counters"] = answer
    rows = words(cli("counters")[0])
    assert ["policy-deny", "ingress", "5", "300", "a", "rule", "says", "so"] in rows
    assert ["ingress", "9", "900"] in rows and ["cut", "1"] in rows and ["flows", "2"] in rows
    assert cli.json("counters") == answer
    fake.answers["GET /v1/counters"] = {"drops": [], "totals": {}, "tableFull": {}}
    assert cli("counters")[0] == "nothing was dropped\n"


@pytest.mark.parametrize("value", ["", "no", "1e3", "0x10", "10:20", "~", "-", "null", "a: b", "# x", "é", "\n", "\t", "a\nb", "22", "1.0.0.0", "@x",
                                   "-a", "true", "x" * 300, "\U0001f600", "a ", "\x7f", "[", "/etc/heddle/a.yaml", "10.0.0.0/8"])
def test_yaml_keeps_strings(fake, cli, value):
    answer = {"x": value, "list": [value, [], {}, [[value]], {"k": [{"a": value}]}], "n": 1, "f": 0.1, "t": True, "none": None,
              value or "k": -9007199254740993}
    fake.answers["GET /v1/status"] = answer
    assert yaml.safe_load(cli("status", "-o", "yaml")[0]) == answer


def test_peers_are_named(fake, cli):
    """Beside the address that is behind one; where a frame has none, by themselves."""
    there = {**FLOW, "destinationPeer": "node-b"}
    fake.answers["GET /v1/flows"] = {"items": [{**FLOW, "sourcePeer": "node-c"}, there]}
    rows = cli("flows")[0].splitlines()
    assert "192.0.2.1:40000 (node-c)  [2001:db8::1]:22 " in rows[1]
    assert "192.0.2.1:40000 " in rows[2] and "[2001:db8::1]:22 (node-b)" in rows[2]
    frame = {"type": "drop", "verdict": "deny", "reason": "policy-deny", "etherType": "0x88b5", "vlan": [], "rule": None}
    outer = {"type": "drop", "verdict": "drop", "reason": "tunnel-vni", "protocol": "UDP", "source": "::1", "destination": "::2", "sourcePeer": "node-b"}
    fake.answers["GET /v1/monitor"] = stream({**frame, "sourcePeer": "node-b"}, {**frame, "destinationPeer": "node-c"}, outer)
    lines = cli("monitor", expect=1)[0].splitlines()
    assert "EtherType 0x88b5 from node-b  policy-deny" in lines[0]
    assert "EtherType 0x88b5 to node-c  policy-deny" in lines[1]
    assert "UDP ::1 (node-b) > ::2  tunnel-vni" in lines[2]
    fake.answers["POST /v1/explain"] = EXPLANATION
    cli("explain", "--from", "::1", "--to", "::2", "--dport", "1", "--network", "n", "--peer", "node-b")
    assert json.loads(fake.requests[-1][2]) == {"from": "::1", "to": "::2", "dport": 1, "network": "n", "peer": "node-b"}


def test_vf(fake, cli):
    vf = {"pf": "eth1", "index": 3, "pci": "0000:01:10.3", "driver": "vfio-pci", "device": None, "representor": "eth1_3",
          "port": {"namespace": "default", "name": "web", "state": "ready"}, "mac": "02:00:00:00:00:03", "vlan": 10, "qos": 1, "minRate": 0,
          "maxRate": 1000, "spoofCheck": True, "trust": False, "linkState": "auto",
          "refused": [{"setting": "trust", "reason": "Operation not supported"}]}
    other = {**vf, "index": 4, "representor": None, "port": None, "vlan": None, "maxRate": None, "spoofCheck": None, "trust": None,
             "linkState": None, "refused": [], "mac": None}
    pf = {"device": "eth1", "address": "0000:01:00.0", "driver": "mlx5_core", "vfs": 2, "totalVfs": 8, "eswitch": "switchdev"}
    fake.answers["GET /v1/vfs"] = {"pfs": [pf], "items": [vf, other]}
    out, _ = cli("vf")
    assert out.startswith("eth1 (0000:01:00.0, mlx5_core): 2 of 8 VFs, switchdev\n")
    assert "eth1 3 0000:01:10.3 - eth1_3 default/web 02:00:00:00:00:03 10 1000 on off auto".split() in words(out)
    assert "eth1 4 0000:01:10.3 - - - - - - - - -".split() in words(out)
    assert "VF 3 of eth1: trust is refused: Operation not supported\n" in out
    assert cli.json("vf") == fake.answers["GET /v1/vfs"]
    fake.answers["GET /v1/vfs"] = {"pfs": [], "items": []}
    assert cli("vf")[0] == "no device here has VFs\n"
