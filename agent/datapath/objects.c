/* SPDX-License-Identifier: Apache-2.0 */
/* The BPF objects, embedded through their skeletons, and what libbpf has to say about them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

#include <datapath/internal.h>

#include "ageing.skel.h"
#include "offload.skel.h"
#include "slots.skel.h"
#include "tc_port.skel.h"
#include "tc_uplink.skel.h"
#include "xdp_generic.skel.h"
#include "xdp_port.skel.h"
#include "xdp_switch.skel.h"
#include "xdp_uplink.skel.h"

/*
 * The verifier's log runs to thousands of lines; the one that names the cause stands last, ahead of the statistics
 * ("processed N insns"). The rest goes to the debug level.
 */
static void log_verifier(const char *text)
{
	const char *end = strstr(text, "\nprocessed "), *begin;

	if (!end)
		end = text + strlen(text);
	while (end > text && end[-1] == '\n')
		end--;
	for (begin = end; begin > text && begin[-1] != '\n'; begin--)
		;
	(void)log_err(0, "the kernel's verifier refuses a program: %.*s", (int)(end - begin), begin);
}

static int libbpf_message(enum libbpf_print_level level, const char *format, va_list args)
{
	_cleanup_free_ char *text = NULL;
	size_t length;

	if (level == LIBBPF_DEBUG && log_level() < LOG_DEBUG)
		return 0;
	if (vasprintf(&text, format, args) < 0) {
		text = NULL;
		return 0;
	}
	if (level != LIBBPF_DEBUG && strstr(text, "BEGIN PROG LOAD LOG"))
		log_verifier(text);
	for (length = strlen(text); length && text[length - 1] == '\n'; length--)
		text[length - 1] = '\0';
	log_debug("libbpf: %s", text);
	return 0;
}

void object_log_init(void)
{
	libbpf_set_print(libbpf_message);
}

/* Offset of a variable in .rodata, by the object's BTF. */
static int rodata_offset(const struct bpf_object *object, const char *name)
{
	const struct btf *btf = bpf_object__btf(object);
	int id = btf ? btf__find_by_name_kind(btf, ".rodata", BTF_KIND_DATASEC) : -ENOENT;
	const struct btf_type *section;

	if (id < 0)
		return -ENOENT;
	section = btf__type_by_id(btf, (unsigned)id);
	for (unsigned i = 0; i < btf_vlen(section); i++) {
		const struct btf_var_secinfo *var = &btf_var_secinfos(section)[i];
		const struct btf_type *type = btf__type_by_id(btf, var->type);

		if (strcmp(btf__name_by_offset(btf, type->name_off), name) == 0)
			return (int)var->offset;
	}
	return -ENOENT;
}

int object_set_constant(struct bpf_object *object, const char *name, const void *value, size_t value_size)
{
	int offset = rodata_offset(object, name);
	struct bpf_map *map;

	if (offset < 0)
		return offset;
	bpf_object__for_each_map (map, object) {
		const char *map_name = bpf_map__name(map);
		size_t size = 0, length = strlen(map_name);
		_cleanup_free_ uint8_t *data = NULL;
		const void *initial;

		if (length < 7 || strcmp(map_name + length - 7, ".rodata") != 0)
			continue;
		initial = bpf_map__initial_value(map, &size);
		if (!initial || (size_t)offset + value_size > size)
			return -ENOENT;
		data = malloc(size);
		if (!data)
			return -ENOMEM;
		memcpy(data, initial, size);
		memcpy(data + offset, value, value_size);
		return bpf_map__set_initial_value(map, data, size);
	}
	return -ENOENT;
}

static const void *object_bytes(enum object_id id, size_t *ret_size)
{
	switch (id) {
	case OBJECT_XDP:
		return xdp_uplink_bpf__elf_bytes(ret_size);
	case OBJECT_XDP_GENERIC:
		return xdp_generic_bpf__elf_bytes(ret_size);
	case OBJECT_XDP_PORT:
		return xdp_port_bpf__elf_bytes(ret_size);
	case OBJECT_XDP_SWITCH:
		return xdp_switch_bpf__elf_bytes(ret_size);
	case OBJECT_TC:
		return tc_uplink_bpf__elf_bytes(ret_size);
	case OBJECT_TC_PORT:
		return tc_port_bpf__elf_bytes(ret_size);
	case OBJECT_AGEING:
		return ageing_bpf__elf_bytes(ret_size);
	case OBJECT_SLOTS:
		return slots_bpf__elf_bytes(ret_size);
	case OBJECT_OFFLOAD:
		return offload_bpf__elf_bytes(ret_size);
	case OBJECT_COUNT:
		break;
	}
	return NULL;
}

int object_open(enum object_id id, struct bpf_object **ret)
{
	static const char *const name[OBJECT_COUNT] = {
		"xdp_uplink", "xdp_generic", "xdp_port", "xdp_switch", "tc_uplink", "tc_port", "ageing", "slots", "offload"};
	LIBBPF_OPTS(bpf_object_open_opts, opts, .object_name = id < OBJECT_COUNT ? name[id] : "");
	struct bpf_object *object;
	size_t size = 0;
	const void *bytes = object_bytes(id, &size);

	if (!bytes)
		return -EINVAL;
	object = bpf_object__open_mem(bytes, size, &opts);
	if (!object)
		return log_err(-errno, "cannot open the BPF object %s", name[id]);
	*ret = object;
	return 0;
}

void objects_forget(void)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);

	for (int id = 0; id < OBJECT_COUNT; id++) {
		size_t size = 0;
		uintptr_t begin = (uintptr_t)object_bytes((enum object_id)id, &size), end = (begin + size) & ~(page - 1);

		begin = (begin + page - 1) & ~(page - 1);
		if (begin < end)
			(void)madvise((void *)begin, end - begin, MADV_DONTNEED);
	}
}

int object_load(struct bpf_object *object, const char *what)
{
	int r = bpf_object__load(object);

	return r < 0 ? log_err(r, "cannot load the %s", what) : 0;
}

int program_run_once(int fd, int type, uint32_t *ret_value)
{
	unsigned char frame[64] = {0};
	LIBBPF_OPTS(bpf_test_run_opts, opts);
	int r;

	if (type != BPF_PROG_TYPE_SYSCALL) {
		opts.data_in = frame;
		opts.data_size_in = sizeof(frame);
		opts.repeat = 1;
	}
	r = bpf_prog_test_run_opts(fd, &opts);
	if (r < 0)
		return r;
	*ret_value = opts.retval;
	return 0;
}
