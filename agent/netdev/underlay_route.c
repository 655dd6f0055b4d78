/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <linux/nexthop.h>
#include <linux/rtnetlink.h>
#include <net/if_arp.h>
#include <netinet/in.h>

#include <netdev/underlay_internal.h>
#include <util/cleanup.h>

static struct nlmsghdr *put_route_request(struct underlay *u, const struct peer *peer, void *room, bool source)
{
	uint8_t family = request_family(&peer->as.address), bits = family == AF_INET ? 32 : 128;
	struct rtmsg *header;
	struct nlmsghdr *request = request_put(room, RTM_GETROUTE, 0, sizeof(*header), &header);

	header->rtm_family = family;
	header->rtm_dst_len = bits;
	header->rtm_flags = RTM_F_FIB_MATCH; /* the route with all its next hops, not the one it is today */
	request_put_address(request, RTA_DST, &peer->as.address);
	if (source) {
		header->rtm_src_len = bits;
		request_put_address(request, RTA_SRC, &u->own);
	}
	mnl_attr_put_u8(request, RTA_IP_PROTO, IPPROTO_UDP);
	mnl_attr_put_u16(request, RTA_DPORT, htons(u->port));
	return request;
}

static struct nlmsghdr *request_route(struct underlay *u, void *item, void *room)
{
	return put_route_request(u, item, room, true);
}

static struct nlmsghdr *request_route_without_source(struct underlay *u, void *item, void *room)
{
	return put_route_request(u, item, room, false);
}

void hops_clear(struct peer *peer)
{
	for (size_t i = 0; i < peer->n_hops; i++)
		if (peer->hops[i].neighbour)
			peer->hops[i].neighbour->users--;
	free(peer->hops);
	peer->hops = NULL;
	peer->n_hops = 0;
}

/* The kernel tells the next hops of an IPv6 route in any order. */
static int compare_hops(const void *a, const void *b)
{
	const struct underlay_hop *x = a, *y = b;

	if (x->ifindex != y->ifindex)
		return x->ifindex < y->ifindex ? -1 : 1;
	return memcmp(&x->gateway, &y->gateway, sizeof(x->gateway));
}

static int set_hops(struct underlay *u, struct peer *peer, struct underlay_route *route)
{
	struct hop *hops = calloc(route->n + 1, sizeof(*hops));
	size_t n = 0;

	if (!hops)
		return -ENOMEM;
	for (size_t i = 0; i < route->n; i++)
		if (!route->hop[i].has_gateway)
			route->hop[i].gateway = peer->as.address;
	qsort(route->hop, route->n, sizeof(*route->hop), compare_hops);
	for (size_t i = 0; i < route->n; i++) {
		const struct underlay_hop *from = &route->hop[i];
		const struct device *device = device_find(u, from->ifindex);
		struct hop *hop = &hops[n];

		if (i && compare_hops(from, from - 1) == 0)
			continue;
		*hop = (struct hop){.ifindex = from->ifindex, .dead = from->dead, .encapsulates = from->encapsulates};
		n++;
		if (!device || device->type != ARPHRD_ETHER || from->encapsulates)
			continue;
		hop->neighbour = neighbour_use(u, &from->gateway, from->ifindex);
		if (hop->neighbour)
			continue;
		for (size_t j = 0; j < n; j++)
			if (hops[j].neighbour)
				hops[j].neighbour->users--;
		free(hops);
		return -ENOMEM;
	}
	/* Only now, so that a neighbour of both stays. */
	hops_clear(peer);
	peer->hops = hops;
	peer->n_hops = n;
	return 0;
}

static struct nlmsghdr *request_nexthop(struct underlay *u, void *item, void *room)
{
	struct nhmsg *header;
	struct nlmsghdr *request = request_put(room, RTM_GETNEXTHOP, 0, sizeof(*header), &header);

	(void)u;
	mnl_attr_put_u32(request, NHA_ID, *(uint32_t *)item);
	return request;
}

