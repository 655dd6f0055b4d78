/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* ARP from a port (RFC 826, RFC 5227): who it speaks for, and the answers that are given here. */
#ifndef HEDDLE_STAGE_ARP_H
#define HEDDLE_STAGE_ARP_H

#include "forward.h"

#define ARP_REQUEST 1
#define ARP_REPLY 2

struct arp {
	__be16 hardware, protocol;
	__u8 hardware_length, protocol_length;
	__be16 operation;
	__u8 sender_mac[6];
	__be16 sender[2];
	__u8 target_mac[6];
	__be16 target[2];
};
static_assert(sizeof(struct arp) == 28, "arp");

static __always_inline __be32 arp_address(const __be16 half[2])
{
	__be32 address;

	__builtin_memcpy(&address, half, sizeof(address));
	return address;
}

/* Its form has been checked by parse_other(). */
__noinline int arp_judge(HOOK_CTX *ctx, struct pkt *p)
{
	struct ethhdr eth;
	struct arp arp;
	int r;

	if (!p || hook_load(ctx, 0, &eth, sizeof(eth)) || hook_load(ctx, p->l3, &arp, sizeof(arp)))
		return HD_R_ARP_MALFORMED;
	if (!mac_equal(arp.sender_mac, eth.h_source))
		return HD_R_ARP_SENDER;
	address4(&p->source, arp_address(arp.sender));
	address4(&p->destination, arp_address(arp.target));
	/* A probe says no address of its own yet. */
	if ((p->source.w[3] || arp.operation != bpf_htons(ARP_REQUEST)) && !address_owned(p, &p->source, eth.h_source))
		return HD_R_ARP_SENDER;
	p->rule = HD_RULE_ARP;
	if (arp.operation == bpf_htons(ARP_REQUEST)) {
		r = forward_resolution(p, HD_ACT_ANSWER_ARP);
		if (r)
			return r;
		if (p->action == HD_ACT_ANSWER_ARP) {
			p->rule = HD_RULE_GATEWAY;
			return 0;
		}
	}
	return forward_frame(ctx, p);
}

/* Makes the request its own answer. */
static __always_inline int arp_answer(HOOK_CTX *ctx, const struct pkt *p, const __u8 mac[6])
{
	struct ethhdr eth;
	struct arp arp;
	__be32 target;

	if (hook_load(ctx, 0, &eth, sizeof(eth)) || hook_load(ctx, p->l3, &arp, sizeof(arp)))
		return -1;
	arp.operation = bpf_htons(ARP_REPLY);
	target = arp_address(arp.target);
	__builtin_memcpy(arp.target, arp.sender, sizeof(arp.target));
	mac_copy(arp.target_mac, arp.sender_mac);
	__builtin_memcpy(arp.sender, &target, sizeof(arp.sender));
	mac_copy(arp.sender_mac, mac);
	mac_copy(eth.h_dest, eth.h_source);
	mac_copy(eth.h_source, mac);
	return bpf_skb_store_bytes(ctx, 0, &eth, 2 * sizeof(eth.h_dest), 0) ||
	       bpf_skb_store_bytes(ctx, p->l3, &arp, sizeof(arp), 0);
}

#endif
