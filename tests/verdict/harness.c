/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the verdict tests call through ctypes: a data plane of its own, filled from documents by the agent's own layers. `lo` is the
 * device of every document here, ifindex 1 its record in the tables; nothing is attached to it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <datapath/internal.h>
#include <model/decode.h>
#include <policy/compile.h>

#define UPLINK 1

struct verdict_world {
	struct datapath *dp;
	struct compiler *compiler;
	uint32_t port_flags;
	char message[4096];
};

struct verdict_run {
	/* in */
	uint32_t hook; /* enum hd_hook, or what verdict_load_switch() returned */
	uint32_t repeat;
	uint32_t meta_length; /* XDP: the frame begins with so many bytes of metadata */
	uint32_t gso_segs, gso_size;
	uint32_t ingress_ifindex, ifindex, mark;
	uint32_t cb;
	uint32_t linear; /* XDP: bytes in the first buffer, 0: all. Kernels that know no such test refuse it. */
	/* out */
	int32_t verdict;    /* the program's return value */
	uint32_t duration;  /* ns a run */
	uint32_t meta_left; /* XDP: bytes of metadata afterwards */
	uint32_t mark_left; /* TC */
	uint64_t leaves;    /* TC: when the frame is to leave, in ns of the monotonic clock; 0: at once */
	uint32_t out_length;
	uint8_t out[9216]; /* XDP: metadata included */
};

struct verdict_world *verdict_open(const char *bpffs, uint32_t flows, uint32_t flows_new, uint32_t flows_other);
void verdict_close(struct verdict_world *world);
int verdict_policy(struct verdict_world *world, const char *text);
const char *verdict_message(const struct verdict_world *world);
int verdict_run(struct verdict_world *world, const void *frame, uint32_t length, struct verdict_run *run);
int verdict_map(const struct verdict_world *world, const char *name);
int verdict_program(struct verdict_world *world, uint32_t hook, int twin);
int verdict_age(struct verdict_world *world);
int verdict_credit(struct verdict_world *world, uint64_t packets, uint64_t bytes, uint32_t flags, int forged);
int verdict_port(struct verdict_world *world, uint32_t ifindex, uint32_t flags, int present);
int verdict_load_ports(struct verdict_world *world);
int verdict_load_switch(struct verdict_world *world);
int verdict_explain(struct verdict_world *world, const struct datapath_probe *probe, struct hd_explain *ret);
int verdict_explain_tunnel(struct verdict_world *world, const void *frame, uint32_t length, struct hd_explain *page);
int verdict_events(struct verdict_world *world, struct hd_event *events, int n);
int verdict_rule(struct verdict_world *world, uint32_t id, char *name, size_t size);
const char *verdict_reason(uint32_t reason);
struct hd_control *verdict_control(struct verdict_world *world);
uint32_t verdict_now(struct verdict_world *world);
int verdict_flow(struct verdict_world *world, struct hd_flow *ret);

static const struct compiler_limits limits = {
	.addr4_nodes = 16384, .addr6_nodes = 16384, .classes = 4096, .rule_nodes = 16384, .rules = 4096, .addr4_tables = 256};

struct verdict_world *verdict_open(const char *bpffs, uint32_t flows, uint32_t flows_new, uint32_t flows_other)
{
	struct datapath_config config = {.bpffs = bpffs};
	struct datapath_sizes sizes = {.policy = limits, .flows = flows, .flows_new = flows_new, .flows_other = flows_other};
	struct datapath_settings settings = {
		.timeouts = {.tcp_established = 28800000,
			.tcp_syn = 60000,
			.tcp_fin = 10000,
			.udp = 30000,
			.udp_stream = 180000,
			.icmp = 10000,
			.other = 60000},
		.log_every = 1,
		.event_rate = 1000000,
		.reject_rate = 1000000,
	};
	struct verdict_world *world = calloc(1, sizeof(*world));
	bool found;

	if (!world)
		return NULL;
	if (datapath_open(&config, &world->dp, &found) < 0 || datapath_load(world->dp, &sizes, &settings, 0) < 0 ||
		compiler_new(&limits, 1, &world->compiler) < 0) {
		verdict_close(world);
		return NULL;
	}
	return world;
}

void verdict_close(struct verdict_world *world)
{
	compiler_free(world->compiler);
	datapath_close(world->dp);
	free(world);
}

