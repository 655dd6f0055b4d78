# SPDX-License-Identifier: Apache-2.0
"""Rules as they reach packets: who decides, what is counted, logged and answered, and what a change does to live flows."""
import time

import pytest
from flow_test import Connection
from packets import ARP, HOST, ICMP, IP, PEER, SCTP, TAGS, UDP, Ether, IPv6, Raw, frame, ip, ping, tagged, tcp, udp
from world import CONTROL_MONITOR, CONTROL_PICKUP, EGRESS, INGRESS, PORT_UPLINK, PORT_XDP, TC_IN, TC_OUT, UPLINK, XDP, number, sh

NET = {4: "198.51.100.0/24", 6: "2001:db8:1::/64"}


def both(world, rules, default="deny"):
    """The same rules in both directions, `peers` becoming from and to."""
    world.rules(ingress=[rule.replace("peers:", "from:") for rule in rules], egress=[rule.replace("peers:", "to:") for rule in rules],
                default=f"{{ingress: {default}, egress: {default}}}")


def test_address_and_port(world, hook, family):
    inbound = hook != TC_OUT
    both(world, [f"{{name: web, action: allow, peers: [{{cidr: '{NET[family]}'}}], ports: [{{protocol: TCP, port: 80, endPort: 89}}]}}"])
    other = {4: "198.51.101.7", 6: "2001:db8:2::7"}[family]
    for port, address, verdict in ((80, None, "none"), (89, None, "none"), (90, None, "policy-deny"), (79, None, "policy-deny"), (80, other, "policy-deny")):
        assert world.run(hook, tcp(family, inbound, dport=port, peer=address)).reason == verdict, (port, address)
    assert world.run(hook, udp(family, inbound, dport=80)).reason == "policy-deny"


@pytest.mark.parametrize("ports", ["", ", {protocol: TCP, port: 200}"], ids=["range", "tree"])
def test_rules_of_one_direction(world, hook, family, ports):
    """The peer's class is named in one policy set alone, by one range of ports or by more: the other set has no rule for it."""
    inbound = hook != TC_OUT
    rule = f"{{name: web, action: allow, %s: [{{cidr: '{NET[family]}'}}], ports: [{{protocol: TCP, port: 80, endPort: 89}}{ports}]}}"
    wanted = {79: False, 80: True, 89: True, 90: False, 200: bool(ports)}
    for direction in (INGRESS, EGRESS):
        rules = {"egress" if direction else "ingress": [rule % ("to" if direction else "from")]}
        world.rules(**rules, default="{ingress: deny, egress: deny}")
        for port, passes in wanted.items():
            page = world.explain(hook, tcp(family, inbound, dport=port))
            mine = direction == (INGRESS if inbound else EGRESS)
            assert page.why == ("none" if passes and mine else "policy-deny"), port
            assert bool(page.class_root) == mine
        assert world.run(hook, tcp(family, inbound, dport=80)).passed == mine


@pytest.mark.parametrize("tags", TAGS.values(), ids=TAGS)
def test_a_tag_lets_nothing_past(world, hook, family, tags):
    inbound = hook != TC_OUT
    both(world, ["{name: ssh, action: allow, ports: [{protocol: TCP, port: 22}]}"])
    assert world.run(hook, tagged(tcp(family, inbound, dport=23), tags)).reason == "policy-deny"
    assert world.run(hook, tagged(tcp(family, inbound, dport=22), tags)).passed
    assert world.run(hook, tagged(Ether(type=0x8847) / Raw(bytes(50)), tags)).reason == "policy-deny"


@pytest.mark.parametrize("vlan", [None, 0, 7])
def test_tag_in_metadata(world, vlan):
    """What TC sees after the driver or the stack took the tag out of the frame: judged by what is inside."""
    both(world, ["{name: ssh, action: allow, ports: [{protocol: TCP, port: 22}]}"])
    assert world.explain(TC_IN, tcp(4, dport=23), vlan=vlan).why == "policy-deny"
    assert world.explain(TC_IN, tcp(4, dport=22), vlan=vlan).why == "none"
    assert world.explain(TC_IN, tagged(tcp(4, dport=23), TAGS["one tag"]), vlan=vlan).why == "policy-deny"


