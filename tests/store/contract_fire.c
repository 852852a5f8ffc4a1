#include "contract.h"
#include "base/thread.h"

#define BATCH  5000
#define RACERS 3

/* One task in each of `count` different shards. */
static void tasks_in_shards(struct task_version_row *tasks, size_t count) {
  for (size_t n = 0; n < count;) {
    struct task_version_row t = new_task("fire");
    bool taken = false;
    for (size_t i = 0; i < n; i++)
      taken |= tasks[i].shard == t.shard;
    if (!taken)
      tasks[n++] = t;
  }
}

static void test_fire(void **state) {
  struct task_version_row task;
  struct st_fire_ret ret;
  struct st_run_get_ret got;
  (void)state;
  own_shards();
  task = new_task("fire");
  struct run_row run = run_of(&task, 1000, 0), skipped = run_of(&task, 900, 0);
  run.not_before = 1500;
  run.missed_first = 500;
  run.missed_count = 6;
  run.attempt = 1;
  run.payload = SLICE("{}");
  run.pin = SLICE("x9");
  run.origin_run = SLICE("first");
  run.origin = ORIGIN_CATCHUP;
  skipped.state = RUN_SKIPPED;
  skipped.reason = REASON_MISFIRE;
  skipped.finished_at = 905;
  struct fire_shard entry = fire_entry(task.shard);
  OK(CALL(fire, &ret, .shards = &entry, .shard_count = 1, .open = &run, .open_count = 1, .ended = &skipped,
          .ended_count = 1, .ahead = USEC_PER_HOUR));
  assert_true(ret.advanced[0]);
  assert_true(ret.now > 0);
  assert_int_equal(shard_now(task.shard).fired_at, entry.new_at);
  assert_int_equal(shard_now(task.shard).fired_task, entry.new_task);
  OK(CALL(run_get, &got, .key = run.key));
  const struct run_row *w = &got.run;
  assert_true(run_key_eq(&w->key, &run.key));
  assert_int_equal(w->state, RUN_PENDING);
  assert_int_equal(w->reason, REASON_SCHEDULED);
  assert_int_equal(w->origin, ORIGIN_CATCHUP);
  assert_int_equal(w->version, 1);
  assert_int_equal(w->attempt, 1);
  assert_int_equal(w->fired_at, run.fired_at);
  assert_int_equal(w->not_before, 1500);
  assert_int_equal(w->missed_first, 500);
  assert_int_equal(w->missed_count, 6);
  assert_true(slice_eqz(w->payload, "{}") && slice_eqz(w->pin, "x9") && slice_eqz(w->origin_run, "first"));
  assert_null(w->executor.p);
  assert_true(w->progress < 0);
  assert_true(slice_eq(got.task_name, task.name) && slice_eq(got.ns, fx.ns));
  OK(CALL(run_get, &got, .key = skipped.key));
  assert_int_equal(got.run.state, RUN_SKIPPED);
  assert_int_equal(got.run.reason, REASON_MISFIRE);
  assert_int_equal(got.run.finished_at, 905);
  struct run_key absent = run.key;
  absent.part = 1;
  assert_int_equal(state_of(&absent), RUN_STATE_MAX_);
}

/* Three shards at once, one of them spoilt: exactly that one writes nothing. */
static void fire_with_one_spoilt(void (*spoil)(struct fire_shard *)) {
  struct task_version_row tasks[3];
  struct fire_shard entries[3];
  struct run_row open[3], ended[3];
  struct progress_row progress[3];
  struct st_fire_ret ret;
  struct st_progress_load_ret loaded;
  tasks_in_shards(tasks, 3);
  for (int i = 0; i < 3; i++) {
    entries[i] = fire_entry(tasks[i].shard);
    open[i] = run_of(&tasks[i], 1000, 0);
    ended[i] = run_of(&tasks[i], 900, 0);
    ended[i].state = RUN_SKIPPED;
    progress[i] = (struct progress_row){
        .task_id = tasks[i].task_id, .shard = tasks[i].shard, .base_at = 10, .fired = 1};
  }
  struct shard_row before = shard_now(tasks[1].shard);
  spoil(&entries[1]);
  OK(CALL(fire, &ret, .shards = entries, .shard_count = 3, .open = open, .open_count = 3, .ended = ended,
          .ended_count = 3, .progress = progress, .progress_count = 3, .ahead = USEC_PER_SEC));
  assert_true(ret.advanced[0] && !ret.advanced[1] && ret.advanced[2]);
  for (int i = 0; i < 3; i++) {
    assert_int_equal(state_of(&open[i].key), i == 1 ? RUN_STATE_MAX_ : RUN_PENDING);
    assert_int_equal(state_of(&ended[i].key), i == 1 ? RUN_STATE_MAX_ : RUN_SKIPPED);
    OK(CALL(progress_load, &loaded, .shard = tasks[i].shard));
    bool found = false;
    for (size_t j = 0; j < loaded.count; j++)
      found |= loaded.rows[j].task_id == tasks[i].task_id;
    assert_int_equal(found, i != 1);
  }
  struct shard_row after = shard_now(tasks[1].shard);
  assert_int_equal(after.fired_at, before.fired_at);
  assert_int_equal(after.fired_task, before.fired_task);
}

