/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Peers lead to hops, hops to neighbours, neighbours to devices. A message about one of the latter marks the peers that use it, and what they
 * come to is worked out once all messages that were there are read.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <linux/neighbour.h>
#include <linux/nexthop.h>
#include <linux/rtnetlink.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#define uthash_nonfatal_oom(element) ((element)->lost = true)
#include <uthash.h>

#include <libmnl/libmnl.h>

#include <netdev/hostnet.h>
#include <netdev/underlay.h>
#include <netdev/underlay_parse.h>
#include <util/addr.h>
#include <util/cleanup.h>
#include <util/clock.h>
#include <util/log.h>

#define MESSAGE_SIZE 32768
#define RECEIVE_BUFFER (4u << 20)
/* Requests under way at once. The kernel takes some KiB of the receive buffer for each answer. */
#define BATCH 64
#define REQUEST_SIZE 128
/* A list that changed while it was read is read again. */
#define DUMP_ATTEMPTS 5
/* Routes change in bursts. Where they never rest, no more than a tenth of the time goes to them. */
#define LOOK_US (20 * 1000)
#define LOOK_SHARE 10
#define RETRY_US (1000 * 1000)

const char *const underlay_reach_name[UNDERLAY_REACH_COUNT] = {
	[UNDERLAY_PENDING] = "pending",
	[UNDERLAY_REACHABLE] = "reachable",
	[UNDERLAY_RESOLVING] = "resolving",
	[UNDERLAY_UNRESOLVED] = "unresolved",
	[UNDERLAY_DOWN] = "link-down",
	[UNDERLAY_NO_ROUTE] = "no-route",
	[UNDERLAY_UNSUPPORTED] = "unsupported",
};

/* Every interface of the machine: routes may lead to any. */
struct device {
	uint32_t ifindex;
	uint16_t type;
	bool up, seen, touched;
	bool lost; /* set by uthash when it found no memory */
	uint32_t mtu;
	uint8_t mac[6];
	UT_hash_handle hh;
};

struct neighbour_key {
	struct hd_addr address;
	uint32_t ifindex;
};

struct neighbour {
	struct neighbour_key key;
	unsigned users;
	bool there, ours, wanted; /* wanted: to be made */
	bool has_mac, touched, lost;
	int refused; /* errno of the last attempt to make it; told once */
	uint16_t state;
	uint8_t mac[6];
	UT_hash_handle hh;
};

struct hop {
	uint32_t ifindex;
	bool dead, encapsulates;
	struct neighbour *neighbour; /* NULL: none on such a device */
};

struct peer {
	struct underlay_peer as;
	bool due;     /* its route is to be asked for */
	bool touched; /* what it comes to is to be worked out */
	bool told;
	uint8_t type;	  /* RTN_* */
	int error;	  /* no route: what the kernel said */
	uint32_t mtu;	  /* of the route */
	uint32_t nexthop; /* id of the object that the route's next hops are in, and that is still to be asked for; 0: none */
	struct hop *hops;
	size_t n_hops;
	struct underlay_state state;
};

struct underlay {
	struct mnl_socket *watch, *requests;
	struct hd_addr own;
	uint16_t port;
	underlay_event event;
	void *userdata;
	struct peer *peers; /* by index */
	size_t n_peers;
	struct device *devices;
	struct neighbour *neighbours;
	bool lost;	     /* messages: nothing that is known can be trusted */
	bool listed;	     /* the neighbours were listed, and leftovers removed */
	bool unlisted;	     /* some neighbour is new */
	bool unmade;	     /* some neighbour is to be made */
	bool touched;	     /* some device, neighbour or peer is */
	uint64_t look_at_us; /* 0: nothing is due */
	uint64_t look_took_us;
	uint32_t sequence;
	char buffer[MESSAGE_SIZE];
};
DEFINE_CLEANUP(struct underlay *, underlay_close);

/* --- requests --- */

static uint8_t family_of(const struct hd_addr *addr)
{
	return addr_is_ipv4(addr) ? AF_INET : AF_INET6;
}

static void put_addr(struct nlmsghdr *message, uint16_t type, const struct hd_addr *addr)
{
	bool ipv4 = addr_is_ipv4(addr);

	mnl_attr_put(message, type, ipv4 ? 4 : 16, ipv4 ? &addr->b[12] : addr->b);
}

