/* exactly_one_start: who may start an attempt, and what is written before it is said; and which process of an executor has a run. */
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
static int token;

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
  specs_close();
  return 0;
}

static const struct run_key KEY = {.shard = 2, .scheduled_at = NOW, .task_id = 1};
static const char *const CLAIMS = ",\"exactly_one_start\":true,\"on_lost\":\"FAIL\",\"dispatch_timeout\":"
                                  "\"10s\",\"attempt_timeout\":\"60s\"";

static void open_row(const struct run_row *row, const char *rest, bool adopted) {
  struct task_spec *s = spec_of(MANUAL, rest);
  if (!adopted)
    assert_int_equal(
        live_decide(l,
                    &(struct overlap_ask){.task_id = 1, .spec = s, .policy = s->overlap_policy, .now = NOW}),
        OVERLAP_DO_START);
  assert_true(live_open(l, row, s, adopted, NOW, &out));
  task_spec_unref(&s);
  live_out_clear(&out);
}

static struct run_row row_of(enum run_state state, enum run_reason reason) {
  return (struct run_row){.key = KEY,
                          .version = 4,
                          .state = state,
                          .reason = reason,
                          .attempt = 1,
                          .fired_at = NOW,
                          .attempt_at = NOW,
                          .progress = -1};
}

static void fire(const char *rest) {
  struct run_row row = row_of(RUN_PENDING, REASON_DISPATCHING);
  open_row(&row, rest, false);
}

static void send_to(const char *who, int64_t incarnation, int32_t attempt) {
  assert_true(live_sending(l, &KEY, attempt, &(struct live_place){slice_of(who), incarnation, NULL}));
}

static void settle(void) {
  live_settle(l, &out);
  live_out_clear(&out);
}

static enum live_answer tell(enum run_event kind, const char *who, int64_t incarnation, int32_t attempt) {
  struct live_event e = {.kind = kind,
                         .key = KEY,
                         .attempt = attempt,
                         .executor = slice_of(who),
                         .incarnation = incarnation,
                         .progress = -1,
                         .token = &token};
  size_t before = out.answers_count;
  live_event(l, &e, NOW + 1, &out);
  assert_int_equal(out.answers_count, before + 1);
  return out.answers[before].answer;
}

static void lose(const char *who, int64_t incarnation, uint64_t sends) {
  struct live_event e = {.kind = EV_EXECUTOR_LOST,
                         .executor = slice_of(who),
                         .incarnation = incarnation,
                         .ns = SLICE("default"),
                         .group = SLICE("g"),
                         .progress = -1};
  live_executor_lost(l, &e, sends, NOW + 2, &out);
}

