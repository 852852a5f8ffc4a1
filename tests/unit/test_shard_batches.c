/* The decisions of a shard, batch by batch: order, versions, misfires, requests. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "core/schedule.h"
#include "core/shard.h"
#include "spec_util.h"

#define SEC USEC_PER_SEC
#define T0  (1000 * SEC)

static struct shard *s;
static struct fire_batch b;
static enum overlap_decision answer;

static enum overlap_decision decide(void *arg, const struct overlap_ask *ask) {
  (void)arg, (void)ask;
  return answer;
}
static const struct shard_overlap OVERLAP = {decide, NULL};

static void limits(size_t max_rows, size_t max_work) {
  shard_free(&s);
  s = shard_new(3,
                &(struct shard_limits){.max_rows = max_rows, .max_work = max_work, .idle_advance = 10 * SEC});
  shard_reset(s, 5, 8, T0, INT64_MAX);
}

static int setup(void **state) {
  (void)state;
  specs_open();
  answer = OVERLAP_DO_START;
  limits(100, 1000);
  return 0;
}

static int teardown(void **state) {
  (void)state;
  fire_batch_done(&b);
  shard_free(&s);
  specs_close();
  return 0;
}

static struct shard_version version(int64_t id, int32_t no, enum task_state state, usec_t effective_at,
                                    struct task_spec *p) {
  return (struct shard_version){id, no, state, effective_at, T0, p};
}

static void put(int64_t id, const char *schedule, const char *rest) {
  struct shard_version v = version(id, 1, TASK_ENABLED, T0, spec_of(schedule, rest));
  shard_put(s, &v);
}

static void change(int64_t id, int32_t no, enum task_state state, usec_t effective_at, struct task_spec *p) {
  struct shard_version v = version(id, no, state, effective_at, p);
  shard_change(s, &v, 8 + no);
}

static bool collect(usec_t now) { return shard_collect(s, now, &OVERLAP, NULL, 0, &b); }

/* The batch must hold exactly these instants (seconds after T0) of one task, in this order. */
static void check(int64_t id, size_t n, const int *at) {
  size_t k = 0;
  for (size_t i = 0; i < b.count; i++)
    if (b.items[i].key.task_id == id) {
      if (k >= n || b.items[i].key.scheduled_at != T0 + at[k] * SEC)
        fail_msg("task %lld, item %zu is at %lld", (long long)id, k,
                 (long long)((b.items[i].key.scheduled_at - T0) / SEC));
      k++;
    }
  assert_int_equal(k, n);
}
#define CHECK(id, ...) check(id, sizeof((int[]){__VA_ARGS__}) / sizeof(int), (int[]){__VA_ARGS__})

static void test_order_and_identity(void **state) {
  (void)state;
  put(9, EVERY("2s"), "");
  put(4, EVERY("3s"), "");
  shard_loaded(s);
  assert_int_equal(shard_id(s), 3);
  assert_int_equal(shard_epoch(s), 5);
  assert_int_equal(shard_tasks_version(s), 8);
  assert_int_equal(shard_task_count(s), 2);
  assert_true(shard_next_due(s) == T0 + 2 * SEC); /* the instant T0 itself was decided before */
  assert_false(collect(T0 + SEC));
  assert_true(collect(T0 + 6 * SEC));
  static const struct {
    int64_t id;
    int at;
  } want[] = {{9, 2}, {4, 3}, {9, 4}, {4, 6}, {9, 6}};
  assert_int_equal(b.count, 5);
  for (size_t i = 0; i < 5; i++) {
    assert_true(b.items[i].key.task_id == want[i].id && b.items[i].key.scheduled_at == T0 + want[i].at * SEC);
    assert_int_equal(b.items[i].key.shard, 3);
    assert_int_equal(b.items[i].attempt, 1);
    assert_int_equal(b.items[i].reason, REASON_DISPATCHING);
  }
  assert_true(b.seen_at == T0 && b.new_at == T0 + 6 * SEC && b.new_task == INT64_MAX);
  shard_refused(s, &b);
  assert_true(collect(T0 + 6 * SEC)); /* the very same again */
  assert_int_equal(b.count, 5);
  shard_fired(s, &b);
  usec_t at;
  int64_t task;
  shard_watermark(s, &at, &task);
  assert_true(at == T0 + 6 * SEC && task == INT64_MAX);
  assert_false(collect(T0 + 6 * SEC)); /* no time has passed */
  assert_false(collect(T0 + 7 * SEC));
  assert_true(collect(T0 + 8 * SEC));
  CHECK(9, 8);
}

