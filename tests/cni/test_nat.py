# SPDX-License-Identifier: Apache-2.0
"""What the host does to addresses: pods that go outside as the host, and ports of the host that lead to pods."""

import contextlib
import ctypes
import errno
import json
import platform
import socket
import struct

import pytest
from lib import documents as doc
from lib.heddled import wait_for
from lib.nat import WhoAmI, ask, ask_patiently
from lib.netns import Link, Namespace
from lib.traffic import ping
from conftest import CniHost
from runtime import CniError

SUBNETS = ["10.77.0.0/24", "fd77::/64"]
NETWORK = {"mode": "l3", "subnets": SUBNETS, "gateway": ["10.77.0.254", "fd77::fe"], "routesTo": ["host"]}
FAR = ("198.51.100.1", "fd51::1")  # excluded; the world has the way back
DENY_ALL = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "deny", "namespace": "default"}}


def network(**spec):
    return doc.network("blue", **NETWORK, **spec)


class NatHost(CniHost):
    """world (wire0) --- (up0) host, which routes; pods behind it, of which the world knows by FAR alone."""

    def __init__(self, masquerade=True, **options):
        docs = [network(**({"masquerade": {"exclude": ["198.51.100.0/24", "fd51::/64"]}} if masquerade else {}))]
        super().__init__(docs=docs, start=False, host_spec={"uplinks": [{"device": "up0"}]}, **options)
        self.world = Namespace("world")
        self.stack.callback(self.world.delete)
        self.link = Link(self.world, "wire0", self.ns, "up0", 1)
        self.ns.sysctl("net.ipv4.ip_forward", 1)
        self.ns.sysctl("net.ipv6.conf.all.forwarding", 1)
        self.world.ip(*(f"addr add {a} dev lo" for a in FAR))
        self.ns.ip(f"route add {FAR[0]} via {self.link.a4}", f"route add {FAR[1]} via {self.link.a6}")
        self.daemon.start()

    def here(self, family):
        return self.link.b4 if family == 4 else self.link.b6

    def there(self, family):
        return self.link.a4 if family == 4 else self.link.a6

    def nat(self):
        return self.daemon.status()["nat"]

    def tables(self):
        listed = json.loads(self.ns.run("nft", "-j", "list", "tables").stdout)["nftables"]
        return [t["table"]["name"] for t in listed if "table" in t]


def mapping(host_port, port=80, protocol="tcp", address=""):
    return {"HostPort": host_port, "ContainerPort": port, "Protocol": protocol, "HostIP": address}


def mapped(host, *mappings, **config):
    return host.added(host.runtime(), runtime_config={"portMappings": list(mappings)}, **config)


@pytest.fixture(scope="module")
def nat_shared():
    with NatHost() as h:
        yield h


@pytest.fixture
def host(nat_shared):
    yield nat_shared
    nat_shared.runtime(version="1.1.0").collect()


@pytest.mark.parametrize("family", [4, 6])
def test_pods_go_outside_as_the_host(host, family):
    pod, other = host.added(host.runtime(), 2)
    with WhoAmI(host.world, 80), WhoAmI(other.ns, 80), WhoAmI(host.ns, 81):
        for protocol in ("tcp", "udp"):
            assert ask_patiently(pod.ns, host.there(family), 80, protocol) == host.here(family)
            # not to each other, to the host, or to what is excluded
            assert ask_patiently(pod.ns, other.address(family), 80, protocol) == pod.address(family)
            assert ask_patiently(pod.ns, host.here(family), 81, protocol) == pod.address(family)
        host.world.ip(f"route replace {SUBNETS[family == 6]} via {host.here(family)}")
        assert ask(pod.ns, FAR[family == 6], 80) == pod.address(family)
        host.world.ip(f"route del {SUBNETS[family == 6]}")


