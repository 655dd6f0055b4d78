/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The policy's answer to one question. How the tables work is told in heddle/policy.h. */
#ifndef HEDDLE_STAGE_POLICY_H
#define HEDDLE_STAGE_POLICY_H

#include "event.h"
#include "explain.h"
#include "packet.h"
#include "port.h"

#include <heddle/search.h>
#include <maps/policy.bpf.h>

/* A walk that reached no leaf: the tables are broken. No leaf is 0, its tag is set. */
#define BROKEN 0
/* What a walk ends in where no rule is: order << 32 | leaf. */
#define NO_RULE ((__u64)HD_ORDER_LAST << 32 | HD_LEAF(HD_RULE_NONE, HD_DROP, 0))

/* Of uplink.h or between.h: the address trees of a network other than the host's; NULL: none. */
static __always_inline const struct hd_roots *network_roots(__u32 network, __u32 generation);
/* The same: the network of one end of the packet. */
static __always_inline __u32 peer_network(const struct pkt *p, bool source);

struct question {
	struct hd_addr peer;
	__u32 generation;
	__u32 set;
	__u32 root;    /* of the set's own rule tree */
	__u32 key;     /* HD_L4_KEY */
	__u16 sport;   /* host byte order */
	__u16 network; /* of the peer: its address means something there only */
	__u8 family;   /* 0: not IP, only rules for any peer count */
	__u8 reserved[3];
};

/* Value of the leaf for an IPv4 address. base: of the first table. */
__noinline __u32 addr4_walk(__u32 value, __u32 base, __u32 key)
{
	const struct hd_addr4_table *table;
	const struct hd_addr4_node *node;
	__u64 offset = 0;
	__u32 id;
	int i;

	if ((value & HD_TAG_MASK) == HD_TAG_TABLE)
		offset = hd_table_offset(value, base, key);
	for (i = 0; i < HD_TABLE_DEPTH && (value & HD_TAG_MASK) == HD_TAG_TABLE; i++) {
		id = value & HD_TABLE_ID_MASK;
		table = bpf_map_lookup_elem(&addr4_tables, &id);
		if (!table)
			return BROKEN;
		value = table->value[hd_table_slot(value, offset)];
	}
	for (i = 0; i < HD_ADDR_DEPTH && (value & HD_TAG_MASK) == HD_TAG_NODE; i++) {
		id = value & HD_VALUE_MASK;
		node = bpf_map_lookup_elem(&addr4_nodes, &id);
		if (!node)
			return BROKEN;
		/* Asks memory for the line of the values while it is still looking for that of the keys. */
		asm volatile("" : : "r"(node->value[0]));
		value = node->value[hd_addr4_node_find(node, key)];
	}
	return (value & HD_TAG_MASK) == HD_TAG_LEAF ? value : BROKEN;
}

/* The same for IPv6, whose keys are the upper half until HD_TAG_NEXT, then the lower one. */
__noinline __u32 addr6_walk(__u32 value, __u64 upper, __u64 lower)
{
	const struct hd_addr6_node *node;
	__u64 key = upper;
	__u32 id;
	int i;

	for (i = 0; i < 2 * HD_ADDR_DEPTH; i++) {
		__u32 tag = value & HD_TAG_MASK;

		if (tag == HD_TAG_LEAF)
			return value;
		if (tag == HD_TAG_NEXT)
			key = lower;
		id = value & HD_VALUE_MASK;
		node = bpf_map_lookup_elem(&addr6_nodes, &id);
		if (!node)
			return BROKEN;
		value = node->value[hd_addr6_node_find(node, key)];
	}
	return (value & HD_TAG_MASK) == HD_TAG_LEAF ? value : BROKEN;
}

/* order << 32 | leaf */
__noinline __u64 rule_walk(__u32 value, __u32 key, __u32 sport)
{
	const struct hd_rule_node *node;
	__u32 id, order = HD_ORDER_LAST;
	int i;

	for (i = 0; i < HD_RULE_DEPTH; i++) {
		__u32 tag = value & HD_TAG_MASK, at;

		if (tag == HD_TAG_LEAF)
			break;
		if (tag == HD_TAG_NEXT)
			key = sport;
		id = value & HD_VALUE_MASK;
		node = bpf_map_lookup_elem(&rule_nodes, &id);
		if (!node)
			return BROKEN;
		at = hd_rule_node_find(node, key);
		value = node->value[at];
		order = node->order[at];
	}
	if ((value & HD_TAG_MASK) != HD_TAG_LEAF)
		return BROKEN;
	return (__u64)order << 32 | value;
}

static __always_inline __u32 leaf_verdict(__u32 leaf)
{
	return leaf >> HD_LEAF_VERDICT_SHIFT & 3;
}

/* The peer's class as a leaf of an address tree, or BROKEN. */
static __always_inline __u32 peer_class(const struct question *q)
{
	const struct hd_roots *roots;
	struct hd_control *c;
	__u32 zero = 0;

	c = bpf_map_lookup_elem(&control, &zero);
	if (!c)
		return BROKEN;
	roots = q->network ? network_roots(q->network, q->generation) : &c->roots[q->generation & 1];
	/* Two updates within one packet: the slot is already the next one's. The writer waits a grace period, so this is no more than a seat belt. */
	if (!roots || (!q->network && roots->generation != q->generation))
		return BROKEN;
	if (q->family == 4)
		return addr4_walk(roots->addr4, roots->base4, bpf_ntohl(q->peer.w[3]));
	return addr6_walk(roots->addr6, bpf_be64_to_cpu(q->peer.q[0]), bpf_be64_to_cpu(q->peer.q[1]));
}

