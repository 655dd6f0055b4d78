# SPDX-License-Identifier: Apache-2.0
"""What a HostPolicy lets through: actions, peers, ports, order, defaults, replies, built-ins. Every backend, both families."""

import errno
import json
import time

import pytest
from lib import raw, traffic
from lib.documents import DENY_ALL, DENY_IN, policy, rule
from lib.heddled import wait_for
from lib.traffic import expect_tcp, expect_udp, ping
from scapy.layers.inet6 import ICMPv6EchoReply
from scapy.layers.sctp import SCTP, SCTPChunkInit

PORTS = [22, 7000, 7001, 7002, 7003, 7099, 7100]


@pytest.fixture(scope="module")
def echo(shared):
    with traffic.Servers(shared.server, tcp=PORTS, udp=PORTS) as servers:
        yield servers


@pytest.fixture
def up(guarded, echo):
    """The guarded host with echo servers behind it."""
    guarded.echo = echo
    return guarded


def test_no_policy_allows_everything(up, family):
    target = up.server_address(family)
    expect_tcp(up.client, target, 7000, "open")
    expect_udp(up.client, target, 7000, "reply")
    assert ping(up.client, target, 3)
    expect_tcp(up.client, target, 7777, "refused")


def test_deny_is_silent_and_allow_opens(up, family):
    target = up.server_address(family)
    up.policy(policy(ingress=[rule("allow", "TCP", 7000), rule("allow", "UDP", 7001)], default=DENY_IN))
    expect_tcp(up.client, target, 7000, "open")
    expect_udp(up.client, target, 7001, "reply")
    expect_tcp(up.client, target, 7001, "timeout")
    expect_udp(up.client, target, 7000, "timeout")
    assert ping(up.client, target, answered=False) is False
    # the host's own connections and their replies pass: the default of egress is allow
    with traffic.Servers(up.client, tcp=[7500], udp=[7500]):
        expect_tcp(up.server, up.client_address(family), 7500, "open")
        expect_udp(up.server, up.client_address(family), 7500, "reply")
    assert ping(up.server, up.client_address(family), 3)


def test_deny_counts_under_its_reason(up, family):
    up.policy(policy(ingress=[rule("deny", "UDP", 7002, name="no-udp")]))
    before = up.daemon.drops().get(("policy-deny", "ingress"), 0)
    expect_udp(up.client, up.server_address(family), 7002, "timeout")
    assert up.daemon.drops()[("policy-deny", "ingress")] == before + 1
    assert up.daemon.rule_packets("base", "no-udp") == 1


def test_reject_tells_the_client(up, family):
    target = up.server_address(family)
    up.policy(policy(ingress=[rule("reject", "TCP", 7000), rule("reject", "UDP", 7001), rule("reject", icmp=icmp_echo(family))]))
    expect_tcp(up.client, target, 7000, "refused")
    expect_udp(up.client, target, 7001, "prohibited")
    with raw.Wire(up.client, "wire0") as wire:
        assert ping(up.client, target, answered=False) is False
        error = wire.wait_frame(lambda p: is_prohibited(p, family))
    assert error is not None, "no ICMP error for a rejected echo request"
    expect_tcp(up.client, target, 7001, "open")


def icmp_echo(family):
    return [{"type": 8}] if family == 4 else [{"type": 128, "family": "IPv6"}]


def is_prohibited(packet, family):
    if family == 4:
        return raw.ICMP in packet and packet[raw.ICMP].type == 3 and packet[raw.ICMP].code in (9, 10, 13)
    return packet.haslayer("ICMPv6DestUnreach") and packet["ICMPv6DestUnreach"].code == 1