/* The first claim is written at once, with who has it; the same process gets it again, nobody else does. */
static void test_the_first_has_it(void **state) {
  (void)state;
  fire(CLAIMS);
  assert_int_equal(tell(EV_CLAIM, "x", 7, 1), LIVE_UNKNOWN); /* nothing was delivered yet */
  send_to("x", 7, 1);
  assert_int_equal(tell(EV_ACCEPT, "x", 7, 1), LIVE_RECORDED);
  assert_false(live_out_writes(&out)); /* it has it, and has not started */
  assert_int_equal(live_count_phase(l, PHASE_DISPATCHING), 1);
  live_out_clear(&out);
  assert_int_equal(tell(EV_CLAIM, "y", 7, 1), LIVE_CONFLICT); /* another one */
  assert_int_equal(tell(EV_CLAIM, "x", 6, 1), LIVE_CONFLICT); /* another process of that name */
  assert_int_equal(tell(EV_CLAIM, "x", 8, 1), LIVE_CONFLICT);
  assert_int_equal(tell(EV_CLAIM, "x", 7, 2), LIVE_LATE);
  assert_false(live_out_writes(&out));
  live_out_clear(&out);
  assert_int_equal(tell(EV_CLAIM, "x", 7, 1), LIVE_GRANTED);
  assert_int_equal(out.updates_count, 1);
  const struct run_update *u = &out.updates[0];
  assert_int_equal(u->seen_state, RUN_PENDING);
  assert_int_equal(u->seen_reason, REASON_DISPATCHING);
  assert_int_equal(u->state, RUN_RUNNING);
  assert_int_equal(u->reason, REASON_ACCEPTED);
  assert_true(slice_eqz(u->executor, "x"));
  assert_int_equal(u->incarnation, 7);
  assert_int_equal(u->started_at, NOW + 1);
  assert_null(u->error_type.p);
  assert_int_equal(tell(EV_CLAIM, "y", 7, 1), LIVE_CONFLICT); /* in the same turn, too */
  settle();
  assert_int_equal(tell(EV_CLAIM, "x", 7, 1), LIVE_GRANTED); /* its answer was lost */
  assert_false(live_out_writes(&out));
  assert_int_equal(tell(EV_CLAIM, "x", 8, 1), LIVE_CONFLICT);
  assert_int_equal(tell(EV_BEAT, "y", 0, 1), LIVE_RECORDED); /* whoever that is: x has it */
  assert_int_equal(tell(EV_CLAIM, "x", 7, 1), LIVE_GRANTED);
  assert_int_equal(tell(EV_CLAIM, "y", 7, 1), LIVE_CONFLICT);
  assert_int_equal(tell(EV_DONE_OK, "x", 0, 1), LIVE_RECORDED);
  assert_int_equal(out.finishes_count, 1);
  assert_true(slice_eqz(out.finishes[0].executor, "x"));
  assert_int_equal(tell(EV_CLAIM, "x", 7, 1), LIVE_LATE);
  settle();
  assert_int_equal(tell(EV_CLAIM, "x", 7, 1), LIVE_LATE);
}

static void test_only_where_it_is_asked_for(void **state) {
  (void)state;
  fire("");
  send_to("x", 7, 1);
  assert_int_equal(tell(EV_CLAIM, "x", 7, 1), LIVE_CONFLICT);
  assert_int_equal(tell(EV_ACCEPT, "x", 7, 1), LIVE_RECORDED);
  assert_int_equal(live_count_phase(l, PHASE_ACCEPTED), 1);
  assert_int_equal(tell(EV_CLAIM, "x", 7, 1), LIVE_CONFLICT);
  assert_false(live_out_writes(&out));
}

/* Lost before it claimed: it has not started, so the next attempt comes at once, whatever the policies say; after it: as they say. */
static void test_lost(void **state) {
  (void)state;
  fire(CLAIMS);
  send_to("x", 7, 1);
  (void)tell(EV_ACCEPT, "x", 7, 1);
  lose("x", 6, live_sends(l)); /* the process before */
  assert_int_equal(live_count_phase(l, PHASE_DISPATCHING), 1);
  lose("x", 7, 0);
  assert_int_equal(out.attempts_count, 1);
  assert_int_equal(out.attempts[0].reason, REASON_LOST);
  assert_int_equal(tell(EV_CLAIM, "x", 7, 1), LIVE_LATE);
  assert_false(live_tick(l, NOW + 2, 10, &out));
  assert_int_equal(out.dispatches_count, 1);
  assert_int_equal(out.dispatches[0].attempt, 2);
  settle();
  send_to("y", 1, 2);
  assert_int_equal(tell(EV_CLAIM, "x", 7, 1), LIVE_LATE);
  assert_int_equal(tell(EV_CLAIM, "y", 1, 2), LIVE_GRANTED);
  settle();
  lose("y", 1, 0);
  assert_int_equal(out.finishes_count, 1);
  assert_int_equal(out.finishes[0].state, RUN_FAIL);
  assert_int_equal(out.finishes[0].reason, REASON_LOST);
}

