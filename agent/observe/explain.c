/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <netinet/in.h>

#include <observe/explain_internal.h>
#include <observe/json.h>
#include <observe/names.h>
#include <util/addr.h>
#include <util/cleanup.h>

#define PEER_LABEL_MAX 340 /* a name, and an address */

static json_t *step(const struct explain_place *place, const char *name, const char *text)
{
	return json_pack("{s:s, s:s, s:s, s:s}", "step", name, "program", hook_name(place->hook), "device", place->device->name,
		"text", text);
}

static void rule_label(const struct view *view, uint32_t id, char *text, size_t size)
{
	struct rule_reference rule;
	const char *origin;
	char line[16];

	if (id < HD_RULE_BUILTIN_COUNT)
		snprintf(text, size, "built-in rule %s", builtin_rule_name(id));
	else if (!view->compiler || compiler_rule(view->compiler, id, &rule) < 0)
		snprintf(text, size, "rule %u", id);
	else {
		snprintf(line, sizeof(line), ":%u", rule.line);
		origin = view_source(view, rule.kind, rule.namespace_, rule.policy, rule.file);
		origin = rule.file ?: strcmp(origin, "api") ? origin : "applied";
		snprintf(text, size, "%s%s%s.spec.%s[%u]%s%s (%s%s)", rule.namespace_ ?: "", rule.namespace_ ? "/" : "",
			rule.policy, direction_name(rule.direction), rule.index, rule.name ? " " : "", rule.name ?: "", origin,
			rule.file ? line : "");
	}
}

/* With its address, by which people know it on the wire. */
static void peer_label(const struct view *view, uint32_t index, char *text, size_t size)
{
	const struct topology_peer *peer = view_peer(view, index);
	char name[VIEW_PEER_MAX], address[ADDR_TEXT_MAX] = "?";

	if (peer)
		addr_format(&peer->address, address);
	snprintf(text, size, "%s (%s)", view_peer_name(view, index, name), address);
}

static json_t *hook_step(const struct view *view, const struct explain_place *place)
{
	const char *mode = place->hook == HD_HOOK_XDP_UPLINK ? place->attachment->xdp_mode : place->attachment->tc_mode;
	char text[1200], peer[PEER_LABEL_MAX], network[VIEW_NETWORK_MAX];
	json_t *json;

	if (place->hook == HD_HOOK_TC_TUNNEL_IN) {
		peer_label(view, place->peer, peer, sizeof(peer));
		snprintf(text, sizeof(text), "%s on %s (%s) judges what the peer %s sends into the network %s",
			hook_name(place->hook), place->device->name, mode ? mode : "off", peer,
			view_network(view, (uint16_t)place->network, network));
	} else if (place->hook == HD_HOOK_TC_HOST_OUT)
		snprintf(text, sizeof(text), "%s on %s (%s) judges what the host's stack sends into the network %s",
			hook_name(place->hook), place->device->name, mode ? mode : "off",
			view_network(view, (uint16_t)place->network, network));
	else if (place->port)
		snprintf(text, sizeof(text), "%s on %s (%s) judges what %s the port %s/%s of the network %s",
			hook_name(place->hook), place->device->name, mode ? mode : "off",
			place->hook == HD_HOOK_TC_PORT_IN ? "comes from" : "the host's stack sends to",
			place->port->object->namespace_, place->port->object->name, place->port->object->port.network);
	else
		snprintf(text, sizeof(text), "%s on %s (%s) judges %s", hook_name(place->hook), place->device->name,
			mode ? mode : "off", direction_name(place->direction));
	json = step(place, "hook", text);
	if (json) {
		json_object_set_new(json, "direction", json_string(direction_name(place->direction)));
		json_object_set_new(json, "mode", json_text(mode));
		json_object_set_new(json, "ifindex", json_integer(place->device->ifindex));
	}
	return json;
}