def test_reject_quotes_the_packet(up, family):
    """The ICMP error carries the start of what was rejected, addressed the right way round, with right checksums."""
    up.policy(policy(ingress=[rule("reject", "UDP", 7001)]))
    mark = b"quote me, please"
    source, target = up.client_address(family), up.server_address(family)
    ip = raw.IP(src=source, dst=target, ttl=9) if family == 4 else raw.IPv6(src=source, dst=target, hlim=9)
    frame = raw.Ether(src=up.client_mac, dst=up.server_mac) / ip / raw.UDP(sport=4000, dport=7001) / mark
    with raw.Wire(up.client, "wire0") as wire:
        wire.send(frame)
        error = wire.wait_frame(lambda p: is_prohibited(p, family))
    assert error is not None
    assert (error.src, error.dst) == (up.server_mac, up.client_mac)
    outer = error[raw.IP] if family == 4 else error[raw.IPv6]
    assert (outer.src, outer.dst) == (target, source)
    assert mark in bytes(error)
    rebuilt = type(outer)(bytes(outer))
    if family == 4:
        sums = (rebuilt.chksum, rebuilt[raw.ICMP].chksum)
        del rebuilt.chksum, rebuilt[raw.ICMP].chksum
        again = raw.IP(bytes(rebuilt))
        assert sums == (again.chksum, again[raw.ICMP].chksum)
    else:
        got = rebuilt["ICMPv6DestUnreach"].cksum
        del rebuilt["ICMPv6DestUnreach"].cksum
        assert got == raw.IPv6(bytes(rebuilt))["ICMPv6DestUnreach"].cksum


def test_reject_rst_is_acceptable_to_the_client_only(up, family):
    """RFC 9293 3.10.7.1: a SYN is answered by RST with sequence number 0 and the acknowledgement of the SYN."""
    up.policy(policy(ingress=[rule("reject", "TCP", 7000)]))
    source, target = up.client_address(family), up.server_address(family)
    ip = raw.IP(src=source, dst=target) if family == 4 else raw.IPv6(src=source, dst=target)
    frame = raw.Ether(src=up.client_mac, dst=up.server_mac) / ip / raw.TCP(sport=4001, dport=7000, flags="S", seq=0x10203040)
    with raw.Wire(up.client, "wire0") as wire:
        wire.send(frame)
        answer = wire.wait_frame(lambda p: raw.TCP in p and p[raw.TCP].dport == 4001)
    assert answer is not None
    assert answer[raw.TCP].flags == "RA" and answer[raw.TCP].seq == 0 and answer[raw.TCP].ack == 0x10203041


def test_egress_policy(up, family):
    target = up.client_address(family)
    with traffic.Servers(up.client, tcp=[7500, 7501], udp=[7500, 7501]):
        up.policy(
            policy(
                egress=[rule("allow", "TCP", 7500), rule("reject", "TCP", 7501), rule("allow", "UDP", 7501)],
                default={"ingress": "allow", "egress": "deny"},
            )
        )
        expect_tcp(up.server, target, 7500, "open")
        expect_udp(up.server, target, 7501, "reply")
        expect_udp(up.server, target, 7500, "timeout")
        got = traffic.tcp_probe(up.server, target, 7501)
        assert got == "refused", f"a rejected connection of the host's own: {got}"
        assert ping(up.server, target, answered=False) is False
    # replies of the server to allowed connections pass under egress deny
    expect_tcp(up.client, up.server_address(family), 7000, "open")
    assert ping(up.client, up.server_address(family))


def test_ports_protocols_and_ranges(up, family):
    target = up.server_address(family)
    up.policy(policy(ingress=[rule("allow", "TCP", 7001, 7099)], default=DENY_IN))
    for port, outcome in ((7000, "timeout"), (7001, "open"), (7003, "open"), (7099, "open"), (7100, "timeout")):
        expect_tcp(up.client, target, port, outcome)
    expect_udp(up.client, target, 7001, "timeout")


def test_source_ports(up, family):
    target = up.server_address(family)
    sources = [{"protocol": "UDP", "port": 4100, "endPort": 4109}]
    up.policy(policy(ingress=[rule("allow", "UDP", 7000, sourcePorts=sources)], default=DENY_IN))
    for sport, outcome in ((4099, "timeout"), (4100, "reply"), (4109, "reply"), (4110, "timeout")):
        expect_udp(up.client, target, 7000, outcome, sport=sport)
    expect_udp(up.client, target, 7001, "timeout", sport=4105)


def test_peers_and_exceptions(up, family):
    """The client speaks from several addresses; a rule names a block with a hole in it."""
    target = up.server_address(family)
    inside, hole, outside = addresses(up, family)
    block, except_ = ("10.66.1.128/25", "10.66.1.200/29") if family == 4 else ("fd66:1::8000/113", "fd66:1::9000/116")
    up.policy(policy(ingress=[rule("allow", "UDP", 7000, peers=[{"cidr": block, "except": [except_]}])], default=DENY_IN))
    expect_udp(up.client, target, 7000, "reply", source=inside)
    expect_udp(up.client, target, 7000, "timeout", source=hole)
    expect_udp(up.client, target, 7000, "timeout", source=outside)


