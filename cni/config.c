/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Environment and standard input. What runtimes do beyond the specification's text: keys of runtimeConfig have Go's names in any case, lists
 * may be null, variables may be set and empty, and a second DEL comes without namespace and prevResult.
 */
#include <cni/cni.h>

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <util/addr.h>
#include <util/hash.h>
#include <util/pci.h>

#define DEFAULT_SOCKET "/run/heddle/heddled.sock"
#define DEFAULT_STATE_DIR "/var/lib/heddle"
#define BUILT_IN_IPAM "heddle"

static const char *const version_names[VERSION_COUNT] = {
	[VERSION_010] = "0.1.0",
	[VERSION_020] = "0.2.0",
	[VERSION_030] = "0.3.0",
	[VERSION_031] = "0.3.1",
	[VERSION_040] = "0.4.0",
	[VERSION_100] = "1.0.0",
	[VERSION_110] = "1.1.0",
};

static const char *const verb_names[VERB_COUNT] = {
	[VERB_ADD] = "ADD",
	[VERB_DEL] = "DEL",
	[VERB_CHECK] = "CHECK",
	[VERB_GC] = "GC",
	[VERB_STATUS] = "STATUS",
	[VERB_VERSION] = "VERSION",
};

const char *version_name(enum version version)
{
	return version_names[version];
}

int version_from_name(const char *name)
{
	for (int i = 0; i < VERSION_COUNT; i++)
		if (strcmp(version_names[i], name) == 0)
			return i;
	return -1;
}

void config_clear(struct config *config)
{
	json_decref(config->root);
	json_decref(config->labels);
	json_decref(config->ips);
	json_decref(config->host_ports);
	json_decref(config->bandwidth);
	json_decref(config->dns);
	free(config->arguments);
	*config = (struct config){0};
}

json_t *any_case(const json_t *object, const char *key)
{
	json_t *value = json_object_get(object, key), *item;
	const char *name;

	if (!value)
		json_object_foreach ((json_t *)object, name, item)
			if (!value && strcasecmp(name, key) == 0)
				value = item;
	return json_is_null(value) ? NULL : value;
}

/* --- the environment --- */

static int find_verb(const struct environment *env, enum verb *ret, struct failure *failure)
{
	if (!env->command)
		return fail_with(failure, FAILURE_ENVIRONMENT, -EINVAL,
			"CNI_COMMAND is missing: this is a CNI plugin, which a runtime calls");
	for (int i = 0; i < VERB_COUNT; i++)
		if (strcmp(env->command, verb_names[i]) == 0) {
			*ret = (enum verb)i;
			return 0;
		}
	return fail_with(failure, FAILURE_ENVIRONMENT, -EINVAL,
		"CNI_COMMAND: want ADD, DEL, CHECK, GC, STATUS or VERSION, got %.64s", env->command);
}

#define NEEDS(verb) (1u << (verb))

static int check_present(const struct config *config, struct failure *failure)
{
	const struct environment *env = &config->env;
	const struct {
		const char *name, *value;
		unsigned needed_by;
	} variables[] = {
		{"CNI_CONTAINERID", env->container, NEEDS(VERB_ADD) | NEEDS(VERB_DEL) | NEEDS(VERB_CHECK)},
		{"CNI_NETNS", env->netns, NEEDS(VERB_ADD) | NEEDS(VERB_CHECK)},
		{"CNI_IFNAME", env->ifname, NEEDS(VERB_ADD) | NEEDS(VERB_DEL) | NEEDS(VERB_CHECK)},
		{"CNI_PATH", env->path, NEEDS(VERB_GC)},
	};
	_cleanup_buffer_ struct buffer missing = {0};

	for (size_t i = 0; i < ARRAY_SIZE(variables); i++)
		if (variables[i].needed_by & NEEDS(config->verb) && !variables[i].value)
			buffer_printf(&missing, "%s%s", missing.length ? ", " : "", variables[i].name);
	if (!missing.length)
		return 0;
	return fail_with(
		failure, FAILURE_ENVIRONMENT, -EINVAL, "missing environment variables: %s", missing.data ? missing.data : "?");
}

/* Names of configurations and of containers. */
static bool is_name(const char *text)
{
	if (!isalnum((unsigned char)*text))
		return false;
	for (; *text; text++)
		if (!isalnum((unsigned char)*text) && !strchr("_.-", *text))
			return false;
	return true;
}

