/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which number an identity has: a set of labels, as selectors see it (of the namespace, of the port, and its named ports). Ports that are alike share it.
 * It stays with the set for as long as a port has that, over restarts too, and is given back to it when it returns: one that came free goes
 * to nobody else before all others have had their turn. Pure: who remembers it keeps a file.
 */
#ifndef HEDDLE_POLICY_IDENTITIES_H
#define HEDDLE_POLICY_IDENTITIES_H

#include <stdbool.h>
#include <stdint.h>

#include <model/decode.h>
#include <model/object.h>

#define IDENTITY_MAX 0xffffffu	 /* 1 is the first */
#define IDENTITIES_RELEASED 4096 /* so many that nobody has are remembered */

struct identity_key {
	uint64_t hash[2];
};

struct identities;

int identities_new(struct identities **ret); /* -ENOMEM */
void identities_free(struct identities *identities);

/*
 * Before the first assignment, what is remembered: in the order in which identities_each() tells it, and which number was given last.
 * -ENOMEM; -EINVAL: no such number, or given twice.
 */
int identities_adopt(struct identities *identities, const struct identity_key *key, uint32_t number);
int identities_adopt_last(struct identities *identities, uint32_t last);

/* A number for every port of the list. Questions are answered for it from now on, and after an abort for the one before. -ENOMEM; -E2BIG. */
int identities_assign(struct identities *identities, const struct object_list *all, struct diag *diag);
bool identities_commit(struct identities *identities); /* true: what is to be remembered changed */
void identities_abort(struct identities *identities);

uint32_t identities_number(const struct identities *identities, const struct object *port); /* 0: not among those of the list */

/* All that is to be remembered. Non-zero ends the walk. */
typedef int (*identities_cb)(const struct identity_key *key, uint32_t number, void *userdata);
int identities_each(const struct identities *identities, identities_cb cb, void *userdata);
uint32_t identities_last(const struct identities *identities);

#endif
