// SPDX-License-Identifier: Apache-2.0
/* spec of NetworkPolicy and the cluster-wide policies. */
#include <string.h>

#include <netinet/in.h>

#include <model/kinds.h>
#include <model/write.h>
#include <util/addr.h>

static const char *const direction_names[HD_DIRECTIONS] = {[HD_INGRESS] = "ingress", [HD_EGRESS] = "egress"};
static const char *const peer_names[HD_DIRECTIONS] = {[HD_INGRESS] = "from", [HD_EGRESS] = "to"};

/* Fits matchLabels: one value, and no requirement before it that took the key. */
static bool is_match_label(const struct selector *selector, size_t i)
{
	const struct requirement *items = selector->items;

	if (items[i].operator!= SELECTOR_IN || items[i].n_values != 1)
		return false;
	for (size_t j = i; j > 0 && strcmp(items[j - 1].key, items[i].key) == 0; j--)
		if (items[j - 1].operator== SELECTOR_IN && items[j - 1].n_values == 1)
			return false;
	return true;
}

static void expression(struct buffer *out, const struct requirement *item)
{
	static const char *const names[] = {[SELECTOR_IN] = "In",
		[SELECTOR_NOT_IN] = "NotIn",
		[SELECTOR_EXISTS] = "Exists",
		[SELECTOR_DOES_NOT_EXIST] = "DoesNotExist"};

	write_item(out, '{');
	write_text(out, "key", item->key);
	write_text(out, "operator", names[item->operator]);
	if (item->n_values) {
		write_open(out, "values", '[');
		for (uint32_t i = 0; i < item->n_values; i++) {
			write_comma(out);
			write_string(out, item->values[i]);
		}
		buffer_add_char(out, ']');
	}
	buffer_add_char(out, '}');
}

static void selector(struct buffer *out, const char *name, const struct selector *what)
{
	size_t labels = 0;

	write_open(out, name, '{');
	for (size_t i = 0; i < what->n; i++) {
		if (!is_match_label(what, i))
			continue;
		if (labels++ == 0)
			write_open(out, "matchLabels", '{');
		write_text(out, what->items[i].key, what->items[i].values[0]);
	}
	if (labels)
		buffer_add_char(out, '}');
	if (labels < what->n) {
		write_open(out, "matchExpressions", '[');
		for (size_t i = 0; i < what->n; i++)
			if (!is_match_label(what, i))
				expression(out, &what->items[i]);
		buffer_add_char(out, ']');
	}
	buffer_add_char(out, '}');
}

static void blocks(struct buffer *out, const char *name, const struct prefix *list, size_t n)
{
	write_open(out, name, '[');
	for (size_t i = 0; i < n; i++)
		write_prefix(out, &list[i]);
	buffer_add_char(out, ']');
}

/* namespaces, or pods: {namespaceSelector, podSelector}. */
static void pods_of_namespaces(struct buffer *out, const struct selector *namespaces, const struct selector *pods)
{
	if (!pods->present) {
		selector(out, "namespaces", namespaces);
		return;
	}
	write_open(out, "pods", '{');
	selector(out, "namespaceSelector", namespaces);
	selector(out, "podSelector", pods);
	buffer_add_char(out, '}');
}

static void cluster_peer(struct buffer *out, const struct policy_peer *peer)
{
	switch (peer->kind) {
	case POLICY_PEER_PODS:
		pods_of_namespaces(out, &peer->namespaces, &peer->pods);
		break;
	case POLICY_PEER_NETWORKS:
		blocks(out, "networks", peer->blocks, peer->n_blocks);
		break;
	case POLICY_PEER_NODES:
		selector(out, "nodes", &peer->nodes);
		break;
	}
}

static void network_policy_peer(struct buffer *out, const struct policy_peer *peer)
{
	char text[ADDR_TEXT_MAX];

	if (peer->kind == POLICY_PEER_NETWORKS) {
		write_open(out, "ipBlock", '{');
		write_text(out, "cidr", addr_format_cidr(&peer->blocks->addr, peer->blocks->length, text));
		if (peer->n_except)
			blocks(out, "except", peer->except, peer->n_except);
		buffer_add_char(out, '}');
		return;
	}
	if (peer->namespaces.present)
		selector(out, "namespaceSelector", &peer->namespaces);
	if (peer->pods.present)
		selector(out, "podSelector", &peer->pods);
}

static void network_policy_port(struct buffer *out, const struct policy_port *port)
{
	write_text(out, "protocol", document_protocol_name(port->range.protocol));
	if (port->name) {
		write_text(out, "port", port->name);
	} else if (!port->range.any_port) {
		write_number(out, "port", port->range.first);
		if (port->range.last != port->range.first)
			write_number(out, "endPort", port->range.last);
	}
}

