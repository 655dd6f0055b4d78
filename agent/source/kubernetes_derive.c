// SPDX-License-Identifier: Apache-2.0
/*
 * What the cluster comes to as objects of ours. Who is in nobody's way is decided here, so that one Pod with an address that another still has,
 * or a policy that a file has too, does not hold up the rest. Each Node's Peer is made anew only when something of it has changed.
 */
#include <source/kubernetes_internal.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <model/decode.h>
#include <model/kinds.h>
#include <model/write.h>
#include <source/cni.h>
#include <util/addr.h>
#include <util/hash.h>
#include <util/log.h>

static const struct object *first_of(const struct object_list *sorted, enum object_kind kind)
{
	for (size_t i = 0; i < sorted->n && sorted->items[i]->kind <= kind; i++)
		if (sorted->items[i]->kind == kind)
			return sorted->items[i];
	return NULL;
}

const char *kubernetes_network(const struct host *host)
{
	return host && host->kubernetes_network ? host->kubernetes_network : KUBERNETES_NETWORK;
}

static int decode_one(const struct buffer *text, struct object **ret, struct diag *diag)
{
	_cleanup_object_list_ struct object_list list = {0};
	int r = text->failed ? -ENOMEM : decode_documents(NULL, text->data, text->length, &list, diag);

	if (r < 0)
		return r;
	if (list.n != 1)
		return -EINVAL;
	*ret = object_ref(list.items[0]);
	return 0;
}

/* --- whose address it is --- */

struct claim {
	struct hd_addr addr;
	uint64_t rank; /* the highest has it */
	struct kube_item *pod;
};

static int compare_claims(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;
	int r = memcmp(&x->addr, &y->addr, sizeof(x->addr));

	return r ? r : (x->rank < y->rank) - (x->rank > y->rank);
}

static bool counts(const struct kubernetes *k, const struct kube_item *item)
{
	const struct kube_pod *pod = &item->pod;

	return pod->host && pod->host->node && !pod->host_network && !pod->finished && !pod->bad && pod->n_addresses &&
	       strcmp(pod->host->name, k->node) != 0;
}

/* Of Pods the newest has it, and one that is not on its way out before one that is; a Port before all of them. */
static int find_blocked(struct kubernetes *k, const struct object_list *base)
{
	_cleanup_free_ struct claim *claims = NULL;
	size_t n = 0, most = 0;

	for (const struct kube_item *item = k->first[KUBE_POD]; item; item = item->next)
		most += counts(k, item) ? item->pod.n_addresses : 0;
	for (size_t i = 0; i < base->n; i++)
		most += base->items[i]->kind == OBJECT_PORT ? base->items[i]->port.n_addresses : 0;
	claims = calloc(most + 1, sizeof(*claims));
	if (!claims)
		return -ENOMEM;
	for (size_t i = 0; i < base->n; i++) {
		const struct object *port = base->items[i];

		if (port->kind != OBJECT_PORT || strcmp(port->port.network, k->network->name) != 0)
			continue;
		for (size_t j = 0; j < port->port.n_addresses; j++)
			claims[n++] = (struct claim){.addr = port->port.addresses[j], .rank = UINT64_MAX};
	}
	for (struct kube_item *item = k->first[KUBE_POD]; item; item = item->next)
		for (size_t j = 0; counts(k, item) && j < item->pod.n_addresses; j++)
			claims[n++] = (struct claim){.addr = item->pod.addresses[j],
				.rank = item->order | (item->pod.leaving ? 0 : 1ull << 62),
				.pod = item};
	qsort(claims, n, sizeof(*claims), compare_claims);
	/* lost: marked by a claim that another has, told apart from what it was before */
	for (struct kube_item *item = k->first[KUBE_POD]; item; item = item->next) {
		bool was = item->pod.blocked;

		item->pod.blocked = counts(k, item) && object_list_find(base, OBJECT_PORT, item->namespace_, item->name);
		if (was != item->pod.blocked && item->pod.host)
			item->pod.host->dirty = true;
	}
	for (size_t i = 1; i < n; i++) {
		struct kube_item *loser = claims[i].pod;

		if (!loser || loser->pod.blocked || memcmp(&claims[i].addr, &claims[i - 1].addr, sizeof(struct hd_addr)) != 0 ||
			claims[i - 1].pod == loser)
			continue;
		loser->pod.blocked = true;
		loser->pod.host->dirty = true;
	}
	return 0;
}

