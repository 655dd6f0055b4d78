/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ADD. The container's end stays down until heddled says that the policy of its port is in force: before that nothing gets in or out. Whatever
 * fails is undone, in the opposite order.
 */
#include <cni/cni.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <util/addr.h>

struct adding {
	const struct config *config;
	struct failure *failure;
	struct agent *agent;
	struct links *host, *inside;
	int netns;
	char device[DEVICE_NAME_MAX], alias[ALIAS_MAX], device_mac[MAC_TEXT_MAX]; /* the host's end; device "": it has none */
	struct vf_offer vf;
	struct result delegated, result;
	struct hd_addr gateways[8]; /* of the network */
	size_t n_gateways;
	uint32_t index; /* of the container's end */
	/* what there is to undo */
	bool ipam, reserved, made, taken;
};

static int failed(struct adding *a, const char *what, int r)
{
	return fail_with(a->failure, FAILURE_NETWORK, r, "cannot %s: %s", what, strerror(-r));
}

/* --- the container --- */

static int open_container(struct adding *a)
{
	const struct environment *env = &a->config->env;
	struct link link;
	int r = netns_open(env->netns, &a->netns);

	if (r == -ENOENT)
		return fail_with(a->failure, FAILURE_CONTAINER, r, "CNI_NETNS: there is no %s", env->netns);
	if (r < 0)
		return fail_with(a->failure, FAILURE_ENVIRONMENT, r, "CNI_NETNS: want a network namespace, got %s (%s)",
			env->netns, strerror(-r));
	if (!env->netns_override && netns_is_own(a->netns))
		return fail_with(a->failure, FAILURE_NETNS, -EINVAL, "CNI_NETNS: %s is the namespace of the runtime", env->netns);
	r = links_open_in(a->netns, &a->inside);
	if (r < 0)
		return failed(a, "enter the container's namespace", r);
	r = links_open(&a->host);
	if (r < 0)
		return failed(a, "ask for devices", r);
	r = links_find(a->inside, env->ifname, &link);
	if (r == 0)
		return fail_with(a->failure, FAILURE_NETWORK, -EEXIST, "the container has an interface %s already", env->ifname);
	return r == -ENODEV ? 0 : failed(a, "look into the container", r);
}

/* --- addresses --- */

static int connect_agent(struct adding *a)
{
	int r = agent_connect(a->config->socket, AGENT_ADD_CONNECT_MS, &a->agent);

	return r < 0 ? fail_with(a->failure, FAILURE_AGAIN, r, "heddled at %s: %s", a->config->socket, strerror(-r)) : 0;
}

/* It may take its time, and the agent's connections are few: meanwhile another may have ours. */
static int run_ipam(struct adding *a)
{
	json_auto_t *answer = NULL;
	int r;

	if (!a->config->ipam)
		return 0;
	agent_close(a->agent);
	a->agent = NULL;
	/* one that was killed half way may have kept something */
	a->ipam = true;
	r = delegate_run(a->config, "ADD", &answer, a->failure);
	if (r == 0)
		r = result_decode(answer, NULL, &a->delegated, a->failure);
	if (r == 0 && !a->delegated.n_addresses)
		return fail_with(a->failure, FAILURE_CONFIG, -EINVAL, "%s: the IPAM plugin gave no address", a->config->ipam);
	return r < 0 ? r : connect_agent(a);
}

static json_t *reserve_body(const struct adding *a)
{
	const struct config *config = a->config;
	json_t *body = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s*, s:s*, s:s*, s:s*, s:O}", "name", config->name, "containerID",
		config->env.container, "ifname", config->env.ifname, "network", config->network,
		config->pci[0] ? "pci" : "device", config->pci[0] ? config->pci : a->device, "namespace", config->namespace_,
		"pod", config->pod, "uid", config->uid, "mac", config->mac, "labels", config->labels);
	json_t *addresses;
	char text[ADDR_TEXT_MAX];

	if (!body)
		return NULL;
	if (json_array_size(config->host_ports))
		json_object_set(body, "hostPorts", config->host_ports);
	if (json_object_size(config->bandwidth))
		json_object_set(body, "bandwidth", config->bandwidth);
	if (config->pci[0] && config->vf)
		json_object_set(body, "vf", (json_t *)config->vf);
	if (config->ipam) {
		addresses = json_array();
		for (size_t i = 0; i < a->delegated.n_addresses; i++)
			json_array_append_new(addresses, json_string(addr_format(&a->delegated.addresses[i].addr, text)));
		json_object_set_new(body, "addresses", addresses);
		return body;
	}
	if (json_array_size(config->ips))
		json_object_set(body, "ips", config->ips);
	if (config->ranges)
		json_object_set(body, "ranges", (json_t *)config->ranges);
	return body;
}

