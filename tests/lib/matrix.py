# SPDX-License-Identifier: Apache-2.0
"""
Who reaches whom, on which port: many connections at a time between namespaces, each with a source port of its own.

TCP and UDP with ordinary sockets that say something and hear it back; SCTP, of which this kernel has no sockets, as an INIT and its
INIT-ACK over raw sockets. Everything is driven from one thread and one epoll: packets between namespaces of one machine arrive while
they are sent, so that silence needs little patience.

Outcomes: open (there and back), silent (nothing arrived, nothing came back), arrived (the far end got it, its answer was lost),
refused, prohibited (an ICMP error said so), local (this end's own kernel would not send it).
"""

import collections
import ctypes
import errno
import select
import socket
import struct
import time

SO_ATTACH_FILTER = 26
IPPROTO_SCTP = 132
SILENCE = 0.15  # seconds without anything, after which a cell is silent
PATIENCE = 2.0  # for a cell that should have been open and was not
MAGIC = b"cell"
FIRST_SPORT, LAST_SPORT = 20000, 60000

Cell = collections.namedtuple("Cell", "source destination protocol port family", defaults=(4,))

ERRORS = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "refused",
    errno.EHOSTUNREACH: "prohibited",
    errno.ENETUNREACH: "prohibited",
    errno.EACCES: "prohibited",
}


# --- SCTP by hand ---


def _crc32c_table():
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        table.append(n)
    return table


_CRC32C = _crc32c_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC32C[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _sctp(sport, dport, tag, chunk):
    head = struct.pack("!HHI", sport, dport, tag)
    # The only field of the header that is little endian (RFC 9260, appendix A).
    return head + struct.pack("<I", crc32c(head + bytes(4) + chunk)) + chunk


def sctp_init(sport, dport, tag):
    """INIT with initiate tag `tag`; it asks for one stream each way."""
    return _sctp(sport, dport, 0, struct.pack("!BBHIIHHI", 1, 0, 20, tag, 65536, 1, 1, tag))


def sctp_init_ack(sport, dport, tag):
    """The answer to an INIT with that tag: its own tag is made of it, and so is the state cookie (parameter 7)."""
    own = tag ^ 0x5A5A5A5A
    return _sctp(sport, dport, tag, struct.pack("!BBHIIHHIHHI", 2, 0, 28, own, 65536, 1, 1, own, 7, 8, own))


def sctp_read(segment):
    """(chunk type, source port, destination port, tag that names the association's opener), or None."""
    if len(segment) < 32 or struct.unpack_from("<I", segment, 8)[0] != crc32c(segment[:8] + bytes(4) + segment[12:]):
        return None
    sport, dport, tag = struct.unpack_from("!HHI", segment)
    kind = segment[12]
    return kind, sport, dport, struct.unpack_from("!I", segment, 16)[0] if kind == 1 else tag


# --- a witness of SYNs ---


class _Filter(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint32)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.POINTER(_Filter))]


def attach_syn_filter(s, family):
    """A raw TCP socket then hears SYNs alone. An IPv4 raw socket sees the IP header too, an IPv6 one does not."""
    head = [(0xB1, 0, 0, 0)] if family == 4 else [(0x01, 0, 0, 0)]  # X = 4 * (packet[0] & 15) or 0
    code = head + [(0x50, 0, 0, 13), (0x54, 0, 0, 0x12), (0x15, 0, 1, 0x02), (0x06, 0, 0, 128), (0x06, 0, 0, 0)]
    program = _Program(len(code), (_Filter * len(code))(*(_Filter(*c) for c in code)))
    s.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, bytes(program))


# --- ends ---


