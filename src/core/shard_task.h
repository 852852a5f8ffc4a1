#pragma once
/* Private to core/shard*.c: the shard, a task's versions and its next instant. */
#include "core/calq.h"
#include "core/shard.h"
#include <uthash.h>

struct sched_version {
  struct sched_version *next; /* later version, waiting for the watermark to reach its effective_at */
  struct task_spec *spec;
  usec_t effective_at, anchor;
  usec_t
      waiting; /* an instant not later than effective_at that is still to be decided, by this version; 0 = none */
  int32_t version;
  uint8_t state;
};
/* What only some tasks need: FIXED_DELAY, max_runs, a catch-up in progress. */
struct sched_extra {
  usec_t base_pending;                /* with the unsettled batch; 0 = as base_at */
  usec_t base_at;                     /* FIXED_DELAY: end of the last scheduled run */
  int64_t fired, fired_pending;       /* max_runs: committed; with the unsettled batch */
  bool open, open_pending;            /* FIXED_DELAY: a scheduled run has not ended */
  int64_t caught_up, caught_up_kept;  /* runs given to the present catch-up; as committed */
  usec_t release_at, release_at_kept; /* when the next caught-up run may start; as committed */
  size_t fold_row, progress_row;      /* 1 + index in the unsettled batch; 0 = none */
  struct sched_walk *walk;            /* a catch-up on request (shard_catchup.c); NULL = none */
};
struct sched_task {
  int64_t id;
  struct sched_version first; /* the oldest version that still owns instants beyond the watermark */
  struct sched_version *cur;  /* whose instant is armed */
  struct sched_extra *x;
  usec_t due, nominal; /* armed; due == USEC_NEVER: none */
  uint32_t queued;     /* entries in the calendar queue, stale ones included */
  bool dead;           /* deleted: freed when its last entry is popped */
  bool touched;        /* by the unsettled batch */
  UT_hash_handle hh;
};

/* The task's first instant beyond the pair (at, task): sets due, nominal and cur, does not queue. From the current version on,
 * or from the first one (`from_first`). */
void sched_next(struct sched_task *t, usec_t at, int64_t at_task, bool from_first);
struct sched_extra *sched_extra(struct sched_task *t); /* made on demand */
/* In its place among the versions, in any order; one that is there already is dropped. What the versions hand on is known when those
 * before them are. */
void sched_insert(struct sched_task *t, const struct shard_version *v);
/* When an instant that this version has is due: with its jitter, but not before it rules. */
usec_t sched_due(const struct sched_task *t, const struct sched_version *v, usec_t nominal);
/* Forget versions that own no instant beyond the watermark any more. */
void sched_trim(struct sched_task *t, usec_t watermark);
void sched_task_free(struct sched_task *t);
/* Its max_runs is reached, with the unsettled batch. */
bool sched_used_up(const struct sched_task *t, const struct sched_version *v);
void sched_walk_free(struct sched_walk **w);
/* The batch is settled: what had its rows in it is over, or comes again. */
void sched_walk_settle(struct sched_extra *x, bool fired);
const struct sched_version *sched_last(const struct sched_task *t); /* the newest version */
/* No instant will ever come (ENABLED, not MANUAL, nothing waiting). */
bool sched_is_complete(const struct sched_task *t);

/* The progress of a task that was not loaded (COMPLETED, or PAUSED for long): it counts on when a change brings the task back. */
struct sched_orphan {
  int64_t task_id;
  usec_t base_at;
  int64_t fired;
  bool open;
  UT_hash_handle hh;
};
struct sched_done {
  int64_t task_id;
  int32_t version;
};
struct shard {
  int32_t id;
  struct shard_limits limits;
  int64_t epoch, tasks_version;
  usec_t at; /* the watermark pair */
  int64_t at_task;
  struct sched_task *tasks;     /* hash by id */
  struct sched_orphan *orphans; /* hash by task_id */
  struct calq *queue;
  struct sched_task **touched; /* by the unsettled batch */
  size_t touched_count, touched_cap;
  struct sched_done *completed; /* no instant left, all committed */
  size_t completed_count, completed_cap;
  int64_t *waiting; /* ids of tasks with a later version whose time has not come */
  size_t waiting_count, waiting_cap;
  struct shard_version found; /* shard_find's answer */
};

struct sched_task *sched_find(struct shard *s, int64_t task_id);
/* Put the armed instant into the queue. */
void sched_queue(struct shard *s, struct sched_task *t);
/* Compute the next instant beyond the watermark and queue it, unless the armed one stays. */
void sched_arm(struct shard *s, struct sched_task *t, bool from_first);
/* Pop a queue entry that is stale: true when it was. */
bool sched_pop_stale(struct shard *s, const struct calq_entry *e);
/* After the watermark moved: versions whose time has come, deleted tasks. */
void sched_settle_versions(struct shard *s);
/* Note a task that has no instant left. */
void sched_note_complete(struct shard *s, struct sched_task *t);
