/* SPDX-License-Identifier: Apache-2.0 */
/* Checksums that workers complete: against sums made another way, and frames that are none. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fastpath/checksum.h>

#define ETHERNET 14

/* A frame of one packet, and where its checksum is. */
struct made {
	uint8_t bytes[1600];
	size_t length, l4, check;
};

/* By the definition: one word after the other, in host byte order. */
static uint32_t sum_of(const uint8_t *data, size_t n, uint32_t sum)
{
	for (size_t i = 0; i < n; i++) {
		sum += (uint32_t)data[i] << (i % 2 ? 0 : 8);
		sum = (sum & 0xffff) + (sum >> 16);
	}
	return sum;
}

static uint32_t pseudo_of(const struct made *made, int family, uint8_t protocol)
{
	uint32_t sum = sum_of(made->bytes + ETHERNET + (family == 4 ? 12 : 8), family == 4 ? 8 : 32, 0);

	sum += protocol + (uint32_t)(made->length - made->l4);
	return (sum & 0xffff) + (sum >> 16);
}

/* As a workload's stack leaves it to its device. */
static void make(struct made *ret, int family, uint8_t protocol, size_t payload)
{
	size_t head = protocol == 6 ? 20 : 8, l3 = family == 4 ? 20 : 40;
	uint8_t *ip = ret->bytes + ETHERNET;
	uint32_t sum;

	memset(ret, 0, sizeof(*ret));
	ret->l4 = ETHERNET + l3;
	ret->length = ret->l4 + head + payload;
	for (size_t i = ret->l4; i < ret->length; i++)
		ret->bytes[i] = (uint8_t)rand();
	ret->bytes[12] = family == 4 ? 0x08 : 0x86;
	ret->bytes[13] = family == 4 ? 0x00 : 0xdd;
	if (family == 4) {
		ip[0] = 0x45;
		ip[2] = (uint8_t)((l3 + head + payload) >> 8);
		ip[3] = (uint8_t)(l3 + head + payload);
		ip[9] = protocol;
	} else {
		ip[0] = 0x60;
		ip[4] = (uint8_t)((head + payload) >> 8);
		ip[5] = (uint8_t)(head + payload);
		ip[6] = protocol;
	}
	for (size_t i = family == 4 ? 12 : 8; i < l3; i++)
		ip[i] = (uint8_t)rand();
	ret->check = ret->l4 + (protocol == 6 ? 16 : 6);
	sum = pseudo_of(ret, family, protocol);
	ret->bytes[ret->check] = (uint8_t)(sum >> 8);
	ret->bytes[ret->check + 1] = (uint8_t)sum;
}

static const int families[] = {4, 6};
static const uint8_t protocols[] = {6, 17};

static void test_completes(void **state)
{
	struct made made, before;

	(void)state;
	srand(1);
	for (unsigned i = 0; i < 4000; i++) {
		int family = families[i & 1];
		uint8_t protocol = protocols[i >> 1 & 1];

		make(&made, family, protocol, i % 1460);
		before = made;
		assert_true(checksum_complete(made.bytes, made.length));
		/* what a receiver sums up */
		assert_int_equal(sum_of(made.bytes + made.l4, made.length - made.l4, pseudo_of(&made, family, protocol)), 0xffff);
		assert_false(protocol == 17 && !made.bytes[made.check] && !made.bytes[made.check + 1]);
		memcpy(&before.bytes[before.check], &made.bytes[made.check], 2);
		assert_memory_equal(before.bytes, made.bytes, sizeof(made.bytes)); /* nothing else has changed */
	}
}

