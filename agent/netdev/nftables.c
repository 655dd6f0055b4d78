/* SPDX-License-Identifier: Apache-2.0 */
#include <netdev/nftables.h>

#include <assert.h>
#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_nat.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <util/cleanup.h>
#include <util/netlink.h>

#define MESSAGE_SIZE 65536
#define LIST_MAX 32768u /* bytes of elements in one message: an attribute's length has 16 bits */

/* --- bytes --- */

static void put(struct nft_batch *batch, const void *data, size_t size)
{
	static const char zeros[NLMSG_ALIGNTO];

	buffer_add(&batch->data, data, size);
	buffer_add(&batch->data, zeros, MNL_ALIGN(size) - size);
}

static void put_attr(struct nft_batch *batch, uint16_t type, const void *data, size_t size)
{
	const struct nlattr attr = {.nla_len = (uint16_t)(sizeof(attr) + size), .nla_type = type};

	put(batch, &attr, sizeof(attr));
	put(batch, data, size);
}

static void put_text(struct nft_batch *batch, uint16_t type, const char *text)
{
	put_attr(batch, type, text, strlen(text) + 1);
}

static void put_be32(struct nft_batch *batch, uint16_t type, uint32_t value)
{
	value = htonl(value);
	put_attr(batch, type, &value, sizeof(value));
}

/* Where it begins; its length is known at its end. */
static size_t open_nest(struct nft_batch *batch, uint16_t type)
{
	size_t at = batch->data.length;

	put_attr(batch, type | NLA_F_NESTED, NULL, 0);
	return at;
}

static void close_nest(struct nft_batch *batch, size_t at)
{
	if (!batch->data.failed)
		((struct nlattr *)(batch->data.data + at))->nla_len = (uint16_t)(batch->data.length - at);
}

static void put_value(struct nft_batch *batch, uint16_t type, const void *data, size_t size)
{
	size_t nest = open_nest(batch, type);

	put_attr(batch, NFTA_DATA_VALUE, data, size);
	close_nest(batch, nest);
}

/* --- messages --- */

static void open_message(struct nft_batch *batch, uint16_t type, uint16_t flags, uint8_t family, uint16_t resource)
{
	const struct nlmsghdr header = {
		.nlmsg_type = type, .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags), .nlmsg_seq = ++batch->sequence};
	const struct nfgenmsg body = {.nfgen_family = family, .version = NFNETLINK_V0, .res_id = htons(resource)};

	batch->message = batch->data.length;
	put(batch, &header, sizeof(header));
	put(batch, &body, sizeof(body));
}

static void close_message(struct nft_batch *batch)
{
	if (!batch->data.failed)
		((struct nlmsghdr *)(batch->data.data + batch->message))->nlmsg_len =
			(uint32_t)(batch->data.length - batch->message);
}

static void open_change(struct nft_batch *batch, uint16_t type, uint16_t flags)
{
	open_message(batch, (uint16_t)(NFNL_SUBSYS_NFTABLES << 8 | type), flags, NFPROTO_INET, 0);
}

void nft_begin(struct nft_batch *batch, const char *table)
{
	*batch = (struct nft_batch){.table = table};
	open_message(batch, NFNL_MSG_BATCH_BEGIN, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES);
	close_message(batch);
}

void nft_clear(struct nft_batch *batch)
{
	buffer_clear(&batch->data);
}

void nft_add_table(struct nft_batch *batch)
{
	open_change(batch, NFT_MSG_NEWTABLE, NLM_F_CREATE);
	put_text(batch, NFTA_TABLE_NAME, batch->table);
	close_message(batch);
}

void nft_delete_table(struct nft_batch *batch)
{
	open_change(batch, NFT_MSG_DELTABLE, 0);
	put_text(batch, NFTA_TABLE_NAME, batch->table);
	close_message(batch);
}

