#pragma once
/* What the people asked for, version by version, and the instants that follow from it by counting seconds: nothing of core is used here but
 * the hash that spreads jitter. */
#include "sim.h"

#define SIM_JITTER_MAX (20 * USEC_PER_SEC)
struct sim_plan {
  enum schedule_kind kind;
  usec_t every, anchor, start_at, end_at, jitter; /* 0: none */
  uint64_t seconds, minutes;                      /* CRON: bits */
  int64_t max_runs;
  enum misfire_policy misfire;
  usec_t threshold, window;
  int64_t catchup_max;
  double catchup_rate;
  enum overlap_policy overlap;
  int64_t max_concurrent; /* 0: not given */
  int group;              /* sim_groups */
  int priority;
  int32_t max_attempts;
  usec_t timeout, heartbeat;
};
struct sim_task {
  int64_t id;
  int32_t shard;
  struct sim_plan *plans; /* [version - 1] */
  size_t count, cap;
  bool deleted;
};
struct sim_catch_up { /* asked for with a resume */
  int64_t task_id;
  int32_t version; /* made by that resume */
  usec_t from, to;
};
struct sim_people {
  struct store *db;
  struct sim_task *tasks;
  size_t count, cap;
  struct sim_catch_up *catch_ups;
  size_t catch_up_count, catch_up_cap;
  struct run_key *ignoring; /* triggers that ignore overlap */
  size_t ignoring_count, ignoring_cap;
  struct run_key *triggers; /* acknowledged */
  size_t trigger_count, trigger_cap;
};
extern struct sim_people sim_people;
/* Executor groups with the bounds of each node; the first one has none. All executors serve all of them. */
enum { SIM_GROUPS = 3 };
struct sim_group {
  const char *name;
  struct live_bound bound;
};
extern const struct sim_group sim_groups[SIM_GROUPS];
extern const struct live_bound sim_namespace_bound;
const struct sim_group *sim_group_of(const struct run_key *key);
struct sim_task *sim_people_task(int64_t id);
const struct sim_plan *sim_plan_of(int64_t task_id, int32_t version);
/* The first nominal instant later than `after`; USEC_NEVER. For CRON, FIXED_RATE, ONE_TIME. */
usec_t sim_plan_next(const struct sim_plan *p, usec_t after);
usec_t sim_plan_due(const struct sim_plan *p, int64_t task_id, usec_t nominal);
/* sim_after.c: tasks that depend on those of the people (at least 4). */
void sim_after_new(struct store *db);
void sim_after_check(void);
