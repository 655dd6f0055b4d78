/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions to the kernel, asked by trying: programs of a few instructions that are loaded and given up again, maps of one entry, sockets. Nothing is
 * attached, pinned or set. bpf(2) itself, since what is asked for is newer than the headers and the library.
 */
#ifndef HEDDLE_DOCTOR_PROBE_H
#define HEDDLE_DOCTOR_PROBE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* 0: it does; a negative errno: -EPERM, the caller may not ask; others: it does not. */
int probe_program(uint32_t type, uint32_t attach_type);
int probe_helper(uint32_t type, int32_t helper);
int probe_kfunc(uint32_t type, uint32_t btf_id, int module_btf); /* of the kernel itself: -1 */
/* BTF of loaded modules: fds[i] is that of names[i] (NULL: none is wanted), to be closed, or as it was. */
void probe_open_btf(const char *const *names, int *fds, size_t n);
int probe_map(uint32_t type, uint32_t key, uint32_t value, uint32_t entries, uint32_t flags);
int probe_map_in_map(uint32_t type);
int probe_tcx(void);
int probe_af_xdp(void);

#endif
