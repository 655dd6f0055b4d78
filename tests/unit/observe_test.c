/* SPDX-License-Identifier: Apache-2.0 */
/* Shapes of answers, without a data plane: explain's requests, events, status, metrics. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <arpa/inet.h>
#include <net/if_arp.h>
#include <netinet/in.h>

#include <cmocka.h>

#include <heddle/overlay.h>
#include <observe/counters.h>
#include <observe/events.h>
#include <observe/explain.h>
#include <observe/flows.h>
#include <observe/json.h>
#include <observe/metrics.h>
#include <observe/names.h>
#include <observe/status.h>
#include <util/addr.h>
#include <util/cleanup.h>

static const struct object_list no_objects;
static struct uplink uplinks[] = {{.device = "eth1"}, {.device = "eth2"}};
static const struct host host = {.uplinks = uplinks, .n_uplinks = 2};
static const struct netdev devices[] = {{.ifindex = 1, .name = "lo", .type = ARPHRD_LOOPBACK},
	{.ifindex = 2, .name = "eth0", .type = ARPHRD_ETHER}, {.ifindex = 3, .name = "eth1", .type = ARPHRD_ETHER}};

static const struct view view = {
	.objects = &no_objects,
	.host = &host,
	.devices = devices,
	.n_devices = 3,
	.generation = 7,
	.last_error = "refused\n/etc/heddle/a.yaml:3: spec: want an object, got a list\n",
	.last_error_time = 1700000000123,
	.unsaved = {[VIEW_KEPT_IPAM] = {-ENOSPC, 1700000000123}},
	.version = "0.0-\"test\"",
};

/* --- explain's requests --- */

static int parse(const char *text, struct explain_request *request, struct buffer *mistakes)
{
	json_auto_t *body = json_loads(text, JSON_DECODE_ANY, NULL);

	assert_non_null(body);
	return explain_parse(body, request, mistakes);
}

static void test_explain_defaults(void **state)
{
	_cleanup_buffer_ struct buffer mistakes = {0};
	struct explain_request request;

	(void)state;
	assert_int_equal(parse("{\"from\":\"192.0.2.1\",\"to\":\"192.0.2.2\",\"dport\":22}", &request, &mistakes), 0);
	assert_int_equal(request.spec.protocol, IPPROTO_TCP);
	assert_int_equal(request.spec.tcp_flags, 0x02);
	assert_int_equal(request.spec.destination_port, 22);
	assert_true(request.spec.source_port >= 49152);

	assert_int_equal(
		parse("{\"from\":\"2001:db8::1\",\"to\":\"2001:db8::2\",\"protocol\":\"icmp\"}", &request, &mistakes), 0);
	assert_int_equal(request.spec.protocol, IPPROTO_ICMPV6);
	assert_int_equal(request.spec.icmp_type, 128);

	assert_int_equal(parse("{\"from\":\"2001:db8::1\",\"to\":\"2001:db8::2\",\"protocol\":\"ICMPv6\",\"reply\":true}",
				 &request, &mistakes),
		0);
	assert_int_equal(request.spec.icmp_type, 129);

	assert_int_equal(
		parse("{\"from\":\"192.0.2.1\",\"to\":\"192.0.2.2\",\"dport\":1,\"reply\":true,\"vlan\":[5,6],\"uplink\":null}",
			&request, &mistakes),
		0);
	assert_int_equal(request.spec.tcp_flags, 0x10);
	assert_int_equal(request.spec.n_vlan, 2);
	assert_int_equal(request.spec.vlan[1], 6);

	assert_int_equal(parse("{\"frame\":\"ffffffffffff0200000000010806\",\"uplink\":\"eth1\"}", &request, &mistakes), 0);
	assert_false(request.described);
	assert_int_equal(request.length, 14);
	assert_string_equal(request.uplink, "eth1");
	assert_int_equal(mistakes.length, 0);
}

