/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The set of guarded devices. For a device that is guarded already everything happens in place: the record in the new tables
 * first, then one link after the other is updated; each packet is judged by the old programs or by the new ones, all of it.
 * For a new device TC comes first and XDP last, so that no metadata is believed before our own program writes it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <linux/if_link.h>

#include <bpf/bpf.h>

#include <datapath/compat.h>
#include <datapath/internal.h>

const char *const link_kind_name[LINK_KINDS] = {[LINK_XDP] = "xdp", [LINK_TCX_IN] = "tcx_in", [LINK_TCX_OUT] = "tcx_out"};

struct attached *attached_by_ifindex(struct datapath *dp, uint32_t ifindex)
{
	uint16_t *hint = &dp->attached_hint[ifindex % ATTACHED_HINTS];

	if (*hint < dp->n_attached && dp->attached[*hint].ifindex == ifindex)
		return &dp->attached[*hint];
	for (size_t i = 0; i < dp->n_attached; i++)
		if (dp->attached[i].ifindex == ifindex) {
			*hint = (uint16_t)i;
			return &dp->attached[i];
		}
	return NULL;
}

struct attached *attached_by_device(struct datapath *dp, const char *device)
{
	for (size_t i = 0; i < dp->n_attached; i++)
		if (strcmp(dp->attached[i].device, device) == 0)
			return &dp->attached[i];
	return NULL;
}

struct attached *attached_add(struct datapath *dp, const char *device, uint32_t ifindex)
{
	struct attached *at = attached_by_ifindex(dp, ifindex), *grown;

	if (at)
		return at;
	grown = reallocarray(dp->attached, dp->n_attached + 1, sizeof(*grown));
	if (!grown)
		return NULL;
	dp->attached = grown;
	at = &dp->attached[dp->n_attached++];
	*at = (struct attached){.ifindex = ifindex, .link = {-1, -1, -1}};
	snprintf(at->device, sizeof(at->device), "%s", device);
	return at;
}

/* ifindex 0: the device is gone, and the link with it. -EINVAL: not a link of the kinds we make. */
int link_inspect(int fd, enum link_kind *ret_kind, uint32_t *ret_ifindex, uint32_t *ret_program)
{
	/* For TCX: ifindex and attach type, where the headers of 6.1 have XDP's ifindex alone. */
	union {
		struct bpf_link_info info;
		uint8_t room[256];
	} link = {0};
	__u32 size = sizeof(link), attach_type;

	if (bpf_obj_get_info_by_fd(fd, &link, &size) < 0)
		return -errno;
	memcpy(&attach_type, (uint8_t *)&link.info.xdp.ifindex + sizeof(__u32), sizeof(attach_type));
	if (link.info.type == BPF_LINK_TYPE_XDP)
		*ret_kind = LINK_XDP;
	else if (link.info.type == COMPAT_BPF_LINK_TYPE_TCX)
		*ret_kind = attach_type == COMPAT_BPF_TCX_INGRESS ? LINK_TCX_IN : LINK_TCX_OUT;
	else
		return -EINVAL;
	*ret_ifindex = link.info.xdp.ifindex;
	*ret_program = link.info.prog_id;
	return 0;
}

void attached_drop_link(struct datapath *dp, struct attached *at, enum link_kind kind)
{
	if (at->link[kind] < 0)
		return;
	/* The last close would do, but only some time later: the kernel defers it. */
	(void)bpf_link_detach(at->link[kind]);
	pin_link_remove(dp, at->device, kind);
	at->link[kind] = safe_close(at->link[kind]);
}

void attached_release(struct datapath *dp, size_t index)
{
	struct attached *at = &dp->attached[index];

	decap_end(dp, at);
	for (unsigned kind = 0; kind < LINK_KINDS; kind++)
		attached_drop_link(dp, at, kind);
	if (at->clsact)
		(void)clsact_detach(dp->bpffs, at->ifindex);
	if (dp->live && dp->live->control)
		(void)port_clear(dp->live, at->ifindex);
	if (dp->next)
		(void)port_clear(dp->next, at->ifindex);
	limits_forget(dp->next ? dp->next : dp->live, at->ifindex);
	log_info("%s is no longer %s", at->device, at->role == ROLE_PORT ? "a port" : "guarded");
	memmove(at, at + 1, (dp->n_attached - index - 1) * sizeof(*at));
	dp->n_attached--;
}

/* Links of a device that went away have ended, though their descriptors and pins are still there. */
static void drop_dead_links(struct datapath *dp, struct attached *at)
{
	for (unsigned kind = 0; kind < LINK_KINDS; kind++) {
		enum link_kind found;
		uint32_t ifindex = 0, program;

		if (at->link[kind] < 0)
			continue;
		if (link_inspect(at->link[kind], &found, &ifindex, &program) == 0 && ifindex == at->ifindex)
			continue;
		attached_drop_link(dp, at, kind);
	}
}

