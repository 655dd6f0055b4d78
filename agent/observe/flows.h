/* SPDX-License-Identifier: Apache-2.0 */
/* The flow tables, in words; and what changes in them while somebody watches. */
#ifndef HEDDLE_OBSERVE_FLOWS_H
#define HEDDLE_OBSERVE_FLOWS_H

#include <jansson.h>

#include <observe/view.h>
#include <util/buffer.h>

json_t *flow_json(const struct view *view, const struct datapath_flow *flow);
/* {"items": [...]} as text: a full table is too large for a tree of JSON nodes. -ENOMEM, -EIO. */
int flows_text(const struct view *view, struct buffer *text);

/* Compares the tables with what they were at the last call. */
struct flow_watch;
/* change: "new", "update" (its state changed) or "end". */
typedef void (*flow_watch_cb)(const struct datapath_flow *flow, const char *change, void *userdata);
struct flow_watch *flow_watch_new(void); /* NULL: no memory */
void flow_watch_free(struct flow_watch *watch);
/* The first call tells every flow as new. Flows beyond FLOW_WATCH_MAX are not followed: their number is in *ret_missed. */
#define FLOW_WATCH_MAX 100000
int flow_watch_poll(struct flow_watch *watch, const struct view *view, flow_watch_cb cb, void *userdata, size_t *ret_missed);

#endif
