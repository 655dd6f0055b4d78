/* SPDX-License-Identifier: Apache-2.0 */
/* Filters in the kernel: what flower.h makes, asked for and read. All functions return 0 or a negative errno, and log nothing. */
#ifndef HEDDLE_OFFLOAD_TC_H
#define HEDDLE_OFFLOAD_TC_H

#include <offload/flower.h>

struct tc;
int tc_open(const struct flower_mode *mode, struct tc **ret);
void tc_close(struct tc *tc); /* NULL is fine */

/* reason: the kernel's or the driver's words, "": it has none. */
int tc_add(struct tc *tc, const struct flower_filter *filter, char reason[FLOWER_REASON_MAX]);
/* What it counted at last goes to *seen, unless that is NULL. -ENOENT: there is no such filter. */
int tc_remove(struct tc *tc, const struct flower_filter *filter, struct flower_seen *seen);
/* Those of ours on a device. */
typedef void (*tc_filter_cb)(const struct flower_seen *seen, void *userdata);
int tc_each(struct tc *tc, uint32_t ifindex, tc_filter_cb cb, void *userdata);
/* All of ours on a device. *ret_n: how many there were. */
int tc_clear(struct tc *tc, uint32_t ifindex, unsigned *ret_n);

#endif
