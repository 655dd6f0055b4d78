/* SPDX-License-Identifier: Apache-2.0 */
/* What each part of a HostPolicy means in the tables, and what a change costs and touches. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <tests/unit/policy_env.h>
#include <util/addr.h>

#define HEAD "---\napiVersion: heddle.dev/v1alpha1\nkind: "
#define HOST \
	HEAD "Host\nmetadata: {name: h}\nspec: {uplinks: [{device: eth0}, {device: eth1}], failsafe: [{protocol: TCP, port: " \
	     "22}]}\n"
#define POLICY(name) HEAD "HostPolicy\nmetadata: {name: " name "}\nspec:\n"
#define GROUP(name, cidrs) HEAD "AddressGroup\nmetadata: {name: " name "}\nspec: {cidrs: [" cidrs "]}\n"

static const struct compiler_limits limits = {1 << 14, 1 << 14, 1 << 15, 1 << 16, 1 << 15, 1 << 10};

struct fixture {
	struct policy_env env;
	struct object_list list;
};

static void open_fixture(struct fixture *f)
{
	memset(f, 0, sizeof(*f));
	policy_env_open(&f->env, &limits, 1);
}

static void close_fixture(struct fixture *f)
{
	policy_env_close(&f->env);
	object_list_clear(&f->list);
}

/* Compiles the documents and puts them in force. Objects that are the same as before are the same objects. */
static void apply(struct fixture *f, const char *text)
{
	struct object_list next = {0}, merged = {0};

	policy_documents(&next, text);
	for (size_t i = 0; i < next.n; i++) {
		struct object *object = next.items[i];

		for (size_t j = 0; j < f->list.n; j++)
			if (f->list.items[j]->kind == object->kind && strcmp(f->list.items[j]->name, object->name) == 0 &&
				f->list.items[j]->hash == object->hash)
				object = f->list.items[j];
		assert_int_equal(object_list_add(&merged, object), 0);
	}
	policy_env_apply(&f->env, &merged);
	object_list_clear(&next);
	object_list_clear(&f->list);
	f->list = merged;
}

/* ADDR KIND NUMBER[<SOURCE PORT]; ADDR - for frames that are not IP. */
static struct lookup_packet packet(const char *text)
{
	static const char *const kinds[] = {[HD_L4_PROTOCOL] = "ip",
		[HD_L4_TCP] = "tcp",
		[HD_L4_UDP] = "udp",
		[HD_L4_SCTP] = "sctp",
		[HD_L4_ICMP] = "icmp",
		[HD_L4_ICMPV6] = "icmp6",
		[HD_L4_ETHERTYPE] = "ether"};
	struct lookup_packet ret = {.ip = true, .source_port = 40000};
	char addr[64], kind[16], number[32], *end;

	assert_int_equal(sscanf(text, "%63s %15s %31s", addr, kind, number), 3);
	if (strcmp(addr, "-") == 0)
		ret.ip = false;
	else
		assert_int_equal(addr_parse(addr, &ret.peer), 0);
	while (strcmp(kinds[ret.kind], kind) != 0)
		ret.kind++;
	ret.number = (uint16_t)strtoul(number, &end, 0);
	if (*end == '/') /* ICMP: type/code */
		ret.number = (uint16_t)(ret.number << 8 | strtoul(end + 1, &end, 0));
	if (*end == '<')
		ret.source_port = (uint16_t)strtoul(end + 1, NULL, 0);
	return ret;
}

/* The rule that decides, as POLICY/INDEX or the name of a built-in one, behind its verdict. */
static const char *judge(struct fixture *f, const char *device, enum hd_direction direction, const char *text)
{
	static const char *const verdicts[] = {"allow", "deny", "reject"};
	static char answer[128];
	struct lookup_packet p = packet(text);
	struct policy_answer said = policy_judge(&f->list, false, device, direction, &p);
	struct lookup_result result;
	struct rule_reference rule;
	const char *differs;

	policy_env_lookup(&f->env, f->env.generation, policy_env_port(&f->env, device), direction, &p, &result);
	differs = policy_env_differs(&f->env, &said, direction, &result);
	if (differs)
		fail_msg("%s: %s", text, differs);
	assert_int_equal(compiler_rule(f->env.compiler, result.leaf & HD_LEAF_RULE_MASK, &rule), 0);
	if (rule.builtin)
		snprintf(answer, sizeof(answer), "%s %s", verdicts[result.leaf >> HD_LEAF_VERDICT_SHIFT & 3], rule.name);
	else
		snprintf(answer, sizeof(answer), "%s %s/%u", verdicts[result.leaf >> HD_LEAF_VERDICT_SHIFT & 3], rule.policy,
			rule.index);
	return answer;
}
#define assert_in(f, text, wanted) assert_string_equal(judge(f, "eth0", HD_INGRESS, text), wanted)
#define assert_out(f, text, wanted) assert_string_equal(judge(f, "eth0", HD_EGRESS, text), wanted)

