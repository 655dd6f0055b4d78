// SPDX-License-Identifier: Apache-2.0
/*
 * Nanoseconds a packet of BPF programs under BPF_PROG_TEST_RUN, many subjects interleaved in one run: medians, one JSON object.
 *
 *   progbench measure --shell OBJ --ifindex N [--ingress N] [--rounds R] [--repeat K] [--lap | --fresh]
 *                     NAME=HOOK,PROGRAM,PACKET,SOURCES,COUNT...
 *   progbench fill    --shell OBJ --ifindex N --in PROG --out PROG --syn F --synack F --ack F --sources F --count N
 *   progbench live    --ifindex N [--rounds R] --packets K NAME=PROGRAM,PACKET...
 *
 * HOOK: xdp or tc. PROGRAM: a pinned program, or a program of the shell by name (empty_xdp …). PACKET: a file with one frame.
 * SOURCES: a file of struct source (shell.bpf.c), of which COUNT are drawn in turn; "-": the program is run as it is, without
 * the shell. --fresh: each run has the packet as it was, for programs that change it: a call for every run, so that the caches are colder and
 * the clock's own time is in it, as it is in that of the empty program; SOURCES are then COUNT destinations. `fill` plays the three packets
 * of a TCP handshake for each source, so that the flow tables hold real entries.
 */
#include <errno.h>
#include <error.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>

#include "measure.h"

#ifndef BPF_F_TEST_XDP_LIVE_FRAMES
#define BPF_F_TEST_XDP_LIVE_FRAMES (1U << 1)
#endif

#define MAX_SUBJECTS 64
#define MAX_ROUNDS 101

struct source {
	uint8_t addr[16];
	uint16_t port, destination_port;
	uint32_t reserved;
};

struct draw {
	uint32_t count, next, stride, runs;
};

struct blob {
	void *data;
	size_t length;
};

struct subject {
	char *name;
	bool tc, drawn;
	int prog;
	struct blob packet, sources;
	uint32_t count, next;
	double ns[MAX_ROUNDS];
	uint32_t retval, length; /* of the last run: what it returned, and bytes of the packet behind it */
};

static struct bpf_object *shell;
static uint32_t ifindex = 1, ingress; /* ingress: for TC, of the device that the packet came in by; 0: made here */

static struct blob read_file(const char *path)
{
	struct blob blob;
	struct stat st;
	int fd = -1;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st))
		error(1, errno, "%s", path);
	blob.length = (size_t)st.st_size;
	blob.data = malloc(blob.length + 1);
	if (!blob.data)
		abort();
	if (read(fd, blob.data, blob.length) != (ssize_t)blob.length)
		error(1, errno, "%s", path);
	close(fd);
	return blob;
}

static int program(const char *name)
{
	struct bpf_program *prog;
	int fd = -1;

	if (!name)
		exit(2); /* said already: a field is missing */
	if (strchr(name, '/')) {
		fd = bpf_obj_get(name);
		if (fd < 0)
			error(1, errno, "%s", name);
		return fd;
	}
	prog = bpf_object__find_program_by_name(shell, name);
	if (!prog)
		error(1, 0, "no program %s in the shell", name);
	return bpf_program__fd(prog);
}

static int shell_map(const char *name)
{
	int fd = bpf_object__find_map_fd_by_name(shell, name);

	if (fd < 0)
		error(1, 0, "no map %s in the shell", name);
	return fd;
}

/* Runs prog over the packet; average ns of the runs. */
static double run(int prog, bool tc, const struct blob *packet, uint32_t repeat, uint32_t *retval, uint32_t *length)
{
	struct xdp_md xdp = {.data_end = (uint32_t)packet->length, .ingress_ifindex = ifindex};
	struct __sk_buff skb = {.ifindex = ifindex, .ingress_ifindex = ingress};
	char out[4096];
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet->data, .data_size_in = (uint32_t)packet->length, .data_out = out,
		.data_size_out = sizeof(out), .repeat = (int)repeat);

	if (tc) {
		opts.ctx_in = &skb;
		opts.ctx_size_in = sizeof(skb);
	} else {
		opts.ctx_in = &xdp;
		opts.ctx_size_in = sizeof(xdp);
	}
	if (bpf_prog_test_run_opts(prog, &opts))
		error(1, errno, "test run");
	if (retval)
		*retval = opts.retval;
	if (length)
		*length = opts.data_size_out;
	return opts.duration;
}

static void aim(const struct subject *subject)
{
	struct draw draw = {.count = subject->count, .stride = subject->count > 10 ? subject->count / 3 * 2 + 1 : 1};
	uint32_t zero = 0;
	size_t length = 131072 * sizeof(struct source);
	void *area;

	while (draw.count > 10 && draw.count % 3 == 0 && draw.stride % 3 == 0)
		draw.stride += 2;
	area = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, shell_map("sources"), 0);
	if (area == MAP_FAILED)
		error(1, errno, "mmap of sources");
	memcpy(area, subject->sources.data, subject->sources.length < length ? subject->sources.length : length);
	munmap(area, length);
	if (bpf_map_update_elem(shell_map("draws"), &zero, &draw, 0) ||
		bpf_map_update_elem(shell_map(subject->tc ? "tc_target" : "xdp_target"), &zero, &subject->prog, 0))
		error(1, errno, "aiming at %s", subject->name);
}

