// SPDX-License-Identifier: Apache-2.0
/*
 * This node as others see it: the labels of its Node, and its InternalIPs, as those of the Host, whose place it takes. Other Nodes are Peers, which
 * have theirs; by both, `nodes` peers of policies find them.
 */
#include <source/kubernetes_internal.h>

#include <errno.h>
#include <string.h>

#include <model/kinds.h>
#include <util/addr.h>
#include <util/hash.h>
#include <util/log.h>

static void add_labels(json_t *metadata, const json_t *node)
{
	json_t *theirs = json_object_get(json_object_get(node, "metadata"), "labels"), *own = json_object_get(metadata, "labels");

	if (own && theirs)
		json_object_update(own, theirs);
	else if (theirs)
		json_object_set(metadata, "labels", theirs);
}

static bool has(const json_t *list, const char *text)
{
	const json_t *item;
	size_t i;

	json_array_foreach (list, i, item)
		if (strcmp(json_string_value(item), text) == 0)
			return true;
	return false;
}

static void add_addresses(json_t *spec, const json_t *node)
{
	const json_t *item, *tunnel = json_object_get(json_object_get(spec, "tunnel"), "address");
	json_t *own = json_object_get(spec, "addresses"), *all = own ? json_incref(own) : json_array();
	size_t i;

	json_array_foreach (json_object_get(json_object_get(node, "status"), "addresses"), i, item) {
		const char *value = json_string_value(json_object_get(item, "address"));
		char text[ADDR_TEXT_MAX];
		struct hd_addr addr;

		if (!value || addr_parse(value, &addr) != 0 || !document_address_of_tunnel(&addr))
			continue;
		addr_format(&addr, text);
		if (has(all, text) || (tunnel && strcmp(json_string_value(tunnel), text) == 0) ||
			json_array_size(all) == HOST_ADDRESSES_MOST)
			continue;
		json_array_append_new(all, json_string(text));
	}
	if (json_array_size(all))
		json_object_set(spec, "addresses", all);
	json_decref(all);
}

static int make_host(const struct kubernetes *k, const struct kube_item *own, struct object **ret)
{
	json_t *node, *document;
	int r = kube_parse(own->text, strlen(own->text), &node);

	if (r < 0)
		return r;
	document = encode_object(k->host);
	add_labels(json_object_get(document, "metadata"), node);
	add_addresses(json_object_get(document, "spec"), node);
	json_decref(node);
	return kube_remake(document, "what the cluster says of this Node does not count for the Host", ret);
}

void kube_forget_host(struct kubernetes *k)
{
	object_unref(k->with_node);
	k->with_node = NULL;
	k->node_hash = 0;
	k->node_refused = false;
}

int kube_add_host(struct kubernetes *k, struct object_list *ret)
{
	const struct kube_item *own = kube_find(k, KUBE_NODE, "", k->node);
	uint64_t hash = own ? hash_string(9, own->text) : 0;
	struct object *made = NULL;
	int r;

	if (!own)
		kube_forget_host(k);
	if (!k->host || !own)
		return 0;
	if (hash != k->node_hash) {
		r = make_host(k, own, &made);
		if (r < 0)
			return r;
		k->node_hash = hash;
		/* most changes of a Node are of something else */
		if (made && k->with_node && object_equal(made, k->with_node)) {
			object_unref(made);
		} else {
			object_unref(k->with_node);
			k->with_node = made;
			k->node_refused = false;
		}
	}
	return k->with_node && !k->node_refused ? object_list_add(ret, k->with_node) : 0;
}
