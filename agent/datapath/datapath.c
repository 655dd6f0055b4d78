/* SPDX-License-Identifier: Apache-2.0 */
/* Opening, going live, closing. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <datapath/internal.h>

#define XDP_GENERIC_PIN "xdp_generic"

/* An agent that was killed a moment ago may not be quite gone. */
#define LOCK_PATIENCE_MS 1000

static void tc_from_environment(struct datapath *dp, enum datapath_tc tc)
{
	const char *wanted = getenv("HEDDLE_TC");

	dp->tc = tc;
	if (tc != DATAPATH_TC_AUTO || !wanted)
		return;
	if (strcmp(wanted, "clsact") == 0)
		dp->tc = DATAPATH_TC_CLSACT;
	else if (strcmp(wanted, "tcx") == 0)
		dp->tc = DATAPATH_TC_TCX;
	else
		log_warn(0, "HEDDLE_TC=%s: want tcx or clsact; ignored", wanted);
}

static struct datapath *datapath_new(void)
{
	struct datapath *dp = calloc(1, sizeof(*dp));

	if (!dp)
		return NULL;
	dp->lock = dp->grace_inner = dp->grace_outer = -1;
	dp->packet_socket = dp->raw_socket[0] = dp->raw_socket[1] = -1;
	return dp;
}

void datapath_close(struct datapath *dp)
{
	if (!dp)
		return;
	for (size_t i = 0; i < dp->n_attached; i++)
		for (unsigned kind = 0; kind < LINK_KINDS; kind++)
			safe_close(dp->attached[i].link[kind]);
	free(dp->attached);
	steer_close(dp);
	free(dp->report);
	ring_buffer__free(dp->ring);
	load_free(dp->next);
	load_free(dp->live);
	safe_close(dp->grace_inner);
	safe_close(dp->grace_outer);
	safe_close(dp->packet_socket);
	safe_close(dp->raw_socket[0]);
	safe_close(dp->raw_socket[1]);
	safe_close(dp->lock);
	free(dp->bpffs);
	free(dp);
}
DEFINE_CLEANUP(struct datapath *, datapath_close);

int datapath_open(const struct datapath_config *config, struct datapath **ret, bool *found)
{
	_cleanup_(datapath_close_p) struct datapath *dp = datapath_new();
	int r;

	if (!dp)
		return -ENOMEM;
	object_log_init();
	tc_from_environment(dp, config->tc);
	dp->bpffs = strdup(config->bpffs);
	if (!dp->bpffs)
		return -ENOMEM;
	r = bpffs_prepare(dp->bpffs);
	if (r < 0)
		return r;
	r = bpffs_lock(dp->bpffs, true, LOCK_PATIENCE_MS, &dp->lock);
	if (r == -EBUSY)
		return log_err(r, "another heddled runs on %s/heddle", dp->bpffs);
	if (r < 0)
		return log_err(r, "cannot open %s/heddle", dp->bpffs);
	pin_remove_temporaries(dp->bpffs);
	r = adopt(dp, found);
	if (r == 0)
		r = steer_adopt(dp);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(dp);
	return 0;
}

uint32_t datapath_last_generation(const struct datapath *dp)
{
	return dp->last_generation;
}

static int pin_all(struct datapath *dp, const struct load *load)
{
	int r;

	for (unsigned i = 0; i < load->n_maps; i++) {
		if (load->maps[i].fd < 0)
			continue;
		r = pin_over(dp->bpffs, "maps", load->maps[i].name, load->maps[i].fd);
		if (r < 0)
			return log_err(r, "cannot pin the map %s", load->maps[i].name);
	}
	for (unsigned hook = 0; hook < HD_HOOKS; hook++) {
		if (load->program[hook] < 0)
			continue; /* there is no port, or no VLAN, or no tunnel */
		r = pin_over(dp->bpffs, "progs", hook_program_name[hook], load->program[hook]);
		if (r < 0)
			return log_err(r, "cannot pin the program %s", hook_program_name[hook]);
	}
	/* With it an agent that has loaded nothing yet can tell how old an entry is. */
	r = pin_over(dp->bpffs, "progs", "tick_now", load->clock);
	if (r < 0)
		return log_err(r, "cannot pin the program that tells the time");
	if (load->program[PROGRAM_XDP_GENERIC] >= 0) {
		r = pin_over(dp->bpffs, "progs", XDP_GENERIC_PIN, load->program[PROGRAM_XDP_GENERIC]);
		if (r < 0)
			return log_err(r, "cannot pin the program of generic XDP");
	}
	return 0;
}

/* Maps that an earlier version pinned and this one does not have. */
static int remove_unknown(const char *path, const char *name, void *userdata)
{
	const struct load *load = userdata;

	for (unsigned i = 0; i < load->n_maps; i++)
		if (load->maps[i].fd >= 0 && strcmp(load->maps[i].name, name) == 0)
			return 0;
	log_debug("removing %s, which this version has no use for", path);
	(void)unlink(path);
	return 0;
}

/* Of a load before, for which this one has no use: it would keep all of its maps. */
static int remove_unused(const char *path, const char *name, void *userdata)
{
	const struct load *load = userdata;

	for (unsigned hook = 0; hook < HD_HOOKS; hook++)
		if (strcmp(hook_program_name[hook], name) == 0 && load->program[hook] < 0)
			(void)unlink(path);
	if (strcmp(name, XDP_GENERIC_PIN) == 0 && load->program[PROGRAM_XDP_GENERIC] < 0)
		(void)unlink(path);
	return 0;
}

/* A timer runs the program that armed it, with that one's control map: it has to be armed anew by each load. */
static int start_ageing(struct load *load)
{
	uint32_t failed = 0;
	int r = program_run_once(load->ageing, load->ageing_type, &failed);

	if (r == 0 && failed)
		r = -EIO;
	return r < 0 ? log_err(r, "cannot start the ageing of flows") : 0;
}

int datapath_go_live(struct datapath *dp)
{
	int r;

	if (!dp->next)
		return 0;
	r = pin_all(dp, dp->next);
	if (r < 0)
		return r;
	r = start_ageing(dp->next);
	if (r < 0)
		return r;
	(void)pin_each(dp->bpffs, "maps", remove_unknown, dp->next);
	(void)pin_each(dp->bpffs, "progs", remove_unused, dp->next);
	load_drop(dp, dp->live);
	dp->live = dp->next;
	dp->next = NULL;
	dp->live->attached = true;
	return 0;
}