/* In zeroed room of REQUEST_SIZE. */
static struct nlmsghdr *put_request(void *room, uint16_t type, uint16_t flags, size_t header, void *ret_header)
{
	struct nlmsghdr *request = mnl_nlmsg_put_header(room);

	request->nlmsg_type = type;
	request->nlmsg_flags = NLM_F_REQUEST | flags;
	*(void **)ret_header = mnl_nlmsg_put_extra_header(request, header);
	return request;
}

/* One of many requests with one answer each. answer: message, or NULL with the error (0: an acknowledgement). */
struct exchange {
	struct nlmsghdr *(*request)(struct underlay *u, void *item, void *room);
	void (*answer)(struct underlay *u, void *item, const struct nlmsghdr *message, int error);
};

static int take_answers(struct underlay *u, const struct exchange *exchange, void **items, size_t n, uint32_t first)
{
	size_t open = n;

	while (open) {
		ssize_t length = mnl_socket_recvfrom(u->requests, u->buffer, sizeof(u->buffer));
		const struct nlmsghdr *message = (const void *)u->buffer;
		int left = (int)length;

		if (length < 0 && errno == EINTR)
			continue;
		if (length < 0)
			return -errno;
		for (; mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left)) {
			const struct nlmsgerr *error = mnl_nlmsg_get_payload(message);
			uint32_t i = message->nlmsg_seq - first;

			if (i >= n)
				continue; /* of an exchange that was given up */
			if (message->nlmsg_type != NLMSG_ERROR)
				exchange->answer(u, items[i], message, 0);
			else if (mnl_nlmsg_get_payload_len(message) >= sizeof(error->error))
				exchange->answer(u, items[i], NULL, error->error);
			open--;
		}
	}
	return 0;
}

static int run_exchange(struct underlay *u, const struct exchange *exchange, void **items, size_t n)
{
	_cleanup_free_ uint8_t *room = n ? calloc(n < BATCH ? n : BATCH, REQUEST_SIZE) : NULL;
	int r = 0;

	if (n && !room)
		return -ENOMEM;
	for (size_t done = 0, now; done < n && r == 0; done += now) {
		uint32_t first = u->sequence + 1;
		size_t length = 0;

		now = n - done < BATCH ? n - done : BATCH;
		memset(room, 0, now * REQUEST_SIZE);
		for (size_t i = 0; i < now; i++) {
			struct nlmsghdr *request = exchange->request(u, items[done + i], room + length);

			request->nlmsg_seq = ++u->sequence;
			length += MNL_ALIGN(request->nlmsg_len);
		}
		r = mnl_socket_sendto(u->requests, room, length) < 0 ? -errno : 0;
		if (r == 0)
			r = take_answers(u, exchange, items + done, now, first);
	}
	return r;
}

static int run_dump(struct underlay *u, struct nlmsghdr *request, mnl_cb_t cb)
{
	unsigned port = mnl_socket_get_portid(u->requests);

	request->nlmsg_seq = ++u->sequence;
	if (mnl_socket_sendto(u->requests, request, request->nlmsg_len) < 0)
		return -errno;
	for (;;) {
		ssize_t length = mnl_socket_recvfrom(u->requests, u->buffer, sizeof(u->buffer));
		int r;

		if (length < 0)
			return -errno;
		r = mnl_cb_run(u->buffer, (size_t)length, u->sequence, port, cb, u);
		if (r == MNL_CB_STOP)
			return 0;
		if (r == MNL_CB_ERROR)
			return -errno;
	}
}

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

static struct device *find_device(struct underlay *u, uint32_t ifindex)
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
	struct device *device = find_device(u, link->ifindex);

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
		struct nlmsghdr *request = put_request(room, RTM_GETLINK, NLM_F_DUMP, sizeof(*header), &header);

		mnl_attr_put_u32(request, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
		HASH_ITER (hh, u->devices, device, next)
			device->seen = false;
		r = run_dump(u, request, on_link);
	}
	if (r < 0)
		return r;
	HASH_ITER (hh, u->devices, device, next)
		if (!device->seen)
			forget_device(u, device);
	return 0;
}

/* --- neighbours --- */

