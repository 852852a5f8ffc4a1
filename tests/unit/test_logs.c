/* What runs log: the page that is made of stored lines, and the writer with a database that fails. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/thread.h"
#include "report/logs.h"
#include "store_util.h"

static struct err e;
static struct arena mem;

/* ---------------------------------------------------------------- pages */

#define NOW (1000 * USEC_PER_SEC)

static struct log_line lines[16];
static struct log_head heads[4];
static struct st_run_log_list_ret got;
static struct logs_page page;

static void line(int32_t attempt, int32_t seq, usec_t taken_at) {
  lines[got.count++] = (struct log_line){.attempt = attempt, .seq = seq, .taken_at = taken_at};
}

static void head(int32_t attempt, int32_t last_seq, bool full) {
  heads[got.head_count++] = (struct log_head){.attempt = attempt, .last_seq = last_seq, .full = full};
}

static int reset(void **state) {
  (void)state;
  arena_clear(&mem);
  got = (struct st_run_log_list_ret){.lines = lines, .heads = heads, .now = NOW};
  return 0;
}

static void arrange(bool ended, int32_t after_attempt, int32_t after_seq, int32_t limit) {
  struct logs_ask ask = {
      .after_attempt = after_attempt, .after_seq = after_seq, .limit = limit, .ended = ended};
  logs_arrange(&ask, &got, &page, &mem);
}

static void assert_row(size_t i, enum log_row_kind kind, int32_t attempt, int32_t from, int32_t to) {
  assert_true(i < page.count);
  assert_int_equal(page.rows[i].kind, kind);
  assert_int_equal(page.rows[i].attempt, attempt);
  assert_int_equal(page.rows[i].from, from);
  assert_int_equal(page.rows[i].to, to);
  if (kind == LOG_ROW_LINE)
    assert_int_equal(page.rows[i].line->seq, from);
}

static void assert_end(size_t count, int32_t attempt, int32_t seq, bool more) {
  assert_int_equal(page.count, count);
  assert_int_equal(page.attempt, attempt);
  assert_int_equal(page.seq, seq);
  assert_int_equal(page.more, more);
}

static void test_nothing(void **state) {
  (void)state;
  arrange(false, 0, 0, 10);
  assert_end(0, 0, 0, false);
  arrange(true, 3, 7, 10);
  assert_end(0, 3, 7, false);
}

static void test_lines_of_attempts(void **state) {
  (void)state;
  head(1, 2, false);
  head(3, 1, false);
  line(1, 1, NOW);
  line(1, 2, NOW);
  line(3, 1, NOW);
  arrange(false, 0, 0, 10);
  assert_end(3, 3, 1, false);
  assert_row(0, LOG_ROW_LINE, 1, 1, 1);
  assert_row(2, LOG_ROW_LINE, 3, 1, 1);
}

static void test_a_young_hole_is_waited_for(void **state) {
  (void)state;
  head(1, 4, false);
  line(1, 1, NOW);
  line(1, 4, NOW - LOGS_PATIENCE + 1);
  arrange(false, 0, 0, 10);
  assert_end(1, 1, 1, false);
  arrange(true, 0, 0, 10); /* the run has ended: nothing is waited for */
  assert_end(3, 1, 4, false);
  assert_row(1, LOG_ROW_GAP, 1, 2, 3);
  assert_row(2, LOG_ROW_LINE, 1, 4, 4);
}

static void test_an_old_hole_is_shown(void **state) {
  (void)state;
  head(1, 4, false);
  line(1, 3, NOW - LOGS_PATIENCE);
  line(1, 4, NOW);
  arrange(false, 0, 0, 10);
  assert_end(3, 1, 4, false);
  assert_row(0, LOG_ROW_GAP, 1, 1, 2);
}

static void test_going_on(void **state) {
  (void)state;
  head(1, 9, false);
  head(2, 2, false);
  line(1, 9, NOW);
  line(2, 1, NOW);
  line(2, 2, NOW);
  arrange(false, 1, 8, 10);
  assert_end(3, 2, 2, false);
  assert_row(0, LOG_ROW_LINE, 1, 9, 9);
  reset(NULL);
  head(1, 9, false);
  head(2, 2, false);
  line(2, 2, NOW);
  arrange(false, 2, 1, 10);
  assert_end(1, 2, 2, false);
}

