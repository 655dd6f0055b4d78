/* SPDX-License-Identifier: Apache-2.0 */
/* Text to addresses and back. Both families in struct hd_addr: IPv4 is held IPv4-mapped. */
#ifndef HEDDLE_UTIL_ADDR_H
#define HEDDLE_UTIL_ADDR_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <heddle/types.h>

#define ADDR_TEXT_MAX 48 /* an address or a CIDR of either family, with its NUL */

static inline bool addr_is_ipv4(const struct hd_addr *addr)
{
	static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

	return memcmp(addr->b, mapped, sizeof(mapped)) == 0;
}

static inline struct hd_addr addr_from_ipv4(__be32 address)
{
	struct hd_addr addr = {.b = {[10] = 0xff, [11] = 0xff}};

	addr.w[3] = address;
	return addr;
}

/* Only the usual forms: dotted quad, RFC 4291 text. An IPv4-mapped address in IPv6 text is refused: it would be taken for IPv4.
 * -EINVAL. */
int addr_parse(const char *text, struct hd_addr *ret);
/* Returns text. */
char *addr_format(const struct hd_addr *addr, char text[ADDR_TEXT_MAX]);

enum addr_cidr_error {
	ADDR_CIDR_ADDRESS = 1, /* no address before the slash */
	ADDR_CIDR_LENGTH,      /* no slash, or no length 0..32 (0..128) behind it */
	ADDR_CIDR_HOST_BITS, /* the address has bits set beyond the length; *ret_addr and *ret_length are the block it lies in */
};
/* ADDRESS/LENGTH; the length counts in the mapped form, so IPv4's is 96..128. 0 or enum addr_cidr_error. */
int addr_parse_cidr(const char *text, struct hd_addr *ret_addr, uint8_t *ret_length);
char *addr_format_cidr(const struct hd_addr *addr, uint8_t length, char text[ADDR_TEXT_MAX]);

/* The first `length` bits of both are equal, and so is the family where the length says which one is meant. */
bool addr_in_prefix(const struct hd_addr *addr, const struct hd_addr *prefix, uint8_t length);
/* The block `inner` lies in `outer`, or is it; of one family. */
bool addr_prefix_in_prefix(const struct hd_addr *inner, uint8_t inner_length, const struct hd_addr *outer, uint8_t outer_length);

/* MACs, as six pairs of hexadecimal digits. */
#define MAC_TEXT_MAX 18
const char *mac_format(const uint8_t mac[6], char text[MAC_TEXT_MAX]); /* returns text */
bool mac_parse(const char *text, uint8_t ret[6]);		       /* false: it is none, and nothing is written */

#endif
