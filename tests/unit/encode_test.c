/* SPDX-License-Identifier: Apache-2.0 */
/* Objects to JSON and back, the hash of what they say, and what is only wrong with all of them together. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include <model/content.h>
#include <model/decode.h>
#include <util/buffer.h>
#include <util/cleanup.h>

#define DOCUMENT(kind, name, spec) \
	"{apiVersion: heddle.dev/v1alpha1, kind: " kind ", metadata: {name: " name "}, spec: {" spec "}}\n---\n"

static struct object_list decode(const char *file, const char *text)
{
	_cleanup_diag_ struct diag diag = {0};
	struct object_list list = {0};

	if (decode_documents(file, text, strlen(text), &list, &diag) < 0)
		fail_msg("refused: %s", diag.text);
	return list;
}

static const char all[] =
	"apiVersion: heddle.dev/v1alpha1\nkind: Host\nmetadata: {name: h, labels: {a: b, c: ''}, annotations: {x: "
	"\"q\\\"u\\\\o\\tte \\u2028\"}}\n"
	"spec:\n"
	"  uplinks: [{device: eth0}, {device: eth1, xdp: native}, {device: e.2, xdp: generic}, {device: e3, xdp: 'off'}]\n"
	"  tunnel: {protocol: geneve, address: 'fd00::1'}\n"
	"  failsafe: [{port: 22}, {protocol: UDP, port: 5, endPort: 9}, {protocol: 47}, {protocol: ICMP}]\n"
	"  forward: judge\n"
	"  offload: auto\n"
	"  sriov: [{device: eth1, vfs: 8}, {device: eth2, eswitch: legacy}, {device: eth3, vfs: 0, eswitch: switchdev}]\n"
	"  timeouts: {tcpEstablished: 1d2h3m4s5ms, udp: 100ms}\n"
	"  pickupSeconds: 0\n"
	"  limits: {flows: 1024, rules: 4096}\n"
	"  log: {every: 7, eventsPerSecond: 0}\n"
	"---\n" DOCUMENT("AddressGroup", "g", "cidrs: [10.0.0.0/8, '::/0', 0.0.0.0/0, '2001:db8::1/128']") DOCUMENT(
		"AddressGroup", "none", "cidrs: []") DOCUMENT("HostPolicy", "empty", "") DOCUMENT("HostPolicy", "p",
		"priority: 0, uplinks: [eth0, eth1], default: {egress: reject}, ingress: ["
		"{action: allow}, {name: 'a \"b\"', action: deny, from: [{addressGroup: g}, {cidr: 10.0.0.0/8, except: "
		"[10.1.0.0/16, 10.2.0.0/16]}], ports: [{}, {port: 1}, {protocol: UDP, port: 1, endPort: 2}, {protocol: 0}, "
		"{protocol: ICMPv6}, {protocol: 255}], log: true},"
		"{action: reject, icmp: [{}, {type: 3}, {type: 3, code: 4}, {type: 1, family: IPv6}]},"
		"{action: allow, sourcePorts: [{port: 53}, {protocol: UDP, port: 1, endPort: 9}]},"
		"{action: allow, icmp: [{type: 8}], ports: [{port: 443}]}],"
		"egress: [{action: deny, to: [{cidr: '::/0'}]}]");

static void test_round_trip(void **state)
{
	_cleanup_object_list_ struct object_list list = decode("all.yaml", all);

	(void)state;
	assert_int_equal(list.n, 5);
	for (size_t i = 0; i < list.n; i++) {
		_cleanup_buffer_ struct buffer text = {0}, again = {0};

		encode_text(list.items[i], &text);
		assert_false(text.failed);
		assert_null(strchr(text.data, '\n'));
		_cleanup_object_list_ struct object_list second = decode(NULL, text.data);
		assert_int_equal(second.n, 1);
		assert_true(object_equal(list.items[i], second.items[0]));
		encode_text(second.items[0], &again);
		assert_string_equal(text.data, again.data);
	}
}

/* Packed and unpacked, an object says the same; a rule's head is found in either form. */
static void check_packing(struct object *object)
{
	_cleanup_buffer_ struct buffer before = {0}, after = {0};
	uint64_t hash = content_hash(object);
	struct rule_head head;

	encode_text(object, &before);
	for (int turn = 0; turn < 3; turn++) {
		if (turn)
			object_pack(object);
		for (int direction = 0; object->kind == OBJECT_HOST_POLICY && direction < HD_DIRECTIONS; direction++) {
			uint32_t n = (uint32_t)object->policy.n_rules[direction];

			assert_int_equal(object_rule_head(object, (enum hd_direction)direction, n, &head), -ENOENT);
			for (uint32_t i = 0; i < n; i++) {
				assert_int_equal(object_rule_head(object, (enum hd_direction)direction, i, &head), 0);
				if (turn == 1 && i % 7)
					assert_null(object->policy.rules[direction]);
				const struct rule *rule = &object_rules(object, (enum hd_direction)direction)[i];
				assert_int_equal(head.line, rule->line);
				assert_int_equal(head.verdict, rule->verdict);
				assert_int_equal(head.log, rule->log);
				if (rule->name)
					assert_string_equal(head.name, rule->name);
				else
					assert_null(head.name);
				if (turn == 1)
					object_pack(object);
			}
		}
	}
	object_pack(object);
	assert_int_equal(content_hash(object), hash);
	object_pack(object);
	encode_text(object, &after);
	assert_string_equal(before.data, after.data);
}