static void spoil_epoch(struct fire_shard *f) { f->epoch--; }
static void spoil_tasks_version(struct fire_shard *f) { f->tasks_version--; }
static void spoil_seen_at(struct fire_shard *f) { f->seen_at--; }
static void spoil_seen_task(struct fire_shard *f) { f->seen_task--; }
static void spoil_new_at(struct fire_shard *f) { f->new_at = db_now() + USEC_PER_HOUR; }

static void test_fences(void **state) {
  (void)state;
  own_shards();
  fire_with_one_spoilt(spoil_epoch);
  fire_with_one_spoilt(spoil_tasks_version);
  fire_with_one_spoilt(spoil_seen_at);
  fire_with_one_spoilt(spoil_seen_task);
  fire_with_one_spoilt(spoil_new_at);
}

static void test_repeat_inserts_nothing(void **state) {
  struct st_fire_ret ret;
  struct st_run_load_ret load;
  (void)state;
  own_shards();
  struct task_version_row task = new_task("repeat");
  struct run_row run = run_of(&task, 1000, 0);
  struct fire_shard entry = fire_entry(task.shard);
  for (int i = 0; i < 2; i++) { /* the very same call again: an unknown outcome repeated against the rules */
    OK(CALL(fire, &ret, .shards = &entry, .shard_count = 1, .open = &run, .open_count = 1,
            .ahead = USEC_PER_HOUR));
    assert_int_equal(ret.advanced[0], i == 0);
  }
  /* the same run in a later FIRE (a re-fire after a lost tail): left as it is, open or ended */
  struct run_row other = run;
  other.fired_at = 77;
  struct run_row skipped = run;
  skipped.state = RUN_SKIPPED;
  assert_true(fire_open(&other, 1));
  assert_true(fire_ended(&skipped, 1));
  OK(CALL(run_load, &load, .shard = task.shard, .limit = 10000));
  size_t found = 0;
  for (size_t i = 0; i < load.count; i++)
    if (load.rows[i].key.task_id == task.task_id) {
      found++;
      assert_int_equal(load.rows[i].fired_at, run.fired_at);
    }
  assert_int_equal(found, 1);
  assert_true(finish_run(&run, RUN_SUCCESS, 2000));
  assert_true(fire_open(&run, 1));
  assert_int_equal(state_of(&run.key), RUN_SUCCESS);
  OK(CALL(run_load, &load, .shard = task.shard, .limit = 10000));
  for (size_t i = 0; i < load.count; i++)
    assert_int_not_equal(load.rows[i].key.task_id, task.task_id);
}

/* Runs that are there already, open or ended, among new ones of two shards, one of which is refused: FIRE says which they are, and leaves
 * them as they are. `extra`: with what makes it more than a FIRE of open runs. */
static void fire_over_present(bool extra) {
  enum { NEW_LOW, OPEN, NEW_HIGH, ENDED, OTHER_NEW, OTHER_OPEN, ROWS };
  struct task_version_row tasks[2];
  struct st_fire_ret ret;
  struct run_row rows[ROWS];
  struct st_run_get_ret got;
  tasks_in_shards(tasks, 2);
  for (int i = 0; i < ROWS; i++) { /* instants below the watermark: an earlier jitter may have had them */
    const struct task_version_row *t = &tasks[i >= OTHER_NEW];
    rows[i] = run_of(t, shard_now(t->shard).fired_at - USEC_PER_DAY + i, 0);
  }
  assert_true(fire_open(&rows[OPEN], 1) && fire_open(&rows[ENDED], 1) && fire_open(&rows[OTHER_OPEN], 1));
  assert_true(finish_run(&rows[ENDED], RUN_SUCCESS, 2000));
  struct run_row skipped = run_of(&tasks[0], 900, 3);
  skipped.state = RUN_SKIPPED;
  struct fire_shard entries[2] = {fire_entry(tasks[0].shard), fire_entry(tasks[1].shard)};
  entries[1].epoch--;
  for (int i = 0; i < ROWS; i++)
    rows[i].fired_at = 77;
  OK(CALL(fire, &ret, .shards = entries, .shard_count = 2, .open = rows, .open_count = ROWS,
          .ended = &skipped, .ended_count = extra, .ahead = USEC_PER_HOUR));
  assert_true(ret.advanced[0] && !ret.advanced[1]);
  assert_non_null(ret.present);
  for (int i = 0; i < OTHER_NEW; i++) {
    assert_int_equal(ret.present[i], i == OPEN || i == ENDED);
    OK(CALL(run_get, &got, .key = rows[i].key));
    assert_int_equal(got.run.fired_at == 77, i == NEW_LOW || i == NEW_HIGH);
  }
  assert_int_equal(state_of(&rows[OTHER_NEW].key), RUN_STATE_MAX_);
}

