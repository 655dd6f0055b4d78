/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes, each in the order that keeps a crash harmless: propose (all of it checked), record on disk, make live, commit.
 * What nobody waits for comes after the answer.
 */
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include <controller_internal.h>
#include <observe/json.h>
#include <util/clock.h>

#define LATER_US 5000	       /* the answer is on its way by then */
#define KEEP_AGAIN_US 10000000 /* until what could not be written is tried again */

/* --- what can wait --- */

static void compact(struct controller *c, struct applied *log, const char *what)
{
	int r = log && applied_wants_compaction(log) ? applied_compact(log) : 0;

	if (r < 0)
		log_warn(r, "cannot compact the %s in %s", what, c->options->state_dir);
}

static void put_off(struct controller *c, uint64_t us)
{
	(void)sd_event_source_set_time_relative(c->later, us);
	(void)sd_event_source_set_enabled(c->later, SD_EVENT_ONESHOT);
}

static int on_later(sd_event_source *source, uint64_t now, void *userdata)
{
	struct controller *c = userdata;

	(void)source;
	(void)now;
	policy_settle(c);
	if (c->files_again) {
		c->files_again = false;
		change_files(c);
	}
	keep_due(c);
	compact(c, c->applied, "applied objects");
	compact(c, c->cni, "CNI plugin's ports");
	object_list_pack(&c->store.all);
	malloc_trim(0);
	if (!c->state_taken && (c->save || c->remember || c->ipam_due))
		put_off(c, KEEP_AGAIN_US);
	return 0;
}

void change_later(struct controller *c)
{
	int r;

	if (c->later) {
		put_off(c, LATER_US);
		return;
	}
	r = sd_event_add_time_relative(c->event, &c->later, CLOCK_MONOTONIC, LATER_US, 1000, on_later, c);
	if (r >= 0)
		(void)sd_event_source_set_priority(c->later, SD_EVENT_PRIORITY_IDLE);
	else
		log_err(r, "cannot put work off");
}

/* --- errors --- */

void change_error(struct controller *c, const struct diag *diag, const char *what)
{
	free(c->last_error);
	c->last_error = NULL;
	if (asprintf(&c->last_error, "%s%s%s", what, diag && diag->text ? "\n" : "", diag && diag->text ? diag->text : "") < 0)
		c->last_error = NULL;
	c->view.last_error = c->last_error ? c->last_error : what;
	c->view.last_error_time = (int64_t)(clock_wall_us() / 1000);
	log_err(0, "%s", c->view.last_error);
}

void change_clear_error(struct controller *c)
{
	free(c->last_error);
	c->last_error = NULL;
	c->view.last_error = NULL;
}

/* --- committing --- */

void change_commit(struct controller *c, struct store_proposal *proposal)
{
	store_commit(&c->store, proposal);
	/* A name that was taken, or a group that was missing, may have been all that the files were refused for. */
	c->files_again = c->files_refused;
	c->view.confirm_before = c->applied ? (int64_t)(applied_deadline(c->applied) / 1000) : 0;
	change_later(c);
	node_look(c);
}

/* --- the files --- */

int change_activate(struct controller *c, struct store_proposal *proposal, struct diag *diag)
{
	/* under lockdown, or with nothing loaded, also what has not changed is to be made live */
	if (!proposal->different && c->compiler && !c->view.lockdown)
		return 0;
	return policy_activate(c, &proposal->next.all, false, diag);
}

void change_files(struct controller *c)
{
	_cleanup_store_proposal_ struct store_proposal proposal = {0};
	struct object_list list = {0};
	struct diag diag = {0};
	int r;

	keep_files(c);
	r = files_load(c->files, &list, &diag);
	if (r >= 0)
		r = store_propose_files(&c->store, &list, &proposal, &diag);
	if (r >= 0)
		r = change_activate(c, &proposal, &diag);
	if (r < 0) {
		files_discard(c->files);
		if (!diag.text)
			diag_add(&diag, NULL, 0, NULL, "%s", strerror(-r));
		change_error(c, &diag, "the configuration was refused; what was in force stays in force");
		c->files_refused = true;
	} else {
		c->files_refused = false;
		if (proposal.different)
			log_info("configuration in force: generation %u", c->view.generation);
		change_clear_error(c);
		c->save = true;
		change_commit(c, &proposal);
	}
	object_list_clear(&list);
	diag_clear(&diag);
}

