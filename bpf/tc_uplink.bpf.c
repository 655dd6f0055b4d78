/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Uplink egress, and ingress where XDP does not run. */
#include "stage/tc.h"

#include "stage/judge.h"
#include "stage/sum.h"
#include "stage/tc_parse.h"
#include "stage/tunnel.h"
#include "stage/wire.h"

/* XDP judged this packet: nobody but our program on this very device writes that, see hand_over() there. */
static __always_inline bool judged_by_xdp(struct __sk_buff *skb, const struct hd_port *port)
{
	const struct hd_meta *meta = (void *)(long)skb->data_meta;

	if (!(port->flags & HD_PORT_XDP))
		return false;
	return (void *)(meta + 1) <= (void *)(long)skb->data && meta->magic == HD_META_MAGIC;
}

/*
 * XDP took this frame out of its tunnel. Asked before anything else: what the frame says of itself, its tag too, is the peer's. It goes on in
 * tc_tunnel_in or nowhere.
 */
static __always_inline bool taken_out_by_xdp(struct __sk_buff *skb)
{
	const struct hd_meta_tunnel *meta = (void *)(long)skb->data_meta;
	const struct hd_port *port;

	if (likely((void *)(meta + 1) > (void *)(long)skb->data) || meta->magic != HD_META_TUNNEL)
		return false;
	port = port_find(skb->ifindex);
	return port && port->flags & HD_PORT_XDP;
}

/* The tag that the stack took out of the frame is a network's. */
static __always_inline bool wire_beside(struct __sk_buff *skb)
{
	return wire_types(skb->vlan_proto, skb->protocol) && wire_find(skb->vlan_tci);
}

/*
 * A frame of a network on ingress goes on in tc_wire_in, whatever XDP said; where that program is not there, it is judged like any other.
 */
static __always_inline int uplink(struct __sk_buff *skb, __u8 direction, __u8 hook)
{
	struct pkt p = {};
	struct hd_control *c;
	struct hd_port *port;
	__u32 zero = 0, way;
	bool bare = false;
	int reason;

	p.ifindex = skb->ifindex;
	p.segments = skb->gso_segs;
	if (direction == HD_EGRESS) {
		p.arrived_on = skb->ingress_ifindex;
		/* From a port or a peer, and judged there. What a process of the host sends came in nowhere, whatever mark it gives itself. */
		if (!dry_run && unlikely(skb->mark & HD_MARK) && p.arrived_on) {
			skb->mark = 0;
			return NEXT;
		}
	}
	if (direction == HD_INGRESS && !dry_run && unlikely(taken_out_by_xdp(skb))) {
		skb->cb[0] = HD_META_TUNNEL;
		bpf_tail_call(skb, &wire_programs, HD_WIRE_TUNNEL);
		p.direction = direction;
		p.hook = hook;
		p.segments = 1;
		reason = HD_R_NOT_READY;
		goto dropped;
	}
	if (skb->vlan_present) {
		p.vlan[0] = (skb->vlan_tci & 0xfff) | 0x1000;
		if (!dry_run && wire_beside(skb)) {
			if (direction == HD_INGRESS) {
				bpf_tail_call(skb, &wire_programs, HD_WIRE_VLAN);
			} else if (skb->mark & HD_MARK) {
				skb->mark = 0;
				return NEXT;
			}
		}
	}
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
	if (direction == HD_INGRESS && unlikely(p.vlan[0]) && !dry_run && !reason && !bare && !skb->vlan_present &&
		wire_inline(skb, &p))
		bpf_tail_call(skb, &wire_programs, HD_WIRE_VLAN);
	if (unlikely(p.port_flags & HD_PORT_TUNNEL) && !reason) {
		if (direction == HD_INGRESS && p.port_flags & HD_PORT_SUM && !dry_run) {
			way = sum_packet(skb, &p);
			if (way) {
				skb->mark = HD_MARK;
				return bpf_redirect(way, 0);
			}
		}
		reason = tunnel_outer(skb, &p);
		skb->cb[0] = 0;
		if (reason == TUNNEL_ENTER && !bare)
			bpf_tail_call(skb, &wire_programs, HD_WIRE_TUNNEL);
		if (reason == TUNNEL_OURS)
			goto passed;
		if (reason == TUNNEL_ENTER)
			reason = 0;
	}
	/* A Service has led out of here what its sender's policy has not allowed. */
	if (direction == HD_EGRESS && !dry_run && unlikely(skb->mark & HD_MARK_UNJUDGED) && p.arrived_on && !reason) {
		p.rule = HD_RULE_ISOLATED;
		p.verdict = HD_DENY;
		reason = HD_R_POLICY_DENY;
	}
	if (!reason)
		reason = judge_parsed(skb, &p);
	if (unlikely(reason))
		goto dropped;
passed:
	pass(&p);
	return NEXT;
dropped:
	drop(skb, &p, reason);
	return TC_ACT_SHOT;
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
