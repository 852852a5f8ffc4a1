/* What becomes of a FIRE: rows that were there already, answers that were lost, and what the others of a task may do meanwhile. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/thread.h"
#include "core/inbox.h"
#include "core/zone_set.h"
#include "store_util.h"
#include "trigger/engine.h"

#define EVERY (60 * USEC_PER_MIN)
#define IDLE  (20 * USEC_PER_SEC) /* a shard without work moves its watermark on within this */
#define DEFINITION                                                                                           \
  "{\"executor_group\":\"g\",\"handler\":\"h\",\"dispatch_timeout\":\"10m\",\"overlap_policy\":\"%s\","      \
  "\"schedule\":{\"kind\":\"%s\"%s}}"

static struct test_store t;
static struct err e;
static struct arena mem;
static struct run_service *runs;
static struct engine *engine;
static struct task_version_row task;
static struct shard_row shard;
static const char *overlap;
enum trouble { WELL, NOT_DONE, LATE /* it comes just before the next one */, DONE };
static struct { /* what was handed to the dispatcher */
  struct mutex m;
  int count;
  struct run_key last;
} delivered;

/* The trigger's session. The first FIRE with rows goes wrong as `first` says; `probes` counts how often the task was found to be taken
 * while the outcome was looked for. */
static struct {
  struct store base;
  struct store_ops ops;
  struct store *real;
  _Atomic int first; /* enum trouble */
  _Atomic int fires, probes, not_taken;
  struct run_row row;
  struct run_key watched; /* how many FIREs bring a run with this key? */
  _Atomic int brought;
} db;

static int delivered_now(void) {
  mutex_lock(&delivered.m);
  int n = delivered.count;
  mutex_unlock(&delivered.m);
  return n;
}

/* Is a place in the task's overlap taken? */
static bool is_taken(void) {
  static const struct task_spec spec = {.ns = NULL}; /* of no bounds: nothing of it is looked at */
  struct live *l = run_decide_begin(runs);
  struct overlap_ask ask = {.task_id = task.task_id, .spec = &spec, .policy = OVERLAP_SKIP, .now = 1};
  bool taken = live_decide(l, &ask) == OVERLAP_DO_SKIP;
  if (!taken)
    live_undecide(l, task.task_id, &spec, false);
  run_decide_end(runs);
  return taken;
}

static void probe(void) {
  if (db.first == WELL || !db.fires || delivered_now())
    return;
  db.probes++;
  db.not_taken += !is_taken();
}

static int db_fire(struct store *s, const struct st_fire *in, struct st_fire_ret *ret, struct arena *m,
                   struct err *err) {
  (void)s;
  probe();
  for (size_t i = 0; i < in->open_count; i++)
    db.brought += run_key_eq(&in->open[i].key, &db.watched);
  if (!in->open_count || db.first == WELL)
    return store_fire(db.real, in, ret, m, err);
  db.fires++;
  if (db.fires == 1) {
    db.row = in->open[0];
    struct st_fire_ret lost;
    if (db.first == DONE && store_fire(db.real, in, &lost, m, NULL) < 0)
      db.not_taken++;
    return err_set(err, ERR_UNKNOWN_OUTCOME, "the answer is lost");
  }
  if (db.fires == 2) /* the very same again */
    db.not_taken += !run_key_eq(&in->open[0].key, &db.row.key) || in->open[0].fired_at != db.row.fired_at ||
                    in->open[0].reason != db.row.reason;
  struct st_fire_ret earlier;
  if (db.fires == 2 && db.first == LATE && store_fire(db.real, in, &earlier, m, NULL) < 0)
    db.not_taken++;
  return store_fire(db.real, in, ret, m, err);
}

/* The others: as they are, after a look. */
#define OP(n)                                                                                                \
  static int other_##n(struct store *s, const struct st_##n *in, struct st_##n##_ret *ret, struct arena *m,  \
                       struct err *err) {                                                                    \
    (void)s;                                                                                                 \
    probe();                                                                                                 \
    return store_##n(db.real, in, ret, m, err);                                                              \
  }
#include "store/store_ops.def"
static const struct store_ops others = {
#define OP(n) .n = other_##n,
#include "store/store_ops.def"
};

static void db_close(struct store *s) {
  (void)s;
  store_close(&db.real);
}

