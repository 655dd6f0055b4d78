/* SPDX-License-Identifier: Apache-2.0 */
/* Files and applied objects as one: proposals, and what is refused. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <tests/unit/source_env.h>
#include <source/store.h>
#include <util/buffer.h>

static void commit_files(struct store *store, const char *text, const char *names)
{
	_cleanup_object_list_ struct object_list list = decode("f.yaml", text);
	struct store_proposal proposal = {0};
	_cleanup_diag_ struct diag diag = {0};

	if (store_propose_files(store, &list, &proposal, &diag) < 0)
		fail_msg("refused: %s", diag.text);
	store_commit(store, &proposal);
	assert_objects(&store->all, names);
}

static void assert_changes(const struct store_proposal *proposal, const char *expected)
{
	_cleanup_buffer_ struct buffer text = {0};

	buffer_add_string(&text, "");
	for (size_t i = 0; i < proposal->n_changes; i++) {
		const struct store_change *change = &proposal->changes[i];

		buffer_printf(&text, "%s%s %s", i ? ", " : "", (change->after ? change->after : change->before)->name,
			store_change_name(change->kind));
	}
	assert_string_equal(text.data, expected);
}

static int propose_apply(const struct store *store, const char *text, bool pending, struct store_proposal *ret, struct diag *diag)
{
	_cleanup_object_list_ struct object_list list = decode(NULL, text);

	return store_propose_apply(store, &list, pending, ret, diag);
}

static void commit_apply(struct store *store, const char *text, bool pending, const char *changes, const char *names)
{
	struct store_proposal proposal = {0};
	_cleanup_diag_ struct diag diag = {0};

	if (propose_apply(store, text, pending, &proposal, &diag) < 0)
		fail_msg("refused: %s", diag.text);
	assert_changes(&proposal, changes);
	store_commit(store, &proposal);
	assert_objects(&store->all, names);
}

static void test_store(void **state)
{
	_cleanup_store_ struct store store = {0};
	struct store_proposal proposal = {0};
	_cleanup_diag_ struct diag diag = {0};

	(void)state;
	commit_files(&store, POLICY("p", "f") GROUP("f", "") GROUP("e", ""), "e f p");
	commit_apply(&store, GROUP("x", "") POLICY("y", "f"), false, "x created, y created", "e f x p y");
	commit_apply(&store, GROUP("x", "10.0.0.0/8") POLICY("y", "f"), false, "x configured, y unchanged", "e f x p y");
	commit_apply(&store, GROUP("x", "10.0.0.0/8"), false, "x unchanged", "e f x p y");

	/* What a file owns is not the API's. */
	assert_int_equal(propose_apply(&store, GROUP("new", "") GROUP("e", ""), false, &proposal, &diag), -EPERM);
	assert_string_equal(
		diag.text, "line 3: want an object that no file owns, got AddressGroup e of f.yaml:5: change it there");
	assert_null(proposal.changes);
	diag_clear(&diag);
	assert_int_equal(store_propose_delete(&store, OBJECT_ADDRESS_GROUP, NULL, "e", &proposal, &diag), -EPERM);
	diag_clear(&diag);
	assert_int_equal(store_propose_delete(&store, OBJECT_ADDRESS_GROUP, NULL, "nobody", &proposal, &diag), -ENOENT);
	assert_string_equal(diag.text, "there is no AddressGroup nobody");
	diag_clear(&diag);

	/* The whole is checked: a group in use cannot go, from either side. */
	assert_int_equal(propose_apply(&store, POLICY("z", "lost"), false, &proposal, &diag), -EINVAL);
	assert_string_equal(diag.text, "applied HostPolicy z: spec.ingress[0].from[0].addressGroup: want the name of an "
				       "AddressGroup, got lost, which no document "
				       "declares");
	diag_clear(&diag);
	commit_apply(&store, POLICY("z", "x"), false, "z created", "e f x p y z");
	assert_int_equal(store_propose_delete(&store, OBJECT_ADDRESS_GROUP, NULL, "x", &proposal, &diag), -EINVAL);
	diag_clear(&diag);
	_cleanup_object_list_ struct object_list files = decode("f.yaml", GROUP("e", ""));
	assert_int_equal(store_propose_files(&store, &files, &proposal, &diag), -EINVAL);
	assert_string_equal(diag.text, "applied HostPolicy y: spec.ingress[0].from[0].addressGroup: want the name of an "
				       "AddressGroup, got f, which no document "
				       "declares");
	assert_objects(&store.all, "e f x p y z");

	assert_int_equal(store_propose_delete(&store, OBJECT_HOST_POLICY, NULL, "z", &proposal, &diag), 0);
	assert_changes(&proposal, "z deleted");
	assert_true(proposal.different);
	store_commit(&store, &proposal);
	assert_objects(&store.all, "e f x p y");
	assert_null(proposal.changes);
}

