// SPDX-License-Identifier: Apache-2.0
/*
 * The cluster-wide policies of policy.networking.k8s.io: AdminNetworkPolicy and BaselineAdminNetworkPolicy (v1alpha1), and their
 * successor ClusterNetworkPolicy (v1alpha2), which names some fields otherwise. Their limits are those of the CRDs.
 */
#include <model/kinds.h>

#include <netinet/in.h>
#include <string.h>

enum version { V1ALPHA1, V1ALPHA2, VERSIONS };
#define LIST_MOST_V1ALPHA1 100
#define LIST_MOST_V1ALPHA2 25
#define NETWORKS_MOST 25

/* --- pods of namespaces --- */

struct pods {
	struct selector namespaces, pods;
};

static bool finish_pods(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	struct pods *pods = out;

	(void)d, (void)path, (void)node;
	*pods = *(const struct pods *)draft;
	pods->namespaces.present = true; /* left out it is empty: all namespaces */
	return true;
}

#define POD_FIELDS(namespaces_required) \
	{ \
		{"namespaceSelector", value_selector, NULL, offsetof(struct pods, namespaces), (namespaces_required)}, \
			{"podSelector", value_selector, NULL, offsetof(struct pods, pods), true}, \
	}
#define POD_SCHEMA(fields) \
	{ \
		.what = "a mapping with namespaceSelector and podSelector", SCHEMA_FIELDS(fields), \
		.draft_size = sizeof(struct pods), .finish = finish_pods, .null_is_absent = true, \
	}
static const struct field pod_fields[VERSIONS][2] = {[V1ALPHA1] = POD_FIELDS(true), [V1ALPHA2] = POD_FIELDS(false)};
static const struct schema pod_schemas[VERSIONS] = {
	[V1ALPHA1] = POD_SCHEMA(pod_fields[V1ALPHA1]),
	[V1ALPHA2] = POD_SCHEMA(pod_fields[V1ALPHA2]),
};

/* --- subject, from, to: each of them one of several --- */

struct peer_draft {
	struct selector namespaces, nodes;
	struct pods pods;
	struct list networks;
};

static bool finish_peer(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct peer_draft *from = draft;
	int given = from->namespaces.present + from->pods.pods.present + from->nodes.present + (from->networks.n > 0);
	struct policy_peer *peer = out;

	if (given != 1)
		return mistake(d, path, tree_node(d->tree, node)->line, "want one kind of peer, got %s",
			given ? "several of them" : "none of them");
	*peer = (struct policy_peer){
		.kind = from->networks.n      ? POLICY_PEER_NETWORKS
			: from->nodes.present ? POLICY_PEER_NODES
					      : POLICY_PEER_PODS,
		.namespaces = from->namespaces.present ? from->namespaces : from->pods.namespaces,
		.pods = from->pods.pods,
		.nodes = from->nodes,
		.blocks = from->networks.items,
		.n_blocks = from->networks.n,
	};
	return true;
}

static bool finish_subject(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct peer_draft *from = draft;
	struct pods *subject = out;

	if (from->namespaces.present == from->pods.pods.present)
		return mistake(d, path, tree_node(d->tree, node)->line, "want either namespaces or pods, got %s",
			from->namespaces.present ? "both" : "neither");
	*subject = from->pods;
	if (from->namespaces.present)
		subject->namespaces = from->namespaces;
	return true;
}

/* What is behind a name changes while nobody looks, and this host is not asked about it. */
static bool refuse_domain_names(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	(void)type, (void)out;
	return want(d, path, node, "namespaces, pods, nodes or networks (peers by domain name are not supported)");
}

static const struct list_type network_list = {
	.what = "blocks",
	.item = value_cidr,
	.item_type = clear_host_bits,
	.item_size = sizeof(struct prefix),
	.required = true,
	.most = NETWORKS_MOST,
};

