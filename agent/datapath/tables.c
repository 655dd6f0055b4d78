/* SPDX-License-Identifier: Apache-2.0 */
/* Tables: a delta is written where no packet looks, then one store makes it the policy. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <datapath/internal.h>

/* --- arrays --- */

/* An array is mapped as a whole for more writes than this, else the pages of each: a mapping costs a page table entry a page. */
#define WINDOW_WORTH 64

/* What is mapped of an array: length bytes from offset on. */
struct window {
	const struct map *map;
	uint8_t *base; /* NULL: nothing yet */
	size_t offset, length, stride;
	bool whole;
};

static void window_close(struct window *window)
{
	if (window->base)
		munmap(window->base, window->length);
	window->base = NULL;
}
#define _cleanup_window_ __attribute__((cleanup(window_close)))

static struct window window_new(const struct map *map, size_t writes)
{
	return (struct window){.map = map, .stride = (map->value_size + 7u) & ~7u, .whole = writes > WINDOW_WORTH};
}

/* The element, until the next call. NULL: errno says why. */
static void *window_at(struct window *window, uint32_t index)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), first = window->stride * index, end = first + window->stride;
	void *base;

	if (index >= window->map->max_entries) {
		errno = ENOSPC;
		return NULL;
	}
	if (!window->base || first < window->offset || end > window->offset + window->length) {
		window_close(window);
		window->offset = window->whole ? 0 : first & ~(page - 1);
		window->length = (window->whole ? window->stride * window->map->max_entries : end) - window->offset;
		window->length = (window->length + page - 1) & ~(page - 1);
		base = mmap(NULL, window->length, PROT_READ | PROT_WRITE, MAP_SHARED, window->map->fd, (off_t)window->offset);
		if (base == MAP_FAILED)
			return NULL;
		window->base = base;
	}
	return window->base + (first - window->offset);
}

static int window_write(struct window *window, uint32_t index, const void *value)
{
	void *at = window_at(window, index);

	if (!at)
		return -errno;
	memcpy(at, value, window->map->value_size);
	return 0;
}

#define DEFINE_WRITE_NODES(name, MAP, type) \
	static int name(const struct load *load, const struct type *writes, size_t n) \
	{ \
		struct window window _cleanup_window_ = window_new(&load->maps[MAP], n); \
		int r = 0; \
\
		for (size_t i = 0; i < n && r == 0; i++) \
			r = window_write(&window, writes[i].id, &writes[i].node); \
		return r; \
	}
DEFINE_WRITE_NODES(write_addr4_nodes, MAP_ADDR4_NODES, addr4_node_write)
DEFINE_WRITE_NODES(write_addr4_tables, MAP_ADDR4_TABLES, addr4_table_write)
DEFINE_WRITE_NODES(write_addr6_nodes, MAP_ADDR6_NODES, addr6_node_write)
DEFINE_WRITE_NODES(write_rule_nodes, MAP_RULE_NODES, rule_node_write)

/* --- classes --- */

/*
 * The entry that is not in force: packets that could still look at it are gone (grace_wait). Packets of the generation in force read
 * its generation meanwhile, so that is one store, and the last.
 */
static void class_put(struct hd_class *class, uint32_t live, const struct hd_class_rules *rules)
{
	int now = hd_class_rules_at(class, live);
	struct hd_class_rules *to = &class->rules[now < 0 ? 0 : !now];

	to->set = rules->set;
	to->value = rules->value;
	to->first = rules->first;
	to->last = rules->last;
	to->order = rules->order;
	__atomic_store_n(&to->generation, rules->generation, __ATOMIC_RELEASE);
}

static int write_classes(const struct load *load, const struct class_write *writes, size_t n)
{
	struct window window _cleanup_window_ = window_new(&load->maps[MAP_CLASSES], n);

	for (size_t i = 0; i < n; i++) {
		struct hd_class *class = window_at(&window, writes[i].id);

		if (!class)
			return -errno;
		class_put(class, load->control->generation, &writes[i].rules);
	}
	return 0;
}

/* --- rules --- */

static int reset_counters(struct load *load, const struct rule_write *rules, size_t n)
{
	const struct map *map = &load->maps[MAP_RULE_COUNTERS];
	int cpus = libbpf_num_possible_cpus();
	_cleanup_free_ struct hd_counter *zeros = NULL;

	if (cpus < 1)
		return cpus;
	zeros = calloc((size_t)cpus, sizeof(*zeros));
	if (!zeros)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		uint32_t id = rules[i].id;

		if (!rules[i].reset)
			continue;
		if (id >= map->max_entries)
			return -ENOSPC;
		if (load->reset)
			load->reset[id / 8] |= (uint8_t)(1 << id % 8);
		/* A map that no program has counted in yet holds zeros. */
		if (map->fresh && !load->attached)
			continue;
		if (bpf_map_update_elem(map->fd, &id, zeros, BPF_ANY) < 0)
			return -errno;
	}
	return 0;
}

