/* SPDX-License-Identifier: Apache-2.0 */
/*
 * STATE_DIR/ipam, one line a network and family, and the hash of all of it at its end:
 *
 *   heddle-ipam 1\n
 *   NETWORK ADDRESS\n
 *   end HASH\n
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <model/kinds.h>
#include <source/ipam.h>
#include <util/addr.h>
#include <util/buffer.h>
#include <util/cleanup.h>
#include <util/file.h>
#include <util/hash.h>

#define STATE_NAME "ipam"
#define STATE_LIMIT (16u << 20)
#define STATE_MAGIC "heddle-ipam 1\n"
#define END "end %016" PRIx64 "\n"
#define END_LENGTH 21

/* --- arithmetic --- */

static unsigned __int128 number_of(const struct hd_addr *addr)
{
	unsigned __int128 number = 0;

	for (size_t i = 0; i < sizeof(addr->b); i++)
		number = number << 8 | addr->b[i];
	return number;
}

static struct hd_addr address_of(unsigned __int128 number)
{
	struct hd_addr addr;

	for (size_t i = sizeof(addr.b); i-- > 0; number >>= 8)
		addr.b[i] = (uint8_t)number;
	return addr;
}

/* --- ranges --- */

static struct ipam_range range_of(const struct hd_addr *addr, uint8_t length)
{
	unsigned __int128 all = ~(unsigned __int128)0, hosts = length == 0 ? all : length < 128 ? all >> length : 0;

	return (struct ipam_range){.first = address_of(number_of(addr) & ~hosts), .last = address_of(number_of(addr) | hosts)};
}

struct parsing {
	const struct object *network;
	struct ipam_range *ranges;
	size_t n;
	struct diag *diag;
};

__attribute__((format(printf, 2, 3))) static int refuse(struct parsing *p, const char *format, ...)
{
	_cleanup_buffer_ struct buffer text = {0};
	va_list args;

	va_start(args, format);
	buffer_vprintf(&text, format, args);
	va_end(args);
	diag_add(p->diag, NULL, 0, "ipam.ranges", "%s", text.data ? text.data : "no memory");
	return -EINVAL;
}

