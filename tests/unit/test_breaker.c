/* The circuit breaker of an executor: a table of what it met and what it then advises. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "core/breaker.h"

static const struct breaker_limits limits = {
    .failures = 3, .open_first = 100, .open_most = 350, .suspect = 50};

enum { ASK = BREAKER_FAILED + 1, CHOSEN };
struct line {
  usec_t at;
  int what; /* an event, ASK or CHOSEN */
  enum breaker_advice advice;
  enum breaker_state state; /* afterwards */
};
#define ANSWERED(at, state)                                                                                  \
  { at, BREAKER_ANSWERED, BREAKER_NO, BREAKER_##state }
#define REFUSED(at, state)                                                                                   \
  { at, BREAKER_REFUSED, BREAKER_NO, BREAKER_##state }
#define FAILED(at, state)                                                                                    \
  { at, BREAKER_FAILED, BREAKER_NO, BREAKER_##state }
#define CHOSEN(at, state)                                                                                    \
  { at, CHOSEN, BREAKER_NO, BREAKER_##state }
#define ASK(at, advice, state)                                                                               \
  { at, ASK, BREAKER_##advice, BREAKER_##state }

static void play(const struct line *lines, size_t n) {
  struct breaker b = {0};
  for (size_t i = 0; i < n; i++) {
    const struct line *l = &lines[i];
    if (l->what == ASK)
      assert_int_equal(breaker_ask(&b, l->at), l->advice);
    else if (l->what == CHOSEN)
      breaker_chosen(&b, l->at);
    else
      breaker_step(&b, &limits, (enum breaker_event)l->what, l->at);
    if (b.state != l->state)
      fail_msg("line %zu: %s, expected %s", i, breaker_state_names[b.state], breaker_state_names[l->state]);
  }
}
#define PLAY(...)                                                                                            \
  do {                                                                                                       \
    static const struct line lines[] = {__VA_ARGS__};                                                        \
    play(lines, sizeof lines / sizeof *lines);                                                               \
  } while (0)

static void test_opens_after_failures_in_a_row(void **state) {
  (void)state;
  PLAY(ASK(0, YES, CLOSED), CHOSEN(0, CLOSED), FAILED(0, CLOSED), ASK(1, RATHER_NOT, CLOSED),
       ASK(50, YES, CLOSED), FAILED(60, CLOSED), FAILED(70, OPEN), ASK(71, NO, OPEN), ASK(169, NO, OPEN),
       ASK(170, YES, OPEN));
}

static void test_an_answer_in_between_begins_anew(void **state) {
  (void)state;
  PLAY(FAILED(0, CLOSED), FAILED(1, CLOSED), ANSWERED(2, CLOSED), ASK(2, YES, CLOSED), FAILED(3, CLOSED),
       FAILED(4, CLOSED), FAILED(5, OPEN));
}

static void test_a_refusal_is_an_answer(void **state) {
  (void)state;
  PLAY(FAILED(0, CLOSED), FAILED(1, CLOSED), REFUSED(2, CLOSED), ASK(3, RATHER_NOT, CLOSED),
       FAILED(4, CLOSED), REFUSED(5, CLOSED), REFUSED(6, CLOSED), REFUSED(7, CLOSED), ASK(57, YES, CLOSED));
}

static void test_one_probe_closes_it(void **state) {
  (void)state;
  PLAY(FAILED(0, CLOSED), FAILED(0, CLOSED), FAILED(0, OPEN), ASK(100, YES, OPEN), CHOSEN(100, HALF_OPEN),
       ASK(100, NO, HALF_OPEN), ASK(150, NO, HALF_OPEN), ANSWERED(151, CLOSED), ASK(151, YES, CLOSED),
       FAILED(152, CLOSED));
}

static void test_a_failed_probe_doubles_up_to_the_bound(void **state) {
  (void)state;
  PLAY(FAILED(0, CLOSED), FAILED(0, CLOSED), FAILED(0, OPEN), CHOSEN(100, HALF_OPEN), FAILED(110, OPEN),
       ASK(309, NO, OPEN), ASK(310, YES, OPEN), CHOSEN(310, HALF_OPEN), FAILED(320, OPEN), ASK(669, NO, OPEN),
       ASK(670, YES, OPEN), CHOSEN(670, HALF_OPEN), FAILED(680, OPEN), ASK(1029, NO, OPEN),
       ASK(1030, YES, OPEN), CHOSEN(1030, HALF_OPEN), ANSWERED(1031, CLOSED), FAILED(1032, CLOSED),
       FAILED(1032, CLOSED), FAILED(1032, OPEN), ASK(1132, YES, OPEN)); /* the first length again */
}

static void test_answers_of_what_began_before(void **state) {
  (void)state;
  PLAY(FAILED(0, CLOSED), FAILED(0, CLOSED), FAILED(0, OPEN), FAILED(50, OPEN), ASK(100, YES, OPEN),
       FAILED(101, OPEN), ASK(101, YES, OPEN), ANSWERED(102, CLOSED), ASK(102, YES, CLOSED));
}

static void test_a_probe_that_is_never_heard_of(void **state) {
  (void)state;
  PLAY(FAILED(0, CLOSED), FAILED(0, CLOSED), FAILED(0, OPEN), CHOSEN(100, HALF_OPEN), ASK(199, NO, HALF_OPEN),
       ASK(200, YES, HALF_OPEN), CHOSEN(200, HALF_OPEN), ASK(201, NO, HALF_OPEN), REFUSED(202, CLOSED));
}

static void test_calm(void **state) {
  (void)state;
  struct breaker b = {0};
  assert_true(breaker_is_calm(&b));
  breaker_step(&b, &limits, BREAKER_REFUSED, 5);
  assert_false(breaker_is_calm(&b));
  breaker_step(&b, &limits, BREAKER_ANSWERED, 5);
  assert_true(breaker_is_calm(&b));
  struct breaker_limits odd = {.failures = 1, .open_first = 500, .open_most = 200, .suspect = 0};
  breaker_step(&b, &odd, BREAKER_FAILED, 0);
  assert_int_equal(breaker_ask(&b, 199), BREAKER_NO);
  assert_int_equal(breaker_ask(&b, 200), BREAKER_YES);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_opens_after_failures_in_a_row),
                                     cmocka_unit_test(test_an_answer_in_between_begins_anew),
                                     cmocka_unit_test(test_a_refusal_is_an_answer),
                                     cmocka_unit_test(test_one_probe_closes_it),
                                     cmocka_unit_test(test_a_failed_probe_doubles_up_to_the_bound),
                                     cmocka_unit_test(test_answers_of_what_began_before),
                                     cmocka_unit_test(test_a_probe_that_is_never_heard_of),
                                     cmocka_unit_test(test_calm)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
