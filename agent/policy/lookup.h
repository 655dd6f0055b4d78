/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The walk through the policy tables as the data plane does it, over copies of the tables in memory: for tests and for tools that read
 * maps. Live packets are explained by the loaded programs, not by this.
 */
#ifndef HEDDLE_POLICY_LOOKUP_H
#define HEDDLE_POLICY_LOOKUP_H

#include <stdbool.h>
#include <stdint.h>

#include <heddle/policy.h>
#include <heddle/port.h>
#include <heddle/search.h>

/* Contents of the maps. */
struct lookup_tables {
	const struct hd_addr4_node *addr4_nodes;
	const struct hd_addr4_table *addr4_tables;
	const struct hd_addr6_node *addr6_nodes;
	const struct hd_class *classes;
	const struct hd_rule_node *rule_nodes;
	uint32_t n_addr4_nodes, n_addr4_tables, n_addr6_nodes, n_classes, n_rule_nodes;
};

struct lookup_packet {
	struct hd_addr peer; /* source on ingress, destination on egress */
	bool ip;	     /* false: peer does not count, kind is HD_L4_ETHERTYPE */
	uint8_t kind;	     /* enum hd_l4_kind */
	uint16_t number;     /* as its kind says, host byte order */
	uint16_t source_port;
};

struct lookup_result {
	uint32_t leaf; /* the one that decides: HD_LEAF() */
	uint32_t order;
	uint32_t class_id, class_root, class_leaf, any_leaf; /* of the set that decided */
	uint32_t pass_leaf;				     /* the one that passed the question on to the pass set; 0: none */
};

/* What the policy in force in the generation says. roots: of the peer's network. */
int lookup_packet(const struct lookup_tables *tables, uint32_t generation, const struct hd_roots *roots,
	const struct hd_port_policy *policy, enum hd_direction direction, const struct lookup_packet *packet,
	struct lookup_result *ret);

#endif
