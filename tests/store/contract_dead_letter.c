#include "contract.h"
#include <pthread.h>

static usec_t base;
static struct task_version_row task;

static struct run_key key_of(int i) {
  return (struct run_key){.shard = task.shard, .scheduled_at = base + i, .task_id = task.task_id};
}

/* Ends one open run as it failed. */
static bool fail_run(const struct run_row *run, enum run_reason reason, const char *type) {
  struct fence_row fence = fence_of(run->key.shard);
  struct run_finish finish = {.key = run->key,
                              .state = RUN_FAIL,
                              .reason = reason,
                              .finished_at = run->key.scheduled_at + 50,
                              .error_type = slice_of(type),
                              .error_message = SLICE("sad")};
  struct st_run_apply_ret ret;
  OK(CALL(run_apply, &ret, .fences = &fence, .fence_count = 1, .finishes = &finish, .finish_count = 1));
  return ret.finished[0];
}

/* `n` failed runs of a new task in this test's namespace, a microsecond apart: the even ones for ERROR, the odd ones for TIMEOUT. */
static void make(int n) {
  own_shards();
  task = new_task("dying");
  base = shard_now(task.shard).fired_at + 1;
  for (int i = 0; i < n; i++) {
    struct run_row run = run_of(&task, base + i, 0);
    run.payload = i ? (struct slice){} : SLICE("{\"n\":0}");
    assert_true(fire_open(&run, 1));
    assert_true(fail_run(&run, i % 2 ? REASON_TIMEOUT : REASON_ERROR, i % 2 ? "Late" : "Broken"));
  }
}

#define LIST(ret, ...)                                                                                       \
  OK(CALL(dead_letter_list, ret, .filter = {.ns = fx.ns, .state = -1, .reason = -1, __VA_ARGS__},            \
          .limit = 100))

static struct dead_letter_row get(int i) {
  struct st_dead_letter_get_ret got;
  OK(CALL(dead_letter_get, &got, .key = key_of(i)));
  return got.row;
}

static void test_made_by_finish(void **state) {
  struct st_dead_letter_list_ret list;
  struct st_dead_letter_get_ret got;
  (void)state;
  LIST(&list);
  assert_int_equal(list.count, 0);
  make(2);
  struct run_row good = run_of(&task, base + 10, 0), bad = run_of(&task, base, 0);
  assert_true(fire_open(&good, 1));
  assert_true(finish_run(&good, RUN_SUCCESS, base + 99));
  assert_false(fail_run(&bad, REASON_ERROR, "Broken")); /* as after a lost answer */
  LIST(&list);
  assert_int_equal(list.count, 2);
  struct dead_letter_row d = get(0);
  assert_true(run_key_eq(&d.run.key, &bad.key) && d.run.state == RUN_FAIL && d.run.reason == REASON_ERROR);
  assert_true(d.state == DEAD_LETTER_OPEN && !d.handled_at && !d.handled_by.n && !d.replay_run.n &&
              !d.note.n);
  assert_true(slice_eq(d.task_name, task.name) && slice_eq(d.ns, fx.ns) && slice_eqz(d.group, "workers") &&
              slice_eqz(d.handler, "echo"));
  assert_true(slice_eqz(d.run.error_type, "Broken") && slice_eqz(d.run.payload, "{\"n\":0}") &&
              d.run.finished_at == base + 50);
  REFUSED(ERR_NOT_FOUND, CALL(dead_letter_get, &got, .key = good.key));
}