static const struct hd_addr *gateway_for(const struct adding *a, const struct hd_addr *addr)
{
	for (size_t i = 0; i < a->n_gateways; i++)
		if (addr_is_ipv4(&a->gateways[i]) == addr_is_ipv4(addr))
			return &a->gateways[i];
	return NULL;
}

static int take_address(struct adding *a, const char *text)
{
	const char *slash = text ? strchr(text, '/') : NULL;
	char addr[ADDR_TEXT_MAX];
	struct address address = {0};
	const struct hd_addr *gateway;

	if (!slash || slash - text >= (int)sizeof(addr))
		return -EBADMSG;
	snprintf(addr, sizeof(addr), "%.*s", (int)(slash - text), text);
	if (addr_parse(addr, &address.addr) < 0)
		return -EBADMSG;
	address.length = (uint8_t)strtoul(slash + 1, NULL, 10);
	gateway = gateway_for(a, &address.addr);
	if (gateway) {
		address.has_gateway = true;
		address.gateway = *gateway;
	}
	return result_add_address(&a->result, &address);
}

/* Those of an IPAM plugin, through the network's gateway whatever it says; without any, everything goes there. */
static int choose_routes(struct adding *a)
{
	const struct hd_addr *gateway;
	int r = 0;

	for (size_t i = 0; i < a->delegated.n_routes && r == 0; i++) {
		struct route route = a->delegated.routes[i];

		gateway = gateway_for(a, &route.to);
		if (gateway) {
			route.has_gateway = true;
			route.gateway = *gateway;
		}
		if (route.has_gateway)
			r = result_add_route(&a->result, &route);
	}
	for (size_t i = 0; i < a->result.n_addresses && r == 0 && !a->delegated.n_routes; i++) {
		const struct address *address = &a->result.addresses[i];
		bool ipv4 = addr_is_ipv4(&address->addr), known = false;
		struct route route = {.has_gateway = true, .gateway = address->gateway};

		if (ipv4)
			route.to = addr_from_ipv4(0);
		for (size_t j = 0; j < a->result.n_routes; j++)
			known |= addr_is_ipv4(&a->result.routes[j].to) == ipv4;
		if (address->has_gateway && !known)
			r = result_add_route(&a->result, &route);
	}
	return r;
}

static int take_offer(struct adding *a, const json_t *vf)
{
	const json_t *representor = json_object_get(vf, "representor"), *interface = json_object_get(vf, "interface");
	const char *mode = json_string_value(json_object_get(vf, "mode"));

	if (!mode || !json_is_boolean(interface))
		return -EBADMSG;
	a->vf = (struct vf_offer){.interface = json_is_true(interface), .legacy = strcmp(mode, "switchdev") != 0};
	a->device[0] = '\0';
	if (a->vf.legacy)
		return 0;
	a->vf.representor = (uint32_t)json_integer_value(json_object_get(representor, "ifindex"));
	snprintf(a->device, sizeof(a->device), "%s", json_string_value(json_object_get(representor, "device")) ?: "");
	snprintf(a->device_mac, sizeof(a->device_mac), "%s", json_string_value(json_object_get(representor, "mac")) ?: "");
	return a->vf.representor && a->device[0] ? 0 : -EBADMSG;
}

static int take_reservation(struct adding *a, const json_t *answer)
{
	const char *mac = json_string_value(json_object_get(answer, "mac"));
	json_int_t mtu = json_integer_value(json_object_get(answer, "mtu"));
	const json_t *item;
	size_t i;
	int r = mac && strlen(mac) == 17 && mtu >= 68 && mtu <= 65535 ? 0 : -EBADMSG;

	json_array_foreach (json_object_get(answer, "gateways"), i, item)
		if (r == 0 && a->n_gateways < ARRAY_SIZE(a->gateways) && json_is_string(item) &&
			addr_parse(json_string_value(item), &a->gateways[a->n_gateways]) == 0)
			a->n_gateways++;
	json_array_foreach (json_object_get(answer, "addresses"), i, item)
		if (r == 0)
			r = take_address(a, json_string_value(item));
	if (r == 0)
		r = choose_routes(a);
	if (r == 0 && a->config->pci[0])
		r = take_offer(a, json_object_get(answer, "vf"));
	if (r < 0)
		return fail_with(a->failure, FAILURE_AGENT, r, "heddled: cannot understand its answer: %s", strerror(-r));
	snprintf(a->result.mac, sizeof(a->result.mac), "%s", mac);
	a->result.mtu = (uint32_t)mtu;
	if (a->delegated.dns)
		a->result.dns = json_incref(a->delegated.dns);
	return 0;
}

