#pragma once
/* Executor groups as the label "group" of metrics. Each gets a number, in the order in which they are seen, for the life of the process; those
 * beyond the bound share number 0, "_other". Thread-safe. */
#include "base/str.h"

#define METRIC_GROUPS_MAX  400 /* a family has at most 5,000 series */
#define METRIC_GROUP_OTHER 0

/* How many get a number of their own, at most METRIC_GROUPS_MAX: 200 unless said, before the first is seen. */
void metric_groups_bound(int bound);
/* The number of "ns/group", at most METRIC_GROUPS_MAX. */
int metric_group(struct slice ns, struct slice group);
/* A module makes its series of a group when the group is seen, so that increase() sees the first event: `made` is called here and now for
 * "_other" and those seen already, and for each new one before anybody gets its number; one call at a time. */
void metric_groups_hook(void (*made)(void *arg, int number, const char *name), void *arg);
void metric_groups_unhook(void *arg);
