# SPDX-License-Identifier: Apache-2.0
"""Devices of the agent's workers: the tables that lead to them, a socket for each, and all that a packet can leave behind, to be compared."""
import ctypes
import fcntl
import socket
import struct

from match_test import DROP, DROPPED, FAST, FORWARD, PASSED, SHAPES, TAKEN, TOO_BIG, match_key, shape_of  # noqa: F401 pylint: disable=unused-import
from ports import Plane, mac_bytes
from world import PORT_UPLINK, PORT_XDP, REASONS, TABLES, U32, Slot, sh

AF_XDP, SIOCGIFHWADDR = 44, 0x8927
STAMP, PORT, INSIDE, DIRECT, DIRECT_SEVERAL = (1 << n for n in range(2, 7))  # enum hd_fast_flags, after DROP and FORWARD
QUEUES = 64
XDP_DROP, XDP_PASS, XDP_REDIRECT = 1, 2, 4
RULES, TOTALS = 128, 16  # as far as the tests' rules go
META = 8  # bytes of hd_fast_meta


def own_mac(device):
    """sysfs is another namespace's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        return fcntl.ioctl(one, SIOCGIFHWADDR, struct.pack("256s", device.encode()))[18:24].hex(":")


def forward_row(index, group, flags, mac):
    return struct.pack("<HHH6s", index, group, flags, mac_bytes(mac))


class Workers:
    """Of one document: devices by index, from 1 on."""

    GROUP = 9

    def __init__(self, plane: Plane):
        self.plane, self.world = plane, plane.world
        self.switch = self.world.lib.verdict_load_switch(self.world.handle)
        assert self.switch >= 0
        # the kernel asks no more of it than to be one: whether it is bound is told when a frame comes
        self.socket = socket.socket(AF_XDP, socket.SOCK_RAW, 0)
        self.devices, self.keys = {}, []

    def add(self, device, index, flags=PORT, group=GROUP, match=None, with_socket=True, fallback=0):
        """device: one of the plane's ports. Frames to it are sent to its own MAC, as the agent reads it from the device."""
        key, match = struct.pack("<I", device.ifindex), match or {}
        self.devices[index] = device
        self.world.store("fast_devices", key, struct.pack("<IHH", 1, 0, 0) + shape_of(match).ljust(40 * SHAPES, b"\0"))
        self.keys.append(match_key(device.ifindex, match))
        self.world.store("fast_matches", self.keys[-1], struct.pack("<HH", index, FORWARD | fallback))
        self.forward(device, index, flags | fallback, group)
        if with_socket:
            self.world.store("xsks", struct.pack("<I", index * QUEUES), U32(self.socket.fileno()))

    def forward(self, device, index, flags, group=GROUP):
        self.world.store("fast_forwards", struct.pack("<I", device.ifindex), forward_row(index, group, flags, own_mac(device.device)))

    def room(self, index, one=0, several=0):
        """What its socket takes, in one buffer and in several."""
        self.world.store("fast_rooms", struct.pack("<I", index), struct.pack("<II", one, several))

    def remove_socket(self, index):
        self.world.lib.bpf_map_delete_elem(self.world.fd("xsks"), struct.pack("<I", index * QUEUES))

    def remove_device(self, index):
        self.world.lib.bpf_map_delete_elem(self.world.fd("fast_forwards"), struct.pack("<I", self.devices[index].ifindex))

    def clear(self):
        for index, device in self.devices.items():
            for name in ("fast_devices", "fast_forwards"):
                self.world.lib.bpf_map_delete_elem(self.world.fd(name), struct.pack("<I", device.ifindex))
            self.remove_socket(index)
            self.room(index)
        for key in self.keys:
            self.world.lib.bpf_map_delete_elem(self.world.fd("fast_matches"), key)
        self.devices, self.keys = {}, []

    def close(self):
        self.clear()
        self.socket.close()

    def fast(self, index, what):
        return self.world.percpu("fast_counters", index * 4 + what, 16)

    # --- all that a packet can leave behind ---

    def flows(self):
        """{(table, key): bytes}, without when it was last seen."""
        result = {}
        for table, key, flow in self.world.flows():
            flow.last_seen = 0
            result[table, key] = bytes(flow)
        return result

    def counters(self):
        """Of rules, totals, drops, and tables that were full; (packets, bytes) each that is not 0."""
        result = {}
        for what, name, n, size in (("rule", "rule_counters", RULES, 16), ("total", "totals", TOTALS, 16), ("drop", "drops", 2 * len(REASONS), 16),
                                    ("full", "full", len(TABLES), 8)):
            result.update({(what, at): value for at, value in enumerate(self.world.percpu_first(name, n, size)) if any(value)})
        return result

    def fast_counters(self):
        return {(index, what): self.fast(index, what) for index in self.devices for what in range(4)}

    def since(self, before):
        now = self.counters()
        return {key: tuple(a - b for a, b in zip(now[key], before.get(key, (0, 0)))) for key in now if now[key] != before.get(key)}

    def keep(self):
        """What flows are, to be put back by restore() as long as none has come or gone."""
        kept = []
        for table, key, flow in self.world.flows():
            kept.append((table, key, bytes(flow)))
        return kept

    def restore(self, kept):
        assert [(table, key) for table, key, _ in self.world.flows()] == [(table, key) for table, key, _ in kept]
        for table, key, flow in kept:
            family = 4 if len(key) == 16 else 6
            if table != "flows":
                self.world.store(table.replace("flows", f"flows{family}", 1), key, flow)
                continue
            index = bytes(self.world.lookup(f"flows{family}", key, U32))
            slot = self.world.lookup("flow_slots", index, Slot)
            ctypes.memmove(ctypes.addressof(slot) + Slot.flow.offset, flow, len(flow))
            self.world.store("flow_slots", index, slot)


