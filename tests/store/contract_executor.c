#include "contract.h"

static struct group_row new_group(struct slice name) {
  struct st_group_put_ret put;
  OK(CALL(group_put, &put,
          .group = {.ns = fx.ns,
                    .name = name,
                    .routing = ROUTING_LEAST_BUSY,
                    .max_connections = 4,
                    .secret_sealed = SLICE("sealed")}));
  return put.group;
}

static void test_group(void **state) {
  struct slice name = unique("group");
  struct st_group_put_ret put;
  struct st_group_get_ret get;
  struct st_group_list_ret list;
  struct st_group_delete_ret deleted;
  (void)state;
  struct group_row g = new_group(name);
  assert_int_equal(g.version, 1);
  assert_true(g.id > 0 && g.created_at > 0);
  assert_true(slice_eqz(g.secret_sealed, "sealed"));
  assert_null(g.secret_previous_sealed.p);
  REFUSED(ERR_CONFLICT, CALL(group_put, &put, .group = g));
  g.max_connections = 9;
  g.max_concurrent = 7;
  g.rate_milli = 5000000000;
  g.rate_burst = 3;
  g.secret_previous_sealed = SLICE("older");
  REFUSED(ERR_STALE, CALL(group_put, &put, .group = g, .expected_version = 2));
  OK(CALL(group_put, &put, .group = g, .expected_version = 1));
  assert_int_equal(put.group.version, 2);
  OK(CALL(group_get, &get, .ns = fx.ns, .name = name));
  assert_int_equal(get.group.max_connections, 9);
  assert_int_equal(get.group.max_concurrent, 7);
  assert_true(get.group.rate_milli == 5000000000);
  assert_int_equal(get.group.rate_burst, 3);
  assert_int_equal(get.group.routing, ROUTING_LEAST_BUSY);
  assert_int_equal(get.group.id, g.id);
  assert_true(slice_eqz(get.group.secret_previous_sealed, "older"));
  new_group(SLICE("a-second"));
  OK(CALL(group_list, &list, .ns = fx.ns));
  assert_int_equal(list.count, 2);
  OK(CALL(group_list, &list));
  assert_true(list.count >= 2);
  OK(CALL(group_delete, &deleted, .ns = fx.ns, .name = name));
  REFUSED(ERR_NOT_FOUND, CALL(group_get, &get, .ns = fx.ns, .name = name));
  REFUSED(ERR_NOT_FOUND, CALL(group_delete, &deleted, .ns = fx.ns, .name = name));
  REFUSED(ERR_NOT_FOUND, CALL(group_put, &put, .group = g, .expected_version = 1));
}

static void test_group_in_use(void **state) {
  struct st_task_change_ret changed;
  struct st_group_delete_ret deleted;
  (void)state;
  new_group(SLICE("workers")); /* the group of new_task */
  struct task_version_row task = new_task("user");
  REFUSED(ERR_CONFLICT, CALL(group_delete, &deleted, .ns = fx.ns, .name = SLICE("workers")));
  OK(CALL(task_change, &changed, .task_id = task.task_id, .state = TASK_DELETED, .by = SLICE("t")));
  OK(CALL(group_delete, &deleted, .ns = fx.ns, .name = SLICE("workers")));
}

static struct executor_row executor(const char *id) {
  return (struct executor_row){.ns = fx.ns,
                               .group = SLICE("workers"),
                               .id = slice_of(id),
                               .url = SLICE("http://127.0.0.1:9"),
                               .handlers = SLICE("[\"echo\"]"),
                               .version = SLICE("1.0"),
                               .labels = SLICE("{}"),
                               .slots = 8,
                               .weight = -1};
}

static struct st_executor_list_ret executors(void) {
  struct st_executor_list_ret list;
  OK(CALL(executor_list, &list, .ns = fx.ns, .group = SLICE("workers")));
  return list;
}

static void test_register(void **state) {
  struct st_executor_put_ret put;
  (void)state;
  REFUSED(ERR_NOT_FOUND, CALL(executor_put, &put, .executor = executor("x1")));
  new_group(SLICE("workers"));
  OK(CALL(executor_put, &put, .executor = executor("x1")));
  int64_t first = put.incarnation;
  assert_int_equal(put.weight, 1);
  OK(CALL(executor_put, &put, .executor = executor("x1")));
  assert_int_equal(put.incarnation, first + 1);
  OK(CALL(executor_put, &put, .executor = executor("x2")));
  struct st_executor_list_ret list = executors();
  assert_int_equal(list.count, 2);
  const struct executor_row *x = &list.rows[0];
  assert_true(slice_eqz(x->id, "x1") && slice_eqz(x->url, "http://127.0.0.1:9") &&
              slice_eqz(x->handlers, "[\"echo\"]"));
  assert_true(slice_eqz(x->version, "1.0") && slice_eqz(x->labels, "{}"));
  assert_int_equal(x->slots, 8);
  assert_int_equal(x->state, EXECUTOR_ONLINE);
  assert_true(x->beat_at > 0 && x->registered_at > 0);
  assert_true(list.now >= x->beat_at);
}

