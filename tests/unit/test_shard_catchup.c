/* Catch-ups on request: a year of missed instants in bounded steps, every one of them in exactly one row, and max_runs. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "core/shard.h"
#include "spec_util.h"

#define SEC  USEC_PER_SEC
#define YEAR (365 * USEC_PER_DAY)
#define T0   (2 * YEAR)

enum { MAX_ROWS = 100, MAX_WORK = 20000 };

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
  s = shard_new(1, &(struct shard_limits){
                       .max_rows = MAX_ROWS, .max_work = MAX_WORK, .idle_advance = 100 * USEC_PER_DAY});
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

static void put(int64_t id, int32_t no, enum task_state state, usec_t effective_at, struct task_spec *spec) {
  struct shard_version v = {id, no, state, effective_at, T0 - YEAR, spec};
  shard_put(s, &v);
}

/* Paused for a year, and resumed now. */
static struct fire_request put_resumed(int64_t id, struct task_spec *spec) {
  put(id, 2, TASK_ENABLED, T0, spec);
  return (struct fire_request){
      .key = {1, 0, id, 0}, .catch_up = true, .from = T0 - YEAR, .to = T0, .inbox_no = id};
}

#define POLICY(p) ",\"misfire_policy\":\"" p "\",\"catchup_window\":\"366d\""

static void test_a_year_of_seconds_once(void **state) {
  (void)state;
  struct fire_request r = put_resumed(1, spec_of(EVERY("1s"), POLICY("FIRE_ONCE")));
  shard_loaded(s);
  assert_true(shard_collect(s, T0 + 1, &OVERLAP, &r, 1, &b));
  assert_int_equal(b.count, 1);
  assert_int_equal(b.items[0].state, RUN_PENDING);
  assert_true(b.items[0].key.scheduled_at == T0);
  assert_true(b.items[0].missed_first == T0 - YEAR + SEC);
  assert_int_equal(b.items[0].missed_count, YEAR / SEC);
  assert_int_equal(b.inbox_count, 1);
  assert_true(b.work < 10);
}

static void test_a_year_of_seconds_all(void **state) {
  (void)state;
  struct fire_request r = put_resumed(
      1, spec_of(EVERY("1s") ",\"jitter\":\"900ms\"", POLICY("FIRE_ALL") ",\"catchup_max_runs\":3"));
  shard_loaded(s);
  assert_true(shard_collect(s, T0 + 1, &OVERLAP, &r, 1, &b));
  assert_true(b.work < 10);
  assert_true(b.count == 4);
  int64_t instants = 0;
  for (size_t i = 0; i < 4; i++) {
    assert_int_equal(b.items[i].state, i < 3 ? RUN_PENDING : RUN_SKIPPED);
    instants += i < 3 ? 1 : b.items[i].missed_count;
  }
  assert_true(b.items[3].missed_first == b.items[2].key.scheduled_at + SEC);
  assert_true((b.items[3].key.scheduled_at - b.items[3].missed_first) / SEC + 1 == b.items[3].missed_count);
  /* with jitter the first or the last second may be on the other side */
  assert_in_range(instants, YEAR / SEC - 1, YEAR / SEC + 1);
}

#define MINUTES "\"kind\":\"CRON\",\"expression\":\"0 * * * * ?\""

/* What cannot be reckoned is walked through in slices; others are fired meanwhile; refused rows come again. */
static void test_a_year_of_minutes_in_slices(void **state) {
  (void)state;
  struct fire_request r[2] = {put_resumed(1, spec_of(MINUTES, POLICY("SKIP"))),
                              {.key = {1, T0, 3, 7}, .origin = ORIGIN_API, .inbox_no = 9}};
  put(2, 1, TASK_ENABLED, T0, spec_of(EVERY("1s"), ""));
  put(3, 1, TASK_ENABLED, T0, spec_of(MANUAL, ""));
  shard_loaded(s);
  int calls = 0, refused = 0;
  size_t requests = 2;
  for (usec_t now = T0 + SEC; calls < 100; calls++, now += SEC) {
    assert_true(shard_collect(s, now, &OVERLAP, r, requests, &b));
    assert_true(b.work <= MAX_WORK);
    assert_true(b.count >= 1 && b.count <= 2);
    assert_int_equal(b.items[b.count - 1].key.task_id, 2); /* in time */
    if (calls == 0) {
      assert_int_equal(b.inbox_count, 1); /* the trigger behind it does not wait for it */
      assert_int_equal(b.inbox_done[0], 9);
      requests = 1;
    } else if (b.inbox_count) {
      assert_int_equal(b.inbox_done[0], 1);
      assert_int_equal(b.items[0].missed_count, YEAR / USEC_PER_MIN);
      assert_true(b.items[0].missed_first == T0 - YEAR + USEC_PER_MIN && b.items[0].key.scheduled_at == T0);
      if (refused++ == 0) {
        shard_refused(s, &b);
        now -= SEC;
        continue;
      }
      shard_fired(s, &b);
      break;
    }
    shard_fired(s, &b);
  }
  assert_int_equal(refused, 2);
  assert_in_range(calls, 365 * 24 * 60 / MAX_WORK, 100);
}

