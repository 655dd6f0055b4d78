# SPDX-License-Identifier: Apache-2.0
"""
Policy cases: files that say a cluster's state, its policies, and for every pair of pods and every column whether they may talk. Those of
the tree (tests/policy-cases/README.md) are one state each; those of ../shared/netpol-cases (its README) go through several steps.
"""

import json
import os

from .cluster import NETWORK, Pod, State, six
from .heddled import ROOT
from .matrix import Cell

SHARED = os.environ.get("HEDDLE_NETPOL_CASES") or os.path.join(ROOT, "..", "shared", "netpol-cases")
OWN = os.path.join(ROOT, "tests", "policy-cases")


def files(folder):
    return sorted(name for name in os.listdir(folder) if name.endswith(".json")) if os.path.isdir(folder) else []


def read(folder, name):
    with open(os.path.join(folder, name), encoding="utf-8") as f:
        return json.load(f)


def _key(policy):
    metadata = policy["metadata"]
    return policy["kind"], metadata.get("namespace"), metadata["name"]


def _act(policies, action):
    """Policies after one action; the other actions show in the step's own namespaces and pods."""
    for verb, what in action.items():
        if verb in ("CreatePolicy", "UpdatePolicy"):
            policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", **what["Policy"]}
            policies[_key(policy)] = policy
        elif verb == "DeletePolicy":
            del policies[(what.get("Kind", "NetworkPolicy"), what.get("Namespace"), what["Name"])]
        elif verb == "DeleteNamespace":
            for key in [key for key in policies if key[1] == what["Namespace"]]:
                del policies[key]
        else:
            assert verb in ("CreateNamespace", "SetNamespaceLabels", "CreatePod", "DeletePod", "SetPodLabels"), f"action {verb}"


def _has_blocks(value):
    if isinstance(value, dict):
        return "ipBlock" in value or "networks" in value or any(_has_blocks(v) for v in value.values())
    return isinstance(value, list) and any(_has_blocks(v) for v in value)


def _pod(p):
    ip, *more = p.get("ips") or [p["ip"]]
    assert more in ([], [six(ip)]), f"addresses {p['ips']}"
    ports = [{k: port[k] for k in ("name", "port", "protocol") if port.get(k)} for port in p["ports"]]
    return Pod(p["namespace"], p["name"], ip, p.get("labels") or {}, ports, p.get("network", NETWORK))


OUTCOMES = {".": "open", "a": "open", "X": "silent"}


def _wanted(step, policies):
    """{cell: outcome}. What no policy says by address, and no column by family, counts for both families."""
    columns = [column.split("/") for column in step["columns"]]
    both = not _has_blocks(policies) and not any(protocol.endswith("6") for protocol, _ in columns)
    wanted = {}
    for source, row in step["expected"].items():
        for destination, cells in row.items():
            assert len(cells) == len(columns), f"{source} -> {destination}: {cells}"
            for (protocol, port), cell in zip(columns, cells):
                if cell == "-":
                    continue
                families = (4, 6) if both else (6,) if protocol.endswith("6") else (4,)
                for family in families:
                    wanted[Cell(source, destination, protocol.removesuffix("6"), int(port), family)] = OUTCOMES[cell]
    return wanted


def steps(case):
    """(State, {cell: outcome}) of each step."""
    policies, result = {}, []
    for number, step in enumerate(case.get("steps", [case]), 1):
        for action in step.get("actions", []):
            _act(policies, action)
        policies.update({_key(policy): policy for policy in step.get("policies", [])})
        now = list(policies.values())
        state = State(step["namespaces"], [_pod(p) for p in step["pods"]], now, f"{case['description']}, step {number}")
        result.append((state, _wanted(step, now)))
    return result


def audited(case):
    """Cells that pass only because a policy is in audit mode: they are logged. (source, destination, protocol, port)"""
    result = set()
    for step in case.get("steps", [case]):
        columns = [column.split("/") for column in step["columns"]]
        for source, row in step["expected"].items():
            for destination, cells in row.items():
                result |= {(source, destination, p.removesuffix("6"), int(n)) for (p, n), cell in zip(columns, cells) if cell == "a"}
    return result
