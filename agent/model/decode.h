/* SPDX-License-Identifier: Apache-2.0 */
/* Text (YAML, or JSON, which libyaml reads as well) to objects: the one decoder of files, the API and the state directory. */
#ifndef HEDDLE_MODEL_DECODE_H
#define HEDDLE_MODEL_DECODE_H

#include <model/object.h>

/* Messages for people, one mistake a line: `FILE:LINE: PATH: want …, got …`. All mistakes of an input are collected (at most
 * 100). */
struct diag {
	char *text; /* NULL: none; owned */
	size_t length;
	unsigned errors;
};
void diag_clear(struct diag *diag);
/* path may be NULL. line 0: none known. */
void diag_add(struct diag *diag, const char *file, uint32_t line, const char *path, const char *format, ...)
	__attribute__((format(printf, 5, 6)));

/*
 * Decodes every document of text. `file` is named in messages and kept as the objects' origin; NULL for the API.
 * 0, or -EINVAL with the mistakes in diag and nothing added to list; -ENOMEM.
 */
int decode_documents(const char *file, const char *text, size_t length, struct object_list *list, struct diag *diag);

/* Checks that need all objects together: references, duplicate names, more than one Host, uplinks declared, networks and ports
 * that would be in each other's way. -EINVAL with diag; -ENOMEM. */
int model_validate(const struct object_list *all, struct diag *diag);
/* The same, and sooner where most is as it was in `valid`: sorted objects in which it found nothing wrong. */
int model_validate_change(const struct object_list *all, const struct object_list *valid, struct diag *diag);

/* Limits of one input. Those who take text from outside allow less: what they took must be readable again once it was encoded. */
#define DECODE_BYTES_MAX ((size_t)256 << 20)
#define DECODE_BYTES_OUTSIDE ((size_t)64 << 20)
#define DECODE_DEPTH_MAX 32

#define _cleanup_diag_ __attribute__((cleanup(diag_clear)))

/*
 * The object as one line of JSON, apiVersion, kind and metadata included, defaults filled in. Decoding it gives an equal
 * object. `out->failed`: no memory.
 */
struct buffer;
void encode_text(const struct object *object, struct buffer *out);

/* The object as it would be written by hand, apiVersion, kind and metadata included; defaults filled in. New reference; NULL: no
 * memory. */
struct json_t;
struct json_t *encode_object(const struct object *object);

#endif