def test_first_match_decides(world, hook, family):
    inbound = hook != TC_OUT
    both(world, [f"{{name: a, action: deny, peers: [{{cidr: '{PEER[family]}/{32 if family == 4 else 128}'}}], ports: [{{protocol: TCP, port: 80}}]}}",
                 "{name: b, action: allow, ports: [{protocol: TCP, port: 80}]}",
                 f"{{name: c, action: deny, peers: [{{cidr: '{NET[family]}'}}]}}",
                 "{name: d, action: allow}"])
    other = {4: "198.51.100.8", 6: "2001:db8:1::8"}[family]
    far = {4: "10.1.2.3", 6: "2001:db8:77::1"}[family]
    for port, address, reason, rule in ((80, None, "policy-deny", "a"), (80, other, "none", "b"), (81, other, "policy-deny", "c"), (81, far, "none", "d")):
        page = world.explain(hook, tcp(family, inbound, dport=port, peer=address))
        assert (page.why, world.rule_name(page.rule)) == (reason, rule)


def test_other_protocols(world, hook, family):
    inbound = hook != TC_OUT
    both(world, ["{name: sctp, action: allow, ports: [{protocol: SCTP, port: 36412}]}", "{name: gre, action: allow, ports: [{protocol: 47}]}"])
    chunk = Raw(bytes([1, 0, 0, 20]) + bytes(16))
    assert world.run(hook, frame(ip(family, inbound) / SCTP(sport=5, dport=36412) / chunk, inbound)).passed
    assert world.run(hook, frame(ip(family, inbound) / SCTP(sport=5, dport=36413) / chunk, inbound)).reason == "policy-deny"
    gre = ip(family, inbound, **({"proto": 47} if family == 4 else {"nh": 47})) / Raw(bytes(24))
    esp = ip(family, inbound, **({"proto": 50} if family == 4 else {"nh": 50})) / Raw(bytes(24))
    assert world.run(hook, frame(gre, inbound)).passed
    assert world.run(hook, frame(esp, inbound)).reason == "policy-deny"


def test_built_in(world, hook):
    world.rules(default="{ingress: deny, egress: deny}")
    assert world.run(hook, Ether() / ARP()).passed
    assert world.rule_name(world.explain(hook, Ether() / ARP()).rule) == "arp"
    assert world.run(hook, Ether(type=0x88CC) / Raw(bytes(46))).passed
    assert world.run(hook, Ether(type=0x9000) / Raw(bytes(46))).reason == "policy-deny"
    assert world.run(TC_OUT, frame(IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67), False)).passed
    assert world.run(XDP, frame(IP(src="192.0.2.254", dst="255.255.255.255") / UDP(sport=67, dport=68))).passed


def test_counters(world, hook, family):
    both(world, ["{name: yes, action: allow, ports: [{protocol: UDP, port: 53}]}", "{name: no, action: deny, ports: [{protocol: UDP, port: 54}]}"])
    inbound = hook != TC_OUT
    direction = EGRESS if hook == TC_OUT else INGRESS
    numbers = {name: world.explain(hook, udp(family, inbound, dport=port)).rule for name, port in (("yes", 53), ("no", 54))}
    before = {name: world.percpu("rule_counters", number, 16) for name, number in numbers.items()}
    totals = world.percpu("totals", direction, 16)
    packet = udp(family, inbound, dport=53)
    for _ in range(3):
        assert world.run(hook, packet).passed
    assert world.run(hook, udp(family, inbound, dport=54)).reason == "policy-deny"
    size = len(bytes(packet)) - 14
    after = {name: world.percpu("rule_counters", number, 16) for name, number in numbers.items()}
    assert (after["yes"][0] - before["yes"][0], after["yes"][1] - before["yes"][1]) == (3, 3 * size)
    assert after["no"][0] - before["no"][0] == 1
    now = world.percpu("totals", direction, 16)
    assert (now[0] - totals[0], now[1] - totals[1]) == (4, 4 * size)


