/* Simulated clusters from fixed seeds: every guarantee holds in each, and a seed always tells the same story. */
#include "sim.h"
#include "base/log.h"
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

static struct sim_options options(uint64_t seed, int nodes, int rough) {
  return (struct sim_options){.seed = seed,
                              .length = USEC_PER_HOUR,
                              .nodes = nodes,
                              .executors = 3,
                              .shards = 4,
                              .tasks = 20,
                              .rough = rough};
}

static double hours;
static int64_t fires, replaced, ends, forwarded, by_inbox;

static struct sim_world play(const struct sim_options *o) {
  struct sim_world w;
  if (sim_episode(o, &w) != 0)
    fail_msg("seed %llu, %d nodes, rough %d: %s", (unsigned long long)o->seed, o->nodes, o->rough, w.first);
  hours += (double)w.end / (double)USEC_PER_HOUR;
  fires += w.fires;
  forwarded += w.forwarded;
  by_inbox += w.by_inbox;
  return w;
}

static void play_many(uint64_t first, int count, int nodes, int rough) {
  for (int i = 0; i < count; i++) {
    struct sim_options o = options(hash_u64(first + (uint64_t)i), nodes, rough);
    (void)play(&o);
  }
}

static void test_calm(void **state) {
  (void)state;
  struct sim_options o = options(1, 1, 0);
  o.calm = true;
  struct sim_world w = play(&o);
  assert_int_equal(w.crashes, o.nodes); /* only those at the end of the world */
  assert_int_equal(w.unknown, 0);
  assert_true(w.fires > 1000);
}

static void test_same_seed_same_digest(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 3; seed++) {
    struct sim_options o = options(seed, (int)seed, 0);
    struct sim_world a = play(&o), b = play(&o);
    assert_int_equal(a.digest, b.digest);
    assert_int_equal(a.fires, b.fires);
    assert_int_equal(a.starts, b.starts);
    o.seed += 1000;
    assert_int_not_equal(play(&o).digest, a.digest);
  }
}

static void test_one_node(void **state) {
  (void)state;
  play_many(100, 20, 1, 0);
}

static void test_two_nodes(void **state) {
  (void)state;
  play_many(200, 10, 2, 0);
}

static void test_three_nodes(void **state) {
  (void)state;
  play_many(300, 10, 3, 0);
}

/* REPLACE and all limits are played, too. */
static void play_limits(uint64_t first, int count, int nodes, int rough) {
  for (int i = 0; i < count; i++) {
    struct sim_options o = options(hash_u64(first + (uint64_t)i), nodes, rough);
    o.limits = true;
    replaced += play(&o).replaced;
  }
}

static void test_limits(void **state) {
  (void)state;
  play_limits(600, 10, 1, 0);
  play_limits(700, 6, 2, 0);
  play_limits(800, 4, 1, 15);
  play_limits(900, 4, 3, 15);
  assert_true(replaced > 100);
}

/* Each end of a parent leads to its run, whatever happens to the nodes in between. */
static void play_after(uint64_t first, int count, int nodes, int rough) {
  for (int i = 0; i < count; i++) {
    struct sim_options o = options(hash_u64(first + (uint64_t)i), nodes, rough);
    o.after = true;
    ends += play(&o).ends;
  }
}

static void test_after(void **state) {
  (void)state;
  play_after(1600, 8, 1, 0);
  play_after(1700, 6, 2, 0);
  play_after(1800, 6, 3, 4);
  assert_true(ends > 2000);
}

static void test_rough(void **state) {
  (void)state;
  play_many(400, 6, 1, 15);
  play_many(500, 6, 3, 15);
}

/* Seeds that found something, kept for ever: seed and episode as kelou-sim counts them. */
static const struct {
  uint64_t seed;
  int episode, nodes, rough;
  bool after;
} found[] = {
    {1, 4, 1, 0, false},     {1, 6, 1, 0, false},     {2, 1, 1, 0, false},      {2, 4, 1, 0, false},
    {2, 8, 1, 0, false},     {3, 0, 1, 0, false},     {4, 0, 1, 0, false},      {5, 3, 1, 0, false},
    {5, 9, 1, 0, false},     {6, 8, 1, 0, false},     {7, 6, 1, 0, false},      {8, 2, 1, 0, false},
    {8, 7, 1, 0, false},     {9, 0, 1, 0, false},     {11, 1, 1, 0, false},     {2, 0, 3, 0, false},
    {1002, 17, 1, 0, false}, {1004, 14, 3, 0, false}, {1025, 27, 3, 0, false},  {1031, 3, 3, 0, false},
    {2033, 4, 3, 0, false},  {2, 8, 1, 15, false},    {3, 8, 2, 15, false},     {3, 18, 3, 15, false},
    {7, 9, 3, 15, false},    {3029, 23, 3, 0, false}, {3055, 4, 2, 0, false},   {102, 172, 3, 4, false},
    {101, 669, 3, 4, false}, {73, 38, 3, 3, false},   {204, 112, 2, 15, false}, {77, 218, 1, 15, true},
    {902, 68, 1, 15, true},
};

/* What the seeds before have played goes all ways between nodes. */
static void test_all_ways(void **state) {
  (void)state;
  assert_true(forwarded > 1000 && by_inbox > 1000);
}

static void test_found(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof found / sizeof found[0]; i++) {
    struct sim_options o =
        options(hash_u64(found[i].seed) + (uint64_t)found[i].episode, found[i].nodes, found[i].rough);
    o.after = found[i].after;
    (void)play(&o);
  }
}

static int tell(void **state) {
  (void)state;
  print_message("simulated %.1f hours, %lld fires, 0 lost, 0 doubled, 0 stuck; %lld reports passed on, %lld "
                "by the inbox\n",
                hours, (long long)fires, (long long)forwarded, (long long)by_inbox);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_calm),        cmocka_unit_test(test_same_seed_same_digest),
      cmocka_unit_test(test_one_node),    cmocka_unit_test(test_two_nodes),
      cmocka_unit_test(test_three_nodes), cmocka_unit_test(test_rough),
      cmocka_unit_test(test_limits),      cmocka_unit_test(test_found),
      cmocka_unit_test(test_all_ways),    cmocka_unit_test(test_after)};
  log_level_set(LOG_LEVEL_MAX_);
  return cmocka_run_group_tests(tests, NULL, tell);
}
