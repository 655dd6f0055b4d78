// SPDX-License-Identifier: Apache-2.0
/* FastPath: packets of an uplink or a port that go to AF_XDP sockets. */
#include <model/kinds.h>

#include <string.h>

#include <util/addr.h>
#include <util/cleanup.h>

#define KEYS_MOST FAST_PATH_MATCHES_MOST

/* --- match --- */

struct match_draft {
	struct prefix source, destination;
	const char *policy, *rule;
	uint16_t port, source_port, vlan;
	uint8_t protocol;
};

static bool finish_match(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct match_draft *from = draft;
	node_id source = node_field(d, node, "source"), destination = node_field(d, node, "destination");
	struct path at = {.up = path, .key = "source"};

	d->line = tree_node(d->tree, node)->line;
	if ((from->port || from->source_port) && !from->protocol) {
		at.key = "protocol";
		return want(d, &at, NODE_NONE, "a protocol beside a port");
	}
	if (from->rule && !from->policy) {
		at.key = "hostPolicy";
		return want(d, &at, NODE_NONE, "the HostPolicy of the rule");
	}
	if (source && destination && (from->source.length >= 96) != (from->destination.length >= 96))
		return want(d, &at, source, "a block of the destination's family");
	*(struct fast_match *)out = (struct fast_match){
		.source = from->source,
		.destination = from->destination,
		.policy = from->policy,
		.rule = from->rule,
		.port = from->port,
		.source_port = from->source_port,
		.vlan = from->vlan,
		.protocol = from->protocol,
		.line = tree_node(d->tree, node)->line,
	};
	return true;
}

/* A block of length 0 would be all of both families in the data plane. */
static bool value_block(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	struct prefix *prefix = out;

	if (!value_cidr(d, path, node, type, out))
		return false;
	return prefix->length > 0 || want(d, path, node, "a block that is not all of IPv6: leave the field out");
}

static const struct range port_range = {.min = 1, .max = 65535, .size = 2, .unit = ""};
static const struct field match_fields[] = {
	{"protocol", value_transport, NULL, offsetof(struct match_draft, protocol), false},
	{"port", value_uint, &port_range, offsetof(struct match_draft, port), false},
	{"sourcePort", value_uint, &port_range, offsetof(struct match_draft, source_port), false},
	{"source", value_block, NULL, offsetof(struct match_draft, source), false},
	{"destination", value_block, NULL, offsetof(struct match_draft, destination), false},
	{"vlan", value_uint, &vlan_range, offsetof(struct match_draft, vlan), false},
	{"hostPolicy", value_text, &subdomain_text, offsetof(struct match_draft, policy), false},
	{"rule", value_text, &rule_name_text, offsetof(struct match_draft, rule), false},
};
static const struct schema match_schema = {
	.what = "a mapping of what packets have in common",
	SCHEMA_FIELDS(match_fields),
	.draft_size = sizeof(struct match_draft),
	.finish = finish_match,
};
static const struct list_type match_list = {
	.what = "matches",
	.item = value_mapping,
	.item_type = &match_schema,
	.item_size = sizeof(struct fast_match),
	.required = true,
	.most = KEYS_MOST,
};

/* --- queues --- */

static const struct range queue_range = {.min = 0, .max = FAST_PATH_QUEUES_MOST - 1, .size = 2, .unit = ""};
static const struct list_type queue_list = {
	.what = "queues",
	.item = value_uint,
	.item_type = &queue_range,
	.item_size = sizeof(uint16_t),
	.most = FAST_PATH_QUEUES_MOST,
};

/* all, or a list of numbers. */
static bool value_queues(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	(void)type;
	if (node && tree_is_scalar(d->tree, node)) {
		if (strcmp(tree_text(d->tree, node), "all") != 0)
			return want(d, path, node, "all or a list of queues");
		*(struct list *)out = (struct list){0};
		return true;
	}
	return value_list(d, path, node, &queue_list, out);
}

static bool check_queues(struct decoder *d, const struct path *path, node_id node, const struct list *queues)
{
	const uint16_t *numbers = queues->items;
	struct path list = {.up = path, .key = "queues"}, item = {.up = &list};
	node_id child = queues->n ? tree_first(d->tree, node_field(d, node, "queues")) : NODE_NONE;

	for (size_t i = 0; i < queues->n; i++, child = tree_next(d->tree, child)) {
		item.index = (uint32_t)i;
		for (size_t j = 0; j < i; j++)
			if (numbers[i] == numbers[j])
				return want(d, &item, child, "each queue once");
	}
	return true;
}

