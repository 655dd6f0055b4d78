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
		host->offload,
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
		host->tunnel_ttl,
		host->tunnel_decapsulate,
		host->tunnel_checksum,
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
	for (size_t i = 0; i < host->n_sriov; i++)
		hash = hash_u64(hash_string(hash, host->sriov[i].device),
			(uint64_t)host->sriov[i].vfs << 8 | (uint64_t)host->sriov[i].has_vfs << 4 | host->sriov[i].eswitch);
	for (size_t i = 0; i < host->n_addresses; i++)
		hash = hash_u64(hash_u64(hash, host->addresses[i].q[0]), host->addresses[i].q[1]);
	return host->kubernetes_network ? hash_string(hash, host->kubernetes_network) : hash;
}

static uint64_t hash_policy(uint64_t hash, const struct object *object)
{
	const struct host_policy *policy = &object->policy;

	hash = hash_u64(hash_u64(hash, (uint64_t)policy->audit << 32 | policy->priority), policy->n_uplinks);
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

static uint64_t hash_addresses(uint64_t hash, const struct hd_addr *addresses, size_t n)
{
	hash = hash_u64(hash, n);
	for (size_t i = 0; i < n; i++)
		hash = hash_u64(hash_u64(hash, addresses[i].q[0]), addresses[i].q[1]);
	return hash;
}

static uint64_t hash_network(uint64_t hash, const struct network *network)
{
	hash = hash_u64(hash, (uint64_t)network->vni << 32 | (uint64_t)network->vlan << 16 | (uint64_t)network->l3 << 2 |
				      (uint64_t)network->peer_learning << 1 | network->learning);
	hash = hash_u64(hash_prefixes(hash, network->subnets, network->n_subnets), network->mtu);
	hash = hash_u64(hash_addresses(hash, network->gateways, network->n_gateways), network->n_routes_to);
	for (size_t i = 0; i < network->n_routes_to; i++)
		hash = hash_string(hash, network->routes_to[i]);
	if (network->services_said)
		hash = hash_prefixes(hash_u64(hash, 7), network->services, network->n_services);
	if (network->masquerade.mode == MASQUERADE_DEFAULT)
		return hash;
	return hash_prefixes(
		hash_u64(hash, network->masquerade.mode), network->masquerade.exclude, network->masquerade.n_exclude);
}

static uint64_t hash_named_ports(uint64_t hash, const struct named_port *ports, size_t n)
{
	hash = hash_u64(hash, n);
	for (size_t i = 0; i < n; i++)
		hash = hash_u64(hash_string(hash, ports[i].name), (uint64_t)ports[i].protocol << 16 | ports[i].port);
	return hash;
}

static uint64_t hash_port(uint64_t hash, const struct port *port)
{
	hash = hash_string(hash_string(hash_string(hash, port->device), port->vf_pf), port->pci);
	hash = hash_u64(hash_string(hash, port->network), (uint64_t)port->has_mac << 32 | port->vf_index);
	if (port->vf)
		hash = hash_bytes(hash, port->vf, sizeof(*port->vf)); /* it has no holes */
	hash = hash_bytes(hash, port->mac, sizeof(port->mac));
	hash = hash_addresses(hash, port->addresses, port->n_addresses);
	hash = hash_u64(hash, (uint64_t)port->vlan_mode << 32 | (uint64_t)port->vlan_id << 16 | port->vlan_native);
	hash = hash_u64(hash, port->n_vlan_allowed);
	for (size_t i = 0; i < port->n_vlan_allowed; i++)
		hash = hash_u64(hash, (uint64_t)port->vlan_allowed[i].first << 16 | port->vlan_allowed[i].last);
	for (int direction = 0; direction < HD_DIRECTIONS; direction++)
		hash = hash_u64(hash_u64(hash, port->limit[direction].rate), port->limit[direction].burst);
	hash = hash_named_ports(hash, port->ports, port->n_ports);
	for (size_t i = 0; i < port->n_host_ports; i++) {
		const struct host_port *from = &port->host_ports[i];

		hash = hash_u64(hash, (uint64_t)from->has_address << 40 | (uint64_t)from->protocol << 32 |
					      (uint64_t)from->host_port << 16 | from->port);
		hash = from->has_address ? hash_addresses(hash, &from->address, 1) : hash;
	}
	return hash;
}

static uint64_t hash_peer(uint64_t hash, const struct tunnel_peer *peer)
{
	hash = hash_u64(hash_addresses(hash, &peer->address, 1), peer->n_ports);
	for (size_t i = 0; i < peer->n_ports; i++) {
		const struct peer_port *port = &peer->ports[i];

		hash = hash_string(hash_string(hash_string(hash, port->namespace_), port->name), port->network);
		hash = hash_bytes(hash_u64(hash, port->has_mac), port->mac, sizeof(port->mac));
		hash = hash_addresses(hash, port->addresses, port->n_addresses);
		hash = hash_labels(hash, port->labels, port->n_labels);
		hash = hash_named_ports(hash, port->ports, port->n_ports);
	}
	hash = hash_u64(hash, peer->n_prefixes);
	for (size_t i = 0; i < peer->n_prefixes; i++) {
		const struct peer_prefix *prefix = &peer->prefixes[i];

		hash = hash_prefixes(hash_string(hash, prefix->network), &prefix->cidr, 1);
		hash = hash_bytes(hash_u64(hash, prefix->has_mac), prefix->mac, sizeof(prefix->mac));
	}
	return hash;
}

static uint64_t hash_selector(uint64_t hash, const struct selector *selector)
{
	hash = hash_u64(hash_u64(hash, selector->present), selector->n);
	for (size_t i = 0; i < selector->n; i++) {
		const struct requirement *item = &selector->items[i];

		hash = hash_u64(hash_string(hash, item->key), (uint64_t)item->operator<< 32 | item->n_values);
		for (uint32_t j = 0; j < item->n_values; j++)
			hash = hash_string(hash, item->values[j]);
	}
	return hash;
}

static uint64_t hash_policy_rule(uint64_t hash, const struct policy_rule *rule)
{
	hash = hash_u64(hash_u64(hash_string(hash, rule->name), rule->action), rule->n_peers);
	for (size_t i = 0; i < rule->n_peers; i++) {
		const struct policy_peer *peer = &rule->peers[i];

		hash = hash_selector(hash_u64(hash, peer->kind), &peer->namespaces);
		hash = hash_selector(hash_selector(hash, &peer->pods), &peer->nodes);
		hash = hash_prefixes(hash, peer->blocks, peer->n_blocks);
		hash = hash_prefixes(hash, peer->except, peer->n_except);
	}
	hash = hash_u64(hash, rule->n_ports);
	for (size_t i = 0; i < rule->n_ports; i++)
		hash = hash_ports(hash_string(hash, rule->ports[i].name), &rule->ports[i].range, 1);
	return hash;
}

static uint64_t hash_workload(uint64_t hash, const struct workload_policy *policy)
{
	/* audit is an annotation, and counts as one. */
	hash = hash_selector(hash_selector(hash, &policy->namespaces), &policy->pods);
	hash = hash_u64(hash, (uint64_t)policy->baseline << 32 | policy->priority);
	for (int direction = 0; direction < HD_DIRECTIONS; direction++) {
		hash = hash_u64(hash_u64(hash, policy->applies[direction]), policy->n_rules[direction]);
		for (size_t i = 0; i < policy->n_rules[direction]; i++)
			hash = hash_policy_rule(hash, &policy->rules[direction][i]);
	}
	return hash;
}

static uint64_t hash_numbers(uint64_t hash, const uint32_t *numbers, size_t n)
{
	hash = hash_u64(hash, n);
	for (size_t i = 0; i < n; i++)
		hash = hash_u64(hash, numbers[i]);
	return hash;
}

static uint64_t hash_fast_path(uint64_t hash, const struct fast_path *path)
{
	const uint64_t numbers[] = {path->consumer, path->drop, path->copy, path->trusted, path->frames, path->frame_size,
		path->ring, path->busy_us, path->busy_budget, path->stall_ms, path->n_queues, path->workers, path->batch,
		path->spin, path->latency, path->way, path->n_devices};

	hash = hash_string(hash_string(hash, path->uplink), path->port);
	hash = hash_string(hash, path->port ? path->port_namespace : NULL);
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		hash = hash_u64(hash, numbers[i]);
	for (size_t i = 0; i < path->n_queues; i++)
		hash = hash_u64(hash, path->queues[i]);
	for (size_t i = 0; i < path->n_devices; i++)
		hash = hash_string(hash, path->devices[i]);
	hash = hash_numbers(hash, path->cpus, path->n_cpus);
	hash = hash_u64(hash, path->n_matches);
	for (size_t i = 0; i < path->n_matches; i++) {
		const struct fast_match *match = &path->matches[i];

		hash = hash_prefixes(hash_prefixes(hash, &match->source, 1), &match->destination, 1);
		hash = hash_string(hash_string(hash, match->policy), match->rule);
		hash = hash_u64(hash, (uint64_t)match->port << 48 | (uint64_t)match->source_port << 32 |
					      (uint64_t)match->vlan << 16 | match->protocol);
	}
	return hash_numbers(hash_numbers(hash, path->users, path->n_users), path->groups, path->n_groups);
}

uint64_t content_hash(const struct object *object)
{
	/* By name: the kinds' numbers change as there are more of them. */
	uint64_t hash = hash_string(1, object_kind_name(object->kind));

	hash = hash_string(hash_string(hash, object->namespace_), object->name);
	hash = hash_labels(hash, object->labels, object->n_labels);
	hash = hash_labels(hash, object->annotations, object->n_annotations);
	switch (object->kind) {
	case OBJECT_HOST:
		return hash_host(hash, &object->host);
	case OBJECT_NETWORK:
		return hash_network(hash, &object->network);
	case OBJECT_PORT:
		return hash_port(hash, &object->port);
	case OBJECT_PEER:
		return hash_peer(hash, &object->tunnel_peer);
	case OBJECT_NETWORK_POLICY:
	case OBJECT_ADMIN_NETWORK_POLICY:
	case OBJECT_BASELINE_ADMIN_NETWORK_POLICY:
	case OBJECT_CLUSTER_NETWORK_POLICY:
		return hash_workload(hash, &object->workload);
	case OBJECT_ADDRESS_GROUP:
		return hash_prefixes(hash, object->group.cidrs, object->group.n_cidrs);
	case OBJECT_HOST_POLICY:
		return hash_policy(hash, object);
	case OBJECT_FAST_PATH:
		return hash_fast_path(hash, &object->fast_path);
	case OBJECT_NAMESPACE:
	case OBJECT_KIND_COUNT:
		break;
	}
	return hash;
}
