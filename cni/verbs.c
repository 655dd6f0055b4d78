/* SPDX-License-Identifier: Apache-2.0 */
/* DEL, CHECK, GC and STATUS. ADD has a file of its own. */
#include <cni/cni.h>

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <util/addr.h>

/* --- DEL --- */

int detach(struct links *links, const char *device, const char *alias, struct failure *failure)
{
	struct link link;
	int r = links_find(links, device, &link);

	if (r == -ENODEV)
		return 0;
	if (r < 0)
		return fail_with(failure, FAILURE_NETWORK, r, "cannot look for %s: %s", device, strerror(-r));
	/*
	 * The name is a hash of the attachment; without an alias an ADD was killed before it wrote one. Its namespace is not looked at: the path
	 * may be another container's by now, and with this end the other goes, wherever it is.
	 */
	if (!link.veth || (link.alias[0] && strcmp(link.alias, alias) != 0)) {
		fprintf(stderr, "heddle-cni: %s is not the attachment's: it stays\n", device);
		return 0;
	}
	r = links_remove(links, link.index);
	if (r < 0 && r != -ENODEV)
		return fail_with(failure, FAILURE_NETWORK, r, "cannot remove %s: %s", device, strerror(-r));
	return 0;
}

int attachment_release(struct agent *agent, const char *name, const char *container, const char *ifname, struct failure *failure)
{
	json_auto_t *body = json_pack("{s:s, s:s, s:s}", "name", name, "containerID", container, "ifname", ifname),
		    *answer = NULL;
	unsigned status = 0;
	int r = body ? agent_ask(agent, "/v1/cni/release", body, AGENT_DEL_MS, &status, &answer) : -ENOMEM;

	return r < 0 ? r : agent_failure(status, answer, failure);
}

/* The device first: nobody gets the container's address while it can still send. */
int verb_del(const struct config *config, struct failure *failure)
{
	const struct environment *env = &config->env;
	_cleanup_(links_close_p) struct links *links = NULL;
	_cleanup_(agent_close_p) struct agent *agent = NULL;
	char device[DEVICE_NAME_MAX], alias[ALIAS_MAX];
	int r = links_open(&links), left;

	if (r < 0)
		return fail_with(failure, FAILURE_NETWORK, r, "cannot ask for devices: %s", strerror(-r));
	config_device(config->name, env->container, env->ifname, device);
	config_alias(env->container, env->ifname, alias);
	r = detach(links, device, alias, failure);
	left = r < 0 ? r : vf_give_back(config, links, env->container, env->ifname, env->netns, failure);
	if (left < 0)
		return left;
	r = agent_connect(config->socket, AGENT_CONNECT_MS, &agent);
	if (r == 0)
		r = attachment_release(agent, config->name, env->container, env->ifname, failure);
	if (r < 0 && failure->code)
		return r;
	/* a MAC that its PF gave it goes once the PF takes that back */
	if (r == 0 && left && vf_give_back(config, links, env->container, env->ifname, env->netns, failure) < 0)
		return -EIO;
	/* A container must end without the agent too: its next start finds that the device is gone. */
	if (r < 0)
		fprintf(stderr, "heddle-cni: heddled at %s: %s: it frees the addresses of %s when it starts\n", config->socket,
			strerror(-r), env->container);
	return config->ipam ? delegate_run(config, "DEL", NULL, failure) : 0;
}

/* --- CHECK --- */

static int broken(struct failure *failure, const char *format, const char *what)
{
	return fail_with(failure, FAILURE_CHECK, -ENOENT, format, what); // NOLINT(clang-diagnostic-format-nonliteral)
}

static int check_container(struct links *links, const struct config *config, const struct result *result, struct failure *failure)
{
	char text[ADDR_TEXT_MAX];
	struct link link;
	int r = links_find(links, config->env.ifname, &link);

	if (r < 0)
		return fail_with(failure, FAILURE_CHECK, r, "%s is not in the container", config->env.ifname);
	if (!link.up)
		return fail_with(failure, FAILURE_CHECK, -ENETDOWN, "%s is down in the container", config->env.ifname);
	for (size_t i = 0; i < result->n_addresses; i++) {
		r = links_has_address(links, link.index, &result->addresses[i].addr);
		if (r < 0)
			return fail_with(failure, FAILURE_NETWORK, r, "cannot list addresses: %s", strerror(-r));
		if (!r)
			return fail_with(failure, FAILURE_CHECK, -ENOENT, "%s has lost the address %s", config->env.ifname,
				addr_format(&result->addresses[i].addr, text));
	}
	return 0;
}

