#include "core/cron.h"
#include "base/time.h"

#define DAY   86400
#define YEARS (CRON_LAST_YEAR - CRON_FIRST_YEAR + 1)

const char *const cron_dialect_names[] = {"AUTO", "QUARTZ", "UNIX", NULL};
const char *const cron_lang_names[] = {"en", "zh", NULL};
const char *const cron_field_names[] = {"second", "minute", "hour", "day", "month", "year", NULL};

/* The lowest bit >= n of a set, or -1. */
static inline int bit_from(uint64_t set, int n) {
  if (n > 63)
    return -1;
  set &= ~(uint64_t)0 << n;
  return set ? __builtin_ctzll(set) : -1;
}

static inline int first_bit(uint64_t set) {
  return __builtin_ctzll(set);
} /* never of an empty set: parsing saw to it */
static inline int last_bit(uint64_t set) { return 63 - __builtin_clzll(set); }

static int year_from(const struct cron *c, int year) {
  for (int i = year - CRON_FIRST_YEAR; i < YEARS; i = (i / 64 + 1) * 64) {
    int bit = bit_from(c->years[i / 64], i % 64);
    if (bit >= 0)
      return CRON_FIRST_YEAR + i / 64 * 64 + bit;
  }
  return CRON_LAST_YEAR + 1;
}

/* Seven bits, bit 0 = Sunday, turned so that bit 0 = `weekday`. */
static inline uint64_t turn(uint8_t weekdays, int weekday) {
  return (((uint64_t)weekdays | (uint64_t)weekdays << 7) >> weekday) & 0x7f;
}

/* The weekday (Monday to Friday) nearest to a day, inside the month: 1W on a Saturday is the third. */
static int nearest_workday(int day, int length, int first_weekday) {
  int weekday = (first_weekday + day - 1) % 7;
  if (weekday == 6)
    return day > 1 ? day - 1 : day + 2;
  if (weekday == 0)
    return day < length ? day + 1 : day - 2;
  return day;
}

static uint32_t special_days(const struct cron *c, int length, int first_weekday) {
  uint32_t set = 0;
  for (int n = bit_from(c->last_days, 0); n >= 0 && n < length; n = bit_from(c->last_days, n + 1))
    set |= (uint32_t)1 << (length - n);
  for (int n = bit_from(c->workdays, 0); n >= 0 && n <= length; n = bit_from(c->workdays, n + 1))
    set |= (uint32_t)1 << nearest_workday(n, length, first_weekday);
  for (int n = bit_from(c->last_workdays, 0); n >= 0 && n < length; n = bit_from(c->last_workdays, n + 1))
    set |= (uint32_t)1 << nearest_workday(length - n, length, first_weekday);
  return set;
}

static uint64_t weekday_days(const struct cron *c, int length, int first_weekday) {
  uint64_t set = turn(c->weekdays, first_weekday) * 0x10204081; /* five weeks: bits 0, 7, 14, 21, 28 */
  for (int k = 0; k < 5; k++)
    if (c->nth[k])
      set |= turn(c->nth[k], first_weekday) << (7 * k);
  if (c->last_weekdays)
    set |= turn(c->last_weekdays, (first_weekday + length - 7) % 7) << (length - 7);
  return set << 1;
}

/* The same for a month whose first day's weekday is known already. */
static uint32_t days_of_month(const struct cron *c, int length, int first_weekday) {
  uint64_t inside = ((uint64_t)2 << length) - 2;
  uint64_t by_day = c->days;
  if (c->last_days | c->workdays | c->last_workdays)
    by_day |= special_days(c, length, first_weekday);
  uint64_t by_weekday = weekday_days(c, length, first_weekday);
  return (uint32_t)((c->either_day ? by_day | by_weekday : by_day & by_weekday) & inside);
}

uint32_t cron_days(const struct cron *c, int year, int month) {
  return days_of_month(c, month_length(year, month), weekday_from_days(days_from_civil(year, month, 1)));
}

/* The first matching second of a day at or after `second`, or -1. */
static int64_t time_from(const struct cron *c, int second) {
  int hour = second / 3600, minute = second / 60 % 60;
  if (c->hours >> hour & 1) {
    int s = c->minutes >> minute & 1 ? bit_from(c->seconds, second % 60) : -1;
    if (s >= 0)
      return hour * 3600 + minute * 60 + s;
    int m = bit_from(c->minutes, minute + 1);
    if (m >= 0)
      return hour * 3600 + m * 60 + first_bit(c->seconds);
  }
  hour = bit_from(c->hours, hour + 1);
  return hour < 0 ? -1 : hour * 3600 + first_bit(c->minutes) * 60 + first_bit(c->seconds);
}

/* The first matching day at or after the given one, in days since 1970; -1 after the last year. */
static int64_t day_from(const struct cron *c, int year, int month, int day) {
  int first_year = year_from(c, year);
  if (first_year != year)
    month = day = 1;
  for (year = first_year; year <= CRON_LAST_YEAR; year = year_from(c, year + 1), month = day = 1) {
    int from_month = month;
    for (month = bit_from(c->months, month); month > 0; month = bit_from(c->months, month + 1)) {
      int64_t first = days_from_civil(year, month, 1);
      uint32_t set = days_of_month(c, month_length(year, month), weekday_from_days(first));
      int found = bit_from(set, month == from_month ? day : 1);
      if (found > 0)
        return first + found - 1;
    }
  }
  return -1;
}

