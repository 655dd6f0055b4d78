/* SPDX-License-Identifier: Apache-2.0 */
/* What the offload of flows to NICs needs of the data plane. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <datapath/internal.h>

static int take_program(const struct bpf_object *object, const char *name, int *ret)
{
	const struct bpf_program *program = bpf_object__find_program_by_name(object, name);
	int fd = program ? fcntl(bpf_program__fd(program), F_DUPFD_CLOEXEC, 3) : -1;

	if (fd < 0)
		return program ? -errno : -ENOENT;
	*ret = fd;
	return 0;
}

static int load_credit(struct load *load)
{
	struct bpf_object *object = NULL;
	int r = object_open(OBJECT_OFFLOAD, &object);

	if (r < 0)
		return r;
	r = load_reuse_maps(load, object);
	if (r == 0)
		r = object_load(object, "programs that take what NICs have counted");
	if (r == 0 && load->deny < 0)
		r = take_program(object, "offload_deny", &load->deny);
	if (r == 0 && load->credit < 0)
		r = take_program(object, "offload_credit", &load->credit);
	bpf_object__close(object);
	objects_forget();
	return r;
}

int datapath_credit(
	struct datapath *dp, const struct datapath_flow *flow, const uint64_t packets[2], const uint64_t bytes[2], unsigned flags)
{
	struct hd_credit credit = {.epoch = flow->flow.epoch,
		.family = flow->family,
		.flags = (uint8_t)flags,
		.packets = {packets[HD_ORIG], packets[HD_REPLY]},
		.bytes = {bytes[HD_ORIG], bytes[HD_REPLY]}};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = &credit, .data_size_in = sizeof(credit), .repeat = 1);
	struct load *load = load_writable(dp);
	int r;

	if (!load)
		return -ENOTCONN;
	flow_key_of(flow, &credit.key);
	r = load->credit < 0 ? load_credit(load) : 0;
	if (r == 0)
		r = bpf_prog_test_run_opts(load->credit, &opts);
	if (r < 0)
		return log_err(r, "cannot take what a NIC has counted");
	return opts.retval ? -ENOENT : 0;
}

int datapath_credit_deny(struct datapath *dp, uint32_t rule, uint64_t packets, uint64_t bytes, uint64_t frames)
{
	const struct hd_denied denied = {.rule = rule, .packets = packets, .bytes = bytes, .frames = frames};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = &denied, .data_size_in = sizeof(denied), .repeat = 1);
	struct load *load = load_writable(dp);
	int r;

	if (!load)
		return -ENOTCONN;
	r = load->deny < 0 ? load_credit(load) : 0;
	if (r == 0)
		r = bpf_prog_test_run_opts(load->deny, &opts);
	return r < 0 ? log_err(r, "cannot take what a NIC has dropped") : 0;
}

int datapath_established(struct datapath *dp, const struct datapath_flow *const *flows, size_t n, bool *ret)
{
	const struct load *load = load_readable(dp);
	const struct map *map = load ? &load->maps[MAP_FLOW_SLOTS] : NULL;
	size_t length = map ? (size_t)map->max_entries * sizeof(struct hd_flow_slot) : 0;
	const struct hd_flow_slot *slots;

	if (!map || map->fd < 0)
		return -ENOTCONN;
	slots = mmap(NULL, length, PROT_READ, MAP_SHARED, map->fd, 0);
	if (slots == MAP_FAILED)
		return -errno;
	for (size_t i = 0; i < n; i++) {
		const struct hd_flow_slot *slot = &slots[flows[i]->flow.slot % map->max_entries];

		ret[i] = slot->used == flows[i]->family && slot->epoch == flows[i]->flow.epoch &&
			 slot->flow.state == HD_FS_TCP_ESTABLISHED;
	}
	munmap((void *)slots, length);
	return 0;
}

int datapath_record(struct datapath *dp, uint32_t ifindex, struct hd_port *ret, uint32_t *ret_generation)
{
	const struct load *load = load_writable(dp);

	if (!load)
		return -ENOTCONN;
	*ret_generation = load->control->generation;
	return port_read(load, ifindex, ret);
}

int datapath_clsact(struct datapath *dp, uint32_t ifindex)
{
	return clsact_make(dp->bpffs, ifindex);
}

void datapath_clsact_release(struct datapath *dp, uint32_t ifindex)
{
	const struct attached *at = attached_by_ifindex(dp, ifindex);

	if (!at || !at->clsact)
		(void)clsact_detach(dp->bpffs, ifindex);
}

int datapath_learnt(struct datapath *dp, uint16_t network, const uint8_t mac[6], struct hd_fdb *ret)
{
	const struct load *load = load_writable(dp);
	struct hd_fdb_key key = {.network = network};
	struct hd_fdb known;

	memcpy(key.mac, mac, sizeof(key.mac));
	if (load_map(load, MAP_FDB) < 0)
		return -ENOTCONN;
	if (bpf_map_lookup_elem(load_map(load, MAP_FDB), &key, &known) < 0)
		return -ENOENT;
	if ((int32_t)(tick_now(load) - known.seen) > (int32_t)ticks_of_ms(HD_FDB_SECONDS * 1000))
		return -ENOENT;
	*ret = known;
	return 0;
}

int datapath_peer(struct datapath *dp, uint32_t peer, struct hd_peer *ret)
{
	const struct load *load = load_writable(dp);

	if (!load || !load->peers || peer == 0 || peer >= load->maps[MAP_PEERS].max_entries ||
		!(load->peers[peer].flags & HD_PEER_USED))
		return -ENOENT;
	*ret = load->peers[peer];
	return 0;
}
