/* SPDX-License-Identifier: Apache-2.0 */
/* Flows that NICs forward: how many, which ones not and why, what was counted there. */
#ifndef HEDDLE_OBSERVE_OFFLOADED_H
#define HEDDLE_OBSERVE_OFFLOADED_H

#include <jansson.h>

#include <observe/view.h>
#include <util/buffer.h>

json_t *offloaded_json(const struct view *view); /* null: the Host does not ask for it */

/* What metrics tell: no sample where the Host does not ask for it. Counters begin anew when it asks again. */
enum offloaded_number {
	OFFLOADED_ACTIVE,   /* 1: flows may be offloaded; 0: it waits */
	OFFLOADED_FLOWS,    /* now */
	OFFLOADED_SOFTWARE, /* {reason}: flows of ports that are not, as the last walk over the table found them */
	OFFLOADED_PACKETS,
	OFFLOADED_BYTES,
	OFFLOADED_RULES,   /* {change}: added, removed */
	OFFLOADED_REFUSED, /* flows that a NIC did not take, or not keep; one that is tried again counts again */
	OFFLOADED_PAUSED,  /* 1: after too many of these in a row */
};
void offloaded_metric(const struct view *view, struct buffer *text, const char *name, enum offloaded_number number);

#endif
