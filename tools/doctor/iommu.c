/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a VF that is given away can reach more than it was given: DMA remapping, interrupt remapping, and who is in one group with whom. */
#include <stdlib.h>
#include <string.h>

#include <util/buffer.h>
#include <util/cleanup.h>

#include <tools/doctor/doctor.h>
#include <tools/doctor/parse.h>

/* Bit 3 of the extended capabilities: interrupt remapping (VT-d specification, 11.4.3). */
#define ECAP_IR (1ull << 3)
#define LISTED 6

enum iommu_kind { IOMMU_NONE, IOMMU_INTEL, IOMMU_AMD, IOMMU_SMMU, IOMMU_VIRTIO, IOMMU_OTHER };
static const struct {
	const char *name, *table, *prefix, *turn_on;
} kinds[] = {
	[IOMMU_NONE] = {"none", NULL, NULL, NULL},
	[IOMMU_INTEL] = {"Intel VT-d", "DMAR", "dmar", "intel_iommu=on on the kernel's command line; VT-d in the firmware"},
	[IOMMU_AMD] = {"AMD-Vi", "IVRS", "ivhd",
		"no amd_iommu=off and no iommu=off on the kernel's command line; IOMMU in the firmware"},
	[IOMMU_SMMU] = {"Arm SMMU", "IORT", "smmu", "CONFIG_ARM_SMMU_V3, no arm-smmu-v3 entry disabled in the firmware"},
	[IOMMU_VIRTIO] = {"virtio-iommu", "VIOT", "virtio", "CONFIG_VIRTIO_IOMMU"},
	[IOMMU_OTHER] = {"other", NULL, NULL, NULL},
};

static void say(struct doctor *doctor, enum severity severity, const char *name, const char *path, const char *change,
	json_t *details, const char *value)
{
	doctor_say(doctor,
		&(struct finding){
			.severity = severity, .area = "iommu", .name = name, .path = path, .change = change, .details = details},
		"%s", value);
}

static enum iommu_kind kind_of(const char *unit)
{
	for (enum iommu_kind kind = IOMMU_INTEL; kind < IOMMU_OTHER; kind++)
		if (strncmp(unit, kinds[kind].prefix, strlen(kinds[kind].prefix)) == 0)
			return kind;
	return IOMMU_OTHER;
}

static enum iommu_kind find_kind(struct doctor *doctor)
{
	char **units = doctor_names(doctor, "sys/class/iommu");
	enum iommu_kind kind = units ? kind_of(units[0]) : IOMMU_NONE;

	for (char **unit = units; unit && *unit; unit++)
		doctor->n_iommus++;
	doctor_names_free(units);
	return kind;
}

/* --- remapping --- */

static void say_dma(struct doctor *doctor, enum iommu_kind kind, const char *cmdline, unsigned n_vfs)
{
	_cleanup_free_ char *cpuinfo = doctor_text(doctor, "proc/cpuinfo");
	char text[160];

	if (kind != IOMMU_NONE) {
		snprintf(text, sizeof(text), "%s, %u unit%s: on", kinds[kind].name, doctor->n_iommus,
			doctor->n_iommus == 1 ? "" : "s");
		say(doctor, DOCTOR_OK, "dma remapping", "a VF reaches the memory of whom it was given to", NULL,
			json_pack("{s:s, s:i, s:b}", "kind", kinds[kind].name, "units", (int)doctor->n_iommus, "on", 1), text);
		return;
	}
	/* Without a driver's word: what the firmware describes. */
	for (enum iommu_kind k = IOMMU_INTEL; k < IOMMU_OTHER && kind == IOMMU_NONE; k++)
		if (doctor_exists(doctor, "sys/firmware/acpi/tables/%s", kinds[k].table))
			kind = k;
	json_t *details = json_pack("{s:s, s:i, s:b}", "kind", kinds[kind].name, "units", 0, "on", 0);

	if (kind != IOMMU_NONE) {
		snprintf(text, sizeof(text), "%s: there, but off%s", kinds[kind].name,
			cmdline && strstr(cmdline, "iommu=off") ? " (kernel's command line)" : "");
		say(doctor, DOCTOR_WARNING, "dma remapping",
			"whoever has a VF reaches all memory: VFs are not given to virtual machines (vfio refuses)",
			kinds[kind].turn_on, details, text);
	} else if (cpuinfo && parse_cpu_flag(cpuinfo, "hypervisor")) {
		say(doctor, n_vfs ? DOCTOR_WARNING : DOCTOR_OK, "dma remapping",
			n_vfs ? "whoever has a VF reaches all of this machine's memory"
			      : "nothing to isolate: veths and TAPs are ports",
			n_vfs ? "give the virtual machine an IOMMU (QEMU: -device intel-iommu or virtio-iommu-pci)" : NULL,
			details, "none: a virtual machine");
	} else {
		say(doctor, n_vfs ? DOCTOR_WARNING : DOCTOR_NOTE, "dma remapping", "VFs cannot be given away safely",
			"turn the IOMMU on in the firmware", details, "none found");
	}
}

