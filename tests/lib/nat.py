# SPDX-License-Identifier: Apache-2.0
"""Who a server takes its client for: it answers with the address that it sees; or with its own name, where that is the question."""

import contextlib
import socket
import threading

from .traffic import family_of


class WhoAmI:
    """A TCP and a UDP server, of both families, on each of the ports."""

    def __init__(self, ns, *ports, answer=None):
        self.sockets, self.threads, self.answer = [], [], answer
        for port in ports:
            for family in (socket.AF_INET, socket.AF_INET6):
                for kind, run in ((socket.SOCK_STREAM, self._tcp), (socket.SOCK_DGRAM, self._udp)):
                    s = ns.socket(family, kind)
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    if family == socket.AF_INET6:
                        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    s.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))
                    if kind == socket.SOCK_STREAM:
                        s.listen(16)
                    s.settimeout(0.2)
                    self.sockets.append(s)
                    self.threads.append(threading.Thread(target=run, args=(s,), daemon=True))
        self.stopped = False
        for t in self.threads:
            t.start()

    def _each(self, take):
        while not self.stopped:
            with contextlib.suppress(TimeoutError):
                take()

    def _tcp(self, s):
        def take():
            connection, peer = s.accept()
            with connection:
                connection.sendall((self.answer or peer[0]).encode())

        with contextlib.suppress(OSError):
            self._each(take)

    def _udp(self, s):
        def take():
            _, peer = s.recvfrom(100)
            s.sendto((self.answer or peer[0]).encode(), peer)

        with contextlib.suppress(OSError):
            self._each(take)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stopped = True
        for t in self.threads:
            t.join()
        for s in self.sockets:
            s.close()


def ask(ns, address, port, protocol="tcp", timeout=3.0, source=None):
    """What the server there takes ns for; None: no answer, or refused."""
    with ns.socket(family_of(address), socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM) as s:
        s.settimeout(timeout)
        if source:
            s.bind((source, 0))
        try:
            s.connect((address, port))
            if protocol == "udp":
                s.send(b"?")
            return s.recv(100).decode() or None
        except OSError:
            return None


def ask_patiently(ns, address, port, protocol="tcp", **kwargs):
    """A second time where the first one got nothing: of UDP a packet may be lost on a busy machine."""
    return ask(ns, address, port, protocol, **kwargs) or ask(ns, address, port, protocol, **kwargs)
