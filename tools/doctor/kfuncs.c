/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Functions of the kernel that programs may call: those of the kernel itself and those of its modules, each of which has BTF of its own. By name
 * in BTF, then by trying. heddle calls none of them, and says why.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <linux/bpf.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <util/cleanup.h>
#include <util/file.h>

#include <tools/doctor/doctor.h>
#include <tools/doctor/parse.h>
#include <tools/doctor/probe.h>

#define BTF_MAX (64u << 20)

static const struct module {
	const char *name, *option;
} modules[] = {
	{"nf_conntrack", "CONFIG_NF_CONNTRACK"},
	{"nf_nat", "CONFIG_NF_NAT"},
	{"nf_flow_table", "CONFIG_NF_FLOW_TABLE"},
	{"xfrm_interface", "CONFIG_XFRM_INTERFACE"},
	{"fou", "CONFIG_NET_FOU"},
};

enum group { CORE, CONNTRACK, FLOWTABLE, XFRM, FOU, METADATA, GROUPS };
static const struct {
	const char *name, *path;
} groups[GROUPS] = {
	[CORE] = {"kfuncs", "none is needed: programs keep to helpers, so that they load from 6.1 on"},
	[CONNTRACK] = {"conntrack kfuncs", "not used: flows are heddle's own, proven and bounded, and the same on every kernel"},
	[FLOWTABLE] = {"flowtable kfuncs", "not used: what it forwards meets no policy"},
	[XFRM] = {"xfrm kfuncs", "not used: IPsec is the kernel's, in front of the programs or behind them"},
	[FOU] = {"fou kfuncs", "not used: the programs encapsulate"},
	[METADATA] = {"xdp metadata kfuncs",
		"not used: a program that calls them belongs to one device and attaches to no other"},
};

#define ANYWHERE (-1)
#define TC BPF_PROG_TYPE_SCHED_CLS
#define XDP BPF_PROG_TYPE_XDP
/* module: where it is if it is not in the kernel itself; -1: it is always there. */
static const struct function {
	const char *name;
	enum group group;
	uint32_t type;
	int module;
} functions[] = {
	{"bpf_dynptr_from_skb", CORE, TC, ANYWHERE},
	{"bpf_dynptr_from_xdp", CORE, XDP, ANYWHERE},
	{"bpf_iter_num_new", CORE, TC, ANYWHERE},
	{"bpf_rcu_read_lock", CORE, TC, ANYWHERE},
	{"bpf_crypto_decrypt", CORE, TC, ANYWHERE},
	{"bpf_skb_ct_lookup", CONNTRACK, TC, 0},
	{"bpf_skb_ct_alloc", CONNTRACK, TC, 0},
	{"bpf_xdp_ct_lookup", CONNTRACK, XDP, 0},
	{"bpf_ct_set_nat_info", CONNTRACK, TC, 1},
	{"bpf_xdp_flow_lookup", FLOWTABLE, XDP, 2},
	{"bpf_xdp_get_xfrm_state", XFRM, XDP, ANYWHERE},
	{"bpf_skb_get_xfrm_info", XFRM, TC, 3},
	{"bpf_skb_set_xfrm_info", XFRM, TC, 3},
	{"bpf_skb_set_fou_encap", FOU, TC, 4},
	{"bpf_xdp_metadata_rx_timestamp", METADATA, XDP, ANYWHERE},
	{"bpf_xdp_metadata_rx_hash", METADATA, XDP, ANYWHERE},
	{"bpf_xdp_metadata_rx_vlan_tag", METADATA, XDP, ANYWHERE},
};

/* What is known of each function: where, and under which number there. */
struct found {
	uint32_t id; /* 0: nowhere */
	int module;  /* ANYWHERE: the kernel itself */
	bool there;
};

/* --- BTF --- */