static json_t *packet_step(
	const struct explain_place *place, const struct packet_view *packet, const struct hd_explain *found, size_t length)
{
	char text[320], source[ADDR_TEXT_MAX], destination[ADDR_TEXT_MAX], protocol[PROTOCOL_NAME_MAX], flags[16];
	json_t *json, *tags;
	int n = 0;

	for (unsigned i = 0; i < packet->n_vlan; i++)
		n += snprintf(text + n, sizeof(text) - n, "VLAN %u ", packet->vlan[i]);
	if (!packet->ip) {
		snprintf(text + n, sizeof(text) - n, "EtherType 0x%04x, %zu bytes", packet->ethertype, length);
	} else {
		addr_format(&packet->source, source);
		addr_format(&packet->destination, destination);
		n += snprintf(text + n, sizeof(text) - n, "%s %s", protocol_name(packet->protocol, protocol), source);
		if (packet->ports)
			n += snprintf(text + n, sizeof(text) - n, " port %u", packet->source_port);
		n += snprintf(text + n, sizeof(text) - n, " > %s", destination);
		if (packet->ports)
			n += snprintf(text + n, sizeof(text) - n, " port %u", packet->destination_port);
		if (packet->tcp) {
			tcp_flags_format(packet->tcp_flags, flags);
			n += snprintf(text + n, sizeof(text) - n, " flags %s", flags);
		}
		if (packet->icmp)
			n += snprintf(text + n, sizeof(text) - n, " type %u code %u", packet->icmp_type, packet->icmp_code);
		if (found->fragment)
			snprintf(text + n, sizeof(text) - n, found->fragment == 1 ? ", a first fragment" : ", a later fragment");
	}
	json = step(place, "packet", text);
	if (!json)
		return NULL;
	tags = json_array();
	for (unsigned i = 0; i < packet->n_vlan; i++)
		json_array_append_new(tags, json_integer(packet->vlan[i]));
	json_object_set_new(json, "vlan", tags);
	json_object_set_new(json, "length", json_integer((json_int_t)length));
	json_object_set_new(json, "fragment",
		found->fragment == 1 ? json_string("first")
		: found->fragment    ? json_string("later")
				     : json_null());
	json_object_set_new(json, "related", json_boolean(found->related));
	if (packet->ip) {
		json_object_set_new(json, "protocol", json_protocol(packet->protocol));
		json_object_set_new(json, "source", json_address(&packet->source));
		json_object_set_new(json, "destination", json_address(&packet->destination));
	}
	if (packet->ports) {
		json_object_set_new(json, "sourcePort", json_integer(packet->source_port));
		json_object_set_new(json, "destinationPort", json_integer(packet->destination_port));
	}
	return json;
}

static json_t *flow_step(const struct explain_place *place, const struct hd_explain *found)
{
	static const char *const tables[] = {[HD_FOUND_NONE] = "none", [HD_FOUND_PROVEN] = "proven", [HD_FOUND_NEW] = "new"};
	const char *table = found->found < ARRAY_SIZE(tables) ? tables[found->found] : "?";
	char text[200];
	json_t *json;

	if (found->found == HD_FOUND_NONE)
		snprintf(text, sizeof(text), "no known flow%s",
			found->picked_up ? "; it would be picked up, within the pickup time" : "");
	else
		snprintf(text, sizeof(text), "%s flow, state %s, %s direction%s%s", table, flow_state_name(found->flow_state),
			found->flow_reply ? "reply" : "original",
			found->related ? ", by the packet that the ICMP error quotes" : "",
			found->rejudged ? "; judged by an older policy, so again" : "");
	json = step(place, "flow", text);
	if (json) {
		json_object_set_new(json, "found", json_string(table));
		json_object_set_new(json, "state", found->found ? json_string(flow_state_name(found->flow_state)) : json_null());
		json_object_set_new(json, "reply", json_boolean(found->flow_reply));
		json_object_set_new(json, "rejudged", json_boolean(found->rejudged));
		json_object_set_new(json, "pickedUp", json_boolean(found->picked_up));
	}
	return json;
}

/* A leaf says "no rule here" by the verdict HD_DROP, and there is none at all without a leaf tag. */
static bool leaf_rule(uint32_t leaf, uint32_t *rule)
{
	*rule = leaf & HD_LEAF_RULE_MASK;
	return (leaf & HD_TAG_MASK) == HD_TAG_LEAF && (leaf >> HD_LEAF_VERDICT_SHIFT & 3) != HD_DROP;
}

