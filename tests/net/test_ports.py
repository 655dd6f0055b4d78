# SPDX-License-Identifier: Apache-2.0
"""Ports and networks on one host: devices that come and go, what the host's stack is told, and that nothing of it stays behind."""

import json
import os
import re
import signal
import subprocess
import time

import pytest
from lib import bpf
from lib import documents as doc
from lib.heddled import wait_for
from lib.ports import GATEWAY_MAC, PortHost

BLUE = doc.network("blue", subnets=["10.77.0.0/24", "fd77::/64"], gateway=["10.77.0.254", "fd77::fe"])
BLUE_HOST = doc.network("blue", subnets=["10.77.0.0/24", "fd77::/64"], gateway=["10.77.0.254", "fd77::fe"], routesTo=["host"])


def ports_of(ns, device):
    """Programs on both sides of a device, in the order in which packets meet them: those of TCX come first."""
    return [bpf.tcx_programs(ns, device, way) + bpf.filter_programs(ns, device, side) for way, side in zip(bpf.TCX, ("ingress", "egress"))]


def our_routes(ns):
    """{address: device} of the routes and of the neighbour entries that carry our protocol."""
    routes = {}
    for family in ("-4", "-6"):
        for r in json.loads(ns.run("ip", "-j", family, "route", "show", "proto", "104").stdout or "[]"):
            routes[r["dst"]] = r["dev"]
    entries = {}
    for line in (ns.run("ip", "-4", "neigh", "show", "proto", "104").stdout + ns.run("ip", "-6", "neigh", "show", "proto", "104").stdout).splitlines():
        match = re.match(r"(\S+) dev (\S+) lladdr (\S+) PERMANENT", line)
        if match:
            entries[match[1]] = (match[2], match[3])
    return routes, entries


@pytest.fixture
def host():
    with PortHost() as h:
        yield h


def used_networks(h):
    return {r["value"]["name"]: r["key"] for r in h.dump("networks") if r["value"]["flags"] and r["key"]}


def endpoint_owners(h):
    """{(network, last byte of the address): ifindex} of the address rows."""
    return {(r["key"]["network"], r["key"]["addr"][""]["b"][15]): r["value"]["ifindex"] for r in h.dump("endpoints") if r["key"]["kind"] == 0}


# --- devices ---


def test_a_port_waits_for_its_device(host):
    a = host.add()
    host.daemon.apply(BLUE, doc.port("web", "later0", "blue", addresses=["10.77.0.1"]))
    p = host.port("web")
    assert (p["state"], p["reason"], p["ifindex"], p["mac"]) == ("waiting", "there is no device later0", None, None)
    assert host.daemon.status()["ready"] is True  # a device that is not there is no fault
    host.ns.ip(f"link set {a.device} name later0")
    p = host.wait_port("web")
    assert p["mac"] == a.mac and p["ifindex"] == host.ns.ifindex("later0")
    assert all(ports_of(host.ns, "later0"))
    # by another name it is not the port's any more, and left as it was
    host.ns.ip(f"link set later0 name {a.device}")
    host.wait_port("web", "waiting")
    assert not any(ports_of(host.ns, a.device))
    assert endpoint_owners(host).get((1, 1)) is None


def test_a_device_made_anew_is_the_port_again(host):
    a = host.add()
    host.daemon.apply(BLUE_HOST, doc.port("web", a.device, "blue", addresses=["10.77.0.1"]))
    first = host.wait_port("web")["ifindex"]
    a.delete_device()
    host.wait_port("web", "waiting", reason=f"there is no device {a.device}")
    assert our_routes(host.ns) == ({}, {})
    a.create()
    again = host.wait_port("web")["ifindex"]
    assert again != first
    assert endpoint_owners(host)[(1, 1)] == again
    wait_for(lambda: our_routes(host.ns)[0] == {"10.77.0.1": a.device}, what="the route is back")


