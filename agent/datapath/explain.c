/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dry-run twins: the same objects loaded a second time over the same maps, with dry_run true in .rodata, so that the verifier takes
 * out every write. They are never attached; a made packet is run through them by BPF_PROG_TEST_RUN.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <datapath/internal.h>

static int take_twin(struct load *load, const struct bpf_object *object, enum hd_hook hook)
{
	const struct bpf_program *program = bpf_object__find_program_by_name(object, hook_program_name[hook]);
	int fd = program ? fcntl(bpf_program__fd(program), F_DUPFD_CLOEXEC, 3) : -1;

	if (fd < 0)
		return program ? -errno : -ENOENT;
	load->twin[hook] = fd;
	return 0;
}

static int load_twins(struct load *load, enum hd_hook hook)
{
	struct bpf_object *object = NULL;
	bool yes = true;
	int r = object_open(program_object(hook), &object);

	if (r < 0)
		return r;
	r = object_set_constant(object, "dry_run", &yes, sizeof(yes));
	if (r == 0)
		r = load_reuse_maps(load, object);
	if (r == 0)
		r = object_load(object, "dry-run twins");
	if (r == 0 && hook == HD_HOOK_XDP_UPLINK) {
		r = take_twin(load, object, hook);
	} else if (r == 0) {
		r = take_twin(load, object, HD_HOOK_TC_UPLINK_IN);
		if (r == 0)
			r = take_twin(load, object, HD_HOOK_TC_UPLINK_OUT);
	}
	bpf_object__close(object);
	return r < 0 ? log_err(r, "cannot load the dry-run twin of %s", hook_program_name[hook]) : 0;
}

int datapath_explain(struct datapath *dp, const struct datapath_probe *probe, struct hd_explain *ret)
{
	struct load *load = dp->live && dp->live->control ? dp->live : dp->next;
	struct hd_explain explain = {.ifindex = probe->ifindex,
		.ingress_ifindex = probe->ingress_ifindex,
		.vlan_present = probe->vlan_proto != 0,
		.vlan_tci = probe->vlan_tci,
		.vlan_proto = probe->vlan_proto};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = probe->frame, .data_size_in = (uint32_t)probe->length, .repeat = 1);
	uint32_t zero = 0;
	int map, r;

	if (!load || !load->control)
		return -ENOTCONN;
	if ((unsigned)probe->hook >= HD_HOOKS || probe->length < 14)
		return -EINVAL;
	if (load->twin[probe->hook] < 0) {
		r = load_twins(load, probe->hook);
		if (r < 0)
			return r;
	}
	map = load->maps[MAP_EXPLAIN].fd;
	if (bpf_map_update_elem(map, &zero, &explain, BPF_ANY) < 0)
		return -errno;
	r = bpf_prog_test_run_opts(load->twin[probe->hook], &opts);
	/* The kernel takes a frame of one page at most, less its own room. */
	if (r == -EINVAL && probe->length > 3000)
		return -EMSGSIZE;
	if (r < 0)
		return log_err(r, "cannot run the dry-run twin of %s", hook_program_name[probe->hook]);
	if (bpf_map_lookup_elem(map, &zero, &explain) < 0)
		return -errno;
	if (!explain.done)
		return log_err(-EIO, "the dry-run twin of %s came to no verdict", hook_program_name[probe->hook]);
	*ret = explain;
	return 0;
}
