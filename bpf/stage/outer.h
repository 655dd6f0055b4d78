/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Reading the headers around a frame in a tunnel: what XDP and TC share. Nothing is changed here. */
#ifndef HEDDLE_STAGE_OUTER_H
#define HEDDLE_STAGE_OUTER_H

#include "packet.h"
#include "peer.h"

#include <maps/network.bpf.h>

#define DECAP_CONTROL -1 /* is for the host, no frame of a workload */

#define ECN_MASK 3
#define ECN_ECT1 1
#define ECN_ECT0 2
#define ECN_CE 3

static __always_inline bool tag_protocol(__u32 protocol)
{
	return protocol == bpf_htons(ETH_P_8021Q) || protocol == bpf_htons(ETH_P_8021AD);
}

static __always_inline __be16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

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

/* The hint says so, and it is still true. */
static __always_inline bool peer_is(__u32 index, const struct hd_addr *address)
{
	const struct hd_peer *peer = peer_find(index);

	return peer && address_same(&peer->address, address);
}

static __always_inline bool network_has_vni(__u32 network, __u32 vni)
{
	const struct hd_network *record = bpf_map_lookup_elem(&networks, &network);

	return network && vni && record && record->flags & HD_NETWORK_USED && record->vni == vni;
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

union tunnel_header {
	struct hd_vxlan vxlan;
	struct hd_geneve geneve;
};

/* What else the tunnel header says, and where the inner frame is. */
static __always_inline int decap_header(HOOK_CTX *ctx, __u32 protocol, struct outer *o, const union tunnel_header *header)
{
	__u32 options;
	int r;

	o->inner = o->l4 + sizeof(struct udphdr) + sizeof(*header);
	if (likely(protocol == HD_TUNNEL_VXLAN))
		return header->vxlan.flags & HD_VXLAN_VNI ? 0 : HD_R_TUNNEL_MALFORMED;
	if (header->geneve.length >> 6)
		return HD_R_TUNNEL_MALFORMED;
	if (header->geneve.flags & HD_GENEVE_CONTROL)
		return DECAP_CONTROL;
	if (header->geneve.protocol != bpf_htons(HD_GENEVE_ETHERNET))
		return HD_R_TUNNEL_MALFORMED;
	options = 4u * (header->geneve.length & 0x3f);
	if (!options)
		return 0;
	r = decap_options(ctx, o->inner, options);
	o->inner += options;
	return r;
}

/*
 * Whose the frame is and which network it is in, by outer source and VNI, and what is wrong with its tunnel header: 0, DECAP_CONTROL or a drop reason.
 * Somebody who is no peer (who->peer 0) is told of before anything that he wrote.
 */
static __always_inline int decap_origin(
	HOOK_CTX *ctx, const struct hd_tunnel *own, const struct pkt *p, struct outer *o, struct hd_tunnel_hint *who)
{
	union tunnel_header header = {};
	const struct hd_vni *found;
	struct hd_tunnel_hint *hint;
	struct hd_vni_key key = {};
	bool known = false, cut;
	int r;

	cut = decap_read(ctx, o->l4 + sizeof(struct udphdr), &header, sizeof(header));
	key.vni = bpf_ntohl(header.vxlan.vni) >> 8;
	hint = tunnel_hint(&p->source, key.vni);
	if (likely(hint && !cut)) {
		who->peer = READ_ONCE(hint->peer);
		who->network = READ_ONCE(hint->network);
		known = peer_is(who->peer, &p->source) && network_has_vni(who->network, key.vni);
	}
	if (unlikely(!known)) {
		who->peer = peer_at(&p->source);
		if (!peer_find(who->peer))
			who->peer = 0;
	}
	if (!who->peer)
		return HD_R_TUNNEL_PEER;
	r = cut ? HD_R_TUNNEL_MALFORMED : decap_header(ctx, own->protocol, o, &header);
	if (likely(r || known))
		return r;
	found = bpf_map_lookup_elem(&vnis, &key);
	who->network = found ? found->network : 0;
	if (!network_has_vni(who->network, key.vni))
		return HD_R_TUNNEL_VNI;
	if (hint)
		*hint = *who;
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

#endif
