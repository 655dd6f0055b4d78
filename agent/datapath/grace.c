/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting until no packet still reads what was in force before.
 *
 * XDP and TC programs run inside an RCU read-side section, so what is needed is an RCU grace period, and user space has no call
 * for one: membarrier(2) only orders memory between threads of user space. But the kernel owes one to whoever replaces an inner map: since
 * a program may still hold the old one, bpf_map_update_elem() on a map of maps ends with synchronize_rcu() (commit
 * 1ae80cf31938, "bpf: wait for running BPF programs when updating map-in-map"; part of the documented behaviour of such maps). So we keep one
 * that nothing else uses, and store the same inner map into it again. Measured at 7-20 ms.
 */
#include <errno.h>

#include <bpf/bpf.h>

#include <datapath/internal.h>

static int grace_open(struct datapath *dp)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts);
	_cleanup_close_ int inner = -1, outer = -1;

	inner = bpf_map_create(BPF_MAP_TYPE_ARRAY, "grace_inner", 4, 4, 1, NULL);
	if (inner < 0)
		return -errno;
	opts.inner_map_fd = (uint32_t)inner;
	outer = bpf_map_create(BPF_MAP_TYPE_ARRAY_OF_MAPS, "grace", 4, 4, 1, &opts);
	if (outer < 0)
		return -errno;
	dp->grace_inner = TAKE_FD(inner);
	dp->grace_outer = TAKE_FD(outer);
	return 0;
}

int grace_wait(struct datapath *dp)
{
	uint32_t zero = 0;
	int r;

	if (!dp->grace_pending)
		return 0;
	if (dp->grace_outer < 0) {
		r = grace_open(dp);
		if (r < 0)
			return log_err(r, "cannot make the map that waits for a grace period");
	}
	if (bpf_map_update_elem(dp->grace_outer, &zero, &dp->grace_inner, BPF_ANY) < 0)
		return log_err(-errno, "cannot wait for a grace period");
	dp->grace_pending = false;
	return 0;
}
