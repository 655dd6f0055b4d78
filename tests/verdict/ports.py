# SPDX-License-Identifier: Apache-2.0
"""
Networks and ports for the verdict tests. No compiler is asked: policies are small trees that are said here as they stand in the maps
(include/heddle/policy.h), so that these tests judge the programs alone.
"""
import ctypes
import re
import socket
import struct
from collections import namedtuple

from world import (ALLOW, BUILTIN, DENY, EGRESS, INGRESS, PORT_IN, PORT_TUNNEL, PORT_UPLINK, REASONS, REJECT, U8, U16, U32, U64, number, sh)

GATEWAY_MAC = "02:68:65:64:64:6c"
SOL_PACKET, PACKET_AUXDATA, TP_STATUS_VLAN_VALID = 263, 8, 1 << 4
MARK = number("network.h", "HD_MARK")
NETWORK_USED, NETWORK_L3, NETWORK_LEARNING, NETWORK_HOST, NETWORK_PEER_LEARNING = 1, 2, 4, 8, 16
L2, LEARNING, HOST, PEER, ACCESS, TRUNK, QINQ = 1 << 4, 1 << 5, 1 << 6, 1 << 7, 1 << 8, 1 << 9, 1 << 10
IS_GATEWAY, IS_TAKEN = 1, 2
NEXT, SHOT, REDIRECT = -1, 2, 7
ACT_NEXT, ACT_PORT, ACT_FLOOD, ACT_ARP, ACT_ND, ACT_ECHO, ACT_WIRE, ACT_PEER = range(8)
LEAF, LOG, PASS, AUDIT = 0x40000000, 0x04000000, 0x08000000, 0x10000000
NONE_HERE = LEAF | 3 << 24
DEVICE_PEER = 0x80000000
VXLAN, GENEVE = 1, 2  # enum hd_tunnel_protocol
TUNNEL_PORT = {VXLAN: 4789, GENEVE: 6081}
TCP, UDP, ICMP, ICMPV6 = 1, 2, 4, 5  # enum hd_l4_kind


def leaf(rule, verdict=ALLOW, flags=0):
    return LEAF | verdict << 24 | rule | flags


# Rules of the tests: one id each for what a policy of the whole port says.
RULE_IN, RULE_OUT, RULE_DENY, RULE_REJECT, RULE_PEER, RULE_SECOND = 100, 101, 102, 103, 104, 105


class Roots(ctypes.Structure):
    _fields_ = [("generation", U32), ("addr4", U32), ("addr6", U32), ("reserved", U32)]


class Network(ctypes.Structure):
    _fields_ = [("vni", U32), ("vlan", U16), ("mtu", U16), ("flags", U16), ("reserved", U16 * 3), ("members", U32), ("peers", U32),
                ("roots", Roots * 2), ("name", ctypes.c_char * 40)]


class Policy(ctypes.Structure):
    _fields_ = [("generation", U32), ("set", U32 * 2), ("version", U32 * 2), ("root", U32 * 2), ("pass_set", U32 * 2), ("pass_root", U32 * 2)]


class Record(ctypes.Structure):
    _fields_ = [("ifindex", U32), ("network", U16), ("flags", U16), ("policy", Policy * 2), ("mac", U8 * 6), ("vlan", U16), ("mtu", U16),
                ("reserved", U16), ("moved", U32), ("limit", U32 * 2 * 2)]


class Endpoint(ctypes.Structure):
    _fields_ = [("ifindex", U32), ("mac", U8 * 6), ("flags", U16), ("peer", U32)]


class Learnt(ctypes.Structure):
    _fields_ = [("ifindex", U32), ("seen", U32), ("peer", U32)]


class Tunnel(ctypes.Structure):
    _fields_ = [("address", U8 * 16), ("port", U16), ("protocol", U8), ("ttl", U8), ("overhead", U16), ("flags", U16), ("slow", U32), ("reserved", U32)]


class Way(ctypes.Structure):
    _fields_ = [("ifindex", U32), ("destination", U8 * 6), ("source", U8 * 6)]


class PeerRecord(ctypes.Structure):
    _fields_ = [("address", U8 * 16), ("ways", U32), ("flags", U16), ("mtu", U16), ("path_mtu_seen", U32), ("path_mtu", U16), ("reserved", U16),
                ("moved", U32), ("reserved2", U32), ("way", Way * 4 * 2), ("name", ctypes.c_char * 40), ("reserved3", U32 * 6)]