/* Who takes it has until attempt_timeout, for it may have to wait for a free hand; whoever then has not claimed it is told to stop. */
static void test_taken_and_never_claimed(void **state) {
  (void)state;
  fire(CLAIMS);
  send_to("x", 7, 1);
  (void)tell(EV_ACCEPT, "x", 7, 1);
  live_out_clear(&out);
  assert_false(live_tick(l, NOW + 59 * SEC, 10, &out));
  assert_int_equal(out.finishes_count, 0);
  assert_false(live_tick(l, NOW + 60 * SEC, 10, &out));
  assert_int_equal(out.finishes_count, 1);
  assert_int_equal(out.finishes[0].reason, REASON_LOST);
  assert_true(slice_eqz(out.finishes[0].error_message, "the executor took it and has not claimed it"));
  assert_int_equal(out.cancels_count, 1);
}

static void test_cancelled_before_it_was_claimed(void **state) {
  (void)state;
  fire(CLAIMS);
  send_to("x", 7, 1);
  (void)tell(EV_ACCEPT, "x", 7, 1);
  assert_int_equal(tell(EV_CANCEL, NULL, 0, 0), LIVE_RECORDED);
  assert_int_equal(out.cancels_count, 1);
  assert_int_equal(out.finishes_count, 1);
  assert_int_equal(out.finishes[0].state, RUN_CANCELLED);
  assert_int_equal(tell(EV_CLAIM, "x", 7, 1), LIVE_LATE);
}

static void test_cancelled_after_it_was_claimed(void **state) {
  (void)state;
  fire(CLAIMS);
  send_to("x", 7, 1);
  assert_int_equal(tell(EV_CLAIM, "x", 7, 1), LIVE_GRANTED);
  settle();
  assert_int_equal(tell(EV_CANCEL, NULL, 0, 0), LIVE_RECORDED);
  assert_int_equal(live_count_phase(l, PHASE_CANCELLING), 1);
  assert_int_equal(tell(EV_CLAIM, "x", 7, 1), LIVE_LATE);
}

/* After a take-over: what is written as claimed is the claimer's; what is not is for whom this owner delivers it to. */
static void test_taken_over(void **state) {
  (void)state;
  struct run_row row = row_of(RUN_RUNNING, REASON_ACCEPTED);
  row.executor = SLICE("x");
  row.incarnation = 7;
  open_row(&row, CLAIMS, true);
  assert_int_equal(tell(EV_CLAIM, "x", 8, 1), LIVE_CONFLICT);
  assert_int_equal(tell(EV_CLAIM, "x", 7, 1), LIVE_GRANTED);
  assert_int_equal(tell(EV_DONE_OK, "x", 0, 1), LIVE_RECORDED);
  settle();
  row = row_of(RUN_PENDING, REASON_DISPATCHING);
  open_row(&row, CLAIMS, true);
  assert_int_equal(tell(EV_CLAIM, "x", 7, 1), LIVE_UNKNOWN);
  send_to("y", 1, 1);
  assert_int_equal(tell(EV_CLAIM, "x", 7, 1), LIVE_CONFLICT);
  assert_int_equal(tell(EV_CLAIM, "y", 1, 1), LIVE_GRANTED);
}

/* A run says which process has it: the loss of an earlier one is not its loss, whenever it is told. */
static void test_incarnations(void **state) {
  (void)state;
  fire("");
  send_to("x", 7, 1);
  (void)tell(EV_ACCEPT, "x", 7, 1);
  (void)tell(EV_BEAT, "x", 0, 1); /* reports say the name only */
  live_out_clear(&out);
  lose("x", 6, live_sends(l));
  assert_int_equal(live_count_phase(l, PHASE_PROGRESS), 1);
  live_write_running(l, -1, NOW + 3, &out);
  assert_int_equal(out.updates_count, 1);
  assert_int_equal(out.updates[0].incarnation, 7);
  settle();
  (void)tell(EV_BEAT, "y", 0, 1); /* another one has it: its process is not known */
  lose("y", 3, live_sends(l));
  assert_int_equal(live_count_phase(l, PHASE_PROGRESS), 0);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
  const struct CMUnitTest tests[] = {
      T(test_the_first_has_it),
      T(test_only_where_it_is_asked_for),
      T(test_lost),
      T(test_taken_and_never_claimed),
      T(test_cancelled_before_it_was_claimed),
      T(test_cancelled_after_it_was_claimed),
      T(test_taken_over),
      T(test_incarnations),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
