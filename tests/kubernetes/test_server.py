# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with an API server: what is in force stays, and it is caught up with once the server is well again."""

import base64
import os
import time

import pytest
from cluster import Cluster
from lib import apiserver as api
from lib import documents as doc
from lib.heddled import Heddled, wait_for
from lib.netns import Namespace

POLICIES = api.PATHS["NetworkPolicy"]


class Follower:
    """One node without Pods of its own: enough to see what it knows."""

    def __init__(self, start=True, user=None, env=None, docs=(), **server):
        self.server = api.ApiServer(**server)
        self.ns = Namespace("node")
        self.server.listen(self.ns)
        self.server.put(api.namespace("default"), api.node("node-1", "192.0.2.1"))
        options = [f"--kubernetes={self.server.kubeconfig(**(user or {}))}", "--node-name=node-1"]
        self.daemon = Heddled(self.ns, [doc.document("Host", "host", {"pickupSeconds": 0, "uplinks": []}), *docs], options=options, env=env)
        if start:
            self.daemon.start()

    def status(self):
        return self.daemon.status()["kubernetes"]

    def kind(self, name):
        return next(k for k in self.status()["kinds"] if k["kind"] == name)

    def synced(self, timeout=10):
        wait_for(lambda: self.status()["connected"] and self.status()["synced"], timeout, what="it follows")
        return self

    def policies(self):
        return Cluster.names(self, "networkpolicy")

    def expect(self, *names, timeout=10):
        wait_for(lambda: self.policies() == sorted(names), timeout, what=f"policies {names}")

    def close(self):
        self.daemon.remove()
        self.server.close()
        self.ns.delete()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


@pytest.fixture
def follower():
    with Follower() as f:
        yield f.synced()


def test_watching(follower):
    server = follower.server
    server.put(api.network_policy("one"))
    follower.expect("one")
    assert len(server.asked(POLICIES, limit="500")) == 1
    (_, query, _), = server.asked(POLICIES, watch="1")
    assert query["allowWatchBookmarks"] == "true" and int(query["timeoutSeconds"]) >= 240
    status = follower.status()
    assert status["server"].startswith("https://127.0.0.1:") and status["lastSync"] and status["node"] == "node-1"
    states = {k["kind"]: k["state"] for k in status["kinds"]}
    assert states["NetworkPolicy"] == "watching" and states["ClusterNetworkPolicy"] == "absent"
    # what changes nothing that counts is no transaction
    before = follower.daemon.generation()
    server.put(api.node("node-1", "192.0.2.1"), api.network_policy("one"))
    server.fail("halves", 1)
    server.put(api.network_policy("two"))
    follower.expect("one", "two")
    assert follower.daemon.generation() <= before + 1


def test_connections_break(follower):
    server = follower.server
    for i in range(3):
        server.drop()
        server.put(api.network_policy(f"p{i}"))
        follower.expect(*(f"p{j}" for j in range(i + 1)))
    server.fail("truncate")
    server.put(api.network_policy("cut"))
    follower.expect("p0", "p1", "p2", "cut")
    assert len(server.asked(POLICIES, limit="500")) == 1, "watched on from where it was"


def test_it_waits_longer_each_time_and_no_two_alike(follower):
    """100 ms and twice that with each failure, half of it to one and a half times."""
    server = follower.server
    server.fail("500", 1 << 30)
    before = len(server.times)
    server.drop()
    paths = [api.PATHS[kind] for kind in ("Node", "Namespace", "Pod", "NetworkPolicy")]

    def times(path):
        return [when for p, when in server.times[before:] if p == path]

    wait_for(lambda: all(len(times(p)) >= 6 for p in paths), 60, what="it has tried some times")
    gaps = {p: [b - a for a, b in zip(times(p), times(p)[1:])] for p in paths}
    for path, seen in gaps.items():
        # the first one after the watch that broke has waited once already
        assert all(gap > 0.09 * 2**n for n, gap in enumerate(seen[:5])), (path, seen)
    third = sorted(seen[2] for seen in gaps.values())
    assert third[-1] - third[0] > 0.02, gaps
    server.put(api.network_policy("after"))
    server.fail("500", 0)
    follower.expect("after", timeout=60)


def test_the_past_is_gone(follower):
    """410, as an event and as an answer: listed again, and what went meanwhile goes."""
    server = follower.server
    server.put(api.network_policy("stays"), api.network_policy("goes"))
    follower.expect("stays", "goes")
    server.bookmark()
    namespaces = server.down()
    server.delete("NetworkPolicy", "goes", "default")
    server.put(api.network_policy("comes"))
    server.forget()
    assert follower.policies() == ["goes", "stays"]
    for n in namespaces:
        server.listen(n)
    follower.expect("stays", "comes")
    server.forget()
    server.put(api.network_policy("more"))
    follower.expect("stays", "comes", "more")


