/* SPDX-License-Identifier: Apache-2.0 */
/* What policy denies and NICs drop: how much, what was counted there, and which packets most of all. */
#ifndef HEDDLE_OBSERVE_DROPPED_H
#define HEDDLE_OBSERVE_DROPPED_H

#include <jansson.h>

#include <observe/view.h>
#include <util/buffer.h>

json_t *dropped_json(const struct view *view); /* part of offloaded_json() */

/* What metrics tell, as enum offloaded_number does. */
enum dropped_number {
	DROPPED_RULES, /* now */
	DROPPED_PACKETS,
	DROPPED_BYTES,
	DROPPED_REFUSED, /* rules that a NIC did not take, or not keep */
	DROPPED_PAUSED,	 /* 1: after too many of these in a row, or for want of room for flows */
};
void dropped_metric(const struct view *view, struct buffer *text, const char *name, enum dropped_number number);

#endif
