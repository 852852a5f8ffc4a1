#pragma once
/* Shared by zone.c, zone_tzif.c and zone_posix.c only. */
#include "core/zone.h"
#include <stdatomic.h>

/* After 400 years the Gregorian calendar, weekdays included, repeats: so one such period of the footer rule
 * is all there is. */
#define ZONE_PERIOD_SEC ((int64_t)146097 * 86400)

/* Span i is [at[i-1], at[i]) with offset[i]; n changes, n + 1 spans. Neighbours differ in offset. */
struct zone {
  atomic_int refs;
  char name[ZONE_NAME_MAX + 1];
  int64_t *at;
  int32_t *offset;
  uint32_t n, cap;
  int64_t period_end; /* the table repeats with ZONE_PERIOD_SEC from period_end - ZONE_PERIOD_SEC on;
                         INT64_MAX: it does not */
  uint64_t digest;
};

struct zone *zone_new(struct slice name, int32_t first_offset);
/* Append a change; `at` must be later than the last one. The same offset again is left out. */
void zone_add(struct zone *z, int64_t at, int32_t offset);
void zone_seal(struct zone *z); /* computes the digest: the last step of building */

/* Apply the TZ string of the footer (POSIX.1 with the extensions of RFC 9636: hours -167…167, <…> names)
 * after `last`, the instant of the file's last transition (INT64_MIN = it has none). -1 when it is not one,
 * else 0. */
int zone_posix_extend(struct zone *z, struct slice tz, int64_t last);
