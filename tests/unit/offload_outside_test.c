/* SPDX-License-Identifier: Apache-2.0 */
/* Flows between a port and the wire, or a peer: by which rules a NIC forwards them, and why the others stay. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <arpa/inet.h>

#include <cmocka.h>

#include <heddle/network.h>
#include <heddle/overlay.h>
#include <offload/plan.h>
#include <util/addr.h>

#define PORT 11
#define UPLINK 20
#define DEVICE 30 /* of tunnels */
#define PEER 5
#define GENERATION 7
#define NETWORK 3
#define NIC 99

static const uint8_t gateway[6] = HD_GATEWAY_MAC, station[6] = {2, 0, 0, 0, 0x77, 1}, own[6] = {2, 0, 0, 0, 0, 1};

/* A representor in network 3, and a flow that its workload opened. */
struct world {
	struct offload_port port;
	struct datapath_flow flow;
	struct offload_world ask;
	bool neighbours;
	struct hd_network network;
	struct hd_endpoint endpoint, owner; /* of the other end's address and MAC; neither peer nor ifindex nor flags: none */
	struct hd_peer_prefix prefix;	    /* peer 0: none */
	struct hd_fdb learnt;		    /* neither peer nor ifindex: nowhere */
	struct hd_peer peer;
	uint32_t room;
	uint64_t uplink; /* its NIC */
};

static bool find_port(uint32_t ifindex, struct offload_port *ret, void *userdata)
{
	const struct world *w = userdata;

	*ret = w->port;
	return ifindex == PORT;
}

static bool neighbours(uint16_t network, const struct hd_addr *a, const struct hd_addr *b, void *userdata)
{
	const struct world *w = userdata;

	(void)network;
	(void)a;
	(void)b;
	return w->neighbours;
}

static bool find_network(uint16_t network, struct hd_network *ret, void *userdata)
{
	const struct world *w = userdata;

	*ret = w->network;
	return network == NETWORK && w->network.flags;
}

static bool told(const struct hd_endpoint *endpoint, struct hd_endpoint *ret)
{
	*ret = *endpoint;
	return endpoint->peer || endpoint->ifindex || endpoint->flags;
}

static bool find_endpoint(uint16_t network, const struct hd_addr *address, struct hd_endpoint *ret, void *userdata)
{
	const struct world *w = userdata;

	assert_int_equal(network, NETWORK);
	assert_int_equal(address->b[15], 2);
	return told(&w->endpoint, ret);
}

static bool find_owner(uint16_t network, const uint8_t mac[6], struct hd_endpoint *ret, void *userdata)
{
	const struct world *w = userdata;

	assert_int_equal(network, NETWORK);
	assert_memory_equal(mac, w->flow.flow.peer_mac, 6);
	return told(&w->owner, ret);
}

static bool find_prefix(uint16_t network, const struct hd_addr *address, struct hd_peer_prefix *ret, void *userdata)
{
	const struct world *w = userdata;

	(void)network;
	assert_int_equal(address->b[15], 2);
	*ret = w->prefix;
	return w->prefix.peer;
}

static bool find_learnt(uint16_t network, const uint8_t mac[6], struct hd_fdb *ret, void *userdata)
{
	const struct world *w = userdata;

	(void)network;
	assert_memory_equal(mac, w->flow.flow.peer_mac, 6);
	*ret = w->learnt;
	return w->learnt.peer || w->learnt.ifindex;
}

static uint64_t find_uplink(uint32_t ifindex, void *userdata)
{
	const struct world *w = userdata;

	return ifindex == UPLINK ? w->uplink : 0;
}

static bool find_peer(uint32_t index, struct hd_peer *ret, uint32_t *room, void *userdata)
{
	const struct world *w = userdata;

	*ret = w->peer;
	*room = w->room;
	return index == PEER && w->peer.flags;
}

static struct hd_addr address(const char *text)
{
	struct hd_addr addr;

	assert_int_equal(addr_parse(text, &addr), 0);
	return addr;
}

