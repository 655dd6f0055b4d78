/* SPDX-License-Identifier: Apache-2.0 */
/* The interfaces of the machine, and which of them carry our programs. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include <net/if_arp.h>

#include <controller_internal.h>
#include <netdev/filters.h>
#include <systemd/sd-daemon.h>

#define RETRY_FIRST_US (1000ull * 1000)
#define RETRY_MAX_US (60 * RETRY_FIRST_US)

static void show_devices(struct controller *c)
{
	c->view.devices = c->devices;
	c->view.n_devices = c->n_devices;
}

static bool is_declared(const struct controller *c, const char *name)
{
	return view_is_uplink(&c->view, name);
}

static void tell_state(struct controller *c)
{
	size_t attached = 0, declared = c->view.host ? c->view.host->n_uplinks : 0;

	c->view.ready = c->compiler && !c->attach_error;
	c->view.attach_error = c->attach_error;
	for (size_t i = 0; i < declared; i++) {
		const struct netdev *device = view_device_by_name(&c->view, c->view.host->uplinks[i].device);

		attached += device && view_attachment(&c->view, device->ifindex);
	}
	(void)sd_notifyf(0, "STATUS=Generation %u, %zu of %zu uplinks guarded%s", c->view.generation, attached, declared,
		c->view.lockdown ? ", locked down: no valid policy" : "");
	if (c->view.ready && !c->told_ready) {
		c->told_ready = true;
		(void)sd_notify(0, "READY=1");
	}
}

static int on_reattach(sd_event_source *source, uint64_t now, void *userdata)
{
	struct controller *c = userdata;

	(void)source;
	(void)now;
	ports_look_again(c);
	(void)devices_attach(c);
	return 0;
}

void devices_attach_later(struct controller *c, uint64_t us)
{
	if (!c->compiler)
		return;
	if (!c->reattach)
		(void)sd_event_add_time_relative(c->event, &c->reattach, CLOCK_MONOTONIC, us, 1000, on_reattach, c);
	else if (sd_event_source_set_time_relative(c->reattach, us) >= 0)
		(void)sd_event_source_set_enabled(c->reattach, SD_EVENT_ONESHOT);
}

/* Segments of a network are on the wire behind tags of another kind; NULL: XDP sees all there can be. */
static const char *hides_tags(const struct controller *c, const struct netdev *device)
{
	const struct topology *t = c->topology;
	bool segments = false, plain, service;

	if (!t || !t->n_wires)
		return NULL;
	for (size_t i = 0; i < t->n_ports && !segments; i++)
		segments = t->ports[i].ifindex && t->ports[i].record.flags & (HD_PORT_ACCESS | HD_PORT_TRUNK);
	plain = netdev_takes_tags(device);
	service = segments && netdev_takes_service_tags(device);
	if (plain && service)
		return "rxvlan off rx-vlan-stag-hw-parse off";
	return plain ? "rxvlan off" : service ? "rx-vlan-stag-hw-parse off" : NULL;
}

int devices_attach(struct controller *c)
{
	const struct host *host = c->view.host ? c->view.host : &policy_no_host;
	_cleanup_free_ struct datapath_uplink *uplinks = calloc(host->n_uplinks + UNDERLAY_UPLINKS, sizeof(*uplinks));
	size_t n = 0;
	int r, ports;

	if (!uplinks)
		return -ENOMEM;
	host_sriov(c, host);
	underlay_prepare(c);
	ports_prepare(c);
	for (size_t i = 0; i < host->n_uplinks; i++) {
		const struct netdev *device = view_device_by_name(&c->view, host->uplinks[i].device);

		if (!device) {
			log_info("uplink %s is not there yet", host->uplinks[i].device);
			continue;
		}
		uplinks[n++] = (struct datapath_uplink){
			.device = device->name,
			.ifindex = device->ifindex,
			.xdp = host->uplinks[i].xdp,
			.hides_tags = hides_tags(c, device),
			.tunnel = host->has_tunnel,
			.decapsulate = host->tunnel_decapsulate,
			.driver = device->driver,
			.forward_judge = host->forward_judge,
			.ethernet = device->type == ARPHRD_ETHER,
		};
	}
	n += underlay_uplinks(c, &uplinks[n]);
	r = datapath_attach(c->datapath, uplinks, n, c->policies, c->n_policies);
	ports = ports_install(c);
	underlay_follow(c);
	fastpaths_follow(c);
	offload_follow(c);
	if (r >= 0)
		r = ports;
	c->attach_error = r < 0 ? r : 0;
	if (r < 0) {
		c->attach_retry = c->attach_retry ? c->attach_retry * 2 : RETRY_FIRST_US;
		if (c->attach_retry > RETRY_MAX_US)
			c->attach_retry = RETRY_MAX_US;
		devices_attach_later(c, c->attach_retry);
	} else {
		c->attach_retry = 0;
		if (c->reattach)
			(void)sd_event_source_set_enabled(c->reattach, SD_EVENT_OFF);
	}
	tell_state(c);
	return r;
}

static void forget_device(struct controller *c, size_t i)
{
	c->n_devices--;
	memmove(&c->devices[i], &c->devices[i + 1], (c->n_devices - i) * sizeof(*c->devices));
}

/* What attachment depends on. */
static bool differs(const struct netdev *a, const struct netdev *b)
{
	return strcmp(a->name, b->name) || a->type != b->type || strcmp(a->driver, b->driver);
}

