/* SPDX-License-Identifier: Apache-2.0 */
/* FastPaths: who is served, how packets get there, and where they are lost. */
#ifndef HEDDLE_OBSERVE_FAST_PATHS_H
#define HEDDLE_OBSERVE_FAST_PATHS_H

#include <jansson.h>

#include <observe/view.h>
#include <util/buffer.h>

json_t *fast_paths_json(const struct view *view);

/* What metrics tell of each. */
enum fast_path_number {
	FAST_PATH_PACKETS,   /* {fate}: taken, passed, dropped, too-big */
	FAST_PATH_LOST,	     /* {cause}: what a session's sockets lost; goes back when another one begins */
	FAST_PATH_UP,	     /* 1: a consumer is served, or frames are moved between devices */
	FAST_PATH_LANES,     /* {device, queue, what}: of each socket of workers */
	FAST_PATH_REDIRECTS, /* {device}: what XDP sent there itself */
};
void fast_paths_metric(const struct view *view, struct buffer *text, const char *name, enum fast_path_number number);

#endif
