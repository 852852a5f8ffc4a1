#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/rng.h"
#include "base/time.h"
#include "core/cron.h"

static int64_t at(const char *text) {
  usec_t t;
  assert_int_equal(time_parse_rfc3339(slice_of(text), &t, NULL), 0);
  return t / USEC_PER_SEC;
}

static struct cron parse(const char *text) {
  struct cron c;
  struct err e = {0};
  if (cron_parse(slice_of(text), CRON_AUTO, &c, &e) < 0)
    fail_msg("%s: column %d: %s", text, e.column, e.text);
  return c;
}

/* The days of a month as "1,15,31". */
static void assert_days(const char *expr, int year, int month, const char *expected) {
  struct cron c = parse(expr);
  auto_str text;
  str_init(&text, 256);
  uint32_t set = cron_days(&c, year, month);
  for (int d = 1; d <= 31; d++)
    if (set >> d & 1)
      str_addf(&text, "%s%d", text.n ? "," : "", d);
  assert_string_equal(text.n ? text.p : "", expected);
}

static void assert_nexts(const char *expr, const char *from, const char *const *expected) {
  struct cron c = parse(expr);
  int64_t t = at(from);
  for (; *expected; expected++) {
    int64_t next = cron_next(&c, t);
    assert_true(next != CRON_NEVER);
    char text[TIME_TEXT_MAX];
    assert_string_equal(time_format(next * USEC_PER_SEC, text), *expected);
    t = next + 1;
  }
}
#define NEXTS(expr, from, ...) assert_nexts(expr, from, (const char *const[]){__VA_ARGS__, NULL})

static void test_days(void **state) {
  (void)state;
  /* November 2026 begins on a Sunday and has 30 days; August 2026 begins on a Saturday, has 31 */
  assert_days("0 0 0 L * ?", 2026, 11, "30");
  assert_days("0 0 0 L-3 * ?", 2026, 11, "27");
  assert_days("0 0 0 LW * ?", 2026, 10, "30"); /* the 31st is a Saturday */
  assert_days("0 0 0 LW * ?", 2026, 5, "29");  /* the 31st is a Sunday */
  assert_days("0 0 0 1W * ?", 2026, 8, "3");   /* a Saturday the first: not back into July */
  assert_days("0 0 0 1W * ?", 2026, 11, "2");
  assert_days("0 0 0 15W * ?", 2026, 8, "14");
  assert_days("0 0 0 31W * ?", 2026, 5, "29"); /* a Sunday the last: not on into June */
  assert_days("0 0 0 31W * ?", 2026, 6, "");
  assert_days("0 0 0 L-2W * ?", 2026, 11, "27");
  assert_days("0 0 0 L-30 * ?", 2026, 11, "");
  assert_days("0 0 0 L-30 * ?", 2026, 8, "1");
  assert_days("0 0 0 L-30W * ?", 2026, 8, "3");
  assert_days("0 0 0 29 * ?", 2100, 2, "");
  assert_days("0 0 0 L * ?", 2100, 2, "28");
  assert_days("0 0 0 1,15W,L-2,LW * ?", 2026, 11, "1,16,28,30");
  assert_days("0 0 0 10W,20W,3-4 * ?", 2026, 11, "3,4,10,20");
  assert_days("0 0 0 28-3 * ?", 2026, 11, "1,2,3,28,29,30");
  assert_days("0 0 0 ? * L", 2026, 11, "7,14,21,28");
  assert_days("0 0 0 ? * 6L", 2026, 11, "27");
  assert_days("0 0 0 ? * FRIL,1L", 2026, 11, "27,29");
  assert_days("0 0 0 ? * 2#1", 2026, 11, "2");
  assert_days("0 0 0 ? * SUN#5,MON#5", 2026, 11, "29,30");
  assert_days("0 0 0 ? * tue#5", 2026, 11, "");
  assert_days("0 0 0 ? * 2#1,6#3,WED", 2026, 11, "2,4,11,18,20,25");
  assert_days("0 0 0 ? * FRI-MON", 2026, 11, "1,2,6,7,8,9,13,14,15,16,20,21,22,23,27,28,29,30");
  assert_days("0 0 0 ? * MON-FRI/2", 2026, 11, "2,4,6,9,11,13,16,18,20,23,25,27,30");
  assert_days("0 0 0 ? * MON/3", 2026, 11, "2,5,9,12,16,19,23,26,30");
  assert_days("0 0 * * 7", 2026, 11, "1,8,15,22,29");
  assert_days("0 0 * * 0", 2026, 11, "1,8,15,22,29");
  assert_days("0 0 * * 5-7", 2026, 11, "1,6,7,8,13,14,15,20,21,22,27,28,29");
  assert_days("0 0 13 * 5", 2026, 11, "6,13,20,27"); /* either */
  assert_days("0 0 15 * 5", 2026, 11, "6,13,15,20,27");
  assert_days("0 0 */2 * 5", 2026, 11, "13,27"); /* begins with *: both */
  assert_days("0 0 13 * */5", 2026, 11, "13");
}

