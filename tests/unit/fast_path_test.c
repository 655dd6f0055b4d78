/* SPDX-License-Identifier: Apache-2.0 */
/* FastPath documents: what is read, what is refused, alone and beside others. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model_env.h"
#include <model/content.h>
#include <model/decode.h>
#include <util/buffer.h>
#include <util/cleanup.h>

#define FAST(name, spec) "{apiVersion: heddle.dev/v1alpha1, kind: FastPath, metadata: {name: " name "}, spec: {" spec "}}\n"
#define UDP(port) "uplink: eth0, match: [{protocol: UDP, port: " port "}]"
#define FORWARD "consumer: forward, devices: [eth0, eth1], match: [{}]"
#define WORLD \
	"{apiVersion: heddle.dev/v1alpha1, kind: Host, metadata: {name: h}, spec: {uplinks: [{device: eth0}, {device: " \
	"eth1}]}}\n---\n" \
	"{apiVersion: heddle.dev/v1alpha1, kind: Network, metadata: {name: n}, spec: {}}\n---\n" \
	"{apiVersion: heddle.dev/v1alpha1, kind: Port, metadata: {name: web}, spec: {device: p0, network: n}}\n---\n" \
	"{apiVersion: heddle.dev/v1alpha1, kind: HostPolicy, metadata: {name: p}, spec: {ingress: [{action: allow, name: " \
	"dns}]}}\n---\n"

static struct object_list decode(const char *text)
{
	_cleanup_diag_ struct diag diag = {0};
	struct object_list list = {0};

	if (decode_documents("t.yaml", text, strlen(text), &list, &diag) < 0)
		fail_msg("refused: %s", diag.text);
	return list;
}

static void test_round_trip(void **state)
{
	static const char *const texts[] = {
		FAST("u", "uplink: eth0, trusted: true, fallback: drop, mode: copy, queues: [3, 0], match: [{}, {protocol: UDP, "
			  "port: 53, "
			  "sourcePort: 7, source: 10.0.0.0/8, destination: 192.0.2.1/32, vlan: 9}, {hostPolicy: p}, {hostPolicy: "
			  "p, rule: "
			  "'a \"b\"', destination: '2001:db8::/32'}], allow: {users: [0, 65534], groups: [4]}, memory: {frames: "
			  "128, "
			  "frameSize: 4096, ring: 64}, busyPoll: {microseconds: 20, budget: 8}, stall: 90s"),
		FAST("t", "port: web, namespace: shop, fallback: pass"),
		FAST("d", UDP("7")),
		FAST("f", FORWARD),
		FAST("r", FORWARD ", way: redirect, fallback: drop"),
		FAST("a", FORWARD ", way: auto, workers: 2, batch: 8"),
		FAST("g", FORWARD ", workers: 2, cpus: [1, 0], spin: true, batch: 8, latency: true, fallback: drop, mode: copy, "
				  "memory: {ring: 256}, busyPoll: {microseconds: 20}"),
	};
	uint64_t hashes[ARRAY_SIZE(texts)];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		_cleanup_object_list_ struct object_list list = decode(texts[i]);
		_cleanup_buffer_ struct buffer text = {0}, again = {0};

		encode_text(list.items[0], &text);
		_cleanup_object_list_ struct object_list second = decode(text.data);
		assert_true(object_equal(list.items[0], second.items[0]));
		encode_text(second.items[0], &again);
		assert_string_equal(text.data, again.data);
		hashes[i] = content_hash(list.items[0]);
		for (size_t j = 0; j < i; j++)
			assert_int_not_equal(hashes[i], hashes[j]);
	}
	_cleanup_object_list_ struct object_list port = decode(texts[1]),
						 uplink = decode(FAST("x", "port: web") "---\n" FAST("y", UDP("7")));
	assert_false(port.items[0]->fast_path.drop);
	assert_true(uplink.items[0]->fast_path.drop); /* what is for a port goes nowhere else by itself */
	assert_false(uplink.items[1]->fast_path.drop);
}

