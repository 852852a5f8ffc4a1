#include "contract.h"
#include <stdio.h>

static struct task_row get_task(int64_t id) {
  struct st_task_get_ret ret;
  OK(CALL(task_get, &ret, .task_id = id));
  return ret.task;
}

static void test_put_and_get(void **state) {
  struct task_def def = task_def_named(unique("task"));
  struct st_task_put_ret put;
  struct st_task_get_ret got;
  (void)state;
  def.description = SLICE("what it does");
  def.payload = SLICE("{\"n\":1}");
  def.anchor = 1234567;
  usec_t before = db_now();
  OK(CALL(task_put, &put, .defs = &def, .count = 1, .by = SLICE("alice")));
  assert_int_equal(put.count, 1);
  const struct task_version_row *v = &put.rows[0];
  assert_int_equal(v->version, 1);
  assert_int_equal(v->shard, shard_of_task(v->task_id, fx.shard_count));
  assert_true(v->effective_at >= before);
  assert_int_equal(v->anchor, 1234567);
  assert_int_equal(v->change_no, shard_now(v->shard).tasks_version);
  OK(CALL(task_get, &got, .ns = fx.ns, .name = def.name));
  const struct task_row *t = &got.task;
  assert_int_equal(t->v.task_id, v->task_id);
  assert_int_equal(t->v.effective_at, v->effective_at);
  assert_int_equal(t->v.change_no, v->change_no);
  assert_int_equal(t->v.anchor, 1234567);
  assert_int_equal(t->v.state, TASK_ENABLED);
  assert_true(t->v.has_payload);
  assert_int_equal(t->kind, SCHEDULE_CRON);
  assert_true(slice_eq(t->v.name, def.name) && slice_eq(t->v.definition, def.definition) &&
              slice_eq(t->payload, def.payload));
  assert_true(slice_eq(t->ns, fx.ns) && slice_eq(t->description, def.description) &&
              slice_eq(t->group, def.group));
  assert_true(slice_eq(t->handler, def.handler) && slice_eq(t->schedule_text, def.schedule_text));
  assert_true(slice_eqz(t->created_by, "alice") && slice_eqz(t->updated_by, "alice"));
  assert_true(t->created_at >= before && t->updated_at == t->created_at);
  OK(CALL(task_get, &got, .task_id = v->task_id));
  assert_true(slice_eq(got.task.v.name, def.name));
  REFUSED(ERR_NOT_FOUND, CALL(task_get, &got, .task_id = v->task_id, .version = 2));
  REFUSED(ERR_NOT_FOUND, CALL(task_get, &got, .ns = fx.ns, .name = SLICE("nobody")));
  REFUSED(ERR_NOT_FOUND, CALL(task_get, &got, .task_id = v->task_id + 1000000000));
}

static void test_defaults(void **state) {
  (void)state;
  struct task_version_row v = new_task("plain");
  struct task_row t = get_task(v.task_id);
  assert_int_equal(t.v.anchor, v.effective_at);
  assert_false(t.v.has_payload);
  assert_null(t.payload.p);
}

static void test_name_conflict(void **state) {
  struct task_def defs[3] = {task_def_named(unique("a")), task_def_named(unique("b")),
                             task_def_named(unique("c"))};
  struct st_task_put_ret put;
  struct st_task_get_ret got;
  struct st_task_change_ret changed;
  (void)state;
  OK(CALL(task_put, &put, .defs = &defs[1], .count = 1));
  int64_t id = put.rows[0].task_id;
  REFUSED(ERR_CONFLICT, CALL(task_put, &put, .defs = &defs[1], .count = 1));
  assert_string_equal(fx.e.field, "/name");
  REFUSED(ERR_CONFLICT, CALL(task_put, &put, .defs = defs, .count = 3));
  assert_string_equal(fx.e.field, "/1/name");
  REFUSED(ERR_NOT_FOUND, CALL(task_get, &got, .ns = fx.ns, .name = defs[0].name)); /* nothing written */
  struct task_def twice[2] = {defs[0], defs[0]};
  REFUSED(ERR_CONFLICT, CALL(task_put, &put, .defs = twice, .count = 2));
  OK(CALL(task_put, &put, .defs = &defs[0], .count = 1));
  REFUSED(ERR_CONFLICT, CALL(task_change, &changed, .task_id = id, .def = &defs[0], .state = TASK_ENABLED));
  assert_string_equal(fx.e.field, "/name");
  assert_int_equal(get_task(id).v.version, 1);
  struct slice here = fx.ns;
  fx.ns = unique("elsewhere");
  struct task_def other = task_def_named(defs[1].name);
  OK(CALL(task_put, &put, .defs = &other, .count = 1)); /* a name belongs to its namespace */
  fx.ns = here;
  OK(CALL(task_change, &changed, .task_id = id, .state = TASK_DELETED));
  OK(CALL(task_put, &put, .defs = &defs[1], .count = 1)); /* and a deletion frees it */
}

