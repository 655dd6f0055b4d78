/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <util/cleanup.h>

#include <tools/doctor/probe.h>

/* 6.6 */
#define TCX_INGRESS 46
#define LOG_SIZE 4096

static int bpf(int command, union bpf_attr *attr)
{
	long r = syscall(__NR_bpf, command, attr, sizeof(*attr));

	return r < 0 ? -errno : (int)r;
}

static int load(uint32_t type, uint32_t attach_type, const struct bpf_insn *code, uint32_t n, const int *fds, char *log)
{
	union bpf_attr attr = {
		.prog_type = type,
		.expected_attach_type = attach_type,
		.insns = (uintptr_t)code,
		.insn_cnt = n,
		.license = (uintptr_t) "GPL",
		.fd_array = (uintptr_t)fds,
		.log_level = log ? 1 : 0,
		.log_buf = (uintptr_t)log,
		.log_size = log ? LOG_SIZE : 0,
	};
	int fd = -1;

	memcpy(attr.prog_name, "heddle_doctor", sizeof("heddle_doctor"));
	fd = bpf(BPF_PROG_LOAD, &attr);
	if (fd >= 0)
		close(fd);
	return fd < 0 ? fd : 0;
}

#define MOV_R0(value) ((struct bpf_insn){.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = (value)})
#define EXIT ((struct bpf_insn){.code = BPF_JMP | BPF_EXIT})

int probe_program(uint32_t type, uint32_t attach_type)
{
	const struct bpf_insn code[] = {MOV_R0(1), EXIT};

	return load(type, attach_type, code, ARRAY_SIZE(code), NULL, NULL);
}

/* Called without its arguments it is refused in any case: what for, the verifier says. */
static int probe_call(uint32_t type, struct bpf_insn call, const int *fds, const char *const *unknown)
{
	const struct bpf_insn code[] = {call, EXIT};
	char log[LOG_SIZE] = "";
	int r = load(type, 0, code, ARRAY_SIZE(code), fds, log);

	if (r == 0 || r == -EPERM)
		return r;
	/* A log that did not fit is one that went past the call. */
	if (r == -ENOSPC)
		return 0;
	if (!log[0])
		return r;
	for (; *unknown; unknown++)
		if (strstr(log, *unknown))
			return -EOPNOTSUPP;
	return 0;
}

int probe_helper(uint32_t type, int32_t helper)
{
	static const char *const unknown[] = {"invalid func ", "unknown func ", "program of this type cannot use helper", NULL};

	return probe_call(type, (struct bpf_insn){.code = BPF_JMP | BPF_CALL, .imm = helper}, NULL, unknown);
}

int probe_kfunc(uint32_t type, uint32_t btf_id, int module_btf)
{
	static const char *const unknown[] = {"is not allowed", "not supported", "cannot find address", "invalid BPF_CALL",
		"is not a function", "kfunc offset", "is not a module BTF", NULL};
	/* The first one is no place for a module's: 0 means the kernel itself. */
	const int fds[] = {-1, module_btf};
	bool in_module = module_btf >= 0;

	return probe_call(type,
		(struct bpf_insn){
			.code = BPF_JMP | BPF_CALL, .src_reg = BPF_PSEUDO_KFUNC_CALL, .off = in_module, .imm = (int32_t)btf_id},
		in_module ? fds : NULL, unknown);
}

void probe_open_btf(const char *const *names, int *fds, size_t n)
{
	union bpf_attr next = {0};
	size_t left = 0;

	for (size_t i = 0; i < n; i++)
		left += names[i] != NULL;
	for (; left && bpf(BPF_BTF_GET_NEXT_ID, &next) == 0; next.start_id = next.next_id) {
		union bpf_attr get = {.btf_id = next.next_id};
		_cleanup_close_ int fd = bpf(BPF_BTF_GET_FD_BY_ID, &get);
		char name[64] = "";
		struct bpf_btf_info info = {.name = (uintptr_t)name, .name_len = sizeof(name)};
		union bpf_attr ask = {.info = {.bpf_fd = (uint32_t)fd, .info_len = sizeof(info), .info = (uintptr_t)&info}};

		if (fd < 0 || bpf(BPF_OBJ_GET_INFO_BY_FD, &ask) < 0 || !info.kernel_btf)
			continue;
		for (size_t i = 0; i < n && fd >= 0; i++)
			if (names[i] && fds[i] < 0 && strcmp(names[i], name) == 0) {
				fds[i] = TAKE_FD(fd);
				left--;
			}
	}
}

int probe_map(uint32_t type, uint32_t key, uint32_t value, uint32_t entries, uint32_t flags)
{
	union bpf_attr attr = {
		.map_type = type, .key_size = key, .value_size = value, .max_entries = entries, .map_flags = flags};
	int fd = bpf(BPF_MAP_CREATE, &attr);

	if (fd >= 0)
		close(fd);
	return fd < 0 ? fd : 0;
}

int probe_map_in_map(uint32_t type)
{
	union bpf_attr inner = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};
	_cleanup_close_ int fd = bpf(BPF_MAP_CREATE, &inner), outer_fd = -1;
	union bpf_attr outer = {.map_type = type, .key_size = 4, .value_size = 4, .max_entries = 1};

	if (fd < 0)
		return fd;
	outer.inner_map_fd = (uint32_t)fd;
	outer_fd = bpf(BPF_MAP_CREATE, &outer);
	return outer_fd < 0 ? outer_fd : 0;
}

/* Who is attached to the loopback device: a kernel without TCX does not understand the question. */
int probe_tcx(void)
{
	union bpf_attr attr = {.query = {.target_fd = if_nametoindex("lo"), .attach_type = TCX_INGRESS}};
	int r = attr.query.target_fd ? bpf(BPF_PROG_QUERY, &attr) : -ENODEV;

	/* No program was ever attached there: so says a kernel that has it. */
	return r == -ENOENT ? 0 : r;
}

int probe_af_xdp(void)
{
	_cleanup_close_ int fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);

	return fd < 0 ? -errno : 0;
}