static json_t *policy_step(const struct view *view, const struct explain_place *place, const struct hd_explain *found)
{
	char text[900], any[400], own[400];
	uint32_t any_rule, class_rule;
	bool has_any = leaf_rule(found->any_leaf, &any_rule),
	     has_class = found->class_root && leaf_rule(found->class_leaf, &class_rule);
	json_t *json;

	snprintf(any, sizeof(any), "no rule for any peer");
	if (has_any)
		rule_label(view, any_rule, any, sizeof(any));
	snprintf(own, sizeof(own), found->class_root ? "no rule of this peer's class matches" : "no rule names the peer");
	if (has_class)
		rule_label(view, class_rule, own, sizeof(own));
	snprintf(text, sizeof(text), "policy set %u, generation %u, peer class %u: of the peer's: %s; of any peer's: %s",
		found->set, found->generation, found->class_id, own, any);
	json = step(place, "policy", text);
	if (json) {
		json_object_set_new(json, "set", json_integer(found->set));
		json_object_set_new(json, "generation", json_integer(found->generation));
		json_object_set_new(json, "class", json_integer(found->class_id));
		json_object_set_new(json, "classRule", has_class ? json_rule(view, class_rule) : json_null());
		json_object_set_new(json, "anyRule", has_any ? json_rule(view, any_rule) : json_null());
	}
	return json;
}

/* What the rule would have dropped, but for audit mode. */
static bool is_audit(const struct view *view, const struct hd_explain *found)
{
	const uint32_t leaves[] = {found->any_leaf, found->class_root ? found->class_leaf : 0};
	const uint32_t ids[] = {found->rule, found->second_rule};
	struct rule_reference rule;

	if (found->verdict != HD_ALLOW)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
		if (ids[i] >= HD_RULE_FIRST && view->compiler && compiler_rule(view->compiler, ids[i], &rule) == 0 &&
			rule.audit && rule.verdict != HD_ALLOW)
			return true;
	for (size_t i = 0; i < ARRAY_SIZE(leaves) && found->judged; i++)
		if (leaves[i] & HD_LEAF_AUDIT && (leaves[i] & HD_LEAF_RULE_MASK) < HD_RULE_FIRST &&
			((leaves[i] & HD_LEAF_RULE_MASK) == found->rule || (leaves[i] & HD_LEAF_RULE_MASK) == found->second_rule))
			return true;
	return false;
}

/* Why there is no way to a peer, or that there is one. */
static const char *reach_text(const struct view *view, uint32_t peer)
{
	const struct underlay_state *state = view->underlay ? underlay_find(view->underlay, peer) : NULL;

	return state && state->reason ? state->reason : underlay_reach_name[state ? state->reach : UNDERLAY_PENDING];
}

static json_t *verdict_step(const struct view *view, const struct explain_place *place, const struct hd_explain *found)
{
	char text[900], rule[400], peer[PEER_LABEL_MAX];
	const char *why;
	json_t *json;

	rule_label(view, found->rule, rule, sizeof(rule));
	if (found->reason == HD_R_NO_WAY && place->to_peer) {
		why = reach_text(view, place->to_peer);
		peer_label(view, place->to_peer, peer, sizeof(peer));
		snprintf(text, sizeof(text), "drop: %s: %s: %s", reason_text(found->reason), peer, why);
	} else if (found->verdict == HD_DROP)
		snprintf(text, sizeof(text), "drop: %s", reason_text(found->reason));
	else
		snprintf(text, sizeof(text), "%s%s%s by %s", verdict_name(found->verdict), found->forwarded ? " (forwarded)" : "",
			is_audit(view, found) ? " (audit: it would be dropped)" : "", rule);
	json = step(place, "verdict", text);
	if (json) {
		json_object_set_new(json, "verdict", json_string(verdict_name(found->verdict)));
		json_object_set_new(json, "reason", json_string(reason_name(found->reason)));
		json_object_set_new(json, "rule", json_rule(view, found->rule));
		json_object_set_new(json, "forwarded", json_boolean(found->forwarded));
	}
	return json;
}

/* --- ports --- */

