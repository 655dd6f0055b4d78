# SPDX-License-Identifier: Apache-2.0
"""The agent dies, restarts, detaches; devices come and go; other people's programs share the hooks."""

import json
import os
import re
import signal
import socket
import subprocess
import time

import pytest
from lib import bpf, traffic
from lib import documents as doc
from lib.documents import DENY_ALL, DENY_IN, policy, rule
from lib.fixtures import Guarded
from lib.heddled import HEDDLED, Heddled, wait_for
from lib.netns import Pair
from lib.traffic import NO_LOSS, Load, expect_tcp, expect_udp

ALL = ["native", "generic", "tcx", "clsact"]
LOAD = [rule("allow", "TCP", 7900), rule("allow", "UDP", 7901), rule("allow", icmp=[{"type": 8}, {"type": 128, "family": "IPv6"}])]


@pytest.fixture(params=ALL)
def every(request):
    """A host of its own on each backend, with the policy that Load needs."""
    with Guarded(request.param, docs=[policy(ingress=LOAD, default=DENY_IN)]) as g:
        yield g


def assert_enforced(up):
    """7902 is denied; what LOAD names is not."""
    with traffic.Servers(up.server, tcp=[7902], udp=[7902]):
        expect_tcp(up.client, up.server4, 7902, "timeout")
        expect_udp(up.client, up.server6, 7902, "timeout")


def test_sigkill_under_load_loses_nothing(every, family):
    up = every
    load = Load(up.client, up.server, up.server_address(family), 7900, 7901)
    try:
        up.daemon.kill(signal.SIGKILL)
        assert_enforced(up)
        load.wait_exchanges(50)
        # new connections work with the agent dead, too
        with up.server.socket(traffic.family_of(up.server_address(family))) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind((up.server_address(family), 7900))
            s.listen()
            expect_tcp(up.client, up.server_address(family), 7900, "open")
        up.daemon.start()
        load.wait_exchanges(50)
        assert_enforced(up)
    finally:
        result = load.finish()
    assert result == NO_LOSS
    flows = up.daemon.flows(destinationPort=7900, protocol="TCP")
    assert flows, "the restarted agent does not see the flows of before"


def test_restarts_and_updates_under_load_lose_nothing(every):
    """SIGKILL at random moments of a start, SIGTERM, SIGHUP and policy changes, in turn."""
    up = every
    load = Load(up.client, up.server, up.server4, 7900, 7901)
    try:
        for i in range(4):
            up.daemon.kill(signal.SIGKILL)
            up.daemon.start(wait=False)
            time.sleep(0.02 * i)  # in the middle of starting
            up.daemon.kill(signal.SIGKILL)
            up.daemon.start()
            up.daemon.apply(policy("extra", 50 + i, ingress=[rule("deny", "TCP", 8000 + i)]))
            up.daemon.process.send_signal(signal.SIGHUP)
            up.daemon.stop()
            up.daemon.start()
        # a growth of the tables is a fresh load of the programs under traffic
        many = [rule("deny", "UDP", 1 + i, peers=[f"198.18.{i // 256}.{i % 256}/32"]) for i in range(3000)]
        up.daemon.apply(policy("many", 500, ingress=many))
        load.wait_exchanges(50)
        assert_enforced(up)
    finally:
        result = load.finish()
    assert result == NO_LOSS


def test_clean_stop_leaves_the_data_plane(every):
    up = every
    up.daemon.stop()
    assert_enforced(up)


def test_a_second_daemon_on_the_same_directories_is_refused(plain):
    up = plain(docs=[policy(ingress=LOAD, default=DENY_IN)])
    result = up.server.run(*up.daemon.argv("--config", up.daemon.config, "--state-dir", up.daemon.state_dir), check=False, timeout=10)
    assert result.returncode != 0
    assert up.daemon.status()["ready"] is True
    assert_enforced(up)


# --- no trace ---


