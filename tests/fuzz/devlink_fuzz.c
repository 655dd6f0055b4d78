/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel says of switches in NICs and of interfaces: messages of netlink, one after another as one read brings them. */
#include <stdlib.h>
#include <string.h>
#include <linux/rtnetlink.h>

#include <libmnl/libmnl.h>

#include <netdev/sriov.h>
#include <netdev/vf.h>
#include <util/genetlink.h>
#include <util/xdp_features.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DEVICES_MAX 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct netdev devices[DEVICES_MAX];
	struct devlink devlink = {0};
	struct sriov table = {0};
	size_t n = 0;
	/* Aligned, as a receive buffer is, and with an end that the sanitizer sees. */
	struct nlmsghdr *message, *copy = calloc(1, size ?: 1);
	int left = (int)size;

	memcpy(copy, data, size);
	(void)sriov_event_counts((const char *)copy, size);
	for (message = copy; mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left)) {
		struct vf_state *states = NULL;
		size_t n_states;
		struct genetlink_family family;
		struct xdp_features features;

		if (message->nlmsg_len > (uint32_t)left || MNL_ALIGN(message->nlmsg_len) > (uint32_t)left)
			break;
		if (message->nlmsg_type == RTM_NEWLINK && mnl_nlmsg_get_payload_len(message) >= sizeof(struct ifinfomsg))
			n += n < DEVICES_MAX && netdev_parse(message, &devices[n]);
		else
			(void)devlink_take(&devlink, message, (size_t)left);
		(void)genetlink_parse_family(message, (size_t)left, "config", &family);
		(void)xdp_features_parse(message, (size_t)left, &features);
		if (vf_parse(message, (size_t)left, &states, &n_states) == 0)
			free(states);
	}
	/* PFs of the switches that were named, so that their ports have somewhere to belong. */
	table.pfs = calloc(devlink.n_devices + 1, sizeof(*table.pfs));
	for (; table.n_pfs < devlink.n_devices; table.n_pfs++) {
		struct sriov_pf *pf = &table.pfs[table.n_pfs];

		memcpy(pf->bus, devlink.devices[table.n_pfs].bus, sizeof(pf->bus));
		memcpy(pf->address, devlink.devices[table.n_pfs].name, sizeof(pf->address));
	}
	/* And two VFs of each. */
	table.vfs = calloc(2 * table.n_pfs + 1, sizeof(*table.vfs));
	for (; table.n_vfs < 2 * table.n_pfs; table.n_vfs++)
		table.vfs[table.n_vfs] = (struct sriov_vf){.pf = table.n_vfs / 2, .index = table.n_vfs % 2};
	sriov_join(&table, devices, n, &devlink);
	for (size_t i = 0; i < table.n_vfs; i++) {
		char reason[SRIOV_REASON_MAX];
		uint8_t mac[6];
		struct sriov_name name = {.pf = table.pfs[table.vfs[i].pf].name, .index = table.vfs[i].index};

		(void)sriov_resolve(&table, devices, n, &name, mac, reason);
	}
	sriov_clear(&table);
	free(devlink.devices);
	free(devlink.ports);
	free(copy);
	return 0;
}
