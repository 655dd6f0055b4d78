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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const names[] = {"bpf_a", "bpf_rcu_read_lock"};
	char *copy;
	uint32_t ids[2], ifindex;
	uint64_t features;

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
		parse_btf_functions(copy, size - 1, names, ids, 2);
		break;
	default:
		nic_parse_eswitch(copy, size - 1);
		nic_parse_family(copy, size - 1);
		nic_parse_xdp(copy, size - 1, &ifindex, &features);
	}
	free(copy);
	return 0;
}
