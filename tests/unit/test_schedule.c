#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "zoneinfo.h"
#include "base/rng.h"
#include "core/schedule.h"

static struct zone_set *zones;

static usec_t at(const char *text) {
  usec_t t;
  assert_int_equal(time_parse_rfc3339(slice_of(text), &t, NULL), 0);
  return t;
}

static const struct zone *get(const char *name) {
  const struct zone *z = NULL;
  assert_int_equal(zone_set_get(zones, slice_of(name), &z, NULL), 0);
  return z;
}

static struct schedule *make(struct schedule_input in) {
  struct schedule *s = NULL;
  struct err e = {0};
  if (schedule_new(&in, &s, &e) < 0)
    fail_msg("%s: %s", e.field, e.text);
  return s;
}

static struct schedule *cron(const char *expr, const char *zone, enum dst_gap gap, enum dst_overlap overlap) {
  return make((struct schedule_input){
      .kind = SCHEDULE_CRON, .expr = slice_of(expr), .zone = get(zone), .dst = {gap, overlap}});
}

/* The instants after `from` as local times with their notes: "01:30-04:00 overlap_first". */
struct example {
  const char *expr, *zone, *from;
  enum dst_gap gap;
  enum dst_overlap overlap;
  const char *expected[6];
};

static const char *short_note(enum dst_note n) {
  static const char *const names[] = {"", " made-up", " shifted", " first", " second"};
  return names[n];
}

static void run(const struct example *x) {
  struct schedule *s = cron(x->expr, x->zone, x->gap, x->overlap);
  usec_t t = at(x->from);
  for (size_t i = 0; i < sizeof x->expected / sizeof x->expected[0] && x->expected[i]; i++) {
    t = schedule_next(s, 0, t);
    struct schedule_note note;
    char local[TIME_TEXT_MAX];
    auto_str text;
    str_init(&text, 128);
    if (t != USEC_NEVER) {
      schedule_explain(s, t, &note);
      str_addf(&text, "%s%s", time_format_offset(t, note.offset, local), short_note(note.note));
    } else {
      str_addz(&text, "never");
    }
    if (strcmp(text.p, x->expected[i]) != 0)
      fail_msg("%s %s from %s, instant %zu: %s, expected %s", x->expr, x->zone, x->from, i, text.p,
               x->expected[i]);
  }
  schedule_free(&s);
}