def test_devices_that_cannot_be_ports(host):
    a, b = host.add(2)
    host.ns.ip("link add br0 type bridge", "tuntap add tap0 mode tap", "tuntap add tun0 mode tun")
    host.daemon.apply(
        BLUE,
        doc.port("a", a.device, "blue"),
        doc.port("b", b.device, "blue"),
        doc.port("tap", "tap0", "blue"),
        doc.port("tun", "tun0", "blue", mac="02:00:00:00:00:99"),
        {**doc.port("vf", None, "blue"), "spec": {"network": "blue", "vf": {"pf": "eth1", "index": 3}}},
        {**doc.port("pci", None, "blue"), "spec": {"network": "blue", "pci": "ffff:01:10.0"}},
    )
    host.wait_port("a")
    assert host.port("tap")["reason"] == "the device has no peer whose MAC could be taken: spec.mac is needed"
    assert host.port("tun")["reason"] == "the device has no Ethernet header"
    assert host.port("vf")["reason"] == "there is no device eth1"
    assert host.port("pci")["reason"] == "there is no interface of a PCI device ffff:01:10.0"
    # one that joins a bridge is not switched any more, and is again when it leaves
    host.ns.ip(f"link set {a.device} master br0")
    host.wait_port("a", "waiting", reason="the device belongs to a bridge, bond or VRF: take it out of there first")
    assert not any(ports_of(host.ns, a.device))
    host.ns.ip(f"link set {a.device} nomaster")
    host.wait_port("a")
    host.ns.ip(f"link set {b.device} down")
    assert host.wait_port("b", "waiting")["reason"] == "the device is down"
    assert all(ports_of(host.ns, b.device))  # closed before it comes up
    host.ns.ip(f"link set {b.device} up")
    host.wait_port("b")


def peer_flag(h, ifindex):
    rows = [r["value"] for r in h.dump("ports") if r["value"]["ifindex"] == ifindex]
    return bool(rows[0]["flags"] & 1 << 7)


def test_a_peer_that_moves_to_another_namespace(host):
    a = host.add()
    host.ns.ip("link add veth0 type veth peer name veth1 address 02:00:00:00:00:42", "link set veth0 up", "link set veth1 up")
    host.daemon.apply(BLUE, doc.port("web", "veth0", "blue", addresses=["10.77.0.1"]))
    ifindex = host.wait_port("web", mac="02:00:00:00:00:42")["ifindex"]
    assert not peer_flag(host, ifindex)
    host.ns.ip(f"link set veth1 netns {a.ns.name}")
    a.ns.ip("link set veth1 up")
    wait_for(lambda: peer_flag(host, ifindex), what="the peer is known to be elsewhere")
    assert host.port("web")["mac"] == "02:00:00:00:00:42"


@pytest.fixture(scope="module")
def foreign_tc(tmp_path_factory):
    d = tmp_path_factory.mktemp("foreign")
    source = d / "foreign.bpf.c"
    source.write_text('__attribute__((section("tc"), used)) int foreign_tc(void *skb) { return -1; }\n')
    subprocess.run(["clang", "-target", "bpf", "-O2", "-g", "-c", str(source), "-o", str(d / "foreign.o")], check=True)
    return d / "foreign.o"


def test_foreign_programs_keep_their_place(host, foreign_tc):
    a = host.add()
    program = bpf.load_program(str(foreign_tc), "tc", f"{host.daemon.bpffs}/foreign")
    try:
        links = [bpf.tcx_attach(host.ns, a.device, way, program) for way in bpf.TCX]
    except OSError as error:
        pytest.skip(f"no TCX in this kernel: {error}")
    before = ports_of(host.ns, a.device)
    host.daemon.apply(BLUE, doc.port("web", a.device, "blue"))
    host.wait_port("web")
    now = ports_of(host.ns, a.device)
    assert [len(p) for p in now] == [2, 2] and [p[1:] for p in now] == before, "ours run first, the others behind them"
    host.daemon.api.delete("/v1/objects/port/web")
    assert ports_of(host.ns, a.device) == before
    for fd in (*links, program):
        os.close(fd)


def modes(host):
    return {p["device"]: p["mode"] for p in host.daemon.status()["programs"]}


