// SPDX-License-Identifier: Apache-2.0
#include <util/addr.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

int addr_parse(const char *text, struct hd_addr *ret)
{
	struct hd_addr addr;
	struct in_addr ipv4;

	if (inet_pton(AF_INET, text, &ipv4) == 1)
		addr = addr_from_ipv4(ipv4.s_addr);
	else if (inet_pton(AF_INET6, text, addr.b) != 1 || addr_is_ipv4(&addr))
		return -EINVAL;
	*ret = addr;
	return 0;
}

char *addr_format(const struct hd_addr *addr, char text[ADDR_TEXT_MAX])
{
	if (addr_is_ipv4(addr))
		inet_ntop(AF_INET, &addr->w[3], text, ADDR_TEXT_MAX);
	else
		inet_ntop(AF_INET6, addr->b, text, ADDR_TEXT_MAX);
	return text;
}

/* Clears what is beyond the length. True: there was something. */
static bool clear_host_bits(struct hd_addr *addr, unsigned length)
{
	bool had = false;

	for (unsigned i = length / 8; i < 16; i++) {
		uint8_t keep = i == length / 8 ? (uint8_t)(0xff00 >> length % 8) : 0;

		had |= (addr->b[i] & (uint8_t)~keep) != 0;
		addr->b[i] &= keep;
	}
	return had;
}

int addr_parse_cidr(const char *text, struct hd_addr *ret_addr, uint8_t *ret_length)
{
	char address[ADDR_TEXT_MAX];
	struct hd_addr addr;
	const char *slash = strchr(text, '/');
	size_t n = slash ? (size_t)(slash - text) : strlen(text);
	unsigned length = 0, most;

	if (n >= sizeof(address))
		return ADDR_CIDR_ADDRESS;
	memcpy(address, text, n);
	address[n] = '\0';
	if (addr_parse(address, &addr) < 0)
		return ADDR_CIDR_ADDRESS;
	*ret_addr = addr;

	/* By hand: strtoul() would take signs, blanks and leading zeros. */
	const char *digits = slash ? slash + 1 : "";
	n = strspn(digits, "0123456789");
	if (n == 0 || n > 3 || digits[n] || (n > 1 && digits[0] == '0'))
		return ADDR_CIDR_LENGTH;
	for (size_t i = 0; i < n; i++)
		length = length * 10 + (unsigned)(digits[i] - '0');
	most = addr_is_ipv4(&addr) ? 32 : 128;
	if (length > most)
		return ADDR_CIDR_LENGTH;

	length += 128 - most;
	bool host_bits = clear_host_bits(&addr, length);
	*ret_addr = addr;
	*ret_length = (uint8_t)length;
	return host_bits ? ADDR_CIDR_HOST_BITS : 0;
}

char *addr_format_cidr(const struct hd_addr *addr, uint8_t length, char text[ADDR_TEXT_MAX])
{
	/* ::/0 too has addresses that begin like mapped ones, but a mapped block is 96 bits or longer. */
	bool ipv4 = length >= 96 && addr_is_ipv4(addr);
	size_t n = strlen(addr_format(addr, text));

	snprintf(text + n, ADDR_TEXT_MAX - n, "/%u", ipv4 ? length - 96u : length);
	return text;
}

bool addr_in_prefix(const struct hd_addr *addr, const struct hd_addr *prefix, uint8_t length)
{
	bool prefix_ipv4 = length >= 96 && addr_is_ipv4(prefix);
	unsigned bytes = length / 8, bits = length % 8;

	if (addr_is_ipv4(addr) != prefix_ipv4)
		return false;
	if (memcmp(addr->b, prefix->b, bytes) != 0)
		return false;
	return bits == 0 || ((addr->b[bytes] ^ prefix->b[bytes]) & (0xff00 >> bits) & 0xff) == 0;
}

bool addr_prefix_in_prefix(const struct hd_addr *inner, uint8_t inner_length, const struct hd_addr *outer, uint8_t outer_length)
{
	return inner_length >= outer_length && addr_in_prefix(inner, outer, outer_length);
}

const char *mac_format(const uint8_t mac[6], char text[MAC_TEXT_MAX])
{
	snprintf(text, MAC_TEXT_MAX, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
	return text;
}

static int digit_of(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool mac_parse(const char *text, uint8_t ret[6])
{
	uint8_t octets[6];

	for (int i = 0; i < 6; i++, text += 3) {
		int high = digit_of(text[0]), low = high < 0 ? -1 : digit_of(text[1]);

		if (low < 0 || text[2] != (i < 5 ? ':' : '\0'))
			return false;
		octets[i] = (uint8_t)(high << 4 | low);
	}
	memcpy(ret, octets, sizeof(octets));
	return true;
}
