# SPDX-License-Identifier: Apache-2.0
"""
Full tables. A flood of new tuples never costs an established TCP flow; a full table of proven flows is a counter, an event
and connections that still work.
"""

import json
import os
import resource
import shutil
import subprocess
import threading
import time

import pytest
from lib import traffic
from lib.documents import DENY_IN, policy, rule
from lib.fixtures import SLOW, Guarded
from lib.heddled import BUILD, wait_for
from lib.traffic import expect_tcp

COUNT = int(os.environ.get("FLOOD", "1000000" if SLOW else "200000"))
FLOWS = 1000
HERE = os.path.dirname(os.path.abspath(__file__))


@pytest.fixture(scope="module")
def flood_binary(tmp_path_factory):
    built = os.path.join(BUILD, "tests", "net", "flood")
    if os.access(built, os.X_OK):
        return built
    path = tmp_path_factory.mktemp("flood") / "flood"
    subprocess.run([os.environ.get("CC") or shutil.which("cc"), "-O2", "-o", path, os.path.join(HERE, "flood.c")], check=True)
    return path


@pytest.fixture(autouse=True, scope="module")
def _many_files():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))


@pytest.fixture(scope="module", params=["native", "tcx"])
def target(request):
    docs = [policy(ingress=[rule("allow", "TCP", 7960, 7969), rule("allow", "UDP", 7966), rule("allow", "UDP", 7901)], default=DENY_IN)]
    with Guarded(request.param, docs=docs) as g:
        # answers to the flood go back to where it came from, and die there
        g.server.ip(f"route add 10.128.0.0/9 via {g.client4}", f"route add fd99::/64 via {g.client6}")
        g.client.ip("route add blackhole 10.128.0.0/9", "route add blackhole fd99::/64")
        yield g


FLOODS = {"open TCP port": ("tcp", 7965), "closed TCP port": ("tcp", 7967), "UDP port that replies": ("udp", 7966)}


@pytest.mark.parametrize("kind", list(FLOODS))
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
def test_established_flows_survive_a_flood(target, flood_binary, kind, version):
    if version == 6 and not SLOW and kind != "open TCP port":
        pytest.skip("long variant: set HEDDLE_SLOW=1 (IPv6 is flooded on the open TCP port)")
    up = target
    address = up.server_address(version)
    protocol, port = FLOODS[kind]
    with traffic.Servers(up.server, tcp=[7960, 7965], udp=[7966]):
        idle = [traffic.connect(up.client, address, 7960) for _ in range(FLOWS)]
        for s in idle[: FLOWS // 2]:
            assert traffic.roundtrip(s)
        load = traffic.Load(up.client, up.server, address, 7961, 7901, interval=0.005)
        try:
            argv = [flood_binary, "wire0", up.client_mac, up.server_mac, address, protocol, port, COUNT]
            process = up.client.popen(*argv, stdout=subprocess.PIPE, text=True)
            active = 0
            while process.poll() is None:
                # some of the flows speak in the middle of it, and the transfer goes on
                assert traffic.roundtrip(idle[active % 100], timeout=20), "an active flow stood still under the flood"
                active += 1
                load.wait_exchanges(1, timeout=20)
            assert process.returncode == 0
            assert load.tcp_broken is None
            load.wait_exchanges(50, timeout=20)
            lost = [s.getsockname() for s in idle if not traffic.roundtrip(s, timeout=10)]
            assert not lost, f"{len(lost)} of {FLOWS} established flows were lost"
            assert active > 0
            # and new ones still get in
            fresh = traffic.connect(up.client, address, 7960, timeout=20)
            assert traffic.roundtrip(fresh)
            fresh.close()
            counts = up.daemon.status()["flows"]
            assert counts["proven"] >= FLOWS, counts
        finally:
            load.close()
            for s in idle:
                s.close()


def test_flood_leaves_the_agent_small_and_alive(target, flood_binary):
    """Denied packets of 100k tuples: counted one by one, events limited, the agent neither grows nor spins."""
    up = target
    before = up.daemon.drops().get(("policy-deny", "ingress"), 0)
    rss = memory(up.daemon.process.pid)
    up.client.run(flood_binary, "wire0", up.client_mac, up.server_mac, up.server4, "udp", 9, 100000, timeout=60)
    wait_for(lambda: up.daemon.drops().get(("policy-deny", "ingress"), 0) - before >= 99000, what="drops counted")
    assert memory(up.daemon.process.pid) - rss < 4096, "the agent grew by more than 4 MiB"
    assert up.daemon.status()["ready"] is True


def memory(pid):
    """RSS in KiB."""
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(next(line for line in f if line.startswith("VmRSS")).split()[1])


def test_full_proven_table(main_backend):
    """limits.flows: 64. The 65th connection works unproven, and heddle says that the table is full."""
    docs = [policy(ingress=[rule("allow", "TCP", 7970)], default=DENY_IN)]
    with Guarded(main_backend, docs=docs, host_spec={"limits": {"flows": 64}}) as up:
        events = []
        monitor = up.daemon.cli_popen("-o", "json", "monitor")
        threading.Thread(target=lambda: events.extend(json.loads(line) for line in monitor.stdout), daemon=True).start()
        time.sleep(0.3)
        with traffic.Servers(up.server, tcp=[7970]):
            sockets = [traffic.connect(up.client, up.server4, 7970) for _ in range(200)]
            assert all(traffic.roundtrip(s) for s in sockets), "a connection did not work with the table full"
            expect_tcp(up.client, up.server4, 7970, "open")
            counts = up.daemon.status()["flows"]
            assert counts["proven"] <= 64 and counts["unproven"] >= 130, counts
            text = up.daemon.api.get("/metrics")
            full = [line for line in text.splitlines() if line.startswith("heddle_table_full_total{") and '"flows"' in line]
            assert full and float(full[0].rsplit(" ", 1)[1]) >= 100
            for s in sockets:
                s.close()
        wait_for(lambda: any("full" in json.dumps(e) for e in events), what="an event that names the full table")
        monitor.kill()
        monitor.wait()
        # flows end, and the table has room again: closed ones are aged after tcpFin
        assert up.daemon.status()["ready"] is True


def test_slots_come_back(main_backend):
    """Closed connections give their place in the proven table back, in the kernel, with the agent dead."""
    docs = [policy(ingress=[rule("allow", "TCP", 7971)], default=DENY_IN)]
    with Guarded(main_backend, docs=docs, host_spec={"limits": {"flows": 64}, "timeouts": {"tcpFin": "1s"}}) as up:
        with traffic.Servers(up.server, tcp=[7971]):
            for _ in range(60):
                s = traffic.connect(up.client, up.server4, 7971)
                assert traffic.roundtrip(s)
                s.close()
            up.daemon.kill()
            time.sleep(5)
            up.daemon.start()
            sockets = [traffic.connect(up.client, up.server4, 7971) for _ in range(50)]
            assert all(traffic.roundtrip(s) for s in sockets)
            counts = up.daemon.status()["flows"]
            assert counts["proven"] >= 50, counts
            for s in sockets:
                s.close()
