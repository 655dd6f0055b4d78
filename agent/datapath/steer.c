/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fast paths: which packets go to AF_XDP sockets. The maps outlive the agent, so that a consumer keeps its packets without one; each call makes them,
 * the flag in uplinks' records and the programs at far ends of ports' veths and on ports of workers what they shall be, whatever was there before. Matches come before
 * what leads to them, and go after it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <linux/if_link.h>
#include <net/if.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <datapath/internal.h>

#define FAST_DIRECTORY "fast" /* pins of links at far ends and on ports, by ifindex */

struct far_end {
	uint32_t ifindex;
	int link;
	int program;	/* fd that it was updated to; -1: not by us */
	unsigned which; /* PROGRAM_* of that */
	bool generic;
	bool wanted;
};

/* --- rows --- */

struct steer_tables {
	uint32_t *ifindexes;
	struct hd_fast_device *devices;
	size_t n_devices;
	struct hd_match_key *keys;
	struct hd_match *matches;
	size_t n_matches;
	uint32_t *forward_ifindexes;
	struct hd_fast_forward *forwards;
	size_t n_forwards;
};

static void tables_free(struct steer_tables *tables)
{
	free(tables->ifindexes);
	free(tables->devices);
	free(tables->keys);
	free(tables->matches);
	free(tables->forward_ifindexes);
	free(tables->forwards);
}

static void mask_of(struct hd_addr *mask, uint8_t bits)
{
	for (unsigned i = 0; i < sizeof(mask->b); i++) {
		unsigned left = bits > 8 * i ? bits - 8 * i : 0;

		mask->b[i] = left >= 8 ? 0xff : (uint8_t)(0xff00 >> left);
	}
}

static struct hd_match_shape shape_of(const struct datapath_match *match)
{
	struct hd_match_shape shape = {0};

	shape.fields = (match->has_rule ? HD_MATCH_RULE : 0) | (match->protocol ? HD_MATCH_PROTOCOL : 0) |
		       (match->source_port ? HD_MATCH_SPORT : 0) | (match->destination_port ? HD_MATCH_DPORT : 0) |
		       (match->vlan ? HD_MATCH_VLAN : 0);
	mask_of(&shape.source, match->source.length);
	mask_of(&shape.destination, match->destination.length);
	shape.id = HD_MATCH_SHAPE(shape.fields, (uint32_t)match->source.length, (uint32_t)match->destination.length);
	return shape;
}

/* The more it asks about the narrower it is: bits of addresses, and 32 for each field. */
static unsigned narrowness(const struct hd_match_shape *shape)
{
	return (shape->id >> 8 & 0xff) + (shape->id >> 16) + 32 * (unsigned)__builtin_popcount(shape->fields);
}

static int compare_shapes(const void *a, const void *b)
{
	const struct hd_match_shape *x = a, *y = b;
	unsigned m = narrowness(x), n = narrowness(y);

	if (m != n)
		return m > n ? -1 : 1;
	return (x->id > y->id) - (x->id < y->id);
}

static int add_shape(struct hd_fast_device *device, const struct hd_match_shape *shape)
{
	for (uint32_t i = 0; i < device->shapes; i++)
		if (device->shape[i].id == shape->id)
			return 0;
	if (device->shapes == HD_FAST_SHAPES)
		return -E2BIG;
	device->shape[device->shapes++] = *shape;
	return 0;
}

static struct hd_fast_device *device_row(struct steer_tables *tables, uint32_t ifindex)
{
	for (size_t i = 0; i < tables->n_devices; i++)
		if (tables->ifindexes[i] == ifindex)
			return &tables->devices[i];
	tables->ifindexes[tables->n_devices] = ifindex;
	return &tables->devices[tables->n_devices++];
}

