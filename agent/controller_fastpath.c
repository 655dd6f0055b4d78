/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FastPath documents: what is steered where in the data plane, who may connect, and what the sockets are made for. Done anew, whole, after each
 * change of documents or devices; what is as it was stays untouched.
 */
#include <errno.h>
#include <fcntl.h>
#include <net/ethernet.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <controller_internal.h>
#include <netdev/zero_copy.h>
#include <util/ethtool.h>
#include <observe/status.h>
#include <util/file.h>

static const char checksum_feature[] = "tx-checksum-ip-generic";

/* --- a document on the devices that are there --- */

/* What a document comes to. */
struct plan {
	const struct fast_path *path;
	const char *name;
	struct forward_plan workers;	    /* of consumer forward */
	struct datapath_fast_path *devices; /* of it, as many as the document has; owned */
	struct datapath_fast_path steer;
	struct datapath_match *matches; /* owned */
	struct fastpath_config config;
	struct view_fast_path *view;
	const char *near_end;	    /* the port's device; NULL: an uplink */
	const char *several_reason; /* why sockets take no packets in several frames, if they do not. Static */
};

static int numa_node(const char *device)
{
	_cleanup_free_ char *text = NULL;
	char path[64 + IF_NAMESIZE];
	size_t length;

	snprintf(path, sizeof(path), "/sys/class/net/%s/device/numa_node", device);
	return file_read(AT_FDCWD, path, 64, &text, &length, NULL) < 0 ? -1 : atoi(text);
}

/* What the kernel does about a source is more than a route to a destination. */
static bool strict_source(const char *device)
{
	const char *names[] = {"all", device};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		_cleanup_free_ char *text = NULL;
		char path[64 + IF_NAMESIZE];
		size_t length;

		snprintf(path, sizeof(path), "/proc/sys/net/ipv4/conf/%s/rp_filter", names[i]);
		if (file_read(AT_FDCWD, path, 64, &text, &length, NULL) == 0 && atoi(text) == 1)
			return true;
	}
	return false;
}

static const char *copy_only(const struct fast_path *path)
{
	/* in zero-copy the device writes all that a queue brings where the consumer reads */
	return path->copy			? "by the document"
	       : path->uplink && !path->trusted ? "zero-copy would show an untrusted consumer all that the queue brings"
						: NULL;
}

static void choose_queues(struct plan *plan, const struct netdev *device)
{
	const struct fast_path *path = plan->path;
	struct fastpath_config *config = &plan->config;
	uint32_t there = 0;

	if (ethtool_rx_queues(config->device, &there) < 0)
		there = 1;
	plan->view->queues = there;
	if (path->n_queues) {
		for (size_t i = 0; i < path->n_queues && !config->waiting; i++) {
			config->queues[config->n_queues++] = path->queues[i];
			if (path->queues[i] >= there)
				config->waiting = "the device has not all of these queues (ethtool -l)";
		}
	} else {
		for (uint32_t i = 0; i < there && i < FASTPATH_QUEUES; i++)
			config->queues[config->n_queues++] = (uint16_t)i;
	}
	for (uint32_t i = 0; i < config->n_queues; i++) {
		plan->view->asks_queue[config->queues[i]] = true;
		config->copy_only[i] = copy_only(path);
		if (path->uplink && !config->copy_only[i])
			config->copy_only[i] = zero_copy_unfit(device, config->queues[i], config->frame_size);
	}
}

/* Which form of our program XDP of the driver has: a tap has generic XDP behind it for what is longer than a page. */
static bool takes_flag(struct controller *c, const struct netdev *device)
{
	return strcmp(device->kind, "veth") == 0 && several_has(c);
}

