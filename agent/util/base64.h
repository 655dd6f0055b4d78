/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HEDDLE_UTIL_BASE64_H
#define HEDDLE_UTIL_BASE64_H

#include <stddef.h>

/* RFC 4648 section 4, with padding; white space between is passed over. *ret is malloc()ed and has a NUL behind its end. -EINVAL. */
int base64_decode(const char *text, char **ret, size_t *ret_length);

#endif
