/* SPDX-License-Identifier: Apache-2.0 */
/* JSON text, piece by piece: a comma is put where one is due. */
#ifndef HEDDLE_MODEL_WRITE_H
#define HEDDLE_MODEL_WRITE_H

#include <model/object.h>
#include <util/buffer.h>

void write_comma(struct buffer *out);
void write_string(struct buffer *out, const char *text);
void write_key(struct buffer *out, const char *name);
/* Fields. */
void write_text(struct buffer *out, const char *name, const char *text);
void write_number(struct buffer *out, const char *name, uint64_t number);
void write_bool(struct buffer *out, const char *name, bool value);
void write_open(struct buffer *out, const char *name, char bracket); /* whoever opens closes, with buffer_add_char() */
/* Items of a list. */
void write_item(struct buffer *out, char bracket);
void write_prefix(struct buffer *out, const struct prefix *prefix);
/* Nothing where there are none. */
void write_labels(struct buffer *out, const char *name, const struct label *list, size_t n);

/* What is in spec: encode_network.c, encode_workload.c. */
void write_network(struct buffer *out, const struct network *network);
void write_port(struct buffer *out, const struct port *port);
void write_peer(struct buffer *out, const struct tunnel_peer *peer);
void write_fast_path(struct buffer *out, const struct fast_path *path); /* encode_fast_path.c */
void write_workload(struct buffer *out, const struct object *object);

#endif