static usec_t now(void *arg) {
  (void)arg;
  return test_wall(&test_clock);
}
static bool may_fire(void *arg) {
  (void)arg;
  return true;
}
static void on_fenced(void *arg, int32_t id, int64_t epoch) {
  (void)arg, (void)id, (void)epoch;
  db.not_taken++;
}
static void on_deliver(void *arg, struct run_job *jobs) {
  (void)arg;
  mutex_lock(&delivered.m);
  for (struct run_job *next; jobs; jobs = next) {
    next = jobs->next;
    delivered.count++;
    delivered.last = jobs->key;
    run_job_free(&jobs);
  }
  mutex_unlock(&delivered.m);
}
static void on_cancel(void *arg, const struct live_cancel *c, int64_t fence) {
  (void)arg, (void)c, (void)fence;
}
static void on_release(void *arg, void *slot) { (void)arg, (void)slot; }
static void on_delay(void *arg, const struct progress_row *p) {
  (void)arg;
  engine_delay_ended(engine, p);
}
static uint64_t no_stamp(void *arg) {
  (void)arg;
  return 0;
}

static int setup(void **state) {
  (void)state;
  test_ahead = 0;
  overlap = "SKIP";
  memset(&db, 0, sizeof db);
  delivered.count = 0;
  test_store_open(&t);
  return 0;
}

/* One task of that kind, its shard owned; nothing runs yet. */
static void make_task(const char *kind, const char *more, enum schedule_kind k) {
  struct task_def def = {.ns = SLICE("default"),
                         .name = SLICE("t"),
                         .definition = slice_of(arena_printf(&mem, DEFINITION, overlap, kind, more)),
                         .group = SLICE("g"),
                         .handler = SLICE("h"),
                         .schedule_text = SLICE(""),
                         .kind = k};
  struct st_task_put_ret put;
  OK(store_task_put(t.store, &(struct st_task_put){.defs = &def, .count = 1, .by = SLICE("me")}, &put, &mem,
                    &e));
  task = put.rows[0];
  struct st_node_join_ret j;
  struct st_shard_claim_ret c;
  OK(store_node_join(t.store, &(struct st_node_join){.id = SLICE("n1"), .ttl = USEC_PER_DAY}, &j, &mem, &e));
  OK(store_shard_claim(t.store,
                       &(struct st_shard_claim){
                           .node = SLICE("n1"), .incarnation = j.incarnation, .ids = &task.shard, .count = 1},
                       &c, &mem, &e));
  assert_int_equal(c.count, 1);
  shard = c.shards[0];
}

static void start(void) {
  OK(store_session(t.source, STORE_FIRE, &db.real, &e));
  db.ops = others;
  db.ops.fire = db_fire;
  db.ops.close = db_close;
  db.base.ops = &db.ops;
  struct run_options o;
  run_options_default(&o);
  OK(store_session(t.source, STORE_FINISH, &o.finish, &e));
  o.api = t.store;
  o.now = now;
  o.shard_count = 4;
  o.hooks = (struct run_hooks){on_deliver, on_cancel, on_release, on_delay, on_fenced, NULL, NULL};
  OK(run_service_new(&o, &runs, &e));
  OK(run_service_start(runs, &e));
  struct engine_options g;
  engine_options_default(&g);
  g.fire = &db.base;
  g.api = t.store;
  g.runs = runs;
  g.zones = zone_set_new(&(struct zone_source){.stamp = no_stamp}); /* UTC needs no file */
  g.now = now;
  g.may_fire = may_fire;
  g.fenced = on_fenced;
  g.shard_count = 4;
  g.poll = 5 * USEC_PER_MS;
  OK(engine_new(&g, &engine, &e));
  engine_own(engine, &shard);
  OK(engine_start(engine, &e));
}

static int teardown(void **state) {
  (void)state;
  engine_stop(engine);
  run_service_stop(runs, USEC_PER_SEC);
  engine_free(&engine);
  run_service_free(&runs);
  arena_done(&mem);
  test_store_close(&t);
  return 0;
}

#define WAIT_FOR(condition)                                                                                  \
  do {                                                                                                       \
    usec_t until_ = clock_system.mono(&clock_system) + 30 * USEC_PER_SEC;                                    \
    while (!(condition) && clock_system.mono(&clock_system) < until_)                                        \
      (void)sched_yield();                                                                                   \
    assert_true(condition);                                                                                  \
  } while (0)

static usec_t watermark(void) {
  struct st_shard_list_ret list;
  OK(store_shard_list(t.store, &(struct st_shard_list){0}, &list, &mem, &e));
  return list.shards[task.shard].fired_at;
}

