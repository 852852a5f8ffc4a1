#include "core/cron.h"
#include "base/time.h"

/* Words from the bits alone, so that two spellings of one schedule read the same. */

#define LIST_MAX 8 /* times of the day that are spelled out */

static const char *const month_words[] = {"January",   "February", "March",    "April",
                                          "May",       "June",     "July",     "August",
                                          "September", "October",  "November", "December"};
static const char *const weekday_words[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                            "Thursday", "Friday", "Saturday"};
static const char *const weekday_zh[] = {"日", "一", "二", "三", "四", "五", "六"};
static const char *const nth_words[] = {"first", "second", "third", "fourth", "fifth"};

struct words {
  const struct cron *c;
  struct str *out;
  bool zh;
};

/* What is between member i and its predecessor in a list of n. */
static void joint(const struct words *w, int i, int n) {
  if (i == 0)
    return;
  if (w->zh)
    str_addz(w->out, "、");
  else
    str_addz(w->out, i == n - 1 ? " and " : ", ");
}

static int count(uint64_t set) { return __builtin_popcountll(set); }
static int first_of(uint64_t set) { return __builtin_ctzll(set); }

/* One member of a set for print(): plain numbers unless a printer is given. */
typedef void (*print_fn)(const struct words *w, int n);

static void print_number(const struct words *w, int n) { str_addi(w->out, n); }
static void print_month(const struct words *w, int n) {
  if (w->zh)
    str_addf(w->out, "%d月", n);
  else
    str_addz(w->out, month_words[n - 1]);
}
static void print_weekday(const struct words *w, int n) {
  if (w->zh)
    str_addf(w->out, "周%s", weekday_zh[n % 7]);
  else
    str_addz(w->out, weekday_words[n % 7]);
}

/* The last member of the run that begins at `from`; two neighbours are no run. */
static int run_end(uint64_t set, int from) {
  int to = from;
  while (to < 63 && set >> (to + 1) & 1)
    to++;
  return to == from + 1 ? from : to;
}

static uint64_t without_up_to(uint64_t set, int n) { return n >= 63 ? 0 : set & ~(uint64_t)0 << (n + 1); }

/* A set as members and ranges: "1, 3 and 5 to 9". */
static void print_set(const struct words *w, uint64_t set, print_fn print) {
  int parts = 0;
  for (uint64_t left = set; left; left = without_up_to(left, run_end(left, first_of(left))))
    parts++;
  for (int i = 0; set; i++) {
    int from = first_of(set), to = run_end(set, from);
    joint(w, i, parts);
    print(w, from);
    if (to > from) {
      str_addz(w->out, w->zh ? "至" : " to ");
      print(w, to);
    }
    set = without_up_to(set, to);
  }
}

/* The step of a set 0, n, 2n … that divides the whole evenly; 0 = it is none. */
static int even_step(uint64_t set, int size) {
  if (count(set) < 2 || !(set & 1) || size % count(set))
    return 0;
  int step = size / count(set);
  for (int n = 0; n < size; n += step)
    if (!(set >> n & 1))
      return 0;
  return step;
}

struct unit {
  int size;
  /* %d is the step; behind at_… (in Chinese before its end) comes the set */
  const char *every, *every_n, *at_one, *at_many;
  const char *every_zh, *every_n_zh, *at_zh, *at_zh_end;
};
static const struct unit units[] = {
    {60, "every second", "every %d seconds", "at second ", "at the seconds ", "每秒", "每 %d 秒", "第 ",
     " 秒"},
    {60, "every minute", "every %d minutes", "at minute ", "at the minutes ", "每分钟", "每 %d 分钟", "第 ",
     " 分"},
    {24, "of every hour", "of every %d hours", "in hour ", "in the hours ", "每小时", "每 %d 小时", "",
     " 点"},
};

static void unit_words(const struct words *w, const struct unit *u, uint64_t set) {
  int step = even_step(set, u->size);
  if (step == 1) {
    str_addz(w->out, w->zh ? u->every_zh : u->every);
  } else if (step) {
    const char *head = w->zh ? u->every_n_zh : u->every_n, *mark = strchr(head, '%');
    str_add(w->out, slice_n(head, (size_t)(mark - head)));
    str_addi(w->out, step);
    str_addz(w->out, mark + 2);
  } else {
    str_addz(w->out, w->zh ? u->at_zh : count(set) == 1 ? u->at_one : u->at_many);
    print_set(w, set, print_number);
    str_addz(w->out, w->zh ? u->at_zh_end : "");
  }
}

static bool is_clock(const struct cron *c) {
  return count(c->seconds) == 1 && count(c->minutes) * count(c->hours) <= LIST_MAX;
}

/* "02:30 and 14:30". */
static void clock_words(const struct words *w) {
  const struct cron *c = w->c;
  int second = first_of(c->seconds), n = count(c->minutes) * count(c->hours), i = 0;
  for (uint64_t hours = c->hours; hours; hours &= hours - 1)
    for (uint64_t minutes = c->minutes; minutes; minutes &= minutes - 1) {
      joint(w, i++, n);
      str_addf(w->out, "%02d:%02d", first_of(hours), first_of(minutes));
      if (second)
        str_addf(w->out, ":%02d", second);
    }
}

