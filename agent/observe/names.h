/* SPDX-License-Identifier: Apache-2.0 */
/* The words that people and scripts see for the numbers of include/heddle. Never NULL: "?" for a number that has none. */
#ifndef HEDDLE_OBSERVE_NAMES_H
#define HEDDLE_OBSERVE_NAMES_H

#include <stdint.h>

const char *verdict_name(unsigned verdict);
const char *direction_name(unsigned direction);
const char *hook_name(unsigned hook); /* the program that runs there */
const char *reason_name(unsigned reason);
const char *reason_text(unsigned reason);
const char *flow_state_name(unsigned state);
const char *table_name(unsigned table);
const char *builtin_rule_name(unsigned id);
const char *builtin_rule_text(unsigned id);

#define PROTOCOL_NAME_MAX 16
/* Upper case; the number in digits where the protocol has no name here. buffer holds PROTOCOL_NAME_MAX. */
const char *protocol_name(uint8_t protocol, char *buffer);
/* A name in any case, or a number in digits. -1: neither. */
int protocol_from_name(const char *name);

#endif
