# SPDX-License-Identifier: Apache-2.0
"""
What a HostPolicy means, evaluated rule by rule over the plain documents. Slow and obvious; shares nothing with heddle.

Packets are dictionaries: direction, uplink, src, dst (ipaddress objects), protocol (number), sport, dport, type, code.
"""

import ipaddress
from dataclasses import dataclass, field

NUMBERS = {"TCP": 6, "UDP": 17, "SCTP": 132, "ICMP": 1, "ICMPv6": 58}
WITH_PORTS = (6, 17, 132)


@dataclass(frozen=True)
class Verdict:
    action: str
    policy: str = None  # None: a default, a failsafe port or a built-in
    index: int = None
    why: str = field(default="", compare=False)


def protocol_number(value):
    return NUMBERS.get(value, value)


class Evaluator:
    def __init__(self, host, objects):
        self.failsafe = host["spec"].get("failsafe", [])
        self.groups = {
            o["metadata"]["name"]: [ipaddress.ip_network(c) for c in o["spec"]["cidrs"]] for o in objects if o["kind"] == "AddressGroup"
        }
        policies = [o for o in objects if o["kind"] == "HostPolicy"]
        self.policies = sorted(policies, key=lambda p: (p["spec"]["priority"], p["metadata"]["name"]))

    def judge(self, packet):
        direction = packet["direction"]
        if is_dhcp_client(packet):
            return Verdict("allow", why="DHCP client")
        if direction == "ingress" and any(port_item_matches(f, packet, packet.get("dport")) for f in self.failsafe):
            return Verdict("allow", why="failsafe")
        default = "allow"
        for policy in self.policies:
            spec = policy["spec"]
            if "uplinks" in spec and packet["uplink"] not in spec["uplinks"]:
                continue
            for index, rule in enumerate(spec.get(direction, [])):
                if self.rule_matches(rule, packet):
                    return Verdict(rule["action"], policy["metadata"]["name"], index)
            default = spec.get("default", {}).get(direction, default)
        return Verdict(default, why="default")

    def rule_matches(self, rule, packet):
        peers = rule.get("from") if packet["direction"] == "ingress" else rule.get("to")
        peer = packet["src"] if packet["direction"] == "ingress" else packet["dst"]
        if peers is not None and not any(self.peer_matches(p, peer) for p in peers):
            return False
        if "ports" in rule or "icmp" in rule:
            by_port = any(port_item_matches(p, packet, packet.get("dport")) for p in rule.get("ports", []))
            by_type = any(icmp_item_matches(i, packet) for i in rule.get("icmp", []))
            if not by_port and not by_type:
                return False
            if by_type and not by_port:
                return True  # source ports say nothing about ICMP
        if "sourcePorts" in rule:
            return any(port_item_matches(p, packet, packet.get("sport")) for p in rule["sourcePorts"])
        return True

    def peer_matches(self, item, address):
        if "addressGroup" in item:
            return any(address in network for network in self.groups[item["addressGroup"]])
        if address not in ipaddress.ip_network(item["cidr"]):
            return False
        return not any(address in ipaddress.ip_network(e) for e in item.get("except", []))


def port_item_matches(item, packet, port):
    if protocol_number(item["protocol"]) != packet["protocol"]:
        return False
    if "port" not in item:
        return True
    return port is not None and item["port"] <= port <= item.get("endPort", item["port"])


def icmp_item_matches(item, packet):
    if packet["protocol"] != (58 if item.get("family", "IPv4") == "IPv6" else 1):
        return False
    if "type" in item and item["type"] != packet["type"]:
        return False
    return "code" not in item or item["code"] == packet["code"]


def is_dhcp_client(packet):
    if packet["protocol"] != 17:
        return False
    server, client = (67, 68) if packet["src"].version == 4 else (547, 546)
    ports = (packet["sport"], packet["dport"])
    return ports == ((server, client) if packet["direction"] == "ingress" else (client, server))
