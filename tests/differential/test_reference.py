# SPDX-License-Identifier: Apache-2.0
"""
Random policies × random packets: the verdict, and the very rule, of the loaded programs against the reference evaluator.
"""

import ipaddress
import json
import os
import random
import subprocess

import pytest
from generate import Generator
from lib import documents as doc
from lib.fixtures import SLOW, Guarded
from lib.heddled import HEDDLED
from reference import Evaluator

DOCUMENTS = int(os.environ.get("DOCUMENTS", "600" if SLOW else "60"))
PACKETS = int(os.environ.get("PACKETS", "100"))
SEED = int(os.environ.get("SEED", random.SystemRandom().randrange(1 << 32)))
NAMES = {6: "tcp", 17: "udp", 132: "sctp", 1: "icmp", 58: "icmpv6"}


@pytest.fixture(scope="module", params=["native", "tcx"])
def host(request):
    """Two uplinks, one in XDP, and failsafe ports."""
    mode = "native" if request.param == "native" else "off"
    spec = {
        "uplinks": [{"device": "up0", "xdp": mode}, {"device": "up1", "xdp": "off"}],
        "failsafe": [{"protocol": "TCP", "port": 22}],
        "forward": "judge",
    }
    with Guarded(request.param, start=False, host_spec=spec) as up:
        up.server.ip("link add up1 type veth peer name up1far", "addr add 10.66.9.2/24 dev up1", "addr add fd66:9::2/64 dev up1 nodad")
        up.server.ip("link set up1 up", "link set up1far up")
        up.daemon.start()
        yield up


def request_of(packet):
    request = {
        "from": str(packet["src"]),
        "to": str(packet["dst"]),
        "protocol": NAMES.get(packet["protocol"], packet["protocol"]),
        "uplink" if packet["direction"] == "ingress" else "egress": packet["uplink"],
    }
    for ours, theirs in (("sport", "sport"), ("dport", "dport"), ("type", "icmpType"), ("code", "icmpCode")):
        if ours in packet:
            request[theirs] = packet[ours]
    return request


def compare(said, want):
    """An empty string when explain and the reference agree."""
    if said["verdict"] != want.action:
        return f"verdict {said['verdict']} ({said['reason']})"
    rule = said["rule"] or {}
    if want.policy is None:
        ours = rule.get("policy") in (None, "builtin")
    else:
        ours = (rule.get("policy"), rule.get("index")) == (want.policy, want.index)
    return "" if ours else f"rule {rule}"


def run(up, seed, documents, packets):
    wrong, cases = [], 0
    local = {("up0", 4): up.server4, ("up0", 6): up.server6, ("up1", 4): "10.66.9.2", ("up1", 6): "fd66:9::2"}
    for number in range(documents):
        rng = random.Random(f"{seed}-{number}")
        generator = Generator(rng, ["up0", "up1"])
        objects = generator.objects()
        up.policy(*objects)
        reference = Evaluator(up.host_document, objects)
        bounds = generator.boundaries(objects)
        for _ in range(packets):
            packet = generator.packet(bounds, local)
            said, want = up.daemon.explain(**request_of(packet)), reference.judge(packet)
            cases += 1
            difference = compare(said, want)
            if difference:
                wrong.append(f"document {number}: {request_of(packet)}: want {want}, got {difference}")
                if len(wrong) > 5:
                    return wrong, cases, objects
        if wrong:
            return wrong, cases, objects
    return wrong, cases, None


def test_against_the_reference(host, tmp_path):
    seed = f"{SEED}-{host.backend}"
    print(f"SEED={SEED} DOCUMENTS={DOCUMENTS} PACKETS={PACKETS}")
    wrong, cases, objects = run(host, seed, DOCUMENTS, PACKETS)
    print(f"{cases} cases")
    if wrong:
        (tmp_path / "objects.yaml").write_text(doc.text(*objects))
        pytest.fail(f"SEED={SEED} (documents in {tmp_path}/objects.yaml)\n" + "\n".join(wrong))