def told(out):
    """(device, flags, stamp, frame): what stands in front of a port's frame for the worker, and the frame."""
    return struct.unpack("<HHI", out[:META]) + (out[META:],)


class Left:
    """What an XDP program made of a packet, and what that left behind."""

    def __init__(self, plane, hook, packet, device, linear=0):
        self.workers, self.packet = plane.workers, bytes(packet)
        self.flows_before, counters, fast = self.workers.flows(), self.workers.counters(), self.workers.fast_counters()
        run = plane.world.raw(hook, self.packet, ifindex=device.ifindex, linear=linear)
        self.action, self.meta, self.out = run.verdict, run.meta_left, bytes(run.out[:run.out_length])
        self.flows, self.counters = self.workers.flows(), self.workers.since(counters)
        now = self.workers.fast_counters()
        self.fast = {key: tuple(a - b for a, b in zip(now[key], fast[key])) for key in now if now[key] != fast[key]}

    def as_by(self, way, kept):
        """From what was kept from before, way() leaves the same. What it says."""
        self.workers.restore(kept)
        counters = self.workers.counters()
        said = way()
        assert self.counters == self.workers.since(counters)
        assert self.flows == self.workers.flows()
        return said

    def taken_as_by(self, way, kept, index):
        """And sends the same frame; counted for the device of that index. The index of the one that the worker is told to send it by."""
        want = self.as_by(way, kept)
        device, flags, stamp, frame = told(self.out)
        assert frame == want, (frame.hex(), want.hex(), self.packet.hex())
        assert (flags, stamp) == (0, 0) and self.counters != {}
        assert self.fast == {(index, TAKEN): (1, len(self.packet))}
        return device


class Routes:
    """The host's own way out by the device: next hops with MACs, and forwarding."""

    OWN = {4: "192.0.2.1", 6: "2001:db8::1"}
    HOP = {4: "192.0.2.7", 6: "2001:db8::7"}
    FAR = {4: "198.51.100.9", 6: "2001:db8:51::9"}
    HOP_MAC = "02:00:00:00:07:07"

    def __init__(self, device, prefixes=("198.51.100.0/24", "2001:db8:51::/64"), own=None, hop=None):
        self.device, name = device, device.device
        own, hop = own or self.OWN, hop or self.HOP
        sh(f"sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.{name}.disable_ipv6=0 net.ipv6.conf.{name}.accept_ra=0")
        sh(f"ip addr replace {own[4]}/24 dev {name} && ip -6 addr replace {own[6]}/64 dev {name} nodad")
        for address in hop.values():
            sh(f"ip neigh replace {address} lladdr {self.HOP_MAC} dev {name} nud permanent")
        for prefix, address in zip(prefixes, hop.values()):
            sh(f"ip route replace {prefix} via {address} dev {name}")

    def close(self):
        name = self.device.device
        sh(f"ip route flush dev {name}; ip -6 route flush dev {name}; ip neigh flush dev {name} nud permanent; ip addr flush dev {name}")
        sh(f"sysctl -qw net.ipv6.conf.{name}.disable_ipv6=1 net.ipv6.conf.all.forwarding=0 net.ipv4.ip_forward=0")


def uplink_flags(judge=False):
    return PORT_UPLINK | PORT_XDP | FAST | (4 if judge else 0)
