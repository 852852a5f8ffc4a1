#include "contract.h"
#include <stdio.h>

#define MANY INT32_MAX

static struct task_version_row task;
static struct run_row run;

/* An open run of a task of the group "workers". */
static void make_run(usec_t at) {
  own_shards();
  task = new_task("log");
  run = run_of(&task, at, 0);
  run.attempt = 1;
  assert_true(fire_open(&run, 1));
}

static struct log_line line(int32_t attempt, int32_t seq, const char *text) {
  return (struct log_line){.attempt = attempt,
                           .seq = seq,
                           .level = RUN_LOG_WARN,
                           .at = run.fired_at + seq,
                           .text = slice_of(text)};
}

static struct log_put_result put(const struct log_line *lines, size_t n, int64_t max_lines,
                                 int64_t max_bytes) {
  struct log_entry entry = {
      .key = run.key, .ns = fx.ns, .group = SLICE("workers"), .lines = lines, .count = n};
  struct st_run_log_put_ret ret;
  assert_int_equal(OK(CALL(run_log_put, &ret, .entries = &entry, .count = 1, .max_lines = max_lines,
                           .max_bytes = max_bytes)),
                   0);
  return ret.results[0];
}

static struct st_run_log_list_ret list_after(int32_t attempt, int32_t after_attempt, int32_t after_seq,
                                             int32_t limit) {
  struct st_run_log_list_ret ret = {0};
  OK(CALL(run_log_list, &ret, .key = run.key, .attempt = attempt, .after_attempt = after_attempt,
          .after_seq = after_seq, .limit = limit));
  return ret;
}
static struct st_run_log_list_ret list(void) { return list_after(0, 0, 0, 1000); }

static void assert_put(struct log_put_result r, int taken, int repeated, int dropped) {
  assert_int_equal(r.answer, LOG_TAKEN);
  assert_int_equal(r.taken, taken);
  assert_int_equal(r.repeated, repeated);
  assert_int_equal(r.dropped, dropped);
}

static void assert_line(const struct log_line *l, int32_t attempt, int32_t seq, const char *text) {
  assert_int_equal(l->attempt, attempt);
  assert_int_equal(l->seq, seq);
  assert_true(slice_eqz(l->text, text));
}

static void test_order_and_repeats(void **state) {
  (void)state;
  make_run(db_now());
  usec_t before = db_now();
  const struct log_line first[] = {line(2, 1, "c"), line(1, 2, "b"), line(1, 1, "a"), line(1, 2, "other")};
  assert_put(put(first, 4, 100, 1000), 3, 1, 0);
  assert_put(put(first, 4, 100, 1000), 0, 4, 0);
  const struct log_line second[] = {line(1, 4, ""), line(1, 1, "a")};
  assert_put(put(second, 2, 100, 1000), 1, 1, 0);
  struct st_run_log_list_ret got = list();
  assert_int_equal(got.count, 4);
  assert_line(&got.lines[0], 1, 1, "a");
  assert_line(&got.lines[1], 1, 2, "b");
  assert_line(&got.lines[2], 1, 4, "");
  assert_line(&got.lines[3], 2, 1, "c");
  assert_int_equal(got.lines[1].level, RUN_LOG_WARN);
  assert_int_equal(got.lines[1].at, run.fired_at + 2);
  assert_int_equal(got.lines[1].cut, 0);
  assert_in_range(got.lines[1].taken_at, before, got.now);
  assert_int_equal(got.head_count, 2);
  assert_int_equal(got.heads[0].attempt, 1);
  assert_int_equal(got.heads[0].last_seq, 4);
  assert_int_equal(got.heads[0].lines, 3);
  assert_int_equal(got.heads[0].bytes, 2);
  assert_false(got.heads[0].full);
  assert_int_equal(got.heads[1].attempt, 2);
}

