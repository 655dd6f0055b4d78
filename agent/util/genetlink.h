/* SPDX-License-Identifier: Apache-2.0 */
/* Families of generic netlink (Documentation/userspace-api/netlink/intro.rst of the kernel): who has which number, and their requests. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <linux/genetlink.h>

#include <util/netlink.h>

struct genetlink_family {
	uint16_t number;
	uint32_t group; /* for netlink_watch(): the one that was asked for; 0: the family has none of that name */
};

/* group: NULL, none is wanted. -ENOENT: this kernel has no such family, or it has no such group. */
int genetlink_find(const char *name, const char *group, struct genetlink_family *ret);
/* As netlink_request(). */
struct nlmsghdr *genetlink_request(char *buffer, uint16_t family, uint8_t command, uint16_t flags);

/* --- pure, whatever bytes come in --- */

/* The header of a message that came as these bytes, behind which its attributes are; NULL: it is none, or not whole. */
const struct genlmsghdr *genetlink_head(const struct nlmsghdr *message, size_t length);
/* CTRL_CMD_NEWFAMILY. */
bool genetlink_parse_family(const struct nlmsghdr *message, size_t length, const char *group, struct genetlink_family *ret);