assert ctypes.sizeof(Tunnel) == 32 and ctypes.sizeof(PeerRecord) == 232
assert ctypes.sizeof(Network) == 96 and ctypes.sizeof(Record) == 128 and ctypes.sizeof(Endpoint) == 16

Verdict = namedtuple("Verdict", "action reason out mark")


def mac_bytes(mac):
    return bytes.fromhex(mac.replace(":", ""))


def mapped(address):
    return socket.inet_pton(socket.AF_INET6, address) if ":" in address else bytes(10) + b"\xff\xff" + socket.inet_aton(address)


def endpoint_key(network, address):
    """address: of either family, or a MAC."""
    is_mac = re.fullmatch("(..:){5}..", address)
    return (mac_bytes(address) + bytes(10) if is_mac else mapped(address)) + struct.pack("HB5x", network, 1 if is_mac else 0)


class Port:
    """A veth whose one end plays the host's side; nothing is attached to it."""

    def __init__(self, index):
        self.device, self.far = f"port{index}", f"far{index}"
        if self.device not in [name for _, name in socket.if_nameindex()]:  # else made for an earlier module
            sh(f"ip link add {self.device} type veth peer name {self.far} && ip link set {self.device} up && ip link set {self.far} up")
        self.ifindex = socket.if_nametoindex(self.device)
        self.mac = f"02:00:00:00:01:{index:02x}"
        self.record = Record()