static bool follow_rename(struct datapath *dp, struct attached *at, const char *device)
{
	if (strcmp(at->device, device) == 0)
		return false;
	log_info("%s is called %s now", at->device, device);
	snprintf(at->device, sizeof(at->device), "%s", device);
	for (unsigned kind = 0; kind < LINK_KINDS; kind++)
		if (at->link[kind] >= 0)
			(void)pin_link(dp, at, kind);
	return true;
}

/* Old names go only when all new ones are there: two devices may have swapped theirs. */
static int remove_old_name(const char *path, const char *name, void *userdata)
{
	const struct datapath *dp = userdata;
	char expected[LINK_PIN_NAME];

	for (size_t i = 0; i < dp->n_attached; i++)
		for (unsigned kind = 0; kind < LINK_KINDS; kind++) {
			link_pin_name(expected, dp->attached[i].device, kind);
			if (dp->attached[i].link[kind] >= 0 && strcmp(expected, name) == 0)
				return 0;
		}
	(void)unlink(path);
	return 0;
}

void attached_refresh(struct datapath *dp, struct attached *at, const char *device, bool *renamed)
{
	drop_dead_links(dp, at);
	*renamed |= follow_rename(dp, at, device);
}

void attached_remove_old_names(struct datapath *dp)
{
	(void)pin_each(dp->bpffs, "links", remove_old_name, dp);
}

static const struct hd_port_policy *policy_of(const char *device, const struct uplink_policy *policies, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(policies[i].device, device) == 0)
			return &policies[i].policy;
	return NULL;
}

/* Of a set that no rule names: its own tree says no. Of the first generation, so that no later one is needed. */
static const struct hd_port_policy policy_of_slow = {.generation = 1,
	.set = {HD_SET_SEVERAL - 1, HD_SET_SEVERAL - 1},
	.version = {1, 1},
	.root = {HD_LEAF(0, HD_DENY, false), HD_LEAF(0, HD_DENY, false)}};

static unsigned tcx_programs(uint32_t ifindex)
{
	return tcx_foreign_ahead(ifindex, COMPAT_BPF_TCX_INGRESS, 0) + tcx_foreign_ahead(ifindex, COMPAT_BPF_TCX_EGRESS, 0);
}

/*
 * Ports come by the hundred, and somebody waits for each: a TCX link waits for RCU grace periods under RTNL, filters of clsact for none.
 * But only TCX is ahead of other programs of TCX.
 */
static bool prefers_clsact(const struct datapath *dp, const struct attached *at)
{
	return dp->tc == DATAPATH_TC_AUTO && at->role == ROLE_PORT && at->link[LINK_TCX_IN] < 0 && at->link[LINK_TCX_OUT] < 0 &&
	       (at->clsact || tcx_programs(at->ifindex) == 0);
}

int attach_tc(struct datapath *dp, struct load *load, struct attached *at)
{
	int r = -EOPNOTSUPP;

	if (prefers_clsact(dp, at)) {
		r = clsact_attach(dp, load, at);
		at->clsact = at->clsact || r == 0;
		if (at->clsact)
			return r;
		/* Half of it may be there; or somebody's ingress qdisc has the place of ours. */
		(void)clsact_detach(dp->bpffs, at->ifindex);
		r = -EOPNOTSUPP;
	}
	if (dp->tc != DATAPATH_TC_CLSACT && !dp->tcx_refused) {
		r = tcx_attach(dp, load, at);
		if (r == -EOPNOTSUPP && dp->tc == DATAPATH_TC_AUTO) {
			dp->tcx_refused = true;
			log_info("the kernel has no TCX: filters go to the clsact qdisc");
		}
	}
	if (r == -EOPNOTSUPP && dp->tc != DATAPATH_TC_TCX) {
		r = clsact_attach(dp, load, at);
		if (r == 0) {
			/* Of a start on which TCX was chosen; both judged every packet until here. */
			attached_drop_link(dp, at, LINK_TCX_IN);
			attached_drop_link(dp, at, LINK_TCX_OUT);
			at->clsact = true;
		}
	} else if (r == 0 && at->clsact) {
		(void)clsact_detach(dp->bpffs, at->ifindex);
		at->clsact = false;
	}
	return r;
}

