/* SPDX-License-Identifier: Apache-2.0 */
/* Beside programs of others; records that collide; tables of another version; reading flows, events and explanations. */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <linux/bpf.h>
#include <linux/if_link.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cmocka.h>

#include <datapath/internal.h>

#include "datapath_env.h"

#define BPF_TCX_INGRESS 46
#define LATER_IFINDEX 4600 /* and 4600 + HD_PORT_SLOTS: the same slot */

static struct env *env;
static struct datapath *current;

static struct datapath *open_datapath(void)
{
	struct datapath_config config = {.bpffs = env->bpffs};
	bool found;

	assert_null(current);
	assert_int_equal(datapath_open(&config, &current, &found), 0);
	return current;
}

static void close_datapath(void)
{
	datapath_close(current);
	current = NULL;
}

static int setup(void **state)
{
	(void)state;
	return env_make_link(env);
}

static int teardown(void **state)
{
	struct datapath_config config = {.bpffs = env->bpffs};

	(void)state;
	close_datapath();
	return datapath_detach(&config);
}

/* A program of somebody else's that returns a number. */
static int other_program(enum bpf_prog_type type, int result)
{
	const struct bpf_insn code[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = result}, {.code = BPF_JMP | BPF_EXIT}};

	return bpf_prog_load(type, "somebody_else", "GPL", code, 2, NULL);
}

static int pinned_map(const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/heddle/maps/%s", env->bpffs, name);
	return bpf_obj_get(path);
}

static void test_other_xdp_program(void **state)
{
	const struct datapath_attachment *attachment;
	LIBBPF_OPTS(bpf_link_create_opts, opts, .flags = XDP_FLAGS_DRV_MODE);
	int program = other_program(BPF_PROG_TYPE_XDP, XDP_PASS), link;
	struct flat_policy policy;

	(void)state;
	link = bpf_link_create(program, (int)env->ifindex, BPF_XDP, &opts);
	assert_true(link >= 0);
	assert_int_equal(env_start(env, open_datapath(), 1, HD_DENY, XDP_MODE_AUTO), 0);
	assert_int_equal(datapath_attachments(current, &attachment), 1);
	assert_string_equal(attachment->xdp_mode, "off");
	assert_non_null(strstr(attachment->xdp_reason, "somebody_else"));
	assert_int_equal(attachment->foreign_ahead, 1);
	assert_int_not_equal(env_ping(env), 0); /* TC judges */
	/* When it is gone, the next look at the devices attaches ours. */
	assert_int_equal(bpf_link_detach(link), 0);
	flat_policy(&policy, 1, HD_DENY);
	assert_int_equal(env_attach(env, current, &policy, XDP_MODE_AUTO), 0);
	assert_int_equal(datapath_attachments(current, &attachment), 1);
	assert_string_equal(attachment->xdp_mode, "native");
	assert_string_equal(attachment->xdp_reason, "");
	assert_int_equal(attachment->foreign_ahead, 0);
	assert_int_not_equal(env_ping(env), 0);
	close(link);
	close(program);
}

static void test_other_tcx_programs(void **state)
{
	const struct datapath_attachment *attachment;
	LIBBPF_OPTS(bpf_link_create_opts, before, .flags = 1 << 3);
	int programs[] = {other_program(BPF_PROG_TYPE_SCHED_CLS, -1), other_program(BPF_PROG_TYPE_SCHED_CLS, -1)}, early, late;
	struct flat_policy policy;

	(void)state;
	if (strcmp(env->tc, "tcx") != 0) {
		print_message("skipped: the kernel has no TCX\n");
		skip();
	}
	early = bpf_link_create(programs[0], (int)env->ifindex, BPF_TCX_INGRESS, NULL);
	assert_true(early >= 0);
	assert_int_equal(env_start(env, open_datapath(), 1, HD_DENY, XDP_MODE_OFF), 0);
	assert_int_equal(datapath_attachments(current, &attachment), 1);
	assert_int_equal(attachment->foreign_ahead, 0); /* ours went to the head */
	assert_int_not_equal(env_ping(env), 0);
	late = bpf_link_create(programs[1], (int)env->ifindex, BPF_TCX_INGRESS, &before);
	assert_true(late >= 0);
	flat_policy(&policy, 1, HD_DENY);
	assert_int_equal(env_attach(env, current, &policy, XDP_MODE_OFF), 0);
	assert_int_equal(datapath_attachments(current, &attachment), 1);
	assert_int_equal(attachment->foreign_ahead, 1);
	assert_int_not_equal(env_ping(env), 0);
	close_datapath();
	assert_int_equal(datapath_detach(&(struct datapath_config){.bpffs = env->bpffs}), 0);
	assert_int_equal(env_count("bpftool net show dev " ENV_DEVICE " | grep -c somebody_else || true"), 0);
	{
		__u32 ids[8], n = 8, flags;

		assert_int_equal(bpf_prog_query((int)env->ifindex, BPF_TCX_INGRESS, 0, &flags, ids, &n), 0);
		assert_int_equal(n, 2); /* both of theirs are still there */
	}
	close(early);
	close(late);
	close(programs[0]);
	close(programs[1]);
}