static int add_range(struct parsing *p, const struct hd_addr *first, const struct hd_addr *last)
{
	const struct network *network = &p->network->network;
	const struct prefix *subnet = document_subnet(network->subnets, network->n_subnets, first);
	char a[ADDR_TEXT_MAX], b[ADDR_TEXT_MAX];
	struct ipam_range *grown;

	if (addr_is_ipv4(first) != addr_is_ipv4(last) || number_of(first) > number_of(last))
		return refuse(p, "want a first address that is not behind the last one, got %s and %s", addr_format(first, a),
			addr_format(last, b));
	if (!subnet || !addr_in_prefix(last, &subnet->addr, subnet->length))
		return refuse(p, "want addresses in one subnet of Network %s, got %s to %s", p->network->name,
			addr_format(first, a), addr_format(last, b));
	grown = reallocarray(p->ranges, p->n + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	p->ranges = grown;
	grown[p->n++] = (struct ipam_range){.first = *first, .last = *last};
	return 0;
}

static int parse_block(struct parsing *p, const char *text, struct ipam_range *ret)
{
	struct hd_addr addr;
	uint8_t length;
	int r = addr_parse_cidr(text, &addr, &length);

	if (r != 0 && r != ADDR_CIDR_HOST_BITS)
		return refuse(p, "want ADDRESS/LENGTH, got \"%.64s\"", text);
	*ret = range_of(&addr, length);
	return 0;
}

static int parse_text(struct parsing *p, const char *text)
{
	const char *dash = strchr(text, '-');
	char first[ADDR_TEXT_MAX];
	struct ipam_range range;
	int r;

	if (!dash) {
		r = parse_block(p, text, &range);
	} else {
		snprintf(first, sizeof(first), "%.*s", (int)(dash - text < 47 ? dash - text : 47), text);
		r = addr_parse(first, &range.first);
		if (r == 0)
			r = addr_parse(dash + 1, &range.last);
		if (r < 0)
			return refuse(p, "want ADDRESS-ADDRESS, got \"%.100s\"", text);
	}
	return r < 0 ? r : add_range(p, &range.first, &range.last);
}

static int parse_end(struct parsing *p, const json_t *item, const char *key, struct hd_addr *ret)
{
	const json_t *value = json_object_get(item, key);

	if (!value || json_is_null(value))
		return 0;
	if (!json_is_string(value) || addr_parse(json_string_value(value), ret) < 0)
		return refuse(p, "%s: want an address", key);
	return 0;
}

static int parse_range(struct parsing *p, const json_t *item)
{
	const char *subnet = json_string_value(json_object_get(item, "subnet"));
	struct ipam_range range;
	int r;

	if (!subnet)
		return refuse(p, "want text, or a mapping with subnet");
	r = parse_block(p, subnet, &range);
	if (r == 0)
		r = parse_end(p, item, "rangeStart", &range.first);
	if (r == 0)
		r = parse_end(p, item, "rangeEnd", &range.last);
	return r < 0 ? r : add_range(p, &range.first, &range.last);
}

static int parse_ranges(struct parsing *p, const json_t *list, unsigned depth)
{
	const json_t *item;
	size_t i;
	int r = 0;

	json_array_foreach (list, i, item) {
		if (json_is_string(item))
			r = parse_text(p, json_string_value(item));
		else if (json_is_array(item) && depth == 0)
			r = parse_ranges(p, item, depth + 1);
		else
			r = parse_range(p, item);
		if (r < 0)
			break;
	}
	return r;
}

int ipam_ranges(const struct object *network, const json_t *wanted, struct ipam_range **ret, size_t *ret_n, struct diag *diag)
{
	struct parsing p = {.network = network, .diag = diag};
	const struct network *blue = &network->network;
	int r = 0;

	if (json_array_size(wanted)) {
		r = parse_ranges(&p, wanted, 0);
	} else if (wanted && !json_is_array(wanted) && !json_is_null(wanted)) {
		r = refuse(&p, "want a list");
	} else {
		for (size_t i = 0; i < blue->n_subnets && r == 0; i++) {
			struct ipam_range range = range_of(&blue->subnets[i].addr, blue->subnets[i].length);

			r = add_range(&p, &range.first, &range.last);
		}
	}
	if (r == 0 && !p.n)
		r = refuse(&p, "want ranges, since Network %s has no subnets", network->name);
	if (r < 0) {
		free(p.ranges);
		return r;
	}
	*ret = p.ranges;
	*ret_n = p.n;
	return 0;
}

/* --- picking --- */

bool ipam_is_usable(const struct object *object, const struct hd_addr *addr)
{
	const struct network *network = &object->network;
	const struct prefix *subnet = document_subnet(network->subnets, network->n_subnets, addr);

	if (!subnet || !document_address_of_host(addr, subnet))
		return false;
	/* the subnet-router anycast address (RFC 4291, 2.6.1) */
	if (!addr_is_ipv4(addr) && subnet->length < 127 && memcmp(addr, &subnet->addr, sizeof(*addr)) == 0)
		return false;
	for (size_t i = 0; i < network->n_gateways; i++)
		if (memcmp(&network->gateways[i], addr, sizeof(*addr)) == 0)
			return false;
	return true;
}

static int compare(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct hd_addr));
}

void ipam_sort(struct hd_addr *addresses, size_t n)
{
	if (n)
		qsort(addresses, n, sizeof(*addresses), compare);
}

/* Those that are passed over are taken, or the few that nobody may have: the search is as long as that. */
static bool pick_between(const struct object *network, unsigned __int128 first, unsigned __int128 last,
	const struct hd_addr *taken, size_t n_taken, struct hd_addr *ret)
{
	for (unsigned __int128 at = first; at <= last; at++) {
		struct hd_addr addr = address_of(at);

		if (ipam_is_usable(network, &addr) && !(n_taken && bsearch(&addr, taken, n_taken, sizeof(addr), compare))) {
			*ret = addr;
			return true;
		}
		if (at == last)
			break;
	}
	return false;
}

int ipam_pick(const struct object *network, const struct ipam_range *ranges, size_t n, bool ipv4, const struct hd_addr *after,
	const struct hd_addr *taken, size_t n_taken, struct hd_addr *ret)
{
	unsigned __int128 last = after ? number_of(after) : 0;
	size_t begin = n, tried = 0;

	for (size_t i = 0; i < n; i++) {
		if (addr_is_ipv4(&ranges[i].first) != ipv4)
			continue;
		tried++;
		if (after && begin == n && number_of(&ranges[i].first) <= last && last <= number_of(&ranges[i].last))
			begin = i;
	}
	if (!tried)
		return -ENOENT;
	if (begin < n && last < number_of(&ranges[begin].last) &&
		pick_between(network, last + 1, number_of(&ranges[begin].last), taken, n_taken, ret))
		return 0;
	/* those behind it, those before it, and at last its own beginning */
	for (size_t i = 1; i <= n; i++) {
		const struct ipam_range *range = &ranges[begin < n ? (begin + i) % n : i - 1];
		unsigned __int128 end = number_of(&range->last);

		if (addr_is_ipv4(&range->first) != ipv4)
			continue;
		if (pick_between(network, number_of(&range->first), end, taken, n_taken, ret))
			return 0;
	}
	return -ENOSPC;
}

