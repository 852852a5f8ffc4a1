/* How nodes divide a bound. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/rng.h"
#include "core/share.h"

#define N(list) (sizeof(list) / sizeof *(list))

static void divided(int64_t bound, const int64_t *want, size_t n, uint64_t turn, const int64_t *expected) {
  struct share_ask a = {bound, want, n, turn};
  for (size_t i = 0; i < n; i++)
    assert_int_equal(share_target(&a, i), expected[i]);
}

static void test_cases(void **state) {
  (void)state;
#define CASE(bound, turn, want, expected)                                                                    \
  divided(bound, (const int64_t[])want, N(((const int64_t[])want)), turn, (const int64_t[])expected)
#define L(...) {__VA_ARGS__}
  CASE(10, 0, L(100), L(10));
  CASE(10, 0, L(0), L(10));
  CASE(12, 0, L(0, 0, 0), L(4, 4, 4));       /* nobody needs any */
  CASE(12, 0, L(12, 0, 0), L(12, 0, 0));     /* one needs all */
  CASE(12, 0, L(8, 0, 0), L(10, 1, 1));      /* the others can begin at once */
  CASE(12, 0, L(100, 100, 100), L(4, 4, 4)); /* all need more */
  CASE(12, 0, L(2, 100, 100), L(2, 5, 5));   /* all the same, but who needs less */
  CASE(13, 0, L(100, 100, 100), L(5, 4, 4)); /* the odd one goes round */
  CASE(13, 1, L(100, 100, 100), L(4, 5, 4));
  CASE(14, 2, L(100, 100, 100), L(5, 4, 5));
  CASE(1, 0, L(5, 5, 5), L(1, 0, 0)); /* less than one each: it goes round, too */
  CASE(1, 1, L(5, 5, 5), L(0, 1, 0));
  CASE(1, 2, L(5, 5, 5), L(0, 0, 1));
  CASE(1, 0, L(0, 5, 5), L(0, 1, 0)); /* among those who need it */
  CASE(1, 7, L(0, 0, 0), L(0, 1, 0));
}

/* The sum is the bound, whatever is wanted; who wants no more than an equal share has it; within so many turns everybody who wants any has some. */
static void test_always(void **state) {
  struct rng rng;
  (void)state;
  rng_seed(&rng, 7);
  for (int i = 0; i < 20000; i++) {
    int64_t want[8];
    size_t n = 1 + (size_t)rng_below(&rng, N(want));
    struct share_ask a = {(int64_t)rng_below(&rng, 40), want, n, rng_below(&rng, 1000)};
    for (size_t k = 0; k < n; k++)
      want[k] = (int64_t)rng_below(&rng, rng_below(&rng, 2) ? 3 : 60);
    int64_t sum = 0;
    for (size_t k = 0; k < n; k++) {
      int64_t mine = share_target(&a, k);
      assert_true(mine >= 0);
      if (want[k] <= a.bound / (int64_t)n)
        assert_true(mine >= want[k]);
      sum += mine;
    }
    assert_int_equal(sum, a.bound);
    for (size_t k = 0; k < n && a.bound; k++) {
      int64_t had = 0;
      struct share_ask b = a;
      for (size_t turns = 0; turns < n; turns++, b.turn++)
        had += share_target(&b, k);
      assert_true(!want[k] || had > 0);
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_cases), cmocka_unit_test(test_always)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