static bool is_interface(const char *text)
{
	if (strlen(text) >= DEVICE_NAME_MAX || !strcmp(text, ".") || !strcmp(text, ".."))
		return false;
	for (; *text; text++)
		if (*text == '/' || *text == ':' || isspace((unsigned char)*text) || iscntrl((unsigned char)*text))
			return false;
	return true;
}

/* The alias has to hold it. */
#define CONTAINER_MAX 200

static int check_valid(const struct config *config, struct failure *failure)
{
	const struct environment *env = &config->env;

	if (config->verb != VERB_ADD && config->verb != VERB_DEL && config->verb != VERB_CHECK)
		return 0;
	if (!is_name(env->container) || strlen(env->container) > CONTAINER_MAX)
		return fail_with(failure, FAILURE_ENVIRONMENT, -EINVAL,
			"CNI_CONTAINERID: want at most %d letters, digits, '_', '.' and '-', the first a letter or digit, got "
			"%.64s",
			CONTAINER_MAX, env->container);
	if (!is_interface(env->ifname))
		return fail_with(failure, FAILURE_ENVIRONMENT, -EINVAL,
			"CNI_IFNAME: want the name of an interface, at most %d bytes, got %.64s", DEVICE_NAME_MAX - 1,
			env->ifname);
	return 0;
}

/* CNI_ARGS: KEY=VALUE;KEY=VALUE. Keys of others are not ours to judge. */
static int take_arguments(struct config *config, struct failure *failure)
{
	const struct {
		const char *key;
		const char **value;
	} known[] = {
		{"K8S_POD_NAME", &config->pod},
		{"K8S_POD_NAMESPACE", &config->namespace_},
		{"K8S_POD_UID", &config->uid},
		{"IP", &config->args_ip},
		{"MAC", &config->args_mac},
	};
	char *rest;

	if (!config->env.args)
		return 0;
	config->arguments = strdup(config->env.args);
	if (!config->arguments)
		return fail_with(failure, FAILURE_INTERNAL, -ENOMEM, "out of memory");
	rest = config->arguments;
	for (char *pair; (pair = strsep(&rest, ";"));) {
		char *value = strchr(pair, '=');

		if (!*pair)
			continue;
		if (!value)
			return fail_with(
				failure, FAILURE_ENVIRONMENT, -EINVAL, "CNI_ARGS: want KEY=VALUE;KEY=VALUE, got %.64s", pair);
		*value++ = '\0';
		for (size_t i = 0; i < ARRAY_SIZE(known); i++)
			if (strcmp(known[i].key, pair) == 0 && *value)
				*known[i].value = value;
	}
	return 0;
}

/* --- standard input --- */

static int want(struct failure *failure, const char *path, const char *what)
{
	return fail_with(failure, FAILURE_CONFIG, -EINVAL, "%s: want %s", path, what);
}

static int take_text(const json_t *object, const char *key, const char **ret, struct failure *failure)
{
	const json_t *value = any_case(object, key);

	if (!value)
		return 0;
	if (!json_is_string(value) || strlen(json_string_value(value)) != json_string_length(value))
		return fail_with(failure, FAILURE_DECODE, -EINVAL, "%s: want text", key);
	if (json_string_length(value))
		*ret = json_string_value(value);
	return 0;
}

static int take_version(struct config *config, struct failure *failure)
{
	const char *name = NULL;
	int r = take_text(config->root, "cniVersion", &name, failure), version;

	if (r < 0)
		return r;
	if (!name) {
		config->version = VERSION_010;
		return 0;
	}
	version = version_from_name(name);
	if (version < 0) {
		buffer_add_string(&failure->details, "supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0");
		return fail_with(failure, FAILURE_VERSION, -EPROTONOSUPPORT, "incompatible CNI version %.32s", name);
	}
	config->version = (enum version)version;
	if (config->verb == VERB_CHECK && config->version < VERSION_040)
		return fail_with(
			failure, FAILURE_VERSION, -EPROTONOSUPPORT, "CNI version %s has no CHECK: it came with 0.4.0", name);
	if ((config->verb == VERB_GC || config->verb == VERB_STATUS) && config->version < VERSION_110)
		return fail_with(failure, FAILURE_VERSION, -EPROTONOSUPPORT, "CNI version %s has no %s: it came with 1.1.0", name,
			verb_names[config->verb]);
	return 0;
}

