/* SPDX-License-Identifier: Apache-2.0 */
/* Frames for explain: lengths, checksums, tags, and that what was asked for is what can be read back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <netinet/in.h>

#include <cmocka.h>

#include <heddle/overlay.h>
#include <observe/packet.h>
#include <util/addr.h>
#include <util/cleanup.h>

static uint16_t be16(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

static uint32_t ones_sum(uint32_t total, const uint8_t *data, size_t length)
{
	for (size_t i = 0; i < length; i++)
		total += i % 2 ? data[i] : (uint32_t)data[i] << 8;
	while (total >> 16)
		total = (total & 0xffff) + (total >> 16);
	return total;
}

/* A right checksum makes the sum over everything, itself included, all ones (RFC 1071). */
static void assert_l4_sum(const uint8_t *ip, bool ip6, uint8_t protocol, const uint8_t *l4, size_t length)
{
	uint8_t tail[8] = {0, 0, (uint8_t)(length >> 8), (uint8_t)length, 0, 0, 0, protocol};
	uint32_t total = ip6 ? ones_sum(0, ip + 8, 32) : ones_sum(0, ip + 12, 8);

	total = ones_sum(total, tail, sizeof(tail));
	assert_int_equal(ones_sum(total, l4, length), 0xffff);
}

static struct packet_spec base(bool ip6, uint8_t protocol)
{
	struct packet_spec spec = {
		.source_mac = {2, 0, 0, 0, 0, 1},
		.destination_mac = {2, 0, 0, 0, 0, 2},
		.protocol = protocol,
		.source_port = 49152,
		.destination_port = 443,
		.icmp_type = ip6 ? 128 : 8,
		.icmp_id = 7,
		.tcp_flags = 0x02,
	};

	assert_int_equal(addr_parse(ip6 ? "2001:db8::1" : "192.0.2.1", &spec.source), 0);
	assert_int_equal(addr_parse(ip6 ? "2001:db8::2" : "192.0.2.2", &spec.destination), 0);
	return spec;
}

static size_t build(const struct packet_spec *spec, uint8_t frame[PACKET_MAX])
{
	size_t length = 0;

	assert_int_equal(packet_build(spec, frame, &length), 0);
	assert_in_range(length, 14 + 20, PACKET_MAX);
	return length;
}

static void check_ip(const uint8_t *frame, size_t length, size_t at, bool ip6)
{
	const uint8_t *ip = frame + at;

	if (ip6) {
		assert_int_equal(ip[0] >> 4, 6);
		assert_int_equal(be16(ip + 4), length - at - 40);
	} else {
		assert_int_equal(ip[0], 0x45);
		assert_int_equal(be16(ip + 2), length - at);
		assert_int_equal(ones_sum(0, ip, 20), 0xffff);
	}
}

static void test_transports(void **state)
{
	static const uint8_t protocols[] = {IPPROTO_TCP, IPPROTO_UDP};
	uint8_t frame[PACKET_MAX];

	(void)state;
	for (int ip6 = 0; ip6 < 2; ip6++)
		for (size_t p = 0; p < sizeof(protocols); p++) {
			struct packet_spec spec = base(ip6, protocols[p]);
			size_t length = build(&spec, frame), l4 = 14 + (ip6 ? 40 : 20);

			assert_int_equal(be16(frame + 12), ip6 ? 0x86dd : 0x0800);
			check_ip(frame, length, 14, ip6);
			assert_l4_sum(frame + 14, ip6, protocols[p], frame + l4, length - l4);
			if (protocols[p] == IPPROTO_UDP)
				assert_int_equal(be16(frame + l4 + 4), length - l4);
			else
				assert_int_equal(frame[l4 + 12] >> 4, 5);
		}
}