def picture(ns, device):
    """Everything of a namespace that heddle could have touched, without what a clock or counter changes."""
    def clean(text):
        return re.sub(r"\d+(sec|ms|pkt|b)\b", "", text)

    result = {
        "link": clean(ns.run("ip", "-d", "link", "show", device).stdout),
        "qdisc": ns.run("tc", "qdisc", "show", "dev", device).stdout,
        "filter": "".join(ns.run("tc", "filter", "show", "dev", device, way, check=False).stdout for way in ("ingress", "egress")),
        "net": json.dumps(json.loads(ns.run("bpftool", "-j", "net", "show").stdout), sort_keys=True),
        "offloads": ns.run("ethtool", "-k", device, check=False).stdout,
        "nft": ns.run("nft", "list", "ruleset").stdout,
        "route": ns.run("ip", "route", "show", "table", "all").stdout + ns.run("ip", "-6", "route", "show", "table", "all").stdout,
    }
    result["net"] = re.sub(r'"id": \d+', "", result["net"])
    result["tcx"] = [bpf.tcx_programs(ns, device, way) for way in bpf.TCX]
    return result


def maps_of(daemon):
    return {daemon.bpftool("map", "show", "pinned", path)["id"] for path in daemon.pinned_maps()}


def alive_maps(ns, ids):
    return ids & {m["id"] for m in json.loads(ns.run("bpftool", "-j", "map", "show").stdout)}


@pytest.mark.parametrize("backend", ALL)
def test_detach_leaves_no_trace(backend):
    with Guarded(backend, start=False) as up:
        before = picture(up.server, "up0")
        up.daemon.start()
        up.policy(policy(default=DENY_IN))
        ids = maps_of(up.daemon)
        assert ids and picture(up.server, "up0") != before
        up.daemon.explain(**{"from": up.client4, "to": up.server4, "protocol": "tcp", "dport": 80})
        up.daemon.kill()
        up.daemon.detach()
        assert picture(up.server, "up0") == before
        assert up.daemon.pinned_maps() == []
        assert not os.path.exists(f"{up.daemon.bpffs}/heddle")
        # the kernel frees maps and programs a grace period (and an exit of the agent) later
        wait_for(lambda: not alive_maps(up.server, ids), what="maps freed")
        with traffic.Servers(up.server, tcp=[7902]):
            expect_tcp(up.client, up.server4, 7902, "open")
        assert up.daemon.detach().returncode == 0  # idempotent
        # and it can come back
        up.daemon.start()
        assert_enforced(up)


# --- others on the hooks ---