class End:
    """One namespace's servers and addresses: {4: address, 6: address}."""

    def __init__(self, prober, ns, addresses):
        self.prober, self.ns, self.addresses = prober, ns, addresses
        self.served = set()
        self.sockets = []
        self.sctp, self.syn = {}, {}
        self.next_port = FIRST_SPORT
        for family in addresses:
            domain = socket.AF_INET if family == 4 else socket.AF_INET6
            self.sctp[family] = self._open(domain, socket.SOCK_RAW, IPPROTO_SCTP)
            self.syn[family] = self._open(domain, socket.SOCK_RAW, socket.IPPROTO_TCP)
            attach_syn_filter(self.syn[family], family)
            prober.watch(self.sctp[family], prober.on_sctp, self, family)
            prober.watch(self.syn[family], prober.on_syn, self, family)

    def _open(self, domain, kind, protocol=0):
        s = self.ns.socket(domain, kind, protocol)
        s.setblocking(False)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.sockets.append(s)
        return s

    def serve(self, protocol, port):
        """Answers there from now on. Every end answers SCTP on every port: its raw socket hears them all."""
        if (protocol, port) in self.served or protocol == "SCTP":
            return
        self.served.add((protocol, port))
        s = self._open(socket.AF_INET6, socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM)
        if protocol == "TCP":
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("::", port))
        if protocol == "TCP":
            s.listen(1024)
        self.prober.watch(s, self.prober.on_listener if protocol == "TCP" else self.prober.on_udp_server, self, port)

    def source_port(self):
        """Ports are used in turn, so that no cell has the tuple of an earlier one."""
        self.next_port = self.next_port + 1 if self.next_port < LAST_SPORT else FIRST_SPORT
        return self.next_port

    def close(self):
        for s in self.sockets:
            self.prober.forget(s)


class _Try:
    """One cell being probed."""

    def __init__(self, cell, number):
        self.cell, self.number = cell, number
        self.token = MAGIC + struct.pack("!I", number)
        self.socket = None
        self.arrived = self.answered = self.greeted = False
        self.outcome = None