def test_ports_are_attached_without_waiting(host, foreign_tc):
    """By clsact; by TCX where only that puts ours ahead of what is there, or where the qdisc's place is taken."""
    a, b, c = host.add(3)
    host.ns.run("tc", "qdisc", "add", "dev", c.device, "ingress")
    program = bpf.load_program(str(foreign_tc), "tc", f"{host.daemon.bpffs}/foreign")
    try:
        link = bpf.tcx_attach(host.ns, b.device, "ingress", program)
    except OSError as error:
        pytest.skip(f"no TCX in this kernel: {error}")
    before = picture(host.ns, c.device)
    host.daemon.apply(BLUE, *(doc.port(n, w.device, "blue") for n, w in (("a", a), ("b", b), ("c", c))))
    for name in "abc":
        host.wait_port(name)
    assert modes(host) == {a.device: "clsact", b.device: "tcx", c.device: "tcx"}
    assert [len(p) for p in ports_of(host.ns, c.device)] == [1, 1], "nothing is left of the attempt"
    # One that comes later runs ahead: it is told, and ours stays where it is
    late = bpf.tcx_attach(host.ns, a.device, "ingress", program)
    host.daemon.kill()
    host.daemon.start()
    assert modes(host)[a.device] == "clsact"
    host.daemon.api.delete("/v1/objects/port/c")
    assert picture(host.ns, c.device) == before
    for fd in (link, late, program):
        os.close(fd)


# --- documents ---


def test_numbers_of_networks_stay(host):
    red, green = doc.network("red"), doc.network("green", routesTo=["red"])
    host.daemon.apply(BLUE, red, green)
    assert used_networks(host) == {"blue": 1, "green": 2, "red": 3}
    host.daemon.api.delete("/v1/objects/network/blue")
    host.daemon.restart()
    assert used_networks(host) == {"green": 2, "red": 3}
    host.daemon.apply(BLUE)
    assert used_networks(host) == {"blue": 4, "green": 2, "red": 3}  # not its old number: flows may still have that


def test_a_bad_change_leaves_everything(host):
    a, b = host.add(2)
    host.daemon.apply(BLUE_HOST, doc.port("a", a.device, "blue", addresses=["10.77.0.1"]))
    before = host.dump("endpoints"), host.dump("networks"), our_routes(host.ns), host.daemon.generation()
    result = host.daemon.cli(
        "apply", "-f", "-", check=False,
        input=doc.text(doc.network("red"), doc.port("b", b.device, "blue", addresses=["10.77.0.1"])),
    )
    assert result.returncode == 1 and "10.77.0.1" in result.stderr
    assert (host.dump("endpoints"), host.dump("networks"), our_routes(host.ns), host.daemon.generation()) == before
    assert host.port("b") is None


def test_an_address_moves_to_another_port(host):
    a, b = host.add(2)
    host.daemon.apply(BLUE_HOST, doc.port("a", a.device, "blue", addresses=["10.77.0.1"]), doc.port("b", b.device, "blue"))
    host.wait_port("a")
    host.daemon.apply(doc.port("a", a.device, "blue"), doc.port("b", b.device, "blue", addresses=["10.77.0.1"]))
    assert endpoint_owners(host)[(1, 1)] == host.port("b")["ifindex"]
    assert our_routes(host.ns) == ({"10.77.0.1": b.device}, {"10.77.0.1": (b.device, b.mac)})


def test_tables_grow(host):
    """More endpoints than the tables hold at first: they are made anew, larger, and the port is never without its programs."""
    a = host.add()
    host.daemon.apply(BLUE, doc.port("a", a.device, "blue", addresses=["10.77.0.1"]))
    host.wait_port("a")
    many = [f"fd77::{i:x}" for i in range(1, 60)]
    extra = [doc.network(f"n{i}", subnets=["10.0.0.0/8"], gateway=[f"10.{i // 250}.{i % 250}.1"]) for i in range(1100)]
    host.daemon.apply(doc.port("a", a.device, "blue", addresses=many), *extra)
    host.wait_port("a")
    assert len(host.dump("endpoints")) == 59 + 1 + 2 + 1100
    assert [len(p) for p in ports_of(host.ns, a.device)] == [1, 1]


def test_there_is_room_for_the_records_of_all_ports(host):
    """Also where no two of their devices find their place in `ports` empty."""
    a = host.add()
    host.daemon.apply(BLUE, doc.port("a", a.device, "blue"), *(doc.port(f"p{i}", f"none{i}", "blue") for i in range(1100)))
    host.wait_port("a")
    (path,) = (path for path in host.daemon.pinned_maps() if os.path.basename(path) == "ports_hash")
    assert host.daemon.bpftool("map", "show", "pinned", path)["max_entries"] >= 1101


