/* SPDX-License-Identifier: Apache-2.0 */
/* Denied packets over a NIC, programs and ports that are made up: what gets a rule, what it is taken back for. */
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

#include <heddle/network.h>
#include <heddle/reasons.h>
#include <offload/drops.h>

#include "nic_env.h"

#define PORTS 4

/* Ports 11, 12, ... have 10.0.0.11, 10.0.0.12, ... */
#define FIRST_PORT 11

struct fake {
	struct drops *drops;
	struct offload_world world;
	struct hd_port ports[PORTS];
	uint64_t switch_id;
	bool routed, peer;
	/* the programs, by who sends */
	struct drop_answer answer[PORTS];
	unsigned asked;
	struct offload_rule last_asked;
	uint64_t denied;
	struct nic nic;
	/* counters */
	uint64_t packets, bytes, frames;
	uint32_t rule;
	uint64_t now;
};

static struct fake *f;

static bool find_port(uint32_t ifindex, struct offload_port *ret, void *userdata)
{
	(void)userdata;
	if (ifindex < FIRST_PORT || ifindex >= FIRST_PORT + PORTS || !f->ports[ifindex - FIRST_PORT].ifindex)
		return false;
	*ret = (struct offload_port){.record = f->ports[ifindex - FIRST_PORT], .generation = 1, .switch_id = f->switch_id};
	return true;
}

static bool neighbours(uint16_t network, const struct hd_addr *a, const struct hd_addr *b, void *userdata)
{
	(void)network;
	(void)a;
	(void)b;
	(void)userdata;
	return !f->routed;
}

static int op_add(const struct flower_filter *filter, char reason[FLOWER_REASON_MAX], void *userdata)
{
	(void)userdata;
	assert_true(filter->handle >= DROPS_HANDLE && !filter->rule.out);
	return nic_add(&f->nic, filter, reason);
}

static int op_remove(const struct flower_filter *filter, struct flower_seen *seen, void *userdata)
{
	(void)userdata;
	return nic_remove(&f->nic, filter, seen);
}

static int op_each(uint32_t ifindex, void (*cb)(const struct flower_seen *seen, void *data), void *data, void *userdata)
{
	const struct flower_seen of_a_flow = {.ifindex = ifindex, .handle = 2, .ours = true, .packets = 1000};

	(void)userdata;
	cb(&of_a_flow, data);
	return nic_each(&f->nic, ifindex, cb, data);
}

static uint64_t op_now(void *userdata)
{
	(void)userdata;
	return f->now;
}

static int op_ask(const struct offload_rule *rule, struct drop_answer *ret, void *userdata)
{
	(void)userdata;
	f->asked++;
	f->last_asked = *rule;
	*ret = f->answer[rule->in - FIRST_PORT];
	return 0;
}

static bool op_owner(uint16_t network, const struct hd_addr *address, uint32_t *ret, void *userdata)
{
	(void)userdata;
	assert_int_equal(network, 1);
	*ret = address->b[12] == 10 ? address->b[15] : 0;
	return !f->peer;
}

static int op_credit(uint32_t rule, uint64_t packets, uint64_t bytes, uint64_t frames, void *userdata)
{
	(void)userdata;
	f->rule = rule;
	f->packets += packets;
	f->bytes += bytes;
	f->frames += frames;
	f->denied += packets;
	return 0;
}

static int op_denied(uint64_t *ret, void *userdata)
{
	(void)userdata;
	*ret = f->denied;
	return 0;
}

static int setup(void **state)
{
	static const struct drops_ops ops = {.add = op_add,
		.remove = op_remove,
		.each = op_each,
		.now_ms = op_now,
		.ask = op_ask,
		.owner = op_owner,
		.credit = op_credit,
		.denied = op_denied};

	f = calloc(1, sizeof(*f));
	assert_non_null(f);
	f->now = 1000;
	f->switch_id = 5;
	for (unsigned i = 0; i < PORTS; i++) {
		f->ports[i] = (struct hd_port){.ifindex = FIRST_PORT + i,
			.network = 1,
			.flags = HD_PORT_L2,
			.mac = {2, 0, 0, 0, 0, (uint8_t)(FIRST_PORT + i)},
			.policy = {{.generation = 1, .version = {1, 1}}}};
		f->answer[i] = (struct drop_answer){.denied = true, .silent = true, .rule = 70};
	}
	f->world = (struct offload_world){.port = find_port, .neighbours = neighbours};
	*state = f;
	return drops_new(&ops, &f->world, 14, &f->drops);
}