static void say_interrupts(struct doctor *doctor, enum iommu_kind kind, const char *cmdline)
{
	static const char *const harm =
		"whoever has a VF can make interrupts that were not his (vfio refuses, unless told to allow it)";
	_cleanup_free_ char *unsafe = doctor_text(doctor, "sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts");
	char value[64];
	long long ecap = 0;
	bool on;

	if (kind == IOMMU_NONE || kind == IOMMU_OTHER || kind == IOMMU_VIRTIO)
		return;
	if (!doctor->interrupts) {
		say(doctor, DOCTOR_UNKNOWN, "interrupt remapping", NULL, NULL, NULL, "not told: /proc/interrupts cannot be read");
		return;
	}
	/* x86: the chips' names say it. Arm: the ITS translates each device's interrupts by itself. */
	on = parse_interrupt_chip(doctor->interrupts, kind == IOMMU_SMMU ? "ITS-" : "IR-");
	json_t *details = json_pack("{s:b}", "on", on);

	if (on)
		say(doctor, DOCTOR_OK, "interrupt remapping", NULL, NULL, details,
			kind == IOMMU_SMMU ? "on, by the GIC's ITS" : "on");
	else if (kind == IOMMU_SMMU)
		say(doctor, DOCTOR_WARNING, "interrupt remapping", harm, "a GIC with an ITS", details, "off: no ITS");
	else if (cmdline && (strstr(cmdline, "intremap=off") || parse_argument(cmdline, "nointremap", value, sizeof(value))))
		say(doctor, DOCTOR_WARNING, "interrupt remapping", harm, "take intremap=off off the kernel's command line",
			details, "off, by the kernel's command line");
	else if (kind == IOMMU_INTEL && doctor_number(doctor, &ecap, "sys/class/iommu/dmar0/intel-iommu/ecap") &&
		 !(ecap & (long long)ECAP_IR))
		say(doctor, DOCTOR_WARNING, "interrupt remapping", harm, NULL, details, "off: this VT-d has none");
	else
		say(doctor, DOCTOR_WARNING, "interrupt remapping", harm, "x2APIC and interrupt remapping in the firmware",
			details, "off");
	if (unsafe && (*unsafe == 'Y' || *unsafe == '1'))
		say(doctor, DOCTOR_WARNING, "vfio unsafe interrupts", "vfio gives VFs away without interrupt remapping",
			"vfio_iommu_type1 allow_unsafe_interrupts=0", NULL, "allowed");
}

static void say_command_line(struct doctor *doctor, enum iommu_kind kind, const char *cmdline)
{
	char value[64];

	if (!cmdline)
		return;
	if (parse_argument(cmdline, "pcie_acs_override", value, sizeof(value)))
		say(doctor, DOCTOR_WARNING, "acs override",
			"groups look smaller than the hardware isolates: devices of different groups can reach each other",
			"take pcie_acs_override off the kernel's command line", NULL, "pcie_acs_override is set");
	if (kind != IOMMU_NONE && ((parse_argument(cmdline, "iommu", value, sizeof(value)) && strstr(value, "pt")) ||
					  (parse_argument(cmdline, "iommu.passthrough", value, sizeof(value)) && *value == '1')))
		say(doctor, DOCTOR_OK, "passthrough",
			"the host's own NICs are not confined, and pay nothing; what is given away is", NULL, NULL,
			"the host's devices pass the IOMMU by");
}

/* --- groups --- */

