/* Where the time of a run went, the instants of a range, and how a question is read. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "explain_util.h"

/* ------------------------------------------------------------------ where the time went */

struct a_part {
  enum explain_part_kind kind;
  usec_t from, to; /* after NOON */
  int32_t attempt;
  const char *waited_for;
};
#define P(kind) EXPLAIN_PART_##kind

static void check_parts(const struct explain_answer *a, const struct a_part *want, size_t count) {
  assert_int_equal(a->part_count, count);
  for (size_t i = 0; i < count; i++) {
    const struct explain_part *p = &a->parts[i];
    assert_string_equal(explain_part_names[p->kind], explain_part_names[want[i].kind]);
    assert_int_equal(p->from, NOON + want[i].from);
    assert_int_equal(p->to, want[i].to ? NOON + want[i].to : 0);
    assert_int_equal(p->attempt, want[i].attempt);
    assert_string_equal(p->waited_for ? p->waited_for : "", want[i].waited_for ? want[i].waited_for : "");
  }
}

static void test_parts(void **state) {
  struct world w;
  struct explain_answer a;
  (void)state;
  const struct attempt_row attempts[] = {
      {.attempt = 1, .dispatched_at = NOON + 100, .started_at = NOON + 200, .finished_at = NOON + 900},
      {.attempt = 2, .dispatched_at = NOON + 2000, .finished_at = NOON + 2500}};
  struct a_case retried = {.at = NOON,
                           .run = {{.state = RUN_SUCCESS,
                                    .attempt = 3,
                                    .fired_at = NOON + 50,
                                    .attempt_at = NOON + 4000,
                                    .started_at = NOON + 4100,
                                    .finished_at = NOON + 9000}}};
  make(&w, &retried);
  w.runs[0].attempts = attempts;
  w.runs[0].attempt_count = 2;
  explain_instant(&w.f, NOON, &mem, &a);
  const struct a_part want[] = {{P(DECIDE), 0, 50, 0, NULL},          {P(WAIT), 50, 100, 0, NULL},
                                {P(DELIVER), 100, 200, 1, NULL},      {P(RUN), 200, 900, 1, NULL},
                                {P(RETRY_WAIT), 900, 2000, 0, NULL},  {P(DELIVER), 2000, 2500, 2, NULL},
                                {P(RETRY_WAIT), 2500, 4000, 0, NULL}, {P(DELIVER), 4000, 4100, 3, NULL},
                                {P(RUN), 4100, 9000, 3, NULL}};
  check_parts(&a, want, sizeof want / sizeof *want);
  drop(&w);

  /* every wait has its cause: an earlier run, a release, a bound that nobody kept, or what it waits for now */
  struct a_case waited = {.at = NOON,
                          .run = {{.state = RUN_SUCCESS,
                                   .attempt = 1,
                                   .fired_at = NOON + 50,
                                   .attempt_at = NOON + 5 * SEC,
                                   .started_at = NOON + 5 * SEC,
                                   .finished_at = NOON + 6 * SEC}}};
  const char *const causes[] = {"BOUND", "TASK", "RELEASE"};
  for (int i = 0; i < 3; i++) {
    waited.run[0].origin = i == 2 ? ORIGIN_CATCHUP : ORIGIN_SCHEDULE;
    waited.before = i == 1
                        ? (struct a_run){.at = NOON - HOUR, .state = RUN_FAIL, .finished_at = NOON + 5 * SEC}
                        : (struct a_run){0};
    answer(&w, &waited, &a);
    const struct a_part parts[] = {{P(DECIDE), 0, 50, 0, NULL},
                                   {P(WAIT), 50, 5 * SEC, 0, causes[i]},
                                   {P(RUN), 5 * SEC, 6 * SEC, 1, NULL}};
    check_parts(&a, parts, 3);
    assert_ptr_equal(a.parts[1].behind, i == 1 ? &w.before : NULL);
    drop(&w);
  }
  /* of what is released at a rate an earlier run is the cause only when its end let it go */
  for (int i = 0; i < 2; i++) {
    waited.run[0].origin = ORIGIN_BACKFILL;
    waited.before =
        (struct a_run){.at = NOON - HOUR, .state = RUN_FAIL, .finished_at = NOON + (i ? 5 : 1) * SEC};
    answer(&w, &waited, &a);
    assert_int_equal(a.parts[0].kind, EXPLAIN_PART_WAIT); /* nor was it late */
    assert_string_equal(a.parts[0].waited_for, i ? "TASK" : "RELEASE");
    drop(&w);
  }
  struct a_case queued = {.at = NOON,
                          .run = {{.reason = REASON_QUEUED, .waits_for = WAIT_RATE, .fired_at = NOON + 50}}};
  answer(&w, &queued, &a);
  const struct a_part open[] = {{P(DECIDE), 0, 50, 0, NULL}, {P(WAIT), 50, 0, 0, "RATE"}};
  check_parts(&a, open, 2);
  drop(&w);
}

