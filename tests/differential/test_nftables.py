# SPDX-License-Identifier: Apache-2.0
"""
The nftables twin: the same rules as a HostPolicy in one namespace and as a stateful nft ruleset in another, the same real packets
to both (and from both), and the same ones must arrive.
"""

import os
import random
import socket
import time

import pytest
from generate import Generator
from lib import netns, raw
from lib.fixtures import SLOW, Guarded

DOCUMENTS = int(os.environ.get("DOCUMENTS", "120" if SLOW else "15"))
PACKETS = int(os.environ.get("PACKETS", "150"))
SEED = int(os.environ.get("SEED", random.SystemRandom().randrange(1 << 32)))
VERDICTS = {"allow": "accept", "deny": "drop", "reject": "drop"}  # what arrives is compared, not what is answered


def nft_ruleset(objects):
    groups = {o["metadata"]["name"]: o["spec"]["cidrs"] for o in objects if o["kind"] == "AddressGroup"}
    policies = [o for o in objects if o["kind"] == "HostPolicy"]
    policies.sort(key=lambda p: (p["spec"]["priority"], p["metadata"]["name"]))
    lines = ["flush ruleset", "table inet twin {"]
    for direction, hook, word in (("ingress", "input", "saddr"), ("egress", "output", "daddr")):
        default = "allow"
        lines += [f" chain {direction} {{", f"  type filter hook {hook} priority 0; policy accept;", "  ct state established,related accept"]
        lines.append("  icmpv6 type { 133-137 } accept")
        server, client = ("sport", "dport") if direction == "ingress" else ("dport", "sport")
        lines.append(f"  meta nfproto ipv4 udp {server} 67 udp {client} 68 accept")
        lines.append(f"  meta nfproto ipv6 udp {server} 547 udp {client} 546 accept")
        for p in policies:
            for rule in p["spec"].get(direction, []):
                for match in rule_matches(rule, groups, direction, word):
                    lines.append(f"  {match} {VERDICTS[rule['action']]}")
            default = p["spec"].get("default", {}).get(direction, default)
        lines += [f"  {VERDICTS[default]}", " }"]
    return "\n".join([*lines, "}", ""])


def rule_matches(rule, groups, direction, word):
    """One rule as all the nft matches it takes: peers × (ports or types)."""
    peers = [""]
    if direction_key(direction) in rule:
        peers = []
        for p in rule[direction_key(direction)]:
            for cidr in groups[p["addressGroup"]] if "addressGroup" in p else [p["cidr"]]:
                ip = "ip6" if ":" in cidr else "ip"
                match = f"{ip} {word} {cidr}"
                # several matches: nftables wants the elements of one set not to overlap
                peers.append(match + "".join(f" {ip} {word} != {e}" for e in p.get("except", [])))
    services = []
    if "ports" not in rule and "icmp" not in rule:
        services = [source_match(s) for s in rule.get("sourcePorts", [])] or [""]
    for item in rule.get("ports", []):
        protocol = item["protocol"].lower()
        match = f"meta l4proto {protocol}" if "port" not in item else f"{protocol} dport {span(item)}"
        sources = [s for s in rule.get("sourcePorts", []) if s["protocol"] == item["protocol"]]
        if "sourcePorts" in rule:
            services += [f"{match} {protocol} sport {span(s)}" for s in sources]
        else:
            services.append(match)
    for item in rule.get("icmp", []):
        services.append(f"icmpv6 type {item['type']}" if "family" in item else f"icmp type {item['type']}")
    return [f"{p} {s}".strip() for p in peers for s in services]


def source_match(item):
    return f"{item['protocol'].lower()} sport {span(item)}"


def direction_key(direction):
    return "from" if direction == "ingress" else "to"


def span(item):
    return f"{item['port']}-{item.get('endPort', item['port'])}"


def make_ip(packet, mark):
    ip = (raw.IP if packet["version"] == 4 else raw.IPv6)(src=str(packet["src"]), dst=str(packet["dst"]))
    if packet["protocol"] == 6:
        l4 = raw.TCP(sport=packet["sport"], dport=packet["dport"], flags="S", seq=1000)
    elif packet["protocol"] == 17:
        l4 = raw.UDP(sport=packet["sport"], dport=packet["dport"])
    elif packet["version"] == 4:
        l4 = raw.ICMP(type=8, id=packet["id"])
    else:
        l4 = raw.ICMPv6EchoRequest(id=packet["id"])
    return ip / l4 / mark