/* A change in the middle of the walk: it goes on with the version that was resumed, also when that one is forgotten. */
static void test_changed_in_the_middle(void **state) {
  (void)state;
  struct fire_request r = put_resumed(1, spec_of(MINUTES, POLICY("SKIP")));
  shard_loaded(s);
  (void)shard_collect(s, T0 + SEC, &OVERLAP, &r, 1, &b);
  assert_int_equal(b.inbox_count, 0);
  shard_fired(s, &b);
  struct shard_version v = {1, 3, TASK_ENABLED, T0 + 2 * SEC, T0, spec_of(EVERY("24h"), POLICY("SKIP"))};
  shard_change(s, &v, 2);
  usec_t now = T0 + 3 * SEC;
  for (int calls = 0; calls < 100 && !b.inbox_count; calls++, now += SEC) {
    (void)shard_collect(s, now, &OVERLAP, &r, 1, &b);
    if (!b.inbox_count)
      shard_fired(s, &b);
  }
  assert_int_equal(b.inbox_count, 1);
  assert_int_equal(b.count, 1);
  assert_int_equal(b.items[0].version, 2);
  assert_ptr_not_equal(b.items[0].spec, v.spec);
  assert_int_equal(b.items[0].missed_count, YEAR / USEC_PER_MIN);
  shard_fired(s, &b);
}

/* Rows of their own come in slices, too, each instant once; after a crash in the middle the same keys come again. */
static void test_rows_in_slices(void **state) {
  (void)state;
  static const char *const policy = POLICY("FIRE_ALL") ",\"catchup_max_runs\":180,\"catchup_rate\":10";
  for (int crash = 0; crash < 2; crash++) {
    struct fire_request r = put_resumed(1, spec_of(EVERY("1h"), policy));
    shard_loaded(s);
    int64_t instants = 0;
    usec_t last = 0, released = 0;
    bool refused = false, crashed = !crash;
    for (int calls = 1; calls < 20; calls++) {
      (void)shard_collect(s, T0 + calls, &OVERLAP, &r, 1, &b);
      assert_true(b.count <= MAX_ROWS / 2);
      if (calls == 2 && !refused) {
        refused = true;
        shard_refused(s, &b);
        continue;
      }
      for (size_t i = 0; i < b.count; i++) {
        const struct fire_item *it = &b.items[i];
        assert_true(it->key.scheduled_at > last);
        last = it->key.scheduled_at;
        instants += it->missed_count ? it->missed_count : 1;
        if (it->state == RUN_PENDING) {
          assert_true(it->not_before >= released);
          released = it->not_before + USEC_PER_SEC / 10;
        }
      }
      bool done = b.inbox_count;
      shard_fired(s, &b);
      if (done)
        break;
      if (calls == 4 && !crashed) { /* the next owner begins anew */
        crashed = true;
        shard_reset(s, 2, 1, T0 + calls, INT64_MAX);
        (void)put_resumed(1, spec_of(EVERY("1h"), policy));
        shard_loaded(s);
        instants = last = released = 0;
      }
    }
    assert_int_equal(b.inbox_count, 1);
    assert_int_equal(instants, YEAR / USEC_PER_HOUR);
    assert_true(last == T0);
    shard_reset(s, 1, 1, T0, INT64_MAX);
  }
}

/* Paused and resumed twice: one after the other, each its own. */
static void test_two_requests_of_one_task(void **state) {
  (void)state;
  struct fire_request r[2] = {put_resumed(1, spec_of(MINUTES, POLICY("SKIP")))};
  r[0].to = T0 - YEAR / 2;
  r[1] = (struct fire_request){
      .key = {1, 0, 1, 0}, .catch_up = true, .from = T0 - YEAR / 2, .to = T0, .inbox_no = 5};
  put(1, 3, TASK_ENABLED, T0 + 1, spec_of(MINUTES, POLICY("SKIP")));
  shard_loaded(s);
  int64_t instants = 0;
  size_t done = 0;
  for (usec_t now = T0 + SEC; done < 2 && now < T0 + 100 * SEC; now += SEC) {
    (void)shard_collect(s, now, &OVERLAP, &r[done], 2 - done, &b);
    for (size_t i = 0; i < b.count; i++)
      instants += b.items[i].missed_count;
    done += b.inbox_count;
    shard_fired(s, &b);
  }
  assert_int_equal(done, 2);
  assert_int_equal(instants, YEAR / USEC_PER_MIN);
}