static void port_label(const struct topology_port *port, char *text, size_t size)
{
	snprintf(text, size, "%s/%s", port->object->namespace_, port->object->name);
}

/* The next hops, all of them: which one it is depends on the flow. */
static void ways_label(const struct view *view, uint32_t peer, char *text, size_t size)
{
	const struct underlay_state *state = view->underlay ? underlay_find(view->underlay, peer) : NULL;
	char next_hop[ADDR_TEXT_MAX];
	size_t n = 0;

	if (!state || !state->n) {
		snprintf(text, size, "by the agent (%s), since no next hop is known: %s", TUNNEL_SLOW_DEVICE,
			reach_text(view, peer));
		return;
	}
	for (size_t i = 0; i < state->n && n < size; i++) {
		const struct netdev *device = view_device(view, state->way[i].ifindex);

		addr_format(&state->next_hop[i], next_hop);
		n += (size_t)snprintf(
			text + n, size - n, "%s %s (next hop %s)", i ? " or" : "by", device ? device->name : "?", next_hop);
	}
}

/* Where it goes, in words. to: the port, when it is one. */
static void delivery_text(
	const struct view *view, const struct hd_explain *found, const struct topology_port *to, char *text, size_t size)
{
	char name[600], peer[PEER_LABEL_MAX], ways[400];
	const struct netdev *device;

	switch (found->action) {
	case HD_ACT_NEXT:
		snprintf(text, size, "to the host's stack");
		break;
	case HD_ACT_PORT:
		port_label(to, name, sizeof(name));
		snprintf(text, size, "%s to the port %s of the network %s", found->routed ? "routed" : "switched", name,
			to->object->port.network);
		break;
	case HD_ACT_PEER:
		peer_label(view, view_device_peer(found->to), peer, sizeof(peer));
		ways_label(view, view_device_peer(found->to), ways, sizeof(ways));
		snprintf(text, size, "%s to peer %s as VNI %u %s", found->routed ? "routed" : "switched", peer, found->vni, ways);
		break;
	case HD_ACT_FLOOD:
		snprintf(text, size,
			"to all ports and peers of the network that it is not from, as the policy of each port allows");
		break;
	case HD_ACT_WIRE:
		device = view_device(view, found->to);
		snprintf(text, size, "out by %s with the tag of its network", device ? device->name : "?");
		break;
	default:
		snprintf(text, size, "answered from here");
	}
}

static json_t *delivery_step(const struct view *view, const struct explain_place *place, const struct hd_explain *found)
{
	const struct topology_port *to = place->hook == HD_HOOK_TC_PORT_OUT ? place->port : view_port(view, found->to);
	char text[1400] = "it goes on to the workload", name[600];
	json_t *json;

	if (place->hook != HD_HOOK_TC_PORT_OUT && (to || found->action != HD_ACT_PORT))
		delivery_text(view, found, to, text, sizeof(text));
	json = step(place, "delivery", text);
	if (!json)
		return NULL;
	if (to)
		port_label(to, name, sizeof(name));
	json_object_set_new(json, "port", to ? json_string(name) : json_null());
	json_object_set_new(json, "routed", json_boolean(found->routed));
	if (found->action == HD_ACT_PEER) {
		uint32_t index = view_device_peer(found->to);

		json_object_set_new(json, "peer", json_peer(view, index));
		json_object_set_new(json, "vni", json_integer(found->vni));
		json_object_set_new(json, "ways", json_ways(view, index));
	}
	return json;
}

#define ISOLATED_BY_MAX 100 /* named in an answer */

/* The NetworkPolicies that select the port: what none of their rules allows is denied by the built-in rule `isolated`, which is nobody's. */
static json_t *isolated_by(const struct view *view, enum hd_direction direction, const struct object *port)
{
	json_t *items = json_array();

	for (size_t i = 0; i < view->objects->n && json_array_size(items) < ISOLATED_BY_MAX; i++) {
		const struct object *object = view->objects->items[i];

		if (object->kind != OBJECT_NETWORK_POLICY || !object->workload.applies[direction] ||
			strcmp(object->namespace_, port->namespace_) != 0 ||
			!selector_matches(&object->workload.pods, port->labels, port->n_labels))
			continue;
		json_array_append_new(items,
			json_of_policy(json_pack("{s:s, s:o, s:o}", "policy", object->name, "file", json_text(object->file),
					       "line", object->file ? json_integer(object->line) : json_null()),
				object->kind, object->namespace_,
				view_source(view, object->kind, object->namespace_, object->name, object->file)));
	}
	return items;
}

