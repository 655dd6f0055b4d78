/* SPDX-License-Identifier: Apache-2.0 */
/* CPUs and their instructions; memory: pages and nodes. */
#include <stdlib.h>
#include <string.h>

#include <util/cleanup.h>

#include <tools/doctor/doctor.h>
#include <tools/doctor/parse.h>

static void say(struct doctor *doctor, const char *area, enum severity severity, const char *name, const char *path,
	const char *change, json_t *details, const char *value)
{
	doctor_say(doctor,
		&(struct finding){
			.severity = severity, .area = area, .name = name, .path = path, .change = change, .details = details},
		"%s", value);
}

/* x86 and Arm call the same thing differently. */
static const struct {
	const char *name, *group, *flags[4];
} instructions[] = {
	{"aes", "AES", {"aes"}},
	{"vaes", "AES", {"vaes", "sveaes"}},
	{"clmul", "AES", {"pclmulqdq", "pmull"}},
	{"crc32", "CRC32", {"sse4_2", "crc32"}},
	{"sse4.2", "SIMD", {"sse4_2"}},
	{"avx2", "SIMD", {"avx2"}},
	{"avx512", "SIMD", {"avx512f"}},
	{"neon", "SIMD", {"asimd", "neon"}},
	{"sve", "SIMD", {"sve"}},
};
static const struct {
	const char *group, *path;
} groups[] = {
	{"AES", "encryption of the underlay (IPsec, WireGuard with AES, TLS) would be done in software"},
	{"CRC32", "checksums of SCTP, and hashes of user space, are done by tables"},
	{"SIMD", "copies and checksums go by words"},
};

static void say_instructions(struct doctor *doctor, const char *cpuinfo)
{
	for (size_t g = 0; g < ARRAY_SIZE(groups); g++) {
		json_t *details = json_object();
		char text[128] = "";

		for (size_t i = 0; i < ARRAY_SIZE(instructions); i++) {
			size_t length = strlen(text);
			bool has = false;

			if (strcmp(instructions[i].group, groups[g].group) != 0)
				continue;
			for (size_t f = 0; f < ARRAY_SIZE(instructions[i].flags) && instructions[i].flags[f]; f++)
				has |= parse_cpu_flag(cpuinfo, instructions[i].flags[f]);
			json_object_set_new(details, instructions[i].name, json_boolean(has));
			if (has)
				snprintf(text + length, sizeof(text) - length, "%s%s", length ? ", " : "", instructions[i].name);
		}
		say(doctor, "cpu", *text ? DOCTOR_OK : DOCTOR_NOTE, groups[g].group, *text ? NULL : groups[g].path,
			*text ? NULL : "a CPU model that has it (virtual machines: pass the host's through)", details,
			*text ? text : "none");
	}
}

static void say_frequency(struct doctor *doctor)
{
	_cleanup_free_ char *governor = doctor_text(doctor, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");

	if (!governor)
		return;
	if (strcmp(governor, "powersave") == 0 && !doctor_exists(doctor, "sys/devices/system/cpu/intel_pstate") &&
		!doctor_exists(doctor, "sys/devices/system/cpu/amd_pstate"))
		say(doctor, "cpu", DOCTOR_NOTE, "frequency", "packets are judged at the lowest frequency",
			"cpupower frequency-set -g performance", NULL, governor);
	else
		say(doctor, "cpu", DOCTOR_OK, "frequency", NULL, NULL, NULL, governor);
}

/* What the kernel does at each return and indirect call is what a helper call of a program costs. */
static void say_mitigations(struct doctor *doctor)
{
	static const char *const names[] = {"retbleed", "spec_rstack_overflow", "spectre_v2"};
	json_t *details = json_object();
	bool has_any = false, guarded = false;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		_cleanup_free_ char *text = doctor_text(doctor, "sys/devices/system/cpu/vulnerabilities/%s", names[i]);

		json_object_set_new(details, names[i], text ? json_string(text) : json_null());
		has_any |= text != NULL;
		guarded |= text && i < 2 && strncmp(text, "Mitigation", 10) == 0;
	}
	if (!has_any) {
		json_decref(details);
		return;
	}
	say(doctor, "cpu", DOCTOR_OK, "guarded returns",
		guarded ? "a call of a helper costs some 20 ns; programs read time and arrays without one" : NULL, NULL, details,
		guarded ? "yes" : "no");
}