static void test_store_files(void **state)
{
	_cleanup_store_ struct store store = {0};
	struct store_proposal proposal = {0};
	_cleanup_diag_ struct diag diag = {0};
	_cleanup_object_list_ struct object_list first = decode("f.yaml", GROUP("a", "") GROUP("b", "") GROUP("c", ""));
	_cleanup_object_list_ struct object_list second =
		decode("f.yaml", GROUP("b", "") GROUP("c", "10.0.0.0/8") GROUP("d", ""));

	(void)state;
	assert_int_equal(store_propose_files(&store, &first, &proposal, &diag), 0);
	assert_changes(&proposal, "a created, b created, c created");
	store_commit(&store, &proposal);
	assert_int_equal(store_propose_files(&store, &first, &proposal, &diag), 0);
	assert_changes(&proposal, "");
	assert_false(proposal.different);
	store_proposal_clear(&proposal);
	assert_int_equal(store_propose_files(&store, &second, &proposal, &diag), 0);
	assert_changes(&proposal, "a deleted, c configured, d created");
	assert_true(proposal.different);
	store_commit(&store, &proposal);
	/* Only moved: nothing changes, but lines do. */
	_cleanup_object_list_ struct object_list moved =
		decode("f.yaml", "\n\n" GROUP("b", "") GROUP("c", "10.0.0.0/8") GROUP("d", ""));
	assert_int_equal(store_propose_files(&store, &moved, &proposal, &diag), 0);
	assert_changes(&proposal, "");
	assert_true(proposal.different);
	store_proposal_clear(&proposal);
	/* What was applied stands in a file's way, and is named. */
	commit_apply(&store, GROUP("z", ""), false, "z created", "b c d z");
	_cleanup_object_list_ struct object_list taken = decode("f.yaml", GROUP("z", ""));
	assert_int_equal(store_propose_files(&store, &taken, &proposal, &diag), -EINVAL);
	assert_string_equal(diag.text, "f.yaml:1: want each object once, got AddressGroup z again (also applied through the API: "
				       "delete it there first)");
}