/* --- start --- */

static int try_start(struct controller *c, const struct object_list *files, struct diag *diag)
{
	_cleanup_store_proposal_ struct store_proposal proposal = {0};
	int r = store_propose_files(&c->store, files, &proposal, diag);

	if (r >= 0)
		r = policy_activate(c, &proposal.next.all, false, diag);
	if (r >= 0)
		change_commit(c, &proposal);
	return r;
}

static int copy_list(struct object_list *to, const struct object_list *from)
{
	int r = 0;

	for (size_t i = 0; r >= 0 && from && i < from->n; i++)
		r = object_list_add(to, from->items[i]);
	return r;
}

/* Before the files, which may name applied groups: all is checked together. */
static int place_applied(struct controller *c)
{
	int r;

	if (!c->applied)
		return 0;
	r = copy_list(&c->store.applied, applied_objects(c->applied));
	if (r >= 0 && applied_before(c->applied)) {
		r = copy_list(&c->store.before, applied_before(c->applied));
		c->store.pending = true;
	}
	return r;
}

static int lock_down(struct controller *c)
{
	struct object *host = rescue_host(c->options->config, c->options->n_config);
	struct object_list list = {0};
	struct diag diag = {0};
	int r;

	if (!host)
		return -ENOENT;
	r = object_list_add(&list, host);
	if (r >= 0)
		r = policy_activate(c, &list, true, &diag);
	if (r < 0)
		log_err(r, "cannot lock the uplinks down%s%s", diag.text ? ": " : "", diag.text ? diag.text : "");
	else
		log_warn(0, "no valid policy: the uplinks of %s admit failsafe ports, ARP, ND and DHCP only", host->name);
	object_list_clear(&list);
	object_unref(host);
	diag_clear(&diag);
	return r;
}

static int start_from_last_good(struct controller *c)
{
	struct object_list list = {0};
	struct diag diag = {0};
	int r = c->state_taken ? -ENOENT : files_load_last_good(c->options->state_dir, &list, &diag);

	if (r >= 0)
		r = try_start(c, &list, &diag);
	if (r >= 0)
		log_warn(0, "the last good state is in force: generation %u", c->view.generation);
	else if (r != -ENOENT)
		log_err(r, "the last good state cannot be used%s%s", diag.text ? ": " : "", diag.text ? diag.text : "");
	object_list_clear(&list);
	diag_clear(&diag);
	return r;
}

static int keep_adopted(struct controller *c)
{
	c->view.adopted = true;
	c->view.datapath = c->datapath;
	c->view.generation = datapath_last_generation(c->datapath);
	log_err(0, "what an earlier agent put in force is left as it is");
	return -EINVAL;
}

int change_start(struct controller *c)
{
	struct object_list list = {0};
	struct diag diag = {0};
	int r, loaded;

	r = applied_open(c->options->state_dir, &c->applied, &diag);
	if (r < 0) {
		c->state_taken = r == -EBUSY;
		if (c->state_taken)
			diag_add(&diag, NULL, 0, NULL, "%s: another agent has it; give each its own --state-dir",
				c->options->state_dir);
		else if (!diag.text)
			diag_add(&diag, NULL, 0, NULL, "%s: %s", c->options->state_dir, strerror(-r));
		change_error(c, &diag, "the applied objects cannot be read: none is in force, and none can be applied");
		diag_clear(&diag);
	}
	r = c->applied ? cni_start(c, &diag) : 0;
	if (r < 0) {
		if (!diag.text)
			diag_add(&diag, NULL, 0, NULL, "%s: %s", c->options->state_dir, strerror(-r));
		change_error(c, &diag, "the CNI plugin's ports cannot be read: none is in force, and none can be added");
		diag_clear(&diag);
	}
	/* What an earlier agent put in force was judged with them: without them it is not to be replaced. */
	if ((!c->applied || !c->cni) && datapath_last_generation(c->datapath))
		return keep_adopted(c);
	r = place_applied(c);
	if (r >= 0)
		r = cni_place(c);
	if (r < 0)
		return r;

	loaded = r = files_load(c->files, &list, &diag);
	if (r >= 0)
		r = try_start(c, &list, &diag);
	if (r >= 0) {
		c->save = true;
		change_later(c);
	} else {
		if (!diag.text)
			diag_add(&diag, NULL, 0, NULL, "%s", strerror(-r));
		change_error(c, &diag, "the configuration was refused");
		files_discard(c->files);
		r = start_from_last_good(c);
		c->files_refused = true; /* not before, or committing that would have them tried again */
	}
	/* An earlier agent's policy in force is a last good state too: it is better than closing the uplinks. */
	if (r < 0 && loaded >= 0 && c->store.applied.n + c->store.cni.n) {
		struct store without = {.deriver = c->store.deriver};

		log_err(0, "trying the files without the applied objects");
		store_clear(&c->store);
		c->store = without;
		diag_clear(&diag);
		r = try_start(c, &list, &diag);
	}
	if (r < 0 && !datapath_last_generation(c->datapath))
		r = lock_down(c);
	object_list_clear(&list);
	diag_clear(&diag);
	if (r >= 0)
		return 0;
	if (datapath_last_generation(c->datapath))
		return keep_adopted(c);
	if (r != -ENOENT)
		return r;
	log_err(0, "nothing is attached: no Host document could be decoded");
	return -EINVAL;
}