static void test_mistakes(void **state)
{
	static const struct {
		const char *spec, *message;
	} cases[] = {
		{"queues: all", "spec: want either uplink or port, got nothing"},
		{UDP("7") ", port: web", "spec: want either uplink or port, got a mapping"},
		{"uplink: eth0", "spec.match: want a list of matches beside uplink, got nothing"},
		{"uplink: eth0, match: []", "spec.match: want at least one of matches, got an empty list"},
		{"port: web, match: [{}]", "spec.match: want no match beside port: what policy lets through to the port is the "
					   "consumer's, all of it, got a list"},
		{"port: web, trusted: true",
			"spec.trusted: want trusted only beside uplink: what comes from a port is judged, got true"},
		{UDP("7") ", namespace: shop", "spec.namespace: want a namespace only beside port, got shop"},
		{"uplink: eth0, match: [{port: 7}]", "spec.match[0].protocol: want a protocol beside a port, got nothing"},
		{"uplink: eth0, match: [{rule: r}]", "spec.match[0].hostPolicy: want the HostPolicy of the rule, got nothing"},
		{"uplink: eth0, match: [{source: 10.0.0.0/8, destination: '2001:db8::/32'}]",
			"spec.match[0].source: want a block of the destination's family, got 10.0.0.0/8"},
		{"uplink: eth0, match: [{source: '::/0'}]",
			"spec.match[0].source: want a block that is not all of IPv6: leave the field out, got \"::/0\""},
		{"port: web, queues: some", "spec.queues: want all or a list of queues, got some"},
		{"port: web, queues: [1, 1]", "spec.queues[1]: want each queue once, got 1"},
		{"port: web, queues: [64]", "spec.queues[0]: want 0..63, got 64"},
		{"port: web, consumer: other", "spec.consumer: want socket or forward, got other"},
		{"port: web, memory: {frameSize: 3000}", "spec.memory.frameSize: want 2048 or 4096, got 3000"},
		{"port: web, memory: {ring: 100}", "spec.memory.ring: want a power of two, got 100"},
		{"port: web, stall: 10ms", NULL},
		{FORWARD ", uplink: eth0", "spec.uplink: want none beside consumer forward, got eth0"},
		{FORWARD ", trusted: true", "spec.trusted: want none beside consumer forward, got true"},
		{FORWARD ", memory: {frames: 64}",
			"spec.memory.frames: want none beside consumer forward: the MTU says it, got 64"},
		{UDP("7") ", workers: 2", "spec.workers: want none without consumer forward, got 2"},
		{"consumer: forward, match: [{}]",
			"spec.devices: want a list of two devices or more beside consumer forward, got nothing"},
		{"consumer: forward, devices: [eth0], match: [{}]",
			"spec.devices: want a list of two devices or more beside consumer forward, got a list"},
		{"consumer: forward, devices: [eth0, eth0], match: [{}]", "spec.devices[1]: want each device once, got eth0"},
		{"consumer: forward, devices: [eth0, eth1]", "spec.match: want a list of matches beside devices, got nothing"},
		{FORWARD ", way: straight", "spec.way: want workers, redirect or auto, got straight"},
		{UDP("7") ", way: auto", "spec.way: want none without consumer forward, got auto"},
		{FORWARD ", way: redirect, workers: 2",
			"spec.workers: want none beside way redirect: there are no workers, got 2"},
		{FORWARD ", way: redirect, memory: {ring: 64}",
			"spec.memory: want none beside way redirect: there are no workers, got a mapping"},
		{FORWARD ", way: redirect, mode: copy",
			"spec.mode: want none beside way redirect: there are no workers, got copy"},
		{FORWARD ", workers: 2, cpus: [1]", "spec.cpus: want one CPU for each of the workers, got a list"},
		{"port: web, allow: {users: [-1]}", NULL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_buffer_ struct buffer text = {0};
		_cleanup_diag_ struct diag diag = {0};
		_cleanup_object_list_ struct object_list list = {0};
		char expected[300];

		buffer_printf(&text, "{apiVersion: heddle.dev/v1alpha1, kind: FastPath, metadata: {name: x}, spec: {%s}}\n",
			cases[i].spec);
		assert_int_equal(decode_documents("t.yaml", text.data, text.length, &list, &diag), -EINVAL);
		if (!cases[i].message)
			continue;
		snprintf(expected, sizeof(expected), "t.yaml:1: %s", cases[i].message);
		assert_string_equal(diag.text, expected);
	}
}

static void test_beside_others(void **state)
{
	static const struct {
		const char *text, *message; /* NULL: good */
	} cases[] = {
		{FAST("a", "port: web") "---\n" FAST("b", UDP("7")) "---\n" FAST("c", UDP("8")), NULL},
		{FAST("a", UDP("7")) "---\n" FAST("b", "uplink: eth1, match: [{protocol: UDP, port: 7}]"), NULL},
		{FAST("a", "uplink: eth0, match: [{hostPolicy: p}, {hostPolicy: p, rule: dns}]"), NULL},
		{FAST("a", "port: none"), "spec.port: want the name of a Port, got default/none, which no document declares"},
		{FAST("a", "uplink: eth9, match: [{}]"), "spec.uplink: want an uplink of Host h, got eth9"},
		{FAST("a", "port: web") "---\n" FAST("b", "port: web"),
			"spec.port: want a Port that no other FastPath has, got web, which FastPath a has"},
		{FAST("a", UDP("7")) "---\n" FAST("b", "uplink: eth0, match: [{}, {protocol: UDP, port: 7}]"),
			"spec.match[1]: want packets that no other FastPath takes, got what spec.match[0] of FastPath a has"},
		{FAST("a", FORWARD) "---\n" FAST("b", "port: web"), NULL},
		{FAST("a", "consumer: forward, devices: [eth0, eth9], match: [{}]"),
			"spec.devices[1]: want an uplink of Host h, or a Port's device, got eth9"},
		{FAST("a", "consumer: forward, devices: [eth0, p0], match: [{}]"), NULL},
		{FAST("a", "consumer: forward, devices: [eth0, p0], match: [{}]") "---\n" FAST(
			 "b", "consumer: forward, devices: [p0, eth1], match: [{}]"),
			"spec.devices[0]: want a device that no other FastPath has, got p0, which FastPath a has"},
		{FAST("a", FORWARD) "---\n" FAST("b", UDP("7")),
			"spec.devices[0]: want a device that no other FastPath has, got eth0, which FastPath b has"},
		{FAST("a", FORWARD) "---\n" FAST("b", FORWARD),
			"spec.devices[1]: want a device that no other FastPath has, got eth1, which FastPath a has"},
		{FAST("a", "uplink: eth0, match: [{hostPolicy: q}]"),
			"spec.match[0].hostPolicy: want the name of a HostPolicy, got q, which no document declares"},
		{FAST("a", "uplink: eth0, match: [{hostPolicy: p, rule: web}]"),
			"spec.match[0].rule: want the name of an ingress rule, got web, which HostPolicy p has not"},
		{FAST("a", "uplink: eth0, match: [{}, {protocol: UDP}, {vlan: 1}, {vlan: 2}, {source: 10.0.0.0/8}, {source: "
			   "10.0.0.0/9}, "
			   "{source: 10.0.0.0/10}, {source: 10.0.0.0/11}, {source: 10.0.0.0/12}]"),
			NULL},
		{FAST("a", "uplink: eth0, match: [{}, {protocol: UDP}, {vlan: 1}, {source: 10.0.0.0/8}, {source: 10.0.0.0/9}, "
			   "{source: 10.0.0.0/10}, {source: 10.0.0.0/11}, {source: 10.0.0.0/12}, {source: 10.0.0.0/13}]"),
			"spec.match[8]: want at most 8 kinds of matches on an uplink (fields that are asked about, lengths of "
			"blocks), got a ninth"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_buffer_ struct buffer text = {0};
		_cleanup_diag_ struct diag diag = {0};

		buffer_printf(&text, "%s%s", WORLD, cases[i].text);
		_cleanup_object_list_ struct object_list list = decode(text.data);
		assert_int_equal(model_validate(&list, &diag), cases[i].message ? -EINVAL : 0);
		if (cases[i].message && !strstr(diag.text, cases[i].message))
			fail_msg("%s instead of %s", diag.text, cases[i].message);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_mistakes),
		cmocka_unit_test(test_beside_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
