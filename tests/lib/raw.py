# SPDX-License-Identifier: Apache-2.0
"""Hand-made frames in and out, and witnesses of what really arrived."""

import errno
import logging
import os
import select
import socket
import struct
import subprocess
import tempfile
import time

logging.getLogger("scapy").setLevel(logging.ERROR)
# pylint: disable=wrong-import-position
from scapy.layers.inet import ICMP, IP, TCP, UDP  # noqa: E402
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6  # noqa: E402
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether  # noqa: E402
from scapy.packet import Raw  # noqa: E402

from .netns import PATIENCE  # noqa: E402

__all__ = ["ARP", "Capture", "Dot1AD", "Dot1Q", "Ether", "ICMP", "ICMPv6EchoRequest", "IP", "IPv6", "Raw", "TCP", "UDP", "Wire", "LocalWitness", "drain"]

ETH_P_ALL = 0x0003
SOL_PACKET = 263
PACKET_IGNORE_OUTGOING = 23
PACKET_OUTGOING = 4


class Wire:
    """
    An AF_PACKET socket on a device: sends frames as they are, and sees the frames that come in (not what the namespace
    itself sends). On the far side of a veth it is the witness of what left the guarded host. On the guarded device
    itself it taps ahead of TC, so it is no witness there: use LocalWitness.
    """

    def __init__(self, ns, device):
        self.ns, self.device = ns, device
        with ns:
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self.socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            self.socket.bind((device, ETH_P_ALL))
        self.socket.setblocking(False)

    def send(self, frame):
        try:
            self.socket.send(bytes(frame))
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # how a drop at TC egress is told to the sender
                raise

    def frames(self, timeout=0.0):
        """Every frame waiting now; with a timeout, waits that long for the first."""
        result = drain(self.socket)
        if not result and timeout:
            select.select([self.socket], [], [], timeout)
            result = drain(self.socket)
        return result

    def wait_frame(self, match, timeout=15.0):
        """The first frame (as scapy Ether) for which match(packet) is true; None when none came in time. A time is for those that are not to come."""
        deadline = time.monotonic() + timeout
        while True:
            for frame in drain(self.socket):
                packet = Ether(frame)
                if match(packet):
                    return packet
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            select.select([self.socket], [], [], left)

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def drain(sock):
    result = []
    while True:
        try:
            result.append(sock.recv(65536))
        except BlockingIOError:
            return result


class Capture:
    """tcpdump: a witness that shows VLAN tags too, which packet sockets see beside the frame."""

    def __init__(self, ns, device, *filters):
        # With the default length of a packet its ring has eight places, and a burst is lost
        argv = ["tcpdump", "-i", device, "-e", "-n", "-l", "--immediate-mode", "-s", "2048", "-B", "8192", *filters]
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as f:
            self.output = os.fdopen(os.dup(f.fileno()), encoding="utf-8", errors="replace")
            self.process = ns.popen(*argv, stdout=f, stderr=subprocess.PIPE, text=True)
        while "listening on" not in self.process.stderr.readline():
            assert self.process.poll() is None

    def _sleeps(self):
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as f:
            return f.read().rpartition(")")[2].split()[0] == "S"

    def lines(self):
        """What it saw until now: it sleeps once nothing is left in its ring, and what is there when it is ended would be lost."""
        deadline = time.monotonic() + 10 * PATIENCE
        asleep = 0
        while asleep < 3 and time.monotonic() < deadline:
            asleep = asleep + 1 if self._sleeps() else 0
            time.sleep(0.01)
        self.process.terminate()
        self.process.communicate(timeout=10)
        with self.output:
            self.output.seek(0)
            return [line for line in self.output.read().splitlines() if line]


class LocalWitness:
    """
    What the host's own stack received, past every hook of XDP and TC: raw sockets, one a protocol and family. received()
    returns payload bytes behind the IP header, keyed by nothing: packets are told apart by a mark in their payload.
    """

    def __init__(self, ns, protocols4, protocols6):
        self.sockets = []
        for family, protocols in ((socket.AF_INET, protocols4), (socket.AF_INET6, protocols6)):
            for protocol in protocols:
                s = ns.socket(family, socket.SOCK_RAW, protocol)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
                s.setblocking(False)
                self.sockets.append(s)

    def received(self, timeout=0.0):
        result = []
        if timeout:
            select.select(self.sockets, [], [], timeout)
        for s in self.sockets:
            result += drain(s)
        return result

    def saw(self, mark, timeout):
        """True as soon as a packet with the mark arrived; False when the time is over."""
        deadline = time.monotonic() + timeout
        while True:
            if any(mark in data for data in self.received()):
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            select.select(self.sockets, [], [], left)

    def close(self):
        for s in self.sockets:
            s.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
