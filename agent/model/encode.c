// SPDX-License-Identifier: Apache-2.0
/* Objects to JSON, as a person would write them. Decoding the text gives an equal object: see content.c for what that means. */
#include <model/decode.h>

#include <jansson.h>
#include <netinet/in.h>

#include <model/kinds.h>
#include <model/write.h>
#include <util/addr.h>
#include <util/buffer.h>
#include <util/duration.h>

static void ports(struct buffer *out, const char *name, const struct port_range *list, size_t n)
{
	write_open(out, name, '[');
	for (size_t i = 0; i < n; i++) {
		const struct port_range *range = &list[i];
		const char *protocol = document_protocol_name(range->protocol);

		write_item(out, '{');
		if (protocol)
			write_text(out, "protocol", protocol);
		else if (range->protocol || range->any_port) /* source ports of whatever protocol have none */
			write_number(out, "protocol", range->protocol);
		if (!range->any_port) {
			write_number(out, "port", range->first);
			if (range->last != range->first)
				write_number(out, "endPort", range->last);
		}
		buffer_add_char(out, '}');
	}
	buffer_add_char(out, ']');
}

static void peers(struct buffer *out, const char *name, const struct peer *list, size_t n)
{
	write_open(out, name, '[');
	for (size_t i = 0; i < n; i++) {
		const struct peer *peer = &list[i];
		char text[ADDR_TEXT_MAX];

		write_item(out, '{');
		if (peer->group) {
			write_text(out, "addressGroup", peer->group);
		} else {
			write_text(out, "cidr", addr_format_cidr(&peer->prefix.addr, peer->prefix.length, text));
			if (peer->n_except) {
				write_open(out, "except", '[');
				for (uint32_t j = 0; j < peer->n_except; j++)
					write_prefix(out, &peer->except[j]);
				buffer_add_char(out, ']');
			}
		}
		buffer_add_char(out, '}');
	}
	buffer_add_char(out, ']');
}

static void icmp_matches(struct buffer *out, const struct icmp_match *list, size_t n)
{
	write_open(out, "icmp", '[');
	for (size_t i = 0; i < n; i++) {
		const struct icmp_match *icmp = &list[i];

		write_item(out, '{');
		if (icmp->type_first == icmp->type_last)
			write_number(out, "type", icmp->type_first);
		if (icmp->code_first == icmp->code_last)
			write_number(out, "code", icmp->code_first);
		write_text(out, "family", icmp->protocol == IPPROTO_ICMPV6 ? "IPv6" : "IPv4");
		buffer_add_char(out, '}');
	}
	buffer_add_char(out, ']');
}

static const char *const verdict_names[] = {[HD_ALLOW] = "allow", [HD_DENY] = "deny", [HD_REJECT] = "reject"};
static const char *const direction_names[HD_DIRECTIONS] = {[HD_INGRESS] = "ingress", [HD_EGRESS] = "egress"};

static void rules(struct buffer *out, const struct object *object, enum hd_direction direction)
{
	const struct host_policy *policy = &object->policy;
	const struct rule *list = object_rules(object, direction);

	write_open(out, direction_names[direction], '[');
	for (size_t i = 0; i < policy->n_rules[direction]; i++) {
		const struct rule *rule = &list[i];

		write_item(out, '{');
		if (rule->name)
			write_text(out, "name", rule->name);
		write_text(out, "action", verdict_names[rule->verdict]);
		if (rule->n_peers)
			peers(out, direction == HD_INGRESS ? "from" : "to", rule->peers, rule->n_peers);
		if (rule->n_ports)
			ports(out, "ports", rule->ports, rule->n_ports);
		if (rule->extra && rule->extra->n_source_ports)
			ports(out, "sourcePorts", rule->extra->source_ports, rule->extra->n_source_ports);
		if (rule->extra && rule->extra->n_icmp)
			icmp_matches(out, rule->extra->icmp, rule->extra->n_icmp);
		if (rule->log)
			write_bool(out, "log", true);
		buffer_add_char(out, '}');
	}
	buffer_add_char(out, ']');
}

