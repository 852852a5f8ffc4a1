#pragma once
/* Time: one unit inside (microseconds), an injected clock, RFC 3339 and durations at the edge. */
#include "base/err.h"
#include "base/str.h"
#include <stdint.h>

typedef int64_t usec_t; /* an instant: µs since 1970-01-01T00:00:00Z; or a length: µs */

#define USEC_PER_MS   ((usec_t)1000)
#define USEC_PER_SEC  ((usec_t)1000000)
#define USEC_PER_MIN  (60 * USEC_PER_SEC)
#define USEC_PER_HOUR (3600 * USEC_PER_SEC)
#define USEC_PER_DAY  (86400 * USEC_PER_SEC)
#define USEC_NEVER    INT64_MAX   /* "no such instant" */
#define USEC_NONE     ((usec_t)0) /* "not set", where 1970 itself cannot occur */

/* The only way to ask for the time outside base. Thread-safe. */
struct clock {
  usec_t (*wall)(const struct clock *); /* realtime: for logs and as the database-time seed */
  usec_t (*mono)(const struct clock *); /* monotonic: for waits and time-outs */
};
extern const struct clock clock_system;

/* "2026-11-23T04:46:10Z", "…+08:00", fraction of 1–6 digits. Years 1970–9999. */
int time_parse_rfc3339(struct slice text, usec_t *ret, struct err *e);
/* Always UTC with "Z"; 3 digits of fraction when whole ms, 6 otherwise, none when whole seconds.
 * `buf` of at least TIME_TEXT_MAX. Returns buf. */
#define TIME_TEXT_MAX 40
char *time_format(usec_t t, char *buf);
/* The same instant with an offset: "2026-03-29T03:00:00+02:00". */
char *time_format_offset(usec_t t, int offset_seconds, char *buf);

/* "1500ms", "30s", "5m", "2h", "7d", "250us"; one number and one unit, or a sum ("1h30m").
 * Between `min` and `max` inclusive. */
int duration_parse(struct slice text, usec_t min, usec_t max, usec_t *ret, struct err *e);
/* Shortest text that parses back to the same value. `buf` of at least TIME_TEXT_MAX. */
char *duration_format(usec_t d, char *buf);

/* Proleptic Gregorian calendar, no zone (Howard Hinnant's public-domain algorithms, days_from_civil). */
int64_t days_from_civil(int64_t year, int month, int day);
void civil_from_days(int64_t days, int64_t *ret_year, int *ret_month, int *ret_day);
int weekday_from_days(int64_t days); /* 0 = Sunday */
bool year_is_leap(int64_t year);
int month_length(int64_t year, int month);
