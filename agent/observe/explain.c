/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <ifaddrs.h>
#include <linux/if_ether.h>
#include <net/if_arp.h>
#include <netinet/in.h>

#include <observe/explain.h>
#include <observe/json.h>
#include <observe/names.h>
#include <util/addr.h>
#include <util/cleanup.h>

/* A peer on the link that exists nowhere: a locally administered address. */
static const uint8_t somebody[6] = {0x02, 0, 0, 0, 0, 1};

struct place {
	const struct netdev *device;
	const struct datapath_attachment *attachment;
	uint32_t from; /* ifindex where a forwarded packet came in; 0: it is not one that leaves here */
	enum hd_direction direction;
	enum hd_hook hook;
};

/* The interface that holds an address; "" none. */
static void holder(const struct hd_addr *addr, char name[IF_NAMESIZE])
{
	struct ifaddrs *list;

	name[0] = '\0';
	if (getifaddrs(&list))
		return;
	for (const struct ifaddrs *at = list; at && !name[0]; at = at->ifa_next) {
		struct hd_addr own;

		if (!at->ifa_addr)
			continue;
		if (at->ifa_addr->sa_family == AF_INET)
			own = addr_from_ipv4(((const struct sockaddr_in *)at->ifa_addr)->sin_addr.s_addr);
		else if (at->ifa_addr->sa_family == AF_INET6)
			memcpy(own.b, ((const struct sockaddr_in6 *)at->ifa_addr)->sin6_addr.s6_addr, 16);
		else
			continue;
		if (!memcmp(&own, addr, sizeof(own)))
			snprintf(name, IF_NAMESIZE, "%s", at->ifa_name);
	}
	freeifaddrs(list);
}

static const struct netdev *attached_device(const struct view *view, const char *name, const struct datapath_attachment **ret)
{
	const struct netdev *device = view_device_by_name(view, name);

	*ret = device ? view_attachment(view, device->ifindex) : NULL;
	return *ret ? device : NULL;
}

static const struct netdev *first_attached(const struct view *view, const struct datapath_attachment **ret)
{
	for (size_t i = 0; view->host && i < view->host->n_uplinks; i++) {
		const struct netdev *device = attached_device(view, view->host->uplinks[i].device, ret);

		if (device)
			return device;
	}
	return NULL;
}

/* By its addresses: inbound to one of ours, else outbound from one; "" when none is. A frame that carries our MAC as its source is ours. */
static enum hd_direction infer_direction(
	const struct view *view, const struct packet_view *packet, const uint8_t *source_mac, char name[IF_NAMESIZE])
{
	for (size_t i = 0; source_mac && i < view->n_devices; i++) {
		const struct netdev *device = &view->devices[i];

		if (view_attachment(view, device->ifindex) && !memcmp(device->mac, source_mac, 6)) {
			memcpy(name, device->name, IF_NAMESIZE);
			return HD_EGRESS;
		}
	}
	if (!packet->ip)
		return HD_INGRESS;
	holder(&packet->destination, name);
	if (name[0])
		return HD_INGRESS;
	holder(&packet->source, name);
	return name[0] ? HD_EGRESS : HD_INGRESS;
}

/* Where the packet passes: as asked for, else as its addresses say, else inbound at the first uplink. */
static int find_place(const struct view *view, const struct explain_request *request, const struct packet_view *packet,
	struct place *ret, struct buffer *mistakes)
{
	const char *asked = request->egress[0] ? request->egress : request->uplink;
	char name[IF_NAMESIZE] = "";