static struct neighbour *find_neighbour(struct underlay *u, const struct hd_addr *address, uint32_t ifindex)
{
	struct neighbour_key key;
	struct neighbour *neighbour;

	memset(&key, 0, sizeof(key));
	key.address = *address;
	key.ifindex = ifindex;
	HASH_FIND(hh, u->neighbours, &key, sizeof(key), neighbour);
	return neighbour;
}

static struct neighbour *use_neighbour(struct underlay *u, const struct hd_addr *address, uint32_t ifindex)
{
	struct neighbour *neighbour = find_neighbour(u, address, ifindex);

	if (!neighbour) {
		neighbour = calloc(1, sizeof(*neighbour));
		if (!neighbour)
			return NULL;
		neighbour->key.address = *address;
		neighbour->key.ifindex = ifindex;
		neighbour->wanted = true;
		HASH_ADD(hh, u->neighbours, key, sizeof(neighbour->key), neighbour);
		if (neighbour->lost) {
			free(neighbour);
			return NULL;
		}
		u->unlisted = u->unmade = true;
	}
	neighbour->users++;
	return neighbour;
}

/* Entries that the kernel keeps for us; hostnet's are permanent. */
static bool is_ours(const struct underlay_neighbour *entry)
{
	return entry->protocol == HOSTNET_PROTOCOL && entry->flags_ext & NTF_EXT_MANAGED && !(entry->state & NUD_PERMANENT);
}

/* Somebody keeps it, and would not have it changed. */
static bool is_kept(const struct underlay_neighbour *entry)
{
	return entry->state & (NUD_PERMANENT | NUD_NOARP) || entry->flags & NTF_EXT_LEARNED || entry->flags_ext & NTF_EXT_MANAGED;
}

static bool is_usable(const struct neighbour *neighbour)
{
	return neighbour->has_mac &&
	       neighbour->state & (NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE);
}

static bool has_failed(const struct neighbour *neighbour)
{
	return neighbour->state & NUD_FAILED || neighbour->refused;
}

/* The kernel asks each neighbour twice a minute: that it still answers is no news. */
static void change_neighbour(struct underlay *u, struct neighbour *neighbour, const struct neighbour *now)
{
	if (is_usable(neighbour) != is_usable(now) || has_failed(neighbour) != has_failed(now) ||
		memcmp(neighbour->mac, now->mac, sizeof(now->mac)) != 0)
		neighbour->touched = u->touched = true;
	neighbour->there = now->there;
	neighbour->ours = now->ours;
	neighbour->wanted = now->wanted;
	neighbour->state = now->state;
	neighbour->has_mac = now->has_mac;
	memcpy(neighbour->mac, now->mac, sizeof(neighbour->mac));
	u->unmade |= now->wanted;
}

static void note_neighbour(struct underlay *u, struct neighbour *neighbour, const struct underlay_neighbour *entry)
{
	struct neighbour now = *neighbour;

	now.there = true;
	now.ours = is_ours(entry);
	now.wanted = !now.ours && !is_kept(entry);
	now.state = entry->state;
	now.has_mac = entry->has_mac;
	memcpy(now.mac, entry->mac, sizeof(now.mac));
	change_neighbour(u, neighbour, &now);
}

static void note_neighbour_gone(struct underlay *u, struct neighbour *neighbour)
{
	struct neighbour now = *neighbour;

	now.there = now.ours = now.has_mac = false;
	now.state = NUD_NONE;
	now.wanted = true;
	change_neighbour(u, neighbour, &now);
}

static struct nlmsghdr *request_new_neighbour(struct underlay *u, void *item, void *room)
{
	const struct neighbour *neighbour = item;
	struct ndmsg *header;
	struct nlmsghdr *request =
		put_request(room, RTM_NEWNEIGH, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, sizeof(*header), &header);

	(void)u;
	header->ndm_family = family_of(&neighbour->key.address);
	header->ndm_ifindex = (int)neighbour->key.ifindex;
	/* Learnt entries are not subject to garbage collection, which takes managed ones too where many neighbours come and go. */
	header->ndm_flags = NTF_EXT_LEARNED;
	put_addr(request, NDA_DST, &neighbour->key.address);
	mnl_attr_put_u32(request, NDA_FLAGS_EXT, NTF_EXT_MANAGED);
	mnl_attr_put_u8(request, NDA_PROTOCOL, HOSTNET_PROTOCOL);
	return request;
}

