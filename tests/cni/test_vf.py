# SPDX-License-Identifier: Apache-2.0
"""VFs into containers and back, with veths as their interfaces (vfs.py). On a real NIC: tests/kernel/igb."""

import json
import os
import re
import shutil
import signal

import pytest
from conftest import CniHost
from lib import documents as doc
from lib.heddled import wait_for
from lib.traffic import ping
from runtime import CniError
from vfs import PF, VF_INDEX, Nic, VfRuntime, address, killed_after

WIRE = doc.network("wire", mode="l2", vlan=10, subnets=["10.79.0.0/24"], gateway=["10.79.0.254"])


class VfHost(CniHost):
    def __init__(self, **nic):
        super().__init__(start=False)
        self.nic = Nic(self.ns, **nic)
        self.stack.callback(self.nic.close)
        self.daemon.env["HEDDLE_SYS"] = self.nic.root
        self.daemon.write("10-wire.yaml", WIRE)
        self.daemon.start()

    def vf_runtime(self, **config):
        return VfRuntime(self, self.nic, **config)

    def records(self):
        try:
            return sorted(n for n in os.listdir(f"{self.daemon.state_dir}/loans") if n[0] != ".")
        except FileNotFoundError:
            return []

    def vfs(self):
        return self.daemon.api.get("/v1/vfs")["items"]

    def record(self, vf):
        with open(f"{self.daemon.state_dir}/loans/{address(vf)}", encoding="utf-8") as f:
            return json.load(f)

    def with_vf(self, number, runtime=None, **config):
        c = self.container()
        (runtime or self.vf_runtime()).give(c, number, **config)
        return c

    def returned_by_the_kernel(self, container, name):
        """What the end of a namespace does with a VF's interface. A veth would be gone: it is moved by hand before."""
        container.ns.ip("link set eth0 down", "link set eth0 name moving")
        container.ns.ip(f"link set moving netns {self.ns.name}")
        self.ns.ip(f"link set moving name {name}")
        container.ns.delete()

    def abandoned(self):
        return int(re.search(r"^heddle_cni_vf_abandoned_total (\d+)$", self.daemon.api.get("/metrics"), re.M)[1])

    def wait_idle_user_space(self):
        wait_for(lambda: not self.records() and not self.attachments(), 15, what="nothing is left")

    def wait_idle(self, *vfs):
        """Nobody has a VF, and nothing of anybody's is left."""
        wait_for(lambda: not self.records(), 15, what="no record")
        wait_for(lambda: not self.attachments(), 15, what="no attachment")
        for vf in vfs or range(self.nic.count):
            wait_for(lambda vf=vf: self.nic.as_it_was(vf), 15, what=f"VF {vf} is as it was: {self.nic.in_host()}")


@pytest.fixture(scope="module")
def shared_vfs():
    with VfHost() as h:
        yield h


@pytest.fixture
def host(shared_vfs):
    h = shared_vfs
    if h.daemon.process is None:
        h.daemon.start()
    yield h
    if h.daemon.process is None:
        h.daemon.start()
    h.vf_runtime().collect()
    h.wait_idle()


def test_a_vf_goes_into_a_container_and_back(host):
    runtime = host.vf_runtime()
    a, b, plain = host.with_vf(0), host.with_vf(1), host.added(host.runtime())
    by_name = {i["name"]: i for i in a.result["interfaces"]}
    inside = a.interface()
    assert by_name["eth0"] == {
        "name": "eth0", "mac": inside["address"], "mtu": inside["mtu"], "pciID": address(0), "sandbox": a.ns.path,
    }  # fmt: skip
    assert set(by_name) == {"eth0", "rep0"} and a.result["ips"][0]["interface"] == 1
    assert "UP" in inside["flags"] and inside["mtu"] == 1500 and inside["ifindex"] == VF_INDEX
    assert {r["dst"] for r in a.routes()} >= {"default", "10.77.0.254"}
    assert "UP" in host.nic.representor(0)["flags"] and host.nic.representor(0)["mtu"] == 1500
    port = next(p for p in host.daemon.status()["ports"] if p["device"] == "rep0")
    assert port["state"] == "ready" and port["mac"] == inside["address"] and port["addresses"] == [a.address(), a.address(6)]
    assert ping(a.ns, b.address()) and ping(a.ns, b.address(6)) and ping(a.ns, plain.address()) and ping(plain.ns, b.address())
    # its source is checked as a veth's is
    a.ns.ip("addr add 10.77.0.200/32 dev eth0")
    assert not ping(a.ns, b.address(), source="10.77.0.200", answered=False)
    runtime.check_vf(a, 0)
    attachment = next(x for x in host.attachments() if x["containerID"] == a.id)
    assert (attachment["pci"], attachment["device"], attachment["state"]) == (address(0), "rep0", "ready")
    vf = host.vfs()[0]
    assert vf["port"]["name"] == attachment["port"]["name"] and vf["port"]["state"] == "ready"
    for _ in range(2):
        runtime.delete(a)
        assert host.nic.as_it_was(0) and host.records() == [address(1)]
        assert host.nic.representor(0)["mtu"] == 1300 and "UP" not in host.nic.representor(0)["flags"]
    assert {x["containerID"] for x in host.attachments()} == {b.id, plain.id}
    with pytest.raises(CniError, match="not the container's"):
        runtime.check_vf(a, 0)
    runtime.check_vf(b, 1)
    host.runtime().delete(plain)


