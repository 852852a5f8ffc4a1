#include "base/time.h"
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

static void test_rfc3339_good(void **state) {
  (void)state;
  static const struct {
    const char *text;
    usec_t want;
  } rows[] = {
      {"1970-01-01T00:00:00Z", 0},
      {"1970-01-01T00:00:00.000001Z", 1},
      {"2026-11-23T04:46:10Z", INT64_C(1795409170) * USEC_PER_SEC},
      {"2026-11-23t04:46:10z", INT64_C(1795409170) * USEC_PER_SEC},
      {"2026-11-23T12:46:10+08:00", INT64_C(1795409170) * USEC_PER_SEC},
      {"2026-11-22T18:46:10-10:00", INT64_C(1795409170) * USEC_PER_SEC},
      {"2026-11-23T04:46:10-00:00", INT64_C(1795409170) * USEC_PER_SEC},
      {"2026-11-23T04:46:10.5Z", INT64_C(1795409170) * USEC_PER_SEC + 500000},
      {"2026-11-23T04:46:10.123456Z", INT64_C(1795409170) * USEC_PER_SEC + 123456},
      {"2024-02-29T00:00:00Z", INT64_C(1709164800) * USEC_PER_SEC},
      {"2000-02-29T23:59:59Z", INT64_C(951868799) * USEC_PER_SEC},
      {"9999-12-31T23:59:59.999999Z", INT64_C(253402300799) * USEC_PER_SEC + 999999},
      {"1970-01-01T23:59:00+23:59", 0},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    usec_t t = -1;
    assert_int_equal(time_parse_rfc3339(slice_of(rows[i].text), &t, NULL), 0);
    assert_true(t == rows[i].want);
  }
}

static void test_rfc3339_bad(void **state) {
  (void)state;
  static const struct {
    const char *text;
    int column;
  } rows[] = {
      {"", 1},
      {"2026", 5},
      {"2026-11-23", 11},
      {"2026-11-23T04:46:10", 20},
      {"2026-11-23 04:46:10Z", 11},
      {"2026-13-01T00:00:00Z", 6},
      {"2026-00-01T00:00:00Z", 6},
      {"2026-02-29T00:00:00Z", 9},
      {"2100-02-29T00:00:00Z", 9},
      {"2026-04-31T00:00:00Z", 9},
      {"2026-01-00T00:00:00Z", 9},
      {"2026-01-01T24:00:00Z", 12},
      {"2026-01-01T00:60:00Z", 15},
      {"2026-12-31T23:59:60Z", 18},
      {"2026-01-01T00:00:00.Z", 21},
      {"2026-01-01T00:00:00.1234567Z", 27},
      {"2026-01-01T00:00:00+24:00", 21},
      {"2026-01-01T00:00:00+08", 23},
      {"2026-01-01T00:00:00+0800", 23},
      {"2026-01-01T00:00:00Z ", 21},
      {"2026-01-01T00:00:00ZZ", 21},
      {"1969-12-31T23:59:59Z", 1},
      {"+026-01-01T00:00:00Z", 1},
      {"10000-01-01T00:00:00Z", 1},
      {"2026-1-01T00:00:00Z", 7},
      {"1970-01-01T00:00:00+00:01", 0},
      {"9999-12-31T23:59:59-00:01", 0},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    usec_t t = -7;
    struct err e = {0};
    assert_int_equal(time_parse_rfc3339(slice_of(rows[i].text), &t, &e), ERR_INVALID);
    assert_int_equal(time_parse_rfc3339(slice_of(rows[i].text), &t, NULL), ERR_INVALID);
    assert_true(t == -7);
    if (e.column != rows[i].column && rows[i].column)
      print_error("%s: column %d\n", rows[i].text, e.column);
    assert_int_equal(e.column, rows[i].column);
  }
  usec_t t = -7;
  assert_int_equal(time_parse_rfc3339(slice_n("1970-01-01T00:00:00Z\0", 21), &t, NULL), ERR_INVALID);
  assert_int_equal(time_parse_rfc3339(slice_n("1970-01-01T00:00:00\0", 20), &t, NULL), ERR_INVALID);
}

