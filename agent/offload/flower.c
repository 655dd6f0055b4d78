/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <arpa/inet.h>
#include <linux/gen_stats.h>
#include <linux/if_ether.h>
#include <linux/in.h>
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

#include <libmnl/libmnl.h>

#include <heddle/network.h>
#include <offload/flower.h>
#include <util/addr.h>

#define INGRESS TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)

/* Of byte 13 of a TCP header. */
#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10
/*
 * What a routed packet's TTL must be: 64 to 127. A rule can ask for bits only, and a TTL that is at its end has to be answered; workloads begin
 * with 64.
 */
#define TTL_BITS 0x40
#define TTL_MASK 0xc0

/* DF is set on the outer packet: since 6.4, ignored before. */
#define TUNNEL_KEY_NO_FRAG 14

/*
 * ECN marks of the outer header that change the inner one (RFC 6040: CE, ECT(1)) have this bit. Who takes tunnel packets apart by a rule does not look
 * at them.
 */
#define ECN_CHANGES 0x01

static struct nlmsghdr *put_head(void *buffer, uint16_t type, uint16_t flags, uint32_t ifindex, uint32_t handle, uint32_t info)
{
	struct nlmsghdr *message = mnl_nlmsg_put_header(buffer);
	struct tcmsg *tc;

	message->nlmsg_type = type;
	message->nlmsg_flags = NLM_F_REQUEST | flags;
	tc = mnl_nlmsg_put_extra_header(message, sizeof(*tc));
	tc->tcm_ifindex = (int)ifindex;
	tc->tcm_parent = INGRESS;
	tc->tcm_handle = handle;
	tc->tcm_info = info;
	return message;
}

static uint32_t info_of(uint8_t family, const struct flower_mode *mode)
{
	static const struct {
		uint16_t behind, protocol;
	} of[] = {[4] = {0, ETH_P_IP}, [6] = {1, ETH_P_IPV6}, [FLOWER_TAGGED] = {2, ETH_P_8021Q}};
	uint32_t priority = mode->priority + of[family].behind;

	return TC_H_MAKE(priority << 16, htons(of[family].protocol));
}

uint8_t flower_family(const struct offload_rule *rule)
{
	return rule->outside == OFFLOAD_UNTAG ? FLOWER_TAGGED : rule->family;
}

/* --- what it asks for --- */

static void put_masked(struct nlmsghdr *message, uint16_t key, uint16_t mask, const void *value, const void *bits, size_t length)
{
	mnl_attr_put(message, key, length, value);
	mnl_attr_put(message, mask, length, bits);
}

static const uint8_t all[16] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

/* Whose tunnel packet it is, and that its header changes nothing inside. */
static void put_outer(struct nlmsghdr *message, const struct offload_tunnel *tunnel)
{
	const uint8_t none = 0, ecn = ECN_CHANGES;

	mnl_attr_put_u32(message, TCA_FLOWER_KEY_ENC_KEY_ID, htonl(tunnel->vni));
	if (addr_is_ipv4(&tunnel->remote)) {
		put_masked(message, TCA_FLOWER_KEY_ENC_IPV4_SRC, TCA_FLOWER_KEY_ENC_IPV4_SRC_MASK, &tunnel->remote.w[3], all, 4);
		put_masked(message, TCA_FLOWER_KEY_ENC_IPV4_DST, TCA_FLOWER_KEY_ENC_IPV4_DST_MASK, &tunnel->local.w[3], all, 4);
	} else {
		put_masked(message, TCA_FLOWER_KEY_ENC_IPV6_SRC, TCA_FLOWER_KEY_ENC_IPV6_SRC_MASK, &tunnel->remote, all, 16);
		put_masked(message, TCA_FLOWER_KEY_ENC_IPV6_DST, TCA_FLOWER_KEY_ENC_IPV6_DST_MASK, &tunnel->local, all, 16);
	}
	put_masked(message, TCA_FLOWER_KEY_ENC_UDP_DST_PORT, TCA_FLOWER_KEY_ENC_UDP_DST_PORT_MASK, &tunnel->port, all, 2);
	put_masked(message, TCA_FLOWER_KEY_ENC_IP_TOS, TCA_FLOWER_KEY_ENC_IP_TOS_MASK, &none, &ecn, 1);
}

