/* SPDX-License-Identifier: Apache-2.0 */
/* Programs and the maps they use: made, adopted, grown. Nothing here touches what is attached. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <linux/if_link.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <datapath/internal.h>

const char *const hook_program_name[HD_HOOKS] = {
#define HOOK_NAME(sym, name) [HD_HOOK_##sym] = name,
	HOOK_PROGRAMS(HOOK_NAME)
#undef HOOK_NAME
};

static const struct {
	const char *name;
	enum map_group group;
} map_table[MAP_KNOWN] = {
#define MAP_ROW(sym, map_name, map_group_) [MAP_##sym] = {map_name, MAP_##map_group_},
	DATAPATH_MAPS(MAP_ROW)
#undef MAP_ROW
};

int map_index(const char *name)
{
	for (unsigned i = 0; i < MAP_KNOWN; i++)
		if (strcmp(map_table[i].name, name) == 0)
			return (int)i;
	return -ENOENT;
}

uint32_t tick_now(const struct load *load)
{
	uint32_t tick = 0;

	if (load && load->clock >= 0)
		(void)program_run_once(load->clock, load->clock_type, &tick);
	return tick;
}

/* The coarse clock steps with the kernel's jiffies. */
static uint64_t tick_ns(void)
{
	struct timespec step;

	return clock_getres(CLOCK_MONOTONIC_COARSE, &step) == 0 && step.tv_nsec > 0 ? (uint64_t)step.tv_nsec : 4000000;
}

uint64_t ticks_of_ms(uint64_t ms)
{
	return (ms * 1000000 + tick_ns() - 1) / tick_ns();
}

uint64_t ms_of_ticks(uint64_t ticks)
{
	return ticks * tick_ns() / 1000000;
}

struct load *load_new(void)
{
	struct load *load = calloc(1, sizeof(*load));

	if (!load)
		return NULL;
	for (unsigned i = 0; i < MAP_MAX; i++)
		load->maps[i].fd = -1;
	for (unsigned i = 0; i < MAP_KNOWN; i++)
		snprintf(load->maps[i].name, sizeof(load->maps[i].name), "%s", map_table[i].name);
	load->n_maps = MAP_KNOWN;
	for (unsigned i = 0; i < PROGRAM_COUNT; i++)
		load->program[i] = -1;
	for (unsigned i = 0; i < HD_HOOKS; i++)
		load->twin[i] = -1;
	load->ageing = load->clock = load->credit = load->deny = -1;
	return load;
}

void load_free(struct load *load)
{
	if (!load)
		return;
	for (unsigned i = 0; i < load->n_maps; i++)
		safe_close(load->maps[i].fd);
	for (unsigned i = 0; i < PROGRAM_COUNT; i++)
		safe_close(load->program[i]);
	for (unsigned i = 0; i < HD_HOOKS; i++)
		safe_close(load->twin[i]);
	safe_close(load->ageing);
	safe_close(load->clock);
	safe_close(load->credit);
	safe_close(load->deny);
	if (load->control)
		munmap(load->control, (size_t)sysconf(_SC_PAGESIZE));
	networks_leave(load);
	overlay_unmap(load);
	flood_free(load);
	rows_free(load);
	free(load->reset);
	free(load);
}

int map_fill_info(struct map *map)
{
	struct bpf_map_info info = {0};
	__u32 size = sizeof(info);

	if (bpf_obj_get_info_by_fd(map->fd, &info, &size) < 0)
		return -errno;
	map->type = info.type;
	map->key_size = info.key_size;
	map->value_size = info.value_size;
	map->max_entries = info.max_entries;
	return 0;
}

