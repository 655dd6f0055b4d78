// SPDX-License-Identifier: Apache-2.0
#include <source/store.h>

#include <errno.h>
#include <stdlib.h>

#include <util/cleanup.h>

void store_clear(struct store *store)
{
	object_list_clear(&store->files);
	object_list_clear(&store->applied);
	object_list_clear(&store->cni);
	object_list_clear(&store->before);
	object_list_clear(&store->derived);
	object_list_clear(&store->all);
	*store = (struct store){0};
}

void store_proposal_clear(struct store_proposal *proposal)
{
	store_clear(&proposal->next);
	free(proposal->changes);
	*proposal = (struct store_proposal){0};
}

void store_commit(struct store *store, struct store_proposal *proposal)
{
	struct store old = *store;

	*store = proposal->next;
	proposal->next = (struct store){0};
	store_clear(&old);
	store_proposal_clear(proposal);
}

const char *store_change_name(enum store_change_kind kind)
{
	static const char *const names[] = {
		[STORE_CREATED] = "created",
		[STORE_CHANGED] = "configured",
		[STORE_REMOVED] = "deleted",
		[STORE_UNCHANGED] = "unchanged",
	};

	return names[kind];
}

static int copy_list(struct object_list *to, const struct object_list *from)
{
	int r = 0;

	for (size_t i = 0; i < from->n && r == 0; i++)
		r = object_list_add(to, from->items[i]);
	return r;
}

/* Both sorted. Equal keys stay beside each other: model_validate() refuses them. */
static int merge_lists(struct object_list *to, const struct object_list *a, const struct object_list *b)
{
	size_t i = 0, j = 0;
	int r = 0;

	while (r == 0 && (i < a->n || j < b->n)) {
		if (j == b->n || (i < a->n && object_compare(a->items[i], b->items[j]) <= 0))
			r = object_list_add(to, a->items[i++]);
		else
			r = object_list_add(to, b->items[j++]);
	}
	return r;
}

/* A change in each step of two sorted lists. touched (may be NULL): what is named in changes even when it stays the same. */
static int find_changes(const struct object_list *old, const struct object_list *new, const struct object_list *touched,
	struct store_proposal *proposal)
{
	size_t i = 0, j = 0;

	proposal->changes = calloc(old->n + new->n + 1, sizeof(*proposal->changes));
	if (!proposal->changes)
		return -ENOMEM;
	while (i < old->n || j < new->n) {
		struct store_change *change = &proposal->changes[proposal->n_changes];
		int order = i == old->n ? 1 : j == new->n ? -1 : object_compare(old->items[i], new->items[j]);

		change->before = order <= 0 ? old->items[i++] : NULL;
		change->after = order >= 0 ? new->items[j++] : NULL;
		if (order != 0)
			change->kind = order < 0 ? STORE_REMOVED : STORE_CREATED;
		else
			change->kind = object_equal(change->before, change->after) ? STORE_UNCHANGED : STORE_CHANGED;
		/* A new object with the old content may stand in other lines. */
		proposal->different |= change->before != change->after;
		if (change->kind != STORE_UNCHANGED || (touched && object_list_find(touched, change->after->kind,
									   change->after->namespace_, change->after->name)))
			proposal->n_changes++;
	}
	return 0;
}

/* All that is derived from nothing: files', applied ones, and the CNI plugin's. */
static int merge_base(struct object_list *to, const struct store *next, const struct object_list *applied)
{
	_cleanup_object_list_ struct object_list documents = {0};
	int r = merge_lists(&documents, &next->files, applied);

	return r < 0 ? r : merge_lists(to, &documents, &next->cni);
}

/* A derived object stands for one of the CNI plugin's of the same name. */
static int merge_derived(struct object_list *to, const struct object_list *base, const struct object_list *derived)
{
	size_t i = 0, j = 0;
	int r = 0;

	while (r == 0 && (i < base->n || j < derived->n)) {
		int order = i == base->n ? 1 : j == derived->n ? -1 : object_compare(base->items[i], derived->items[j]);

		r = object_list_add(to, order < 0 ? base->items[i] : derived->items[j]);
		i += order <= 0;
		j += order >= 0;
	}
	return r;
}

static int validate_with(const struct object_list *base, const struct object_list *derived, struct diag *diag)
{
	_cleanup_object_list_ struct object_list all = {0};
	int r = merge_derived(&all, base, derived);

	return r < 0 ? r : model_validate(&all, diag);
}

