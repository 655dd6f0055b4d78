/* SPDX-License-Identifier: Apache-2.0 */
/* `heddle policy lint`, as JSON. */
#ifndef HEDDLE_OBSERVE_LINT_H
#define HEDDLE_OBSERVE_LINT_H

#include <observe/view.h>
#include <util/buffer.h>

#define LINT_ITEMS_MAX 10000 /* findings in one answer; the rest is counted */

/* {"items": [...], "omitted": N}. objects: sorted, and valid together. -ENOMEM. */
int lint_text(const struct view *view, const struct object_list *objects, struct buffer *text);

#endif
