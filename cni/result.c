/* SPDX-License-Identifier: Apache-2.0 */
/* Results of every version: ip4 and ip6 until 0.2.0, then lists; `version` of an address until 0.4.0; mtu and pciID from 1.1.0. */
#include <cni/cni.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <util/addr.h>

void result_clear(struct result *result)
{
	free(result->addresses);
	free(result->routes);
	json_decref(result->dns);
	*result = (struct result){0};
}

int result_add_address(struct result *result, const struct address *address)
{
	struct address *grown = reallocarray(result->addresses, result->n_addresses + 1, sizeof(*grown));

	if (!grown)
		return -ENOMEM;
	result->addresses = grown;
	grown[result->n_addresses++] = *address;
	return 0;
}

int result_add_route(struct result *result, const struct route *route)
{
	struct route *grown = reallocarray(result->routes, result->n_routes + 1, sizeof(*grown));

	if (!grown)
		return -ENOMEM;
	result->routes = grown;
	grown[result->n_routes++] = *route;
	return 0;
}

/* --- reading --- */

static bool parse_block(const json_t *value, struct hd_addr *ret_addr, uint8_t *ret_length)
{
	const char *text = json_string_value(value), *slash = text ? strchr(text, '/') : NULL;
	char address[ADDR_TEXT_MAX];
	struct hd_addr block;

	if (!slash || slash - text >= (int)sizeof(address))
		return false;
	snprintf(address, sizeof(address), "%.*s", (int)(slash - text), text);
	if (addr_parse(address, ret_addr) < 0 || addr_parse_cidr(text, &block, ret_length) == ADDR_CIDR_ADDRESS)
		return false;
	/* a block's length, with host bits in the address or not */
	if (addr_parse_cidr(text, &block, ret_length) == ADDR_CIDR_LENGTH)
		return false;
	if (addr_is_ipv4(ret_addr))
		*ret_length = (uint8_t)(*ret_length - 96);
	return true;
}

static bool parse_gateway(const json_t *value, bool *ret_has, struct hd_addr *ret)
{
	const char *text = json_string_value(value);

	*ret_has = false;
	if (!value || (text && !*text))
		return true;
	if (!text || addr_parse(text, ret) < 0)
		return false;
	*ret_has = true;
	return true;
}

static int bad(struct failure *failure, const char *what)
{
	return fail_with(failure, FAILURE_DECODE, -EINVAL, "result: %s", what);
}

static int take_address(const json_t *value, const json_t *gateway, struct result *to, struct failure *failure)
{
	struct address address = {0};

	if (!parse_block(value, &address.addr, &address.length))
		return bad(failure, "want ADDRESS/LENGTH in ips");
	if (!parse_gateway(gateway, &address.has_gateway, &address.gateway))
		return bad(failure, "want an address as gateway in ips");
	return result_add_address(to, &address);
}

static int take_routes(const json_t *list, struct result *to, struct failure *failure)
{
	const json_t *item;
	size_t i;
	int r = 0;

	if (list && !json_is_array(list))
		return bad(failure, "want a list of routes");
	json_array_foreach (list, i, item) {
		struct route route = {0};

		if (!parse_block(any_case(item, "dst"), &route.to, &route.length))
			return bad(failure, "want ADDRESS/LENGTH as dst of a route");
		if (!parse_gateway(any_case(item, "gw"), &route.has_gateway, &route.gateway))
			return bad(failure, "want an address as gw of a route");
		r = result_add_route(to, &route);
		if (r < 0)
			break;
	}
	return r;
}

static int take_old(const json_t *ip, struct result *to, struct failure *failure)
{
	int r;

	if (!ip)
		return 0;
	r = take_address(any_case(ip, "ip"), any_case(ip, "gateway"), to, failure);
	return r < 0 ? r : take_routes(any_case(ip, "routes"), to, failure);
}

/* Of this interface; addresses that name none may be anybody's. */
static bool belongs(const json_t *interfaces, const json_t *ip, const char *ifname)
{
	const json_t *index = any_case(ip, "interface"), *interface;

	if (!ifname || !json_is_integer(index) || json_integer_value(index) < 0)
		return true;
	interface = json_array_get(interfaces, (size_t)json_integer_value(index));
	return interface && !strcmp(json_string_value(any_case(interface, "name")) ?: "", ifname);
}

int result_decode(const json_t *json, const char *ifname, struct result *ret, struct failure *failure)
{
	const json_t *ips = any_case(json, "ips"), *interfaces = any_case(json, "interfaces"), *dns = any_case(json, "dns"),
		     *item;
	size_t i;
	int r;

	if (!json_is_object(json))
		return bad(failure, "want a mapping");
	if ((ips && !json_is_array(ips)) || (interfaces && !json_is_array(interfaces)) || (dns && !json_is_object(dns)))
		return bad(failure, "want lists of ips and interfaces, and dns as a mapping");
	r = take_old(any_case(json, "ip4"), ret, failure);
	if (r == 0)
		r = take_old(any_case(json, "ip6"), ret, failure);
	json_array_foreach (ips, i, item) {
		if (r < 0)
			break;
		if (belongs(interfaces, item, ifname))
			r = take_address(any_case(item, "address"), any_case(item, "gateway"), ret, failure);
	}
	if (r == 0)
		r = take_routes(any_case(json, "routes"), ret, failure);
	if (r == 0 && json_object_size(dns))
		ret->dns = json_incref((json_t *)dns);
	if (r == -ENOMEM)
		return fail_with(failure, FAILURE_INTERNAL, r, "out of memory");
	return r;
}

