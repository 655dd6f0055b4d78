/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/btf.h>

#include <tools/doctor/parse.h>

static bool read_number(const char **at, unsigned long *ret)
{
	char *end;

	if (!isdigit((unsigned char)**at))
		return false;
	*ret = strtoul(*at, &end, 10);
	*at = end;
	return true;
}

int parse_list(const char *text, unsigned max, void (*each)(unsigned n, void *userdata), void *userdata)
{
	int count = 0;

	if (!text)
		return -1;
	while (*text && *text != '\n') {
		unsigned long first, last;

		if (!read_number(&text, &first))
			return -1;
		last = first;
		if (*text == '-') {
			text++;
			if (!read_number(&text, &last) || last < first)
				return -1;
		}
		if (last >= max)
			return -1;
		count += (int)(last - first + 1);
		for (unsigned long n = first; each && n <= last; n++)
			each((unsigned)n, userdata);
		if (*text == ',')
			text++;
		else if (*text && *text != '\n')
			return -1;
	}
	return count;
}

static const char *next_line(const char *line)
{
	line = strchr(line, '\n');
	return line ? line + 1 : NULL;
}

static bool has_word(const char *text, const char *end, const char *word)
{
	size_t length = strlen(word);

	while (text < end) {
		const char *begin = text;

		while (text < end && !isspace((unsigned char)*text))
			text++;
		if ((size_t)(text - begin) == length && memcmp(begin, word, length) == 0)
			return true;
		while (text < end && isspace((unsigned char)*text))
			text++;
	}
	return false;
}

bool parse_cpu_flag(const char *cpuinfo, const char *flag)
{
	for (const char *line = cpuinfo; line; line = next_line(line)) {
		const char *colon;

		if (strncmp(line, "flags", 5) != 0 && strncmp(line, "Features", 8) != 0)
			continue;
		colon = line + strcspn(line, ":\n");
		if (*colon != ':')
			continue;
		/* All CPUs have what the first one has, but for what the kernel would not use either. */
		return has_word(colon + 1, colon + strcspn(colon, "\n"), flag);
	}
	return false;
}

void parse_field(const char *text, const char *key, char *ret, size_t size)
{
	size_t length = strlen(key);

	ret[0] = '\0';
	for (const char *line = text; line; line = next_line(line)) {
		const char *at = line + length;

		if (strncmp(line, key, length) != 0)
			continue;
		at += strspn(at, " \t");
		if (*at++ != ':')
			continue;
		at += strspn(at, " \t");
		snprintf(ret, size, "%.*s", (int)strcspn(at, "\n"), at);
		return;
	}
}

/* Behind the number and its colon come counts, one a CPU, then the chip. */
static const char *behind_counts(const char *at)
{
	for (;;) {
		const char *begin;

		at += strspn(at, " \t");
		begin = at;
		while (isdigit((unsigned char)*at))
			at++;
		if (at == begin || (*at != ' ' && *at != '\t'))
			return begin;
	}
}

bool parse_interrupt_chip(const char *interrupts, const char *prefix)
{
	for (const char *line = interrupts; line; line = next_line(line)) {
		const char *at = line + strspn(line, " \t");
		unsigned long n;

		if (read_number(&at, &n) && *at == ':' && strncmp(behind_counts(at + 1), prefix, strlen(prefix)) == 0)
			return true;
	}
	return false;
}

const char *parse_argument(const char *cmdline, const char *name, char *ret, size_t size)
{
	size_t length = strlen(name);
	const char *found = NULL;

	/* The last one counts, as it does to the kernel. */
	for (const char *at = cmdline; at && *at;) {
		size_t word;

		at += strspn(at, " \n");
		word = strcspn(at, " \n");
		if (word >= length && memcmp(at, name, length) == 0 && (word == length || at[length] == '=')) {
			size_t value = word == length ? 0 : word - length - 1;

			snprintf(ret, size, "%.*s", (int)value, at + word - value);
			found = ret;
		}
		at += word;
	}
	return found;
}

char parse_option(const char *config, const char *option)
{
	size_t length = strlen(option);

	for (const char *line = config; line; line = next_line(line))
		if (strncmp(line, option, length) == 0 && line[length] == '=')
			return line[length + 1] == 'm' ? 'm' : line[length + 1] == 'y' ? 'y' : 'n';
	return 'n';
}