/* What a consumer that asks for packets in several frames can have. */
static void choose_several(struct controller *c, struct plan *plan, const struct netdev *device)
{
	struct fastpath_config *config = &plan->config;
	bool copies = config->generic;
	struct several_device driver;

	several_ask(c, device, &driver);
	for (uint32_t i = 0; i < config->n_queues && !copies; i++)
		copies = config->copy_only[i] != NULL;
	config->several = several_wanted(c, &driver, copies, device->mtu, config->frame_size) || driver.pieces > 1;
	plan->view->several_reason = config->several ? NULL : several_why_not(c);
	config->several_copy = several_refuses(&driver, device->mtu, config->frame_size);
	config->zero_copy_pieces = driver.pieces;
	plan->steer.several = takes_flag(c, device) && !plan->path->uplink;
}

/* Why not; NULL: our XDP program runs there. *ret: the device, where there is one. */
static const char *find_uplink(const struct controller *c, const char *name, const struct netdev **ret, bool *ret_generic)
{
	const struct netdev *device = view_device_by_name(&c->view, name);
	const struct datapath_attachment *at = device ? view_attachment(&c->view, device->ifindex) : NULL;

	*ret = device;
	if (!device)
		return "the device is not there";
	if (!at)
		return "the uplink is not guarded";
	if (strcmp(at->xdp_mode, "off") == 0)
		return "no XDP program of ours runs on the uplink";
	*ret_generic = strcmp(at->xdp_mode, "generic") == 0;
	return NULL;
}

static const struct topology_port *find_port(const struct controller *c, const struct fast_path *path)
{
	for (size_t i = 0; c->topology && i < c->topology->n_ports; i++) {
		const struct object *object = c->topology->ports[i].object;

		if (strcmp(object->name, path->port) == 0 && strcmp(object->namespace_, path->port_namespace) == 0)
			return &c->topology->ports[i];
	}
	return NULL;
}

static const char *place_on_port(struct controller *c, struct plan *plan, const struct netdev **ret)
{
	const struct topology_port *port = find_port(c, plan->path);
	const struct netdev *near_end = port && port->ifindex ? view_device(&c->view, port->ifindex) : NULL, *device;

	if (!near_end)
		return "the port's device is not there";
	if (status_port_reason(&c->view, port))
		return "the port is not ready";
	if (strcmp(near_end->kind, "veth") != 0)
		return "the port's device is no veth: its other end is not a device that sockets could be bound to";
	if (near_end->peer_elsewhere)
		return "the other end of the port's veth is in another network namespace, where the agent makes no sockets";
	device = near_end->peer ? view_device(&c->view, near_end->peer) : NULL;
	if (!device)
		return "the other end of the port's veth is not there";
	*ret = device;
	plan->near_end = near_end->name;
	memcpy(plan->config.mac, port->record.mac, sizeof(plan->config.mac));
	return NULL;
}

/* XDP sees what the wire would carry: without this, packets of neighbours on this host have no checksum yet. */
static void finish_checksums(const char *near_end)
{
	struct ethtool_feature feature;
	int r = ethtool_feature_get(near_end, checksum_feature, &feature);

	if (r == 0 && feature.active)
		r = ethtool_feature_set(near_end, checksum_feature, false);
	if (r < 0)
		log_warn(r, "%s: checksums of packets to the consumer may be missing: cannot set %s off", near_end,
			checksum_feature);
}

static void plan_device(struct controller *c, struct plan *plan)
{
	const struct fast_path *path = plan->path;
	struct fastpath_config *config = &plan->config;
	const struct netdev *device = NULL;

	config->waiting =
		path->uplink ? find_uplink(c, path->uplink, &device, &config->generic) : place_on_port(c, plan, &device);
	if (!device)
		return;
	plan->view->ifindex = config->ifindex = plan->steer.ifindex = device->ifindex;
	memcpy(config->device, device->name, sizeof(config->device));
	config->mtu = device->mtu;
	if (path->uplink)
		memcpy(config->mac, device->mac, sizeof(config->mac));
	config->node = numa_node(device->name);
	choose_queues(plan, device);
	choose_several(c, plan, device);
}

/* --- between devices --- */

/* by_sockets: where XDP sends all frames itself, they may be of any length. */
static const char *place_device(
	struct controller *c, const char *name, bool by_sockets, const struct netdev **ret, bool *ret_generic)
{
	const char *reason = find_uplink(c, name, ret, ret_generic);

