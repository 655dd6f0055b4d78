/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <observe/json.h>
#include <observe/names.h>
#include <util/addr.h>

json_t *json_address(const struct hd_addr *addr)
{
	char text[ADDR_TEXT_MAX];

	addr_format(addr, text);
	return json_string(text);
}

json_t *json_time(int64_t ms)
{
	time_t seconds = ms / 1000;
	struct tm utc;
	char text[64];
	size_t length;

	if (!gmtime_r(&seconds, &utc))
		return json_null();
	length = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &utc);
	snprintf(text + length, sizeof(text) - length, ".%03dZ", (int)(ms % 1000));
	return json_string(text);
}

/* Names come from documents (valid UTF-8) or from a map that an older agent filled (cut anywhere): the latter may not be. */
json_t *json_text(const char *text)
{
	json_t *json;

	if (!text)
		return json_null();
	json = json_string(text);
	return json ? json : json_string("?");
}

json_t *json_of_policy(json_t *rule, enum object_kind kind, const char *namespace_, const char *source)
{
	if (rule)
		json_object_set_new(rule, "kind", json_string(object_kind_name(kind)));
	if (rule && namespace_)
		json_object_set_new(rule, "namespace", json_text(namespace_));
	if (rule)
		json_object_set_new(rule, "source", json_string(source));
	return rule;
}

json_t *json_rule(const struct view *view, uint32_t id)
{
	struct rule_reference rule;
	json_t *json;

	if (id == HD_RULE_NONE)
		return json_null();
	if (id < HD_RULE_BUILTIN_COUNT)
		rule = (struct rule_reference){.policy = "builtin", .name = builtin_rule_name(id), .builtin = true};
	else if (!view->compiler || compiler_rule(view->compiler, id, &rule) < 0)
		return json_pack("{s:n, s:n, s:n, s:n, s:n, s:n, s:I}", "policy", "name", "index", "direction", "file", "line",
			"id", (json_int_t)id);
	if (rule.builtin)
		return json_pack("{s:o, s:o, s:n, s:n, s:n, s:n, s:I}", "policy", json_text(rule.policy), "name",
			json_text(rule.name), "index", "direction", "file", "line", "id", (json_int_t)id);
	json = json_pack("{s:o, s:o, s:I, s:s, s:o, s:o, s:I}", "policy", json_text(rule.policy), "name", json_text(rule.name),
		"index", (json_int_t)rule.index, "direction", direction_name(rule.direction), "file", json_text(rule.file),
		"line", rule.file ? json_integer(rule.line) : json_null(), "id", (json_int_t)id);
	return json_of_policy(
		json, rule.kind, rule.namespace_, view_source(view, rule.kind, rule.namespace_, rule.policy, rule.file));
}

json_t *json_protocol(uint8_t protocol)
{
	char buffer[PROTOCOL_NAME_MAX];

	return json_string(protocol_name(protocol, buffer));
}

json_t *json_device(const struct view *view, uint32_t ifindex)
{
	const struct netdev *device = view_device(view, ifindex);

	return device ? json_string(device->name) : json_null();
}

json_t *json_peer(const struct view *view, uint32_t peer)
{
	char name[VIEW_PEER_MAX];

	return peer ? json_text(view_peer_name(view, peer, name)) : json_null();
}

json_t *json_mac(const uint8_t mac[6])
{
	char text[MAC_TEXT_MAX];

	return json_string(mac_format(mac, text));
}

json_t *json_ways(const struct view *view, uint32_t peer)
{
	const struct underlay_state *state = view->underlay ? underlay_find(view->underlay, peer) : NULL;
	json_t *items = json_array();

	for (size_t i = 0; state && i < state->n; i++)
		json_array_append_new(
			items, json_pack("{s:o, s:o, s:o}", "device", json_device(view, state->way[i].ifindex), "nextHop",
				       json_address(&state->next_hop[i]), "mac", json_mac(state->way[i].destination)));
	return items;
}

json_t *json_lines(const char *text)
{
	json_t *lines = json_array();

	while (text && *text) {
		size_t length = strcspn(text, "\n");

		if (length)
			json_array_append_new(lines, json_stringn_nocheck(text, length));
		text += length;
		text += *text == '\n';
	}
	return lines;
}

static int append(const char *data, size_t size, void *userdata)
{
	struct buffer *text = userdata;

	buffer_add(text, data, size);
	return text->failed ? -1 : 0;
}

int json_write(json_t *json, struct buffer *text)
{
	int r = json ? json_dump_callback(json, append, text, JSON_COMPACT) : -1;

	json_decref(json);
	return r ? -ENOMEM : 0;
}
