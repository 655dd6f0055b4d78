# SPDX-License-Identifier: Apache-2.0
"""A real runtime: podman with CNI networks calls the plugin for containers of an image that is busybox and nothing else."""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest
from lib.heddled import BUILD, wait_for
from runtime import DEBIAN_CNI

BUSYBOX = "/bin/busybox"
CONFIG = """
[containers]
cgroups = "disabled"
pids_limit = 0
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[network]
network_backend = "cni"
cni_plugin_dirs = ["{build}", "{debian}"]
network_config_dir = "{folder}/net"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "crun"
"""
# It may use neither the limits nor the mixed cgroups of the machine that the tests run on.
HIDE_CGROUP2 = "umount -l /sys/fs/cgroup/unified 2>/dev/null; echo ready; exec sleep infinity"


class Podman:
    def __init__(self, host, folder):
        self.host, self.folder = host, folder
        rootfs = folder / "rootfs"
        for name in ("bin", "proc", "sys", "dev", "tmp", "etc"):
            (rootfs / name).mkdir(parents=True)
        shutil.copy(BUSYBOX, rootfs / "bin/busybox")
        for name in ("sh", "sleep", "ping"):
            (rootfs / "bin" / name).symlink_to("busybox")
        (folder / "net").mkdir()
        (folder / "containers.conf").write_text(CONFIG.format(build=BUILD, debian=DEBIAN_CNI, folder=folder))
        plugin = {"type": "heddle-cni", "network": "blue", "socket": host.daemon.socket, "capabilities": {"ips": True, "mac": True}}
        chain = [plugin, {"type": "tuning", "sysctl": {"net.core.somaxconn": "123"}}]
        (folder / "net/10-pods.conflist").write_text(json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": chain}))
        # one mount namespace for all calls: podman keeps namespaces and file systems mounted in it
        self.mounts = host.ns.popen("unshare", "-m", "--propagation", "slave", "sh", "-c", HIDE_CGROUP2, stdout=subprocess.PIPE, text=True)
        assert self.mounts.stdout.readline() == "ready\n"

    def __call__(self, *argv, check=True):
        command = ["nsenter", f"--mount=/proc/{self.mounts.pid}/ns/mnt", "podman", "--root", self.folder / "root", "--runroot", self.folder / "run"]
        env = {**os.environ, "CONTAINERS_CONF": str(self.folder / "containers.conf")}
        return self.host.ns.run(*command, "--storage-driver", "vfs", *argv, check=check, env=env, timeout=60)

    def run(self, *words, options=(), check=True):
        return self("run", *options, "--network", "pods", "--cap-add", "net_raw", "--rootfs", self.folder / "rootfs", *words, check=check)

    def close(self):
        self("rm", "-f", "-t0", "--all", check=False)
        self.mounts.kill()
        self.mounts.wait()


@pytest.fixture
def podman(host):
    for program in ("podman", "crun", BUSYBOX):
        if not shutil.which(program):
            pytest.skip(f"needs {program}")
    # podman wants a short path
    p = Podman(host, pathlib.Path(tempfile.mkdtemp(prefix="p", dir=host.daemon.dir)))
    yield p
    p.close()


def test_containers_of_podman(host, podman):
    web = podman.run("/bin/sleep", "100", options=["-d", "--name", "web"]).stdout.strip()
    attachment = host.attachments()[0]
    assert (attachment["containerID"], attachment["ifname"], attachment["state"]) == (web, "eth0", "ready")
    assert attachment["port"]["name"].startswith("web-")
    address = attachment["addresses"][0]
    told = json.loads(podman("inspect", "web").stdout)[0]["NetworkSettings"]["Networks"]["pods"]
    assert (told["IPAddress"], told["Gateway"], told["MacAddress"]) == (address, "10.77.0.254", attachment["mac"])
    assert podman.run("/bin/ping", "-c1", "-W2", address, options=["--rm", "--ip", "10.77.0.150"]).returncode == 0
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
              "metadata": {"name": "web", "namespace": attachment["port"]["namespace"]},
              "spec": {"podSelector": {"matchLabels": {"io.kubernetes.pod.name": "web"}}, "policyTypes": ["Ingress"]}}
    host.daemon.apply(policy)
    try:
        assert podman.run("/bin/ping", "-c1", "-W1", address, options=["--rm"], check=False).returncode == 1
    finally:
        host.daemon.api.delete(f"/v1/objects/networkpolicy/web?namespace={attachment['port']['namespace']}")
    # the ones that ended are gone, and the one that is ended is
    assert len(host.attachments()) == 1
    podman("rm", "-f", "-t0", "web")
    assert host.attachments() == []
    wait_for(lambda: host.devices() == [], what="no device")


def test_podman_without_the_agent(host, podman):
    podman.run("/bin/sleep", "100", options=["-d", "--name", "old"])
    host.daemon.kill()
    failed = podman.run("/bin/sleep", "1", options=["--rm"], check=False)
    assert failed.returncode != 0 and "heddled at" in failed.stderr
    podman("rm", "-f", "-t0", "old")
    host.daemon.start()
    assert host.attachments() == [] and host.devices() == []
