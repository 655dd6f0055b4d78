/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the tests of the policy compiler: documents from text, the tables as the maps would hold them after each delta, and a judge
 * that knows nothing of tables and goes by the words of the documents.
 */
#ifndef HEDDLE_TESTS_POLICY_ENV_H
#define HEDDLE_TESTS_POLICY_ENV_H

#include <heddle/network.h>
#include <policy/compile.h>
#include <policy/lookup.h>

/* A Port as its record would be, and a network as its entry. Slots are those of two generations. */
struct policy_env_port {
	char namespace_[64], name[64];
	uint16_t network;
	struct hd_port_policy policy[2];
};
struct policy_env_network {
	char name[64];
	uint16_t index;
	struct hd_roots roots[2];
};

struct policy_env {
	struct compiler *compiler;
	struct networks *numbers;
	struct compiler_limits limits;
	/* the maps */
	struct hd_addr4_node *addr4_nodes;
	struct hd_addr4_table *addr4_tables;
	struct hd_addr6_node *addr6_nodes;
	struct hd_class *classes;
	struct hd_rule_node *rule_nodes;
	struct hd_rule_info *rules;
	struct hd_roots roots[2];
	uint32_t generation;
	struct uplink_policy *uplinks; /* of the published generation; device names are copies */
	size_t n_uplinks;
	struct policy_env_port *ports;
	struct policy_env_network *networks;
	size_t n_ports, n_networks;
	struct policy_delta *delta; /* of the open round */
	struct diag diag;
};

void policy_env_open(struct policy_env *env, const struct compiler_limits *limits, uint32_t first_generation);
void policy_env_close(struct policy_env *env);

/* Adds the documents of text to list; fails the test when they are wrong. */
void policy_documents(struct object_list *list, const char *text);
const struct host *policy_env_host(const struct object_list *list);

/* One round up to each point. compile: what compiler_compile() returned. */
int policy_env_compile(struct policy_env *env, const struct object_list *list, bool lockdown);
void policy_env_write(struct policy_env *env);	 /* as datapath_write(): not visible yet */
void policy_env_publish(struct policy_env *env); /* and commit */
void policy_env_settle(struct policy_env *env);
void policy_env_apply(
	struct policy_env *env, const struct object_list *list); /* all of it; fails the test when compiling fails */

const struct hd_port_policy *policy_env_port(const struct policy_env *env, const char *device);
/* What the tables say in a generation (the live one or the one before). policy: the port's record then. */
void policy_env_lookup(const struct policy_env *env, uint32_t generation, const struct hd_port_policy *policy,
	enum hd_direction direction, const struct lookup_packet *packet, struct lookup_result *ret);
/* The same for a Port, with a peer in a network (NULL: the port's own). */
void policy_env_port_lookup(const struct policy_env *env, uint32_t generation, const struct object *port,
	enum hd_direction direction, const char *network, const struct lookup_packet *packet, struct lookup_result *ret);

/* What the documents say. */
struct policy_answer {
	const struct object *policy; /* NULL: built in */
	uint32_t rule;		     /* index, or the id of a built-in rule */
	uint8_t verdict;
	bool log, audit;
	const struct object *pass; /* the policy that passed the question on, by its rule pass_rule; NULL: none */
	uint32_t pass_rule;
};
struct policy_answer policy_judge(const struct object_list *list, bool lockdown, const char *device, enum hd_direction direction,
	const struct lookup_packet *packet);

/* The same for a Port: with a peer in a network (NULL: the port's own). */
struct policy_answer policy_judge_port(const struct object_list *list, const struct object *port, enum hd_direction direction,
	const char *network, const struct lookup_packet *packet);
/* What is always let through: HD_RULE_NONE when nothing of that applies. */
uint32_t policy_judge_builtin(const struct host *host, enum hd_direction direction, const struct lookup_packet *packet);
bool policy_judge_in_prefix(const struct hd_addr *addr, const struct prefix *prefix);
bool policy_judge_in_range(const struct port_range *range, const struct lookup_packet *packet);

/* Both agree: NULL. Else what does not, in words, in a static buffer. */
const char *policy_env_differs(const struct policy_env *env, const struct policy_answer *answer, enum hd_direction direction,
	const struct lookup_result *result);

#endif