	if (!reason && by_sockets)
		reason = several_reason(c, (*ret)->mtu, 0);
	if (reason)
		return reason;
	if (strict_source(name))
		return "rp_filter asks for the way back of each packet, which only the kernel's stack does";
	return NULL;
}

/* What netfilter changes on its way out, or shall change back, has to get there. */
static bool needs_netfilter(const struct controller *c, const struct object_list *all, const struct topology_port *port)
{
	const struct object *network = object_list_find(all, OBJECT_NETWORK, NULL, port->object->port.network);

	return port->object->port.n_host_ports || !network || network->network.n_services || nat_masquerades(c, all, network);
}

static const char *place_port(
	struct controller *c, const char *name, bool by_sockets, const struct netdev **ret, const struct topology_port **ret_port)
{
	const struct netdev *device = view_device_by_name(&c->view, name);

	*ret = device;
	*ret_port = NULL;
	if (!device)
		return "the device is not there";
	*ret_port = view_port(&c->view, device->ifindex);
	if (!*ret_port || status_port_reason(&c->view, *ret_port))
		return "the port is not ready";
	if (strcmp(device->kind, "veth") != 0 && strcmp(device->kind, "tun") != 0)
		return "the port's device is neither a veth nor a tap";
	return by_sockets ? several_reason(c, device->mtu, sizeof(struct hd_fast_meta)) : NULL;
}

/* Of a tap as many as somebody has opened. */
static uint32_t tap_queues(const char *device)
{
	char path[64 + IF_NAMESIZE];
	uint32_t n = 0;

	do
		snprintf(path, sizeof(path), "/sys/class/net/%s/queues/rx-%u", device, n);
	while (access(path, F_OK) == 0 && ++n < HD_FAST_QUEUES);
	return n;
}

static void join(
	struct plan *plan, size_t i, const struct netdev *device, const struct several_device *driver, bool generic, bool port)
{
	struct forward_plan *workers = &plan->workers;
	struct datapath_fast_path *steer = &plan->devices[i];
	struct view_fast_device *view = &plan->view->workers.devices[i];
	uint32_t queues = 0;

	if (strcmp(device->kind, "tun") == 0)
		queues = tap_queues(device->name);
	else if (ethtool_rx_queues(device->name, &queues) < 0)
		queues = 1;
	queues = queues < 1 ? 1 : queues;
	view->queues = queues;
	steer->ifindex = device->ifindex;
	memcpy(steer->mac, device->mac, sizeof(steer->mac));
	if (workers->n_devices == 0)
		workers->node = numa_node(device->name);
	memcpy(workers->devices[workers->n_devices].name, device->name, sizeof(workers->devices[0].name));
	workers->devices[workers->n_devices].ifindex = device->ifindex;
	workers->devices[workers->n_devices].queues = queues < HD_FAST_QUEUES ? queues : HD_FAST_QUEUES;
	workers->devices[workers->n_devices].port = port;
	workers->devices[workers->n_devices].zero_copy_pieces = driver->pieces;
	workers->devices[workers->n_devices++].generic = generic;
	if (device->mtu + ETH_HLEN + (port ? sizeof(struct hd_fast_meta) : 0) > FORWARD_FRAME_MOST(UMEM_FRAME_LEAST))
		workers->frame_size = UMEM_FRAME_MOST;
	/* larger ones where that is all that zero-copy takes */
	if (!workers->copy && !generic && zero_copy_unfit(device, 0, UMEM_FRAME_LEAST) &&
		!zero_copy_unfit(device, 0, UMEM_FRAME_MOST))
		workers->frame_size = UMEM_FRAME_MOST;
}

/* Workers have what leaves by devices that do not take it from XDP, unless the document leaves that to the kernel. */
static bool needs_workers(const struct plan *plan)
{
	bool all = true;

	for (size_t i = 0; i < plan->path->n_devices; i++)
		all &= plan->view->workers.devices[i].reason || !plan->view->workers.devices[i].direct_reason;
	return plan->path->way == FAST_PATH_WORKERS || (plan->path->way == FAST_PATH_AUTO && !all);
}

