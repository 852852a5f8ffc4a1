/* Every phase × every event of the run, written down a second time: one line a phase, one letter an event. */
#include "core/run_fsm.h"
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

/* Events in the order of run_fsm.def:
 * RELEASE ENQUEUE ACCEPT PROMISE CLAIM BUSY UNREACHABLE ACK_LOST REFUSE NO_EXECUTOR BEAT DONE_OK DONE_FAIL DONE_CANCELLED
 * DISPATCH_TIMEOUT ATTEMPT_TIMEOUT BEAT_TIMEOUT RUN_TIMEOUT EXECUTOR_LOST CANCEL CANCEL_TIMEOUT REPLACE
 * Letters:  . nothing  = stays  d DISPATCHING  q QUEUED  a ACCEPTED  p PROGRESS  c CANCELLING
 *           S SUCCESS  C CANCELLED  X FAIL/EXPIRED  T FAIL/TIMEOUT  E FAIL/ERROR
 *           r retried for REJECTED  e ERROR  t TIMEOUT  n the last trouble  l LOST
 *           k CANCELLED, or CANCELLING when it may have been sent  K the same for REPLACED
 *           O SKIPPED/OVERLAP  R CANCELLED/REPLACED */
static const struct {
  enum run_phase phase;
  const char *row;
} expected[] = {
    {PHASE_SCHEDULED, "dq"
                      "........"
                      ".."
                      "..."
                      "..X"
                      ".C.."},
    {PHASE_QUEUED, "d."
                   "........"
                   ".."
                   "..."
                   "..X"
                   ".C.O"},
    {PHASE_DISPATCHING, ".."
                        "a=a===r="
                        "pS"
                        "eCn"
                        "..T"
                        "lk.K"},
    {PHASE_RETRY_WAIT, "d."
                       "........"
                       ".."
                       "..."
                       "..T"
                       ".C.R"},
    {PHASE_ACCEPTED, ".."
                     "=.=....."
                     "pS"
                     "eC."
                     "ttT"
                     "lc.c"},
    {PHASE_PROGRESS, ".."
                     "=.=....."
                     "=S"
                     "eC."
                     "ttT"
                     "lc.c"},
    {PHASE_CANCELLING, ".."
                       "........"
                       "=S"
                       "EC."
                       "..C"
                       "C.C."},
    {PHASE_ENDED, ".."
                  "........"
                  ".."
                  "..."
                  "..."
                  "...."},
};

static const struct task_spec spec_retry = {.retry = {.max_attempts = 3,
                                                      .initial_interval = 10,
                                                      .max_interval = 100,
                                                      .multiplier = 2,
                                                      .retry_on = ~0u},
                                            .timeout = 1000000};
static const struct task_spec spec_once = {.retry = {.max_attempts = 1, .retry_on = ~0u}};

static void check_failed(const struct run_actions *a, enum run_reason why, bool retried) {
  assert_true(a->changed);
  assert_true(a->attempt_failed);
  assert_int_equal(a->failed_for, why);
  assert_int_equal(a->phase, retried ? PHASE_RETRY_WAIT : PHASE_ENDED);
  assert_int_equal(a->state, retried ? RUN_PENDING : RUN_FAIL);
  assert_int_equal(a->reason, retried ? REASON_RETRY_WAIT : why);
  assert_false(a->dispatch);
  if (retried)
    assert_true(a->not_before >= 510 && a->not_before <= 600);
}

static void check_go(const struct run_actions *a, enum run_phase phase) {
  assert_true(a->changed);
  assert_int_equal(a->phase, phase);
  assert_int_equal(a->state, run_phase_state(phase));
  assert_int_equal(a->reason, run_phase_reason(phase));
}

static void check_end(const struct run_actions *a, enum run_state state, enum run_reason reason) {
  assert_true(a->changed);
  assert_int_equal(a->phase, PHASE_ENDED);
  assert_int_equal(a->state, state);
  assert_int_equal(a->reason, reason);
}

