/* Dead letters as people replay and discard them: one, many, with a failing store, from other namespaces. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "store_util.h"
#include "task/dead_letters.h"

enum { LETTERS = 120 };

static struct test_store t;
static struct task_service *tasks;
static struct arena mem;
static struct err e;
static struct task_call call;
static struct task_row task;
static usec_t base;
static int32_t told;

static int calls, fail_at; /* 0: none */
static enum store_fault how;
static enum store_fault decide(void *arg, const char *op) {
  (void)arg;
  if (strcmp(op, "dead_letter_handle") != 0 || ++calls != fail_at)
    return STORE_FAULT_NONE;
  return how;
}

static usec_t now(void *arg) {
  (void)arg;
  return test_wall(&test_clock);
}

static void on_change(void *arg, int32_t shard) {
  (void)arg;
  told = shard;
}

#define CALL(op, ret, ...) OK(store_##op(t.store, &(struct st_##op){__VA_ARGS__}, (ret), &mem, &e))

static struct run_key key_of(int i) {
  return (struct run_key){.shard = task.v.shard, .scheduled_at = base + i, .task_id = task.v.task_id};
}

static void own_shards(void) {
  static const int32_t ids[] = {0, 1, 2, 3};
  struct st_node_join_ret join;
  struct st_shard_claim_ret claim;
  CALL(node_join, &join, .id = SLICE("n"), .ttl = USEC_PER_HOUR);
  CALL(shard_claim, &claim, .node = SLICE("n"), .incarnation = join.incarnation, .ids = ids, .count = 4);
}

/* `n` runs that have failed; the first one had a payload of its own. */
static void make_letters(int n) {
  struct st_shard_list_ret shards;
  CALL(shard_list, &shards);
  const struct shard_row *row = &shards.shards[task.v.shard];
  struct fire_shard entry = {row->id,       row->epoch,      row->tasks_version,
                             row->fired_at, row->fired_task, row->fired_at + n + 1,
                             INT64_MAX};
  base = row->fired_at + 1;
  struct run_row *rows = arena_array(&mem, (size_t)n, sizeof *rows);
  struct run_finish *ends = arena_array(&mem, (size_t)n, sizeof *ends);
  for (int i = 0; i < n; i++) {
    rows[i] = (struct run_row){
        .key = key_of(i), .version = 1, .state = RUN_PENDING, .reason = REASON_SCHEDULED, .progress = -1};
    ends[i] = (struct run_finish){.key = key_of(i),
                                  .state = RUN_FAIL,
                                  .reason = REASON_ERROR,
                                  .finished_at = base + n,
                                  .error_type = SLICE("Broken")};
  }
  rows[0].payload = SLICE("{\"own\":1}");
  struct st_fire_ret fired;
  CALL(fire, &fired, .shards = &entry, .shard_count = 1, .open = rows, .open_count = (size_t)n,
       .ahead = USEC_PER_HOUR);
  assert_true(fired.advanced[0]);
  struct fence_row fence = {row->id, row->epoch};
  struct st_run_apply_ret applied;
  CALL(run_apply, &applied, .fences = &fence, .fence_count = 1, .finishes = ends, .finish_count = (size_t)n);
}

static int setup(void **state) {
  (void)state;
  test_store_open(&t);
  t.store = store_faults(t.store, decide, NULL);
  struct task_service_options o = {
      .store = t.store, .zone_dir = "/usr/share/zoneinfo", .now = now, .dead_letter_max = 100, .seed = 7};
  tasks = task_service_new(&o);
  task_service_on_change(tasks, on_change, NULL);
  call = (struct task_call){.by = SLICE("ann"), .mem = &mem, .e = &e};
  own_shards();
  json_t *doc = NULL;
  OK(json_read(
      SLICE("{\"name\":\"t\",\"executor_group\":\"g\",\"handler\":\"h\",\"schedule\":{\"kind\":\"MANUAL\"}}"),
      1024, &doc, &e));
  OK(task_create(tasks, &call, doc, &task));
  json_decref(doc);
  make_letters(LETTERS);
  return 0;
}

static int teardown(void **state) {
  (void)state;
  task_service_free(&tasks);
  test_store_close(&t);
  arena_done(&mem);
  return 0;
}

static struct dead_letter_row get(int i) {
  struct run_key k = key_of(i);
  struct dead_letter_row row;
  OK(task_dead_letter_get(tasks, &call, &k, &row));
  return row;
}

static size_t inbox(struct inbox_item *ret, size_t max) {
  struct st_inbox_read_ret rows;
  CALL(inbox_read, &rows, .shards = &task.v.shard, .shard_count = 1, .limit = 1000);
  for (size_t i = 0; i < rows.count && i < max; i++) {
    struct inbox_text text = {rows.rows[i].shard, rows.rows[i].kind, rows.rows[i].no, rows.rows[i].body};
    OK(inbox_parse(&text, &mem, &ret[i], &e));
  }
  return rows.count;
}

