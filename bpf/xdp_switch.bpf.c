/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Ports whose frames XDP or the agent's workers move: what a workload sends, before the kernel has made a buffer of it. Takes only packets of flows that tc_port_in
 * has judged, by the policies in force, and about which nothing is new; for the first of each, and for everything that is not plain, tc_port_in
 * decides as it does without workers. Loaded with the flag for several buffers and without it: see xdp_generic.bpf.c.
 */
#define HOOK_PORTS
#include "stage/xdp.h"

#include "stage/known.h"
#include "stage/match.h"
#include "stage/parse.h"
#include "stage/peer.h"
#include "stage/transit.h"

#include "stage/icmp.h"

/* A flow's frames go by the kernel for so long after one that was larger than the MTU: else they would overtake it, or be overtaken. */
#define BULK_TICKS 64

static __always_inline void enter(struct xdp_md *ctx, struct pkt *p)
{
	__builtin_memset(p, 0, sizeof(*p));
	p->ifindex = ctx->ingress_ifindex;
	p->direction = HD_EGRESS;
	p->hook = HD_HOOK_TC_PORT_IN;
	p->length = ctx->data_end - ctx->data;
	p->segments = 1;
}

/* A checksum that the workload leaves to its device, workers complete where it is that of the packet; not within a tunnel of the workload's own, nor CRC32c. */
static __always_inline bool checksum_told(const struct pkt *p)
{
	if (p->protocol == PROTO_UDP)
		return p->dport != bpf_htons(4789) && p->dport != bpf_htons(6081) && p->dport != bpf_htons(8472);
	return p->protocol == PROTO_TCP || icmp_is(p);
}

/* No tag, no limit, no options, nothing that could be new for its flow. */
static __always_inline bool plain(const struct pkt *p)
{
	return p->family && !p->fragment && p->l3 == sizeof(struct ethhdr) &&
	       p->l4 - p->l3 == (p->family == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr)) &&
	       !(p->port_flags & (HD_PORT_TRUNK | HD_PORT_LIMIT_OUT)) && !opens_tcp(p) && (!icmp_is(p) || icmp_echo(p)) &&
	       checksum_told(p);
}

/* The flow's, from the end that the port is, by its own MAC. What it sends in pieces of more than the MTU is noted. */
static __always_inline bool its_own(struct pkt *p, const struct hd_port *port, const struct ethhdr *eth, struct hd_flow *flow)
{
	__u32 side = flow_side(p, flow), *bulk = side == HD_ORIG ? &flow->bulk[HD_ORIG] : &flow->bulk[HD_REPLY];

	if ((side == HD_ORIG ? flow->device[HD_ORIG] : flow->device[HD_REPLY]) != p->ifindex)
		return false;
	if (unlikely(port->mtu && p->l3_length > port->mtu)) {
		*bulk = p->now ? p->now : 1;
		return false;
	}
	if (unlikely(*bulk)) {
		if (p->now - *bulk < BULK_TICKS)
			return false;
		*bulk = 0;
	}
	return mac_equal(eth->h_source, p->mac) && !mac_group(eth->h_dest);
}

/* --- to another port --- */

static __always_inline const struct hd_fast_forward *to_port(
	struct pkt *p, const struct hd_port *other, const struct ethhdr *eth, __u32 group)
{
	const struct hd_fast_forward *out;
	__u32 to = p->to;

	if (other->network != p->network || !port_versions(other, p->generation, p->other_version) ||
		other->flags & (HD_PORT_TRUNK | HD_PORT_LIMIT_IN) || p->vlan_of_port != other->vlan)
		return NULL;
	if (other->mtu && p->l3_length > other->mtu)
		return NULL;
	/* several may live behind a port that learns: the full way asks which of them it is */
	if (p->routed ? p->hop_limit <= 1 || other->flags & HD_PORT_LEARNING : !mac_equal(eth->h_dest, other->mac))
		return NULL;
	out = bpf_map_lookup_elem(&fast_forwards, &to);
	return out && out->group == group && out->flags & HD_FAST_PORT ? out : NULL;
}

