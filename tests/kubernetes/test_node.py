# SPDX-License-Identifier: Apache-2.0
"""What others are told of whether Pods can be connected here: the runtime by its CNI configuration, kubelet by STATUS, the cluster by the Node."""

import json
import os
import signal

import pytest
from cluster import PODS, Cluster
from lib import apiserver as api
from lib.heddled import ROOT, wait_for
from lib.traffic import ping
from runtime import CniError

NODE = ("node-1", "192.168.77.1")
CIDRS = ("10.77.1.0/24", "fd77:0:0:1::/64")
NOT_READY = {"key": "heddle.dev/not-ready", "value": "true", "effect": "NoSchedule"}
NO_SCHEDULE = {"key": "heddle.dev/not-ready", "effect": "NoSchedule"}
OTHER = {"key": "other", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}


class One:
    """A node that does not run yet, with a configuration list for its runtime."""

    def __init__(self, cidrs=CIDRS, plugin=None, **node):
        self.cluster = Cluster(nodes=1, start=False)
        self.server, (self.node,) = self.cluster.server, self.cluster.nodes
        self.daemon = self.node.daemon
        self.server.put(api.node(*NODE, *cidrs, **node))
        self.dir = os.path.join(self.daemon.dir, "net.d")
        self.template = os.path.join(self.daemon.dir, "10-heddle.conflist")
        plugin = {"type": "heddle-cni", "network": "pods", "socket": self.daemon.socket, **(plugin or {})}
        with open(self.template, "w", encoding="utf-8") as f:
            json.dump({"cniVersion": "1.1.0", "name": "pods", "plugins": [plugin]}, f)
        self.path = os.path.join(self.dir, "10-heddle.conflist")
        self.daemon.options += ["--cni-config", self.template, "--cni-dir", self.dir]

    def there(self):
        return os.path.exists(self.path)

    def status(self, **config):
        """None, or what is wrong."""
        try:
            self.cluster.runtime(self.node, version="1.1.0", **config).call("STATUS")
            return None
        except CniError as e:
            assert e.code == 50
            return e.msg

    def known(self):
        return next(o for o in self.server.kinds[api.PATHS["Node"]].objects.values())

    def close(self):
        self.cluster.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def test_the_configuration_is_there_while_pods_can_be_connected():
    with One() as one:
        os.mkdir(one.dir)
        # of before the machine's last start, and of a write that a crash cut short
        for name in (one.path, os.path.join(one.dir, ".heddle-tmp-1-1")):
            with open(name, "w", encoding="utf-8") as f:
                f.write("{}")
        with open(os.path.join(one.dir, "05-other.conf"), "w", encoding="utf-8") as f:
            f.write("{}")
        one.server.put(api.node(*NODE))
        one.daemon.start()
        one.cluster.wait_synced(one.node)
        assert "podCIDR" in one.status() and os.listdir(one.dir) == ["05-other.conf"]
        # with addresses from elsewhere, none of the node's are needed
        assert one.status(ipam={"ranges": ["10.77.9.0/24"]}) is None
        with pytest.raises(CniError) as caught:
            one.cluster.runtime(one.node).add(_container(one.cluster))
        assert caught.value.code == 11 and "podCIDR" in caught.value.msg
        one.server.put(api.node(*NODE, *CIDRS))
        wait_for(one.there, what="the configuration")
        with open(one.path, encoding="utf-8") as now, open(one.template, encoding="utf-8") as wanted:
            assert now.read() == wanted.read()
        assert one.status() is None
        assert "05-other.conf comes before 10-heddle.conflist" in one.daemon.log()
        # an upgrade: it stays, and the node is ready, for a while
        made = os.stat(one.path)
        one.daemon.stop()
        assert one.there() and one.status() is None
        left = os.path.join(one.daemon.run_dir, "left")
        os.utime(left, (0, 0))
        assert "heddled at" in one.status()
        one.daemon.start()
        assert one.status() is None and not os.path.exists(left)
        assert os.stat(one.path).st_ino == made.st_ino, "written once"
        # no upgrade
        one.daemon.kill(signal.SIGKILL)
        assert one.there() and "heddled at" in one.status()
        one.daemon.start()
        # it cannot connect Pods any more: not at once, what passes by itself is no reason
        one.server.delete("Node", "node-1")
        wait_for(lambda: one.status(), what="STATUS says so")
        assert one.there()
        wait_for(lambda: not one.there(), 20, what="it goes")
        one.server.put(api.node(*NODE, *CIDRS))
        wait_for(one.there, what="it is there again")
        one.daemon.stop()
        result = one.node.ns.run(*one.daemon.argv("--detach", "--cni-config", one.template, "--cni-dir", one.dir))
        assert result.returncode == 0 and not one.there() and "heddled at" in one.status()