/* Cut by rows and by work: the watermark stands at the last decided pair, and what follows goes on right behind it. */
static void test_cut(void **state) {
  (void)state;
  for (int by_work = 0; by_work < 2; by_work++) {
    limits(by_work ? 100 : 4, by_work ? 4 : 1000);
    for (int64_t id = 1; id <= 10; id++)
      put(id, EVERY("10s"), "");
    shard_loaded(s);
    size_t total = 0;
    for (int i = 0; i < 10 && total < 10; i++) {
      assert_true(collect(T0 + 10 * SEC + i)); /* time goes on: it is never decided twice for one instant */
      assert_true(b.count <= 4);
      if (b.new_task != INT64_MAX)
        assert_true(b.new_at == T0 + 10 * SEC && b.new_task == b.items[b.count - 1].key.task_id);
      if (i == 1) {
        shard_refused(s, &b);
        continue;
      }
      for (size_t k = 0; k < b.count; k++)
        assert_int_equal(b.items[k].key.task_id, (int64_t)++total);
      shard_fired(s, &b);
    }
    assert_int_equal(total, 10);
  }
}

static void test_idle_shard_moves_on(void **state) {
  (void)state;
  shard_loaded(s);
  assert_true(shard_next_due(s) == USEC_NEVER);
  assert_false(collect(T0 + 9 * SEC));
  assert_true(collect(T0 + 10 * SEC));
  assert_int_equal(b.count, 0);
  shard_fired(s, &b);
  assert_false(collect(T0 + 11 * SEC));
}

static void test_versions(void **state) {
  (void)state;
  put(1, EVERY("2s"), "");
  shard_loaded(s);
  change(1, 2, TASK_ENABLED, T0 + 5 * SEC, spec_of(EVERY("3s"), ""));
  change(1, 2, TASK_ENABLED, T0 + 5 * SEC, spec_of(EVERY("3s"), "")); /* seen already */
  assert_int_equal(shard_tasks_version(s), 10);
  change(1, 3, TASK_PAUSED, T0 + 13 * SEC, spec_of(EVERY("3s"), ""));
  assert_true(collect(T0 + 20 * SEC));
  CHECK(1, 2, 4, 6, 9, 12);
  assert_int_equal(b.items[1].version, 1);
  assert_int_equal(b.items[2].version, 2);
  shard_fired(s, &b);
  change(1, 4, TASK_ENABLED, T0 + 25 * SEC, spec_of(EVERY("3s"), ""));
  assert_int_equal(shard_find(s, 1)->version, 4);
  change(1, 5, TASK_DELETED, T0 + 28 * SEC, NULL);
  assert_true(collect(T0 + 40 * SEC));
  CHECK(1, 27);
  shard_fired(s, &b);
  assert_int_equal(shard_task_count(s), 0); /* forgotten with its deletion */
  assert_null(shard_find(s, 1));
  assert_true(shard_next_due(s) == USEC_NEVER);
}

/* Loaded in any order, an earlier version keeps what was its own. */
static void test_older_version_comes_last(void **state) {
  (void)state;
  struct shard_version v[] = {version(1, 3, TASK_ENABLED, T0 + 7 * SEC, spec_of(EVERY("5s"), "")),
                              version(1, 1, TASK_ENABLED, T0, spec_of(EVERY("2s"), "")),
                              version(1, 2, TASK_PAUSED, T0 + 5 * SEC, spec_of(EVERY("2s"), ""))};
  for (size_t i = 0; i < 3; i++)
    shard_put(s, &v[i]);
  shard_loaded(s);
  assert_true(collect(T0 + 11 * SEC));
  CHECK(1, 2, 4, 10);
}