/* --- where the search goes on --- */

struct last {
	char *network;
	struct hd_addr addr;
};

struct ipam {
	struct last *items;
	size_t n;
};

int ipam_new(struct ipam **ret)
{
	*ret = calloc(1, sizeof(**ret));
	return *ret ? 0 : -ENOMEM;
}

static void clear(struct ipam *ipam)
{
	for (size_t i = 0; i < ipam->n; i++)
		free(ipam->items[i].network);
	free(ipam->items);
	*ipam = (struct ipam){0};
}

void ipam_free(struct ipam *ipam)
{
	if (!ipam)
		return;
	clear(ipam);
	free(ipam);
}

static struct last *find(const struct ipam *ipam, const char *network, bool ipv4)
{
	for (size_t i = 0; i < ipam->n; i++)
		if (addr_is_ipv4(&ipam->items[i].addr) == ipv4 && strcmp(ipam->items[i].network, network) == 0)
			return &ipam->items[i];
	return NULL;
}

const struct hd_addr *ipam_last(const struct ipam *ipam, const char *network, bool ipv4)
{
	const struct last *last = find(ipam, network, ipv4);

	return last ? &last->addr : NULL;
}

int ipam_set_last(struct ipam *ipam, const char *network, const struct hd_addr *addr)
{
	struct last *last = find(ipam, network, addr_is_ipv4(addr)), *grown;
	char *name;

	if (last) {
		last->addr = *addr;
		return 0;
	}
	name = strdup(network);
	grown = name ? reallocarray(ipam->items, ipam->n + 1, sizeof(*grown)) : NULL;
	if (!grown) {
		free(name);
		return -ENOMEM;
	}
	ipam->items = grown;
	grown[ipam->n++] = (struct last){.network = name, .addr = *addr};
	return 0;
}

static int open_directory(const char *state_dir)
{
	int fd = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static int parse_state(char *text, size_t length, struct ipam *into)
{
	char expected[END_LENGTH + 1], *end, *line, *next;

	if (length < strlen(STATE_MAGIC) + END_LENGTH || memcmp(text, STATE_MAGIC, strlen(STATE_MAGIC)) != 0)
		return -EINVAL;
	end = text + length - END_LENGTH;
	snprintf(expected, sizeof(expected), END, hash_bytes(1, text, (size_t)(end - text)));
	if (memcmp(end, expected, END_LENGTH) != 0)
		return -EINVAL;
	for (line = text + strlen(STATE_MAGIC); line < end; line = next) {
		char *space = memchr(line, ' ', (size_t)(end - line)), *newline = memchr(line, '\n', (size_t)(end - line));
		struct hd_addr addr;
		int r;

		if (!space || !newline || space > newline)
			return -EINVAL;
		*space = *newline = '\0';
		next = newline + 1;
		if (addr_parse(space + 1, &addr) < 0)
			return -EINVAL;
		r = ipam_set_last(into, line, &addr);
		if (r < 0)
			return r;
	}
	return 0;
}

int ipam_load(const char *state_dir, struct ipam *ipam)
{
	_cleanup_close_ int dir_fd = open_directory(state_dir);
	_cleanup_free_ char *text = NULL;
	struct ipam loaded = {0};
	size_t length;
	int r = dir_fd < 0 ? dir_fd : file_read(dir_fd, STATE_NAME, STATE_LIMIT, &text, &length, NULL);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	r = parse_state(text, length, &loaded);
	if (r < 0) {
		clear(&loaded);
		return r;
	}
	clear(ipam);
	*ipam = loaded;
	return 0;
}

int ipam_save(const char *state_dir, const struct ipam *ipam)
{
	_cleanup_buffer_ struct buffer text = {0};
	_cleanup_close_ int dir_fd = open_directory(state_dir);
	char address[ADDR_TEXT_MAX];

	buffer_add_string(&text, STATE_MAGIC);
	for (size_t i = 0; i < ipam->n; i++)
		buffer_printf(&text, "%s %s\n", ipam->items[i].network, addr_format(&ipam->items[i].addr, address));
	if (!text.failed)
		buffer_printf(&text, END, hash_bytes(1, text.data, text.length));
	if (text.failed)
		return -ENOMEM;
	return dir_fd < 0 ? dir_fd : file_write(dir_fd, STATE_NAME, text.data, text.length, 0600);
}
