/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoding by tables: a schema lists the fields of a mapping, each with the function that reads its value and what that
 * function needs to know. Everything that any mapping has in common is done here once: unknown and repeated fields, required
 * ones, the path and line of a mistake, what was expected and what was there.
 */
#ifndef HEDDLE_MODEL_SCHEMA_H
#define HEDDLE_MODEL_SCHEMA_H

#include <model/node.h>
#include <model/object.h>
#include <util/arena.h>

/* Where a value stands, from the inside out; made on the stack while decoding and only written out for a mistake. */
struct path {
	const struct path *up; /* NULL: the document */
	const char *key;       /* NULL: index counts */
	uint32_t index;
};

struct interned;

struct decoder {
	const char *file;
	struct diag *diag;
	struct tree *tree;
	struct arena *arena; /* where values go: one of these two */
	struct arena *object_arena, *rules_arena;
	struct interned *interned; /* what the rules' arena holds already and can be shared; goes with the decoder */
	uint32_t n_interned, interned_size;
	uint32_t line; /* of the mapping whose missing field is looked at */
	bool no_memory;
};

/*
 * Reads a value into *out. node NODE_NONE: a required field is missing; say what was wanted. False: a mistake was added (or there
 * is no memory), *out does not matter.
 */
typedef bool (*value_decode)(struct decoder *d, const struct path *path, node_id node, const void *type, void *out);

struct field {
	const char *name;
	value_decode decode;
	const void *type;
	uint16_t offset;
	bool required;
};

struct schema {
	const char *what; /* "a rule" */
	const struct field *fields;
	uint8_t n_fields;     /* at most 32 */
	uint16_t draft_size;  /* of what the fields' offsets mean; at most SCHEMA_DRAFT_MAX */
	const void *defaults; /* draft_size bytes to begin with; NULL: zeros */
	/* Checks across fields and turns the draft into what *out holds; NULL: the draft is that. Called only when all fields are
	 * right. */
	bool (*finish)(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out);
	/* As Kubernetes reads its documents. A field that is null is not there; fields of these names, ended by NULL, mean nothing
	 * here and are read over. */
	bool null_is_absent;
	const char *const *ignored;
};
#define SCHEMA_DRAFT_MAX 320
#define SCHEMA_FIELDS(array) .fields = (array), .n_fields = ARRAY_SIZE(array)

struct range {
	uint64_t min, max;
	uint8_t size;	  /* of *out: 1, 2, 4, 8 */
	const char *unit; /* "" or " seconds" */
};

/* Names of the values 0, 1, …, ended by NULL; *out is an int. */
struct choice {
	const char *const *names;
};

/* What field_list() fills. Structs of the model with a pointer and a size_t behind it have the same layout. */
struct list {
	void *items;
	size_t n;
};
struct list_type {
	const char *what; /* "peers" */
	value_decode item;
	const void *item_type;
	uint16_t item_size;
	bool may_be_empty;
	bool required; /* leaving the field out does not mean any */
	bool shared;   /* equal lists of one object are kept once */
	uint32_t most; /* items */
};

struct text_type {
	const char *what; /* "a name of at most 253 …" */
	bool (*valid)(const char *text, size_t length);
};

bool value_bool(struct decoder *d, const struct path *path, node_id node, const void *type, void *out);	    /* bool */
bool value_uint(struct decoder *d, const struct path *path, node_id node, const void *type, void *out);	    /* struct range */
bool value_choice(struct decoder *d, const struct path *path, node_id node, const void *type, void *out);   /* struct choice */
bool value_duration(struct decoder *d, const struct path *path, node_id node, const void *type, void *out); /* struct range, ms */
bool value_text(struct decoder *d, const struct path *path, node_id node, const void *type, void *out);	    /* struct text_type */
bool value_list(struct decoder *d, const struct path *path, node_id node, const void *type, void *out);	    /* struct list_type */
bool value_mapping(struct decoder *d, const struct path *path, node_id node, const void *type, void *out);  /* struct schema */

/* Adds `LINE: PATH: want FORMAT, got NODE`. Always false. */
bool want(struct decoder *d, const struct path *path, node_id node, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
/* The same with the words for what is there given: `want …, got …` is format. */
bool mistake(struct decoder *d, const struct path *path, uint32_t line, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
bool decoder_no_memory(struct decoder *d); /* false */

/* The value of a mapping's field, for mistakes found by finish(); NODE_NONE: not there. */
node_id node_field(const struct decoder *d, node_id mapping, const char *name);
/* The value as an unsigned decimal number; false when it is anything else (signs, other bases, leading zeros, quotes). */
bool node_number(const struct decoder *d, node_id node, uint64_t *ret);
/* A scalar that is text and not a number, true, false or null without quotes. */
bool node_is_text(const struct decoder *d, node_id node);

/* A copy in the object's arena, or one that is there already with the same bytes. NULL: no memory. */
const void *decoder_intern(struct decoder *d, const void *data, size_t size, size_t align);
void decoder_clear(struct decoder *d); /* what is only for decoding: the arena stays */

#endif
