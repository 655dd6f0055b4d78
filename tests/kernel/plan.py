# SPDX-License-Identifier: Apache-2.0
"""What is asked of each kernel, and how docs/kernels.md calls it."""

VERSIONS = ("6.1", "6.12", "running")

FACTS = {
    "release": "kernel",
    "uplink": "hooks of an uplink",
    "uplink-without-XDP": "hooks of an uplink with `xdp: off`",
    "port": "hooks of a port",
    "geneve": "Geneve devices",
    "vlan": "802.1Q devices",
    "openvswitch": "Open vSwitch datapath",
    "fq": "fq (for pacing)",
}

# Groups of tests/net, in the order in which they run: which tests, and what they show. Under emulation a test with two hosts takes some ten seconds, so
# each group is a spread over hooks, families and tunnels; every test of these files runs on the kernel of CI as far as that has the devices.
NET = {
    "geneve-device": (
        "overlay_kernel.py", "geneve and (traffic and (off-over4 or native-over6) or learns or policy or over6 and (same_bytes or inner_tags or checksums))",
        "the kernel's Geneve device as far end",
    ),
    "vlan-device": (
        "vlan_device.py",
        "priorities or network and (inline or native) or segment and (beside or native) or super_packets and inline or trunk_and_access and beside"
        " or customers and inline or uplink_that and (over4-geneve or over6-vxlan)"
        " or trunk-over4-geneve-beside or trunk-over6-vxlan-inline or access-over4-geneve-inline or qinq-over4-geneve-inline",
        "802.1Q and 802.1ad devices as far ends, in tunnels, as uplink",
    ),
    "openvswitch": (
        "overlay_ovs.py", "system and (traffic and (geneve-over4 or vxlan-over6) or mesh or over6 and (super_packets or options))",
        "Open vSwitch with the kernel's datapath as far end, VXLAN and Geneve",
    ),
    "offload": ("offload.py", "same_bytes or begin or ages or cuts", "flows as rules of flower, which the kernel applies in the NIC's place"),
    "offload-drops": (
        "offload_drops.py", "counted and (tcp and l2-ipv4 or udp and l3-ipv6) or program or comes_first or answer", "what policy denies as rules that drop",
    ),
    "offload-outside": (
        "offload_outside.py",
        "frames or learnt or goes or sees and packets and vxlan-over6-l3"
        " or comes_out and geneve-over4-l2",
        "the same for flows to the wire and into tunnels, with the kernel's VXLAN and Geneve in the NIC's place",
    ),
    "fq": ("bandwidth.py", "fq", "an uplink's rate kept by fq"),
    "vxlan-device": ("overlay_kernel.py", "vxlan and (traffic and (off-over4 or native-over6) or over6 and (same_bytes or inner_tags))", "the kernel's VXLAN device as far end"),
    "vlan": ("vlan.py", "not generic and between_hosts and (off-clsact or native-tcx or segments and native) or bulk", "networks on a VLAN, between two hosts with heddle"),
    "switching": ("switch.py", "(tcx and (ipv4 or l2) or clsact and (ipv6 or l3) or not (tcx or clsact)) and not (super_packets and ipv4)", "switching between ports"),
    "policy": ("policy.py", "native and not ipv6 or tcx and not ipv4", "HostPolicy by every hook"),
}

ROWS = {
    "load": "every BPF program loads",
    "boot": "a system booted by systemd, units installed: `tests/kernel/boot`",
    "vfs": "VFs and representors of netdevsim: `tests/kernel/vfs`",
    "igb": "VFs of an igb that QEMU plays, IOMMU groups, AF_XDP: `tests/kernel/igb`",
    "igb-cni": "such VFs into containers and back: `tests/kernel/igb-cni`",
    "igb-xsk": "AF_XDP zero-copy on two igbs, consumers and workers: `tests/kernel/igb-xsk`",
    "verdict": "packet in, verdict out: all of `tests/verdict`",
    **{f"net/{name}": f"{title}: `test_{file}`" for name, (file, _, title) in NET.items()},
}
GUESTS_ALONE = ("boot", "vfs", "igb", "igb-cni", "igb-xsk")
SINCE = {"igb-xsk": (6, 14)}  # igb has it


def concerns(part, version):
    """Whether it is for this version's guests, or for the kernel that runs here."""
    if version == "running":
        return part not in GUESTS_ALONE
    return tuple(map(int, version.split("."))) >= SINCE.get(part, (0,))
