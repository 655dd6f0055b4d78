# SPDX-License-Identifier: Apache-2.0
"""
Servers, clients and streams over ordinary sockets. Sockets are made inside a namespace and then used from any thread of
the test process, so nothing has to be started in the namespace.

Outcomes of a probe: open/reply, refused, prohibited (an ICMP error said so), timeout.
"""

import contextlib
import errno
import hashlib
import os
import select
import socket
import struct
import threading
import time

from .netns import PATIENCE
from .raw import checksum

OUTCOMES = {
    errno.ECONNREFUSED: "refused",
    errno.EHOSTUNREACH: "prohibited",  # ICMP type 3 code 13
    errno.EACCES: "prohibited",  # ICMPv6 type 1 code 1
    errno.ECONNRESET: "reset",
}
QUICK = 0.15 * PATIENCE  # how long silence has to last to be called silence; a wrong "timeout" can only come from a packet later than this
PATIENT = 5.0 * PATIENCE


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class Servers:
    """Echo servers on TCP and UDP ports, both families, one thread for all. Counts what it accepted and received."""

    def __init__(self, ns, tcp=(), udp=()):
        self.accepted, self.datagrams, self.bytes = {}, {}, 0
        self._sockets, self._stop = {}, threading.Event()
        self._epoll = select.epoll()
        self._wake_r, self._wake_w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._epoll.register(self._wake_r, select.EPOLLIN)
        for port in tcp:
            s = ns.socket(socket.AF_INET6, socket.SOCK_STREAM)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("::", port))
            s.listen(4096)
            self._add(s, ("listen", port))
        for port in udp:
            s = ns.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 21)
            s.bind(("::", port))
            self._add(s, ("udp", port))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _add(self, s, what):
        s.setblocking(False)
        self._sockets[s.fileno()] = (s, what)
        self._epoll.register(s.fileno(), select.EPOLLIN)

    def _run(self):
        while not self._stop.is_set():
            for fd, _ in self._epoll.poll():
                if fd == self._wake_r or fd not in self._sockets:
                    continue
                s, (kind, port) = self._sockets[fd]
                try:
                    if kind == "listen":
                        c, _ = s.accept()
                        self.accepted[port] = self.accepted.get(port, 0) + 1
                        self._add(c, ("tcp", port))
                    elif kind == "udp":
                        data, sender = s.recvfrom(65536)
                        self.datagrams[port] = self.datagrams.get(port, 0) + 1
                        s.sendto(data, sender)
                    else:
                        data = s.recv(1 << 16)
                        if data:
                            self.bytes += len(data)
                            s.setblocking(True)
                            s.settimeout(5)
                            s.sendall(data)
                            s.setblocking(False)
                        else:
                            self._drop(fd)
                except BlockingIOError:
                    pass
                except OSError:
                    if kind == "tcp":
                        self._drop(fd)

    def _drop(self, fd):
        s, _ = self._sockets.pop(fd)
        self._epoll.unregister(fd)
        s.close()

    def close(self):
        self._stop.set()
        os.write(self._wake_w, b"x")
        self._thread.join(timeout=10)
        for s, _ in self._sockets.values():
            s.close()
        self._epoll.close()
        os.close(self._wake_r)
        os.close(self._wake_w)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def connect(ns, address, port, timeout=PATIENT, sport=0, source=""):
    """A connected TCP socket."""
    s = ns.socket(family_of(address), socket.SOCK_STREAM)
    try:
        if sport or source:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind((source, sport))
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.settimeout(timeout)
        s.connect((address, port))
        return s
    except BaseException:
        s.close()
        raise


def tcp_probe(ns, address, port, timeout=PATIENT, **kwargs):
    try:
        connect(ns, address, port, timeout, **kwargs).close()
        return "open"
    except TimeoutError:
        return "timeout"
    except OSError as error:
        if error.errno in OUTCOMES:
            return OUTCOMES[error.errno]
        raise


