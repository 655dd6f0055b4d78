# SPDX-License-Identifier: Apache-2.0
"""The Python side of harness.c: one data plane to run packets through, and to look into."""
import ctypes
import ctypes.util
import mmap
import os
import re
import struct
import subprocess
from collections import namedtuple

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
LIBRARY = os.path.join(TOP, os.environ.get("BUILD", "build"), "tests/libverdict.so")

XDP, TC_IN, TC_OUT, PORT_IN, PORT_OUT, WIRE_IN, TUNNEL_IN = range(7)
HOOK_NAMES = {XDP: "xdp", TC_IN: "tc-in", TC_OUT: "tc-out"}
INGRESS, EGRESS = 0, 1
UPLINK = 1
PORT_UPLINK, PORT_XDP, PORT_FORWARD_JUDGE, PORT_TUNNEL, PORT_DECAP = 1, 2, 4, 8, 1 << 11
CONTROL_MONITOR, CONTROL_PICKUP = 1, 2
ALLOW, DENY, REJECT, DROP = 0, 1, 2, 3
META_MAGIC, META_TUNNEL = 0x6865646C, 0x68656476
PATIENCE = int(os.environ.get("HEDDLE_PATIENCE", "1"))  # how many times as slow everything is: in guests under emulation less is repeated
U8, U16, U32, U64 = ctypes.c_uint8, ctypes.c_uint16, ctypes.c_uint32, ctypes.c_uint64


def names(header, macro):
    """The symbols and names of an X-macro list in include/heddle."""
    with open(os.path.join(TOP, "include/heddle", header), encoding="utf-8") as file:
        text = file.read()
    body = re.search(r"#define " + macro + r"\(X\)((?:.*\\\n)*.*)", text)[1]
    return [(symbol, name) for symbol, name in re.findall(r'X\((\w+), "([^"]+)"', body)]


def number(header, macro):
    with open(os.path.join(TOP, "include/heddle", header), encoding="utf-8") as file:
        return int(re.search(rf"#define {macro}\s+(\w+?)u?\b", file.read())[1], 0)


REASONS = [name for _, name in names("reasons.h", "HD_REASONS")]
STATES = [name for _, name in names("flow.h", "HD_FLOW_STATES")]
BUILTIN = [name for _, name in names("policy.h", "HD_BUILTIN_RULES")]
TABLES = [name for _, name in names("event.h", "HD_TABLES")]
EVENTS = {1: "drop", 2: "flow", 3: "log", 4: "reject", 5: "full"}


class Run(ctypes.Structure):
    _fields_ = [("hook", U32), ("repeat", U32), ("meta_length", U32), ("gso_segs", U32), ("gso_size", U32),
                ("ingress_ifindex", U32), ("ifindex", U32), ("mark", U32), ("cb", U32), ("linear", U32),
                ("verdict", ctypes.c_int32), ("duration", U32), ("meta_left", U32), ("mark_left", U32), ("leaves", U64), ("out_length", U32), ("out", U8 * 9216)]


class Flow(ctypes.Structure):
    _fields_ = [("packets", U64 * 2), ("bytes", U64 * 2), ("last_seen", U32), ("version", U32), ("rule", U32), ("state", U8),
                ("flags", U8), ("wscale", U8 * 2), ("ifindex", U32), ("epoch", U32), ("seq_end", U32 * 2), ("ack", U32 * 2),
                ("win", U32 * 2), ("created", U32), ("slot", U32), ("second_version", U32), ("second_rule", U32),
                ("reserved", U8 * 16), ("peer_mac", U8 * 6), ("reserved2", U8 * 2), ("device", U32 * 2)]

    @property
    def name(self):
        return STATES[self.state]


class Slot(ctypes.Structure):
    _fields_ = [("key", U8 * 40), ("used", U32), ("epoch", U32), ("flow", Flow), ("reserved", U32 * 4)]


