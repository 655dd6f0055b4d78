/* SPDX-License-Identifier: Apache-2.0 */
/* Which tracked UDP flows lead where nobody would lead them now. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <netinet/in.h>

#include <cmocka.h>

#include <netdev/nat_stale.h>
#include <util/addr.h>

#define OLD "10.77.0.1"
#define NEW "10.77.0.2"
#define HOST "192.0.2.1"

static struct hd_addr address(const char *text)
{
	struct hd_addr ret;

	assert_int_equal(addr_parse(text, &ret), 0);
	return ret;
}

static struct nat_port port(const char *to, uint8_t protocol)
{
	return (struct nat_port){.protocol = protocol, .host_port = 9000, .to_port = 80, .any = true, .to = address(to)};
}

/* From the host's port 9000 to who answers. */
static bool is_stale(const struct nat_change *change, const char *to, const char *answers, uint16_t answers_port)
{
	const struct conntrack_flow flow = {
		.to = address(to), .to_port = 9000, .answers = address(answers), .answers_port = answers_port};

	return nat_is_stale(change, &flow);
}

static void test_a_port_that_is_gone(void **state)
{
	const struct nat_port before = port(OLD, IPPROTO_UDP);
	const struct nat_change change = {.before = {&before, 1}};

	(void)state;
	assert_true(is_stale(&change, HOST, OLD, 80));
	/* led elsewhere, by somebody else */
	assert_false(is_stale(&change, HOST, NEW, 80));
	assert_false(is_stale(&change, HOST, OLD, 81));
}

static void test_a_port_that_stays(void **state)
{
	const struct nat_port both = port(OLD, IPPROTO_UDP);
	const struct nat_change change = {.before = {&both, 1}, .now = {&both, 1}};

	(void)state;
	assert_false(is_stale(&change, HOST, OLD, 80));
	assert_false(is_stale(&change, HOST, HOST, 9000));
}

/* What the host itself answered, or another container, goes to the new one; what only passes by is none of ours. */
static void test_a_port_that_is_new(void **state)
{
	const struct nat_port now = port(NEW, IPPROTO_UDP);
	const struct hd_addr local = address(HOST);
	struct nat_change change = {.now = {&now, 1}, .local = &local, .n_local = 1};

	(void)state;
	assert_true(is_stale(&change, HOST, HOST, 9000));
	assert_true(is_stale(&change, HOST, OLD, 80));
	assert_false(is_stale(&change, HOST, NEW, 80));
	assert_false(is_stale(&change, "198.51.100.1", "198.51.100.1", 9000));
	/* as one that was there before, unless that was not in force for a while */
	change.before = change.now;
	assert_false(is_stale(&change, HOST, HOST, 9000));
	change.lost = true;
	assert_true(is_stale(&change, HOST, HOST, 9000));
}

static void test_of_one_address(void **state)
{
	struct nat_port now = port(NEW, IPPROTO_UDP);
	const struct hd_addr local[] = {address(HOST), address("192.0.2.2"), address("2001:db8::1")};
	const struct nat_change change = {.now = {&now, 1}, .local = local, .n_local = 3};

	(void)state;
	now.any = false;
	now.host = local[1];
	assert_true(is_stale(&change, "192.0.2.2", OLD, 80));
	assert_false(is_stale(&change, HOST, OLD, 80));
	/* nor of the other family */
	now.any = true;
	assert_false(is_stale(&change, "2001:db8::1", "2001:db8::1", 9000));
}

static void test_tcp_is_passed_over(void **state)
{
	const struct nat_port before = port(OLD, IPPROTO_TCP), now = port(NEW, IPPROTO_TCP);
	const struct hd_addr local = address(HOST);
	const struct nat_change change = {.before = {&before, 1}, .now = {&now, 1}, .local = &local, .n_local = 1};
	size_t n = 1;

	(void)state;
	assert_false(is_stale(&change, HOST, OLD, 80));
	assert_int_equal(nat_forget_stale(&change, &n), 0);
	assert_int_equal(n, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_port_that_is_gone),
		cmocka_unit_test(test_a_port_that_stays),
		cmocka_unit_test(test_a_port_that_is_new),
		cmocka_unit_test(test_of_one_address),
		cmocka_unit_test(test_tcp_is_passed_over),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