static uint16_t add_forward(struct steer_tables *tables, const struct datapath_fast_path *path)
{
	struct hd_fast_forward *row = &tables->forwards[tables->n_forwards];

	tables->forward_ifindexes[tables->n_forwards++] = path->ifindex;
	*row = (struct hd_fast_forward){.index = path->index,
		.group = path->group,
		.flags = (uint16_t)((path->drop ? HD_FAST_DROP : 0) | (path->stamp ? HD_FAST_STAMP : 0) |
				    (path->uplink ? 0 : HD_FAST_PORT) | (path->inside ? HD_FAST_INSIDE : 0) |
				    (path->direct ? HD_FAST_DIRECT : 0) |
				    (path->direct && path->direct_several ? HD_FAST_DIRECT_SEVERAL : 0))};
	memcpy(row->mac, path->mac, sizeof(row->mac));
	return HD_FAST_FORWARD;
}

static int make_tables(const struct datapath_fast_path *paths, size_t n, struct steer_tables *tables)
{
	size_t matches = 0;

	for (size_t i = 0; i < n; i++)
		matches += paths[i].n_matches;
	if (n > HD_FAST_PATHS || matches > HD_FAST_MATCHES)
		return -E2BIG;
	tables->ifindexes = calloc(n + 1, sizeof(*tables->ifindexes));
	tables->devices = calloc(n + 1, sizeof(*tables->devices));
	tables->keys = calloc(matches + 1, sizeof(*tables->keys));
	tables->matches = calloc(matches + 1, sizeof(*tables->matches));
	tables->forward_ifindexes = calloc(n + 1, sizeof(*tables->forward_ifindexes));
	tables->forwards = calloc(n + 1, sizeof(*tables->forwards));
	if (!tables->ifindexes || !tables->devices || !tables->keys || !tables->matches || !tables->forward_ifindexes ||
		!tables->forwards)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		const struct datapath_fast_path *path = &paths[i];
		struct hd_fast_device *device = device_row(tables, path->ifindex);
		uint16_t flags = path->drop ? HD_FAST_DROP : 0;

		if (path->forward)
			flags |= add_forward(tables, path);
		if (!path->uplink && !path->forward) {
			device->index = path->index;
			device->flags = flags;
		}
		for (size_t j = 0; j < path->n_matches; j++) {
			const struct datapath_match *match = &path->matches[j];
			struct hd_match_shape shape = shape_of(match);
			struct hd_match_key *key = &tables->keys[tables->n_matches];
			int r = add_shape(device, &shape);

			if (r < 0)
				return r;
			*key = (struct hd_match_key){.ifindex = path->ifindex,
				.shape = shape.id,
				.source = match->source.addr,
				.destination = match->destination.addr,
				.rule = match->has_rule ? match->rule : 0,
				.sport = htons(match->source_port),
				.dport = htons(match->destination_port),
				.vlan = match->vlan,
				.protocol = match->protocol};
			tables->matches[tables->n_matches++] = (struct hd_match){.index = path->index, .flags = flags};
		}
	}
	for (size_t i = 0; i < tables->n_devices; i++)
		qsort(tables->devices[i].shape, tables->devices[i].shapes, sizeof(struct hd_match_shape), compare_shapes);
	return 0;
}

/* Rows of a map whose keys are not among these go. */
static int remove_others(int fd, size_t key_size, const void *keys, size_t n)
{
	uint8_t key[sizeof(struct hd_match_key)], next[sizeof(struct hd_match_key)];
	bool more = bpf_map_get_next_key(fd, NULL, next) == 0;

	while (more) {
		bool known = false;

		memcpy(key, next, key_size);
		more = bpf_map_get_next_key(fd, key, next) == 0;
		for (size_t i = 0; i < n && !known; i++)
			known = memcmp(key, (const uint8_t *)keys + i * key_size, key_size) == 0;
		if (!known && bpf_map_delete_elem(fd, key) < 0 && errno != ENOENT)
			return -errno;
	}
	return 0;
}

static int write_rows(int fd, const void *keys, size_t key_size, const void *values, size_t value_size, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (bpf_map_update_elem(
			    fd, (const uint8_t *)keys + i * key_size, (const uint8_t *)values + i * value_size, BPF_ANY) < 0)
			return -errno;
	return 0;
}