static uint8_t *map_btf(struct doctor *doctor, size_t *ret_length, bool *ret_mapped)
{
	_cleanup_close_ int fd = openat(doctor->root_fd, "sys/kernel/btf/vmlinux", O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat status;
	char *text = NULL;
	void *map;

	*ret_mapped = true;
	if (fd < 0 || fstat(fd, &status) < 0 || status.st_size <= 0 || status.st_size > (off_t)BTF_MAX)
		return NULL;
	*ret_length = (size_t)status.st_size;
	/* Later kernels let it be mapped (6.16), others have it copied. */
	map = mmap(NULL, *ret_length, PROT_READ, MAP_PRIVATE, fd, 0);
	if (map != MAP_FAILED)
		return map;
	*ret_mapped = false;
	return file_read(doctor->root_fd, "sys/kernel/btf/vmlinux", BTF_MAX, &text, ret_length, NULL) < 0 ? NULL
													  : (uint8_t *)text;
}

/* In the BTF at hand, for those that are not found yet and may be there. */
static bool look(
	const void *btf, size_t length, const struct parse_btf *base, int module, struct found *found, struct parse_btf *ret)
{
	const char *names[ARRAY_SIZE(functions)];
	size_t which[ARRAY_SIZE(functions)], n = 0;
	uint32_t ids[ARRAY_SIZE(functions)];
	bool whole;

	for (size_t i = 0; i < ARRAY_SIZE(functions); i++)
		if (!found[i].id && (module == ANYWHERE || functions[i].module == module)) {
			which[n] = i;
			names[n++] = functions[i].name;
		}
	whole = parse_btf_functions(btf, length, base, names, ids, n, ret);
	for (size_t i = 0; i < n; i++)
		if (ids[i])
			found[which[i]] = (struct found){.id = ids[i], .module = module};
	return whole;
}

static void look_into_modules(struct doctor *doctor, const struct parse_btf *base, struct found *found)
{
	for (size_t i = 0; i < ARRAY_SIZE(modules); i++) {
		_cleanup_free_ char *btf = NULL;
		size_t length = 0;
		char path[64];

		snprintf(path, sizeof(path), "sys/kernel/btf/%s", modules[i].name);
		if (file_read(doctor->root_fd, path, BTF_MAX, &btf, &length, NULL) == 0)
			(void)look(btf, length, base, (int)i, found, NULL);
	}
}

/* What is in BTF may be refused all the same. */
static void try_them(struct doctor *doctor, struct found *found)
{
	const char *names[ARRAY_SIZE(modules)];
	int fds[ARRAY_SIZE(modules)];
	bool ask = doctor->live && !doctor->bpf_refused;

	for (size_t i = 0; i < ARRAY_SIZE(modules); i++) {
		fds[i] = -1;
		names[i] = NULL;
	}
	for (size_t i = 0; i < ARRAY_SIZE(functions); i++)
		if (found[i].id && found[i].module >= 0)
			names[found[i].module] = modules[found[i].module].name;
	if (ask)
		probe_open_btf(names, fds, ARRAY_SIZE(modules));
	for (size_t i = 0; i < ARRAY_SIZE(functions); i++) {
		int module = found[i].module;

		found[i].there = found[i].id;
		if (ask && found[i].id)
			found[i].there = (module < 0 || fds[module] >= 0) &&
					 probe_kfunc(functions[i].type, found[i].id, module < 0 ? -1 : fds[module]) == 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(modules); i++)
		safe_close(fds[i]);
}

/* --- what is said of it --- */

/* Why the functions of a module are not there; "": nothing more is known. */
static void say_why(struct doctor *doctor, const struct module *module, char *ret, size_t size)
{
	enum presence presence = doctor_presence(doctor, module->option, module->name);

	if (presence == ABSENT)
		snprintf(ret, size, "no module %s", module->name);
	else if (presence == MODULE && !doctor_exists(doctor, "sys/module/%s", module->name))
		snprintf(ret, size, "module %s is not loaded", module->name);
	else if (presence == MODULE && !doctor_exists(doctor, "sys/kernel/btf/%s", module->name))
		snprintf(ret, size, "module %s has no BTF", module->name);
	else
		*ret = '\0';
}

static void append(char *text, size_t size, const char *word)
{
	size_t length = strlen(text);

	if (*word && !strstr(text, word))
		snprintf(text + length, size - length, "%s%s", length ? ", " : "", word);
}

static void say_group(struct doctor *doctor, enum group group, const struct found *found)
{
	json_t *details = json_object();
	char where[128] = "", why[256] = "", text[512];
	unsigned n = 0, there = 0;

	for (size_t i = 0; i < ARRAY_SIZE(functions); i++) {
		char reason[64] = "";

		if (functions[i].group != group)
			continue;
		n++;
		there += found[i].there;
		json_object_set_new(details, functions[i].name, json_boolean(found[i].there));
		if (found[i].there && found[i].module >= 0)
			append(where, sizeof(where), modules[found[i].module].name);
		else if (!found[i].there && found[i].id)
			append(why, sizeof(why), "in BTF, but programs may not call it");
		else if (!found[i].there && functions[i].module >= 0)
			say_why(doctor, &modules[functions[i].module], reason, sizeof(reason));
		append(why, sizeof(why), reason);
	}
	snprintf(
		text, sizeof(text), "%u of %u looked for%s%s%s%s", there, n, *where ? ", in " : "", where, *why ? "; " : "", why);
	doctor_say(doctor,
		&(struct finding){.severity = DOCTOR_OK,
			.area = "kernel",
			.name = groups[group].name,
			.path = groups[group].path,
			.details = details},
		"%s", text);
}

void doctor_kfuncs(struct doctor *doctor)
{
	struct found found[ARRAY_SIZE(functions)] = {0};
	struct parse_btf base;
	size_t length = 0;
	bool mapped;
	uint8_t *btf = map_btf(doctor, &length, &mapped);

	if (!btf) {
		doctor_say(doctor,
			&(struct finding){.severity = DOCTOR_NOTE,
				.area = "kernel",
				.name = "btf",
				.path = "programs load all the same; map dumps of programs lack the kernel's types",
				.change = "CONFIG_DEBUG_INFO_BTF=y"},
			"no");
		return;
	}
	doctor_say(
		doctor, &(struct finding){.severity = DOCTOR_OK, .area = "kernel", .name = "btf"}, "yes, %zu KiB", length >> 10);
	for (size_t i = 0; i < ARRAY_SIZE(functions); i++)
		found[i].module = ANYWHERE;
	if (look(btf, length, NULL, ANYWHERE, found, &base))
		look_into_modules(doctor, &base, found);
	try_them(doctor, found);
	for (enum group group = 0; group < GROUPS; group++)
		say_group(doctor, group, found);
	if (mapped)
		munmap(btf, length);
	else
		free(btf);
}
