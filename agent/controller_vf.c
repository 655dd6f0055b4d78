/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What documents want of VFs and of the NICs that give them. VFs are set through their PF, and put back. The number of VFs and the mode of a NIC's switch
 * are changed only where the Host document says so, and only as far as nobody loses a VF by it; that takes seconds, so a thread does it.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <controller_internal.h>
#include <netdev/vf_loan.h>
#include <observe/vfs.h>
#include <util/file.h>
#include <util/hash.h>
#include <util/sys_tree.h>

/* --- VFs --- */

static uint32_t find_pf(const char *address, void *userdata)
{
	const struct sriov *table = userdata;

	for (size_t i = 0; i < table->n_pfs; i++)
		if (strcmp(table->pfs[i].address, address) == 0)
			return table->pfs[i].ifindex;
	return 0;
}

static const struct netdev *pf_device(const struct controller *c, const char *name)
{
	return view_device_by_name(&c->view, name);
}

/* The documents' words, as the kernel's layer has them. */
static struct vf_values values_of(const struct port_vf *vf)
{
	static const enum vf_knob knobs[] = {[PORT_VF_MAC] = VF_MAC,
		[PORT_VF_VLAN] = VF_VLAN,
		[PORT_VF_RATE] = VF_RATE,
		[PORT_VF_SPOOF_CHECK] = VF_SPOOF_CHECK,
		[PORT_VF_TRUST] = VF_TRUST,
		[PORT_VF_LINK_STATE] = VF_LINK_STATE};
	struct vf_values values = {.vlan = vf->vlan,
		.qos = vf->qos,
		.min_rate = vf->min_rate,
		.max_rate = vf->max_rate,
		.spoof_check = vf->spoof_check,
		.trust = vf->trust,
		.link_state = vf->link_state};

	for (size_t i = 0; i < ARRAY_SIZE(knobs); i++)
		if (vf->has & 1u << i)
			values.has |= 1u << knobs[i];
	memcpy(values.mac, vf->mac, sizeof(values.mac));
	return values;
}

static const struct sriov_vf *find_vf(const struct controller *c, const struct port *port)
{
	return port->pci ? sriov_find_address(&c->sriov, port->pci)
			 : sriov_find(&c->sriov, c->devices, c->n_devices, port->vf_pf, port->vf_index);
}

static int collect(struct controller *c, struct vf_wish **ret, size_t *ret_n)
{
	const struct topology *topology = c->topology;
	size_t n = 0;

	for (size_t i = 0; i < topology->n_ports; i++)
		n += topology->ports[i].object->port.vf != NULL;
	*ret_n = 0;
	*ret = n ? calloc(n, sizeof(**ret)) : NULL;
	if (n && !*ret)
		return -ENOMEM;
	for (size_t i = 0; i < topology->n_ports && n; i++) {
		const struct port *port = &topology->ports[i].object->port;
		const struct sriov_vf *vf = port->vf ? find_vf(c, port) : NULL;
		const struct netdev *device = vf && port->vf_pf ? pf_device(c, port->vf_pf) : NULL;
		uint32_t ifindex = device ? device->ifindex : vf ? c->sriov.pfs[vf->pf].ifindex : 0;
		struct vf_wish *wish = &(*ret)[*ret_n];

		if (!ifindex)
			continue; /* its port says what is missing */
		*wish = (struct vf_wish){.pf_ifindex = ifindex, .index = vf->index, .values = values_of(port->vf)};
		memcpy(wish->pf, c->sriov.pfs[vf->pf].address, sizeof(wish->pf));
		++*ret_n;
	}
	return 0;
}

static void tell_refused(const struct controller *c, const struct vf_wish *wish)
{
	for (enum vf_knob knob = 0; knob < VF_KNOBS; knob++) {
		int before = 0;

		for (size_t i = 0; i < c->n_vf_wishes; i++)
			if (c->vf_wishes[i].index == wish->index && strcmp(c->vf_wishes[i].pf, wish->pf) == 0)
				before = c->vf_wishes[i].refused[knob];
		if (wish->refused[knob] && wish->refused[knob] != before)
			log_warn(wish->refused[knob], "VF %u of %s: %s is refused", wish->index, wish->pf, vf_knob_names[knob]);
	}
}

bool vfs_wanted(const struct controller *c)
{
	bool wanted = c->n_vf_wishes || (c->view.host && c->view.host->n_sriov);

	for (size_t i = 0; c->topology && i < c->topology->n_ports && !wanted; i++)
		wanted = c->topology->ports[i].object->port.vf;
	return wanted;
}

