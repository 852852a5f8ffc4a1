/* REPLACE: the newest run takes the place of those before it, whatever they are at; after a take-over, too. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "core/live.h"
#include "spec_util.h"

#define SEC USEC_PER_SEC
#define NOW (1000 * SEC)

static struct live *l;
static struct live_out out;
static int slots[4];

static int setup(void **state) {
  (void)state;
  specs_open();
  l = live_new(&(struct live_limits){2 * SEC, 2 * SEC}, 1);
  return 0;
}

static int teardown(void **state) {
  (void)state;
  live_out_done(&out);
  live_free(&l);
  live_free(&l); /* nothing to free */
  specs_close();
  return 0;
}

static struct run_key key(int64_t task, int32_t part) {
  return (struct run_key){.shard = 2, .scheduled_at = NOW, .task_id = task, .part = part};
}

static struct run_row row_of(struct run_key k, enum run_state state, enum run_reason reason) {
  bool begun = reason != REASON_QUEUED && reason != REASON_SCHEDULED;
  return (struct run_row){.key = k,
                          .version = 4,
                          .state = state,
                          .reason = reason,
                          .attempt = begun,
                          .fired_at = NOW,
                          .attempt_at = begun ? NOW : 0,
                          .progress = -1};
}

static enum overlap_decision decide_of(int64_t task, const struct task_spec *s, enum overlap_policy policy) {
  return live_decide(l, &(struct overlap_ask){.task_id = task, .spec = s, .policy = policy, .now = NOW});
}

/* Decided and fired; the reason says how it was decided. */
static enum run_reason fire(struct run_key k, enum overlap_policy policy, const char *rest) {
  static const enum run_reason reasons[] = {
      [OVERLAP_DO_START] = REASON_DISPATCHING, [OVERLAP_DO_QUEUE] = REASON_QUEUED};
  struct task_spec *s = spec_of(MANUAL, rest);
  enum overlap_decision d = decide_of(k.task_id, s, policy);
  if (d == OVERLAP_DO_SKIP) {
    task_spec_unref(&s);
    return REASON_OVERLAP;
  }
  struct run_row row = row_of(k, RUN_PENDING, reasons[d]);
  assert_true(live_open(l, &row, s, false, NOW, &out));
  task_spec_unref(&s);
  return reasons[d];
}

static void settle(void) {
  live_settle(l, &out);
  live_out_clear(&out);
}

static struct live_event ev(struct run_key k, enum run_event kind) {
  return (struct live_event){.kind = kind, .key = k, .progress = -1};
}

static int token;
/* One event; its answer. The out is left for the test to look at. */
static enum live_answer tell(struct live_event e, usec_t now) {
  size_t before = out.answers_count;
  e.token = &token;
  live_event(l, &e, now, &out);
  assert_int_equal(out.answers_count, before + 1);
  assert_ptr_equal(out.answers[before].token, &token);
  return out.answers[before].answer;
}

static void send_to_x(struct run_key k, int32_t attempt, int *slot) {
  assert_true(live_sending(l, &k, attempt, &(struct live_place){SLICE("x"), 0, slot}));
}

static const char *const REPLACES =
    ",\"overlap_policy\":\"REPLACE\",\"cancel_timeout\":\"3s\",\"timeout\":\"100s\"";

