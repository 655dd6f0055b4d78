# SPDX-License-Identifier: Apache-2.0
"""
Hosts joined by an underlay, and workloads on them that share networks: hosts with heddled, and as far ends that nobody here has written the
kernel's VXLAN or Geneve device on a bridge, and Open vSwitch with its datapath in user space or in the kernel.

    with Fabric(family=6, protocol="geneve") as f:
        one, two = f.heddle(), f.heddle()
        blue = f.network("blue", 100)
        a, b = one.work(blue, 1), two.work(blue, 2)
        f.up()
"""

import contextlib
import errno
import functools
import hashlib
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time

from . import documents as doc
from . import heddled, ports, traffic
from .netns import PATIENCE, Namespace
from .raw import Ether, IP, UDP, IPv6, Wire, checksum

UPLINK = "up0"
PORT = {"vxlan": 4789, "geneve": 6081}
HEADER = 8  # of VXLAN, and of Geneve without options
OUTER = {4: 20 + 8 + HEADER, 6: 40 + 8 + HEADER}  # from the outer IP header to the inner Ethernet header
ETHERNET = 14
OFFLOADS = ("tx", "off", "tso", "off", "gso", "off")


class Network:
    """What all hosts know of a network."""

    def __init__(self, name, vni, net=77, **spec):
        self.name, self.vni, self.net = name, vni, net
        self.net6 = f"fd{net % 100:02}"
        self.gateway = {4: f"10.{net}.0.254", 6: f"{self.net6}::fe"}
        self.spec = {"vni": vni, "subnets": [f"10.{net}.0.0/16", f"{self.net6}::/64"], "gateway": list(self.gateway.values()), **spec}

    @property
    def switched(self):
        return self.spec.get("mode", "l2") == "l2"

    def document(self):
        return doc.network(self.name, **self.spec)


class Work(ports.Workload):
    """A workload of a network, with an address of each family."""

    def __init__(self, host, number, network, last, mtu=1500, labels=None):
        self.mtu = mtu
        super().__init__(host, number)
        self.network, self.last, self.labels = network, last, labels or {}
        self.ip4, self.ip6 = f"10.{network.net}.{last >> 8}.{last & 255}", f"{network.net6}::{last:x}"
        self.name = f"{network.name}-{last}"
        self.setup()

    def create(self):
        super().create()
        self.host.sysctl(f"net.ipv6.conf.{self.device}.disable_ipv6", 1)
        self.host.ip(f"link set {self.device} mtu {self.mtu}")
        self.ns.ip(f"link set eth0 mtu {self.mtu}")

    def setup(self):
        if self.network.switched:
            self.address(f"{self.ip4}/16", f"{self.ip6}/64")
            self.via(*self.network.gateway.values())
        else:
            self.address_l3([self.ip4, self.ip6], self.network.gateway.values())

    def ip(self, family):
        return self.ip4 if family == 4 else self.ip6

    def quiet(self):
        """No offloads: its packets are on the wire as they are, checksums and all."""
        self.ns.run("ethtool", "-K", "eth0", *OFFLOADS)

    def port(self):
        return doc.port(self.name, self.device, self.network.name, labels=self.labels, addresses=[self.ip4, self.ip6])

    def remote(self):
        """As an entry of Peer.spec.ports."""
        entry = {"name": self.name, "network": self.network.name, "mac": self.mac, "addresses": [self.ip4, self.ip6]}
        return {**entry, "labels": self.labels} if self.labels else entry


class End:
    """One host of the fabric: its underlay address, and its workloads."""

    def __init__(self, fabric, number):
        self.fabric, self.number, self.name = fabric, number, f"node-{number}"
        self.works, self.prefixes = [], []
        self.ns = None

    @property
    def address(self):
        return self.fabric.address(self.number)

    def work(self, network, last, mtu=None, labels=None):
        w = Work(self.ns, self.number * 64 + len(self.works) + 1, network, last, mtu or self.fabric.work_mtu, labels)
        self.works.append(w)
        self.fabric.stack.callback(w.close)
        return w

    def peer(self):
        """The Peer document that other hosts have for this one."""
        spec = {"address": self.address}
        if self.works:
            spec["ports"] = [w.remote() for w in self.works]
        if self.prefixes:
            spec["prefixes"] = [{"network": n, "cidr": cidr} for n, cidr in self.prefixes]
        return doc.document("Peer", self.name, spec)

    def witness(self, way=0):
        """Sees every frame that this host sends into the underlay."""
        return self.fabric.witness(self, way)

    def up(self):
        pass

    def settled(self):
        """Every end is up."""

    def close(self):
        pass


