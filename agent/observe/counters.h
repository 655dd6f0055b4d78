/* SPDX-License-Identifier: Apache-2.0 */
/* Counters of the data plane as JSON. */
#ifndef HEDDLE_OBSERVE_COUNTERS_H
#define HEDDLE_OBSERVE_COUNTERS_H

#include <jansson.h>

#include <observe/view.h>
#include <util/buffer.h>

json_t *counters_json(const struct view *view); /* drops by reason and direction, totals, full tables */
/* {"items": one a rule, with its packets and bytes} as text: there may be 100,000 of them. -ENOMEM, -EIO. */
int rules_text(const struct view *view, struct buffer *text);
json_t *builtin_rules_json(void); /* {"items": name and description} */

#define COUNTERS_RULES_AT_ONCE 4096
typedef int (*counters_rule_cb)(uint32_t id, const struct rule_reference *rule, const struct hd_counter *counter, void *userdata);
/* Every rule of the policy in force, and the built-in ones. Stops at the callback's first non-zero return, and returns it. */
int counters_each_rule(const struct view *view, counters_rule_cb cb, void *userdata);

#endif