static int attach_one(struct datapath *dp, struct load *load, struct attached *at, const struct datapath_uplink *uplink,
	const struct hd_port_policy *policy)
{
	struct hd_port record = {.ifindex = at->ifindex,
		.flags = HD_PORT_UPLINK | (uplink->forward_judge ? HD_PORT_FORWARD_JUDGE : 0) |
			 (uplink->tunnel ? HD_PORT_TUNNEL : 0) | (steer_at(load, at->ifindex) ? HD_PORT_FAST : 0) |
			 (uplink->sum ? HD_PORT_SUM : 0)};
	bool keep = !uplink->hides_tags && !xdp_spoils_tunnel(uplink) && xdp_keeps(at, uplink->xdp);
	int r;

	if (!keep)
		decap_end(dp, at);
	else
		record.flags |= HD_PORT_XDP | (decap_stays(load, at, uplink) ? HD_PORT_DECAP : 0);
	at->written = NULL;
	r = port_write(load, &record, policy);
	if (r < 0)
		return log_err(r, "cannot write the record of %s", at->device);
	r = keep ? xdp_update(load, at) : 0;
	if (r < 0) {
		log_warn(r, "cannot update the XDP program of %s: TC alone judges", at->device);
		snprintf(at->xdp_reason, sizeof(at->xdp_reason), "the link cannot be updated: %s", strerror(-r));
		decap_end(dp, at);
		(void)port_set_flags(load, at->ifindex, 0, HD_PORT_XDP);
		attached_drop_link(dp, at, LINK_XDP);
	}
	r = attach_tc(dp, load, at);
	if (r < 0)
		return log_err(r, "cannot attach to %s: it is not guarded", at->device);
	if (at->link[LINK_XDP] < 0 || !keep) {
		attached_drop_link(dp, at, LINK_XDP);
		r = xdp_attach(dp, load, at, uplink);
		if (r == 0)
			r = port_set_flags(load, at->ifindex, HD_PORT_XDP, 0);
		else if (r == -EOPNOTSUPP)
			r = 0; /* TC judges; xdp_reason says why */
	}
	return r < 0 ? r : decap_begin(load, at, uplink);
}

static int attach_stack(struct datapath *dp, struct load *load, struct attached *at)
{
	int r = load_ports(load, false, true);

	if (r == 0)
		r = attach_tc(dp, load, at);
	return r < 0 ? log_err(r, "cannot attach to %s: the host does not reach workloads behind peers", at->device) : 0;
}

void count_foreign(const struct load *load, struct attached *at)
{
	at->foreign_ahead = 0;
	if (at->link[LINK_TCX_IN] >= 0)
		at->foreign_ahead +=
			tcx_foreign_ahead(at->ifindex, COMPAT_BPF_TCX_INGRESS, load->info[attached_hook(at, HD_INGRESS)].id);
	if (at->link[LINK_TCX_OUT] >= 0)
		at->foreign_ahead +=
			tcx_foreign_ahead(at->ifindex, COMPAT_BPF_TCX_EGRESS, load->info[attached_hook(at, HD_EGRESS)].id);
	if (at->clsact)
		at->foreign_ahead += clsact_foreign_ahead(at->ifindex) + tcx_programs(at->ifindex);
	if (at->role == ROLE_UPLINK)
		at->foreign_ahead += xdp_foreign(at->ifindex, load->info[xdp_program(at->xdp_flags)].id);
}

static const char *xdp_mode_name(const struct attached *at)
{
	if (at->link[LINK_XDP] < 0)
		return "off";
	return at->xdp_flags == XDP_FLAGS_SKB_MODE ? "generic" : "native";
}

static const char *const decap_name[] = {[DECAP_NONE] = NULL, [DECAP_XDP] = "xdp", [DECAP_TC] = "tc"};

int attached_report(struct datapath *dp)
{
	struct datapath_attachment *report = calloc(dp->n_attached + 1, sizeof(*report));
	const struct load *load = load_readable(dp);
	size_t n = 0;

	if (!report)
		return -ENOMEM;
	for (size_t i = 0; i < dp->n_attached; i++) {
		const struct attached *at = &dp->attached[i];
		struct datapath_attachment *to = &report[n];

		if (!at->clsact && (at->link[LINK_TCX_IN] < 0 || at->link[LINK_TCX_OUT] < 0))
			continue; /* the attempt failed, and was reported as an error */
		to->ifindex = at->ifindex;
		to->port = at->role == ROLE_PORT;
		memcpy(to->device, at->device, sizeof(to->device));
		memcpy(to->xdp_reason, at->xdp_reason, sizeof(to->xdp_reason));
		to->decapsulation = to->port ? NULL : decap_name[at->decap];
		memcpy(to->decap_reason, at->decap_reason, sizeof(to->decap_reason));
		to->xdp_mode = xdp_mode_name(at);
		to->tc_mode = at->clsact ? "clsact" : "tcx";
		to->foreign_ahead = at->foreign_ahead;
		n++;
		if (!load)
			continue;
		for (unsigned side = 0; side < HD_DIRECTIONS; side++)
			to->program_id[attached_hook(at, side)] = load->info[attached_hook(at, side)].id;
		if (at->role == ROLE_UPLINK) {
			to->program_id[HD_HOOK_TC_WIRE_IN] = load->info[HD_HOOK_TC_WIRE_IN].id;
			to->program_id[HD_HOOK_TC_TUNNEL_IN] = load->info[HD_HOOK_TC_TUNNEL_IN].id;
		}
		if (at->link[LINK_XDP] >= 0)
			to->program_id[HD_HOOK_XDP_UPLINK] = load->info[xdp_program(load->control ? at->xdp_flags : 0)].id;
	}
	free(dp->report);
	dp->report = report;
	dp->n_report = n;
	return 0;
}