static void test_colliding_ifindexes(void **state)
{
	struct datapath_uplink uplinks[2] = {
		{.device = "dpu7", .ifindex = LATER_IFINDEX, .xdp = XDP_MODE_OFF, .driver = "", .ethernet = true},
		{.device = "dpu8",
			.ifindex = LATER_IFINDEX + HD_PORT_SLOTS,
			.xdp = XDP_MODE_OFF,
			.driver = "",
			.ethernet = true}};
	struct hd_port port;
	struct flat_policy policy;
	uint32_t slot = LATER_IFINDEX & (HD_PORT_SLOTS - 1), other = LATER_IFINDEX + HD_PORT_SLOTS;
	int ports, hash;

	(void)state;
	assert_int_equal(env_run("ip link add dpu7 index %u type veth peer name dpu7p && ip link add dpu8 index %u type veth "
				 "peer name dpu8p",
				 LATER_IFINDEX, LATER_IFINDEX + HD_PORT_SLOTS),
		0);
	assert_int_equal(env_start(env, open_datapath(), 1, HD_DENY, XDP_MODE_OFF), 0);
	ports = pinned_map("ports");
	hash = pinned_map("ports_hash");
	flat_policy(&policy, 1, HD_DENY);
	policy.uplink[0].device = "dpu7";
	policy.uplink[1].device = "dpu8";
	assert_int_equal(datapath_attach(current, uplinks, 2, policy.uplink, 2), 0);
	assert_int_equal(bpf_map_lookup_elem(ports, &slot, &port), 0);
	assert_int_equal(port.ifindex, LATER_IFINDEX);
	assert_int_equal(port.policy[0].generation, 1);
	assert_int_equal(bpf_map_lookup_elem(hash, &other, &port), 0);
	assert_int_equal(port.ifindex, other);
	assert_int_equal(port.policy[0].generation, 1);
	/* The first one goes: its slot is empty, the second one's record stays where it is, and is the one that changes. */
	assert_int_equal(datapath_attach(current, uplinks + 1, 1, policy.uplink, 2), 0);
	assert_int_equal(bpf_map_lookup_elem(ports, &slot, &port), 0);
	assert_int_equal(port.ifindex, 0);
	flat_policy(&policy, 2, HD_ALLOW);
	policy.uplink[1].device = "dpu8";
	policy.delta.uplinks = policy.uplink;
	assert_int_equal(datapath_write(current, &policy.delta), 0);
	assert_int_equal(datapath_publish(current, &policy.delta, NULL), 0);
	assert_int_equal(bpf_map_lookup_elem(hash, &other, &port), 0);
	assert_int_equal(port.policy[1].generation, 2);
	assert_int_equal(datapath_attach(current, NULL, 0, NULL, 0), 0);
	assert_int_not_equal(bpf_map_lookup_elem(hash, &other, &port), 0);
	close(ports);
	close(hash);
	env_run("ip link del dpu7; ip link del dpu8");
}

/* --- flows --- */

static struct hd_flow_key4 key_of(uint32_t lo, uint32_t hi, uint16_t lo_port, uint16_t hi_port)
{
	return (struct hd_flow_key4){
		.protocol = 6, .lo = htonl(lo), .hi = htonl(hi), .lo_port = htons(lo_port), .hi_port = htons(hi_port)};
}

static void put_proven(int slots, uint32_t index, struct hd_flow_key4 key, uint8_t state, uint8_t flags, uint32_t last_seen)
{
	struct hd_flow_slot slot = {.used = 4,
		.epoch = 1,
		.flow = {.state = state, .flags = flags, .last_seen = last_seen, .epoch = 1, .slot = index}};

	slot.key.key4 = key;
	assert_int_equal(bpf_map_update_elem(slots, &index, &slot, BPF_ANY), 0);
}

