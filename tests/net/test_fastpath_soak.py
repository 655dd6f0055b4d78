# SPDX-License-Identifier: Apache-2.0
"""
Fast paths of all kinds under traffic, while everything about them changes at random: consumers are killed, stopped, and compete; documents, devices and policies
change; the agent is killed. Time and again everything is taken away, and nothing of it may be left. HEDDLE_SOAK=SECONDS says how long (HEDDLE_SLOW=1: two
minutes), HEDDLE_SEED=NUMBER which way it goes. With HEDDLED=build/asan/heddled what the sanitizers find fails it, too.
"""

import collections
import contextlib
import glob
import json
import os
import random
import re
import signal
import socket
import subprocess
import threading
import time

import pytest
from lib import documents as doc
from lib import traffic
from lib.documents import policy
from lib.fixtures import SLOW
from lib.heddled import HEDDLED, wait_for
from lib.netns import Link, Namespace
from test_fastpath import NOBODY, SWITCH_MAC, Consumer, Up, locked
from test_fastpath_ports import ALLOW, BLUE, STREAMS, Plane, Stream, between, isolate, port_documents, streams_of

SECONDS = int(os.environ.get("HEDDLE_SOAK", "120" if SLOW else "0"))
SEED = int(os.environ.get("HEDDLE_SEED", "1"))
ASAN = "asan" in HEDDLED
SWITCH, SWITCH_HOST = "10.77.0.9", "port1"
ROOM_MIB = 4  # that RSS may grow by between two times with nothing there; the sanitizers keep what was freed
LANES = 6  # sockets of workers, at most