#define AUTO DST_GAP_AUTO, DST_OVERLAP_AUTO
static const struct example gaps[] = {
    /* the daily one in the gap is not lost: the first instant after it */
    {"0 30 2 * * ?",
     "America/New_York",
     "2026-03-07T12:00:00Z",
     AUTO,
     {"2026-03-08T03:00:00-04:00 made-up", "2026-03-09T02:30:00-04:00"}},
    /* several times in the gap: once */
    {"0 0,20,40 2 * * ?",
     "America/New_York",
     "2026-03-08T05:00:00Z",
     AUTO,
     {"2026-03-08T03:00:00-04:00 made-up", "2026-03-09T02:00:00-04:00"}},
    /* a cadence goes on by itself */
    {"0 */30 * * * ?",
     "America/New_York",
     "2026-03-08T06:29:59Z",
     AUTO,
     {"2026-03-08T01:30:00-05:00", "2026-03-08T03:00:00-04:00", "2026-03-08T03:30:00-04:00"}},
    {"0 30 2,3 * * ?",
     "America/New_York",
     "2026-03-08T05:00:00Z",
     AUTO,
     {"2026-03-08T03:30:00-04:00", "2026-03-09T02:30:00-04:00"}},
    {"0 30 2,4 * * ?",
     "America/New_York",
     "2026-03-08T05:00:00Z",
     AUTO,
     {"2026-03-08T03:00:00-04:00 made-up", "2026-03-08T04:30:00-04:00"}},
    {"0 30 2 * * ?",
     "America/New_York",
     "2026-03-08T05:00:00Z",
     DST_GAP_SKIP,
     DST_OVERLAP_AUTO,
     {"2026-03-09T02:30:00-04:00"}},
    {"0 30 2,3 * * ?",
     "America/New_York",
     "2026-03-08T05:00:00Z",
     DST_GAP_ONCE_AFTER,
     DST_OVERLAP_AUTO,
     {"2026-03-08T03:00:00-04:00 made-up", "2026-03-08T03:30:00-04:00", "2026-03-09T02:30:00-04:00"}},
    /* the make-up and an ordinary instant fall together: once, and ordinary */
    {"0 0,30 2,3 * * ?",
     "America/New_York",
     "2026-03-08T05:00:00Z",
     DST_GAP_ONCE_AFTER,
     DST_OVERLAP_AUTO,
     {"2026-03-08T03:00:00-04:00", "2026-03-08T03:30:00-04:00", "2026-03-09T02:00:00-04:00"}},
    {"0 0,15,30 2,3 * * ?",
     "America/New_York",
     "2026-03-08T05:00:00Z",
     DST_GAP_SHIFT,
     DST_OVERLAP_AUTO,
     {"2026-03-08T03:00:00-04:00", "2026-03-08T03:15:00-04:00", "2026-03-08T03:30:00-04:00",
      "2026-03-09T02:00:00-04:00"}},
    {"0 15,45 2 * * ?",
     "America/New_York",
     "2026-03-08T05:00:00Z",
     DST_GAP_SHIFT,
     DST_OVERLAP_AUTO,
     {"2026-03-08T03:15:00-04:00 shifted", "2026-03-08T03:45:00-04:00 shifted", "2026-03-09T02:15:00-04:00"}},
    {"0 30 2 * * ?",
     "America/New_York",
     "2026-03-08T07:10:00Z",
     DST_GAP_SHIFT,
     DST_OVERLAP_AUTO,
     {"2026-03-08T03:30:00-04:00 shifted", "2026-03-09T02:30:00-04:00"}},
    {"0 30 1 * * ?",
     "Europe/London",
     "2026-03-28T12:00:00Z",
     AUTO,
     {"2026-03-29T02:00:00+01:00 made-up", "2026-03-30T01:30:00+01:00"}},
    {"0 30 1 * * ?",
     "Europe/Dublin",
     "2026-03-28T12:00:00Z",
     AUTO,
     {"2026-03-29T02:00:00+01:00 made-up", "2026-03-30T01:30:00+01:00"}},
    /* a jump at midnight: a day without its first hour */
    {"0 0 0 * * ?",
     "America/Sao_Paulo",
     "2018-11-03T12:00:00Z",
     AUTO,
     {"2018-11-04T01:00:00-02:00 made-up", "2018-11-05T00:00:00-02:00"}},
    {"0 0 0 30W * ?",
     "America/Sao_Paulo",
     "2018-10-31T12:00:00Z",
     AUTO,
     {"2018-11-30T00:00:00-02:00", "2018-12-31T00:00:00-02:00"}},
    {"0 30 0 ? * SUN", "Asia/Gaza", "2010-03-20T00:00:00Z", AUTO, {"2010-03-21T00:30:00+02:00"}},
    /* half an hour */
    {"0 10 2 * * ?",
     "Australia/Lord_Howe",
     "2026-10-03T12:00:00Z",
     AUTO,
     {"2026-10-04T02:30:00+11:00 made-up", "2026-10-05T02:10:00+11:00"}},
    {"0 10,40 2 * * ?",
     "Australia/Lord_Howe",
     "2026-10-03T12:00:00Z",
     AUTO,
     {"2026-10-04T02:40:00+11:00", "2026-10-05T02:10:00+11:00"}},
    /* two hours */
    {"0 30 1 * * ?",
     "Antarctica/Troll",
     "2026-03-28T12:00:00Z",
     AUTO,
     {"2026-03-29T03:00:00+02:00 made-up", "2026-03-30T01:30:00+02:00"}},
    {"0 30 2,4 * * ?",
     "Antarctica/Troll",
     "2026-03-28T12:00:00Z",
     AUTO,
     {"2026-03-29T04:30:00+02:00", "2026-03-30T02:30:00+02:00"}},
    /* a lost day gets no make-up, unless asked for */
    {"0 0 12 * * ?",
     "Pacific/Apia",
     "2011-12-29T00:00:00Z",
     AUTO,
     {"2011-12-29T12:00:00-10:00", "2011-12-31T12:00:00+14:00"}},
    {"0 0 12 * * ?",
     "Pacific/Apia",
     "2011-12-30T00:00:00Z",
     DST_GAP_ONCE_AFTER,
     DST_OVERLAP_AUTO,
     {"2011-12-31T00:00:00+14:00 made-up", "2011-12-31T12:00:00+14:00"}},
    {"0 0 0 30 12 ? 2011",
     "Pacific/Apia",
     "2011-12-01T00:00:00Z",
     DST_GAP_ONCE_AFTER,
     DST_OVERLAP_AUTO,
     {"2011-12-31T00:00:00+14:00 made-up", "never"}},
    /* three hours are long */
    {"0 30 1 * * ?", "Antarctica/Casey", "2020-10-03T12:00:00Z", AUTO, {"2020-10-05T01:30:00+11:00"}},
};

