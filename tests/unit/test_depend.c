/* After-tasks: what the ends of parents lead to, who may depend on whom, what a child is told. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/json.h"
#include "core/inbox.h"
#include "spec_util.h"

enum { A = 1, B = 2, C = 3, CHILD = 10, OTHER = 11, T0 = 1000000 };

static struct arena mem;

static int setup(void **state) {
  (void)state;
  arena_clear(&mem);
  return 0;
}

static struct depend_event end_of(int64_t no, int64_t task, enum run_state state) {
  return (struct depend_event){
      .no = no, .turn = 5, .key = {3, T0 + no, task, 0}, .state = state, .finished_at = T0 + 100 * no};
}

static struct depend_edge edge(int64_t child, int64_t parent, enum depend_mode mode, enum depend_ends ends) {
  return (struct depend_edge){.child = child,
                              .parent = parent,
                              .since = 5,
                              .child_shard = 7,
                              .version = 2,
                              .mode = mode,
                              .ends = ends,
                              .enabled = true,
                              .parent_name = parent == A ? SLICE("a") : SLICE("b")};
}

static struct depend_out decide(const struct depend_event *v, size_t n, struct depend_edge *e, size_t m) {
  struct depend_out out;
  depend_decide(v, n, e, m, 100, &mem, &out);
  return out;
}

/* ------------------------------------------------------------------ which ends count, and for whom */

static void test_what_counts(void **state) {
  static const struct {
    enum depend_ends ends;
    enum run_state state;
    bool counts;
  } table[] = {
      {ENDS_SUCCESS, RUN_SUCCESS, true},    {ENDS_SUCCESS, RUN_FAIL, false},
      {ENDS_SUCCESS, RUN_CANCELLED, false}, {ENDS_SUCCESS, RUN_SKIPPED, false},
      {ENDS_FAIL, RUN_SUCCESS, false},      {ENDS_FAIL, RUN_FAIL, true},
      {ENDS_FAIL, RUN_CANCELLED, false},    {ENDS_ANY, RUN_SUCCESS, true},
      {ENDS_ANY, RUN_FAIL, true},           {ENDS_ANY, RUN_CANCELLED, true},
      {ENDS_ANY, RUN_SKIPPED, false},
  };
  (void)state;
  for (size_t i = 0; i < sizeof table / sizeof *table; i++)
    for (enum depend_mode mode = DEPEND_ALL; mode < DEPEND_MODE_MAX_; mode++) {
      struct depend_event v = end_of(9, A, table[i].state);
      struct depend_edge e = edge(CHILD, A, mode, table[i].ends);
      struct depend_out out = decide(&v, 1, &e, 1);
      assert_int_equal(out.fire_count, table[i].counts);
      assert_int_equal(out.done, 1);
      assert_int_equal(e.kept, 0);
      if (!table[i].counts)
        continue;
      const struct depend_fire *f = &out.fires[0];
      assert_true(f->key.shard == 7 && f->key.task_id == CHILD && f->key.scheduled_at == v.finished_at);
      assert_int_equal(f->key.part, 0x20000009);
      assert_true(run_key_eq(&f->last, &v.key) && f->version == 2 && f->count == 1);
      assert_true(run_key_eq(&f->parents[0].key, &v.key) && f->parents[0].count == 1 &&
                  f->parents[0].state == table[i].state);
    }
}

static void test_for_whom(void **state) {
  struct depend_event v = end_of(1, A, RUN_SUCCESS);
  (void)state;
  struct depend_edge e = edge(CHILD, A, DEPEND_ANY, ENDS_SUCCESS);
  e.since = 6; /* made after the end was written */
  assert_int_equal(decide(&v, 1, &e, 1).fire_count, 0);
  e.since = 5;
  e.enabled = false;
  assert_int_equal(decide(&v, 1, &e, 1).fire_count, 0);
  e.enabled = true;
  e.parent = B;
  assert_int_equal(decide(&v, 1, &e, 1).fire_count, 0);
  e = edge(CHILD, A, DEPEND_ALL, ENDS_SUCCESS);
  e.enabled = false; /* nothing is collected either */
  struct depend_out out = decide(&v, 1, &e, 1);
  assert_true(e.kept == 0 && !out.changed[0] && out.done == 1);
}

