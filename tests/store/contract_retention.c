#include "contract.h"

#define DAY     USEC_PER_DAY
#define TASKS   2
#define ENDED   12 /* of each task */
#define TOO_OLD (200 * DAY)

/* Ended runs of two tasks, every tenth minute of a day long ago, in a namespace of this test alone; every third has failed. */
static struct task_version_row tasks[TASKS];
static usec_t base;

static struct run_row ended_run(const struct task_version_row *t, usec_t at, enum run_state state) {
  struct run_row r = run_of(t, at, 0);
  r.state = state;
  r.reason = state == RUN_SUCCESS ? REASON_NONE : state == RUN_SKIPPED ? REASON_OVERLAP : REASON_ERROR;
  r.attempt = state == RUN_SKIPPED ? 0 : state == RUN_FAIL ? 2 : 1;
  r.started_at = state == RUN_SKIPPED ? 0 : at + 10;
  r.finished_at = at + (state == RUN_SKIPPED ? 0 : 30);
  r.executor = SLICE("x1");
  return r;
}

static enum run_state state_of_number(int i) {
  return i % 3 == 0 ? RUN_FAIL : i % 3 == 1 ? RUN_SUCCESS : RUN_SKIPPED;
}

static void add_attempts(const struct run_row *run) {
  struct fence_row fence = fence_of(run->key.shard);
  struct attempt_row a[2];
  for (int i = 0; i < 2; i++)
    a[i] = (struct attempt_row){.key = run->key,
                                .attempt = i + 1,
                                .state = RUN_FAIL,
                                .reason = REASON_ERROR,
                                .dispatched_at = run->fired_at,
                                .finished_at = run->finished_at,
                                .error_type = SLICE("Sad")};
  struct st_run_apply_ret ret;
  OK(CALL(run_apply, &ret, .fences = &fence, .fence_count = 1, .attempts = a, .attempt_count = 2));
}

static void make_history(usec_t at) {
  base = at;
  own_shards();
  OK(CALL(namespace_put, &(struct st_namespace_put_ret){}, .name = fx.ns));
  for (int t = 0; t < TASKS; t++) {
    tasks[t] = new_task("old");
    for (int i = 0; i < ENDED; i++) {
      struct run_row r = ended_run(&tasks[t], base + i * 10 * USEC_PER_MIN, state_of_number(i));
      assert_true(fire_ended(&r, 1));
      if (r.state == RUN_FAIL)
        add_attempts(&r);
    }
  }
}

/* Whatever another test has left goes first. */
static struct st_history_batch_ret batch_now(void) {
  struct st_history_batch_ret b = {};
  if (OK(CALL(history_batch, &b)) == 1)
    fail_msg("another session retains");
  return b;
}
static void drop_all(void) {
  struct st_history_drop_ret d = {.more = true};
  for (int i = 0; d.more && i < 1000; i++)
    assert_int_equal(OK(CALL(history_drop, &d, .limit = 5)), 0);
  assert_false(d.more);
  assert_false(batch_now().any);
}
static void settle(void) {
  if (batch_now().any)
    drop_all();
}

static struct st_task_stats_ret stats(int t) {
  struct st_task_stats_ret s = {};
  OK(CALL(task_stats, &s, .task_id = tasks[t].task_id));
  return s;
}
static void assert_stats(int t) {
  struct st_task_stats_ret s = stats(t);
  assert_int_equal(s.fires, 8);
  assert_int_equal(s.success, 4);
  assert_int_equal(s.fail, 4);
  assert_int_equal(s.skipped, 4);
  assert_int_equal(s.cancelled, 0);
  assert_int_equal(s.open, 0);
  assert_int_equal(s.attempts, 4 + 8);
  assert_int_equal(s.mean_duration, 20);
  assert_int_equal(s.max_duration, 20);
  assert_int_equal(s.last_state, RUN_SUCCESS); /* number 10; 11 was skipped */
  assert_int_equal(s.last_scheduled_at, base + 100 * USEC_PER_MIN);
  assert_int_equal(s.last_started_at, base + 100 * USEC_PER_MIN + 10);
  assert_int_equal(s.last_finished_at, base + 100 * USEC_PER_MIN + 30);
}

