/* SPDX-License-Identifier: Apache-2.0 */
/* The doctor over trees of other machines, written here; and its parsers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <linux/btf.h>
#include <linux/devlink.h>

#include <tools/doctor/doctor.h>
#include <tools/doctor/nic.h>
#include <tools/doctor/parse.h>
#include <tools/heddle/heddle.h>
#include <util/cleanup.h>
#include <util/file.h>
#include <util/genetlink.h>

#include "tree_env.h"

#include <cmocka.h> /* last: its macro fail() hides ours */

/* main.c is not linked in; the completion verb refers to these. */
const struct verb *const verbs[] = {NULL};
const struct cli_option global_options[] = {{NULL, 0, NULL, NULL, NULL}};

/* --- trees --- */

struct tree {
	char root[64];
	json_t *report;
};

static void put(const struct tree *tree, const char *path, const char *text)
{
	tree_put(tree->root, path, text);
}

static void link_to(const struct tree *tree, const char *path, const char *target)
{
	tree_link(tree->root, path, target);
}

#define PCI "sys/devices/pci0000:00/"
/* A PCI device as sysfs shows it: where it is, and the links that lead there. pf: NULL, or whose VF it is. */
static void put_pci(const struct tree *tree, const char *address, const char *driver, const char *group, const char *pf)
{
	char path[PATH_MAX], target[PATH_MAX];

	snprintf(path, sizeof(path), PCI "%s/vendor", address);
	put(tree, path, "0x15b3\n");
	snprintf(path, sizeof(path), PCI "%s/subsystem", address);
	link_to(tree, path, "../../../bus/pci");
	snprintf(path, sizeof(path), PCI "%s/numa_node", address);
	put(tree, path, "0\n");
	if (driver) {
		snprintf(path, sizeof(path), PCI "%s/driver", address);
		snprintf(target, sizeof(target), "../../../bus/pci/drivers/%s", driver);
		link_to(tree, path, target);
	}
	snprintf(path, sizeof(path), "sys/bus/pci/devices/%s", address);
	snprintf(target, sizeof(target), "../../../devices/pci0000:00/%s", address);
	link_to(tree, path, target);
	if (group) {
		snprintf(path, sizeof(path), PCI "%s/iommu_group", address);
		snprintf(target, sizeof(target), "../../../kernel/iommu_groups/%s", group);
		link_to(tree, path, target);
		snprintf(path, sizeof(path), "sys/kernel/iommu_groups/%s/devices/%s", group, address);
		snprintf(target, sizeof(target), "../../../../devices/pci0000:00/%s", address);
		link_to(tree, path, target);
	}
	if (pf) {
		snprintf(path, sizeof(path), PCI "%s/physfn", address);
		snprintf(target, sizeof(target), "../%s", pf);
		link_to(tree, path, target);
	}
}

/* A network device of the PCI device (or of what is below it: "0000:00:03.0/virtio1"). */
static void put_netdev(const struct tree *tree, const char *name, const char *parent, const char *speed)
{
	char path[PATH_MAX], target[PATH_MAX];

	snprintf(path, sizeof(path), PCI "%s/net/%s/mtu", parent, name);
	put(tree, path, "1500\n");
	snprintf(path, sizeof(path), PCI "%s/net/%s/operstate", parent, name);
	put(tree, path, "up\n");
	snprintf(path, sizeof(path), PCI "%s/net/%s/speed", parent, name);
	put(tree, path, speed);
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), PCI "%s/net/%s/queues/rx-%d/rps_cpus", parent, name, i);
		put(tree, path, "0\n");
		snprintf(path, sizeof(path), PCI "%s/net/%s/queues/tx-%d/xps_cpus", parent, name, i);
		put(tree, path, "0\n");
	}
	snprintf(path, sizeof(path), PCI "%s/net/%s/device", parent, name);
	snprintf(target, sizeof(target), "../../../%s", strrchr(parent, '/') ? strrchr(parent, '/') + 1 : parent);
	link_to(tree, path, target);
	snprintf(path, sizeof(path), "sys/class/net/%s", name);
	snprintf(target, sizeof(target), "../../devices/pci0000:00/%s/net/%s", parent, name);
	link_to(tree, path, target);
}

static void put_interrupt(const struct tree *tree, const char *address, unsigned number, const char *cpus)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), PCI "%s/msi_irqs/%u", address, number);
	put(tree, path, "msix\n");
	snprintf(path, sizeof(path), "proc/irq/%u/effective_affinity_list", number);
	put(tree, path, cpus);
}

