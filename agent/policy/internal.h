/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of this folder share. The words:
 *
 * selector  one distinct list of peers (`from` or `to`), however many rules have it. SELECTOR_ANY: rules without one.
 * class     a set of selectors that cover the same addresses. A class of one selector is that selector; a bigger one is a chain
 *           (parent class, last selector), wide selectors first, so that chains share their beginnings and equal sets are one class.
 * row       what a class means in one policy set: a rule tree, or where it is the only row and that will do, a single range.
 * pair      the two policy sets of those with the same policies, uplinks or ports.
 * order     the place of a rule among all rules of all policies: the base of its policy and direction, plus its index. Bases
 *           leave gaps, so a new policy or a growing one renumbers nobody.
 *
 * A compilation changes struct tables in place, after a copy was taken: abort is to take the copy back. Address nodes are not
 * in it: a published one is never changed.
 */
#ifndef HEDDLE_POLICY_INTERNAL_H
#define HEDDLE_POLICY_INTERNAL_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <heddle/network.h>
#include <policy/compile.h>
#include <policy/expand.h>

/* --- growing arrays --- */

#define VEC(type) \
	struct { \
		type *data; \
		size_t n, capacity; \
	}
int vec_reserve(void *data, size_t *capacity, size_t wanted, size_t size); /* 0 or -ENOMEM; data: pointer to the pointer */
#define VEC_RESERVE(v, wanted) \
	((wanted) <= (v)->capacity ? 0 : vec_reserve(&(v)->data, &(v)->capacity, (wanted), sizeof(__typeof__(*(v)->data))))
#define VEC_PUSH(v, ...) (VEC_RESERVE(v, (v)->n + 1) < 0 ? -ENOMEM : ((v)->data[(v)->n++] = (__VA_ARGS__), 0))
#define VEC_FREE(v) (free((v)->data), (v)->data = NULL, (v)->n = (v)->capacity = 0)
#define ARRAY_N(array) (sizeof(array) / sizeof((array)[0]))

typedef VEC(uint32_t) u32_vec;
void u32_vec_clear(u32_vec *v);

/* --- orders --- */

#define ORDER_BUILTIN 2048u /* built-in rules, and below that failsafe ports */
#define ORDER_FIRST 4096u
#define ORDER_END 0xfffffff0u

/* --- classes and selectors --- */

#define SELECTOR_ANY 1u /* its rules are the ones without peers; it covers no address of the trees */

enum class_flags {
	CLASS_SELECTOR = 1 << 0,
	CLASS_CHAIN = 1 << 5,
	CLASS_GROUP = 1 << 1, /* a selector that names a group */
	CLASS_BLOCK = 1 << 2, /* rules: a block of orders; else the one order, or NO_RULE */
	CLASS_ROWS = 1 << 3,  /* rows: a block, see struct row; else the one row, set 0 for none */
	CLASS_BUILT = 1 << 4, /* its record is in the tables */
	CLASS_PORTS =
		1 << 6, /* a selector of a policy for ports: in the trees of all networks that have some, not in the host's */
};
#define NO_RULE 0u
#define CLASS_LAST(t, id) ((t)->classes.data[id].flags & CLASS_SELECTOR ? (id) : (t)->classes.data[id].selector)
#define CLASS_PARENT(t, id) ((t)->classes.data[id].flags & CLASS_SELECTOR ? 0 : (t)->classes.data[id].parent)

struct class
{
	union {
		uint32_t hash;	 /* of a selector's peers */
		uint32_t parent; /* of a chain */
	};
	union {
		uint32_t rules;	   /* of a selector */
		uint32_t selector; /* of a chain: the last one */
	};
	uint32_t refs; /* entries of address trees. Free: the next free one */
	uint32_t tree; /* of the row, or the block of rows */
	uint16_t set;  /* of the row */
	uint8_t flags; /* 0: free */
	uint8_t width; /* of a selector: its shortest prefix, 0 with a group; the wide ones come first in a chain */
};
static_assert(sizeof(struct class) == 20, "there are as many as rules");

/* The block of several rows begins with the tree that leads to them, with no set; then they come, ascending. */
struct row {
	uint32_t set, tree;
};

/* --- policies and sets --- */

/* A rule that only some of its policy's pairs have. */
struct limited {
	uint32_t rule;
	uint32_t n;
	const uint16_t *pairs;
};

/* Which pairs a policy belongs to, by direction, ascending; limited: of ingress, by rule. */
struct membership {
	const uint16_t *pairs[HD_DIRECTIONS];
	uint32_t n_pairs[HD_DIRECTIONS];
	uint32_t n_limited;
	const struct limited *limited;
};

