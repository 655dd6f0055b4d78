/* SPDX-License-Identifier: Apache-2.0 */
/* Rules for NICs as bytes: what is sent is taken apart again, and what the kernel answers is made here, whole and broken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <linux/gen_stats.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/tc_act/tc_csum.h>
#include <linux/tc_act/tc_gact.h>
#include <linux/tc_act/tc_mirred.h>
#include <linux/tc_act/tc_pedit.h>
#include <linux/tc_act/tc_skbedit.h>
#include <linux/tc_act/tc_tunnel_key.h>
#include <linux/tc_act/tc_vlan.h>

#include <cmocka.h>
#include <libmnl/libmnl.h>

#include <heddle/network.h>
#include <offload/flower.h>
#include <util/addr.h>

static const struct flower_mode nic = {.priority = FLOWER_PRIORITY}, software = {.software = true, .priority = 1};

/* --- taking apart --- */

static const struct nlattr *in(const struct nlattr *nest, uint16_t type)
{
	const struct nlattr *attribute;

	assert_non_null(nest);
	mnl_attr_for_each_nested(attribute, nest) if (mnl_attr_get_type(attribute) == type) return attribute;
	return NULL;
}

static const struct nlattr *top(const struct nlmsghdr *message, uint16_t type)
{
	const struct nlattr *attribute;

	mnl_attr_for_each(attribute, message, sizeof(struct tcmsg)) if (mnl_attr_get_type(attribute) == type) return attribute;
	return NULL;
}

static void check(const struct nlattr *nest, uint16_t type, const char *hex)
{
	const struct nlattr *attribute = in(nest, type);
	char text[128] = "";

	assert_non_null(attribute);
	for (unsigned i = 0; i < mnl_attr_get_payload_len(attribute) && i < 60; i++)
		snprintf(text + 2 * i, 3, "%02x", ((const uint8_t *)mnl_attr_get_payload(attribute))[i]);
	assert_string_equal(text, hex);
}

/* The order'th action is of that kind; its options. */
static const struct nlattr *action(const struct nlattr *options, uint16_t order, const char *kind)
{
	const struct nlattr *around = in(in(options, TCA_FLOWER_ACT), order);

	assert_non_null(around);
	assert_string_equal(mnl_attr_get_str(in(around, TCA_ACT_KIND)), kind);
	return in(around, TCA_ACT_OPTIONS);
}

static struct hd_addr address(const char *text)
{
	struct hd_addr addr;

	assert_int_equal(addr_parse(text, &addr), 0);
	return addr;
}

static struct flower_filter make(const char *source, const char *destination, uint8_t protocol)
{
	return (struct flower_filter){.rule = {.in = 11,
					      .out = 12,
					      .family = strchr(source, ':') ? 6 : 4,
					      .protocol = protocol,
					      .source = address(source),
					      .destination = address(destination),
					      .source_port = htons(4000),
					      .destination_port = htons(80),
					      .source_mac = {2, 0, 0, 0, 0, 1},
					      .destination_mac = {2, 0, 0, 0, 0, 2}},
		.handle = 21};
}