static int publish(struct verdict_world *world, const struct host *host, const struct object_list *objects, struct diag *diag)
{
	struct policy_input input = {.host = host, .objects = objects};
	struct compiler_limits needed;
	struct policy_delta *delta;
	struct load *load = load_writable(world->dp);
	int r = compiler_compile(world->compiler, &input, &delta, &needed, diag);

	if (r < 0)
		return r;
	r = datapath_write(world->dp, delta);
	/* Before the switch: nothing reads the record's newer slot until then. */
	world->port_flags =
		HD_PORT_UPLINK | (host->forward_judge ? HD_PORT_FORWARD_JUDGE : 0) | (world->port_flags & HD_PORT_XDP);
	if (r == 0)
		r = port_write(load, &(struct hd_port){.ifindex = UPLINK, .flags = (uint16_t)world->port_flags},
			&delta->uplinks[0].policy);
	if (r == 0)
		r = datapath_publish(world->dp, delta, NULL);
	if (r < 0) {
		compiler_abort(world->compiler);
		return r;
	}
	compiler_commit(world->compiler);
	r = datapath_settle(world->dp);
	compiler_settle(world->compiler);
	return r;
}

/* Makes the documents the policy in force. 0 or a negative errno; verdict_message() says why. */
int verdict_policy(struct verdict_world *world, const char *text)
{
	struct object_list objects = {0};
	struct diag diag = {0};
	const struct host *host = NULL;
	int r = decode_documents("test.yaml", text, strlen(text), &objects, &diag);

	if (r == 0)
		r = model_validate(&objects, &diag);
	for (size_t i = 0; i < objects.n; i++)
		if (objects.items[i]->kind == OBJECT_HOST)
			host = &objects.items[i]->host;
	if (r == 0)
		r = host ? publish(world, host, &objects, &diag) : -ENOENT;
	snprintf(world->message, sizeof(world->message), "%s", diag.text ? diag.text : "");
	diag_clear(&diag);
	object_list_clear(&objects);
	return r;
}

const char *verdict_message(const struct verdict_world *world)
{
	return world->message;
}

static bool on_xdp(uint32_t hook)
{
	return hook == HD_HOOK_XDP_UPLINK || hook == PROGRAM_XDP_SWITCH_SEVERAL;
}

static int run_program(int program, const void *frame, uint32_t length, struct verdict_run *run)
{
	struct xdp_md xdp = {
		.data = run->meta_length, .data_end = run->linear ? run->linear : length, .ingress_ifindex = run->ifindex};
	struct __sk_buff skb = {.mark = run->mark,
		.ifindex = run->ifindex,
		.ingress_ifindex = run->ingress_ifindex,
		.gso_segs = run->gso_segs,
		.gso_size = run->gso_size};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = length, .data_out = run->out,
		.data_size_out = sizeof(run->out), .repeat = (int)(run->repeat ? run->repeat : 1));
	int r;

	for (unsigned i = 0; i < 5; i++)
		skb.cb[i] = run->cb;
	if (on_xdp(run->hook)) {
		opts.ctx_in = &xdp;
		opts.ctx_size_in = sizeof(xdp);
		opts.ctx_out = &xdp;
		opts.ctx_size_out = sizeof(xdp);
	} else if (run->mark || run->ifindex || run->ingress_ifindex || run->gso_segs || run->cb) {
		opts.ctx_in = &skb;
		opts.ctx_size_in = sizeof(skb);
		opts.ctx_out = &skb;
		opts.ctx_size_out = sizeof(skb);
	}
	r = bpf_prog_test_run_opts(program, &opts);
	if (r < 0)
		return r;
	run->verdict = (int32_t)opts.retval;
	run->duration = opts.duration;
	run->out_length = opts.data_size_out;
	run->mark_left = skb.mark;
	run->leaves = skb.tstamp;
	run->meta_left = on_xdp(run->hook) ? xdp.data - xdp.data_meta : 0;
	return 0;
}

int verdict_run(struct verdict_world *world, const void *frame, uint32_t length, struct verdict_run *run)
{
	return run_program(load_writable(world->dp)->program[run->hook], frame, length, run);
}

int verdict_map(const struct verdict_world *world, const char *name)
{
	const struct load *load = load_writable(world->dp);

	for (unsigned i = 0; load && i < load->n_maps; i++)
		if (strcmp(load->maps[i].name, name) == 0)
			return load->maps[i].fd;
	return -ENOENT;
}

/* The fd of a live program, or of its twin (once something was explained). */
int verdict_program(struct verdict_world *world, uint32_t hook, int twin)
{
	const struct load *load = load_writable(world->dp);

	return twin ? load->twin[hook] : load->program[hook];
}

/* Starts the kernel's timer. */
int verdict_age(struct verdict_world *world)
{
	const struct load *load = load_writable(world->dp);
	uint32_t ret = 0;
	int r = program_run_once(load->ageing, load->ageing_type, &ret);

	return r < 0 ? r : (int)ret;
}

/* The record of lo with other flags, or its copy under another ifindex, or none. */
int verdict_port(struct verdict_world *world, uint32_t ifindex, uint32_t flags, int present)
{
	struct load *load = load_writable(world->dp);
	uint32_t slot = UPLINK;
	struct hd_port port;
	int r;

	if (!present)
		return port_clear(load, ifindex);
	if (bpf_map_lookup_elem(load->maps[MAP_PORTS].fd, &slot, &port) < 0)
		return -errno;
	if (ifindex == UPLINK)
		world->port_flags = flags;
	r = port_write(load, &(struct hd_port){.ifindex = ifindex, .flags = (uint16_t)flags},
		&port.policy[hd_port_policy_at(&port, load->control->generation) & 1]);
	return r < 0 ? r : port_set_flags(load, ifindex, (uint16_t)flags, (uint16_t)~flags);
}

