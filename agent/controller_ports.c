/* SPDX-License-Identifier: Apache-2.0 */
/* Networks and ports: what the documents come to on the devices that are there, in the maps and in the host's own stack. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include <net/if_arp.h>

#include <controller_internal.h>
#include <netdev/settings.h>
#include <util/addr.h>

/* Those who remove our routes may remove many at once, and more than once. */
#define HOST_CHANGE_US 50000

/* --- what is known --- */

static int adopt_network(uint16_t index, const struct hd_network *record, void *userdata)
{
	return networks_adopt(userdata, index, record);
}

static int adopt_peer(uint32_t index, const struct hd_peer *record, void *userdata)
{
	return networks_adopt_peer(userdata, index, record);
}

static int adopt_route(const struct hd_route_key *key, const struct hd_route *route, void *userdata)
{
	return networks_adopt_route(userdata, key, route);
}

int ports_start(struct controller *c)
{
	int r = networks_new(&c->networks);

	if (r < 0)
		return r;
	r = datapath_networks(c->datapath, adopt_network, adopt_route, c->networks);
	if (r == 0)
		r = datapath_peers(c->datapath, adopt_peer, c->networks);
	if (r < 0)
		log_warn(r, "networks get new numbers, and their flows are lost: cannot read those of the earlier agent");
	c->view.networks = c->networks;
	r = identities_new(&c->identities);
	if (r < 0)
		return r;
	r = remembered_load(c->options->state_dir, &c->identities);
	if (r < 0)
		log_err(r, "identities get new numbers: cannot read those in %s", c->options->state_dir);
	c->view.identities = c->identities;
	c->topology_due = c->hostnet_due = c->peers_due = true;
	return 0;
}

void ports_free(struct controller *c)
{
	sd_event_source_disable_unref(c->host_changes);
	hostnet_close(c->hostnet);
	topology_free(c->topology);
	networks_free(c->networks);
	identities_free(c->identities);
	free(c->addresses);
	free(c->set_up);
}

static bool any_to_host(const struct object_list *all)
{
	for (size_t i = 0; i < all->n; i++) {
		const struct network *network = &all->items[i]->network;

		if (all->items[i]->kind != OBJECT_NETWORK)
			continue;
		for (size_t j = 0; j < network->n_routes_to; j++)
			if (strcmp(network->routes_to[j], NETWORK_HOST) == 0)
				return true;
	}
	return false;
}

static int read_addresses(struct controller *c)
{
	struct hd_addr *addresses;
	size_t n;
	int r = hostnet_addresses(c->hostnet, &addresses, &n);

	if (r < 0)
		return log_err(r, "cannot list the host's addresses");
	free(c->addresses);
	c->addresses = addresses;
	c->n_addresses = n;
	return 0;
}

static void on_host_change(unsigned changes, void *userdata)
{
	struct controller *c = userdata;

	if (changes & HOSTNET_ADDRESSES)
		(void)read_addresses(c);
	c->hostnet_due = true;
	devices_attach_later(c, changes & HOSTNET_ENTRIES ? HOST_CHANGE_US : 0);
}

static int on_host_io(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct controller *c = userdata;

	(void)source;
	(void)fd;
	(void)events;
	(void)hostnet_dispatch(c->hostnet);
	return 0;
}

/* Only where a network routes to the host: on a router the changes of routes alone would keep the agent awake. */
static int open_hostnet(struct controller *c)
{
	int r;

	if (c->hostnet)
		return 0;
	r = hostnet_open(on_host_change, c, &c->hostnet);
	if (r < 0)
		return r;
	r = sd_event_add_io(c->event, &c->host_changes, hostnet_fd(c->hostnet), EPOLLIN, on_host_io, c);
	if (r >= 0)
		r = read_addresses(c);
	if (r < 0) {
		c->host_changes = sd_event_source_disable_unref(c->host_changes);
		hostnet_close(c->hostnet);
		c->hostnet = NULL;
	}
	return r < 0 ? r : 0;
}

/* --- proposing --- */

static int by_name(const void *a, const void *b)
{
	return strcmp((*(struct netdev *const *)a)->name, (*(struct netdev *const *)b)->name);
}

static int port_by_device(const void *a, const void *b)
{
	return strcmp((*(struct object *const *)a)->port.device, (*(struct object *const *)b)->port.device);
}

static struct topology_device describe(struct netdev *device, bool needs_mac)
{
	struct topology_device known = {.name = device->name,
		.ifindex = device->ifindex,
		.mtu = device->mtu,
		.up = device->up,
		.ethernet = device->type == ARPHRD_ETHER,
		.enslaved = device->master != 0,
		.peer_elsewhere = device->peer_elsewhere};

