#pragma once
/* For the tests of zones and schedules: the zones of this machine. */
#include "base/file.h"
#include "core/zone_set.h"

#define TEST_ZONEINFO "/usr/share/zoneinfo"

static inline int test_read_zone(void *arg, const char *name, struct str *out, struct err *e) {
  (void)arg;
  return file_read_below(TEST_ZONEINFO, name, ZONE_FILE_MAX, out, e);
}

static inline uint64_t test_zone_stamp(void *arg) {
  (void)arg;
  return 1;
}

static inline struct zone_set *test_zones(void) {
  const struct zone_source source = {test_read_zone, test_zone_stamp, NULL};
  return zone_set_new(&source);
}