static const struct dead_letter_filter of_all = {.ns = {"default", 7}, .state = -1, .reason = -1};

static void test_one(void **state) {
  struct dead_letter_replay same = {.pin = SLICE("x1")},
                            other = {.payload = SLICE("[2]"), .ignore_overlap = true};
  struct run_key k = key_of(0), second = key_of(1), made;
  struct inbox_item items[2];
  char id[RUN_ID_LEN + 1], dead[RUN_ID_LEN + 1];
  (void)state;
  told = -1;
  assert_int_equal(OK(task_dead_letter_replay(tasks, &call, &k, &same, &made)), 0);
  assert_int_equal(told, task.v.shard);
  run_id_format(&made, id);
  run_id_format(&k, dead);
  struct dead_letter_row d = get(0);
  assert_true(d.state == DEAD_LETTER_REPLAYED && slice_eqz(d.replay_run, id) &&
              slice_eqz(d.handled_by, "ann"));
  OK(task_dead_letter_replay(tasks, &call, &second, &other, &made));
  assert_int_equal(inbox(items, 2), 2);
  const struct fire_request *a = &items[0].request, *b = &items[1].request;
  assert_true(slice_eqz(a->payload, "{\"own\":1}") && slice_eqz(a->pin, "x1") &&
              slice_eqz(a->origin_run, dead));
  assert_true(a->origin == ORIGIN_RETRY && !a->ignore_overlap && !a->not_before);
  assert_true(slice_eqz(b->payload, "[2]") && b->ignore_overlap && !b->pin.n);
  assert_int_equal(task_dead_letter_replay(tasks, &call, &k, &same, &made), ERR_CONFLICT);
  assert_non_null(strstr(e.text, id)); /* the run that stands in its place */
  assert_int_equal(task_dead_letter_discard(tasks, &call, &k), ERR_CONFLICT);
}

static void test_discard_one(void **state) {
  struct run_key k = key_of(2), made, none = key_of(LETTERS + 5);
  struct task_call noted = call;
  (void)state;
  noted.note = SLICE("known");
  OK(task_dead_letter_discard(tasks, &noted, &k));
  assert_true(get(2).state == DEAD_LETTER_DISCARDED && slice_eqz(get(2).note, "known"));
  assert_int_equal(task_dead_letter_replay(tasks, &call, &k, &(struct dead_letter_replay){0}, &made),
                   ERR_CONFLICT);
  assert_non_null(strstr(e.text, "DISCARDED"));
  assert_int_equal(task_dead_letter_discard(tasks, &call, &none), ERR_NOT_FOUND);
  assert_int_equal(inbox(NULL, 0), 0);
}

static void test_retry_takes_the_letter_along(void **state) {
  struct run_key k = key_of(3), made, again;
  char dead[RUN_ID_LEN + 1], id[RUN_ID_LEN + 1];
  (void)state;
  run_id_format(&k, dead);
  struct task_trigger retry = {.origin = ORIGIN_RETRY, .retry_of = slice_of(dead)};
  OK(task_trigger(tasks, &call, SLICE("t"), &retry, &made));
  run_id_format(&made, id);
  assert_true(get(3).state == DEAD_LETTER_REPLAYED && slice_eqz(get(3).replay_run, id));
  OK(task_trigger(tasks, &call, SLICE("t"), &retry,
                  &again)); /* as often as one likes; the letter names the first */
  assert_true(!run_key_eq(&made, &again) && slice_eqz(get(3).replay_run, id));
}

static void test_many(void **state) {
  struct dead_letter_many m = {.filter = of_all, .rate = 4, .dry_run = true};
  struct dead_letter_done done;
  struct inbox_item items[LETTERS];
  (void)state;
  OK(task_dead_letters_replay(tasks, &call, &m, &done));
  assert_true(done.count == 100 && done.more && inbox(NULL, 0) == 0);
  m.dry_run = false;
  usec_t before = now(NULL);
  OK(task_dead_letters_replay(tasks, &call, &m, &done));
  assert_true(done.count == 100 && done.more && done.rate == 4);
  assert_int_equal(inbox(items, LETTERS), 100);
  usec_t first = items[0].request.not_before;
  assert_true(first >= before && done.last_at == first + 99 * USEC_PER_SEC / 4);
  for (int i = 0; i < 100; i++) {
    const struct fire_request *r = &items[i].request;
    assert_true(r->not_before == first + i * USEC_PER_SEC / 4 && r->origin == ORIGIN_REPLAY);
    assert_true(r->payload.p ? i == 0 : i > 0);
    for (int k = 0; k < i; k++)
      assert_false(run_key_eq(&items[k].request.key, &r->key));
    char dead[RUN_ID_LEN + 1];
    struct run_key of = key_of(i); /* the oldest first */
    run_id_format(&of, dead);
    assert_true(slice_eqz(r->origin_run, dead));
  }
  assert_true(get(99).state == DEAD_LETTER_REPLAYED && get(100).state == DEAD_LETTER_OPEN);
  OK(task_dead_letters_replay(tasks, &call, &m, &done));
  assert_true(done.count == 20 && !done.more);
  OK(task_dead_letters_replay(tasks, &call, &m, &done));
  assert_true(done.count == 0 && !done.more && !done.last_at);
}

