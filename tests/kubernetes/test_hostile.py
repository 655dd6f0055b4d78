# SPDX-License-Identifier: Apache-2.0
"""An API server that means ill, or something between it and us: what is in force stays, memory does not grow, and the kinds do not hold each other up."""

import json
import time

import pytest
from lib import apiserver as api
from lib.heddled import wait_for
from test_server import POLICIES, Follower


@pytest.fixture
def follower():
    with Follower() as f:
        yield f.synced()


def rss(follower):
    with open(f"/proc/{follower.daemon.process.pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) / 1024 for line in f if line.startswith("VmRSS"))


def listed(follower):
    return len(follower.server.asked(POLICIES, limit="500"))


def event(kind, obj):
    return json.dumps({"type": kind, "object": obj}) + "\n"


WRONG = [
    {"metadata": []}, {"metadata": "x"}, {"metadata": {"name": ["a"]}}, {"metadata": {"name": ""}}, {"metadata": {"name": "x" * 100000}},
    {"metadata": {"name": "n", "namespace": {"a": 1}}}, {"metadata": {"name": "n", "labels": [1]}}, {"metadata": {"name": "n", "labels": {"a": {"b": []}}}},
    {"metadata": {"name": "n", "annotations": 7}}, {"metadata": {"name": "n"}, "spec": [[]]}, {"metadata": {"name": "n"}, "spec": "x", "status": 1},
    {"metadata": {"name": "n"}, "spec": {"nodeName": {}, "containers": {"a": 1}, "initContainers": [1, None, {"restartPolicy": "Always", "ports": 1}]}},
    {"metadata": {"name": "n"}, "spec": {"nodeName": "node-2", "containers": [{"ports": [7, {"name": 1}, {"name": "a", "containerPort": "x"}]}]},
     "status": {"phase": 3, "podIPs": [1, {"ip": 7}, {"ip": "not an address"}, {"ip": "10.77.0.1\u0000"}], "podIP": []}},
    {"metadata": {"name": "n"}, "spec": {"podCIDRs": [1, {}, "x", "10.0.0.0/99"], "podCIDR": 4, "taints": {"a": 1}},
     "status": {"addresses": [1, {"type": 1}, {"type": "InternalIP", "address": {}}], "conditions": [1, {"type": []}]}},
    {"metadata": {"name": "\u0000"}}, {"metadata": {"name": "a\u202eb", "namespace": "../../etc"}}, {"metadata": {"name": "n", "resourceVersion": 7}},
    {"metadata": {"name": "n"}, "spec": {"podSelector": {"matchLabels": {"a": None}}, "ingress": [{"from": [{"ipBlock": {"cidr": 7}}]}]}},
]


@pytest.mark.parametrize("kind", ["Node", "Namespace", "Pod", "NetworkPolicy"])
def test_objects_of_wrong_types(follower, kind):
    """On the watch, and in a list: each is left out or kept out, what comes behind it counts."""
    server = follower.server
    server.put(api.network_policy("stays"))
    follower.expect("stays")
    for n, wrong in enumerate(WRONG):
        wrong = json.loads(json.dumps(wrong))
        if isinstance(wrong["metadata"], dict):
            wrong["metadata"].setdefault("resourceVersion", str(server.version))
            if kind in ("Pod", "NetworkPolicy"):
                wrong["metadata"].setdefault("namespace", "default")
        server.say(kind, event(("ADDED", "MODIFIED", "DELETED")[n % 3], {"kind": kind, **wrong}))
    server.put(api.network_policy("after"))
    follower.expect("stays", "after", timeout=30)
    with server.lock:
        known = server.kinds[api.PATHS[kind]].objects
        for n, wrong in enumerate(WRONG):
            known[None, f"wrong-{n}"] = {"kind": kind, **wrong}
    server.forget()
    server.put(api.network_policy("more"))
    # a list in which all is wrong is a list all the same; JSON that cannot be one (a NUL) has it listed again and again
    wait_for(lambda: listed(follower) > 1 or kind != "NetworkPolicy", 20, what="listed again")
    assert follower.policies() in (["after", "stays"], ["after", "more", "stays"])
    with server.lock:
        for n in range(len(WRONG)):
            known.pop((None, f"wrong-{n}"))
    server.forget()
    follower.expect("stays", "after", "more", timeout=40)
    assert follower.daemon.process.poll() is None


def test_events_out_of_order_and_twice(follower):
    server = follower.server
    server.fail("twice", 1)
    server.put(api.network_policy("a"), api.network_policy("b"))
    follower.expect("a", "b")
    server.delete("NetworkPolicy", "a", "default")
    server.put(api.network_policy("c"))
    follower.expect("b", "c")
    assert listed(follower) == 1, "twice the same is nothing new"
    # of an earlier time than what was said already: what is known may be of no time at all
    old = {**api.network_policy("old"), "metadata": {"name": "old", "namespace": "default", "resourceVersion": "5"}}
    server.say("NetworkPolicy", event("ADDED", old))
    wait_for(lambda: listed(follower) == 2, 20, what="listed again")
    follower.expect("b", "c")


def test_chunks_that_are_cut(follower):
    server = follower.server
    for name in ("one", "two", "three"):
        server.fail("cut")
        server.put(api.network_policy(name))
        wait_for(lambda n=name: n in follower.policies(), 20, what=name)
    server.fail("halves", 1)
    server.put(api.network_policy("four"))
    follower.expect("one", "two", "three", "four")
    assert listed(follower) <= 2


def test_a_list_that_drips_holds_up_no_other_kind(follower):
    server = follower.server
    with server.lock:
        for n in range(50):
            server.kinds[api.PATHS["Node"]].objects[None, f"n-{n}"] = api.node(f"n-{n}", f"192.0.2.{n + 10}")
    server.fail("drip")
    # only this one's watch ends
    server.say("Node", "no JSON\n")
    wait_for(lambda: follower.kind("Node")["state"] == "listing", 20, what="the list drips")
    server.put(api.network_policy("meanwhile"))
    follower.expect("meanwhile")
    assert follower.kind("Node")["state"] == "listing" and follower.status()["synced"]


def test_what_is_too_large_is_not_kept(follower):
    """Objects of 5 MiB over and over, on the watch and in lists, and a rest of a list without an end."""
    server = follower.server
    server.put(api.network_policy("stays"))
    follower.expect("stays")
    before = rss(follower)
    huge = {**api.network_policy("huge"), "spec": {"podSelector": {"matchLabels": {f"k{n}": "v" * 60 for n in range(60000)}}}}
    assert len(json.dumps(huge)) > 4 << 20
    for n in range(4):
        at = listed(follower)
        server.say("NetworkPolicy", event("ADDED", huge))
        wait_for(lambda a=at: listed(follower) > a, 30, what="listed again")
    with server.lock:
        server.kinds[POLICIES].objects["default", "huge"] = {**huge, "metadata": {**huge["metadata"], "resourceVersion": str(server.version)}}
    server.forget()
    wait_for(lambda: "too large" in (follower.kind("NetworkPolicy")["error"] or ""), 20, what="it is told")
    time.sleep(1)
    assert follower.policies() == ["stays"] and rss(follower) < before + 16
    with server.lock:
        del server.kinds[POLICIES].objects["default", "huge"]
    server.put(api.network_policy("well"))
    follower.expect("stays", "well", timeout=40)
    # one that is just not too large counts, and costs what it is
    server.put({**api.network_policy("large"), "spec": {"podSelector": {"matchExpressions": [
        {"key": "k", "operator": "In", "values": [f"v{n}" for n in range(20000)]}]}}})
    wait_for(lambda: "large" in follower.policies() or follower.kind("NetworkPolicy")["leftOut"], 20, what="it is seen")
    assert rss(follower) < before + 60


def test_410_in_the_middle_of_a_list_that_changes():
    """Each page of another time: what went between the pages is not known, what came is."""
    with Follower(start=False, page=5) as f:
        f.server.put(*(api.network_policy(f"p{i:02}") for i in range(30)))
        f.server.fail("410", 3)
        f.daemon.start()
        for i in range(10):
            f.server.delete("NetworkPolicy", f"p{i:02}", "default")
        f.server.put(*(api.network_policy(f"q{i:02}") for i in range(10)))
        f.synced(40)
        f.expect(*(f"p{i:02}" for i in range(10, 30)), *(f"q{i:02}" for i in range(10)), timeout=30)
