#include "contract.h"

#define RUNS 30

/* RUNS runs of three tasks: part i % 3, two at each instant; every third stays open, the others end. */
static struct task_version_row tasks[3];
static struct run_row runs[RUNS];
static usec_t base;

static void make_runs(void) {
  base = clock_system.wall(&clock_system); /* after whatever other tests have left */
  own_shards();
  for (int i = 0; i < 3; i++)
    tasks[i] = new_task("listed");
  for (int i = 0; i < RUNS; i++) {
    runs[i] = run_of(&tasks[i % 3], base + i / 2, i % 5);
    assert_true(fire_open(&runs[i], 1));
    if (i % 3 != 0)
      assert_true(finish_run(&runs[i], i % 3 == 1 ? RUN_SUCCESS : RUN_FAIL, base + 1000));
  }
}

static bool older(const struct run_key *a, const struct run_key *b) {
  if (a->scheduled_at != b->scheduled_at)
    return a->scheduled_at < b->scheduled_at;
  return a->task_id != b->task_id ? a->task_id < b->task_id : a->part < b->part;
}

#define LIST(...) OK(CALL(run_list, &list, .reason = -1, .ns = fx.ns, __VA_ARGS__))

static void test_pages(void **state) {
  struct st_run_list_ret list;
  struct run_key before;
  (void)state;
  make_runs();
  for (int limit = 1; limit <= RUNS + 1; limit += 7) {
    size_t found = 0;
    LIST(.limit = limit);
    while (list.count) {
      for (size_t i = 0; i < list.count; i++) {
        if (found)
          assert_true(older(&list.rows[i].run.key, &before));
        before = list.rows[i].run.key;
        assert_true(slice_eq(list.rows[i].ns, fx.ns));
        assert_true(slice_eq(list.rows[i].task_name, tasks[before.task_id - tasks[0].task_id].name) ||
                    before.task_id - tasks[0].task_id > 2);
        found++;
      }
      LIST(.limit = limit, .before = &before);
    }
    assert_int_equal(found, RUNS);
  }
}

static void test_filters(void **state) {
  struct st_run_list_ret list;
  (void)state;
  make_runs();
  LIST(.limit = 100, .state_mask = 1u << RUN_PENDING);
  assert_int_equal(list.count, RUNS / 3);
  LIST(.limit = 100, .state_mask = 1u << RUN_SUCCESS);
  assert_int_equal(list.count, RUNS / 3);
  LIST(.limit = 100, .state_mask = 1u << RUN_SUCCESS | 1u << RUN_PENDING);
  assert_int_equal(list.count, 2 * RUNS / 3);
  LIST(.limit = 100, .state_mask = 1u << RUN_RUNNING);
  assert_int_equal(list.count, 0);
  LIST(.limit = 100, .executor = SLICE("x1"));
  assert_int_equal(list.count, 2 * RUNS / 3);
  LIST(.limit = 100, .executor = SLICE("nobody"));
  assert_int_equal(list.count, 0);
  LIST(.limit = 100, .task_id = tasks[1].task_id);
  assert_int_equal(list.count, RUNS / 3);
  LIST(.limit = 4, .task_id = tasks[1].task_id);
  assert_int_equal(list.count, 4);
  LIST(.limit = 100, .task_id = tasks[1].task_id,
       .before = &(struct run_key){.scheduled_at = base + 5, .task_id = INT64_MAX});
  for (size_t i = 0; i < list.count; i++)
    assert_true(list.rows[i].run.key.scheduled_at <= base + 5);
  assert_int_equal(list.count, 4); /* 1, 4, 7, 10 */
  LIST(.limit = 100, .since = base + 5, .until = base + 7);
  assert_int_equal(list.count, 4);
  LIST(.limit = 100, .task_id = tasks[0].task_id, .since = base + 5, .until = base + 7);
  assert_int_equal(list.count, 1); /* 12 */
  OK(CALL(run_list, &list, .ns = fx.ns, .reason = REASON_SCHEDULED, .limit = 100));
  assert_int_equal(list.count, RUNS / 3);
  OK(CALL(run_list, &list, .ns = unique("nowhere"), .reason = -1, .limit = 100));
  assert_int_equal(list.count, 0);
  OK(CALL(run_list, &list, .reason = -1, .limit = 5));
  assert_int_equal(list.count, 5); /* all namespaces */
}

