/* SPDX-License-Identifier: Apache-2.0 */
/* Which flows go to a NIC, by which rules, and why the others do not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <arpa/inet.h>

#include <cmocka.h>

#include <heddle/network.h>
#include <offload/plan.h>
#include <util/addr.h>

#define A 11
#define B 12
#define GENERATION 7

/* Two representors of one NIC, in network 3, and a flow that A opened. */
struct world {
	struct offload_port ports[2]; /* A, B */
	struct datapath_flow flow;
	struct offload_world ask;
	bool neighbours;
	bool documented; /* the MAC of A's address is another than A's */
};

static bool find_port(uint32_t ifindex, struct offload_port *ret, void *userdata)
{
	const struct world *w = userdata;

	for (unsigned i = 0; i < 2; i++)
		if (w->ports[i].record.ifindex == ifindex) {
			*ret = w->ports[i];
			return true;
		}
	return false;
}

static bool neighbours(uint16_t network, const struct hd_addr *a, const struct hd_addr *b, void *userdata)
{
	const struct world *w = userdata;

	assert_int_equal(network, 3);
	(void)a;
	(void)b;
	return w->neighbours;
}

static bool find_mac(uint16_t network, const struct hd_addr *address, uint8_t ret[6], void *userdata)
{
	const struct world *w = userdata;

	assert_int_equal(network, 3);
	if (!w->documented || address->b[15] != 1)
		return false;
	memcpy(ret, "\x02\0\0\0\0\x77", 6);
	return true;
}

static struct hd_addr address(const char *text)
{
	struct hd_addr addr;

	assert_int_equal(addr_parse(text, &addr), 0);
	return addr;
}

static struct world make(const char *a, const char *b, uint8_t protocol, uint8_t state)
{
	struct world w = {.neighbours = true,
		.flow = {.family = strchr(a, ':') ? 6 : 4,
			.proven = true,
			.protocol = protocol,
			.network = 3,
			.source = address(a),
			.destination = address(b),
			.source_port = 4000,
			.destination_port = 80,
			.flow = {.state = state,
				.last_seen = 1000,
				.version = 5,
				.second_version = 6,
				.device = {A, B},
				.flags = HD_FLOW_DIR_EGRESS}},
		.ask = {.port = find_port, .neighbours = neighbours, .mac = find_mac, .least_timeout_ms = 4000}};

	for (unsigned i = 0; i < 2; i++)
		w.ports[i] = (struct offload_port){.record = {.ifindex = A + i,
							   .network = 3,
							   .flags = HD_PORT_L2,
							   .mac = {2, 0, 0, 0, 0, (uint8_t)(i + 1)},
							   .mtu = 1500,
							   .policy = {{.generation = 2, .version = {6, 5}}}},
			.generation = GENERATION,
			.switch_id = 99};
	for (unsigned i = 0; i < HD_FLOW_STATE_COUNT; i++)
		w.ask.timeout_ms[i] = 60000;
	return w;
}

static struct world make_tcp(void)
{
	return make("10.0.0.1", "10.0.0.2", IPPROTO_TCP, HD_FS_TCP_ESTABLISHED);
}

static enum offload_reason plan(struct world *w, struct offload_rule rules[2])
{
	w->ask.userdata = w;
	return offload_plan(&w->flow, &w->ask, rules);
}

static void test_switched(void **state)
{
	struct world w = make_tcp();
	struct offload_rule rules[2];

	(void)state;
	assert_int_equal(plan(&w, rules), OFFLOAD_NONE);
	for (unsigned side = 0; side < 2; side++) {
		const struct hd_port *from = &w.ports[side].record, *to = &w.ports[!side].record;
		struct offload_rule want = {.in = from->ifindex,
			.out = to->ifindex,
			.family = 4,
			.protocol = IPPROTO_TCP,
			.source = address(side ? "10.0.0.2" : "10.0.0.1"),
			.destination = address(side ? "10.0.0.1" : "10.0.0.2"),
			.source_port = htons(side ? 80 : 4000),
			.destination_port = htons(side ? 4000 : 80)};

		memcpy(want.source_mac, from->mac, 6);
		memcpy(want.destination_mac, to->mac, 6);
		assert_memory_equal(&rules[side], &want, sizeof(want));
	}
}

static void test_routed(void **state)
{
	static const uint8_t gateway[6] = HD_GATEWAY_MAC;
	struct world w = make("fd00::1", "fd00::2", IPPROTO_UDP, HD_FS_UDP_REPLIED);
	struct offload_rule rules[2];

	(void)state;
	/* By what the gateway routes on a network that switches, and on one that only routes. */
	w.neighbours = false;
	for (unsigned pass = 0; pass < 2; pass++) {
		assert_int_equal(plan(&w, rules), OFFLOAD_NONE);
		for (unsigned side = 0; side < 2; side++) {
			assert_true(rules[side].routed);
			assert_memory_equal(rules[side].source_mac, w.ports[side].record.mac, 6);
			assert_memory_equal(rules[side].destination_mac, gateway, 6);
			assert_memory_equal(rules[side].new_source_mac, gateway, 6);
			assert_memory_equal(rules[side].new_destination_mac, w.ports[!side].record.mac, 6);
		}
		w.neighbours = true;
		w.ports[0].record.flags = w.ports[1].record.flags = 0;
	}
	/* What is too big for the other has to be answered. */
	w.ports[1].record.mtu = 1400;
	assert_int_equal(plan(&w, rules), OFFLOAD_MTU);
	w.ports[0].record.flags = w.ports[1].record.flags = HD_PORT_L2;
	assert_int_equal(plan(&w, rules), OFFLOAD_NONE);
}

