/* After-tasks: who depends on whom, the ends of parents, and turns. */
#include "contract.h"
#include "base/thread.h"
#include <stdio.h>

#define CANNOT_SKIP()                                                                                        \
  do {                                                                                                       \
    struct st_dependency_read_ret none_;                                                                     \
    OK(CALL(dependency_read, &none_, .limit = 1)); /* skips where there is none of it */                     \
  } while (0)

static struct depend_def *on(enum depend_mode mode, enum depend_ends ends, size_t n, ...) {
  struct depend_def *d = arena_alloc(&fx.mem, sizeof *d);
  struct slice *tasks = arena_array(&fx.mem, n + 1, sizeof *tasks);
  va_list list;
  va_start(list, n);
  for (size_t i = 0; i < n; i++)
    tasks[i] = va_arg(list, struct slice);
  va_end(list);
  *d = (struct depend_def){mode, ends, tasks, n};
  return d;
}

static struct task_def def_of(struct slice name, const struct depend_def *depends) {
  struct task_def def = task_def_named(name);
  def.kind = SCHEDULE_MANUAL;
  def.depends = depends;
  return def;
}

static struct task_version_row make(const char *prefix, const struct depend_def *depends) {
  struct task_def def = def_of(unique(prefix), depends);
  struct st_task_put_ret put;
  OK(CALL(task_put, &put, .defs = &def, .count = 1, .by = SLICE("tester")));
  return put.rows[0];
}

static int edit(const struct task_version_row *t, const struct depend_def *depends) {
  struct task_def def = def_of(t->name, depends);
  struct st_task_change_ret ret;
  return CALL(task_change, &ret, .task_id = t->task_id, .def = &def, .state = TASK_ENABLED);
}

static int drop(const struct task_version_row *t) {
  struct st_task_change_ret ret;
  return CALL(task_change, &ret, .task_id = t->task_id, .state = TASK_DELETED);
}

/* All that waits; a source of other tests' leftovers is emptied by `forget`. */
static struct st_dependency_read_ret look(void) {
  struct st_dependency_read_ret ret;
  OK(CALL(dependency_read, &ret, .limit = 100000));
  return ret;
}

static void forget(void) {
  struct st_dependency_read_ret all = look();
  struct st_dependency_apply_ret none;
  int64_t *done = arena_array(&fx.mem, all.event_count + 1, sizeof *done);
  for (size_t i = 0; i < all.event_count; i++)
    done[i] = all.events[i].no;
  OK(CALL(dependency_apply, &none, .turn = all.turn, .done = done, .done_count = all.event_count));
}

/* The edge of `child` to `parent` as a turn sees it; NULL: there is none. */
static const struct depend_edge *edge_of(const struct st_dependency_read_ret *all,
                                         const struct task_version_row *child,
                                         const struct task_version_row *parent) {
  for (size_t i = 0; i < all->edge_count; i++)
    if (all->edges[i].child == child->task_id && all->edges[i].parent == parent->task_id)
      return &all->edges[i];
  return NULL;
}

static struct run_key end_run(const struct task_version_row *t, usec_t scheduled_at, enum run_state state) {
  struct run_row run = run_of(t, scheduled_at, 0);
  assert_true(fire_open(&run, 1));
  assert_true(finish_run(&run, state, scheduled_at + 50));
  return run.key;
}

/* ------------------------------------------------------------------ edits */