def addresses(up, family):
    if family == 4:
        result = ["10.66.1.130", "10.66.1.203", "10.66.1.10"]
    else:
        result = ["fd66:1::8001", "fd66:1::9001", "fd66:1::10"]
    for a in result:
        up.client.ip(f"addr replace {a}/{24 if family == 4 else 64} dev wire0" + ("" if family == 4 else " nodad"))
        up.server.ip(f"neigh replace {a} lladdr {up.client_mac} dev up0")
    return result


def test_first_match_in_priority_then_name_order(up, family):
    target = up.server_address(family)
    up.policy(
        policy("late", 300, ingress=[rule("deny", "TCP")], default={"ingress": "allow"}),
        policy("a-early", 100, ingress=[rule("allow", "TCP", 7000), rule("deny", "TCP", 7001)]),
        policy("b-early", 100, ingress=[rule("deny", "TCP", 7000), rule("allow", "TCP", 7001), rule("allow", "TCP", 7002)]),
        policy("middle", 200, ingress=[rule("deny", "TCP", 7002), rule("allow", "TCP", 7003)], default={"ingress": "deny"}),
    )
    for port, outcome in ((7000, "open"), (7001, "timeout"), (7002, "open"), (7003, "open"), (7099, "timeout")):
        expect_tcp(up.client, target, port, outcome)
    expect_udp(up.client, target, 7000, "reply")  # the default of the last policy that sets one


def test_a_deny_for_one_address_inside_an_allowed_block(up, family):
    """Overlapping prefixes do not take precedence by length: the order of the rules does."""
    target = up.server_address(family)
    inside, hole, outside = addresses(up, family)
    net = "10.66.1.0/24" if family == 4 else "fd66:1::/64"
    full = 32 if family == 4 else 128
    up.policy(
        policy(
            ingress=[
                rule("allow", "UDP", 7000, peers=[f"{inside}/{full}"]),
                rule("deny", "UDP", peers=[net]),
                rule("allow", "UDP", peers=[f"{hole}/{full}"]),
            ],
        )
    )
    expect_udp(up.client, target, 7000, "reply", source=inside)
    expect_udp(up.client, target, 7000, "timeout", source=hole)
    expect_udp(up.client, target, 7001, "timeout", source=outside)


def test_ping_in_and_out_are_two_things(up, family):
    """An outbound ping does not open the way for inbound echo requests, not even with the same identifier."""
    target = up.server_address(family)
    up.policy(policy(ingress=[rule("deny", icmp=icmp_echo(family))]))
    assert ping(up.server, up.client_address(family), 2, identifier=0x4242)
    assert ping(up.client, target, 1, answered=False, identifier=0x4242) is False
    up.policy(policy(ingress=[rule("allow", icmp=icmp_echo(family))], default=DENY_IN))
    assert ping(up.client, target, 2)


def test_unasked_echo_reply_is_dropped(up, family):
    source, target = up.client_address(family), up.server_address(family)
    if family == 4:
        packet = raw.IP(src=source, dst=target) / raw.ICMP(type=0, id=0x1717)
    else:
        packet = raw.IPv6(src=source, dst=target) / ICMPv6EchoReply(id=0x1717)
    before = up.daemon.drops().get(("icmp-unrelated", "ingress"), 0)
    with raw.Wire(up.client, "wire0") as wire, raw.LocalWitness(up.server, [1], [58]) as witness:
        wire.send(raw.Ether(src=up.client_mac, dst=up.server_mac) / packet / b"unasked for")
        assert not witness.saw(b"unasked for", traffic.QUICK)
    assert up.daemon.drops().get(("icmp-unrelated", "ingress"), 0) == before + 1


