# SPDX-License-Identifier: Apache-2.0
"""A container runtime as small as can be: namespaces as containers, and the calls that the specification has for them."""

import itertools
import json
import os
import subprocess

from lib.heddled import BUILD
from lib.netns import Namespace

HEDDLE_CNI = os.environ.get("HEDDLE_CNI", os.path.join(BUILD, "heddle-cni"))
DEBIAN_CNI = "/usr/lib/cni"
VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]

_numbers = itertools.count(1)


class CniError(Exception):
    def __init__(self, plugin, status, error, stderr):
        super().__init__(f"{plugin}: status {status}: {error} {stderr}")
        self.status, self.error, self.stderr = status, error, stderr

    @property
    def code(self):
        return self.error["code"]

    @property
    def msg(self):
        return self.error["msg"]


class Container:
    def __init__(self, name=None):
        self.id = name or f"c{os.getpid()}-{next(_numbers)}"
        self.ns = Namespace("cont")
        self.result = None

    def address(self, family=4):
        for ip in self.result["ips"]:
            if (":" in ip["address"]) == (family == 6):
                return ip["address"].split("/")[0]
        return None

    def interface(self, name="eth0"):
        """What `ip` says of it; None: there is none."""
        result = self.ns.run("ip", "-j", "address", "show", "dev", name, check=False)
        return json.loads(result.stdout)[0] if result.returncode == 0 else None

    def routes(self):
        return [r for f in ("-4", "-6") for r in json.loads(self.ns.run("ip", f, "-j", "route").stdout or "[]")]

    def close(self):
        self.ns.delete()


class Runtime:
    """Calls plugins in the host's namespace, one or a chain of them."""

    def __init__(self, host_ns, socket, network="blue", name="podnet", version="1.0.0", plugins=None, path=DEBIAN_CNI, **config):
        self.host_ns, self.path = host_ns, path
        self.name, self.version = name, version
        self.plugins = plugins or [{"type": "heddle-cni", "network": network, "socket": socket, **config}]

    def environment(self, command, container=None, ifname="eth0", args=None, **variables):
        # PATH alone: what the tests are run with must not be what makes them pass
        env = {"PATH": os.environ["PATH"], "CNI_COMMAND": command, "CNI_PATH": self.path}
        if "ASAN_OPTIONS" in os.environ:
            env["ASAN_OPTIONS"] = os.environ["ASAN_OPTIONS"]
        if container is not None:
            env.update(CNI_CONTAINERID=container.id, CNI_NETNS=container.ns.path, CNI_IFNAME=ifname)
        if args:
            env["CNI_ARGS"] = args
        for key, value in variables.items():
            env.pop(key, None)
            if value is not None:
                env[key] = value
        return env

    def config(self, plugin=None, previous=None, runtime_config=None, **more):
        config = {"cniVersion": self.version, "name": self.name, **(plugin or self.plugins[0])}
        if previous is not None:
            config["prevResult"] = previous
        if runtime_config is not None:
            config["runtimeConfig"] = runtime_config
        config.update(more)
        return {k: v for k, v in config.items() if v is not ...}

    def execute(self, kind, env, config):
        """(status, what it wrote as JSON or None, standard error)"""
        binary = HEDDLE_CNI if kind == "heddle-cni" else os.path.join(DEBIAN_CNI, kind)
        text = config if isinstance(config, str) else json.dumps(config)
        process = self.host_ns.popen(
            binary, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, text=True
        )
        try:
            out, err = process.communicate(text, timeout=60)
        except BaseException:
            process.kill()
            raise
        return process.returncode, json.loads(out) if out.strip() else None, err

    def call(self, command, container=None, plugin=None, variables=None, **config):
        """One plugin. Its answer, or CniError."""
        plugin = plugin or self.plugins[0]
        env_keys = {k: config.pop(k) for k in ("ifname", "args") if k in config}
        env = self.environment(command, container, **env_keys, **(variables or {}))
        status, answer, err = self.execute(plugin["type"], env, self.config(plugin, **config))
        if status != 0:
            raise CniError(plugin["type"], status, answer, err)
        return answer

    # --- a whole chain, as libcni does it ---

    def add(self, container, **config):
        result = None
        for plugin in self.plugins:
            result = self.call("ADD", container, plugin, previous=result, **config)
        container.result = result
        return result

    def check(self, container, **config):
        for plugin in self.plugins:
            assert self.call("CHECK", container, plugin, previous=container.result, **config) is None

    def delete(self, container, **config):
        for plugin in reversed(self.plugins):
            assert self.call("DEL", container, plugin, previous=container.result, **config) is None

    def collect(self, *keep):
        valid = [{"containerID": c.id, "ifname": "eth0"} for c in keep]
        return self.call("GC", **{"cni.dev/valid-attachments": valid})
