/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <linux/if_addr.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <libmnl/libmnl.h>

#include <netdev/hostnet.h>
#include <util/addr.h>
#include <util/cleanup.h>
#include <util/log.h>
#include <util/netlink.h>

struct hostnet {
	struct mnl_socket *watch, *requests;
	hostnet_event event;
	void *userdata;
	unsigned changes; /* in the messages read so far */
	NETLINK_REQUEST(buffer);
};
DEFINE_CLEANUP(struct hostnet *, hostnet_close);

/* --- addresses in messages --- */

static uint8_t family_of(const struct hd_addr *addr)
{
	return addr_is_ipv4(addr) ? AF_INET : AF_INET6;
}

static void put_addr(struct nlmsghdr *message, uint16_t type, const struct hd_addr *addr)
{
	bool ipv4 = addr_is_ipv4(addr);

	mnl_attr_put(message, type, ipv4 ? 4 : 16, ipv4 ? &addr->b[12] : addr->b);
}

static bool get_addr(const struct nlattr *attribute, struct hd_addr *ret)
{
	switch (mnl_attr_get_payload_len(attribute)) {
	case 4: {
		__be32 address;

		memcpy(&address, mnl_attr_get_payload(attribute), 4);
		*ret = addr_from_ipv4(address);
		return true;
	}
	case 16:
		memcpy(ret->b, mnl_attr_get_payload(attribute), 16);
		return true;
	}
	return false;
}

/* --- requests --- */

static struct nlmsghdr *new_request(struct hostnet *hostnet, uint16_t type, uint16_t flags, size_t header, void *ret_header)
{
	struct nlmsghdr *request = netlink_request(hostnet->buffer, type, flags);

	*(void **)ret_header = mnl_nlmsg_put_extra_header(request, header);
	return request;
}

/* A route of somebody else's for the same block comes before ours. Not 1024, which routes of IPv6 have that ask for none. */
#define BLOCK_METRIC 2048

/* A list that changed while it was read is read again. */
#define DUMP_ATTEMPTS 5

/* --- addresses --- */

struct address_list {
	struct hd_addr *addresses;
	size_t n;
};

static int on_address(const struct nlmsghdr *message, void *userdata)
{
	const struct ifaddrmsg *header = mnl_nlmsg_get_payload(message);
	struct address_list *list = userdata;
	const struct nlattr *attribute;
	struct hd_addr addr, *grown;
	bool found = false, local = false;

	if (header->ifa_scope == RT_SCOPE_HOST || header->ifa_scope == RT_SCOPE_LINK)
		return MNL_CB_OK;
	mnl_attr_for_each(attribute, message, sizeof(*header))
	{
		/* Of a point-to-point device IFA_ADDRESS is the other end. */
		if (mnl_attr_get_type(attribute) == IFA_LOCAL)
			local = found = get_addr(attribute, &addr);
		else if (mnl_attr_get_type(attribute) == IFA_ADDRESS && !local)
			found = get_addr(attribute, &addr);
	}
	if (!found)
		return MNL_CB_OK;
	grown = reallocarray(list->addresses, list->n + 1, sizeof(*grown));
	if (!grown) {
		errno = ENOMEM;
		return MNL_CB_ERROR;
	}
	list->addresses = grown;
	list->addresses[list->n++] = addr;
	return MNL_CB_OK;
}

int hostnet_addresses(struct hostnet *hostnet, struct hd_addr **ret, size_t *ret_n)
{
	struct address_list list = {0};
	int r = -EINTR;

	for (unsigned i = 0; r == -EINTR && i < DUMP_ATTEMPTS; i++) {
		struct ifaddrmsg *header;
		struct nlmsghdr *request = new_request(hostnet, RTM_GETADDR, NLM_F_DUMP, sizeof(*header), &header);

		list.n = 0;
		r = netlink_ask(hostnet->requests, request, on_address, &list);
	}
	if (r < 0) {
		free(list.addresses);
		return r;
	}
	*ret = list.addresses;
	*ret_n = list.n;
	return 0;
}

