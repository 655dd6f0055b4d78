/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ports of the CNI plugin. An ADD is two calls: reserve says what the container will have, in memory alone; commit makes it a Port, on disk
 * and in force before the answer. In between the plugin makes the devices. A reservation that a crash took is refused at commit, and the
 * plugin undoes its part: so nobody has an address that is not on disk.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <controller_internal.h>
#include <observe/json.h>
#include <observe/status.h>
#include <util/addr.h>
#include <util/clock.h>
#include <util/hash.h>

#define SWEEP_US (2ull * 1000000) /* a DEL that comes through is done by then */
#define SWEEP_AGAIN_US (30ull * 1000000)
#define RESERVED_US (300ull * 1000000) /* a plugin that takes longer was killed */
#define MTU_DEFAULT 1500u

struct reservation {
	struct reservation *next;
	struct object *port;
	uint64_t made_us;
};

/* --- reservations --- */

bool cni_is_reserved(const struct controller *c, const struct cni_key *key)
{
	for (const struct reservation *at = c->reservations; at; at = at->next) {
		struct cni_key other = cni_key_of(at->port);

		if (cni_key_equal(&other, key))
			return true;
	}
	return false;
}

static struct reservation **find_reservation(struct controller *c, const struct cni_key *key)
{
	for (struct reservation **at = &c->reservations; *at; at = &(*at)->next) {
		struct cni_key other = cni_key_of((*at)->port);

		if (cni_key_equal(&other, key))
			return at;
	}
	return NULL;
}

static void drop_reservation(struct reservation **at)
{
	struct reservation *gone = *at;

	*at = gone->next;
	object_unref(gone->port);
	free(gone);
}

static void drop_old_reservations(struct controller *c)
{
	uint64_t now = clock_us();

	for (struct reservation **at = &c->reservations; *at;) {
		if (now - (*at)->made_us > RESERVED_US)
			drop_reservation(at);
		else
			at = &(*at)->next;
	}
}

/* --- start and end --- */

int cni_start(struct controller *c, struct diag *diag)
{
	int r = ipam_new(&c->ipam);

	if (r >= 0)
		r = applied_open_cni(c->options->state_dir, &c->cni, diag);
	if (r < 0)
		return r;
	c->view.cni = &c->store.cni;
	cni_vf_start(c);
	r = ipam_load(c->options->state_dir, c->ipam);
	if (r < 0)
		log_err(r, "addresses are given out from the first one again: cannot read where that was in %s",
			c->options->state_dir);
	return 0;
}

/* Its device is there: the host's end, by its alias, or the container's VF, by its record. */
static bool has_device(const struct controller *c, const struct object *port)
{
	const struct netdev *device = port->port.device ? view_device_by_name(&c->view, port->port.device) : NULL;
	const struct cni_key key = cni_key_of(port);
	char alias[NETDEV_ALIAS_MAX], wanted[CNI_ALIAS_MAX];

	if (port->port.pci)
		return cni_vf_has(c, port);
	if (!device || !key.name)
		return false;
	cni_alias(&key, wanted);
	return netdev_alias(device->ifindex, alias) == 0 && !strcmp(alias, wanted);
}

static void tell_gone(const struct object *port)
{
	log_info("Port %s/%s goes: its %s %s is gone", port->namespace_, port->name, port->port.pci ? "VF" : "device",
		port->port.device ?: port->port.pci);
}

/* Containers that ended, and reboots, while no agent ran: their addresses are free again. */
int cni_place(struct controller *c)
{
	_cleanup_object_list_ struct object_list ports = {0};
	int r = 0;

	for (size_t i = 0; c->cni && r >= 0 && i < applied_objects(c->cni)->n; i++)
		r = object_list_add(&ports, applied_objects(c->cni)->items[i]);
	for (size_t i = 0; r >= 0 && i < ports.n; i++) {
		const struct object *port = ports.items[i];

		if (has_device(c, port)) {
			r = object_list_add(&c->store.cni, ports.items[i]);
			continue;
		}
		tell_gone(port);
		nat_gone(c, &port->port);
		r = applied_remove(c->cni, port->kind, port->namespace_, port->name);
		if (r < 0)
			log_err(r, "cannot record in %s that a container is gone", c->options->state_dir);
	}
	/* VFs come back to be as they were once what their PFs were told of them is taken back, too */
	if (c->loans >= 0)
		cni_sweep_later(c);
	return r;
}

