// SPDX-License-Identifier: Apache-2.0
/* Objects to JSON, as a person would write them. Decoding the text gives an equal object: see content.c for what that means. */
#include <model/decode.h>

#include <inttypes.h>
#include <jansson.h>
#include <netinet/in.h>
#include <string.h>

#include <model/kinds.h>
#include <util/addr.h>
#include <util/buffer.h>
#include <util/duration.h>

/*
 * `{` and `[` are followed by no comma, everything else is: the writer looks at what stands there last. That needs no state,
 * and strings cannot confuse it, since they end with a quote.
 */
static void comma(struct buffer *out)
{
	if (out->length && !strchr("{[:\n", out->data[out->length - 1]))
		buffer_add_char(out, ',');
}

static void string(struct buffer *out, const char *text)
{
	const unsigned char *at = (const unsigned char *)text, *from = at;

	buffer_add_char(out, '"');
	for (; *at; at++) {
		/* C1 controls, U+2028 and the like are valid in JSON as they are, but not in YAML: the decoder sees to that. */
		if (*at >= 0x20 && *at != '"' && *at != '\\' && *at != 0x7f)
			continue;
		buffer_add(out, from, (size_t)(at - from));
		if (*at == '"' || *at == '\\')
			buffer_printf(out, "\\%c", *at);
		else
			buffer_printf(out, "\\u%04x", *at);
		from = at + 1;
	}
	buffer_add(out, from, (size_t)(at - from));
	buffer_add_char(out, '"');
}

static void key(struct buffer *out, const char *name)
{
	comma(out);
	string(out, name);
	buffer_add_char(out, ':');
}

static void text_field(struct buffer *out, const char *name, const char *text)
{
	key(out, name);
	string(out, text);
}

static void number_field(struct buffer *out, const char *name, uint64_t number)
{
	key(out, name);
	buffer_printf(out, "%" PRIu64, number);
}

static void open_field(struct buffer *out, const char *name, char bracket)
{
	key(out, name);
	buffer_add_char(out, bracket);
}

static void open_item(struct buffer *out, char bracket)
{
	comma(out);
	buffer_add_char(out, bracket);
}

static void prefix_item(struct buffer *out, const struct prefix *prefix)
{
	char text[ADDR_TEXT_MAX];

	comma(out);
	string(out, addr_format_cidr(&prefix->addr, prefix->length, text));
}

static void ports(struct buffer *out, const char *name, const struct port_range *list, size_t n)
{
	open_field(out, name, '[');
	for (size_t i = 0; i < n; i++) {
		const struct port_range *range = &list[i];
		const char *protocol = document_protocol_name(range->protocol);

		open_item(out, '{');
		if (protocol)
			text_field(out, "protocol", protocol);
		else if (range->protocol || range->any_port) /* source ports of whatever protocol have none */
			number_field(out, "protocol", range->protocol);
		if (!range->any_port) {
			number_field(out, "port", range->first);
			if (range->last != range->first)
				number_field(out, "endPort", range->last);
		}
		buffer_add_char(out, '}');
	}
	buffer_add_char(out, ']');
}

static void peers(struct buffer *out, const char *name, const struct peer *list, size_t n)
{
	open_field(out, name, '[');
	for (size_t i = 0; i < n; i++) {
		const struct peer *peer = &list[i];
		char text[ADDR_TEXT_MAX];

		open_item(out, '{');
		if (peer->group) {
			text_field(out, "addressGroup", peer->group);
		} else {
			text_field(out, "cidr", addr_format_cidr(&peer->prefix.addr, peer->prefix.length, text));
			if (peer->n_except) {
				open_field(out, "except", '[');
				for (uint32_t j = 0; j < peer->n_except; j++)
					prefix_item(out, &peer->except[j]);
				buffer_add_char(out, ']');
			}
		}
		buffer_add_char(out, '}');
	}
	buffer_add_char(out, ']');
}