static void test_fire_once(void **state) {
  (void)state;
  put(1, EVERY("10s"), ",\"misfire_policy\":\"FIRE_ONCE\",\"misfire_threshold\":\"15s\"");
  shard_loaded(s);
  assert_true(collect(T0 + 100 * SEC));
  CHECK(1, 80, 90, 100);
  assert_int_equal(b.items[0].state, RUN_SKIPPED); /* others are due in time: no one is made up for */
  assert_int_equal(b.items[0].missed_count, 8);
  assert_true(b.items[0].missed_first == T0 + 10 * SEC);
  shard_fired(s, &b);
  put(2, "\"kind\":\"CRON\",\"expression\":\"0 * * * * ?\"", ",\"misfire_threshold\":\"15s\"");
  shard_loaded(s);
  assert_true(collect(T0 + 220 * SEC)); /* 1080 and 1140 and 1200 = 80, 140, 200; none of them in time */
  CHECK(2, 200);
  for (size_t i = 0; i < b.count; i++)
    if (b.items[i].key.task_id == 2) {
      assert_int_equal(b.items[i].state, RUN_PENDING);
      assert_int_equal(b.items[i].origin, ORIGIN_CATCHUP);
      assert_int_equal(b.items[i].missed_count, 2); /* 80 was before the watermark */
    }
}

static void test_skip(void **state) {
  (void)state;
  put(1, EVERY("30s"), ",\"misfire_policy\":\"SKIP\",\"misfire_threshold\":\"15s\"");
  shard_loaded(s);
  assert_true(collect(T0 + 80 * SEC));
  CHECK(1, 60);
  assert_int_equal(b.items[0].reason, REASON_MISFIRE);
  assert_int_equal(b.items[0].missed_count, 2);
}

static void test_fire_all(void **state) {
  (void)state;
  put(1, EVERY("10s"),
      ",\"misfire_policy\":\"FIRE_ALL\",\"misfire_threshold\":\"15s\",\"catchup_window\":\"60s\",\"catchup_"
      "max_runs\":3,"
      "\"catchup_rate\":0.5");
  shard_loaded(s);
  usec_t now = T0 + 120 * SEC;
  for (int again = 0; again < 2; again++) {
    assert_true(collect(now));
    CHECK(1, 50, 60, 70, 80, 100, 110, 120);
    assert_int_equal(b.items[0].missed_count, 5); /* older than the window */
    for (int i = 1; i <= 3; i++) {
      assert_int_equal(b.items[i].reason, REASON_SCHEDULED);
      assert_int_equal(b.items[i].attempt, 0);
      assert_true(b.items[i].not_before == now + (i - 1) * 2 * SEC); /* released at the rate */
    }
    assert_int_equal(b.items[4].missed_count, 2); /* enough were caught up */
    assert_true(b.items[4].missed_first == T0 + 90 * SEC);
    if (!again)
      shard_refused(s, &b); /* neither count nor rate keep anything of it */
  }
  shard_fired(s, &b);
}

static void test_overlap_decisions(void **state) {
  (void)state;
  put(1, EVERY("10s"), "");
  shard_loaded(s);
  answer = OVERLAP_DO_QUEUE;
  assert_true(collect(T0 + 10 * SEC));
  assert_int_equal(b.items[0].reason, REASON_QUEUED);
  assert_int_equal(b.items[0].attempt, 0);
  shard_fired(s, &b);
  answer = OVERLAP_DO_SKIP;
  assert_true(collect(T0 + 20 * SEC));
  assert_int_equal(b.items[0].state, RUN_SKIPPED);
  assert_int_equal(b.items[0].reason, REASON_OVERLAP);
}

static void test_max_runs(void **state) {
  (void)state;
  put(1, EVERY("10s") ",\"max_runs\":3", "");
  shard_put_progress(s, 1, 0, 1, false);
  shard_loaded(s);
  answer = OVERLAP_DO_SKIP;
  assert_true(collect(T0 + 10 * SEC));
  assert_int_equal(b.progress_count, 0); /* a skipped one does not count */
  shard_fired(s, &b);
  answer = OVERLAP_DO_START;
  assert_true(collect(T0 + 40 * SEC));
  CHECK(1, 20, 30);
  assert_int_equal(b.progress_count, 1);
  assert_int_equal(b.progress[0].fired, 3);
  shard_refused(s, &b);
  assert_true(collect(T0 + 40 * SEC));
  CHECK(1, 20, 30);
  shard_fired(s, &b);
  int64_t ids[2];
  int32_t versions[2];
  assert_int_equal(shard_take_completed(s, ids, versions, 2), 1);
  assert_true(ids[0] == 1 && versions[0] == 1);
  assert_int_equal(shard_take_completed(s, ids, versions, 2), 0);
}