static void test_change(void **state) {
  struct st_task_change_ret ret;
  struct st_task_get_ret got;
  (void)state;
  struct task_version_row first = new_task("changing");
  struct task_def def = task_def_named(unique("renamed"));
  def.definition = SLICE("{\"two\":2}");
  def.payload = SLICE("[]");
  def.group = SLICE("others");
  REFUSED(ERR_STALE, CALL(task_change, &ret, .task_id = first.task_id, .expected_version = 2, .def = &def));
  OK(CALL(task_change, &ret, .task_id = first.task_id, .expected_version = 1, .def = &def,
          .state = TASK_ENABLED, .by = SLICE("bob"), .note = SLICE("why")));
  assert_int_equal(ret.row.version, 2);
  assert_int_equal(ret.row.shard, first.shard);
  assert_int_equal(ret.row.anchor, first.anchor);
  assert_true(ret.row.effective_at >= first.effective_at);
  assert_true(ret.row.change_no > first.change_no);
  assert_int_equal(shard_now(first.shard).tasks_version, ret.row.change_no);
  struct task_row t = get_task(first.task_id);
  assert_true(slice_eq(t.v.name, def.name) && slice_eq(t.v.definition, def.definition) &&
              slice_eqz(t.payload, "[]"));
  assert_true(slice_eqz(t.group, "others") && slice_eqz(t.updated_by, "bob") && slice_eqz(t.note, "why"));
  assert_true(slice_eqz(t.created_by, "tester"));
  OK(CALL(task_get, &got, .task_id = first.task_id, .version = 1));
  assert_true(slice_eq(got.task.v.name, first.name) && slice_eqz(got.task.group, "workers"));
  assert_false(got.task.v.has_payload);
  assert_int_equal(got.task.v.change_no, first.change_no);
  REFUSED(ERR_NOT_FOUND, CALL(task_get, &got, .ns = fx.ns, .name = first.name)); /* the old name is free */
}

static void test_pause_resume(void **state) {
  struct st_task_change_ret ret;
  struct st_task_versions_ret versions;
  struct st_inbox_read_ret inbox;
  (void)state;
  struct task_version_row first = new_task("pausing");
  assert_int_equal(OK(CALL(task_change, &ret, .task_id = first.task_id, .state = TASK_ENABLED)), 1);
  assert_int_equal(ret.row.version, 1);
  assert_int_equal(
      OK(CALL(task_change, &ret, .task_id = first.task_id, .state = TASK_PAUSED, .by = SLICE("bob"))), 0);
  assert_int_equal(ret.row.version, 2);
  assert_int_equal(ret.row.state, TASK_PAUSED);
  assert_int_equal(get_task(first.task_id).v.state, TASK_PAUSED);
  assert_true(slice_eq(get_task(first.task_id).v.definition, first.definition));
  int64_t tasks_version = shard_now(first.shard).tasks_version;
  assert_int_equal(OK(CALL(task_change, &ret, .task_id = first.task_id, .state = TASK_PAUSED)), 1);
  assert_int_equal(shard_now(first.shard).tasks_version, tasks_version);
  struct inbox_row row = {.shard = first.shard, .kind = 77, .body = SLICE("{\"catch_up\":true}")};
  OK(CALL(task_change, &ret, .task_id = first.task_id, .state = TASK_ENABLED, .inbox = &row));
  OK(CALL(inbox_read, &inbox, .shards = &first.shard, .shard_count = 1, .limit = 10000));
  assert_true(inbox.count > 0);
  assert_int_equal(inbox.rows[inbox.count - 1].kind, 77);
  OK(CALL(task_versions, &versions, .task_id = first.task_id, .limit = 2));
  assert_int_equal(versions.count, 2);
  assert_int_equal(versions.versions[0].v.version, 3);
  assert_int_equal(versions.versions[1].v.state, TASK_PAUSED);
  assert_true(slice_eqz(versions.versions[1].updated_by, "bob"));
  OK(CALL(task_versions, &versions, .task_id = first.task_id, .before = 2, .limit = 10));
  assert_int_equal(versions.count, 1);
  assert_int_equal(versions.versions[0].v.version, 1);
}

