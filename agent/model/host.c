// SPDX-License-Identifier: Apache-2.0
/* Host and AddressGroup. */
#include <model/kinds.h>

#include <string.h>

#include <util/addr.h>

#define PAIR(struct_, items, n) \
	static_assert(offsetof(struct_, n) == offsetof(struct_, items) + sizeof(void *) && \
			      sizeof(((struct_ *)0)->n) == sizeof(size_t), \
		"has the layout of struct list")
PAIR(struct host, uplinks, n_uplinks);
PAIR(struct host, failsafe, n_failsafe);
PAIR(struct address_group, cidrs, n_cidrs);

/* --- uplinks --- */

struct uplink_draft {
	const char *device;
	int xdp;
};

static bool finish_uplink(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct uplink_draft *from = draft;

	(void)d, (void)path, (void)node;
	*(struct uplink *)out = (struct uplink){.device = from->device, .xdp = (enum xdp_mode)from->xdp};
	return true;
}

static const char *const xdp_names[] = {
	[XDP_MODE_AUTO] = "auto", [XDP_MODE_NATIVE] = "native", [XDP_MODE_GENERIC] = "generic", [XDP_MODE_OFF] = "off", NULL};
static const struct choice xdp_choice = {xdp_names};
static const struct field uplink_fields[] = {
	{"device", value_guarded_device, &device_text, offsetof(struct uplink_draft, device), true},
	{"xdp", value_choice, &xdp_choice, offsetof(struct uplink_draft, xdp), false},
};
static const struct schema uplink_schema = {
	.what = "a mapping with device",
	SCHEMA_FIELDS(uplink_fields),
	.draft_size = sizeof(struct uplink_draft),
	.finish = finish_uplink,
};
static const struct list_type uplink_list = {
	.what = "uplinks",
	.item = value_mapping,
	.item_type = &uplink_schema,
	.item_size = sizeof(struct uplink),
	.may_be_empty = true,
	.most = 4096,
};

static const struct list_type failsafe_list = {
	.what = "failsafe ports",
	.item = value_mapping,
	.item_type = &port_schemas[PORT_FAILSAFE],
	.item_size = sizeof(struct port_range),
	.may_be_empty = true,
	.most = 1024,
};

/* --- tunnel --- */

struct tunnel_draft {
	int protocol;
	struct hd_addr address;
	uint16_t port;
	uint8_t ttl;
	int decapsulate, checksum;
};
enum { TUNNEL_VXLAN, TUNNEL_GENEVE };

struct tunnel {
	bool present, geneve;
	uint8_t ttl;
	enum tunnel_decapsulation decapsulate;
	enum tunnel_checksum checksum;
	uint16_t port;
	struct hd_addr address;
};

static bool finish_tunnel(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct tunnel_draft *from = draft;
	struct path address = {.up = path, .key = "address"};
	bool geneve = from->protocol == TUNNEL_GENEVE;

	if (!document_address_of_tunnel(&from->address))
		return want(d, &address, node_field(d, node, "address"), "a unicast address of this host, not of fe80::/10");
	*(struct tunnel *)out = (struct tunnel){
		.present = true,
		.geneve = geneve,
		.ttl = from->ttl,
		.decapsulate = (enum tunnel_decapsulation)from->decapsulate,
		.checksum = (enum tunnel_checksum)from->checksum,
		/* The ports that IANA gave them (RFC 7348, RFC 8926). */
		.port = from->port ? from->port
			: geneve   ? 6081
				   : 4789,
		.address = from->address,
	};
	return true;
}

static const char *const tunnel_names[] = {[TUNNEL_VXLAN] = "vxlan", [TUNNEL_GENEVE] = "geneve", NULL};
static const struct choice tunnel_choice = {tunnel_names};
static const struct range tunnel_port = {.min = 1, .max = 65535, .size = 2, .unit = ""};
static const struct range tunnel_ttl = {.min = 1, .max = 255, .size = 1, .unit = ""};
static const char *const decapsulate_names[] = {
	[TUNNEL_DECAPSULATE_AUTO] = "auto", [TUNNEL_DECAPSULATE_XDP] = "xdp", [TUNNEL_DECAPSULATE_TC] = "tc", NULL};