static const struct example overlaps[] = {
    {"0 30 1 * * ?",
     "America/New_York",
     "2026-10-31T12:00:00Z",
     AUTO,
     {"2026-11-01T01:30:00-04:00 first", "2026-11-02T01:30:00-05:00"}},
    {"0 0 * * * ?",
     "America/New_York",
     "2026-11-01T04:00:00Z",
     AUTO,
     {"2026-11-01T01:00:00-04:00 first", "2026-11-01T01:00:00-05:00 second", "2026-11-01T02:00:00-05:00"}},
    {"0 0 0-1 * * ?",
     "America/New_York",
     "2026-11-01T04:00:00Z",
     AUTO,
     {"2026-11-01T01:00:00-04:00 first", "2026-11-02T00:00:00-05:00"}},
    {"0 0 1-2 * * ?",
     "America/New_York",
     "2026-11-01T04:00:00Z",
     AUTO,
     {"2026-11-01T01:00:00-04:00 first", "2026-11-01T02:00:00-05:00"}},
    {"0 0 0-2 * * ?",
     "America/New_York",
     "2026-11-01T04:00:00Z",
     AUTO,
     {"2026-11-01T01:00:00-04:00 first", "2026-11-01T01:00:00-05:00 second", "2026-11-01T02:00:00-05:00"}},
    {"0 0,30 1 * * ?",
     "America/New_York",
     "2026-11-01T05:10:00Z",
     DST_GAP_AUTO,
     DST_OVERLAP_BOTH,
     {"2026-11-01T01:30:00-04:00 first", "2026-11-01T01:00:00-05:00 second",
      "2026-11-01T01:30:00-05:00 second", "2026-11-02T01:00:00-05:00"}},
    {"0 0 * * * ?",
     "America/New_York",
     "2026-11-01T04:00:00Z",
     DST_GAP_AUTO,
     DST_OVERLAP_FIRST,
     {"2026-11-01T01:00:00-04:00 first", "2026-11-01T02:00:00-05:00"}},
    {"0 0 * * * ?",
     "America/New_York",
     "2026-11-01T03:30:00Z",
     DST_GAP_AUTO,
     DST_OVERLAP_LAST,
     {"2026-11-01T00:00:00-04:00", "2026-11-01T01:00:00-05:00 second", "2026-11-01T02:00:00-05:00"}},
    /* back over midnight: the day begins twice */
    {"0 30 23 * * ?",
     "America/Sao_Paulo",
     "2019-02-16T12:00:00Z",
     AUTO,
     {"2019-02-16T23:30:00-02:00 first", "2019-02-17T23:30:00-03:00"}},
    {"0 45 1 * * ?",
     "Australia/Lord_Howe",
     "2026-04-04T12:00:00Z",
     AUTO,
     {"2026-04-05T01:45:00+11:00 first", "2026-04-06T01:45:00+10:30"}},
    {"0 */15 * * * ?",
     "Australia/Lord_Howe",
     "2026-04-04T14:30:00Z",
     AUTO,
     {"2026-04-05T01:45:00+11:00 first", "2026-04-05T01:30:00+10:30 second",
      "2026-04-05T01:45:00+10:30 second", "2026-04-05T02:00:00+10:30"}},
    /* Ramadan: back and forth within five weeks */
    {"0 30 2 * * ?",
     "Africa/Casablanca",
     "2026-02-14T12:00:00Z",
     AUTO,
     {"2026-02-15T02:30:00+01:00 first", "2026-02-16T02:30:00+00:00"}},
    {"0 30 2 * * ?",
     "Africa/Casablanca",
     "2026-03-21T12:00:00Z",
     AUTO,
     {"2026-03-22T03:00:00+01:00 made-up", "2026-03-23T02:30:00+01:00"}},
    /* three hours are long: the first copy only, even of a cadence */
    {"0 0 * * * ?",
     "Antarctica/Casey",
     "2010-03-04T13:30:00Z",
     AUTO,
     {"2010-03-05T01:00:00+11:00 first", "2010-03-05T02:00:00+08:00"}},
};

