/* SPDX-License-Identifier: Apache-2.0 */
/* Documents in tests of the model. A test that they do not suit fails. */
#ifndef HEDDLE_TESTS_MODEL_ENV_H
#define HEDDLE_TESTS_MODEL_ENV_H

#include <model/object.h>

/* Objects of a text named t.yaml. */
struct object_list model_decode(const char *text);
/* The text is refused with exactly these lines. */
void model_refused(const char *text, const char *message);
/* Decodes, but model_validate() refuses the objects with exactly these lines; NULL: it takes them. */
void model_invalid(const char *text, const char *message);
/* The text's object written as JSON, and read again: it is the same, and so is its JSON. */
void model_round_trip(const char *text);

#endif
