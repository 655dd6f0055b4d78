/* SPDX-License-Identifier: Apache-2.0 */
/* XDP by link: native where the driver takes it, else generic; another program on the device is left alone, and TC judges. */
#include <errno.h>
#include <string.h>
#include <linux/if_link.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <datapath/internal.h>

int xdp_mode_of(uint32_t ifindex, uint32_t program_id, uint32_t *ret_flags)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, opts);
	int r = bpf_xdp_query((int)ifindex, 0, &opts);

	if (r < 0)
		return r;
	if (opts.drv_prog_id == program_id)
		*ret_flags = XDP_FLAGS_DRV_MODE;
	else if (opts.skb_prog_id == program_id)
		*ret_flags = XDP_FLAGS_SKB_MODE;
	else
		return -ENOENT;
	return 0;
}

static uint32_t foreign_program(uint32_t ifindex, uint32_t own_id)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, opts);
	const uint32_t *ids[] = {&opts.drv_prog_id, &opts.skb_prog_id, &opts.hw_prog_id};

	if (bpf_xdp_query((int)ifindex, 0, &opts) < 0)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
		if (*ids[i] && *ids[i] != own_id)
			return *ids[i];
	return 0;
}

unsigned xdp_foreign(uint32_t ifindex, uint32_t own_id)
{
	return foreign_program(ifindex, own_id) ? 1 : 0;
}

unsigned xdp_program(uint32_t flags)
{
	return flags == XDP_FLAGS_SKB_MODE ? PROGRAM_XDP_GENERIC : HD_HOOK_XDP_UPLINK;
}

int xdp_update(struct load *load, const struct attached *at)
{
	unsigned program = xdp_program(at->xdp_flags);
	int r = program == PROGRAM_XDP_GENERIC ? load_generic(load) : 0;

	if (r < 0)
		return r;
	return bpf_link_update(at->link[LINK_XDP], load->program[program], NULL) < 0 ? -errno : 0;
}

/* An attached program stays as it is where it satisfies the document: going to native would mean to detach in between. */
bool xdp_keeps(const struct attached *at, enum xdp_mode want)
{
	if (at->link[LINK_XDP] < 0)
		return false;
	switch (want) {
	case XDP_MODE_AUTO:
		return true;
	case XDP_MODE_NATIVE:
		return at->xdp_flags == XDP_FLAGS_DRV_MODE;
	case XDP_MODE_GENERIC:
		return at->xdp_flags == XDP_FLAGS_SKB_MODE;
	case XDP_MODE_OFF:
		break;
	}
	return false;
}

/* A veth with native XDP has no GSO: whoever is at its other end would send each segment by itself. */
bool xdp_spoils_tunnel(const struct datapath_uplink *uplink)
{
	return uplink->tunnel && uplink->decapsulate != TUNNEL_DECAPSULATE_XDP && uplink->xdp == XDP_MODE_AUTO &&
	       uplink_is_veth(uplink);
}

static void name_of_program(uint32_t id, char name[BPF_OBJ_NAME_LEN])
{
	_cleanup_close_ int fd = bpf_prog_get_fd_by_id(id);
	struct bpf_prog_info info = {0};
	__u32 size = sizeof(info);

	snprintf(name, BPF_OBJ_NAME_LEN, "?");
	if (fd >= 0 && bpf_obj_get_info_by_fd(fd, &info, &size) == 0 && info.name[0])
		memcpy(name, info.name, BPF_OBJ_NAME_LEN);
}

static int try_mode(struct load *load, struct attached *at, uint32_t flags)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts, .flags = flags);
	unsigned program = xdp_program(flags);
	_cleanup_close_ int fd = -1;
	uint32_t reached = 0;
	int r = program == PROGRAM_XDP_GENERIC ? load_generic(load) : 0;

	if (r < 0)
		return r;
	fd = bpf_link_create(load->program[program], (int)at->ifindex, BPF_XDP, &opts);
	if (fd < 0)
		return -errno;
	/* What a driver does with a mode is its own affair: ask what it came to. */
	r = xdp_mode_of(at->ifindex, load->info[program].id, &reached);
	if (r < 0)
		return r;
	at->xdp_flags = reached;
	at->link[LINK_XDP] = TAKE_FD(fd);
	return 0;
}

static const char *mode_name(uint32_t flags)
{
	return flags == XDP_FLAGS_DRV_MODE ? "native" : "generic";
}

int xdp_attach(struct datapath *dp, struct load *load, struct attached *at, const struct datapath_uplink *uplink)
{
	static const uint32_t modes[][2] = {
		[XDP_MODE_AUTO] = {XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE},
		[XDP_MODE_NATIVE] = {XDP_FLAGS_DRV_MODE},
		[XDP_MODE_GENERIC] = {XDP_FLAGS_SKB_MODE},
		[XDP_MODE_OFF] = {0},
	};
	char reason[sizeof(at->xdp_reason)] = "";
	int r = -EOPNOTSUPP;

	if (uplink->xdp == XDP_MODE_OFF) {
		/* of the agent's own devices no document says anything */
		if (!uplink->slow && !uplink->sum)
			snprintf(reason, sizeof(reason), "off by the Host document");
	} else if (uplink->hides_tags) {
		snprintf(reason, sizeof(reason), "networks have VLANs, whose tags the device hides from XDP: ethtool -K %s %s",
			at->device, uplink->hides_tags);
	} else if (xdp_spoils_tunnel(uplink)) {
		snprintf(reason, sizeof(reason),
			"the tunnel is decapsulated in TC: native XDP on a veth would take GSO away from its other end");
	} else if (!uplink->ethernet) {
		snprintf(reason, sizeof(reason), "the device has no Ethernet header");
	} else {
		uint32_t foreign = foreign_program(at->ifindex, 0); /* ours is not there */
		char name[BPF_OBJ_NAME_LEN];

		if (foreign) {
			name_of_program(foreign, name);
			snprintf(reason, sizeof(reason), "another XDP program is attached (%s, id %u) and left alone", name,
				foreign);
		} else {
			for (size_t i = 0; i < 2 && modes[uplink->xdp][i]; i++) {
				size_t length = strlen(reason);

				r = try_mode(load, at, modes[uplink->xdp][i]);
				if (r == 0)
					break;
				snprintf(reason + length, sizeof(reason) - length, "%s%s%s%s: %s", length ? "; " : "",
					mode_name(modes[uplink->xdp][i]), *uplink->driver ? " on " : "", uplink->driver,
					strerror(-r));
			}
			if (r < 0)
				r = -EOPNOTSUPP;
		}
	}
	if (strcmp(reason, at->xdp_reason) != 0 && *reason && uplink->xdp != XDP_MODE_OFF)
		log_notice("%s: XDP is %s: %s", at->device, r == 0 ? mode_name(at->xdp_flags) : "off, TC alone judges", reason);
	memcpy(at->xdp_reason, reason, sizeof(reason));
	if (r < 0)
		return r;
	r = pin_link(dp, at, LINK_XDP);
	if (r < 0) {
		attached_drop_link(dp, at, LINK_XDP);
		return log_err(r, "cannot pin the XDP link of %s", at->device);
	}
	return 0;
}