/* The newest takes the place of the one in progress, which is told, and of the one that waited; it starts when that has ended. */
static void test_replace(void **state) {
  (void)state;
  assert_int_equal(fire(key(1, 1), OVERLAP_REPLACE, REPLACES), REASON_DISPATCHING);
  live_out_clear(&out);
  send_to_x(key(1, 1), 1, &slots[0]);
  (void)tell(ev(key(1, 1), EV_ACCEPT), NOW + 1);
  settle();
  assert_int_equal(fire(key(1, 2), OVERLAP_REPLACE, REPLACES), REASON_QUEUED);
  assert_false(live_tick(l, NOW + 2, 10, &out));
  assert_int_equal(out.cancels_count, 1);
  assert_string_equal(out.cancels[0].executor, "x");
  assert_int_equal(out.updates_count, 1);
  assert_int_equal(out.updates[0].reason, REASON_CANCELLING);
  assert_true(slice_eqz(out.updates[0].error_type, "REPLACED"));
  settle();
  assert_int_equal(fire(key(1, 3), OVERLAP_REPLACE, REPLACES), REASON_QUEUED);
  assert_false(live_tick(l, NOW + 3, 10, &out));
  assert_int_equal(out.cancels_count, 0); /* told once */
  assert_int_equal(out.finishes_count, 1);
  assert_int_equal(out.finishes[0].key.part, 2);
  assert_int_equal(out.finishes[0].state, RUN_SKIPPED);
  assert_int_equal(out.finishes[0].reason, REASON_OVERLAP);
  assert_int_equal(out.dispatches_count, 0);
  settle();
  (void)tell(ev(key(1, 1), EV_DONE_CANCELLED), NOW + 4);
  assert_false(live_tick(l, NOW + 4, 10, &out));
  assert_int_equal(out.finishes[0].state, RUN_CANCELLED);
  assert_int_equal(out.finishes[0].reason, REASON_REPLACED);
  assert_int_equal(out.dispatches_count, 1);
  assert_int_equal(out.dispatches[0].key.part, 3);
  settle();
  assert_int_equal(live_count(l), 1);
}

/* Both come in one turn, the end and the newer ones: nobody is told any more, and the older one does not start. */
static void test_replace_meets_the_end(void **state) {
  (void)state;
  (void)fire(key(1, 1), OVERLAP_REPLACE, REPLACES);
  (void)fire(key(1, 2), OVERLAP_REPLACE, REPLACES);
  (void)fire(key(1, 3), OVERLAP_REPLACE, REPLACES);
  live_out_clear(&out);
  (void)tell(ev(key(1, 1), EV_DONE_OK), NOW + 1);
  assert_false(live_tick(l, NOW + 1, 10, &out));
  assert_int_equal(out.finishes_count, 2);
  assert_int_equal(out.finishes[0].state, RUN_SUCCESS);
  assert_int_equal(out.finishes[1].state, RUN_SKIPPED);
  assert_int_equal(out.cancels_count, 0);
  assert_int_equal(out.dispatches_count, 1);
  assert_int_equal(out.dispatches[0].key.part, 3);
  settle();
}

/* Not sent yet, or between attempts: replaced at once. Who does not confirm is given up after its bound. */
static void test_replace_in_other_phases(void **state) {
  (void)state;
  (void)fire(key(1, 1), OVERLAP_REPLACE, REPLACES);
  (void)fire(key(1, 2), OVERLAP_REPLACE, REPLACES);
  live_out_clear(&out);
  (void)live_tick(l, NOW + 1, 10, &out);
  assert_int_equal(out.finishes[0].reason, REASON_REPLACED);
  assert_int_equal(out.dispatches_count, 1);
  settle();
  send_to_x(key(1, 2), 1, &slots[0]);
  (void)fire(key(1, 3), OVERLAP_REPLACE, REPLACES);
  (void)live_tick(l, NOW + 2, 10, &out);
  assert_int_equal(out.cancels_count, 1); /* it may have been received */
  settle();
  (void)live_tick(l, NOW + 2 + 3 * SEC, 10, &out);
  assert_int_equal(out.finishes[0].state, RUN_CANCELLED);
  assert_int_equal(out.finishes[0].reason, REASON_REPLACED);
  assert_int_equal(out.dispatches[0].key.part, 3);
  settle();
}

