#pragma once
/* The ended runs of a task, added up. Private to src/store. */
#include "store/store.h"

#define TASK_TOTALS 11
struct task_totals { /* TASK_TOTALS numbers, in the order in which the statements give them */
  int64_t success, fail, cancelled, skipped, attempts, durations, duration_sum, duration_max;
  usec_t last_scheduled_at, last_started_at, last_finished_at;
};
_Static_assert(sizeof(struct task_totals) == TASK_TOTALS * sizeof(int64_t), "numbers of one size");

static inline int64_t task_totals_max(int64_t a, int64_t b) { return a > b ? a : b; }

static inline void task_totals_add(struct task_totals *t, const struct task_totals *more) {
  t->success += more->success;
  t->fail += more->fail;
  t->cancelled += more->cancelled;
  t->skipped += more->skipped;
  t->attempts += more->attempts;
  t->durations += more->durations;
  t->duration_sum += more->duration_sum;
  t->duration_max = task_totals_max(t->duration_max, more->duration_max);
  t->last_scheduled_at = task_totals_max(t->last_scheduled_at, more->last_scheduled_at);
  t->last_started_at = task_totals_max(t->last_started_at, more->last_started_at);
  t->last_finished_at = task_totals_max(t->last_finished_at, more->last_finished_at);
}

static inline void task_totals_give(const struct task_totals *t, struct st_task_stats_ret *ret) {
  *ret = (struct st_task_stats_ret){.fires = t->success + t->fail + t->cancelled,
                                    .success = t->success,
                                    .fail = t->fail,
                                    .cancelled = t->cancelled,
                                    .skipped = t->skipped,
                                    .attempts = t->attempts,
                                    .mean_duration = t->durations ? t->duration_sum / t->durations : 0,
                                    .max_duration = t->duration_max,
                                    .last_scheduled_at = t->last_scheduled_at,
                                    .last_started_at = t->last_started_at,
                                    .last_finished_at = t->last_finished_at,
                                    .last_state = -1};
}
