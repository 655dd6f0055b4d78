/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel has of what heddle uses, or could. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <linux/bpf.h>
#include <unistd.h>

#include <util/cleanup.h>

#include <tools/doctor/doctor.h>
#include <tools/doctor/probe.h>

/* Newer than the headers. */
#define MAP_TYPE_ARENA 33
#define PROG_TYPE_NETFILTER 32
#define ATTACH_NETFILTER 45

static void say(
	struct doctor *doctor, enum severity severity, const char *name, const char *path, const char *change, const char *value)
{
	doctor_say(doctor,
		&(struct finding){.severity = severity, .area = "kernel", .name = name, .path = path, .change = change}, "%s",
		value);
}

/* r: what the probe said. */
static void say_probed(struct doctor *doctor, int r, enum severity without, const char *name, const char *yes_path,
	const char *no_path, const char *change)
{
	if (r == -EPERM)
		say(doctor, DOCTOR_UNKNOWN, name, NULL, NULL, "not asked: needs root");
	else if (r == 0)
		say(doctor, DOCTOR_OK, name, yes_path, NULL, "yes");
	else
		say(doctor, without, name, no_path, change, "no");
}

/* --- helpers --- */

static const struct {
	const char *name;
	uint32_t type;
	int32_t helper;
	const char *without; /* NULL: heddle needs it */
} helpers[] = {
	{"bpf_redirect_peer", BPF_PROG_TYPE_SCHED_CLS, BPF_FUNC_redirect_peer,
		"ports are delivered to by redirect, through the backlog"},
	{"bpf_redirect_neigh", BPF_PROG_TYPE_SCHED_CLS, BPF_FUNC_redirect_neigh,
		"not used: next hops come from the agent's tables"},
	{"bpf_fib_lookup", BPF_PROG_TYPE_SCHED_CLS, BPF_FUNC_fib_lookup, NULL},
	{"bpf_skb_adjust_room", BPF_PROG_TYPE_SCHED_CLS, BPF_FUNC_skb_adjust_room, NULL},
	{"bpf_skb_change_head", BPF_PROG_TYPE_SCHED_CLS, BPF_FUNC_skb_change_head, NULL},
	{"bpf_timer_init", BPF_PROG_TYPE_SCHED_CLS, BPF_FUNC_timer_init, NULL},
	{"bpf_loop", BPF_PROG_TYPE_SCHED_CLS, BPF_FUNC_loop, NULL},
	{"bpf_ktime_get_coarse_ns", BPF_PROG_TYPE_SCHED_CLS, BPF_FUNC_ktime_get_coarse_ns, NULL},
	{"bpf_xdp_load_bytes", BPF_PROG_TYPE_XDP, BPF_FUNC_xdp_load_bytes, NULL},
	{"bpf_xdp_adjust_meta", BPF_PROG_TYPE_XDP, BPF_FUNC_xdp_adjust_meta, NULL},
	{"bpf_skb_set_tstamp", BPF_PROG_TYPE_SCHED_CLS, BPF_FUNC_skb_set_tstamp,
		"no departure times: rates by token buckets alone"},
};

static void probe_helpers(struct doctor *doctor)
{
	json_t *details = json_object();
	char missing[512] = "", needed[512] = "";
	const char *without = NULL;
	bool asked = true;

	for (size_t i = 0; i < ARRAY_SIZE(helpers); i++) {
		int r = probe_helper(helpers[i].type, helpers[i].helper);
		char *list = helpers[i].without ? missing : needed;
		size_t length = strlen(list);

		asked &= r != -EPERM;
		json_object_set_new(details, helpers[i].name, r == -EPERM ? json_null() : json_boolean(r == 0));
		if (r == 0 || r == -EPERM)
			continue;
		snprintf(list + length, 512 - length, "%s%s", length ? ", " : "", helpers[i].name);
		without = without ?: helpers[i].without;
	}
	doctor_say(doctor,
		&(struct finding){.severity = !asked	 ? DOCTOR_UNKNOWN
					      : *needed	 ? DOCTOR_WARNING
					      : *missing ? DOCTOR_NOTE
							 : DOCTOR_OK,
			.area = "kernel",
			.name = "helpers",
			.path = *needed ? "programs do not load" : without,
			.change = *needed ? "a kernel of 6.1 or later" : NULL,
			.details = details},
		!asked		      ? "not asked: needs root"
		: *needed || *missing ? "missing: %s%s%s"
				      : "all that are used",
		needed, *needed && *missing ? ", " : "", missing);
}

/* --- maps --- */