#define PEER_FIELDS(version) \
	{ \
		{"namespaces", value_selector, NULL, offsetof(struct peer_draft, namespaces), false}, \
			{"pods", value_mapping, &pod_schemas[version], offsetof(struct peer_draft, pods), false}, \
			{"nodes", value_selector, NULL, offsetof(struct peer_draft, nodes), false}, \
			{"networks", value_list, &network_list, offsetof(struct peer_draft, networks), false}, \
			{"domainNames", refuse_domain_names, NULL, 0, false}, \
	}
#define PEER_FIELD_COUNT 5
#define POD_PEER_FIELD_COUNT 2 /* all that a subject has, or the far end of ingress */
static const struct field peer_fields[VERSIONS][PEER_FIELD_COUNT] = {
	[V1ALPHA1] = PEER_FIELDS(V1ALPHA1),
	[V1ALPHA2] = PEER_FIELDS(V1ALPHA2),
};

#define PEER_SCHEMA(what_, version, n_fields_, check) \
	{ \
		.what = (what_), .fields = peer_fields[version], .n_fields = (n_fields_), \
		.draft_size = sizeof(struct peer_draft), .finish = (check), .null_is_absent = true, \
	}
static const struct schema subject_schemas[VERSIONS] = {
	[V1ALPHA1] = PEER_SCHEMA("a mapping with namespaces or pods", V1ALPHA1, POD_PEER_FIELD_COUNT, finish_subject),
	[V1ALPHA2] = PEER_SCHEMA("a mapping with namespaces or pods", V1ALPHA2, POD_PEER_FIELD_COUNT, finish_subject),
};
static const struct schema peer_schemas[VERSIONS][HD_DIRECTIONS] = {
	[V1ALPHA1] = {[HD_INGRESS] = PEER_SCHEMA("a peer", V1ALPHA1, POD_PEER_FIELD_COUNT, finish_peer),
		[HD_EGRESS] = PEER_SCHEMA("a peer", V1ALPHA1, PEER_FIELD_COUNT, finish_peer)},
	[V1ALPHA2] = {[HD_INGRESS] = PEER_SCHEMA("a peer", V1ALPHA2, POD_PEER_FIELD_COUNT, finish_peer),
		[HD_EGRESS] = PEER_SCHEMA("a peer", V1ALPHA2, PEER_FIELD_COUNT, finish_peer)},
};

#define PEER_LIST(version, direction, most_) \
	{ \
		.what = "peers", .item = value_mapping, .item_type = &peer_schemas[version][direction], \
		.item_size = sizeof(struct policy_peer), .required = true, .most = (most_), \
	}
static const struct list_type peer_lists[VERSIONS][HD_DIRECTIONS] = {
	[V1ALPHA1] = {[HD_INGRESS] = PEER_LIST(V1ALPHA1, HD_INGRESS, LIST_MOST_V1ALPHA1),
		[HD_EGRESS] = PEER_LIST(V1ALPHA1, HD_EGRESS, LIST_MOST_V1ALPHA1)},
	[V1ALPHA2] = {[HD_INGRESS] = PEER_LIST(V1ALPHA2, HD_INGRESS, LIST_MOST_V1ALPHA2),
		[HD_EGRESS] = PEER_LIST(V1ALPHA2, HD_EGRESS, LIST_MOST_V1ALPHA2)},
};

/* --- ports --- */

struct ports_draft {
	uint8_t protocol;
	uint16_t first, last; /* first 0: not given */
};

static bool finish_number(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	(void)d, (void)path, (void)node;
	*(struct ports_draft *)out = *(const struct ports_draft *)draft;
	((struct ports_draft *)out)->last = ((const struct ports_draft *)draft)->first;
	return true;
}

static bool check_range(
	struct decoder *d, const struct path *path, node_id node, const struct ports_draft *from, unsigned apart, void *out)
{
	struct path end = {.up = path, .key = "end"};

	if (from->last < from->first + apart)
		return want(d, &end, node_field(d, node, "end"), "a port from %u up", from->first + apart);
	*(struct ports_draft *)out = *from;
	return true;
}

