/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What others are told of whether Pods can be connected here: the container runtime by a CNI configuration that is there or not, heddle-cni by a
 * mark for the time between two agents, the API server by this node's taints and conditions. All three follow status_cni(), as STATUS does.
 *
 * A runtime without a configuration says that the node is not ready, and cannot end Pods either. So one that is there outlives the agent, and what
 * may pass by itself; and with it what the API server was told.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <controller_internal.h>
#include <observe/status.h>
#include <util/file.h>

#define CONFIG_MAX ((size_t)1 << 20)
#define PLUGIN "heddle-cni"
#define UNREADY_US (10ull * 1000000)
#define LEFT_NAME "left" /* in run_dir; heddle-cni knows it too */

struct told {
	char *path, *text;
	size_t length;
	const char *name; /* behind the last slash of path */
	char *network;
	bool given; /* addresses come from elsewhere than from this node's podCIDRs */
};

/* --- the configuration for the runtime --- */

static int read_plugin(struct told *told, const json_t *plugin)
{
	const char *network = json_string_value(json_object_get(plugin, "network"));
	const json_t *ipam = json_object_get(plugin, "ipam");
	const char *type = json_string_value(json_object_get(ipam, "type"));

	if (!network || !*network)
		return -EINVAL;
	told->given = (type && strcmp(type, "heddle") != 0) || json_object_get(ipam, "ranges");
	told->network = strdup(network);
	return told->network ? 0 : -ENOMEM;
}

static int read_config(struct told *told, const char *path)
{
	json_t *root = NULL, *plugin;
	json_error_t error;
	size_t i;
	int r = file_read(AT_FDCWD, path, CONFIG_MAX, &told->text, &told->length, NULL);

	if (r < 0)
		return log_err(r, "--cni-config: cannot read %s", path);
	root = json_loadb(told->text, told->length, 0, &error);
	if (!root)
		return log_err(-EINVAL, "--cni-config: %s: line %d: %s", path, error.line, error.text);
	r = -EINVAL;
	json_array_foreach (json_object_get(root, "plugins"), i, plugin) {
		const char *type = json_string_value(json_object_get(plugin, "type"));

		if (!type || strcmp(type, PLUGIN) != 0)
			continue;
		r = read_plugin(told, plugin);
		break;
	}
	json_decref(root);
	return r < 0 ? log_err(r, "--cni-config: %s: want `plugins` with one of type " PLUGIN " that has a `network`", path) : 0;
}

static int path_of(const struct controller_options *options, char **ret)
{
	const char *slash = strrchr(options->cni_config, '/'), *name = slash ? slash + 1 : options->cni_config;

	if (asprintf(ret, "%s/%s", options->cni_dir, name) < 0) {
		*ret = NULL;
		return -ENOMEM;
	}
	return 0;
}

static void remove_temporaries(const char *path)
{
	_cleanup_close_ int dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (dir >= 0)
		file_remove_temporaries(dir);
}

static void told_free(struct told *told)
{
	if (!told)
		return;
	free(told->path);
	free(told->text);
	free(told->network);
	free(told);
}

int node_open(struct controller *c, bool fresh)
{
	const struct controller_options *options = c->options;
	struct told *told;
	int r;

	if (!options->cni_config)
		return 0;
	told = calloc(1, sizeof(*told));
	r = told ? read_config(told, options->cni_config) : -ENOMEM;
	if (r == 0)
		r = path_of(options, &told->path);
	if (r == 0) {
		r = file_make_directory(options->cni_dir, 0755);
		if (r < 0)
			log_err(r, "--cni-dir: cannot make %s", options->cni_dir);
	}
	if (r < 0) {
		told_free(told);
		return r;
	}
	told->name = strrchr(told->path, '/') + 1;
	remove_temporaries(options->cni_dir);
	/* the machine was started anew: nobody can be connected yet, whatever is left from before */
	if (fresh && unlink(told->path) == 0)
		log_info("%s is away until Pods can be connected", told->path);
	c->told = told;
	return 0;
}

/* A runtime takes the first one, by its name. */
static void warn_of_others(const struct told *told, const char *path)
{
	_cleanup_closedir_ DIR *directory = opendir(path);
	static const char *const extensions[] = {".conf", ".conflist", ".json"};

	for (struct dirent *entry; directory && (entry = readdir(directory));) {
		const char *extension = strrchr(entry->d_name, '.');

		for (size_t i = 0; extension && i < ARRAY_SIZE(extensions); i++)
			if (strcmp(extension, extensions[i]) == 0 && strcmp(entry->d_name, told->name) < 0)
				log_warn(0, "%s/%s comes before %s: a runtime takes that one", path, entry->d_name, told->name);
	}
}

