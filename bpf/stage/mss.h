/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What fits through the tunnel to a peer, told to TCP: the MSS option (RFC 9293 section 3.7.1) of a SYN to or from there says no more than that. So no end has
 * to learn it from errors, which may never come.
 */
#ifndef HEDDLE_STAGE_MSS_H
#define HEDDLE_STAGE_MSS_H

#include "packet.h"
#include "peer.h"

#include <maps/policy.bpf.h>

/* Bytes of inner L3, without what tags take. */
static __always_inline __u32 peer_room(const struct hd_peer *peer, const struct hd_tunnel *own, __u32 now, __u32 fragment_timeout)
{
	__u32 mtu = peer_mtu(peer, now, fragment_timeout);

	return mtu > own->overhead ? mtu - own->overhead : 0;
}

#define MSS_OPTIONS 40

/* Where the value of the option is in the frame; 0: there is none. */
static __always_inline __u32 mss_find(HOOK_CTX *ctx, const struct pkt *p)
{
	__u8 options[MSS_OPTIONS + 32] = {}; /* 6.1 sees of `at` only that it has 6 bits */
	__u32 length, at = p->zero, step;
	int i;

	length = p->tcp_offset - sizeof(struct tcphdr);
	if (length < 4 || length > MSS_OPTIONS)
		return 0;
	if (hook_load(ctx, p->l4 + sizeof(struct tcphdr), options, length))
		return 0;
	for (i = 0; i < 40; i++) {
		if (at + 3 >= MSS_OPTIONS || options[at] == TCP_OPTION_END)
			return 0;
		step = 1;
		if (options[at] != TCP_OPTION_NOP) {
			step = options[at + 1];
			if (options[at] == TCP_OPTION_MSS && step == 4)
				return p->l4 + sizeof(struct tcphdr) + at + 2;
			if (step < 2 || at + step > MSS_OPTIONS)
				return 0;
		}
		at = (at + step) & 63;
	}
	return 0;
}

__noinline int mss_lower(HOOK_CTX *ctx, struct pkt *p, __u32 index)
{
	const struct hd_peer *peer = peer_find(index);
	const struct hd_tunnel *own = tunnel_find();
	__u32 zero = 0, at, most, heads;
	const struct hd_control *c;
	__be16 before, after;
	bool odd;

	c = bpf_map_lookup_elem(&control, &zero);
	if (!p || !peer || !own || !c || p->fragment)
		return 0;
	heads = (p->family == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr)) + sizeof(struct tcphdr);
	most = peer_room(peer, own, p->now, c->fragment_timeout);
	if (most <= heads)
		return 0;
	most -= heads;
	at = mss_find(ctx, p);
	if (!at || hook_load(ctx, at, &before, sizeof(before)) || bpf_ntohs(before) <= most)
		return 0;
	after = bpf_htons(most);
	if (bpf_skb_store_bytes(ctx, at, &after, sizeof(after), 0))
		return 0;
	/* The sum is over 16-bit words of the header: where the option is not on one, its bytes are halves of two. */
	odd = (at - p->l4) & 1;
	if (odd) {
		before = (__be16)(before << 8 | before >> 8);
		after = (__be16)(after << 8 | after >> 8);
	}
	return bpf_l4_csum_replace(ctx, p->l4 + offsetof(struct tcphdr, check), before, after, sizeof(after));
}

#endif