static void test_packing(void **state)
{
	_cleanup_object_list_ struct object_list list = decode("all.yaml", all), many = {0};
	_cleanup_buffer_ struct buffer text = {0};

	(void)state;
	for (size_t i = 0; i < list.n; i++)
		check_packing(list.items[i]);

	/* More than one stride, in both directions, lines far apart and backwards (flow style lets them stand on one line). */
	buffer_add_string(&text, "apiVersion: heddle.dev/v1alpha1\nkind: HostPolicy\nmetadata: {name: many}\nspec:\n");
	for (int direction = 0; direction < 2; direction++) {
		buffer_add_string(&text, direction ? "  egress:\n" : "  ingress:\n");
		for (int i = 0; i < 150; i++) {
			for (int j = 0; i % 50 == 49 && j < 200; j++)
				buffer_add_char(&text, '\n');
			buffer_printf(&text,
				"  - {action: %s, ports: [{port: %d%s}], %s: [{cidr: 10.%d.0.0/16}, {addressGroup: g%d}, {cidr: "
				"'2001:db8:%x::/48'"
				", except: ['2001:db8:%x:1::/64']}]%s}\n",
				i % 3 ? "allow" : "deny", i + 1, i % 2 ? ", endPort: 999" : "", direction ? "to" : "from", i, i,
				i, i, i % 5 ? "" : ", name: named, log: true");
		}
	}
	many = decode("many.yaml", text.data);
	assert_int_equal(many.items[0]->policy.n_groups, 150);
	check_packing(many.items[0]);
	object_list_pack(&many);
	assert_null(many.items[0]->policy.rules[HD_INGRESS]);
	object_list_clear(&many);
}

