#pragma once
/* Private to core/shard_collect.c and core/shard_catchup.c: the batch that is being made. */
#include "core/shard_task.h"

struct collect { /* what the steps of one shard_collect share */
  struct shard *s;
  usec_t now;
  const struct shard_overlap *overlap;
  struct fire_batch *b;
  size_t walked; /* instants looked at for catch-ups on request */
};

/* A row for an instant of this version; valid until the next one is added. */
struct fire_item *collect_add(struct collect *c, const struct sched_task *t, const struct sched_version *v,
                              usec_t nominal);
void collect_touch(struct collect *c, struct sched_task *t);
/* Start, queue or skip (false) a run that is due, by the task's overlap policy. */
bool collect_place(struct collect *c, struct fire_item *i, enum overlap_policy policy);
/* FIRE_ALL: a run of its own that waits for its release. */
void collect_caught_up(struct collect *c, struct sched_task *t, const struct sched_version *v,
                       usec_t nominal);
/* FIXED_DELAY and max_runs keep a row: what this instant adds to it. */
void collect_progress(struct collect *c, struct sched_task *t, const struct sched_version *v, bool skipped);
void collect_backfill(struct collect *c, const struct fire_request *r, struct sched_task *t);
/* The instants that passed while the task was paused, at most its catch-up window of them. False: not all of them have been looked at
 * or are in the batch yet; come again with the next one. */
bool collect_catch_up(struct collect *c, const struct fire_request *r, struct sched_task *t);
