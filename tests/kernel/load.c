// SPDX-License-Identifier: Apache-2.0
/*
 * load OBJECT...: loads every program of each BPF object with its maps as they are, and prints a line a program:
 *
 *     OBJECT/PROGRAM VERIFIED-INSTRUCTIONS XLATED-BYTES JITED-BYTES
 *
 * An object with a dry_run knob is loaded a second time with it set (OBJECT/PROGRAM/dry): the twins that explain runs are other programs
 * to the verifier. What does not load is named with the end of the verifier's log, and the status is 1 then.
 */
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG_TAIL 2500

/* What libbpf said while the current object was loaded; a verifier log comes as one message of up to megabytes. */
static char *said;
static size_t said_length;

static int keep(enum libbpf_print_level level, const char *format, va_list arguments)
{
	char *message = NULL, *grown;
	int length;

	if (level == LIBBPF_DEBUG)
		return 0;
	length = vasprintf(&message, format, arguments);
	if (length < 0)
		return 0;
	grown = realloc(said, said_length + length + 1);
	if (grown) {
		said = grown;
		memcpy(said + said_length, message, length + 1);
		said_length += length;
	}
	free(message);
	return length;
}

static void forget(void)
{
	free(said);
	said = NULL;
	said_length = 0;
}

static void complain(const char *path, const char *what, int error)
{
	size_t from = said_length > LOG_TAIL ? said_length - LOG_TAIL : 0;

	fprintf(stderr, "%s: %s: %s\n", path, what, strerror(-error));
	if (said)
		fprintf(stderr, "%s%s\n", from ? "[...]" : "", said + from);
}

/* Sets the dry_run knob of an object that is not loaded yet. 1: it has none; negative errno otherwise. */
static int set_dry_run(struct bpf_object *object)
{
	const struct btf *btf = bpf_object__btf(object);
	struct bpf_map *map = bpf_object__find_map_by_name(object, ".rodata");
	const struct btf_var_secinfo *variable;
	const struct btf_type *section;
	const void *initial;
	size_t size;
	char *data;
	int id, i, r = 1;

	if (!btf || !map)
		return 1;
	initial = bpf_map__initial_value(map, &size);
	id = btf__find_by_name_kind(btf, ".rodata", BTF_KIND_DATASEC);
	if (!initial || id < 0)
		return 1;
	data = malloc(size);
	if (!data)
		return -ENOMEM;
	memcpy(data, initial, size);
	section = btf__type_by_id(btf, id);
	variable = btf_var_secinfos(section);
	for (i = 0; i < btf_vlen(section); i++, variable++) {
		const struct btf_type *type = btf__type_by_id(btf, variable->type);

		if (strcmp(btf__name_by_offset(btf, type->name_off), "dry_run") || variable->offset + sizeof(bool) > size)
			continue;
		data[variable->offset] = true;
		r = bpf_map__set_initial_value(map, data, size);
		break;
	}
	free(data);
	return r;
}

/* Returns 1 for an object without the knob when dry is asked for, 0 or a negative errno otherwise. */
static int load(const char *path, bool dry)
{
	const char *object_name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	struct bpf_object *object;
	struct bpf_program *program;
	int r = 0;

	object = bpf_object__open_file(path, NULL);
	if (!object) {
		r = -errno;
		complain(path, "cannot open", r);
		return r;
	}
	if (dry) {
		r = set_dry_run(object);
		if (r) {
			bpf_object__close(object);
			return r;
		}
	}
	r = bpf_object__load(object);
	if (r) {
		complain(path, dry ? "cannot load with dry_run" : "cannot load", r);
		goto out;
	}
	bpf_object__for_each_program (program, object) {
		struct bpf_prog_info info = {};
		__u32 length = sizeof(info);

		if (bpf_obj_get_info_by_fd(bpf_program__fd(program), &info, &length)) {
			r = -errno;
			complain(path, bpf_program__name(program), r);
			goto out;
		}
		printf("%.*s/%s%s %u %u %u\n", (int)strcspn(object_name, "."), object_name, bpf_program__name(program),
			dry ? "/dry" : "", info.verified_insns, info.xlated_prog_len, info.jited_prog_len);
	}
out:
	bpf_object__close(object);
	return r;
}

int main(int argc, char **argv)
{
	int status = EXIT_SUCCESS;
	int i;

	if (argc < 2) {
		fprintf(stderr, "usage: load OBJECT...\n");
		return 2;
	}
	libbpf_set_print(keep);
	for (i = 1; i < argc; i++) {
		if (load(argv[i], false) < 0 || load(argv[i], true) < 0)
			status = EXIT_FAILURE;
		forget();
	}
	return status;
}
