/* SPDX-License-Identifier: Apache-2.0 */
/* Rounds over a flow table and a NIC that are made up: one that takes rules, refuses them, loses them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>

#include <cmocka.h>

#include <offload/manager.h>
#include <util/addr.h>

#include "nic_env.h"

#define FLOWS 64

struct fake {
	struct offload *offload;
	struct offload_world world;
	/* the table */
	struct datapath_flow flows[FLOWS];
	bool there[FLOWS];
	unsigned n;
	uint64_t packets[FLOWS][2], bytes[FLOWS][2];
	unsigned seen[FLOWS], begun[FLOWS];
	struct nic nic;
	unsigned most;
	/* ports */
	uint32_t moved, gone_port;
	uint64_t now;
};

static struct fake *f;

static bool find_port(uint32_t ifindex, struct offload_port *ret, void *userdata)
{
	(void)userdata;
	*ret = (struct offload_port){.record = {.ifindex = ifindex,
					     .network = 1,
					     .flags = HD_PORT_L2,
					     .mac = {2, 0, 0, 0, 0, (uint8_t)ifindex},
					     .moved = f->moved,
					     .policy = {{.generation = 1, .version = {1, 1}}}},
		.generation = 1,
		.switch_id = 5};
	return ifindex != f->gone_port;
}

static bool neighbours(uint16_t network, const struct hd_addr *a, const struct hd_addr *b, void *userdata)
{
	(void)network;
	(void)a;
	(void)b;
	(void)userdata;
	return true;
}

static int op_add(const struct flower_filter *filter, char reason[FLOWER_REASON_MAX], void *userdata)
{
	(void)userdata;
	return nic_add(&f->nic, filter, reason);
}

static int op_remove(const struct flower_filter *filter, struct flower_seen *seen, void *userdata)
{
	(void)userdata;
	return nic_remove(&f->nic, filter, seen);
}

static int op_each(uint32_t ifindex, void (*cb)(const struct flower_seen *seen, void *data), void *data, void *userdata)
{
	(void)userdata;
	return nic_each(&f->nic, ifindex, cb, data);
}

static int find_flow(const struct datapath_flow *flow)
{
	for (unsigned i = 0; i < f->n; i++)
		if (f->there[i] && f->flows[i].source_port == flow->source_port)
			return f->flows[i].flow.epoch == flow->flow.epoch ? (int)i : -ENOENT;
	return -ENOENT;
}

static int op_again(struct datapath_flow *flow, void *userdata)
{
	int at = find_flow(flow);

	(void)userdata;
	if (at >= 0)
		*flow = f->flows[at];
	return at < 0 ? at : 0;
}

static int op_credit(
	const struct datapath_flow *flow, const uint64_t packets[2], const uint64_t bytes[2], unsigned flags, void *userdata)
{
	int at = find_flow(flow);

	(void)userdata;
	if (at < 0)
		return at;
	for (unsigned side = 0; side < 2; side++) {
		f->packets[at][side] += packets[side];
		f->bytes[at][side] += bytes[side];
	}
	f->seen[at] += !!(flags & HD_CREDIT_SEEN);
	f->begun[at] += !!(flags & HD_CREDIT_BEGINS);
	return 0;
}

/* Half of it at a time. */
static int op_walk(uint32_t *cursor, datapath_flow_cb cb, void *data, void *userdata)
{
	unsigned half = f->n / 2, first = *cursor ? half : 0, end = *cursor ? f->n : half;

	(void)userdata;
	for (unsigned i = first; i < end; i++)
		if (f->there[i])
			assert_int_equal(cb(&f->flows[i], data), 0);
	*cursor = !*cursor;
	return *cursor ? 1 : 0;
}

static int op_established(const struct datapath_flow *const *flows, size_t n, bool *ret, void *userdata)
{
	(void)userdata;
	for (size_t i = 0; i < n; i++) {
		int at = find_flow(flows[i]);

		ret[i] = at >= 0 && f->flows[at].flow.state == HD_FS_TCP_ESTABLISHED;
	}
	return 0;
}

