#include "monitor/gauges.h"
#include "base/metric.h"
#include "base/thread.h"
#include "executor/registry.h"
#include "run/run.h"

static struct {
  pthread_mutex_t lock; /* guards the rest */
  bool made;
  struct run_service *runs;
  struct registry *registry;
  struct metric *inflight[3], *executors[EXECUTOR_STATE_MAX_];
} gauges = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void collect(void *arg) {
  (void)arg;
  pthread_mutex_lock(&gauges.lock);
  if (gauges.runs) {
    int64_t counts[3], by_state[EXECUTOR_STATE_MAX_];
    run_counts(gauges.runs, counts);
    for (int i = 0; i < 3; i++)
      metric_set(gauges.inflight[i], (double)counts[i]);
    registry_counts(gauges.registry, by_state);
    for (int i = 0; i < EXECUTOR_STATE_MAX_; i++)
      metric_set(gauges.executors[i], (double)by_state[i]);
  }
  pthread_mutex_unlock(&gauges.lock);
}

void monitor_gauges(struct run_service *runs, struct registry *registry) {
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
  f = metric_family("kelou_executors", "Executor instances by state", METRIC_GAUGE, "state", NULL);
  for (int i = 0; i < EXECUTOR_STATE_MAX_; i++)
    gauges.executors[i] = metric_series(f, executor_state_names[i], NULL);
  pthread_mutex_unlock(&gauges.lock);
  if (first)
    metric_collector(collect, NULL);
}

void monitor_stop(void) {
  pthread_mutex_lock(&gauges.lock);
  gauges.runs = NULL;
  gauges.registry = NULL;
  pthread_mutex_unlock(&gauges.lock);
}