static int take_ipam(struct config *config, struct failure *failure)
{
	const json_t *ipam = any_case(config->root, "ipam");
	const char *type = NULL;
	int r;

	if (!ipam)
		return 0;
	if (!json_is_object(ipam))
		return fail_with(failure, FAILURE_DECODE, -EINVAL, "ipam: want a mapping");
	r = take_text(ipam, "type", &type, failure);
	if (r < 0)
		return r;
	if (type && strcmp(type, BUILT_IN_IPAM) != 0) {
		/* it is looked for in the directories of CNI_PATH alone */
		if (strchr(type, '/') || !strcmp(type, ".") || !strcmp(type, ".."))
			return want(failure, "ipam.type", "the name of an IPAM plugin");
		config->ipam = type;
		return 0;
	}
	config->ranges = any_case(ipam, "ranges");
	if (config->ranges && !json_is_array(config->ranges))
		return want(failure, "ipam.ranges", "a list");
	return 0;
}

static int add_labels(struct config *config, const json_t *from, struct failure *failure)
{
	const char *key;
	json_t *value;

	json_object_foreach ((json_t *)from, key, value) {
		if (!json_is_string(value))
			return fail_with(failure, FAILURE_CONFIG, -EINVAL, "labels: want text for %.64s", key);
		json_object_set(config->labels, key, value);
	}
	return 0;
}

/* `labels` of the configuration, and those that a runtime passes by the convention args.cni.labels: [{key, value}]. */
static int take_labels(struct config *config, const json_t *args, struct failure *failure)
{
	const json_t *labels = any_case(config->root, "labels"), *item;
	size_t i;
	int r;

	if (labels && !json_is_object(labels))
		return want(failure, "labels", "a mapping");
	r = add_labels(config, labels, failure);
	labels = any_case(args, "labels");
	if (labels && !json_is_array(labels))
		return want(failure, "args.cni.labels", "a list");
	json_array_foreach (labels, i, item) {
		const json_t *value = any_case(item, "value");
		const char *key = json_string_value(any_case(item, "key"));

		if (!key || !json_is_string(value))
			return want(failure, "args.cni.labels", "items with key and value");
		json_object_set(config->labels, key, (json_t *)value);
	}
	return r;
}

static int add_ips(struct config *config, const json_t *list, const char *path, struct failure *failure)
{
	const json_t *item;
	size_t i;

	if (list && !json_is_array(list))
		return want(failure, path, "a list of addresses");
	json_array_foreach (list, i, item) {
		if (!json_is_string(item))
			return want(failure, path, "a list of addresses");
		json_array_append(config->ips, (json_t *)item);
	}
	return 0;
}

static bool is_mac(const char *text)
{
	for (int i = 0; i < 17; i++)
		if (i % 3 == 2 ? text[i] != ':' : !isxdigit((unsigned char)text[i]))
			return false;
	return text[17] == '\0';
}

static int take_mac(struct config *config, const json_t *runtime, const json_t *args, struct failure *failure)
{
	int r = take_text(args, "mac", &config->mac, failure);

	if (config->args_mac)
		config->mac = config->args_mac;
	if (r == 0)
		r = take_text(runtime, "mac", &config->mac, failure);
	if (r == 0 && config->mac && !is_mac(config->mac))
		return want(failure, "mac", "six bytes in hexadecimal, with colons between them");
	return r;
}

static bool is_list_of_text(const json_t *list)
{
	const json_t *item;
	size_t i;

	if (!json_is_array(list))
		return false;
	json_array_foreach (list, i, item)
		if (!json_is_string(item))
			return false;
	return true;
}

/* dns of the configuration, or of the runtime, whose keys are other words. */
static int take_dns(struct config *config, const json_t *runtime, struct failure *failure)
{
	static const struct {
		const char *name, *runtime;
	} lists[] = {{"nameservers", "servers"}, {"search", "searches"}, {"options", "options"}};
	const json_t *dns = any_case(config->root, "dns"), *told = any_case(runtime, "dns"), *value;
	const char *domain = NULL;
	int r;

	if ((dns && !json_is_object(dns)) || (told && !json_is_object(told)))
		return want(failure, "dns", "a mapping");
	r = take_text(dns, "domain", &domain, failure);
	if (r < 0)
		return r;
	if (domain)
		json_object_set_new(config->dns, "domain", json_string(domain));
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		value = any_case(told, lists[i].runtime);
		if (!value || !json_array_size(value))
			value = any_case(dns, lists[i].name);
		if (value && !is_list_of_text(value))
			return fail_with(failure, FAILURE_CONFIG, -EINVAL, "dns.%s: want a list of text", lists[i].name);
		if (json_array_size(value))
			json_object_set(config->dns, lists[i].name, (json_t *)value);
	}
	return 0;
}