# --- the host's own stack ---


def test_the_host_knows_its_ports(host):
    a = host.add()
    host.daemon.apply(BLUE_HOST, doc.port("web", a.device, "blue", addresses=["10.77.0.1", "fd77::1"]))
    host.wait_port("web")
    routes = {"10.77.0.1": a.device, "fd77::1": a.device}
    entries = {"10.77.0.1": (a.device, a.mac), "fd77::1": (a.device, a.mac)}
    assert our_routes(host.ns) == (routes, entries)
    # with the gateway's address, the host sends from there
    host.ns.ip("addr add 10.77.0.254/32 dev lo")
    wait_for(lambda: "src 10.77.0.254" in host.ns.run("ip", "route", "show", "proto", "104").stdout, what="the source of the route")
    # what somebody else takes away comes back
    host.ns.ip("route del 10.77.0.1", f"neigh del fd77::1 dev {a.device}")
    host.ns.run("ip", "-6", "route", "flush", "proto", "104")
    wait_for(lambda: our_routes(host.ns) == (routes, entries), what="routes and neighbours are back")
    # down and up again: the kernel dropped them
    host.ns.ip(f"link set {a.device} down", f"link set {a.device} up")
    wait_for(lambda: our_routes(host.ns) == (routes, entries), what="routes and neighbours after the link was down")
    # an agent that starts takes them over as they are
    host.daemon.kill()
    assert our_routes(host.ns) == (routes, entries)
    with host.ns.popen("ip", "monitor", "route", "neigh", stdout=-1, text=True) as monitor:
        host.daemon.start()
        assert our_routes(host.ns) == (routes, entries)
        monitor.terminate()
        assert "Deleted" not in monitor.stdout.read()
    # and they go with the network's word, or the port
    host.daemon.apply(BLUE)
    assert our_routes(host.ns) == ({}, {})


def test_the_hosts_own_address_is_nobodys(host):
    a = host.add()
    host.daemon.apply(BLUE_HOST, doc.port("web", a.device, "blue", addresses=["10.77.0.1"]))
    host.wait_port("web")
    host.ns.ip("addr add 10.77.0.1/32 dev lo")
    assert host.wait_port("web", "waiting")["reason"] == "10.77.0.1 is an address of the host itself"
    assert endpoint_owners(host)[(1, 1)] == 0
    host.ns.ip("addr del 10.77.0.1/32 dev lo")
    host.wait_port("web")


def test_devices_are_set_up_and_put_back(host):
    a = host.add()
    host.ns.sysctl(f"net.ipv6.conf.{a.device}.disable_ipv6", 1)

    def state():
        sctp = host.ns.run("ethtool", "-k", a.device).stdout
        with host.ns, open(f"/proc/sys/net/ipv6/conf/{a.device}/disable_ipv6", encoding="ascii") as f:
            return re.search(r"tx-sctp-segmentation: (\w+)", sctp)[1], f.read().strip()

    before = state()
    host.daemon.apply(BLUE_HOST, doc.port("web", a.device, "blue", addresses=["fd77::1"]))
    assert state() == ("off", "0")
    host.daemon.restart()
    host.daemon.apply(BLUE)  # no longer by the host's stack
    assert state() == ("off", "1")
    host.daemon.kill()
    host.daemon.detach()
    assert state() == before


# --- no trace ---


def picture(ns, *devices):
    result = {}
    for d in devices:
        result[d] = (
            ns.run("ip", "-d", "link", "show", d).stdout,
            ns.run("tc", "qdisc", "show", "dev", d).stdout,
            ns.run("ethtool", "-k", d, check=False).stdout,
            ports_of(ns, d),
        )
    result["route"] = ns.run("ip", "route", "show", "table", "all").stdout + ns.run("ip", "-6", "route", "show", "table", "all").stdout
    result["neigh"] = ns.run("ip", "-4", "neigh", "show", "nud", "permanent").stdout + ns.run("ip", "-6", "neigh", "show", "nud", "permanent").stdout
    result["sysctl"] = ns.run("sysctl", "-a", "--pattern", r"net\.ipv[46]\.conf\.port").stdout
    return result