static void test_order(void **unused)
{
	struct fixture f;

	(void)unused;
	open_fixture(&f);
	apply(&f, HOST POLICY("zz") "  priority: 1\n  ingress:\n  - {action: deny, ports: [{port: 80}]}\n  - {action: allow, "
				    "ports: [{port: 80}]}\n"
				    "  - {action: reject, from: [{cidr: 10.0.0.0/8}], ports: [{port: 81}]}\n" POLICY(
					    "b") "  priority: 2\n  ingress:\n"
						 "  - {action: allow, ports: [{port: 81}]}\n  - {action: deny, ports: [{port: "
						 "82}]}\n" POLICY("a") "  priority: 2\n  ingress:\n  - {action: allow, from: "
								       "[{cidr: 10.1.0.0/16}], ports: [{port: 82}]}\n");
	assert_in(&f, "10.0.0.1 tcp 80", "deny zz/0");
	assert_in(&f, "10.0.0.1 tcp 81", "reject zz/2");
	assert_in(&f, "11.0.0.1 tcp 81", "allow b/0");
	assert_in(&f, "10.1.0.1 tcp 82", "allow a/0"); /* of equal priority: by name */
	assert_in(&f, "10.2.0.1 tcp 82", "deny b/1");
	assert_in(&f, "10.1.0.1 udp 82", "allow default-ingress");
	close_fixture(&f);
}

static void test_default(void **unused)
{
	struct fixture f;

	(void)unused;
	open_fixture(&f);
	apply(&f, HOST);
	assert_in(&f, "10.0.0.1 tcp 80", "allow default-ingress");
	assert_out(&f, "fd00::1 udp 53", "allow default-egress");
	apply(&f, HOST POLICY("a") "  priority: 5\n  default: {ingress: deny, egress: reject}\n" POLICY(
			  "b") "  priority: 7\n  default: {ingress: reject}\n" POLICY("c") "  priority: 7\n  ingress: []\n");
	assert_in(&f, "10.0.0.1 tcp 80", "reject default-ingress"); /* b is the last that sets it */
	assert_out(&f, "fd00::1 udp 53", "reject default-egress");
	assert_in(&f, "- ether 0x9000", "reject default-ingress");
	close_fixture(&f);
}

static void test_builtins(void **unused)
{
	struct fixture f;

	(void)unused;
	open_fixture(&f);
	apply(&f, HOST POLICY("a") "  ingress:\n  - {action: deny}\n  egress:\n  - {action: reject}\n  default: {ingress: deny, "
				   "egress: deny}\n");
	assert_in(&f, "10.0.0.1 tcp 22", "allow failsafe");
	assert_out(&f, "10.0.0.1 tcp 22", "reject a/0"); /* ingress only */
	assert_in(&f, "10.0.0.1 udp 22", "deny a/0");
	assert_in(&f, "- ether 0x0806", "allow arp");
	assert_out(&f, "- ether 0x0806", "allow arp");
	assert_in(&f, "- ether 0x88cc", "allow link-control");
	assert_out(&f, "- ether 0x8809", "allow link-control");
	assert_in(&f, "- ether 0x888e", "allow link-control");
	assert_in(&f, "- ether 0x9000", "deny a/0");
	assert_in(&f, "fe80::1 icmp6 133/0", "allow nd");
	assert_out(&f, "fe80::1 icmp6 137/0", "allow nd");
	assert_in(&f, "fe80::1 icmp6 138/0", "deny a/0");
	assert_in(&f, "fe80::1 icmp6 130/0", "allow mld");
	assert_out(&f, "fe80::1 icmp6 143/0", "allow mld");
	assert_in(&f, "fe80::1 icmp6 129/0", "deny a/0");
	assert_in(&f, "10.0.0.1 icmp 133/0", "deny a/0");
	assert_out(&f, "255.255.255.255 udp 67<68", "allow dhcp-client");
	assert_in(&f, "10.0.0.1 udp 68<67", "allow dhcp-client");
	assert_in(&f, "10.0.0.1 udp 68<66", "deny a/0");
	assert_in(&f, "10.0.0.1 udp 67<68", "deny a/0"); /* a request to a server here is no client's */
	assert_out(&f, "ff02::1:2 udp 547<546", "allow dhcp-client");
	assert_in(&f, "fe80::1 udp 546<547", "allow dhcp-client");
	assert_in(&f, "fe80::1 udp 546<548", "deny a/0");
	close_fixture(&f);
}

