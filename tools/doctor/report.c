/* SPDX-License-Identifier: Apache-2.0 */
/* The report, and the files below the root. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <zlib.h>

#include <util/cleanup.h>
#include <util/file.h>

#include <tools/doctor/doctor.h>
#include <tools/doctor/parse.h>

/* /proc/interrupts of a machine of 256 CPUs and 4,000 interrupts has 11 MiB. */
#define FILE_MAX (32u << 20)
#define CONFIG_MAX (1u << 20)

static const char *const severities[] = {
	[DOCTOR_OK] = "ok",
	[DOCTOR_NOTE] = "note",
	[DOCTOR_WARNING] = "warning",
	[DOCTOR_UNKNOWN] = "unknown",
};

/* What the kernel hands out may hold any bytes (an ACPI name, a mistyped alias): JSON takes UTF-8 alone. */
static json_t *string_of(const char *text)
{
	json_t *string = json_string(text);
	char *plain;

	if (string)
		return string;
	plain = strdup(text);
	for (char *c = plain; c && *c; c++)
		if ((unsigned char)*c >= 0x80)
			*c = '?';
	string = plain ? json_string(plain) : NULL;
	free(plain);
	return string;
}

static json_t *string_or_null(const char *text)
{
	return text && *text ? string_of(text) : json_null();
}

void doctor_say(struct doctor *doctor, const struct finding *finding, const char *format, ...)
{
	json_t *item = json_object();
	char *value = NULL;
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vasprintf(&value, format, arguments);
	va_end(arguments);
	if (length < 0)
		value = NULL;
	if (!value || json_object_set_new(item, "severity", json_string(severities[finding->severity])) ||
		json_object_set_new(item, "area", json_string(finding->area)) ||
		json_object_set_new(item, "subject", string_or_null(finding->subject)) ||
		json_object_set_new(item, "name", json_string(finding->name)) ||
		json_object_set_new(item, "value", string_of(value)) ||
		json_object_set_new(item, "path", string_or_null(finding->path)) ||
		json_object_set_new(item, "change", string_or_null(finding->change)) ||
		json_object_set(item, "details", finding->details ?: json_null()) || json_array_append(doctor->items, item))
		doctor->failed = true;
	json_decref(item);
	json_decref(finding->details);
	free(value);
}

void doctor_unread(struct doctor *doctor, int r, const char *format, ...)
{
	json_t *old;
	char what[PATH_MAX];
	va_list arguments;
	size_t i;

	va_start(arguments, format);
	vsnprintf(what, sizeof(what), format, arguments);
	va_end(arguments);
	json_array_foreach (doctor->unread, i, old) {
		const char *text = json_string_value(json_object_get(old, "what"));

		if (text && strcmp(text, what) == 0)
			return;
	}
	if (json_array_append_new(doctor->unread, json_pack("{s:o, s:s}", "what", string_of(what), "reason", strerror(-r))))
		doctor->failed = true;
}

#define FORMAT_PATH(path, format) \
	({ \
		va_list arguments_; \
		va_start(arguments_, format); \
		int length_ = vsnprintf(path, sizeof(path), format, arguments_); \
		va_end(arguments_); \
		length_ > 0 && (size_t)length_ < sizeof(path); \
	})

static char *read_path(struct doctor *doctor, const char *path)
{
	char *text = NULL;
	size_t length;
	int r = file_read(doctor->root_fd, path, FILE_MAX, &text, &length, NULL);

	if (r == -EACCES || r == -EPERM)
		doctor_unread(doctor, r, "/%s", path);
	if (r == -ENOMEM)
		doctor->failed = true;
	if (r < 0)
		return NULL;
	while (length && strchr(" \t\n", text[length - 1]))
		text[--length] = '\0';
	return text;
}

char *doctor_text(struct doctor *doctor, const char *format, ...)
{
	char path[PATH_MAX];

	return FORMAT_PATH(path, format) ? read_path(doctor, path) : NULL;
}

bool doctor_number(struct doctor *doctor, long long *ret, const char *format, ...)
{
	_cleanup_free_ char *text = NULL;
	char path[PATH_MAX], *end;
	long long n;

	if (!FORMAT_PATH(path, format))
		return false;
	text = read_path(doctor, path);
	if (!text || !*text)
		return false;
	errno = 0;
	n = strtoll(text, &end, 0);
	if (errno || end == text || (*end && *end != ' ' && *end != '\n' && *end != '\t'))
		return false;
	*ret = n;
	return true;
}

char *doctor_link(struct doctor *doctor, const char *format, ...)
{
	char path[PATH_MAX], target[PATH_MAX];
	const char *slash;
	ssize_t length;

	if (!FORMAT_PATH(path, format))
		return NULL;
	length = readlinkat(doctor->root_fd, path, target, sizeof(target) - 1);
	if (length <= 0)
		return NULL;
	target[length] = '\0';
	slash = strrchr(target, '/');
	return strdup(slash ? slash + 1 : target);
}

bool doctor_exists(struct doctor *doctor, const char *format, ...)
{
	char path[PATH_MAX];

	return FORMAT_PATH(path, format) && faccessat(doctor->root_fd, path, F_OK, 0) == 0;
}

static int by_version(const void *a, const void *b)
{
	return strverscmp(*(char *const *)a, *(char *const *)b);
}

