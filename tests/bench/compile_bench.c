/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What compiling costs: full, and after one rule of one policy changed; and what the compiler keeps. One line a size.
 * compile_bench [RULES...]; each rule has a prefix and a port of its own, 1,000 rules a policy.
 * compile_bench ports [PORTS POLICIES IDENTITIES SHARE WIDE]...: ports under NetworkPolicies, after one label changed and after a port came. Each
 * policy selects one port of SHARE (0: those of one identity), and allows from and to some others.
 * compile_bench peers [PORTS POLICIES IDENTITIES PEERS REMOTE]...: the same with so many Peers, which have REMOTE addresses between them.
 */
#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <policy/compile.h>

#define RULES_A_POLICY 1000u

static double now_ms(void)
{
	struct timespec time;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
	return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

static long rss_kib(void)
{
	FILE *file = fopen("/proc/self/statm", "r");
	long size = 0, resident = 0;

	if (!file)
		return 0;
	if (fscanf(file, "%ld %ld", &size, &resident) != 2)
		resident = 0;
	fclose(file);
	return resident * 4;
}

static void die(const char *what, int r, const struct diag *diag)
{
	fprintf(stderr, "compile_bench: %s: %s %s\n", what, strerror(-r), diag && diag->text ? diag->text : "");
	exit(1);
}

/* The n-th policy; changed: one of its rules has another port. */
static void add_policy(struct object_list *list, unsigned index, unsigned rules, bool changed)
{
	size_t size = 256 + rules * 160ul, n = 0;
	char *text = malloc(size);
	struct diag diag = {0};
	int r;

	if (!text)
		die("memory", -12, NULL);
	n += (size_t)snprintf(text, size,
		"apiVersion: heddle.dev/v1alpha1\nkind: HostPolicy\nmetadata: {name: p%05u}\nspec:\n  priority: 100\n  default: "
		"{ingress: deny}\n"
		"  ingress:\n",
		index);
	for (unsigned i = 0; i < rules; i++) {
		/* Spread over the address space, never next to each other, in no order. */
		uint32_t number = (index * RULES_A_POLICY + i) * 2654435761u;

		n += (size_t)snprintf(text + n, size - n,
			"  - {action: allow, from: [{cidr: %u.%u.%u.0/24}], ports: [{protocol: TCP, port: %u}]}\n",
			1 + (number >> 24) % 223, number >> 16 & 255, number >> 8 & 255,
			1 + (index * 31 + i * 7) % 60000 + (changed && i == rules / 2));
	}
	r = decode_documents("bench.yaml", text, n, list, &diag);
	if (r < 0)
		die("decode", r, &diag);
	free(text);
}

static struct policy_delta *compile(struct compiler **compiler, const struct policy_input *input)
{
	struct compiler_limits needed;
	struct policy_delta *delta = NULL;
	struct diag diag = {0};
	int r = compiler_compile(*compiler, input, &delta, &needed, &diag);

	while (r == -ENOSPC) {
		compiler_free(*compiler);
		r = compiler_new(&needed, 1, compiler);
		if (r == 0)
			r = compiler_compile(*compiler, input, &delta, &needed, &diag);
	}
	if (r < 0)
		die("compile", r, &diag);
	return delta;
}

static void bench(unsigned rules)
{
	static const struct compiler_limits limits = {1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20};
	static const char host_text[] =
		"apiVersion: heddle.dev/v1alpha1\nkind: Host\nmetadata: {name: h}\nspec: {uplinks: [{device: eth0}], "
		"failsafe: [{protocol: TCP, port: 22}]}\n";
	unsigned policies = (rules + RULES_A_POLICY - 1) / RULES_A_POLICY;
	struct object_list list = {0};
	struct diag diag = {0};
	struct policy_input input = {.objects = &list};
	struct compiler *compiler = NULL;
	struct policy_delta *delta;
	double started, full, best = 1e9, total = 0;
	long model, settled;
	size_t nodes, rule_nodes, classes, changed_nodes = 0;

	if (decode_documents("host.yaml", host_text, sizeof(host_text) - 1, &list, &diag) < 0)
		die("decode", -EINVAL, &diag);
	input.host = &list.items[0]->host;
	for (unsigned i = 0; i < policies; i++)
		add_policy(&list, i, i + 1 < policies ? RULES_A_POLICY : rules - (policies - 1) * RULES_A_POLICY, false);
	malloc_trim(0);
	model = rss_kib();
	if (compiler_new(&limits, 1, &compiler) < 0)
		die("compiler", -ENOMEM, NULL);
	started = now_ms();
	delta = compile(&compiler, &input);
	full = now_ms() - started;
	nodes = delta->n_addr4_nodes;
	rule_nodes = delta->n_rule_nodes;
	classes = delta->n_classes;
	compiler_commit(compiler);
	compiler_settle(compiler);
	malloc_trim(0);
	settled = rss_kib();
	for (unsigned i = 0; i < 10; i++) {
		unsigned which = policies * i / 10;
		struct object_list one = {0};
		double took;

		add_policy(&one, which, which + 1 < policies ? RULES_A_POLICY : rules - (policies - 1) * RULES_A_POLICY,
			policies > 10 || i % 2 == 0);
		object_unref(list.items[1 + which]);
		list.items[1 + which] = object_ref(one.items[0]);
		object_list_clear(&one);
		started = now_ms();
		delta = compile(&compiler, &input);
		took = now_ms() - started;
		best = took < best ? took : best;
		total += took;
		changed_nodes += delta->n_addr4_nodes + delta->n_rule_nodes;
		compiler_commit(compiler);
		compiler_settle(compiler);
	}
	malloc_trim(0);
	printf("%7u rules: full %8.2f ms, one rule %6.2f ms (best %6.2f); %zu + %zu nodes, %zu classes, %.1f nodes a change; RSS "
	       "%ld KiB "
	       "before, compiler keeps %ld KiB, %ld after changes\n",
		rules, full, total / 10, best, nodes, rule_nodes, classes, (double)changed_nodes / 10, model, settled - model,
		rss_kib() - model);
	compiler_free(compiler);
	object_list_clear(&list);
}

/* --- ports --- */

struct shape {
	unsigned ports, policies, identities, share;
	unsigned wide; /* every policy allows from everyone: each set has a row for each class */
	unsigned peers, remote;
};

static void decode(struct object_list *list, const char *text)
{
	struct diag diag = {0};
	int r = decode_documents("bench.yaml", text, strlen(text), list, &diag);

	if (r < 0)
		die("decode", r, &diag);
}

#define SPACES 10u

static void add_port(struct object_list *list, const struct shape *shape, unsigned i, unsigned identity)
{
	char text[1024];

	/* 8191 is a prime: identities and shares fall together in no pattern */
	snprintf(text, sizeof(text),
		"apiVersion: heddle.dev/v1alpha1\nkind: Port\nmetadata: {name: p%05u, namespace: ns%u, labels: {app: a%u, share: "
		"s%u}}\n"
		"spec:\n  device: d%u\n  network: pods\n  addresses: [10.%u.%u.%u, \"fd00::%x\"]\n  ports: [{name: http, "
		"protocol: TCP, port: 8080}]\n",
		i, identity % SPACES, identity, shape->share ? identity * 8191 % shape->share : 0, i, i >> 16, i >> 8 & 255,
		i & 255, i + 1);
	decode(list, text);
}

/* changed: the labels of its first port are those of another one. */
static void add_peer(struct object_list *list, const struct shape *shape, unsigned i, bool changed)
{
	unsigned n = shape->remote / shape->peers, at = 0;
	size_t size = 256 + n * 256ul;
	char *text = malloc(size);

	if (!text)
		die("memory", -ENOMEM, NULL);
	at = (unsigned)snprintf(text, size,
		"apiVersion: heddle.dev/v1alpha1\nkind: Peer\nmetadata: {name: h%05u}\nspec:\n  address: 198.18.%u.%u\n  "
		"ports:\n",
		i, i >> 8, i & 255);
	for (unsigned j = i * n; j < (i + 1) * n; j++) {
		unsigned identity = (j + (changed && j == i * n ? SPACES : 0)) % shape->identities;

		at += (unsigned)snprintf(text + at, size - at,
			"  - {name: r%u, namespace: ns%u, network: pods, labels: {app: a%u, share: s0}, addresses: "
			"[11.%u.%u.%u], ports: "
			"[{name: http, protocol: TCP, port: 8080}]}\n",
			j, identity % SPACES, identity, j >> 16, j >> 8 & 255, j & 255);
	}
	decode(list, text);
	free(text);
}

static void add_network_policy(struct object_list *list, const struct shape *shape, unsigned i)
{
	unsigned app = i % shape->identities;
	char text[2048], subject[64], peer[64], from[160];

	if (shape->share) {
		snprintf(subject, sizeof(subject), "share: s%u", i % shape->share);
		snprintf(peer, sizeof(peer), "share: s%u", (i * 7 + 1) % shape->share);
	} else {
		snprintf(subject, sizeof(subject), "app: a%u", app);
		snprintf(peer, sizeof(peer), "app: a%u", (app + 20) % shape->identities);
	}
	snprintf(from, sizeof(from), "{namespaceSelector: {matchLabels: {team: t%u}}, podSelector: {matchLabels: {%s}}}", i % 3,
		peer);
	if (shape->wide)
		snprintf(from, sizeof(from), "{namespaceSelector: {}}");
	snprintf(text, sizeof(text),
		"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: n%05u, namespace: ns%u}\nspec:\n  "
		"podSelector: "
		"{matchLabels: {%s}}\n  policyTypes: [Ingress, Egress]\n  ingress:\n"
		"  - {from: [{podSelector: {matchExpressions: [{key: app, operator: In, values: [a%u, a%u, a%u]}]}}], ports: "
		"[{port: %u}]}\n"
		"  - {from: [%s], ports: [{port: "
		"443}]}\n"
		"  - {from: [{ipBlock: {cidr: 192.168.%u.0/24}}], ports: [{port: 22}]}\n"
		"  egress:\n  - {to: [{podSelector: {matchLabels: {%s}}}], ports: [{port: http}]}\n  - {ports: [{port: 53, "
		"protocol: UDP}]}\n",
		i, app % SPACES, subject, (app + 10) % shape->identities, (app + 20) % shape->identities,
		(app + 50) % shape->identities, 1000 + i, from, i % 256, peer);
	decode(list, text);
}

struct change {
	double total, worst;
	size_t addr_nodes, rule_nodes, rows, ports;
};

static void change(struct compiler **compiler, const struct policy_input *input, struct change *to)
{
	double started = now_ms(), took;
	struct policy_delta *delta = compile(compiler, input);

	took = now_ms() - started;
	to->total += took;
	to->worst = took > to->worst ? took : to->worst;
	to->addr_nodes += delta->n_addr4_nodes + delta->n_addr6_nodes;
	to->rule_nodes += delta->n_rule_nodes;
	to->rows += delta->n_classes;
	for (size_t i = 0; i < delta->n_ports; i++)
		to->ports += delta->ports[i].changed;
	compiler_commit(*compiler);
	compiler_settle(*compiler);
}

static void print_change(const char *what, const struct change *change, double n)
{
	printf("  %s %.2f ms (worst %.2f): %.1f + %.1f nodes, %.1f classes, %.1f records of ports\n", what, change->total / n,
		change->worst, (double)change->addr_nodes / n, (double)change->rule_nodes / n, (double)change->rows / n,
		(double)change->ports / n);
}

static void bench_ports(const struct shape *shape)
{
	static const struct compiler_limits limits = {1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20};
	struct object_list list = {0};
	struct policy_input input = {.objects = &list};
	struct networks *networks = NULL;
	struct compiler *compiler = NULL;
	struct change label = {0}, port = {0}, policy = {0}, remote = {0};
	struct policy_delta *delta;
	double started, full;
	long model, settled;
	size_t nodes, rule_nodes, rows, first_port, first_peer;

	decode(&list, "apiVersion: heddle.dev/v1alpha1\nkind: Host\nmetadata: {name: h}\nspec: {uplinks: [{device: eth0}]}\n---\n"
		      "apiVersion: heddle.dev/v1alpha1\nkind: Network\nmetadata: {name: pods}\nspec: {}\n");
	input.host = &list.items[0]->host;
	if (networks_new(&networks) < 0 || networks_assign(networks, &list, NULL) < 0)
		die("networks", -ENOMEM, NULL);
	networks_commit(networks);
	input.networks = networks;
	for (unsigned i = 0; i < SPACES; i++) {
		char text[200];

		snprintf(text, sizeof(text), "apiVersion: v1\nkind: Namespace\nmetadata: {name: ns%u, labels: {team: t%u}}\n", i,
			i % 3);
		decode(&list, text);
	}
	first_port = list.n;
	for (unsigned i = 0; i < shape->ports; i++)
		add_port(&list, shape, i, i % shape->identities);
	first_peer = list.n;
	for (unsigned i = 0; i < shape->peers; i++)
		add_peer(&list, shape, i, false);
	for (unsigned i = 0; i < shape->policies; i++)
		add_network_policy(&list, shape, i);
	malloc_trim(0);
	model = rss_kib();
	if (compiler_new(&limits, 1, &compiler) < 0)
		die("compiler", -ENOMEM, NULL);
	started = now_ms();
	delta = compile(&compiler, &input);
	full = now_ms() - started;
	nodes = delta->n_addr4_nodes + delta->n_addr6_nodes;
	rule_nodes = delta->n_rule_nodes;
	rows = delta->n_classes;
	compiler_commit(compiler);
	compiler_settle(compiler);
	malloc_trim(0);
	settled = rss_kib();
	for (unsigned i = 0; i < 20; i++) {
		unsigned which = shape->ports * i / 20;
		struct object_list one = {0};

		/* the labels of another one of its namespace */
		add_port(&one, shape, which, (which % shape->identities + SPACES * (1 + i % 3)) % shape->identities);
		object_unref(list.items[first_port + which]);
		list.items[first_port + which] = object_ref(one.items[0]);
		object_list_clear(&one);
		change(&compiler, &input, &label);
	}
	for (unsigned i = 0; i < 20 && shape->peers; i++) {
		unsigned which = shape->peers * i / 20;
		struct object_list one = {0};

		add_peer(&one, shape, which, true);
		object_unref(list.items[first_peer + which]);
		list.items[first_peer + which] = object_ref(one.items[0]);
		object_list_clear(&one);
		change(&compiler, &input, &remote);
	}
	for (unsigned i = 0; i < 10; i++) {
		add_port(&list, shape, shape->ports + i, i * 37 % shape->identities);
		change(&compiler, &input, &port);
	}
	for (unsigned i = 0; i < 10; i++) {
		add_network_policy(&list, shape, shape->policies + i * 13);
		change(&compiler, &input, &policy);
	}
	malloc_trim(0);
	printf("%u ports, %u policies, %u identities, share %u%s: full %.2f ms; %zu + %zu nodes, %zu classes; RSS %ld KiB "
	       "before, "
	       "compiler "
	       "keeps %ld KiB, %ld after changes\n",
		shape->ports, shape->policies, shape->identities, shape->share, shape->wide ? ", wide" : "", full, nodes,
		rule_nodes, rows, model, settled - model, rss_kib() - model);
	if (shape->peers)
		printf("  with %u peers and %u addresses\n", shape->peers, shape->remote);
	print_change("label changed", &label, 20);
	if (shape->peers)
		print_change("label changed at a peer", &remote, 20);
	print_change("port added", &port, 10);
	print_change("policy added", &policy, 10);
	compiler_free(compiler);
	networks_free(networks);
	object_list_clear(&list);
}

static unsigned number(const char *text)
{
	return (unsigned)strtoul(text, NULL, 0);
}

int main(int argc, char **argv)
{
	static const unsigned sizes[] = {10, 1000, 10000, 100000};
	static const struct shape shapes[] = {{1000, 1000, 1000, 0, 0, 0, 0}, {1000, 1000, 1000, 100, 0, 0, 0},
		{1000, 1000, 1000, 10, 0, 0, 0}, {1000, 1000, 10, 0, 0, 0, 0}, {1000, 1000, 1000, 0, 1, 0, 0},
		{5000, 1000, 5000, 0, 0, 0, 0}};
	static const struct shape remote[] = {
		{.ports = 100, .policies = 100, .identities = 1000, .peers = 1000, .remote = 100000},
		{.ports = 100, .policies = 1000, .identities = 1000, .peers = 1000, .remote = 100000},
		{.ports = 100, .policies = 1000, .identities = 1000, .peers = 10, .remote = 1000},
		{.ports = 100, .policies = 100, .identities = 100000, .peers = 1000, .remote = 100000}};

	if (argc > 1 && strcmp(argv[1], "ports") == 0) {
		for (int i = 2; i + 4 < argc; i += 5)
			bench_ports(&(struct shape){number(argv[i]), number(argv[i + 1]), number(argv[i + 2]),
				number(argv[i + 3]), number(argv[i + 4]), 0, 0});
		for (size_t i = 0; argc == 2 && i < sizeof(shapes) / sizeof(shapes[0]); i++)
			bench_ports(&shapes[i]);
	} else if (argc > 1 && strcmp(argv[1], "peers") == 0) {
		for (int i = 2; i + 4 < argc; i += 5)
			bench_ports(&(struct shape){.ports = number(argv[i]),
				.policies = number(argv[i + 1]),
				.identities = number(argv[i + 2]),
				.peers = number(argv[i + 3]),
				.remote = number(argv[i + 4])});
		for (size_t i = 0; argc == 2 && i < sizeof(remote) / sizeof(remote[0]); i++)
			bench_ports(&remote[i]);
	} else if (argc > 1) {
		for (int i = 1; i < argc; i++)
			bench(number(argv[i]));
	} else {
		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
			bench(sizes[i]);
	}
	return 0;
}