def test_gso_counts_its_segments(world, family):
    big = tcp(family, False, "S", payload=bytes(2000))
    try:
        assert world.run(TC_OUT, big, gso_segs=5, gso_size=400).passed
    except OSError:
        pytest.skip("this kernel's test run takes no GSO fields")
    assert list(world.flow()[1].packets) == [5, 0]


@pytest.mark.parametrize("family_", [4, 6])
def test_big_tcp(world, family_):
    """Inside the host a GSO packet may be longer than its length field can say: the field is 0 then."""
    raw = bytearray(bytes(tcp(family_, False, "S", payload=bytes(1000))))
    at = 16 if family_ == 4 else 18
    raw[at:at + 2] = b"\0\0"
    assert world.run(TC_OUT, bytes(raw)).reason == ("ip4-total-length" if family_ == 4 else "tcp-truncated")
    try:
        assert world.run(TC_OUT, bytes(raw), gso_segs=3, gso_size=400).passed
    except OSError:
        pytest.skip("this kernel's test run takes no GSO fields")


def test_log(world, hook, family):
    inbound = hook != TC_OUT
    both(world, ["{name: a, action: allow, log: true, ports: [{protocol: UDP, port: 53}]}", "{name: b, action: deny, log: true}"])
    world.run(hook, udp(family, inbound))
    world.run(hook, udp(family, inbound))
    world.run(hook, udp(family, inbound, dport=54))
    assert [(event.name, world.rule_name(event.rule), event.verdict) for event in world.events()] == [("log", "a", 0), ("log", "b", 1)]
    world.control.log_every = 3
    for port in range(100, 109):
        world.run(hook, udp(family, inbound, sport=port))
    assert [event.name for event in world.events()].count("log") == 3


def test_event_fields(world, hook, family):
    both(world, [])
    inbound = hook != TC_OUT
    packet = tagged(tcp(family, inbound, "S", 40000, 8080), TAGS["two tags"])
    world.run(hook, packet)
    (event,) = world.events()
    assert (event.name, event.hook, event.direction, event.ifindex, event.length) == ("drop", hook, EGRESS if hook == TC_OUT else INGRESS, 1, len(packet))
    assert (event.protocol, event.tcp_flags, list(event.vlan), event.l3_offset) == (6, 2, [0x1014, 0x100A], 22)
    assert (event.source_port, event.destination_port) == (0x409C, 0x901F)  # as on the wire
    world.run(hook, ping(family, inbound))
    (event,) = world.events()
    assert (event.source_port, event.destination_port) == (77 << 8, 8 if family == 4 else 128)


def test_rates(world, hook):
    both(world, [])
    world.control.event_rate = 5
    time.sleep(1.1)
    before, started = world.total(6), time.monotonic()
    for port in range(50):
        world.raw(hook, udp(4, hook != TC_OUT, sport=port + 1))
    events, seconds = world.events(), time.monotonic() - started
    assert 5 <= len(events) <= (5 + 5 * seconds) * world.cpus + 1  # one bucket a CPU, filled again as time goes by
    assert world.total(6) - before == 50 - len(events)