static void count_devices(struct plan *plan)
{
	struct forward_plan *workers = &plan->workers;
	struct view_workers *view = &plan->view->workers;

	workers->waiting = workers->n_devices < 2;
	view->several = workers->several;
	view->unneeded = false;
	if (workers->waiting)
		view->reason = "fewer than two of its devices can take part";
	else
		workers->waiting = view->unneeded = !needs_workers(plan);
	view->several_reason = view->several || view->unneeded ? NULL : plan->several_reason;
}

static int plan_workers(struct controller *c, const struct object_list *all, const struct object *object, struct plan *plan)
{
	const struct fast_path *path = plan->path;
	const struct object *host = policy_host(all);
	struct forward_plan *workers = &plan->workers;
	bool by_sockets = path->way != FAST_PATH_REDIRECT, each_wants = true;
	uint32_t largest = 0;

	plan->devices = calloc(path->n_devices, sizeof(*plan->devices));
	plan->view->workers.devices = calloc(path->n_devices, sizeof(*plan->view->workers.devices));
	if (!plan->devices || !plan->view->workers.devices)
		return -ENOMEM;
	memset(workers, 0, sizeof(*workers));
	snprintf(workers->name, sizeof(workers->name), "%s", object->name);
	workers->copy = path->copy;
	workers->spin = path->spin;
	workers->has_cpus = path->n_cpus > 0;
	for (size_t i = 0; i < path->n_cpus; i++)
		workers->cpus[i] = (int)path->cpus[i];
	workers->workers = path->workers;
	workers->batch = path->batch < path->ring ? path->batch : path->ring;
	workers->ring = path->ring;
	workers->frame_size = UMEM_FRAME_LEAST;
	workers->busy = (struct xsk_busy_poll){.us = path->busy_us, .budget = path->busy_budget};
	for (size_t i = 0; i < path->n_devices; i++) {
		struct view_fast_device *view = &plan->view->workers.devices[i];
		const struct topology_port *port = NULL;
		const struct netdev *device;
		struct several_device driver;
		bool generic = false;

		view->reason = host && host_has_uplink(&host->host, path->devices[i])
				       ? place_device(c, path->devices[i], by_sockets, &device, &generic)
				       : place_port(c, path->devices[i], by_sockets, &device, &port);
		view->ifindex = device ? device->ifindex : 0;
		view->mtu_limit =
			by_sockets ? several_mtu(several_has(c), UMEM_FRAME_MOST, port ? sizeof(struct hd_fast_meta) : 0) : 0;
		if (view->reason)
			continue;
		plan->devices[i].uplink = !port;
		plan->devices[i].inside = port && needs_netfilter(c, all, port);
		view->direct_reason = path->way == FAST_PATH_WORKERS ? "by the document" : exits_reason(c, device);
		plan->devices[i].direct = !view->direct_reason;
		plan->devices[i].direct_several = plan->devices[i].direct && exits_take_several(c, device);
		plan->devices[i].several = takes_flag(c, device);
		several_ask(c, device, &driver);
		join(plan, i, device, &driver, generic, port != NULL);
		largest = device->mtu > largest ? device->mtu : largest;
		each_wants &= several_wanted(c, &driver, path->copy || generic, 0, UMEM_FRAME_MOST);
	}
	/* where one needs it, the others' sockets have to take what comes from there */
	workers->several = by_sockets && several_has(c) &&
			   (each_wants || largest > several_mtu(false, UMEM_FRAME_MOST, sizeof(struct hd_fast_meta)));
	for (size_t i = 0; i < path->n_devices; i++)
		plan->view->workers.devices[i].several =
			plan->devices[i].direct ? plan->devices[i].direct_several : workers->several;
	/* only now, since all devices have a say in how large frames are */
	for (uint32_t i = 0; i < workers->n_devices; i++) {
		const struct netdev *device = view_device(&c->view, workers->devices[i].ifindex);
		const struct several_device driver = {.pieces = workers->devices[i].zero_copy_pieces};
		const char *refuses =
			device && workers->several ? several_refuses(&driver, device->mtu, workers->frame_size) : NULL;

		for (uint32_t queue = 0; device && queue < workers->devices[i].queues; queue++) {
			const char *why = refuses ? refuses : zero_copy_unfit(device, queue, workers->frame_size);

			if (why) {
				workers->devices[i].copy_only |= 1ull << queue;
				workers->devices[i].why_copy = why;
			}
		}
	}
	plan->several_reason = by_sockets ? several_why_not(c) : NULL;
	count_devices(plan);
	return 0;
}

