/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What policy denies, dropped by the NIC: where a port keeps sending packets of one kind, at a rate that is worth it, a rule takes them out before any
 * program sees them. The programs stay those who know: a rule comes, and stays, only while they would drop just what it matches, whatever flow there
 * is or may come to be, count it in the same counters, and tell nobody.
 *
 * What a rule matches (struct offload_rule with out 0), besides MACs and addresses:
 *   TCP        segments that open a connection, to one port, from any. What answers a connection of the other end has ACK, and a SYN that crosses
 *              the other end's own is not needed by it (RFC 9293 section 3.5). No policy of a port asks for the source port.
 *   ICMP       echo requests, whatever their identifier: replies to requests of the other end are another type.
 *   UDP, SCTP  between the two ports alone, and only where the other end may not open the same flow either: nothing in a packet says that it answers.
 */
#ifndef HEDDLE_OFFLOAD_DROPS_H
#define HEDDLE_OFFLOAD_DROPS_H

#include <heddle/event.h>
#include <offload/flower.h>
#include <offload/nic.h>

#define DROPS_MOST 1024		/* rules at once */
#define DROPS_TUPLES 4096	/* kinds of packets that are watched at once */
#define DROPS_A_ROUND 64	/* new rules */
#define DROPS_LEAST 50		/* packets a second, two seconds in a row, that make a rule worth while */
#define DROPS_QUIET 10		/* packets a second, below which it is not any more, */
#define DROPS_QUIET_MAX 5	/* after so many seconds */
#define DROPS_HANDLE (1u << 31) /* handles of rules begin here, those of flows are smaller */

/* What the programs would make of a packet. */
struct drop_answer {
	bool denied;	/* by a rule */
	bool silent;	/* and nobody is answered, and nothing logged */
	bool by_sender; /* by the egress policy of the port that sends it: whoever it is for does not matter */
	uint32_t rule;
};

/* The world beside that of struct offload_world. Replaced in tests. All return 0 or a negative errno unless told otherwise. */
struct drops_ops {
	/* As in struct offload_ops. */
	int (*add)(const struct flower_filter *filter, char reason[FLOWER_REASON_MAX], void *userdata);
	int (*remove)(const struct flower_filter *filter, struct flower_seen *seen, void *userdata);
	int (*each)(uint32_t ifindex, void (*cb)(const struct flower_seen *seen, void *data), void *data, void *userdata);
	uint64_t (*now_ms)(void *userdata);
	/* The programs in force, about a packet that the rule matches. */
	int (*ask)(const struct offload_rule *rule, struct drop_answer *ret, void *userdata);
	/* *ret: the port that has the address in the network, 0: nobody here. False: a peer, the host, the gateway or another network
	 * has it. */
	bool (*owner)(uint16_t network, const struct hd_addr *address, uint32_t *ret, void *userdata);
	/* As counted by a program: bytes of L3, and of whole frames. */
	int (*credit)(uint32_t rule, uint64_t packets, uint64_t bytes, uint64_t frames, void *userdata);
	/* Packets that ports sent and policy denied up to now, those of credit() with them. */
	int (*denied)(uint64_t *ret, void *userdata);
	void *userdata;
};

struct drops;
/* world stays the caller's. header: bytes of a frame that the kernel counts and L3 does not have. */
int drops_new(const struct drops_ops *ops, const struct offload_world *world, unsigned header, struct drops **ret);
void drops_free(struct drops *drops); /* leaves rules where they are: drops_stop() */

/* What the programs tell, each event. */
void drops_note(struct drops *drops, const struct hd_event *event);
/* Once a second: counters, what has gone quiet, what may come. */
void drops_round(struct drops *drops);
/* A policy is about to change: whatever is judged by it is taken back. */
void drops_before(struct drops *drops);
/* Something has changed: the programs are asked again about each. */
void drops_again(struct drops *drops);
/* Everything, or all that comes from or goes to there, is the programs' again; what is still worth it comes back by the next rounds. */
void drops_stop(struct drops *drops);
void drops_leave(struct drops *drops, uint32_t ifindex);
/* The NIC has no room for a flow: it gets that of the drops, which pause. */
void drops_yield(struct drops *drops);

struct drops_status {
	struct nic_work work;
	uint64_t waiting; /* kinds of packets for which there is no room or no turn yet */
};
void drops_status(const struct drops *drops, struct drops_status *ret);

struct drops_item {
	const struct offload_rule *match;
	uint32_t rule; /* that denies it */
	uint64_t packets, bytes;
};
/* The n that drop most now, the first one most. Returns how many there are. */
size_t drops_list(const struct drops *drops, struct drops_item *items, size_t n);

#endif
