#pragma once
/* Definitions of tasks for tests of core, in UTC (which needs no zone file). After cmocka.h. */
#include "core/spec_cache.h"
#include "core/zone_set.h"
#include <stdio.h>

static struct spec_cache *specs;
static struct zone_set *spec_zones;

static inline uint64_t spec_no_stamp(void *arg) {
  (void)arg;
  return 0;
}

static inline void specs_open(void) {
  spec_zones = zone_set_new(&(struct zone_source){.stamp = spec_no_stamp});
  specs = spec_cache_new(spec_zones, 50);
}

static inline void specs_close(void) {
  spec_cache_free(&specs);
  zone_set_free(&spec_zones);
}

/* `schedule`: the members of the schedule; `rest`: further members of the task, each with a comma before it. The caller's to drop. */
static inline struct task_spec *spec_of(const char *schedule, const char *rest) {
  char text[512];
  struct task_spec *s = NULL;
  struct err e = {0};
  (void)snprintf(text, sizeof text, "{\"executor_group\":\"g\",\"handler\":\"h\",\"schedule\":{%s}%s}",
                 schedule, rest);
  if (spec_cache_get(specs, slice_of(text), &s, &e) < 0)
    fail_msg("%s %s", e.field, e.text);
  return s;
}

#define MANUAL      "\"kind\":\"MANUAL\""
#define EVERY(text) "\"kind\":\"FIXED_RATE\",\"every\":\"" text "\""
#define DELAY(text) "\"kind\":\"FIXED_DELAY\",\"every\":\"" text "\""