static void test_next(void **state) {
  (void)state;
  NEXTS("* * * * * ?", "2026-12-31T23:59:59Z", "2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z");
  NEXTS("0 30 2 ? * MON", "2026-11-23T02:30:01Z", "2026-11-30T02:30:00Z", "2026-12-07T02:30:00Z");
  NEXTS("0 0 22-3/2 * * ?", "2026-11-23T00:00:01Z", "2026-11-23T02:00:00Z", "2026-11-23T22:00:00Z",
        "2026-11-24T00:00:00Z");
  NEXTS("0 0 0 29 2 ?", "2096-03-01T00:00:00Z", "2104-02-29T00:00:00Z");
  NEXTS("0 0 0 1 1 ? 2030/10", "2026-01-01T00:00:00Z", "2030-01-01T00:00:00Z", "2040-01-01T00:00:00Z");
  NEXTS("0 0 0 ? JAN,JUN/3 2#1", "2026-01-06T00:00:00Z", "2026-06-01T00:00:00Z", "2026-09-07T00:00:00Z",
        "2026-12-07T00:00:00Z");
  NEXTS("5/20 10,20 4 * * ?", "2026-01-01T04:10:30Z", "2026-01-01T04:10:45Z", "2026-01-01T04:20:05Z");
  NEXTS("@hourly", "2026-01-01T04:10:30Z", "2026-01-01T05:00:00Z");
  NEXTS(" @Weekly ", "2026-11-23T00:00:00Z", "2026-11-29T00:00:00Z");
  NEXTS("\t30 2\t* *  1-5 ", "2026-11-28T00:00:00Z", "2026-11-30T02:30:00Z");
}

static void test_end(void **state) {
  (void)state;
  struct cron c = parse("0 0 0 1 1 ? 2199");
  assert_true(cron_next(&c, at("2199-01-01T00:00:00Z")) == at("2199-01-01T00:00:00Z"));
  assert_true(cron_next(&c, at("2199-01-01T00:00:01Z")) == CRON_NEVER);
  assert_true(cron_next(&c, INT64_MAX) == CRON_NEVER);
  assert_true(cron_next(&c, INT64_MIN) == at("2199-01-01T00:00:00Z"));
  c = parse("* * * * * ?");
  assert_true(cron_next(&c, at("2199-12-31T23:59:59Z")) == at("2199-12-31T23:59:59Z"));
  assert_true(cron_next(&c, at("2200-01-01T00:00:00Z")) == CRON_NEVER);
  assert_true(cron_next(&c, -100) == 0);
  assert_true(cron_matches(&c, 0) && !cron_matches(&c, -1));
}

