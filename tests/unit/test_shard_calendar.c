/* Instants on excluded days: each in exactly one row, SKIPPED/CALENDAR, neighbours of one step in one. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "core/calendar.h"
#include "core/shard.h"
#include "spec_util.h"

#define HOUR USEC_PER_HOUR
#define DAY  USEC_PER_DAY
#define T0   (20000 * DAY) /* 2024-10-04 */

static struct shard *s;
static struct fire_batch b;

static enum overlap_decision start(void *arg, const struct overlap_ask *ask) {
  (void)arg, (void)ask;
  return OVERLAP_DO_START;
}
static const struct shard_overlap OVERLAP = {start, NULL};

static int setup(void **state) {
  (void)state;
  specs_open();
  s = shard_new(1, &(struct shard_limits){.max_rows = 100, .max_work = 100000, .idle_advance = 1});
  shard_reset(s, 1, 1, T0, INT64_MAX);
  return 0;
}

static int teardown(void **state) {
  (void)state;
  fire_batch_done(&b);
  shard_free(&s);
  specs_close();
  return 0;
}

/* A task whose calendar excludes the days first…last after T0. */
static struct task_spec *spec_with(const char *schedule, const char *rest, int first, int last) {
  char text[1024], a[CALENDAR_DAY_TEXT], z[CALENDAR_DAY_TEXT];
  struct task_spec *spec = NULL;
  struct err e = {0};
  (void)snprintf(
      text, sizeof text,
      "{\"executor_group\":\"g\",\"handler\":\"h\",\"schedule\":{%s,\"calendar\":\"c\"},\"calendar\":{"
      "\"version\":1,\"excluded\":[\"%s/%s\"]}%s}",
      schedule, calendar_day_format(20000 + first, a), calendar_day_format(20000 + last, z), rest);
  if (spec_cache_get(specs, slice_of(text), &spec, &e) < 0)
    fail_msg("%s %s", e.field, e.text);
  return spec;
}

static void load(struct task_spec *spec) {
  struct shard_version v = {1, 1, TASK_ENABLED, T0, T0, spec};
  shard_put(s, &v);
  shard_loaded(s);
}

static void step(usec_t now) { assert_true(shard_collect(s, now, &OVERLAP, NULL, 0, &b)); }

static void row(size_t i, enum run_state state, enum run_reason reason, usec_t first, usec_t last,
                int64_t count) {
  assert_true(i < b.count);
  assert_int_equal(b.items[i].state, state);
  assert_int_equal(b.items[i].reason, reason);
  assert_true(b.items[i].key.scheduled_at == last);
  if (count > 1 || b.items[i].missed_count) {
    assert_true(b.items[i].missed_first == first);
    assert_int_equal(b.items[i].missed_count, count);
  }
}

static void test_one_by_one(void **state) {
  (void)state;
  load(spec_with(EVERY("6h"), "", 1, 1));
  for (int n = 1; n < 12; n++) {
    usec_t at = T0 + n * 6 * HOUR;
    bool excluded = n >= 4 && n < 8;
    step(at + USEC_PER_MS);
    assert_int_equal(b.count, 1);
    row(0, excluded ? RUN_SKIPPED : RUN_PENDING, excluded ? REASON_CALENDAR : REASON_DISPATCHING, at, at, 1);
    shard_fired(s, &b);
  }
}

