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
  /* Another node shall have the shard: stop firing it, write what is known of it, then call cluster_handed_over. May come again. */
  void (*hand_over)(void *arg, int32_t shard, int64_t epoch);
};
struct cluster_options {
  struct store *store; /* a STORE_LEASE session; owned by the cluster from cluster_new on */
  struct store *api;   /* pooled; borrowed; for cluster_nodes and cluster_drain. May be NULL without them */
  const char *node_id, *address, *version, *tzdata;
  usec_t lease_ttl;      /* 5 s; renewed at a third of it */
  usec_t max_clock_skew; /* wall clock against the database's; beyond: shards go to others. 0: any */
  struct cluster_hooks hooks;
};
/* Joins: after it cluster_now works. */
int cluster_new(const struct cluster_options *o, struct cluster **ret, struct err *e);
int cluster_start(struct cluster *c, struct err *e);
/* Hands all shards over to the others, if there are any; at most `grace`. Before cluster_stop, while all else still runs. */
void cluster_hand_over_all(struct cluster *c, usec_t grace);
void cluster_stop(struct cluster *c); /* leaves: shards are released, the thread ends */
void cluster_free(struct cluster **c);

/* Database time as estimated at the last renewal (midpoint of the round trip) plus the monotonic time since. */
usec_t cluster_now(const struct cluster *c);
usec_t cluster_offset(const struct cluster *c); /* that estimate minus this machine's wall clock */
/* May this node still act as an owner? By the monotonic clock, with a margin before the lease's end. */
bool cluster_lease_valid(const struct cluster *c);
/* Has the database taken our last renewals? With a lock file for a lease that is another question. */
bool cluster_renewed(const struct cluster *c);
/* A write of ours was fenced off, or what we know of the shard is void: it is not ours any more (hooks.lost follows), until it is claimed anew. */
void cluster_fenced(struct cluster *c, int32_t shard, int64_t epoch);
/* The answer to hooks.hand_over. */
void cluster_handed_over(struct cluster *c, int32_t shard, int64_t epoch);
/* Nodes or shards may have changed: look at once. */
void cluster_look(struct cluster *c);
size_t cluster_owned(const struct cluster *c);
int32_t cluster_shard_count(const struct cluster *c);

/* How this node stands, as it saw it last. */
struct cluster_state {
  bool settled;   /* it has looked, and there is nothing for it to claim */
  bool drained;   /* by an operator */
  bool skewed;    /* its wall clock is past max_clock_skew */
  bool slow;      /* its commits are: it takes over nothing */
  size_t alive;   /* nodes, this one included */
  size_t unowned; /* shards that no living node owns */
  size_t zones;   /* different versions of tzdata among the living nodes */
};
void cluster_state(struct cluster *c, struct cluster_state *ret);

/* nodes.c: for people. Block on the database. */
struct cluster_nodes {
  struct st_node_list_ret nodes;
  struct st_shard_list_ret shards;
};
int cluster_nodes(struct cluster *c, struct cluster_nodes *ret, struct arena *mem, struct err *e);
/* Does this node, of this incarnation, own the shard? */
bool cluster_owns(const struct node_row *n, const struct shard_row *s);
enum node_state { NODE_ACTIVE, NODE_SLOW, NODE_CLOCK, NODE_DRAINING, NODE_DRAINED, NODE_LEAVING, NODE_DEAD };
extern const char *const node_state_names[];
enum node_state cluster_node_state(const struct node_row *n, usec_t now, size_t shards);
/* Drained: it hands its shards over, and owns none until it is resumed. 1: so already; ERR_NOT_FOUND. */
int cluster_drain(struct cluster *c, struct slice node, bool drained, struct err *e);
/* Rows of nodes that have been dead for `age` are removed. Returns how many. */
int64_t cluster_forget(struct cluster *c, usec_t age, struct err *e);