/* --- Peers --- */

#define HOST_ADDRESSES 16 /* of a Node, beside that of its tunnel */

static bool fits(const struct kubernetes *k, const struct hd_addr *addr)
{
	const struct network *network = &k->network->network;
	const struct prefix *subnet = document_subnet(network->subnets, network->n_subnets, addr);

	if (!subnet || !document_address_is_unicast(addr) || !document_address_of_host(addr, subnet))
		return false;
	for (size_t i = 0; i < network->n_gateways; i++)
		if (memcmp(&network->gateways[i], addr, sizeof(*addr)) == 0)
			return false;
	return true;
}

static void write_pod(const struct kubernetes *k, const struct kube_item *item, struct buffer *out)
{
	const struct kube_pod *pod = &item->pod;
	char text[ADDR_TEXT_MAX];
	size_t fitting = 0;

	for (size_t i = 0; i < pod->n_addresses; i++)
		fitting += fits(k, &pod->addresses[i]);
	if (!fitting)
		return;
	write_item(out, '{');
	write_text(out, "name", item->name);
	write_text(out, "namespace", item->namespace_);
	write_text(out, "network", k->network->name);
	write_open(out, "addresses", '[');
	for (size_t i = 0; i < pod->n_addresses; i++) {
		bool again = false;

		for (size_t j = 0; j < i; j++)
			again |= memcmp(&pod->addresses[i], &pod->addresses[j], sizeof(struct hd_addr)) == 0;
		if (!fits(k, &pod->addresses[i]) || again)
			continue;
		write_comma(out);
		write_string(out, addr_format(&pod->addresses[i], text));
	}
	buffer_add_char(out, ']');
	if (pod->labels) {
		write_key(out, "labels");
		buffer_add_string(out, pod->labels);
	}
	if (pod->ports) {
		write_key(out, "ports");
		buffer_add_string(out, pod->ports);
	}
	buffer_add_char(out, '}');
}

static bool has_prefix(const struct kubernetes *k, const char *cidr)
{
	const struct network *network = &k->network->network;
	struct hd_addr addr;
	uint8_t length;

	if (!cidr || addr_parse_cidr(cidr, &addr, &length) != 0)
		return false;
	for (size_t i = 0; i < network->n_subnets; i++)
		if (addr_prefix_in_prefix(&addr, length, &network->subnets[i].addr, network->subnets[i].length))
			return true;
	return false;
}

/* The annotation, or the first InternalIP of the tunnel's family. */
static bool tunnel_end(const struct kubernetes *k, const json_t *node, struct hd_addr *ret)
{
	const json_t *annotations = json_object_get(json_object_get(node, "metadata"), "annotations");
	const char *text = json_string_value(json_object_get(annotations, KUBERNETES_TUNNEL_ANNOTATION));
	bool ipv4 = addr_is_ipv4(&k->host->host.tunnel_address);
	json_t *address;
	size_t i;

	if (text && addr_parse(text, ret) == 0 && addr_is_ipv4(ret) == ipv4)
		return true;
	json_array_foreach (json_object_get(json_object_get(node, "status"), "addresses"), i, address) {
		text = json_string_value(json_object_get(address, "address"));
		if (text && addr_parse(text, ret) == 0 && addr_is_ipv4(ret) == ipv4)
			return true;
	}
	return false;
}

/* Its own stack may send from any of them. */
static void write_host_addresses(const json_t *node, const struct hd_addr *tunnel, struct buffer *out)
{
	const json_t *addresses = json_object_get(json_object_get(node, "status"), "addresses");
	size_t n = json_array_size(addresses);
	_cleanup_free_ struct hd_addr *seen = calloc(n + 1, sizeof(*seen));
	size_t n_seen = 1;
	char text[ADDR_TEXT_MAX];

	if (!seen)
		return;
	seen[0] = *tunnel;
	write_open(out, "hostAddresses", '[');
	for (size_t i = 0; i < n && n_seen <= HOST_ADDRESSES; i++) {
		const char *value = json_string_value(json_object_get(json_array_get(addresses, i), "address"));
		bool again = false;

		if (!value || addr_parse(value, &seen[n_seen]) != 0 || !document_address_of_tunnel(&seen[n_seen]))
			continue;
		for (size_t j = 0; j < n_seen; j++)
			again |= memcmp(&seen[j], &seen[n_seen], sizeof(*seen)) == 0;
		if (again)
			continue;
		write_comma(out);
		write_string(out, addr_format(&seen[n_seen++], text));
	}
	buffer_add_char(out, ']');
}