def _container(cluster):
    from runtime import Container

    made = Container()
    cluster.stack.callback(made.close)
    return made


@pytest.mark.parametrize("text, word", [
    ("{", "line 1"), ("{}", "plugins"), ('{"plugins": [{"type": "heddle-cni"}]}', "network"), ('{"plugins": [{"type": "bridge", "network": "x"}]}', "plugins"),
    (None, "cannot read")])
def test_a_configuration_that_is_none(text, word):
    with One() as one:
        if text is None:
            os.unlink(one.template)
        else:
            with open(one.template, "w", encoding="utf-8") as f:
                f.write(text)
        result = one.node.ns.run(*one.daemon.argv("--config", one.daemon.config, "--state-dir", one.daemon.state_dir, *one.daemon.options), check=False)
        assert result.returncode == 1 and "--cni-config" in result.stderr and word in result.stderr


def test_without_a_cluster_too():
    """Addresses that are given by ranges, and no API server at all."""
    with One(plugin={"ipam": {"ranges": ["10.77.5.0/24"]}}) as one:
        one.daemon.options = one.daemon.options[-4:]
        one.daemon.start()
        wait_for(one.there, what="the configuration")
        result = one.node.ns.run(*one.daemon.argv("--node-ready"), check=False)
        assert result.returncode == 2 and "--kubernetes" in result.stderr


def taints(one):
    return one.known()["spec"].get("taints")


def condition(one):
    return [c["status"] for c in one.known()["status"]["conditions"] if c["type"] == "NetworkUnavailable"]


def test_the_node_is_marked_ready():
    ready, unavailable = {"type": "Ready", "status": "True"}, {"type": "NetworkUnavailable", "status": "True", "reason": "NoRouteCreated"}
    with One(cidrs=(), taints=[NOT_READY, OTHER], conditions=[ready, unavailable]) as one:
        one.daemon.options.append("--node-ready")
        one.daemon.start()
        one.cluster.wait_synced(one.node)
        assert one.server.patches == []
        # somebody else is faster, and then it is refused: it is tried again
        one.server.fail("403", 1)
        one.server.put(api.node(*NODE, *CIDRS, taints=[NOT_READY, OTHER], conditions=[ready, unavailable]))
        wait_for(lambda: taints(one) == [OTHER], 20, what="the taint is off")
        assert condition(one) == ["False"] and one.known()["status"]["conditions"][0] == ready
        assert one.there() and "403: nodes \"node-1\" is forbidden" in one.daemon.log()
        done = len(one.server.patches)
        # what it came to is no reason to do anything, and no taint of another's is
        one.server.put(api.namespace("more"), api.node(*NODE, *CIDRS, taints=[OTHER]))
        one.daemon.restart()
        one.cluster.wait_synced(one.node)
        assert len(one.server.patches) == done
        # the machine was started anew, and kubelet has put it there once more
        one.server.put(api.node(*NODE, *CIDRS, taints=[OTHER, NOT_READY]))
        wait_for(lambda: taints(one) == [OTHER], 20, what="the taint is off")


def test_a_taint_of_another_name():
    with One(taints=[{"key": "example.org/wait", "effect": "NoExecute"}, NOT_READY]) as one:
        one.daemon.options.append("--node-ready=example.org/wait")
        one.daemon.start()
        wait_for(lambda: taints(one) == [NOT_READY], 20, what="the taint is off")


