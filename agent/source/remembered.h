/* SPDX-License-Identifier: Apache-2.0 */
/* The numbers of identities, STATE_DIR/identities: what people and other hosts saw must mean the same after a restart. */
#ifndef HEDDLE_SOURCE_REMEMBERED_H
#define HEDDLE_SOURCE_REMEMBERED_H

#include <policy/identities.h>

/* 0 also where there is no file. -EINVAL: it is damaged, and nothing of it was taken; *identities is as it was. */
int remembered_load(const char *state_dir, struct identities **identities);
int remembered_save(const char *state_dir, const struct identities *identities);

#endif
