# SPDX-License-Identifier: Apache-2.0
"""
The kernel's 802.1Q and 802.1ad devices as the far end: of networks that are a VLAN on the uplink, of ports with VLANs of their own, of tags within a
tunnel, and a VLAN device as the uplink itself. Tags are beside the frame (as devices with offloads have them) or in it.
"""

import pytest
from lib import documents as doc
from lib import overlay, traffic
from lib.fixtures import needs_device
from lib.heddled import wait_for
from lib.netns import Link, Namespace
from lib.overlay import Fabric, expect_all, expect_nothing
from lib.ports import PortHost
from lib.raw import Capture

pytestmark = needs_device("vlan")

VLAN, SEGMENT = 100, 7
ROOM = 1508  # a veth takes one tag more than its MTU says, not two
OFFLOADS = ("txvlan", "rxvlan", "tx-vlan-stag-hw-insert", "rx-vlan-stag-hw-parse")
CUSTOMER, SERVICE = "802.1Q", "802.1ad"
where = pytest.mark.parametrize("inline", [False, True], ids=["beside", "inline"])
family = pytest.mark.parametrize("family", [4, 6], ids=["over4", "over6"])
protocol = pytest.mark.parametrize("protocol", ["vxlan", pytest.param("geneve", marks=needs_device("geneve"))])


def in_the_frame(ns, device):
    """Tags that the device's frames have are in them, both ways."""
    ns.run("ethtool", "-K", device, *(word for name in OFFLOADS for word in (name, "off")))


class Side:
    """What has addresses in a namespace: on its eth0, or behind the VLAN devices of these tags, the outer one first."""

    def __init__(self, ns, last, *tags, device="eth0", high=0):
        self.ns, self.ip4, self.ip6 = ns, f"10.77.{high}.{last}", f"fd77::{high}:{last}"
        if tags:
            ns.ip(f"link set {device} mtu {ROOM}")
        for kind, vlan in tags:
            lower, device = device, f"{device}.{kind[-1].lower()}{vlan}"
            ns.ip(f"link add link {lower} name {device} type vlan proto {kind} id {vlan}", f"link set {device} up")
        ns.ip(f"link set {device} mtu 1500", f"addr add {self.ip4}/24 dev {device}", f"addr add {self.ip6}/112 dev {device} nodad")
        self.device, self.name = device, f"{device} of {ns.name}"

    def ip(self, family):
        return self.ip4 if family == 4 else self.ip6

    @property
    def addresses(self):
        return [self.ip4, self.ip6]


class Ports:
    """A host with a network, and workloads in it; sides are made of their namespaces."""

    def __init__(self, inline=False, xdp=None, vlan=None):
        self.inline = inline
        uplinks = [{"device": "up0", "xdp": xdp}] if xdp else []
        self.host = PortHost(host_spec={"uplinks": uplinks}, docs=[doc.policy(default=doc.DENY_ALL)])
        subnets = ["10.77.0.0/16", "fd77::/64"]
        self.documents = [doc.network("blue", subnets=subnets, **({"vlan": vlan} if vlan else {}))]

    def work(self):
        w = self.host.add()
        self.host.ns.ip(f"link set {w.device} mtu {ROOM}")
        if self.inline:
            in_the_frame(w.ns, "eth0")
            in_the_frame(self.host.ns, w.device)
        return w

    def port(self, work, *sides, **vlan):
        addresses = [a for s in sides for a in s.addresses]
        self.documents.append(doc.port(work.device, work.device, "blue", addresses=addresses, **({"vlan": vlan} if vlan else {})))

    def up(self):
        self.host.daemon.apply(*self.documents)
        for w in self.host.workloads:
            self.host.wait_port(w.device)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.host.close()


# --- networks that are a VLAN on the uplink ---


class OnTheWire(Ports):
    """A workload here; on the other end of the uplink, the kernel's VLAN devices."""

    def __init__(self, *tags, xdp="off", inline=False, **port):
        super().__init__(inline, xdp, VLAN)
        self.far = Namespace("far")
        self.host.stack.callback(self.far.delete)
        self.link = Link(self.far, "wire0", self.host.ns, "up0", 1, mtu=ROOM)
        if inline:
            in_the_frame(self.far, "wire0")
            in_the_frame(self.host.ns, "up0")
        self.work = self.work()
        self.a, self.b = Side(self.work.ns, 1), Side(self.far, 200, *tags, device="wire0")
        self.port(self.work, self.a, **port)
        self.up()
        wait_for(lambda: self.host.daemon.programs("up0"), what="up0 is guarded")
        assert self.host.daemon.programs("up0").get("xdp_uplink", "off") == xdp