/* Those of a chain's other plugins may lead through other devices; of ours, a later plugin may have changed some: the address's own family's way out must be there. */
static int check_routes(struct links *links, const struct config *config, const struct result *result, struct failure *failure)
{
	char text[ADDR_TEXT_MAX];
	struct link link;
	int r = links_find(links, config->env.ifname, &link);

	for (size_t i = 0; r == 0 && i < result->n_routes; i++) {
		const struct route *route = &result->routes[i];
		bool ours = false;

		for (size_t j = 0; j < result->n_addresses; j++)
			ours |= result->addresses[j].has_gateway && route->has_gateway &&
				memcmp(&result->addresses[j].gateway, &route->gateway, sizeof(route->gateway)) == 0;
		if (!ours)
			continue;
		r = links_has_route(links, link.index, route);
		if (r == 0)
			return fail_with(failure, FAILURE_CHECK, -ENOENT, "%s has lost the route to %s/%u", config->env.ifname,
				addr_format(&route->to, text), route->length);
		r = r > 0 ? 0 : r;
	}
	return r;
}

static bool same_host_port(const json_t *asked, const json_t *has)
{
	static const char *const numbers[] = {"hostPort", "port"};
	const char *at = json_string_value(json_object_get(asked, "hostAddress"));
	const char *its = json_string_value(json_object_get(has, "hostAddress"));
	struct hd_addr address, other;

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		if (json_integer_value(json_object_get(asked, numbers[i])) !=
			json_integer_value(json_object_get(has, numbers[i])))
			return false;
	if (strcmp(json_string_value(json_object_get(asked, "protocol")),
		    json_string_value(json_object_get(has, "protocol")) ?: ""))
		return false;
	if (!at || !its)
		return !at && !its;
	return addr_parse(at, &address) == 0 && addr_parse(its, &other) == 0 && memcmp(&address, &other, sizeof(address)) == 0;
}

/* Those that the runtime names; one that names none has not passed them on. */
static int check_host_ports(const struct config *config, const json_t *attachment, struct failure *failure)
{
	const json_t *asked, *has, *reason = json_object_get(attachment, "hostPortsReason");
	size_t i, j;

	json_array_foreach (config->host_ports, i, asked) {
		bool found = false;

		json_array_foreach (json_object_get(attachment, "hostPorts"), j, has)
			found |= same_host_port(asked, has);
		if (!found)
			return fail_with(failure, FAILURE_CHECK, -ENOENT,
				"port %lld of the host (%s) does not lead to port %lld of the container",
				(long long)json_integer_value(json_object_get(asked, "hostPort")),
				json_string_value(json_object_get(asked, "protocol")),
				(long long)json_integer_value(json_object_get(asked, "port")));
	}
	if (json_array_size(config->host_ports) && json_is_string(reason))
		return broken(failure, "ports of the host are not in force: %s", json_string_value(reason));
	return 0;
}

/* A rate is in force in whole kbit/s. */
static int check_bandwidth(const struct config *config, const json_t *attachment, struct failure *failure)
{
	const json_t *in_force = json_object_get(attachment, "bandwidth"), *limit;
	const char *way;

	json_object_foreach ((json_t *)config->bandwidth, way, limit) {
		double rate = strtod(json_string_value(json_object_get(limit, "rate")) ?: "", NULL);
		const json_t *has = json_object_get(in_force, way);

		if (!json_is_integer(has) || fabs((double)json_integer_value(has) - rate) >= 1000)
			return fail_with(failure, FAILURE_CHECK, -ENOENT, "the %s rate is not %.0f bit/s but %lld", way, rate,
				(long long)json_integer_value(has));
	}
	return 0;
}

