/* SPDX-License-Identifier: Apache-2.0 */
/* What is known, what changed, and when the kernel is to be asked. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <netdev/hostnet.h>
#include <netdev/underlay_internal.h>
#include <util/addr.h>
#include <util/cleanup.h>
#include <util/clock.h>
#include <util/log.h>
#include <util/netlink.h>

#define RECEIVE_BUFFER (4u << 20)
/* Routes change in bursts. Where they never rest, no more than a tenth of the time goes to them. */
#define LOOK_US (20 * 1000)
#define LOOK_SHARE 10
#define RETRY_US (1000 * 1000)

DEFINE_CLEANUP(struct underlay *, underlay_close);

/* --- when to look --- */

static void look_later(struct underlay *u)
{
	uint64_t rest = u->look_took_us * LOOK_SHARE;

	if (!u->look_at_us)
		u->look_at_us = clock_us() + (rest > LOOK_US ? rest : LOOK_US);
}

uint64_t underlay_due_us(const struct underlay *u)
{
	uint64_t now = clock_us();

	if (!u->look_at_us)
		return 0;
	return u->look_at_us > now ? u->look_at_us - now : 1;
}

static void ask_again(struct underlay *u, struct peer *peer)
{
	peer->due = true;
	look_later(u);
}

static void ask_all_again(struct underlay *u)
{
	for (size_t i = 0; i < u->n_peers; i++)
		ask_again(u, &u->peers[i]);
}

/* --- devices --- */

struct device *device_find(struct underlay *u, uint32_t ifindex)
{
	struct device *device;

	HASH_FIND(hh, u->devices, &ifindex, sizeof(ifindex), device);
	return device;
}

static void touch_device(struct underlay *u, struct device *device)
{
	device->touched = true;
	u->touched = true;
}

static void forget_device(struct underlay *u, struct device *device)
{
	HASH_DEL(u->devices, device);
	free(device);
}

/* Where its carrier goes or comes, the kernel may choose another route. */
static int note_link(struct underlay *u, const struct underlay_link *link)
{
	struct device *device = device_find(u, link->ifindex);

	if (!device) {
		device = calloc(1, sizeof(*device));
		if (!device)
			return -ENOMEM;
		device->ifindex = link->ifindex;
		HASH_ADD(hh, u->devices, ifindex, sizeof(device->ifindex), device);
		if (device->lost) {
			free(device);
			return -ENOMEM;
		}
	}
	device->seen = true;
	if (device->up != link->up)
		ask_all_again(u);
	if (device->up != link->up || device->mtu != link->mtu || device->type != link->type ||
		memcmp(device->mac, link->mac, sizeof(device->mac)) != 0)
		touch_device(u, device);
	device->up = link->up;
	device->mtu = link->mtu;
	device->type = link->type;
	memcpy(device->mac, link->mac, sizeof(device->mac));
	return 0;
}

static int on_link(const struct nlmsghdr *message, void *userdata)
{
	struct underlay_link link;

	if (message->nlmsg_type == RTM_NEWLINK && underlay_parse_link(message, &link) && note_link(userdata, &link) < 0) {
		errno = ENOMEM;
		return MNL_CB_ERROR;
	}
	return MNL_CB_OK;
}

