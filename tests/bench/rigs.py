# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks set up: documents of a size, source lists, frames, and a guarded host."""

import contextlib
import os
import random
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from lib import documents as doc  # noqa: E402
from lib.heddled import BUILD, ApiError, Heddled  # noqa: E402, F401
from lib.netns import Pair  # noqa: E402

SERVICE_PORT = 7000  # of traffic.c: and the three after it
PROGBENCH = os.path.join(BUILD, "tests/bench/progbench")
TRAFFIC = os.path.join(BUILD, "tests/bench/traffic")
SHELL = os.path.join(BUILD, "tests/bench/shell.bpf.o")
# Ahead of all that else runs: it takes time, and the contents of the caches, without which a new flow with 100,000 rules looks the worse. A nice value
# would count within a session only.
FIRST = ("chrt", "-f", "1")


def prefixes(count, seed=1):
    """Distinct random /24 blocks in 16.0.0.0 .. 99.255.255.0, away from the test hosts' own addresses."""
    numbers = random.Random(seed).sample(range(16 << 16, 100 << 16), count)
    return [f"{n >> 16}.{n >> 8 & 255}.{n & 255}.0/24" for n in numbers]


def rule_port(index):
    return 10000 + index % 20000


def rule_documents(count, per_policy=1000, first_priority=1000):
    """count rules, each one block and one port; host policies of per_policy rules each."""
    blocks = prefixes(count)
    result = []
    for start in range(0, count, per_policy):
        rules = [
            {"name": f"r{i}", "action": "allow", "from": [{"cidr": blocks[i]}], "ports": [{"protocol": "TCP", "port": rule_port(i)}]}
            for i in range(start, min(start + per_policy, count))
        ]
        number = start // per_policy
        result.append(doc.policy(f"rules-{number:04d}", first_priority + number, ingress=rules))
    return result


def rules_text(documents):
    """The documents of rule_documents() as a person would write them: YAML, a rule a line."""
    lines = []
    for document in documents:
        lines += ["---", f"apiVersion: {document['apiVersion']}", "kind: HostPolicy", f"metadata: {{name: {document['metadata']['name']}}}"]
        lines += ["spec:", f"  priority: {document['spec']['priority']}", "  ingress:"]
        for rule in document["spec"]["ingress"]:
            (peer,), (port,) = rule["from"], rule["ports"]
            lines.append(
                f"  - {{name: {rule['name']}, action: {rule['action']}, from: [{{cidr: {peer['cidr']}}}], "
                f"ports: [{{protocol: {port['protocol']}, port: {port['port']}}}]}}"
            )
    return "\n".join(lines) + "\n"


def base_documents(xdp="auto", **spec):
    """A host that serves the benchmarks' port, and nothing else but what the rules of the benchmark add."""
    service = [{"protocol": p, "port": SERVICE_PORT, "endPort": SERVICE_PORT + 3} for p in ("TCP", "UDP")]
    return [
        doc.host(xdp=xdp, pickupSeconds=0, **spec),
        doc.policy("service", 60000, ingress=[{"name": "service", "action": "allow", "ports": service}], default=doc.DENY_IN),
    ]


class Guarded:
    """A pair of namespaces whose server runs heddled with the documents."""

    def __init__(self, *documents):
        self.stack = contextlib.ExitStack()
        try:
            self.pair = Pair()
            self.stack.callback(self.pair.close)
            self.heddled = Heddled(self.pair.server, documents)
            self.stack.callback(self.heddled.remove)
            self.heddled.start(timeout=60)
            self.ifindex = self.pair.server.ifindex(self.pair.uplink)
        except BaseException:
            self.stack.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stack.close()

    def program(self, name):
        return os.path.join(self.heddled.bpffs, "heddle", "progs", name)


# --- sources (struct source of shell.bpf.c) and frames ---


def source(address, port, destination_port=0):
    packed = address if isinstance(address, bytes) else struct.pack(">I", address)
    return packed.ljust(16, b"\0") + struct.pack(">HHI", port, destination_port, 0)


def new_flow_sources(count, drawn):
    """
    131,000 different tuples, more than the table of new flows holds, so each one is new; from `drawn` of count rules' blocks. The number of
    hosts shares no factor with that of ports, so that few blocks too give different ones.
    """
    blocks, chosen = prefixes(count), range(0, count, count // drawn)
    rules = (chosen[i % drawn] for i in range(131_000))
    entries = [
        source(ipv4_number(blocks[rule]) + 1 + i // drawn % 251, 1024 + i * 7 % 60000, rule_port(rule)) for i, rule in enumerate(rules)
    ]
    assert len(set(entries)) == len(entries)
    return entries


def write_sources(path, entries):
    with open(path, "wb") as f:
        f.write(b"".join(entries))
    return path


def ipv4_number(text):
    a, b, c, d = (int(x) for x in text.split("/")[0].split("."))
    return a << 24 | b << 16 | c << 8 | d


def tcp_frame(pair, family, flags, seq=1000, ack=0, reply=False, payload=0, sport=1234, dport=SERVICE_PORT, source_ip=None):
    from scapy.all import IP, TCP, Ether, IPv6, Raw

    client = source_ip or ("10.64.0.1" if family == 4 else "fd64::1")
    server = pair.server_address(family)
    layer = IP if family == 4 else IPv6
    if reply:
        packet = Ether(src=pair.server_mac, dst=pair.client_mac) / layer(src=server, dst=client) / TCP(sport=dport, dport=sport)
    else:
        packet = Ether(src=pair.client_mac, dst=pair.server_mac) / layer(src=client, dst=server) / TCP(sport=sport, dport=dport)
    packet[TCP].flags, packet[TCP].seq, packet[TCP].ack = flags, seq, ack
    # draw_source() wants 74 bytes at least; timestamps are what real segments carry
    packet[TCP].options = [("NOP", None), ("NOP", None), ("Timestamp", (1, 1))]
    return bytes(packet / Raw(b"x" * (payload or 8)))


def udp_frame(from_mac, to_mac, source, destination, sport, dport):
    """64 bytes with the FCS."""
    from scapy.all import IP, UDP, Ether, Raw

    return bytes(Ether(src=from_mac, dst=to_mac) / IP(src=source, dst=destination) / UDP(sport=sport, dport=dport) / Raw(bytes(18)))
