# SPDX-License-Identifier: Apache-2.0
"""Addresses: which ones, in which order, and never twice."""

import concurrent.futures
import json
import os
import pathlib
import stat

import pytest
from conftest import CniHost, needs_debian
from lib import documents as doc
from lib.heddled import wait_for
from runtime import CniError

SMALL = doc.network("small", mode="l2", subnets=["10.79.0.0/29"], gateway=["10.79.0.3"])


def wait_kept(host, addr):
    """Until the state directory says that this was the last one given: it is written after the answer."""
    path = pathlib.Path(host.daemon.state_dir, "ipam")
    wait_for(lambda: path.exists() and f" {addr}\n" in path.read_text(), what="the state is kept")


@pytest.fixture
def small(host):
    host.daemon.apply(SMALL)
    yield host.runtime(network="small", version="1.1.0")
    host.runtime(network="small", version="1.1.0").collect()
    host.daemon.api.delete("/v1/objects/network/small")


def test_every_address_that_a_host_can_have_and_no_other(host, small):
    made = host.added(small, 5)
    assert sorted(c.address() for c in made) == [f"10.79.0.{n}" for n in (1, 2, 4, 5, 6)]
    with pytest.raises(CniError) as caught:
        small.add(host.container())
    assert caught.value.code == 101 and "free" in caught.value.msg
    small.delete(made[2])
    assert host.added(small).address() == made[2].address()


def test_an_address_that_came_free_is_the_last_to_be_given(host, small):
    order = []
    for _ in range(6):
        c = host.added(small)
        order.append(c.address())
        small.delete(c)
    assert len(set(order[:5])) == 5 and order[5] == order[0]


def test_the_search_goes_on_after_a_restart(host, small):
    c = host.added(small)
    small.delete(c)
    wait_kept(host, c.address())
    host.daemon.restart()
    assert host.added(small).address() != c.address()


def test_ports_of_documents_have_theirs(host, small):
    w = host.add()
    host.daemon.apply(doc.port("static", w.device, "small", addresses=["10.79.0.2"]))
    made = host.added(small, 4)
    assert sorted(c.address() for c in made) == [f"10.79.0.{n}" for n in (1, 4, 5, 6)]
    small.collect()
    host.daemon.api.delete("/v1/objects/port/static")


def test_workloads_of_other_hosts_have_theirs():
    shared = doc.network("small", mode="l2", vni=79, subnets=["10.79.0.0/29"], gateway=["10.79.0.3"])
    there = {"name": "db", "network": "small", "mac": "02:00:00:00:00:99", "addresses": ["10.79.0.2"]}
    peer = doc.document("Peer", "node-b", {"address": "192.0.2.2", "ports": [there]})
    with CniHost(docs=(shared, peer), host_spec={"tunnel": {"protocol": "vxlan", "address": "192.0.2.1"}}) as host:
        made = host.added(host.runtime(network="small", version="1.1.0"), 4)
        assert sorted(c.address() for c in made) == [f"10.79.0.{n}" for n in (1, 4, 5, 6)]


def test_no_workload_has_the_mac_of_another_hosts():
    """The MAC is made of the attachment, so the same attachment would have had it again."""
    shared = doc.network("small", mode="l2", vni=79, subnets=["10.79.0.0/29"], gateway=["10.79.0.3"])
    with CniHost(docs=(shared,), host_spec={"tunnel": {"protocol": "vxlan", "address": "192.0.2.1"}}) as host:
        runtime, c = host.runtime(network="small", version="1.1.0"), host.container()

        def mac():
            runtime.add(c)
            runtime.delete(c)
            return c.result["interfaces"][1]["mac"]

        first = mac()
        assert mac() == first
        there = {"name": "db", "network": "small", "mac": first, "addresses": ["10.79.0.2"]}
        host.daemon.apply(doc.document("Peer", "node-b", {"address": "192.0.2.2", "ports": [there]}))
        second = mac()
        router = {"network": "small", "cidr": "10.79.0.4/31", "mac": second}
        host.daemon.apply(doc.document("Peer", "node-c", {"address": "192.0.2.3", "prefixes": [router]}))
        assert len({first, second, mac()}) == 3