void cni_free(struct controller *c)
{
	while (c->reservations)
		drop_reservation(&c->reservations);
	applied_close(c->cni);
	ipam_free(c->ipam);
	cni_vf_free(c);
}

/* --- ports of the host --- */

/* Of ports that are, and that are about to be. The other mistakes are found with all that an ADD asks for, before anything is made. */
static int check_host_ports(
	const struct controller *c, const struct object *network, const struct object *port, struct diag *diag)
{
	int r = 0;

	if (!port->port.n_host_ports)
		return 0;
	if (!network_routes_to_host(&network->network)) {
		diag_add(diag, NULL, 0, "portMappings", "want a Network that routes to the host, got %s", network->name);
		return -EINVAL;
	}
	for (size_t i = 0; i < c->store.all.n && r == 0; i++)
		r = nat_conflict(port, c->store.all.items[i], diag);
	for (const struct reservation *at = c->reservations; at && r == 0; at = at->next)
		r = nat_conflict(port, at->port, diag);
	return r;
}

/* --- reserve --- */

struct addresses {
	struct hd_addr *items;
	size_t n;
};

static int add_address(struct addresses *list, const struct hd_addr *addr)
{
	bool full = (list->n & (list->n - 1)) == 0; /* room doubles */
	struct hd_addr *grown = full ? reallocarray(list->items, list->n ? 2 * list->n : 1, sizeof(*grown)) : list->items;

	if (!grown)
		return -ENOMEM;
	list->items = grown;
	list->items[list->n++] = *addr;
	return 0;
}

static void addresses_clear(struct addresses *list)
{
	free(list->items);
}

static int add_addresses(struct addresses *list, const struct hd_addr *addresses, size_t n)
{
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++)
		r = add_address(list, &addresses[i]);
	return r;
}

/* Of a Port, or of the workloads of another host. */
static int add_ports_addresses(struct addresses *list, const struct object *object, const char *network)
{
	int r = 0;

	if (object->kind == OBJECT_PORT && strcmp(object->port.network, network) == 0)
		return add_addresses(list, object->port.addresses, object->port.n_addresses);
	if (object->kind != OBJECT_PEER)
		return 0;
	for (size_t i = 0; i < object->tunnel_peer.n_ports && r == 0; i++) {
		const struct peer_port *port = &object->tunnel_peer.ports[i];

		if (strcmp(port->network, network) == 0)
			r = add_addresses(list, port->addresses, port->n_addresses);
	}
	return r;
}

/* Of ports that are, that an apply may bring back, and that are about to be; and the host's own. */
static int taken_addresses(const struct controller *c, const char *network, struct addresses *ret)
{
	int r = 0;

	for (size_t i = 0; i < c->store.all.n && r == 0; i++)
		r = add_ports_addresses(ret, c->store.all.items[i], network);
	for (size_t i = 0; i < c->store.before.n && r == 0; i++)
		r = add_ports_addresses(ret, c->store.before.items[i], network);
	for (const struct reservation *at = c->reservations; at && r == 0; at = at->next)
		r = add_ports_addresses(ret, at->port, network);
	for (size_t i = 0; i < c->n_addresses && r == 0; i++)
		r = add_address(ret, &c->addresses[i]);
	ipam_sort(ret->items, ret->n);
	return r;
}

static bool is_taken(const struct addresses *taken, const struct hd_addr *addr)
{
	for (size_t i = 0; i < taken->n; i++)
		if (memcmp(&taken->items[i], addr, sizeof(*addr)) == 0)
			return true;
	return false;
}

/* With or without the length of its subnet behind it. */
static int parse_address(const json_t *item, struct hd_addr *ret)
{
	const char *text = json_string_value(item), *slash = text ? strchr(text, '/') : NULL;
	char address[ADDR_TEXT_MAX];

	if (!text || strlen(text) >= sizeof(address))
		return -EINVAL;
	snprintf(address, sizeof(address), "%.*s", (int)(slash ? slash - text : (int)strlen(text)), text);
	return addr_parse(address, ret);
}

static int take_wanted(const struct object *network, const json_t *list, const char *path, const struct addresses *taken,
	struct addresses *ret, struct diag *diag)
{
	char text[ADDR_TEXT_MAX];
	const json_t *item;
	size_t i;