static void test_effective_after_watermark(void **state) {
  struct st_task_change_ret ret;
  struct st_fire_ret fired;
  (void)state;
  own_shards();
  struct task_version_row first = new_task("watermark");
  struct fire_shard entry = fire_entry(first.shard);
  entry.new_at = db_now() + USEC_PER_SEC; /* the trigger may be ahead of the database's clock */
  if (entry.new_at <= entry.seen_at)
    entry.new_at = entry.seen_at + 1;
  OK(CALL(fire, &fired, .shards = &entry, .shard_count = 1, .ahead = USEC_PER_HOUR));
  assert_true(fired.advanced[0]);
  OK(CALL(task_change, &ret, .task_id = first.task_id, .state = TASK_PAUSED));
  assert_true(ret.row.effective_at >= entry.new_at);
}

static void test_delete(void **state) {
  struct st_task_change_ret ret;
  struct st_task_get_ret got;
  struct st_task_list_ret list;
  struct st_task_versions_ret versions;
  struct st_run_get_ret run_ret;
  (void)state;
  own_shards();
  struct task_version_row task = new_task("doomed");
  struct run_row run = run_of(&task, 5000, 0);
  assert_true(fire_open(&run, 1));
  REFUSED(ERR_CONFLICT, CALL(task_change, &ret, .task_id = task.task_id, .state = TASK_DELETED));
  OK(CALL(task_change, &ret, .task_id = task.task_id, .state = TASK_DELETED, .even_with_open_runs = true));
  assert_int_equal(ret.row.state, TASK_DELETED);
  REFUSED(ERR_NOT_FOUND, CALL(task_get, &got, .task_id = task.task_id));
  REFUSED(ERR_NOT_FOUND, CALL(task_get, &got, .task_id = task.task_id, .version = 1));
  REFUSED(ERR_NOT_FOUND, CALL(task_get, &got, .ns = fx.ns, .name = task.name));
  REFUSED(ERR_NOT_FOUND, CALL(task_change, &ret, .task_id = task.task_id, .state = TASK_ENABLED));
  OK(CALL(task_list, &list, .ns = fx.ns, .state = -1, .kind = -1, .limit = 10));
  assert_int_equal(list.count, 0);
  OK(CALL(task_versions, &versions, .task_id = task.task_id, .limit = 10));
  assert_int_equal(versions.count, 0);
  OK(CALL(run_get, &run_ret, .key = run.key)); /* its runs stay, with its name */
  assert_true(slice_eq(run_ret.task_name, task.name));
}

static void test_complete(void **state) {
  struct st_task_complete_ret ret;
  struct st_task_change_ret changed;
  (void)state;
  struct task_version_row a = new_task("once"), b = new_task("edited");
  OK(CALL(task_change, &changed, .task_id = b.task_id, .state = TASK_PAUSED));
  OK(CALL(task_change, &changed, .task_id = b.task_id, .state = TASK_ENABLED));
  int64_t tasks_version = shard_now(a.shard).tasks_version;
  int64_t ids[2] = {a.task_id, b.task_id};
  int32_t versions[2] = {1, 1};
  for (int i = 0; i < 2; i++) {
    OK(CALL(task_complete, &ret, .task_ids = ids, .versions = versions, .count = 2));
    assert_int_equal(get_task(a.task_id).v.state, TASK_COMPLETED);
    assert_int_equal(get_task(a.task_id).v.version, 1);
    assert_int_equal(get_task(b.task_id).v.state, TASK_ENABLED); /* another version by now */
  }
  assert_int_equal(shard_now(a.shard).tasks_version, tasks_version);
}

