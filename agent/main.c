/* SPDX-License-Identifier: Apache-2.0 */
/* heddled: options, and which of its three jobs to do. */
#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

#include <api/api.h>
#include <controller.h>
#include <source/kubernetes.h>
#include <util/cleanup.h>
#include <util/log.h>

static void usage(FILE *out)
{
	fputs("heddled [--config PATH]... [--run-dir DIR] [--state-dir DIR] [--bpffs DIR]\n"
	      "        [--metrics ADDR:PORT] [--log-level LEVEL] [--kubernetes[=KUBECONFIG]] [--node-name NAME]\n"
	      "        [--node-ready[=TAINT]] [--cni-config FILE] [--cni-dir DIR]\n"
	      "heddled --check --config PATH...    decode and compile only; touches nothing\n"
	      "heddled --detach [--run-dir DIR] [--bpffs DIR] [--cni-config FILE] [--cni-dir DIR] [--kubernetes[=KUBECONFIG]]\n"
	      "        [--node-name NAME] [--node-ready[=TAINT]]\n"
	      "        remove every program, link, map and pin of this instance\n"
	      "\n"
	      "  --config PATH        file or directory of documents (default /etc/heddle)\n"
	      "  --run-dir DIR        where heddled.sock is made (default /run/heddle)\n"
	      "  --state-dir DIR      last good state and applied objects (default /var/lib/heddle)\n"
	      "  --bpffs DIR          where pins are kept under heddle/ (default /sys/fs/bpf)\n"
	      "  --metrics ADDR:PORT  serve OpenMetrics at http://ADDR:PORT/metrics\n"
	      "  --kubernetes[=PATH]  follow the API server of a kubeconfig, or of the cluster this is a Pod of\n"
	      "  --node-name NAME     of this host in the cluster (default NODE_NAME, then the host's name)\n"
	      "  --node-ready[=TAINT] once Pods can be connected, take TAINT off this node, and its condition NetworkUnavailable "
	      "back;\n"
	      "                       the other way round when they cannot be, and with --detach (default " KUBERNETES_TAINT ")\n"
	      "  --cni-config FILE    a CNI configuration list, which is in --cni-dir while Pods can be connected\n"
	      "  --cni-dir DIR        (default /etc/cni/net.d)\n"
	      "  --log-level LEVEL    error, warning, notice, info or debug (default info)\n"
	      "  --version, --help\n",
		out);
}

int main(int argc, char **argv)
{
	enum {
		CONFIG = 256,
		RUN_DIR,
		STATE_DIR,
		BPFFS,
		METRICS,
		LOG_LEVEL,
		KUBERNETES,
		NODE_NAME,
		NODE_READY,
		CNI_CONFIG,
		CNI_DIR,
		CHECK,
		DETACH,
		VERSION,
		HELP
	};
	static const struct option known[] = {
		{"config", required_argument, NULL, CONFIG},
		{"run-dir", required_argument, NULL, RUN_DIR},
		{"state-dir", required_argument, NULL, STATE_DIR},
		{"bpffs", required_argument, NULL, BPFFS},
		{"metrics", required_argument, NULL, METRICS},
		{"log-level", required_argument, NULL, LOG_LEVEL},
		{"kubernetes", optional_argument, NULL, KUBERNETES},
		{"node-name", required_argument, NULL, NODE_NAME},
		{"node-ready", optional_argument, NULL, NODE_READY},
		{"cni-config", required_argument, NULL, CNI_CONFIG},
		{"cni-dir", required_argument, NULL, CNI_DIR},
		{"check", no_argument, NULL, CHECK},
		{"detach", no_argument, NULL, DETACH},
		{"version", no_argument, NULL, VERSION},
		{"help", no_argument, NULL, HELP},
		{0},
	};
	static const char *const default_config[] = {"/etc/heddle"};
	struct controller_options options = {.config = default_config,
		.n_config = 1,
		.run_dir = "/run/heddle",
		.state_dir = "/var/lib/heddle",
		.bpffs = "/sys/fs/bpf",
		.cni_dir = "/etc/cni/net.d"};
	_cleanup_free_ const char **config = calloc((size_t)argc, sizeof(*config));
	bool check = false, detach = false;
	size_t n_config = 0;
	int option, level;

	if (!config)
		return EXIT_FAILURE;
	while ((option = getopt_long(argc, argv, "h", known, NULL)) >= 0) {
		switch (option) {
		case CONFIG:
			config[n_config++] = optarg;
			break;
		case RUN_DIR:
			options.run_dir = optarg;
			break;
		case STATE_DIR:
			options.state_dir = optarg;
			break;
		case BPFFS:
			options.bpffs = optarg;
			break;
		case METRICS:
			options.metrics = optarg;
			break;
		case KUBERNETES:
			options.kubernetes = true;
			options.kubeconfig = optarg;
			break;
		case NODE_NAME:
			options.node_name = optarg;
			break;
		case NODE_READY:
			options.node_ready = optarg ? optarg : KUBERNETES_TAINT;
			break;
		case CNI_CONFIG:
			options.cni_config = optarg;
			break;
		case CNI_DIR:
			options.cni_dir = optarg;
			break;
		case LOG_LEVEL:
			level = log_level_from_name(optarg);
			if (level < 0) {
				fprintf(stderr, "heddled: --log-level: want error, warning, notice, info or debug, got %s\n",
					optarg);
				return 2;
			}
			log_set_level(level);
			break;
		case CHECK:
			check = true;
			break;
		case DETACH:
			detach = true;
			break;
		case VERSION:
			puts("heddled " HEDDLE_VERSION);
			return EXIT_SUCCESS;
		case HELP:
		case 'h':
			usage(stdout);
			return EXIT_SUCCESS;
		default: /* getopt_long() has said what is wrong */
			fputs("heddled --help lists the options\n", stderr);
			return 2;
		}
	}
	if (options.node_ready && !options.kubernetes) {
		fputs("heddled: --node-ready: want --kubernetes with it\n", stderr);
		return 2;
	}
	if (options.metrics && !api_metrics_address(options.metrics)) {
		fprintf(stderr, "heddled: --metrics: want ADDR:PORT, such as 127.0.0.1:9100 or [::1]:9100, got %s\n",
			options.metrics);
		return 2;
	}
	if (optind < argc) {
		fprintf(stderr, "heddled: want options only, got %s; heddled --help lists them\n", argv[optind]);
		return 2;
	}
	if (check && detach) {
		fputs("heddled: --detach: want it without --check\n", stderr);
		return 2;
	}
	if (n_config) {
		options.config = config;
		options.n_config = n_config;
	}
	/* One arena: the agent has one thread, and memory that is not in use is to go back. */
	(void)mallopt(M_ARENA_MAX, 1);
	(void)mallopt(M_MMAP_THRESHOLD, 1 << 20);
	if (check)
		return controller_check(&options) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
	if (detach)
		return controller_detach(&options) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
	return controller_run(&options) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
