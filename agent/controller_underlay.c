/* SPDX-License-Identifier: Apache-2.0 */
/* How the other ends of the tunnel are reached: the ways to peers, and the device for what our programs cannot send. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <sys/epoll.h>

#include <controller_internal.h>

#define SLOW_RETRY_FIRST_US (1000ull * 1000)
#define SLOW_RETRY_MAX_US (60 * SLOW_RETRY_FIRST_US)
#define STACK_MTU_MIN 1280
/* Behind whatever else there is to do: these are other hosts' packets. */
#define SLOW_PRIORITY (SD_EVENT_PRIORITY_NORMAL + 10)

static bool has_tunnel(const struct controller *c)
{
	return c->topology && c->topology->tunnel.protocol != HD_TUNNEL_NONE;
}

static int set_timer(struct controller *c, sd_event_source **timer, uint64_t us, sd_event_time_handler_t handler)
{
	int r;

	if (!*timer)
		return sd_event_add_time_relative(c->event, timer, CLOCK_MONOTONIC, us, 1000, handler, c);
	r = sd_event_source_set_time_relative(*timer, us);
	return r < 0 ? r : sd_event_source_set_enabled(*timer, SD_EVENT_ONESHOT);
}

/* --- the ways to peers --- */

static void put_ways(struct controller *c, uint32_t peer, const struct underlay_state *state)
{
	int r = datapath_peer_ways(c->datapath, peer, state->way, state->n, state->mtu);

	/* Its record is not there yet, or was not written for an error that is told elsewhere. */
	if (r == -ENOENT)
		c->ways_due = true;
	else if (r < 0)
		log_err(r, "cannot write the ways to peer %u", peer);
}

static void on_peer(uint32_t peer, const struct underlay_state *state, void *userdata)
{
	struct controller *c = userdata;
	const char *name = networks_peer_name(c->networks, peer);

	log_debug("peer %s: %s, %zu ways%s%s", name ? name : "?", underlay_reach_name[state->reach], state->n,
		state->reason ? ": " : "", state->reason ? state->reason : "");
	put_ways(c, peer, state);
}

static void look_when_due(struct controller *c);

static int on_look(sd_event_source *source, uint64_t now, void *userdata)
{
	struct controller *c = userdata;
	int r = 0;

	(void)source;
	(void)now;
	if (c->underlay)
		r = underlay_look(c->underlay);
	if (r < 0)
		log_err(r, "cannot find the ways to peers");
	look_when_due(c);
	return 0;
}

static void look_when_due(struct controller *c)
{
	uint64_t us = c->underlay ? underlay_due_us(c->underlay) : 0;

	if (us && set_timer(c, &c->underlay_look, us, on_look) < 0)
		log_err(-ENOMEM, "cannot set the timer of the ways to peers");
}

static int on_underlay_io(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct controller *c = userdata;
	int r = underlay_dispatch(c->underlay);

	(void)source;
	(void)fd;
	(void)events;
	if (r < 0)
		log_err(r, "cannot follow the ways to peers");
	look_when_due(c);
	return 0;
}

static void close_underlay(struct controller *c)
{
	c->underlay_io = sd_event_source_disable_unref(c->underlay_io);
	underlay_close(c->underlay);
	c->underlay = NULL;
	c->view.underlay = NULL;
}

static int open_underlay(struct controller *c)
{
	const struct hd_tunnel *tunnel = &c->topology->tunnel;
	int r = underlay_open(&tunnel->address, ntohs(tunnel->port), on_peer, c, &c->underlay);

	if (r == 0)
		r = sd_event_add_io(c->event, &c->underlay_io, underlay_fd(c->underlay), EPOLLIN, on_underlay_io, c);
	if (r < 0)
		close_underlay(c);
	c->view.underlay = c->underlay;
	return r < 0 ? r : 0;
}

static int set_peers(struct controller *c)
{
	const struct topology *topology = c->topology;
	_cleanup_free_ struct underlay_peer *peers = calloc(topology->n_peers + 1, sizeof(*peers));
	int r;

	if (!peers)
		return -ENOMEM;
	for (size_t i = 0; i < topology->n_peers; i++)
		peers[i] = (struct underlay_peer){.index = topology->peers[i].index, .address = topology->peers[i].address};
	r = underlay_set_peers(c->underlay, peers, topology->n_peers);
	look_when_due(c);
	return r;
}