static const struct {
  const char *expr;
  enum cron_dialect dialect;
  int code, column;
  const char *part; /* of the text */
} wrong[] = {
    {"", CRON_AUTO, ERR_INVALID, 1, "expression"},
    {"   ", CRON_AUTO, ERR_INVALID, 1, ""},
    {"* * * *", CRON_AUTO, ERR_INVALID, 8, "5 fields"},
    {"* * * * *", CRON_QUARTZ, ERR_INVALID, 10, "6 or 7"},
    {"0 0 0 1 1 ? 2030 x", CRON_AUTO, ERR_INVALID, 18, "at most 7"},
    {"0 0 1 1 * 2030", CRON_UNIX, ERR_INVALID, 11, "5 fields"},
    {"60 * * * * ?", CRON_AUTO, ERR_INVALID, 1, "0 to 59"},
    {"99 * * * * ?", CRON_AUTO, ERR_INVALID, 1, "0 to 59"},
    {"0 0 24 * * ?", CRON_AUTO, ERR_INVALID, 5, "0 to 23"},
    {"0 0 0 0W * ?", CRON_AUTO, ERR_INVALID, 7, "1 to 31"},
    {"0 0 0 32W * ?", CRON_AUTO, ERR_INVALID, 7, "1 to 31"},
    {"0 0 0 L-31 * ?", CRON_AUTO, ERR_INVALID, 9, "0 to 30"},
    {"0 0 0 1-5W * ?", CRON_AUTO, ERR_INVALID, 10, "15W"},
    {"0 0 0 ? * 8", CRON_AUTO, ERR_INVALID, 11, "Sunday = 1"},
    {"0 0 0 ? * 0", CRON_AUTO, ERR_INVALID, 11, "Sunday = 1"},
    {"0 0 0 ? * 2#6", CRON_AUTO, ERR_INVALID, 13, "1 to 5"},
    {"0 0 0 ? * 2#", CRON_AUTO, ERR_INVALID, 13, "nothing follows"},
    {"0 0 0 ? * 2-4L", CRON_AUTO, ERR_INVALID, 14, "L stands"},
    {"0 0 0 ? * MONDAY", CRON_AUTO, ERR_INVALID, 14, "comma"},
    {"0 0 0 ? * MUN", CRON_AUTO, ERR_INVALID, 11, "SUN to SAT"},
    {"0 0 0 ? JANUARY MON", CRON_AUTO, ERR_INVALID, 12, "comma"},
    {"0 0 0 ? 13 MON", CRON_AUTO, ERR_INVALID, 9, "JAN to DEC"},
    {"0 0 0 * * *", CRON_AUTO, ERR_INVALID, 11, "?"},
    {"0 0 0 ? * ?", CRON_AUTO, ERR_INVALID, 11, "?"},
    {"? 0 0 1 * ?", CRON_AUTO, ERR_INVALID, 1, "day fields only"},
    {"0 0 0 1,? * ?", CRON_AUTO, ERR_INVALID, 9, "? stands alone"},
    {"0 */0 0 1 * ?", CRON_AUTO, ERR_INVALID, 5, "at least 1"},
    {"0 */60 0 1 * ?", CRON_AUTO, ERR_INVALID, 5, "larger than the field"},
    {"0 */ 0 1 * ?", CRON_AUTO, ERR_INVALID, 5, "expected a step"},
    {"0 /5 0 1 * ?", CRON_AUTO, ERR_INVALID, 3, "*/5"},
    {"0 1,,2 0 1 * ?", CRON_AUTO, ERR_INVALID, 5, "0 to 59"},
    {"0 1, 0 1 * ?", CRON_AUTO, ERR_INVALID, 5, "nothing follows"},
    {"0 1-2-3 0 1 * ?", CRON_AUTO, ERR_INVALID, 6, "comma"},
    {"0 -5 0 1 * ?", CRON_AUTO, ERR_INVALID, 3, "0 to 59"},
    {"0 5x 0 1 * ?", CRON_AUTO, ERR_INVALID, 4, "comma"},
    {"0 4294967301 0 1 * ?", CRON_AUTO, ERR_INVALID, 3, "0 to 59"},
    {"0 0 0 1 * ? 1969", CRON_AUTO, ERR_INVALID, 13, "1970 to 2199"},
    {"0 0 0 1 * ? 2200", CRON_AUTO, ERR_INVALID, 13, "1970 to 2199"},
    {"0 0 0 1 * ? 2030-2020", CRON_AUTO, ERR_INVALID, 18, "ascend"},
    {"0 0 0 5C * ?", CRON_AUTO, ERR_INVALID, 8, "comma"},
    {"60 * * * *", CRON_AUTO, ERR_INVALID, 1, "0 to 59"},
    {"0 22-3 * * *", CRON_AUTO, ERR_INVALID, 6, "ascend"},
    {"5/15 * * * *", CRON_AUTO, ERR_INVALID, 2, "range"},
    {"0 0 L * *", CRON_AUTO, ERR_INVALID, 5, "QUARTZ"},
    {"0 0 ? * 1", CRON_AUTO, ERR_INVALID, 5, "QUARTZ"},
    {"0 0 * * 5#2", CRON_AUTO, ERR_INVALID, 10, "QUARTZ"},
    {"0 0 15W * *", CRON_AUTO, ERR_INVALID, 7, "QUARTZ"},
    {"0 0 * * 8", CRON_AUTO, ERR_INVALID, 9, "0 to 7"},
    {"0 0 * * wxd", CRON_AUTO, ERR_INVALID, 9, ""},
    {"@reboot", CRON_AUTO, ERR_INVALID, 1, "no instant"},
    {"@dailyy", CRON_AUTO, ERR_INVALID, 1, "@daily"},
    {"0 0 0 30 2 ?", CRON_AUTO, ERR_NEVER_FIRES, 7, "never"},
    {"0 0 0 31 4,6,9,11 ?", CRON_AUTO, ERR_NEVER_FIRES, 7, "never"},
    {"0 0 0 31W 4 ?", CRON_AUTO, ERR_NEVER_FIRES, 7, "never"},
    {"0 0 0 L-30W 2,4 ?", CRON_AUTO, ERR_NEVER_FIRES, 7, "never"},
    {"0 0 0 29 2 ? 2100,2026", CRON_AUTO, ERR_NEVER_FIRES, 7, "never"},
    {"0 0 30 2 *", CRON_AUTO, ERR_NEVER_FIRES, 5, "never"},
};

