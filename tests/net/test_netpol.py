# SPDX-License-Identifier: Apache-2.0
"""
Whole clusters under policy: every pod to every pod on every port, with real connections (lib/matrix.py). The cases are files: those of the
tree (tests/policy-cases, all of them), and those beside it (lib/cases.py; a spread, or all with HEDDLE_NETPOL_ALL=1).
"""

import contextlib
import os
import random

import pytest
from lib import cases, cluster, matrix
from lib.heddled import Monitor
from lib.matrix import Cell

ALL = os.environ.get("HEDDLE_NETPOL_ALL") == "1"
SPREAD = 12  # every twelfth of the shared cases
SPREAD_L2 = 24  # and of all cases on a switched network

SHARED, OWN = cases.files(cases.SHARED), cases.files(cases.OWN)


def several_steps(folder, names):
    return [name for name in names if len(cases.read(folder, name).get("steps", [])) > 1]


def chosen():
    """A spread of the shared cases, with every third of those that change something on the way: they are few, and see the most."""
    return SHARED if ALL else sorted({*SHARED[::SPREAD], *several_steps(cases.SHARED, SHARED)[::3]})


def some(names, folder):
    """Parameters for one folder's cases; an empty list becomes one skip with a reason, not an absence."""
    if names:
        return [pytest.param(name, id=name.removesuffix(".json")) for name in names]
    return [pytest.param(None, marks=pytest.mark.skip(reason=f"no policy cases in {folder}"))]


@pytest.fixture(scope="module")
def routed():
    with cluster.Cluster("l3") as c:
        yield c


@pytest.fixture(scope="module")
def switched():
    with cluster.Cluster("l2") as c:
        yield c


def run(c, folder, name):
    case = cases.read(folder, name)
    audited = cases.audited(case)
    for state, wanted in cases.steps(case):
        c.set(state)
        with Monitor(c.daemon) if audited else contextlib.nullcontext() as monitor:
            c.check(wanted, f"{name}: {state.comment}")
            if audited:
                names = {address: pod.key for pod in state.pods for address in c.workload(pod.ip, pod.network).addresses.values()}
                logged = [monitor.find(type="log")] + [e for e in monitor.seen() if e["type"] == "log"]
                cells = {(names[e["source"]], names[e["destination"]], e["protocol"], e["destinationPort"]) for e in logged}
                # what one port's audit logs, the other's policy may drop all the same
                passed = {cell[:4] for cell, outcome in wanted.items() if outcome == "open"}
                assert cells & passed <= audited, f"{name}: logged though no audit asks for it: {cells & passed - audited}"


@pytest.mark.parametrize("name", some(OWN, "tests/policy-cases"))
def test_own_case(routed, name):
    run(routed, cases.OWN, name)


@pytest.mark.parametrize("name", some(chosen(), "../shared/netpol-cases (HEDDLE_NETPOL_CASES)"))
def test_shared_case(routed, name):
    run(routed, cases.SHARED, name)


@pytest.mark.parametrize("name", some(OWN[:: SPREAD_L2 // 4], "tests/policy-cases"))
def test_own_case_on_a_switched_network(switched, name):
    run(switched, cases.OWN, name)


@pytest.mark.parametrize("name", some(SHARED[:: SPREAD if ALL else SPREAD_L2], "../shared/netpol-cases (HEDDLE_NETPOL_CASES)"))
def test_shared_case_on_a_switched_network(switched, name):
    run(switched, cases.SHARED, name)


# --- the measuring device itself ---

PODS = {f"pod-{i}": f"10.244.9.{i}" for i in range(1, 5)}
COLUMNS = [(protocol, port) for protocol in ("TCP", "UDP", "SCTP") for port in (80, 81)]


def nft_for(plan, sets):
    """A forwarding host that does to each cell what the plan says: drop it, reject it, or lose its answers."""
    rules = []
    for cell, fate in plan.items():
        there, here = sets[cell.destination][cell.family], sets[cell.source][cell.family]
        ip, protocol = ("ip" if cell.family == 4 else "ip6"), cell.protocol.lower()
        if fate == "arrived":
            rules.append(f"{ip} saddr {there} {ip} daddr {here} {protocol} sport {cell.port} drop")
        elif fate != "open":
            verb = {"silent": "drop", "prohibited": "reject with icmpx type admin-prohibited", "refused": "reject with tcp reset"}[fate]
            rules.append(f"{ip} saddr {here} {ip} daddr {there} {protocol} dport {cell.port} {verb}")
    return "table inet plan {\nchain f { type filter hook forward priority 0; policy accept;\n" + "\n".join(rules) + "\n}\n}\n"


def test_the_prober_says_what_happened_to_every_cell():
    """No heddle: a kernel router with a random plan, so that a wrong answer above is not the prober's."""
    pick = random.Random(66)
    with cluster.Cluster(guarded=False) as c:
        c.name({name: c.workload(ip) for name, ip in PODS.items()})
        c.route_by_kernel()
        plan = {}
        for source in PODS:
            for destination in PODS:
                for protocol, port in COLUMNS:
                    for family in (4, 6):
                        fates = ["open", "silent", "arrived"]
                        # An ICMP error that comes during connect() itself is only noted by TCP: silence to us
                        fates += {"TCP": ["refused"], "UDP": ["prohibited"], "SCTP": []}[protocol]
                        if source != destination:
                            plan[Cell(source, destination, protocol, port, family)] = pick.choice(fates)
        sets = {name: c.workload(ip).addresses for name, ip in PODS.items()}
        c.host.run("nft", "-f", "-", input=nft_for(plan, sets))
        for _ in range(3):
            assert c.prober.probe(plan) == plan
        wrong, again = c.prober.compare({cell: "open" for cell in plan})
        assert wrong == {cell: fate for cell, fate in plan.items() if fate != "open"} and again == 0


def test_sctp_by_hand_is_sctp():
    assert matrix.crc32c(b"123456789") == 0xE3069283
    init = matrix.sctp_init(1000, 80, 7)
    assert matrix.sctp_read(init) == (1, 1000, 80, 7)
    assert matrix.sctp_read(matrix.sctp_init_ack(80, 1000, 7)) == (2, 80, 1000, 7)
    assert matrix.sctp_read(init[:-1] + b"x") is None