static void test_several_behind_a_port(void **state)
{
	struct world w = make_tcp();
	struct offload_rule rules[2];

	(void)state;
	w.documented = true;
	assert_int_equal(plan(&w, rules), OFFLOAD_NONE);
	assert_int_equal(rules[0].source_mac[5], 1);
	w.ports[0].record.flags |= HD_PORT_LEARNING;
	assert_int_equal(plan(&w, rules), OFFLOAD_NONE);
	assert_int_equal(rules[0].source_mac[5], 0x77);
	assert_int_equal(rules[1].destination_mac[5], 0x77);
	assert_int_equal(rules[1].source_mac[5], 2);
}

#define REFUSED(reason, ...) \
	{ \
		struct world w = make_tcp(); \
		struct offload_rule rules[2]; \
\
		__VA_ARGS__; \
		assert_int_equal(plan(&w, rules), reason); \
	}

static void test_what_stays(void **state)
{
	(void)state;
	REFUSED(OFFLOAD_HOST, w.flow.flow.device[1] = 0)
	REFUSED(OFFLOAD_HOST, w.flow.flow.device[0] = 0)
	REFUSED(OFFLOAD_HOST, w.flow.flow.flags |= HD_FLOW_TURNED)
	REFUSED(OFFLOAD_STALE, w.flow.flow.device[1] = 77)
	REFUSED(OFFLOAD_SWITCH, w.ports[1].switch_id = 98)
	REFUSED(OFFLOAD_SWITCH, w.ports[0].switch_id = 0)
	REFUSED(OFFLOAD_PROTOCOL, w.flow.protocol = IPPROTO_ICMP)
	REFUSED(OFFLOAD_PROTOCOL, w.flow.protocol = IPPROTO_GRE)
	REFUSED(OFFLOAD_STATE, w.flow.proven = false)
	REFUSED(OFFLOAD_STATE, w.flow.flow.state = HD_FS_TCP_SYN_RECEIVED)
	REFUSED(OFFLOAD_STATE, w.flow.flow.state = HD_FS_TCP_FIN_RESPONDER)
	REFUSED(OFFLOAD_STATE, w.flow.flow.state = HD_FS_UDP_NEW)
	REFUSED(OFFLOAD_TIMEOUT, w.ask.timeout_ms[HD_FS_TCP_ESTABLISHED] = 3999)
	REFUSED(OFFLOAD_NONE, w.ask.timeout_ms[HD_FS_UDP_REPLIED] = 100)
	REFUSED(OFFLOAD_BETWEEN, w.ports[1].record.network = 4)
	REFUSED(OFFLOAD_BETWEEN, w.flow.network = HD_NETWORKS)
	REFUSED(OFFLOAD_SEGMENT, w.ports[1].record.flags |= HD_PORT_TRUNK)
	REFUSED(OFFLOAD_SEGMENT, w.ports[0].record.flags |= HD_PORT_ACCESS | HD_PORT_QINQ)
	REFUSED(OFFLOAD_SEGMENT, w.ports[0].record.vlan = 5)
	REFUSED(OFFLOAD_NONE, w.ports[0].record.vlan = w.ports[1].record.vlan = 5)
	REFUSED(OFFLOAD_RATE, w.ports[1].record.flags |= HD_PORT_LIMIT_IN)
	REFUSED(OFFLOAD_RATE, w.ports[1].record.flags |= HD_PORT_LIMIT_OUT)
	REFUSED(OFFLOAD_STALE, w.flow.flow.version = 4)
	REFUSED(OFFLOAD_STALE, w.flow.flow.second_version = 7)
	/* The policy of another generation counts by now; none does. */
	REFUSED(OFFLOAD_STALE, w.ports[1].record.policy[1] = (struct hd_port_policy){.generation = GENERATION, .version = {7, 5}})
	REFUSED(OFFLOAD_NONE,
		w.ports[1].record.policy[1] = (struct hd_port_policy){.generation = GENERATION + 1, .version = {7, 5}})
	REFUSED(OFFLOAD_STALE, w.ports[1].record.policy[0].generation = 0)
	/* An address moved, since or before. */
	REFUSED(OFFLOAD_STALE, w.ports[1].record.moved = 1000)
	REFUSED(OFFLOAD_STALE, w.ports[0].record.moved = 1001)
	REFUSED(OFFLOAD_NONE, w.ports[0].record.moved = 999)
	/* Ticks wrap. */
	REFUSED(OFFLOAD_NONE, w.ports[0].record.moved = 0xfffffff0u)
}

static void test_every_reason_is_told(void **state)
{
	(void)state;
	for (unsigned i = 0; i < OFFLOAD_REASON_COUNT; i++) {
		assert_non_null(offload_reason_name[i]);
		assert_true(strlen(offload_reason_text[i]) > 10);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_switched),
		cmocka_unit_test(test_routed),
		cmocka_unit_test(test_several_behind_a_port),
		cmocka_unit_test(test_what_stays),
		cmocka_unit_test(test_every_reason_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
