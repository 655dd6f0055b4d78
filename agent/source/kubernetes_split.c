// SPDX-License-Identifier: Apache-2.0
/* Brackets and strings are all that is looked at: what lies between them is jansson's to judge, one object at a time. */
#include <source/kubernetes_internal.h>

#include <errno.h>
#include <string.h>

void kube_split_reset(struct kube_split *split, bool list)
{
	buffer_clear(&split->piece);
	buffer_clear(&split->rest);
	*split = (struct kube_split){.list = list, .take = split->take, .userdata = split->userdata};
}

bool kube_split_complete(const struct kube_split *split)
{
	return split->depth == 0 && !split->in_string && (split->begun || !split->list);
}

static unsigned depth_of_pieces(const struct kube_split *split)
{
	return split->list ? 2 : 0;
}

/* What has been looked at goes where it belongs. */
static int keep(struct kube_split *split, bool piece, const char *from, size_t length)
{
	struct buffer *to = piece ? &split->piece : &split->rest;

	if (!length || (!piece && (!split->list || split->in_items)))
		return 0; /* between pieces: commas and white space */
	if (length > (piece ? KUBE_PIECE_MAX : KUBE_REST_MAX) - to->length)
		return -EMSGSIZE;
	buffer_add(to, from, length);
	return to->failed ? -ENOMEM : 0;
}

static int end_piece(struct kube_split *split)
{
	int r = split->take(split->userdata, split->piece.data, split->piece.length);

	if (split->piece.size > 256 << 10) /* a rare large one does not stay */
		buffer_clear(&split->piece);
	split->piece.length = 0;
	return r;
}

static bool in_piece(const struct kube_split *split)
{
	return split->depth > depth_of_pieces(split) && (!split->list || split->in_items);
}

int kube_split_feed(struct kube_split *split, const char *data, size_t length)
{
	size_t from = 0;
	int r;

	for (size_t i = 0; i < length; i++) {
		char c = data[i];

		if (split->in_string) {
			if (split->escaped)
				split->escaped = false;
			else if (c == '\\')
				split->escaped = true;
			else if (c == '"')
				split->in_string = false;
			continue;
		}
		if (c == '"') {
			if (split->depth == 0)
				return -EBADMSG;
			split->in_string = true;
		} else if (c == '{' || c == '[') {
			bool was = in_piece(split);

			if (split->depth == KUBE_DEPTH_MAX || (split->depth == 0 && (c == '[' || (split->list && split->begun))))
				return -EBADMSG;
			/* the bracket of the items stays with the rest, which is then JSON without them */
			if (split->list && split->depth == 1 && c == '[') {
				r = keep(split, false, data + from, i + 1 - from);
				from = i + 1;
				split->in_items = true;
			} else {
				r = 0;
			}
			split->depth++;
			split->begun = true;
			if (r == 0 && !was && in_piece(split)) {
				r = keep(split, false, data + from, i - from);
				from = i;
			}
			if (r < 0)
				return r;
		} else if (c == '}' || c == ']') {
			bool was = in_piece(split);

			if (split->depth == 0)
				return -EBADMSG;
			split->depth--;
			if (was && !in_piece(split)) {
				r = keep(split, true, data + from, i + 1 - from);
				from = i + 1;
				if (r == 0)
					r = end_piece(split);
				if (r < 0)
					return r;
			} else if (split->in_items && split->depth == 1) {
				split->in_items = false;
				from = i;
			}
		} else if (split->depth == 0 && !strchr(" \t\r\n", c)) {
			return -EBADMSG;
		}
	}
	return keep(split, in_piece(split), data + from, length - from);
}