struct asked_nexthop {
	uint32_t id; /* first: the item of the request */
	bool found;
	struct underlay_nexthop nexthop;
};

static void answer_nexthop(struct underlay *u, void *item, const struct nlmsghdr *message, int error)
{
	struct asked_nexthop *asked = item;

	(void)u;
	(void)error;
	asked->found = message && underlay_parse_nexthop(message, &asked->nexthop);
}

static const struct exchange nexthops = {request_nexthop, answer_nexthop};

/* Where net.ipv4.nexthop_compat_mode is 0 a route tells the id alone. A group has no groups in it. */
static int ask_nexthop(struct underlay *u, uint32_t id, bool inner, struct underlay_route *route)
{
	struct asked_nexthop asked = {.id = id};
	int r = exchange_run(u, &nexthops, &(void *){&asked}, 1);

	if (r < 0 || !asked.found)
		return r;
	if (asked.nexthop.blackhole) {
		route->type = RTN_BLACKHOLE;
	} else if (asked.nexthop.n == 0) {
		if (route->n < UNDERLAY_HOPS_MAX)
			route->hop[route->n++] = asked.nexthop.hop;
	} else if (!inner) {
		for (size_t i = 0; i < asked.nexthop.n && r == 0; i++)
			r = ask_nexthop(u, asked.nexthop.id[i], true, route);
	}
	return r;
}

static int set_route(struct underlay *u, struct peer *peer, struct underlay_route *route)
{
	int r = set_hops(u, peer, route);

	if (r < 0)
		return r;
	peer->type = route->type;
	peer->error = 0;
	peer->mtu = route->mtu;
	peer->due = false;
	peer->touched = u->touched = true;
	return 0;
}

/* One whose next hops are an object stays due, for nexthops_ask(). */
static void answer_route(struct underlay *u, void *item, const struct nlmsghdr *message, int error)
{
	struct peer *peer = item;
	struct underlay_route route;

	if (message && message->nlmsg_type == RTM_NEWROUTE && underlay_parse_route(message, &route)) {
		peer->error = 0;
		peer->mtu = route.mtu;
		if (route.n == 0 && route.nexthop && route.type == RTN_UNICAST)
			peer->nexthop = route.nexthop;
		else
			(void)set_route(u, peer, &route); /* without memory for it the peer stays due */
		return;
	}
	hops_clear(peer);
	peer->error = error < 0 ? error : -ENETUNREACH;
	peer->due = false;
	peer->touched = u->touched = true;
}

static const struct exchange routes = {request_route, answer_route};
static const struct exchange routes_without_source = {request_route_without_source, answer_route};

int routes_ask(struct underlay *u)
{
	_cleanup_free_ void **items = calloc(u->n_peers + 1, sizeof(void *));
	size_t n = 0, again = 0;
	int r;

	if (!items)
		return -ENOMEM;
	for (size_t i = 0; i < u->n_peers; i++)
		if (u->peers[i].due)
			items[n++] = &u->peers[i];
	r = exchange_run(u, &routes, items, n);
	/* An IPv4 source that the host does not have yet (and a blackhole). */
	for (size_t i = 0; r == 0 && i < n; i++)
		if (((struct peer *)items[i])->error == -EINVAL)
			items[again++] = items[i];
	return r < 0 ? r : exchange_run(u, &routes_without_source, items, again);
}

int nexthops_ask(struct underlay *u)
{
	int r = 0;

	for (size_t i = 0; i < u->n_peers && r == 0; i++) {
		struct peer *peer = &u->peers[i];
		struct underlay_route route = {.type = RTN_UNICAST, .mtu = peer->mtu};

		if (!peer->nexthop)
			continue;
		r = ask_nexthop(u, peer->nexthop, false, &route);
		if (r == 0)
			r = set_route(u, peer, &route);
		peer->nexthop = 0;
	}
	return r;
}