static uint64_t op_now(void *userdata)
{
	(void)userdata;
	return f->now;
}

static int setup(void **state)
{
	static const struct offload_ops ops = {.add = op_add,
		.remove = op_remove,
		.each = op_each,
		.again = op_again,
		.credit = op_credit,
		.walk = op_walk,
		.established = op_established,
		.now_ms = op_now};
	const struct offload_limits limits = {.flows = 20, .a_round = 8, .header = 14};

	f = calloc(1, sizeof(*f));
	assert_non_null(f);
	f->now = 1000;
	f->n = 4;
	for (unsigned i = 0; i < FLOWS; i++) {
		f->there[i] = true;
		f->flows[i] = (struct datapath_flow){.family = 4,
			.proven = true,
			.protocol = IPPROTO_TCP,
			.network = 1,
			.source = {.b = {[10] = 0xff, 0xff, 10, 0, 0, 1}},
			.destination = {.b = {[10] = 0xff, 0xff, 10, 0, 0, 2}},
			.source_port = (uint16_t)(1000 + i),
			.destination_port = 80,
			.flow = {.state = HD_FS_TCP_ESTABLISHED,
				.epoch = 7 + i,
				.version = 1,
				.second_version = 1,
				.last_seen = 100,
				.device = {11, 12}}};
	}
	f->world = (struct offload_world){.port = find_port, .neighbours = neighbours};
	*state = f;
	return offload_new(&ops, &f->world, &limits, &f->offload);
}

static int teardown(void **state)
{
	(void)state;
	offload_free(f->offload);
	free(f);
	return 0;
}

/* Both halves of the table. */
static struct offload_status rounds(unsigned n)
{
	struct offload_status status;

	for (unsigned i = 0; i < n; i++) {
		f->now += OFFLOAD_ROUND_MS;
		(void)offload_round(f->offload);
	}
	offload_status(f->offload, &status);
	return status;
}

static void carry(unsigned flow, unsigned side, uint64_t packets, uint64_t bytes)
{
	for (unsigned i = 0; i < f->nic.n_rules; i++)
		if (f->nic.rules[i].rule.in == 11 + side &&
			ntohs(side ? f->nic.rules[i].rule.destination_port : f->nic.rules[i].rule.source_port) == 1000 + flow) {
			f->nic.counts[i].packets += packets;
			f->nic.counts[i].bytes += bytes;
		}
}

static void test_counters(void **state)
{
	struct offload_status status;

	(void)state;
	assert_true(!offload_has(f->offload, &f->flows[0]));
	status = rounds(2);
	assert_int_equal(f->nic.n_rules, 8);
	assert_true(status.work.now == 4 && status.flows[OFFLOAD_NONE] + status.flows[OFFLOAD_WAITING] == 4);
	assert_true(offload_has(f->offload, &f->flows[3]));
	assert_int_equal(f->begun[0], 1);
	carry(0, 0, 10, 1140);
	carry(0, 1, 20, 2280);
	status = rounds(1);
	assert_true(f->packets[0][0] == 10 && f->bytes[0][0] == 1000 && f->packets[0][1] == 20 && f->bytes[0][1] == 2000);
	assert_true(f->seen[0] == 1 && f->seen[1] == 0);
	/* Nothing new is no sign of life. */
	status = rounds(3);
	assert_true(f->packets[0][0] == 10 && f->seen[0] == 1);
	assert_int_equal(status.flows[OFFLOAD_NONE], 4);
	/* What came since the last round is not lost, and says nothing of now. */
	carry(0, 0, 1, 114);
	offload_stop(f->offload);
	assert_int_equal(f->nic.n_rules, 0);
	assert_true(f->packets[0][0] == 11 && f->bytes[0][0] == 1100 && f->seen[0] == 1);
	offload_status(f->offload, &status);
	assert_true(status.work.now == 0 && status.work.rules_added == 8 && status.work.rules_removed == 8);
	assert_true(status.work.packets == 31 && status.work.bytes == 3100);
}

