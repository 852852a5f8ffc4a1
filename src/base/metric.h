#pragma once
/* Counters, gauges and histograms, registered by the module that counts, read by monitor/exposition.
 * Families and series are created at start (every known label value, so that increase() sees the first event)
 * and live as long as the process. Updates are lock-free atomics; creating a series takes a lock. */
#include "base/str.h"
#include <stdint.h>

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };
struct metric_family;
struct metric; /* one series */

/* `labels`: comma-separated names ("group,reason") or "". `buckets`: upper bounds in seconds, 0-terminated;
 * NULL for counters and gauges. Registering the same name twice returns the same family. */
struct metric_family *metric_family(const char *name, const char *help, enum metric_kind kind,
                                    const char *labels, const double *buckets);
/* The series with these label values (as many as label names; NULL-terminated list). At most 5,000 series a
 * family; beyond, the first label becomes "_other". Never NULL. */
struct metric *metric_series(struct metric_family *f, ...) __attribute__((sentinel));
void metric_add(struct metric *m, int64_t n);
void metric_set(struct metric *m, double v);
void metric_observe_usec(struct metric *m, int64_t usec); /* histogram in seconds */
double metric_value(const struct metric *m);              /* counter or gauge; histogram: count */
/* Prometheus text format 0.0.4 of everything. */
void metric_render(struct str *out);
/* Called before each render: gauges that are computed on demand. */
void metric_collector(void (*collect)(void *), void *arg);