	if (needs_mac && !device->peer_asked) {
		device->has_peer_mac = netdev_peer_mac(device, device->peer_mac) == 0;
		device->peer_asked = true;
	}
	known.has_peer_mac = device->has_peer_mac;
	memcpy(known.peer_mac, device->peer_mac, sizeof(known.peer_mac));
	return known;
}

/* Of those the places have, the ones that no port names as well. */
static size_t describe_places(
	const struct controller *c, const struct topology_place *places, size_t n_places, struct topology_device *to, size_t n)
{
	for (size_t i = 0; i < n_places; i++) {
		struct netdev *device = NULL;
		bool there = false;

		for (size_t j = 0; j < c->n_devices && places[i].device && !device; j++)
			if (strcmp(c->devices[j].name, places[i].device) == 0)
				device = &c->devices[j];
		for (size_t j = 0; j < n && device; j++)
			there |= to[j].ifindex == device->ifindex;
		if (!device || there)
			continue;
		to[n] = describe(device, false);
		to[n].has_peer_mac = sriov_mac(c, device->ifindex, to[n].peer_mac);
		n++;
	}
	return n;
}

/* The devices that ports name, and the uplinks, once each. Both lists of ports and devices are long: sorted, one pass tells. */
static int describe_all(const struct controller *c, const struct object_list *all, const struct host *host, size_t n_ports,
	const struct topology_place *places, size_t n_places, struct topology_device *to)
{
	_cleanup_free_ struct netdev **devices = calloc(c->n_devices + 1, sizeof(struct netdev *));
	_cleanup_free_ struct object **ports = calloc(n_ports + 1, sizeof(struct object *));
	size_t n = 0, n_named = 0;

	if (!devices || !ports)
		return -ENOMEM;
	for (size_t i = 0; i < c->n_devices; i++)
		devices[i] = &c->devices[i];
	for (size_t i = 0; i < all->n; i++)
		if (all->items[i]->kind == OBJECT_PORT && all->items[i]->port.device)
			ports[n_named++] = all->items[i];
	qsort(devices, c->n_devices, sizeof(struct netdev *), by_name);
	qsort(ports, n_named, sizeof(struct object *), port_by_device);
	for (size_t i = 0, j = 0; i < n_named; i++) {
		const struct port *port = &ports[i]->port;
		int order = -1;

		while (j < c->n_devices && (order = strcmp(devices[j]->name, port->device)) < 0)
			j++;
		if (j < c->n_devices && order == 0)
			to[n++] = describe(devices[j], !port->has_mac);
	}
	n = describe_places(c, places, n_places, to, n);
	for (size_t i = 0; i < host->n_uplinks; i++)
		for (size_t j = 0; j < c->n_devices; j++)
			if (strcmp(devices[j]->name, host->uplinks[i].device) == 0)
				to[n++] = describe(devices[j], false);
	return (int)n;
}

static size_t count_ports(const struct object_list *all)
{
	size_t n = 0;

	for (size_t i = 0; i < all->n; i++)
		n += all->items[i]->kind == OBJECT_PORT;
	return n;
}

static int build(
	struct controller *c, const struct object_list *all, const struct host *host, struct topology **ret, struct diag *diag)
{
	size_t n_ports = count_ports(all);
	_cleanup_free_ struct topology_device *devices = calloc(n_ports + host->n_uplinks + 1, sizeof(*devices));
	struct topology_input input = {.objects = all, .host = host, .networks = c->networks, .devices = devices};
	struct topology_place *places = NULL;
	size_t n_places = 0;
	int n = devices ? sriov_places(c, all, &places, &n_places) : -ENOMEM;

	if (n == 0)
		n = describe_all(c, all, host, n_ports, places, n_places, devices);
	if (n < 0) {
		free(places);
		return n;
	}
	input.places = places;
	input.n_places = n_places;
	input.n_devices = (size_t)n;
	input.host_addresses = c->addresses;
	input.n_host_addresses = c->n_addresses;
	input.no_services = c->nat_reason != NULL;
	input.before = c->topology;
	n = topology_build(&input, ret, diag);
	free(places);
	return n;
}

int ports_propose(
	struct controller *c, const struct object_list *all, const struct host *host, struct topology **ret, struct diag *diag)
{
	int r = any_to_host(all) ? open_hostnet(c) : 0;

	if (r >= 0)
		r = networks_assign(c->networks, all, diag);
	if (r < 0)
		return r;
	r = build(c, all, host, ret, diag);
	if (r < 0)
		networks_abort(c->networks);
	return r;
}