static void test_icmp(void **state)
{
	uint8_t frame[PACKET_MAX];
	struct packet_spec spec = base(false, IPPROTO_ICMP);
	size_t length = build(&spec, frame);

	(void)state;
	check_ip(frame, length, 14, false);
	assert_int_equal(ones_sum(0, frame + 34, length - 34), 0xffff);
	assert_int_equal(frame[34], 8);
	assert_int_equal(be16(frame + 38), 7);

	spec = base(true, IPPROTO_ICMPV6);
	length = build(&spec, frame);
	check_ip(frame, length, 14, true);
	assert_l4_sum(frame + 14, true, IPPROTO_ICMPV6, frame + 54, length - 54);

	/* neighbour discovery is sent with hop limit 255, and a solicitation has 24 bytes (RFC 4861 section 4.3) */
	spec.icmp_type = 135;
	length = build(&spec, frame);
	assert_int_equal(frame[14 + 7], 255);
	assert_int_equal(length - 54, 24);
}

static void test_icmp_error_quotes(void **state)
{
	uint8_t frame[PACKET_MAX];

	(void)state;
	for (int ip6 = 0; ip6 < 2; ip6++) {
		struct packet_spec spec = base(ip6, ip6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
		size_t header = ip6 ? 40 : 20, quoted = 14 + header + 8, length;

		spec.icmp_type = ip6 ? 1 : 3;
		length = build(&spec, frame);
		check_ip(frame, length, 14, ip6);
		check_ip(frame, length, quoted, ip6);
		/* the quoted packet went the other way */
		assert_memory_equal(frame + quoted + (ip6 ? 8 : 12), frame + 14 + (ip6 ? 24 : 16), ip6 ? 16 : 4);
		assert_int_equal(be16(frame + quoted + header), spec.source_port);
	}
}

static void test_sctp(void **state)
{
	/* RFC 9260 appendix A: CRC32c over the packet with a checksum of 0, here bit by bit, sent with its low byte first. */
	uint8_t frame[PACKET_MAX];
	struct packet_spec spec = base(false, IPPROTO_SCTP);
	size_t length = build(&spec, frame);
	uint32_t crc = ~0u;
	uint8_t sent[4];

	(void)state;
	check_ip(frame, length, 14, false);
	assert_int_equal(frame[34 + 12], 1); /* INIT */
	assert_int_equal(be16(frame + 34 + 14), length - 34 - 12);
	memcpy(sent, frame + 34 + 8, 4);
	memset(frame + 34 + 8, 0, 4);
	for (size_t i = 34; i < length; i++)
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ ((crc ^ frame[i] >> bit) & 1 ? 0x82f63b78u : 0);
	crc = ~crc;
	assert_int_equal(sent[0] | sent[1] << 8 | sent[2] << 16 | (uint32_t)sent[3] << 24, crc);
}

static void test_tags(void **state)
{
	uint8_t frame[PACKET_MAX];
	struct packet_spec spec = base(false, IPPROTO_TCP);
	struct packet_view view;
	uint16_t tci, protocol;
	size_t length;

	(void)state;
	spec.vlan[0] = 100;
	spec.vlan[1] = 7;
	spec.n_vlan = 2;
	length = build(&spec, frame);
	assert_int_equal(be16(frame + 12), 0x88a8);
	assert_int_equal(be16(frame + 16), 0x8100);
	packet_look(frame, length, &view);
	assert_int_equal(view.n_vlan, 2);
	assert_int_equal(view.vlan[0], 100);
	assert_int_equal(view.vlan[1], 7);
	assert_true(view.tcp && view.ports);
	assert_int_equal(view.destination_port, 443);

	assert_true(packet_untag(frame, &length, &tci, &protocol));
	assert_int_equal(tci, 100);
	assert_int_equal(protocol, 0x88a8);
	packet_look(frame, length, &view);
	assert_int_equal(view.n_vlan, 1);
	assert_true(packet_untag(frame, &length, &tci, &protocol));
	assert_false(packet_untag(frame, &length, &tci, &protocol));
	check_ip(frame, length, 14, false);
}

static void test_refused(void **state)
{
	uint8_t frame[PACKET_MAX];
	struct packet_spec spec = base(false, IPPROTO_TCP);
	size_t length;

	(void)state;
	assert_int_equal(addr_parse("2001:db8::1", &spec.destination), 0);
	assert_true(packet_build(&spec, frame, &length) < 0);
	spec = base(true, IPPROTO_FRAGMENT);
	assert_true(packet_build(&spec, frame, &length) < 0);
	spec = base(true, IPPROTO_TCP);
	spec.n_vlan = 3;
	assert_true(packet_build(&spec, frame, &length) < 0);
}

static void test_every_protocol_fits(void **state)
{
	uint8_t frame[PACKET_MAX];

	(void)state;
	for (unsigned protocol = 0; protocol < 256; protocol++)
		for (unsigned type = 0; type < 256; type++)
			for (int ip6 = 0; ip6 < 2; ip6++) {
				struct packet_spec spec = base(ip6, protocol);
				size_t length = 0;

				spec.icmp_type = type;
				spec.n_vlan = 2;
				if (packet_build(&spec, frame, &length) == 0)
					check_ip(frame, length, 22, ip6);
				else
					assert_true(ip6);
				if (protocol != IPPROTO_ICMP && protocol != IPPROTO_ICMPV6)
					type = 256;
			}
}

static void test_flags(void **state)
{
	static const struct {
		const char *text;
		int flags; /* -1: refused */
	} cases[] = {{"S", 0x02}, {"sa", 0x12}, {"syn", 0x02}, {"SYN,ack", 0x12}, {"S.", 0x12}, {"none", 0}, {"FPU", 0x29},
		{"", -1}, {"X", -1}, {"syn,", -1}, {"syn,foo", -1}, {"CE", 0xc0}};
	char text[16];
	uint8_t flags;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int r = tcp_flags_parse(cases[i].text, &flags);

		assert_int_equal(r < 0, cases[i].flags < 0);
		if (!r)
			assert_int_equal(flags, cases[i].flags);
	}
	for (unsigned all = 0; all < 256; all++) {
		tcp_flags_format(all, text);
		assert_int_equal(tcp_flags_parse(text, &flags), 0);
		assert_int_equal(flags, all);
	}
}

