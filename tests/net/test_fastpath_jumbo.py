# SPDX-License-Identifier: Apache-2.0
"""Packets in several frames: jumbo MTUs through workers, by XDP alone and to consumers. Of a kernel before 6.6, what is said instead."""

import ctypes
import errno
import os
import socket

import pytest
from lib import documents as doc
from lib import traffic
from lib.documents import DENY_ALL, policy
from lib.heddled import BUILD, wait_for
from lib.netns import Namespace
from test_fastpath import ALLOW, ECHO, SWITCH_MAC, Consumer, Hostile, PortUp, Up, fast_path
from test_fastpath_forward import Router, backend, workers  # noqa: F401 pylint: disable=unused-import
from test_fastpath_ports import Plane, exchange

JUMBO = 9000
# bytes of a datagram's payload: in one frame of 4096 with its headers, around the ends of one, two and three, as much as fits
SIZES = (1, 1400, 3400, 3500, 3750, 3800, 3850, 7500, 7600, 7700, 8900)


def has_several():
    """Linux 6.6: flags of bind() are looked at before the device is."""
    try:
        with socket.socket(44, socket.SOCK_RAW) as s:
            address = (44).to_bytes(2, "little") + (1 << 4 | 1 << 1).to_bytes(2, "little") + bytes(12)
            ctypes.CDLL(None, use_errno=True).bind(s.fileno(), address, len(address))
            return ctypes.get_errno() == errno.ENODEV
    except OSError:
        return False


SEVERAL = os.geteuid() == 0 and has_several()
several = pytest.mark.skipif(not SEVERAL, reason="this kernel has no AF_XDP sockets for packets in several frames (6.6)")


def echoed(ns, address, size, port=7700, tries=3):
    """A datagram of so many bytes, not to be fragmented, comes back as it went."""
    family = traffic.family_of(address)
    text = os.urandom(size)
    with ns.socket(family, socket.SOCK_DGRAM) as s:
        if family == socket.AF_INET:
            s.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
        s.settimeout(5)
        for _ in range(tries):
            s.sendto(text, (address, port))
            try:
                return s.recv(65536) == text
            except TimeoutError:
                pass
    return False


def both_ways(near, far, addresses, port=7703):
    """TCP with all bytes both ways, datagrams of any size, in both families."""
    with traffic.Servers(far, udp=[7700]):
        for family, address in zip((4, 6), addresses):
            for size in SIZES:
                assert echoed(near, address, size), (address, size)
            c, s = traffic.accept_pair(near, far, address, port + (family == 6))
            for sender, receiver in ((c, s), (s, c)):
                sent, got = traffic.transfer(sender, receiver, 8 << 20)
                assert sent == got
            c.close()
            s.close()


def lost(path):
    """Of which there are none, however slow the machine is."""
    return sum(s[what] for s in path["sockets"] for what in ("noDevice", "tooBig", "malformed", "invalid"))


def too_fast(path):
    """What the kernel had no room for."""
    return sum(s[what] for s in path["sockets"] for what in ("dropped", "ringFull", "fillEmpty"))


@several
def test_workers(backend, workers):  # noqa: F811 pylint: disable=redefined-outer-name
    """Each packet by the workers, whole, and by nobody else; larger segments than the MTU are none here."""
    with Router(backend, policy(default=DENY_ALL), workers=workers, topology={"inside_mtu": JUMBO, "outer_mtu": JUMBO}) as up:
        path = up.ready()
        assert path["multiBuffer"] and path["multiBufferReason"] is None
        assert [(d["mtuLimit"], d["multiBuffer"], d["reason"]) for d in path["devices"]] == [(65266, True, None)] * 2
        assert {s["pieces"] for s in path["sockets"]} == {17}
        both_ways(up.client, up.inside, (up.target(4), up.target(6)))
        wait_for(lambda: up.path()["taken"] == up.sum("rx") + too_fast(up.path()), 5, what=f"all received: {up.path()}")
        path = up.path()
        assert up.sum("several") > 2 * (8 << 20) // JUMBO and up.sum("rx") > up.sum("several")
        assert path["passed"] == path["tooBig"] == lost(path) == 0, path
        assert up.sum("rx") == up.sum("tx") + up.sum("noRoom")
        assert (up.sum("handed") > 0) == (workers == 2)


