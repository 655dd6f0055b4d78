/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Policies for ports (NetworkPolicy and the cluster-wide kinds) in the words of the compiler: an ordered list of plain rules whose peers
 * are address blocks or one label group, and a label group for the subjects. One rule of the document may become several here, next to
 * each other and with the same verdict, so that it does not matter which of them is found.
 *
 * Meaning of the documents where they leave it open: selectors look in all networks, and at the ports of Peers as well. Subjects are ports here:
 * those of Peers are subject to their own host's policy. A named port is looked up at the destination: at the
 * subject on ingress; on egress at each peer, also where an ipBlock names it; outside the cluster there are none. `nodes` peers are the
 * addresses of hosts, this one among them. A rule in audit mode decides as any other, but what it would drop passes, whatever comes after it.
 */
#ifndef HEDDLE_POLICY_EXPAND_H
#define HEDDLE_POLICY_EXPAND_H

#include <policy/hosts.h>
#include <policy/labels.h>

enum policy_tier {
	TIER_HOST,     /* HostPolicy; no other is in a set with it */
	TIER_ADMIN,    /* AdminNetworkPolicy, ClusterNetworkPolicy */
	TIER_NETWORK,  /* NetworkPolicy */
	TIER_BASELINE, /* BaselineAdminNetworkPolicy, ClusterNetworkPolicy; not where a NetworkPolicy isolates */
};
enum policy_tier policy_tier(const struct object *policy);
static inline bool policy_for_ports(const struct object *object)
{
	return object->kind >= OBJECT_NETWORK_POLICY && object->kind <= OBJECT_CLUSTER_NETWORK_POLICY;
}
/* -1, 0, 1: the order in which policies are judged. 0: the same policy. Also of HostPolicies. */
int policy_compare(const struct object *a, const struct object *b);
/* A hash of what a rule says, the same in every version of the agent. */
uint64_t policy_rule_hash(uint64_t hash, const struct policy_rule *rule);

/* struct rule.verdict of a rule that leaves the decision to the tiers after its own. */
#define RULE_PASS HD_DROP

struct expanded_rule {
	struct rule rule;		    /* a peer with a group names a label group, and is the only one then */
	uint32_t source;		    /* index in the document */
	const struct label_group *subjects; /* of the subjects, only these; NULL: all */
};

struct expanded {
	unsigned refs;
	bool named; /* has named ports: good for the list of them with this version only */
	uint64_t named_version;
	bool nodes; /* has nodes peers: good for hosts of this version only */
	uint64_t hosts_version;
	bool audit;
	bool applies[HD_DIRECTIONS], passes[HD_DIRECTIONS]; /* passes: some rule does */
	enum policy_tier tier;
	struct label_group *subject;
	struct expanded_rule *rules[HD_DIRECTIONS];
	uint32_t n_rules[HD_DIRECTIONS];
	struct labels *labels;
	struct label_group **groups; /* references */
	size_t n_groups;
	struct arena *arena;
};

/* Named ports stand for what labels_named() has. A reference. -ENOMEM, -E2BIG. */
int expand_policy(struct labels *labels, struct policy_hosts *hosts, struct object *policy, struct expanded **ret);
struct expanded *expanded_ref(struct expanded *expanded);
void expanded_unref(struct expanded *expanded); /* NULL is fine */

#endif
