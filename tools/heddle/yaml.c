/* SPDX-License-Identifier: Apache-2.0 */
/* JSON values as YAML, through libyaml's emitter. */
#include <errno.h>
#include <stdlib.h>
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

static int begin(yaml_emitter_t *emitter, FILE *file)
{
	yaml_event_t event;
	int r;

	if (!yaml_emitter_initialize(emitter))
		return -ENOMEM;
	yaml_emitter_set_output_file(emitter, file);
	yaml_emitter_set_unicode(emitter, 1);
	yaml_emitter_set_width(emitter, -1);
	r = emit(emitter, &event, yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING));
	return r ?: emit(emitter, &event, yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1));
}

static int end(yaml_emitter_t *emitter)
{
	yaml_event_t event;
	int r = emit(emitter, &event, yaml_document_end_event_initialize(&event, 1));

	r = r ?: emit(emitter, &event, yaml_stream_end_event_initialize(&event));
	return r ?: (yaml_emitter_flush(emitter) ? 0 : -EIO);
}

int yaml_write(FILE *file, const json_t *value)
{
	yaml_emitter_t emitter;
	int r = begin(&emitter, file);

	if (r == -ENOMEM)
		return r;
	r = r ?: emit_value(&emitter, value);
	r = r ?: end(&emitter);
	yaml_emitter_delete(&emitter);
	return r;
}

struct yaml_items {
	yaml_emitter_t emitter;
	int error; /* the first one: what follows it is left out */
};

struct yaml_items *yaml_items_begin(FILE *file)
{
	struct yaml_items *items = calloc(1, sizeof(*items));
	yaml_event_t event;

	if (!items)
		return NULL;
	items->error = begin(&items->emitter, file);
	if (items->error == -ENOMEM) {
		free(items);
		return NULL;
	}
	items->error = items->error
			       ?: emit(&items->emitter, &event,
					  yaml_mapping_start_event_initialize(&event, NULL, NULL, 1, YAML_BLOCK_MAPPING_STYLE));
	items->error = items->error ?: emit_scalar(&items->emitter, "items", 5, true);
	items->error = items->error
			       ?: emit(&items->emitter, &event,
					  yaml_sequence_start_event_initialize(&event, NULL, NULL, 1, YAML_BLOCK_SEQUENCE_STYLE));
	return items;
}

int yaml_items_add(struct yaml_items *items, const json_t *member)
{
	items->error = items->error ?: emit_value(&items->emitter, member);
	return items->error;
}

int yaml_items_end(struct yaml_items *items)
{
	yaml_event_t event;
	int r = items->error;

	r = r ?: emit(&items->emitter, &event, yaml_sequence_end_event_initialize(&event));
	r = r ?: emit(&items->emitter, &event, yaml_mapping_end_event_initialize(&event));
	r = r ?: end(&items->emitter);
	yaml_emitter_delete(&items->emitter);
	free(items);
	return r;
}
