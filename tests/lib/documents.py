# SPDX-License-Identifier: Apache-2.0
"""Documents as Python dictionaries; JSON is YAML, so they are written to files as JSON, one document after another."""

import json

API = "heddle.dev/v1alpha1"


def document(kind, name, spec):
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": spec}


def host(device="up0", xdp="auto", name="host", **spec):
    uplinks = spec.pop("uplinks", [{"device": device, "xdp": xdp}])
    return document("Host", name, {"uplinks": uplinks, **spec})


def group(name, *cidrs):
    return document("AddressGroup", name, {"cidrs": list(cidrs)})


def policy(name="base", priority=100, ingress=None, egress=None, default=None, **spec):
    body = {"priority": priority, **spec}
    for key, value in (("ingress", ingress), ("egress", egress), ("default", default)):
        if value is not None:
            body[key] = value
    return document("HostPolicy", name, body)


def rule(action="allow", protocol=None, port=None, end_port=None, peers=None, direction="ingress", **fields):
    """peers: CIDRs (with a slash) and group names."""
    body = {"action": action, **fields}
    if protocol:
        item = {"protocol": protocol}
        if port is not None:
            item["port"] = port
        if end_port is not None:
            item["endPort"] = end_port
        body["ports"] = [item]
    if peers:
        key = "from" if direction == "ingress" else "to"
        body[key] = [p if isinstance(p, dict) else {"cidr": p} if "/" in p else {"addressGroup": p} for p in peers]
    return body


def network(name, **spec):
    return document("Network", name, spec)


def port(name, device, network_name, namespace="default", labels=None, **spec):
    result = document("Port", name, {"device": device, "network": network_name, **spec})
    result["metadata"].update(namespace=namespace, labels=labels or {})
    return result


def text(*documents):
    return "---\n".join(json.dumps(d, indent=1) + "\n" for d in documents)


DENY_ALL = {"ingress": "deny", "egress": "deny"}
DENY_IN = {"ingress": "deny", "egress": "allow"}
