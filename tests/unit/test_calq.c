/* The calendar queue against a sorted list. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include "base/rng.h"
#include "core/calq.h"

enum { MOST = 4000 };
static struct calq_entry model[MOST];
static size_t count;

static int order(const void *a, const void *b) {
  const struct calq_entry *x = a, *y = b;
  if (x->due != y->due)
    return x->due < y->due ? -1 : 1;
  return x->id < y->id ? -1 : x->id > y->id;
}

static void push(struct calq *q, usec_t due, int64_t id) {
  struct calq_entry e = {due, id, model};
  calq_push(q, e);
  model[count++] = e;
}

/* The least one comes out of both. */
static usec_t pop(struct calq *q) {
  struct calq_entry e;
  size_t least = 0;
  for (size_t i = 1; i < count; i++)
    if (order(&model[i], &model[least]) < 0)
      least = i;
  assert_true(calq_peek(q, &e));
  assert_true(e.due == model[least].due);
  assert_true(e.id == model[least].id);
  assert_ptr_equal(e.item, model);
  calq_pop(q);
  model[least] = model[--count];
  assert_int_equal(calq_size(q), count);
  return e.due;
}

/* Ahead by µs, by buckets, beyond all buckets, and in the past of what was popped. */
static usec_t some_due(struct rng *r, usec_t now) {
  static const usec_t spans[] = {5, 300 * USEC_PER_MS, 60 * USEC_PER_SEC, 30 * USEC_PER_DAY};
  usec_t span = spans[rng_below(r, 4)];
  return now + (usec_t)rng_below(r, (uint64_t)span) - (rng_below(r, 8) == 0 ? span / 4 : 0);
}

static void test_random(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 20; seed++) {
    struct rng r;
    rng_seed(&r, seed);
    struct calq *q = calq_new();
    usec_t now = 1700000000 * USEC_PER_SEC;
    count = 0;
    for (int step = 0; step < 3000; step++)
      if (count < MOST && (count == 0 || rng_below(&r, 100) < (step < 1500 ? 60u : 40u)))
        push(q, some_due(&r, now), (int64_t)rng_below(&r, 50));
      else
        now = pop(q);
    while (count)
      (void)pop(q);
    struct calq_entry e;
    assert_false(calq_peek(q, &e));
    calq_free(&q);
  }
}

/* Many at one instant come in the order of their ids; the bucket of a herd is not kept. */
static void test_herd(void **state) {
  (void)state;
  struct calq *q = calq_new();
  usec_t at = 1700000000 * USEC_PER_SEC;
  enum { HERD = 20000 };
  for (int64_t id = HERD; id > 0; id--)
    calq_push(q, (struct calq_entry){at, id, NULL});
  calq_push(q, (struct calq_entry){at + 10 * USEC_PER_SEC, 1, NULL});
  struct calq_entry e;
  for (int64_t id = 1; id <= HERD; id++) {
    assert_true(calq_peek(q, &e));
    assert_true(e.id == id);
    calq_pop(q);
  }
  assert_true(calq_peek(q, &e) && e.due == at + 10 * USEC_PER_SEC);
  calq_push(q, (struct calq_entry){at, 7, NULL}); /* earlier than all that is left */
  assert_true(calq_peek(q, &e) && e.id == 7);
  calq_free(&q);
  calq_free(&q); /* nothing to free */
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_random), cmocka_unit_test(test_herd)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