static void test_pages(void **state) {
  (void)state;
  make_run(db_now());
  struct log_line lines[6];
  for (int32_t i = 0; i < 6; i++)
    lines[i] = line(1 + i / 3, 1 + i % 3, "x");
  lines[4].at = 0;
  lines[4].cut = 17;
  assert_put(put(lines, 6, 100, 1000), 6, 0, 0);
  struct st_run_log_list_ret got = list_after(0, 1, 1, 3);
  assert_int_equal(got.count, 3);
  assert_line(&got.lines[0], 1, 2, "x");
  assert_line(&got.lines[2], 2, 1, "x");
  got = list_after(2, 0, 0, 100);
  assert_int_equal(got.count, 3);
  assert_line(&got.lines[0], 2, 1, "x");
  assert_int_equal(got.lines[1].at, 0);
  assert_int_equal(got.lines[1].cut, 17);
  assert_int_equal(got.head_count, 2);
  assert_int_equal(list_after(0, 2, 3, 100).count, 0);
}

/* From the first line beyond the bound on nothing new is kept, whatever its size; what is there is still recognised. */
static void test_bounds(void **state) {
  (void)state;
  make_run(db_now());
  const struct log_line first[] = {line(1, 1, "one"), line(1, 2, "two"), line(1, 3, "three"), line(1, 4, "")};
  assert_put(put(first, 4, MANY, 10), 2, 0, 2); /* 3 + 3 + 5 > 10 */
  struct log_put_result r = put(first, 4, MANY, 10);
  assert_put(r, 0, 2, 2);
  assert_int_equal(r.dropped_bytes, 5);
  const struct log_line later[] = {line(2, 1, ""), line(2, 9, "")};
  assert_put(put(later, 2, MANY, 1000), 0, 0, 2);
  struct st_run_log_list_ret got = list();
  assert_int_equal(got.count, 2);
  assert_int_equal(got.head_count, 2);
  assert_true(got.heads[0].full && got.heads[1].full);
  assert_int_equal(got.heads[0].last_seq, 4);
  assert_int_equal(got.heads[0].lines, 2);
  assert_int_equal(got.heads[0].bytes, 6);
  assert_int_equal(got.heads[1].last_seq, 9);
  assert_int_equal(got.heads[1].lines, 0);
}

static void test_bound_of_lines(void **state) {
  (void)state;
  make_run(db_now());
  const struct log_line first[] = {line(1, 1, "a"), line(1, 2, "b"), line(1, 2, "b")};
  assert_put(put(first, 3, 2, MANY), 2, 1, 0);
  const struct log_line second[] = {line(2, 1, "a"), line(1, 1, "a")};
  assert_put(put(second, 2, 2, MANY), 0, 1, 1); /* the bound is the run's, not the attempt's */
  assert_int_equal(list().count, 2);
}

static enum log_answer answer_for(struct run_key key, struct slice ns, struct slice group) {
  const struct log_line l = line(1, 1, "x");
  struct log_entry entry = {.key = key, .ns = ns, .group = group, .lines = &l, .count = 1};
  struct st_run_log_put_ret ret;
  OK(CALL(run_log_put, &ret, .entries = &entry, .count = 1, .max_lines = 10, .max_bytes = 100));
  return ret.results[0].answer;
}

static void test_whose(void **state) {
  (void)state;
  const struct slice any = {0};
  make_run(db_now());
  struct run_key none = run.key;
  none.part = 77;
  assert_int_equal(answer_for(none, any, any), LOG_UNKNOWN);
  assert_int_equal(answer_for(run.key, fx.ns, SLICE("strangers")), LOG_FORBIDDEN);
  assert_int_equal(answer_for(run.key, SLICE("elsewhere"), SLICE("workers")), LOG_FORBIDDEN);
  assert_int_equal(list().count, 0);
  assert_int_equal(list().head_count, 0);
  assert_int_equal(answer_for(run.key, any, any), LOG_TAKEN);
  assert_int_equal(answer_for(run.key, fx.ns, SLICE("workers")), LOG_TAKEN);
  assert_int_equal(list().count, 1);
  assert_true(finish_run(&run, RUN_SUCCESS, db_now()));
  const struct log_line late = line(1, 2, "late");
  assert_put(put(&late, 1, 10, 100), 1, 0, 0); /* ended runs, too */
  assert_int_equal(answer_for(run.key, fx.ns, SLICE("strangers")), LOG_FORBIDDEN);
}

