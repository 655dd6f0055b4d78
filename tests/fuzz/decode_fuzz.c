/* SPDX-License-Identifier: Apache-2.0 */
/* Any text: refused with a message, or objects that come back from their own JSON as they were. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <model/content.h>
#include <model/decode.h>
#include <util/buffer.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool good)
{
	if (!good)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct object_list list = {0};
	struct diag diag = {0};
	int r = decode_documents("f", (const char *)data, size, &list, &diag);

	if (r < 0) {
		check(list.n == 0 && diag.text && diag.errors);
	} else {
		check(!diag.text);
		model_validate(&list, &diag);
	}
	for (size_t i = 0; i < list.n; i++) {
		struct buffer text = {0};
		struct object_list again = {0};
		struct diag none = {0};

		encode_text(list.items[i], &text);
		/* Packed rules say the same. */
		object_pack(list.items[i]);
		check(content_hash(list.items[i]) == list.items[i]->hash);
		if (list.items[i]->kind == OBJECT_HOST_POLICY && list.items[i]->policy.n_rules[HD_INGRESS]) {
			struct rule_head head;
			uint32_t last = (uint32_t)list.items[i]->policy.n_rules[HD_INGRESS] - 1;

			check(object_rule_head(list.items[i], HD_INGRESS, last, &head) == 0);
			check(head.line == object_rules(list.items[i], HD_INGRESS)[last].line);
		}
		check(!text.failed && !memchr(text.data, '\n', text.length));
		check(decode_documents(NULL, text.data, text.length, &again, &none) == 0);
		check(again.n == 1 && object_equal(list.items[i], again.items[0]));
		object_list_clear(&again);
		diag_clear(&none);
		buffer_clear(&text);
	}
	object_list_clear(&list);
	diag_clear(&diag);
	return 0;
}
