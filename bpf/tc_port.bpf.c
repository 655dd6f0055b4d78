/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Ports: tc_port_in sees what the workload sends, tc_port_out what the host's stack sends to it, tc_host_out what that sends to workloads behind peers. The
 * other two are called by the uplinks': tc_wire_in for what has the tag of a network, tc_tunnel_in for what comes from a peer.
 */
#define HOOK_PORTS
#include "stage/tc.h"

#include "stage/decap.h"
#include "stage/limit.h"
#include "stage/stack.h"
#include "stage/switch.h"
#include "stage/tc_parse.h"
#include "stage/wire.h"

#include "maps/overlay.bpf.h"

/* What the workload's packet is told to be in `explain` is not in the skb of a test run. */
static __always_inline void enter(struct __sk_buff *skb, struct pkt *p, __u8 direction)
{
	__builtin_memset(p, 0, sizeof(*p));
	p->ifindex = skb->ifindex;
	p->segments = skb->gso_segs;
	if (direction == HD_INGRESS)
		p->arrived_on = skb->ingress_ifindex;
	if (skb->vlan_present)
		p->vlan[0] = (skb->vlan_tci & 0xfff) | 0x1000;
	if (dry_run) {
		struct hd_explain *page = explain_page();

		if (page) {
			p->ifindex = page->ifindex;
			p->segments = page->gso_segs;
			p->arrived_on = direction == HD_INGRESS ? page->ingress_ifindex : 0;
			p->vlan[0] = page->vlan_present ? (page->vlan_tci & 0xfff) | 0x1000 : 0;
		}
	}
	if (!p->segments)
		p->segments = 1;
	p->direction = direction;
	p->hook = direction == HD_EGRESS ? HD_HOOK_TC_PORT_IN : HD_HOOK_TC_PORT_OUT;
	p->length = skb->len;
}

/* The record is not looked at again: it is in one of two maps, and the verifier would follow all that comes once for each. */
static __always_inline int enter_port(struct pkt *p, const struct hd_control *c, const struct hd_port *port)
{
	int reason = port_enter(p, c, port);

	p->source_network = p->destination_network = p->network;
	p->moved = port->moved;
	p->vlan_of_port = port->vlan;
	mac_copy(p->mac, port->mac);
	return reason;
}

static __always_inline int deliver(struct __sk_buff *skb, struct pkt *p)
{
	if (dry_run)
		return p->action == HD_ACT_PORT ? limit_to(skb, p) : 0;
	if (likely(p->action == HD_ACT_PORT))
		return deliver_port(skb, p);
	if (p->action == HD_ACT_NEXT)
		return deliver_host(skb, p);
	if (p->action == HD_ACT_PEER)
		return deliver_peer(skb);
	if (p->action == HD_ACT_WIRE)
		return deliver_wire(skb);
	return p->action == HD_ACT_FLOOD ? flood(skb) : deliver_answer(skb);
}

static __always_inline void explain_vni(const struct pkt *p)
{
	__u32 network = p->destination_network;
	const struct hd_network *record = bpf_map_lookup_elem(&networks, &network);

	if (record)
		EXPLAIN(vni = record->vni);
}

/* Counts, and says what becomes of the skb. After a flood every member has its own. */
static __always_inline int finish(struct __sk_buff *skb, struct pkt *p, int reason)
{
	if (unlikely(reason)) {
		if (p->peer)
			peer_dropped(p->peer, p, HD_INGRESS);
		else if (p->action == HD_ACT_PEER)
			peer_dropped(p->to, p, HD_EGRESS);
		drop(skb, p, reason);
	} else {
		EXPLAIN(action = p->action);
		EXPLAIN(to = p->action == HD_ACT_WIRE ? p->uplink : p->to);
		EXPLAIN(network = p->network);
		EXPLAIN(second_rule = p->second_rule);
		EXPLAIN(routed = p->routed);
		if (dry_run && p->action == HD_ACT_PEER)
			explain_vni(p);
		pass(p);
		if (p->second_rule)
			counter_add(&rule_counters, p->second_rule, p->segments, p->l3_length);
		if (likely(p->action == HD_ACT_PORT || p->action > HD_ACT_FLOOD))
			return TC_ACT_REDIRECT;
		if (p->action == HD_ACT_NEXT)
			return NEXT;
	}
	return TC_ACT_SHOT;
}

