# SPDX-License-Identifier: Apache-2.0
"""The rules that kube-proxy makes on a node, as its nftables mode writes them: one table a family, maps of verdicts, a chain a service and a chain an endpoint."""

MASQUERADE = 0x4000


class Service:
    def __init__(self, name, address, port, endpoints, node_port=None, protocol="tcp", local=False):
        """endpoints: [(address, port)] of the address's family. local: externalTrafficPolicy, with endpoints of this node alone."""
        self.name, self.address, self.port, self.endpoints = name, address, port, endpoints
        self.node_port, self.protocol, self.local = node_port, protocol, local

    @property
    def family(self):
        return 6 if ":" in self.address else 4


def _chains(service, ip, at, cluster):
    count = len(service.endpoints)
    for i, (address, port) in enumerate(service.endpoints):
        to = f"[{address}]:{port}" if ip == "ip6" else f"{address}:{port}"
        yield f"chain endpoint-{service.name}-{i} {{ {ip} saddr {address} jump mark-for-masquerade; meta l4proto {service.protocol} dnat to {to}; }}"
    pick = " , ".join(f"{i} : goto endpoint-{service.name}-{i}" for i in range(count))
    spread = f"numgen random mod {count} vmap {{ {pick} }};"
    outside = f"{ip} daddr {service.address} {service.protocol} dport {service.port} {ip} saddr != {cluster} jump mark-for-masquerade;"
    yield f"chain service-{service.name} {{ {outside} {spread} }}"
    mark = "" if service.local else "jump mark-for-masquerade;"
    yield f"chain external-{service.name} {{ {mark} goto service-{service.name}; }}"


def _table(family, services, cluster):
    ip = "ip" if family == 4 else "ip6"
    loopback = "127.0.0.0/8" if family == 4 else "::1"
    ips = ", ".join(f"{s.address} . {s.protocol} . {s.port} : goto service-{s.name}" for s in services)
    ports = ", ".join(f"{s.protocol} . {s.node_port} : goto external-{s.name}" for s in services if s.node_port)
    lines = [f"add table {ip} kube-proxy", f"delete table {ip} kube-proxy", f"table {ip} kube-proxy {{"]
    lines.append(f"chain mark-for-masquerade {{ meta mark set meta mark or {MASQUERADE:#x}; }}")
    for s in services:
        lines += _chains(s, ip, family, cluster)
    lines.append(f"map service-ips {{ type {'ipv4' if family == 4 else 'ipv6'}_addr . inet_proto . inet_service : verdict; elements = {{ {ips} }}; }}")
    if ports:
        lines.append(f"map service-nodeports {{ type inet_proto . inet_service : verdict; elements = {{ {ports} }}; }}")
    node_ports = f"fib daddr type local {ip} daddr != {loopback} meta l4proto . th dport vmap @service-nodeports;" if ports else ""
    lines += [
        f"chain services {{ {ip} daddr . meta l4proto . th dport vmap @service-ips; {node_ports} }}",
        "chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }",
        "chain nat-output { type nat hook output priority -100; jump services; }",
        f"chain nat-postrouting {{ type nat hook postrouting priority srcnat; meta mark & {MASQUERADE:#x} == 0 return; "
        f"meta mark set meta mark xor {MASQUERADE:#x}; masquerade fully-random; }}",
        # and what it does to packets that conntrack does not know
        "chain filter-forward { type filter hook forward priority -110; ct state invalid drop; }",
        "}",
    ]
    return "\n".join(lines)


def put(ns, services, clusters=("10.77.0.0/16", "fd77::/48")):
    """Exactly these services on the node whose namespace it is."""
    text = []
    for family, cluster in zip((4, 6), clusters):
        of_family = [s for s in services if s.family == family]
        if of_family:
            text.append(_table(family, of_family, cluster))
    ns.run("nft", "-f", "-", input="\n".join(text) + "\n")


def put_iptables(ns, services):
    """The same in the way of its iptables mode, for ClusterIPs: a chain a service and a chain an endpoint in the table nat of each family."""
    for command, family in (("iptables-restore", 4), ("ip6tables-restore", 6)):
        lines = ["*nat", ":KUBE-SERVICES - [0:0]", ":KUBE-MARK-MASQ - [0:0]", ":KUBE-POSTROUTING - [0:0]"]
        rules = [f"-A KUBE-MARK-MASQ -j MARK --or-mark {MASQUERADE:#x}", "-A PREROUTING -j KUBE-SERVICES", "-A OUTPUT -j KUBE-SERVICES",
                 "-A POSTROUTING -j KUBE-POSTROUTING", f"-A KUBE-POSTROUTING -m mark ! --mark {MASQUERADE:#x}/{MASQUERADE:#x} -j RETURN",
                 f"-A KUBE-POSTROUTING -j MARK --xor-mark {MASQUERADE:#x}", "-A KUBE-POSTROUTING -j MASQUERADE --random-fully"]
        for number, s in enumerate(s for s in services if s.family == family):
            chain = f"KUBE-SVC-{number}"
            lines.append(f":{chain} - [0:0]")
            rules.append(f"-A KUBE-SERVICES -d {s.address} -p {s.protocol} -m {s.protocol} --dport {s.port} -j {chain}")
            for i, (address, port) in enumerate(s.endpoints):
                end = f"KUBE-SEP-{number}-{i}"
                to = f"[{address}]:{port}" if family == 6 else f"{address}:{port}"
                left = len(s.endpoints) - i
                chance = f" -m statistic --mode random --probability {1 / left:.5f}" if left > 1 else ""
                lines.append(f":{end} - [0:0]")
                rules += [f"-A {chain}{chance} -j {end}", f"-A {end} -s {address} -j KUBE-MARK-MASQ",
                          f"-A {end} -p {s.protocol} -m {s.protocol} -j DNAT --to-destination {to}"]
        ns.run(command, input="\n".join([*lines, *rules, "COMMIT", ""]))
