/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the API server says becomes part of each proposal, and a proposal of its own when it has said something new. What it said last is on
 * disk: an agent that starts while the server is away has the policy of before, not none.
 */
#include <errno.h>
#include <string.h>

#include <controller_internal.h>

#define SAVE_US (10ull * 1000000) /* a crash loses so much at most; what is lost the server says again */
#define AGAIN_US (1ull * 1000000)
#define AGAIN_MOST 6 /* doublings */

static int derive(void *userdata, const struct object_list *base, const struct object_list *cni, struct object_list *ret)
{
	struct controller *c = userdata;

	return kubernetes_derive(c->kubernetes, base, cni, ret);
}

static void refuse(void *userdata, const struct object *object, const char *why)
{
	struct controller *c = userdata;

	kubernetes_refuse(c->kubernetes, object, why);
}

int cluster_open(struct controller *c)
{
	int r;

	if (!c->options->kubernetes)
		return 0;
	r = kubernetes_new(c->options->kubeconfig, c->options->node_name, &c->kubernetes);
	if (r < 0)
		return r;
	c->view.kubernetes = c->kubernetes;
	c->deriver = (struct store_deriver){.derive = derive, .refuse = refuse, .userdata = c};
	c->store.deriver = &c->deriver;
	r = kubernetes_load(c->kubernetes, c->options->state_dir);
	if (r < 0 && r != -ENOENT)
		log_warn(r, "cannot use the last state of the cluster in %s: its policy waits for the API server",
			c->options->state_dir);
	return 0;
}

/* --- keeping it --- */

static int save(struct controller *c)
{
	int r = c->state_taken ? 0 : kubernetes_save(c->kubernetes, c->options->state_dir);

	keep_result(c, VIEW_KEPT_KUBERNETES, r);
	return r;
}

/* A timer that does not run yet. */
static void arm(struct controller *c, sd_event_source **source, uint64_t us, sd_event_time_handler_t handler)
{
	int r, enabled = SD_EVENT_OFF;

	if (!*source) {
		r = sd_event_add_time_relative(c->event, source, CLOCK_MONOTONIC, us, 1000, handler, c);
	} else {
		r = sd_event_source_get_enabled(*source, &enabled);
		if (enabled != SD_EVENT_OFF)
			return;
		if (r >= 0)
			r = sd_event_source_set_time_relative(*source, us);
		if (r >= 0)
			r = sd_event_source_set_enabled(*source, SD_EVENT_ONESHOT);
	}
	if (r < 0)
		log_err(r, "cannot put work off");
}

static int on_save(sd_event_source *source, uint64_t now, void *userdata)
{
	struct controller *c = userdata;

	(void)source, (void)now;
	if (save(c) < 0)
		arm(c, &c->kubernetes_save, SAVE_US, on_save);
	return 0;
}

/* --- making it live --- */

static void on_changed(void *userdata);

static int on_again(sd_event_source *source, uint64_t now, void *userdata)
{
	(void)source, (void)now;
	on_changed(userdata);
	return 0;
}

static void on_changed(void *userdata)
{
	struct controller *c = userdata;
	_cleanup_store_proposal_ struct store_proposal proposal = {0};
	_cleanup_diag_ struct diag diag = {0};
	unsigned doublings = c->kubernetes_failures < AGAIN_MOST ? c->kubernetes_failures : AGAIN_MOST;
	int r;

	arm(c, &c->kubernetes_save, SAVE_US, on_save);
	/* with nothing loaded it is part of what will be */
	if (!c->compiler || c->view.lockdown) {
		c->files_again = c->files_refused;
		change_later(c);
		return;
	}
	r = store_propose_derived(&c->store, &proposal, &diag);
	if (r >= 0)
		r = change_activate(c, &proposal, &diag);
	if (r < 0) {
		if (!diag.text)
			diag_add(&diag, NULL, 0, NULL, "%s", strerror(-r));
		change_error(c, &diag, "what the cluster says cannot be put in force; what was in force stays");
		c->kubernetes_failures++;
		arm(c, &c->kubernetes_again, AGAIN_US << doublings, on_again);
		return;
	}
	if (c->kubernetes_failures && !c->files_refused)
		change_clear_error(c);
	c->kubernetes_failures = 0;
	if (proposal.different)
		change_commit(c, &proposal);
	else
		node_look(c);
}

int cluster_start(struct controller *c)
{
	int r;

	if (!c->kubernetes)
		return 0;
	r = kubernetes_start(c->kubernetes, c->event, on_changed, c);
	return r < 0 ? log_err(r, "cannot follow the API server") : 0;
}

void cluster_free(struct controller *c)
{
	if (c->kubernetes && c->kubernetes_save)
		(void)save(c);
	sd_event_source_disable_unref(c->kubernetes_save);
	sd_event_source_disable_unref(c->kubernetes_again);
	kubernetes_free(c->kubernetes);
	c->kubernetes = NULL;
	c->view.kubernetes = NULL;
}

int cluster_may_connect(const struct controller *c, const struct cni_request *request, struct diag *diag)
{
	const struct kubernetes_wanted wanted = {.namespace_ = request->namespace_,
		.pod = request->pod,
		.uid = request->uid,
		.address = !request->addresses && !request->ranges};
	const char *reason;

	if (!c->kubernetes || strcmp(request->network, kubernetes_network(c->view.host)) != 0)
		return 0;
	reason = kubernetes_waits_for(c->kubernetes, &wanted);
	if (!reason)
		return 0;
	diag_add(diag, NULL, 0, NULL, "%s", reason);
	return -EAGAIN;
}