@pytest.mark.parametrize("tc", ["tcx", "clsact"])
@pytest.mark.parametrize("how", ["detach", "delete"])
def test_ports_leave_no_trace(tc, how):
    with PortHost(env={"HEDDLE_TC": tc}) as h:
        a, b = h.add(2)
        wait_for(lambda: "fe80" in h.ns.run("ip", "-6", "addr", "show", "dev", b.device).stdout, what="the kernel's own addresses")
        before = picture(h.ns, a.device, b.device)
        h.daemon.apply(BLUE_HOST, doc.port("a", a.device, "blue", addresses=["10.77.0.1"]), doc.port("b", b.device, "blue", addresses=["fd77::2"]))
        h.wait_port("a")
        assert picture(h.ns, a.device, b.device) != before
        modes = {p["mode"] for p in h.daemon.status()["programs"]}
        assert modes == {tc}
        if how == "delete":
            h.daemon.api.delete("/v1/objects/port/a")
            h.daemon.api.delete("/v1/objects/port/b")
        else:
            h.daemon.kill()
            h.daemon.detach()
        assert picture(h.ns, a.device, b.device) == before


def test_nobody_is_said_to_have_removed_what_went_with_its_device():
    """Each container that ends takes its veth away, and the filters with it: that is no reason for a warning."""
    with PortHost(env={"HEDDLE_TC": "clsact"}) as h:
        ports = h.add(4)
        h.daemon.apply(BLUE, *(doc.port(f"p{i}", port.device, "blue", addresses=[f"10.77.0.{i + 1}"]) for i, port in enumerate(ports)))
        for i, port in enumerate(ports):
            h.wait_port(f"p{i}")
            h.ns.ip(f"link del {port.device}")
            wait_for(lambda i=i: h.port(f"p{i}")["state"] == "waiting", what="the port waits")
            wait_for(lambda device=port.device: f"{device} is no longer a port" in h.daemon.log(), what="the device is gone")
        assert "somebody has removed" not in h.daemon.log()


def test_filters_that_somebody_removes_are_put_back():
    """tc(8) takes off what it is told to; a port without its programs would be an interface of the host like any other."""
    with PortHost(env={"HEDDLE_TC": "clsact"}) as h:
        a, b = h.add(2)
        h.daemon.apply(BLUE, doc.port("a", a.device, "blue", addresses=["10.77.0.1"]), doc.port("b", b.device, "blue", addresses=["10.77.0.2"]))
        h.wait_port("a")
        h.wait_port("b")
        before = ports_of(h.ns, a.device)
        assert all(before)
        for remove in (
            ("qdisc", "del", "dev", a.device, "clsact"),
            ("filter", "del", "dev", a.device, "ingress"),
            ("filter", "del", "dev", a.device, "egress"),
            ("chain", "del", "dev", a.device, "ingress", "chain", "0"),
        ):
            h.ns.run("tc", *remove)
            wait_for(lambda: ports_of(h.ns, a.device) == before, what=f"the programs are back after tc {' '.join(remove)}")
            assert h.port("a")["state"] == "ready"
        assert h.daemon.log().count(f"somebody has removed our filters from {a.device}") == 4
        # what the agent removes itself stays away
        h.daemon.api.delete("/v1/objects/port/b")
        assert ports_of(h.ns, b.device) == [[], []]
        assert f"filters from {b.device}" not in h.daemon.log()


@pytest.mark.parametrize("tc", ["tcx", "clsact"])
def test_a_restart_takes_ports_over(tc):
    with PortHost(env={"HEDDLE_TC": tc}) as h:
        a, b = h.add(2)
        h.daemon.apply(BLUE_HOST, doc.port("a", a.device, "blue", addresses=["10.77.0.1"]), doc.port("b", b.device, "blue"))
        h.wait_port("a")
        links = sorted(p["device"] for p in h.daemon.status()["programs"])
        for sig in (signal.SIGKILL, signal.SIGTERM):
            h.daemon.kill(sig)
            h.daemon.start()
            assert sorted(p["device"] for p in h.daemon.status()["programs"]) == links
            assert h.port("a")["state"] == h.port("b")["state"] == "ready"
        # a document that went while no agent ran
        h.daemon.kill()
        h.daemon.write("00-host.yaml", doc.host(uplinks=[]))
        h.daemon.start()
        h.daemon.api.delete("/v1/objects/port/b")
        assert {p["device"] for p in h.daemon.status()["programs"]} == {a.device}


