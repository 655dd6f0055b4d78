/* SPDX-License-Identifier: Apache-2.0 */
#include <source/cni.h>

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <util/addr.h>
#include <util/cleanup.h>
#include <util/hash.h>

/* --- requests --- */

static bool take_text(const json_t *body, const char *key, bool needed, const char **ret, struct diag *diag)
{
	const json_t *value = json_object_get(body, key);

	*ret = NULL;
	if (!value || json_is_null(value)) {
		if (needed)
			diag_add(diag, NULL, 0, key, "want text, got nothing");
		return !needed;
	}
	*ret = json_string_value(value);
	if (!*ret || !**ret || strlen(*ret) != json_string_length(value)) {
		diag_add(diag, NULL, 0, key, "want text that is not empty");
		return false;
	}
	return true;
}

static bool take_json(const json_t *body, const char *key, json_type type, const json_t **ret, struct diag *diag)
{
	const json_t *value = json_object_get(body, key);

	*ret = NULL;
	if (!value || json_is_null(value))
		return true;
	if (json_typeof(value) != type) {
		diag_add(diag, NULL, 0, key, "want %s", type == JSON_ARRAY ? "a list" : "a mapping");
		return false;
	}
	*ret = value;
	return true;
}

int cni_parse(const json_t *body, bool whole, struct cni_request *ret, struct diag *diag)
{
	struct cni_request request = {0};
	bool good = true;

	if (!json_is_object(body)) {
		diag_add(diag, NULL, 0, NULL, "want a mapping");
		return -EINVAL;
	}
	good &= take_text(body, "name", true, &request.key.name, diag);
	good &= take_text(body, "containerID", true, &request.key.container, diag);
	good &= take_text(body, "ifname", true, &request.key.interface, diag);
	if (whole) {
		good &= take_text(body, "network", true, &request.network, diag);
		good &= take_text(body, "pci", false, &request.pci, diag);
		good &= take_text(body, "device", !request.pci, &request.device, diag);
		good &= take_json(body, "vf", JSON_OBJECT, &request.vf, diag);
		good &= take_text(body, "namespace", false, &request.namespace_, diag);
		good &= take_text(body, "pod", false, &request.pod, diag);
		good &= take_text(body, "uid", false, &request.uid, diag);
		good &= take_text(body, "mac", false, &request.mac, diag);
		good &= take_json(body, "labels", JSON_OBJECT, &request.labels, diag);
		good &= take_json(body, "ips", JSON_ARRAY, &request.ips, diag);
		good &= take_json(body, "addresses", JSON_ARRAY, &request.addresses, diag);
		good &= take_json(body, "ranges", JSON_ARRAY, &request.ranges, diag);
		good &= take_json(body, "hostPorts", JSON_ARRAY, &request.host_ports, diag);
		good &= take_json(body, "bandwidth", JSON_OBJECT, &request.bandwidth, diag);
	}
	if (!good)
		return -EINVAL;
	*ret = request;
	return 0;
}

/* --- names --- */

/* As a DNS label: what cannot be in one becomes '-'. Those that can be stay as they are. */
static void as_label(const char *text, size_t max, const char *otherwise, char *ret)
{
	size_t n = 0;

	for (; *text && n < max; text++) {
		bool good = isalnum((unsigned char)*text) != 0;

		if (good || n)
			ret[n++] = good ? (char)tolower((unsigned char)*text) : '-';
	}
	while (n && ret[n - 1] == '-')
		n--;
	ret[n] = '\0';
	if (!n)
		snprintf(ret, max + 1, "%s", otherwise);
}

static uint32_t key_number(const struct cni_key *key)
{
	uint64_t hash = hash_string(hash_string(hash_string(1, key->name), key->container), key->interface);

	return (uint32_t)(hash ^ hash >> 32);
}

static void port_name(const struct cni_request *request, char ret[80])
{
	char base[64];

	/* a container's name is long, and its beginning is what other tools show */
	as_label(request->pod ? request->pod : request->key.container, request->pod ? 63 : 12, "container", base);
	snprintf(ret, 80, "%s-%08x", base, key_number(&request->key));
}

static bool is_label_value(const char *text)
{
	size_t n = strlen(text);

	if (n == 0 || n > 63 || !isalnum((unsigned char)text[0]) || !isalnum((unsigned char)text[n - 1]))
		return false;
	for (; *text; text++)
		if (!isalnum((unsigned char)*text) && !strchr("-_.", *text))
			return false;
	return true;
}

/* --- the port --- */

