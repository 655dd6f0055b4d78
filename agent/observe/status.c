/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <net/if_arp.h>

#include <observe/fast_paths.h>
#include <netdev/queue.h>
#include <observe/json.h>
#include <observe/names.h>
#include <observe/offloaded.h>
#include <observe/status.h>
#include <util/cleanup.h>
#include <util/clock.h>

void status_memory(struct status_memory *ret)
{
	_cleanup_fclose_ FILE *file = fopen("/proc/self/statm", "re");
	uint64_t pages;

	*ret = (struct status_memory){0};
	if (file && fscanf(file, "%*u %" SCNu64, &pages) == 1)
		ret->rss = pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

size_t status_count_objects(const struct view *view, enum object_kind kind)
{
	size_t n = 0;

	for (size_t i = 0; view->objects && i < view->objects->n; i++)
		n += view->objects->items[i]->kind == kind;
	return n;
}

/* The XDP program runs on the devices where XDP is on, the TC ones on all. */
static const char *mode_at(const struct datapath_attachment *attachment, enum hd_hook hook)
{
	return hook == HD_HOOK_XDP_UPLINK ? attachment->xdp_mode : attachment->tc_mode;
}

static bool is_port_hook(enum hd_hook hook)
{
	return hook == HD_HOOK_TC_PORT_IN || hook == HD_HOOK_TC_PORT_OUT;
}

static json_t *programs_json(const struct view *view)
{
	const struct datapath_attachment *attachments;
	const struct datapath_program *programs;
	json_t *items = json_array();
	size_t n_programs, n_attachments;

	if (!view->datapath)
		return items;
	n_programs = datapath_programs(view->datapath, &programs);
	n_attachments = datapath_attachments(view->datapath, &attachments);
	for (size_t a = 0; a < n_attachments; a++)
		for (size_t p = 0; p < n_programs; p++) {
			const struct datapath_attachment *at = &attachments[a];
			const char *mode = mode_at(at, programs[p].hook);
			bool xdp = programs[p].hook == HD_HOOK_XDP_UPLINK;
			json_t *item;

			if (!programs[p].name || at->port != is_port_hook(programs[p].hook))
				continue; /* not loaded, or not there */
			if (!at->program_id[programs[p].hook] && !(xdp && at->xdp_reason[0]))
				continue; /* not on this device; of XDP on an uplink it is said why */
			item = json_pack("{s:s, s:s, s:s, s:I, s:o, s:I, s:I}", "hook", hook_name(programs[p].hook), "device",
				at->device, "mode", mode ? mode : "off", "id", (json_int_t)at->program_id[programs[p].hook],
				"name", json_text(programs[p].name), "verifiedInstructions",
				(json_int_t)programs[p].insns_verified, "jitedBytes", (json_int_t)programs[p].jited_bytes);
			if (xdp && at->xdp_reason[0])
				json_object_set_new(item, "reason", json_text(at->xdp_reason));
			json_array_append_new(items, item);
		}
	return items;
}

static json_t *uplink_json(const char *name, const struct netdev *device, const struct datapath_attachment *at)
{
	char queue[QUEUE_KIND_MAX] = "";

	if (device)
		(void)queue_kind(device->ifindex, queue);
	return json_pack("{s:s, s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:I, s:o, s:o}", "device", name, "ifindex",
		device ? json_integer(device->ifindex) : json_null(), "state", at ? "attached" : "waiting", "xdp",
		json_text(at ? at->xdp_mode : NULL), "xdpReason", json_text(at && at->xdp_reason[0] ? at->xdp_reason : NULL),
		"tc", json_text(at ? at->tc_mode : NULL), "decapsulation", json_text(at ? at->decapsulation : NULL),
		"decapsulationReason", json_text(at && at->decap_reason[0] ? at->decap_reason : NULL), "foreignAhead",
		(json_int_t)(at ? at->foreign_ahead : 0), "driver",
		json_text(device && device->driver[0] ? device->driver : NULL), "queue", json_text(queue[0] ? queue : NULL));
}

static json_t *uplinks_json(const struct view *view)
{
	const struct datapath_attachment *attachments;
	json_t *items = json_array();
	size_t n;

	for (size_t i = 0; view->host && i < view->host->n_uplinks; i++) {
		const char *name = view->host->uplinks[i].device;
		const struct netdev *device = view_device_by_name(view, name);

		json_array_append_new(items, uplink_json(name, device, device ? view_attachment(view, device->ifindex) : NULL));
	}
	if (!view->adopted)
		return items;
	/* no document declares those of an earlier agent, and still they are guarded */
	n = datapath_attachments(view->datapath, &attachments);
	for (size_t i = 0; i < n; i++)
		if (strcmp(attachments[i].device, TUNNEL_SLOW_DEVICE) != 0 &&
			strcmp(attachments[i].device, TUNNEL_SUM_FAR) != 0 &&
			strcmp(attachments[i].device, TUNNEL_STACK_DEVICE) != 0)
			json_array_append_new(items,
				uplink_json(attachments[i].device, view_device(view, attachments[i].ifindex), &attachments[i]));
	return items;
}

static json_t *addresses_json(const struct port *port)
{
	json_t *items = json_array();

	for (size_t i = 0; i < port->n_addresses; i++)
		json_array_append_new(items, json_address(&port->addresses[i]));
	return items;
}

const char *status_port_reason(const struct view *view, const struct topology_port *port)
{
	if (port->reason)
		return port->reason;
	if (port->ifindex && view_attachment(view, port->ifindex))
		return NULL;
	if (port->ifindex && view->datapath && datapath_port_refused(view->datapath, port->ifindex))
		return datapath_port_refused(view->datapath, port->ifindex);
	return "no program is attached to the device";
}

bool status_port_legacy(const struct view *view, const struct object *port)
{
	const struct sriov_vf *vf = view->sriov && port->port.pci ? sriov_find_address(view->sriov, port->port.pci) : NULL;

	return vf && !vf->representor && view->sriov->pfs[vf->pf].eswitch != ESWITCH_SWITCHDEV;
}

/* Rates in bit/s, bursts in bits; how much was dropped, by direction. */
static json_t *limit_json(const struct hd_limit *limit, const struct hd_limit_state *state, enum hd_direction direction)
{
	if (!limit->rate)
		return json_null();
	return json_pack("{s:I, s:I, s:I, s:I}", "rate", (json_int_t)limit->rate * 1000, "burst",
		(json_int_t)((uint64_t)limit->burst * limit->rate / 1000), "droppedPackets",
		(json_int_t)state->packets[direction], "droppedBytes", (json_int_t)state->bytes[direction]);
}

static json_t *bandwidth_json(const struct view *view, const struct topology_port *port)
{
	const struct hd_limit *limit = port->record.limit;
	struct hd_limit_state state = {0};

	if (!port->ifindex || (!limit[HD_INGRESS].rate && !limit[HD_EGRESS].rate))
		return json_null();
	if (view->datapath)
		(void)datapath_limit(view->datapath, port->ifindex, &state);
	return json_pack("{s:o, s:o}", "ingress", limit_json(&limit[HD_INGRESS], &state, HD_INGRESS), "egress",
		limit_json(&limit[HD_EGRESS], &state, HD_EGRESS));
}

static json_t *port_json(const struct view *view, const struct topology_port *port)
{
	const struct port *document = &port->object->port;
	const char *reason = status_port_reason(view, port);
	uint32_t identity = view->identities ? identities_number(view->identities, port->object) : 0;
	const uint8_t *mac = port->ifindex ? port->record.mac : document->mac;

	return json_pack("{s:s, s:o, s:s, s:o, s:o, s:s, s:o, s:o, s:o, s:o, s:o}", "name", port->object->name, "namespace",
		json_text(port->object->namespace_), "network", document->network, "device",
		json_text(port->ifindex ? port->device : document->device), "ifindex",
		port->ifindex ? json_integer(port->ifindex) : json_null(), "state", reason ? "waiting" : "ready", "reason",
		json_text(reason), "mac", port->ifindex || document->has_mac ? json_mac(mac) : json_null(), "addresses",
		addresses_json(document), "identity", identity ? json_integer(identity) : json_null(), "bandwidth",
		bandwidth_json(view, port));
}

static json_t *ports_json(const struct view *view)
{
	json_t *items = json_array();

	for (size_t i = 0; view->topology && i < view->topology->n_ports; i++)
		json_array_append_new(items, port_json(view, &view->topology->ports[i]));
	return items;
}

static json_t *peer_mtu_json(const struct view *view, uint32_t peer)
{
	uint16_t mtu = view->datapath ? datapath_peer_mtu(view->datapath, peer) : 0;

	return mtu ? json_integer(mtu) : json_null();
}

enum underlay_reach status_peer_reach(const struct view *view, uint32_t peer)
{
	const struct underlay_state *state = view->underlay ? underlay_find(view->underlay, peer) : NULL;

	return state ? state->reach : UNDERLAY_PENDING;
}

static json_t *traffic_json(const struct hd_peer_counters *counters, enum hd_direction direction)
{
	return json_pack("{s:I, s:I, s:I}", "packets", (json_int_t)counters->passed[direction].packets, "bytes",
		(json_int_t)counters->passed[direction].bytes, "dropped", (json_int_t)counters->dropped[direction].packets);
}

struct hd_peer_counters *status_peer_counters(const struct view *view)
{
	const struct topology *topology = view->topology;
	uint32_t n = topology && topology->n_peers ? topology->peers[topology->n_peers - 1].index + 1 : 1;
	struct hd_peer_counters *counters = calloc(n, sizeof(*counters));

	if (counters && view->datapath)
		(void)datapath_peer_counters(view->datapath, 0, n, counters);
	return counters;
}

static json_t *peers_json(const struct view *view)
{
	_cleanup_free_ struct hd_peer_counters *counters = status_peer_counters(view);
	json_t *items = json_array();

	for (size_t i = 0; counters && view->topology && i < view->topology->n_peers; i++) {
		const struct topology_peer *peer = &view->topology->peers[i];
		const struct underlay_state *state = view->underlay ? underlay_find(view->underlay, peer->index) : NULL;
		const char *name = view->networks ? networks_peer_name(view->networks, peer->index) : NULL;

		json_array_append_new(
			items, json_pack("{s:s, s:o, s:I, s:s, s:o, s:o, s:o, s:o, s:o}", "name", name ? name : peer->name,
				       "address", json_address(&peer->address), "index", (json_int_t)peer->index, "state",
				       underlay_reach_name[status_peer_reach(view, peer->index)], "reason",
				       json_text(state ? state->reason : NULL), "mtu", peer_mtu_json(view, peer->index), "ways",
				       json_ways(view, peer->index), "received", traffic_json(&counters[peer->index], HD_INGRESS),
				       "sent", traffic_json(&counters[peer->index], HD_EGRESS)));
	}
	return items;
}

/* The MTU that fits to all peers, as far as their ways are known. */
static json_t *tunnel_mtu_json(const struct view *view)
{
	uint16_t lowest = 0;

	for (size_t i = 0; view->datapath && i < view->topology->n_peers; i++) {
		uint16_t mtu = datapath_peer_mtu(view->datapath, view->topology->peers[i].index);

		if (mtu && (!lowest || mtu < lowest))
			lowest = mtu;
	}
	return lowest ? json_integer(lowest) : json_null();
}

/* By the program that takes the headers off on each uplink. */
static const char *decapsulation(const struct view *view)
{
	size_t xdp = 0, tc = 0;

	for (size_t i = 0; view->host && i < view->host->n_uplinks; i++) {
		const struct netdev *device = view_device_by_name(view, view->host->uplinks[i].device);
		const struct datapath_attachment *at = device ? view_attachment(view, device->ifindex) : NULL;

		if (!at || !at->decapsulation)
			continue;
		if (strcmp(at->decapsulation, "xdp") == 0)
			xdp++;
		else
			tc++;
	}
	return xdp && tc ? "mixed" : xdp ? "xdp" : tc ? "tc" : NULL;
}

static json_t *tunnel_json(const struct view *view)
{
	const struct hd_tunnel *tunnel = view->topology ? &view->topology->tunnel : NULL;

	bool here;

	if (!tunnel || tunnel->protocol == HD_TUNNEL_NONE)
		return json_null();
	here = tunnel_address_is_here(&tunnel->address);
	return json_pack("{s:s, s:o, s:s, s:o, s:i, s:o, s:o, s:{s:s, s:o}, s:{s:o, s:o}, s:{s:o, s:o}}", "state",
		here ? "ready" : "waiting", "reason", json_text(here ? NULL : "no interface of this host has the address"),
		"protocol", tunnel->protocol == HD_TUNNEL_GENEVE ? "geneve" : "vxlan", "address", json_address(&tunnel->address),
		"port", (int)ntohs(tunnel->port), "decapsulation", json_text(decapsulation(view)), "mtu", tunnel_mtu_json(view),
		"checksum", "mode", tunnel->flags & HD_TUNNEL_CHECKSUM ? "full" : "zero", "reason", json_text(view->sum_reason),
		"slowPath", "device", json_text(view->slow ? TUNNEL_SLOW_DEVICE : NULL), "reason", json_text(view->slow_reason),
		"host", "device", json_text(view->stack ? TUNNEL_STACK_DEVICE : NULL), "reason", json_text(view->stack_reason));
}

static json_t *nat_json(const struct view *view)
{
	if (!view->nat_table)
		return json_null();
	return json_pack("{s:s, s:s, s:o}", "table", view->nat_table, "state", view->nat_reason ? "failed" : "in-force", "reason",
		json_text(view->nat_reason));
}

static json_t *unguarded_json(const struct view *view)
{
	json_t *items = json_array();

	for (size_t i = 0; i < view->n_devices; i++)
		if (view->devices[i].type != ARPHRD_LOOPBACK && strcmp(view->devices[i].name, TUNNEL_SUM_DEVICE) != 0 &&
			strcmp(view->devices[i].name, TUNNEL_NIC_DEVICE) != 0 &&
			strcmp(view->devices[i].name, TUNNEL_STACK_FAR) != 0 && !view_is_uplink(view, view->devices[i].name) &&
			!view_attachment(view, view->devices[i].ifindex))
			json_array_append_new(items, json_string(view->devices[i].name));
	return items;
}

static json_t *flows_json(const struct view *view)
{
	struct datapath_sizes sizes = {0};
	uint64_t proven = 0, unproven = 0;

	if (view->datapath) {
		datapath_flow_counts(view->datapath, &proven, &unproven);
		datapath_sizes(view->datapath, &sizes);
	}
	return json_pack("{s:I, s:I, s:{s:I, s:I, s:I}}", "proven", (json_int_t)proven, "unproven", (json_int_t)unproven,
		"limits", "flows", (json_int_t)sizes.flows, "flowsNew", (json_int_t)sizes.flows_new, "flowsOther",
		(json_int_t)sizes.flows_other);
}

static json_t *memory_json(const struct view *view)
{
	struct datapath_sizes sizes = {0};
	struct status_memory memory;
	uint64_t policy;

	status_memory(&memory);
	if (view->datapath)
		datapath_sizes(view->datapath, &sizes);
	policy = (uint64_t)sizes.policy.addr4_nodes * sizeof(struct hd_addr4_node) +
		 (uint64_t)sizes.policy.addr4_tables * sizeof(struct hd_addr4_table) +
		 (uint64_t)sizes.policy.addr6_nodes * sizeof(struct hd_addr6_node) +
		 (uint64_t)sizes.policy.classes * sizeof(struct hd_class) +
		 (uint64_t)sizes.policy.rule_nodes * sizeof(struct hd_rule_node) +
		 (uint64_t)sizes.policy.rules * sizeof(struct hd_rule_info);
	return json_pack("{s:I, s:{s:I, s:I, s:I, s:I, s:I, s:I, s:I}}", "rss", (json_int_t)memory.rss, "maps", "policyBytes",
		(json_int_t)policy, "addr4Nodes", (json_int_t)sizes.policy.addr4_nodes, "addr4Tables",
		(json_int_t)sizes.policy.addr4_tables, "addr6Nodes", (json_int_t)sizes.policy.addr6_nodes, "classes",
		(json_int_t)sizes.policy.classes, "ruleNodes", (json_int_t)sizes.policy.rule_nodes, "rules",
		(json_int_t)sizes.policy.rules);
}

static json_t *objects_json(const struct view *view)
{
	json_t *kinds = json_object();

	for (unsigned kind = 0; kind < OBJECT_KIND_COUNT; kind++)
		json_object_set_new(kinds, object_kind_name(kind), json_integer((json_int_t)status_count_objects(view, kind)));
	return kinds;
}

static json_t *last_error_json(const struct view *view)
{
	if (!view->last_error && view->attach_error) {
		char text[160];

		snprintf(text, sizeof(text), "not every uplink and port is in force: %s; trying again",
			strerror(-view->attach_error));
		return json_pack("{s:n, s:[s]}", "time", "details", text);
	}
	if (!view->last_error)
		return json_null();
	return json_pack("{s:o, s:o}", "time", json_time(view->last_error_time), "details", json_lines(view->last_error));
}

static json_t *unsaved_json(const struct view *view)
{
	json_t *items = json_array();

	for (unsigned i = 0; i < VIEW_KEPT_COUNT; i++)
		if (view->unsaved[i].error)
			json_array_append_new(items,
				json_pack("{s:s, s:s, s:s, s:o}", "file", view_kept_file(i), "what", view_kept_text(i), "reason",
					strerror(-view->unsaved[i].error), "since", json_time(view->unsaved[i].since)));
	return items;
}

static json_t *kubernetes_json(const struct view *view)
{
	struct kubernetes_status status;
	json_t *kinds = json_array();

	if (!view->kubernetes) {
		json_decref(kinds);
		return json_null();
	}
	kubernetes_get_status(view->kubernetes, &status);
	for (size_t i = 0; i < KUBERNETES_KINDS; i++) {
		const struct kubernetes_kind_status *kind = &status.kinds[i];

		json_array_append_new(kinds, json_pack("{s:s, s:s, s:I, s:I, s:o}", "kind", kind->kind, "state", kind->state,
						     "objects", (json_int_t)kind->objects, "leftOut", (json_int_t)kind->left_out,
						     "error", json_text(kind->error)));
	}
	return json_pack("{s:s, s:s, s:b, s:b, s:o, s:o}", "server", status.server, "node", status.node, "connected",
		status.connected, "synced", kubernetes_live(view->kubernetes), "lastSync",
		status.last_sync ? json_time(status.last_sync) : json_null(), "kinds", kinds);
}

int status_cni(const struct view *view, const char *network, bool given, const char **ret_reason)
{
	const struct kubernetes_wanted wanted = {.address = !given};

	*ret_reason = NULL;
	if (!view->cni)
		*ret_reason = "the state directory cannot be used";
	else if (!view->compiler || view->lockdown || view->adopted)
		*ret_reason = "the configured files are not in force, see `heddle status`";
	if (*ret_reason)
		return -EAGAIN;
	if (network && !object_list_find(view->objects, OBJECT_NETWORK, NULL, network)) {
		*ret_reason = "there is no such Network";
		return -ENOENT;
	}
	if (view->kubernetes && network && strcmp(network, kubernetes_network(view->host)) == 0)
		*ret_reason = kubernetes_waits_for(view->kubernetes, &wanted);
	return *ret_reason ? -EAGAIN : 0;
}

json_t *status_json(const struct view *view)
{
	return json_pack("{s:b, s:I, s:b, s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:i, s:o, s:o, s:o, s:o, s:o, s:o, "
			 "s:I, s:s, s:o}",
		"ready", view->ready, "generation", (json_int_t)view->generation, "adopted", view->adopted, "lockdown",
		view->lockdown, "programs", programs_json(view), "uplinks", uplinks_json(view), "unguarded", unguarded_json(view),
		"ports", ports_json(view), "kubernetes", kubernetes_json(view), "tunnel", tunnel_json(view), "peers",
		peers_json(view), "fastPaths", fast_paths_json(view), "nat", nat_json(view), "networks",
		(int)status_count_objects(view, OBJECT_NETWORK), "flows", flows_json(view), "offload", offloaded_json(view),
		"objects", objects_json(view), "memory", memory_json(view), "lastError", last_error_json(view), "unsaved",
		unsaved_json(view), "uptime", (json_int_t)((int64_t)clock_ms() - view->started) / 1000, "version", view->version,
		"pendingConfirm",
		view->confirm_before ? json_pack("{s:o}", "confirmBefore", json_time(view->confirm_before)) : json_null());
}
