/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Masquerading and ports of the host: what the documents ask of nftables. The table is written when that changes, when an agent starts, and when
 * somebody else has touched it. What is in it stays when an agent ends.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include <controller_internal.h>
#include <netdev/nat_stale.h>
#include <util/hash.h>

#define TOUCHED_US 50000ull /* who flushes a ruleset often loads another one right behind it */
#define RETRY_FIRST_US (1000ull * 1000)
#define RETRY_MAX_US (60 * RETRY_FIRST_US)

/* --- what is asked for --- */

bool nat_masquerades(const struct controller *c, const struct object_list *all, const struct object *object)
{
	const struct object *host = policy_host(all);

	if (!network_routes_to_host(&object->network))
		return false;
	if (object->network.masquerade.mode != MASQUERADE_DEFAULT)
		return object->network.masquerade.mode == MASQUERADE_ON;
	return c->kubernetes && strcmp(object->name, kubernetes_network(host ? &host->host : NULL)) == 0;
}

static size_t add_blocks(struct nat_block *to, const struct prefix *blocks, size_t n)
{
	for (size_t i = 0; i < n; i++)
		to[i] = (struct nat_block){.addr = blocks[i].addr, .length = blocks[i].length};
	return n;
}

/* What networks keep is kept of all that is masqueraded: the others' subnets, and what is excluded. */
static void add_network(struct nat_content *to, const struct object *object, bool from)
{
	const struct network *network = &object->network;

	if (!network_routes_to_host(network))
		return;
	if (network->n_services)
		to->unjudged = HD_MARK_UNJUDGED;
	to->n_inside += add_blocks(&to->inside[to->n_inside], network->subnets, network->n_subnets);
	if (from)
		to->n_from += add_blocks(&to->from[to->n_from], network->subnets, network->n_subnets);
	to->n_kept += add_blocks(&to->kept[to->n_kept], network->subnets, network->n_subnets);
	to->n_kept += add_blocks(&to->kept[to->n_kept], network->masquerade.exclude, network->masquerade.n_exclude);
}

static void add_port(struct nat_content *to, const struct port *port)
{
	for (size_t i = 0; i < port->n_host_ports; i++)
		for (int ipv4 = 1; ipv4 >= 0; ipv4--) {
			const struct host_port *from = &port->host_ports[i];
			const struct hd_addr *target = host_port_target(port, ipv4);

			if (target && (ipv4 ? from->ipv4 : from->ipv6))
				to->ports[to->n_ports++] = (struct nat_port){.host = from->address,
					.to = *target,
					.host_port = from->host_port,
					.to_port = from->port,
					.protocol = from->protocol,
					.any = from->any};
		}
}

static void clear_content(struct nat_content *content)
{
	free(content->from);
	free(content->kept);
	free(content->inside);
	free(content->ports);
}

static int gather(const struct controller *c, const struct object_list *all, struct nat_content *ret)
{
	size_t blocks = 1, ports = 1;

	*ret = (struct nat_content){0};
	for (size_t i = 0; i < all->n; i++) {
		const struct object *object = all->items[i];

		if (object->kind == OBJECT_NETWORK)
			blocks += object->network.n_subnets + object->network.masquerade.n_exclude;
		else if (object->kind == OBJECT_PORT)
			ports += 2 * object->port.n_host_ports;
	}
	ret->from = calloc(blocks, sizeof(*ret->from));
	ret->kept = calloc(blocks, sizeof(*ret->kept));
	ret->inside = calloc(blocks, sizeof(*ret->inside));
	ret->ports = calloc(ports, sizeof(*ret->ports));
	if (!ret->from || !ret->kept || !ret->inside || !ret->ports)
		return -ENOMEM;
	for (size_t i = 0; i < all->n; i++) {
		if (all->items[i]->kind == OBJECT_NETWORK)
			add_network(ret, all->items[i], nat_masquerades(c, all, all->items[i]));
		else if (all->items[i]->kind == OBJECT_PORT)
			add_port(ret, &all->items[i]->port);
	}
	return 0;
}

