// SPDX-License-Identifier: Apache-2.0
/* Where the API server is, and who we are to it: what a Pod is given, or a kubeconfig. */
#include <source/kubernetes_internal.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include <model/node.h>
#include <util/base64.h>
#include <util/file.h>
#include <util/log.h>

#define POD_FILES "/var/run/secrets/kubernetes.io/serviceaccount"
#define CONFIG_MAX ((size_t)1 << 20)

static void blob_clear(struct kube_blob *blob)
{
	if (blob->data)
		explicit_bzero(blob->data, blob->length);
	free(blob->data);
}

void kube_config_clear(struct kube_config *config)
{
	free(config->server);
	free(config->ca_file);
	free(config->certificate_file);
	free(config->key_file);
	free(config->token_file);
	if (config->token)
		explicit_bzero(config->token, strlen(config->token));
	free(config->token);
	blob_clear(&config->ca);
	blob_clear(&config->certificate);
	blob_clear(&config->key);
	*config = (struct kube_config){0};
}

static int in_cluster(struct kube_config *config)
{
	const char *host = getenv("KUBERNETES_SERVICE_HOST"), *port = getenv("KUBERNETES_SERVICE_PORT");
	bool ipv6;

	if (!host || !*host || !port || !*port)
		return log_err(-EINVAL,
			"--kubernetes without a kubeconfig: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set");
	ipv6 = strchr(host, ':') && host[0] != '[';
	if (asprintf(&config->server, "https://%s%s%s:%s", ipv6 ? "[" : "", host, ipv6 ? "]" : "", port) < 0) {
		config->server = NULL;
		return -ENOMEM;
	}
	config->ca_file = strdup(POD_FILES "/ca.crt");
	config->token_file = strdup(POD_FILES "/token");
	return config->ca_file && config->token_file ? 0 : -ENOMEM;
}

/* --- kubeconfig --- */

struct reading {
	const char *path;
	const struct tree *tree;
};

static node_id field(const struct tree *tree, node_id map, const char *name)
{
	if (!map || tree_node(tree, map)->type != NODE_MAP)
		return NODE_NONE;
	for (node_id key = tree_first(tree, map); key; key = tree_next(tree, tree_next(tree, key)))
		if (tree_is_scalar(tree, key) && strcmp(tree_text(tree, key), name) == 0)
			return tree_next(tree, key);
	return NODE_NONE;
}

/* NULL: not there, empty, or no text. */
static const char *text(const struct tree *tree, node_id map, const char *name)
{
	node_id value = field(tree, map, name);

	if (!value || !tree_is_scalar(tree, value) || tree_is_null(tree, value) || !*tree_text(tree, value))
		return NULL;
	return tree_text(tree, value);
}

/* Of `list`, the item of this name: its mapping `inner`. */
static node_id named(const struct tree *tree, const char *list, const char *name, const char *inner)
{
	node_id items = field(tree, tree->root, list);

	if (!items || !name || tree_node(tree, items)->type != NODE_LIST)
		return NODE_NONE;
	for (node_id item = tree_first(tree, items); item; item = tree_next(tree, item)) {
		const char *own = text(tree, item, "name");

		if (own && strcmp(own, name) == 0)
			return field(tree, item, inner);
	}
	return NODE_NONE;
}

/* Relative to the kubeconfig. */
static int take_path(const struct reading *r, node_id map, const char *name, char **ret)
{
	const char *value = text(r->tree, map, name), *slash = strrchr(r->path, '/');

	if (!value)
		return 0;
	if (value[0] == '/' || !slash)
		*ret = strdup(value);
	else if (asprintf(ret, "%.*s/%s", (int)(slash - r->path), r->path, value) < 0)
		*ret = NULL;
	return *ret ? 0 : -ENOMEM;
}

