# SPDX-License-Identifier: Apache-2.0
"""Frames that XDP moves from device to device itself (way: redirect, auto): where they leave by a device that takes them, and only there."""

import os
import socket

import pytest
import test_fastpath_forward as scenarios
from lib import traffic
from lib.documents import DENY_ALL, policy
from lib.heddled import wait_for
from lib.netns import Namespace
from lib.traffic import expect_udp
from test_fastpath_forward import Router, Stream, backend, between, descriptors  # noqa: F401 pylint: disable=unused-import
from test_fastpath_ports import Plane, each_pair, exchange, xdp  # noqa: F401 pylint: disable=unused-import


def tells():
    """Whether this kernel tells which devices take frames from XDP: the family `netdev` of generic netlink, Linux 6.3."""
    ns = Namespace("probe")
    try:
        return "netdev" in ns.run("genl", "ctrl", "list", check=False).stdout
    finally:
        ns.delete()


pytestmark = pytest.mark.skipif(os.geteuid() == 0 and not tells(), reason="the kernel does not tell which devices take frames from XDP (6.3)")


class Direct(Router):
    """The Router, whose far ends take frames from XDP."""

    def __init__(self, kind, *docs, gro="on", way="redirect", **spec):
        super().__init__(kind, *docs, way=way, **spec)
        self.gro("on", "wire0")
        self.gro(gro)

    def gro(self, state, device="eth9"):
        (self.client if device == "wire0" else self.inside).run("ethtool", "-K", device, "gro", state)

    def device(self, name):
        return next(d for d in self.path()["devices"] if d["device"] == name)

    def wait_way(self, way, device="in0"):
        wait_for(lambda: self.device(device)["way"] == way, 15, what=f"{device} by {way}: {self.path()}")
        return self.device(device)

    def ready(self):
        self.wait_state("live")
        for device in ("up0", "in0"):
            assert self.wait_way("redirect", device)["wayReason"] is None
        return self.path()

    def moved(self):
        return sum(d["redirected"] for d in self.path()["devices"])


def test_traffic(backend):  # noqa: F811
    """TCP both ways, UDP of any size and ping, of both families; each frame straight to the other device, and no thread or socket of the agent's."""
    with Direct(backend, policy(default=DENY_ALL)) as up:
        path = up.ready()
        assert path["workers"] == 0 and path["sockets"] == []
        scenarios.both_ways(up)
        path = up.path()
        assert path["taken"] == up.moved() > 4 * (4 << 20) // 1500, path
        assert path["passed"] == path["dropped"] == 0, path
        assert all(d["redirected"] > 100 for d in path["devices"])
        assert descriptors(up.daemon.process.pid)[1] == 1
        assert "up0:redirect in0:redirect" in up.daemon.cli("status").stdout
        metrics = up.daemon.api.get("/metrics")
        assert f'heddle_fast_path_redirected_total{{fast_path="between",device="in0"}} {up.device("in0")["redirected"]}' in metrics


@pytest.mark.parametrize("forward", ["pass", "judge"])
def test_counted_alike(forward):
    """The flow and its rule have the same numbers as by the kernel, and so by workers (test_fastpath_forward)."""
    scenarios.counted_alike(Direct, forward, way="redirect")


def test_the_rest_is_the_kernels(backend):  # noqa: F811
    """For the host itself, at the end of its hops, too big, a fragment: the kernel has it and answers as ever."""
    scenarios.the_rest_is_the_kernels(Direct, backend)


def test_hop_limit_and_macs(backend):  # noqa: F811
    """What arrives has one hop less, the checksum right, the router's MAC, and nothing in front of it; what is sent to another MAC is not forwarded."""
    with Direct(backend, policy(default=DENY_ALL)) as up:
        up.ready()
        scenarios.hop_limit_and_macs(up)
        assert up.device("in0")["redirected"] == 2


def test_policy_comes_first(backend):  # noqa: F811
    """judge: ingress of the device that it came in by and egress of the one that it leaves by; a change of policy ends flows."""
    with Direct(backend, scenarios.JUDGED, forward="judge") as up:
        up.ready()
        scenarios.judged(up)
        scenarios.denied_from_now_on(up)


