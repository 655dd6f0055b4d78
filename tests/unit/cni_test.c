/* SPDX-License-Identifier: Apache-2.0 */
/* heddle-cni's decoding, results and HTTP, with sanitizers: what runtimes, plugins and the agent may send. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include <cni/cni.h>
#include <util/addr.h>

static struct environment environment(const char *command)
{
	return (struct environment){.command = command, .container = "c1", .netns = "/x", .ifname = "eth0", .path = "/p"};
}

static unsigned decode_with(const struct environment *env, const char *text, struct config *ret)
{
	struct failure failure = {0};
	struct config config;
	int r = config_decode(env, text, strlen(text), &config, &failure);
	unsigned code = failure.code;

	assert_true((r < 0) == (code != 0));
	json_decref(failure_json(&failure, version_name(config.version)));
	failure_clear(&failure);
	if (ret)
		*ret = config;
	else
		config_clear(&config);
	return code;
}

static unsigned decode(const char *command, const char *text, struct config *ret)
{
	struct environment env = environment(command);

	return decode_with(&env, text, ret);
}

#define POD(rest) "{\"cniVersion\":\"1.1.0\",\"name\":\"pods\",\"network\":\"blue\"" rest "}"

static void test_config(void **state)
{
	struct environment env = environment("ADD");
	struct config config;

	(void)state;
	env.args = "K8S_POD_NAME=web;K8S_POD_NAMESPACE=shop;MAC=02:00:00:00:00:02;IP=10.0.0.2;X=Y;;";
	assert_int_equal(decode_with(&env,
				 POD(",\"labels\":{\"a\":\"1\"},\"RuntimeConfig\":{\"IPS\":[\"10.0.0.9\"],\"DNS\":{\"Servers\":["
				     "\"1.1.1.1\"],"
				     "\"Searches\":null}},\"dns\":{\"domain\":\"d\",\"search\":[\"s\"]},\"args\":{\"cni\":{"
				     "\"labels\":[{\"key\":"
				     "\"b\",\"value\":\"2\"}]}}"),
				 &config),
		0);
	assert_string_equal(config.pod, "web");
	assert_string_equal(config.namespace_, "shop");
	assert_string_equal(config.mac, "02:00:00:00:00:02");
	assert_string_equal(json_string_value(json_array_get(config.ips, 0)), "10.0.0.9");
	assert_int_equal(json_object_size(config.labels), 2);
	assert_int_equal(json_object_size(config.dns), 3);
	assert_string_equal(config.socket, "/run/heddle/heddled.sock");
	assert_null(config.ipam);
	config_clear(&config);

	assert_int_equal(decode("ADD", POD(",\"ipam\":{\"type\":\"host-local\"},\"socket\":\"/s\""), &config), 0);
	assert_string_equal(config.ipam, "host-local");
	assert_string_equal(config.socket, "/s");
	config_clear(&config);
	assert_int_equal(decode("ADD", POD(",\"ipam\":{\"type\":\"heddle\",\"ranges\":[]}"), &config), 0);
	assert_null(config.ipam);
	assert_non_null(config.ranges);
	config_clear(&config);
	assert_int_equal(decode("GC", POD(",\"cni.dev/valid-attachments\":null"), &config), 0);
	assert_true(json_is_null(config.valid));
	config_clear(&config);
}

static void test_refused(void **state)
{
	struct environment nothing = {0}, unset = {.command = "ADD"};

	(void)state;
	assert_int_equal(decode_with(&nothing, "", NULL), FAILURE_ENVIRONMENT);
	assert_int_equal(decode_with(&unset, POD(""), NULL), FAILURE_ENVIRONMENT);
	assert_int_equal(decode("ADD", "", NULL), FAILURE_DECODE);
	assert_int_equal(decode("ADD", "[]", NULL), FAILURE_DECODE);
	assert_int_equal(decode("ADD", "{\"cniVersion\":\"7.0.0\"}", NULL), FAILURE_VERSION);
	assert_int_equal(decode("GC", POD(""), NULL), FAILURE_CONFIG);
	assert_int_equal(decode("CHECK", POD(""), NULL), FAILURE_CONFIG);
	assert_int_equal(decode("CHECK", POD(",\"prevResult\":[]"), NULL), FAILURE_DECODE);
	assert_int_equal(decode("ADD", POD(",\"runtimeConfig\":{\"bandwidth\":{\"ingressRate\":0.5}}"), NULL), FAILURE_CONFIG);
	assert_int_equal(decode("ADD", POD(",\"runtimeConfig\":{\"bandwidth\":{\"egressBurst\":-1}}"), NULL), FAILURE_CONFIG);
	assert_int_equal(decode("ADD", POD(",\"runtimeConfig\":{\"bandwidth\":{\"ingressRate\":1e400}}"), NULL), FAILURE_DECODE);
	assert_int_equal(decode("ADD", POD(",\"runtimeConfig\":{\"portMappings\":[{\"hostPort\":0.5}]}"), NULL), FAILURE_CONFIG);
	assert_int_equal(decode("ADD", POD(",\"runtimeConfig\":{\"portMappings\":[{\"hostPort\":1}]}"), NULL), FAILURE_CONFIG);
	assert_int_equal(
		decode("ADD", POD(",\"runtimeConfig\":{\"portMappings\":[{\"hostPort\":1,\"containerPort\":2}]}"), NULL), 0);
	assert_int_equal(decode("VERSION", "", NULL), 0);
}

#define VF "0000:01:10.0"

static void test_device(void **state)
{
	static const char *const good[] = {",\"deviceID\":\"" VF "\"", ",\"pciBusID\":\"" VF "\"",
		",\"runtimeConfig\":{\"deviceID\":\"" VF "\"}",
		",\"deviceID\":\"" VF "\",\"pciBusID\":\"" VF "\",\"runtimeConfig\":{\"DeviceID\":\"" VF "\"}"},
				 *const bad[] = {",\"deviceID\":\"01:10.0\"", ",\"deviceID\":\"0000:01:10.8\"",
					 ",\"deviceID\":\"mlx5_core.sf.4\"",
					 ",\"deviceID\":\"" VF "\",\"pciBusID\":\"0000:01:10.1\"",
					 ",\"deviceID\":\"" VF "\",\"vf\":{\"index\":0}", ",\"deviceID\":\"" VF "\",\"vf\":7"};
	struct config config;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		_cleanup_free_ char *text = NULL;

		assert_true(asprintf(&text, "{\"name\":\"pods\",\"network\":\"blue\",\"stateDir\":\"/s\"%s}", good[i]) > 0);
		assert_int_equal(decode("ADD", text, &config), 0);
		assert_string_equal(config.pci, VF);
		assert_string_equal(config.state_dir, "/s");
		config_clear(&config);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		_cleanup_free_ char *text = NULL;

		assert_true(asprintf(&text, "{\"name\":\"pods\",\"network\":\"blue\"%s}", bad[i]) > 0);
		assert_int_equal(decode("ADD", text, NULL), FAILURE_CONFIG);
		/* what was attached is given back, whatever it is called by now */
		assert_int_equal(decode("DEL", text, NULL), 0);
	}
	assert_int_equal(decode("ADD", POD(",\"deviceID\":\"aaaa:aa:1a.0\""), &config), 0);
	assert_string_equal(config.pci, "aaaa:aa:1a.0");
	config_clear(&config);
	assert_int_equal(decode("ADD", POD(",\"deviceID\":7"), NULL), FAILURE_DECODE);
}