def test_small_changes_one_after_the_other(host):
    """Incremental compilation: one rule of one policy changes at a time, and old answers must not linger."""
    rng = random.Random(f"{SEED}-changes")
    generator = Generator(rng, ["up0", "up1"])
    local = {("up0", 4): host.server4, ("up0", 6): host.server6, ("up1", 4): "10.66.9.2", ("up1", 6): "fd66:9::2"}
    objects = []
    while not any(o["kind"] == "HostPolicy" and o["spec"].get("ingress") for o in objects):
        objects = generator.objects()
    host.policy(*objects)
    for step in range(DOCUMENTS):
        objects = json.loads(json.dumps(objects))
        candidates = [(o, d) for o in objects if o["kind"] == "HostPolicy" for d in ("ingress", "egress") if o["spec"].get(d)]
        changed, direction = rng.choice(candidates)
        rules = changed["spec"][direction]
        groups = [o["metadata"]["name"] for o in objects if o["kind"] == "AddressGroup"]
        what = rng.random()
        if what < 0.4:
            rules[rng.randrange(len(rules))] = generator.rule(direction, groups)
        elif what < 0.7:
            rules.insert(rng.randrange(len(rules) + 1), generator.rule(direction, groups))
        elif len(rules) > 1:
            rules.pop(rng.randrange(len(rules)))
        host.daemon.apply(changed)
        if groups and rng.random() < 0.3:
            one = next(o for o in objects if o["metadata"]["name"] == rng.choice(groups[:1]))
            one["spec"]["cidrs"] = sorted({str(generator.network()) for _ in range(rng.choice([1, 5, 60]))})
            host.daemon.apply(one)
        reference = Evaluator(host.host_document, objects)
        bounds = generator.boundaries(objects)
        for _ in range(20):
            packet = generator.packet(bounds, local)
            difference = compare(host.daemon.explain(**request_of(packet)), reference.judge(packet))
            assert not difference, f"SEED={SEED} step {step}: {request_of(packet)}: want {reference.judge(packet)}, got {difference}"


def test_reference_itself():
    """The evaluator on the example that the contract shows."""
    objects = [
        doc.group("admins", "10.0.0.0/8", "fd00::/8"),
        doc.policy(
            ingress=[
                doc.rule("allow", "TCP", 22, peers=["admins"]),
                doc.rule("allow", "TCP", 8000, 8099, peers=[{"cidr": "0.0.0.0/0", "except": ["192.0.2.0/24"]}]),
                {"action": "allow", "icmp": [{"type": 8}]},
                {"action": "reject"},
            ],
            default={"ingress": "deny", "egress": "allow"},
        ),
    ]
    reference = Evaluator(doc.host(), objects)

    def judge(src, dst, **packet):
        packet = {"direction": "ingress", "uplink": "up0", "protocol": 6, "sport": 1, **packet}
        return reference.judge({**packet, "src": ipaddress.ip_address(src), "dst": ipaddress.ip_address(dst)}).action

    assert judge("10.1.1.1", "10.66.1.2", dport=22) == "allow"
    assert judge("11.1.1.1", "10.66.1.2", dport=22) == "reject"
    assert judge("11.1.1.1", "10.66.1.2", dport=8099) == "allow"
    assert judge("192.0.2.7", "10.66.1.2", dport=8099) == "reject"
    assert judge("2001:db8::1", "fd66:1::2", dport=8000) == "reject"
    assert judge("11.1.1.1", "10.66.1.2", protocol=1, type=8, code=0) == "allow"
    assert judge("10.66.1.2", "11.1.1.1", direction="egress", dport=9) == "allow"


def test_check_accepts_what_the_generator_makes(tmp_path):
    """--check and the daemon are one decoder: it must take every random document."""
    rng = random.Random(SEED)
    path = tmp_path / "d.yaml"
    for _ in range(5):
        path.write_text(doc.text(doc.host(uplinks=[{"device": "up0"}, {"device": "up1"}]), *Generator(rng, ["up0", "up1"]).objects()))
        result = subprocess.run([HEDDLED, "--check", "--config", str(path)], capture_output=True, text=True, timeout=20, check=False)
        assert result.returncode == 0, result.stderr