/* FAILURE_AGAIN without an answer: the agent is being started, or busy. */
static int ask(struct adding *a, const char *path, json_t *body, json_t **ret)
{
	unsigned status = 0;
	int r = body ? agent_ask(a->agent, path, body, AGENT_ANSWER_MS, &status, ret) : -ENOMEM;

	if (r < 0)
		return fail_with(a->failure, FAILURE_AGAIN, r, "heddled at %s: %s", a->config->socket, strerror(-r));
	return agent_failure(status, *ret, a->failure);
}

static int reserve(struct adding *a)
{
	json_auto_t *body = reserve_body(a), *answer = NULL;
	int r = ask(a, "/v1/cni/reserve", body, &answer);

	/* refused: what may be there is that of an earlier ADD */
	if (r < 0)
		return r;
	a->reserved = true;
	return take_reservation(a, answer);
}

static int commit(struct adding *a)
{
	json_auto_t *body = json_pack("{s:s, s:s, s:s}", "name", a->config->name, "containerID", a->config->env.container,
			    "ifname", a->config->env.ifname),
		    *answer = NULL;

	return ask(a, "/v1/cni/commit", body, &answer);
}

/* --- devices --- */

static int make_device(struct adding *a)
{
	const char *ifname = a->config->env.ifname;
	struct link link;
	int r = links_make(a->host, a->device, a->netns, ifname, a->result.mac, a->result.mtu);

	/* left by an ADD of this attachment that was killed: the agent knows of none that lives */
	if (r == -EEXIST) {
		r = detach(a->host, a->device, a->alias, a->failure);
		if (r < 0)
			return r;
		r = links_make(a->host, a->device, a->netns, ifname, a->result.mac, a->result.mtu);
	}
	if (r < 0)
		return failed(a, "make the container's interface", r);
	a->made = true;
	r = links_set_up(a->host, a->device, a->alias);
	if (r == 0)
		r = links_find(a->host, a->device, &link);
	if (r < 0)
		return failed(a, "set the host's end up", r);
	memcpy(a->device_mac, link.mac, sizeof(link.mac));
	r = links_find(a->inside, ifname, &link);
	a->index = link.index;
	return r < 0 ? failed(a, "find the container's end", r) : 0;
}

/* It may be another container's, and then stays with it. */
static int take_vf(struct adding *a)
{
	struct link link;
	int r;

	a->taken = true;
	r = vf_take(a->config, a->host, a->inside, a->netns, &a->vf, a->result.mtu, a->failure);
	if (r < 0 || !a->vf.interface)
		return r;
	r = links_find(a->inside, a->config->env.ifname, &link);
	a->index = link.index;
	return r < 0 ? failed(a, "find the VF in the container", r) : 0;
}

static int add_addresses(struct adding *a)
{
	bool ipv6 = false;
	int r = 0;

	for (size_t i = 0; i < a->result.n_addresses && r == 0; i++) {
		if (!addr_is_ipv4(&a->result.addresses[i].addr) && !ipv6) {
			ipv6 = true;
			r = netns_allow_ipv6(a->netns, a->config->env.ifname);
		}
		if (r == 0)
			r = links_add_address(a->inside, a->index, &a->result.addresses[i]);
	}
	return r < 0 ? failed(a, "give the container its addresses", r) : 0;
}

static bool is_on_link(const struct adding *a, const struct hd_addr *gateway)
{
	for (size_t i = 0; i < a->result.n_addresses; i++) {
		const struct address *address = &a->result.addresses[i];
		uint8_t length = (uint8_t)(address->length + (addr_is_ipv4(&address->addr) ? 96 : 0));

		if (addr_is_ipv4(&address->addr) == addr_is_ipv4(gateway) && addr_in_prefix(gateway, &address->addr, length))
			return true;
	}
	return false;
}

/* A gateway outside of the container's subnets, as on a network that is routed by address alone, needs a route of its own. */
static int add_routes(struct adding *a)
{
	int r = links_set_up(a->inside, a->config->env.ifname, NULL);

	if (r < 0)
		return failed(a, "set the container's end up", r);
	for (size_t i = 0; i < a->result.n_addresses && r == 0; i++) {
		const struct address *address = &a->result.addresses[i];
		struct route route = {.to = address->gateway, .length = addr_is_ipv4(&address->gateway) ? 32 : 128};

		if (address->has_gateway && !is_on_link(a, &address->gateway))
			r = links_add_route(a->inside, a->index, &route, false);
	}
	for (size_t i = 0; i < a->result.n_routes && r == 0; i++)
		r = links_add_route(a->inside, a->index, &a->result.routes[i], false);
	return r < 0 ? failed(a, "give the container its routes", r) : 0;
}