static const struct {
	const char *name;
	uint32_t type, key, value, entries, flags;
	bool needed;
} maps[] = {
	{"hash", BPF_MAP_TYPE_HASH, 4, 4, 1, BPF_F_NO_PREALLOC, true},
	{"array", BPF_MAP_TYPE_ARRAY, 4, 4, 1, 0, true},
	{"percpu_array", BPF_MAP_TYPE_PERCPU_ARRAY, 4, 8, 1, 0, true},
	{"lru_hash", BPF_MAP_TYPE_LRU_HASH, 4, 4, 1, 0, true},
	{"lpm_trie", BPF_MAP_TYPE_LPM_TRIE, 8, 4, 1, BPF_F_NO_PREALLOC, true},
	{"prog_array", BPF_MAP_TYPE_PROG_ARRAY, 4, 4, 1, 0, true},
	{"queue", BPF_MAP_TYPE_QUEUE, 0, 4, 1, 0, true},
	{"ringbuf", BPF_MAP_TYPE_RINGBUF, 0, 0, 0 /* a page */, 0, true},
	{"devmap_hash", BPF_MAP_TYPE_DEVMAP_HASH, 4, 4, 1, 0, false},
	{"cpumap", BPF_MAP_TYPE_CPUMAP, 4, 4, 1, 0, false},
	{"xskmap", BPF_MAP_TYPE_XSKMAP, 4, 4, 1, 0, false},
	{"bloom_filter", BPF_MAP_TYPE_BLOOM_FILTER, 0, 4, 1, 0, false},
	{"user_ringbuf", BPF_MAP_TYPE_USER_RINGBUF, 0, 0, 0, 0, false},
	{"arena", MAP_TYPE_ARENA, 0, 0, 1, BPF_F_MMAPABLE, false},
};

static void probe_maps(struct doctor *doctor)
{
	json_t *details = json_object();
	char missing[512] = "", needed[512] = "";
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(maps) + 1; i++) {
		bool is_nested = i == ARRAY_SIZE(maps);
		const char *name = is_nested ? "hash_of_maps" : maps[i].name;
		char *list = !is_nested && maps[i].needed ? needed : missing;
		size_t length = strlen(list);
		uint32_t entries = is_nested ? 0 : maps[i].entries ?: (uint32_t)sysconf(_SC_PAGESIZE);

		r = is_nested ? probe_map_in_map(BPF_MAP_TYPE_HASH_OF_MAPS)
			      : probe_map(maps[i].type, maps[i].key, maps[i].value, entries, maps[i].flags);
		if (r == -EPERM)
			break;
		json_object_set_new(details, name, json_boolean(r == 0));
		if (r < 0)
			snprintf(list + length, 512 - length, "%s%s", length ? ", " : "", name);
	}
	doctor_say(doctor,
		&(struct finding){.severity = r == -EPERM ? DOCTOR_UNKNOWN
					      : *needed	  ? DOCTOR_WARNING
							  : DOCTOR_OK,
			.area = "kernel",
			.name = "map types",
			.path = *needed ? "programs do not load" : NULL,
			.change = *needed ? "a kernel of 6.1 or later with CONFIG_BPF_SYSCALL=y" : NULL,
			.details = details},
		r == -EPERM	      ? "not asked: needs root"
		: *needed || *missing ? "missing: %s%s%s"
				      : "all that were tried",
		needed, *needed && *missing ? ", " : "", missing);
}

/* --- programs --- */

static void probe_programs(struct doctor *doctor)
{
	int xdp = probe_program(BPF_PROG_TYPE_XDP, 0), tc, tcx, socket;

	if (xdp == -EPERM) {
		doctor->bpf_refused = true;
		doctor_unread(doctor, xdp,
			"programs, maps, helpers and kfuncs of the kernel (bpf(2); CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON)");
	}
	say_probed(doctor, xdp, DOCTOR_WARNING, "xdp", "uplinks are judged in XDP where their driver takes it (see each device)",
		"TC alone judges", "CONFIG_BPF_SYSCALL=y, CONFIG_NET=y");
	tc = probe_program(BPF_PROG_TYPE_SCHED_CLS, 0);
	say_probed(doctor, tc, DOCTOR_WARNING, "tc programs", "tc_port and tc_uplink load",
		"nothing can be attached: heddle cannot work here", "CONFIG_NET_CLS_ACT=y, CONFIG_BPF_SYSCALL=y");
	tcx = probe_tcx();
	doctor->tcx = tcx == 0;
	say_probed(doctor, tcx, DOCTOR_NOTE, "tcx",
		"uplinks by TCX links; ports by clsact, TCX only where others are ahead on the hook",
		"uplinks and ports by clsact filters of a fixed handle",
		"a kernel of 6.6 or later, for links that nobody can replace by accident");
	say_probed(doctor, probe_program(PROG_TYPE_NETFILTER, ATTACH_NETFILTER), DOCTOR_OK, "netfilter programs", "not used",
		"not used", NULL);
	if (!doctor->bpf_refused) {
		probe_helpers(doctor);
		probe_maps(doctor);
	}
	socket = probe_af_xdp();
	if (socket == -EPERM)
		doctor_unread(doctor, socket, "AF_XDP sockets (CAP_NET_RAW)");
	say_probed(doctor, socket, DOCTOR_NOTE, "af_xdp", "sockets can be opened; the mode depends on the device (see each)",
		"no fast path to user space; all else works", "CONFIG_XDP_SOCKETS=y");
}

