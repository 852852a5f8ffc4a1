#include "core/zone_internal.h"
#include "base/mem.h"

#define LAST_YEAR_MAX 9999 /* a table that goes on beyond is nonsense */

/* The TZ string of POSIX.1 as RFC 9636, section 3.3 uses it: std offset [dst [offset] , start [/time] , end
 * [/time]]. */

enum rule_kind { RULE_JULIAN_NO_LEAP, RULE_DAY_OF_YEAR, RULE_WEEKDAY_OF_MONTH };
struct rule {
  enum rule_kind kind;
  int day;         /* Jn: 1…365; n: 0…365; M: weekday, 0 = Sunday */
  int month, week; /* M only; week 5 = the last */
  int32_t time;    /* seconds after local midnight, may be negative or beyond the day */
};
struct posix_tz {
  int32_t std, dst; /* seconds east of UTC */
  bool has_dst;
  struct rule start, end;
};
struct reader {
  const char *p, *end;
  bool bad;
};

static bool next_is(struct reader *r, char c) {
  if (r->bad || r->p >= r->end || *r->p != c)
    return false;
  r->p++;
  return true;
}

static void want(struct reader *r, char c) {
  if (!next_is(r, c))
    r->bad = true;
}

static int number(struct reader *r, int min, int max) {
  int v = 0, digits = 0;
  for (; r->p < r->end && *r->p >= '0' && *r->p <= '9' && digits < 3; r->p++, digits++)
    v = v * 10 + (*r->p - '0');
  if (!digits || v < min || v > max)
    r->bad = true;
  return r->bad ? min : v;
}

static bool is_letter(char c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); }

static void abbreviation(struct reader *r) {
  const char *from = r->p;
  if (next_is(r, '<')) {
    while (r->p < r->end && *r->p != '>')
      r->p++;
    want(r, '>');
    return;
  }
  while (r->p < r->end && is_letter(*r->p))
    r->p++;
  if (r->p - from < 3)
    r->bad = true;
}

/* [+-]h[hh][:mm[:ss]] in seconds. */
static int32_t clock_time(struct reader *r, int max_hours) {
  bool minus = next_is(r, '-');
  if (!minus)
    (void)next_is(r, '+'); /* the sign may be left out */
  int32_t v = number(r, 0, max_hours) * 3600;
  if (next_is(r, ':')) {
    v += number(r, 0, 59) * 60;
    if (next_is(r, ':'))
      v += number(r, 0, 59);
  }
  return minus ? -v : v;
}

static struct rule read_rule(struct reader *r) {
  struct rule u = {.time = 2 * 3600};
  want(r, ',');
  if (next_is(r, 'J')) {
    u.kind = RULE_JULIAN_NO_LEAP;
    u.day = number(r, 1, 365);
  } else if (next_is(r, 'M')) {
    u.kind = RULE_WEEKDAY_OF_MONTH;
    u.month = number(r, 1, 12);
    want(r, '.');
    u.week = number(r, 1, 5);
    want(r, '.');
    u.day = number(r, 0, 6);
  } else {
    u.kind = RULE_DAY_OF_YEAR;
    u.day = number(r, 0, 365);
  }
  if (next_is(r, '/'))
    u.time = clock_time(r, 167);
  return u;
}

static int read_tz(struct slice text, struct posix_tz *ret) {
  struct reader r = {.p = text.p, .end = text.p + text.n};
  struct posix_tz tz = {0};
  abbreviation(&r);
  tz.std = -clock_time(&r, 24); /* POSIX counts west of Greenwich */
  if (!r.bad && r.p < r.end) {
    tz.has_dst = true;
    abbreviation(&r);
    tz.dst = tz.std + 3600;
    if (r.p < r.end && *r.p != ',')
      tz.dst = -clock_time(&r, 24);
    tz.start = read_rule(&r);
    tz.end = read_rule(&r);
  }
  if (r.bad || r.p != r.end || tz.std <= -ZONE_OFFSET_MAX || tz.dst >= ZONE_OFFSET_MAX)
    return -1;
  *ret = tz;
  return 0;
}

/* The rule's local second in a year. */
static int64_t rule_local(const struct rule *u, int64_t year) {
  int64_t day;
  if (u->kind == RULE_WEEKDAY_OF_MONTH) {
    int64_t first = days_from_civil(year, u->month, 1);
    int in_month = (u->day - weekday_from_days(first) + 7) % 7 + (u->week - 1) * 7;
    if (in_month >= month_length(year, u->month)) /* week 5 = the last one */
      in_month -= 7;
    day = first + in_month;
  } else {
    day = days_from_civil(year, 1, 1) + u->day;
    if (u->kind == RULE_JULIAN_NO_LEAP) /* day 60 is 1 March in every year */
      day += (u->day >= 60 && year_is_leap(year)) - 1;
  }
  return day * 86400 + u->time;
}

struct change {
  int64_t at;
  int32_t offset;
  bool is_start;
};

/* Rules may reach over the year's end, so the events of all years are put in order; of two at one instant
 * (daylight saving all year: it ends when it begins anew) the beginning counts. */
static bool later(const struct change *a, const struct change *b) {
  return a->at > b->at || (a->at == b->at && a->is_start && !b->is_start);
}

static void add_years(struct zone *z, const struct posix_tz *tz, int64_t first_year, int64_t last_year,
                      int64_t after) {
  size_t n = 0;
  auto_free struct change *all = mem_array((size_t)(last_year - first_year + 1) * 2, sizeof *all);
  for (int64_t year = first_year; year <= last_year; year++) {
    struct change pair[] = {{rule_local(&tz->start, year) - tz->std, tz->dst, true},
                            {rule_local(&tz->end, year) - tz->dst, tz->std, false}};
    for (int k = 0; k < 2; k++) { /* insertion: they are nearly in order */
      size_t i = n++;
      for (; i > 0 && later(&all[i - 1], &pair[k]); i--)
        all[i] = all[i - 1];
      all[i] = pair[k];
    }
  }
  for (size_t i = 0; i < n; i++)
    if (all[i].at > after && (i + 1 == n || all[i + 1].at != all[i].at))
      zone_add(z, all[i].at, all[i].offset);
}

static int64_t year_of(int64_t sec) {
  int64_t year, days = sec / 86400 - (sec % 86400 < 0);
  int month, day;
  civil_from_days(days, &year, &month, &day);
  return year;
}

int zone_posix_extend(struct zone *z, struct slice text, int64_t last) {
  struct posix_tz tz;
  if (read_tz(text, &tz) < 0)
    return -1;
  if (last == INT64_MIN)
    z->offset[0] = tz.std;
  if (!tz.has_dst)
    return 0;
  int64_t year = last > 0 ? year_of(last) : 1970;
  if (year > LAST_YEAR_MAX)
    return -1;
  add_years(z, &tz, year - 1, year + 404, last);
  /* two years on, nothing that the table said by itself is in sight any more */
  z->period_end = days_from_civil(year + 2, 1, 1) * 86400 + ZONE_PERIOD_SEC;
  return 0;
}