/* Open runs of another task of the same shard are not this task's. */
static void test_same_shard(void **state) {
  struct st_run_list_ret list;
  (void)state;
  own_shards();
  struct task_version_row a = new_task("a"), b;
  do
    b = new_task("b");
  while (b.shard != a.shard);
  struct run_row rows[3] = {run_of(&a, 1000, 0), run_of(&b, 1001, 0), run_of(&a, 1002, 0)};
  assert_true(fire_open(rows, 3));
  LIST(.limit = 10, .task_id = a.task_id);
  assert_int_equal(list.count, 2);
  LIST(.limit = 10, .task_id = b.task_id);
  assert_int_equal(list.count, 1);
}

/* Rows that stand for a range: open and ended ones, by any instant of it. */
static void test_folded(void **state) {
  struct st_run_folded_ret got;
  (void)state;
  own_shards();
  struct task_version_row task = new_task("folded"), other = new_task("other");
  struct run_row missed = run_of(&task, 5000, 0), made_up = run_of(&task, 9000, 0),
                 single = run_of(&task, 7000, 0), open = run_of(&task, 12000, 0),
                 others = run_of(&other, 9000, 0);
  missed.missed_first = 3000;
  missed.missed_count = 3;
  missed.state = RUN_SKIPPED;
  missed.reason = REASON_MISFIRE;
  single.missed_first = 7000;
  single.missed_count = 1;
  single.state = RUN_SKIPPED;
  single.reason = REASON_CALENDAR;
  made_up.missed_first = others.missed_first = 8000;
  made_up.missed_count = others.missed_count = 2;
  open.missed_first = 8500;
  open.missed_count = 4;
  assert_true(fire_ended(&missed, 1) && fire_ended(&single, 1));
  assert_true(fire_open(&made_up, 1) && fire_open(&open, 1) && fire_open(&others, 1));
  assert_true(finish_run(&made_up, RUN_SUCCESS, 20000));
  static const struct {
    usec_t from, to;
    int limit;
    usec_t want[4];
  } all[] = {{2000, 2999, 9, {0}},       {3000, 3000, 9, {5000}}, {4321, 4321, 9, {5000}},
             {5000, 5000, 9, {5000}},    {5001, 7999, 9, {0}},    {8700, 8700, 9, {9000, 12000}},
             {9001, 9001, 9, {12000}},   {12001, 99999, 9, {0}},  {1, 99999, 9, {5000, 9000, 12000}},
             {1, 99999, 2, {5000, 9000}}};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
    OK(CALL(run_folded, &got, .task_id = task.task_id, .from = all[i].from, .to = all[i].to,
            .limit = all[i].limit));
    size_t n = 0;
    for (; all[i].want[n]; n++)
      assert_true(n < got.count && got.rows[n].key.scheduled_at == all[i].want[n]);
    assert_int_equal(got.count, n);
  }
  OK(CALL(run_folded, &got, .task_id = task.task_id, .from = 3000, .to = 9000, .limit = 9));
  assert_int_equal(got.rows[0].missed_first, 3000);
  assert_int_equal(got.rows[0].missed_count, 3);
  assert_int_equal(got.rows[0].reason, REASON_MISFIRE);
  assert_int_equal(got.rows[1].state, RUN_SUCCESS);
}

TESTS(run_list_tests, cmocka_unit_test(test_folded), cmocka_unit_test(test_pages),
      cmocka_unit_test(test_filters), cmocka_unit_test(test_same_shard));
