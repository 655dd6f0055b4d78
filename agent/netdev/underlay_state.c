/* SPDX-License-Identifier: Apache-2.0 */
/* What a peer comes to. No I/O. */
#include <errno.h>
#include <string.h>
#include <linux/rtnetlink.h>

#include <netdev/underlay_internal.h>

const char *const underlay_reach_name[UNDERLAY_REACH_COUNT] = {
	[UNDERLAY_PENDING] = "pending",
	[UNDERLAY_REACHABLE] = "reachable",
	[UNDERLAY_RESOLVING] = "resolving",
	[UNDERLAY_UNRESOLVED] = "unresolved",
	[UNDERLAY_DOWN] = "link-down",
	[UNDERLAY_NO_ROUTE] = "no-route",
	[UNDERLAY_UNSUPPORTED] = "unsupported",
};

static const char *route_reason(const struct peer *peer)
{
	switch (peer->error ? (int)RTN_UNSPEC : peer->type) {
	case RTN_UNICAST:
		return "the route has no next hop";
	case RTN_LOCAL:
		return "the address is this host's own";
	case RTN_BROADCAST:
	case RTN_MULTICAST:
	case RTN_ANYCAST:
		return "the address is that of a group";
	case RTN_BLACKHOLE:
		return "the route is a blackhole";
	case RTN_PROHIBIT:
		return "the route prohibits it";
	case RTN_UNREACHABLE:
	case RTN_THROW:
		return "the route says unreachable";
	default:
		break;
	}
	switch (-peer->error) {
	case EINVAL:
		return "the route is a blackhole";
	case EACCES:
		return "the route prohibits it";
	case EHOSTUNREACH:
		return "the route says unreachable";
	}
	return "no route leads there from the tunnel's address";
}

static void lower(uint32_t *mtu, uint32_t by)
{
	if (by && (!*mtu || by < *mtu))
		*mtu = by;
}

struct weighing {
	const struct hop *usable[UNDERLAY_HOPS_MAX];
	size_t n;
	uint32_t mtu, mtu_of_others;
	bool unsupported, down, failed;
};

static void weigh(struct underlay *u, const struct hop *hop, struct weighing *w)
{
	const struct device *device = device_find(u, hop->ifindex);

	if (!device || !device->up || hop->dead) {
		w->down = true;
	} else if (!hop->neighbour) {
		w->unsupported = true;
	} else if (!neighbour_is_usable(hop->neighbour)) {
		lower(&w->mtu_of_others, device->mtu);
		w->failed |= neighbour_has_failed(hop->neighbour);
	} else {
		lower(&w->mtu, device->mtu);
		w->usable[w->n++] = hop;
	}
}

static void explain_nothing(const struct peer *peer, const struct weighing *w, struct underlay_state *state)
{
	if (!peer->n_hops || peer->type != RTN_UNICAST) {
		state->reach = UNDERLAY_NO_ROUTE;
		state->reason = route_reason(peer);
	} else if (w->failed) {
		state->reach = UNDERLAY_UNRESOLVED;
		state->reason = "no next hop answers";
	} else if (w->mtu_of_others) {
		state->reach = UNDERLAY_RESOLVING;
		state->reason = "the MACs of the next hops are being asked for";
	} else if (w->unsupported) {
		state->reach = UNDERLAY_UNSUPPORTED;
		state->reason = "the route is over a device without Ethernet headers, or encapsulates";
	} else {
		state->reach = UNDERLAY_DOWN;
		state->reason = "the link of every next hop is down";
	}
}

void peer_work_out(struct underlay *u, const struct peer *peer, struct underlay_state *ret)
{
	struct weighing w = {0};
	size_t first = 0;

	memset(ret, 0, sizeof(*ret));
	if (peer->type == RTN_UNICAST && !peer->error)
		for (size_t i = 0; i < peer->n_hops; i++)
			weigh(u, &peer->hops[i], &w);
	/* Of many next hops each peer has some, and other peers others. */
	if (w.n > HD_PEER_WAYS)
		first = peer->as.index % w.n;
	for (size_t i = 0; i < w.n && i < HD_PEER_WAYS; i++) {
		const struct hop *hop = w.usable[(first + i) % w.n];
		struct hd_way *way = &ret->way[ret->n];

		way->ifindex = hop->ifindex;
		memcpy(way->destination, hop->neighbour->mac, sizeof(way->destination));
		memcpy(way->source, device_find(u, hop->ifindex)->mac, sizeof(way->source));
		ret->next_hop[ret->n++] = hop->neighbour->key.address;
	}
	if (!w.mtu)
		w.mtu = w.mtu_of_others;
	if (w.mtu)
		lower(&w.mtu, peer->mtu);
	ret->mtu = (uint16_t)(w.mtu < UINT16_MAX ? w.mtu : UINT16_MAX);
	if (ret->n)
		ret->reach = UNDERLAY_REACHABLE;
	else
		explain_nothing(peer, &w, ret);
}
