#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "zoneinfo.h"
#include "base/mem.h"
#include "base/rng.h"
#include "core/calendar.h"
#include "core/schedule.h"
#include "core/task_spec.h"

#define DAY (USEC_PER_DAY / USEC_PER_SEC)

static struct zone_set *zones;

static int setup(void **state) {
  (void)state;
  zones = test_zones();
  return 0;
}

static int teardown(void **state) {
  (void)state;
  zone_set_free(&zones);
  return 0;
}

static struct calendar *calendar_of(const char *text) {
  struct calendar *c = NULL;
  struct err e = {0};
  auto_json *j = NULL;
  assert_int_equal(json_read(slice_of(text), 1 << 20, &j, &e), 0);
  if (calendar_read(j, &c, &e) < 0)
    fail_msg("%s: %s", e.field, e.text);
  return c;
}

static void test_normal_form(void **state) {
  (void)state;
  auto_calendar *c =
      calendar_of("{\"excluded\":[\"2026-10-03/2026-10-07\",\"2026-10-01\",\"2026-10-02\","
                  "\"2027-01-01\",\"2026-10-05\"],\"extra_days\":[\"2026-10-11\",\"2026-10-10\","
                  "\"2026-10-10\",\"2024-02-29\"],\"name\":\"x\"}");
  auto_json *j = calendar_json(c);
  auto_free char *text = json_canonical(j);
  assert_string_equal(text, "{\"excluded\":[\"2026-10-01/2026-10-07\",\"2027-01-01\"],\"extra_days\":["
                            "\"2024-02-29\",\"2026-10-10/2026-10-11\"]}");
  auto_calendar *again = calendar_of(text), *copy = calendar_copy(again);
  auto_json *k = calendar_json(copy);
  assert_true(json_equal(j, k));
  auto_calendar *none = calendar_of("{\"excluded\":null}");
  assert_false(calendar_excludes(none, 20000, NULL));
  assert_false(calendar_is_extra(none, 20000));
}

static void refuse(const char *text, const char *field, const char *why) {
  struct calendar *c = NULL;
  struct err e = {0};
  auto_json *j = NULL;
  assert_int_equal(json_read(slice_of(text), 1 << 20, &j, &e), 0);
  assert_true(calendar_read(j, &c, &e) < 0);
  assert_null(c);
  assert_string_equal(e.field, field);
  if (!strstr(e.text, why))
    fail_msg("%s", e.text);
}

static void test_refused(void **state) {
  (void)state;
  refuse("[]", "", "an object");
  refuse("{\"excluded\":\"2026-10-01\"}", "/excluded", "a list");
  refuse("{\"excluded\":[\"2026-10-01\",20261001]}", "/excluded/1", "a date such as");
  refuse("{\"excluded\":[\"2026-02-29\"]}", "/excluded/0", "no such date");
  refuse("{\"excluded\":[\"2026-13-01\"]}", "/excluded/0", "no such date");
  refuse("{\"excluded\":[\"1969-12-31\"]}", "/excluded/0", "1970 to 2199");
  refuse("{\"excluded\":[\"2026-1-01\"]}", "/excluded/0", "a date such as");
  refuse("{\"excluded\":[\"2026-10-07/2026-10-01\"]}", "/excluded/0", "ends before");
  refuse("{\"excluded\":[\"2026-10-01/2026-10-07/2026-10-08\"]}", "/excluded/0", "a date such as");
  refuse("{\"excluded\":[\"2026-10-01/\"]}", "/excluded/0", "a date such as");
  refuse("{\"extra_days\":[\"2026-10-01/2199-10-07\"]}", "/extra_days", "1000 days");
  refuse("{\"excluded\":[\"2026-10-01/2026-10-07\"],\"extra_days\":[\"2026-10-07\"]}", "/extra_days",
         "2026-10-07 is excluded as well");
  struct str many;
  str_init(&many, 1 << 20);
  str_addz(&many, "{\"excluded\":[");
  for (int i = 0; i <= CALENDAR_ENTRIES_MAX; i++)
    str_addz(&many, i ? ",\"2026-10-01\"" : "\"2026-10-01\"");
  str_addz(&many, "]}");
  refuse(many.p, "/excluded", "at most 1000");
  str_done(&many);
}

/* ------------------------------------------------------------------ against brute force */

/* Entries as drawn, asked one by one. */
struct drawn {
  int64_t first[12], last[12], extra[8];
  int excluded_count, extra_count;
};

static bool is_excluded(const struct drawn *d, int64_t day) {
  for (int i = 0; i < d->excluded_count; i++)
    if (day >= d->first[i] && day <= d->last[i])
      return true;
  return false;
}

static bool is_extra(const struct drawn *d, int64_t day) {
  for (int i = 0; i < d->extra_count; i++)
    if (d->extra[i] == day)
      return true;
  return false;
}

