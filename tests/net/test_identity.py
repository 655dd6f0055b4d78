# SPDX-License-Identifier: Apache-2.0
"""Rights belong to who has the labels now: not to a name, not to an address, not to a flow that somebody else opened."""

import itertools
import struct
import threading
import time

import pytest
from lib import cluster, raw, traffic
from lib.cluster import Pod, State, network_policy
from lib.fixtures import SLOW
from lib.heddled import wait_for

GATEWAY_MAC = "02:68:65:64:64:6c"
ANY = [{}]


@pytest.fixture(scope="module")
def shared_cluster():
    with cluster.Cluster("l3") as c:
        yield c


@pytest.fixture
def pods(shared_cluster):
    shared_cluster.put()
    yield shared_cluster


def isolated(name="isolated", namespace="default", selector=None, **spec):
    return network_policy(name, {"podSelector": selector or {}, "policyTypes": ["Ingress"], **spec}, namespace)


def allow_from(peer, name="allow", namespace="default", selector=None, ports=None):
    rule = {"from": [peer]}
    if ports:
        rule["ports"] = [{"protocol": protocol, "port": port} for protocol, port in ports]
    return isolated(name, namespace, selector, ingress=[rule])


def labels(**wanted):
    return {"matchLabels": wanted}


# --- whose label is it ---


def test_a_label_of_one_kind_is_no_label_of_another(pods):
    """The same key and value on a namespace, a network, a policy and a pod: each selector looks at its own kind."""
    state = State(
        {"red": {"role": "admin"}, "blue": {}},
        [
            Pod("red", "plain", "10.244.2.1"),
            Pod("blue", "admin", "10.244.2.2", {"role": "admin"}),
            Pod("blue", "plain", "10.244.2.3"),
            # says of itself what only a namespace may say
            Pod("blue", "liar", "10.244.2.4", {"kubernetes.io/metadata.name": "red"}),
            Pod("blue", "target", "10.244.2.5", {"is": "target"}),
        ],
        [],
    )
    everyone = {(a, b) for a, b in itertools.permutations([p.key for p in state.pods], 2) if b != "blue/target"}

    def reach(peer, *who):
        state.policies = [allow_from(peer, namespace="blue", selector=labels(**{"is": "target"}))]
        state.policies[0]["metadata"]["labels"] = {"role": "admin"}
        pods.set(state)
        pods.check(pods.matrix(everyone | {(a, "blue/target") for a in who}), str(peer))

    reach({"podSelector": labels(role="admin")}, "blue/admin")
    reach({"namespaceSelector": labels(role="admin")}, "red/plain")
    reach({"namespaceSelector": {}, "podSelector": labels(role="admin")}, "blue/admin")
    reach({"namespaceSelector": labels(role="admin"), "podSelector": labels(role="admin")})
    reach({"namespaceSelector": labels(**{"kubernetes.io/metadata.name": "red"})}, "red/plain")
    reach({"podSelector": labels(**{"kubernetes.io/metadata.name": "red"})}, "blue/liar")


def test_names_that_run_together_are_told_apart(pods):
    """Keys, values and names whose concatenations are equal."""
    state = State(
        {"a": {}, "a-b": {}, "t": {}},
        [
            Pod("a", "b-c", "10.244.2.11", {"x": "y.z"}),
            Pod("a-b", "c", "10.244.2.12", {"x.y": "z"}),
            Pod("t", "t", "10.244.2.13", {"xy": "z"}),
        ],
        [],
    )
    open_pairs = {(a, b) for a, b in itertools.permutations([p.key for p in state.pods], 2) if b != "t/t"}
    for selector, who in (({"x": "y.z"}, "a/b-c"), ({"x.y": "z"}, "a-b/c")):
        state.policies = [allow_from({"namespaceSelector": {}, "podSelector": {"matchLabels": selector}}, namespace="t")]
        pods.set(state)
        pods.check(pods.matrix(open_pairs | {(who, "t/t")}), str(selector))


def test_policies_of_one_name_in_several_namespaces_and_kinds_are_several(pods):
    state = State(
        {"a": {}, "b": {}},
        [Pod("a", "one", "10.244.2.21"), Pod("b", "two", "10.244.2.22")],
        [
            isolated("base", "a"),
            allow_from({"namespaceSelector": {}}, "base", "b"),
            cluster.doc.policy("base", ingress=[{"action": "deny"}], default=cluster.doc.DENY_ALL),  # of uplinks: no port minds it
        ],
    )
    pods.set(state)
    pods.check(pods.matrix({("a/one", "b/two")}))
    state.policies = state.policies[1:]
    pods.set(state)
    pods.check(pods.matrix({("a/one", "b/two"), ("b/two", "a/one")}), "one of the three deleted")


