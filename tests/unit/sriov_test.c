/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is whose in SR-IOV, over trees of /sys and messages of devlink and rtnetlink as mlx5, ice, bnxt and netdevsim make them. The messages are
 * written here, attribute by attribute, since no device of the kind is at hand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <linux/devlink.h>
#include <linux/genetlink.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>

#include <cmocka.h>
#include <libmnl/libmnl.h>

#include <netdev/sriov.h>
#include <util/cleanup.h>
#include <util/file.h>

#include "tree_env.h"

/* --- a machine --- */

#define DEVICES_MAX 32
struct machine {
	char root[64];
	struct netdev devices[DEVICES_MAX];
	size_t n;
	struct devlink devlink;
	struct sriov table;
};

static int setup(void **state)
{
	struct machine *m = calloc(1, sizeof(*m));

	assert_non_null(m);
	tree_make(m->root, sizeof(m->root));
	*state = m;
	return 0;
}

static void clear(struct machine *m)
{
	tree_remove(m->root);
	assert_int_equal(mkdir(m->root, 0700), 0);
}

static int teardown(void **state)
{
	struct machine *m = *state;

	tree_remove(m->root);
	sriov_clear(&m->table);
	free(m->devlink.devices);
	free(m->devlink.ports);
	free(m);
	return 0;
}

