# SPDX-License-Identifier: Apache-2.0
"""Open vSwitch as the far end, with its datapath in user space and with the kernel's: VXLAN, and Geneve with options."""

import pytest
from lib import overlay
from lib.heddled import wait_for
from lib.overlay import Fabric, OvsEnd, dissect, expect_all, expect_echoes, tunnelled

pytestmark = pytest.mark.skipif(OvsEnd.missing() is not None, reason=str(OvsEnd.missing()))

# The kernel's takes super-packets, and checksums that are to be filled in.
datapath = pytest.mark.parametrize(
    "datapath", ["netdev", pytest.param("system", marks=pytest.mark.skipif(OvsEnd.missing("system") is not None, reason=str(OvsEnd.missing("system"))))]
)
CLASS, KIND, CRITICAL = 0x0102, 0x21, 0xA1
family = pytest.mark.parametrize("family", [4, 6], ids=["over4", "over6"])


class Mixed(overlay.Rig):
    def __init__(self, datapath, protocol, family, mode="l2", **fabric):
        super().__init__(Fabric(family, protocol, **fabric), datapath=datapath, mode=mode)

    def build(self, datapath, mode):
        self.ours, self.theirs = self.fabric.heddle(), self.fabric.ovs(datapath=datapath)
        self.blue, self.red = self.fabric.network("blue", 100, mode=mode), self.fabric.network("red", 101, 78, mode=mode)
        self.a, self.b = self.ours.work(self.blue, 1), self.theirs.work(self.blue, 2)
        self.c, self.d = self.ours.work(self.red, 1), self.theirs.work(self.red, 2)


@datapath
@family
@pytest.mark.parametrize("protocol", ["vxlan", "geneve"])
def test_traffic(datapath, protocol, family):
    with Mixed(datapath, protocol, family) as m:
        # To Open vSwitch frames go as on a real wire: whole segments, checksums filled in
        m.a.quiet()
        m.c.quiet()
        expect_all(m.a, m.b)
        expect_echoes(m.c, m.d)
        expect_echoes(m.d, m.c)
        assert m.ours.faults() == {}


@datapath
@family
def test_super_packets(datapath, family):
    """The workload's offloads stay on: what the stack cuts up on the last link has its headers and checksums right."""
    with Mixed(datapath, "geneve", family) as m:
        expect_all(m.a, m.b)


@datapath
@family
def test_options(datapath, family):
    """Skipped, whatever is in them; a critical one is a drop, and it is counted."""
    with Mixed(datapath, "geneve", family, mtu=1800) as m:
        m.a.quiet()
        m.b.quiet()
        m.theirs.ofctl(
            "add-tlv-map", "br-int",
            f"{{class={CLASS:#x},type={KIND:#x},len=4}}->tun_metadata0,{{class={CLASS:#x},type={KIND + 1:#x},len=124}}->tun_metadata1,"
            f"{{class={CLASS:#x},type={CRITICAL:#x},len=4}}->tun_metadata2",
        )  # fmt: skip
        m.theirs.flows(out="set_field:0xcafe0123->tun_metadata0,set_field:0x55->tun_metadata1")
        with m.theirs.witness() as witness:
            expect_all(m.a, m.b)
            expect_echoes(m.b, m.a)
            frames = witness.frames()
        sent = tunnelled(frames)
        assert sent and {len(t.header) for t in sent} == {8 + 8 + 128} and all(b"\xca\xfe\x01\x23" in t.header for t in sent)
        dissect([f for f in frames if f[12:14] != b"\x08\x06"])
        before = m.ours.drops("tunnel-option")
        m.theirs.flows(out="set_field:0x1->tun_metadata2")
        wait_for(lambda: not overlay.echo(m.b.ns, m.a.ip4, 84, 0.5), what="the flows of before are forgotten")
        wait_for(lambda: m.ours.drops("tunnel-option") > before, what="tunnel-option")


@datapath
@family
def test_dissected(datapath, family):
    with Mixed(datapath, "geneve", family) as m:
        m.a.quiet()
        with m.ours.witness() as ours:
            expect_all(m.a, m.b)
            frames = ours.frames()
        rows = dissect([f for f in frames if len(f) <= m.fabric.mtu + overlay.ETHERNET], "geneve.vni", "frame.protocols")
        assert len([r for r in rows if r[0] == "0x000064"]) > 50
        for t in tunnelled(frames):
            assert t.header == bytes.fromhex(f"00006558{t.vni:06x}00") and t.vni in (100, 101)


@datapath
def test_mixed_mesh(datapath):
    """Heddle, the kernel's device and Open vSwitch in one network."""
    with Fabric(4) as f:
        ours, kernel, ovs = f.heddle(), f.kernel(), f.ovs(datapath=datapath)
        f.plain(kernel)
        blue = f.network("blue", 100)
        works = [end.work(blue, i + 1) for i, end in enumerate((ours, kernel, ovs))]
        for w in works:
            w.quiet()
        f.up()
        for a in works:
            for b in works:
                if a is not b:
                    expect_echoes(a, b)
