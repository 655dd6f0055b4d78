# SPDX-License-Identifier: Apache-2.0
"""Network namespaces and the topologies that tests use.

Names are hdt-PID-N-ROLE: two runs at the same time do not meet, and a later run can tell what a dead one left behind.
"""

import contextlib
import ctypes
import functools
import itertools
import os
import re
import signal
import socket
import subprocess

CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
NETNS_DIR = "/run/netns"
PREFIX = "hdt"
PATIENCE = int(os.environ.get("HEDDLE_PATIENCE", "1"))  # how many times as long everything may take: guests under emulation

_libc = ctypes.CDLL(None, use_errno=True)
_counter = itertools.count(1)


def setns(fd):
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def die_with_parent():
    """For preexec_fn: a crashed test run must not leave processes behind."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def pid_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def unique(role):
    return f"{PREFIX}-{os.getpid()}-{next(_counter)}-{role}"


class Namespace:
    """One network namespace. `with ns:` moves the calling thread into it; sockets made there stay there."""

    def __init__(self, role):
        self.name = unique(role)
        self.path = f"{NETNS_DIR}/{self.name}"
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        self.fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        self._back = []
        self.sysctl("net.ipv6.conf.all.accept_dad", 0)
        self.sysctl("net.ipv6.conf.default.accept_dad", 0)
        # A router solicitation or a report at a random moment would be a packet that no test sent.
        self.sysctl("net.ipv6.conf.default.accept_ra", 0)
        self.sysctl("net.ipv4.icmp_ratelimit", 0)
        self.sysctl("net.ipv6.icmp.ratelimit", 0)
        self.ip("link set lo up")

    def delete(self):
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            subprocess.run(["ip", "netns", "delete", self.name], check=False, stderr=subprocess.DEVNULL)

    def __enter__(self):
        self._back.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        setns(self.fd)
        return self

    def __exit__(self, *exc):
        fd = self._back.pop()
        setns(fd)
        os.close(fd)

    def _enter_child(self):
        setns(self.fd)
        die_with_parent()

    def popen(self, *argv, **kwargs):
        # A child made with setns keeps the mount namespace, and so every bpffs; `ip netns exec` would hide them.
        return subprocess.Popen([str(a) for a in argv], preexec_fn=self._enter_child, **kwargs)

    def run(self, *argv, check=True, timeout=30, text=True, **kwargs):
        result = subprocess.run(
            [str(a) for a in argv],
            preexec_fn=self._enter_child,
            timeout=timeout * PATIENCE,
            text=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **kwargs,
        )
        if check and result.returncode != 0:
            raise AssertionError(f"{' '.join(map(str, argv))}: status {result.returncode}\n{result.stdout}{result.stderr}")
        return result

    def ip(self, *commands):
        """Each argument is one `ip` command without the leading `ip`."""
        subprocess.run(
            ["ip", "-n", self.name, "-batch", "-"], input="\n".join(commands) + "\n", text=True, check=True, stdout=subprocess.DEVNULL
        )

    def sysctl(self, key, value):
        with self:
            try:
                with open("/proc/sys/" + key.replace(".", "/"), "w", encoding="ascii") as f:
                    f.write(str(value))
            except FileNotFoundError:
                pass  # not a per-namespace knob of this kernel: the default is what every test runs with

    def socket(self, family=socket.AF_INET, kind=socket.SOCK_STREAM, proto=0):
        with self:
            return socket.socket(family, kind, proto)

    def ifindex(self, device):
        with self:
            return socket.if_nametoindex(device)


def _mac(index, side):
    return f"02:68:64:{index >> 8 & 0xff:02x}:{index & 0xff:02x}:{side:02x}"


class Link:
    """A veth pair between two namespaces with fixed MAC addresses, static neighbours and both families."""

    def __init__(self, a, a_dev, b, b_dev, number, mtu=1500, neighbours=True):
        self.a, self.b, self.a_dev, self.b_dev, self.number = a, b, a_dev, b_dev, number
        self.mtu = mtu
        self.neighbours = neighbours
        self.a4, self.b4 = f"10.66.{number}.1", f"10.66.{number}.2"
        self.a6, self.b6 = f"fd66:{number}::1", f"fd66:{number}::2"
        self.a_mac, self.b_mac = _mac(number, 1), _mac(number, 2)
        self.create()

    def create(self):
        subprocess.run(
            ["ip", "link", "add", "name", self.a_dev, "netns", self.a.name, "address", self.a_mac, "mtu", str(self.mtu), "type", "veth"]
            + ["peer", "name", self.b_dev, "netns", self.b.name, "address", self.b_mac, "mtu", str(self.mtu)],
            check=True,
        )
        for ns, dev, ip4, ip6, far4, far6, far_mac in (
            (self.a, self.a_dev, self.a4, self.a6, self.b4, self.b6, self.b_mac),
            (self.b, self.b_dev, self.b4, self.b6, self.a4, self.a6, self.a_mac),
        ):
            commands = [f"addr add {ip4}/24 dev {dev}", f"addr add {ip6}/64 dev {dev} nodad", f"link set {dev} up"]
            ns.ip(*commands)
            if self.neighbours:
                ns.ip(f"neigh replace {far4} lladdr {far_mac} dev {dev}", f"neigh replace {far6} lladdr {far_mac} dev {dev}")

    def delete(self):
        self.b.ip(f"link delete {self.b_dev}")


class Pair:
    """client (wire0) --- server (up0): the server is the guarded host, up0 its uplink."""

    uplink = "up0"

    def __init__(self, mtu=1500, neighbours=True):
        self.stack = contextlib.ExitStack()
        self.client = Namespace("client")
        self.stack.callback(self.client.delete)
        self.server = Namespace("server")
        self.stack.callback(self.server.delete)
        self.link = Link(self.client, "wire0", self.server, self.uplink, 1, mtu, neighbours)
        self.client_dev = "wire0"
        self.client4, self.server4 = self.link.a4, self.link.b4
        self.client6, self.server6 = self.link.a6, self.link.b6
        self.client_mac, self.server_mac = self.link.a_mac, self.link.b_mac

    def server_address(self, family):
        return self.server4 if family == 4 else self.server6

    def client_address(self, family):
        return self.client4 if family == 4 else self.client6

    def close(self):
        self.stack.close()


class Routed:
    """client (wire0) --- (up0) router (in0) --- (eth9) inside. The router is the guarded host."""

    uplink = "up0"

    def __init__(self, inside_mtu=1500, outer_mtu=1500):
        self.stack = contextlib.ExitStack()
        self.client, self.router, self.inside = Namespace("client"), Namespace("router"), Namespace("inside")
        for ns in (self.client, self.router, self.inside):
            self.stack.callback(ns.delete)
        self.outer = Link(self.client, "wire0", self.router, "up0", 1, mtu=outer_mtu)
        self.inner = Link(self.router, "in0", self.inside, "eth9", 2, mtu=inside_mtu)
        self.client.ip(f"route add 10.66.2.0/24 via {self.outer.b4}", f"route add fd66:2::/64 via {self.outer.b6}")
        self.inside.ip(f"route add 10.66.1.0/24 via {self.inner.a4}", f"route add fd66:1::/64 via {self.inner.a6}")
        self.router.sysctl("net.ipv4.ip_forward", 1)
        self.router.sysctl("net.ipv6.conf.all.forwarding", 1)

    def close(self):
        self.stack.close()


class Behind(Routed):
    """The same three, and the one behind the router is the guarded host."""

    uplink = "eth9"

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.server = self.inside


DEVICES = {
    "geneve": "probe type geneve id 1 remote 192.0.2.1",
    "vlan": "link wire0 name probe type vlan id 5",
    "vrf": "probe type vrf table 7",
    "bond": "probe type bond",
}


@functools.lru_cache
def has_device(kind):
    """Whether this kernel makes devices of this kind: tried."""
    try:
        ns = Namespace("probe")
    except subprocess.CalledProcessError:
        return False  # not as root
    try:
        ns.ip("link add wire0 type veth peer name wire1")
        return ns.run("ip", "link", "add", *DEVICES[kind].split(), check=False).returncode == 0
    finally:
        ns.delete()


def sweep_dead_runs():
    """Removes the namespaces of test runs that died without cleaning up."""
    if not os.path.isdir(NETNS_DIR):
        return
    for name in os.listdir(NETNS_DIR):
        match = re.match(rf"{PREFIX}-(\d+)-", name)
        if match and not pid_alive(int(match.group(1))):
            subprocess.run(["ip", "netns", "delete", name], check=False, stderr=subprocess.DEVNULL)