static void test_text(void **state)
{
	_cleanup_object_list_ struct object_list list = decode("a.yaml",
		DOCUMENT("HostPolicy", "p",
			"ingress: [{name: web, action: allow, from: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}], ports: "
			"[{port: 80}, {protocol: 99}], log: true}, {action: deny, icmp: [{type: 8}]}], default: {ingress: deny}")
			DOCUMENT("Host", "h", "uplinks: [{device: eth0}], limits: {flows: 1024}"));
	_cleanup_buffer_ struct buffer text = {0};

	(void)state;
	encode_text(list.items[0], &text);
	assert_string_equal(text.data,
		"{\"apiVersion\":\"heddle.dev/"
		"v1alpha1\",\"kind\":\"HostPolicy\",\"metadata\":{\"name\":\"p\"},\"spec\":{\"priority\":1000,"
		"\"ingress\":[{\"name\":\"web\",\"action\":\"allow\",\"from\":[{\"cidr\":\"10.0.0.0/8\",\"except\":[\"10.1.0.0/"
		"16\"]}],"
		"\"ports\":[{\"protocol\":\"TCP\",\"port\":80},{\"protocol\":99}],\"log\":true},"
		"{\"action\":\"deny\",\"icmp\":[{\"type\":8,\"family\":\"IPv4\"}]}],\"egress\":[],\"default\":{\"ingress\":"
		"\"deny\"}}}");
	text.length = 0;
	encode_text(list.items[1], &text);
	assert_string_equal(text.data,
		"{\"apiVersion\":\"heddle.dev/"
		"v1alpha1\",\"kind\":\"Host\",\"metadata\":{\"name\":\"h\"},\"spec\":{\"uplinks\":[{\"device\":"
		"\"eth0\",\"xdp\":\"auto\"}],\"failsafe\":[],\"forward\":\"pass\",\"timeouts\":{\"tcpEstablished\":\"8h\","
		"\"tcpSyn\":\"1m\","
		"\"tcpFin\":\"10s\",\"udp\":\"30s\",\"udpStream\":\"3m\",\"icmp\":\"10s\",\"other\":\"1m\"},\"pickupSeconds\":60,"
		"\"limits\":{"
		"\"flows\":1024},\"log\":{\"every\":1,\"eventsPerSecond\":100,\"rejectsPerSecond\":100}}}");

	json_t *json = encode_object(list.items[0]);
	assert_non_null(json);
	assert_string_equal(json_string_value(json_object_get(json, "kind")), "HostPolicy");
	assert_int_equal(json_array_size(json_object_get(json_object_get(json, "spec"), "ingress")), 2);
	json_decref(json);
}

/* Form, order of keys, defaults and lines do not count; all else does. */
static void test_equal(void **state)
{
	static const char base[] = DOCUMENT("HostPolicy", "p", "ingress: [{action: allow, ports: [{port: 80}]}]");
	static const char *const same[] = {
		"\n\n" DOCUMENT("HostPolicy", "p", "ingress: [{action: allow, ports: [{port: 80}]}]"),
		DOCUMENT("HostPolicy", "p",
			"egress: [], priority: 1000, ingress: [{log: false, ports: [{protocol: TCP, port: 80}], action: allow}]"),
		"kind: HostPolicy\napiVersion: heddle.dev/v1alpha1\nspec:\n  ingress:\n  - action: allow\n    ports:\n    - "
		"port: 80\n      "
		"endPort: 80\nmetadata:\n  name: p\n",
	};
	static const char *const other[] = {
		DOCUMENT("HostPolicy", "q", "ingress: [{action: allow, ports: [{port: 80}]}]"),
		DOCUMENT("HostPolicy", "p", "ingress: [{action: deny, ports: [{port: 80}]}]"),
		DOCUMENT("HostPolicy", "p", "ingress: [{action: allow, ports: [{port: 81}]}]"),
		DOCUMENT("HostPolicy", "p", "ingress: [{action: allow, ports: [{port: 80, endPort: 81}]}]"),
		DOCUMENT("HostPolicy", "p", "ingress: [{action: allow, ports: [{protocol: UDP, port: 80}]}]"),
		DOCUMENT("HostPolicy", "p", "ingress: [{action: allow, sourcePorts: [{port: 80}]}]"),
		DOCUMENT("HostPolicy", "p", "ingress: [{action: allow, ports: [{port: 80}], log: true}]"),
		DOCUMENT("HostPolicy", "p", "ingress: [{action: allow, name: a, ports: [{port: 80}]}]"),
		DOCUMENT("HostPolicy", "p", "ingress: [{action: allow, from: [{cidr: 10.0.0.0/8}], ports: [{port: 80}]}]"),
		DOCUMENT("HostPolicy", "p", "ingress: [{action: allow, from: [{addressGroup: a}], ports: [{port: 80}]}]"),
		DOCUMENT("HostPolicy", "p", "egress: [{action: allow, ports: [{port: 80}]}]"),
		DOCUMENT("HostPolicy", "p", "priority: 1, ingress: [{action: allow, ports: [{port: 80}]}]"),
		DOCUMENT("HostPolicy", "p", "uplinks: [eth0], ingress: [{action: allow, ports: [{port: 80}]}]"),
		DOCUMENT("HostPolicy", "p", "default: {ingress: allow}, ingress: [{action: allow, ports: [{port: 80}]}]"),
		"{apiVersion: heddle.dev/v1alpha1, kind: HostPolicy, metadata: {name: p, labels: {a: b}}, spec: {ingress: "
		"[{action: allow, "
		"ports: [{port: 80}]}]}}",
	};
	_cleanup_object_list_ struct object_list first = decode("a.yaml", base);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(same); i++) {
		_cleanup_object_list_ struct object_list list = decode(NULL, same[i]);
		assert_true(object_equal(first.items[0], list.items[0]));
	}
	for (size_t i = 0; i < ARRAY_SIZE(other); i++) {
		_cleanup_object_list_ struct object_list list = decode("a.yaml", other[i]);
		assert_int_not_equal(first.items[0]->hash, list.items[0]->hash);
		assert_false(object_equal(first.items[0], list.items[0]));
		for (size_t j = 0; j < i; j++) {
			_cleanup_object_list_ struct object_list earlier = decode(NULL, other[j]);
			assert_int_not_equal(earlier.items[0]->hash, list.items[0]->hash);
		}
	}
}