/* only: that Pod alone, to see whether it can be decoded; NULL: all that are not blocked. */
static void write_peer_of(const struct kubernetes *k, const struct kube_host *host, const json_t *node,
	const struct hd_addr *address, const struct kube_item *only, struct buffer *out)
{
	json_t *cidr, *labels = json_object_get(json_object_get(node, "metadata"), "labels");
	_cleanup_free_ char *label_text = labels && !only ? json_dumps(labels, JSON_COMPACT) : NULL;
	char text[ADDR_TEXT_MAX];
	size_t i;

	buffer_add_char(out, '{');
	write_text(out, "apiVersion", object_kind_version(OBJECT_PEER));
	write_text(out, "kind", object_kind_name(OBJECT_PEER));
	write_open(out, "metadata", '{');
	write_text(out, "name", host->name);
	if (label_text) {
		write_key(out, "labels");
		buffer_add_string(out, label_text);
	}
	buffer_add_char(out, '}');
	write_open(out, "spec", '{');
	write_text(out, "address", addr_format(address, text));
	if (!only) {
		write_host_addresses(node, address, out);
		write_open(out, "prefixes", '[');
		json_array_foreach (json_object_get(json_object_get(node, "spec"), "podCIDRs"), i, cidr) {
			if (!has_prefix(k, json_string_value(cidr)))
				continue;
			write_item(out, '{');
			write_text(out, "network", k->network->name);
			write_text(out, "cidr", json_string_value(cidr));
			buffer_add_char(out, '}');
		}
		buffer_add_char(out, ']');
	}
	write_open(out, "ports", '[');
	for (const struct kube_item *item = host->pods; item; item = item->pod.next_on_host)
		if (only ? item == only : counts(k, item) && !item->pod.blocked)
			write_pod(k, item, out);
	buffer_add_string(out, "]}}");
}

/* The Pods that cannot be decoded are left out. How many there were. */
static size_t mark_bad(struct kubernetes *k, const struct kube_host *host, const json_t *node, const struct hd_addr *address)
{
	size_t n = 0;

	for (struct kube_item *item = host->pods; item; item = item->pod.next_on_host) {
		_cleanup_buffer_ struct buffer text = {0};
		_cleanup_diag_ struct diag diag = {0};
		struct object *peer = NULL;

		if (!counts(k, item) || item->pod.blocked)
			continue;
		write_peer_of(k, host, node, address, item, &text);
		if (decode_one(&text, &peer, &diag) == -EINVAL) {
			item->pod.bad = true;
			n++;
			log_warn(0, "Pod %s/%s of the cluster is left out: %s", item->namespace_, item->name,
				diag.text ? diag.text : "it cannot be decoded");
		}
		object_unref(peer);
	}
	return n;
}

/* What cannot be decoded is left out: *ret stays NULL. */
static int decode_peer(struct kubernetes *k, const struct kube_host *host, const json_t *node, struct object **ret)
{
	_cleanup_buffer_ struct buffer text = {0};
	_cleanup_diag_ struct diag diag = {0};
	struct hd_addr address;
	int r;

	if (!tunnel_end(k, node, &address)) {
		log_warn(0, "Node %s of the cluster is left out: want an InternalIP of the tunnel's family, or the annotation %s",
			host->name, KUBERNETES_TUNNEL_ANNOTATION);
		return 0;
	}
	if (memcmp(&address, &k->host->host.tunnel_address, sizeof(address)) == 0) {
		log_warn(0, "Node %s of the cluster is left out: its address is this host's, see --node-name", host->name);
		return 0;
	}
	write_peer_of(k, host, node, &address, NULL, &text);
	r = decode_one(&text, ret, &diag);
	if (r == -EINVAL && mark_bad(k, host, node, &address)) {
		text.length = 0;
		diag_clear(&diag);
		write_peer_of(k, host, node, &address, NULL, &text);
		r = decode_one(&text, ret, &diag);
	}
	if (r == -EINVAL) {
		log_warn(0, "Node %s of the cluster is left out: %s", host->name, diag.text ? diag.text : "it cannot be decoded");
		r = 0;
	}
	return r;
}