/* The programs of ports, which a start does not load. Their records and maps are written by the tests. */
int verdict_load_ports(struct verdict_world *world)
{
	return load_ports(load_writable(world->dp), true, true);
}

/* That of ports whose frames workers move, as native XDP has it. Its number for verdict_run(), or a negative errno. */
int verdict_load_switch(struct verdict_world *world)
{
	int r = load_steer(load_writable(world->dp), PROGRAM_XDP_SWITCH_SEVERAL);

	return r < 0 ? r : PROGRAM_XDP_SWITCH_SEVERAL;
}

int verdict_explain(struct verdict_world *world, const struct datapath_probe *probe, struct hd_explain *ret)
{
	return datapath_explain(world->dp, probe, ret);
}

/* An inner frame, said to have come from that peer in that network. The twins are loaded once something else has been explained. */
int verdict_explain_tunnel(struct verdict_world *world, const void *frame, uint32_t length, struct hd_explain *page)
{
	const struct load *load = load_writable(world->dp);
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = length, .repeat = 1);
	int map = load->maps[MAP_EXPLAIN].fd;
	uint32_t zero = 0;
	int r = bpf_map_update_elem(map, &zero, page, BPF_ANY);

	if (r == 0)
		r = bpf_prog_test_run_opts(load->twin[HD_HOOK_TC_TUNNEL_IN], &opts);
	return r < 0 ? r : bpf_map_lookup_elem(map, &zero, page);
}

struct event_sink {
	struct hd_event *events;
	int n, max;
};

static void take_event(const struct hd_event *event, size_t length, void *userdata)
{
	struct event_sink *sink = userdata;

	if (sink->n >= sink->max)
		return;
	memset(&sink->events[sink->n], 0, sizeof(*event));
	memcpy(&sink->events[sink->n++], event, length < sizeof(*event) ? length : sizeof(*event));
}

/* Takes what is waiting; the number taken. */
int verdict_events(struct verdict_world *world, struct hd_event *events, int n)
{
	struct event_sink sink = {.events = events, .max = n};
	int r = datapath_events_dispatch(world->dp, take_event, &sink);

	return r < 0 ? r : sink.n;
}

int verdict_rule(struct verdict_world *world, uint32_t id, char *name, size_t size)
{
	struct rule_reference rule;
	int r = compiler_rule(world->compiler, id, &rule);

	if (r == 0)
		snprintf(name, size, "%s", rule.name ? rule.name : "");
	return r;
}

const char *verdict_reason(uint32_t reason)
{
#define NAME(sym, name, text) name,
	static const char *const names[] = {HD_REASONS(NAME)};
#undef NAME
	return reason < HD_REASON_COUNT ? names[reason] : NULL;
}

struct hd_control *verdict_control(struct verdict_world *world)
{
	return load_writable(world->dp)->control;
}

/* The data plane's time, in ticks. */
uint32_t verdict_now(struct verdict_world *world)
{
	return tick_now(load_writable(world->dp));
}

static int take_listed(const struct datapath_flow *flow, void *userdata)
{
	*(struct datapath_flow *)userdata = *flow;
	return 1;
}

static bool same_bytes(const void *a, const void *b, size_t n)
{
	return memcmp(a, b, n) == 0;
}

/* As of a flow that a NIC forwards: the only one that is listed. forged: of another connection under the same key. */
int verdict_credit(struct verdict_world *world, uint64_t packets, uint64_t bytes, uint32_t flags, int forged)
{
	const uint64_t each[2] = {packets, 2 * packets}, all[2] = {bytes, 2 * bytes};
	struct datapath_flow flow = {0}, again;
	int r;

	(void)datapath_flows(world->dp, take_listed, &flow);
	if (!flow.family)
		return -ENODATA;
	again = flow;
	r = datapath_flow_again(world->dp, &again);
	if (r == 0 && !same_bytes(&again.flow, &flow.flow, sizeof(flow.flow)))
		return -EBADMSG;
	flow.flow.epoch += forged ? 2 : 0;
	if (forged && datapath_flow_again(world->dp, &flow) != -ENOENT)
		return -EBADMSG;
	return datapath_credit(world->dp, &flow, each, all, flags);
}

static int take_flow(const struct datapath_flow *flow, void *userdata)
{
	*(struct hd_flow *)userdata = flow->flow;
	return 1;
}

/* Some flow as the agent sees it. */
int verdict_flow(struct verdict_world *world, struct hd_flow *ret)
{
	memset(ret, 0, sizeof(*ret));
	return datapath_flows(world->dp, take_flow, ret);
}