static void test_bounds(void **state)
{
	struct offload_status status;

	(void)state;
	f->n = 60;
	(void)rounds(1);
	assert_int_equal(f->nic.n_rules, 16); /* 8 flows a round */
	(void)rounds(6);
	assert_int_equal(f->nic.n_rules, 40);
	status = rounds(2);
	assert_true(status.flows[OFFLOAD_NONE] == 20 && status.flows[OFFLOAD_FULL] == 40);
}

static void test_nothing_to_offload(void **state)
{
	(void)state;
	f->n = 0;
	assert_false(offload_round(f->offload));
	assert_false(offload_look(f->offload));
}

static void test_ends(void **state)
{
	(void)state;
	(void)rounds(2);
	/* Closing: taken back by a look, well before the next round. */
	assert_true(offload_look(f->offload));
	assert_int_equal(f->nic.n_rules, 8);
	f->flows[0].flow.state = HD_FS_TCP_FIN_ORIGINATOR;
	assert_true(offload_look(f->offload));
	assert_int_equal(f->nic.n_rules, 6);
	/* Aged. */
	f->there[1] = false;
	(void)rounds(1);
	assert_int_equal(f->nic.n_rules, 4);
	/* The same ports again are another connection. */
	f->flows[2].flow.epoch = 99;
	carry(2, 0, 5, 500);
	(void)rounds(2);
	assert_int_equal(f->nic.n_rules, 4);
	assert_true(f->packets[2][0] == 0 && f->begun[2] == 2);
	assert_true(offload_has(f->offload, &f->flows[2]));
}

static void test_changes(void **state)
{
	(void)state;
	(void)rounds(2);
	/* A policy. */
	f->flows[0].flow.version = 2;
	offload_again(f->offload);
	assert_int_equal(f->nic.n_rules, 6);
	f->flows[0].flow.version = 1;
	(void)rounds(2);
	assert_int_equal(f->nic.n_rules, 8);
	/* An address: until packets have found out where it is. */
	f->moved = 150;
	offload_again(f->offload);
	assert_int_equal(f->nic.n_rules, 0);
	assert_int_equal(rounds(2).flows[OFFLOAD_STALE], 4);
	f->flows[1].flow.last_seen = 200;
	(void)rounds(2);
	assert_int_equal(f->nic.n_rules, 2);
	/* A device. */
	f->moved = 0;
	(void)rounds(2);
	assert_int_equal(f->nic.n_rules, 8);
	offload_leave(f->offload, 12);
	assert_int_equal(f->nic.n_rules, 0);
	f->gone_port = 12;
	assert_int_equal(rounds(2).flows[OFFLOAD_STALE], 4);
}

static void test_lost(void **state)
{
	struct offload_status status;

	(void)state;
	(void)rounds(2);
	/* One rule of two: the other goes too, and the flow is let alone for a while. */
	nic_lose(&f->nic, nic_find(&f->nic, f->nic.rules[0].rule.in, f->nic.rules[0].handle));
	status = rounds(2);
	assert_int_equal(f->nic.n_rules, 6);
	assert_true(status.work.refusal == -ENOENT && status.work.now == 3);
	f->now += 30000;
	(void)rounds(2);
	assert_int_equal(f->nic.n_rules, 8);
	/* It is there, and the NIC has it no more. */
	f->nic.counts[3].lost = true;
	(void)rounds(1);
	assert_int_equal(f->nic.n_rules, 6);
	/* Nobody can tell what is counted: nothing is left to the NIC. */
	f->nic.cannot_tell = -EIO;
	(void)rounds(1);
	assert_int_equal(f->nic.n_rules, 0);
}