def test_a_node_that_others_change_meanwhile():
    """The server refuses what was meant for other taints; the watch says what they are, and it is done right then."""
    with One(taints=[NOT_READY]) as one:
        one.daemon.options.append("--node-ready")
        one.daemon.start()
        wait_for(lambda: taints(one) == [], 20, what="the taint is off")
        # the watch does not tell of this one
        with one.server.lock:
            kind = one.server.kinds[api.PATHS["Node"]]
            node = kind.objects[None, "node-1"]
            kind.objects[None, "node-1"] = {**node, "spec": {**node["spec"], "taints": [OTHER, NOT_READY]}}
            kind.log.append((one.server.version + 1, "MODIFIED", {**node, "spec": {**node["spec"], "taints": [NOT_READY]}}))
            one.server.version += 1
            one.server.lock.notify_all()
        before = len(one.server.patches)
        wait_for(lambda: len(one.server.patches) > before, 20, what="it is tried")
        assert taints(one) == [OTHER, NOT_READY]
        one.server.put(api.node(*NODE, *CIDRS, taints=[OTHER, NOT_READY]))
        wait_for(lambda: taints(one) == [OTHER], 20, what="the taint is off")


def test_a_node_that_cannot_serve_for_long_is_marked_again():
    unavailable = {"type": "NetworkUnavailable", "status": "False"}
    with One(taints=[OTHER], conditions=[unavailable]) as one:
        one.daemon.options.append("--node-ready")
        one.daemon.start()
        one.cluster.wait_synced(one.node)
        wait_for(one.there, what="it can serve")
        # what passes by itself, and an agent that ends, are no reason
        one.server.put(api.node(*NODE, taints=[OTHER], conditions=[unavailable]))
        wait_for(lambda: one.status(), what="STATUS says so")
        one.server.put(api.node(*NODE, *CIDRS, taints=[OTHER], conditions=[unavailable]))
        wait_for(lambda: one.status() is None, what="it can again")
        one.daemon.restart()
        one.cluster.wait_synced(one.node)
        assert one.server.patches == []
        one.server.put(api.node(*NODE, taints=[OTHER], conditions=[unavailable]))
        wait_for(lambda: taints(one) == [OTHER, NO_SCHEDULE], 30, what="the taint is back")
        assert condition(one) == ["True"] and not one.there()
        reason = next(c["reason"] for c in one.known()["status"]["conditions"])
        # somebody takes it off: it is put there again, at once
        one.server.put(api.node(*NODE, taints=[OTHER], conditions=[{**unavailable, "status": "True", "reason": reason}]))
        wait_for(lambda: taints(one) == [OTHER, NO_SCHEDULE], 30, what="the taint is back")
        one.server.put(api.node(*NODE, *CIDRS, taints=taints(one), conditions=one.known()["status"]["conditions"]))
        wait_for(lambda: taints(one) == [OTHER], 30, what="the taint is off")
        assert condition(one) == ["False"] and one.there() and reason == "HeddleIsNotReady"


@pytest.mark.parametrize("before", [None, [OTHER]])
def test_taking_it_out_says_so_first(before):
    """--detach, of a node that never had a taint too; with the server away everything else is done all the same."""
    more = {} if before is None else {"taints": before}
    with One(conditions=[{"type": "NetworkUnavailable", "status": "True"}], **more) as one:
        one.daemon.options.append("--node-ready")
        one.daemon.start()
        wait_for(lambda: condition(one) == ["False"], 20, what="it can serve")
        wait_for(one.there, what="the configuration")
        words = ["--detach", *one.daemon.options]
        # somebody else is faster, once
        fail_once = len(one.server.patches)
        one.server.fail("409", 1)
        result = one.node.ns.run(*one.daemon.argv(*words), check=False)
        assert result.returncode == 0, result.stderr
        assert len(one.server.patches) > fail_once + 2
        assert condition(one) == ["True"] and taints(one) == [*(before or []), NO_SCHEDULE] and not one.there()
        done = len(one.server.patches)
        # it is so already, and then there is no such Node: nothing to say
        assert one.node.ns.run(*one.daemon.argv(*words), check=False).returncode == 0
        one.server.delete("Node", "node-1")
        assert one.node.ns.run(*one.daemon.argv(*words), check=False).returncode == 0
        assert len(one.server.patches) == done
        one.server.down()
        with open(one.path, "w", encoding="utf-8") as f:
            f.write("{}")
        result = one.node.ns.run(*one.daemon.argv(*words), check=False)
        assert result.returncode == 1 and "cannot say at https://127.0.0.1" in result.stderr and not one.there()