/* Several entries, two of one run, one refused: each has its own result. */
static void test_entries(void **state) {
  (void)state;
  make_run(db_now());
  const struct log_line a = line(1, 1, "a"), b = line(1, 2, "bb"), again = line(1, 1, "a");
  struct run_key none = run.key;
  none.scheduled_at++;
  const struct log_entry entries[] = {{.key = run.key, .lines = &b, .count = 1},
                                      {.key = none, .lines = &a, .count = 1},
                                      {.key = run.key, .lines = &a, .count = 1},
                                      {.key = run.key, .lines = &again, .count = 1}};
  struct st_run_log_put_ret ret;
  OK(CALL(run_log_put, &ret, .entries = entries, .count = 4, .max_lines = 10, .max_bytes = 100));
  assert_put(ret.results[0], 1, 0, 0);
  assert_int_equal(ret.results[0].taken_bytes, 2);
  assert_int_equal(ret.results[1].answer, LOG_UNKNOWN);
  assert_put(ret.results[2], 1, 0, 0);
  assert_put(ret.results[3], 0, 1, 0);
  assert_int_equal(list().count, 2);
}

static int64_t expire(usec_t before, int32_t limit) {
  struct st_run_log_expire_ret d = {.more = true};
  int64_t removed = 0;
  for (int i = 0; d.more && i < 1000; i++) {
    assert_int_equal(OK(CALL(run_log_expire, &d, .before = before, .limit = limit)), 0);
    removed += d.removed;
  }
  assert_false(d.more);
  return removed;
}

static void test_expire(void **state) {
  (void)state;
  usec_t at = db_now() - 300 * USEC_PER_DAY;
  make_run(at);
  struct log_line lines[20];
  for (int32_t i = 0; i < 20; i++)
    lines[i] = line(1 + i / 10, 1 + i % 10, "x");
  assert_put(put(lines, 20, 100, 1000), 20, 0, 0);
  (void)expire(at + 1, 7);
  assert_int_equal(list().count, 20); /* it is open */
  assert_true(finish_run(&run, RUN_SUCCESS, db_now()));
  (void)expire(at, 7);
  assert_int_equal(list().count, 20); /* not old enough */
  (void)expire(at + 1, 7);
  assert_int_equal(list().count, 0);
  assert_int_equal(list().head_count, 0);
  assert_int_equal(state_of(&run.key), RUN_SUCCESS); /* the run stays */
}

/* The logs of a dropped run go with it, in steps. */
static void test_with_its_run(void **state) {
  (void)state;
  struct st_history_drop_ret d = {.more = true};
  usec_t at = db_now() - 310 * USEC_PER_DAY;
  make_run(at);
  struct log_line lines[50];
  for (int32_t i = 0; i < 50; i++)
    lines[i] = line(1, i + 1, "x");
  assert_put(put(lines, 50, 100, 1000), 50, 0, 0);
  assert_true(finish_run(&run, RUN_SUCCESS, at + 100));
  for (int strays = 0; strays < 2; strays++) {
    struct st_history_take_ret t;
    OK(CALL(namespace_put, &(struct st_namespace_put_ret){0}, .name = fx.ns));
    OK(CALL(history_take, &t, .ns = &fx.ns, .ns_count = 1, .before = at + USEC_PER_DAY, .scan = 100000,
            .limit = 100, .strays = strays));
  }
  assert_int_equal(state_of(&run.key), RUN_STATE_MAX_);
  const struct log_line late = line(1, 60, "late");
  struct log_entry entry = {.key = run.key, .lines = &late, .count = 1};
  struct st_run_log_put_ret ret;
  OK(CALL(run_log_put, &ret, .entries = &entry, .count = 1, .max_lines = 100, .max_bytes = 1000));
  assert_int_equal(ret.results[0].answer, LOG_UNKNOWN);
  int steps = 0;
  for (; d.more && steps < 1000; steps++)
    assert_int_equal(OK(CALL(history_drop, &d, .limit = 3)), 0);
  assert_false(d.more);
  assert_true(steps > 4); /* 50 lines, 12 or 3 in a step */
  assert_int_equal(list().count, 0);
  assert_int_equal(list().head_count, 0);
}

TESTS(log_tests, cmocka_unit_test(test_order_and_repeats), cmocka_unit_test(test_pages),
      cmocka_unit_test(test_bounds), cmocka_unit_test(test_bound_of_lines), cmocka_unit_test(test_whose),
      cmocka_unit_test(test_entries), cmocka_unit_test(test_expire), cmocka_unit_test(test_with_its_run));