static void put_ways_again(struct controller *c)
{
	c->ways_due = false;
	for (size_t i = 0; i < c->topology->n_peers; i++) {
		const struct underlay_state *state = underlay_find(c->underlay, c->topology->peers[i].index);

		if (state && state->reach != UNDERLAY_PENDING)
			put_ways(c, c->topology->peers[i].index, state);
	}
}

/* --- the device for what our programs cannot send --- */

static int on_slow_device(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct controller *c = userdata;
	int r = tunnel_slow_send(c->slow);

	(void)source;
	(void)fd;
	(void)events;
	if (r < 0) {
		log_err(r, "cannot read from %s", TUNNEL_SLOW_DEVICE);
		underlay_slow_again(c); /* somebody may have removed it */
	}
	return 0;
}

static int on_slow_socket(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct controller *c = userdata;
	int r = tunnel_slow_receive(c->slow);

	(void)source;
	(void)fd;
	(void)events;
	if (r < 0) /* what the kernel reports of an earlier packet */
		log_debug("cannot receive from the tunnel's socket: %s", strerror(-r));
	return 0;
}

static void close_slow(struct controller *c)
{
	c->slow_device = sd_event_source_disable_unref(c->slow_device);
	c->slow_socket = sd_event_source_disable_unref(c->slow_socket);
	if (c->datapath)
		(void)datapath_tunnel_device(c->datapath, TUNNEL_SLOW, 0);
	tunnel_slow_close(c->slow);
	c->slow = NULL;
	c->view.slow = NULL;
}

static int open_slow(struct controller *c)
{
	const struct hd_tunnel *tunnel = &c->topology->tunnel;
	int r = tunnel_slow_open(&tunnel->address, ntohs(tunnel->port), tunnel->protocol == HD_TUNNEL_GENEVE, &c->slow);

	if (r < 0)
		return r;
	r = sd_event_add_io(c->event, &c->slow_device, tunnel_slow_device_fd(c->slow), EPOLLIN, on_slow_device, c);
	if (r >= 0)
		r = sd_event_source_set_priority(c->slow_device, SLOW_PRIORITY);
	if (r < 0) {
		close_slow(c);
		return r;
	}
	c->view.slow = c->slow;
	return 0;
}

static const char *slow_reason(int r)
{
	if (r == -EADDRINUSE)
		return "somebody else has the tunnel's port";
	if (r == -EBUSY)
		return "somebody else has a device of that name";
	return "cannot make the device, or the socket";
}

static int on_slow_due(sd_event_source *source, uint64_t now, void *userdata)
{
	struct controller *c = userdata;
	bool first = !c->view.slow_reason;
	int r;

	(void)source;
	(void)now;
	if (!has_tunnel(c) || c->slow)
		return 0;
	r = open_slow(c);
	if (r < 0) {
		c->view.slow_reason = slow_reason(r);
		if (first)
			log_warn(r, "%s: packets for peers that are not resolved yet are lost, and fragments: %s",
				TUNNEL_SLOW_DEVICE, c->view.slow_reason);
		c->slow_retry_us = c->slow_retry_us ? 2 * c->slow_retry_us : SLOW_RETRY_FIRST_US;
		if (c->slow_retry_us > SLOW_RETRY_MAX_US)
			c->slow_retry_us = SLOW_RETRY_MAX_US;
		(void)set_timer(c, &c->slow_due, c->slow_retry_us, on_slow_due);
		return 0;
	}
	c->view.slow_reason = NULL;
	c->slow_retry_us = 0;
	(void)devices_attach(c);
	return 0;
}

void underlay_slow_again(struct controller *c)
{
	close_slow(c);
	(void)set_timer(c, &c->slow_due, SLOW_RETRY_FIRST_US, on_slow_due);
}

size_t underlay_uplinks(const struct controller *c, struct datapath_uplink *ret)
{
	const struct datapath_uplink own = {.xdp = XDP_MODE_OFF, .ethernet = true, .tunnel = true, .slow = true};
	size_t n = 0;

	if (c->slow) {
		ret[n] = own;
		ret[n].device = TUNNEL_SLOW_DEVICE;
		ret[n].ifindex = tunnel_slow_ifindex(c->slow);
		ret[n++].driver = "tun";
	}
	if (c->sum.near) {
		ret[n] = own;
		ret[n].device = TUNNEL_SUM_FAR;
		ret[n].ifindex = c->sum.far;
		ret[n].driver = "veth";
		ret[n++].sum = true;
	}
	if (c->stack.near)
		ret[n++] = (struct datapath_uplink){.device = TUNNEL_STACK_DEVICE,
			.ifindex = c->stack.near,
			.xdp = XDP_MODE_OFF,
			.driver = "veth",
			.ethernet = true,
			.stack = true};
	return n;
}

