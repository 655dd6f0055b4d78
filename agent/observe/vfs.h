/* SPDX-License-Identifier: Apache-2.0 */
/* VFs: whose, where, what they are like. */
#ifndef HEDDLE_OBSERVE_VFS_H
#define HEDDLE_OBSERVE_VFS_H

#include <jansson.h>

#include <netdev/sriov.h>
#include <netdev/vf.h>
#include <observe/view.h>

/* {pfs: [...], items: [...]}, as GET /v1/vfs answers. NULL: no memory. */
json_t *vfs_json(const struct view *view, const struct sriov *table, const struct vf_backend *backend,
	const struct vf_wish *wishes, size_t n_wishes);

#endif