static void report(struct subject *subjects, int n, int rounds)
{
	printf("{");
	for (int i = 0; i < n; i++) {
		qsort(subjects[i].ns, (size_t)rounds, sizeof(double), by_value);
		printf("%s\"%s\":{\"ns\":%.1f,\"min\":%.1f,\"max\":%.1f,\"retval\":%d,\"length\":%u}", i ? "," : "",
			subjects[i].name, subjects[i].ns[rounds / 2], subjects[i].ns[0], subjects[i].ns[rounds - 1],
			(int)subjects[i].retval, subjects[i].length);
	}
	printf("}\n");
}

static void patch(struct blob *packet, const struct source *source, bool destination)
{
	uint8_t *p = packet->data;

	if (p[12] == 0x08) {
		memcpy(p + (destination ? 30 : 26), source->addr, 4);
		memcpy(p + (destination ? 36 : 34), &source->port, 2);
	} else {
		memcpy(p + (destination ? 38 : 22), source->addr, 16);
		memcpy(p + (destination ? 56 : 54), &source->port, 2);
	}
}

/* Average ns of single runs, each over the packet as it was, towards one destination of the list after the other. */
static double run_fresh(struct subject *s, uint32_t repeat)
{
	const struct source *list = s->sources.data;
	double sum = 0;

	for (uint32_t i = 0; i < repeat; i++) {
		if (s->drawn) {
			patch(&s->packet, &list[s->next], true);
			s->next = (s->next + 1) % s->count;
		}
		sum += run(s->prog, s->tc, &s->packet, 1, &s->retval, &s->length);
	}
	return sum / repeat;
}

/* lap: each subject first sees its whole draw once, untimed: what it costs then is the cost of traffic that is under way. */
static int measure(struct subject *subjects, int n, int rounds, uint32_t repeat, bool lap, bool fresh)
{
	for (int round = -1; round < rounds; round++) /* round -1 warms up */
		for (int i = 0; i < n; i++) {
			struct subject *s = &subjects[i];
			int prog = s->prog;
			double ns;

			if (fresh) {
				ns = run_fresh(s, repeat);
				if (round >= 0)
					s->ns[round] = ns;
				continue;
			}
			if (s->drawn) {
				aim(s);
				prog = program(s->tc ? "draw_tc" : "draw_xdp");
				if (lap)
					run(prog, s->tc, &s->packet, s->count, &s->retval, &s->length);
			}
			ns = run(prog, s->tc, &s->packet, repeat, &s->retval, &s->length);
			if (round >= 0)
				s->ns[round] = ns;
		}
	report(subjects, n, rounds);
	return 0;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Live frames: the kernel makes real frames of the packet and lets the program's verdict act on them. */
static int live(struct subject *subjects, int n, int rounds, uint32_t packets)
{
	for (int round = -1; round < rounds; round++)
		for (int i = 0; i < n; i++) {
			struct subject *s = &subjects[i];
			struct xdp_md xdp = {.data_end = (uint32_t)s->packet.length, .ingress_ifindex = ifindex};
			LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = s->packet.data,
				.data_size_in = (uint32_t)s->packet.length, .ctx_in = &xdp, .ctx_size_in = sizeof(xdp),
				.repeat = (int)packets, .flags = BPF_F_TEST_XDP_LIVE_FRAMES, .batch_size = 64);
			uint64_t begin = now_ns();

			if (bpf_prog_test_run_opts(s->prog, &opts))
				error(1, errno, "live frames through %s", s->name);
			if (round >= 0)
				s->ns[round] = (double)(now_ns() - begin) / packets;
		}
	report(subjects, n, rounds);
	return 0;
}

static int fill(
	int in, int out, struct blob *syn, struct blob *synack, struct blob *ack, const struct blob *sources, uint32_t count)
{
	const struct source *list = sources->data;
	uint32_t refused = 0;

	for (uint32_t i = 0; i < count; i++) {
		uint32_t a, b, c;

		patch(syn, &list[i], false);
		patch(synack, &list[i], true);
		patch(ack, &list[i], false);
		run(in, false, syn, 1, &a, NULL);
		run(out, true, synack, 1, &b, NULL);
		run(in, false, ack, 1, &c, NULL);
		refused += a != XDP_PASS || b != (uint32_t)-1 || c != XDP_PASS;
	}
	printf("{\"filled\":%u,\"refused\":%u}\n", count, refused);
	return refused ? 1 : 0;
}