def test_two_containers_one_after_another(host):
    """A DEL that comes when the VF is another's already does nothing to it."""
    runtime = host.vf_runtime()
    first = host.with_vf(0)
    mac = first.interface()["address"]
    with pytest.raises(CniError, match=f"is eth0 of container {first.id}") as e:
        host.with_vf(0)
    assert e.value.code == 11 and first.interface()["address"] == mac
    runtime.check_vf(first, 0)
    runtime.delete(first)
    second = host.with_vf(0)
    for _ in range(2):
        runtime.delete(first)
    # the path of the first one's namespace is the second's by now
    first.ns.delete()
    env = {"CNI_NETNS": second.ns.path}
    runtime.call("DEL", first, variables=env, deviceID=address(0))
    assert second.interface()["mtu"] == 1500
    runtime.check_vf(second, 0)
    runtime.delete(second)


@pytest.mark.parametrize("name", ["dev77", "eth0"])
def test_a_namespace_that_ends_without_a_del(host, name):
    runtime = host.vf_runtime()
    a, b = host.with_vf(0), host.with_vf(1)
    before = host.abandoned()
    host.returned_by_the_kernel(a, name)
    wait_for(lambda: host.nic.as_it_was(0), 15, what="the VF is as it was")
    wait_for(lambda: [x["containerID"] for x in host.attachments()] == [b.id], 15, what="its port goes")
    assert host.records() == [address(1)] and host.abandoned() == before + 1
    # the runtime's DEL comes late
    runtime.delete(a)
    runtime.check_vf(b, 1)


def test_a_namespace_that_ends_while_the_agent_is_down(host):
    a, b = host.with_vf(0), host.with_vf(1)
    host.daemon.kill()
    host.returned_by_the_kernel(a, "dev7")
    host.daemon.start()
    assert [x["containerID"] for x in host.attachments()] == [b.id]
    wait_for(lambda: host.nic.as_it_was(0), 15, what="the VF is as it was")
    host.vf_runtime().check_vf(b, 1)


def test_the_next_one_comes_before_the_agent_has_noticed(host):
    runtime = host.vf_runtime()
    a = host.with_vf(0)
    host.returned_by_the_kernel(a, "dev7")
    b = host.with_vf(0)
    assert [x["containerID"] for x in host.attachments()] == [b.id] and host.record(0)["vf"]["name"] == "vf0"
    runtime.delete(a)
    runtime.check_vf(b, 0)
    runtime.delete(b)
    host.wait_idle()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_del_while_the_agent_is_down(host, how):
    runtime = host.vf_runtime()
    a, b = host.with_vf(0), host.with_vf(1)
    host.daemon.kill(how)
    for _ in range(2):
        runtime.delete(a)
        assert host.nic.as_it_was(0) and a.interface() is None
    host.daemon.start()
    assert [x["containerID"] for x in host.attachments()] == [b.id]
    runtime.check_vf(b, 1)
    runtime.check_vf(host.with_vf(0, runtime), 0)


def test_a_name_that_somebody_has_by_now(host):
    a = host.with_vf(0)
    host.ns.ip("link add name vf0 type veth peer name other")
    try:
        host.vf_runtime().delete(a)
        vf = host.nic.in_host()[0]
        assert vf["address"] == "02:fe:00:00:00:00" and vf["mtu"] == 1400 and not host.records()
    finally:
        host.ns.ip("link delete vf0", f"link set {host.nic.in_host()[0]['ifname']} name vf0")


def test_gc(host):
    runtime = host.vf_runtime()
    a, b = host.with_vf(0), host.with_vf(1)
    runtime.collect(b)
    assert host.nic.as_it_was(0) and host.records() == [address(1)]
    runtime.check_vf(b, 1)
    # another configuration's
    other = host.vf_runtime(name="other")
    other.collect()
    runtime.check_vf(b, 1)
    host.daemon.kill()
    with pytest.raises(CniError):
        runtime.collect()
    assert host.nic.as_it_was(1) and not host.records()


