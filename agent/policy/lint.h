/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is odd about policies: rules that decide nothing, and rules that allow more than their author may have meant. Pure, and no judgement
 * of any packet.
 *
 * What is looked for, and what is not: a rule is found to be shadowed when each range of its ports is covered by one range of one earlier
 * rule, for all of its peers and wherever it applies; one that only several rules together cover for a part of its peers, or several ranges
 * side by side, is not. Source ports count as covered by none at all or by the very same. Among lists of peers, of labels and of uplinks
 * that contain another, so many of the earliest are looked at (LINT_CONTAINERS). Label selectors are compared as written, not by the ports
 * there happen to be.
 */
#ifndef HEDDLE_POLICY_LINT_H
#define HEDDLE_POLICY_LINT_H

#include <model/object.h>

#define LINT_CONTAINERS 64

/* X(SYMBOL, "name", "what it means") */
#define LINT_KINDS(X) \
	X(SHADOWED, "shadowed", "earlier rules of the same set decide all that it matches") \
	X(UNREACHABLE, "unreachable", "it applies to nothing that there is: no uplink, no port, no address") \
	X(NEVER, "never-matching", \
		"no packet can match it: what it asks for contradicts itself, or a named port that nobody has") \
	X(WIDER, "wider", "an allow that contains later, more specific rules, which therefore decide nothing") \
	X(BROAD, "over-broad", "it allows everything from or to everywhere")
#define LINT_KIND_ENUM(sym, name, text) LINT_##sym,
enum lint_kind { LINT_KINDS(LINT_KIND_ENUM) LINT_KIND_COUNT };
#undef LINT_KIND_ENUM

struct lint_place {
	const struct object *policy; /* NULL: built in */
	int direction;		     /* enum hd_direction; -1: both */
	int64_t index;		     /* of the rule; -1: the policy as a whole */
	const char *name;	     /* of the rule; NULL: none */
	uint32_t line;
};

#define LINT_BECAUSE 4
struct lint_finding {
	enum lint_kind kind;
	bool warning; /* it does something else than it says; else it could be left out, or may be meant */
	struct lint_place at;
	struct lint_place because[LINT_BECAUSE]; /* the rules that are the cause */
	unsigned n_because;
	uint32_t more;		  /* of these, not listed */
	const char *about, *what; /* what else is: "uplink", "peers", "port", "selector" and its name; NULL: nothing */
	const char *message;
};

/* Strings live as long as the call. Non-zero ends it and is returned. */
typedef int (*lint_cb)(const struct lint_finding *finding, void *userdata);

/* In the order of the policies and their rules. objects: sorted, and valid together. 0; -ENOMEM; what the callback returned. */
int lint_policies(const struct object_list *objects, lint_cb cb, void *userdata);

#endif