/* A run for each end; two ends at the same microsecond are two runs. */
static void test_any(void **state) {
  struct depend_event v[3] = {end_of(1, A, RUN_SUCCESS), end_of(2, B, RUN_SUCCESS),
                              end_of(3, A, RUN_SUCCESS)};
  struct depend_edge e[2] = {edge(CHILD, A, DEPEND_ANY, ENDS_SUCCESS),
                             edge(CHILD, B, DEPEND_ANY, ENDS_SUCCESS)};
  (void)state;
  v[1].finished_at = v[0].finished_at;
  struct depend_out out = decide(v, 3, e, 2);
  assert_int_equal(out.fire_count, 3);
  for (int i = 0; i < 3; i++)
    assert_true(run_key_eq(&out.fires[i].last, &v[i].key) && out.fires[i].count == 1);
  assert_false(run_key_eq(&out.fires[0].key, &out.fires[1].key));
  assert_true(!out.changed[0] && !out.changed[1]);
}

/* One run when all have ended since the last one; the newest end of each, and how many it stands for. */
static void test_all(void **state) {
  struct depend_event v[5] = {end_of(1, A, RUN_SUCCESS), end_of(2, A, RUN_SUCCESS), end_of(3, B, RUN_SUCCESS),
                              end_of(4, B, RUN_SUCCESS), end_of(5, A, RUN_SUCCESS)};
  struct depend_edge e[2] = {edge(CHILD, B, DEPEND_ALL, ENDS_SUCCESS),
                             edge(CHILD, A, DEPEND_ALL, ENDS_SUCCESS)};
  (void)state;
  struct depend_out out = decide(v, 2, e, 2);
  assert_true(out.fire_count == 0 && out.done == 2);
  assert_true(e[1].kept == 2 && run_key_eq(&e[1].key, &v[1].key) && out.changed[1] && !out.changed[0]);
  out = decide(v + 2, 3, e, 2); /* the next turn goes on from there */
  assert_int_equal(out.fire_count, 2);
  const struct depend_fire *f = &out.fires[0];
  assert_true(run_key_eq(&f->last, &v[2].key) && f->count == 2 && f->key.scheduled_at == v[2].finished_at);
  assert_true(run_key_eq(&f->parents[0].key, &v[2].key) &&
              f->parents[0].count == 1); /* in the list's order */
  assert_true(run_key_eq(&f->parents[1].key, &v[1].key) && f->parents[1].count == 2);
  assert_true(slice_eqz(f->parents[0].name, "b") && slice_eqz(f->parents[1].name, "a"));
  f = &out.fires[1];
  assert_true(run_key_eq(&f->parents[0].key, &v[3].key) && run_key_eq(&f->parents[1].key, &v[4].key));
  assert_true(e[0].kept == 0 && e[1].kept == 0 && out.changed[0] && out.changed[1]);
}

/* A turn has its bound; what is left of an event comes with the next, and nobody is served twice. */
static void test_bounds(void **state) {
  enum { CHILDREN = 7, MAX = 3 };
  struct depend_event v[2] = {end_of(1, A, RUN_SUCCESS), end_of(2, A, RUN_SUCCESS)};
  struct depend_edge e[CHILDREN];
  int served[2][CHILDREN] = {{0}};
  size_t at = 0;
  (void)state;
  for (int i = 0; i < CHILDREN; i++)
    e[i] = edge(CHILD + i, A, DEPEND_ANY, ENDS_SUCCESS);
  for (int turn = 0; at < 2; turn++) {
    struct depend_out out;
    assert_true(turn < 6);
    depend_decide(v + at, 2 - at, e, CHILDREN, MAX, &mem, &out);
    assert_true(out.fire_count <= MAX && (out.fire_count == MAX || at + out.done == 2));
    for (size_t i = 0; i < out.fire_count; i++)
      served[run_key_eq(&out.fires[i].last, &v[1].key)][out.fires[i].key.task_id - CHILD]++;
    at += out.done;
    if (at < 2 && out.after)
      v[at].after = out.after;
  }
  for (int i = 0; i < CHILDREN; i++)
    assert_true(served[0][i] == 1 && served[1][i] == 1);
}

/* ------------------------------------------------------------------ who may depend on whom */

static struct depend_link link(int64_t child, int64_t parent) {
  return (struct depend_link){child, parent, slice_of(arena_printf(&mem, "t%d", (int)child)),
                              slice_of(arena_printf(&mem, "t%d", (int)parent))};
}

