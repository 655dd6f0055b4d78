/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>

#include <netdev/hostnet.h>
#include <netdev/underlay_internal.h>
#include <util/addr.h>
#include <util/cleanup.h>
#include <util/log.h>

struct neighbour *neighbour_find(struct underlay *u, const struct hd_addr *address, uint32_t ifindex)
{
	struct neighbour_key key;
	struct neighbour *neighbour;

	memset(&key, 0, sizeof(key));
	key.address = *address;
	key.ifindex = ifindex;
	HASH_FIND(hh, u->neighbours, &key, sizeof(key), neighbour);
	return neighbour;
}

struct neighbour *neighbour_use(struct underlay *u, const struct hd_addr *address, uint32_t ifindex)
{
	struct neighbour *neighbour = neighbour_find(u, address, ifindex);

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

bool neighbour_is_usable(const struct neighbour *neighbour)
{
	return neighbour->has_mac &&
	       neighbour->state & (NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE);
}

bool neighbour_has_failed(const struct neighbour *neighbour)
{
	return neighbour->state & NUD_FAILED || neighbour->refused;
}

/* The kernel asks each neighbour twice a minute: that it still answers is no news. */
static void change_neighbour(struct underlay *u, struct neighbour *neighbour, const struct neighbour *now)
{
	if (neighbour_is_usable(neighbour) != neighbour_is_usable(now) ||
		neighbour_has_failed(neighbour) != neighbour_has_failed(now) ||
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

void neighbour_note(struct underlay *u, struct neighbour *neighbour, const struct underlay_neighbour *entry)
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

void neighbour_gone(struct underlay *u, struct neighbour *neighbour)
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
		request_put(room, RTM_NEWNEIGH, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, sizeof(*header), &header);

	(void)u;
	header->ndm_family = request_family(&neighbour->key.address);
	header->ndm_ifindex = (int)neighbour->key.ifindex;
	/* Learnt entries are not subject to garbage collection, which takes managed ones too where many neighbours come and go. */
	header->ndm_flags = NTF_EXT_LEARNED;
	request_put_address(request, NDA_DST, &neighbour->key.address);
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
	struct nlmsghdr *request = request_put(room, RTM_DELNEIGH, NLM_F_ACK, sizeof(*header), &header);

	(void)u;
	header->ndm_family = request_family(&neighbour->key.address);
	header->ndm_ifindex = (int)neighbour->key.ifindex;
	request_put_address(request, NDA_DST, &neighbour->key.address);
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
	neighbour = neighbour_find(u, &entry.address, entry.ifindex);
	if (!neighbour && is_ours(&entry)) {
		neighbour = neighbour_use(u, &entry.address, entry.ifindex);
		if (!neighbour) {
			errno = ENOMEM;
			return MNL_CB_ERROR;
		}
		neighbour->users--;
	}
	if (neighbour)
		neighbour_note(u, neighbour, &entry);
	return MNL_CB_OK;
}

int neighbours_list(struct underlay *u)
{
	struct neighbour *neighbour, *next;
	int r = -EINTR;

	for (unsigned i = 0; r == -EINTR && i < DUMP_ATTEMPTS; i++) {
		uint8_t room[REQUEST_SIZE] = {0};
		struct ndmsg *header;
		struct nlmsghdr *request = request_put(room, RTM_GETNEIGH, NLM_F_DUMP, sizeof(*header), &header);

		HASH_ITER (hh, u->neighbours, neighbour, next)
			if (neighbour->there)
				neighbour_gone(u, neighbour);
		r = dump_run(u, request, on_listed_neighbour);
	}
	if (r == 0) {
		u->unlisted = false;
		u->listed = true;
	}
	return r;
}

int neighbours_sync(struct underlay *u)
{
	size_t n = HASH_COUNT(u->neighbours), n_new = 0, n_del = 0;
	_cleanup_free_ void **to_make = calloc(n + 1, sizeof(void *)), **to_remove = calloc(n + 1, sizeof(void *));
	struct neighbour *neighbour, *next;
	int r;

	if (!to_make || !to_remove)
		return -ENOMEM;
	u->unmade = false;
	HASH_ITER (hh, u->neighbours, neighbour, next) {
		const struct device *device = device_find(u, neighbour->key.ifindex);

		if (!neighbour->users && neighbour->ours)
			to_remove[n_del++] = neighbour;
		else if (neighbour->users && neighbour->wanted && device && device->up)
			to_make[n_new++] = neighbour;
	}
	r = exchange_run(u, &new_neighbours, to_make, n_new);
	if (r == 0)
		r = exchange_run(u, &del_neighbours, to_remove, n_del);
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
