/* SPDX-License-Identifier: Apache-2.0 */
/* Frames of a hostile workload, whose checksums a worker would complete: at most two bytes of one change, and then it is whole. */
#include <stdlib.h>
#include <string.h>

#include <fastpath/checksum.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *frame = malloc(size ? size : 1); /* of its own, so that what is read past it is seen */
	size_t changed = 0;
	bool done;

	if (!frame)
		return 0;
	memcpy(frame, data, size);
	done = checksum_complete(frame, size);
	for (size_t i = 0; i < size; i++)
		changed += frame[i] != data[i];
	if (changed > 2 || (changed && !done))
		abort();
	free(frame);
	return 0;
}