static void policy_spec(struct buffer *out, const struct object *object)
{
	const struct host_policy *policy = &object->policy;

	write_number(out, "priority", policy->priority);
	if (policy->audit)
		write_bool(out, "audit", true);
	if (policy->n_uplinks) {
		write_open(out, "uplinks", '[');
		for (size_t i = 0; i < policy->n_uplinks; i++) {
			write_comma(out);
			write_string(out, policy->uplinks[i]);
		}
		buffer_add_char(out, ']');
	}
	rules(out, object, HD_INGRESS);
	rules(out, object, HD_EGRESS);
	if (policy->default_verdict[HD_INGRESS] >= 0 || policy->default_verdict[HD_EGRESS] >= 0) {
		write_open(out, "default", '{');
		for (int i = 0; i < HD_DIRECTIONS; i++)
			if (policy->default_verdict[i] >= 0)
				write_text(out, direction_names[i], verdict_names[policy->default_verdict[i]]);
		buffer_add_char(out, '}');
	}
}

static void group_spec(struct buffer *out, const struct address_group *group)
{
	write_open(out, "cidrs", '[');
	for (size_t i = 0; i < group->n_cidrs; i++)
		write_prefix(out, &group->cidrs[i]);
	buffer_add_char(out, ']');
}

static void duration_field(struct buffer *out, const char *name, uint32_t ms)
{
	char text[DURATION_TEXT_MAX];

	write_text(out, name, duration_format(ms, text));
}

static void host_spec(struct buffer *out, const struct host *host)
{
	static const char *const xdp_names[] = {
		[XDP_MODE_AUTO] = "auto", [XDP_MODE_NATIVE] = "native", [XDP_MODE_GENERIC] = "generic", [XDP_MODE_OFF] = "off"};
	static const char *const decapsulate_names[] = {
		[TUNNEL_DECAPSULATE_AUTO] = "auto", [TUNNEL_DECAPSULATE_XDP] = "xdp", [TUNNEL_DECAPSULATE_TC] = "tc"};
	const struct {
		const char *name;
		uint32_t value;
	} limits[] = {
		{"flows", host->limit_flows},
		{"flowsNew", host->limit_flows_new},
		{"flowsOther", host->limit_flows_other},
		{"rules", host->limit_rules},
	};
	bool limited = false;
	char text[ADDR_TEXT_MAX];

	write_open(out, "uplinks", '[');
	for (size_t i = 0; i < host->n_uplinks; i++) {
		write_item(out, '{');
		write_text(out, "device", host->uplinks[i].device);
		write_text(out, "xdp", xdp_names[host->uplinks[i].xdp]);
		buffer_add_char(out, '}');
	}
	buffer_add_char(out, ']');
	if (host->has_tunnel) {
		write_open(out, "tunnel", '{');
		write_text(out, "protocol", host->tunnel_geneve ? "geneve" : "vxlan");
		write_text(out, "address", addr_format(&host->tunnel_address, text));
		write_number(out, "port", host->tunnel_port);
		write_number(out, "ttl", host->tunnel_ttl);
		write_text(out, "decapsulate", decapsulate_names[host->tunnel_decapsulate]);
		write_text(out, "checksum", host->tunnel_checksum == TUNNEL_CHECKSUM_FULL ? "full" : "zero");
		buffer_add_char(out, '}');
	}
	ports(out, "failsafe", host->failsafe, host->n_failsafe);
	write_text(out, "forward", host->forward_judge ? "judge" : "pass");
	if (host->offload)
		write_text(out, "offload", "auto");
	write_open(out, "timeouts", '{');
	duration_field(out, "tcpEstablished", host->timeouts.tcp_established);
	duration_field(out, "tcpSyn", host->timeouts.tcp_syn);
	duration_field(out, "tcpFin", host->timeouts.tcp_fin);
	duration_field(out, "udp", host->timeouts.udp);
	duration_field(out, "udpStream", host->timeouts.udp_stream);
	duration_field(out, "icmp", host->timeouts.icmp);
	duration_field(out, "other", host->timeouts.other);
	buffer_add_char(out, '}');
	write_number(out, "pickupSeconds", host->pickup_seconds);
	for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
		if (!limits[i].value)
			continue;
		if (!limited)
			write_open(out, "limits", '{');
		limited = true;
		write_number(out, limits[i].name, limits[i].value);
	}
	if (limited)
		buffer_add_char(out, '}');
	write_open(out, "log", '{');
	write_number(out, "every", host->log_every);
	write_number(out, "eventsPerSecond", host->event_rate);
	write_number(out, "rejectsPerSecond", host->reject_rate);
	buffer_add_char(out, '}');
	if (host->n_sriov) {
		write_open(out, "sriov", '[');
		for (size_t i = 0; i < host->n_sriov; i++) {
			const struct sriov_wish *wish = &host->sriov[i];

			write_item(out, '{');
			write_text(out, "device", wish->device);
			if (wish->has_vfs)
				write_number(out, "vfs", wish->vfs);
			if (wish->eswitch != SRIOV_ESWITCH_ANY)
				write_text(out, "eswitch", sriov_eswitches.names[wish->eswitch - SRIOV_ESWITCH_LEGACY]);
			buffer_add_char(out, '}');
		}
		buffer_add_char(out, ']');
	}
	if (host->n_addresses) {
		write_open(out, "addresses", '[');
		for (size_t i = 0; i < host->n_addresses; i++) {
			write_comma(out);
			write_string(out, addr_format(&host->addresses[i], text));
		}
		buffer_add_char(out, ']');
	}
	if (host->kubernetes_network) {
		write_open(out, "kubernetes", '{');
		write_text(out, "network", host->kubernetes_network);
		buffer_add_char(out, '}');
	}
}

