/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <datapath/compat.h>

#include "datapath_env.h"

const struct datapath_sizes env_sizes = {
	.policy = {.addr4_nodes = 64, .addr6_nodes = 64, .classes = 64, .rule_nodes = 64, .rules = 1024},
	.flows = 4096,
	.flows_new = 1024,
	.flows_other = 1024};
const struct datapath_settings env_settings = {.timeouts = {28800000, 60000, 10000, 30000, 180000, 10000, 60000},
	.log_every = 1,
	.event_rate = 1000,
	.reject_rate = 100};

int env_run(const char *format, ...)
{
	char command[1024];
	va_list args;
	int status;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	status = system(command);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

unsigned env_count(const char *format, ...)
{
	char command[1024], line[64] = "";
	va_list args;
	FILE *pipe;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	pipe = popen(command, "r");
	if (!pipe)
		return ~0u;
	if (!fgets(line, sizeof(line), pipe))
		line[0] = '\0';
	pclose(pipe);
	return (unsigned)strtoul(line, NULL, 10);
}

unsigned env_programs(const struct env *env)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, xdp);
	unsigned n = 0;

	/* bpftool 7.1 does not know TCX. */
	for (unsigned type = COMPAT_BPF_TCX_INGRESS; type <= COMPAT_BPF_TCX_EGRESS; type++) {
		__u32 ids[8], count = 8, flags;

		if (bpf_prog_query((int)env->ifindex, type, 0, &flags, ids, &count) == 0)
			n += count;
	}
	if (bpf_xdp_query((int)env->ifindex, 0, &xdp) == 0)
		n += (xdp.drv_prog_id != 0) + (xdp.skb_prog_id != 0);
	return n;
}

static pid_t make_peer(void)
{
	int ready[2];
	char byte = 0;
	pid_t pid;

	if (pipe(ready) < 0)
		return -1;
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (unshare(CLONE_NEWNET) == 0)
			byte = 1;
		if (write(ready[1], &byte, 1) != 1 || !byte)
			_exit(1);
		close(ready[0]);
		close(ready[1]);
		for (;;)
			pause();
	}
	close(ready[1]);
	if (pid > 0 && (read(ready[0], &byte, 1) != 1 || !byte))
		pid = -1;
	close(ready[0]);
	return pid;
}

struct env *env_new(void)
{
	struct env *env = calloc(1, sizeof(*env));
	__u32 none = 0;

	if (!env)
		return NULL;
	if (geteuid() != 0 || unshare(CLONE_NEWNET | CLONE_NEWNS) < 0) {
		printf("# skipped: needs root and namespaces: %s\n", strerror(errno));
		free(env);
		return NULL;
	}
	if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		perror("mount");
	snprintf(env->directory, sizeof(env->directory), "/tmp/heddle-unit-XXXXXX");
	if (!mkdtemp(env->directory)) {
		free(env);
		return NULL;
	}
	snprintf(env->bpffs, sizeof(env->bpffs), "%s/bpf", env->directory);
	env->peer = make_peer();
	env->tc = bpf_prog_query(1, (enum bpf_attach_type)COMPAT_BPF_TCX_INGRESS, 0, NULL, NULL, &none) == 0 ? "tcx" : "clsact";
	return env;
}

void env_free(struct env *env)
{
	if (!env)
		return;
	if (env->peer > 0) {
		kill(env->peer, SIGKILL);
		waitpid(env->peer, NULL, 0);
	}
	env_run("ip link del " ENV_DEVICE " 2>/dev/null");
	umount2(env->bpffs, MNT_DETACH);
	env_run("rm -rf %s", env->directory);
	free(env);
}

