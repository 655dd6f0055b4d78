/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/stat.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <systemd/sd-journal.h>

#include <observe/events.h>
#include <observe/json.h>
#include <observe/names.h>
#include <observe/packet.h>
#include <util/addr.h>
#include <util/log.h>

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6 0x86dd

/* Events carry CLOCK_MONOTONIC; people read the wall clock. */
static int64_t wall_ms(uint64_t monotonic_ns)
{
	struct timespec wall, monotonic;

	clock_gettime(CLOCK_REALTIME, &wall);
	clock_gettime(CLOCK_MONOTONIC, &monotonic);
	return (int64_t)wall.tv_sec * 1000 + wall.tv_nsec / 1000000 -
	       ((int64_t)monotonic.tv_sec * 1000 + monotonic.tv_nsec / 1000000 - (int64_t)(monotonic_ns / 1000000));
}

static bool is_ip(const struct hd_event *event)
{
	uint16_t type = ntohs(event->ethertype);

	return type == ETHERTYPE_IPV4 || type == ETHERTYPE_IPV6;
}

static bool has_ports(const struct hd_event *event)
{
	return event->protocol == IPPROTO_TCP || event->protocol == IPPROTO_UDP || event->protocol == IPPROTO_SCTP;
}

static bool is_icmp(const struct hd_event *event)
{
	return event->protocol == IPPROTO_ICMP || event->protocol == IPPROTO_ICMPV6;
}

bool event_is_drop(const struct hd_event *event)
{
	return event->type == HD_EVENT_DROP || event->type == HD_EVENT_REJECT ||
	       (event->type == HD_EVENT_LOG && event->verdict != HD_ALLOW);
}

/* Let through, but for audit mode it would not have been. */
static bool is_audit(const struct hd_event *event)
{
	return event->type == HD_EVENT_LOG && event->verdict == HD_ALLOW && event->reason != HD_R_NONE;
}

/* Of the port that the event's device is. An uplink has neither; what came by it may be a network's. */
static void add_port(json_t *line, const struct view *view, const struct hd_event *event)
{
	const struct topology_port *port = view_port(view, event->ifindex);
	char network[VIEW_NETWORK_MAX];

	if (port) {
		json_object_set_new(line, "network", json_string(port->object->port.network));
		json_object_set_new(line, "port", json_sprintf("%s/%s", port->object->namespace_, port->object->name));
	} else if (event->network) {
		json_object_set_new(line, "network", json_string(view_network(view, event->network, network)));
	}
}

/* Dropped as a tunnel packet: the addresses are the outer ones. */
static bool is_outer(const struct hd_event *event)
{
	switch (event->reason) {
	case HD_R_TUNNEL_MALFORMED:
	case HD_R_TUNNEL_OPTION:
	case HD_R_TUNNEL_VNI:
	case HD_R_TUNNEL_PEER:
	case HD_R_TUNNEL_ECN:
		return true;
	default:
		return false;
	}
}

static uint32_t sending_peer(const struct view *view, const struct hd_event *event)
{
	const struct topology_peer *peer = is_outer(event) ? view_peer_at(view, &event->source) : NULL;

	return event->hook == HD_HOOK_TC_TUNNEL_IN && event->peer ? event->peer : peer ? peer->index : 0;
}

static void add_peer(json_t *line, const struct view *view, const struct hd_event *event)
{
	uint32_t from = sending_peer(view, event);

	if (from)
		json_object_set_new(line, "sourcePeer", json_peer(view, from));
	else if (event->peer)
		json_object_set_new(line, "destinationPeer", json_peer(view, event->peer));
}

static void add_packet(json_t *line, const struct hd_event *event)
{
	json_t *tags = json_array();
	char text[16];

	for (unsigned i = 0; i < 2; i++)
		if (event->vlan[i] & 0x1000)
			json_array_append_new(tags, json_integer(event->vlan[i] & 0xfff));
	json_object_set_new(line, "vlan", tags);
	json_object_set_new(line, "length", json_integer(event->length));
	if (is_outer(event) && !is_ip(event)) { /* dropped by tc_tunnel_in, to which the uplink's program has given it as UDP */
		json_object_set_new(line, "protocol", json_protocol(IPPROTO_UDP));
		json_object_set_new(line, "source", json_address(&event->source));
		json_object_set_new(line, "destination", json_address(&event->destination));
		return;
	}
	if (!is_ip(event)) {
		snprintf(text, sizeof(text), "0x%04x", ntohs(event->ethertype));
		json_object_set_new(line, "etherType", event->ethertype ? json_string(text) : json_null());
		return;
	}
	json_object_set_new(line, "protocol", json_protocol(event->protocol));
	json_object_set_new(line, "source", json_address(&event->source));
	json_object_set_new(line, "destination", json_address(&event->destination));
	if (has_ports(event)) {
		json_object_set_new(line, "sourcePort", json_integer(ntohs(event->source_port)));
		json_object_set_new(line, "destinationPort", json_integer(ntohs(event->destination_port)));
	}
	if (event->protocol == IPPROTO_TCP) {
		tcp_flags_format(event->tcp_flags, text);
		json_object_set_new(line, "tcpFlags", json_string(text));
	}
	if (is_icmp(event)) {
		json_object_set_new(line, "icmpType", json_integer(ntohs(event->destination_port) >> 8));
		json_object_set_new(line, "icmpCode", json_integer(ntohs(event->destination_port) & 0xff));
		json_object_set_new(line, "icmpId", json_integer(ntohs(event->source_port)));
	}
}