def test_an_empty_selector_is_everyone_of_its_kind_and_a_missing_one_nobody_else(pods):
    names = [("a", "1", "10.244.2.31"), ("a", "2", "10.244.2.32"), ("b", "3", "10.244.2.33"), ("b", "4", "10.244.2.34")]
    state = State({"a": {}, "b": {}}, [Pod(*n) for n in names], [])
    everyone = set(itertools.permutations([p.key for p in state.pods], 2))
    within_a = {("a/1", "a/2"), ("a/2", "a/1")}
    to_b = {(x, y) for x, y in everyone if y.startswith("b/")}
    for text, policy, wanted in (
        ("all of the namespace, no rule", isolated(namespace="a"), to_b),
        ("an empty list of rules", isolated(namespace="a", ingress=[]), to_b),
        ("a rule without from", isolated(namespace="a", ingress=ANY), everyone),
        ("a rule with an empty from", isolated(namespace="a", ingress=[{"from": []}]), everyone),
        ("all pods of this namespace", allow_from({"podSelector": {}}, namespace="a"), to_b | within_a),
        ("all namespaces", allow_from({"namespaceSelector": {}}, namespace="a"), everyone),
        ("a selector nobody matches", isolated(namespace="a", selector=labels(no="body")), everyone),
        ("a peer nobody matches", allow_from({"podSelector": labels(no="body")}, namespace="a"), to_b),
        (
            "egress, no rule",
            network_policy("out", {"podSelector": {}, "policyTypes": ["Egress"]}, "a"),
            {(x, y) for x, y in everyone if x.startswith("b/")},
        ),
        ("both, no rule", network_policy("both", {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}, "a"),
            {(x, y) for x, y in to_b if x.startswith("b/")}),
    ):  # fmt: skip
        state.policies = [policy]
        pods.set(state)
        pods.check(pods.matrix(wanted), text)


# --- who had it before ---

ADMIN, GUEST, SERVER = "10.244.2.41", "10.244.2.42", "10.244.2.43"
ADMINS_ONLY = allow_from({"podSelector": labels(role="admin")}, selector=labels(app="server"))


_sports = itertools.count(40001)


class Established:
    """A TCP connection and a UDP exchange of a workload with the server: opened while its owner had the right to."""

    def __init__(self, c, client, family):
        self.tcp_sport, self.udp_sport = next(_sports), next(_sports)
        self.server_ns = c.workload(SERVER).ns
        self.family = family
        there = c.workload(SERVER).addresses[family]
        here = client.addresses[family]
        self.tcp_client, self.tcp_server = traffic.accept_pair(client.ns, self.server_ns, there, 7700, source=here, sport=self.tcp_sport)
        assert traffic.roundtrip_pair(self.tcp_client, self.tcp_server)
        self.udp_server = self.server_ns.socket(traffic.family_of(there), traffic.socket.SOCK_DGRAM)
        self.udp_server.bind((there, 7701))
        self.udp_server.settimeout(0.3)
        self.udp_client = client.ns.socket(traffic.family_of(there), traffic.socket.SOCK_DGRAM)
        self.udp_client.bind((here, self.udp_sport))
        self.udp_client.connect((there, 7701))
        self.udp_client.settimeout(0.3)
        assert self.udp_works(self.udp_client)

    def udp_works(self, client):
        """There and back."""
        mark = f"udp {time.monotonic()}".encode()
        try:
            client.send(mark)
            while True:
                data, sender = self.udp_server.recvfrom(64)
                if data == mark:
                    break
            self.udp_server.sendto(mark, sender)
            return client.recv(64) == mark
        except OSError:
            return False

    def tcp_works(self):
        return traffic.roundtrip_pair(self.tcp_client, self.tcp_server, timeout=0.4)

    def close(self):
        for s in (self.tcp_client, self.tcp_server):
            # ended at once: a FIN that nobody lets through would keep the port
            s.setsockopt(traffic.socket.SOL_SOCKET, traffic.socket.SO_LINGER, struct.pack("ii", 1, 0))
        for s in (self.tcp_client, self.tcp_server, self.udp_client, self.udp_server):
            s.close()


@pytest.fixture
def opened(pods, family):
    """An admin with flows to the server that only admins may reach, and a guest who may not."""
    server = Pod("default", "server", SERVER, {"app": "server"})
    admin = Pod("default", "admin", ADMIN, {"role": "admin"})
    guest = Pod("default", "guest", GUEST, {"role": "guest"})
    state = State({}, [server, admin, guest], [ADMINS_ONLY])
    pods.set(state)
    flows = Established(pods, pods.workload(ADMIN), family)
    yield pods, state, flows
    flows.close()


