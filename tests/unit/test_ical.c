/* iCalendar files as calendars: what is taken, and what is refused with its line. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/mem.h"
#include "base/rng.h"
#include "cli/ical.h"
#include "core/calendar.h"

#define HEAD         "BEGIN:VCALENDAR\r\nVERSION:2.0\r\n"
#define TAIL         "END:VCALENDAR\r\n"
#define EVENT(lines) "BEGIN:VEVENT\r\n" lines "END:VEVENT\r\n"

static int read_text(const char *text, struct ical_ask ask, json_t **ret, struct err *e) {
  if (!ask.last_year)
    ask.last_year = 2029;
  return ical_read(slice_of(text), &ask, ret, e);
}

static void expect(const char *text, struct ical_ask ask, const char *want) {
  auto_json *j = NULL;
  struct err e = {0};
  if (read_text(text, ask, &j, &e) < 0)
    fail_msg("%s", e.text);
  auto_free char *got = json_canonical(j);
  assert_string_equal(got, want);
}

static void test_taken(void **state) {
  (void)state;
  expect(HEAD TAIL, (struct ical_ask){0}, "{\"excluded\":[],\"extra_days\":[]}");
  expect("\xef\xbb\xbf" HEAD EVENT(
             "DTSTART;VALUE=DATE:20261001\r\nDTEND;VALUE=DATE:20261008\r\nSUMMARY:a\r\n") TAIL,
         (struct ical_ask){0}, "{\"excluded\":[\"2026-10-01/2026-10-07\"],\"extra_days\":[]}");
  expect(HEAD EVENT("DTSTART:20261001\nDURATION:P1W\n") EVENT("DTSTART:20270101\nDTEND:20270101\n")
             EVENT("DTSTART:20270102\nSTATUS:CANCELLED\n") TAIL,
         (struct ical_ask){0}, "{\"excluded\":[\"2026-10-01/2026-10-07\",\"2027-01-01\"],\"extra_days\":[]}");
  /* a long line is folded, also in the middle of a name; an alarm has a life of its own */
  expect(HEAD EVENT("DTST\r\n ART;X=\"a:b;c\"\r\n "
                    ";VALUE=DATE:2026\r\n\t1001\r\nBEGIN:VALARM\r\nDTSTART:20000101T000000\r\n"
                    "END:VALARM\r\n") TAIL,
         (struct ical_ask){0}, "{\"excluded\":[\"2026-10-01\"],\"extra_days\":[]}");
}

static void test_by_summary(void **state) {
  (void)state;
  static const char text[] = HEAD EVENT("SUMMARY:国庆节（休）\r\nDTSTART:20261001\r\n")
      EVENT("SUMMARY:国庆节（班）\r\nDTSTART:20261010\r\n") EVENT("SUMMARY:情人节\r\nDTSTART:20260214\r\n")
          TAIL;
  expect(text, (struct ical_ask){.holiday_if = SLICE("休"), .workday_if = SLICE("班")},
         "{\"excluded\":[\"2026-10-01\"],\"extra_days\":[\"2026-10-10\"]}");
  expect(text, (struct ical_ask){.workday_if = SLICE("班")},
         "{\"excluded\":[\"2026-10-01\",\"2026-02-14\"],\"extra_days\":[\"2026-10-10\"]}");
}

static void test_yearly(void **state) {
  (void)state;
  struct ical_ask none = {0};
  expect(HEAD EVENT("DTSTART:20261225\nDTEND:20261227\nRRULE:FREQ=YEARLY\n") TAIL, none,
         "{\"excluded\":[\"2026-12-25/2026-12-26\",\"2027-12-25/2027-12-26\",\"2028-12-25/2028-12-26\","
         "\"2029-12-25/2029-12-26\"],\"extra_days\":[]}");
  expect(HEAD EVENT("DTSTART:20240229\nRRULE:FREQ=YEARLY;COUNT=2;BYMONTH=2;BYMONTHDAY=29\n") TAIL, none,
         "{\"excluded\":[\"2024-02-29\",\"2028-02-29\"],\"extra_days\":[]}");
  expect(HEAD EVENT(
             "DTSTART:20200101\nRRULE:FREQ=YEARLY;INTERVAL=3;UNTIL=20260101T000000Z\nEXDATE:20230101\n") TAIL,
         none, "{\"excluded\":[\"2020-01-01\",\"2026-01-01\"],\"extra_days\":[]}");
}