static void test_list(void **state) {
  struct st_task_list_ret list;
  struct st_task_put_ret put;
  struct task_def defs[6];
  static const char *const names[6] = {"bill-1", "bill-2", "bill_3", "mail-1", "mail-2", "note"};
  (void)state;
  for (int i = 0; i < 6; i++) {
    defs[i] = task_def_named(slice_of(names[i]));
    defs[i].group = i < 3 ? SLICE("money") : SLICE("post");
    defs[i].handler = i % 2 ? SLICE("odd") : SLICE("even");
    defs[i].kind = i == 5 ? SCHEDULE_MANUAL : SCHEDULE_CRON;
    defs[i].state = i == 4 ? TASK_PAUSED : TASK_ENABLED;
  }
  OK(CALL(task_put, &put, .defs = defs, .count = 6));
#define LIST(...) OK(CALL(task_list, &list, .ns = fx.ns, __VA_ARGS__))
  LIST(.state = -1, .kind = -1, .limit = 100);
  assert_int_equal(list.count, 6);
  for (size_t i = 1; i < list.count; i++)
    assert_true(list.tasks[i].v.task_id > list.tasks[i - 1].v.task_id);
  LIST(.state = -1, .kind = -1, .limit = 4);
  assert_int_equal(list.count, 4);
  LIST(.state = -1, .kind = -1, .limit = 4, .after = list.tasks[3].v.task_id);
  assert_int_equal(list.count, 2);
  LIST(.state = -1, .kind = -1, .limit = 10, .group = SLICE("money"));
  assert_int_equal(list.count, 3);
  assert_true(slice_eqz(list.tasks[0].group, "money"));
  LIST(.state = -1, .kind = -1, .limit = 10, .group = SLICE("post"), .handler = SLICE("odd"));
  assert_int_equal(list.count, 2);
  LIST(.state = -1, .kind = -1, .limit = 10, .handler = SLICE("even"));
  assert_int_equal(list.count, 3);
  LIST(.state = TASK_PAUSED, .kind = -1, .limit = 10);
  assert_int_equal(list.count, 1);
  assert_true(slice_eqz(list.tasks[0].v.name, "mail-2"));
  LIST(.state = -1, .kind = SCHEDULE_MANUAL, .limit = 10);
  assert_int_equal(list.count, 1);
  LIST(.state = -1, .kind = -1, .limit = 10, .name_prefix = SLICE("bill-"));
  assert_int_equal(list.count, 2);
  LIST(.state = -1, .kind = -1, .limit = 10, .name_prefix = SLICE("mail"), .name_contains = SLICE("-2"));
  assert_int_equal(list.count, 1);
  LIST(.state = -1, .kind = -1, .limit = 10, .name_contains = SLICE("l_"));
  assert_int_equal(list.count, 1); /* no pattern, a text */
  LIST(.state = -1, .kind = -1, .limit = 10, .name_contains = SLICE("%"));
  assert_int_equal(list.count, 0);
  OK(CALL(task_list, &list, .state = -1, .kind = -1, .limit = 5,
          .after = put.rows[0].task_id)); /* all namespaces */
  assert_int_equal(list.count, 5);
  assert_int_equal(list.tasks[0].v.task_id, put.rows[1].task_id);
#undef LIST
}

static void test_put_idempotent(void **state) {
  struct idem idem = {.route = SLICE("POST /tasks"), .key = unique("key"), .keep = USEC_PER_HOUR};
  struct task_def def = task_def_named(unique("idem"));
  struct st_task_put_ret first, second;
  struct st_task_change_ret changed;
  (void)state;
  assert_int_equal(OK(CALL(task_put, &first, .defs = &def, .count = 1, .idem = &idem)), 0);
  OK(CALL(task_change, &changed, .task_id = first.rows[0].task_id, .state = TASK_PAUSED));
  assert_int_equal(OK(CALL(task_put, &second, .defs = &def, .count = 1, .idem = &idem)), 1);
  assert_int_equal(second.count, 1);
  assert_int_equal(second.rows[0].task_id, first.rows[0].task_id);
  assert_int_equal(second.rows[0].version, 1);
  assert_int_equal(second.rows[0].effective_at, first.rows[0].effective_at);
  idem.body_hash[31] = 9;
  REFUSED(ERR_IDEMPOTENCY, CALL(task_put, &second, .defs = &def, .count = 1, .idem = &idem));
  /* a refused request is not remembered */
  struct idem other = {.route = SLICE("POST /tasks"), .key = unique("key"), .keep = USEC_PER_HOUR};
  REFUSED(ERR_CONFLICT, CALL(task_put, &second, .defs = &def, .count = 1, .idem = &other));
  def.name = unique("idem");
  assert_int_equal(OK(CALL(task_put, &second, .defs = &def, .count = 1, .idem = &other)), 0);
}