def arrive(up, n=200):
    """One way to the inside: how many of n datagrams arrived, one at a time."""
    with up.inside.socket(socket.AF_INET, socket.SOCK_DGRAM) as far, up.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as near:
        far.bind(("", 7710))
        far.settimeout(5)
        got = 0
        for i in range(n):
            near.sendto(b"%d" % i, (up.target(4), 7710))
            got += far.recv(100) == b"%d" % i
        return got


def test_agent_gone(backend):  # noqa: F811
    """Killed, restarted with its programs loaded anew: packets go on as before, not by the kernel, and none is lost."""
    with Direct(backend, policy(default=DENY_ALL)) as up:
        up.ready()
        stream = Stream(up)
        stream.start()
        stream.more()
        for _ in range(2):
            before = up.path()
            up.daemon.kill()
            stream.more()
            assert arrive(up) == 200
            up.daemon.start()
            up.ready()
            after = up.path()
            assert after["taken"] - before["taken"] > (1 << 20) // 1500 and after["passed"] == before["passed"], (before, after)
            stream.more()
        stream.end()
        assert up.path()["taken"] == up.moved()


def test_far_end_changes(backend):  # noqa: F811
    """A veth whose other end has no GRO would lose all: it is left to the kernel, with the reason; live, both ways."""
    with Direct(backend, policy(default=DENY_ALL), gro="off") as up:
        up.wait_state("live")
        up.wait_way("redirect", "up0")
        with traffic.Servers(up.inside, udp=[7700]):
            for state in ("on", "off", "on"):
                assert "neither GRO on nor an XDP program" in up.wait_way("kernel")["wayReason"]
                before = up.device("in0")["redirected"]
                assert up.far(tries=3)
                assert up.device("in0")["redirected"] == before and up.path()["passed"] > 0
                assert "in0: the other end of the veth" in up.daemon.cli("status").stdout
                up.gro(state)
                if state == "on":
                    up.wait_way("redirect")
                    assert up.far(tries=3)
                    assert up.device("in0")["redirected"] > before
                    up.gro("off")


def test_auto(backend):  # noqa: F811
    """Workers for what leaves by a device that takes nothing from XDP, as long as there is one."""
    with Direct(backend, policy(default=DENY_ALL), way="auto") as up:
        up.ready()
        mode = "worker-copy" if backend == "native" else "worker-generic"
        with traffic.Servers(up.inside, udp=[7700]):
            assert up.far(tries=3)
            assert up.path()["workers"] == 0
            up.gro("off")
            assert "neither GRO" in up.wait_way(mode)["wayReason"]
            assert up.path()["workers"] == 1 and up.device("up0")["way"] == "redirect"
            to, back = up.sum("tx"), up.device("up0")["redirected"]
            assert up.far(tries=3)
            assert up.sum("tx") > to and up.device("up0")["redirected"] > back
            up.gro("on")
            up.wait_way("redirect")
            assert up.path()["workers"] == 0 and descriptors(up.daemon.process.pid)[1] == 1
            assert up.far(tries=3)


def test_fallback_drop():
    """What no device takes is dropped where the document says so, as without workers."""
    with Direct("native", policy(default={"ingress": "allow", "egress": "allow"}), gro="off", fallback="drop") as up:
        up.wait_way("kernel")
        with traffic.Servers(up.inside, udp=[7700]), traffic.Servers(up.router, udp=[7700]):
            assert not up.far(timeout=0.3)
            expect_udp(up.client, up.outer.b4, 7700, "reply")
            assert up.daemon.drops()[("fast-path", "ingress")] >= 1
            up.gro("on")
            up.wait_way("redirect")
            assert up.far(tries=3)


def test_devices_come_and_go(backend):  # noqa: F811
    """Set down and up; called otherwise; taken away, also while no agent runs, and made anew."""
    with Direct(backend, policy(default=DENY_ALL)) as up:
        up.ready()
        with traffic.Servers(up.inside, udp=[7700]):
            assert up.far(tries=3)
            scenarios.down_and_up(up)
            scenarios.moves_again(up)
            up.router.ip("link set in0 down", "link set in0 name other", "link set other up")
            wait_for(lambda: up.path()["state"] == "waiting", 10, what="its end")
            assert up.device("in0")["reason"] == "the device is not there" and up.device("in0")["way"] is None
            up.router.ip(f"neigh replace {up.inner.b4} lladdr {up.inner.b_mac} dev other")
            wait_for(lambda: up.far(timeout=0.3), 15, what="by the kernel")
            up.router.ip("link set other down", "link set other name in0", "link set in0 up")
            up.router.ip(f"neigh replace {up.inner.b4} lladdr {up.inner.b_mac} dev in0")
            up.ready()
            scenarios.moves_again(up)
            up.daemon.kill()
            up.inner.delete()
            up.daemon.start()
            assert up.wait_state("waiting")["devices"][1]["reason"] == "the device is not there"
        scenarios.made_anew(up, "gro", "on")


