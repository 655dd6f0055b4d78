/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flows that NICs forward: where ports are representors of a NIC in switchdev mode and the Host says so. Nothing of it is there otherwise, no timer
 * either. HEDDLE_OFFLOAD=skip_hw:PRIORITY in the environment has the kernel play the NIC, on ports of any kind: for tests.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <net/if_arp.h>

#include <controller_offload.h>
#include <util/addr.h>
#include <util/clock.h>
#include <util/port_name.h>

#define FLOWS_MOST 4096	  /* offloaded at once */
#define FLOWS_A_ROUND 256 /* new ones */
#define SLOTS_A_ROUND 16384
/* What is idle is seen to be so a round late, and counters of NICs are a second old. */
#define LEAST_TIMEOUT_MS (4 * OFFLOAD_ROUND_MS)
#define SOFTWARE "skip_hw:"

struct flower_mode offload_mode(void)
{
	const char *asked = getenv("HEDDLE_OFFLOAD");
	struct flower_mode ret = {.priority = FLOWER_PRIORITY};

	if (asked && strncmp(asked, SOFTWARE, strlen(SOFTWARE)) == 0) {
		unsigned long priority = strtoul(asked + strlen(SOFTWARE), NULL, 10);

		ret.software = true;
		ret.priority = priority >= 1 && priority < 0xffff ? (uint16_t)priority : 1;
	}
	return ret;
}

uint64_t offload_switch(const struct netdev *device)
{
	enum port_flavour flavour;

	if (offload_mode().software)
		return 1;
	flavour = port_name_parse(device->port_name).flavour;
	return flavour == PORT_VF || flavour == PORT_SF || flavour == PORT_PF ? device->switch_id : 0;
}

/* Some rule of ours may be there: it is a representor, or an uplink. */
static bool on_nic(const struct netdev *device)
{
	return device->switch_id || offload_switch(device);
}

/* --- what the plan asks --- */

/* Thousands of flows ask for the same ports, each time: remembered for the length of one round. */
#define CACHE 1024
struct offload_cache {
	struct offload_world world;
	struct {
		uint32_t ifindex; /* 0: free */
		bool there;
		struct offload_port port;
	} entries[CACHE];
};

/* The policy that it is about to get. */
static void apply_change(const struct controller *c, uint32_t ifindex, struct offload_port *port)
{
	const struct topology_port *on = view_port(&c->view, ifindex);
	const struct policy_delta *delta = c->changing;
	bool known = false;

	for (size_t i = 0; on && i < delta->n_ports && !known; i++) {
		known = strcmp(delta->ports[i].port->name, on->object->name) == 0 &&
			strcmp(delta->ports[i].port->namespace_, on->object->namespace_) == 0;
		if (known)
			port->record.policy[0] = delta->ports[i].policy;
	}
	if (!known)
		port->record.policy[0].generation = 0;
	port->record.policy[1].generation = 0;
	port->generation = delta->generation;
}

static bool read_port(const struct controller *c, uint32_t ifindex, struct offload_port *ret)
{
	const struct netdev *device = view_device(&c->view, ifindex);

	if (!device || datapath_record(c->datapath, ifindex, &ret->record, &ret->generation) < 0 ||
		ret->record.flags & HD_PORT_UPLINK)
		return false;
	ret->switch_id = offload_switch(device);
	if (c->changing)
		apply_change(c, ifindex, ret);
	return true;
}

static bool world_port(uint32_t ifindex, struct offload_port *ret, void *userdata)
{
	struct controller *c = userdata;
	struct offload_cache *cache = c->offload_cache;
	unsigned at = ifindex % CACHE;

	if (cache->entries[at].ifindex != ifindex) {
		cache->entries[at].there = read_port(c, ifindex, &cache->entries[at].port);
		cache->entries[at].ifindex = ifindex;
	}
	*ret = cache->entries[at].port;
	return cache->entries[at].there;
}

static void forget_ports(struct controller *c)
{
	memset(c->offload_cache->entries, 0, sizeof(c->offload_cache->entries));
}

static bool world_neighbours(uint16_t network, const struct hd_addr *a, const struct hd_addr *b, void *userdata)
{
	struct controller *c = userdata;
	const char *name = networks_name(c->networks, network);
	const struct object *object = name ? object_list_find(c->view.objects, OBJECT_NETWORK, NULL, name) : NULL;

	/* Without subnets there is nothing to route. */
	if (!object || !object->network.n_subnets)
		return true;
	for (size_t i = 0; i < object->network.n_subnets; i++) {
		const struct prefix *subnet = &object->network.subnets[i];

		if (addr_in_prefix(a, &subnet->addr, subnet->length) && addr_in_prefix(b, &subnet->addr, subnet->length))
			return true;
	}
	return false;
}

static bool world_mac(uint16_t network, const struct hd_addr *address, uint8_t ret[6], void *userdata)
{
	static const uint8_t none[6];
	struct controller *c = userdata;
	const struct hd_endpoint *endpoint = topology_endpoint(c->topology, network, address);

	if (!endpoint || memcmp(endpoint->mac, none, sizeof(none)) == 0)
		return false;
	memcpy(ret, endpoint->mac, sizeof(endpoint->mac));
	return true;
}