/* A take-over finds the newest waiting: what it replaces is found again, in whatever order the rows come. */
static void test_replace_after_a_take_over(void **state) {
  (void)state;
  struct task_spec *s = spec_of(MANUAL, REPLACES);
  struct run_row waits = row_of(key(1, 1), RUN_PENDING, REASON_QUEUED),
                 older = row_of(key(1, 2), RUN_PENDING, REASON_QUEUED),
                 runs = row_of(key(1, 3), RUN_RUNNING, REASON_ACCEPTED),
                 told = row_of(key(1, 4), RUN_RUNNING, REASON_CANCELLING),
                 caught_up = row_of(key(1, 5), RUN_PENDING, REASON_QUEUED),
                 replayed = row_of(key(1, 6), RUN_PENDING, REASON_QUEUED);
  waits.fired_at = NOW + 5;
  runs.executor = SLICE("x");
  told.error_type = SLICE("REPLACED");
  told.error_message = SLICE("a newer run of its task takes its place");
  caught_up.origin = ORIGIN_CATCHUP;
  replayed.origin = ORIGIN_REPLAY;
  const struct run_row *rows[] = {&waits, &older, &runs, &told, &caught_up, &replayed};
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
    assert_true(live_open(l, rows[i], s, true, NOW + 6, &out));
  task_spec_unref(&s);
  (void)live_tick(l, NOW + 7, 10, &out);
  assert_int_equal(out.finishes_count, 1);
  assert_int_equal(out.finishes[0].key.part, 2);
  assert_int_equal(out.updates_count, 1);
  assert_int_equal(out.updates[0].key.part, 3);
  assert_int_equal(out.updates[0].reason, REASON_CANCELLING);
  settle();
  (void)live_tick(l, NOW + 10 + 3 * SEC, 10, &out);
  assert_int_equal(out.finishes_count, 2);
  for (size_t i = 0; i < 2; i++)
    assert_int_equal(out.finishes[i].reason, REASON_REPLACED);
  size_t begun = out.dispatches_count;
  settle();
  (void)live_tick(l, NOW + 10 + 3 * SEC, 10, &out);
  assert_int_equal(begun + out.dispatches_count, 1);
  settle();
}

/* A caught-up run waits its turn before a newer one that replaces, and begins: that one waits for its end, before a take-over and after it. */
static void test_caught_up_keeps_its_turn(void **state) {
  (void)state;
  struct task_spec *s = spec_of(MANUAL, REPLACES);
  struct run_row runs = row_of(key(1, 1), RUN_PENDING, REASON_DISPATCHING),
                 caught_up = row_of(key(1, 2), RUN_PENDING, REASON_QUEUED),
                 newer = row_of(key(1, 3), RUN_PENDING, REASON_QUEUED);
  caught_up.origin = ORIGIN_CATCHUP;
  newer.fired_at = NOW + SEC;
  for (int adopted = 0; adopted < 2; adopted++) {
    (void)live_open(l, &runs, s, true, NOW, &out);
    (void)live_open(l, &caught_up, s, true, NOW, &out);
    (void)tell(ev(key(1, 1), EV_DONE_OK),
               NOW + SEC + 1); /* it begins, and the newer one was fired meanwhile */
    assert_int_equal(out.updates_count, 1);
    assert_true(out.updates[0].attempt_at == NOW + SEC + 1);
    settle();
    if (adopted) {
      live_drop_shard(l, 2, &out);
      settle();
      struct run_row begun = caught_up;
      begun.reason = REASON_DISPATCHING;
      begun.attempt = 1;
      begun.attempt_at = NOW + SEC + 1;
      (void)live_open(l, &begun, s, true, NOW + 2 * SEC, &out);
    }
    (void)live_open(l, &newer, s, true, NOW + 2 * SEC, &out);
    live_out_clear(&out);
    (void)live_tick(l, NOW + 2 * SEC, 10, &out);
    assert_int_equal(out.finishes_count + out.updates_count, 0);
    (void)tell(ev(key(1, 2), EV_DONE_OK), NOW + 3 * SEC);
    assert_int_equal(out.finishes[0].state, RUN_SUCCESS);
    assert_int_equal(out.dispatches_count, 1);
    settle();
    live_drop_shard(l, 2, &out);
    settle();
  }
  /* one that was in progress when the newer one came is replaced */
  struct run_row begun = row_of(key(1, 2), RUN_PENDING, REASON_DISPATCHING);
  begun.origin = ORIGIN_CATCHUP;
  (void)live_open(l, &begun, s, true, NOW, &out);
  (void)live_open(l, &newer, s, true, NOW + 2 * SEC, &out);
  live_out_clear(&out);
  (void)live_tick(l, NOW + 2 * SEC, 10, &out);
  assert_int_equal(out.updates_count, 1);
  assert_int_equal(out.updates[0].reason, REASON_CANCELLING);
  settle();
  task_spec_unref(&s);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
  const struct CMUnitTest tests[] = {TEST(test_replace), TEST(test_replace_meets_the_end),
                                     TEST(test_replace_in_other_phases), TEST(test_caught_up_keeps_its_turn),
                                     TEST(test_replace_after_a_take_over)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
