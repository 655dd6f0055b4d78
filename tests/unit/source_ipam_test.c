/* SPDX-License-Identifier: Apache-2.0 */
/* Which address is next, against a list of all there are; and where that is kept. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <source/cni.h>
#include <source/ipam.h>
#include <tests/unit/source_env.h>
#include <util/addr.h>
#include <util/cleanup.h>

#define NETWORK(spec) "{apiVersion: heddle.dev/v1alpha1, kind: Network, metadata: {name: blue}, spec: {" spec "}}"
#define BLUE "subnets: [10.77.0.0/28, \"fd77::/64\"], gateway: [10.77.0.14, \"fd77::1\"]"

static struct hd_addr addr(const char *text)
{
	struct hd_addr parsed;

	assert_int_equal(addr_parse(text, &parsed), 0);
	return parsed;
}

static int ranges(const struct object *network, const char *wanted, struct ipam_range **ret, size_t *n)
{
	_cleanup_diag_ struct diag diag = {0};
	json_t *json = wanted ? json_loads(wanted, JSON_DECODE_ANY, NULL) : NULL;
	int r = ipam_ranges(network, json, ret, n, &diag);

	assert_true((r == -EINVAL) == (diag.text != NULL));
	json_decref(json);
	return r;
}

static const char *pick(const struct object *network, const char *wanted, bool ipv4, const char *after, const char *taken)
{
	static char text[ADDR_TEXT_MAX];
	_cleanup_free_ struct ipam_range *list = NULL;
	_cleanup_free_ char *copy = strdup(taken);
	struct hd_addr given, last, used[64];
	size_t n, n_used = 0;
	char *rest = copy;
	int r;

	assert_int_equal(ranges(network, wanted, &list, &n), 0);
	for (char *item; (item = strsep(&rest, " "));)
		if (*item)
			used[n_used++] = addr(item);
	ipam_sort(used, n_used);
	if (after)
		last = addr(after);
	r = ipam_pick(network, list, n, ipv4, after ? &last : NULL, used, n_used, &given);
	if (r < 0)
		return r == -ENOSPC ? "full" : r == -ENOENT ? "no range" : "?";
	return addr_format(&given, text);
}

static void test_pick(void **state)
{
	struct object *blue = decode_one(NETWORK(BLUE));

	(void)state;
	assert_string_equal(pick(blue, NULL, true, NULL, ""), "10.77.0.1");
	assert_string_equal(pick(blue, NULL, true, "10.77.0.1", "10.77.0.2 10.77.0.3"), "10.77.0.4");
	/* neither the gateway nor the broadcast address; then from the beginning */
	assert_string_equal(pick(blue, NULL, true, "10.77.0.13", "10.77.0.1"), "10.77.0.2");
	assert_string_equal(pick(blue, NULL, true, "10.77.0.15", ""), "10.77.0.1");
	assert_string_equal(pick(blue, NULL, true, "192.0.2.1", ""), "10.77.0.1");
	/* not the subnet router's anycast address either */
	assert_string_equal(pick(blue, NULL, false, NULL, ""), "fd77::2");
	assert_string_equal(pick(blue, NULL, false, "fd77::ffff:ffff:ffff:ffff", "fd77::2"), "fd77::3");
	assert_string_equal(pick(blue, "[\"10.77.0.4/31\"]", false, NULL, ""), "no range");
	assert_string_equal(pick(blue, "[\"10.77.0.4/31\"]", true, NULL, "10.77.0.4"), "10.77.0.5");
	assert_string_equal(pick(blue, "[\"10.77.0.4/31\"]", true, "10.77.0.5", "10.77.0.4 10.77.0.5"), "full");
	/* several ranges, in their order and round again */
	assert_string_equal(pick(blue, "[\"10.77.0.8-10.77.0.9\", \"10.77.0.2/32\"]", true, "10.77.0.9", ""), "10.77.0.2");
	assert_string_equal(pick(blue, "[\"10.77.0.8-10.77.0.9\", \"10.77.0.2/32\"]", true, "10.77.0.2", ""), "10.77.0.8");
	assert_string_equal(pick(blue, "[\"10.77.0.8-10.77.0.9\", \"fd77::/120\"]", true, "10.77.0.8", "10.77.0.9"), "10.77.0.8");
	object_unref(blue);
}

