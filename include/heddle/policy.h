/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The policy tables: recursive flow classification over persistent search trees.
 *
 *   peer address --addr tree--> class --classes[class]--> one range of (kind, port), or the root of a rule tree, or none
 *   (kind, port) in that range or tree            --> leaf A: rule, verdict, order
 *   (kind, port) in the policy set's own rule tree (rules for any peer, and the default) --> leaf B
 *   the leaf with the lower order decides.
 *
 * The cost is the depth of the trees, logarithms to the base 16 and 8; the upper levels of a deep IPv4 tree are jumped over by tables that
 * are indexed by the address. So it is flat in the number of rules. With many rules it is the cache lines that lie in memory which cost,
 * so what a lookup reads of them is packed: two lines side by side for the last node of the address tree, one for the class.
 *
 * Nodes are immutable once a published root reaches them. An update writes new nodes under unused ids, then publishes new
 * roots by one store of hd_control.generation; nodes of the old generation are reused only after a grace period. Records of
 * classes and of ports hold two entries by generation (hd_entry_at), so they change in the same instant.
 */
#ifndef HEDDLE_POLICY_H
#define HEDDLE_POLICY_H

#include <heddle/flow.h>
#include <heddle/types.h>

/* --- address trees: peer address -> class --- */

/*
 * A tree maps a number to a value by intervals: entry i covers key[i] <= x < key[i+1]. IPv4 has one tree over the 32 bits of the
 * address. IPv6 has one over the upper 64 bits; where prefixes longer than /64 exist, a value leads to a further tree
 * over the lower 64 bits. Unused entries at the end have key ~0 and repeat the last value; key[0] of a tree's leftmost
 * nodes is 0. (A search for ~0 itself ends in the last entry, whose value is right by that rule.)
 */
#define HD_ADDR_FANOUT 16
#define HD_ADDR_DEPTH 7 /* levels at most of one tree: 16^7 > 2^26 intervals */

/* Values in both kinds of trees: two tag bits and a number. */
#define HD_TAG_MASK 0xc0000000u
#define HD_TAG_NODE 0x00000000u /* number: a node one level down, same key */
#define HD_TAG_LEAF 0x40000000u /* number: a class (addr tree), a rule id (rule tree) or a root (tree over sets); the walk ends */
#define HD_TAG_NEXT 0x80000000u /* number: root node of a tree over the next key: lower 64 bits, or the source port */
#define HD_TAG_TABLE 0xc0000000u /* number: a table over a part of the IPv4 tree, and its shift; only roots and tables have it */
#define HD_VALUE_MASK 0x3fffffffu

/* Keys are in host byte order, ascending. */
struct hd_addr4_node {
	__u32 key[HD_ADDR_FANOUT]; /* a cache line, and the values the next one */
	__u32 value[HD_ADDR_FANOUT];
};
static_assert(sizeof(struct hd_addr4_node) == 128, "hd_addr4_node");

struct hd_addr6_node {
	__u64 key[HD_ADDR_FANOUT];
	__u32 value[HD_ADDR_FANOUT];
};
static_assert(sizeof(struct hd_addr6_node) == 192, "hd_addr6_node");

/*
 * A table takes the place of a search from the root of an IPv4 tree with many nodes. Its slots stand for equal ranges of addresses, 2^shift
 * each; those of the first table begin at hd_roots.base4, its first slot is for all below as well, its last one for all above. A slot's
 * value is the deepest node that covers its range, or where too many nodes have a part in that, another table for this range alone. Shift
 * and base are not in the table, since that would be one more line to wait for. Made anew for each root.
 */
#define HD_TABLE_SLOTS 256
#define HD_TABLE_BITS 8
#define HD_TABLE_DEPTH 4 /* tables at most before the first node: shifts are 24 at most, and 8 less each time */
#define HD_TABLE_SHIFT 25
#define HD_TABLE_ID_MASK 0x01ffffffu
#define HD_TABLE(id, shift) (HD_TAG_TABLE | (__u32)(shift) << HD_TABLE_SHIFT | (id))
struct hd_addr4_table {
	__u32 value[HD_TABLE_SLOTS];
};
static_assert(sizeof(struct hd_addr4_table) == 1024, "hd_addr4_table");

