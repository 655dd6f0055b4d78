/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects to tables: pure functions without I/O. A compiler keeps what it has handed out (ids of nodes, classes, rules) so
 * that the next compilation is a small difference; it never touches the kernel.
 *
 * One round: compiler_compile() → the caller writes every piece of the delta → publishes → compiler_commit(); after a grace
 * period (no packet can still read the old generation) the caller calls compiler_settle(), which makes the old ids usable
 * again. On any failure before publishing: compiler_abort(), and the old policy stays in force; the next delta repairs whatever the
 * aborted one may have written. A round that cannot be settled may be followed by the next one: what it retired waits for a later settling.
 *
 * Policies for ports are in the trees of the networks that have ports, or where Peers have something, HostPolicies in the host's own (network 0). See expand.h for what
 * the former mean.
 *
 * Meaning of the documents where they leave it open: in lockdown ingress is denied by HD_RULE_LOCKDOWN and egress allowed. A rule
 * with peers never matches frames that are not IP. Ports have the built-in rules but link control, and no failsafe. 0.0.0.0/0 is all of IPv4 and nothing of IPv6. Of a rule's peers each item is
 * taken without its own exceptions, then all items together.
 */
#ifndef HEDDLE_POLICY_COMPILE_H
#define HEDDLE_POLICY_COMPILE_H

#include <heddle/policy.h>
#include <heddle/port.h>
#include <model/decode.h>
#include <model/object.h>
#include <policy/numbers.h>

/* How many of each the maps hold. */
struct compiler_limits {
	uint32_t addr4_nodes, addr6_nodes, classes, rule_nodes, rules;
};

struct policy_input {
	const struct host *host;	   /* uplinks and failsafe; never NULL */
	const struct object_list *objects; /* policies of all kinds and what they are about */
	const struct networks *networks;   /* has numbers for the networks of the objects; NULL: there are none */
	bool lockdown;			   /* no valid policy: only failsafe and built-in rules; no ports, no networks */
};

struct addr4_node_write {
	uint32_t id;
	struct hd_addr4_node node;
};
struct addr6_node_write {
	uint32_t id;
	struct hd_addr6_node node;
};
/* Takes the place of the entry that is not in force. */
struct class_write {
	uint32_t id;
	struct hd_class_rules rules;
};
struct rule_node_write {
	uint32_t id;
	struct hd_rule_node node;
};
struct rule_write {
	uint32_t id;
	bool reset; /* a new rule under a used id: its counters begin at 0 */
	struct hd_rule_info info;
};
struct uplink_policy {
	const char *device; /* of the host object */
	struct hd_port_policy policy;
};
/* Of every Port. Whoever has its device writes the policy when it changed, and when the device comes. */
struct port_policy {
	const struct object *port;
	uint16_t network;
	bool changed;
	struct hd_port_policy policy;
};
/* Of every Network. Of the host's own network the roots are the delta's. */
struct network_roots {
	const struct object *network;
	uint16_t index;
	bool changed; /* new, or other roots: networks[index].roots is to be written */
	struct hd_roots roots;
};

/* Everything that turns the previous generation into the next. Owned by the compiler until the round ends. */
struct policy_delta {
	uint32_t generation;
	struct hd_roots roots;
	struct addr4_node_write *addr4_nodes;
	struct addr6_node_write *addr6_nodes;
	struct class_write *classes;
	struct rule_node_write *rule_nodes;
	struct rule_write *rules;
	struct uplink_policy *uplinks;
	struct port_policy *ports;	/* by (namespace, name) */
	struct network_roots *networks; /* by name */
	size_t n_addr4_nodes, n_addr6_nodes, n_classes, n_rule_nodes, n_rules, n_uplinks, n_ports, n_networks;
};

struct compiler;

/* first_generation: the generation of the first compilation (the last one in force before, plus 1). -ENOMEM. */
int compiler_new(const struct compiler_limits *limits, uint32_t first_generation, struct compiler **ret);
void compiler_free(struct compiler *compiler);

/* Before the first compilation: the rule ids that an earlier agent handed out (id, key of hd_rule_info), so counters live on. */
int compiler_adopt_rule(struct compiler *compiler, uint32_t id, uint64_t key);

/*
 * The input is not kept, but the policies, groups, ports, peers, namespaces and networks in it are (by reference) until they are replaced and the round committed.
 *
 * 0; -ENOSPC: a limit is too small, `needed` says what would do (counting that old and new are there at once): make a new compiler with bigger maps;
 * -E2BIG: beyond what any size could hold, diag says why; -EINVAL with diag; -ENOMEM.
 */
int compiler_compile(struct compiler *compiler, const struct policy_input *input, struct policy_delta **delta,
	struct compiler_limits *needed, struct diag *diag);
void compiler_commit(struct compiler *compiler);
void compiler_abort(struct compiler *compiler);
void compiler_settle(struct compiler *compiler);

/* The policy of a Port in the generation compiled last. -ENOENT */
int compiler_port(const struct compiler *compiler, const char *namespace_, const char *name, struct port_policy *ret);

/* What a rule id means now. Strings live until the next commit. */
struct rule_reference {
	enum object_kind kind;	/* of the policy; built-in: OBJECT_KIND_COUNT */
	const char *namespace_; /* NULL: of no namespace */
	const char *policy;	/* built-in: "builtin" */
	const char *name;	/* NULL: none */
	const char *file;	/* NULL: applied or built in */
	uint32_t line;
	uint32_t index;
	uint8_t direction;
	uint8_t verdict; /* enum hd_verdict */
	bool pass;	 /* verdict is HD_ALLOW, but the tiers after the rule's decide */
	bool audit;	 /* what it would drop is let through */
	bool builtin;
};
int compiler_rule(const struct compiler *compiler, uint32_t id, struct rule_reference *ret); /* -ENOENT */
uint32_t compiler_rule_limit(const struct compiler *compiler);				     /* ids in use are below */

#endif
