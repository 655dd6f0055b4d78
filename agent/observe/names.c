/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include <netinet/in.h>

#include <heddle/event.h>
#include <heddle/flow.h>
#include <heddle/policy.h>
#include <heddle/reasons.h>
#include <heddle/types.h>
#include <observe/names.h>

#define NAME_OF(table, index) ((index) < sizeof(table) / sizeof((table)[0]) && (table)[index] ? (table)[index] : "?")
#define COMPLETE(table, count) static_assert(sizeof(table) / sizeof((table)[0]) == (count), #table)

static const char *const verdicts[] = {[HD_ALLOW] = "allow", [HD_DENY] = "deny", [HD_REJECT] = "reject", [HD_DROP] = "drop"};
COMPLETE(verdicts, HD_DROP + 1);

static const char *const directions[] = {[HD_INGRESS] = "ingress", [HD_EGRESS] = "egress"};
COMPLETE(directions, HD_DIRECTIONS);

static const char *const hooks[] = {
	[HD_HOOK_XDP_UPLINK] = "xdp_uplink",
	[HD_HOOK_TC_UPLINK_IN] = "tc_uplink_in",
	[HD_HOOK_TC_UPLINK_OUT] = "tc_uplink_out",
	[HD_HOOK_TC_PORT_IN] = "tc_port_in",
	[HD_HOOK_TC_PORT_OUT] = "tc_port_out",
	[HD_HOOK_TC_WIRE_IN] = "tc_wire_in",
	[HD_HOOK_TC_TUNNEL_IN] = "tc_tunnel_in",
	[HD_HOOK_TC_HOST_OUT] = "tc_host_out",
};
COMPLETE(hooks, HD_HOOKS);

#define NAME(sym, name, text) name,
#define TEXT(sym, name, text) text,
static const char *const reasons[] = {HD_REASONS(NAME)};
static const char *const reason_texts[] = {HD_REASONS(TEXT)};
static const char *const flow_states[] = {HD_FLOW_STATES(NAME)};
static const char *const builtin_names[] = {HD_BUILTIN_RULES(NAME)};
static const char *const builtin_texts[] = {HD_BUILTIN_RULES(TEXT)};
#define TABLE_NAME(sym, name) name,
static const char *const tables[] = {HD_TABLES(TABLE_NAME)};

const char *verdict_name(unsigned verdict)
{
	return NAME_OF(verdicts, verdict);
}

const char *direction_name(unsigned direction)
{
	return NAME_OF(directions, direction);
}

const char *hook_name(unsigned hook)
{
	return NAME_OF(hooks, hook);
}

const char *reason_name(unsigned reason)
{
	return NAME_OF(reasons, reason);
}

const char *reason_text(unsigned reason)
{
	return NAME_OF(reason_texts, reason);
}

const char *flow_state_name(unsigned state)
{
	return NAME_OF(flow_states, state);
}

const char *table_name(unsigned table)
{
	return NAME_OF(tables, table);
}

const char *builtin_rule_name(unsigned id)
{
	return NAME_OF(builtin_names, id);
}

const char *builtin_rule_text(unsigned id)
{
	return NAME_OF(builtin_texts, id);
}

static const struct {
	uint8_t number;
	const char *name;
} protocols[] = {
	{IPPROTO_TCP, "TCP"},
	{IPPROTO_UDP, "UDP"},
	{IPPROTO_SCTP, "SCTP"},
	{IPPROTO_ICMP, "ICMP"},
	{IPPROTO_ICMPV6, "ICMPV6"},
	{IPPROTO_IGMP, "IGMP"},
	{IPPROTO_IPIP, "IPIP"},
	{IPPROTO_IPV6, "IPV6"},
	{IPPROTO_GRE, "GRE"},
	{IPPROTO_ESP, "ESP"},
	{IPPROTO_AH, "AH"},
	{89, "OSPF"},
	{IPPROTO_PIM, "PIM"},
	{112, "VRRP"},
	{IPPROTO_UDPLITE, "UDPLITE"},
	{IPPROTO_ICMPV6, "IPV6-ICMP"},
};

const char *protocol_name(uint8_t protocol, char *buffer)
{
	for (size_t i = 0; i < sizeof(protocols) / sizeof(protocols[0]); i++)
		if (protocols[i].number == protocol)
			return protocols[i].name;
	snprintf(buffer, PROTOCOL_NAME_MAX, "%u", protocol);
	return buffer;
}

int protocol_from_name(const char *name)
{
	char *end;
	unsigned long number;

	for (size_t i = 0; i < sizeof(protocols) / sizeof(protocols[0]); i++)
		if (!strcasecmp(protocols[i].name, name))
			return protocols[i].number;
	if (*name < '0' || *name > '9')
		return -1;
	number = strtoul(name, &end, 10);
	return *end || number > 255 ? -1 : (int)number;
}
