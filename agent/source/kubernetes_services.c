// SPDX-License-Identifier: Apache-2.0
/*
 * The blocks that the cluster gives its Services addresses of, as `services` of its Network, whose document says none: the Network takes the place of
 * that one. A document that says some, or that there are none, is right.
 */
#include <source/kubernetes_internal.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <model/decode.h>
#include <util/addr.h>
#include <util/log.h>

struct block {
	struct hd_addr addr;
	uint8_t length;
};

struct blocks {
	struct block *items;
	size_t n;
};

/* The widest first, so that what lies in another one comes behind it. */
static int compare_blocks(const void *a, const void *b)
{
	const struct block *x = a, *y = b;
	int r = (x->length > y->length) - (x->length < y->length);

	return r ? r : memcmp(&x->addr, &y->addr, sizeof(x->addr));
}

static int add_block(struct blocks *blocks, const struct kube_item *item, const char *text)
{
	struct block block, *grown;

	if (!text || addr_parse_cidr(text, &block.addr, &block.length) != 0) {
		log_warn(0, "ServiceCIDR %s of the cluster: %.64s is no block", item->name, text ? text : "something");
		return 0;
	}
	grown = reallocarray(blocks->items, blocks->n + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	blocks->items = grown;
	grown[blocks->n++] = block;
	return 0;
}

static int read_blocks(const struct kubernetes *k, struct blocks *ret)
{
	int r = 0;

	for (const struct kube_item *item = k->first[KUBE_SERVICE_CIDR]; item && r == 0; item = item->next) {
		json_t *object = NULL, *cidr;
		size_t i;

		r = kube_parse(item->text, strlen(item->text), &object);
		json_array_foreach (json_object_get(json_object_get(object, "spec"), "cidrs"), i, cidr)
			r = r < 0 ? r : add_block(ret, item, json_string_value(cidr));
		json_decref(object);
	}
	return r;
}

static json_t *blocks_json(struct blocks *blocks)
{
	json_t *ret = json_array();
	char text[ADDR_TEXT_MAX];

	if (blocks->n)
		qsort(blocks->items, blocks->n, sizeof(*blocks->items), compare_blocks);
	for (size_t i = 0; i < blocks->n; i++) {
		const struct block *block = &blocks->items[i];
		bool covered = false;

		for (size_t j = 0; j < i; j++)
			covered |= addr_prefix_in_prefix(
				&block->addr, block->length, &blocks->items[j].addr, blocks->items[j].length);
		if (!covered)
			json_array_append_new(ret, json_string(addr_format_cidr(&block->addr, block->length, text)));
	}
	return ret;
}

static int decode_network(const struct kubernetes *k, json_t *services, struct object **ret)
{
	json_t *document = encode_object(k->network);
	char what[320];

	json_object_set(json_object_get(document, "spec"), "services", services);
	snprintf(what, sizeof(what), "the service CIDRs of the cluster do not count in Network %s", k->network->name);
	return kube_remake(document, what, ret);
}

static int make_network(const struct kubernetes *k, struct object **ret)
{
	struct blocks blocks = {0};
	json_t *services = NULL;
	int r = read_blocks(k, &blocks);

	if (r == 0)
		services = blocks_json(&blocks);
	free(blocks.items);
	if (r == 0 && json_array_size(services))
		r = decode_network(k, services, ret);
	json_decref(services);
	return r;
}

void kube_forget_services(struct kubernetes *k)
{
	object_unref(k->with_services);
	k->with_services = NULL;
	k->services_refused = false;
	k->services_known = false;
}

int kube_add_services(struct kubernetes *k, struct object_list *ret)
{
	if (!k->network || k->network->network.services_said || !network_routes_to_host(&k->network->network))
		return 0;
	if (!k->services_known) {
		int r = make_network(k, &k->with_services);

		if (r < 0)
			return r;
		k->services_known = true;
	}
	return k->with_services && !k->services_refused ? object_list_add(ret, k->with_services) : 0;
}