static void test_format(void **state) {
  (void)state;
  char buf[TIME_TEXT_MAX];
  assert_string_equal(time_format(0, buf), "1970-01-01T00:00:00Z");
  assert_string_equal(time_format(1, buf), "1970-01-01T00:00:00.000001Z");
  assert_string_equal(time_format(1000, buf), "1970-01-01T00:00:00.001Z");
  assert_string_equal(time_format(-1, buf), "1969-12-31T23:59:59.999999Z");
  assert_string_equal(time_format(INT64_C(253402300799) * USEC_PER_SEC, buf), "9999-12-31T23:59:59Z");
  assert_true(strlen(time_format(USEC_NEVER, buf)) < TIME_TEXT_MAX);
  assert_true(strlen(time_format(INT64_MIN, buf)) < TIME_TEXT_MAX);
  usec_t t = INT64_C(1774746000) * USEC_PER_SEC; /* 2026-03-29T01:00:00Z */
  assert_string_equal(time_format_offset(t, 7200, buf), "2026-03-29T03:00:00+02:00");
  assert_string_equal(time_format_offset(t, -34200, buf), "2026-03-28T15:30:00-09:30");
  assert_string_equal(time_format_offset(t, 0, buf), "2026-03-29T01:00:00+00:00");
  /* Paris before 1911 was 9 min 21 s ahead: the text still means the same instant */
  assert_string_equal(time_format_offset(t, 561, buf), "2026-03-29T01:09:00+00:09");
  assert_true(strlen(time_format_offset(USEC_NEVER, 3600, buf)) < TIME_TEXT_MAX);
}

static void test_format_parses_back(void **state) {
  (void)state;
  char buf[TIME_TEXT_MAX];
  usec_t step = INT64_C(86399) * USEC_PER_SEC * 11 + 1234567, back = 0;
  for (usec_t t = 0; t < INT64_C(253402300799) * USEC_PER_SEC; t += step) {
    assert_int_equal(time_parse_rfc3339(slice_of(time_format(t, buf)), &back, NULL), 0);
    assert_true(back == t);
  }
}

static void test_durations(void **state) {
  (void)state;
  static const struct {
    const char *text;
    usec_t want;
  } good[] = {{"0s", 0},
              {"250us", 250},
              {"1500ms", 1500000},
              {"30s", 30 * USEC_PER_SEC},
              {"5m", 5 * USEC_PER_MIN},
              {"2h", 2 * USEC_PER_HOUR},
              {"7d", 7 * USEC_PER_DAY},
              {"1h30m", 90 * USEC_PER_MIN},
              {"1d2h3m4s5ms6us", INT64_C(93784005006)},
              {"9223372036854775807us", INT64_MAX},
              {"106751991d4h54s775807us", INT64_MAX}};
  static const char *const bad[] = {"",
                                    "s",
                                    "5",
                                    "5 s",
                                    "-5s",
                                    "+5s",
                                    "1.5s",
                                    "5S",
                                    "05s",
                                    "00s",
                                    "1m1m",
                                    "1m1h",
                                    "5sec",
                                    "5s ",
                                    " 5s",
                                    "1h30",
                                    "9223372036854775808us",
                                    "106751992d",
                                    "99999999999999999999d",
                                    "9223372036854775807us1us",
                                    "9999999999h"};
  usec_t d = -3;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_int_equal(duration_parse(slice_of(bad[i]), 0, INT64_MAX, &d, NULL), ERR_INVALID);
  assert_true(d == -3);
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    assert_int_equal(duration_parse(slice_of(good[i].text), 0, INT64_MAX, &d, NULL), 0);
    assert_true(d == good[i].want);
  }
  struct err e = {0};
  assert_int_equal(duration_parse(SLICE("10s"), USEC_PER_SEC, 9 * USEC_PER_SEC, &d, &e), ERR_INVALID);
  assert_string_equal(e.text, "expected a duration such as 500ms, 30s, 5m or 1h30m, from 1s to 9s");
  assert_int_equal(duration_parse(SLICE("1s"), USEC_PER_SEC, 9 * USEC_PER_SEC, &d, &e), 0);
  assert_int_equal(duration_parse(SLICE("9s"), USEC_PER_SEC, 9 * USEC_PER_SEC, &d, &e), 0);
  assert_int_equal(duration_parse(SLICE("0s"), USEC_PER_SEC, 9 * USEC_PER_SEC, &d, &e), ERR_INVALID);
}

