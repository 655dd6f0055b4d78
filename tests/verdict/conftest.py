# SPDX-License-Identifier: Apache-2.0
import ctypes
import logging
import os
import subprocess
import sys

import pytest

logging.getLogger("scapy").setLevel(logging.ERROR)
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

# pylint: disable=wrong-import-position
from overlay import overlay  # noqa: E402
from ports import GENEVE, VXLAN, Plane  # noqa: E402
from world import TC_IN, TC_OUT, XDP, World  # noqa: E402

CLONE_NEWNS, CLONE_NEWNET = 0x20000, 0x40000000


def pytest_configure(config):
    """A network and a mount namespace of our own: lo plays the uplink, and the pins go with us. Workers have one each."""
    config.addinivalue_line("markers", "slow: more than a few seconds; HEDDLE_SLOW=1 runs them")
    worker = getattr(config, "workerinput", None)
    if worker is None and config.getoption("numprocesses", None):
        return  # runs no test itself
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS | CLONE_NEWNET):
        raise pytest.UsageError("the verdict tests need root: " + os.strerror(ctypes.get_errno()))
    # Rates and samples are kept for each CPU: what one test counts has to happen on one
    cpus = sorted(os.sched_getaffinity(0), reverse=True)
    os.sched_setaffinity(0, {cpus[int(worker["workerid"].removeprefix("gw")) % len(cpus) if worker else 0]})
    subprocess.run("mount --make-rprivate / && ip link set lo up", shell=True, check=True)


def pytest_collection_modifyitems(items):
    if os.environ.get("HEDDLE_SLOW"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="long: run with HEDDLE_SLOW=1"))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    world = World(str(tmp_path_factory.mktemp("bpffs")))
    yield world
    world.close()


@pytest.fixture
def world(loaded):  # pylint: disable=redefined-outer-name
    """No flows, no events, default settings; a policy that allows everything."""
    loaded.clear()
    loaded.rules()
    loaded.port()
    return loaded


@pytest.fixture(params=[XDP, TC_IN, TC_OUT], ids=["xdp", "tc-in", "tc-out"])
def hook(request):
    return request.param


@pytest.fixture(params=[XDP, TC_IN], ids=["xdp", "tc-in"])
def ingress_hook(request):
    return request.param


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def family(request):
    return request.param


@pytest.fixture(scope="module")
def switch(loaded):  # pylint: disable=redefined-outer-name
    return Plane(loaded)


@pytest.fixture
def plane(switch, world):  # pylint: disable=redefined-outer-name,unused-argument
    """Ports without records, no networks; `world` has cleared the rest."""
    switch.clear()
    return switch


@pytest.fixture(params=[4, 6], ids=["over4", "over6"])
def under(request):
    """The family of the underlay."""
    return request.param


@pytest.fixture(params=[VXLAN, GENEVE], ids=["vxlan", "geneve"])
def protocol(request):
    return request.param


@pytest.fixture
def net(plane):  # pylint: disable=redefined-outer-name
    return overlay(plane)