static void test_gaps(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof gaps / sizeof gaps[0]; i++)
    run(&gaps[i]);
}

static void test_overlaps(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof overlaps / sizeof overlaps[0]; i++)
    run(&overlaps[i]);
}

/* Whatever the zone, rule and expression: instants ascend, and each is found from every instant before it,
 * near or far. */
static void test_ascending(void **state) {
  (void)state;
  static const char *const names[] = {"America/New_York",  "Australia/Lord_Howe", "Pacific/Apia",
                                      "Africa/Casablanca", "Antarctica/Troll",    "Antarctica/Casey",
                                      "America/Sao_Paulo", "Asia/Gaza",           "Europe/Dublin"};
  static const char *const exprs[] = {"0 */20 * * * ?",        "0 30 2 * * ?",          "0 0,10,50 1-3 * * ?",
                                      "0 0 0 L * ?",           "0 15 0,23 ? * SUN,SAT", "0 30 1 29 2 ?",
                                      "0 0 2 ? 3,10,11 1#1,1L"};
  struct rng r;
  rng_seed(&r, 5);
  for (int k = 0; k < 1500; k++) {
    struct schedule *s =
        cron(exprs[rng_below(&r, 7)], names[rng_below(&r, 9)], (enum dst_gap)rng_below(&r, DST_GAP_MAX_),
             (enum dst_overlap)rng_below(&r, DST_OVERLAP_MAX_));
    usec_t from = (usec_t)rng_below(&r, (uint64_t)2400000000) * USEC_PER_SEC, t = from;
    for (int i = 0; i < 40; i++) {
      usec_t next = schedule_next(s, 0, t);
      if (next == USEC_NEVER) /* the leap days up to 2199 are used up */
        break;
      assert_true(next > t && next % USEC_PER_SEC == 0);
      usec_t between = t + (usec_t)rng_below(&r, (uint64_t)(next - t));
      assert_true(schedule_next(s, 0, between) == next);
      assert_true(schedule_next(s, 0, next - 1) == next);
      t = next;
    }
    schedule_free(&s);
  }
}

