# SPDX-License-Identifier: Apache-2.0
"""Ends of daemon, plugin and machine at bad moments: nothing leaks, and nobody's is taken."""

import os
import shutil
import signal
import subprocess
import time

import pytest
from conftest import CniHost
from lib.fixtures import SLOW
from lib.heddled import wait_for
from lib.traffic import ping
from runtime import CniError
from storm import Storm

STORM = {"count": 500} if SLOW else {"count": 200, "seconds": 12}
GATEWAYS = {"10.77.0.254", "fd77::fe", "10.78.0.254", "fd78::fe"}


def rows(host):
    """What the maps hold that is some port's."""
    endpoints = [r for r in host.dump("endpoints") if r["value"].get("ifindex")]
    members = [r for r in host.dump("members") if r["key"].get("ifindex", r["value"].get("ifindex"))]
    records = [r for r in host.dump("ports") if r["value"].get("ifindex")]
    return endpoints, members, records


def assert_nothing_left(host, pins):
    wait_for(lambda: host.attachments() == [], timeout=10, what="no attachment")
    wait_for(lambda: host.devices() == [], what="no device")
    wait_for(lambda: host.daemon.status()["ports"] == [], what="no port")
    assert rows(host) == ([], [], [])
    assert host.daemon.pinned_maps() == pins
    assert host.daemon.api.get("/v1/objects/ports")["items"] == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_restart_keeps_what_is_there(host, how):
    runtime = host.runtime()
    a, b, gone = host.added(runtime, 3)
    host.daemon.kill(how)
    assert ping(a.ns, b.address())
    gone.ns.delete()
    host.wait_devices(2)
    host.daemon.start()
    assert sorted(x["containerID"] for x in host.attachments()) == sorted([a.id, b.id])
    assert ping(a.ns, b.address(6))
    runtime.check(a)
    assert host.added(runtime).address() not in (a.address(), b.address())


def test_a_reboot_frees_everything_and_goes_on(fresh):
    runtime = fresh.runtime()
    before = fresh.added(runtime, 3)
    wait_for(lambda: (f"{before[2].address()}\n" in open(f"{fresh.daemon.state_dir}/ipam", encoding="ascii").read()), what="kept")
    fresh.daemon.detach()
    for c in before:
        c.ns.delete()
    fresh.wait_devices(0)
    shutil.rmtree(fresh.daemon.run_dir)
    subprocess.run(["umount", "-l", fresh.daemon.bpffs], check=False, stderr=subprocess.DEVNULL)
    fresh.daemon.start()
    assert fresh.attachments() == [] and fresh.daemon.status()["ports"] == []
    after = fresh.added(runtime)
    assert after.address() not in {c.address() for c in before}
    # the runtime's DELs of before come late
    for c in before:
        runtime.delete(c)
    runtime.check(after)


def test_del_while_the_agent_is_down(host):
    runtime = host.runtime()
    a, b = host.added(runtime, 2)
    host.daemon.kill()
    began = time.monotonic()
    runtime.delete(a)
    assert time.monotonic() - began < 4, "it waited for the agent"
    assert a.interface() is None and b.interface() is not None
    runtime.delete(a)
    host.daemon.start()
    assert [x["containerID"] for x in host.attachments()] == [b.id]
    runtime.check(b)


def test_del_while_the_agent_hangs(host):
    runtime = host.runtime()
    a = host.added(runtime)
    host.daemon.process.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        runtime.delete(a)
        assert time.monotonic() - began < 15, "its patience with an agent is 3 seconds"
        assert a.interface() is None
    finally:
        host.daemon.process.send_signal(signal.SIGCONT)
    wait_for(lambda: host.attachments() == [], timeout=10, what="it catches up")


def test_a_namespace_that_goes_without_a_del(host):
    a = host.added(host.runtime())
    a.ns.delete()
    wait_for(lambda: host.attachments() == [], timeout=10, what="the port goes with its device")


def test_an_unconfirmed_apply_stops_nobody(host):
    host.daemon.apply({"apiVersion": "heddle.dev/v1alpha1", "kind": "AddressGroup", "metadata": {"name": "g"}, "spec": {"cidrs": []}}, confirm="2s")
    runtime = host.runtime()
    a, b = host.added(runtime, 2)
    runtime.delete(b)
    wait_for(lambda: host.daemon.api.get("/v1/objects/addressgroups")["items"] == [], timeout=8, what="it is rolled back")
    runtime.check(a)


def test_a_commit_without_its_reservation_is_undone(host):
    """The agent is started anew between the two: the plugin takes its device away, and says try again, or that it was refused."""
    runtime, c = host.runtime(), host.container()
    api = host.daemon.api
    key = {"name": "podnet", "containerID": c.id, "ifname": "eth0"}
    reserved = api.post("/v1/cni/reserve", {**key, "network": "blue", "device": "hd0"})
    assert reserved["port"] and host.attachments() == []
    # reserved twice is the same attachment: the later one counts, and both addresses are not lost
    api.post("/v1/cni/reserve", {**key, "network": "blue", "device": "hd0"})
    assert api.post("/v1/cni/release", key) == {"released": True}
    assert api.post("/v1/cni/release", key) == {"released": False}
    with pytest.raises(Exception, match="nothing is reserved"):
        api.post("/v1/cni/commit", key)
    runtime.add(c)


def test_a_full_disk_refuses_a_container_and_leaves_nothing():
    with CniHost(start=False) as host:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", host.daemon.state_dir], check=True)
        host.daemon.start()
        runtime = host.runtime()
        a = host.added(runtime)
        filler = f"{host.daemon.state_dir}/filler"
        subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=1k"], check=False, stderr=subprocess.DEVNULL)
        # what is left of the log's last page may hold some
        refused = None
        for _ in range(20):
            c = host.container()
            try:
                runtime.add(c)
            except CniError as e:
                refused = e
                break
        assert refused and "space" in refused.msg
        assert c.interface() is None and c.id not in {x["containerID"] for x in host.attachments()}
        runtime.check(a)
        os.unlink(filler)
        runtime.delete(c)
        runtime.add(c)


def test_storm(fresh):
    # once to have everything loaded and pinned
    fresh.runtime().delete(fresh.added(fresh.runtime()))
    pins = fresh.daemon.pinned_maps()
    storm = Storm(fresh.ns, fresh.daemon, fresh.runtime, **STORM)
    storm.run()
    assert storm.added and storm.failed
    print(f"{storm.added} added, {storm.failed} killed or failed")
    assert_nothing_left(fresh, pins)
    # every address can be given again
    assert fresh.added(fresh.runtime()).address()