static void put_host(const struct tree *tree, const char *flags, const char *cmdline, const char *interrupts)
{
	char text[1024];

	put(tree, "proc/sys/kernel/osrelease", "6.1.0-40-amd64\n");
	snprintf(text, sizeof(text), "processor\t: 0\nmodel name\t: A CPU\n%s\n\nprocessor\t: 1\n%s\n", flags, flags);
	put(tree, "proc/cpuinfo", text);
	put(tree, "proc/cmdline", cmdline);
	put(tree, "proc/interrupts", interrupts);
	put(tree, "proc/meminfo", "MemTotal:       65536000 kB\nMemFree: 1 kB\n");
	put(tree, "proc/mounts", "bpf /sys/fs/bpf bpf rw 0 0\n");
	put(tree, "proc/sys/net/core/bpf_jit_enable", "1\n");
	put(tree, "proc/sys/net/core/default_qdisc", "fq\n");
	put(tree, "proc/sys/kernel/unprivileged_bpf_disabled", "2\n");
	put(tree, "sys/devices/system/cpu/online", "0-3\n");
	put(tree, "sys/devices/system/node/node0/cpulist", "0-1\n");
	put(tree, "sys/devices/system/node/node1/cpulist", "2-3\n");
	put(tree, "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "512\n");
	put(tree, "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "500\n");
	put(tree, "boot/config-6.1.0-40-amd64",
		"CONFIG_NET_SCH_FQ=m\nCONFIG_NET_SCH_INGRESS=y\nCONFIG_NET_CLS_BPF=m\n# CONFIG_VFIO_PCI is not set\n");
}

static int setup(void **state)
{
	struct tree *tree = calloc(1, sizeof(*tree));

	assert_non_null(tree);
	tree_make(tree->root, sizeof(tree->root));
	*state = tree;
	return 0;
}

static int teardown(void **state)
{
	struct tree *tree = *state;

	tree_remove(tree->root);
	json_decref(tree->report);
	free(tree);
	return 0;
}

/* --- what is found --- */

static void look(struct tree *tree)
{
	assert_int_equal(doctor_run(tree->root, &tree->report), 0);
	assert_string_equal(json_string_value(json_object_get(tree->report, "sysroot")), tree->root);
	assert_int_equal(json_array_size(json_object_get(tree->report, "unread")), 0);
}

/* subject NULL: that of no subject. NULL: no such finding. */
static const json_t *find(const struct tree *tree, const char *subject, const char *name)
{
	const json_t *item;
	size_t i;

	json_array_foreach (json_object_get(tree->report, "items"), i, item) {
		const char *its = json_string_value(json_object_get(item, "subject"));

		if (strcmp(json_string_value(json_object_get(item, "name")), name) == 0 &&
			(its && subject ? strcmp(its, subject) == 0 : its == subject))
			return item;
	}
	return NULL;
}

static const char *at(const json_t *item, const char *key)
{
	return json_string_value(json_object_get(item, key)) ?: "";
}

static void expect(const struct tree *tree, const char *subject, const char *name, const char *severity, const char *value)
{
	const json_t *item = find(tree, subject, name);

	if (!item)
		fail_msg("nothing said of %s %s", subject ? subject : "", name);
	assert_string_equal(at(item, "value"), value);
	assert_string_equal(at(item, "severity"), severity);
	/* What is wrong says what follows, or what to do. */
	if (strcmp(severity, "warning") == 0)
		assert_true(*at(item, "path") && *at(item, "value"));
}

static unsigned count(const struct tree *tree, const char *severity)
{
	const json_t *item;
	unsigned n = 0;
	size_t i;

	json_array_foreach (json_object_get(tree->report, "items"), i, item)
		n += strcmp(at(item, "severity"), severity) == 0;
	return n;
}

#define X86 "flags\t\t: fpu sse4_2 aes pclmulqdq avx2 avx512f"
#define REMAPPED \
	"           CPU0       CPU1\n  9:   1   2  IR-IO-APIC    9-fasteoi   acpi\n 30:    1 4  IR-PCI-MSI-0000:01:00.0    " \
	"0-edge      mlx5_comp0\n"
#define PLAIN \
	"           CPU0       CPU1\n  9:   1   2  IO-APIC    9-fasteoi   acpi\n 30:    1 4  PCI-MSI 524288-edge      " \
	"eth0\nNMI: 1 2\n"

/* A server with VT-d: a mlx5 in switchdev mode, each VF in a group of its own. */
static void test_intel(void **state)
{
	struct tree *tree = *state;
	char name[64], address[64], group[16];

	put_host(tree, X86, "BOOT_IMAGE=/vmlinuz intel_iommu=on iommu=pt quiet\n", REMAPPED);
	put(tree, "sys/class/iommu/dmar0/intel-iommu/ecap", "f0f0ff\n");
	put(tree, "sys/class/iommu/dmar1/intel-iommu/ecap", "f0f0ff\n");
	put_pci(tree, "0000:01:00.0", "mlx5_core", "20", NULL);
	put(tree, PCI "0000:01:00.0/sriov_totalvfs", "8\n");
	put(tree, PCI "0000:01:00.0/sriov_numvfs", "2\n");
	put_netdev(tree, "eth1", "0000:01:00.0", "100000\n");
	put(tree, PCI "0000:01:00.0/net/eth1/phys_port_name", "p0\n");
	put(tree, "sos_commands/networking/devlink_dev_eswitch_show_pci_0000_01_00.0",
		"pci/0000:01:00.0: mode switchdev inline-mode none encap-mode basic\n");
	put(tree, "sos_commands/networking/ethtool_-k_eth1",
		"Features for eth1:\nrx-checksumming: on\ntx-checksumming: on\n\ttx-checksum-ipv4: off "
		"[fixed]\n\ttx-checksum-ip-generic: on\n"
		"tcp-segmentation-offload: on\n\ttx-tcp-segmentation: on\ngeneric-segmentation-offload: "
		"on\ngeneric-receive-offload: on\n"
		"large-receive-offload: off\nrx-vlan-offload: on\nreceive-hashing: on\ntx-udp_tnl-segmentation: "
		"on\ntx-udp_tnl-csum-segmentation: off\nhw-tc-offload: off\n");
	put(tree, "sos_commands/networking/ethtool_-l_eth1",
		"Channel parameters for eth1:\nPre-set maximums:\nRX:\t\tn/a\nCombined:\t63\nCurrent hardware "
		"settings:\nRX:\t\tn/a\nCombined:\t4\n");
	put_interrupt(tree, "0000:01:00.0", 30, "0\n");
	put_interrupt(tree, "0000:01:00.0", 31, "1\n");
	put_interrupt(tree, "0000:01:00.0", 32, "3\n");
	for (int i = 0; i < 2; i++) {
		snprintf(address, sizeof(address), "0000:01:00.%d", 2 + i);
		snprintf(group, sizeof(group), "%d", 40 + i);
		put_pci(tree, address, i ? "vfio-pci" : "mlx5_core", group, "0000:01:00.0");
		snprintf(name, sizeof(name), "eth1_%d", i);
		put_netdev(tree, name, "0000:01:00.0", "100000\n");
		snprintf(address, sizeof(address), PCI "0000:01:00.0/net/eth1_%d/phys_port_name", i);
		snprintf(group, sizeof(group), "pf0vf%d\n", i);
		put(tree, address, group);
	}
	put_netdev(tree, "eth2", "0000:01:00.2", "100000\n");
	look(tree);

	expect(tree, NULL, "dma remapping", "ok", "Intel VT-d, 2 units: on");
	expect(tree, NULL, "interrupt remapping", "ok", "on");
	expect(tree, NULL, "passthrough", "ok", "the host's devices pass the IOMMU by");
	expect(tree, NULL, "groups", "ok", "3; 2 VFs");
	expect(tree, "eth1", "device", "ok", "a NIC, mlx5_core, 0000:01:00.0, 100 Gbit/s, up");
	expect(tree, "eth1", "queues", "ok", "4 receive (of 63), 2 transmit; RSS");
	expect(tree, "eth1", "interrupts", "note", "3, on 3 CPUs, some on another node");
	expect(tree, "eth1", "segments", "ok", "TSO, GSO, GRO, no LRO");
	expect(tree, "eth1", "checksums", "ok", "receive, send");
	expect(tree, "eth1", "tunnel offload", "ok", "segmentation, no outer checksum");
	expect(tree, "eth1", "vlan offload", "note", "the NIC takes tags off");
	expect(tree, "eth1", "xdp", "ok", "native (by its driver)");
	expect(tree, "eth1", "af_xdp", "ok", "zero-copy");
	expect(tree, "eth1", "sr-iov", "ok", "2 of 8 VFs");
	expect(tree, "eth1", "eswitch", "ok", "switchdev");
	expect(tree, "eth1", "tc offload", "note", "off");
	assert_string_equal(at(find(tree, "eth1", "tc offload"), "change"), "ethtool -K eth1 hw-tc-offload on");
	expect(tree, "eth2", "device", "ok", "a VF of 0000:01:00.0, mlx5_core, 0000:01:00.2, 100 Gbit/s, up");
	expect(tree, NULL, "representors", "ok", "2");
	assert_null(find(tree, "eth1_0", "device"));
	expect(tree, NULL, "AES", "ok", "aes, clmul");
	expect(tree, NULL, "CRC32", "ok", "crc32");
	expect(tree, NULL, "SIMD", "ok", "sse4.2, avx2, avx512");
	expect(tree, NULL, "huge pages", "ok", "512 (500 free) of 2048kB");
	expect(tree, NULL, "numa", "ok", "2 nodes");
	expect(tree, NULL, "fq", "ok", "module");
	expect(tree, NULL, "clsact", "ok", "built in");
	expect(tree, NULL, "vfio-pci", "note", "no");
	expect(tree, NULL, "probes", "unknown", "not asked: another machine's tree");
	assert_int_equal(count(tree, "warning"), 0);
}

/* AMD-Vi without ACS: VFs, the PF and a bridge in one group; no interrupt remapping, and vfio told not to mind. */
static void test_amd(void **state)
{
	struct tree *tree = *state;
	const json_t *item;

	put_host(tree, X86, "root=/dev/sda1 pcie_acs_override=downstream\n", PLAIN);
	put(tree, "sys/class/iommu/ivhd0/amd-iommu/cap", "190b640f\n");
	put(tree, "sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts", "Y\n");
	put(tree, "proc/sys/net/core/bpf_jit_enable", "0\n");
	put_pci(tree, "0000:00:01.0", "pcieport", "5", NULL);
	put_pci(tree, "0000:03:00.0", "i40e", "5", NULL);
	put(tree, PCI "0000:03:00.0/sriov_totalvfs", "64\n");
	put(tree, PCI "0000:03:00.0/sriov_numvfs", "9\n");
	put_netdev(tree, "ens3f0", "0000:03:00.0", "10000\n");
	put(tree, "sos_commands/networking/ethtool_-k_ens3f0",
		"large-receive-offload: on\ngeneric-receive-offload: on\ntx-udp_tnl-segmentation: off\n");
	for (int i = 0; i < 9; i++) {
		char address[32];

		snprintf(address, sizeof(address), "0000:03:02.%d", i);
		put_pci(tree, address, NULL, i < 8 ? "5" : NULL, "0000:03:00.0");
	}
	for (unsigned i = 0; i < 4; i++)
		put_interrupt(tree, "0000:03:00.0", 40 + i, "2\n");
	look(tree);

	expect(tree, NULL, "dma remapping", "ok", "AMD-Vi, 1 unit: on");
	expect(tree, NULL, "interrupt remapping", "warning", "off");
	expect(tree, NULL, "vfio unsafe interrupts", "warning", "allowed");
	expect(tree, NULL, "acs override", "warning", "pcie_acs_override is set");
	expect(tree, "group 5", "not isolated", "warning",
		"VFs 0000:03:02.0, 0000:03:02.1, 0000:03:02.2, 0000:03:02.3, 0000:03:02.4, 0000:03:02.5 and 2 more share it with "
		"each other and with "
		"0000:00:01.0, 0000:03:00.0");
	item = json_object_get(find(tree, "group 5", "not isolated"), "details");
	assert_int_equal(json_array_size(json_object_get(item, "vfs")), 8);
	assert_int_equal(json_array_size(json_object_get(item, "others")), 2);
	expect(tree, NULL, "not confined", "warning", "0000:03:02.8");
	expect(tree, "ens3f0", "segments", "warning", "GRO, LRO");
	expect(tree, "ens3f0", "xdp", "note", "native (by its driver)");
	expect(tree, "ens3f0", "interrupts", "warning", "4, on 1 CPU, some on another node");
	expect(tree, "ens3f0", "eswitch", "ok", "legacy: its driver has no other mode");
	expect(tree, "ens3f0", "tunnel offload", "note", "no segmentation");
	expect(tree, NULL, "net.core.bpf_jit_enable", "warning", "0");
}

/* Arm with SMMU and an ITS: ice in legacy mode, one VF in a group of its own, two that share one. */
static void test_arm(void **state)
{
	struct tree *tree = *state;

	put_host(tree, "Features\t: fp asimd aes pmull crc32 sve\nCPU part\t: 0xd49", "console=ttyAMA0\n",
		"  CPU0 CPU1\n 12: 5 6 GICv3 27 Level arch_timer\n 55: 1 0 ITS-PCI-MSI-0000:81:00.0 1 Edge ice-eth0-TxRx-0\n");
	put(tree, "sys/class/iommu/smmu3.0x000000002b400000/devices", "");
	put_pci(tree, "0000:81:00.0", "ice", "1", NULL);
	put(tree, PCI "0000:81:00.0/sriov_totalvfs", "128\n");
	put(tree, PCI "0000:81:00.0/sriov_numvfs", "3\n");
	put_netdev(tree, "eth0", "0000:81:00.0", "25000\n");
	put(tree, "sos_commands/networking/devlink_dev_eswitch_show_pci_0000_81_00.0", "pci/0000:81:00.0: mode legacy\n");
	put_pci(tree, "0000:81:01.0", "iavf", "2", "0000:81:00.0");
	put_pci(tree, "0000:81:01.1", "iavf", "3", "0000:81:00.0");
	put_pci(tree, "0000:81:01.2", "iavf", "3", "0000:81:00.0");
	look(tree);

	expect(tree, NULL, "dma remapping", "ok", "Arm SMMU, 1 unit: on");
	expect(tree, NULL, "interrupt remapping", "ok", "on, by the GIC's ITS");
	assert_null(find(tree, "group 1", "not isolated"));
	assert_null(find(tree, "group 2", "not isolated"));
	expect(tree, "group 3", "not isolated", "warning", "VFs 0000:81:01.1, 0000:81:01.2 share it with each other");
	expect(tree, "eth0", "eswitch", "note", "legacy");
	assert_string_equal(at(find(tree, "eth0", "eswitch"), "change"),
		"devlink dev eswitch set pci/0000:81:00.0 mode switchdev, before the VFs are used");
	expect(tree, NULL, "AES", "ok", "aes, clmul");
	expect(tree, NULL, "SIMD", "ok", "neon, sve");
	expect(tree, NULL, "model", "ok", "A CPU, 4 CPUs");
}

/* A virtual machine: virtio-net behind its virtio device, a TAP for a nested one, no IOMMU. */
static void test_virtio(void **state)
{
	struct tree *tree = *state;

	put_host(tree, X86 " hypervisor", "console=ttyS0\n", PLAIN);
	put_pci(tree, "0000:00:03.0", "virtio-pci", NULL, NULL);
	link_to(tree, PCI "0000:00:03.0/virtio1/driver", "../../../../bus/virtio/drivers/virtio_net");
	link_to(tree, PCI "0000:00:03.0/virtio1/subsystem", "../../../../bus/virtio");
	put_netdev(tree, "eth0", "0000:00:03.0/virtio1", "-1\n");
	put_interrupt(tree, "0000:00:03.0", 30, "0\n");
	put_interrupt(tree, "0000:00:03.0", 31, "0\n");
	put_interrupt(tree, "0000:00:03.0", 32, "0\n");
	put(tree, "sys/class/net/tap0/tun_flags", "0x5102\n");
	put(tree, "sys/class/net/tap1/tun_flags", "0x1002\n");
	put(tree, "sys/class/net/tun0/tun_flags", "0x1001\n");
	put(tree, "sys/class/net/lo/mtu", "65536\n");
	look(tree);

	expect(tree, NULL, "dma remapping", "ok", "none: a virtual machine");
	assert_null(find(tree, NULL, "interrupt remapping"));
	expect(tree, "eth0", "device", "ok", "a virtual machine's NIC, virtio_net, virtio1, up");
	expect(tree, "eth0", "interrupts", "warning", "3, on 1 CPU");
	expect(tree, "tap0", "device", "ok", "a TAP device, several queues");
	expect(tree, "tap1", "device", "note", "a TAP device, one queue");
	expect(tree, "tun0", "device", "ok", "a TUN device");
	assert_null(find(tree, "lo", "device"));
	assert_null(find(tree, "eth0", "sr-iov"));
}

static void test_vmxnet3(void **state)
{
	struct tree *tree = *state;

	put_host(tree, X86 " hypervisor", "\n", PLAIN);
	put_pci(tree, "0000:0b:00.0", "vmxnet3", NULL, NULL);
	put_netdev(tree, "ens192", "0000:0b:00.0", "10000\n");
	/* A VF that was passed through to this machine, which can give it no further. */
	put_pci(tree, "0000:0c:00.0", "ixgbevf", NULL, NULL);
	put_netdev(tree, "ens224", "0000:0c:00.0", "10000\n");
	look(tree);

	expect(tree, "ens192", "device", "ok", "a virtual machine's NIC, vmxnet3, 0000:0b:00.0, 10 Gbit/s, up");
	expect(tree, "ens192", "xdp", "ok", "native (by its driver); native XDP from kernel 6.6 on");
	expect(tree, "ens192", "af_xdp", "ok", "copy, native");
	expect(tree, "ens192", "segments", "unknown", "not told");
	expect(tree, "ens224", "xdp", "ok", "native (by its driver)");
}

/* VT-d that the firmware describes and nobody turned on, with VFs. */
static void test_off(void **state)
{
	struct tree *tree = *state;

	put_host(tree, X86, "quiet intel_iommu=off\n", PLAIN);
	put(tree, "sys/firmware/acpi/tables/DMAR", "DMAR");
	put_pci(tree, "0000:01:00.0", "ixgbe", NULL, NULL);
	put(tree, PCI "0000:01:00.0/sriov_totalvfs", "63\n");
	put(tree, PCI "0000:01:00.0/sriov_numvfs", "1\n");
	put_netdev(tree, "eth0", "0000:01:00.0", "10000\n");
	put_pci(tree, "0000:01:10.0", "ixgbevf", NULL, "0000:01:00.0");
	look(tree);
	expect(tree, NULL, "dma remapping", "warning", "Intel VT-d: there, but off (kernel's command line)");
	expect(tree, "eth0", "sr-iov", "warning", "1 of 63 VFs");
}

/* Nothing at all, and what is no tree. */
static void test_empty(void **state)
{
	struct tree *tree = *state;
	json_t *report = NULL;

	look(tree);
	expect(tree, NULL, "release", "unknown", "not told");
	expect(tree, NULL, "devices", "note", "none: no device of a bus, and no TAP, in this namespace");
	assert_int_equal(count(tree, "warning"), 0);
	assert_int_equal(doctor_run("/nowhere/at/all", &report), -ENOENT);
	assert_null(report);
}

/* What others wrote into a tree: no UTF-8, no numbers, no end. */
static void test_rubbish(void **state)
{
	struct tree *tree = *state;

	put_host(tree, X86, "iommu=\xff\xfe pcie_acs_override\n", "\xff: \n 5:\n:\n");
	put(tree, "proc/sys/net/core/default_qdisc", "\xff\xff\n");
	put(tree, "sys/class/iommu/\xc3(/x", "");
	put_pci(tree, "0000:01:00.0", "dri\xffver", "1", NULL);
	put(tree, PCI "0000:01:00.0/sriov_totalvfs", "99999999999999999999\n");
	put_netdev(tree, "eth0", "0000:01:00.0", "fast\n");
	put(tree, PCI "0000:01:00.0/net/eth0/mtu", "\n");
	put_interrupt(tree, "0000:01:00.0", 7, "0-99999999,x\n");
	put(tree, "sos_commands/networking/ethtool_-l_eth0", "Combined:\nCombined: -4\n");
	put(tree, "sys/kernel/btf/vmlinux", "\x9f\xeb\x01");
	look(tree);
	assert_non_null(find(tree, "eth0", "device"));
	expect(tree, NULL, "acs override", "warning", "pcie_acs_override is set");
}

/* This machine, as whoever runs this: nothing is warned of that could not be asked. */
static void test_live(void **state)
{
	struct tree *tree = *state;

	assert_int_equal(doctor_run(NULL, &tree->report), 0);
	assert_true(json_is_null(json_object_get(tree->report, "sysroot")));
	assert_non_null(find(tree, NULL, "release"));
	assert_non_null(find(tree, NULL, "xdp"));
}

/* --- parsers --- */

static void add_up(unsigned n, void *userdata)
{
	*(unsigned *)userdata += n;
}

static void test_lists(void **state)
{
	unsigned sum = 0;

	(void)state;
	assert_int_equal(parse_list("0-3,8\n", 64, add_up, &sum), 5);
	assert_int_equal(sum, 14);
	assert_int_equal(parse_list("", 64, NULL, NULL), 0);
	assert_int_equal(parse_list(NULL, 64, NULL, NULL), -1);
	assert_int_equal(parse_list("3-1", 64, NULL, NULL), -1);
	assert_int_equal(parse_list("64", 64, NULL, NULL), -1);
	assert_int_equal(parse_list("1-", 64, NULL, NULL), -1);
	assert_int_equal(parse_list("1;2", 64, NULL, NULL), -1);
	assert_int_equal(parse_list("99999999999999999999999", 64, NULL, NULL), -1);
}

static void test_texts(void **state)
{
	char value[32];

	(void)state;
	assert_string_equal(parse_argument("a iommu=on b iommu=pt\n", "iommu", value, sizeof(value)), "pt");
	assert_null(parse_argument("xiommu=on iommux", "iommu", value, sizeof(value)));
	assert_string_equal(parse_argument("nointremap", "nointremap", value, sizeof(value)), "");
	assert_int_equal(parse_option("CONFIG_A=m\nCONFIG_AB=y\n", "CONFIG_AB"), 'y');
	assert_int_equal(parse_option("# CONFIG_A is not set\n", "CONFIG_A"), 'n');
	assert_false(parse_cpu_flag("flags : aesx vaes\n", "aes"));
	assert_true(parse_interrupt_chip(REMAPPED, "IR-"));
	assert_false(parse_interrupt_chip(PLAIN, "IR-"));
	assert_int_equal(parse_feature("a: on\nb: off [fixed]\n", "b"), 0);
	assert_int_equal(parse_feature("a: on\n", "c"), -1);
}

/* Two functions behind a struct of one member. */
static uint32_t parse_btf_function(const void *data, size_t length, const char *name)
{
	uint32_t id;

	parse_btf_functions(data, length, NULL, &name, &id, 1, NULL);
	return id;
}

static void test_btf(void **state)
{
	static const char strings[] = "\0bpf_one\0bpf_two\0s";
	struct {
		struct btf_header header;
		struct btf_type structure;
		struct btf_member member;
		struct btf_type one, two;
		char strings[sizeof(strings)];
	} btf = {
		.header = {.magic = BTF_MAGIC,
			.version = 1,
			.hdr_len = sizeof(struct btf_header),
			.type_len = 3 * sizeof(struct btf_type) + sizeof(struct btf_member),
			.str_off = 3 * sizeof(struct btf_type) + sizeof(struct btf_member),
			.str_len = sizeof(strings)},
		.structure = {.name_off = 17, .info = BTF_KIND_STRUCT << 24 | 1},
		.one = {.name_off = 1, .info = BTF_KIND_FUNC << 24},
		.two = {.name_off = 9, .info = BTF_KIND_FUNC << 24},
	};
	size_t size = offsetof(__typeof__(btf), strings) + sizeof(strings);

	(void)state;
	memcpy(btf.strings, strings, sizeof(strings));
	assert_int_equal(parse_btf_function(&btf, size, "bpf_one"), 2);
	assert_int_equal(parse_btf_function(&btf, size, "bpf_two"), 3);
	assert_int_equal(parse_btf_function(&btf, size, "bpf_three"), 0);
	/* Cut short it is none. */
	for (size_t cut = 0; cut < size; cut++) {
		_cleanup_free_ uint8_t *copy = malloc(cut ?: 1);

		memcpy(copy, &btf, cut);
		assert_int_equal(parse_btf_function(copy, cut, "bpf_two"), 0);
	}
}

/* --- functions of modules --- */

/* BTF of functions with these names, ended by NULL. strings_before: length of the strings of the kernel's, where it is a module's. */
static size_t make_btf(uint8_t *ret, size_t size, uint32_t strings_before, const char *const *names, uint32_t *ret_strings)
{
	struct btf_header header = {.magic = BTF_MAGIC, .version = 1, .hdr_len = sizeof(header)};
	char strings[512] = "";
	uint32_t length = strings_before ? 0 : 1;
	size_t n = 0;

	for (; names[n]; n++) {
		struct btf_type function = {.name_off = strings_before + length, .info = BTF_KIND_FUNC << 24};

		assert_true(length + strlen(names[n]) < sizeof(strings));
		memcpy(strings + length, names[n], strlen(names[n]) + 1);
		length += (uint32_t)strlen(names[n]) + 1;
		memcpy(ret + sizeof(header) + n * sizeof(function), &function, sizeof(function));
	}
	header.type_len = header.str_off = (uint32_t)(n * sizeof(struct btf_type));
	header.str_len = length;
	assert_true(sizeof(header) + header.type_len + length <= size);
	memcpy(ret, &header, sizeof(header));
	memcpy(ret + sizeof(header) + header.type_len, strings, length);
	if (ret_strings)
		*ret_strings = length;
	return sizeof(header) + header.type_len + length;
}

static const char *const kernel_functions[] = {"bpf_dynptr_from_skb", "schedule", "bpf_ct_set_nat_info", NULL};
static const char *const module_functions[] = {"nf_conntrack_init", "bpf_skb_ct_lookup", "bpf_xdp_ct_lookup", NULL};

static void test_module_btf(void **state)
{
	static const char *const wanted[] = {"bpf_xdp_ct_lookup", "bpf_ct_set_nat_info", "bpf_dynptr_from_skb"};
	uint8_t kernel[1024], module[1024];
	struct parse_btf base = {0};
	uint32_t ids[3], strings;
	size_t kernel_length = make_btf(kernel, sizeof(kernel), 0, kernel_functions, &strings);
	size_t length = make_btf(module, sizeof(module), strings, module_functions, NULL);

	(void)state;
	assert_true(parse_btf_functions(kernel, kernel_length, NULL, wanted, ids, 3, &base));
	assert_true(base.n_types == 3 && base.n_strings == strings);
	assert_true(ids[0] == 0 && ids[1] == 3 && ids[2] == 1);
	/* Numbered on. */
	assert_true(parse_btf_functions(module, length, &base, wanted, ids, 3, NULL));
	assert_true(ids[0] == 6 && !ids[1] && !ids[2]);
	/* A name that the kernel has too is there only. */
	((struct btf_type *)(module + sizeof(struct btf_header)))->name_off = 30;
	assert_string_equal(base.strings + 30, "bpf_ct_set_nat_info");
	assert_true(parse_btf_functions(module, length, &base, wanted, ids, 3, NULL));
	assert_true(ids[0] == 6 && ids[1] == 4);
	for (size_t cut = 0; cut < length; cut++) {
		_cleanup_free_ uint8_t *copy = malloc(cut ?: 1);

		memcpy(copy, module, cut);
		assert_false(parse_btf_functions(copy, cut, &base, wanted, ids, 3, NULL));
	}
}

/* What modules have, and why others have not. */
static void test_kfuncs(void **state)
{
	static const char *const nat_functions[] = {"bpf_ct_set_nat_info", NULL};
	static const char *const plain[] = {"bpf_dynptr_from_skb", "bpf_xdp_metadata_rx_hash", NULL};
	struct tree *tree = *state;
	uint8_t btf[1024];
	uint32_t strings;
	const json_t *item;
	size_t length;

	put_host(tree, X86, "\n", PLAIN);
	put(tree, "boot/config-6.1.0-40-amd64",
		"CONFIG_NF_CONNTRACK=m\nCONFIG_NF_NAT=m\nCONFIG_XFRM_INTERFACE=m\nCONFIG_NET_FOU=m\n");
	length = make_btf(btf, sizeof(btf), 0, plain, &strings);
	tree_put_bytes(tree->root, "sys/kernel/btf/vmlinux", btf, length);
	length = make_btf(btf, sizeof(btf), strings, module_functions, NULL);
	tree_put_bytes(tree->root, "sys/kernel/btf/nf_conntrack", btf, length);
	put(tree, "sys/module/nf_conntrack/refcnt", "1\n");
	length = make_btf(btf, sizeof(btf), strings, nat_functions, NULL);
	tree_put_bytes(tree->root, "sys/kernel/btf/nf_nat", btf, length);
	put(tree, "sys/module/nf_nat/refcnt", "1\n");
	put(tree, "sys/kernel/btf/xfrm_interface", "\x9f\xeb\x01 rubbish");
	put(tree, "sys/module/xfrm_interface/refcnt", "0\n");
	look(tree);
	expect(tree, NULL, "kfuncs", "ok", "1 of 5 looked for");
	expect(tree, NULL, "conntrack kfuncs", "ok", "3 of 4 looked for, in nf_conntrack, nf_nat");
	item = json_object_get(find(tree, NULL, "conntrack kfuncs"), "details");
	assert_true(json_is_true(json_object_get(item, "bpf_ct_set_nat_info")));
	assert_true(json_is_false(json_object_get(item, "bpf_skb_ct_alloc")));
	expect(tree, NULL, "flowtable kfuncs", "ok", "0 of 1 looked for; no module nf_flow_table");
	expect(tree, NULL, "fou kfuncs", "ok", "0 of 1 looked for; module fou is not loaded");
	expect(tree, NULL, "xfrm kfuncs", "ok", "0 of 3 looked for");
	expect(tree, NULL, "xdp metadata kfuncs", "ok", "1 of 3 looked for");
}

/* Of which the kernel's own cannot be read, nothing is known of its modules either. */
static void test_kfuncs_unreadable(void **state)
{
	struct tree *tree = *state;
	uint8_t btf[1024];
	uint32_t strings;
	size_t length = make_btf(btf, sizeof(btf), 0, kernel_functions, &strings);

	put_host(tree, X86, "\n", PLAIN);
	/* A kind that is not known yet: nothing behind it can be found. */
	((struct btf_type *)(btf + sizeof(struct btf_header)))[1].info = 30u << 24;
	tree_put_bytes(tree->root, "sys/kernel/btf/vmlinux", btf, length);
	length = make_btf(btf, sizeof(btf), strings, module_functions, NULL);
	tree_put_bytes(tree->root, "sys/kernel/btf/nf_conntrack", btf, length);
	look(tree);
	expect(tree, NULL, "kfuncs", "ok", "1 of 5 looked for");
	assert_true(json_is_false(
		json_object_get(json_object_get(find(tree, NULL, "conntrack kfuncs"), "details"), "bpf_skb_ct_lookup")));
}

static void test_answers(void **state)
{
	_Alignas(struct nlmsghdr) uint8_t buffer[256] = {0};
	struct nlmsghdr *header = mnl_nlmsg_put_header(buffer);
	struct genetlink_family family;
	struct xdp_features xdp = {0};

	(void)state;
	header->nlmsg_type = 0x20;
	mnl_nlmsg_put_extra_header(header, sizeof(struct genlmsghdr));
	mnl_attr_put_u32(header, 1, 7);
	mnl_attr_put_u64(header, 3, XDP_BASIC | XDP_ZERO_COPY);
	mnl_attr_put_u16(header, DEVLINK_ATTR_ESWITCH_MODE, DEVLINK_ESWITCH_MODE_SWITCHDEV);
	assert_true(xdp_features_parse(header, header->nlmsg_len, &xdp));
	assert_int_equal(xdp.ifindex, 7);
	assert_int_equal(xdp.features, XDP_BASIC | XDP_ZERO_COPY);
	assert_false(xdp.metadata_told);
	assert_int_equal(nic_parse_eswitch(buffer, header->nlmsg_len), ESWITCH_SWITCHDEV);
	for (size_t cut = 0; cut < header->nlmsg_len; cut++) {
		_cleanup_free_ uint8_t *copy = malloc(cut ?: 1);

		memcpy(copy, buffer, cut);
		assert_false(xdp_features_parse((struct nlmsghdr *)copy, cut, &xdp));
		assert_int_equal(nic_parse_eswitch(copy, cut), -1);
		assert_false(genetlink_parse_family((struct nlmsghdr *)copy, cut, NULL, &family));
	}
	/* From 6.8 on. */
	mnl_attr_put_u64(header, 5, METADATA_HASH | METADATA_VLAN);
	assert_true(xdp_features_parse(header, header->nlmsg_len, &xdp));
	assert_true(xdp.metadata_told && xdp.metadata == (METADATA_HASH | METADATA_VLAN));
	assert_int_equal(xdp.zero_copy_pieces, 0);
	mnl_attr_put_u32(header, 4, 8);
	assert_true(xdp_features_parse(header, header->nlmsg_len, &xdp));
	assert_int_equal(xdp.zero_copy_pieces, 8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_intel, setup, teardown),
		cmocka_unit_test_setup_teardown(test_amd, setup, teardown),
		cmocka_unit_test_setup_teardown(test_arm, setup, teardown),
		cmocka_unit_test_setup_teardown(test_virtio, setup, teardown),
		cmocka_unit_test_setup_teardown(test_vmxnet3, setup, teardown),
		cmocka_unit_test_setup_teardown(test_off, setup, teardown),
		cmocka_unit_test_setup_teardown(test_empty, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rubbish, setup, teardown),
		cmocka_unit_test_setup_teardown(test_live, setup, teardown),
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_texts),
		cmocka_unit_test(test_btf),
		cmocka_unit_test(test_module_btf),
		cmocka_unit_test_setup_teardown(test_kfuncs, setup, teardown),
		cmocka_unit_test_setup_teardown(test_kfuncs_unreadable, setup, teardown),
		cmocka_unit_test(test_answers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
