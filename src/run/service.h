#pragma once
/* Private to src/run. */
#include "base/queue.h"
#include "base/thread.h"
#include "base/metric.h"
#include "base/metric_group.h"
#include "run/run.h"
#include <stdatomic.h>

/* The people who wait for a post: one ticket for its n events. */
struct run_ticket {
  void (*done)(void *arg, const enum run_result *results, size_t n);
  void *arg;
  size_t count;
  _Atomic size_t left;
  enum run_result results[];
};
struct run_token { /* live_event.token */
  struct run_ticket *ticket;
  size_t index;
  int32_t shard;
};
struct run_msg { /* one queued event; texts follow in the same block */
  enum { RUN_MSG_EVENT, RUN_MSG_EXECUTOR_LOST } kind;
  struct live_event ev;
  int64_t inbox_no; /* EVENT: the row of the inbox that it came by; 0 = none */
  uint64_t sends;   /* EXECUTOR_LOST: the deliveries that had begun when it was said */
  struct run_token token;
};

struct run_series { /* of an executor group */
  struct metric *ended[RUN_STATE_MAX_][REASON_MAX_], *duration, *wait;
};

struct run_service {
  struct run_options o;
  struct queue *queue;
  struct thread writer;
  _Atomic bool stopping;
  usec_t stop_at; /* monotonic; written before `stopping` */
  _Atomic usec_t
      failing_since; /* monotonic: the database has not taken a change since; 0: it took the last one */
  struct mutex lock; /* guards live, epochs, adopting, expected, closing, opened */
  struct live *live;
  int64_t *epochs; /* by shard; 0 = not ours */
  bool *adopting;  /* by shard: its open runs are still being read */
  bool *expected;  /* by shard: ours, and not even begun to be read */
  usec_t *
      closing; /* by shard: being handed over, at the latest then (monotonic); USEC_NEVER: lost; 0 = neither */
  bool *closed;            /* by shard: handed over with this turn (the writer's own) */
  struct mutex pause_lock; /* guards nothing: for the pause between two tries of a commit */
  struct cond pause;
  bool *lost;             /* by shard: fenced off in this turn (the writer's own) */
  int64_t *turn_epochs;   /* by shard: as they were when this turn's step was taken (the writer's own) */
  struct live_out opened; /* what run_opened and run_adopt bring out */
  /* the writer's own */
  struct live_out out;
  struct run_msg **batch;
  struct arena mem;
  struct inbox_row *inbox_done; /* of this turn */
  size_t inbox_count, inbox_cap;
  struct run_series *series[METRIC_GROUPS_MAX + 1]; /* by the group's number */
  struct metric *retries, *dead;
};

/* apply.c: commit the rows of s->out until the outcome is known. False: gave up (stopping). */
bool run_commit(struct run_service *s);
/* Another owner has the shard, or what we know of it is void: nothing of this turn counts for it. */
void run_note_taken(struct run_service *s, int rc); /* whether the database takes changes: run_failing */
void run_step_down(struct run_service *s, int32_t shard);
/* Wait before the next try, longer each time. False: the service is stopping and its grace is over. */
bool run_pause(struct run_service *s, usec_t *wait);
/* poison.c: the database refuses this transaction for what is in it. Write all that can be written, run by run if need be; false: stopping. */
bool run_commit_apart(struct run_service *s, const struct st_run_apply *all);
/* jobs.c: copy deliveries under the lock, but those of shards whose epoch has moved since `epochs` were read. */
struct run_job *run_jobs_of(struct run_service *s, const struct live_out *out, const int64_t *epochs);
/* hand_over.c: with the lock, in a step: which shards are ready to go, and what is to be written for that. `all`: no event waits. */
void run_close_step(struct run_service *s, bool all, usec_t now);
/* With the lock: how long the writer may wait for the answers of shards that go. */
usec_t run_close_wait(const struct run_service *s, usec_t wait);
/* After the commit. */
void run_close_finish(struct run_service *s);
/* With the lock: nothing of this shard is known any more; what it held comes out in `opened`. */
void run_forget_shard(struct run_service *s, int32_t shard);
/* calls.c: deliver and release what is in `opened`; gives the lock back. */
void run_unlock_and_deliver(struct run_service *s);
/* calls.c: with the lock: may what is bounded start? */
void run_hold_or_not(struct run_service *s);
void run_wake_writer(struct run_service *s);
void run_answer(struct run_token *t, enum run_result r);