@several
def test_other_mtu(backend):  # noqa: F811
    """Behind a smaller MTU: what is too big the kernel answers for, and what fits the workers have."""
    with Router(backend, policy(default={"ingress": "allow", "egress": "allow"}), topology={"inside_mtu": 1500, "outer_mtu": JUMBO}) as up:
        up.ready()
        with traffic.Servers(up.inside, udp=[7700]):
            assert echoed(up.client, up.target(4), 1400)
            before = up.sum("rx")
            with up.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                s.setsockopt(socket.IPPROTO_IP, 10, 2)
                s.connect((up.target(4), 7700))
                s.settimeout(5)
                s.send(bytes(8000))
                with pytest.raises(OSError, match="Message too long"):  # the router's ICMP has said what fits
                    for _ in range(10):
                        s.recv(10)
            assert up.sum("rx") == before
        for family, port in ((4, 7710), (6, 7711)):
            c, s = traffic.accept_pair(up.client, up.inside, up.target(family), port)
            for sender, receiver in ((c, s), (s, c)):
                sent, got = traffic.transfer(sender, receiver, 1 << 20, timeout=20)
                assert sent == got
            c.close()
            s.close()
        assert up.sum("rx") > before and lost(up.path()) == 0


@several
def test_mtu_changes():
    """Sockets and frames are made anew for what the devices are now, and what was there goes on."""
    with Router("native", policy(default=DENY_ALL)) as up:
        up.ready()
        with traffic.Servers(up.inside, udp=[7700]):
            assert echoed(up.client, up.target(4), 1400)
            for ns, device in ((up.client, "wire0"), (up.router, "up0"), (up.router, "in0"), (up.inside, "eth9")):
                ns.ip(f"link set {device} mtu {JUMBO}")
            wait_for(lambda: up.path()["state"] == "live" and echoed(up.client, up.target(4), 8900, tries=1), 20, what=f"jumbo: {up.path()}")
            before = up.sum("several")
            assert echoed(up.client, up.target(4), 8900)
            assert up.sum("several") >= before + 2


@several
@pytest.mark.parametrize("gro", ["on", "off"])
def test_redirect(backend, gro):  # noqa: F811
    """By XDP itself, where the device takes frames in several buffers: a veth whose other end has GRO on. The others' are the kernel's."""
    with Router(backend, policy(default=DENY_ALL), way="redirect", topology={"inside_mtu": JUMBO, "outer_mtu": JUMBO}) as up:
        for ns, device in ((up.client, "wire0"), (up.inside, "eth9")):
            ns.run("ethtool", "-K", device, "gro", gro)
        way = "redirect" if gro == "on" else "kernel"
        wait_for(lambda: [d["way"] for d in up.path()["devices"]] == [way] * 2, 15, what=f"{way}: {up.path()}")
        assert [(d["multiBuffer"], d["mtuLimit"]) for d in up.path()["devices"]] == [(gro == "on", None)] * 2
        both_ways(up.client, up.inside, (up.target(4), up.target(6)))
        moved = sum(d["redirected"] for d in up.path()["devices"])
        if gro == "on":
            assert moved > 4 * (8 << 20) // JUMBO and up.path()["passed"] == 0
        else:
            assert moved == 0


class Jumbo(Plane):
    """Veths and uplink with a large MTU."""

    def _build(self, ports, networks, policies, uplink, spec):
        super()._build(ports, networks, policies, uplink, spec)
        self.outside.ip(f"link set wire0 mtu {JUMBO}")
        self.ns.ip(f"link set up0 mtu {JUMBO}")
        for name, end in self.ends.items():
            if name.startswith("port"):
                end.ns.ip(f"link set eth0 mtu {JUMBO}")
                self.ns.ip(f"link set {name} mtu {JUMBO}")


@several
def test_ports():
    """Veths of workloads: checksums that they leave to their device are completed over all pieces; from a port to another and by an uplink."""
    with Jumbo(ports=("port1", "port2")) as plane:
        wait_for(lambda: plane.path()["state"] == "live" and all(d["reason"] is None for d in plane.path()["devices"]), 20, what=f"live: {plane.path()}")
        for near, far in (("port1", "port2"), ("up0", "port1"), ("port2", "up0")):
            before = plane.sockets("several")
            a, (b, *addresses) = plane.far(near)[0], plane.far(far)
            both_ways(a, b, addresses, port=7800)
            after = plane.sockets("several")
            for device in (near, far):
                assert after[device] - before[device] > 100, (near, far, device, plane.path())
        path = plane.path()
        assert lost(path) == 0, path
        assert {d["mtuLimit"] for d in path["devices"]} == {65266, 65258}
        checksums = plane.sockets("checksums")
        assert checksums["port1"] > 1000 and checksums["port2"] > 1000, checksums