int parse_feature(const char *text, const char *name)
{
	size_t length = strlen(name);

	for (const char *line = text; line; line = next_line(line)) {
		const char *at = line + strspn(line, " \t");

		if (strncmp(at, name, length) != 0 || at[length] != ':')
			continue;
		at += length + 1;
		at += strspn(at, " \t");
		return strncmp(at, "on", 2) == 0 ? 1 : strncmp(at, "off", 3) == 0 ? 0 : -1;
	}
	return -1;
}

int parse_channels(const char *text, bool maximum)
{
	bool first = true;

	for (const char *line = text; line; line = next_line(line)) {
		unsigned long n;
		const char *at;

		if (strncmp(line, "Combined:", 9) != 0)
			continue;
		if (first != maximum) {
			first = false;
			continue;
		}
		at = line + 9 + strspn(line + 9, " \t");
		return read_number(&at, &n) && n <= UINT16_MAX ? (int)n : -1;
	}
	return -1;
}

/* --- BTF --- */

/* What follows a type's header, by its kind; -1: unknown, and nothing behind it can be found. */
static long more_of(unsigned kind, unsigned vlen)
{
	switch (kind) {
	case BTF_KIND_INT:
	case BTF_KIND_VAR:
	case BTF_KIND_DECL_TAG:
		return 4;
	case BTF_KIND_ARRAY:
		return sizeof(struct btf_array);
	case BTF_KIND_STRUCT:
	case BTF_KIND_UNION:
	case BTF_KIND_DATASEC:
	case BTF_KIND_ENUM64:
		return 12 * (long)vlen;
	case BTF_KIND_ENUM:
	case BTF_KIND_FUNC_PROTO:
		return 8 * (long)vlen;
	case BTF_KIND_PTR:
	case BTF_KIND_FWD:
	case BTF_KIND_TYPEDEF:
	case BTF_KIND_VOLATILE:
	case BTF_KIND_CONST:
	case BTF_KIND_RESTRICT:
	case BTF_KIND_FUNC:
	case BTF_KIND_FLOAT:
	case BTF_KIND_TYPE_TAG:
		return 0;
	default:
		return -1;
	}
}

/* NULL: it names nothing. */
static const char *name_at(const struct parse_btf *own, const struct parse_btf *base, uint32_t offset)
{
	uint32_t before = base ? base->n_strings : 0;

	if (offset < before)
		return base->strings + offset;
	return offset - before < own->n_strings ? own->strings + (offset - before) : NULL;
}

bool parse_btf_functions(const void *data, size_t length, const struct parse_btf *base, const char *const *names, uint32_t *ids,
	size_t n, struct parse_btf *ret)
{
	const uint8_t *bytes = data, *at, *end;
	struct parse_btf own = {0};
	struct btf_header header;
	uint64_t strings;
	uint32_t id;

	memset(ids, 0, n * sizeof(*ids));
	if (length < sizeof(header))
		return false;
	memcpy(&header, bytes, sizeof(header));
	if (header.magic != BTF_MAGIC || header.hdr_len < sizeof(header) ||
		(uint64_t)header.hdr_len + header.type_off + header.type_len > length)
		return false;
	strings = (uint64_t)header.hdr_len + header.str_off;
	if (strings + header.str_len > length)
		return false;
	/* A module's may all be in the kernel's. */
	if (header.str_len ? bytes[strings + header.str_len - 1] : !base)
		return false;
	own.strings = (const char *)bytes + strings;
	own.n_strings = header.str_len;
	at = bytes + header.hdr_len + header.type_off;
	id = base ? base->n_types + 1 : 1;
	for (end = at + header.type_len; (size_t)(end - at) >= sizeof(struct btf_type); id++) {
		struct btf_type type;
		const char *name;
		long more;

		memcpy(&type, at, sizeof(type));
		more = more_of(BTF_INFO_KIND(type.info), BTF_INFO_VLEN(type.info));
		at += sizeof(type);
		if (more < 0 || more > end - at)
			return false;
		at += more;
		own.n_types++;
		name = BTF_INFO_KIND(type.info) == BTF_KIND_FUNC ? name_at(&own, base, type.name_off) : NULL;
		/* Those that are looked for begin so. */
		if (!name || strncmp(name, "bpf_", 4) != 0)
			continue;
		for (size_t i = 0; i < n; i++)
			if (!ids[i] && strcmp(name, names[i]) == 0)
				ids[i] = id;
	}
	if (at != end)
		return false;
	if (ret)
		*ret = own;
	return true;
}