void nft_add_chain(struct nft_batch *batch, const char *name, const char *type, uint32_t hook, int priority)
{
	size_t nest;

	open_change(batch, NFT_MSG_NEWCHAIN, NLM_F_CREATE);
	put_text(batch, NFTA_CHAIN_TABLE, batch->table);
	put_text(batch, NFTA_CHAIN_NAME, name);
	if (type) {
		nest = open_nest(batch, NFTA_CHAIN_HOOK);
		put_be32(batch, NFTA_HOOK_HOOKNUM, hook);
		put_be32(batch, NFTA_HOOK_PRIORITY, (uint32_t)priority);
		close_nest(batch, nest);
		put_text(batch, NFTA_CHAIN_TYPE, type);
		put_be32(batch, NFTA_CHAIN_POLICY, NF_ACCEPT);
	}
	close_message(batch);
}

void nft_add_set(struct nft_batch *batch, const char *name, uint32_t key_type, uint32_t key, uint32_t data_type, uint32_t data)
{
	open_change(batch, NFT_MSG_NEWSET, NLM_F_CREATE);
	put_text(batch, NFTA_SET_TABLE, batch->table);
	put_text(batch, NFTA_SET_NAME, name);
	put_be32(batch, NFTA_SET_ID, ++batch->sets);
	put_be32(batch, NFTA_SET_FLAGS, data ? NFT_SET_MAP : 0);
	put_be32(batch, NFTA_SET_KEY_TYPE, key_type);
	put_be32(batch, NFTA_SET_KEY_LEN, key);
	if (data) {
		put_be32(batch, NFTA_SET_DATA_TYPE, data_type);
		put_be32(batch, NFTA_SET_DATA_LEN, data);
	}
	close_message(batch);
}

void nft_begin_elements(struct nft_batch *batch, const char *set)
{
	open_change(batch, NFT_MSG_NEWSETELEM, NLM_F_CREATE);
	put_text(batch, NFTA_SET_ELEM_LIST_TABLE, batch->table);
	put_text(batch, NFTA_SET_ELEM_LIST_SET, set);
	batch->list = open_nest(batch, NFTA_SET_ELEM_LIST_ELEMENTS);
}

void nft_add_element(
	struct nft_batch *batch, const char *set, const void *key, size_t key_size, const void *data, size_t data_size)
{
	size_t nest;

	if (batch->data.length - batch->list > LIST_MAX) {
		nft_end_elements(batch);
		nft_begin_elements(batch, set);
	}
	nest = open_nest(batch, NFTA_LIST_ELEM);
	put_value(batch, NFTA_SET_ELEM_KEY, key, key_size);
	if (data)
		put_value(batch, NFTA_SET_ELEM_DATA, data, data_size);
	close_nest(batch, nest);
}

void nft_end_elements(struct nft_batch *batch)
{
	close_nest(batch, batch->list);
	close_message(batch);
}

/* --- rules --- */

void nft_begin_rule(struct nft_batch *batch, const char *chain)
{
	open_change(batch, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND);
	put_text(batch, NFTA_RULE_TABLE, batch->table);
	put_text(batch, NFTA_RULE_CHAIN, chain);
	batch->list = open_nest(batch, NFTA_RULE_EXPRESSIONS);
}

void nft_end_rule(struct nft_batch *batch)
{
	close_nest(batch, batch->list);
	close_message(batch);
}

struct expression {
	size_t element, data;
};

static struct expression open_expression(struct nft_batch *batch, const char *name)
{
	struct expression expression = {.element = open_nest(batch, NFTA_LIST_ELEM)};

	put_text(batch, NFTA_EXPR_NAME, name);
	expression.data = open_nest(batch, NFTA_EXPR_DATA);
	return expression;
}

static void close_expression(struct nft_batch *batch, struct expression expression)
{
	close_nest(batch, expression.data);
	close_nest(batch, expression.element);
}

