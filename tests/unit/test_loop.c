#include "net_util.h"
#include "net/loop.h"

static struct {
  struct mutex lock;
  struct cond changed;
  int n;
  bool on_loop, ordered;
  struct loop_timer *timer;
} seen;
static struct loop *loop;

static void count(void) {
  mutex_lock(&seen.lock);
  seen.n++;
  cond_broadcast(&seen.changed);
  mutex_unlock(&seen.lock);
}

static void wait_for(int n) {
  mutex_lock(&seen.lock);
  while (seen.n < n)
    assert_true(cond_wait(&seen.changed, &seen.lock, WAIT_MAX_MS * USEC_PER_MS));
  mutex_unlock(&seen.lock);
}

static int setup(void **state) {
  (void)state;
  struct err e;
  memset(&seen, 0, sizeof seen);
  mutex_init(&seen.lock);
  cond_init(&seen.changed);
  assert_int_equal(loop_new("test", &loop, &e), 0);
  return 0;
}

static int teardown(void **state) {
  (void)state;
  loop_stop(&loop);
  assert_null(loop);
  loop_stop(&loop);
  cond_done(&seen.changed);
  mutex_done(&seen.lock);
  return 0;
}

static void in_order(void *arg) {
  seen.on_loop = loop_is_current(loop);
  seen.ordered &= (int)(intptr_t)arg == seen.n;
  count();
}

static void posts_run_in_order(void **state) {
  (void)state;
  struct err e;
  seen.ordered = true;
  assert_false(loop_is_current(loop));
  for (intptr_t i = 0; i < 1000; i++) /* also those from before the start */
    loop_post(loop, in_order, (void *)i);
  assert_int_equal(loop_start(loop, &e), 0);
  for (intptr_t i = 1000; i < 20000; i++)
    loop_post(loop, in_order, (void *)i);
  wait_for(20000);
  assert_true(seen.ordered);
  assert_true(seen.on_loop);
}

static void again(void *arg) {
  intptr_t left = (intptr_t)arg;
  count();
  if (left > 0)
    loop_post(loop, again, (void *)(left - 1));
}

static void a_post_may_post(void **state) {
  (void)state;
  struct err e;
  assert_int_equal(loop_start(loop, &e), 0);
  loop_post(loop, again, (void *)999);
  wait_for(1000);
}

static void what_is_left_runs_at_the_end(void **state) {
  (void)state;
  loop_post(loop, again, (void *)3);
  loop_stop(&loop); /* never started */
  assert_int_equal(seen.n, 4);
}

static void on_timer(void *arg) {
  (void)arg;
  count();
  if (seen.n == 3)
    loop_timer_free(&seen.timer);
}

static void timers(void *arg) {
  (void)arg;
  usec_t now = loop_now(loop);
  assert_true(now > 0);
  struct loop_timer *never = loop_timer_new(loop, on_timer, NULL);
  loop_timer_set(never, 1, 0);
  loop_timer_clear(never);
  loop_timer_free(&never);
  seen.timer = loop_timer_new(loop, on_timer, NULL);
  loop_timer_set(seen.timer, USEC_PER_HOUR, 0);
  loop_timer_set(seen.timer, 1500, USEC_PER_MS); /* replaces */
  (void)loop_timer_new(loop, on_timer, NULL);    /* forgotten ones end with the loop */
}

static void timers_fire(void **state) {
  (void)state;
  struct err e;
  assert_int_equal(loop_start(loop, &e), 0);
  loop_post(loop, timers, NULL);
  wait_for(3);
}

static void poster(void *arg) {
  (void)arg;
  for (int i = 0; i < 5000; i++)
    loop_post(loop, again, NULL);
}

static void many_threads(void **state) {
  (void)state;
  struct err e;
  struct thread t[4] = {0};
  assert_int_equal(loop_start(loop, &e), 0);
  for (int i = 0; i < 4; i++)
    assert_int_equal(thread_start(&t[i], "poster", poster, NULL, &e), 0);
  wait_for(20000);
  for (int i = 0; i < 4; i++)
    thread_join(&t[i]);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(posts_run_in_order, setup, teardown),
      cmocka_unit_test_setup_teardown(a_post_may_post, setup, teardown),
      cmocka_unit_test_setup_teardown(what_is_left_runs_at_the_end, setup, teardown),
      cmocka_unit_test_setup_teardown(timers_fire, setup, teardown),
      cmocka_unit_test_setup_teardown(many_threads, setup, teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