static void put(const struct machine *m, const char *text, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void put(const struct machine *m, const char *text, const char *format, ...)
{
	char path[PATH_MAX];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(path, sizeof(path), format, arguments);
	va_end(arguments);
	/* "->": a link */
	if (strncmp(text, "->", 2) == 0)
		tree_link(m->root, path, text + 2);
	else
		tree_put(m->root, path, text);
}

/* A PF with VFs from `first`, as PCI functions of its bus. */
static void put_pf(
	const struct machine *m, const char *address, const char *driver, unsigned total, unsigned vfs, const char *vf_format)
{
	char text[PATH_MAX], vf[32];

	snprintf(text, sizeof(text), "%u\n", total);
	put(m, text, "bus/pci/devices/%s/sriov_totalvfs", address);
	snprintf(text, sizeof(text), "%u\n", vfs);
	put(m, text, "bus/pci/devices/%s/sriov_numvfs", address);
	snprintf(text, sizeof(text), "->../../drivers/%s", driver);
	put(m, text, "bus/pci/devices/%s/driver", address);
	for (unsigned i = 0; i < vfs; i++) {
		snprintf(vf, sizeof(vf), vf_format, i);
		put(m, "0x15b3\n", "bus/pci/devices/%s/vendor", vf);
		snprintf(text, sizeof(text), "->../%s", vf);
		put(m, text, "bus/pci/devices/%s/virtfn%u", address, i);
	}
}

/* --- messages --- */

#define MESSAGE_MAX 1024
union message {
	struct nlmsghdr header;
	uint8_t bytes[MESSAGE_MAX];
};

static void see_link(struct machine *m, uint32_t ifindex, const char *name, const char *port_name, const char *switch_id,
	const char *bus, const char *parent)
{
	union message message = {0};
	struct ifinfomsg *link;

	mnl_nlmsg_put_header(&message);
	message.header.nlmsg_type = RTM_NEWLINK;
	link = mnl_nlmsg_put_extra_header(&message.header, sizeof(*link));
	link->ifi_index = (int)ifindex;
	mnl_attr_put_strz(&message.header, IFLA_IFNAME, name);
	mnl_attr_put(&message.header, IFLA_ADDRESS, 6, (uint8_t[]){2, 0, 0, 0, 0, (uint8_t)ifindex});
	if (port_name)
		mnl_attr_put_strz(&message.header, IFLA_PHYS_PORT_NAME, port_name);
	if (switch_id)
		mnl_attr_put(&message.header, IFLA_PHYS_SWITCH_ID, strlen(switch_id), switch_id);
	if (parent) {
		mnl_attr_put_strz(&message.header, IFLA_PARENT_DEV_NAME, parent);
		mnl_attr_put_strz(&message.header, IFLA_PARENT_DEV_BUS_NAME, bus);
	}
	assert_true(m->n < DEVICES_MAX && netdev_parse(&message.header, &m->devices[m->n++]));
}

/* Interfaces of one PCI device and of its switch: {name, port_name}, numbered from `first` on, up to one without a name. */
static void see_links(struct machine *m, uint32_t first, const char *pci, const char *switch_id, const char *const links[][2])
{
	for (uint32_t i = 0; links[i][0]; i++)
		see_link(m, first + i, links[i][0], links[i][1], switch_id, "pci", pci);
}

static struct nlmsghdr *devlink_begin(union message *message, uint8_t command, const char *bus, const char *name)
{
	struct genlmsghdr *header;

	memset(message, 0, sizeof(*message));
	mnl_nlmsg_put_header(message);
	message->header.nlmsg_type = 0x1f;
	header = mnl_nlmsg_put_extra_header(&message->header, sizeof(*header));
	header->cmd = command;
	mnl_attr_put_strz(&message->header, DEVLINK_ATTR_BUS_NAME, bus);
	mnl_attr_put_strz(&message->header, DEVLINK_ATTR_DEV_NAME, name);
	return &message->header;
}

static bool see(struct machine *m, const union message *message)
{
	return devlink_take(&m->devlink, &message->header, message->header.nlmsg_len);
}

static bool see_mode(struct machine *m, const char *bus, const char *name, uint16_t mode)
{
	union message message;

	mnl_attr_put_u16(devlink_begin(&message, DEVLINK_CMD_ESWITCH_GET, bus, name), DEVLINK_ATTR_ESWITCH_MODE, mode);
	return see(m, &message);
}

struct port_says {
	uint32_t index;
	uint16_t flavour;
	uint32_t ifindex;
	uint16_t pf, vf;
	bool external;
	const uint8_t *mac;
};
static void port_message(union message *message, uint8_t command, const char *bus, const char *name, const struct port_says *says)
{
	struct nlmsghdr *header = devlink_begin(message, command, bus, name);

	mnl_attr_put_u32(header, DEVLINK_ATTR_PORT_INDEX, says->index);
	mnl_attr_put_u16(header, DEVLINK_ATTR_PORT_TYPE, DEVLINK_PORT_TYPE_ETH);
	if (says->ifindex)
		mnl_attr_put_u32(header, DEVLINK_ATTR_PORT_NETDEV_IFINDEX, says->ifindex);
	mnl_attr_put_u16(header, DEVLINK_ATTR_PORT_FLAVOUR, says->flavour);
	if (says->flavour == DEVLINK_PORT_FLAVOUR_PCI_VF) {
		mnl_attr_put_u32(header, DEVLINK_ATTR_PORT_CONTROLLER_NUMBER, says->external);
		mnl_attr_put_u16(header, DEVLINK_ATTR_PORT_PCI_PF_NUMBER, says->pf);
		mnl_attr_put_u16(header, DEVLINK_ATTR_PORT_PCI_VF_NUMBER, says->vf);
		mnl_attr_put_u8(header, DEVLINK_ATTR_PORT_EXTERNAL, says->external);
	}
	if (says->mac) {
		struct nlattr *function = mnl_attr_nest_start(header, DEVLINK_ATTR_PORT_FUNCTION);

		mnl_attr_put(header, DEVLINK_PORT_FUNCTION_ATTR_HW_ADDR, 6, says->mac);
		mnl_attr_nest_end(header, function);
	}
}

static bool see_port(struct machine *m, uint8_t command, const char *bus, const char *name, const struct port_says *says)
{
	union message message;

	port_message(&message, command, bus, name, says);
	return see(m, &message);
}

/* --- what it comes to --- */

static void look(struct machine *m)
{
	_cleanup_close_ int fd = open(m->root, O_PATH | O_DIRECTORY | O_CLOEXEC);

	sriov_clear(&m->table);
	assert_int_equal(sriov_scan(fd, &m->table), 0);
	sriov_join(&m->table, m->devices, m->n, &m->devlink);
}

static void expect_vf(
	const struct machine *m, const char *pf, uint32_t index, const char *address, const char *own, const char *representor)
{
	const struct sriov_vf *vf = sriov_find(&m->table, m->devices, m->n, pf, index);

	assert_non_null(vf);
	assert_string_equal(vf->address, address);
	assert_string_equal(vf->name, own);
	assert_string_equal(vf->representor_name, representor);
	if (*address)
		assert_ptr_equal(sriov_find_address(&m->table, address), vf);
}

/* wanted 0: reason says why. */
static void expect_place(const struct machine *m, const struct sriov_name *name, uint32_t wanted, const char *reason)
{
	char got[SRIOV_REASON_MAX];
	uint8_t mac[6];

	assert_int_equal(sriov_resolve(&m->table, m->devices, m->n, name, mac, got), wanted);
	if (!wanted)
		assert_string_equal(got, reason);
}

static struct netdev *device(struct machine *m, const char *name)
{
	for (size_t i = 0; i < m->n; i++)
		if (strcmp(m->devices[i].name, name) == 0)
			return &m->devices[i];
	fail_msg("no device %s", name);
	return NULL;
}

/* --- devices --- */

/* Two PFs of one card, each with a switch of its own; representors are on the PF's PCI device; one VF is in a container, one bound to vfio. */
static void test_mlx5(void **state)
{
	static const uint8_t mac[6] = {2, 1, 1, 1, 1, 1};
	struct machine *m = *state;

	put_pf(m, "0000:01:00.0", "mlx5_core", 8, 3, "0000:01:01.%u");
	put_pf(m, "0000:01:00.1", "mlx5_core", 8, 1, "0000:01:02.%u");
	put(m, "->../../drivers/vfio-pci", "bus/pci/devices/0000:01:01.1/driver");
	/* Something else on the bus. */
	put(m, "0x8086\n", "bus/pci/devices/0000:00:1f.0/vendor");
	see_link(m, 2, "eth1", "p0", "\1\2\3\4", "pci", "0000:01:00.0");
	see_link(m, 3, "eth2", "p1", "\5\6\7\10", "pci", "0000:01:00.1");
	see_link(m, 4, "eth1_0", "pf0vf0", "\1\2\3\4", "pci", "0000:01:00.0");
	see_link(m, 5, "eth1_1", "pf0vf1", "\1\2\3\4", "pci", "0000:01:00.0");
	see_link(m, 6, "eth1_2", "pf0vf2", "\1\2\3\4", "pci", "0000:01:00.0");
	see_link(m, 7, "eth2_0", "pf1vf0", "\5\6\7\10", "pci", "0000:01:00.1");
	see_link(m, 8, "enp1s0f0v2", NULL, NULL, "pci", "0000:01:01.2");
	see_mode(m, "pci", "0000:01:00.0", DEVLINK_ESWITCH_MODE_SWITCHDEV);
	see_mode(m, "pci", "0000:01:00.1", DEVLINK_ESWITCH_MODE_SWITCHDEV);
	see_port(m, DEVLINK_CMD_PORT_NEW, "pci", "0000:01:00.0", &(struct port_says){.index = 65535, .ifindex = 2});
	for (uint16_t i = 0; i < 3; i++)
		see_port(m, DEVLINK_CMD_PORT_NEW, "pci", "0000:01:00.0",
			&(struct port_says){
				.index = 1u + i, .flavour = DEVLINK_PORT_FLAVOUR_PCI_VF, .ifindex = 4u + i, .vf = i, .mac = mac});
	/* The other PF's VF only by its interface: an older kernel. */
	look(m);

	assert_int_equal(m->table.n_pfs, 2);
	assert_int_equal(m->table.n_vfs, 4);
	expect_vf(m, "eth1", 0, "0000:01:01.0", "", "eth1_0");
	expect_vf(m, "eth1", 1, "0000:01:01.1", "", "eth1_1");
	expect_vf(m, "eth1", 2, "0000:01:01.2", "enp1s0f0v2", "eth1_2");
	expect_vf(m, "eth2", 0, "0000:01:02.0", "", "eth2_0");
	assert_string_equal(sriov_find_address(&m->table, "0000:01:01.1")->driver, "vfio-pci");
	assert_memory_equal(sriov_find_address(&m->table, "0000:01:01.0")->mac, mac, 6);
	expect_place(m, &(struct sriov_name){.pf = "eth1", .index = 2}, 6, "");
	expect_place(m, &(struct sriov_name){.pci = "0000:01:01.2"}, 6, "");
	expect_place(m, &(struct sriov_name){.pci = "0000:01:00.0"}, 2, "");
	expect_place(m, &(struct sriov_name){.pf = "eth1", .index = 3}, 0, "eth1 has 3 VFs, and none of index 3");
	expect_place(m, &(struct sriov_name){.pf = "eth9", .index = 0}, 0, "there is no device eth9");
	expect_place(m, &(struct sriov_name){.pci = "0000:09:00.0"}, 0, "there is no interface of a PCI device 0000:09:00.0");
}

/* ice: representors are ports of devlink, called otherwise by older kernels; then back in legacy mode; then without VFs. */
static void test_ice(void **state)
{
	struct machine *m = *state;
	union message gone;

	put_pf(m, "0000:81:00.0", "ice", 64, 2, "0000:81:01.%u");
	see_link(m, 2, "ens1f0", "p0", "\1\1", "pci", "0000:81:00.0");
	see_link(m, 3, "eth0", "pf0vfr0", "\1\1", "pci", "0000:81:00.0");
	see_link(m, 4, "eth1", "pf0vfr1", "\1\1", "pci", "0000:81:00.0");
	look(m);
	/* Without a word of devlink. */
	expect_vf(m, "ens1f0", 0, "0000:81:01.0", "", "eth0");
	expect_vf(m, "ens1f0", 1, "0000:81:01.1", "", "eth1");
	assert_int_equal(m->table.pfs[0].eswitch, ESWITCH_SWITCHDEV);

	assert_true(see_mode(m, "pci", "0000:81:00.0", DEVLINK_ESWITCH_MODE_SWITCHDEV));
	assert_true(see_port(m, DEVLINK_CMD_PORT_NEW, "pci", "0000:81:00.0",
		&(struct port_says){.index = 10, .flavour = DEVLINK_PORT_FLAVOUR_PCI_VF, .ifindex = 3, .vf = 0}));
	assert_false(see_port(m, DEVLINK_CMD_PORT_NEW, "pci", "0000:81:00.0",
		&(struct port_says){.index = 10, .flavour = DEVLINK_PORT_FLAVOUR_PCI_VF, .ifindex = 3, .vf = 0}));
	/* A rename changes nothing but the name. */
	snprintf(device(m, "eth0")->name, IF_NAMESIZE, "rep0");
	look(m);
	expect_vf(m, "ens1f0", 0, "0000:81:01.0", "", "rep0");
	expect_place(m, &(struct sriov_name){.pf = "ens1f0", .index = 0}, 3, "");

	/* The mode changes: ports and interfaces of VFs go, and one has its own interface here. */
	port_message(&gone, DEVLINK_CMD_PORT_DEL, "pci", "0000:81:00.0", &(struct port_says){.index = 10});
	assert_true(see(m, &gone));
	assert_false(see(m, &gone));
	assert_true(see_mode(m, "pci", "0000:81:00.0", DEVLINK_ESWITCH_MODE_LEGACY));
	m->n = 1;
	see_link(m, 5, "ens1f0v0", NULL, NULL, "pci", "0000:81:01.0");
	look(m);
	expect_vf(m, "ens1f0", 0, "0000:81:01.0", "ens1f0v0", "");
	expect_place(m, &(struct sriov_name){.pf = "ens1f0", .index = 0}, 0,
		"VF 0 of ens1f0 has no representor (the switch of the NIC is in legacy mode): no policy can be enforced on it, "
		"nor "
		"source checks, overlay or limits: what holds is what spec.vf sets");

	clear(m);
	put_pf(m, "0000:81:00.0", "ice", 64, 0, "0000:81:01.%u");
	m->n = 1;
	look(m);
	expect_place(m, &(struct sriov_name){.pf = "ens1f0", .index = 0}, 0, "ens1f0 has no VFs yet (sriov_numvfs is 0)");
}

/* bnxt: devlink has no ports of VFs; the switch's id leads to the PF where the parent does not. */
static void test_bnxt(void **state)
{
	struct machine *m = *state;

	put_pf(m, "0000:3b:00.0", "bnxt_en", 16, 2, "0000:3b:02.%u");
	put_pf(m, "0000:3b:00.1", "bnxt_en", 16, 1, "0000:3b:03.%u");
	see_link(m, 2, "eth0", "p0", "\1\20\30", "pci", "0000:3b:00.0");
	see_link(m, 3, "eth1", "p1", "\1\20\30", "pci", "0000:3b:00.1");
	see_link(m, 4, "rep0", "pf0vf0", "\1\20\30", NULL, NULL);
	see_link(m, 5, "rep1", "pf0vf1", "\1\20\30", NULL, NULL);
	see_link(m, 6, "rep2", "pf1vf0", "\1\20\30", NULL, NULL);
	/* Of another switch, and of another host. */
	see_link(m, 7, "other", "pf0vf0", "\7\7", NULL, NULL);
	see_link(m, 8, "dpu", "c1pf0vf1", "\1\20\30", NULL, NULL);
	look(m);
	expect_vf(m, "eth0", 0, "0000:3b:02.0", "", "rep0");
	expect_vf(m, "eth0", 1, "0000:3b:02.1", "", "rep1");
	expect_vf(m, "eth1", 0, "0000:3b:03.0", "", "rep2");
	expect_place(m, &(struct sriov_name){.pf = "rep0", .index = 0}, 0, "rep0 is no device with VFs");
}

/* bnxt where the kernel tells the parent; nfp, whose PF has several wires, an interface of its own, and a representor for each of its queues' ends. */
static void test_parents(void **state)
{
	static const char *const bnxt[][2] = {{"ens2f0np0", "p0"}, {"ens2f0npf0vf0", "pf0vf0"}, {NULL}};
	static const char *const nfp[][2] = {{"enp4s0np0s0", "p0s0"}, {"enp4s0np0s1", "p0s1"}, {"enp4s0npf0s1", "pf0s1"}, {NULL}};
	struct machine *m = *state;

	put_pf(m, "0000:3b:00.0", "bnxt_en", 16, 1, "0000:3b:02.%u");
	put_pf(m, "0000:04:00.0", "nfp", 48, 2, "0000:04:08.%u");
	see_links(m, 2, "0000:3b:00.0", "\1\20\30", bnxt);
	see_link(m, 4, "enp4s0nn0", "n0", NULL, "pci", "0000:04:00.0");
	see_links(m, 5, "0000:04:00.0", "\2\2", nfp);
	see_link(m, 8, "enp4s0npf0vf0", "pf0vf0", "\2\2", NULL, NULL);
	see_link(m, 9, "rep1", "pf0vf1", "\2\2", "pci", "0000:04:00.0");
	look(m);
	expect_vf(m, "ens2f0np0", 0, "0000:3b:02.0", "", "ens2f0npf0vf0");
	/* By whichever of its interfaces the PF is named; not by one that stands for something else. */
	expect_place(m, &(struct sriov_name){.pf = "enp4s0nn0", .index = 1}, 9, "");
	expect_place(m, &(struct sriov_name){.pf = "enp4s0np0s1", .index = 1}, 9, "");
	expect_place(m, &(struct sriov_name){.pci = "0000:04:00.0"}, 4, "");
	assert_int_equal(m->table.pfs[0].ifindex + m->table.pfs[1].ifindex, 2 + 4);
}

/* sfc: names with the wire in front. What udev or people call interfaces means nothing, and one is named as if it were another's. */
static void test_names(void **state)
{
	static const char *const links[][2] = {
		{"enp8s0f0", "p0"}, {"eth0_2", "p0pf0vf0"}, {"enp8s0f0npf0vf0", "p0pf0vf1"}, {"pf0vf1", "p0pf0vf2"}, {NULL}};
	struct machine *m = *state;

	put_pf(m, "0000:08:00.0", "sfc", 8, 3, "0000:08:01.%u");
	see_links(m, 2, "0000:08:00.0", "\3\3", links);
	see_link(m, 6, "enp8s0f0_0", NULL, NULL, NULL, NULL);
	look(m);
	for (uint32_t i = 0; i < 3; i++)
		expect_place(m, &(struct sriov_name){.pf = "enp8s0f0", .index = i}, 3 + i, "");
	snprintf(device(m, "enp8s0f0")->name, IF_NAMESIZE, "wan");
	snprintf(device(m, "pf0vf1")->name, IF_NAMESIZE, "enp8s0f0");
	look(m);
	expect_place(m, &(struct sriov_name){.pf = "wan", .index = 2}, 5, "");
	/* A representor is on the PF's device: by its name it is the same PF. */
	expect_place(m, &(struct sriov_name){.pf = "enp8s0f0", .index = 2}, 5, "");
}

/* A DPU: functions of two hosts, with the same numbers as its own; its own VFs and SFs beside them. */
static void test_hosts(void **state)
{
	static const char *const links[][2] = {{"p0", "p0"}, {"pf0hpf", "c1pf0"}, {"ens1c1pf0vf0", "c1pf0vf0"},
		{"ens1c2pf0vf0", "c2pf0vf0"}, {"ens1c1pf0sf8", "c1pf0sf8"}, {"en3f0pf0sf88", "pf0sf88"}, {NULL}};
	struct machine *m = *state;

	put_pf(m, "0000:03:00.0", "mlx5_core", 16, 2, "0000:03:01.%u");
	see_links(m, 2, "0000:03:00.0", "\4\4", links);
	/* An SF's own interface is on a bus of its own. */
	see_link(m, 8, "enp3s0f0s88", NULL, NULL, "auxiliary", "mlx5_core.sf.4");
	see_link(m, 9, "en3f0pf0vf1", "pf0vf1", "\4\4", "pci", "0000:03:00.0");
	see_mode(m, "pci", "0000:03:00.0", DEVLINK_ESWITCH_MODE_SWITCHDEV);
	see_port(m, DEVLINK_CMD_PORT_NEW, "pci", "0000:03:00.0",
		&(struct port_says){.index = 1, .flavour = DEVLINK_PORT_FLAVOUR_PCI_VF, .ifindex = 4, .vf = 0, .external = true});
	see_port(m, DEVLINK_CMD_PORT_NEW, "pci", "0000:03:00.0",
		&(struct port_says){.index = 2, .flavour = DEVLINK_PORT_FLAVOUR_PCI_SF, .ifindex = 7});
	look(m);
	expect_place(m, &(struct sriov_name){.pf = "p0", .index = 0}, 0, "VF 0 of p0 has no representor yet");
	expect_place(m, &(struct sriov_name){.pf = "p0", .index = 1}, 9, "");
	expect_place(m, &(struct sriov_name){.pci = "0000:03:00.0"}, 2, "");
	see_link(m, 10, "en3f0pf0vf0", "pf0vf0", "\4\4", "pci", "0000:03:00.0");
	look(m);
	expect_place(m, &(struct sriov_name){.pf = "p0", .index = 0}, 10, "");
}

/* As 6.1 answers when it is asked for all ports: by the command for devices. */
static void test_ports_of_6_1(void **state)
{
	static const uint8_t mac[6] = {2, 7, 7, 7, 7, 7};
	struct machine *m = *state;

	put_pf(m, "0000:01:00.0", "mlx5_core", 8, 1, "0000:01:01.%u");
	see_link(m, 2, "eth1", "p0", "\1\2", "pci", "0000:01:00.0");
	see_link(m, 3, "eth2", NULL, "\1\2", NULL, NULL); /* by devlink alone it is whose it is */
	see_mode(m, "pci", "0000:01:00.0", DEVLINK_ESWITCH_MODE_SWITCHDEV);
	assert_true(see_port(m, DEVLINK_CMD_NEW, "pci", "0000:01:00.0",
		&(struct port_says){.index = 1, .flavour = DEVLINK_PORT_FLAVOUR_PCI_VF, .ifindex = 3, .mac = mac}));
	assert_int_equal(m->devlink.n_ports, 1);
	look(m);
	assert_int_equal(m->table.pfs[0].eswitch, ESWITCH_SWITCHDEV);
	expect_place(m, &(struct sriov_name){.pf = "eth1", .index = 0}, 3, "");
	assert_memory_equal(sriov_find_address(&m->table, "0000:01:01.0")->mac, mac, 6);
}

/* netdevsim: no PCI, and VFs that no file shows. */
static void test_netdevsim(void **state)
{
	struct machine *m = *state;

	put(m, "4\n", "bus/netdevsim/devices/netdevsim10/sriov_numvfs");
	see_link(m, 10, "eth5", "p1", "\1", "netdevsim", "netdevsim10");
	for (uint16_t i = 0; i < 4; i++) {
		char name[16], port[16];

		snprintf(name, sizeof(name), "eth%u", 6 + i);
		snprintf(port, sizeof(port), "pf0vf%u", i);
		see_link(m, 11u + i, name, port, "\1", "netdevsim", "netdevsim10");
		/* In whatever order. */
		see_port(m, DEVLINK_CMD_PORT_NEW, "netdevsim", "netdevsim10",
			&(struct port_says){.index = 128u + i,
				.flavour = DEVLINK_PORT_FLAVOUR_PCI_VF,
				.ifindex = 14u - i,
				.vf = (uint16_t)(3 - i)});
	}
	look(m);
	assert_int_equal(m->table.n_vfs, 4);
	for (uint32_t i = 0; i < 4; i++)
		expect_place(m, &(struct sriov_name){.pf = "eth5", .index = i}, 11 + i, "");
	/* A representor that was moved to another namespace, and a device here that has its number. */
	m->n = 1;
	see_link(m, 11, "veth0", NULL, NULL, NULL, NULL);
	look(m);
	expect_place(m, &(struct sriov_name){.pf = "eth5", .index = 0}, 0,
		"VF 0 of eth5 has no representor (the switch of the NIC is not in switchdev mode): no policy can be enforced on "
		"it, nor "
		"source checks, overlay or limits: what holds is what spec.vf sets");
	/* The device goes, with all its ports. */
	assert_true(see_mode(m, "netdevsim", "netdevsim10", DEVLINK_ESWITCH_MODE_SWITCHDEV));
	union message message;

	devlink_begin(&message, DEVLINK_CMD_DEL, "netdevsim", "netdevsim10");
	assert_true(see(m, &message));
	assert_int_equal(m->devlink.n_ports, 0);
	assert_int_equal(m->devlink.n_devices, 0);
}

/* --- what is damaged --- */

static void test_cut_messages(void **state)
{
	struct devlink_device found;
	struct devlink_port port;
	union message message;

	(void)state;
	port_message(&message, DEVLINK_CMD_PORT_NEW, "pci", "0000:81:00.0",
		&(struct port_says){.index = 10,
			.flavour = DEVLINK_PORT_FLAVOUR_PCI_VF,
			.ifindex = 3,
			.mac = (const uint8_t[]){2, 0, 0, 0, 0, 1}});
	assert_int_equal(devlink_parse(&message.header, message.header.nlmsg_len, &found, &port), DEVLINK_PORT);
	for (uint32_t cut = 0; cut < message.header.nlmsg_len; cut++) {
		_cleanup_free_ struct nlmsghdr *copy = malloc(cut ?: 1);

		memcpy(copy, &message, cut);
		assert_int_equal(devlink_parse(copy, cut, &found, &port), DEVLINK_NOTHING);
		/* As long as it says, but with attributes that say more. */
		if (cut < sizeof(*copy) + sizeof(struct genlmsghdr))
			continue;
		copy->nlmsg_len = cut;
		(void)devlink_parse(copy, cut, &found, &port);
	}
	/* A name that is too long to be one that is looked for. */
	devlink_begin(&message, DEVLINK_CMD_NEW, "pci", "a-name-of-more-than-twenty-bytes");
	assert_int_equal(devlink_parse(&message.header, message.header.nlmsg_len, &found, &port), DEVLINK_NOTHING);
}

static void test_damaged_tree(void **state)
{
	struct machine *m = *state;

	put(m, "many\n", "bus/pci/devices/0000:01:00.0/sriov_totalvfs");
	put(m, "-1\n", "bus/pci/devices/0000:01:00.0/sriov_numvfs");
	put(m, "4\n", "bus/pci/devices/0000:02:00.0/sriov_totalvfs");
	put(m, "4\n", "bus/pci/devices/0000:02:00.0/sriov_numvfs");
	put(m, "->nowhere", "bus/pci/devices/0000:02:00.0/virtfn1");
	put(m, "4\n", "bus/pci/devices/a-name-of-more-than-twenty-bytes/sriov_numvfs");
	look(m);
	assert_int_equal(m->table.n_pfs, 1);
	assert_int_equal(m->table.n_vfs, 1);
	assert_string_equal(m->table.vfs[0].address, "nowhere");
	clear(m);
	look(m);
	assert_int_equal(m->table.n_pfs, 0);
}

static void test_events(void **state)
{
	static const char pci[] = "change@/devices/pci0000:00/0000:00:01.0\0ACTION=change\0SUBSYSTEM=pci\0SEQNUM=1";
	static const char net[] = "add@/devices/virtual/net/veth0\0ACTION=add\0SUBSYSTEM=net\0SEQNUM=2";

	(void)state;
	assert_true(sriov_event_counts(pci, sizeof(pci)));
	assert_false(sriov_event_counts(net, sizeof(net)));
	assert_false(sriov_event_counts(pci, sizeof(pci) - 1)); /* without an end */
	assert_false(sriov_event_counts("", 0));
}

/* This kernel: whatever it has of it. */
static void test_live(void **state)
{
	struct devlink *devlink = NULL;
	int r = devlink_open(&devlink), fd = sriov_events_open();

	(void)state;
	assert_true(r == 0 || r == -ENOENT);
	if (r == 0)
		assert_true(devlink_dispatch(devlink) >= 0);
	devlink_close(devlink);
	assert_true(fd >= 0);
	(void)sriov_events_dispatch(fd);
	close(fd);
	assert_true(r == 0 || devlink_set_eswitch("pci", "0000:ff:00.0", ESWITCH_SWITCHDEV) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_mlx5, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ice, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bnxt, setup, teardown),
		cmocka_unit_test_setup_teardown(test_parents, setup, teardown),
		cmocka_unit_test_setup_teardown(test_names, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hosts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ports_of_6_1, setup, teardown),
		cmocka_unit_test_setup_teardown(test_netdevsim, setup, teardown),
		cmocka_unit_test(test_cut_messages),
		cmocka_unit_test_setup_teardown(test_damaged_tree, setup, teardown),
		cmocka_unit_test(test_events),
		cmocka_unit_test(test_live),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
