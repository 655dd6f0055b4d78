/* SPDX-License-Identifier: Apache-2.0 */
/* Inside policy/lint*.c only. */
#ifndef HEDDLE_POLICY_LINT_INTERNAL_H
#define HEDDLE_POLICY_LINT_INTERNAL_H

#include <policy/internal.h>
#include <policy/lint.h>

/* Numbers, each with the numbers that contain it: itself first. */
struct lint_relation {
	u32_vec start, item; /* start: where the list of each begins, and the end of the last one */
};
void lint_relation_free(struct lint_relation *relation);

/*
 * Numbers by the hash of what they stand for: open addressing, grows. A search goes lint_index_room(), then from lint_index_at() by
 * lint_index_next() to a slot that is the thing's, or free: there lint_index_put() puts it.
 */
struct lint_slot {
	uint64_t hash;
	uint32_t number;
	bool used;
};
struct lint_index {
	struct lint_slot *slots;
	size_t size, n;
};
int lint_index_room(struct lint_index *index); /* for one more; 0 or -ENOMEM */
void lint_index_free(struct lint_index *index);
static inline struct lint_slot *lint_index_at(const struct lint_index *index, uint64_t hash)
{
	return &index->slots[hash & (index->size - 1)];
}
static inline struct lint_slot *lint_index_next(const struct lint_index *index, const struct lint_slot *slot)
{
	return &index->slots[(size_t)(slot + 1 - index->slots) & (index->size - 1)];
}
static inline void lint_index_put(struct lint_index *index, struct lint_slot *slot, uint64_t hash, uint32_t number)
{
	*slot = (struct lint_slot){.hash = hash, .number = number, .used = true};
	index->n++;
}

/* A range of keys, see lint_keys(). */
struct lint_piece {
	uint32_t first, last;
};
/* (kind, number) as in the tables; above them come named ports, whose number is not known. */
#define LINT_KEY_IP_LAST HD_L4_KEY(HD_L4_ICMPV6, 0xffff)
#define LINT_KEY_NAMED 0x01000000u
#define LINT_KEY_LAST UINT32_MAX

struct lint_rule {
	const struct object *policy; /* NULL: built in */
	const char *name;
	uint32_t index, line;
	uint32_t selector, scope,
		source; /* numbers of its peers, of what it applies to, of its source ports (0: none asked for) */
	uint32_t policy_order;
	size_t piece;
	uint32_t n_pieces;
	uint8_t verdict, tier;
	bool pass;     /* leaves the decision to later tiers */
	bool own_tier; /* says nothing to later tiers */
	bool dead;     /* said already: it matches nothing */
};

enum lint_detail {
	LINT_SAME_VERDICT,
	LINT_OTHER_VERDICT,
	LINT_DEFAULT_REPLACED,
	LINT_UPLINK_UNDECLARED,
	LINT_PEERS_EMPTY,
	LINT_PEERS_NOBODY,
	LINT_SUBJECT_NOBODY,
	LINT_NAMED_NOBODY,
	LINT_NAMED_SOME,
	LINT_SELECTOR_CONTRADICTS,
	LINT_NO_SUCH_PACKET,
	LINT_CONTAINS,
	LINT_ANY_TO_ANY,
};

struct lint_note {
	enum lint_kind kind;
	enum lint_detail detail;
	bool warning;
	struct lint_place at;
	struct lint_place because[LINT_BECAUSE];
	unsigned n_because;
	uint32_t more;
	const char *about, *what;
	size_t policy_order;
};

/* All rules that are judged in one order: of HostPolicies or of policies for ports, in one direction. */
struct lint {
	const struct object_list *objects;
	const struct host *host; /* NULL: none */
	enum hd_direction direction;
	VEC(struct object *) policies; /* in the order in which they are judged */
	VEC(struct object *) groups;   /* by name */
	VEC(struct object *) ports, peers, namespaces, hosts;
	VEC(struct lint_rule) rules;
	VEC(struct lint_piece) pieces;
	struct lint_relation selectors, scopes;
	VEC(struct lint_note) notes;
	size_t policy_order; /* of the policy being looked at */
};

static inline struct lint_place lint_place_of(const struct lint *lint, const struct lint_rule *rule)
{
	return (struct lint_place){.policy = rule->policy,
		.direction = (int)lint->direction,
		.index = rule->index,
		.name = rule->name,
		.line = rule->line};
}
int lint_note_rule(struct lint *lint, const struct lint_rule *rule, enum lint_kind kind, enum lint_detail detail, bool warning,
	const char *about, const char *what);
int lint_note_policy(struct lint *lint, const struct object *policy, int direction, enum lint_kind kind, enum lint_detail detail,
	bool warning, const char *about, const char *what);

int lint_hosts(struct lint *lint);     /* lint_host.c: the rules of HostPolicies, and how their peers contain each other */
int lint_workloads(struct lint *lint); /* lint_labels.c: of policies for ports */
int lint_covered(struct lint *lint);   /* lint_cover.c: which rules others leave nothing of */

#endif