static void test_lists(void **state) {
  struct st_dead_letter_list_ret list;
  (void)state;
  make(5);
  LIST(&list);
  assert_int_equal(list.count, 5);
  for (int i = 0; i < 5; i++)
    assert_true(list.rows[i].run.key.scheduled_at == base + 4 - i); /* newest first */
  OK(CALL(dead_letter_list, &list, .filter = {.task_id = task.task_id, .state = -1, .reason = REASON_TIMEOUT},
          .limit = 100));
  assert_int_equal(list.count, 2);
  struct st_dead_letter_list_ret same;
  OK(CALL(dead_letter_list, &same,
          .filter = {.ns = fx.ns, .error_type = SLICE("Late"), .state = DEAD_LETTER_OPEN, .reason = -1},
          .limit = 100));
  assert_int_equal(same.count, 2);
  LIST(&list, .group = SLICE("workers"), .handler = SLICE("echo"), .since = base + 1, .until = base + 4);
  assert_int_equal(list.count, 3);
  LIST(&list, .group = SLICE("others"));
  assert_int_equal(list.count, 0);
  LIST(&list, .handler = SLICE("others"));
  assert_int_equal(list.count, 0);
  LIST(&list, .error_type = SLICE("others"));
  assert_int_equal(list.count, 0);
  OK(CALL(dead_letter_list, &list, .filter = {.ns = fx.ns, .state = DEAD_LETTER_REPLAYED, .reason = -1},
          .limit = 100));
  assert_int_equal(list.count, 0);
  for (int up = 0; up < 2; up++) { /* page by page, by every way of finding them */
    for (int way = 0; way < 3; way++) {
      struct run_key from;
      struct st_dead_letter_list in = {
          .filter = {.ns = fx.ns, .state = way == 1 ? DEAD_LETTER_OPEN : -1, .reason = -1},
          .oldest_first = up,
          .limit = 2};
      in.filter.task_id = way == 2 ? task.task_id : 0;
      for (int seen = 0; seen < 5; seen += (int)list.count) {
        OK(store_dead_letter_list(fx.s, &in, &list, &fx.mem, &fx.e));
        assert_int_equal(list.count, seen == 4 ? 1 : 2);
        for (size_t i = 0; i < list.count; i++)
          assert_true(list.rows[i].run.key.scheduled_at == base + (up ? seen + (int)i : 4 - seen - (int)i));
        from = list.rows[list.count - 1].run.key;
        in.from = &from;
      }
      OK(store_dead_letter_list(fx.s, &in, &list, &fx.mem, &fx.e));
      assert_int_equal(list.count, 0);
    }
  }
}

static void test_deleted_task(void **state) {
  struct st_dead_letter_list_ret list;
  struct st_task_change_ret changed;
  (void)state;
  make(1);
  struct st_dead_letter_list in = {
      .filter = {.ns = fx.ns, .state = -1, .reason = -1}, .of_tasks = true, .limit = 10};
  OK(store_dead_letter_list(fx.s, &in, &list, &fx.mem, &fx.e));
  assert_int_equal(list.count, 1);
  OK(CALL(task_change, &changed, .task_id = task.task_id, .state = TASK_DELETED, .by = SLICE("me")));
  OK(store_dead_letter_list(fx.s, &in, &list, &fx.mem, &fx.e));
  assert_int_equal(list.count, 0);
  LIST(&list);
  assert_int_equal(list.count, 1);
}

/* ---------------------------------------------------------------- handling */
static struct dead_letter_deed deed_of(int i, const char *run) {
  return (struct dead_letter_deed){.key = key_of(i),
                                   .inbox = {.shard = task.shard, .kind = 1, .body = slice_of(run)},
                                   .replay_run = slice_of(run)};
}

static size_t inbox_rows(const char *body) {
  struct st_inbox_read_ret rows;
  size_t n = 0;
  OK(CALL(inbox_read, &rows, .shards = &task.shard, .shard_count = 1, .limit = 1000));
  for (size_t i = 0; i < rows.count; i++)
    n += slice_eqz(rows.rows[i].body, body);
  return n;
}

static void test_replay(void **state) {
  struct st_dead_letter_handle_ret done;
  (void)state;
  make(3);
  struct dead_letter_deed two[2] = {deed_of(0, "a"), deed_of(1, "b")},
                          all[3] = {deed_of(0, "c"), deed_of(1, "d"), deed_of(2, "e")};
  OK(CALL(dead_letter_handle, &done, .state = DEAD_LETTER_REPLAYED, .deeds = two, .count = 2,
          .by = SLICE("ann"), .ref = SLICE("r")));
  assert_true(done.count == 2 && slice_eqz(done.ref, "r"));
  struct dead_letter_row d = get(1);
  assert_true(d.state == DEAD_LETTER_REPLAYED && d.handled_at > 0 && slice_eqz(d.handled_by, "ann") &&
              slice_eqz(d.replay_run, "b"));
  /* again, with one more: only that one */
  OK(CALL(dead_letter_handle, &done, .state = DEAD_LETTER_REPLAYED, .deeds = all, .count = 3,
          .by = SLICE("bob")));
  assert_int_equal(done.count, 1);
  assert_true(slice_eqz(get(0).replay_run, "a") && slice_eqz(get(2).replay_run, "e"));
  assert_int_equal(inbox_rows("a") + inbox_rows("b") + inbox_rows("e"), 3);
  assert_int_equal(inbox_rows("c") + inbox_rows("d"), 0);
  /* one that must be OPEN is not: nothing at all */
  make(2);
  OK(CALL(dead_letter_handle, &done, .state = DEAD_LETTER_DISCARDED,
          .deeds = (struct dead_letter_deed[]){deed_of(1, "")}, .count = 1, .by = SLICE("ann"),
          .note = SLICE("old")));
  assert_true(get(1).state == DEAD_LETTER_DISCARDED && slice_eqz(get(1).note, "old") && !get(1).replay_run.n);
  struct dead_letter_deed both[2] = {deed_of(0, "f"), deed_of(1, "g")};
  REFUSED(ERR_CONFLICT, CALL(dead_letter_handle, &done, .want = DEAD_LETTER_ALL_OPEN,
                             .state = DEAD_LETTER_REPLAYED, .deeds = both, .count = 2));
  assert_true(get(0).state == DEAD_LETTER_OPEN && inbox_rows("f") == 0);
  struct dead_letter_deed none = deed_of(9, "h");
  REFUSED(ERR_NOT_FOUND, CALL(dead_letter_handle, &done, .want = DEAD_LETTER_ALL_OPEN,
                              .state = DEAD_LETTER_REPLAYED, .deeds = &none, .count = 1));
}