static bool finish_range_v1alpha1(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	return check_range(d, path, node, draft, 0, out);
}

/* The CRD of v1alpha2 wants the end beyond the start. */
static bool finish_range_v1alpha2(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	return check_range(d, path, node, draft, 1, out);
}

static const struct range port_number = {.min = 1, .max = 65535, .size = 2, .unit = ""};
static const struct field number_fields[] = {
	{"protocol", value_transport, NULL, offsetof(struct ports_draft, protocol), false},
	{"port", value_uint, &port_number, offsetof(struct ports_draft, first), true},
};
/* v1alpha2 has no protocol here. */
static const struct field range_fields[] = {
	{"start", value_uint, &port_number, offsetof(struct ports_draft, first), true},
	{"end", value_uint, &port_number, offsetof(struct ports_draft, last), true},
	{"protocol", value_transport, NULL, offsetof(struct ports_draft, protocol), false},
};
static const struct ports_draft tcp = {.protocol = IPPROTO_TCP};
static const struct schema number_schema = {
	.what = "a mapping with protocol and port",
	SCHEMA_FIELDS(number_fields),
	.draft_size = sizeof(struct ports_draft),
	.defaults = &tcp,
	.finish = finish_number,
	.null_is_absent = true,
};
static const struct schema range_schemas[VERSIONS] = {
	[V1ALPHA1] = {.what = "a mapping with protocol, start and end",
		SCHEMA_FIELDS(range_fields),
		.draft_size = sizeof(struct ports_draft),
		.defaults = &tcp,
		.finish = finish_range_v1alpha1,
		.null_is_absent = true},
	[V1ALPHA2] = {.what = "a mapping with start and end",
		.fields = range_fields,
		.n_fields = ARRAY_SIZE(range_fields) - 1,
		.draft_size = sizeof(struct ports_draft),
		.finish = finish_range_v1alpha2,
		.null_is_absent = true},
};

/* v1alpha1: portNumber, portRange or namedPort. */

struct port_draft {
	struct ports_draft number, range;
	const char *name;
};

static bool finish_port(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct port_draft *from = draft;
	const struct ports_draft *ports = from->number.first ? &from->number : &from->range;
	int given = (from->number.first != 0) + (from->range.first != 0) + (from->name != NULL);

	if (given != 1)
		return mistake(d, path, tree_node(d->tree, node)->line, "want one of portNumber, portRange or namedPort, got %s",
			given ? "several of them" : "none of them");
	*(struct policy_port *)out = (struct policy_port){
		.name = from->name,
		.range = {.protocol = ports->protocol, .first = ports->first, .last = ports->last},
	};
	return true;
}

static const struct field port_fields[] = {
	{"portNumber", value_mapping, &number_schema, offsetof(struct port_draft, number), false},
	{"portRange", value_mapping, &range_schemas[V1ALPHA1], offsetof(struct port_draft, range), false},
	{"namedPort", value_text, &port_name_text, offsetof(struct port_draft, name), false},
};
static const struct schema port_schema = {
	.what = "a mapping with portNumber, portRange or namedPort",
	SCHEMA_FIELDS(port_fields),
	.draft_size = sizeof(struct port_draft),
	.finish = finish_port,
	.null_is_absent = true,
};

/* v1alpha2: {tcp|udp|sctp: {destinationPort: {number|range}}} or destinationNamedPort. */

struct destination_draft {
	uint16_t number;
	struct ports_draft range;
};

static bool finish_destination(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct destination_draft *from = draft;

	if (!from->number == !from->range.first)
		return mistake(d, path, tree_node(d->tree, node)->line, "want either number or range, got %s",
			from->number ? "both" : "neither");
	*(struct ports_draft *)out =
		from->number ? (struct ports_draft){.first = from->number, .last = from->number} : from->range;
	return true;
}