/* What is said by itself: "every minute" says that the second is 0, "every 10 seconds" that each minute
 * counts. */
static void time_words(const struct words *w) {
  const struct cron *c = w->c;
  const uint64_t sets[] = {c->seconds, c->minutes, c->hours};
  bool said[3] = {c->seconds != 1, true, true};
  int minute_step = even_step(c->minutes, 60);
  if (minute_step == 1 && even_step(c->seconds, 60))
    said[1] = false;
  if (minute_step && even_step(c->hours, 24) == 1)
    said[2] = false;
  for (int k = 0, i = 0; k < 3; k++) {
    int unit = w->zh ? 2 - k : k; /* Chinese names the largest first */
    if (!said[unit])
      continue;
    str_addz(w->out, i++ ? w->zh ? "" : unit == 2 ? " " : ", " : "");
    unit_words(w, &units[unit], sets[unit]);
  }
}

static void print_day(const struct words *w, int n) { str_addf(w->out, w->zh ? "%d日" : "day %d", n); }
static void print_before_last(const struct words *w, int n) {
  if (n == 0)
    str_addz(w->out, w->zh ? "最后一天" : "the last day");
  else if (w->zh)
    str_addf(w->out, "倒数第%d天", n + 1);
  else
    str_addf(w->out, "the day %d day%s before the last", n, n == 1 ? "" : "s");
}
static void print_workday(const struct words *w, int n) {
  str_addf(w->out, w->zh ? "最接近%d日的工作日" : "the working day nearest to day %d", n);
}
static void print_last_workday(const struct words *w, int n) {
  if (n == 0) {
    str_addz(w->out, w->zh ? "最后一个工作日" : "the last working day");
    return;
  }
  str_addz(w->out, w->zh ? "最接近" : "the working day nearest to ");
  print_before_last(w, n);
  str_addz(w->out, w->zh ? "的工作日" : "");
}
static void print_last_weekday(const struct words *w, int n) {
  str_addz(w->out, w->zh ? "最后一个" : "the last ");
  print_weekday(w, n);
}

/* Members one by one, for what has no ranges. `*i` counts on over several sets of one list. */
static void print_each(const struct words *w, uint64_t set, print_fn print, int *i) {
  for (; set; set &= set - 1, ++*i) {
    str_addz(w->out, *i ? w->zh ? "、" : ", " : "");
    print(w, first_of(set));
  }
}

static void day_words(const struct words *w) {
  const struct cron *c = w->c;
  int i = 0;
  str_addz(w->out, w->zh ? "每月" : "on ");
  if (c->days) {
    print_set(w, c->days, print_day);
    i++;
  }
  print_each(w, c->last_days, print_before_last, &i);
  print_each(w, c->workdays, print_workday, &i);
  print_each(w, c->last_workdays, print_last_workday, &i);
  str_addz(w->out, w->zh ? "" : " of the month");
}

static void nth_weekdays(const struct words *w, int *i) {
  for (int k = 0; k < 5; k++)
    for (uint64_t set = w->c->nth[k]; set; set &= set - 1, ++*i) {
      str_addz(w->out, *i ? w->zh ? "、" : ", " : "");
      if (w->zh)
        str_addf(w->out, "第%d个", k + 1);
      else
        str_addf(w->out, "the %s ", nth_words[k]);
      print_weekday(w, first_of(set));
    }
}

static bool has_special_weekdays(const struct cron *c) {
  return c->last_weekdays | c->nth[0] | c->nth[1] | c->nth[2] | c->nth[3] | c->nth[4];
}

/* `every`: false behind "if it is". */
static void weekday_words_of(const struct words *w, bool every) {
  const struct cron *c = w->c;
  if (c->weekdays) {
    str_addz(w->out, !every ? "" : w->zh ? "每" : "every ");
    /* a week from Monday on, when it is whole */
    print_set(w, (c->weekdays & 0x7f) == 0x7f ? 0xfe : c->weekdays, print_weekday);
  }
  if (!has_special_weekdays(c))
    return;
  if (w->zh)
    str_addz(w->out, c->weekdays ? "、每月" : "每月");
  else
    str_addz(w->out, c->weekdays ? " and on " : "on ");
  int i = 0;
  nth_weekdays(w, &i);
  print_each(w, c->last_weekdays, print_last_weekday, &i);
  str_addz(w->out, w->zh ? "" : " of the month");
}

/* Which days; `clock`: a time of the day was named, so "every day" must be said. */
static void date_words(const struct words *w, bool clock) {
  const struct cron *c = w->c;
  bool days = !c->every_day, weekdays = !c->every_weekday;
  if (days)
    day_words(w);
  if (days && weekdays)
    str_addz(w->out, c->either_day ? w->zh ? "或" : " or " : w->zh ? "且为" : " if it is ");
  if (weekdays)
    weekday_words_of(w, !days || c->either_day);
  if (!days && !weekdays && clock)
    str_addz(w->out, w->zh ? "每天" : "every day");
}