static __always_inline int judge_in(struct __sk_buff *skb, struct pkt *p, const struct hd_control *c)
{
	struct ethhdr *eth;
	int reason;

	if (!dry_run && headless(skb))
		return HD_R_ETH_TRUNCATED;
	reason = parse_linear(skb, p, false);
	if (!reason)
		reason = source_segment(p);
	if (reason)
		return reason;
	eth = hook_data(skb);
	if ((void *)(eth + 1) > hook_data_end(skb))
		return HD_R_ETH_TRUNCATED;
	reason = source_mac(skb, p, eth);
	if (reason)
		return reason;
	eth = hook_data(skb);
	if ((void *)(eth + 1) > hook_data_end(skb))
		return HD_R_ETH_TRUNCATED;
	if (likely(ordinary_from(skb, p, eth, c)))
		return source_tunnel(p);
	reason = judge_from(skb, p);
	return reason ? reason : source_tunnel(p);
}

/* Of a port: *ret_reason 0, or why the packet goes no further. NULL: not ours. */
static __always_inline struct pkt *begin(struct __sk_buff *skb, __u8 direction, struct hd_control **ret_control, int *ret_reason)
{
	struct hd_scratch *room = scratch_room();
	struct hd_control *c;
	struct hd_port *port;
	__u32 zero = 0;
	struct pkt *p;

	if (!room)
		return NULL; /* a map of one entry has it */
	p = &room->port;
	enter(skb, p, direction);
	port = port_find(p->ifindex);
	c = bpf_map_lookup_elem(&control, &zero);
	if (!port || !c)
		return NULL;
	*ret_control = c;
	*ret_reason = enter_port(p, c, port);
	return p;
}

SEC("tc")
int tc_port_in(struct __sk_buff *skb)
{
	struct hd_control *c;
	struct pkt *p;
	int reason;

	p = begin(skb, HD_EGRESS, &c, &reason);
	if (!p)
		return NEXT;
	/* What a workload says here is no mark of ours. */
	if (!dry_run && skb->mark)
		skb->mark = 0;
	if (!reason)
		reason = judge_in(skb, p, c);
	if (!reason && unlikely(p->port_flags & HD_PORT_LIMIT_OUT))
		reason = limit(skb, p, p->ifindex, HD_EGRESS);
	if (!reason)
		reason = deliver(skb, p);
	return finish(skb, p, reason);
}

SEC("tc")
int tc_port_out(struct __sk_buff *skb)
{
	struct hd_control *c;
	struct pkt *p;
	int reason;

	/* Redirected by tc_port_in, or made by the agent. */
	if (!dry_run && skb->mark & HD_MARK) {
		skb->mark = 0;
		return NEXT;
	}
	p = begin(skb, HD_INGRESS, &c, &reason);
	if (!p)
		return NEXT;
	if (!reason)
		reason = parse_linear(skb, p, false);
	if (!reason && !ordinary_to(p, c))
		reason = judge_to(skb, p);
	if (!reason && unlikely(p->port_flags & HD_PORT_LIMIT_IN))
		reason = limit(skb, p, p->ifindex, HD_INGRESS);
	return finish(skb, p, reason);
}

/* The outer tag. `explain` has it beside the frame, and one of the frame's own behind it can only be a segment's. */
static __always_inline bool service_tag(struct __sk_buff *skb, const struct pkt *p)
{
	const struct ethhdr *eth = hook_data(skb);

	if (dry_run)
		return p->vlan[1];
	if (skb->vlan_present)
		return skb->vlan_proto == bpf_htons(ETH_P_8021AD);
	return (void *)(eth + 1) <= hook_data_end(skb) && eth->h_proto == bpf_htons(ETH_P_8021AD);
}

