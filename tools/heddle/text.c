/* SPDX-License-Identifier: Apache-2.0 */
/* Fields of an answer as people read them. Nothing here trusts the answer's shape: an older or newer daemon must not crash us. */
#include <stdarg.h>
#include <string.h>

#include "output.h"

const char *string_at(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

const char *text_at(const json_t *object, const char *key)
{
	const char *text = string_at(object, key);

	return text && *text ? text : "-";
}

long long number_at(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);

	return json_is_real(value) ? (long long)json_real_value(value) : json_integer_value(value);
}

bool true_at(const json_t *object, const char *key)
{
	return json_is_true(json_object_get(object, key));
}

const char *endpoint_text(const json_t *object, const char *address_key, const char *port_key, char out[TEXT_MAX])
{
	const char *address = text_at(object, address_key);
	const json_t *port = json_object_get(object, port_key);

	/* ICMP flows have an identifier instead of ports */
	if (json_is_integer(port) && !json_object_get(object, "icmpId"))
		snprintf(out, TEXT_MAX, strchr(address, ':') ? "[%s]:%" JSON_INTEGER_FORMAT : "%s:%" JSON_INTEGER_FORMAT, address,
			json_integer_value(port));
	else
		snprintf(out, TEXT_MAX, "%s", address);
	return out;
}

const char *behind_text(
	const json_t *object, const char *address_key, const char *port_key, const char *peer_key, char out[TEXT_MAX])
{
	const char *peer = string_at(object, peer_key);
	size_t length;

	endpoint_text(object, address_key, port_key, out);
	length = strlen(out);
	if (peer)
		snprintf(out + length, TEXT_MAX - length, " (%s)", peer);
	return out;
}

const char *rule_text(const json_t *rule, char out[TEXT_MAX])
{
	const char *policy = string_at(rule, "policy"), *name = string_at(rule, "name"),
		   *namespace_ = string_at(rule, "namespace");
	const json_t *index = json_object_get(rule, "index");

	if (json_is_string(rule))
		snprintf(out, TEXT_MAX, "%s", json_string_value(rule));
	else if (policy && name && *name)
		snprintf(out, TEXT_MAX, "%s/%s", policy, name);
	else if (policy && json_is_integer(index))
		snprintf(out, TEXT_MAX, "%s%s%s#%" JSON_INTEGER_FORMAT, namespace_ ?: "", namespace_ ? "/" : "", policy,
			json_integer_value(index));
	else
		snprintf(out, TEXT_MAX, "%s", policy ? policy : name && *name ? name : "-");
	return out;
}

const char *title_text(const json_t *object, char out[TITLE_MAX])
{
	const char *namespace_ = string_at(object, "namespace");

	snprintf(out, TITLE_MAX, "%s/%s%s%s", text_at(object, "kind"), namespace_ ? namespace_ : "", namespace_ ? "/" : "",
		text_at(object, "name"));
	return out;
}

const char *origin_text(const json_t *rule, char out[TEXT_MAX])
{
	const char *file = string_at(rule, "file"), *policy = string_at(rule, "policy"),
		   *source = string_at(rule, "source") ?: "api";

	if (file && json_is_integer(json_object_get(rule, "line")))
		snprintf(out, TEXT_MAX, "%s:%lld", file, number_at(rule, "line"));
	else if (file)
		snprintf(out, TEXT_MAX, "%s", file);
	else
		snprintf(out, TEXT_MAX, "%s",
			!policy				 ? "-"
			: strcmp(policy, "builtin") == 0 ? "built in"
			: strcmp(source, "api") == 0	 ? "applied"
							 : source);
	return out;
}

const char *duration_text(double seconds, char out[TEXT_MAX])
{
	unsigned long long s = seconds > 0 ? (unsigned long long)seconds : 0;

	if (seconds <= 0)
		snprintf(out, TEXT_MAX, "0s");
	else if (seconds < 1)
		snprintf(out, TEXT_MAX, "%.0fms", seconds * 1000);
	else if (s < 60)
		snprintf(out, TEXT_MAX, "%llus", s);
	else if (s < 3600)
		snprintf(out, TEXT_MAX, "%llum%02llus", s / 60, s % 60);
	else if (s < 86400)
		snprintf(out, TEXT_MAX, "%lluh%02llum", s / 3600, s / 60 % 60);
	else
		snprintf(out, TEXT_MAX, "%llud%02lluh", s / 86400, s / 3600 % 24);
	return out;
}

const char *bytes_text(double bytes, char out[TEXT_MAX])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	size_t u = 0;

	for (; bytes >= 1024 && u + 1 < sizeof(units) / sizeof(units[0]); u++)
		bytes /= 1024;
	snprintf(out, TEXT_MAX, u ? "%.1f %s" : "%.0f %s", bytes, units[u]);
	return out;
}

/* Appends to a text that may already be full. */
static void add(char out[TEXT_MAX], const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(char out[TEXT_MAX], const char *format, ...)
{
	size_t length = strlen(out);
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(out + length, TEXT_MAX - length, format, arguments);
	va_end(arguments);
}

const char *packet_text(const json_t *packet, char out[TEXT_MAX])
{
	const json_t *vlan = json_object_get(packet, "vlan"), *flags = json_object_get(packet, "tcpFlags"), *item;
	char source[TEXT_MAX], destination[TEXT_MAX];
	size_t i;

	snprintf(out, TEXT_MAX, "%s", text_at(packet, "protocol"));
	if (string_at(packet, "source"))
		add(out, " %s > %s", behind_text(packet, "source", "sourcePort", "sourcePeer", source),
			behind_text(packet, "destination", "destinationPort", "destinationPeer", destination));
	if (string_at(packet, "etherType"))
		snprintf(out, TEXT_MAX, "EtherType %s", text_at(packet, "etherType"));
	if (!string_at(packet, "source") && string_at(packet, "sourcePeer"))
		add(out, " from %s", text_at(packet, "sourcePeer"));
	if (!string_at(packet, "source") && string_at(packet, "destinationPeer"))
		add(out, " to %s", text_at(packet, "destinationPeer"));
	if (json_is_integer(json_object_get(packet, "icmpType")))
		add(out, " type %lld code %lld", number_at(packet, "icmpType"), number_at(packet, "icmpCode"));
	if (json_is_string(flags) && *json_string_value(flags))
		add(out, " [%s]", json_string_value(flags));
	if (json_is_integer(json_object_get(packet, "icmpId")))
		add(out, " id %lld", number_at(packet, "icmpId"));
	json_array_foreach (vlan, i, item)
		add(out, "%s%" JSON_INTEGER_FORMAT, i ? "," : " vlan ", json_integer_value(item));
	if (json_is_integer(json_object_get(packet, "length")))
		add(out, " %lld bytes", number_at(packet, "length"));
	return out;
}

bool print_lost(const json_t *line)
{
	if (strcmp(text_at(line, "type"), "lost") != 0)
		return false;
	printf("... %lld lines were lost here\n", number_at(line, "count"));
	return true;
}

void print_details(FILE *file, const json_t *object)
{
	const json_t *detail, *details = json_object_get(object, "details");
	size_t i;

	json_array_foreach (details, i, detail) {
		if (!json_is_string(detail))
			continue;
		fputs("  ", file);
		print_text(file, json_string_value(detail));
		fputc('\n', file);
	}
}