/* The instants of the task are an hour apart; time stands a little behind the n-th. */
static usec_t instant(int n) { return task.anchor + n * EVERY; }
static void go_to(usec_t at) { test_ahead += at + USEC_PER_MS - now(NULL); }

static size_t open_count(void) {
  struct st_run_load_ret load;
  OK(store_run_load(t.store, &(struct st_run_load){.shard = task.shard, .limit = 100}, &load, &mem, &e));
  return load.count;
}

static void end_run(const struct run_key *key) {
  struct live_event ev = {.kind = EV_DONE_OK, .key = *key, .attempt = 1, .progress = -1};
  OK(run_post(runs, &ev, 1, NULL, NULL, &e));
  WAIT_FOR(open_count() == 0);
}

/* A run of that instant as an earlier version of the task fired it. */
static struct run_row put_run(usec_t scheduled_at) {
  struct run_row row = {.key = {task.shard, scheduled_at, task.task_id, 0},
                        .version = 1,
                        .state = RUN_PENDING,
                        .reason = REASON_DISPATCHING,
                        .attempt = 1,
                        .fired_at = now(NULL),
                        .attempt_at = now(NULL),
                        .progress = -1};
  struct st_shard_list_ret list;
  OK(store_shard_list(t.store, &(struct st_shard_list){0}, &list, &mem, &e));
  const struct shard_row *s = &list.shards[task.shard];
  struct fire_shard f = {s->id, s->epoch, s->tasks_version, s->fired_at, s->fired_task, now(NULL), INT64_MAX};
  struct st_fire_ret fired;
  OK(store_fire(
      t.store,
      &(struct st_fire){.shards = &f, .shard_count = 1, .open = &row, .open_count = 1, .ahead = USEC_PER_SEC},
      &fired, &mem, &e));
  assert_true(fired.advanced[0]);
  return row;
}

/* The key of a run that is in history already: nothing is delivered for it, and the next one is not held up. */
static void what_was_there_is_not_delivered(void **state) {
  (void)state;
  make_task("FIXED_RATE", ",\"every\":\"1h\"", SCHEDULE_FIXED_RATE);
  struct run_row row = put_run(instant(1));
  struct fence_row fence = {task.shard, shard.epoch};
  struct run_finish end = {
      .key = row.key, .seen_attempt = 1, .state = RUN_SUCCESS, .finished_at = now(NULL) + 5};
  struct st_run_apply_ret applied;
  OK(store_run_apply(
      t.store,
      &(struct st_run_apply){.fences = &fence, .fence_count = 1, .finishes = &end, .finish_count = 1},
      &applied, &mem, &e));
  assert_true(applied.finished[0]);
  start();
  WAIT_FOR(engine_ready(engine));
  go_to(instant(1));
  WAIT_FOR(watermark() >= instant(1));
  go_to(instant(2));
  WAIT_FOR(delivered_now() > 0);
  assert_int_equal(delivered_now(), 1);
  assert_int_equal(delivered.last.scheduled_at, instant(2));
  end_run(&delivered.last);
  WAIT_FOR(!is_taken()); /* every place was given back */
}

/* An instant that jitter makes due again while its run has not ended: FIRE is not asked, for it may begin while the end is being written,
 * and find the run neither open nor ended. */
static void what_is_open_is_not_fired_again(void **state) {
  (void)state;
  overlap = "ALLOW";
  /* the jump over the jitter leaves the run its time for delivery */
  make_task("FIXED_RATE", ",\"every\":\"1h\",\"jitter\":\"8m\"", SCHEDULE_FIXED_RATE);
  go_to(instant(1));
  struct run_row row = put_run(instant(1));
  db.watched = row.key;
  start();
  WAIT_FOR(delivered_now() == 1); /* taken over */
  go_to(instant(1) + 9 * USEC_PER_MIN);
  WAIT_FOR(watermark() >= instant(1) + 9 * USEC_PER_MIN);
  assert_int_equal(db.brought, 0);
  assert_int_equal(delivered_now(), 1);
  end_run(&row.key);
  WAIT_FOR(!is_taken()); /* every place was given back */
  go_to(instant(2) + 9 * USEC_PER_MIN);
  WAIT_FOR(delivered_now() == 2);
  assert_int_equal(delivered.last.scheduled_at, instant(2));
}