/* What was counted is not forgotten while a task is not loaded. */
static void test_progress_of_a_task_not_loaded(void **state) {
  (void)state;
  shard_put_progress(s, 1, 0, 2, false);
  shard_put_progress(s, 2, T0 + SEC, 0, true);
  shard_delay_ended(s, 2, T0 + 4 * SEC);
  shard_loaded(s);
  change(1, 2, TASK_ENABLED, T0 + 5 * SEC, spec_of(EVERY("10s") ",\"max_runs\":3", ""));
  change(2, 2, TASK_ENABLED, T0 + 3 * SEC, spec_of(DELAY("2s"), ""));
  assert_true(collect(T0 + 60 * SEC));
  CHECK(1, 10);
  CHECK(2, 6);
}

static void test_fixed_delay(void **state) {
  (void)state;
  put(1, DELAY("10s"), ",\"misfire_policy\":\"SKIP\",\"misfire_threshold\":\"15s\"");
  shard_loaded(s);
  assert_true(collect(T0 + 11 * SEC));
  CHECK(1, 10); /* every after its beginning */
  shard_refused(s, &b);
  assert_true(collect(T0 + 11 * SEC));
  shard_fired(s, &b);
  assert_true(shard_next_due(s) == USEC_NEVER); /* its end is waited for */
  shard_delay_ended(s, 1, T0 + 17 * SEC);
  assert_true(shard_next_due(s) == T0 + 27 * SEC);
  answer = OVERLAP_DO_SKIP;
  assert_true(collect(T0 + 28 * SEC));
  CHECK(1, 27);
  assert_int_equal(b.progress_count, 1);
  assert_true(b.progress[0].base_at == T0 + 28 * SEC); /* a skipped one counts as ended then */
  shard_fired(s, &b);
  assert_true(shard_next_due(s) == T0 + 38 * SEC);
  assert_true(collect(T0 + 60 * SEC));
  assert_int_equal(b.items[0].reason, REASON_MISFIRE);
  shard_fired(s, &b);
  assert_true(shard_next_due(s) == T0 + 70 * SEC);
  shard_delay_ended(s, 99, T0); /* a task that is not held */
}

/* The versions that follow a FIXED_DELAY one lose nothing in the batch in which it had its turn. */
static void test_version_after_fixed_delay(void **state) {
  (void)state;
  put(1, DELAY("10s"), "");
  shard_loaded(s);
  change(1, 2, TASK_ENABLED, T0 + 15 * SEC, spec_of(EVERY("10s"), ""));
  assert_true(collect(T0 + 35 * SEC));
  CHECK(1, 10, 20, 30);
}

static void test_one_time(void **state) {
  (void)state;
  struct shard_version late = version(1, 1, TASK_ENABLED, T0 + 5 * SEC,
                                      spec_of("\"kind\":\"ONE_TIME\"", ",\"misfire_threshold\":\"15s\""));
  late.anchor = T0 - 2 * SEC; /* created after its instant: due at once */
  shard_put(s, &late);
  struct shard_version ahead = version(2, 1, TASK_ENABLED, T0, spec_of("\"kind\":\"ONE_TIME\"", ""));
  ahead.anchor = T0 + 9 * SEC;
  shard_put(s, &ahead);
  put(3, MANUAL, "");
  shard_loaded(s);
  assert_true(collect(T0 + 10 * SEC));
  CHECK(1, -2);
  CHECK(2, 9);
  assert_int_equal(b.items[0].state, RUN_PENDING);
  shard_fired(s, &b);
  int64_t ids[4];
  int32_t versions[4];
  assert_int_equal(shard_take_completed(s, ids, versions, 4), 2);
}

/* A definition that cannot be read stands still. */
static void test_without_spec(void **state) {
  (void)state;
  struct shard_version v = version(1, 1, TASK_ENABLED, T0, NULL);
  shard_put(s, &v);
  shard_loaded(s);
  assert_false(collect(T0 + 9 * SEC));
}

