# SPDX-License-Identifier: Apache-2.0
"""
A real runtime: containerd with its own `ctr run --cni`, which calls the plugin as kubelet's containerd does, by go-cni. Its containers have
busybox and nothing else. (crictl, for the rest of what kubelet asks, is not in Debian 12.)
"""

import json
import pathlib
import shutil
import subprocess
import tempfile

import pytest
from lib.heddled import BUILD, wait_for
from runtime import DEBIAN_CNI

BUSYBOX = "/bin/busybox"
CONFIG = """
version = 2
root = "{0}/root"
state = "{0}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{0}/sock"
[ttrpc]
address = "{0}/ttrpc"
"""
# ctr knows no other folders than these for configurations, plugins and what it remembers; runc remembers below /run/containerd what ran.
PRIVATE = """
set -e
mkdir -p /run/containerd
mount -t tmpfs none /run/containerd
mount --bind "$0/net" /etc/cni/net.d
mount --bind "$0/opt" /opt
mount --bind "$0/lib" /var/lib
exec containerd --config "$0/config.toml"
"""


class Containerd:
    def __init__(self, host, folder):
        self.host, self.folder, self.running = host, folder, {}
        self.rootfs = folder / "rootfs"
        for name in ("bin", "proc", "sys", "dev", "tmp", "etc", "run"):
            (self.rootfs / name).mkdir(parents=True)
        shutil.copy(BUSYBOX, self.rootfs / "bin/busybox")
        for name in ("net", "opt/cni/bin", "lib"):
            (folder / name).mkdir(parents=True)
        shutil.copy(f"{BUILD}/heddle-cni", folder / "opt/cni/bin")
        for name in ("tuning", "loopback"):
            shutil.copy(f"{DEBIAN_CNI}/{name}", folder / "opt/cni/bin")
        plugin = {"type": "heddle-cni", "network": "blue", "socket": host.daemon.socket, "labels": {"app": "web"}}
        chain = [plugin, {"type": "tuning", "sysctl": {"net.core.somaxconn": "123"}}]
        (folder / "net/10-heddle.conflist").write_text(json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": chain}))
        (folder / "config.toml").write_text(CONFIG.format(folder))
        self.log = open(folder / "log", "wb")
        self.daemon = host.ns.popen("unshare", "-m", "sh", "-c", PRIVATE, folder, stdout=self.log, stderr=self.log)
        wait_for(lambda: self.ctr("version", check=False).returncode == 0, 20, 0.2, what="containerd")

    def argv(self, *words):
        return ["nsenter", f"--mount=/proc/{self.daemon.pid}/ns/mnt", "ctr", "--address", self.folder / "sock", *words]

    def ctr(self, *words, check=True):
        return self.host.ns.run(*self.argv(*words), check=check, timeout=60)

    def start(self, name, *words):
        """Runs until kill(); ctr itself then has the plugin take it out."""
        process = self.host.ns.popen(
            *self.argv("run", "--cni", "--rootfs", self.rootfs, name, *words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.running[name] = process
        return process

    def run(self, name, *words):
        return self.ctr("run", "--rm", "--cni", "--rootfs", self.rootfs, name, *words, check=False)

    def kill(self, name):
        self.ctr("task", "kill", "--signal", "SIGKILL", name, check=False)
        self.running.pop(name).wait(timeout=30)
        self.ctr("container", "rm", name, check=False)

    def close(self):
        for name in list(self.running):
            self.kill(name)
        self.daemon.terminate()
        self.daemon.wait(timeout=20)
        self.log.close()


@pytest.fixture
def containerd(host):
    for program in ("containerd", "ctr", "runc", BUSYBOX):
        if not shutil.which(program):
            pytest.skip(f"needs {program}")
    # its sockets want a short path
    c = Containerd(host, pathlib.Path(tempfile.mkdtemp(prefix="c", dir=host.daemon.dir)))
    yield c
    c.close()


def ping(containerd, address, wait=2):
    return containerd.run("client", "/bin/busybox", "ping", "-c1", f"-W{wait}", address).returncode


def test_containers_of_containerd(host, containerd):
    web = containerd.start("web", "/bin/busybox", "sleep", "1000")
    wait_for(lambda: host.attachments() or web.poll() is not None, 20, what="it is attached")
    attachment, = host.attachments()
    # as go-cni names it: the runtime's namespace, and the container
    assert (attachment["containerID"], attachment["ifname"], attachment["state"]) == ("default-web", "eth0", "ready")
    address = attachment["addresses"][0]
    inside = containerd.ctr("task", "exec", "--exec-id", "a", "web", "/bin/busybox", "ip", "address", "show", "dev", "eth0").stdout
    assert f"inet {address}/32" in inside and attachment["mac"] in inside
    assert ping(containerd, address) == 0
    namespace = attachment["port"]["namespace"]
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "web", "namespace": namespace},
              "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"]}}
    host.daemon.apply(policy)
    try:
        assert ping(containerd, address, 1) == 1
    finally:
        host.daemon.api.delete(f"/v1/objects/networkpolicy/web?namespace={namespace}")
    assert ping(containerd, address) == 0
    # those that ended are gone, and the one that is ended is
    assert len(host.attachments()) == 1
    containerd.kill("web")
    wait_for(lambda: host.attachments() == [] and host.devices() == [], 10, what="it is gone")


def test_containerd_without_the_agent(host, containerd):
    """A container that cannot be connected does not start; one that ends meanwhile is taken out at the agent's next start."""
    old = containerd.start("old", "/bin/busybox", "sleep", "1000")
    wait_for(lambda: host.attachments() or old.poll() is not None, 20, what="it is attached")
    host.daemon.kill()
    failed = containerd.run("new", "/bin/busybox", "true")
    assert failed.returncode != 0 and "heddled at" in failed.stderr
    containerd.kill("old")
    host.daemon.start()
    wait_for(lambda: host.attachments() == [] and host.devices() == [], 10, what="it is gone")