/* --- all of it --- */

/* Without heeding failures: what is left, a DEL finds. */
static void undo(struct adding *a)
{
	__attribute__((cleanup(failure_clear))) struct failure ignored = {0};
	const struct environment *env = &a->config->env;
	json_auto_t *body = NULL, *answer = NULL;
	unsigned status;
	int left = 0;

	if (a->made)
		(void)detach(a->host, a->device, a->alias, &ignored);
	if (a->taken)
		left = vf_give_back(a->config, a->host, env->container, env->ifname, env->netns, &ignored);
	/* on a new connection: an answer to the old one may still be on its way */
	if (a->reserved) {
		agent_close(a->agent);
		a->agent = NULL;
		body = json_pack(
			"{s:s, s:s, s:s}", "name", a->config->name, "containerID", env->container, "ifname", env->ifname);
		if (agent_connect(a->config->socket, AGENT_CONNECT_MS, &a->agent) == 0 && body)
			(void)agent_ask(a->agent, "/v1/cni/release", body, AGENT_DEL_MS, &status, &answer);
	}
	if (left > 0)
		(void)vf_give_back(a->config, a->host, env->container, env->ifname, env->netns, &ignored);
	if (a->ipam)
		(void)delegate_run(a->config, "DEL", NULL, &ignored);
}

static int check_chain(struct adding *a)
{
	const json_t *list = any_case(a->config->previous, "interfaces"), *item;
	size_t i;

	json_array_foreach (list, i, item)
		if (!strcmp(json_string_value(any_case(item, "name")) ?: "", a->config->env.ifname) && any_case(item, "sandbox"))
			return fail_with(a->failure, FAILURE_CONFIG, -EINVAL,
				"prevResult: %s is another plugin's already: heddle-cni comes first in its chain",
				a->config->env.ifname);
	return 0;
}

#define PASSES_MS 2000

/*
 * The kernel turns the host's end on behind our back, some time after the container's end is up (link_watch.c), and until then throws away what
 * is sent to the container: an answer to its first question would be lost, and with it a second. One that takes longer gets its container.
 */
static void wait_for_host(struct adding *a)
{
	const char *device = a->taken ? a->config->env.ifname : a->device;
	int r = links_wait(a->taken ? a->inside : a->host, device, PASSES_MS);

	if (r < 0)
		fprintf(stderr, "heddle-cni: %s is not up yet: %s\n", device, strerror(-r));
}

/* Where a driver of user space has the VF, its addresses are for whoever that serves: nothing is to be set here. */
static int connect_vf(struct adding *a)
{
	int r = take_vf(a);

	if (r == 0 && a->vf.interface)
		r = add_addresses(a);
	if (r == 0)
		r = commit(a);
	if (r < 0 || !a->vf.interface)
		return r;
	r = vf_set_mac(a->inside, a->index, a->result.mac, a->failure);
	return r < 0 ? r : add_routes(a);
}

static int connect_pair(struct adding *a)
{
	int r = make_device(a);

	if (r == 0)
		r = add_addresses(a);
	if (r == 0)
		r = commit(a);
	return r < 0 ? r : add_routes(a);
}

static int add(struct adding *a)
{
	int r = check_chain(a);

	if (r == 0)
		r = open_container(a);
	if (r < 0)
		return r;
	r = connect_agent(a);
	if (r == 0)
		r = run_ipam(a);
	if (r == 0)
		r = reserve(a);
	if (r == 0)
		r = a->config->pci[0] ? connect_vf(a) : connect_pair(a);
	if (r == 0 && (!a->taken || a->vf.interface))
		wait_for_host(a);
	return r;
}

int verb_add(const struct config *config, json_t **answer, struct failure *failure)
{
	struct adding a = {.config = config, .failure = failure, .netns = -1};
	int r;

	config_device(config->name, config->env.container, config->env.ifname, a.device);
	config_alias(config->env.container, config->env.ifname, a.alias);
	r = add(&a);
	if (r == 0) {
		*answer = result_encode(config, &a.result, a.device[0] ? a.device : NULL, a.device_mac);
		if (!*answer)
			r = fail_with(failure, FAILURE_INTERNAL, -ENOMEM, "out of memory");
	}
	if (r < 0)
		undo(&a);
	agent_close(a.agent);
	links_close(a.host);
	links_close(a.inside);
	result_clear(&a.delegated);
	result_clear(&a.result);
	safe_close(a.netns);
	return r;
}
