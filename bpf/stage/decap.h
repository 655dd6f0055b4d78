/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * In: a frame out of VXLAN or Geneve. Who may have sent it is told by its outer address, which network it is in by its VNI; anything else that the
 * headers claim means nothing.
 */
#ifndef HEDDLE_STAGE_DECAP_H
#define HEDDLE_STAGE_DECAP_H

#include "encap.h"
#include "outer.h"
#include "peer.h"
#include "scratch.h"

/* What the kernel leaves of a packet at least, if it thinks it one of IPv6. */
#define SHRUNK_MIN (sizeof(struct ethhdr) + sizeof(struct ipv6hdr))

/* Network and rights of a frame that a peer sent into it. */
static __always_inline int decap_network(struct pkt *p, __u32 network)
{
	const struct hd_network *record = bpf_map_lookup_elem(&networks, &network);

	if (!network || !record || !(record->flags & HD_NETWORK_USED) || !record->vni)
		return HD_R_TUNNEL_VNI;
	p->network = p->source_network = p->destination_network = network;
	p->port_flags = (record->flags & HD_NETWORK_L3 ? 0 : HD_PORT_L2) |
			(record->flags & HD_NETWORK_PEER_LEARNING ? HD_PORT_LEARNING : 0);
	return 0;
}

/* The frame is untagged now; IPv4's checksum follows (RFC 1624), IPv6 has none. */
static __always_inline long decap_mark(HOOK_CTX *ctx, const struct outer *o)
{
	__u32 l3 = sizeof(struct ethhdr), sum;
	__u8 tos = (o->inner_tos & ~ECN_MASK) | o->ecn;
	__u16 check;
	__be16 word;

	if (o->inner_type == bpf_htons(ETH_P_IPV6)) {
		if (hook_load(ctx, l3, &word, sizeof(word)))
			return -1;
		word = (word & bpf_htons(0xf00f)) | bpf_htons((__u32)tos << 4);
		return bpf_skb_store_bytes(ctx, l3, &word, sizeof(word), BPF_F_RECOMPUTE_CSUM);
	}
	if (hook_load(ctx, l3 + offsetof(struct iphdr, check), &check, sizeof(check)))
		return -1;
	sum = (__u16)~check + (__u16)~bpf_htons(o->inner_tos) + bpf_htons(tos);
	check = fold(sum);
	return bpf_skb_store_bytes(ctx, l3 + offsetof(struct iphdr, tos), &tos, sizeof(tos), 0) ||
	       bpf_skb_store_bytes(ctx, l3 + offsetof(struct iphdr, check), &check, sizeof(check), 0);
}

/*
 * The inner Ethernet header, up to two tags and the first bytes behind them. Tags come out of the frame, and go beside it again, as the stack keeps them.
 */
static __always_inline int decap_inner(HOOK_CTX *ctx, struct hd_scratch *room, struct outer *o)
{
	struct {
		struct ethhdr eth;
		__u8 ip[2];
	} frame;
	struct {
		__be16 tci, next;
		__u8 ip[2];
	} tag;
	int i;

	if (decap_read(ctx, o->inner, &frame, sizeof(frame)))
		return HD_R_TUNNEL_MALFORMED;
	__builtin_memcpy(room->head, &frame.eth, 12);
	o->inner_type = frame.eth.h_proto;
	o->tags = 0;
	if (unlikely(tag_protocol(o->inner_type))) {
		for (i = 0; i < 2; i++) {
			if (!tag_protocol(o->inner_type))
				break;
			if (hook_load(ctx, o->inner + sizeof(struct ethhdr) + 4 * i, &tag, sizeof(tag)))
				return HD_R_VLAN_TRUNCATED;
			room->tag[i].protocol = o->inner_type;
			room->tag[i].tci = tag.tci;
			o->inner_type = tag.next;
			frame.ip[0] = tag.ip[0];
			frame.ip[1] = tag.ip[1];
			o->tags++;
		}
		if (tag_protocol(o->inner_type))
			return HD_R_VLAN_DEPTH;
	}
	*(__be16 *)(room->head + 12) = o->inner_type;
	o->inner_tos = o->inner_type == bpf_htons(ETH_P_IPV6) ? (__u8)(frame.ip[0] << 4 | frame.ip[1] >> 4) : frame.ip[1];
	return 0;
}

/*
 * Takes out all between the outer Ethernet header, which becomes the inner one, and the inner payload. Where the protocols differ the kernel has to be told
 * which one it is now; 6.1 does not take that, and calls the frame what its outer packet was.
 */
static __always_inline int decap_shrink(HOOK_CTX *ctx, struct pkt *p, const struct outer *o)
{
	int less = o->inner + 4 * o->tags;
	__u32 left = ctx->len - less;
	long r = -1;

	if (likely(o->type == o->inner_type)) {
		r = bpf_skb_adjust_room(ctx, -less, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO);
	} else {
		bool is6 = o->inner_type == bpf_htons(ETH_P_IPV6);

		p->mistaken = !is6 && o->inner_type != bpf_htons(ETH_P_IP);
		r = bpf_skb_adjust_room(
			ctx, -less, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO | (is6 ? ROOM_DECAP_L3_IPV6 : ROOM_DECAP_L3_IPV4));
		if (r) {
			p->mistaken = 1;
			r = bpf_skb_adjust_room(ctx, -less, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO);
		}
		/* It leaves no less than a header of the outer protocol: a short frame gets padding, which Ethernet may have. */
		if (r && left < SHRUNK_MIN && !bpf_skb_change_tail(ctx, less + SHRUNK_MIN, 0)) {
			p->mistaken = 1;
			r = bpf_skb_adjust_room(ctx, -less, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO);
		}
	}
	return r ? HD_R_NONLINEAR : 0;
}

static __always_inline int decap_tags(HOOK_CTX *ctx, struct pkt *p, const struct hd_scratch *room, const struct outer *o)
{
	if (o->tags == 2 && bpf_skb_vlan_push(ctx, room->tag[1].protocol, bpf_ntohs(room->tag[1].tci)))
		return HD_R_NONLINEAR;
	if (bpf_skb_vlan_push(ctx, room->tag[0].protocol, bpf_ntohs(room->tag[0].tci)))
		return HD_R_NONLINEAR;
	p->vlan[0] = (bpf_ntohs(room->tag[0].tci) & 0xfff) | 0x1000;
	return 0;
}

/* 0: the frame is what its sender made, and p says who and where that is; a drop reason; DECAP_CONTROL. */
__noinline int decap(HOOK_CTX *ctx)
{
	const struct hd_tunnel *own = tunnel_find();
	struct hd_scratch *room = scratch_room();
	struct hd_tunnel_hint who = {};
	struct outer o = {};
	struct pkt *p;
	int r;

	if (!room || !own)
		return HD_R_TUNNEL_MALFORMED;
	p = &room->port;
	r = decap_ip(ctx, p, &o);
	if (r)
		return r;
	r = decap_origin(ctx, own, p, &o, &who);
	p->peer = who.peer;
	if (!r)
		r = decap_network(p, who.network);
	if (!r)
		r = decap_inner(ctx, room, &o);
	if (!r)
		r = decap_ecn(&o);
	if (!r)
		r = decap_shrink(ctx, p, &o);
	if (r)
		return r;
	if (bpf_skb_store_bytes(ctx, 0, room->head, sizeof(struct ethhdr), 0) || (o.ecn != 0xff && decap_mark(ctx, &o)))
		return HD_R_NONLINEAR;
	p->length = ctx->len;
	return unlikely(o.tags) ? decap_tags(ctx, p, room, &o) : 0;
}

#endif