static int check_agent(const struct config *config, const struct result *result, struct failure *failure)
{
	_cleanup_(agent_close_p) struct agent *agent = NULL;
	_cleanup_buffer_ struct buffer path = {0};
	json_auto_t *answer = NULL;
	const json_t *item, *address;
	char text[ADDR_TEXT_MAX];
	const char *state;
	unsigned status = 0;
	int r = agent_connect(config->socket, AGENT_CONNECT_MS, &agent);

	buffer_add_string(&path, "/v1/cni/attachments?name=");
	agent_quote(&path, config->name);
	buffer_add_string(&path, "&containerID=");
	agent_quote(&path, config->env.container);
	buffer_add_string(&path, "&ifname=");
	agent_quote(&path, config->env.ifname);
	if (r == 0)
		r = path.failed ? -ENOMEM : agent_ask(agent, path.data, NULL, AGENT_ANSWER_MS, &status, &answer);
	if (r < 0)
		return fail_with(failure, FAILURE_AGAIN, r, "heddled at %s: %s", config->socket, strerror(-r));
	r = agent_failure(status, answer, failure);
	if (r < 0)
		return r;
	item = json_array_get(json_object_get(answer, "items"), 0);
	if (!item)
		return broken(failure, "heddled knows of no such attachment: %s", config->env.container);
	state = json_string_value(json_object_get(item, "state")) ?: "";
	/* of a VF that its NIC switches by itself more cannot be had */
	if (strcmp(state, "ready") != 0 && (!config->pci[0] || strcmp(state, "legacy") != 0))
		return broken(failure, "the port is not in force: %s", json_string_value(json_object_get(item, "reason")) ?: "?");
	for (size_t i = 0; i < result->n_addresses; i++) {
		const char *wanted = addr_format(&result->addresses[i].addr, text);
		bool found = false;
		size_t j;

		json_array_foreach (json_object_get(item, "addresses"), j, address)
			found |= strcmp(json_string_value(address) ?: "", wanted) == 0;
		if (!found)
			return broken(failure, "the address is not the port's: %s", wanted);
	}
	r = check_host_ports(config, item, failure);
	return r < 0 ? r : check_bandwidth(config, item, failure);
}

static int check_host(const struct config *config, struct failure *failure)
{
	_cleanup_(links_close_p) struct links *links = NULL;
	char device[DEVICE_NAME_MAX], alias[ALIAS_MAX];
	struct link link = {0};
	int r = links_open(&links);

	config_device(config->name, config->env.container, config->env.ifname, device);
	config_alias(config->env.container, config->env.ifname, alias);
	if (r == 0)
		r = links_find(links, device, &link);
	if (r < 0 || strcmp(link.alias, alias) != 0)
		return broken(failure, "the host's end is gone: %s", device);
	return link.up ? 0 : broken(failure, "the host's end is down: %s", device);
}

int verb_check(const struct config *config, struct failure *failure)
{
	_cleanup_(links_close_p) struct links *links = NULL;
	__attribute__((cleanup(result_clear))) struct result result = {0};
	_cleanup_close_ int netns = -1;
	bool interface;
	int r = result_decode(config->previous, config->env.ifname, &result, failure);

	if (r < 0)
		return r;
	r = netns_open(config->env.netns, &netns);
	if (r < 0)
		return fail_with(failure, FAILURE_CONTAINER, r, "CNI_NETNS: %s: %s", config->env.netns, strerror(-r));
	r = links_open_in(netns, &links);
	if (r < 0)
		return fail_with(failure, FAILURE_NETWORK, r, "cannot ask in %s: %s", config->env.netns, strerror(-r));
	r = config->pci[0] ? vf_check(config, failure) : check_host(config, failure);
	if (r < 0)
		return r;
	interface = !config->pci[0] || r > 0;
	r = interface ? check_container(links, config, &result, failure) : 0;
	if (r == 0 && interface)
		r = check_routes(links, config, &result, failure);
	if (r == 0)
		r = check_agent(config, &result, failure);
	return r == 0 && config->ipam ? delegate_run(config, "CHECK", NULL, failure) : r;
}

/* --- GC --- */

static bool is_valid(const struct config *config, const char *container, const char *ifname)
{
	const json_t *item;
	size_t i;

	json_array_foreach (config->valid, i, item)
		if (!strcmp(json_string_value(any_case(item, "containerID")), container) &&
			!strcmp(json_string_value(any_case(item, "ifname")), ifname))
			return true;
	return false;
}

struct garbage {
	const struct config *config;
	struct link *links;
	size_t n;
};

