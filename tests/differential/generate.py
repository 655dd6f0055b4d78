# SPDX-License-Identifier: Apache-2.0
"""Random documents, and packets drawn to their boundaries."""

import ipaddress

from lib.documents import document

# Small worlds, so that prefixes nest and packets hit them.
WORLD4 = ["10.66.0.0/16", "10.66.1.0/24", "192.0.2.0/24", "198.18.0.0/15", "0.0.0.0/0", "203.0.113.128/25"]
WORLD6 = ["fd66::/16", "fd66:1::/64", "2001:db8::/32", "2001:db8:0:1::/64", "::/0", "2001:db8::/120"]
PORTS = [1, 22, 53, 79, 80, 81, 443, 1023, 1024, 8000, 8080, 8099, 8100, 32767, 32768, 65534, 65535]


class Generator:
    def __init__(self, rng, uplinks, simple=False):
        """simple: only what nftables can say as well, and what real packets can show."""
        self.rng, self.uplinks, self.simple = rng, uplinks, simple

    def network(self, version=None):
        r = self.rng
        version = version or r.choice([4, 6])
        world = ipaddress.ip_network(r.choice(WORLD4 if version == 4 else WORLD6))
        if r.random() < 0.3:
            return world
        return self.inside(world)

    def inside(self, network):
        """A block within network."""
        r = self.rng
        longest = network.max_prefixlen
        length = r.choice([longest, longest, longest - 1, min(longest, network.prefixlen + r.randrange(0, 17)), r.randint(network.prefixlen, longest)])
        length = max(length, network.prefixlen)
        # the low host numbers of a world are where others' prefixes are as well
        span = network.num_addresses
        offset = r.choice([0, 1, 2, 3, 255, 256, span - 1, r.randrange(span)]) % span
        block = type(network)((int(network.network_address) + offset, length), strict=False)
        # IPv4-mapped addresses do not travel, and documents may not name them
        return network if block.version == 6 and int(block.network_address) >> 32 == 0xFFFF else block

    def peer(self, groups):
        r = self.rng
        if groups and r.random() < 0.3:
            return {"addressGroup": r.choice(groups)}
        network = self.network()
        item = {"cidr": str(network)}
        if network.prefixlen < network.max_prefixlen and r.random() < 0.35:
            item["except"] = [str(self.inside(network)) for _ in range(r.randint(1, 3))]
        return item

    def port_range(self, protocol, source=False):
        r = self.rng
        item = {"protocol": protocol}
        if source or r.random() < 0.8:
            item["port"] = r.choice([*PORTS, r.randint(1, 65535)])
            if r.random() < 0.5:
                item["endPort"] = r.choice([item["port"], min(65535, item["port"] + r.choice([1, 7, 8, 100, 5000])), 65535])
        return item

    def rule(self, direction, groups):
        r = self.rng
        rule = {"action": r.choice(["allow", "allow", "deny", "deny", "reject"])}
        if r.random() < 0.7:
            rule["from" if direction == "ingress" else "to"] = [self.peer(groups) for _ in range(r.choice([1, 1, 2, 4]))]
        kind = r.random()
        protocols = ["TCP", "UDP"] if self.simple else ["TCP", "UDP", "SCTP", "TCP", "UDP", 47, 50]
        if kind < 0.65:
            chosen = [r.choice(protocols) for _ in range(r.choice([1, 1, 2, 3]))]
            rule["ports"] = [self.port_range(p) if isinstance(p, str) else {"protocol": p} for p in chosen]
            if r.random() < 0.3:
                named = sorted({p for p in chosen if isinstance(p, str)})
                if named and (len(named) == len(set(chosen))):
                    rule["sourcePorts"] = [self.port_range(p, True) for p in named for _ in range(r.choice([1, 2]))]
        if (kind > 0.6 and kind < 0.85) and "sourcePorts" not in rule:
            rule["icmp"] = [self.icmp() for _ in range(r.choice([1, 1, 3]))]
        if kind > 0.95:
            rule["sourcePorts"] = [self.port_range(p, True) for p in r.sample(["TCP", "UDP"], r.randint(1, 2))]
        if r.random() < 0.2:
            rule["log"] = True
        if r.random() < 0.5:
            rule["name"] = f"r{r.randrange(1 << 30)}"
        return rule

    def icmp(self):
        r = self.rng
        six = r.random() < 0.5
        item = {"family": "IPv6"} if six else {}
        if self.simple:
            item["type"] = 128 if six else 8
        elif r.random() < 0.85:
            item["type"] = r.choice([128, 144, 200] if six else [8, 13, 17])
            if r.random() < 0.4:
                item["code"] = r.choice([0, 1, 255])
        return item

    def objects(self):
        r = self.rng
        groups = [f"g{i}" for i in range(r.randint(0, 4))]
        result = []
        for name in groups:
            networks = {str(self.network()) for _ in range(r.choice([1, 2, 5, 40]))}
            result.append(document("AddressGroup", name, {"cidrs": sorted(networks)}))
        for i in range(r.choice([1, 1, 2, 3, 6])):
            spec = {"priority": r.choice([1, 10, 10, 100, 1000])}
            if r.random() < 0.25 and len(self.uplinks) > 1:
                spec["uplinks"] = r.sample(self.uplinks, r.randint(1, len(self.uplinks)))
            for direction in ("ingress", "egress"):
                if r.random() < 0.85:
                    spec[direction] = [self.rule(direction, groups) for _ in range(r.choice([1, 2, 5, 12, 30]))]
            if r.random() < 0.7:
                spec["default"] = {d: r.choice(["allow", "deny"]) for d in ("ingress", "egress") if r.random() < 0.8} or {"ingress": "deny"}
            result.append(document("HostPolicy", f"p{r.randrange(100)}-{i}", spec))
        return result

    # --- packets ---

    def boundaries(self, objects):
        """Addresses and ports on, just inside and just outside of everything that the documents name."""
        addresses = {4: set(), 6: set()}
        ports = set(PORTS)
        types = {(1, 8, 0), (58, 128, 0)}

        def block(text):
            network = ipaddress.ip_network(text)
            for value in (int(network[0]), int(network[0]) - 1, int(network[-1]), int(network[-1]) + 1, int(network[0]) + network.num_addresses // 2):
                if 0 < value < (1 << network.max_prefixlen) - 1:
                    addresses[network.version].add(value)

        for o in objects:
            for c in o["spec"].get("cidrs", []):
                block(c)
            for direction in ("ingress", "egress"):
                for rule in o["spec"].get(direction, []):
                    for p in rule.get("from", []) + rule.get("to", []):
                        for text in ([p["cidr"]] if "cidr" in p else []) + p.get("except", []):
                            block(text)
                    for p in rule.get("ports", []) + rule.get("sourcePorts", []):
                        if "port" in p:
                            ports |= {p["port"] - 1, p["port"], p.get("endPort", p["port"]), p.get("endPort", p["port"]) + 1}
                    for i in rule.get("icmp", []):
                        if "type" in i:
                            types.add((58 if "family" in i else 1, i["type"], i.get("code", 0)))
        return (
            {v: sorted(a) for v, a in addresses.items()},
            sorted(p for p in ports if 0 < p < 65536),
            sorted(types),
        )

    def packet(self, bounds, local):
        """local: {(uplink, version): the host's address}."""
        r = self.rng
        addresses, ports, types = bounds
        version = r.choice([4, 6])
        direction, uplink = r.choice(["ingress", "egress"]), r.choice(self.uplinks)
        far = None
        while far is None or not usable(far):
            pool = addresses[version]
            if pool and r.random() < 0.85:
                value = r.choice(pool)
            else:
                value = r.choice([int(n) for n in map(ipaddress.ip_address, ["10.66.1.1", "8.8.8.8"])]) if version == 4 else r.getrandbits(120) | 0x20 << 120
            far = (ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address)(value)
        near = ipaddress.ip_address(local[(uplink, version)])
        result = {"direction": direction, "uplink": uplink, "version": version}
        result["src"], result["dst"] = (far, near) if direction == "ingress" else (near, far)
        kind = r.random()
        if kind < 0.8:
            result["protocol"] = r.choice([6, 6, 17, 17] + ([] if self.simple else [132]))
            result["sport"], result["dport"] = r.choice(ports), r.choice(ports)
        elif kind < 0.95 or self.simple:
            protocol = 1 if version == 4 else 58
            known = [t for t in types if t[0] == protocol]
            _, result["type"], result["code"] = r.choice(known)
            result["protocol"] = protocol
            if not self.simple and r.random() < 0.3:
                result["code"] = r.choice([0, 1, 2, 254, 255])
        else:
            result["protocol"] = r.choice([47, 50, 46, 103])
        return result


def usable(address):
    """Ordinary unicast: what a packet on a wire can come from or go to."""
    if address.is_multicast or address.is_loopback or address.is_unspecified or address.is_link_local:
        return False
    if address.version == 4:
        return not address.is_reserved and int(address) >> 24 not in (0, 127) and int(address) >> 28 < 14
    # IPv4-mapped and -compatible addresses do not travel
    return int(address) >> 32 not in (0, 0xFFFF)
