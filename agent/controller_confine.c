/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a running agent gives up. Its input is documents, API requests and packets' headers: a mistake in reading those must not
 * become a shell.
 *
 * Capabilities that stay: CAP_BPF and CAP_PERFMON to load programs and use maps, CAP_NET_ADMIN to attach them, CAP_NET_RAW to answer
 * rejects and to make AF_XDP sockets, CAP_IPC_LOCK for the memory of those. System calls are refused by a list of what an agent never does, not limited to a list of what it does: the
 * latter breaks with every new C library.
 */
#include <errno.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cap-ng.h>
#include <seccomp.h>

#include <controller_internal.h>

static void drop_capabilities(const char *state_dir)
{
	static const unsigned kept[] = {CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN, CAP_NET_RAW, CAP_IPC_LOCK};
	struct stat st;
	/* state of another user's (a developer's own directory) is written by overriding its permissions */
	bool foreign = stat(state_dir, &st) < 0 || st.st_uid != geteuid();

	if (capng_get_caps_process() < 0) {
		log_warn(0, "cannot read the capabilities: all are kept");
		return;
	}
	for (unsigned capability = 0; capability <= CAP_LAST_CAP; capability++) {
		bool keep = capability == CAP_DAC_READ_SEARCH || (foreign && capability == CAP_DAC_OVERRIDE);

		for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
			keep |= kept[i] == capability;
		if (!keep)
			capng_update(CAPNG_DROP, CAPNG_EFFECTIVE | CAPNG_PERMITTED | CAPNG_INHERITABLE, capability);
	}
	if (capng_apply(CAPNG_SELECT_CAPS) < 0)
		log_warn(0, "cannot give up capabilities");
}

/* Those that a kernel of the floor or the architecture does not have are skipped by libseccomp. */
static const int refused[] = {
	SCMP_SYS(execve),
	SCMP_SYS(execveat),
	SCMP_SYS(fork),
	SCMP_SYS(vfork),
	SCMP_SYS(ptrace),
	SCMP_SYS(process_vm_readv),
	SCMP_SYS(process_vm_writev),
	SCMP_SYS(mount),
	SCMP_SYS(umount2),
	SCMP_SYS(pivot_root),
	SCMP_SYS(chroot),
	SCMP_SYS(move_mount),
	SCMP_SYS(open_tree),
	SCMP_SYS(fsopen),
	SCMP_SYS(fsmount),
	SCMP_SYS(unshare),
	SCMP_SYS(setns),
	SCMP_SYS(init_module),
	SCMP_SYS(finit_module),
	SCMP_SYS(delete_module),
	SCMP_SYS(kexec_load),
	SCMP_SYS(kexec_file_load),
	SCMP_SYS(reboot),
	SCMP_SYS(swapon),
	SCMP_SYS(swapoff),
	SCMP_SYS(acct),
	SCMP_SYS(quotactl),
	SCMP_SYS(keyctl),
	SCMP_SYS(add_key),
	SCMP_SYS(request_key),
	SCMP_SYS(userfaultfd),
	SCMP_SYS(open_by_handle_at),
	SCMP_SYS(name_to_handle_at),
	SCMP_SYS(setuid),
	SCMP_SYS(setgid),
	SCMP_SYS(setreuid),
	SCMP_SYS(setregid),
	SCMP_SYS(setresuid),
	SCMP_SYS(setresgid),
	SCMP_SYS(setgroups),
	SCMP_SYS(settimeofday),
	SCMP_SYS(clock_settime),
	SCMP_SYS(adjtimex),
	SCMP_SYS(sethostname),
	SCMP_SYS(setdomainname),
	SCMP_SYS(personality),
	SCMP_SYS(mknod),
	SCMP_SYS(mknodat),
};

/* LeakSanitizer traces the process at its end. */
#ifdef __SANITIZE_ADDRESS__
static const bool sanitized = true;
#else
static const bool sanitized = false;
#endif

static int filter_system_calls(void)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	int r = 0;

	if (!filter)
		return -ENOMEM;
	for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(refused); i++) {
		r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), refused[i], 0);
		/* not a call of this architecture */
		if (r == -EDOM || r == -EINVAL)
			r = 0;
	}
	if (r >= 0)
		r = seccomp_load(filter);
	seccomp_release(filter);
	return r;
}

/*
 * Code that only a start needs (libraries' initialisation, decoding, libbpf) is let go; what is needed again comes from the page
 * cache. Only pages that nobody can have written to: dropping others would lose what was written.
 */
static void drop_code(void)
{
	_cleanup_fclose_ FILE *maps = fopen("/proc/self/maps", "re");
	unsigned long begin, end;
	char line[512], mode[8];

	while (maps && fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%lx %7s", &begin, &end, mode) == 3 && !strcmp(mode, "r-xp") && strchr(line, '/'))
			(void)madvise((void *)begin, end - begin, MADV_DONTNEED);
}

void confine(const char *state_dir)
{
	int r = 0;

	drop_capabilities(state_dir);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		log_warn(-errno, "cannot give up new privileges");
	if (!sanitized)
		r = filter_system_calls();
	if (r < 0)
		log_warn(r, "cannot filter system calls");
	drop_code();
}
