/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All objects: those of files, those applied, the ports of the CNI plugin, and what a cluster comes to beside them, as one. A change is a proposal first: what the whole would be, checked, and how
 * it differs from what is in force. Nothing is changed until store_commit(), which cannot fail.
 */
#ifndef HEDDLE_SOURCE_STORE_H
#define HEDDLE_SOURCE_STORE_H

#include <model/decode.h>
#include <model/object.h>

/* Objects that follow from the others: they are asked for in each proposal. */
struct store_deriver {
	/* base: the files', applied and CNI plugin's objects, sorted. An object of ret takes the place of one of base with the same name. */
	int (*derive)(void *userdata, const struct object_list *base, const struct object_list *cni, struct object_list *ret);
	/* One of them would make the whole invalid: it is left out, and the others go on. */
	void (*refuse)(void *userdata, const struct object *object, const char *why);
	void *userdata;
};

struct store {
	struct object_list files, applied, cni; /* sorted */
	struct object_list before;		/* applied before the unconfirmed apply */
	bool pending;				/* an unconfirmed apply is among applied; `before` counts */
	const struct store_deriver *deriver;	/* NULL: none; stays over a commit */
	struct object_list derived;		/* sorted */
	struct object_list all;			/* all of them, sorted: what is in force */
};
void store_clear(struct store *store);
#define _cleanup_store_ __attribute__((cleanup(store_clear)))

enum store_change_kind { STORE_CREATED, STORE_CHANGED, STORE_REMOVED, STORE_UNCHANGED };
const char *store_change_name(enum store_change_kind kind); /* "created", "configured", "deleted", "unchanged" */

struct store_change {
	enum store_change_kind kind;
	struct object *before, *after; /* borrowed from the store and from the proposal; NULL: was not, will not be there */
};

struct store_proposal {
	struct store next;
	struct store_change *changes; /* by (kind, namespace, name); what a file change leaves alone is left out */
	size_t n_changes;
	bool different; /* something is not STORE_UNCHANGED, or moved (new line numbers) */
};
void store_proposal_clear(struct store_proposal *proposal);
#define _cleanup_store_proposal_ __attribute__((cleanup(store_proposal_clear)))

/*
 * Each makes a proposal, or says in diag why not (-EINVAL): an object of a file and an applied one with the same name, and all
 * of model_validate(). *ret is untouched on failure.
 */

/* The files' objects are these now. While an apply waits for confirmation, also the state after its rollback must be valid. */
int store_propose_files(
	const struct store *store, const struct object_list *files, struct store_proposal *ret, struct diag *diag);
/* These objects are applied. -EPERM: one is owned by a file, -EACCES: by the CNI plugin, or derived; -EBUSY: an apply waits for its confirmation. */
int store_propose_apply(const struct store *store, const struct object_list *objects, bool pending, struct store_proposal *ret,
	struct diag *diag);
/* -ENOENT: there is no such object; -EPERM, -EACCES, -EBUSY. */
int store_propose_delete(const struct store *store, enum object_kind kind, const char *namespace_, const char *name,
	struct store_proposal *ret, struct diag *diag);
/* The applied objects are these now: at start (applied_objects(), applied_before()). before may be NULL. */
int store_propose_applied(const struct store *store, const struct object_list *applied, const struct object_list *before,
	struct store_proposal *ret, struct diag *diag);
/* What is derived is to be derived again. */
int store_propose_derived(const struct store *store, struct store_proposal *ret, struct diag *diag);
/* The CNI plugin's ports are these now, whether an apply waits or not: they must be valid with it and without it. */
int store_propose_cni(const struct store *store, const struct object_list *cni, struct store_proposal *ret, struct diag *diag);
int store_propose_confirm(const struct store *store, struct store_proposal *ret, struct diag *diag);  /* -ENOENT: nothing waits */
int store_propose_rollback(const struct store *store, struct store_proposal *ret, struct diag *diag); /* -ENOENT */

/* Takes the proposal over and leaves it empty. */
void store_commit(struct store *store, struct store_proposal *proposal);

#endif