def test_nothing_is_said_unasked():
    with One(taints=[NOT_READY], conditions=[{"type": "NetworkUnavailable", "status": "True"}]) as one:
        one.daemon.start()
        wait_for(one.there, what="it can serve")
        one.server.put(api.namespace("more"))
        wait_for(lambda: one.cluster.status(one.node)["kinds"][1]["objects"] == 2, what="it follows")
        assert one.server.patches == [] and taints(one) == [NOT_READY]


# What kubelet's container is to the agent: nothing may be written but what is mounted, and /proc/sys is not among that.
CONTAINER = """
set -e
mount --bind "$0" "$0"
mount -t bpf bpf "$0/bpffs"
mkdir -p "$0/proc-sys/net" && mount --bind /proc/sys/net "$0/proc-sys/net"
mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys
mount -o remount,bind,ro /
exec setpriv --no-new-privs --bounding-set=CAPABILITIES -- env HEDDLE_PROC_SYS="$0/proc-sys" "$@"
"""


def manifest():
    import yaml

    with open(os.path.join(ROOT, "cni", "kubernetes.yaml"), encoding="utf-8") as f:
        return list(yaml.safe_load_all(f))


def test_the_manifest_is_enough():
    """Its configuration list, its command and its capabilities; a Pod of both families, and the tunnel's slow path."""
    documents = {d["kind"]: d for d in manifest()}
    container = documents["DaemonSet"]["spec"]["template"]["spec"]["containers"][0]
    context = container["securityContext"]
    assert "privileged" not in context and context["capabilities"]["drop"] == ["ALL"]
    kept = "-all," + ",".join("+" + c.lower() for c in context["capabilities"]["add"])
    with One(taints=[NOT_READY]) as one:
        with open(one.template, "w", encoding="utf-8") as f:
            f.write(documents["ConfigMap"]["data"]["10-heddle.conflist"])
        command = [a for a in container["command"][1:] if not a.startswith(("--kubernetes", "--cni-"))]
        one.daemon.options += command
        whole = one.daemon.argv
        one.daemon.argv = lambda *more: ["unshare", "-m", "sh", "-c", CONTAINER.replace("CAPABILITIES", kept), one.daemon.dir, *whole(*more)]
        routes = {**PODS, "spec": {**PODS["spec"], "routesTo": ["host"]}}
        one.daemon.write("10-network.yaml", routes)
        one.daemon.start()
        wait_for(one.there, what="the configuration")
        with open(one.path, encoding="utf-8") as f:
            assert json.load(f)["plugins"][0]["type"] == "heddle-cni"
        wait_for(lambda: taints(one) == [], 20, what="the taint is off")
        one.node.ns.sysctl("net.ipv6.conf.default.disable_ipv6", 1)
        web = one.cluster.pod(one.node, "web")
        one.node.ns.ip("addr add 10.77.255.254/32 dev lo", "addr add fd77::fe/128 dev lo")
        for family in (4, 6):
            assert ping(one.node.ns, web.container.address(family)), f"IPv{family}"
        status = one.daemon.status()
        assert status["tunnel"]["slowPath"]["device"] == "heddle-tunnel" and status["ports"][0]["state"] == "ready"
        with open(f"/proc/{one.daemon.process.pid}/status", encoding="ascii") as f:
            left = next(int(line.split()[1], 16) for line in f if line.startswith("CapEff"))
        assert left == sum(1 << n for n in (2, 12, 13, 14, 38, 39)), "DAC_READ_SEARCH, NET_ADMIN, NET_RAW, IPC_LOCK, PERFMON, BPF"
        assert "cannot" not in one.daemon.log()
