#include "contract.h"

static struct task_row get_task(int64_t id) {
  struct st_task_get_ret ret;
  OK(CALL(task_get, &ret, .task_id = id));
  return ret.task;
}

static bool is_there(struct slice name) {
  struct st_task_get_ret ret;
  return CALL(task_get, &ret, .ns = fx.ns, .name = name) >= 0;
}

static struct st_group_put group_put(struct slice name, int32_t connections, int32_t expected_version) {
  return (struct st_group_put){.group = {.ns = fx.ns,
                                         .name = name,
                                         .channel = CHANNEL_HTTP,
                                         .routing = ROUTING_ROUND_ROBIN,
                                         .max_connections = connections,
                                         .secret_sealed = SLICE("sealed")},
                               .expected_version = expected_version};
}

/* Two new tasks, one that changes, one that goes, one that changes hands, a new group and a changed one. */
static void test_all_at_once(void **state) {
  (void)state;
  struct task_version_row edited = new_task("edited"), owned = new_task("owned");
  struct task_def defs[3] = {task_def_named(unique("a")), task_def_named(unique("b")),
                             task_def_named(unique("c"))};
  struct slice source = unique("source"), groups[2] = {unique("g"), unique("h")};
  struct st_task_apply_ret ret;
  struct st_group_put_ret made;
  struct st_group_get_ret group;
  defs[0].payload = SLICE("{\"n\":1}");
  defs[1].state = TASK_PAUSED;
  OK(CALL(task_apply, &ret, .puts = &defs[2], .put_count = 1, .by = SLICE("alice"), .source = source));
  struct task_version_row doomed = ret.puts[0];
  assert_true(slice_eq(get_task(doomed.task_id).managed_by, source));
  struct st_group_put old = group_put(groups[1], 4, 0);
  OK(store_group_put(fx.s, &old, &made, &fx.mem, &fx.e));
  struct task_def def = task_def_named(edited.name);
  def.definition = SLICE("{\"two\":2}");
  struct st_task_change changes[2] = {
      {.task_id = edited.task_id,
       .expected_version = 1,
       .def = &def,
       .state = TASK_PAUSED,
       .by = SLICE("bob"),
       .note = SLICE("why")},
      {.task_id = doomed.task_id, .expected_version = 1, .state = TASK_DELETED, .by = SLICE("bob")}};
  struct st_group_put puts[2] = {group_put(groups[0], 8, 0), group_put(groups[1], 9, made.group.version)};
  OK(CALL(task_apply, &ret, .groups = puts, .group_count = 2, .puts = defs, .put_count = 2,
          .changes = changes, .change_count = 2, .own = &owned.task_id, .own_count = 1, .by = SLICE("bob"),
          .source = source));
  for (int i = 0; i < 2; i++) {
    struct task_row t = get_task(ret.puts[i].task_id);
    assert_int_equal(t.v.version, 1);
    assert_int_equal(t.v.state, defs[i].state);
    assert_true(slice_eq(t.v.name, defs[i].name) && slice_eq(t.managed_by, source));
    assert_true(slice_eqz(t.created_by, "bob"));
    assert_int_equal(t.v.shard, shard_of_task(t.v.task_id, fx.shard_count));
    assert_true(shard_now(t.v.shard).tasks_version >= t.v.change_no);
  }
  struct task_row t = get_task(edited.task_id);
  assert_int_equal(ret.changes[0].version, 2);
  assert_int_equal(t.v.version, 2);
  assert_int_equal(t.v.state, TASK_PAUSED);
  assert_true(slice_eqz(t.v.definition, "{\"two\":2}") && slice_eqz(t.note, "why"));
  assert_int_equal(t.managed_by.n, 0); /* who made it by hand still has it */
  assert_false(is_there(doomed.name));
  t = get_task(owned.task_id);
  assert_int_equal(t.v.version, 1);
  assert_true(slice_eq(t.managed_by, source));
  for (int i = 0; i < 2; i++) {
    OK(CALL(group_get, &group, .ns = fx.ns, .name = groups[i]));
    assert_int_equal(group.group.max_connections, 8 + i);
    assert_int_equal(group.group.version, ret.groups[i].version);
  }
}

