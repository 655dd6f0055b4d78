/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The twins' notebook. Every use stands behind dry_run, so that nothing of it is left in a live program. */
#ifndef HEDDLE_STAGE_EXPLAIN_H
#define HEDDLE_STAGE_EXPLAIN_H

#include "packet.h"

#include <maps/observe.bpf.h>

static __always_inline struct hd_explain *explain_page(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&explain, &zero);
}

/* EXPLAIN(related = 1): notes a field. */
#define EXPLAIN(assignment) \
	do { \
		if (dry_run) { \
			struct hd_explain *page_ = explain_page(); \
			if (page_) \
				page_->assignment; \
		} \
	} while (0)

static __always_inline void explain_verdict(const struct pkt *p, __u32 verdict, __u32 reason)
{
	struct hd_explain *page;

	if (!dry_run)
		return;
	page = explain_page();
	if (!page)
		return;
	page->verdict = verdict;
	page->reason = reason;
	page->rule = p->rule;
	page->generation = p->generation;
	page->found = p->found;
	page->fragment = p->fragment;
	page->done = 1;
}

#endif