/* --- who may connect --- */

struct allow_draft {
	struct list users, groups;
};

static const struct range id_range = {.min = 0, .max = UINT32_MAX - 1, .size = 4, .unit = ""};
static const struct list_type id_list = {
	.what = "numbers of users or groups",
	.item = value_uint,
	.item_type = &id_range,
	.item_size = sizeof(uint32_t),
	.may_be_empty = true,
	.most = 256,
};
static const struct field allow_fields[] = {
	{"users", value_list, &id_list, offsetof(struct allow_draft, users), false},
	{"groups", value_list, &id_list, offsetof(struct allow_draft, groups), false},
};
static const struct schema allow_schema = {
	.what = "a mapping with users or groups",
	SCHEMA_FIELDS(allow_fields),
	.draft_size = sizeof(struct allow_draft),
};

/* --- memory --- */

struct memory_draft {
	uint32_t frames, frame_size, ring;
};
#define MEMORY_DEFAULTS \
	{ \
		.frames = FAST_PATH_FRAMES, .frame_size = FAST_PATH_FRAME_SIZE, .ring = FAST_PATH_RING \
	}

static bool finish_memory(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct memory_draft *from = draft;
	struct path at = {.up = path, .key = "frameSize"};

	if (from->frame_size != 2048 && from->frame_size != 4096)
		return want(d, &at, node_field(d, node, "frameSize"), "2048 or 4096");
	at.key = "ring";
	if (from->ring & (from->ring - 1))
		return want(d, &at, node_field(d, node, "ring"), "a power of two");
	*(struct memory_draft *)out = *from;
	return true;
}

static const struct range frames_range = {.min = 64, .max = 1 << 20, .size = 4, .unit = ""},
			  frame_size_range = {.min = 2048, .max = 4096, .size = 4, .unit = ""},
			  ring_range = {.min = 64, .max = 32768, .size = 4, .unit = ""};
static const struct field memory_fields[] = {
	{"frames", value_uint, &frames_range, offsetof(struct memory_draft, frames), false},
	{"frameSize", value_uint, &frame_size_range, offsetof(struct memory_draft, frame_size), false},
	{"ring", value_uint, &ring_range, offsetof(struct memory_draft, ring), false},
};
static const struct memory_draft memory_defaults = MEMORY_DEFAULTS;
static const struct schema memory_schema = {
	.what = "a mapping with frames, frameSize, ring",
	SCHEMA_FIELDS(memory_fields),
	.draft_size = sizeof(struct memory_draft),
	.defaults = &memory_defaults,
	.finish = finish_memory,
};

/* --- busy polling --- */

struct busy_draft {
	uint32_t us, budget;
};
static const struct range busy_range = {.min = 1, .max = 1000, .size = 4, .unit = " microseconds"},
			  budget_range = {.min = 1, .max = 65535, .size = 4, .unit = " packets"};
static const struct field busy_fields[] = {
	{"microseconds", value_uint, &busy_range, offsetof(struct busy_draft, us), true},
	{"budget", value_uint, &budget_range, offsetof(struct busy_draft, budget), false},
};
static const struct schema busy_schema = {
	.what = "a mapping with microseconds",
	SCHEMA_FIELDS(busy_fields),
	.draft_size = sizeof(struct busy_draft),
};

/* --- workers --- */

static const struct range workers_range = {.min = 1, .max = FAST_PATH_WORKERS_MOST, .size = 4, .unit = ""},
			  batch_range = {.min = 1, .max = FAST_PATH_BATCH_MOST, .size = 4, .unit = ""},
			  cpu_range = {.min = 0, .max = 8191, .size = 4, .unit = ""};
static const struct list_type cpu_list = {
	.what = "CPUs",
	.item = value_uint,
	.item_type = &cpu_range,
	.item_size = sizeof(uint32_t),
	.most = FAST_PATH_WORKERS_MOST,
};
static const struct list_type device_list = {
	.what = "devices",
	.item = value_text,
	.item_type = &device_text,
	.item_size = sizeof(const char *),
	.most = FAST_PATH_DEVICES_MOST,
};

/* --- the document --- */

struct fast_path_draft {
	const char *uplink, *port, *namespace_;
	struct list queues, matches, devices, cpus;
	struct allow_draft allow;
	struct memory_draft memory;
	struct busy_draft busy;
	int consumer, fallback, mode, way;
	uint32_t stall_ms, workers, batch;
	bool trusted, spin, latency;
};