static struct calendar *draw(struct rng *rng, int64_t first_day, int days, struct drawn *d) {
  struct str s;
  char a[CALENDAR_DAY_TEXT], b[CALENDAR_DAY_TEXT];
  str_init(&s, 4096);
  *d = (struct drawn){.excluded_count = (int)(rng_next(rng) % 12)};
  str_addz(&s, "{\"excluded\":[");
  for (int i = 0; i < d->excluded_count; i++) {
    d->first[i] = first_day + (int64_t)(rng_next(rng) % (uint64_t)days);
    d->last[i] = d->first[i] + (int64_t)(rng_next(rng) % 6);
    str_addf(&s, "%s\"%s/%s\"", i ? "," : "", calendar_day_format(d->first[i], a),
             calendar_day_format(d->last[i], b));
  }
  str_addz(&s, "],\"extra_days\":[");
  for (int i = 0; i < 8; i++) {
    int64_t day = first_day + (int64_t)(rng_next(rng) % (uint64_t)days);
    if (is_excluded(d, day))
      continue;
    str_addf(&s, "%s\"%s\"", d->extra_count ? "," : "", calendar_day_format(day, a));
    d->extra[d->extra_count++] = day;
  }
  str_addz(&s, "]}");
  struct calendar *c = calendar_of(s.p);
  str_done(&s);
  return c;
}

/* Does the expression, with the extra days, have this local second? From its bits alone. */
static bool has(const struct cron *c, const struct drawn *d, int64_t local) {
  int64_t day = local / DAY, year;
  int second = (int)(local % DAY), month, in_month;
  if (!(c->seconds >> second % 60 & 1) || !(c->minutes >> second / 60 % 60 & 1) ||
      !(c->hours >> second / 3600 & 1))
    return false;
  civil_from_days(day, &year, &month, &in_month);
  int bit = (int)year - CRON_FIRST_YEAR;
  if (!(c->months >> month & 1) || !(c->years[bit / 64] >> bit % 64 & 1))
    return false;
  return (cron_days(c, (int)year, month) >> in_month & 1) || is_extra(d, day);
}

static const char *const expressions[] = {
    "0 30 9 ? * MON-FRI",    "0 0 0 ? * MON-FRI",   "0 59 23 1,15 * ?",    "0 */7 3-5 L * ?",
    "0 0 12 ? 3,4,10 MON#1", "0 0,30 22-2 ? * SAT", "0 15 10 ? * 6L 2026", "0 0 6 LW 2,10 ?"};

static void walk(const char *expression, const char *zone_name, struct rng *rng) {
  const struct zone *z = NULL;
  struct schedule *s = NULL;
  struct cron c;
  struct drawn d;
  enum { DAYS = 90 };
  int64_t first = days_from_civil(2026, 1, 1) + (int64_t)(rng_next(rng) % 300);
  auto_calendar *calendar = draw(rng, first, DAYS, &d);
  assert_int_equal(zone_set_get(zones, slice_of(zone_name), &z, NULL), 0);
  struct schedule_input in = {.kind = SCHEDULE_CRON, .expr = slice_of(expression), .zone = z};
  assert_int_equal(schedule_new(&in, &s, NULL), 0);
  schedule_set_calendar(s, calendar);
  assert_int_equal(cron_parse(slice_of(expression), CRON_AUTO, &c, NULL), 0);
  usec_t next = schedule_next(s, 0, first * USEC_PER_DAY - 1);
  usec_t included = schedule_next_included(s, 0, first * USEC_PER_DAY - 1);
  for (int64_t utc = first * DAY; utc < (first + DAYS) * DAY; utc += 60) {
    int64_t local = utc + zone_offset_at(z, utc * USEC_PER_SEC);
    bool due = next == utc * USEC_PER_SEC;
    if (has(&c, &d, local) != due)
      fail_msg("%s %s at %lld: %d", expression, zone_name, (long long)utc, due);
    if (!due)
      continue;
    struct schedule_note note;
    bool excluded = is_excluded(&d, local / DAY);
    schedule_explain(s, next, &note);
    assert_int_equal(schedule_excluded(s, next), excluded);
    assert_int_equal(note.calendar, excluded                    ? CALENDAR_EXCLUDED
                                    : is_extra(&d, local / DAY) ? CALENDAR_EXTRA_DAY
                                                                : CALENDAR_NOTHING);
    if (!excluded) {
      assert_true(included == next);
      included = schedule_next_included(s, 0, next);
    }
    next = schedule_next(s, 0, next);
  }
  schedule_free(&s);
}

static void test_brute_force(void **state) {
  (void)state;
  static const char *const steady[] = {"UTC", "Asia/Shanghai", "-09:30", "Asia/Kolkata"};
  struct rng rng;
  rng_seed(&rng, 4711);
  for (size_t i = 0; i < sizeof expressions / sizeof *expressions; i++)
    for (size_t k = 0; k < sizeof steady / sizeof *steady; k++)
      for (int n = 0; n < 4; n++)
        walk(expressions[i], steady[k], &rng);
}