static int write_rules(struct load *load, const struct rule_write *rules, size_t n)
{
	struct window window _cleanup_window_ = window_new(&load->maps[MAP_RULES], n);
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++)
		r = window_write(&window, rules[i].id, &rules[i].info);
	return r < 0 ? r : reset_counters(load, rules, n);
}

int datapath_write(struct datapath *dp, const struct policy_delta *delta)
{
	struct load *load = load_writable(dp);
	int r;

	if (!load)
		return -ENOTCONN;
	/* The entries that are written, of classes here and of ports later, are those of the generation before the live one. */
	r = grace_wait(dp);
	if (r < 0)
		return r;
	r = write_addr4_nodes(load, delta->addr4_nodes, delta->n_addr4_nodes);
	if (r == 0)
		r = write_addr4_tables(load, delta->addr4_tables, delta->n_addr4_tables);
	if (r == 0)
		r = write_addr6_nodes(load, delta->addr6_nodes, delta->n_addr6_nodes);
	if (r == 0)
		r = write_classes(load, delta->classes, delta->n_classes);
	if (r == 0)
		r = write_rule_nodes(load, delta->rule_nodes, delta->n_rule_nodes);
	if (r == 0)
		r = write_rules(load, delta->rules, delta->n_rules);
	return r < 0 ? log_err(r, "cannot write the policy tables") : 0;
}

/* --- port records --- */

/* The array holds the record unless another device had the slot when it was made. -ENOENT: none; fd and key say where it belongs. */
static int port_find(const struct load *load, uint32_t ifindex, struct hd_port *ret, int *ret_fd, uint32_t *ret_key)
{
	/* of the map, which an agent with another number of slots may have made */
	uint32_t slot = ifindex & (load->maps[MAP_PORTS].max_entries - 1);
	int array = load->maps[MAP_PORTS].fd, hash = load->maps[MAP_PORTS_HASH].fd;
	bool slot_free, found;

	if (bpf_map_lookup_elem(array, &slot, ret) < 0)
		return -errno;
	slot_free = ret->ifindex == 0;
	*ret_fd = array;
	*ret_key = slot;
	if (ret->ifindex == ifindex)
		return 0;
	found = bpf_map_lookup_elem(hash, &ifindex, ret) == 0;
	if (found || !slot_free) {
		*ret_fd = hash;
		*ret_key = ifindex;
	}
	return found ? 0 : -ENOENT;
}

static int port_store(int fd, uint32_t key, const struct hd_port *port)
{
	return bpf_map_update_elem(fd, &key, port, BPF_ANY) < 0 ? -errno : 0;
}

/*
 * Puts the policy into the slot that does not hold now. Its generation lies ahead of the live one or equals it, and packets that could
 * still look at what the slot held are gone (grace_wait), so the record may be written in any order.
 */
static void port_put_policy(struct hd_port *port, uint32_t generation, const struct hd_port_policy *policy)
{
	int now = hd_port_policy_at(port, generation);

	for (int i = 0; i < 2; i++)
		if (port->policy[i].generation == policy->generation) {
			port->policy[i] = *policy;
			return;
		}
	port->policy[now < 0 ? 0 : !now] = *policy;
}

int port_write(struct load *load, const struct hd_port *fixed, const struct hd_port_policy *policy)
{
	struct hd_port port, before;
	uint32_t key = 0;
	int fd = -1, r = port_find(load, fixed->ifindex, &before, &fd, &key);

	if (r < 0 && r != -ENOENT)
		return r;
	port = *fixed;
	memset(port.policy, 0, sizeof(port.policy));
	if (r == 0)
		memcpy(port.policy, before.policy, sizeof(port.policy));
	port.moved = r == 0 ? before.moved : 0;
	if (policy)
		port_put_policy(&port, load->control->generation, policy);
	return port_store(fd, key, &port);
}

int port_read(const struct load *load, uint32_t ifindex, struct hd_port *ret)
{
	uint32_t key = 0;
	int fd = -1;

	return port_find(load, ifindex, ret, &fd, &key);
}