bool steer_at(const struct load *load, uint32_t ifindex)
{
	struct hd_fast_device device;
	int fd = load->maps[MAP_FAST_DEVICES].fd;

	return fd >= 0 && bpf_map_lookup_elem(fd, &ifindex, &device) == 0;
}

/* --- exits --- */

/* Ahead of the rows that lead to them; what is there already is left alone. */
static void add_exits(struct load *load, struct datapath_fast_path *paths, size_t n)
{
	int fd = load->maps[MAP_FAST_EXITS].fd;

	for (size_t i = 0; i < n; i++) {
		uint32_t there = 0;

		if (!paths[i].direct)
			continue;
		if (bpf_map_lookup_elem(fd, &paths[i].ifindex, &there) == 0 && there == paths[i].ifindex)
			continue;
		paths[i].direct = bpf_map_update_elem(fd, &paths[i].ifindex, &paths[i].ifindex, BPF_ANY) == 0;
	}
}

/* Once no row leads to them. */
static int remove_exits(struct load *load, const struct datapath_fast_path *paths, size_t n)
{
	uint32_t ifindexes[HD_FAST_PATHS];
	size_t n_ifindexes = 0;

	for (size_t i = 0; i < n; i++)
		if (paths[i].direct)
			ifindexes[n_ifindexes++] = paths[i].ifindex;
	return remove_others(load->maps[MAP_FAST_EXITS].fd, sizeof(*ifindexes), ifindexes, n_ifindexes);
}

/* --- far ends --- */

static struct far_end *far_end_of(struct datapath *dp, uint32_t ifindex)
{
	for (size_t i = 0; i < dp->n_far_ends; i++)
		if (dp->far_ends[i].ifindex == ifindex)
			return &dp->far_ends[i];
	return NULL;
}

static struct far_end *far_end_add(struct datapath *dp, uint32_t ifindex)
{
	struct far_end *grown = reallocarray(dp->far_ends, dp->n_far_ends + 1, sizeof(*grown));

	if (!grown)
		return NULL;
	dp->far_ends = grown;
	grown = &grown[dp->n_far_ends++];
	*grown = (struct far_end){.ifindex = ifindex, .link = -1, .program = -1};
	return grown;
}

static void far_end_pin(char name[16], uint32_t ifindex)
{
	snprintf(name, 16, "%u", ifindex);
}

static void far_end_release(struct datapath *dp, size_t i)
{
	struct far_end *end = &dp->far_ends[i];
	char name[16];

	far_end_pin(name, end->ifindex);
	(void)bpf_link_detach(end->link);
	pin_remove(dp->bpffs, FAST_DIRECTORY, name);
	safe_close(end->link);
	*end = dp->far_ends[--dp->n_far_ends];
}

static int adopt_far_end(const char *path, const char *name, void *userdata)
{
	_cleanup_close_ int fd = bpf_obj_get(path);
	struct datapath *dp = userdata;
	struct far_end *end;
	enum link_kind kind;
	uint32_t ifindex = 0, program = 0, flags = 0;

	(void)name;
	if (fd < 0 || link_inspect(fd, &kind, &ifindex, &program) < 0 || kind != LINK_XDP || ifindex == 0 ||
		far_end_of(dp, ifindex)) {
		(void)unlink(path);
		return 0;
	}
	end = far_end_add(dp, ifindex);
	if (!end)
		return -ENOMEM;
	end->link = TAKE_FD(fd);
	end->generic = xdp_mode_of(ifindex, program, &flags) == 0 && flags == XDP_FLAGS_SKB_MODE;
	return 0;
}

int steer_adopt(struct datapath *dp)
{
	return pin_each(dp->bpffs, FAST_DIRECTORY, adopt_far_end, dp);
}