static struct world make(uint32_t device)
{
	struct world w = {.neighbours = true,
		.port = {.record = {.ifindex = PORT,
				 .network = NETWORK,
				 .flags = HD_PORT_L2,
				 .mac = {2, 0, 0, 0, 0, 1},
				 .mtu = 1450,
				 .policy = {{.generation = 2, .version = {6, 5}}}},
			.generation = GENERATION,
			.switch_id = NIC},
		.network = {.flags = HD_NETWORK_USED, .vlan = 100, .vni = 7000},
		.uplink = NIC,
		.peer = {.address = address("192.0.2.2"),
			.flags = HD_PEER_USED,
			.ways = HD_PEER_WAYS_OF(1, 1),
			.way = {{{0}}, {{.ifindex = UPLINK}}}},
		.room = 1450,
		.flow = {.family = 4,
			.proven = true,
			.protocol = IPPROTO_TCP,
			.network = NETWORK,
			.source = address("10.0.0.1"),
			.destination = address("10.0.0.2"),
			.source_port = 4000,
			.destination_port = 80,
			.flow = {.state = HD_FS_TCP_ESTABLISHED,
				.last_seen = 1000,
				.version = 5,
				.device = {PORT, device},
				.peer_mac = {2, 0, 0, 0, 0x77, 1},
				.flags = HD_FLOW_DIR_EGRESS}},
		.ask = {.port = find_port,
			.neighbours = neighbours,
			.network = find_network,
			.endpoint = find_endpoint,
			.owner = find_owner,
			.prefix = find_prefix,
			.learnt = find_learnt,
			.uplink = find_uplink,
			.peer = find_peer,
			.tunnel = {.address = address("192.0.2.1"), .port = htons(4789), .protocol = HD_TUNNEL_VXLAN, .ttl = 64},
			.tunnel_device = DEVICE,
			.least_timeout_ms = 4000}};

	for (unsigned i = 0; i < HD_FLOW_STATE_COUNT; i++)
		w.ask.timeout_ms[i] = 60000;
	return w;
}

static struct world make_wire(void)
{
	struct world w = make(HD_DEVICE_WIRE);

	w.learnt.ifindex = UPLINK;
	return w;
}

static struct world make_peer(void)
{
	struct world w = make(HD_DEVICE_PEER | PEER);

	w.endpoint.peer = w.owner.peer = PEER;
	return w;
}

/* The other end has opened it. */
static void turn(struct world *w)
{
	struct datapath_flow *flow = &w->flow;
	struct hd_addr source = flow->source;

	flow->source = flow->destination;
	flow->destination = source;
	flow->source_port = 80;
	flow->destination_port = 4000;
	flow->flow.device[HD_REPLY] = PORT;
	flow->flow.device[HD_ORIG] = HD_DEVICE_WIRE;
	flow->flow.version = 6;
	flow->flow.flags = 0;
}

static enum offload_reason plan(struct world *w, struct offload_rule rules[2])
{
	memset(rules, 0xee, 2 * sizeof(rules[0]));
	w->ask.userdata = w;
	return offload_plan(&w->flow, &w->ask, rules);
}

/* Of the flow's own direction from the port, or the other one. */
static struct offload_rule rule(bool out, const uint8_t source_mac[6], const uint8_t destination_mac[6])
{
	struct offload_rule want = {.family = 4,
		.protocol = IPPROTO_TCP,
		.source = address(out ? "10.0.0.1" : "10.0.0.2"),
		.destination = address(out ? "10.0.0.2" : "10.0.0.1"),
		.source_port = htons(out ? 4000 : 80),
		.destination_port = htons(out ? 80 : 4000)};

	*(out ? &want.in : &want.out) = PORT;
	memcpy(want.source_mac, source_mac, 6);
	memcpy(want.destination_mac, destination_mac, 6);
	return want;
}

static void test_wire(void **state)
{
	struct world w = make_wire();
	struct offload_rule rules[2], out = rule(true, own, station), in = rule(false, station, own);

	(void)state;
	out.out = in.in = UPLINK;
	out.outside = OFFLOAD_TAG;
	in.outside = OFFLOAD_UNTAG;
	out.vlan = in.vlan = 100;
	assert_int_equal(plan(&w, rules), OFFLOAD_NONE);
	assert_memory_equal(&rules[HD_ORIG], &out, sizeof(out));
	assert_memory_equal(&rules[HD_REPLY], &in, sizeof(in));
	turn(&w);
	assert_int_equal(plan(&w, rules), OFFLOAD_NONE);
	assert_memory_equal(&rules[HD_ORIG], &in, sizeof(in));
	assert_memory_equal(&rules[HD_REPLY], &out, sizeof(out));
}

static void set_tunnel(const struct world *w, struct offload_rule *out, struct offload_rule *in)
{
	out->out = in->in = DEVICE;
	out->outside = OFFLOAD_ENCAP;
	in->outside = OFFLOAD_DECAP;
	out->tunnel = (struct offload_tunnel){.local = w->ask.tunnel.address,
		.remote = w->peer.address,
		.vni = 7000,
		.uplink = UPLINK,
		.port = htons(4789),
		.ttl = 64};
	in->tunnel = out->tunnel;
}