/* --- applying --- */

static int on_confirm_deadline(sd_event_source *source, uint64_t now, void *userdata)
{
	struct controller *c = userdata;
	_cleanup_store_proposal_ struct store_proposal proposal = {0};
	struct diag diag = {0};
	int r;

	(void)source;
	(void)now;
	if (!c->applied || !applied_deadline(c->applied))
		return 0;
	r = store_propose_rollback(&c->store, &proposal, &diag);
	if (r >= 0)
		r = policy_activate(c, &proposal.next.all, c->view.lockdown, &diag);
	if (r >= 0) {
		/* recorded after it is in force: killed in between, the next start rolls back by the deadline on disk */
		r = applied_rollback(c->applied);
		if (r < 0)
			log_err(r, "cannot record the rollback in %s: the next start will do it again", c->options->state_dir);
		change_commit(c, &proposal);
		c->view.confirm_before = 0;
		log_warn(0, "not confirmed in time: rolled back, generation %u", c->view.generation);
	} else {
		change_error(c, &diag, "the unconfirmed apply cannot be rolled back");
	}
	diag_clear(&diag);
	return 0;
}

int change_arm_confirm(struct controller *c)
{
	uint64_t deadline = c->applied ? applied_deadline(c->applied) : 0;
	int r;

	c->view.confirm_before = (int64_t)(deadline / 1000);
	if (!deadline) {
		if (c->confirm)
			(void)sd_event_source_set_enabled(c->confirm, SD_EVENT_OFF);
		return 0;
	}
	if (!c->confirm)
		return sd_event_add_time(c->event, &c->confirm, CLOCK_REALTIME, deadline, 10000, on_confirm_deadline, c);
	r = sd_event_source_set_time(c->confirm, deadline);
	return r < 0 ? r : sd_event_source_set_enabled(c->confirm, SD_EVENT_ONESHOT);
}

static json_t *change_items(const struct store_proposal *proposal)
{
	json_t *items = json_array();

	for (size_t i = 0; i < proposal->n_changes; i++) {
		const struct store_change *change = &proposal->changes[i];
		const struct object *object = change->after ? change->after : change->before;
		json_t *item = json_pack("{s:s, s:s, s:s}", "kind", object_kind_name(object->kind), "name", object->name,
			"result", store_change_name(change->kind));

		if (item && object->namespace_)
			json_object_set_new(item, "namespace", json_string(object->namespace_));
		json_array_append_new(items, item);
	}
	return items;
}

static json_t *change_answer(const struct controller *c, json_t *items)
{
	return json_pack("{s:o, s:I, s:o}", "items", items, "generation", (json_int_t)c->view.generation, "confirmBefore",
		c->view.confirm_before ? json_time(c->view.confirm_before) : json_null());
}

/* Changes build on what is in force. Without the files' objects that would be something else than was meant. */
int change_may(const struct controller *c, struct diag *diag)
{
	if (!c->applied) {
		diag_add(diag, NULL, 0, NULL, "the state directory cannot be used, see `heddle status`");
		return -EIO;
	}
	if (!c->compiler || c->view.lockdown) {
		diag_add(diag, NULL, 0, NULL, "the configured files are not in force: mend them first, see `heddle status`");
		return -EINVAL;
	}
	return 0;
}