static const struct field destination_fields[] = {
	{"number", value_uint, &port_number, offsetof(struct destination_draft, number), false},
	{"range", value_mapping, &range_schemas[V1ALPHA2], offsetof(struct destination_draft, range), false},
};
static const struct schema destination_schema = {
	.what = "a mapping with number or range",
	SCHEMA_FIELDS(destination_fields),
	.draft_size = sizeof(struct destination_draft),
	.finish = finish_destination,
	.null_is_absent = true,
};
static const struct field transport_fields[] = {
	{"destinationPort", value_mapping, &destination_schema, 0, true},
};
static const struct schema transport_schema = {
	.what = "a mapping with destinationPort",
	SCHEMA_FIELDS(transport_fields),
	.draft_size = sizeof(struct ports_draft),
	.null_is_absent = true,
};

struct protocol_draft {
	struct ports_draft tcp, udp, sctp;
	const char *name;
};

static bool finish_protocol(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct protocol_draft *from = draft;
	const struct {
		const struct ports_draft *ports;
		uint8_t number;
	} protocols[] = {{&from->tcp, IPPROTO_TCP}, {&from->udp, IPPROTO_UDP}, {&from->sctp, IPPROTO_SCTP}};
	struct policy_port port = {.name = from->name};
	int given = from->name != NULL;

	for (size_t i = 0; i < ARRAY_SIZE(protocols); i++) {
		const struct ports_draft *ports = protocols[i].ports;

		if (!ports->first)
			continue;
		given++;
		port.range = (struct port_range){.protocol = protocols[i].number, .first = ports->first, .last = ports->last};
	}
	if (given != 1)
		return mistake(d, path, tree_node(d->tree, node)->line,
			"want one of tcp, udp, sctp or destinationNamedPort, got %s", given ? "several of them" : "none of them");
	*(struct policy_port *)out = port;
	return true;
}

static const struct field protocol_fields[] = {
	{"tcp", value_mapping, &transport_schema, offsetof(struct protocol_draft, tcp), false},
	{"udp", value_mapping, &transport_schema, offsetof(struct protocol_draft, udp), false},
	{"sctp", value_mapping, &transport_schema, offsetof(struct protocol_draft, sctp), false},
	{"destinationNamedPort", value_text, &port_name_text, offsetof(struct protocol_draft, name), false},
};
static const struct schema protocol_schema = {
	.what = "a mapping with tcp, udp, sctp or destinationNamedPort",
	SCHEMA_FIELDS(protocol_fields),
	.draft_size = sizeof(struct protocol_draft),
	.finish = finish_protocol,
	.null_is_absent = true,
};

static const struct list_type port_lists[VERSIONS] = {
	[V1ALPHA1] = {.what = "ports",
		.item = value_mapping,
		.item_type = &port_schema,
		.item_size = sizeof(struct policy_port),
		.most = LIST_MOST_V1ALPHA1},
	[V1ALPHA2] = {.what = "protocols",
		.item = value_mapping,
		.item_type = &protocol_schema,
		.item_size = sizeof(struct policy_port),
		.most = LIST_MOST_V1ALPHA2},
};

/* --- rules --- */

struct rule_draft {
	const char *name;
	int action;
	struct list peers, ports;
};

static bool finish_rule(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct rule_draft *from = draft;
	const struct policy_peer *peers = from->peers.items;
	const struct policy_port *ports = from->ports.items;
	struct path list = {.up = path, .key = node_field(d, node, "ports") ? "ports" : "protocols"}, item = {.up = &list};
	node_id child = tree_first(d->tree, node_field(d, node, list.key));
	bool pods = true;

	for (size_t i = 0; i < from->peers.n; i++)
		pods &= peers[i].kind == POLICY_PEER_PODS;
	for (size_t i = 0; i < from->ports.n && !pods; i++, child = tree_next(d->tree, child)) {
		item.index = (uint32_t)i;
		if (ports[i].name)
			return mistake(d, &item, tree_node(d->tree, child)->line,
				"want a number beside nodes and networks, which name no ports, got %s", ports[i].name);
	}
	*(struct policy_rule *)out = (struct policy_rule){
		.name = from->name,
		.action = (enum policy_action)from->action,
		.line = tree_node(d->tree, node)->line,
		.peers = from->peers.items,
		.n_peers = from->peers.n,
		.ports = from->ports.items,
		.n_ports = from->ports.n,
	};
	return true;
}