class Event(ctypes.Structure):
    _fields_ = [("time", U64), ("type", U8), ("hook", U8), ("direction", U8), ("verdict", U8), ("reason", U16),
                ("packet_length", U16), ("rule", U32), ("ifindex", U32), ("length", U32), ("generation", U32),
                ("source", U8 * 16), ("destination", U8 * 16), ("source_port", U16), ("destination_port", U16),
                ("ethertype", U16), ("protocol", U8), ("tcp_flags", U8), ("vlan", U16 * 2), ("l3_offset", U8),
                ("reserved", U8), ("network", U16), ("mtu", U16), ("peer", U16), ("reserved2", U16 * 2), ("packet", U8 * 192)]

    @property
    def name(self):
        return EVENTS[self.type]


class Probe(ctypes.Structure):
    _fields_ = [("hook", U32), ("ifindex", U32), ("ingress_ifindex", U32), ("vlan_tci", U16), ("vlan_proto", U16),
                ("from_network", U32), ("from_peer", U32), ("frame", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Explain(ctypes.Structure):
    _fields_ = [(name, U32) for name in (
        "ifindex", "ingress_ifindex", "vlan_present", "vlan_tci", "vlan_proto", "gso_segs", "from_network", "from_peer", "done", "verdict", "reason",
        "rule", "generation", "found", "flow_state", "flow_reply", "judged", "rejudged", "set", "class_id", "class_root",
        "class_leaf", "any_leaf", "fragment", "related", "forwarded", "picked_up", "meta_written", "action", "to", "network",
        "second_rule", "first_rule", "routed", "vni", "fast_path")]

    @property
    def why(self):
        return REASONS[self.reason]


class Control(ctypes.Structure):
    _fields_ = [("schema", U32), ("generation", U32), ("roots", U32 * 8), ("flags", U32), ("pickup_until", U32),
                ("timeout", U32 * 16), ("log_every", U32), ("event_rate", U32), ("reject_rate", U32), ("reserved", U32 * 7)]


assert ctypes.sizeof(Flow) == 128 and ctypes.sizeof(Event) == 280 and ctypes.sizeof(Explain) == 144 and ctypes.sizeof(Control) == 152

Result = namedtuple("Result", "passed reason verdict rule meta out duration")


class World:
    """Counters are read before and after each packet, so a Result says by which reason and rule it went."""

    def __init__(self, directory, flows=4096, flows_new=4096, flows_other=4096):
        lib = ctypes.CDLL(LIBRARY, use_errno=True)
        lib.verdict_open.restype = lib.verdict_message.restype = lib.verdict_control.restype = ctypes.c_void_p
        for function in ("close", "policy", "message", "run", "map", "program", "age", "port", "load_ports", "explain", "events", "rule", "control"):
            getattr(lib, "verdict_" + function).argtypes = None
        self.lib = lib
        self.handle = lib.verdict_open(directory.encode(), flows, flows_new, flows_other)
        if not self.handle:
            raise RuntimeError("cannot load the programs; see the messages above")
        self.handle = ctypes.c_void_p(self.handle)
        self.maps = {}
        self.cpus = self._possible()
        self.control = Control.from_address(lib.verdict_control(self.handle))
        self.defaults = list(self.control.timeout)

    @staticmethod
    def _possible():
        with open("/sys/devices/system/cpu/possible", encoding="ascii") as file:
            return int(re.split("[-,]", file.read().strip())[-1]) + 1

    def close(self):
        self.lib.verdict_close(self.handle)

    # --- maps ---

    def fd(self, name):
        if name not in self.maps:
            self.maps[name] = self.lib.verdict_map(self.handle, name.encode())
            assert self.maps[name] >= 0, name
        return self.maps[name]

    def percpu(self, name, index, size):
        """Sums the 64-bit words of a per-CPU array's element."""
        buffer = (U64 * (size // 8 * self.cpus))()
        key = U32(index)
        if self.lib.bpf_map_lookup_elem(self.fd(name), ctypes.byref(key), buffer):
            raise OSError(ctypes.get_errno(), name)
        words = size // 8
        return tuple(sum(buffer[i::words]) for i in range(words))

    def percpu_first(self, name, n, size):
        """percpu() of the elements below n, in one call."""
        words = size // 8
        keys, values, count, at = (U32 * n)(), (U64 * (n * words * self.cpus))(), U32(n), U32()
        if self.lib.bpf_map_lookup_batch(self.fd(name), None, ctypes.byref(at), keys, values, ctypes.byref(count), None) and count.value != n:
            raise OSError(ctypes.get_errno(), name)
        each = words * self.cpus
        return [tuple(sum(values[i * each + word:(i + 1) * each:words]) for word in range(words)) for i in range(n)]

    def keys(self, name, size):
        key, result = None, []
        while True:
            following = ctypes.create_string_buffer(size)
            if self.lib.bpf_map_get_next_key(self.fd(name), key, following):
                return result
            result.append(following.raw)
            key = following

    def lookup(self, name, key, kind):
        value = kind()
        if self.lib.bpf_map_lookup_elem(self.fd(name), key, ctypes.byref(value)):
            return None
        return value

    def store(self, name, key, value, flags=0):
        assert self.lib.bpf_map_update_elem(self.fd(name), key, bytes(value), ctypes.c_uint64(flags)) == 0, name

    FLOW_TABLES = [("flows4", 16), ("flows6", 40), ("flows4_other", 16), ("flows6_other", 40), ("flows4_new", 16), ("flows6_new", 40)]

    def flow_of(self, table, key):
        """The entry of the key; a proven TCP flow's is in its slot."""
        if table not in ("flows4", "flows6"):
            return self.lookup(table, key, Flow)
        index = self.lookup(table, key, U32)
        return None if index is None else self.lookup("flow_slots", bytes(index), Slot).flow

    def flows(self):
        """[(table without its family digit, key, Flow)]"""
        result = []
        for table, size in self.FLOW_TABLES:
            for key in self.keys(table, size):
                flow = self.flow_of(table, key)
                if flow is not None:
                    result.append((re.sub("[46]", "", table), key, flow))
        return result

    def flow(self):
        """The only flow there is: (table, Flow)."""
        (found,) = self.flows()
        return found[0], found[2]

    def listed(self):
        """A flow as the agent lists it."""
        flow = Flow()
        assert self.lib.verdict_flow(self.handle, ctypes.byref(flow)) == 0
        return flow

    def total(self, index):
        return self.percpu("totals", index, 16)[0]

    def clear(self):
        for table, size in self.FLOW_TABLES + [("frags", 40)]:
            for key in self.keys(table, size):
                index = self.lookup(table, key, U32) if table in ("flows4", "flows6") else None
                self.lib.bpf_map_delete_elem(self.fd(table), key)
                if index is not None:  # as the sweep would
                    self.store("flow_slots", bytes(index), Slot())
                    self.store("flow_free", None, index)
        for name, size in (("flow_hot4", 64), ("flow_hot6", 128)):
            with mmap.mmap(self.fd(name), 65536 * size) as entries:
                entries[:] = bytes(len(entries))
        self.events()
        for state, ticks in enumerate(self.defaults):
            self.control.timeout[state] = ticks
        self.control.flags = 0
        self.control.log_every = 1
        self.control.event_rate = self.control.reject_rate = 1000000

    # --- policy ---

    def policy(self, text):
        r = self.lib.verdict_policy(self.handle, text.encode())
        if r:
            raise ValueError(f"{r}: {ctypes.string_at(self.lib.verdict_message(self.handle)).decode()}")

    def rules(self, ingress=(), egress=(), default=None, host="", more=""):
        """One HostPolicy of flow-style rules, and the Host it is for."""
        lines = [f"apiVersion: heddle.dev/v1alpha1\nkind: Host\nmetadata: {{name: test}}\nspec:\n  uplinks: [{{device: lo}}]\n{host}",
                 "---\napiVersion: heddle.dev/v1alpha1\nkind: HostPolicy\nmetadata: {name: test}\nspec:\n  priority: 100"]
        for name, rules in (("ingress", ingress), ("egress", egress)):
            if rules:
                lines.append(f"  {name}:")
                lines += [f"  - {rule}" for rule in rules]
        if default:
            lines.append(f"  default: {default}")
        self.policy("\n".join(lines) + "\n" + more)

    def rule_name(self, number):
        if number < len(BUILTIN):
            return BUILTIN[number]
        buffer = ctypes.create_string_buffer(64)
        if self.lib.verdict_rule(self.handle, number, buffer, len(buffer)):
            return None
        return buffer.value.decode()

    def port(self, ifindex=UPLINK, flags=PORT_UPLINK, present=True):
        r = self.lib.verdict_port(self.handle, ifindex, flags, int(present))
        assert r == 0, r

    # --- packets ---

    def drops(self):
        """{(reason, direction): packets}"""
        return {(reason, direction): n for number, reason in enumerate(REASONS) for direction in (0, 1)
                if (n := self.percpu("drops", number * 2 + direction, 16)[0])}

    def raw(self, hook, frame, **options):
        frame = bytes(frame)
        run = Run(hook=hook, repeat=options.pop("repeat", 1), **options)
        r = self.lib.verdict_run(self.handle, frame, len(frame), ctypes.byref(run))
        if r:
            raise OSError(-r, os.strerror(-r))
        return run

    def run(self, hook, frame, **options):
        before = self.drops()
        run = self.raw(hook, frame, **options)
        after = self.drops()
        changed = [reason for (reason, direction), n in after.items() if n != before.get((reason, direction), 0)]
        passed = run.verdict == (2 if hook == XDP else -1)
        assert passed or run.verdict == (1 if hook == XDP else 2), run.verdict
        assert passed == (not changed), (run.verdict, changed)
        return Result(passed, changed[0] if changed else "none", run.verdict, None, run.meta_left, bytes(run.out[:run.out_length]), run.duration)

    def explain(self, hook, frame, ifindex=UPLINK, ingress_ifindex=0, vlan=None):
        frame = bytes(frame)
        buffer = ctypes.create_string_buffer(frame, len(frame))
        probe = Probe(hook=hook, ifindex=ifindex, ingress_ifindex=ingress_ifindex, vlan_tci=vlan or 0,
                      vlan_proto=0x8100 if vlan is not None else 0, frame=ctypes.addressof(buffer), length=len(frame))
        page = Explain()
        r = self.lib.verdict_explain(self.handle, ctypes.byref(probe), ctypes.byref(page))
        if r:
            raise OSError(-r, os.strerror(-r))
        return page

    def explain_tunnel(self, frame, network, peer, ifindex=UPLINK):
        """An inner frame that the peer is said to have sent in that network."""
        self.explain(PORT_IN, frame)  # the twins are loaded
        frame = bytes(frame)
        page = Explain(ifindex=ifindex, from_network=network, from_peer=peer)
        r = self.lib.verdict_explain_tunnel(self.handle, frame, len(frame), ctypes.byref(page))
        assert r == 0 and page.done, r
        return page

    def events(self):
        buffer = (Event * 256)()
        result = []
        while True:
            n = self.lib.verdict_events(self.handle, buffer, len(buffer))
            if n <= 0:
                return result
            result += [Event.from_buffer_copy(buffer[i]) for i in range(n)]

    def program(self, hook, twin=False):
        return self.lib.verdict_program(self.handle, hook, int(twin))

    def now(self):
        return U32(self.lib.verdict_now(self.handle)).value

    def credit(self, packets, size, flags=0, forged=False):
        """What a NIC has counted of the only flow: of its first side so much, of the other twice as much. 0 or a negative errno."""
        return self.lib.verdict_credit(self.handle, ctypes.c_uint64(packets), ctypes.c_uint64(size), flags, int(forged))

    def age(self):
        r = self.lib.verdict_age(self.handle)
        assert r == 0, r


def sh(command):
    return subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout
