/* SPDX-License-Identifier: Apache-2.0 */
/* The judge of ports: policies for ports by the words of their documents, object by object, with nothing worked out beforehand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <netinet/in.h>

#include <cmocka.h>

#include <tests/unit/policy_env.h>
#include <util/addr.h>

static const struct object *find(const struct object_list *list, enum object_kind kind, const char *name)
{
	for (size_t i = 0; i < list->n; i++)
		if (list->items[i]->kind == kind && strcmp(list->items[i]->name, name) == 0)
			return list->items[i];
	return NULL;
}

/* A workload, here or at a Peer. */
struct somebody {
	const char *namespace_;
	const struct label *labels;
	const struct named_port *ports;
	size_t n_labels, n_ports;
};

static struct somebody this_port(const struct object *port)
{
	return (struct somebody){port->namespace_, port->labels, port->port.ports, port->n_labels, port->port.n_ports};
}

static bool has(const struct hd_addr *addresses, size_t n, const struct hd_addr *addr)
{
	for (size_t i = 0; i < n; i++)
		if (memcmp(&addresses[i], addr, sizeof(*addr)) == 0)
			return true;
	return false;
}

/* Whose address it is: the first Port's by name, or else of the first Peer's ports the first, should there be several. False: nobody's. */
static bool owner(const struct object_list *list, const char *network, const struct hd_addr *addr, struct somebody *ret)
{
	const struct object *found = NULL;

	for (size_t i = 0; i < list->n; i++) {
		const struct object *object = list->items[i];

		if (found && object_compare(object, found) > 0)
			continue;
		if (object->kind == OBJECT_PORT && strcmp(object->port.network, network) == 0 &&
			has(object->port.addresses, object->port.n_addresses, addr)) {
			found = object;
			*ret = this_port(object);
		}
		for (size_t j = 0; object->kind == OBJECT_PEER && j < object->tunnel_peer.n_ports; j++) {
			const struct peer_port *port = &object->tunnel_peer.ports[j];

			if (strcmp(port->network, network) != 0 || !has(port->addresses, port->n_addresses, addr))
				continue;
			found = object;
			*ret = (struct somebody){port->namespace_, port->labels, port->ports, port->n_labels, port->n_ports};
			break;
		}
	}
	return found;
}

static const char *value_of(const struct label *labels, size_t n, const char *key)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(labels[i].key, key) == 0)
			return labels[i].value;
	return NULL;
}

/* name: of a namespace, which is one of its labels; else NULL. */
static bool selects(const struct selector *selector, const struct label *labels, size_t n, const char *name)
{
	for (size_t i = 0; i < selector->n; i++) {
		const struct requirement *item = &selector->items[i];
		const char *value = value_of(labels, n, item->key);
		bool listed = false;

		if (name && strcmp(item->key, "kubernetes.io/metadata.name") == 0)
			value = name;
		for (uint32_t j = 0; value && j < item->n_values; j++)
			listed = listed || strcmp(item->values[j], value) == 0;
		if ((item->operator== SELECTOR_IN && !listed) || (item->operator== SELECTOR_NOT_IN && listed) ||
			(item->operator== SELECTOR_EXISTS && !value) || (item->operator== SELECTOR_DOES_NOT_EXIST && value))
			return false;
	}
	return true;
}

static bool selects_port(const struct object_list *list, const struct object *policy, const struct selector *namespaces,
	const struct selector *pods, const struct somebody *port)
{
	const struct object *space = find(list, OBJECT_NAMESPACE, port->namespace_);

	if (!namespaces->present) {
		if (!policy->namespace_ || strcmp(policy->namespace_, port->namespace_) != 0)
			return false;
	} else if (!selects(namespaces, space ? space->labels : NULL, space ? space->n_labels : 0, port->namespace_)) {
		return false;
	}
	return !pods->present || selects(pods, port->labels, port->n_labels, NULL);
}

