# SPDX-License-Identifier: Apache-2.0
"""What the conftest files of tests/net and tests/differential share."""

import os

import pytest

from . import documents as doc
from . import heddled, netns

SLOW = os.environ.get("HEDDLE_SLOW") == "1"

# The ways a packet can be judged. clsact is forced, since a kernel with TCX never needs it.
BACKENDS = {
    "native": {"xdp": "native", "env": {}},
    "generic": {"xdp": "generic", "env": {}},
    "tcx": {"xdp": "off", "env": {}},
    "clsact": {"xdp": "off", "env": {"HEDDLE_TC": "clsact"}},
}


def needs_device(kind):
    """A mark for tests of which the far end is a device that not every kernel has; tests/kernel runs them where it is."""
    return pytest.mark.skipif(not netns.has_device(kind), reason=f"this kernel has no {kind} devices")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: long variant; runs with HEDDLE_SLOW=1")


def pytest_collection_modifyitems(config, items):
    if SLOW:
        return
    skip = pytest.mark.skip(reason="long variant: set HEDDLE_SLOW=1")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def _clean_machine():
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces and BPF")
    for binary in (heddled.HEDDLED, heddled.HEDDLE):
        if not os.access(binary, os.X_OK):
            pytest.fail(f"{binary} is not built")
    heddled.sweep_dead_runs()
    yield


class Guarded:
    """A client and a guarded server, one daemon; policy() swaps the policy in force."""

    def __init__(self, backend, topology=netns.Pair, docs=None, host_spec=None, start=True, config_docs=(), **topology_args):
        self.backend = backend
        self.net = topology(**topology_args)
        self.guarded_ns = getattr(self.net, "server", None) or self.net.router
        spec = {"pickupSeconds": 0, **(host_spec or {})}
        self.host_document = doc.host(self.net.uplink, BACKENDS[backend]["xdp"], **spec)
        self.daemon = None
        try:
            self.daemon = heddled.Heddled(self.guarded_ns, [self.host_document, *config_docs], env=BACKENDS[backend]["env"])
            if start:
                self.daemon.start()
            if docs:
                self.policy(*docs)
        except BaseException:
            self.close()
            raise

    def __getattr__(self, name):
        # client, server, client4, server6 … read better without the `.net`
        return getattr(self.net, name)

    def policy(self, *docs):
        self.daemon.set_objects(*docs)

    def close(self):
        if self.daemon:
            self.daemon.remove()
        self.net.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


@pytest.fixture(scope="module", params=list(BACKENDS))
def shared(request):
    """One guarded host a module and backend, for tests that only swap policies. Tests use ports of their own."""
    with Guarded(request.param) as g:
        yield g


@pytest.fixture
def guarded(shared, request):
    """The shared host with no policy object; when a test fails, the daemon's log goes into the report."""
    shared.policy()
    shared.failed = False
    yield shared
    if getattr(request.node, "failed", False):
        print("--- heddled's log:\n" + shared.daemon.log()[-4000:])


@pytest.fixture(params=["native", "tcx"])
def main_backend(request):
    """For tests that need a host of their own: XDP and TC alone, the two that differ most."""
    return request.param


def _maker(backend):
    hosts = []

    def make(**kwargs):
        g = Guarded(backend, **kwargs)
        hosts.append(g)
        return g

    yield make
    for g in hosts:
        g.close()


@pytest.fixture
def fresh(main_backend):
    """Makes guarded hosts of the test's own."""
    yield from _maker(main_backend)


@pytest.fixture
def plain():
    """The same where the backend makes no difference."""
    yield from _maker("tcx")


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def family(request):
    return request.param