static __always_inline int send_to_port(struct xdp_md *ctx, struct pkt *p, const struct hd_port *other)
{
	static const __u8 gateway[6] = HD_GATEWAY_MAC;

	return p->routed && !worker_rewrite(ctx, p, other->mac, gateway) ? HD_R_NONLINEAR : 0;
}

/* --- out by an uplink --- */

/* That tcp_hot() is going to take it. */
static __always_inline bool hot_known(const struct hd_hot *hot, const struct pkt *view)
{
	return !hot_due(hot, view->now) &&
	       hot->version == by_direction(view->version, HD_HOT_FLAGS(hot) & HD_HOT_EGRESS ? HD_EGRESS : HD_INGRESS);
}

/* As judge() and judge_busy() of the uplinks have it. NULL, and *ret_flow NULL: tc_uplink_out shall see it. */
static __always_inline struct hd_hot *known_outside(struct pkt *view, const struct hd_control *c, struct hd_flow **ret_flow)
{
	union hd_flow_key key = {};
	struct hd_flow *flow;
	struct hd_hot *hot;
	__u32 side;

	*ret_flow = NULL;
	flow_key(view, &key);
	if (view->protocol == PROTO_TCP) {
		hot = hot_find(view->family, &key);
		if (hot)
			return hot_known(hot, view) ? hot : NULL;
	}
	view->found = HD_FOUND_PROVEN;
	flow = flow_lookup(view, TABLE_PROVEN, &key);
	if (!flow && view->protocol != PROTO_TCP) {
		view->found = HD_FOUND_NEW;
		flow = flow_lookup(view, TABLE_NEW, &key);
	}
	if (!flow || flow->flags & HD_FLOW_HOT || flow_expired(flow, c, view->now))
		return NULL;
	side = flow_side(view, flow);
	/* What is forwarded unjudged has a version, too, without which no ICMP error is told of it: tc_uplink_out writes the one in force. */
	if (flow->ifindex != view->ifindex ||
		flow->version != by_direction(view->version, flow->flags & HD_FLOW_DIR_EGRESS ? HD_EGRESS : HD_INGRESS))
		return NULL;
	if (flow->flags & HD_FLOW_FORWARDED && view->port_flags & HD_PORT_FORWARD_JUDGE)
		return NULL;
	if (view->protocol == PROTO_TCP ? view->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST) || flow->state != HD_FS_TCP_ESTABLISHED
					: view->found == HD_FOUND_NEW && side == HD_REPLY)
		return NULL;
	*ret_flow = flow;
	return NULL;
}

static __always_inline bool count_outside(struct pkt *view, struct hd_hot *hot, struct hd_flow *flow)
{
	__u32 side;

	if (hot)
		return tcp_hot(hot, view);
	side = flow_side(view, flow);
	if (view->protocol == PROTO_TCP && !tcp_ordinary(flow, view, side))
		return false;
	flow_count(flow, view, side);
	view->rule = flow->rule;
	return true;
}

/* The packet as the uplink sees it; *ret_out is where it leaves by. False: the kernel has it. */
static __always_inline struct pkt *to_uplink(struct xdp_md *ctx, struct pkt *p, const struct hd_fast_forward *in,
	struct bpf_fib_lookup *fib, const struct hd_fast_forward **ret_out)
{
	struct hd_scratch *room = scratch_room();
	const struct hd_tunnel *own;
	const struct hd_port *uplink;
	struct pkt *view;