static void test_present(void **state) {
  struct st_fire_ret ret;
  (void)state;
  own_shards();
  fire_over_present(false);
  fire_over_present(true);
  struct task_version_row task = new_task("present");
  struct run_row rows[2] = {run_of(&task, 1000, 1), run_of(&task, 1000, 2)};
  struct fire_shard entry = fire_entry(task.shard);
  OK(CALL(fire, &ret, .shards = &entry, .shard_count = 1, .open = rows, .open_count = 2,
          .ahead = USEC_PER_HOUR));
  for (int i = 0; ret.present && i < 2; i++)
    assert_false(ret.present[i]);
  for (int i = 0; i < 2; i++) /* above the watermark nobody can have fired them, and yet */
    rows[i] = run_of(&task, shard_now(task.shard).fired_at + USEC_PER_MIN + i, 0);
  assert_true(fire_open(&rows[1], 1));
  entry = fire_entry(task.shard);
  OK(CALL(fire, &ret, .shards = &entry, .shard_count = 1, .open = rows, .open_count = 2,
          .ahead = USEC_PER_HOUR));
  assert_true(ret.advanced[0] && ret.present && !ret.present[0] && ret.present[1]);
}

static void test_watermark_only(void **state) {
  struct st_fire_ret ret;
  (void)state;
  own_shards();
  struct fire_shard entry = fire_entry(0);
  OK(CALL(fire, &ret, .shards = &entry, .shard_count = 1, .ahead = USEC_PER_HOUR));
  assert_true(ret.advanced[0]);
  entry = fire_entry(0); /* an API run: the watermark stays */
  entry.new_at = entry.seen_at;
  entry.new_task = entry.seen_task;
  OK(CALL(fire, &ret, .shards = &entry, .shard_count = 1, .ahead = USEC_PER_HOUR));
  assert_true(ret.advanced[0]);
  entry.new_at = entry.seen_at - 1; /* and it never moves back */
  OK(CALL(fire, &ret, .shards = &entry, .shard_count = 1, .ahead = USEC_PER_HOUR));
  assert_false(ret.advanced[0]);
  assert_int_equal(shard_now(0).fired_at, entry.seen_at);
}

static struct progress_row progress_of(const struct task_version_row *task) {
  struct st_progress_load_ret ret;
  OK(CALL(progress_load, &ret, .shard = task->shard));
  for (size_t i = 0; i < ret.count; i++)
    if (ret.rows[i].task_id == task->task_id)
      return ret.rows[i];
  return (struct progress_row){.shard = -1};
}

static void fire_progress(const struct task_version_row *task, usec_t base_at, int64_t fired) {
  struct progress_row row = {
      .task_id = task->task_id, .shard = task->shard, .base_at = base_at, .fired = fired};
  struct fire_shard entry = fire_entry(task->shard);
  struct st_fire_ret ret;
  OK(CALL(fire, &ret, .shards = &entry, .shard_count = 1, .progress = &row, .progress_count = 1,
          .ahead = USEC_PER_HOUR));
  assert_true(ret.advanced[0]);
}

