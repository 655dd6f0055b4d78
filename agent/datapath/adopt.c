/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an earlier agent left: links, filters, and the maps of the programs that run behind them.
 *
 * The running programs are the truth, the pins only the second source: an agent that was killed between switching the links and
 * renaming the pins left pins of maps that no packet reads any more. Looking behind a link needs CAP_SYS_ADMIN (objects by id);
 * without it the pins have to do.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <net/if.h>

#include <bpf/bpf.h>

#include <datapath/internal.h>

struct programs {
	uint32_t id[64];
	size_t n;
};

static void programs_add(struct programs *programs, uint32_t id)
{
	for (size_t i = 0; i < programs->n; i++)
		if (programs->id[i] == id)
			return;
	if (programs->n < ARRAY_SIZE(programs->id))
		programs->id[programs->n++] = id;
}

struct adopting {
	struct datapath *dp;
	struct programs programs;
};

static int adopt_link(const char *path, const char *name, void *userdata)
{
	struct adopting *adopting = userdata;
	struct datapath *dp = adopting->dp;
	_cleanup_close_ int fd = bpf_obj_get(path);
	enum link_kind kind;
	uint32_t ifindex, program;
	char device[IF_NAMESIZE];
	struct attached *at;

	if (fd < 0 || link_inspect(fd, &kind, &ifindex, &program) < 0) {
		log_debug("%s is not a link of ours: left alone", path);
		return 0;
	}
	if (ifindex == 0 || !if_indextoname(ifindex, device)) {
		log_debug("the device of %s is gone", name);
		(void)unlink(path);
		return 0;
	}
	at = attached_add(dp, device, ifindex);
	if (!at)
		return -ENOMEM;
	if (at->link[kind] >= 0) {
		(void)unlink(path); /* a second name of the same link, from a rename that a crash cut short */
		return 0;
	}
	at->link[kind] = TAKE_FD(fd);
	programs_add(&adopting->programs, program);
	if (kind == LINK_XDP && xdp_mode_of(ifindex, program, &at->xdp_flags) < 0)
		at->xdp_flags = 0;
	return 0;
}

static int adopt_filter(const struct clsact_filter *filter, void *userdata)
{
	struct adopting *adopting = userdata;
	char device[IF_NAMESIZE];
	struct attached *at;

	if (!filter->ours || !if_indextoname(filter->ifindex, device))
		return 0;
	at = attached_add(adopting->dp, device, filter->ifindex);
	if (!at)
		return -ENOMEM;
	at->clsact = true;
	programs_add(&adopting->programs, filter->program_id);
	return 0;
}

static int adopt_filters(struct adopting *adopting)
{
	_cleanup_free_ uint32_t *devices = NULL;
	size_t n = 0;
	int r = clsact_devices(&devices, &n);

	for (size_t i = 0; i < n && r == 0; i++)
		r = clsact_each(devices[i], adopt_filter, adopting);
	return r;
}

/* Schema and generation stand first in every version of struct hd_control. */
static int control_head(int fd, uint32_t *ret_schema, uint32_t *ret_generation)
{
	_Alignas(8) uint32_t value[1024] = {0};
	struct map map = {.fd = fd};
	uint32_t zero = 0;
	int r = fd < 0 ? -ENOENT : map_fill_info(&map);

	if (r < 0)
		return r;
	if (map.value_size > sizeof(value) || map.value_size < 8 || map.key_size != 4)
		return -EINVAL;
	if (bpf_map_lookup_elem(fd, &zero, value) < 0)
		return -errno;
	*ret_schema = value[0];
	*ret_generation = value[1];
	return 0;
}

static int take_map(struct load *load, int *fd)
{
	struct bpf_map_info info = {0};
	__u32 size = sizeof(info);
	struct map *map;
	int index;

	if (bpf_obj_get_info_by_fd(*fd, &info, &size) < 0)
		return -errno;
	index = map_index(info.name);
	if (index < 0 || load->maps[index].fd >= 0)
		return 0;
	map = &load->maps[index];
	map->fd = TAKE_FD(*fd);
	return map_fill_info(map);
}

static int program_maps(uint32_t id, struct load *load)
{
	_cleanup_close_ int program = bpf_prog_get_fd_by_id(id);
	uint32_t ids[MAP_MAX] = {0};
	struct bpf_prog_info info = {.nr_map_ids = MAP_MAX, .map_ids = (uintptr_t)ids};
	__u32 size = sizeof(info);

	if (program < 0 || bpf_obj_get_info_by_fd(program, &info, &size) < 0)
		return -errno;
	for (unsigned i = 0; i < info.nr_map_ids && i < MAP_MAX; i++) {
		_cleanup_close_ int fd = bpf_map_get_fd_by_id(ids[i]);
		int r = fd < 0 ? -errno : take_map(load, &fd);

		if (r < 0)
			return r;
	}
	return 0;
}

/* The maps of the programs that run now; where links were switched one by one and a crash came between, those of the newest. */
static struct load *running_maps(const struct programs *programs, uint32_t *ret_generation)
{
	struct load *best = NULL;