/* --- what is built in or a module --- */

static const struct {
	const char *name, *option, *module;
	const char *with, *without, *change;
} parts[] = {
	{"fq", "CONFIG_NET_SCH_FQ", "sch_fq", "departure times set on packets are kept where fq is the device's qdisc",
		"no pacing by departure time: rates by token buckets", "CONFIG_NET_SCH_FQ, net.core.default_qdisc=fq"},
	{"clsact", "CONFIG_NET_SCH_INGRESS", "sch_ingress", "ports attach by clsact",
		"ports attach by TCX alone, each a wait of some 25 ms", "CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_BPF"},
	{"cls_bpf", "CONFIG_NET_CLS_BPF", "cls_bpf", "ports attach by clsact",
		"ports attach by TCX alone, each a wait of some 25 ms", "CONFIG_NET_CLS_BPF"},
	{"flower", "CONFIG_NET_CLS_FLOWER", "cls_flower", "a NIC in switchdev mode can be given flows",
		"flows cannot be given to a NIC", "CONFIG_NET_CLS_FLOWER, if a NIC shall carry flows"},
	{"vfio-pci", "CONFIG_VFIO_PCI", "vfio_pci", "VFs can be given to virtual machines",
		"VFs cannot be given to virtual machines", "CONFIG_VFIO_PCI"},
	{"vxlan", "CONFIG_VXLAN", "vxlan", "not used: the programs encapsulate", "not needed: the programs encapsulate", NULL},
	{"geneve", "CONFIG_GENEVE", "geneve", "not used: the programs encapsulate", "not needed: the programs encapsulate", NULL},
	{"tun", "CONFIG_TUN", "tun", "TAP devices can be ports; fragments of tunnel packets are put together by the kernel",
		"no TAP ports, and fragmented tunnel packets are lost", "CONFIG_TUN"},
};

static void look_for_parts(struct doctor *doctor)
{
	static const char *const words[] = {[ABSENT] = "no",
		[MODULE] = "module",
		[BUILT_IN] = "built in",
		[PRESENCE_UNKNOWN] = "not told: no configuration of the kernel found"};

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		enum presence presence = doctor_presence(doctor, parts[i].option, parts[i].module);
		bool has = presence == MODULE || presence == BUILT_IN;

		say(doctor,
			presence == PRESENCE_UNKNOWN ? DOCTOR_UNKNOWN
			: !has && parts[i].change    ? DOCTOR_NOTE
						     : DOCTOR_OK,
			parts[i].name,
			has		     ? parts[i].with
			: presence == ABSENT ? parts[i].without
					     : NULL,
			presence == ABSENT ? parts[i].change : NULL, words[presence]);
	}
}

static void look_at_mounts(struct doctor *doctor)
{
	_cleanup_free_ char *mounts = doctor_text(doctor, "proc/self/mounts");

	if (!mounts)
		mounts = doctor_text(doctor, "proc/mounts");
	if (!mounts)
		return;
	if (strstr(mounts, " bpf "))
		say(doctor, DOCTOR_OK, "bpffs", "maps and links are pinned there, and outlive the agent", NULL, "mounted");
	else
		say(doctor, DOCTOR_OK, "bpffs", "heddled mounts one at its --bpffs", NULL, "not mounted");
}

void doctor_kernel(struct doctor *doctor)
{
	_cleanup_free_ char *lockdown = doctor_text(doctor, "sys/kernel/security/lockdown");
	unsigned major = 0, minor = 0;
	bool old;

	old = sscanf(doctor->kernel, "%u.%u", &major, &minor) == 2 && (major < 6 || (major == 6 && minor < 1));
	say(doctor,
		!*doctor->kernel ? DOCTOR_UNKNOWN
		: old		 ? DOCTOR_WARNING
				 : DOCTOR_OK,
		"release", old ? "programs may not load" : NULL, old ? "6.1 or later" : NULL,
		*doctor->kernel ? doctor->kernel : "not told");
	if (doctor->live)
		probe_programs(doctor);
	else
		say(doctor, DOCTOR_UNKNOWN, "probes", NULL, NULL, "not asked: another machine's tree");
	doctor_kfuncs(doctor);
	look_for_parts(doctor);
	look_at_mounts(doctor);
	if (lockdown && strstr(lockdown, "[confidentiality]"))
		say(doctor, DOCTOR_WARNING, "lockdown", "programs cannot read the kernel's memory; bpf(2) is restricted",
			"lockdown=integrity", "confidentiality");
	else if (lockdown)
		say(doctor, DOCTOR_OK, "lockdown", NULL, NULL, strstr(lockdown, "[integrity]") ? "integrity" : "none");
}