/* --- matches --- */

static int match_add(struct plan *plan, const struct fast_match *from, bool has_rule, uint32_t rule)
{
	struct datapath_match *grown = reallocarray(plan->matches, plan->steer.n_matches + 1, sizeof(*grown));

	if (!grown)
		return -ENOMEM;
	plan->matches = grown;
	plan->steer.matches = grown;
	grown[plan->steer.n_matches++] = (struct datapath_match){.has_rule = has_rule,
		.rule = rule,
		.source = from->source,
		.destination = from->destination,
		.source_port = from->source_port,
		.destination_port = from->port,
		.vlan = from->vlan,
		.protocol = from->protocol};
	return 0;
}

/* One for each rule that is meant. */
static int match_rules(struct controller *c, struct plan *plan, const struct fast_match *from)
{
	uint32_t limit = c->compiler ? compiler_rule_limit(c->compiler) : 0;
	int r = 0;

	for (uint32_t id = 0; id < limit && r == 0; id++) {
		struct rule_reference rule;

		if (compiler_rule(c->compiler, id, &rule) < 0 || rule.kind != OBJECT_HOST_POLICY ||
			rule.direction != HD_INGRESS || strcmp(rule.policy, from->policy) != 0)
			continue;
		if (!from->rule || (rule.name && strcmp(rule.name, from->rule) == 0))
			r = match_add(plan, from, true, id);
	}
	return r;
}

static int plan_matches(struct controller *c, struct plan *plan)
{
	int r = 0;

	for (size_t i = 0; i < plan->path->n_matches && r == 0; i++) {
		const struct fast_match *match = &plan->path->matches[i];

		r = match->policy ? match_rules(c, plan, match) : match_add(plan, match, false, 0);
	}
	return r;
}

/* --- all of them --- */

static int plan_one(struct controller *c, const struct object_list *all, const struct object *object, struct plan *plan,
	struct view_fast_path *view)
{
	const struct fast_path *path = &object->fast_path;

	*view = (struct view_fast_path){.object = object_ref((struct object *)object)};
	*plan = (struct plan){.path = path, .name = object->name, .view = view};
	if (path->devices) {
		int r = plan_workers(c, all, object, plan);

		return r < 0 ? r : plan_matches(c, plan);
	}
	plan->steer = (struct datapath_fast_path){.uplink = path->uplink != NULL, .drop = path->drop};
	plan->config = (struct fastpath_config){
		.name = object->name,
		.port = path->port != NULL,
		.transmits = path->port || path->trusted,
		.frames = path->frames,
		.frame_size = path->frame_size,
		.ring = path->ring,
		.busy = {.us = path->busy_us, .budget = path->busy_budget},
		.stall_ms = path->stall_ms,
		.users = path->users,
		.groups = path->groups,
		.n_users = path->n_users,
		.n_groups = path->n_groups,
		.node = -1,
	};
	plan_device(c, plan);
	return plan_matches(c, plan);
}

static uint16_t index_of(const struct controller *c, const char *name)
{
	for (size_t i = 0; i < c->n_fast_paths; i++)
		if (strcmp(c->fast_paths[i].object->name, name) == 0)
			return c->fast_paths[i].index;
	return HD_FAST_PATHS;
}

