/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What kind of IP packet it is, and who therefore judges it: later fragments, ICMP without a flow of its own, and the rest. */
#ifndef HEDDLE_STAGE_CLASSIFY_H
#define HEDDLE_STAGE_CLASSIFY_H

#include "fragment.h"
#include "icmp.h"
#include "track.h"

/* proven: the flow, if there is one among the proven. 0 or the drop reason. */
static __always_inline int classify(
	HOOK_CTX *ctx, struct pkt *p, struct hd_flow *proven, const union hd_flow_key *key, const struct hd_control *c)
{
	if (p->fragment == FRAGMENT_LATER)
		return fragment_later(p);
	if (icmp_is(p) && !icmp_echo(p))
		return icmp_judge(ctx, p);
	return track(ctx, p, proven, key, c);
}

#endif