/* --- ours --- */

struct entry_list {
	struct hostnet_entry *entries;
	size_t n, capacity;
};

static int entry_add(struct entry_list *list, const struct hostnet_entry *entry)
{
	size_t capacity = list->capacity ? 2 * list->capacity : 64;
	struct hostnet_entry *grown;

	if (list->n == list->capacity) {
		grown = reallocarray(list->entries, capacity, sizeof(*grown));
		if (!grown) {
			errno = ENOMEM;
			return MNL_CB_ERROR;
		}
		list->entries = grown;
		list->capacity = capacity;
	}
	list->entries[list->n++] = *entry;
	return MNL_CB_OK;
}

static bool parse_route(const struct nlmsghdr *message, struct hostnet_entry *ret)
{
	const struct rtmsg *header = mnl_nlmsg_get_payload(message);
	const struct nlattr *attribute;
	bool found = false;

	uint32_t metric = 0;

	if (header->rtm_protocol != HOSTNET_PROTOCOL || header->rtm_flags & RTM_F_CLONED)
		return false;
	*ret = (struct hostnet_entry){.length = (uint8_t)(header->rtm_dst_len + (header->rtm_family == AF_INET ? 96 : 0))};
	if (header->rtm_dst_len == 0) {
		ret->address = header->rtm_family == AF_INET ? addr_from_ipv4(0) : (struct hd_addr){0};
		found = true;
	}
	mnl_attr_for_each(attribute, message, sizeof(*header))
	{
		switch (mnl_attr_get_type(attribute)) {
		case RTA_DST:
			found = get_addr(attribute, &ret->address);
			break;
		case RTA_OIF:
			if (mnl_attr_validate(attribute, MNL_TYPE_U32) == 0)
				ret->ifindex = mnl_attr_get_u32(attribute);
			break;
		case RTA_PREFSRC:
			ret->has_source = get_addr(attribute, &ret->source);
			break;
		case RTA_PRIORITY:
			if (mnl_attr_validate(attribute, MNL_TYPE_U32) == 0)
				metric = mnl_attr_get_u32(attribute);
			break;
		default:
			break;
		}
	}
	ret->is_block = metric == BLOCK_METRIC;
	return found && (ret->is_block || ret->length == 128);
}

static bool parse_neighbour(const struct nlmsghdr *message, struct hostnet_entry *ret)
{
	const struct ndmsg *header = mnl_nlmsg_get_payload(message);
	const struct nlattr *attribute;
	bool found = false, ours = false;

	*ret = (struct hostnet_entry){.ifindex = (uint32_t)header->ndm_ifindex};
	mnl_attr_for_each(attribute, message, sizeof(*header))
	{
		switch (mnl_attr_get_type(attribute)) {
		case NDA_DST:
			found = get_addr(attribute, &ret->address);
			break;
		case NDA_LLADDR:
			if (mnl_attr_get_payload_len(attribute) == sizeof(ret->mac))
				memcpy(ret->mac, mnl_attr_get_payload(attribute), sizeof(ret->mac));
			break;
		case NDA_PROTOCOL:
			ours = mnl_attr_get_payload_len(attribute) == 1 && mnl_attr_get_u8(attribute) == HOSTNET_PROTOCOL;
			break;
		default:
			break;
		}
	}
	/* Those of next hops, which underlay.c has, are not permanent. */
	return found && ours && header->ndm_state & NUD_PERMANENT;
}

static int on_route(const struct nlmsghdr *message, void *userdata)
{
	struct hostnet_entry entry;

	return parse_route(message, &entry) ? entry_add(userdata, &entry) : MNL_CB_OK;
}

static int on_neighbour(const struct nlmsghdr *message, void *userdata)
{
	struct hostnet_entry entry;

	return parse_neighbour(message, &entry) ? entry_add(userdata, &entry) : MNL_CB_OK;
}