/*
 * A policy as it is compiled. Immutable once the round is over. Its rules are those of the object, or what they were expanded to; ids
 * are by the document's rules, orders by the compiled ones.
 */
struct prepared {
	struct object *object;	      /* a reference */
	struct expanded *expanded;    /* a reference; NULL: a HostPolicy */
	uint32_t base[HD_DIRECTIONS]; /* order of the first rule */
	uint32_t span[HD_DIRECTIONS]; /* orders reserved */
	struct membership member;     /* behind ids */
	uint32_t *ids[HD_DIRECTIONS]; /* rule ids, in the same memory */
	bool matched;		      /* scratch */
};

struct rule_place {
	const struct prepared *prepared;
	uint32_t index;
	uint8_t direction; /* enum hd_direction */
};

/* What NetworkPolicies make of the default: audit when all of them are in audit mode. */
enum isolation { ISOLATION_NONE = 0, ISOLATION_DENY, ISOLATION_AUDIT };

/* The two policy sets of uplinks or ports with the same policies. */
struct pair {
	uint8_t state;			  /* enum pair_state */
	bool ports;			  /* else of uplinks */
	int8_t verdict[HD_DIRECTIONS];	  /* the default */
	bool audit[HD_DIRECTIONS];	  /* of the default: a policy in audit mode gave it */
	uint8_t isolation[HD_DIRECTIONS]; /* enum isolation; of ports */
	uint32_t tree[HD_DIRECTIONS];	  /* of the rules for any peer */
	uint64_t key;			  /* of ports: a hash of its policies' names, to recognize it by */
};
enum pair_state { PAIR_FREE = 0, PAIR_LIVE, PAIR_RETIRED };
/* Set ids: 2 * index + 1 for ingress, + 2 for egress. */
#define SET_ID(pair, direction) ((uint32_t)(pair)*2 + (direction) + 1)
#define SET_PAIR(set) (((set)-1) / 2)
#define SET_DIRECTION(set) (((set)-1) & 1)
#define PAIRS_MAX 32767u /* set ids are kept in 16 bits */
/*
 * The number of a set in the tables. There the sets of a direction are neighbours: most classes are named in one only, so their trees over sets
 * have no gaps between them.
 */
#define SET_NUMBER(set) (SET_DIRECTION(set) * (PAIRS_MAX + 1) + SET_PAIR(set) + 1)

/* Names are cut as the kernel would; an interface with a longer name cannot exist. */
struct uplink_pair {
	char device[16];
	uint32_t pair;
	uint32_t version[HD_DIRECTIONS];
};

/* A Port. */
struct port_entry {
	struct object *object; /* a reference */
	struct identity *identity;
	uint16_t network;
	bool changed;	     /* its policy, in the last round */
	uint32_t pair, pass; /* pass: the pair that decides after a pass; NO_PAIR: none */
	struct hd_port_policy policy;
};
#define NO_PAIR UINT32_MAX

/* A network's address trees. */
struct network_entry {
	struct object *object; /* a reference; NULL: the host's own, the first entry */
	uint16_t index;
	bool judged;	  /* a port here is in it, or may reach a peer's part of it; else its trees are empty */
	bool peers;	  /* some have something in it */
	bool changed;	  /* its roots, in the last round */
	uint32_t root[2]; /* values with tag: IPv4, IPv6 */
	/* Of IPv4: where packets begin, the first table (and its base) or the root itself, and the root when that was last said. */
	uint32_t top, base, top_root;
	uint32_t tables; /* a block of their ids; 0: none */
	struct hd_roots roots;
};

/* A Peer. It stays the same for as long as nothing of it changes, nor the namespaces and networks that it was read with. */
struct peer_entry {
	unsigned refs;
	bool kept;	       /* scratch */
	struct object *object; /* a reference */
	size_t n_networks;
	uint16_t networks[]; /* where it has something: indexes, ascending */
};

/* An address of a port, or of a peer's: (network, address) ascending. */
struct endpoint {
	uint16_t network;
	uint32_t index; /* among the peer's ports */
	struct hd_addr addr;
	struct identity *identity;
	struct peer_entry *peer; /* NULL: of a port here */
};

/* --- the tables --- */

#define BLOCK_CLASSES 28

/* Ids of nodes: 0 is none. */
struct node_ids {
	u32_vec free, retired; /* retired: not to be used before the round is settled */
	uint32_t end;	       /* ids in use are below */
	uint32_t live;
};