static void test_many_bounded(void **state) {
  struct dead_letter_many m = {.filter = of_all, .limit = 5};
  struct dead_letter_done done;
  struct task_call noted = call;
  (void)state;
  noted.note = SLICE("old");
  OK(task_dead_letters_discard(tasks, &noted, &m, &done));
  assert_true(done.count == 5 && done.more && done.rate == 0 && slice_eqz(get(4).note, "old"));
  assert_int_equal(get(5).state, DEAD_LETTER_OPEN);
  m.filter.error_type = SLICE("Other");
  OK(task_dead_letters_discard(tasks, &call, &m, &done));
  assert_true(done.count == 0 && !done.more);
  m.filter = (struct dead_letter_filter){.state = DEAD_LETTER_OPEN, .reason = -1};
  assert_int_equal(task_dead_letters_replay(tasks, &call, &m, &done), ERR_MISSING);
  m = (struct dead_letter_many){.filter = of_all, .limit = 101};
  assert_int_equal(task_dead_letters_replay(tasks, &call, &m, &done), ERR_LIMIT);
  assert_string_equal(e.field, "/limit");
  m = (struct dead_letter_many){.filter = of_all, .rate = 2000};
  assert_int_equal(task_dead_letters_replay(tasks, &call, &m, &done), ERR_INVALID);
  assert_string_equal(e.field, "/rate");
}

/* Whatever happens to the one statement that writes: repeated with its key, it is done once. */
static void test_many_with_a_key(void **state) {
  static const enum store_fault faults[] = {STORE_FAULT_UNAVAILABLE, STORE_FAULT_LOST_ANSWER,
                                            STORE_FAULT_UNKNOWN_NOT_DONE};
  static const char *const keys[] = {"a", "b", "c"};
  struct dead_letter_many m = {.filter = of_all, .limit = 10, .rate = 3.5};
  struct dead_letter_done done, again;
  (void)state;
  for (int i = 0; i < 3; i++) {
    struct idem idem = {.route = SLICE("r"), .key = slice_of(keys[i]), .keep = USEC_PER_HOUR};
    struct task_call keyed = call;
    keyed.idem = &idem;
    how = faults[i];
    calls = 0;
    fail_at = 1;
    assert_true(task_dead_letters_replay(tasks, &keyed, &m, &done) < 0);
    fail_at = 0;
    assert_int_equal(OK(task_dead_letters_replay(tasks, &keyed, &m, &done)),
                     faults[i] == STORE_FAULT_LOST_ANSWER);
    assert_int_equal(OK(task_dead_letters_replay(tasks, &keyed, &m, &again)), 1);
    assert_true(done.count == 10 && again.count == 10 && again.more && again.rate == 3.5 &&
                again.last_at == done.last_at);
    assert_int_equal(inbox(NULL, 0), 10 * (i + 1));
  }
}

static void test_elsewhere(void **state) {
  struct task_call other = call;
  struct dead_letter_row row;
  struct dead_letter_many m = {.filter = of_all};
  struct dead_letter_done done;
  struct run_key k = key_of(0), made;
  (void)state;
  other.only_ns = SLICE("elsewhere");
  assert_int_equal(task_dead_letter_get(tasks, &other, &k, &row), ERR_NOT_FOUND);
  assert_int_equal(task_dead_letter_discard(tasks, &other, &k), ERR_NOT_FOUND);
  assert_int_equal(task_dead_letter_replay(tasks, &other, &k, &(struct dead_letter_replay){0}, &made),
                   ERR_NOT_FOUND);
  OK(task_dead_letters_replay(tasks, &other, &m, &done));
  assert_int_equal(done.count, 0);
  OK(task_dead_letters_count(tasks, &e));
}

static void test_deleted_task(void **state) {
  struct dead_letter_many m = {.filter = of_all};
  struct dead_letter_done done;
  struct run_key k = key_of(0), made;
  (void)state;
  OK(task_delete(tasks, &call, SLICE("t"), false));
  assert_int_equal(task_dead_letter_replay(tasks, &call, &k, &(struct dead_letter_replay){0}, &made),
                   ERR_CONFLICT);
  OK(task_dead_letters_replay(tasks, &call, &m, &done));
  assert_true(done.count == 0 && !done.more);
  OK(task_dead_letters_discard(tasks, &call, &m, &done));
  assert_int_equal(done.count, 100);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
  const struct CMUnitTest tests[] = {
      T(test_one),       T(test_discard_one),  T(test_retry_takes_the_letter_along),
      T(test_many),      T(test_many_bounded), T(test_many_with_a_key),
      T(test_elsewhere), T(test_deleted_task)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
