/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <string.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <netinet/in.h>

#include <fastpath/checksum.h>

/* Sums are of 16-bit words in network byte order, kept as they are in memory (RFC 1071 section 2). */
static uint64_t add(uint64_t sum, const uint8_t *data, size_t length)
{
	uint32_t words[4];
	uint16_t word;

	for (; length >= sizeof(words); length -= sizeof(words), data += sizeof(words)) {
		memcpy(words, data, sizeof(words));
		sum += (uint64_t)words[0] + words[1] + words[2] + words[3];
	}
	for (; length >= sizeof(word); length -= sizeof(word), data += sizeof(word)) {
		memcpy(&word, data, sizeof(word));
		sum += word;
	}
	if (length) {
		word = 0;
		memcpy(&word, data, 1);
		sum += word;
	}
	return sum;
}

static uint16_t fold(uint64_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

/* Goes on where `at` bytes were added before: of an odd number, the other half of each word. */
static uint64_t add_at(uint64_t sum, size_t at, const uint8_t *data, size_t length)
{
	uint16_t part;

	if (at % 2 == 0)
		return add(sum, data, length);
	part = fold(add(0, data, length));
	return sum + (uint16_t)(part << 8 | part >> 8);
}

struct segment {
	uint8_t *l4;
	size_t length;	 /* of the L4 header and what follows, in all pieces */
	uint64_t pseudo; /* without the length */
	uint8_t protocol;
};

/* length: what is there of it in the first piece; all: of the packet. */
static bool find4(uint8_t *at, size_t length, size_t all, struct segment *ret)
{
	struct iphdr ip;
	size_t head, total;

	if (length < sizeof(ip))
		return false;
	memcpy(&ip, at, sizeof(ip));
	head = (size_t)ip.ihl * 4;
	total = ntohs(ip.tot_len);
	if (ip.version != 4 || head < sizeof(ip) || total < head || head > length || total > all || ip.frag_off & htons(0x3fff))
		return false;
	*ret = (struct segment){.l4 = at + head,
		.length = total - head,
		.pseudo = add(0, at + offsetof(struct iphdr, saddr), 2 * sizeof(ip.saddr)),
		.protocol = ip.protocol};
	return true;
}

static bool find6(uint8_t *at, size_t length, size_t all, struct segment *ret)
{
	struct ipv6hdr ip;
	size_t payload;

	if (length < sizeof(ip))
		return false;
	memcpy(&ip, at, sizeof(ip));
	payload = ntohs(ip.payload_len);
	if (ip.version != 6 || payload > all - sizeof(ip))
		return false;
	*ret = (struct segment){.l4 = at + sizeof(ip),
		.length = payload,
		.pseudo = add(0, at + offsetof(struct ipv6hdr, saddr), 2 * sizeof(ip.saddr)),
		.protocol = ip.nexthdr};
	return true;
}

/* Of what begins within the first piece. */
static uint64_t add_segment(const struct segment *segment, const struct checksum_piece *pieces, size_t n)
{
	size_t done = 0, offset = (size_t)(segment->l4 - pieces[0].data);
	uint64_t sum = 0;

	for (size_t i = 0; i < n && done < segment->length; i++, offset = 0) {
		size_t part = pieces[i].length - offset;

		if (part > segment->length - done)
			part = segment->length - done;
		sum = add_at(sum, done, pieces[i].data + offset, part);
		done += part;
	}
	return sum;
}

bool checksum_complete(void *frame, size_t length)
{
	return checksum_complete_pieces(&(struct checksum_piece){.data = frame, .length = length}, 1);
}

bool checksum_complete_pieces(const struct checksum_piece *pieces, size_t n)
{
	size_t at, least, all = 0, length = pieces[0].length;
	uint8_t *frame = pieces[0].data;
	struct segment segment;
	struct ethhdr eth;
	uint16_t check;
	bool found;

	if (length < sizeof(eth))
		return false;
	for (size_t i = 0; i < n; i++)
		all += pieces[i].length;
	memcpy(&eth, frame, sizeof(eth));
	if (eth.h_proto == htons(ETH_P_IP))
		found = find4(frame + sizeof(eth), length - sizeof(eth), all - sizeof(eth), &segment);
	else
		found = eth.h_proto == htons(ETH_P_IPV6) &&
			find6(frame + sizeof(eth), length - sizeof(eth), all - sizeof(eth), &segment);
	if (!found || (segment.protocol != IPPROTO_TCP && segment.protocol != IPPROTO_UDP))
		return false;
	least = segment.protocol == IPPROTO_TCP ? sizeof(struct tcphdr) : sizeof(struct udphdr);
	at = segment.protocol == IPPROTO_TCP ? offsetof(struct tcphdr, check) : offsetof(struct udphdr, check);
	if (segment.length < least || (size_t)(segment.l4 - frame) + least > length)
		return false;
	memcpy(&check, segment.l4 + at, sizeof(check));
	/* of UDP 0 says that there is none */
	if (!check || check != fold(segment.pseudo + htons((uint16_t)segment.length) + htons(segment.protocol)))
		return false;
	check = (uint16_t)~fold(add_segment(&segment, pieces, n));
	if (!check && segment.protocol == IPPROTO_UDP)
		check = 0xffff;
	memcpy(segment.l4 + at, &check, sizeof(check));
	return true;
}