@pytest.mark.parametrize("ranges, wanted", [
    (["10.77.0.64/30", "fd77::5:0/112"], {"10.77.0.64", "10.77.0.65", "10.77.0.66", "10.77.0.67"}),
    (["10.77.0.8-10.77.0.9"], {"10.77.0.8", "10.77.0.9"}),
    ([[{"subnet": "10.77.0.0/24", "rangeStart": "10.77.0.20", "rangeEnd": "10.77.0.21", "gateway": "10.77.0.254"}]], {"10.77.0.20", "10.77.0.21"}),
    (["10.77.0.253-10.77.0.255", "10.77.0.30/32"], {"10.77.0.253", "10.77.0.30"}),
])
def test_ranges(host, ranges, wanted):
    runtime = host.runtime(ipam={"type": "heddle", "ranges": ranges}, version="1.1.0")
    made = host.added(runtime, len(wanted))
    assert {c.address() for c in made} == wanted
    assert all((c.address(6) or "").startswith("fd77::5:") == (len(ranges) > 1 and ":" in ranges[1]) for c in made)
    with pytest.raises(CniError) as caught:
        runtime.add(host.container())
    assert caught.value.code == 101


def test_many_at_once_have_an_address_each(host):
    runtime = host.runtime()
    made = [host.container() for _ in range(16)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(runtime.add, made))
    assert len({c.address() for c in made}) == len({c.address(6) for c in made}) == 16
    for c in made:
        runtime.check(c)


def test_a_damaged_state_gives_nothing_twice(fresh):
    c = fresh.added(fresh.runtime())
    wait_kept(fresh, c.address())
    fresh.daemon.kill()
    with open(f"{fresh.daemon.state_dir}/ipam", "a") as f:
        f.write("x")
    with open(f"{fresh.daemon.state_dir}/cni.log", "a") as f:
        f.write("put 0 17 half a rec")
    fresh.daemon.start()
    assert "given out from the first one again" in fresh.daemon.log()
    assert fresh.added(fresh.runtime()).address() not in (None, c.address())
    fresh.runtime().check(c)


# --- delegated ---


def host_local(host, **more):
    return {"type": "host-local", "dataDir": f"{host.daemon.dir}/host-local",
            "ranges": [[{"subnet": "10.77.0.0/24", "rangeStart": "10.77.0.200", "rangeEnd": "10.77.0.202"}], [{"subnet": "fd77::/64"}]], **more}


@needs_debian
@pytest.mark.parametrize("version", ["0.1.0", "0.3.1", "0.4.0", "1.0.0"])
def test_host_local(host, version):
    runtime = host.runtime(ipam=host_local(host), version=version)
    c = host.container()
    result = runtime.add(c)
    v4 = result["ip4"]["ip"] if version == "0.1.0" else result["ips"][0]["address"]
    assert v4.split("/")[0] in {"10.77.0.200", "10.77.0.201", "10.77.0.202"}
    assert {a["local"] for a in c.interface()["addr_info"] if a["scope"] == "global"} == set(host.attachments()[0]["addresses"])
    assert {r["gateway"] for r in c.routes() if r["dst"] == "default"} == {"10.77.0.254", "fd77::fe"}
    if version >= "0.4.0":
        runtime.check(c)
    runtime.delete(c)
    runtime.delete(c)


@needs_debian
def test_host_local_without_room_leaves_nothing(host):
    runtime = host.runtime(ipam=host_local(host))
    made = host.added(runtime, 3)
    c = host.container()
    with pytest.raises(CniError) as caught:
        runtime.add(c)
    assert "host-local" in caught.value.msg
    assert c.interface() is None and len(host.attachments()) == 3
    runtime.delete(made[0])
    runtime.add(c)
    for each in (c, *made):
        runtime.delete(each)


