/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of model_validate(), each about some kinds. */
#ifndef HEDDLE_MODEL_VALIDATE_H
#define HEDDLE_MODEL_VALIDATE_H

#include <model/decode.h>

/* Adds a mistake in an object; one that came through the API has no file, its title stands there instead. */
void validate_complain(
	struct diag *diag, const struct object *object, uint32_t line, const char *path, const char *want, const char *got);

/*
 * Networks among themselves; Ports, Peers, and the workloads of both with them. sorted: all objects; host may be NULL. -ENOMEM.
 * valid: sorted objects in which nothing is wrong, for which not all is looked at again; may be NULL.
 */
int validate_networks(const struct object_list *sorted, struct diag *diag);
int validate_ports(const struct object_list *sorted, const struct object *host, struct diag *diag);
int validate_nat(const struct object_list *sorted, struct diag *diag);
int validate_peers(const struct object_list *sorted, const struct object *host, struct diag *diag);
int validate_workloads(const struct object_list *sorted, const struct object_list *valid, struct diag *diag);

int validate_fast_paths(const struct object_list *sorted, const struct object *host, struct diag *diag);

/* The objects of a kind, which stand together in a sorted list. */
struct object **validate_kind(const struct object_list *sorted, enum object_kind kind, size_t *ret_n);

#endif
