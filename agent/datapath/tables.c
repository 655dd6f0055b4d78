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

/* Up to so many elements one call each is cheaper than mapping the array (a page table entry for each of its pages). */
#define WINDOW_WORTH 64

struct window {
	uint8_t *base; /* NULL: written by calls */
	size_t length, stride;
	const struct map *map;
};

static int window_open(const struct map *map, size_t writes, struct window *ret)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	void *base;

	*ret = (struct window){.map = map, .stride = (map->value_size + 7u) & ~7u};
	if (writes <= WINDOW_WORTH)
		return 0;
	ret->length = (ret->stride * map->max_entries + page - 1) & ~(page - 1);
	base = mmap(NULL, ret->length, PROT_READ | PROT_WRITE, MAP_SHARED, map->fd, 0);
	if (base == MAP_FAILED)
		return -errno;
	ret->base = base;
	return 0;
}

static int window_write(struct window *window, uint32_t index, const void *value)
{
	if (index >= window->map->max_entries)
		return -ENOSPC;
	if (window->base) {
		memcpy(window->base + window->stride * index, value, window->map->value_size);
		return 0;
	}
	return bpf_map_update_elem(window->map->fd, &index, value, BPF_ANY) < 0 ? -errno : 0;
}

static void window_close(struct window *window)
{
	if (window->base)
		munmap(window->base, window->length);
}
#define _cleanup_window_ __attribute__((cleanup(window_close)))

#define DEFINE_WRITE_NODES(name, MAP, type) \
	static int name(const struct load *load, const struct type *writes, size_t n) \
	{ \
		struct window window _cleanup_window_ = {0}; \
		int r = window_open(&load->maps[MAP], n, &window); \
\
		for (size_t i = 0; i < n && r == 0; i++) \
			r = window_write(&window, writes[i].id, &writes[i].node); \
		return r; \
	}
DEFINE_WRITE_NODES(write_addr_nodes, MAP_ADDR_NODES, addr_node_write)
DEFINE_WRITE_NODES(write_rule_nodes, MAP_RULE_NODES, rule_node_write)

/* --- rows of class_rules --- */

#define ROW_BATCH 4096u

static int update_rows(int fd, const struct class_row_write *rows, size_t n)
{
	_cleanup_free_ struct hd_class_key *keys = NULL;
	_cleanup_free_ struct hd_class_rules *values = NULL;
	size_t batch = n < ROW_BATCH ? n : ROW_BATCH;

	if (n == 0)
		return 0;
	keys = malloc(batch * sizeof(*keys));
	values = malloc(batch * sizeof(*values));
	if (!keys || !values)
		return -ENOMEM;
	for (size_t done = 0; done < n;) {
		uint32_t count = (uint32_t)(n - done < batch ? n - done : batch);

		for (uint32_t i = 0; i < count; i++) {
			keys[i] = rows[done + i].key;
			values[i] = rows[done + i].value;
		}
		if (bpf_map_update_batch(fd, keys, values, &count, NULL) < 0)
			return errno == E2BIG ? -ENOSPC : -errno;
		done += count;
	}
	return 0;
}

/*
 * A row that stays behind would come into force with whatever is published next under the same generation. Its value before
 * is what it calls previous.
 */
static void undo_rows(int fd, const struct class_row_write *rows, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct hd_class_rules value = rows[i].value;

		if (value.previous == 0) {
			(void)bpf_map_delete_elem(fd, &rows[i].key);
			continue;
		}
		value.root = value.previous;
		(void)bpf_map_update_elem(fd, &rows[i].key, &value, BPF_EXIST);
	}
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
	struct window window _cleanup_window_ = {0};
	int r = window_open(&load->maps[MAP_RULES], n, &window);

	for (size_t i = 0; i < n && r == 0; i++)
		r = window_write(&window, rules[i].id, &rules[i].info);
	return r < 0 ? r : reset_counters(load, rules, n);
}

int datapath_write(struct datapath *dp, const struct policy_delta *delta)
{
	struct load *load = load_writable(dp);
	int rows, r;

	if (!load)
		return -ENOTCONN;
	rows = load->maps[MAP_CLASS_RULES].fd;
	r = write_addr_nodes(load, delta->addr_nodes, delta->n_addr_nodes);
	if (r == 0)
		r = write_rule_nodes(load, delta->rule_nodes, delta->n_rule_nodes);
	if (r == 0)
		r = write_rules(load, delta->rules, delta->n_rules);
	if (r < 0)
		return log_err(r, "cannot write the policy tables");
	r = update_rows(rows, delta->rows, delta->n_rows);
	if (r < 0) {
		undo_rows(rows, delta->rows, delta->n_rows);
		return log_err(r, "cannot write the policy's class rules");
	}
	return 0;
}

/* --- port records --- */

/* The array holds the record unless another device had the slot when it was made. -ENOENT: none; fd and key say where it belongs. */
static int port_find(const struct load *load, uint32_t ifindex, struct hd_port *ret, int *ret_fd, uint32_t *ret_key)
{
	uint32_t slot = ifindex & (HD_PORT_SLOTS - 1);
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
	uint32_t key;
	int fd;

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

static int publish_ports(struct load *load, const struct policy_delta *delta, const struct topology *topology)
{
	for (size_t i = 0; topology && i < delta->n_ports; i++) {
		const struct topology_port *port =
			delta->ports[i].changed ? topology_find_port(topology, delta->ports[i].port) : NULL;
		int r = port && port->ifindex ? publish_record(load, port->ifindex, &delta->ports[i].policy) : 0;

		if (r < 0)
			return log_err(r, "cannot write the record of %s", port->device);
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
	int r;

	if (!load)
		return -ENOTCONN;
	before = load->control->generation;
	if (before && ((before ^ delta->generation) & 1) == 0)
		return log_err(-EINVAL, "generation %u cannot follow %u", delta->generation, before);
	/* The slots written here are those of the generation before the live one: no packet may read them any more. */
	r = grace_wait(dp);
	for (size_t i = 0; i < delta->n_uplinks && r == 0; i++) {
		const struct attached *at = attached_by_device(dp, delta->uplinks[i].device);

		r = at && at->role == ROLE_UPLINK ? publish_record(load, at->ifindex, &delta->uplinks[i].policy) : 0;
		if (r < 0)
			return log_err(r, "cannot write the record of %s", at->device);
	}
	if (r == 0)
		r = publish_ports(load, delta, topology);
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

int datapath_settle(struct datapath *dp, const struct policy_delta *delta)
{
	struct load *load = load_writable(dp);
	int r;

	if (!load)
		return -ENOTCONN;
	r = grace_wait(dp);
	if (r < 0)
		return r;
	for (size_t i = 0; i < delta->n_row_deletes; i++)
		if (bpf_map_delete_elem(load->maps[MAP_CLASS_RULES].fd, &delta->row_deletes[i]) < 0 && errno != ENOENT)
			return log_err(-errno, "cannot delete a class rule");
	return 0;
}