/* Of candidates, those that can be had beside base and good are added to good; the others are refused, found by halving. */
static int add_good(
	const struct store *store, const struct object_list *base, const struct object_list *candidates, struct object_list *good)
{
	_cleanup_object_list_ struct object_list with = {0}, first = {0}, second = {0};
	_cleanup_diag_ struct diag diag = {0};
	int r = copy_list(&with, good);

	if (r == 0)
		r = copy_list(&with, candidates);
	if (r < 0 || candidates->n == 0)
		return r;
	object_list_sort(&with);
	r = validate_with(base, &with, &diag);
	if (r == 0) {
		struct object_list old = *good;

		*good = with;
		with = old;
		return 0;
	}
	if (r != -EINVAL)
		return r;
	if (candidates->n == 1) {
		store->deriver->refuse(store->deriver->userdata, candidates->items[0], diag.text ? diag.text : "it is invalid");
		return 0;
	}
	r = 0;
	for (size_t i = 0; i < candidates->n && r == 0; i++)
		r = object_list_add(i < candidates->n / 2 ? &first : &second, candidates->items[i]);
	if (r == 0)
		r = add_good(store, base, &first, good);
	return r < 0 ? r : add_good(store, base, &second, good);
}

/*
 * The whole of next with these applied objects, checked; valid: what is in force. What is wrong with derived objects is no reason to refuse the
 * others.
 */
static int compose(const struct store *next, const struct object_list *applied, struct object_list *derived,
	struct object_list *all, const struct object_list *valid, struct diag *diag)
{
	const struct store_deriver *deriver = next->deriver;
	_cleanup_object_list_ struct object_list base = {0}, good = {0};
	_cleanup_diag_ struct diag ignored = {0};
	int r = merge_base(&base, next, applied);

	if (r == 0 && deriver)
		r = deriver->derive(deriver->userdata, &base, &next->cni, derived);
	if (r == 0)
		r = merge_derived(all, &base, derived);
	if (r < 0 || derived->n == 0)
		return r < 0 ? r : model_validate_change(all, valid, diag);
	r = model_validate_change(all, valid, &ignored);
	if (r != -EINVAL)
		return r;
	r = model_validate(&base, diag);
	if (r == 0)
		r = add_good(next, &base, derived, &good);
	if (r < 0)
		return r;
	object_list_clear(derived);
	*derived = good;
	good = (struct object_list){0};
	object_list_clear(all);
	*all = (struct object_list){0};
	return merge_derived(all, &base, derived);
}

/* Fills in next.all and the changes, and checks the whole. */
static int complete(
	const struct store *store, struct store_proposal *proposal, const struct object_list *touched, struct diag *diag)
{
	struct store *next = &proposal->next;
	int r;

	next->deriver = store->deriver;
	r = compose(next, &next->applied, &next->derived, &next->all, &store->all, diag);
	if (r == 0 && next->pending) {
		_cleanup_object_list_ struct object_list derived = {0}, rolled_back = {0};

		r = compose(next, &next->before, &derived, &rolled_back, &store->all, diag);
		if (r == -EINVAL)
			diag_add(diag, NULL, 0, NULL,
				"this would hold once the unconfirmed apply is rolled back: confirm it first");
	}
	if (r == 0)
		r = find_changes(&store->all, &next->all, touched, proposal);
	return r;
}

/* The end of each proposal: *ret is written only when all went well. */
static int finish(int r, const struct store *store, struct store_proposal *proposal, const struct object_list *touched,
	struct store_proposal *ret, struct diag *diag)
{
	if (r == 0)
		r = complete(store, proposal, touched, diag);
	if (r < 0) {
		store_proposal_clear(proposal);
		return r;
	}
	*ret = *proposal;
	return 0;
}

/* What a change of applied objects leaves alone. */
static int copy_rest(const struct store *store, struct store_proposal *proposal)
{
	int r = copy_list(&proposal->next.files, &store->files);

	return r < 0 ? r : copy_list(&proposal->next.cni, &store->cni);
}

int store_propose_files(const struct store *store, const struct object_list *files, struct store_proposal *ret, struct diag *diag)
{
	struct store_proposal proposal = {.next.pending = store->pending};
	int r;

	r = copy_list(&proposal.next.files, files);
	if (r == 0)
		r = copy_list(&proposal.next.cni, &store->cni);
	if (r == 0)
		object_list_sort(&proposal.next.files);
	if (r == 0)
		r = copy_list(&proposal.next.applied, &store->applied);
	if (r == 0)
		r = copy_list(&proposal.next.before, &store->before);
	return finish(r, store, &proposal, NULL, ret, diag);
}

int store_propose_applied(const struct store *store, const struct object_list *applied, const struct object_list *before,
	struct store_proposal *ret, struct diag *diag)
{
	struct store_proposal proposal = {.next.pending = before != NULL};
	int r;

	r = copy_rest(store, &proposal);
	if (r == 0)
		r = copy_list(&proposal.next.applied, applied);
	if (r == 0 && before)
		r = copy_list(&proposal.next.before, before);
	object_list_sort(&proposal.next.applied);
	object_list_sort(&proposal.next.before);
	return finish(r, store, &proposal, NULL, ret, diag);
}

int store_propose_cni(const struct store *store, const struct object_list *cni, struct store_proposal *ret, struct diag *diag)
{
	struct store_proposal proposal = {.next.pending = store->pending};
	int r = copy_list(&proposal.next.files, &store->files);

	if (r == 0)
		r = copy_list(&proposal.next.applied, &store->applied);
	if (r == 0)
		r = copy_list(&proposal.next.before, &store->before);
	if (r == 0)
		r = copy_list(&proposal.next.cni, cni);
	object_list_sort(&proposal.next.cni);
	return finish(r, store, &proposal, NULL, ret, diag);
}

