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

TESTS(run_list_tests, cmocka_unit_test(test_pages), cmocka_unit_test(test_filters),
      cmocka_unit_test(test_same_shard));
