/* SPDX-License-Identifier: Apache-2.0 */
#include <netdev/conntrack.h>

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include <libmnl/libmnl.h>

#include <util/addr.h>
#include <util/buffer.h>
#include <util/netlink.h>

/* Which parts of the tuple in a request count: the bits of the kernel's net/netfilter/nf_internals.h, which no other header has. */
#define FILTER_PROTOCOL (1u << 3)
#define FILTER_DESTINATION_PORT (1u << 5)

static struct nlmsghdr *put_header(void *room, uint16_t type, uint16_t flags, uint8_t family)
{
	struct nlmsghdr *message = mnl_nlmsg_put_header(room);
	struct nfgenmsg *body;

	message->nlmsg_type = (uint16_t)(NFNL_SUBSYS_CTNETLINK << 8 | type);
	message->nlmsg_flags = NLM_F_REQUEST | flags;
	body = mnl_nlmsg_put_extra_header(message, sizeof(*body));
	body->nfgen_family = family;
	body->version = NFNETLINK_V0;
	return message;
}

/* --- what the kernel says --- */

struct attrs {
	const struct nlattr *of[CTA_MAX + 1];
};

static int on_attr(const struct nlattr *attr, void *userdata)
{
	struct attrs *attrs = userdata;

	if (mnl_attr_get_type(attr) <= CTA_MAX)
		attrs->of[mnl_attr_get_type(attr)] = attr;
	return MNL_CB_OK;
}

static bool parse_nested(const struct nlattr *attr, struct attrs *ret)
{
	*ret = (struct attrs){0};
	return attr && mnl_attr_parse_nested(attr, on_attr, ret) >= 0;
}

struct tuple {
	struct hd_addr source, destination;
	uint16_t source_port, destination_port;
};

static bool take_address(const struct nlattr *ipv4, const struct nlattr *ipv6, struct hd_addr *ret)
{
	uint32_t address;

	if (ipv4 && mnl_attr_get_payload_len(ipv4) == sizeof(address)) {
		memcpy(&address, mnl_attr_get_payload(ipv4), sizeof(address));
		*ret = addr_from_ipv4(address);
		return true;
	}
	if (!ipv6 || mnl_attr_get_payload_len(ipv6) != sizeof(*ret))
		return false;
	memcpy(ret, mnl_attr_get_payload(ipv6), sizeof(*ret));
	return true;
}

static bool take_port(const struct nlattr *attr, uint16_t *ret)
{
	if (!attr || mnl_attr_get_payload_len(attr) != sizeof(*ret))
		return false;
	memcpy(ret, mnl_attr_get_payload(attr), sizeof(*ret));
	*ret = ntohs(*ret);
	return true;
}

static bool is_udp(const struct nlattr *protocol)
{
	return protocol && mnl_attr_get_payload_len(protocol) == 1 && mnl_attr_get_u8(protocol) == IPPROTO_UDP;
}

/* Of UDP alone. */
static bool take_tuple(const struct nlattr *attr, struct tuple *ret)
{
	struct attrs tuple, ip, protocol;

	return parse_nested(attr, &tuple) && parse_nested(tuple.of[CTA_TUPLE_IP], &ip) &&
	       parse_nested(tuple.of[CTA_TUPLE_PROTO], &protocol) && is_udp(protocol.of[CTA_PROTO_NUM]) &&
	       take_address(ip.of[CTA_IP_V4_SRC], ip.of[CTA_IP_V6_SRC], &ret->source) &&
	       take_address(ip.of[CTA_IP_V4_DST], ip.of[CTA_IP_V6_DST], &ret->destination) &&
	       take_port(protocol.of[CTA_PROTO_SRC_PORT], &ret->source_port) &&
	       take_port(protocol.of[CTA_PROTO_DST_PORT], &ret->destination_port);
}

struct search {
	bool (*is)(const struct conntrack_flow *flow, void *userdata);
	void *userdata;
	struct buffer requests; /* that remove what was found: one message behind the other */
};

