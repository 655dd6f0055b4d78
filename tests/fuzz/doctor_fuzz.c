/* SPDX-License-Identifier: Apache-2.0 */
/* What the doctor takes apart: texts of /proc and /sys, BTF, answers of the kernel. The first byte says which. */
#include <stdlib.h>
#include <string.h>

#include <tools/doctor/nic.h>
#include <tools/doctor/parse.h>
#include <util/port_name.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void count(unsigned n, void *userdata)
{
	if (n >= 4096)
		abort();
	++*(int *)userdata;
}

static void texts(const char *text)
{
	char value[16];
	int counted = 0, told = parse_list(text, 4096, count, &counted);

	if (told >= 0 && told != counted)
		abort();
	parse_cpu_flag(text, "aes");
	parse_field(text, "model name", value, sizeof(value));
	parse_interrupt_chip(text, "IR-");
	parse_argument(text, "iommu", value, sizeof(value));
	parse_option(text, "CONFIG_X");
	port_name_parse(text);
	parse_feature(text, "tso");
	if (parse_channels(text, true) < -1 || parse_channels(text, false) < -1)
		abort();
}

/* The kernel's, and behind it that of a module; a copy of its own, so that reading past one is seen. */
static void btf(const char *data, size_t size)
{
	static const char *const names[] = {"bpf_a", "bpf_rcu_read_lock"};
	size_t first;
	struct parse_btf base;
	uint32_t ids[2];
	char *kernel, *module;

	if (size < 2)
		return;
	first = 2 + ((uint8_t)data[0] | (size_t)(uint8_t)data[1] << 8) % (size - 1);
	kernel = malloc(first - 2 + 1);
	module = malloc(size - first + 1);
	memcpy(kernel, data + 2, first - 2);
	memcpy(module, data + first, size - first);
	if (parse_btf_functions(kernel, first - 2, NULL, names, ids, 2, &base))
		parse_btf_functions(module, size - first, &base, names, ids, 2, NULL);
	free(kernel);
	free(module);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *copy;

	if (!size)
		return 0;
	/* A copy: aligned, as a received message is, and with an end that the sanitizer sees. */
	copy = malloc(size);
	memcpy(copy, data + 1, size - 1);
	copy[size - 1] = '\0';
	switch (data[0] % 3) {
	case 0:
		texts(copy);
		break;
	case 1:
		btf(copy, size - 1);
		break;
	default:
		nic_parse_eswitch(copy, size - 1);
	}
	free(copy);
	return 0;
}