static int make_peer(struct kubernetes *k, struct kube_host *host)
{
	struct object *peer = NULL;
	json_t *node;
	int r = kube_parse(host->node->text, strlen(host->node->text), &node);

	if (r < 0)
		return r;
	r = decode_peer(k, host, node, &peer);
	json_decref(node);
	if (r < 0)
		return r;
	if (host->peer && peer && object_equal(host->peer, peer)) {
		object_unref(peer);
	} else {
		object_unref(host->peer);
		host->peer = peer;
		host->refused = false;
	}
	host->dirty = false;
	return 0;
}

static int add_peers(struct kubernetes *k, const struct object_list *base, struct object_list *ret)
{
	int r = 0;

	for (size_t i = 0; i < KUBE_HOST_BUCKETS && r == 0; i++) {
		for (struct kube_host **at = &k->hosts[i], *host; (host = *at) && r == 0;) {
			if (!host->node && !host->pods) {
				*at = host->next;
				object_unref(host->peer);
				free(host);
				continue;
			}
			at = &host->next;
			if (!host->node || strcmp(host->name, k->node) == 0 ||
				object_list_find(base, OBJECT_PEER, NULL, host->name))
				continue;
			if (host->dirty)
				r = make_peer(k, host);
			if (r == 0 && host->peer && !host->refused)
				r = object_list_add(ret, host->peer);
		}
	}
	return r;
}

/* --- the CNI plugin's Ports --- */

static const char *label_of(const struct object *object, const char *key)
{
	for (uint32_t i = 0; i < object->n_labels; i++)
		if (strcmp(object->labels[i].key, key) == 0)
			return object->labels[i].value;
	for (uint32_t i = 0; i < object->n_annotations; i++)
		if (strcmp(object->annotations[i].key, key) == 0)
			return object->annotations[i].value;
	return NULL;
}

static const struct kube_item *pod_of(const struct kubernetes *k, const struct object *port)
{
	const char *name = label_of(port, CNI_LABEL_POD), *namespace_ = label_of(port, CNI_LABEL_NAMESPACE);

	if (!name)
		name = label_of(port, CNI_ANNOTATION_POD);
	return name && namespace_ ? kube_find(k, KUBE_POD, namespace_, name) : NULL;
}

/* In a direction that the plugin was told of, it came from the runtime, which has it from the same annotation: it stays what it was when the Pod began. */
static void merge_bandwidth(json_t *spec, const char *text)
{
	json_t *theirs = text ? json_loads(text, 0, NULL) : NULL, *own = json_object_get(spec, "bandwidth");

	if (theirs && own)
		json_object_update(theirs, own);
	if (theirs)
		json_object_set(spec, "bandwidth", theirs);
	json_decref(theirs);
}

/* The Port's own labels that say whose it is stay; of the others the Pod's count. */
static int merge_port(const struct object *port, const struct kube_item *item, struct object **ret)
{
	_cleanup_buffer_ struct buffer text = {0};
	_cleanup_diag_ struct diag diag = {0};
	json_t *document = encode_object(port), *labels, *theirs, *own, *ports, *value;
	_cleanup_free_ char *dumped = NULL;
	const char *key;
	int r;

	labels = json_object_get(json_object_get(document, "metadata"), "labels");
	own = labels ? json_incref(labels) : json_object();
	theirs = item->pod.labels ? json_loads(item->pod.labels, 0, NULL) : NULL;
	ports = item->pod.ports ? json_loads(item->pod.ports, 0, NULL) : NULL;
	json_object_foreach (theirs, key, value)
		if (strcmp(key, CNI_LABEL_POD) != 0 && strcmp(key, CNI_LABEL_NAMESPACE) != 0)
			json_object_set(own, key, value);
	json_object_set(json_object_get(document, "metadata"), "labels", own);
	if (json_array_size(ports))
		json_object_set(json_object_get(document, "spec"), "ports", ports);
	merge_bandwidth(json_object_get(document, "spec"), item->pod.bandwidth);
	dumped = document ? json_dumps(document, JSON_COMPACT) : NULL;
	json_decref(own);
	json_decref(theirs);
	json_decref(ports);
	json_decref(document);
	if (!dumped)
		return -ENOMEM;
	buffer_add_string(&text, dumped);
	r = decode_one(&text, ret, &diag);
	if (r == -EINVAL)
		log_warn(0, "Port %s/%s goes without what its Pod has: %s", port->namespace_, port->name,
			diag.text ? diag.text : "?");
	return r;
}

