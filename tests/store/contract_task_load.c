#include "contract.h"

#define MANY 5000

static void put_many(size_t count, struct st_task_put_ret *ret) {
  struct task_def *defs = arena_array(&fx.mem, count, sizeof *defs);
  struct slice stem = unique("bulk");
  for (size_t i = 0; i < count; i++)
    defs[i] = task_def_named(slice_of(arena_printf(&fx.mem, "%s-%zu", stem.p, i)));
  OK(CALL(task_put, ret, .defs = defs, .count = count, .by = SLICE("bulk")));
}

static void test_batch(void **state) {
  struct st_task_put_ret put;
  int64_t change_no[1024] = {};
  size_t loaded = 0;
  (void)state;
  put_many(MANY, &put);
  assert_int_equal(put.count, MANY);
  for (size_t i = 0; i < MANY; i++) { /* one number a shard and call */
    const struct task_version_row *v = &put.rows[i];
    assert_true(change_no[v->shard] == 0 || change_no[v->shard] == v->change_no);
    change_no[v->shard] = v->change_no;
  }
  for (int32_t shard = 0; shard < fx.shard_count; shard++) {
    int64_t after = put.rows[0].task_id - 1;
    for (;;) { /* pages */
      struct st_task_load_ret ret;
      OK(CALL(task_load, &ret, .shard = shard, .changed_after = USEC_NEVER - 1, .after = after,
              .limit = 100));
      for (size_t i = 0; i < ret.count; i++) {
        assert_true(ret.rows[i].task_id > after);
        assert_int_equal(ret.rows[i].shard, shard);
        after = ret.rows[i].task_id;
        loaded += after <= put.rows[MANY - 1].task_id;
      }
      if (ret.count < 100)
        break;
    }
  }
  assert_int_equal(loaded, MANY);
}

static const struct task_version_row *find(const struct task_version_row *rows, size_t count, int64_t id,
                                           int32_t version) {
  for (size_t i = 0; i < count; i++)
    if (rows[i].task_id == id && rows[i].version == version)
      return &rows[i];
  return NULL;
}

static const struct task_version_row *loaded(const struct task_version_row *task, usec_t changed_after,
                                             int32_t version) {
  struct st_task_load_ret ret;
  OK(CALL(task_load, &ret, .shard = task->shard, .changed_after = changed_after, .after = task->task_id - 1,
          .limit = 1));
  return find(ret.rows, ret.count, task->task_id, version);
}

static void test_load_states(void **state) {
  struct st_task_change_ret changed;
  (void)state;
  struct task_version_row task = new_task("stateful");
  const struct task_version_row *row = loaded(&task, USEC_NEVER - 1, 1);
  assert_non_null(row); /* ENABLED ones always */
  assert_int_equal(row->anchor, task.anchor);
  assert_int_equal(row->change_no, task.change_no);
  assert_int_equal(row->effective_at, task.effective_at);
  assert_true(slice_eq(row->name, task.name) && slice_eq(row->definition, task.definition));
  OK(CALL(task_change, &changed, .task_id = task.task_id, .state = TASK_PAUSED));
  assert_null(loaded(&task, changed.row.effective_at, 2));
  assert_non_null(loaded(&task, changed.row.effective_at - 1, 2));
  OK(CALL(task_change, &changed, .task_id = task.task_id, .state = TASK_DELETED));
  assert_non_null(loaded(&task, changed.row.effective_at - 1, 3)); /* its former versions may own instants */
  assert_null(loaded(&task, changed.row.effective_at, 3));
}

static void wait_past(usec_t t) {
  while (db_now() <= t) /* a microsecond */
    continue;
}

static void test_older(void **state) {
  struct st_task_change_ret second, third;
  struct st_task_load_older_ret ret;
  (void)state;
  struct task_version_row task = new_task("older");
  wait_past(shard_now(task.shard).fired_at);
  wait_past(task.effective_at);
  OK(CALL(task_change, &second, .task_id = task.task_id, .state = TASK_PAUSED));
  wait_past(second.row.effective_at);
  OK(CALL(task_change, &third, .task_id = task.task_id, .state = TASK_ENABLED));
  assert_true(task.effective_at < second.row.effective_at &&
              second.row.effective_at < third.row.effective_at);
  OK(CALL(task_load_older, &ret, .shard = task.shard, .changed_after = third.row.effective_at));
  assert_null(find(ret.rows, ret.count, task.task_id, 2));
  OK(CALL(task_load_older, &ret, .shard = task.shard, .changed_after = third.row.effective_at - 1));
  assert_non_null(find(ret.rows, ret.count, task.task_id, 2)); /* owns the last microsecond */
  assert_null(find(ret.rows, ret.count, task.task_id, 1));
  OK(CALL(task_load_older, &ret, .shard = task.shard, .changed_after = second.row.effective_at - 1));
  assert_non_null(find(ret.rows, ret.count, task.task_id, 1));
  assert_non_null(find(ret.rows, ret.count, task.task_id, 2));
  assert_null(find(ret.rows, ret.count, task.task_id, 3)); /* the current one comes with task_load */
  for (size_t i = 1; i < ret.count; i++)
    assert_true(
        ret.rows[i].task_id > ret.rows[i - 1].task_id ||
        (ret.rows[i].task_id == ret.rows[i - 1].task_id && ret.rows[i].version > ret.rows[i - 1].version));
}

