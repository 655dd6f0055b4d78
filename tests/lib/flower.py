# SPDX-License-Identifier: Apache-2.0
"""Rules of flower where no NIC is at hand: with HEDDLE_OFFLOAD=skip_hw the kernel itself applies them, ahead of our programs, whose part they take over."""

import functools
import re

from .netns import Namespace

# The first priorities belong to rules: ours takes the next one, as no rule of a NIC needs it to.
SOFTWARE = {"HEDDLE_OFFLOAD": "skip_hw:1"}
RESERVED = (("ip", 1), ("ipv6", 2), ("802.1q", 3))
COOKIE = "686564646c65"


def reserve(ns, device):
    """clsact with a filter of flower in each of the priorities, which matches nothing; False: the kernel has no flower."""
    ns.run("tc", "qdisc", "add", "dev", device, "clsact")
    for protocol, priority in RESERVED:
        words = f"filter add dev {device} ingress protocol {protocol} prio {priority} flower skip_hw src_mac 02:ff:ff:ff:ff:ff action pass"
        if ns.run("tc", *words.split(), check=False).returncode:
            return False
    return True


@functools.lru_cache
def has_flower():
    ns = Namespace("probe")
    try:
        ns.ip("link add wire0 type veth peer name wire1")
        return reserve(ns, "wire0")
    finally:
        ns.delete()


def rules(ns, *devices):
    """What is ours on the devices, by the cookie: as tc tells it, with what it has counted."""
    found = []
    for device in devices:
        shown = ns.run("tc", "-s", "filter", "show", "dev", device, "ingress", check=False).stdout
        found += [part for part in shown.split("filter protocol") if f"cookie {COOKIE}" in part]
    return found


def counted(rule):
    """Packets, by the last action of it."""
    return int(re.findall(r"Sent \d+ bytes (\d+) pkt", rule)[-1])
