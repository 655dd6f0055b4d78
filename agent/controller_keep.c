/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is written to the state directory once the answer is out. It is in force by then, so a write that fails refuses nothing: it is told in the status until it
 * succeeds, since a start would find what was there before.
 */
#include <errno.h>
#include <string.h>

#include <controller_internal.h>
#include <util/clock.h>

void keep_result(struct controller *c, enum view_kept what, int r)
{
	struct view_unsaved *unsaved = &c->view.unsaved[what];

	if (r == unsaved->error)
		return;
	if (r < 0)
		log_err(r, "cannot keep %s in %s/%s", view_kept_text(what), c->options->state_dir, view_kept_file(what));
	else
		log_info("%s/%s has %s again", c->options->state_dir, view_kept_file(what), view_kept_text(what));
	if (!unsaved->error)
		unsaved->since = (int64_t)(clock_wall_us() / 1000);
	unsaved->error = r;
}

void keep_files(struct controller *c)
{
	int r;

	if (!c->save || c->state_taken)
		return;
	r = files_save(c->files, c->options->state_dir);
	/* ESTALE: they are not those in force any more, and what brings others that can be will bring us here again; what is kept is as good as before */
	c->save = r < 0 && r != -ESTALE;
	if (r != -ESTALE)
		keep_result(c, VIEW_KEPT_FILES, r);
}

void keep_due(struct controller *c)
{
	int r;

	if (c->state_taken)
		return;
	keep_files(c);
	if (c->remember) {
		r = remembered_save(c->options->state_dir, c->identities);
		c->remember = r < 0;
		keep_result(c, VIEW_KEPT_IDENTITIES, r);
	}
	if (c->ipam_due) {
		r = ipam_save(c->options->state_dir, c->ipam);
		c->ipam_due = r < 0;
		keep_result(c, VIEW_KEPT_IPAM, r);
	}
}
