# SPDX-License-Identifier: Apache-2.0
"""XDP takes frames out of their tunnel: what TC and the workloads have of it, who says so, and what it does not let in."""

import json
import subprocess

import pytest
from lib import documents as doc
from lib import overlay
from lib.heddled import wait_for
from lib.overlay import PORT, Fabric, expect_all, expect_echoes, tunnelled
from lib.ports import GATEWAY_MAC
from lib.raw import IP, UDP, Dot1Q, Ether, LocalWitness, Raw, Wire
from lib.traffic import NO_LOSS, Load, Servers, expect_udp, ping

IN_XDP = {"xdp": "auto", "tunnel": {"decapsulate": "xdp"}}


def said(end):
    """What status says of the uplink, and of the tunnel as a whole."""
    status = end.daemon.status()
    (uplink,) = status["uplinks"]
    return uplink["xdp"], uplink["decapsulation"], status["tunnel"]["decapsulation"], uplink["decapsulationReason"]


class Tap:
    """Behind XDP and ahead of TC: the frames as XDP has left them."""

    def __init__(self, end, source):
        self.wire = Wire(end.ns, overlay.UPLINK)
        self.macs = [bytes.fromhex(mac.replace(":", "")) for mac in (source.mac, GATEWAY_MAC)]  # or routed at its source

    def seen(self):
        """(frames of the workload in their tunnel, without it)"""
        frames = self.wire.frames(0.1)
        return len([t for t in tunnelled(frames) if t.inner[6:12] in self.macs]), len([f for f in frames if f[6:12] in self.macs])

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.wire.close()


def expect_taken_out(a, b, ends):
    """Everything gets through both ways, and comes out of its tunnel in XDP at the ends that do so."""
    taps = [(end, Tap(end, b if end is a.end else a)) for end in ends]
    try:
        expect_all(a, b)
        for end, tap in taps:
            whole, inner = tap.seen()
            assert inner > 50 and not whole, (end.name, whole, inner)
    finally:
        for _, tap in taps:
            tap.wire.close()


def work(end, network, last, **kwargs):
    w = end.work(network, last, **kwargs)
    w.end = end
    return w


@pytest.mark.parametrize("protocol", ["vxlan", "geneve"])
@pytest.mark.parametrize("underlay, mode", [(4, "l2"), (6, "l3")], ids=["over4-l2", "over6-l3"])
def test_between_hosts(protocol, underlay, mode):
    with Fabric(underlay, protocol) as f:
        one, two = f.heddle(**IN_XDP), f.heddle(**IN_XDP)
        blue = f.network("blue", 100, mode=mode)
        a, b = work(one, blue, 1), work(two, blue, 2)
        f.up()
        for end in (one, two):
            assert said(end) == ("native", "xdp", "xdp", "the Host document has XDP do it")
        expect_taken_out(a, b, [one, two])
        assert (one.faults(), two.faults()) == ({}, {})
        table = one.daemon.cli("status").stdout
        assert "DECAPSULATION" in table and "decapsulation in xdp: the Host document has XDP do it" in table


@pytest.mark.parametrize("checksums", [False, True], ids=["zero", "checksums"])
@pytest.mark.parametrize("underlay", [4, 6], ids=["over4", "over6"])
def test_from_the_kernel(underlay, checksums):
    with Fabric(underlay) as f:
        one, theirs = f.heddle(**IN_XDP), f.kernel(checksums=checksums)
        blue = f.network("blue", 0x123456)
        a, b = work(one, blue, 1), work(theirs, blue, 2)
        f.up()
        expect_taken_out(a, b, [one])
        assert set(one.faults()) <= {("tunnel-source", "ingress")}


@pytest.mark.parametrize("protocol, underlay", [("vxlan", 4), ("geneve", 6)], ids=["vxlan4", "geneve6"])
def test_jumbo(protocol, underlay):
    """Frames of more than a page come to XDP in several buffers."""
    with Fabric(underlay, protocol, mtu=9000, work_mtu=8900) as f:
        one, two = f.heddle(**IN_XDP), f.heddle(**IN_XDP)
        blue = f.network()
        a, b = work(one, blue, 1), work(two, blue, 2)
        f.up()
        with Tap(two, a) as tap:
            expect_echoes(a, b, (84, 3600, 5000, 8900))
            assert tap.seen()[0] == 0
        expect_taken_out(a, b, [one, two])
        assert (one.faults(), two.faults()) == ({}, {})


