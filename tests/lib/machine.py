# SPDX-License-Identifier: Apache-2.0
"""A virtual machine behind a tap, as the host sees one: frames with virtio-net headers, checksums left open, segments of up to 64 KiB."""

import fcntl
import os
import select
import struct
import threading

from .netns import Namespace

TUNSETIFF, TUNSETOFFLOAD, TUNSETVNETHDRSZ = 0x400454CA, 0x400454D0, 0x400454D8
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 2, 0x1000, 0x4000
OFFLOADS = 1 | 2 | 4  # TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6
HEADER = 10
NEEDS_CSUM, DATA_VALID = 1, 2


def open_tap(ns, device):
    with ns:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
        fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", HEADER))
        fcntl.ioctl(fd, TUNSETOFFLOAD, OFFLOADS)
    return fd


class Machine:
    """
    The kernel of `ns` is the guest's: its eth0 is a tap too, whose frames, with the headers that virtio-net would have given them, are carried to the
    tap `device` of the host by a thread, which so does what a VMM does.
    """

    def __init__(self, host, number):
        self.host, self.device, self.ns = host, f"vm{number}", Namespace("vm")
        self.mac = f"02:00:00:01:00:{number:02x}"
        self.fds = []
        try:
            self.fds = [open_tap(host, self.device), open_tap(self.ns, "eth0")]
            host.ip(f"link set {self.device} up")
            self.ns.ip(f"link set eth0 address {self.mac} up")
        except BaseException:
            self._release()
            raise
        self.large, self.unsummed, self.to_guest = 0, 0, [0, 0, 0]
        self._stop_r, self._stop_w = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        host, guest = self.fds
        while True:
            ready, _, _ = select.select([host, guest, self._stop_r], [], [])
            if self._stop_r in ready:
                return
            for fd in ready:
                for _ in range(64):
                    try:
                        frame = os.read(fd, 1 << 17)
                    except (BlockingIOError, OSError):
                        break
                    if fd == guest:
                        self.large += frame[1] != 0
                        self.unsummed += frame[0] & NEEDS_CSUM
                    else:
                        self.to_guest[frame[0] & 3 if frame[0] & 3 < 3 else 0] += 1
                    self.write(frame, guest if fd == host else host)

    def write(self, frame, fd=None):
        """With its header, as if the machine had sent it. False: the kernel refused it."""
        try:
            os.write(self.fds[0] if fd is None else fd, frame)
            return True
        except OSError:
            return False

    def address(self, *cidrs):
        self.ns.ip(*[f"addr add {c} dev eth0" + (" nodad" if ":" in c else "") for c in cidrs])

    def via(self, *gateways):
        for g in gateways:
            self.ns.run("ip", "-6" if ":" in g else "-4", "route", "add", "default", "via", g, "dev", "eth0")

    def _release(self):
        for fd in self.fds:
            os.close(fd)
        self.fds = []
        self.ns.delete()

    def close(self):
        if self.fds:
            os.write(self._stop_w, b"x")
            self._thread.join()
            os.close(self._stop_r)
            os.close(self._stop_w)
            self._release()