/* --- what the manager does --- */

static void note_qdisc(struct controller *c, uint32_t ifindex)
{
	uint32_t *grown = reallocarray(c->offload_qdiscs, c->n_offload_qdiscs + 1, sizeof(*grown));

	if (!grown)
		return; /* it stays until --detach, which knows it by its mark */
	c->offload_qdiscs = grown;
	c->offload_qdiscs[c->n_offload_qdiscs++] = ifindex;
}

static int op_add(const struct flower_filter *filter, char reason[FLOWER_REASON_MAX], void *userdata)
{
	struct controller *c = userdata;
	int r = tc_add(c->offload_tc, filter, reason);

	/* Programs on TCX need no qdisc, rules do. */
	if (r != -EINVAL || datapath_clsact(c->datapath, filter->rule.in) != 1)
		return r;
	note_qdisc(c, filter->rule.in);
	return tc_add(c->offload_tc, filter, reason);
}

static int op_remove(const struct flower_filter *filter, struct flower_seen *seen, void *userdata)
{
	struct controller *c = userdata;

	return tc_remove(c->offload_tc, filter, seen);
}

static int op_each(uint32_t ifindex, void (*cb)(const struct flower_seen *seen, void *data), void *data, void *userdata)
{
	struct controller *c = userdata;

	return tc_each(c->offload_tc, ifindex, cb, data);
}

static int op_again(struct datapath_flow *flow, void *userdata)
{
	struct controller *c = userdata;

	return datapath_flow_again(c->datapath, flow);
}

static int op_credit(
	const struct datapath_flow *flow, const uint64_t packets[2], const uint64_t bytes[2], unsigned flags, void *userdata)
{
	struct controller *c = userdata;

	return datapath_credit(c->datapath, flow, packets, bytes, flags);
}

static int op_walk(uint32_t *cursor, datapath_flow_cb cb, void *data, void *userdata)
{
	struct controller *c = userdata;

	return datapath_proven(c->datapath, cursor, SLOTS_A_ROUND, cb, data);
}

static int op_established(const struct datapath_flow *const *flows, size_t n, bool *ret, void *userdata)
{
	struct controller *c = userdata;

	return datapath_established(c->datapath, flows, n, ret);
}

static uint64_t op_now(void *userdata)
{
	(void)userdata;
	return clock_ms();
}

/* --- when --- */

/* What it is about may begin: some port is a representor. */
static const char *why_not(const struct controller *c)
{
	if (c->sriov_job)
		return "a NIC is being set up";
	for (size_t i = 0; c->topology && i < c->topology->n_ports; i++) {
		const struct netdev *device =
			c->topology->ports[i].ifindex ? view_device(&c->view, c->topology->ports[i].ifindex) : NULL;

		if (device && offload_switch(device))
			return NULL;
	}
	return "no port is a representor of a NIC in switchdev mode";
}

static void arm(struct controller *c, sd_event_source **source, uint64_t ms, sd_event_time_handler_t handler)
{
	int r = *source ? sd_event_source_set_time_relative(*source, ms * 1000)
			: sd_event_add_time_relative(c->event, source, CLOCK_MONOTONIC, ms * 1000, ms * 100, handler, c);

	if (r >= 0)
		(void)sd_event_source_set_enabled(*source, SD_EVENT_ONESHOT);
}

static int on_look(sd_event_source *source, uint64_t now, void *userdata)
{
	struct controller *c = userdata;

	(void)source;
	(void)now;
	if (c->offload && offload_look(c->offload))
		arm(c, &c->offload_look, OFFLOAD_LOOK_MS, on_look);
	return 0;
}

static int on_round(sd_event_source *source, uint64_t now, void *userdata)
{
	struct controller *c = userdata;

	(void)source;
	(void)now;
	if (!c->offload || c->view.offload_reason)
		return 0;
	forget_ports(c);
	if (offload_round(c->offload))
		arm(c, &c->offload_look, OFFLOAD_LOOK_MS, on_look);
	drops_turn(c);
	arm(c, &c->offload_round, OFFLOAD_ROUND_MS, on_round);
	return 0;
}

static void set_timeouts(const struct controller *c, struct offload_world *world)
{
	const struct host_timeouts *timeouts = &c->settings.timeouts;

#define SET_TIMEOUT(sym, name, timeout_name) world->timeout_ms[HD_FS_##sym] = timeouts->timeout_name;
	HD_FLOW_STATES(SET_TIMEOUT)
#undef SET_TIMEOUT
}