static const struct nlattr *encode(void *buffer, const struct flower_filter *filter, const struct flower_mode *mode)
{
	struct nlmsghdr *message = flower_add(buffer, filter, mode);
	const struct tcmsg *tc = mnl_nlmsg_get_payload(message);
	const struct offload_rule *rule = &filter->rule;
	bool tagged = rule->outside == OFFLOAD_UNTAG;
	unsigned priority = mode->priority + (tagged ? 2 : rule->family == 6);

	assert_true(message->nlmsg_len <= FLOWER_MESSAGE_MAX);
	assert_int_equal(message->nlmsg_type, RTM_NEWTFILTER);
	assert_int_equal(message->nlmsg_flags, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
	assert_int_equal(tc->tcm_ifindex, rule->in);
	assert_int_equal(tc->tcm_parent, 0xfffffff2); /* clsact, ingress */
	assert_int_equal(tc->tcm_handle, filter->handle);
	assert_int_equal(tc->tcm_info, priority << 16 | htons(tagged ? ETH_P_8021Q : rule->family == 4 ? ETH_P_IP : ETH_P_IPV6));
	assert_string_equal(mnl_attr_get_str(top(message, TCA_KIND)), "flower");
	return top(message, TCA_OPTIONS);
}

static void check_redirect(const struct nlattr *options, uint16_t order, uint32_t out)
{
	const struct nlattr *parms = in(action(options, order, "mirred"), TCA_MIRRED_PARMS);
	const struct tc_mirred *mirred = mnl_attr_get_payload(parms);

	assert_int_equal(mnl_attr_get_payload_len(parms), sizeof(*mirred));
	assert_int_equal(mirred->action, TC_ACT_STOLEN);
	assert_int_equal(mirred->eaction, TCA_EGRESS_REDIR);
	assert_int_equal(mirred->ifindex, out);
	check(in(in(options, TCA_FLOWER_ACT), order), TCA_ACT_COOKIE, "686564646c65");
	assert_null(in(in(options, TCA_FLOWER_ACT), (uint16_t)(order + 1)));
}

/* --- what is sent --- */

/* Of TCP from 10.0.0.1 to port 80 of 10.0.0.2, whole packets. */
static void check_whose(const struct nlattr *options)
{
	check(options, TCA_FLOWER_KEY_ETH_SRC, "020000000001");
	check(options, TCA_FLOWER_KEY_ETH_DST, "020000000002");
	check(options, TCA_FLOWER_KEY_IPV4_SRC, "0a000001");
	check(options, TCA_FLOWER_KEY_IPV4_DST, "0a000002");
	check(options, TCA_FLOWER_KEY_IP_PROTO, "06");
	check(options, TCA_FLOWER_KEY_TCP_DST, "0050");
	check(options, TCA_FLOWER_KEY_TCP_DST_MASK, "ffff");
	check(options, TCA_FLOWER_KEY_FLAGS, "00000000");
	check(options, TCA_FLOWER_KEY_FLAGS_MASK, "00000001");
}

static void test_tcp_over_ipv4(void **state)
{
	_Alignas(8) char buffer[FLOWER_MESSAGE_MAX];
	struct flower_filter filter = make("10.0.0.1", "10.0.0.2", IPPROTO_TCP);
	const struct nlattr *options = encode(buffer, &filter, &nic);

	(void)state;
	check_whose(options);
	check(options, TCA_FLOWER_KEY_ETH_TYPE, "0800");
	check(options, TCA_FLOWER_KEY_ETH_SRC_MASK, "ffffffffffff");
	check(options, TCA_FLOWER_KEY_ETH_DST_MASK, "ffffffffffff");
	check(options, TCA_FLOWER_KEY_IPV4_SRC_MASK, "ffffffff");
	check(options, TCA_FLOWER_KEY_IPV4_DST_MASK, "ffffffff");
	check(options, TCA_FLOWER_KEY_TCP_SRC, "0fa0");
	check(options, TCA_FLOWER_KEY_TCP_SRC_MASK, "ffff");
	/* ACK, and none of FIN, SYN and RST; PSH, URG and the rest as they are. */
	check(options, TCA_FLOWER_KEY_TCP_FLAGS, "0010");
	check(options, TCA_FLOWER_KEY_TCP_FLAGS_MASK, "0017");
	assert_null(in(options, TCA_FLOWER_KEY_IP_TTL));
	assert_int_equal(mnl_attr_get_u32(in(options, TCA_FLOWER_FLAGS)), TCA_CLS_FLAGS_SKIP_SW);
	check_redirect(options, 1, 12);
}

static void test_udp_and_sctp_over_ipv6(void **state)
{
	_Alignas(8) char buffer[FLOWER_MESSAGE_MAX];
	struct flower_filter filter = make("fd00::1", "fd00::2", IPPROTO_UDP);
	const struct nlattr *options = encode(buffer, &filter, &nic);

	(void)state;
	check(options, TCA_FLOWER_KEY_ETH_TYPE, "86dd");
	check(options, TCA_FLOWER_KEY_IPV6_SRC, "fd000000000000000000000000000001");
	check(options, TCA_FLOWER_KEY_IPV6_SRC_MASK, "ffffffffffffffffffffffffffffffff");
	check(options, TCA_FLOWER_KEY_IPV6_DST, "fd000000000000000000000000000002");
	check(options, TCA_FLOWER_KEY_IPV6_DST_MASK, "ffffffffffffffffffffffffffffffff");
	check(options, TCA_FLOWER_KEY_IP_PROTO, "11");
	check(options, TCA_FLOWER_KEY_UDP_SRC, "0fa0");
	check(options, TCA_FLOWER_KEY_UDP_DST_MASK, "ffff");
	assert_null(in(options, TCA_FLOWER_KEY_TCP_FLAGS));
	filter.rule.protocol = IPPROTO_SCTP;
	options = encode(buffer, &filter, &nic);
	check(options, TCA_FLOWER_KEY_IP_PROTO, "84");
	check(options, TCA_FLOWER_KEY_SCTP_SRC, "0fa0");
	check(options, TCA_FLOWER_KEY_SCTP_DST, "0050");
	check(options, TCA_FLOWER_KEY_SCTP_DST_MASK, "ffff");
}

/* What act_pedit makes of a frame whose network header is behind 14 bytes. */
static void edit(const struct nlattr *options, uint8_t *frame)
{
	const struct tc_pedit_sel *sel = mnl_attr_get_payload(in(options, TCA_PEDIT_PARMS_EX));
	const struct nlattr *extended;
	unsigned i = 0;

	assert_int_equal(
		mnl_attr_get_payload_len(in(options, TCA_PEDIT_PARMS_EX)), sizeof(*sel) + sel->nkeys * sizeof(sel->keys[0]));
	assert_int_equal(sel->action, TC_ACT_PIPE);
	mnl_attr_for_each_nested(extended, in(options, TCA_PEDIT_KEYS_EX))
	{
		uint16_t header = mnl_attr_get_u16(in(extended, TCA_PEDIT_KEY_EX_HTYPE)),
			 command = mnl_attr_get_u16(in(extended, TCA_PEDIT_KEY_EX_CMD));
		uint8_t *at = frame + (header == TCA_PEDIT_KEY_EX_HDR_TYPE_ETH ? 0 : ETH_HLEN) + sel->keys[i].off;
		uint32_t word, value;

		memcpy(&word, at, sizeof(word));
		value = command == TCA_PEDIT_KEY_EX_CMD_ADD ? (word + sel->keys[i].val) & ~sel->keys[i].mask : sel->keys[i].val;
		word = (word & sel->keys[i].mask) ^ value;
		memcpy(at, &word, sizeof(word));
		i++;
	}
	assert_int_equal(i, sel->nkeys);
}

static void test_routed(void **state)
{
	_Alignas(8) char buffer[FLOWER_MESSAGE_MAX];

	(void)state;
	for (unsigned is6 = 0; is6 < 2; is6++) {
		struct flower_filter filter =
			is6 ? make("fd00::1", "fd00::2", IPPROTO_UDP) : make("10.0.0.1", "10.0.0.2", IPPROTO_UDP);
		uint8_t frame[64], want[64];
		const struct nlattr *options;
		size_t ttl = ETH_HLEN + (is6 ? 7 : 8);

		filter.rule.routed = true;
		memcpy(filter.rule.new_source_mac, "\x02\x68\x65\x64\x64\x6c", 6);
		memcpy(filter.rule.new_destination_mac, "\x02\x11\x22\x33\x44\x55", 6);
		options = encode(buffer, &filter, &nic);
		check(options, TCA_FLOWER_KEY_IP_TTL, "40");
		check(options, TCA_FLOWER_KEY_IP_TTL_MASK, "c0");
		for (unsigned i = 0; i < sizeof(frame); i++)
			frame[i] = (uint8_t)(0x80 + i);
		frame[ttl] = 64;
		memcpy(want, frame, sizeof(want));
		memcpy(want, filter.rule.new_destination_mac, 6);
		memcpy(want + 6, filter.rule.new_source_mac, 6);
		want[ttl] = 63;
		edit(action(options, 1, "pedit"), frame);
		assert_memory_equal(frame, want, sizeof(want));
		if (is6) {
			check_redirect(options, 2, 12);
		} else {
			const struct tc_csum *csum = mnl_attr_get_payload(in(action(options, 2, "csum"), TCA_CSUM_PARMS));

			assert_int_equal(csum->action, TC_ACT_PIPE);
			assert_int_equal(csum->update_flags, TCA_CSUM_UPDATE_FLAG_IPV4HDR);
			check_redirect(options, 3, 12);
		}
	}
}

static const struct tc_vlan *tag(const struct nlattr *options)
{
	const struct tc_vlan *parms = mnl_attr_get_payload(in(options, TCA_VLAN_PARMS));

	assert_int_equal(mnl_attr_get_payload_len(in(options, TCA_VLAN_PARMS)), sizeof(*parms));
	assert_int_equal(parms->action, TC_ACT_PIPE);
	return parms;
}

static void test_wire(void **state)
{
	_Alignas(8) char buffer[FLOWER_MESSAGE_MAX];
	struct flower_filter filter = make("fd00::1", "fd00::2", IPPROTO_UDP);
	const struct nlattr *options, *push;

	(void)state;
	filter.rule.vlan = 0x123;
	filter.rule.outside = OFFLOAD_TAG;
	options = encode(buffer, &filter, &nic);
	check(options, TCA_FLOWER_KEY_ETH_TYPE, "86dd");
	assert_null(in(options, TCA_FLOWER_KEY_VLAN_ID));
	push = action(options, 1, "vlan");
	assert_int_equal(tag(push)->v_action, TCA_VLAN_ACT_PUSH);
	assert_int_equal(mnl_attr_get_u16(in(push, TCA_VLAN_PUSH_VLAN_ID)), 0x123);
	check(push, TCA_VLAN_PUSH_VLAN_PROTOCOL, "8100");
	check(push, TCA_VLAN_PUSH_VLAN_PRIORITY, "00");
	check_redirect(options, 2, 12);

	/* Of any priority, with nothing between the tag and IP. */
	filter.rule.outside = OFFLOAD_UNTAG;
	options = encode(buffer, &filter, &nic);
	check(options, TCA_FLOWER_KEY_ETH_TYPE, "8100");
	assert_int_equal(mnl_attr_get_u16(in(options, TCA_FLOWER_KEY_VLAN_ID)), 0x123);
	check(options, TCA_FLOWER_KEY_VLAN_ETH_TYPE, "86dd");
	assert_null(in(options, TCA_FLOWER_KEY_VLAN_PRIO));
	check(options, TCA_FLOWER_KEY_ETH_SRC, "020000000001");
	check(options, TCA_FLOWER_KEY_IPV6_SRC, "fd000000000000000000000000000001");
	check(options, TCA_FLOWER_KEY_UDP_SRC, "0fa0");
	assert_int_equal(tag(action(options, 1, "vlan"))->v_action, TCA_VLAN_ACT_POP);
	assert_null(in(action(options, 1, "vlan"), TCA_VLAN_PUSH_VLAN_ID));
	check_redirect(options, 2, 12);
}

static struct flower_filter make_tunnel(bool is6, enum offload_outside outside)
{
	struct flower_filter filter = make("10.0.0.1", "10.0.0.2", IPPROTO_UDP);

	filter.rule.outside = outside;
	filter.rule.tunnel = (struct offload_tunnel){.local = address(is6 ? "fd66::1" : "192.0.2.1"),
		.remote = address(is6 ? "fd66::2" : "192.0.2.2"),
		.vni = 0x123456,
		.uplink = 20,
		.port = htons(4789),
		.ttl = 77};
	return filter;
}

static const struct nlattr *key(const struct nlattr *options, uint16_t order, int what)
{
	const struct nlattr *found = action(options, order, "tunnel_key");
	const struct tc_tunnel_key *parms = mnl_attr_get_payload(in(found, TCA_TUNNEL_KEY_PARMS));

	assert_int_equal(mnl_attr_get_payload_len(in(found, TCA_TUNNEL_KEY_PARMS)), sizeof(*parms));
	assert_int_equal(parms->action, TC_ACT_PIPE);
	assert_int_equal(parms->t_action, what);
	return found;
}

static void test_into_a_tunnel(void **state)
{
	_Alignas(8) char buffer[FLOWER_MESSAGE_MAX];

	(void)state;
	for (unsigned is6 = 0; is6 < 2; is6++) {
		struct flower_filter filter = make_tunnel(is6, OFFLOAD_ENCAP);
		const struct nlattr *options = encode(buffer, &filter, &nic), *set = key(options, 1, TCA_TUNNEL_KEY_ACT_SET);

		/* The outer header has the same DSCP always. */
		check(options, TCA_FLOWER_KEY_IP_TOS, "00");
		check(options, TCA_FLOWER_KEY_IP_TOS_MASK, "ff");
		assert_null(in(options, TCA_FLOWER_KEY_ENC_KEY_ID));
		check(set, TCA_TUNNEL_KEY_ENC_KEY_ID, "00123456");
		check(set, TCA_TUNNEL_KEY_ENC_DST_PORT, "12b5");
		check(set, TCA_TUNNEL_KEY_ENC_TTL, "4d");
		check(set, TCA_TUNNEL_KEY_ENC_TOS, "00");
		check(set, TCA_TUNNEL_KEY_NO_CSUM, "01");
		check(set, 14, ""); /* DF */
		if (is6) {
			check(set, TCA_TUNNEL_KEY_ENC_IPV6_SRC, "fd660000000000000000000000000001");
			check(set, TCA_TUNNEL_KEY_ENC_IPV6_DST, "fd660000000000000000000000000002");
			assert_null(in(set, TCA_TUNNEL_KEY_ENC_IPV4_DST));
		} else {
			check(set, TCA_TUNNEL_KEY_ENC_IPV4_SRC, "c0000201");
			check(set, TCA_TUNNEL_KEY_ENC_IPV4_DST, "c0000202");
			assert_null(in(set, TCA_TUNNEL_KEY_ENC_IPV6_DST));
		}
		check_redirect(options, 2, 12);
		/* Routed: what goes in has lost of its TTL. */
		filter.rule.routed = true;
		options = encode(buffer, &filter, &nic);
		action(options, 1, "pedit");
		action(options, 2, "csum");
		key(options, 3, TCA_TUNNEL_KEY_ACT_SET);
		check_redirect(options, 4, 12);
	}
}

static void test_out_of_a_tunnel(void **state)
{
	_Alignas(8) char buffer[FLOWER_MESSAGE_MAX];

	(void)state;
	for (unsigned is6 = 0; is6 < 2; is6++) {
		struct flower_filter filter = make_tunnel(is6, OFFLOAD_DECAP);
		const struct nlattr *options = encode(buffer, &filter, &nic);
		uint8_t frame[64] = {0}, want[64] = {0};

		check(options, TCA_FLOWER_KEY_ENC_KEY_ID, "00123456");
		check(options, TCA_FLOWER_KEY_ENC_UDP_DST_PORT, "12b5");
		check(options, TCA_FLOWER_KEY_ENC_UDP_DST_PORT_MASK, "ffff");
		assert_null(in(options, TCA_FLOWER_KEY_ENC_UDP_SRC_PORT));
		/* Neither CE nor ECT(1), which would change the inner header. */
		check(options, TCA_FLOWER_KEY_ENC_IP_TOS, "00");
		check(options, TCA_FLOWER_KEY_ENC_IP_TOS_MASK, "01");
		assert_null(in(options, TCA_FLOWER_KEY_IP_TOS));
		if (is6) {
			check(options, TCA_FLOWER_KEY_ENC_IPV6_SRC, "fd660000000000000000000000000002");
			check(options, TCA_FLOWER_KEY_ENC_IPV6_SRC_MASK, "ffffffffffffffffffffffffffffffff");
			check(options, TCA_FLOWER_KEY_ENC_IPV6_DST, "fd660000000000000000000000000001");
		} else {
			check(options, TCA_FLOWER_KEY_ENC_IPV4_SRC, "c0000202");
			check(options, TCA_FLOWER_KEY_ENC_IPV4_DST, "c0000201");
			check(options, TCA_FLOWER_KEY_ENC_IPV4_DST_MASK, "ffffffff");
		}
		check(options, TCA_FLOWER_KEY_ETH_SRC, "020000000001");
		check(options, TCA_FLOWER_KEY_IPV4_SRC, "0a000001");
		key(options, 1, TCA_TUNNEL_KEY_ACT_RELEASE);
		check_redirect(options, 2, 12);

		/* MACs that mean nothing, but no group's, become others; nothing else changes. */
		filter.rule.readdressed = true;
		memcpy(filter.rule.new_source_mac, "\x02\x68\x65\x64\x64\x6c", 6);
		memcpy(filter.rule.new_destination_mac, "\x02\x11\x22\x33\x44\x55", 6);
		options = encode(buffer, &filter, &nic);
		assert_null(in(options, TCA_FLOWER_KEY_ETH_SRC));
		check(options, TCA_FLOWER_KEY_ETH_DST, "000000000000");
		check(options, TCA_FLOWER_KEY_ETH_DST_MASK, "010000000000");
		assert_null(in(options, TCA_FLOWER_KEY_IP_TTL));
		memcpy(want, filter.rule.new_destination_mac, 6);
		memcpy(want + 6, filter.rule.new_source_mac, 6);
		key(options, 1, TCA_TUNNEL_KEY_ACT_RELEASE);
		edit(action(options, 2, "pedit"), frame);
		assert_memory_equal(frame, want, sizeof(want));
		check_redirect(options, 3, 12);
	}
}

/* The longest there is fits. */
static void test_room(void **state)
{
	_Alignas(8) char buffer[FLOWER_MESSAGE_MAX];
	struct flower_filter filter = make("fd00::1", "fd00::2", IPPROTO_TCP);

	(void)state;
	filter.rule.tunnel = make_tunnel(true, OFFLOAD_ENCAP).rule.tunnel;
	filter.rule.routed = true;
	filter.rule.outside = OFFLOAD_ENCAP;
	encode(buffer, &filter, &software);
	filter.rule.outside = OFFLOAD_DECAP;
	encode(buffer, &filter, &software);
}

static void test_in_software(void **state)
{
	_Alignas(8) char buffer[FLOWER_MESSAGE_MAX];
	struct flower_filter filter = make("10.0.0.1", "10.0.0.2", IPPROTO_UDP);
	const struct nlattr *options = encode(buffer, &filter, &software);

	(void)state;
	assert_int_equal(mnl_attr_get_u32(in(options, TCA_FLOWER_FLAGS)), TCA_CLS_FLAGS_SKIP_HW);
	assert_int_equal(mnl_attr_get_u32(in(action(options, 1, "skbedit"), TCA_SKBEDIT_MARK)), HD_MARK);
	check_redirect(options, 2, 12);
}

static void check_drop(const struct nlattr *options)
{
	const struct nlattr *parms = in(action(options, 1, "gact"), TCA_GACT_PARMS);
	const struct tc_gact *gact = mnl_attr_get_payload(parms);

	assert_int_equal(mnl_attr_get_payload_len(parms), sizeof(*gact));
	assert_int_equal(gact->action, TC_ACT_SHOT);
	check(in(in(options, TCA_FLOWER_ACT), 1), TCA_ACT_COOKIE, "686564646c65");
	assert_null(in(in(options, TCA_FLOWER_ACT), 2));
}

/* What opens connections to a port, from whichever: nothing that could be an answer. */
static void test_drops_of_tcp(void **state)
{
	_Alignas(8) char buffer[FLOWER_MESSAGE_MAX];
	struct flower_filter filter = make("10.0.0.1", "10.0.0.2", IPPROTO_TCP);
	const struct nlattr *options;

	(void)state;
	filter.handle = 0x80000007;
	filter.rule.out = 0;
	filter.rule.source_port = 0;
	for (filter.rule.routed = false;; filter.rule.routed = true) {
		options = encode(buffer, &filter, &nic);
		check_whose(options);
		assert_null(in(options, TCA_FLOWER_KEY_TCP_SRC));
		assert_null(in(options, TCA_FLOWER_KEY_TCP_SRC_MASK));
		check(options, TCA_FLOWER_KEY_TCP_FLAGS, "0002");
		check(options, TCA_FLOWER_KEY_TCP_FLAGS_MASK, "0017");
		assert_int_equal(mnl_attr_get_u32(in(options, TCA_FLOWER_FLAGS)), TCA_CLS_FLAGS_SKIP_SW);
		check_drop(options);
		if (filter.rule.routed)
			break;
		assert_null(in(options, TCA_FLOWER_KEY_IP_TTL));
	}
	check(options, TCA_FLOWER_KEY_IP_TTL, "40");
	check(options, TCA_FLOWER_KEY_IP_TTL_MASK, "c0");
	check_drop(encode(buffer, &filter, &software));
}

static void test_other_drops(void **state)
{
	_Alignas(8) char buffer[FLOWER_MESSAGE_MAX];
	struct flower_filter udp = make("fd00::1", "fd00::2", IPPROTO_UDP), echo = make("10.0.0.1", "10.0.0.2", IPPROTO_ICMP);
	const struct nlattr *options;

	(void)state;
	udp.rule.out = echo.rule.out = 0;
	options = encode(buffer, &udp, &nic);
	check(options, TCA_FLOWER_KEY_UDP_SRC, "0fa0");
	check(options, TCA_FLOWER_KEY_UDP_DST, "0050");
	assert_null(in(options, TCA_FLOWER_KEY_TCP_FLAGS));
	check_drop(options);
	echo.rule.source_port = 0;
	echo.rule.destination_port = htons(0x0800);
	options = encode(buffer, &echo, &nic);
	check(options, TCA_FLOWER_KEY_ICMPV4_TYPE, "08");
	check(options, TCA_FLOWER_KEY_ICMPV4_TYPE_MASK, "ff");
	check(options, TCA_FLOWER_KEY_ICMPV4_CODE, "00");
	check(options, TCA_FLOWER_KEY_ICMPV4_CODE_MASK, "ff");
	check_drop(options);
	echo.rule.family = 6;
	echo.rule.protocol = IPPROTO_ICMPV6;
	echo.rule.destination_port = htons(0x8000);
	options = encode(buffer, &echo, &nic);
	check(options, TCA_FLOWER_KEY_ICMPV6_TYPE, "80");
	check(options, TCA_FLOWER_KEY_ICMPV6_CODE_MASK, "ff");
	assert_null(in(options, TCA_FLOWER_KEY_ICMPV4_TYPE));
	check_drop(options);
}

static void test_names(void **state)
{
	_Alignas(8) char buffer[FLOWER_MESSAGE_MAX];
	struct nlmsghdr *message = flower_name(buffer, RTM_DELTFILTER, 11, 21, 6, &nic);
	const struct tcmsg *tc = mnl_nlmsg_get_payload(message);

	(void)state;
	assert_int_equal(message->nlmsg_flags, NLM_F_REQUEST | NLM_F_ACK);
	assert_int_equal(tc->tcm_handle, 21);
	assert_int_equal(tc->tcm_info, (FLOWER_PRIORITY + 1) << 16 | htons(ETH_P_IPV6));
	assert_string_equal(mnl_attr_get_str(top(message, TCA_KIND)), "flower");
	message = flower_name(buffer, RTM_DELTFILTER, 20, 21, FLOWER_TAGGED, &nic);
	tc = mnl_nlmsg_get_payload(message);
	assert_int_equal(tc->tcm_info, (FLOWER_PRIORITY + 2) << 16 | htons(ETH_P_8021Q));
	message = flower_name(buffer, RTM_GETTFILTER, 11, 0, 4, &nic);
	assert_int_equal(message->nlmsg_flags, NLM_F_REQUEST | NLM_F_DUMP);
}

/* --- what comes back --- */

struct told {
	const char *kind, *cookie;
	uint32_t handle, flags;
	uint32_t packets;
	uint64_t packets64, bytes;
};

static struct nlmsghdr *tell(void *buffer, const struct told *told)
{
	struct nlmsghdr *message = mnl_nlmsg_put_header(buffer);
	struct gnet_stats_basic basic = {.bytes = told->bytes, .packets = told->packets};
	struct nlattr *options, *actions, *one, *stats;
	struct tcmsg *tc;

	message->nlmsg_type = RTM_NEWTFILTER;
	tc = mnl_nlmsg_put_extra_header(message, sizeof(*tc));
	tc->tcm_ifindex = 11;
	tc->tcm_handle = told->handle;
	tc->tcm_info = FLOWER_PRIORITY << 16 | htons(ETH_P_IP);
	mnl_attr_put_strz(message, TCA_KIND, told->kind);
	options = mnl_attr_nest_start(message, TCA_OPTIONS);
	actions = mnl_attr_nest_start(message, TCA_FLOWER_ACT);
	one = mnl_attr_nest_start(message, 1);
	mnl_attr_put_strz(message, TCA_ACT_KIND, "mirred");
	stats = mnl_attr_nest_start(message, TCA_ACT_STATS);
	mnl_attr_put(message, TCA_STATS_BASIC, sizeof(basic), &basic);
	if (told->packets64)
		mnl_attr_put_u64(message, TCA_STATS_PKT64, told->packets64);
	mnl_attr_nest_end(message, stats);
	mnl_attr_put(message, TCA_ACT_COOKIE, strlen(told->cookie), told->cookie);
	mnl_attr_nest_end(message, one);
	mnl_attr_nest_end(message, actions);
	mnl_attr_put_u32(message, TCA_FLOWER_FLAGS, told->flags);
	mnl_attr_nest_end(message, options);
	return message;
}

static void test_reading(void **state)
{
	_Alignas(8) char buffer[FLOWER_MESSAGE_MAX];
	struct told told = {.kind = "flower",
		.cookie = "heddle",
		.handle = 21,
		.flags = TCA_CLS_FLAGS_SKIP_SW | TCA_CLS_FLAGS_IN_HW,
		.packets = 7,
		.bytes = 700};
	struct nlmsghdr *message = tell(buffer, &told);
	struct flower_seen seen;

	(void)state;
	assert_true(flower_parse(message, message->nlmsg_len, &seen));
	assert_true(seen.ours && !seen.lost && seen.family == 4 && seen.handle == 21 && seen.ifindex == 11);
	assert_true(seen.packets == 7 && seen.bytes == 700);
	((struct tcmsg *)mnl_nlmsg_get_payload(message))->tcm_info = (FLOWER_PRIORITY + 2) << 16 | htons(ETH_P_8021Q);
	assert_true(flower_parse(message, message->nlmsg_len, &seen));
	assert_true(seen.ours && seen.family == FLOWER_TAGGED);
	told.packets64 = 7 + (1ull << 32);
	told.flags = TCA_CLS_FLAGS_SKIP_SW | TCA_CLS_FLAGS_NOT_IN_HW;
	message = tell(buffer, &told);
	assert_true(flower_parse(message, message->nlmsg_len, &seen));
	assert_true(seen.lost && seen.packets == told.packets64);
	told.flags = TCA_CLS_FLAGS_SKIP_HW | TCA_CLS_FLAGS_NOT_IN_HW;
	told.cookie = "heddles";
	message = tell(buffer, &told);
	assert_true(flower_parse(message, message->nlmsg_len, &seen));
	assert_true(!seen.lost && !seen.ours && seen.packets == 0);
	told.kind = "flow";
	message = tell(buffer, &told);
	assert_false(flower_parse(message, message->nlmsg_len, &seen));
	told.kind = "flower";
	told.handle = 0;
	message = tell(buffer, &told);
	assert_false(flower_parse(message, message->nlmsg_len, &seen));
	message->nlmsg_type = RTM_NEWQDISC;
	assert_false(flower_parse(message, message->nlmsg_len, &seen));
}

/* Cut anywhere, and with each length in it wrong: nothing is read that is not there (the sanitizer would tell). */
static void test_broken(void **state)
{
	_Alignas(8) char buffer[FLOWER_MESSAGE_MAX];
	const struct told told = {.kind = "flower", .cookie = "heddle", .handle = 21, .packets = 7, .bytes = 700};
	struct nlmsghdr *message = tell(buffer, &told);
	size_t length = message->nlmsg_len;
	struct flower_seen seen;

	(void)state;
	for (size_t cut = 0; cut <= length; cut++) {
		struct nlmsghdr *copy = malloc(cut ? cut : 1);

		memcpy(copy, message, cut);
		if (cut >= sizeof(*copy))
			copy->nlmsg_len = (uint32_t)cut;
		(void)flower_parse(copy, cut, &seen);
		free(copy);
	}
	message->nlmsg_len = 0xdbdbdbdb;
	assert_false(flower_parse(message, length, &seen));
	message->nlmsg_len = (uint32_t)length;
	for (size_t at = sizeof(*message); at + 2 <= length; at += 4)
		for (unsigned wrong = 0; wrong < 8; wrong++) {
			struct nlmsghdr *copy = malloc(length);
			const uint16_t values[] = {0, 1, 3, 4, 5, 0x7fff, 0xfffe, (uint16_t)length};

			memcpy(copy, message, length);
			memcpy((char *)copy + at, &values[wrong], sizeof(values[0]));
			(void)flower_parse(copy, length, &seen);
			free(copy);
		}
}

static struct nlmsghdr *answer(void *buffer, int error, const char *text, bool quoted)
{
	struct nlmsghdr *message = mnl_nlmsg_put_header(buffer);
	struct nlmsgerr *head;

	message->nlmsg_type = NLMSG_ERROR;
	message->nlmsg_flags = (uint16_t)((quoted ? 0 : NLM_F_CAPPED) | (text ? NLM_F_ACK_TLVS : 0));
	head = mnl_nlmsg_put_extra_header(message, sizeof(*head));
	head->error = error;
	head->msg.nlmsg_len = sizeof(head->msg) + 20;
	if (quoted)
		mnl_nlmsg_put_extra_header(message, 20);
	if (text)
		mnl_attr_put_strz(message, NLMSGERR_ATTR_MSG, text);
	return message;
}

static void test_answers(void **state)
{
	_Alignas(8) char buffer[FLOWER_MESSAGE_MAX];
	char reason[FLOWER_REASON_MAX], text[400];
	struct nlmsghdr *message;

	(void)state;
	for (unsigned quoted = 0; quoted < 2; quoted++) {
		message = answer(buffer, 0, NULL, quoted);
		assert_int_equal(flower_answer(message, message->nlmsg_len, reason), 0);
		assert_string_equal(reason, "");
		message = answer(buffer, -EOPNOTSUPP, "mlx5_core: Unsupported key", quoted);
		assert_int_equal(flower_answer(message, message->nlmsg_len, reason), -EOPNOTSUPP);
		assert_string_equal(reason, "mlx5_core: Unsupported key");
	}
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	message = answer(buffer, -EINVAL, text, false);
	assert_int_equal(flower_answer(message, message->nlmsg_len, reason), -EINVAL);
	assert_int_equal(strlen(reason), sizeof(reason) - 1);
	/* A request that says it is longer than all of the answer. */
	message = answer(buffer, -EINVAL, "text", true);
	((struct nlmsgerr *)mnl_nlmsg_get_payload(message))->msg.nlmsg_len = 0xfffffff0u;
	assert_int_equal(flower_answer(message, message->nlmsg_len, reason), -EINVAL);
	assert_string_equal(reason, "");
	message->nlmsg_type = NLMSG_DONE;
	assert_int_equal(flower_answer(message, message->nlmsg_len, reason), 1);
	message = answer(buffer, 5, NULL, false);
	assert_int_equal(flower_answer(message, message->nlmsg_len, reason), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tcp_over_ipv4),
		cmocka_unit_test(test_udp_and_sctp_over_ipv6),
		cmocka_unit_test(test_routed),
		cmocka_unit_test(test_wire),
		cmocka_unit_test(test_into_a_tunnel),
		cmocka_unit_test(test_out_of_a_tunnel),
		cmocka_unit_test(test_room),
		cmocka_unit_test(test_in_software),
		cmocka_unit_test(test_drops_of_tcp),
		cmocka_unit_test(test_other_drops),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_reading),
		cmocka_unit_test(test_broken),
		cmocka_unit_test(test_answers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
