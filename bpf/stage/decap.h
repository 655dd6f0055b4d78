/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * In: a frame out of VXLAN or Geneve. Who may have sent it is told by its outer address, which network it is in by its VNI; anything else that the
 * headers claim means nothing.
 */
#ifndef HEDDLE_STAGE_DECAP_H
#define HEDDLE_STAGE_DECAP_H

#include "encap.h"
#include "peer.h"
#include "scratch.h"

#define DECAP_CONTROL -1 /* is for the host, no frame of a workload */

#define ECN_MASK 3
#define ECN_ECT1 1
#define ECN_ECT0 2
#define ECN_CE 3

/* What the kernel leaves of a packet at least, if it thinks it one of IPv6. */
#define SHRUNK_MIN (sizeof(struct ethhdr) + sizeof(struct ipv6hdr))

/* The outer headers, as far as they have been read. */
struct outer {
	__u16 l4;    /* offset of the UDP header */
	__u16 inner; /* of the inner frame */
	__be16 type; /* EtherType of the outer packet, and of the inner one behind its tags */
	__be16 inner_type;
	__u8 tos, ecn; /* outer; ecn: that the inner header gets, 0xff: as it is */
	__u8 tags;
	__u8 inner_tos;
};

/* Most headers are read where they are. */
static __always_inline long decap_read(HOOK_CTX *ctx, __u32 at, void *to, __u32 size)
{
	const void *data = hook_data(ctx) + (at & 0x1ff);

	if (unlikely(at > 0x1ff || data + size > hook_data_end(ctx)))
		return hook_load(ctx, at, to, size);
	__builtin_memcpy(to, data, size);
	return 0;
}

/* Options that are not known are skipped, unless they say that they must not be (RFC 8926 section 3.5). None is known. */
__noinline int decap_options(HOOK_CTX *ctx, __u32 at, __u32 length)
{
	struct hd_geneve_option option;
	__u32 end, size;
	int i;

	at &= 0xfff;
	end = at + (length & 0xff);
	for (i = 0; i < 64; i++) {
		if (at >= end)
			return at == end ? 0 : HD_R_TUNNEL_MALFORMED;
		if (hook_load(ctx, at, &option, sizeof(option)))
			return HD_R_TUNNEL_MALFORMED;
		if (option.type & HD_GENEVE_OPTION_CRITICAL)
			return HD_R_TUNNEL_OPTION;
		size = sizeof(option) + 4u * (option.length & 0x1f);
		at += size;
	}
	return HD_R_TUNNEL_MALFORMED;
}

/* The peer, by the outer IP header. Its form is known to the parser; what extension headers stand there no peer has put there. */
static __always_inline int decap_ip(HOOK_CTX *ctx, struct pkt *p, struct outer *o)
{
	struct ethhdr *eth = hook_data(ctx);
	void *end = hook_data_end(ctx);
	struct iphdr *ip4 = (void *)(eth + 1);
	struct ipv6hdr *ip6 = (void *)(eth + 1);

	if ((void *)(ip4 + 1) > end)
		return HD_R_TUNNEL_MALFORMED;
	o->type = eth->h_proto;
	if (likely(o->type == bpf_htons(ETH_P_IP))) {
		o->l4 = sizeof(*eth) + ip4->ihl * 4;
		o->tos = ip4->tos;
		address4(&p->source, ip4->saddr);
		address4(&p->destination, ip4->daddr);
		return 0;
	}
	if (o->type != bpf_htons(ETH_P_IPV6) || (void *)(ip6 + 1) > end || ip6->nexthdr != PROTO_UDP)
		return HD_R_TUNNEL_MALFORMED;
	o->l4 = sizeof(*eth) + sizeof(*ip6);
	o->tos = (__u8)(bpf_ntohl(*(__be32 *)ip6) >> 20);
	__builtin_memcpy(&p->source, &ip6->saddr, sizeof(p->source));
	__builtin_memcpy(&p->destination, &ip6->daddr, sizeof(p->destination));
	return 0;
}

/* What the tunnel header says: *vni, and where the inner frame is. */
static __always_inline int decap_header(HOOK_CTX *ctx, __u32 protocol, struct outer *o, __u32 *vni)
{
	union {
		struct hd_vxlan vxlan;
		struct hd_geneve geneve;
	} header;
	__u32 at = o->l4 + sizeof(struct udphdr), options;
	int r;

	if (decap_read(ctx, at, &header, sizeof(header)))
		return HD_R_TUNNEL_MALFORMED;
	*vni = bpf_ntohl(header.vxlan.vni) >> 8;
	o->inner = at + sizeof(header);
	if (likely(protocol == HD_TUNNEL_VXLAN))
		return header.vxlan.flags & HD_VXLAN_VNI ? 0 : HD_R_TUNNEL_MALFORMED;
	if (header.geneve.length >> 6)
		return HD_R_TUNNEL_MALFORMED;
	if (header.geneve.flags & HD_GENEVE_CONTROL)
		return DECAP_CONTROL;
	if (header.geneve.protocol != bpf_htons(HD_GENEVE_ETHERNET))
		return HD_R_TUNNEL_MALFORMED;
	options = 4u * (header.geneve.length & 0x3f);
	if (!options)
		return 0;
	r = decap_options(ctx, o->inner, options);
	o->inner += options;
	return r;
}

/* Network and rights of a frame that a peer sent with that VNI. */
static __always_inline int decap_network(struct pkt *p, __u32 network, __u32 vni)
{
	const struct hd_network *record = bpf_map_lookup_elem(&networks, &network);

	if (!network || !record || !(record->flags & HD_NETWORK_USED) || !record->vni || (vni && record->vni != vni))
		return HD_R_TUNNEL_VNI;
	p->network = p->source_network = p->destination_network = network;
	p->port_flags = (record->flags & HD_NETWORK_L3 ? 0 : HD_PORT_L2) |
			(record->flags & HD_NETWORK_PEER_LEARNING ? HD_PORT_LEARNING : 0);
	return 0;
}

/*
 * RFC 6040 section 4.2: a mark of congestion goes on inwards where the ends know what it means, and the packet goes where they do not. The inner
 * header gets o->ecn.
 */
static __always_inline int decap_ecn(struct outer *o)
{
	__u8 outer = o->tos & ECN_MASK, inner;

	o->ecn = 0xff;
	if (likely(outer != ECN_CE && outer != ECN_ECT1))
		return 0;
	if (o->inner_type != bpf_htons(ETH_P_IP) && o->inner_type != bpf_htons(ETH_P_IPV6))
		return 0;
	inner = o->inner_tos & ECN_MASK;
	if (outer == ECN_CE) {
		if (!inner)
			return HD_R_TUNNEL_ECN;
		o->ecn = inner == ECN_CE ? 0xff : ECN_CE;
	} else if (inner == ECN_ECT0) {
		o->ecn = ECN_ECT1;
	}
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
	struct hd_vni_key key = {};
	const struct hd_vni *found;
	struct outer o = {};
	struct pkt *p;
	int r;

	if (!room || !own)
		return HD_R_TUNNEL_MALFORMED;
	p = &room->port;
	r = decap_ip(ctx, p, &o);
	if (r)
		return r;
	p->peer = peer_at(&p->source);
	if (!peer_find(p->peer)) {
		p->peer = 0;
		return HD_R_TUNNEL_PEER;
	}
	r = decap_header(ctx, own->protocol, &o, &key.vni);
	if (r)
		return r;
	found = bpf_map_lookup_elem(&vnis, &key);
	r = found ? decap_network(p, found->network, key.vni) : HD_R_TUNNEL_VNI;
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