static const struct choice decapsulate_choice = {decapsulate_names};
static const char *const checksum_names[] = {[TUNNEL_CHECKSUM_ZERO] = "zero", [TUNNEL_CHECKSUM_FULL] = "full", NULL};
static const struct choice checksum_choice = {checksum_names};
static const struct tunnel_draft tunnel_defaults = {.ttl = 64};
static const struct field tunnel_fields[] = {
	{"protocol", value_choice, &tunnel_choice, offsetof(struct tunnel_draft, protocol), true},
	{"address", value_address, NULL, offsetof(struct tunnel_draft, address), true},
	{"port", value_uint, &tunnel_port, offsetof(struct tunnel_draft, port), false},
	{"ttl", value_uint, &tunnel_ttl, offsetof(struct tunnel_draft, ttl), false},
	{"decapsulate", value_choice, &decapsulate_choice, offsetof(struct tunnel_draft, decapsulate), false},
	{"checksum", value_choice, &checksum_choice, offsetof(struct tunnel_draft, checksum), false},
};
static const struct schema tunnel_schema = {
	.what = "a mapping with protocol and address",
	SCHEMA_FIELDS(tunnel_fields),
	.draft_size = sizeof(struct tunnel_draft),
	.defaults = &tunnel_defaults,
	.finish = finish_tunnel,
};

/* --- timeouts, limits, log --- */

/* The data plane counts ticks in 32 bits and compares by difference: a month is far from where that turns over. */
static const struct range timeout_range = {.min = 100, .max = (uint64_t)30 * 86400 * 1000, .size = 4, .unit = ""};
static const struct field timeout_fields[] = {
	{"tcpEstablished", value_duration, &timeout_range, offsetof(struct host_timeouts, tcp_established), false},
	{"tcpSyn", value_duration, &timeout_range, offsetof(struct host_timeouts, tcp_syn), false},
	{"tcpFin", value_duration, &timeout_range, offsetof(struct host_timeouts, tcp_fin), false},
	{"udp", value_duration, &timeout_range, offsetof(struct host_timeouts, udp), false},
	{"udpStream", value_duration, &timeout_range, offsetof(struct host_timeouts, udp_stream), false},
	{"icmp", value_duration, &timeout_range, offsetof(struct host_timeouts, icmp), false},
	{"other", value_duration, &timeout_range, offsetof(struct host_timeouts, other), false},
};
#define DEFAULT_TIMEOUTS \
	{ \
		.tcp_established = 8 * 3600 * 1000, .tcp_syn = 60 * 1000, .tcp_fin = 10 * 1000, .udp = 30 * 1000, \
		.udp_stream = 180 * 1000, .icmp = 10 * 1000, .other = 60 * 1000, \
	}
static const struct host_timeouts default_timeouts = DEFAULT_TIMEOUTS;
static const struct schema timeout_schema = {
	.what = "a mapping of timeouts",
	SCHEMA_FIELDS(timeout_fields),
	.draft_size = sizeof(struct host_timeouts),
	.defaults = &default_timeouts,
};

struct limits {
	uint32_t flows, flows_new, flows_other, rules;
};
static const struct range table_size = {.min = 16, .max = 1 << 26, .size = 4, .unit = ""};
static const struct range rule_limit = {.min = 16, .max = (1 << 24) - 64, .size = 4, .unit = ""}; /* HD_LEAF_RULE_MASK */
static const struct field limit_fields[] = {
	{"flows", value_uint, &table_size, offsetof(struct limits, flows), false},
	{"flowsNew", value_uint, &table_size, offsetof(struct limits, flows_new), false},
	{"flowsOther", value_uint, &table_size, offsetof(struct limits, flows_other), false},
	{"rules", value_uint, &rule_limit, offsetof(struct limits, rules), false},
};
static const struct schema limit_schema = {
	.what = "a mapping of limits",
	SCHEMA_FIELDS(limit_fields),
	.draft_size = sizeof(struct limits),
};