/* --- capabilities --- */

/* A whole number from 0 to max; absent and null are 0. */
static int take_number(const json_t *object, const char *key, const char *path, double max, double *ret, struct failure *failure)
{
	const json_t *value = any_case(object, key);

	*ret = 0;
	if (!value)
		return 0;
	*ret = json_number_value(value);
	if (!json_is_number(value) || !(*ret >= 0 && *ret <= max) || floor(*ret) != *ret)
		return fail_with(failure, FAILURE_CONFIG, -EINVAL, "runtimeConfig.%s.%s: want a whole number from 0 to %.0f",
			path, key, max);
	return 0;
}

/* As hostPorts of the Port that it becomes. What asks for no port of the host asks for nothing. */
static int take_port_mapping(struct config *config, const json_t *item, struct failure *failure)
{
	static const char *const protocols[] = {"TCP", "UDP", "SCTP"};
	const char *protocol = "TCP", *address = NULL, *known = NULL;
	double host, container;
	int r;

	if (!json_is_object(item))
		return want(failure, "runtimeConfig.portMappings", "a list of mappings");
	r = take_number(item, "hostPort", "portMappings", 65535, &host, failure);
	if (r == 0)
		r = take_number(item, "containerPort", "portMappings", 65535, &container, failure);
	if (r == 0)
		r = take_text(item, "protocol", &protocol, failure);
	if (r == 0)
		r = take_text(item, "hostIP", &address, failure);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(protocols); i++)
		if (strcasecmp(protocol, protocols[i]) == 0)
			known = protocols[i];
	if (r == 0 && !known)
		return want(failure, "runtimeConfig.portMappings.protocol", "tcp, udp or sctp");
	if (r == 0 && host > 0 && container <= 0)
		return want(failure, "runtimeConfig.portMappings.containerPort", "1..65535 with a hostPort");
	if (r == 0 && host > 0)
		json_array_append_new(config->host_ports, json_pack("{s:s, s:i, s:i, s:s*}", "protocol", known, "hostPort",
								  (int)host, "port", (int)container, "hostAddress", address));
	return r;
}

static int take_port_mappings(struct config *config, const json_t *runtime, struct failure *failure)
{
	const json_t *list = any_case(runtime, "portMappings"), *item;
	size_t i;
	int r = 0;

	if (list && !json_is_array(list))
		return want(failure, "runtimeConfig.portMappings", "a list");
	json_array_foreach (list, i, item) {
		r = take_port_mapping(config, item, failure);
		if (r < 0)
			break;
	}
	return r;
}

/* Kubernetes knows no bursts: what runtimes write in their place is the largest one that they can, or nothing. */
#define BURST_NONE 4294967295.0

static int take_limit(struct config *config, const json_t *bandwidth, const char *way, const char *rate_key,
	const char *burst_key, struct failure *failure)
{
	double rate, burst = 0;
	int r = take_number(bandwidth, rate_key, "bandwidth", 18446744073709551615.0, &rate, failure);
	json_t *limit;

	if (r == 0)
		r = take_number(bandwidth, burst_key, "bandwidth", 18446744073709551615.0, &burst, failure);
	/* a burst alone limits nothing */
	if (r < 0 || rate < 1)
		return r;
	limit = json_pack("{s:o}", "rate", json_sprintf("%.0f", rate));
	if (burst >= 1 && burst < BURST_NONE)
		json_object_set_new(limit, "burst", json_sprintf("%.0f", burst));
	json_object_set_new(config->bandwidth, way, limit);
	return 0;
}

