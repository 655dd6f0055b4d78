/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What flows that NICs forward and packets that they drop have in common: what is told of them, when a NIC is asked again for what it has refused (later each
 * time), and when it is asked for nothing of the kind.
 */
#ifndef HEDDLE_OFFLOAD_NIC_H
#define HEDDLE_OFFLOAD_NIC_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <offload/flower.h>

struct nic_work {
	uint64_t now;		 /* flows, or rules that drop, at this moment */
	uint64_t packets, bytes; /* that NICs forwarded, or dropped, up to now; bytes of L3 */
	uint64_t rules_added, rules_removed, refused;
	int refusal; /* the last one: a negative errno, and in words; 0: none yet */
	char refusal_text[FLOWER_REASON_MAX];
	bool paused; /* too many refusals in a row: few are tried */
};

/* True: the one before was another. */
static inline bool nic_refused(struct nic_work *work, int r, const char *reason)
{
	bool news = work->refusal != r || strcmp(work->refusal_text, reason) != 0;

	work->refused++;
	work->refusal = r;
	snprintf(work->refusal_text, sizeof(work->refusal_text), "%s", reason);
	return news;
}

#define TRIES_FIRST_MS 30000u
#define TRIES_MAX_MS 600000u
/* So many refusals in a row, and it is the NIC, not what it was asked for. After each pause then, the first answer shows whether it is worth while. */
#define TRIES_IN_A_ROW 8

struct tries {
	unsigned refusals; /* in a row */
	uint64_t paused;   /* ms, until then nothing is tried */
	uint32_t pause;	   /* ms, the last one; 0: none yet */
};

/* The pause that follows this one. */
static inline uint32_t tries_longer(uint32_t pause_ms)
{
	uint32_t next = pause_ms ? pause_ms * 2 : TRIES_FIRST_MS;

	return next < TRIES_MAX_MS ? next : TRIES_MAX_MS;
}

static inline void tries_pause(struct tries *tries, uint64_t now_ms)
{
	tries->pause = tries_longer(tries->pause);
	tries->paused = now_ms + tries->pause;
}

static inline void tries_refused(struct tries *tries, uint64_t now_ms)
{
	if (++tries->refusals >= TRIES_IN_A_ROW)
		tries_pause(tries, now_ms);
}

static inline bool tries_paused(const struct tries *tries, uint64_t now_ms)
{
	return tries->paused > now_ms;
}

#endif
