#include "contract.h"

static struct run_row get_run(const struct run_key *key) {
  struct st_run_get_ret ret;
  OK(CALL(run_get, &ret, .key = *key));
  return ret.run;
}

static struct run_row fired(const char *name) {
  struct task_version_row task = new_task(name);
  struct run_row run = run_of(&task, 1000, 0);
  assert_true(fire_open(&run, 1));
  return run;
}

static bool update(const struct run_update *u) {
  struct fence_row fence = fence_of(u->key.shard);
  struct st_run_apply_ret ret;
  OK(CALL(run_apply, &ret, .fences = &fence, .fence_count = 1, .updates = u, .update_count = 1));
  assert_true(ret.fence_ok[0]);
  return ret.updated[0];
}

static void test_update(void **state) {
  (void)state;
  own_shards();
  struct run_row run = fired("update");
  struct run_update u = {.key = run.key,
                         .seen_attempt = 0,
                         .seen_state = RUN_PENDING,
                         .seen_reason = REASON_SCHEDULED,
                         .state = RUN_RUNNING,
                         .reason = REASON_PROGRESS,
                         .attempt = 1,
                         .attempt_at = 1100,
                         .started_at = 1200,
                         .executor = SLICE("x1"),
                         .incarnation = ((int64_t)1 << 40) + 7,
                         .progress = 0.25};
  struct run_update wrong = u;
  wrong.seen_attempt = 1;
  assert_false(update(&wrong));
  wrong = u;
  wrong.seen_state = RUN_RUNNING;
  assert_false(update(&wrong));
  wrong = u;
  wrong.seen_reason = REASON_RETRY_WAIT;
  assert_false(update(&wrong));
  wrong = u;
  wrong.key.part = 5;
  assert_false(update(&wrong));
  assert_int_equal(get_run(&run.key).state, RUN_PENDING);
  assert_true(update(&u));
  assert_false(update(&u)); /* seen is no longer so */
  struct run_row w = get_run(&run.key);
  assert_int_equal(w.state, RUN_RUNNING);
  assert_int_equal(w.reason, REASON_PROGRESS);
  assert_int_equal(w.attempt, 1);
  assert_int_equal(w.attempt_at, 1100);
  assert_int_equal(w.started_at, 1200);
  assert_int_equal(w.fired_at, run.fired_at);
  assert_true(slice_eqz(w.executor, "x1"));
  assert_int_equal(w.incarnation, ((int64_t)1 << 40) + 7);
  assert_true(w.progress > 0.24 && w.progress < 0.26);
  struct run_update retry = {.key = run.key,
                             .seen_attempt = 1,
                             .seen_state = RUN_RUNNING,
                             .seen_reason = REASON_PROGRESS,
                             .state = RUN_PENDING,
                             .reason = REASON_RETRY_WAIT,
                             .attempt = 2,
                             .not_before = 5000,
                             .error_type = SLICE("io"),
                             .error_message = SLICE("no"),
                             .progress = -1};
  assert_true(update(&retry));
  w = get_run(&run.key);
  assert_int_equal(w.attempt, 2);
  assert_int_equal(w.not_before, 5000);
  assert_int_equal(w.started_at, 0);
  assert_null(w.executor.p);
  assert_int_equal(w.incarnation, 0);
  assert_true(slice_eqz(w.error_type, "io") && slice_eqz(w.error_message, "no") && w.progress < 0);
}

/* A change whose answer was lost, repeated, and carried out late: the run has gone on since, with the same attempt and the same public
 * state. It changes nothing, and what follows is not refused for it. */
static void test_late_update(void **state) {
  (void)state;
  own_shards();
  struct run_row run = fired("late");
  static const enum run_reason life[] = {REASON_SCHEDULED,  REASON_QUEUED,      REASON_DISPATCHING,
                                         REASON_ACCEPTED,   REASON_PROGRESS,    REASON_CANCELLING,
                                         REASON_RETRY_WAIT, REASON_DISPATCHING, REASON_MAX_};
  struct run_update steps[sizeof life / sizeof life[0]];
  struct run_update u = {.key = run.key, .progress = -1, .reason = life[0], .state = RUN_PENDING};
  for (size_t i = 0; life[i + 1] != REASON_MAX_; i++) {
    u.seen_attempt = u.attempt;
    u.seen_state = u.state;
    u.seen_reason = u.reason;
    u.attempt += life[i + 1] == REASON_DISPATCHING;
    u.reason = life[i + 1];
    u.state = u.reason == REASON_ACCEPTED || u.reason == REASON_PROGRESS || u.reason == REASON_CANCELLING
                  ? RUN_RUNNING
                  : RUN_PENDING;
    steps[i] = u;
    assert_true(update(&u));
    for (size_t late = 0; late <= i; late++)
      assert_false(update(&steps[late]));
    assert_int_equal(get_run(&run.key).reason, u.reason);
  }
  assert_int_equal(get_run(&run.key).attempt, 2);
}