def test_reject(world, hook, family):
    both(world, ["{name: r, action: reject}"])
    inbound = hook != TC_OUT
    packet = tcp(family, inbound, "S", 40000, 23)
    assert world.run(hook, packet).reason == "policy-reject"
    (event,) = world.events()
    assert (event.name, event.packet_length, bytes(event.packet)[:event.packet_length]) == ("reject", len(bytes(packet)), bytes(packet))
    group = {4: "224.0.0.251", 6: "ff02::fb"}[family]
    far, near = {4: "198.51.100.7", 6: "2001:db8:1::7"}[family], HOST[family]
    quiet = [(IP if family == 4 else IPv6)(src=far, dst=group) / UDP(), (IP if family == 4 else IPv6)(src=group, dst=near) / UDP()]
    if family == 4:
        quiet += [IP(src=far, dst="255.255.255.255") / UDP(), IP(src=far, dst=near) / ICMP(type=5), IP(src="0.0.0.0", dst=near) / UDP()]
    for one in quiet:
        assert world.run(hook, frame(one, inbound)).reason == "policy-reject"
    assert {event.name for event in world.events()} == {"drop"}
    assert world.run(hook, Ether(dst="ff:ff:ff:ff:ff:ff") / ip(family, inbound) / UDP(dport=99)).reason == "policy-reject"
    assert [event.name for event in world.events()] == ["drop"]
    world.control.reject_rate = 0
    time.sleep(1.1)
    world.run(hook, packet)
    assert [event.name for event in world.events()] == ["drop"]
    time.sleep(0.1)  # the bucket fills again for the next test


def test_monitor(world, hook, family):
    world.run(hook, udp(family, hook != TC_OUT))
    assert world.events() == []
    world.control.flags = CONTROL_MONITOR
    world.run(hook, udp(family, hook != TC_OUT, sport=5))
    assert [(event.name, event.verdict) for event in world.events()] == [("flow", 0)]


# --- a change of policy ---


def test_cut(world, ingress_hook, family):
    connection = Connection(world, ingress_hook, family).shake()
    cut = world.total(9)
    world.rules(ingress=["{name: no, action: deny, ports: [{protocol: TCP, port: 80}]}"])
    assert connection.send(False, "PA", payload=b"x").reason == "policy-deny"  # judged as the opener's packet, also on the way out
    assert world.flows() == [] and world.total(9) == cut + 1
    assert connection.send(True, "A").reason == "tcp-no-flow"


def test_kept(world, ingress_hook, family):
    connection = Connection(world, ingress_hook, family).shake()
    version = world.flow()[1].version
    world.rules(ingress=["{name: still, action: allow, ports: [{protocol: TCP, port: 80}]}"], default="{ingress: deny, egress: deny}")
    assert connection.send(False, "PA", payload=b"x").passed
    flow = world.flow()[1]
    assert flow.version != version and world.rule_name(flow.rule) == "still"
    assert connection.send(True, "PA", payload=b"x").passed


def test_unchanged_meaning_is_not_judged_again(world, ingress_hook):
    connection = Connection(world, ingress_hook, 4).shake()
    again = world.total(8)
    world.rules(egress=["{name: other, action: deny, ports: [{protocol: TCP, port: 9}]}"])
    assert connection.send(True, "PA", payload=b"x").passed
    assert world.total(8) == again


def test_cut_of_unproven_and_other_flows(world, ingress_hook, family):
    assert world.run(ingress_hook, udp(family)).passed
    assert world.run(ingress_hook, ping(family)).passed
    assert world.run(TC_OUT, udp(family, False, 7, 8)).passed
    assert world.run(ingress_hook, udp(family, True, 8, 7)).passed
    both(world, [])
    assert world.run(ingress_hook, udp(family)).reason == "policy-deny"
    assert world.run(ingress_hook, ping(family)).reason == "policy-deny"
    assert world.run(ingress_hook, udp(family, True, 8, 7)).reason == "policy-deny"
    assert world.flows() == []


# --- installing into a running system ---


