// SPDX-License-Identifier: Apache-2.0
/* NetworkPolicy of networking.k8s.io/v1. A list that is missing or empty means any; an empty rule allows everything. */
#include <model/kinds.h>

#include <netinet/in.h>

#include <util/addr.h>

/* --- ipBlock --- */

struct block_draft {
	struct prefix cidr;
	struct list except;
};

struct block {
	struct prefix cidr;
	struct list except;
	bool given;
};

static bool finish_block(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct block_draft *from = draft;
	const struct prefix *except = from->except.items;
	struct path list = {.up = path, .key = "except"}, item = {.up = &list};
	node_id child = tree_first(d->tree, node_field(d, node, "except"));
	char text[ADDR_TEXT_MAX];
	bool good = true;

	for (size_t i = 0; i < from->except.n; i++, child = tree_next(d->tree, child)) {
		item.index = (uint32_t)i;
		if (except[i].length <= from->cidr.length ||
			!addr_prefix_in_prefix(&except[i].addr, except[i].length, &from->cidr.addr, from->cidr.length))
			good = want(d, &item, child, "a block within %s and smaller",
				addr_format_cidr(&from->cidr.addr, from->cidr.length, text));
	}
	*(struct block *)out = (struct block){.cidr = from->cidr, .except = from->except, .given = true};
	return good;
}

static const struct list_type except_list = {
	.what = "blocks",
	.item = value_cidr,
	.item_type = clear_host_bits,
	.item_size = sizeof(struct prefix),
	.may_be_empty = true,
	.most = 1 << 16,
};
static const struct field block_fields[] = {
	{"cidr", value_cidr, clear_host_bits, offsetof(struct block_draft, cidr), true},
	{"except", value_list, &except_list, offsetof(struct block_draft, except), false},
};
static const struct schema block_schema = {
	.what = "a mapping with cidr",
	SCHEMA_FIELDS(block_fields),
	.draft_size = sizeof(struct block_draft),
	.finish = finish_block,
	.null_is_absent = true,
};

/* --- from, to --- */

struct peer_draft {
	struct selector namespaces, pods;
	struct block block;
};

static bool finish_peer(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct peer_draft *from = draft;
	struct policy_peer *peer = out;
	struct path block = {.up = path, .key = "ipBlock"};
	bool selects = from->namespaces.present || from->pods.present;

	if (!selects && !from->block.given)
		return mistake(d, path, tree_node(d->tree, node)->line,
			"want podSelector, namespaceSelector or ipBlock, got none of them");
	if (selects && from->block.given)
		return want(d, &block, node_field(d, node, "ipBlock"), "no ipBlock beside podSelector or namespaceSelector");
	*peer = (struct policy_peer){.kind = POLICY_PEER_PODS, .namespaces = from->namespaces, .pods = from->pods};
	if (from->block.given) {
		*peer = (struct policy_peer){
			.kind = POLICY_PEER_NETWORKS,
			.blocks = arena_copy(d->arena, &from->block.cidr, sizeof(struct prefix), _Alignof(struct prefix)),
			.n_blocks = 1,
			.except = from->block.except.items,
			.n_except = from->block.except.n,
		};
		if (!peer->blocks)
			return decoder_no_memory(d);
	}
	return true;
}

static const struct field peer_fields[] = {
	{"podSelector", value_selector, NULL, offsetof(struct peer_draft, pods), false},
	{"namespaceSelector", value_selector, NULL, offsetof(struct peer_draft, namespaces), false},
	{"ipBlock", value_mapping, &block_schema, offsetof(struct peer_draft, block), false},
};
static const struct schema peer_schema = {
	.what = "a mapping with podSelector, namespaceSelector or ipBlock",
	SCHEMA_FIELDS(peer_fields),
	.draft_size = sizeof(struct peer_draft),
	.finish = finish_peer,
	.null_is_absent = true,
};
static const struct list_type peer_list = {
	.what = "peers",
	.item = value_mapping,
	.item_type = &peer_schema,
	.item_size = sizeof(struct policy_peer),
	.may_be_empty = true,
	.most = RULE_PEERS_MAX,
};

/* --- ports --- */

/* A number, or the name of a port: "80" in quotes is a name, and none that a port can have. */
struct port_or_name {
	const char *name;
	uint16_t port;
};

static bool value_port_or_name(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	struct port_or_name *to = out;
	uint64_t number;

	(void)type;
	if (node_number(d, node, &number) && number >= 1 && number <= 65535) {
		to->port = (uint16_t)number;
		return true;
	}
	if (!node_is_text(d, node) || !port_name_text.valid(tree_text(d->tree, node), tree_node(d->tree, node)->count))
		return want(d, path, node, "1..65535 or a port name");
	to->name = arena_string(d->arena, tree_text(d->tree, node), tree_node(d->tree, node)->count);
	return to->name ? true : decoder_no_memory(d);
}

struct port_draft {
	uint8_t protocol;
	struct port_or_name port;
	uint16_t last; /* 0: not given */
};

