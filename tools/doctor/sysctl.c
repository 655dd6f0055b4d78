/* SPDX-License-Identifier: Apache-2.0 */
/* Settings that decide what packets cost, or whether they arrive. */
#include <stdlib.h>
#include <string.h>

#include <util/cleanup.h>

#include <tools/doctor/doctor.h>

enum compare { IS, IS_NOT, BELOW, WORD };
static const struct {
	const char *name;
	enum compare compare; /* the value is a finding when this holds */
	const char *wanted;   /* what it is compared with */
	enum severity severity;
	const char *path, *change;
} settings[] = {
	{"net/core/bpf_jit_enable", IS, "0", DOCTOR_WARNING, "programs are interpreted: several times as much CPU a packet",
		"net.core.bpf_jit_enable=1"},
	{"net/core/bpf_jit_enable", IS, "2", DOCTOR_WARNING, "the kernel prints each program that it compiles",
		"net.core.bpf_jit_enable=1"},
	{"net/core/bpf_jit_harden", IS, "2", DOCTOR_NOTE,
		"constants of programs are blinded for root too: more instructions a packet", "net.core.bpf_jit_harden=1"},
	{"kernel/unprivileged_bpf_disabled", IS, "0", DOCTOR_WARNING,
		"any user may load programs: speculation can read the kernel's memory", "kernel.unprivileged_bpf_disabled=2"},
	{"kernel/bpf_stats_enabled", IS, "1", DOCTOR_NOTE, "each run of a program is timed: some 20 ns a packet",
		"kernel.bpf_stats_enabled=0"},
	{"net/core/default_qdisc", WORD, "fq", DOCTOR_NOTE, "departure times set on packets are ignored: rates by token buckets",
		"net.core.default_qdisc=fq, where pacing is wanted"},
	{"net/core/netdev_max_backlog", BELOW, "1000", DOCTOR_NOTE, "bursts to ports by way of the backlog are lost",
		"net.core.netdev_max_backlog=1000"},
	{"net/core/netdev_budget", BELOW, "300", DOCTOR_NOTE, "a NIC's queue is left early under load",
		"net.core.netdev_budget=300"},
	{"net/core/optmem_max", BELOW, "20480", DOCTOR_NOTE, "XDP sockets and filters may be refused for want of memory",
		"net.core.optmem_max=131072"},
	{"net/ipv4/ip_forward", IS, "0", DOCTOR_OK, "ports reach the host and each other; the host routes nothing for them",
		NULL},
	{"net/ipv4/conf/all/rp_filter", IS, "1", DOCTOR_NOTE,
		"answers that come in by another uplink than they would leave by are dropped by the kernel",
		"net.ipv4.conf.all.rp_filter=2, with several uplinks"},
	{"net/ipv4/conf/default/rp_filter", IS, "1", DOCTOR_NOTE,
		"as above, on devices to come: a port's packets to the host may be dropped", "net.ipv4.conf.default.rp_filter=2"},
	{"net/ipv6/conf/all/disable_ipv6", IS, "1", DOCTOR_NOTE, "no IPv6 to or from the host",
		"net.ipv6.conf.all.disable_ipv6=0, where it is wanted"},
	{"net/core/rmem_max", BELOW, "212992", DOCTOR_NOTE, "bursts of interface changes are listed anew more often",
		"net.core.rmem_max=212992"},
};

static bool is_finding(size_t i, const char *value)
{
	switch (settings[i].compare) {
	case IS:
		return strcmp(value, settings[i].wanted) == 0;
	case IS_NOT:
	case WORD:
		return strcmp(value, settings[i].wanted) != 0;
	case BELOW:
		return strtoll(value, NULL, 10) < strtoll(settings[i].wanted, NULL, 10);
	}
	return false;
}

static void dotted(char *name)
{
	for (; *name; name++)
		if (*name == '/')
			*name = '.';
}

void doctor_sysctl(struct doctor *doctor)
{
	for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
		_cleanup_free_ char *value = doctor_text(doctor, "proc/sys/%s", settings[i].name);
		bool finding = value && is_finding(i, value);
		char name[64];

		/* A second line of one setting is told only where it holds. */
		if (!value || (!finding && i && strcmp(settings[i].name, settings[i - 1].name) == 0))
			continue;
		if (!finding && i + 1 < ARRAY_SIZE(settings) && strcmp(settings[i].name, settings[i + 1].name) == 0 &&
			is_finding(i + 1, value))
			continue;
		snprintf(name, sizeof(name), "%s", settings[i].name);
		dotted(name);
		doctor_say(doctor,
			&(struct finding){.severity = finding ? settings[i].severity : DOCTOR_OK,
				.area = "sysctl",
				.name = name,
				.path = finding ? settings[i].path : NULL,
				.change = finding ? settings[i].change : NULL},
			"%s", value);
	}
}