def udp_probe(ns, address, port, timeout=PATIENT, sport=0, source="", payload=b"probe"):
    s = ns.socket(family_of(address), socket.SOCK_DGRAM)
    with s:
        if sport or source:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind((source, sport))
        s.settimeout(timeout)
        try:
            s.connect((address, port))
            s.send(payload)
            data = s.recv(65536)
        except TimeoutError:
            return "timeout"
        except OSError as error:
            if error.errno in OUTCOMES:
                return OUTCOMES[error.errno]
            raise
        return "reply" if data == payload else "garbled"


def expect_tcp(ns, address, port, outcome, **kwargs):
    got = tcp_probe(ns, address, port, QUICK if outcome == "timeout" else PATIENT, **kwargs)
    assert got == outcome, f"TCP to {address} port {port} {kwargs}: {got}, not {outcome}"


def expect_udp(ns, address, port, outcome, **kwargs):
    got = udp_probe(ns, address, port, QUICK if outcome == "timeout" else PATIENT, **kwargs)
    assert got == outcome, f"UDP to {address} port {port} {kwargs}: {got}, not {outcome}"


class Pinger:
    """Echo requests with one identifier over a raw socket; replies are counted by sequence number."""

    def __init__(self, ns, address, identifier=None, source=None):
        self.v6 = ":" in address
        self.address = address
        self.identifier = identifier if identifier is not None else int.from_bytes(os.urandom(2), "big")
        self.socket = ns.socket(family_of(address), socket.SOCK_RAW, socket.IPPROTO_ICMPV6 if self.v6 else socket.IPPROTO_ICMP)
        if source:
            self.socket.bind((source, 0))
        self.socket.connect((address, 0))
        self.socket.setblocking(False)
        self.sent, self.replies, self.errors = 0, set(), 0

    def send(self, payload=b"heddle"):
        self.sent += 1
        kind = 128 if self.v6 else 8
        body = struct.pack("!BBHHH", kind, 0, 0, self.identifier, self.sent & 0xFFFF) + payload
        if not self.v6:
            body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
        try:
            self.socket.send(body)  # the kernel fills in the ICMPv6 checksum
        except OSError:
            self.errors += 1

    def collect(self, timeout=0.0):
        """Reads what is there; with a timeout, until every request has its reply or the time is over."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                data = self.socket.recv(65536)
                if not self.v6:
                    data = data[(data[0] & 15) * 4 :]
                if data[0] == (129 if self.v6 else 0) and struct.unpack("!H", data[4:6])[0] == self.identifier:
                    self.replies.add(struct.unpack("!H", data[6:8])[0])
            except BlockingIOError:
                left = deadline - time.monotonic()
                if len(self.replies) >= self.sent or left <= 0:
                    return len(self.replies)
                select.select([self.socket], [], [], left)
            except OSError:
                self.errors += 1

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def ping(ns, address, count=1, timeout=None, answered=True, **kwargs):
    """True when every echo request was answered."""
    with Pinger(ns, address, **kwargs) as pinger:
        for _ in range(count):
            pinger.send()
        return pinger.collect(timeout if timeout is not None else PATIENT if answered else QUICK) == count


def icmp_error(ns, family, send):
    """The first ICMP error that a raw socket hears after send(): (type, code, source, the four bytes behind the checksum)."""
    proto = socket.IPPROTO_ICMP if family == 4 else socket.IPPROTO_ICMPV6
    with ns.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_RAW, proto) as s:
        s.settimeout(2)
        send()
        wanted = (3, 11) if family == 4 else (1, 2, 3)
        while True:
            data, sender = s.recvfrom(2048)
            body = data[20:] if family == 4 else data
            if body[0] in wanted:
                return body[0], body[1], sender[0], int.from_bytes(body[4:8], "big")


def udp_send(ns, address, size=10, ttl=None, fragment=False):
    """For icmp_error(): sends a datagram; with DF and never in fragments, or (fragment) without DF."""

    def send():
        with ns.socket(family_of(address), socket.SOCK_DGRAM) as s:
            if ttl and ":" in address:
                s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, ttl)
            elif ttl:
                s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
            if ":" in address:
                s.setsockopt(socket.IPPROTO_IPV6, 23, 0 if fragment else 3)  # IPV6_MTU_DISCOVER: DF, whatever is known of the way
            else:
                s.setsockopt(socket.IPPROTO_IP, 10, 0 if fragment else 3)  # IP_MTU_DISCOVER: DF, whatever is known of the way
            s.connect((address, 7010))
            with contextlib.suppress(ConnectionRefusedError):
                s.send(b"x" * size)

    return send


def roundtrip(s, data=b"still here?", timeout=PATIENT):
    """One exchange over a connected TCP socket to an echo server: True when all came back."""
    s.settimeout(timeout)
    try:
        s.sendall(data)
        got = b""
        while len(got) < len(data):
            part = s.recv(65536)
            if not part:
                return False
            got += part
    except (TimeoutError, OSError):
        return False
    return got == data


def roundtrip_pair(client, server, timeout=PATIENT):
    """One exchange over both ends of a connection: True when each heard the other."""
    client.settimeout(timeout)
    server.settimeout(timeout)
    try:
        for one, other in ((client, server), (server, client)):
            one.sendall(b"still here?")
            if other.recv(64) != b"still here?":
                return False
    except OSError:
        return False
    return True


TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21


def sequence_numbers(s):
    """(what this end sends next, what it expects next) of a connected TCP socket."""
    s.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    result = []
    for queue in (2, 1):  # of sending, of receiving
        s.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)
        result.append(s.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ) & 0xFFFFFFFF)
    s.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, -1)  # off, with no window probe
    return tuple(result)


def retransmits(s):
    """tcpi_total_retrans: segments this end had to send twice. The honest count of loss under TCP."""
    info = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
    return struct.unpack_from("=I", info, 100)[0]


def transfer(sender, receiver, size, chunk=1 << 20, seed=b"heddle", timeout=60):
    """Sends size pseudo-random bytes from one connected socket to the other; returns (sent, received) digests."""
    block = b"".join(hashlib.sha256(seed + bytes([i & 0xFF, i >> 8])).digest() for i in range(chunk // 32))
    sent, got = hashlib.sha256(), hashlib.sha256()

    def send():
        left = size
        while left:
            part = block[: min(left, len(block))]
            sent.update(part)
            sender.sendall(part)
            left -= len(part)

    sender.settimeout(timeout)
    receiver.settimeout(timeout)
    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    left = size
    while left:
        part = receiver.recv(min(left, 1 << 20))
        if not part:
            break
        got.update(part)
        left -= len(part)
    thread.join(timeout)
    return sent.hexdigest(), got.hexdigest()


def accept_pair(client_ns, server_ns, address, port, **kwargs):
    """(client socket, server socket) of one connection to a port nobody else listens on."""
    with server_ns.socket(family_of(address), socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("::" if ":" in address else "", port))
        listener.listen(8)
        listener.settimeout(PATIENT)
        c = connect(client_ns, address, port, **kwargs)
        s, _ = listener.accept()
        return c, s


class Load:
    """
    Established traffic in the background: a paced TCP exchange, a UDP exchange and pings. Everything that goes out is
    numbered, so finish() can say exactly what was lost: {"tcp_retransmits", "udp_lost", "ping_lost", ...}.
    """

    def __init__(self, client, server, address, tcp_port, udp_port, interval=0.002):
        self.interval = interval
        self.tcp_client, self.tcp_server = accept_pair(client, server, address, tcp_port)
        self.udp_server = server.socket(family_of(address), socket.SOCK_DGRAM)
        self.udp_server.bind((address, udp_port))
        self.udp_server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 21)
        self.udp_client = client.socket(family_of(address), socket.SOCK_DGRAM)
        self.udp_client.connect((address, udp_port))
        self.pinger = Pinger(client, address)
        self.tcp_exchanges = self.udp_sent = 0
        self.tcp_broken = None
        self.udp_got = set()
        self._stop = threading.Event()
        self.longest_gap = 0.0
        self.threads = [threading.Thread(target=f, daemon=True) for f in (self._tcp, self._tcp_echo, self._udp, self._udp_echo)]
        for t in self.threads:
            t.start()
        self.wait_exchanges(20)

    def wait_exchanges(self, more, timeout=PATIENT):
        """Until so many further TCP exchanges are done: the streams are moving."""
        target, deadline = self.tcp_exchanges + more, time.monotonic() + timeout
        while self.tcp_exchanges < target:
            if time.monotonic() > deadline or self.tcp_broken:
                raise AssertionError(f"traffic stands still after {self.tcp_exchanges} exchanges: {self.tcp_broken}")
            time.sleep(0.01)

    def _tcp(self):
        self.tcp_client.settimeout(30)
        try:
            while not self._stop.is_set():
                start = time.monotonic()
                data = struct.pack("!I", self.tcp_exchanges) * 64
                self.tcp_client.sendall(data)
                got = b""
                while len(got) < len(data):
                    part = self.tcp_client.recv(4096)
                    if not part:
                        raise OSError("closed by the far end")
                    got += part
                if got != data:
                    raise OSError("garbled")
                self.tcp_exchanges += 1
                self.longest_gap = max(self.longest_gap, time.monotonic() - start)
                time.sleep(self.interval)
        except OSError as error:
            self.tcp_broken = repr(error)

    def _tcp_echo(self):
        self.tcp_server.settimeout(0.2)
        while not self._stop.is_set():
            try:
                data = self.tcp_server.recv(4096)
                if not data:
                    return
                self.tcp_server.sendall(data)
            except TimeoutError:
                continue
            except OSError:
                return

    def _udp(self):
        self.udp_client.setblocking(False)
        while not self._stop.is_set():
            try:
                self.udp_client.send(struct.pack("!I", self.udp_sent))
                self.udp_sent += 1
            except OSError:
                self.udp_sent += 1  # an ICMP error counts as a loss too
            self.pinger.send()
            self.pinger.collect()
            self._read_udp()
            time.sleep(self.interval)

    def _read_udp(self):
        while True:
            try:
                self.udp_got.add(self.udp_client.recv(64))
            except OSError:
                return

    def _udp_echo(self):
        self.udp_server.settimeout(0.2)
        while not self._stop.is_set():
            try:
                data, sender = self.udp_server.recvfrom(64)
                self.udp_server.sendto(data, sender)
            except TimeoutError:
                continue
            except OSError:
                return

    def finish(self):
        # the clients stop first, so that what is under way can still come back
        time.sleep(self.interval)
        result = {}
        self._stop.set()
        for t in self.threads:
            t.join(timeout=35)
        self.pinger.collect(1.0)
        self.udp_server.setblocking(False)
        deadline = time.monotonic() + 1.0
        while len(self.udp_got) < self.udp_sent and time.monotonic() < deadline:
            try:
                data, sender = self.udp_server.recvfrom(64)
                self.udp_server.sendto(data, sender)
            except OSError:
                time.sleep(0.01)
            self._read_udp()
        result["tcp_broken"] = self.tcp_broken
        result["tcp_retransmits"] = retransmits(self.tcp_client) + retransmits(self.tcp_server)
        result["udp_lost"] = self.udp_sent - len(self.udp_got)
        result["ping_lost"] = self.pinger.sent - self.pinger.collect()
        self.close()
        return result

    def close(self):
        self._stop.set()
        with contextlib.suppress(OSError):
            self.tcp_client.shutdown(socket.SHUT_RDWR)  # ends an exchange that waits for an answer that was lost
        for t in self.threads:
            t.join(timeout=35)
        for s in (self.tcp_client, self.tcp_server, self.udp_client, self.udp_server, self.pinger):
            s.close()


NO_LOSS = {"tcp_broken": None, "tcp_retransmits": 0, "udp_lost": 0, "ping_lost": 0}