/* The address is one that this Host, or the host of this Peer, has. */
static bool is_of_host(const struct object *host, const struct hd_addr *addr)
{
	bool peer = host->kind == OBJECT_PEER, is = false;
	const struct hd_addr *others = peer ? host->tunnel_peer.host_addresses : host->host.addresses;
	size_t n = peer ? host->tunnel_peer.n_host_addresses : host->host.n_addresses;

	if (!peer && host->kind != OBJECT_HOST)
		return false;
	if (peer || host->host.has_tunnel)
		is = memcmp(peer ? &host->tunnel_peer.address : &host->host.tunnel_address, addr, sizeof(*addr)) == 0;
	for (size_t i = 0; i < n; i++)
		is = is || memcmp(&others[i], addr, sizeof(*addr)) == 0;
	return is;
}

static bool peer_is(const struct object_list *list, const struct object *policy, const struct policy_peer *peer,
	const struct somebody *port, const struct hd_addr *addr)
{
	bool in = false;

	switch (peer->kind) {
	case POLICY_PEER_PODS:
		return port && selects_port(list, policy, &peer->namespaces, &peer->pods, port);
	case POLICY_PEER_NETWORKS:
		for (size_t i = 0; i < peer->n_blocks; i++)
			in = in || policy_judge_in_prefix(addr, &peer->blocks[i]);
		for (size_t i = 0; i < peer->n_except; i++)
			in = in && !policy_judge_in_prefix(addr, &peer->except[i]);
		return in;
	case POLICY_PEER_NODES:
		for (size_t i = 0; i < list->n; i++)
			in = in || (selects(&peer->nodes, list->items[i]->labels, list->items[i]->n_labels, NULL) &&
					   is_of_host(list->items[i], addr));
		return in;
	}
	return false;
}

static bool is_protocol(const struct lookup_packet *packet, uint8_t protocol)
{
	return (packet->kind == HD_L4_TCP && protocol == IPPROTO_TCP) || (packet->kind == HD_L4_UDP && protocol == IPPROTO_UDP) ||
	       (packet->kind == HD_L4_SCTP && protocol == IPPROTO_SCTP);
}

/* to: the destination, when it is a workload. */
static bool port_is(const struct policy_port *port, const struct somebody *to, const struct lookup_packet *packet)
{
	if (!port->name)
		return policy_judge_in_range(&port->range, packet);
	for (size_t i = 0; to && i < to->n_ports; i++) {
		const struct named_port *named = &to->ports[i];

		if (strcmp(named->name, port->name) == 0 && (!port->range.protocol || port->range.protocol == named->protocol) &&
			is_protocol(packet, named->protocol) && packet->number == named->port)
			return true;
	}
	return false;
}

/* The index of the first rule that matches, or the number of rules. */
static uint32_t first_rule(const struct object_list *list, const struct object *policy, enum hd_direction direction,
	const struct somebody *subject, const struct somebody *peer, const struct lookup_packet *packet)
{
	const struct workload_policy *workload = &policy->workload;
	uint32_t i;

	for (i = 0; i < workload->n_rules[direction]; i++) {
		const struct policy_rule *rule = &workload->rules[direction][i];
		const struct somebody *to = direction == HD_INGRESS ? subject : peer;
		bool match = rule->n_peers == 0;

		for (size_t j = 0; packet->ip && j < rule->n_peers && !match; j++)
			match = peer_is(list, policy, &rule->peers[j], peer, &packet->peer);
		if (!match)
			continue;
		match = rule->n_ports == 0;
		for (size_t j = 0; j < rule->n_ports && !match; j++)
			match = port_is(&rule->ports[j], to, packet);
		if (match)
			break;
	}
	return i;
}

static bool earlier(const struct object *a, const struct object *b)
{
	int c;

	if (a->workload.priority != b->workload.priority)
		return a->workload.priority < b->workload.priority;
	c = strcmp(a->name, b->name);
	return c ? c < 0 : object_compare(a, b) < 0;
}