static void test_host_fields_count(void **state)
{
	static const char *const specs[] = {
		"",
		"uplinks: [{device: a}]",
		"uplinks: [{device: a, xdp: 'off'}]",
		"failsafe: [{port: 1}]",
		"forward: judge",
		"offload: auto",
		"pickupSeconds: 1",
		"tunnel: {protocol: vxlan, address: 10.0.0.1}",
		"tunnel: {protocol: geneve, address: 10.0.0.1}",
		"tunnel: {protocol: vxlan, address: 10.0.0.2}",
		"tunnel: {protocol: vxlan, address: 10.0.0.1, port: 1}",
		"tunnel: {protocol: vxlan, address: 10.0.0.1, ttl: 1}",
		"tunnel: {protocol: vxlan, address: 10.0.0.1, decapsulate: tc}",
		"tunnel: {protocol: vxlan, address: 10.0.0.1, checksum: full}",
		"timeouts: {tcpEstablished: 1s}",
		"timeouts: {tcpSyn: 1s}",
		"timeouts: {tcpFin: 1s}",
		"timeouts: {udp: 1s}",
		"timeouts: {udpStream: 1s}",
		"timeouts: {icmp: 1s}",
		"timeouts: {other: 1s}",
		"limits: {flows: 16}",
		"limits: {flowsNew: 16}",
		"limits: {flowsOther: 16}",
		"limits: {rules: 16}",
		"log: {every: 2}",
		"log: {eventsPerSecond: 2}",
		"log: {rejectsPerSecond: 2}",
		"addresses: [10.0.0.9]",
		"addresses: [10.0.0.9, 'fd00::9']",
	};
	uint64_t hashes[ARRAY_SIZE(specs)];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(specs); i++) {
		char text[300];

		snprintf(text, sizeof(text), DOCUMENT("Host", "h", "%s"), specs[i]);
		_cleanup_object_list_ struct object_list list = decode(NULL, text);
		_cleanup_buffer_ struct buffer encoded = {0};
		encode_text(list.items[0], &encoded);
		_cleanup_object_list_ struct object_list again = decode(NULL, encoded.data);
		assert_true(object_equal(list.items[0], again.items[0]));
		hashes[i] = list.items[0]->hash;
		for (size_t j = 0; j < i; j++)
			assert_true(hashes[i] != hashes[j]);
	}
}