static void answer_new_neighbour(struct underlay *u, void *item, const struct nlmsghdr *message, int error)
{
	struct neighbour *neighbour = item;
	char text[ADDR_TEXT_MAX];

	(void)message;
	if (error < 0 && error != neighbour->refused)
		log_warn(error, "cannot make the neighbour entry of the next hop %s", addr_format(&neighbour->key.address, text));
	if (error != neighbour->refused)
		neighbour->touched = u->touched = true;
	neighbour->refused = error;
	neighbour->wanted = error < 0; /* the next look tries again */
	if (error == 0)
		neighbour->there = neighbour->ours = true; /* its state comes by a message */
}

static struct nlmsghdr *request_del_neighbour(struct underlay *u, void *item, void *room)
{
	const struct neighbour *neighbour = item;
	struct ndmsg *header;
	struct nlmsghdr *request = put_request(room, RTM_DELNEIGH, NLM_F_ACK, sizeof(*header), &header);

	(void)u;
	header->ndm_family = family_of(&neighbour->key.address);
	header->ndm_ifindex = (int)neighbour->key.ifindex;
	put_addr(request, NDA_DST, &neighbour->key.address);
	return request;
}

static void answer_del_neighbour(struct underlay *u, void *item, const struct nlmsghdr *message, int error)
{
	const struct neighbour *neighbour = item;
	char text[ADDR_TEXT_MAX];

	(void)u;
	(void)message;
	if (error < 0 && error != -ENOENT && error != -ENODEV)
		log_warn(error, "cannot remove the neighbour entry of %s", addr_format(&neighbour->key.address, text));
}

static const struct exchange new_neighbours = {request_new_neighbour, answer_new_neighbour};
static const struct exchange del_neighbours = {request_del_neighbour, answer_del_neighbour};

/* Those of ours that nobody uses get an entry here, and go with the others that nobody uses. */
static int on_listed_neighbour(const struct nlmsghdr *message, void *userdata)
{
	struct underlay *u = userdata;
	struct underlay_neighbour entry;
	struct neighbour *neighbour;

	if (message->nlmsg_type != RTM_NEWNEIGH || !underlay_parse_neighbour(message, &entry))
		return MNL_CB_OK;
	neighbour = find_neighbour(u, &entry.address, entry.ifindex);
	if (!neighbour && is_ours(&entry)) {
		neighbour = use_neighbour(u, &entry.address, entry.ifindex);
		if (!neighbour) {
			errno = ENOMEM;
			return MNL_CB_ERROR;
		}
		neighbour->users--;
	}
	if (neighbour)
		note_neighbour(u, neighbour, &entry);
	return MNL_CB_OK;
}

static int list_neighbours(struct underlay *u)
{
	struct neighbour *neighbour, *next;
	int r = -EINTR;

	for (unsigned i = 0; r == -EINTR && i < DUMP_ATTEMPTS; i++) {
		uint8_t room[REQUEST_SIZE] = {0};
		struct ndmsg *header;
		struct nlmsghdr *request = put_request(room, RTM_GETNEIGH, NLM_F_DUMP, sizeof(*header), &header);

		HASH_ITER (hh, u->neighbours, neighbour, next)
			if (neighbour->there)
				note_neighbour_gone(u, neighbour);
		r = run_dump(u, request, on_listed_neighbour);
	}
	if (r == 0) {
		u->unlisted = false;
		u->listed = true;
	}
	return r;
}

/* What is used and not there is made; what is not used goes. */
static int sync_neighbours(struct underlay *u)
{
	size_t n = HASH_COUNT(u->neighbours), n_new = 0, n_del = 0;
	_cleanup_free_ void **to_make = calloc(n + 1, sizeof(void *)), **to_remove = calloc(n + 1, sizeof(void *));
	struct neighbour *neighbour, *next;
	int r;

	if (!to_make || !to_remove)
		return -ENOMEM;
	u->unmade = false;
	HASH_ITER (hh, u->neighbours, neighbour, next) {
		const struct device *device = find_device(u, neighbour->key.ifindex);

		if (!neighbour->users && neighbour->ours)
			to_remove[n_del++] = neighbour;
		else if (neighbour->users && neighbour->wanted && device && device->up)
			to_make[n_new++] = neighbour;
	}
	r = run_exchange(u, &new_neighbours, to_make, n_new);
	if (r == 0)
		r = run_exchange(u, &del_neighbours, to_remove, n_del);
	if (r < 0) {
		u->unmade = true;
		return r;
	}
	HASH_ITER (hh, u->neighbours, neighbour, next)
		if (!neighbour->users) {
			HASH_DEL(u->neighbours, neighbour);
			free(neighbour);
		}
	return 0;
}

