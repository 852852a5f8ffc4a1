/* The judge itself (sim_check.c): what it must complain of, and what it must not, in whatever order decisions are committed. */
#include "sim_plan.h"
#include "base/log.h"
#include <utlist.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

static const usec_t T0 = 1772900000 * USEC_PER_SEC;
static const struct run_key waiting = {0, 1772900010000000, 7, 0},
                            by_hand = {0, 1772900011000000, 7, 1 << 30};

/* A task that must not overlap, one run of it that waits, and a trigger that ignores this. */
static int begin(void **state) {
  static struct sim_world w;
  static struct sim_plan plan;
  static struct sim_task task;
  (void)state;
  sim_co_reset();
  w = (struct sim_world){.begin = T0};
  sim_world = &w;
  w.db = sim_db_new(1, sim_db_now, NULL);
  plan = (struct sim_plan){.overlap = OVERLAP_QUEUE_ALL, .max_attempts = 3};
  task = (struct sim_task){.id = 7, .plans = &plan, .count = 1};
  sim_people = (struct sim_people){.tasks = &task, .count = 1};
  mem_reserve(sim_people.ignoring, sim_people.ignoring_count, sim_people.ignoring_cap);
  sim_people.ignoring[sim_people.ignoring_count++] = by_hand;
  sim_now = 20 * USEC_PER_SEC;
  return 0;
}

static int end(void **state) {
  (void)state;
  mem_free(sim_people.ignoring);
  sim_people = (struct sim_people){0};
  sim_check_free();
  sim_db_free(&sim_world->db);
  sim_world = NULL;
  sim_now = 0;
  return 0;
}

static struct run_row begun(const struct run_key *k, usec_t at) {
  return (struct run_row){.key = *k,
                          .version = 1,
                          .state = RUN_PENDING,
                          .reason = REASON_DISPATCHING,
                          .attempt = 1,
                          .fired_at = T0,
                          .attempt_at = at};
}

/* By a change of runs: it was let go. */
static void decide_release(const struct run_key *k, usec_t at) {
  const struct run_update u = {.key = *k, .attempt = 1, .attempt_at = at};
  sim_check_change_sent(&(struct st_run_apply){.updates = &u, .update_count = 1});
}

static void decide_fire(const struct run_key *k, usec_t at) {
  const struct run_row row = begun(k, at);
  sim_check_fire_sent(&(struct st_fire){.open = &row, .open_count = 1});
}

static void commit(const struct run_key *k, usec_t at) {
  struct db_run *r = mem_zalloc(sizeof *r);
  r->key = *k;
  r->id = db_run_id(k);
  r->row = begun(k, at);
  HASH_ADD(hh, sim_world->db->runs, id, sizeof r->id, r);
  DL_APPEND(sim_world->db->shards[k->shard].open, r);
  sim_check_run_changed(NULL, r, NULL);
  sim_check_committed(NULL);
}

/* The clock of the node that decides may be set back in between: the order counts, not what it says. */
static void test_decided_before_committed_after(void **state) {
  (void)state;
  decide_release(&waiting, T0 + 9 * USEC_PER_SEC);
  decide_fire(&by_hand, T0 + 8 * USEC_PER_SEC);
  commit(&by_hand, T0 + 8 * USEC_PER_SEC);
  sim_now += USEC_PER_HOUR;
  commit(&waiting, T0 + 9 * USEC_PER_SEC);
  assert_int_equal(sim_world->violations, 0);
}

static void test_sent_again(void **state) {
  (void)state;
  decide_release(&waiting, T0);
  decide_fire(&by_hand, T0);
  decide_release(&waiting, T0);
  commit(&by_hand, T0);
  decide_release(&waiting, T0);
  commit(&waiting, T0);
  assert_int_equal(sim_world->violations, 0);
}

/* Whoever decides second knows of the first, committed or not. */
static void test_decided_after(void **state) {
  (void)state;
  decide_fire(&by_hand, T0);
  decide_release(&waiting, T0 + 1);
  commit(&by_hand, T0);
  commit(&waiting, T0 + 1);
  assert_int_equal(sim_world->violations, 1);
}

static void test_decided_anew(void **state) {
  (void)state;
  decide_release(&waiting, T0);
  decide_fire(&by_hand, T0);
  commit(&by_hand, T0);
  decide_release(&waiting, T0 + 1);
  commit(&waiting, T0 + 1);
  assert_int_equal(sim_world->violations, 1);
}

/* Two that must not overlap: never, in whatever order. */
static void test_never(void **state) {
  (void)state;
  sim_people.ignoring_count = 0;
  decide_release(&waiting, T0);
  decide_fire(&by_hand, T0);
  commit(&by_hand, T0);
  commit(&waiting, T0);
  assert_int_equal(sim_world->violations, 1);
}

static void test_trigger_beside(void **state) {
  (void)state;
  decide_release(&waiting, T0);
  commit(&waiting, T0);
  decide_fire(&by_hand, T0 + 1);
  commit(&by_hand, T0 + 1);
  assert_int_equal(sim_world->violations, 0);
}

int main(void) {
#define JUDGE(name) cmocka_unit_test_setup_teardown(test_##name, begin, end)
  const struct CMUnitTest tests[] = {JUDGE(decided_before_committed_after),
                                     JUDGE(sent_again),
                                     JUDGE(decided_after),
                                     JUDGE(decided_anew),
                                     JUDGE(never),
                                     JUDGE(trigger_beside)};
  log_level_set(LOG_LEVEL_MAX_);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