static int teardown(void **state)
{
	(void)state;
	drops_free(f->drops);
	free(f);
	return 0;
}

static struct hd_addr address(uint8_t first, uint8_t last)
{
	return (struct hd_addr){.b = {[10] = 0xff, 0xff, first, 0, 0, last}};
}

/* From 11 to 12. */
static struct hd_event tell(uint8_t protocol, uint16_t sport, uint16_t dport)
{
	return (struct hd_event){.type = HD_EVENT_DROP,
		.reason = HD_R_POLICY_DENY,
		.hook = HD_HOOK_TC_PORT_IN,
		.direction = HD_EGRESS,
		.ifindex = 11,
		.source = address(10, 11),
		.destination = address(10, 12),
		.source_port = htons(sport),
		.destination_port = htons(dport),
		.protocol = protocol,
		.tcp_flags = protocol == IPPROTO_TCP ? 2 : 0};
}

/* A second in which the programs have denied so many, and told of as many. */
static void second(const struct hd_event *event, unsigned packets)
{
	f->now += 1000;
	f->denied += packets;
	for (unsigned i = 0; i < packets; i++)
		drops_note(f->drops, event);
	drops_round(f->drops);
}

static void seconds(unsigned n, const struct hd_event *event, unsigned packets)
{
	while (n--)
		second(event, packets);
}

static struct drops_status status(void)
{
	struct drops_status ret;

	drops_status(f->drops, &ret);
	return ret;
}

static const struct offload_rule *rule_of(const struct hd_event *event)
{
	seconds(2, event, 100);
	assert_int_equal(f->nic.n_rules, 1);
	return &f->nic.rules[0].rule;
}

/* --- what gets a rule --- */

static void test_connections(void **state)
{
	struct hd_event event = tell(IPPROTO_TCP, 4000, 80);
	const struct offload_rule *rule;

	(void)state;
	/* Not at once, not for few, and all source ports are one. */
	second(&event, 100);
	assert_int_equal(f->nic.n_rules, 0);
	seconds(5, &event, DROPS_LEAST - 1);
	assert_int_equal(f->nic.n_rules, 0);
	second(&event, 100);
	event.source_port = htons(4001);
	second(&event, 100);
	assert_int_equal(f->nic.n_rules, 1);
	rule = &f->nic.rules[0].rule;
	assert_true(rule->in == 11 && rule->out == 0 && rule->family == 4 && rule->protocol == IPPROTO_TCP && !rule->routed);
	assert_true(rule->source_port == 0 && rule->destination_port == htons(80));
	assert_memory_equal(rule->source_mac, f->ports[0].mac, 6);
	assert_memory_equal(rule->destination_mac, f->ports[1].mac, 6);
	/* The programs were asked about just that. */
	assert_memory_equal(&f->last_asked, rule, sizeof(*rule));
}

static void test_routed(void **state)
{
	static const uint8_t gateway[6] = HD_GATEWAY_MAC;
	struct hd_event event = tell(IPPROTO_TCP, 4000, 80);
	const struct offload_rule *rule;

	(void)state;
	f->routed = true;
	rule = rule_of(&event);
	assert_true(rule->routed);
	assert_memory_equal(rule->destination_mac, gateway, 6);
}