/* EtherType, behind the network's tag of any priority where it has one. */
static void put_type(struct nlmsghdr *message, const struct offload_rule *rule)
{
	uint16_t type = htons(rule->family == 4 ? ETH_P_IP : ETH_P_IPV6);

	if (rule->outside != OFFLOAD_UNTAG) {
		mnl_attr_put_u16(message, TCA_FLOWER_KEY_ETH_TYPE, type);
		return;
	}
	mnl_attr_put_u16(message, TCA_FLOWER_KEY_ETH_TYPE, htons(ETH_P_8021Q));
	mnl_attr_put_u16(message, TCA_FLOWER_KEY_VLAN_ID, rule->vlan);
	mnl_attr_put_u16(message, TCA_FLOWER_KEY_VLAN_ETH_TYPE, type);
}

static void put_macs(struct nlmsghdr *message, const struct offload_rule *rule)
{
	static const uint8_t none[ETH_ALEN], group[ETH_ALEN] = {1};

	if (rule->readdressed) {
		put_masked(message, TCA_FLOWER_KEY_ETH_DST, TCA_FLOWER_KEY_ETH_DST_MASK, none, group, ETH_ALEN);
		return;
	}
	put_masked(message, TCA_FLOWER_KEY_ETH_SRC, TCA_FLOWER_KEY_ETH_SRC_MASK, rule->source_mac, all, ETH_ALEN);
	put_masked(message, TCA_FLOWER_KEY_ETH_DST, TCA_FLOWER_KEY_ETH_DST_MASK, rule->destination_mac, all, ETH_ALEN);
}

static void put_addresses(struct nlmsghdr *message, const struct offload_rule *rule)
{
	if (rule->family == 4) {
		put_masked(message, TCA_FLOWER_KEY_IPV4_SRC, TCA_FLOWER_KEY_IPV4_SRC_MASK, &rule->source.w[3], all, 4);
		put_masked(message, TCA_FLOWER_KEY_IPV4_DST, TCA_FLOWER_KEY_IPV4_DST_MASK, &rule->destination.w[3], all, 4);
	} else {
		put_masked(message, TCA_FLOWER_KEY_IPV6_SRC, TCA_FLOWER_KEY_IPV6_SRC_MASK, &rule->source, all, 16);
		put_masked(message, TCA_FLOWER_KEY_IPV6_DST, TCA_FLOWER_KEY_IPV6_DST_MASK, &rule->destination, all, 16);
	}
}

static const struct {
	uint8_t protocol;
	uint16_t source, source_mask, destination, destination_mask;
} ports[] = {
	{IPPROTO_TCP, TCA_FLOWER_KEY_TCP_SRC, TCA_FLOWER_KEY_TCP_SRC_MASK, TCA_FLOWER_KEY_TCP_DST, TCA_FLOWER_KEY_TCP_DST_MASK},
	{IPPROTO_UDP, TCA_FLOWER_KEY_UDP_SRC, TCA_FLOWER_KEY_UDP_SRC_MASK, TCA_FLOWER_KEY_UDP_DST, TCA_FLOWER_KEY_UDP_DST_MASK},
	{IPPROTO_SCTP, TCA_FLOWER_KEY_SCTP_SRC, TCA_FLOWER_KEY_SCTP_SRC_MASK, TCA_FLOWER_KEY_SCTP_DST,
		TCA_FLOWER_KEY_SCTP_DST_MASK},
};

static void put_icmp(struct nlmsghdr *message, const struct offload_rule *rule)
{
	const uint8_t *type = (const uint8_t *)&rule->destination_port;

	if (rule->protocol == IPPROTO_ICMP) {
		put_masked(message, TCA_FLOWER_KEY_ICMPV4_TYPE, TCA_FLOWER_KEY_ICMPV4_TYPE_MASK, &type[0], all, 1);
		put_masked(message, TCA_FLOWER_KEY_ICMPV4_CODE, TCA_FLOWER_KEY_ICMPV4_CODE_MASK, &type[1], all, 1);
	}
	if (rule->protocol == IPPROTO_ICMPV6) {
		put_masked(message, TCA_FLOWER_KEY_ICMPV6_TYPE, TCA_FLOWER_KEY_ICMPV6_TYPE_MASK, &type[0], all, 1);
		put_masked(message, TCA_FLOWER_KEY_ICMPV6_CODE, TCA_FLOWER_KEY_ICMPV6_CODE_MASK, &type[1], all, 1);
	}
}