static void test_wrong(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    struct cron c;
    struct err e = {0};
    int r = cron_parse(slice_of(wrong[i].expr), wrong[i].dialect, &c, &e);
    if (r != wrong[i].code || e.column != wrong[i].column || !strstr(e.text, wrong[i].part))
      fail_msg("\"%s\": %d, column %d, %s", wrong[i].expr, r, e.column, e.text);
  }
  char text[CRON_TEXT_MAX + 2];
  memset(text, '1', sizeof text);
  struct cron c;
  assert_int_equal(cron_parse(slice_n(text, sizeof text), CRON_AUTO, &c, NULL), ERR_TOO_LARGE);
}

static void test_shortest(void **state) {
  (void)state;
  static const struct {
    const char *expr;
    int64_t seconds;
  } all[] = {
      {"* * * * * ?", 1},
      {"0 * * * * ?", 60},
      {"*/7 * * * * ?", 4},
      {"0 */15 * * * ?", 900},
      {"0 0,50 * * * ?", 600},
      {"0 0,50 3 * * ?", 3000},
      {"0 0 2 * * ?", 86400},
      {"0 0 1,23 * * ?", 7200},
      {"0 0 1,23 ? * MON", 79200},
      {"0 0 0 1,15 * ?", 14 * 86400},
      {"0 0 0 29 2 ?", 1461 * 86400LL},
      {"30,10 0 0 * * ?", 20},
      {"0 0 0 1 1 ? 2030", CRON_NEVER},
      {"@monthly", 28 * 86400},
      {"0 30 0,23 ? * 1,2", 3600},
  };
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
    struct cron c = parse(all[i].expr);
    if (cron_shortest(&c) != all[i].seconds)
      fail_msg("%s: %lld", all[i].expr, (long long)cron_shortest(&c));
  }
}

static void test_explain(void **state) {
  (void)state;
  static const struct {
    const char *expr, *en, *zh;
  } all[] = {
      {"0 30 2 ? * MON", "at 02:30 every Monday", "每周一 02:30"},
      {"30 2 * * 1-5", "at 02:30 every Monday to Friday", "每周一至周五 02:30"},
      {"0 0 12 * * ?", "at 12:00 every day", "每天 12:00"},
      {"15 0 0,12 * * ?", "at 00:00:15 and 12:00:15 every day", "每天 00:00:15、12:00:15"},
      {"*/15 * * * *", "every 15 minutes", "每 15 分钟"},
      {"*/10 * * * * ?", "every 10 seconds", "每 10 秒"},
      {"* * * * * ?", "every second", "每秒"},
      {"5 * * * *", "at minute 5 of every hour", "每小时第 5 分"},
      {"*/5 9-17 * * *", "every 5 minutes in the hours 9 to 17", "9至17 点每 5 分钟"},
      {"0 0 0 LW 1 ?", "at 00:00 on the last working day of the month in January",
       "1月 每月最后一个工作日 00:00"},
      {"0 0 0 L-2,15W * ? 2030",
       "at 00:00 on the day 2 days before the last, the working day nearest to day 15 of the month in 2030",
       "2030年 每月倒数第3天、最接近15日的工作日 00:00"},
      {"0 0 0 ? * 6#3,2L", "at 00:00 on the third Friday, the last Monday of the month",
       "每月第3个周五、最后一个周一 00:00"},
      {"0 4 1 * 5", "at 04:00 on day 1 of the month or every Friday", "每月1日或每周五 04:00"},
      {"0 4 */15 * 5", "at 04:00 on day 1, day 16 and day 31 of the month if it is Friday",
       "每月1日、16日、31日且为周五 04:00"},
  };
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
    struct cron c = parse(all[i].expr);
    auto_str en, zh;
    str_init(&en, 4096);
    str_init(&zh, 4096);
    cron_explain(&c, CRON_EN, &en);
    cron_explain(&c, CRON_ZH, &zh);
    assert_string_equal(en.p, all[i].en);
    assert_string_equal(zh.p, all[i].zh);
  }
}