def test_next_hop_changes():
    """The kernel goes on asking for next hops that only XDP sends to: one that has another MAC is found."""
    scenarios.next_hop_changes(Direct)


def test_documents_change():
    """From workers to XDP and back, while packets go; without the document nothing is left."""
    with Direct("native", policy(default=DENY_ALL), way="workers") as up:
        up.wait_state("live")
        stream = Stream(up)
        stream.start()
        stream.more()
        assert up.moved() == 0 and up.device("in0")["way"] == "worker-copy" and up.device("in0")["wayReason"] == "by the document"
        for way, there in (("redirect", 0), ("workers", 1), ("auto", 0)):
            up.daemon.put("00-host.yaml", up.host_document, between(way=way))
            up.wait_way("worker-copy" if there else "redirect")
            wait_for(lambda there=there: up.path()["workers"] == there, 15, what="workers as they are asked for")
            before = up.moved()
            stream.more()
            assert (up.moved() > before) == (not there)
        up.daemon.put("00-host.yaml", up.host_document)
        assert up.daemon.status()["fastPaths"] == []
        stream.more()
        stream.end()


def test_detach():
    """Nothing is left, and the kernel forwards."""
    scenarios.detach(Direct)


# --- ports ---


class Direct2(Plane):
    """The ports' Plane, whose far ends take frames from XDP: veths with GRO on, taps as they are."""

    def __init__(self, *args, way="redirect", **spec):
        super().__init__(*args, way=way, **spec)
        self.outside.run("ethtool", "-K", "wire0", "gro", "on")
        self.offload("gro", "on")

    def offload(self, what, state, devices=("port1", "port2")):
        for device in devices:
            self.ends[device].ns.run("ethtool", "-K", "eth0", what, state)

    def ready(self, **ways):
        wanted = {d["device"]: ways.get(d["device"], "redirect") for d in self.path()["devices"]}
        wait_for(lambda: {d["device"]: d["way"] for d in self.path()["devices"]} == wanted, 20, what=f"{wanted}: {self.path()}")

    def redirected(self):
        return {d["device"]: d["redirected"] for d in self.path()["devices"]}


def test_ports(xdp):  # noqa: F811
    """TCP with all bytes both ways, UDP and ping, between each kind of device: by XDP what has its checksum, by the kernel what has none yet."""
    with Direct2(xdp=xdp) as plane:
        plane.ready()
        plane.offload("tx", "off", ("port1",))
        # port1 and wire0 make their checksums themselves
        each_pair(plane, plane.redirected, lambda a, b: [device for sender, device in ((a, b), (b, a)) if sender in ("port1", "up0")])
        path = plane.path()
        assert path["sockets"] == [] and path["workers"] == 0 and path["dropped"] == 0
        assert path["passed"] > 0, "checksums left to devices"


def test_ports_auto(xdp):  # noqa: F811
    """Workers beside XDP as soon as one device takes nothing from it: they complete checksums, XDP has the others' frames."""
    with Direct2(way="auto", xdp=xdp) as plane:
        plane.ready()
        plane.offload("gro", "off", ("port2",))
        wait_for(lambda: plane.path()["workers"] == 1, 20, what=f"workers: {plane.path()}")
        plane.live()
        plane.offload("tx", "off", ("port1",))
        far = plane.ends["vm3"]
        c, s = traffic.accept_pair(plane.ends["port1"].ns, far.ns, far.a4, 7800)
        before, sums = plane.redirected(), plane.sockets("checksums")
        for _ in range(50):
            exchange(c, s)
        after = plane.redirected()
        assert after["vm3"] - before["vm3"] >= 50 and plane.sockets("checksums")["vm3"] - sums["vm3"] >= 50
        c.close()
        s.close()