static size_t listed(int t) {
  struct st_run_list_ret list;
  OK(CALL(run_list, &list, .reason = -1, .task_id = tasks[t].task_id, .limit = 100));
  return list.count;
}

/* Take by rows until there is no more; strays and those of whole days alike. */
static int64_t take_rows(usec_t before, int32_t scan, int32_t limit) {
  int64_t taken = 0;
  for (int strays = 0; strays < 2; strays++) {
    struct run_key after = {.scheduled_at = INT64_MIN, .task_id = INT64_MIN, .part = INT32_MIN};
    struct st_history_take_ret t = {.more = true};
    for (int i = 0; t.more && i < 1000; i++) {
      assert_int_equal(OK(CALL(history_take, &t, .ns = &fx.ns, .ns_count = 1, .after = &after,
                               .before = before, .scan = scan, .limit = limit, .strays = strays)),
                       0);
      assert_true(t.taken <= limit);
      after = t.last;
      taken += t.taken;
    }
    assert_false(t.more);
  }
  return taken;
}

static void test_rows(void **state) {
  (void)state;
  settle();
  make_history(db_now() - 2 * TOO_OLD);
  assert_stats(0);
  struct st_history_batch_ret b = batch_now();
  assert_false(b.any);
  assert_int_equal(take_rows(base, 7, 3), 0);
  assert_int_equal(take_rows(base + 60 * USEC_PER_MIN, 7, 3), 6 * TASKS); /* 0 … 50 minutes */
  assert_int_equal(listed(0), 6);
  assert_stats(0); /* not dropped yet */
  struct st_history_batch_ret c = batch_now();
  assert_true(c.any);
  assert_false(c.archived);
  assert_int_equal(c.no, b.no + 1);
  assert_int_equal(c.first, base);
  assert_int_equal(c.last, base + 50 * USEC_PER_MIN);
  OK(CALL(history_archived, &(struct st_history_archived_ret){}, .no = c.no));
  assert_true(batch_now().archived);
  struct st_history_drop_ret d;
  OK(CALL(history_drop, &d, .limit = 5));
  assert_true(d.more);
  assert_stats(0); /* in the middle of it */
  assert_stats(1);
  assert_true(batch_now().archived);
  drop_all();
  assert_stats(0);
  assert_stats(1);
  assert_int_equal(take_rows(base + DAY, 100, 100), 6 * TASKS);
  b = batch_now();
  assert_int_equal(b.no, c.no + 1);
  assert_false(b.archived);
  REFUSED(ERR_STALE, CALL(history_archived, &(struct st_history_archived_ret){}, .no = c.no));
  drop_all();
  assert_int_equal(listed(0), 0);
  assert_stats(0);
  struct st_task_stats_ret s;
  OK(CALL(task_stats, &s, .task_id = tasks[0].task_id, .since = base)); /* what is gone is of no known time */
  assert_int_equal(s.fires, 0);
}

/* Runs of other namespaces, and those that have not been over for long enough, stay. */
static void test_what_stays(void **state) {
  (void)state;
  settle();
  make_history(db_now() - 2 * TOO_OLD);
  struct slice mine = fx.ns;
  fx.ns = unique("other");
  assert_int_equal(take_rows(base + DAY, 10, 10), 0);
  fx.ns = mine;
  struct run_row late = ended_run(&tasks[0], base + 5, RUN_SUCCESS);
  late.finished_at = db_now();
  assert_true(fire_ended(&late, 1));
  struct run_row open = run_of(&tasks[0], base + 6, 0);
  assert_true(fire_open(&open, 1));
  assert_int_equal(take_rows(base + DAY, 10, 10), TASKS * ENDED);
  drop_all();
  assert_int_equal(listed(0), 2);
  assert_int_equal(stats(0).success, 5);
  assert_int_equal(state_of(&late.key), RUN_SUCCESS);
  assert_int_equal(state_of(&open.key), RUN_PENDING);
  assert_true(finish_run(&open, RUN_FAIL, db_now()));
  assert_int_equal(take_rows(db_now() + 1, 10, 10), 2);
  drop_all();
  assert_int_equal(stats(0).fail, 5);
}

