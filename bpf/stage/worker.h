/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Packets of an uplink that the host would forward to another one, and the agent's workers shall move there. What the kernel does on the way is done here:
 * the route, the hop limit, the MACs, and the egress policy of the device that they leave by. Whatever asks for more than that goes on to the kernel.
 */
#ifndef HEDDLE_STAGE_WORKER_H
#define HEDDLE_STAGE_WORKER_H

#include "judge.h"
#include "transit.h"
#include "tunnel.h"

/* --- to a port --- */

/* The flow of a packet that the host's stack would send to a port, in the port's network. */
static __always_inline struct hd_flow *worker_flow(struct pkt *view)
{
	union hd_flow_key key = {};
	struct hd_flow *flow;

	flow_key(view, &key);
	view->found = HD_FOUND_PROVEN;
	flow = flow_lookup(view, TABLE_PROVEN, &key);
	if (!flow && view->protocol != PROTO_TCP) {
		view->found = HD_FOUND_NEW;
		flow = flow_lookup(view, TABLE_NEW, &key);
	}
	return flow;
}

/* A segment or datagram about which nothing is new for the flow. */
static __always_inline bool worker_unchanged(
	const struct pkt *view, const struct hd_flow *flow, __u32 side, const struct hd_control *c)
{
	/* judged by the port alone: in its direction to the workload, or from it where that opened the flow */
	if (flow_expired(flow, c, view->now) || flow->second_version ||
		flow->version != by_direction(view->version, side == HD_ORIG ? HD_INGRESS : HD_EGRESS))
		return false;
	if (view->protocol == PROTO_TCP)
		return !(view->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST)) && flow->state == HD_FS_TCP_ESTABLISHED;
	return view->found == HD_FOUND_PROVEN || side == HD_ORIG;
}

/*
 * As ordinary_to() of the ports' programs has it, without what these know more: a flow between the port and the host's stack, judged by the port's policy in
 * force, about which nothing is new. 1: it may pass, and is accounted for as tc_port_out would; 0: that shall see it.
 */
__noinline int worker_port(struct pkt *p, __u32 ifindex)
{
	struct hd_scratch *room = scratch_room();
	const struct hd_port *port;
	struct hd_control *c;
	struct hd_flow *flow;
	struct pkt *view;
	__u32 zero = 0, side;

	if (dry_run)
		return 0;
	c = bpf_map_lookup_elem(&control, &zero);
	port = port_find(ifindex);
	if (!p || !room || !c || !port || !(port->flags & HD_PORT_HOST) || port->flags & (HD_PORT_TRUNK | HD_PORT_LIMIT_IN))
		return 0;
	if ((icmp_is(p) && !icmp_echo(p)) || (port->mtu && p->l3_length > port->mtu))
		return 0;
	view = &room->packet;
	*view = *p;
	view->ifindex = ifindex;
	if (!port_copy(view, port))
		return 0;
	flow = worker_flow(view);
	if (!flow || flow->flags & HD_FLOW_TURNED || (port->moved && (__s32)(port->moved - flow->last_seen) >= 0))
		return 0;
	side = flow_side(view, flow);
	if (side == HD_ORIG ? flow->device[HD_ORIG] || flow->device[HD_REPLY] != ifindex
			    : flow->device[HD_REPLY] || flow->device[HD_ORIG] != ifindex)
		return 0;
	if (!worker_unchanged(view, flow, side, c))
		return 0;
	if (view->protocol == PROTO_TCP)
		tcp_follow(flow, view, side, view->seq + view->payload);
	flow_count(flow, view, side);
	view->rule = flow->rule;
	pass(view);
	return 1;
}

/* What steer_to() is going to find. */
static __always_inline bool worker_waits(struct xdp_md *ctx, const struct hd_fast_forward *in)
{
	__u32 queue = ctx->rx_queue_index;

	return steer_fits(ctx, in->index) && queue < HD_FAST_QUEUES &&
	       bpf_redirect_map(&xsks, HD_FAST_SOCKET((__u32)in->index, queue), 0) == XDP_REDIRECT;
}

