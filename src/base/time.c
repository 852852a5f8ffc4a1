#include "base/time.h"
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

static usec_t ask(clockid_t id) {
  struct timespec t;
  (void)clock_gettime(id, &t); /* cannot fail for these two */
  return (usec_t)t.tv_sec * USEC_PER_SEC + t.tv_nsec / 1000;
}
static usec_t wall(const struct clock *c) {
  (void)c;
  return ask(CLOCK_REALTIME);
}
static usec_t mono(const struct clock *c) {
  (void)c;
  return ask(CLOCK_MONOTONIC);
}
const struct clock clock_system = {wall, mono};

static int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }

int64_t days_from_civil(int64_t year, int month, int day) {
  year -= month <= 2;
  int64_t era = floor_div(year, 400);
  int64_t yoe = year - era * 400;
  int64_t doy = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
  int64_t doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
  return era * 146097 + doe - 719468;
}

void civil_from_days(int64_t days, int64_t *ret_year, int *ret_month, int *ret_day) {
  days += 719468;
  int64_t era = floor_div(days, 146097);
  int64_t doe = days - era * 146097;
  int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
  int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
  int64_t mp = (5 * doy + 2) / 153;
  int month = (int)(mp < 10 ? mp + 3 : mp - 9);
  *ret_year = yoe + era * 400 + (month <= 2);
  *ret_month = month;
  *ret_day = (int)(doy - (153 * mp + 2) / 5 + 1);
}

int weekday_from_days(int64_t days) { /* 1970-01-01 was a Thursday */
  int64_t w = (days % 7 + 4) % 7;
  return (int)(w < 0 ? w + 7 : w);
}

bool year_is_leap(int64_t year) { return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0); }

int month_length(int64_t year, int month) {
  static const int8_t lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  return month == 2 && year_is_leap(year) ? 29 : lengths[month - 1];
}

/* A reader of fixed-width fields; `bad` sticks. */
struct cursor {
  struct slice s;
  size_t at;
  bool bad;
};

static int field(struct cursor *c, size_t width, int min, int max) {
  int v = 0;
  for (size_t i = 0; i < width; i++) {
    unsigned d = c->at < c->s.n ? (unsigned char)c->s.p[c->at] - (unsigned)'0' : 10;
    if (c->bad || d > 9) {
      c->bad = true;
      return min;
    }
    v = v * 10 + (int)d;
    c->at++;
  }
  if (v < min || v > max) {
    c->at -= width;
    c->bad = true;
    return min;
  }
  return v;
}

static bool next_is(struct cursor *c, const char *any) {
  if (c->bad || c->at >= c->s.n || !c->s.p[c->at] || !strchr(any, c->s.p[c->at]))
    return false;
  c->at++;
  return true;
}

static void want(struct cursor *c, const char *any) {
  if (!next_is(c, any))
    c->bad = true;
}

static usec_t fraction(struct cursor *c) {
  usec_t v = 0;
  int n = 0;
  for (; n < 6 && c->at < c->s.n && c->s.p[c->at] >= '0' && c->s.p[c->at] <= '9'; n++)
    v = v * 10 + (c->s.p[c->at++] - '0');
  if (n == 0)
    c->bad = true;
  for (; n < 6; n++)
    v *= 10;
  return v;
}

static usec_t zone(struct cursor *c) {
  if (next_is(c, "Zz"))
    return 0;
  bool west = c->at < c->s.n && c->s.p[c->at] == '-';
  want(c, "+-");
  int hours = field(c, 2, 0, 23);
  want(c, ":");
  usec_t v = hours * USEC_PER_HOUR + field(c, 2, 0, 59) * USEC_PER_MIN;
  return west ? -v : v;
}

int time_parse_rfc3339(struct slice text, usec_t *ret, struct err *e) {
  struct cursor c = {.s = text};
  int year = field(&c, 4, 1970, 9999);
  want(&c, "-");
  int month = field(&c, 2, 1, 12);
  want(&c, "-");
  int day = field(&c, 2, 1, month_length(year, month));
  want(&c, "Tt");
  usec_t t = days_from_civil(year, month, day) * USEC_PER_DAY;
  t += field(&c, 2, 0, 23) * USEC_PER_HOUR;
  want(&c, ":");
  t += field(&c, 2, 0, 59) * USEC_PER_MIN;
  want(&c, ":");
  t += field(&c, 2, 0, 59) * USEC_PER_SEC;
  if (next_is(&c, "."))
    t += fraction(&c);
  t -= zone(&c);
  if (c.bad || c.at != text.n) {
    (void)err_set(e, ERR_INVALID,
                  "expected an instant such as 2026-11-23T04:46:10Z or 2026-11-23T12:46:10+08:00");
    if (e)
      e->column = (int)c.at + 1;
    return ERR_INVALID;
  }
  if (t < 0 || t >= days_from_civil(10000, 1, 1) * USEC_PER_DAY)
    return err_set(e, ERR_INVALID, "expected an instant in the years 1970 to 9999");
  *ret = t;
  return 0;
}