static void test_jitter(void **state) {
  (void)state;
  put(1, EVERY("10s") ",\"jitter\":\"5s\"", "");
  shard_loaded(s);
  assert_true(collect(T0 + 26 * SEC));
  for (size_t i = 0; i < b.count; i++) {
    usec_t nominal = b.items[i].key.scheduled_at;
    assert_int_equal((nominal - T0) % (10 * SEC), 0);
    assert_true(b.items[i].due == nominal + schedule_jitter(b.items[i].spec->schedule, 1, nominal));
  }
  shard_refused(s, &b);
}

static bool request(const struct fire_request *r, size_t n, usec_t now) {
  return shard_collect(s, now, &OVERLAP, r, n, &b);
}

static void test_trigger(void **state) {
  (void)state;
  put(1, MANUAL, "");
  shard_loaded(s);
  struct fire_request r[2] = {
      {.key = {3, T0 + SEC, 1, 77}, .origin = ORIGIN_API, .payload = SLICE("{}"), .inbox_no = 4},
      {.key = {3, T0 + SEC, 2, 78}, .origin = ORIGIN_API, .ignore_overlap = true, .inbox_no = 5}};
  assert_true(request(r, 2, T0 + SEC));
  assert_int_equal(b.count, 2);
  assert_int_equal(b.inbox_count, 2);
  assert_true(b.inbox_done[0] == 4 && b.inbox_done[1] == 5);
  assert_ptr_equal(b.items[0].request, &r[0]);
  assert_int_equal(b.items[0].state, RUN_PENDING);
  assert_int_equal(b.items[1].state, RUN_CANCELLED); /* nobody knows this task: the promised run says so */
  shard_fired(s, &b);
  limits(4, 1000); /* requests take at most half of a batch */
  put(1, MANUAL, "");
  shard_loaded(s);
  struct fire_request many[5];
  for (int i = 0; i < 5; i++)
    many[i] = (struct fire_request){.key = {3, T0 + SEC, 1, 80 + i}, .origin = ORIGIN_API, .inbox_no = i + 1};
  assert_true(request(many, 5, T0 + SEC));
  assert_int_equal(b.inbox_count, 2);
}

/* Asked for with an instant of release: it waits for that, whatever the overlap policy says now. */
static void test_trigger_later(void **state) {
  (void)state;
  put(1, MANUAL, ",\"overlap_policy\":\"SKIP\"");
  shard_loaded(s);
  struct fire_request r[2] = {
      {.key = {3, T0 + SEC, 1, 77}, .origin = ORIGIN_REPLAY, .not_before = T0 + 9 * SEC, .inbox_no = 4},
      {.key = {3, T0 + SEC, 2, 78}, .origin = ORIGIN_REPLAY, .not_before = T0 + 9 * SEC, .inbox_no = 5}};
  assert_true(request(r, 2, T0 + SEC));
  assert_int_equal(b.count, 2);
  assert_true(b.items[0].state == RUN_PENDING && b.items[0].reason == REASON_SCHEDULED);
  assert_true(b.items[0].not_before == T0 + 9 * SEC && b.items[0].attempt == 0 &&
              b.items[0].origin == ORIGIN_REPLAY);
  assert_int_equal(b.items[1].state, RUN_CANCELLED); /* its task is gone */
  shard_fired(s, &b);
}

static void catch_up(const char *policy) {
  char rest[200];
  (void)snprintf(
      rest, sizeof rest,
      ",\"misfire_policy\":\"%s\",\"catchup_window\":\"1m\",\"catchup_max_runs\":2,\"catchup_rate\":1",
      policy);
  put(1, EVERY("10s"), "");
  shard_loaded(s);
  change(1, 2, TASK_PAUSED, T0 + 5 * SEC, spec_of(EVERY("10s"), rest));
  change(1, 3, TASK_ENABLED, T0 + 95 * SEC, spec_of(EVERY("10s"), rest));
  struct fire_request r = {
      .key = {3, 0, 1, 0}, .catch_up = true, .from = T0 + 5 * SEC, .to = T0 + 95 * SEC - 7, .inbox_no = 1};
  assert_true(request(&r, 1, T0 + 96 * SEC));
}