enum tier { ADMIN, NETWORK, BASELINE };

static bool in_tier(const struct object *object, enum tier tier)
{
	switch (object->kind) {
	case OBJECT_NETWORK_POLICY:
		return tier == NETWORK;
	case OBJECT_ADMIN_NETWORK_POLICY:
		return tier == ADMIN;
	case OBJECT_BASELINE_ADMIN_NETWORK_POLICY:
		return tier == BASELINE;
	case OBJECT_CLUSTER_NETWORK_POLICY:
		return tier == (object->workload.baseline ? BASELINE : ADMIN);
	default:
		return false;
	}
}

/* The next policy of the tier that selects the port, after `last`. */
static const struct object *next_policy(
	const struct object_list *list, enum tier tier, const struct somebody *port, const struct object *last)
{
	const struct object *next = NULL;

	for (size_t i = 0; i < list->n; i++) {
		const struct object *object = list->items[i];

		if (in_tier(object, tier) &&
			selects_port(list, object, &object->workload.namespaces, &object->workload.pods, port) &&
			(!last || earlier(last, object)) && (!next || earlier(object, next)))
			next = object;
	}
	return next;
}

/* A tier's answer. False: it has none, or passes (answer->pass says so). */
static bool judge_tier(const struct object_list *list, enum tier tier, enum hd_direction direction, const struct somebody *port,
	const struct somebody *peer, const struct lookup_packet *packet, struct policy_answer *answer)
{
	const struct object *policy = NULL;

	while ((policy = next_policy(list, tier, port, policy))) {
		uint32_t index;
		enum policy_action action;

		if (tier == NETWORK && !policy->workload.applies[direction])
			continue;
		index = first_rule(list, policy, direction, port, peer, packet);
		if (index == policy->workload.n_rules[direction])
			continue;
		action = policy->workload.rules[direction][index].action;
		if (action == POLICY_PASS && tier == ADMIN) {
			answer->pass = policy;
			answer->pass_rule = index;
			return false;
		}
		answer->policy = policy;
		answer->rule = index;
		answer->verdict = action == POLICY_DENY ? HD_DENY : HD_ALLOW;
		answer->audit = action == POLICY_DENY && policy->workload.audit;
		return true;
	}
	return false;
}

struct policy_answer policy_judge_port(const struct object_list *list, const struct object *port, enum hd_direction direction,
	const char *network, const struct lookup_packet *packet)
{
	static const struct host no_host;
	const struct somebody subject = this_port(port);
	struct somebody other;
	const struct somebody *peer =
		packet->ip && owner(list, network ? network : port->port.network, &packet->peer, &other) ? &other : NULL;
	struct policy_answer answer = {.rule = policy_judge_builtin(&no_host, direction, packet), .verdict = HD_ALLOW};
	bool isolated = false, enforced = false;

	if (answer.rule != HD_RULE_NONE && answer.rule != HD_RULE_LINK_CONTROL)
		return answer;
	if (judge_tier(list, ADMIN, direction, &subject, peer, packet, &answer) ||
		judge_tier(list, NETWORK, direction, &subject, peer, packet, &answer))
		return answer;
	for (const struct object *policy = NULL; (policy = next_policy(list, NETWORK, &subject, policy));)
		if (policy->workload.applies[direction]) {
			isolated = true;
			enforced = enforced || !policy->workload.audit;
		}
	if (isolated) {
		answer.rule = HD_RULE_ISOLATED;
		answer.verdict = HD_DENY;
		answer.audit = !enforced;
		return answer;
	}
	if (judge_tier(list, BASELINE, direction, &subject, peer, packet, &answer))
		return answer;
	answer.rule = direction == HD_INGRESS ? HD_RULE_DEFAULT_INGRESS : HD_RULE_DEFAULT_EGRESS;
	return answer;
}