static void test_read(void **state) {
  (void)state;
  settle();
  make_history(db_now() - 2 * TOO_OLD);
  assert_int_equal(take_rows(base + DAY, 100, 100), TASKS * ENDED);
  struct run_key after = {};
  size_t found = 0, attempts = 0;
  for (struct st_history_read_ret r = {.count = 1}; r.count;) {
    assert_int_equal(OK(CALL(history_read, &r, .after = found ? &after : NULL, .limit = 7)), 0);
    for (size_t i = 0; i < r.count; i++) {
      const struct run_row *run = &r.rows[i].r.run;
      if (found)
        assert_true(run->key.scheduled_at > after.scheduled_at ||
                    (run->key.scheduled_at == after.scheduled_at && run->key.task_id > after.task_id));
      after = run->key;
      assert_true(slice_eq(r.rows[i].r.ns, fx.ns));
      assert_true(run->key.shard == tasks[0].shard || run->key.shard == tasks[1].shard);
      assert_int_equal(run->state,
                       state_of_number((int)((run->key.scheduled_at - base) / (10 * USEC_PER_MIN))));
      assert_int_equal(r.rows[i].attempt_count, run->state == RUN_FAIL ? 2 : 0);
      for (size_t a = 0; a < r.rows[i].attempt_count; a++) {
        assert_int_equal(r.rows[i].attempts[a].attempt, a + 1);
        assert_true(slice_eqz(r.rows[i].attempts[a].error_type, "Sad"));
      }
      attempts += r.rows[i].attempt_count;
      found++;
    }
  }
  assert_int_equal(found, TASKS * ENDED);
  assert_int_equal(attempts, TASKS * 8);
  drop_all();
  struct st_attempt_list_ret left;
  OK(CALL(attempt_list, &left, .key = after));
  assert_int_equal(left.count, 0);
}

static void test_count(void **state) {
  struct st_history_count_ret c;
  (void)state;
  make_history(db_now() - TOO_OLD);
  OK(CALL(history_count, &c, .ns = fx.ns, .since = base, .until = base + 60 * USEC_PER_MIN));
  assert_int_equal(c.count, 6 * TASKS);
  assert_true(c.oldest >= base && c.oldest < base + 60 * USEC_PER_MIN);
  OK(CALL(history_count, &c, .ns = unique("nowhere"), .since = base, .until = base + DAY));
  assert_int_equal(c.count, 0);
  OK(CALL(history_count, &c, .ns = fx.ns, .since = 1, .until = 2));
  assert_int_equal(c.count + c.oldest, 0);
}

/* Only one session at a time, where there are several nodes. */
static void test_one_at_a_time(void **state) {
  struct store *other;
  struct st_history_batch_ret b;
  (void)state;
  batch_now();
  assert_int_equal(store_session(fx.source, STORE_API, &other, &fx.e), 0);
  int r = OK(CALL_ON(other, history_batch, &b));
  assert_int_equal(r, fx.s->ops->caps & STORE_CAP_SINGLE_NODE ? 0 : 1);
  store_close(&other);
}

static void test_namespace(void **state) {
  struct st_namespace_list_ret all;
  (void)state;
  OK(CALL(namespace_put, &(struct st_namespace_put_ret){}, .name = fx.ns));
  for (int step = 0; step < 3; step++) {
    struct namespace_row want = {.name = fx.ns, .retention_age = -1, .retention_runs = -1};
    if (step == 1)
      want.retention_age = 7 * DAY, want.retention_runs = 0;
    if (step == 2)
      want.retention_runs = 100;
    if (step)
      OK(CALL(namespace_set, &(struct st_namespace_set_ret){}, .row = want));
    OK(CALL(namespace_list, &all));
    size_t i = 0;
    while (i < all.count && !slice_eq(all.names[i], fx.ns))
      i++;
    assert_true(i < all.count && slice_eq(all.rows[i].name, fx.ns));
    assert_int_equal(all.rows[i].retention_age, want.retention_age);
    assert_int_equal(all.rows[i].retention_runs, want.retention_runs);
  }
  REFUSED(ERR_NOT_FOUND,
          CALL(namespace_set, &(struct st_namespace_set_ret){}, .row = {.name = unique("no")}));
}

TESTS(retention_tests, cmocka_unit_test(test_rows), cmocka_unit_test(test_what_stays),
      cmocka_unit_test(test_read), cmocka_unit_test(test_count), cmocka_unit_test(test_one_at_a_time),
      cmocka_unit_test(test_namespace));
