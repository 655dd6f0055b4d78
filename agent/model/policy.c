// SPDX-License-Identifier: Apache-2.0
/* HostPolicy. */
#include <model/kinds.h>

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include <util/addr.h>

static_assert(offsetof(struct host_policy, n_uplinks) == offsetof(struct host_policy, uplinks) + sizeof(void *), "struct list");

/* --- from, to --- */

struct peer_draft {
	struct prefix cidr;
	struct list except;
	const char *group;
};

static bool finish_peer(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct peer_draft *from = draft;
	const struct prefix *except = from->except.items;
	node_id cidr = node_field(d, node, "cidr"), exceptions = node_field(d, node, "except");
	struct path list = {.up = path, .key = "except"}, item = {.up = &list};
	struct peer *peer = out;
	char text[ADDR_TEXT_MAX];
	bool good = true;

	d->line = tree_node(d->tree, node)->line;
	if (!cidr == !from->group)
		return want(d, path, cidr ? node : NODE_NONE, "either cidr or addressGroup");
	if (exceptions && !cidr)
		return want(d, &list, exceptions, "except only beside cidr");

	node_id child = exceptions ? tree_first(d->tree, exceptions) : NODE_NONE;
	for (size_t i = 0; i < from->except.n; i++, child = tree_next(d->tree, child)) {
		item.index = (uint32_t)i;
		if (!addr_prefix_in_prefix(&except[i].addr, except[i].length, &from->cidr.addr, from->cidr.length))
			good = want(d, &item, child, "a block within %s",
				addr_format_cidr(&from->cidr.addr, from->cidr.length, text));
	}
	peer->prefix.addr = from->cidr.addr;
	peer->prefix.length = from->cidr.length;
	peer->n_except = (uint32_t)from->except.n;
	peer->except = from->except.items;
	peer->group = from->group;
	return good;
}

/* The same group's name is in many rules. */
static bool value_group(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	const char *text;

	(void)type;
	if (!node_is_text(d, node) || !subdomain_text.valid(tree_text(d->tree, node), tree_node(d->tree, node)->count))
		return want(d, path, node, "the name of an AddressGroup");
	text = decoder_intern(d, tree_text(d->tree, node), tree_node(d->tree, node)->count + 1, 1);
	*(const char **)out = text;
	return text != NULL;
}

static const struct list_type except_list = {
	.what = "blocks",
	.item = value_cidr,
	.item_size = sizeof(struct prefix),
	.may_be_empty = true,
	.shared = true,
	.most = 1 << 20,
};
static const struct field peer_fields[] = {
	{"cidr", value_cidr, NULL, offsetof(struct peer_draft, cidr), false},
	{"except", value_list, &except_list, offsetof(struct peer_draft, except), false},
	{"addressGroup", value_group, NULL, offsetof(struct peer_draft, group), false},
};
static const struct schema peer_schema = {
	.what = "a mapping with cidr or addressGroup",
	SCHEMA_FIELDS(peer_fields),
	.draft_size = sizeof(struct peer_draft),
	.finish = finish_peer,
};
static const struct list_type peer_list = {
	.what = "peers",
	.item = value_mapping,
	.item_type = &peer_schema,
	.item_size = sizeof(struct peer),
	.shared = true,
	.most = RULE_PEERS_MAX,
};

/* --- icmp --- */

struct icmp_draft {
	int family;
	uint32_t type, code; /* NOT_GIVEN: any */
};
enum { FAMILY_IPV4, FAMILY_IPV6 };
#define NOT_GIVEN UINT32_MAX

static bool finish_icmp(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct icmp_draft *from = draft;
	struct path type = {.up = path, .key = "type"};
	bool any_type = from->type == NOT_GIVEN, any_code = from->code == NOT_GIVEN;

	d->line = tree_node(d->tree, node)->line;
	if (any_type && !any_code)
		return want(d, &type, NODE_NONE, "0..255 beside code");
	*(struct icmp_match *)out = (struct icmp_match){
		.protocol = from->family == FAMILY_IPV6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP,
		.type_first = any_type ? 0 : (uint8_t)from->type,
		.type_last = any_type ? 255 : (uint8_t)from->type,
		.code_first = any_code ? 0 : (uint8_t)from->code,
		.code_last = any_code ? 255 : (uint8_t)from->code,
	};
	return true;
}