/* Whatever is refused, nothing is written, and the place is named. */
static void test_all_or_nothing(void **state) {
  (void)state;
  struct task_version_row a = new_task("a"), b = new_task("b");
  struct task_def def = task_def_named(unique("new")), taken[2] = {def, task_def_named(b.name)};
  struct slice source = unique("source"), group = unique("g");
  struct st_task_apply_ret ret;
  struct st_group_get_ret got;
  struct st_group_put put = group_put(group, 1, 0);
  struct st_task_change pause = {.task_id = a.task_id, .expected_version = 1, .state = TASK_PAUSED};
#define APPLY(...)                                                                                           \
  CALL(task_apply, &ret, .groups = &put, .group_count = 1, .puts = &def, .put_count = 1, .by = SLICE("bob"), \
       .source = source, __VA_ARGS__)
  struct st_task_change stale[2] = {pause,
                                    {.task_id = b.task_id, .expected_version = 2, .state = TASK_PAUSED}};
  REFUSED(ERR_STALE, APPLY(.changes = stale, .change_count = 2));
  assert_string_equal(fx.e.field, "/changes/1");
  fx.e = (struct err){};
  struct st_task_change foreign[2] = {pause,
                                      {.task_id = b.task_id, .expected_version = 1, .state = TASK_DELETED}};
  REFUSED(ERR_CONFLICT, APPLY(.changes = foreign, .change_count = 2));
  assert_string_equal(fx.e.field, "/changes/1");
  fx.e = (struct err){};
  REFUSED(ERR_CONFLICT, CALL(task_apply, &ret, .groups = &put, .group_count = 1, .puts = taken,
                             .put_count = 2, .changes = &pause, .change_count = 1));
  assert_string_equal(fx.e.field, "/puts/1/name");
  fx.e = (struct err){};
  REFUSED(ERR_CONFLICT, CALL(task_apply, &ret, .puts = &taken[1], .put_count = 1));
  assert_string_equal(fx.e.field, "/puts/0/name");
  fx.e = (struct err){};
  int64_t nobody = b.task_id + 1000000000;
  REFUSED(ERR_NOT_FOUND, APPLY(.changes = &pause, .change_count = 1, .own = &nobody, .own_count = 1));
  fx.e = (struct err){};
  struct st_group_put absent = group_put(unique("none"), 1, 3);
  REFUSED(ERR_NOT_FOUND, CALL(task_apply, &ret, .groups = &absent, .group_count = 1, .puts = &def,
                              .put_count = 1, .source = source));
  assert_string_equal(fx.e.field, "/groups/0");
#undef APPLY
  assert_int_equal(get_task(a.task_id).v.version, 1);
  assert_int_equal(get_task(b.task_id).v.version, 1);
  assert_false(is_there(def.name));
  REFUSED(ERR_NOT_FOUND, CALL(group_get, &got, .ns = fx.ns, .name = group));
  OK(CALL(task_apply, &ret, .puts = &def, .put_count = 1)); /* and the session goes on */
  assert_int_equal(get_task(ret.puts[0].task_id).managed_by.n, 0);
}

/* A task with open runs goes only when asked to, with what its owner shall do. */
static void test_delete_with_open_runs(void **state) {
  (void)state;
  own_shards();
  struct task_def def = task_def_named(unique("doomed"));
  struct slice source = unique("source");
  struct st_task_apply_ret ret;
  struct st_inbox_read_ret inbox;
  OK(CALL(task_apply, &ret, .puts = &def, .put_count = 1, .source = source));
  struct task_version_row task = ret.puts[0];
  struct run_row run = run_of(&task, 5000, 0);
  assert_true(fire_open(&run, 1));
  struct st_task_change ch = {.task_id = task.task_id, .expected_version = 1, .state = TASK_DELETED};
  REFUSED(ERR_CONFLICT, CALL(task_apply, &ret, .changes = &ch, .change_count = 1, .source = source));
  struct inbox_row row = {.shard = task.shard, .kind = 78, .body = SLICE("{}")};
  ch.even_with_open_runs = true;
  ch.inbox = &row;
  OK(CALL(task_apply, &ret, .changes = &ch, .change_count = 1, .source = source));
  assert_false(is_there(def.name));
  OK(CALL(inbox_read, &inbox, .shards = &task.shard, .shard_count = 1, .limit = 10000));
  assert_true(inbox.count > 0);
  assert_int_equal(inbox.rows[inbox.count - 1].kind, 78);
}

static void test_list_by_source(void **state) {
  (void)state;
  struct slice source = unique("source"), here = fx.ns;
  struct st_task_apply_ret ret;
  struct st_task_list_ret list;
  struct task_def defs[3] = {task_def_named(unique("x")), task_def_named(unique("y")),
                             task_def_named(unique("z"))};
  (void)new_task("by-hand");
  fx.ns = unique("elsewhere");
  defs[2].ns = fx.ns;
  OK(CALL(task_apply, &ret, .puts = defs, .put_count = 3, .source = source));
  fx.ns = here;
#define LIST(...) OK(CALL(task_list, &list, .state = -1, .kind = -1, .managed_by = source, __VA_ARGS__))
  LIST(.limit = 10);
  assert_int_equal(list.count, 3);
  for (size_t i = 0; i < 3; i++)
    assert_true(slice_eq(list.tasks[i].managed_by, source));
  LIST(.limit = 2);
  assert_int_equal(list.count, 2);
  LIST(.limit = 10, .after = list.tasks[1].v.task_id);
  assert_int_equal(list.count, 1);
  LIST(.limit = 10, .ns = here);
  assert_int_equal(list.count, 2);
  LIST(.limit = 10, .group = SLICE("others"));
  assert_int_equal(list.count, 0);
  LIST(.limit = 10, .ns = here, .name_prefix = defs[0].name);
  assert_int_equal(list.count, 1);
#undef LIST
}

TESTS(task_apply_tests, cmocka_unit_test(test_all_at_once), cmocka_unit_test(test_all_or_nothing),
      cmocka_unit_test(test_delete_with_open_runs), cmocka_unit_test(test_list_by_source));