char **doctor_names(struct doctor *doctor, const char *format, ...)
{
	_cleanup_closedir_ DIR *directory = NULL;
	const struct dirent *entry;
	char path[PATH_MAX], **names = NULL, **grown;
	size_t n = 0;
	int fd = -1;

	if (!FORMAT_PATH(path, format))
		return NULL;
	fd = openat(doctor->root_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && errno == EACCES)
		doctor_unread(doctor, -errno, "/%s", path);
	directory = fd < 0 ? NULL : fdopendir(fd);
	if (!directory) {
		safe_close(fd);
		return NULL;
	}
	while ((entry = readdir(directory))) {
		if (entry->d_name[0] == '.')
			continue;
		grown = reallocarray(names, n + 2, sizeof(*grown));
		if (!grown)
			break;
		names = grown;
		names[n] = strdup(entry->d_name);
		names[n + 1] = NULL;
		if (!names[n])
			break;
		n++;
	}
	doctor->failed |= entry != NULL;
	if (names)
		qsort(names, n, sizeof(*names), by_version);
	return names;
}

void doctor_names_free(char **names)
{
	for (char **name = names; name && *name; name++)
		free(*name);
	free(names);
}

/* --- the kernel's configuration --- */

static char *read_compressed(struct doctor *doctor, const char *path)
{
	int fd = openat(doctor->root_fd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), length;
	gzFile file = fd < 0 ? NULL : gzdopen(fd, "r");
	char *text = file ? malloc(CONFIG_MAX + 1) : NULL;

	if (!file) {
		safe_close(fd);
		return NULL;
	}
	length = text ? gzread(file, text, CONFIG_MAX) : -1;
	gzclose(file);
	if (length < 0) {
		free(text);
		return NULL;
	}
	text[length] = '\0';
	return text;
}

enum presence doctor_presence(struct doctor *doctor, const char *option, const char *module)
{
	_cleanup_free_ char *builtin = NULL, *dep = NULL;
	char name[64];

	if (doctor_exists(doctor, "sys/module/%s", module) && (!doctor->config || parse_option(doctor->config, option) != 'n'))
		return doctor->config && parse_option(doctor->config, option) == 'y' ? BUILT_IN : MODULE;
	if (doctor->config)
		return parse_option(doctor->config, option) == 'y'   ? BUILT_IN
		       : parse_option(doctor->config, option) == 'n' ? ABSENT
								     : MODULE;
	snprintf(name, sizeof(name), "/%s.ko", module);
	builtin = doctor_text(doctor, "lib/modules/%s/modules.builtin", doctor->kernel);
	dep = doctor_text(doctor, "lib/modules/%s/modules.dep", doctor->kernel);
	if (builtin && strstr(builtin, name))
		return BUILT_IN;
	if (dep && strstr(dep, name))
		return MODULE;
	return builtin || dep ? ABSENT : PRESENCE_UNKNOWN;
}

/* --- all of it --- */

static void find_kernel(struct doctor *doctor)
{
	_cleanup_free_ char *release = doctor_text(doctor, "proc/sys/kernel/osrelease");
	_cleanup_free_ char *online = doctor_text(doctor, "sys/devices/system/cpu/online");
	struct utsname name;
	int cpus = parse_list(online, 1 << 16, NULL, NULL);

	if (release)
		snprintf(doctor->kernel, sizeof(doctor->kernel), "%s", release);
	else if (doctor->live && uname(&name) == 0)
		snprintf(doctor->kernel, sizeof(doctor->kernel), "%s", name.release);
	doctor->cpus = cpus > 0 ? (unsigned)cpus : 0;
	doctor->interrupts = doctor_text(doctor, "proc/interrupts");
	doctor->config = read_compressed(doctor, "proc/config.gz");
	if (!doctor->config && *doctor->kernel)
		doctor->config = doctor_text(doctor, "boot/config-%s", doctor->kernel);
	if (!doctor->config && *doctor->kernel)
		doctor->config = doctor_text(doctor, "lib/modules/%s/config", doctor->kernel);
}

int doctor_run(const char *sysroot, json_t **ret)
{
	struct doctor doctor = {.root_fd = -1, .live = !sysroot, .items = json_array(), .unread = json_array()};
	json_t *report = NULL;
	int r = 0;

	doctor.root_fd = open(sysroot ?: "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (doctor.root_fd < 0)
		r = -errno;
	if (r == 0) {
		find_kernel(&doctor);
		doctor_kernel(&doctor);
		doctor_iommu(&doctor);
		doctor_nics(&doctor);
		doctor_cpu(&doctor);
		doctor_memory(&doctor);
		doctor_sysctl(&doctor);
		report = json_pack("{s:o, s:b, s:o, s:O, s:O}", "kernel", string_or_null(doctor.kernel), "root", geteuid() == 0,
			"sysroot", string_or_null(sysroot), "items", doctor.items, "unread", doctor.unread);
		if (!report || doctor.failed) {
			json_decref(report);
			r = -ENOMEM;
		}
	}
	safe_close(doctor.root_fd);
	json_decref(doctor.items);
	json_decref(doctor.unread);
	free(doctor.interrupts);
	free(doctor.config);
	if (r == 0)
		*ret = report;
	return r;
}