static int list_routes(struct hostnet *hostnet, struct entry_list *list)
{
	static const uint8_t families[] = {AF_INET, AF_INET6};
	size_t before = 0;
	int r = 0;

	for (size_t f = 0; f < ARRAY_SIZE(families) && r == 0; f++) {
		r = -EINTR;
		for (unsigned i = 0; r == -EINTR && i < DUMP_ATTEMPTS; i++) {
			struct rtmsg *header;
			struct nlmsghdr *request = new_request(hostnet, RTM_GETROUTE, NLM_F_DUMP, sizeof(*header), &header);

			/* The kernel leaves the others out (strict checking). */
			header->rtm_family = families[f];
			header->rtm_protocol = HOSTNET_PROTOCOL;
			list->n = before;
			r = netlink_ask(hostnet->requests, request, on_route, list);
		}
		before = list->n;
	}
	return r;
}

static int list_neighbours(struct hostnet *hostnet, struct entry_list *list)
{
	int r = -EINTR;

	for (unsigned i = 0; r == -EINTR && i < DUMP_ATTEMPTS; i++) {
		struct ndmsg *header;
		struct nlmsghdr *request = new_request(hostnet, RTM_GETNEIGH, NLM_F_DUMP, sizeof(*header), &header);

		list->n = 0;
		r = netlink_ask(hostnet->requests, request, on_neighbour, list);
	}
	return r;
}

static int change_route(struct hostnet *hostnet, const struct hostnet_entry *entry, bool add, bool replace)
{
	uint8_t family = family_of(&entry->address);
	uint16_t how = replace ? NLM_F_REPLACE : NLM_F_EXCL;
	struct rtmsg *header;
	struct nlmsghdr *request = new_request(hostnet, add ? RTM_NEWROUTE : RTM_DELROUTE,
		(uint16_t)(NLM_F_ACK | (add ? NLM_F_CREATE | how : 0)), sizeof(*header), &header);

	*header = (struct rtmsg){.rtm_family = family,
		.rtm_dst_len = (uint8_t)(entry->is_block     ? entry->length - (family == AF_INET ? 96 : 0)
					 : family == AF_INET ? 32
							     : 128),
		.rtm_table = RT_TABLE_MAIN,
		.rtm_protocol = HOSTNET_PROTOCOL,
		.rtm_scope = family == AF_INET ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE,
		.rtm_type = RTN_UNICAST};
	put_addr(request, RTA_DST, &entry->address);
	mnl_attr_put_u32(request, RTA_OIF, entry->ifindex);
	if (entry->is_block)
		mnl_attr_put_u32(request, RTA_PRIORITY, BLOCK_METRIC);
	if (add && entry->has_source)
		put_addr(request, RTA_PREFSRC, &entry->source);
	return netlink_ask(hostnet->requests, request, NULL, NULL);
}

static int change_neighbour(struct hostnet *hostnet, const struct hostnet_entry *entry, bool add)
{
	struct ndmsg *header;
	struct nlmsghdr *request = new_request(hostnet, add ? RTM_NEWNEIGH : RTM_DELNEIGH,
		(uint16_t)(NLM_F_ACK | (add ? NLM_F_CREATE | NLM_F_REPLACE : 0)), sizeof(*header), &header);

	*header = (struct ndmsg){.ndm_family = family_of(&entry->address),
		.ndm_ifindex = (int)entry->ifindex,
		.ndm_state = add ? NUD_PERMANENT : 0};
	put_addr(request, NDA_DST, &entry->address);
	if (add) {
		mnl_attr_put(request, NDA_LLADDR, sizeof(entry->mac), entry->mac);
		mnl_attr_put_u8(request, NDA_PROTOCOL, HOSTNET_PROTOCOL);
	}
	return netlink_ask(hostnet->requests, request, NULL, NULL);
}

/* --- the difference --- */

static int compare_addresses(const struct hostnet_entry *x, const struct hostnet_entry *y)
{
	int r = memcmp(&x->address, &y->address, sizeof(x->address));

	if (r == 0)
		r = (int)x->is_block - (int)y->is_block;
	return r ? r : x->is_block ? (int)x->length - (int)y->length : 0;
}