/* ------------------------------------------------------------------ the versions around some instants */

static void check_timeline(const struct st_task_timeline *in, const char *want) {
  struct st_task_timeline_ret got;
  char text[64] = "";
  OK(store_task_timeline(fx.s, in, &got, &fx.mem, &fx.e));
  for (size_t i = 0; i < got.count; i++) {
    assert_int_equal(got.versions[i].v.task_id, in->task_id);
    (void)snprintf(text + strlen(text), sizeof text - strlen(text), "%d ", got.versions[i].v.version);
  }
  assert_string_equal(text, want);
}

static void test_timeline(void **state) {
  struct st_task_change_ret changed;
  struct st_task_timeline_ret got;
  (void)state;
  own_shards();
  struct task_version_row t = new_task("timeline");
  /* versions 1, 2 and 6 ENABLED, 3 to 5 PAUSED, 7 DELETED */
  static const enum task_state states[] = {TASK_PAUSED, TASK_ENABLED, TASK_PAUSED, TASK_PAUSED,
                                           TASK_PAUSED, TASK_ENABLED, TASK_DELETED};
  usec_t at[7] = {t.effective_at};
  struct task_def def = task_def_named(t.name);
  OK(CALL(task_timeline, &got, .task_id = t.task_id + 1000000, .from = 1, .to = 2, .margin = 5, .limit = 5));
  assert_int_equal(got.count, 0);
  for (size_t i = 1; i <= 6; i++) {
    struct fire_shard entry = fire_entry(t.shard); /* what comes next rules from a later instant on */
    struct st_fire_ret fired;
    entry.new_at = at[i - 1] + 1000 > entry.new_at ? at[i - 1] + 1000 : entry.new_at;
    OK(CALL(fire, &fired, .shards = &entry, .shard_count = 1, .ahead = USEC_PER_HOUR));
    def.state = states[i];
    OK(CALL(task_change, &changed, .task_id = t.task_id, .state = states[i], .def = i < 6 ? &def : NULL,
            .by = SLICE("tester")));
    at[i] = changed.row.effective_at;
    assert_true(at[i] > at[i - 1]);
  }
  const int64_t id = t.task_id;
  check_timeline(&(struct st_task_timeline){id, INT64_MAX, INT64_MAX, 0, 1}, "7 ");
  check_timeline(&(struct st_task_timeline){id, at[0] - 1, at[0] - 1, 0, 1}, "1 ");
  check_timeline(&(struct st_task_timeline){id, at[0], at[0], 1, 1}, "1 2 ");
  check_timeline(&(struct st_task_timeline){id, at[0] + 1, at[0] + 1, 1, 1}, "1 2 ");
  check_timeline(&(struct st_task_timeline){id, at[1] + 1, at[1] + 1, 0, 1}, "2 ");
  check_timeline(&(struct st_task_timeline){id, at[4] + 1, at[4] + 1, 0, 1},
                 "3 5 "); /* the pause began with 3 */
  check_timeline(&(struct st_task_timeline){id, at[2] + 1, at[5] + 1, 0, 9}, "3 4 5 6 ");
  check_timeline(&(struct st_task_timeline){id, at[0] + 1, at[6] + 1, 0, 3}, "1 2 3 ");
  check_timeline(&(struct st_task_timeline){id, at[1] + 1, at[6] + 1, 1, 2}, "1 2 3 4 ");
  check_timeline(&(struct st_task_timeline){id, at[1] + 1, at[2], 3, 9}, "1 2 3 4 5 ");
  OK(CALL(task_timeline, &got, .task_id = id, .from = INT64_MAX, .to = INT64_MAX, .limit = 1));
  assert_int_equal(got.versions[0].v.state, TASK_DELETED);
  assert_true(slice_eq(got.versions[0].ns, fx.ns));
  assert_true(slice_eqz(got.versions[0].updated_by, "tester"));
}

TESTS(task_tests, cmocka_unit_test(test_timeline), cmocka_unit_test(test_put_and_get),
      cmocka_unit_test(test_defaults), cmocka_unit_test(test_name_conflict), cmocka_unit_test(test_change),
      cmocka_unit_test(test_pause_resume), cmocka_unit_test(test_effective_after_watermark),
      cmocka_unit_test(test_delete), cmocka_unit_test(test_complete), cmocka_unit_test(test_list),
      cmocka_unit_test(test_put_idempotent));