static struct kube_local *find_local(struct kubernetes *k, const struct object *port)
{
	for (size_t i = 0; i < k->n_local; i++)
		if (k->local[i].cni == port)
			return &k->local[i];
	return NULL;
}

static struct kube_local *add_local(struct kubernetes *k, struct object *port)
{
	struct kube_local *grown = reallocarray(k->local, k->n_local + 1, sizeof(*grown));

	if (!grown)
		return NULL;
	k->local = grown;
	grown[k->n_local] = (struct kube_local){.cni = object_ref(port)};
	return &grown[k->n_local++];
}

static void drop_local(struct kubernetes *k, size_t i)
{
	object_unref(k->local[i].cni);
	object_unref(k->local[i].merged);
	k->local[i] = k->local[--k->n_local];
}

/* A Pod that the cluster has forgotten keeps what it had: policy holds until its Port goes. */
static int add_ports(struct kubernetes *k, const struct object_list *cni, struct object_list *ret)
{
	for (size_t i = 0; i < k->n_local; i++)
		k->local[i].seen = false;
	for (size_t i = 0; i < cni->n; i++) {
		struct object *port = cni->items[i];
		const struct kube_item *item = pod_of(k, port);
		uint64_t hash = item ? hash_string(4, item->text) : 0;
		struct kube_local *local = find_local(k, port);
		struct object *merged = NULL;
		int r;

		if (!local && item)
			local = add_local(k, port);
		if (!local) {
			if (item)
				return -ENOMEM;
			continue;
		}
		local->seen = true;
		if (item && hash != local->pod_hash) {
			r = merge_port(port, item, &merged);
			if (r < 0 && r != -EINVAL)
				return r;
			local->pod_hash = hash;
			if (merged && local->merged && object_equal(merged, local->merged)) {
				object_unref(merged);
			} else if (merged) {
				object_unref(local->merged);
				local->merged = merged;
				local->refused = false;
			}
		}
		r = local->merged && !local->refused ? object_list_add(ret, local->merged) : 0;
		if (r < 0)
			return r;
	}
	for (size_t i = k->n_local; i-- > 0;)
		if (!k->local[i].seen)
			drop_local(k, i);
	return 0;
}

/* --- all of it --- */

static int add_objects(struct kubernetes *k, const struct object_list *base, struct object_list *ret)
{
	int r = 0;

	for (size_t kind = 0; kind < KUBERNETES_KINDS; kind++) {
		for (struct kube_item *item = k->first[kind]; item && r == 0; item = item->next) {
			struct object *object = item->object;

			if (object && !item->refused && !object_list_find(base, object->kind, object->namespace_, object->name))
				r = object_list_add(ret, object);
		}
	}
	return r;
}

/* What decides who is in whose way. */
static uint64_t surroundings_of(const struct object_list *base)
{
	uint64_t hash = 5;

	for (size_t i = 0; i < base->n; i++)
		if (base->items[i]->kind <= OBJECT_PEER)
			hash = hash_u64(hash_u64(hash, (uintptr_t)base->items[i]), base->items[i]->hash);
	return hash;
}

static void replace(struct object **at, const struct object *with)
{
	object_unref(*at);
	*at = with ? object_ref((struct object *)with) : NULL;
}