/* To nobody here: by the sender's own policy alone, and by the gateway. */
static void test_outside(void **state)
{
	struct hd_event event = tell(IPPROTO_TCP, 4000, 80), udp = tell(IPPROTO_UDP, 4000, 53);

	(void)state;
	event.destination = udp.destination = address(192, 9);
	seconds(3, &event, 100);
	assert_int_equal(f->nic.n_rules, 0); /* it would have to be switched, to a MAC that nobody has */
	f->routed = true;
	drops_again(f->drops);
	seconds(3, &event, 100);
	assert_int_equal(f->nic.n_rules, 0); /* denied by somebody who is not known */
	f->answer[0].by_sender = true;
	drops_again(f->drops);
	seconds(3, &udp, 100);
	assert_int_equal(f->nic.n_rules, 0); /* it may be an answer */
	assert_false(rule_of(&event)->routed);
	/* Now a peer has it. */
	f->peer = true;
	drops_before(f->drops);
	assert_int_equal(f->nic.n_rules, 0);
}

static void test_echo(void **state)
{
	struct hd_event event = tell(IPPROTO_ICMP, 77, 0x0800), reply = tell(IPPROTO_ICMP, 77, 0);
	const struct offload_rule *rule;

	(void)state;
	seconds(3, &reply, 100);
	assert_int_equal(f->nic.n_rules, 0);
	rule = rule_of(&event);
	assert_true(rule->source_port == 0 && rule->destination_port == htons(0x0800));
}

static void test_answers(void **state)
{
	struct hd_event event = tell(IPPROTO_UDP, 4000, 53);
	const struct offload_rule *rule;

	(void)state;
	/* The other end may send, and this would be what comes back. */
	f->answer[1].denied = false;
	seconds(3, &event, 100);
	assert_int_equal(f->nic.n_rules, 0);
	assert_true(f->last_asked.in == 12 && f->last_asked.source_port == htons(53) &&
		    f->last_asked.destination_port == htons(4000));
	assert_memory_equal(f->last_asked.source_mac, f->ports[1].mac, 6);
	assert_memory_equal(f->last_asked.destination_mac, f->ports[0].mac, 6);
	/* Not any more, be it that it is told so. */
	f->answer[1] = (struct drop_answer){.denied = true};
	drops_again(f->drops);
	rule = rule_of(&event);
	assert_true(rule->source_port == htons(4000) && rule->destination_port == htons(53));
	/* And may again. */
	f->answer[1].denied = false;
	drops_again(f->drops);
	assert_int_equal(f->nic.n_rules, 0);
}

static void stays(const struct hd_event *event)
{
	seconds(3, event, 100);
	assert_int_equal(f->nic.n_rules, 0);
	drops_again(f->drops);
}

static void test_what_stays(void **state)
{
	struct hd_event event = tell(IPPROTO_TCP, 4000, 80), other;

	(void)state;
#define STAYS(field, value) \
	do { \
		other = event; \
		other.field = (value); \
		stays(&other); \
	} while (0)
	STAYS(type, HD_EVENT_LOG);
	STAYS(reason, HD_R_POLICY_REJECT);
	STAYS(reason, HD_R_TCP_NO_FLOW);
	STAYS(hook, HD_HOOK_TC_PORT_OUT);
	STAYS(hook, HD_HOOK_TC_TUNNEL_IN);
	STAYS(peer, 3);
	STAYS(vlan[0], 0x1005);
	STAYS(tcp_flags, 0x12);
	STAYS(protocol, 47);
	STAYS(destination, address(10, 11)); /* itself */
	/* The programs would tell somebody, or do something else. */
	f->answer[0].silent = false;
	stays(&event);
	f->answer[0] = (struct drop_answer){.silent = true};
	stays(&event);
	f->answer[0] = (struct drop_answer){.denied = true, .silent = true};
	/* Ports of which nothing can be said. */
	f->switch_id = 0;
	stays(&event);
	f->switch_id = 5;
	f->ports[0].flags |= HD_PORT_TRUNK;
	stays(&event);
	f->ports[0].flags = HD_PORT_L2;
	f->ports[1].ifindex = 0;
	stays(&event);
	f->ports[1].ifindex = 12;
	(void)rule_of(&event);
}

/* Events are held back: each stands for as many as were denied. */
static void test_events_held_back(void **state)
{
	struct hd_event event = tell(IPPROTO_TCP, 4000, 80), other = tell(47, 0, 0);

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		for (unsigned n = 0; n < 8; n++)
			drops_note(f->drops, &other);
		f->denied += 990;
		second(&event, 10);
	}
	assert_int_equal(f->nic.n_rules, 1);
}

