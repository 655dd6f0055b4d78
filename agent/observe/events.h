/* SPDX-License-Identifier: Apache-2.0 */
/* Events of the data plane, in words: for streams of `heddle monitor`, and log lines for rules that log. */
#ifndef HEDDLE_OBSERVE_EVENTS_H
#define HEDDLE_OBSERVE_EVENTS_H

#include <jansson.h>

#include <observe/view.h>

/* One line of the monitor stream; NULL for events that are not about a packet's verdict, and without memory. */
json_t *event_json(const struct view *view, const struct hd_event *event);
bool event_is_drop(const struct hd_event *event); /* what `monitor --drops` shows */
/* Writes HD_EVENT_LOG and HD_EVENT_FULL to the log, so many a second at most; the others are not for the log. */
void event_log(const struct view *view, const struct hd_event *event);

#endif
