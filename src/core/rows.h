#pragma once
/* The rows of run state, as the core decides them and every store keeps them (storage.md "Tables"). Plain data;
 * slices are borrowed, p == NULL is SQL NULL. */
#include "core/model.h"

struct fence_row { /* of FIRE (epoch in shard) or of every other write of run state (epoch in shard_finish) */
  int32_t shard;
  int64_t epoch;
};
/* Who may have a run, as its caller said, is one text: the id of an instance, or '#' (which no id has) and a routing key. */
#define PIN_KEY '#'
static inline struct slice pin_key(struct slice pin) {
  return pin.n && *pin.p == PIN_KEY ? slice_n(pin.p + 1, pin.n - 1) : (struct slice){0};
}
static inline struct slice pin_executor(struct slice pin) {
  return pin.n && *pin.p == PIN_KEY ? (struct slice){0} : pin;
}
/* Open or ended run. Slices with p == NULL are SQL NULL. */
struct run_row {
  struct run_key key;
  int32_t version; /* of the task */
  enum run_state state;
  enum run_reason reason;
  enum run_origin origin;
  int32_t attempt;                /* 1-based; 0 before the first delivery is decided */
  usec_t fired_at;                /* decided */
  usec_t not_before;              /* QUEUED/SCHEDULED/RETRY_WAIT: release not before this; 0 = none */
  usec_t attempt_at;              /* the current attempt's dispatch; 0 = none yet */
  usec_t started_at, finished_at; /* 0 = not yet */
  usec_t missed_first;     /* folded range of missed instants: first (last = scheduled_at); 0 = no range */
  int64_t missed_count;    /* instants in the range, incl. this one; 0 or 1 = no range */
  struct slice executor;   /* instance id it was given to */
  int64_t incarnation;     /* … and which registration of it; 0 = not known, or ended */
  struct slice pin;        /* what the caller says of the executor: pin_executor, pin_key */
  struct slice payload;    /* overrides the task's */
  struct slice origin_run; /* retry_of: the ended run's id */
  struct slice result, error_type, error_message, error_detail; /* of the last attempt */
  double progress;                                              /* 0…1, <0 = unknown */
};
struct attempt_row {
  struct run_key key;
  int32_t attempt;
  enum run_state state;
  enum run_reason reason;
  usec_t dispatched_at, started_at, finished_at;
  struct slice executor, error_type, error_message;
};
/* FIXED_DELAY and max_runs only: a narrow row per such task, written with the FIRE or the FINISH that changes it.
 * As input: a negative base_at or fired leaves the stored value (0 when there is no row yet), and so does a base_at before the stored one:
 * a FINISH whose answer was given up may be carried out late, when the next run has ended already. */
struct progress_row {
  int64_t task_id;
  int32_t shard;
  usec_t base_at; /* FIXED_DELAY: the end of the last scheduled run */
  int64_t fired;  /* scheduled fires so far (max_runs) */
};
/* One change of an open run, compare-and-set on (key, attempt, state and reason as seen): these four never come back in a run's life but
 * for PROGRESS, so that a change whose answer was given up, and that is carried out late, finds nothing to change. */
struct run_update {
  struct run_key key;
  int32_t seen_attempt;
  enum run_state seen_state;
  enum run_reason seen_reason;
  enum run_state state;
  enum run_reason reason;
  int32_t attempt;
  usec_t not_before, attempt_at, started_at;
  struct slice executor, error_type, error_message;
  int64_t incarnation; /* of `executor`; 0 = not known */
  double progress;
};
/* The end of an open run, compare-and-set on (key, attempt): row moves to run_history. */
struct run_finish {
  struct run_key key;
  int32_t seen_attempt;
  enum run_state state;
  enum run_reason reason;
  usec_t attempt_at, started_at, finished_at;
  struct slice executor, result, error_type, error_message, error_detail;
};
