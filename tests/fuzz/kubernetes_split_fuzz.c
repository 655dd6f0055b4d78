// SPDX-License-Identifier: Apache-2.0
/* What an API server sends, cut anywhere: the same objects come out as when it comes in one piece. */
#include <stdlib.h>
#include <string.h>

#include <source/kubernetes_internal.h>

static int collect(void *userdata, const char *text, size_t length)
{
	struct buffer *out = userdata;

	buffer_add(out, text, length);
	buffer_add_char(out, '\n');
	return 0;
}

static int run(const char *text, size_t length, size_t step, bool list, struct buffer *out)
{
	struct kube_split split = {.list = list, .take = collect, .userdata = out};
	int r = 0;

	for (size_t at = 0; at < length && r == 0; at += step)
		r = kube_split_feed(&split, text + at, length - at < step ? length - at : step);
	if (r == 0 && kube_split_complete(&split) && split.rest.data)
		buffer_add(out, split.rest.data, split.rest.length);
	kube_split_reset(&split, list);
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buffer whole = {0}, pieces = {0};
	bool list;

	if (size < 2)
		return 0;
	list = data[0] & 1;
	if (run((const char *)data + 1, size - 1, size, list, &whole) !=
		run((const char *)data + 1, size - 1, 1 + (data[0] >> 1) % 16, list, &pieces))
		abort();
	if (whole.length != pieces.length || (whole.length && memcmp(whole.data, pieces.data, whole.length) != 0))
		abort();
	buffer_clear(&whole);
	buffer_clear(&pieces);
	return 0;
}