static json_t *labels_of(const struct cni_request *request)
{
	json_t *labels = request->labels ? json_deep_copy(request->labels) : json_object();

	/* a name may be longer than a label may be: such a pod is found by its other labels */
	if (request->pod && is_label_value(request->pod))
		json_object_set_new(labels, CNI_LABEL_POD, json_string(request->pod));
	if (request->namespace_ && is_label_value(request->namespace_))
		json_object_set_new(labels, CNI_LABEL_NAMESPACE, json_string(request->namespace_));
	return labels;
}

static json_t *addresses_of(const struct hd_addr *addresses, size_t n)
{
	json_t *items = json_array();
	char text[ADDR_TEXT_MAX];

	for (size_t i = 0; i < n; i++)
		json_array_append_new(items, json_string(addr_format(&addresses[i], text)));
	return items;
}

int cni_make_port(const struct cni_request *request, const char *mac, const struct hd_addr *addresses, size_t n_addresses,
	struct object **ret, struct diag *diag)
{
	_cleanup_object_list_ struct object_list list = {0};
	_cleanup_free_ char *text = NULL;
	char name[80], namespace_[64];
	json_t *document;
	int r;

	port_name(request, name);
	as_label(request->namespace_ ? request->namespace_ : "", 63, OBJECT_NAMESPACE_DEFAULT, namespace_);
	document = json_pack("{s:s, s:s, s:{s:s, s:s, s:o, s:{s:s, s:s, s:s}}, s:{s:s, s:s, s:s, s:o}}", "apiVersion",
		object_kind_version(OBJECT_PORT), "kind", object_kind_name(OBJECT_PORT), "metadata", "name", name, "namespace",
		namespace_, "labels", labels_of(request), "annotations", CNI_ANNOTATION_NAME, request->key.name,
		CNI_ANNOTATION_CONTAINER, request->key.container, CNI_ANNOTATION_INTERFACE, request->key.interface, "spec",
		request->pci ? "pci" : "device", request->pci ?: request->device, "network", request->network, "mac",
		mac ? mac : request->mac, "addresses", addresses_of(addresses, n_addresses));
	if (document && request->pod && !is_label_value(request->pod))
		json_object_set_new(json_object_get(json_object_get(document, "metadata"), "annotations"), CNI_ANNOTATION_POD,
			json_string(request->pod));
	if (document && request->host_ports)
		json_object_set(json_object_get(document, "spec"), "hostPorts", (json_t *)request->host_ports);
	if (document && request->pci && request->vf)
		json_object_set(json_object_get(document, "spec"), "vf", (json_t *)request->vf);
	if (document && request->bandwidth)
		json_object_set(json_object_get(document, "spec"), "bandwidth", (json_t *)request->bandwidth);
	text = document ? json_dumps(document, JSON_COMPACT) : NULL;
	json_decref(document);
	if (!text)
		return -ENOMEM;
	r = decode_documents(NULL, text, strlen(text), &list, diag);
	if (r < 0)
		return r;
	if (list.n != 1)
		return -EINVAL;
	*ret = object_ref(list.items[0]);
	return 0;
}

/* --- finding it again --- */

struct cni_key cni_key_of(const struct object *port)
{
	struct cni_key key = {0};

	for (uint32_t i = 0; i < port->n_annotations; i++) {
		const struct label *annotation = &port->annotations[i];

		if (!strcmp(annotation->key, CNI_ANNOTATION_NAME))
			key.name = annotation->value;
		else if (!strcmp(annotation->key, CNI_ANNOTATION_CONTAINER))
			key.container = annotation->value;
		else if (!strcmp(annotation->key, CNI_ANNOTATION_INTERFACE))
			key.interface = annotation->value;
	}
	return key.name && key.container && key.interface ? key : (struct cni_key){0};
}

bool cni_key_equal(const struct cni_key *a, const struct cni_key *b)
{
	return a->name && b->name && !strcmp(a->container, b->container) && !strcmp(a->interface, b->interface) &&
	       !strcmp(a->name, b->name);
}

struct object *cni_find(const struct object_list *ports, const struct cni_key *key)
{
	for (size_t i = 0; i < ports->n; i++) {
		struct cni_key other = cni_key_of(ports->items[i]);

		if (cni_key_equal(&other, key))
			return ports->items[i];
	}
	return NULL;
}

void cni_alias(const struct cni_key *key, char ret[CNI_ALIAS_MAX])
{
	snprintf(ret, CNI_ALIAS_MAX, "heddle:%s:%s", key->container, key->interface);
}