static bool finish_port(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct port_draft *from = draft;
	struct path end_port = {.up = path, .key = "endPort"};
	uint16_t first = from->port.port, last = from->last ? from->last : first;
	bool any = !first && !from->port.name;

	if (from->last && !first)
		return want(d, &end_port, node_field(d, node, "endPort"), "no endPort without a number as port");
	if (last < first)
		return want(d, &end_port, node_field(d, node, "endPort"), "%u..65535", first);
	*(struct policy_port *)out = (struct policy_port){
		.name = from->port.name,
		.range = {.protocol = from->protocol, .any_port = any, .first = first, .last = any ? UINT16_MAX : last},
	};
	return true;
}

static const struct range port_range = {.min = 1, .max = 65535, .size = 2, .unit = ""};
static const struct field port_fields[] = {
	{"protocol", value_transport, NULL, offsetof(struct port_draft, protocol), false},
	{"port", value_port_or_name, NULL, offsetof(struct port_draft, port), false},
	{"endPort", value_uint, &port_range, offsetof(struct port_draft, last), false},
};
static const struct port_draft port_defaults = {.protocol = IPPROTO_TCP};
static const struct schema port_schema = {
	.what = "a mapping with protocol and port",
	SCHEMA_FIELDS(port_fields),
	.draft_size = sizeof(struct port_draft),
	.defaults = &port_defaults,
	.finish = finish_port,
	.null_is_absent = true,
};
static const struct list_type port_list = {
	.what = "ports",
	.item = value_mapping,
	.item_type = &port_schema,
	.item_size = sizeof(struct policy_port),
	.may_be_empty = true,
	.most = RULE_PORTS_MAX,
};

/* --- rules --- */

struct rule_draft {
	struct list peers, ports;
};

static bool finish_rule(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct rule_draft *from = draft;

	(void)path;
	*(struct policy_rule *)out = (struct policy_rule){
		.action = POLICY_ALLOW,
		.line = tree_node(d->tree, node)->line,
		.peers = from->peers.items,
		.n_peers = from->peers.n,
		.ports = from->ports.items,
		.n_ports = from->ports.n,
	};
	return true;
}

#define RULE_FIELDS(peers_name) \
	{ \
		{peers_name, value_list, &peer_list, offsetof(struct rule_draft, peers), false}, \
			{"ports", value_list, &port_list, offsetof(struct rule_draft, ports), false}, \
	}
#define RULE_SCHEMA(fields) \
	{ \
		.what = "a rule", SCHEMA_FIELDS(fields), .draft_size = sizeof(struct rule_draft), .finish = finish_rule, \
		.null_is_absent = true, \
	}
#define RULE_LIST(schema) \
	{ \
		.what = "rules", .item = value_mapping, .item_type = (schema), .item_size = sizeof(struct policy_rule), \
		.may_be_empty = true, .most = 1 << 16, \
	}
static const struct field ingress_fields[] = RULE_FIELDS("from");
static const struct field egress_fields[] = RULE_FIELDS("to");
static const struct schema ingress_schema = RULE_SCHEMA(ingress_fields);
static const struct schema egress_schema = RULE_SCHEMA(egress_fields);
static const struct list_type ingress_list = RULE_LIST(&ingress_schema);
static const struct list_type egress_list = RULE_LIST(&egress_schema);

/* --- the policy --- */

struct policy_draft {
	struct selector pods;
	struct list types, rules[HD_DIRECTIONS];
};

static bool finish_policy(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct policy_draft *from = draft;
	const enum hd_direction *types = from->types.items;
	struct workload_policy *policy = out;

	(void)d, (void)path, (void)node;
	*policy = (struct workload_policy){.pods = from->pods};
	policy->pods.present = true; /* left out it is empty: every pod */
	for (size_t i = 0; i < from->types.n; i++)
		policy->applies[types[i]] = true;
	if (from->types.n == 0) {
		policy->applies[HD_INGRESS] = true;
		policy->applies[HD_EGRESS] = from->rules[HD_EGRESS].n > 0;
	}
	for (int i = 0; i < HD_DIRECTIONS; i++) {
		policy->rules[i] = from->rules[i].items;
		policy->n_rules[i] = from->rules[i].n;
	}
	return true;
}

static const char *const type_names[] = {[HD_INGRESS] = "Ingress", [HD_EGRESS] = "Egress", NULL};
static const struct choice type_choice = {type_names};
static const struct list_type type_list = {
	.what = "policy types",
	.item = value_choice,
	.item_type = &type_choice,
	.item_size = sizeof(enum hd_direction),
	.may_be_empty = true,
	.most = HD_DIRECTIONS,
};
static_assert(sizeof(enum hd_direction) == sizeof(int), "value_choice() fills it");
static const struct field policy_fields[] = {
	{"podSelector", value_selector, NULL, offsetof(struct policy_draft, pods), false},
	{"policyTypes", value_list, &type_list, offsetof(struct policy_draft, types), false},
	{"ingress", value_list, &ingress_list, offsetof(struct policy_draft, rules[HD_INGRESS]), false},
	{"egress", value_list, &egress_list, offsetof(struct policy_draft, rules[HD_EGRESS]), false},
};
const struct schema network_policy_spec_schema = {
	.what = "the spec of a NetworkPolicy",
	SCHEMA_FIELDS(policy_fields),
	.draft_size = sizeof(struct policy_draft),
	.finish = finish_policy,
	.null_is_absent = true,
};