static size_t format_local(usec_t t, char *buf) {
  int64_t year, days = floor_div(t, USEC_PER_DAY);
  int month, day;
  civil_from_days(days, &year, &month, &day);
  usec_t in_day = t % USEC_PER_DAY + (t % USEC_PER_DAY < 0 ? USEC_PER_DAY : 0);
  int secs = (int)(in_day / USEC_PER_SEC), frac = (int)(in_day % USEC_PER_SEC);
  int n = snprintf(buf, TIME_TEXT_MAX, "%04" PRId64 "-%02d-%02dT%02d:%02d:%02d", year, month, day,
                   secs / 3600, secs / 60 % 60, secs % 60);
  if (frac % 1000)
    n += snprintf(buf + n, TIME_TEXT_MAX - (size_t)n, ".%06d", frac);
  else if (frac)
    n += snprintf(buf + n, TIME_TEXT_MAX - (size_t)n, ".%03d", frac / 1000);
  return (size_t)n;
}

char *time_format(usec_t t, char *buf) {
  size_t n = format_local(t, buf);
  (void)snprintf(buf + n, TIME_TEXT_MAX - n, "Z");
  return buf;
}

char *time_format_offset(usec_t t, int offset_seconds, char *buf) {
  /* RFC 3339 has no seconds in an offset; old local mean times are cut to minutes in both places,
   * so that the text still means the same instant. */
  int minutes = offset_seconds / 60;
  usec_t local;
  if (__builtin_add_overflow(t, minutes * USEC_PER_MIN, &local))
    return time_format(t, buf);
  size_t n = format_local(local, buf);
  int size = minutes < 0 ? -minutes : minutes;
  (void)snprintf(buf + n, TIME_TEXT_MAX - n, "%c%02d:%02d", minutes < 0 ? '-' : '+', size / 60, size % 60);
  return buf;
}

static const struct unit {
  const char *name;
  usec_t length;
} units[] = {{"d", USEC_PER_DAY}, {"h", USEC_PER_HOUR}, {"m", USEC_PER_MIN},
             {"s", USEC_PER_SEC}, {"ms", USEC_PER_MS},  {"us", 1}};
#define UNITS (sizeof units / sizeof *units)

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* One "number unit" off the front of *text, added to *sum. `*unit` is the first unit still allowed: they
 * fall. */
static bool take_part(struct slice *text, size_t *unit, usec_t *sum) {
  usec_t v = 0;
  size_t i = 0;
  for (; i < text->n && is_digit(text->p[i]); i++)
    if (__builtin_mul_overflow(v, (usec_t)10, &v) ||
        __builtin_add_overflow(v, (usec_t)(text->p[i] - '0'), &v))
      return false;
  size_t from = i;
  while (i < text->n && !is_digit(text->p[i]))
    i++;
  if (from == 0 || (from > 1 && text->p[0] == '0'))
    return false;
  struct slice name = slice_n(text->p + from, i - from);
  while (*unit < UNITS && !slice_eqz(name, units[*unit].name))
    ++*unit;
  if (*unit == UNITS || __builtin_mul_overflow(v, units[*unit].length, &v) ||
      __builtin_add_overflow(*sum, v, sum))
    return false;
  ++*unit;
  *text = slice_n(text->p + i, text->n - i);
  return true;
}

int duration_parse(struct slice text, usec_t min, usec_t max, usec_t *ret, struct err *e) {
  usec_t sum = 0;
  size_t unit = 0;
  bool good = text.n > 0;
  while (good && text.n)
    good = take_part(&text, &unit, &sum);
  if (!good || sum < min || sum > max) {
    char low[TIME_TEXT_MAX], high[TIME_TEXT_MAX];
    return err_set(e, ERR_INVALID, "expected a duration such as 500ms, 30s, 5m or 1h30m, from %s to %s",
                   duration_format(min, low), duration_format(max, high));
  }
  *ret = sum;
  return 0;
}

static size_t decimal_digits(uint64_t v) {
  size_t n = 1;
  for (; v >= 10; v /= 10)
    n++;
  return n;
}

/* Length of `d` written with the units in `mask`; SIZE_MAX: cannot be written with them. */
static size_t written(uint64_t d, unsigned mask) {
  size_t n = 0;
  for (size_t i = 0; i < UNITS; i++) {
    uint64_t length = (uint64_t)units[i].length;
    if (!(mask >> i & 1) || d < length)
      continue;
    n += decimal_digits(d / length) + strlen(units[i].name);
    d %= length;
  }
  return d ? SIZE_MAX : n;
}

char *duration_format(usec_t d, char *buf) {
  uint64_t left = d < 0 ? 0 - (uint64_t)d : (uint64_t)d;
  unsigned best = (1u << UNITS) - 1; /* big units first; only something strictly shorter replaces it */
  for (unsigned mask = best; mask > 0; mask--)
    if (written(left, mask) < written(left, best))
      best = mask;
  int n = snprintf(buf, TIME_TEXT_MAX, "%s", d < 0 ? "-" : d == 0 ? "0s" : "");
  for (size_t i = 0; i < UNITS; i++) {
    uint64_t length = (uint64_t)units[i].length;
    if (!(best >> i & 1) || left < length)
      continue;
    n += snprintf(buf + n, TIME_TEXT_MAX - (size_t)n, "%" PRIu64 "%s", left / length, units[i].name);
    left %= length;
  }
  return buf;
}