	json_array_foreach (list, i, item) {
		struct hd_addr addr;

		if (parse_address(item, &addr) < 0) {
			diag_add(diag, NULL, 0, path, "want an address, with or without a length, got \"%.64s\"",
				json_string_value(item) ?: "");
			return -EINVAL;
		}
		if (!ipam_is_usable(network, &addr)) {
			diag_add(diag, NULL, 0, path, "want an address that a container in Network %s can have, got %s",
				network->name, addr_format(&addr, text));
			return -EINVAL;
		}
		if (is_taken(taken, &addr)) {
			diag_add(diag, NULL, 0, path, "%s is another's", addr_format(&addr, text));
			return -EADDRNOTAVAIL;
		}
		if (!is_taken(ret, &addr) && add_address(ret, &addr) < 0)
			return -ENOMEM;
	}
	return 0;
}

static bool has_family(const struct addresses *list, bool ipv4)
{
	for (size_t i = 0; i < list->n; i++)
		if (addr_is_ipv4(&list->items[i]) == ipv4)
			return true;
	return false;
}

/* One of each family that the ranges have and that was not asked for by itself. */
static int give_addresses(struct controller *c, const struct object *network, const struct cni_request *request,
	const struct addresses *taken, struct addresses *ret, struct diag *diag)
{
	_cleanup_free_ struct ipam_range *ranges = NULL;
	size_t n;
	json_t *own = !request->ranges && c->kubernetes ? kubernetes_ranges(c->kubernetes, network) : NULL;
	int r = take_wanted(network, request->ips, "ips", taken, ret, diag);

	if (r == 0)
		r = ipam_ranges(network, own ? own : request->ranges, &ranges, &n, diag);
	json_decref(own);
	for (int ipv4 = 1; ipv4 >= 0 && r == 0; ipv4--) {
		struct hd_addr addr;

		if (has_family(ret, ipv4))
			continue;
		r = ipam_pick(network, ranges, n, ipv4, ipam_last(c->ipam, network->name, ipv4), taken->items, taken->n, &addr);
		if (r == -ENOENT) {
			r = 0;
			continue;
		}
		if (r == -ENOSPC) {
			diag_add(diag, NULL, 0, NULL, "no IPv%d address is free in Network %s", ipv4 ? 4 : 6, network->name);
			r = -EADDRNOTAVAIL;
		}
		if (r == 0)
			r = ipam_set_last(c->ipam, network->name, &addr);
		if (r == 0)
			r = add_address(ret, &addr);
	}
	c->ipam_due = true;
	return r;
}

/* A Port's, or that of a workload, or of a router, of another host. */
static bool has_mac(const struct object *object, const char *network, const uint8_t mac[6])
{
	const struct tunnel_peer *peer = &object->tunnel_peer;

	if (object->kind == OBJECT_PORT)
		return object->port.has_mac && memcmp(object->port.mac, mac, 6) == 0 && !strcmp(object->port.network, network);
	if (object->kind != OBJECT_PEER)
		return false;
	for (size_t i = 0; i < peer->n_ports; i++)
		if (peer->ports[i].has_mac && memcmp(peer->ports[i].mac, mac, 6) == 0 && !strcmp(peer->ports[i].network, network))
			return true;
	for (size_t i = 0; i < peer->n_prefixes; i++)
		if (peer->prefixes[i].has_mac && memcmp(peer->prefixes[i].mac, mac, 6) == 0 &&
			!strcmp(peer->prefixes[i].network, network))
			return true;
	return false;
}

/* As with addresses, also by what an apply may bring back. */
static bool mac_is_taken(const struct controller *c, const char *network, const uint8_t mac[6])
{
	for (size_t i = 0; i < c->store.all.n; i++)
		if (has_mac(c->store.all.items[i], network, mac))
			return true;
	for (size_t i = 0; i < c->store.before.n; i++)
		if (has_mac(c->store.before.items[i], network, mac))
			return true;
	for (const struct reservation *at = c->reservations; at; at = at->next)
		if (has_mac(at->port, network, mac))
			return true;
	return false;
}

/* The same for the same attachment, if nobody else has it. */
static void choose_mac(const struct controller *c, const struct cni_request *request, char ret[MAC_TEXT_MAX])
{
	const struct cni_key *key = &request->key;
	uint64_t hash = hash_string(hash_string(hash_string(2, key->name), key->container), key->interface);
	uint8_t mac[6] = {0x02};

	do {
		for (size_t i = 1; i < sizeof(mac); i++)
			mac[i] = (uint8_t)(hash >> (8 * i));
		hash = hash_u64(hash, 1);
	} while (mac_is_taken(c, request->network, mac));
	(void)mac_format(mac, ret);
}

