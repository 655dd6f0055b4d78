/* SPDX-License-Identifier: Apache-2.0 */
/* Rules as the kernel's flower classifier has them: messages of rtnetlink, made and read. Pure. */
#ifndef HEDDLE_OFFLOAD_FLOWER_H
#define HEDDLE_OFFLOAD_FLOWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <offload/plan.h>

struct nlmsghdr;

/*
 * Ours have this priority on the ingress side of clsact (IPv6: the next one, tagged: the one behind that), and a cookie that begins with FLOWER_COOKIE on their last action. Rules of
 * a NIC are asked before anything in software, whatever the priority there.
 */
#define FLOWER_PRIORITY 26724u /* "hd" */
#define FLOWER_COOKIE "heddle"

/*
 * A rule with skip_sw is the NIC's alone. The other kind is for tests, on devices that are no representors: the kernel does what a NIC would, ahead of our
 * programs where the priority is lower than theirs, and marks packets as those do (HD_MARK), since past a NIC no program sees them either.
 */
struct flower_mode {
	bool software;
	uint16_t priority;
};

struct flower_filter {
	struct offload_rule rule;
	uint32_t handle;
};

/* In place of a family, of rules for frames with a network's tag: both families have one classifier, of the priority behind those. */
#define FLOWER_TAGGED 8

#define FLOWER_MESSAGE_MAX 2048
/* buffer holds FLOWER_MESSAGE_MAX, aligned as a message is. */
struct nlmsghdr *flower_add(void *buffer, const struct flower_filter *filter, const struct flower_mode *mode);
uint8_t flower_family(const struct offload_rule *rule); /* 4, 6 or FLOWER_TAGGED */
/* RTM_DELTFILTER, or RTM_GETTFILTER, of one of ours; with handle 0, of all of that priority. family: as flower_family(). */
struct nlmsghdr *flower_name(
	void *buffer, uint16_t type, uint32_t ifindex, uint32_t handle, uint8_t family, const struct flower_mode *mode);

/* A message of `length` bytes at most is all there. (To mnl_nlmsg_ok() one of more than 2 GiB is.) */
bool flower_whole(const struct nlmsghdr *message, int length);

/* A filter that the kernel tells of. */
struct flower_seen {
	uint32_t ifindex, handle;
	uint32_t info;	/* its priority and protocol, as in struct tcmsg */
	uint8_t family; /* as flower_family() */
	bool ours;
	bool lost;		 /* it is the NIC's alone, and that does not have it any more */
	uint64_t packets, bytes; /* as the kernel counts them */
};
/* False: the message is not whole, or tells of no single filter of flower. */
bool flower_parse(const struct nlmsghdr *message, size_t length, struct flower_seen *ret);

#define FLOWER_REASON_MAX 160
/* The answer to a request: 0 or a negative errno, and in words, where the kernel or the driver has some ("": none). 1: no answer. */
int flower_answer(const struct nlmsghdr *message, size_t length, char reason[FLOWER_REASON_MAX]);

#endif