def test_the_table_is_ours_to_keep():
    with NatHost() as host, WhoAmI(host.world, 80):
        pod = host.added(host.runtime())
        table = host.nat()["table"]
        assert table.startswith("heddle-") and host.nat()["state"] == "in-force" and host.tables() == [table]
        before = host.ns.run("nft", "list", "ruleset").stdout
        # another's transactions are no reason to write it
        host.ns.run("nft", "add", "table", "inet", "other")
        for harm in (["flush", "ruleset"], ["flush", "table", "inet", table], ["delete", "table", "inet", table],
                     ["add", "rule", "inet", table, "postrouting", "counter"]):
            host.ns.run("nft", *harm)
            wait_for(lambda: host.ns.run("nft", "list", "table", "inet", table, check=False).stdout == before, what=f"after {harm}")
        assert ask(pod.ns, host.there(4), 80) == host.here(4)
        host.daemon.kill()
        assert ask(pod.ns, host.there(4), 80) == host.here(4)
        host.ns.run("nft", "flush", "ruleset")
        host.daemon.start()
        assert host.ns.run("nft", "list", "table", "inet", table).stdout == before
        host.daemon.put("00-host.yaml", doc.document("Host", "host", {"uplinks": [{"device": "up0"}]}), network())
        assert host.nat() is None and host.tables() == []
        host.daemon.put("00-host.yaml", doc.document("Host", "host", {"uplinks": [{"device": "up0"}]}), network(masquerade={}))
        assert host.tables() == [table]
        host.daemon.kill()
        host.daemon.write("00-host.yaml", doc.document("Host", "host", {"uplinks": [{"device": "up0"}]}), network())
        host.daemon.start()
        wait_for(lambda: host.tables() == [], what="an earlier agent's table is gone")
        host.daemon.put("00-host.yaml", doc.document("Host", "host", {"uplinks": [{"device": "up0"}]}), network(masquerade={}))
        assert host.tables() == [table]
        host.ns.run("nft", "add", "table", "inet", "other")
        host.daemon.detach()
        assert host.tables() == ["other"]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_port_of_the_host_leads_to_the_pod(host, family, protocol):
    pod = mapped(host, mapping(8080, protocol=protocol), mapping(8081, 81, protocol, host.here(family)))
    other = host.added(host.runtime())
    with WhoAmI(pod.ns, 80, 81):
        for port in (8080, 8081):
            # as who they are: from outside, from another pod, from the host itself
            assert ask_patiently(host.world, host.here(family), port, protocol) == host.there(family)
            assert ask_patiently(other.ns, host.here(family), port, protocol) == other.address(family)
            assert ask_patiently(host.ns, host.here(family), port, protocol) == host.here(family)
            # the way to itself comes back by the host
            assert ask_patiently(pod.ns, host.here(family), port, protocol) == host.here(family)
            assert ask(host.ns, "127.0.0.1" if family == 4 else "::1", port, protocol, timeout=0.3) is None
        if family == 4:
            host.ns.ip("addr add 10.66.1.99/24 dev up0")
            assert ask_patiently(host.world, "10.66.1.99", 8080, protocol) == host.there(4)
            assert ask(host.world, "10.66.1.99", 8081, protocol, timeout=0.5) is None
            host.ns.ip("addr del 10.66.1.99/24 dev up0")
    host.runtime().delete(pod)
    assert ask(host.world, host.here(family), 8080, protocol, timeout=0.5) is None


def test_policy_sees_the_client(host):
    """Of an ingress policy, and of an egress policy of a pod on the same host, which is about the pod behind the port."""
    web = mapped(host, mapping(8080), args="K8S_POD_NAMESPACE=default;K8S_POD_NAME=web")
    good, bad = (host.added(host.runtime(), args=f"K8S_POD_NAMESPACE=default;K8S_POD_NAME={n}") for n in ("good", "bad"))
    select = lambda name: {"podSelector": {"matchLabels": {"io.kubernetes.pod.name": name}}}  # noqa: E731
    host.world.ip("addr add 10.66.1.9/24 dev wire0")
    host.ns.ip(f"neigh replace 10.66.1.9 lladdr {host.link.a_mac} dev up0")
    policy = {**DENY_ALL, "spec": {**select("web"), "policyTypes": ["Ingress"], "ingress": [
        {"from": [{"ipBlock": {"cidr": f"{host.there(4)}/32"}}, select("good")], "ports": [{"port": 80}]}]}}
    with WhoAmI(web.ns, 80):
        host.daemon.apply(policy)
        try:
            assert ask(host.world, host.here(4), 8080) == host.there(4)
            assert ask(host.world, host.here(4), 8080, source="10.66.1.9", timeout=0.5) is None
            assert ask(good.ns, host.here(4), 8080) == good.address()
            assert ask(bad.ns, host.here(4), 8080, timeout=0.5) is None
            # the host's own stack is let in, whatever the policy
            assert ask(host.ns, host.here(4), 8080) == host.here(4)
            host.daemon.apply({**DENY_ALL, "spec": {**select("good"), "policyTypes": ["Egress"], "egress": [
                {"to": [{"ipBlock": {"cidr": f"{host.here(4)}/32"}}]}]}, "metadata": {"name": "out", "namespace": "default"}})
            assert ask(good.ns, host.here(4), 8080, timeout=0.5) is None
        finally:
            for name in ("deny", "out"):
                with contextlib.suppress(Exception):
                    host.daemon.api.delete(f"/v1/objects/networkpolicy/{name}?namespace=default")
        assert ask(good.ns, host.here(4), 8080) == good.address()
    host.world.ip("addr del 10.66.1.9/24 dev wire0")


