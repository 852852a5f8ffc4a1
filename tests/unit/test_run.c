/* The run writer and its database: a refused row, a shard lost to another owner, a stop while the database is away. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/thread.h"
#include "run/service.h"
#include "spec_util.h"
#include "store_util.h"

enum { RUNS = 40, POISON = 17 };
#define DEFINITION "{\"executor_group\":\"g\",\"handler\":\"h\",\"schedule\":{\"kind\":\"MANUAL\"}}"
#define RETRIES                                                                                              \
  "{\"executor_group\":\"g\",\"handler\":\"h\",\"retry\":{\"initial_interval\":\"5m\",\"max_attempts\":3},"  \
  "\"schedule\":{\"kind\":\"MANUAL\"}}"
static const char *definition;

static struct test_store t;
static struct err e;
static struct arena mem;
static struct run_service *runs;
static struct task_version_row task;
static int64_t epoch;
static _Atomic int delivered, lost;
static enum overlap_policy policy;

/* A database that refuses one text, or everything, or is away. */
static struct {
  struct store base;
  struct store_ops ops;
  struct store *real;
  _Atomic int refuse; /* 0 nothing, 1 the text POISON, 2 also the run without it, 3 away */
  _Atomic int calls;
  _Atomic int away_at; /* this call finds it away; 0: none */
  int part;            /* of the run that is refused */
} bad;

static int bad_run_apply(struct store *s, const struct st_run_apply *in, struct st_run_apply_ret *ret,
                         struct arena *m, struct err *err) {
  (void)s;
  bad.calls++;
  if (bad.refuse == 3 || bad.calls == bad.away_at)
    return err_set(err, ERR_UNAVAILABLE, "away");
  for (size_t i = 0; i < in->finish_count; i++)
    if ((bad.refuse && slice_eqz(in->finishes[i].result, "POISON")) ||
        (bad.refuse == 2 && in->finishes[i].key.part == bad.part))
      return err_set(err, ERR_INVALID, "invalid byte sequence");
  for (size_t i = 0; bad.refuse && i < in->attempt_count; i++)
    if (slice_eqz(in->attempts[i].error_message, "POISON"))
      return err_set(err, ERR_INVALID, "invalid byte sequence");
  return store_run_apply(bad.real, in, ret, m, err);
}
static void bad_close(struct store *s) {
  (void)s;
  store_close(&bad.real);
}

static usec_t now(void *arg) {
  (void)arg;
  return test_wall(&test_clock);
}
static void on_deliver(void *arg, struct run_job *jobs) {
  (void)arg;
  for (struct run_job *next; jobs; jobs = next) {
    next = jobs->next;
    delivered++;
    run_job_free(&jobs);
  }
}
static void on_cancel(void *arg, const struct live_cancel *c, int64_t fence) {
  (void)arg, (void)c, (void)fence;
}
static void on_release(void *arg, void *slot) { (void)arg, (void)slot; }
static void on_delay(void *arg, const struct progress_row *p) { (void)arg, (void)p; }
static void on_lost(void *arg, int32_t shard, int64_t at) {
  (void)arg;
  assert_int_equal(shard, task.shard);
  assert_int_equal(at, epoch);
  lost++;
}

static void claim(const char *node) {
  struct st_node_join_ret j;
  struct st_shard_claim_ret c;
  OK(store_node_join(t.store, &(struct st_node_join){.id = slice_of(node), .ttl = USEC_PER_SEC}, &j, &mem,
                     &e));
  const struct slice dead[] = {SLICE("n1")};
  OK(store_shard_claim(t.store,
                       &(struct st_shard_claim){.node = slice_of(node),
                                                .incarnation = j.incarnation,
                                                .ids = &task.shard,
                                                .count = 1,
                                                .dead = dead,
                                                .dead_count = 1},
                       &c, &mem, &e));
  assert_int_equal(c.count, 1);
  epoch = strcmp(node, "n1") == 0 ? c.shards[0].epoch : epoch;
}

