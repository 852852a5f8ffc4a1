/* Back-off. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "core/retry.h"

static struct task_spec spec = {.retry = {.max_attempts = 5,
                                          .initial_interval = 1000,
                                          .max_interval = 6000,
                                          .multiplier = 2,
                                          .retry_on = 1u << REASON_ERROR | 1u << REASON_TIMEOUT}};
static struct rng rng;

static usec_t delay(const struct task_spec *s, int32_t attempt, usec_t now) {
  return retry_delay(s, attempt, REASON_ERROR, 0, now, &rng);
}

static void test_grows_and_is_capped(void **state) {
  (void)state;
  assert_int_equal(delay(&spec, 1, 0), 1000);
  assert_int_equal(delay(&spec, 2, 0), 2000);
  assert_int_equal(delay(&spec, 3, 0), 4000);
  assert_int_equal(delay(&spec, 4, 0), 6000);
  assert_int_equal(delay(&spec, 5, 0), -1); /* used up */
  struct task_spec s = spec;
  s.retry.max_attempts = 100;
  assert_int_equal(delay(&s, 99, 0), 6000); /* no overflow on the way */
}

static void test_reason(void **state) {
  (void)state;
  assert_int_equal(retry_delay(&spec, 1, REASON_TIMEOUT, 0, 0, &rng), 1000);
  assert_int_equal(retry_delay(&spec, 1, REASON_LOST, 0, 0, &rng), -1);
}

static void test_bounds_in_time(void **state) {
  (void)state;
  struct task_spec s = spec;
  s.retry.max_elapsed = 5000;
  assert_int_equal(delay(&s, 1, 4000), 1000);
  assert_int_equal(delay(&s, 1, 4001), -1);
  s.retry.max_elapsed = 0;
  s.timeout = 5000;
  assert_int_equal(delay(&s, 1, 3999), 1000);
  assert_int_equal(delay(&s, 1, 4000), -1); /* it would begin when the run is over */
}

static void test_jitter(void **state) {
  (void)state;
  struct task_spec s = spec;
  s.retry.jitter = .5;
  usec_t least = USEC_NEVER, most = 0;
  for (int i = 0; i < 1000; i++) {
    usec_t d = delay(&s, 2, 0);
    assert_in_range(d, 1000, 3000);
    least = d < least ? d : least;
    most = d > most ? d : most;
  }
  assert_true(least < 1100 && most > 2900);
  struct rng a, b;
  rng_seed(&a, 9);
  rng_seed(&b, 9);
  assert_int_equal(retry_delay(&s, 2, REASON_ERROR, 0, 0, &a), retry_delay(&s, 2, REASON_ERROR, 0, 0, &b));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_grows_and_is_capped),
                                     cmocka_unit_test(test_reason), cmocka_unit_test(test_bounds_in_time),
                                     cmocka_unit_test(test_jitter)};
  rng_seed(&rng, 1);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
