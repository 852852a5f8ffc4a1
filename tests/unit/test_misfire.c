/* Misfire and overlap: every policy at its edges. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "core/misfire.h"
#include "core/overlap.h"

static struct task_spec spec(enum misfire_policy p) {
  return (struct task_spec){
      .misfire_policy = p, .misfire_threshold = 60, .catchup_window = 1000, .catchup_max_runs = 3};
}

#define DECIDE(policy, due, next, now, caught)                                                               \
  misfire_decide(&(struct task_spec[]){spec(policy)}[0], (due), (next), (now), (caught))

static void test_in_time(void **state) {
  (void)state;
  for (int p = 0; p < MISFIRE_MAX_; p++) {
    assert_int_equal(DECIDE((enum misfire_policy)p, 100, 200, 100, 0), MISFIRE_DO_FIRE);
    assert_int_equal(DECIDE((enum misfire_policy)p, 100, 200, 160, 0),
                     MISFIRE_DO_FIRE); /* late, no misfire */
    assert_int_not_equal(DECIDE((enum misfire_policy)p, 100, 200, 161, 0), MISFIRE_DO_FIRE);
  }
}

static void test_fire_once(void **state) {
  (void)state;
  assert_int_equal(DECIDE(MISFIRE_FIRE_ONCE, 100, 1000, 1000, 0), MISFIRE_DO_FOLD); /* another one is due */
  assert_int_equal(DECIDE(MISFIRE_FIRE_ONCE, 100, 1001, 1000, 0), MISFIRE_DO_MAKE_UP);
  assert_int_equal(DECIDE(MISFIRE_FIRE_ONCE, 100, USEC_NEVER, 1000000, 0),
                   MISFIRE_DO_MAKE_UP); /* without a window */
}

static void test_skip(void **state) {
  (void)state;
  assert_int_equal(DECIDE(MISFIRE_SKIP, 100, USEC_NEVER, 161, 0), MISFIRE_DO_FOLD);
}

static void test_fire_all(void **state) {
  (void)state;
  assert_int_equal(DECIDE(MISFIRE_FIRE_ALL, 100, 200, 1100, 0), MISFIRE_DO_CATCH_UP);
  assert_int_equal(DECIDE(MISFIRE_FIRE_ALL, 100, 200, 1101, 0), MISFIRE_DO_FOLD); /* older than the window */
  assert_int_equal(DECIDE(MISFIRE_FIRE_ALL, 100, 200, 1100, 2), MISFIRE_DO_CATCH_UP);
  assert_int_equal(DECIDE(MISFIRE_FIRE_ALL, 100, 200, 1100, 3), MISFIRE_DO_FOLD); /* enough */
}

static enum overlap_decision of(enum overlap_policy policy, int64_t active, int64_t queued, bool caught_up) {
  return overlap_decide(
      &(struct overlap_view){.policy = policy, .active = active, .queued = queued, .caught_up = caught_up});
}

static void test_overlap(void **state) {
  (void)state;
  for (int p = 0; p < OVERLAP_MAX_; p++) {
    enum overlap_policy policy = (enum overlap_policy)p;
    assert_int_equal(of(policy, 0, 0, false), OVERLAP_DO_START);
    assert_int_equal(of(policy, 1, 0, true), p == OVERLAP_ALLOW ? OVERLAP_DO_START : OVERLAP_DO_QUEUE);
    struct overlap_view bounded = {.policy = policy, .bounded = true};
    assert_int_equal(overlap_decide(&bounded), OVERLAP_DO_QUEUE); /* nothing overlaps: it only waits */
  }
  assert_int_equal(of(OVERLAP_ALLOW, 5, 5, false), OVERLAP_DO_START);
  assert_int_equal(of(OVERLAP_SKIP, 1, 0, false), OVERLAP_DO_SKIP);
  assert_int_equal(of(OVERLAP_QUEUE_ONE, 1, 0, false), OVERLAP_DO_QUEUE);
  assert_int_equal(of(OVERLAP_QUEUE_ONE, 1, 1, false), OVERLAP_DO_SKIP);
  assert_int_equal(of(OVERLAP_QUEUE_ONE, 0, 1, false), OVERLAP_DO_SKIP); /* the waiting one goes first */
  assert_int_equal(of(OVERLAP_QUEUE_ALL, 1, 9, false), OVERLAP_DO_QUEUE);
  assert_int_equal(of(OVERLAP_REPLACE, 1, 0, false), OVERLAP_DO_QUEUE); /* the newest waits */
  assert_int_equal(of(OVERLAP_REPLACE, 1, 1, false), OVERLAP_DO_QUEUE);
}

static void test_max_concurrent(void **state) {
  (void)state;
  static const enum overlap_policy policies[] = {OVERLAP_ALLOW, OVERLAP_QUEUE_ALL};
  for (int i = 0; i < 2; i++) {
    struct overlap_view v = {.policy = policies[i], .max_concurrent = 3, .active = 2};
    assert_int_equal(overlap_decide(&v), OVERLAP_DO_START);
    v.active = 3;
    assert_int_equal(overlap_decide(&v), OVERLAP_DO_QUEUE);
    v.active = 2;
    v.queued = 1; /* its turn comes first */
    assert_int_equal(overlap_decide(&v), OVERLAP_DO_QUEUE);
    v.queued = 0;
    v.bounded = true;
    assert_int_equal(overlap_decide(&v), OVERLAP_DO_QUEUE);
  }
  assert_int_equal(overlap_max(OVERLAP_QUEUE_ONE, 0), 1);
  assert_int_equal(overlap_max(OVERLAP_QUEUE_ALL, 0), 1);
  assert_true(overlap_max(OVERLAP_ALLOW, 0) == INT64_MAX);
  assert_int_equal(overlap_max(OVERLAP_ALLOW, 2), 2);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_in_time), cmocka_unit_test(test_fire_once),
                                     cmocka_unit_test(test_skip),    cmocka_unit_test(test_fire_all),
                                     cmocka_unit_test(test_overlap), cmocka_unit_test(test_max_concurrent)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
