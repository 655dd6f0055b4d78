#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""hostile.py RUN_DIR NAME WHAT: a consumer of a FastPath that speaks the protocol by hand, to do what the library does not.

    descriptors   sends frames that are none, offers memory that is not its own, writes nonsense into every index
    chains        has asked for packets in several frames: sends packets without an end, with frames in the middle that are none, with too many of them
    unasked       the same, and has not asked
    send HEX...   sends these frames
    nonsense      messages of every wrong kind
    silent        takes what it is granted and says nothing
    resume        claims the session of somebody else, with descriptors that are no sockets

Prints "done" when the deed is, then sleeps until it is killed.
"""
import mmap
import os
import socket
import struct
import sys
import time

SOL_XDP, XDP_MMAP_OFFSETS, QUEUES = 283, 1, 64
RX, TX, FILL, COMPLETION = 0, 0x80000000, 0x100000000, 0x180000000
HEAD = struct.Struct("=IHHiIQIIIIIII6sBBI")
SIZE = HEAD.size + 8 * QUEUES + 160
HELLO, GRANT, REFUSED, MAPPED, READY, RESUME, ENDED = range(1, 8)


def message(kind, session=0, n=0, pieces=0):
    return HEAD.pack(0x68666131, 1, kind, 0, n, session, *([0] * 7), bytes(6), 0, 0, pieces).ljust(SIZE, b"\0")


class Session:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.connect(path)

    def grant(self, pieces=0):
        self.socket.send(message(HELLO, pieces=pieces))
        data, fds, _, _ = socket.recv_fds(self.socket, SIZE, QUEUES + 1)
        fields = HEAD.unpack_from(data)
        assert fields[2] == GRANT, data[-160:]
        self.session, self.frame_size, self.frames = fields[5:8]
        self.sizes = dict(zip((RX, TX, FILL, COMPLETION), fields[8:12]))
        self.memory = mmap.mmap(fds[0], self.frame_size * self.frames)
        self.xsk = socket.socket(44, socket.SOCK_RAW, 0, fileno=fds[1])
        offsets = struct.unpack("=16Q", self.xsk.getsockopt(SOL_XDP, XDP_MMAP_OFFSETS, 128))
        self.rings = {}
        for i, ring in enumerate((RX, TX, FILL, COMPLETION)):
            producer, consumer, desc, _ = offsets[4 * i : 4 * i + 4]
            entry = 16 if ring in (RX, TX) else 8
            self.rings[ring] = (mmap.mmap(self.xsk.fileno(), desc + entry * self.sizes[ring], offset=ring), producer, consumer, desc)

    def ready(self):
        self.socket.send(message(MAPPED, self.session))
        assert HEAD.unpack_from(self.socket.recv(SIZE))[2] == READY

    def index(self, ring, which, value=None):
        memory, *at = self.rings[ring]
        if value is not None:
            memory[at[which] : at[which] + 4] = struct.pack("=I", value & 0xFFFFFFFF)
        return struct.unpack("=I", memory[at[which] : at[which] + 4])[0]

    def entry(self, ring, index, *words):
        memory, _, _, desc = self.rings[ring]
        data = struct.pack("=QII", *words) if ring == TX else struct.pack("=Q", *words)
        at = desc + (index % self.sizes[ring]) * len(data)
        memory[at : at + len(data)] = data

    def transmit(self, descriptors):
        """(address, length[, options]); one at a time, the kernel is told of each."""
        for address, length, *options in descriptors:
            producer = self.index(TX, 0)
            self.entry(TX, producer, address, length, *(options or [0]))
            self.index(TX, 0, producer + 1)
            self.wake()

    def wake(self):
        try:
            self.xsk.sendmsg([], [], socket.MSG_DONTWAIT)
        except OSError:
            pass

    def chain(self, descriptors):
        """The same, all at once."""
        producer = self.index(TX, 0)
        for i, (address, length, *options) in enumerate(descriptors):
            self.entry(TX, producer + i, address, length, *(options or [0]))
        self.index(TX, 0, producer + len(descriptors))
        for _ in range(len(descriptors)):
            self.wake()


def chains(session):
    """A completed chain is read back, so that the ring does not fill up: what becomes of the others is the kernel's to say."""
    frame, end = session.frame_size, session.frame_size * session.frames
    for at in (session.chain, session.transmit):
        at([(i * frame, 1000, 1) for i in range(40)])  # without an end
        at([(0, 1000)])
        at([(0, 1000, 1), (end, 60, 1), (frame, 1000)])  # nowhere, in the middle
        at([(0, 1000, 1), (frame, 0, 1), (2 * frame, 1000)])  # nothing, in the middle
        at([(0, 1000, 1), (frame, 2**32 - 1), (2 * frame, 1000)])
        at([(0, 5, 1), (frame, 1000)])  # half a header
        at([(0, 1000, 1)] * 17 + [(0, 1000)])  # the same frame again and again
        at([(0, frame, 1), (frame, frame, 0xFFFFFFFF), (2 * frame, frame)])  # options that are none
        session.index(COMPLETION, 1, session.index(COMPLETION, 0))
    session.chain([(i * frame, frame, 1) for i in range(15)])  # and one that is never finished


def main():
    directory, name, what, *rest = sys.argv[1:]
    path = f"{directory}/fastpath/{name}"
    session = Session(path)
    if what == "nonsense":
        for data in (b"", b"x", b"x" * 5000, message(99), message(MAPPED), message(READY), message(HELLO)[:-1], bytes(SIZE), message(HELLO, n=65)):
            one = Session(path)
            one.socket.send(data)
            one.socket.close()
        with_fds = Session(path)
        socket.send_fds(with_fds.socket, [message(HELLO)], [0, 1, 2] * 30)
        keep = [Session(path) for _ in range(20)]
        print("done", len(keep), flush=True)
        time.sleep(0.5)
        return
    if what == "resume":
        for fds in ([0], [0] * QUEUES, [session.socket.fileno()]):
            one = Session(path)
            socket.send_fds(one.socket, [message(RESUME, 1, len(fds))], fds)
            one.socket.settimeout(5)
            answer = one.socket.recv(SIZE)  # none where too many descriptors of such kinds are still being closed
            assert not answer or HEAD.unpack_from(answer)[2] == REFUSED
        print("done", flush=True)
        return
    session.grant(17 if what == "chains" else 0)
    if what == "silent":
        print("done", flush=True)
        time.sleep(60)
    session.ready()
    if what == "send":
        for i, frame in enumerate(bytes.fromhex(h) for h in rest):
            session.memory[i * session.frame_size : i * session.frame_size + len(frame)] = frame
            session.transmit([(i * session.frame_size, len(frame))])
    elif what in ("chains", "unasked"):
        chains(session)
    else:
        end = session.frame_size * session.frames
        session.transmit([(end, 60), (2**64 - 1, 60), (0, 2**32 - 1), (session.frame_size - 10, 60), (end - 1, 2), (2**63, 0), (2**48 + 5, 60)])
        for i, address in enumerate((end, 2**64 - 1, end + 2**32, 2**48)):
            session.entry(FILL, session.index(FILL, 0) + i, address)
        session.index(FILL, 0, session.index(FILL, 0) + 4)
        for ring in (RX, TX, FILL, COMPLETION):
            for which in (0, 1):
                session.index(ring, which, session.index(ring, which) + 2**31 + 7)
        for _ in range(3):
            session.transmit([(end, 60)])
    print("done", flush=True)
    time.sleep(60)


main()