static bool is_name(const char *text, size_t length)
{
	size_t characters = 0;

	(void)length;
	for (; *text; text++) {
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			return false;
		characters += ((unsigned char)*text & 0xc0) != 0x80;
	}
	return characters <= 100;
}

/* An empty name is none. */
static bool value_name(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	static const struct text_type text = {"a name of at most 100 characters without control characters", is_name};
	const char **name = out;

	(void)type;
	if (!value_text(d, path, node, &text, out))
		return false;
	if (!**name)
		*name = NULL;
	return true;
}

static const char *const admin_actions[] = {[POLICY_ALLOW] = "Allow", [POLICY_DENY] = "Deny", [POLICY_PASS] = "Pass", NULL};
static const char *const baseline_actions[] = {[POLICY_ALLOW] = "Allow", [POLICY_DENY] = "Deny", NULL};
static const char *const cluster_actions[] = {[POLICY_ALLOW] = "Accept", [POLICY_DENY] = "Deny", [POLICY_PASS] = "Pass", NULL};

enum kind { ADMIN, BASELINE, CLUSTER, KINDS };
static const struct choice action_choices[KINDS] = {
	[ADMIN] = {admin_actions}, [BASELINE] = {baseline_actions}, [CLUSTER] = {cluster_actions}};

#define RULE_FIELD_COUNT 4
#define RULE_FIELDS(kind, version, peers_name, direction, ports_name) \
	{ \
		{"name", value_name, NULL, offsetof(struct rule_draft, name), false}, \
			{"action", value_choice, &action_choices[kind], offsetof(struct rule_draft, action), true}, \
			{peers_name, value_list, &peer_lists[version][direction], offsetof(struct rule_draft, peers), true}, \
			{ports_name, value_list, &port_lists[version], offsetof(struct rule_draft, ports), false}, \
	}
#define RULE_FIELDS_BOTH(kind, version, ports_name) \
	{ \
		[HD_INGRESS] = RULE_FIELDS(kind, version, "from", HD_INGRESS, ports_name), \
		[HD_EGRESS] = RULE_FIELDS(kind, version, "to", HD_EGRESS, ports_name), \
	}
static const struct field rule_fields[KINDS][HD_DIRECTIONS][RULE_FIELD_COUNT] = {
	[ADMIN] = RULE_FIELDS_BOTH(ADMIN, V1ALPHA1, "ports"),
	[BASELINE] = RULE_FIELDS_BOTH(BASELINE, V1ALPHA1, "ports"),
	[CLUSTER] = RULE_FIELDS_BOTH(CLUSTER, V1ALPHA2, "protocols"),
};

#define RULE_SCHEMA(kind, direction) \
	{ \
		.what = "a rule", SCHEMA_FIELDS(rule_fields[kind][direction]), .draft_size = sizeof(struct rule_draft), \
		.finish = finish_rule, .null_is_absent = true, \
	}
#define RULE_SCHEMAS(kind) \
	{ \
		[HD_INGRESS] = RULE_SCHEMA(kind, HD_INGRESS), [HD_EGRESS] = RULE_SCHEMA(kind, HD_EGRESS), \
	}
static const struct schema rule_schemas[KINDS][HD_DIRECTIONS] = {
	[ADMIN] = RULE_SCHEMAS(ADMIN), [BASELINE] = RULE_SCHEMAS(BASELINE), [CLUSTER] = RULE_SCHEMAS(CLUSTER)};

#define RULE_LIST(kind, direction, most_) \
	{ \
		.what = "rules", .item = value_mapping, .item_type = &rule_schemas[kind][direction], \
		.item_size = sizeof(struct policy_rule), .may_be_empty = true, .most = (most_), \
	}