static const char *const family_names[] = {[FAMILY_IPV4] = "IPv4", [FAMILY_IPV6] = "IPv6", NULL};
static const struct choice family_choice = {family_names};
static const struct range icmp_number = {.min = 0, .max = 255, .size = 4, .unit = ""};
static const struct field icmp_fields[] = {
	{"type", value_uint, &icmp_number, offsetof(struct icmp_draft, type), false},
	{"code", value_uint, &icmp_number, offsetof(struct icmp_draft, code), false},
	{"family", value_choice, &family_choice, offsetof(struct icmp_draft, family), false},
};
static const struct icmp_draft icmp_defaults = {.type = NOT_GIVEN, .code = NOT_GIVEN};
static const struct schema icmp_schema = {
	.what = "a mapping with type",
	SCHEMA_FIELDS(icmp_fields),
	.draft_size = sizeof(struct icmp_draft),
	.defaults = &icmp_defaults,
	.finish = finish_icmp,
};
static const struct list_type icmp_list = {
	.what = "ICMP types",
	.item = value_mapping,
	.item_type = &icmp_schema,
	.item_size = sizeof(struct icmp_match),
	.shared = true,
	.most = 1024,
};

/* --- rules --- */

struct rule_draft {
	const char *name;
	int action;
	bool log;
	struct list peers, ports, source_ports, icmp;
};

/*
 * Source ports beside ports: both must match. What could never match, or would leave open whether the source ports count for a
 * protocol, is a mistake and not a guess.
 */
static bool check_source_ports(struct decoder *d, const struct path *path, node_id node, const struct rule_draft *from)
{
	const struct port_range *ports = from->ports.items, *sources = from->source_ports.items;
	struct path source_list = {.up = path, .key = "sourcePorts"}, list = {.up = path, .key = "ports"};
	struct path source_item = {.up = &source_list}, item = {.up = &list};
	node_id child;

	if (from->icmp.n)
		return want(d, &source_list, node_field(d, node, "sourcePorts"), "no source ports beside icmp");
	if (from->ports.n == 0)
		return true;
	child = tree_first(d->tree, node_field(d, node, "ports"));
	for (size_t i = 0; i < from->ports.n; i++, child = tree_next(d->tree, child)) {
		bool found = false;

		item.index = (uint32_t)i;
		if (!document_protocol_has_ports(ports[i].protocol))
			return want(d, &item, child, "TCP, UDP or SCTP beside sourcePorts");
		for (size_t j = 0; j < from->source_ports.n; j++)
			found |= sources[j].protocol == 0 || sources[j].protocol == ports[i].protocol;
		if (!found)
			return want(d, &source_list, node_field(d, node, "sourcePorts"),
				"source ports for %s too, which ports names", document_protocol_name(ports[i].protocol));
	}
	child = tree_first(d->tree, node_field(d, node, "sourcePorts"));
	for (size_t j = 0; j < from->source_ports.n; j++, child = tree_next(d->tree, child)) {
		bool found = sources[j].protocol == 0;

		source_item.index = (uint32_t)j;
		for (size_t i = 0; i < from->ports.n; i++)
			found |= sources[j].protocol == ports[i].protocol;
		if (!found)
			return want(d, &source_item, child, "a protocol that ports names");
	}
	return true;
}