def test_tags_of_a_trunk():
    """They are in the frame that XDP leaves, which TC has them beside of."""
    with Fabric() as f:
        one, two = f.heddle(**IN_XDP), f.heddle(**IN_XDP)
        blue = f.network()
        a, b = work(one, blue, 1), work(two, blue, 2)
        f.up()
        for end, w in ((one, a), (two, b)):
            port = w.port()
            port["spec"]["vlan"] = {"mode": "trunk", "allowed": [30]}
            end.put(*[d for d in end.documents() if d["kind"] != "Port"], port)
            end.host.wait_port(w.name)
        frame = Ether(src=a.mac, dst=b.mac) / Dot1Q(vlan=30, prio=5) / IP(src=a.ip4, dst=b.ip4) / UDP(sport=5) / Raw(b"tagged" * 10)
        with Tap(two, a) as tap, Wire(b.ns, "eth0") as at_b, Wire(a.ns, "eth0") as wire:
            wire.send(frame)
            got = at_b.wait_frame(lambda p: b"taggedtagged" in bytes(p))
            assert got is not None and tap.seen() == (0, 1)


def test_the_hosts_policy_holds():
    """What is not of the tunnel is judged in XDP as ever; what is, is not, and whose the inner frame is decides TC."""
    with Fabric() as f:
        one, two = (f.heddle(docs=[doc.policy(default=doc.DENY_ALL)], **IN_XDP) for _ in range(2))
        blue = f.network()
        a, b = work(one, blue, 1), work(two, blue, 2)
        f.up()
        ping(two.ns, one.address, answered=False)
        expect_taken_out(a, b, [one, two])
        with Servers(one.ns, udp=[4790]):
            expect_udp(two.ns, one.address, 4790, "timeout")
        rogue = f.rogue()
        inner = Ether(src=b.mac, dst=a.mac) / IP(src=b.ip4, dst=a.ip4) / UDP(sport=1, dport=2)

        def send(mark, source, frame=inner, **fields):
            rogue.send(overlay.wrap(frame / Raw(mark), fields.pop("vni", 100), source, one.address, f.mac(1), **fields))

        with Wire(a.ns, "eth0") as heard, LocalWitness(one.ns, [17], []) as host:
            send(b"from-nobody", f.address(200))
            wait_for(lambda: one.drops("tunnel-peer") == 1, what="tunnel-peer")
            send(b"of-no-network", two.address, vni=4711)
            wait_for(lambda: one.drops("tunnel-vni") == 1, what="tunnel-vni")
            before = one.drops("tunnel-source")
            send(b"not-its-own", two.address, Ether(src=b.mac, dst=a.mac) / IP(src="10.77.0.9", dst=a.ip4) / UDP(sport=1, dport=2))
            # To the host itself, as if it had come without a tunnel
            send(b"to-the-host", two.address, Ether(src=b.mac, dst=f.mac(1)) / IP(src=two.address, dst=one.address) / UDP(dport=68, sport=67))
            wait_for(lambda: one.drops("tunnel-source") == before + 2, what="tunnel-source")
            send(b"its-own", two.address)
            assert heard.wait_frame(lambda p: b"its-own" in bytes(p) and b"not" not in bytes(p)) is not None
            assert not host.saw(b"to-the-host", 0.2)


@pytest.mark.parametrize(
    "xdp, decapsulate, mode, reason",
    [
        ("auto", "auto", "off", "XDP is off"),
        ("native", "auto", "native", "on a veth XDP does it only where the Host document says so"),
        ("native", "tc", "native", "the Host document has TC do it"),
        ("generic", "xdp", "generic", "the Host document has XDP do it, which takes native XDP: it is generic"),
        ("off", "xdp", "off", "the Host document has XDP do it, which takes native XDP: it is off, off by the Host document"),
    ],
)
def test_where_tc_does_it(xdp, decapsulate, mode, reason):
    with Fabric() as f:
        one, two = f.heddle(xdp=xdp, tunnel={"decapsulate": decapsulate}), f.heddle()
        blue = f.network()
        a, b = work(one, blue, 1), work(two, blue, 2)
        f.up()
        assert said(one) == (mode, "tc", "tc", reason)
        with Tap(one, b) as tap:
            expect_echoes(a, b, (84,))
            whole, inner = tap.seen()
            assert whole and not inner
        if decapsulate == "xdp":
            assert reason in one.daemon.log()


def host_document(end, xdp, decapsulate):
    tunnel = {"protocol": end.fabric.protocol, "address": end.address, "port": PORT[end.fabric.protocol], "decapsulate": decapsulate}
    end.daemon.write("00-host.yaml", doc.host(overlay.UPLINK, xdp, pickupSeconds=0, tunnel=tunnel))