struct tables {
	VEC(struct class) classes; /* by class id; 0 unused */
	uint32_t class_free, class_retired;
	uint32_t *index; /* selectors and chains by content: class ids, open addressing */
	uint32_t index_size, index_used;

	VEC(uint32_t) blocks; /* lists of orders and rows: capacity class and length, then that many words */
	uint32_t block_free[BLOCK_CLASSES];

	struct node_ids rule_nodes, addr_nodes[2], addr_tables; /* IPv4, IPv6 */

	VEC(uint32_t) rule_order; /* by rule id: base of its policy plus index in the document, or the next free one */
	uint32_t id_free, id_free_last, id_retired, id_retired_last;
	uint32_t ids_live;

	VEC(struct pair) pairs;
	VEC(struct uplink_pair) uplinks;
	VEC(struct port_entry) ports;	    /* by (namespace, name) */
	VEC(struct network_entry) networks; /* the host's, then by name */
	VEC(struct endpoint) endpoints;	    /* of ports */
	VEC(struct peer_entry *) peers;	    /* by name; references */
	VEC(struct endpoint) remote;	    /* of peers; where several claim one address, by their names */
	uint64_t surroundings;		    /* a hash of the namespaces and networks that remote was made with */
	VEC(struct prepared *) policies;    /* as policy_compare() has them, so by base too */
	VEC(struct object *) groups;	    /* by name */
	VEC(struct port_range) failsafe;
	bool lockdown, started;
};

/*
 * A rule tree as its owners keep it: the id of its only node, or TREE_BLOCK | a block of references, root and other nodes. The
 * nodes themselves are not kept. TREE_RANGE: there is none, the class's record says it all.
 */
#define TREE_BLOCK 0x80000000u
#define TREE_RANGE 0x7fffffffu

/*
 * The address nodes of a family, by id: 16 of each a node. The lower halves of keys are only there for nodes that need them (none of
 * IPv4's do), and without such nodes there is no array for them.
 */
struct addr_pool {
	uint32_t *high, *low, *value;
	uint8_t *count;		       /* ADDR_COUNT | ADDR_WIDE | ADDR_FRESH */
	size_t capacity, low_capacity; /* nodes */
};
#define ADDR_COUNT 0x1fu
#define ADDR_WIDE 0x40u	 /* has lower halves */
#define ADDR_FRESH 0x80u /* made in this round */

enum round_state { ROUND_NONE = 0, ROUND_COMPILED, ROUND_COMMITTED };

struct adopted {
	uint64_t key;
	uint32_t id;
	bool claimed;
};

struct compiler {
	struct compiler_limits limits;
	uint32_t next_generation;
	struct tables now, before; /* before: while a round is open */
	struct addr_pool addr[2];
	struct labels *labels;
	bool tainted_ports;	     /* until the next commit: an aborted round may have written records of ports and networks */
	VEC(struct adopted) adopted; /* until the first commit; sorted by key */
	bool inherits;		     /* counters of an earlier agent are there: no id is known to be unused */
	bool adopted_sorted;
	enum round_state state;
	struct round *round; /* while state is not ROUND_NONE */
	/* Until the next commit: what an aborted round may have written. */
	u32_vec tainted, tainted_rules; /* classes; rules */
};

/* --- one round --- */

/* No policy is worth more kernel memory than this: 128 and 192 MiB for the families, 128 and 96 MiB, and 68 MiB. */
#define ADDR_NODES_MOST (1u << 20)
#define CLASSES_MOST (1u << 21)
#define RULE_NODES_MOST (1u << 20)
#define ADDR_TABLES_MOST (1u << 16)

/* A selector that this round looks at. */
struct touched {
	uint32_t selector;
	bool was; /* had rules before */
	const struct peer *peers;
	uint32_t n_peers;
};
/* What a round knows of a class: flags, and for a selector its index + 1 in touched. */
#define TOUCH_DIRTY 0x80000000u /* its rules are others than before, or of other sets */
#define TOUCH_CLEAN 0x40000000u /* none of the chain's are */
#define TOUCH_INDEX 0x3fffffffu

/* A selector that is a label group. */
struct label_selector {
	uint32_t selector;
	bool was, is;
	bool marked; /* its rules' sets are known to mean something else */
	const struct label_group *group;
};

/* Which of them cover an identity: indexes of round.covering. */
struct identity_cover {
	uint32_t first, n;
	bool known;
};

enum edge_kind { EDGE_ADD = 0, EDGE_ADD_END, EDGE_REMOVE, EDGE_REMOVE_END };
struct edge {
	uint64_t high, low; /* position: upper and lower half of IPv6; IPv4 << 32, and 0 */
	uint32_t selector;
	uint8_t kind; /* enum edge_kind */
};