class Resting(threading.Thread):
    """A thread that is asked to rest, and says that it does."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.resting, self.rested = threading.Event(), threading.Event()

    def rests(self):
        if self.resting.is_set():
            self.rested.set()
            time.sleep(0.01)
            return True
        return False


class Paced(Resting, Stream):
    def run(self):
        super().run()
        self.rested.set()  # for good, if it has gone wrong

    def turn(self):
        if not self.rests():
            super().turn()
            time.sleep(0.001)


class Asker(Resting):
    """Datagrams to an echo that may not be there; what is answered is what was asked."""

    def __init__(self, ns, address, port):
        super().__init__(daemon=True)
        self.socket = ns.socket(traffic.family_of(address), socket.SOCK_DGRAM)
        self.socket.settimeout(0.05)
        self.to, self.ns = (address, port), ns
        self.asked = self.answered = 0
        self.stop = False

    def run(self):
        while not self.stop:
            if self.rests():
                continue
            with contextlib.suppress(OSError):
                for _ in range(8):
                    self.asked += 1
                    self.socket.sendto(b"%d" % self.asked, self.to)
                while True:
                    number = int(self.socket.recv(100))
                    assert 0 < number <= self.asked
                    self.answered += 1

    def end(self):
        self.stop = True
        self.join(timeout=10)
        self.socket.close()


class Soak(Plane):
    """Two consumers' fast paths, of an uplink and of a port, beside the one of workers. change(): the documents, from what is now in self.spec."""

    def __init__(self):
        self.random = random.Random(SEED)
        self.spec = {"between": {}, "echo": {}, "switch": {}, "deny": 7799}
        self.second = Namespace("second")
        super().__init__(xdp="auto")
        self.daemon.options += ["--log-level", "debug"]
        try:
            self.stack.callback(self.second.delete)
            self.link2 = Link(self.second, "wire1", self.ns, "up1", 2)
            self.second.run("ethtool", "-K", "wire1", "tx", "off")
            self.ns.ip(f"link add sw0 type veth peer name sw1 address {SWITCH_MAC}", "link set sw0 up", "link set sw1 up")
            self.guest = self.add()  # comes and goes
            self.daemon.write("00-host.yaml", doc.document("Host", "host", {
                "pickupSeconds": 0, "uplinks": [{"device": "up0", "xdp": "auto"}, {"device": "up1", "xdp": "auto"}]}))
            self.daemon.restart()
            self.open_directories()
            self.consumers, self.log, self.ids = {}, [], set()
            self.change()
            self.traffic = streams_of(self, Paced)
            self.traffic.append(Asker(self.second, self.link2.b4, 7))
            self.traffic.append(Asker(self.second, self.link2.b6, 7))
            self.traffic.append(Asker(self.ends[SWITCH_HOST].ns, SWITCH, 7))
            self.servers = traffic.Servers(self.ends["port2"].ns, udp=[7700])
            self.stack.callback(self.servers.close)
            self.traffic.append(Asker(self.ends["vm3"].ns, self.ends["port2"].a4, 7700))
            for one in self.traffic:
                one.start()
        except BaseException:
            self.close()
            raise

    open_directories = Up.open_directories

    def documents(self):
        spec = self.spec
        result = [policy(ingress=[doc.rule("deny", "UDP", spec["deny"])], default=ALLOW), BLUE, *port_documents(self)]
        result.append(doc.port("switch", "sw0", "blue", mac=SWITCH_MAC, addresses=[SWITCH]))
        result.append(doc.port("guest", self.guest.device, "blue", mac=self.guest.mac, addresses=["10.77.0.8"]))
        if spec.get("isolated"):
            result.append(isolate("port2", "ingress", {"ports": [{"protocol": "UDP", "port": 7700}, {"protocol": "TCP", "port": 7900, "endPort": 7999}]}))
        if spec["between"] is not None:
            result.append(between(**{"devices": ["up0", "port1", "port2", "vm3", "vm4"], **spec["between"]}))
        if spec["echo"] is not None:
            path = {"uplink": "up1", "match": [{"protocol": "UDP", "port": 7}], "trusted": True, "stall": "1s", **spec["echo"]}
            result.append(doc.document("FastPath", "echo", {"allow": {"users": [NOBODY]}, **path}))
        if spec["switch"] is not None:
            result.append(doc.document("FastPath", "switch", {"allow": {"users": [NOBODY]}, "port": "switch", "stall": "1s", **spec["switch"]}))
        return result

    def change(self):
        self.daemon.put("10-ports.yaml", *self.documents(), timeout=30)

    # --- what happens ---

    def workers(self):
        r = self.random
        devices = r.sample(["port1", "port2", "vm3", "vm4", self.guest.device], r.randrange(2, 6)) + (["up0"] if r.random() < 0.7 else [])
        choice = {"devices": devices, "workers": r.randrange(1, 4), "batch": r.choice([1, 8, 64, 256]), "latency": r.random() < 0.5}
        if r.random() < 0.2:
            choice["spin"] = True
        if r.random() < 0.3:
            choice["match"] = [{"protocol": "UDP"}, {"protocol": "TCP", "port": 7900}]
        self.spec["between"] = None if r.random() < 0.2 else choice
        self.change()

    def sockets_of(self):
        r, name = self.random, self.random.choice(["echo", "switch"])
        choice = {"memory": {"frames": r.choice([256, 1024, 4096])}, "fallback": r.choice(["pass", "drop"])}
        if name == "echo" and r.random() < 0.5:
            choice["trusted"] = r.random() < 0.7
        self.spec[name] = None if r.random() < 0.2 else choice
        self.change()

    def policies(self):
        self.spec["deny"] = 7700 + self.random.randrange(50, 90)
        self.spec["isolated"] = self.random.random() < 0.5
        self.change()

    def consume(self):
        """One more, who may be one too many, or be refused, or is told that it is over."""
        name = self.random.choice(["echo", "switch"])
        self.consumers.setdefault(name, []).append(Consumer(self, self.ns, name, wait=False))

    def kill(self):
        name, number = self.random.choice(["echo", "switch"]), self.random.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        for consumer in self.consumers.pop(name, []):
            consumer.end(number)

    def stall(self):
        name = self.random.choice(["echo", "switch"])
        for consumer in self.consumers.get(name, []):
            if consumer.process.poll() is None:
                consumer.send(signal.SIGSTOP)
        time.sleep(self.random.random() * 3)
        for consumer in self.consumers.get(name, []):
            if consumer.process.poll() is None:
                consumer.send(signal.SIGCONT)

    def garbage(self):
        """Somebody who says nothing that makes sense."""
        for path in glob.glob(os.path.join(self.daemon.run_dir, "fastpath", "*")):
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
                s.settimeout(1)
                s.connect(path)
                fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
                try:
                    socket.send_fds(s, [self.random.randbytes(self.random.randrange(1, 200))], fds)
                finally:
                    for fd in fds:
                        os.close(fd)

    def guest_goes(self):
        self.guest.delete_device()
        time.sleep(self.random.random())
        self.guest.create()

    def link_flaps(self):
        device = self.random.choice(["up1", "sw0", "sw1"])
        self.ns.ip(f"link set {device} down")
        time.sleep(self.random.random() / 2)
        self.ns.ip(f"link set {device} up")

    def flood(self):
        """More than the rings hold, at once."""
        end, to = self.ends[self.random.choice(["port1", "vm4"])], self.ends["port2"]
        with end.ns.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.connect((to.a4, 7701))
            for _ in range(6000):
                with contextlib.suppress(OSError):
                    s.send(b"x" * 18)

    def restart(self):
        """Packets go on, and so do consumers, which the next agent has in its books."""
        process, number = self.daemon.process, self.random.choice([signal.SIGKILL, signal.SIGTERM])
        self.daemon.kill(number)
        assert number == signal.SIGKILL or process.returncode == 0, (process.returncode, self.daemon.log()[-4000:])
        time.sleep(self.random.random())
        self.daemon.start(timeout=60)

    def happen(self, seconds, more=()):
        """At random, for so long."""
        actions = [self.workers] * 3 + [self.sockets_of] * 2 + [self.consume] * 4 + [self.kill] * 3 + [self.policies, self.stall, self.garbage,
                                                                                                   self.guest_goes, self.link_flaps, self.flood, *more]
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            action = self.random.choice(actions)
            self.log.append(action.__name__)
            action()
            time.sleep(self.random.random() * 0.4)
            self.look()

    def look(self):
        assert self.daemon.process.poll() is None, f"the agent has ended: {self.daemon.process.returncode}\n{self.daemon.log()[-4000:]}"
        for one in self.traffic:
            assert getattr(one, "wrong", None) is None, (one.wrong, self.log[-10:])

    # --- and that nothing is left of it ---

    def rest(self, resting):
        for one in self.traffic:
            one.rested.clear()
            (one.resting.set if resting else one.resting.clear)()
        for one in self.traffic:
            assert not resting or one.rested.wait(60), "traffic does not rest"
        self.look()

    def xdp_sockets(self):
        """How many there are in the host's namespace, whoever has them."""
        (line,) = [line.split() for line in self.ns.run("cat", "/proc/net/protocols").stdout.splitlines() if line.startswith("XDP ")]
        return int(line[2])

    def remember(self):
        """The agent's programs, maps and links, by their numbers, which nobody has again."""
        for path in glob.glob(f"/proc/{self.daemon.process.pid}/fdinfo/*"):
            with contextlib.suppress(OSError), open(path, encoding="ascii") as f:
                self.ids.update(re.findall(r"^(prog|map|link)_id:\s*(\d+)", f.read(), re.M))

    def nothing(self):
        """Takes everything away, and says what is left: (descriptors(), KiB of memory)."""
        self.rest(True)
        for name in list(self.consumers):
            for consumer in self.consumers.pop(name):
                consumer.end()
        time.sleep(0.3)  # what is on its way arrives
        spec, said = self.spec, len(self.daemon.log())
        self.spec = {**spec, "between": None, "echo": None, "switch": None}
        self.remember()
        self.change()
        pid = self.daemon.process.pid
        wait_for(lambda: self.daemon.status()["fastPaths"] == [], 15, what="no fast path")
        wait_for(lambda: len(os.listdir(f"/proc/{pid}/task")) == 1, 15, what="the end of the threads")
        wait_for(lambda: self.xdp_sockets() == 0, 15, what="no AF_XDP socket")
        assert locked(pid) == 0
        for table in ("fast_devices", "fast_matches", "fast_forwards"):
            assert self.dump(table) == [], table
        for missing in re.findall(r"the workers have ended, (\d+) of their frames", self.daemon.log()[said:]):
            assert int(missing) <= 2 * LANES, f"{missing} frames of the workers are nowhere"
        self.spec = spec
        with open(f"/proc/{pid}/status", encoding="ascii") as f:
            memory = int(re.search(r"VmRSS:\s+(\d+)", f.read())[1])
        return self.settled(), memory

    def settled(self):
        """descriptors(), once no file is being written, which on a busy disk takes its time. While it answers, the agent does not do that."""
        last = [self.descriptors()]

        def same():
            self.daemon.status()
            last.append(self.descriptors())
            return last[-1] == last[-2] and last[-1]

        return wait_for(same, 10, interval=0.3, what="descriptors that stay")

    def descriptors(self):
        """{what: how many}; of BPF objects by their names."""
        pid, result = self.daemon.process.pid, collections.Counter()
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                what = re.sub(r"\d+", "N", os.readlink(f"/proc/{pid}/fd/{number}"))
                with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii") as f:
                    more = re.search(r"^(prog_tag|map_type|link_type):\s*(\S+)", f.read(), re.M)
                result[what + (f" {more[2]}" if more else "")] += 1
        return result

    def sound(self):
        """As on the first day: every frame of a consumer's memory works, and workers carry what they should."""
        self.spec.update({"between": {}, "echo": {"memory": {"frames": 256}}, "switch": {}, "isolated": False})
        self.change()
        consumer = Consumer(self, self.ns, "echo")
        self.live()
        self.rest(False)
        asker, wanted = self.traffic[len(STREAMS)], self.traffic[len(STREAMS)].answered + 2000
        before = sum(self.sockets("rx").values())
        wait_for(lambda: asker.answered >= wanted, 60, what="answers of the consumer")
        wait_for(lambda: sum(self.sockets("rx").values()) > before + 2000, 60, what="frames of the workers")
        path = next(p for p in self.daemon.status()["fastPaths"] if p["name"] == "echo")
        assert path["sockets"][0]["fillEmpty"] == 0 and path["sockets"][0]["invalid"] == 0, path
        assert consumer.end() == 0

    def gone(self):
        """Of the whole of it, once the agent has been detached."""
        for one in self.traffic:
            one.end()
        self.remember()
        process = self.daemon.process
        self.daemon.kill(signal.SIGTERM)
        assert process.returncode == 0, (process.returncode, self.daemon.log()[-4000:])
        self.daemon.detach()
        assert self.xdp_sockets() == 0
        assert "xdp" not in self.ns.run("ip", "-d", "link", "show").stdout

        def left():
            there = set()
            for kind in ("prog", "map", "link"):
                listed = json.loads(subprocess.run(["bpftool", "-j", kind, "show"], check=True, capture_output=True, text=True).stdout or "[]")
                there |= {(kind, str(one["id"])) for one in listed}
            return sorted(there & self.ids)

        wait_for(lambda: not left(), 30, what=f"nothing of {len(self.ids)} programs, maps and links")