@pytest.mark.parametrize("listening", [True, False], ids=["host listens", "peer listens"])
@pytest.mark.parametrize("first", ["peer", "host"])
def test_pick_up(world, ingress_hook, family, listening, first):
    """The host's port 80 is open, so are ports of others: a connection of either kind is known again from its middle."""
    world.rules(ingress=["{name: web, action: allow, ports: [{protocol: TCP, port: 80}]}"], egress=["{name: out, action: allow, ports: [{protocol: TCP, port: 443}]}"],
                default="{ingress: deny, egress: deny}")
    peer_port, host_port = (40000, 80) if listening else (443, 50000)
    inward = tcp(family, True, "PA", peer_port, host_port, 5000, 9000, payload=b"x" * 10)
    outward = tcp(family, False, "PA", host_port, peer_port, 9000, 5010, payload=b"y" * 10)
    order = [(ingress_hook, inward), (TC_OUT, outward)]
    if first == "host":
        order.reverse()
    for hook, packet in order:
        assert world.run(hook, packet).reason == "tcp-no-flow"
    world.control.pickup_until = (world.now() + 60000) & 0xFFFFFFFF
    world.control.flags = CONTROL_PICKUP
    assert world.explain(*order[0]).picked_up == 1
    for hook, packet in order:
        assert world.run(hook, packet).passed
    table, flow = world.flow()
    assert (table, flow.name) == ("flows", "established") and flow.flags & 4
    assert bool(flow.flags & 2) == (not listening)
    assert world.rule_name(flow.rule) == ("web" if listening else "out")
    # what no rule would let in new is not picked up either
    assert world.run(ingress_hook, tcp(family, True, "PA", 40000, 81, 1, 1, payload=b"x")).reason == "policy-deny"
    assert world.run(ingress_hook, tcp(family, True, "R", 40001, 80, 1, 1)).reason == "tcp-no-flow"
    assert world.run(ingress_hook, tcp(family, True, "SA", 40001, 80, 1, 1)).reason == "tcp-no-flow"
    # a RST that is not exact passes and ends nothing
    assert world.run(ingress_hook, tcp(family, True, "R", peer_port, host_port, 123456789)).passed
    assert world.flow()[1].name == "established"
    world.control.pickup_until = world.now()
    assert world.run(ingress_hook, tcp(family, True, "PA", 40002, 80, 1, 1, payload=b"x")).reason == "tcp-no-flow"
    assert world.run(*order[0]).passed


# --- forwarding ---


@pytest.fixture
def router(world):
    """The namespace forwards: HOST is its own address, 203.0.113.0/24 and 2001:db8:3::/64 lie behind another device."""
    sh("""ip link add v0 type veth peer name v1; ip link set v0 up; ip link set v1 up
          ip addr add 192.0.2.1/32 dev lo; ip -6 addr add 2001:db8::1/128 dev lo
          ip addr add 203.0.113.1/24 dev v0; ip -6 addr add 2001:db8:3::1/64 dev v0 nodad
          sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1""")
    # IPv6 leaves a device out of its routes until the kernel's link watch has seen the carrier
    sh("""for i in $(seq 100); do ip -6 route get 2001:db8:3::50 2>/dev/null | grep -q 'dev v0' && ip link show v0 | grep -q 'state UP' &&
              exit 0; sleep 0.05; done; exit 1""")
    yield world
    sh("""ip link del v0; ip addr del 192.0.2.1/32 dev lo; ip -6 addr del 2001:db8::1/128 dev lo
          sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0""")


BEYOND = {4: "203.0.113.50", 6: "2001:db8:3::50"}


def test_forward_pass(router, ingress_hook, family):
    router.rules(default="{ingress: deny, egress: deny}")
    through = tcp(family, True, host=BEYOND[family])
    page = router.explain(ingress_hook, through)
    assert (page.why, page.forwarded, router.rule_name(page.rule)) == ("none", 1, "forward")
    assert router.run(ingress_hook, through).passed
    assert router.flow()[1].flags & 8
    assert router.run(ingress_hook, tcp(family)).reason == "policy-deny"  # to the host itself
    assert router.run(TC_OUT, tcp(family, False, "SA", 80, 40000, 1, 1001, host=BEYOND[family])).passed
    assert router.explain(TC_OUT, udp(family, False, host=BEYOND[family]), ingress_ifindex=9).forwarded == 1
    assert router.run(TC_OUT, udp(family, False)).reason == "policy-deny"
    router.rules(default="{ingress: deny, egress: deny}", ingress=["{name: x, action: deny, ports: [{protocol: TCP, port: 1}]}"])
    assert router.run(ingress_hook, tcp(family, True, "A", seq=1001, ack=2, host=BEYOND[family])).passed