/* Fields of the other consumer are mistakes. */
static bool check_fields(struct decoder *d, const struct path *path, node_id node, bool forwards)
{
	static const char *const of_sockets[] = {"uplink", "port", "namespace", "queues", "allow", "trusted", "stall"},
				 *const of_workers[] = {"devices", "way", "workers", "cpus", "spin", "batch", "latency"},
				 *const chosen[] = {"frames", "frameSize"};
	const char *const *names = forwards ? of_sockets : of_workers;
	size_t n = forwards ? ARRAY_SIZE(of_sockets) : ARRAY_SIZE(of_workers);
	node_id memory = node_field(d, node, "memory");
	struct path at = {.up = path}, in = {.up = path, .key = "memory"};

	for (size_t i = 0; i < n; i++) {
		at.key = names[i];
		if (node_field(d, node, names[i]))
			return want(d, &at, node_field(d, node, names[i]),
				forwards ? "none beside consumer forward" : "none without consumer forward");
	}
	at.up = &in;
	for (size_t i = 0; forwards && memory && i < ARRAY_SIZE(chosen); i++) {
		at.key = chosen[i];
		if (node_field(d, memory, chosen[i]))
			return want(d, &at, node_field(d, memory, chosen[i]), "none beside consumer forward: the MTU says it");
	}
	return true;
}

/* Fields of workers, where there are none. */
static bool check_way(struct decoder *d, const struct path *path, node_id node, enum fast_path_way way)
{
	static const char *const of_workers[] = {"workers", "cpus", "spin", "batch", "latency", "mode", "memory", "busyPoll"};
	struct path at = {.up = path};

	for (size_t i = 0; way == FAST_PATH_REDIRECT && i < ARRAY_SIZE(of_workers); i++) {
		at.key = of_workers[i];
		if (node_field(d, node, of_workers[i]))
			return want(d, &at, node_field(d, node, of_workers[i]), "none beside way redirect: there are no workers");
	}
	return true;
}

static bool check_forward(struct decoder *d, const struct path *path, node_id node, const struct fast_path_draft *from)
{
	const char *const *devices = from->devices.items;
	struct path at = {.up = path, .key = "devices"}, item = {.up = &at};
	node_id child = node_field(d, node, "devices");

	if (from->devices.n < 2)
		return want(d, &at, child, "a list of two devices or more beside consumer forward");
	child = tree_first(d->tree, child);
	for (size_t i = 0; i < from->devices.n; i++, child = tree_next(d->tree, child)) {
		item.index = (uint32_t)i;
		for (size_t j = 0; j < i; j++)
			if (strcmp(devices[i], devices[j]) == 0)
				return want(d, &item, child, "each device once");
	}
	at.key = "match";
	if (!node_field(d, node, "match"))
		return want(d, &at, NODE_NONE, "a list of matches beside devices");
	at.key = "cpus";
	if (from->cpus.n && from->cpus.n != from->workers)
		return want(d, &at, node_field(d, node, "cpus"), "one CPU for each of the workers");
	return check_way(d, path, node, (enum fast_path_way)from->way);
}

static bool finish_fast_path(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct fast_path_draft *from = draft;
	struct path at = {.up = path, .key = "match"};
	bool forwards = from->consumer == FAST_PATH_FORWARD;
	node_id match = node_field(d, node, "match"), namespace_ = node_field(d, node, "namespace"),
		trusted = node_field(d, node, "trusted");

	d->line = tree_node(d->tree, node)->line;
	if (!check_fields(d, path, node, forwards) || (forwards && !check_forward(d, path, node, from)))
		return false;
	if (!forwards && !from->uplink == !from->port)
		return want(d, path, from->uplink ? node : NODE_NONE, "either uplink or port");
	if (from->port && match)
		return want(
			d, &at, match, "no match beside port: what policy lets through to the port is the consumer's, all of it");
	if (from->uplink && !match)
		return want(d, &at, NODE_NONE, "a list of matches beside uplink");
	at.key = "namespace";
	if (namespace_ && !from->port)
		return want(d, &at, namespace_, "a namespace only beside port");
	at.key = "trusted";
	if (trusted && from->port && from->trusted)
		return want(d, &at, trusted, "trusted only beside uplink: what comes from a port is judged");
	if (!check_queues(d, path, node, &from->queues))
		return false;
	*(struct fast_path *)out = (struct fast_path){
		.uplink = from->uplink,
		.port = from->port,
		.port_namespace = from->namespace_,
		.queues = from->queues.items,
		.n_queues = from->queues.n,
		.matches = from->matches.items,
		.n_matches = from->matches.n,
		.users = from->allow.users.items,
		.n_users = from->allow.users.n,
		.groups = from->allow.groups.items,
		.n_groups = from->allow.groups.n,
		.consumer = (enum fast_path_consumer)from->consumer,
		/* what is for a port goes nowhere else unless the document says so */
		.drop = node_field(d, node, "fallback") ? from->fallback == 1 : from->port != NULL,
		.copy = from->mode == 1,
		.trusted = from->trusted,
		.frames = from->memory.frames,
		.frame_size = from->memory.frame_size,
		.ring = from->memory.ring,
		.busy_us = from->busy.us,
		.busy_budget = from->busy.budget,
		.stall_ms = from->stall_ms,
		.devices = from->devices.items,
		.n_devices = from->devices.n,
		.cpus = from->cpus.items,
		.n_cpus = from->cpus.n,
		.workers = from->workers,
		.batch = from->batch,
		.way = (enum fast_path_way)from->way,
		.spin = from->spin,
		.latency = from->latency,
	};
	return true;
}