static void test_switched_to_a_peer(void **state)
{
	struct world w = make_peer();
	struct offload_rule rules[2], out = rule(true, own, station), in = rule(false, station, own);

	(void)state;
	set_tunnel(&w, &out, &in);
	assert_int_equal(plan(&w, rules), OFFLOAD_NONE);
	assert_memory_equal(&rules[HD_ORIG], &out, sizeof(out));
	assert_memory_equal(&rules[HD_REPLY], &in, sizeof(in));
	/* No document has the MAC: it was learnt there, or is where the prefix is reached. */
	w.owner.peer = w.endpoint.peer = 0;
	w.prefix.peer = PEER;
	assert_int_equal(plan(&w, rules), OFFLOAD_WIRE);
	w.learnt.peer = PEER + 1;
	assert_int_equal(plan(&w, rules), OFFLOAD_WIRE);
	w.learnt.peer = PEER;
	assert_int_equal(plan(&w, rules), OFFLOAD_NONE);
	w.learnt.peer = 0;
	memcpy(w.prefix.mac, station, 6);
	assert_int_equal(plan(&w, rules), OFFLOAD_NONE);
}

static void test_routed_to_a_peer(void **state)
{
	struct world w = make_peer();
	struct offload_rule rules[2], out = rule(true, own, gateway), in = rule(false, gateway, own);

	(void)state;
	w.neighbours = false;
	set_tunnel(&w, &out, &in);
	out.routed = true;
	memcpy(out.new_source_mac, gateway, 6);
	memcpy(out.new_destination_mac, station, 6);
	assert_int_equal(plan(&w, rules), OFFLOAD_NONE);
	assert_memory_equal(&rules[HD_ORIG], &out, sizeof(out));
	assert_memory_equal(&rules[HD_REPLY], &in, sizeof(in));
	/* Where nothing is switched any MAC may come, and the gateway's and the workload's go on. */
	w.neighbours = true;
	w.port.record.flags = 0;
	memset(in.source_mac, 0, 6);
	memset(in.destination_mac, 0, 6);
	in.readdressed = true;
	memcpy(in.new_source_mac, gateway, 6);
	memcpy(in.new_destination_mac, own, 6);
	assert_int_equal(plan(&w, rules), OFFLOAD_NONE);
	assert_memory_equal(&rules[HD_ORIG], &out, sizeof(out));
	assert_memory_equal(&rules[HD_REPLY], &in, sizeof(in));
	/* The other end may be the gateway as far as the tunnel is concerned. */
	memcpy(w.flow.flow.peer_mac, gateway, 6);
	w.owner.peer = 0;
	assert_int_equal(plan(&w, rules), OFFLOAD_NONE);
}

#define REFUSED(made, reason, ...) \
	{ \
		struct world w = made; \
		struct offload_rule rules[2]; \
\
		__VA_ARGS__; \
		assert_int_equal(plan(&w, rules), reason); \
	}

static void test_what_stays_of_both(void **state)
{
	struct world (*const kinds[])(void) = {make_wire, make_peer};

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		REFUSED(kinds[i](), OFFLOAD_NONE, (void)0)
		REFUSED(kinds[i](), OFFLOAD_HOST, w.flow.flow.device[0] = 0)
		REFUSED(kinds[i](), OFFLOAD_HOST, w.flow.flow.flags |= HD_FLOW_TURNED)
		REFUSED(kinds[i](), OFFLOAD_STALE, w.flow.flow.device[0] = 77)
		REFUSED(kinds[i](), OFFLOAD_SWITCH, w.port.switch_id = 0)
		REFUSED(kinds[i](), OFFLOAD_SWITCH, w.uplink = NIC + 1)
		REFUSED(kinds[i](), OFFLOAD_SWITCH, w.uplink = 0)
		REFUSED(kinds[i](), OFFLOAD_PROTOCOL, w.flow.protocol = IPPROTO_ICMP)
		REFUSED(kinds[i](), OFFLOAD_STATE, w.flow.proven = false)
		REFUSED(kinds[i](), OFFLOAD_TIMEOUT, w.ask.timeout_ms[HD_FS_TCP_ESTABLISHED] = 3999)
		REFUSED(kinds[i](), OFFLOAD_BETWEEN, w.port.record.network = 4)
		REFUSED(kinds[i](), OFFLOAD_SEGMENT, w.port.record.flags |= HD_PORT_TRUNK)
		REFUSED(kinds[i](), OFFLOAD_SEGMENT, w.port.record.flags |= HD_PORT_ACCESS)
		REFUSED(kinds[i](), OFFLOAD_SEGMENT, w.port.record.flags |= HD_PORT_QINQ)
		REFUSED(kinds[i](), OFFLOAD_RATE, w.port.record.flags |= HD_PORT_LIMIT_OUT)
		REFUSED(kinds[i](), OFFLOAD_STALE, w.flow.flow.version = 6) /* of the other direction */
		REFUSED(kinds[i](), OFFLOAD_STALE, w.flow.flow.second_version = 5)
		REFUSED(kinds[i](), OFFLOAD_STALE, w.port.record.policy[0].generation = 0)
		REFUSED(kinds[i](), OFFLOAD_STALE, w.port.record.moved = 1000)
		REFUSED(kinds[i](), OFFLOAD_STALE, w.network.flags = 0)
		REFUSED(kinds[i](), OFFLOAD_WIRE, memset(w.flow.flow.peer_mac, 0, 6))
		REFUSED(kinds[i](), OFFLOAD_WIRE, w.flow.flow.peer_mac[0] = 3)
		REFUSED(kinds[i](), OFFLOAD_WIRE, memcpy(w.flow.flow.peer_mac, gateway, 6))
	}
}