#define HD_CLASS_NONE 0 /* addresses that no rule names */

/* --- rule trees: (kind, port) -> rule --- */

/* The key of a rule tree: kind << 16 | number, host byte order. For a tree behind HD_TAG_NEXT: the source port alone. */
enum hd_l4_kind {
	HD_L4_PROTOCOL = 0, /* number: IANA protocol of an IP packet that is none of those below */
	HD_L4_TCP = 1,	    /* number: destination port */
	HD_L4_UDP = 2,
	HD_L4_SCTP = 3,
	HD_L4_ICMP = 4, /* number: type << 8 | code */
	HD_L4_ICMPV6 = 5,
	HD_L4_ETHERTYPE = 6, /* number: EtherType of a frame that is not IP, ARP included */
	HD_L4_KINDS = 7,
};
#define HD_L4_KEY(kind, number) ((__u32)(kind) << 16 | (number))

#define HD_RULE_FANOUT 8
#define HD_RULE_DEPTH 14 /* levels at most over both trees: 8^7 > 2^19 intervals, twice */
#define HD_ORDER_LAST 0xffffffffu

struct hd_rule_node {
	__u32 key[HD_RULE_FANOUT];
	__u32 value[HD_RULE_FANOUT];
	/* leaf: place of the rule among all of its policy set, lower is judged first; HD_ORDER_LAST for the default */
	__u32 order[HD_RULE_FANOUT];
};
static_assert(sizeof(struct hd_rule_node) == 96, "hd_rule_node");

/* A leaf's number: the rule id, its verdict and whether it logs, so that no further lookup is needed to act. */
#define HD_LEAF_RULE_MASK 0x00ffffffu
#define HD_LEAF_VERDICT_SHIFT 24 /* 2 bits: enum hd_verdict, HD_DROP meaning "no rule here": look at the other leaf only */
#define HD_LEAF_LOG 0x04000000u
#define HD_LEAF_PASS 0x08000000u  /* with HD_ALLOW: this set says nothing, hd_port_policy.pass_set decides */
#define HD_LEAF_AUDIT 0x10000000u /* with HD_DENY or HD_REJECT: the packet is reported as dropped, and let through */
#define HD_LEAF(rule, verdict, log) (HD_TAG_LEAF | (__u32)(verdict) << HD_LEAF_VERDICT_SHIFT | ((log) ? HD_LEAF_LOG : 0) | (rule))

/* --- classes: (set, class) -> rules --- */

#define HD_SET_SEVERAL 0xffffffffu

/* The rules that name a class, from one generation on. */
struct hd_class_rules {
	__u32 generation; /* 0: unused */
	__u32 set;	  /* the only policy set (1..) whose rules name the class; HD_SET_SEVERAL; 0: none does */
	/*
	 * With tag. HD_TAG_LEAF: the leaf for the keys first..last, no rule for others. HD_TAG_NODE: the root of a rule tree; with
	 * HD_SET_SEVERAL, of a tree over set ids, whose leaves have the root of the set's rule tree as their number (0: none).
	 */
	__u32 value;
	__u32 first, last; /* keys as in rule trees */
	__u32 order;
	__u32 reserved[2];
};
static_assert(sizeof(struct hd_class_rules) == 32, "hd_class_rules");

/* A cache line. */
struct hd_class {
	struct hd_class_rules rules[2]; /* hd_class_rules_at() says which one counts */
};
static_assert(sizeof(struct hd_class) == 64, "hd_class");

static inline int hd_class_rules_at(const struct hd_class *class, __u32 g)
{
	return hd_entry_at(class->rules[0].generation, class->rules[1].generation, g);
}

/* --- rules --- */