json_t *event_json(const struct view *view, const struct hd_event *event)
{
	static const char *const types[] = {
		[HD_EVENT_DROP] = "drop", [HD_EVENT_FLOW] = "flow", [HD_EVENT_LOG] = "log", [HD_EVENT_REJECT] = "drop"};
	json_t *line;

	if (event->type == HD_EVENT_FULL)
		return json_pack("{s:s, s:o, s:s, s:o}", "type", "full", "time", json_time(wall_ms(event->time)), "table",
			table_name(event->reason), "device", json_device(view, event->ifindex));
	if (event->type < HD_EVENT_DROP || event->type > HD_EVENT_REJECT)
		return NULL;
	line = json_pack("{s:s, s:o, s:s, s:b, s:s, s:s, s:o, s:s, s:o, s:I}", "type", types[event->type], "time",
		json_time(wall_ms(event->time)), "verdict", verdict_name(event->verdict), "audit", is_audit(event), "reason",
		reason_name(event->reason), "hook", hook_name(event->hook), "device", json_device(view, event->ifindex),
		"direction", direction_name(event->direction), "rule", json_rule(view, event->rule), "generation",
		(json_int_t)event->generation);
	if (line) {
		add_port(line, view, event);
		add_peer(line, view, event);
		add_packet(line, event);
	}
	return line;
}

static void describe(const struct hd_event *event, char *text, size_t size)
{
	char source[ADDR_TEXT_MAX], destination[ADDR_TEXT_MAX], protocol[PROTOCOL_NAME_MAX], flags[16];
	const char *name = protocol_name(event->protocol, protocol);

	if (!is_ip(event)) {
		snprintf(text, size, "EtherType 0x%04x", ntohs(event->ethertype));
		return;
	}
	addr_format(&event->source, source);
	addr_format(&event->destination, destination);
	tcp_flags_format(event->tcp_flags, flags);
	if (has_ports(event))
		snprintf(text, size, "%s %s port %u > %s port %u%s%s", name, source, ntohs(event->source_port), destination,
			ntohs(event->destination_port), event->protocol == IPPROTO_TCP ? " flags " : "",
			event->protocol == IPPROTO_TCP ? flags : "");
	else if (is_icmp(event))
		snprintf(text, size, "%s %s > %s type %u code %u", name, source, destination, ntohs(event->destination_port) >> 8,
			ntohs(event->destination_port) & 0xff);
	else
		snprintf(text, size, "%s %s > %s", name, source, destination);
}

/* As sd-daemon(3) has it: JOURNAL_STREAM names the device and inode of what stderr was connected to. */
static bool stderr_is_journal(void)
{
	static int known = -1;
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long device, inode;
	struct stat st;

	if (known < 0)
		known = stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 && !fstat(STDERR_FILENO, &st) &&
			st.st_dev == device && st.st_ino == inode;
	return known;
}

static void log_rule(const struct view *view, const struct hd_event *event)
{
	const struct netdev *device = view_device(view, event->ifindex);
	const char *device_name = device ? device->name : "?";
	struct rule_reference rule = {.policy = "builtin", .name = builtin_rule_name(event->rule)};
	const char *audit = is_audit(event) ? " (audit)" : "";
	char packet[256], label[600], source[ADDR_TEXT_MAX], destination[ADDR_TEXT_MAX];

	if (event->rule >= HD_RULE_BUILTIN_COUNT && (!view->compiler || compiler_rule(view->compiler, event->rule, &rule) < 0))
		rule = (struct rule_reference){.policy = "?"};
	if (rule.name)
		snprintf(label, sizeof(label), "%s/%s", rule.policy, rule.name);
	else
		snprintf(label, sizeof(label), "%s%s%s/%s[%" PRIu32 "]", rule.namespace_ ?: "", rule.namespace_ ? "/" : "",
			rule.policy, direction_name(rule.direction), rule.index);
	describe(event, packet, sizeof(packet));
	if (!stderr_is_journal()) {
		log_info("%s%s %s %s: %s: rule %s", verdict_name(event->verdict), audit, direction_name(event->direction),
			device_name, packet, label);
		return;
	}
	addr_format(&event->source, source);
	addr_format(&event->destination, destination);
	sd_journal_send("PRIORITY=%d", LOG_INFO, "MESSAGE=%s%s %s %s: %s: rule %s", verdict_name(event->verdict), audit,
		direction_name(event->direction), device_name, packet, label, "HEDDLE_VERDICT=%s", verdict_name(event->verdict),
		"HEDDLE_AUDIT=%d", is_audit(event), "HEDDLE_DIRECTION=%s", direction_name(event->direction), "HEDDLE_DEVICE=%s",
		device_name, "HEDDLE_RULE=%s", label, "HEDDLE_PROTOCOL=%u", event->protocol, "HEDDLE_SOURCE=%s", source,
		"HEDDLE_DESTINATION=%s", destination, "HEDDLE_SOURCE_PORT=%u", ntohs(event->source_port),
		"HEDDLE_DESTINATION_PORT=%u", ntohs(event->destination_port), NULL);
}

void event_log(const struct view *view, const struct hd_event *event)
{
	static struct log_limit rule_limit = {.burst = 200, .interval_ms = 1000}, full_limit = {.burst = 1, .interval_ms = 10000};
	uint64_t suppressed = 0;

	if (event->type == HD_EVENT_LOG && log_limit_pass(&rule_limit, &suppressed)) {
		log_rule(view, event);
		if (suppressed)
			log_notice("%" PRIu64 " log lines of rules were held back", suppressed);
	} else if (event->type == HD_EVENT_FULL && log_limit_pass(&full_limit, NULL)) {
		log_warn(0, "the table %s is full: see `heddle counters` and Host.spec.limits", table_name(event->reason));
	}
}