static void test_catch_up_on_request(void **state) {
  (void)state;
  catch_up("FIRE_ONCE");
  CHECK(1, 90);
  assert_int_equal(b.items[0].state, RUN_PENDING);
  assert_int_equal(b.items[0].missed_count, 6); /* 40 … 90: its window */
  limits(100, 1000);
  catch_up("SKIP");
  CHECK(1, 90);
  assert_int_equal(b.items[0].state, RUN_SKIPPED);
  limits(100, 1000);
  catch_up("FIRE_ALL");
  CHECK(1, 40, 50, 90);
  assert_int_equal(b.items[2].missed_count, 4); /* no more than two are caught up */
}

/* Edited right after the resume, and loaded only then: the version that the request names is forgotten, the new one is not it. */
static void test_catch_up_of_a_forgotten_version(void **state) {
  (void)state;
  struct shard_version v = version(1, 4, TASK_ENABLED, T0 - SEC, spec_of(EVERY("2s"), ""));
  v.anchor = T0 - 100 * SEC;
  shard_put(s, &v);
  shard_loaded(s);
  struct fire_request r = {.key = {3, 0, 1, 0},
                           .catch_up = true,
                           .from = T0 - 20 * SEC,
                           .to = T0 - 8 * SEC,
                           .version = 3,
                           .inbox_no = 1};
  assert_true(request(&r, 1, T0 + SEC));
  assert_true(b.count > 0);
  for (size_t i = 0; i < b.count; i++)
    assert_true(b.items[i].origin != ORIGIN_CATCHUP || b.items[i].key.scheduled_at <= T0 - 8 * SEC);
  shard_fired(s, &b);
}

/* Resumed with a jitter that it had not before the pause: what was due before, is not asked for. */
static void test_catch_up_with_another_jitter(void **state) {
  (void)state;
  put(1, EVERY("10s"), "");
  shard_loaded(s);
  change(1, 2, TASK_PAUSED, T0 + 20 * SEC + 1, spec_of(EVERY("10s"), ""));
  change(1, 3, TASK_ENABLED, T0 + 55 * SEC, spec_of(EVERY("10s") ",\"jitter\":\"9s\"", ""));
  struct fire_request r = {
      .key = {3, 0, 1, 0}, .catch_up = true, .from = T0 + 20 * SEC + 1, .to = T0 + 55 * SEC, .inbox_no = 1};
  assert_true(request(&r, 1, T0 + 56 * SEC));
  size_t at_twenty = 0;
  for (size_t i = 0; i < b.count; i++)
    if (b.items[i].key.scheduled_at == T0 + 20 * SEC) {
      assert_int_equal(b.items[i].version, 1);
      at_twenty++;
    }
  assert_int_equal(at_twenty, 1);
}

/* Nothing to give: a task without computed instants, an unknown one, an empty request; only the inbox row goes. */
static void test_catch_up_of_nothing(void **state) {
  (void)state;
  put(1, MANUAL, "");
  shard_loaded(s);
  struct fire_request r[3] = {
      {.key = {3, 0, 1, 0}, .catch_up = true, .from = T0, .to = T0 + 50 * SEC, .inbox_no = 1},
      {.key = {3, 0, 2, 0}, .catch_up = true, .from = T0, .to = T0 + 50 * SEC, .inbox_no = 2},
      {.catch_up = true, .inbox_no = 3}};
  assert_true(request(r, 3, T0 + SEC));
  assert_int_equal(b.count, 0);
  assert_int_equal(b.inbox_count, 3);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
  const struct CMUnitTest tests[] = {TEST(test_order_and_identity),
                                     TEST(test_cut),
                                     TEST(test_idle_shard_moves_on),
                                     TEST(test_versions),
                                     TEST(test_older_version_comes_last),
                                     TEST(test_fire_once),
                                     TEST(test_skip),
                                     TEST(test_fire_all),
                                     TEST(test_overlap_decisions),
                                     TEST(test_max_runs),
                                     TEST(test_progress_of_a_task_not_loaded),
                                     TEST(test_fixed_delay),
                                     TEST(test_version_after_fixed_delay),
                                     TEST(test_one_time),
                                     TEST(test_without_spec),
                                     TEST(test_jitter),
                                     TEST(test_trigger),
                                     TEST(test_trigger_later),
                                     TEST(test_catch_up_on_request),
                                     TEST(test_catch_up_with_another_jitter),
                                     TEST(test_catch_up_of_a_forgotten_version),
                                     TEST(test_catch_up_of_nothing)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
