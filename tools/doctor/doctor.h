/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the machine offers: kernel, NICs, IOMMU, CPU, memory, settings; which way heddle takes because of it; what to change. Reads only: of the
 * kernel it asks by tiny programs and maps that are never attached and go with their descriptor. Everything in files is read below one root, so that
 * another machine's tree can be looked at; there the kernel is not asked.
 */
#ifndef HEDDLE_DOCTOR_DOCTOR_H
#define HEDDLE_DOCTOR_DOCTOR_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * {kernel, root, sysroot, items: [{severity, area, subject, name, value, path, change, details}], unread: [{what, reason}]}. sysroot: NULL for this
 * machine. 0 or a negative errno: the root cannot be opened, or there is no memory.
 */
int doctor_run(const char *sysroot, json_t **ret);

/* --- for its parts --- */

struct doctor {
	int root_fd;
	bool live; /* this machine: the kernel may be asked */
	json_t *items, *unread;
	char kernel[128];  /* release; "" unknown */
	unsigned cpus;	   /* that are online; 0: unknown */
	char *interrupts;  /* proc/interrupts; NULL: unreadable */
	char *config;	   /* the kernel's; NULL: not there */
	bool tcx;	   /* the kernel has TCX, as far as one can tell */
	bool bpf_refused;  /* for want of privileges */
	bool failed;	   /* out of memory */
	unsigned n_iommus; /* that the kernel drives */
};

enum severity { DOCTOR_OK, DOCTOR_NOTE, DOCTOR_WARNING, DOCTOR_UNKNOWN };
struct finding {
	enum severity severity;
	const char *area, *subject, *name;
	const char *path;   /* which way heddle takes because of it; NULL: none in particular */
	const char *change; /* what to do about it; NULL: nothing */
	json_t *details;    /* for programs; taken over; NULL: none */
};
void doctor_say(struct doctor *doctor, const struct finding *finding, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* What could not be read or asked; each but once. */
void doctor_unread(struct doctor *doctor, int r, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The whole file without white space at its end, to be freed. NULL: not there, or not readable (which is noted). */
char *doctor_text(struct doctor *doctor, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* false: no number there. */
bool doctor_number(struct doctor *doctor, long long *ret, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The last part of where a symbolic link leads, to be freed. NULL: there is none. */
char *doctor_link(struct doctor *doctor, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool doctor_exists(struct doctor *doctor, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Names of a directory in the order of people (eth2 before eth10), ended by NULL; to be freed with doctor_names_free(). NULL: none. */
char **doctor_names(struct doctor *doctor, const char *format, ...) __attribute__((format(printf, 2, 3)));
void doctor_names_free(char **names);

/* Whether the kernel has it: built in, as a module that is there, not at all. */
enum presence { ABSENT, MODULE, BUILT_IN, PRESENCE_UNKNOWN };
enum presence doctor_presence(struct doctor *doctor, const char *option, const char *module);

void doctor_kernel(struct doctor *doctor);
void doctor_kfuncs(struct doctor *doctor); /* part of it */
void doctor_nics(struct doctor *doctor);
void doctor_iommu(struct doctor *doctor);
void doctor_cpu(struct doctor *doctor);
void doctor_memory(struct doctor *doctor);
void doctor_sysctl(struct doctor *doctor);

#endif