static const char *const consumer_names[] = {[FAST_PATH_SOCKET] = "socket", [FAST_PATH_FORWARD] = "forward", NULL};
static const struct choice consumer_choice = {consumer_names};
static const char *const fallback_names[] = {"pass", "drop", NULL};
static const struct choice fallback_choice = {fallback_names};
static const char *const mode_names[] = {"auto", "copy", NULL};
static const struct choice mode_choice = {mode_names};
static const char *const way_names[] = {
	[FAST_PATH_WORKERS] = "workers", [FAST_PATH_REDIRECT] = "redirect", [FAST_PATH_AUTO] = "auto", NULL};
static const struct choice way_choice = {way_names};
static const struct range stall_range = {.min = 1000, .max = 3600 * 1000, .size = 4, .unit = ""};
static const struct field fast_path_fields[] = {
	{"uplink", value_text, &device_text, offsetof(struct fast_path_draft, uplink), false},
	{"port", value_text, &subdomain_text, offsetof(struct fast_path_draft, port), false},
	{"namespace", value_text, &namespace_text, offsetof(struct fast_path_draft, namespace_), false},
	{"devices", value_list, &device_list, offsetof(struct fast_path_draft, devices), false},
	{"queues", value_queues, NULL, offsetof(struct fast_path_draft, queues), false},
	{"match", value_list, &match_list, offsetof(struct fast_path_draft, matches), false},
	{"consumer", value_choice, &consumer_choice, offsetof(struct fast_path_draft, consumer), false},
	{"allow", value_mapping, &allow_schema, offsetof(struct fast_path_draft, allow), false},
	{"fallback", value_choice, &fallback_choice, offsetof(struct fast_path_draft, fallback), false},
	{"mode", value_choice, &mode_choice, offsetof(struct fast_path_draft, mode), false},
	{"trusted", value_bool, NULL, offsetof(struct fast_path_draft, trusted), false},
	{"memory", value_mapping, &memory_schema, offsetof(struct fast_path_draft, memory), false},
	{"busyPoll", value_mapping, &busy_schema, offsetof(struct fast_path_draft, busy), false},
	{"way", value_choice, &way_choice, offsetof(struct fast_path_draft, way), false},
	{"workers", value_uint, &workers_range, offsetof(struct fast_path_draft, workers), false},
	{"cpus", value_list, &cpu_list, offsetof(struct fast_path_draft, cpus), false},
	{"spin", value_bool, NULL, offsetof(struct fast_path_draft, spin), false},
	{"batch", value_uint, &batch_range, offsetof(struct fast_path_draft, batch), false},
	{"latency", value_bool, NULL, offsetof(struct fast_path_draft, latency), false},
	{"stall", value_duration, &stall_range, offsetof(struct fast_path_draft, stall_ms), false},
};
static const struct fast_path_draft fast_path_defaults = {.namespace_ = OBJECT_NAMESPACE_DEFAULT,
	.memory = MEMORY_DEFAULTS,
	.stall_ms = FAST_PATH_STALL_MS,
	.workers = 1,
	.batch = FAST_PATH_BATCH};
const struct schema fast_path_spec_schema = {
	.what = "the spec of a FastPath",
	SCHEMA_FIELDS(fast_path_fields),
	.draft_size = sizeof(struct fast_path_draft),
	.defaults = &fast_path_defaults,
	.finish = finish_fast_path,
};
