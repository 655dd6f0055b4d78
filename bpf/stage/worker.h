/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Packets of an uplink that the host would forward to another one, and the agent's workers shall move there. What the kernel does on the way is done here:
 * the route, the hop limit, the MACs, and the egress policy of the device that they leave by. Whatever asks for more than that goes on to the kernel.
 */
#ifndef HEDDLE_STAGE_WORKER_H
#define HEDDLE_STAGE_WORKER_H

#include "judge.h"
#include "steer.h"
#include "tunnel.h"

/* Nothing about it has to be looked at by a router beyond its addresses. */
static __always_inline bool worker_plain(const struct pkt *p)
{
	__u32 source = bpf_ntohl(p->source.w[3]), size = p->l4 - p->l3;

	if (!p->family || p->fragment || p->l3 != sizeof(struct ethhdr) || p->hop_limit <= 1)
		return false;
	if (p->family == 4) /* sources that are none: this network, loopback, multicast and beyond */
		return size == sizeof(struct iphdr) && source >> 24 && source >> 24 != 127 && source < 0xe0000000;
	/* on the link only, none, groups */
	return size == sizeof(struct ipv6hdr) && p->source.q[0] && p->source.b[0] != 0xff && p->destination.b[0] != 0xff &&
	       bpf_ntohl(p->source.w[0]) >> 22 != 0x3fa && bpf_ntohl(p->destination.w[0]) >> 22 != 0x3fa;
}

static __always_inline bool worker_mac_is(const struct ethhdr *eth, const struct hd_fast_forward *device)
{
	const __u16 *a = (const __u16 *)eth->h_dest, *b = (const __u16 *)device->mac;

	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2];
}

/* The route that the kernel would find, with a neighbour behind it and room for the packet. */
static __always_inline const struct hd_fast_forward *worker_route(
	struct xdp_md *ctx, const struct pkt *p, const struct hd_fast_forward *in, struct bpf_fib_lookup *fib)
{
	const struct hd_fast_forward *out;
	void *data = hook_data(ctx), *end = hook_data_end(ctx);
	struct ethhdr *eth = data;
	struct iphdr *ip4 = (void *)(eth + 1);
	__u32 ifindex;

	if ((void *)(ip4 + 1) > end || !worker_mac_is(eth, in))
		return NULL;
	fib->l4_protocol = p->protocol;
	fib->sport = p->sport;
	fib->dport = p->dport;
	fib->tot_len = p->l3_length;
	fib->ifindex = p->ifindex;
	if (p->family == 4) {
		fib->family = AF_INET;
		fib->tos = ip4->tos;
		fib->ipv4_src = p->source.w[3];
		fib->ipv4_dst = p->destination.w[3];
	} else {
		fib->family = AF_INET6;
		fib->flowinfo = *(__be32 *)ip4 & bpf_htonl(0x0fffffff);
		__builtin_memcpy(fib->ipv6_src, &p->source, sizeof(fib->ipv6_src));
		__builtin_memcpy(fib->ipv6_dst, &p->destination, sizeof(fib->ipv6_dst));
	}
	if (bpf_fib_lookup(ctx, fib, sizeof(*fib), 0) != BPF_FIB_LKUP_RET_SUCCESS || fib->ifindex == p->ifindex)
		return NULL;
	ifindex = fib->ifindex;
	out = bpf_map_lookup_elem(&fast_forwards, &ifindex);
	return out && out->group == in->group ? out : NULL;
}

/* What a worker has to know, in front of the frame; whatever another program put there is cut off. */
static __always_inline bool worker_meta(struct xdp_md *ctx, __u32 device, __u32 flags)
{
	long present = (long)ctx->data - (long)ctx->data_meta;
	struct hd_fast_meta *meta;

	if (bpf_xdp_adjust_meta(ctx, (int)(present - (long)sizeof(*meta))))
		return false;
	meta = (void *)(long)ctx->data_meta;
	if ((void *)(meta + 1) > (void *)(long)ctx->data)
		return false;
	meta->device = device;
	meta->flags = flags & HD_FAST_STAMP ? HD_FAST_META_STAMP : 0;
	meta->stamp = flags & HD_FAST_STAMP ? (__u32)bpf_ktime_get_ns() : 0;
	return true;
}

static __always_inline bool worker_rewrite(struct xdp_md *ctx, const struct pkt *p, const struct bpf_fib_lookup *fib)
{
	struct ethhdr *eth = hook_data(ctx);
	struct iphdr *ip4 = (void *)(eth + 1);
	struct ipv6hdr *ip6 = (void *)(eth + 1);
	__u32 check;

	if ((void *)(ip4 + 1) > hook_data_end(ctx))
		return false;
	if (p->family == 4) {
		check = (__u32)ip4->check + bpf_htons(0x0100); /* RFC 1141 */
		ip4->check = (__u16)(check + (check >= 0xffff));
		ip4->ttl--;
	} else {
		ip6->hop_limit--;
	}
	__builtin_memcpy(eth->h_dest, fib->dmac, sizeof(eth->h_dest));
	__builtin_memcpy(eth->h_source, fib->smac, sizeof(eth->h_source));
	return true;
}

/*
 * After steer_matching(), of a packet that policy let in. STEER_TAKEN: it is on its way to a worker unless the other device's policy has something against it
 * (worker_leave()), and p is the packet as it leaves there. 0: it goes on to the kernel, unchanged; HD_R_FAST_PATH: it does not.
 */
__noinline int worker_way(struct xdp_md *ctx, struct pkt *p)
{
	const struct hd_fast_forward *in, *out;
	struct bpf_fib_lookup fib = {};
	const struct hd_tunnel *own;
	__u32 ifindex;
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
	out = worker_route(ctx, p, in, &fib);
	if (!out || !worker_meta(ctx, out->index, in->flags))
		return 0;
	r = steer_to(ctx, in->index, in->flags);
	if (r != STEER_TAKEN)
		return r;
	/* its bounds are those that were looked at for the route */
	if (!worker_rewrite(ctx, p, &fib))
		return HD_R_NONLINEAR;
	pass(p);
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