/* Only what carries data, or of what is dropped, only what opens a connection: everything else, and fragments, are for the programs. */
static void put_transport(struct nlmsghdr *message, const struct offload_rule *rule)
{
	__be32 no_flags = 0, fragment = htonl(TCA_FLOWER_KEY_FLAGS_IS_FRAGMENT);
	__be16 wanted = htons(rule->out ? TCP_ACK : TCP_SYN), asked = htons(TCP_ACK | TCP_SYN | TCP_FIN | TCP_RST);
	const uint8_t none = 0;
	bool any_source = !rule->out && rule->protocol == IPPROTO_TCP;

	mnl_attr_put_u8(message, TCA_FLOWER_KEY_IP_PROTO, rule->protocol);
	put_masked(message, TCA_FLOWER_KEY_FLAGS, TCA_FLOWER_KEY_FLAGS_MASK, &no_flags, &fragment, sizeof(fragment));
	for (size_t i = 0; i < sizeof(ports) / sizeof(ports[0]); i++)
		if (ports[i].protocol == rule->protocol) {
			if (!any_source)
				put_masked(message, ports[i].source, ports[i].source_mask, &rule->source_port, all, 2);
			put_masked(message, ports[i].destination, ports[i].destination_mask, &rule->destination_port, all, 2);
		}
	if (rule->protocol == IPPROTO_TCP)
		put_masked(message, TCA_FLOWER_KEY_TCP_FLAGS, TCA_FLOWER_KEY_TCP_FLAGS_MASK, &wanted, &asked, sizeof(wanted));
	put_icmp(message, rule);
	if (rule->routed)
		put_masked(message, TCA_FLOWER_KEY_IP_TTL, TCA_FLOWER_KEY_IP_TTL_MASK, &(uint8_t){TTL_BITS}, &(uint8_t){TTL_MASK},
			1);
	/* Our programs copy DSCP and ECN to the outer header. A rule writes the same one always. */
	if (rule->outside == OFFLOAD_ENCAP)
		put_masked(message, TCA_FLOWER_KEY_IP_TOS, TCA_FLOWER_KEY_IP_TOS_MASK, &none, all, 1);
}

/* --- what it does --- */

struct action {
	struct nlattr *around, *options;
};

static struct action action_begin(struct nlmsghdr *message, unsigned *order, const char *kind)
{
	struct action action;

	action.around = mnl_attr_nest_start(message, (uint16_t)++ * order);
	mnl_attr_put_strz(message, TCA_ACT_KIND, kind);
	action.options = mnl_attr_nest_start(message, TCA_ACT_OPTIONS);
	return action;
}

static void action_end(struct nlmsghdr *message, const struct action *action)
{
	mnl_attr_nest_end(message, action->options);
	mnl_attr_nest_end(message, action->around);
}

/* Changes 32 bits of a header: those that mask has not. */
struct edit {
	uint16_t header, command;
	uint32_t offset;
	__be32 mask, value;
};

static __be32 word(const uint8_t *bytes)
{
	__be32 value;

	memcpy(&value, bytes, sizeof(value));
	return value;
}