class Twin:
    """One of the two guarded hosts, and how packets get to it, out of it, and are seen."""

    def __init__(self, net):
        self.net = net
        self.wire = raw.Wire(net.client, "wire0")
        self.local = raw.LocalWitness(net.server, [1, 6, 17], [6, 17, 58])
        self.out4 = net.server.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self.out6 = net.server.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
        net.server.ip(f"route replace default via {net.client4}", f"route replace default via {net.client6}")
        # the client swallows what is not for it, and does not answer
        for ns in (net.client, net.server):
            ns.sysctl("net.ipv4.conf.all.rp_filter", 0)
            ns.sysctl("net.ipv4.conf.up0.rp_filter", 0)

    def send(self, packet, mark):
        ip = make_ip(packet, mark)
        if packet["direction"] == "ingress":
            self.wire.send(raw.Ether(src=self.net.client_mac, dst=self.net.server_mac) / ip)
            return
        try:
            if packet["version"] == 4:
                self.out4.sendto(bytes(ip), (str(packet["dst"]), 0))
            else:
                self.out6.sendto(bytes(ip), (str(packet["dst"]), 0))
        except PermissionError:
            pass  # nft's drop on output is told to the sender

    def arrived(self, packets):
        """
        Which of the marks came through, waiting until nothing has come for a while. Each at the end it was sent to only:
        echo replies and ICMP errors carry marks back.
        """
        found, quiet = set(), 0
        while quiet < 3:
            data = {"ingress": self.local.received(), "egress": self.wire.frames()}
            new = {mark for mark, p in packets.items() if any(mark in d for d in data[p["direction"]])}
            quiet = 0 if new - found else quiet + 1
            found |= new
            time.sleep(0.05)
        return found

    def close(self):
        for s in (self.wire, self.local, self.out4, self.out6):
            s.close()


@pytest.fixture(scope="module", params=["native", "tcx"])
def twins(request):
    with Guarded(request.param) as heddle:
        other = netns.Pair()
        try:
            yield heddle, Twin(heddle.net), Twin(other)
        finally:
            other.close()


def test_the_same_packets_arrive(twins):
    print(f"SEED={SEED} DOCUMENTS={DOCUMENTS} PACKETS={PACKETS}")
    heddle, ours, theirs = twins
    passed = total = 0
    tuples = set()  # over all documents: neither side's state of an earlier one may answer for it
    for number in range(DOCUMENTS):
        rng = random.Random(f"{SEED}-{number}")
        generator = Generator(rng, ["up0"], simple=True)
        objects = generator.objects()
        heddle.policy(*objects)
        ruleset = nft_ruleset(objects)
        theirs.net.server.run("nft", "-f", "-", input=ruleset)
        bounds = generator.boundaries(objects)
        local = {("up0", 4): heddle.server4, ("up0", 6): heddle.server6}
        packets = {}
        while len(packets) < PACKETS:
            packet = generator.packet(bounds, local)
            packet["id"] = len(packets) + 1 + number * PACKETS & 0xFFFF
            # one packet a connection, either way round: policies are compared, not state machines
            ends = sorted([(str(packet["src"]), packet.get("sport")), (str(packet["dst"]), packet.get("dport"))], key=str)
            key = (packet["protocol"], *ends, packet["id"] if packet["protocol"] in (1, 58) else 0)
            if key in tuples:
                continue
            tuples.add(key)
            packets[f"<{number:04}:{len(packets):05}>".encode()] = packet
        for mark, packet in packets.items():
            ours.send(packet, mark)
            theirs.send(packet, mark)
        here, there = ours.arrived(packets), theirs.arrived(packets)
        different = [
            f"{'heddle' if m in here else 'nftables'} alone let through {packets[m]}: {heddle.daemon.explain(**as_request(packets[m]))}"
            for m in sorted(here ^ there)
        ]
        assert not different, f"SEED={SEED} document {number}\n" + "\n".join(different[:5]) + "\n" + ruleset
        passed += len(here)
        total += len(packets)
    print(f"{total} packets, {passed} arrived on both")
    assert 0 < passed < total


def as_request(packet):
    request = {"from": str(packet["src"]), "to": str(packet["dst"])}
    request["protocol"] = {6: "tcp", 17: "udp", 1: "icmp", 58: "icmpv6"}[packet["protocol"]]
    request["uplink" if packet["direction"] == "ingress" else "egress"] = "up0"
    for key in ("sport", "dport"):
        if key in packet:
            request[key] = packet[key]
    if "type" in packet:
        request["icmpType"] = packet["type"]
    return request