static void refuse(const char *text, const char *why) {
  json_t *j = NULL;
  struct err e = {0};
  assert_true(read_text(text, (struct ical_ask){0}, &j, &e) < 0);
  assert_null(j);
  if (!strstr(e.text, why))
    fail_msg("%s", e.text);
}

static void test_refused(void **state) {
  (void)state;
  refuse("", "line 1: expected BEGIN:VCALENDAR");
  refuse("hello\n", "line 1: expected BEGIN:VCALENDAR");
  refuse(HEAD EVENT("DTSTART:20261001T090000Z\n") TAIL, "line 4: a time of day");
  refuse(HEAD EVENT("DTSTART:20260230\n") TAIL, "line 4: there is no such date");
  refuse(HEAD EVENT("DTSTART:2026\n") TAIL, "line 4: expected a date");
  refuse(HEAD EVENT("SUMMARY:x\n") TAIL, "line 3: an event without DTSTART");
  refuse(HEAD EVENT("DTSTART:20261001\nDTEND:20260901\n") TAIL, "line 3: the event ends before");
  refuse(HEAD EVENT("DTSTART:20261001\nDURATION:PT1H\n") TAIL, "line 5: expected a DURATION");
  refuse(HEAD EVENT("DTSTART:20261001\nRRULE:FREQ=WEEKLY\n") TAIL, "line 5: only events that recur yearly");
  refuse(HEAD EVENT("DTSTART:20261126\nRRULE:FREQ=YEARLY;BYMONTH=11;BYDAY=4TH\n") TAIL,
         "line 5: this recurrence");
  refuse(HEAD EVENT("DTSTART:20261126\nRRULE:FREQ=YEARLY;BYMONTH=10\n") TAIL, "line 5: this recurrence");
  refuse(HEAD EVENT("DTSTART:20261126\nRRULE:COUNT=2\n") TAIL, "line 5: expected FREQ");
  refuse(HEAD EVENT("RRULE:FREQ=YEARLY\nDTSTART:20261126\n") TAIL, "line 4: expected DTSTART before");
  refuse(HEAD EVENT("DTSTART:20261126\nRECURRENCE-ID:20261126\n") TAIL, "line 5: a changed single");
  refuse(HEAD EVENT("DTSTART:20261126\nRDATE:20261126\n") TAIL, "line 5: RDATE");
  refuse(HEAD "BEGIN:VEVENT\nDTSTART:20261126\n", "line 3: this event has no END");
  refuse(HEAD "BEGIN:VEVENT\nEND:VCALENDAR\n", "line 4: expected END:VEVENT");
  struct str s;
  str_init(&s, 1 << 20);
  str_addz(&s, HEAD);
  for (int i = 0; i <= CALENDAR_ENTRIES_MAX; i++)
    str_addz(&s, EVENT("DTSTART:20261001\n"));
  refuse(s.p, "more days than a calendar takes");
  str_clear(&s);
  str_addz(&s, HEAD);
  for (int i = 0; i < 9000; i++)
    str_addz(&s, "x");
  refuse(s.p, "line 3: the line is too long");
  str_done(&s);
}

/* Cut and damaged files end in an answer, whatever it is. */
static void test_any_bytes(void **state) {
  (void)state;
  static const char text[] =
      HEAD EVENT("DTSTART;VALUE=DATE:20261225\r\nDTEND:20261227\r\nRRULE:FREQ=YEARLY;COUNT=3\r\n"
                 "SUMMARY:a\r\n b\r\nEXDATE:20261225,20271225\r\nDURATION:P2D\r\n") TAIL;
  struct rng rng;
  rng_seed(&rng, 99);
  for (int i = 0; i < 20000; i++) {
    auto_free char *copy = mem_strdup(text);
    size_t n = rng_next(&rng) % sizeof text;
    for (int k = 0; k < 3; k++)
      copy[rng_next(&rng) % (sizeof text - 1)] = "\r\n :;=,0129TPD\""[rng_next(&rng) % 15];
    auto_json *j = NULL;
    struct err e = {0};
    (void)ical_read(slice_n(copy, n), &(struct ical_ask){.last_year = 2040}, &j, &e);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_taken),   cmocka_unit_test(test_by_summary), cmocka_unit_test(test_yearly),
      cmocka_unit_test(test_refused), cmocka_unit_test(test_any_bytes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