def test_the_plugin_is_killed_at_any_moment(host):
    """Then DEL, as runtimes do: the VF is as it was. Some of the ADDs, and of the DELs, come through."""
    runtime, killed = host.vf_runtime(), 0
    for i in range(24):
        c = host.container()
        killed += killed_after(runtime.start("ADD", c, deviceID=address(0)), i * 0.0015)
        if i % 3 == 0:
            killed += killed_after(runtime.start("DEL", c, deviceID=address(0)), (i % 8) * 0.001)
        if i % 8 == 7:
            host.daemon.kill()
        runtime.delete(c)
        assert host.nic.as_it_was(0) and not host.records(), (i, host.nic.in_host())
        if host.daemon.process is None:
            host.daemon.start()
    assert killed > 4
    host.wait_idle()
    host.vf_runtime().check_vf(host.with_vf(0), 0)


def test_an_add_that_was_killed_is_made_good_by_the_next(host):
    """No DEL comes, the namespaces stay, and the agent starts anew: the next ADD for the VF finds it, or says that it is not back."""
    runtime, failed = host.vf_runtime(), 0
    for i in range(8):
        c = host.container()
        killed_after(runtime.start("ADD", c, deviceID=address(0)), i * 0.003)
        if i % 2:
            host.daemon.kill()
            host.daemon.start()
        try:
            second = host.with_vf(0, runtime)
        except CniError as e:
            assert e.code == 11, e
            failed += 1
            runtime.delete(c)
            second = host.with_vf(0, runtime)
        runtime.check_vf(second, 0)
        runtime.delete(second)
        runtime.delete(c)
        host.wait_idle()


def test_a_reboot(host):
    """The VF is made anew by then, and what is recorded of an earlier one means nothing."""
    a = host.with_vf(0)
    host.daemon.kill()
    path = f"{host.daemon.state_dir}/loans/{address(0)}"
    record = host.record(0)
    record["boot"] = "another"
    with open(path, "w", encoding="utf-8") as f:
        json.dump(record, f)
    a.ns.ip("link set eth0 down", f"link set eth0 mtu 1400 address 02:fe:00:00:00:00 name vf0 netns {host.ns.name}")
    host.ns.ip("link set rep0 down mtu 1300")
    host.daemon.start()
    assert host.attachments() == []
    host.wait_idle()
    host.vf_runtime().delete(a)


def test_what_multus_says(host):
    runtime = host.vf_runtime()
    for config in (
        {"deviceID": address(0).upper(), "pciBusID": address(0)},
        {"runtime_config": {"deviceID": address(0)}},
        {"pciBusID": address(0)},
    ):
        c = host.container()
        runtime.add(c, **config)
        assert c.interface()["ifindex"] == VF_INDEX
        # what it is told again need not be what it was
        runtime.delete(c)
        host.wait_idle()
    for config, code, message in (
        ({"deviceID": address(0), "runtime_config": {"deviceID": address(1)}}, 7, "want one device"),
        ({"deviceID": "mlx5_core.sf.4"}, 7, "want the PCI address of a VF"),
        ({"deviceID": PF}, 7, "there is no such VF"),
        ({"deviceID": "0000:09:00.0"}, 7, "there is no such VF"),
        ({"deviceID": address(0), "vf": {"pf": "pf0", "index": 0}}, 7, "vf.pf: want none"),
        ({"deviceID": address(0), "vf": {"vlan": 5000}}, 7, "spec.vf.vlan"),
        ({"deviceID": address(0), "stateDir": "/nowhere"}, 7, "stateDir: want heddled's"),
    ):
        with pytest.raises(CniError, match=message) as e:
            runtime.add(host.container(), **config)
        assert e.value.code == code, config
    host.wait_idle()


def test_another_state_directory(host, tmp_path):
    os.mkdir(tmp_path / "loans")
    with pytest.raises(CniError, match=f"want heddled's, {host.daemon.state_dir}") as e:
        host.with_vf(0, host.vf_runtime(stateDir=str(tmp_path)))
    assert e.value.code == 7 and os.listdir(tmp_path / "loans") == [".lock"]
    host.wait_idle()


def test_a_vf_of_a_file(host):
    """What a document has is not for containers."""
    port = doc.document("Port", "vm", {"vf": {"pf": "pf0", "index": 2}, "network": "blue", "mac": "02:00:00:00:00:09"})
    host.daemon.put("50-vm.yaml", port)
    try:
        with pytest.raises(CniError, match="is that of Port default/vm"):
            host.with_vf(2)
    finally:
        host.daemon.put("50-vm.yaml")


