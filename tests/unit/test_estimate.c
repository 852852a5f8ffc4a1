#include "cluster/estimate.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define SEC USEC_PER_SEC
#define MS  USEC_PER_MS

static void test_first(void **state) {
  (void)state;
  assert_int_equal(estimate_offset(0, true, 10 * SEC, 14 * SEC, 112 * SEC), 100 * SEC);
}

static void test_quick_round_trip(void **state) {
  (void)state;
  assert_int_equal(estimate_offset(90 * SEC, false, 10 * SEC, 10 * SEC + 2 * MS, 110 * SEC + MS), 100 * SEC);
}

/* The server stood still before or after it looked at its clock: the midpoint would be seconds off. */
static void test_slow_round_trip(void **state) {
  (void)state;
  assert_int_equal(estimate_offset(100 * SEC, false, 10 * SEC, 16 * SEC, 116 * SEC), 100 * SEC);
  assert_int_equal(estimate_offset(100 * SEC, false, 10 * SEC, 16 * SEC, 110 * SEC), 100 * SEC);
  assert_int_equal(estimate_offset(100 * SEC, false, 10 * SEC, 16 * SEC, 113 * SEC), 100 * SEC);
}

/* What cannot be true any more goes as far as it must. */
static void test_stepped(void **state) {
  (void)state;
  assert_int_equal(estimate_offset(100 * SEC, false, 10 * SEC, 11 * SEC, 130 * SEC), 119 * SEC);
  assert_int_equal(estimate_offset(100 * SEC, false, 10 * SEC, 11 * SEC, 50 * SEC), 40 * SEC);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_first), cmocka_unit_test(test_quick_round_trip),
                                     cmocka_unit_test(test_slow_round_trip), cmocka_unit_test(test_stepped)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