def test_policies_of_one_name_are_told_apart(host):
    """Every namespace of a cluster may have its own `web`: what is said of a rule has the namespace with it."""
    def in_namespace(document, namespace):
        document["metadata"]["namespace"] = namespace
        return document

    rule = {"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]}
    policies = [in_namespace(doc.document("NetworkPolicy", "web", rule), namespace) for namespace in ("shop", "lab")]
    a, b = host.add(2)
    ports = [doc.port(name, w.device, "blue", addresses=[address]) for name, w, address in (("a", a, "10.77.0.1"), ("b", b, "10.77.0.2"))]
    host.daemon.apply(BLUE, *(in_namespace(p, n) for p, n in zip(ports, ("lab", "shop"))), *({**p, "apiVersion": "networking.k8s.io/v1"} for p in policies))
    host.wait_port("lab/a")
    host.wait_port("shop/b")
    rules = [(r["kind"], r["namespace"], r["policy"]) for r in host.daemon.api.get("/v1/rules")["items"] if r["policy"] == "web"]
    assert sorted(rules) == [("NetworkPolicy", "lab", "web"), ("NetworkPolicy", "shop", "web")]
    answer = host.daemon.json("explain", "--from", "10.77.0.1", "--to", "10.77.0.2", "--dport", "80")
    rule = answer["rules"][1]
    assert (answer["verdict"], rule["kind"], rule["namespace"], rule["policy"]) == ("allow", "NetworkPolicy", "shop", "web")
    assert "shop/web.spec.ingress[0] (applied)" in json.dumps(answer["path"])
    assert "shop/web#0" in host.daemon.cli("explain", "--from", "10.77.0.1", "--to", "10.77.0.2", "--dport", "80").stdout
    metrics = host.daemon.api.get("/metrics")
    assert 'namespace="lab",policy="web"' in metrics and 'namespace="shop",policy="web"' in metrics


def test_identities_outlive_restarts(host):
    def labelled(name, w, **labels):
        port = doc.port(name, w.device, "blue")
        port["metadata"]["labels"] = labels
        return port

    def identities():
        return {p["name"]: p["identity"] for p in host.daemon.status()["ports"]}

    a, b, c = host.add(3)
    host.daemon.apply(BLUE, labelled("a", a, app="x"), labelled("b", b, app="x"), labelled("c", c, app="y"))
    before = identities()
    assert before == {"a": 1, "b": 1, "c": 2}
    host.daemon.apply(labelled("c", c, app="z"))
    assert identities()["c"] == 3, "2 came free just now"
    time.sleep(0.2)  # it is on disk after the answer
    host.daemon.kill(signal.SIGKILL)
    host.daemon.detach()  # nothing is left in the kernel, as after a reboot
    host.daemon.start()
    assert identities() == {**before, "c": 3}
    host.daemon.apply(labelled("c", c, app="w"))
    assert identities()["c"] == 4
    host.daemon.apply(labelled("c", c, app="y"))
    assert identities()["c"] == 2, "the set of labels that had it is back"
    time.sleep(0.2)
    host.daemon.kill()
    path = os.path.join(host.daemon.state_dir, "identities")
    with open(path, "r+b") as f:
        f.seek(20)
        f.write(b"?")
    host.daemon.start()
    assert "cannot read those in" in host.daemon.log()
    assert set(identities().values()) == {1, 2}


def test_what_people_see(host):
    a = host.add()
    host.daemon.apply(BLUE, doc.port("web", a.device, "blue", namespace="shop", addresses=["10.77.0.1"]), doc.port("no", "nowhere", "blue"))
    host.wait_port("shop/web")
    table = host.daemon.cli("status").stdout
    assert re.search(rf"shop/web +blue +{a.device} +ready +{a.mac} +10\.77\.0\.1", table)
    assert re.search(r"default/no +blue +nowhere +waiting .*there is no device nowhere", table)
    metrics = host.daemon.api.get("/metrics")
    assert 'heddle_ports{state="ready"} 1' in metrics and 'heddle_ports{state="waiting"} 1' in metrics
    assert 'heddle_network_ports{network="blue"} 1' in metrics
    assert host.daemon.status()["networks"] == 1
    assert GATEWAY_MAC
