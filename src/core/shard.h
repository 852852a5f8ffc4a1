#pragma once
/* A shard's decisions: which instants of which tasks are due, in which order, and what becomes of each (storage.md "Instants are
 * computed", semantics.md §3–§4). Pure: the driver (src/trigger, tests/sim) loads, fires and tells the outcome.
 *
 * The watermark is the pair (at, task): every (due, task id) up to it has been decided, nothing after it has. A batch is contiguous in
 * that order and is either committed whole (shard_fired) or forgotten whole (shard_refused: the same instants come again). */
#include "core/model.h"
#include "core/overlap.h"
#include "core/task_spec.h"

struct shard; /* not thread-safe: one owner */

/* One version of a task, as loaded or changed. */
struct shard_version {
  int64_t task_id;
  int32_t version;
  enum task_state state;
  usec_t effective_at; /* rules in (effective_at, the next version's effective_at] */
  usec_t anchor;       /* FIXED_RATE anchor, ONE_TIME run_at */
  struct task_spec
      *spec; /* taken over; NULL when it cannot be read (its zone vanished): then nothing is due */
};

/* What was decided for one instant (or a folded range of missed ones). */
struct fire_item {
  struct run_key key;
  int32_t version;
  struct task_spec *spec; /* borrowed: alive until the batch is settled */
  enum run_state state;   /* PENDING, or SKIPPED: straight to history */
  enum run_reason reason;
  enum run_origin origin;
  int32_t attempt;   /* 1 when it shall be delivered at once, else 0 */
  usec_t due;        /* nominal + jitter */
  usec_t not_before; /* caught-up runs: their release */
  usec_t missed_first;
  int64_t missed_count;
  const struct fire_request *request; /* made by the API; NULL for the schedule's own */
  bool on_request;                    /* of a catch-up that somebody asked for */
  bool present; /* said by the driver, at the latest after FIRE: a run with this key was there already */
};
/* A run asked for by people or services (core/inbox.h bodies, parsed). Borrowed. */
struct fire_request {
  struct run_key key; /* TRIGGER: the whole key; CATCHUP: task_id only */
  bool catch_up;      /* the instants of (from, to], by the misfire policy; they count for max_runs */
  usec_t from, to;
  int32_t version; /* … and this version resumed the task then; 0: not said */
  int64_t limit;   /* BACKFILL, when not 0: at most so many runs of the instants in [from, to], … */
  usec_t interval; /* … released so long after each other; key.part is that of all of them */
  bool ignore_overlap;
  usec_t not_before; /* TRIGGER, when not 0: released then, and waits for its turn as caught-up runs do */
  enum run_origin origin;
  struct slice payload, pin, origin_run; /* p == NULL: none */
  int64_t inbox_no;
};
struct fire_progress {
  int64_t task_id;
  usec_t base_at; /* -1 = unchanged */
  int64_t fired;  /* -1 = unchanged */
};
struct fire_batch { /* zeroed before first use; reused; fire_batch_done frees */
  int32_t shard;
  int64_t epoch, tasks_version;
  usec_t seen_at, new_at;
  int64_t seen_task, new_task;
  struct fire_item *items;
  size_t count, cap;
  struct fire_progress *progress;
  size_t progress_count, progress_cap;
  int64_t *inbox_done;
  size_t inbox_count, inbox_cap;
  size_t work; /* instants looked at */
};
void fire_batch_done(struct fire_batch *b);

struct shard_limits {
  size_t max_rows; /* rows of one FIRE: 5,000 */
  size_t max_work; /* instants looked at in one step, which holds the run lock (about 0.4 µs each): 10,000 */
  usec_t idle_advance; /* an idle shard moves its watermark at least so often: 10 s */
};
/* The driver's knowledge of open runs. `decide` also reserves: a START counts as active, a QUEUE as queued from then on. */
struct shard_overlap {
  enum overlap_decision (*decide)(void *arg, const struct overlap_ask *ask);
  void *arg;
};

struct shard *shard_new(int32_t id, const struct shard_limits *limits);
void shard_free(struct shard **s);
int32_t shard_id(const struct shard *s);
/* After claiming: forget all tasks, start from this stored state. */
void shard_reset(struct shard *s, int64_t epoch, int64_t tasks_version, usec_t fired_at, int64_t fired_task);
/* Loading: versions of tasks in any order, then progress; shard_loaded arms everything. */
void shard_put(struct shard *s, const struct shard_version *v);
/* base_at, fired as stored; `open`: a scheduled run of this task had not ended at a moment before base_at was read (once said, it stays
 * so until shard_delay_ended). */
void shard_put_progress(struct shard *s, int64_t task_id, usec_t base_at, int64_t fired, bool open);
void shard_loaded(struct shard *s);
/* A change read from the feed (not while a batch is unsettled); `change_no` is the shard's tasks_version that made it. */
void shard_change(struct shard *s, const struct shard_version *v, int64_t change_no);
/* What this version has taken over may be due at `at` or later: all versions that ruled after ret must be known, and what those need in
 * turn. USEC_NEVER: none. */
usec_t shard_needs_since(const struct shard_version *v, usec_t at);
/* Begin a catch-up on request while its versions are known: the one that it names, and that which began the pause (`paused`, 0: not known).
 * Once a request; else shard_collect does, with what the task still knows. */
void shard_begin_catch_up(struct shard *s, const struct fire_request *r, int32_t paused);
/* The scheduled run of a FIXED_DELAY task ended at `end`: its next instant is end + every. */
void shard_delay_ended(struct shard *s, int64_t task_id, usec_t end);

/* A catch-up on request of more instants than that is walked through in several steps: it stays among the requests until then.
 * Decide what is due at `now`. False: nothing to do (no FIRE needed). True: `ret` is the batch; settle it with exactly one of
 * shard_fired / shard_refused before the next call. `requests` (oldest first) join as long as rows are left. */
bool shard_collect(struct shard *s, usec_t now, const struct shard_overlap *overlap,
                   const struct fire_request *requests, size_t request_count, struct fire_batch *ret);
void shard_fired(struct shard *s, const struct fire_batch *b);
void shard_refused(struct shard *s, const struct fire_batch *b); /* the caller gives back its reservations */

usec_t shard_next_due(struct shard *s); /* of any task; USEC_NEVER */
void shard_watermark(const struct shard *s, usec_t *ret_at, int64_t *ret_task);
int64_t shard_tasks_version(const struct shard *s);
int64_t shard_epoch(const struct shard *s);
size_t shard_task_count(const struct shard *s);
/* Tasks that have no instant left, all of them committed: to be marked COMPLETED. Up to max; call until 0. */
size_t shard_take_completed(struct shard *s, int64_t *ret_ids, int32_t *ret_versions, size_t max);
/* The current definition of a task: NULL when unknown here. Borrowed until the next call on this shard. */
const struct shard_version *shard_find(struct shard *s, int64_t task_id);
