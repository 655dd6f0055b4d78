/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Later fragments have no ports: they get what their first one got, and nothing is ever matched on their payload. */
#ifndef HEDDLE_STAGE_FRAGMENT_H
#define HEDDLE_STAGE_FRAGMENT_H

#include "event.h"
#include "packet.h"

#include <maps/flow.bpf.h>

static __always_inline void fragment_key(const struct pkt *p, struct hd_frag_key *key)
{
	key->source = p->source;
	key->destination = p->destination;
	key->id = p->frag_id;
	key->network = p->network;
	key->protocol = p->family == 4 ? p->protocol : 0;
	key->direction = p->direction;
}

/* Of uplink.h or between.h. Changes with the policy of either end: what follows a first fragment that another policy judged is not known any more. */
static __always_inline __u32 fragment_version(const struct pkt *p);

/* What the first fragment got, for those that follow. */
__noinline int fragment_first(struct pkt *p, __u32 reason)
{
	struct hd_frag_key key;
	struct hd_frag value = {};

	static_assert(HD_REASON_COUNT <= 256, "hd_frag.reason");
	if (!p || dry_run)
		return 0;
	fragment_key(p, &key);
	value.seen = p->now;
	value.version = fragment_version(p);
	value.rule = p->rule;
	value.reason = reason;
	value.first_end = p->l4_length;
	if (bpf_map_update_elem(&frags, &key, &value, BPF_ANY))
		event_full(p, HD_TABLE_FRAGMENTS);
	return 0;
}

/* What is noted of the datagram. */
static __always_inline struct hd_frag *fragment_find(const struct pkt *p)
{
	struct hd_frag_key key;

	fragment_key(p, &key);
	return bpf_map_lookup_elem(&frags, &key);
}

__noinline int fragment_later(struct pkt *p)
{
	const struct hd_frag *first;
	const struct hd_control *c;
	__u32 zero = 0;

	c = bpf_map_lookup_elem(&control, &zero);
	if (!p || !c)
		return HD_R_FRAG_UNKNOWN;
	first = fragment_find(p);
	if (!first || (__s32)(p->now - first->seen) > (__s32)c->fragment_timeout || first->version != fragment_version(p))
		return HD_R_FRAG_UNKNOWN;
	/* Rewriting what the first one showed us (RFC 1858, RFC 3128). */
	if (p->frag_offset < first->first_end)
		return HD_R_FRAG_TINY;
	if (first->reason) {
		p->rule = first->rule;
		p->verdict = first->reason == HD_R_POLICY_REJECT ? HD_REJECT : HD_DENY;
		return first->reason;
	}
	p->rule = HD_RULE_FRAGMENT;
	return 0;
}

#endif