int vfs_sync(struct controller *c)
{
	struct vf_wish *wishes = NULL;
	size_t n = 0;
	char boot[64];
	int r;

	if (!c->vfs_due)
		return 0;
	if (!c->vfs_begun) {
		_cleanup_free_ char *path = NULL;

		/* An earlier agent may have left something to put back. */
		if (asprintf(&path, "%s/vfs", c->options->state_dir) < 0) {
			path = NULL;
			return -ENOMEM;
		}
		c->vfs_left = access(path, F_OK) == 0;
		c->vfs_begun = true;
	}
	r = collect(c, &wishes, &n);
	if (r < 0)
		return r;
	if (n || c->vfs_left || c->n_vf_wishes) {
		r = c->vfs_left ? sriov_look(c) : 0;
		vf_loan_boot(boot);
		if (r == 0)
			r = vf_sync(&vf_kernel, c->options->state_dir, boot, wishes, n, find_pf, &c->sriov, &c->vfs_left);
	}
	if (r < 0) {
		free(wishes);
		return r;
	}
	for (size_t i = 0; i < n; i++)
		tell_refused(c, &wishes[i]);
	free(c->vf_wishes);
	c->vf_wishes = wishes;
	c->n_vf_wishes = n;
	c->vfs_due = false;
	return 0;
}