static void test_changes(void **state) {
  struct st_task_put_ret put;
  struct st_task_change_ret changed;
  struct st_task_changes_ret ret;
  (void)state;
  put_many(200, &put);
  int32_t shard = put.rows[0].shard;
  int64_t before = put.rows[0].change_no - 1;
  size_t here = 0;
  for (size_t i = 0; i < put.count; i++)
    here += put.rows[i].shard == shard;
  OK(CALL(task_change, &changed, .task_id = put.rows[0].task_id, .state = TASK_PAUSED));
  assert_int_equal(changed.row.change_no, before + 2);
  OK(CALL(task_changes, &ret, .shard = shard, .after = before, .limit = 1)); /* never half of one number */
  assert_int_equal(ret.count, here);
  assert_int_equal(ret.last, before + 1);
  for (size_t i = 1; i < ret.count; i++)
    assert_true(ret.rows[i].task_id > ret.rows[i - 1].task_id);
  OK(CALL(task_changes, &ret, .shard = shard, .after = before, .limit = (int32_t)here));
  assert_int_equal(ret.last, before + 1);
  OK(CALL(task_changes, &ret, .shard = shard, .after = before, .limit = (int32_t)here + 1));
  assert_int_equal(ret.count, here + 1);
  assert_int_equal(ret.last, before + 2);
  assert_int_equal(ret.rows[here].version, 2);
  assert_int_equal(ret.rows[here].state, TASK_PAUSED);
  OK(CALL(task_changes, &ret, .shard = shard, .after = before + 1, .limit = 100));
  assert_int_equal(ret.count, 1);
  OK(CALL(task_changes, &ret, .shard = shard, .after = before + 2, .limit = 100));
  assert_int_equal(ret.count, 0);
  assert_int_equal(ret.last, before + 2);
}

static void test_payload(void **state) {
  struct task_def def = task_def_named(unique("payload"));
  struct st_task_put_ret put;
  struct st_task_change_ret changed;
  struct st_payload_get_ret ret;
  (void)state;
  char *big = arena_alloc(&fx.mem, 1 << 20);
  memset(big, 'x', 1 << 20);
  big[0] = big[(1 << 20) - 1] = '"';
  def.payload = slice_n(big, 1 << 20);
  def.anchor = 99;
  OK(CALL(task_put, &put, .defs = &def, .count = 1));
  int64_t id = put.rows[0].task_id;
  struct task_def next = task_def_named(unique("renamed"));
  OK(CALL(task_change, &changed, .task_id = id, .def = &next, .state = TASK_ENABLED));
  OK(CALL(task_change, &changed, .task_id = id, .state = TASK_DELETED)); /* its runs still go out */
  int64_t ids[4] = {id, id, id + 1000000000, id};
  int32_t versions[4] = {1, 2, 1, 9};
  OK(CALL(payload_get, &ret, .task_ids = ids, .versions = versions, .count = 4));
  assert_true(ret.rows[0].has && ret.rows[1].has && !ret.rows[2].has && !ret.rows[3].has);
  assert_true(slice_eq(ret.rows[0].payload, def.payload) && slice_eq(ret.rows[0].ns, fx.ns) &&
              slice_eq(ret.rows[0].name, def.name));
  assert_true(slice_eq(ret.rows[0].definition, def.definition));
  assert_int_equal(ret.rows[0].anchor, 99);
  assert_null(ret.rows[1].payload.p);
  assert_true(slice_eq(ret.rows[1].name, next.name));
}

static void test_text_is_kept(void **state) {
  struct task_def def = task_def_named(unique("o'clock \"刻漏\" \\ %s $1 ?1 :x"));
  struct st_task_put_ret put;
  struct st_task_get_ret got;
  (void)state;
  def.description = SLICE("");
  OK(CALL(task_put, &put, .defs = &def, .count = 1));
  OK(CALL(task_get, &got, .ns = fx.ns, .name = def.name));
  assert_true(slice_eq(got.task.v.name, def.name));
  assert_int_equal(got.task.description.n, 0);
}

TESTS(task_load_tests, cmocka_unit_test(test_batch), cmocka_unit_test(test_load_states),
      cmocka_unit_test(test_older), cmocka_unit_test(test_changes), cmocka_unit_test(test_payload),
      cmocka_unit_test(test_text_is_kept));
