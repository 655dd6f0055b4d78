/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FastPaths of workers: the sockets and threads of each document, made when two of its devices are there. What runs stays as long as what it was made
 * for; whatever else changes ends it and makes it anew, and packets go by the fallback meanwhile.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <controller_internal.h>
#include <netdev/neighbours.h>

#define AGAIN_BUSY_US 200000 /* the kernel gives a queue back a little after its socket was closed */
#define AGAIN_US 2000000
#define NEIGHBOURS_US 5000000

struct forwarder {
	struct forward_plan plan;
	struct forward_lane lanes[FORWARD_LANES];
	uint32_t n_lanes;
	struct forward *forward; /* NULL: `why` says why not */
	bool begun;
	bool told; /* of its last error */
	char why[160];
};

/* --- lanes --- */

static uint32_t spread(const struct forward_plan *plan, struct forward_lane *lanes, uint32_t *ret_workers)
{
	uint32_t n = 0, least = FORWARD_LANES, all = 0, workers = plan->workers;

	for (uint32_t i = 0; i < plan->n_devices; i++) {
		all += plan->devices[i].queues;
		least = plan->devices[i].queues < least ? plan->devices[i].queues : least;
	}
	if (all > FORWARD_LANES || !workers)
		return 0;
	workers = workers < all ? workers : all;
	for (uint32_t i = 0; i < plan->n_devices; i++)
		for (uint32_t queue = 0; queue < plan->devices[i].queues; queue++, n++)
			lanes[n] = (struct forward_lane){.ifindex = plan->devices[i].ifindex,
				.queue = queue,
				.device = plan->devices[i].index,
				/* the same queues of all devices with one worker, which then need not hand frames over */
				.worker = (least >= workers ? queue : n) % workers,
				.port = plan->devices[i].port,
				.generic = plan->devices[i].generic,
				.zero_copy_pieces = plan->devices[i].zero_copy_pieces,
				.copy_only = plan->copy				       ? "by the document"
					     : plan->devices[i].copy_only >> queue & 1 ? plan->devices[i].why_copy
										       : NULL};
	*ret_workers = workers;
	return n;
}

/* --- one of them --- */

/* What every socket takes and sends, since a packet may leave by any. */
static uint32_t packet_most(const struct forwarder *f)
{
	uint32_t most = UINT32_MAX;

	for (uint32_t i = 0; i < f->n_lanes; i++) {
		const struct xsk *xsk = forward_socket(f->forward, i);
		uint32_t bytes = xsk_packet_most(f->plan.frame_size, xsk->pieces, xsk->mode);

		most = bytes < most ? bytes : most;
	}
	return most;
}

static int set_room(struct controller *c, const struct forward_lane *lane, bool several, uint32_t most)
{
	uint32_t bytes = most - (lane->port ? sizeof(struct hd_fast_meta) : 0);
	const struct hd_fast_room room = {.one = bytes, .several = several ? bytes : 0};

	return datapath_fast_room(c->datapath, (uint16_t)lane->device, most ? &room : NULL);
}

static int to_sockets(struct controller *c, const struct forwarder *f, bool on)
{
	uint32_t most = on ? packet_most(f) : 0;
	int r = 0;

	for (uint32_t i = 0; i < f->n_lanes; i++) {
		int now = set_room(c, &f->lanes[i], f->plan.several, most);

		if (now == 0)
			now = datapath_fast_socket(c->datapath, (uint16_t)f->lanes[i].device, (uint16_t)f->lanes[i].queue,
				on ? forward_socket(f->forward, i)->fd : -1);

		if (now < 0 && r == 0)
			r = now;
	}
	return r;
}

static void end(struct controller *c, struct forwarder *f)
{
	if (!f->forward)
		return;
	/* nothing more comes in; what has, the workers send before they end */
	(void)to_sockets(c, f, false);
	forward_stop(f->forward);
	log_debug("%s: the workers have ended, %u of their frames are in the kernel's hands", f->plan.name,
		forward_missing(f->forward));
	forward_free(f->forward);
	f->forward = NULL;
	f->begun = false;
}