/* What fits through the narrowest uplink, and the tunnel around it. */
static uint32_t mtu_of(const struct controller *c, const struct network *network)
{
	const struct host *host = c->view.host;
	uint32_t mtu = UINT32_MAX;

	if (network->mtu)
		return network->mtu;
	for (size_t i = 0; host && i < host->n_uplinks; i++) {
		const struct netdev *device = view_device_by_name(&c->view, host->uplinks[i].device);

		if (device && device->mtu < mtu)
			mtu = device->mtu;
	}
	if (mtu == UINT32_MAX)
		mtu = MTU_DEFAULT;
	return network->vni && c->topology ? mtu - c->topology->tunnel.overhead : mtu;
}

static json_t *reserve_answer(const struct controller *c, const struct object *network, const struct object *port)
{
	const struct network *blue = &network->network;
	json_t *addresses = json_array(), *gateways = json_array();
	char text[ADDR_TEXT_MAX];

	for (size_t i = 0; i < port->port.n_addresses; i++) {
		const struct hd_addr *addr = &port->port.addresses[i];
		bool ipv4 = addr_is_ipv4(addr);
		int length = ipv4 ? 32 : 128;

		for (size_t j = 0; !blue->l3 && j < blue->n_subnets; j++)
			if (addr_in_prefix(addr, &blue->subnets[j].addr, blue->subnets[j].length))
				length = blue->subnets[j].length - (ipv4 ? 96 : 0);
		json_array_append_new(addresses, json_sprintf("%s/%d", addr_format(addr, text), length));
	}
	for (size_t i = 0; i < blue->n_gateways; i++)
		json_array_append_new(gateways, json_address(&blue->gateways[i]));
	return json_pack("{s:o, s:o, s:o, s:i, s:{s:s, s:s}}", "addresses", addresses, "gateways", gateways, "mac",
		json_mac(port->port.mac), "mtu", (int)mtu_of(c, blue), "port", "namespace", port->namespace_, "name", port->name);
}

static int keep_reservation(struct controller *c, struct object *port)
{
	struct reservation *reservation = calloc(1, sizeof(*reservation));

	if (!reservation)
		return -ENOMEM;
	*reservation = (struct reservation){.next = c->reservations, .port = object_ref(port), .made_us = clock_us()};
	c->reservations = reservation;
	return 0;
}

static int release(struct controller *c, const struct cni_key *key, bool *ret_was, struct diag *diag);
static int release_port(struct controller *c, struct object *port, struct diag *diag);

/* An attachment whose device went without a DEL makes room for the same one anew. */
static int make_room(struct controller *c, const struct cni_key *key, struct diag *diag)
{
	struct object *port = cni_find(applied_objects(c->cni), key);
	bool was;

	if (port && has_device(c, port)) {
		diag_add(diag, NULL, 0, NULL, "%s of this container is Port %s/%s already: it needs a DEL first", key->interface,
			port->namespace_, port->name);
		return -EEXIST;
	}
	return release(c, key, &was, diag);
}

/* The Port of an earlier container on the same VF, which has gone with no word. */
static int make_room_on_vf(struct controller *c, const struct cni_request *request, struct diag *diag)
{
	struct object *gone = NULL;
	int r;

	for (size_t i = 0; i < c->store.cni.n && !gone; i++) {
		const struct port *port = &c->store.cni.items[i]->port;

		if (port->pci && strcmp(port->pci, request->pci) == 0 && !cni_vf_has(c, c->store.cni.items[i]))
			gone = object_ref(c->store.cni.items[i]);
	}
	r = gone ? release_port(c, gone, diag) : 0;
	object_unref(gone);
	return r;
}

/* The Port says what the NIC shall do, beside what the policy does. */
static int make_vf_port(struct controller *c, const struct cni_request *request, const struct object *network, const char *mac,
	const struct addresses *given, const struct cni_vf *vf, struct object **ret, struct diag *diag)
{
	json_auto_t *spec = cni_vf_spec(request, vf, network, mac);
	struct cni_request whole = *request;

	whole.vf = spec;
	return cni_vf_open(c) ?: cni_make_port(&whole, mac, given->items, given->n, ret, diag);
}