/* Every address comes once before any comes twice, whatever is taken. */
static void test_all_in_turn(void **state)
{
	struct object *blue = decode_one(NETWORK(BLUE));
	_cleanup_free_ struct ipam_range *list = NULL;
	size_t n;

	(void)state;
	assert_int_equal(ranges(blue, NULL, &list, &n), 0);
	for (unsigned seed = 0; seed < 200; seed++) {
		struct hd_addr taken[16], last = addr("10.77.0.1"), given;
		uint32_t seen = 0;
		size_t n_taken = 0, usable = 0;

		srand(seed);
		for (unsigned i = 0; i < 16; i++) {
			struct hd_addr each = addr("10.77.0.0");

			each.b[15] = (uint8_t)i;
			if (rand() % 3 == 0)
				taken[n_taken++] = each;
			else
				usable += ipam_is_usable(blue, &each);
		}
		ipam_sort(taken, n_taken);
		for (size_t i = 0; i < usable; i++) {
			assert_int_equal(ipam_pick(blue, list, n, true, i || seed % 2 ? &last : NULL, taken, n_taken, &given), 0);
			assert_true(ipam_is_usable(blue, &given));
			for (size_t j = 0; j < n_taken; j++)
				assert_memory_not_equal(&taken[j], &given, sizeof(given));
			assert_false(seen & 1u << given.b[15]);
			seen |= 1u << given.b[15];
			last = given;
		}
		if (!usable)
			assert_int_equal(ipam_pick(blue, list, n, true, &last, taken, n_taken, &given), -ENOSPC);
	}
	object_unref(blue);
}

static void test_ranges(void **state)
{
	static const char *const bad[] = {"[\"10.78.0.0/24\"]", "[\"x\"]", "[\"10.77.0.9-10.77.0.3\"]", "[\"10.77.0.9-fd77::2\"]",
		"[1]", "[{}]", "[{\"subnet\": \"10.77.0.0/28\", \"rangeEnd\": \"10.77.0.99\"}]", "[[[\"10.77.0.0/28\"]]]", "{}",
		"\"x\"", "[\"10.77.0.0/27\"]", "[{\"subnet\": \"10.77.0.0/28\", \"rangeStart\": 7}]", "[\"10.77.0.1-\"]",
		"[\"0.0.0.0/0\"]", "[\"::/0\"]"};
	struct object *blue = decode_one(NETWORK(BLUE)), *bare = decode_one(NETWORK("mode: l2"));
	struct ipam_range *list;
	size_t n;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(ranges(blue, bad[i], &list, &n), -EINVAL);
	assert_int_equal(ranges(bare, NULL, &list, &n), -EINVAL);
	assert_int_equal(ranges(blue, "[]", &list, &n), 0);
	assert_int_equal(n, 2);
	free(list);
	assert_int_equal(
		ranges(blue, "[[\"10.77.0.9/30\"], {\"subnet\": \"fd77::/64\", \"rangeStart\": \"fd77::9\"}]", &list, &n), 0);
	assert_int_equal(n, 2);
	struct hd_addr eight = addr("10.77.0.8");
	assert_memory_equal(&list[0].first, &eight, sizeof(eight));
	free(list);
	object_unref(blue);
	object_unref(bare);
}

static void write_state(const char *text)
{
	put_file("ipam", text);
}