class Prober:
    """probe() is all that tests need; ends are given by name in `ends`."""

    def __init__(self):
        self.ends = {}
        self._epoll = select.epoll()
        self._handlers = {}
        self._number = 0
        self._tries = {}  # by number
        self._by_syn = {}  # (destination end, source port, destination port, source address)
        self._open = 0

    # --- plumbing ---

    def watch(self, s, handler, *args, events=select.EPOLLIN):
        self._handlers[s.fileno()] = (s, handler, args)
        self._epoll.register(s.fileno(), events)

    def forget(self, s):
        if s.fileno() >= 0 and self._handlers.pop(s.fileno(), None):
            self._epoll.unregister(s.fileno())
        s.close()

    def close(self):
        for s, _, _ in list(self._handlers.values()):
            self.forget(s)
        self._epoll.close()

    def _poll(self, timeout):
        events = self._epoll.poll(timeout, 1024)
        for fd, _ in events:
            if fd in self._handlers:
                s, handler, args = self._handlers[fd]
                handler(s, *args)
        return bool(events)

    # --- servers ---

    def on_listener(self, s, end, port):
        try:
            while True:
                connection, _ = s.accept()
                connection.setblocking(False)
                self.watch(connection, self.on_accepted, end, port)
        except BlockingIOError:
            pass

    def on_accepted(self, s, end, port):
        try:
            data = s.recv(64)
            if data:
                s.send(data)
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self.forget(s)

    def on_udp_server(self, s, end, port):
        for data, sender in _received(s):
            self._saw(end, data)
            try:
                s.sendto(data, sender)
            except OSError:
                pass  # an answer that cannot even be sent is a lost one: the cell is "arrived"

    def on_syn(self, s, end, family):
        for data, sender in _received(s):
            if family == 4:
                data = data[(data[0] & 15) * 4 :]
            sport, dport = struct.unpack_from("!HH", data)
            t = self._by_syn.get((id(end), sport, dport, sender[0]))
            if t:
                t.arrived = True

    def on_sctp(self, s, end, family):
        for data, sender in _received(s):
            if family == 4:
                data = data[(data[0] & 15) * 4 :]
            read = sctp_read(data)
            if not read:
                continue
            kind, sport, dport, tag = read
            t = self._tries.get(tag)
            if kind == 1:
                if t and self.ends[t.cell.destination] is end:
                    t.arrived = True
                try:
                    s.sendto(sctp_init_ack(dport, sport, tag), (sender[0], 0))
                except OSError:
                    pass
            elif kind == 2 and t and self.ends[t.cell.source] is end:
                t.answered = True
                self._settle(t)

    def _saw(self, end, data):
        if data[:4] == MAGIC and len(data) == 8:
            t = self._tries.get(struct.unpack("!I", data[4:])[0])
            if t and self.ends[t.cell.destination] is end:
                t.arrived = True

    # --- clients ---

    def on_client(self, s, t):
        error = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        try:
            if error:
                raise OSError(error, "connection")
            if t.cell.protocol == "TCP" and not t.outcome and not t.answered:
                if not t.greeted:
                    s.send(t.token)
                    t.greeted = True
                    self._epoll.modify(s.fileno(), select.EPOLLIN)
                    return
            data = s.recv(64)
            if data == t.token:
                t.answered = True
                self._settle(t)
            elif not data:
                self._settle(t, "refused")
        except BlockingIOError:
            pass
        except OSError as e:
            self._settle(t, ERRORS.get(e.errno, f"error {e.errno}"))

    def _settle(self, t, outcome=None):
        if t.outcome is None:
            t.outcome = outcome or "open"
            self._open -= 1
        if t.socket is not None:
            if t.cell.protocol == "TCP":
                # Ended by RST: no TIME_WAIT keeps the port
                t.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.forget(t.socket)
            t.socket = None

    def _start(self, cell):
        self._number += 1
        t = _Try(cell, self._number)
        self._tries[t.number] = t
        self._open += 1
        source, destination = self.ends[cell.source], self.ends[cell.destination]
        here, there = source.addresses[cell.family], destination.addresses[cell.family]
        try:
            if cell.protocol == "SCTP":
                source.sctp[cell.family].sendto(sctp_init(source.source_port(), cell.port, t.number), (there, 0))
                return t
            domain = socket.AF_INET if cell.family == 4 else socket.AF_INET6
            # made in the namespace that probe() has entered
            t.socket = socket.socket(domain, socket.SOCK_STREAM if cell.protocol == "TCP" else socket.SOCK_DGRAM)
            t.socket.setblocking(False)
            while True:
                sport = source.source_port()
                try:
                    t.socket.bind((here, sport))
                    break
                except OSError as e:
                    if e.errno != errno.EADDRINUSE:
                        raise
            if cell.protocol == "TCP":
                self._by_syn[(id(destination), sport, cell.port, here)] = t
                self.watch(t.socket, self.on_client, t, events=select.EPOLLOUT)
                t.socket.connect((there, cell.port))
            else:
                self.watch(t.socket, self.on_client, t)
                t.socket.connect((there, cell.port))
                t.socket.send(t.token)
        except BlockingIOError:
            pass
        except OSError as e:
            self._settle(t, "local" if e.errno in (errno.EPERM, errno.EINVAL) else ERRORS.get(e.errno, f"error {e.errno}"))
        return t

    def probe(self, cells, silence=SILENCE):
        """{cell: outcome}; every cell in a flow of its own."""
        self._tries.clear()
        self._by_syn.clear()
        self._open = 0
        tries = []
        by_source = collections.defaultdict(list)
        for cell in cells:
            by_source[cell.source].append(cell)
        for source, its in by_source.items():
            with self.ends[source].ns:
                for number, cell in enumerate(its):
                    self.ends[cell.destination].serve(cell.protocol, cell.port)
                    tries.append(self._start(cell))
                    if number % 16 == 15:
                        self._poll(0)
            self._poll(0)
        # Time counts from the last thing that happened, and only once nothing is left to read: a machine that was busy with others
        # has then not been taken for silence.
        deadline = time.monotonic() + silence
        while self._open:
            left = deadline - time.monotonic()
            if self._poll(max(left, 0)):
                deadline = max(deadline, time.monotonic() + silence / 4)
            elif left <= 0:
                break
        # what an answer overtook
        while self._poll(0):
            pass
        result = {}
        for t in tries:
            if t.outcome is None:
                t.outcome = "arrived" if t.arrived else "silent"
                self._settle(t, t.outcome)
            elif t.outcome == "open" and not t.arrived:
                t.outcome = "answered by another"
            result[t.cell] = t.outcome
        return result

    def compare(self, wanted, silence=SILENCE):
        """
        {cell: what should be} against what is: ({cell: outcome} of those that differ, how many needed a second try). One that should
        have been open gets a second try with more patience, in a flow of its own; one that should have been silent gets none.
        """
        got = self.probe(wanted, silence)
        wrong = {cell: outcome for cell, outcome in got.items() if outcome != wanted[cell]}
        again = [cell for cell in wrong if wanted[cell] == "open"]
        if again:
            for cell, outcome in self.probe(again, PATIENCE).items():
                if outcome == "open":
                    del wrong[cell]
        return wrong, len([cell for cell in again if cell not in wrong])


def _received(s):
    while True:
        try:
            yield s.recvfrom(2048)
        except BlockingIOError:
            return
        except OSError:
            continue  # an ICMP error about an earlier answer
