#include "monitor/gauges.h"
#include "base/metric.h"
#include "base/metric_group.h"
#include "base/thread.h"
#include "executor/registry.h"
#include "monitor/process.h"
#include "run/run.h"
#include <stdio.h>

enum { NAME_MAX_BYTES = 260 };
enum { SLOTS_TOTAL, SLOTS_USED, SLOTS_KINDS };
static const char *const slot_kinds[] = {"total", "used"};
static const char other[] = "_other";

static struct {
  pthread_mutex_t lock; /* guards the rest */
  bool made;
  struct run_service *runs;
  struct registry *registry;
  struct metric *inflight[3], *oldest[3], *queued[WAIT_MAX_];
  struct metric_family *executors, *slots, *breakers;
} gauges = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* What one look adds up, for the groups beyond the bound. */
struct look {
  int others;
  struct group_counts other;
};

static void set_group(const struct group_counts *c, const char *name) {
  const int64_t slots[SLOTS_KINDS] = {c->slots, c->taken};
  for (int i = 0; i < EXECUTOR_STATE_MAX_; i++)
    metric_set(metric_series(gauges.executors, name, executor_state_names[i], NULL), (double)c->by_state[i]);
  for (int i = 0; i < BREAKER_STATE_MAX_; i++)
    metric_set(metric_series(gauges.breakers, name, breaker_state_names[i], NULL), (double)c->by_breaker[i]);
  for (int i = 0; i < SLOTS_KINDS; i++)
    metric_set(metric_series(gauges.slots, name, slot_kinds[i], NULL), (double)slots[i]);
}

static void on_group(void *arg, const struct group_counts *c) {
  struct look *l = arg;
  if (metric_group(slice_of(c->ns), slice_of(c->group)) != METRIC_GROUP_OTHER) {
    char name[NAME_MAX_BYTES];
    (void)snprintf(name, sizeof name, "%s/%s", c->ns, c->group); /* both are bounded: it fits */
    set_group(c, name);
    return;
  }
  l->others++;
  for (int i = 0; i < EXECUTOR_STATE_MAX_; i++)
    l->other.by_state[i] += c->by_state[i];
  for (int i = 0; i < BREAKER_STATE_MAX_; i++)
    l->other.by_breaker[i] += c->by_breaker[i];
  l->other.slots += c->slots;
  l->other.taken += c->taken;
}

static void collect(void *arg) {
  struct look l = {0};
  (void)arg;
  pthread_mutex_lock(&gauges.lock);
  if (gauges.runs) {
    int64_t counts[3];
    usec_t ages[3];
    run_counts(gauges.runs, counts, ages);
    for (int i = 0; i < 3; i++) {
      metric_set(gauges.inflight[i], (double)counts[i]);
      metric_set(gauges.oldest[i], (double)ages[i] / USEC_PER_SEC);
    }
    int64_t waits[WAIT_MAX_];
    run_count_waits(gauges.runs, waits);
    for (int i = WAIT_TASK; i < WAIT_MAX_; i++)
      metric_set(gauges.queued[i], (double)waits[i]);
    registry_counts(gauges.registry, on_group, &l);
    if (l.others)
      set_group(&l.other, other);
  }
  pthread_mutex_unlock(&gauges.lock);
}

void monitor_gauges(struct run_service *runs, struct registry *registry, const char *version) {
  static const char *const states[] = {"pending", "dispatched", "running"};
  pthread_mutex_lock(&gauges.lock);
  bool first = !gauges.made;
  gauges.made = true;
  gauges.runs = runs;
  gauges.registry = registry;
  struct metric_family *f =
      metric_family("kelou_runs_inflight", "Open runs by state", METRIC_GAUGE, "state", NULL);
  for (int i = 0; i < 3; i++)
    gauges.inflight[i] = metric_series(f, states[i], NULL);
  f = metric_family("kelou_run_oldest_age_seconds", "Since when the oldest open run of a state was fired",
                    METRIC_GAUGE, "state", NULL);
  for (int i = 0; i < 3; i++)
    gauges.oldest[i] = metric_series(f, states[i], NULL);
  f = metric_family("kelou_runs_queued", "QUEUED runs by what they wait for", METRIC_GAUGE, "cause", NULL);
  for (int i = WAIT_TASK; i < WAIT_MAX_; i++)
    gauges.queued[i] = metric_series(f, run_wait_names[i], NULL);
  gauges.executors = metric_family("kelou_executors", "Executor instances by group and state", METRIC_GAUGE,
                                   "group,state", NULL);
  gauges.breakers =
      metric_family("kelou_executor_breakers", "Live executors by group and the state of their breaker",
                    METRIC_GAUGE, "group,state", NULL);
  gauges.slots =
      metric_family("kelou_executor_slots", "Slots of live executors, and those that this node has taken",
                    METRIC_GAUGE, "group,kind", NULL);
  pthread_mutex_unlock(&gauges.lock);
  if (first) {
    metric_collector(collect, NULL);
    monitor_process(version);
  }
}

void monitor_stop(void) {
  pthread_mutex_lock(&gauges.lock);
  gauges.runs = NULL;
  gauges.registry = NULL;
  pthread_mutex_unlock(&gauges.lock);
}
