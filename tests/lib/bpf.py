# SPDX-License-Identifier: Apache-2.0
"""The few bpf(2) calls that Debian 12's bpftool and iproute2 cannot make, or not fast: TCX, and large maps as bytes."""

import ctypes
import json
import errno
import os
import platform
import struct
import subprocess

NR_BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
OBJ_GET, PROG_QUERY, MAP_LOOKUP_BATCH, LINK_CREATE = 7, 16, 24, 28
TCX = {"ingress": 46, "egress": 47}

_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    r = _libc.syscall(NR_BPF, command, buffer, len(attributes))
    if r < 0:
        raise OSError(ctypes.get_errno(), f"bpf({command})")
    return r, buffer.raw


def tcx_programs(ns, device, way):
    """Ids of the programs on a TCX hook, in the order they run; empty where the kernel has no TCX."""
    ids = (ctypes.c_uint32 * 64)()
    with ns:
        ifindex = ns.ifindex(device)
        attributes = struct.pack("=IIIIQIIQQQQ", ifindex, TCX[way], 0, 0, ctypes.addressof(ids), 64, 0, 0, 0, 0, 0)
        try:
            _, raw = _bpf(PROG_QUERY, attributes)
        except OSError:
            return []
    return list(ids[: struct.unpack_from("=I", raw, 24)[0]])


def filter_programs(ns, device, side):
    """Ids of the programs of bpf filters on one side (ingress, egress) of a device's clsact qdisc."""
    filters = json.loads(ns.run("tc", "-j", "filter", "show", "dev", device, side, check=False).stdout or "[]")
    return [f["options"]["prog"]["id"] for f in filters if f.get("kind") == "bpf" and "prog" in f.get("options", {})]


def object_get(path):
    encoded = ctypes.create_string_buffer(path.encode())
    fd, _ = _bpf(OBJ_GET, struct.pack("=QII", ctypes.addressof(encoded), 0, 0))
    return fd


def map_bytes(path, info):
    """Keys and values of a pinned map, info as bpftool shows it: a second for what takes bpftool a minute to print."""
    cpus = int(open("/sys/devices/system/cpu/possible", encoding="ascii").read().strip().rsplit("-", 1)[-1]) + 1
    value = info["bytes_value"]
    if info["type"].startswith(("percpu", "lru_percpu")):
        value = (value + 7) // 8 * 8 * cpus
    count = info["max_entries"]
    keys, values = ctypes.create_string_buffer(count * info["bytes_key"]), ctypes.create_string_buffer(count * value)
    position = ctypes.create_string_buffer(max(8, info["bytes_key"]))
    fd = object_get(path)
    attributes = struct.pack(
        "=QQQQIIQQ", 0, ctypes.addressof(position), ctypes.addressof(keys), ctypes.addressof(values), count, fd, 0, 0
    )
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    r = _libc.syscall(NR_BPF, MAP_LOOKUP_BATCH, buffer, len(attributes))
    error = ctypes.get_errno()
    os.close(fd)
    if r < 0 and error != errno.ENOENT:  # how the end of the map is told
        raise OSError(error, f"reading {path}")
    found = struct.unpack_from("=I", buffer.raw, 32)[0]
    return keys.raw[: found * info["bytes_key"]], values.raw[: found * value]


def load_program(path, section, pin):
    """Loads a section of an object with bpftool and returns the program's descriptor; pin is a path in a bpffs."""
    kind = {"tc": "classifier", "xdp": "xdp"}[section.split(".")[0]]
    subprocess.run(["bpftool", "prog", "load", path, pin, "type", kind], check=True, capture_output=True)
    return object_get(pin)


def tcx_attach(ns, device, way, program):
    """A TCX link behind what is there; it lives as long as the descriptor. OSError where the kernel has no TCX."""
    with ns:
        link, _ = _bpf(LINK_CREATE, struct.pack("=IIIIIIQ", program, ns.ifindex(device), TCX[way], 0, 0, 0, 0))
    os.set_inheritable(link, False)
    return link
