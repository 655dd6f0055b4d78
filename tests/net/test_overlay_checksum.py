# SPDX-License-Identifier: Apache-2.0
"""Tunnel packets with UDP checksums: right ones, in everything that is sent, whoever the far end is; and none where none are wanted."""

import time

import pytest
from lib import documents as doc
from lib import overlay
from lib.heddled import wait_for
from lib.overlay import Fabric, dissect, expect_all, expect_echoes, tunnelled
from lib.raw import IP, UDP, Ether, Raw, Wire

FULL = {"checksum": "full"}
PAIR = ("heddle-sum", "heddle-summed")
over = pytest.mark.parametrize("underlay", [4, 6], ids=["over4", "over6"])


class Ends(overlay.Rig):
    """A host that sends checksums, and a workload on each of two hosts."""

    def build(self, far="heddle", mode="l2"):
        f = self.fabric
        self.ours = f.heddle(tunnel=FULL)
        self.theirs = f.heddle(tunnel=FULL) if far == "heddle" else f.kernel(checksums=True)
        self.blue = f.network("blue", 100, mode=mode)
        self.a, self.b = self.ours.work(self.blue, 1), self.theirs.work(self.blue, 2)

    def settled(self):
        for end in (self.ours, self.theirs):
            if isinstance(end, overlay.HeddleEnd):
                wait_ready(end)


def wait_ready(end):
    wait_for(lambda: end.daemon.programs(PAIR[1]), what="the pair of devices")
    wait_for(lambda: end.peers("ways")[0] >> 1, what="a way: before, the agent's socket sends")


def devices(end):
    return {line.split(": ")[1].split("@")[0] for line in end.ns.run("ip", "-o", "link").stdout.splitlines()}


def expect_right(frames):
    """
    Every whole tunnel packet has a checksum, and tshark finds nothing wrong with any, nor with what is inside. What the agent's socket sent, from the
    tunnel's own port, has one that is left to the uplink, which is a veth: nobody fills it in.
    """
    sent = tunnelled(frames)
    assert sent and all(t.udp.chksum for t in sent)
    sent = [t for t in sent if t.udp.sport != t.udp.dport]
    rows = dissect([t.ether for t in sent], "udp.checksum.status")
    assert {row[0].split(",")[0] for row in rows} == {"1"}, "not every checksum is a good one"
    return sent


@over
@pytest.mark.parametrize("protocol, mode", [("vxlan", "l2"), ("geneve", "l3")])
def test_between_hosts(protocol, mode, underlay):
    """Super-packets, partial checksums, packets that are too large: all are cut and filled in ahead of the uplink."""
    with Ends(Fabric(underlay, protocol), mode=mode) as m:
        with m.ours.witness() as ours, m.theirs.witness() as theirs:
            expect_all(m.a, m.b)
            sent = expect_right(ours.frames() + theirs.frames())
        assert len(sent) > 100
        assert max(len(t.ether) for t in sent) <= m.fabric.mtu + overlay.ETHERNET
        assert (m.ours.faults(), m.theirs.faults()) == ({}, {})
        assert m.ours.daemon.status()["tunnel"]["checksum"] == {"mode": "full", "reason": None}


@over
def test_the_kernel_takes_them(underlay):
    """Its device looks at every checksum that is not zero."""
    with Ends(Fabric(underlay), far="kernel") as m:
        with m.ours.witness() as witness:
            expect_all(m.a, m.b)
            expect_right(witness.frames())


def as_it_should_be(t):
    packet = t.ether.copy()
    del packet[UDP].chksum
    return Ether(bytes(packet))[UDP].chksum


@over
def test_frames_of_every_length(underlay):
    """Whatever is inside is summed up as it is: no IP, UDP without a checksum, or with a wrong one, odd lengths."""
    with Ends(Fabric(underlay)) as m:
        expect_echoes(m.a, m.b, (84,))
        head = Ether(src=m.a.mac, dst=m.b.mac)
        ip = IP(src=m.a.ip4, dst=m.b.ip4)
        frames = [Ether(src=m.a.mac, dst=m.b.mac, type=0x88B5) / Raw(b"x" * 61)]
        frames += [head / ip / UDP(sport=9, dport=9, chksum=c) / Raw(b"\xff" * n) for c in (0, 0x1234) for n in range(20, 50)]
        frames += [head / ip / UDP(sport=9, dport=9) / Raw(overlay.payload(n)) for n in (*range(400, 420), *range(914, 932), 1471, 1472)]
        wanted, seen = {bytes(f) for f in frames}, []
        with Wire(m.a.ns, "eth0") as wire, m.ours.witness() as witness:
            for frame in frames:
                wire.send(frame)
            deadline = time.monotonic() + 10
            while wanted - {t.inner for t in seen} and time.monotonic() < deadline:
                seen += tunnelled(witness.frames(0.1))
        assert not wanted - {t.inner for t in seen}
        assert [(t.udp.chksum, as_it_should_be(t)) for t in seen if t.udp.chksum != as_it_should_be(t)] == []


def test_comes_and_goes_by_document():
    with Fabric() as f:
        one, two = f.heddle(), f.heddle()
        blue = f.network()
        a, b = one.work(blue, 1), two.work(blue, 2)
        f.up()
        expect_echoes(a, b)
        assert not devices(one) & set(PAIR)
        for checksum in ("full", "zero", "full"):
            tunnel = {"protocol": "vxlan", "address": one.address, "checksum": checksum}
            one.daemon.write("00-host.yaml", doc.document("Host", "host", {"uplinks": [{"device": "up0", "xdp": "off"}], "tunnel": tunnel}))
            if checksum == "full":
                wait_ready(one)
            else:
                wait_for(lambda: not devices(one) & set(PAIR) and not one.daemon.programs(PAIR[1]), what="the pair's end")
            with one.witness() as witness:
                expect_all(a, b)
                sent = tunnelled(witness.frames())
            assert sent and {t.udp.chksum == 0 for t in sent} == {checksum == "zero"}
        one.daemon.detach()
        assert not devices(one) & set(PAIR)
