#pragma once
/* Cron expressions in two dialects, as sets of bits. Plain data (one borrowed pointer), immutable after parsing, works
 * in local seconds (core/zone.h): what happens at a change of offset is core/dst's affair. Pure.
 *
 * QUARTZ: 6 or 7 fields: second minute hour day-of-month month day-of-week [year]; Sunday = 1. Exactly one of
 * the two day fields is ?.
 * - Everywhere: * a a-b a,b, steps "/n" after *, a or a-b, ranges that wrap around (22-3, FRI-MON; years do
 *   not), names JAN…DEC and SUN…SAT wherever a number may stand.
 * - day-of-month: L (last), L-n (n before it, 0…30), nW (weekday nearest to n, never leaving the month), LW,
 *   L-nW; day-of-week: L (Saturday), nL (last n of the month), n#k (k-th n, 1…5). All may stand in lists.
 * - A day that a month does not have (31, L-30, 31W) is not due in that month.
 *
 * UNIX (cronie): 5 fields: minute hour day-of-month month day-of-week; Sunday = 0 or 7; ranges must ascend, a
 * step needs * or a range. Both day fields set: either suffices; a field that starts with * is not "set":
 * then both must match.
 *
 * Both: the macros @yearly @annually @monthly @weekly @daily @midnight @hourly; letters in any case; years
 * 1970–2199. Work is bounded: no search looks at more than 2,760 months. */
#include "base/err.h"
#include "base/str.h"
#include <stdint.h>

#define CRON_TEXT_MAX   512 /* longest expression in bytes */
#define CRON_FIRST_YEAR 1970
#define CRON_LAST_YEAR  2199
#define CRON_NEVER      INT64_MAX

enum cron_dialect { CRON_AUTO, CRON_QUARTZ, CRON_UNIX, CRON_DIALECT_MAX_ };
extern const char *const cron_dialect_names[]; /* "AUTO" (by the number of fields), "QUARTZ", "UNIX", NULL */

/* Bit n = value n unless said otherwise. */
struct cron {
  uint64_t seconds, minutes;
  uint64_t years[4]; /* bit 0 = 1970 */
  uint32_t hours;
  uint32_t days;                 /* 1…31 */
  uint32_t last_days;            /* bit n = L-n */
  uint32_t workdays;             /* bit n = nW */
  uint32_t last_workdays;        /* bit n = L-nW */
  uint16_t months;               /* 1…12 */
  uint8_t weekdays;              /* bit 0 = Sunday, in both dialects */
  uint8_t last_weekdays;         /* nL */
  uint8_t nth[5];                /* n#k: weekdays in nth[k - 1] */
  uint8_t dialect;               /* CRON_QUARTZ or CRON_UNIX */
  bool either_day;               /* UNIX with both day fields set: one of them suffices */
  bool every_day, every_weekday; /* the field says nothing: * or ? */
  const int32_t *extra;          /* days since 1970, ascending, whose day fields count as matched; borrowed */
  size_t extra_count;
};

/* ERR_INVALID or ERR_NEVER_FIRES (e.g. 30 February); e->column is the 1-based place in `text`, e->text says
 * what was expected. */
int cron_parse(struct slice text, enum cron_dialect dialect, struct cron *ret, struct err *e);

/* The first local second >= `from` that matches; CRON_NEVER after 2199. */
int64_t cron_next(const struct cron *c, int64_t from);
bool cron_matches(const struct cron *c, int64_t local_sec);
/* The fields of an expression; both day fields count as one, since either may suffice. */
enum cron_field { CRON_SECOND, CRON_MINUTE, CRON_HOUR, CRON_DAY, CRON_MONTH, CRON_YEAR, CRON_FIELD_MAX_ };
extern const char *const cron_field_names[]; /* "second", … NULL */
/* Those that a local second does not fit, as bits 1 << CRON_…; 0: it matches. */
unsigned cron_mismatch(const struct cron *c, int64_t local_sec);
/* The days of a month that match, bit n = day n; without the extra ones, as cron_shortest. */
uint32_t cron_days(const struct cron *c, int year, int month);

/* The least distance in seconds between two matching local seconds (exact, from the bits; changes of offset
 * are left aside); CRON_NEVER when there is only one. */
int64_t cron_shortest(const struct cron *c);

enum cron_lang { CRON_EN, CRON_ZH, CRON_LANG_MAX_ };
extern const char *const cron_lang_names[]; /* "en", "zh", NULL */
/* In words: "at 02:30 every Monday" / "每周一 02:30". Appends to `out`. */
void cron_explain(const struct cron *c, enum cron_lang lang, struct str *out);
/* What of a local second does not fit: "second 30 is not in 0, hour 3 is not in 9 to 17". Appends to `out`; nothing when it matches. */
void cron_mismatch_words(const struct cron *c, int64_t local_sec, enum cron_lang lang, struct str *out);