static void test_refused(void **state) {
  struct st_task_put_ret put;
  (void)state;
  CANNOT_SKIP();
  struct task_version_row a = make("a", NULL), b = make("b", on(DEPEND_ALL, ENDS_SUCCESS, 1, a.name));
  struct task_def def = def_of(unique("c"), on(DEPEND_ALL, ENDS_SUCCESS, 2, a.name, SLICE("nobody")));
  REFUSED(ERR_INVALID, CALL(task_put, &put, .defs = &def, .count = 1));
  assert_string_equal(fx.e.field, "/depends_on/tasks/1");
  struct task_def two[2] = {def_of(unique("d"), NULL), def};
  fx.e = (struct err){};
  REFUSED(ERR_INVALID, CALL(task_put, &put, .defs = two, .count = 2));
  assert_string_equal(fx.e.field, "/1/depends_on/tasks/1");
  fx.e = (struct err){};
  REFUSED(ERR_INVALID, edit(&a, on(DEPEND_ANY, ENDS_FAIL, 1, b.name)));
  assert_string_equal(fx.e.field, "/depends_on/tasks/0");
  fx.e = (struct err){};
  REFUSED(ERR_INVALID, edit(&a, on(DEPEND_ANY, ENDS_FAIL, 1, a.name)));
  assert_string_equal(fx.e.field, "/depends_on/tasks/0");
  /* nothing of that was written */
  struct st_task_get_ret got;
  REFUSED(ERR_NOT_FOUND, CALL(task_get, &got, .ns = fx.ns, .name = two[0].name));
  OK(CALL(task_get, &got, .task_id = a.task_id));
  assert_int_equal(got.task.v.version, 1);
  /* the namespace of the task is where its parents are */
  struct slice ns = fx.ns;
  fx.ns = unique("other");
  def = def_of(unique("e"), on(DEPEND_ALL, ENDS_SUCCESS, 1, a.name));
  fx.e = (struct err){};
  REFUSED(ERR_INVALID, CALL(task_put, &put, .defs = &def, .count = 1));
  fx.ns = ns;
  /* the same name is free in one call, in any order */
  struct task_def forth[2] = {def_of(unique("z"), NULL), def_of(unique("y"), NULL)};
  forth[0].depends = on(DEPEND_ALL, ENDS_SUCCESS, 1, forth[1].name);
  OK(CALL(task_put, &put, .defs = forth, .count = 2));
}

static void test_named_ones_stay(void **state) {
  struct st_task_change_ret ret;
  (void)state;
  CANNOT_SKIP();
  struct task_version_row a = make("a", NULL), b = make("b", on(DEPEND_ALL, ENDS_SUCCESS, 1, a.name));
  fx.e = (struct err){};
  REFUSED(ERR_CONFLICT, drop(&a));
  assert_string_equal(fx.e.field, "");
  struct task_def renamed = def_of(unique("new"), NULL);
  REFUSED(ERR_CONFLICT,
          CALL(task_change, &ret, .task_id = a.task_id, .def = &renamed, .state = TASK_ENABLED));
  assert_string_equal(fx.e.field, "/name");
  OK(CALL(task_change, &ret, .task_id = a.task_id, .state = TASK_PAUSED)); /* all else may be done with it */
  OK(edit(&b, NULL));
  OK(CALL(task_change, &ret, .task_id = a.task_id, .def = &renamed, .state = TASK_ENABLED));
  fx.e = (struct err){};
  REFUSED(ERR_INVALID, edit(&b, on(DEPEND_ALL, ENDS_SUCCESS, 1, a.name))); /* it is called otherwise now */
  OK(edit(&b, on(DEPEND_ALL, ENDS_SUCCESS, 1, renamed.name)));
  OK(drop(&b));
  OK(drop(&a)); /* deleted children hold nothing */
}

static void test_apply(void **state) {
  struct st_task_apply_ret ret;
  struct st_task_get_ret got;
  (void)state;
  CANNOT_SKIP();
  struct slice source = unique("source");
  struct task_def defs[3] = {def_of(unique("a"), NULL), def_of(unique("b"), NULL), def_of(unique("c"), NULL)};
  defs[0].depends = on(DEPEND_ALL, ENDS_SUCCESS, 1, defs[2].name);
  defs[1].depends = on(DEPEND_ALL, ENDS_SUCCESS, 1, defs[0].name);
  OK(CALL(task_apply, &ret, .puts = defs, .put_count = 3, .source = source, .check_only = true));
  REFUSED(ERR_NOT_FOUND, CALL(task_get, &got, .ns = fx.ns, .name = defs[0].name));
  OK(CALL(task_apply, &ret, .puts = defs, .put_count = 3, .source = source));
  struct task_version_row a = ret.puts[0], b = ret.puts[1], c = ret.puts[2];
  struct task_def turned[2] = {def_of(a.name, NULL), def_of(c.name, on(DEPEND_ALL, ENDS_SUCCESS, 1, b.name))};
  struct st_task_change changes[2] = {{.task_id = a.task_id, .def = &turned[0]},
                                      {.task_id = c.task_id, .def = &turned[1]}};
  fx.e = (struct err){};
  REFUSED(ERR_INVALID, CALL(task_apply, &ret, .changes = &changes[1], .change_count = 1));
  assert_string_equal(fx.e.field, "/changes/0/depends_on/tasks/0");
  OK(CALL(task_apply, &ret, .changes = changes, .change_count = 2)); /* together there is no cycle */
  struct st_task_change away[2] = {{.task_id = b.task_id, .state = TASK_DELETED},
                                   {.task_id = c.task_id, .state = TASK_DELETED}};
  fx.e = (struct err){};
  REFUSED(ERR_CONFLICT, CALL(task_apply, &ret, .changes = away, .change_count = 1, .source = source));
  assert_string_equal(fx.e.field, "/changes/0");
  OK(CALL(task_apply, &ret, .changes = away, .change_count = 2,
          .source = source)); /* parent and child at once */
}

