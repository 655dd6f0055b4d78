// SPDX-License-Identifier: Apache-2.0
#include <model/content.h>

#include <util/hash.h>

static uint64_t hash_labels(uint64_t hash, const struct label *labels, size_t n)
{
	hash = hash_u64(hash, n);
	for (size_t i = 0; i < n; i++)
		hash = hash_string(hash_string(hash, labels[i].key), labels[i].value);
	return hash;
}

/* Field by field: padding says nothing. */
static uint64_t hash_prefixes(uint64_t hash, const struct prefix *prefixes, size_t n)
{
	hash = hash_u64(hash, n);
	for (size_t i = 0; i < n; i++)
		hash = hash_u64(hash_u64(hash_u64(hash, prefixes[i].addr.q[0]), prefixes[i].addr.q[1]), prefixes[i].length);
	return hash;
}

static uint64_t hash_ports(uint64_t hash, const struct port_range *ports, size_t n)
{
	hash = hash_u64(hash, n);
	for (size_t i = 0; i < n; i++)
		hash = hash_u64(hash, (uint64_t)ports[i].protocol << 40 | (uint64_t)ports[i].any_port << 32 |
					      (uint64_t)ports[i].first << 16 | ports[i].last);
	return hash;
}

static uint64_t hash_rule(uint64_t hash, const struct rule *rule)
{
	hash = hash_string(hash, rule->name);
	hash = hash_u64(hash, (uint64_t)rule->n_peers << 8 | (uint64_t)rule->verdict << 1 | rule->log);
	for (uint32_t i = 0; i < rule->n_peers; i++) {
		const struct peer *peer = &rule->peers[i];

		hash = hash_string(hash, peer->group);
		if (peer->group)
			continue;
		hash = hash_prefixes(hash, &peer->prefix, 1);
		hash = hash_prefixes(hash, peer->except, peer->n_except);
	}
	hash = hash_ports(hash, rule->ports, rule->n_ports);
	if (!rule->extra)
		return hash_u64(hash, 0);
	hash = hash_ports(hash, rule->extra->source_ports, rule->extra->n_source_ports);
	hash = hash_u64(hash, rule->extra->n_icmp);
	for (uint32_t i = 0; i < rule->extra->n_icmp; i++) {
		const struct icmp_match *icmp = &rule->extra->icmp[i];

		hash = hash_u64(hash, (uint64_t)icmp->protocol << 32 | (uint64_t)icmp->type_first << 24 |
					      (uint64_t)icmp->type_last << 16 | (uint64_t)icmp->code_first << 8 |
					      icmp->code_last);
	}
	return hash;
}

static uint64_t hash_host(uint64_t hash, const struct host *host)
{
	const struct host_timeouts *timeouts = &host->timeouts;
	const uint64_t numbers[] = {
		host->forward_judge,
		timeouts->tcp_established,
		timeouts->tcp_syn,
		timeouts->tcp_fin,
		timeouts->udp,
		timeouts->udp_stream,
		timeouts->icmp,
		timeouts->other,
		host->pickup_seconds,
		host->has_tunnel,
		host->tunnel_geneve,
		host->tunnel_address.q[0],
		host->tunnel_address.q[1],
		host->tunnel_port,
		host->limit_flows,
		host->limit_flows_new,
		host->limit_flows_other,
		host->limit_rules,
		host->log_every,
		host->event_rate,
		host->reject_rate,
	};

	hash = hash_u64(hash, host->n_uplinks);
	for (size_t i = 0; i < host->n_uplinks; i++)
		hash = hash_u64(hash_string(hash, host->uplinks[i].device), host->uplinks[i].xdp);
	hash = hash_ports(hash, host->failsafe, host->n_failsafe);
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		hash = hash_u64(hash, numbers[i]);
	return hash;
}

static uint64_t hash_policy(uint64_t hash, const struct object *object)
{
	const struct host_policy *policy = &object->policy;

	hash = hash_u64(hash_u64(hash, policy->priority), policy->n_uplinks);
	for (size_t i = 0; i < policy->n_uplinks; i++)
		hash = hash_string(hash, policy->uplinks[i]);
	for (int direction = 0; direction < HD_DIRECTIONS; direction++) {
		hash = hash_u64(hash, (uint64_t)((int64_t)policy->default_verdict[direction] + 1));
		hash = hash_u64(hash, policy->n_rules[direction]);
		const struct rule *rules = object_rules(object, (enum hd_direction)direction);
		for (size_t i = 0; i < policy->n_rules[direction]; i++)
			hash = hash_rule(hash, &rules[i]);
	}
	return hash;
}

uint64_t content_hash(const struct object *object)
{
	uint64_t hash = hash_u64(1, object->kind);

	hash = hash_string(hash_string(hash, object->namespace_), object->name);
	hash = hash_labels(hash, object->labels, object->n_labels);
	hash = hash_labels(hash, object->annotations, object->n_annotations);
	switch (object->kind) {
	case OBJECT_HOST:
		return hash_host(hash, &object->host);
	case OBJECT_ADDRESS_GROUP:
		return hash_prefixes(hash, object->group.cidrs, object->group.n_cidrs);
	case OBJECT_HOST_POLICY:
		return hash_policy(hash, object);
	case OBJECT_KIND_COUNT:
		break;
	}
	return hash;
}
