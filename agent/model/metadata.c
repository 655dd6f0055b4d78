// SPDX-License-Identifier: Apache-2.0
/* metadata of every kind, and the Namespace, which is nothing else. */
#include <model/kinds.h>

#include <string.h>

#define NAMESPACE_LABEL "kubernetes.io/metadata.name"
#define AUDIT_ANNOTATION "heddle.dev/audit"

/* --- names that not every object may have --- */

static bool is_network_name(const char *text, size_t length)
{
	return strcmp(text, NETWORK_HOST) != 0 && subdomain_text.valid(text, length);
}

static bool is_baseline_name(const char *text, size_t length)
{
	(void)length;
	return strcmp(text, "default") == 0;
}

static const struct text_type network_name_text = {
	"a name of at most 253 lower-case letters, digits, '-' and '.', other than host, the host's own network",
	is_network_name};
static const struct text_type baseline_name_text = {
	"default, the only name a BaselineAdminNetworkPolicy may have", is_baseline_name};

static const struct text_type *name_text(enum object_kind kind)
{
	switch (kind) {
	case OBJECT_NETWORK:
		return &network_name_text;
	case OBJECT_NAMESPACE:
		return &namespace_text;
	case OBJECT_BASELINE_ADMIN_NETWORK_POLICY:
		return &baseline_name_text;
	default:
		return &subdomain_text;
	}
}

/* --- labels and annotations that mean something --- */

static const char *find_value(const struct label *labels, size_t n, const char *key)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(labels[i].key, key) == 0)
			return labels[i].value;
	return NULL;
}

/* Every Namespace has its name as a label, so that selectors can name it. */
static bool label_namespace(struct decoder *d, const struct path *path, node_id node, struct object *object)
{
	struct path labels = {.up = path, .key = "labels"}, key = {.up = &labels, .key = NAMESPACE_LABEL};
	const char *value = find_value(object->labels, object->n_labels, NAMESPACE_LABEL);
	struct label *grown;
	uint32_t at = 0;

	if (value && strcmp(value, object->name) != 0)
		return want(d, &key, node_field(d, node_field(d, node, "labels"), NAMESPACE_LABEL),
			"%s, as the Namespace is named", object->name);
	if (value)
		return true;
	grown = arena_array(d->arena, struct label, object->n_labels + 1);
	if (!grown)
		return decoder_no_memory(d);
	while (at < object->n_labels && strcmp(object->labels[at].key, NAMESPACE_LABEL) < 0)
		at++;
	if (object->n_labels) {
		memcpy(grown, object->labels, at * sizeof(*grown));
		memcpy(grown + at + 1, object->labels + at, (object->n_labels - at) * sizeof(*grown));
	}
	grown[at] = (struct label){.key = NAMESPACE_LABEL, .value = object->name};
	object->labels = grown;
	object->n_labels++;
	return true;
}

static bool check_audit(struct decoder *d, const struct path *path, node_id node, const struct object *object)
{
	struct path annotations = {.up = path, .key = "annotations"}, key = {.up = &annotations, .key = AUDIT_ANNOTATION};
	const char *value = find_value(object->annotations, object->n_annotations, AUDIT_ANNOTATION);

	if (value && strcmp(value, "true") != 0 && strcmp(value, "false") != 0)
		return want(
			d, &key, node_field(d, node_field(d, node, "annotations"), AUDIT_ANNOTATION), "\"true\" or \"false\"");
	return true;
}

bool metadata_audit(const struct object *object)
{
	const char *value = find_value(object->annotations, object->n_annotations, AUDIT_ANNOTATION);

	return value && strcmp(value, "true") == 0;
}

/* --- the mapping --- */

struct metadata_draft {
	const char *name, *namespace_;
	struct list labels, annotations;
};

static bool refuse_namespace(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	(void)type, (void)out;
	return want(d, path, node, "no namespace: objects of this kind have none");
}

/* What a cluster adds to its objects. */
static const char *const cluster_fields[] = {"generateName", "selfLink", "uid", "resourceVersion", "generation",
	"creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "ownerReferences", "finalizers", "managedFields",
	"clusterName", NULL};

bool value_metadata(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	static const char annotations[] = "annotations";
	enum object_kind kind = *(const enum object_kind *)type;
	bool namespaced = object_kind_namespaced(kind), kubernetes = kind_is_kubernetes(kind);
	const struct field fields[] = {
		{"name", value_text, name_text(kind), offsetof(struct metadata_draft, name), true},
		{"namespace", namespaced ? value_text : refuse_namespace, &namespace_text,
			offsetof(struct metadata_draft, namespace_), false},
		{"labels", value_labels, NULL, offsetof(struct metadata_draft, labels), false},
		{"annotations", value_labels, annotations, offsetof(struct metadata_draft, annotations), false},
	};
	const struct schema schema = {
		.what = "a mapping with name",
		SCHEMA_FIELDS(fields),
		.draft_size = sizeof(struct metadata_draft),
		.null_is_absent = kubernetes,
		.ignored = kubernetes ? cluster_fields : NULL,
	};
	struct metadata_draft draft;
	struct object *object = out;

	if (!value_mapping(d, path, node, &schema, &draft))
		return false;
	object->name = draft.name;
	object->namespace_ = object_kind_namespace(kind, draft.namespace_);
	object->labels = draft.labels.items;
	object->n_labels = (uint32_t)draft.labels.n;
	object->annotations = draft.annotations.items;
	object->n_annotations = (uint32_t)draft.annotations.n;
	if (kind == OBJECT_NAMESPACE)
		return label_namespace(d, path, node, object);
	return !kubernetes || check_audit(d, path, node, object);
}