static int list_links(struct underlay *u)
{
	struct device *device, *next;
	int r = -EINTR;

	for (unsigned i = 0; r == -EINTR && i < DUMP_ATTEMPTS; i++) {
		uint8_t room[REQUEST_SIZE] = {0};
		struct ifinfomsg *header;
		struct nlmsghdr *request = request_put(room, RTM_GETLINK, NLM_F_DUMP, sizeof(*header), &header);

		mnl_attr_put_u32(request, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
		HASH_ITER (hh, u->devices, device, next)
			device->seen = false;
		r = dump_run(u, request, on_link);
	}
	if (r < 0)
		return r;
	HASH_ITER (hh, u->devices, device, next)
		if (!device->seen)
			forget_device(u, device);
	return 0;
}

/* --- telling, looking --- */

static bool is_touched(struct underlay *u, const struct peer *peer)
{
	if (peer->touched)
		return true;
	for (size_t i = 0; i < peer->n_hops; i++) {
		const struct device *device = device_find(u, peer->hops[i].ifindex);

		if (!device || device->touched || (peer->hops[i].neighbour && peer->hops[i].neighbour->touched))
			return true;
	}
	return false;
}

static bool same_state(const struct underlay_state *a, const struct underlay_state *b)
{
	return a->reach == b->reach && a->reason == b->reason && a->mtu == b->mtu && a->n == b->n &&
	       memcmp(a->way, b->way, a->n * sizeof(*a->way)) == 0 &&
	       memcmp(a->next_hop, b->next_hop, a->n * sizeof(*a->next_hop)) == 0;
}

static void tell(struct underlay *u)
{
	struct neighbour *neighbour, *next_neighbour;
	struct device *device, *next_device;

	if (!u->touched)
		return;
	for (size_t i = 0; i < u->n_peers; i++) {
		struct peer *peer = &u->peers[i];
		struct underlay_state state;

		/* What the kernel was not asked yet is no news. */
		if (!is_touched(u, peer) || (peer->due && !peer->told))
			continue;
		peer->touched = false;
		peer_work_out(u, peer, &state);
		if (peer->told && same_state(&state, &peer->state))
			continue;
		peer->state = state;
		peer->told = true;
		u->event(peer->as.index, &peer->state, u->userdata);
	}
	HASH_ITER (hh, u->neighbours, neighbour, next_neighbour)
		neighbour->touched = false;
	HASH_ITER (hh, u->devices, device, next_device)
		device->touched = false;
	u->touched = false;
}

int underlay_look(struct underlay *u)
{
	uint64_t began = clock_us();
	bool made = false;
	int r = 0;

	if (u->lost) {
		r = list_links(u);
		u->unlisted = true;
		ask_all_again(u);
		u->lost = r < 0;
	}
	u->look_at_us = 0;
	if (r == 0)
		r = routes_ask(u);
	if (r == 0)
		r = nexthops_ask(u);
	if (r == 0 && (u->unlisted || !u->listed))
		r = neighbours_list(u);
	if (r == 0) {
		made = u->unmade;
		r = neighbours_sync(u);
	}
	for (size_t i = 0; i < u->n_peers && r == 0; i++)
		r = u->peers[i].due ? -ENOMEM : 0;
	/* What the kernel says of a new entry is there already. */
	if (made && r == 0)
		r = underlay_dispatch(u);
	else
		tell(u);
	u->look_took_us = clock_us() - began;
	if (r < 0)
		u->look_at_us = clock_us() + RETRY_US;
	return r;
}

const struct underlay_state *underlay_find(const struct underlay *u, uint32_t peer)
{
	for (size_t low = 0, high = u->n_peers; low < high;) {
		size_t middle = low + (high - low) / 2;

		if (u->peers[middle].as.index == peer)
			return &u->peers[middle].state;
		if (u->peers[middle].as.index > peer)
			high = middle;
		else
			low = middle + 1;
	}
	return NULL;
}

/* --- the peers --- */

static int compare_peers(const void *a, const void *b)
{
	const struct peer *x = a, *y = b;

	return x->as.index < y->as.index ? -1 : x->as.index > y->as.index;
}

int underlay_set_peers(struct underlay *u, const struct underlay_peer *peers, size_t n)
{
	struct peer *wanted = calloc(n + 1, sizeof(*wanted));
	size_t old = 0;

	if (!wanted)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		wanted[i].as = peers[i];
	qsort(wanted, n, sizeof(*wanted), compare_peers);
	for (size_t i = 0; i < n; i++) {
		while (old < u->n_peers && u->peers[old].as.index < wanted[i].as.index)
			old++;
		if (old < u->n_peers && u->peers[old].as.index == wanted[i].as.index &&
			memcmp(&u->peers[old].as.address, &wanted[i].as.address, sizeof(wanted[i].as.address)) == 0) {
			wanted[i] = u->peers[old];
			u->peers[old].hops = NULL;
			u->peers[old].n_hops = 0;
		} else {
			ask_again(u, &wanted[i]);
		}
	}
	for (size_t i = 0; i < u->n_peers; i++)
		hops_clear(&u->peers[i]);
	free(u->peers);
	u->peers = wanted;
	u->n_peers = n;
	look_later(u); /* neighbours that nobody needs any more go there */
	return 0;
}

/* --- changes --- */

static void on_route_change(struct underlay *u, const struct nlmsghdr *message)
{
	struct underlay_route route;

	if (!underlay_parse_route(message, &route) || route.cloned || route.protocol == HOSTNET_PROTOCOL)
		return;
	for (size_t i = 0; i < u->n_peers; i++)
		if (addr_in_prefix(&u->peers[i].as.address, &route.destination, route.length))
			ask_again(u, &u->peers[i]);
}

/* Routes with a source that goes, go without a word; one that comes makes a tunnel's own address a source. */
static void on_address_change(struct underlay *u, const struct nlmsghdr *message)
{
	struct hd_addr address;

	if (message->nlmsg_type == RTM_DELADDR ||
		(underlay_parse_address(message, &address) && memcmp(&address, &u->own, sizeof(address)) == 0))
		ask_all_again(u);
}

static void on_link_gone(struct underlay *u, const struct nlmsghdr *message)
{
	const struct ifinfomsg *header = mnl_nlmsg_get_payload(message);
	struct device *device = NULL;

	if (mnl_nlmsg_get_payload_len(message) >= sizeof(*header) && header->ifi_family == AF_UNSPEC)
		device = device_find(u, (uint32_t)header->ifi_index);
	if (!device)
		return;
	ask_all_again(u);
	forget_device(u, device);
	u->touched = true; /* whose hop has no device is touched */
}

static void on_neighbour_change(struct underlay *u, const struct nlmsghdr *message)
{
	struct underlay_neighbour entry;
	struct neighbour *neighbour =
		underlay_parse_neighbour(message, &entry) ? neighbour_find(u, &entry.address, entry.ifindex) : NULL;

	if (!neighbour)
		return;
	if (message->nlmsg_type == RTM_NEWNEIGH)
		neighbour_note(u, neighbour, &entry);
	else
		neighbour_gone(u, neighbour);
}

static int on_change(const struct nlmsghdr *message, void *userdata)
{
	struct underlay *u = userdata;

	switch (message->nlmsg_type) {
	case RTM_NEWLINK:
		return on_link(message, u);
	case RTM_DELLINK:
		on_link_gone(u, message);
		break;
	case RTM_NEWNEIGH:
	case RTM_DELNEIGH:
		on_neighbour_change(u, message);
		break;
	case RTM_NEWROUTE:
	case RTM_DELROUTE:
		on_route_change(u, message);
		break;
	case RTM_NEWADDR:
	case RTM_DELADDR:
		on_address_change(u, message);
		break;
	case RTM_NEWRULE:
	case RTM_DELRULE:
	case RTM_NEWNEXTHOP:
	case RTM_DELNEXTHOP:
		ask_all_again(u);
		break;
	default:
		break;
	}
	return MNL_CB_OK;
}

int underlay_dispatch(struct underlay *u)
{
	int r = netlink_read(u->watch, on_change, u);

	if (r == -ENOBUFS) {
		u->lost = true;
		look_later(u);
	} else if (r < 0) {
		return r;
	}
	tell(u);
	if (u->unmade)
		look_later(u);
	return 0;
}

/* --- opening --- */

static int open_requests(struct underlay *u)
{
	int r = netlink_open(NETLINK_ROUTE, &u->requests);

	if (r < 0)
		return r;
	(void)setsockopt(mnl_socket_get_fd(u->requests), SOL_SOCKET, SO_RCVBUFFORCE, &(int){RECEIVE_BUFFER}, sizeof(int));
	(void)mnl_socket_setsockopt(u->requests, NETLINK_GET_STRICT_CHK, &(int){1}, sizeof(int));
	return 0;
}

static int open_watch(struct underlay *u)
{
	bool ipv4 = addr_is_ipv4(&u->own);
	const unsigned groups[] = {RTNLGRP_LINK, RTNLGRP_NEIGH, RTNLGRP_NEXTHOP, ipv4 ? RTNLGRP_IPV4_ROUTE : RTNLGRP_IPV6_ROUTE,
		ipv4 ? RTNLGRP_IPV4_RULE : RTNLGRP_IPV6_RULE, ipv4 ? RTNLGRP_IPV4_IFADDR : RTNLGRP_IPV6_IFADDR};

	return netlink_watch(NETLINK_ROUTE, groups, ARRAY_SIZE(groups), &u->watch);
}

int underlay_open(const struct hd_addr *own, uint16_t port, underlay_event event, void *userdata, struct underlay **ret)
{
	_cleanup_(underlay_close_p) struct underlay *u = calloc(1, sizeof(*u));
	int r;

	if (!u)
		return -ENOMEM;
	u->own = *own;
	u->port = port;
	u->event = event;
	u->userdata = userdata;
	r = open_requests(u);
	if (r == 0)
		r = open_watch(u);
	if (r < 0)
		return log_err(r, "cannot follow the routes to peers");
	u->lost = true; /* nothing is known yet */
	look_later(u);
	*ret = TAKE_PTR(u);
	return 0;
}

void underlay_close(struct underlay *u)
{
	struct neighbour *neighbour, *next_neighbour;
	struct device *device, *next_device;

	if (!u)
		return;
	for (size_t i = 0; i < u->n_peers; i++)
		free(u->peers[i].hops);
	free(u->peers);
	HASH_ITER (hh, u->neighbours, neighbour, next_neighbour) {
		HASH_DEL(u->neighbours, neighbour);
		free(neighbour);
	}
	HASH_ITER (hh, u->devices, device, next_device)
		forget_device(u, device);
	if (u->watch)
		mnl_socket_close(u->watch);
	if (u->requests)
		mnl_socket_close(u->requests);
	free(u);
}

int underlay_fd(const struct underlay *u)
{
	return mnl_socket_get_fd(u->watch);
}

int underlay_clear(void)
{
	_cleanup_(underlay_close_p) struct underlay *u = calloc(1, sizeof(*u));
	int r = u ? open_requests(u) : -ENOMEM;

	if (r == 0)
		r = neighbours_list(u);
	if (r == 0)
		r = neighbours_sync(u);
	return r < 0 ? log_err(r, "cannot remove the neighbour entries of next hops") : 0;
}