/* The instant before, from anywhere between two of them. */
static void test_previous(void **state) {
  (void)state;
  static const char *const exprs[] = {"* * * * * ?",  "0 */20 * * * ?", "0 30 2 * * ?",
                                      "0 0 0 29 2 ?", "0 0 0 L * ?",    "0 0 12 ? * MON-FRI 2020-2030"};
  struct rng r;
  rng_seed(&r, 6);
  for (int k = 0; k < 600; k++) {
    struct schedule *s =
        cron(exprs[rng_below(&r, 6)], "Europe/Berlin", (enum dst_gap)rng_below(&r, DST_GAP_MAX_),
             (enum dst_overlap)rng_below(&r, DST_OVERLAP_MAX_));
    usec_t from =
        at("2021-01-01T00:00:00Z") + (usec_t)rng_below(&r, (uint64_t)9 * 365 * 86400) * USEC_PER_SEC;
    usec_t t = schedule_next(s, 0, from), next = schedule_next(s, 0, t);
    if (next == USEC_NEVER)
      next = t + 1000;
    assert_true(schedule_previous(s, 0, next) == t);
    assert_true(schedule_previous(s, 0, t + 1) == t);
    assert_true(schedule_previous(s, 0, t + 1 + (usec_t)rng_below(&r, (uint64_t)(next - t))) == t);
    assert_true(schedule_has(s, 0, t) && !schedule_has(s, 0, t - 1) && !schedule_has(s, 0, t + 1));
    schedule_free(&s);
  }
  struct schedule *s = make((struct schedule_input){.kind = SCHEDULE_FIXED_RATE, .every = 30 * USEC_PER_SEC});
  assert_true(schedule_previous(s, 1000, 1000) == 0);
  assert_true(schedule_previous(s, 1000, 1001) == 1000);
  assert_true(schedule_previous(s, 1000, 1000 + 90 * USEC_PER_SEC) == 1000 + 60 * USEC_PER_SEC);
  schedule_free(&s);
  s = make((struct schedule_input){.kind = SCHEDULE_ONE_TIME});
  assert_true(schedule_previous(s, 5000, 5000) == 0 && schedule_previous(s, 5000, USEC_PER_DAY) == 5000);
  schedule_free(&s);
}

static void test_kinds(void **state) {
  (void)state;
  struct schedule *s = make((struct schedule_input){.kind = SCHEDULE_FIXED_RATE, .every = 30 * USEC_PER_SEC});
  assert_true(schedule_next(s, 1000, 0) == 1000);
  assert_true(schedule_next(s, 1000, 999) == 1000);
  assert_true(schedule_next(s, 1000, 1000) == 1000 + 30 * USEC_PER_SEC);
  assert_true(schedule_next(s, 1000, 1000 + 90 * USEC_PER_SEC - 1) == 1000 + 90 * USEC_PER_SEC);
  assert_true(schedule_next(s, 1000, INT64_MIN) == 1000);
  assert_true(schedule_next(s, 1000, USEC_NEVER) == USEC_NEVER);
  assert_true(schedule_next(s, 1000, USEC_NEVER - 5) == USEC_NEVER);
  assert_ptr_equal(schedule_zone(s), schedule_zone(s));
  assert_string_equal(zone_name(schedule_zone(s)), "UTC");
  schedule_free(&s);
  s = make((struct schedule_input){.kind = SCHEDULE_ONE_TIME});
  assert_true(schedule_next(s, 5000, 4999) == 5000);
  assert_true(schedule_next(s, 5000, 5000) == USEC_NEVER);
  schedule_free(&s);
  s = make((struct schedule_input){.kind = SCHEDULE_FIXED_DELAY, .every = USEC_PER_SEC});
  assert_true(schedule_next(s, 0, 0) == USEC_NEVER);
  schedule_free(&s);
  s = make((struct schedule_input){.kind = SCHEDULE_MANUAL});
  assert_true(schedule_next(s, 0, 0) == USEC_NEVER);
  assert_int_equal(schedule_kind(s), SCHEDULE_MANUAL);
  schedule_free(&s);
  schedule_free(&s);
}