static void test_store_confirm(void **state)
{
	_cleanup_store_ struct store store = {0};
	struct store_proposal proposal = {0};
	_cleanup_diag_ struct diag diag = {0};

	(void)state;
	commit_files(&store, GROUP("f", ""), "f");
	commit_apply(&store, GROUP("a", ""), false, "a created", "a f");
	assert_int_equal(store_propose_confirm(&store, &proposal, &diag), -ENOENT);
	assert_int_equal(store_propose_rollback(&store, &proposal, &diag), -ENOENT);
	commit_apply(&store, GROUP("a", "10.0.0.0/8") GROUP("b", ""), true, "a configured, b created", "a b f");
	assert_true(store.pending);

	diag_clear(&diag);
	assert_int_equal(propose_apply(&store, GROUP("c", ""), false, &proposal, &diag), -EBUSY);
	assert_string_equal(diag.text, "an apply waits for its confirmation: confirm it, or wait until it is rolled back");
	diag_clear(&diag);
	assert_int_equal(store_propose_delete(&store, OBJECT_ADDRESS_GROUP, NULL, "a", &proposal, &diag), -EBUSY);
	diag_clear(&diag);

	/* Files go on changing, but may not lean on what may be rolled back. */
	commit_files(&store, GROUP("f", "") POLICY("p", "a"), "a b f p");
	_cleanup_object_list_ struct object_list leaning = decode("f.yaml", POLICY("p", "b"));
	assert_int_equal(store_propose_files(&store, &leaning, &proposal, &diag), -EINVAL);
	assert_string_equal(diag.text, "f.yaml:1: spec.ingress[0].from[0].addressGroup: want the name of an AddressGroup, got b, "
				       "which no document declares\n"
				       "this would hold once the unconfirmed apply is rolled back: confirm it first");
	diag_clear(&diag);

	assert_int_equal(store_propose_rollback(&store, &proposal, &diag), 0);
	assert_changes(&proposal, "a configured, b deleted");
	assert_false(proposal.next.pending);
	store_commit(&store, &proposal);
	assert_objects(&store.all, "a f p");

	commit_apply(&store, GROUP("b", ""), true, "b created", "a b f p");
	assert_int_equal(store_propose_confirm(&store, &proposal, &diag), 0);
	assert_changes(&proposal, "");
	assert_false(proposal.different);
	store_commit(&store, &proposal);
	assert_false(store.pending);
	assert_objects(&store.all, "a b f p");
}

static void test_store_start(void **state)
{
	_cleanup_store_ struct store store = {0};
	struct store_proposal proposal = {0};
	_cleanup_diag_ struct diag diag = {0};
	_cleanup_object_list_ struct object_list applied = decode(NULL, GROUP("b", "") GROUP("a", ""));
	_cleanup_object_list_ struct object_list before = decode(NULL, GROUP("a", ""));

	(void)state;
	assert_int_equal(store_propose_applied(&store, &applied, &before, &proposal, &diag), 0);
	store_commit(&store, &proposal);
	assert_objects(&store.all, "a b");
	assert_true(store.pending);
	assert_int_equal(store_propose_rollback(&store, &proposal, &diag), 0);
	store_commit(&store, &proposal);
	assert_objects(&store.all, "a");
}

/* The CNI plugin's ports: nobody else's to change, and there whatever files and applies do. */
static void test_store_cni(void **state)
{
	_cleanup_object_list_ struct object_list cni = decode(NULL, GROUP("c", "10.0.0.0/8")), none = {0};
	_cleanup_store_ struct store store = {0};
	struct store_proposal proposal = {0};
	_cleanup_diag_ struct diag diag = {0};

	(void)state;
	commit_files(&store, GROUP("e", ""), "e");
	assert_int_equal(store_propose_cni(&store, &cni, &proposal, &diag), 0);
	assert_changes(&proposal, "c created");
	store_commit(&store, &proposal);
	assert_objects(&store.all, "c e");
	assert_int_equal(propose_apply(&store, GROUP("c", ""), false, &proposal, &diag), -EACCES);
	assert_string_equal(diag.text,
		"line 1: want an object that nobody else owns, got AddressGroup c of the CNI plugin: it goes with its container");
	diag_clear(&diag);
	assert_int_equal(store_propose_delete(&store, OBJECT_ADDRESS_GROUP, NULL, "c", &proposal, &diag), -EACCES);
	diag_clear(&diag);
	commit_apply(&store, GROUP("x", ""), false, "x created", "c e x");
	commit_files(&store, GROUP("f", ""), "c f x");
	/* while an apply waits, and after it is rolled back */
	commit_apply(&store, POLICY("p", "x"), true, "p created", "c f x p");
	assert_int_equal(store_propose_cni(&store, &none, &proposal, &diag), 0);
	store_commit(&store, &proposal);
	assert_objects(&store.all, "f x p");
	assert_int_equal(store_propose_cni(&store, &cni, &proposal, &diag), 0);
	store_commit(&store, &proposal);
	assert_int_equal(store_propose_rollback(&store, &proposal, &diag), 0);
	store_commit(&store, &proposal);
	assert_objects(&store.all, "c f x");
	/* what needs the unconfirmed apply would be wrong once that is rolled back */
	commit_apply(&store, GROUP("late", ""), true, "late created", "c f late x");
	_cleanup_object_list_ struct object_list needing = decode(NULL, POLICY("q", "late"));
	assert_int_equal(store_propose_cni(&store, &needing, &proposal, &diag), -EINVAL);
	assert_non_null(strstr(diag.text, "confirm it first"));
}