int store_propose_derived(const struct store *store, struct store_proposal *ret, struct diag *diag)
{
	return store_propose_cni(store, &store->cni, ret, diag);
}

static int refuse_while_pending(const struct store *store, struct diag *diag)
{
	if (!store->pending)
		return 0;
	diag_add(diag, NULL, 0, NULL, "an apply waits for its confirmation: confirm it, or wait until it is rolled back");
	return -EBUSY;
}

/* line: of the document that was to be applied; 0: none. */
static int refuse_owned(const struct store *store, enum object_kind kind, const char *namespace_, const char *name, uint32_t line,
	struct diag *diag)
{
	const struct object *owner = object_list_find(&store->files, kind, namespace_, name);
	char title[OBJECT_TITLE_MAX];

	if (object_list_find(&store->cni, kind, namespace_, name)) {
		diag_add(diag, NULL, line, NULL,
			"want an object that nobody else owns, got %s of the CNI plugin: it goes with its container",
			object_title(kind, namespace_, name, title));
		return -EACCES;
	}
	/* what was applied may have got something from the cluster: it is still the applied one */
	if (!owner && !object_list_find(&store->applied, kind, namespace_, name) &&
		object_list_find(&store->derived, kind, namespace_, name)) {
		diag_add(diag, NULL, line, NULL, "want an object that nobody else owns, got %s of the cluster: change it there",
			object_title(kind, namespace_, name, title));
		return -EACCES;
	}
	if (!owner)
		return 0;
	diag_add(diag, NULL, line, NULL, "want an object that no file owns, got %s of %s:%u: change it there",
		object_title(kind, namespace_, name, title), owner->file, owner->line);
	return -EPERM;
}

int store_propose_apply(
	const struct store *store, const struct object_list *objects, bool pending, struct store_proposal *ret, struct diag *diag)
{
	struct store_proposal proposal = {.next.pending = pending};
	_cleanup_object_list_ struct object_list touched = {0};
	size_t j = 0;
	int r, owned = 0;

	r = refuse_while_pending(store, diag);
	if (r < 0)
		return r;
	for (size_t i = 0; i < objects->n; i++) {
		const struct object *object = objects->items[i];

		r = refuse_owned(store, object->kind, object->namespace_, object->name, object->line, diag);
		owned = r < 0 ? r : owned;
	}
	if (owned < 0)
		return owned;

	r = copy_list(&touched, objects);
	object_list_sort(&touched);
	if (r == 0)
		r = copy_rest(store, &proposal);
	if (r == 0 && pending)
		r = copy_list(&proposal.next.before, &store->applied);
	/* The applied ones, those of the same name replaced. What stays the same keeps its old object: nothing moves. */
	for (size_t i = 0; r == 0 && (i < store->applied.n || j < touched.n);) {
		struct object *old = i < store->applied.n ? store->applied.items[i] : NULL;
		struct object *new = j < touched.n ? touched.items[j] : NULL;
		int order = !old ? 1 : !new ? -1 : object_compare(old, new);

		r = object_list_add(&proposal.next.applied, order < 0 || (order == 0 && object_equal(old, new)) ? old : new);
		i += order <= 0;
		j += order >= 0;
	}
	return finish(r, store, &proposal, &touched, ret, diag);
}

int store_propose_delete(const struct store *store, enum object_kind kind, const char *namespace_, const char *name,
	struct store_proposal *ret, struct diag *diag)
{
	struct store_proposal proposal = {0};
	char title[OBJECT_TITLE_MAX];
	int r;

	r = refuse_owned(store, kind, namespace_, name, 0, diag);
	if (r == 0)
		r = refuse_while_pending(store, diag);
	if (r < 0)
		return r;
	const struct object *gone = object_list_find(&store->applied, kind, namespace_, name);
	if (!gone) {
		diag_add(diag, NULL, 0, NULL, "there is no %s", object_title(kind, namespace_, name, title));
		return -ENOENT;
	}
	r = copy_rest(store, &proposal);
	for (size_t i = 0; r == 0 && i < store->applied.n; i++)
		if (store->applied.items[i] != gone)
			r = object_list_add(&proposal.next.applied, store->applied.items[i]);
	return finish(r, store, &proposal, NULL, ret, diag);
}

static int propose_settled(
	const struct store *store, const struct object_list *applied, struct store_proposal *ret, struct diag *diag)
{
	if (!store->pending) {
		diag_add(diag, NULL, 0, NULL, "no apply waits for its confirmation");
		return -ENOENT;
	}
	return store_propose_applied(store, applied, NULL, ret, diag);
}

int store_propose_confirm(const struct store *store, struct store_proposal *ret, struct diag *diag)
{
	return propose_settled(store, &store->applied, ret, diag);
}

int store_propose_rollback(const struct store *store, struct store_proposal *ret, struct diag *diag)
{
	return propose_settled(store, &store->before, ret, diag);
}
