/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the host does to addresses, as a table of nftables that is all ours: sources that leave for elsewhere become the host's own, and ports of the
 * host lead to workloads. Each change replaces the table, in one transaction; connections that are tracked go on as they began.
 *
 *   chain prerouting, output   to an address of this host: chain ports, which looks into the maps ports4, ports6, ports4_at, ports6_at
 *   chain input, forward       what has the mark `unjudged` is dropped, but for what goes to a block that is inside
 *   chain postrouting          from a block: chain leaving, which returns for what is kept and masquerades the rest; and whom a port leads to itself
 */
#ifndef HEDDLE_NETDEV_NAT_H
#define HEDDLE_NETDEV_NAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <heddle/types.h>

struct nat_block {
	struct hd_addr addr;
	uint8_t length; /* of the mapped form */
};

/* host and to are of one family. */
struct nat_port {
	struct hd_addr host, to;
	uint16_t host_port, to_port; /* host byte order */
	uint8_t protocol;
	bool any; /* any address of the host: of `host` only the family counts */
};

struct nat_content {
	struct nat_block *from, *kept; /* sources that are masqueraded, and destinations for which they are not */
	struct nat_block *inside;      /* where what is marked may go: somebody asks there */
	struct nat_port *ports;
	size_t n_from, n_kept, n_inside, n_ports;
	uint32_t unjudged; /* the mark; 0: nothing has it */
};

/* Of the instance that has this run directory: several may live in one namespace. */
#define NAT_TABLE_MAX 32
void nat_table(const char *run_dir, char ret[NAT_TABLE_MAX]);

/*
 * Makes the table what is wanted. 0, or a negative errno with what was there before; *ret_why (may be NULL) then says in words what the kernel has not
 * taken, to be freed.
 */
int nat_set(const char *table, const struct nat_content *content, char **ret_why);
/* Removes it. 0 also where there is none, or no nf_tables. */
int nat_clear(const char *table);

#endif