void encode_text(const struct object *object, struct buffer *out)
{
	buffer_add_char(out, '{');
	write_text(out, "apiVersion", object_kind_version(object->kind));
	write_text(out, "kind", object_kind_name(object->kind));
	write_open(out, "metadata", '{');
	write_text(out, "name", object->name);
	if (object->namespace_)
		write_text(out, "namespace", object->namespace_);
	write_labels(out, "labels", object->labels, object->n_labels);
	write_labels(out, "annotations", object->annotations, object->n_annotations);
	buffer_add_char(out, '}');
	write_open(out, "spec", '{');
	switch (object->kind) {
	case OBJECT_HOST:
		host_spec(out, &object->host);
		break;
	case OBJECT_NETWORK:
		write_network(out, &object->network);
		break;
	case OBJECT_PORT:
		write_port(out, &object->port);
		break;
	case OBJECT_PEER:
		write_peer(out, &object->tunnel_peer);
		break;
	case OBJECT_NAMESPACE:
		break;
	case OBJECT_NETWORK_POLICY:
	case OBJECT_ADMIN_NETWORK_POLICY:
	case OBJECT_BASELINE_ADMIN_NETWORK_POLICY:
	case OBJECT_CLUSTER_NETWORK_POLICY:
		write_workload(out, object);
		break;
	case OBJECT_FAST_PATH:
		write_fast_path(out, &object->fast_path);
		break;
	case OBJECT_ADDRESS_GROUP:
		group_spec(out, &object->group);
		break;
	case OBJECT_HOST_POLICY:
		policy_spec(out, object);
		break;
	case OBJECT_KIND_COUNT:
		break;
	}
	buffer_add_string(out, "}}");
}

struct json_t *encode_object(const struct object *object)
{
	_cleanup_buffer_ struct buffer text = {0};

	encode_text(object, &text);
	return text.failed ? NULL : json_loadb(text.data, text.length, 0, NULL);
}