int env_make_link(struct env *env)
{
	/* The flat policy judges ARP like everything else: the neighbours are told. Without IPv6 nothing is sent but what the test sends. */
	int r = env_run(
		"echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6; ip link set lo up; ip link del " ENV_DEVICE " 2>/dev/null;"
		"ip link add " ENV_DEVICE " address 02:00:00:00:99:01 type veth peer name dpu1 address 02:00:00:00:99:02 netns %d"
		" && ip addr add " ENV_ADDRESS "/24 dev " ENV_DEVICE " && ip link set " ENV_DEVICE " up"
		" && ip neigh replace " ENV_PEER_ADDRESS " lladdr 02:00:00:00:99:02 nud permanent dev " ENV_DEVICE
		" && nsenter -t %d -n sh -c 'echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6; ip link set lo up; echo 1 "
		">/proc/sys/net/ipv6/conf/dpu1/disable_ipv6; ip addr add " ENV_PEER_ADDRESS "/24 dev dpu1 && ip link set dpu1 up"
		" && ip neigh replace " ENV_ADDRESS " lladdr 02:00:00:00:99:01 nud permanent dev dpu1'",
		(int)env->peer, (int)env->peer);

	env->ifindex = if_nametoindex(ENV_DEVICE);
	return r ? -EIO : 0;
}

int env_ping(const struct env *env)
{
	return env_run("nsenter -t %d -n ping -q -n -c 1 -W 0.4 " ENV_ADDRESS " >/dev/null 2>&1", (int)env->peer);
}

pid_t env_ping_on(const struct env *env, const char *interval)
{
	char target[16];
	pid_t pid;

	snprintf(target, sizeof(target), "%d", (int)env->peer);
	pid = fork();
	if (pid != 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!freopen("/dev/null", "w", stdout))
		_exit(127);
	execlp("nsenter", "nsenter", "-t", target, "-n", "ping", "-q", "-n", "-i", interval, "-w", "600", ENV_ADDRESS, NULL);
	_exit(127);
}

void flat_policy(struct flat_policy *ret, uint32_t generation, enum hd_verdict ingress)
{
	memset(ret, 0, sizeof(*ret));
	/* Node 1: ingress; the default for everything. Egress is allowed by a root that is a leaf. */
	ret->node.id = 1 + (generation & 1);
	for (unsigned i = 0; i < HD_RULE_FANOUT; i++) {
		ret->node.node.key[i] = i ? ~0u : 0;
		ret->node.node.value[i] = HD_LEAF(FLAT_RULE, ingress, 0);
		ret->node.node.order[i] = HD_ORDER_LAST;
	}
	ret->rule = (struct rule_write){
		.id = FLAT_RULE, .info = {.key = 1, .verdict = (uint8_t)ingress, .policy = "flat", .name = "all"}};
	ret->uplink[0].device = ENV_DEVICE;
	ret->uplink[0].policy = (struct hd_port_policy){.generation = generation,
		.set = {1, 2},
		.version = {generation, generation},
		.root = {HD_TAG_NODE | ret->node.id, HD_LEAF(HD_RULE_DEFAULT_EGRESS, HD_ALLOW, 0)}};
	ret->uplink[1] = ret->uplink[0];
	ret->uplink[1].device = "dpu9";
	ret->delta = (struct policy_delta){.generation = generation,
		.roots = {.generation = generation, .addr4 = HD_TAG_LEAF | HD_CLASS_NONE, .addr6 = HD_TAG_LEAF | HD_CLASS_NONE},
		.rule_nodes = &ret->node,
		.n_rule_nodes = 1,
		.rules = &ret->rule,
		.n_rules = 1,
		.uplinks = ret->uplink,
		.n_uplinks = 2};
}

int env_attach(struct env *env, struct datapath *dp, const struct flat_policy *policy, enum xdp_mode xdp)
{
	struct datapath_uplink uplink = {.device = ENV_DEVICE,
		.ifindex = env->ifindex,
		.xdp = xdp,
		.driver = "veth",
		.forward_judge = false,
		.ethernet = true};

	return datapath_attach(dp, &uplink, 1, policy->uplink, 2);
}

int env_start(struct env *env, struct datapath *dp, uint32_t generation, enum hd_verdict ingress, enum xdp_mode xdp)
{
	struct flat_policy policy;
	int r = datapath_load(dp, &env_sizes, &env_settings, 0);

	flat_policy(&policy, generation, ingress);
	if (r == 0)
		r = datapath_write(dp, &policy.delta);
	if (r == 0)
		r = datapath_publish(dp, &policy.delta, NULL);
	if (r == 0)
		r = env_attach(env, dp, &policy, xdp);
	return r < 0 ? r : datapath_go_live(dp);
}