def frame_of(c, workload, family, transport):
    """From the workload to the server, with the gateway as next hop."""
    ip = raw.IP if family == 4 else raw.IPv6
    server = c.workload(SERVER)
    return raw.Ether(src=workload.mac, dst=GATEWAY_MAC) / ip(src=workload.addresses[family], dst=server.addresses[family]) / transport


def test_an_address_used_again_at_once_has_no_rights_of_its_old_owner(opened):
    """Another device, another port, the same address, one transaction: the old one's flows are not the new one's."""
    c, state, flows = opened
    heir = c.another(ADMIN)
    marks = {"tcp": b"heir by tcp", "udp": b"heir by udp"}
    seq, ack = traffic.sequence_numbers(flows.tcp_client)  # the next ones: nothing but the owner is wrong
    tcp = raw.TCP(sport=flows.tcp_sport, dport=7700, flags="PA", seq=seq, ack=ack, window=1000) / marks["tcp"]
    udp = raw.UDP(sport=flows.udp_sport, dport=7701) / marks["udp"]
    witness = raw.LocalWitness(flows.server_ns, (6, 17), (6, 17))
    with witness, raw.Wire(heir.ns, cluster.WORKLOAD_DEVICE) as wire:
        documents = [c.port_document(p) for p in state.pods if p.ip != ADMIN]
        documents.append(c.port_document(Pod("default", "heir", ADMIN, {"role": "guest"}), heir))
        c.put(*documents, *state.policies)
        for transport in (tcp, udp):
            for _ in range(3):
                wire.send(frame_of(c, heir, flows.family, transport))
        assert not witness.saw(b"heir by", 0.3), "a packet on the old owner's flow arrived"
        # nor what the old owner itself still sends: its device is no port any more
        assert not flows.udp_works(flows.udp_client) and not flows.tcp_works()
        # With the right, the same packets arrive: the frames above were good ones.
        documents[-1]["metadata"]["labels"] = {"role": "admin"}
        c.put(*documents, *state.policies)
        wire.send(frame_of(c, heir, flows.family, udp))
        assert witness.saw(marks["udp"], 2)


def test_the_server_does_not_answer_the_new_owner_on_the_old_owners_flow(opened):
    """The other direction: an isolated heir is not reached over what the old owner opened."""
    c, state, flows = opened
    heir = c.another(ADMIN)
    documents = [c.port_document(p) for p in state.pods if p.ip != ADMIN]
    documents.append(c.port_document(Pod("default", "heir", ADMIN, {"role": "guest"}), heir))
    deny = isolated("closed", selector=labels(role="guest"))
    with raw.LocalWitness(heir.ns, (6, 17), (6, 17)) as witness:
        c.put(*documents, *state.policies, deny)
        there = c.workload(ADMIN).addresses[flows.family]
        for _ in range(3):
            flows.udp_server.sendto(b"for the old owner", (there, flows.udp_sport))
            flows.tcp_server.send(b"for the old owner")
        assert not witness.saw(b"for the old owner", 0.4)


def test_a_right_that_goes_takes_its_flows_along(opened):
    """The same port and address with lesser labels; and with them again, the UDP flow works as before."""
    c, state, flows = opened
    state.pods[1].labels = {"role": "guest"}
    c.set(state)
    assert not flows.udp_works(flows.udp_client) and not flows.tcp_works()
    state.pods[1].labels = {"role": "admin"}
    c.set(state)
    assert flows.udp_works(flows.udp_client)


def test_labels_change_hands(opened):
    """Two ports swap label sets in one transaction, again and again: numbers of identities are given up and taken at once."""
    c, state, flows = opened
    for round_ in range(6):
        state.pods[1].labels, state.pods[2].labels = state.pods[2].labels, state.pods[1].labels
        c.set(state)
        holder = "default/admin" if round_ % 2 else "default/guest"
        others = {(a, b) for a, b in itertools.permutations(c.prober.ends, 2) if b != "default/server"}
        c.check(c.matrix(others | {(holder, "default/server")}, families=(flows.family,)), f"round {round_}")


def test_a_renamed_port_keeps_its_flows(opened):
    c, state, flows = opened
    before = traffic.retransmits(flows.tcp_client) + traffic.retransmits(flows.tcp_server)
    for name in ("admin-2", "another-name", "admin"):
        state.pods[1].name = name
        c.set(state)
        assert flows.tcp_works() and flows.udp_works(flows.udp_client), name
    assert traffic.retransmits(flows.tcp_client) + traffic.retransmits(flows.tcp_server) == before