static bool is_vf(struct doctor *doctor, const char *address)
{
	return doctor_exists(doctor, "sys/bus/pci/devices/%s/physfn", address);
}

/* "0000:01:00.2, 0000:01:00.3 and 5 more" */
static void list_some(const json_t *addresses, struct buffer *text)
{
	const json_t *address;
	size_t i;

	json_array_foreach (addresses, i, address) {
		if (i == LISTED) {
			buffer_printf(text, " and %zu more", json_array_size(addresses) - LISTED);
			return;
		}
		buffer_printf(text, "%s%s", i ? ", " : "", json_string_value(address));
	}
}

static void say_group(struct doctor *doctor, const char *group)
{
	char **devices = doctor_names(doctor, "sys/kernel/iommu_groups/%s/devices", group);
	_cleanup_buffer_ struct buffer text = {0};
	json_t *vfs = json_array(), *others = json_array();
	unsigned n_vfs;
	char subject[64];

	for (char **device = devices; device && *device; device++)
		json_array_append_new(is_vf(doctor, *device) ? vfs : others, json_string(*device));
	doctor_names_free(devices);
	n_vfs = (unsigned)json_array_size(vfs);
	if (n_vfs && n_vfs + json_array_size(others) > 1) {
		buffer_printf(&text, "VF%s ", n_vfs == 1 ? "" : "s");
		list_some(vfs, &text);
		if (json_array_size(others)) {
			buffer_add_string(&text, n_vfs == 1 ? " shares it with " : " share it with each other and with ");
			list_some(others, &text);
		} else {
			buffer_add_string(&text, " share it with each other");
		}
		snprintf(subject, sizeof(subject), "group %s", group);
		doctor_say(doctor,
			&(struct finding){.severity = DOCTOR_WARNING,
				.area = "iommu",
				.subject = subject,
				.name = "not isolated",
				.path = "they can reach each other past the IOMMU and past policy; vfio gives them away together "
					"only",
				.change = "a slot behind a port with ACS; ACS in the firmware",
				.details = json_pack("{s:s, s:O, s:O}", "group", group, "vfs", vfs, "others", others)},
			"%s", text.data ?: "");
		doctor->failed |= text.failed;
	}
	json_decref(vfs);
	json_decref(others);
}

static unsigned count_vfs(struct doctor *doctor, json_t *without_group)
{
	char **devices = doctor_names(doctor, "sys/bus/pci/devices");
	unsigned n = 0;

	for (char **device = devices; device && *device; device++) {
		if (!is_vf(doctor, *device))
			continue;
		n++;
		if (!doctor_exists(doctor, "sys/bus/pci/devices/%s/iommu_group", *device))
			json_array_append_new(without_group, json_string(*device));
	}
	doctor_names_free(devices);
	return n;
}

void doctor_iommu(struct doctor *doctor)
{
	_cleanup_free_ char *cmdline = doctor_text(doctor, "proc/cmdline");
	enum iommu_kind kind = find_kind(doctor);
	json_t *without_group = json_array();
	unsigned n_vfs = count_vfs(doctor, without_group), n_groups = 0;
	char **groups = doctor_names(doctor, "sys/kernel/iommu_groups"), text[96];

	say_dma(doctor, kind, cmdline, n_vfs);
	say_interrupts(doctor, kind, cmdline);
	say_command_line(doctor, kind, cmdline);
	for (char **group = groups; group && *group; group++, n_groups++)
		say_group(doctor, *group);
	doctor_names_free(groups);
	if (kind != IOMMU_NONE || n_groups) {
		snprintf(text, sizeof(text), "%u; %u VF%s", n_groups, n_vfs, n_vfs == 1 ? "" : "s");
		say(doctor, DOCTOR_OK, "groups", NULL, NULL, json_pack("{s:i, s:i}", "groups", (int)n_groups, "vfs", (int)n_vfs),
			text);
	}
	if (kind != IOMMU_NONE && json_array_size(without_group)) {
		_cleanup_buffer_ struct buffer list = {0};

		list_some(without_group, &list);
		say(doctor, DOCTOR_WARNING, "not confined", "these VFs are behind no IOMMU: whoever has one reaches all memory",
			"a slot that the firmware's IOMMU tables cover", json_pack("{s:O}", "vfs", without_group),
			list.data ?: "");
	}
	json_decref(without_group);
}