/* --- what follows from the others --- */

struct world {
	struct object_list objects; /* sorted */
	struct buffer refused;
};

static int derive(void *userdata, const struct object_list *base, const struct object_list *cni, struct object_list *ret)
{
	struct world *world = userdata;
	int r = 0;

	for (size_t i = 0; i < world->objects.n && r == 0; i++) {
		struct object *object = world->objects.items[i];
		bool is_cni = object_list_find(cni, object->kind, NULL, object->name) != NULL;

		if (is_cni || !object_list_find(base, object->kind, NULL, object->name))
			r = object_list_add(ret, object);
	}
	return r;
}

static void refuse(void *userdata, const struct object *object, const char *why)
{
	struct world *world = userdata;

	assert_non_null(strstr(why, "which no document declares"));
	buffer_printf(&world->refused, "%s ", object->name);
}

static void test_store_derived(void **state)
{
	struct world world = {.objects = decode(NULL, GROUP("c", "10.0.0.0/8") GROUP("own", "") POLICY("a", "f")
							      POLICY("b", "none") POLICY("d", "own") POLICY("e", "nobody"))};
	const struct store_deriver deriver = {.derive = derive, .refuse = refuse, .userdata = &world};
	_cleanup_store_ struct store store = {.deriver = &deriver};
	_cleanup_object_list_ struct object_list cni = decode(NULL, GROUP("c", ""));
	struct store_proposal proposal = {0};
	_cleanup_diag_ struct diag diag = {0};

	(void)state;
	object_list_sort(&world.objects);
	/* the two that nothing is wrong with stay, whatever is beside them */
	commit_files(&store, GROUP("f", ""), "c f own a d");
	assert_string_equal(world.refused.data, "b e ");
	/* in the place of the plugin's own, and never beside it */
	assert_int_equal(store_propose_cni(&store, &cni, &proposal, &diag), 0);
	assert_int_equal(proposal.n_changes, 0);
	store_commit(&store, &proposal);
	assert_objects(&store.all, "c f own a d");
	assert_int_equal(object_list_find(&store.all, OBJECT_ADDRESS_GROUP, NULL, "c")->group.n_cidrs, 1);
	/* what they need goes, and they go with it: files are not refused for them */
	commit_files(&store, GROUP("none", ""), "c none own b d");
	/* a file's own comes first; what is theirs cannot be applied */
	commit_files(&store, GROUP("none", "") POLICY("d", "none"), "c none own b d");
	assert_string_equal(object_list_find(&store.all, OBJECT_HOST_POLICY, NULL, "d")->file, "f.yaml");
	assert_int_equal(propose_apply(&store, GROUP("own", "10.0.0.0/8"), false, &proposal, &diag), -EACCES);
	assert_non_null(strstr(diag.text, "of the cluster"));
	diag_clear(&diag);
	/* a mistake of the files' own is theirs */
	_cleanup_object_list_ struct object_list bad = decode("f.yaml", POLICY("x", "missing"));
	assert_int_equal(store_propose_files(&store, &bad, &proposal, &diag), -EINVAL);
	assert_non_null(strstr(diag.text, "missing"));
	/* asked for again by itself, and over an apply and its rollback */
	commit_apply(&store, GROUP("nobody", ""), true, "nobody created, e created", "c nobody none own b d e");
	object_list_clear(&world.objects);
	world.objects = (struct object_list){0};
	assert_int_equal(store_propose_derived(&store, &proposal, &diag), 0);
	store_commit(&store, &proposal);
	assert_objects(&store.all, "c nobody none d");
	buffer_clear(&world.refused);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_store),
		TEST(test_store_files),
		TEST(test_store_confirm),
		TEST(test_store_start),
		TEST(test_store_cni),
		TEST(test_store_derived),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