def test_address_resolution_and_dhcp_pass_under_deny_all(fresh):
    up = fresh(neighbours=False, docs=[policy(ingress=[rule("allow", "TCP", 7000)], default=DENY_ALL)])
    with traffic.Servers(up.server, tcp=[7000]):
        expect_tcp(up.client, up.server4, 7000, "open")  # needed ARP both ways
        expect_tcp(up.client, up.server6, 7000, "open")  # needed ND both ways
    # the DHCP client: request out to a server, answer in, also as broadcast
    with raw.Wire(up.client, "wire0") as wire, up.server.socket(kind=traffic.socket.SOCK_DGRAM) as s:
        s.setsockopt(traffic.socket.SOL_SOCKET, traffic.socket.SO_BROADCAST, 1)
        s.setsockopt(traffic.socket.SOL_SOCKET, traffic.socket.SO_REUSEADDR, 1)
        s.bind(("", 68))
        s.settimeout(2)
        s.sendto(b"discover", (up.client4, 67))
        assert wire.wait_frame(lambda p: raw.UDP in p and p[raw.UDP].dport == 67) is not None, "DHCP request held back"
        offer = raw.IP(src=up.client4, dst="255.255.255.255") / raw.UDP(sport=67, dport=68) / b"offer"
        wire.send(raw.Ether(src=up.client_mac, dst="ff:ff:ff:ff:ff:ff") / offer)
        assert s.recv(100) == b"offer"
    with up.server.socket(traffic.socket.AF_INET6, traffic.socket.SOCK_DGRAM) as s:
        s.bind(("::", 546))
        s.settimeout(2)
        with raw.Wire(up.client, "wire0") as wire:
            wire.send(
                raw.Ether(src=up.client_mac, dst=up.server_mac)
                / raw.IPv6(src=up.client6, dst=up.server6)
                / raw.UDP(sport=547, dport=546)
                / b"reply"
            )
            assert s.recv(100) == b"reply"
    expect_tcp(up.client, up.server4, 22, "timeout")


def test_sctp(up, family):
    """Hand-made, since the kernel may have no SCTP sockets: an INIT to an allowed port arrives, to another it does not."""
    up.policy(policy(ingress=[rule("allow", "SCTP", 7000)], default=DENY_IN))
    ip = raw.IP(src=up.client4, dst=up.server4) if family == 4 else raw.IPv6(src=up.client6, dst=up.server6)
    with raw.Wire(up.client, "wire0") as wire, raw.LocalWitness(up.server, [132], [132]) as witness:
        for port, arrives in ((7000, True), (7001, False)):
            mark = f"sctp {port}".encode()
            frame = raw.Ether(src=up.client_mac, dst=up.server_mac) / ip / SCTP(sport=4000, dport=port, tag=0)
            wire.send(frame / SCTPChunkInit(init_tag=7) / mark)
            assert witness.saw(mark, traffic.PATIENT if arrives else traffic.QUICK) == arrives


def test_failsafe_port_under_deny_all(fresh, family):
    up = fresh(
        host_spec={"failsafe": [{"protocol": "TCP", "port": 22}]},
        docs=[policy("hostile", 1, ingress=[rule("deny")], default=DENY_ALL)],
    )
    with traffic.Servers(up.server, tcp=[22, 23]):
        target = up.server_address(family)
        expect_tcp(up.client, target, 22, "open")
        expect_tcp(up.client, target, 23, "timeout")
        s = traffic.connect(up.client, target, 22)
        up.policy(policy("hostile", 1, ingress=[rule("reject")], default=DENY_ALL))
        assert traffic.roundtrip(s), "a change of policy cut a failsafe connection"
        expect_tcp(up.client, target, 22, "open")


def test_policy_of_another_uplink_does_not_count(fresh):
    up = fresh(
        host_spec={"uplinks": [{"device": "up0"}, {"device": "up1"}]},
        docs=[policy(uplinks=["up1"], ingress=[rule("deny", "TCP", 7000)], default=DENY_IN)],
    )
    with traffic.Servers(up.server, tcp=[7000], udp=[7000]):
        expect_tcp(up.client, up.server4, 7000, "open")
        expect_udp(up.client, up.server4, 7000, "reply")
        up.policy(policy(uplinks=["up0", "up1"], ingress=[rule("deny", "TCP", 7000)]))
        expect_tcp(up.client, up.server4, 7000, "timeout")
        expect_udp(up.client, up.server4, 7000, "reply")


# --- frames that are not IP, and frames with tags ---