/* MACs, and behind them the TTL of what is routed here. Returns how many. */
#define EDITS 4
static uint8_t list_edits(const struct offload_rule *rule, struct edit edits[EDITS])
{
	const uint8_t *to = rule->new_destination_mac, *from = rule->new_source_mac;
	const uint8_t between[4] = {to[4], to[5], from[0], from[1]};
	bool is4 = rule->family == 4;

	edits[0] = (struct edit){TCA_PEDIT_KEY_EX_HDR_TYPE_ETH, TCA_PEDIT_KEY_EX_CMD_SET, 0, 0, word(to)};
	edits[1] = (struct edit){TCA_PEDIT_KEY_EX_HDR_TYPE_ETH, TCA_PEDIT_KEY_EX_CMD_SET, 4, 0, word(between)};
	edits[2] = (struct edit){TCA_PEDIT_KEY_EX_HDR_TYPE_ETH, TCA_PEDIT_KEY_EX_CMD_SET, 8, 0, word(from + 2)};
	if (!rule->routed)
		return 3;
	/* One less is 255 more. */
	if (is4)
		edits[3] = (struct edit){
			TCA_PEDIT_KEY_EX_HDR_TYPE_IP4, TCA_PEDIT_KEY_EX_CMD_ADD, 8, ~htonl(0xff000000), htonl(0xff000000)};
	else
		edits[3] = (struct edit){TCA_PEDIT_KEY_EX_HDR_TYPE_IP6, TCA_PEDIT_KEY_EX_CMD_ADD, 4, ~htonl(0xff), htonl(0xff)};
	return 4;
}

static void put_edits(struct nlmsghdr *message, unsigned *order, const struct offload_rule *rule)
{
	struct action action = action_begin(message, order, "pedit");
	struct {
		struct tc_pedit_sel head;
		struct tc_pedit_key keys[EDITS];
	} sel = {.head = {.action = TC_ACT_PIPE}};
	struct edit edits[EDITS];
	struct nlattr *whole, *one;
	uint8_t n = list_edits(rule, edits);

	sel.head.nkeys = n;
	for (unsigned i = 0; i < n; i++)
		sel.keys[i] = (struct tc_pedit_key){.mask = edits[i].mask, .val = edits[i].value, .off = edits[i].offset};
	mnl_attr_put(message, TCA_PEDIT_PARMS_EX, sizeof(sel.head) + n * sizeof(sel.keys[0]), &sel);
	whole = mnl_attr_nest_start(message, TCA_PEDIT_KEYS_EX);
	for (unsigned i = 0; i < n; i++) {
		one = mnl_attr_nest_start(message, TCA_PEDIT_KEY_EX);
		mnl_attr_put_u16(message, TCA_PEDIT_KEY_EX_HTYPE, edits[i].header);
		mnl_attr_put_u16(message, TCA_PEDIT_KEY_EX_CMD, edits[i].command);
		mnl_attr_nest_end(message, one);
	}
	mnl_attr_nest_end(message, whole);
	action_end(message, &action);
}

static void put_checksum(struct nlmsghdr *message, unsigned *order)
{
	struct action action = action_begin(message, order, "csum");
	struct tc_csum csum = {.action = TC_ACT_PIPE, .update_flags = TCA_CSUM_UPDATE_FLAG_IPV4HDR};

	mnl_attr_put(message, TCA_CSUM_PARMS, sizeof(csum), &csum);
	action_end(message, &action);
}

static void put_tag(struct nlmsghdr *message, unsigned *order, const struct offload_rule *rule)
{
	struct action action = action_begin(message, order, "vlan");
	struct tc_vlan tag = {
		.action = TC_ACT_PIPE, .v_action = rule->outside == OFFLOAD_TAG ? TCA_VLAN_ACT_PUSH : TCA_VLAN_ACT_POP};

	mnl_attr_put(message, TCA_VLAN_PARMS, sizeof(tag), &tag);
	if (rule->outside == OFFLOAD_TAG) {
		mnl_attr_put_u16(message, TCA_VLAN_PUSH_VLAN_ID, rule->vlan);
		mnl_attr_put_u16(message, TCA_VLAN_PUSH_VLAN_PROTOCOL, htons(ETH_P_8021Q));
		mnl_attr_put_u8(message, TCA_VLAN_PUSH_VLAN_PRIORITY, 0);
	}
	action_end(message, &action);
}