/* Appends {direction, port, and the fields of a rule}. The direction of a built-in rule is that of the policy it stands in for. */
static void add_rule(
	json_t *rules, const struct view *view, enum hd_direction direction, const struct topology_port *port, uint32_t id)
{
	json_t *rule = json_rule(view, id);
	char name[600];

	if (!json_is_object(rule)) {
		json_decref(rule);
		return;
	}
	json_object_set_new(rule, "direction", json_string(direction_name(direction)));
	if (port) {
		port_label(port, name, sizeof(name));
		json_object_set_new(rule, "port", json_string(name));
		if (id == HD_RULE_ISOLATED)
			json_object_set_new(rule, "isolatedBy", isolated_by(view, direction, port->object));
	}
	json_array_append_new(rules, rule);
}

/* Whose policies had a say, in the order in which they were asked: of two ports the sender's egress, then the other one's ingress. */
static json_t *rules_json(const struct view *view, const struct explain_place *place, const struct hd_explain *found)
{
	const struct topology_port *from = NULL, *to = NULL, *opener, *target;
	json_t *rules = json_array();

	if (!place->port && !place->network) {
		add_rule(rules, view, found->flow_reply ? !place->direction : place->direction, NULL, found->rule);
		return rules;
	}
	if (place->hook == HD_HOOK_TC_PORT_OUT) {
		to = place->port;
	} else {
		from = place->port;
		to = view_port(view, found->to ? found->to : place->to);
	}
	opener = found->flow_reply ? to : from;
	target = found->flow_reply ? from : to;
	if (found->first_rule || found->second_rule) {
		add_rule(rules, view, HD_EGRESS, opener, found->first_rule ? found->first_rule : found->rule);
		add_rule(rules, view, HD_INGRESS, target, found->second_rule ? found->second_rule : found->rule);
	} else {
		add_rule(rules, view, opener ? HD_EGRESS : HD_INGRESS, opener ? opener : target, found->rule);
	}
	return rules;
}

/* The tunnel packet of a capture, as far as it could be read, in front of what is in it. */
static json_t *tunnel_step(const struct view *view, const struct explain_place *place, const struct packet_tunnel *tunnel)
{
	const char *protocol = view->topology->tunnel.protocol == HD_TUNNEL_GENEVE ? "Geneve" : "VXLAN";
	char text[1200], source[ADDR_TEXT_MAX], peer[PEER_LABEL_MAX], network[VIEW_NETWORK_MAX];
	json_t *json;

	addr_format(&tunnel->source, source);
	if (place->peer)
		peer_label(view, place->peer, peer, sizeof(peer));
	else
		snprintf(peer, sizeof(peer), "%s, who is no peer", source);
	if (tunnel->control)
		snprintf(text, sizeof(text), "a %s control packet from %s, which is the host's", protocol, peer);
	else if (!tunnel->header)
		snprintf(text, sizeof(text), "no %s header that can be read, from %s", protocol, peer);
	else
		snprintf(text, sizeof(text), "%s from %s with VNI %u: %s%s", protocol, peer, tunnel->vni,
			place->network ? "the network " : "no network",
			place->network ? view_network(view, (uint16_t)place->network, network) : " here has it");
	json = step(place, "tunnel", text);
	if (json) {
		json_object_set_new(json, "peer", json_peer(view, place->peer));
		json_object_set_new(json, "vni", tunnel->header && !tunnel->control ? json_integer(tunnel->vni) : json_null());
	}
	return json;
}

/* The port's, the frame's own, or the host's. NULL: what a peer sent is in none. */
static const char *network_of(const struct view *view, const struct explain_place *place, char *buffer)
{
	if (place->hook == HD_HOOK_TC_TUNNEL_IN && !place->network)
		return NULL;
	return place->port ? place->port->object->port.network : view_network(view, (uint16_t)place->network, buffer);
}