static void test_finish(void **state) {
  struct st_run_apply_ret ret;
  (void)state;
  own_shards();
  struct run_row run = fired("finish");
  struct fence_row fence = fence_of(run.key.shard);
  struct run_finish f = {.key = run.key,
                         .seen_attempt = 1,
                         .state = RUN_FAIL,
                         .reason = REASON_ERROR,
                         .attempt_at = 1100,
                         .started_at = 1200,
                         .finished_at = 1300,
                         .executor = SLICE("x1"),
                         .result = SLICE("{\"r\":1}"),
                         .error_type = SLICE("io"),
                         .error_message = SLICE("broken"),
                         .error_detail = SLICE("long")};
#define FINISH()                                                                                             \
  OK(CALL(run_apply, &ret, .fences = &fence, .fence_count = 1, .finishes = &f, .finish_count = 1))
  FINISH(); /* another attempt */
  assert_false(ret.finished[0]);
  assert_int_equal(state_of(&run.key), RUN_PENDING);
  f.seen_attempt = 0;
  fence.epoch--;
  FINISH(); /* a stale owner */
  assert_false(ret.fence_ok[0]);
  assert_false(ret.finished[0]);
  assert_int_equal(state_of(&run.key), RUN_PENDING);
  fence.epoch++;
  FINISH();
  assert_true(ret.finished[0]);
  assert_true(ret.now > 0);
  f.state = RUN_SUCCESS;
  FINISH(); /* late or repeated */
  assert_false(ret.finished[0]);
#undef FINISH
  struct run_row w = get_run(&run.key);
  assert_int_equal(w.state, RUN_FAIL);
  assert_int_equal(w.reason, REASON_ERROR);
  assert_int_equal(w.attempt, 0);
  assert_int_equal(w.attempt_at, 1100);
  assert_int_equal(w.started_at, 1200);
  assert_int_equal(w.finished_at, 1300);
  assert_int_equal(w.fired_at, run.fired_at);
  assert_int_equal(w.origin, ORIGIN_SCHEDULE);
  assert_true(slice_eqz(w.executor, "x1") && slice_eqz(w.result, "{\"r\":1}") &&
              slice_eqz(w.error_type, "io"));
  assert_true(slice_eqz(w.error_message, "broken") && slice_eqz(w.error_detail, "long"));
}

static void test_fences(void **state) {
  struct st_run_apply_ret ret;
  struct run_row runs[3];
  struct run_finish ends[3];
  (void)state;
  own_shards();
  runs[0] = fired("a");
  do /* another shard */
    runs[1] = fired("b");
  while (runs[1].key.shard == runs[0].key.shard);
  runs[2] = fired("c");
  for (int i = 0; i < 3; i++)
    ends[i] = (struct run_finish){.key = runs[i].key, .state = RUN_SUCCESS, .finished_at = 2000};
  struct fence_row fences[2] = {fence_of(runs[0].key.shard), fence_of(runs[1].key.shard)};
  fences[0].epoch--;
  struct run_update u = {.key = runs[0].key,
                         .seen_state = RUN_PENDING,
                         .seen_reason = REASON_SCHEDULED,
                         .state = RUN_RUNNING,
                         .attempt = 1,
                         .progress = -1};
  OK(CALL(run_apply, &ret, .fences = fences, .fence_count = 2, .updates = &u, .update_count = 1,
          .finishes = ends, .finish_count = 2));
  assert_false(ret.updated[0]);
  assert_int_equal(state_of(&runs[0].key), RUN_PENDING);
  assert_true(!ret.fence_ok[0] && ret.fence_ok[1] && !ret.finished[0] && ret.finished[1]);
  OK(CALL(run_apply, &ret, .finishes = &ends[2], .finish_count = 1)); /* no entry for its shard */
  assert_false(ret.finished[0]);
  assert_int_equal(state_of(&runs[2].key), RUN_PENDING);
}