static int on_socket(const char *name, uint16_t queue, int fd, const struct fastpath_room *room, void *userdata)
{
	struct controller *c = userdata;
	uint16_t index = index_of(c, name);
	const struct hd_fast_room row = {.one = room ? room->one : 0, .several = room ? room->several : 0};
	int r = room ? datapath_fast_room(c->datapath, index, &row) : 0;

	if (r == 0)
		r = datapath_fast_socket(c->datapath, index, queue, fd);
	/* only then: until it has gone, what it does not take would be lost */
	if (r == 0 && !room)
		r = datapath_fast_room(c->datapath, index, NULL);
	return r;
}

/* Somebody wants to be served: nothing may have told of queues that came or went since the plan was made, nor of what drivers make of that. */
static void on_refresh(const char *name, struct fastpath_config *config, void *userdata)
{
	struct controller *c = userdata;
	const struct netdev *device = view_device(&c->view, config->ifindex);

	for (size_t i = 0; i < c->n_fast_paths; i++) {
		struct view_fast_path *view = &c->fast_paths[i];
		struct plan plan = {.path = &view->object->fast_path, .view = view, .config = *config};

		if (!device || strcmp(view->object->name, name) != 0)
			continue;
		memset(view->asks_queue, 0, sizeof(view->asks_queue));
		plan.config.n_queues = 0;
		choose_queues(&plan, device);
		plan.config.mtu = device->mtu;
		choose_several(c, &plan, device);
		*config = plan.config;
	}
}

static void index_devices(struct plan *plan, const uint16_t *indexes)
{
	struct forward_plan *workers = &plan->workers;

	plan->view->index = indexes[0];
	for (size_t i = 0; i < plan->path->n_devices; i++) {
		plan->view->workers.devices[i].index = plan->devices[i].index = indexes[i];
		for (uint32_t j = 0; j < workers->n_devices; j++)
			if (workers->devices[j].ifindex == plan->devices[i].ifindex)
				workers->devices[j].index = indexes[i];
	}
}

/* Of a FastPath of workers each device has one. */
static int name_indexes(struct controller *c, struct plan *plans, size_t n)
{
	char devices[HD_FAST_PATHS][IF_NAMESIZE + 1]; /* no name of a document has a slash */
	const char *names[HD_FAST_PATHS] = {NULL};
	uint16_t indexes[HD_FAST_PATHS];
	size_t n_names = 0, at = 0;
	int r;

	for (size_t i = 0; i < n; i++) {
		size_t more = plans[i].devices ? plans[i].path->n_devices : 1;

		if (n_names + more > HD_FAST_PATHS)
			return -E2BIG;
		for (size_t j = 0; j < more; j++, n_names++) {
			names[n_names] = plans[i].name;
			if (!plans[i].devices)
				continue;
			snprintf(devices[n_names], sizeof(devices[0]), "/%s", plans[i].path->devices[j]);
			names[n_names] = devices[n_names];
		}
	}
	r = datapath_fast_indexes(c->datapath, names, n_names, indexes);
	for (size_t i = 0; i < n && r == 0; i++) {
		if (plans[i].devices)
			index_devices(&plans[i], &indexes[at]);
		else
			plans[i].steer.index = plans[i].view->index = indexes[at];
		at += plans[i].devices ? plans[i].path->n_devices : 1;
	}
	return r;
}

/* What became of our program on a port. */
static void attached(struct plan *plan, const struct datapath_fast_path *path)
{
	struct forward_plan *workers = &plan->workers;

	for (size_t i = 0; i < plan->path->n_devices; i++)
		if (path->error < 0 && plan->devices[i].ifindex == path->ifindex)
			plan->view->workers.devices[i].reason = path->error == -EBUSY
									? "another XDP program is on the device"
									: "no XDP program can be attached to the device";
	for (uint32_t i = 0; i < workers->n_devices; i++) {
		if (workers->devices[i].ifindex != path->ifindex)
			continue;
		workers->devices[i].generic = path->generic;
		if (path->error < 0) {
			workers->devices[i] = workers->devices[--workers->n_devices];
			memset(&workers->devices[workers->n_devices], 0, sizeof(workers->devices[0]));
		}
		break;
	}
}