/* The first extra day at or after the given one whose month and year match; -1 when there is none. */
static int64_t extra_from(const struct cron *c, int64_t day) {
  size_t lo = 0, hi = c->extra_count;
  while (lo < hi) {
    size_t mid = (lo + hi) / 2;
    if (c->extra[mid] < day)
      lo = mid + 1;
    else
      hi = mid;
  }
  for (; lo < c->extra_count; lo++) {
    int64_t year;
    int month, in_month;
    civil_from_days(c->extra[lo], &year, &month, &in_month);
    if ((c->months >> month & 1) && year_from(c, (int)year) == year)
      return c->extra[lo];
  }
  return -1;
}

int64_t cron_next(const struct cron *c, int64_t from) {
  if (from < 0) /* before 1970 nothing is due */
    from = 0;
  int64_t year, days = from / DAY;
  int64_t second = time_from(c, (int)(from % DAY));
  if (second < 0) { /* too late for that day, whichever it is */
    days++;
    second = time_from(c, 0);
  }
  if (days > (int64_t)YEARS * 366)
    return CRON_NEVER;
  int month, day;
  civil_from_days(days, &year, &month, &day);
  int64_t found = day_from(c, (int)year, month, day);
  int64_t extra = c->extra_count ? extra_from(c, days) : -1;
  if (extra >= 0 && (found < 0 || extra < found))
    found = extra;
  if (found < 0)
    return CRON_NEVER;
  return found * DAY + (found == days ? second : time_from(c, 0));
}

bool cron_matches(const struct cron *c, int64_t local_sec) {
  return local_sec >= 0 && cron_next(c, local_sec) == local_sec;
}

static bool day_matches(const struct cron *c, int64_t days, int year, int month, int day) {
  return (cron_days(c, year, month) >> day & 1) || (c->extra_count && extra_from(c, days) == days);
}

unsigned cron_mismatch(const struct cron *c, int64_t local_sec) {
  int64_t days = local_sec / DAY - (local_sec % DAY < 0), year;
  int second = (int)(local_sec - days * DAY), month, day;
  civil_from_days(days, &year, &month, &day);
  unsigned bad = 0;
  if (!(c->seconds >> second % 60 & 1))
    bad |= 1u << CRON_SECOND;
  if (!(c->minutes >> second / 60 % 60 & 1))
    bad |= 1u << CRON_MINUTE;
  if (!(c->hours >> second / 3600 & 1))
    bad |= 1u << CRON_HOUR;
  if (!(c->months >> month & 1))
    bad |= 1u << CRON_MONTH;
  if (year < CRON_FIRST_YEAR || year > CRON_LAST_YEAR)
    return bad | 1u << CRON_YEAR;
  if (year_from(c, (int)year) != year)
    bad |= 1u << CRON_YEAR;
  return day_matches(c, days, (int)year, month, day) ? bad : bad | 1u << CRON_DAY;
}

/* The least distance between neighbours in a set of bits; CRON_NEVER for a single one. */
static int64_t least_step(uint64_t set) {
  int64_t least = CRON_NEVER;
  int last = first_bit(set);
  for (int n = bit_from(set, last + 1); n >= 0; last = n, n = bit_from(set, n + 1))
    least = n - last < least ? n - last : least;
  return least;
}

static int64_t least_day_step(const struct cron *c) {
  int64_t least = CRON_NEVER, last = -1;
  for (int64_t day = day_from(c, CRON_FIRST_YEAR, 1, 1); day >= 0 && least > 1;) {
    if (last >= 0 && day - last < least)
      least = day - last;
    last = day;
    int64_t year;
    int month, in_month;
    civil_from_days(day + 1, &year, &month, &in_month);
    day = day_from(c, (int)year, month, in_month);
  }
  return least;
}

static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

/* From the last of a unit to the first of the next unit, `step` units further. */
static int64_t across(int64_t step, int64_t unit, int64_t last, int64_t first) {
  return step == CRON_NEVER ? CRON_NEVER : step * unit + first - last;
}

int64_t cron_shortest(const struct cron *c) {
  int64_t first_sec = first_bit(c->seconds), last_sec = last_bit(c->seconds);
  int64_t first_min = first_bit(c->minutes) * 60 + first_sec, last_min = last_bit(c->minutes) * 60 + last_sec;
  int64_t first_hour = first_bit(c->hours) * 3600 + first_min,
          last_hour = last_bit(c->hours) * 3600 + last_min;
  int64_t least = min64(least_step(c->seconds), across(least_step(c->minutes), 60, last_sec, first_sec));
  least = min64(least, across(least_step(c->hours), 3600, last_min, first_min));
  if (least <= DAY - (last_hour - first_hour)) /* not even neighbouring days could be nearer */
    return least;
  return min64(least, across(least_day_step(c), DAY, last_hour, first_hour));
}