void nft_meta(struct nft_batch *batch, uint32_t key, uint32_t reg)
{
	struct expression expression = open_expression(batch, "meta");

	put_be32(batch, NFTA_META_KEY, key);
	put_be32(batch, NFTA_META_DREG, reg);
	close_expression(batch, expression);
}

void nft_payload(struct nft_batch *batch, uint32_t base, uint32_t offset, uint32_t length, uint32_t reg)
{
	struct expression expression = open_expression(batch, "payload");

	put_be32(batch, NFTA_PAYLOAD_DREG, reg);
	put_be32(batch, NFTA_PAYLOAD_BASE, base);
	put_be32(batch, NFTA_PAYLOAD_OFFSET, offset);
	put_be32(batch, NFTA_PAYLOAD_LEN, length);
	close_expression(batch, expression);
}

void nft_mask(struct nft_batch *batch, uint32_t reg, const void *mask, uint32_t length)
{
	static const uint8_t zeros[16];
	struct expression expression = open_expression(batch, "bitwise");

	put_be32(batch, NFTA_BITWISE_SREG, reg);
	put_be32(batch, NFTA_BITWISE_DREG, reg);
	put_be32(batch, NFTA_BITWISE_LEN, length);
	put_value(batch, NFTA_BITWISE_MASK, mask, length);
	put_value(batch, NFTA_BITWISE_XOR, zeros, length);
	close_expression(batch, expression);
}

void nft_equal(struct nft_batch *batch, uint32_t reg, const void *value, uint32_t length)
{
	struct expression expression = open_expression(batch, "cmp");

	put_be32(batch, NFTA_CMP_SREG, reg);
	put_be32(batch, NFTA_CMP_OP, NFT_CMP_EQ);
	put_value(batch, NFTA_CMP_DATA, value, length);
	close_expression(batch, expression);
}