static void test_progress(void **state) {
  struct st_run_apply_ret applied;
  (void)state;
  own_shards();
  struct task_version_row task = new_task("progress"), other = new_task("progress");
  fire_progress(&task, -1, 1); /* no row yet: what is left out is 0 */
  assert_int_equal(progress_of(&task).base_at, 0);
  assert_int_equal(progress_of(&task).fired, 1);
  struct fence_row fence = fence_of(task.shard);
  struct progress_row row = {.task_id = task.task_id, .shard = task.shard, .base_at = 5000, .fired = -1};
  OK(CALL(run_apply, &applied, .fences = &fence, .fence_count = 1, .progress = &row, .progress_count = 1));
  assert_int_equal(progress_of(&task).base_at, 5000);
  assert_int_equal(progress_of(&task).fired, 1);
  fire_progress(&task, -1, 2);
  assert_int_equal(progress_of(&task).base_at, 5000);
  assert_int_equal(progress_of(&task).fired, 2);
  fire_progress(&other, 700, -1);
  assert_int_equal(progress_of(&other).base_at, 700);
  assert_int_equal(progress_of(&other).fired, 0);
  row.base_at = 4000; /* of a run that ended before the one that is stored: carried out late */
  OK(CALL(run_apply, &applied, .fences = &fence, .fence_count = 1, .progress = &row, .progress_count = 1));
  assert_int_equal(progress_of(&task).base_at, 5000);
  fence.epoch--;
  row.base_at = 9000;
  OK(CALL(run_apply, &applied, .fences = &fence, .fence_count = 1, .progress = &row, .progress_count = 1));
  assert_int_equal(progress_of(&task).base_at, 5000);
}

static void test_batch(void **state) {
  struct st_run_load_ret load;
  (void)state;
  own_shards();
  struct task_version_row task = new_task("herd");
  struct run_row *rows = arena_array(&fx.mem, BATCH, sizeof *rows);
  for (int i = 0; i < BATCH; i++)
    rows[i] = run_of(&task, 1000 + i / 7, i % 7);
  assert_true(fire_open(rows, BATCH));
  struct run_key after = {.shard = task.shard}; /* pages */
  size_t found = 0;
  do {
    OK(CALL(run_load, &load, .shard = task.shard, .after = &after, .limit = 1000));
    for (size_t i = 0; i < load.count; i++) {
      assert_true(run_key_cmp(&load.rows[i].key, &after) > 0);
      after = load.rows[i].key;
      found += after.task_id == task.task_id;
    }
  } while (load.count == 1000);
  assert_int_equal(found, BATCH);
  struct fence_row fence = fence_of(task.shard);
  struct run_finish *ends = arena_array(&fx.mem, BATCH, sizeof *ends);
  for (int i = 0; i < BATCH; i++)
    ends[i] = (struct run_finish){.key = rows[i].key, .state = RUN_SUCCESS, .finished_at = 9000};
  struct st_run_apply_ret applied;
  OK(CALL(run_apply, &applied, .fences = &fence, .fence_count = 1, .finishes = ends, .finish_count = BATCH));
  for (int i = 0; i < BATCH; i++)
    assert_true(applied.finished[i]);
  OK(CALL(run_load, &load, .shard = task.shard, .limit = 10));
  for (size_t i = 0; i < load.count; i++)
    assert_int_not_equal(load.rows[i].key.task_id, task.task_id);
}

/* ------------------------------------------------------------------ several sessions, the same watermark */
struct racer {
  struct store *s;
  struct fire_shard entry;
  struct run_row run;
  int advanced; /* or a negative code */
};

static void race(void *arg) {
  struct racer *me = arg;
  auto_arena mem = {};
  struct st_fire_ret ret;
  struct err e;
  int r = store_fire(
      me->s,
      &(struct st_fire){
          .shards = &me->entry, .shard_count = 1, .open = &me->run, .open_count = 1, .ahead = USEC_PER_HOUR},
      &ret, &mem, &e);
  me->advanced = r < 0 ? r : ret.advanced[0];
}

static void test_race(void **state) {
  struct racer racers[RACERS];
  struct thread threads[RACERS];
  (void)state;
  own_shards();
  struct task_version_row task = new_task("race");
  struct fire_shard entry = fire_entry(task.shard);
  for (int i = 0; i < RACERS; i++) {
    racers[i] = (struct racer){.entry = entry, .run = run_of(&task, 1000 + i, 0)};
    OK(store_session(fx.source, STORE_FIRE, &racers[i].s, &fx.e));
    OK(thread_start(&threads[i], "racer", race, &racers[i], &fx.e));
  }
  int advanced = 0, written = 0;
  for (int i = 0; i < RACERS; i++) {
    thread_join(&threads[i]);
    store_close(&racers[i].s);
    OK(racers[i].advanced);
    advanced += racers[i].advanced;
    written += state_of(&racers[i].run.key) == RUN_PENDING;
  }
  assert_int_equal(advanced, 1);
  assert_int_equal(written, 1);
}

TESTS(fire_tests, cmocka_unit_test(test_fire), cmocka_unit_test(test_fences),
      cmocka_unit_test(test_repeat_inserts_nothing), cmocka_unit_test(test_present),
      cmocka_unit_test(test_watermark_only), cmocka_unit_test(test_progress), cmocka_unit_test(test_batch),
      cmocka_unit_test(test_race));
