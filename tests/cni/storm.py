# SPDX-License-Identifier: Apache-2.0
"""Many containers, in several threads, while daemon and plugin are killed."""

import json
import random
import subprocess
import threading
import time

from runtime import HEDDLE_CNI, CniError, Container


class Storm:
    """Containers come and go in several threads, as a runtime has them, while somebody kills."""

    pause = 0.2  # seconds that the daemon has at least between two kills
    least = 20  # containers, however long that takes

    def __init__(self, ns, daemon, runtime, count, seconds=None, seed=7):
        self.ns, self.daemon, self.runtime, self.left = ns, daemon, runtime, count
        self.until = time.monotonic() + seconds if seconds else float("inf")
        self.lock, self.random = threading.Lock(), random.Random(seed)
        self.added = self.failed = self.taken = 0
        self.errors = []

    def take(self):
        with self.lock:
            done = self.left <= 0 or (time.monotonic() > self.until and self.taken >= self.least)
            # on a busy machine until there has been one of each
            if done and (self.added and self.failed or self.taken >= 10 * self.least):
                return False
            self.left -= 1
            self.taken += 1
            return True

    # --- what a cluster has besides ---

    def arguments(self, c):  # pylint: disable=unused-argument
        """CNI_ARGS"""
        return None

    def arrive(self, c):
        """Before its first ADD."""

    def depart(self, c):
        """After its last DEL."""

    # --- what a runtime does ---

    def call(self, runtime, command, c, fatal):
        """None: it was killed. Otherwise the answer, or CniError."""
        plugin = runtime.plugins[0]
        env = runtime.environment(command, c, args=self.arguments(c))
        process = self.ns.popen(
            HEDDLE_CNI, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, text=True
        )
        if fatal:
            timer = threading.Timer(self.random.random() * 0.05, process.kill)
            timer.start()
        out, err = process.communicate(json.dumps(runtime.config(plugin)), timeout=60)
        if process.returncode == 0:
            return json.loads(out) if out.strip() else {}
        if process.returncode < 0:
            return None
        raise CniError("heddle-cni", process.returncode, json.loads(out), err)

    def add(self, runtime, c):
        """One that finds no agent is tried again, as kubelet does."""
        for _ in range(5):
            try:
                return self.call(runtime, "ADD", c, self.random.random() < 0.3)
            except CniError as e:
                self.call(runtime, "DEL", c, False)
                if e.code != 11:
                    return None
                time.sleep(0.3)
        return None

    def work(self):
        runtime = self.runtime()
        while self.take():
            c = Container()
            try:
                self.arrive(c)
                answer = self.add(runtime, c)
                self.added += bool(answer)
                self.failed += not answer
                # a runtime calls DEL until it is done, whatever became of the ADD
                for attempt in range(20):
                    try:
                        if self.call(runtime, "DEL", c, attempt == 0 and self.random.random() < 0.3) is not None:
                            break
                    except CniError as e:
                        last = e
                        time.sleep(0.1)
                else:
                    raise last
            except Exception as e:  # pylint: disable=broad-exception-caught
                self.errors.append(e)
            finally:
                self.depart(c)
                c.close()

    def run(self):
        threads = [threading.Thread(target=self.work) for _ in range(4)]
        for t in threads:
            t.start()
        started = 0
        while any(t.is_alive() for t in threads):
            # a busy machine has less of everything: who takes long to start is left alone for longer
            time.sleep(self.pause + self.random.random() + started / 2)
            self.daemon.kill()
            time.sleep(self.random.random() * 0.2)
            started = time.monotonic()
            self.daemon.start(timeout=60)
            started = time.monotonic() - started
        for t in threads:
            t.join()
        assert self.errors == []