void doctor_cpu(struct doctor *doctor)
{
	_cleanup_free_ char *cpuinfo = doctor_text(doctor, "proc/cpuinfo"),
			    *isolated = doctor_text(doctor, "sys/devices/system/cpu/isolated");
	bool is_guest = cpuinfo && parse_cpu_flag(cpuinfo, "hypervisor");
	char model[128] = "", text[256];

	if (!cpuinfo) {
		say(doctor, "cpu", DOCTOR_UNKNOWN, "model", NULL, NULL, NULL, "not told");
		return;
	}
	parse_field(cpuinfo, "model name", model, sizeof(model));
	if (!*model)
		parse_field(cpuinfo, "CPU part", model, sizeof(model));
	snprintf(text, sizeof(text), "%s, %u CPU%s%s", *model ? model : "model not told", doctor->cpus,
		doctor->cpus == 1 ? "" : "s", is_guest ? ", in a virtual machine" : "");
	say(doctor, "cpu", DOCTOR_OK, "model", "per-CPU counters, scratch and rates: one of each a CPU", NULL,
		json_pack("{s:i, s:b}", "cpus", (int)doctor->cpus, "virtual", is_guest), text);
	say_instructions(doctor, cpuinfo);
	say_frequency(doctor);
	say_mitigations(doctor);
	if (isolated && *isolated)
		say(doctor, "cpu", DOCTOR_OK, "isolated",
			"the scheduler leaves them alone: for pinned workers; interrupts of NICs still go where they are set",
			NULL, NULL, isolated);
}

/* --- memory --- */

static void say_huge_pages(struct doctor *doctor)
{
	char **sizes = doctor_names(doctor, "sys/kernel/mm/hugepages");
	char text[160] = "";
	long long total = 0;
	json_t *details = json_object();

	for (char **size = sizes; size && *size; size++) {
		size_t length = strlen(text);
		long long n = 0, free = 0;

		if (!doctor_number(doctor, &n, "sys/kernel/mm/hugepages/%s/nr_hugepages", *size))
			continue;
		(void)doctor_number(doctor, &free, "sys/kernel/mm/hugepages/%s/free_hugepages", *size);
		total += n;
		json_object_set_new(details, *size, json_pack("{s:I, s:I}", "total", (json_int_t)n, "free", (json_int_t)free));
		if (n)
			snprintf(text + length, sizeof(text) - length, "%s%lld (%lld free) of %s", length ? ", " : "", n, free,
				strncmp(*size, "hugepages-", 10) == 0 ? *size + 10 : *size);
	}
	if (!sizes)
		say(doctor, "memory", DOCTOR_OK, "huge pages", NULL, NULL, details, "the kernel has none");
	else
		say(doctor, "memory", DOCTOR_OK, "huge pages", total ? NULL : "buffers of AF_XDP sockets are of small pages",
			total ? NULL : "vm.nr_hugepages, if sockets shall have huge ones", details,
			total ? text : "none reserved");
	doctor_names_free(sizes);
}

static void say_nodes(struct doctor *doctor)
{
	char **names = doctor_names(doctor, "sys/devices/system/node"), text[32];
	unsigned n = 0;
	json_t *details = json_object();

	for (char **name = names; name && *name; name++) {
		_cleanup_free_ char *cpus = NULL;

		if (strncmp(*name, "node", 4) != 0 || !strchr("0123456789", (*name)[4]) || !(*name)[4])
			continue;
		n++;
		cpus = doctor_text(doctor, "sys/devices/system/node/%s/cpulist", *name);
		json_object_set_new(details, *name, cpus ? json_string(cpus) : json_null());
	}
	doctor_names_free(names);
	snprintf(text, sizeof(text), "%u node%s", n ?: 1, n > 1 ? "s" : "");
	say(doctor, "memory", DOCTOR_OK, "numa", n > 1 ? "a NIC's interrupts and AF_XDP workers belong on its own node" : NULL,
		NULL, details, text);
}

void doctor_memory(struct doctor *doctor)
{
	_cleanup_free_ char *meminfo = doctor_text(doctor, "proc/meminfo");
	char total[64] = "";

	if (meminfo)
		parse_field(meminfo, "MemTotal", total, sizeof(total));
	say(doctor, "memory", *total ? DOCTOR_OK : DOCTOR_UNKNOWN, "total", NULL, NULL, NULL, *total ? total : "not told");
	say_huge_pages(doctor);
	say_nodes(doctor);
}