static void test_lockdown(void **unused)
{
	struct fixture f;
	struct lookup_packet p = packet("10.0.0.1 tcp 80"), failsafe = packet("10.0.0.1 tcp 22"), arp = packet("- ether 0x0806");
	struct lookup_result result;

	(void)unused;
	open_fixture(&f);
	apply(&f, HOST POLICY("a") "  ingress:\n  - {action: allow}\n  egress:\n  - {action: deny}\n");
	assert_in(&f, "10.0.0.1 tcp 80", "allow a/0");
	assert_int_equal(policy_env_compile(&f.env, &f.list, true), 0);
	policy_env_write(&f.env);
	policy_env_publish(&f.env);
	policy_env_settle(&f.env);
	policy_env_lookup(&f.env, f.env.generation, policy_env_port(&f.env, "eth0"), HD_INGRESS, &p, &result);
	assert_int_equal(result.leaf, HD_LEAF(HD_RULE_LOCKDOWN, HD_DENY, false));
	policy_env_lookup(&f.env, f.env.generation, policy_env_port(&f.env, "eth0"), HD_INGRESS, &failsafe, &result);
	assert_int_equal(result.leaf, HD_LEAF(HD_RULE_FAILSAFE, HD_ALLOW, false));
	policy_env_lookup(&f.env, f.env.generation, policy_env_port(&f.env, "eth0"), HD_INGRESS, &arp, &result);
	assert_int_equal(result.leaf, HD_LEAF(HD_RULE_ARP, HD_ALLOW, false));
	/* The host may still open connections: its administrator is likely to need them. */
	policy_env_lookup(&f.env, f.env.generation, policy_env_port(&f.env, "eth0"), HD_EGRESS, &p, &result);
	assert_int_equal(result.leaf, HD_LEAF(HD_RULE_DEFAULT_EGRESS, HD_ALLOW, false));
	policy_env_apply(&f.env, &f.list);
	assert_in(&f, "10.0.0.1 tcp 80", "allow a/0");
	close_fixture(&f);
}