static void test_explain_mistakes(void **state)
{
	static const struct {
		const char *text, *says;
	} cases[] = {
		{"[]", "want a JSON object"},
		{"{}", "from: want an address\nto: want an address"},
		{"{\"from\":\"192.0.2.1\",\"to\":\"192.0.2.2\"}", "dport: want 0..65535"},
		{"{\"from\":\"192.0.2.1\",\"to\":\"2001:db8::1\",\"dport\":1}", "to: want an address of the family of `from`"},
		{"{\"from\":\"192.0.2.1\",\"to\":\"192.0.2.256\",\"dport\":1}", "to: want an address, got \"192.0.2.256\""},
		{"{\"from\":\"192.0.2.1\",\"to\":\"192.0.2.2\",\"dport\":65536}", "dport: want 0..65535, got 65536"},
		{"{\"from\":\"192.0.2.1\",\"to\":\"192.0.2.2\",\"dport\":\"22\"}", "dport: want 0..65535, got \"22\""},
		{"{\"from\":\"192.0.2.1\",\"to\":\"192.0.2.2\",\"protocol\":\"foo\"}",
			"protocol: want a protocol name or 0..255, got \"foo\""},
		{"{\"from\":\"192.0.2.1\",\"to\":\"192.0.2.2\",\"protocol\":256}", "protocol: want"},
		{"{\"from\":\"192.0.2.1\",\"to\":\"192.0.2.2\",\"dport\":1,\"vlan\":4095}", "vlan: want 0..4094"},
		{"{\"from\":\"192.0.2.1\",\"to\":\"192.0.2.2\",\"dport\":1,\"vlan\":[1,2,3]}", "vlan: want"},
		{"{\"from\":\"192.0.2.1\",\"to\":\"192.0.2.2\",\"dport\":1,\"uplink\":\"averyverylongname\"}",
			"uplink: want a device name"},
		{"{\"from\":\"192.0.2.1\",\"to\":\"192.0.2.2\",\"dport\":1,\"tcpFlags\":\"Q\"}", "tcpFlags: want letters"},
		{"{\"from\":\"192.0.2.1\",\"to\":\"192.0.2.2\",\"dport\":1,\"nonsense\":1}", "nonsense: unknown field"},
		{"{\"from\":\"192.0.2.1\",\"to\":\"192.0.2.2\",\"dport\":1,\"peer\":\"\"}", "peer: want a peer's name"},
		{"{\"from\":\"192.0.2.1\",\"to\":\"192.0.2.2\",\"dport\":1,\"peer\":\"b\",\"egress\":\"eth1\"}",
			"peer: want a peer, or a port or egress, not both"},
		{"{\"frame\":\"00\"}", "frame: want 28"},
		{"{\"frame\":\"zz00000000000000000000000000\"}", "frame: want 28"},
		{"{\"frame\":\"0000000000000000000000000000\",\"from\":\"192.0.2.1\"}",
			"frame: want a frame, or from and to, not both"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_buffer_ struct buffer mistakes = {0};
		struct explain_request request;

		assert_int_equal(parse(cases[i].text, &request, &mistakes), -EINVAL);
		if (!strstr(mistakes.data, cases[i].says))
			fail_msg("%s: got %s", cases[i].text, mistakes.data);
	}
}

static void test_explain_without_uplink(void **state)
{
	_cleanup_buffer_ struct buffer mistakes = {0};
	struct explain_request request;
	json_t *answer = NULL;

	(void)state;
	assert_int_equal(parse("{\"from\":\"192.0.2.1\",\"to\":\"192.0.2.2\",\"dport\":22}", &request, &mistakes), 0);
	assert_int_equal(explain_run(&view, &request, &answer, &mistakes), -ENODEV);
	assert_non_null(strstr(mistakes.data, "there is none"));
}

/* --- events --- */

static struct hd_event tcp_event(void)
{
	struct hd_event event = {
		.type = HD_EVENT_DROP,
		.hook = HD_HOOK_XDP_UPLINK,
		.direction = HD_INGRESS,
		.verdict = HD_DENY,
		.reason = HD_R_POLICY_DENY,
		.rule = HD_RULE_DEFAULT_INGRESS,
		.ifindex = 3,
		.length = 54,
		.generation = 7,
		.source_port = htons(1234),
		.destination_port = htons(22),
		.ethertype = htons(0x0800),
		.protocol = IPPROTO_TCP,
		.tcp_flags = 0x02,
		.vlan = {0x1000 | 10, 0},
		.l3_offset = 14,
	};

	assert_int_equal(addr_parse("192.0.2.1", &event.source), 0);
	assert_int_equal(addr_parse("192.0.2.2", &event.destination), 0);
	return event;
}

static const char *text_of(const json_t *json, const char *key)
{
	const char *text = json_string_value(json_object_get(json, key));

	return text ? text : "";
}

static void test_event(void **state)
{
	struct hd_event event = tcp_event();
	json_auto_t *line = event_json(&view, &event);

	(void)state;
	assert_string_equal(text_of(line, "verdict"), "deny");
	assert_string_equal(text_of(line, "reason"), "policy-deny");
	assert_string_equal(text_of(line, "hook"), "xdp_uplink");
	assert_string_equal(text_of(line, "device"), "eth1");
	assert_string_equal(text_of(line, "direction"), "ingress");
	assert_string_equal(text_of(line, "protocol"), "TCP");
	assert_string_equal(text_of(line, "source"), "192.0.2.1");
	assert_string_equal(text_of(line, "tcpFlags"), "S");
	assert_int_equal(json_integer_value(json_object_get(line, "destinationPort")), 22);
	assert_int_equal(json_integer_value(json_array_get(json_object_get(line, "vlan"), 0)), 10);
	assert_string_equal(text_of(json_object_get(line, "rule"), "name"), "default-ingress");
	assert_true(event_is_drop(&event));
	event.type = HD_EVENT_FLOW;
	assert_false(event_is_drop(&event));
}

static void test_event_audit(void **state)
{
	struct hd_event event = tcp_event();
	json_auto_t *denied = NULL, *line = NULL;

	(void)state;
	event.type = HD_EVENT_LOG;
	denied = event_json(&view, &event);
	assert_true(json_is_false(json_object_get(denied, "audit")));
	assert_true(event_is_drop(&event));
	event.verdict = HD_ALLOW;
	line = event_json(&view, &event);
	assert_true(json_is_true(json_object_get(line, "audit")));
	assert_string_equal(text_of(line, "verdict"), "allow");
	assert_string_equal(text_of(line, "reason"), "policy-deny");
	assert_false(event_is_drop(&event));
}

static void test_event_unparsed(void **state)
{
	struct hd_event event = {.type = HD_EVENT_DROP, .verdict = HD_DROP, .reason = HD_R_ETH_TRUNCATED, .ifindex = 99};
	json_auto_t *line = event_json(&view, &event), *full = NULL;

	(void)state;
	assert_non_null(line);
	assert_true(json_is_null(json_object_get(line, "device")));
	assert_true(json_is_null(json_object_get(line, "etherType")));
	assert_null(json_object_get(line, "source"));
	event.type = HD_EVENT_FULL;
	event.reason = HD_TABLE_FLOWS_NEW;
	full = event_json(&view, &event);
	assert_string_equal(text_of(full, "table"), "flows_new");
	event.type = 77;
	assert_null(event_json(&view, &event));
}

/* What a tunnel packet was dropped for has the outer addresses; what was in one, the inner ones. */
static void test_event_of_peer(void **state)
{
	struct topology_peer peer = {.index = 5, .name = "node-b"};
	struct topology topology = {.peers = &peer, .n_peers = 1};
	struct view with = view;
	struct hd_event event = tcp_event();
	json_auto_t *inner = NULL, *out = NULL, *outer = NULL, *nobody = NULL;

	(void)state;
	with.topology = &topology;
	assert_int_equal(addr_parse("192.168.77.2", &peer.address), 0);
	event.hook = HD_HOOK_TC_TUNNEL_IN;
	event.peer = 5;
	inner = event_json(&with, &event);
	assert_string_equal(text_of(inner, "sourcePeer"), "#5"); /* no names are known here */
	assert_null(json_object_get(inner, "destinationPeer"));
	event.hook = HD_HOOK_TC_PORT_IN;
	out = event_json(&with, &event);
	assert_string_equal(text_of(out, "destinationPeer"), "#5");
	event = (struct hd_event){.type = HD_EVENT_DROP,
		.verdict = HD_DROP,
		.hook = HD_HOOK_TC_TUNNEL_IN,
		.reason = HD_R_TUNNEL_VNI,
		.source = peer.address};
	outer = event_json(&with, &event);
	assert_string_equal(text_of(outer, "source"), "192.168.77.2");
	assert_string_equal(text_of(outer, "sourcePeer"), "#5");
	assert_string_equal(text_of(outer, "protocol"), "UDP");
	event.reason = HD_R_TUNNEL_PEER;
	event.source.b[15]++;
	nobody = event_json(&with, &event);
	assert_string_equal(text_of(nobody, "source"), "192.168.77.3");
	assert_null(json_object_get(nobody, "sourcePeer"));
}

/* --- names --- */

static void test_names(void **state)
{
	char buffer[PROTOCOL_NAME_MAX];

	(void)state;
	assert_string_equal(reason_name(HD_R_NONLINEAR), "nonlinear");
	assert_string_equal(reason_name(HD_REASON_COUNT), "?");
	assert_string_equal(verdict_name(99), "?");
	assert_string_equal(flow_state_name(HD_FS_TCP_ESTABLISHED), "established");
	assert_int_equal(protocol_from_name("tcp"), 6);
	assert_int_equal(protocol_from_name("IPv6-ICMP"), 58);
	assert_int_equal(protocol_from_name("255"), 255);
	assert_int_equal(protocol_from_name("256"), -1);
	assert_int_equal(protocol_from_name(""), -1);
	for (unsigned protocol = 0; protocol < 256; protocol++)
		assert_int_equal(protocol_from_name(protocol_name(protocol, buffer)), protocol);
}

/* --- status and metrics --- */

static void test_status(void **state)
{
	json_auto_t *status = status_json(&view);
	const json_t *waiting, *unsaved = json_object_get(status, "unsaved");

	(void)state;
	assert_non_null(status);
	assert_int_equal(json_array_size(unsaved), 1);
	assert_string_equal(text_of(json_array_get(unsaved, 0), "file"), "ipam");
	assert_string_equal(text_of(json_array_get(unsaved, 0), "reason"), strerror(ENOSPC));
	assert_string_equal(text_of(json_array_get(unsaved, 0), "since"), "2023-11-14T22:13:20.123Z");
	assert_true(json_is_false(json_object_get(status, "ready")));
	assert_int_equal(json_integer_value(json_object_get(status, "generation")), 7);
	assert_int_equal(json_array_size(json_object_get(status, "uplinks")), 2);
	waiting = json_array_get(json_object_get(status, "uplinks"), 1);
	assert_string_equal(text_of(waiting, "state"), "waiting");
	assert_true(json_is_null(json_object_get(waiting, "ifindex")));
	assert_int_equal(json_array_size(json_object_get(status, "unguarded")), 1);
	assert_string_equal(json_string_value(json_array_get(json_object_get(status, "unguarded"), 0)), "eth0");
	assert_int_equal(json_array_size(json_object_get(json_object_get(status, "lastError"), "details")), 2);
	assert_string_equal(text_of(json_object_get(status, "lastError"), "time"), "2023-11-14T22:13:20.123Z");
	assert_true(json_is_null(json_object_get(status, "pendingConfirm")));
}

/* Every sample belongs to the family that was announced last, with its type's suffix, and the text ends in # EOF. */
static void test_metrics(void **state)
{
	_cleanup_buffer_ struct buffer text = {0};
	char family[128] = "", type[32] = "";
	char *line, *rest = NULL;
	unsigned samples = 0;

	(void)state;
	assert_int_equal(metrics_text(&view, &text), 0);
	assert_non_null(strstr(text.data, "version=\"0.0-\\\"test\\\"\""));
	assert_non_null(strstr(text.data, "heddle_unsaved{file=\"ipam\"} 1\n"));
	assert_non_null(strstr(text.data, "heddle_unsaved{file=\"files.last-good\"} 0\n"));
	assert_string_equal(text.data + text.length - 6, "# EOF\n");
	for (line = strtok_r(text.data, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		size_t length = strlen(family);
		const char *suffix;

		if (sscanf(line, "# TYPE %127s %31s", family, type) == 2 || !strncmp(line, "# ", 2))
			continue;
		if (strncmp(line, family, length))
			fail_msg("%s is not of %s", line, family);
		suffix = !strcmp(type, "counter") ? "_total" : !strcmp(type, "info") ? "_info" : "";
		if (strncmp(line + length, suffix, strlen(suffix)) || !strchr("{ ", line[length + strlen(suffix)]))
			fail_msg("%s: want the suffix \"%s\"", line, suffix);
		samples++;
	}
	assert_true(samples > 100);
}

/* --- flows that NICs forward: a world of one flow that a NIC takes, and one that it does not --- */

#define OFFLOAD_FLOW(port, to) \
	{ \
		.family = 4, .proven = true, .protocol = IPPROTO_UDP, .network = 1, \
		.source = {.b = {[10] = 0xff, 0xff, 10, 0, 0, 1}}, .destination = {.b = {[10] = 0xff, 0xff, 10, 0, 0, 2}}, \
		.source_port = (port), .destination_port = 80, .flow = { \
			.state = HD_FS_UDP_REPLIED, \
			.version = 1, \
			.second_version = 1, \
			.last_seen = 100, \
			.device = {11, (to)} \
		} \
	}
static const struct datapath_flow offload_flows[] = {OFFLOAD_FLOW(1, 12), OFFLOAD_FLOW(2, 13)};
static uint64_t nic_packets;

static bool offload_port(uint32_t ifindex, struct offload_port *ret, void *userdata)
{
	(void)userdata;
	*ret = (struct offload_port){.record = {.ifindex = ifindex,
					     .network = 1,
					     .flags = HD_PORT_L2,
					     .mac = {2, 0, 0, 0, 0, (uint8_t)ifindex},
					     .policy = {{.generation = 1, .version = {1, 1}}}},
		.generation = 1,
		.switch_id = 5};
	return true;
}

static bool offload_neighbours(uint16_t network, const struct hd_addr *a, const struct hd_addr *b, void *userdata)
{
	(void)network;
	(void)a;
	(void)b;
	(void)userdata;
	return true;
}

static int offload_add(const struct flower_filter *filter, char reason[FLOWER_REASON_MAX], void *userdata)
{
	(void)userdata;
	if (filter->rule.in != 13 && filter->rule.out != 13)
		return 0;
	snprintf(reason, FLOWER_REASON_MAX, "no \"room\" in the NIC");
	return -EOPNOTSUPP;
}

static int offload_remove(const struct flower_filter *filter, struct flower_seen *seen, void *userdata)
{
	(void)filter;
	(void)seen;
	(void)userdata;
	return 0;
}

/* Handles are those that a manager gives first. */
static int offload_each(uint32_t ifindex, void (*cb)(const struct flower_seen *seen, void *data), void *data, void *userdata)
{
	const struct flower_seen seen = {
		.ifindex = ifindex, .handle = ifindex == 11 ? 2 : 3, .packets = nic_packets, .bytes = 114 * nic_packets};

	(void)userdata;
	cb(&seen, data);
	return 0;
}

static int offload_flow_again(struct datapath_flow *flow, void *userdata)
{
	(void)flow;
	(void)userdata;
	return 0;
}

static int offload_credit(
	const struct datapath_flow *flow, const uint64_t packets[2], const uint64_t bytes[2], unsigned flags, void *userdata)
{
	(void)flow;
	(void)packets;
	(void)bytes;
	(void)flags;
	(void)userdata;
	return 0;
}

static int offload_walk(uint32_t *cursor, datapath_flow_cb cb, void *data, void *userdata)
{
	(void)cursor;
	(void)userdata;
	for (size_t i = 0; i < ARRAY_SIZE(offload_flows); i++)
		assert_int_equal(cb(&offload_flows[i], data), 0);
	return 0;
}

static uint64_t offload_now(void *userdata)
{
	(void)userdata;
	return 1000;
}

static const struct offload_ops offload_ops = {.add = offload_add,
	.remove = offload_remove,
	.each = offload_each,
	.again = offload_flow_again,
	.credit = offload_credit,
	.walk = offload_walk,
	.now_ms = offload_now};

/* What is denied without an end. */
static int drops_ask(const struct offload_rule *rule, struct drop_answer *ret, void *userdata)
{
	(void)rule;
	(void)userdata;
	*ret = (struct drop_answer){.denied = true, .silent = true, .rule = HD_RULE_ISOLATED};
	return 0;
}

static bool drops_owner(uint16_t network, const struct hd_addr *addr, uint32_t *ret, void *userdata)
{
	(void)network;
	(void)addr;
	(void)userdata;
	*ret = 12;
	return true;
}

static int drops_credit(uint32_t rule, uint64_t packets, uint64_t bytes, uint64_t frames, void *userdata)
{
	(void)userdata;
	assert_int_equal(rule, HD_RULE_ISOLATED);
	assert_int_equal(frames, bytes + 14 * packets);
	return 0;
}

static int drops_denied(uint64_t *ret, void *userdata)
{
	(void)ret;
	(void)userdata;
	return -ENOTCONN;
}

static int drops_each(uint32_t ifindex, void (*cb)(const struct flower_seen *seen, void *data), void *data, void *userdata)
{
	const struct flower_seen seen = {
		.ifindex = ifindex, .handle = DROPS_HANDLE, .packets = nic_packets, .bytes = 114 * nic_packets};

	(void)userdata;
	cb(&seen, data);
	return 0;
}

static const struct drops_ops drops_ops = {.add = offload_add,
	.remove = offload_remove,
	.each = drops_each,
	.now_ms = offload_now,
	.ask = drops_ask,
	.owner = drops_owner,
	.credit = drops_credit,
	.denied = drops_denied};

static void has_sample(const struct view *of, const char *sample)
{
	_cleanup_buffer_ struct buffer text = {0};

	assert_int_equal(metrics_text(of, &text), 0);
	if (!strstr(text.data, sample))
		fail_msg("%s is not in %s", sample, strstr(text.data, "# TYPE heddle_offload_active"));
}

static void test_offloaded(void **state)
{
	const struct offload_world world = {.port = offload_port, .neighbours = offload_neighbours};
	const struct offload_limits limits = {.flows = 8, .a_round = 8, .header = 14};
	static const struct host asking = {.offload = true};
	struct offload *manager = NULL;
	struct view wide = view;
	_cleanup_buffer_ struct buffer off = {0};
	json_t *status, *offload;

	(void)state;
	/* Nobody asks. */
	assert_int_equal(metrics_text(&wide, &off), 0);
	assert_null(strstr(off.data, "\nheddle_offload_"));
	/* It waits. */
	wide.host = &asking;
	wide.offload_reason = "no port is one";
	has_sample(&wide, "\nheddle_offload_active 0\n");
	has_sample(&wide, "\nheddle_offload_flows 0\n");
	/* It goes. */
	assert_int_equal(offload_new(&offload_ops, &world, &limits, &manager), 0);
	wide.offload = manager;
	wide.offload_reason = NULL;
	offload_round(manager);
	nic_packets = 7;
	offload_round(manager);
	has_sample(&wide, "\nheddle_offload_active 1\n");
	has_sample(&wide, "\nheddle_offload_flows 1\n");
	has_sample(&wide, "\nheddle_offload_software_flows{reason=\"refused\"} 1\n");
	has_sample(&wide, "\nheddle_offload_software_flows{reason=\"tunnel\"} 0\n");
	has_sample(&wide, "\nheddle_offload_packets_total 14\n");
	has_sample(&wide, "\nheddle_offload_bytes_total 1400\n");
	has_sample(&wide, "\nheddle_offload_rules_total{change=\"added\"} 2\n");
	has_sample(&wide, "\nheddle_offload_refused_total 1\n");
	has_sample(&wide, "\nheddle_offload_paused 0\n");
	status = status_json(&wide);
	offload = json_object_get(status, "offload");
	assert_int_equal(json_integer_value(json_object_get(offload, "packets")), 14);
	assert_int_equal(json_integer_value(json_object_get(offload, "bytes")), 1400);
	assert_string_equal(text_of(offload, "lastRefusalText"), "no \"room\" in the NIC");
	json_decref(status);
	offload_free(manager);
}

static void test_dropped(void **state)
{
	const struct offload_world world = {.port = offload_port, .neighbours = offload_neighbours};
	static const struct host asking = {.offload = true};
	const struct hd_event event = {.type = HD_EVENT_DROP,
		.reason = HD_R_POLICY_DENY,
		.hook = HD_HOOK_TC_PORT_IN,
		.direction = HD_EGRESS,
		.ifindex = 11,
		.source = offload_flows[0].source,
		.destination = offload_flows[0].destination,
		.destination_port = htons(80),
		.protocol = IPPROTO_TCP,
		.tcp_flags = 2};
	struct drops *drops = NULL;
	struct view wide = view;
	json_t *status, *told, *item;

	(void)state;
	wide.host = &asking;
	has_sample(&wide, "\nheddle_offload_drops 0\n");
	assert_int_equal(drops_new(&drops_ops, &world, 14, &drops), 0);
	wide.drops = drops;
	nic_packets = 0;
	for (unsigned i = 0; i < 2; i++) {
		for (unsigned n = 0; n < DROPS_LEAST; n++)
			drops_note(drops, &event);
		drops_round(drops);
	}
	nic_packets = 7;
	drops_round(drops);
	has_sample(&wide, "\nheddle_offload_drops 1\n");
	has_sample(&wide, "\nheddle_offload_dropped_packets_total 7\n");
	has_sample(&wide, "\nheddle_offload_dropped_bytes_total 700\n");
	has_sample(&wide, "\nheddle_offload_drops_refused_total 0\n");
	has_sample(&wide, "\nheddle_offload_drops_paused 0\n");
	status = status_json(&wide);
	told = json_object_get(json_object_get(status, "offload"), "drops");
	assert_int_equal(json_integer_value(json_object_get(told, "now")), 1);
	assert_int_equal(json_integer_value(json_object_get(told, "packets")), 7);
	item = json_array_get(json_object_get(told, "items"), 0);
	assert_string_equal(text_of(item, "protocol"), "TCP");
	assert_string_equal(text_of(item, "destination"), "10.0.0.2");
	assert_int_equal(json_integer_value(json_object_get(item, "destinationPort")), 80);
	assert_null(json_object_get(item, "sourcePort"));
	assert_string_equal(text_of(json_object_get(item, "rule"), "name"), "isolated");
	json_decref(status);
	drops_free(drops);
}

static void test_counters(void **state)
{
	json_auto_t *counters = counters_json(&view);
	_cleanup_buffer_ struct buffer rules = {0}, flows = {0};
	json_auto_t *builtin = builtin_rules_json();

	(void)state;
	assert_int_equal(json_array_size(json_object_get(counters, "drops")), 0);
	assert_true(json_is_object(json_object_get(json_object_get(counters, "totals"), "ingress")));
	assert_int_equal(rules_text(&view, &rules), 0);
	assert_string_equal(rules.data, "{\"items\":[]}\n");
	assert_int_equal(flows_text(&view, &flows), 0);
	assert_string_equal(flows.data, "{\"items\":[]}\n");
	assert_int_equal(json_array_size(json_object_get(builtin, "items")), HD_RULE_BUILTIN_COUNT - 1);
}

static void test_flow(void **state)
{
	struct datapath_flow flow = {.family = 4,
		.proven = true,
		.protocol = IPPROTO_TCP,
		.source_port = 5,
		.destination_port = 22,
		.flow = {.state = HD_FS_TCP_ESTABLISHED,
			.packets = {3, 2},
			.bytes = {30, 20},
			.ifindex = 3,
			.rule = HD_RULE_FAILSAFE}};
	json_t *json;

	(void)state;
	assert_int_equal(addr_parse("192.0.2.1", &flow.source), 0);
	assert_int_equal(addr_parse("192.0.2.2", &flow.destination), 0);
	json = flow_json(&view, &flow);
	assert_string_equal(text_of(json, "state"), "established");
	assert_string_equal(text_of(json, "network"), "host");
	assert_int_equal(json_integer_value(json_object_get(json, "packets")), 5);
	assert_string_equal(text_of(json_object_get(json, "rule"), "policy"), "builtin");
	assert_null(json_object_get(json, "destinationPeer"));
	json_decref(json);
	flow.flow.device[HD_ORIG] = HD_DEVICE_PEER | 5;
	flow.flow.device[HD_REPLY] = HD_DEVICE_WIRE;
	json = flow_json(&view, &flow);
	assert_string_equal(text_of(json, "sourcePeer"), "#5");
	assert_null(json_object_get(json, "destinationPeer"));
	json_decref(json);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_explain_defaults),
		cmocka_unit_test(test_explain_mistakes),
		cmocka_unit_test(test_explain_without_uplink),
		cmocka_unit_test(test_event),
		cmocka_unit_test(test_event_audit),
		cmocka_unit_test(test_event_unparsed),
		cmocka_unit_test(test_event_of_peer),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_status),
		cmocka_unit_test(test_metrics),
		cmocka_unit_test(test_offloaded),
		cmocka_unit_test(test_dropped),
		cmocka_unit_test(test_counters),
		cmocka_unit_test(test_flow),
	};

	return cmocka_run_group_tests_name("observe", tests, NULL, NULL);
}
