/* SPDX-License-Identifier: Apache-2.0 */
/* The life of an agent: lock, open, first policy, serve, leave. */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <systemd/sd-daemon.h>

#include <controller_internal.h>
#include <netdev/settings.h>
#include <util/clock.h>
#include <util/file.h>

#define LOCK_NAME "heddled.lock"
#define LOCK_PATIENCE_MS 1000 /* an agent that was killed a moment ago may not be quite gone */
#define DETACH_PATIENCE_MS 10000

/* -EBUSY: another agent has it. */
static int lock_run_dir(const char *run_dir, unsigned patience_ms, int *ret)
{
	_cleanup_free_ char *path = NULL;
	_cleanup_close_ int fd = -1;

	if (asprintf(&path, "%s/%s", run_dir, LOCK_NAME) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK)
			return -errno;
		if (!patience_ms)
			return -EBUSY;
		usleep(10000);
		patience_ms -= patience_ms < 10 ? patience_ms : 10;
	}
	*ret = TAKE_FD(fd);
	return 0;
}

/* --- signals --- */

static int on_end(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
	(void)userdata;
	log_info("signal %u: leaving; the data plane keeps working", info->ssi_signo);
	(void)sd_notify(0, "STOPPING=1\nSTATUS=The data plane keeps working");
	return sd_event_exit(sd_event_source_get_event(source), 0);
}

static int on_hup(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
	struct controller *c = userdata;

	(void)source;
	(void)info;
	/* not before the first READY=1: that one is the data plane's to send */
	if (c->told_ready)
		(void)sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)clock_us());
	change_files(c);
	if (c->kubernetes)
		kubernetes_ask_again(c->kubernetes);
	if (c->told_ready)
		(void)sd_notify(0, "READY=1");
	return 0;
}

static int watch_signals(struct controller *c)
{
	sigset_t set;
	int r;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -errno;
	(void)signal(SIGPIPE, SIG_IGN);
	r = sd_event_add_signal(c->event, NULL, SIGTERM, on_end, c);
	if (r >= 0)
		r = sd_event_add_signal(c->event, NULL, SIGINT, on_end, c);
	if (r >= 0)
		r = sd_event_add_signal(c->event, NULL, SIGHUP, on_hup, c);
	return r;
}

static void on_files_changed(void *userdata)
{
	change_files(userdata);
}

/* --- life --- */

static void controller_free(struct controller *c)
{
	if (c->api)
		api_free(c->api);
	sd_event_source_disable_unref(c->sweep);
	sd_event_source_disable_unref(c->later);
	sd_event_source_disable_unref(c->confirm);
	sd_event_source_disable_unref(c->events);
	sd_event_source_disable_unref(c->rebuild);
	node_free(c);
	cluster_free(c);
	fastpaths_free(c);
	offload_end(c);
	devices_free(c);
	vfs_free(c);
	sriov_free(c);
	underlay_free(c);
	nat_free(c);
	ports_free(c);
	files_free(c->files);
	applied_close(c->applied);
	cni_free(c);
	policy_free(c);
	datapath_close(c->datapath);
	store_clear(&c->store);
	free(c->last_error);
	alone_free(c);
	sd_event_unref(c->event);
	safe_close(c->lock);
}

static int make_directory(const char *path, mode_t mode)
{
	int r = file_make_directory(path, mode);

	return r < 0 ? log_err(r, "cannot make %s", path) : 0;
}

/* What is missing declares nothing, which a configuration may: where it is only looked at, and at a start, a mistyped path shall not look like that. */
static int missing_paths(const struct controller_options *options, struct diag *diag)
{
	int r = 0;

	for (size_t i = 0; i < options->n_config; i++) {
		if (access(options->config[i], F_OK) == 0 || errno != ENOENT)
			continue;
		r = -ENOENT;
		if (diag)
			diag_add(diag, options->config[i], 0, NULL, "want a file or directory, got %s", strerror(ENOENT));
		else
			log_notice("there is no %s: it declares nothing", options->config[i]);
	}
	return r;
}