void steer_close(struct datapath *dp)
{
	for (size_t i = 0; i < dp->n_far_ends; i++)
		safe_close(dp->far_ends[i].link);
	free(dp->far_ends);
}

static bool link_lives(int link, uint32_t ifindex)
{
	enum link_kind kind;
	uint32_t at = 0, program;

	return link_inspect(link, &kind, &at, &program) == 0 && at == ifindex;
}

/*
 * which: without the flag for several buffers; with_flag: the same with it, or that one once more. Generic XDP has the one without, always: the kernel then
 * makes one buffer of the packet.
 */
static int attach_far_end(struct datapath *dp, struct load *load, uint32_t ifindex, unsigned which, unsigned with_flag)
{
	const struct {
		uint32_t mode;
		unsigned which;
	} ways[] = {{XDP_FLAGS_DRV_MODE, with_flag}, {XDP_FLAGS_DRV_MODE, which}, {XDP_FLAGS_SKB_MODE, which}};
	struct far_end *end = far_end_of(dp, ifindex);
	int program, r = -EOPNOTSUPP;
	char name[16];

	if (end && !link_lives(end->link, ifindex)) {
		far_end_release(dp, (size_t)(end - dp->far_ends));
		end = NULL;
	}
	if (end) {
		end->wanted = true;
		end->which = end->generic ? which : with_flag;
		program = load->program[end->which];
		if (end->program == program)
			return 0;
		if (bpf_link_update(end->link, program, NULL) < 0)
			return -errno;
		end->program = program;
		return 0;
	}
	if (xdp_foreign(ifindex, 0))
		return -EBUSY;
	end = far_end_add(dp, ifindex);
	if (!end)
		return -ENOMEM;
	for (size_t i = 0; i < ARRAY_SIZE(ways) && end->link < 0; i++) {
		LIBBPF_OPTS(bpf_link_create_opts, opts, .flags = ways[i].mode);

		end->program = load->program[ways[i].which];
		end->which = ways[i].which;
		end->link = bpf_link_create(end->program, (int)ifindex, BPF_XDP, &opts);
		end->generic = ways[i].mode == XDP_FLAGS_SKB_MODE;
		r = end->link < 0 ? -errno : 0;
	}
	far_end_pin(name, ifindex);
	if (r == 0)
		r = pin_over(dp->bpffs, FAST_DIRECTORY, name, end->link);
	if (r < 0) {
		safe_close(end->link);
		dp->n_far_ends--;
		return r;
	}
	end->wanted = true;
	return 0;
}

static bool is_switch(unsigned which)
{
	return which == PROGRAM_XDP_SWITCH || which == PROGRAM_XDP_SWITCH_SEVERAL;
}

void steer_follow(struct datapath *dp, struct load *load, uint32_t ifindex)
{
	struct far_end *end = far_end_of(dp, ifindex);

	if (!end || (end->program >= 0 && !is_switch(end->which)))
		return;
	/* which form an earlier agent took is not known: a veth of a large MTU takes one only */
	for (unsigned which = PROGRAM_XDP_SWITCH; which <= PROGRAM_XDP_SWITCH_SEVERAL; which++) {
		if (end->program >= 0 && end->which != which)
			continue;
		if (load_steer(load, which) < 0 || bpf_link_update(end->link, load->program[which], NULL) < 0)
			continue;
		end->which = which;
		end->program = load->program[which];
		return;
	}
	/* without it, what it would have taken goes by the port's other programs */
	far_end_release(dp, (size_t)(end - dp->far_ends));
}