/* The extra day is the only one of a schedule that is rare else; and it does not reach over the year field. */
static void test_rare(void **state) {
  (void)state;
  struct schedule *s = NULL;
  auto_calendar *c = calendar_of("{\"extra_days\":[\"2027-02-03\",\"2026-03-03\",\"2028-02-03\"]}");
  struct schedule_input in = {.kind = SCHEDULE_CRON, .expr = SLICE("0 0 8 29 2 ? 2028")};
  assert_int_equal(schedule_new(&in, &s, NULL), 0);
  schedule_set_calendar(s, c);
  usec_t t = schedule_next(s, 0, 0), want;
  assert_int_equal(time_parse_rfc3339(SLICE("2028-02-03T08:00:00Z"), &want, NULL), 0);
  assert_true(t == want);
  t = schedule_next(s, 0, t);
  assert_true(schedule_next(s, 0, t) == USEC_NEVER && t > want);
  schedule_free(&s);
}

/* A change of the clock at midnight, at the end of an excluded range, from both sides. */
static void test_midnight_jumps(void **state) {
  (void)state;
  static const struct {
    const char *zone, *day, *from, *want;
  } cases[] = {
      /* 2018-11-04: 00:00 becomes 01:00 */
      {"America/Sao_Paulo", "2018-11-03", "2018-11-03T12:00:00Z", "2018-11-04T03:00:00Z"},
      /* 2018-02-18: 00:00 becomes 23:00 of the 17th: that hour is excluded twice */
      {"America/Sao_Paulo", "2018-02-17", "2018-02-17T12:00:00Z", "2018-02-18T03:00:00Z"},
      {"Europe/Berlin", "2026-03-29", "2026-03-29T00:59:00Z", "2026-03-29T22:00:00Z"},
      {"Europe/Berlin", "2026-10-25", "2026-10-25T00:59:00Z", "2026-10-25T23:00:00Z"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char text[64], got[TIME_TEXT_MAX];
    (void)snprintf(text, sizeof text, "{\"excluded\":[\"%s\"]}", cases[i].day);
    auto_calendar *c = calendar_of(text);
    struct schedule *s = NULL;
    struct schedule_input in = {.kind = SCHEDULE_FIXED_RATE, .every = 10 * USEC_PER_MIN};
    assert_int_equal(zone_set_get(zones, slice_of(cases[i].zone), &in.zone, NULL), 0);
    assert_int_equal(schedule_new(&in, &s, NULL), 0);
    schedule_set_calendar(s, c);
    usec_t from;
    assert_int_equal(time_parse_rfc3339(slice_of(cases[i].from), &from, NULL), 0);
    assert_string_equal(time_format(schedule_next_included(s, 0, from), got), cases[i].want);
    schedule_free(&s);
  }
}

/* ------------------------------------------------------------------ in a task's definition */

static void test_definition(void **state) {
  (void)state;
  struct err e = {0};
  struct task_input in;
  auto_json *doc = NULL;
  assert_int_equal(
      json_read(SLICE("{\"name\":\"t\",\"executor_group\":\"g\",\"handler\":\"h\",\"schedule\":{"
                      "\"kind\":\"CRON\",\"expression\":\"0 0 8 ? * MON-FRI\",\"calendar\":\"cn\"}}"),
                4096, &doc, &e),
      0);
  assert_int_equal(task_input_parse(doc, zones, 0, &in, &e), 0);
  assert_string_equal(in.spec->calendar, "cn");
  assert_int_equal(in.spec->calendar_version, 0);
  auto_calendar *c = calendar_of("{\"excluded\":[\"2026-10-01\"],\"extra_days\":[\"2026-10-10\"]}");
  assert_int_equal(task_input_bind(&in, 3, c, &e), 0);
  assert_non_null(strstr(in.definition, "\"calendar\":{\"excluded\":[\"2026-10-01\"],\"extra_days\":["
                                        "\"2026-10-10\"],\"version\":3}"));
  auto_calendar *other = calendar_of("{\"excluded\":[\"2026-10-02\"]}");
  auto_free char *changed = NULL;
  assert_int_equal(task_definition_bind(slice_of(in.definition), 4, other, &changed, &e), 0);
  assert_null(strstr(changed, "2026-10-01"));
  struct task_spec *spec = NULL;
  assert_int_equal(task_spec_parse(slice_of(changed), zones, &spec, &e), 0);
  assert_int_equal(spec->calendar_version, 4);
  usec_t t;
  assert_int_equal(time_parse_rfc3339(SLICE("2026-10-02T08:00:00Z"), &t, NULL), 0);
  assert_true(schedule_excluded(spec->schedule, t) && !schedule_excluded(in.spec->schedule, t));
  /* people see the name */
  const struct task_source src = {.definition = slice_of(changed), .name = "t"};
  auto_json *shown = NULL;
  assert_int_equal(task_document(&src, &shown, &e), 0);
  assert_null(json_object_get(shown, "calendar"));
  assert_string_equal(json_string_value(json_object_get(json_object_get(shown, "schedule"), "calendar")),
                      "cn");
  task_spec_unref(&spec);
  task_input_done(&in);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_normal_form),    cmocka_unit_test(test_refused),
      cmocka_unit_test(test_brute_force),    cmocka_unit_test(test_rare),
      cmocka_unit_test(test_midnight_jumps), cmocka_unit_test(test_definition),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