def test_identities_survive_a_crash(opened):
    c, state, flows = opened
    wanted = {(a, b) for a, b in itertools.permutations(c.prober.ends, 2) if (a, b) != ("default/guest", "default/server")}
    c.check(c.matrix(wanted, families=(flows.family,)))
    c.daemon.restart()
    assert flows.tcp_works() and flows.udp_works(flows.udp_client)
    c.check(c.matrix(wanted, families=(flows.family,)), "after a crash")


# --- no packet sees a mix ---

ALLOWED, DENIED = 7960, 7961
FLIPS = 10_000 if SLOW else 1_500
SECONDS = 300 if SLOW else 20


def versions(c, sender, receiver):
    """
    Two versions of everything: labels, the sender's egress, the receiver's ingress. Both let ALLOWED through and not DENIED. Egress of the
    first with ingress of the second lets DENIED through; labels of one with ingress of the other drop ALLOWED.
    """
    result = []
    for turn, out, into in (("a", (ALLOWED, DENIED), (ALLOWED,)), ("b", (ALLOWED,), (ALLOWED, DENIED))):
        peer = {"podSelector": labels(turn=turn)}
        egress = {
            "podSelector": labels(app="sender"),
            "policyTypes": ["Egress"],
            "egress": [{"to": [{"podSelector": labels(app="receiver")}], "ports": [{"protocol": "UDP", "port": p} for p in out]}],
        }
        result.append(
            [
                c.port_document(Pod("default", "sender", sender, {"app": "sender", "turn": turn})),
                c.port_document(Pod("default", "receiver", receiver, {"app": "receiver"})),
                network_policy("out", egress),
                allow_from(peer, "into", selector=labels(app="receiver"), ports=[("UDP", p) for p in into]),
            ]
        )
    return result


COUNTERS = """table inet witness {
chain input { type filter hook prerouting priority -300; policy accept;
udp dport %d counter
udp dport %d counter
}
}
""" % (ALLOWED, DENIED)


def counted(ns):
    """{port: packets} as the receiver's own kernel counted them."""
    text = ns.run("nft", "list", "table", "inet", "witness").stdout
    lines = [line.split() for line in text.splitlines() if "counter" in line]
    return {int(words[2]): int(words[words.index("packets") + 1]) for words in lines}


def test_no_packet_between_ports_is_judged_by_a_mix():
    with cluster.Cluster("l3") as c:
        sender, receiver = c.workload("10.244.3.1"), c.workload("10.244.3.2")
        receiver.ns.run("nft", "-f", "-", input=COUNTERS)
        choices = versions(c, sender.ip, receiver.ip)
        c.daemon.apply(*choices[0])
        frames = {ALLOWED: [], DENIED: []}
        for sport in range(20000, 21000):
            for family, ip in ((4, raw.IP), (6, raw.IPv6)):
                for port, made in frames.items():
                    packet = ip(src=sender.addresses[family], dst=receiver.addresses[family]) / raw.UDP(sport=sport, dport=port) / b"turn"
                    made.append(bytes(raw.Ether(src=sender.mac, dst=GATEWAY_MAC) / packet))
        sent = {ALLOWED: 0, DENIED: 0}
        stop = threading.Event()

        def send():
            with raw.Wire(sender.ns, cluster.WORKLOAD_DEVICE) as wire:
                while not stop.is_set():
                    for pair in zip(*frames.values()):
                        for port, frame in zip(frames, pair):
                            wire.send(frame)
                            sent[port] += 1

        # so that the receiver's kernel has somewhere to put them, and says nothing back
        with receiver.ns.socket(traffic.socket.AF_INET6, traffic.socket.SOCK_DGRAM) as sink:
            sink.bind(("::", ALLOWED))
            thread = threading.Thread(target=send)
            thread.start()
            flips, deadline = 0, time.monotonic() + SECONDS
            try:
                while flips < FLIPS and time.monotonic() < deadline:
                    flips += 1
                    c.daemon.apply(*choices[flips % 2])
            finally:
                stop.set()
                thread.join()
            print(f"{flips} flips, {sent}")
            assert flips >= FLIPS // 10
            wait_for(lambda: counted(receiver.ns)[ALLOWED] >= sent[ALLOWED], 2, what=f"all of {sent[ALLOWED]} arrived")
        assert counted(receiver.ns) == {ALLOWED: sent[ALLOWED], DENIED: 0}