@several
def test_ports_back_and_forth():
    """Small answers to large requests and the other way round, in one flow: none overtakes another."""
    with Jumbo(ports=("port1", "port2"), uplink=False, workers=2) as plane:
        wait_for(lambda: plane.path()["state"] == "live" and all(d["reason"] is None for d in plane.path()["devices"]), 20, what=f"live: {plane.path()}")
        (near, *_), (far, *addresses) = plane.far("port1"), plane.far("port2")
        for n, address in enumerate(addresses):
            c, s = traffic.accept_pair(near, far, address, 7900 + n)
            for _ in range(200):
                exchange(c, s)
            c.close()
            s.close()
        assert lost(plane.path()) == 0


def test_without():
    """Where the kernel has none, a device with a larger MTU than a frame holds takes no part, and why is said."""
    if SEVERAL:
        pytest.skip("this kernel has AF_XDP sockets for packets in several frames")
    with Router("native", policy(default=DENY_ALL), topology={"inside_mtu": JUMBO}) as up:
        wait_for(lambda: up.path()["devices"][1]["reason"], 15, what=f"a reason: {up.path()}")
        path = up.path()
        assert not path["multiBuffer"] and "Linux 6.6" in path["devices"][1]["reason"]
        assert path["devices"][1]["mtuLimit"] == 3826


def test_more_than_any_number_of_frames():
    """The largest that 17 frames hold is stated."""
    with Router("native", policy(default=DENY_ALL)) as up:
        up.ready()
        for ns, device in ((up.router, "in0"), (up.inside, "eth9")):
            if ns.run("ip", "link", "set", device, "mtu", "65400", check=False).returncode:
                pytest.skip("the veth takes no such MTU")
        wait_for(lambda: up.path()["devices"][1]["reason"], 15, what=f"a reason: {up.path()}")
        assert "65266" in up.path()["devices"][1]["reason"] if SEVERAL else "3826" in up.path()["devices"][1]["reason"]


# --- consumers ---


class Served(Up):
    """The client and the guarded server, with a large MTU."""

    def __init__(self, kind, *documents):
        super().__init__(kind, docs=[ALLOW], config_docs=documents or [fast_path()], mtu=JUMBO)
        self.client.run("ethtool", "-K", "wire0", "tx", "off")

    def echoes(self, size, **kwargs):
        return echoed(self.client, self.server4, size, port=7, **kwargs)


@several
def test_consumer(backend):  # noqa: F811
    """A consumer that asks has packets in several frames, and sends them back as it got them."""
    with Served(backend) as up:
        consumer = Consumer(up, up.server, "echo", options=["-j"])
        assert "up to 17 a packet" in consumer.text()
        assert up.wait_phase("live")["pieces"] == 17
        for size in SIZES:
            assert up.echoes(size), size
        path = up.path()
        assert path["taken"] >= len(SIZES) and path["passed"] == path["tooBig"] == 0, path
        assert consumer.end() == 0
        assert consumer.number("received") == consumer.number("transmitted") > 3 * len(SIZES)
        assert up.wait_phase("idle")["pieces"] is None


@several
def test_consumer_does_not_ask(backend):  # noqa: F811
    """What is longer than a frame goes by the fallback, counted, and the rest is the consumer's; one that asks may come after it, and one that does not."""
    with Served(backend) as up, up.server.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("", 7))
        s.settimeout(5)
        for options in ([], ["-j"], []):
            consumer = Consumer(up, up.server, "echo", options=options)
            before = up.wait_phase("live")
            assert before["pieces"] == (17 if options else 1)
            assert up.echoes(1400)
            if options:
                assert up.echoes(8900)
            else:
                for size in (1800, 8900):
                    with up.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as c:
                        c.sendto(bytes(size), (up.server4, 7))
                    assert len(s.recv(65536)) == size
                after = up.path()
                assert after["tooBig"] - before["tooBig"] == after["passed"] - before["passed"] == 2, after
                assert after["sockets"][0]["dropped"] == 0
            assert consumer.end() == 0
            up.wait_phase("idle")


