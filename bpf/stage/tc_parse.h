/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Reading a frame at a TC hook: where it begins, and what to do about headers that are not in the linear part. */
#ifndef HEDDLE_STAGE_TC_PARSE_H
#define HEDDLE_STAGE_TC_PARSE_H

#include "parse.h"

/* Bytes made readable when the headers are not: tags, IPv6 with options, and TCP with all of its own. */
#define PULL 256

/*
 * On ingress the Ethernet header has been read and is put in front again for us. Since 6.9 it is not after a generic XDP program with
 * frags, whose copy of the packet forgets how long that header was: the frame then begins with the IP header. Whoever takes that for an
 * Ethernet header judges the wrong bytes, so nothing else may be concluded from it.
 */
static __always_inline bool headless(struct __sk_buff *skb)
{
	const struct ethhdr *eth = hook_data(skb);
	__u32 type, protocol = bpf_ntohs((__be16)skb->protocol);
	struct ethhdr mac;
	unsigned i;

	if ((void *)(eth + 1) > hook_data_end(skb))
		return false;
	type = bpf_ntohs(eth->h_proto);
	if (type < FRAME_LLC)
		type = protocol == ETH_P_802_2 || protocol == ETH_P_802_3 ? protocol : 0;
	/* 4 or 6 first: this could be a source address that looks like the EtherType. */
	if (likely(type == protocol && eth->h_dest[0] >> 4 != 4 && eth->h_dest[0] >> 4 != 6))
		return false;
	if (bpf_skb_load_bytes_relative(skb, 0, &mac, sizeof(mac), BPF_HDR_START_MAC))
		return true;
	eth = hook_data(skb);
	if ((void *)(eth + 1) > hook_data_end(skb))
		return false;
	for (i = 0; i < sizeof(mac) / 2; i++)
		if (((__u16 *)&mac)[i] != ((const __u16 *)eth)[i])
			return true;
	return false;
}

static __always_inline int parse_linear(struct __sk_buff *skb, struct pkt *p, bool bare)
{
	__u32 outer = p->vlan[0], length = skb->len;
	int reason = parse(skb, p, bare);

	if (likely(reason != HD_R_NONLINEAR))
		return reason;
	if (length > PULL)
		length = PULL;
	/* Copies only if it must: pulling every packet would unshare each TCP segment that its socket still holds. */
	if (dry_run || bpf_skb_pull_data(skb, length))
		return HD_R_NONLINEAR;
	p->vlan[0] = outer;
	p->vlan[1] = 0;
	p->fragment = FRAGMENT_NONE;
	if (bare) {
		p->l3 = 0;
		p->ethertype = bpf_ntohs((__be16)skb->protocol);
	}
	return parse(skb, p, bare);
}

#endif