static int reserve(struct controller *c, const struct cni_request *request, json_t **ret, struct diag *diag)
{
	const struct object *network = object_list_find(&c->store.all, OBJECT_NETWORK, NULL, request->network);
	__attribute__((cleanup(addresses_clear))) struct addresses taken = {0}, given = {0};
	struct object *port = NULL;
	struct cni_vf vf;
	char mac[MAC_TEXT_MAX];
	int r;

	if (!network) {
		diag_add(diag, NULL, 0, "network", "there is no Network %s", request->network);
		return -EINVAL;
	}
	r = cluster_may_connect(c, request, diag);
	if (r < 0)
		return r;
	/* the devices as they are by now */
	(void)netdev_watch_dispatch(c->watch);
	drop_old_reservations(c);
	r = make_room(c, &request->key, diag);
	if (r == 0 && request->pci)
		r = make_room_on_vf(c, request, diag);
	if (r == 0 && request->pci)
		r = cni_vf_find(c, request, network, &vf, diag);
	if (r == 0)
		r = taken_addresses(c, network->name, &taken);
	if (r == 0 && request->addresses)
		r = take_wanted(network, request->addresses, "addresses", &taken, &given, diag);
	else if (r == 0)
		r = give_addresses(c, network, request, &taken, &given, diag);
	if (r == 0 && !request->mac)
		choose_mac(c, request, mac);
	if (r == 0 && request->pci)
		r = make_vf_port(c, request, network, request->mac ?: mac, &given, &vf, &port, diag);
	else if (r == 0)
		r = cni_make_port(request, request->mac ?: mac, given.items, given.n, &port, diag);
	if (r == 0)
		r = check_host_ports(c, network, port, diag);
	if (r == 0)
		r = keep_reservation(c, port);
	if (r == 0)
		*ret = reserve_answer(c, network, port);
	if (r == 0 && request->pci)
		json_object_set_new(*ret, "vf", cni_vf_json(&vf));
	object_unref(port);
	return r;
}

/* --- commit and release --- */

/* The plugin's ports without one, or with one more. */
static int propose(struct controller *c, struct object *port, bool with, struct store_proposal *ret, struct diag *diag)
{
	_cleanup_object_list_ struct object_list next = {0};
	int r = with ? object_list_add(&next, port) : 0;

	for (size_t i = 0; i < c->store.cni.n && r >= 0; i++)
		if (object_compare(c->store.cni.items[i], port) != 0)
			r = object_list_add(&next, c->store.cni.items[i]);
	return r < 0 ? r : store_propose_cni(&c->store, &next, ret, diag);
}

/* What has been recorded is made live, or taken back. */
static int activate_recorded(struct controller *c, struct store_proposal *proposal, struct diag *diag)
{
	int r = change_activate(c, proposal, diag), undone;

	if (r >= 0)
		return 0;
	undone = applied_undo(c->cni);
	if (undone < 0)
		log_err(undone, "cannot take back what was recorded in %s", c->options->state_dir);
	return r;
}

static int release_port(struct controller *c, struct object *port, struct diag *diag)
{
	_cleanup_store_proposal_ struct store_proposal proposal = {0};
	bool live = c->compiler && !c->view.lockdown;
	int r = propose(c, port, false, &proposal, diag);

	if (r >= 0)
		r = applied_remove(c->cni, port->kind, port->namespace_, port->name);
	/* where nothing is in force, the next policy comes without it */
	if (r >= 0 && live)
		r = activate_recorded(c, &proposal, diag);
	if (r >= 0)
		change_commit(c, &proposal);
	return r;
}

static int release(struct controller *c, const struct cni_key *key, bool *ret_was, struct diag *diag)
{
	struct reservation **reservation = find_reservation(c, key);
	struct object *found = cni_find(applied_objects(c->cni), key), *port = found ? object_ref(found) : NULL;
	int r = 0;

	*ret_was = port || reservation;
	if (reservation)
		drop_reservation(reservation);
	if (port)
		r = release_port(c, port, diag);
	object_unref(port);
	return r;
}

/* --- containers that went without a word: a DEL that found no agent, a namespace that was just removed --- */

static int sweep(struct controller *c)
{
	_cleanup_object_list_ struct object_list gone = {0};
	int r = cni_vf_end_gone(c);

	for (size_t i = 0; i < c->store.cni.n && r >= 0; i++) {
		const struct port *port = &c->store.cni.items[i]->port;

		if (port->pci ? !cni_vf_has(c, c->store.cni.items[i]) : !view_device_by_name(&c->view, port->device))
			r = object_list_add(&gone, c->store.cni.items[i]);
	}
	for (size_t i = 0; i < gone.n && r >= 0; i++) {
		const struct object *port = gone.items[i];
		_cleanup_diag_ struct diag diag = {0};

		tell_gone(port);
		r = release_port(c, gone.items[i], &diag);
		if (r < 0)
			log_err(r, "cannot remove Port %s/%s%s%s", port->namespace_, port->name, diag.text ? ": " : "",
				diag.text ? diag.text : "");
	}
	return r < 0 ? r : cni_vf_sweep(c);
}

