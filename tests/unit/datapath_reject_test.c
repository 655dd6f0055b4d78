/* SPDX-License-Identifier: Apache-2.0 */
/* Answers to rejected packets, byte by byte. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>

#include <cmocka.h>

#include <datapath/internal.h>

enum { SYN = 0x02, RST = 0x04, FIN = 0x01, ACK = 0x10 };

/* A packet under construction. */
struct made {
	struct hd_event event;
	size_t l4;
};

static void put(struct made *made, const void *data, size_t length)
{
	assert_true(made->event.packet_length + length <= sizeof(made->event.packet));
	memcpy(made->event.packet + made->event.packet_length, data, length);
	made->event.packet_length = (uint16_t)(made->event.packet_length + length);
}

static void put16(struct made *made, uint16_t value)
{
	put(made, &(uint16_t){htons(value)}, 2);
}

static void put32(struct made *made, uint32_t value)
{
	put(made, &(uint32_t){htonl(value)}, 4);
}

static void put8(struct made *made, uint8_t value)
{
	put(made, &value, 1);
}

static void ethernet(struct made *made, unsigned tags, uint16_t type)
{
	memset(made, 0, sizeof(*made));
	put(made, "\x02\0\0\0\0\x01\x02\0\0\0\0\x02", 12);
	for (unsigned i = 0; i < tags; i++) {
		put16(made, tags == 2 && i == 0 ? 0x88a8 : 0x8100);
		put16(made, (uint16_t)(0x6000 | (10 + i)));
		made->event.vlan[i] = (uint16_t)(0x1000 | (10 + i));
	}
	put16(made, type);
	made->event.l3_offset = (uint8_t)made->event.packet_length;
}

static void ip4(struct made *made, uint8_t protocol, uint16_t payload, unsigned option_words)
{
	put8(made, (uint8_t)(0x45 + option_words));
	put8(made, 0);
	put16(made, (uint16_t)(20 + option_words * 4 + payload));
	put32(made, 0x12340000);
	put8(made, 7);
	put8(made, protocol);
	put16(made, 0);
	put32(made, 0x0a630102); /* 10.99.1.2 to 10.99.1.1 */
	put32(made, 0x0a630101);
	for (unsigned i = 0; i < option_words; i++)
		put32(made, 0x01010101);
	made->l4 = made->event.packet_length;
	made->event.length = made->event.l3_offset + 20u + option_words * 4 + payload;
}

static void ip6(struct made *made, uint8_t next, uint16_t payload)
{
	put32(made, 6u << 28);
	put16(made, payload);
	put8(made, next);
	put8(made, 64);
	put(made, "\xfd\x99\0\0\0\0\0\0\0\0\0\0\0\0\0\x02\xfd\x99\0\0\0\0\0\0\0\0\0\0\0\0\0\x01", 32);
	made->l4 = made->event.packet_length;
	made->event.length = made->event.l3_offset + 40u + payload;
}

static void tcp(struct made *made, uint8_t flags, uint32_t seq, uint32_t ack, unsigned data)
{
	put16(made, 40000);
	put16(made, 81);
	put32(made, seq);
	put32(made, ack);
	put16(made, (uint16_t)(0x5000 | flags));
	put16(made, 1000);
	put32(made, 0);
	for (unsigned i = 0; i < data; i++)
		put8(made, 0xaa);
}

/* --- checks that know nothing of the code under test --- */

static uint32_t ones_sum(const uint8_t *data, size_t length)
{
	uint64_t sum = 0;

	for (size_t i = 0; i + 1 < length; i += 2)
		sum += (uint64_t)data[i] << 8 | data[i + 1];
	if (length & 1)
		sum += (uint64_t)data[length - 1] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint32_t)sum;
}

