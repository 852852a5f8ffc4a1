#pragma once
/* This node in the cluster: its lease, the shards it owns, and the estimate of the database's clock (storage.md "Leases"). One thread and
 * one session of its own, which nothing delays. Owns node, shard.owner and shard.epoch. Thread-safe. */
#include "base/time.h"
#include "store/store.h"

struct cluster;
struct
    cluster_hooks { /* one after the other, under a lock of the cluster: they must not block, nor call it */
  void (*owned)(void *arg,
                const struct shard_row
                    *s); /* claimed: epoch, watermark and tasks_version as of the claim (texts not valid) */
  void (*lost)(void *arg, int32_t shard, int64_t epoch);
  void *arg;
  /* The nodes and shards as read after each renewal, on the lease thread and without a lock; valid for the call. NULL: nobody wants them. */
  void (*seen)(void *arg, const struct st_node_list_ret *nodes, const struct st_shard_list_ret *shards);
};
struct cluster_options {
  struct store *store; /* a STORE_LEASE session; owned by the cluster from cluster_new on */
  const char *node_id, *address, *version, *tzdata;
  usec_t lease_ttl; /* 5 s; renewed at a third of it */
  struct cluster_hooks hooks;
};
/* Joins: after it cluster_now works. */
int cluster_new(const struct cluster_options *o, struct cluster **ret, struct err *e);
int cluster_start(struct cluster *c, struct err *e);
void cluster_stop(struct cluster *c); /* leaves: shards are released, the thread ends */
void cluster_free(struct cluster **c);

/* Database time as estimated at the last renewal (midpoint of the round trip) plus the monotonic time since. */
usec_t cluster_now(const struct cluster *c);
usec_t cluster_offset(const struct cluster *c); /* that estimate minus this machine's wall clock */
/* May this node still act as an owner? By the monotonic clock, with a margin before the lease's end. */
bool cluster_lease_valid(const struct cluster *c);
/* Has the database taken our last renewals? With a lock file for a lease that is another question. */
bool cluster_renewed(const struct cluster *c);
/* A write of ours was fenced off: the shard is not ours any more (hooks.lost follows). */
void cluster_fenced(struct cluster *c, int32_t shard, int64_t epoch);
size_t cluster_owned(const struct cluster *c);
int32_t cluster_shard_count(const struct cluster *c);
