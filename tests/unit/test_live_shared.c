/* Bounds that several nodes share: this node's part, what comes and goes with runs, and a story of several nodes against the whole bound. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "core/live.h"
#include "core/share.h"
#include "spec_util.h"

#define SEC USEC_PER_SEC
#define NOW (1000 * SEC)

static struct live *l;
static struct live_out out;
static const char *const ALLOW = ",\"overlap_policy\":\"ALLOW\"";

static struct live *node_new(void) {
  struct live *x = live_new(&(struct live_limits){2 * SEC, 2 * SEC}, 1);
  live_bound(x, SLICE("default"), SLICE("g"), &(struct live_bound){.max_concurrent = 3});
  return x;
}

static int setup(void **state) {
  (void)state;
  specs_open();
  l = node_new();
  return 0;
}

static int teardown(void **state) {
  (void)state;
  live_out_done(&out);
  live_free(&l);
  specs_close();
  return 0;
}

static struct run_key key(int64_t n, int32_t shard) {
  return (struct run_key){.shard = shard, .scheduled_at = NOW + n, .task_id = 1};
}

static struct run_row row_of(struct run_key k, enum run_reason reason) {
  return (struct run_row){.key = k,
                          .version = 1,
                          .state = RUN_PENDING,
                          .reason = reason,
                          .attempt = reason == REASON_DISPATCHING,
                          .fired_at = k.scheduled_at,
                          .attempt_at = reason == REASON_DISPATCHING ? NOW : 0,
                          .progress = -1};
}

/* True: it started. */
static bool fire(struct live *x, struct run_key k) {
  struct task_spec *s = spec_of(MANUAL, ALLOW);
  bool starts =
      live_decide(x, &(struct overlap_ask){.task_id = 1, .spec = s, .policy = OVERLAP_ALLOW, .now = NOW}) ==
      OVERLAP_DO_START;
  struct run_row row = row_of(k, starts ? REASON_DISPATCHING : REASON_QUEUED);
  assert_true(live_open(x, &row, s, false, NOW, &out));
  task_spec_unref(&s);
  live_out_clear(&out);
  return starts;
}

static void adopt(struct live *x, struct run_key k, enum run_reason reason) {
  struct task_spec *s = spec_of(MANUAL, ALLOW);
  struct run_row row = row_of(k, reason);
  assert_true(live_open(x, &row, s, true, NOW, &out));
  task_spec_unref(&s);
  live_out_clear(&out);
}

static void end(struct live *x, struct run_key k) {
  live_event(x, &(struct live_event){.kind = EV_DONE_OK, .key = k, .progress = -1}, NOW, &out);
  live_settle(x, &out);
  live_out_clear(&out);
}

/* How many start now. */
static size_t turn(struct live *x) {
  assert_false(live_tick(x, NOW, 1000, &out));
  size_t n = out.dispatches_count;
  live_settle(x, &out);
  live_out_clear(&out);
  return n;
}

static struct live_need need(struct live *x) {
  size_t n;
  struct live_need *needs = live_needs(x, &n), one;
  assert_int_equal(n, 1);
  assert_string_equal(needs->ns, "default");
  assert_string_equal(needs->group, "g");
  one = *needs;
  live_needs_free(needs, n);
  return one;
}

static void give(struct live *x, int64_t given, int64_t goal) {
  live_part(x, &(struct live_need){.ns = (char[]){"default"}, .group = (char[]){"g"}}, given, goal);
}

static void is(struct live *x, int64_t part, int64_t want) {
  assert_int_equal(need(x).part, part);
  assert_int_equal(need(x).want, want);
}

/* Alone the bound is the bound; from when it is shared on, what runs, and what is given. */
static void test_parts(void **state) {
  (void)state;
  assert_true(fire(l, key(1, 0)) && fire(l, key(2, 0)));
  live_share(l, true, 1);
  is(l, 2, 2);
  assert_false(fire(l, key(3, 0)));
  is(l, 2, 3);
  assert_int_equal(turn(l), 0);
  give(l, 1, 3);
  assert_int_equal(turn(l), 1);
  is(l, 3, 3);
  give(l, 0, 1); /* others need some: as runs end */
  is(l, 3, 3);
  assert_false(fire(l, key(4, 0)));
  end(l, key(1, 0));
  assert_int_equal(turn(l), 0);
  is(l, 2, 3);
  end(l, key(2, 0));
  is(l, 1, 2);
  end(l, key(3, 0)); /* one at a time is left */
  is(l, 1, 1);
  end(l, key(4, 0));
  is(l, 1, 0);
  give(l, 2, 0); /* nothing runs: all of it goes back at once */
  is(l, 0, 0);
  assert_false(fire(l, key(5, 0)));
}

/* The place of an active run goes with its shard, and comes with it. */
static void test_places_move_with_runs(void **state) {
  (void)state;
  live_share(l, true, 1);
  is(l, 0, 0);
  give(l, 3, 3);
  assert_true(fire(l, key(1, 0)) && fire(l, key(2, 1)) && fire(l, key(3, 1)));
  assert_false(fire(l, key(4, 0)));
  live_drop_shard(l, 1, &out);
  is(l, 1, 2);
  assert_int_equal(turn(l), 0);
  adopt(l, key(2, 1), REASON_DISPATCHING);
  is(l, 2, 3);
  adopt(l, key(5, 1), REASON_QUEUED); /* it has no place */
  is(l, 2, 4);
  assert_int_equal(turn(l), 0);
  end(l, key(2, 1));
  is(l, 2, 3);
}