/* What is caught up on request counts towards max_runs, and nothing is due when that is reached. */
static void test_max_runs(void **state) {
  (void)state;
  struct fire_request all =
      put_resumed(1, spec_of(EVERY("1h") ",\"max_runs\":5", POLICY("FIRE_ALL") ",\"catchup_max_runs\":9"));
  struct fire_request once = put_resumed(2, spec_of(EVERY("1h") ",\"max_runs\":2", POLICY("FIRE_ONCE")));
  struct fire_request skip = put_resumed(3, spec_of(EVERY("1h") ",\"max_runs\":2", POLICY("SKIP")));
  shard_put_progress(s, 1, 0, 2, false);
  shard_put_progress(s, 2, 0, 1, false);
  shard_put_progress(s, 3, 0, 2, false);
  shard_loaded(s);
  struct fire_request r[3] = {all, once, skip};
  for (int i = 0; i < 2; i++) { /* refused, it is the same again */
    assert_true(shard_collect(s, T0 + 2 * USEC_PER_HOUR, &OVERLAP, r, 3, &b));
    assert_int_equal(b.inbox_count, 3);
    assert_int_equal(b.count, 4);
    assert_int_equal(b.items[3].key.task_id, 2);
    assert_int_equal(b.items[3].state, RUN_PENDING);
    assert_int_equal(b.progress_count, 2);
    assert_int_equal(b.progress[0].fired, 5);
    assert_int_equal(b.progress[1].fired, 2);
    if (i == 0)
      shard_refused(s, &b);
  }
  shard_fired(s, &b);
  assert_true(shard_next_due(s) == USEC_NEVER);
  int64_t ids[8];
  int32_t versions[8];
  assert_int_equal(shard_take_completed(s, ids, versions, 8), 3);
}

/* A COMPLETED task that is changed goes on counting: with its max_runs reached already, it is COMPLETED again. */
static void test_completed_again(void **state) {
  (void)state;
  shard_put_progress(s, 1, 0, 3, false);
  shard_loaded(s);
  struct shard_version v = {1, 5, TASK_ENABLED, T0 + SEC, T0, spec_of(EVERY("2s") ",\"max_runs\":3", "")};
  shard_change(s, &v, 2);
  int64_t id = 0;
  int32_t version = 0;
  assert_int_equal(shard_take_completed(s, &id, &version, 1), 1);
  assert_int_equal(id, 1);
  assert_int_equal(version, 5);
  v.version = 6;
  v.spec = spec_of(EVERY("2s") ",\"max_runs\":4", "");
  v.effective_at = T0 + 2 * SEC;
  shard_change(s, &v, 3);
  assert_true(shard_next_due(s) == T0 + 4 * SEC);
}

/* What waited when the pause began, and nothing else from before it; not what the resumed version takes over. */
static void test_what_waited(void **state) {
  (void)state;
  static const char *const rate = EVERY("10s") ",\"jitter\":\"9s\"";
  put(1, 1, TASK_ENABLED, T0 - 200 * SEC, spec_of(rate, ""));
  put(1, 2, TASK_PAUSED, T0 - 100 * SEC, spec_of(rate, ""));
  put(1, 3, TASK_ENABLED, T0, spec_of(rate, POLICY("SKIP")));
  struct fire_request r = {
      .key = {1, 0, 1, 0}, .catch_up = true, .from = T0 - 100 * SEC, .to = T0, .version = 3, .inbox_no = 1};
  shard_begin_catch_up(s, &r, 2);
  shard_begin_catch_up(s, &r, 0); /* it has begun */
  shard_loaded(s);
  assert_true(shard_collect(s, T0 + 1, &OVERLAP, &r, 1, &b));
  assert_int_equal(b.items[0].missed_count, 10);
  assert_true(b.items[0].missed_first == T0 - 100 * SEC && b.items[0].key.scheduled_at == T0 - 10 * SEC);
  shard_fired(s, &b);
  r.inbox_no = 2;
  shard_begin_catch_up(s, &r, 0); /* not known when the pause began */
  assert_true(shard_collect(s, T0 + 2, &OVERLAP, &r, 1, &b));
  assert_int_equal(b.items[0].missed_count, 9);
  shard_fired(s, &b);
  r = (struct fire_request){.key = {1, 0, 9, 0}, .catch_up = true, .from = T0 - 1, .to = T0, .inbox_no = 3};
  shard_begin_catch_up(s, &r, 1); /* of a task that is gone */
  (void)shard_collect(s, T0 + 3, &OVERLAP, &r, 1, &b);
  assert_int_equal(b.inbox_count, 1);
  assert_int_equal(b.count, 0);
  shard_fired(s, &b);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
  const struct CMUnitTest tests[] = {TEST(test_a_year_of_seconds_once),
                                     TEST(test_a_year_of_seconds_all),
                                     TEST(test_a_year_of_minutes_in_slices),
                                     TEST(test_changed_in_the_middle),
                                     TEST(test_two_requests_of_one_task),
                                     TEST(test_max_runs),
                                     TEST(test_completed_again),
                                     TEST(test_rows_in_slices),
                                     TEST(test_what_waited)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
