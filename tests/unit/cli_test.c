/* SPDX-License-Identifier: Apache-2.0 */
/* The CLI's pure parts: differences, YAML, tables, texts, numbers, paths, frames of captures. The rest: tests/cli. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <pcap/pcap.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <yaml.h>

#include <tools/heddle/capture.h>
#include <tools/heddle/changes.h>
#include <tools/heddle/client.h>
#include <tools/heddle/heddle.h>
#include <tools/heddle/output.h>

#include <cmocka.h> /* last: its macro fail() hides ours */

/* main.c is not linked in; the completion verb refers to these. */
const struct verb *const verbs[] = {NULL};
const struct cli_option global_options[] = {{NULL, 0, NULL, NULL, NULL}};

static json_t *parse(const char *text)
{
	json_t *value = text ? json_loads(text, JSON_DECODE_ANY, NULL) : NULL;

	assert_true(!text || value);
	return value;
}

static void assert_changes(const char *before_text, const char *after_text, const char *wanted)
{
	json_auto_t *before = parse(before_text), *after = parse(after_text);
	char *text = NULL;
	size_t length = 0, lines = 0, n;
	FILE *file = open_memstream(&text, &length);

	n = changes_print(file, "> ", before, after);
	fclose(file);
	assert_string_equal(text, wanted);
	for (const char *c = text; *c; c++)
		lines += *c == '\n';
	assert_int_equal(n, lines);
	free(text);
}

static void test_changes(void **state)
{
	(void)state;
	assert_changes("{}", "{}", "");
	assert_changes("{\"a\": 1}", "{\"a\": 1}", "");
	assert_changes("{\"a\": 1}", "{\"a\": \"1\"}", "> ~ a: 1 -> \"1\"\n");
	assert_changes("{\"a\": {\"b\": null}}", "{\"a\": {}}", "> - a.b: null\n");
	assert_changes(NULL, "{\"a\": [1], \"b\": []}", "> + a[0]: 1\n");
	assert_changes("{\"a\": [1, {\"x\": 2}]}", "{}", "> - a[0]: 1\n> - a[1]: {\"x\": 2}\n");
	/* names pair members; one in front leaves the others alone */
	assert_changes("{\"r\": [{\"name\": \"a\", \"x\": 1}]}", "{\"r\": [{\"name\": \"b\"}, {\"name\": \"a\", \"x\": 2}]}",
		"> ~ r[a].x: 1 -> 2\n> + r[b]: {\"name\": \"b\"}\n");
	/* a name twice: by place */
	assert_changes("{\"r\": [{\"name\": \"a\"}, {\"name\": \"a\"}]}", "{\"r\": [{\"name\": \"a\"}, {\"name\": \"b\"}]}",
		"> ~ r[1].name: \"a\" -> \"b\"\n");
	/* addresses: as a set, in whatever order */
	assert_changes("{\"c\": [\"1\", \"2\", \"3\"]}", "{\"c\": [\"3\", \"2\", \"4\"]}", "> - c: \"1\"\n> + c: \"4\"\n");
	assert_changes("{\"c\": [\"1\"]}", "{\"c\": {\"1\": 1}}", "> ~ c: [\"1\"] -> {\"1\": 1}\n");
}

static void test_long_values_are_cut(void **state)
{
	json_auto_t *before = json_object(), *after = json_object();
	char value[600], *text = NULL;
	size_t length = 0;
	FILE *file;

	(void)state;
	for (size_t i = 0; i + 2 < sizeof(value); i += 2)
		memcpy(value + i, "\xc3\xa4", 3); /* two-byte characters: the cut must not split one */
	json_object_set_new(after, "k", json_string(value));
	file = open_memstream(&text, &length);
	changes_print(file, "", before, after);
	fclose(file);
	assert_true(length < 230);
	assert_non_null(strstr(text, "\xc3\xa4 ..."));
	free(text);
}