/* What was asked, and what came of it. */
struct judgement {
	struct explain_place place;
	struct packet_view packet;
	struct hd_explain found;
	size_t length;
	bool read; /* packet says what was judged */
};

static json_t *fast_path_step(const struct view *view, const struct explain_place *place, uint32_t index)
{
	struct fastpath_state state = {.name = "?"};
	const struct fast_path *document = NULL;
	char text[400];
	json_t *json;

	bool works = false;

	for (size_t i = 0; i < view->n_fast_paths; i++) {
		const struct view_fast_path *at = &view->fast_paths[i];
		bool found = !at->workers.devices && at->index == index;

		for (size_t j = 0; at->workers.devices && j < at->object->fast_path.n_devices; j++)
			found |= at->workers.devices[j].index == index;
		if (!found)
			continue;
		state.name = at->object->name;
		document = &at->object->fast_path;
		works = at->workers.forward || at->workers.unneeded;
	}
	if (view->fastpath && document)
		(void)fastpath_server_state(view->fastpath, state.name, &state);
	if (document && document->devices)
		snprintf(text, sizeof(text), "FastPath %s: %s if the host would forward it to another of its devices", state.name,
			works		 ? "it goes straight there, or by workers,"
			: document->drop ? "nothing moves it: it is dropped"
					 : "nothing moves it: it goes on to the kernel");
	else if (state.n_queues)
		snprintf(text, sizeof(text), "FastPath %s has it, by the socket of its queue; by a queue without one it %s",
			state.name, document && document->drop ? "is dropped" : "goes on to the kernel");
	else
		snprintf(text, sizeof(text), "FastPath %s asks for it and has no socket: it %s", state.name,
			document && document->drop ? "is dropped" : "goes on to the kernel");
	json = step(place, "delivery", text);
	if (json)
		json_object_set_new(json, "fastPath", json_string(state.name));
	return json;
}

/* Appends what the program of that place did. */
static void add_steps(json_t *path, const struct view *view, const struct judgement *j)
{
	const struct explain_place *place = &j->place;
	const struct hd_explain *found = &j->found;

	if (j->read) {
		json_array_append_new(path, hook_step(view, place));
		json_array_append_new(path, packet_step(place, &j->packet, found, j->length));
	}
	/* a packet that the parser refused never came to the flow table */
	if (j->read && (found->judged || found->found || found->verdict != HD_DROP))
		json_array_append_new(path, flow_step(place, found));
	if (found->judged)
		json_array_append_new(path, policy_step(view, place, found));
	json_array_append_new(path, verdict_step(view, place, found));
	if ((place->port || place->network) && found->verdict == HD_ALLOW)
		json_array_append_new(path, delivery_step(view, place, found));
	if (place->hook == HD_HOOK_XDP_UPLINK && found->fast_path && found->verdict == HD_ALLOW)
		json_array_append_new(path, fast_path_step(view, place, found->fast_path - 1));
	else if (place->hook == HD_HOOK_XDP_UPLINK && found->meta_written) {
		struct explain_place tc = *place;

		tc.hook = HD_HOOK_TC_UPLINK_IN;
		json_array_append_new(
			path, step(&tc, "hook", "tc_uplink_in believes the XDP program's metadata and does not judge again"));
	}
}

/* path: taken over. */
static json_t *answer(const struct view *view, const struct judgement *j, json_t *path)
{
	const struct explain_place *place = &j->place;
	const struct hd_explain *found = &j->found;
	char network[VIEW_NETWORK_MAX];
	uint32_t to_peer = found->verdict != HD_ALLOW ? place->to_peer : view_device_peer(found->to);

	return json_pack("{s:s, s:b, s:s, s:s, s:o, s:o, s:s?, s:o, s:o, s:o, s:s, s:s, s:I, s:s, s:o}", "verdict",
		verdict_name(found->verdict), "audit", is_audit(view, found), "reason", reason_name(found->reason), "reasonText",
		reason_text(found->reason), "rule", json_rule(view, found->rule), "rules", rules_json(view, place, found),
		"network", network_of(view, place, network), "port",
		place->port ? json_sprintf("%s/%s", place->port->object->namespace_, place->port->object->name) : json_null(),
		"sourcePeer", json_peer(view, place->peer), "destinationPeer", json_peer(view, to_peer), "device",
		place->device->name, "direction", direction_name(place->direction), "generation", (json_int_t)found->generation,
		"program", hook_name(place->hook), "path", path);
}

