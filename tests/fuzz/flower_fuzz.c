/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel and drivers say of rules for NICs: messages of netlink, one after another as one read brings them. */
#include <stdlib.h>
#include <string.h>

#include <libmnl/libmnl.h>

#include <offload/flower.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* Aligned, as a receive buffer is, and with an end that the sanitizer sees. */
	struct nlmsghdr *message, *copy = calloc(1, size ?: 1);
	char reason[FLOWER_REASON_MAX];
	struct flower_seen seen;
	int left = (int)size;

	memcpy(copy, data, size);
	for (message = copy; flower_whole(message, left); message = mnl_nlmsg_next(message, &left)) {
		(void)flower_parse(message, (size_t)left, &seen);
		if (flower_answer(message, (size_t)left, reason) <= 0 && strlen(reason) >= sizeof(reason))
			abort();
	}
	free(copy);
	return 0;
}