int port_set_moved(struct load *load, uint32_t ifindex, uint32_t tick)
{
	struct hd_port port;
	uint32_t key = 0;
	int fd = -1, r = port_find(load, ifindex, &port, &fd, &key);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	port.moved = tick ? tick : 1;
	return port_store(fd, key, &port);
}

int port_set_flags(struct load *load, uint32_t ifindex, uint16_t set, uint16_t clear)
{
	struct hd_port port;
	uint32_t key = 0;
	int fd = -1, r = port_find(load, ifindex, &port, &fd, &key);

	if (r < 0)
		return r;
	port.flags = (uint16_t)((port.flags & ~clear) | set);
	return port_store(fd, key, &port);
}

int port_clear(struct load *load, uint32_t ifindex)
{
	struct hd_port port;
	uint32_t key = 0;
	int fd = -1, r = port_find(load, ifindex, &port, &fd, &key);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	if (fd == load->maps[MAP_PORTS_HASH].fd)
		return bpf_map_delete_elem(fd, &key) < 0 ? -errno : 0;
	memset(&port, 0, sizeof(port));
	return port_store(fd, key, &port);
}

/* --- the switch --- */

static int publish_record(struct load *load, uint32_t ifindex, const struct hd_port_policy *policy)
{
	struct hd_port port;
	uint32_t key = 0;
	int fd = -1;

	if (port_find(load, ifindex, &port, &fd, &key) < 0)
		return 0; /* attached later, with its policy */
	port_put_policy(&port, load->control->generation, policy);
	return port_store(fd, key, &port);
}

static int publish_ports(
	struct datapath *dp, struct load *load, const struct policy_delta *delta, const struct topology *topology)
{
	for (size_t i = 0; topology && i < delta->n_ports; i++) {
		const struct topology_port *port =
			delta->ports[i].changed ? topology_find_port(topology, delta->ports[i].port) : NULL;
		struct attached *at = port && port->ifindex ? attached_by_ifindex(dp, port->ifindex) : NULL;
		int r = port && port->ifindex ? publish_record(load, port->ifindex, &delta->ports[i].policy) : 0;

		if (r < 0)
			return log_err(r, "cannot write the record of %s", port->device);
		if (at)
			at->record.policy[0] = delta->ports[i].policy;
	}
	return 0;
}

/* As port_put_policy(): the slot that does not hold now, or that an attempt before this one wrote. */
static void publish_roots(struct load *load, const struct policy_delta *delta)
{
	for (size_t i = 0; i < delta->n_networks; i++) {
		struct hd_roots *slots = load->networks[delta->networks[i].index].roots;
		const struct hd_roots *roots = &delta->networks[i].roots;
		int now = hd_network_roots_at(&load->networks[delta->networks[i].index], load->control->generation);

		if (!delta->networks[i].changed)
			continue;
		if (slots[0].generation == roots->generation || slots[1].generation == roots->generation)
			slots[slots[1].generation == roots->generation] = *roots;
		else
			slots[now < 0 ? 0 : !now] = *roots;
	}
}

int datapath_publish(struct datapath *dp, const struct policy_delta *delta, const struct topology *topology)
{
	struct load *load = load_writable(dp);
	uint32_t before;
	int r = 0;

	if (!load)
		return -ENOTCONN;
	before = load->control->generation;
	if (before && ((before ^ delta->generation) & 1) == 0)
		return log_err(-EINVAL, "generation %u cannot follow %u", delta->generation, before);
	for (size_t i = 0; i < delta->n_networks && r == 0; i++)
		r = networks_reach(load, delta->networks[i].index + 1u);
	for (size_t i = 0; i < delta->n_uplinks && r == 0; i++) {
		const struct attached *at = attached_by_device(dp, delta->uplinks[i].device);

		r = at && at->role == ROLE_UPLINK ? publish_record(load, at->ifindex, &delta->uplinks[i].policy) : 0;
		if (r < 0)
			return log_err(r, "cannot write the record of %s", at->device);
	}
	if (r == 0)
		r = publish_ports(dp, load, delta, topology);
	if (r < 0)
		return r;
	publish_roots(load, delta);
	load->control->roots[delta->generation & 1] = delta->roots;
	/* Whoever sees the new generation sees everything that was written for it. */
	__atomic_store_n(&load->control->generation, delta->generation, __ATOMIC_RELEASE);
	dp->last_generation = delta->generation;
	dp->grace_pending = before != 0 && load->attached;
	return 0;
}

int datapath_settle(struct datapath *dp)
{
	return grace_wait(dp);
}