static bool every_year(const struct cron *c) {
  return count(c->years[0]) + count(c->years[1]) + count(c->years[2]) + count(c->years[3]) ==
         CRON_LAST_YEAR - CRON_FIRST_YEAR + 1;
}

static bool has_year(const struct cron *c, int year) {
  int i = year - CRON_FIRST_YEAR;
  return year <= CRON_LAST_YEAR && (c->years[i / 64] >> (i % 64) & 1);
}

static void year_words(const struct words *w) {
  int i = 0;
  for (int year = CRON_FIRST_YEAR; year <= CRON_LAST_YEAR; year++) {
    if (!has_year(w->c, year))
      continue;
    int to = year;
    while (has_year(w->c, to + 1))
      to++;
    str_addz(w->out, i++ ? w->zh ? "、" : ", " : "");
    str_addi(w->out, year);
    if (to > year) {
      str_addz(w->out, w->zh ? "至" : " to ");
      str_addi(w->out, to);
    }
    year = to;
  }
  str_addz(w->out, w->zh ? "年" : "");
}

static void in_english(const struct words *w, bool clock) {
  const struct cron *c = w->c;
  if (clock) {
    str_addz(w->out, "at ");
    clock_words(w);
  } else {
    time_words(w);
  }
  if (clock || !c->every_day || !c->every_weekday)
    str_addc(w->out, ' ');
  date_words(w, clock);
  if (count(c->months) < 12) {
    str_addz(w->out, " in ");
    print_set(w, c->months, print_month);
  }
  if (!every_year(c)) {
    str_addz(w->out, " in ");
    year_words(w);
  }
}

static void in_chinese(const struct words *w, bool clock) {
  const struct cron *c = w->c;
  if (!every_year(c)) {
    year_words(w);
    str_addc(w->out, ' ');
  }
  if (count(c->months) < 12) {
    print_set(w, c->months, print_month);
    str_addc(w->out, ' ');
  }
  date_words(w, clock);
  if (clock || !c->every_day || !c->every_weekday)
    str_addc(w->out, ' ');
  if (clock)
    clock_words(w);
  else
    time_words(w);
}

void cron_explain(const struct cron *c, enum cron_lang lang, struct str *out) {
  const struct words w = {c, out, lang == CRON_ZH};
  bool clock = is_clock(c);
  if (w.zh)
    in_chinese(&w, clock);
  else
    in_english(&w, clock);
}

/* ------------------------------------------------------------------ what does not fit */

/* A value that is none of its unit: of an even step the step says more than its members. */
static void not_of_unit(const struct words *w, const char *what, int value, uint64_t set, int size) {
  int step = even_step(set, size);
  str_addf(w->out, w->zh ? "%s %d " : "%s %d is not ", what, value);
  if (step > 1) {
    str_addf(w->out, w->zh ? "不是 %d 的倍数" : "a multiple of %d", step);
    return;
  }
  str_addz(w->out, w->zh ? "不在" : "in ");
  print_set(w, set, print_number);
}

static void not_in(const struct words *w, const char *what, const char *what_zh, int value) {
  str_addf(w->out, w->zh ? "%s %d 不在" : "%s %d is not in ", w->zh ? what_zh : what, value);
}

static void day_not_in(const struct words *w, int64_t year, int month, int day, int weekday) {
  if (w->zh)
    str_addf(w->out, "%04d-%02d-%02d（周%s）不是", (int)year, month, day, weekday_zh[weekday]);
  else
    str_addf(w->out, "%04d-%02d-%02d, a %s, is not ", (int)year, month, day, weekday_words[weekday]);
  date_words(w, true);
}

void cron_mismatch_words(const struct cron *c, int64_t local_sec, enum cron_lang lang, struct str *out) {
  const struct words w = {c, out, lang == CRON_ZH};
  unsigned bad = cron_mismatch(c, local_sec);
  int64_t days = local_sec / 86400 - (local_sec % 86400 < 0), year;
  int second = (int)(local_sec - days * 86400), month, day;
  civil_from_days(days, &year, &month, &day);
  const struct {
    const char *en, *zh;
    int value, size;
    uint64_t set;
  } clock[] = {{"second", "秒", second % 60, 60, c->seconds},
               {"minute", "分", second / 60 % 60, 60, c->minutes},
               {"hour", "时", second / 3600, 24, c->hours}};
  for (int f = 0, i = 0; f < CRON_FIELD_MAX_; f++) {
    if (!(bad >> f & 1))
      continue;
    str_addz(out, i++ ? w.zh ? "；" : "; " : "");
    if (f <= CRON_HOUR) {
      not_of_unit(&w, w.zh ? clock[f].zh : clock[f].en, clock[f].value, clock[f].set, clock[f].size);
    } else if (f == CRON_DAY) {
      day_not_in(&w, year, month, day, weekday_from_days(days));
    } else if (f == CRON_MONTH) {
      not_in(&w, "month", "月", month);
      print_set(&w, c->months, print_number);
    } else {
      not_in(&w, "year", "年", (int)year);
      year_words(&w);
    }
  }
}