/* Packets go there, and are let in from there, once our programs are on it. */
static void use_slow(struct controller *c)
{
	bool attached = c->slow && view_attachment(&c->view, tunnel_slow_ifindex(c->slow));
	int r = 0;

	if (attached && !c->slow_socket) {
		r = sd_event_add_io(c->event, &c->slow_socket, tunnel_slow_socket_fd(c->slow), EPOLLIN, on_slow_socket, c);
		if (r >= 0)
			r = sd_event_source_set_priority(c->slow_socket, SLOW_PRIORITY);
	}
	if (r < 0)
		log_err(r, "cannot wait for packets of the tunnel's socket");
	(void)datapath_tunnel_device(c->datapath, TUNNEL_SLOW, attached ? tunnel_slow_ifindex(c->slow) : 0);
}

/* --- the devices by which the host's stack and workloads behind peers reach each other --- */

/* Some network travels, and routes to the host. */
static bool has_stack(const struct controller *c)
{
	return has_tunnel(c) && c->topology->n_stack;
}

/* What goes through the tunnel by any uplink that is there, and into any network. What less goes through is told by the program. */
static uint32_t stack_mtu(const struct controller *c)
{
	uint32_t mtu = UINT16_MAX, overhead = c->topology->tunnel.overhead;

	for (size_t i = 0; c->view.host && i < c->view.host->n_uplinks; i++) {
		const struct netdev *device = view_device_by_name(&c->view, c->view.host->uplinks[i].device);

		if (device && device->mtu < mtu)
			mtu = device->mtu;
	}
	mtu = mtu > overhead ? mtu - overhead : 0;
	for (size_t i = 0; i < c->topology->n_networks; i++) {
		const struct hd_network *network = &c->topology->networks[i].record;

		if (network->flags & HD_NETWORK_HOST && network->vni && network->mtu && network->mtu < mtu)
			mtu = network->mtu;
	}
	return mtu > STACK_MTU_MIN ? mtu : STACK_MTU_MIN;
}

static void prepare_stack(struct controller *c)
{
	struct pair pair = tunnel_stack_pair;
	bool first = !c->view.stack_reason;
	int r = 0;

	if (!has_stack(c))
		return;
	pair.mtu = stack_mtu(c);
	if (!c->stack.near)
		r = pair_open(&pair, &c->stack);
	else if (pair.mtu != c->stack_mtu)
		r = pair_set_mtu(&pair, &c->stack);
	if (r == 0) {
		c->stack_mtu = pair.mtu;
		c->view.stack_reason = NULL;
		c->stack_cleared = false;
		/* Our programs are on it still. */
		if (c->stack.was_there)
			(void)datapath_tunnel_device(c->datapath, TUNNEL_STACK, c->stack.near);
		return;
	}
	c->view.stack_reason = r == -EBUSY ? "somebody else has a device of that name" : "cannot make the devices";
	if (first)
		log_warn(r, "%s: the host does not reach workloads behind peers: %s", TUNNEL_STACK_DEVICE, c->view.stack_reason);
}

static void close_stack(struct controller *c)
{
	c->stack = (struct pair_devices){0};
	c->view.stack = false;
	c->hostnet_due = true;
	if (c->datapath)
		(void)datapath_tunnel_device(c->datapath, TUNNEL_STACK, 0);
}

void underlay_stack_again(struct controller *c)
{
	close_stack(c);
	devices_attach_later(c, SLOW_RETRY_FIRST_US);
}

uint32_t underlay_stack(const struct controller *c)
{
	return has_stack(c) && c->stack.near && view_attachment(&c->view, c->stack.near) ? c->stack.near : 0;
}

static void use_stack(struct controller *c)
{
	uint32_t stack = underlay_stack(c);

	c->view.stack = stack;
	(void)datapath_tunnel_device(c->datapath, TUNNEL_STACK, stack);
}

/* The routes to it go with it. */
static void remove_stack(struct controller *c)
{
	if (c->stack.near)
		close_stack(c);
	c->view.stack_reason = NULL;
	if (!c->stack_cleared && pair_remove(&tunnel_stack_pair) == 0)
		c->stack_cleared = true;
}