static size_t inbox_of(int32_t shard, int64_t *ret_last) {
  struct st_inbox_read_ret rows;
  OK(CALL(inbox_read, &rows, .shards = &shard, .shard_count = 1, .limit = 1000));
  *ret_last = rows.count ? rows.rows[rows.count - 1].no : 0;
  return rows.count;
}

/* What came by the inbox goes with the change that it asked for, behind the same fence. */
static void test_inbox_done(void **state) {
  struct st_run_apply_ret ret;
  struct st_inbox_put_ret none;
  struct st_inbox_oldest_ret oldest;
  struct inbox_row done[2] = {0};
  int64_t no, other;
  (void)state;
  own_shards();
  int32_t shards[2] = {0, fx.shard_count - 1};
  size_t before[2] = {inbox_of(shards[0], &no), inbox_of(shards[1], &other)};
  struct inbox_row rows[3] = {{.shard = shards[0], .kind = 5, .body = SLICE("{\"a\":1}")},
                              {.shard = shards[1], .kind = 6, .body = SLICE("{\"b\":\"\xc3\xa4\"}")},
                              {.shard = shards[0], .kind = 6, .body = SLICE("{}")}};
  OK(CALL(inbox_put, &none, .rows = rows, .count = 3));
  assert_int_equal(inbox_of(shards[0], &done[0].no), before[0] + 2);
  assert_int_equal(inbox_of(shards[1], &done[1].no), before[1] + 1);
  assert_true(done[0].no > no && done[1].no > other);
  OK(CALL(inbox_oldest, &oldest));
  assert_true(oldest.at > 0 && oldest.at <= oldest.now);
  done[0].shard = shards[0];
  done[1].shard = shards[1];
  struct fence_row fences[2] = {fence_of(shards[0]), fence_of(shards[1])};
  fences[1].epoch--;
  OK(CALL(run_apply, &ret, .fences = fences, .fence_count = 2, .inbox_done = done, .inbox_count = 2));
  assert_true(ret.fence_ok[0] && !ret.fence_ok[1]);
  assert_int_equal(inbox_of(shards[0], &no), before[0] + 1);
  assert_int_equal(inbox_of(shards[1], &other), before[1] + 1);
  rows[1].shard = fx.shard_count;
  REFUSED(ERR_NOT_FOUND, CALL(inbox_put, &none, .rows = rows, .count = 2)); /* all of it or nothing */
  assert_int_equal(inbox_of(shards[0], &no), before[0] + 1);
}

static void test_attempts(void **state) {
  struct st_run_apply_ret ret;
  struct st_attempt_list_ret list;
  (void)state;
  own_shards();
  struct run_row run = fired("attempts");
  struct fence_row fence = fence_of(run.key.shard);
  struct attempt_row rows[2] = {{.key = run.key,
                                 .attempt = 1,
                                 .state = RUN_FAIL,
                                 .reason = REASON_TIMEOUT,
                                 .dispatched_at = 1,
                                 .started_at = 2,
                                 .finished_at = 3,
                                 .executor = SLICE("x1"),
                                 .error_type = SLICE("t"),
                                 .error_message = SLICE("slow")},
                                {.key = run.key,
                                 .attempt = 2,
                                 .state = RUN_SUCCESS,
                                 .dispatched_at = 4,
                                 .started_at = 5,
                                 .finished_at = 6}};
  OK(CALL(run_apply, &ret, .fences = &fence, .fence_count = 1, .attempts = &rows[1], .attempt_count = 1));
  OK(CALL(run_apply, &ret, .fences = &fence, .fence_count = 1, .attempts = &rows[0], .attempt_count = 1));
  rows[0].state = RUN_SUCCESS; /* one that is there stays as it is */
  OK(CALL(run_apply, &ret, .fences = &fence, .fence_count = 1, .attempts = rows, .attempt_count = 1));
  OK(CALL(attempt_list, &list, .key = run.key));
  assert_int_equal(list.count, 2);
  assert_int_equal(list.rows[0].attempt, 1);
  assert_int_equal(list.rows[0].state, RUN_FAIL);
  assert_int_equal(list.rows[0].reason, REASON_TIMEOUT);
  assert_int_equal(list.rows[0].dispatched_at, 1);
  assert_int_equal(list.rows[0].finished_at, 3);
  assert_true(slice_eqz(list.rows[0].executor, "x1") && slice_eqz(list.rows[0].error_message, "slow"));
  assert_true(run_key_eq(&list.rows[0].key, &run.key));
  assert_null(list.rows[1].executor.p);
  fence.epoch--;
  rows[0].attempt = 3;
  OK(CALL(run_apply, &ret, .fences = &fence, .fence_count = 1, .attempts = rows, .attempt_count = 1));
  OK(CALL(attempt_list, &list, .key = run.key));
  assert_int_equal(list.count, 2);
}