/* As encap.h writes them, but for what the kernel or the NIC chooses: the source port, and IPv4's id. */
static void put_outer_headers(struct nlmsghdr *message, const struct offload_tunnel *tunnel)
{
	if (addr_is_ipv4(&tunnel->remote)) {
		mnl_attr_put(message, TCA_TUNNEL_KEY_ENC_IPV4_SRC, 4, &tunnel->local.w[3]);
		mnl_attr_put(message, TCA_TUNNEL_KEY_ENC_IPV4_DST, 4, &tunnel->remote.w[3]);
	} else {
		mnl_attr_put(message, TCA_TUNNEL_KEY_ENC_IPV6_SRC, 16, &tunnel->local);
		mnl_attr_put(message, TCA_TUNNEL_KEY_ENC_IPV6_DST, 16, &tunnel->remote);
	}
	mnl_attr_put_u32(message, TCA_TUNNEL_KEY_ENC_KEY_ID, htonl(tunnel->vni));
	mnl_attr_put_u16(message, TCA_TUNNEL_KEY_ENC_DST_PORT, tunnel->port);
	mnl_attr_put_u8(message, TCA_TUNNEL_KEY_NO_CSUM, 1);
	mnl_attr_put_u8(message, TCA_TUNNEL_KEY_ENC_TOS, 0);
	mnl_attr_put_u8(message, TCA_TUNNEL_KEY_ENC_TTL, tunnel->ttl);
	mnl_attr_put(message, TUNNEL_KEY_NO_FRAG, 0, NULL);
}

static void put_tunnel(struct nlmsghdr *message, unsigned *order, const struct offload_rule *rule)
{
	struct action action = action_begin(message, order, "tunnel_key");
	bool set = rule->outside == OFFLOAD_ENCAP;
	struct tc_tunnel_key key = {.action = TC_ACT_PIPE, .t_action = set ? TCA_TUNNEL_KEY_ACT_SET : TCA_TUNNEL_KEY_ACT_RELEASE};

	mnl_attr_put(message, TCA_TUNNEL_KEY_PARMS, sizeof(key), &key);
	if (set)
		put_outer_headers(message, &rule->tunnel);
	action_end(message, &action);
}

static void put_mark(struct nlmsghdr *message, unsigned *order)
{
	struct action action = action_begin(message, order, "skbedit");
	struct tc_skbedit edit = {.action = TC_ACT_PIPE};

	mnl_attr_put(message, TCA_SKBEDIT_PARMS, sizeof(edit), &edit);
	mnl_attr_put_u32(message, TCA_SKBEDIT_MARK, HD_MARK);
	action_end(message, &action);
}

/* The last one, by which the rule is known. */
static void action_end_ours(struct nlmsghdr *message, const struct action *action)
{
	mnl_attr_nest_end(message, action->options);
	mnl_attr_put(message, TCA_ACT_COOKIE, strlen(FLOWER_COOKIE), FLOWER_COOKIE);
	mnl_attr_nest_end(message, action->around);
}

static void put_redirect(struct nlmsghdr *message, unsigned *order, uint32_t ifindex)
{
	struct action action = action_begin(message, order, "mirred");
	struct tc_mirred mirred = {.action = TC_ACT_STOLEN, .eaction = TCA_EGRESS_REDIR, .ifindex = ifindex};

	mnl_attr_put(message, TCA_MIRRED_PARMS, sizeof(mirred), &mirred);
	action_end_ours(message, &action);
}

static void put_drop(struct nlmsghdr *message, unsigned *order)
{
	struct action action = action_begin(message, order, "gact");
	struct tc_gact gact = {.action = TC_ACT_SHOT};

	mnl_attr_put(message, TCA_GACT_PARMS, sizeof(gact), &gact);
	action_end_ours(message, &action);
}

/* What a packet goes through that is forwarded. */
static void put_forward(
	struct nlmsghdr *message, unsigned *order, const struct offload_rule *rule, const struct flower_mode *mode)
{
	if (rule->outside == OFFLOAD_DECAP)
		put_tunnel(message, order, rule);
	if (rule->outside == OFFLOAD_UNTAG)
		put_tag(message, order, rule);
	if (rule->routed || rule->readdressed)
		put_edits(message, order, rule);
	if (rule->routed && rule->family == 4)
		put_checksum(message, order);
	if (rule->outside == OFFLOAD_TAG)
		put_tag(message, order, rule);
	if (rule->outside == OFFLOAD_ENCAP)
		put_tunnel(message, order, rule);
	if (mode->software)
		put_mark(message, order);
	put_redirect(message, order, rule->out);
}

