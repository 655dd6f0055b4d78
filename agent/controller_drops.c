/* SPDX-License-Identifier: Apache-2.0 */
/* What policy denies and NICs drop: what that asks of the programs, the topology and the counters. Goes along with controller_offload.c. */
#include <errno.h>
#include <string.h>
#include <arpa/inet.h>
#include <netinet/in.h>

#include <controller_internal.h>
#include <observe/packet.h>
#include <offload/drops.h>

#define TCP_SYN 0x02
#define ANY_PORT 49152 /* where a rule has no source port, any is as good */

static int frame_of(const struct offload_rule *rule, uint8_t frame[PACKET_MAX], size_t *ret_length)
{
	uint16_t port = ntohs(rule->destination_port);
	struct packet_spec spec = {.source = rule->source,
		.destination = rule->destination,
		.protocol = rule->protocol,
		.source_port = rule->source_port ? ntohs(rule->source_port) : ANY_PORT,
		.destination_port = port,
		.icmp_type = (uint8_t)(port >> 8),
		.icmp_code = (uint8_t)port,
		.tcp_flags = rule->protocol == IPPROTO_TCP ? TCP_SYN : 0};

	memcpy(spec.source_mac, rule->source_mac, sizeof(spec.source_mac));
	memcpy(spec.destination_mac, rule->destination_mac, sizeof(spec.destination_mac));
	return packet_build(&spec, frame, ret_length);
}

static bool logs(uint32_t leaf, uint32_t rule)
{
	return (leaf & HD_LEAF_RULE_MASK) == rule && leaf & HD_LEAF_LOG;
}

/* What let the packet by was a policy in audit, which reports what it would have dropped. */
static bool audits(const struct controller *c, uint32_t rule)
{
	struct rule_reference reference;

	return rule == HD_RULE_ISOLATED || (rule && compiler_rule(c->compiler, rule, &reference) == 0 && reference.audit);
}

/* By the twin of what looks at the port's packets. */
static int op_ask(const struct offload_rule *rule, struct drop_answer *ret, void *userdata)
{
	struct controller *c = userdata;
	uint8_t frame[PACKET_MAX];
	struct datapath_probe probe = {.hook = HD_HOOK_TC_PORT_IN, .ifindex = rule->in, .frame = frame};
	struct hd_explain said = {0};
	int r = frame_of(rule, frame, &probe.length);

	if (r == 0)
		r = datapath_explain(c->datapath, &probe, &said);
	if (r < 0)
		return r;
	ret->denied = said.reason == HD_R_POLICY_DENY || said.reason == HD_R_POLICY_REJECT;
	ret->silent = said.reason == HD_R_POLICY_DENY && !logs(said.any_leaf, said.rule) && !logs(said.class_leaf, said.rule) &&
		      !audits(c, said.first_rule);
	ret->by_sender = !said.first_rule;
	ret->rule = said.rule;
	return 0;
}

static bool op_owner(uint16_t network, const struct hd_addr *address, uint32_t *ret, void *userdata)
{
	const struct controller *c = userdata;
	const struct hd_endpoint *endpoint = topology_endpoint(c->topology, network, address);

	*ret = 0;
	if (!endpoint)
		return !topology_peer_of(c->topology, network, address) && !topology_elsewhere(c->topology, network, address);
	*ret = endpoint->ifindex;
	return endpoint->ifindex && !(endpoint->flags & (HD_ENDPOINT_GATEWAY | HD_ENDPOINT_TAKEN | HD_ENDPOINT_NODE));
}

static int op_credit(uint32_t rule, uint64_t packets, uint64_t bytes, uint64_t frames, void *userdata)
{
	struct controller *c = userdata;

	return datapath_credit_deny(c->datapath, rule, packets, bytes, frames);
}

static int op_denied(uint64_t *ret, void *userdata)
{
	struct hd_counter counters[HD_REASON_COUNT][2];
	struct controller *c = userdata;
	int r = datapath_drops(c->datapath, counters);

	if (r == 0)
		*ret = counters[HD_R_POLICY_DENY][HD_EGRESS].packets;
	return r;
}

int drops_begin(struct controller *c, const struct offload_ops *nic, const struct offload_world *world, unsigned header)
{
	const struct drops_ops ops = {.add = nic->add,
		.remove = nic->remove,
		.each = nic->each,
		.now_ms = nic->now_ms,
		.ask = op_ask,
		.owner = op_owner,
		.credit = op_credit,
		.denied = op_denied,
		.userdata = c};
	int r = drops_new(&ops, world, header, &c->drops);

	c->flows_refused = 0;
	if (r == 0)
		c->view.drops = c->drops;
	return r;
}

/* A flow that finds no room goes before what is dropped. */
static void yield_to_flows(struct controller *c)
{
	struct offload_status status;

	offload_status(c->offload, &status);
	if (status.work.refused != c->flows_refused && (status.work.refusal == -ENOSPC || status.work.refusal == -ENOMEM))
		drops_yield(c->drops);
	c->flows_refused = status.work.refused;
}

void drops_turn(struct controller *c)
{
	yield_to_flows(c);
	drops_round(c->drops);
}

void drops_event(struct controller *c, const struct hd_event *event)
{
	if (c->drops && !c->view.offload_reason)
		drops_note(c->drops, event);
}

void drops_before_rows(struct controller *c)
{
	if (c->drops)
		drops_stop(c->drops);
}

void drops_end(struct controller *c)
{
	if (c->drops)
		drops_stop(c->drops);
	c->view.drops = NULL;
	drops_free(TAKE_PTR(c->drops));
}