static void check(char letter, const struct run_actions *a, const struct run_view *v, bool retried) {
  switch (letter) {
  case '.':
    assert_false(a->changed);
    assert_int_equal(a->phase, v->phase);
    break;
  case '=': check_go(a, v->phase); break;
  case 'd':
    check_go(a, PHASE_DISPATCHING);
    assert_true(a->dispatch);
    assert_int_equal(a->attempt, v->attempt + 1);
    break;
  case 'q': check_go(a, PHASE_QUEUED); break;
  case 'a': check_go(a, PHASE_ACCEPTED); break;
  case 'p': check_go(a, PHASE_PROGRESS); break;
  case 'c':
    check_go(a, PHASE_CANCELLING);
    assert_true(a->tell_cancel);
    break;
  case 'S': check_end(a, RUN_SUCCESS, REASON_NONE); break;
  case 'C': check_end(a, RUN_CANCELLED, REASON_NONE); break;
  case 'X': check_end(a, RUN_FAIL, REASON_EXPIRED); break;
  case 'T': check_end(a, RUN_FAIL, REASON_TIMEOUT); break;
  case 'E': check_end(a, RUN_FAIL, REASON_ERROR); break;
  case 'r': check_failed(a, REASON_REJECTED, retried); break;
  case 'e': check_failed(a, REASON_ERROR, retried); break;
  case 't':
    check_failed(a, REASON_TIMEOUT, retried);
    assert_true(a->tell_cancel);
    break;
  case 'n': check_failed(a, v->last_trouble, retried); break;
  case 'l': check_failed(a, REASON_LOST, retried); break;
  case 'O': check_end(a, RUN_SKIPPED, REASON_OVERLAP); break;
  case 'R': check_end(a, RUN_CANCELLED, REASON_REPLACED); break;
  case 'k':
  case 'K':
    if (v->maybe_sent)
      check_go(a, PHASE_CANCELLING);
    else
      check_end(a, RUN_CANCELLED, letter == 'K' ? REASON_REPLACED : REASON_NONE);
    assert_int_equal(a->tell_cancel, v->maybe_sent);
    break;
  default: fail_msg("no such letter: %c", letter);
  }
}

static void every_pair(void **state) {
  (void)state;
  for (size_t p = 0; p < sizeof expected / sizeof expected[0]; p++) {
    assert_int_equal(strlen(expected[p].row), EV_MAX_);
    for (int ev = 0; ev < EV_MAX_; ev++)
      for (int variant = 0; variant < 4; variant++) {
        bool retried = variant & 1;
        struct run_view v = {.phase = expected[p].phase,
                             .attempt = 1,
                             .fired_at = 100,
                             .maybe_sent = variant & 2,
                             .last_trouble = REASON_LOST};
        struct rng rng;
        rng_seed(&rng, 1);
        struct run_actions a =
            run_step(&v, retried ? &spec_retry : &spec_once, (enum run_event)ev, 500, &rng);
        check(expected[p].row[ev], &a, &v, retried);
      }
  }
}

/* What must be claimed and has not been has not started: its loss costs no attempt of the policy, its cancel waits for nobody. */
static void unclaimed_has_not_started(void **state) {
  (void)state;
  struct task_spec spec = {
      .retry = {.max_attempts = 1, .retry_on = 0}, .on_lost = ON_LOST_FAIL, .exactly_one_start = true};
  struct rng rng;
  rng_seed(&rng, 1);
  for (int sent = 0; sent < 2; sent++) {
    struct run_view v = {.phase = PHASE_DISPATCHING, .attempt = 1, .fired_at = 100, .maybe_sent = sent};
    struct run_actions a = run_step(&v, &spec, EV_EXECUTOR_LOST, 500, &rng);
    check_go(&a, PHASE_RETRY_WAIT);
    assert_true(a.attempt_failed);
    assert_int_equal(a.failed_for, REASON_LOST);
    assert_int_equal(a.not_before, 500);
    a = run_step(&v, &spec, EV_CANCEL, 500, &rng);
    check_end(&a, RUN_CANCELLED, REASON_NONE);
    assert_int_equal(a.tell_cancel, sent);
    a = run_step(&v, &spec, EV_REPLACE, 500, &rng);
    check_end(&a, RUN_CANCELLED, REASON_REPLACED);
  }
  struct run_view claimed = {.phase = PHASE_ACCEPTED, .attempt = 1, .fired_at = 100, .maybe_sent = true};
  struct run_actions a = run_step(&claimed, &spec, EV_EXECUTOR_LOST, 500, &rng);
  check_failed(&a, REASON_LOST, false);
  a = run_step(&claimed, &spec, EV_CANCEL, 500, &rng);
  check_go(&a, PHASE_CANCELLING);
}

