/* SPDX-License-Identifier: Apache-2.0 */
/* A 64-bit hash of bytes for finding equal content; the same on every run and machine, since it is kept on disk. Not against an
 * adversary. */
#ifndef HEDDLE_UTIL_HASH_H
#define HEDDLE_UTIL_HASH_H

#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t hash_mix(uint64_t a, uint64_t b)
{
	unsigned __int128 product = (unsigned __int128)a * b;

	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t hash_u64(uint64_t seed, uint64_t value)
{
	return hash_mix(seed ^ 0x9e3779b97f4a7c15ull, value ^ 0xd1b54a32d192ed03ull) + seed;
}

/* The length is part of it, so that "ab", "c" and "a", "bc" differ when hashed one after the other. */
static inline uint64_t hash_bytes(uint64_t seed, const void *data, size_t length)
{
	const unsigned char *at = data;
	uint64_t hash = hash_u64(seed, length), word;

	for (; length >= 8; at += 8, length -= 8) {
		memcpy(&word, at, 8);
		hash = hash_u64(hash, le64toh(word));
	}
	if (length) {
		word = 0;
		memcpy(&word, at, length);
		hash = hash_u64(hash, le64toh(word));
	}
	return hash;
}

/* NULL and "" differ. */
static inline uint64_t hash_string(uint64_t seed, const char *text)
{
	return text ? hash_bytes(seed, text, strlen(text)) : hash_u64(seed, UINT64_MAX);
}

#endif