static int setup(void **state) {
  (void)state;
  test_ahead = 0;
  delivered = lost = 0;
  definition = DEFINITION;
  memset(&bad, 0, sizeof bad);
  bad.part = POISON;
  policy = OVERLAP_ALLOW;
  test_store_open(&t);
  struct task_def def = {.ns = SLICE("default"),
                         .name = SLICE("t"),
                         .definition = SLICE(DEFINITION),
                         .group = SLICE("g"),
                         .handler = SLICE("h"),
                         .schedule_text = SLICE(""),
                         .kind = SCHEDULE_MANUAL};
  struct st_task_put_ret put;
  OK(store_task_put(t.store, &(struct st_task_put){.defs = &def, .count = 1, .by = SLICE("me")}, &put, &mem,
                    &e));
  task = put.rows[0];
  claim("n1");
  OK(store_session(t.source, STORE_FINISH, &bad.real, &e));
  bad.ops = *bad.real->ops;
  bad.ops.run_apply = bad_run_apply;
  bad.ops.close = bad_close;
  bad.base.ops = &bad.ops;
  struct run_options o;
  run_options_default(&o);
  o.finish = &bad.base;
  o.api = t.store;
  o.now = now;
  o.shard_count = 4;
  o.hooks = (struct run_hooks){on_deliver, on_cancel, on_release, on_delay, on_lost, NULL, NULL};
  OK(run_service_new(&o, &runs, &e));
  specs_open();
  return 0;
}

static int teardown(void **state) {
  (void)state;
  run_service_free(&runs);
  specs_close();
  arena_done(&mem);
  test_store_close(&t);
  return 0;
}

static struct run_key key(int part) {
  return (struct run_key){task.shard, task.effective_at + 1, task.task_id, part};
}

/* FIRE a number of runs and hand them to the service. Those that must wait for others, wait. */
static void fire(int count) {
  OK(run_adopt(runs, t.store, task.shard, epoch, specs, &e));
  struct st_shard_list_ret list;
  OK(store_shard_list(t.store, &(struct st_shard_list){0}, &list, &mem, &e));
  const struct shard_row *s = &list.shards[task.shard];
  struct run_row rows[RUNS + 1];
  struct task_spec *spec[RUNS + 1];
  int waiting = 0;
  for (int i = 0; i < count; i++) {
    rows[i] = (struct run_row){.key = key(i + 1),
                               .version = 1,
                               .state = RUN_PENDING,
                               .reason = REASON_DISPATCHING,
                               .origin = ORIGIN_API,
                               .attempt = 1,
                               .fired_at = now(NULL),
                               .attempt_at = now(NULL),
                               .progress = -1};
    OK(spec_cache_get(specs, slice_of(definition), &spec[i], &e));
    struct live *l = run_decide_begin(runs);
    enum overlap_decision d = live_decide(
        l,
        &(struct overlap_ask){.task_id = task.task_id, .spec = spec[i], .policy = policy, .now = now(NULL)});
    run_decide_end(runs);
    assert_int_equal(d, policy == OVERLAP_ALLOW || i == 0 ? OVERLAP_DO_START : OVERLAP_DO_QUEUE);
    if (d == OVERLAP_DO_QUEUE) {
      rows[i].reason = REASON_QUEUED;
      rows[i].attempt = 0;
      rows[i].attempt_at = 0;
      waiting++;
    }
  }
  struct fire_shard f = {s->id, s->epoch, s->tasks_version, s->fired_at, s->fired_task, now(NULL), INT64_MAX};
  struct st_fire_ret fired;
  OK(store_fire(
      t.store,
      &(struct st_fire){
          .shards = &f, .shard_count = 1, .open = rows, .open_count = (size_t)count, .ahead = USEC_PER_SEC},
      &fired, &mem, &e));
  assert_true(fired.advanced[0]);
  run_opened(runs, rows, spec, (size_t)count);
  for (int i = 0; i < count; i++)
    task_spec_unref(&spec[i]);
  assert_int_equal(delivered, count - waiting);
}

