/* SPDX-License-Identifier: Apache-2.0 */
/* What ports have used of their rates. Programs make the entries and write them; here they are read, and go with their port. */
#include <errno.h>

#include <bpf/bpf.h>

#include <datapath/internal.h>

int datapath_limit(struct datapath *dp, uint32_t ifindex, struct hd_limit_state *ret)
{
	int fd = load_map(load_readable(dp), MAP_PORT_LIMITS);

	if (fd < 0)
		return -ENOTCONN;
	return bpf_map_lookup_elem(fd, &ifindex, ret) < 0 ? -errno : 0;
}

void datapath_pace(struct datapath *dp, bool on)
{
	struct load *loads[] = {dp->live, dp->next};

	for (size_t i = 0; i < ARRAY_SIZE(loads); i++) {
		if (!loads[i] || !loads[i]->control)
			continue;
		if (on)
			__atomic_or_fetch(&loads[i]->control->flags, HD_CONTROL_FQ, __ATOMIC_RELAXED);
		else
			__atomic_and_fetch(&loads[i]->control->flags, ~(uint32_t)HD_CONTROL_FQ, __ATOMIC_RELAXED);
	}
}

void limits_forget(const struct load *load, uint32_t ifindex)
{
	int fd = load_map(load, MAP_PORT_LIMITS);

	if (fd >= 0)
		(void)bpf_map_delete_elem(fd, &ifindex);
}

/* Of ports that went, or lost their rates, while no agent looked. */
void limits_prune(const struct load *load)
{
	int fd = load_map(load, MAP_PORT_LIMITS);
	uint32_t last = 0, ifindex;
	bool first = true;

	while (fd >= 0 && bpf_map_get_next_key(fd, first ? NULL : &last, &ifindex) == 0) {
		struct hd_port record;

		if (port_read(load, ifindex, &record) < 0 || !(record.flags & (HD_PORT_LIMIT_IN | HD_PORT_LIMIT_OUT)))
			(void)bpf_map_delete_elem(fd, &ifindex); /* the walk may begin anew, over fewer */
		else
			last = ifindex, first = false;
	}
}
