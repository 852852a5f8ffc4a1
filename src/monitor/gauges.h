#pragma once
/* Gauges that are computed when somebody looks: open runs, executors, the process itself. Counters and histograms are kept where
 * the thing happens (base/metric.h). One node in a process. */
struct registry;
struct run_service;
void monitor_gauges(struct run_service *runs, struct registry *registry, const char *version);
/* The services are about to go: no more looks at them. */
void monitor_stop(void);