/* The retry of an ended run: its row goes whatever the run was, and takes the letter with it unless that is REPLAYED. */
static void test_retry(void **state) {
  struct st_dead_letter_handle_ret done;
  (void)state;
  make(1);
  struct dead_letter_deed none = deed_of(9, "i"), first = deed_of(0, "j"), second = deed_of(0, "k"),
                          third = deed_of(0, "l");
#define RETRY(deed)                                                                                          \
  OK(CALL(dead_letter_handle, &done, .want = DEAD_LETTER_RETRY, .state = DEAD_LETTER_REPLAYED,               \
          .deeds = &(deed), .count = 1, .by = SLICE("ann")))
  RETRY(none);
  assert_true(done.count == 0 && inbox_rows("i") == 1);
  OK(CALL(dead_letter_handle, &done, .state = DEAD_LETTER_DISCARDED, .deeds = &first, .count = 1));
  RETRY(second);
  assert_true(done.count == 1 && inbox_rows("k") == 1 && slice_eqz(get(0).replay_run, "k"));
  RETRY(third);
  assert_true(done.count == 0 && inbox_rows("l") == 1 && slice_eqz(get(0).replay_run, "k"));
}

static void test_idempotency(void **state) {
  struct st_dead_letter_handle_ret done;
  (void)state;
  make(3);
  struct dead_letter_deed one = deed_of(0, "m"), other = deed_of(1, "n");
  struct idem idem = {.route = SLICE("r"), .key = unique("key"), .body_hash = {1}, .keep = USEC_PER_HOUR};
  assert_int_equal(OK(CALL(dead_letter_handle, &done, .state = DEAD_LETTER_REPLAYED, .deeds = &one,
                           .count = 1, .ref = SLICE("1 2 3"), .idem = &idem)),
                   0);
  assert_int_equal(OK(CALL(dead_letter_handle, &done, .state = DEAD_LETTER_REPLAYED, .deeds = &other,
                           .count = 1, .ref = SLICE("x"), .idem = &idem)),
                   1);
  assert_true(done.count == 1 && slice_eqz(done.ref, "1 2 3"));
  assert_true(get(1).state == DEAD_LETTER_OPEN && inbox_rows("n") == 0);
  idem.body_hash[0] = 2;
  REFUSED(ERR_IDEMPOTENCY, CALL(dead_letter_handle, &done, .state = DEAD_LETTER_REPLAYED, .deeds = &other,
                                .count = 1, .idem = &idem));
  /* a refused call keeps no answer */
  struct idem fresh = {.route = SLICE("r"), .key = unique("key"), .body_hash = {1}, .keep = USEC_PER_HOUR};
  for (int i = 0; i < 2; i++)
    REFUSED(ERR_CONFLICT, CALL(dead_letter_handle, &done, .want = DEAD_LETTER_ALL_OPEN,
                               .state = DEAD_LETTER_REPLAYED, .deeds = &one, .count = 1, .idem = &fresh));
  struct dead_letter_deed nothing;
  fresh.key = unique("key");
  OK(CALL(dead_letter_handle, &done, .state = DEAD_LETTER_REPLAYED, .deeds = &nothing, .count = 0,
          .ref = SLICE("z"), .idem = &fresh));
  assert_true(done.count == 0 && slice_eqz(done.ref, "z"));
}

