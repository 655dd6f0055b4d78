/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dry-run twins: the same objects loaded a second time over the same maps, with dry_run true in .rodata, so that the verifier takes
 * out every write. They are never attached; a made packet is run through them by BPF_PROG_TEST_RUN.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <arpa/inet.h>
#include <linux/if_ether.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <datapath/internal.h>

/* An Ethernet and an IPv6 header: what the kernel may find too short for an skb. */
#define SHORT_FRAME (ETH_HLEN + 40)

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
	for (unsigned other = 0; other < HD_HOOKS && r == 0; other++)
		if (program_object(other) == program_object(hook))
			r = take_twin(load, object, other);
	bpf_object__close(object);
	objects_forget();
	return r < 0 ? log_err(r, "cannot load the dry-run twin of %s", hook_program_name[hook]) : 0;
}

static int run_twin(struct load *load, enum hd_hook hook, const void *frame, size_t length, struct hd_explain *explain)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = (uint32_t)length, .repeat = 1);
	int map = load->maps[MAP_EXPLAIN].fd, r = load->twin[hook] < 0 ? load_twins(load, hook) : 0;
	uint32_t zero = 0;

	if (r < 0)
		return r;
	if (bpf_map_update_elem(map, &zero, explain, BPF_ANY) < 0)
		return -errno;
	r = bpf_prog_test_run_opts(load->twin[hook], &opts);
	if (r < 0)
		return r;
	return bpf_map_lookup_elem(map, &zero, explain) < 0 ? -errno : 0;
}

/*
 * The kernel makes no skb of a frame that ends with its Ethernet header, or that says IP and holds less than the IP header. The first
 * gets one byte of padding, which no rule and no check looks at. The second is for the parser alone to drop, whatever the direction, and
 * XDP's twin has the same one; it gets the tag where XDP would see it.
 */
static int run_short(struct load *load, const struct datapath_probe *probe, struct hd_explain *explain)
{
	uint8_t frame[SHORT_FRAME + 4];
	size_t length = probe->length, addresses = 2 * ETH_ALEN;
	const uint8_t *bytes = probe->frame;
	uint16_t type = (uint16_t)(bytes[addresses] << 8 | bytes[addresses + 1]);
	__be16 tag[2] = {htons(probe->vlan_proto), htons(probe->vlan_tci)};

	memcpy(frame, bytes, length);
	if (type != ETH_P_IP && type != ETH_P_IPV6) {
		frame[length] = 0;
		return run_twin(load, probe->hook, frame, length + 1, explain);
	}
	if (probe->vlan_proto) {
		memmove(frame + addresses + sizeof(tag), frame + addresses, length - addresses);
		memcpy(frame + addresses, tag, sizeof(tag));
		length += sizeof(tag);
		explain->vlan_present = 0;
	}
	return run_twin(load, HD_HOOK_XDP_UPLINK, frame, length, explain);
}

int datapath_explain(struct datapath *dp, const struct datapath_probe *probe, struct hd_explain *ret)
{
	struct load *load = dp->live && dp->live->control ? dp->live : dp->next;
	const struct hd_explain in = {.ifindex = probe->ifindex,
		.ingress_ifindex = probe->ingress_ifindex,
		.vlan_present = probe->vlan_proto != 0,
		.vlan_tci = probe->vlan_tci,
		.vlan_proto = probe->vlan_proto,
		.from_network = probe->from_network,
		.from_peer = probe->from_peer};
	struct hd_explain explain = in;
	int r;

	if (!load || !load->control)
		return -ENOTCONN;
	if ((unsigned)probe->hook >= HD_HOOKS || probe->length < ETH_HLEN)
		return -EINVAL;
	r = run_twin(load, probe->hook, probe->frame, probe->length, &explain);
	if (r == -EINVAL && probe->hook != HD_HOOK_XDP_UPLINK && probe->length < SHORT_FRAME) {
		explain = in;
		r = run_short(load, probe, &explain);
	}
	/* The kernel takes a frame of one page at most, less its own room. */
	if (r == -EINVAL && probe->length > 3000)
		return -EMSGSIZE;
	if (r < 0)
		return log_err(r, "cannot run the dry-run twin of %s", hook_program_name[probe->hook]);
	if (!explain.done)
		return log_err(-EIO, "the dry-run twin of %s came to no verdict", hook_program_name[probe->hook]);
	*ret = explain;
	return 0;
}