static void look_around(struct kubernetes *k, const struct object_list *base, bool *ret_moved)
{
	const struct object *host = first_of(base, OBJECT_HOST);
	const struct object *network =
		object_list_find(base, OBJECT_NETWORK, NULL, kubernetes_network(host ? &host->host : NULL));
	uint64_t surroundings = surroundings_of(base);
	bool other = host != k->host || network != k->network;

	if (host != k->host)
		kube_forget_host(k);
	if (other)
		kube_forget_services(k);
	replace(&k->host, host);
	replace(&k->network, network);
	*ret_moved = surroundings != k->surroundings;
	k->surroundings = surroundings;
	for (size_t i = 0; *ret_moved && i < KUBE_HOST_BUCKETS; i++) {
		for (struct kube_host *at = k->hosts[i]; at; at = at->next) {
			at->refused = false;
			at->dirty |= other;
		}
	}
	for (size_t i = 0; *ret_moved && i < KUBERNETES_KINDS; i++)
		for (struct kube_item *item = k->first[i]; item; item = item->next)
			item->refused = false;
	for (size_t i = 0; *ret_moved && i < k->n_local; i++)
		k->local[i].refused = false;
	k->services_refused = *ret_moved ? false : k->services_refused;
	k->node_refused = *ret_moved ? false : k->node_refused;
}

int kubernetes_derive(
	struct kubernetes *k, const struct object_list *base, const struct object_list *cni, struct object_list *ret)
{
	_cleanup_object_list_ struct object_list derived = {0};
	bool moved;
	int r;

	if (!k->live)
		return 0;
	look_around(k, base, &moved);
	r = add_objects(k, base, &derived);
	if (r == 0)
		r = kube_add_services(k, &derived);
	if (r == 0)
		r = kube_add_host(k, &derived);
	if (r == 0)
		r = add_ports(k, cni, &derived);
	if (r == 0 && k->network && k->network->network.vni && k->host && k->host->host.has_tunnel) {
		if (moved || k->pods_changed)
			r = find_blocked(k, base);
		if (r == 0) {
			k->pods_changed = false;
			r = add_peers(k, base, &derived);
		}
	}
	if (r < 0)
		return r;
	object_list_sort(&derived);
	*ret = derived;
	derived = (struct object_list){0};
	return 0;
}

void kubernetes_refuse(struct kubernetes *k, const struct object *object, const char *why)
{
	char title[OBJECT_TITLE_MAX];

	log_warn(
		0, "%s of the cluster is left out: %s", object_title(object->kind, object->namespace_, object->name, title), why);
	for (size_t i = 0; object->kind == OBJECT_PORT && i < k->n_local; i++)
		if (k->local[i].merged == object)
			k->local[i].refused = true;
	if (object == k->with_services)
		k->services_refused = true;
	if (object == k->with_node)
		k->node_refused = true;
	if (object->kind == OBJECT_PEER) {
		struct kube_host *host = kube_host(k, object->name, false);

		if (host)
			host->refused = true;
		return;
	}
	for (size_t i = 0; i < KUBERNETES_KINDS; i++)
		for (struct kube_item *item = k->first[i]; item; item = item->next)
			if (item->object == object)
				item->refused = true;
}

/* --- what others ask --- */

bool kubernetes_live(const struct kubernetes *k)
{
	return k->live;
}

/* Without a UID on one of both sides, the name has to do. A static Pod is another one at the server: its mirror says whose it is. */
static bool is_that(const struct kubernetes *k, const struct kube_item *pod, const char *uid)
{
	const char *own, *mirrored;
	json_t *json = NULL;
	bool ret = true;

	if (!uid)
		return true;
	if (!pod->pod.host || strcmp(pod->pod.host->name, k->node) != 0)
		return false;
	if (kube_parse(pod->text, strlen(pod->text), &json) == 0) {
		const json_t *metadata = json_object_get(json, "metadata");

		own = json_string_value(json_object_get(metadata, "uid"));
		mirrored = json_string_value(json_object_get(json_object_get(metadata, "annotations"), KUBE_MIRROR));
		ret = !own || strcmp(own, uid) == 0 || (mirrored && strcmp(mirrored, uid) == 0);
	}
	json_decref(json);
	return ret;
}

