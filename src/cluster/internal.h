#pragma once
/* Private to src/cluster. */
#include "base/metric.h"
#include "base/thread.h"
#include "cluster/cluster.h"
#include <stdatomic.h>

enum stage { /* of a shard that is ours */
             STAGE_KEPT,
             STAGE_GOING, /* hooks.hand_over has been called */
             STAGE_QUIET  /* cluster_handed_over has: its row may be released */
};
struct owned {
  int64_t epoch; /* 0 = not ours */
  enum stage stage;
  int64_t fenced; /* the epoch with which it was fenced off since the last look; 0 = it was not */
};
struct watched { /* a node, by this one's own watch */
  char id[65];
  int64_t incarnation, renewals;
  usec_t moved_at; /* monotonic: when its renewals were seen to move */
};
enum { WATCHED_MAX = SHARE_NODES_MAX };

struct cluster {
  struct cluster_options o;
  struct thread thread;
  struct mutex lock; /* guards owned, stopping, leaving, woken, state, handing */
  struct cond wake, changed;
  bool stopping, leaving, woken;
  struct owned *owned; /* by shard */
  struct cluster_state state;
  size_t handing; /* not KEPT */
  int32_t shard_count;
  int64_t incarnation;
  _Atomic usec_t offset;      /* database time - monotonic */
  _Atomic usec_t lease_until; /* monotonic */
  _Atomic bool unsure; /* the lease had ended; what is ours has not been compared with the rows since */
  _Atomic size_t owned_count;
  /* the lease thread's own */
  struct watched watched[WATCHED_MAX];
  size_t watched_count;
  usec_t *free_since; /* by shard, monotonic: nobody owns it; 0 = somebody does */
  usec_t slow_until;  /* monotonic */
  usec_t renewed_at;  /* monotonic; the last renewal that was answered */
  usec_t look_at;     /* monotonic: when something is known to be due */
  int skew_streak;
  bool skewed;
  struct metric *takeovers, *handovers, *fenced, *owned_gauge, *offset_gauge, *skewed_gauge, *zones_gauge,
      *alive_gauge, *unowned_gauge;
};

static inline usec_t cluster_mono(void) { return clock_system.mono(&clock_system); }

/* look.c: read nodes and shards, release what is quiet, claim and hand over what the plan says. */
int cluster_look_now(struct cluster *c, struct err *e);
/* cluster.c */
int cluster_join(struct cluster *c, struct err *e);
void cluster_lose_all(struct cluster *c);
void cluster_forget_fenced(struct cluster *c, int32_t shard);
struct owned cluster_owned_as(struct cluster *c, int32_t shard);
void cluster_take(struct cluster *c, const struct shard_row *s);
void cluster_forget_handed(struct cluster *c, const int32_t *ids, size_t n);
