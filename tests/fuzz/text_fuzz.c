/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses, blocks and durations: what is read is written the same way and read again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <util/addr.h>
#include <util/duration.h>
#include <util/log.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool good)
{
	if (!good)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1), written[ADDR_TEXT_MAX], duration[DURATION_TEXT_MAX];
	struct hd_addr addr, again;
	uint64_t ms, ms_again;
	uint8_t length, length_again;

	check(text != NULL);
	memcpy(text, data, size);
	text[size] = '\0';
	if (addr_parse(text, &addr) == 0)
		check(addr_parse(addr_format(&addr, written), &again) == 0 && memcmp(&addr, &again, sizeof(addr)) == 0);
	int r = addr_parse_cidr(text, &addr, &length);
	if (r == 0 || r == ADDR_CIDR_HOST_BITS) {
		check(addr_parse_cidr(addr_format_cidr(&addr, length, written), &again, &length_again) == 0);
		check(length == length_again && memcmp(&addr, &again, sizeof(addr)) == 0);
		check(addr_prefix_in_prefix(&addr, length, &again, length));
	}
	if (duration_parse(text, &ms) == 0)
		check(duration_parse(duration_format(ms, duration), &ms_again) == 0 && ms == ms_again);
	log_level_from_name(text);
	free(text);
	return 0;
}
