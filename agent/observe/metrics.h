/* SPDX-License-Identifier: Apache-2.0 */
/* OpenMetrics text (openmetrics.io, 1.0). The list of metrics is the table in metrics.c and nowhere else. */
#ifndef HEDDLE_OBSERVE_METRICS_H
#define HEDDLE_OBSERVE_METRICS_H

#include <observe/view.h>
#include <util/buffer.h>

#define METRICS_CONTENT_TYPE "application/openmetrics-text; version=1.0.0; charset=utf-8"
#define METRICS_RULES_MAX 1000 /* series of a scrape stay bounded: further rules are summed under policy="", rule="other" */

/* -ENOMEM, -EIO: nothing to show. */
int metrics_text(const struct view *view, struct buffer *text);

#endif