/* What does not fit, and nothing else. */
static void test_mismatch(void **state) {
  (void)state;
  static const struct {
    const char *expr;
    int64_t at; /* 1728043200 = Friday 2024-10-04T12:00:00 */
    unsigned bad;
    const char *en, *zh;
  } all[] = {
      {"0 0 12 * * ?", 1728043200, 0, "", ""},
      {"0 0 12 * * ?", 1728043230, 1u << CRON_SECOND, "second 30 is not in 0", "秒 30 不在0"},
      {"0 15,30 9-17 * * ?", 1728043200 + 6 * 3600, 1u << CRON_MINUTE | 1u << CRON_HOUR,
       "minute 0 is not in 15 and 30; hour 18 is not in 9 to 17", "分 0 不在15、30；时 18 不在9至17"},
      {"0 0 12 ? * MON", 1728043200, 1u << CRON_DAY, "2024-10-04, a Friday, is not every Monday",
       "2024-10-04（周五）不是每周一"},
      {"0 0 12 L 1 ? 2023", 1728043200, 1u << CRON_DAY | 1u << CRON_MONTH | 1u << CRON_YEAR,
       "2024-10-04, a Friday, is not on the last day of the month; month 10 is not in 1; year 2024 is not in "
       "2023",
       "2024-10-04（周五）不是每月最后一天；月 10 不在1；年 2024 不在2023年"},
      {"*/10 * * * * ?", 1728043203, 1u << CRON_SECOND, "second 3 is not a multiple of 10",
       "秒 3 不是 10 的倍数"},
      {"0 12 4 * 1", 1728043200, 0, "", ""}, /* either day suffices */
      {"0 12 3 * 1", 1728043200, 1u << CRON_DAY, NULL, NULL},
  };
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
    struct cron c = parse(all[i].expr);
    assert_int_equal(cron_mismatch(&c, all[i].at), all[i].bad);
    for (int lang = 0; lang < CRON_LANG_MAX_ && all[i].en; lang++) {
      auto_str text;
      str_init(&text, 4096);
      cron_mismatch_words(&c, all[i].at, (enum cron_lang)lang, &text);
      assert_string_equal(text.p ? text.p : "", lang == CRON_ZH ? all[i].zh : all[i].en);
    }
  }
  /* the same as cron_matches, everywhere */
  struct rng r;
  rng_seed(&r, 12);
  struct cron c = parse("0,30 */7 0-12 1-15 */2 ? 2020-2030");
  for (int k = 0; k < 20000; k++) {
    int64_t t = (int64_t)rng_below(&r, 60 * 366 * 86400LL);
    t = k % 2 ? cron_next(&c, t) + (int64_t)rng_below(&r, 3) * 30 : t;
    if (t < 60 * 366 * 86400LL)
      assert_int_equal(cron_mismatch(&c, t) == 0, cron_matches(&c, t));
  }
  assert_true(cron_mismatch(&c, -1) & 1u << CRON_YEAR);
}

/* Anything may come from outside; and what parses must be searchable, describable, and bounded. */
static void test_noise(void **state) {
  (void)state;
  static const char letters[] = "0123456789 ,-/*?LW#MONFRIJAN@\t";
  struct rng r;
  rng_seed(&r, 11);
  for (int k = 0; k < 200000; k++) {
    char text[40];
    size_t n = (size_t)rng_below(&r, sizeof text);
    for (size_t i = 0; i < n; i++)
      text[i] = rng_below(&r, 50) ? letters[rng_below(&r, sizeof letters - 1)] : (char)rng_next(&r);
    for (size_t i = 1; k % 2 && i < n; i += 2) /* fields of one letter are right more often */
      text[i] = ' ';
    struct cron c;
    struct err e = {0};
    if (cron_parse(slice_n(text, n), CRON_AUTO, &c, &e) < 0) {
      assert_true(e.code < 0 && e.column >= 1 && e.column <= (int)n + 1 && e.text[0]);
      continue;
    }
    int64_t t = cron_next(&c, (int64_t)rng_below(&r, 5000000000));
    assert_true(t == CRON_NEVER || cron_matches(&c, t));
    assert_true(cron_shortest(&c) > 0);
    auto_str words;
    str_init(&words, 16384);
    cron_explain(&c, (enum cron_lang)(k / 2 % 2), &words);
    assert_false(str_failed(&words));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_days),     cmocka_unit_test(test_next),     cmocka_unit_test(test_end),
      cmocka_unit_test(test_wrong),    cmocka_unit_test(test_shortest), cmocka_unit_test(test_explain),
      cmocka_unit_test(test_mismatch), cmocka_unit_test(test_noise),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