/* Whatever the emitter writes, libyaml must read back as the same tree; types are told by quotes. */
static void test_yaml(void **state)
{
	static const struct {
		const char *json, *yaml;
	} cases[] = {
		{"{\"a\": 1, \"b\": [true, null, 1.5], \"c\": {}, \"d\": []}", "a: 1\nb:\n- true\n- null\n- 1.5\nc: {}\nd: []\n"},
		{"{\"a\": \"true\", \"b\": \"22\", \"c\": \"plain\", \"d\": \"\", \"e\": \"/x/y.z\"}",
			"a: \"true\"\nb: \"22\"\nc: plain\nd: \"\"\ne: /x/y.z\n"},
		{"{\"a b\": \"x: y\"}", "\"a b\": \"x: y\"\n"},
		{"[{\"a\": {\"b\": [[1]]}}]", "- a:\n    b:\n    - - 1\n"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		json_auto_t *value = parse(cases[i].json);
		char *text = NULL;
		size_t length = 0;
		FILE *file = open_memstream(&text, &length);

		assert_int_equal(yaml_write(file, value), 0);
		fclose(file);
		assert_string_equal(text, cases[i].yaml);
		free(text);
	}
}

static void test_yaml_into_a_full_disk(void **state)
{
	json_auto_t *value = json_array();
	FILE *full = fopen("/dev/full", "w");

	(void)state;
	assert_non_null(full);
	setvbuf(full, NULL, _IONBF, 0);
	for (int i = 0; i < 10000; i++)
		json_array_append_new(value, json_integer(i));
	assert_int_equal(yaml_write(full, value), -EIO);
	fclose(full);
}

static void test_table(void **state)
{
	static const char *const columns[] = {"A", "NUMBER", "LAST"};
	struct table *table = table_new(columns, 3);
	char *text = NULL;
	size_t length = 0;
	FILE *file = open_memstream(&text, &length);

	(void)state;
	table_right(table, 1);
	table_cell(table, "%s", "\xc3\xa4\xc3\xb6"); /* two columns wide, four bytes */
	table_cell(table, "%d", 7);
	table_cell(table, "%s", "x\x1b[2Jy\n");
	table_cell(table, "%s", "a");
	table_cell(table, "%d", 1234567);
	table_cell(table, "%s", "");
	assert_int_equal(table_rows(table), 2);
	table_print(table, file);
	fclose(file);
	assert_string_equal(text, "A    NUMBER  LAST\n\xc3\xa4\xc3\xb6        7  x?[2Jy?\na   1234567  \n");
	free(text);
}

static void test_texts(void **state)
{
	static const struct {
		const char *rule, *text, *origin;
	} rules[] = {
		{"{\"policy\": \"base\", \"name\": \"ssh\", \"index\": 0, \"file\": \"/a.yaml\", \"line\": 3}", "base/ssh",
			"/a.yaml:3"},
		{"{\"policy\": \"base\", \"name\": null, \"index\": 4, \"file\": null}", "base#4", "applied"},
		{"{\"policy\": \"base\", \"name\": null, \"index\": 4, \"file\": null, \"source\": \"api\"}", "base#4",
			"applied"},
		{"{\"policy\": \"base\", \"name\": null, \"index\": 4, \"file\": null, \"source\": \"kubernetes\"}", "base#4",
			"kubernetes"},
		{"{\"policy\": \"builtin\", \"name\": \"arp\", \"index\": null}", "builtin/arp", "built in"},
		{"null", "-", "-"},
		{"{}", "-", "-"},
	};
	json_auto_t *flow = parse("{\"a\": \"2001:db8::1\", \"b\": \"192.0.2.1\", \"p\": 80, \"n\": \"x\"}");
	char out[TEXT_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
		json_auto_t *rule = parse(rules[i].rule);

		assert_string_equal(rule_text(rule, out), rules[i].text);
		assert_string_equal(origin_text(rule, out), rules[i].origin);
	}
	assert_string_equal(endpoint_text(flow, "a", "p", out), "[2001:db8::1]:80");
	assert_string_equal(endpoint_text(flow, "b", "p", out), "192.0.2.1:80");
	assert_string_equal(endpoint_text(flow, "a", "n", out), "2001:db8::1");
	assert_string_equal(endpoint_text(flow, "missing", "p", out), "-:80");
	assert_string_equal(duration_text(0, out), "0s");
	assert_string_equal(duration_text(0.25, out), "250ms");
	assert_string_equal(duration_text(59.9, out), "59s");
	assert_string_equal(duration_text(3599, out), "59m59s");
	assert_string_equal(duration_text(86399, out), "23h59m");
	assert_string_equal(duration_text(90000, out), "1d01h");
	assert_string_equal(bytes_text(1023, out), "1023 B");
	assert_string_equal(bytes_text(1536, out), "1.5 KiB");
}

static void test_numbers(void **state)
{
	static const char *const bad[] = {"", " 1", "+1", "-1", "1 ", "0x", "65536", "99999999999999999999", "a", "1e3"};
	long long number = -7;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(parse_number(bad[i], 0, 65535, &number), -EINVAL);
	assert_int_equal(number, -7);
	assert_int_equal(parse_number("65535", 0, 65535, &number), 0);
	assert_int_equal(number, 65535);
}

static void test_split_names(void **state)
{
	static const char *const bad[] = {"/", "/a", "a/", "a/b/c", "shop/web"};
	char buffer[CLIENT_PATH_MAX];
	const char *name = "web", *namespace_ = NULL;

	(void)state;
	assert_int_equal(client_split_name(&name, &namespace_, buffer), 0);
	assert_string_equal(name, "web");
	assert_null(namespace_);
	name = "shop/web";
	assert_int_equal(client_split_name(&name, &namespace_, buffer), 0);
	assert_string_equal(name, "web");
	assert_string_equal(namespace_, "shop");
	name = "shop/web";
	namespace_ = "shop";
	assert_int_equal(client_split_name(&name, &namespace_, buffer), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		name = bad[i];
		namespace_ = "lab";
		assert_int_equal(client_split_name(&name, &namespace_, buffer), CLI_USAGE);
		assert_ptr_equal(name, bad[i]);
	}
}

static void test_object_paths(void **state)
{
	char path[CLIENT_PATH_MAX], name[CLIENT_PATH_MAX];

	(void)state;
	assert_true(client_object_path(path, "host", NULL, NULL));
	assert_string_equal(path, "/v1/objects/host");
	assert_true(client_object_path(path, "a b", NULL, "../?#%\xc3\xa4"));
	assert_string_equal(path, "/v1/objects/a%20b/..%2F%3F%23%25%C3%A4");
	assert_true(client_object_path(path, "port", "shop", NULL));
	assert_string_equal(path, "/v1/objects/port?namespace=shop");
	assert_true(client_object_path(path, "port", "a&b", "web-1"));
	assert_string_equal(path, "/v1/objects/port/web-1?namespace=a%26b");
	memset(name, 'x', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	assert_false(client_object_path(path, "host", NULL, name));
	assert_false(client_object_path(path, name, NULL, "a"));
	assert_false(client_object_path(path, "host", name, "a"));
	/* just at the end: everything is escaped to three bytes */
	for (size_t length = 300; length < 340; length++) {
		memset(name, '/', length);
		name[length] = '\0';
		assert_true(client_object_path(path, "host", NULL, name) ==
			    (strlen("/v1/objects/host/") + 3 * length < CLIENT_PATH_MAX));
	}
}

struct seen {
	size_t n, length;
	unsigned char frame[128];
	bool padded;
};

static int see(const struct capture_frame *frame, void *userdata)
{
	struct seen *seen = userdata;

	seen->n = frame->number;
	seen->length = frame->length;
	seen->padded = frame->padded;
	memcpy(seen->frame, frame->data, frame->length < sizeof(seen->frame) ? frame->length : sizeof(seen->frame));
	return frame->number == 3 ? 42 : 0;
}

static void write_capture(const char *path, int link, const struct pcap_pkthdr *headers, size_t n)
{
	static const unsigned char data[512] = {0x60};
	pcap_t *pcap = pcap_open_dead(link, 262144);
	pcap_dumper_t *dumper = pcap_dump_open(pcap, path);

	assert_non_null(dumper);
	for (size_t i = 0; i < n; i++)
		pcap_dump((unsigned char *)dumper, &headers[i], data);
	pcap_dump_close(dumper);
	pcap_close(pcap);
}

static void test_captures(void **state)
{
	char path[] = "/tmp/heddle-cli-test-XXXXXX";
	const struct pcap_pkthdr cut = {.caplen = 60, .len = 70}, empty = {.caplen = 0, .len = 0},
				 huge = {.caplen = 100, .len = 1 << 20};
	struct seen seen = {0};
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	write_capture(path, DLT_EN10MB, &cut, 1);
	assert_int_equal(capture_each(path, see, &seen), CLI_DONE);
	assert_true(seen.n == 1 && seen.length == 70 && seen.padded);
	write_capture(path, DLT_RAW, &cut, 1);
	assert_int_equal(capture_each(path, see, &seen), CLI_DONE);
	assert_int_equal(seen.length, 84);
	assert_memory_equal(seen.frame + 12, "\x86\xdd\x60", 3);
	/* shorter than the header of its link; longer than any packet */
	write_capture(path, DLT_LINUX_SLL, &empty, 1);
	assert_int_equal(capture_each(path, see, &seen), CLI_DONE);
	assert_int_equal(seen.length, 0);
	write_capture(path, DLT_LINUX_SLL2, &huge, 1);
	assert_int_equal(capture_each(path, see, &seen), CLI_DONE);
	assert_in_range(seen.length, 65535, 65535 + 14 + 8);
	/* what the callback says ends the walk */
	write_capture(path, DLT_EN10MB, (const struct pcap_pkthdr[]){cut, cut, cut, cut}, 4);
	assert_int_equal(capture_each(path, see, &seen), 42);
	assert_int_equal(seen.n, 3);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_changes),
		cmocka_unit_test(test_long_values_are_cut),
		cmocka_unit_test(test_yaml),
		cmocka_unit_test(test_yaml_into_a_full_disk),
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_texts),
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_object_paths),
		cmocka_unit_test(test_split_names),
		cmocka_unit_test(test_captures),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