static void icmp_matches(struct buffer *out, const struct icmp_match *list, size_t n)
{
	open_field(out, "icmp", '[');
	for (size_t i = 0; i < n; i++) {
		const struct icmp_match *icmp = &list[i];

		open_item(out, '{');
		if (icmp->type_first == icmp->type_last)
			number_field(out, "type", icmp->type_first);
		if (icmp->code_first == icmp->code_last)
			number_field(out, "code", icmp->code_first);
		text_field(out, "family", icmp->protocol == IPPROTO_ICMPV6 ? "IPv6" : "IPv4");
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

	open_field(out, direction_names[direction], '[');
	for (size_t i = 0; i < policy->n_rules[direction]; i++) {
		const struct rule *rule = &list[i];

		open_item(out, '{');
		if (rule->name)
			text_field(out, "name", rule->name);
		text_field(out, "action", verdict_names[rule->verdict]);
		if (rule->n_peers)
			peers(out, direction == HD_INGRESS ? "from" : "to", rule->peers, rule->n_peers);
		if (rule->n_ports)
			ports(out, "ports", rule->ports, rule->n_ports);
		if (rule->extra && rule->extra->n_source_ports)
			ports(out, "sourcePorts", rule->extra->source_ports, rule->extra->n_source_ports);
		if (rule->extra && rule->extra->n_icmp)
			icmp_matches(out, rule->extra->icmp, rule->extra->n_icmp);
		if (rule->log) {
			key(out, "log");
			buffer_add_string(out, "true");
		}
		buffer_add_char(out, '}');
	}
	buffer_add_char(out, ']');
}

static void policy_spec(struct buffer *out, const struct object *object)
{
	const struct host_policy *policy = &object->policy;

	number_field(out, "priority", policy->priority);
	if (policy->n_uplinks) {
		open_field(out, "uplinks", '[');
		for (size_t i = 0; i < policy->n_uplinks; i++) {
			comma(out);
			string(out, policy->uplinks[i]);
		}
		buffer_add_char(out, ']');
	}
	rules(out, object, HD_INGRESS);
	rules(out, object, HD_EGRESS);
	if (policy->default_verdict[HD_INGRESS] >= 0 || policy->default_verdict[HD_EGRESS] >= 0) {
		open_field(out, "default", '{');
		for (int i = 0; i < HD_DIRECTIONS; i++)
			if (policy->default_verdict[i] >= 0)
				text_field(out, direction_names[i], verdict_names[policy->default_verdict[i]]);
		buffer_add_char(out, '}');
	}
}

static void group_spec(struct buffer *out, const struct address_group *group)
{
	open_field(out, "cidrs", '[');
	for (size_t i = 0; i < group->n_cidrs; i++)
		prefix_item(out, &group->cidrs[i]);
	buffer_add_char(out, ']');
}

static void duration_field(struct buffer *out, const char *name, uint32_t ms)
{
	char text[DURATION_TEXT_MAX];

	text_field(out, name, duration_format(ms, text));
}

static void host_spec(struct buffer *out, const struct host *host)
{
	static const char *const xdp_names[] = {
		[XDP_MODE_AUTO] = "auto", [XDP_MODE_NATIVE] = "native", [XDP_MODE_GENERIC] = "generic", [XDP_MODE_OFF] = "off"};
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

	open_field(out, "uplinks", '[');
	for (size_t i = 0; i < host->n_uplinks; i++) {
		open_item(out, '{');
		text_field(out, "device", host->uplinks[i].device);
		text_field(out, "xdp", xdp_names[host->uplinks[i].xdp]);
		buffer_add_char(out, '}');
	}
	buffer_add_char(out, ']');
	if (host->has_tunnel) {
		open_field(out, "tunnel", '{');
		text_field(out, "protocol", host->tunnel_geneve ? "geneve" : "vxlan");
		text_field(out, "address", addr_format(&host->tunnel_address, text));
		number_field(out, "port", host->tunnel_port);
		buffer_add_char(out, '}');
	}
	ports(out, "failsafe", host->failsafe, host->n_failsafe);
	text_field(out, "forward", host->forward_judge ? "judge" : "pass");
	open_field(out, "timeouts", '{');
	duration_field(out, "tcpEstablished", host->timeouts.tcp_established);
	duration_field(out, "tcpSyn", host->timeouts.tcp_syn);
	duration_field(out, "tcpFin", host->timeouts.tcp_fin);
	duration_field(out, "udp", host->timeouts.udp);
	duration_field(out, "udpStream", host->timeouts.udp_stream);
	duration_field(out, "icmp", host->timeouts.icmp);
	duration_field(out, "other", host->timeouts.other);
	buffer_add_char(out, '}');
	number_field(out, "pickupSeconds", host->pickup_seconds);
	for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
		if (!limits[i].value)
			continue;
		if (!limited)
			open_field(out, "limits", '{');
		limited = true;
		number_field(out, limits[i].name, limits[i].value);
	}
	if (limited)
		buffer_add_char(out, '}');
	open_field(out, "log", '{');
	number_field(out, "every", host->log_every);
	number_field(out, "eventsPerSecond", host->event_rate);
	number_field(out, "rejectsPerSecond", host->reject_rate);
	buffer_add_char(out, '}');
}

static void labels(struct buffer *out, const char *name, const struct label *list, size_t n)
{
	if (!n)
		return;
	open_field(out, name, '{');
	for (size_t i = 0; i < n; i++)
		text_field(out, list[i].key, list[i].value);
	buffer_add_char(out, '}');
}

void encode_text(const struct object *object, struct buffer *out)
{
	buffer_add_char(out, '{');
	text_field(out, "apiVersion", API_VERSION);
	text_field(out, "kind", object_kind_name(object->kind));
	open_field(out, "metadata", '{');
	text_field(out, "name", object->name);
	if (object->namespace_)
		text_field(out, "namespace", object->namespace_);
	labels(out, "labels", object->labels, object->n_labels);
	labels(out, "annotations", object->annotations, object->n_annotations);
	buffer_add_char(out, '}');
	open_field(out, "spec", '{');
	switch (object->kind) {
	case OBJECT_HOST:
		host_spec(out, &object->host);
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