def test_nonsense_on_the_watch(follower):
    server = follower.server
    server.put(api.network_policy("one"))
    follower.expect("one")
    for line in ("no JSON\n", '{"type": "ADDED"}\n', '{"type": "ADDED", "object": {"metadata": {"name": 7}}}\n', "[" * 300 + "\n",
                 '{"type": "MODIFIED", "object": {"kind": "Pod", "metadata": {"name": "x", "resourceVersion": "1"}}}\n',
                 '{"type": "ADDED", "object": "' + "x" * (5 << 20) + '"}\n'):
        listed = len(server.asked(POLICIES, limit="500"))
        server.say("NetworkPolicy", line)
        wait_for(lambda n=listed: len(server.asked(POLICIES, limit="500")) > n, 20, what=f"listed again after {line[:40]!r}")
    server.put(api.network_policy("two"))
    follower.expect("one", "two", timeout=20)
    assert follower.daemon.process.poll() is None


def test_lists_by_pages_that_fail():
    with Follower(start=False, page=7) as f:
        f.server.put(*(api.network_policy(f"p{i:02}") for i in range(40)))
        f.server.fail("410")
        f.server.fail("500", 3)
        f.server.fail("garbage")
        f.daemon.start()
        f.synced(20)
        f.expect(*(f"p{i:02}" for i in range(40)))
        assert len([r for r in f.server.asked(POLICIES) if "continue" in r[1]]) >= 5


def test_a_list_that_stalls():
    with Follower(start=False) as f:
        f.server.fail("stall", 2)
        f.daemon.start()
        time.sleep(1)
        assert not f.status()["synced"]
        f.synced(30)


def test_token_rotation(follower):
    server = follower.server
    server.tokens = {"second"}
    server.drop()
    wait_for(lambda: "401" in (follower.kind("NetworkPolicy")["error"] or ""), what="refused")
    server.write_token("second\n")
    server.put(api.network_policy("new"))
    follower.expect("new")
    assert server.asked(POLICIES)[-1][2] == "second"


@pytest.mark.parametrize("inline", [True, False], ids=["data", "files"])
def test_client_certificate(inline):
    with Follower(start=False) as f:
        user = {"client-certificate": "crt", "client-key": "key"}
        if inline:
            user = {f"{k}-data": base64.b64encode(open(os.path.join(f.server.dir, v), "rb").read()).decode() for k, v in user.items()}
        f.server.kubeconfig(**user)
        f.daemon.start()
        f.synced()
        assert {r[2] for r in f.server.requests} == {""}


def test_in_cluster_configuration_is_told_when_missing():
    ns = Namespace("node")
    daemon = Heddled(ns, [doc.document("Host", "host", {"uplinks": []})])
    try:
        env = {k: v for k, v in os.environ.items() if not k.startswith("KUBERNETES_")}
        result = ns.run(*daemon.argv("--kubernetes", "--state-dir", daemon.state_dir, "--config", daemon.config), check=False, env=env)
        assert result.returncode == 1 and "KUBERNETES_SERVICE_HOST" in result.stderr
    finally:
        daemon.remove()
        ns.delete()


def test_a_server_with_another_certificate():
    with Follower(start=False) as f:
        with api.ApiServer() as other:
            other_ca = other.certificate
            path = os.path.join(f.server.dir, "kubeconfig")
            with open(path, encoding="ascii") as source:
                text = source.read()
            with open(path, "w", encoding="ascii") as target:
                start = text.index('"certificate-authority-data"')
                end = text.index('"', text.index(":", start) + 3)
                target.write(text[:start] + f'"certificate-authority": "{other_ca}' + text[end:])
            f.daemon.start()
            wait_for(lambda: f.kind("Pod")["error"], what="refused")
            assert not f.server.requests and not f.status()["synced"]


def test_the_server_is_away(cluster):
    """Policy stays, over a restart of the agent too, and what happened meanwhile is caught up with."""
    from lib.traffic import Servers, expect_tcp

    one, two = cluster.nodes
    web, db = cluster.pod(one, "web", {"app": "web"}), cluster.pod(two, "db", {"app": "db"})
    with Servers(db.ns, tcp=[8080]):
        expect_tcp(web.ns, db.ip, 8080, "open")
        cluster.server.put(api.network_policy("closed", podSelector={"matchLabels": {"app": "db"}}, policyTypes=["Ingress"]))
        wait_for(lambda: cluster.names(two, "networkpolicy") == ["closed"], what="the policy")
        namespaces = cluster.server.down()
        wait_for(lambda: not cluster.status(two)["connected"], what="it notices")
        expect_tcp(web.ns, db.ip, 8080, "timeout")
        cluster.server.put(api.network_policy("late", podSelector={"matchLabels": {"app": "none"}}))
        two.daemon.stop()
        expect_tcp(web.ns, db.ip, 8080, "timeout")
        two.daemon.start()
        assert cluster.names(two, "networkpolicy") == ["closed"] and cluster.names(two, "peer") == ["node-1"]
        expect_tcp(web.ns, db.ip, 8080, "timeout")
        assert not cluster.status(two)["connected"] and cluster.status(two)["synced"]
        for n in namespaces:
            cluster.server.listen(n)
        cluster.wait_synced(two, 20)
        wait_for(lambda: cluster.names(two, "networkpolicy") == ["closed", "late"], what="it caught up")
        cluster.server.delete("NetworkPolicy", "closed", "default")
        wait_for(lambda: cluster.names(two, "networkpolicy") == ["late"], what="the policy is gone")
        expect_tcp(web.ns, db.ip, 8080, "open")
