/* SPDX-License-Identifier: Apache-2.0 */
/* Frames of a hostile workload, whose checksums a worker would complete: at most two bytes of one change, and then it is whole. */
#include <stdlib.h>
#include <string.h>

#include <fastpath/checksum.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The same in two pieces: what is completed there is completed alike. */
static void in_pieces(const uint8_t *data, size_t size, size_t cut, const uint8_t *whole)
{
	uint8_t *first = malloc(cut ? cut : 1), *second = malloc(size - cut ? size - cut : 1);

	if (first && second) {
		const struct checksum_piece pieces[] = {{.data = first, .length = cut}, {.data = second, .length = size - cut}};

		memcpy(first, data, cut);
		memcpy(second, data + cut, size - cut);
		if (checksum_complete_pieces(pieces, 2) &&
			(memcmp(first, whole, cut) != 0 || memcmp(second, whole + cut, size - cut) != 0))
			abort();
		if (memcmp(second, data + cut, size - cut) != 0)
			abort();
	}
	free(first);
	free(second);
}

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
	if (size)
		in_pieces(data, size, data[0] % (size + 1), frame);
	free(frame);
	return 0;
}