/* Who cannot be found by XDP is a device like those that take nothing from it. */
static void not_direct(struct plan *plan, const struct datapath_fast_path *path)
{
	for (size_t i = 0; i < plan->path->n_devices; i++) {
		struct view_fast_device *view = &plan->view->workers.devices[i];

		if (plan->devices[i].ifindex == path->ifindex && !view->direct_reason && !path->direct)
			view->direct_reason = "the device cannot be put where XDP finds it";
	}
}

/* Those whose device is there: packets go by the document's fallback while nobody is connected. */
static int steer(struct controller *c, struct plan *plans, size_t n)
{
	struct datapath_fast_path paths[HD_FAST_PATHS];
	struct plan *of[HD_FAST_PATHS];
	size_t n_paths = 0;
	int r;

	for (size_t i = 0; i < n; i++) {
		for (size_t j = 0; plans[i].devices && j < plans[i].path->n_devices; j++) {
			struct datapath_fast_path *device = &plans[i].devices[j];

			if (!device->ifindex)
				continue;
			paths[n_paths] = *device;
			paths[n_paths].forward = true;
			paths[n_paths].stamp = plans[i].path->latency;
			paths[n_paths].drop = plans[i].path->drop;
			paths[n_paths].group = plans[i].view->index;
			paths[n_paths].matches = plans[i].matches;
			paths[n_paths].n_matches = plans[i].steer.n_matches;
			of[n_paths++] = &plans[i];
		}
		if (!plans[i].steer.ifindex || (!plans[i].steer.uplink && plans[i].config.waiting))
			continue;
		of[n_paths] = &plans[i];
		paths[n_paths++] = plans[i].steer;
		if (plans[i].near_end)
			finish_checksums(plans[i].near_end);
	}
	r = datapath_steer(c->datapath, paths, n_paths);
	for (size_t i = 0; i < n_paths; i++) {
		if (of[i]->devices && !paths[i].uplink)
			attached(of[i], &paths[i]);
		if (of[i]->devices) {
			not_direct(of[i], &paths[i]);
			count_devices(of[i]);
			continue;
		}
		of[i]->config.generic |= paths[i].generic;
		if (paths[i].error < 0)
			of[i]->config.waiting = paths[i].error == -EBUSY
							? "another XDP program is at the other end of the port's veth"
							: "no XDP program can be attached to the other end of the port's veth";
	}
	return r;
}

static int serve(struct controller *c, const struct plan *plans, size_t n)
{
	_cleanup_free_ struct fastpath_config *configs = calloc(n + 1, sizeof(*configs));
	size_t n_configs = 0;
	int r = 0;

	if (!configs)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		if (!plans[i].devices)
			configs[n_configs++] = plans[i].config;
	if (!c->fastpath && n_configs)
		r = fastpath_server_new(c->event, c->options->run_dir, on_socket, on_refresh, c, &c->fastpath);
	return r < 0 || !c->fastpath ? r : fastpath_server_set(c->fastpath, configs, n_configs);
}

static void free_views(struct view_fast_path *views, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(views[i].workers.devices);
		object_unref((struct object *)views[i].object);
	}
	free(views);
}

static void free_plans(struct plan *plans, size_t n)
{
	for (size_t i = 0; plans && i < n; i++) {
		free(plans[i].matches);
		free(plans[i].devices);
	}
}

static size_t count_documents(const struct object_list *all)
{
	size_t n = 0;

	for (size_t i = 0; i < all->n; i++)
		n += all->items[i]->kind == OBJECT_FAST_PATH;
	return n;
}