/* Names what could not be written. */
static int recorded(const struct controller *c, int r, struct diag *diag)
{
	if (r < 0 && r != -ENOENT && r != -ENOMEM && !diag->text)
		diag_add(diag, applied_path(c->applied), 0, NULL, "cannot be written: nothing is changed");
	return r;
}

/* What has been recorded is made live, or taken back. */
static int activate_recorded(struct controller *c, struct store_proposal *proposal, struct diag *diag)
{
	int r = change_activate(c, proposal, diag), undone;

	if (r >= 0)
		return 0;
	undone = applied_undo(c->applied);
	if (undone < 0)
		log_err(undone, "cannot take back what was recorded in %s", c->options->state_dir);
	return r;
}

static int op_apply(void *userdata, const struct object_list *objects, uint64_t confirm_ms, json_t **ret, struct diag *diag)
{
	struct controller *c = userdata;
	_cleanup_store_proposal_ struct store_proposal proposal = {0};
	uint64_t deadline = confirm_ms ? clock_wall_us() + confirm_ms * 1000 : 0;
	json_t *items;
	int r = change_may(c, diag);

	if (r < 0)
		return r;
	r = store_propose_apply(&c->store, objects, confirm_ms > 0, &proposal, diag);
	if (r < 0)
		return r;
	items = change_items(&proposal);
	/* nothing to roll back, nothing to wait for */
	if (!proposal.different) {
		*ret = change_answer(c, items);
		return 0;
	}
	r = recorded(c, applied_put(c->applied, objects->items, objects->n, deadline), diag);
	if (r >= 0)
		r = activate_recorded(c, &proposal, diag);
	if (r < 0) {
		json_decref(items);
		return r;
	}
	change_commit(c, &proposal);
	r = change_arm_confirm(c);
	if (r < 0)
		log_err(r, "cannot set the timer of the rollback: the next start does it");
	*ret = change_answer(c, items);
	return 0;
}

static int op_remove(
	void *userdata, enum object_kind kind, const char *namespace_, const char *name, json_t **ret, struct diag *diag)
{
	struct controller *c = userdata;
	_cleanup_store_proposal_ struct store_proposal proposal = {0};
	json_t *items;
	int r = change_may(c, diag);

	if (r < 0)
		return r;
	r = store_propose_delete(&c->store, kind, namespace_, name, &proposal, diag);
	if (r < 0)
		return r;
	items = change_items(&proposal);
	r = recorded(c, applied_remove(c->applied, kind, namespace_, name), diag);
	if (r >= 0)
		r = activate_recorded(c, &proposal, diag);
	if (r < 0) {
		json_decref(items);
		return r;
	}
	change_commit(c, &proposal);
	*ret = change_answer(c, items);
	return 0;
}

static int op_confirm(void *userdata, json_t **ret, struct diag *diag)
{
	struct controller *c = userdata;
	_cleanup_store_proposal_ struct store_proposal proposal = {0};
	int r = change_may(c, diag);

	if (r < 0)
		return r;
	r = store_propose_confirm(&c->store, &proposal, diag);
	if (r >= 0)
		r = recorded(c, applied_confirm(c->applied), diag);
	if (r < 0) {
		if (r == -ENOENT && !diag->text)
			diag_add(diag, NULL, 0, NULL, "no apply waits for a confirmation");
		return r;
	}
	change_commit(c, &proposal);
	(void)change_arm_confirm(c);
	*ret = change_answer(c, json_array());
	return 0;
}

/* --- diff --- */

static bool is_among(const struct object_list *list, const struct object *object)
{
	for (size_t i = 0; i < list->n; i++)
		if (!object_compare(list->items[i], object))
			return true;
	return false;
}

/* The whole as it would be: it must be valid. Files' objects may be looked at too, so it is no proposal. */
static int make_whole(const struct controller *c, const struct object_list *objects, struct object_list *ret, struct diag *diag)
{
	int r = copy_list(ret, objects);

	for (size_t i = 0; r >= 0 && i < c->store.all.n; i++)
		if (!is_among(objects, c->store.all.items[i]))
			r = object_list_add(ret, c->store.all.items[i]);
	if (r >= 0)
		object_list_sort(ret);
	return r < 0 ? r : model_validate_change(ret, &c->store.all, diag);
}