static struct {
  struct mutex m;
  struct cond c;
  int answered;
  enum run_result results[RUNS];
} told;

static void on_done(void *arg, const enum run_result *results, size_t n) {
  (void)arg;
  mutex_lock(&told.m);
  memcpy(told.results, results, n * sizeof *results);
  told.answered++;
  cond_signal(&told.c);
  mutex_unlock(&told.m);
}

static void wait_answer(void) {
  usec_t until = clock_system.mono(&clock_system) + 30 * USEC_PER_SEC;
  mutex_lock(&told.m);
  while (!told.answered && clock_system.mono(&clock_system) < until)
    (void)cond_wait(&told.c, &told.m, USEC_PER_SEC);
  assert_int_equal(told.answered, 1);
  mutex_unlock(&told.m);
}

static void report_all(void) {
  struct live_event ev[RUNS];
  for (int i = 0; i < RUNS; i++)
    ev[i] = (struct live_event){.kind = EV_DONE_OK,
                                .key = key(i + 1),
                                .attempt = 1,
                                .progress = -1,
                                .result = i + 1 == POISON ? SLICE("POISON") : SLICE("1")};
  told.answered = 0;
  OK(run_post(runs, ev, RUNS, on_done, NULL, &e));
  OK(run_service_start(runs, &e));
  wait_answer();
}

static struct run_row stored(int part) {
  struct st_run_get_ret got;
  OK(store_run_get(t.store, &(struct st_run_get){key(part)}, &got, &mem, &e));
  return got.run;
}

static void one_refused_text_stops_nobody(void **state) {
  (void)state;
  fire(RUNS);
  bad.refuse = 1;
  report_all();
  for (int i = 1; i <= RUNS; i++) {
    struct run_row r = stored(i);
    assert_int_equal(told.results[i - 1], RUN_RESULT_RECORDED);
    assert_int_equal(r.state, i == POISON ? RUN_FAIL : RUN_SUCCESS);
    assert_int_equal(r.error_type.n > 0, i == POISON);
  }
  assert_int_equal(lost, 0);
  run_service_stop(runs, USEC_PER_SEC);
}

/* Refused whatever is in it: the others are written all the same, its shard is taken over anew, the reporter comes again. */
static void one_refused_run_stops_nobody(void **state) {
  (void)state;
  fire(RUNS);
  bad.refuse = 2;
  report_all();
  for (int i = 1; i <= RUNS; i++)
    assert_int_equal(run_state_ended(stored(i).state), i != POISON);
  assert_int_equal(told.results[POISON - 1], RUN_RESULT_NOT_OWNER);
  assert_int_equal(lost, 1);
  bad.refuse = 0;
  run_disown(runs, task.shard);
  delivered = 0;
  OK(run_adopt(runs, t.store, task.shard, epoch, specs, &e));
  assert_int_equal(delivered, 1); /* the one that is still open */
  run_service_stop(runs, USEC_PER_SEC);
}

/* Nor does what waited for its end begin: with the next owner it would run beside one that has not ended. */
static void one_refused_end_lets_nothing_start(void **state) {
  (void)state;
  policy = OVERLAP_QUEUE_ONE;
  fire(2);
  bad.refuse = 2;
  bad.part = 1;
  struct live_event ev = {
      .kind = EV_DONE_OK, .key = key(1), .attempt = 1, .progress = -1, .result = SLICE("1")};
  told.answered = 0;
  OK(run_post(runs, &ev, 1, on_done, NULL, &e));
  OK(run_service_start(runs, &e));
  wait_answer();
  assert_int_equal(told.results[0], RUN_RESULT_NOT_OWNER);
  assert_int_equal(lost, 1);
  assert_false(run_state_ended(stored(1).state));
  assert_int_equal(stored(2).reason, REASON_QUEUED);
  assert_int_equal(delivered, 1);
  run_service_stop(runs, USEC_PER_SEC);
}

