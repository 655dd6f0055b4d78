/* SPDX-License-Identifier: Apache-2.0 */
#include <util/hash.h>

#include <policy/hosts.h>

/* The tunnel's, where there is one, and the others. */
static const struct hd_addr *addresses_of(const struct object *object, const struct hd_addr **ret_others, size_t *ret_n)
{
	if (object->kind == OBJECT_PEER) {
		*ret_others = object->tunnel_peer.host_addresses;
		*ret_n = object->tunnel_peer.n_host_addresses;
		return &object->tunnel_peer.address;
	}
	*ret_others = object->host.addresses;
	*ret_n = object->host.n_addresses;
	return object->host.has_tunnel ? &object->host.tunnel_address : NULL;
}

uint64_t policy_hosts_version(struct policy_hosts *hosts)
{
	uint64_t hash = hash_u64(8, hosts->n);

	if (hosts->version)
		return hosts->version;
	for (size_t i = 0; i < hosts->n; i++) {
		const struct object *object = hosts->items[i];
		const struct hd_addr *others, *first;
		size_t n;

		first = addresses_of(object, &others, &n);
		hash = hash_bytes(hash_u64(hash, n), first, first ? sizeof(*first) : 0);
		hash = hash_bytes(hash, others, n * sizeof(*others));
		hash = hash_u64(hash, object->n_labels);
		for (uint32_t j = 0; j < object->n_labels; j++)
			hash = hash_string(hash_string(hash, object->labels[j].key), object->labels[j].value);
	}
	hosts->version = hash ? hash : 1;
	return hosts->version;
}

size_t policy_hosts_addresses(const struct policy_hosts *hosts, const struct policy_peer *peer, struct hd_addr *ret)
{
	size_t total = 0;

	for (size_t i = 0; i < hosts->n; i++) {
		const struct object *object = hosts->items[i];
		const struct hd_addr *others, *first;
		size_t n;

		if (!selector_matches(&peer->nodes, object->labels, object->n_labels))
			continue;
		first = addresses_of(object, &others, &n);
		if (first && ret)
			ret[total] = *first;
		total += first != NULL;
		for (size_t j = 0; ret && j < n; j++)
			ret[total + j] = others[j];
		total += n;
	}
	return total;
}