/* --- counters, and the end --- */

static void carry(uint64_t packets)
{
	f->nic.counts[0].packets += packets;
	f->nic.counts[0].bytes += 74 * packets;
}

static void test_counters(void **state)
{
	struct hd_event event = tell(IPPROTO_TCP, 4000, 80);
	struct drops_item items[2];

	(void)state;
	(void)rule_of(&event);
	carry(100);
	second(NULL, 0);
	assert_true(f->rule == 70 && f->packets == 100 && f->bytes == 6000 && f->frames == 7400);
	assert_true(status().work.packets == 100 && status().work.bytes == 6000 && status().work.now == 1);
	assert_int_equal(drops_list(f->drops, items, 2), 1);
	assert_true(items[0].packets == 100 && items[0].bytes == 6000 && items[0].rule == 70 && items[0].match->in == 11);
	/* What came since the last round is not lost. */
	carry(5);
	drops_stop(f->drops);
	assert_true(f->packets == 105 && f->nic.n_rules == 0 && status().work.now == 0 && status().work.rules_removed == 1);
	/* It is sent still, and comes back with the next round. */
	second(&event, 60);
	assert_int_equal(f->nic.n_rules, 1);
	/* Slow, then quiet. */
	for (unsigned i = 0; i < 8; i++) {
		carry(DROPS_QUIET);
		second(NULL, 0);
	}
	assert_int_equal(f->nic.n_rules, 1);
	seconds(DROPS_QUIET_MAX, NULL, 0);
	assert_int_equal(f->nic.n_rules, 0);
	/* At once, when it begins anew. */
	(void)rule_of(&event);
}

/* What is sent is something else, though it was told of as the same. */
static void test_never_matched(void **state)
{
	struct hd_event event = tell(IPPROTO_TCP, 4000, 80);

	(void)state;
	(void)rule_of(&event);
	seconds(DROPS_QUIET_MAX, &event, 100);
	assert_int_equal(f->nic.n_rules, 0);
	seconds(20, &event, 100);
	assert_int_equal(status().work.rules_added, 1);
	f->now += 30000;
	seconds(2, &event, 100);
	assert_int_equal(status().work.rules_added, 2);
}

static void test_changes(void **state)
{
	struct hd_event event = tell(IPPROTO_TCP, 4000, 80);
	unsigned asked;

	(void)state;
	(void)rule_of(&event);
	/* Ahead of a change nobody is asked: those in force would say what was so. */
	asked = f->asked;
	drops_before(f->drops);
	assert_int_equal(f->nic.n_rules, 1);
#define CHANGES(what, value) \
	do { \
		__typeof__(what) before_ = (what); \
		(what) = (value); \
		drops_before(f->drops); \
		assert_int_equal(f->nic.n_rules, 0); \
		(what) = before_; \
		(void)rule_of(&event); \
	} while (0)
	CHANGES(f->ports[0].policy[0].version[HD_EGRESS], 2);
	CHANGES(f->ports[1].policy[0].version[HD_INGRESS], 2);
	CHANGES(f->ports[1].policy[0].generation, 2);
	CHANGES(f->ports[1].moved, 7);
	CHANGES(f->ports[1].mac[5], 9);
	CHANGES(f->ports[0].vlan, 5);
	assert_true(f->asked > asked);
	/* After it, and each second: another rule, or none any more. */
	f->answer[0].rule = 71;
	drops_again(f->drops);
	assert_int_equal(f->nic.n_rules, 0);
	(void)rule_of(&event);
	carry(7);
	f->answer[0].denied = false;
	second(NULL, 0);
	assert_true(f->nic.n_rules == 0 && f->rule == 71);
	f->answer[0].denied = true;
	drops_again(f->drops);
	(void)rule_of(&event);
	drops_leave(f->drops, 12);
	assert_int_equal(f->nic.n_rules, 0);
	(void)rule_of(&event);
	drops_leave(f->drops, 11);
	assert_int_equal(f->nic.n_rules, 0);
}