/* FIXED_DELAY goes on from the end of its run: one that was there and has ended must not be waited for. */
static void a_delay_goes_on_from_what_was_there(void **state) {
  (void)state;
  make_task("FIXED_DELAY", ",\"every\":\"1h\"", SCHEDULE_FIXED_DELAY);
  usec_t first = task.effective_at + EVERY;
  struct run_row row = put_run(first);
  struct fence_row fence = {task.shard, shard.epoch};
  struct run_finish end = {
      .key = row.key, .seen_attempt = 1, .state = RUN_SUCCESS, .finished_at = now(NULL) + 5};
  struct st_run_apply_ret applied;
  OK(store_run_apply(
      t.store,
      &(struct st_run_apply){.fences = &fence, .fence_count = 1, .finishes = &end, .finish_count = 1},
      &applied, &mem, &e));
  start();
  WAIT_FOR(engine_ready(engine));
  go_to(first);
  WAIT_FOR(watermark() >= first);
  /* The delay counts from the instant at which the engine saw what was there: the next batch says that it has. */
  go_to(first + IDLE);
  WAIT_FOR(watermark() >= first + IDLE);
  assert_int_equal(delivered_now(), 0);
  go_to(first + IDLE + EVERY + USEC_PER_MIN);
  WAIT_FOR(delivered_now() > 0);
  assert_int_equal(delivered_now(), 1);
}

static void lose_an_answer(int first) {
  make_task("FIXED_RATE", ",\"every\":\"1h\"", SCHEDULE_FIXED_RATE);
  start();
  WAIT_FOR(engine_ready(engine));
  db.first = first;
  go_to(instant(1));
  WAIT_FOR(delivered_now() > 0);
  assert_int_equal(delivered_now(), 1);
  assert_int_equal(delivered.last.scheduled_at, instant(1));
  assert_true(db.probes > 0);
  assert_int_equal(db.not_taken, 0);
  db.first = WELL;
  assert_true(is_taken());
  end_run(&delivered.last);
  WAIT_FOR(!is_taken());
  go_to(instant(2));
  WAIT_FOR(delivered_now() == 2);
  assert_int_equal(delivered.last.scheduled_at, instant(2));
}

/* The same statement comes again, and its run keeps its place until it is known whether it was fired. */
static void an_unknown_fire_is_sent_again_as_it_was(void **state) {
  (void)state;
  lose_an_answer(NOT_DONE);
}

static void one_of_the_two_counts(void **state) {
  (void)state;
  lose_an_answer(LATE);
}

static void one_that_was_done_is_read_back(void **state) {
  (void)state;
  lose_an_answer(DONE);
}

/* Its runs may have been there before: the open runs are read anew, and until then its place stays taken. */
static void what_may_have_been_there_is_read_anew(void **state) {
  (void)state;
  make_task("MANUAL", "", SCHEDULE_MANUAL);
  start();
  WAIT_FOR(engine_ready(engine));
  db.first = DONE;
  struct inbox_item item = {
      .kind = INBOX_TRIGGER,
      .request = {.key = {task.shard, now(NULL), task.task_id, 0x40000001}, .origin = ORIGIN_API}};
  char *body = inbox_body(&item);
  struct st_inbox_add_ret added;
  OK(store_inbox_add(
      t.store, &(struct st_inbox_add){.shard = task.shard, .kind = INBOX_TRIGGER, .body = slice_of(body)},
      &added, &mem, &e));
  mem_free(body);
  engine_changed(engine, task.shard);
  WAIT_FOR(delivered_now() > 0);
  WAIT_FOR(engine_ready(engine));
  assert_int_equal(delivered_now(), 1);
  assert_true(db.probes > 1); /* at the read-back, and when the open runs were read */
  assert_int_equal(db.not_taken, 0);
  db.first = WELL;
  assert_true(is_taken());
  end_run(&delivered.last);
  WAIT_FOR(!is_taken());
}

int main(void) {
  mutex_init(&delivered.m);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(what_was_there_is_not_delivered, setup, teardown),
      cmocka_unit_test_setup_teardown(what_is_open_is_not_fired_again, setup, teardown),
      cmocka_unit_test_setup_teardown(a_delay_goes_on_from_what_was_there, setup, teardown),
      cmocka_unit_test_setup_teardown(an_unknown_fire_is_sent_again_as_it_was, setup, teardown),
      cmocka_unit_test_setup_teardown(one_of_the_two_counts, setup, teardown),
      cmocka_unit_test_setup_teardown(one_that_was_done_is_read_back, setup, teardown),
      cmocka_unit_test_setup_teardown(what_may_have_been_there_is_read_anew, setup, teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
