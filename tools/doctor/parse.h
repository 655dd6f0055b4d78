/* SPDX-License-Identifier: Apache-2.0 */
/* Texts and bytes of the kernel, taken apart. Pure: what others wrote comes in as text or bytes of any content. */
#ifndef HEDDLE_DOCTOR_PARSE_H
#define HEDDLE_DOCTOR_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "0-3,8,10-11": how many; -1 when it is none. each (may be NULL) is called for those below max. */
int parse_list(const char *text, unsigned max, void (*each)(unsigned n, void *userdata), void *userdata);

/* A word of /proc/cpuinfo's "flags" or "Features" line. */
bool parse_cpu_flag(const char *cpuinfo, const char *flag);
/* The value behind the colon of the first line that begins with key, at most size - 1 bytes; "" where there is none. */
void parse_field(const char *text, const char *key, char *ret, size_t size);

/* A row of /proc/interrupts has a chip whose name begins so ("IR-", "ITS-"). */
bool parse_interrupt_chip(const char *interrupts, const char *prefix);

/* A word of the kernel's command line; NULL: not there; "" without a value. The value lasts in ret. */
const char *parse_argument(const char *cmdline, const char *name, char *ret, size_t size);

/* In the kernel's configuration: 'y', 'm', or 'n'. */
char parse_option(const char *config, const char *option);

/* What `ethtool -k` prints: 1 on, 0 off, -1 not told. */
int parse_feature(const char *text, const char *name);
/* What `ethtool -l` prints: the number behind "Combined:", the first (maximum) or second (now) one; -1 not told. */
int parse_channels(const char *text, bool maximum);

/* The kernel's BTF as that of a module builds on it: types and strings of the latter are numbered on. */
struct parse_btf {
	const char *strings; /* n_strings bytes, which end with a NUL; they are the data's */
	uint32_t n_strings, n_types;
};
/*
 * Type ids of functions in BTF, in one walk over some 150,000 types. ids[i] is 0 for what is not there. base: NULL, or what this is a module's of.
 * True: all of it was understood; only then others can build on it, by ret (may be NULL).
 */
bool parse_btf_functions(const void *data, size_t length, const struct parse_btf *base, const char *const *names, uint32_t *ids,
	size_t n, struct parse_btf *ret);

#endif
