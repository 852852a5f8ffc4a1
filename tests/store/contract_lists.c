#include "contract.h"

#define NOISE   1500 /* so many that reading all of them in order is not what a list does */
#define NEEDLES 5

/* Needles in a haystack: every condition finds them alone, and together with every other one. */
static struct task_version_row needles[NEEDLES];
static struct slice haystack, word;

static void make_tasks(void) {
  struct task_def *defs = arena_array(&fx.mem, NOISE, sizeof *defs);
  struct st_task_put_ret put;
  haystack = fx.ns;
  for (int i = 0; i < NOISE; i++)
    defs[i] = task_def_named(slice_of(arena_printf(&fx.mem, "straw-%d", i)));
  for (int i = 0; i < NOISE; i += 500) /* before and behind the needles */
    OK(CALL(task_put, &put, .defs = defs + i, .count = 250, .by = SLICE("tester")));
  fx.ns = unique("needles");
  OK(CALL(namespace_put, &(struct st_namespace_put_ret){}, .name = fx.ns));
  OK(CALL(namespace_put, &(struct st_namespace_put_ret){}, .name = haystack));
  word = unique("needle%_");
  for (int i = 0; i < NEEDLES; i++) {
    struct task_def d = task_def_named(slice_of(arena_printf(&fx.mem, "%.*s-%d", SLICE_FMT(word), i)));
    d.group = d.handler = word;
    d.state = TASK_PAUSED;
    d.kind = SCHEDULE_MANUAL;
    OK(CALL(task_put, &put, .defs = &d, .count = 1, .by = SLICE("tester")));
    needles[i] = put.rows[0];
  }
  for (int i = 250; i < NOISE; i += 500)
    OK(CALL(task_put, &put, .defs = defs + i, .count = 250, .by = SLICE("tester")));
}

static void assert_needles(const struct st_task_list *filter) {
  struct st_task_list in = *filter;
  struct st_task_list_ret got;
  size_t found = 0;
  in.limit = 2;
  for (int page = 0; page < NEEDLES; page++) {
    arena_slice(&fx.mem, word);
    OK(store_task_list(fx.s, &in, &got, &fx.mem, &fx.e));
    for (size_t i = 0; i < got.count; i++) {
      assert_true(found < NEEDLES);
      assert_int_equal(got.tasks[i].v.task_id, needles[found].task_id);
      assert_true(slice_eq(got.tasks[i].group, word));
      in.after = needles[found++].task_id;
    }
    if (got.count < 2)
      break;
  }
  assert_int_equal(found, NEEDLES);
}

static void test_tasks(void **state) {
  (void)state;
  make_tasks();
  for (int mask = 1; mask < 1 << 7; mask++) {
    struct st_task_list in = {.state = -1, .kind = -1};
    if (!(mask & 0x1f)) /* states and kinds alone are not the needles' own */
      continue;
    if (mask & 1)
      in.ns = fx.ns;
    if (mask & 2)
      in.group = word;
    if (mask & 4)
      in.handler = word;
    if (mask & 8)
      in.name_prefix = word;
    if (mask & 16)
      in.name_contains = slice_n(word.p + 2, word.n - 2);
    if (mask & 32)
      in.state = TASK_PAUSED;
    if (mask & 64)
      in.kind = SCHEDULE_MANUAL;
    assert_needles(&in);
  }
}

static void test_nothing(void **state) {
  struct st_task_list_ret got;
  (void)state;
  make_tasks();
  OK(CALL(task_list, &got, .ns = haystack, .handler = word, .state = -1, .kind = -1, .limit = 10));
  assert_int_equal(got.count, 0);
  OK(CALL(task_list, &got, .ns = fx.ns, .state = TASK_ENABLED, .kind = -1, .limit = 10));
  assert_int_equal(got.count, 0);
  OK(CALL(task_list, &got, .name_contains = SLICE("needleX_"), .state = -1, .kind = -1, .limit = 10));
  assert_int_equal(got.count, 0); /* % and _ mean themselves */
  OK(CALL(task_list, &got, .ns = fx.ns, .group = word, .state = TASK_DELETED, .kind = -1, .limit = 10));
  assert_int_equal(got.count, 0);
  OK(CALL(task_list, &got, .ns = haystack, .state = -1, .kind = SCHEDULE_CRON, .limit = NOISE + 1));
  assert_int_equal(got.count, NOISE);
  for (size_t i = 1; i < got.count; i++)
    assert_true(got.tasks[i].v.task_id > got.tasks[i - 1].v.task_id);
}

/* Ended runs of few tasks among those of many, by every condition. */
static void test_runs(void **state) {
  struct st_run_list_ret got;
  (void)state;
  make_tasks();
  own_shards();
  usec_t base = clock_system.wall(&clock_system) + USEC_PER_HOUR;
  for (int i = 0; i < NEEDLES; i++)
    for (int n = 0; n < 4; n++) {
      struct run_row r = run_of(&needles[i], base + n, 0);
      r.state = n == 0 ? RUN_SUCCESS : n == 1 ? RUN_FAIL : n == 2 ? RUN_CANCELLED : RUN_SKIPPED;
      r.reason = n == 0 ? REASON_NONE : n == 1 ? REASON_EXPIRED : n == 2 ? REASON_NONE : REASON_CALENDAR;
      r.finished_at = base + n + 10;
      r.executor = word;
      assert_true(fire_ended(&r, 1));
    }
  struct run_row open = run_of(&needles[0], base + 9, 0);
  assert_true(fire_open(&open, 1));
  static const struct {
    uint32_t states;
    int reason;
    size_t executor, ns;
  } want[] = {{0, -1, 4, 4 * NEEDLES + 1},
              {1u << RUN_FAIL, -1, NEEDLES, NEEDLES},
              {1u << RUN_FAIL | 1u << RUN_SKIPPED, -1, 2 * NEEDLES, 2 * NEEDLES},
              {1u << RUN_SUCCESS | 1u << RUN_PENDING, -1, NEEDLES, NEEDLES + 1},
              {1u << RUN_PENDING, -1, 0, 1},
              {1u << RUN_RUNNING, -1, 0, 0},
              {0, REASON_EXPIRED, NEEDLES, NEEDLES},
              {0, REASON_CALENDAR, NEEDLES, NEEDLES},
              {1u << RUN_FAIL, REASON_CALENDAR, 0, 0},
              {1u << RUN_SUCCESS, REASON_EXPIRED, 0, 0},
              {1u << RUN_CANCELLED, REASON_NONE, NEEDLES, NEEDLES},
              {0, REASON_NONE, 2 * NEEDLES, 2 * NEEDLES}};
  for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
    OK(CALL(run_list, &got, .state_mask = want[i].states, .reason = want[i].reason, .executor = word,
            .limit = 100));
    assert_int_equal(got.count, i ? want[i].executor : 4 * NEEDLES);
    OK(CALL(run_list, &got, .state_mask = want[i].states, .reason = want[i].reason, .ns = fx.ns,
            .limit = 100));
    assert_int_equal(got.count, want[i].ns);
    OK(CALL(run_list, &got, .state_mask = want[i].states, .reason = want[i].reason, .ns = fx.ns,
            .executor = word, .since = base + 1, .until = base + 3, .limit = 100));
    assert_true(got.count <= 2 * NEEDLES);
    for (size_t k = 0; k < got.count; k++)
      assert_true(got.rows[k].run.key.scheduled_at > base && got.rows[k].run.key.scheduled_at < base + 3);
  }
}

TESTS(lists_tests, cmocka_unit_test(test_tasks), cmocka_unit_test(test_nothing), cmocka_unit_test(test_runs));