@pytest.mark.skipif(not SECONDS, reason="long: HEDDLE_SOAK=SECONDS, or HEDDLE_SLOW=1, runs it")
def test_soak():
    with Soak() as soak:
        until, lives = time.monotonic() + SECONDS, 0
        try:
            while lives == 0 or time.monotonic() < until:
                before = soak.nothing()
                soak.change()
                soak.rest(False)
                soak.happen(max(15, SECONDS / 6))
                after = soak.nothing()
                # a program is loaded when it is needed, and stays
                before[0].update({what: 1 for what in after[0] if "bpf-prog" in what and what not in before[0]})
                assert after[0] == before[0], f"descriptors: {before[0] - after[0]}, then {after[0] - before[0]}"
                assert ASAN or after[1] - before[1] < ROOM_MIB * 1024, f"KiB of memory: {before[1]}, then {after[1]}"
                print(f"{len(soak.log)} events; descriptors {before[0].total()}, memory {before[1]} to {after[1]} KiB")
                soak.sound()
                # and with an agent that is killed, and begins with what another has left
                soak.happen(max(10, SECONDS / 12), [soak.restart] * 4)
                lives += 1
            soak.nothing()
            soak.gone()
            log = soak.daemon.log()
            found = re.search(r"(ERROR: \w+Sanitizer|runtime error)[^\n]*", log)
            assert not found, log[found.start():found.start() + 4000]
        except BaseException:
            print(f"seed {SEED}, the last events: {soak.log[-20:]}\n--- heddled's log:\n{soak.daemon.log()[-6000:]}")
            raise