@several
def test_agent_restarts(backend):  # noqa: F811
    """The consumer keeps what it has asked for, and the next agent knows of it."""
    with Served(backend) as up:
        consumer = Consumer(up, up.server, "echo", options=["-j"])
        assert up.echoes(8900)
        up.daemon.restart()
        assert up.echoes(8900)
        assert up.wait_phase("live")["pieces"] == 17
        assert up.echoes(8900)
        up.daemon.kill()
        assert up.echoes(8900)
        up.daemon.start()
        assert up.wait_phase("live")["pieces"] == 17 and up.echoes(8900)
        assert consumer.end() == 0


class Frame(ctypes.Structure):
    """struct heddle_fastpath_frame"""

    _fields_ = [("data", ctypes.c_void_p), ("length", ctypes.c_uint32), ("queue", ctypes.c_uint32), ("address", ctypes.c_uint64)]


MORE = 1 << 63  # HEDDLE_FASTPATH_MORE


class Library:
    """libheddle-fastpath, in this process, with one fast path open."""

    def __init__(self, up, options):
        self.lib = ctypes.CDLL(os.path.join(BUILD, "libheddle-fastpath.so"))
        self.handle = ctypes.c_void_p()
        r = self.lib.heddle_fastpath_open_with(up.daemon.run_dir.encode(), b"echo", options, ctypes.byref(self.handle))
        if r:
            raise OSError(-r, os.strerror(-r))

    def frames(self, packet, cuts):
        """The packet in frames that end at these bytes, and at its end."""
        frames = (Frame * (len(cuts) + 1))()
        assert self.lib.heddle_fastpath_allocate(self.handle, 0, frames, len(frames)) == len(frames)
        for frame, begin, end in zip(frames, [0, *cuts], [*cuts, len(packet)]):
            ctypes.memmove(frame.data, packet[begin:end], end - begin)
            frame.length = end - begin
            frame.address |= MORE if end != len(packet) else 0
        return frames

    def transmit(self, *frames):
        return self.lib.heddle_fastpath_transmit(self.handle, (Frame * len(frames))(*frames), len(frames))

    def release(self, *frames):
        return self.lib.heddle_fastpath_release(self.handle, (Frame * len(frames))(*frames), len(frames))

    def close(self):
        self.lib.heddle_fastpath_close(self.handle)


@several
def test_library():
    """All of a packet is sent or none: what is no packet is refused, and its frames are still the caller's."""
    from scapy.all import IP, UDP, Ether, Raw  # pylint: disable=import-outside-toplevel

    text = os.urandom(8000)
    with Served("native") as up, up.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("", 4007))
        s.settimeout(5)
        with pytest.raises(OSError, match="Invalid argument"):
            Library(up, 2)
        one = Library(up, 0)
        assert one.lib.heddle_fastpath_pieces(one.handle) == 1
        assert echo_of_nothing(one, 1) == 0
        head = bytes(Ether(src=up.net.link.b_mac, dst=up.net.link.a_mac) / IP(src=up.server4, dst=up.client4, flags="DF") / UDP(sport=7, dport=4007) / Raw(text))
        a, b = one.frames(head[:3000], [1500])
        assert one.transmit(a, b) == -errno.EINVAL and one.release(a, b) == 0
        one.close()
        up.wait_phase("idle")
        path = Library(up, 1)
        assert path.lib.heddle_fastpath_pieces(path.handle) == 17
        assert echo_of_nothing(path, 16) == -errno.EINVAL and echo_of_nothing(path, 17) == 0
        frames = path.frames(head, [1999, 2000, 3777, 5777, 7777])  # of odd lengths, of one byte
        elsewhere = Frame(frames[1].data, frames[1].length, 1, frames[1].address)
        empty = Frame(frames[1].data, 0, 0, frames[1].address)
        short = Frame(frames[0].data, 13, 0, frames[0].address)
        for bad in ((frames[0],), frames[:-1], (frames[0], elsewhere, *frames[2:]), (frames[0], empty, *frames[2:]), (short, *frames[1:]),
                    (frames[0], frames[1], frames[1], *frames[2:])):
            assert path.transmit(*bad) == -errno.EINVAL, bad
        many = path.frames(head, [1000 + 10 * n for n in range(17)])
        assert path.transmit(*many) == -errno.EINVAL and path.release(*many) == 0
        # what stands before it is sent
        assert path.transmit(*frames, *path.frames(head, [2000])[:1]) == len(frames)
        assert s.recv(65536) == text
        assert path.transmit(*frames) == -errno.EINVAL  # not the caller's any more
        assert path.transmit(*path.frames(head, [1000 + 1000 * n for n in range(8)])) == 9
        assert s.recv(65536) == text
        assert up.path()["sockets"][0]["invalid"] == 0
        path.close()