static void test_window(void **state) {
  (void)state;
  struct schedule_input in = {.kind = SCHEDULE_CRON,
                              .expr = SLICE("0 0 12 * * ?"),
                              .start_at = at("2026-11-23T12:00:00Z"),
                              .end_at = at("2026-11-25T12:00:00Z")};
  struct schedule *s = make(in);
  usec_t t = schedule_next(s, 0, 0);
  assert_true(t == at("2026-11-23T12:00:00Z")); /* both ends belong to it */
  t = schedule_next(s, 0, schedule_next(s, 0, t));
  assert_true(t == at("2026-11-25T12:00:00Z"));
  assert_true(schedule_next(s, 0, t) == USEC_NEVER);
  schedule_free(&s);
  in = (struct schedule_input){
      .kind = SCHEDULE_FIXED_RATE, .every = USEC_PER_HOUR, .start_at = 90 * USEC_PER_MIN};
  s = make(in);
  assert_true(schedule_next(s, 0, 0) == 2 * USEC_PER_HOUR);
  schedule_free(&s);
}

static void refuse(struct schedule_input in, int code, const char *field) {
  struct schedule *s = NULL;
  struct err e = {0};
  assert_int_equal(schedule_new(&in, &s, &e), code);
  assert_int_equal(e.code, code);
  assert_string_equal(e.field, field);
  assert_null(s);
  assert_int_equal(schedule_new(&in, &s, NULL), code);
}

static void test_refused(void **state) {
  (void)state;
  refuse((struct schedule_input){.kind = SCHEDULE_CRON, .expr = SLICE("0 0 99 * * ?")}, ERR_INVALID,
         "/expression");
  refuse((struct schedule_input){.kind = SCHEDULE_CRON, .expr = SLICE("0 0 0 30 2 ?")}, ERR_NEVER_FIRES,
         "/expression");
  refuse((struct schedule_input){.kind = SCHEDULE_CRON,
                                 .expr = SLICE("0 0 0 1 1 ? 2020"),
                                 .start_at = at("2026-01-01T00:00:00Z")},
         ERR_NEVER_FIRES, "/expression");
  refuse((struct schedule_input){.kind = SCHEDULE_CRON,
                                 .expr = SLICE("0 0 0 1 1 ?"),
                                 .start_at = at("2026-01-02T00:00:00Z"),
                                 .end_at = at("2026-12-02T00:00:00Z")},
         ERR_NEVER_FIRES, "/expression");
  refuse((struct schedule_input){.kind = SCHEDULE_CRON,
                                 .expr = SLICE("0 0 12 30 12 ? 2011"),
                                 .zone = get("Pacific/Apia")},
         ERR_NEVER_FIRES, "/expression"); /* a day that this zone did not have */
  refuse((struct schedule_input){.kind = SCHEDULE_FIXED_RATE, .every = 0}, ERR_INVALID, "/every");
  refuse((struct schedule_input){.kind = SCHEDULE_FIXED_DELAY, .every = SCHEDULE_EVERY_MAX + 1}, ERR_INVALID,
         "/every");
  refuse((struct schedule_input){.kind = SCHEDULE_MANUAL, .start_at = 5, .end_at = 4}, ERR_INVALID,
         "/end_at");
  refuse((struct schedule_input){.kind = SCHEDULE_FIXED_RATE, .every = USEC_PER_SEC, .jitter = USEC_PER_SEC},
         ERR_INVALID, "/jitter");
  refuse((struct schedule_input){.kind = SCHEDULE_CRON,
                                 .expr = SLICE("0 */5 * * * ?"),
                                 .jitter = 5 * USEC_PER_MIN},
         ERR_INVALID, "/jitter");
  refuse((struct schedule_input){.kind = SCHEDULE_MANUAL, .jitter = -1}, ERR_INVALID, "/jitter");
  refuse((struct schedule_input){.kind = SCHEDULE_MANUAL, .jitter = SCHEDULE_JITTER_MAX + 1}, ERR_INVALID,
         "/jitter");
}