static int control_map(int fd, struct hd_control **ret)
{
	void *page = mmap(NULL, (size_t)sysconf(_SC_PAGESIZE), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (page == MAP_FAILED)
		return -errno;
	*ret = page;
	return 0;
}

/* --- sizes --- */

static uint32_t wanted_entries(unsigned index, const struct datapath_sizes *sizes, uint32_t least)
{
	uint32_t wanted = 0;

	switch (index) {
	case MAP_ADDR4_NODES:
		wanted = sizes->policy.addr4_nodes;
		break;
	case MAP_ADDR4_TABLES:
		wanted = sizes->policy.addr4_tables;
		break;
	case MAP_ADDR6_NODES:
		wanted = sizes->policy.addr6_nodes;
		break;
	case MAP_CLASSES:
		wanted = sizes->policy.classes;
		break;
	case MAP_RULE_NODES:
		wanted = sizes->policy.rule_nodes;
		break;
	case MAP_RULES:
	case MAP_RULE_COUNTERS:
		wanted = sizes->policy.rules;
		break;
	case MAP_ENDPOINTS:
		wanted = sizes->endpoints;
		break;
	case MAP_MEMBERS:
		wanted = sizes->members;
		break;
	case MAP_ROUTES:
		wanted = sizes->routes;
		break;
	case MAP_PORT_VLANS:
		wanted = sizes->port_vlans;
		break;
	case MAP_PORTS_HASH:
		wanted = sizes->ports_hash;
		break;
	case MAP_PEERS:
	case MAP_PEER_COUNTERS:
		wanted = sizes->peers;
		break;
	case MAP_PEER_ADDRESSES:
		wanted = sizes->peer_addresses;
		break;
	case MAP_VNIS:
		wanted = sizes->vnis;
		break;
	case MAP_PEER_PREFIXES:
		wanted = sizes->peer_prefixes;
		break;
	case MAP_PEER_MEMBERS:
		wanted = sizes->peer_members;
		break;
	case MAP_FLOWS4:
	case MAP_FLOWS6:
	case MAP_FLOW_SLOTS:
	case MAP_FLOW_FREE:
		return sizes->flows ? sizes->flows : least;
	case MAP_FLOWS4_NEW:
	case MAP_FLOWS6_NEW:
		return sizes->flows_new ? sizes->flows_new : least;
	case MAP_FLOWS4_OTHER:
	case MAP_FLOWS6_OTHER:
		return sizes->flows_other ? sizes->flows_other : least;
	default:
		break;
	}
	return wanted > least ? wanted : least;
}

/* --- one object over the maps so far --- */

static bool same_shape(const struct map *have, const struct bpf_map *want)
{
	return have->fd >= 0 && have->type == bpf_map__type(want) && have->key_size == bpf_map__key_size(want) &&
	       have->value_size == bpf_map__value_size(want);
}

/* Slots hold copies of keys, and flows hold slot numbers: of different ages they would be worse than none. */
static bool flow_group_fits(const struct load *old, const struct bpf_object *object)
{
	for (unsigned i = 0; i < MAP_KNOWN; i++) {
		const struct bpf_map *map;

		if (map_table[i].group != MAP_FLOW)
			continue;
		map = bpf_object__find_map_by_name(object, map_table[i].name);
		if (map && !same_shape(&old->maps[i], map))
			return false;
	}
	return true;
}

struct adoption {
	const struct load *old; /* NULL: nothing to adopt */
	const struct datapath_sizes *sizes;
	bool said;
};

static bool adopts(struct adoption *adoption, const struct bpf_object *object, unsigned index, const struct bpf_map *map)
{
	const struct load *old = adoption->old;
	const struct map *have = old ? &old->maps[index] : NULL;
	bool fits;

	if (!have || have->fd < 0 || map_table[index].group == MAP_FRESH)
		return false;
	fits = map_table[index].group == MAP_FLOW ? flow_group_fits(old, object) : same_shape(have, map);
	if (!fits && !adoption->said) {
		log_notice("the pinned table %s is of another version: a new one takes its place, and what it held is lost",
			map_table[index].name);
		adoption->said = map_table[index].group == MAP_FLOW;
	}
	return fits;
}

static struct map *scratch_map(struct load *load, const char *name)
{
	for (unsigned i = MAP_KNOWN; i < load->n_maps; i++)
		if (strcmp(load->maps[i].name, name) == 0)
			return &load->maps[i];
	if (load->n_maps == MAP_MAX || strlen(name) >= sizeof(load->maps[0].name))
		return NULL;
	memcpy(load->maps[load->n_maps].name, name, strlen(name) + 1);
	return &load->maps[load->n_maps++];
}

static struct map *map_of(struct load *load, const struct bpf_map *map)
{
	int index = map_index(bpf_map__name(map));

	return index >= 0 ? &load->maps[index] : scratch_map(load, bpf_map__name(map));
}

/* Before loading: maps that exist are used again, the others get their size. */
static int prepare_maps(struct load *load, struct bpf_object *object, struct adoption *adoption)
{
	struct bpf_map *map;
	int r;

	bpf_object__for_each_map (map, object) {
		int index = map_index(bpf_map__name(map));
		struct map *slot;
		uint32_t entries;

		if (bpf_map__is_internal(map))
			continue;
		slot = map_of(load, map);
		if (!slot)
			return log_err(-E2BIG, "the BPF object declares more maps than expected: %s", bpf_map__name(map));
		entries = bpf_map__max_entries(map);
		if (index >= 0)
			entries = wanted_entries((unsigned)index, adoption->sizes, entries);
		if (slot->fd < 0 && index >= 0 && adopts(adoption, object, (unsigned)index, map)) {
			const struct map *have = &adoption->old->maps[index];

			if (map_table[index].group != MAP_GROWN || have->max_entries >= entries) {
				*slot = *have;
				slot->fresh = false;
				slot->fd = fcntl(have->fd, F_DUPFD_CLOEXEC, 3);
				if (slot->fd < 0)
					return -errno;
			}
		}
		r = slot->fd >= 0 ? bpf_map__reuse_fd(map, slot->fd) : bpf_map__set_max_entries(map, entries);
		if (r < 0)
			return log_err(r, "cannot prepare the map %s", bpf_map__name(map));
	}
	return 0;
}

/* After loading: those that libbpf made are ours from now on, since the object goes. */
static int take_maps(struct load *load, struct bpf_object *object)
{
	struct bpf_map *map;
	int r;

	bpf_object__for_each_map (map, object) {
		struct map *slot = bpf_map__is_internal(map) ? NULL : map_of(load, map);

		if (!slot || slot->fd >= 0)
			continue;
		slot->fd = fcntl(bpf_map__fd(map), F_DUPFD_CLOEXEC, 3);
		if (slot->fd < 0)
			return -errno;
		r = map_fill_info(slot);
		if (r < 0)
			return r;
		slot->fresh = true;
	}
	return 0;
}

static int take_program(const struct bpf_object *object, const char *name, int *ret_fd, int *ret_type)
{
	const struct bpf_program *program = bpf_object__find_program_by_name(object, name);
	int fd = -1;

	if (!program)
		return log_err(-ENOENT, "the BPF object has no program %s", name);
	fd = fcntl(bpf_program__fd(program), F_DUPFD_CLOEXEC, 3);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	if (ret_type)
		*ret_type = bpf_program__type(program);
	return 0;
}

static int load_object(struct load *load, struct bpf_object *object, struct adoption *adoption, const char *what)
{
	int r = prepare_maps(load, object, adoption);

	if (r == 0)
		r = object_load(object, what);
	return r < 0 ? r : take_maps(load, object);
}

/* The maps alone. */
static int make_maps(struct load *load, enum object_id id, struct adoption *adoption)
{
	struct bpf_object *object = NULL;
	struct bpf_program *program;
	int r = object_open(id, &object);

	if (r < 0)
		return r;
	bpf_object__for_each_program (program, object)
		(void)bpf_program__set_autoload(program, false);
	r = load_object(load, object, adoption, "maps");
	bpf_object__close(object);
	return r;
}

int load_reuse_maps(const struct load *load, struct bpf_object *object)
{
	struct bpf_map *map;

	bpf_object__for_each_map (map, object) {
		const struct map *have = NULL;

		if (bpf_map__is_internal(map))
			continue;
		for (unsigned i = 0; i < load->n_maps && !have; i++)
			if (load->maps[i].fd >= 0 && strcmp(load->maps[i].name, bpf_map__name(map)) == 0)
				have = &load->maps[i];
		if (!have)
			return log_err(-ENOENT, "there is no map %s to load a program over", bpf_map__name(map));
		if (bpf_map__reuse_fd(map, have->fd) < 0)
			return -errno;
	}
	return 0;
}

static const char *program_name(unsigned program)
{
	if (program == PROGRAM_XDP_PORT || program == PROGRAM_XDP_PORT_SEVERAL)
		return "xdp_port";
	if (program == PROGRAM_XDP_SWITCH || program == PROGRAM_XDP_SWITCH_SEVERAL)
		return "xdp_switch";
	return hook_program_name[program == PROGRAM_XDP_GENERIC ? HD_HOOK_XDP_UPLINK : program];
}

int program_describe(int fd, enum hd_hook hook, struct datapath_program *ret)
{
	struct bpf_prog_info info = {0};
	__u32 size = sizeof(info);

	if (bpf_obj_get_info_by_fd(fd, &info, &size) < 0)
		return -errno;
	*ret = (struct datapath_program){.name = hook_program_name[hook],
		.hook = hook,
		.id = info.id,
		.insns_verified = info.verified_insns,
		.jited_bytes = info.jited_prog_len};
	return 0;
}

/* --- the programs, side by side: nearly all of a start is the verifier at work --- */

struct job {
	struct load *load;
	unsigned program;
	pthread_t thread;
	bool threaded;
	int r;
};

static int load_program(struct load *load, unsigned which)
{
	struct bpf_object *object = NULL;
	const char *name = program_name(which);
	struct bpf_program *program;
	int r = object_open(program_object(which), &object);

	if (r < 0)
		return r;
	bpf_object__for_each_program (program, object)
		(void)bpf_program__set_autoload(program, strcmp(bpf_program__name(program), name) == 0);
	program = bpf_object__find_program_by_name(object, name);
	if (program && (which == PROGRAM_XDP_PORT_SEVERAL || which == PROGRAM_XDP_SWITCH_SEVERAL))
		(void)bpf_program__set_flags(program, bpf_program__flags(program) | BPF_F_XDP_HAS_FRAGS);
	r = load_reuse_maps(load, object);
	if (r == 0)
		r = object_load(object, name);
	if (r == 0)
		r = take_program(object, name, &load->program[which], NULL);
	if (r == 0 && which <= PROGRAM_XDP_GENERIC)
		r = program_describe(
			load->program[which], which == PROGRAM_XDP_GENERIC ? HD_HOOK_XDP_UPLINK : which, &load->info[which]);
	bpf_object__close(object);
	return r;
}

int load_generic(struct load *load)
{
	return load->program[PROGRAM_XDP_GENERIC] >= 0 ? 0 : load_program(load, PROGRAM_XDP_GENERIC);
}

int load_steer(struct load *load, unsigned program)
{
	return load->program[program] >= 0 ? 0 : load_program(load, program);
}

static void *run_job(void *argument)
{
	struct job *job = argument;

	job->r = load_program(job->load, job->program);
	return NULL;
}

/* Each job writes its own program's entries of load, and only reads the maps. */
static int load_programs(struct load *load, const unsigned *programs, unsigned n)
{
	struct job jobs[PROGRAM_COUNT];
	int r = 0;

	for (unsigned i = 0; i < n; i++) {
		jobs[i] = (struct job){.load = load, .program = programs[i]};
		jobs[i].threaded = i != 0 && pthread_create(&jobs[i].thread, NULL, run_job, &jobs[i]) == 0;
	}
	for (unsigned i = 0; i < n; i++)
		if (!jobs[i].threaded)
			(void)run_job(&jobs[i]);
	for (unsigned i = 0; i < n; i++) {
		if (jobs[i].threaded)
			(void)pthread_join(jobs[i].thread, NULL);
		if (r == 0)
			r = jobs[i].r;
	}
	return r;
}

/* What every load has: the uplinks' programs, and XDP's other form where a device needs it. */
static int load_uplinks(struct load *load, bool generic)
{
	unsigned programs[PROGRAM_COUNT], n = 0;

	for (unsigned hook = 0; hook < UPLINK_HOOKS; hook++)
		programs[n++] = hook;
	if (generic)
		programs[n++] = PROGRAM_XDP_GENERIC;
	return load_programs(load, programs, n);
}

/* The uplinks' program finds it there. */
static int call_by(struct load *load, enum hd_wire_program entry, unsigned hook, const char *what)
{
	uint32_t key = entry;

	if (bpf_map_update_elem(load->maps[MAP_WIRE_PROGRAMS].fd, &key, &load->program[hook], BPF_ANY) < 0)
		return log_err(-errno, "cannot let the uplinks find the program for %s", what);
	return 0;
}

int load_ports(struct load *load, bool wire, bool tunnel)
{
	unsigned programs[PROGRAM_COUNT], n = 0;
	int r = 0;

	wire = wire && load->program[HD_HOOK_TC_WIRE_IN] < 0;
	tunnel = tunnel && load->program[HD_HOOK_TC_TUNNEL_IN] < 0;
	for (unsigned hook = UPLINK_HOOKS; hook < HD_HOOKS; hook++)
		if (load->program[hook] < 0 && (wire || hook != HD_HOOK_TC_WIRE_IN) &&
			(tunnel || (hook != HD_HOOK_TC_TUNNEL_IN && hook != HD_HOOK_TC_HOST_OUT)))
			programs[n++] = hook;
	if (n) {
		r = load_programs(load, programs, n);
		objects_forget();
	}
	if (r == 0 && wire)
		r = call_by(load, HD_WIRE_VLAN, HD_HOOK_TC_WIRE_IN, "VLANs of networks");
	if (r == 0 && tunnel)
		r = call_by(load, HD_WIRE_TUNNEL, HD_HOOK_TC_TUNNEL_IN, "the tunnel");
	return r;
}

static int load_ageing(struct load *load, struct adoption *adoption)
{
	struct bpf_object *object = NULL;
	int r = object_open(OBJECT_AGEING, &object);

	if (r == 0)
		r = load_object(load, object, adoption, "ageing program");
	if (r == 0)
		r = take_program(object, "ageing_start", &load->ageing, &load->ageing_type);
	if (r == 0)
		r = take_program(object, "tick_now", &load->clock, &load->clock_type);
	bpf_object__close(object);
	return r;
}

/* A stack map takes one element a call and no batch: pushing from a program is some 20 times as fast. */
static int fill_slots(struct load *load, struct adoption *adoption)
{
	struct bpf_object *object = NULL;
	_cleanup_close_ int program = -1;
	uint32_t failed = 1, slots = load->maps[MAP_FLOW_SLOTS].max_entries - 1;
	int type = 0, r;

	if (!load->maps[MAP_FLOW_FREE].fresh)
		return 0;
	r = object_open(OBJECT_SLOTS, &object);
	if (r == 0)
		r = object_set_constant(object, "slot_count", &slots, sizeof(slots));
	if (r == 0)
		r = load_object(load, object, adoption, "program that fills the list of free flow slots");
	if (r == 0)
		r = take_program(object, "fill_slots", &program, &type);
	bpf_object__close(object);
	if (r == 0)
		r = program_run_once(program, type, &failed);
	if (r == 0 && failed)
		r = -EIO;
	return r < 0 ? log_err(r, "cannot fill the list of free flow slots") : 0;
}

/* --- settings --- */

static uint32_t timeout_ticks(uint32_t ms)
{
	uint64_t ticks = ticks_of_ms(ms);

	return ticks < HD_TICKS_MAX ? (uint32_t)ticks : HD_TICKS_MAX;
}

static void settings_apply(struct hd_control *control, const struct datapath_settings *settings)
{
#define APPLY_TIMEOUT(sym, name, timeout_name) control->timeout[HD_FS_##sym] = timeout_ticks(settings->timeouts.timeout_name);
	HD_FLOW_STATES(APPLY_TIMEOUT)
#undef APPLY_TIMEOUT
	control->fragment_timeout = timeout_ticks(HD_FRAGMENT_SECONDS * 1000);
	control->log_every = settings->log_every;
	control->event_rate = settings->event_rate;
	control->reject_rate = settings->reject_rate;
}

static int init_control(
	struct load *load, const struct load *old, const struct datapath_settings *settings, uint32_t pickup_seconds)
{
	struct hd_control before = {0};
	uint32_t zero = 0;
	int r = control_map(load->maps[MAP_CONTROL].fd, &load->control);

	if (r < 0)
		return log_err(r, "cannot map the control map");
	r = networks_reach(load, 0);
	if (r < 0)
		return r;
	r = overlay_map(load, old);
	if (r < 0)
		return log_err(r, "cannot map the peers");
	r = flood_init(load);
	if (r < 0)
		return r;
	load->control->schema = HD_SCHEMA_VERSION;
	settings_apply(load->control, settings);
	if (load->maps[MAP_FLOWS4].fresh) {
		if (pickup_seconds) {
			load->control->pickup_until = tick_now(load) + (uint32_t)ticks_of_ms((uint64_t)pickup_seconds * 1000);
			load->control->flags = HD_CONTROL_PICKUP;
		}
	} else if (load_map(old, MAP_CONTROL) >= 0 && bpf_map_lookup_elem(load_map(old, MAP_CONTROL), &zero, &before) == 0) {
		load->control->pickup_until = before.pickup_until;
		load->control->flags = before.flags & (HD_CONTROL_PICKUP | HD_CONTROL_FQ);
		/* A monitor of this agent's goes on over a table that grows; one of an earlier agent is gone. */
		if (old->control)
			load->control->flags |= before.flags & HD_CONTROL_MONITOR;
	}
	return 0;
}

/* Larger tables begin with the contents of those they replace; the counters follow just before the switch (carry_over). */
static int carry_grown(struct load *load, const struct load *old)
{
	int r;

	for (unsigned i = 0; old && i < MAP_KNOWN; i++) {
		const struct map *from = &old->maps[i], *to = &load->maps[i];

		if (map_table[i].group != MAP_GROWN || !to->fresh || from->fd < 0 || from->value_size != to->value_size ||
			from->type != to->type || i == MAP_RULE_COUNTERS)
			continue;
		r = map_carry(from, to, NULL);
		if (r < 0)
			return log_err(r, "cannot copy the table %s into a larger one", to->name);
	}
	if (load->maps[MAP_RULE_COUNTERS].fresh) {
		load->reset = calloc(1, load->maps[MAP_RULE_COUNTERS].max_entries / 8 + 1);
		if (!load->reset)
			return -ENOMEM;
	}
	return 0;
}

/* Some device is on generic XDP and will be again. */
static bool any_generic(const struct datapath *dp)
{
	for (size_t i = 0; i < dp->n_attached; i++)
		if (dp->attached[i].link[LINK_XDP] >= 0 && dp->attached[i].xdp_flags == XDP_FLAGS_SKB_MODE)
			return true;
	return false;
}

int datapath_load(struct datapath *dp, const struct datapath_sizes *sizes, const struct datapath_settings *settings,
	uint32_t pickup_seconds)
{
	_cleanup_(load_free_p) struct load *load = load_new();
	const struct load *old = load_readable(dp);
	struct adoption adoption = {.old = old, .sizes = sizes};
	int r;

	if (!load)
		return -ENOMEM;
	r = make_maps(load, OBJECT_XDP, &adoption);
	if (r == 0)
		r = make_maps(load, OBJECT_TC, &adoption);
	if (r == 0)
		r = make_maps(load, OBJECT_TC_PORT, &adoption);
	if (r == 0)
		r = load_uplinks(load, any_generic(dp));
	if (r == 0)
		r = load_ageing(load, &adoption);
	if (r == 0)
		r = fill_slots(load, &adoption);
	if (r == 0)
		r = carry_grown(load, old);
	if (r == 0)
		r = init_control(load, old, settings, pickup_seconds);
	if (r == 0)
		r = events_open(dp, load->maps[MAP_EVENTS].fd);
	objects_forget();
	if (r < 0)
		return r;
	load_drop(dp, dp->next);
	dp->next = TAKE_PTR(load);
	return 0;
}

void load_drop(struct datapath *dp, struct load *load)
{
	for (size_t i = 0; load && i < dp->n_attached; i++) {
		struct attached *at = &dp->attached[i];

		/* The next load may have the address of this one. */
		at->in = at->in == load ? NULL : at->in;
		at->written = at->written == load ? NULL : at->written;
	}
	load_free(load);
}

void datapath_abandon(struct datapath *dp)
{
	if (dp->next && !dp->next->attached) {
		load_drop(dp, dp->next);
		dp->next = NULL;
	}
}

struct load *load_writable(struct datapath *dp)
{
	if (dp->next)
		return dp->next;
	return dp->live && dp->live->control ? dp->live : NULL;
}

const struct load *load_readable(const struct datapath *dp)
{
	if (dp->next && (dp->next->attached || !dp->live))
		return dp->next;
	return dp->live;
}

int datapath_settings(struct datapath *dp, const struct datapath_settings *settings)
{
	struct load *load = load_writable(dp);

	if (!load)
		return -ENOTCONN;
	settings_apply(load->control, settings);
	return 0;
}

void datapath_sizes(const struct datapath *dp, struct datapath_sizes *ret)
{
	const struct load *load = dp->next ? dp->next : dp->live;

	memset(ret, 0, sizeof(*ret));
	if (!load)
		return;
	ret->policy = (struct compiler_limits){.addr4_nodes = load->maps[MAP_ADDR4_NODES].max_entries,
		.addr6_nodes = load->maps[MAP_ADDR6_NODES].max_entries,
		.classes = load->maps[MAP_CLASSES].max_entries,
		.rule_nodes = load->maps[MAP_RULE_NODES].max_entries,
		.rules = load->maps[MAP_RULES].max_entries,
		.addr4_tables = load->maps[MAP_ADDR4_TABLES].max_entries};
	ret->flows = load->maps[MAP_FLOWS4].max_entries;
	ret->flows_new = load->maps[MAP_FLOWS4_NEW].max_entries;
	ret->flows_other = load->maps[MAP_FLOWS4_OTHER].max_entries;
	ret->endpoints = load->maps[MAP_ENDPOINTS].max_entries;
	ret->members = load->maps[MAP_MEMBERS].max_entries;
	ret->routes = load->maps[MAP_ROUTES].max_entries;
	ret->port_vlans = load->maps[MAP_PORT_VLANS].max_entries;
	ret->ports_hash = load->maps[MAP_PORTS_HASH].max_entries;
	ret->peers = load->maps[MAP_PEERS].max_entries;
	ret->peer_addresses = load->maps[MAP_PEER_ADDRESSES].max_entries;
	ret->vnis = load->maps[MAP_VNIS].max_entries;
	ret->peer_prefixes = load->maps[MAP_PEER_PREFIXES].max_entries;
	ret->peer_members = load->maps[MAP_PEER_MEMBERS].max_entries;
}

size_t datapath_programs(const struct datapath *dp, const struct datapath_program **ret)
{
	const struct load *load = dp->next && dp->next->attached ? dp->next : dp->live;

	/* Of an earlier agent's, those that run; none where they could not be looked at. */
	if (!load || !load->info[HD_HOOK_TC_UPLINK_IN].name)
		return 0;
	*ret = load->info;
	for (unsigned hook = HD_HOOKS; hook > UPLINK_HOOKS; hook--)
		if (load->info[hook - 1].id)
			return hook;
	return UPLINK_HOOKS;
}
