/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What compiling costs: full, and after one rule of one policy changed; and what the compiler keeps. One line a size.
 * compile_bench [RULES...]; each rule has a prefix and a port of its own, 1,000 rules a policy.
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

int main(int argc, char **argv)
{
	static const unsigned sizes[] = {10, 1000, 10000, 100000};

	if (argc > 1)
		for (int i = 1; i < argc; i++)
			bench((unsigned)strtoul(argv[i], NULL, 0));
	else
		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
			bench(sizes[i]);
	return 0;
}
