/* The open runs, turn by turn: timers of every phase, the queue, what is written and when, cancels, slots, take-over. */
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

static const char *const RETRIES =
    ",\"retry\":{\"max_attempts\":3,\"initial_interval\":\"1s\",\"jitter\":0},\"dispatch_timeout\":\"5s\","
    "\"attempt_timeout\":\"20s\","
    "\"timeout\":\"100s\",\"cancel_timeout\":\"3s\",\"heartbeat_timeout\":\"10s\"";

static struct task_spec *asks; /* the spec of those that are decided alone */

static int setup(void **state) {
  (void)state;
  specs_open();
  l = live_new(&(struct live_limits){2 * SEC, 2 * SEC}, 1);
  asks = spec_of(MANUAL, "");
  return 0;
}

static int teardown(void **state) {
  (void)state;
  live_out_done(&out);
  live_free(&l);
  live_free(&l); /* nothing to free */
  task_spec_unref(&asks);
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

static enum overlap_decision decide(int64_t task, enum overlap_policy policy) {
  return decide_of(task, asks, policy);
}

static void undecide(int64_t task, bool queued) { live_undecide(l, task, asks, queued); }

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

static void adopt(struct run_key k, enum run_state state, enum run_reason reason, usec_t not_before) {
  struct task_spec *s = spec_of(MANUAL, RETRIES);
  struct run_row row = row_of(k, state, reason);
  row.not_before = not_before;
  row.executor = SLICE("x");
  assert_true(live_open(l, &row, s, true, NOW, &out));
  assert_false(live_open(l, &row, s, true, NOW, &out)); /* here already */
  task_spec_unref(&s);
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

static void test_life(void **state) {
  (void)state;
  struct run_key k = key(1, 0);
  assert_int_equal(fire(k, OVERLAP_SKIP, RETRIES), REASON_DISPATCHING);
  assert_int_equal(out.dispatches_count, 1);
  assert_int_equal(out.dispatches[0].attempt, 1);
  assert_true(out.dispatches[0].deadline == NOW + 20 * SEC);
  live_out_clear(&out);
  assert_true(live_wanted(l, &k, 1));
  assert_false(live_wanted(l, &k, 2));
  send_to_x(k, 1, &slots[0]);
  struct live_event e = ev(k, EV_ACCEPT);
  e.attempt = 1;
  assert_int_equal(tell(e, NOW + 1), LIVE_RECORDED);
  assert_false(live_out_writes(&out)); /* RUNNING waits */
  assert_int_equal(live_count_phase(l, PHASE_ACCEPTED), 1);
  assert_false(live_wanted(l, &k, 1));
  assert_true(live_next_wake(l) == NOW + 2 * SEC);
  assert_false(live_tick(l, NOW + 2 * SEC, 10, &out));
  assert_int_equal(out.updates_count, 1);
  assert_int_equal(out.updates[0].state, RUN_RUNNING);
  assert_int_equal(out.updates[0].seen_state, RUN_PENDING);
  assert_int_equal(out.updates[0].seen_reason, REASON_DISPATCHING);
  settle();
  e = ev(k, EV_BEAT);
  e.progress = .25;
  assert_int_equal(tell(e, NOW + 3 * SEC), LIVE_RECORDED); /* a new phase is written */
  settle();
  e.progress = .5;
  (void)tell(e, NOW + 4 * SEC);
  assert_int_equal(out.updates_count, 0); /* progress is written every two seconds */
  e.progress = .75;
  (void)tell(e, NOW + 5 * SEC);
  (void)tell(e, NOW + 7 * SEC);
  assert_int_equal(out.updates_count, 1); /* one row a run and turn */
  assert_true(out.updates[0].progress > .74);
  e = ev(k, EV_DONE_OK);
  e.attempt = 1;
  e.result = SLICE("{\"r\":1}");
  e.finished_at = NOW + 6 * SEC;
  assert_int_equal(tell(e, NOW + 8 * SEC), LIVE_RECORDED);
  assert_int_equal(out.updates_count, 0); /* not needed any more */
  assert_int_equal(out.finishes_count, 1);
  assert_int_equal(out.finishes[0].state, RUN_SUCCESS);
  assert_true(out.finishes[0].finished_at == NOW + 6 * SEC);
  assert_int_equal(out.finishes[0].seen_attempt, 1);
  assert_int_equal(out.attempts_count, 0); /* one attempt without an error: the run's row says all */
  assert_int_equal(out.releases_count, 1);
  assert_ptr_equal(out.releases[0].slot, &slots[0]);
  assert_int_equal(out.done_count, 1);
  assert_int_equal(tell(e, NOW + 8 * SEC), LIVE_LATE); /* ended in this very turn */
  settle();
  assert_int_equal(tell(e, NOW + 9 * SEC), LIVE_LATE);
  assert_int_equal(live_count(l), 0);
  assert_true(live_next_wake(l) == USEC_NEVER);
}

/* Whoever waited in the queue until its time was up has expired, even when its turn comes at that very moment: it was never delivered. */
static void test_expired_when_its_turn_comes(void **state) {
  (void)state;
  (void)fire(key(1, 1), OVERLAP_QUEUE_ALL, ",\"timeout\":\"1h\"");
  (void)fire(key(1, 2), OVERLAP_QUEUE_ALL, ",\"timeout\":\"100s\"");
  (void)fire(key(1, 3), OVERLAP_QUEUE_ALL, ",\"timeout\":\"100s\"");
  (void)fire(key(1, 4), OVERLAP_QUEUE_ALL, ",\"timeout\":\"1h\"");
  live_out_clear(&out);
  (void)tell(ev(key(1, 1), EV_DONE_OK), NOW + 100 * SEC);
  assert_false(live_tick(l, NOW + 100 * SEC, 10, &out));
  assert_int_equal(out.finishes_count, 3);
  for (size_t i = 1; i < 3; i++) {
    assert_int_equal(out.finishes[i].key.part, i + 1);
    assert_int_equal(out.finishes[i].reason, REASON_EXPIRED);
    assert_int_equal(out.finishes[i].seen_attempt, 0);
  }
  assert_int_equal(out.attempts_count, 0);
  assert_int_equal(out.dispatches_count, 1);
  assert_int_equal(out.dispatches[0].key.part, 4);
  settle();
  assert_int_equal(live_count(l), 1);
  assert_int_equal(live_count_phase(l, PHASE_QUEUED), 0);
}

static void test_answers(void **state) {
  (void)state;
  struct run_key k = key(1, 0);
  (void)fire(k, OVERLAP_SKIP, RETRIES);
  struct live_event e = ev(k, EV_DONE_OK);
  e.attempt = 2;
  assert_int_equal(tell(e, NOW), LIVE_LATE); /* another attempt */
  e.attempt = 1;
  e.ns = SLICE("elsewhere");
  assert_int_equal(tell(e, NOW), LIVE_FORBIDDEN);
  e.ns = SLICE("default");
  e.group = SLICE("others");
  assert_int_equal(tell(e, NOW), LIVE_FORBIDDEN);
  assert_int_equal(tell(ev(k, EV_CANCEL), NOW), LIVE_RECORDED);
  assert_int_equal(out.finishes[0].state, RUN_CANCELLED); /* surely nothing was sent */
  live_event(l, &(struct live_event){.kind = EV_ACCEPT, .key = key(9, 9)}, NOW,
             &out); /* nobody waits for the answer */
  settle();
}

/* Failed attempts get rows; the next one waits, and ends as the last reason says. */
static void test_retry(void **state) {
  (void)state;
  struct run_key k = key(1, 0);
  (void)fire(k, OVERLAP_SKIP, RETRIES);
  send_to_x(k, 1, &slots[0]);
  struct live_event e = ev(k, EV_DONE_FAIL);
  e.error_type = SLICE("io");
  e.error_message = SLICE("no");
  assert_int_equal(tell(e, NOW + SEC), LIVE_RECORDED);
  assert_int_equal(out.attempts_count, 1);
  assert_int_equal(out.attempts[0].reason, REASON_ERROR);
  assert_true(slice_eqz(out.attempts[0].error_type, "io") && slice_eqz(out.attempts[0].executor, "x"));
  assert_int_equal(out.updates[0].reason, REASON_RETRY_WAIT);
  assert_true(out.updates[0].not_before == NOW + 2 * SEC);
  assert_int_equal(out.releases_count, 1);
  settle();
  assert_false(live_tick(l, NOW + 2 * SEC - 1, 10, &out));
  assert_int_equal(out.dispatches_count, 0);
  (void)live_tick(l, NOW + 2 * SEC, 10, &out);
  assert_int_equal(out.dispatches[0].attempt, 2);
  assert_int_equal(out.updates[0].attempt, 2);
  assert_int_equal(out.updates[0].seen_attempt, 1);
  settle();
  (void)live_tick(l, NOW + 7 * SEC, 10, &out); /* nobody accepted it */
  assert_int_equal(out.attempts[0].reason, REASON_NO_EXECUTOR);
  settle();
  (void)live_tick(l, NOW + 9 * SEC, 10, &out);
  settle();
  send_to_x(k, 3, &slots[1]);
  (void)tell(ev(k, EV_ACCEPT), NOW + 10 * SEC);
  assert_int_equal(tell(ev(k, EV_ACCEPT), NOW + 10 * SEC), LIVE_RECORDED); /* again */
  settle();
  (void)live_tick(l, NOW + 19 * SEC, 10, &out); /* writes RUNNING */
  settle();
  (void)live_tick(l, NOW + 20 * SEC, 10, &out); /* its beats stopped */
  assert_int_equal(out.finishes[0].state, RUN_FAIL);
  assert_int_equal(out.finishes[0].reason, REASON_TIMEOUT);
  assert_int_equal(out.cancels_count, 1);
  assert_string_equal(out.cancels[0].executor, "x");
  assert_ptr_equal(out.releases[0].slot, &slots[1]);
  settle();
  assert_int_equal(live_count(l), 0);
}

static void test_delivery_troubles(void **state) {
  (void)state;
  static const struct {
    enum run_event trouble;
    enum run_reason reason;
  } cases[] = {{EV_BUSY, REASON_REJECTED},
               {EV_UNREACHABLE, REASON_NO_EXECUTOR},
               {EV_NO_EXECUTOR, REASON_NO_EXECUTOR},
               {EV_ACK_LOST, REASON_LOST}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct run_key k = key(1, (int32_t)i);
    (void)fire(k, OVERLAP_ALLOW, RETRIES);
    live_out_clear(&out);
    send_to_x(k, 1, &slots[0]);
    assert_int_equal(tell(ev(k, cases[i].trouble), NOW + 1), LIVE_RECORDED);
    assert_ptr_equal(live_take_slot(l, &k, 1), &slots[0]);
    assert_null(live_take_slot(l, &k, 1)); /* once */
    assert_null(live_take_slot(l, &k, 2));
    (void)live_tick(l, NOW + 5 * SEC, 10, &out);
    assert_int_equal(out.attempts[0].reason, cases[i].reason);
    assert_int_equal(out.cancels_count,
                     cases[i].trouble == EV_ACK_LOST || cases[i].trouble == EV_NO_EXECUTOR);
    assert_int_equal(out.releases_count, 0);
    settle();
    assert_int_equal(tell(ev(k, EV_CANCEL), NOW + 5 * SEC), LIVE_RECORDED); /* between attempts: at once */
    assert_int_equal(out.finishes[0].state, RUN_CANCELLED);
    settle();
  }
  struct run_key k = key(2, 0);
  (void)fire(k, OVERLAP_ALLOW, ",\"retry\":{\"max_attempts\":1}");
  (void)tell(ev(k, EV_REFUSE), NOW + 1);
  assert_int_equal(out.finishes[0].reason, REASON_REJECTED);
  settle();
}

static void test_whole_run_timeout(void **state) {
  (void)state;
  (void)fire(key(1, 1), OVERLAP_SKIP, RETRIES);
  live_out_clear(&out);
  (void)tell(ev(key(1, 1), EV_ACCEPT), NOW + 1);
  assert_int_equal(decide(2, OVERLAP_QUEUE_ALL), OVERLAP_DO_START); /* whose FIRE is under way */
  assert_int_equal(fire(key(2, 2), OVERLAP_QUEUE_ALL, RETRIES), REASON_QUEUED);
  adopt(key(3, 3), RUN_PENDING, REASON_SCHEDULED, NOW + 200 * SEC);
  assert_false(live_tick(l, NOW + 100 * SEC, 10, &out));
  assert_int_equal(out.finishes_count, 3);
  for (int i = 0; i < 3; i++)
    assert_int_equal(out.finishes[i].reason, out.finishes[i].key.part == 1 ? REASON_TIMEOUT : REASON_EXPIRED);
  settle();
  assert_int_equal(live_count(l), 0);
  undecide(2, false);
}

/* First come, first served, each in the transaction that ends the one before. */
static void test_queue(void **state) {
  (void)state;
  assert_int_equal(fire(key(1, 1), OVERLAP_QUEUE_ALL, RETRIES), REASON_DISPATCHING);
  for (int i = 2; i <= 4; i++)
    assert_int_equal(fire(key(1, i), OVERLAP_QUEUE_ALL, RETRIES), REASON_QUEUED);
  assert_int_equal(fire(key(1, 5), OVERLAP_QUEUE_ONE, RETRIES), REASON_OVERLAP);
  assert_int_equal(live_count_phase(l, PHASE_QUEUED), 3);
  live_out_clear(&out);
  assert_int_equal(tell(ev(key(1, 3), EV_CANCEL), NOW + 1), LIVE_RECORDED); /* out of the middle */
  settle();
  static const int32_t next[] = {2, 4};
  int32_t now_running = 1;
  for (int i = 0; i < 2; i++) {
    (void)tell(ev(key(1, now_running), EV_DONE_OK), NOW + 2 + i);
    assert_int_equal(out.finishes_count, 1);
    assert_int_equal(out.updates_count, 1);
    assert_int_equal(out.updates[0].key.part, next[i]);
    assert_int_equal(out.updates[0].attempt, 1);
    assert_int_equal(out.dispatches_count, 1);
    assert_int_equal(decide(1, OVERLAP_SKIP), OVERLAP_DO_SKIP);
    settle();
    now_running = next[i];
  }
  (void)tell(ev(key(1, 4), EV_DONE_OK), NOW + 9);
  settle();
  assert_int_equal(decide(1, OVERLAP_SKIP), OVERLAP_DO_START);
  undecide(1, false);
  assert_int_equal(decide(1, OVERLAP_SKIP), OVERLAP_DO_START); /* given back */
  undecide(1, false);
}

/* Whoever waits for a reservation that is given back is woken. */
static void test_undecide_wakes(void **state) {
  (void)state;
  assert_int_equal(decide(1, OVERLAP_QUEUE_ALL), OVERLAP_DO_START);
  assert_int_equal(fire(key(1, 2), OVERLAP_QUEUE_ALL, RETRIES), REASON_QUEUED);
  assert_int_equal(decide(1, OVERLAP_QUEUE_ALL), OVERLAP_DO_QUEUE);
  undecide(1, true);
  (void)live_tick(l, NOW, 10, &out);
  assert_int_equal(out.dispatches_count, 0);
  undecide(1, false);
  (void)live_tick(l, NOW, 10, &out);
  assert_int_equal(out.dispatches_count, 1);
  settle();
}

/* Caught-up runs wait for their release, then for the others. */
static void test_scheduled(void **state) {
  (void)state;
  for (int i = 1; i <= 3; i++)
    adopt(key(1, i), RUN_PENDING, REASON_SCHEDULED, NOW + i * SEC);
  assert_int_equal(decide(1, OVERLAP_SKIP), OVERLAP_DO_START); /* they do not count yet */
  undecide(1, false);
  assert_true(live_next_wake(l) == NOW + SEC);
  (void)live_tick(l, NOW + 2 * SEC, 10, &out);
  assert_int_equal(out.dispatches_count, 1);
  assert_int_equal(out.updates_count, 2);
  assert_int_equal(live_count_phase(l, PHASE_QUEUED), 1);
  settle();
  assert_int_equal(tell(ev(key(1, 3), EV_CANCEL), NOW + 2 * SEC), LIVE_RECORDED);
  (void)tell(ev(key(1, 1), EV_DONE_OK), NOW + 3 * SEC);
  assert_int_equal(out.finishes_count, 2);
  assert_int_equal(out.dispatches_count, 1);
  settle();
}

static void test_cancel_running(void **state) {
  (void)state;
  struct run_key k = key(1, 0);
  (void)fire(k, OVERLAP_SKIP, RETRIES);
  live_out_clear(&out);
  send_to_x(k, 1, &slots[0]);
  assert_int_equal(tell(ev(k, EV_CANCEL), NOW + 1), LIVE_RECORDED); /* it may have been received */
  assert_int_equal(out.cancels_count, 1);
  assert_int_equal(out.updates[0].reason, REASON_CANCELLING);
  settle();
  assert_int_equal(tell(ev(k, EV_CANCEL), NOW + 2), LIVE_RECORDED); /* again: it is on its way */
  assert_false(live_out_writes(&out));
  assert_int_equal(tell(ev(k, EV_BEAT), NOW + 3), LIVE_RECORDED);
  settle();
  (void)live_tick(l, NOW + 1 + 3 * SEC, 10, &out);
  assert_int_equal(out.finishes[0].state, RUN_CANCELLED);
  assert_ptr_equal(out.releases[0].slot, &slots[0]);
  settle();
  k = key(1, 1);
  (void)fire(k, OVERLAP_SKIP, RETRIES);
  send_to_x(k, 1, NULL);
  (void)tell(ev(k, EV_ACCEPT), NOW + 4 * SEC);
  (void)tell(ev(k, EV_CANCEL), NOW + 4 * SEC);
  settle();
  (void)tell(ev(k, EV_DONE_CANCELLED), NOW + 5 * SEC);
  assert_int_equal(out.finishes[0].state, RUN_CANCELLED);
  settle();
}

static void test_take_over(void **state) {
  (void)state;
  adopt(key(1, 1), RUN_PENDING, REASON_DISPATCHING, 0);
  assert_int_equal(out.dispatches_count, 1); /* delivered again */
  adopt(key(1, 2), RUN_PENDING, REASON_QUEUED, 0);
  adopt(key(2, 1), RUN_RUNNING, REASON_PROGRESS, 0);
  adopt(key(3, 1), RUN_PENDING, REASON_RETRY_WAIT, NOW + SEC);
  adopt(key(4, 1), RUN_RUNNING, REASON_CANCELLING, 0);
  assert_int_equal(live_count(l), 5);
  assert_int_equal(decide(1, OVERLAP_QUEUE_ONE), OVERLAP_DO_SKIP);
  assert_int_equal(decide(2, OVERLAP_SKIP), OVERLAP_DO_SKIP);
  assert_true(live_adopt_slot(l, &(struct run_key){2, NOW, 2, 1}, 1, &slots[0]));
  assert_false(live_adopt_slot(l, &(struct run_key){2, NOW, 7, 1}, 1, &slots[1]));
  size_t n = 0;
  struct run_key *keys = live_keys_of_task(l, 1, &n);
  assert_int_equal(n, 2);
  mem_free(keys);
  keys = live_keys_of_shard(l, 2, &n);
  assert_int_equal(n, 5);
  mem_free(keys);
  settle();
  (void)live_tick(l, NOW + SEC, 10, &out);
  assert_int_equal(out.dispatches_count, 1);
  assert_int_equal(out.dispatches[0].attempt, 2);
  settle();
  assert_int_equal(tell(ev(key(1, 1), EV_CANCEL), NOW + SEC), LIVE_RECORDED); /* it may run out there */
  assert_int_equal(out.cancels_count, 1);
  settle();
  struct live_event lost = {
      .executor = SLICE("x"), .ns = SLICE("default"), .group = SLICE("g"), .progress = -1};
  live_executor_lost(l, &lost, live_sends(l), NOW + 2 * SEC, &out);
  assert_int_equal(out.finishes_count, 2); /* both that were being cancelled */
  assert_int_equal(out.attempts_count, 1);
  assert_int_equal(out.attempts[0].reason, REASON_LOST);
  assert_int_equal(out.releases_count, 1);
  settle();
  live_drop_shard(l, 2, &out);
  assert_int_equal(live_count(l), 0);
  assert_int_equal(decide(1, OVERLAP_SKIP), OVERLAP_DO_START);
  undecide(1, false);
  live_out_clear(&out);
}

/* A FIRE and a take-over brought the same run: its reservation goes back. */
static void test_opened_twice(void **state) {
  (void)state;
  adopt(key(1, 1), RUN_PENDING, REASON_QUEUED, 0);
  assert_int_equal(decide(1, OVERLAP_QUEUE_ALL), OVERLAP_DO_QUEUE);
  struct task_spec *s = spec_of(MANUAL, RETRIES);
  struct run_row row = row_of(key(1, 1), RUN_PENDING, REASON_QUEUED);
  assert_false(live_open(l, &row, s, false, NOW, &out));
  task_spec_unref(&s);
  (void)live_tick(l, NOW, 10, &out); /* nobody is before it */
  assert_int_equal(out.dispatches_count, 1);
  settle();
  (void)tell(ev(key(1, 1), EV_DONE_OK), NOW + 1);
  settle();
  assert_int_equal(decide(1, OVERLAP_SKIP), OVERLAP_DO_START);
  undecide(1, false);
}

/* Many timers at once come in portions, none is lost; a slot is with its attempt until the end. */
static void test_many(void **state) {
  (void)state;
  enum { MANY = 300 };
  for (int i = 1; i <= MANY; i++) {
    (void)fire(key(i, i % 7), OVERLAP_SKIP, ",\"dispatch_timeout\":\"5s\"");
    assert_true(live_sending(l, &(struct run_key){2, NOW, i, i % 7}, 1,
                             &(struct live_place){SLICE("x"), 0, &slots[0]}));
  }
  live_out_clear(&out);
  size_t ended = 0, released = 0;
  for (int turn = 0; turn < MANY; turn++) {
    bool more = live_tick(l, NOW + 5 * SEC, 7, &out);
    assert_true(out.finishes_count <= 7);
    ended += out.finishes_count;
    released += out.releases_count;
    settle();
    if (!more)
      break;
  }
  assert_int_equal(ended, MANY);
  assert_int_equal(released, MANY);
  assert_int_equal(live_count(l), 0);
  live_out_answer(&out, &token, LIVE_UNKNOWN);
  assert_int_equal(out.answers_count, 1);
}

/* Two runs with rows in one turn, the first of which ends: the other's row stays. */
static void test_update_dropped_keeps_the_others(void **state) {
  (void)state;
  for (int i = 1; i <= 3; i++) {
    (void)fire(key(i, 0), OVERLAP_SKIP, RETRIES);
    (void)tell(ev(key(i, 0), EV_ACCEPT), NOW + 1);
  }
  live_out_clear(&out);
  (void)live_tick(l, NOW + 2 * SEC, 10, &out);
  assert_int_equal(out.updates_count, 3);
  (void)tell(ev(key(1, 0), EV_DONE_OK), NOW + 2 * SEC);
  assert_int_equal(out.updates_count, 2);
  for (size_t i = 0; i < 2; i++)
    assert_int_not_equal(out.updates[i].key.task_id, 1);
  settle();
  (void)tell(ev(key(3, 0), EV_DONE_OK), NOW + 3 * SEC);
  assert_int_equal(out.finishes_count, 1);
  settle();
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
  const struct CMUnitTest tests[] = {TEST(test_life),
                                     TEST(test_answers),
                                     TEST(test_retry),
                                     TEST(test_delivery_troubles),
                                     TEST(test_whole_run_timeout),
                                     TEST(test_expired_when_its_turn_comes),
                                     TEST(test_queue),
                                     TEST(test_undecide_wakes),
                                     TEST(test_scheduled),
                                     TEST(test_cancel_running),
                                     TEST(test_take_over),
                                     TEST(test_opened_twice),
                                     TEST(test_many),
                                     TEST(test_update_dropped_keeps_the_others)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
