/* SPDX-License-Identifier: Apache-2.0 */
/* TCX links, one a direction, ahead of what other programs are there. */
#include <errno.h>
#include <string.h>

#include <bpf/bpf.h>

#include <datapath/compat.h>
#include <datapath/internal.h>

static const struct {
	enum link_kind kind;
	int attach_type;
} sides[HD_DIRECTIONS] = {
	[HD_INGRESS] = {LINK_TCX_IN, COMPAT_BPF_TCX_INGRESS},
	[HD_EGRESS] = {LINK_TCX_OUT, COMPAT_BPF_TCX_EGRESS},
};

static int attach_side(struct datapath *dp, const struct load *load, struct attached *at, enum hd_direction direction)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts, .flags = COMPAT_BPF_F_BEFORE);
	enum link_kind kind = sides[direction].kind;
	int program = load->program[attached_hook(at, direction)], r;

	if (at->link[kind] >= 0)
		return bpf_link_update(at->link[kind], program, NULL) < 0 ? -errno : 0;
	at->link[kind] = bpf_link_create(program, (int)at->ifindex, (enum bpf_attach_type)sides[direction].attach_type, &opts);
	if (at->link[kind] < 0) {
		r = -errno;
		at->link[kind] = -1;
		/* A kernel before 6.6 knows neither the attach type nor, for this kind of program, links at all. */
		return r == -EINVAL || r == -ENOTSUP ? -EOPNOTSUPP : r;
	}
	r = pin_link(dp, at, kind);
	if (r < 0)
		attached_drop_link(dp, at, kind);
	return r;
}

int tcx_attach(struct datapath *dp, struct load *load, struct attached *at)
{
	int r = attach_side(dp, load, at, HD_INGRESS);

	return r < 0 ? r : attach_side(dp, load, at, HD_EGRESS);
}

unsigned tcx_foreign_ahead(uint32_t ifindex, int attach_type, uint32_t own_id)
{
	__u32 ids[64] = {0}, n = ARRAY_SIZE(ids), flags = 0;

	if (bpf_prog_query((int)ifindex, (enum bpf_attach_type)attach_type, 0, &flags, ids, &n) < 0)
		return 0;
	for (unsigned i = 0; i < n && i < ARRAY_SIZE(ids); i++)
		if (ids[i] == own_id)
			return i;
	return own_id ? 0 : n;
}