/* Whose the tags say. The outer one was looked up by the caller; it may have been taken from the network since. */
static __always_inline int enter_wire(struct __sk_buff *skb, struct pkt *p)
{
	const struct hd_wire *wire = wire_find(p->vlan[0]);
	const struct hd_network *record;
	__u32 network;

	p->segment = p->vlan[1] & 0xfff;
	if (!wire || service_tag(skb, p) != !!p->segment || !p->segment != !p->vlan[1])
		return HD_R_SOURCE_VLAN;
	network = wire->network;
	record = bpf_map_lookup_elem(&networks, &network);
	if (!network || !record || record->vlan != (p->vlan[0] & 0xfff))
		return HD_R_SOURCE_VLAN;
	p->network = p->source_network = p->destination_network = network;
	p->port_flags = HD_PORT_UPLINK | (record->flags & HD_NETWORK_L3 ? 0 : HD_PORT_L2);
	if (p->segment && !(p->port_flags & HD_PORT_L2)) /* nothing is in segments there */
		return HD_R_SOURCE_VLAN;
	return p->generation ? 0 : HD_R_NOT_READY;
}

/* Behind the network's tag is a frame like one of a trunk. The kernel takes the tag that comes up then out of the frame as well. */
static __always_inline int leave_wire(struct __sk_buff *skb, struct pkt *p)
{
	if (!p->segment)
		return 0;
	if (bpf_skb_vlan_pop(skb))
		return HD_R_NONLINEAR;
	p->vlan[0] = p->vlan[1];
	p->vlan[1] = 0;
	p->l4 -= p->l3 - sizeof(struct ethhdr);
	p->l3 = sizeof(struct ethhdr);
	return 0;
}

/* What comes in by an uplink for a network, on no port. NULL: maps of one entry always have it. */
static __always_inline struct pkt *enter_outside(struct __sk_buff *skb, const struct hd_control *c, __u8 hook)
{
	struct hd_scratch *room = scratch_room();
	struct pkt *p;

	if (!room || !c)
		return NULL;
	p = &room->port;
	enter(skb, p, HD_INGRESS);
	p->hook = hook;
	p->now = bpf_jiffies64();
	p->generation = READ_ONCE(c->generation);
	return p;
}

SEC("tc")
int tc_wire_in(struct __sk_buff *skb)
{
	struct hd_control *c;
	__u32 zero = 0;
	struct pkt *p;
	int reason;

	c = bpf_map_lookup_elem(&control, &zero);
	p = enter_outside(skb, c, HD_HOOK_TC_WIRE_IN);
	if (!p)
		return TC_ACT_SHOT; /* lint: drop-reason, never: maps of one entry have it */
	reason = !dry_run && headless(skb) ? HD_R_ETH_TRUNCATED : parse_linear(skb, p, false);
	if (!reason)
		reason = enter_wire(skb, p);
	if (!reason)
		reason = source_learn(skb, p);
	if (!reason)
		reason = judge_from(skb, p);
	if (!reason && p->action == HD_ACT_NEXT) /* nothing leads there */
		reason = HD_R_NO_DESTINATION;
	if (!reason && !dry_run)
		reason = leave_wire(skb, p);
	if (!reason)
		reason = deliver(skb, p);
	return finish(skb, p, reason);
}

/* The frame's own length and pieces. What the tunnel's super-packet was cut into is not known any more. */
static __always_inline void enter_inner(struct __sk_buff *skb, struct pkt *p)
{
	__u32 size = dry_run ? 0 : skb->gso_size;

	if (unlikely(size) && p->segments == 1 && p->payload)
		p->segments = (p->payload + size - 1) / size;
}

/* Whatever the peer claimed to be and is not. */
static __always_inline int claimed(int reason)
{
	return reason >= HD_R_SOURCE_MAC && reason <= HD_R_ND_TARGET && reason != HD_R_SOURCE_VLAN ? HD_R_TUNNEL_SOURCE : reason;
}

