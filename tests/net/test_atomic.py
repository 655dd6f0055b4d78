# SPDX-License-Identifier: Apache-2.0
"""
No packet is judged by half of an update. Two policies change a group and the rules that use it in one transaction; what both
allow would be denied by the old group with the new rules, and what both deny would be allowed by such a mix.
"""

import threading
import time

import pytest
from lib import raw, traffic
from lib.documents import DENY_IN, group, policy, rule
from lib.heddled import wait_for

ALLOWED, DENIED = 7960, 7961
SECONDS = 4


def versions(up):
    here, there = [f"{up.client4}/32", f"{up.client6}/128"], ["192.0.2.1/32", "2001:db8::1/128"]
    first = [rule("allow", "UDP", ALLOWED, peers=["turn"]), rule("deny", "UDP", DENIED, peers=["turn"])]
    second = [
        rule("deny", "UDP", ALLOWED, peers=["turn"]),
        rule("allow", "UDP", DENIED, peers=["turn"]),
        rule("allow", "UDP", ALLOWED, peers=here),
    ]
    return [
        (group("turn", *here), policy(ingress=first, default=DENY_IN)),
        (group("turn", *there), policy(ingress=second, default=DENY_IN)),
    ]


@pytest.mark.parametrize("kind", ["policy", "policy and growth"])
def test_no_packet_is_judged_by_a_mix(fresh, kind):
    up = fresh(host_spec={"limits": {"flowsNew": 131072}})
    choices = versions(up)
    up.policy(*choices[0])
    frames = {port: [] for port in (ALLOWED, DENIED)}
    for port, made in frames.items():
        for sport in range(20000, 20400):
            for ip in (raw.IP(src=up.client4, dst=up.server4), raw.IPv6(src=up.client6, dst=up.server6)):
                made.append(bytes(raw.Ether(src=up.client_mac, dst=up.server_mac) / ip / raw.UDP(sport=sport, dport=port) / b"turn"))
    sent = {ALLOWED: 0, DENIED: 0}
    stop = threading.Event()

    def send():
        with raw.Wire(up.client, "wire0") as wire:
            while not stop.is_set():
                for port, made in frames.items():
                    for frame in made:
                        wire.send(frame)
                        sent[port] += 1

    with up.server.socket(traffic.socket.AF_INET6, traffic.socket.SOCK_DGRAM) as sink:
        sink.bind(("::", ALLOWED))
        before = up.daemon.drops()
        thread = threading.Thread(target=send)
        thread.start()
        updates, deadline = 0, time.monotonic() + SECONDS
        try:
            while time.monotonic() < deadline:
                updates += 1
                extra = []
                if kind != "policy" and updates % 4 == 0:
                    # so many rules that tables must grow: the programs are loaded afresh over larger ones
                    peers = [f"198.18.{i % 256}.{i // 256}/32" for i in range(updates * 50)]
                    extra = [policy("growth", 900, ingress=[rule("deny", "TCP", 1 + i, peers=[p]) for i, p in enumerate(peers)])]
                up.daemon.apply(*choices[updates % 2], *extra)
        finally:
            stop.set()
            thread.join()
        assert updates > 10
        judged = lambda: up.daemon.api.get("/v1/counters")["totals"]["ingress"]["packets"]  # noqa: E731
        wait_for(lambda: judged() >= sum(sent.values()), what="every packet judged")
        dropped = {k: v - before.get(k, 0) for k, v in up.daemon.drops().items() if v != before.get(k, 0)}
    print(f"{updates} updates, {sent}")
    assert dropped == {("policy-deny", "ingress"): sent[DENIED]}