static void test_limits(void **state) {
  (void)state;
  head(1, 9, false);
  line(1, 1, NOW);
  line(1, 2, NOW);
  arrange(false, 0, 0, 2); /* as many lines as were asked for: there may be more */
  assert_end(2, 1, 2, true);
  reset(NULL);
  head(1, 5, false);
  line(1, 1, 0);
  line(1, 5, 0);
  arrange(false, 0, 0, 2); /* no room for the line behind the gap */
  assert_end(2, 1, 4, true);
  assert_row(1, LOG_ROW_GAP, 1, 2, 4);
}

static void test_what_was_dropped(void **state) {
  (void)state;
  head(1, 7, true);
  head(2, 3, true);
  line(1, 1, NOW);
  line(1, 2, NOW);
  arrange(false, 0, 0, 10);
  assert_end(4, 2, 3, false);
  assert_row(2, LOG_ROW_CUT, 1, 3, 7);
  assert_row(3, LOG_ROW_CUT, 2, 1, 3);
  got.count = 0;
  arrange(false, 2, 3, 10); /* nothing new */
  assert_end(0, 2, 3, false);
  arrange(false, 1, 2, 1);
  assert_end(1, 1, 7, true);
}

static void test_one_attempt(void **state) {
  (void)state;
  struct logs_ask ask = {.attempt = 2, .limit = 10};
  head(1, 7, true);
  head(2, 1, false);
  line(2, 1, NOW);
  logs_arrange(&ask, &got, &page, &mem);
  assert_end(1, 2, 1, false);
  assert_row(0, LOG_ROW_LINE, 2, 1, 1);
}

/* ---------------------------------------------------------------- the writer */

enum { LINES = 600 };

static struct test_store t;
static struct logs *logs;
static struct run_key key;
static _Atomic int calls, faults; /* so many calls are answered with `fault` */
static _Atomic int fault;
static struct mutex lock; /* protects the results */
static struct cond changed;
static enum log_result results[8];
static int answers;

static enum store_fault decide(void *arg, const char *op) {
  (void)arg;
  if (strcmp(op, "run_log_put") != 0)
    return STORE_FAULT_NONE;
  calls++;
  return faults-- > 0 ? (enum store_fault)fault : STORE_FAULT_NONE;
}

static void on_done(void *arg, const enum log_result *r, size_t n) {
  (void)arg;
  mutex_lock(&lock);
  for (size_t i = 0; i < n; i++)
    results[answers++] = r[i];
  cond_broadcast(&changed);
  mutex_unlock(&lock);
}

static void make_run(void) {
  struct task_def def = {.ns = SLICE("default"),
                         .name = SLICE("t"),
                         .definition = SLICE("{}"),
                         .group = SLICE("g"),
                         .handler = SLICE("h"),
                         .schedule_text = SLICE(""),
                         .kind = SCHEDULE_MANUAL};
  struct st_task_put_ret made;
  struct st_node_join_ret j;
  struct st_shard_claim_ret c;
  OK(store_task_put(t.store, &(struct st_task_put){.defs = &def, .count = 1, .by = SLICE("me")}, &made, &mem,
                    &e));
  OK(store_node_join(t.store, &(struct st_node_join){.id = SLICE("n"), .ttl = USEC_PER_SEC}, &j, &mem, &e));
  OK(store_shard_claim(
      t.store,
      &(struct st_shard_claim){
          .node = SLICE("n"), .incarnation = j.incarnation, .ids = &made.rows[0].shard, .count = 1},
      &c, &mem, &e));
  struct shard_row s = c.shards[0];
  key = (struct run_key){s.id, s.fired_at + 1, made.rows[0].task_id, 0};
  struct run_row row = {
      .key = key, .version = 1, .state = RUN_PENDING, .reason = REASON_DISPATCHING, .attempt = 1};
  struct fire_shard f = {.shard = s.id,
                         .epoch = s.epoch,
                         .tasks_version = s.tasks_version,
                         .seen_at = s.fired_at,
                         .seen_task = s.fired_task,
                         .new_at = s.fired_at + 1,
                         .new_task = 1};
  struct st_fire_ret fired;
  OK(store_fire(t.store,
                &(struct st_fire){
                    .shards = &f, .shard_count = 1, .open = &row, .open_count = 1, .ahead = USEC_PER_HOUR},
                &fired, &mem, &e));
  assert_true(fired.advanced[0]);
}

static int setup(void **state) {
  (void)state;
  struct store *session;
  struct logs_options o;
  arena_clear(&mem);
  test_store_open(&t);
  make_run();
  logs_options_default(&o);
  OK(store_session(t.source, STORE_API, &session, &e));
  o.write = store_faults(session, decide, NULL);
  o.read = t.store;
  o.queue_bytes = 256 * 1024;
  o.retry_for = 300 * USEC_PER_MS;
  mutex_init(&lock);
  cond_init(&changed);
  answers = 0;
  calls = faults = 0;
  logs = logs_new(&o);
  return 0;
}