static void test_a_bound_that_is_new_or_gone(void **state) {
  (void)state;
  live_share(l, true, 1);
  give(l, 3, 3);
  assert_true(fire(l, key(1, 0)) && fire(l, key(2, 0)));
  live_bound(l, SLICE("default"), SLICE("g"), &(struct live_bound){0});
  size_t n;
  struct live_need *needs = live_needs(l, &n);
  assert_int_equal(n, 0);
  live_needs_free(needs, n);
  give(l, 1, 1); /* too late: nothing comes of it */
  assert_true(fire(l, key(3, 0)));
  live_bound(l, SLICE("default"), SLICE("g"), &(struct live_bound){.max_concurrent = 5});
  is(l, 3, 3); /* what runs already */
  assert_false(fire(l, key(4, 0)));
}

static void test_rates(void **state) {
  (void)state;
  live_bound(l, SLICE("default"), SLICE("g"), &(struct live_bound){.rate = 8, .burst = 8});
  live_share(l, true, .25);
  size_t started = 0;
  for (int i = 0; i < 6; i++)
    started += fire(l, key(i, 0));
  assert_int_equal(started, 2);
  assert_false(live_tick(l, NOW + SEC + 2, 1000, &out)); /* two a second, and the rounding up of an instant */
  assert_in_range(out.dispatches_count, 1, 2);
}

/* Three nodes with parts of 3, whatever starts, ends, is given and moves: never more than 3 at once, and everybody comes to it. */
static void test_three_nodes(void **state) {
  enum { NODES = 3, RUNS = 60 };
  struct live *nodes[NODES];
  int owner[NODES] = {0, 1, 2}; /* by shard */
  int64_t rows[NODES] = {0}, done = 0;
  bool running[NODES][RUNS] = {{false}}, waiting[NODES][RUNS] = {{false}};
  (void)state;
  for (int i = 0; i < NODES; i++) {
    nodes[i] = node_new();
    live_share(nodes[i], true, 1. / NODES);
    for (int k = 0; k < RUNS / NODES; k++) {
      assert_false(fire(nodes[i], key(k, i)));
      waiting[i][k] = true;
    }
  }
  for (uint64_t round = 0; round < 2000 && done < RUNS; round++) {
    int64_t want[NODES], taken = 0, all = 0;
    for (int i = 0; i < NODES; i++) { /* exchange: everybody says what it has, and takes of what is free */
      want[i] = need(nodes[i]).want;
      rows[i] = need(nodes[i]).part;
      taken += rows[i];
    }
    for (size_t i = 0; i < NODES; i++) {
      struct share_ask ask = {3, want, NODES, round / 3};
      int64_t target = share_target(&ask, i), more = target - rows[i], left = 3 - taken;
      more = more < 0 ? 0 : more > left ? left : more;
      taken += more;
      give(nodes[i], more, target);
    }
    assert_true(taken <= 3);
    for (int i = 0; i < NODES; i++) {
      assert_false(live_tick(nodes[i], NOW, 1000, &out));
      for (size_t d = 0; d < out.dispatches_count; d++) {
        int64_t k = out.dispatches[d].key.scheduled_at - NOW;
        running[out.dispatches[d].key.shard][k] = true;
        waiting[out.dispatches[d].key.shard][k] = false;
      }
      live_settle(nodes[i], &out);
      live_out_clear(&out);
    }
    for (int s = 0; s < NODES; s++)
      for (int k = 0; k < RUNS; k++)
        all += running[s][k];
    assert_true(all <= 3);
    if (round % 5 == 4) { /* a shard moves, with what runs */
      int s = (int)(round % NODES), from = owner[s];
      live_drop_shard(nodes[from], s, &out);
      live_out_clear(&out);
      owner[s] = (from + 1) % NODES;
      for (int k = 0; k < RUNS; k++)
        if (running[s][k] || waiting[s][k])
          adopt(nodes[owner[s]], key(k, s), running[s][k] ? REASON_DISPATCHING : REASON_QUEUED);
    }
    for (int s = 0; s < NODES; s++)
      for (int k = 0; k < RUNS; k++)
        if (running[s][k] && (round + (uint64_t)k) % 3 == 0) {
          live_event(nodes[owner[s]],
                     &(struct live_event){.kind = EV_DONE_OK, .key = key(k, s), .progress = -1}, NOW, &out);
          for (size_t d = 0; d < out.dispatches_count; d++) { /* its successor, in the same turn */
            int64_t j = out.dispatches[d].key.scheduled_at - NOW;
            running[out.dispatches[d].key.shard][j] = true;
            waiting[out.dispatches[d].key.shard][j] = false;
          }
          live_settle(nodes[owner[s]], &out);
          live_out_clear(&out);
          running[s][k] = false;
          done++;
        }
  }
  assert_int_equal(done, RUNS);
  for (int i = 0; i < NODES; i++)
    live_free(&nodes[i]);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
  const struct CMUnitTest tests[] = {
      T(test_parts), T(test_places_move_with_runs), T(test_a_bound_that_is_new_or_gone),
      T(test_rates), T(test_three_nodes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