static int start(struct controller *c)
{
	const struct controller_options *options = c->options;
	const struct api_config api = {
		.run_dir = options->run_dir, .metrics = options->metrics, .view = &c->view, .ops = &change_ops, .userdata = c};
	const struct datapath_config config = {.bpffs = options->bpffs};
	bool found;
	int r;

	r = make_directory(options->run_dir, 0755);
	if (r >= 0)
		r = make_directory(options->state_dir, 0700);
	if (r < 0)
		return r;
	r = lock_run_dir(options->run_dir, LOCK_PATIENCE_MS, &c->lock);
	if (r == -EBUSY)
		return log_err(r, "another heddled runs in %s", options->run_dir);
	if (r < 0)
		return log_err(r, "cannot lock %s", options->run_dir);
	r = alone_claim(LOCK_PATIENCE_MS, &c->alone);
	if (r < 0)
		return r;
	r = sd_event_new(&c->event);
	if (r >= 0)
		r = watch_signals(c);
	if (r >= 0)
		r = alone_serve(c);
	if (r < 0)
		return log_err(r, "cannot set up the event loop");
	r = datapath_open(&config, &c->datapath, &found);
	if (r < 0)
		return log_err(r, "cannot open the data plane under %s", options->bpffs);
	if (found)
		log_info("taking over what generation %u put in force", datapath_last_generation(c->datapath));
	r = files_new(options->config, options->n_config, &c->files);
	if (r < 0)
		return log_err(r, "cannot set up the configured paths");
	(void)missing_paths(options, NULL);
	r = devices_start(c);
	if (r >= 0)
		r = ports_start(c);
	if (r < 0)
		return r;
	/* before they are read, so that no change falls in between */
	r = files_watch(c->files, c->event, on_files_changed, c);
	if (r < 0)
		log_warn(r, "cannot watch the configured paths: changes are seen at SIGHUP only");
	r = node_open(c, !found);
	if (r >= 0)
		r = cluster_open(c);
	if (r < 0)
		return r;
	r = change_start(c);
	if (r < 0 && r != -EINVAL)
		return r;
	r = change_arm_confirm(c);
	if (r < 0)
		return log_err(r, "cannot set the timer of the rollback");
	r = api_new(c->event, &api, &c->api);
	if (r >= 0)
		r = cluster_start(c);
	if (r < 0)
		return r;
	node_look(c);
	confine(options->state_dir);
	c->confined = true;
	forwarders_begin(c);
	return 0;
}

int controller_run(const struct controller_options *options)
{
	struct controller c = {.options = options, .lock = -1, .alone = -1, .loans = -1};
	uint64_t began = clock_us();
	int r;

	c.view.objects = &c.store.all;
	c.view.derived = &c.store.derived;
	c.view.version = HEDDLE_VERSION;
	c.view.started = (int64_t)clock_ms();
	r = start(&c);
	if (r >= 0) {
		log_info("heddled %s: %s after %llu ms", HEDDLE_VERSION, c.view.ready ? "in force" : "waiting",
			(unsigned long long)(clock_us() - began) / 1000);
		r = sd_event_loop(c.event);
		if (r < 0)
			log_err(r, "the event loop failed");
		node_leave(&c);
		offload_end(&c);
		/* what was put off */
		policy_settle(&c);
		keep_due(&c);
	}
	controller_free(&c);
	return r;
}

int controller_check(const struct controller_options *options)
{
	_cleanup_store_proposal_ struct store_proposal proposal = {0};
	_cleanup_store_ struct store store = {0};
	_cleanup_(files_free_p) struct files *files = NULL;
	struct object_list list = {0};
	struct diag diag = {0};
	int r;

	r = missing_paths(options, &diag);
	if (r >= 0)
		r = files_new(options->config, options->n_config, &files);
	if (r >= 0)
		r = files_load(files, &list, &diag);
	if (r >= 0)
		r = store_propose_files(&store, &list, &proposal, &diag);
	if (r >= 0) {
		const struct object *host = policy_host(&proposal.next.all);
		struct policy_input input = {.host = host ? &host->host : &policy_no_host, .objects = &proposal.next.all};
		struct networks *networks = NULL;
		struct compiler_limits limits;
		struct policy_delta *delta;
		struct compiler *compiler;

		r = networks_new(&networks);
		if (r >= 0)
			r = networks_assign(networks, input.objects, &diag);
		input.networks = networks;
		if (r >= 0)
			r = ports_check(input.objects, input.host, networks, &diag);
		if (r >= 0)
			r = policy_compile_fresh(
				1, NULL, &(struct compiler_limits){0}, &input, &compiler, &limits, &delta, &diag);
		if (r >= 0) {
			compiler_abort(compiler);
			compiler_free(compiler);
		}
		networks_free(networks);
	}
	if (diag.text)
		fprintf(stderr, "%s\n", diag.text);
	else if (r < 0)
		log_err(r, "cannot check the configuration");
	diag_clear(&diag);
	object_list_clear(&list);
	return r;
}