	*ret = (struct place){.direction = request->egress[0] ? HD_EGRESS : HD_INGRESS};
	if (asked[0]) {
		ret->device = attached_device(view, asked, &ret->attachment);
		if (!ret->device) {
			buffer_printf(mistakes, "%s: want a guarded uplink, got \"%s\"\n",
				request->egress[0] ? "egress" : "uplink", asked);
			return -ENODEV;
		}
		if (request->egress[0] && request->uplink[0]) {
			const struct netdev *from = view_device_by_name(view, request->uplink);

			if (!from) {
				buffer_printf(mistakes, "uplink: want a device, got \"%s\"\n", request->uplink);
				return -ENODEV;
			}
			ret->from = from->ifindex;
		}
	} else {
		ret->direction = infer_direction(view, packet, request->described ? NULL : request->frame + 6, name);
		if (name[0])
			ret->device = attached_device(view, name, &ret->attachment);
		if (!ret->device)
			ret->device = first_attached(view, &ret->attachment);
		if (!ret->device) {
			buffer_add_string(mistakes, "uplink: want a guarded uplink, there is none\n");
			return -ENODEV;
		}
	}
	if (ret->direction == HD_EGRESS)
		ret->hook = HD_HOOK_TC_UPLINK_OUT;
	else if (ret->attachment->xdp_mode && strcmp(ret->attachment->xdp_mode, "off"))
		ret->hook = HD_HOOK_XDP_UPLINK;
	else
		ret->hook = HD_HOOK_TC_UPLINK_IN;
	return 0;
}

static json_t *step(const struct place *place, const char *name, const char *text)
{
	return json_pack("{s:s, s:s, s:s, s:s}", "step", name, "program", hook_name(place->hook), "device", place->device->name,
		"text", text);
}

static void rule_label(const struct view *view, uint32_t id, char *text, size_t size)
{
	struct rule_reference rule;

	if (id < HD_RULE_BUILTIN_COUNT)
		snprintf(text, size, "built-in rule %s", builtin_rule_name(id));
	else if (!view->compiler || compiler_rule(view->compiler, id, &rule) < 0)
		snprintf(text, size, "rule %u", id);
	else if (rule.file)
		snprintf(text, size, "%s.spec.%s[%u]%s%s (%s:%u)", rule.policy, direction_name(rule.direction), rule.index,
			rule.name ? " " : "", rule.name ? rule.name : "", rule.file, rule.line);
	else
		snprintf(text, size, "%s.spec.%s[%u]%s%s (applied)", rule.policy, direction_name(rule.direction), rule.index,
			rule.name ? " " : "", rule.name ? rule.name : "");
}

static json_t *hook_step(const struct place *place)
{
	const char *mode = place->hook == HD_HOOK_XDP_UPLINK ? place->attachment->xdp_mode : place->attachment->tc_mode;
	char text[160];
	json_t *json;

	snprintf(text, sizeof(text), "%s on %s (%s) judges %s", hook_name(place->hook), place->device->name, mode ? mode : "off",
		direction_name(place->direction));
	json = step(place, "hook", text);
	if (json) {
		json_object_set_new(json, "direction", json_string(direction_name(place->direction)));
		json_object_set_new(json, "mode", json_text(mode));
		json_object_set_new(json, "ifindex", json_integer(place->device->ifindex));
	}
	return json;
}

static json_t *packet_step(
	const struct place *place, const struct packet_view *packet, const struct hd_explain *found, size_t length)
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

static json_t *flow_step(const struct place *place, const struct hd_explain *found)
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

static json_t *policy_step(const struct view *view, const struct place *place, const struct hd_explain *found)
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

static json_t *verdict_step(const struct view *view, const struct place *place, const struct hd_explain *found)
{
	char text[600], rule[400];
	json_t *json;

	rule_label(view, found->rule, rule, sizeof(rule));
	if (found->verdict == HD_DROP)
		snprintf(text, sizeof(text), "drop: %s", reason_text(found->reason));
	else
		snprintf(text, sizeof(text), "%s%s by %s", verdict_name(found->verdict), found->forwarded ? " (forwarded)" : "",
			rule);
	json = step(place, "verdict", text);
	if (json) {
		json_object_set_new(json, "verdict", json_string(verdict_name(found->verdict)));
		json_object_set_new(json, "reason", json_string(reason_name(found->reason)));
		json_object_set_new(json, "rule", json_rule(view, found->rule));
		json_object_set_new(json, "forwarded", json_boolean(found->forwarded));
	}
	return json;
}