/* --- routes --- */

static struct nlmsghdr *put_route_request(struct underlay *u, const struct peer *peer, void *room, bool source)
{
	uint8_t family = family_of(&peer->as.address), bits = family == AF_INET ? 32 : 128;
	struct rtmsg *header;
	struct nlmsghdr *request = put_request(room, RTM_GETROUTE, 0, sizeof(*header), &header);

	header->rtm_family = family;
	header->rtm_dst_len = bits;
	header->rtm_flags = RTM_F_FIB_MATCH; /* the route with all its next hops, not the one it is today */
	put_addr(request, RTA_DST, &peer->as.address);
	if (source) {
		header->rtm_src_len = bits;
		put_addr(request, RTA_SRC, &u->own);
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

static void clear_hops(struct peer *peer)
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
		const struct device *device = find_device(u, from->ifindex);
		struct hop *hop = &hops[n];

		if (i && compare_hops(from, from - 1) == 0)
			continue;
		*hop = (struct hop){.ifindex = from->ifindex, .dead = from->dead, .encapsulates = from->encapsulates};
		n++;
		if (!device || device->type != ARPHRD_ETHER || from->encapsulates)
			continue;
		hop->neighbour = use_neighbour(u, &from->gateway, from->ifindex);
		if (hop->neighbour)
			continue;
		for (size_t j = 0; j < n; j++)
			if (hops[j].neighbour)
				hops[j].neighbour->users--;
		free(hops);
		return -ENOMEM;
	}
	/* Only now, so that a neighbour of both stays. */
	clear_hops(peer);
	peer->hops = hops;
	peer->n_hops = n;
	return 0;
}

static struct nlmsghdr *request_nexthop(struct underlay *u, void *item, void *room)
{
	struct nhmsg *header;
	struct nlmsghdr *request = put_request(room, RTM_GETNEXTHOP, 0, sizeof(*header), &header);

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
	int r = run_exchange(u, &nexthops, &(void *){&asked}, 1);

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

/* One whose next hops are an object stays due, for ask_nexthops(). */
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
	clear_hops(peer);
	peer->error = error < 0 ? error : -ENETUNREACH;
	peer->due = false;
	peer->touched = u->touched = true;
}

static const struct exchange routes = {request_route, answer_route};
static const struct exchange routes_without_source = {request_route_without_source, answer_route};

static int ask_routes(struct underlay *u)
{
	_cleanup_free_ void **items = calloc(u->n_peers + 1, sizeof(void *));
	size_t n = 0, again = 0;
	int r;

	if (!items)
		return -ENOMEM;
	for (size_t i = 0; i < u->n_peers; i++)
		if (u->peers[i].due)
			items[n++] = &u->peers[i];
	r = run_exchange(u, &routes, items, n);
	/* An IPv4 source that the host does not have yet (and a blackhole). */
	for (size_t i = 0; r == 0 && i < n; i++)
		if (((struct peer *)items[i])->error == -EINVAL)
			items[again++] = items[i];
	return r < 0 ? r : run_exchange(u, &routes_without_source, items, again);
}

static int ask_nexthops(struct underlay *u)
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