static void test_limits(void **state) {
  enum { MANY = 500 };
  struct st_task_put_ret put;
  (void)state;
  CANNOT_SKIP();
  struct task_version_row a = make("a", NULL);
  struct task_def *defs = arena_array(&fx.mem, MANY, sizeof *defs);
  for (int round = 0; round < 3; round++) {
    size_t n = round < 2 ? MANY : 1;
    for (size_t i = 0; i < n; i++)
      defs[i] = def_of(unique("child"), on(DEPEND_ANY, ENDS_ANY, 1, a.name));
    fx.e = (struct err){};
    if (round < 2) {
      OK(CALL(task_put, &put, .defs = defs, .count = n));
    } else {
      REFUSED(ERR_INVALID, CALL(task_put, &put, .defs = defs, .count = n));
      assert_string_equal(fx.e.field, "/depends_on/tasks/0");
    }
  }
  struct slice last = make("first", NULL).name;
  for (size_t i = 0; i < DEPEND_DEPTH_MAX; i++) { /* a chain in one call: one too many */
    defs[i] = def_of(unique("chain"), on(DEPEND_ALL, ENDS_SUCCESS, 1, last));
    last = defs[i].name;
  }
  fx.e = (struct err){};
  REFUSED(ERR_INVALID, CALL(task_put, &put, .defs = defs, .count = DEPEND_DEPTH_MAX));
  assert_non_null(strstr(fx.e.field, "/depends_on"));
  OK(CALL(task_put, &put, .defs = defs, .count = DEPEND_DEPTH_MAX - 1));
}

/* ------------------------------------------------------------------ ends and turns */

static void test_events(void **state) {
  (void)state;
  CANNOT_SKIP();
  own_shards();
  forget();
  usec_t t = db_now();
  struct task_version_row a = make("a", NULL), lone = make("lone", NULL);
  struct run_key before = end_run(&a, t, RUN_SUCCESS); /* nobody depends on it yet */
  struct task_version_row b = make("b", on(DEPEND_ANY, ENDS_SUCCESS, 1, a.name));
  struct run_key ok = end_run(&a, t + 100, RUN_SUCCESS), bad = end_run(&a, t + 200, RUN_FAIL),
                 stopped = end_run(&a, t + 300, RUN_CANCELLED);
  (void)end_run(&a, t + 400, RUN_SKIPPED);
  (void)end_run(&lone, t + 500, RUN_SUCCESS);
  (void)end_run(&b, t + 600, RUN_SUCCESS);
  (void)before;
  struct st_dependency_read_ret all = look();
  const struct run_key keys[] = {ok, bad, stopped};
  const enum run_state states[] = {RUN_SUCCESS, RUN_FAIL, RUN_CANCELLED};
  assert_int_equal(all.event_count, 3);
  for (int i = 0; i < 3; i++) {
    assert_true(run_key_eq(&all.events[i].key, &keys[i]) && all.events[i].state == states[i]);
    assert_true(all.events[i].finished_at == keys[i].scheduled_at + 50 && all.events[i].after == 0);
    assert_true(i == 0 || all.events[i].no > all.events[i - 1].no);
  }
  const struct depend_edge *e = edge_of(&all, &b, &a);
  assert_non_null(e);
  assert_true(e->enabled && e->version == 1 && e->child_shard == b.shard && e->kept == 0 &&
              e->mode == DEPEND_ANY && e->ends == ENDS_SUCCESS && slice_eq(e->parent_name, a.name));
  assert_true(e->since <= all.events[0].turn);
  /* a child that came afterwards is seen, and is newer than those ends */
  struct task_version_row c = make("c", on(DEPEND_ANY, ENDS_SUCCESS, 1, a.name));
  struct st_task_change_ret changed;
  OK(CALL(task_change, &changed, .task_id = b.task_id, .state = TASK_PAUSED));
  all = look();
  assert_true(edge_of(&all, &c, &a)->since > all.events[2].turn && edge_of(&all, &c, &a)->enabled);
  assert_false(edge_of(&all, &b, &a)->enabled);
  struct st_dependency_read_ret one;
  OK(CALL(dependency_read, &one, .limit = 1));
  assert_true(one.event_count == 1 && one.events[0].no == all.events[0].no);
}