/*
 * TC finds the outer tag in the metadata: a receiving stack has taken it out of the frame before, and a VLAN device leaves it to the driver. An outgoing
 * frame of a capture is taken as it is.
 */
static bool is_untagged(const struct explain_place *place, bool described)
{
	switch (place->hook) {
	case HD_HOOK_TC_UPLINK_IN:
	case HD_HOOK_TC_WIRE_IN:
	case HD_HOOK_TC_TUNNEL_IN:
	case HD_HOOK_TC_PORT_IN:
		return true;
	case HD_HOOK_TC_UPLINK_OUT:
		return described;
	default:
		return false;
	}
}

/* Runs the program of the place over the frame, which is changed. */
static int judge(const struct view *view, struct explain_request *request, struct judgement *j)
{
	const struct explain_place *place = &j->place;
	struct datapath_probe probe = {.hook = place->hook,
		.ifindex = place->device->ifindex,
		.ingress_ifindex = place->from,
		.from_network = place->network,
		.from_peer = place->peer,
		.frame = request->frame};
	int r;

	j->length = request->length;
	j->read = true;
	if (is_untagged(place, request->described))
		packet_untag(request->frame, &request->length, &probe.vlan_tci, &probe.vlan_proto);
	probe.length = request->length;
	r = datapath_explain(view->datapath, &probe, &j->found);
	if (r < 0)
		return r;
	return j->found.done ? 0 : -EIO;
}

/* The inner frame of a tunnel packet that the uplink's program has found to be one. Appends what was found about the outer one. */
static int judge_inner(const struct view *view, struct explain_request *request, struct judgement *j, json_t *path)
{
	struct packet_tunnel tunnel;
	struct explain_place *place = &j->place;
	enum hd_reason reason;

	json_array_append_new(path, hook_step(view, place));
	json_array_append_new(path, packet_step(place, &j->packet, &j->found, j->length));
	reason = explain_unwrap(view, place, request->frame, request->length, &tunnel);
	json_array_append_new(path, tunnel_step(view, place, &tunnel));
	if (reason || tunnel.control) {
		j->found = (struct hd_explain){.done = 1,
			.verdict = reason ? HD_DROP : HD_ALLOW,
			.reason = reason,
			.rule = reason ? HD_RULE_NONE : HD_RULE_TUNNEL,
			.generation = j->found.generation};
		j->read = false;
		return 0;
	}
	request->length -= tunnel.inner;
	memmove(request->frame, request->frame + tunnel.inner, request->length);
	packet_look(request->frame, request->length, &j->packet);
	explain_find_receiver(view, place, &j->packet);
	return judge(view, request, j);
}

int explain_run(const struct view *view, struct explain_request *request, json_t **ret, struct buffer *mistakes)
{
	struct judgement j = {0};
	json_auto_t *path = json_array();
	int r;

	if (request->described) {
		r = packet_build(&request->spec, request->frame, &request->length);
		if (r < 0) {
			buffer_add_string(mistakes, "protocol: want an upper-layer protocol, not an IPv6 extension header\n");
			return r;
		}
	}
	packet_look(request->frame, request->length, &j.packet);
	r = explain_find_place(view, request, &j.packet, &j.place, mistakes);
	if (r < 0)
		return r;
	if (request->described)
		explain_set_macs(view, &j.place, &j.packet, request->frame);
	r = judge(view, request, &j);
	if (r == 0 && !request->described && explain_is_tunnel(view, &j.place, &j.packet, &j.found))
		r = judge_inner(view, request, &j, path);
	if (r < 0)
		return r;
	add_steps(path, view, &j);
	*ret = answer(view, &j, json_incref(path));
	return *ret ? 0 : -ENOMEM;
}