struct nlmsghdr *flower_add(void *buffer, const struct flower_filter *filter, const struct flower_mode *mode)
{
	const struct offload_rule *rule = &filter->rule;
	struct nlmsghdr *message = put_head(buffer, RTM_NEWTFILTER, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, rule->in,
		filter->handle, info_of(flower_family(rule), mode));
	struct nlattr *options, *actions;
	unsigned order = 0;

	mnl_attr_put_strz(message, TCA_KIND, "flower");
	options = mnl_attr_nest_start(message, TCA_OPTIONS);
	put_type(message, rule);
	if (rule->outside == OFFLOAD_DECAP)
		put_outer(message, &rule->tunnel);
	put_macs(message, rule);
	put_addresses(message, rule);
	put_transport(message, rule);
	actions = mnl_attr_nest_start(message, TCA_FLOWER_ACT);
	if (rule->out)
		put_forward(message, &order, rule, mode);
	else
		put_drop(message, &order);
	mnl_attr_nest_end(message, actions);
	mnl_attr_put_u32(message, TCA_FLOWER_FLAGS, mode->software ? TCA_CLS_FLAGS_SKIP_HW : TCA_CLS_FLAGS_SKIP_SW);
	mnl_attr_nest_end(message, options);
	return message;
}

struct nlmsghdr *flower_name(
	void *buffer, uint16_t type, uint32_t ifindex, uint32_t handle, uint8_t family, const struct flower_mode *mode)
{
	uint16_t flags = type == RTM_DELTFILTER ? NLM_F_ACK : handle ? 0 : NLM_F_DUMP;
	struct nlmsghdr *message = put_head(buffer, type, flags, ifindex, handle, info_of(family, mode));

	if (handle)
		mnl_attr_put_strz(message, TCA_KIND, "flower");
	return message;
}

/* --- what the kernel says --- */

/* The first attribute of those from `at` to `end`; NULL: there is none that is whole. */
static const struct nlattr *first_attribute(const void *at, const void *end)
{
	return mnl_attr_ok(at, (int)((const char *)end - (const char *)at)) ? at : NULL;
}

static const struct nlattr *next_attribute(const struct nlattr *attribute, const void *end)
{
	return first_attribute(mnl_attr_next(attribute), end);
}

static const void *nest_end(const struct nlattr *nest)
{
	return (const char *)mnl_attr_get_payload(nest) + mnl_attr_get_payload_len(nest);
}

#define EACH_ATTRIBUTE(name, begin, end) \
	for (const struct nlattr *name = first_attribute(begin, end); name; name = next_attribute(name, end))
#define EACH_NESTED(name, nest) EACH_ATTRIBUTE(name, mnl_attr_get_payload(nest), nest_end(nest))

bool flower_whole(const struct nlmsghdr *message, int length)
{
	return length >= (int)sizeof(*message) && message->nlmsg_len >= sizeof(*message) &&
	       message->nlmsg_len <= (uint32_t)length;
}

static const void *message_end(const struct nlmsghdr *message)
{
	return (const char *)message + message->nlmsg_len;
}

static void read_counters(const struct nlattr *stats, struct flower_seen *seen)
{
	bool wide = false;

	EACH_NESTED(attribute, stats)
	{
		uint16_t type = mnl_attr_get_type(attribute), length = mnl_attr_get_payload_len(attribute);
		struct gnet_stats_basic basic;

		if (type == TCA_STATS_BASIC && length >= 12) {
			memcpy(&basic, mnl_attr_get_payload(attribute), 12);
			seen->bytes = basic.bytes;
			if (!wide)
				seen->packets = basic.packets;
		}
		/* There where the count does not fit into the other one, 6.1 and 6.12 say it always. */
		if (type == TCA_STATS_PKT64 && length >= sizeof(uint64_t)) {
			memcpy(&seen->packets, mnl_attr_get_payload(attribute), sizeof(seen->packets));
			wide = true;
		}
	}
}