def test_a_policy_that_changes_ends_a_connection_by_the_host(host):
    web = mapped(host, mapping(8080), args="K8S_POD_NAMESPACE=default;K8S_POD_NAME=web")
    client = host.added(host.runtime(), args="K8S_POD_NAMESPACE=default;K8S_POD_NAME=client")
    listening = web.ns.socket()
    listening.bind(("0.0.0.0", 80))
    listening.listen()
    with listening, client.ns.socket() as s:
        s.settimeout(3)
        s.connect((host.here(4), 8080))
        end, _ = listening.accept()
        with end:
            end.settimeout(3)
            for egress in (False, True):
                s.sendall(b"there")
                assert end.recv(10) == b"there"
                end.sendall(b"back" * 1000)
                got = b""
                while len(got) < 4000:
                    got += s.recv(5000)
                if not egress:
                    # a change that says nothing about it
                    host.daemon.apply({**DENY_ALL, "spec": {"podSelector": {"matchLabels": {"a": "b"}}, "policyTypes": ["Egress"]}})
            host.daemon.apply({**DENY_ALL, "spec": {"podSelector": {"matchLabels": {"io.kubernetes.pod.name": "client"}},
                                                    "policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cidr": "10.66.0.0/16"}}]}]}})
            end.settimeout(0.5)
            s.sendall(b"cut")
            with pytest.raises(TimeoutError):
                end.recv(10)
    host.daemon.api.delete("/v1/objects/networkpolicy/deny?namespace=default")


def test_a_large_answer_in_pieces(host):
    """Fragments of a datagram go the way of the first one, by the host, in both directions."""
    web = mapped(host, mapping(8080, protocol="udp"))
    client = host.added(host.runtime())
    with web.ns.socket(kind=socket.SOCK_DGRAM) as server, client.ns.socket(kind=socket.SOCK_DGRAM) as s:
        server.bind(("0.0.0.0", 80))
        for end in (s, server):
            end.settimeout(3)
        s.connect((host.here(4), 8080))
        for size in (100, 5000, 9000):
            s.send(b"q" * size)
            data, peer = server.recvfrom(10000)
            assert len(data) == size and peer[0] == client.address()
            server.sendto(b"a" * size, peer)
            assert len(s.recv(10000)) == size


def test_one_port_for_one_pod(host):
    first = mapped(host, mapping(8080), mapping(8080, protocol="udp"), mapping(9090, address=host.here(4)))
    holder = host.attachments()[0]["port"]["name"]
    for other in (mapping(8080, 81), mapping(8080, address=host.here(6)), mapping(9090), mapping(9090, address="0.0.0.0")):
        with pytest.raises(CniError) as caught:
            mapped(host, other)
        assert caught.value.code == 101 and holder in caught.value.msg, caught.value.msg
    assert len(host.attachments()) == len(host.devices()) == 1
    mapped(host, mapping(8080, protocol="sctp"), mapping(9090, address="::"), mapping(9090, address="192.0.2.1"))
    host.runtime().delete(first)
    mapped(host, mapping(8080))


@pytest.mark.parametrize("bad, word", [
    (mapping(8080, 0), "containerPort"), (mapping(8080, address="127.0.0.1"), "loopback"), (mapping(8080, address="x"), "hostAddress"),
])
def test_mappings_that_cannot_be(host, bad, word):
    with pytest.raises(CniError) as caught:
        mapped(host, bad)
    assert caught.value.code == 7 and word in caught.value.msg
    assert host.devices() == []


def test_a_network_without_a_way_to_the_host():
    with CniHost(docs=[doc.network("blue", **{**NETWORK, "routesTo": []})]) as host:
        with pytest.raises(CniError) as caught:
            mapped(host, mapping(8080))
        assert caught.value.code == 7 and "routes to the host" in caught.value.msg
        assert host.devices() == [] and host.daemon.status()["nat"] is None