/* By address; of one address the device decides. */
static int compare(const void *a, const void *b)
{
	const struct hostnet_entry *x = a, *y = b;
	int r = compare_addresses(x, y);

	return r ? r : x->ifindex < y->ifindex ? -1 : x->ifindex > y->ifindex;
}

static const struct hostnet_entry *find(
	const struct hostnet_entry *entries, size_t n, const struct hostnet_entry *entry, bool any_device)
{
	for (size_t low = 0, high = n; low < high;) {
		size_t middle = low + (high - low) / 2;
		int c = any_device ? compare_addresses(entry, &entries[middle]) : compare(entry, &entries[middle]);

		if (c == 0)
			return &entries[middle];
		if (c < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return NULL;
}

static bool same_source(const struct hostnet_entry *a, const struct hostnet_entry *b)
{
	return a->has_source == b->has_source && (!a->has_source || memcmp(&a->source, &b->source, sizeof(a->source)) == 0);
}

/* Nothing can be said of a device that is gone or down: with it came or went what was there. */
static bool device_is_away(int r)
{
	return r == -ENODEV || r == -ENETDOWN || r == -ENETUNREACH || r == -ENXIO;
}

struct sync {
	const struct hostnet_entry *wanted;
	size_t n;
	int first_error;
};

static void note(struct sync *sync, int r, const struct hostnet_entry *entry, const char *what)
{
	char text[ADDR_TEXT_MAX];

	if (r >= 0 || device_is_away(r))
		return;
	log_warn(r, "cannot %s of %s", what, addr_format(&entry->address, text));
	if (sync->first_error == 0)
		sync->first_error = r;
}

static void sync_routes(struct hostnet *hostnet, struct sync *sync, struct entry_list *have)
{
	int r;

	if (have->n)
		qsort(have->entries, have->n, sizeof(*have->entries), compare);
	for (size_t i = 0; i < sync->n; i++) {
		const struct hostnet_entry *wanted = &sync->wanted[i], *old = find(have->entries, have->n, wanted, false);

		if (old && same_source(old, wanted))
			continue;
		/* The IPv4 kernel replaces the one route of an address; for IPv6 the device is part of which. */
		r = change_route(hostnet, wanted, true, find(have->entries, have->n, wanted, true) != NULL);
		note(sync, r, wanted, "make the route");
	}
	for (size_t i = 0; i < have->n; i++) {
		const struct hostnet_entry *old = &have->entries[i], *wanted = find(sync->wanted, sync->n, old, true);

		if (wanted && (wanted->ifindex == old->ifindex || addr_is_ipv4(&old->address)))
			continue;
		r = change_route(hostnet, old, false, false);
		note(sync, r == -ESRCH ? 0 : r, old, "remove the route");
	}
}

static void sync_neighbours(struct hostnet *hostnet, struct sync *sync, struct entry_list *have)
{
	int r;

	if (have->n)
		qsort(have->entries, have->n, sizeof(*have->entries), compare);
	for (size_t i = 0; i < sync->n; i++) {
		const struct hostnet_entry *wanted = &sync->wanted[i], *old = find(have->entries, have->n, wanted, false);

		if (wanted->is_block || (old && memcmp(old->mac, wanted->mac, sizeof(old->mac)) == 0))
			continue;
		r = change_neighbour(hostnet, wanted, true);
		note(sync, r, wanted, "make the neighbour entry");
	}
	for (size_t i = 0; i < have->n; i++) {
		if (find(sync->wanted, sync->n, &have->entries[i], false))
			continue;
		r = change_neighbour(hostnet, &have->entries[i], false);
		note(sync, r == -ENOENT ? 0 : r, &have->entries[i], "remove the neighbour entry");
	}
}

int hostnet_sync(struct hostnet *hostnet, const struct hostnet_entry *wanted, size_t n)
{
	_cleanup_free_ struct hostnet_entry *sorted = n ? malloc(n * sizeof(*sorted)) : NULL;
	struct sync sync = {.wanted = sorted, .n = n};
	struct entry_list routes = {0}, neighbours = {0};
	int r;

	if (n && !sorted)
		return -ENOMEM;
	if (n) {
		memcpy(sorted, wanted, n * sizeof(*sorted));
		qsort(sorted, n, sizeof(*sorted), compare);
	}
	r = list_neighbours(hostnet, &neighbours);
	if (r == 0)
		r = list_routes(hostnet, &routes);
	if (r == 0) {
		/* A route without its neighbour entry would have the host ask for it. */
		sync_neighbours(hostnet, &sync, &neighbours);
		sync_routes(hostnet, &sync, &routes);
	}
	free(routes.entries);
	free(neighbours.entries);
	return r < 0 ? log_err(r, "cannot list the host's routes and neighbours") : sync.first_error;
}

/* --- opening, watching --- */

static int open_requests(struct hostnet *hostnet)
{
	int r = netlink_open(NETLINK_ROUTE, &hostnet->requests);

	if (r < 0)
		return r;
	/* Without it every route of the host is listed, and looked at here. */
	(void)mnl_socket_setsockopt(hostnet->requests, NETLINK_GET_STRICT_CHK, &(int){1}, sizeof(int));
	return 0;
}

int hostnet_open(hostnet_event event, void *userdata, struct hostnet **ret)
{
	_cleanup_(hostnet_close_p) struct hostnet *hostnet = calloc(1, sizeof(*hostnet));
	static const unsigned groups[] = {
		RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE, RTNLGRP_NEIGH};
	int r;

	if (!hostnet)
		return -ENOMEM;
	hostnet->event = event;
	hostnet->userdata = userdata;
	r = open_requests(hostnet);
	if (r < 0)
		return log_err(r, "cannot ask for the host's addresses and routes");
	r = netlink_watch(NETLINK_ROUTE, groups, ARRAY_SIZE(groups), &hostnet->watch);
	if (r < 0)
		return log_err(r, "cannot watch the host's addresses and routes");
	*ret = TAKE_PTR(hostnet);
	return 0;
}

void hostnet_close(struct hostnet *hostnet)
{
	if (!hostnet)
		return;
	if (hostnet->watch)
		mnl_socket_close(hostnet->watch);
	if (hostnet->requests)
		mnl_socket_close(hostnet->requests);
	free(hostnet);
}

int hostnet_fd(const struct hostnet *hostnet)
{
	return mnl_socket_get_fd(hostnet->watch);
}

static int on_change(const struct nlmsghdr *message, void *userdata)
{
	struct hostnet *hostnet = userdata;
	struct hostnet_entry entry;

	switch (message->nlmsg_type) {
	case RTM_NEWADDR:
	case RTM_DELADDR:
		hostnet->changes |= HOSTNET_ADDRESSES;
		break;
	case RTM_DELROUTE:
		if (parse_route(message, &entry))
			hostnet->changes |= HOSTNET_ENTRIES;
		break;
	case RTM_DELNEIGH:
		if (parse_neighbour(message, &entry))
			hostnet->changes |= HOSTNET_ENTRIES;
		break;
	default:
		break;
	}
	return MNL_CB_OK;
}

int hostnet_dispatch(struct hostnet *hostnet)
{
	int r = netlink_read(hostnet->watch, on_change, hostnet);
	unsigned changes;

	if (r == -ENOBUFS)
		hostnet->changes |= HOSTNET_ADDRESSES | HOSTNET_ENTRIES;
	else if (r < 0)
		return log_err(r, "cannot read the changes of the host's addresses and routes");
	changes = hostnet->changes;
	hostnet->changes = 0;
	if (changes)
		hostnet->event(changes, hostnet->userdata);
	return 0;
}

int hostnet_clear(void)
{
	_cleanup_(hostnet_close_p) struct hostnet *hostnet = calloc(1, sizeof(*hostnet));
	int r = hostnet ? open_requests(hostnet) : -ENOMEM;

	return r < 0 ? log_err(r, "cannot ask for the host's routes") : hostnet_sync(hostnet, NULL, 0);
}
