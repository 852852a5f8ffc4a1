/* Which shards a node claims and which it hands over: all nodes together, turn by turn, until nothing moves. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "core/shares.h"

enum { SHARDS = 32, MOVES = 4 };

static struct share_node nodes[8];
static size_t count;
static struct share_shard shards[SHARDS];

static void begin(size_t n) {
  count = n;
  for (size_t i = 0; i < n; i++)
    nodes[i] = (struct share_node){true, false, SHARE_FULL};
  for (int32_t i = 0; i < SHARDS; i++)
    shards[i] = (struct share_shard){.id = i, .owner = -1};
}

static void own(int32_t from, int32_t n, int32_t owner) {
  for (int32_t i = from; i < from + n; i++)
    shards[i].owner = owner;
}

static int32_t have(int32_t node) {
  int32_t n = 0;
  for (int32_t i = 0; i < SHARDS; i++)
    n += shards[i].owner == node;
  return n;
}

static struct share_plan plan(size_t me, int32_t claim[SHARDS], int32_t release[SHARDS]) {
  struct share_plan p = {.claim = claim, .release = release};
  shares_plan(&(struct share_view){nodes, count, shards, SHARDS, me, MOVES}, &p);
  return p;
}

/* All nodes see the same, then all do what they planned. Returns how many shards moved. */
static size_t turn(void) {
  static int32_t claim[8][SHARDS], release[8][SHARDS];
  struct share_plan p[8];
  size_t moved = 0;
  for (size_t i = 0; i < count; i++)
    p[i] = plan(i, claim[i], release[i]);
  for (size_t i = 0; i < count; i++) {
    if (!nodes[i].alive)
      continue;
    for (size_t k = 0; k < p[i].claims; k++) {
      assert_int_equal(shards[p[i].claim[k]].owner, -1); /* nobody else claims it in this turn */
      shards[p[i].claim[k]].owner = (int32_t)i;
    }
    for (size_t k = 0; k < p[i].releases; k++) {
      assert_int_equal(shards[p[i].release[k]].owner, i);
      shards[p[i].release[k]].owner = -1;
    }
    moved += p[i].claims + p[i].releases;
  }
  return moved;
}

static int settle(void) {
  int turns = 0;
  while (turn())
    assert_true(++turns < 100);
  return turns;
}

static void test_first(void **state) {
  (void)state;
  begin(3);
  assert_int_equal(settle(), 1); /* all at once: nobody waits for balance */
  assert_int_equal(have(0), 11);
  assert_int_equal(have(1), 11);
  assert_int_equal(have(2), 10);
}

static void test_joiner(void **state) {
  (void)state;
  begin(2);
  own(0, SHARDS, 0);
  for (int32_t free = 0, before = 32; turn(); before = have(0)) {
    free = have(-1);
    assert_true(free <= MOVES);
    assert_true(have(0) <= before); /* it never takes back what it gave up */
  }
  assert_int_equal(have(0), 16);
  assert_int_equal(have(1), 16);
  count = 3;
  nodes[2] = (struct share_node){true, false, SHARE_FULL};
  (void)settle();
  assert_int_equal(have(0), 11);
  assert_int_equal(have(1), 11);
  assert_int_equal(have(2), 10);
  assert_int_equal(turn(), 0);
}

static void test_odd_ones_do_not_move(void **state) {
  (void)state;
  begin(3);
  own(0, 10, 0);
  own(10, 11, 1);
  own(21, 11, 2);
  assert_int_equal(turn(), 0);
}

static void test_death(void **state) {
  (void)state;
  begin(3);
  (void)settle();
  nodes[1].alive = false;
  for (int32_t i = 0; i < SHARDS; i++)
    if (shards[i].owner == 1)
      shards[i] = (struct share_shard){.id = i, .owner = -1, .lapsed = true};
  assert_int_equal(turn(), 11); /* at once */
  assert_int_equal(have(0), 16);
  assert_int_equal(have(2), 16);
}

static void test_drain(void **state) {
  (void)state;
  begin(3);
  (void)settle();
  nodes[0].drained = true;
  (void)settle();
  assert_int_equal(have(0), 0);
  assert_int_equal(have(1), 16);
  assert_int_equal(have(2), 16);
  nodes[0].drained = false;
  (void)settle();
  assert_int_equal(have(0), 10);
  nodes[1].share = nodes[2].share = SHARE_NONE; /* they leave */
  (void)settle();
  assert_int_equal(have(0), SHARDS);
}

