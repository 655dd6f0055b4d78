/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <arpa/inet.h>

#include <heddle/network.h>
#include <heddle/overlay.h>
#include <offload/plan_internal.h>
#include <util/addr.h>

const char *const offload_reason_name[OFFLOAD_REASON_COUNT] = {
#define REASON_NAME(sym, name, text) [OFFLOAD_##sym] = name,
	OFFLOAD_REASONS(REASON_NAME)
#undef REASON_NAME
};
const char *const offload_reason_text[OFFLOAD_REASON_COUNT] = {
#define REASON_TEXT(sym, name, text) [OFFLOAD_##sym] = text,
	OFFLOAD_REASONS(REASON_TEXT)
#undef REASON_TEXT
};

static const uint8_t gateway[6] = HD_GATEWAY_MAC;

/* Of both the flow and its rules nothing is known but what the record says: only states in which every ordinary packet means the same. */
enum offload_reason plan_state(const struct datapath_flow *flow, const struct offload_world *world)
{
	uint8_t state = flow->flow.state;

	if (flow->protocol != IPPROTO_TCP && flow->protocol != IPPROTO_UDP && flow->protocol != IPPROTO_SCTP)
		return OFFLOAD_PROTOCOL;
	if (!flow->proven || (state != HD_FS_TCP_ESTABLISHED && state != HD_FS_UDP_REPLIED && state != HD_FS_OTHER_REPLIED))
		return OFFLOAD_STATE;
	return world->timeout_ms[state] < world->least_timeout_ms ? OFFLOAD_TIMEOUT : OFFLOAD_NONE;
}

enum offload_reason plan_end(uint32_t device, const struct offload_world *world, struct offload_port *ret)
{
	if (!device)
		return OFFLOAD_HOST;
	if (!world->port(device, ret, world->userdata) || hd_port_policy_at(&ret->record, ret->generation) < 0)
		return OFFLOAD_STALE;
	return ret->switch_id ? OFFLOAD_NONE : OFFLOAD_SWITCH;
}

/* As between.h has it: who opened the flow was asked for what leaves it, who is at the other end for what comes. */
static bool is_current(const struct hd_flow *flow, const struct offload_port ends[2])
{
	const struct offload_port *opener = &ends[HD_ORIG], *target = &ends[HD_REPLY];
	int from = hd_port_policy_at(&opener->record, opener->generation),
	    to = hd_port_policy_at(&target->record, target->generation);

	return flow->version == opener->record.policy[from].version[HD_EGRESS] &&
	       flow->second_version == target->record.policy[to].version[HD_INGRESS];
}

static enum offload_reason plan_ends(const struct datapath_flow *flow, const struct offload_port ends[2])
{
	const struct hd_port *a = &ends[HD_ORIG].record, *b = &ends[HD_REPLY].record;

	if (ends[HD_ORIG].switch_id != ends[HD_REPLY].switch_id)
		return OFFLOAD_SWITCH;
	if (flow->flow.flags & HD_FLOW_TURNED)
		return OFFLOAD_HOST;
	if (a->network != b->network || flow->network != a->network)
		return OFFLOAD_BETWEEN;
	if (((a->flags | b->flags) & (HD_PORT_TRUNK | HD_PORT_QINQ)) || a->vlan != b->vlan)
		return OFFLOAD_SEGMENT;
	if ((a->flags | b->flags) & (HD_PORT_LIMIT_IN | HD_PORT_LIMIT_OUT))
		return OFFLOAD_RATE;
	return !is_current(&flow->flow, ends) || hd_moved_since(a->moved, flow->flow.last_seen) ||
			       hd_moved_since(b->moved, flow->flow.last_seen)
		       ? OFFLOAD_STALE
		       : OFFLOAD_NONE;
}

/* Behind a port that learns others may live beside the one that it is named after. */
void offload_mac(const struct hd_port *port, const struct hd_addr *address, const struct offload_world *world, uint8_t ret[6])
{
	if (!(port->flags & HD_PORT_LEARNING) || !world->mac(port->network, address, ret, world->userdata))
		memcpy(ret, port->mac, sizeof(port->mac));
}

void plan_addresses(const struct datapath_flow *flow, enum hd_flow_side side, struct offload_rule *ret)
{
	bool reply = side == HD_REPLY;

	memset(ret, 0, sizeof(*ret));
	ret->family = flow->family;
	ret->protocol = flow->protocol;
	ret->source = reply ? flow->destination : flow->source;
	ret->destination = reply ? flow->source : flow->destination;
	ret->source_port = htons(reply ? flow->destination_port : flow->source_port);
	ret->destination_port = htons(reply ? flow->source_port : flow->destination_port);
}

static void plan_rule(const struct datapath_flow *flow, const struct offload_world *world, const struct offload_port ends[2],
	enum hd_flow_side side, bool routed, struct offload_rule *ret)
{
	const struct hd_port *from = &ends[side].record, *to = &ends[!side].record;
	uint8_t mac[6];

	plan_addresses(flow, side, ret);
	ret->in = from->ifindex;
	ret->out = to->ifindex;
	ret->routed = routed;
	offload_mac(from, &ret->source, world, ret->source_mac);
	offload_mac(to, &ret->destination, world, mac);
	memcpy(ret->destination_mac, routed ? gateway : mac, sizeof(ret->destination_mac));
	if (!routed)
		return;
	memcpy(ret->new_source_mac, gateway, sizeof(ret->new_source_mac));
	memcpy(ret->new_destination_mac, mac, sizeof(ret->new_destination_mac));
}

/* No MTU: no limit. A rule cannot ask for the size of a packet. */
static bool fits(const struct hd_port *from, const struct hd_port *to)
{
	return !to->mtu || (from->mtu && from->mtu <= to->mtu);
}

enum offload_reason offload_plan(
	const struct datapath_flow *flow, const struct offload_world *world, struct offload_rule rules[2])
{
	const struct hd_port *a, *b;
	struct offload_port ends[2];
	enum offload_reason reason;
	bool routed;

	if ((flow->flow.device[HD_ORIG] | flow->flow.device[HD_REPLY]) & HD_DEVICE_PEER)
		return plan_outside(flow, world, rules);
	/* Where it goes says more than what it is: asked first. */
	for (unsigned side = HD_ORIG; side <= HD_REPLY; side++) {
		reason = plan_end(flow->flow.device[side], world, &ends[side]);
		if (reason != OFFLOAD_NONE)
			return reason;
	}
	reason = plan_state(flow, world);
	if (reason == OFFLOAD_NONE)
		reason = plan_ends(flow, ends);
	if (reason != OFFLOAD_NONE)
		return reason;
	a = &ends[HD_ORIG].record;
	b = &ends[HD_REPLY].record;
	routed =
		!(a->flags & HD_PORT_L2) || !world->neighbours(flow->network, &flow->source, &flow->destination, world->userdata);
	if (routed && (!fits(a, b) || !fits(b, a)))
		return OFFLOAD_MTU;
	plan_rule(flow, world, ends, HD_ORIG, routed, &rules[HD_ORIG]);
	plan_rule(flow, world, ends, HD_REPLY, routed, &rules[HD_REPLY]);
	return OFFLOAD_NONE;
}