/* --- the devices by which packets get checksums --- */

static bool has_checksums(const struct controller *c)
{
	return has_tunnel(c) && c->topology->tunnel.flags & HD_TUNNEL_CHECKSUM;
}

static void open_sum(struct controller *c)
{
	bool first = !c->view.sum_reason;
	int r = pair_open(&tunnel_sum_pair, &c->sum);

	if (r == 0) {
		c->view.sum_reason = NULL;
		c->sum_cleared = false;
		return;
	}
	c->view.sum_reason = r == -EBUSY ? "somebody else has a device of that name" : "cannot make the devices";
	if (first)
		log_warn(r, "%s: tunnel packets get their checksums by the agent's socket, slowly: %s", TUNNEL_SUM_DEVICE,
			c->view.sum_reason);
}

/* While there are none, packets go by the agent's socket. */
static void close_sum(struct controller *c)
{
	c->sum = (struct pair_devices){0};
	if (c->datapath)
		(void)datapath_tunnel_device(c->datapath, TUNNEL_SUM, 0);
}

static void prepare_sum(struct controller *c)
{
	if (!has_checksums(c) || c->sum.near)
		return;
	open_sum(c);
	/* Our programs are on it still, and get no other way out before they are replaced. */
	if (c->sum.was_there)
		(void)datapath_tunnel_device(c->datapath, TUNNEL_SUM, c->sum.near);
}

void underlay_prepare(struct controller *c)
{
	prepare_sum(c);
	prepare_stack(c);
}

void underlay_sum_again(struct controller *c)
{
	close_sum(c);
	devices_attach_later(c, SLOW_RETRY_FIRST_US);
}

static void use_sum(struct controller *c)
{
	bool attached = c->sum.near && view_attachment(&c->view, c->sum.far);

	if (c->slow)
		(void)tunnel_slow_checksums(c->slow, has_checksums(c));
	(void)datapath_tunnel_device(c->datapath, TUNNEL_SUM, attached ? c->sum.near : 0);
}

/* After the tunnel's record says that it is not needed any more. */
static void remove_sum(struct controller *c)
{
	close_sum(c);
	c->view.sum_reason = NULL;
	if (!c->sum_cleared && pair_remove(&tunnel_sum_pair) == 0)
		c->sum_cleared = true;
}

/* --- both --- */

/* What of the tunnel the device and the questions to the kernel depend on. */
static bool same_end(const struct hd_tunnel *a, const struct hd_tunnel *b)
{
	return a->protocol == b->protocol && a->port == b->port && memcmp(&a->address, &b->address, sizeof(a->address)) == 0;
}

static void stop(struct controller *c)
{
	bool was = c->followed.protocol != HD_TUNNEL_NONE;

	close_underlay(c);
	close_slow(c);
	c->view.slow_reason = NULL;
	/* of this tunnel, or of an earlier agent's */
	if ((was || !c->underlay_cleared) && underlay_clear() == 0)
		c->underlay_cleared = true;
	memset(&c->followed, 0, sizeof(c->followed));
}

void underlay_follow(struct controller *c)
{
	int r = 0;

	if (c->topology && !has_checksums(c))
		remove_sum(c);
	if (c->topology && !has_stack(c))
		remove_stack(c);
	if (!has_tunnel(c)) {
		if (c->topology)
			stop(c);
		return;
	}
	if (!same_end(&c->followed, &c->topology->tunnel)) {
		close_underlay(c);
		close_slow(c);
		c->slow_retry_us = 0;
		c->followed = c->topology->tunnel;
		/* The policy in force waits for neither. */
		r = set_timer(c, &c->slow_due, 0, on_slow_due);
	}
	if (r >= 0 && !c->underlay)
		r = open_underlay(c);
	if (r >= 0 && c->peers_due) {
		r = set_peers(c);
		c->peers_due = r < 0;
	}
	if (r < 0)
		log_err(r, "cannot follow the ways to peers");
	if (c->ways_due && c->underlay)
		put_ways_again(c);
	use_slow(c);
	use_sum(c);
	use_stack(c);
}

void underlay_free(struct controller *c)
{
	c->underlay_look = sd_event_source_disable_unref(c->underlay_look);
	c->slow_due = sd_event_source_disable_unref(c->slow_due);
	close_underlay(c);
	close_slow(c);
}