/* What the run writer is told of a commit; a repeat of the same finish leaves no second event. */
static void test_told(void **state) {
  struct st_run_apply_ret ret;
  (void)state;
  CANNOT_SKIP();
  own_shards();
  forget();
  struct task_version_row a = make("a", NULL), lone = make("lone", NULL);
  (void)make("b", on(DEPEND_ALL, ENDS_SUCCESS, 1, a.name));
  const struct task_version_row *tasks[] = {&lone, &a};
  usec_t t = db_now();
  for (int i = 0; i < 2; i++) {
    struct run_row run = run_of(tasks[i], t, 0);
    assert_true(fire_open(&run, 1));
    struct fence_row fence = fence_of(run.key.shard);
    struct run_finish f = {.key = run.key, .state = RUN_SUCCESS, .finished_at = t + 1};
    OK(CALL(run_apply, &ret, .fences = &fence, .fence_count = 1, .finishes = &f, .finish_count = 1));
    assert_true(ret.finished[0] && ret.parents_ended == (i == 1));
    OK(CALL(run_apply, &ret, .fences = &fence, .fence_count = 1, .finishes = &f, .finish_count = 1));
    assert_true(!ret.finished[0] && !ret.parents_ended);
    fence.epoch--; /* and a stale owner none at all */
    OK(CALL(run_apply, &ret, .fences = &fence, .fence_count = 1, .finishes = &f, .finish_count = 1));
    assert_false(ret.parents_ended);
  }
  assert_int_equal(look().event_count, 1);
}

static void test_turn(void **state) {
  struct st_dependency_apply_ret none;
  struct st_inbox_read_ret inbox;
  (void)state;
  CANNOT_SKIP();
  own_shards();
  forget();
  struct task_version_row a = make("a", NULL), a2 = make("a2", NULL),
                          b = make("b", on(DEPEND_ALL, ENDS_SUCCESS, 2, a2.name, a.name));
  usec_t t = db_now();
  struct run_key k = end_run(&a, t, RUN_SUCCESS);
  (void)end_run(&a, t + 1, RUN_SUCCESS);
  struct st_dependency_read_ret all = look();
  assert_true(all.event_count == 2 && all.edge_count == 2 && all.edges[0].parent == a2.task_id);
  struct depend_edge kept = *edge_of(&all, &b, &a);
  kept.kept = 2;
  kept.key = k;
  kept.state = RUN_SUCCESS;
  kept.finished_at = t + 50;
  struct slice body = unique("{\"is\":\"a request\"}");
  struct inbox_row row = {.shard = b.shard, .kind = 1, .body = body};
  int64_t first = all.events[0].no, second = all.events[1].no;
#define TURN(n)                                                                                              \
  CALL(dependency_apply, &none, .turn = (n), .done = &first, .done_count = 1, .partly = second, .after = 77, \
       .kept = &kept, .kept_count = 1, .inbox = &row, .inbox_count = 1)
  REFUSED(ERR_CONFLICT, TURN(all.turn - 1));
  assert_int_equal(look().event_count, 2); /* nothing of it */
  OK(TURN(all.turn));
  fx.e = (struct err){};
  REFUSED(ERR_CONFLICT, TURN(all.turn)); /* and not twice */
  struct st_dependency_read_ret now = look();
  assert_true(now.turn > all.turn && now.event_count == 1 && now.events[0].no == second &&
              now.events[0].after == 77);
  const struct depend_edge *e = edge_of(&now, &b, &a);
  assert_true(e->kept == 2 && run_key_eq(&e->key, &k) && e->state == RUN_SUCCESS && e->finished_at == t + 50);
  OK(CALL(inbox_read, &inbox, .shards = &b.shard, .shard_count = 1, .limit = 100000));
  size_t found = 0;
  for (size_t i = 0; i < inbox.count; i++)
    found += slice_eq(inbox.rows[i].body, body) && inbox.rows[i].kind == 1;
  assert_int_equal(found, 1);
  /* an edit in between: the turn must read again */
  int64_t turn = now.turn;
  OK(edit(&b, on(DEPEND_ALL, ENDS_SUCCESS, 1, a.name)));
  fx.e = (struct err){};
  REFUSED(ERR_CONFLICT, TURN(turn));
  now = look(); /* a parent that stays keeps what was collected, and since when it is one */
  assert_true(now.edge_count == 1 && edge_of(&now, &b, &a)->kept == 2 &&
              edge_of(&now, &b, &a)->since == kept.since);
  OK(edit(&b, on(DEPEND_ALL, ENDS_ANY, 1, a.name)));
  now = look();
  assert_true(edge_of(&now, &b, &a)->kept == 0 && edge_of(&now, &b, &a)->ends == ENDS_ANY);
#undef TURN
}