static void test_what_stays_of_the_wire(void **state)
{
	(void)state;
	REFUSED(make_wire(), OFFLOAD_STALE, w.network.vlan = 0)
	REFUSED(make_wire(), OFFLOAD_WIRE, w.port.record.flags = 0)
	/* A document says that somebody else has the address, or the MAC. */
	REFUSED(make_wire(), OFFLOAD_STALE, w.endpoint.ifindex = 12)
	REFUSED(make_wire(), OFFLOAD_STALE, w.endpoint.flags = HD_ENDPOINT_TAKEN)
	REFUSED(make_wire(), OFFLOAD_STALE, w.owner.ifindex = 12)
	REFUSED(make_wire(), OFFLOAD_STALE, w.prefix.peer = PEER)
	REFUSED(make_wire(), OFFLOAD_NONE, w.prefix.peer = PEER, w.network.vni = 0)
	/* Not learnt, or elsewhere. */
	REFUSED(make_wire(), OFFLOAD_WIRE, w.learnt.ifindex = 0)
	REFUSED(make_wire(), OFFLOAD_WIRE, w.learnt = ((struct hd_fdb){.peer = PEER}))
	REFUSED(make_wire(), OFFLOAD_SWITCH, w.learnt.ifindex = UPLINK + 1)
	/* Nothing is cut by a tunnel there. */
	REFUSED(make_wire(), OFFLOAD_NONE, w.port.record.mtu = 9000)
}

static void test_what_stays_of_peers(void **state)
{
	(void)state;
	REFUSED(make_peer(), OFFLOAD_WIRE, w.flow.flow.device[1] = HD_DEVICE_OUTSIDE)
	REFUSED(make_peer(), OFFLOAD_TUNNEL, w.ask.tunnel_device = 0)
	REFUSED(make_peer(), OFFLOAD_CHECKSUM, w.ask.tunnel.flags = HD_TUNNEL_CHECKSUM)
	REFUSED(make_peer(), OFFLOAD_STALE, w.network.vni = 0)
	REFUSED(make_peer(), OFFLOAD_STALE, w.peer.flags = 0)
	REFUSED(make_peer(), OFFLOAD_STALE, w.peer.moved = 1000)
	REFUSED(make_peer(), OFFLOAD_NONE, w.peer.moved = 999)
	REFUSED(make_peer(), OFFLOAD_STALE, w.endpoint.peer = PEER + 1)
	REFUSED(make_peer(), OFFLOAD_HOST, w.endpoint.flags = HD_ENDPOINT_NODE)
	REFUSED(make_peer(), OFFLOAD_STALE, w.endpoint.peer = 0)
	REFUSED(make_peer(), OFFLOAD_STALE, w.owner.peer = PEER + 1)
	REFUSED(make_peer(), OFFLOAD_WAYS, w.peer.ways = HD_PEER_WAYS_OF(1, 0))
	REFUSED(make_peer(), OFFLOAD_WAYS, w.peer.ways = HD_PEER_WAYS_OF(1, 2))
	REFUSED(make_peer(), OFFLOAD_SWITCH, w.peer.ways = HD_PEER_WAYS_OF(0, 1))
	/* What is too big has to be answered, whether or not it is routed. */
	REFUSED(make_peer(), OFFLOAD_MTU, w.port.record.mtu = 1451)
	REFUSED(make_peer(), OFFLOAD_MTU, w.port.record.mtu = 0)
	REFUSED(make_peer(), OFFLOAD_MTU, w.room = 0)
	REFUSED(make_peer(), OFFLOAD_NONE, w.room = 9000)
	REFUSED(make_peer(), OFFLOAD_MTU, w.room = 9000, w.port.record.flags = 0)
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_wire),
		cmocka_unit_test(test_switched_to_a_peer),
		cmocka_unit_test(test_routed_to_a_peer),
		cmocka_unit_test(test_what_stays_of_both),
		cmocka_unit_test(test_what_stays_of_the_wire),
		cmocka_unit_test(test_what_stays_of_peers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
