// SPDX-License-Identifier: Apache-2.0
/* Streams of JSON cut into objects, wherever they are cut; base64; and kubeconfigs. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <source/kubernetes_internal.h>
#include <util/base64.h>
#include <util/file.h>
#include <util/log.h>

static int collect(void *userdata, const char *text, size_t length)
{
	struct buffer *out = userdata;

	buffer_add(out, text, length);
	buffer_add_char(out, '|');
	return 0;
}

/* In steps of `step` bytes. */
static int feed(struct kube_split *split, const char *text, size_t step)
{
	size_t length = strlen(text);
	int r = 0;

	for (size_t at = 0; at < length && r == 0; at += step)
		r = kube_split_feed(split, text + at, length - at < step ? length - at : step);
	return r;
}

static void expect_split(bool list, const char *text, const char *pieces, const char *rest)
{
	for (size_t step = 1; step <= strlen(text); step++) {
		struct buffer got = {0};
		struct kube_split split = {.list = list, .take = collect, .userdata = &got};

		assert_int_equal(feed(&split, text, step), 0);
		assert_true(kube_split_complete(&split));
		assert_string_equal(got.data ? got.data : "", pieces);
		if (rest)
			assert_string_equal(split.rest.data, rest);
		kube_split_reset(&split, list);
		buffer_clear(&got);
	}
}

static void test_watch(void **state)
{
	(void)state;
	expect_split(false, "{\"a\":1}\n{\"b\":{\"c\":[1,{}]}}\n", "{\"a\":1}|{\"b\":{\"c\":[1,{}]}}|", NULL);
	expect_split(false, "{\"a\":\"}{\\\"]\\\\\"} {}", "{\"a\":\"}{\\\"]\\\\\"}|{}|", NULL);
	expect_split(false, "\n\n", "", NULL);
}

static void test_list(void **state)
{
	(void)state;
	expect_split(true, "{\"kind\":\"L\",\"metadata\":{\"a\":[{}]},\"items\":[{\"x\":[1]}, {\"y\":{}}],\"z\":\"[{\"}",
		"{\"x\":[1]}|{\"y\":{}}|", "{\"kind\":\"L\",\"metadata\":{\"a\":[{}]},\"items\":[],\"z\":\"[{\"}");
	expect_split(true, "{\"items\":[],\"metadata\":{}}\n", "", "{\"items\":[],\"metadata\":{}}\n");
	expect_split(true, "{\"items\":null}", "", "{\"items\":null}");
}

static void test_broken(void **state)
{
	static const char *const broken[] = {"x", "}", "[1]", "\"a\"", "{}]", "{}}"};
	struct buffer got = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(broken); i++) {
		for (int list = 0; list < 2; list++) {
			struct kube_split split = {.list = list, .take = collect, .userdata = &got};

			assert_int_equal(feed(&split, broken[i], 100), -EBADMSG);
			kube_split_reset(&split, list);
		}
	}
	struct kube_split open = {.take = collect, .userdata = &got};
	assert_int_equal(feed(&open, "{\"a\":[", 100), 0);
	assert_false(kube_split_complete(&open));
	kube_split_reset(&open, false);
	buffer_clear(&got);
}

static void test_bounds(void **state)
{
	static char text[1 << 16];
	struct buffer got = {0};
	struct kube_split split = {.take = collect, .userdata = &got};
	size_t n = 0;
	int r = 0;

	(void)state;
	memset(text, '{', sizeof(text));
	assert_int_equal(kube_split_feed(&split, text, sizeof(text)), -EBADMSG);
	kube_split_reset(&split, false);
	assert_int_equal(feed(&split, "{\"a\":\"", 100), 0);
	memset(text, 'x', sizeof(text));
	for (; n < 2 * KUBE_PIECE_MAX && r == 0; n += sizeof(text))
		r = kube_split_feed(&split, text, sizeof(text));
	assert_int_equal(r, -EMSGSIZE);
	assert_true(n <= KUBE_PIECE_MAX + sizeof(text));
	kube_split_reset(&split, true);
	assert_int_equal(feed(&split, "{\"a\":\"", 100), 0);
	for (n = 0, r = 0; n < 2 * KUBE_REST_MAX && r == 0; n += sizeof(text))
		r = kube_split_feed(&split, text, sizeof(text));
	assert_int_equal(r, -EMSGSIZE);
	kube_split_reset(&split, true);
	buffer_clear(&got);
}

static void test_base64(void **state)
{
	static const char *const pairs[][2] = {{"", ""}, {"Zg==", "f"}, {"Zm8=", "fo"}, {"Zm9v", "foo"}, {"Zm9vYg==", "foob"},
		{"Zm9v\nYmE=", "fooba"}, {"Zm9vYmFy", "foobar"}};
	static const char *const bad[] = {"Z", "Zg", "Zg=", "Zm9v=", "Z===", "Zg==Zg==", "Zm9-", "===="};
	char *out;
	size_t length;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		assert_int_equal(base64_decode(pairs[i][0], &out, &length), 0);
		assert_string_equal(out, pairs[i][1]);
		assert_int_equal(length, strlen(pairs[i][1]));
		free(out);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(base64_decode(bad[i], &out, &length), -EINVAL);
}

#define CONFIG(cluster, user) \
	"current-context: here\ncontexts: [{name: here, context: {cluster: c, user: u}}]\n" \
	"clusters: [{name: c, cluster: {" cluster "}}]\nusers: [{name: u, user: {" user "}}]\n"

static int read_text(const char *text, struct kube_config *ret)
{
	assert_int_equal(file_write_fleeting(-100, "/tmp/heddle-unit-kubeconfig", text, strlen(text), 0600), 0);
	int r = kube_config_read("/tmp/heddle-unit-kubeconfig", ret);

	unlink("/tmp/heddle-unit-kubeconfig");
	return r;
}

static void test_kubeconfig(void **state)
{
	static const char *const bad[] = {"", "[]", "current-context: here\n", CONFIG("server: 'http://a'", ""), CONFIG("", ""),
		CONFIG("server: 'https://a', certificate-authority-data: '!'", ""),
		CONFIG("server: 'https://a'", "exec: {command: x}"), CONFIG("server: 'https://a', proxy-url: 'http://b'", ""),
		"a: [", CONFIG("server: 'https://a'", "username: x")};
	struct kube_config config;

	(void)state;
	log_set_level(-1);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(read_text(bad[i], &config), -EINVAL);
	assert_int_equal(read_text(CONFIG("server: 'https://a:6443/', certificate-authority: ca.crt",
					   "client-certificate: /x/y, client-key-data: Zm9v, token: t"),
				 &config),
		0);
	assert_string_equal(config.server, "https://a:6443");
	assert_string_equal(config.ca_file, "/tmp/ca.crt");
	assert_string_equal(config.certificate_file, "/x/y");
	assert_int_equal(config.key.length, 3);
	assert_memory_equal(config.key.data, "foo", 3);
	assert_string_equal(config.token, "t");
	kube_config_clear(&config);

	unsetenv("KUBERNETES_SERVICE_HOST");
	assert_int_equal(kube_config_read(NULL, &config), -EINVAL);
	setenv("KUBERNETES_SERVICE_HOST", "fd00::1", 1);
	setenv("KUBERNETES_SERVICE_PORT", "443", 1);
	assert_int_equal(kube_config_read(NULL, &config), 0);
	assert_string_equal(config.server, "https://[fd00::1]:443");
	kube_config_clear(&config);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_watch),
		cmocka_unit_test(test_list),
		cmocka_unit_test(test_broken),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_base64),
		cmocka_unit_test(test_kubeconfig),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