static void test_names(void **state)
{
	char a[DEVICE_NAME_MAX], b[DEVICE_NAME_MAX];

	(void)state;
	config_device("n", "ab", "c", a);
	config_device("n", "a", "bc", b);
	assert_string_not_equal(a, b);
	assert_int_equal(strlen(a), 15);
	config_device("n", "ab", "c", b);
	assert_string_equal(a, b);
}

/* --- results --- */

static int decode_result(const char *text, const char *ifname, struct result *ret)
{
	struct failure failure = {0};
	json_t *json = json_loads(text, JSON_DECODE_ANY, NULL);
	int r = result_decode(json, ifname, ret, &failure);

	json_decref(json);
	failure_clear(&failure);
	return r;
}

static void test_results(void **state)
{
	static const char *const bad[] = {"[]", "{\"ips\":1}", "{\"ips\":[{}]}", "{\"ips\":[{\"address\":\"10.0.0.1\"}]}",
		"{\"ips\":[{\"address\":\"10.0.0.1/33\"}]}", "{\"ips\":[{\"address\":\"10.0.0.1/24\",\"gateway\":7}]}",
		"{\"routes\":[{\"dst\":\"x\"}]}", "{\"routes\":[7]}", "{\"ip4\":{}}", "{\"dns\":[]}", "{\"interfaces\":{}}"};
	struct result result = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_true(decode_result(bad[i], NULL, &result) < 0);
		result_clear(&result);
	}
	assert_int_equal(
		decode_result("{\"interfaces\":[{\"name\":\"a\"},{\"name\":\"b\"}],\"ips\":[{\"address\":\"10.0.0.1/24\","
			      "\"interface\":0},{\"address\":\"fd::1/64\",\"interface\":1,\"gateway\":\"fd::2\"},{\"address\":"
			      "\"10.0.0.3/32\"},{\"address\":\"10.0.0.4/32\",\"interface\":9}],\"routes\":null}",
			"b", &result),
		0);
	assert_int_equal(result.n_addresses, 2);
	assert_int_equal(result.addresses[0].length, 64);
	assert_true(result.addresses[0].has_gateway);
	assert_int_equal(result.addresses[1].length, 32);
	result_clear(&result);
}