struct log_settings {
	uint32_t every, events, rejects;
};
static const struct range log_every = {.min = 1, .max = 1000000, .size = 4, .unit = ""};
static const struct range log_rate = {.min = 0, .max = 1000000, .size = 4, .unit = " a second"};
static const struct field log_fields[] = {
	{"every", value_uint, &log_every, offsetof(struct log_settings, every), false},
	{"eventsPerSecond", value_uint, &log_rate, offsetof(struct log_settings, events), false},
	{"rejectsPerSecond", value_uint, &log_rate, offsetof(struct log_settings, rejects), false},
};
#define DEFAULT_LOG \
	{ \
		.every = HOST_LOG_EVERY, .events = HOST_EVENT_RATE, .rejects = HOST_REJECT_RATE \
	}
static const struct log_settings default_log = DEFAULT_LOG;
static const struct schema log_schema = {
	.what = "a mapping of rates",
	SCHEMA_FIELDS(log_fields),
	.draft_size = sizeof(struct log_settings),
	.defaults = &default_log,
};

/* --- kubernetes --- */

static const struct field kubernetes_fields[] = {
	{"network", value_text, &subdomain_text, 0, false},
};
static const struct schema kubernetes_schema = {
	.what = "a mapping with network",
	SCHEMA_FIELDS(kubernetes_fields),
	.draft_size = sizeof(char *),
};

/* --- the host --- */

struct host_draft {
	struct list uplinks, failsafe;
	struct tunnel tunnel;
	int forward, offload;
	struct host_timeouts timeouts;
	struct limits limits;
	struct log_settings log;
	uint32_t pickup_seconds;
	const char *kubernetes_network;
	struct list sriov, addresses;
};
static_assert(sizeof(struct host_draft) <= SCHEMA_DRAFT_MAX, "host_draft");
enum { FORWARD_PASS, FORWARD_JUDGE };
enum { OFFLOAD_OFF, OFFLOAD_AUTO };

static bool sriov_once(struct decoder *d, const struct path *path, node_id node, const struct list *list)
{
	const struct sriov_wish *wishes = list->items;
	struct path field = {.up = path, .key = "sriov"}, item = {.up = &field}, device = {.up = &item, .key = "device"};
	node_id child = tree_first(d->tree, node_field(d, node, "sriov"));

	for (size_t i = 0; i < list->n; i++, child = tree_next(d->tree, child)) {
		item.index = (uint32_t)i;
		for (size_t j = 0; j < i; j++)
			if (strcmp(wishes[i].device, wishes[j].device) == 0)
				return want(d, &device, node_field(d, child, "device"), "each device once");
	}
	return true;
}

static bool addresses_good(struct decoder *d, const struct path *path, node_id node, const struct list *list)
{
	struct path field = {.up = path, .key = "addresses"}, item = {.up = &field};
	node_id child = list->n ? tree_first(d->tree, node_field(d, node, "addresses")) : NODE_NONE;
	const struct hd_addr *addresses = list->items;

	for (size_t i = 0; i < list->n; i++, child = tree_next(d->tree, child)) {
		item.index = (uint32_t)i;
		if (!document_address_of_tunnel(&addresses[i]))
			return want(d, &item, child, "a unicast address of this host, not of fe80::/10");
	}
	return true;
}

