/* SPDX-License-Identifier: Apache-2.0 */
/* VFs: what the kernel says of them, taken apart; what is set on them, remembered and put back, against a double of the kernel. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>

#include <cmocka.h>
#include <libmnl/libmnl.h>

#include <netdev/vf.h>
#include <util/cleanup.h>
#include <util/file.h>

/* --- messages --- */

union message {
	struct nlmsghdr header;
	uint8_t bytes[4096];
};

static void make(union message *message, uint32_t n)
{
	struct nlmsghdr *header = mnl_nlmsg_put_header(message);
	struct nlattr *list, *info, *vlans;

	header->nlmsg_type = RTM_NEWLINK;
	mnl_nlmsg_put_extra_header(header, sizeof(struct ifinfomsg));
	mnl_attr_put_strz(header, IFLA_IFNAME, "eth1");
	list = mnl_attr_nest_start(header, IFLA_VFINFO_LIST);
	for (uint32_t i = n; i-- > 0;) {
		const struct ifla_vf_mac mac = {.vf = i, .mac = {2, 0, 0, 0, 0, (uint8_t)i}};
		const struct ifla_vf_vlan vlan = {.vf = i, .vlan = 10, .qos = 1};
		const struct ifla_vf_vlan_info info_of_vlan = {.vf = i, .vlan = 20, .qos = 2, .vlan_proto = 0x81};
		const struct ifla_vf_rate rate = {.vf = i, .min_tx_rate = 5, .max_tx_rate = 100};
		const struct ifla_vf_spoofchk spoof = {.vf = i, .setting = 1}, unknown = {.vf = i, .setting = UINT32_MAX};
		const struct ifla_vf_link_state state = {.vf = i, .link_state = IFLA_VF_LINK_STATE_DISABLE};

		info = mnl_attr_nest_start(header, IFLA_VF_INFO);
		mnl_attr_put(header, IFLA_VF_MAC, sizeof(mac), &mac);
		mnl_attr_put(header, IFLA_VF_VLAN, sizeof(vlan), &vlan);
		mnl_attr_put(header, IFLA_VF_RATE, sizeof(rate), &rate);
		mnl_attr_put(header, IFLA_VF_SPOOFCHK, sizeof(spoof), &spoof);
		mnl_attr_put(header, IFLA_VF_TRUST, sizeof(unknown), &unknown);
		mnl_attr_put(header, IFLA_VF_LINK_STATE, sizeof(state), &state);
		vlans = mnl_attr_nest_start(header, IFLA_VF_VLAN_LIST);
		mnl_attr_put(header, IFLA_VF_VLAN_INFO, sizeof(info_of_vlan), &info_of_vlan);
		mnl_attr_nest_end(header, vlans);
		mnl_attr_nest_end(header, info);
	}
	mnl_attr_nest_end(header, list);
}

static void test_parse(void **state)
{
	union message message = {0};
	struct vf_state *states = NULL;
	size_t n = 0;

	(void)state;
	make(&message, 3);
	assert_int_equal(vf_parse(&message.header, message.header.nlmsg_len, &states, &n), 0);
	assert_int_equal(n, 3);
	for (uint32_t i = 0; i < 3; i++) {
		const struct vf_values *values = &states[i].values;

		assert_int_equal(states[i].index, i);
		assert_int_equal(values->mac[5], i);
		assert_int_equal(values->vlan, 20);
		assert_int_equal(values->qos, 2);
		assert_int_equal(values->min_rate, 5);
		assert_int_equal(values->max_rate, 100);
		assert_true(values->spoof_check);
		assert_int_equal(values->link_state, VF_LINK_DISABLE);
		/* The driver does not know. */
		assert_int_equal(values->has & 1u << VF_TRUST, 0);
	}
	free(states);
	for (uint32_t cut = 0; cut < message.header.nlmsg_len; cut++) {
		_cleanup_free_ struct nlmsghdr *copy = malloc(cut ?: 1);

		memcpy(copy, &message, cut);
		assert_int_equal(vf_parse(copy, cut, &states, &n), -EBADMSG);
		if (cut < sizeof(*copy))
			continue;
		copy->nlmsg_len = cut;
		if (vf_parse(copy, cut, &states, &n) == 0)
			free(states);
	}
	/* This kernel: a device without VFs, and one that is not there. */
	assert_int_equal(vf_kernel.read(NULL, 1, &states, &n), 0);
	assert_int_equal(n, 0);
	free(states);
	assert_true(vf_kernel.read(NULL, 0x7fffffff, &states, &n) < 0);
	assert_true(vf_kernel.set(NULL, 1, 0, VF_TRUST, &(struct vf_values){0}) < 0);
}