static bool named(const struct attached *at, const struct datapath_uplink *uplinks, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (uplinks[i].ifindex == at->ifindex)
			return true;
	return false;
}

/*
 * The counters of a map that was too small, as late as possible: what the old programs count between this and the update of
 * their links, some 10 microseconds, is all that is lost.
 */
int carry_over(struct datapath *dp)
{
	struct load *load = dp->next;
	const struct map *from;
	int r = 0;

	if (!load || load->attached)
		return 0;
	if (dp->live && load->reset) {
		from = &dp->live->maps[MAP_RULE_COUNTERS];
		if (from->fd >= 0 && from->value_size == sizeof(struct hd_counter))
			r = map_carry(from, &load->maps[MAP_RULE_COUNTERS], load->reset);
	}
	free(load->reset);
	load->reset = NULL;
	load->attached = true;
	return r < 0 ? log_warn(r, "the rules' counters could not be taken over") : 0;
}

int datapath_attach(struct datapath *dp, const struct datapath_uplink *uplinks, size_t n, const struct uplink_policy *policies,
	size_t n_policies)
{
	struct load *load = load_writable(dp);
	bool renamed = false, bare;
	int first_error = 0, r;

	if (!load)
		return -ENOTCONN;
	(void)carry_over(dp);
	for (size_t i = dp->n_attached; i-- > 0;)
		if (dp->attached[i].role != ROLE_PORT && !named(&dp->attached[i], uplinks, n))
			attached_release(dp, i);
	for (size_t i = 0; i < n; i++) {
		const struct hd_port_policy *policy =
			uplinks[i].slow ? &policy_of_slow : policy_of(uplinks[i].device, policies, n_policies);
		struct attached *at = attached_add(dp, uplinks[i].device, uplinks[i].ifindex);

		if (!at)
			return -ENOMEM;
		attached_refresh(dp, at, uplinks[i].device, &renamed);
		at->role = uplinks[i].stack ? ROLE_STACK : ROLE_UPLINK; /* of a device that was a port, the links are updated */
		bare = !at->clsact && at->link[LINK_XDP] < 0 && at->link[LINK_TCX_IN] < 0 && at->link[LINK_TCX_OUT] < 0;
		r = uplinks[i].stack ? attach_stack(dp, load, at) : attach_one(dp, load, at, &uplinks[i], policy);
		if (r < 0 && first_error == 0)
			first_error = r;
		if (r >= 0 && bare && !uplinks[i].stack && !uplinks[i].slow && !uplinks[i].sum)
			log_info("%s is guarded now", at->device);
		count_foreign(load, at);
	}
	if (renamed)
		attached_remove_old_names(dp);
	r = attached_report(dp);
	return first_error ? first_error : r;
}

void datapath_doubt(struct datapath *dp, uint32_t ifindex)
{
	struct attached *at = attached_by_ifindex(dp, ifindex);

	if (at)
		at->doubtful = true;
}

bool datapath_filters_lost(struct datapath *dp, uint32_t ifindex)
{
	bool lost = false;

	for (size_t i = 0; i < dp->n_attached; i++) {
		struct attached *at = &dp->attached[i];
		char name[IF_NAMESIZE];

		if (!at->clsact || (ifindex && at->ifindex != ifindex) || clsact_whole(at->ifindex))
			continue;
		/* A device that goes loses them once it cannot be found any more: nobody removed them, and its own message says the rest. */
		if (!if_indextoname(at->ifindex, name))
			continue;
		log_warn(0, "somebody has removed our filters from %s: they are put back", at->device);
		at->clsact = false;
		lost = true;
	}
	return lost;
}

size_t datapath_attachments(const struct datapath *dp, const struct datapath_attachment **ret)
{
	*ret = dp->report;
	return dp->n_report;
}