static void add_removal(struct search *search, uint8_t family, const struct attrs *attrs)
{
	/* with its number: another flow may have the same addresses by then */
	static const uint16_t kept[] = {CTA_TUPLE_ORIG, CTA_ZONE, CTA_ID};
	char room[1024];
	struct nlmsghdr *message = put_header(room, IPCTNL_MSG_CT_DELETE, NLM_F_ACK, family);

	for (size_t i = 0; i < ARRAY_SIZE(kept); i++) {
		const struct nlattr *attr = attrs->of[kept[i]];

		if (attr && !mnl_attr_put_check(message, sizeof(room), attr->nla_type, mnl_attr_get_payload_len(attr),
				    mnl_attr_get_payload(attr)))
			return;
	}
	buffer_add(&search->requests, message, message->nlmsg_len);
}

static int on_flow(const struct nlmsghdr *message, void *userdata)
{
	const struct nfgenmsg *body = mnl_nlmsg_get_payload(message);
	struct search *search = userdata;
	struct attrs attrs = {0};
	struct tuple to, back;
	struct conntrack_flow flow;

	if (mnl_nlmsg_get_payload_len(message) < sizeof(*body) || mnl_attr_parse(message, sizeof(*body), on_attr, &attrs) < 0 ||
		!take_tuple(attrs.of[CTA_TUPLE_ORIG], &to) || !take_tuple(attrs.of[CTA_TUPLE_REPLY], &back))
		return MNL_CB_OK;
	flow = (struct conntrack_flow){
		.to = to.destination, .answers = back.source, .to_port = to.destination_port, .answers_port = back.source_port};
	if (search->is(&flow, search->userdata))
		add_removal(search, body->nfgen_family, &attrs);
	return MNL_CB_OK;
}

/* --- asking --- */

/* Filtered by the kernel: there may be hundreds of thousands of others. */
static void put_filter(struct nlmsghdr *message, uint16_t port)
{
	struct nlattr *tuple = mnl_attr_nest_start(message, CTA_TUPLE_ORIG);
	struct nlattr *protocol = mnl_attr_nest_start(message, CTA_TUPLE_PROTO), *filter;

	mnl_attr_put_u8(message, CTA_PROTO_NUM, IPPROTO_UDP);
	if (port)
		mnl_attr_put_u16(message, CTA_PROTO_DST_PORT, htons(port));
	mnl_attr_nest_end(message, protocol);
	mnl_attr_nest_end(message, tuple);
	filter = mnl_attr_nest_start(message, CTA_FILTER);
	mnl_attr_put_u32(message, CTA_FILTER_ORIG_FLAGS, FILTER_PROTOCOL | (port ? FILTER_DESTINATION_PORT : 0));
	mnl_attr_put_u32(message, CTA_FILTER_REPLY_FLAGS, 0);
	mnl_attr_nest_end(message, filter);
}

static int list(struct mnl_socket *socket, uint8_t family, uint16_t port, struct search *search)
{
	NETLINK_REQUEST(room);
	struct nlmsghdr *request = put_header(room, IPCTNL_MSG_CT_GET, NLM_F_DUMP, family);
	int r;

	put_filter(request, port);
	r = netlink_ask(socket, request, on_flow, search);
	/* EINVAL: no such subsystem */
	return r == -EINVAL ? -EOPNOTSUPP : r;
}

static int remove_found(struct mnl_socket *socket, const struct buffer *requests, size_t *ret_n)
{
	int first_error = 0;

	for (size_t at = 0, size; at < requests->length; at += size) {
		struct nlmsghdr *request = (void *)(requests->data + at);
		int r = netlink_ask(socket, request, NULL, NULL);

		size = MNL_ALIGN(request->nlmsg_len);
		if (r == 0)
			++*ret_n;
		else if (r != -ENOENT && first_error == 0) /* that one is gone by itself */
			first_error = r;
	}
	return first_error;
}

int conntrack_forget_udp(
	uint16_t port, bool (*is)(const struct conntrack_flow *flow, void *userdata), void *userdata, size_t *ret_n)
{
	static const uint8_t families[] = {AF_INET, AF_INET6};
	_cleanup_netlink_ struct mnl_socket *socket = NULL;
	struct search search = {.is = is, .userdata = userdata};
	int r = netlink_open(NETLINK_NETFILTER, &socket);

	*ret_n = 0;
	if (r == -EPROTONOSUPPORT)
		r = -EOPNOTSUPP;
	for (size_t i = 0; i < ARRAY_SIZE(families) && r == 0; i++)
		r = list(socket, families[i], port, &search);
	if (r == 0)
		r = search.requests.failed ? -ENOMEM : remove_found(socket, &search.requests, ret_n);
	buffer_clear(&search.requests);
	return r;
}