def test_what_ends_without_a_word_and_what_a_restart_finds():
    """Mappings are on disk with the attachment; they go with a container that goes while no agent runs, or without a DEL."""
    with NatHost(masquerade=False) as host:
        assert host.nat() is None
        one, two, three = (mapped(host, mapping(port)) for port in (8081, 8082, 8083))
        host.daemon.kill()
        two.close()
        wait_for(lambda: len(host.devices()) == 2, what="the second one's device is gone")
        with WhoAmI(one.ns, 80):
            assert ask(host.world, host.here(4), 8081) == host.there(4)
            host.daemon.start()
            assert ask(host.world, host.here(4), 8081) == host.there(4)
            listed = host.ns.run("nft", "list", "ruleset").stdout
            assert "8081" in listed and "8082" not in listed and "8083" in listed
            three.close()
            wait_for(lambda: "8083" not in host.ns.run("nft", "list", "ruleset").stdout, 10, what="the third one's is gone")
        host.runtime(version="1.1.0").collect()
        wait_for(lambda: host.tables() == [], what="nothing is asked for")


def without_netfilter():
    """For preexec_fn: to this process the kernel has no netlink family for netfilter (seccomp answers EPROTONOSUPPORT)."""
    load, equal, give = 0x20, 0x15, 0x06
    steps = [(load, 0, 0, 0), (equal, 0, 5, 41), (load, 0, 0, 16), (equal, 0, 3, socket.AF_NETLINK), (load, 0, 0, 32), (equal, 0, 1, 12),
             (give, 0, 0, 0x00050000 | errno.EPROTONOSUPPORT), (give, 0, 0, 0x7FFF0000)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(38, 1, 0, 0, 0)
    assert libc.prctl(22, 2, program) == 0


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers of system calls are another machine's")
def test_a_kernel_without_nf_tables(monkeypatch):
    """It is said, by status and to who asks for a port; all else works."""
    with CniHost(docs=[network()], start=False) as host:
        enter = host.ns._enter_child
        monkeypatch.setattr(host.ns, "_enter_child", lambda: (enter(), without_netfilter()))
        host.daemon.start()
        monkeypatch.undo()
        with pytest.raises(CniError) as caught:
            mapped(host, mapping(8080))
        assert caught.value.code == 101 and "no nf_tables" in caught.value.msg
        assert host.devices() == [] and host.attachments() == []
        host.daemon.put("00-host.yaml", doc.document("Host", "host", {"uplinks": []}), network(masquerade={}))
        assert host.daemon.status()["nat"]["state"] == "failed" and host.daemon.status()["nat"]["reason"] == "the kernel has no nf_tables"
        assert "NOT IN FORCE: the kernel has no nf_tables" in host.daemon.cli("status").stdout
        a, b = host.added(host.runtime(), 2)
        assert ping(a.ns, b.address())
        # and it is there after all
        host.daemon.restart()
        assert host.daemon.status()["nat"]["state"] == "in-force"


def check(host, pod, *mappings):
    """None, or what is wrong."""
    try:
        host.runtime().call("CHECK", pod, previous=pod.result, runtime_config={"portMappings": list(mappings)})
        return None
    except CniError as e:
        assert e.code == 102
        return e.msg


def test_check_of_mappings(host):
    asked = [mapping(8080), mapping(8081, 81, "udp", host.here(4)), mapping(8082, address="::")]
    pod = mapped(host, *asked)
    assert check(host, pod) is None and check(host, pod, *asked) is None and check(host, pod, mapping(8082, address="0:0::0")) is None
    for other in (mapping(8083), mapping(8080, 81), mapping(8080, protocol="udp"), mapping(8080, address=host.here(4)), mapping(8081, 81, "udp"),
                  mapping(8081, 81, "udp", host.here(6))):
        wrong = check(host, pod, *asked, other)
        assert wrong and f"port {other['HostPort']} of the host ({other['Protocol'].upper()})" in wrong
    pod = host.added(host.runtime())
    assert "port 8080" in check(host, pod, mapping(8080))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers of system calls are another machine's")
def test_check_of_mappings_that_are_not_in_force(monkeypatch):
    with NatHost() as host:
        pod = mapped(host, mapping(8080))
        host.daemon.kill()
        enter = host.ns._enter_child
        monkeypatch.setattr(host.ns, "_enter_child", lambda: (enter(), without_netfilter()))
        host.daemon.start()
        monkeypatch.undo()
        assert "no nf_tables" in check(host, pod, mapping(8080)) and check(host, pod) is None
        host.daemon.restart()
        assert check(host, pod, mapping(8080)) is None


def test_many_mappings(host):
    """More than fit into one message."""
    pod = mapped(host, *(mapping(10000 + i, 1 + i) for i in range(250)))
    more = [mapped(host, *(mapping(20000 + 250 * n + i, 1 + i) for i in range(250))) for n in range(3)]
    with WhoAmI(pod.ns, 250), WhoAmI(more[2].ns, 250):
        assert ask(host.world, host.here(4), 10249) == host.there(4)
        assert ask(host.world, host.here(6), 20749) == host.there(6)
