/* systemd's calendar events (systemd.time(7)) as QUARTZ expressions. */
#include "base/parse.h"
#include "cli/import.h"

#define LIST_MAX   256 /* bytes of one field of the expression */
#define YEAR_FIRST 1970
#define YEAR_LAST  2199
#define WEEKDAYS   7
#define MONTH_DAYS 31

static const char *const weekday_names[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
static const char *const weekday_whole[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                            "Thursday", "Friday", "Saturday"};

/* The parts of one event; p == NULL: not given. */
struct event {
  unsigned weekdays; /* bit 0 = Sunday; 0: not given */
  struct slice year, month, day, hour, minute, second, zone;
  bool from_end; /* the day counts from the end of the month */
};

static int bad(struct err *e, const char *why) { return err_set(e, ERR_INVALID, "%s", why); }

/* ------------------------------------------------------------------ weekdays */

static int weekday(struct slice s) {
  for (int i = 0; i < WEEKDAYS; i++)
    if (slice_eqz_nocase(s, weekday_names[i]) || slice_eqz_nocase(s, weekday_whole[i]))
      return i;
  return -1;
}

static bool cut_range(struct slice s, struct slice *ret_from, struct slice *ret_to) {
  for (size_t i = 0; i + 1 < s.n; i++)
    if (s.p[i] == '.' && s.p[i + 1] == '.') {
      *ret_from = slice_n(s.p, i);
      *ret_to = slice_n(s.p + i + 2, s.n - i - 2);
      return true;
    }
  return false;
}

/* "Mon..Fri,Sun" (and the older "Mon-Fri") as bits; 0: it is none. */
static unsigned weekdays(struct slice s) {
  unsigned bits = 0;
  do {
    struct slice part = slice_cut(s, ',', &s), from = part, to = part, rest;
    if (!cut_range(part, &from, &to) && memchr(part.p ? part.p : "", '-', part.n)) {
      from = slice_cut(part, '-', &rest);
      to = rest;
    }
    int a = weekday(from), b = weekday(to);
    if (a < 0 || b < 0)
      return 0;
    for (int d = a;; d = (d + 1) % WEEKDAYS) {
      bits |= 1u << d;
      if (d == b)
        break;
    }
  } while (s.p);
  return bits;
}

/* ------------------------------------------------------------------ numbers */

struct part {
  bool any;
  int64_t from, to, step; /* to < 0: none given; step 0: none */
};

/* 05 is 5 here, and two digits of a year mean this century or the last. */
static int number(struct slice s, bool year, int64_t *ret, struct err *e) {
  size_t digits = s.n;
  for (size_t i = 0; i < s.n; i++)
    if (s.p[i] < '0' || s.p[i] > '9')
      return bad(e, memchr(s.p, '.', s.n) ? "parts of a second are not possible" : "expected a number");
  while (s.n > 1 && s.p[0] == '0')
    s = slice_n(s.p + 1, s.n - 1);
  int r = parse_i64(s, 0, YEAR_LAST, ret, e);
  if (r == 0 && year && digits <= 2)
    *ret += *ret < YEAR_FIRST % 100 ? 2000 : 1900;
  return r;
}

static int read_part(struct slice s, bool year, struct part *ret, struct err *e) {
  struct slice step, value = slice_cut(s, '/', &step), from = value, to = {0};
  *ret = (struct part){.to = -1};
  bool range = cut_range(value, &from, &to);
  int r = 0;
  ret->any = slice_eqz(value, "*");
  if (!ret->any)
    r = number(from, year, &ret->from, e);
  if (r == 0 && range)
    r = number(to, year, &ret->to, e);
  if (r == 0 && step.p)
    r = number(step, false, &ret->step, e);
  return r == 0 && step.p && ret->step == 0 ? bad(e, "a repetition of 0 is not possible") : r;
}

/* A list of parts in cron's way. */
static int add_list(struct slice s, bool year, struct str *out, struct err *e) {
  bool first = true;
  do {
    struct part p;
    int r = read_part(slice_cut(s, ',', &s), year, &p, e);
    if (r < 0)
      return r;
    str_addz(out, first ? "" : ",");
    first = false;
    if (p.any)
      str_addc(out, '*');
    else
      str_addi(out, p.from);
    if (p.to >= 0) {
      str_addc(out, '-');
      str_addi(out, p.to);
    }
    if (p.step) {
      str_addc(out, '/');
      str_addi(out, p.step);
    }
  } while (s.p);
  return 0;
}

/* ------------------------------------------------------------------ days */

/* Days counted from the end of the month, as bits: bit 1 = the last. "07/1" goes on to the last. */
static int days_from_end(struct slice s, uint64_t *ret, struct err *e) {
  uint64_t bits = 0;
  do {
    struct part p;
    int r = read_part(slice_cut(s, ',', &s), false, &p, e);
    if (r < 0)
      return r;
    if (p.any || p.from < 1 || p.from > MONTH_DAYS || p.to > MONTH_DAYS)
      return bad(e, "expected days from 1 to 31 before the end of the month");
    int64_t last = p.to >= 0 ? p.to : p.step ? 1 : p.from, step = p.step ? p.step : 1;
    if (p.to >= 0 && p.step)
      return bad(e, "a repetition of a range before the end of the month is not possible");
    int64_t low = last < p.from ? last : p.from, high = last < p.from ? p.from : last;
    for (int64_t d = high; d >= low; d -= step)
      bits |= UINT64_C(1) << d;
  } while (s.p);
  *ret = bits;
  return 0;
}

static int add_days_from_end(struct slice s, struct str *out, struct err *e) {
  uint64_t bits;
  int r = days_from_end(s, &bits, e);
  if (r < 0)
    return r;
  bool first = true;
  for (int d = MONTH_DAYS; d >= 1; d--) {
    if (!(bits >> d & 1))
      continue;
    str_addz(out, first ? "L" : ",L");
    if (d > 1)
      str_addf(out, "-%d", d - 1);
    first = false;
  }
  return 0;
}

/* Which week of the month the days are: 1 = the first seven, …, 5 = the last seven; 0: no whole one. */
static int week_of(const struct event *x) {
  struct part p = {0};
  uint64_t bits;
  if (x->from_end)
    return days_from_end(x->day, &bits, NULL) == 0 && bits == 0xfe ? 5 : 0;
  if (read_part(x->day, false, &p, NULL) < 0 || p.any || p.step || p.to != p.from + 6)
    return 0;
  return p.from % 7 == 1 && p.from <= 22 ? (int)(p.from / 7) + 1 : 0;
}

/* "MON-FRI", or in a week of the month "2#1,3#1" and "2L". */
static void add_weekdays(unsigned bits, int week, struct str *out) {
  static const char *const names[] = {"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"};
  bool first = true;
  for (int d = 0; d < WEEKDAYS; d++) {
    int last = d;
    if (!(bits >> d & 1))
      continue;
    while (!week && last + 1 < WEEKDAYS && (bits >> (last + 1) & 1))
      last++;
    str_addz(out, first ? "" : ",");
    first = false;
    if (week == 5)
      str_addf(out, "%dL", d + 1);
    else if (week)
      str_addf(out, "%d#%d", d + 1, week);
    else
      str_addz(out, names[d]);
    if (last > d)
      str_addf(out, "-%s", names[last]);
    d = last;
  }
}

/* Day of the month, month and weekday: cron wants exactly one of the days to say nothing. */
static int add_date(const struct event *x, struct str *out, struct err *e) {
  bool any_day = !x->day.p || slice_eqz(x->day, "*");
  int week = any_day || !x->weekdays ? 0 : week_of(x), r = 0;
  if (!any_day && x->weekdays && !week)
    return bad(e,
               "weekdays and days of the month at once are possible only for a whole first, second, third, "
               "fourth or last week (1..7, 8..14, 15..21, 22..28, ~07/1)");
  if (x->weekdays)
    str_addc(out, '?');
  else if (x->from_end)
    r = add_days_from_end(x->day, out, e);
  else
    r = add_list(any_day ? SLICE("*") : x->day, false, out, e);
  str_addc(out, ' ');
  if (r == 0)
    r = add_list(x->month.p ? x->month : SLICE("*"), false, out, e);
  str_addc(out, ' ');
  if (x->weekdays)
    add_weekdays(x->weekdays, week, out);
  else
    str_addc(out, '?');
  return r;
}

/* ------------------------------------------------------------------ the event */

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* [YEAR-]MONTH-DAY, or with ~ before a day from the end. */
static int read_date(struct slice s, struct event *x, struct err *e) {
  size_t last = s.n, before = s.n;
  for (size_t i = 0; i < s.n; i++)
    if (s.p[i] == '-' || s.p[i] == '~') {
      before = last;
      last = i;
    }
  x->from_end = s.p[last] == '~';
  x->day = slice_n(s.p + last + 1, s.n - last - 1);
  struct slice head = slice_n(s.p, last);
  if (before == s.n) {
    x->month = head;
  } else {
    x->year = slice_n(s.p, before);
    x->month = slice_n(s.p + before + 1, last - before - 1);
  }
  bool good = x->day.n && x->month.n && (!x->year.p || x->year.n) &&
              !memchr(x->year.p ? x->year.p : "", '-', x->year.n);
  return good ? 0 : bad(e, "expected a date such as *-*-01");
}

static int read_time(struct slice s, struct event *x, struct err *e) {
  struct slice rest, more;
  x->hour = slice_cut(s, ':', &rest);
  x->minute = slice_cut(rest, ':', &more);
  x->second = more;
  bool whole = !more.p || !memchr(more.p, ':', more.n);
  return x->hour.n && x->minute.n && whole && (!more.p || more.n)
             ? 0
             : bad(e, "expected a time such as 09:00:00");
}

static int read_word(struct slice w, struct event *x, struct err *e) {
  bool letter = !is_digit(w.p[0]) && w.p[0] != '*';
  if (w.p[0] == '@')
    return bad(e, "seconds since 1970 are not possible");
  if (!x->weekdays && !x->month.p && !x->hour.p && letter && (x->weekdays = weekdays(w)))
    return 0;
  if (letter) {
    x->zone = w;
    return 0;
  }
  if (memchr(w.p, ':', w.n))
    return x->hour.p ? bad(e, "a time stands here twice") : read_time(w, x, e);
  if (memchr(w.p, '-', w.n) || memchr(w.p, '~', w.n))
    return x->month.p ? bad(e, "a date stands here twice") : read_date(w, x, e);
  return bad(e, "expected weekdays, a date, a time, a time zone");
}

/* The words that stand for a whole event. */
static struct slice expanded(struct slice w) {
  static const char *const words[][2] = {{"minutely", "*-*-* *:*:00"},
                                         {"hourly", "*-*-* *:00:00"},
                                         {"daily", "*-*-* 00:00:00"},
                                         {"weekly", "Mon *-*-* 00:00:00"},
                                         {"monthly", "*-*-01 00:00:00"},
                                         {"quarterly", "*-01,04,07,10-01 00:00:00"},
                                         {"semiannually", "*-01,07-01 00:00:00"},
                                         {"yearly", "*-01-01 00:00:00"},
                                         {"annually", "*-01-01 00:00:00"}};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++)
    if (slice_eqz_nocase(w, words[i][0]))
      return slice_of(words[i][1]);
  return w;
}