static int begin(struct controller *c)
{
	const struct flower_mode how = offload_mode();
	const struct offload_ops ops = {.add = op_add,
		.remove = op_remove,
		.each = op_each,
		.again = op_again,
		.credit = op_credit,
		.walk = op_walk,
		.established = op_established,
		.now_ms = op_now,
		.userdata = c};
	/* NICs count frames; the kernel, on their way in, what is behind the Ethernet header. */
	const struct offload_limits limits = {.flows = FLOWS_MOST, .a_round = FLOWS_A_ROUND, .header = how.software ? 0 : 14};
	int r;

	c->offload_cache = calloc(1, sizeof(*c->offload_cache));
	if (!c->offload_cache)
		return -ENOMEM;
	c->offload_cache->world = (struct offload_world){.port = world_port,
		.neighbours = world_neighbours,
		.mac = world_mac,
		.userdata = c,
		.least_timeout_ms = LEAST_TIMEOUT_MS};
	offload_outside_world(&c->offload_cache->world);
	r = tc_open(&how, &c->offload_tc);
	if (r == 0)
		r = offload_new(&ops, &c->offload_cache->world, &limits, &c->offload);
	if (r == 0)
		r = drops_begin(c, &ops, &c->offload_cache->world, limits.header);
	if (r == 0)
		c->view.offload = c->offload;
	return r;
}

/* What a killed agent left forwards by what was right then. */
static void clear_old(struct controller *c)
{
	const struct flower_mode how = offload_mode();
	struct tc *tc = NULL;
	int r = 0;

	if (c->offload_cleared)
		return;
	c->offload_cleared = true;
	for (size_t i = 0; i < c->n_devices && r == 0; i++) {
		unsigned n = 0;

		if (!on_nic(&c->devices[i]))
			continue;
		r = tc ? 0 : tc_open(&how, &tc);
		if (r == 0)
			r = tc_clear(tc, c->devices[i].ifindex, &n);
		if (n)
			log_info("%s: %u rules of an earlier agent are taken out of the NIC", c->devices[i].name, n);
	}
	tc_close(tc);
	if (r == 0)
		r = tunnel_nic_remove();
	if (r < 0)
		log_err(r, "cannot take out of NICs what an earlier agent left there");
}

void offload_follow(struct controller *c)
{
	const char *reason;
	int r = 0;

	clear_old(c);
	if (!c->view.host || !c->view.host->offload) {
		offload_end(c);
		return;
	}
	if (!c->offload) {
		r = begin(c);
		if (r < 0)
			offload_end(c);
	}
	reason = r < 0 ? "it could not be begun" : why_not(c);
	if (c->offload) {
		forget_ports(c);
		set_timeouts(c, &c->offload_cache->world);
		if (reason) {
			offload_stop(c->offload);
			drops_stop(c->drops);
			offload_outside_end(c);
		} else {
			offload_outside_follow(c, &c->offload_cache->world);
			offload_again(c->offload);
			drops_again(c->drops);
		}
	}
	/* A round that is due keeps its time: changes may come faster than rounds. */
	if (!reason && (!c->offload_round || c->view.offload_reason))
		arm(c, &c->offload_round, OFFLOAD_ROUND_MS, on_round);
	c->view.offload_reason = reason;
}

void offload_before(struct controller *c, const struct policy_delta *delta)
{
	if (!c->offload)
		return;
	if (!delta) {
		offload_stop(c->offload);
		drops_stop(c->drops);
		return;
	}
	c->changing = delta;
	forget_ports(c);
	offload_again(c->offload);
	drops_before(c->drops);
	c->changing = NULL;
	forget_ports(c);
}

void offload_gone(struct controller *c, uint32_t ifindex)
{
	if (!c->offload)
		return;
	offload_leave(c->offload, ifindex);
	drops_leave(c->drops, ifindex);
}

void offload_end(struct controller *c)
{
	if (c->offload)
		offload_stop(c->offload);
	offload_outside_end(c);
	drops_end(c);
	for (size_t i = 0; i < c->n_offload_qdiscs; i++)
		datapath_clsact_release(c->datapath, c->offload_qdiscs[i]);
	free(TAKE_PTR(c->offload_qdiscs));
	c->n_offload_qdiscs = 0;
	c->offload_round = sd_event_source_disable_unref(c->offload_round);
	c->offload_look = sd_event_source_disable_unref(c->offload_look);
	c->view.offload = NULL;
	c->view.offload_reason = NULL;
	offload_free(TAKE_PTR(c->offload));
	tc_close(TAKE_PTR(c->offload_tc));
	free(TAKE_PTR(c->offload_cache));
}

struct clearing {
	struct tc *tc;
	int r;
};

static void clear_device(const struct netdev *device, bool gone, void *userdata)
{
	struct clearing *clearing = userdata;
	unsigned n;
	int r;

	if (gone || !on_nic(device))
		return;
	r = tc_clear(clearing->tc, device->ifindex, &n);
	if (r < 0 && clearing->r == 0)
		clearing->r = r;
}

int offload_clear(void)
{
	const struct flower_mode how = offload_mode();
	struct clearing clearing = {0};
	int r = tc_open(&how, &clearing.tc);

	if (r == 0)
		r = netdev_list(clear_device, &clearing);
	tc_close(clearing.tc);
	if (r == 0 && clearing.r == 0)
		r = tunnel_nic_remove();
	return r < 0 ? r : clearing.r;
}