static int teardown(void **state) {
  (void)state;
  logs_free(&logs);
  mutex_done(&lock);
  cond_done(&changed);
  test_store_close(&t);
  return 0;
}

static struct log_line many[LINES];

static int post(int32_t first, size_t n, struct slice group) {
  for (size_t i = 0; i < n; i++)
    many[i] = (struct log_line){.attempt = 1, .seq = first + (int32_t)i, .text = SLICE("text")};
  struct log_entry entry = {.key = key, .ns = SLICE("default"), .group = group, .lines = many, .count = n};
  return logs_post(logs, &entry, 1, on_done, NULL, &e);
}

static void await_answers(int n) {
  mutex_lock(&lock);
  while (answers < n)
    assert_true(cond_wait(&changed, &lock, 30 * USEC_PER_SEC));
  mutex_unlock(&lock);
}

static size_t stored(void) {
  struct logs_ask ask = {.key = key, .limit = 1000, .ended = true};
  OK(logs_read(logs, &ask, &page, &mem, &e));
  return page.count;
}

/* Many lines are several transactions, so that nobody waits long for the database; answered when all of them are done. */
static void test_many_lines(void **state) {
  (void)state;
  OK(post(1, LINES, SLICE("g")));
  OK(post(1, 1, SLICE("other")));
  OK(logs_start(logs, &e));
  await_answers(2);
  assert_int_equal(results[0], LOG_RESULT_RECORDED);
  assert_int_equal(results[1], LOG_RESULT_FORBIDDEN);
  assert_int_equal(stored(), LINES);
  assert_true(calls >= 3);
}

static void test_an_answer_that_was_lost(void **state) {
  (void)state;
  fault = STORE_FAULT_LOST_ANSWER;
  faults = 1;
  OK(logs_start(logs, &e));
  OK(post(1, 3, SLICE("g")));
  await_answers(1);
  assert_int_equal(results[0], LOG_RESULT_RECORDED);
  assert_int_equal(calls, 2);
  assert_int_equal(stored(), 3);
}

/* Given up after a while: the executor is asked to come again. */
static void test_a_database_that_is_away(void **state) {
  (void)state;
  fault = STORE_FAULT_UNAVAILABLE;
  faults = 1000000;
  OK(logs_start(logs, &e));
  OK(post(1, 3, SLICE("g")));
  await_answers(1);
  assert_int_equal(results[0], LOG_RESULT_RETRY);
  faults = 0;
  OK(post(1, 3, SLICE("g")));
  await_answers(2);
  assert_int_equal(results[1], LOG_RESULT_RECORDED);
  assert_int_equal(stored(), 3);
}

static void test_a_full_queue_refuses(void **state) {
  (void)state;
  int n = 0, rc;
  while ((rc = post(1 + n * LINES, LINES, SLICE("g"))) == 0)
    n++;
  assert_int_equal(rc, ERR_BUSY);
  assert_in_range(n, 1, 8);
  OK(logs_start(logs, &e));
  await_answers(n); /* what was taken is answered, and there is room again */
  OK(post(1, 1, SLICE("g")));
  await_answers(n + 1);
  assert_int_equal(results[n], LOG_RESULT_RECORDED);
}

static void test_a_stop_writes_what_is_queued(void **state) {
  (void)state;
  OK(post(1, 3, SLICE("g")));
  OK(logs_start(logs, &e));
  logs_stop(logs);
  assert_int_equal(answers, 1);
  assert_int_equal(stored(), 3);
  assert_int_equal(post(4, 1, SLICE("g")), ERR_BUSY);
}

int main(void) {
#define P(f) cmocka_unit_test_setup(f, reset)
#define W(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
  const struct CMUnitTest tests[] = {
      P(test_nothing),
      P(test_lines_of_attempts),
      P(test_a_young_hole_is_waited_for),
      P(test_an_old_hole_is_shown),
      P(test_going_on),
      P(test_limits),
      P(test_what_was_dropped),
      P(test_one_attempt),
      W(test_many_lines),
      W(test_an_answer_that_was_lost),
      W(test_a_database_that_is_away),
      W(test_a_full_queue_refuses),
      W(test_a_stop_writes_what_is_queued),
  };
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  arena_done(&mem);
  return failed;
}