def frame_counter(ns, device):
    """nftables' netdev hook runs behind TC: it counts the frames that got past heddle, whatever they are."""
    ns.run(
        "nft",
        "-f",
        "-",
        input=f"table netdev witness {{\n chain in {{\n  type filter hook ingress device {device} priority 0;\n"
        "  ether type 0x88b5 counter\n  ether saddr 02:00:00:00:00:77 counter\n }\n}\n",
    )


def witnessed(ns, line):
    rules = [r["rule"] for r in json.loads(ns.run("nft", "-j", "list", "table", "netdev", "witness").stdout)["nftables"] if "rule" in r]
    return next(e["counter"]["packets"] for e in rules[line]["expr"] if "counter" in e)


def test_unknown_ethertype_follows_the_default(fresh):
    up = fresh(docs=[policy(ingress=[rule("allow", "TCP", 7000)], default=DENY_IN)])
    frame_counter(up.server, "up0")
    with raw.Wire(up.client, "wire0") as wire:
        wire.send(raw.Ether(src=up.client_mac, dst=up.server_mac, type=0x88B5) / (b"x" * 60))
        time.sleep(0.1)
        assert witnessed(up.server, 0) == 0
        up.policy(policy(ingress=[rule("deny", "TCP", 7000)]))
        wire.send(raw.Ether(src=up.client_mac, dst=up.server_mac, type=0x88B5) / (b"x" * 60))
        wait_for(lambda: witnessed(up.server, 0) == 1, what="a frame of unknown type under default allow")


TAGS = {
    "priority": [raw.Dot1Q(vlan=0)],
    "802.1Q": [raw.Dot1Q(vlan=10)],
    "802.1ad": [raw.Dot1AD(vlan=10)],
    "QinQ": [raw.Dot1AD(vlan=10), raw.Dot1Q(vlan=20)],
    "Q-in-Q": [raw.Dot1Q(vlan=10), raw.Dot1Q(vlan=20)],
    "priority in QinQ": [raw.Dot1AD(vlan=0), raw.Dot1Q(vlan=0)],
}


@pytest.mark.parametrize("tags", list(TAGS))
def test_a_vlan_tag_does_not_get_a_frame_past(fresh, tags):
    up = fresh(docs=[policy(ingress=[rule("deny", "UDP", 7000), rule("allow", "UDP", 7001)], default=DENY_IN)])
    frame_counter(up.server, "up0")
    with raw.Wire(up.client, "wire0") as wire:

        def send(ip, port):
            frame = raw.Ether(src="02:00:00:00:00:77", dst=up.server_mac)
            for tag in TAGS[tags]:
                frame /= tag.copy()
            wire.send(frame / ip / raw.UDP(sport=4000, dport=port) / b"tagged")

        addresses = (raw.IP(src=up.client4, dst=up.server4), raw.IPv6(src=up.client6, dst=up.server6))
        for ip in addresses:
            send(ip, 7000)
            send(ip, 7002)
        time.sleep(0.1)
        assert witnessed(up.server, 1) == 0, "a tagged frame passed a rule that denies what is in it"
        assert up.daemon.drops().get(("policy-deny", "ingress"), 0) == 4
        for number, ip in enumerate(addresses):
            send(ip, 7001)
            wait_for(lambda number=number: witnessed(up.server, 1) == number + 1, what="an allowed tagged frame")


def test_three_tags_are_dropped(fresh):
    up = fresh()
    frame_counter(up.server, "up0")
    with raw.Wire(up.client, "wire0") as wire:
        tags = raw.Dot1Q(vlan=1) / raw.Dot1Q(vlan=2) / raw.Dot1Q(vlan=3)
        wire.send(raw.Ether(src="02:00:00:00:00:77", dst=up.server_mac) / tags / raw.IP(src=up.client4, dst=up.server4) / raw.UDP() / b"x")
        wait_for(lambda: up.daemon.drops().get(("vlan-depth", "ingress")) == 1, what="vlan-depth")
    assert witnessed(up.server, 1) == 0


def test_errno_of_a_refused_connection_is_the_usual_one(up):
    up.policy(policy(ingress=[rule("reject", "TCP", 7000)]))
    with pytest.raises(OSError) as error:
        traffic.connect(up.client, up.server4, 7000)
    assert error.value.errno == errno.ECONNREFUSED