static int read_words(struct slice text, struct event *x, bool inner, struct err *e) {
  int r = 0;
  for (struct slice rest = slice_trim(text); r == 0 && rest.n; rest = slice_trim(rest)) {
    struct slice w = slice_cut(rest, ' ', &rest), whole = inner ? w : expanded(w);
    r = whole.p == w.p ? read_word(w, x, e) : read_words(whole, x, true, e);
  }
  return r;
}

static int add_event(const struct event *x, struct str *out, struct err *e) {
  const struct slice zero = SLICE("0");
  int r = add_list(x->second.p ? x->second : zero, false, out, e);
  str_addc(out, ' ');
  if (r == 0)
    r = add_list(x->hour.p ? x->minute : zero, false, out, e);
  str_addc(out, ' ');
  if (r == 0)
    r = add_list(x->hour.p ? x->hour : zero, false, out, e);
  str_addc(out, ' ');
  if (r == 0)
    r = add_date(x, out, e);
  if (r == 0 && x->year.p && !slice_eqz(x->year, "*")) {
    str_addc(out, ' ');
    r = add_list(x->year, true, out, e);
  }
  return r;
}

int calendar_translate(struct slice text, struct str *expression, struct slice *ret_zone, struct err *e) {
  struct event x = {0};
  auto_str out;
  str_init(&out, 8 * LIST_MAX);
  int r = read_words(text, &x, false, e);
  if (r == 0 && !x.weekdays && !x.month.p && !x.hour.p)
    r = bad(e, "expected weekdays, a date or a time");
  if (r == 0)
    r = add_event(&x, &out, e);
  if (r == 0 && str_failed(&out))
    r = bad(e, "it is too long");
  if (r < 0)
    return r;
  str_add(expression, str_slice(&out));
  *ret_zone = x.zone;
  return 0;
}