static bool finish_rule(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct rule_draft *from = draft;
	uint32_t line = tree_node(d->tree, node)->line;
	struct rule *rule = out;

	if (from->source_ports.n && !check_source_ports(d, path, node, from))
		return false;
	*rule = (struct rule){
		.name = from->name,
		.peers = from->peers.items,
		.ports = from->ports.items,
		.line = line <= RULE_LINE_MAX ? line : RULE_LINE_MAX,
		.verdict = (uint32_t)from->action & 3,
		.log = from->log,
		.n_peers = from->peers.n & RULE_PEERS_MAX,
		.n_ports = from->ports.n & RULE_PORTS_MAX,
	};
	if (from->source_ports.n || from->icmp.n) {
		struct rule_extra extra = {
			.source_ports = from->source_ports.items,
			.icmp = from->icmp.items,
			.n_source_ports = (uint32_t)from->source_ports.n,
			.n_icmp = (uint32_t)from->icmp.n,
		};
		rule->extra = decoder_intern(d, &extra, sizeof(extra), _Alignof(struct rule_extra));
	}
	return !d->no_memory;
}

static const char *const action_names[] = {[HD_ALLOW] = "allow", [HD_DENY] = "deny", [HD_REJECT] = "reject", NULL};
static const struct choice action_choice = {action_names};

static const struct list_type port_list = {
	.what = "ports",
	.item = value_mapping,
	.item_type = &port_schemas[PORT_DESTINATION],
	.item_size = sizeof(struct port_range),
	.shared = true,
	.most = RULE_PORTS_MAX,
};
static const struct list_type source_port_list = {
	.what = "source ports",
	.item = value_mapping,
	.item_type = &port_schemas[PORT_SOURCE],
	.item_size = sizeof(struct port_range),
	.shared = true,
	.most = RULE_PORTS_MAX,
};

#define RULE_FIELDS(peers_name) \
	{ \
		{"name", value_text, &rule_name_text, offsetof(struct rule_draft, name), false}, \
			{"action", value_choice, &action_choice, offsetof(struct rule_draft, action), true}, \
			{peers_name, value_list, &peer_list, offsetof(struct rule_draft, peers), false}, \
			{"ports", value_list, &port_list, offsetof(struct rule_draft, ports), false}, \
			{"sourcePorts", value_list, &source_port_list, offsetof(struct rule_draft, source_ports), false}, \
			{"icmp", value_list, &icmp_list, offsetof(struct rule_draft, icmp), false}, \
			{"log", value_bool, NULL, offsetof(struct rule_draft, log), false}, \
	}
static const struct field ingress_fields[] = RULE_FIELDS("from");
static const struct field egress_fields[] = RULE_FIELDS("to");
static const struct schema rule_schemas[HD_DIRECTIONS] = {
	[HD_INGRESS] = {.what = "a rule",
		SCHEMA_FIELDS(ingress_fields),
		.draft_size = sizeof(struct rule_draft),
		.finish = finish_rule},
	[HD_EGRESS] = {.what = "a rule",
		SCHEMA_FIELDS(egress_fields),
		.draft_size = sizeof(struct rule_draft),
		.finish = finish_rule},
};
#define RULES_MAX (1 << 20) /* the compiler counts a policy's rules in 20 bits */
static const struct list_type rule_lists[HD_DIRECTIONS] = {
	[HD_INGRESS] = {.what = "rules",
		.item = value_mapping,
		.item_type = &rule_schemas[HD_INGRESS],
		.item_size = sizeof(struct rule),
		.may_be_empty = true,
		.most = RULES_MAX},
	[HD_EGRESS] = {.what = "rules",
		.item = value_mapping,
		.item_type = &rule_schemas[HD_EGRESS],
		.item_size = sizeof(struct rule),
		.may_be_empty = true,
		.most = RULES_MAX},
};

/* In the arena that goes when the rules are packed. */
static bool value_rules(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	bool good;

	d->arena = d->rules_arena;
	good = value_list(d, path, node, type, out);
	d->arena = d->object_arena;
	return good;
}

/* --- the policy --- */

static const struct field default_fields[] = {
	{"ingress", value_choice, &action_choice, HD_INGRESS * sizeof(int), false},
	{"egress", value_choice, &action_choice, HD_EGRESS * sizeof(int), false},
};
static const int no_default[HD_DIRECTIONS] = {-1, -1};
static const struct schema default_schema = {
	.what = "a mapping with ingress and egress",
	SCHEMA_FIELDS(default_fields),
	.draft_size = sizeof(no_default),
	.defaults = no_default,
};

