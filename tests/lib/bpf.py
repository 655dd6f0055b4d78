# SPDX-License-Identifier: Apache-2.0
"""The few bpf(2) calls that Debian 12's bpftool and iproute2 cannot make: TCX links and who is on a TCX hook."""

import ctypes
import os
import platform
import struct
import subprocess

NR_BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
OBJ_GET, PROG_QUERY, LINK_CREATE = 7, 16, 28
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


def load_program(path, section, pin):
    """Loads a section of an object with bpftool and returns the program's descriptor; pin is a path in a bpffs."""
    kind = {"tc": "classifier", "xdp": "xdp"}[section.split(".")[0]]
    subprocess.run(["bpftool", "prog", "load", path, pin, "type", kind], check=True, capture_output=True)
    encoded = ctypes.create_string_buffer(pin.encode())
    fd, _ = _bpf(OBJ_GET, struct.pack("=QII", ctypes.addressof(encoded), 0, 0))
    return fd


def tcx_attach(ns, device, way, program):
    """A TCX link behind what is there; it lives as long as the descriptor. OSError where the kernel has no TCX."""
    with ns:
        link, _ = _bpf(LINK_CREATE, struct.pack("=IIIIIIQ", program, ns.ifindex(device), TCX[way], 0, 0, 0, 0))
    os.set_inheritable(link, False)
    return link