/* --- what a peer comes to --- */

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
	return "no route leads there";
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
	const struct device *device = find_device(u, hop->ifindex);

	if (!device || !device->up || hop->dead) {
		w->down = true;
	} else if (!hop->neighbour) {
		w->unsupported = true;
	} else if (!is_usable(hop->neighbour)) {
		lower(&w->mtu_of_others, device->mtu);
		w->failed |= has_failed(hop->neighbour);
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

static void work_out(struct underlay *u, const struct peer *peer, struct underlay_state *ret)
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
		memcpy(way->source, find_device(u, hop->ifindex)->mac, sizeof(way->source));
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

static bool is_touched(struct underlay *u, const struct peer *peer)
{
	if (peer->touched)
		return true;
	for (size_t i = 0; i < peer->n_hops; i++) {
		const struct device *device = find_device(u, peer->hops[i].ifindex);

		if (!device || device->touched || (peer->hops[i].neighbour && peer->hops[i].neighbour->touched))
			return true;
	}
	return false;
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
		work_out(u, peer, &state);
		if (peer->told && memcmp(&state, &peer->state, sizeof(state)) == 0)
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
		r = ask_routes(u);
	if (r == 0)
		r = ask_nexthops(u);
	if (r == 0 && (u->unlisted || !u->listed))
		r = list_neighbours(u);
	if (r == 0) {
		made = u->unmade;
		r = sync_neighbours(u);
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

const struct underlay_state *underlay_find(const struct underlay *u, uint32_t index)
{
	for (size_t low = 0, high = u->n_peers; low < high;) {
		size_t middle = low + (high - low) / 2;

		if (u->peers[middle].as.index == index)
			return &u->peers[middle].state;
		if (u->peers[middle].as.index > index)
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
		clear_hops(&u->peers[i]);
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
		device = find_device(u, (uint32_t)header->ifi_index);
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
		underlay_parse_neighbour(message, &entry) ? find_neighbour(u, &entry.address, entry.ifindex) : NULL;

	if (!neighbour)
		return;
	if (message->nlmsg_type == RTM_NEWNEIGH)
		note_neighbour(u, neighbour, &entry);
	else
		note_neighbour_gone(u, neighbour);
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
	for (;;) {
		ssize_t length = mnl_socket_recvfrom(u->watch, u->buffer, sizeof(u->buffer));

		if (length < 0 && errno == EINTR)
			continue;
		if (length < 0 && errno == ENOBUFS) {
			u->lost = true;
			look_later(u);
			continue;
		}
		if (length < 0)
			break;
		if (mnl_cb_run(u->buffer, (size_t)length, 0, 0, on_change, u) == MNL_CB_ERROR) {
			u->lost = true;
			look_later(u);
		}
	}
	if (errno != EAGAIN && errno != EWOULDBLOCK)
		return -errno;
	tell(u);
	if (u->unmade)
		look_later(u);
	return 0;
}

/* --- opening --- */

static int open_requests(struct underlay *u)
{
	u->requests = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	if (!u->requests || mnl_socket_bind(u->requests, 0, MNL_SOCKET_AUTOPID) < 0)
		return -errno;
	(void)setsockopt(mnl_socket_get_fd(u->requests), SOL_SOCKET, SO_RCVBUFFORCE, &(int){RECEIVE_BUFFER}, sizeof(int));
	(void)mnl_socket_setsockopt(u->requests, NETLINK_GET_STRICT_CHK, &(int){1}, sizeof(int));
	return 0;
}

static int open_watch(struct underlay *u)
{
	bool ipv4 = addr_is_ipv4(&u->own);
	const int groups[] = {RTNLGRP_LINK, RTNLGRP_NEIGH, RTNLGRP_NEXTHOP, ipv4 ? RTNLGRP_IPV4_ROUTE : RTNLGRP_IPV6_ROUTE,
		ipv4 ? RTNLGRP_IPV4_RULE : RTNLGRP_IPV6_RULE, ipv4 ? RTNLGRP_IPV4_IFADDR : RTNLGRP_IPV6_IFADDR};

	u->watch = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (!u->watch || mnl_socket_bind(u->watch, 0, MNL_SOCKET_AUTOPID) < 0)
		return -errno;
	(void)setsockopt(mnl_socket_get_fd(u->watch), SOL_SOCKET, SO_RCVBUFFORCE, &(int){RECEIVE_BUFFER}, sizeof(int));
	for (size_t i = 0; i < ARRAY_SIZE(groups); i++)
		if (mnl_socket_setsockopt(u->watch, NETLINK_ADD_MEMBERSHIP, (void *)&groups[i], sizeof(groups[i])) < 0)
			return -errno;
	return 0;
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
		r = list_neighbours(u);
	if (r == 0)
		r = sync_neighbours(u);
	return r < 0 ? log_err(r, "cannot remove the neighbour entries of next hops") : 0;
}