/* The sum over pseudo header and payload, its checksum included, is all ones. */
static void check_sums(const struct reject_packet *packet)
{
	const uint8_t *l3 = packet->data + packet->l3_offset;
	size_t length = packet->length - packet->l3_offset;
	uint8_t pseudo[40 + 512] = {0};

	if (packet->family == 4) {
		assert_int_equal(ones_sum(l3, 20), 0xffff);
		assert_int_equal(l3[2] << 8 | l3[3], length);
		if (l3[9] == 1) {
			assert_int_equal(ones_sum(l3 + 20, length - 20), 0xffff);
			return;
		}
		memcpy(pseudo, l3 + 12, 8);
		pseudo[9] = l3[9];
		pseudo[11] = (uint8_t)(length - 20);
		memcpy(pseudo + 12, l3 + 20, length - 20);
		assert_int_equal(ones_sum(pseudo, 12 + length - 20), 0xffff);
		return;
	}
	assert_int_equal(l3[4] << 8 | l3[5], length - 40);
	memcpy(pseudo, l3 + 8, 32);
	pseudo[34] = (uint8_t)((length - 40) >> 8);
	pseudo[35] = (uint8_t)(length - 40);
	pseudo[39] = l3[6];
	memcpy(pseudo + 40, l3 + 40, length - 40);
	assert_int_equal(ones_sum(pseudo, length), 0xffff);
}