/* The first error; those that are not wanted any more go. */
static int attach_far_ends(struct datapath *dp, struct load *load, struct datapath_fast_path *paths, size_t n)
{
	int first_error = 0;

	for (size_t i = 0; i < dp->n_far_ends; i++)
		dp->far_ends[i].wanted = false;
	for (size_t i = 0; i < n; i++) {
		unsigned which = paths[i].forward ? PROGRAM_XDP_SWITCH : PROGRAM_XDP_PORT, with_flag = which;
		const struct far_end *end;
		int r;

		if (paths[i].uplink)
			continue;
		if (paths[i].several)
			with_flag = paths[i].forward ? PROGRAM_XDP_SWITCH_SEVERAL : PROGRAM_XDP_PORT_SEVERAL;
		r = load_steer(load, which);
		if (r == 0)
			r = load_steer(load, with_flag);
		if (r < 0)
			return r;
		paths[i].error = attach_far_end(dp, load, paths[i].ifindex, which, with_flag);
		end = far_end_of(dp, paths[i].ifindex);
		paths[i].generic = end && end->generic;
		if (paths[i].error < 0 && first_error == 0)
			first_error = paths[i].error;
	}
	for (size_t i = dp->n_far_ends; i-- > 0;)
		if (!dp->far_ends[i].wanted)
			far_end_release(dp, i);
	return first_error;
}

/* --- names --- */

static int forget_index(struct datapath *dp, const struct load *load, uint16_t index)
{
	int cpus = libbpf_num_possible_cpus();
	_cleanup_free_ struct hd_counter *zeros = cpus < 1 ? NULL : calloc((size_t)cpus, sizeof(*zeros));

	if (!zeros)
		return -ENOMEM;
	for (uint32_t what = 0; what < HD_FAST_TOTALS; what++) {
		uint32_t key = HD_FAST_COUNTER((uint32_t)index, what);

		if (bpf_map_update_elem(load->maps[MAP_FAST_COUNTERS].fd, &key, zeros, BPF_ANY) < 0)
			return -errno;
	}
	if (bpf_map_update_elem(load->maps[MAP_FAST_REDIRECTS].fd, &(uint32_t){index}, zeros, BPF_ANY) < 0)
		return -errno;
	return datapath_fast_room(dp, index, NULL);
}

static bool is_name(const struct hd_fast_name *record, const char *name)
{
	return record->name[0] && strncmp(record->name, name, sizeof(record->name)) == 0;
}

int datapath_fast_indexes(struct datapath *dp, const char *const *names, size_t n, uint16_t *ret)
{
	struct load *load = load_writable(dp);
	struct hd_fast_name known[HD_FAST_PATHS];
	bool used[HD_FAST_PATHS] = {false}, found[HD_FAST_PATHS] = {false};

	if (!load)
		return -ENOTCONN;
	if (n > HD_FAST_PATHS)
		return -E2BIG;
	for (uint32_t i = 0; i < HD_FAST_PATHS; i++) {
		if (bpf_map_lookup_elem(load->maps[MAP_FAST_NAMES].fd, &i, &known[i]) < 0)
			return -errno;
		for (size_t j = 0; j < n && !used[i]; j++)
			if (!found[j] && is_name(&known[i], names[j])) {
				used[i] = found[j] = true;
				ret[j] = (uint16_t)i;
			}
	}
	for (size_t j = 0; j < n; j++)
		for (uint32_t i = 0; i < HD_FAST_PATHS && !found[j]; i++) {
			struct hd_fast_name record = {0};
			int r;

			if (used[i])
				continue;
			used[i] = found[j] = true;
			ret[j] = (uint16_t)i;
			snprintf(record.name, sizeof(record.name), "%s", names[j]);
			r = forget_index(dp, load, ret[j]);
			if (r < 0)
				return r;
			if (bpf_map_update_elem(load->maps[MAP_FAST_NAMES].fd, &i, &record, BPF_ANY) < 0)
				return -errno;
		}
	return 0;
}

/* --- all of it --- */

/* Of all uplinks: whoever has none any more is left alone by packets before its rows go. */
static int set_flags(struct datapath *dp, struct load *load, const struct steer_tables *tables, bool on)
{
	for (size_t i = 0; i < dp->n_attached; i++) {
		const struct attached *at = &dp->attached[i];
		bool wanted = false;
		int r;

		if (at->role != ROLE_UPLINK)
			continue;
		for (size_t j = 0; j < tables->n_devices; j++)
			wanted |= tables->ifindexes[j] == at->ifindex;
		if (wanted != on)
			continue;
		r = port_set_flags(load, at->ifindex, on ? HD_PORT_FAST : 0, on ? 0 : HD_PORT_FAST);
		if (r < 0 && r != -ENOENT)
			return r;
	}
	return 0;
}

