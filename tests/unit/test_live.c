/* The open runs of a node: what a shard that is lost in the middle of a turn leaves behind, and who waits for an end that is told. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "core/live.h"
#include "spec_util.h"

#define NOW ((usec_t)1000 * USEC_PER_SEC)

static struct live *l;
static struct task_spec *asks;
static struct live_out out;

static int setup(void **state) {
  (void)state;
  specs_open();
  asks = spec_of(MANUAL, "");
  l = live_new(&(struct live_limits){2 * USEC_PER_SEC, 2 * USEC_PER_SEC}, 1);
  return 0;
}

static int teardown(void **state) {
  (void)state;
  live_out_done(&out);
  live_free(&l);
  task_spec_unref(&asks);
  specs_close();
  return 0;
}

static struct run_key key(int32_t shard, int64_t task, int32_t part) {
  return (struct run_key){.shard = shard, .scheduled_at = NOW, .task_id = task, .part = part};
}

static enum overlap_decision decide(int64_t task, enum overlap_policy policy) {
  return live_decide(l, &(struct overlap_ask){.task_id = task, .spec = asks, .policy = policy, .now = NOW});
}

static void open_run(struct run_key k, const char *schedule, bool adopted) {
  struct task_spec *s = spec_of(schedule, "");
  struct run_row row = {.key = k,
                        .version = 1,
                        .state = RUN_PENDING,
                        .reason = REASON_DISPATCHING,
                        .attempt = 1,
                        .fired_at = NOW,
                        .attempt_at = NOW,
                        .progress = -1};
  if (!adopted)
    assert_int_equal(decide(k.task_id, OVERLAP_QUEUE_ALL), OVERLAP_DO_START);
  assert_true(live_open(l, &row, s, adopted, NOW, &out));
  task_spec_unref(&s);
  live_out_clear(&out);
}

static void event(struct run_key k, enum run_event kind, usec_t now) {
  live_event(l, &(struct live_event){.kind = kind, .key = k, .attempt = 1, .progress = -1}, now, &out);
}

/* The step ended a run; while it was committed the shard was lost: the settle must not touch what is gone. */
static void drop_between_step_and_settle(void **state) {
  (void)state;
  open_run(key(1, 7, 0), MANUAL, false);
  open_run(key(2, 8, 0), MANUAL, false);
  event(key(1, 7, 0), EV_DONE_OK, NOW + 1);
  event(key(2, 8, 0), EV_DONE_OK, NOW + 1);
  struct live_out lost = {0};
  live_drop_shard(l, 1, &lost);
  live_settle(l, &out);
  assert_int_equal(live_count(l), 0);
  assert_int_equal(decide(7, OVERLAP_SKIP), OVERLAP_DO_START); /* nothing is counted twice */
  assert_int_equal(decide(8, OVERLAP_SKIP), OVERLAP_DO_START);
  live_undecide(l, 7, asks, false);
  live_undecide(l, 8, asks, false);
  live_out_done(&lost);
}

/* … and taken over anew before the settle: what the old step wrote says nothing about the new run. */
static void dropped_and_back_before_settle(void **state) {
  (void)state;
  open_run(key(1, 7, 0), MANUAL, false);
  event(key(1, 7, 0), EV_ACCEPT, NOW + 1);
  live_tick(l, NOW + 3 * USEC_PER_SEC, 10, &out); /* writes RUNNING */
  assert_int_equal(out.updates_count, 1);
  struct live_out other = {0};
  live_drop_shard(l, 1, &other);
  struct task_spec *s = spec_of(MANUAL, "");
  struct run_row row = {.key = key(1, 7, 0),
                        .version = 1,
                        .state = RUN_PENDING,
                        .reason = REASON_DISPATCHING,
                        .attempt = 1,
                        .fired_at = NOW,
                        .progress = -1};
  assert_true(live_open(l, &row, s, true, NOW, &other));
  task_spec_unref(&s);
  live_settle(l, &out);
  live_out_clear(&out);
  event(key(1, 7, 0), EV_ACCEPT, NOW + 4 * USEC_PER_SEC);
  live_tick(l, NOW + 9 * USEC_PER_SEC, 10, &out);
  assert_int_equal(out.updates_count, 1);
  assert_int_equal(out.updates[0].seen_state, RUN_PENDING); /* as its row says */
  assert_int_equal(out.updates[0].seen_reason, REASON_DISPATCHING);
  live_settle(l, &out);
  live_out_done(&other);
}

/* Only a run that was fired as FIXED_DELAY tells its end to the trigger: no other may be waited for. */
static void scheduled_is_fixed_delay(void **state) {
  (void)state;
  open_run(key(1, 7, 0), EVERY("1s"), true);
  open_run(key(1, 8, 0), DELAY("1s"), true);
  open_run(key(1, 9, 5), DELAY("1s"), true);
  assert_false(live_has_scheduled(l, 7));
  assert_true(live_has_scheduled(l, 8));
  assert_false(live_has_scheduled(l, 9));
  event(key(1, 8, 0), EV_DONE_OK, NOW + 1);
  assert_int_equal(out.progress_count, 1);
  live_settle(l, &out);
  assert_false(live_has_scheduled(l, 8));
}