/* The same of attempts that will be made again: their rows, and a database that is away in between. */
static void one_refused_attempt_stops_nobody(void **state) {
  (void)state;
  definition = RETRIES;
  fire(RUNS);
  bad.refuse = 1;
  bad.away_at = 3;
  struct live_event ev[RUNS];
  for (int i = 0; i < RUNS; i++)
    ev[i] = (struct live_event){.kind = EV_DONE_FAIL,
                                .key = key(i + 1),
                                .attempt = 1,
                                .progress = -1,
                                .error_type = SLICE("Error"),
                                .error_message = i + 1 == POISON ? SLICE("POISON") : SLICE("boom")};
  told.answered = 0;
  OK(run_post(runs, ev, RUNS, on_done, NULL, &e));
  OK(run_service_start(runs, &e));
  wait_answer();
  for (int i = 1; i <= RUNS; i++) {
    struct st_attempt_list_ret attempts;
    struct run_key k = key(i);
    assert_int_equal(told.results[i - 1], RUN_RESULT_RECORDED);
    assert_int_equal(stored(i).state, RUN_PENDING);
    assert_int_equal(stored(i).reason, REASON_RETRY_WAIT);
    OK(run_attempts(runs, &k, &attempts, &mem, &e));
    assert_int_equal(attempts.count, 1);
    assert_int_equal(attempts.rows[0].error_message.n > 0, i != POISON);
  }
  assert_int_equal(lost, 0);
  run_service_stop(runs, USEC_PER_SEC);
}

/* The next attempt of a run whose shard has another owner is that owner's to deliver. */
static void nothing_is_delivered_for_a_lost_shard(void **state) {
  (void)state;
  fire(1);
  delivered = 0;
  claim("n2");
  told.answered = 0;
  struct live_event ev = {.kind = EV_DONE_OK, .key = key(1), .attempt = 1, .progress = -1};
  OK(run_post(runs, &ev, 1, on_done, NULL, &e));
  OK(run_service_start(runs, &e));
  wait_answer();
  assert_int_equal(told.results[0], RUN_RESULT_NOT_OWNER);
  assert_int_equal(lost, 1);
  assert_int_equal(delivered, 0);
  assert_int_equal(stored(1).state, RUN_PENDING);
  run_service_stop(runs, USEC_PER_SEC);
}

/* Whoever stood still between its claim and its look at the open runs sees its successor's: they are not its to deliver, for the successor
 * may not have heard yet that they were fired, and would call what they bring late. */
static void runs_of_a_successor_are_not_taken_over(void **state) {
  (void)state;
  fire(2);
  run_disown(runs, task.shard);
  delivered = 0;
  claim("n2");
  assert_int_equal(run_adopt(runs, t.store, task.shard, epoch, specs, &e), ERR_FENCED);
  assert_int_equal(delivered, 0);
  int64_t counts[3];
  usec_t ages[3];
  run_counts(runs, counts, ages);
  assert_int_equal(counts[0] + counts[1] + counts[2], 0);
  OK(run_service_start(runs, &e));
  run_service_stop(runs, USEC_PER_SEC);
}

/* Reading the open runs again while they are held opens none twice, nor one that ended meanwhile. */
static void adopting_again_opens_nothing_twice(void **state) {
  (void)state;
  fire(3);
  OK(run_adopt(runs, t.store, task.shard, epoch, specs, &e));
  assert_int_equal(delivered, 3);
  int64_t counts[3];
  usec_t ages[3];
  run_counts(runs, counts, ages);
  assert_int_equal(counts[1], 3);
  assert_true(ages[0] == 0 && ages[2] == 0 && ages[1] >= 0);
  OK(run_service_start(runs, &e));
  run_service_stop(runs, USEC_PER_SEC);
}