def test_forward_judge(router, ingress_hook, family):
    router.rules(default="{ingress: deny, egress: deny}", host="  forward: judge\n")
    assert router.run(ingress_hook, tcp(family, True, host=BEYOND[family])).reason == "policy-deny"
    assert router.explain(TC_OUT, udp(family, False, host=BEYOND[family]), ingress_ifindex=9).why == "policy-deny"
    router.rules(default="{ingress: allow, egress: deny}", host="  forward: judge\n")
    assert router.run(ingress_hook, tcp(family, True, host=BEYOND[family])).passed
    assert not router.flow()[1].flags & 8


def test_from_pass_to_judge(router, ingress_hook, family):
    router.rules(default="{ingress: deny, egress: deny}")
    assert router.run(ingress_hook, udp(family, True, host=BEYOND[family])).passed
    router.rules(default="{ingress: deny, egress: deny}", host="  forward: judge\n")
    assert router.run(ingress_hook, udp(family, True, host=BEYOND[family])).reason == "policy-deny"


MARK_UNJUDGED = number("network.h", "HD_MARK_UNJUDGED")


def test_what_a_service_leads_out_of_the_host(world, family):
    """Of a port whose policy has not let it go there: see HD_MARK_UNJUDGED. The mark says nothing of the host's own packets."""
    world.rules(default="{ingress: deny, egress: allow}")
    for n, (arrived_on, mark, reason) in enumerate([(9, 0, "none"), (9, MARK_UNJUDGED, "policy-deny"), (0, MARK_UNJUDGED, "none")]):
        packet = udp(family, False, sport=4000 + n)
        assert world.run(TC_OUT, packet, ifindex=UPLINK, ingress_ifindex=arrived_on, mark=mark).reason == reason


def test_not_forwarding_host(world, ingress_hook, family):
    """A packet for another address, to a host that does not forward, is judged."""
    world.rules(default="{ingress: deny, egress: deny}")
    assert world.run(ingress_hook, tcp(family, True, host=BEYOND[family])).reason == "policy-deny"


# --- from XDP to TC ---


def test_metadata(world, family):
    packet = bytes(tcp(family))
    assert world.run(XDP, packet).meta == 0  # nobody reads it
    world.port(flags=PORT_UPLINK | PORT_XDP)
    result = world.run(XDP, packet)
    assert result.meta == 16
    assert int.from_bytes(result.out[:4], "little") == 0x6865646C
    assert int.from_bytes(result.out[4:8], "little") == world.control.generation
    assert result.out[16:] == packet


@pytest.mark.parametrize("length", [4, 8, 16, 20, 32])
def test_foreign_metadata(world, length):
    """Whatever another program left there, with our magic or not, is ours or gone afterwards."""
    world.port(flags=PORT_UPLINK | PORT_XDP)
    foreign = bytes.fromhex("6c646568") * (length // 4)
    result = world.run(XDP, foreign + bytes(tcp(4)), meta_length=length)
    assert result.passed and result.meta == 16
    assert int.from_bytes(result.out[:4], "little") == 0x6865646C and int.from_bytes(result.out[8:12], "little") != 0x6865646C
    world.rules(default="{ingress: deny, egress: deny}")
    assert world.run(XDP, foreign + bytes(udp(4)), meta_length=length).reason == "policy-deny"


# --- what TC is handed ---


def test_three_tags_one_in_metadata(world):
    """XDP sees three tags in the frame, TC two and one beside it: no difference."""
    two = tagged(tcp(4), TAGS["two tags"])
    assert world.explain(TC_IN, two).why == "none"
    assert world.explain(TC_IN, two, vlan=5).why == "vlan-depth"
    assert world.explain(TC_OUT, two, vlan=5).why == "vlan-depth"
    assert world.explain(TC_IN, tagged(tcp(4), TAGS["one tag"]), vlan=5).why == "none"