/* The agent that serves run_dir's socket: its process, as this process would name it. 0: none that can be named. */
static pid_t running_agent(const char *run_dir)
{
	_cleanup_close_ int directory = open(run_dir, O_PATH | O_DIRECTORY | O_CLOEXEC),
			    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct ucred peer = {0};
	socklen_t length = sizeof(peer);

	if (directory < 0 || fd < 0)
		return 0;
	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", directory, API_SOCKET_NAME);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
		getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0)
		return 0;
	return peer.pid;
}

int controller_detach(const struct controller_options *options)
{
	const struct datapath_config config = {.bpffs = options->bpffs};
	_cleanup_free_ char *socket_path = NULL;
	_cleanup_close_ int lock = -1, alone = -1;
	char table[NAT_TABLE_MAX];
	int r, told;

	r = lock_run_dir(options->run_dir, 0, &lock);
	if (r == -EBUSY) {
		pid_t agent = running_agent(options->run_dir);

		if (agent > 1 && alone_elsewhere(agent))
			return log_err(-EXDEV,
				"the agent that runs in %s (process %d) is in another network namespace: detach there",
				options->run_dir, (int)agent);
		if (agent > 1) {
			log_info("ending the agent that runs in %s (process %d)", options->run_dir, (int)agent);
			(void)kill(agent, SIGTERM);
			r = lock_run_dir(options->run_dir, DETACH_PATIENCE_MS, &lock);
		}
	}
	if (r == -EBUSY)
		return log_err(r, "a heddled runs in %s: stop it first", options->run_dir);
	/* run_dir may be gone, or never have been: nothing to lock then */
	if (r < 0 && r != -ENOENT)
		return log_err(r, "cannot lock %s", options->run_dir);
	/* what is in the namespace would be taken from under an agent with another run_dir */
	r = alone_claim(LOCK_PATIENCE_MS, &alone);
	if (r < 0)
		return r;
	/* a cluster that cannot be told is no reason to stay attached */
	told = node_withdraw(options);
	r = offload_clear();
	if (r < 0)
		return log_err(r, "cannot remove the rules of NICs");
	r = datapath_detach(&config);
	if (r < 0)
		return log_err(r, "cannot detach everything");
	r = hostnet_clear();
	if (r < 0)
		return log_err(r, "cannot remove the routes to ports");
	r = underlay_clear();
	if (r < 0)
		return r;
	nat_table(options->run_dir, table);
	r = nat_clear(table);
	if (r < 0)
		return log_err(r, "cannot remove the table %s of nftables", table);
	r = pair_remove(&tunnel_sum_pair);
	if (r < 0)
		return log_err(r, "cannot remove %s", TUNNEL_SUM_DEVICE);
	r = pair_remove(&tunnel_stack_pair);
	if (r < 0)
		return log_err(r, "cannot remove %s", TUNNEL_STACK_DEVICE);
	r = settings_sync(options->run_dir, NULL, 0);
	if (r < 0)
		return r;
	r = node_forget(options);
	if (r < 0)
		return r;
	r = vfs_restore(options->state_dir);
	if (r < 0)
		return r;
	fastpath_server_clear(options->run_dir);
	if (asprintf(&socket_path, "%s/%s", options->run_dir, API_SOCKET_NAME) > 0)
		(void)unlink(socket_path);
	return told;
}