# XDP has to see the tags; on a veth it does where the other end puts them into the frame.
backend = pytest.mark.parametrize(
    "xdp, inline", [("off", False), ("off", True), ("native", True), ("generic", True)], ids=["beside", "inline", "native", "generic"]
)


@backend
def test_a_network_on_the_wire(xdp, inline):
    with OnTheWire((CUSTOMER, VLAN), xdp=xdp, inline=inline) as w:
        expect_all(w.a, w.b)
        assert not traffic.ping(w.far, w.link.b4, answered=False), "the host is behind its own policy"


@backend
def test_a_segment_on_the_wire(xdp, inline):
    """A service tag of the network's around a tag of the segment's."""
    with OnTheWire((SERVICE, VLAN), (CUSTOMER, SEGMENT), xdp=xdp, inline=inline, mode="access", id=SEGMENT) as w:
        expect_all(w.a, w.b)
        for high, tags in ((1, [(CUSTOMER, VLAN)]), (2, [(SERVICE, VLAN + 1), (CUSTOMER, SEGMENT)]), (3, [(CUSTOMER, SEGMENT)])):
            stranger = Side(w.far, 200 + high, *tags, device="wire0", high=high)
            w.work.ns.ip(f"route add 10.77.{high}.0/24 dev eth0")
            w.far.ip(f"route add {w.a.ip4}/32 dev {stranger.device} src {stranger.ip4} metric {high}")
            assert not traffic.ping(w.far, w.a.ip4, answered=False, source=stranger.ip4)


@where
def test_super_packets_on_the_wire(inline):
    """Nothing cuts them up on their way, and each byte is what it was."""
    with OnTheWire((CUSTOMER, VLAN), inline=inline) as w:
        for sender, receiver in ((w.a, w.b), (w.b, w.a)):
            sizes = Capture(w.work.ns, "eth0", "tcp", "and", "greater", "2500")
            client, server = traffic.accept_pair(sender.ns, receiver.ns, receiver.ip4, 7100)
            with client, server:
                sent, got = traffic.transfer(client, server, 4 << 20)
                assert sent == got
            lines = [line for line in sizes.lines() if f"{sender.ip4}." in line]
            assert inline or lines, "no frame was larger than 2500 bytes"


# --- ports with VLANs of their own ---


@where
def test_trunk_and_access(inline):
    """Two VLANs of one workload, each with the access ports of its segment; one of them is another trunk's native one."""
    with Ports(inline) as p:
        trunk, access, native, other = (p.work() for _ in range(4))
        blue, red = Side(trunk.ns, 1, (CUSTOMER, 30)), Side(trunk.ns, 1, (CUSTOMER, 31), high=1)
        p.port(trunk, blue, red, mode="trunk", allowed=[30, 31])
        in_blue, in_native, in_red = Side(access.ns, 2), Side(native.ns, 3), Side(other.ns, 2, high=1)
        p.port(access, in_blue, mode="access", id=30)
        p.port(native, in_native, mode="trunk", allowed=[30, 40], native=30)
        p.port(other, in_red, mode="access", id=31)
        p.up()
        expect_all(blue, in_blue)
        expect_all(red, in_red)
        expect_all(blue, in_native)
        access.ns.ip("route add 10.77.1.0/24 dev eth0", "route add fd77::1:0/112 dev eth0")
        expect_nothing(in_blue, in_red)


@where
def test_customers_tags(inline):
    """What a qinq port sends is its own affair, and a trunk sees a service tag around it."""
    with Ports(inline) as p:
        a, b, trunk = (p.work() for _ in range(3))
        one, two = Side(a.ns, 1, (CUSTOMER, 7)), Side(b.ns, 2, (CUSTOMER, 7))
        far = Side(trunk.ns, 3, (SERVICE, 30), (CUSTOMER, 7))
        doubly = [Side(w.ns, i + 1, (SERVICE, 8), (CUSTOMER, 9), high=1) for i, w in enumerate((a, b))]
        p.port(a, one, doubly[0], mode="qinq", id=30)
        p.port(b, two, doubly[1], mode="qinq", id=30)
        p.port(trunk, far, mode="trunk", allowed=[30])
        p.up()
        expect_all(one, two)
        expect_all(one, far)
        expect_all(*doubly)


