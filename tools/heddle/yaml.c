/* SPDX-License-Identifier: Apache-2.0 */
/* JSON values as YAML, through libyaml's emitter. */
#include <errno.h>
#include <string.h>
#include <strings.h>
#include <yaml.h>

#include "output.h"

/*
 * Whether a string may stand without quotes and still be read as a string by every YAML 1.1 and 1.2 reader. Careful rather
 * than pretty: addresses, versions and times stay quoted ("1e3" is a number, "1:30" sixty-based, "no" a boolean).
 */
static bool plain_string(const char *text, size_t length)
{
	static const char *const words[] = {"true", "false", "yes", "no", "on", "off", "null", "y", "n", "nan", "inf"};
	static const char inside[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./";

	if (length == 0 || length > 128 || strlen(text) != length || strspn(text, inside) != length)
		return false;
	if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ/", text[0]))
		return false;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (strcasecmp(words[i], text) == 0)
			return false;
	return true;
}

static int emit(yaml_emitter_t *emitter, yaml_event_t *event, int made)
{
	return made && yaml_emitter_emit(emitter, event) ? 0 : -EIO;
}

static int emit_scalar(yaml_emitter_t *emitter, const char *text, size_t length, bool plain)
{
	yaml_event_t event;

	return emit(emitter, &event,
		yaml_scalar_event_initialize(&event, NULL, NULL, (const yaml_char_t *)text, (int)length, 1, 1,
			plain ? YAML_PLAIN_SCALAR_STYLE : YAML_DOUBLE_QUOTED_SCALAR_STYLE));
}

static int emit_value(yaml_emitter_t *emitter, const json_t *value)
{
	yaml_event_t event;
	const json_t *item;
	const char *key;
	char text[64];
	size_t i;
	int r;

	switch (json_typeof(value)) {
	case JSON_OBJECT:
		r = emit(emitter, &event,
			yaml_mapping_start_event_initialize(&event, NULL, NULL, 1,
				json_object_size(value) ? YAML_BLOCK_MAPPING_STYLE : YAML_FLOW_MAPPING_STYLE));
		json_object_foreach ((json_t *)value, key, item) {
			r = r ?: emit_scalar(emitter, key, strlen(key), plain_string(key, strlen(key)));
			r = r ?: emit_value(emitter, item);
		}
		return r ?: emit(emitter, &event, yaml_mapping_end_event_initialize(&event));
	case JSON_ARRAY:
		r = emit(emitter, &event,
			yaml_sequence_start_event_initialize(&event, NULL, NULL, 1,
				json_array_size(value) ? YAML_BLOCK_SEQUENCE_STYLE : YAML_FLOW_SEQUENCE_STYLE));
		json_array_foreach (value, i, item)
			r = r ?: emit_value(emitter, item);
		return r ?: emit(emitter, &event, yaml_sequence_end_event_initialize(&event));
	case JSON_STRING:
		return emit_scalar(emitter, json_string_value(value), json_string_length(value),
			plain_string(json_string_value(value), json_string_length(value)));
	case JSON_INTEGER:
		snprintf(text, sizeof(text), "%" JSON_INTEGER_FORMAT, json_integer_value(value));
		break;
	case JSON_REAL:
		snprintf(text, sizeof(text), "%.17g", json_real_value(value));
		break;
	case JSON_TRUE:
	case JSON_FALSE:
		snprintf(text, sizeof(text), "%s", json_is_true(value) ? "true" : "false");
		break;
	default:
		snprintf(text, sizeof(text), "null");
	}
	return emit_scalar(emitter, text, strlen(text), true);
}

int yaml_write(FILE *file, const json_t *value)
{
	yaml_emitter_t emitter;
	yaml_event_t event;
	int r;

	if (!yaml_emitter_initialize(&emitter))
		return -ENOMEM;
	yaml_emitter_set_output_file(&emitter, file);
	yaml_emitter_set_unicode(&emitter, 1);
	yaml_emitter_set_width(&emitter, -1);
	r = emit(&emitter, &event, yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING));
	r = r ?: emit(&emitter, &event, yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1));
	r = r ?: emit_value(&emitter, value);
	r = r ?: emit(&emitter, &event, yaml_document_end_event_initialize(&event, 1));
	r = r ?: emit(&emitter, &event, yaml_stream_end_event_initialize(&event));
	r = r ?: (yaml_emitter_flush(&emitter) ? 0 : -EIO);
	yaml_emitter_delete(&emitter);
	return r;
}
