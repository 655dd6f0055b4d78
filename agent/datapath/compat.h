/* SPDX-License-Identifier: Apache-2.0 */
/* Constants of the kernel's ABI that are newer than Debian 12's headers (6.1). What the running kernel offers is found out by trying. */
#ifndef HEDDLE_DATAPATH_COMPAT_H
#define HEDDLE_DATAPATH_COMPAT_H

/* TCX, since 6.6 (commit e420bed02507): links on a device's ingress and egress, several programs in an order of their own. */
#define COMPAT_BPF_TCX_INGRESS 46
#define COMPAT_BPF_TCX_EGRESS 47
#define COMPAT_BPF_LINK_TYPE_TCX 11
#define COMPAT_BPF_F_BEFORE (1u << 3) /* with no relative: ahead of all others */

#ifndef BPF_FS_MAGIC
#define BPF_FS_MAGIC 0xcafe4a11
#endif

#endif
