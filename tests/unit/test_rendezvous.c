/* Keys stay where they are when members come and go, and are spread by weight. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>
#include "base/str.h"
#include "core/rendezvous.h"

enum { KEYS = 20000, MEMBERS = 10 };

static uint64_t member(int n) {
  char id[32];
  (void)snprintf(id, sizeof id, "billing-%d", n);
  return slice_hash(slice_of(id));
}

/* Who of members 0…n-1 has the key; `even`: by the hash alone. */
static int owner(uint64_t key, int n, const double *weights, bool even) {
  int best = 0;
  double best_rank = -1;
  uint64_t best_hash = 0;
  for (int i = 0; i < n; i++) {
    uint64_t h = rendezvous_hash(key, member(i));
    double rank = rendezvous_rank(h, weights ? weights[i] : 1);
    if (even ? i == 0 || h > best_hash : rank > best_rank) {
      best = i;
      best_rank = rank;
      best_hash = h;
    }
  }
  return best;
}

static uint64_t key(int n) {
  char text[32];
  (void)snprintf(text, sizeof text, "customer-%d", n);
  return slice_hash(slice_of(text));
}

static void near(int got, double expected) {
  if (got < expected * 0.9 || got > expected * 1.1)
    fail_msg("%d, expected about %.0f", got, expected);
}

static void test_a_new_member_takes_its_share_and_nothing_else_moves(void **state) {
  (void)state;
  int moved = 0, has[MEMBERS + 1] = {0};
  for (int k = 0; k < KEYS; k++) {
    int before = owner(key(k), MEMBERS, NULL, true), after = owner(key(k), MEMBERS + 1, NULL, true);
    has[after]++;
    if (before == after)
      continue;
    moved++;
    assert_int_equal(after, MEMBERS);
  }
  print_message("%d of %d keys moved to the %dth member\n", moved, KEYS, MEMBERS + 1);
  near(moved, (double)KEYS / (MEMBERS + 1));
  for (int i = 0; i <= MEMBERS; i++)
    near(has[i], (double)KEYS / (MEMBERS + 1));
}

static void test_weights(void **state) {
  (void)state;
  const double weights[] = {1, 2, 5}, more[] = {1, 2, 8};
  int has[3] = {0}, moved = 0;
  for (int k = 0; k < KEYS; k++) {
    int before = owner(key(k), 3, weights, false), after = owner(key(k), 3, more, false);
    has[before]++;
    if (before == after)
      continue;
    moved++;
    assert_int_equal(after, 2);
  }
  near(has[0], KEYS / 8.);
  near(has[1], KEYS / 4.);
  near(has[2], KEYS * 5 / 8.);
  near(moved, KEYS * (8 / 11. - 5 / 8.));
}

/* Equal weights may be compared by the hashes alone. */
static void test_even(void **state) {
  (void)state;
  for (int k = 0; k < 2000; k++)
    assert_int_equal(owner(key(k), MEMBERS, NULL, true), owner(key(k), MEMBERS, NULL, false));
}

/* Kept: other versions must find the same. */
static void test_vector(void **state) {
  (void)state;
  assert_true(rendezvous_rank(0, 1) > 0 && rendezvous_rank(UINT64_MAX, 1000) < 1e30);
  int expected[] = {7, 7, 6, 2, 4, 4, 7, 1};
  for (int k = 0; k < 8; k++)
    assert_int_equal(owner(key(k), MEMBERS, NULL, true), expected[k]);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_a_new_member_takes_its_share_and_nothing_else_moves),
      cmocka_unit_test(test_weights), cmocka_unit_test(test_even), cmocka_unit_test(test_vector)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