/* As spec.bandwidth of a Port has it: bits a second, and bits. */
static int take_bandwidth(struct config *config, const json_t *runtime, struct failure *failure)
{
	const json_t *bandwidth = any_case(runtime, "bandwidth");
	int r;

	if (bandwidth && !json_is_object(bandwidth))
		return want(failure, "runtimeConfig.bandwidth", "a mapping");
	r = take_limit(config, bandwidth, "ingress", "ingressRate", "ingressBurst", failure);
	return r < 0 ? r : take_limit(config, bandwidth, "egress", "egressRate", "egressBurst", failure);
}

/* --- VFs --- */

/*
 * Multus writes what the device plugin has given into the configuration of every plugin of the chain, as deviceID and as pciBusID, and those that
 * have the capability get it by runtimeConfig.
 */
static int take_device(struct config *config, const json_t *runtime, struct failure *failure)
{
	const struct {
		const json_t *from;
		const char *key;
	} places[] = {{config->root, "deviceID"}, {runtime, "deviceID"}, {config->root, "pciBusID"}};
	const char *first = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		const char *value = NULL;
		int r = take_text(places[i].from, places[i].key, &value, failure);

		if (r < 0)
			return r;
		if (value && first && strcasecmp(value, first) != 0)
			return fail_with(failure, FAILURE_CONFIG, -EINVAL, "%s: want one device, got %.64s and %.64s",
				places[i].key, first, value);
		first = first ?: value;
	}
	if (!first)
		return 0;
	for (size_t i = 0; i + 1 < sizeof(config->pci) && first[i]; i++)
		config->pci[i] = (char)tolower((unsigned char)first[i]);
	if (strlen(first) >= sizeof(config->pci) || !pci_address_valid(config->pci, strlen(config->pci)))
		return fail_with(failure, FAILURE_CONFIG, -EINVAL,
			"deviceID: want the PCI address of a VF, such as 0000:01:10.0, got %.64s", first);
	return 0;
}

static int take_vf(struct config *config, const json_t *runtime, struct failure *failure)
{
	static const char *const others[] = {"pf", "index", "mac"};
	int r = take_device(config, runtime, failure);

	if (r < 0)
		return r;
	config->vf = any_case(config->root, "vf");
	if (config->vf && !json_is_object(config->vf))
		return want(failure, "vf", "a mapping");
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		if (json_object_get(config->vf, others[i]))
			return fail_with(failure, FAILURE_CONFIG, -EINVAL,
				"vf.%s: want none: deviceID says which VF, and the MAC is the Port's", others[i]);
	if (config->pci[0] && config->name && strlen(config->name) > CONTAINER_MAX)
		return fail_with(failure, FAILURE_CONFIG, -EINVAL, "name: want at most %d bytes", CONTAINER_MAX);
	return 0;
}

static int take_runtime(struct config *config, struct failure *failure)
{
	const json_t *runtime = any_case(config->root, "runtimeConfig"), *args = any_case(any_case(config->root, "args"), "cni");
	int r;

	if (runtime && !json_is_object(runtime))
		return want(failure, "runtimeConfig", "a mapping");
	r = take_port_mappings(config, runtime, failure);
	if (r == 0)
		r = take_bandwidth(config, runtime, failure);
	if (r == 0)
		r = take_labels(config, args, failure);
	if (r == 0)
		r = add_ips(config, any_case(runtime, "ips"), "runtimeConfig.ips", failure);
	if (r == 0 && !json_array_size(config->ips))
		r = add_ips(config, any_case(args, "ips"), "args.cni.ips", failure);
	if (r == 0 && !json_array_size(config->ips) && config->args_ip)
		json_array_append_new(config->ips, json_string(config->args_ip));
	if (r == 0)
		r = take_mac(config, runtime, args, failure);
	/* one that goes is known by its record, whatever is said of it by now */
	if (r == 0 && (config->verb == VERB_ADD || config->verb == VERB_CHECK))
		r = take_vf(config, runtime, failure);
	return r < 0 ? r : take_dns(config, runtime, failure);
}

static int take_previous(struct config *config, struct failure *failure)
{
	config->previous = any_case(config->root, "prevResult");
	if (config->previous && !json_is_object(config->previous))
		return fail_with(failure, FAILURE_DECODE, -EINVAL, "prevResult: want a mapping");
	if (!config->previous && config->verb == VERB_CHECK)
		return want(failure, "prevResult", "the result of the ADD");
	return 0;
}