	for (size_t i = 0; i < programs->n; i++) {
		_cleanup_(load_free_p) struct load *load = load_new();
		uint32_t schema = 0, generation = 0;
		int r = load ? program_maps(programs->id[i], load) : -ENOMEM;

		if (r == 0)
			r = control_head(load->maps[MAP_CONTROL].fd, &schema, &generation);
		if (r < 0) {
			log_debug("cannot look at the maps of the running program %u: %s", programs->id[i], strerror(-r));
			continue;
		}
		if (best && (int32_t)(generation - *ret_generation) <= 0)
			continue;
		load_free(best);
		best = TAKE_PTR(load);
		*ret_generation = generation;
	}
	return best;
}

static int adopt_pin(const char *path, const char *name, void *userdata)
{
	struct load *load = userdata;
	int index = map_index(name);
	_cleanup_close_ int fd = -1;

	if (index < 0 || load->maps[index].fd >= 0)
		return 0;
	fd = bpf_obj_get(path);
	if (fd < 0)
		return 0;
	return take_map(load, &fd);
}

/* Those that the uplinks' programs call are attached to nothing. */
static void add_called(struct programs *programs, const struct map *map)
{
	for (uint32_t i = 0; map->fd >= 0 && map->type == BPF_MAP_TYPE_PROG_ARRAY && i < map->max_entries; i++) {
		uint32_t id = 0;

		if (bpf_map_lookup_elem(map->fd, &i, &id) == 0)
			programs_add(programs, id);
	}
}

/* So that what is in force can be shown before, or without, a policy of our own. */
static void describe_programs(struct programs *programs, struct load *load)
{
	add_called(programs, &load->maps[MAP_WIRE_PROGRAMS]);
	for (unsigned hook = 0; hook < HD_HOOKS; hook++)
		load->info[hook] = (struct datapath_program){.name = hook_program_name[hook], .hook = hook};
	for (size_t i = 0; i < programs->n; i++) {
		_cleanup_close_ int fd = bpf_prog_get_fd_by_id(programs->id[i]);
		struct bpf_prog_info info = {0};
		__u32 size = sizeof(info);

		if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &size) < 0)
			continue;
		for (unsigned hook = 0; hook < HD_HOOKS; hook++)
			if (strcmp(info.name, hook_program_name[hook]) == 0)
				(void)program_describe(fd, hook, &load->info[hook]);
	}
}

static int adopt_clock(const char *path, const char *name, void *userdata)
{
	struct load *load = userdata;

	if (strcmp(name, "tick_now") == 0) {
		load->clock = bpf_obj_get(path);
		load->clock_type = BPF_PROG_TYPE_SCHED_CLS;
	}
	return 0;
}

/* The record says what a device is. */
static void adopt_roles(struct datapath *dp)
{
	for (size_t i = 0; i < dp->n_attached; i++) {
		struct hd_port record;

		if (port_read(dp->live, dp->attached[i].ifindex, &record) < 0)
			continue;
		if (!(record.flags & HD_PORT_UPLINK))
			dp->attached[i].role = ROLE_PORT;
		else if (record.flags & HD_PORT_TUNNEL)
			dp->attached[i].decap = record.flags & HD_PORT_DECAP ? DECAP_XDP : DECAP_TC;
	}
}

int adopt(struct datapath *dp, bool *found)
{
	struct adopting adopting = {.dp = dp};
	_cleanup_(load_free_p) struct load *pins = load_new();
	_cleanup_(load_free_p) struct load *load = NULL;
	uint32_t schema = 0, generation = 0, pinned_generation = 0;
	int r = pins ? pin_each(dp->bpffs, "links", adopt_link, &adopting) : -ENOMEM;

	if (r == 0)
		r = adopt_filters(&adopting);
	if (r < 0)
		return log_err(r, "cannot find out what an earlier agent left");
	load = running_maps(&adopting.programs, &generation);
	if (!load)
		load = load_new();
	r = load ? pin_each(dp->bpffs, "maps", adopt_pin, pins) : -ENOMEM;
	if (r < 0)
		return log_err(r, "cannot open the pinned maps of an earlier agent");
	/* An orderly end after a change leaves both the same; whichever is ahead, its numbers are used up. */
	if (control_head(pins->maps[MAP_CONTROL].fd, &schema, &pinned_generation) == 0 &&
		(generation == 0 || (int32_t)(pinned_generation - generation) > 0))
		generation = pinned_generation;
	for (unsigned i = 0; i < MAP_KNOWN; i++)
		if (load->maps[i].fd < 0) {
			load->maps[i] = pins->maps[i];
			pins->maps[i].fd = -1;
		}
	dp->last_generation = generation;
	*found = generation != 0 || dp->n_attached != 0;
	if (control_head(load->maps[MAP_CONTROL].fd, &schema, &generation) < 0)
		return 0;
	if (schema != HD_SCHEMA_VERSION) {
		log_notice("the tables of the earlier agent have schema %u, this one has %u: it stays in force until the new "
			   "policy is, "
			   "but flows and counters start afresh",
			schema, HD_SCHEMA_VERSION);
		return 0;
	}
	describe_programs(&adopting.programs, load);
	(void)pin_each(dp->bpffs, "progs", adopt_clock, load);
	dp->live = TAKE_PTR(load);
	adopt_roles(dp);
	return attached_report(dp);
}