static json_t *answer(const struct view *view, const struct place *place, const struct packet_view *packet,
	const struct hd_explain *found, size_t length)
{
	json_t *path = json_array(), *next;

	json_array_append_new(path, hook_step(place));
	json_array_append_new(path, packet_step(place, packet, found, length));
	/* a packet that the parser refused never came to the flow table */
	if (found->judged || found->found || found->verdict != HD_DROP)
		json_array_append_new(path, flow_step(place, found));
	if (found->judged)
		json_array_append_new(path, policy_step(view, place, found));
	json_array_append_new(path, verdict_step(view, place, found));
	if (place->hook == HD_HOOK_XDP_UPLINK && found->meta_written) {
		struct place tc = *place;

		tc.hook = HD_HOOK_TC_UPLINK_IN;
		next = step(&tc, "hook", "tc_uplink_in believes the XDP program's metadata and does not judge again");
		json_array_append_new(path, next);
	}
	return json_pack("{s:s, s:s, s:s, s:o, s:s, s:s, s:I, s:s, s:o}", "verdict", verdict_name(found->verdict), "reason",
		reason_name(found->reason), "reasonText", reason_text(found->reason), "rule", json_rule(view, found->rule),
		"device", place->device->name, "direction", direction_name(place->direction), "generation",
		(json_int_t)found->generation, "program", hook_name(place->hook), "path", path);
}

/* The network that the frame is in by its outer tag, when it comes in by an uplink; 0: the host's. */
static uint32_t wire_network(const struct view *view, const struct place *place, const struct explain_request *request)
{
	const uint8_t *tag = request->frame + 2 * ETH_ALEN;
	const struct topology *topology = view->topology;

	if (place->direction != HD_INGRESS || !topology || request->length < ETH_HLEN + 4 || tag[0] != 0x81 || tag[1] != 0x00)
		return 0;
	for (size_t i = 0; i < topology->n_wires; i++)
		if (topology->wires[i].key.vlan == (uint32_t)((tag[2] & 0xf) << 8 | tag[3]))
			return topology->wires[i].value.network;
	return 0;
}

/* A described packet is for whoever has its address there. */
static const uint8_t *mac_of(const struct view *view, uint32_t network, const struct hd_addr *address)
{
	const struct topology *topology = view->topology;

	for (size_t i = 0; network && i < topology->n_endpoints; i++) {
		const struct topology_endpoint *row = &topology->endpoints[i];

		if (row->key.network == network && row->key.kind == HD_ENDPOINT_ADDRESS &&
			memcmp(&row->key.addr, address, sizeof(*address)) == 0)
			return row->value.mac;
	}
	return NULL;
}

int explain_run(const struct view *view, struct explain_request *request, json_t **ret, struct buffer *mistakes)
{
	struct datapath_probe probe = {0};
	struct packet_view packet;
	struct hd_explain found;
	struct place place;
	uint32_t network;
	size_t length;
	int r;

	if (request->described) {
		r = packet_build(&request->spec, request->frame, &request->length);
		if (r < 0) {
			buffer_add_string(mistakes, "protocol: want an upper-layer protocol, not an IPv6 extension header\n");
			return r;
		}
	}
	packet_look(request->frame, request->length, &packet);
	r = find_place(view, request, &packet, &place, mistakes);
	if (r < 0)
		return r;
	network = wire_network(view, &place, request);
	if (network)
		place.hook = HD_HOOK_TC_WIRE_IN;
	if (request->described) {
		bool in = place.direction == HD_INGRESS;
		const uint8_t *mac = mac_of(view, network, &request->spec.destination);

		memcpy(request->frame, mac ? mac : in ? place.device->mac : somebody, 6);
		memcpy(request->frame + 6, in ? somebody : place.device->mac, 6);
	}
	length = request->length;
	/*
	 * A receiving stack has taken the outer tag out of the frame before TC sees it, and a VLAN device leaves it to the
	 * driver: TC finds it in the metadata. An outgoing frame of a capture is taken as it is.
	 */
	if (place.hook == HD_HOOK_TC_UPLINK_IN || place.hook == HD_HOOK_TC_WIRE_IN ||
		(place.hook == HD_HOOK_TC_UPLINK_OUT && request->described))
		packet_untag(request->frame, &request->length, &probe.vlan_tci, &probe.vlan_proto);
	probe.hook = place.hook;
	probe.ifindex = place.device->ifindex;
	probe.ingress_ifindex = place.from;
	probe.frame = request->frame;
	probe.length = request->length;
	r = datapath_explain(view->datapath, &probe, &found);
	if (r < 0)
		return r;
	if (!found.done)
		return -EIO;
	*ret = answer(view, &place, &packet, &found, length);
	return *ret ? 0 : -ENOMEM;
}