static void test_jitter(void **state) {
  (void)state;
  struct schedule *s = make((struct schedule_input){.kind = SCHEDULE_CRON,
                                                    .expr = SLICE("0 30 2,4 * * ?"),
                                                    .zone = get("America/New_York"),
                                                    .dst = {DST_GAP_SHIFT, DST_OVERLAP_BOTH},
                                                    .jitter = 110 * USEC_PER_MIN});
  assert_true(schedule_jitter_max(s) == 110 * USEC_PER_MIN);
  usec_t sum = 0;
  for (int64_t task = 0; task < 1000; task++) {
    usec_t nominal = at("2026-06-01T06:30:00Z"), j = schedule_jitter(s, task, nominal);
    assert_true(j >= 0 && j < 110 * USEC_PER_MIN && j == schedule_jitter(s, task, nominal));
    sum += j;
    /* the day of the gap: 03:30 (shifted) and 04:30 are one hour apart, the order stays */
    usec_t near = at("2026-03-08T07:30:00Z");
    assert_true(schedule_next(s, 0, near) == near + USEC_PER_HOUR);
    assert_true(schedule_jitter(s, task, near) < USEC_PER_HOUR);
  }
  assert_in_range(sum / 1000, 45 * USEC_PER_MIN, 65 * USEC_PER_MIN);
  schedule_free(&s);
  s = make((struct schedule_input){.kind = SCHEDULE_FIXED_RATE, .every = USEC_PER_SEC});
  assert_true(schedule_jitter(s, 1, 2) == 0);
  schedule_free(&s);
}

static void test_local_instant(void **state) {
  (void)state;
  const struct zone *ny = get("America/New_York");
  enum dst_note note;
  usec_t t;
  struct err e = {0};
  assert_int_equal(schedule_local_instant(ny, SLICE("2026-03-08T02:30:00"), &t, &note, &e), 0);
  assert_true(t == at("2026-03-08T03:30:00-04:00") && note == DST_GAP_SHIFTED);
  assert_int_equal(schedule_local_instant(ny, SLICE("2026-11-01T01:30:00.25"), &t, &note, &e), 0);
  assert_true(t == at("2026-11-01T01:30:00.25-04:00") && note == DST_FIRST_COPY);
  assert_int_equal(schedule_local_instant(ny, SLICE("2026-11-01T02:30:00"), &t, &note, &e), 0);
  assert_true(t == at("2026-11-01T02:30:00-05:00") && note == DST_NONE);
  assert_int_equal(schedule_local_instant(ny, SLICE("2026-11-01T02:30:00Z"), &t, &note, &e), ERR_INVALID);
  assert_int_equal(schedule_local_instant(ny, SLICE("2026-11-01 02:30"), &t, &note, &e), ERR_INVALID);
  assert_int_equal(schedule_local_instant(ny, SLICE(""), &t, &note, &e), ERR_INVALID);
  assert_int_equal(schedule_local_instant(get("+08:00"), SLICE("1970-01-01T00:00:00"), &t, &note, &e),
                   ERR_INVALID);
}

static void test_describe(void **state) {
  (void)state;
  struct schedule *s = cron("0 30 2 ? * MON", "Asia/Shanghai", AUTO);
  auto_str text;
  str_init(&text, 512);
  schedule_describe(s, CRON_EN, &text);
  assert_string_equal(text.p, "at 02:30 every Monday, Asia/Shanghai");
  str_clear(&text);
  schedule_describe(s, CRON_ZH, &text);
  assert_string_equal(text.p, "每周一 02:30（Asia/Shanghai）");
  schedule_free(&s);
  str_clear(&text);
  s = make((struct schedule_input){.kind = SCHEDULE_FIXED_RATE, .every = 90 * USEC_PER_SEC});
  schedule_describe(s, CRON_EN, &text);
  assert_string_equal(text.p, "every 90s");
  schedule_free(&s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_gaps),     cmocka_unit_test(test_overlaps),      cmocka_unit_test(test_ascending),
      cmocka_unit_test(test_kinds),    cmocka_unit_test(test_window),        cmocka_unit_test(test_refused),
      cmocka_unit_test(test_jitter),   cmocka_unit_test(test_local_instant), cmocka_unit_test(test_describe),
      cmocka_unit_test(test_previous),
  };
  zones = test_zones();
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  zone_set_free(&zones);
  return failed;
}