/* An update and the end of the same run in one call: in this order. */
static void test_update_then_finish(void **state) {
  struct st_run_apply_ret ret;
  (void)state;
  own_shards();
  struct run_row run = fired("both");
  struct fence_row fence = fence_of(run.key.shard);
  struct run_update u = {.key = run.key,
                         .seen_state = RUN_PENDING,
                         .seen_reason = REASON_SCHEDULED,
                         .state = RUN_RUNNING,
                         .attempt = 1,
                         .progress = -1};
  struct run_finish f = {.key = run.key, .seen_attempt = 1, .state = RUN_SUCCESS, .finished_at = 5};
  OK(CALL(run_apply, &ret, .fences = &fence, .fence_count = 1, .updates = &u, .update_count = 1,
          .finishes = &f, .finish_count = 1));
  assert_true(ret.updated[0] && ret.finished[0]);
  assert_int_equal(get_run(&run.key).attempt, 1);
}

static void test_stats(void **state) {
  struct st_task_stats_ret st;
  (void)state;
  own_shards();
  struct task_version_row task = new_task("stats");
  OK(CALL(task_stats, &st, .task_id = task.task_id));
  assert_int_equal(st.fires, 0);
  assert_int_equal(st.last_state, -1);
  struct run_row rows[5], skipped = run_of(&task, 90000, 0);
  for (int i = 0; i < 5; i++) {
    rows[i] = run_of(&task, 10000 * (i + 1), 0);
    rows[i].attempt = 1;
  }
  skipped.state = RUN_SKIPPED;
  assert_true(fire_open(rows, 5));
  assert_true(fire_ended(&skipped, 1));
  static const enum run_state states[4] = {RUN_SUCCESS, RUN_SUCCESS, RUN_CANCELLED, RUN_FAIL};
  for (int i = 0; i < 4; i++) {
    struct fence_row fence = fence_of(task.shard);
    struct run_finish f = {.key = rows[i].key,
                           .seen_attempt = 1,
                           .state = states[i],
                           .started_at = rows[i].key.scheduled_at + 100,
                           .finished_at = rows[i].key.scheduled_at + 100 + 100 * (i + 1)};
    struct st_run_apply_ret ret;
    if (states[i] == RUN_CANCELLED)
      f.started_at = 0;
    OK(CALL(run_apply, &ret, .fences = &fence, .fence_count = 1, .finishes = &f, .finish_count = 1));
    assert_true(ret.finished[0]);
  }
  OK(CALL(task_stats, &st, .task_id = task.task_id));
  assert_int_equal(st.fires, 5);
  assert_int_equal(st.success, 2);
  assert_int_equal(st.fail, 1);
  assert_int_equal(st.cancelled, 1);
  assert_int_equal(st.skipped, 1);
  assert_int_equal(st.open, 1);
  assert_int_equal(st.attempts, 5);
  assert_in_range(st.mean_duration, 233, 234);
  assert_int_equal(st.max_duration, 400);
  assert_int_equal(st.last_scheduled_at, 50000);
  assert_int_equal(st.last_started_at, 40100);
  assert_int_equal(st.last_finished_at, 40500);
  assert_int_equal(st.last_state, RUN_FAIL);
  OK(CALL(task_stats, &st, .task_id = task.task_id, .since = 20000));
  assert_int_equal(st.success, 1);
}

TESTS(run_tests, cmocka_unit_test(test_update), cmocka_unit_test(test_late_update),
      cmocka_unit_test(test_finish), cmocka_unit_test(test_fences), cmocka_unit_test(test_inbox_done),
      cmocka_unit_test(test_attempts), cmocka_unit_test(test_update_then_finish),
      cmocka_unit_test(test_stats));
