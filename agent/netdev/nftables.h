/* SPDX-License-Identifier: Apache-2.0 */
/*
 * As much of nf_tables as a table of ours needs: transactions over netlink, and who has changed what. Written against the kernel's messages: the
 * libraries for it are under another licence, and larger than all of the rest of an agent.
 */
#ifndef HEDDLE_NETDEV_NFTABLES_H
#define HEDDLE_NETDEV_NFTABLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <util/buffer.h>

/* One transaction on one table of the family inet: all of it becomes live at once, or nothing. What fails for want of memory shows at the end. */
struct nft_batch {
	const char *table;
	struct buffer data;
	uint32_t sequence, sets;
	size_t message, list; /* where those begin that are being written */
};
void nft_begin(struct nft_batch *batch, const char *table);
void nft_clear(struct nft_batch *batch);
/*
 * 0, or a negative errno: -EOPNOTSUPP where the kernel has no nf_tables, -ENOENT and others with *ret_what ("a chain", …) where it lacks what is needed
 * for that.
 */
int nft_commit(struct nft_batch *batch, const char **ret_what);

void nft_add_table(struct nft_batch *batch);
void nft_delete_table(struct nft_batch *batch); /* it has to be there: added before, if need be */
/* type NULL: jumped to by others alone. Else "nat" or "filter". */
void nft_add_chain(struct nft_batch *batch, const char *name, const char *type, uint32_t hook, int priority);

/* Types as the nft command numbers them, by which it shows them. */
enum { NFT_TYPE_IPV4 = 7, NFT_TYPE_IPV6 = 8, NFT_TYPE_PROTOCOL = 12, NFT_TYPE_PORT = 13 };
#define NFT_TYPE_CONCAT(a, b) ((a) << 6 | (b))
/* Data 0, 0: a set, else a map. Each part of a key or of data takes a multiple of four bytes. */
void nft_add_set(struct nft_batch *batch, const char *name, uint32_t key_type, uint32_t key, uint32_t data_type, uint32_t data);
/* Elements in between; there may be many. */
void nft_begin_elements(struct nft_batch *batch, const char *set);
void nft_add_element(
	struct nft_batch *batch, const char *set, const void *key, size_t key_size, const void *data, size_t data_size);
void nft_end_elements(struct nft_batch *batch);

/* Expressions in between. Registers: 1 to 4 of 16 bytes each, and 8 and on, of four bytes each, which are the same ones in pieces. */
void nft_begin_rule(struct nft_batch *batch, const char *chain);
void nft_end_rule(struct nft_batch *batch);
void nft_meta(struct nft_batch *batch, uint32_t key, uint32_t reg);
void nft_payload(struct nft_batch *batch, uint32_t base, uint32_t offset, uint32_t length, uint32_t reg);
void nft_mask(struct nft_batch *batch, uint32_t reg, const void *mask, uint32_t length);
void nft_equal(struct nft_batch *batch, uint32_t reg, const void *value, uint32_t length);
void nft_to_this_host(struct nft_batch *batch);					      /* destination: one of its addresses */
void nft_lookup(struct nft_batch *batch, const char *set, uint32_t reg, uint32_t to); /* to 0: a set, no map */
void nft_jump(struct nft_batch *batch, const char *chain);			      /* NULL: return */
void nft_drop(struct nft_batch *batch);
void nft_dnat(struct nft_batch *batch, uint32_t family, uint32_t address, uint32_t port); /* out of these registers */
void nft_masquerade(struct nft_batch *batch);

/* Whether there is the table. 1, 0 or a negative errno; 0 as well where the kernel has no nf_tables. */
int nft_has_table(const char *table);

/* --- watching --- */

struct nft_watch;
int nft_watch_open(const char *table, struct nft_watch **ret);
void nft_watch_close(struct nft_watch *watch); /* NULL is fine */
int nft_watch_fd(const struct nft_watch *watch);
/* How many transactions have touched the table since the last call; UINT_MAX: some were not heard. */
unsigned nft_watch_read(struct nft_watch *watch);

#endif
