/* The decisions of a shard at their edges: herds at one instant, max_runs over a missed range, tasks that were never held. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "core/shard.h"
#include "spec_util.h"

#define T0 ((usec_t)1000 * USEC_PER_SEC)

static struct shard *s;
static struct fire_batch b;

static enum overlap_decision start(void *arg, const struct overlap_ask *ask) {
  (void)arg, (void)ask;
  return OVERLAP_DO_START;
}
static const struct shard_overlap OVERLAP = {start, NULL};

static int setup(void **state) {
  (void)state;
  specs_open();
  s = shard_new(0, &(struct shard_limits){.max_rows = 10, .max_work = 1000, .idle_advance = USEC_PER_SEC});
  shard_reset(s, 1, 1, T0, 0);
  return 0;
}

static int teardown(void **state) {
  (void)state;
  fire_batch_done(&b);
  shard_free(&s);
  specs_close();
  return 0;
}

static void put(int64_t id, usec_t anchor, const char *schedule, const char *rest) {
  shard_put(s, &(struct shard_version){.task_id = id,
                                       .version = 1,
                                       .state = TASK_ENABLED,
                                       .effective_at = T0,
                                       .anchor = anchor,
                                       .spec = spec_of(schedule, rest)});
}

/* A herd larger than a batch, and the watermark in the middle of it: each batch stays within its bound, none is lost. */
static void herd_in_bounded_batches(void **state) {
  (void)state;
  enum { HERD = 95 };
  bool seen[HERD + 1] = {false};
  for (int64_t id = 1; id <= HERD; id++)
    put(id, T0 + USEC_PER_SEC, "\"kind\":\"ONE_TIME\",\"run_at\":\"2030-01-01T00:00:00Z\"", "");
  shard_loaded(s);
  size_t fired = 0;
  for (int round = 0; round < HERD && fired < HERD; round++) {
    assert_true(shard_collect(s, T0 + 2 * USEC_PER_SEC, &OVERLAP, NULL, 0, &b));
    assert_true(b.count <= 10);
    if (round % 2) { /* refused: the same come again */
      shard_refused(s, &b);
      continue;
    }
    for (size_t i = 0; i < b.count; i++) {
      assert_false(seen[b.items[i].key.task_id]);
      seen[b.items[i].key.task_id] = true;
    }
    fired += b.count;
    shard_fired(s, &b);
  }
  assert_int_equal(fired, HERD);
}

/* One run stands for a missed range: it counts. */
static void make_up_counts_for_max_runs(void **state) {
  (void)state;
  put(1, T0 + USEC_PER_SEC, EVERY("1s") ",\"max_runs\":2", ",\"misfire_policy\":\"FIRE_ONCE\"");
  shard_loaded(s);
  usec_t now = T0 + 200 * USEC_PER_SEC + 1;
  int64_t runs = 0;
  for (int i = 0; i < 10; i++, now += USEC_PER_SEC)
    if (shard_collect(s, now, &OVERLAP, NULL, 0, &b)) {
      for (size_t k = 0; k < b.count; k++)
        runs += b.items[k].state == RUN_PENDING;
      shard_fired(s, &b);
    }
  assert_int_equal(runs, 2);
}

/* Found by killing a node: its run ended while the shard was being loaded, the row read says so already, and the end is still to be told.
 * Nothing may be fired before it was, and then what follows that end. */
static void delay_ends_while_loaded(void **state) {
  (void)state;
  usec_t end = T0 + 10 * USEC_PER_SEC;
  put(1, T0, DELAY("1s"), "");
  shard_put_progress(s, 1, 0, 0, true);
  shard_put_progress(s, 1, T0 + 5 * USEC_PER_SEC, 0, false);
  shard_loaded(s);
  assert_true(shard_next_due(s) == USEC_NEVER);
  shard_delay_ended(s, 1, end);
  assert_true(shard_next_due(s) == end + USEC_PER_SEC);
}

/* The same, but the end was loaded and its successor fired before it is told: told late, it fires nothing twice. */
static void delay_end_told_late(void **state) {
  (void)state;
  usec_t end = T0 + 10 * USEC_PER_SEC;
  put(1, T0, DELAY("1s"), "");
  shard_put_progress(s, 1, end, 0, false);
  shard_loaded(s);
  assert_true(shard_collect(s, end + 2 * USEC_PER_SEC, &OVERLAP, NULL, 0, &b));
  assert_int_equal(b.count, 1);
  assert_true(b.items[0].key.scheduled_at == end + USEC_PER_SEC);
  shard_fired(s, &b);
  shard_delay_ended(s, 1, end);
  assert_true(shard_next_due(s) == USEC_NEVER);
  shard_delay_ended(s, 1, end + 3 * USEC_PER_SEC);
  assert_true(shard_next_due(s) == end + 4 * USEC_PER_SEC);
}

/* The end of a task that was not held (it was paused when the shard was loaded) leaves nothing behind. */
static void deleted_and_never_held(void **state) {
  (void)state;
  shard_loaded(s);
  shard_change(
      s, &(struct shard_version){.task_id = 9, .version = 3, .state = TASK_DELETED, .effective_at = T0 + 5},
      2);
  assert_int_equal(shard_task_count(s), 0);
  assert_int_equal(shard_tasks_version(s), 2);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(herd_in_bounded_batches, setup, teardown),
      cmocka_unit_test_setup_teardown(make_up_counts_for_max_runs, setup, teardown),
      cmocka_unit_test_setup_teardown(delay_ends_while_loaded, setup, teardown),
      cmocka_unit_test_setup_teardown(delay_end_told_late, setup, teardown),
      cmocka_unit_test_setup_teardown(deleted_and_never_held, setup, teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