/* Caught up after a pause: it waited for the resume, and was decided in no time from there. */
static void test_after_a_pause(void **state) {
  struct world w;
  struct explain_answer a;
  const struct a_case c = {.at = NOON,
                           .v = {RESUMED},
                           .run = {{.state = RUN_SUCCESS,
                                    .origin = ORIGIN_CATCHUP,
                                    .version = 3,
                                    .attempt = 1,
                                    .fired_at = NOON + HOUR + 50,
                                    .attempt_at = NOON + HOUR + 50,
                                    .started_at = NOON + HOUR + 50,
                                    .finished_at = NOON + 2 * HOUR}}};
  (void)state;
  answer(&w, &c, &a);
  const struct a_part want[] = {{P(PAUSED), 0, HOUR, 0, NULL},
                                {P(DECIDE), HOUR, HOUR + 50, 0, NULL},
                                {P(RUN), HOUR + 50, 2 * HOUR, 1, NULL}};
  check_parts(&a, want, 3);
  assert_int_equal(a.due, NOON);
  assert_int_equal(a.late_from, NOON + HOUR);
  assert_ptr_equal(a.version, &w.v[2]);
  assert_ptr_equal(a.change, &w.v[1]);
  assert_ptr_equal(a.other, &w.v[2]);
  drop(&w);
}

/* One notation in one answer: the zone's, Z where that is UTC. */
static void test_local(void **state) {
  struct world w;
  struct explain_answer a;
  char buf[TIME_TEXT_MAX];
  const struct a_case berlin = {.at = NOON, .v = {FIRST(BERLIN("0 0 * * * ?"))}}, utc = {.at = NOON};
  (void)state;
  answer(&w, &berlin, &a);
  assert_string_equal(explain_local(&w.f, &a, NOON, buf), "2024-10-04T14:00:00+02:00");
  assert_string_equal(explain_local(&w.f, &a, NOON + 60 * DAY, buf), "2024-12-03T13:00:00+01:00");
  drop(&w);
  answer(&w, &utc, &a);
  assert_string_equal(explain_local(&w.f, &a, NOON, buf), "2024-10-04T12:00:00Z");
  drop(&w);
}

/* With jitter: due later than the instant, but never late for that. */
static void test_jitter(void **state) {
  struct world w;
  struct explain_answer a;
  struct a_case c = {.at = NOON, .v = {FIRST(HOURLY ",\"jitter\":\"30m\"")}};
  (void)state;
  answer(&w, &c, &a);
  usec_t due = NOON + schedule_jitter(w.v[0].spec->schedule, TASK, NOON);
  assert_true(due > NOON + SEC);
  assert_int_equal(a.due, due);
  assert_int_equal(a.code, EXPLAIN_NO_RECORD);
  drop(&w);
  c.run[0] = (struct a_run){.state = RUN_SUCCESS,
                            .attempt = 1,
                            .fired_at = due + 10,
                            .attempt_at = due + 10,
                            .finished_at = due + 10};
  answer(&w, &c, &a);
  assert_int_equal(a.notes, N(JITTERED));
  assert_int_equal(a.part_count, 2);
  assert_int_equal(a.parts[0].kind, EXPLAIN_PART_JITTER);
  assert_int_equal(a.parts[0].to, due);
  assert_int_equal(a.parts[1].kind, EXPLAIN_PART_DECIDE);
  drop(&w);
}

/* ------------------------------------------------------------------ ranges, surroundings */