	if (!room || in->flags & HD_FAST_INSIDE || !p->routed || !(p->port_flags & HD_PORT_HOST) || !worker_plain(p))
		return NULL;
	*ret_out = worker_route(ctx, p, in, fib);
	if (!*ret_out || (*ret_out)->flags & HD_FAST_PORT)
		return NULL;
	uplink = port_find(fib->ifindex);
	if (!uplink || !(uplink->flags & HD_PORT_UPLINK))
		return NULL;
	own = uplink->flags & HD_PORT_TUNNEL && p->protocol == PROTO_UDP ? tunnel_find() : NULL;
	if (own && own->port == p->dport)
		return NULL;
	view = &room->packet;
	*view = *p;
	view->ifindex = fib->ifindex;
	view->arrived_on = p->ifindex;
	view->hook = HD_HOOK_TC_UPLINK_OUT;
	view->rule = 0;
	return port_copy(view, uplink) ? view : NULL;
}

/* --- both --- */

/*
 * Whether the sum over the pseudo-header is all that the field holds, as checksum_complete() of the workers has it: nobody would complete it where no
 * worker has the frame. Of a plain() packet.
 */
static __always_inline bool checksum_left(struct xdp_md *ctx, const struct pkt *p)
{
	__u32 size = p->family == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr), i;
	__u16 *check = hook_data(ctx) + sizeof(struct ethhdr) + size +
		       (p->protocol == PROTO_TCP ? offsetof(struct tcphdr, check) : offsetof(struct udphdr, check));
	__u64 sum = (__u64)bpf_htons(p->l3_length - size) + bpf_htons(p->protocol);

	if (p->protocol != PROTO_TCP && p->protocol != PROTO_UDP)
		return false;
	if ((void *)(check + 1) > hook_data_end(ctx))
		return true;
	for (i = 0; i < 4; i++) /* what stands before an IPv4 address is nothing to such a sum */
		sum += (__u64)p->source.w[i] + p->destination.w[i];
	sum = (sum & 0xffffffff) + (sum >> 32);
	for (i = 0; i < 3; i++)
		sum = (sum & 0xffff) + (sum >> 16);
	return *check && *check == (__u16)sum;
}

/*
 * By XDP itself (p->direct) where the device takes it: takes, its ifindex; 0: it does not. Else by a worker, as steer_to(). flags: what steer_to() asks of
 * the device that it came by, and of the other one HD_FAST_DIRECT_SEVERAL.
 */
__noinline int send(struct xdp_md *ctx, struct pkt *p, __u32 takes, __u32 index, __u32 flags)
{
	if (!p || dry_run)
		return 0;
	p->direct = takes && !checksum_left(ctx, p) && direct_way(ctx, takes, flags);
	return p->direct ? STEER_TAKEN : steer_to(ctx, index, flags);
}

static __always_inline __u32 send_flags(const struct hd_fast_forward *in, const struct hd_fast_forward *out)
{
	return (in->flags & HD_FAST_DROP) | (out->flags & HD_FAST_DIRECT_SEVERAL);
}

static __always_inline int take(struct xdp_md *ctx, const struct pkt *p, const struct hd_fast_forward *in, __u32 device)
{
	if (!p->direct)
		return worker_front(ctx, device, in->flags) ? STEER_TAKEN : HD_R_NONLINEAR;
	direct_count(p, in->index, device);
	return STEER_TAKEN;
}

static __always_inline int taken(struct xdp_md *ctx, struct pkt *p)
{
	pass(p);
	if (p->second_rule)
		counter_add(&rule_counters, p->second_rule, p->segments, p->l3_length);
	return STEER_TAKEN;
}

static __always_inline int inside(
	struct xdp_md *ctx, struct pkt *p, struct hd_control *c, const struct hd_fast_forward *in, struct hd_flow *flow)
{
	const struct hd_port *other = port_find(p->to);
	const struct hd_fast_forward *out;
	struct ethhdr *eth = hook_data(ctx);
	__u32 device;
	int r;

	if (!other || (void *)(eth + 1) > hook_data_end(ctx) || moved_since(other->moved, flow))
		return 0;
	out = to_port(p, other, eth, in->group);
	if (!out || !unchanged_flow(p, flow, c))
		return 0;
	device = out->index;
	r = send(ctx, p, out->flags & HD_FAST_DIRECT ? p->to : 0, in->index, send_flags(in, out));
	if (r != STEER_TAKEN)
		return r;
	if (!ordinary_flow(p, flow, c))
		return 0;
	r = send_to_port(ctx, p, other);
	if (!r)
		r = take(ctx, p, in, device);
	return r == STEER_TAKEN ? taken(ctx, p) : r;
}

