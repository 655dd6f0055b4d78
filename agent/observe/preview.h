/* SPDX-License-Identifier: Apache-2.0 */
/* `heddle preview`: which live flows another policy would cut, or let be. */
#ifndef HEDDLE_OBSERVE_PREVIEW_H
#define HEDDLE_OBSERVE_PREVIEW_H

#include <observe/view.h>
#include <policy/image.h>
#include <util/buffer.h>

struct preview;

/*
 * Judges every flow of the tables by both policies and keeps those whose verdict differs; the tables of the images are let go then. Takes
 * the images over, on failure too. The view must outlive it. -ENOMEM, -EIO.
 */
int preview_new(const struct view *view, struct policy_image *now, struct policy_image *then, struct preview **ret);
void preview_free(struct preview *preview); /* NULL is fine */
static inline void preview_free_p(struct preview **preview)
{
	preview_free(*preview);
}

/*
 * Appends the next piece of the answer, {"items": [...]} as a whole, of about `size` bytes: it may be long, and nothing else is done while it
 * is written. 1: there is more; 0: that was all; -ENOMEM.
 */
int preview_write(struct preview *preview, struct buffer *text, size_t size);

#endif