static const struct list_type uplink_names = {
	.what = "devices",
	.item = value_device,
	.item_size = sizeof(char *),
	.most = 4096,
};

struct policy_draft {
	uint32_t priority;
	bool audit;
	struct list uplinks, rules[HD_DIRECTIONS];
	int default_verdict[HD_DIRECTIONS];
};

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Which groups the rules name, so that checking the references needs no rule. */
static bool collect_groups(struct decoder *d, struct host_policy *policy)
{
	_cleanup_free_ const char **names = NULL;
	size_t n = 0, size = 0, kept = 0;

	for (int direction = 0; direction < HD_DIRECTIONS; direction++) {
		for (size_t i = 0; i < policy->n_rules[direction]; i++) {
			const struct rule *rule = &policy->rules[direction][i];

			for (uint32_t j = 0; j < rule->n_peers; j++) {
				const char *group = rule->peers[j].group;

				if (!group || (n && names[n - 1] == group))
					continue;
				if (n == size) {
					size = size ? size * 2 : 16;
					const char **grown = realloc(names, size * sizeof(char *));
					if (!grown)
						return decoder_no_memory(d);
					names = grown;
				}
				names[n++] = group;
			}
		}
	}
	if (n)
		qsort(names, n, sizeof(char *), compare_names);
	for (size_t i = 0; i < n; i++)
		if (i == 0 || strcmp(names[i], names[kept - 1]) != 0)
			names[kept++] = names[i];
	policy->groups = arena_array(d->arena, const char *, kept);
	for (size_t i = 0; i < kept && policy->groups; i++) {
		policy->groups[i] = arena_string(d->arena, names[i], strlen(names[i]));
		if (!policy->groups[i])
			return decoder_no_memory(d);
	}
	policy->n_groups = kept;
	return policy->groups ? true : decoder_no_memory(d);
}

static bool finish_policy(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct policy_draft *from = draft;
	const char *const *uplinks = from->uplinks.items;
	struct path list = {.up = path, .key = "uplinks"}, item = {.up = &list};
	struct host_policy *policy = out;
	bool good = true;

	node_id child = tree_first(d->tree, node_field(d, node, "uplinks"));
	for (size_t i = 0; i < from->uplinks.n; i++, child = tree_next(d->tree, child)) {
		item.index = (uint32_t)i;
		for (size_t j = 0; j < i && good; j++)
			if (strcmp(uplinks[i], uplinks[j]) == 0)
				good = want(d, &item, child, "each device once");
	}
	policy->priority = from->priority;
	policy->audit = from->audit;
	policy->uplinks = from->uplinks.items;
	policy->n_uplinks = from->uplinks.n;
	for (int i = 0; i < HD_DIRECTIONS; i++) {
		policy->rules[i] = from->rules[i].items;
		policy->n_rules[i] = from->rules[i].n;
		policy->default_verdict[i] = from->default_verdict[i];
	}
	return good && collect_groups(d, policy);
}

static const struct range priority_range = {.min = 0, .max = 1000000, .size = 4, .unit = ""};
static const struct field policy_fields[] = {
	{"priority", value_uint, &priority_range, offsetof(struct policy_draft, priority), false},
	{"uplinks", value_list, &uplink_names, offsetof(struct policy_draft, uplinks), false},
	{"audit", value_bool, NULL, offsetof(struct policy_draft, audit), false},
	{"ingress", value_rules, &rule_lists[HD_INGRESS], offsetof(struct policy_draft, rules[HD_INGRESS]), false},
	{"egress", value_rules, &rule_lists[HD_EGRESS], offsetof(struct policy_draft, rules[HD_EGRESS]), false},
	{"default", value_mapping, &default_schema, offsetof(struct policy_draft, default_verdict), false},
};
static const struct policy_draft policy_defaults = {.priority = 1000, .default_verdict = {-1, -1}};
const struct schema policy_spec_schema = {
	.what = "the spec of a HostPolicy",
	SCHEMA_FIELDS(policy_fields),
	.draft_size = sizeof(struct policy_draft),
	.defaults = &policy_defaults,
	.finish = finish_policy,
};