/* A step over missed and excluded ones: each kind in a row of its own; what was missed before the holiday is made up. */
static void test_one_step(void **state) {
  (void)state;
  load(spec_with(EVERY("1h"), ",\"misfire_policy\":\"FIRE_ONCE\"", 1, 3));
  step(T0 + 3 * DAY + HOUR / 2);
  assert_int_equal(b.count, 2);
  row(0, RUN_PENDING, REASON_DISPATCHING, T0 + HOUR, T0 + 23 * HOUR, 23);
  assert_int_equal(b.items[0].origin, ORIGIN_CATCHUP);
  row(1, RUN_SKIPPED, REASON_CALENDAR, T0 + DAY, T0 + 3 * DAY, 49);
  shard_refused(s, &b);
  step(T0 + 5 * DAY + HOUR / 2); /* nobody could fire: the holiday lies in the middle */
  assert_int_equal(b.count, 3);
  row(0, RUN_SKIPPED, REASON_MISFIRE, T0 + HOUR, T0 + 23 * HOUR, 23);
  row(1, RUN_SKIPPED, REASON_CALENDAR, T0 + DAY, T0 + 4 * DAY - HOUR, 72);
  row(2, RUN_PENDING, REASON_DISPATCHING, T0 + 4 * DAY, T0 + 5 * DAY, 25);
  shard_refused(s, &b);
}

/* Excluded instants do not count for max_runs, and a FIXED_DELAY goes on after one. */
static void test_counts(void **state) {
  (void)state;
  load(spec_with(EVERY("12h") ",\"max_runs\":2", "", 1, 1));
  int runs = 0, skipped = 0;
  for (int n = 1; n < 10; n++) {
    step(T0 + n * 12 * HOUR + 1);
    for (size_t i = 0; i < b.count; i++) {
      runs += b.items[i].state == RUN_PENDING;
      skipped += b.items[i].state == RUN_SKIPPED;
    }
    shard_fired(s, &b);
  }
  assert_int_equal(runs, 2);
  assert_int_equal(skipped, 2);
  struct shard_version v = {2, 1, TASK_ENABLED, T0 + 6 * DAY, T0, spec_with(DELAY("12h"), "", 6, 6)};
  shard_change(s, &v, 2);
  step(T0 + 6 * DAY + 12 * HOUR + 1);
  assert_int_equal(b.count, 1);
  row(0, RUN_SKIPPED, REASON_CALENDAR, T0 + 6 * DAY + 12 * HOUR, T0 + 6 * DAY + 12 * HOUR, 1);
  shard_fired(s, &b);
  step(T0 + 7 * DAY + 2);
  assert_int_equal(b.count, 1);
  assert_int_equal(b.items[0].state, RUN_PENDING);
  shard_fired(s, &b);
}

/* Caught up on request: the excluded ones apart, all others by the policy. */
static void test_catch_up(void **state) {
  (void)state;
  struct shard_version v = {1,
                            2,
                            TASK_ENABLED,
                            T0,
                            T0 - 10 * DAY,
                            spec_with(EVERY("1h"),
                                      ",\"misfire_policy\":\"FIRE_ALL\",\"catchup_window\":\"30d\","
                                      "\"catchup_max_runs\":30",
                                      -3, -2)};
  shard_put(s, &v);
  shard_loaded(s);
  const struct fire_request r = {
      .key = {1, 0, 1, 0}, .catch_up = true, .from = T0 - 4 * DAY, .to = T0, .inbox_no = 5};
  assert_true(shard_collect(s, T0 + 1, &OVERLAP, &r, 1, &b));
  assert_int_equal(b.inbox_count, 1);
  assert_int_equal(b.count, 32);
  int64_t runs = 0, excluded = 0, missed = 0;
  for (size_t i = 0; i < b.count; i++) {
    runs += b.items[i].state == RUN_PENDING;
    excluded += b.items[i].reason == REASON_CALENDAR ? b.items[i].missed_count : 0;
    missed += b.items[i].reason == REASON_MISFIRE ? b.items[i].missed_count : 0;
  }
  assert_int_equal(runs, 30);
  assert_int_equal(excluded, 48);
  assert_int_equal(missed, 4 * 24 - 48 - 30);
  shard_fired(s, &b);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_one_by_one, setup, teardown),
      cmocka_unit_test_setup_teardown(test_one_step, setup, teardown),
      cmocka_unit_test_setup_teardown(test_counts, setup, teardown),
      cmocka_unit_test_setup_teardown(test_catch_up, setup, teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