/* For --detach: nothing of ours stays set. */
int vfs_restore(const char *state_dir)
{
	_cleanup_free_ char *path = NULL;
	struct controller c = {.sriov_events = -1, .loans = -1};
	size_t left;
	char boot[64];
	int r;

	if (asprintf(&path, "%s/vfs", state_dir) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	if (access(path, F_OK) < 0)
		return 0;
	r = sriov_once(&c);
	vf_loan_boot(boot);
	if (r == 0)
		r = vf_sync(&vf_kernel, state_dir, boot, NULL, 0, find_pf, &c.sriov, &left);
	sriov_clear(&c.sriov);
	free(c.devices);
	return r;
}

/* --- the Host's NICs --- */

struct step {
	struct sriov_pf pf; /* as it was */
	char device[IF_NAMESIZE];
	bool set_vfs;
	uint32_t vfs;
	enum eswitch_mode mode; /* ESWITCH_UNKNOWN: as it is */
	char reason[128];	/* "": done */
};

struct sriov_job {
	pthread_t thread;
	int done_fd;
	struct step *steps;
	size_t n;
};

static int write_vfs(const struct sriov_pf *pf, uint32_t n)
{
	_cleanup_close_ int fd = -1;
	char path[PATH_MAX], text[16];

	if (snprintf(path, sizeof(path), "%s/bus/%s/devices/%s/sriov_numvfs", sys_tree(), pf->bus, pf->address) >=
		(int)sizeof(path))
		return -ENAMETOOLONG;
	snprintf(text, sizeof(text), "%u", n);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd < 0 ? -errno : file_write_all(fd, text, strlen(text));
}

/*
 * ice takes a mode only without VFs, bnxt only with some, others either way: first the mode, and again behind the VFs where that was refused. What VFs
 * exist is left to whoever uses them.
 */
static void run_step(struct step *step)
{
	bool wants_mode = step->mode != ESWITCH_UNKNOWN && step->mode != step->pf.eswitch;
	int mode = 0, r = 0;

	if (wants_mode)
		mode = devlink_set_eswitch(step->pf.bus, step->pf.address, step->mode);
	if (step->set_vfs)
		r = write_vfs(&step->pf, step->vfs);
	if (mode < 0 && step->set_vfs && r == 0)
		mode = devlink_set_eswitch(step->pf.bus, step->pf.address, step->mode);
	if (r < 0)
		snprintf(step->reason, sizeof(step->reason), "cannot make %u VFs: %s", step->vfs, strerror(-r));
	else if (mode < 0)
		snprintf(step->reason, sizeof(step->reason), "cannot set the mode of its switch: %s%s", strerror(-mode),
			step->pf.vfs ? "; it may want to have no VFs then" : "");
}

static void *run_job(void *userdata)
{
	struct sriov_job *job = userdata;

	for (size_t i = 0; i < job->n; i++)
		run_step(&job->steps[i]);
	(void)!write(job->done_fd, &(uint64_t){1}, sizeof(uint64_t));
	return NULL;
}

static void job_free(struct sriov_job *job)
{
	if (!job)
		return;
	safe_close(job->done_fd);
	free(job->steps);
	free(job);
}

static int on_job_done(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct controller *c = userdata;
	struct sriov_job *job = c->sriov_job;

	(void)source;
	(void)fd;
	(void)events;
	(void)pthread_join(job->thread, NULL);
	for (size_t i = 0; i < job->n; i++)
		if (job->steps[i].reason[0])
			log_err(0, "%s: %s", job->steps[i].device, job->steps[i].reason);
		else
			log_info("%s is set up for VFs", job->steps[i].device);
	c->sriov_job_done = sd_event_source_disable_unref(c->sriov_job_done);
	c->sriov_job = NULL;
	job_free(job);
	/* Its events come too; this is for those that have none. */
	c->sriov_due = true;
	devices_attach_later(c, 0);
	return 0;
}

static enum eswitch_mode mode_of(enum sriov_eswitch wanted)
{
	return wanted == SRIOV_ESWITCH_SWITCHDEV ? ESWITCH_SWITCHDEV
	       : wanted == SRIOV_ESWITCH_LEGACY	 ? ESWITCH_LEGACY
						 : ESWITCH_UNKNOWN;
}

/* false: there is nothing to do, or no such NIC (pf.address is "" then). */
static bool plan(const struct controller *c, const struct sriov_wish *wish, struct step *ret)
{
	const struct netdev *device = pf_device(c, wish->device);
	const struct sriov_pf *pf = NULL;

	for (size_t i = 0; device && i < c->sriov.n_pfs && !pf; i++)
		if (strcmp(c->sriov.pfs[i].address, device->parent_name) == 0)
			pf = &c->sriov.pfs[i];
	*ret = (struct step){.set_vfs = false};
	if (!pf)
		return false;
	*ret = (struct step){.pf = *pf,
		.set_vfs = wish->has_vfs && wish->vfs != pf->vfs && pf->vfs == 0,
		.vfs = wish->vfs,
		.mode = mode_of(wish->eswitch)};
	snprintf(ret->device, sizeof(ret->device), "%s", device->name);
	return ret->set_vfs || (ret->mode != ESWITCH_UNKNOWN && ret->mode != pf->eswitch);
}

/* Once for each state of affairs: what a driver refused it would refuse again. */
static uint64_t hash_of(const struct step *steps, size_t n)
{
	uint64_t hash = 1;

	for (size_t i = 0; i < n; i++)
		hash = hash_u64(hash_u64(hash_string(hash, steps[i].pf.address), (uint64_t)steps[i].vfs << 32 | steps[i].pf.vfs),
			(uint64_t)steps[i].mode << 32 | (uint64_t)steps[i].pf.eswitch << 8 | steps[i].set_vfs);
	return hash;
}

/* What exists is somebody's. */
static bool is_other_number(const struct sriov_wish *wish, const struct step *step)
{
	return wish->has_vfs && step->pf.vfs && step->pf.vfs != wish->vfs;
}

static void tell_number(const struct sriov_wish *wish, const struct step *step)
{
	log_notice("%s has %u VFs, where the Host wants %u: they are left to whoever uses them. To have it so: echo 0 "
		   ">/sys/bus/%s/devices/%s/sriov_numvfs",
		step->device, step->pf.vfs, wish->vfs, step->pf.bus, step->pf.address);
}

static int start_job(struct controller *c, struct step *steps, size_t n)
{
	struct sriov_job *job = calloc(1, sizeof(*job));
	int r;

	if (!job)
		return -ENOMEM;
	job->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = job->done_fd < 0 ? -errno : sd_event_add_io(c->event, &c->sriov_job_done, job->done_fd, EPOLLIN, on_job_done, c);
	if (r >= 0) {
		job->steps = steps;
		job->n = n;
		r = -pthread_create(&job->thread, NULL, run_job, job);
	}
	if (r < 0) {
		c->sriov_job_done = sd_event_source_disable_unref(c->sriov_job_done);
		job->steps = NULL;
		job_free(job);
		return r;
	}
	c->sriov_job = job;
	return 0;
}

void host_sriov(struct controller *c, const struct host *host)
{
	_cleanup_free_ struct step *steps = NULL;
	size_t n = 0;
	uint64_t hash, told = 0;
	int r;

	if (!host->n_sriov || c->sriov_job)
		return;
	r = sriov_look(c);
	steps = r == 0 ? calloc(host->n_sriov, sizeof(*steps)) : NULL;
	for (size_t i = 0; steps && i < host->n_sriov; i++) {
		struct step step;
		bool due = plan(c, &host->sriov[i], &step);

		if (is_other_number(&host->sriov[i], &step))
			told = hash_u64(hash_string(told, step.pf.address), (uint64_t)step.pf.vfs << 32 | host->sriov[i].vfs);
		if (due)
			steps[n++] = step;
	}
	for (size_t i = 0; told != c->sriov_told && i < host->n_sriov; i++) {
		struct step step;

		(void)plan(c, &host->sriov[i], &step);
		if (is_other_number(&host->sriov[i], &step))
			tell_number(&host->sriov[i], &step);
	}
	c->sriov_told = told;
	hash = hash_of(steps, n);
	if (!n || hash == c->sriov_tried)
		return;
	c->sriov_tried = hash;
	/* Drivers refuse another mode, or lose count, while there are rules. None are made until it is done. */
	offload_before(c, NULL);
	r = start_job(c, steps, n);
	if (r < 0)
		log_err(r, "cannot set up NICs for VFs");
	else
		steps = NULL;
}

/* A step that has begun ends: half a change of a NIC is worse than a late end. */
void vfs_free(struct controller *c)
{
	if (c->sriov_job)
		(void)pthread_join(c->sriov_job->thread, NULL);
	sd_event_source_disable_unref(c->sriov_job_done);
	job_free(c->sriov_job);
	free(c->vf_wishes);
}

/* --- telling --- */

int vfs_list(void *userdata, json_t **ret, struct diag *diag)
{
	struct controller *c = userdata;
	int r;

	/* Files of /sys have no events of all that they show: a driver that was bound, for one. */
	c->sriov_due = true;
	r = sriov_look(c);
	if (r < 0) {
		diag_add(diag, NULL, 0, NULL, "cannot look for VFs");
		return r;
	}
	*ret = vfs_json(&c->view, &c->sriov, &vf_kernel, c->vf_wishes, c->n_vf_wishes);
	return *ret ? 0 : -ENOMEM;
}