static void write_difference(const struct object *before, const struct object *after, struct buffer *text)
{
	const char *change = !before ? "create" : object_equal(before, after) ? "none" : "update";
	json_t *item = json_pack("{s:s, s:s, s:o, s:s, s:o}", "kind", object_kind_name(after->kind), "name", after->name,
		"namespace", json_text(after->namespace_), "change", change, "file", json_text(before ? before->file : NULL));

	if (json_write(item, text) < 0) {
		text->failed = true;
		return;
	}
	/* reopened, for the documents: as text they need no tree of nodes */
	text->length--;
	buffer_add_string(text, ",\"before\":");
	if (before && strcmp(change, "none"))
		encode_text(before, text);
	else
		buffer_add_string(text, "null");
	buffer_add_string(text, ",\"after\":");
	if (strcmp(change, "none"))
		encode_text(after, text);
	else
		buffer_add_string(text, "null");
	buffer_add_char(text, '}');
}

static int op_diff(void *userdata, const struct object_list *objects, struct buffer *text, struct diag *diag)
{
	struct controller *c = userdata;
	_cleanup_object_list_ struct object_list whole = {0};
	int r = make_whole(c, objects, &whole, diag);

	if (r < 0)
		return r;
	buffer_add_string(text, "{\"items\":[");
	for (size_t i = 0; i < objects->n; i++) {
		const struct object *after = objects->items[i];

		if (i)
			buffer_add_char(text, ',');
		write_difference(object_list_find(&c->store.all, after->kind, after->namespace_, after->name), after, text);
	}
	buffer_add_string(text, "]}\n");
	return text->failed ? -ENOMEM : 0;
}

static int op_whole(void *userdata, const struct object_list *objects, struct object_list *ret, struct diag *diag)
{
	return make_whole(userdata, objects, ret, diag);
}

/* --- preview --- */

static int make_image(
	const struct object_list *all, const struct networks *networks, struct policy_image **ret, struct diag *diag)
{
	const struct object *host_object = policy_host(all);
	const struct host *host = host_object ? &host_object->host : &policy_no_host;
	const struct policy_input input = {.host = host, .objects = all, .networks = networks};
	struct compiler_limits limits;
	struct compiler *compiler;
	struct policy_delta *delta;
	int r = policy_compile_fresh(1, NULL, &(struct compiler_limits){0}, &input, &compiler, &limits, &delta, diag);

	return r < 0 ? r : policy_image_new(compiler, delta, host, ret);
}

/* Both policies are compiled anew: what they say is compared like with like, and nothing in force is touched. */
static int op_preview(void *userdata, const struct object_list *objects, struct preview **ret, struct diag *diag)
{
	struct controller *c = userdata;
	_cleanup_object_list_ struct object_list whole = {0};
	_cleanup_(policy_image_free_p) struct policy_image *now = NULL, *then = NULL;
	const struct object *host;
	int r = change_may(c, diag);

	if (r >= 0)
		r = make_whole(c, objects, &whole, diag);
	if (r < 0)
		return r;
	host = policy_host(&whole);
	r = networks_assign(c->networks, &whole, diag);
	if (r >= 0)
		r = ports_check(&whole, host ? &host->host : &policy_no_host, c->networks, diag);
	if (r >= 0)
		r = make_image(&whole, c->networks, &then, diag);
	networks_abort(c->networks);
	if (r >= 0)
		r = make_image(&c->store.all, c->networks, &now, diag);
	if (r < 0)
		return r;
	r = preview_new(&c->view, TAKE_PTR(now), TAKE_PTR(then), ret);
	/* those that are not in force too: the answer may take its time */
	object_list_pack(&whole);
	return r;
}

static void op_tidy(void *userdata)
{
	change_later(userdata);
}

const struct api_ops change_ops = {.apply = op_apply,
	.remove = op_remove,
	.confirm = op_confirm,
	.diff = op_diff,
	.preview = op_preview,
	.whole = op_whole,
	.cni = cni_change,
	.vfs = vfs_list,
	.tidy = op_tidy};
