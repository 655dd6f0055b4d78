/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HEDDLE_MODEL_CONTENT_H
#define HEDDLE_MODEL_CONTENT_H

#include <model/object.h>

/* The hash of everything an object says: two documents that differ in form, in line numbers or in defaults left out are the same.
 */
uint64_t content_hash(const struct object *object);

#endif