/* --- writing --- */

static json_t *block_text(const struct hd_addr *addr, uint8_t length)
{
	char text[ADDR_TEXT_MAX];

	return json_sprintf("%s/%u", addr_format(addr, text), length);
}

static void set_address(json_t *object, const char *key, bool has, const struct hd_addr *addr)
{
	char text[ADDR_TEXT_MAX];

	if (has)
		json_object_set_new(object, key, json_string(addr_format(addr, text)));
}

static json_t *route_json(const struct route *route)
{
	json_t *item = json_object();

	json_object_set_new(item, "dst", block_text(&route->to, route->length));
	set_address(item, "gw", route->has_gateway, &route->gateway);
	return item;
}

/* One address of each family is all that these versions can say. */
static json_t *encode_old(const struct result *result, const json_t *dns)
{
	json_t *root = json_object();

	for (int ipv4 = 1; ipv4 >= 0; ipv4--) {
		json_t *ip = NULL, *routes = NULL;

		for (size_t i = 0; i < result->n_addresses && !ip; i++) {
			const struct address *address = &result->addresses[i];

			if (addr_is_ipv4(&address->addr) != ipv4)
				continue;
			ip = json_pack("{s:o}", "ip", block_text(&address->addr, address->length));
			set_address(ip, "gateway", address->has_gateway, &address->gateway);
		}
		if (!ip)
			continue;
		for (size_t i = 0; i < result->n_routes; i++) {
			if (addr_is_ipv4(&result->routes[i].to) != ipv4)
				continue;
			if (!routes)
				json_object_set_new(ip, "routes", routes = json_array());
			json_array_append_new(routes, route_json(&result->routes[i]));
		}
		json_object_set_new(root, ipv4 ? "ip4" : "ip6", ip);
	}
	json_object_set(root, "dns", (json_t *)dns);
	return root;
}

/* What an earlier plugin of the chain has said stays in front. */
static json_t *list_of(const json_t *previous, const char *key)
{
	const json_t *list = any_case(previous, key);

	return json_is_array(list) ? json_copy((json_t *)list) : json_array();
}

static json_t *encode_lists(
	const struct config *config, const struct result *result, const char *device, const char *device_mac, const json_t *dns)
{
	json_t *interfaces = list_of(config->previous, "interfaces"), *ips = list_of(config->previous, "ips"),
	       *routes = list_of(config->previous, "routes"), *host, *container;
	int index = (int)json_array_size(interfaces) + (device != NULL);

	host = device ? json_pack("{s:s, s:s}", "name", device, "mac", device_mac) : NULL;
	container = json_pack("{s:s, s:s, s:s}", "name", config->env.ifname, "mac", result->mac, "sandbox", config->env.netns);
	if (config->version >= VERSION_110) {
		if (host)
			json_object_set_new(host, "mtu", json_integer(result->mtu));
		json_object_set_new(container, "mtu", json_integer(result->mtu));
		if (config->pci[0])
			json_object_set_new(container, "pciID", json_string(config->pci));
	}
	if (host)
		json_array_append_new(interfaces, host);
	json_array_append_new(interfaces, container);
	for (size_t i = 0; i < result->n_addresses; i++) {
		const struct address *address = &result->addresses[i];
		json_t *item =
			json_pack("{s:o, s:i}", "address", block_text(&address->addr, address->length), "interface", index);

		if (config->version < VERSION_100)
			json_object_set_new(item, "version", json_string(addr_is_ipv4(&address->addr) ? "4" : "6"));
		set_address(item, "gateway", address->has_gateway, &address->gateway);
		json_array_append_new(ips, item);
	}
	for (size_t i = 0; i < result->n_routes; i++)
		json_array_append_new(routes, route_json(&result->routes[i]));
	return json_pack("{s:o, s:o, s:o, s:O}", "interfaces", interfaces, "ips", ips, "routes", routes, "dns", dns);
}

json_t *result_encode(const struct config *config, const struct result *result, const char *device, const char *device_mac)
{
	const json_t *dns = json_object_size(config->dns) ? config->dns
			    : result->dns		  ? result->dns
							  : any_case(config->previous, "dns");
	json_t *empty = json_object(), *root;

	if (!dns)
		dns = empty;
	if (config->version < VERSION_030)
		root = encode_old(result, dns);
	else
		root = encode_lists(config, result, device, device_mac, dns);
	json_decref(empty);
	if (root)
		json_object_set_new(root, "cniVersion", json_string(version_name(config->version)));
	return root;
}