static void test_cycles(void **state) {
  struct depend_link bad;
  struct err e = {0};
  int64_t one[] = {A};
  (void)state;
  assert_int_equal(depend_check(NULL, 0, one, 1, &bad, &e), 0);
  struct depend_link self[] = {link(A, A)};
  assert_int_equal(depend_check(self, 1, one, 1, &bad, &e), ERR_INVALID);
  assert_true(bad.child == A && bad.parent == A);
  assert_string_equal(e.text, "the task would come after itself: t1 after t1");
  struct depend_link diamond[] = {link(B, A), link(C, A), link(4, B), link(4, C)};
  assert_int_equal(depend_check(diamond, 4, one, 1, &bad, &e), 0);
  /* 1 after 4 closes two; 5 and 6 hang on below and are not to blame */
  struct depend_link round[] = {link(5, 4), link(B, A), link(C, A), link(4, B),
                                link(4, C), link(A, 4), link(6, 5)};
  assert_int_equal(depend_check(round, 7, one, 1, &bad, &e), ERR_INVALID);
  assert_true(bad.child == A && bad.parent == 4);
  assert_string_equal(e.text, "the task would come after itself: t1 after t4 after t2 after t1");
  int64_t both[] = {6, C}; /* the changed one that is part of it */
  struct depend_link other[] = {link(A, B), link(B, C), link(C, A), link(6, A)};
  assert_int_equal(depend_check(other, 4, both, 2, &bad, &e), ERR_INVALID);
  assert_true(bad.child == C && bad.parent == A);
}

static void test_depth(void **state) {
  struct depend_link chain[DEPEND_DEPTH_MAX], bad;
  struct err e = {0};
  int64_t changed[] = {50};
  (void)state;
  for (int i = 0; i < DEPEND_DEPTH_MAX; i++)
    chain[i] = link(i + 2, i + 1);
  assert_int_equal(depend_check(chain, DEPEND_DEPTH_MAX - 1, changed, 1, &bad, &e), 0);
  assert_int_equal(depend_check(chain, DEPEND_DEPTH_MAX, changed, 1, &bad, &e), ERR_INVALID);
  assert_true(bad.child == 50 && bad.parent == 0);
}

/* ------------------------------------------------------------------ what a child is told */

static json_t *told(struct slice own, const struct depend_parent *p, const struct run_row *const *runs,
                    size_t n) {
  struct err e = {0};
  json_t *j = NULL;
  auto_free char *text = depend_payload(own, p, runs, n);
  if (json_read(slice_of(text), 1024 * 1024, &j, &e) < 0)
    fail_msg("%s", e.text);
  return j;
}

static const char *at(const json_t *j, const char *key) {
  return json_string_value(json_object_get(j, key)) ?: "";
}

static void test_payload(void **state) {
  struct depend_parent p[2] = {{SLICE("a \"1\""), {3, T0, A, 0}, RUN_SUCCESS, T0 + 5, 1},
                               {SLICE("b"), {3, T0, B, 0}, RUN_FAIL, T0 + 6, 4}};
  struct run_row ok = {.result = SLICE("{\"n\":[1,2]}")}, bad = {.reason = REASON_TIMEOUT,
                                                                 .error_type = SLICE("T"),
                                                                 .error_message = SLICE("too \"slow\"")};
  const struct run_row *runs[2] = {&ok, &bad};
  char id[RUN_ID_LEN + 1];
  (void)state;
  auto_json *j = told(SLICE("{\"x\":1}"), p, runs, 2);
  assert_int_equal(json_integer_value(json_object_get(j, "x")), 1);
  const json_t *one = json_array_get(json_object_get(j, "parents"), 0),
               *two = json_array_get(json_object_get(j, "parents"), 1);
  run_id_format(&p[0].key, id);
  assert_string_equal(at(one, "task"), "a \"1\"");
  assert_string_equal(at(one, "run_id"), id);
  assert_string_equal(at(one, "state"), "SUCCESS");
  assert_string_equal(at(one, "finished_at"), "1970-01-01T00:00:01.000005Z");
  assert_int_equal(json_array_size(json_object_get(json_object_get(one, "result"), "n")), 2);
  assert_null(json_object_get(one, "ends"));
  assert_int_equal(json_integer_value(json_object_get(two, "ends")), 4);
  assert_null(json_object_get(two, "result"));
  assert_string_equal(at(json_object_get(two, "error"), "reason"), "TIMEOUT");
  assert_string_equal(at(json_object_get(two, "error"), "message"), "too \"slow\"");
  const struct run_row *gone[1] = {NULL};
  auto_json *bare = told((struct slice){0}, p, gone, 1);
  assert_int_equal(json_object_size(bare), 1);
  assert_null(json_object_get(json_array_get(json_object_get(bare, "parents"), 0), "result"));
  auto_json *empty = told(SLICE("{}"), p, gone, 1);
  assert_true(json_equal(bare, empty));
}