@needs_debian
def test_what_fails_later_gives_the_address_back(host):
    runtime = host.runtime(ipam=host_local(host, dataDir=f"{host.daemon.dir}/other"), network="green")
    with pytest.raises(CniError) as caught:
        runtime.add(host.container())
    assert caught.value.code == 7 and "10.77.0." in caught.value.msg
    left = [p for p in os.listdir(f"{host.daemon.dir}/other/podnet") if p[0].isdigit() or p.startswith("fd")]
    assert left == [] and host.devices() == []


@needs_debian
def test_routes_of_an_ipam_plugin(host):
    runtime = host.runtime(ipam=host_local(host, routes=[{"dst": "192.0.2.0/24"}, {"dst": "198.51.100.0/24", "gw": "10.77.0.77"}]))
    c = host.added(runtime)
    assert {(r["dst"], r.get("gateway")) for r in c.routes() if r["dst"][0] == "1" and "gateway" in r} == {
        ("192.0.2.0/24", "10.77.0.254"), ("198.51.100.0/24", "10.77.0.254")}
    runtime.delete(c)


@pytest.fixture
def fake(tmp_path):
    """An IPAM plugin that notes what it is asked, and answers with answer."""

    class Fake:
        directory, calls_path = str(tmp_path), tmp_path / "calls"

        def answer(self, text, status=0):
            path = tmp_path / "fake-ipam"
            path.write_text(f"#!/bin/sh\necho $CNI_COMMAND >>{self.calls_path}\ncat >{tmp_path}/input\ncat <<'E'\n{text}\nE\nexit {status}\n")
            path.chmod(path.stat().st_mode | stat.S_IXUSR)

        def calls(self):
            return self.calls_path.read_text().split() if self.calls_path.exists() else []

    f = Fake()
    f.answer(json.dumps({"cniVersion": "1.1.0", "ips": [{"address": "10.77.0.55/24", "gateway": "10.77.0.1"}], "dns": {"domain": "fake"}}))
    return f


def test_every_verb_is_passed_on(host, fake):
    runtime = host.runtime(ipam={"type": "fake-ipam"}, version="1.1.0", path=f"/nowhere:{fake.directory}")
    c = host.added(runtime)
    assert c.result["dns"] == {"domain": "fake"} and c.address() == "10.77.0.55" and c.result["ips"][0]["gateway"] == "10.77.0.254"
    fake.answer("")
    runtime.check(c)
    runtime.delete(c)
    runtime.collect()
    runtime.call("STATUS")
    assert fake.calls() == ["ADD", "CHECK", "DEL", "GC", "STATUS"]


@pytest.mark.parametrize("text, status, code, word", [
    ('{"code": 42, "msg": "no more", "details": "at all"}', 1, 42, "no more"), ("", 3, 999, "ended with 3"), ("nonsense", 0, 6, "JSON"),
    ('{"ips": []}', 0, 7, "no address"), ('{"ips": [{"address": "x"}]}', 0, 6, "ips"), ('{"ips": 7}', 0, 6, "ips"),
])
def test_ipam_plugins_that_fail(host, fake, text, status, code, word):
    fake.answer(text, status)
    runtime = host.runtime(ipam={"type": "fake-ipam"}, version="1.1.0", path=fake.directory)
    with pytest.raises(CniError) as caught:
        runtime.add(host.container())
    assert caught.value.code == code and word in caught.value.msg
    assert fake.calls() == ["ADD", "DEL"] and host.devices() == [] and host.attachments() == []


def test_a_network_without_subnets_has_no_addresses():
    with CniHost(docs=(doc.network("bare", mode="l2"),)) as h:
        with pytest.raises(CniError) as caught:
            h.runtime(network="bare").add(h.container())
        assert caught.value.code == 7 and "subnets" in caught.value.msg