int ports_check(const struct object_list *all, const struct host *host, const struct networks *networks, struct diag *diag)
{
	struct topology_input input = {.objects = all, .host = host, .networks = networks};
	struct topology *topology = NULL;
	int r = topology_build(&input, &topology, diag);

	topology_free(topology);
	return r;
}

void ports_take_over(struct controller *c, struct topology *topology)
{
	c->topology_due |= !topology_equal(c->topology, topology);
	c->hostnet_due |= c->topology_due;
	c->peers_due |= c->topology_due;
	c->vfs_due = true;
	networks_commit(c->networks);
	topology_free(c->topology);
	c->topology = topology;
	c->view.topology = topology;
}

/* --- sizes --- */

static size_t peers_end(const struct topology *topology)
{
	return topology->n_peers ? topology->peers[topology->n_peers - 1].index + 1 : 0;
}

bool ports_fit(const struct controller *c, const struct topology *topology)
{
	struct datapath_sizes have;

	datapath_sizes(c->datapath, &have);
	return topology->n_endpoints <= have.endpoints && topology->n_members <= have.members &&
	       topology->n_routes <= have.routes && topology->n_vlans <= have.port_vlans &&
	       topology->n_ports <= have.ports_hash && peers_end(topology) <= have.peers &&
	       2 * topology->n_peer_addresses <= have.peer_addresses && topology->n_vnis <= have.vnis &&
	       topology->n_prefixes <= have.peer_prefixes && topology->n_peer_members <= have.peer_members;
}

static uint32_t room_for(size_t n)
{
	uint32_t room = 256;

	while (room < n + n / 4)
		room *= 2;
	return room;
}

void ports_sizes(const struct topology *topology, struct datapath_sizes *sizes)
{
	sizes->endpoints = room_for(topology->n_endpoints);
	sizes->members = room_for(topology->n_members);
	sizes->routes = room_for(topology->n_routes);
	sizes->port_vlans = room_for(topology->n_vlans);
	sizes->ports_hash =
		room_for(topology->n_ports); /* all of them, though only those are there whose place in `ports` is taken */
	if (topology->tunnel.protocol == HD_TUNNEL_NONE)
		return; /* the least */
	sizes->peers = room_for(peers_end(topology));
	if (sizes->peers > HD_PEERS_MAX)
		sizes->peers = HD_PEERS_MAX;
	/* Each may change, and its old address goes once the new one is there. */
	sizes->peer_addresses = room_for(2 * topology->n_peer_addresses);
	sizes->vnis = room_for(topology->n_vnis);
	sizes->peer_prefixes = room_for(topology->n_prefixes);
	sizes->peer_members = room_for(topology->n_peer_members);
}

/* --- putting in force --- */

/* A port that the compiler does not know stays closed. */
static int policies_of(const struct controller *c, const struct topology *topology, struct hd_port_policy **ret)
{
	struct hd_port_policy *policies = calloc(topology->n_ports + 1, sizeof(*policies));

	if (!policies)
		return -ENOMEM;
	for (size_t i = 0; i < topology->n_ports; i++) {
		const struct object *port = topology->ports[i].object;
		struct port_policy policy;

		if (compiler_port(c->compiler, port->namespace_, port->name, &policy) == 0)
			policies[i] = policy.policy;
	}
	*ret = policies;
	return 0;
}

static bool is_ipv6(const struct topology_host_address *address)
{
	return !addr_is_ipv4(&address->address);
}

static int set_devices(struct controller *c)
{
	const struct topology *topology = c->topology;
	_cleanup_free_ struct settings_device *devices = calloc(topology->n_ports + topology->n_members + 1, sizeof(*devices));
	size_t n = 0;
	int r;

	if (!devices)
		return -ENOMEM;
	/* Those of network 0 are the uplinks, where some network has a VLAN. */
	for (size_t i = 0; i < topology->n_members; i++)
		if (topology->members[i].network == 0)
			devices[n++] = (struct settings_device){.ifindex = topology->members[i].id, .uplink = true};
	for (size_t i = 0; i < topology->n_ports; i++)
		if (topology->ports[i].ifindex)
			devices[n++].ifindex = topology->ports[i].ifindex;
	settings_sort(devices, n);
	for (size_t i = 0; i < topology->n_host; i++) {
		struct settings_device *device = settings_find(devices, n, topology->host[i].ifindex);

		if (device && is_ipv6(&topology->host[i]))
			device->ipv6 = true;
	}
	for (size_t i = 0; i < n; i++) {
		const struct settings_device *before = settings_find(c->set_up, c->n_set_up, devices[i].ifindex);

		devices[i].is_done = before && before->ipv6 == devices[i].ipv6 && before->uplink == devices[i].uplink;
	}
	r = settings_sync(c->options->run_dir, devices, n);
	if (r < 0)
		return r;
	free(c->set_up);
	c->set_up = TAKE_PTR(devices);
	c->n_set_up = n;
	return 0;
}

