# SPDX-License-Identifier: Apache-2.0
"""One host with a daemon, and workloads in namespaces of their own, each behind a veth (or a tap)."""

import contextlib
import fcntl
import os
import select
import socket
import struct
import subprocess
import threading

from . import documents as doc
from . import heddled
from .netns import Namespace
from .raw import checksum

GATEWAY_MAC = "02:68:65:64:64:6c"


class Workload:
    """eth0 in a namespace of its own; `device` is the host's side."""

    def __init__(self, host, number, role="work"):
        self.host, self.number = host, number
        self.ns = Namespace(role)
        self.device = f"port{number}"
        self.mac = f"02:00:00:00:{number >> 8:02x}:{number & 0xff:02x}"
        self.create()

    def create(self):
        subprocess.run(
            ["ip", "link", "add", "name", self.device, "netns", self.host.name, "type", "veth"]
            + ["peer", "name", "eth0", "netns", self.ns.name, "address", self.mac],
            check=True,
        )
        self.host.ip(f"link set {self.device} up")
        self.ns.ip("link set eth0 up")

    def delete_device(self):
        self.host.ip(f"link delete {self.device}")

    def address(self, *cidrs):
        self.ns.ip(*[f"addr add {c} dev eth0" + (" nodad" if ":" in c else "") for c in cidrs])

    def route(self, *words):
        self.ns.run("ip", "-6" if any(":" in w for w in words) else "-4", "route", "add", *words, "dev", "eth0")

    def address_l3(self, addresses, gateways):
        """As a CNI does it: host addresses, and everything else by the gateway."""
        for a, gateway in zip(addresses, gateways):
            self.address(f"{a}/{128 if ':' in a else 32}")
            self.route(gateway)
            self.route("default", "via", gateway)

    def via(self, *gateways):
        for g in gateways:
            self.route("default", "via", g)

    def close(self):
        self.ns.delete()


class Tap:
    """A tap on the host whose other end is this process: echoes are answered, everything that arrives is kept."""

    TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 2, 0x1000

    def __init__(self, host, device, mac, address):
        self.device, self.mac, self.address = device, mac, address
        self.frames = []
        with host:
            self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            fcntl.ioctl(self.fd, self.TUNSETIFF, struct.pack("16sH22x", device.encode(), self.IFF_TAP | self.IFF_NO_PI))
        host.ip(f"link set {device} up")
        self._stop_r, self._stop_w = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while True:
            ready, _, _ = select.select([self.fd, self._stop_r], [], [])
            if self._stop_r in ready:
                return
            try:
                frame = os.read(self.fd, 65536)
            except OSError:
                return
            self.frames.append(frame)
            if frame[12:14] == b"\x08\x00" and frame[23] == 1 and frame[34] == 8 and frame[30:34] == socket.inet_aton(self.address):
                self.send(self._echo_reply(frame))

    def _echo_reply(self, frame):
        icmp = b"\0\0\0\0" + frame[38 : 14 + int.from_bytes(frame[16:18], "big")]
        icmp = icmp[:2] + checksum(icmp).to_bytes(2, "big") + icmp[4:]
        return frame[6:12] + frame[0:6] + frame[12:26] + frame[30:34] + frame[26:30] + icmp

    def send(self, frame):
        os.write(self.fd, frame)

    def close(self):
        if self.fd >= 0:
            os.write(self._stop_w, b"x")
            self._thread.join()
            for fd in (self.fd, self._stop_r, self._stop_w):
                os.close(fd)
            self.fd = -1


class PortHost:
    """A host namespace with heddled; add() makes workloads, documents are applied by the test."""

    def __init__(self, docs=(), env=None, start=True, host_spec=None, options=()):
        self.stack = contextlib.ExitStack()
        self.workloads = []
        self.ns = Namespace("host")
        self.stack.callback(self.ns.delete)
        spec = {"pickupSeconds": 0, "uplinks": [], **(host_spec or {})}
        try:
            self.daemon = heddled.Heddled(self.ns, [doc.document("Host", "host", spec), *docs], env=env, options=options)
            self.stack.callback(self.daemon.remove)
            if start:
                self.daemon.start()
        except BaseException:
            self.close()
            raise

    def add(self, count=1):
        made = []
        for _ in range(count):
            made.append(Workload(self.ns, len(self.workloads) + 1))
            self.workloads.append(made[-1])
            self.stack.callback(made[-1].close)
        return made[0] if count == 1 else made

    def port(self, name):
        namespace, _, name = name.rpartition("/")
        for p in self.daemon.status()["ports"]:
            if p["name"] == name and p["namespace"] == (namespace or "default"):
                return p
        return None

    def wait_port(self, name, state="ready", timeout=5, **fields):
        def there():
            p = self.port(name)
            return p and p["state"] == state and all(p[k] == v for k, v in fields.items()) and p

        return heddled.wait_for(there, timeout, what=f"port {name} is {state} {fields}")

    def dump(self, name):
        """The rows of a pinned map as bpftool shows them."""
        return [r.get("formatted", r) for r in self.daemon.bpftool("map", "dump", "pinned", f"{self.daemon.bpffs}/heddle/maps/{name}")]

    def forget(self, name):
        """Every row of a pinned map."""
        path = f"{self.daemon.bpffs}/heddle/maps/{name}"
        for row in self.daemon.bpftool("map", "dump", "pinned", path):
            self.daemon.bpftool("map", "delete", "pinned", path, "key", "hex", *(byte.removeprefix("0x") for byte in row["key"]))

    def close(self):
        self.stack.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