/* One of the agent's own that programs are on: once it is gone, nothing is attached there any more. */
static bool is_own(const char *name)
{
	return strcmp(name, TUNNEL_SLOW_DEVICE) == 0 || strcmp(name, TUNNEL_SUM_FAR) == 0 ||
	       strcmp(name, TUNNEL_STACK_DEVICE) == 0 || strcmp(name, TUNNEL_NIC_DEVICE) == 0;
}

static bool is_port(const struct controller *c, const char *name)
{
	const struct topology *topology = c->topology;

	for (size_t i = 0; topology && i < topology->n_ports; i++) {
		const struct topology_port *port = &topology->ports[i];
		const char *device = port->object->port.device ?: port->ifindex ? port->device : NULL;

		if (device && !strcmp(device, name))
			return true;
	}
	return false;
}

/*
 * Any change of a port's device may be one of its other end, which is not told by itself: a move to another namespace takes the link
 * down and up again. A device that went down took the host's routes with it.
 */
static bool port_concerned(struct controller *c, const char *before, const char *now)
{
	bool concerned = is_port(c, before) || (strcmp(before, now) != 0 && is_port(c, now));

	c->hostnet_due |= concerned;
	return concerned;
}

static void on_device(const struct netdev *device, bool gone, void *userdata)
{
	struct controller *c = userdata;
	bool concerns = is_declared(c, device->name) || (gone && is_own(device->name)), port;
	struct netdev *grown;

	datapath_doubt(c->datapath, device->ifindex);
	for (size_t i = 0; i < c->n_devices; i++) {
		struct netdev *known = &c->devices[i];

		if (known->ifindex != device->ifindex)
			continue;
		concerns |= is_declared(c, known->name);
		if (gone || known->switch_id != device->switch_id)
			offload_gone(c, device->ifindex);
		port = port_concerned(c, known->name, device->name);
		port |= sriov_concerned(c, gone ? known : device);
		/* Set down it takes no packets: that it is not there is said, and it is made again. */
		if (c->slow && known->ifindex == tunnel_slow_ifindex(c->slow) && (gone || (known->up && !device->up)))
			underlay_slow_again(c);
		if (c->sum.near && (known->ifindex == c->sum.near || known->ifindex == c->sum.far) &&
			(gone || (known->up && !device->up)))
			underlay_sum_again(c);
		if (c->stack.near && (known->ifindex == c->stack.near || known->ifindex == c->stack.far) &&
			(gone || (known->up && !device->up)))
			underlay_stack_again(c);
		if ((gone && port) || cni_vf_concerned(c, gone ? known : device))
			cni_sweep_later(c);
		if (gone)
			forget_device(c, i);
		else if (differs(known, device))
			*known = *device;
		else {
			concerns = fastpaths_concerned(c, known, device);
			*known = *device;
		}
		show_devices(c);
		if (concerns || port)
			devices_attach_later(c, 0);
		return;
	}
	if (gone)
		return;
	grown = reallocarray(c->devices, c->n_devices + 1, sizeof(*grown));
	if (!grown) {
		log_err(-ENOMEM, "cannot take note of %s", device->name);
		return;
	}
	c->devices = grown;
	c->devices[c->n_devices++] = *device;
	show_devices(c);
	port = port_concerned(c, device->name, device->name);
	port |= sriov_concerned(c, device);
	if (cni_vf_concerned(c, device))
		cni_sweep_later(c);
	if (concerns || port)
		devices_attach_later(c, 0);
}

static int on_netdev_io(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct controller *c = userdata;
	int r;

	(void)source;
	(void)fd;
	(void)events;
	r = netdev_watch_dispatch(c->watch);
	if (r < 0)
		log_err(r, "cannot follow the interfaces");
	return 0;
}

static void on_filters(uint32_t ifindex, void *userdata)
{
	struct controller *c = userdata;

	/* At once: until then nothing judges what passes there. */
	if (!datapath_filters_lost(c->datapath, ifindex))
		return;
	c->topology_due = true;
	devices_attach_later(c, 0);
}

static int on_filters_io(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct controller *c = userdata;
	int r;

	(void)source;
	(void)fd;
	(void)events;
	r = filter_watch_dispatch(c->filters);
	if (r < 0)
		log_err(r, "cannot follow the filters of devices");
	return 0;
}

int devices_start(struct controller *c)
{
	int r = netdev_watch_new(on_device, c, &c->watch);

	if (r < 0)
		return log_err(r, "cannot list the interfaces");
	r = sd_event_add_io(c->event, &c->netdev, netdev_watch_fd(c->watch), EPOLLIN, on_netdev_io, c);
	if (r < 0)
		return r;
	r = filter_watch_new(on_filters, c, &c->filters);
	if (r < 0) {
		log_warn(r, "cannot watch the filters of devices: what somebody removes of ours stays away");
		return 0;
	}
	return sd_event_add_io(c->event, &c->filter_changes, filter_watch_fd(c->filters), EPOLLIN, on_filters_io, c);
}

void devices_free(struct controller *c)
{
	sd_event_source_disable_unref(c->netdev);
	sd_event_source_disable_unref(c->filter_changes);
	sd_event_source_disable_unref(c->reattach);
	sd_event_source_disable_unref(c->pace);
	if (c->watch)
		netdev_watch_free(c->watch);
	filter_watch_free(c->filters);
	free(c->devices);
}