/* ------------------------------------------------------------------ durations */

static usec_t unit_of(struct slice s) {
  static const struct {
    const char *names;
    usec_t length;
  } units[] = {{"us usec", 1},
               {"ms msec", USEC_PER_MS},
               {"s sec second seconds", USEC_PER_SEC},
               {"m min minute minutes", USEC_PER_MIN},
               {"h hr hour hours", USEC_PER_HOUR},
               {"d day days", USEC_PER_DAY},
               {"w week weeks", 7 * USEC_PER_DAY},
               {"M month months", 2629800 * USEC_PER_SEC},
               {"y year years", 31557600 * USEC_PER_SEC}};
  if (!s.n)
    return USEC_PER_SEC;
  for (size_t i = 0; i < sizeof units / sizeof *units; i++)
    for (struct slice rest = slice_of(units[i].names); rest.n;)
      if (slice_eq(s, slice_cut(rest, ' ', &rest)))
        return units[i].length;
  return 0;
}

int timespan_parse(struct slice text, usec_t *ret, struct err *e) {
  usec_t total = 0;
  text = slice_trim(text);
  if (slice_eqz(text, "infinity")) {
    *ret = USEC_NEVER;
    return 0;
  }
  if (!text.n)
    return bad(e, "expected a duration");
  while (text.n) {
    size_t n = 0, m;
    while (n < text.n && is_digit(text.p[n]))
      n++;
    struct slice digits = slice_n(text.p, n);
    while (digits.n > 1 && digits.p[0] == '0')
      digits = slice_n(digits.p + 1, digits.n - 1);
    text = slice_trim(slice_n(text.p + n, text.n - n));
    for (m = 0; m < text.n && !is_digit(text.p[m]) && text.p[m] != ' ';)
      m++;
    int64_t count = 0;
    usec_t unit = unit_of(slice_n(text.p, m)), part;
    if (!unit || parse_i64(digits, 0, INT64_MAX, &count, NULL) < 0 ||
        __builtin_mul_overflow(count, unit, &part) || __builtin_add_overflow(total, part, &total))
      return bad(e, "expected a duration such as 1h 30min");
    text = slice_trim(slice_n(text.p + m, text.n - m));
  }
  *ret = total;
  return 0;
}