/* Ours, and of this configuration: its name is the hash of just that. */
static int collect(const struct link *link, void *userdata)
{
	struct garbage *garbage = userdata;
	char container[ALIAS_MAX], device[DEVICE_NAME_MAX], *ifname;
	struct link *grown;

	if (!link->veth || strncmp(link->alias, "heddle:", 7) != 0)
		return 0;
	snprintf(container, sizeof(container), "%s", link->alias + 7);
	ifname = strchr(container, ':');
	if (!ifname)
		return 0;
	*ifname++ = '\0';
	config_device(garbage->config->name, container, ifname, device);
	if (strcmp(device, link->name) != 0 || is_valid(garbage->config, container, ifname))
		return 0;
	grown = reallocarray(garbage->links, garbage->n + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	garbage->links = grown;
	grown[garbage->n++] = *link;
	return 0;
}

static int collect_devices(const struct config *config, struct failure *failure)
{
	_cleanup_(links_close_p) struct links *links = NULL;
	struct garbage garbage = {.config = config};
	int r = links_open(&links);

	if (r == 0)
		r = links_each(links, collect, &garbage);
	for (size_t i = 0; i < garbage.n; i++) {
		int removed = links_remove(links, garbage.links[i].index);

		r = removed < 0 && removed != -ENODEV ? removed : r;
	}
	free(garbage.links);
	if (r == 0)
		return vf_collect(config, links, is_valid, failure);
	return r < 0 ? fail_with(failure, FAILURE_NETWORK, r, "cannot remove devices: %s", strerror(-r)) : 0;
}

static int collect_ports(const struct config *config, struct failure *failure)
{
	_cleanup_(agent_close_p) struct agent *agent = NULL;
	_cleanup_buffer_ struct buffer path = {0};
	json_auto_t *answer = NULL;
	const json_t *item;
	unsigned status = 0;
	size_t i;
	int r = agent_connect(config->socket, AGENT_CONNECT_MS, &agent);

	buffer_add_string(&path, "/v1/cni/attachments?name=");
	agent_quote(&path, config->name);
	if (r == 0)
		r = path.failed ? -ENOMEM : agent_ask(agent, path.data, NULL, AGENT_ANSWER_MS, &status, &answer);
	if (r == 0)
		r = agent_failure(status, answer, failure);
	json_array_foreach (json_object_get(answer, "items"), i, item) {
		const char *container = json_string_value(json_object_get(item, "containerID"));
		const char *ifname = json_string_value(json_object_get(item, "ifname"));
		int released = 0;

		if (container && ifname && !is_valid(config, container, ifname))
			released = attachment_release(agent, config->name, container, ifname, failure);
		r = released < 0 ? released : r;
	}
	return r < 0 ? fail_with(failure, FAILURE_AGAIN, r, "heddled at %s: %s", config->socket, strerror(-r)) : 0;
}

/* As much as can be done, then the first failure. */
int verb_gc(const struct config *config, struct failure *failure)
{
	int devices = collect_devices(config, failure), ports = collect_ports(config, failure);
	int delegated = config->ipam ? delegate_run(config, "GC", NULL, failure) : 0;

	/* what waited for its Port to go, as in a DEL */
	if (devices > 0)
		devices = collect_devices(config, failure);

	return devices < 0 ? devices : ports < 0 ? ports : delegated;
}

/* --- STATUS --- */

int verb_status(const struct config *config, struct failure *failure)
{
	_cleanup_(agent_close_p) struct agent *agent = NULL;
	_cleanup_buffer_ struct buffer path = {0};
	json_auto_t *answer = NULL;
	unsigned status = 0;
	int r = agent_connect(config->socket, AGENT_CONNECT_MS, &agent);

	if ((r == -ENOENT || r == -ECONNREFUSED) && agent_has_left(config->socket))
		return config->ipam ? delegate_run(config, "STATUS", NULL, failure) : 0;
	buffer_add_string(&path, "/v1/cni/status?network=");
	agent_quote(&path, config->network);
	if (config->ipam || config->ranges)
		buffer_add_string(&path, "&addresses=given");
	if (r == 0)
		r = path.failed ? -ENOMEM : agent_ask(agent, path.data, NULL, AGENT_DEL_MS, &status, &answer);
	if (r < 0)
		return fail_with(failure, FAILURE_UNAVAILABLE, r, "heddled at %s: %s", config->socket, strerror(-r));
	if (status != 200)
		return fail_with(failure, FAILURE_UNAVAILABLE, -EREMOTEIO, "heddled: %s",
			json_string_value(json_object_get(answer, "error")) ?: "not ready");
	return config->ipam ? delegate_run(config, "STATUS", NULL, failure) : 0;
}