/* Ids below HD_RULE_FIRST are built in: X(SYMBOL, "name", "what it lets through"). */
#define HD_BUILTIN_RULES(X) \
	X(NONE, "none", "not judged by a rule") \
	X(DEFAULT_INGRESS, "default-ingress", "the default of the last policy that sets one") \
	X(DEFAULT_EGRESS, "default-egress", "the default of the last policy that sets one") \
	X(FAILSAFE, "failsafe", "a failsafe port of the Host document") \
	X(ARP, "arp", "address resolution") \
	X(ND, "nd", "neighbour and router discovery, hop limit 255") \
	X(MLD, "mld", "multicast listener reports and queries") \
	X(DHCP_CLIENT, "dhcp-client", "the DHCP and DHCPv6 client") \
	X(LINK_CONTROL, "link-control", "LLDP, LACP and 802.1X frames") \
	X(FORWARD, "forward", "traffic that the host routes, under forward: pass") \
	X(RELATED, "related", "an ICMP error about a known flow") \
	X(FRAGMENT, "fragment", "a later fragment of an allowed packet") \
	X(LOCKDOWN, "lockdown", "no valid policy: everything but failsafe and the built-in rules is denied") \
	X(NODE, "node", "the host's own traffic to its ports") \
	X(ISOLATED, "isolated", "a NetworkPolicy selects the port and none allows the packet") \
	X(GATEWAY, "gateway", "the gateway's answers to ARP, neighbour discovery and echo requests") \
	X(SWITCHED, "switched", "frames that are not IP, within their L2 network") \
	X(TUNNEL, "tunnel", "tunnel packets of known peers, and ICMP errors about them") \
	X(SERVICE, "service", "to a Service: the sender's policy is asked where that leads")
#define HD_BUILTIN_ENUM(sym, name, text) HD_RULE_##sym,
enum hd_builtin_rule { HD_BUILTIN_RULES(HD_BUILTIN_ENUM) HD_RULE_BUILTIN_COUNT };
#undef HD_BUILTIN_ENUM
#define HD_RULE_FIRST 64

/* What `bpftool map dump` shows of a rule, and what lets a restarted agent give the same rule the same id and counters. */
struct hd_rule_info {
	__u64 key;	/* hash of policy, direction, and the rule's name (or index and content where it has none); 0: unused */
	__u32 index;	/* in its list, from 0 */
	__u8 verdict;	/* enum hd_verdict */
	__u8 direction; /* enum hd_direction */
	__u8 log;
	__u8 reserved;
	char policy[40]; /* names, cut to fit, NUL-terminated */
	char name[24];
};
static_assert(sizeof(struct hd_rule_info) == 80, "hd_rule_info");

struct hd_counter {
	__u64 packets;
	__u64 bytes;
};

/* --- the switch --- */

struct hd_roots {
	__u32 generation; /* 0: unused */
	__u32 addr4;	  /* root values with tag: HD_TAG_NODE | id, HD_TABLE(), or a leaf when all addresses have one class */
	__u32 addr6;
	__u32 base4; /* of the first table */
};
static_assert(sizeof(struct hd_roots) == 16, "hd_roots");

enum hd_control_flags {
	HD_CONTROL_MONITOR = 1 << 0, /* somebody listens: events for allowed new flows too */
	HD_CONTROL_PICKUP = 1 << 1,  /* pickup_until counts */
	HD_CONTROL_FQ = 1 << 2,	     /* an uplink has the fq queue: what limited ports send is told when to leave */
};

/* The only entry of the map `control`. */
struct hd_control {
	__u32 schema;		  /* HD_SCHEMA_VERSION */
	__u32 generation;	  /* the one store that makes a policy live; 0: none yet */
	struct hd_roots roots[2]; /* by generation & 1 */
	__u32 flags;		  /* enum hd_control_flags; changed in place */
	__u32 pickup_until;	  /* tick until which running TCP connections are picked up */
	__u32 timeout[16];	  /* ticks, by enum hd_flow_state */
	__u32 log_every;	  /* a logging rule logs one of so many new flows per CPU; 1: all */
	__u32 event_rate;	  /* drop and log events a second and CPU at most */
	__u32 reject_rate;	  /* rejects a second and CPU at most */
	__u32 fragment_timeout;	  /* ticks that a first fragment's verdict holds */
	__u32 reserved[6];
};
static_assert(sizeof(struct hd_control) == 152, "hd_control");
static_assert(HD_FLOW_STATE_COUNT <= 16, "timeouts");

#endif