/* --- the way --- */

/* By XDP itself where the device takes it, else by a worker. As steer_to(); of a port, whose policy is asked as soon as somebody would have the packet. */
static __always_inline int worker_send(
	struct xdp_md *ctx, struct pkt *p, const struct hd_fast_forward *in, const struct hd_fast_forward *out, __u32 ifindex)
{
	if (out->flags & HD_FAST_DIRECT && direct_way(ctx, ifindex, out->flags)) {
		if (out->flags & HD_FAST_PORT && !worker_port(p, ifindex))
			return 0;
		direct_count(p, in->index, out->index);
		return STEER_TAKEN;
	}
	if (!worker_meta(ctx, out->index, in->flags) ||
		(out->flags & HD_FAST_PORT && worker_waits(ctx, in) && !worker_port(p, ifindex)))
		return 0;
	return steer_to(ctx, in->index, in->flags);
}

/*
 * After steer_matching(), of a packet that policy let in. STEER_TAKEN: it is on its way to a worker unless the other device's policy has something against it
 * (worker_leave()), and p is the packet as it leaves there. STEER_PORT: it is, to a port, whose policy has been asked. 0: it goes on to the kernel, unchanged; HD_R_FAST_PATH: it does not.
 */
__noinline int worker_way(struct xdp_md *ctx, struct pkt *p)
{
	const struct hd_fast_forward *in, *out;
	struct bpf_fib_lookup fib = {};
	const struct hd_tunnel *own;
	__u32 ifindex, port;
	int r;

	if (!p || !worker_plain(p))
		return 0;
	ifindex = p->ifindex;
	in = bpf_map_lookup_elem(&fast_forwards, &ifindex);
	if (!in)
		return 0;
	own = p->port_flags & HD_PORT_TUNNEL && p->protocol == PROTO_UDP ? tunnel_find() : NULL;
	if (own && own->port == p->dport)
		return 0;
	out = worker_addressed(ctx, in) ? worker_route(ctx, p, in, &fib) : NULL;
	if (!out)
		return 0;
	port = out->flags & HD_FAST_PORT;
	r = worker_send(ctx, p, in, out, fib.ifindex);
	if (r != STEER_TAKEN)
		return r;
	/* its bounds are those that were looked at for the route */
	if (!worker_rewrite(ctx, p, fib.dmac, fib.smac))
		return HD_R_NONLINEAR;
	pass(p);
	if (port)
		return STEER_PORT;
	p->arrived_on = ifindex;
	p->ifindex = fib.ifindex;
	p->direction = HD_EGRESS;
	return STEER_TAKEN;
}

/* p enters the device that it leaves by. 0: it may, and is accounted for; WORKER_JUDGE; or the drop reason. */
#define WORKER_JUDGE -3
__noinline int worker_enter(struct pkt *p)
{
	const struct hd_port *port;
	struct hd_control *c;
	__u32 zero = 0;

	c = bpf_map_lookup_elem(&control, &zero);
	if (!p || !c)
		return HD_R_NOT_READY;
	port = port_find(p->ifindex);
	p->rule = 0;
	p->verdict = 0;
	p->log = 0;
	p->found = 0;
	if (!port || port_enter(p, c, port))
		return HD_R_NOT_READY;
	return judge_busy(p) ? 0 : WORKER_JUDGE;
}

/* As tc_uplink_out would, had the kernel sent it: STEER_TAKEN or the drop reason. judge() is called by the program itself, for want of stack. */
static __always_inline int worker_leave(struct xdp_md *ctx, struct pkt *p)
{
	int reason = worker_enter(p);

	if (reason == WORKER_JUDGE)
		reason = judge(ctx, p);
	return reason ? reason : STEER_TAKEN;
}

#endif
