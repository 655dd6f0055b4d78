/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Devices that the agent switches. A device is closed by its own record: once our programs are on it, nothing passes without a policy.
 * In tables that packets read already, a new port is closed first and found afterwards; in freshly loaded ones everything is in place
 * before the first program that reads them is attached.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <datapath/internal.h>

static bool complete(const struct attached *at)
{
	return at->clsact || (at->link[LINK_TCX_IN] >= 0 && at->link[LINK_TCX_OUT] >= 0);
}

/* But for the generation, which is that of the writing. */
static bool same_policy(const struct hd_port_policy *a, const struct hd_port_policy *b)
{
	struct hd_port_policy x = *a, y = *b;

	x.generation = y.generation = 0;
	return memcmp(&x, &y, sizeof(x)) == 0;
}

static bool is_written(
	const struct attached *at, const struct load *load, const struct hd_port *record, const struct hd_port_policy *policy)
{
	struct hd_port fixed = at->record;

	memset(fixed.policy, 0, sizeof(fixed.policy));
	return at->written == load && memcmp(&fixed, record, sizeof(fixed)) == 0 &&
	       (!policy->generation || same_policy(&at->record.policy[0], policy));
}

static int write_record(
	struct datapath *dp, struct load *load, const struct topology_port *port, const struct hd_port_policy *policy)
{
	struct attached *at = attached_add(dp, port->device, port->ifindex);
	int r;

	if (!at)
		return -ENOMEM;
	/* Of a device that has nothing of ours yet, whatever comes of it. */
	if (!at->clsact && at->link[LINK_XDP] < 0 && at->link[LINK_TCX_IN] < 0 && at->link[LINK_TCX_OUT] < 0)
		at->role = ROLE_PORT;
	if (is_written(at, load, &port->record, policy))
		return 0;
	at->written = NULL;
	r = port_write(load, &port->record, policy->generation ? policy : NULL);
	at->refused = at->in ? 0 : r;
	if (r < 0)
		return r;
	if (at->record.flags & (HD_PORT_LIMIT_IN | HD_PORT_LIMIT_OUT) &&
		!(port->record.flags & (HD_PORT_LIMIT_IN | HD_PORT_LIMIT_OUT)))
		limits_forget(load, port->ifindex);
	at->record = port->record;
	at->record.policy[0] = *policy;
	at->written = policy->generation ? load : NULL;
	return 0;
}

/* One that finds no room does not stop the others. The first error. */
static int write_records(struct datapath *dp, struct load *load, const struct topology *t, const struct hd_port_policy *policies)
{
	int first_error = 0;

	for (size_t i = 0; i < t->n_ports; i++) {
		const struct topology_port *port = &t->ports[i];
		int r = port->ifindex ? write_record(dp, load, port, &policies[i]) : 0;

		if (r < 0)
			(void)log_err(r, "cannot write the record of the port %s%s", port->device,
				r == -E2BIG ? ": the table ports_hash is full" : "");
		if (r < 0 && first_error == 0)
			first_error = r;
	}
	return first_error;
}

static int attach_port(struct datapath *dp, struct load *load, const struct topology_port *port, bool *renamed)
{
	struct attached *at = attached_add(dp, port->device, port->ifindex);
	int r;

	if (!at)
		return -ENOMEM;
	/* Without a record its packets would pass unjudged: it is left alone. */
	if (at->refused)
		return 0;
	if (at->doubtful || at->in != load || strcmp(at->device, port->device) != 0)
		attached_refresh(dp, at, port->device, renamed);
	at->doubtful = false;
	if (at->role == ROLE_PORT && at->in == load && complete(at))
		return 0;
	at->role = ROLE_PORT; /* of a device that was an uplink, the links are updated */
	attached_drop_link(dp, at, LINK_XDP);
	r = attach_tc(dp, load, at);
	if (r < 0)
		return log_err(r, "cannot attach to the port %s: it is not switched", at->device);
	if (!at->in)
		log_info("%s is a port now", at->device);
	at->in = load;
	steer_follow(dp, load, at->ifindex);
	count_foreign(load, at);
	return 0;
}

static bool has_tunnel(const struct topology *t)
{
	return t->tunnel.protocol != HD_TUNNEL_NONE;
}

static int attach_ports(struct datapath *dp, struct load *load, const struct topology *t)
{
	int first_error = 0, r;
	bool renamed = false;

	for (size_t i = 0; i < t->n_ports; i++) {
		if (!t->ports[i].ifindex)
			continue;
		r = load_ports(load, t->n_wires > 0, has_tunnel(t));
		if (r < 0)
			return r;
		r = attach_port(dp, load, &t->ports[i], &renamed);
		if (r < 0 && first_error == 0)
			first_error = r;
	}
	if (renamed)
		attached_remove_old_names(dp);
	return first_error;
}