/* A registration that names no weight leaves what was set. */
static void test_weight(void **state) {
  struct st_executor_put_ret put;
  struct st_executor_set_ret set;
  struct executor_row x = executor("x1");
  (void)state;
  new_group(SLICE("workers"));
  x.weight = 0;
  OK(CALL(executor_put, &put, .executor = x));
  assert_int_equal(put.weight, 0);
  assert_int_equal(executors().rows[0].weight, 0);
  OK(CALL(executor_set, &set, .ns = fx.ns, .group = SLICE("workers"), .id = SLICE("x1"),
          .state = EXECUTOR_STATE_MAX_, .weight = 7));
  assert_int_equal(executors().rows[0].weight, 7);
  assert_int_equal(executors().rows[0].state, EXECUTOR_ONLINE);
  OK(CALL(executor_set, &set, .ns = fx.ns, .group = SLICE("workers"), .id = SLICE("x1"),
          .state = EXECUTOR_DRAINING, .weight = -1));
  assert_int_equal(executors().rows[0].weight, 7);
  assert_int_equal(executors().rows[0].state, EXECUTOR_DRAINING);
  x.weight = -1;
  OK(CALL(executor_put, &put, .executor = x));
  assert_int_equal(put.weight, 7);
  x.weight = 3;
  OK(CALL(executor_put, &put, .executor = x));
  assert_int_equal(executors().rows[0].weight, 3);
}

static void beat(struct st_executor_beat_ret *ret) {
  struct executor_row rows[3] = {executor("x1"), executor("x2"), executor("unknown")};
  rows[0].running = 5;
  OK(CALL(executor_beat, ret, .rows = rows, .count = 3));
}

static void test_beat(void **state) {
  struct st_executor_put_ret put;
  struct st_executor_beat_ret ret;
  struct st_executor_set_ret set;
  (void)state;
  new_group(SLICE("workers"));
  OK(CALL(executor_put, &put, .executor = executor("x1")));
  OK(CALL(executor_put, &put, .executor = executor("x2")));
  beat(&ret);
  assert_true(ret.known[0] && ret.known[1] && !ret.known[2]);
  assert_int_equal(ret.states[0], EXECUTOR_ONLINE);
  assert_int_equal(executors().rows[0].running, 5);
  assert_int_equal(executors().rows[0].slots, 8);
  OK(CALL(executor_set, &set, .ns = fx.ns, .group = SLICE("workers"), .id = SLICE("x1"),
          .state = EXECUTOR_DRAINING, .weight = -1));
  OK(CALL(executor_set, &set, .ns = fx.ns, .group = SLICE("workers"), .id = SLICE("x2"),
          .state = EXECUTOR_OFFLINE, .weight = -1));
  beat(&ret);
  assert_true(ret.known[0] && !ret.known[1]);
  assert_int_equal(ret.states[0], EXECUTOR_DRAINING);
  assert_int_equal(executors().rows[1].state, EXECUTOR_OFFLINE);
  REFUSED(ERR_NOT_FOUND, CALL(executor_set, &set, .ns = fx.ns, .group = SLICE("workers"), .id = SLICE("no"),
                              .state = EXECUTOR_ONLINE, .weight = -1));
}

static void test_expire(void **state) {
  struct st_executor_put_ret put;
  struct st_executor_beat_ret beaten;
  struct st_executor_expire_ret ret;
  struct st_executor_set_ret set;
  (void)state;
  new_group(SLICE("workers"));
  OK(CALL(executor_put, &put, .executor = executor("x1")));
  OK(CALL(executor_put, &put, .executor = executor("x2")));
  OK(CALL(executor_set, &set, .ns = fx.ns, .group = SLICE("workers"), .id = SLICE("x2"),
          .state = EXECUTOR_DRAINING, .weight = -1));
  OK(CALL(executor_expire, &ret, .timeout = USEC_PER_HOUR, .forget = 2 * USEC_PER_HOUR));
  assert_int_equal(executors().rows[0].state, EXECUTOR_ONLINE);
  while (db_now() <= put.now + 1) /* a microsecond */
    continue;
  OK(CALL(executor_expire, &ret, .timeout = 1, .forget = 2 * USEC_PER_HOUR));
  size_t mine = 0;
  for (size_t i = 0; i < ret.count; i++)
    if (slice_eq(ret.lost[i].ns, fx.ns)) {
      mine++;
      assert_int_equal(ret.lost[i].state, EXECUTOR_LOST);
      assert_true(slice_eqz(ret.lost[i].url, "http://127.0.0.1:9"));
    }
  assert_int_equal(mine, 2);
  beat(&beaten); /* they live after all */
  assert_true(beaten.known[0]);
  assert_int_equal(beaten.states[0], EXECUTOR_ONLINE);
  while (db_now() <= beaten.now + 1)
    continue;
  OK(CALL(executor_expire, &ret, .timeout = 1, .forget = 1)); /* just lost: removed by the next call */
  assert_int_equal(executors().count, 2);
  OK(CALL(executor_expire, &ret, .timeout = 1, .forget = 1));
  assert_int_equal(executors().count, 0);
  beat(&beaten);
  assert_false(beaten.known[0]);
}

TESTS(executor_tests, cmocka_unit_test(test_group), cmocka_unit_test(test_group_in_use),
      cmocka_unit_test(test_register), cmocka_unit_test(test_weight), cmocka_unit_test(test_beat),
      cmocka_unit_test(test_expire));