static void port_v1alpha1(struct buffer *out, const struct policy_port *port)
{
	const struct port_range *range = &port->range;

	if (port->name) {
		write_text(out, "namedPort", port->name);
		return;
	}
	write_open(out, range->first == range->last ? "portNumber" : "portRange", '{');
	write_text(out, "protocol", document_protocol_name(range->protocol));
	if (range->first == range->last) {
		write_number(out, "port", range->first);
	} else {
		write_number(out, "start", range->first);
		write_number(out, "end", range->last);
	}
	buffer_add_char(out, '}');
}

static void port_v1alpha2(struct buffer *out, const struct policy_port *port)
{
	const struct port_range *range = &port->range;

	if (port->name) {
		write_text(out, "destinationNamedPort", port->name);
		return;
	}
	write_open(out, range->protocol == IPPROTO_TCP ? "tcp" : range->protocol == IPPROTO_UDP ? "udp" : "sctp", '{');
	write_open(out, "destinationPort", '{');
	if (range->first == range->last) {
		write_number(out, "number", range->first);
	} else {
		write_open(out, "range", '{');
		write_number(out, "start", range->first);
		write_number(out, "end", range->last);
		buffer_add_char(out, '}');
	}
	buffer_add_string(out, "}}");
}

static const char *action_name(enum object_kind kind, enum policy_action action)
{
	static const char *const names[] = {[POLICY_ALLOW] = "Allow", [POLICY_DENY] = "Deny", [POLICY_PASS] = "Pass"};

	return kind == OBJECT_CLUSTER_NETWORK_POLICY && action == POLICY_ALLOW ? "Accept" : names[action];
}

static void rule(struct buffer *out, enum object_kind kind, enum hd_direction direction, const struct policy_rule *what)
{
	bool cluster = kind == OBJECT_CLUSTER_NETWORK_POLICY;

	if (what->name)
		write_text(out, "name", what->name);
	if (kind != OBJECT_NETWORK_POLICY)
		write_text(out, "action", action_name(kind, what->action));
	if (what->n_peers) {
		write_open(out, peer_names[direction], '[');
		for (size_t i = 0; i < what->n_peers; i++) {
			write_item(out, '{');
			if (kind == OBJECT_NETWORK_POLICY)
				network_policy_peer(out, &what->peers[i]);
			else
				cluster_peer(out, &what->peers[i]);
			buffer_add_char(out, '}');
		}
		buffer_add_char(out, ']');
	}
	if (what->n_ports) {
		write_open(out, cluster ? "protocols" : "ports", '[');
		for (size_t i = 0; i < what->n_ports; i++) {
			write_item(out, '{');
			if (kind == OBJECT_NETWORK_POLICY)
				network_policy_port(out, &what->ports[i]);
			else if (cluster)
				port_v1alpha2(out, &what->ports[i]);
			else
				port_v1alpha1(out, &what->ports[i]);
			buffer_add_char(out, '}');
		}
		buffer_add_char(out, ']');
	}
}

static void policy_types(struct buffer *out, const struct workload_policy *policy)
{
	static const char *const names[HD_DIRECTIONS] = {[HD_INGRESS] = "Ingress", [HD_EGRESS] = "Egress"};

	write_open(out, "policyTypes", '[');
	for (int i = 0; i < HD_DIRECTIONS; i++) {
		if (!policy->applies[i])
			continue;
		write_comma(out);
		write_string(out, names[i]);
	}
	buffer_add_char(out, ']');
}

void write_workload(struct buffer *out, const struct object *object)
{
	const struct workload_policy *policy = &object->workload;

	if (object->kind == OBJECT_NETWORK_POLICY) {
		selector(out, "podSelector", &policy->pods);
		policy_types(out, policy);
	} else {
		if (object->kind == OBJECT_CLUSTER_NETWORK_POLICY)
			write_text(out, "tier", policy->baseline ? "Baseline" : "Admin");
		if (object->kind != OBJECT_BASELINE_ADMIN_NETWORK_POLICY)
			write_number(out, "priority", policy->priority);
		write_open(out, "subject", '{');
		pods_of_namespaces(out, &policy->namespaces, &policy->pods);
		buffer_add_char(out, '}');
	}
	for (int direction = 0; direction < HD_DIRECTIONS; direction++) {
		/* Said explicitly where it isolates. */
		if (!policy->n_rules[direction] && !(object->kind == OBJECT_NETWORK_POLICY && policy->applies[direction]))
			continue;
		write_open(out, direction_names[direction], '[');
		for (size_t i = 0; i < policy->n_rules[direction]; i++) {
			write_item(out, '{');
			rule(out, object->kind, (enum hd_direction)direction, &policy->rules[direction][i]);
			buffer_add_char(out, '}');
		}
		buffer_add_char(out, ']');
	}
}