def test_older_versions_say_what_they_can(host):
    runtime = host.vf_runtime(version="0.4.0")
    c = host.with_vf(0, runtime)
    assert all("pciID" not in i for i in c.result["interfaces"]) and c.result["interfaces"][1]["name"] == "eth0"
    runtime.check_vf(c, 0)
    runtime.delete(c)


# --- a NIC in legacy mode ---


def test_legacy_mode():
    """The stand-in for the PF takes no settings: what is refused is said, and a VLAN that is refused is no container."""
    with VfHost(switchdev=False, count=2) as host:
        runtime = host.vf_runtime(network="wire")
        with pytest.raises(CniError, match="VF 0000:01:10.0 cannot be set up through its PF"):
            host.with_vf(0, runtime)
        host.wait_idle()
        with pytest.raises(CniError, match="Network blue is not on the wire"):
            host.with_vf(0)
        with pytest.raises(CniError, match="want none of a VF"):
            host.with_vf(0, runtime, runtime_config={"bandwidth": {"ingressRate": 1000000}})
        untagged = {"vf": {"vlan": 0}}
        c = host.with_vf(0, runtime, **untagged)
        assert [i["name"] for i in c.result["interfaces"]] == ["eth0"] and c.result["ips"][0]["interface"] == 0
        assert c.interface()["address"] == c.result["interfaces"][0]["mac"]
        runtime.check_vf(c, 0)
        attachment = host.attachments()[0]
        assert attachment["state"] == "legacy" and attachment["device"] is None
        for word in ("no policy", "source checks", "overlay", "limits"):
            assert word in attachment["reason"]
        assert host.daemon.status()["ports"][0]["reason"] == attachment["reason"]
        vf = host.vfs()[0]
        assert {r["setting"] for r in vf["refused"]} == {"mac", "vlan", "spoofCheck"}
        # its packets reach the wire, which is the other end here
        host.ns.ip("link set rep0 up", "addr add 10.79.0.200/24 dev rep0")
        assert ping(c.ns, "10.79.0.200")
        host.daemon.kill()
        host.daemon.start()
        runtime.check_vf(c, 0)
        runtime.delete(c)
        host.wait_idle()


# --- VFs of virtual machines, and of DPDK ---


@pytest.mark.parametrize("switchdev", [True, False])
def test_a_vf_of_user_space(switchdev):
    with VfHost(switchdev=switchdev, interfaces=False, count=2) as host:
        runtime = host.vf_runtime(network="blue" if switchdev else "wire", **({} if switchdev else {"vf": {"vlan": 0}}))
        c = host.with_vf(0, runtime)
        own = next(i for i in c.result["interfaces"] if i["name"] == "eth0")
        assert own["pciID"] == address(0) and own["mtu"] == 1500 and own["sandbox"] == c.ns.path
        assert c.interface() is None and c.address()
        assert host.attachments()[0]["state"] == ("ready" if switchdev else "legacy")
        runtime.check_vf(c, 0)
        with pytest.raises(CniError) as e:
            host.with_vf(0, runtime)
        assert e.value.code == 11
        host.daemon.kill()
        host.daemon.start()
        runtime.check_vf(c, 0)
        if switchdev:
            assert "UP" in host.nic.representor(0)["flags"]
        # the next one for the VF need not wait for the agent to notice
        c.ns.delete()
        d = host.with_vf(0, runtime)
        runtime.delete(c)
        runtime.check_vf(d, 0)
        host.daemon.kill()
        runtime.delete(d)
        host.daemon.start()
        wait_for(lambda: not host.attachments() and not host.records(), 15, what="nothing is left")
        if switchdev:
            assert "UP" not in host.nic.representor(0)["flags"] and host.nic.representor(0)["mtu"] == 1300


