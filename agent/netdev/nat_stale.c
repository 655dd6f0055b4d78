/* SPDX-License-Identifier: Apache-2.0 */
#include <netdev/nat_stale.h>

#include <netinet/in.h>
#include <string.h>

#include <util/addr.h>

static bool same(const struct hd_addr *a, const struct hd_addr *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

static bool equal(const struct nat_port *a, const struct nat_port *b)
{
	return a->protocol == b->protocol && a->host_port == b->host_port && a->to_port == b->to_port && a->any == b->any &&
	       same(&a->to, &b->to) && (a->any || same(&a->host, &b->host));
}

static bool is_among(const struct nat_ports *ports, const struct nat_port *port)
{
	for (size_t i = 0; i < ports->n; i++)
		if (equal(&ports->items[i], port))
			return true;
	return false;
}

static bool is_gone(const struct nat_change *change, const struct nat_port *port)
{
	return port->protocol == IPPROTO_UDP && !is_among(&change->now, port);
}

static bool is_new(const struct nat_change *change, const struct nat_port *port)
{
	return port->protocol == IPPROTO_UDP && (change->lost || !is_among(&change->before, port));
}

static bool is_local(const struct nat_change *change, const struct hd_addr *addr)
{
	for (size_t i = 0; i < change->n_local; i++)
		if (same(&change->local[i], addr))
			return true;
	return false;
}

static bool asks_for(const struct conntrack_flow *flow, const struct nat_port *port)
{
	return flow->to_port == port->host_port && addr_is_ipv4(&flow->to) == addr_is_ipv4(&port->to) &&
	       (port->any || same(&flow->to, &port->host));
}

static bool leads_to(const struct conntrack_flow *flow, const struct nat_port *port)
{
	return flow->answers_port == port->to_port && same(&flow->answers, &port->to);
}

bool nat_is_stale(const struct nat_change *change, const struct conntrack_flow *flow)
{
	for (size_t i = 0; i < change->before.n; i++) {
		const struct nat_port *port = &change->before.items[i];

		if (asks_for(flow, port) && leads_to(flow, port) && is_gone(change, port))
			return true;
	}
	/* what only passes by has the same port of somebody else's address */
	for (size_t i = 0; i < change->now.n; i++) {
		const struct nat_port *port = &change->now.items[i];

		if (asks_for(flow, port) && !leads_to(flow, port) && is_new(change, port) && is_local(change, &flow->to))
			return true;
	}
	return false;
}

static bool is(const struct conntrack_flow *flow, void *userdata)
{
	return nat_is_stale(userdata, flow);
}

int nat_forget_stale(const struct nat_change *change, size_t *ret_n)
{
	uint16_t port = 0;
	bool several = false;

	*ret_n = 0;
	for (size_t i = 0; i < change->before.n + change->now.n; i++) {
		bool before = i < change->before.n;
		const struct nat_port *at = before ? &change->before.items[i] : &change->now.items[i - change->before.n];

		if (before ? !is_gone(change, at) : !is_new(change, at))
			continue;
		several |= port && port != at->host_port;
		port = at->host_port;
	}
	return port ? conntrack_forget_udp(several ? 0 : port, is, (void *)change, ret_n) : 0;
}