class Rig:
    """What a test has made on a fabric, self.fabric: up when it is made, gone with it. build() makes it, settled() may wait for more."""

    def __init__(self, fabric, **options):
        self.fabric = fabric
        try:
            self.build(**options)
            fabric.up()
            self.settled()
        except BaseException:
            fabric.close()
            raise

    def settled(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.fabric.close()


class HeddleEnd(End):
    """A host with heddled. What it is told is one file: documents() may be changed, and put() puts them in force at once."""

    def __init__(self, fabric, number, env=None, xdp="off", uplinks=None, tunnel=None, docs=(), start=True, options=(), **spec):
        super().__init__(fabric, number)
        self.uplinks = uplinks or [UPLINK]
        self.extra, self.own = [], list(docs)  # documents beside those of networks, ports and peers
        self._before = {}
        tunnel = {"protocol": fabric.protocol, "address": self.address, "port": PORT[fabric.protocol], **(tunnel or {})}
        spec = {"uplinks": [{"device": d, "xdp": xdp} for d in self.uplinks], "tunnel": tunnel, **spec}
        self.host = ports.PortHost(start=False, host_spec=spec, env=env, options=options)
        self.ns, self.daemon = self.host.ns, self.host.daemon
        fabric.join(self, *self.uplinks)
        if start:
            self.daemon.start()

    def documents(self):
        ends = [e for e in self.fabric.ends if e is not self]
        networks = [n.document() for n in self.fabric.networks]
        return [*networks, *(w.port() for w in self.works), *(e.peer() for e in ends), *self.own, *self.extra]

    def put(self, *documents, timeout=10):
        """Exactly these documents beside the Host; returns once they are in force."""
        self.daemon.put("50-overlay.yaml", *(documents or self.documents()), timeout=timeout)

    def up(self):
        self.put()
        for w in self.works:
            self.host.wait_port(w.name)

    def settled(self):
        self._before = self.daemon.drops()

    def peers(self, field):
        """A field of each peer's row."""
        return [r["value"][field] for r in self.host.dump("peers") if r["value"]["flags"]]

    def faults(self):
        """
        What was dropped since all hosts were up, but for what a stack sends by itself: when a device comes up, and a RST for a segment that a FIN
        overtook, between two CPUs or paths. That answers numbers from before the FIN, which are outside of every window by then.
        """
        own = ("no-destination", "not-routed", "tcp-window")
        now = {r: n - self._before.get(r, 0) for r, n in self.daemon.drops().items() if r[0] not in own}
        return {r: n for r, n in now.items() if n}

    def drops(self, reason):
        return sum(n for (r, _), n in self.daemon.drops().items() if r == reason)

    def close(self):
        self.host.close()


class KernelEnd(End):
    """
    A bridge for each network, with a VXLAN device, or a Geneve device for each other end. It learns; what it does not know it sends to every
    other end. mtu: of the inner packets, whatever the uplink takes.
    """

    def __init__(self, fabric, number, checksums=False, mtu=None):
        super().__init__(fabric, number)
        self.checksums, self.mtu = checksums, mtu
        self.ns = Namespace("kernel")
        fabric.join(self, UPLINK)

    def up(self):
        ends = [e for e in self.fabric.ends if e is not self]
        for n in self.fabric.networks:
            if self.fabric.family == 4:
                flags = "udpcsum" if self.checksums else "noudpcsum"
            else:
                flags = "udp6zerocsumrx" + ("" if self.checksums else " udp6zerocsumtx")
            br = self.bridge(n)
            tunnels = self.vxlan(n, ends, flags) if self.fabric.protocol == "vxlan" else self.geneve(n, ends, flags)
            self.ns.ip(
                f"link add {br} type bridge",
                *(f"link set {d} addrgenmode none" for d in (*tunnels, br)),  # nobody lives on these
                *(f"link set {d} mtu {self.mtu}" for d in (*tunnels, br) if self.mtu),
                *(f"link set {d} master {br} up" for d in tunnels),
                f"link set {br} up",
                *(f"link set {w.device} master {br}" for w in self.works if w.network is n),
            )
            if self.fabric.protocol == "vxlan":
                for e in ends:
                    self.ns.run("bridge", "fdb", "append", "00:00:00:00:00:00", "dev", tunnels[0], "dst", e.address)
            else:  # what came by one tunnel goes into no other
                self.ns.ip(*(f"link set {d} type bridge_slave isolated on" for d in tunnels))

    @staticmethod
    def bridge(network):
        return f"br{network.vni}"

    def vxlan(self, network, _ends, flags):
        flags += f" dev {UPLINK}" if self.mtu is None else ""
        name = f"vx{network.vni}"
        self.ns.ip(f"link add {name} type vxlan id {network.vni} local {self.address} dstport {PORT['vxlan']} ttl 64 {flags}")
        return [name]

    def geneve(self, network, ends, flags):
        names = {f"gv{network.vni}.{e.number}": e for e in ends}
        for name, e in names.items():
            self.ns.ip(f"link add {name} type geneve id {network.vni} remote {e.address} dstport {PORT['geneve']} ttl 64 {flags}")
        return list(names)

    def learnt(self, network, mac, end):
        """Whether the bridge has the MAC behind that end."""
        if self.fabric.protocol == "vxlan":
            device, entry = f"vx{network.vni}", f"{mac} dst {end.address}"
        else:
            device, entry = f"gv{network.vni}.{end.number}", f"{mac} "
        return entry in self.ns.run("bridge", "fdb", "show", "dev", device).stdout

    def close(self):
        self.ns.delete()


class OvsEnd(End):
    """Open vSwitch, its processes and files its own. datapath: "netdev" is that in user space, "system" that of the kernel."""

    def __init__(self, fabric, number, datapath="netdev"):
        super().__init__(fabric, number)
        self.datapath = datapath
        self.ns = Namespace("ovs")
        fabric.join(self, UPLINK)
        # Packet sockets take frames as they are on the wire: no super-packets, no checksums to be filled in later.
        if datapath == "netdev":
            fabric.plain(self)
        self.dir = tempfile.mkdtemp(prefix=f"{heddled.TMP_PREFIX}{os.getpid()}-")
        self.env = {**os.environ, "OVS_RUNDIR": self.dir, "OVS_DBDIR": self.dir, "OVS_LOGDIR": self.dir, "OVS_SYSCONFDIR": self.dir}
        self.processes = []
        self.server = f"unix:{self.dir}/db.sock"

    @staticmethod
    @functools.lru_cache
    def missing(datapath="netdev"):
        """Why it cannot be had here; None: it can."""
        if not shutil.which("ovs-vswitchd"):
            return "openvswitch-switch is not installed"
        if datapath == "system" and not os.path.isdir("/sys/module/openvswitch"):
            return "this kernel has no Open vSwitch datapath"
        return None

    def run(self, *argv, **kwargs):
        return self.ns.run(*argv, env=self.env, **kwargs)

    def vsctl(self, *argv):
        return self.run("ovs-vsctl", f"--db={self.server}", *argv)

    def ofctl(self, *argv):
        return self.run("ovs-ofctl", "-O", "OpenFlow13", *argv)

    def appctl(self, *argv):
        return self.run("ovs-appctl", "-t", f"{self.dir}/ovs-vswitchd.ctl", *argv).stdout

    def _start(self, *argv):
        with open(f"{self.dir}/{argv[0]}.out", "ab") as out:
            self.processes.append(self.ns.popen(*argv, env=self.env, stdout=out, stderr=out))

    def up(self):
        self.run("ovsdb-tool", "create", f"{self.dir}/conf.db", "/usr/share/openvswitch/vswitch.ovsschema")
        self._start("ovsdb-server", f"{self.dir}/conf.db", f"--remote=punix:{self.dir}/db.sock", f"--unixctl={self.dir}/db.ctl")
        heddled.wait_for(lambda: os.path.exists(f"{self.dir}/db.sock"), what="ovsdb-server")
        self.vsctl("--no-wait", "init")
        system = [] if self.datapath == "system" else ["--disable-system"]
        self._start("ovs-vswitchd", self.server, f"--unixctl={self.dir}/ovs-vswitchd.ctl", *system)
        if self.datapath == "netdev":
            self.underlay()
        self.vsctl("add-br", "br-int", "--", "set", "bridge", "br-int", f"datapath_type={self.datapath}", "fail_mode=secure")
        for w in self.works:
            if self.datapath == "netdev":
                w.quiet()
            self.vsctl("add-port", "br-int", w.device)
        for e in self.fabric.ends:
            if e is not self:
                self.vsctl(
                    "add-port", "br-int", f"tun{e.number}", "--", "set", "interface", f"tun{e.number}", f"type={self.fabric.protocol}",
                    f"options:remote_ip={e.address}", f"options:local_ip={self.address}", "options:key=flow",
                    f"options:dst_port={PORT[self.fabric.protocol]}",
                )  # fmt: skip
        self.flows()

    def underlay(self):
        """A bridge with our address; tunnels find their way out by it."""
        fabric = self.fabric
        bits = 24 if fabric.family == 4 else 64
        self.vsctl(
            "add-br", "br-phy", "--", "set", "bridge", "br-phy", "datapath_type=netdev", f"other_config:hwaddr={fabric.mac(self.number)}",
            "--", "add-port", "br-phy", UPLINK, "--", "set", "interface", "br-phy", f"mtu_request={fabric.mtu}",
        )  # fmt: skip
        # The kernel sees the same frames, and would answer that nobody listens on the tunnel's port
        hook = f"type filter hook ingress device {UPLINK} priority 0; policy drop;"
        self.ns.run("nft", f"add table netdev quiet; add chain netdev quiet in {{ {hook} }}")
        self.ns.ip(f"addr flush dev {UPLINK}", "link set br-phy up")
        self.ns.ip(f"addr add {self.address}/{bits} dev br-phy" + (" nodad" if fabric.family == 6 else ""))

    def flows(self, out="", inside=""):
        """A workload's frames to every peer with its network's VNI and back; `out` and `inside` are actions in front of that."""
        tunnels = [f"tun{e.number}" for e in self.fabric.ends if e is not self]
        lines = ["table=0,priority=0,actions=drop"]
        for n in self.fabric.networks:
            works = [w.device for w in self.works if w.network is n]
            for device in works:
                others = [d for d in works if d != device]
                ports_ = [*tunnels, *others]
                actions = ",".join([*([out] if out else []), f"set_field:{n.vni}->tun_id", *(f"output:{p}" for p in ports_)])
                lines.append(f"table=0,priority=10,in_port={device},actions={actions}")
            for t in tunnels:
                actions = ",".join([*([inside] if inside else []), *(f"output:{d}" for d in works)])
                lines.append(f"table=0,priority=10,in_port={t},tun_id={n.vni},actions={actions or 'drop'}")
        path = f"{self.dir}/flows"
        with open(path, "w", encoding="ascii") as f:
            f.write("\n".join(lines) + "\n")
        self.ofctl("replace-flows", "br-int", path)
        self.appctl("revalidator/wait")  # what was cached of those of before is gone

    def close(self):
        for p in reversed(self.processes):
            p.kill()
            p.wait()
        self.ns.delete()
        shutil.rmtree(self.dir, ignore_errors=True)


class Fabric:
    """
    The underlay: a bridge that all hosts hang on, or (routed) a router with a link to each uplink of each host. Host n has 192.168.77.n
    and fd66::n, on its uplink or, where it is routed, on its loopback device. `mtu` is that of the uplinks, `work_mtu` of the workloads.
    """

    def __init__(self, family=4, protocol="vxlan", mtu=1600, work_mtu=1500, routed=False):
        self.family, self.protocol, self.mtu, self.work_mtu, self.routed = family, protocol, mtu, work_mtu, routed
        self.stack = contextlib.ExitStack()
        self.ends, self.networks = [], []
        self.ns = Namespace("underlay")
        self.stack.callback(self.ns.delete)
        self.ns.sysctl("net.ipv4.ip_forward", 1)
        self.ns.sysctl("net.ipv6.conf.all.forwarding", 1)
        if not routed:
            self.ns.ip("link add br0 type bridge mcast_snooping 0", f"link set br0 mtu {mtu} up")

    # --- the underlay ---

    def address(self, number, family=None):
        return f"192.168.77.{number}" if (family or self.family) == 4 else f"fd66::{number:x}"

    @staticmethod
    def link_address(number, family, way, last):
        """Of a routed host's link to the router: `last` 1 is the host's end, 254 the router's."""
        return f"10.200.{number * 4 + way}.{last}" if family == 4 else f"fd66:{number:x}:{way + 1:x}::{last:x}"

    def join(self, end, *devices):
        self.wire(end.ns, end.number, *devices)

    def wire(self, ns, number, *devices):
        for way, device in enumerate(devices):
            far = self.tap_of(number, way)
            near = ["name", device, "netns", ns.name, "address", self.mac(number, way), "mtu", str(self.mtu)]
            there = ["name", far, "netns", self.ns.name, "address", self.mac(number, way, far=True), "mtu", str(self.mtu)]
            subprocess.run(["ip", "link", "add", *near, "type", "veth", "peer", *there], check=True)
            for end, name in ((ns, device), (self.ns, far)):
                end.sysctl(f"net.ipv6.conf.{name}.keep_addr_on_down", 1)
            if not self.routed:
                own = [self.address(number, family) for family in (4, 6)]
                self.ns.ip(f"link set {far} master br0 up")
            else:
                own = [self.link_address(number, family, way, 1) for family in (4, 6)]
                router = [self.link_address(number, family, way, 254) for family in (4, 6)]
                self.ns.ip(f"addr add {router[0]}/24 dev {far}", f"addr add {router[1]}/64 dev {far} nodad", f"link set {far} up")
            ns.ip(f"addr add {own[0]}/24 dev {device}", f"addr add {own[1]}/64 dev {device} nodad", f"link set {device} up")
        if self.routed:
            ns.ip(f"addr add {self.address(number, 4)}/32 dev lo", f"addr add {self.address(number, 6)}/128 dev lo nodad")
            self.routes_of(ns, number, *devices)
            self.routes_to(number, len(devices))

    def routes_of(self, ns, number, *devices):
        """A routed host's way out, by all of its uplinks."""
        for family in (4, 6):
            hops = [(self.link_address(number, family, way, 254), d) for way, d in enumerate(devices)]
            self._route(ns, family, "default", hops)

    def routes_to(self, number, ways):
        """The router's way to a host."""
        for family, bits in ((4, 32), (6, 128)):
            hops = [(self.link_address(number, family, way, 1), self.tap_of(number, way)) for way in range(ways)]
            self._route(self.ns, family, f"{self.address(number, family)}/{bits}", hops)

    @staticmethod
    def _route(ns, family, to, hops):
        words = [w for hop, d in hops for w in ("nexthop", "via", hop, "dev", d)]
        if len(hops) == 1:
            words = words[1:]
        ns.run("ip", f"-{family}", "route", "replace", to, *words)

    @staticmethod
    def tap_of(number, way=0):
        """The underlay's end of a host's uplink."""
        return f"u{number}" + (f"w{way}" if way else "")

    @staticmethod
    def mac(number, way=0, far=False):
        return f"02:75:{int(far):02x}:{way:02x}:00:{number:02x}"

    def plain(self, end):
        """Frames reach this host as they would on a real wire: cut to size, with their checksums."""
        self.ns.run("ethtool", "-K", f"u{end.number}", *OFFLOADS)

    def witness(self, end, way=0):
        return Wire(self.ns, self.tap_of(end.number, way))

    # --- who is there ---

    def network(self, name="blue", vni=100, net=77, **spec):
        self.networks.append(Network(name, vni, net, **spec))
        return self.networks[-1]

    def _add(self, kind, *args, **kwargs):
        end = kind(self, len(self.ends) + 1, *args, **kwargs)
        self.stack.callback(end.close)
        self.ends.append(end)
        return end

    def heddle(self, **kwargs):
        return self._add(HeddleEnd, **kwargs)

    def kernel(self, **kwargs):
        return self._add(KernelEnd, **kwargs)

    def ovs(self, **kwargs):
        return self._add(OvsEnd, **kwargs)

    def rogue(self, number=200):
        """Somebody in the underlay who is no peer: a namespace, and a packet socket on its uplink."""
        ns = Namespace("rogue")
        self.stack.callback(ns.delete)
        self.wire(ns, number, UPLINK)
        wire = Wire(ns, UPLINK)
        self.stack.callback(wire.close)
        return wire

    def up(self):
        for e in self.ends:
            e.up()
        for e in self.ends:
            e.settled()

    def close(self):
        self.stack.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


# --- tunnel packets by hand ---


def wrap(inner, vni, source, destination, to_mac, protocol="vxlan", header=None, from_mac="02:75:ff:00:00:ff", sport=50000, **fields):
    """A frame with `inner` in a tunnel packet; `header`: other bytes than the protocol's own. `fields` are of the outer IP header."""
    if header is None:
        header = bytes([8, 0, 0, 0]) if protocol == "vxlan" else bytes([0, 0, 0x65, 0x58])
        header += vni.to_bytes(3, "big") + b"\0"
    layer = IPv6 if ":" in source else IP
    udp = UDP(sport=sport, dport=PORT[protocol], chksum=0) / (header + bytes(inner))
    return Ether(src=from_mac, dst=to_mac) / layer(src=source, dst=destination, **fields) / udp


class Tunnelled:
    """A tunnel packet taken apart; `ip` and `udp` are scapy's, `header` is the tunnel's with its options, `inner` the frame in it."""

    def __init__(self, frame):
        packet = Ether(frame)
        self.ether, self.ip = packet, packet[IPv6] if packet.type == 0x86DD else packet[IP]
        self.udp = packet[UDP]
        data = bytes(self.udp.payload)
        options = (data[0] & 63) * 4 if self.udp.dport == PORT["geneve"] else 0
        self.header, self.inner = data[: HEADER + options], data[HEADER + options :]
        self.vni = int.from_bytes(data[4:7], "big")


def tunnelled(frames):
    """Those of the frames that are tunnel packets, whole ones."""
    result = []
    for frame in frames:
        kind = frame[12:14]
        if kind == b"\x08\0" and frame[23] == 17 and not int.from_bytes(frame[20:22], "big") & 0x3FFF:
            dport = frame[36:38]
        elif kind == b"\x86\xdd" and frame[20] == 17:
            dport = frame[56:58]
        else:
            continue
        if int.from_bytes(dport, "big") in PORT.values():
            result.append(Tunnelled(frame))
    return result


# --- what is expected to get through ---


def payload(size, seed=b"overlay"):
    return b"".join(hashlib.sha256(seed + i.to_bytes(4, "big")).digest() for i in range(size // 32 + 1))[:size]


def echo(ns, address, size, timeout=3.0):
    """
    True when an echo request of `size` bytes, its IP header counted, came back with the same bytes. One that is too big for the way, or
    whose fragments are, is sent once more: the sender was told, and cuts it up.
    """
    v6 = ":" in address
    data = payload(size - 8 - (40 if v6 else 20), os.urandom(4))
    identifier = int.from_bytes(os.urandom(2), "big")
    with ns.socket(traffic.family_of(address), socket.SOCK_RAW, socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP) as s:
        head = struct.pack("!BBHHH", 128 if v6 else 8, 0, 0, identifier, 1)
        if not v6:
            head = head[:2] + struct.pack("!H", checksum(head + data)) + head[4:]
        s.connect((address, 0))
        deadline = time.monotonic() + timeout * PATIENCE
        s.send(head + data)
        while (left := deadline - time.monotonic()) > 0:
            s.settimeout(min(left, 0.7 * PATIENCE) if size > 1400 else left)
            try:
                got = s.recv(65536)
            except TimeoutError:
                if size > 1400:  # the answer may have been too large as well
                    s.send(head + data)
                continue
            except OSError as error:
                if error.errno != errno.EMSGSIZE:
                    raise
                s.send(head + data)
                continue
            body = got if v6 else got[(got[0] & 15) * 4 :]
            if body[0] == (129 if v6 else 0) and body[4:6] == identifier.to_bytes(2, "big"):
                return body[8:] == data
    return False


def expect_echoes(a, b, sizes=(84, 1600, 3200)):
    for family in (4, 6):
        for size in sizes:
            assert echo(a.ns, b.ip(family), size), f"{size} bytes from {a.name} to {b.name} over IPv{family}"


def exchange_datagram(sender, receiver, data, to=None):
    """A datagram from one socket to another; lost for being too large, it is sent once more, and is larger no more. Whom it came from."""
    for _ in range(4):
        with contextlib.suppress(TimeoutError):
            try:
                sender.sendto(data, to) if to else sender.send(data)
                got, source = receiver.recvfrom(65536)
            except OSError as error:  # what either was told of a datagram before
                if error.errno != errno.EMSGSIZE:
                    raise
                continue
            assert got == data
            return source
    raise AssertionError(f"a datagram of {len(data)} bytes does not arrive")


def expect_bytes(a, b, family, port=7300, size=60_000):
    """TCP, and one large datagram, from a to b and back: every byte as it was."""
    data = payload(size)
    address = b.ip(family)
    client, server = traffic.accept_pair(a.ns, b.ns, address, port)
    with client, server:
        for one, other, way in ((client, server, "there"), (server, client, "back")):
            sent, got = traffic.transfer(one, other, size, chunk=len(data) // 32 * 32, timeout=10 * PATIENCE)
            assert sent == got, f"TCP {way}, {a.name} to {b.name} over IPv{family}"
    with a.ns.socket(traffic.family_of(address), socket.SOCK_DGRAM) as c, b.ns.socket(traffic.family_of(address), socket.SOCK_DGRAM) as s:
        for sock in (c, s):
            sock.settimeout(1 * PATIENCE)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        s.bind((address, port))
        c.connect((address, port))
        client_address = exchange_datagram(c, s, data)
        exchange_datagram(s, c, data, client_address)


def expect_all(a, b, port=7300, sizes=(84, 1600, 3200), size=60_000):
    """Pings of all sizes and payloads of both protocols, both families, both ways."""
    for one, other in ((a, b), (b, a)):
        expect_echoes(one, other, sizes)
        for family in (4, 6):
            expect_bytes(one, other, family, port, size)


def expect_nothing(a, b, timeout=0.3):
    for family in (4, 6):
        assert not echo(a.ns, b.ip(family), 84, timeout), f"{a.name} reached {b.name} over IPv{family}"


@functools.lru_cache
def others_ports():
    """
    The protocols that tshark takes a port for which the kernel may give to a client: our bytes make no sense as theirs. (To say "data" of these ports
    would be said of tunnel packets too.)
    """
    said = subprocess.run(["tshark", "-G", "decodes"], capture_output=True, text=True, check=True).stdout
    rows = [line.split("\t") for line in said.splitlines()]
    return sorted({row[2] for row in rows if row[0] in ("tcp.port", "udp.port") and int(row[1]) >= 32768} - {"tcp", "udp", "data"})


def dissect(frames, *fields, options=()):
    """
    What tshark says of frames: rows of fields; none may be malformed, or worth a warning. A UDP checksum of zero over IPv6 is what RFC 6935
    allows.
    """
    from scapy.utils import PcapWriter

    with tempfile.NamedTemporaryFile(suffix=".pcap") as f:
        with PcapWriter(f.name, linktype=1) as writer:
            for frame in frames:
                writer.write(Ether(frame) if isinstance(frame, bytes) else frame)
        argv = ["tshark", "-n", "-r", f.name, *(w for p in ("ip", "tcp", "udp") for w in ("-o", f"{p}.check_checksum:TRUE"))]
        # Frames of both directions come one after the other, and a busy machine sends twice: nothing is said of sequence numbers
        argv += ["-o", "udp.ignore_ipv6_zero_checksum:TRUE", "-o", "tcp.analyze_sequence_numbers:FALSE"]
        argv += [word for name in others_ports() for word in ("--disable-protocol", name)] + list(options)
        sequence = "_ws.expert.group == 0x02000000"
        # Linux's stack sends a TCP checksum that comes to 0 as 0xffff, its equal, once in 65536 packets
        equal = 'tcp.checksum == 0xffff && _ws.expert.message contains "instead of 0x0000"'
        warned = ["-V", "-Y", f"_ws.malformed || _ws.expert.severity >= 0x600000 && !({sequence}) && !({equal})"]
        bad = subprocess.run([*argv, *warned], capture_output=True, text=True, check=True)
        lines = bad.stdout.splitlines()
        said = [line.strip() for line in lines if "Expert Info" in line or line.startswith("Frame ")]
        at = next((n for n, line in enumerate(lines) if "Expert Info" in line), 0)
        assert not lines, "\n".join([f"tshark warns: {said[:10]}", *lines[max(at - 12, 0):at + 12], *lines[:100]])
        if not fields:
            return []
        wanted = ["-T", "fields", "-E", "separator=|", *(w for field in fields for w in ("-e", field))]
        shown = subprocess.run([*argv, *wanted], capture_output=True, text=True, check=True)
        return [line.split("|") for line in shown.stdout.splitlines()]
