/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is who by labels. Workloads (Ports, and the ports of Peers) that no selector can tell apart share an identity: the labels of their
 * namespace, their own, and their named ports. A label group is a list of selectors as policies have them, and knows of every identity whether it covers it: a bit,
 * worked out once. Both are found by content, so that a change of one port's labels costs one identity, and equal lists are one group.
 */
#ifndef HEDDLE_POLICY_LABELS_H
#define HEDDLE_POLICY_LABELS_H

#include <model/object.h>

struct labels;
int labels_new(struct labels **ret); /* -ENOMEM */
void labels_free(struct labels *labels);

#define LABEL_NAMESPACE_NAME "kubernetes.io/metadata.name" /* every namespace has it, with its name, whatever its document says */

/* A workload as selectors see it. */
struct workload {
	const char *namespace_;
	const struct label *labels; /* in the order of their keys */
	const struct named_port *ports;
	size_t n_labels, n_ports;
};
struct workload workload_of_port(const struct object *port);
struct workload workload_of_peer(const struct peer_port *port);

struct identity {
	uint32_t number;	   /* below labels_identities(); given again once nobody has it: not the one that people see */
	bool used;		   /* some workload has it */
	struct workload workload;  /* a copy: who had it first may have changed, and a Peer is too much to keep for it */
	struct object *namespace_; /* a reference; NULL: there is no document */
	const struct label *space; /* the namespace's labels with the one every namespace has */
	size_t n_space;
};

/* What tells the identity of a workload from all others, over restarts too. namespace_ as below. */
void labels_key(const struct workload *workload, const struct object *namespace_, uint64_t ret[2]);
/* The identity of a workload. namespace_: its Namespace, NULL when there is no document. NULL: no memory. */
struct identity *labels_identity(struct labels *labels, const struct workload *workload, struct object *namespace_);
/* Forgets the identities that are not used, and sets the others back to that. */
void labels_sweep(struct labels *labels);
uint32_t labels_identities(const struct labels *labels);			 /* numbers are below */
struct identity *labels_by_number(const struct labels *labels, uint32_t number); /* NULL: nobody's */

/* What a group asks for besides selectors: a port of this name with this protocol and number. */
struct named_match {
	const char *name; /* NULL: nothing is asked for */
	uint16_t port;
	uint8_t protocol;
};

/*
 * What names of ports stand for among the identities that are used, as of the last labels_named_update(): in the order of name, protocol and
 * number. The version changes with the list.
 */
int labels_named_update(struct labels *labels); /* -ENOMEM */
const struct named_match *labels_named(const struct labels *labels, const char *name, size_t *ret_n);
uint64_t labels_named_version(const struct labels *labels);

struct label_group {
	unsigned refs;
	uint64_t *bits; /* by identity number */
	/* What it was made of, in the object it came from (a reference). */
	struct object *origin;
	const struct policy_peer *peers;
	size_t n_peers;
	struct policy_peer subject; /* where peers is that of a policy's subject */
	struct named_match named;
	bool blocks;	  /* asks for addresses too: label_group_has() */
	const char *text; /* the content, the same for equal groups and no others */
};

/*
 * The group of the peers of a policy's rule; only pods count, and blocks where a named port is asked for. Returns a reference. NULL: no
 * memory. peers NULL: the policy's subject.
 */
struct label_group *label_group_get(struct labels *labels, struct object *policy, const struct policy_peer *peers, size_t n_peers,
	const struct named_match *named);
void label_group_unref(struct labels *labels, struct label_group *group);
struct label_group *label_group_find(const struct labels *labels, const char *text); /* no reference; NULL: none */

static inline bool label_group_covers(const struct label_group *group, const struct identity *identity)
{
	return group->bits[identity->number / 64] >> identity->number % 64 & 1;
}
uint32_t label_group_size(const struct labels *labels, const struct label_group *group); /* identities that it covers */
/* The same for an address of the identity. */
bool label_group_has(const struct label_group *group, const struct identity *identity, const struct hd_addr *addr);

#endif