static int follow(struct controller *c, const struct object_list *all, size_t n)
{
	_cleanup_free_ struct plan *plans = calloc(n + 1, sizeof(*plans));
	_cleanup_free_ struct forward_plan *workers = calloc(n + 1, sizeof(*workers));
	struct view_fast_path *views = calloc(n + 1, sizeof(*views)), *before = c->fast_paths;
	size_t n_before = c->n_fast_paths, made = 0;
	size_t n_workers = 0;
	int r = plans && views && workers ? 0 : -ENOMEM, served, worked;
	bool asks = false;

	for (size_t i = 0; i < all->n; i++)
		asks |= all->items[i]->kind == OBJECT_FAST_PATH && all->items[i]->fast_path.way != FAST_PATH_WORKERS;
	exits_watch(c, asks);
	for (size_t i = 0; r == 0 && i < all->n; i++)
		if (all->items[i]->kind == OBJECT_FAST_PATH) {
			r = plan_one(c, all, all->items[i], &plans[made], &views[made]);
			made++;
		}
	if (r == 0)
		r = name_indexes(c, plans, made);
	if (r < 0) {
		free_plans(plans, made);
		free_views(views, made);
		return r;
	}
	for (size_t i = 0; i < made; i++)
		if (plans[i].devices)
			workers[n_workers++] = plans[i].workers;
	forwarders_end_others(c, workers, n_workers);
	/* sockets of those that go leave the data plane under the names that they had */
	r = steer(c, plans, made);
	n_workers = 0;
	for (size_t i = 0; i < made; i++)
		if (plans[i].devices)
			workers[n_workers++] = plans[i].workers;
	if (c->fastpath)
		for (size_t i = 0; i < n_before; i++) {
			bool stays = false;

			for (size_t j = 0; j < made && !stays; j++)
				stays = strcmp(before[i].object->name, views[j].object->name) == 0;
			for (uint16_t queue = 0; !stays && !before[i].workers.devices && queue < FASTPATH_QUEUES; queue++)
				(void)datapath_fast_socket(c->datapath, before[i].index, queue, -1);
		}
	c->fast_paths = views;
	c->n_fast_paths = made;
	c->view.fast_paths = views;
	c->view.n_fast_paths = made;
	served = serve(c, plans, made);
	c->view.fastpath = c->fastpath;
	worked = forwarders_follow(c, workers, n_workers);
	for (size_t i = 0; i < made; i++)
		if (views[i].workers.devices)
			forwarders_view(c, views[i].object->name, &views[i].workers);
	free_plans(plans, made);
	free_views(before, n_before);
	return r < 0 ? r : served < 0 ? served : worked;
}

void fastpaths_follow(struct controller *c)
{
	const struct object_list *all = c->activating ? c->activating : &c->store.all;
	size_t n = count_documents(all);
	int r;

	/* under lockdown the documents are not known: what is served goes on */
	if (!c->compiler || c->view.lockdown || (n == 0 && !c->fastpath && !c->n_forwarders && !datapath_steers(c->datapath)))
		return;
	r = follow(c, all, n);
	if (r < 0)
		log_err(r, "cannot put the FastPaths in force");
}

static bool more_or_fewer_queues(const struct netdev *device, uint32_t known)
{
	uint32_t there = 0;

	return known && ethtool_rx_queues(device->name, &there) == 0 && there != known;
}

bool fastpaths_concerned(const struct controller *c, const struct netdev *before, const struct netdev *now)
{
	bool changed = before->up != now->up || before->mtu != now->mtu || memcmp(before->mac, now->mac, sizeof(now->mac));

	for (size_t i = 0; i < c->n_fast_paths; i++) {
		const struct view_fast_path *view = &c->fast_paths[i];
		const struct fast_path *path = &view->object->fast_path;

		if (path->uplink && view->ifindex == now->ifindex && (changed || more_or_fewer_queues(now, view->queues)))
			return true;
		for (size_t j = 0; view->workers.devices && j < path->n_devices; j++)
			if (view->workers.devices[j].ifindex == now->ifindex &&
				(changed || more_or_fewer_queues(now, view->workers.devices[j].queues)))
				return true;
	}
	return false;
}

void fastpaths_free(struct controller *c)
{
	forwarders_free(c);
	exits_free(c);
	fastpath_server_free(c->fastpath);
	c->fastpath = NULL;
	free_views(c->fast_paths, c->n_fast_paths);
	c->fast_paths = NULL;
	c->n_fast_paths = 0;
}