static uint64_t hash_content(const struct nat_content *content)
{
	uint64_t hash = hash_bytes(6, content->from, content->n_from * sizeof(*content->from));

	hash = hash_bytes(hash, content->kept, content->n_from ? content->n_kept * sizeof(*content->kept) : 0);
	hash = hash_u64(hash, content->unjudged);
	hash = hash_bytes(hash, content->inside, content->unjudged ? content->n_inside * sizeof(*content->inside) : 0);
	for (size_t i = 0; i < content->n_ports; i++) {
		const struct nat_port *port = &content->ports[i];

		hash = hash_bytes(hash_bytes(hash, &port->host, sizeof(port->host)), &port->to, sizeof(port->to));
		hash = hash_u64(hash, (uint64_t)port->any << 40 | (uint64_t)port->protocol << 32 |
					      (uint64_t)port->host_port << 16 | port->to_port);
	}
	return hash ? hash : 1;
}

/* --- watching --- */

static int on_due(sd_event_source *source, uint64_t now, void *userdata)
{
	struct controller *c = userdata;

	(void)source, (void)now;
	if (c->view.lockdown)
		return 0;
	nat_follow(c, &c->store.all);
	return 0;
}

static void again_in(struct controller *c, uint64_t us)
{
	int r;

	c->nat_hash = 0;
	if (!c->nat_due)
		r = sd_event_add_time_relative(c->event, &c->nat_due, CLOCK_MONOTONIC, us, 1000, on_due, c);
	else
		r = sd_event_source_set_time_relative(c->nat_due, us);
	if (r >= 0)
		r = sd_event_source_set_enabled(c->nat_due, SD_EVENT_ONESHOT);
	if (r < 0)
		log_err(r, "cannot put work off");
}

static int on_changes(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct controller *c = userdata;

	(void)source, (void)fd, (void)events;
	if (nft_watch_read(c->nat_watch)) {
		log_debug("somebody has touched our table of nftables");
		again_in(c, TOUCHED_US);
	}
	return 0;
}

/* Before the first change, so that none of others' is missed behind it. */
static int watch(struct controller *c, const char *table)
{
	int r;

	if (c->nat_watch)
		return 0;
	r = nft_watch_open(table, &c->nat_watch);
	if (r >= 0)
		r = sd_event_add_io(c->event, &c->nat_changes, nft_watch_fd(c->nat_watch), EPOLLIN, on_changes, c);
	return r < 0 ? r : 0;
}

static void unwatch(struct controller *c)
{
	c->nat_changes = sd_event_source_disable_unref(c->nat_changes);
	nft_watch_close(c->nat_watch);
	c->nat_watch = NULL;
	c->nat_hash = 0;
}

/* --- flows that began before --- */

static void keep_ports(struct controller *c, struct nat_content *content)
{
	free(c->nat_ports);
	c->nat_ports = content->ports;
	c->n_nat_ports = content->n_ports;
	content->ports = NULL;
}

/* After the table: what is forgotten begins anew by that. */
static void forget_flows(struct controller *c, struct nat_content *content)
{
	const struct nat_change change = {.before = {c->nat_ports, c->n_nat_ports},
		.now = {content->ports, content->n_ports},
		.lost = !c->nat_hash,
		.local = c->addresses,
		.n_local = c->n_addresses};
	size_t n;
	int r = nat_forget_stale(&change, &n);

	if (r < 0)
		log_warn(r, "UDP flows to ports of the host may go on to where they led before");
	if (n)
		log_debug("%zu UDP flows to ports of the host begin anew", n);
	keep_ports(c, content);
}

void nat_gone(struct controller *c, const struct port *port)
{
	size_t n = c->n_nat_ports + 2 * port->n_host_ports;
	struct nat_content content = {.n_ports = c->n_nat_ports};

	if (!port->n_host_ports)
		return;
	content.ports = reallocarray(c->nat_ports, n, sizeof(*content.ports));
	if (!content.ports)
		return;
	c->nat_ports = NULL;
	add_port(&content, port);
	keep_ports(c, &content);
}

/* --- putting in force --- */