/* Threads have the confinement of the one that made them, so there are none before that. */
static int begin(struct controller *c, struct forwarder *f)
{
	int r;

	if (f->begun || !f->forward || !c->confined)
		return 0;
	r = forward_start(f->forward);
	if (r == 0)
		r = to_sockets(c, f, true);
	if (r < 0) {
		snprintf(f->why, sizeof(f->why), "the workers cannot be started: %s", strerror(-r));
		end(c, f);
		return r;
	}
	f->begun = true;
	return 0;
}

static void say_why(struct forwarder *f, int error, uint32_t lane)
{
	const char *device = "";
	uint32_t queue = 0;

	if (lane < f->n_lanes) {
		queue = f->lanes[lane].queue;
		for (uint32_t i = 0; i < f->plan.n_devices; i++)
			if (f->plan.devices[i].ifindex == f->lanes[lane].ifindex)
				device = f->plan.devices[i].name;
		snprintf(f->why, sizeof(f->why), "%s, queue %u: %s", device, queue,
			error == -EBUSY	       ? "held by another socket"
			: error == -ENETDOWN   ? "the device is down"
			: error == -EOPNOTSUPP ? "the device takes no AF_XDP sockets"
					       : strerror(-error));
	} else {
		snprintf(f->why, sizeof(f->why), "the workers' memory cannot be had: %s", strerror(-error));
	}
}

static int make(struct forwarder *f)
{
	const struct forward_plan *plan = &f->plan;
	uint32_t workers = 0, failed = 0;
	int r;

	f->n_lanes = spread(plan, f->lanes, &workers);
	if (f->n_lanes == 0) {
		snprintf(f->why, sizeof(f->why), "the devices have more than %u queues", FORWARD_LANES);
		return -EINVAL;
	}
	r = forward_create(
		&(struct forward_options){
			.lanes = f->lanes,
			.n_lanes = f->n_lanes,
			.workers = workers,
			.cpus = plan->has_cpus ? plan->cpus : NULL,
			.frame_size = plan->frame_size,
			.node = plan->node,
			.huge = true,
			.several = plan->several,
			.spin = plan->spin,
			.batch = plan->batch,
			.ring = plan->ring,
			.busy = plan->busy,
		},
		&f->forward, &failed);
	if (r < 0)
		say_why(f, r, failed);
	else
		f->why[0] = '\0';
	return r;
}

/* --- all of them --- */

static int on_again(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)source;
	(void)usec;
	fastpaths_follow(userdata);
	return 0;
}

static void again(struct controller *c, uint64_t us)
{
	if (!c->forward_again)
		(void)sd_event_add_time_relative(c->event, &c->forward_again, CLOCK_MONOTONIC, us, 1000, on_again, c);
	else if (sd_event_source_set_time_relative(c->forward_again, us) >= 0)
		(void)sd_event_source_set_enabled(c->forward_again, SD_EVENT_ONESHOT);
}

/* Devices by which something may leave past the kernel: how many. */
static size_t takes_part(const struct controller *c, uint32_t ifindexes[FORWARD_DEVICES])
{
	size_t n = 0;

	for (size_t i = 0; i < c->n_fast_paths; i++) {
		const struct view_workers *path = &c->fast_paths[i].workers;

		for (size_t j = 0; path->devices && j < c->fast_paths[i].object->fast_path.n_devices && n < FORWARD_DEVICES; j++)
			if (path->devices[j].ifindex && !path->devices[j].reason)
				ifindexes[n++] = path->devices[j].ifindex;
	}
	return n;
}