static void test_half_refused(void **state)
{
	struct offload_status status;

	(void)state;
	/* The second rule of each flow is refused: the first one does not stay. */
	f->nic.refuse = -ENOSPC;
	f->nic.refuse_out = 11;
	status = rounds(2);
	assert_true(f->nic.n_rules == 0 && status.work.now == 0 && status.work.refused == 4 && status.work.refusal == -ENOSPC);
	assert_string_equal(status.work.refusal_text, "no room in the NIC");
	assert_int_equal(status.flows[OFFLOAD_REFUSED], 4);
	/* Again after 30 s, 60 s, ... */
	assert_int_equal(rounds(20).work.refused, 4);
	f->now += 30000;
	assert_int_equal(rounds(2).work.refused, 8);
}

static void test_pause(void **state)
{
	struct offload_status status;

	(void)state;
	f->n = 60;
	f->nic.refuse = -EOPNOTSUPP;
	status = rounds(10);
	/* Eight in a row, and the others are not even tried. */
	assert_true(status.work.refused == 8 && status.work.paused);
	assert_true(status.flows[OFFLOAD_REFUSED] == 60);
	/* Then one a pause. */
	f->now += 30000;
	status = rounds(10);
	assert_true(status.work.refused == 9 && status.work.paused);
	f->now += 60000;
	f->nic.refuse = 0;
	(void)rounds(1);
	assert_int_equal(f->nic.n_rules, 16);
	/* It takes them again. */
	status = rounds(6);
	assert_true(f->nic.n_rules == 40 && !status.work.paused);
}

static bool find_network(uint16_t network, struct hd_network *ret, void *userdata)
{
	(void)network;
	(void)userdata;
	*ret = (struct hd_network){.vlan = 100};
	return true;
}

static bool nobodys(uint16_t network, const struct hd_addr *address, struct hd_endpoint *ret, void *userdata)
{
	(void)network;
	(void)address;
	(void)ret;
	(void)userdata;
	return false;
}

static bool no_owner(uint16_t network, const uint8_t mac[6], struct hd_endpoint *ret, void *userdata)
{
	(void)network;
	(void)mac;
	(void)ret;
	(void)userdata;
	return false;
}

static bool learnt(uint16_t network, const uint8_t mac[6], struct hd_fdb *ret, void *userdata)
{
	(void)network;
	(void)mac;
	(void)userdata;
	*ret = (struct hd_fdb){.ifindex = 20};
	return true;
}

static uint64_t uplink(uint32_t ifindex, void *userdata)
{
	(void)ifindex;
	(void)userdata;
	return 5;
}

/* A NIC that cannot put tags on what VFs send does all else. */
static void test_pause_of_a_kind(void **state)
{
	struct offload_status status;

	(void)state;
	f->world.network = find_network;
	f->world.endpoint = nobodys;
	f->world.owner = no_owner;
	f->world.learnt = learnt;
	f->world.uplink = uplink;
	f->n = 60;
	for (unsigned i = 0; i < 50; i++) {
		f->flows[i].flow.device[HD_REPLY] = HD_DEVICE_WIRE;
		f->flows[i].flow.second_version = 0;
		f->flows[i].flow.peer_mac[0] = 2;
	}
	f->nic.refuse = -EOPNOTSUPP;
	f->nic.refuse_out = 20;
	status = rounds(10);
	assert_true(status.work.refused == 8 && status.work.paused);
	assert_true(status.flows[OFFLOAD_REFUSED] == 50 && status.flows[OFFLOAD_NONE] == 10);
	assert_int_equal(f->nic.n_rules, 20);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_counters),
		TEST(test_bounds),
		TEST(test_nothing_to_offload),
		TEST(test_ends),
		TEST(test_changes),
		TEST(test_lost),
		TEST(test_half_refused),
		TEST(test_pause),
		TEST(test_pause_of_a_kind),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