/* Before a stop: what was accepted a moment ago is written, so that it is not delivered again. */
static void running_is_written_before_a_stop(void **state) {
  (void)state;
  open_run(key(1, 7, 0), MANUAL, false);
  open_run(key(1, 8, 0), MANUAL, false);
  event(key(1, 7, 0), EV_ACCEPT, NOW + 1);
  live_write_running(l, -1, NOW + 2, &out);
  assert_int_equal(out.updates_count, 1);
  assert_int_equal(out.updates[0].state, RUN_RUNNING);
  assert_int_equal(out.updates[0].key.task_id, 7);
}

/* What a delivery met on its way is no error of the run once an executor has it. */
static void troubles_of_the_delivery_are_forgotten(void **state) {
  (void)state;
  static const enum run_event troubles[] = {EV_BUSY, EV_NO_EXECUTOR, EV_UNREACHABLE};
  for (int i = 0; i < 3; i++) {
    struct live_event ev = {.kind = troubles[i],
                            .key = {1, NOW, 7 + i, 0},
                            .error_type = SLICE("T"),
                            .error_message = SLICE("nobody"),
                            .progress = -1};
    open_run(key(1, 7 + i, 0), MANUAL, false);
    live_event(l, &ev, NOW + 1, &out);
    event(key(1, 7 + i, 0), EV_ACCEPT, NOW + 2);
  }
  live_write_running(l, -1, NOW + 3, &out);
  assert_int_equal(out.updates_count, 3);
  for (int i = 0; i < 3; i++)
    assert_true(!out.updates[i].error_type.p && !out.updates[i].error_message.p);
}

/* And who may have what was sent and not answered: the next owner asks that one. */
static void the_holder_is_written_before_a_stop(void **state) {
  (void)state;
  struct run_key sent = key(1, 7, 0), unreached = key(1, 8, 0);
  open_run(sent, MANUAL, false);
  open_run(unreached, MANUAL, false);
  open_run(key(1, 9, 0), MANUAL, false);
  assert_true(live_sending(l, &sent, 1, &(struct live_place){SLICE("x"), 0, NULL}));
  assert_true(live_sending(l, &unreached, 1, &(struct live_place){SLICE("y"), 0, NULL}));
  event(unreached, EV_UNREACHABLE, NOW + 1);
  live_write_running(l, -1, NOW + 2, &out);
  assert_int_equal(out.updates_count, 1);
  const struct run_update *u = &out.updates[0];
  assert_true(run_key_eq(&u->key, &sent) && u->state == RUN_PENDING && u->reason == REASON_DISPATCHING);
  assert_true(slice_eqz(u->executor, "x"));
  struct run_row row = {.key = key(1, 10, 0),
                        .state = RUN_PENDING,
                        .reason = REASON_DISPATCHING,
                        .attempt = 1,
                        .executor = u->executor};
  struct task_spec *spec = spec_of(MANUAL, "");
  size_t before = out.dispatches_count;
  assert_true(live_open(l, &row, spec, true, NOW + 3, &out));
  task_spec_unref(&spec);
  assert_int_equal(out.dispatches_count, before + 1);
  assert_string_equal(out.dispatches[before].holder, "x");
}

/* An executor registered anew: only what its former incarnation holds is lost, not what the new one got meanwhile. */
static void lost_before_registered_anew(void **state) {
  (void)state;
  open_run(key(1, 7, 0), MANUAL, false);
  open_run(key(1, 8, 0), MANUAL, false);
  assert_true(live_sending(l, &(struct run_key){1, NOW, 7, 0}, 1, &(struct live_place){SLICE("x"), 0, NULL}));
  uint64_t sends = live_sends(l);
  assert_true(live_sending(l, &(struct run_key){1, NOW, 8, 0}, 1, &(struct live_place){SLICE("x"), 0, NULL}));
  struct live_event lost = {
      .executor = SLICE("x"), .ns = SLICE("default"), .group = SLICE("g"), .progress = -1};
  live_executor_lost(l, &lost, sends, NOW + 1, &out);
  assert_int_equal(out.finishes_count, 1);
  assert_int_equal(out.finishes[0].key.task_id, 7);
  live_settle(l, &out);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(drop_between_step_and_settle, setup, teardown),
      cmocka_unit_test_setup_teardown(dropped_and_back_before_settle, setup, teardown),
      cmocka_unit_test_setup_teardown(scheduled_is_fixed_delay, setup, teardown),
      cmocka_unit_test_setup_teardown(running_is_written_before_a_stop, setup, teardown),
      cmocka_unit_test_setup_teardown(troubles_of_the_delivery_are_forgotten, setup, teardown),
      cmocka_unit_test_setup_teardown(the_holder_is_written_before_a_stop, setup, teardown),
      cmocka_unit_test_setup_teardown(lost_before_registered_anew, setup, teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