static bool finish_host(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct host_draft *from = draft;
	const struct uplink *uplinks = from->uplinks.items;
	struct path list = {.up = path, .key = "uplinks"}, item = {.up = &list}, device = {.up = &item, .key = "device"};
	node_id child = tree_first(d->tree, node_field(d, node, "uplinks"));
	bool good = true;

	for (size_t i = 0; i < from->uplinks.n; i++, child = tree_next(d->tree, child)) {
		item.index = (uint32_t)i;
		for (size_t j = 0; j < i && good; j++)
			if (strcmp(uplinks[i].device, uplinks[j].device) == 0)
				good = want(d, &device, node_field(d, child, "device"), "each device once");
	}
	*(struct host *)out = (struct host){
		.uplinks = from->uplinks.items,
		.n_uplinks = from->uplinks.n,
		.failsafe = from->failsafe.items,
		.n_failsafe = from->failsafe.n,
		.forward_judge = from->forward == FORWARD_JUDGE,
		.offload = from->offload == OFFLOAD_AUTO,
		.timeouts = from->timeouts,
		.pickup_seconds = from->pickup_seconds,
		.has_tunnel = from->tunnel.present,
		.tunnel_geneve = from->tunnel.geneve,
		.tunnel_address = from->tunnel.address,
		.tunnel_port = from->tunnel.port,
		.tunnel_ttl = from->tunnel.ttl,
		.tunnel_decapsulate = from->tunnel.decapsulate,
		.tunnel_checksum = from->tunnel.checksum,
		.limit_flows = from->limits.flows,
		.limit_flows_new = from->limits.flows_new,
		.limit_flows_other = from->limits.flows_other,
		.limit_rules = from->limits.rules,
		.log_every = from->log.every,
		.event_rate = from->log.events,
		.reject_rate = from->log.rejects,
		.kubernetes_network = from->kubernetes_network,
		.sriov = from->sriov.items,
		.n_sriov = from->sriov.n,
		.addresses = from->addresses.items,
		.n_addresses = from->addresses.n,
	};
	return good && sriov_once(d, path, node, &from->sriov) && addresses_good(d, path, node, &from->addresses);
}

static const char *const forward_names[] = {[FORWARD_PASS] = "pass", [FORWARD_JUDGE] = "judge", NULL};
static const struct choice forward_choice = {forward_names};
static const char *const offload_names[] = {[OFFLOAD_OFF] = "off", [OFFLOAD_AUTO] = "auto", NULL};
static const struct choice offload_choice = {offload_names};
static const struct range pickup_range = {.min = 0, .max = 86400, .size = 4, .unit = " seconds"};
static const struct field host_fields[] = {
	{"uplinks", value_list, &uplink_list, offsetof(struct host_draft, uplinks), false},
	{"tunnel", value_mapping, &tunnel_schema, offsetof(struct host_draft, tunnel), false},
	{"failsafe", value_list, &failsafe_list, offsetof(struct host_draft, failsafe), false},
	{"forward", value_choice, &forward_choice, offsetof(struct host_draft, forward), false},
	{"offload", value_choice, &offload_choice, offsetof(struct host_draft, offload), false},
	{"timeouts", value_mapping, &timeout_schema, offsetof(struct host_draft, timeouts), false},
	{"pickupSeconds", value_uint, &pickup_range, offsetof(struct host_draft, pickup_seconds), false},
	{"limits", value_mapping, &limit_schema, offsetof(struct host_draft, limits), false},
	{"log", value_mapping, &log_schema, offsetof(struct host_draft, log), false},
	{"sriov", value_list, &sriov_list, offsetof(struct host_draft, sriov), false},
	{"kubernetes", value_mapping, &kubernetes_schema, offsetof(struct host_draft, kubernetes_network), false},
	{"addresses", value_list, &host_address_list, offsetof(struct host_draft, addresses), false},
};
static const struct host_draft host_defaults = {
	.timeouts = DEFAULT_TIMEOUTS,
	.log = DEFAULT_LOG,
	.pickup_seconds = 60,
};
const struct schema host_spec_schema = {
	.what = "the spec of a Host",
	SCHEMA_FIELDS(host_fields),
	.draft_size = sizeof(struct host_draft),
	.defaults = &host_defaults,
	.finish = finish_host,
};

/* --- address groups --- */

static const struct list_type cidr_list = {
	.what = "blocks",
	.item = value_cidr,
	.item_size = sizeof(struct prefix),
	.may_be_empty = true, /* a group that has nobody in it yet; a rule that names it matches nothing */
	.most = 4 << 20,
};
static const struct field group_fields[] = {
	{"cidrs", value_list, &cidr_list, offsetof(struct address_group, cidrs), true},
};
const struct schema group_spec_schema = {
	.what = "the spec of an AddressGroup",
	SCHEMA_FIELDS(group_fields),
	.draft_size = sizeof(struct address_group),
};

bool host_has_uplink(const struct host *host, const char *device)
{
	for (size_t i = 0; i < host->n_uplinks; i++)
		if (strcmp(host->uplinks[i].device, device) == 0)
			return true;
	return false;
}
