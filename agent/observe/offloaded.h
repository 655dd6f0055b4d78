/* SPDX-License-Identifier: Apache-2.0 */
/* Flows that NICs forward, and what they drop of what policy denies: how many, which flows not and why, what was counted there, which packets most of all. */
#ifndef HEDDLE_OBSERVE_OFFLOADED_H
#define HEDDLE_OBSERVE_OFFLOADED_H

#include <jansson.h>

#include <observe/view.h>
#include <util/buffer.h>

json_t *offloaded_json(const struct view *view); /* null: the Host does not ask for it */

/*
 * What metrics tell of flows that NICs forward, and of the rules by which they drop: no sample where the Host does not ask for it. Counters begin anew when it
 * asks again.
 */
enum offloaded_number {
	OFFLOADED_NOW,
	OFFLOADED_PACKETS,
	OFFLOADED_BYTES,
	OFFLOADED_RULES,   /* {change}: added, removed */
	OFFLOADED_REFUSED, /* what a NIC did not take, or not keep; what is tried again counts again */
	OFFLOADED_PAUSED,  /* 1: after too many of these in a row, or, of drops, for want of room for flows */
};
void offloaded_metric(const struct view *view, struct buffer *text, const char *name, enum offloaded_number number);
void dropped_metric(const struct view *view, struct buffer *text, const char *name, enum offloaded_number number);
/* 1: flows may be offloaded; 0: it waits. */
void offloaded_active_metric(const struct view *view, struct buffer *text, const char *name);
/* {reason}: flows of ports that are not, as the last walk over the table found them. */
void offloaded_software_metric(const struct view *view, struct buffer *text, const char *name);

#endif