void nft_to_this_host(struct nft_batch *batch)
{
	struct expression expression = open_expression(batch, "fib");
	uint32_t local = RTN_LOCAL;

	put_be32(batch, NFTA_FIB_DREG, NFT_REG_1);
	put_be32(batch, NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
	put_be32(batch, NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR);
	close_expression(batch, expression);
	nft_equal(batch, NFT_REG_1, &local, sizeof(local));
}

void nft_lookup(struct nft_batch *batch, const char *set, uint32_t reg, uint32_t to)
{
	struct expression expression = open_expression(batch, "lookup");

	put_text(batch, NFTA_LOOKUP_SET, set);
	put_be32(batch, NFTA_LOOKUP_SREG, reg);
	if (to)
		put_be32(batch, NFTA_LOOKUP_DREG, to);
	close_expression(batch, expression);
}

static void add_verdict(struct nft_batch *batch, uint32_t code, const char *chain)
{
	struct expression expression = open_expression(batch, "immediate");
	size_t data, verdict;

	put_be32(batch, NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
	data = open_nest(batch, NFTA_IMMEDIATE_DATA);
	verdict = open_nest(batch, NFTA_DATA_VERDICT);
	put_be32(batch, NFTA_VERDICT_CODE, code);
	if (chain)
		put_text(batch, NFTA_VERDICT_CHAIN, chain);
	close_nest(batch, verdict);
	close_nest(batch, data);
	close_expression(batch, expression);
}

void nft_jump(struct nft_batch *batch, const char *chain)
{
	add_verdict(batch, (uint32_t)(chain ? NFT_JUMP : NFT_RETURN), chain);
}

void nft_drop(struct nft_batch *batch)
{
	add_verdict(batch, NF_DROP, NULL);
}

void nft_dnat(struct nft_batch *batch, uint32_t family, uint32_t address, uint32_t port)
{
	struct expression expression = open_expression(batch, "nat");

	put_be32(batch, NFTA_NAT_TYPE, NFT_NAT_DNAT);
	put_be32(batch, NFTA_NAT_FAMILY, family);
	put_be32(batch, NFTA_NAT_REG_ADDR_MIN, address);
	put_be32(batch, NFTA_NAT_REG_PROTO_MIN, port);
	close_expression(batch, expression);
}

void nft_masquerade(struct nft_batch *batch)
{
	struct expression expression = open_expression(batch, "masq");

	/* two packets that leave at once do not get the same port, one to be dropped */
	put_be32(batch, NFTA_MASQ_FLAGS, NF_NAT_RANGE_PROTO_RANDOM_FULLY);
	close_expression(batch, expression);
}

/* --- the transaction --- */

static const char *what_of(uint16_t type)
{
	switch (type & 0xff) {
	case NFT_MSG_NEWCHAIN:
		return "a chain";
	case NFT_MSG_NEWSET:
	case NFT_MSG_NEWSETELEM:
		return "a set";
	case NFT_MSG_NEWRULE:
		return "a rule that changes addresses";
	default:
		return "a table";
	}
}

/*
 * The kernel has worked it off when the sending returns: answers are there by then. It says of each message what is wrong with it, of the whole by the
 * number of its first one, and, asked to, that the last one is done. 1: go on reading.
 */
static int take_answer(const struct nft_batch *batch, const struct nlmsghdr *answer, const char **ret_what)
{
	const struct nlmsgerr *error = mnl_nlmsg_get_payload(answer);

	if (answer->nlmsg_type != NLMSG_ERROR || mnl_nlmsg_get_payload_len(answer) < sizeof(*error))
		return 1;
	if (!error->error)
		return error->msg.nlmsg_seq == batch->sequence ? 0 : 1;
	if (error->msg.nlmsg_type == NFNL_MSG_BATCH_BEGIN)
		*ret_what = "a transaction";
	else
		*ret_what = what_of(error->msg.nlmsg_type);
	return error->error;
}

static int read_answers(const struct nft_batch *batch, const struct mnl_socket *socket, const char **ret_what)
{
	_cleanup_free_ char *buffer = malloc(MESSAGE_SIZE);

	while (buffer) {
		ssize_t length = recv(mnl_socket_get_fd(socket), buffer, MESSAGE_SIZE, MSG_DONTWAIT);
		int rest = (int)length;

		if (length < 0)
			return errno == EAGAIN ? -EBADMSG : -errno;
		for (const struct nlmsghdr *answer = (void *)buffer; mnl_nlmsg_ok(answer, rest);
			answer = mnl_nlmsg_next(answer, &rest)) {
			int r = take_answer(batch, answer, ret_what);

			if (r <= 0)
				return r;
		}
	}
	return -ENOMEM;
}

/* All in one message to the kernel, however long it is. */
static void make_room(const struct mnl_socket *socket, size_t length)
{
	int size = length < INT_MAX / 4 ? (int)(2 * length + MESSAGE_SIZE) : INT_MAX / 2;

	(void)setsockopt(mnl_socket_get_fd(socket), SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
}

int nft_commit(struct nft_batch *batch, const char **ret_what)
{
	_cleanup_netlink_ struct mnl_socket *socket = NULL;
	int r;

	*ret_what = "a socket";
	/* its own last message can be asked for an answer since 6.10 only */
	if (!batch->data.failed)
		((struct nlmsghdr *)(batch->data.data + batch->message))->nlmsg_flags |= NLM_F_ACK;
	open_message(batch, NFNL_MSG_BATCH_END, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES);
	close_message(batch);
	batch->sequence--;
	if (batch->data.failed)
		return -ENOMEM;
	r = netlink_open(NETLINK_NETFILTER, &socket);
	if (r < 0)
		return r == -EPROTONOSUPPORT ? -EOPNOTSUPP : r;
	make_room(socket, batch->data.length);
	if (mnl_socket_sendto(socket, batch->data.data, batch->data.length) < 0)
		return -errno;
	return read_answers(batch, socket, ret_what);
}

int nft_has_table(const char *table)
{
	_cleanup_netlink_ struct mnl_socket *socket = NULL;
	_cleanup_(nft_clear) struct nft_batch batch = {.table = table};
	const char *ignored;
	int r = netlink_open(NETLINK_NETFILTER, &socket);

	if (r < 0)
		return r == -EPROTONOSUPPORT ? 0 : r;
	open_change(&batch, NFT_MSG_GETTABLE, NLM_F_ACK);
	put_text(&batch, NFTA_TABLE_NAME, table);
	close_message(&batch);
	if (batch.data.failed)
		return -ENOMEM;
	if (mnl_socket_sendto(socket, batch.data.data, batch.data.length) < 0)
		return -errno;
	r = read_answers(&batch, socket, &ignored);
	/* EINVAL, EOPNOTSUPP: no such subsystem */
	return r == 0 ? 1 : r == -ENOENT || r == -EINVAL || r == -EOPNOTSUPP ? 0 : r;
}

/* --- watching --- */

struct nft_watch {
	struct mnl_socket *socket;
	char *table;
	bool touched;	/* by the transaction whose end is still to come */
	unsigned ended; /* transactions that touched it, since it was asked */
};

int nft_watch_open(const char *table, struct nft_watch **ret)
{
	struct nft_watch *watch = calloc(1, sizeof(*watch));
	int r;

	if (!watch)
		return -ENOMEM;
	watch->table = strdup(table);
	r = watch->table ? netlink_watch(NETLINK_NETFILTER, &(unsigned){NFNLGRP_NFTABLES}, 1, &watch->socket) : -ENOMEM;
	if (r < 0)
		nft_watch_close(watch);
	else
		*ret = watch;
	return r;
}

void nft_watch_close(struct nft_watch *watch)
{
	if (!watch)
		return;
	mnl_socket_close_p(&watch->socket);
	free(watch->table);
	free(watch);
}

int nft_watch_fd(const struct nft_watch *watch)
{
	return mnl_socket_get_fd(watch->socket);
}

/* Of all that nf_tables tells of, the table is the attribute 1. */
static bool is_about(const struct nft_watch *watch, const struct nlmsghdr *message)
{
	static_assert(NFTA_TABLE_NAME == 1 && NFTA_CHAIN_TABLE == 1 && NFTA_RULE_TABLE == 1 && NFTA_SET_TABLE == 1 &&
			      NFTA_SET_ELEM_LIST_TABLE == 1 && NFTA_OBJ_TABLE == 1 && NFTA_FLOWTABLE_TABLE == 1,
		"written so");
	const struct nfgenmsg *body = mnl_nlmsg_get_payload(message);
	const struct nlattr *attr;

	if (mnl_nlmsg_get_payload_len(message) < sizeof(*body) || body->nfgen_family != NFPROTO_INET)
		return false;
	mnl_attr_for_each(attr, message, sizeof(*body)) if (mnl_attr_get_type(attr) == 1) return mnl_attr_validate(
		attr, MNL_TYPE_NUL_STRING) == 0 &&
		strcmp(mnl_attr_get_str(attr), watch->table) == 0;
	return false;
}

static int take_message(const struct nlmsghdr *message, void *userdata)
{
	struct nft_watch *watch = userdata;

	if (message->nlmsg_type >> 8 != NFNL_SUBSYS_NFTABLES)
		return MNL_CB_OK;
	if ((message->nlmsg_type & 0xff) != NFT_MSG_NEWGEN) {
		watch->touched |= is_about(watch, message);
		return MNL_CB_OK;
	}
	watch->ended += watch->touched;
	watch->touched = false;
	return MNL_CB_OK;
}

unsigned nft_watch_read(struct nft_watch *watch)
{
	watch->ended = 0;
	return netlink_read(watch->socket, take_message, watch) == -ENOBUFS ? UINT_MAX : watch->ended;
}
