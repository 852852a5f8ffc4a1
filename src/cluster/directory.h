#pragma once
/* Which node owns which shard, and where it is: what the lease thread read last (cluster_hooks.seen). It may be out of date at any time, and
 * need not be right: who is asked looks for itself, and says so when it is not the owner. Thread-safe. */
#include "net/target.h"
#include "store/store.h"

#define DIRECTORY_NODES_MAX 256
#define DIRECTORY_ID_MAX    64

struct directory;
struct directory *directory_new(const char *node_id, int32_t shard_count);
/* Also ends directory_resolve. */
void directory_close(struct directory *d);
void directory_free(struct directory **d);

/* What the database says now. Does not block. */
void directory_update(struct directory *d, const struct st_node_list_ret *nodes,
                      const struct st_shard_list_ret *shards);
/* Another node that owns the shard and lives: its number, from 1. 0: this one, or nobody is known. One look-up in an array. */
int directory_owner(const struct directory *d, int32_t shard);
/* Where that node is: a reference, or NULL: it is gone, or its address cannot be used (ret_why, may be NULL). `ret_id`: its name, if not gone. */
struct target *directory_target(struct directory *d, int number, char ret_id[DIRECTORY_ID_MAX + 1],
                                char ret_why[256]);
/* The numbers of all other nodes that live; returns how many (at most `max`). */
size_t directory_nodes(struct directory *d, int *ret_numbers, size_t max);
/* It could not be reached: its name may lead to another address by now. */
void directory_unreached(struct directory *d, int number);
/* For a thread of its own: wait for addresses that are not resolved yet, resolve one (blocks), and return its node's number; 0: closed. */
int directory_resolve(struct directory *d);