/* A part of the address space in which some selectors are added to every class and some removed. */
struct addr_op {
	uint64_t first, last;
	uint32_t plus, minus; /* classes */
	uint32_t sub, n_sub;  /* n_sub not 0: operations on the lower 64 bits instead; first == last then */
};

struct change {
	uint64_t key; /* selector << 32 | order */
	bool add;
};

/* Of set flags: the rows are made anew where a class is dirty; the version; the tree of the rules for any peer. */
enum { SET_TOUCHED = 1 << 0, SET_MEANING = 1 << 1, SET_ANY = 1 << 2 };

/* One line of an ordered list that becomes a tree: a rule, or a range of keys and one of source ports. */
struct rule_match {
	uint32_t order, value;
	const struct rule *rule; /* NULL: the ranges count */
	uint32_t first, last;
	uint16_t source_first, source_last;
};

struct shared {
	uint64_t hash;
	size_t orders;
	uint32_t n, tree;
};
struct sharing {
	VEC(struct shared) trees;
	u32_vec orders;
	uint32_t *slot, size;
};

struct tree_builder;

struct round {
	struct compiler *compiler;
	struct tables *t;
	const struct policy_input *input;
	struct diag *diag;
	struct policy_delta delta;
	uint32_t generation;
	bool first; /* nothing was compiled before */
	bool groups_referenced, ports_referenced, networks_referenced, peers_referenced;

	VEC(struct object *) new_policies, new_groups, changed_groups, limited; /* limited: policies that name uplinks */
	VEC(struct object *) new_ports, new_peers, new_namespaces, new_networks, new_hosts;
	VEC(struct expanded *) expanded; /* references, by index in new_policies; NULL: a HostPolicy */
	size_t pairs_used;		 /* below, none is free */
	VEC(uint16_t) member;
	VEC(struct limited) member_limited;
	struct port_sets *port_sets;
	VEC(struct prepared *) made;
	VEC(struct change) changes;
	VEC(struct touched) touched;
	u32_vec touch;	   /* by class id */
	VEC(uint8_t) sets; /* by set id */

	VEC(struct label_selector) label_selectors;
	size_t n_changed_selectors;	   /* the first so many are no selectors any more, or are new ones */
	VEC(struct identity_cover) covers; /* by identity number */
	u32_vec covering;		   /* indexes of label_selectors */
	VEC(struct edge) edges[2];
	VEC(struct addr_op) ops, sub_ops;
	u32_vec taken;	  /* scratch of the class algebra */
	int family;	  /* whose address tree is being changed */
	u32_vec fresh[2]; /* address nodes made */
	struct {
		uint32_t from, plus, minus, to;
	} memo[64];

	struct tree_builder *builder;
	u32_vec tree; /* the nodes of the tree being built; the root is the last one */
	VEC(struct rule_match) matches;
	VEC(uint64_t) keys; /* set << 32 | order */
	size_t n_orders;
	struct sharing sharing;

	VEC(struct addr4_node_write) addr4_writes;
	VEC(struct addr4_table_write) table_writes;
	VEC(struct addr6_node_write) addr6_writes;
	VEC(struct class_write) class_writes;
	VEC(struct rule_node_write) rule_writes;
	VEC(struct rule_write) rules;
	VEC(struct uplink_policy) uplinks;
	VEC(struct port_policy) ports;
	VEC(struct network_roots) networks;
};

/* tables.c: 0 for an id means that there is no memory */
uint32_t block_new(struct tables *t, uint32_t n);
void block_free(struct tables *t, uint32_t block);
uint32_t node_id_new(struct node_ids *ids);
void node_id_retire(struct node_ids *ids, uint32_t id);
int tree_new(struct tables *t, const u32_vec *nodes, bool shared, uint32_t *ret);
void tree_share(struct tables *t, uint32_t tree);
void tree_release(struct tables *t, uint32_t tree);
uint32_t tree_root(const struct tables *t, uint32_t tree);
uint32_t rule_id_new(struct tables *t, bool *used);
void rule_id_retire(struct tables *t, uint32_t id);
void tables_settle(struct tables *t);
int tables_copy(struct tables *to, const struct tables *from);
void tables_free(struct tables *t);