#define RULE_LISTS(kind, most) \
	{ \
		[HD_INGRESS] = RULE_LIST(kind, HD_INGRESS, most), [HD_EGRESS] = RULE_LIST(kind, HD_EGRESS, most), \
	}
static const struct list_type rule_lists[KINDS][HD_DIRECTIONS] = {
	[ADMIN] = RULE_LISTS(ADMIN, LIST_MOST_V1ALPHA1),
	[BASELINE] = RULE_LISTS(BASELINE, LIST_MOST_V1ALPHA1),
	[CLUSTER] = RULE_LISTS(CLUSTER, LIST_MOST_V1ALPHA2),
};

/* --- the policies --- */

struct policy_draft {
	struct pods subject;
	uint32_t priority;
	int tier;
	struct list rules[HD_DIRECTIONS];
};
enum { TIER_ADMIN, TIER_BASELINE };

static bool finish_policy(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct policy_draft *from = draft;
	struct workload_policy *policy = out;

	(void)d, (void)path, (void)node;
	*policy = (struct workload_policy){
		.namespaces = from->subject.namespaces,
		.pods = from->subject.pods,
		.applies = {true, true},
		.baseline = from->tier == TIER_BASELINE,
		.priority = from->priority,
	};
	for (int i = 0; i < HD_DIRECTIONS; i++) {
		policy->rules[i] = from->rules[i].items;
		policy->n_rules[i] = from->rules[i].n;
	}
	return true;
}

static const struct range priority_range = {.min = 0, .max = 1000, .size = 4, .unit = ""};
static const char *const tier_names[] = {[TIER_ADMIN] = "Admin", [TIER_BASELINE] = "Baseline", NULL};
static const struct choice tier_choice = {tier_names};

#define TIER_FIELD \
	{ \
		"tier", value_choice, &tier_choice, offsetof(struct policy_draft, tier), true \
	}
#define PRIORITY_FIELD \
	{ \
		"priority", value_uint, &priority_range, offsetof(struct policy_draft, priority), true \
	}
#define COMMON_FIELDS(kind, version) \
	{"subject", value_mapping, &subject_schemas[version], offsetof(struct policy_draft, subject), true}, \
		{"ingress", value_list, &rule_lists[kind][HD_INGRESS], offsetof(struct policy_draft, rules[HD_INGRESS]), false}, \
	{ \
		"egress", value_list, &rule_lists[kind][HD_EGRESS], offsetof(struct policy_draft, rules[HD_EGRESS]), false \
	}
static const struct field admin_fields[] = {PRIORITY_FIELD, COMMON_FIELDS(ADMIN, V1ALPHA1)};
static const struct field baseline_fields[] = {COMMON_FIELDS(BASELINE, V1ALPHA1)};
static const struct field cluster_fields[] = {TIER_FIELD, PRIORITY_FIELD, COMMON_FIELDS(CLUSTER, V1ALPHA2)};
static const struct policy_draft baseline_defaults = {.tier = TIER_BASELINE};

const struct schema admin_policy_spec_schema = {
	.what = "the spec of an AdminNetworkPolicy",
	SCHEMA_FIELDS(admin_fields),
	.draft_size = sizeof(struct policy_draft),
	.finish = finish_policy,
	.null_is_absent = true,
};
const struct schema baseline_policy_spec_schema = {
	.what = "the spec of a BaselineAdminNetworkPolicy",
	SCHEMA_FIELDS(baseline_fields),
	.draft_size = sizeof(struct policy_draft),
	.defaults = &baseline_defaults,
	.finish = finish_policy,
	.null_is_absent = true,
};
const struct schema cluster_policy_spec_schema = {
	.what = "the spec of a ClusterNetworkPolicy",
	SCHEMA_FIELDS(cluster_fields),
	.draft_size = sizeof(struct policy_draft),
	.finish = finish_policy,
	.null_is_absent = true,
};
