#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/metric.h"
#include "base/thread.h"
#include "store/decorators.h"
#include "store/op_names.h"
#include "store/source.h"

/* ---------------------------------------------------------------- a store that does nothing but say what was asked of it */
#define SESSIONS_MAX 16

struct fake_source {
  struct store_source base;
  struct mutex m; /* protects the following */
  struct cond changed;
  int open, opened, calls, inside, waiting_for;
  int answer;     /* of every operation */
  bool hold;      /* operations stay inside until it ends */
  int open_fails; /* that many sessions cannot be opened */
  const char *last;
};
struct fake {
  struct store base;
  struct fake_source *source;
};
static struct fake_source source;

static int called(struct store *s, const char *op) {
  struct fake_source *o = ((struct fake *)s)->source;
  mutex_lock(&o->m);
  o->calls++;
  o->inside++;
  o->last = op;
  cond_broadcast(&o->changed);
  while (o->hold)
    cond_wait(&o->changed, &o->m, USEC_NEVER);
  o->inside--;
  int answer = o->answer;
  mutex_unlock(&o->m);
  return answer;
}
static void fake_close(struct store *s) {
  struct fake_source *o = ((struct fake *)s)->source;
  mutex_lock(&o->m);
  o->open--;
  mutex_unlock(&o->m);
  mem_free(s);
}
#define OP(n)                                                                                                \
  static int fake_##n(struct store *s, const struct st_##n *in, struct st_##n##_ret *ret, struct arena *mem, \
                      struct err *e) {                                                                       \
    (void)in;                                                                                                \
    (void)mem;                                                                                               \
    int r = called(s, #n);                                                                                   \
    if (r >= 0)                                                                                              \
      memset(ret, 1, sizeof *ret);                                                                           \
    return r < 0 ? err_set(e, r, "fake") : r;                                                                \
  }
#include "store/store_ops.def"
static const struct store_ops fake_ops = {
    .name = "fake",
    .caps = STORE_CAP_NOTIFY | STORE_CAP_SINGLE_NODE,
    .close = fake_close,
#define OP(n) .n = fake_##n,
#include "store/store_ops.def"
};
static int fake_session(struct store_source *base, enum store_role role, struct store **ret, struct err *e) {
  struct fake_source *o = (struct fake_source *)base;
  (void)role;
  mutex_lock(&o->m);
  bool fails = o->open_fails > 0;
  if (fails)
    o->open_fails--;
  else {
    o->open++;
    o->opened++;
  }
  mutex_unlock(&o->m);
  if (fails)
    return err_set(e, ERR_UNAVAILABLE, "fake");
  struct fake *f = mem_zalloc(sizeof *f);
  f->base.ops = &fake_ops;
  f->source = o;
  *ret = &f->base;
  return 0;
}
static const struct store_source_ops fake_source_ops = {"fake", fake_session, NULL};

static int setup(void **state) {
  (void)state;
  source = (struct fake_source){.base.ops = &fake_source_ops};
  mutex_init(&source.m);
  cond_init(&source.changed);
  return 0;
}
static struct store *fake_store(void) {
  struct store *s;
  assert_int_equal(fake_session(&source.base, STORE_API, &s, NULL), 0);
  return s;
}

/* Calls every operation once through `s`; the number of them whose answer was `answer`. */
static int call_all(struct store *s, int answer) {
  struct arena mem = {0};
  struct err e;
  int n = 0;
#define OP(n_)                                                                                               \
  {                                                                                                          \
    struct st_##n_ in = {0};                                                                                 \
    struct st_##n_##_ret ret = {0};                                                                          \
    n += store_##n_(s, &in, &ret, &mem, &e) == answer;                                                       \
  }
#include "store/store_ops.def"
  arena_done(&mem);
  return n;
}

/* ---------------------------------------------------------------- pool */
static void pool_passes_all_but_those_of_a_session(void **state) {
  struct store *p;
  struct err e;
  (void)state;
  assert_int_equal(store_pool(&source.base, STORE_API, 4, USEC_PER_SEC, &p, &e), 0);
  assert_string_equal(p->ops->name, "fake");
  assert_int_equal(p->ops->caps, STORE_CAP_SINGLE_NODE);
  assert_int_equal(call_all(p, 0), STORE_OP_MAX_ - 3);
  assert_int_equal(call_all(p, -ENOTSUP), 3);
  assert_int_equal(source.opened, 1); /* one after the other: one session is enough */
  store_close(&p);
  assert_null(p);
  assert_int_equal(source.open, 0);
}

struct caller {
  struct thread thread;
  struct store *s;
  int answer;
};
static void call_meta(void *arg) {
  struct caller *c = arg;
  struct arena mem = {0};
  struct st_meta_ret ret;
  struct err e;
  c->answer = store_meta(c->s, &(struct st_meta){0}, &ret, &mem, &e);
  arena_done(&mem);
}
static void wait_inside(int n) {
  mutex_lock(&source.m);
  for (int i = 0; i < 1000 && source.inside < n; i++)
    cond_wait(&source.changed, &source.m, 10 * USEC_PER_MS);
  assert_int_equal(source.inside, n);
  mutex_unlock(&source.m);
}

static void pool_is_bounded(void **state) {
  struct store *p;
  struct err e = {0};
  struct caller callers[2] = {0}, third = {0};
  (void)state;
  assert_int_equal(store_pool(&source.base, STORE_API, 2, 0, &p, &e), 0);
  source.hold = true;
  for (int i = 0; i < 2; i++) {
    callers[i].s = p;
    assert_int_equal(thread_start(&callers[i].thread, "caller", call_meta, &callers[i], &e), 0);
  }
  wait_inside(2);
  third.s = p;
  call_meta(&third);
  assert_int_equal(third.answer, ERR_BUSY);
  mutex_lock(&source.m);
  source.hold = false;
  cond_broadcast(&source.changed);
  mutex_unlock(&source.m);
  for (int i = 0; i < 2; i++) {
    thread_join(&callers[i].thread);
    assert_int_equal(callers[i].answer, 0);
  }
  assert_int_equal(source.opened, 2);
  store_close(&p);
}

static void pool_waits_for_a_session(void **state) {
  struct store *p;
  struct err e = {0};
  struct caller callers[6] = {0};
  (void)state;
  assert_int_equal(store_pool(&source.base, STORE_API, 1, 30 * USEC_PER_SEC, &p, &e), 0);
  source.hold = true;
  for (int i = 0; i < 6; i++) {
    callers[i].s = p;
    assert_int_equal(thread_start(&callers[i].thread, "caller", call_meta, &callers[i], &e), 0);
  }
  wait_inside(1);
  mutex_lock(&source.m);
  source.hold = false;
  cond_broadcast(&source.changed);
  mutex_unlock(&source.m);
  for (int i = 0; i < 6; i++) {
    thread_join(&callers[i].thread);
    assert_int_equal(callers[i].answer, 0);
  }
  assert_int_equal(source.opened, 1);
  assert_int_equal(source.calls, 6);
  store_close(&p);
}

static void pool_replaces_broken_sessions(void **state) {
  static const int broken[] = {ERR_UNAVAILABLE, ERR_UNKNOWN_OUTCOME};
  struct store *p;
  struct err e = {0};
  struct caller c = {0};
  (void)state;
  assert_int_equal(store_pool(&source.base, STORE_API, 1, 0, &p, &e), 0);
  c.s = p;
  for (int i = 0; i < 2; i++) {
    source.answer = broken[i];
    call_meta(&c);
    assert_int_equal(c.answer, broken[i]);
    assert_int_equal(source.open, 0);
    source.open_fails = 1; /* the place in the pool is free again even so */
    call_meta(&c);
    assert_int_equal(c.answer, ERR_UNAVAILABLE);
    source.answer = ERR_NOT_FOUND; /* a refusal is no reason */
    call_meta(&c);
    assert_int_equal(c.answer, ERR_NOT_FOUND);
    assert_int_equal(source.open, 1);
  }
  assert_int_equal(source.opened, 3);
  store_close(&p);
  source.open_fails = 1;
  assert_int_equal(store_pool(&source.base, STORE_API, 1, 0, &p, &e), ERR_UNAVAILABLE);
}

/* ---------------------------------------------------------------- trace */
static usec_t trace_time;
static usec_t trace_clock_now(const struct clock *c) {
  (void)c;
  return trace_time += 3 * USEC_PER_MS;
}
static const struct clock trace_clock = {trace_clock_now, trace_clock_now};

static void expect_metric(const char *line) {
  auto_str out = {0};
  str_init(&out, (size_t)1 << 20);
  metric_render(&out);
  if (!strstr(out.p, line))
    print_error("missing: %s\n", line);
  assert_non_null(strstr(out.p, line));
}

static void trace_times_and_counts(void **state) {
  struct store *t = store_trace(fake_store(), USEC_PER_SEC, &trace_clock);
  (void)state;
  assert_string_equal(t->ops->name, "fake");
  assert_int_equal(t->ops->caps, STORE_CAP_NOTIFY | STORE_CAP_SINGLE_NODE);
  expect_metric("kelou_db_errors_total{op=\"fire\"} 0\n");
  assert_int_equal(call_all(t, 0), STORE_OP_MAX_);
  assert_int_equal(source.calls, STORE_OP_MAX_);
  source.answer = ERR_CONFLICT;
  assert_int_equal(call_all(t, ERR_CONFLICT), STORE_OP_MAX_);
  expect_metric("kelou_db_errors_total{op=\"fire\"} 0\n");
  source.answer = ERR_UNKNOWN_OUTCOME;
  assert_int_equal(call_all(t, ERR_UNKNOWN_OUTCOME), STORE_OP_MAX_);
  expect_metric("kelou_db_errors_total{op=\"fire\"} 1\n");
  expect_metric("kelou_db_errors_total{op=\"wait_change\"} 1\n");
  expect_metric("kelou_db_query_duration_seconds_count{op=\"fire\"} 3\n");
  expect_metric("kelou_db_query_duration_seconds_count{op=\"wait_change\"} 0\n");
  store_close(&t);
  assert_int_equal(source.open, 0);
}

/* ---------------------------------------------------------------- faults */
static enum store_fault decide(void *arg, const char *op) {
  assert_non_null(op);
  return *(enum store_fault *)arg;
}

static void faults_happen_as_decided(void **state) {
  enum store_fault fault = STORE_FAULT_NONE;
  struct store *f = store_faults(fake_store(), decide, &fault);
  struct arena mem = {0};
  struct err e = {0};
  (void)state;
  assert_int_equal(call_all(f, 0), STORE_OP_MAX_);
  assert_int_equal(source.calls, STORE_OP_MAX_);
  fault = STORE_FAULT_UNAVAILABLE;
  assert_int_equal(call_all(f, ERR_UNAVAILABLE), STORE_OP_MAX_);
  fault = STORE_FAULT_UNKNOWN_NOT_DONE;
  assert_int_equal(call_all(f, ERR_UNKNOWN_OUTCOME), STORE_OP_MAX_);
  assert_int_equal(source.calls, STORE_OP_MAX_); /* neither was done */
  fault = STORE_FAULT_LOST_ANSWER;
  assert_int_equal(call_all(f, ERR_UNKNOWN_OUTCOME), STORE_OP_MAX_);
  assert_int_equal(source.calls, 2 * STORE_OP_MAX_); /* this was */
  struct st_meta_ret ret = {.now = 42};
  assert_int_equal(store_meta(f, &(struct st_meta){0}, &ret, &mem, &e), ERR_UNKNOWN_OUTCOME);
  assert_int_equal(ret.now, 42);
  assert_string_equal(source.last, "meta");
  arena_done(&mem);
  store_close(&f);
  assert_int_equal(source.open, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup(pool_passes_all_but_those_of_a_session, setup),
      cmocka_unit_test_setup(pool_is_bounded, setup),
      cmocka_unit_test_setup(pool_waits_for_a_session, setup),
      cmocka_unit_test_setup(pool_replaces_broken_sessions, setup),
      cmocka_unit_test_setup(trace_times_and_counts, setup),
      cmocka_unit_test_setup(faults_happen_as_decided, setup),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