static __always_inline int judge_tunnel(struct __sk_buff *skb, struct pkt *p, const struct hd_control *c)
{
	struct ethhdr *eth;
	int reason;

	reason = p->generation ? parse_linear(skb, p, false) : HD_R_NOT_READY;
	if (reason)
		return reason;
	enter_inner(skb, p);
	p->segment = p->vlan[0] & 0xfff;
	eth = hook_data(skb);
	if ((void *)(eth + 1) > hook_data_end(skb))
		return HD_R_ETH_TRUNCATED;
	if (likely(ordinary_behind(skb, p, eth, c)))
		return 0;
	reason = source_behind(skb, p);
	if (!reason)
		reason = judge_from(skb, p);
	if (unlikely(p->fragment) && !reason && !dry_run)
		fragment_turned(p);
	if (!reason && p->action == HD_ACT_NEXT && !stack_takes(p)) /* neither the host nor another network */
		reason = HD_R_NO_DESTINATION;
	return claimed(reason);
}

/* What XDP wrote of the frame; tc_uplink_in has seen that it is XDP's. NULL: it is in its tunnel yet. */
static __always_inline const struct hd_meta_tunnel *taken_out(struct __sk_buff *skb)
{
	const struct hd_meta_tunnel *meta = (void *)(long)skb->data_meta;

	if (dry_run || likely(skb->cb[0] != HD_META_TUNNEL) || (void *)(meta + 1) > (void *)(long)skb->data)
		return NULL;
	return meta;
}

SEC("tc")
int tc_tunnel_in(struct __sk_buff *skb)
{
	const struct hd_meta_tunnel *meta;
	struct hd_explain *page;
	struct hd_control *c;
	__u32 zero = 0;
	struct pkt *p;
	int reason;

	c = bpf_map_lookup_elem(&control, &zero);
	p = enter_outside(skb, c, HD_HOOK_TC_TUNNEL_IN);
	if (!p)
		return TC_ACT_SHOT; /* lint: drop-reason, never: maps of one entry have it */
	page = dry_run ? explain_page() : NULL;
	meta = taken_out(skb);
	if (page) { /* of an inner frame */
		p->peer = peer_find(page->from_peer) ? page->from_peer : 0;
		reason = p->peer ? decap_network(p, page->from_network) : HD_R_TUNNEL_PEER;
	} else if (meta) {
		p->peer = meta->peer;
		reason = peer_find(meta->peer) ? decap_network(p, meta->network) : HD_R_TUNNEL_PEER;
	} else {
		reason = dry_run ? HD_R_TUNNEL_PEER : decap(skb);
	}
	if (unlikely(reason == DECAP_CONTROL)) {
		p->rule = HD_RULE_TUNNEL;
		pass(p);
		return NEXT;
	}
	if (!reason)
		reason = judge_tunnel(skb, p, c);
	if (unlikely(!reason && p->protocol == PROTO_TCP && p->tcp_flags & TCP_SYN && !dry_run))
		mss_lower(skb, p, p->peer);
	if (!reason)
		reason = p->action == HD_ACT_NEXT && !dry_run ? deliver_stack(skb) : deliver(skb, p);
	if (!reason)
		peer_passed(p->peer, p, HD_INGRESS);
	reason = finish(skb, p, reason);
	return reason == NEXT ? TC_ACT_REDIRECT : reason;
}

/* On the device that the host's routes to workloads behind peers lead to. Nobody is at its other end: what does not go to a peer ends here. */
SEC("tc")
int tc_host_out(struct __sk_buff *skb)
{
	struct hd_control *c;
	__u32 zero = 0;
	struct pkt *p;
	int reason;

	c = bpf_map_lookup_elem(&control, &zero);
	p = enter_outside(skb, c, HD_HOOK_TC_HOST_OUT);
	if (!p)
		return TC_ACT_SHOT; /* lint: drop-reason, never: maps of one entry have it */
	p->direction = HD_EGRESS;
	reason = p->generation ? parse_linear(skb, p, false) : HD_R_NOT_READY;
	if (!reason && !(stack_network(p) && ordinary_stack(skb, p, c)))
		reason = judge_stack(skb, p);
	if (!reason && !dry_run)
		reason = deliver_peer(skb);
	return finish(skb, p, reason);
}

char _license[] SEC("license") = "Dual BSD/GPL";