/* ---------------------------------------------------------------- two operators at once */
enum { MANY = 60, RIVALS = 3 };
struct rival {
  pthread_t thread;
  struct store *s;
  int64_t count;
  int code;
  int number;
};

static void *compete(void *arg) {
  struct rival *v = arg;
  auto_arena mem = {0};
  struct err e = {0};
  struct dead_letter_deed deeds[MANY];
  for (int i = 0; i < MANY; i++) { /* in different orders */
    int at = v->number == 1 ? MANY - 1 - i : (i * 7 + v->number) % MANY;
    deeds[i] = deed_of(at, "rival");
  }
  struct st_dead_letter_handle in = {.state = DEAD_LETTER_REPLAYED, .deeds = deeds, .count = MANY};
  struct st_dead_letter_handle_ret done = {0};
  v->code = store_dead_letter_handle(v->s, &in, &done, &mem, &e);
  v->count = done.count;
  return NULL;
}

static void test_rivals(void **state) {
  struct rival rivals[RIVALS] = {0};
  int64_t count = 0;
  struct st_dead_letter_list_ret list;
  (void)state;
  LIST(&list); /* or is it not there? */
  make(MANY);
  for (int i = 0; i < RIVALS; i++) {
    rivals[i].number = i;
    OK(store_session(fx.source, STORE_API, &rivals[i].s, &fx.e));
    assert_int_equal(pthread_create(&rivals[i].thread, NULL, compete, &rivals[i]), 0);
  }
  for (int i = 0; i < RIVALS; i++) {
    assert_int_equal(pthread_join(rivals[i].thread, NULL), 0);
    assert_int_equal(rivals[i].code, 0);
    count += rivals[i].count;
    store_close(&rivals[i].s);
  }
  assert_int_equal(count, MANY);
  assert_int_equal(inbox_rows("rival"), MANY);
}

static void test_count(void **state) {
  struct st_dead_letter_count_ret before, after;
  struct st_dead_letter_handle_ret done;
  (void)state;
  OK(CALL(dead_letter_count, &before, .limit = 1000000));
  make(3);
  OK(CALL(dead_letter_count, &after, .limit = 1000000));
  assert_int_equal(after.open, before.open + 3);
  struct dead_letter_deed one = deed_of(0, "");
  OK(CALL(dead_letter_handle, &done, .state = DEAD_LETTER_DISCARDED, .deeds = &one, .count = 1));
  OK(CALL(dead_letter_count, &after, .limit = 1000000));
  assert_int_equal(after.open, before.open + 2);
  OK(CALL(dead_letter_count, &after, .limit = 1));
  assert_int_equal(after.open, 1);
}

/* A dead letter goes with its run. */
static void test_dropped(void **state) {
  struct st_dead_letter_get_ret got;
  struct st_history_take_ret t = {.more = true};
  struct st_history_drop_ret d = {.more = true};
  (void)state;
  make(3);
  for (int i = 0; d.more && i < 1000; i++) /* what another test has left */
    OK(CALL(history_drop, &d, .limit = 100));
  for (int strays = 0; strays < 2; strays++) {
    struct run_key after = {.scheduled_at = base - 1, .task_id = INT64_MAX, .part = INT32_MAX};
    t.more = true;
    for (int i = 0; t.more && i < 100; i++) {
      OK(CALL(history_take, &t, .ns = &fx.ns, .ns_count = 1, .after = &after, .before = base + 60,
              .scan = 100, .limit = 2, .strays = strays));
      after = t.last;
    }
  }
  REFUSED(ERR_NOT_FOUND, CALL(dead_letter_get, &got, .key = key_of(0)));
  d.more = true;
  for (int i = 0; d.more && i < 1000; i++)
    OK(CALL(history_drop, &d, .limit = 2));
  assert_false(d.more);
  struct dead_letter_deed deeds[3] = {deed_of(0, "o"), deed_of(1, "o"), deed_of(2, "o")};
  struct st_dead_letter_handle_ret done;
  OK(CALL(dead_letter_handle, &done, .state = DEAD_LETTER_DISCARDED, .deeds = deeds, .count = 3));
  assert_int_equal(done.count, 0);
}

TESTS(dead_letter_tests, cmocka_unit_test(test_made_by_finish), cmocka_unit_test(test_lists),
      cmocka_unit_test(test_deleted_task), cmocka_unit_test(test_replay), cmocka_unit_test(test_retry),
      cmocka_unit_test(test_idempotency), cmocka_unit_test(test_rivals), cmocka_unit_test(test_count),
      cmocka_unit_test(test_dropped));