def test_priorities():
    """The priority that one VLAN device puts into its tags is there at the other."""
    with Ports() as p:
        a, b = p.work(), p.work()
        one, two = Side(a.ns, 1, (CUSTOMER, 30)), Side(b.ns, 2, (CUSTOMER, 30))
        for side in (one, two):
            side.ns.ip(f"link set {side.device} type vlan egress-qos-map 0:5")
        for w, side in ((a, one), (b, two)):
            p.port(w, side, mode="trunk", allowed=[30])
        p.up()
        capture = Capture(b.ns, "eth0", "-Q", "in")
        assert traffic.ping(one.ns, two.ip4)
        lines = [line for line in capture.lines() if one.ip4 in line]
        assert lines and all("vlan 30, p 5" in line for line in lines)


# --- tags in a tunnel, and a tunnel in a VLAN ---

MODES = {
    "trunk": ({"mode": "trunk", "allowed": [30]}, [(CUSTOMER, 30)], [(CUSTOMER, 30)]),
    "access": ({"mode": "access", "id": 30}, [], [(CUSTOMER, 30)]),
    "qinq": ({"mode": "qinq", "id": 30}, [(CUSTOMER, 7)], [(SERVICE, 30), (CUSTOMER, 7)]),
}


@where
@protocol
@family
@pytest.mark.parametrize("mode", list(MODES))
def test_tags_in_a_tunnel(mode, family, protocol, inline):
    """The far end is a VLAN device behind the kernel's tunnel device. Super-packets with tags are cut behind heddle, with all their headers right."""
    vlan, near, far = MODES[mode]
    with Fabric(family, protocol) as f:
        ours, theirs = f.heddle(), f.kernel()
        blue = f.network("blue", 100)
        a, b = ours.work(blue, 1, mtu=ROOM), theirs.work(blue, 2, mtu=ROOM)
        for w in (a, b):
            w.ns.ip("addr flush dev eth0 scope global")
            if inline:
                in_the_frame(w.ns, "eth0")
                in_the_frame(w.host, w.device)
        one, two = Side(a.ns, 1, *near), Side(b.ns, 2, *far)
        theirs.up()
        port, peer = a.port(), theirs.peer()
        port["spec"] |= {"vlan": vlan, "addresses": one.addresses}
        peer["spec"]["ports"][0]["addresses"] = two.addresses
        ours.put(*[d for d in ours.documents() if d["kind"] not in ("Port", "Peer")], port, peer)
        ours.host.wait_port(a.name)
        wait_for(lambda: overlay.echo(a.ns, two.ip4, 84, 0.5), timeout=20, what="each knows the other")
        expect_all(one, two)


@protocol
@family
def test_an_uplink_that_is_a_vlan(protocol, family):
    """The underlay is a VLAN, and the host's end of it a VLAN device: heddle guards that one, and sends its tunnel packets by it."""
    with Fabric(family, protocol) as f:
        ours, theirs = f.heddle(start=False), f.kernel()
        tap = f.tap_of(ours.number)
        for ns, lower, upper in ((ours.ns, overlay.UPLINK, "phy0"), (f.ns, tap, "phy0")):
            ns.ip(f"link set {lower} nomaster down", f"link set {lower} name {upper}", f"addr flush dev {upper}", f"link set {upper} up")
            ns.ip(f"link add link {upper} name {lower} address {f.mac(ours.number, far=ns is f.ns)} type vlan id 50")
        f.ns.ip(f"link set {tap} master br0 up")
        addresses = [f"addr add {f.address(ours.number, 4)}/24 dev {overlay.UPLINK}", f"addr add {f.address(ours.number, 6)}/64 dev {overlay.UPLINK} nodad"]
        ours.ns.ip(f"link set {overlay.UPLINK} up", *addresses)
        blue = f.network("blue", 100)
        a, b = ours.work(blue, 1), theirs.work(blue, 2)
        ours.daemon.start()
        f.up()
        capture = Capture(f.ns, "phy0", "vlan", "or", "udp", "port", str(overlay.PORT[protocol]))
        expect_all(a, b)
        lines = [line for line in capture.lines() if f.mac(ours.number) in line]  # what is in a tunnel has lines of its own
        assert len(lines) > 50 and all("vlan 50, p 0" in line for line in lines)