/* However a run ends that is being cancelled for a newer one: CANCELLED says why. */
static void replaced_says_so(void **state) {
  (void)state;
  for (int ev = 0; ev < EV_MAX_; ev++) {
    struct rng rng;
    rng_seed(&rng, 1);
    struct run_view v = {.phase = PHASE_CANCELLING, .attempt = 1, .fired_at = 100, .replaced = true};
    struct run_actions a = run_step(&v, &spec_once, (enum run_event)ev, 500, &rng);
    if (a.phase == PHASE_ENDED && a.state == RUN_CANCELLED)
      assert_int_equal(a.reason, REASON_REPLACED);
    else
      assert_int_not_equal(a.reason, REASON_REPLACED);
  }
}

static void on_lost_fail_ends_it(void **state) {
  (void)state;
  struct task_spec s = spec_retry;
  s.on_lost = ON_LOST_FAIL;
  struct rng rng;
  rng_seed(&rng, 1);
  struct run_view v = {.phase = PHASE_ACCEPTED, .attempt = 1, .fired_at = 100};
  struct run_actions a = run_step(&v, &s, EV_EXECUTOR_LOST, 500, &rng);
  check_failed(&a, REASON_LOST, false);
}

static void without_trouble_nobody_was_there(void **state) {
  (void)state;
  struct rng rng;
  rng_seed(&rng, 1);
  struct run_view v = {.phase = PHASE_DISPATCHING, .attempt = 1, .fired_at = 100};
  struct run_actions a = run_step(&v, &spec_once, EV_DISPATCH_TIMEOUT, 500, &rng);
  check_failed(&a, REASON_NO_EXECUTOR, false);
}

/* Every phase can be reached from a start, and from every phase an end. */
static void everything_is_reachable(void **state) {
  (void)state;
  bool from_start[PHASE_MAX_] = {[PHASE_SCHEDULED] = true, [PHASE_QUEUED] = true, [PHASE_DISPATCHING] = true};
  bool to_end[PHASE_MAX_] = {[PHASE_ENDED] = true};
  for (int round = 0; round < PHASE_MAX_; round++)
    for (int p = 0; p < PHASE_ENDED; p++)
      for (int ev = 0; ev < EV_MAX_; ev++)
        for (int variant = 0; variant < 4; variant++) {
          struct rng rng;
          rng_seed(&rng, 1);
          struct run_view v = {
              .phase = (enum run_phase)p, .attempt = 1, .fired_at = 100, .maybe_sent = variant & 2};
          struct run_actions a =
              run_step(&v, variant & 1 ? &spec_retry : &spec_once, (enum run_event)ev, 500, &rng);
          from_start[a.phase] = from_start[a.phase] || from_start[p];
          to_end[p] = to_end[p] || to_end[a.phase];
        }
  for (int p = 0; p < PHASE_MAX_; p++) {
    assert_true(from_start[p]);
    assert_true(to_end[p]);
  }
}

static void stored_states_come_back(void **state) {
  (void)state;
  for (int p = 0; p < PHASE_ENDED; p++)
    assert_int_equal(run_phase_of(run_phase_state((enum run_phase)p), run_phase_reason((enum run_phase)p)),
                     p);
  assert_int_equal(run_phase_of(RUN_FAIL, REASON_LOST), PHASE_ENDED);
  assert_int_equal(run_phase_of(RUN_SUCCESS, REASON_NONE), PHASE_ENDED);
}

/* docs/run-states.md holds the very diagram that the table draws. */
static void diagram_equals_the_docs(void **state) {
  (void)state;
  const char *path = getenv("KELOU_RUN_STATES");
  assert_non_null(path);
  FILE *f = fopen(path, "r");
  assert_non_null(f);
  static char text[65536];
  size_t n = fread(text, 1, sizeof text - 1, f);
  fclose(f);
  text[n] = 0;
  struct str out;
  str_init(&out, sizeof text);
  run_fsm_mermaid(&out);
  assert_false(str_failed(&out));
  assert_non_null(strstr(text, out.p));
  str_done(&out);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_pair),
      cmocka_unit_test(unclaimed_has_not_started),
      cmocka_unit_test(replaced_says_so),
      cmocka_unit_test(on_lost_fail_ends_it),
      cmocka_unit_test(without_trouble_nobody_was_there),
      cmocka_unit_test(everything_is_reachable),
      cmocka_unit_test(stored_states_come_back),
      cmocka_unit_test(diagram_equals_the_docs),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