static int silent(enum libbpf_print_level level, const char *format, va_list args)
{
	return level == LIBBPF_WARN ? vfprintf(stderr, format, args) : 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"shell", 1, NULL, 's'}, {"ifindex", 1, NULL, 'i'}, {"ingress", 1, NULL, 'g'},
		{"rounds", 1, NULL, 'r'}, {"repeat", 1, NULL, 'k'}, {"packets", 1, NULL, 'p'}, {"in", 1, NULL, 'I'},
		{"out", 1, NULL, 'O'}, {"syn", 1, NULL, 'S'}, {"synack", 1, NULL, 'A'}, {"ack", 1, NULL, 'C'},
		{"sources", 1, NULL, 'F'}, {"count", 1, NULL, 'n'}, {"lpm", 1, NULL, 'L'}, {"lap", 0, NULL, 'W'},
		{"fresh", 0, NULL, 'f'}, {NULL, 0, NULL, 0}};
	static struct subject subjects[MAX_SUBJECTS];
	struct blob syn = {NULL, 0}, synack = {NULL, 0}, ack = {NULL, 0}, sources = {NULL, 0}, lpm = {NULL, 0};
	const char *command = argc > 1 ? argv[1] : "", *object = NULL, *in = NULL, *out = NULL;
	uint32_t repeat = 100000, packets = 1000000, count = 0;
	int rounds = 15, n = 0, c;
	bool lap = false, fresh = false;

	libbpf_set_print(silent);
	optind = 2;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (c) {
		case 's':
			object = optarg;
			break;
		case 'i':
			ifindex = (uint32_t)atoi(optarg);
			break;
		case 'g':
			ingress = (uint32_t)atoi(optarg);
			break;
		case 'r':
			rounds = atoi(optarg);
			break;
		case 'k':
			repeat = (uint32_t)atoi(optarg);
			break;
		case 'p':
			packets = (uint32_t)atoi(optarg);
			break;
		case 'I':
			in = optarg;
			break;
		case 'O':
			out = optarg;
			break;
		case 'S':
			syn = read_file(optarg);
			break;
		case 'A':
			synack = read_file(optarg);
			break;
		case 'C':
			ack = read_file(optarg);
			break;
		case 'F':
			sources = read_file(optarg);
			break;
		case 'L':
			lpm = read_file(optarg);
			break;
		case 'W':
			lap = true;
			break;
		case 'f':
			fresh = true;
			break;
		case 'n':
			count = (uint32_t)atoi(optarg);
			break;
		default:
			return 2;
		}
	if (rounds < 1 || rounds > MAX_ROUNDS)
		error(2, 0, "--rounds: want 1..%d", MAX_ROUNDS);
	if (object) {
		shell = bpf_object__open_file(object, NULL);
		if (!shell || bpf_object__load(shell))
			error(1, errno, "%s", object);
	}
	/* --lpm FILE: {length, address} entries of the list that lpm_xdp looks up */
	for (size_t i = 0; i + 8 <= lpm.length; i += 8) {
		uint32_t one = 1;

		if (bpf_map_update_elem(shell_map("bare_lpm"), (char *)lpm.data + i, &one, 0))
			error(1, errno, "bare_lpm");
	}
	if (!strcmp(command, "fill") && (!in || !out || !syn.data || !synack.data || !ack.data || !sources.data)) {
		error(0, 0, "fill: want --in, --out, --syn, --synack, --ack and --sources");
		return 2;
	}
	if (!strcmp(command, "fill"))
		return fill(program(in), program(out), &syn, &synack, &ack, &sources, count);
	for (; optind < argc && n < MAX_SUBJECTS; optind++, n++) {
		struct subject *s = &subjects[n];
		char *spec = strdup(argv[optind]), *at = strchr(spec, '=');
		char *field[5] = {NULL}, *save = NULL;
		int fields = 0;

		if (!at)
			error(2, 0, "%s: want NAME=…", spec);
		*at = 0;
		s->name = spec;
		for (char *f = strtok_r(at + 1, ",", &save); f && fields < 5; f = strtok_r(NULL, ",", &save))
			field[fields++] = f;
		if (!strcmp(command, "live")) {
			if (fields != 2)
				error(2, 0, "%s: want NAME=PROGRAM,PACKET", spec);
			s->prog = program(field[0]);
			s->packet = read_file(field[1]);
			continue;
		}
		if (fields != 5)
			error(2, 0, "%s: want NAME=HOOK,PROGRAM,PACKET,SOURCES,COUNT", spec);
		s->tc = !strcmp(field[0], "tc");
		s->prog = program(field[1]);
		s->packet = read_file(field[2]);
		s->drawn = strcmp(field[3], "-") != 0;
		if (s->drawn)
			s->sources = read_file(field[3]);
		s->count = (uint32_t)atoi(field[4]);
	}
	if (!strcmp(command, "measure"))
		return measure(subjects, n, rounds, repeat, lap, fresh);
	if (!strcmp(command, "live"))
		return live(subjects, n, rounds, packets);
	error(2, 0, "want measure, fill or live");
	return 2;
}