/* order << 32 | leaf of the rules that name the class, or BROKEN. */
static __always_inline __u64 class_walk(const struct question *q, __u32 id)
{
	const struct hd_class *class = bpf_map_lookup_elem(&classes, &id);
	const struct hd_class_rules *rules;
	__u32 value = 0;
	int at;

	if (!class)
		return BROKEN;
	at = hd_class_rules_at(class, q->generation);
	if (at < 0)
		return BROKEN;
	rules = &class->rules[at & 1];
	if (rules->set == q->set) {
		value = rules->value;
	} else if (rules->set == HD_SET_SEVERAL) {
		value = (__u32)rule_walk(rules->value, q->set, 0);
		if (value == BROKEN)
			return BROKEN;
		value &= HD_VALUE_MASK;
	}
	EXPLAIN(class_root = value);
	if (!value)
		return NO_RULE;
	if ((value & HD_TAG_MASK) != HD_TAG_LEAF)
		return rule_walk(value, q->key, q->sport);
	if (q->key < rules->first || q->key > rules->last)
		return NO_RULE;
	return (__u64)rules->order << 32 | value;
}

/* The leaf that decides, or BROKEN. */
static __always_inline __u32 policy_ask(const struct question *q)
{
	__u64 any, peer = NO_RULE;
	__u32 class;

	EXPLAIN(judged = 1);
	EXPLAIN(set = q->set);
	any = rule_walk(q->root, q->key, q->sport);
	if (any == BROKEN)
		return BROKEN;
	EXPLAIN(any_leaf = (__u32)any);
	if (q->family) {
		class = peer_class(q);
		if (class == BROKEN)
			return BROKEN;
		class &= HD_VALUE_MASK;
		EXPLAIN(class_id = class);
		if (class != HD_CLASS_NONE)
			peer = class_walk(q, class);
		if (peer == BROKEN)
			return BROKEN;
		EXPLAIN(class_leaf = (__u32)peer);
	}
	/* Orders are distinct, so whole values compare like them. */
	if (leaf_verdict(peer) != HD_DROP && (leaf_verdict(any) == HD_DROP || peer < any))
		return peer;
	return leaf_verdict(any) == HD_DROP ? BROKEN : (__u32)any;
}

/* Whether the packet's protocol is one that the family's parser gave ports or a type, and the number that rules match. */
static __always_inline __u32 l4_key(__u8 family, __u8 protocol, __be16 dport, __u8 icmp_type, __u8 icmp_code)
{
	__u32 port = bpf_ntohs(dport), icmp = icmp_type << 8 | icmp_code;

	if (protocol == PROTO_TCP)
		return HD_L4_KEY(HD_L4_TCP, port);
	if (protocol == PROTO_UDP)
		return HD_L4_KEY(HD_L4_UDP, port);
	if (protocol == PROTO_SCTP)
		return HD_L4_KEY(HD_L4_SCTP, port);
	if (protocol == PROTO_ICMP && family == 4)
		return HD_L4_KEY(HD_L4_ICMP, icmp);
	if (protocol == PROTO_ICMPV6 && family == 6)
		return HD_L4_KEY(HD_L4_ICMPV6, icmp);
	return HD_L4_KEY(HD_L4_PROTOCOL, protocol);
}

/* Takes the leaf's verdict over into p. 0 or the drop reason. */
static __always_inline int policy_settle(struct pkt *p, __u32 leaf)
{
	int reason;

	if (leaf == BROKEN)
		return HD_R_RULE_TREE;
	p->rule = leaf & HD_LEAF_RULE_MASK;
	p->verdict = leaf_verdict(leaf);
	p->log = !!(leaf & HD_LEAF_LOG);
	p->pass = !!(leaf & HD_LEAF_PASS);
	if (p->verdict == HD_ALLOW)
		return 0;
	reason = p->verdict == HD_REJECT ? HD_R_POLICY_REJECT : HD_R_POLICY_DENY;
	if (likely(!(leaf & HD_LEAF_AUDIT)))
		return reason;
	p->verdict = HD_ALLOW;
	p->log = 0; /* said now */
	event_limited(p, HD_EVENT_LOG, reason);
	return 0;
}

/*
 * The packet as it stands, judged by the policy of one direction. reply: as the answer to a connection that the other end opened
 * in that direction.
 */
__noinline int policy_judge(struct pkt *p, __u32 direction, __u32 reply)
{
	struct question q = {};
	bool peer_is_source;

	if (!p)
		return HD_R_RULE_TREE;
	peer_is_source = (direction == HD_INGRESS) != !!reply;
	q.generation = p->generation;
	q.set = by_direction(p->set, direction);
	q.root = by_direction(p->root, direction);
	q.family = p->family;
	if (p->family) {
		q.peer = peer_is_source ? p->source : p->destination;
		q.network = peer_network(p, peer_is_source);
		q.key = l4_key(p->family, p->protocol, reply ? p->sport : p->dport, p->icmp_type, p->icmp_code);
		q.sport = bpf_ntohs(reply ? p->dport : p->sport);
	} else {
		q.key = HD_L4_KEY(HD_L4_ETHERTYPE, p->ethertype);
	}
	return policy_settle(p, policy_ask(&q));
}

#endif