class Plane:
    """The tables of ports over a World. Every change makes a generation of its own."""

    MAPS = {"endpoints": 24, "members": 4, "routes": 24, "port_vlans": 8, "fdb": 12, "wire_vlans": 4, "peer_addresses": 16,
            "vnis": 4, "peer_prefixes": 24, "peer_members": 4}

    def __init__(self, world, ports=6):
        self.world = world
        assert world.lib.verdict_load_ports(world.handle) == 0
        sh("sysctl -qw net.ipv6.conf.default.disable_ipv6=1")  # of the veths alone: other tests have their own
        self.ports = [Port(i) for i in range(ports)]
        sh("sysctl -qw net.ipv6.conf.default.disable_ipv6=0")
        self.networks, self.peers, self.own = {}, {}, None
        self.node = 16000

    def clear(self):
        self.world.clear()
        for name, size in self.MAPS.items():
            for key in self.world.keys(name, size):
                self.world.lib.bpf_map_delete_elem(self.world.fd(name), key)
        for index in self.networks:
            self.world.store("networks", struct.pack("I", index), Network())
        self.networks = {}
        for index in self.peers:
            self.world.store("peers", struct.pack("I", index), PeerRecord())
        self.peers = {}
        self.world.store("tunnel", bytes(4), Tunnel())
        for port in self.ports:
            port.record = Record()
            self.world.store("ports", struct.pack("I", port.ifindex & 4095), port.record)
        self.node = 16000

    # --- networks ---

    @property
    def generation(self):
        return self.world.control.generation

    def network(self, index, flags=0, addr4=LEAF, addr6=LEAF):
        record = Network(flags=NETWORK_USED | flags, name=b"n%d" % index)
        record.roots[0] = Roots(self.generation, addr4, addr6, 0)
        self.networks[index] = record
        self.world.store("networks", struct.pack("I", index), record)

    def endpoint(self, network, address, port=None, flags=0, mac=None, peer=0):
        entry = Endpoint(ifindex=port.ifindex if port else 0, flags=flags, peer=peer)
        entry.mac[:] = mac_bytes(mac or (port.mac if port else "00:00:00:00:00:00"))
        self.world.store("endpoints", endpoint_key(network, address), entry)

    def remove_endpoint(self, network, address):
        self.world.lib.bpf_map_delete_elem(self.world.fd("endpoints"), endpoint_key(network, address))

    def route(self, network, prefix, to, zone):
        address, length = prefix.split("/")
        bits = 16 + int(length) + (0 if ":" in address else 96)
        self.world.store("routes", struct.pack("=IH", bits, socket.htons(network)) + mapped(address) + bytes(2), struct.pack("HHI", to, zone, 0))

    def member(self, port):
        record = self.networks[port.record.network]
        self.world.store("members", struct.pack("HH", port.record.network, record.members), U32(port.ifindex))
        record.members += 1
        self.world.store("networks", struct.pack("I", port.record.network), record)

    def wire(self, network, vlan, *uplinks):
        """The network is that VLAN on the uplinks, ports without a record so far."""
        self.networks[network].vlan = vlan
        self.world.store("networks", struct.pack("I", network), self.networks[network])
        self.world.store("wire_vlans", struct.pack("I", vlan), struct.pack("I", network))
        if 0 not in self.networks:
            self.network(0)
        for uplink in uplinks:
            self.world.port(uplink.ifindex)
            uplink.record = Record(ifindex=uplink.ifindex)
            self.member(uplink)

    # --- the overlay ---

    def tunnel(self, address, *uplinks, protocol=VXLAN, ttl=64, slow=0):
        """This host's end, and the uplinks that its packets come in by."""
        self.own = Tunnel(port=socket.htons(TUNNEL_PORT[protocol]), protocol=protocol, ttl=ttl, overhead=70 if ":" in address else 50, slow=slow)
        self.own.address[:] = mapped(address)
        self.world.store("tunnel", bytes(4), self.own)
        for uplink in uplinks:
            self.world.port(uplink.ifindex, PORT_UPLINK | PORT_TUNNEL)

    def peer(self, index, address, *ways, mtu=0):
        """ways: (uplink, MAC of the next hop)"""
        record = PeerRecord(flags=1, mtu=mtu, ways=len(ways) << 1, name=b"peer%d" % index)
        record.address[:] = mapped(address)
        for way, (uplink, mac) in zip(record.way[0], ways):
            way.ifindex = uplink.ifindex
            way.destination[:], way.source[:] = mac_bytes(mac), mac_bytes(uplink.mac)
        self.peers[index] = record
        self.write_peer(index)
        self.world.store("peer_addresses", mapped(address), U32(index))

    def write_peer(self, index):
        self.world.store("peers", struct.pack("I", index), self.peers[index])

    def read_peer(self, index):
        return self.world.lookup("peers", struct.pack("I", index), PeerRecord)

    def vni(self, network, vni, *members):
        """The network travels, and is flooded to these peers."""
        record = self.networks[network]
        record.vni, record.peers = vni, len(members)
        self.world.store("networks", struct.pack("I", network), record)
        self.world.store("vnis", struct.pack("I", vni), struct.pack("I", network))
        for at, peer in enumerate(members):
            self.world.store("peer_members", struct.pack("HH", network, at), U32(peer))

    def prefix(self, network, prefix, peer, mac="00:00:00:00:00:00"):
        address, length = prefix.split("/")
        bits = 16 + int(length) + (0 if ":" in address else 96)
        self.world.store("peer_prefixes", struct.pack("=IH", bits, socket.htons(network)) + mapped(address) + bytes(2), struct.pack("I6sH", peer, mac_bytes(mac), 0))

    # --- ports ---

    def port(self, index, network, addresses=(), flags=L2, vlan=0, mtu=0, ingress=leaf(RULE_IN), egress=leaf(RULE_OUT), vlans=()):
        """A port that may send and receive everything, unless told otherwise."""
        port = self.ports[index]
        record = Record(ifindex=port.ifindex, network=network, flags=flags, vlan=vlan, mtu=mtu)
        record.mac[:] = mac_bytes(port.mac)
        record.policy[0] = Policy(generation=self.generation)
        record.policy[0].version[:] = [self.generation] * 2
        port.record = record
        self.policy(port, INGRESS, ingress)
        self.policy(port, EGRESS, egress)
        for address in addresses:
            self.endpoint(network, address, port)
        self.endpoint(network, port.mac, port)
        for tag in vlans:
            self.world.store("port_vlans", struct.pack("IHH", port.ifindex, tag, 0), U32(1))
        self.member(port)
        return port

    def write(self, port):
        self.world.store("ports", struct.pack("I", port.ifindex & 4095), port.record)

    def policy(self, port, direction, root, passes=0, version=None):
        """root: a leaf, or a tree() or classes() in that direction."""
        policy = port.record.policy[0]
        policy.set[direction] = 1000 + 10 * self.ports.index(port) + direction
        policy.root[direction] = root
        policy.pass_set[direction] = 2000 + 10 * self.ports.index(port) + direction if passes else 0
        policy.pass_root[direction] = passes
        if version is not None:
            policy.version[direction] = version
        self.write(port)

    def set_of(self, port, direction):
        return port.record.policy[0].set[direction]

    # --- trees ---

    def _node(self, table, keys, values, extra=b""):
        size = 16 if table == "addr4_nodes" else 8
        keys = keys + [2**32 - 1] * (size - len(keys))
        values = values + [values[-1]] * (size - len(values))
        node, self.node = self.node, self.node + 1
        raw = struct.pack(f"{2 * size}I", *keys, *values) + extra
        self.world.store(table, struct.pack("I", node), raw)
        return node

    def addresses(self, classes):
        """An IPv4 address tree: {address: class}; everybody else has none."""
        keys, values = [0], [LEAF]
        for address in sorted(classes, key=socket.inet_aton):
            at = int.from_bytes(socket.inet_aton(address), "big")
            if keys[-1] == at:
                values[-1] = LEAF | classes[address]
            else:
                keys.append(at)
                values.append(LEAF | classes[address])
            keys.append(at + 1)
            values.append(LEAF)
        return self._node("addr4_nodes", keys, values)

    def tree(self, rules, otherwise=NONE_HERE, order=10):
        """{(kind, number): leaf}: a rule tree; all of it has one order."""
        keys, values = [0], [otherwise]
        for kind, what in sorted(rules):
            at = kind << 16 | what
            keys += [at, at + 1]
            values += [rules[kind, what], otherwise]
        return self._node("rule_nodes", keys, values, struct.pack("8I", *[order] * 8))

    def class_rules(self, class_id, roots):
        """What names the class: {set: tree()}."""
        if len(roots) > 1:
            set_id, value = 0xFFFFFFFF, self._set_tree(roots)
        else:
            set_id, value = next(iter(roots.items()), (0, 0))
        entry = struct.pack("8I", self.generation, set_id, value, 0, 0, 0, 0, 0)
        self.world.store("classes", struct.pack("I", class_id), entry + bytes(len(entry)))

    def _set_tree(self, roots):
        keys, values = [0], [LEAF]
        for set_id in sorted(roots):
            if keys[-1] == set_id:
                values[-1] = LEAF | roots[set_id]
            else:
                keys.append(set_id)
                values.append(LEAF | roots[set_id])
            keys.append(set_id + 1)
            values.append(LEAF)
        return self._node("rule_nodes", keys, values, struct.pack("8I", *[0] * 8))

    # --- packets ---

    def run(self, port, packet, hook=PORT_IN, **options):
        before = self.world.drops()
        run = self.world.raw(hook, packet, ifindex=port.ifindex, **options)
        after = self.world.drops()
        changed = [reason for (reason, direction), n in after.items() if n != before.get((reason, direction), 0)]
        return Verdict(run.verdict, changed[0] if changed else "none", bytes(run.out[:run.out_length]), run.mark_left)

    def explain(self, port, packet, hook=PORT_IN, ingress_ifindex=0):
        return self.world.explain(hook, packet, ifindex=port.ifindex, ingress_ifindex=ingress_ifindex)

    def count(self, rule):
        return self.world.percpu("rule_counters", BUILTIN.index(rule) if isinstance(rule, str) else rule, 16)[0]

    def drops(self, reason):
        return sum(self.world.percpu("drops", REASONS.index(reason) * 2 + direction, 16)[0] for direction in (0, 1))


class Witness:
    """What comes out at the far ends of ports, really transmitted (floods are, even in a test run)."""

    def __init__(self, *ports):
        self.sockets = {port: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) for port in ports}
        for port, one in self.sockets.items():
            one.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
            one.bind((port.far, 0))
            one.settimeout(0.2)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for one in self.sockets.values():
            one.close()

    def frames(self, port):
        """Tags included, which the kernel keeps beside the frame."""
        frames = []
        try:
            while True:
                frame, [(_, _, beside)] = self.sockets[port].recvmsg(4096, 128)[:2]
                status, tci, tpid = struct.unpack("I12xHH", beside)
                tag = struct.pack("!HH", tpid, tci) if status & TP_STATUS_VLAN_VALID else b""
                frames.append(frame[:12] + tag + frame[12:])
        except TimeoutError:
            return frames