/* classes.c */
uint64_t peers_hash(const struct peer *peers, uint32_t n);
bool peers_equal(const struct peer *a, uint32_t n_a, const struct peer *b, uint32_t n_b);
void selector_peers(const struct round *round, uint32_t id, const struct peer **peers, uint32_t *n);
uint32_t selector_get(struct round *round, bool ports, const struct peer *peers, uint32_t n);
int selector_touch(struct round *round, uint32_t id, const struct peer *peers, uint32_t n);
uint64_t class_rank(const struct tables *t, uint32_t selector);
int class_change(struct round *round, uint32_t class, uint32_t selector, bool add, uint32_t *ret);
int class_transform(struct round *round, uint32_t class, uint32_t plus, uint32_t minus, uint32_t *ret);
bool class_dirty(struct round *round, uint32_t id);
int classes_collect(struct tables *t);

/* prepared.c */
struct prepared *prepared_new(struct object *object, struct expanded *expanded, const struct membership *member);
void prepared_free(struct prepared *prepared);
const struct limited *rule_limited(const struct prepared *prepared, int direction, uint32_t index);
/* Which rule has an order. False: none has it. */
bool rule_place_by_order(const struct tables *t, uint32_t order, struct rule_place *ret);
/* The same, and the rule itself, which unpacks its policy. NULL: none; where: may be NULL. */
const struct rule *rule_by_order(const struct tables *t, uint32_t order, struct rule_place *where);
uint32_t prepared_rules(const struct prepared *prepared, int direction);  /* compiled ones */
uint32_t prepared_listed(const struct prepared *prepared, int direction); /* those of the document */
bool prepared_audit(const struct prepared *prepared);
uint32_t prepared_source(const struct rule_place *place); /* index in the document */
const struct rule *prepared_rule(const struct prepared *prepared, int direction, uint32_t index);
const uint16_t *rule_pairs(const struct rule_place *place, uint32_t *ret_n);
/* By a rule's id: index is that in the document. */
bool rule_place_by_id(const struct tables *t, uint32_t id, struct rule_place *ret);

/* policies.c */
int policy_cmp(const void *a, const void *b);
int policies_update(struct round *round);
int tainted_rules_update(struct round *round);

/* sets.c */
int pair_new(struct round *round, bool ports, uint32_t *ret);
int sets_cover(struct round *round);
void set_is_new(struct round *round, uint32_t pair);
int sets_update(struct round *round);
/* The pairs of new_policies[index]. Good until the next call. */
int policy_members(struct round *round, size_t index, struct membership *ret);
void defaults_update(struct round *round);
int failsafe_update(struct round *round);
int uplinks_finish(struct round *round);

/* peers.c */
int peers_update(struct round *round);
void peers_unref(struct tables *t);

/* members.c */
int ports_update(struct round *round);
struct object *namespace_find(const struct round *round, const char *name); /* its document; NULL: none */
int endpoint_cmp(const void *a, const void *b);				    /* by network and address only */
int port_sets_update(struct round *round);
int port_policy_members(struct round *round, size_t index, struct membership *ret);
void port_sets_free(struct port_sets *sets);
int ports_finish(struct round *round);

/* networks.c */
int networks_update(struct round *round);
int network_of(const struct tables *t, const char *name); /* -ENOENT, or its index */
int label_selectors_update(struct round *round);
int network_edges(struct round *round, struct network_entry *network);
int networks_finish(struct round *round);
void mark_meaning(struct round *round, uint32_t selector);

/* ranges.c */
const struct object *group_find(struct object *const *groups, size_t n, const char *name);
int selector_edges(struct round *round, const struct touched *touched, bool is);
int endpoint_edges(struct round *round, const struct hd_addr *addr, uint32_t selector, bool add);
int ranges_to_ops(struct round *round, int family);

/* addrtree.c */
int addr_tree_update(struct round *round, uint32_t *root, int family);
void addr_tree_drop(struct round *round, uint32_t *root, int family);
int addr_writes(struct round *round);
void addr_round_end(struct round *round);

/* addrtable.c */
int addr_tables_update(struct round *round, struct network_entry *network);
void addr_tables_drop(struct round *round, struct network_entry *network);

/* ruletree.c */
int tree_build(struct round *round, const struct rule_match *matches, size_t n, bool shared, struct hd_class_rules *alone,
	uint32_t *ret);
int tree_over_sets(struct round *round, const struct row *rows, size_t n, uint32_t *ret);
int push_builtins(struct round *round, const struct pair *pair, int direction);
int push_default(struct round *round, const struct pair *pair, int direction);
void tree_builder_free(struct tree_builder *builder);

/* rows.c */
int orders_update(struct round *round);
int rows_update(struct round *round);
int any_trees_update(struct round *round);

#endif
