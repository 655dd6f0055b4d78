# SPDX-License-Identifier: Apache-2.0
"""heddle-cni first, Debian's plugins behind it."""

import json

import pytest
from conftest import needs_debian
from lib import documents as doc
from lib.netns import Namespace
from lib.traffic import Servers, expect_tcp

pytestmark = needs_debian


def chain(host, *behind, version="1.0.0", **options):
    first = {"type": "heddle-cni", "network": "blue", "socket": host.daemon.socket}
    return host.runtime(plugins=[first, *behind], version=version, **options)


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_tuning(host, version):
    runtime = chain(host, {"type": "tuning", "sysctl": {"net.core.somaxconn": "321"}, "mtu": 1400}, version=version)
    c = host.added(runtime)
    assert c.ns.run("sysctl", "-n", "net.core.somaxconn").stdout.strip() == "321" and c.interface()["mtu"] == 1400
    if version >= "0.4.0":
        runtime.check(c)
    runtime.delete(c)
    runtime.delete(c)
    assert host.devices() == []


def test_bandwidth(host):
    """Its queue sits on the host's end, which it finds in our result."""
    runtime = chain(host, {"type": "bandwidth", "ingressRate": 8000000, "ingressBurst": 1000000})
    c = host.added(runtime)
    kinds = {q["kind"] for q in json.loads(host.ns.run("tc", "-j", "qdisc", "show", "dev", host.devices()[0]).stdout)}
    assert "tbf" in kinds
    runtime.check(c)
    other = host.added(host.runtime(name="plain"))
    with Servers(c.ns, tcp=[8080]):
        expect_tcp(other.ns, c.address(), 8080, "open")
    runtime.delete(c)
    assert host.devices() == [host.attachments()[0]["device"]]


def test_portmap(host):
    """Mappings go to the plugin that has the capability; ours is not asked. Somebody outside then reaches the container by the host's port."""
    host.daemon.apply(doc.network("routed", mode="l3", subnets=["10.81.0.0/24"], gateway=["10.81.0.1"], routesTo=["host"]))
    outside = Namespace("outside")
    host.stack.callback(outside.delete)
    outside.ip("link add name out0 type veth peer name up7")
    outside.run("ip", "link", "set", "up7", "netns", host.ns.name)
    outside.ip("addr add 192.0.2.2/24 dev out0", "link set out0 up")
    host.ns.ip("addr add 192.0.2.1/24 dev up7", "link set up7 up")
    host.ns.sysctl("net.ipv4.ip_forward", 1)
    outside.ip("route add 10.81.0.0/24 via 192.0.2.1")
    first = {"type": "heddle-cni", "network": "routed", "socket": host.daemon.socket}
    runtime = host.runtime(plugins=[first, {"type": "portmap", "capabilities": {"portMappings": True}, "snat": False}])
    mappings = {"portMappings": [{"hostPort": 18080, "containerPort": 8080, "protocol": "tcp"}]}
    c = host.container()
    first, second = runtime.plugins
    result = runtime.call("ADD", c, first)
    c.result = result = runtime.call("ADD", c, second, previous=result, runtime_config=mappings)
    assert [i["name"] for i in result["interfaces"]][1] == "eth0"
    with Servers(c.ns, tcp=[8080]):
        expect_tcp(outside, "192.0.2.1", 18080, "open")
    runtime.call("CHECK", c, first, previous=result)
    # portmap's own CHECK asks for rules of both families, which it makes for those of the container alone: not called
    runtime.call("DEL", c, second, previous=result, runtime_config=mappings)
    runtime.call("DEL", c, first, previous=result)
    assert host.devices() == []
    host.ns.run("ip", "link", "delete", "up7")