def echo_of_nothing(library, n):
    return library.lib.heddle_fastpath_receive(library.handle, (Frame * n)(), n)


@several
def test_hung_with_all_frames():
    """Who keeps all frames, so that packets of several find too few, is taken for hung, too."""
    with Served("native", fast_path(stall="1s", memory={"frames": 64})) as up, up.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        path = Library(up, 1)
        frames = (Frame * 64)()
        for _ in range(40):
            s.sendto(bytes(8000), (up.server4, 7))
        got = path.lib.heddle_fastpath_receive(path.handle, frames, 64)
        rest = (Frame * 64)()
        path.lib.heddle_fastpath_allocate(path.handle, 0, rest, 64)
        assert got >= 30

        def hung():
            s.sendto(bytes(8000), (up.server4, 7))
            path.lib.heddle_fastpath_receive(path.handle, frames, 64)
            return up.path()["hung"] == 1

        wait_for(hung, 15, what=f"taken for hung: {up.path()}")
        path.close()


def wide(up):
    up.ns.ip(f"link set sw1 mtu {JUMBO}", f"link set sw0 mtu {JUMBO}", f"link set {up.a.device} mtu {JUMBO}")
    up.a.ns.ip(f"link set eth0 mtu {JUMBO}")


@several
def test_port():
    """At the far end of a port's veth."""
    with PortUp(memory={"frameSize": 4096}) as up:
        wide(up)
        wait_for(lambda: up.path("switch")["state"] == "idle", 5, what="the fast path")
        consumer = Consumer(up, up.ns, "switch", options=["-j"])
        for size in SIZES:
            assert echoed(up.a.ns, "10.77.0.5", size, port=7), (size, up.path("switch"))
        assert up.path("switch")["sockets"][0]["mode"] == "copy"
        assert consumer.end() == 0


@several
def test_forwarder():
    """Between two fast paths of one consumer, whose memories are two."""
    with PortUp(memory={"frameSize": 4096}) as up:
        far = Namespace("far")
        try:
            wide(up)
            up.ns.ip(f"link add fw0 mtu {JUMBO} type veth peer name fw1 netns {far.name} mtu {JUMBO} address {SWITCH_MAC}", "link set fw0 up")
            far.ip("link set fw1 up", "addr add 10.77.0.5/24 dev fw1", f"neigh replace 10.77.0.1 lladdr {up.a.mac} dev fw1")
            far.run("ethtool", "-K", "fw1", "tx", "off")
            wire = fast_path("wire", uplink="fw0", match=[{}], memory={"frameSize": 4096})
            up.daemon.put("00-host.yaml", doc.host("fw0", "native", pickupSeconds=0), policy(default={"ingress": "allow", "egress": "allow"}), wire)
            wait_for(lambda: up.path("wire")["state"] == "idle", 5, what="the fast path of the uplink")
            consumer = Consumer(up, up.ns, "switch", "wire", program=ECHO.replace("echo", "forward"), options=["-j"])
            with traffic.Servers(far, udp=[7]):
                for size in SIZES:
                    assert echoed(up.a.ns, "10.77.0.5", size, port=7), size
            assert consumer.end() == 0, consumer.text()
        finally:
            far.delete()


@several
@pytest.mark.parametrize("what", ["chains", "unasked"])
def test_hostile(backend, what):  # noqa: F811
    """Packets without an end, with nonsense in their middle, of too many frames: the kernel drops them, and nobody else notices."""
    with Served(backend) as up:
        for _ in range(3):
            bad = Hostile(up, up.server, "echo", what)
            assert up.path()["sockets"][0]["invalid"] >= 5, up.path()
            assert up.daemon.process.poll() is None
            bad.end()
            up.wait_phase("idle")
        consumer = Consumer(up, up.server, "echo", options=["-j"])
        for size in SIZES:
            assert up.echoes(size), size
        assert consumer.end() == 0