static void forget_reason(struct controller *c)
{
	/* Services count again */
	if (c->nat_reason)
		devices_attach_later(c, 0);
	free(c->nat_reason);
	c->view.nat_reason = c->nat_reason = NULL;
	c->nat_retry_us = 0;
	if (c->nat_due)
		(void)sd_event_source_set_enabled(c->nat_due, SD_EVENT_OFF);
}

static void fail(struct controller *c, int r, char *why)
{
	bool first = !c->nat_reason;

	free(c->nat_reason);
	c->nat_reason = why ? why : strdup(strerror(-r));
	c->view.nat_reason = c->nat_reason ? c->nat_reason : "out of memory";
	/* Nothing stops what a Service leads elsewhere: no packet goes there unjudged. */
	if (first)
		devices_attach_later(c, 0);
	if (first)
		log_err(r, "what is to be masqueraded, and ports of the host, are not in force: %s", c->view.nat_reason);
	c->nat_retry_us = c->nat_retry_us ? 2 * c->nat_retry_us : RETRY_FIRST_US;
	if (c->nat_retry_us > RETRY_MAX_US)
		c->nat_retry_us = RETRY_MAX_US;
	again_in(c, c->nat_retry_us);
}

static void remove_table(struct controller *c, const char *table)
{
	int r;

	unwatch(c);
	forget_reason(c);
	c->view.nat_table = NULL;
	if (c->nat_cleared)
		return;
	r = nat_clear(table);
	c->nat_cleared = r == 0;
	if (r < 0)
		log_err(r, "cannot remove the table %s of nftables", table);
}

void nat_follow(struct controller *c, const struct object_list *all)
{
	__attribute__((cleanup(clear_content))) struct nat_content content;
	char *why = NULL;
	uint64_t hash;
	int r, watched = 0;

	if (!c->nat_table[0])
		nat_table(c->options->run_dir, c->nat_table);
	r = gather(c, all, &content);
	if (r == 0 && !content.n_from && !content.n_ports && !content.unjudged) {
		remove_table(c, c->nat_table);
		if (c->nat_cleared)
			forget_flows(c, &content);
		return;
	}
	c->view.nat_table = c->nat_table;
	hash = r == 0 ? hash_content(&content) : 0;
	if (hash && hash == c->nat_hash)
		return;
	if (r == 0) {
		/* ahead of the change; but why there can be none is better said by that */
		watched = watch(c, c->nat_table);
		r = nat_set(c->nat_table, &content, &why);
	}
	if (r == 0)
		r = watched;
	if (r < 0) {
		fail(c, r, why);
		return;
	}
	c->nat_cleared = false;
	forget_reason(c);
	forget_flows(c, &content);
	c->nat_hash = hash;
	/* one of these is ours; of more nobody knows which one was last */
	if (nft_watch_read(c->nat_watch) > 1)
		again_in(c, TOUCHED_US);
}

/* --- what the CNI plugin asks --- */

int nat_conflict(const struct object *port, const struct object *other, struct diag *diag)
{
	if (other->kind != OBJECT_PORT || object_compare(port, other) == 0)
		return 0;
	for (size_t i = 0; i < port->port.n_host_ports; i++)
		for (size_t j = 0; j < other->port.n_host_ports; j++)
			if (host_ports_overlap(&port->port.host_ports[i], &other->port.host_ports[j])) {
				diag_add(diag, NULL, 0, NULL, "port %u of the host leads to Port %s/%s already",
					port->port.host_ports[i].host_port, other->namespace_, other->name);
				return -EADDRINUSE;
			}
	return 0;
}

int nat_check(const struct controller *c, const struct object *port, struct diag *diag)
{
	if (!port->port.n_host_ports || !c->nat_reason)
		return 0;
	diag_add(diag, NULL, 0, NULL, "its ports of the host cannot be put in force: %s", c->nat_reason);
	return -EIO;
}

void nat_free(struct controller *c)
{
	sd_event_source_disable_unref(c->nat_due);
	unwatch(c);
	free(c->nat_reason);
	free(c->nat_ports);
}