@pytest.mark.parametrize("switchdev", [True, False])
def test_a_vf_of_user_space_whose_container_ends_without_a_del(switchdev):
    """Nothing comes back that could be seen: what is heard is that the namespace ended."""
    with VfHost(switchdev=switchdev, interfaces=False, count=3) as host:
        runtime = host.vf_runtime(network="blue" if switchdev else "wire", **({} if switchdev else {"vf": {"vlan": 0}}))
        a, b = host.with_vf(0, runtime), host.with_vf(1, runtime)
        assert host.record(0)["netns"]["id"] != host.record(1)["netns"]["id"]
        a.ns.delete()
        wait_for(lambda: host.records() == [address(1)], 15, what="the VF is given back")
        assert [x["containerID"] for x in host.attachments()] == [b.id]
        assert f"container {a.id} ended without a DEL: VF {address(0)} is taken back" in host.daemon.log()
        assert host.abandoned() == 1
        if switchdev:
            assert "UP" not in host.nic.representor(0)["flags"] and host.nic.representor(0)["mtu"] == 1300
            assert "UP" in host.nic.representor(1)["flags"]
        runtime.check_vf(b, 1)
        # its DEL comes late: by then the VF, and the number of its namespace, are another's
        c = host.with_vf(0, runtime)
        assert host.record(0)["containerID"] == c.id
        runtime.delete(a)
        runtime.check_vf(c, 0)
        # while the agent is down
        host.daemon.kill()
        b.ns.delete()
        wait_for(lambda: str(host.record(1)["netns"]["id"]) not in netns_ids(host), 15, what="the namespace has ended")
        host.daemon.start()
        assert [x["containerID"] for x in host.attachments()] == [c.id]
        wait_for(lambda: host.records() == [address(0)], 15, what="the VF is given back")
        runtime.check_vf(c, 0)
        # a DEL that comes in time is none of these
        before = host.abandoned()
        runtime.delete(c)
        c.ns.delete()
        host.wait_idle_user_space()
        assert host.abandoned() == before


def netns_ids(host):
    return {line.split()[1] for line in host.ns.run("ip", "netns", "list-id").stdout.splitlines()}


def test_the_next_one_is_let_be():
    """One that gets the VF, and maybe the number, right behind one that ended; and one that ends within the same seconds as its start."""
    with VfHost(interfaces=False, count=2) as host:
        runtime = host.vf_runtime()
        for turn in range(4):
            a, probe = host.with_vf(0, runtime), host.with_vf(1, runtime)
            a.ns.delete()
            b = host.with_vf(0, runtime)
            probe.ns.delete()
            wait_for(lambda: address(1) not in host.records(), 15, what="the other VF is given back")
            assert host.record(0)["containerID"] == b.id and not host.record(0)["ended"], turn
            runtime.check_vf(b, 0)
            assert [x["containerID"] for x in host.attachments()] == [b.id]
            runtime.delete(b)
            b.ns.delete()


def test_a_number_that_is_another_namespaces_by_now():
    """The kernel has said that it ended, and that counts; of a record that was written a moment ago it might be somebody else's end that it said."""
    with VfHost(interfaces=False, count=2) as host:
        runtime = host.vf_runtime()
        a, b = host.with_vf(0, runtime), host.with_vf(1, runtime)
        numbers = [str(host.record(vf)["netns"]["id"]) for vf in (0, 1)]
        ten_seconds_old = os.stat(f"{host.daemon.state_dir}/loans/{address(0)}").st_mtime - 11
        os.utime(f"{host.daemon.state_dir}/loans/{address(0)}", (ten_seconds_old, ten_seconds_old))
        host.daemon.process.send_signal(signal.SIGSTOP)
        for c in (a, b):
            c.ns.delete()
        wait_for(lambda: not set(numbers) & netns_ids(host), 15, what="both have ended")
        later = [host.container() for _ in numbers]
        for c, number in zip(later, numbers):
            host.ns.ip(f"netns set {c.ns.name} {number}")
        os.utime(f"{host.daemon.state_dir}/loans/{address(1)}")
        host.daemon.process.send_signal(signal.SIGCONT)
        wait_for(lambda: host.records() == [address(1)], 15, what="the old one is given back")
        assert [x["containerID"] for x in host.attachments()] == [b.id]
        # nothing is lost by that
        runtime.check_vf(host.with_vf(1, runtime), 1)


def test_a_namespace_that_somebody_keeps():
    """Its path is gone, its processes are not: the container has the VF."""
    with VfHost(interfaces=False, count=2) as host:
        runtime = host.vf_runtime()
        a, b = host.with_vf(0, runtime), host.with_vf(1, runtime)
        with open(a.ns.path, "rb"):
            a.ns.delete()
            b.ns.delete()
            wait_for(lambda: host.records() == [address(0)], 15, what="the one that ended is given back")
            assert [x["containerID"] for x in host.attachments()] == [a.id]
        wait_for(lambda: not host.records() and not host.attachments(), 15, what="and then the other")


def test_a_vf_without_a_driver():
    with VfHost(count=1) as host:
        os.unlink(host.nic.path(f"{address(0)}/driver"))
        with pytest.raises(CniError, match="has no driver") as e:
            host.with_vf(0)
        assert e.value.code == 11
        shutil.rmtree(host.nic.path(f"{PF}/net/rep0"))