/* Results that are too long together are cut with a notice; what others leave is used; text that is no JSON stays text. */
static void test_long_results(void **state) {
  enum { N = DEPEND_PARENTS_MAX, LONG = 64 * 1024 };
  struct depend_parent p[N];
  struct run_row rows[N];
  const struct run_row *runs[N];
  char *text = arena_alloc(&mem, LONG + 1);
  size_t cut = 0, total = 0;
  (void)state;
  memset(text, '"', LONG); /* each becomes two bytes */
  for (int i = 0; i < N; i++) {
    p[i] = (struct depend_parent){SLICE("a"), {3, T0 + i, A, 0}, RUN_SUCCESS, T0, 1};
    rows[i] = (struct run_row){.result = i < N - 4 ? SLICE("7") : slice_n(text, LONG)};
    runs[i] = &rows[i];
  }
  auto_json *j = told(SLICE("{\"own\":true}"), p, runs, N);
  for (int i = 0; i < N; i++) {
    const json_t *one = json_array_get(json_object_get(j, "parents"), (size_t)i);
    if (i < N - 4)
      assert_int_equal(json_integer_value(json_object_get(one, "result")), 7);
    total += strlen(at(one, "result"));
    cut += json_is_true(json_object_get(one, "result_cut"));
  }
  assert_true(cut == 4 && total >= LONG / 2 && total <= 128 * 1024);
}

static void test_words(void **state) {
  static const struct {
    enum depend_mode mode;
    enum depend_ends ends;
    size_t count;
    const char *text;
  } table[] = {
      {DEPEND_ALL, ENDS_SUCCESS, 1, "after a has succeeded"},
      {DEPEND_ALL, ENDS_FAIL, 2, "after a and b have failed"},
      {DEPEND_ANY, ENDS_ANY, 3, "after any of a, b and c has ended"},
      {DEPEND_ALL, ENDS_SUCCESS, 5, "after a, b and 3 more have succeeded"},
  };
  const struct slice names[] = {SLICE("a"), SLICE("b"), SLICE("c"), SLICE("d"), SLICE("e")};
  (void)state;
  for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
    auto_str s;
    str_init(&s, 200);
    depend_describe(&(struct depend_def){table[i].mode, table[i].ends, names, table[i].count}, &s);
    assert_string_equal(s.p, table[i].text);
  }
}

/* ------------------------------------------------------------------ the owner of the child */

static enum overlap_decision start(void *arg, const struct overlap_ask *ask) {
  (void)arg, (void)ask;
  return OVERLAP_DO_START;
}

/* A request that comes when the child is not ENABLED any more is dropped, not fired; a manual one is. */
static void test_not_enabled(void **state) {
  static const enum task_state states[] = {TASK_ENABLED, TASK_PAUSED, TASK_DELETED};
  const struct shard_overlap overlap = {start, NULL};
  (void)state;
  specs_open();
  for (size_t i = 0; i < 3; i++) {
    struct fire_batch b = {0};
    struct fire_request q[2] = {
        {.key = {1, T0, CHILD, 0x20000001}, .origin = ORIGIN_DEPENDENCY, .inbox_no = 4},
        {.key = {1, T0, CHILD, 0x40000001}, .origin = ORIGIN_API, .inbox_no = 5}};
    struct shard *s =
        shard_new(1, &(struct shard_limits){.max_rows = 100, .max_work = 1000, .idle_advance = USEC_PER_SEC});
    shard_reset(s, 1, 1, T0, 0);
    shard_put(s, &(struct shard_version){CHILD, 1, states[i], T0, T0, spec_of(MANUAL, "")});
    shard_loaded(s);
    assert_true(shard_collect(s, T0 + 10, &overlap, q, 2, &b));
    assert_int_equal(b.inbox_count, 2);
    assert_int_equal(b.count, states[i] == TASK_ENABLED ? 2 : 1);
    assert_int_equal(b.items[b.count - 1].origin, ORIGIN_API);
    shard_fired(s, &b);
    fire_batch_done(&b);
    shard_free(&s);
  }
  specs_close();
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup(test_what_counts, setup),  cmocka_unit_test_setup(test_for_whom, setup),
      cmocka_unit_test_setup(test_any, setup),          cmocka_unit_test_setup(test_all, setup),
      cmocka_unit_test_setup(test_bounds, setup),       cmocka_unit_test_setup(test_cycles, setup),
      cmocka_unit_test_setup(test_depth, setup),        cmocka_unit_test_setup(test_payload, setup),
      cmocka_unit_test_setup(test_long_results, setup), cmocka_unit_test_setup(test_words, setup),
      cmocka_unit_test_setup(test_not_enabled, setup)};
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  arena_done(&mem);
  return failed;
}