static void put_config(const struct controller *c)
{
	const struct told *told = c->told;
	_cleanup_free_ char *now = NULL;
	size_t length;
	int r = file_read(AT_FDCWD, told->path, CONFIG_MAX, &now, &length, NULL);

	if (r == 0 && length == told->length && memcmp(now, told->text, length) == 0)
		return;
	r = file_write(AT_FDCWD, told->path, told->text, told->length, 0644);
	if (r < 0) {
		log_err(r, "cannot write %s: the runtime cannot connect Pods", told->path);
		return;
	}
	log_info("%s is there: Pods can be connected", told->path);
	warn_of_others(told, c->options->cni_dir);
}

/* --- all of it --- */

static char *left_path(const char *run_dir)
{
	char *path;

	return asprintf(&path, "%s/" LEFT_NAME, run_dir) < 0 ? NULL : path;
}

static void forget_left(const char *run_dir)
{
	_cleanup_free_ char *path = left_path(run_dir);

	if (path)
		(void)unlink(path);
}

/* NULL in *ret_reason: they can be. */
static void can_connect(const struct controller *c, const char **ret_reason)
{
	const char *network = c->told ? c->told->network : kubernetes_network(c->view.host);

	(void)status_cni(&c->view, network, c->told && c->told->given, ret_reason);
}

static void tell(struct controller *c, const char *reason)
{
	if (!reason && c->told)
		put_config(c);
	else if (reason && c->told && unlink(c->told->path) == 0)
		log_warn(0, "%s is away until Pods can be connected: %s", c->told->path, reason);
	if (c->kubernetes && c->options->node_ready)
		kubernetes_mark(c->kubernetes, c->options->node_ready, reason ? KUBERNETES_UNREADY : KUBERNETES_READY);
}

static int on_unready(sd_event_source *source, uint64_t now, void *userdata)
{
	struct controller *c = userdata;
	const char *reason;

	(void)source, (void)now;
	can_connect(c, &reason);
	c->unready = reason != NULL;
	if (reason)
		tell(c, reason);
	return 0;
}

/* Nothing more is said until then. */
static void tell_later(struct controller *c)
{
	int r, enabled = SD_EVENT_OFF;

	if (c->kubernetes && c->options->node_ready)
		kubernetes_mark(c->kubernetes, c->options->node_ready, KUBERNETES_AS_IT_IS);
	if (c->unready_due)
		(void)sd_event_source_get_enabled(c->unready_due, &enabled);
	if (enabled != SD_EVENT_OFF)
		return;
	c->unready_due = sd_event_source_disable_unref(c->unready_due);
	r = sd_event_add_time_relative(c->event, &c->unready_due, CLOCK_MONOTONIC, UNREADY_US, 100000, on_unready, c);
	if (r < 0)
		log_err(r, "cannot put work off");
}

void node_look(struct controller *c)
{
	const char *reason;

	if (!c->api) /* nobody could ask it yet */
		return;
	if (!c->served) {
		c->served = true;
		forget_left(c->options->run_dir);
	}
	can_connect(c, &reason);
	if (reason && !c->unready) {
		tell_later(c);
		return;
	}
	c->unready = reason != NULL;
	c->unready_due = sd_event_source_disable_unref(c->unready_due);
	tell(c, reason);
}

void node_leave(struct controller *c)
{
	_cleanup_free_ char *path = left_path(c->options->run_dir);
	const char *reason;

	if (path && c->served && status_cni(&c->view, NULL, true, &reason) == 0)
		(void)file_write_fleeting(AT_FDCWD, path, "", 0, 0600);
}

void node_free(struct controller *c)
{
	sd_event_source_disable_unref(c->unready_due);
	told_free(c->told);
	c->told = NULL;
}

int node_withdraw(const struct controller_options *options)
{
	struct kubernetes *k = NULL;
	int r;

	if (!options->node_ready)
		return 0;
	r = kubernetes_new(options->kubeconfig, options->node_name, &k);

	if (r >= 0)
		r = kubernetes_withdraw(k, options->node_ready);
	kubernetes_free(k);
	return r;
}

int node_forget(const struct controller_options *options)
{
	_cleanup_free_ char *path = NULL;
	int r = options->cni_config ? path_of(options, &path) : 0;

	forget_left(options->run_dir);
	if (r == 0 && path && unlink(path) < 0 && errno != ENOENT)
		r = -errno;
	return r < 0 ? log_err(r, "cannot remove %s", path ? path : options->cni_config) : 0;
}