/* --- a double --- */

#define VFS 4
#define IFINDEX 7
#define ADDRESS "0000:01:00.0"
struct world {
	char dir[64];
	struct vf_state vfs[VFS];
	size_t n;
	unsigned sets;
	uint32_t refuses; /* bits of knobs */
	bool gone;
	size_t left;
};

static int fake_read(void *userdata, uint32_t ifindex, struct vf_state **ret, size_t *ret_n)
{
	struct world *w = userdata;

	assert_int_equal(ifindex, IFINDEX);
	*ret = calloc(w->n + 1, sizeof(**ret));
	memcpy(*ret, w->vfs, w->n * sizeof(**ret));
	*ret_n = w->n;
	return 0;
}

static int fake_set(void *userdata, uint32_t ifindex, uint32_t index, enum vf_knob knob, const struct vf_values *values)
{
	struct world *w = userdata;
	struct vf_values *at = &w->vfs[index].values;

	assert_int_equal(ifindex, IFINDEX);
	assert_true(index < w->n);
	w->sets++;
	if (w->refuses & 1u << knob)
		return -EOPNOTSUPP;
	switch (knob) {
	case VF_MAC:
		memcpy(at->mac, values->mac, 6);
		break;
	case VF_VLAN:
		at->vlan = values->vlan;
		at->qos = values->qos;
		break;
	case VF_RATE:
		at->min_rate = values->min_rate;
		at->max_rate = values->max_rate;
		break;
	case VF_SPOOF_CHECK:
		at->spoof_check = values->spoof_check;
		break;
	case VF_TRUST:
		at->trust = values->trust;
		break;
	case VF_LINK_STATE:
		at->link_state = values->link_state;
		break;
	case VF_KNOBS:
		break;
	}
	return 0;
}

static uint32_t find(const char *pf, void *userdata)
{
	const struct world *w = userdata;

	return strcmp(pf, ADDRESS) == 0 && !w->gone ? IFINDEX : 0;
}

