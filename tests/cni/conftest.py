# SPDX-License-Identifier: Apache-2.0
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.fixtures import _clean_machine, pytest_collection_modifyitems, pytest_configure  # noqa: E402,F401
from lib import documents as doc  # noqa: E402
from lib.heddled import wait_for  # noqa: E402
from lib.ports import PortHost  # noqa: E402
from runtime import DEBIAN_CNI, Container, Runtime  # noqa: E402

BLUE = doc.network("blue", mode="l3", subnets=["10.77.0.0/24", "fd77::/64"], gateway=["10.77.0.254", "fd77::fe"])
GREEN = doc.network("green", mode="l2", subnets=["10.78.0.0/24", "fd78::/64"], gateway=["10.78.0.254", "fd78::fe"])


class CniHost(PortHost):
    """A host with heddled, networks blue (l3) and green (l2), and containers."""

    def __init__(self, docs=(BLUE, GREEN), **options):
        super().__init__(docs=docs, **options)

    def runtime(self, **options):
        return Runtime(self.ns, self.daemon.socket, **options)

    def container(self, name=None):
        made = Container(name)
        self.stack.callback(made.close)
        return made

    def added(self, runtime, count=1, **config):
        made = [self.container() for _ in range(count)]
        for c in made:
            runtime.add(c, **config)
        return made[0] if count == 1 else made

    def devices(self):
        """Our ends of containers' interfaces."""
        return sorted(d["ifname"] for d in self.ip_json("link") if d["ifname"].startswith("hd"))

    def ip_json(self, *words):
        import json

        return json.loads(self.ns.run("ip", "-j", *words).stdout or "[]")

    def attachments(self):
        return self.daemon.api.get("/v1/cni/attachments")["items"]

    def wait_devices(self, count):
        return wait_for(lambda: len(self.devices()) == count, what=f"{count} devices")


@pytest.fixture(scope="module")
def shared():
    with CniHost() as h:
        yield h


@pytest.fixture
def host(shared):
    """The shared host; what a test leaves attached goes."""
    if shared.daemon.process is None:
        shared.daemon.start()
    yield shared
    for runtime in (shared.runtime(version="1.1.0", name=n) for n in {a["name"] for a in shared.attachments()} | {"podnet"}):
        runtime.collect()


@pytest.fixture
def fresh():
    with CniHost() as h:
        yield h


needs_debian = pytest.mark.skipif(
    not os.access(os.path.join(DEBIAN_CNI, "host-local"), os.X_OK), reason="needs Debian's containernetworking-plugins"
)