/* NAME-data in base64, or the file NAME. */
static int take_either(const struct reading *r, node_id map, const char *name, struct kube_blob *blob, char **file)
{
	char data[64];
	const char *value;

	snprintf(data, sizeof(data), "%s-data", name);
	value = text(r->tree, map, data);
	if (!value)
		return take_path(r, map, name, file);
	if (base64_decode(value, &blob->data, &blob->length) < 0)
		return log_err(-EINVAL, "%s: %s: want base64", r->path, data);
	return 0;
}

static int take_context(const struct reading *r, struct kube_config *config)
{
	static const char *const unsupported[] = {
		"exec", "auth-provider", "username", "password", "as", "proxy-url", "tls-server-name"};
	const struct tree *tree = r->tree;
	const char *context = text(tree, tree->root, "current-context");
	node_id chosen = named(tree, "contexts", context, "context");
	node_id cluster = named(tree, "clusters", text(tree, chosen, "cluster"), "cluster");
	node_id user = named(tree, "users", text(tree, chosen, "user"), "user");
	const char *server = text(tree, cluster, "server"), *token = text(tree, user, "token");
	const char *insecure = text(tree, cluster, "insecure-skip-tls-verify");
	size_t length = server ? strlen(server) : 0;
	int ret;

	if (!server)
		return log_err(-EINVAL, "%s: want current-context to lead to a cluster with a server", r->path);
	for (size_t i = 0; i < ARRAY_SIZE(unsupported); i++)
		if (text(tree, user, unsupported[i]) || text(tree, cluster, unsupported[i]) || field(tree, user, unsupported[i]))
			return log_err(-EINVAL, "%s: %s is not supported: want a certificate, token or tokenFile", r->path,
				unsupported[i]);
	if (strncmp(server, "https://", 8) != 0)
		return log_err(-EINVAL, "%s: server: want https://…, got %s", r->path, server);
	while (length && server[length - 1] == '/')
		length--;
	config->server = strndup(server, length);
	config->token = token ? strdup(token) : NULL;
	config->insecure = insecure && strcmp(insecure, "true") == 0;
	if (!config->server || (token && !config->token))
		return -ENOMEM;
	ret = take_either(r, cluster, "certificate-authority", &config->ca, &config->ca_file);
	if (ret == 0)
		ret = take_either(r, user, "client-certificate", &config->certificate, &config->certificate_file);
	if (ret == 0)
		ret = take_either(r, user, "client-key", &config->key, &config->key_file);
	if (ret == 0)
		ret = take_path(r, user, "tokenFile", &config->token_file);
	if (ret == 0 && config->insecure)
		log_warn(0, "%s: insecure-skip-tls-verify: anybody on the way to %s can say what the policy is", r->path,
			config->server);
	return ret;
}

static int from_file(const char *path, struct kube_config *config)
{
	_cleanup_diag_ struct diag diag = {0};
	_cleanup_free_ char *content = NULL;
	struct tree_parser *parser;
	struct tree tree = {0};
	size_t length;
	int r;

	r = file_read(AT_FDCWD, path, CONFIG_MAX, &content, &length, NULL);
	if (r < 0)
		return log_err(r, "cannot read %s", path);
	r = tree_parser_new(path, content, length, &diag, &parser);
	if (r < 0)
		return r;
	r = tree_parser_next(parser, &tree);
	if (r > 0)
		r = take_context(&(struct reading){.path = path, .tree = &tree}, config);
	else if (r == 0 || r == -EINVAL)
		r = log_err(-EINVAL, "%s%s", diag.text ? "" : path, diag.text ? diag.text : ": want a kubeconfig, got nothing");
	tree_parser_free(parser);
	tree_clear(&tree);
	explicit_bzero(content, length);
	return r;
}

int kube_config_read(const char *kubeconfig, struct kube_config *ret)
{
	struct kube_config config = {0};
	int r = kubeconfig ? from_file(kubeconfig, &config) : in_cluster(&config);

	if (r < 0) {
		kube_config_clear(&config);
		return r;
	}
	*ret = config;
	return 0;
}
