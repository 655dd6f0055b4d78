/* SPDX-License-Identifier: Apache-2.0 */
#include "model_env.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <model/content.h>
#include <model/decode.h>
#include <util/buffer.h>

struct object_list model_decode(const char *text)
{
	_cleanup_diag_ struct diag diag = {0};
	struct object_list list = {0};

	if (decode_documents("t.yaml", text, strlen(text), &list, &diag) < 0)
		fail_msg("refused: %s", diag.text);
	assert_null(diag.text);
	return list;
}

void model_refused(const char *text, const char *message)
{
	_cleanup_diag_ struct diag diag = {0};
	struct object_list list = {0};

	if (decode_documents("t.yaml", text, strlen(text), &list, &diag) != -EINVAL)
		fail_msg("taken, but want: %s", message);
	assert_int_equal(list.n, 0);
	assert_non_null(diag.text);
	assert_string_equal(diag.text, message);
}

void model_invalid(const char *text, const char *message)
{
	_cleanup_object_list_ struct object_list list = model_decode(text);
	_cleanup_diag_ struct diag diag = {0};
	int r = model_validate(&list, &diag);

	assert_int_equal(r, diag.text ? -EINVAL : 0);
	if (message && !diag.text)
		fail_msg("valid, but want: %s", message);
	if (!message && diag.text)
		fail_msg("invalid: %s", diag.text);
	if (message)
		assert_string_equal(diag.text, message);
}

void model_round_trip(const char *text)
{
	_cleanup_object_list_ struct object_list list = model_decode(text);

	for (size_t i = 0; i < list.n; i++) {
		_cleanup_buffer_ struct buffer first = {0}, second = {0};

		encode_text(list.items[i], &first);
		assert_false(first.failed);
		_cleanup_object_list_ struct object_list again = model_decode(first.data);
		assert_int_equal(again.n, 1);
		encode_text(again.items[0], &second);
		assert_string_equal(first.data, second.data);
		assert_true(object_equal(list.items[i], again.items[0]));
		assert_true(content_hash(list.items[i]) == list.items[i]->hash);
	}
}