static int install_rows(struct controller *c)
{
	_cleanup_free_ struct hd_port_policy *policies = NULL;
	int r = policies_of(c, c->topology, &policies);

	drops_before_rows(c);
	if (r == 0)
		r = datapath_remove(c->datapath, c->topology);
	if (r == 0)
		r = datapath_ports(c->datapath, c->topology, policies);
	if (r == 0)
		r = set_devices(c);
	if (r == 0)
		c->topology_due = false;
	return r;
}

/* The host is known at the other end by the address of its tunnel; of the other family the kernel chooses. */
static struct hostnet_entry to_stack(const struct controller *c, const struct topology_route *route)
{
	const struct hd_addr *own = &c->topology->tunnel.address;
	struct hostnet_entry entry = {
		.ifindex = underlay_stack(c), .length = (uint8_t)(route->key.length - 16), .is_block = true, .source = *own};
	bool ipv4;

	memcpy(entry.address.b, route->key.addr, sizeof(entry.address.b));
	ipv4 = entry.length >= 96 && addr_is_ipv4(&entry.address);
	entry.has_source = ipv4 == addr_is_ipv4(own);
	return entry;
}

static int install_host(struct controller *c)
{
	const struct topology *topology = c->topology;
	size_t n = topology->n_host;
	_cleanup_free_ struct hostnet_entry *entries = calloc(n + topology->n_stack + 1, sizeof(*entries));
	int r;

	if (!entries)
		return -ENOMEM;
	for (size_t i = 0; i < topology->n_host; i++) {
		const struct topology_host_address *from = &topology->host[i];

		entries[i] = (struct hostnet_entry){.address = from->address,
			.ifindex = from->ifindex,
			.has_source = from->has_source,
			.source = from->source};
		memcpy(entries[i].mac, from->mac, sizeof(entries[i].mac));
	}
	for (size_t i = 0; i < topology->n_routes && underlay_stack(c); i++)
		if (!topology->routes[i].key.network)
			entries[n++] = to_stack(c, &topology->routes[i]);
	/* of an earlier agent, or of networks that no longer route to the host */
	r = c->hostnet ? hostnet_sync(c->hostnet, entries, n) : hostnet_clear();
	if (r == 0)
		c->hostnet_due = false;
	return r;
}

void ports_prepare(struct controller *c)
{
	_cleanup_free_ struct hd_port_policy *policies = NULL;
	bool called = c->topology && (c->topology->n_wires || c->topology->tunnel.protocol != HD_TUNNEL_NONE);
	int r = called ? policies_of(c, c->topology, &policies) : 0;

	if (r == 0 && policies)
		r = datapath_prepare(c->datapath, c->topology, policies);
	if (r < 0) /* ports_install() tries once more, and tells */
		log_debug("VLANs and the tunnel of networks begin only once the ports are attached: %s", strerror(-r));
}

int ports_install(struct controller *c)
{
	int r = 0, host = 0;

	if (!c->topology)
		return 0;
	/* What a VF may do at most, before it may do anything. A NIC that refuses is no reason to wait. */
	(void)vfs_sync(c);
	/* The host's stack is led to a port only once that is closed. */
	if (c->topology_due)
		r = install_rows(c);
	if (r == 0 && c->hostnet_due)
		host = install_host(c);
	pace_follow(c);
	return r < 0 ? r : host;
}

void ports_look_again(struct controller *c)
{
	const struct host *host = c->view.host ? c->view.host : &policy_no_host;
	struct topology *topology;
	struct diag diag = {0};
	int r;

	if (!c->topology)
		return;
	r = ports_propose(c, &c->store.all, host, &topology, &diag);
	if (r < 0) {
		log_err(r, "cannot follow the devices of ports%s%s", diag.text ? ": " : "", diag.text ? diag.text : "");
	} else if (!ports_fit(c, topology)) {
		networks_abort(c->networks);
		topology_free(topology);
		r = policy_rebuild(c);
		if (r < 0)
			log_err(r, "cannot make room for the addresses of ports");
	} else {
		ports_take_over(c, topology);
	}
	diag_clear(&diag);
}