static void put_new(int map, struct hd_flow_key4 key, uint8_t state, uint32_t last_seen)
{
	struct hd_flow flow = {.state = state, .last_seen = last_seen};

	assert_int_equal(bpf_map_update_elem(map, &key, &flow, BPF_ANY), 0);
}

struct seen {
	unsigned n;
	struct datapath_flow last;
};

static int see_flow(const struct datapath_flow *flow, void *userdata)
{
	struct seen *seen = userdata;

	seen->n++;
	seen->last = *flow;
	return 0;
}

static void test_flows(void **state)
{
	struct seen seen = {0};
	uint64_t proven, unproven;
	uint32_t now;
	int slots, fresh;

	(void)state;
	assert_int_equal(env_start(env, open_datapath(), 1, HD_ALLOW, XDP_MODE_OFF), 0);
	slots = pinned_map("flow_slots");
	fresh = pinned_map("flows4_new");
	now = tick_now(load_readable(current));
	put_proven(slots, 1, key_of(0x0a000001, 0x0a000002, 80, 40000), HD_FS_TCP_ESTABLISHED, HD_FLOW_ORIG_IS_HI, now);
	put_proven(slots, 2, key_of(0x0a000001, 0x0a000003, 80, 40000), HD_FS_TCP_CLOSED, 0, now - (uint32_t)ticks_of_ms(100000));
	put_proven(slots, 3, key_of(0x0a000001, 0x0a000004, 80, 40000), 200, 0, now); /* a state nobody knows */
	assert_int_equal(datapath_flows(current, see_flow, &seen), 0);
	assert_int_equal(seen.n, 1);
	assert_true(seen.last.proven);
	assert_int_equal(seen.last.family, 4);
	assert_int_equal(seen.last.source_port, 40000);
	assert_int_equal(seen.last.destination_port, 80);
	assert_int_equal(seen.last.source.w[3], htonl(0x0a000002));
	assert_int_equal(seen.last.destination.w[3], htonl(0x0a000001));
	for (uint32_t i = 0; i < 3000; i++)
		put_proven(slots, 10 + i, key_of(0x0a000001, 0x0b000000 + i, 80, 1000), HD_FS_TCP_ESTABLISHED, 0, now);
	for (uint32_t i = 0; i < 300; i++)
		put_new(fresh, key_of(0x0a000001, 0x0b000000 + i, 80, 1001), HD_FS_TCP_SYN_SENT, now);
	assert_int_equal(datapath_flow_counts(current, &proven, &unproven), 0);
	assert_int_equal(proven, 3001);
	assert_int_equal(unproven, 300);
	/* Another agent finds all of it, even before it has programs. */
	close_datapath();
	assert_int_equal(datapath_flow_counts(open_datapath(), &proven, &unproven), 0);
	assert_true(proven == 3001 && unproven == 300);
	assert_int_equal(env_start(env, current, 2, HD_ALLOW, XDP_MODE_OFF), 0);
	assert_int_equal(datapath_flow_counts(current, &proven, &unproven), 0);
	assert_true(proven == 3001 && unproven == 300);
	close(slots);
	close(fresh);
}

static void test_free_slots(void **state)
{
	uint32_t slot, lowest = ~0u, highest = 0;
	unsigned n = 0;
	int stack;

	(void)state;
	assert_int_equal(env_start(env, open_datapath(), 1, HD_ALLOW, XDP_MODE_OFF), 0);
	stack = pinned_map("flow_free");
	while (bpf_map_lookup_and_delete_elem(stack, NULL, &slot) == 0) {
		n++;
		lowest = slot < lowest ? slot : lowest;
		highest = slot > highest ? slot : highest;
	}
	assert_int_equal(n, env_sizes.flows - 1);
	assert_int_equal(lowest, 1);
	assert_int_equal(highest, env_sizes.flows - 1);
	/* A second load does not fill it again: slots may be in use. */
	assert_int_equal(datapath_load(current, &env_sizes, &env_settings, 0), 0);
	assert_int_not_equal(bpf_map_lookup_and_delete_elem(stack, NULL, &slot), 0);
	close(stack);
}

