#include "contract.h"
#include <stdio.h>

static struct calendar_row put_calendar(const char *name) {
  struct st_calendar_put_ret put;
  OK(CALL(
      calendar_put, &put,
      .calendar = {.ns = fx.ns, .name = unique(name), .definition = SLICE("{}"), .updated_by = SLICE("me")}));
  return put.calendar;
}

static struct slice definition_with(const struct calendar_row *c) {
  return slice_of(arena_printf(
      &fx.mem, "{\"calendar\":{\"excluded\":[],\"version\":%d},\"schedule\":{\"calendar\":\"%.*s\"}}",
      c->version, SLICE_FMT(c->name)));
}

static struct task_version_row new_task_with(const struct calendar_row *c) {
  struct task_def def = task_def_named(unique("task"));
  struct st_task_put_ret put;
  def.definition = definition_with(c);
  OK(CALL(task_put, &put, .defs = &def, .count = 1, .by = SLICE("test")));
  return put.rows[0];
}

static int64_t used_by(const struct calendar_row *c) {
  struct st_calendar_get_ret got;
  OK(CALL(calendar_get, &got, .ns = c->ns, .name = c->name));
  return got.calendar.tasks;
}

static bool is_behind(int64_t task_id) {
  struct st_calendar_behind_ret found;
  OK(CALL(calendar_behind, &found, .limit = 100000));
  for (size_t i = 0; i < found.count; i++)
    if (found.task_ids[i] == task_id)
      return true;
  return false;
}

static void test_calendars(void **state) {
  struct st_calendar_put_ret put;
  struct st_calendar_get_ret got;
  struct st_calendar_list_ret list;
  struct st_calendar_delete_ret deleted;
  (void)state;
  struct calendar_row c = put_calendar("a");
  assert_true(c.version == 1 && c.created_at > 0 && c.created_at == c.updated_at && c.tasks == 0);
  REFUSED(ERR_CONFLICT, CALL(calendar_put, &put, .calendar = c));
  c.definition = SLICE("{\"excluded\":[]}");
  c.updated_by = SLICE("you");
  OK(CALL(calendar_put, &put, .calendar = c, .expected_version = 1));
  assert_int_equal(put.calendar.version, 2);
  assert_true(put.calendar.created_at == c.created_at && put.calendar.updated_at >= c.updated_at);
  REFUSED(ERR_STALE, CALL(calendar_put, &put, .calendar = c, .expected_version = 1));
  OK(CALL(calendar_get, &got, .ns = c.ns, .name = c.name));
  assert_true(slice_eq(got.calendar.definition, c.definition) && slice_eqz(got.calendar.updated_by, "you") &&
              slice_eq(got.calendar.name, c.name) && slice_eq(got.calendar.ns, fx.ns));
  struct calendar_row other = put_calendar("b");
  OK(CALL(calendar_list, &list, .ns = fx.ns));
  assert_int_equal(list.count, 2);
  OK(CALL(calendar_list, &list, .ns = SLICE("")));
  assert_true(list.count >= 2);
  OK(CALL(calendar_delete, &deleted, .ns = other.ns, .name = other.name));
  REFUSED(ERR_NOT_FOUND, CALL(calendar_delete, &deleted, .ns = other.ns, .name = other.name));
  REFUSED(ERR_NOT_FOUND, CALL(calendar_get, &got, .ns = other.ns, .name = other.name));
  REFUSED(ERR_NOT_FOUND, CALL(calendar_put, &put, .calendar = other, .expected_version = 1));
}

/* A calendar that tasks use stays; deleted tasks hold nothing. */
static void test_in_use(void **state) {
  struct st_calendar_delete_ret deleted;
  struct st_task_change_ret changed;
  struct st_task_put_ret made;
  (void)state;
  struct calendar_row c = put_calendar("used");
  struct task_version_row task = new_task_with(&c);
  assert_int_equal(used_by(&c), 1);
  REFUSED(ERR_CONFLICT, CALL(calendar_delete, &deleted, .ns = c.ns, .name = c.name));
  OK(CALL(task_change, &changed, .task_id = task.task_id, .state = TASK_DELETED, .by = SLICE("test")));
  assert_int_equal(used_by(&c), 0);
  OK(CALL(calendar_delete, &deleted, .ns = c.ns, .name = c.name));
  struct task_def def = task_def_named(unique("late"));
  def.definition = definition_with(&c);
  REFUSED(ERR_CONFLICT, CALL(task_put, &made, .defs = &def, .count = 1, .by = SLICE("test")));
}

static void test_behind(void **state) {
  struct st_calendar_put_ret put;
  struct st_task_change_ret changed;
  struct st_task_complete_ret none;
  (void)state;
  struct calendar_row c = put_calendar("new");
  struct task_version_row task = new_task_with(&c), over = new_task_with(&c);
  assert_false(is_behind(task.task_id));
  OK(CALL(calendar_put, &put, .calendar = c, .expected_version = 1));
  assert_true(is_behind(task.task_id) && is_behind(over.task_id));
  OK(CALL(task_complete, &none, .task_ids = &over.task_id, .versions = &over.version, .count = 1));
  assert_false(is_behind(over.task_id));
  assert_int_equal(used_by(&c), 2);
  struct task_def def = task_def_named(unique("follows"));
  def.definition = definition_with(&put.calendar);
  OK(CALL(task_change, &changed, .task_id = task.task_id, .def = &def, .state = TASK_PAUSED,
          .by = SLICE("test")));
  assert_false(is_behind(task.task_id));
}

TESTS(calendar_tests, cmocka_unit_test(test_calendars), cmocka_unit_test(test_in_use),
      cmocka_unit_test(test_behind));