static void read_action(const struct nlattr *action, struct flower_seen *seen)
{
	const struct nlattr *stats = NULL;
	bool ours = false;

	EACH_NESTED(attribute, action)
	{
		if (mnl_attr_get_type(attribute) == TCA_ACT_STATS)
			stats = attribute;
		if (mnl_attr_get_type(attribute) == TCA_ACT_COOKIE)
			ours = mnl_attr_get_payload_len(attribute) == strlen(FLOWER_COOKIE) &&
			       memcmp(mnl_attr_get_payload(attribute), FLOWER_COOKIE, strlen(FLOWER_COOKIE)) == 0;
	}
	if (!ours)
		return;
	seen->ours = true;
	if (stats)
		read_counters(stats, seen);
}

static void read_options(const struct nlattr *options, struct flower_seen *seen)
{
	EACH_NESTED(attribute, options)
	{
		if (mnl_attr_get_type(attribute) == TCA_FLOWER_ACT) {
			EACH_NESTED(action, attribute)
			read_action(action, seen);
		}
		if (mnl_attr_get_type(attribute) == TCA_FLOWER_FLAGS && mnl_attr_get_payload_len(attribute) >= sizeof(uint32_t)) {
			uint32_t flags = mnl_attr_get_u32(attribute);

			seen->lost = (flags & TCA_CLS_FLAGS_SKIP_SW) && !(flags & TCA_CLS_FLAGS_IN_HW);
		}
	}
}

bool flower_parse(const struct nlmsghdr *message, size_t length, struct flower_seen *ret)
{
	const struct nlattr *options = NULL;
	const struct tcmsg *tc;
	bool flower = false;

	if (!flower_whole(message, (int)length) || message->nlmsg_type != RTM_NEWTFILTER ||
		mnl_nlmsg_get_payload_len(message) < sizeof(*tc))
		return false;
	tc = mnl_nlmsg_get_payload(message);
	if (!tc->tcm_handle)
		return false; /* a classifier as such */
	EACH_ATTRIBUTE(attribute, mnl_nlmsg_get_payload_offset(message, sizeof(*tc)), message_end(message))
	{
		if (mnl_attr_get_type(attribute) == TCA_KIND)
			flower = mnl_attr_get_payload_len(attribute) == sizeof("flower") &&
				 memcmp(mnl_attr_get_payload(attribute), "flower", sizeof("flower")) == 0;
		if (mnl_attr_get_type(attribute) == TCA_OPTIONS)
			options = attribute;
	}
	if (!flower || !options)
		return false;
	*ret = (struct flower_seen){.ifindex = (uint32_t)tc->tcm_ifindex,
		.handle = tc->tcm_handle,
		.info = tc->tcm_info,
		.family = TC_H_MIN(tc->tcm_info) == htons(ETH_P_8021Q)	? FLOWER_TAGGED
			  : TC_H_MIN(tc->tcm_info) == htons(ETH_P_IPV6) ? 6
									: 4};
	read_options(options, ret);
	return true;
}

int flower_answer(const struct nlmsghdr *message, size_t length, char reason[FLOWER_REASON_MAX])
{
	const struct nlmsgerr *error;
	const char *at, *end;

	reason[0] = '\0';
	if (!flower_whole(message, (int)length) || message->nlmsg_type != NLMSG_ERROR ||
		mnl_nlmsg_get_payload_len(message) < sizeof(*error))
		return 1;
	error = mnl_nlmsg_get_payload(message);
	at = (const char *)(error + 1);
	end = message_end(message);
	/* Behind the request that it quotes, unless that was left out. */
	if (!(message->nlmsg_flags & NLM_F_CAPPED)) {
		size_t quoted =
			error->msg.nlmsg_len < sizeof(error->msg) ? 0 : MNL_ALIGN(error->msg.nlmsg_len) - sizeof(error->msg);

		at = quoted > (size_t)(end - at) ? end : at + quoted;
	}
	if (message->nlmsg_flags & NLM_F_ACK_TLVS) {
		EACH_ATTRIBUTE(attribute, at, end)
		if (mnl_attr_get_type(attribute) == NLMSGERR_ATTR_MSG)
			snprintf(reason, FLOWER_REASON_MAX, "%.*s", (int)mnl_attr_get_payload_len(attribute),
				(const char *)mnl_attr_get_payload(attribute));
	}
	return error->error > 0 ? -EPROTO : error->error;
}