static void run(struct world *w, const char *boot, struct vf_wish *wishes, size_t n)
{
	const struct vf_backend backend = {.read = fake_read, .set = fake_set, .userdata = w};

	w->sets = 0;
	assert_int_equal(vf_sync(&backend, w->dir, boot, wishes, n, find, w, &w->left), 0);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	snprintf(w->dir, sizeof(w->dir), "/tmp/heddle-vf-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	w->n = VFS;
	for (uint32_t i = 0; i < VFS; i++)
		w->vfs[i] = (struct vf_state){
			.index = i, .values = {.has = 0x3f, .mac = {2, 9, 9, 9, 9, (uint8_t)i}, .vlan = 5, .spoof_check = true}};
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	char path[96];

	snprintf(path, sizeof(path), "%s/vfs", w->dir);
	(void)unlink(path);
	assert_int_equal(rmdir(w->dir), 0); /* nothing else was left there */
	free(w);
	return 0;
}

static struct vf_wish wish(uint32_t index, uint32_t has)
{
	return (struct vf_wish){.pf = ADDRESS,
		.pf_ifindex = IFINDEX,
		.index = index,
		.values = {.has = has,
			.mac = {2, 0, 0, 0, 0, 1},
			.vlan = 100,
			.qos = 3,
			.min_rate = 10,
			.max_rate = 1000,
			.trust = true,
			.link_state = VF_LINK_ENABLE}};
}

static bool is_file(const struct world *w)
{
	char path[96];

	snprintf(path, sizeof(path), "%s/vfs", w->dir);
	return access(path, F_OK) == 0;
}

static void test_set_and_put_back(void **state)
{
	struct world *w = *state;
	const struct vf_state before[2] = {w->vfs[1], w->vfs[2]};
	struct vf_wish wishes[] = {wish(1, 0x3f), wish(2, 1u << VF_VLAN)};

	run(w, "boot", wishes, 2);
	assert_int_equal(w->left, 7);
	assert_int_equal(w->vfs[1].values.mac[5], 1);
	assert_int_equal(w->vfs[1].values.vlan, 100);
	assert_int_equal(w->vfs[1].values.max_rate, 1000);
	assert_false(w->vfs[1].values.spoof_check);
	assert_true(w->vfs[1].values.trust);
	assert_int_equal(w->vfs[1].values.link_state, VF_LINK_ENABLE);
	assert_int_equal(w->vfs[2].values.vlan, 100);
	assert_int_equal(w->vfs[2].values.mac[5], 2);
	/* Again, by a later agent: nothing to do, and what was before is not forgotten. */
	run(w, "boot", wishes, 2);
	assert_int_equal(w->sets, 0);
	/* Another value: what was before stays that. */
	wishes[1].values.vlan = 200;
	run(w, "boot", wishes, 2);
	assert_int_equal(w->sets, 1);
	assert_int_equal(w->vfs[2].values.vlan, 200);
	/* One goes, then the other. */
	run(w, "boot", &wishes[1], 1);
	assert_memory_equal(&w->vfs[1], &before[0], sizeof(before[0]));
	assert_int_equal(w->left, 1);
	run(w, "boot", NULL, 0);
	assert_memory_equal(&w->vfs[2], &before[1], sizeof(before[1]));
	assert_int_equal(w->left, 0);
	assert_false(is_file(w));
}

/* Somebody else's change stays; so do settings of VFs that are gone, and those of an earlier boot. */
static void test_what_is_not_put_back(void **state)
{
	struct world *w = *state;
	struct vf_wish one = wish(3, 1u << VF_VLAN | 1u << VF_TRUST);

	run(w, "boot", &one, 1);
	w->vfs[3].values.vlan = 77;
	run(w, "boot", NULL, 0);
	assert_int_equal(w->vfs[3].values.vlan, 77);
	assert_false(w->vfs[3].values.trust);
	assert_false(is_file(w));

	run(w, "boot", &one, 1);
	run(w, "next", NULL, 0);
	assert_int_equal(w->sets, 0);
	assert_false(is_file(w));
	w->vfs[3].values.trust = false;

	run(w, "next", &one, 1);
	assert_true(is_file(w));
	w->n = 3;
	run(w, "next", NULL, 0);
	assert_int_equal(w->sets, 0);
	assert_false(is_file(w));
	w->n = VFS;
	w->vfs[3].values.trust = false;

	run(w, "next", &one, 1);
	w->gone = true;
	run(w, "next", NULL, 0);
	assert_int_equal(w->sets, 0);
	assert_false(is_file(w));
}

static void test_refused(void **state)
{
	struct world *w = *state;
	struct vf_wish one = wish(0, 1u << VF_VLAN | 1u << VF_RATE), missing = wish(9, 1u << VF_VLAN);

	w->refuses = 1u << VF_RATE;
	run(w, "boot", &one, 1);
	assert_int_equal(one.refused[VF_RATE], -EOPNOTSUPP);
	assert_int_equal(one.refused[VF_VLAN], 0);
	assert_int_equal(w->left, 1);
	/* It takes a later value no more: the earlier one is put back all the same. */
	w->refuses = 1u << VF_VLAN;
	one.values.vlan = 300;
	run(w, "boot", &one, 1);
	assert_int_equal(one.refused[VF_VLAN], -EOPNOTSUPP);
	assert_int_equal(w->vfs[0].values.vlan, 100);
	w->refuses = 0;
	run(w, "boot", NULL, 0);
	assert_int_equal(w->vfs[0].values.vlan, 5);
	assert_int_equal(w->vfs[0].values.max_rate, 0);
	run(w, "boot", &missing, 1);
	assert_int_equal(missing.refused[VF_VLAN], -ENODEV);
}

static void test_damaged_file(void **state)
{
	static const char text[] =
		"boot\n" ADDRESS " 1 vlan 9,0 5,0\n" ADDRESS " 1 vlan 8,0 5,0\n" ADDRESS " 2 vlan 9 5\n" ADDRESS
		" 2 colour 1 2\nx\n" ADDRESS " 2 mac zz 02:09:09:09:09:02\n" ADDRESS " 99999999999 trust 1 0\n\n";
	struct world *w = *state;
	char path[96];

	snprintf(path, sizeof(path), "%s/vfs", w->dir);
	assert_int_equal(file_write(AT_FDCWD, path, text, strlen(text), 0600), 0);
	run(w, "boot", NULL, 0);
	assert_int_equal(w->vfs[1].values.vlan, 9); /* the one line that is right */
	assert_int_equal(w->sets, 1);
	assert_false(is_file(w));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test_setup_teardown(test_set_and_put_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_is_not_put_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged_file, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