static void test_lost(void **state)
{
	struct hd_event event = tell(IPPROTO_TCP, 4000, 80);

	(void)state;
	(void)rule_of(&event);
	nic_lose(&f->nic, 0);
	second(NULL, 0);
	assert_true(status().work.now == 0 && status().work.refusal == -ENOENT);
	f->now += 30000;
	(void)rule_of(&event);
	f->nic.counts[0].lost = true;
	second(NULL, 0);
	assert_int_equal(f->nic.n_rules, 0);
	f->now += 60000;
	(void)rule_of(&event);
	f->nic.cannot_tell = -EIO;
	second(NULL, 0);
	assert_true(f->nic.n_rules == 0 && status().work.refusal == -EIO);
}

/* A rule that stays would drop what is allowed by now: it is tried until it has gone. */
static void test_stuck(void **state)
{
	struct hd_event event = tell(IPPROTO_TCP, 4000, 80);

	(void)state;
	(void)rule_of(&event);
	f->nic.keep = -ENOMEM;
	drops_stop(f->drops);
	assert_int_equal(f->nic.n_rules, 1);
	f->nic.keep = 0;
	second(NULL, 0);
	assert_int_equal(f->nic.n_rules, 0);
	assert_int_equal(status().work.now, 0);
}

/* --- bounds --- */

static void many(unsigned n, unsigned packets)
{
	f->now += 1000;
	for (unsigned i = 0; i < n; i++) {
		struct hd_event event = tell(IPPROTO_TCP, 4000, (uint16_t)(1 + i));

		f->denied += packets;
		for (unsigned j = 0; j < packets; j++)
			drops_note(f->drops, &event);
	}
	for (unsigned i = 0; i < f->nic.n_rules; i++)
		f->nic.counts[i].packets += 100;
	drops_round(f->drops);
}

static void test_bounds(void **state)
{
	struct drops_item items[4];

	(void)state;
	many(1200, 50);
	many(1200, 50);
	assert_int_equal(f->nic.n_rules, DROPS_A_ROUND);
	assert_int_equal(status().waiting, 1200 - DROPS_A_ROUND);
	for (unsigned i = 0; i < 20; i++)
		many(1200, 50);
	assert_true(f->nic.n_rules == DROPS_MOST && status().waiting == 1200 - DROPS_MOST);
	f->nic.counts[500].packets += 1000000;
	many(1200, 50);
	assert_int_equal(drops_list(f->drops, items, 4), 4);
	assert_true(items[0].packets > 1000000 && items[1].packets >= items[2].packets && items[2].packets >= items[3].packets);
	/* A flow finds no room: all of theirs is free, for a while. */
	drops_yield(f->drops);
	assert_int_equal(f->nic.n_rules, 0);
	many(1200, 50);
	many(1200, 50);
	assert_true(f->nic.n_rules == 0 && status().work.paused);
	f->now += 30000;
	many(1200, 50);
	assert_int_equal(f->nic.n_rules, DROPS_A_ROUND);
	/* No more are watched than can be. */
	many(65000, 2);
}

static void test_refused(void **state)
{
	(void)state;
	f->nic.refuse = -EOPNOTSUPP;
	for (unsigned i = 0; i < 5; i++)
		many(60, 50);
	/* Eight in a row, and the others are not even tried. */
	assert_true(status().work.refused == 8 && status().work.paused && status().waiting == 52);
	assert_string_equal(status().work.refusal_text, "no room in the NIC");
	f->now += 30000;
	many(60, 50);
	assert_int_equal(status().work.refused, 9);
	f->now += 60000;
	f->nic.refuse = 0;
	many(60, 50);
	assert_int_equal(f->nic.n_rules, 1);
	for (unsigned i = 0; i < 3; i++)
		many(60, 50);
	assert_true(f->nic.n_rules > 40 && !status().work.paused);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_connections),
		TEST(test_routed),
		TEST(test_outside),
		TEST(test_echo),
		TEST(test_answers),
		TEST(test_what_stays),
		TEST(test_events_held_back),
		TEST(test_counters),
		TEST(test_never_matched),
		TEST(test_changes),
		TEST(test_lost),
		TEST(test_stuck),
		TEST(test_bounds),
		TEST(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