static void test_state(void **state)
{
	struct ipam *ipam, *again;
	struct hd_addr four = addr("10.77.0.9"), six = addr("fd77::9");

	(void)state;
	assert_int_equal(ipam_new(&ipam), 0);
	assert_int_equal(ipam_load(source_root(), ipam), 0);
	assert_null(ipam_last(ipam, "blue", true));
	assert_int_equal(ipam_set_last(ipam, "blue", &six), 0);
	assert_int_equal(ipam_set_last(ipam, "blue", &(struct hd_addr){.b = {[10] = 0xff, 0xff, 10, 77, 0, 1}}), 0);
	assert_int_equal(ipam_set_last(ipam, "blue", &four), 0);
	assert_int_equal(ipam_save(source_root(), ipam), 0);
	assert_int_equal(ipam_new(&again), 0);
	assert_int_equal(ipam_load(source_root(), again), 0);
	assert_memory_equal(ipam_last(again, "blue", true), &four, sizeof(four));
	assert_memory_equal(ipam_last(again, "blue", false), &six, sizeof(six));
	assert_null(ipam_last(again, "red", true));
	/* nothing of a damaged one is taken, and what was known stays */
	append_file("ipam", "x");
	assert_int_equal(ipam_load(source_root(), again), -EINVAL);
	write_state("");
	assert_int_equal(ipam_load(source_root(), again), -EINVAL);
	write_state("heddle-ipam 1\nblue 10.77.0.1\nend 0000000000000000\n");
	assert_int_equal(ipam_load(source_root(), again), -EINVAL);
	assert_memory_equal(ipam_last(again, "blue", true), &four, sizeof(four));
	ipam_free(again);
	ipam_free(ipam);
	ipam_free(NULL);
}

/* --- the Port of an attachment --- */

static void test_port(void **state)
{
	_cleanup_object_list_ struct object_list list = {0};
	_cleanup_diag_ struct diag diag = {0};
	struct hd_addr given = addr("10.77.0.9");
	json_t *body = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:{s:s}}", "name", "pods", "containerID", "ABC_1", "ifname",
		"eth0", "network", "blue", "device", "hd0", "pod", "Web_1", "namespace", "shop", "labels", "app", "web");
	struct cni_request request;
	struct object *port;
	struct cni_key key, other = {.name = "pods", .container = "ABC_1", .interface = "eth1"};
	char alias[CNI_ALIAS_MAX];

	(void)state;
	assert_int_equal(cni_parse(body, true, &request, &diag), 0);
	assert_int_equal(cni_make_port(&request, "02:00:00:00:00:01", &given, 1, &port, &diag), 0);
	assert_int_equal(strncmp(port->name, "web-1-", 6), 0);
	assert_string_equal(port->namespace_, "shop");
	assert_int_equal(port->n_labels, 3);
	key = cni_key_of(port);
	assert_true(cni_key_equal(&key, &request.key));
	assert_false(cni_key_equal(&key, &other));
	assert_int_equal(object_list_add(&list, port), 0);
	assert_ptr_equal(cni_find(&list, &request.key), port);
	assert_null(cni_find(&list, &other));
	cni_alias(&key, alias);
	assert_string_equal(alias, "heddle:ABC_1:eth0");
	object_unref(port);
	json_object_set_new(json_object_get(body, "labels"), "a b", json_string("c"));
	assert_int_equal(cni_make_port(&request, "02:00:00:00:00:01", &given, 1, &port, &diag), -EINVAL);
	json_object_set_new(body, "labels", json_array());
	json_object_set_new(body, "ifname", json_string(""));
	assert_int_equal(cni_parse(body, true, &request, &diag), -EINVAL);
	json_object_del(body, "network");
	json_object_set_new(body, "ifname", json_string("eth0"));
	assert_int_equal(cni_parse(body, false, &request, &diag), 0);
	assert_int_equal(cni_parse(body, true, &request, &diag), -EINVAL);
	json_decref(body);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_pick), TEST(test_all_in_turn), TEST(test_ranges), TEST(test_state), TEST(test_port)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