const char *datapath_port_refused(struct datapath *dp, uint32_t ifindex)
{
	const struct attached *at = attached_by_ifindex(dp, ifindex);

	if (!at || !at->refused)
		return NULL;
	return at->refused == -E2BIG ? "there is no room for its record: the table ports_hash is full"
				     : "its record could not be written";
}

/* Rows that nothing finds any more are gone: rows_remove(). */
static void release_ports(struct datapath *dp, const struct topology *t)
{
	for (size_t i = 0; i < dp->n_attached; i++)
		dp->attached[i].listed = false;
	for (size_t i = 0; i < t->n_ports; i++) {
		struct attached *at = t->ports[i].ifindex ? attached_by_ifindex(dp, t->ports[i].ifindex) : NULL;

		if (at)
			at->listed = true;
	}
	for (size_t i = dp->n_attached; i-- > 0;)
		if (dp->attached[i].role == ROLE_PORT && !dp->attached[i].listed)
			attached_release(dp, i);
}

/* A packet that looked its ends up before a row changed is through by then. */
#define MOVE_MS 100

static int compare_ids(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* Their flows look up again where their ends are. */
static int tell_moved(struct load *load, struct moved *moved)
{
	bool peers = false;
	uint32_t tick = 0;
	int r = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(moved->peer); i++)
		peers |= moved->peer[i] != 0;
	if (peers || moved->n)
		tick = tick_now(load) + (uint32_t)ticks_of_ms(MOVE_MS);
	tick = tick ? tick : 1;
	for (uint32_t i = 1; peers && i < HD_PEERS_MAX && i < load->maps[MAP_PEERS].max_entries; i++)
		if (moved->peer[i / 64] & UINT64_C(1) << i % 64)
			__atomic_store_n(&load->peers[i].moved, tick, __ATOMIC_RELEASE);
	if (moved->n)
		qsort(moved->ifindex, moved->n, sizeof(*moved->ifindex), compare_ids);
	for (size_t i = 0; i < moved->n && r == 0; i++)
		if (i == 0 || moved->ifindex[i - 1] != moved->ifindex[i])
			r = port_set_moved(load, moved->ifindex[i], tick);
	free(moved->ifindex);
	return r < 0 ? log_err(r, "cannot tell the flows of a port that an address moved") : 0;
}

int datapath_remove(struct datapath *dp, const struct topology *topology)
{
	struct load *load = load_writable(dp);
	struct moved moved = {0};
	int r, told;

	if (!load)
		return -ENOTCONN;
	r = rows_remove(load, topology, &moved);
	told = tell_moved(load, &moved); /* of what did go, too, when not all could */
	return r < 0 ? r : told;
}

static int write_rows(struct datapath *dp, struct load *load, const struct topology *topology)
{
	struct moved moved = {0};
	int r = rows_write(load, topology, &dp->tunnel_devices, &moved), told = tell_moved(load, &moved);

	return r < 0 ? r : told;
}

/* What the uplinks call, and what ports will carry whose devices are yet to come: loading takes longer than attaching to hundreds of them. */
static int load_ahead(struct load *load, const struct topology *topology)
{
	bool wanted = topology->n_wires || has_tunnel(topology) || topology->n_ports;

	return wanted ? load_ports(load, topology->n_wires > 0, has_tunnel(topology)) : 0;
}

int datapath_prepare(struct datapath *dp, const struct topology *topology, const struct hd_port_policy *policies)
{
	struct load *load = load_writable(dp);
	int r;

	if (!load || (!topology->n_wires && !has_tunnel(topology)))
		return 0;
	r = load_ahead(load, topology);
	if (r < 0 || load->attached)
		return r;
	r = rows_networks(load, topology);
	if (r < 0)
		return r;
	r = write_records(dp, load, topology, policies);
	return r < 0 ? r : write_rows(dp, load, topology);
}

int datapath_ports(struct datapath *dp, const struct topology *topology, const struct hd_port_policy *policies)
{
	struct load *load = load_writable(dp);
	bool fresh = load && load == dp->next;
	int records, attached = 0, r;

	if (!load)
		return -ENOTCONN;
	r = load_ahead(load, topology);
	if (r < 0)
		return r;
	r = rows_networks(load, topology);
	if (r < 0)
		return r;
	records = write_records(dp, load, topology, policies);
	if (!fresh)
		attached = attach_ports(dp, load, topology);
	r = write_rows(dp, load, topology);
	if (r == 0 && fresh) {
		(void)carry_over(dp);
		attached = attach_ports(dp, load, topology);
	}
	if (r == 0)
		release_ports(dp, topology);
	if (r == 0 && fresh)
		limits_prune(load);
	if (r == 0)
		r = records < 0 ? records : attached;
	return attached_report(dp) < 0 && r == 0 ? -ENOMEM : r;
}