static void test_instants(void **state) {
  struct world w;
  usec_t *found;
  struct a_case c = {.at = NOON,
                     .v = {FIRST(HOURLY),
                           THEN(CRON("0 0,30 * * * ?"), NOON),
                           PAUSE_AT(NOON + 2 * HOUR),
                           {HOURLY, TASK_DELETED, NOON + 4 * HOUR, NULL, 0}},
                     .run = {{.at = NOON + 77, .state = RUN_SUCCESS}, {.at = NOON, .state = RUN_SUCCESS}}};
  (void)state;
  make(&w, &c);
  struct explain_range r = {NOON - HOUR, NOON + 9 * HOUR, 100, false};
  const usec_t want[] = {NOON - HOUR,     NOON,
                         NOON + 77,       NOON + HOUR / 2,
                         NOON + HOUR,     NOON + HOUR + HOUR / 2,
                         NOON + 2 * HOUR, NOON + 3 * HOUR,
                         NOON + 4 * HOUR};
  assert_int_equal(explain_instants(&w.f, &r, &mem, &found), 9);
  assert_memory_equal(found, want, sizeof want);
  assert_false(r.more);
  r.max = 4;
  assert_int_equal(explain_instants(&w.f, &r, &mem, &found), 4);
  assert_memory_equal(found, want, 4 * sizeof *want);
  assert_true(r.more);
  r = (struct explain_range){NOON + 5 * HOUR, NOON + 9 * HOUR, 100, false};
  assert_int_equal(explain_instants(&w.f, &r, &mem, &found), 0);
  drop(&w);
}

static void test_nearest(void **state) {
  struct world w;
  struct explain_answer a;
  const struct a_case c = {.at = NOON + 1};
  (void)state;
  answer(&w, &c, &a);
  assert_int_equal(a.previous, NOON);
  assert_int_equal(a.next, NOON + HOUR);
  assert_int_equal(a.mismatch, 1u << CRON_SECOND);
  assert_ptr_equal(a.version, &w.v[0]);
  drop(&w);
}

/* ------------------------------------------------------------------ the question */

static void test_span(void **state) {
  const struct zone *z;
  struct err e = {0};
  (void)state;
  assert_int_equal(zone_set_get(zones, SLICE("Europe/Berlin"), &z, &e), 0);
  const struct {
    const char *at;
    usec_t within, from, to, twin;
  } good[] = {
      {"2024-10-04T12:00:00Z", 0, NOON, NOON, 0},
      {"2024-10-04T12:00:00.5Z", 0, NOON + SEC / 2, NOON + SEC / 2, 0},
      {"2024-10-04T14:00:00+02:00", 0, NOON, NOON, 0},
      {"2024-10-04T14:00:00", 0, NOON, NOON, 0},
      {"2024-10-04T14:00", 0, NOON, NOON + USEC_PER_MIN - 1, 0},
      {"2024-10-04T12:00Z", 0, NOON, NOON + USEC_PER_MIN - 1, 0},
      {"2024-10-04T14:00+02:00", 0, NOON, NOON + USEC_PER_MIN - 1, 0},
      {"2024-10-04T12:00:00Z", HOUR, NOON - HOUR, NOON + HOUR, 0},
      {"1970-01-01T00:00:01Z", HOUR, 0, HOUR + SEC, 0},
      {"2024-10-27T02:30:00", 0, BACK - 1800 * SEC, BACK - 1800 * SEC, BACK + 1800 * SEC},
  };
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    struct explain_span s;
    assert_int_equal(explain_span_parse(slice_of(good[i].at), good[i].within, z, &s, &e), 0);
    assert_int_equal(s.from, good[i].from);
    assert_int_equal(s.to, good[i].to);
    assert_int_equal(s.twin, good[i].twin);
    assert_false(s.left_out);
  }
  struct explain_span s;
  assert_int_equal(explain_span_parse(SLICE("2024-03-31T02:30"), HOUR, z, &s, &e), 0);
  assert_true(s.left_out && s.from == GAP && s.to == GAP && s.at == GAP);
  assert_int_equal(s.local_sec, GAP / SEC + 3600 + 1800);
  const char *const bad[] = {"",
                             "now",
                             "2024-10-04",
                             "2024-10-04T12",
                             "2024-10-04T12:60",
                             "2024-13-04T12:00:00Z",
                             "2024-10-04T12:00:00 ",
                             "12:00",
                             "2024-10-04T12:00:00Z2024-10-04T12:00:00Z2024-10-04T12:00:00Z",
                             "2024-10-04T1200:00",
                             "2024-10-04T12:00Zz"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    if (explain_span_parse(slice_of(bad[i]), 0, z, &s, &e) != ERR_INVALID)
      fail_msg("\"%s\" was taken", bad[i]);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_parts),         cmocka_unit_test(test_jitter),
                                     cmocka_unit_test(test_after_a_pause), cmocka_unit_test(test_local),
                                     cmocka_unit_test(test_instants),      cmocka_unit_test(test_nearest),
                                     cmocka_unit_test(test_span)};
  return cmocka_run_group_tests(tests, setup, teardown);
}