const char *kubernetes_waits_for(const struct kubernetes *k, const struct kubernetes_wanted *wanted)
{
	const struct kube_item *pod;

	if (!k->live)
		return "the API server has not said yet what is in the cluster";
	if (!kube_find(k, KUBE_NODE, "", k->node))
		return "the API server does not know this node: see --node-name";
	if (wanted->address) {
		json_t *ranges = k->network ? kubernetes_ranges(k, k->network) : NULL;
		bool none = !ranges;

		json_decref(ranges);
		if (none)
			return "this node has no podCIDR yet that lies in a subnet of the network";
	}
	if (!wanted->namespace_ || !wanted->pod)
		return NULL;
	pod = kube_find(k, KUBE_POD, wanted->namespace_, wanted->pod);
	if (!pod)
		return "the API server has not said yet what labels the Pod has";
	return is_that(k, pod, wanted->uid) ? NULL : "what the API server has said so far is of an earlier Pod of this name";
}

json_t *kubernetes_ranges(const struct kubernetes *k, const struct object *network)
{
	const struct kube_item *own = kube_find(k, KUBE_NODE, "", k->node);
	json_t *node = NULL, *ret = NULL, *cidr;
	size_t i;

	if (!own || !k->network || strcmp(network->name, k->network->name) != 0 ||
		kube_parse(own->text, strlen(own->text), &node) < 0)
		return NULL;
	json_array_foreach (json_object_get(json_object_get(node, "spec"), "podCIDRs"), i, cidr) {
		if (!has_prefix(k, json_string_value(cidr)))
			continue;
		ret = ret ? ret : json_array();
		json_array_append(ret, cidr);
	}
	json_decref(node);
	return ret;
}

static uint64_t left_out(const struct kubernetes *k, size_t kind)
{
	uint64_t n = 0;

	for (const struct kube_item *item = k->first[kind]; item; item = item->next)
		n += item->bad || item->refused || item->pod.bad || item->pod.blocked;
	return n;
}

void kubernetes_get_status(const struct kubernetes *k, struct kubernetes_status *ret)
{
	static const char *const states[] = {
		[KUBE_WAITING] = "waiting", [KUBE_LISTING] = "listing", [KUBE_WATCHING] = "watching", [KUBE_ABSENT] = "absent"};

	*ret = (struct kubernetes_status){
		.server = k->config.server, .node = k->node, .connected = true, .last_sync = k->last_sync};
	for (size_t i = 0; i < KUBERNETES_KINDS; i++) {
		const struct kube_stream *stream = &k->streams[i];

		ret->connected &= stream->state == KUBE_WATCHING || stream->state == KUBE_ABSENT;
		ret->kinds[i] = (struct kubernetes_kind_status){
			.kind = kube_kinds[i].name,
			.state = states[stream->state],
			.error = stream->error[0] ? stream->error : NULL,
			.objects = k->count[i],
			.left_out = left_out(k, i),
		};
	}
	for (size_t i = 0; i < KUBE_HOST_BUCKETS; i++)
		for (const struct kube_host *host = k->hosts[i]; host; host = host->next)
			ret->kinds[KUBE_NODE].left_out += host->refused;
}

/* --- life --- */

static char *own_name(const char *node)
{
	char name[256] = "";
	const char *given = node ? node : getenv("NODE_NAME");

	if (given && *given)
		return strdup(given);
	(void)gethostname(name, sizeof(name) - 1);
	/* as kubelet names it */
	for (char *c = name; *c; c++)
		*c = *c >= 'A' && *c <= 'Z' ? (char)(*c - 'A' + 'a') : *c;
	return strdup(name);
}

int kubernetes_new(const char *kubeconfig, const char *node, struct kubernetes **ret)
{
	struct kubernetes *k = calloc(1, sizeof(*k));
	int r = k ? 0 : -ENOMEM;

	if (r == 0)
		k->node = own_name(node);
	if (r == 0 && !k->node)
		r = -ENOMEM;
	if (r == 0)
		r = kube_config_read(kubeconfig, &k->config);
	if (r == 0)
		r = kube_client_load();
	if (r < 0) {
		kubernetes_free(k);
		return r;
	}
	*ret = k;
	return 0;
}

void kubernetes_free(struct kubernetes *k)
{
	if (!k)
		return;
	kube_client_free(k);
	while (k->n_local)
		drop_local(k, k->n_local - 1);
	free(k->local);
	kube_cache_clear(k);
	object_unref(k->host);
	object_unref(k->network);
	kube_config_clear(&k->config);
	free(k->node);
	free(k);
}