/* Some runtimes say it by its first name, and an empty list as null; but nothing at all must not end all containers. */
static int take_valid(struct config *config, struct failure *failure)
{
	static const char *const keys[] = {"cni.dev/valid-attachments", "cni.dev/attachments"};
	static const char what[] = "a list of mappings with containerID and ifname";
	const json_t *item;
	size_t i;

	if (config->verb != VERB_GC)
		return 0;
	for (i = 0; i < ARRAY_SIZE(keys) && !config->valid; i++)
		config->valid = json_object_get(config->root, keys[i]);
	if (!config->valid || !(json_is_array(config->valid) || json_is_null(config->valid)))
		return want(failure, keys[0], what);
	json_array_foreach (config->valid, i, item)
		if (!json_is_string(any_case(item, "containerID")) || !json_is_string(any_case(item, "ifname")))
			return want(failure, keys[0], what);
	return 0;
}

static int take_root(struct config *config, struct failure *failure)
{
	int r;

	config->socket = DEFAULT_SOCKET;
	config->state_dir = DEFAULT_STATE_DIR;
	r = take_text(config->root, "name", &config->name, failure);
	if (r == 0 && config->verb != VERB_STATUS && !config->name)
		return want(failure, "name", "the configuration's name");
	if (r == 0 && config->name && !is_name(config->name))
		return want(failure, "name", "letters, digits, '_', '.' and '-', the first a letter or digit");
	if (r == 0)
		r = take_text(config->root, "network", &config->network, failure);
	if (r == 0 && (config->verb == VERB_ADD || config->verb == VERB_STATUS) && !config->network)
		return want(failure, "network", "the name of a Network of heddle");
	if (r == 0)
		r = take_text(config->root, "socket", &config->socket, failure);
	if (r == 0)
		r = take_text(config->root, "stateDir", &config->state_dir, failure);
	if (r == 0)
		r = take_ipam(config, failure);
	if (r == 0)
		r = take_runtime(config, failure);
	if (r == 0)
		r = take_previous(config, failure);
	if (r == 0 && config->ipam && !config->env.path)
		return fail_with(failure, FAILURE_ENVIRONMENT, -EINVAL, "missing environment variables: CNI_PATH");
	return r < 0 ? r : take_valid(config, failure);
}

int config_decode(const struct environment *env, const char *text, size_t length, struct config *ret, struct failure *failure)
{
	json_error_t error;
	int r;

	*ret = (struct config){.version = VERSION_NEWEST, .env = *env};
	r = find_verb(env, &ret->verb, failure);
	if (r == 0)
		r = check_present(ret, failure);
	if (r < 0)
		return r;
	ret->root = json_loadb(text, length, 0, &error);
	/* early plugins were asked for their version without any input */
	if (!ret->root && ret->verb == VERB_VERSION)
		return 0;
	if (!json_is_object(ret->root))
		return fail_with(failure, FAILURE_DECODE, -EINVAL, "standard input: want a mapping in JSON: line %d: %s",
			ret->root ? 1 : error.line, ret->root ? "it is something else" : error.text);
	if (ret->verb == VERB_VERSION) {
		const char *name = json_string_value(any_case(ret->root, "cniVersion"));
		int version = name ? version_from_name(name) : -1;

		ret->version = version < 0 ? VERSION_NEWEST : (enum version)version;
		return 0;
	}
	r = take_version(ret, failure);
	if (r == 0)
		r = check_valid(ret, failure);
	if (r == 0)
		r = take_arguments(ret, failure);
	if (r < 0)
		return r;
	ret->labels = json_object();
	ret->ips = json_array();
	ret->host_ports = json_array();
	ret->dns = json_object();
	ret->bandwidth = json_object();
	if (!ret->labels || !ret->ips || !ret->dns || !ret->bandwidth)
		return fail_with(failure, FAILURE_INTERNAL, -ENOMEM, "out of memory");
	return take_root(ret, failure);
}

/* --- names --- */

void config_device(const char *name, const char *container, const char *ifname, char ret[DEVICE_NAME_MAX])
{
	uint64_t hash = hash_string(hash_string(hash_string(3, name), container), ifname);

	snprintf(ret, DEVICE_NAME_MAX, "hd%013llx", (unsigned long long)(hash >> 12));
}

void config_alias(const char *container, const char *ifname, char ret[ALIAS_MAX])
{
	snprintf(ret, ALIAS_MAX, "heddle:%s:%s", container, ifname);
}
