/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What happens to packets that the agent's workers take from device to device, whoever judges them: the route, the hop limit, the MACs, and what a worker is told. */
#ifndef HEDDLE_STAGE_TRANSIT_H
#define HEDDLE_STAGE_TRANSIT_H

#include "mac.h"
#include "packet.h"
#include "steer.h"

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

/* Whoever sent it sent it to be routed by this device. */
static __always_inline bool worker_addressed(struct xdp_md *ctx, const struct hd_fast_forward *in)
{
	const struct ethhdr *eth = hook_data(ctx);

	return (void *)(eth + 1) <= hook_data_end(ctx) && mac_equal(eth->h_dest, in->mac);
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

	if ((void *)(ip4 + 1) > end)
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

/*
 * No worker is needed: the device that the packet leaves by takes it from XDP. What becomes of it there, nobody tells us: so frames in several buffers only
 * where its flags say that it takes these, too.
 */
static __always_inline bool direct_way(struct xdp_md *ctx, __u32 ifindex, __u32 flags)
{
	return (bpf_xdp_get_buff_len(ctx) == steer_linear(ctx) || flags & HD_FAST_DIRECT_SEVERAL) &&
	       bpf_redirect_map(&fast_exits, ifindex, 0) == XDP_REDIRECT;
}

static __always_inline void direct_count(const struct pkt *p, __u32 from, __u32 to)
{
	struct hd_counter *counter = bpf_map_lookup_elem(&fast_redirects, &to);

	steer_count(from, HD_FAST_TAKEN, p->length);
	if (counter) {
		counter->packets++;
		counter->bytes += p->length;
	}
}

static __always_inline void worker_write(struct hd_fast_meta *meta, __u32 device, __u32 flags)
{
	meta->device = device;
	meta->flags = flags & HD_FAST_STAMP ? HD_FAST_META_STAMP : 0;
	meta->stamp = flags & HD_FAST_STAMP ? (__u32)bpf_ktime_get_ns() : 0;
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
	worker_write(meta, device, flags);
	return true;
}

/* The same as part of the frame: of ports, since a tap has no metadata. Nothing of the packet is where it was after that. */
static __always_inline bool worker_front(struct xdp_md *ctx, __u32 device, __u32 flags)
{
	struct hd_fast_meta *meta;

	if (bpf_xdp_adjust_head(ctx, -(int)sizeof(*meta)))
		return false;
	meta = hook_data(ctx);
	if ((void *)(meta + 1) > hook_data_end(ctx))
		return false;
	worker_write(meta, device, flags);
	return true;
}

/* A hop less, and the MACs of the next one. */
static __always_inline bool worker_rewrite(struct xdp_md *ctx, const struct pkt *p, const __u8 *to, const __u8 *from)
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
	__builtin_memcpy(eth->h_dest, to, sizeof(eth->h_dest));
	__builtin_memcpy(eth->h_source, from, sizeof(eth->h_source));
	return true;
}

#endif