static uint32_t get32(const uint8_t *at)
{
	return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void check_rst(const struct made *made, uint32_t seq, uint32_t ack, uint8_t flags)
{
	struct reject_packet packet;
	const uint8_t *l4;

	assert_int_equal(reject_build(&made->event, NULL, &packet), 0);
	check_sums(&packet);
	l4 = packet.data + packet.l3_offset + (packet.family == 4 ? 20 : 40);
	assert_int_equal(packet.length, (size_t)(l4 - packet.data) + 20);
	assert_int_equal(get32(l4), 81u << 16 | 40000);
	assert_int_equal(get32(l4 + 4), seq);
	assert_int_equal(get32(l4 + 8), ack);
	assert_int_equal(l4[12], 0x50);
	assert_int_equal(l4[13], flags);
}

static void refused(const struct made *made)
{
	struct reject_packet packet;

	assert_int_equal(reject_build(&made->event, NULL, &packet), -EINVAL);
}

/* --- tests --- */

static void test_rst(void **state)
{
	struct made made;
	struct reject_packet packet;

	(void)state;
	/* RFC 9293 section 3.10.7.1: without ACK, sequence 0 and an acknowledgement of all that was sent. */
	ethernet(&made, 0, 0x0800);
	ip4(&made, 6, 20, 0);
	tcp(&made, SYN, 1000, 0, 0);
	check_rst(&made, 0, 1001, RST | ACK);
	assert_int_equal(reject_build(&made.event, NULL, &packet), 0);
	assert_memory_equal(packet.data, "\x02\0\0\0\0\x02\x02\0\0\0\0\x01\x08\x00", 14);
	assert_memory_equal(packet.data + 14 + 12, "\x0a\x63\x01\x01\x0a\x63\x01\x02", 8);
	/* With ACK, its number. */
	ethernet(&made, 0, 0x0800);
	ip4(&made, 6, 30, 2);
	tcp(&made, ACK, 1000, 77, 10);
	check_rst(&made, 77, 0, RST);
	/* Data and FIN count; what the event does not quote counts too. */
	ethernet(&made, 0, 0x86dd);
	ip6(&made, 6, 1020);
	tcp(&made, FIN, 0xffffff00, 0, 5);
	check_rst(&made, 0, 0xffffff00u + 1001, RST | ACK);
	/* Behind extension headers. */
	ethernet(&made, 0, 0x86dd);
	ip6(&made, 0, 36);
	put(&made, "\x3c\0\x01\x04\0\0\0\0\x06\0\x01\x04\0\0\0\0", 16);
	tcp(&made, SYN, 5, 0, 0);
	check_rst(&made, 0, 6, RST | ACK);
	/* No answer to a RST, to what is cut short, or to an offset past the packet. */
	ethernet(&made, 0, 0x0800);
	ip4(&made, 6, 20, 0);
	tcp(&made, RST, 1, 0, 0);
	refused(&made);
	made.event.packet_length -= 8;
	refused(&made);
	ethernet(&made, 0, 0x0800);
	ip4(&made, 6, 20, 0);
	tcp(&made, SYN, 1, 0, 0);
	made.event.packet[made.l4 + 12] = 0xf0;
	refused(&made);
}

static void test_icmp(void **state)
{
	struct reject_packet packet;
	struct made made;
	const uint8_t *l4;

	(void)state;
	ethernet(&made, 0, 0x0800);
	ip4(&made, 17, 40, 0);
	put32(&made, 1234u << 16 | 99);
	put32(&made, 40u << 16);
	put(&made, "some payload that is quoted here", 32);
	assert_int_equal(reject_build(&made.event, NULL, &packet), 0);
	check_sums(&packet);
	l4 = packet.data + 14 + 20;
	assert_memory_equal(packet.data + 14 + 12, "\x0a\x63\x01\x01\x0a\x63\x01\x02", 8);
	assert_int_equal(l4[0], 3);
	assert_int_equal(l4[1], 13);
	assert_memory_equal(l4 + 8, made.event.packet + 14, 60);
	assert_int_equal(packet.length, 14 + 20 + 8 + 60);
	/* Padding of a short frame is not part of the packet. */
	put(&made, "\0\0\0\0\0\0", 6);
	assert_int_equal(reject_build(&made.event, NULL, &packet), 0);
	assert_int_equal(packet.length, 14 + 20 + 8 + 60);

	ethernet(&made, 0, 0x86dd);
	ip6(&made, 17, 12);
	put(&made, "\x04\xd2\0\x63\0\x0c\0\0odd!", 12);
	assert_int_equal(reject_build(&made.event, NULL, &packet), 0);
	check_sums(&packet);
	l4 = packet.data + 14 + 40;
	assert_int_equal(l4[0], 1);
	assert_int_equal(l4[1], 1);
	assert_memory_equal(l4 + 8, made.event.packet + 14, 52);
}

static void test_no_answer(void **state)
{
	static const uint8_t errors4[] = {3, 4, 5, 11, 12}, errors6[] = {1, 2, 3, 4, 127, 137};
	struct reject_packet packet;
	struct made made;

	(void)state;
	for (size_t i = 0; i < sizeof(errors4); i++) {
		ethernet(&made, 0, 0x0800);
		ip4(&made, 1, 8, 0);
		put32(&made, (uint32_t)errors4[i] << 24);
		put32(&made, 0);
		refused(&made);
		made.event.packet[made.l4] = 8;
		assert_int_equal(reject_build(&made.event, NULL, &packet), 0);
	}
	for (size_t i = 0; i < sizeof(errors6); i++) {
		ethernet(&made, 0, 0x86dd);
		ip6(&made, 58, 8);
		put32(&made, (uint32_t)errors6[i] << 24);
		put32(&made, 0);
		refused(&made);
		made.event.packet[made.l4] = 128;
		assert_int_equal(reject_build(&made.event, NULL, &packet), 0);
	}
	/* To or from what is not one host; a later fragment; a frame to many. */
	for (unsigned kind = 0; kind < 8; kind++) {
		ethernet(&made, 0, 0x0800);
		ip4(&made, 17, 8, 0);
		put32(&made, 1);
		put32(&made, 0x00080000);
		assert_int_equal(reject_build(&made.event, NULL, &packet), 0);
		switch (kind) {
		case 0:
			memcpy(made.event.packet + 14 + 16, "\xe0\0\0\x01", 4);
			break;
		case 1:
			memcpy(made.event.packet + 14 + 16, "\xff\xff\xff\xff", 4);
			break;
		case 2:
			memset(made.event.packet + 14 + 12, 0, 4);
			break;
		case 3:
			memcpy(made.event.packet + 14 + 12, "\x7f\0\0\x01", 4);
			break;
		case 4:
			made.event.packet[14 + 7] = 1;
			break;
		case 5:
			made.event.packet[0] = 0xff;
			break;
		case 6:
			made.event.packet[14] = 0x35;
			break;
		case 7:
			made.event.l3_offset = 200;
			break;
		}
		refused(&made);
	}
}

static void test_tags(void **state)
{
	struct reject_packet packet;
	struct made made;

	(void)state;
	for (unsigned tags = 1; tags <= 2; tags++) {
		ethernet(&made, tags, 0x0800);
		ip4(&made, 6, 20, 0);
		tcp(&made, SYN, 1, 0, 0);
		assert_int_equal(reject_build(&made.event, NULL, &packet), 0);
		assert_int_equal(packet.l3_offset, 14 + 4 * tags);
		assert_memory_equal(
			packet.data + 12, tags == 1 ? "\x81\0\0\x0a\x08\0" : "\x88\xa8\0\x0a\x81\0\0\x0b\x08\0", 4 * tags + 2);
		check_sums(&packet);
	}
	/* The outer one in metadata: not in the quoted bytes, but on the wire. */
	ethernet(&made, 0, 0x0800);
	made.event.vlan[0] = 0x1000 | 20;
	ip4(&made, 6, 20, 0);
	tcp(&made, SYN, 1, 0, 0);
	assert_int_equal(reject_build(&made.event, NULL, &packet), 0);
	assert_memory_equal(packet.data + 12, "\x81\0\0\x14\x08\0", 6);
	ethernet(&made, 1, 0x0800);
	made.event.vlan[1] = made.event.vlan[0];
	made.event.vlan[0] = 0x1000 | 20;
	ip4(&made, 6, 20, 0);
	tcp(&made, SYN, 1, 0, 0);
	assert_int_equal(reject_build(&made.event, NULL, &packet), 0);
	assert_memory_equal(packet.data + 12, "\x88\xa8\0\x14\x81\0\0\x0a\x08\0", 10);
	/* The host's own packet: the answer is for its stack, which wants no frame. */
	made.event.direction = HD_EGRESS;
	assert_int_equal(reject_build(&made.event, NULL, &packet), 0);
	assert_int_equal(packet.l3_offset, 0);
	assert_int_equal(packet.length, 40);
}

/* What a gateway says to a workload: always a frame for its port, always ICMP. */
static void test_router(void **state)
{
	static const struct {
		uint16_t reason;
		uint8_t type4, code4, type6, code6;
	} cases[] = {
		{HD_R_NO_DESTINATION, 3, 1, 1, 3},
		{HD_R_TTL_EXCEEDED, 11, 0, 3, 0},
		{HD_R_TOO_BIG, 3, 4, 2, 0},
	};
	struct datapath_router router = {.has_source = true, .mtu = 1400};
	struct reject_packet packet;
	struct made made;
	const uint8_t *l3;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		ethernet(&made, 0, 0x0800);
		ip4(&made, 6, 20, 0);
		tcp(&made, SYN, 1, 0, 0);
		made.event.hook = HD_HOOK_TC_PORT_IN;
		made.event.direction = HD_EGRESS;
		made.event.reason = cases[i].reason;
		router.source = (struct hd_addr){.b = {[10] = 0xff, 0xff, 10, 99, 1, 254}};
		assert_int_equal(reject_build(&made.event, &router, &packet), 0);
		assert_memory_equal(packet.data, "\x02\0\0\0\0\x02\x02\0\0\0\0\x01", 12);
		l3 = packet.data + packet.l3_offset;
		assert_int_equal(packet.l3_offset, 14);
		assert_memory_equal(l3 + 12, "\x0a\x63\x01\xfe\x0a\x63\x01\x02", 8);
		assert_int_equal(l3[20], cases[i].type4);
		assert_int_equal(l3[21], cases[i].code4);
		assert_int_equal(l3[26] << 8 | l3[27], cases[i].reason == HD_R_TOO_BIG ? 1400 : 0);
		check_sums(&packet);

		ethernet(&made, 0, 0x86dd);
		ip6(&made, 17, 16);
		put32(&made, 53 << 16 | 53);
		put32(&made, 16 << 16);
		put32(&made, 0);
		put32(&made, 0);
		made.event.hook = HD_HOOK_TC_PORT_IN;
		made.event.direction = HD_EGRESS;
		made.event.reason = cases[i].reason;
		router.source = (struct hd_addr){.b = {0xfe, 0x80, [15] = 9}};
		assert_int_equal(reject_build(&made.event, &router, &packet), 0);
		l3 = packet.data + packet.l3_offset;
		assert_memory_equal(l3 + 8, router.source.b, 16);
		assert_int_equal(l3[40], cases[i].type6);
		assert_int_equal(l3[41], cases[i].code6);
		assert_int_equal(l3[46] << 8 | l3[47], cases[i].reason == HD_R_TOO_BIG ? 1400 : 0);
		check_sums(&packet);
	}
	/* A frame that was switched, of a network without a gateway: as from where it was going, with its tag. */
	router.has_source = false;
	ethernet(&made, 1, 0x0800);
	ip4(&made, 6, 20, 0);
	tcp(&made, SYN, 1, 0, 0);
	made.event.hook = HD_HOOK_TC_PORT_IN;
	made.event.direction = HD_EGRESS;
	made.event.reason = HD_R_TOO_BIG;
	assert_int_equal(reject_build(&made.event, &router, &packet), 0);
	assert_memory_equal(packet.data, made.event.packet + 6, 6);
	assert_memory_equal(packet.data + 6, made.event.packet, 6);
	assert_memory_equal(packet.data + 12, "\x81\0\0\x0a\x08\0", 6);
	l3 = packet.data + packet.l3_offset;
	assert_int_equal(packet.l3_offset, 18);
	assert_memory_equal(l3 + 12, made.event.packet + 18 + 16, 4);
	assert_memory_equal(l3 + 16, made.event.packet + 18 + 12, 4);
	assert_int_equal(l3[26] << 8 | l3[27], 1400);
	check_sums(&packet);
	ethernet(&made, 0, 0x86dd);
	ip6(&made, 17, 16);
	put32(&made, 53 << 16 | 53);
	put32(&made, 16 << 16);
	put32(&made, 0);
	put32(&made, 0);
	made.event.hook = HD_HOOK_TC_PORT_IN;
	made.event.direction = HD_EGRESS;
	made.event.reason = HD_R_TOO_BIG;
	/* Too big for what, nobody knows: nothing is said. */
	assert_int_equal(reject_build(&made.event, NULL, &packet), -EINVAL);
	/* A policy's reject is the other end's word, whoever the router is. */
	made.event.reason = HD_R_POLICY_REJECT;
	assert_int_equal(reject_build(&made.event, &router, &packet), 0);
	assert_memory_equal(packet.data + packet.l3_offset + 8, "\xfd\x99\0\0\0\0\0\0\0\0\0\0\0\0\0\x01", 16);
	/* From the host's stack to a port: the stack is told. */
	made.event.hook = HD_HOOK_TC_PORT_OUT;
	made.event.direction = HD_INGRESS;
	assert_int_equal(reject_build(&made.event, &router, &packet), 0);
	assert_int_equal(packet.l3_offset, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rst),
		cmocka_unit_test(test_icmp),
		cmocka_unit_test(test_no_answer),
		cmocka_unit_test(test_tags),
		cmocka_unit_test(test_router),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