static int on_sweep(sd_event_source *source, uint64_t now, void *userdata)
{
	struct controller *c = userdata;
	int r = sweep(c);

	(void)now;
	/* -EAGAIN: the plugin is at it */
	if (r < 0 && sd_event_source_set_time_relative(source, r == -EAGAIN ? SWEEP_US : SWEEP_AGAIN_US) >= 0)
		(void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return 0;
}

void cni_sweep_later(struct controller *c)
{
	if (!c->store.cni.n && c->loans < 0)
		return;
	if (!c->sweep)
		(void)sd_event_add_time_relative(c->event, &c->sweep, CLOCK_MONOTONIC, SWEEP_US, 100000, on_sweep, c);
	else if (sd_event_source_set_time_relative(c->sweep, SWEEP_US) >= 0)
		(void)sd_event_source_set_enabled(c->sweep, SD_EVENT_ONESHOT);
}

static int check_in_force(const struct controller *c, const struct object *port, struct diag *diag)
{
	const struct topology_port *at = c->topology ? topology_find_port(c->topology, port) : NULL;
	const char *reason = at ? status_port_reason(&c->view, at) : "it is no port";

	if (port->port.pci && (!reason || cni_vf_is_legacy(c, port)))
		return cni_vf_check(c, port, diag);
	if (!reason)
		return 0;
	diag_add(diag, NULL, 0, NULL, "Port %s/%s cannot be put in force: %s", port->namespace_, port->name, reason);
	return -EIO;
}

static int commit_port(struct controller *c, struct object *port, struct diag *diag)
{
	_cleanup_store_proposal_ struct store_proposal proposal = {0};
	_cleanup_diag_ struct diag ignored = {0};
	int r;

	if (!has_device(c, port)) {
		if (port->port.pci)
			diag_add(diag, NULL, 0, "stateDir", "want heddled's, %s, where there is no record of VF %s",
				c->options->state_dir, port->port.pci);
		else
			diag_add(diag, NULL, 0, NULL, "there is no device %s with the attachment's alias", port->port.device);
		return -EINVAL;
	}
	r = propose(c, port, true, &proposal, diag);
	if (r >= 0)
		r = applied_put(c->cni, &port, 1, 0);
	if (r >= 0)
		r = activate_recorded(c, &proposal, diag);
	if (r < 0)
		return r;
	change_commit(c, &proposal);
	r = check_in_force(c, port, diag);
	if (r == 0)
		r = nat_check(c, port, diag);
	if (r < 0 && release_port(c, port, &ignored) < 0)
		log_err(0, "Port %s/%s is left until a DEL", port->namespace_, port->name);
	return r;
}

static int commit(struct controller *c, const struct cni_request *request, json_t **ret, struct diag *diag)
{
	struct reservation **at = find_reservation(c, &request->key);
	struct object *port;
	int r;

	/* The device was made a moment ago; and as long as it is reserved, no namespace that ended before is taken for the container's. */
	(void)netdev_watch_dispatch(c->watch);
	if (!at) {
		diag_add(diag, NULL, 0, NULL,
			"nothing is reserved for this container: the agent was started anew, or it took too long");
		return -ENOENT;
	}
	port = object_ref((*at)->port);
	drop_reservation(at);
	r = commit_port(c, port, diag);
	if (r >= 0)
		*ret = json_pack("{s:{s:s, s:s}, s:I}", "port", "namespace", port->namespace_, "name", port->name, "generation",
			(json_int_t)c->view.generation);
	object_unref(port);
	return r;
}

int cni_change(void *userdata, enum api_cni verb, const json_t *body, json_t **ret, struct diag *diag)
{
	struct controller *c = userdata;
	struct cni_request request;
	bool was;
	int r = cni_parse(body, verb == API_CNI_RESERVE, &request, diag);

	if (r < 0)
		return r;
	if (!c->cni) {
		diag_add(diag, NULL, 0, NULL, "the state directory cannot be used, see `heddle status`");
		return -EIO;
	}
	if (verb == API_CNI_RELEASE) {
		r = release(c, &request.key, &was, diag);
		if (r >= 0)
			*ret = json_pack("{s:b}", "released", was);
		return r;
	}
	r = change_may(c, diag);
	if (r < 0)
		return -EAGAIN;
	return verb == API_CNI_RESERVE ? reserve(c, &request, ret, diag) : commit(c, &request, ret, diag);
}