@pytest.mark.parametrize("protocol, underlay", [("vxlan", 4), ("geneve", 6)], ids=["vxlan4", "geneve6"])
def test_it_changes_under_traffic(protocol, underlay):
    """From TC to XDP and back, and through an agent that starts anew: nothing is lost."""
    with Fabric(underlay, protocol) as f:
        one, two = f.heddle(xdp="native"), f.heddle(xdp="native")
        blue = f.network()
        a, b = work(one, blue, 1), work(two, blue, 2)
        f.up()
        expect_echoes(a, b)
        loads = [Load(a.ns, b.ns, address, 7900 + i, 7910 + i) for i, address in enumerate((b.ip4, b.ip6))]
        try:
            for decapsulate in ("xdp", "tc", "xdp", "tc", "xdp"):
                for end in (one, two):
                    host_document(end, "native", decapsulate)
                    end.put()
                    wait_for(lambda e=end, d=decapsulate: said(e)[1] == d, what=f"decapsulation in {decapsulate}")
                    for load in loads:
                        load.wait_exchanges(20)
            for end in (one, two):
                end.daemon.restart()
                assert said(end)[1] == "xdp"
            # More than the tables hold: programs and tables are loaded anew
            many = [doc.network(f"n{i}", subnets=["10.0.0.0/8"], gateway=[f"10.{i // 250}.{i % 250}.1"]) for i in range(1100)]
            one.daemon.apply(*many)
            assert said(one)[1] == "xdp"
            for load in loads:
                load.wait_exchanges(30)
        finally:
            results = [load.finish() for load in loads]
        assert results == [NO_LOSS] * 2


def test_xdp_comes_and_goes():
    """With the program itself: the veth loses packets then, so that all is asked of it is that it goes on."""
    with Fabric() as f:
        one, two = f.heddle(xdp="auto"), f.heddle(xdp="auto")
        blue = f.network()
        a, b = work(one, blue, 1), work(two, blue, 2)
        f.up()
        for xdp, decapsulate, expected in (("auto", "xdp", ("native", "xdp")), ("off", "xdp", ("off", "tc")), ("auto", "xdp", ("native", "xdp")),
                                           ("generic", "xdp", ("generic", "tc")), ("auto", "auto", ("off", "tc"))):  # fmt: skip
            host_document(one, xdp, decapsulate)
            one.put()
            wait_for(lambda e=expected: said(one)[:2] == e, what=f"{expected}")
            before = one.faults()
            expect_echoes(a, b)
            expect_echoes(b, a)
            assert one.faults() == before


# --- somebody else's metadata ---

FORGING_C = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct meta { __u32 magic, generation, network, peer; };
SEC("xdp") int forging_xdp(struct xdp_md *ctx)
{
	struct meta *meta;

	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*meta)))
		return XDP_DROP;
	meta = (void *)(long)ctx->data_meta;
	if ((void *)(meta + 1) > (void *)(long)ctx->data)
		return XDP_DROP;
	*meta = (struct meta){0x68656476, 1, 1, 1};
	return XDP_PASS;
}
char _license[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def forging_object(tmp_path_factory):
    d = tmp_path_factory.mktemp("forging")
    (d / "f.bpf.c").write_text(FORGING_C)
    subprocess.run(["clang", "-target", "bpf", "-O2", "-g", "-I/usr/include/x86_64-linux-gnu", "-c", d / "f.bpf.c", "-o", d / "f.o"], check=True)
    return d / "f.o"


def test_metadata_of_somebody_else(forging_object):
    """Another XDP program has the device, and says of every frame that a peer sent it: TC takes that for nothing."""
    with Fabric() as f:
        one, two = f.heddle(start=False, **IN_XDP), f.heddle()
        blue = f.network()
        a, b = work(one, blue, 1), work(two, blue, 2)
        one.ns.run("ip", "link", "set", "dev", overlay.UPLINK, "xdpdrv", "obj", forging_object, "sec", "xdp")
        one.daemon.start()
        f.up()
        xdp, decapsulation, _, reason = said(one)
        assert (xdp, decapsulation) == ("off", "tc") and "another XDP program is attached" in reason
        expect_all(a, b)
        rogue = f.rogue()
        with Wire(a.ns, "eth0") as heard:
            rogue.send(Ether(src=b.mac, dst=a.mac) / IP(src=b.ip4, dst=a.ip4) / UDP(sport=1, dport=2) / Raw(b"forged"))
            rogue.send(Ether(src=b.mac, dst=f.mac(1)) / IP(src=b.ip4, dst=a.ip4) / UDP(sport=1, dport=2) / Raw(b"forged"))
            assert heard.wait_frame(lambda p: b"forged" in bytes(p), 0.5) is None
        # as a control, the program does what it is there for
        assert json.loads(one.ns.run("ip", "-j", "link", "show", overlay.UPLINK).stdout)[0]["xdp"]["prog"]["name"] == "forging_xdp"