/* In pieces of any length, odd ones too: as in one, as long as its headers are in the first. */
static void test_pieces(void **state)
{
	struct made made, whole;

	(void)state;
	srand(2);
	for (unsigned i = 0; i < 4000; i++) {
		uint8_t protocol = protocols[i >> 1 & 1];
		struct checksum_piece pieces[5];
		uint8_t *own[5];
		size_t n = 0, at = 0, head;

		make(&made, families[i & 1], protocol, 200 + i % 1200);
		whole = made;
		head = made.l4 + (protocol == 6 ? 20 : 8);
		assert_true(checksum_complete(whole.bytes, whole.length));
		while (at < made.length) {
			size_t length = n == 0 ? head + (size_t)rand() % 40 : 1 + (size_t)rand() % 400;

			if (n == 4 || length > made.length - at)
				length = made.length - at;
			own[n] = malloc(length);
			memcpy(own[n], made.bytes + at, length);
			pieces[n] = (struct checksum_piece){.data = own[n], .length = length};
			at += length;
			n++;
		}
		assert_true(checksum_complete_pieces(pieces, n));
		at = 0;
		for (size_t k = 0; k < n; at += pieces[k++].length) {
			assert_memory_equal(own[k], whole.bytes + at, pieces[k].length);
			free(own[k]);
		}
		/* where they are not, nothing is read beyond it */
		own[0] = malloc(head - 1);
		memcpy(own[0], made.bytes, head - 1);
		pieces[0] = (struct checksum_piece){.data = own[0], .length = head - 1};
		pieces[1] = (struct checksum_piece){.data = made.bytes + head - 1, .length = made.length - head + 1};
		assert_false(checksum_complete_pieces(pieces, 2));
		free(own[0]);
	}
}

/* Whole checksums, wrong ones, none: not ours to change. */
static void test_leaves(void **state)
{
	struct made made, before;

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		make(&made, families[i & 1], protocols[i >> 1], 200);
		assert_true(checksum_complete(made.bytes, made.length));
		before = made;
		assert_false(checksum_complete(made.bytes, made.length));
		assert_memory_equal(before.bytes, made.bytes, sizeof(made.bytes));
		made.bytes[made.check] ^= 0x40;
		before = made;
		assert_false(checksum_complete(made.bytes, made.length));
		assert_memory_equal(before.bytes, made.bytes, sizeof(made.bytes));
		made.bytes[made.check] = made.bytes[made.check + 1] = 0;
		assert_false(checksum_complete(made.bytes, made.length));
	}
	make(&made, 4, 6, 100);
	made.bytes[ETHERNET + 6] = 0x20; /* more fragments */
	assert_false(checksum_complete(made.bytes, made.length));
	made.bytes[ETHERNET + 6] = 0x40; /* not to be fragmented */
	assert_true(checksum_complete(made.bytes, made.length));
	make(&made, 4, 6, 100);
	made.bytes[ETHERNET + 9] = 132;
	assert_false(checksum_complete(made.bytes, made.length));
	make(&made, 6, 6, 100);
	made.bytes[12] = 0x81;
	assert_false(checksum_complete(made.bytes, made.length));
}

/* Cut off anywhere, at the end of what may be read; lengths that it has not. */
static void test_hostile(void **state)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint8_t *area = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct made made;

	(void)state;
	assert_ptr_not_equal(area, MAP_FAILED);
	assert_int_equal(mprotect(area + page, page, PROT_NONE), 0);
	for (unsigned i = 0; i < 4; i++) {
		make(&made, families[i & 1], protocols[i >> 1], 64);
		for (size_t n = 0; n <= made.length; n++) {
			memcpy(area + page - n, made.bytes, n);
			assert_int_equal(checksum_complete(area + page - n, n), n == made.length);
		}
		/* every octet of the headers, every value: answers do not matter, what is read does */
		for (size_t at = 12; at < made.l4 + 20; at++)
			for (unsigned value = 0; value < 256; value++) {
				memcpy(area + page - made.length, made.bytes, made.length);
				area[page - made.length + at] = (uint8_t)value;
				(void)checksum_complete(area + page - made.length, made.length);
			}
	}
	munmap(area, 2 * page);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_completes), cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_leaves), cmocka_unit_test(test_hostile)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