/* ------------------------------------------------------------------ at the same moment */

struct racer {
  struct thread thread;
  struct store *s;
  struct arena mem;
  struct st_task_change change;
  struct task_def def;
  struct st_task_put put;
  pthread_barrier_t *gate;
  int code;
};

static void race(void *arg) {
  struct racer *r = arg;
  struct err e = {0};
  struct st_task_change_ret changed;
  struct st_task_put_ret made;
  (void)pthread_barrier_wait(r->gate);
  r->code = r->put.count ? store_task_put(r->s, &r->put, &made, &r->mem, &e)
                         : store_task_change(r->s, &r->change, &changed, &r->mem, &e);
}

static void run_both(struct racer r[2]) {
  pthread_barrier_t gate;
  assert_int_equal(pthread_barrier_init(&gate, NULL, 2), 0);
  for (int i = 0; i < 2; i++) {
    r[i].gate = &gate;
    OK(store_session(fx.source, STORE_API, &r[i].s, &fx.e));
    assert_int_equal(thread_start(&r[i].thread, "racer", race, &r[i], &fx.e), 0);
  }
  for (int i = 0; i < 2; i++) {
    thread_join(&r[i].thread);
    store_close(&r[i].s);
    arena_done(&r[i].mem);
  }
  (void)pthread_barrier_destroy(&gate);
}

/* Two edits that make a cycle only together: one of them is refused, whichever. */
static void test_race_of_edits(void **state) {
  (void)state;
  CANNOT_SKIP();
  for (int round = 0; round < 30; round++) {
    struct task_version_row a = make("a", NULL), b = make("b", NULL);
    struct racer r[2] = {{.def = def_of(a.name, on(DEPEND_ALL, ENDS_SUCCESS, 1, b.name))},
                         {.def = def_of(b.name, on(DEPEND_ALL, ENDS_SUCCESS, 1, a.name))}};
    r[0].change = (struct st_task_change){.task_id = a.task_id, .def = &r[0].def};
    r[1].change = (struct st_task_change){.task_id = b.task_id, .def = &r[1].def};
    run_both(r);
    assert_true((r[0].code == 0 && r[1].code == ERR_INVALID) || (r[1].code == 0 && r[0].code == ERR_INVALID));
  }
}

/* A parent goes while its first child comes: the child is refused, or the deletion. */
static void test_race_of_deletion(void **state) {
  (void)state;
  CANNOT_SKIP();
  for (int round = 0; round < 30; round++) {
    struct task_version_row a = make("a", NULL);
    struct racer r[2] = {{.change = {.task_id = a.task_id, .state = TASK_DELETED}},
                         {.def = def_of(unique("b"), on(DEPEND_ALL, ENDS_SUCCESS, 1, a.name))}};
    r[1].put = (struct st_task_put){.defs = &r[1].def, .count = 1};
    run_both(r);
    assert_true((r[0].code == 0 && r[1].code == ERR_INVALID) ||
                (r[1].code == 0 && r[0].code == ERR_CONFLICT));
  }
}

TESTS(dependency_tests, cmocka_unit_test(test_refused), cmocka_unit_test(test_named_ones_stay),
      cmocka_unit_test(test_apply), cmocka_unit_test(test_limits), cmocka_unit_test(test_events),
      cmocka_unit_test(test_told), cmocka_unit_test(test_turn), cmocka_unit_test(test_race_of_edits),
      cmocka_unit_test(test_race_of_deletion));
