/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of agent/source share: a folder for each test, documents in one line. */
#ifndef HEDDLE_TESTS_UNIT_SOURCE_ENV_H
#define HEDDLE_TESTS_UNIT_SOURCE_ENV_H

#include <source/files.h>

#define GROUP(name, cidrs) \
	"{apiVersion: heddle.dev/v1alpha1, kind: AddressGroup, metadata: {name: " name "}, spec: {cidrs: [" cidrs "]}}\n---\n"
#define POLICY(name, group) \
	"{apiVersion: heddle.dev/v1alpha1, kind: HostPolicy, metadata: {name: " name \
	"}, spec: {ingress: [{action: allow, from: [{addressGroup: " group "}]}]}}\n---\n"

int source_set_up(void **state); /* makes the folder */
int source_tear_down(void **state);
#define TEST(function) cmocka_unit_test_setup_teardown(function, source_set_up, source_tear_down)

const char *source_root(void);
const char *at(const char *name);		      /* its path in the folder; good for the next seven calls */
void put_file(const char *name, const char *text);    /* replaced by a rename */
void append_file(const char *name, const char *text); /* in place */

struct object_list decode(const char *file, const char *text);
struct object *decode_one(const char *text);
void assert_objects(const struct object_list *list, const char *names); /* "a b c" */

struct files *open_files(const char *name);
void assert_load(struct files *files, const char *names);
void assert_load_fails(struct files *files, int error, const char *message); /* without the folder's name at its beginning */

#endif
