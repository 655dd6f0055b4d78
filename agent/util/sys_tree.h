/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /sys, or a tree that stands in its place: HEDDLE_SYS names one, as HEDDLE_PROC_SYS does for settings. Of another tree's devices rtnetlink knows no
 * parents and no switch, so it says itself which interface is whose, by ifindex, in the files where the kernel has them.
 */
#ifndef HEDDLE_UTIL_SYS_TREE_H
#define HEDDLE_UTIL_SYS_TREE_H

#include <stdbool.h>
#include <stdint.h>

const char *sys_tree(void);

struct sys_tree_interface {
	char pci[20];	    /* the address of its device */
	char port_name[16]; /* phys_port_name; "": none */
	char switch_id[68]; /* phys_switch_id; "": none */
};
/* Of bus/pci/devices/PCI/net/NAME in another tree, whose `ifindex` is this. false: none, or it is the kernel's own tree. */
bool sys_tree_interface(uint32_t ifindex, struct sys_tree_interface *ret);

#endif
