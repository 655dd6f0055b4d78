# SPDX-License-Identifier: Apache-2.0
"""
A NIC with VFs that is none: a tree in place of /sys, and veths that stand in for the interfaces. One end of each is a VF's, the other its
representor, so that packets go as in a NIC whose switch is in switchdev mode.
"""

import json
import os
import shutil
import signal
import tempfile
import time

from runtime import HEDDLE_CNI, Runtime

PF = "0000:01:00.0"
# numbers that no namespace gives by itself: the tree knows interfaces by them, wherever they are
PF_INDEX, VF_INDEX, REPRESENTOR_INDEX = 5000, 5100, 5200


def address(i):
    return f"0000:01:10.{i}"


class Nic:
    def __init__(self, ns, count=3, switchdev=True, interfaces=True):
        self.ns, self.count, self.switchdev, self.interfaces = ns, count, switchdev, interfaces
        self.root = tempfile.mkdtemp(prefix=f"hdt-{os.getpid()}-sys-")
        ns.ip(f"link add name pf0 index {PF_INDEX} type veth peer name wire")
        self.put(f"{PF}/sriov_totalvfs", "8")
        self.put(f"{PF}/sriov_numvfs", str(count))
        self.put(f"{PF}/net/pf0/ifindex", str(PF_INDEX))
        self.driver(PF, "mlx5_core")
        for i in range(count):
            self.make_vf(i)

    def path(self, name):
        return os.path.join(self.root, "bus/pci/devices", name)

    def put(self, name, text):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "w", encoding="ascii") as f:
            f.write(text + "\n")

    def link(self, name, target):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        if os.path.lexists(self.path(name)):
            os.unlink(self.path(name))
        os.symlink(target, self.path(name))

    def driver(self, device, name):
        self.link(f"{device}/driver", f"../../drivers/{name}")

    def make_vf(self, i):
        self.link(f"{PF}/virtfn{i}", f"../{address(i)}")
        self.link(f"{address(i)}/physfn", f"../{PF}")
        self.driver(address(i), "mlx5_core" if self.interfaces else "vfio-pci")
        if self.interfaces:
            self.put(f"{address(i)}/net/vf{i}/ifindex", str(VF_INDEX + i))
        if self.switchdev:
            self.put(f"{PF}/net/rep{i}/ifindex", str(REPRESENTOR_INDEX + i))
            self.put(f"{PF}/net/rep{i}/phys_port_name", f"pf0vf{i}")
            self.put(f"{PF}/net/rep{i}/phys_switch_id", "0123456789ab")
        if not self.interfaces and not self.switchdev:
            return
        vf = f"index {VF_INDEX + i} address 02:fe:00:00:00:{i:02x} mtu 1400"
        self.ns.ip(f"link add name vf{i} {vf} type veth peer name rep{i} index {REPRESENTOR_INDEX + i} mtu 1300")

    def in_host(self):
        """What `ip` says of everything in the host's namespace that is a VF's, by its number."""
        links = json.loads(self.ns.run("ip", "-j", "link").stdout)
        return {d["ifindex"] - VF_INDEX: d for d in links if 0 <= d["ifindex"] - VF_INDEX < self.count}

    def as_it_was(self, i):
        vf = self.in_host().get(i)
        return vf and (vf["ifname"], vf["address"], vf["mtu"], "UP" in vf["flags"]) == (f"vf{i}", f"02:fe:00:00:00:{i:02x}", 1400, False)

    def representor(self, i):
        return json.loads(self.ns.run("ip", "-j", "link", "show", "dev", f"rep{i}").stdout)[0]

    def close(self):
        shutil.rmtree(self.root, ignore_errors=True)


class VfRuntime(Runtime):
    """Gives each container the VF that it is asked for, as Multus does with what the device plugin chose."""

    def __init__(self, host, nic, version="1.1.0", **config):
        config.setdefault("stateDir", host.daemon.state_dir)
        super().__init__(host.ns, host.daemon.socket, version=version, **config)
        self.nic = nic

    def environment(self, *args, **kwargs):
        return {**super().environment(*args, **kwargs), "HEDDLE_SYS": self.nic.root}

    def give(self, container, number, **config):
        return self.add(container, deviceID=address(number), pciBusID=address(number), **config)

    def check_vf(self, container, number):
        self.check(container, deviceID=address(number))

    def start(self, command, container, **config):
        """The plugin as a process, which a test may kill."""
        import subprocess

        process = self.host_ns.popen(
            HEDDLE_CNI, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=self.environment(command, container), text=True,
        )  # fmt: skip
        process.stdin.write(json.dumps(self.config(**config)))
        process.stdin.close()
        return process


def killed_after(process, seconds):
    """True: it was still at it."""
    time.sleep(seconds)
    alive = process.poll() is None
    if alive:
        process.send_signal(signal.SIGKILL)
    process.wait()
    return alive
