/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Takes the members out of {"items": [...]} as the text comes in, one after the other: a full flow table is some 100 MB of
 * text, and as one tree ten times that.
 */
#ifndef HEDDLE_CLI_SPLIT_H
#define HEDDLE_CLI_SPLIT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct splitter {
	char *data; /* the member that is being collected */
	size_t length, size;
	unsigned long depth; /* of brackets */
	char key[8];	     /* the last string of the outermost object, as far as it matters */
	size_t key_length;
	bool in_string, escaped, in_items, collecting, whole;
};

#define SPLIT_MEMBER_MAX ((size_t)1 << 20)

/* Borrowed; non-zero ends it and is returned by splitter_feed(). */
typedef int (*split_member)(json_t *member, void *userdata);

/* 0, what a member's callback returned, -EINVAL not JSON, -E2BIG, -ENOMEM. Begin with a zeroed splitter. */
int splitter_feed(struct splitter *splitter, const char *text, size_t length, split_member member, void *userdata);
/* The outermost value has come to its end. */
bool splitter_whole(const struct splitter *splitter);
void splitter_clear(struct splitter *splitter);

#endif