int datapath_steer(struct datapath *dp, struct datapath_fast_path *paths, size_t n)
{
	struct load *load = load_writable(dp);
	struct steer_tables tables __attribute__((cleanup(tables_free))) = {0};
	int devices, matches, forwards, r, ends;

	if (!load)
		return -ENOTCONN;
	if (n > HD_FAST_PATHS)
		return -E2BIG;
	add_exits(load, paths, n);
	r = make_tables(paths, n, &tables);
	if (r < 0)
		return r;
	devices = load->maps[MAP_FAST_DEVICES].fd;
	matches = load->maps[MAP_FAST_MATCHES].fd;
	forwards = load->maps[MAP_FAST_FORWARDS].fd;
	r = set_flags(dp, load, &tables, false);
	if (r == 0)
		r = write_rows(forwards, tables.forward_ifindexes, sizeof(*tables.forward_ifindexes), tables.forwards,
			sizeof(*tables.forwards), tables.n_forwards);
	if (r == 0)
		r = write_rows(
			matches, tables.keys, sizeof(*tables.keys), tables.matches, sizeof(*tables.matches), tables.n_matches);
	if (r == 0)
		r = write_rows(devices, tables.ifindexes, sizeof(*tables.ifindexes), tables.devices, sizeof(*tables.devices),
			tables.n_devices);
	if (r == 0)
		r = set_flags(dp, load, &tables, true);
	ends = r == 0 ? attach_far_ends(dp, load, paths, n) : 0;
	if (r == 0)
		r = remove_others(devices, sizeof(*tables.ifindexes), tables.ifindexes, tables.n_devices);
	if (r == 0)
		r = remove_others(matches, sizeof(*tables.keys), tables.keys, tables.n_matches);
	if (r == 0)
		r = remove_others(forwards, sizeof(*tables.forward_ifindexes), tables.forward_ifindexes, tables.n_forwards);
	if (r == 0)
		r = remove_exits(load, paths, n);
	return r < 0 ? r : ends;
}

int datapath_fast_socket(struct datapath *dp, uint16_t index, uint16_t queue, int fd)
{
	struct load *load = load_writable(dp);
	uint32_t key = HD_FAST_SOCKET((uint32_t)index, (uint32_t)queue);

	if (!load)
		return -ENOTCONN;
	if (index >= HD_FAST_PATHS || queue >= HD_FAST_QUEUES)
		return -EINVAL;
	if (fd < 0)
		return bpf_map_delete_elem(load->maps[MAP_XSKS].fd, &key) < 0 && errno != ENOENT ? -errno : 0;
	return bpf_map_update_elem(load->maps[MAP_XSKS].fd, &key, &fd, BPF_ANY) < 0 ? -errno : 0;
}

int datapath_fast_room(struct datapath *dp, uint16_t index, const struct hd_fast_room *room)
{
	static const struct hd_fast_room unknown;
	struct load *load = load_writable(dp);
	uint32_t key = index;

	if (!load)
		return -ENOTCONN;
	if (index >= HD_FAST_PATHS)
		return -EINVAL;
	return bpf_map_update_elem(load->maps[MAP_FAST_ROOMS].fd, &key, room ? room : &unknown, BPF_ANY) < 0 ? -errno : 0;
}

bool datapath_steers(const struct datapath *dp)
{
	const struct load *load = load_readable(dp);
	uint32_t ifindex;

	return load && load->maps[MAP_FAST_DEVICES].fd >= 0 &&
	       bpf_map_get_next_key(load->maps[MAP_FAST_DEVICES].fd, NULL, &ifindex) == 0;
}
