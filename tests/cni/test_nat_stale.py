# SPDX-License-Identifier: Apache-2.0
"""A UDP client that goes on from the same source port is led where a port of the host leads now, not where it led; nobody else's flow is touched."""

import contextlib
import socket

import pytest
from lib.heddled import wait_for
from lib.nat import WhoAmI
from lib.traffic import family_of
from test_nat import NatHost, host, mapped, mapping, nat_shared  # noqa: F401 (fixtures)


class Client:
    """One source port, for as long as it lives."""

    def __init__(self, ns, address, port):
        self.socket = ns.socket(family_of(address), socket.SOCK_DGRAM)
        self.socket.bind(("", 0))
        self.socket.settimeout(0.3)
        self.port, self.to = self.socket.getsockname()[1], (address, port)

    def ask(self):
        """Who answers; None: nobody, or the host says that there is nobody."""
        with contextlib.suppress(OSError):
            while self.socket.recv(100, socket.MSG_DONTWAIT):
                pass  # late ones
        try:
            self.socket.sendto(b"?", self.to)
            return self.socket.recv(100).decode()
        except OSError:
            return None

    def wait(self, name):
        wait_for(lambda: self.ask() == name, 10, 0.05, what=f"{name} answers")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.socket.close()


def flows(host):
    """{source port: number of the tracked flow} of UDP, by either family."""
    from pyroute2 import NFCTSocket

    found = {}
    for family in (socket.AF_INET, socket.AF_INET6):
        with host.ns:
            ct = NFCTSocket(nfgen_family=family)
        try:
            for message in ct.dump():
                protocol = message.get_attr("CTA_TUPLE_ORIG").get_attr("CTA_TUPLE_PROTO")
                if protocol.get_attr("CTA_PROTO_NUM") == socket.IPPROTO_UDP:
                    found[protocol.get_attr("CTA_PROTO_SRC_PORT")] = message.get_attr("CTA_ID")
        finally:
            ct.close()
    return found


def udp(port, address="", to=80):
    return mapping(port, to, "udp", address)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("bound", [False, True], ids=["any", "one"])
def test_a_port_that_moves_takes_its_clients_along(host, family, bound):
    here = host.here(family)
    asked = udp(9000, here if bound else "")
    other = mapped(host, udp(9001))
    pod = host.added(host.runtime())
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        # nobody is there, and yet there is a flow
        client, inside = enter(Client(host.world, here, 9000)), enter(Client(pod.ns, here, 9000))
        bystander, past = enter(Client(host.world, here, 9001)), enter(Client(pod.ns, host.there(family), 9000))
        own = enter(Client(host.ns, here, 9000))
        enter(WhoAmI(other.ns, 80, answer="other"))
        enter(WhoAmI(host.world, 9000, answer="world"))
        assert client.ask() is None and inside.ask() is None and own.ask() is None
        bystander.wait("other")
        past.wait("world")
        before = flows(host)
        assert {client.port, inside.port, bystander.port, past.port} <= set(before)
        first = mapped(host, asked)
        with WhoAmI(first.ns, 80, answer="first"):
            for c in (client, inside, own):
                c.wait("first")
            # another port of the same Pod, and a change of something else, leave it alone
            tracked = flows(host)[client.port]
            host.runtime().delete(host.added(host.runtime(), runtime_config={"portMappings": [udp(9002)]}))
            assert client.ask() == "first" and flows(host)[client.port] == tracked
            host.runtime().delete(first)
        assert client.ask() is None
        second = mapped(host, asked)
        with WhoAmI(second.ns, 80, answer="second"):
            for c in (client, inside, own):
                c.wait("second")
        assert bystander.ask() == "other" and past.ask() == "world"
        after = flows(host)
        assert after[bystander.port] == before[bystander.port] and after[past.port] == before[past.port]
        host.runtime().delete(second)
        # and at last to the host itself
        with WhoAmI(host.ns, 9000, answer="host"):
            for c in (client, inside, own):
                c.wait("host")


def test_who_goes_while_no_agent_runs():
    with NatHost(masquerade=False) as host, Client(host.world, host.here(4), 9000) as client, Client(host.world, host.here(4), 9001) as stays:
        gone, kept = mapped(host, udp(9000)), mapped(host, udp(9001))
        with WhoAmI(gone.ns, 80, answer="gone"), WhoAmI(kept.ns, 80, answer="kept"):
            client.wait("gone")
            stays.wait("kept")
        tracked = flows(host)[stays.port]
        host.daemon.kill()
        gone.close()
        wait_for(lambda: len(host.devices()) == 1, what="its device is gone")
        with WhoAmI(host.ns, 9000, answer="host"), WhoAmI(kept.ns, 80, answer="kept"):
            assert client.ask() is None
            host.daemon.start()
            client.wait("host")
            assert stays.ask() == "kept" and flows(host)[stays.port] == tracked
            # the table is away for a moment: what was led past it meanwhile does not stay so
            host.ns.run("nft", "flush", "ruleset")
            stays.wait("kept")
        # without a DEL
        with Client(host.world, host.here(4), 9001) as late, WhoAmI(host.ns, 9001, answer="host"):
            kept.close()
            late.wait("host")
            stays.wait("host")