static void test_result_of_each_version(void **state)
{
	struct result result = {.mac = "02:00:00:00:00:01", .mtu = 1500}, again = {0};
	struct environment env = environment("ADD");

	(void)state;
	assert_int_equal(
		decode_result("{\"ips\":[{\"address\":\"10.0.0.1/24\",\"gateway\":\"10.0.0.2\"},{\"address\":\"fd::1/64\"}],"
			      "\"routes\":[{\"dst\":\"0.0.0.0/0\",\"gw\":\"10.0.0.2\"}]}",
			NULL, &result),
		0);
	for (int version = 0; version < VERSION_COUNT; version++) {
		struct config config = {.version = (enum version)version, .env = env, .dns = json_object()};
		json_t *json = result_encode(&config, &result, "hd0", "02:00:00:00:00:02");
		char *text = json_dumps(json, 0);

		assert_string_equal(json_string_value(json_object_get(json, "cniVersion")), version_name(config.version));
		assert_int_equal(decode_result(text, "eth0", &again), 0);
		assert_int_equal(again.n_addresses, 2);
		assert_int_equal(again.n_routes, 1);
		assert_memory_equal(&again.addresses[0].addr, &result.addresses[0].addr, sizeof(struct hd_addr));
		assert_int_equal((strstr(text, "\"mtu\"") != NULL), version == VERSION_110);
		assert_int_equal((strstr(text, "\"version\"") != NULL), version >= VERSION_030 && version < VERSION_100);
		result_clear(&again);
		free(text);
		json_decref(json);
		config_clear(&config);
	}
	result_clear(&result);
}

/* --- the agent's answers --- */

static char socket_path[64];

struct answer {
	int listening;
	const char *pieces[4]; /* sent one after the other; then the connection is closed */
};

static void *serve(void *userdata)
{
	const struct answer *answer = userdata;
	int fd = accept(answer->listening, NULL, NULL);
	char buffer[512];

	if (recv(fd, buffer, sizeof(buffer), 0) > 0)
		for (size_t i = 0; i < ARRAY_SIZE(answer->pieces) && answer->pieces[i]; i++) {
			usleep(2000);
			if (send(fd, answer->pieces[i], strlen(answer->pieces[i]), MSG_NOSIGNAL) < 0)
				break;
		}
	close(fd);
	return NULL;
}

static int ask(struct answer answer, unsigned *ret_status, json_t **ret)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct agent *agent = NULL;
	pthread_t thread;
	int r;

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", socket_path);
	answer.listening = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(answer.listening, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(answer.listening, 1), 0);
	assert_int_equal(pthread_create(&thread, NULL, serve, &answer), 0);
	assert_int_equal(agent_connect(socket_path, 1000, &agent), 0);
	r = agent_ask(agent, "/v1/x", NULL, 2000, ret_status, ret);
	agent_close(agent);
	pthread_join(thread, NULL);
	close(answer.listening);
	unlink(socket_path);
	return r;
}

static void test_agent(void **state)
{
	static const char *const bad[] = {"HTTP/1.1 200 OK\r\n", "nonsense\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n{}",
		"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{}",
		"HTTP/1.1 200 OK\r\n\r\n{", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""};
	struct failure failure = {0};
	struct agent *agent;
	unsigned status = 0;
	json_t *json = NULL;

	(void)state;
	snprintf(socket_path, sizeof(socket_path), "/tmp/heddle-cni-test-%d", (int)getpid());
	assert_int_equal(agent_connect(socket_path, 100, &agent), -ENOENT);
	assert_int_equal(ask((struct answer){.pieces = {"HTTP/1.1 200 OK\r\ncontent-LENGTH: 7\r\n", "X: y\r\n\r\n{\"a\"", ":1}"}},
				 &status, &json),
		0);
	assert_int_equal(status, 200);
	assert_int_equal(json_integer_value(json_object_get(json, "a")), 1);
	assert_int_equal(agent_failure(status, json, &failure), 0);
	json_decref(json);
	assert_int_equal(
		ask((struct answer){.pieces = {"HTTP/1.1 409 Conflict\r\n\r\n{\"error\":\"no\",\"details\":[\"a\",\"b\"]}"}},
			&status, &json),
		0);
	assert_true(agent_failure(status, json, &failure) < 0);
	assert_int_equal(failure.code, FAILURE_AGENT);
	assert_string_equal(failure.message.data, "heddled: no: a");
	assert_string_equal(failure.details.data, "a\nb");
	failure_clear(&failure);
	json_decref(json);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_true(ask((struct answer){.pieces = {bad[i]}}, &status, &json) < 0);
}

static void test_quote(void **state)
{
	_cleanup_buffer_ struct buffer text = {0};

	(void)state;
	agent_quote(&text, "a-b_c.1 &?%\xc3");
	assert_string_equal(text.data, "a-b_c.1%20%26%3F%25%C3");
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_config), cmocka_unit_test(test_refused),
		cmocka_unit_test(test_device), cmocka_unit_test(test_names), cmocka_unit_test(test_results),
		cmocka_unit_test(test_result_of_each_version), cmocka_unit_test(test_agent), cmocka_unit_test(test_quote)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
