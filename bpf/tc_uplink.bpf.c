/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Uplink egress, and ingress where XDP does not run. */
#include "stage/compat.h"

#define HOOK_CTX struct __sk_buff

static __always_inline void *hook_data(HOOK_CTX *ctx)
{
	return (void *)(long)ctx->data;
}

static __always_inline void *hook_data_end(HOOK_CTX *ctx)
{
	return (void *)(long)ctx->data_end;
}

static __always_inline __u32 hook_length(HOOK_CTX *ctx)
{
	return ctx->len;
}

static __always_inline long hook_load(HOOK_CTX *ctx, __u32 at, void *to, __u32 length)
{
	return bpf_skb_load_bytes(ctx, at, to, length);
}

#include "stage/judge.h"

/* TC_ACT_UNSPEC for clsact, TCX_NEXT for tcx: whoever comes behind us still runs. */
#define NEXT (-1)

/* Bytes made readable when the headers are not: tags, IPv6 with options, and TCP with all of its own. */
#define PULL 256

/* XDP judged this packet: nobody but our program on this very device writes that, see hand_over() there. */
static __always_inline bool judged_by_xdp(struct __sk_buff *skb, const struct hd_port *port)
{
	const struct hd_meta *meta = (void *)(long)skb->data_meta;

	if (!(port->flags & HD_PORT_XDP))
		return false;
	return (void *)(meta + 1) <= (void *)(long)skb->data && meta->magic == HD_META_MAGIC;
}

/*
 * On ingress the Ethernet header has been read and is put in front again for us. Since 6.9 it is not after a generic XDP program with
 * frags, whose copy of the packet forgets how long that header was: the frame then begins with the IP header. Whoever takes that for an
 * Ethernet header judges the wrong bytes, so nothing else may be concluded from it.
 */
static __always_inline bool headless(struct __sk_buff *skb)
{
	const struct ethhdr *eth = (void *)(long)skb->data;
	__u32 type, protocol = bpf_ntohs((__be16)skb->protocol);
	struct ethhdr mac;
	unsigned i;

	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return false;
	type = bpf_ntohs(eth->h_proto);
	if (type < FRAME_LLC)
		type = protocol == ETH_P_802_2 || protocol == ETH_P_802_3 ? protocol : 0;
	/* 4 or 6 first: this could be a source address that looks like the EtherType. */
	if (likely(type == protocol && eth->h_dest[0] >> 4 != 4 && eth->h_dest[0] >> 4 != 6))
		return false;
	if (bpf_skb_load_bytes_relative(skb, 0, &mac, sizeof(mac), BPF_HDR_START_MAC))
		return true;
	eth = (void *)(long)skb->data;
	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
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

static __always_inline int uplink(struct __sk_buff *skb, __u8 direction, __u8 hook)
{
	struct pkt p = {};
	struct hd_control *c;
	struct hd_port *port;
	__u32 zero = 0;
	bool bare = false;
	int reason;

	p.ifindex = skb->ifindex;
	p.segments = skb->gso_segs;
	if (direction == HD_EGRESS)
		p.arrived_on = skb->ingress_ifindex;
	if (skb->vlan_present)
		p.vlan[0] = (skb->vlan_tci & 0xfff) | 0x1000;
	if (dry_run) {
		struct hd_explain *page = explain_page();

		if (page) {
			p.ifindex = page->ifindex;
			p.segments = page->gso_segs;
			p.arrived_on = direction == HD_EGRESS ? page->ingress_ifindex : 0;
			p.vlan[0] = page->vlan_present ? (page->vlan_tci & 0xfff) | 0x1000 : 0;
		}
	}
	port = port_find(p.ifindex);
	c = bpf_map_lookup_elem(&control, &zero);
	if (!port || !c)
		return NEXT;
	if (direction == HD_INGRESS && !dry_run) {
		bare = headless(skb);
		if (bare)
			p.ethertype = bpf_ntohs((__be16)skb->protocol);
		else if (judged_by_xdp(skb, port))
			return NEXT;
	}
	if (!p.segments)
		p.segments = 1;
	p.direction = direction;
	p.hook = hook;
	p.length = skb->len;
	reason = port_enter(&p, c, port);
	if (!reason)
		reason = parse_linear(skb, &p, bare);
	if (!reason)
		reason = judge_parsed(skb, &p);
	if (unlikely(reason)) {
		drop(skb, &p, reason);
		return TC_ACT_SHOT;
	}
	pass(&p);
	return NEXT;
}

SEC("tc")
int tc_uplink_in(struct __sk_buff *skb)
{
	return uplink(skb, HD_INGRESS, HD_HOOK_TC_UPLINK_IN);
}

SEC("tc")
int tc_uplink_out(struct __sk_buff *skb)
{
	return uplink(skb, HD_EGRESS, HD_HOOK_TC_UPLINK_OUT);
}

char _license[] SEC("license") = "Dual BSD/GPL";