static void test_families(void **unused)
{
	struct fixture f;

	(void)unused;
	open_fixture(&f);
	apply(&f, HOST POLICY("a") "  ingress:\n  - {action: deny, from: [{cidr: 0.0.0.0/0}], ports: [{port: 1}]}\n"
				   "  - {action: reject, from: [{cidr: '::/0'}], ports: [{port: 1}]}\n  - {action: deny, from: "
				   "[{cidr: 0.0.0.0/0}, {cidr: '::/0'}]}\n");
	assert_in(&f, "0.0.0.0 tcp 1", "deny a/0");
	assert_in(&f, "255.255.255.255 tcp 1", "deny a/0");
	assert_in(&f, ":: tcp 1", "reject a/1");
	assert_in(&f, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff tcp 1", "reject a/1");
	assert_in(&f, "fd00::1 ip 47", "deny a/2");
	assert_in(&f, "10.0.0.1 icmp 8/0", "deny a/2");
	assert_in(&f, "- ether 0x9000", "allow default-ingress"); /* no address, no peer */
	close_fixture(&f);
}

static void test_protocols(void **unused)
{
	struct fixture f;

	(void)unused;
	open_fixture(&f);
	apply(&f, HOST POLICY("a") "  ingress:\n  - {action: deny, ports: [{protocol: TCP, port: 100, endPort: 200}, {protocol: "
				   "UDP}, {protocol: 47}]}\n"
				   "  - {action: deny, icmp: [{type: 8}, {type: 3, code: 4}, {type: 128, family: IPv6}]}\n"
				   "  - {action: reject, ports: [{protocol: ICMPv6}]}\n  - {action: reject, ports: [{protocol: "
				   "SCTP, port: 65535}]}\n");
	assert_in(&f, "10.0.0.1 tcp 99", "allow default-ingress");
	assert_in(&f, "10.0.0.1 tcp 100", "deny a/0");
	assert_in(&f, "10.0.0.1 tcp 200", "deny a/0");
	assert_in(&f, "10.0.0.1 tcp 201", "allow default-ingress");
	assert_in(&f, "10.0.0.1 udp 0", "deny a/0");
	assert_in(&f, "10.0.0.1 udp 65535", "deny a/0");
	assert_in(&f, "10.0.0.1 ip 47", "deny a/0");
	assert_in(&f, "10.0.0.1 ip 48", "allow default-ingress");
	assert_in(&f, "10.0.0.1 icmp 8/0", "deny a/1");
	assert_in(&f, "10.0.0.1 icmp 8/255", "deny a/1");
	assert_in(&f, "10.0.0.1 icmp 3/4", "deny a/1");
	assert_in(&f, "10.0.0.1 icmp 3/3", "allow default-ingress");
	assert_in(&f, "10.0.0.1 icmp 128/0", "allow default-ingress");
	assert_in(&f, "fd00::1 icmp6 128/0", "deny a/1");
	assert_in(&f, "fd00::1 icmp6 8/0", "reject a/2");
	assert_in(&f, "10.0.0.1 ip 58", "reject a/2"); /* ICMPv6 in IPv4 is still protocol 58 */
	assert_in(&f, "10.0.0.1 sctp 65535", "reject a/3");
	assert_in(&f, "10.0.0.1 sctp 65534", "allow default-ingress");
	close_fixture(&f);
}

static void test_source_ports(void **unused)
{
	struct fixture f;

	(void)unused;
	open_fixture(&f);
	apply(&f, HOST POLICY("a") "  ingress:\n  - {action: deny, ports: [{port: 80}], sourcePorts: [{port: 1000, endPort: "
				   "1999}, {port: 3000}]}\n"
				   "  - {action: reject, from: [{cidr: 10.0.0.0/8}], ports: [{port: 80}], sourcePorts: [{port: "
				   "1500, endPort: 2500}]}\n"
				   "  - {action: deny, from: [{cidr: 10.1.0.0/16}], ports: [{port: 80}]}\n"
				   "  - {action: reject, sourcePorts: [{protocol: UDP, port: 53}]}\n  - {action: deny, "
				   "sourcePorts: [{port: 7}]}\n");
	assert_in(&f, "10.0.0.1 tcp 80<999", "allow default-ingress");
	assert_in(&f, "10.0.0.1 tcp 80<1000", "deny a/0");
	assert_in(&f, "10.0.0.1 tcp 80<1999", "deny a/0");
	assert_in(&f, "10.0.0.1 tcp 80<2000", "reject a/1");
	assert_in(&f, "11.0.0.1 tcp 80<2000", "allow default-ingress");
	assert_in(&f, "10.1.0.1 tcp 80<2501", "deny a/2");
	assert_in(&f, "10.1.0.1 tcp 80<3000", "deny a/0");
	assert_in(&f, "10.0.0.1 udp 9<53", "reject a/3");
	assert_in(&f, "10.0.0.1 tcp 9<53", "allow default-ingress");
	assert_in(&f, "10.0.0.1 tcp 9<7", "deny a/4");
	assert_in(&f, "10.0.0.1 udp 9<7", "deny a/4");
	assert_in(&f, "10.0.0.1 sctp 9<7", "deny a/4");
	assert_in(&f, "10.0.0.1 icmp 8/0<7", "allow default-ingress");
	close_fixture(&f);
}

static void test_except(void **unused)
{
	struct fixture f;

	(void)unused;
	open_fixture(&f);
	apply(&f, HOST GROUP("g", "10.2.3.0/24, 10.9.0.0/16")
			  POLICY("a") "  ingress:\n  - {action: deny, from: [{cidr: 10.0.0.0/8, except: [10.2.0.0/16, "
				      "10.3.0.0/16, 10.255.255.255/32]}, {addressGroup: g}]}\n"
				      "  - {action: reject, from: [{cidr: '2001:db8::/32', except: ['2001:db8:0:1::/64', "
				      "'2001:db8::5/128']}, {cidr: '2001:db8:0:1::8/125'}]}\n");
	assert_in(&f, "10.1.255.255 tcp 1", "deny a/0");
	assert_in(&f, "10.2.0.0 tcp 1", "allow default-ingress");
	assert_in(&f, "10.2.3.4 tcp 1", "deny a/0"); /* another item covers the exception again */
	assert_in(&f, "10.3.255.255 tcp 1", "allow default-ingress");
	assert_in(&f, "10.4.0.0 tcp 1", "deny a/0");
	assert_in(&f, "10.255.255.254 tcp 1", "deny a/0");
	assert_in(&f, "10.255.255.255 tcp 1", "allow default-ingress");
	assert_in(&f, "9.255.255.255 tcp 1", "allow default-ingress");
	assert_in(&f, "11.0.0.0 tcp 1", "allow default-ingress");
	assert_in(&f, "2001:db8::4 tcp 1", "reject a/1");
	assert_in(&f, "2001:db8::5 tcp 1", "allow default-ingress");
	assert_in(&f, "2001:db8::6 tcp 1", "reject a/1");
	assert_in(&f, "2001:db8:0:1::7 tcp 1", "allow default-ingress");
	assert_in(&f, "2001:db8:0:1::8 tcp 1", "reject a/1");
	assert_in(&f, "2001:db8:0:1::f tcp 1", "reject a/1");
	assert_in(&f, "2001:db8:0:1::10 tcp 1", "allow default-ingress");
	assert_in(&f, "2001:db8:0:2:: tcp 1", "reject a/1");
	assert_in(&f, "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff tcp 1", "allow default-ingress");
	close_fixture(&f);
}

/* --- sets and versions --- */

#define ANY_RULE "  ingress:\n  - {action: allow, ports: [{port: 80}]}\n"

static void test_uplinks(void **unused)
{
	struct fixture f;
	const struct hd_port_policy *a, *b;

	(void)unused;
	open_fixture(&f);
	apply(&f, HOST POLICY("a") ANY_RULE);
	a = policy_env_port(&f.env, "eth0");
	b = policy_env_port(&f.env, "eth1");
	assert_int_equal(a->set[HD_INGRESS], b->set[HD_INGRESS]);
	assert_int_equal(a->root[HD_INGRESS], b->root[HD_INGRESS]);
	assert_int_not_equal(a->set[HD_INGRESS], a->set[HD_EGRESS]);
	apply(&f, HOST POLICY("a") ANY_RULE POLICY(
			  "b") "  priority: 1\n  uplinks: [eth1]\n  ingress:\n  - {action: deny, from: [{cidr: 10.0.0.0/8}]}\n"
			       "  default: {ingress: reject}\n");
	a = policy_env_port(&f.env, "eth0");
	b = policy_env_port(&f.env, "eth1");
	assert_int_not_equal(a->set[HD_INGRESS], b->set[HD_INGRESS]);
	assert_int_equal(a->version[HD_INGRESS], 1); /* what it means has not changed */
	assert_int_equal(b->version[HD_INGRESS], 2);
	assert_in(&f, "10.0.0.1 tcp 80", "allow a/0");
	assert_string_equal(judge(&f, "eth1", HD_INGRESS, "10.0.0.1 tcp 80"), "deny b/0");
	assert_string_equal(judge(&f, "eth1", HD_INGRESS, "11.0.0.1 tcp 81"), "reject default-ingress");
	assert_in(&f, "11.0.0.1 tcp 81", "allow default-ingress");
	close_fixture(&f);
}

static uint32_t version(struct fixture *f, const char *device, enum hd_direction direction)
{
	return policy_env_port(&f->env, device)->version[direction];
}

static void test_versions(void **unused)
{
	struct fixture f;

	(void)unused;
	open_fixture(&f);
	apply(&f,
		HOST GROUP("g", "10.0.0.0/8") POLICY("a") "  ingress:\n  - {action: allow, from: [{addressGroup: g}]}\n"); /* 1 */
	assert_int_equal(version(&f, "eth0", HD_INGRESS), 1);
	assert_int_equal(version(&f, "eth0", HD_EGRESS), 1);
	apply(&f, HOST GROUP("g", "10.0.0.0/8, 11.0.0.0/8")
			  POLICY("a") "  ingress:\n  - {action: allow, from: [{addressGroup: g}]}\n"); /* 2 */
	assert_int_equal(version(&f, "eth0", HD_INGRESS), 2);
	assert_int_equal(version(&f, "eth0", HD_EGRESS), 1);
	apply(&f, HOST GROUP("g", "10.0.0.0/8, 11.0.0.0/8") GROUP("unused", "1.0.0.0/8")
			  POLICY("a") "  ingress:\n  - {action: allow, from: [{addressGroup: g}]}\n"); /* 3 */
	assert_int_equal(version(&f, "eth0", HD_INGRESS), 2);
	apply(&f,
		HOST GROUP("g", "10.0.0.0/8, 11.0.0.0/8") POLICY("a") "  ingress:\n  - {action: allow, from: [{addressGroup: "
								      "g}]}\n  egress:\n  - {action: allow, name: x}\n"); /* 4 */
	assert_int_equal(version(&f, "eth0", HD_INGRESS), 2);
	assert_int_equal(version(&f, "eth0", HD_EGRESS), 4);
	apply(&f, HOST GROUP("g", "10.0.0.0/8, 11.0.0.0/8")
			  POLICY("a") "  ingress:\n  - {action: allow, from: [{addressGroup: g}]}\n  egress:\n  - {action: "
				      "allow, name: x}\n  default: {egress: allow}\n"); /* 5: says what was so already */
	assert_int_equal(version(&f, "eth0", HD_EGRESS), 4);
	apply(&f, HOST GROUP("g", "10.0.0.0/8, 11.0.0.0/8")
			  POLICY("a") "  ingress:\n  - {action: allow, from: [{addressGroup: g}]}\n  egress:\n  - {action: "
				      "allow, name: x}\n  default: {egress: deny}\n"); /* 6 */
	assert_int_equal(version(&f, "eth0", HD_EGRESS), 6);
	assert_int_equal(version(&f, "eth0", HD_INGRESS), 2);
	apply(&f, HEAD "Host\nmetadata: {name: h}\nspec: {uplinks: [{device: eth0}, {device: eth1}]}\n" GROUP(
			  "g", "10.0.0.0/8, 11.0.0.0/8")
			  POLICY("a") "  ingress:\n  - {action: allow, from: [{addressGroup: g}]}\n  egress:\n  - {action: "
				      "allow, name: x}\n  default: {egress: deny}\n"); /* 7: no failsafe */
	assert_int_equal(version(&f, "eth0", HD_INGRESS), 7);
	assert_int_equal(version(&f, "eth0", HD_EGRESS), 6);
	close_fixture(&f);
}

static void test_priority_moves(void **unused)
{
	struct fixture f;

	(void)unused;
	open_fixture(&f);
	apply(&f, HOST POLICY("a") "  priority: 1\n  ingress:\n  - {action: allow, name: web, ports: [{port: 80}]}\n" POLICY(
			  "b") "  priority: 2\n  ingress:\n  - {action: deny}\n");
	uint32_t id = f.env.rules[HD_RULE_FIRST].policy[0] == 'a' ? HD_RULE_FIRST : HD_RULE_FIRST + 1;

	assert_in(&f, "10.0.0.1 tcp 80", "allow a/0");
	apply(&f, HOST POLICY("a") "  priority: 3\n  ingress:\n  - {action: allow, name: web, ports: [{port: 80}]}\n" POLICY(
			  "b") "  priority: 2\n  ingress:\n  - {action: deny}\n");
	assert_in(&f, "10.0.0.1 tcp 80", "deny b/0");
	assert_int_equal(version(&f, "eth0", HD_INGRESS), 2);
	assert_string_equal(f.env.rules[id].policy, "a"); /* still the same rule */
	close_fixture(&f);
}

/* Policies added one by one at the same place use its orders up: then all get new ones, which means nothing new to other sets. */
static void test_renumber(void **unused)
{
	static char text[65536];
	struct fixture f;
	uint32_t before;

	(void)unused;
	open_fixture(&f);
	size_t n = (size_t)snprintf(text, sizeof(text),
		HOST POLICY("eth1-only") "  priority: 0\n  uplinks: [eth1]\n  egress:\n  - {action: deny, to: [{cidr: "
					 "10.9.0.0/16}]}\n" POLICY("first") "  priority: 1\n  uplinks: [eth0]\n" ANY_RULE POLICY(
						 "last") "  priority: 2\n  uplinks: [eth0]\n" ANY_RULE);

	apply(&f, text);
	before = version(&f, "eth1", HD_EGRESS);
	for (int i = 0; i < 60; i++) {
		/* each one right before the one before */
		n += (size_t)snprintf(text + n, sizeof(text) - n,
			POLICY("m%02d") "  priority: 1\n  uplinks: [eth0]\n  ingress:\n  - {action: deny, from: [{cidr: "
					"10.0.0.%d/32}], ports: [{port: 443}]}\n",
			99 - i, i);
		apply(&f, text);
		for (int j = 0; j <= i; j += 7) {
			char probe[64], wanted[64];

			snprintf(probe, sizeof(probe), "10.0.0.%d tcp 443", j);
			snprintf(wanted, sizeof(wanted), "deny m%02d/0", 99 - j);
			assert_in(&f, probe, wanted);
		}
	}
	assert_int_equal(version(&f, "eth1", HD_EGRESS), before);
	assert_string_equal(judge(&f, "eth1", HD_EGRESS, "10.9.0.1 tcp 1"), "deny eth1-only/0");
	close_fixture(&f);
}

/* --- rule ids --- */

static uint32_t id_of(struct fixture *f, const char *policy, const char *name)
{
	for (uint32_t id = HD_RULE_FIRST; id < limits.rules; id++)
		if (f->env.rules[id].key && strcmp(f->env.rules[id].policy, policy) == 0 &&
			strcmp(f->env.rules[id].name, name) == 0)
			return id;
	return 0;
}

static void test_rule_ids(void **unused)
{
	struct fixture f, g;
	uint32_t a, b, fresh;

	(void)unused;
	open_fixture(&f);
	apply(&f, HOST POLICY("p") "  ingress:\n  - {action: allow, name: a}\n  - {action: deny, name: b}\n");
	a = id_of(&f, "p", "a");
	b = id_of(&f, "p", "b");
	assert_in_range(a, HD_RULE_FIRST, HD_RULE_FIRST + 1);
	/* A named rule is the same one wherever it stands and whatever it does. */
	apply(&f, HOST POLICY("p") "  ingress:\n  - {action: allow, name: new, ports: [{port: 1}]}\n  - {action: reject, name: "
				   "b, ports: [{port: 2}]}\n  - {action: allow, name: a}\n");
	assert_int_equal(id_of(&f, "p", "a"), a);
	assert_int_equal(id_of(&f, "p", "b"), b);
	assert_int_equal(f.env.rules[b].verdict, HD_REJECT);
	assert_int_equal(f.env.rules[a].index, 2);
	fresh = id_of(&f, "p", "new");
	assert_int_equal(fresh, HD_RULE_FIRST + 2);
	/* Ids that became free are not used in the round that frees them, then oldest first, and counted from 0. */
	apply(&f, HOST POLICY("p") "  ingress:\n  - {action: allow, name: c}\n  - {action: allow, name: a}\n  - {action: allow, "
				   "name: new}\n");
	assert_int_equal(id_of(&f, "p", "c"), HD_RULE_FIRST + 3);
	apply(&f, HOST POLICY("p") "  ingress:\n  - {action: allow, name: c}\n  - {action: allow, name: new}\n");
	struct object_list list = {0};

	policy_documents(&list,
		HOST POLICY("p") "  ingress:\n  - {action: allow, name: c}\n  - {action: allow, name: new}\n  - {action: "
				 "allow, name: d}\n  - {action: allow, name: e}\n  - {action: allow, name: f}\n");
	assert_int_equal(policy_env_compile(&f.env, &list, false), 0);
	assert_int_equal(f.env.delta->n_rules, 3);
	assert_int_equal(f.env.delta->rules[0].id, b);
	assert_true(f.env.delta->rules[0].reset);
	assert_int_equal(f.env.delta->rules[1].id, a);
	assert_true(f.env.delta->rules[1].reset);
	assert_int_equal(f.env.delta->rules[2].id, HD_RULE_FIRST + 4);
	assert_false(f.env.delta->rules[2].reset);
	policy_env_write(&f.env);
	policy_env_publish(&f.env);
	policy_env_settle(&f.env);

	/* The next agent: same rules, same ids; ids that nobody has any more are cleared, and used again later. */
	open_fixture(&g);
	for (uint32_t id = HD_RULE_FIRST; id < limits.rules; id++)
		if (f.env.rules[id].key)
			assert_int_equal(compiler_adopt_rule(g.env.compiler, id, f.env.rules[id].key), 0);
	assert_int_equal(compiler_adopt_rule(g.env.compiler, 1000, 12345), 0);
	assert_int_equal(compiler_adopt_rule(g.env.compiler, 3, 12345), -EINVAL);
	g.env.rules[1000].key = 12345;
	policy_env_apply(&g.env, &list);
	for (uint32_t id = HD_RULE_FIRST; id < limits.rules; id++)
		assert_memory_equal(&f.env.rules[id], &g.env.rules[id], sizeof(f.env.rules[id]));
	assert_int_equal(compiler_rule_limit(g.env.compiler), 1001);
	close_fixture(&g);
	object_list_clear(&list);
	close_fixture(&f);
}

static void test_rule_names(void **unused)
{
	struct fixture f;
	struct rule_reference rule;

	(void)unused;
	open_fixture(&f);
	apply(&f, HOST POLICY("p") "  ingress:\n  - {action: allow, name: twice}\n  - {action: deny, name: twice}\n  - {action: "
				   "deny}\n  - {action: deny}\n");
	assert_int_equal(compiler_rule(f.env.compiler, HD_RULE_FIRST + 1, &rule), 0);
	assert_string_equal(rule.policy, "p");
	assert_string_equal(rule.name, "twice");
	assert_string_equal(rule.file, "test.yaml");
	assert_int_equal(rule.index, 1);
	assert_int_equal(rule.verdict, HD_DENY);
	assert_true(rule.line > 1);
	assert_int_equal(compiler_rule(f.env.compiler, HD_RULE_ARP, &rule), 0);
	assert_true(rule.builtin);
	assert_string_equal(rule.policy, "builtin");
	assert_string_equal(rule.name, "arp");
	assert_int_equal(compiler_rule(f.env.compiler, HD_RULE_FIRST - 1, &rule), -ENOENT);
	assert_int_equal(compiler_rule(f.env.compiler, HD_RULE_FIRST + 4, &rule), -ENOENT);
	close_fixture(&f);
}

/* --- sizes --- */

static struct object_list many(unsigned policies, unsigned rules, const char *extra)
{
	struct object_list list = {0};
	size_t size = 4096 + rules * 128ul;
	char *text = malloc(size);

	assert_non_null(text);
	policy_documents(&list, HOST);
	for (unsigned p = 0; p < policies; p++) {
		size_t n = (size_t)snprintf(text, size, HEAD "HostPolicy\nmetadata: {name: p%u}\nspec:\n  ingress:\n", p);

		for (unsigned i = 0; i < rules; i++)
			n += (size_t)snprintf(text + n, size - n,
				"  - {action: allow, from: [{cidr: 10.%u.%u.%u/32}], ports: [{port: %u}]}\n", p, i / 100,
				i % 100 * 2, 1 + i);
		policy_documents(&list, text);
	}
	if (extra)
		policy_documents(&list, extra);
	free(text);
	return list;
}

static void test_needed(void **unused)
{
	struct compiler_limits small = {64, 64, 64, 64, 256, 2}, needed = {0};
	struct object_list list = many(1, 2000, NULL);
	struct policy_input input = {.host = policy_env_host(&list), .objects = &list};
	struct compiler *compiler;
	struct policy_delta *delta;
	struct diag diag = {0};

	(void)unused;
	assert_int_equal(compiler_new(&small, 1, &compiler), 0);
	assert_int_equal(compiler_compile(compiler, &input, &delta, &needed, &diag), -ENOSPC);
	assert_int_equal(needed.rule_nodes, 64);
	assert_in_range(needed.classes, 2001, 4096);
	assert_in_range(needed.rules, HD_RULE_FIRST + 2001, 4096);
	assert_in_range(needed.addr4_nodes, 250, 1024);
	/* Nothing stays of the attempt. */
	list.n = 1;
	assert_int_equal(compiler_compile(compiler, &input, &delta, &needed, &diag), 0);
	list.n = 2;
	compiler_free(compiler);
	assert_int_equal(compiler_new(&needed, 1, &compiler), 0);
	assert_int_equal(compiler_compile(compiler, &input, &delta, &needed, &diag), 0);
	assert_int_equal(delta->n_rules, 2000);
	assert_null(diag.text);
	compiler_free(compiler);
	object_list_clear(&list);
}

/* 4,000 rules for everyone in IPv4 times 2,000 addresses of others: refused before it fills the memory, the old policy stays. */
static void test_too_big(void **unused)
{
	struct object_list list = many(1, 2000, NULL);
	size_t size = 4000 * 80 + 1000, n;
	char *text = malloc(size);
	struct fixture f;

	(void)unused;
	assert_non_null(text);
	open_fixture(&f);
	policy_env_apply(&f.env, &list);
	for (int d = HD_EGRESS; d >= HD_INGRESS; d--) {
		n = (size_t)snprintf(text, size, POLICY("wide") "  %s:\n", d == HD_INGRESS ? "ingress" : "egress");
		for (unsigned i = 0; i < 4000; i++)
			n += (size_t)snprintf(text + n, size - n,
				"  - {action: deny, %s: [{cidr: 0.0.0.0/0}], ports: [{port: %u}]}\n",
				d == HD_INGRESS ? "from" : "to", 2 + i * 2);
		policy_documents(&list, text);
		if (d == HD_INGRESS)
			break; /* each class has a tree of its own */
		/* In the other direction the classes share one tree. */
		policy_env_apply(&f.env, &list);
		object_unref(list.items[--list.n]);
	}
	assert_int_equal(policy_env_compile(&f.env, &list, false), -E2BIG);
	assert_non_null(strstr(f.env.diag.text, "rule nodes"));
	object_unref(list.items[--list.n]);
	policy_env_apply(&f.env, &list);
	free(text);
	object_list_clear(&list);
	close_fixture(&f);
}

static size_t writes(const struct policy_delta *delta)
{
	return delta->n_addr4_nodes + delta->n_addr6_nodes + delta->n_classes + delta->n_rule_nodes + delta->n_rules;
}

static void test_small_change(void **unused)
{
	struct object_list list = many(5, 2000, NULL), other = many(3, 1999, NULL);
	struct object *kept = list.items[3];
	struct fixture f;

	(void)unused;
	open_fixture(&f);
	policy_env_apply(&f.env, &list);
	/* The same again: nothing to write. */
	assert_int_equal(policy_env_compile(&f.env, &list, false), 0);
	assert_int_equal(writes(f.env.delta), 0);
	assert_int_equal(f.env.delta->n_uplinks, 2);
	policy_env_write(&f.env);
	policy_env_publish(&f.env);
	policy_env_settle(&f.env);
	assert_int_equal(version(&f, "eth0", HD_INGRESS), 1);
	/* One rule of 10,000 goes: the way down to its interval. */
	list.items[3] = other.items[3];
	assert_int_equal(policy_env_compile(&f.env, &list, false), 0);
	assert_in_range(writes(f.env.delta), 1, 10);
	policy_env_write(&f.env);
	policy_env_publish(&f.env);
	policy_env_settle(&f.env);
	list.items[3] = kept;
	object_list_clear(&list);
	object_list_clear(&other);
	close_fixture(&f);
}

static void test_big_group(void **unused)
{
	size_t size = 100000 * 24 + 1000, n;
	char *text = malloc(size);
	struct object_list list = {0};
	struct fixture f;

	(void)unused;
	assert_non_null(text);
	open_fixture(&f);
	policy_documents(&list, HOST POLICY("block") "  ingress:\n  - {action: deny, from: [{addressGroup: bad}]}\n");
	for (unsigned round = 0; round < 2; round++) {
		n = (size_t)snprintf(text, size, HEAD "AddressGroup\nmetadata: {name: bad}\nspec:\n  cidrs:\n");
		for (unsigned i = 0; i < 100000 - round; i++)
			n += (size_t)snprintf(text + n, size - n, "  - 20.%u.%u.%u/32\n", i >> 15, i >> 7 & 255, i * 2 & 255);
		policy_documents(&list, text);
		assert_int_equal(policy_env_compile(&f.env, &list, false), 0);
		assert_int_equal(f.env.delta->n_classes, round ? 0 : 1); /* one class for all of them */
		if (round)
			assert_in_range(writes(f.env.delta), 1, 10);
		policy_env_write(&f.env);
		policy_env_publish(&f.env);
		policy_env_settle(&f.env);
		object_unref(list.items[--list.n]);
	}
	assert_int_equal(version(&f, "eth0", HD_INGRESS), 2);
	free(text);
	object_list_clear(&list);
	close_fixture(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_default),
		cmocka_unit_test(test_builtins),
		cmocka_unit_test(test_lockdown),
		cmocka_unit_test(test_families),
		cmocka_unit_test(test_protocols),
		cmocka_unit_test(test_source_ports),
		cmocka_unit_test(test_except),
		cmocka_unit_test(test_uplinks),
		cmocka_unit_test(test_versions),
		cmocka_unit_test(test_priority_moves),
		cmocka_unit_test(test_renumber),
		cmocka_unit_test(test_rule_ids),
		cmocka_unit_test(test_rule_names),
		cmocka_unit_test(test_needed),
		cmocka_unit_test(test_too_big),
		cmocka_unit_test(test_small_change),
		cmocka_unit_test(test_big_group),
	};

	return cmocka_run_group_tests_name("policy", tests, NULL, NULL);
}