static void test_other_schema(void **state)
{
	struct hd_control control;
	struct hd_counter counter;
	uint32_t zero = 0;
	uint64_t proven, unproven;
	int map, slots;

	(void)state;
	assert_int_equal(env_start(env, open_datapath(), 41, HD_DENY, XDP_MODE_AUTO), 0);
	assert_int_not_equal(env_ping(env), 0);
	slots = pinned_map("flow_slots");
	put_proven(slots, 1, key_of(1, 2, 1, 2), HD_FS_TCP_ESTABLISHED, 0, tick_now(load_readable(current)));
	map = pinned_map("control");
	assert_int_equal(bpf_map_lookup_elem(map, &zero, &control), 0);
	control.schema = HD_SCHEMA_VERSION + 7;
	assert_int_equal(bpf_map_update_elem(map, &zero, &control, BPF_ANY), 0);
	close_datapath();
	open_datapath();
	assert_int_equal(datapath_last_generation(current), 41);
	assert_int_not_equal(env_ping(env), 0); /* still in force */
	assert_int_equal(env_start(env, current, 42, HD_DENY, XDP_MODE_AUTO), 0);
	assert_int_equal(datapath_flow_counts(current, &proven, &unproven), 0);
	assert_int_equal(proven, 0);
	assert_int_equal(datapath_rule_counters(current, FLAT_RULE, 1, &counter), 0);
	assert_int_equal(counter.packets, 0);
	assert_int_not_equal(env_ping(env), 0);
	close(map);
	close(slots);
}

static void test_pickup_runs_on(void **state)
{
	struct hd_control first, second;
	struct flat_policy policy;
	uint32_t zero = 0;
	int map;

	(void)state;
	open_datapath();
	assert_int_equal(datapath_load(current, &env_sizes, &env_settings, 60), 0);
	flat_policy(&policy, 1, HD_ALLOW);
	assert_int_equal(datapath_write(current, &policy.delta), 0);
	assert_int_equal(datapath_publish(current, &policy.delta, NULL), 0);
	assert_int_equal(env_attach(env, current, &policy, XDP_MODE_OFF), 0);
	assert_int_equal(datapath_go_live(current), 0);
	map = pinned_map("control");
	assert_int_equal(bpf_map_lookup_elem(map, &zero, &first), 0);
	assert_int_equal(first.flags, HD_CONTROL_PICKUP);
	assert_int_equal(first.timeout[HD_FS_TCP_SYN_SENT], ticks_of_ms(60000));
	close(map);
	close_datapath();
	open_datapath();
	assert_int_equal(datapath_load(current, &env_sizes, &env_settings, 60), 0);
	assert_int_equal(datapath_publish(current, &policy.delta, NULL), 0);
	assert_int_equal(env_attach(env, current, &policy, XDP_MODE_OFF), 0);
	assert_int_equal(datapath_go_live(current), 0);
	map = pinned_map("control");
	assert_int_equal(bpf_map_lookup_elem(map, &zero, &second), 0);
	assert_int_equal(second.flags, HD_CONTROL_PICKUP);
	assert_int_equal(second.pickup_until, first.pickup_until);
	close(map);
}

/* --- events and explain --- */

struct heard {
	unsigned n;
	struct hd_event last;
};

static void hear(const struct hd_event *event, size_t length, void *userdata)
{
	struct heard *heard = userdata;

	heard->n++;
	memcpy(&heard->last, event, length < sizeof(*event) ? length : sizeof(*event));
}

static void test_events(void **state)
{
	struct heard heard = {0};
	struct pollfd poll_fd;

	(void)state;
	assert_int_equal(datapath_events_fd(open_datapath()), -ENOTCONN);
	assert_int_equal(env_start(env, current, 1, HD_DENY, XDP_MODE_AUTO), 0);
	poll_fd = (struct pollfd){.fd = datapath_events_fd(current), .events = POLLIN};
	assert_int_not_equal(env_ping(env), 0);
	assert_int_equal(poll(&poll_fd, 1, 20000), 1);
	assert_int_equal(datapath_events_dispatch(current, hear, &heard), 0);
	assert_true(heard.n >= 1);
	assert_int_equal(heard.last.type, HD_EVENT_DROP);
	assert_int_equal(heard.last.reason, HD_R_POLICY_DENY);
	assert_int_equal(heard.last.ifindex, env->ifindex);
	/* What is said while no agent listens is not news for the next one. */
	close_datapath();
	assert_int_not_equal(env_ping(env), 0);
	heard.n = 0;
	assert_int_equal(env_start(env, open_datapath(), 2, HD_DENY, XDP_MODE_AUTO), 0);
	assert_int_equal(datapath_events_dispatch(current, hear, &heard), 0);
	assert_int_equal(heard.n, 0);
	assert_int_equal(datapath_monitor(current, true), 0);
	assert_int_equal(datapath_monitor(current, false), 0);
}