FOREIGN_C = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("tc") int foreign_tc(struct __sk_buff *skb) { return -1; }
SEC("xdp") int foreign_xdp(struct xdp_md *ctx) { return XDP_PASS; }
char _license[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def foreign_object(tmp_path_factory):
    d = tmp_path_factory.mktemp("foreign")
    (d / "f.bpf.c").write_text(FOREIGN_C)
    subprocess.run(
        ["clang", "-target", "bpf", "-O2", "-g", "-I/usr/include/x86_64-linux-gnu", "-c", d / "f.bpf.c", "-o", d / "f.o"], check=True
    )
    return d / "f.o"


def test_a_foreign_xdp_program_keeps_its_place(foreign_object):
    with Guarded("native", start=False) as up:
        up.server.run("ip", "link", "set", "up0", "xdpdrv", "obj", foreign_object, "sec", "xdp")
        mine = json.loads(up.server.run("ip", "-j", "link", "show", "up0").stdout)[0]["xdp"]
        up.daemon.start()
        up.policy(policy(ingress=LOAD, default=DENY_IN))
        assert json.loads(up.server.run("ip", "-j", "link", "show", "up0").stdout)[0]["xdp"] == mine
        assert_enforced(up)
        assert "xdp_uplink" not in up.daemon.programs()
        assert up.daemon.status()["uplinks"][0]["xdpReason"], "status does not say why XDP is not used"
        up.daemon.detach()
        assert json.loads(up.server.run("ip", "-j", "link", "show", "up0").stdout)[0]["xdp"] == mine


@pytest.fixture(scope="module")
def foreign_tc(tmp_path_factory):
    d = tmp_path_factory.mktemp("foreign_tc")
    (d / "f.bpf.c").write_text("\n".join(line for line in FOREIGN_C.splitlines() if "xdp" not in line))
    subprocess.run(
        ["clang", "-target", "bpf", "-O2", "-g", "-I/usr/include/x86_64-linux-gnu", "-c", d / "f.bpf.c", "-o", d / "f.o"], check=True
    )
    return d / "f.o"


@pytest.mark.parametrize("backend", ["native", "tcx"])
def test_foreign_tcx_links_keep_their_place(foreign_tc, backend):
    with Guarded(backend, start=False) as up:
        subprocess.run(["mount", "-t", "bpf", "bpf", up.daemon.bpffs], check=True)
        program = bpf.load_program(str(foreign_tc), "tc", f"{up.daemon.bpffs}/foreign")
        try:
            links = [bpf.tcx_attach(up.server, "up0", way, program) for way in bpf.TCX]
        except OSError as error:
            pytest.skip(f"no TCX in this kernel: {error}")
        before = picture(up.server, "up0")
        (foreign,) = before["tcx"][0]
        up.daemon.start()
        up.policy(policy(ingress=LOAD, default=DENY_IN))
        for way in bpf.TCX:
            programs = bpf.tcx_programs(up.server, "up0", way)
            assert len(programs) == 2 and programs[1] == foreign, "ours runs first, the other one behind it"
        assert_enforced(up)
        up.daemon.restart()
        assert [len(bpf.tcx_programs(up.server, "up0", way)) for way in bpf.TCX] == [2, 2]
        assert up.daemon.status()["uplinks"][0]["foreignAhead"] == 0
        up.daemon.detach()
        assert picture(up.server, "up0") == before
        assert os.path.exists(f"{up.daemon.bpffs}/foreign"), "a foreign pin is gone"
        for fd in (*links, program):
            os.close(fd)


def test_foreign_clsact_filters_keep_their_place(foreign_object):
    for backend in ("tcx", "clsact"):
        with Guarded(backend, start=False) as up:
            up.server.run("tc", "qdisc", "add", "dev", "up0", "clsact")
            for way in ("ingress", "egress"):
                up.server.run("tc", "filter", "add", "dev", "up0", way, "pref", "77", "bpf", "da", "obj", foreign_object, "sec", "tc")
            before = picture(up.server, "up0")
            up.daemon.start()
            up.policy(policy(ingress=LOAD, default=DENY_IN))
            for way in ("ingress", "egress"):
                assert "pref 77" in up.server.run("tc", "filter", "show", "dev", "up0", way).stdout
            assert_enforced(up)
            up.daemon.detach()
            assert picture(up.server, "up0") == before


# --- devices ---


def test_a_device_vanishes_and_returns(main_backend):
    with Guarded(main_backend, docs=[policy(ingress=LOAD, default=DENY_IN)]) as up:
        old = up.server.ifindex("up0")
        up.link.delete()
        wait_for(lambda: not up.daemon.programs(), what="device gone from status")
        assert up.daemon.process.poll() is None
        up.link.create()
        assert up.server.ifindex("up0") != old
        wait_for(up.daemon.programs, what="device guarded again")
        assert_enforced(up)
        expect_tcp(up.client, up.server4, 7900, "refused")
        told = [line.split(">", 1)[1] for line in up.daemon.log().splitlines() if "up0 is" in line and "guarded" in line]
        assert told == ["up0 is guarded now", "up0 is no longer guarded", "up0 is guarded now"]


def test_a_device_that_vanished_while_the_agent_was_dead(main_backend):
    with Guarded(main_backend, docs=[policy(ingress=LOAD, default=DENY_IN)]) as up:
        up.daemon.kill()
        up.link.delete()
        up.link.create()
        up.daemon.start()
        assert_enforced(up)
        up.daemon.detach()


def test_a_device_is_renamed(main_backend):
    """Documents name devices: under another name it is not declared any more, and the newcomer is."""
    with Guarded(main_backend, docs=[policy(ingress=LOAD, default=DENY_IN)]) as up:
        up.server.ip("link set up0 down", "link set up0 name other0", "link set other0 up")
        wait_for(lambda: not up.daemon.programs(), what="renamed device let go")
        up.server.ip("link set other0 down", "link set other0 name up0", "link set up0 up")
        up.server.ip(
            f"neigh replace {up.client4} lladdr {up.client_mac} dev up0",
            f"addr replace {up.server6}/64 dev up0 nodad",
            f"neigh replace {up.client6} lladdr {up.client_mac} dev up0",
        )
        wait_for(up.daemon.programs, what="guarded again")
        assert_enforced(up)


def test_a_declared_device_that_is_not_there_does_not_hold_up_the_others(fresh):
    up = fresh(host_spec={"uplinks": [{"device": "up0"}, {"device": "later0"}]}, docs=[policy(ingress=LOAD, default=DENY_IN)])
    assert up.daemon.status()["ready"] is True
    assert_enforced(up)
    assert "later0" in json.dumps(up.daemon.status()["uplinks"])


def test_an_uplink_that_is_no_longer_declared_is_let_go(fresh):
    up = fresh(docs=[policy(ingress=LOAD, default=DENY_IN)])
    assert_enforced(up)
    spec = dict(up.host_document["spec"], uplinks=[{"device": "other0"}])
    up.daemon.write("00-host.yaml", dict(up.host_document, spec=spec))
    with traffic.Servers(up.server, tcp=[7902]):
        wait_for(lambda: traffic.tcp_probe(up.client, up.server4, 7902, 0.2) == "open", what="undeclared device let go")
    assert "up0" in json.dumps(up.daemon.status()["unguarded"])


def test_xdp_mode_changes_live_without_loss(plain):
    up = plain(docs=[policy(ingress=LOAD, default=DENY_IN)])
    load = Load(up.client, up.server, up.server4, 7900, 7901)
    try:
        for mode in ("generic", "off"):
            spec = dict(up.host_document["spec"], uplinks=[{"device": "up0", "xdp": mode}])
            up.daemon.write("00-host.yaml", dict(up.host_document, spec=spec))
            expected = None if mode == "off" else mode
            wait_for(lambda expected=expected: up.daemon.programs().get("xdp_uplink") == expected, what=mode)
            load.wait_exchanges(20)
            assert_enforced(up)
    finally:
        result = load.finish()
    assert result == NO_LOSS


def test_two_instances_in_two_namespaces():
    """Each with its own policy, state and socket; the end of one does not touch the other."""
    with Guarded("native", docs=[policy(ingress=LOAD, default=DENY_IN)]) as up:
        other = Heddled(up.client, [dict(up.host_document, spec={"uplinks": [{"device": "wire0"}], "pickupSeconds": 0})])
        try:
            other.start()
            other.apply(policy(ingress=[rule("allow", "TCP", 7950)], default=DENY_IN))
            with traffic.Servers(up.client, tcp=[7950, 7951]):
                expect_tcp(up.server, up.client4, 7950, "open")
                expect_tcp(up.server, up.client4, 7951, "timeout")
                assert_enforced(up)
                up.daemon.detach()
                expect_tcp(up.server, up.client4, 7951, "timeout")
                assert other.status()["ready"] is True
        finally:
            other.remove()


def test_a_state_directory_that_another_instance_has():
    """The second one goes by its files, and leaves alone what the first would find at its next start."""
    with Guarded("native", docs=[policy(ingress=LOAD, default=DENY_IN)]) as up:
        kept = os.path.join(up.daemon.state_dir, "files.last-good")
        wait_for(lambda: os.path.exists(kept), what="the first one's state")
        with open(kept, "rb") as f:
            before = f.read()
        other = Heddled(up.client, [dict(up.host_document, spec={"uplinks": [{"device": "wire0"}], "pickupSeconds": 0})])
        own, other.state_dir = other.state_dir, up.daemon.state_dir
        try:
            other.start()
            other.put("10-web.yaml", policy(ingress=[rule("allow", "TCP", 7950)], default=DENY_IN))
            with traffic.Servers(up.client, tcp=[7950, 7951]):
                expect_tcp(up.server, up.client4, 7950, "open")
                expect_tcp(up.server, up.client4, 7951, "timeout")
            assert f"{other.state_dir}: another agent has it; give each its own --state-dir" in other.log()
            assert other.cli("apply", "-f", "-", input=doc.text(policy("more")), check=False).returncode == 1
            other.stop()
            with open(kept, "rb") as f:
                assert f.read() == before
            # nor is the first one's last good state its own
            other.detach()
            other.write("10-web.yaml", "kind: Nonsense")
            other.start(wait=False)
            wait_for(lambda: "failsafe ports" in other.log(), timeout=20, what="lockdown")
            assert_enforced(up)
        finally:
            other.state_dir = own
            other.remove()


def test_one_agent_a_namespace(tmp_path):
    """A second one, with directories of its own and nothing to guard, would take the first one's filters for what is left of an earlier agent."""
    with Guarded("clsact", docs=[policy(ingress=LOAD, default=DENY_IN)]) as up:
        before = bpf.filter_programs(up.server, up.uplink, "ingress")
        own = ("--run-dir", tmp_path / "run", "--bpffs", tmp_path / "bpffs")
        for argv in (("--config", tmp_path, "--state-dir", tmp_path / "state"), ("--detach",)):
            result = up.server.run(HEDDLED, *own, *argv, check=False, timeout=60)
            assert result.returncode == 1
            assert f"another heddled runs in this network namespace (process {up.daemon.process.pid})" in result.stderr
        assert bpf.filter_programs(up.server, up.uplink, "ingress") == before != []
        assert_enforced(up)
        # more questions than wait at once are answered
        for _ in range(200):
            with up.server.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
                s.connect("\0heddled")
                assert s.recv(1) == b""


def test_detach_is_for_the_namespace_of_the_agent():
    """With its directories and from elsewhere it would end the agent, and then find nothing of what that has attached."""
    with Guarded("clsact", docs=[policy(ingress=LOAD, default=DENY_IN)]) as up:
        result = up.client.run(*up.daemon.argv("--detach"), check=False)
        assert result.returncode == 1 and "is in another network namespace: detach there" in result.stderr, result.stderr
        assert up.daemon.process.poll() is None
        assert_enforced(up)


def test_nobody_else_keeps_an_agent_from_its_namespace(plain):
    up = plain(start=False)
    script = (
        "import os, socket, time; os.setuid(65534); s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); "
        "s.bind('\\0heddled'); s.listen(); print(1, flush=True); time.sleep(600)"
    )
    squatter = up.server.popen("/usr/bin/python3", "-c", script, stdout=subprocess.PIPE)
    try:
        squatter.stdout.readline()
        up.daemon.start()
        assert "cannot tell whether another heddled runs in this network namespace" in up.daemon.log()
    finally:
        squatter.kill()
        squatter.wait()


def test_filters_of_an_uplink_that_somebody_removes_are_put_back():
    with Guarded("clsact", docs=[policy(ingress=LOAD, default=DENY_IN)]) as up:
        assert_enforced(up)
        before = bpf.filter_programs(up.server, up.uplink, "ingress")
        up.server.run("tc", "qdisc", "del", "dev", up.uplink, "clsact")
        wait_for(lambda: bpf.filter_programs(up.server, up.uplink, "ingress") == before != [], what="the uplink's program is back")
        assert_enforced(up)


def test_detach_of_nothing_is_fine(tmp_path):
    net = Pair()
    try:
        result = net.server.run(HEDDLED, "--detach", "--run-dir", tmp_path / "run", "--bpffs", tmp_path / "bpffs", check=False)
        assert result.returncode == 0, result.stderr
    finally:
        net.close()


def test_policy_is_enforced_from_the_first_packet(main_backend):
    """Nothing gets in between attaching and the first policy, with a sender that never pauses."""
    with Guarded(main_backend, start=False) as up:
        up.daemon.write("10-policy.yaml", policy(default=DENY_ALL))
        up.daemon.start()
        up.daemon.kill()
        with up.server.socket(socket.AF_INET, socket.SOCK_DGRAM) as s, up.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as c:
            s.bind(("", 7960))
            s.setblocking(False)
            c.connect((up.server4, 7960))
            for _ in range(5):
                up.daemon.start(wait=False)
                end = time.monotonic() + 0.3
                while time.monotonic() < end:
                    c.send(b"x")
                    time.sleep(0.0005)
                up.daemon.wait()
                up.daemon.kill()
            with pytest.raises(BlockingIOError):
                s.recv(10)