static void invalid(const char *file, const char *text, const char *message)
{
	_cleanup_object_list_ struct object_list list = decode(file, text);
	_cleanup_diag_ struct diag diag = {0};

	assert_int_equal(model_validate(&list, &diag), message ? -EINVAL : 0);
	if (message)
		assert_string_equal(diag.text, message);
	else
		assert_null(diag.text);
}

static void test_validate(void **state)
{
	static const char host[] = DOCUMENT("Host", "h", "uplinks: [{device: eth0}]");
	char text[1000];

	(void)state;
	invalid("a.yaml", all, NULL);
	invalid("a.yaml", "", NULL);
	invalid("a.yaml", DOCUMENT("Host", "a", "") DOCUMENT("Host", "b", ""),
		"a.yaml:3: want at most one Host, got Host b beside Host a");
	invalid("a.yaml",
		DOCUMENT("HostPolicy", "p",
			"ingress: [{action: allow}, {action: allow, from: [{cidr: 10.0.0.0/8}, {addressGroup: lost}]}], egress: "
			"[{action: "
			"allow, to: [{addressGroup: lost}]}]"),
		"a.yaml:1: spec.ingress[1].from[1].addressGroup: want the name of an AddressGroup, got lost, which no document "
		"declares\n"
		"a.yaml:1: spec.egress[0].to[0].addressGroup: want the name of an AddressGroup, got lost, which no document "
		"declares");
	snprintf(text, sizeof(text), "%s%s", host, DOCUMENT("HostPolicy", "p", "uplinks: [eth0, eth1]"));
	invalid("a.yaml", text, "a.yaml:3: spec.uplinks[1]: want an uplink of Host h, got eth1");
	/* Without a Host nothing is guarded, and no device is wrong. */
	invalid("a.yaml", DOCUMENT("HostPolicy", "p", "uplinks: [eth1]"), NULL);
	/* Through the API: no file, but which object. */
	invalid(NULL, DOCUMENT("HostPolicy", "p", "ingress: [{action: allow, from: [{addressGroup: lost}]}]"),
		"applied HostPolicy p: spec.ingress[0].from[0].addressGroup: want the name of an AddressGroup, got lost, which "
		"no document "
		"declares");
}

static void test_validate_across(void **state)
{
	_cleanup_object_list_ struct object_list a = decode("a.yaml", DOCUMENT("AddressGroup", "g", "cidrs: []"));
	_cleanup_object_list_ struct object_list b = decode("b.yaml", "\n\n" DOCUMENT("AddressGroup", "g", "cidrs: []"));
	_cleanup_object_list_ struct object_list c = decode(NULL, DOCUMENT("AddressGroup", "h", "cidrs: []"));
	_cleanup_object_list_ struct object_list d = decode("d.yaml", DOCUMENT("AddressGroup", "h", "cidrs: []"));
	_cleanup_object_list_ struct object_list both = {0};
	_cleanup_diag_ struct diag diag = {0};

	(void)state;
	assert_int_equal(object_list_add(&both, a.items[0]), 0);
	assert_int_equal(object_list_add(&both, b.items[0]), 0);
	assert_int_equal(model_validate(&both, &diag), -EINVAL);
	assert_string_equal(diag.text, "b.yaml:3: want each object once, got AddressGroup g again (also in a.yaml, line 1)");
	object_list_clear(&both);
	diag_clear(&diag);
	assert_int_equal(object_list_add(&both, d.items[0]), 0);
	assert_int_equal(object_list_add(&both, c.items[0]), 0);
	assert_int_equal(model_validate(&both, &diag), -EINVAL);
	assert_string_equal(diag.text, "d.yaml:1: want each object once, got AddressGroup h again (also applied through the API: "
				       "delete it there first)");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_packing),
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_equal),
		cmocka_unit_test(test_host_fields_count),
		cmocka_unit_test(test_validate),
		cmocka_unit_test(test_validate_across),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