static void test_explain(void **state)
{
	static const uint8_t frame[] = {2, 0, 0, 0, 0x99, 1, 2, 0, 0, 0, 0x99, 2, 8, 0, 0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0x64,
		0x06, 10, 99, 1, 2, 10, 99, 1, 1, 0x30, 0x39, 0, 80, 0, 8, 0, 0};
	static const enum hd_verdict verdicts[] = {HD_DENY, HD_ALLOW, HD_REJECT};
	struct datapath_probe probe = {.ifindex = env->ifindex, .frame = frame, .length = sizeof(frame)};
	struct hd_counter before[HD_TOTAL_COUNT], after[HD_TOTAL_COUNT];
	uint8_t huge[6000] = {0};
	struct hd_explain explain;

	(void)state;
	assert_int_equal(datapath_explain(open_datapath(), &probe, &explain), -ENOTCONN);
	for (uint32_t i = 0; i < 3; i++) {
		assert_int_equal(env_start(env, current, i + 1, verdicts[i], XDP_MODE_AUTO), 0);
		assert_int_equal(datapath_totals(current, before), 0);
		for (unsigned hook = HD_HOOK_XDP_UPLINK; hook <= HD_HOOK_TC_UPLINK_IN; hook++) {
			probe.hook = hook;
			assert_int_equal(datapath_explain(current, &probe, &explain), 0);
			assert_int_equal(explain.done, 1);
			assert_int_equal(explain.verdict, verdicts[i]);
			assert_int_equal(explain.rule, FLAT_RULE);
			assert_int_equal(explain.generation, i + 1);
		}
		assert_int_equal(datapath_totals(current, after), 0);
		assert_memory_equal(before, after, sizeof(before));
	}
	/* Too short for the kernel to make an skb of, tagged or not: the parser's verdict all the same, on every hook. */
	for (unsigned hook = 0; hook < HD_HOOK_TC_PORT_IN; hook++)
		for (size_t length = 14; length < 14 + 20; length++) {
			probe.hook = hook;
			probe.length = length;
			probe.vlan_proto = hook == HD_HOOK_XDP_UPLINK || length & 1 ? 0 : 0x8100;
			probe.vlan_tci = 5;
			assert_int_equal(datapath_explain(current, &probe, &explain), 0);
			assert_int_equal(explain.verdict, HD_DROP);
			assert_int_equal(explain.reason, HD_R_IP4_TRUNCATED);
		}
	memcpy(huge, frame, 14);
	huge[12] = 0x12;
	huge[13] = 0x34;
	probe = (struct datapath_probe){.hook = HD_HOOK_TC_UPLINK_IN, .ifindex = env->ifindex, .frame = huge, .length = 14};
	assert_int_equal(datapath_explain(current, &probe, &explain), 0);
	assert_int_equal(explain.rule, FLAT_RULE);
	probe.length = 10;
	assert_int_equal(datapath_explain(current, &probe, &explain), -EINVAL);
	probe = (struct datapath_probe){
		.hook = HD_HOOK_TC_UPLINK_IN, .ifindex = env->ifindex, .frame = huge, .length = sizeof(huge)};
	assert_int_equal(datapath_explain(current, &probe, &explain), -EMSGSIZE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_other_xdp_program, setup, teardown),
		cmocka_unit_test_setup_teardown(test_other_tcx_programs, setup, teardown),
		cmocka_unit_test_setup_teardown(test_colliding_ifindexes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_flows, setup, teardown),
		cmocka_unit_test_setup_teardown(test_free_slots, setup, teardown),
		cmocka_unit_test_setup_teardown(test_other_schema, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pickup_runs_on, setup, teardown),
		cmocka_unit_test_setup_teardown(test_events, setup, teardown),
		cmocka_unit_test_setup_teardown(test_explain, setup, teardown),
	};
	int failed;

	log_set_level(getenv("HEDDLE_TEST_DEBUG") ? LOG_DEBUG : LOG_ERR);
	cmocka_set_test_filter(getenv("HEDDLE_TEST_FILTER"));
	env = env_new();
	if (!env)
		return 0;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	env_free(env);
	return failed;
}
