/* SPDX-License-Identifier: Apache-2.0 */
/* The pieces of JSON that several answers share. All return a new reference, or NULL without memory, which jansson's packers refuse. */
#ifndef HEDDLE_OBSERVE_JSON_H
#define HEDDLE_OBSERVE_JSON_H

#include <jansson.h>

#include <observe/view.h>
#include <util/buffer.h>

json_t *json_address(const struct hd_addr *addr);
json_t *json_mac(const uint8_t mac[6]);
/* RFC 3339 in UTC with milliseconds; ms since the epoch. */
json_t *json_time(int64_t ms);
/* {"policy","name","index","direction","file","line","id"}; null for no rule. */
json_t *json_rule(const struct view *view, uint32_t id);
/* Adds of which kind the rule's policy is, and its namespace if it is in one (names alone are not unique), and view_source(). NULL: passed on. */
json_t *json_of_policy(json_t *rule, enum object_kind kind, const char *namespace_, const char *source);
/* Upper-case name, or digits. */
json_t *json_protocol(uint8_t protocol);
/* The device's name, or null when the interface is gone. */
json_t *json_device(const struct view *view, uint32_t ifindex);
/* The peer's name; null for 0. */
json_t *json_peer(const struct view *view, uint32_t peer);
/* Next hops of a peer: [{"device","nextHop","mac"}]. */
json_t *json_ways(const struct view *view, uint32_t peer);
/* NULL becomes null. */
json_t *json_text(const char *text);
/* An array of the lines of text; empty for NULL. */
json_t *json_lines(const char *text);
/* Appends it as compact text and drops the reference. -ENOMEM, also for NULL: what a packer gives without memory. */
int json_write(json_t *json, struct buffer *text);

#endif