static void a_stop_answers_everybody(void **state) {
  (void)state;
  fire(RUNS);
  bad.refuse = 3;
  struct live_event ev = {.kind = EV_CANCEL, .key = key(1), .progress = -1};
  told.answered = 0;
  OK(run_post(runs, &ev, 1, on_done, NULL, &e));
  OK(run_service_start(runs, &e));
  usec_t until = clock_system.mono(&clock_system) + 30 * USEC_PER_SEC;
  while (!bad.calls && clock_system.mono(&clock_system) < until)
    (void)sched_yield();
  struct live_event second = {.kind = EV_CANCEL, .key = key(2), .progress = -1};
  OK(run_post(runs, &second, 1, NULL, NULL, &e)); /* stays in the queue */
  run_service_stop(runs, 0);
  assert_int_equal(told.answered, 1);
  assert_int_equal(told.results[0], RUN_RESULT_NOT_OWNER);
}

/* The queue of events is bounded: who asks is told to come again; what deliveries brought has as much room once more. */
static void no_more_is_taken_than_fits(void **state) {
  (void)state;
  enum { ROOM = 10 };
  struct live_event ev[2 * ROOM];
  for (int i = 0; i < 2 * ROOM; i++)
    ev[i] = (struct live_event){.kind = EV_BEAT, .key = key(i + 1), .attempt = 1, .progress = -1};
  runs->o.queue_max = ROOM;
  told.answered = 0;
  assert_int_equal(run_post(runs, ev, 0, on_done, NULL, &e), ERR_BUSY);
  assert_int_equal(run_post(runs, ev, ROOM + 1, on_done, NULL, &e), ERR_BUSY);
  OK(run_post(runs, ev, ROOM, on_done, NULL, &e));
  assert_int_equal(run_post(runs, ev, 1, on_done, NULL, &e), ERR_BUSY);
  OK(run_post(runs, ev, ROOM, NULL, NULL, &e));
  assert_int_equal(run_post(runs, ev, 1, NULL, NULL, &e), ERR_BUSY);
  OK(run_service_start(runs, &e));
  wait_answer();
  run_service_stop(runs, USEC_PER_SEC);
}

/* Events of shards that are not ours, or that there are not, are somebody else's. */
static void other_shards_are_not_ours(void **state) {
  (void)state;
  struct live_event ev[2] = {{.kind = EV_CANCEL, .key = key(1), .progress = -1},
                             {.kind = EV_CANCEL, .key = key(2), .progress = -1}};
  ev[0].key.shard = 4; /* of 0…3 */
  ev[1].key.shard = (task.shard + 1) % 4;
  told.answered = 0;
  OK(run_post(runs, ev, 2, on_done, NULL, &e));
  OK(run_service_start(runs, &e));
  wait_answer();
  assert_int_equal(told.results[0], RUN_RESULT_NOT_OWNER);
  assert_int_equal(told.results[1], RUN_RESULT_NOT_OWNER);
  run_service_stop(runs, USEC_PER_SEC);
}

int main(void) {
  mutex_init(&told.m);
  cond_init(&told.c);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(one_refused_text_stops_nobody, setup, teardown),
      cmocka_unit_test_setup_teardown(one_refused_run_stops_nobody, setup, teardown),
      cmocka_unit_test_setup_teardown(one_refused_end_lets_nothing_start, setup, teardown),
      cmocka_unit_test_setup_teardown(one_refused_attempt_stops_nobody, setup, teardown),
      cmocka_unit_test_setup_teardown(nothing_is_delivered_for_a_lost_shard, setup, teardown),
      cmocka_unit_test_setup_teardown(adopting_again_opens_nothing_twice, setup, teardown),
      cmocka_unit_test_setup_teardown(runs_of_a_successor_are_not_taken_over, setup, teardown),
      cmocka_unit_test_setup_teardown(a_stop_answers_everybody, setup, teardown),
      cmocka_unit_test_setup_teardown(no_more_is_taken_than_fits, setup, teardown),
      cmocka_unit_test_setup_teardown(other_shards_are_not_ours, setup, teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