static void test_duration_format(void **state) {
  (void)state;
  static const struct {
    usec_t d;
    const char *want;
  } rows[] = {{0, "0s"},
              {1, "1us"},
              {1000, "1ms"},
              {1500000, "1500ms"},
              {60 * USEC_PER_SEC, "1m"},
              {90 * USEC_PER_MIN, "90m"},
              {36 * USEC_PER_HOUR, "36h"},
              {25 * USEC_PER_HOUR + USEC_PER_MIN, "25h1m"},
              {7 * USEC_PER_DAY, "7d"},
              {121 * USEC_PER_MIN, "2h1m"},
              {-1500000, "-1500ms"},
              {30 * USEC_PER_DAY + 1, "30d1us"}};
  char buf[TIME_TEXT_MAX];
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    assert_string_equal(duration_format(rows[i].d, buf), rows[i].want);
  assert_true(strlen(duration_format(INT64_MIN, buf)) < TIME_TEXT_MAX);
  usec_t back;
  for (usec_t d = 1; d < INT64_MAX / 7; d = d * 7 + d % 1001) {
    assert_int_equal(duration_parse(slice_of(duration_format(d, buf)), 0, INT64_MAX, &back, NULL), 0);
    assert_true(back == d);
  }
}

static void test_calendar(void **state) {
  (void)state;
  assert_true(year_is_leap(2000) && year_is_leap(2024) && !year_is_leap(1900) && !year_is_leap(2100) &&
              !year_is_leap(2023));
  assert_int_equal(month_length(2024, 2), 29);
  assert_int_equal(month_length(2100, 2), 28);
  assert_int_equal(month_length(2023, 12), 31);
  assert_int_equal(days_from_civil(1970, 1, 1), 0);
  assert_int_equal(days_from_civil(2000, 3, 1), 11017);
  assert_int_equal(days_from_civil(1, 1, 1), -719162);
  assert_int_equal(weekday_from_days(0), 4);
  assert_int_equal(weekday_from_days(-1), 3);
  assert_int_equal(weekday_from_days(-5), 6);
  assert_int_equal(weekday_from_days(days_from_civil(2026, 11, 23)), 1);
  /* every day from before the era boundary to past 9999, walked by hand */
  int64_t year = -401, y;
  int month = 1, day = 1, m, d;
  for (int64_t days = days_from_civil(year, 1, 1); year < 10001; days++) {
    civil_from_days(days, &y, &m, &d);
    if (y != year || m != month || d != day || days_from_civil(year, month, day) != days)
      fail_msg("%lld-%d-%d", (long long)year, month, day);
    if (++day > month_length(year, month)) {
      day = 1;
      if (++month > 12) {
        month = 1;
        year++;
      }
    }
  }
}

static void test_clock(void **state) {
  (void)state;
  usec_t a = clock_system.mono(&clock_system), w = clock_system.wall(&clock_system);
  assert_true(clock_system.mono(&clock_system) >= a);
  assert_true(w > INT64_C(1700000000) * USEC_PER_SEC);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_rfc3339_good), cmocka_unit_test(test_rfc3339_bad),
      cmocka_unit_test(test_format),       cmocka_unit_test(test_format_parses_back),
      cmocka_unit_test(test_durations),    cmocka_unit_test(test_duration_format),
      cmocka_unit_test(test_calendar),     cmocka_unit_test(test_clock),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