/* A UDP packet of the family with these bytes behind its header. */
static size_t wrap(uint8_t frame[PACKET_MAX], bool ip6, uint8_t tos, const void *payload, size_t n)
{
	struct packet_spec spec = base(ip6, IPPROTO_UDP);
	size_t l4 = ip6 ? 54 : 34;

	spec.destination_port = 4789;
	(void)build(&spec, frame);
	if (ip6)
		frame[15] = (uint8_t)(tos << 4);
	else
		frame[15] = tos;
	memcpy(frame + l4 + 8, payload, n);
	return l4 + 8 + n;
}

/* The inner frame ends with the first two bytes of an IPv4 header; tos is the second. */
#define INNER(tos) "\x02\0\0\0\0\1\x02\0\0\0\0\2\x08\0\x45" tos
#define VXLAN "\x08\0\0\0\x12\x34\x56\0"
#define GENEVE "\0\0\x65\x58\x12\x34\x56\0"

static void test_tunnel(void **state)
{
	static const struct {
		unsigned protocol;
		const char *bytes;
		size_t n;
		uint8_t tos; /* outer */
		enum hd_reason reason;
		enum { NO_HEADER, WHOLE, CONTROL } what;
	} cases[] = {
#define VXLAN_CASE(text, ...) {HD_TUNNEL_VXLAN, text, sizeof(text) - 1, __VA_ARGS__}
#define GENEVE_CASE(text, ...) \
	{ \
		HD_TUNNEL_GENEVE, text, sizeof(text) - 1, __VA_ARGS__ \
	}
		VXLAN_CASE(VXLAN INNER("\0"), 0, HD_R_NONE, WHOLE),
		VXLAN_CASE("\xff\1\2\3\x12\x34\x56\7" INNER("\0"), 0, HD_R_NONE, WHOLE),
		VXLAN_CASE("\x08\0\0\0\x12\x34\x56", 0, HD_R_TUNNEL_MALFORMED, NO_HEADER),
		VXLAN_CASE("\0\0\0\0\x12\x34\x56\0" INNER("\0"), 0, HD_R_TUNNEL_MALFORMED, NO_HEADER),
		VXLAN_CASE(VXLAN "\x02\0\0\0\0\1\x02\0\0\0\0\2\x08\0\x45", 0, HD_R_TUNNEL_MALFORMED, WHOLE),
		/* RFC 6040: congestion marked on the outside is lost only where the inside does not know ECN */
		VXLAN_CASE(VXLAN INNER("\0"), 3, HD_R_TUNNEL_ECN, WHOLE),
		VXLAN_CASE(VXLAN INNER("\2"), 3, HD_R_NONE, WHOLE),
		VXLAN_CASE(VXLAN INNER("\0"), 1, HD_R_NONE, WHOLE),
		VXLAN_CASE(VXLAN "\x02\0\0\0\0\1\x02\0\0\0\0\2\x81\0\0\5\x08\0\x45\0", 3, HD_R_TUNNEL_ECN, WHOLE),
		VXLAN_CASE(VXLAN "\x02\0\0\0\0\1\x02\0\0\0\0\2\x81\0\0\5\x08\0\x45", 0, HD_R_VLAN_TRUNCATED, WHOLE),
		VXLAN_CASE(VXLAN "\x02\0\0\0\0\1\x02\0\0\0\0\2\x88\xa8\0\5\x81\0\0\6\x81\0\0\7\x08\0\x45\0", 0, HD_R_VLAN_DEPTH,
			WHOLE),
		GENEVE_CASE(GENEVE INNER("\0"), 0, HD_R_NONE, WHOLE),
		GENEVE_CASE("\x40\0\x65\x58\x12\x34\x56\0" INNER("\0"), 0, HD_R_TUNNEL_MALFORMED, NO_HEADER),
		GENEVE_CASE("\0\0\x08\0\x12\x34\x56\0" INNER("\0"), 0, HD_R_TUNNEL_MALFORMED, NO_HEADER),
		GENEVE_CASE("\0\x80\0\0\x12\x34\x56\0", 0, HD_R_NONE, CONTROL),
		GENEVE_CASE("\3\0\x65\x58\x12\x34\x56\0"
			    "\1\2\3\1abcd"
			    "\1\2\4\0" INNER("\0"),
			0, HD_R_NONE, WHOLE),
		GENEVE_CASE("\3\x40\x65\x58\x12\x34\x56\0"
			    "\1\2\3\1abcd"
			    "\1\2\x84\0" INNER("\0"),
			0, HD_R_TUNNEL_OPTION, NO_HEADER),
		GENEVE_CASE("\1\0\x65\x58\x12\x34\x56\0"
			    "\1\2\3\1abcd" INNER("\0"),
			0, HD_R_TUNNEL_MALFORMED, NO_HEADER),
		GENEVE_CASE("\x3f\0\x65\x58\x12\x34\x56\0"
			    "\1\2\3\1abcd",
			0, HD_R_TUNNEL_MALFORMED, NO_HEADER),
	};
	struct packet_tunnel tunnel;
	uint8_t frame[PACKET_MAX];

	(void)state;
	for (size_t i = 0; i < 2 * ARRAY_SIZE(cases); i++) {
		size_t n = i / 2, length = wrap(frame, i & 1, cases[n].tos, cases[n].bytes, cases[n].n);

		if (packet_unwrap(frame, length, cases[n].protocol, &tunnel) != cases[n].reason ||
			tunnel.header != (cases[n].what != NO_HEADER) || tunnel.control != (cases[n].what == CONTROL))
			fail_msg("case %zu, IPv%d", n, i & 1 ? 6 : 4);
		if (!tunnel.header)
			continue;
		assert_int_equal(tunnel.vni, 0x123456);
		assert_true(tunnel.inner <= length);
		if (cases[n].reason == HD_R_NONE && !tunnel.control)
			assert_int_equal(frame[tunnel.inner], 2);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_transports),
		cmocka_unit_test(test_icmp),
		cmocka_unit_test(test_icmp_error_quotes),
		cmocka_unit_test(test_sctp),
		cmocka_unit_test(test_tags),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_every_protocol_fits),
		cmocka_unit_test(test_flags),
		cmocka_unit_test(test_tunnel),
	};

	return cmocka_run_group_tests_name("packet", tests, NULL, NULL);
}
