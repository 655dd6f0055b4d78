/* SPDX-License-Identifier: Apache-2.0 */
/* Names and the numbers that they keep. Private to numbers.c and numbered.c. */
#ifndef HEDDLE_POLICY_NUMBERED_H
#define HEDDLE_POLICY_NUMBERED_H

#include <policy/internal.h>
#include <policy/numbers.h>

struct numbered {
	char key[NETWORK_KEY_MAX];
	char *name; /* whole; owned */
	uint16_t index;
};

struct numbered_list {
	VEC(struct numbered) names; /* by key */
	uint16_t last;		    /* the number that was handed out last */
};

void numbered_clear(struct numbered_list *list);
const struct numbered *numbered_find(const struct numbered_list *list, const char *key);
const char *numbered_name(const struct numbered_list *list, uint16_t index); /* NULL: nobody's */
/* What an earlier agent handed out: one of 1..end-1, and a name that fills its room or ends in it. What is taken already is left out. */
int numbered_adopt(struct numbered_list *list, uint32_t index, const char name[NETWORK_KEY_MAX], uint32_t end);

/*
 * Numbers of 1..end-1 for the objects of a kind, which are called by `what` in messages. Those that have one in `now` keep it, and nobody else
 * gets it: next is empty. -ENOMEM; -E2BIG with diag.
 */
struct numbered_kind {
	enum object_kind kind;
	const char *what;
	uint32_t end;
};
int numbered_assign(const struct numbered_list *now, struct numbered_list *next, const struct object_list *all,
	const struct numbered_kind *kind, struct diag *diag);

/* The next number of first..first+n-1 after `last` that is not taken (a bit for each); 0: all are. */
uint16_t number_next(const uint8_t *taken, uint16_t last, uint32_t first, uint32_t n);
void number_take(uint8_t *taken, uint16_t number);

#endif