/* Packets that go past the kernel are not seen where it would look after their next hops. */
static int on_neighbours(sd_event_source *source, uint64_t usec, void *userdata)
{
	uint32_t ifindexes[FORWARD_DEVICES];
	struct controller *c = userdata;
	size_t n;

	(void)usec;
	n = takes_part(c, ifindexes);
	if (n == 0)
		return 0;
	(void)neighbours_use(ifindexes, n);
	if (sd_event_source_set_time_relative(source, NEIGHBOURS_US) >= 0)
		(void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return 0;
}

static void look_after_neighbours(struct controller *c)
{
	int enabled = SD_EVENT_OFF;

	if (!c->forward_neighbours) {
		(void)sd_event_add_time_relative(
			c->event, &c->forward_neighbours, CLOCK_MONOTONIC, NEIGHBOURS_US, 1000000, on_neighbours, c);
		return;
	}
	(void)sd_event_source_get_enabled(c->forward_neighbours, &enabled);
	if (enabled == SD_EVENT_OFF && sd_event_source_set_time_relative(c->forward_neighbours, NEIGHBOURS_US) >= 0)
		(void)sd_event_source_set_enabled(c->forward_neighbours, SD_EVENT_ONESHOT);
}

static struct forwarder *find(struct controller *c, const char *name)
{
	for (size_t i = 0; i < c->n_forwarders; i++)
		if (strcmp(c->forwarders[i]->plan.name, name) == 0)
			return c->forwarders[i];
	return NULL;
}

static struct forwarder *add(struct controller *c)
{
	struct forwarder **grown = reallocarray(c->forwarders, c->n_forwarders + 1, sizeof(struct forwarder *));
	struct forwarder *f;

	if (!grown)
		return NULL;
	c->forwarders = grown;
	f = calloc(1, sizeof(*f));
	if (f)
		c->forwarders[c->n_forwarders++] = f;
	return f;
}

/* Whether what was made for one plan serves the other. */
static bool serves(const struct forward_plan *made, const struct forward_plan *plan)
{
	struct forward_plan wanted = *plan;

	for (uint32_t i = 0; i < wanted.n_devices; i++)
		if (wanted.devices[i].port && wanted.devices[i].ifindex == made->devices[i].ifindex)
			wanted.devices[i].generic = made->devices[i].generic;
	return memcmp(made, &wanted, sizeof(wanted)) == 0;
}

void forwarders_end_others(struct controller *c, const struct forward_plan *plans, size_t n)
{
	for (size_t i = c->n_forwarders; i-- > 0;) {
		struct forwarder *f = c->forwarders[i];
		bool same = false;

		for (size_t j = 0; j < n && !same; j++)
			same = !plans[j].waiting && serves(&f->plan, &plans[j]);
		if (same)
			continue;
		end(c, f);
		free(f);
		c->forwarders[i] = c->forwarders[--c->n_forwarders];
	}
}

int forwarders_follow(struct controller *c, const struct forward_plan *plans, size_t n)
{
	uint32_t ifindexes[FORWARD_DEVICES];
	uint64_t due = 0;
	int r = 0;

	for (size_t i = 0; i < n; i++) {
		struct forwarder *f = find(c, plans[i].name);
		int now = 0;

		if (plans[i].waiting)
			continue;
		if (!f) {
			f = add(c);
			if (!f)
				return -ENOMEM;
			f->plan = plans[i];
		}
		if (!f->forward)
			now = make(f);
		if (now == 0)
			now = begin(c, f);
		if (now < 0 && now != -EINVAL)
			due = now == -EBUSY ? AGAIN_BUSY_US : due ? due : AGAIN_US;
		/* said once: it is tried again and again */
		if (now < 0 && now != -EBUSY && !f->told)
			log_warn(now, "FastPath %s: %s", plans[i].name, f->why);
		f->told = now < 0;
		r = now == -ENOMEM ? now : r;
	}
	if (due)
		again(c, due);
	if (takes_part(c, ifindexes))
		look_after_neighbours(c);
	return r;
}

void forwarders_begin(struct controller *c)
{
	if (c->n_forwarders)
		fastpaths_follow(c);
}

void forwarders_view(struct controller *c, const char *name, struct view_workers *ret)
{
	struct forwarder *f = find(c, name);

	ret->forward = f && f->begun ? f->forward : NULL;
	ret->lanes = f ? f->lanes : NULL;
	ret->n_lanes = f && f->begun ? f->n_lanes : 0;
	if (!ret->reason && f && !f->begun)
		ret->reason = f->why[0] ? f->why : "the agent is starting";
}

void forwarders_free(struct controller *c)
{
	sd_event_source_disable_unref(c->forward_again);
	sd_event_source_disable_unref(c->forward_neighbours);
	c->forward_again = c->forward_neighbours = NULL;
	for (size_t i = 0; i < c->n_forwarders; i++) {
		end(c, c->forwarders[i]);
		free(c->forwarders[i]);
	}
	free(c->forwarders);
	c->forwarders = NULL;
	c->n_forwarders = 0;
}