static void test_drained_alone(void **state) {
  int32_t claim[SHARDS], release[SHARDS];
  (void)state;
  begin(1);
  own(0, SHARDS, 0);
  nodes[0].drained = true;
  struct share_plan p = plan(0, claim, release);
  assert_int_equal(p.releases, SHARDS); /* nobody takes them: there is nothing to wait for */
  assert_false(p.takers);
  own(0, SHARDS, -1);
  assert_int_equal(turn(), 0);
}

static void test_clock(void **state) {
  (void)state;
  begin(3);
  (void)settle();
  nodes[2].share = SHARE_LAST;
  (void)settle();
  assert_int_equal(have(2), 0);
  nodes[0].share = SHARE_LAST;
  (void)settle();
  assert_int_equal(have(1), SHARDS);
  nodes[1].share = SHARE_LAST; /* no clock is in order: as if all were */
  (void)settle();
  assert_int_equal(have(0), 11);
  assert_int_equal(have(1), 11);
}

/* A clock out of order alone gives nothing to those that take nothing. */
static void test_clock_and_slow(void **state) {
  (void)state;
  begin(2);
  own(0, SHARDS, 0);
  nodes[0].share = SHARE_LAST;
  nodes[1].share = SHARE_KEEP;
  assert_int_equal(turn(), 0);
}

static void test_slow_keeps(void **state) {
  (void)state;
  begin(3);
  own(0, 2, 0);
  own(2, 30, 1);
  nodes[0].share = SHARE_KEEP;
  (void)settle();
  assert_int_equal(have(0), 2);
  assert_int_equal(have(1), 15);
  assert_int_equal(have(2), 15);
  nodes[2].alive = false;
  nodes[1].share = SHARE_KEEP; /* all are slow: whose lease has passed may live */
  for (int32_t i = 0; i < SHARDS; i++)
    if (shards[i].owner == 2)
      shards[i] = (struct share_shard){.id = i, .owner = -1, .lapsed = true, .waited = true};
  assert_int_equal(turn(), 0);
  for (int32_t i = 0; i < SHARDS; i++)
    shards[i].lapsed = shards[i].waited = false; /* what was released is nobody's */
  assert_int_equal(turn(), 15);
}

/* A starting node is not waited for, nor are shards given up for it. */
static void test_starting(void **state) {
  (void)state;
  begin(2);
  own(0, SHARDS, 0);
  nodes[1].share = SHARE_KEEP;
  assert_int_equal(turn(), 0);
}

static void test_waited(void **state) {
  int32_t claim[SHARDS], release[SHARDS];
  (void)state;
  begin(2);
  own(0, 16, 0);
  own(16, 15, 1);
  assert_int_equal(plan(0, claim, release).claims, 0); /* node 1's turn */
  shards[31].waited = true;
  struct share_plan p = plan(0, claim, release);
  assert_int_equal(p.claims, 1);
  assert_int_equal(claim[0], 31);
}

static void test_going_is_counted(void **state) {
  int32_t claim[SHARDS], release[SHARDS];
  (void)state;
  begin(2);
  own(0, SHARDS, 0);
  shards[0].going = shards[1].going = shards[2].going = true;
  struct share_plan p = plan(0, claim, release);
  assert_int_equal(p.releases, 1);
  assert_int_equal(release[0], 3);
  assert_int_equal(p.claims, 0);
}

static void test_not_there(void **state) {
  int32_t claim[SHARDS], release[SHARDS];
  (void)state;
  begin(2);
  struct share_plan p = {.claim = claim, .release = release};
  shares_plan(&(struct share_view){nodes, count, shards, SHARDS, count, MOVES}, &p);
  assert_int_equal(p.claims + p.releases, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_first),
                                     cmocka_unit_test(test_joiner),
                                     cmocka_unit_test(test_odd_ones_do_not_move),
                                     cmocka_unit_test(test_death),
                                     cmocka_unit_test(test_drain),
                                     cmocka_unit_test(test_drained_alone),
                                     cmocka_unit_test(test_clock),
                                     cmocka_unit_test(test_clock_and_slow),
                                     cmocka_unit_test(test_slow_keeps),
                                     cmocka_unit_test(test_starting),
                                     cmocka_unit_test(test_waited),
                                     cmocka_unit_test(test_going_is_counted),
                                     cmocka_unit_test(test_not_there)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