static __always_inline int outside(
	struct xdp_md *ctx, struct pkt *p, struct hd_control *c, const struct hd_fast_forward *in, struct hd_flow *flow)
{
	const struct hd_fast_forward *out = NULL;
	struct bpf_fib_lookup fib = {};
	struct hd_flow *beyond;
	struct hd_hot *hot;
	struct pkt *view;
	__u32 device;
	int r;

	if (flow->rule == HD_RULE_SERVICE || !unchanged_flow(p, flow, c))
		return 0;
	view = to_uplink(ctx, p, in, &fib, &out);
	if (!view || !out)
		return 0;
	device = out->index;
	hot = known_outside(view, c, &beyond);
	if (!hot && !beyond)
		return 0;
	r = send(ctx, p, out->flags & HD_FAST_DIRECT ? fib.ifindex : 0, in->index, send_flags(in, out));
	if (r != STEER_TAKEN)
		return r;
	if (!count_outside(view, hot, beyond) || !ordinary_flow(p, flow, c))
		return 0;
	pass(view);
	if (!worker_rewrite(ctx, p, fib.dmac, fib.smac))
		return HD_R_NONLINEAR;
	r = take(ctx, p, in, device);
	return r == STEER_TAKEN ? taken(ctx, p) : r;
}

/* STEER_TAKEN; 0: tc_port_in has it; or the drop reason. */
static __always_inline int judge_known(
	struct xdp_md *ctx, struct pkt *p, struct hd_control *c, const struct hd_port *port, const struct hd_fast_forward *in)
{
	struct ethhdr *eth;
	struct hd_flow *flow = known_flow(p);

	eth = hook_data(ctx);
	if (!flow || flow->flags & HD_FLOW_TURNED || (void *)(eth + 1) > hook_data_end(ctx) || moved_since(port->moved, flow) ||
		!its_own(p, port, eth, flow))
		return 0;
	p->to = flow_side(p, flow) == HD_ORIG ? flow->device[HD_REPLY] : flow->device[HD_ORIG];
	p->from = p->ifindex;
	p->routed = !(p->port_flags & HD_PORT_L2) || mac_gateway(eth->h_dest) || mac_equal(eth->h_dest, in->mac);
	if (p->to & HD_DEVICE_PEER || steer_matching(ctx, p) != STEER_FORWARD)
		return 0;
	return p->to ? inside(ctx, p, c, in, flow) : outside(ctx, p, c, in, flow);
}

SEC("xdp")
int xdp_switch(struct xdp_md *ctx)
{
	struct hd_scratch *room = scratch_room();
	const struct hd_fast_forward *in;
	struct hd_control *c;
	struct hd_port *port;
	__u32 zero = 0, ifindex = ctx->ingress_ifindex;
	struct pkt *p;
	int reason;

	c = bpf_map_lookup_elem(&control, &zero);
	port = port_find(ifindex);
	in = bpf_map_lookup_elem(&fast_forwards, &ifindex);
	if (!room || !c || !port || !in)
		return XDP_PASS;
	p = &room->port;
	enter(ctx, p);
	if (port_enter(p, c, port) || parse(ctx, p, false))
		return XDP_PASS; /* tc_port_in says what is wrong with it */
	p->source_network = p->destination_network = p->network;
	p->moved = port->moved;
	p->vlan_of_port = port->vlan;
	mac_copy(p->mac, port->mac);
	if (!plain(p))
		return XDP_PASS;
	reason = judge_known(ctx, p, c, port, in);
	if (likely(reason == STEER_TAKEN))
		return XDP_REDIRECT;
	if (likely(!reason))
		return XDP_PASS;
	drop(ctx, p, reason);
	return XDP_DROP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
