#include "base/queue.h"
#include "base/thread.h"
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

static int numbers[20000];
static void *item(int i) { return &numbers[i]; }
static int index_of(void *p) { return (int)((int *)p - numbers); }

static void test_order_and_bounds(void **state) {
  (void)state;
  struct queue *q = queue_new(3);
  void *out[8];
  assert_int_equal(queue_take(q, out, 8, 0), 0);
  for (int round = 0; round < 5; round++) { /* round the ring */
    assert_int_equal(queue_push(q, item(1)), 0);
    assert_int_equal(queue_push(q, item(2)), 0);
    assert_int_equal(queue_push(q, item(3)), 0);
    assert_int_equal(queue_push(q, item(4)), -EAGAIN);
    assert_int_equal(queue_push_wait(q, item(4), 1000), -ETIMEDOUT);
    assert_int_equal(queue_size(q), 3);
    assert_int_equal(queue_take(q, out, 1, 0), 1);
    assert_ptr_equal(out[0], item(1));
    assert_int_equal(queue_push_wait(q, item(4), 0), 0);
    assert_int_equal(queue_take(q, out, 8, USEC_NEVER), 3);
    assert_ptr_equal(out[0], item(2));
    assert_ptr_equal(out[2], item(4));
  }
  queue_free(&q);
  assert_null(q);
  queue_free(&q);
}

static void test_timeout(void **state) {
  (void)state;
  struct queue *q = queue_new(1);
  void *out[1];
  usec_t before = clock_system.mono(&clock_system);
  assert_int_equal(queue_take(q, out, 1, 5000), 0);
  assert_true(clock_system.mono(&clock_system) - before >=
              5000); /* not too early; how late is the machine's affair */
  queue_free(&q);
}

static void test_close(void **state) {
  (void)state;
  struct queue *q = queue_new(2);
  void *out[2];
  assert_int_equal(queue_push(q, item(1)), 0);
  queue_close(q);
  queue_close(q);
  assert_int_equal(queue_push(q, item(2)), -EPIPE);
  assert_int_equal(queue_push_wait(q, item(2), USEC_NEVER), -EPIPE);
  assert_int_equal(queue_take(q, out, 2, USEC_NEVER), 1);
  assert_int_equal(queue_take(q, out, 2, USEC_NEVER), -EPIPE);
  assert_int_equal(queue_take(q, out, 2, 0), -EPIPE);
  queue_free(&q);
}

static void test_wake_is_remembered(void **state) {
  (void)state;
  struct queue *q = queue_new(2);
  void *out[2];
  for (int i = 0; i < 10; i++)
    queue_wake(q); /* nobody waits: together they are one */
  assert_int_equal(queue_take(q, out, 2, USEC_NEVER), 0);
  assert_int_equal(queue_take(q, out, 2, 1000), 0);
  queue_wake(q);
  assert_int_equal(queue_push(q, item(1)), 0);
  assert_int_equal(queue_take(q, out, 2, USEC_NEVER), 1);
  queue_free(&q);
}

struct shared {
  struct queue *q;
  atomic_int sum, count, next, result;
  int each;
};

static void take_once(void *arg) {
  struct shared *s = arg;
  void *out[1];
  atomic_store(&s->result, queue_take(s->q, out, 1, USEC_NEVER));
}

static void push_waiting(void *arg) {
  struct shared *s = arg;
  atomic_store(&s->result, queue_push_wait(s->q, item(0), USEC_NEVER));
}

static void test_wake_and_close_reach_waiters(void **state) {
  (void)state;
  struct shared s = {.q = queue_new(1), .result = 77};
  struct thread t = {0};
  assert_int_equal(thread_start(&t, "take", take_once, &s, NULL), 0);
  queue_wake(s.q);
  thread_join(&t);
  assert_int_equal(s.result, 0);
  assert_int_equal(thread_start(&t, "take", take_once, &s, NULL), 0);
  queue_close(s.q);
  thread_join(&t);
  assert_int_equal(s.result, -EPIPE);
  queue_free(&s.q);
  s.q = queue_new(1);
  assert_int_equal(queue_push(s.q, item(1)), 0);
  assert_int_equal(thread_start(&t, "push", push_waiting, &s, NULL), 0);
  void *out[1];
  assert_int_equal(queue_take(s.q, out, 1, USEC_NEVER), 1);
  thread_join(&t);
  assert_int_equal(s.result, 0);
  assert_int_equal(thread_start(&t, "push", push_waiting, &s, NULL), 0);
  queue_close(s.q);
  thread_join(&t);
  assert_int_equal(s.result, -EPIPE);
  assert_int_equal(queue_take(s.q, out, 1, 0), 1);
  queue_free(&s.q);
}

static void produce(void *arg) {
  struct shared *s = arg;
  for (int i = 0; i < s->each; i++)
    if (queue_push_wait(s->q, item(atomic_fetch_add(&s->next, 1)), USEC_NEVER) < 0)
      return;
}

static void consume(void *arg) {
  struct shared *s = arg;
  void *out[5];
  for (int n; (n = queue_take(s->q, out, 5, USEC_PER_SEC)) >= 0;)
    for (int i = 0; i < n; i++) {
      atomic_fetch_add(&s->sum, index_of(out[i]));
      atomic_fetch_add(&s->count, 1);
    }
}

static void test_many_threads(void **state) {
  (void)state;
  struct shared s = {.q = queue_new(7), .each = 5000};
  struct thread makers[4] = {0}, takers[3] = {0};
  for (int i = 0; i < 3; i++)
    assert_int_equal(thread_start(&takers[i], "consumer", consume, &s, NULL), 0);
  for (int i = 0; i < 4; i++)
    assert_int_equal(thread_start(&makers[i], "producer", produce, &s, NULL), 0);
  for (int i = 0; i < 4; i++)
    thread_join(&makers[i]);
  queue_close(s.q);
  for (int i = 0; i < 3; i++)
    thread_join(&takers[i]);
  assert_int_equal(s.count, 20000);
  assert_int_equal(s.sum, 20000 / 2 * 19999);
  assert_int_equal(queue_size(s.q), 0);
  queue_free(&s.q);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_order_and_bounds),
      cmocka_unit_test(test_timeout),
      cmocka_unit_test(test_close),
      cmocka_unit_test(test_wake_is_remembered),
      cmocka_unit_test(test_wake_and_close_reach_waiters),
      cmocka_unit_test(test_many_threads),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
