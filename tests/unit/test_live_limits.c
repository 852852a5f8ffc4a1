/* Bounds of tasks, groups and namespaces: who starts, who waits and for what, in which order; a random story against a plain count. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/rng.h"
#include "core/live.h"
#include "spec_util.h"

#define SEC USEC_PER_SEC
#define NOW (1000 * SEC)

static struct live *l;
static struct live_out out;
static usec_t now;

static int setup(void **state) {
  (void)state;
  specs_open();
  now = NOW;
  l = live_new(&(struct live_limits){2 * SEC, 2 * SEC}, 1);
  return 0;
}

static int teardown(void **state) {
  (void)state;
  live_out_done(&out);
  live_free(&l);
  specs_close();
  return 0;
}

static struct task_spec *in_group(const char *group, int priority, const char *rest) {
  char text[512];
  struct task_spec *s = NULL;
  struct err e = {0};
  (void)snprintf(
      text, sizeof text,
      "{\"executor_group\":\"%s\",\"handler\":\"h\",\"schedule\":{\"kind\":\"MANUAL\"},\"priority\":%d,"
      "\"overlap_policy\":\"ALLOW\",\"dispatch_timeout\":\"600s\"%s}",
      group, priority, rest);
  if (spec_cache_get(specs, slice_of(text), &s, &e) < 0)
    fail_msg("%s %s", e.field, e.text);
  return s;
}

static struct run_key key(int64_t task, int32_t part) {
  return (struct run_key){.shard = (int32_t)(task % 4), .scheduled_at = NOW, .task_id = task, .part = part};
}

static struct run_row row_of(struct run_key k, enum run_reason reason) {
  bool begun = reason != REASON_QUEUED;
  return (struct run_row){.key = k,
                          .version = 1,
                          .state = RUN_PENDING,
                          .reason = reason,
                          .attempt = begun,
                          .fired_at = now,
                          .attempt_at = begun ? now : 0,
                          .progress = -1};
}

static enum overlap_decision decide(int64_t task, const struct task_spec *s) {
  return live_decide(
      l, &(struct overlap_ask){.task_id = task, .spec = s, .policy = s->overlap_policy, .now = now});
}

/* True: it started. */
static bool fire_as(struct run_key k, struct task_spec *s) {
  enum overlap_decision d = decide(k.task_id, s);
  assert_int_not_equal(d, OVERLAP_DO_SKIP);
  struct run_row row = row_of(k, d == OVERLAP_DO_START ? REASON_DISPATCHING : REASON_QUEUED);
  assert_true(live_open(l, &row, s, false, now, &out));
  return d == OVERLAP_DO_START;
}

static bool fire(struct run_key k, const char *group, int priority, const char *rest) {
  struct task_spec *s = in_group(group, priority, rest);
  bool started = fire_as(k, s);
  task_spec_unref(&s);
  return started;
}

static void end(struct run_key k) {
  live_event(l, &(struct live_event){.kind = EV_DONE_OK, .key = k, .progress = -1}, now, &out);
}

static void settle(void) {
  live_settle(l, &out);
  live_out_clear(&out);
}

/* A turn without events. */
static void turn(void) {
  live_out_clear(&out);
  assert_false(live_tick(l, now, 1000, &out));
}

static void bound(const char *ns, const char *group, int64_t max, double rate, double burst) {
  live_bound(l, slice_of(ns), slice_of(group), &(struct live_bound){max, rate, burst});
}

static int64_t waits(enum run_wait w) {
  int64_t counts[WAIT_MAX_];
  live_count_waits(l, counts);
  return counts[w];
}

static void started_is(int64_t task, int32_t part) {
  assert_int_equal(out.dispatches_count, 1);
  assert_int_equal(out.dispatches[0].key.task_id, task);
  assert_int_equal(out.dispatches[0].key.part, part);
}

/* ALLOW and QUEUE_ALL with max_concurrent: so many at once, the next in the transaction that ends one. */
static void test_task(void **state) {
  (void)state;
  for (int32_t i = 1; i <= 5; i++)
    assert_int_equal(fire(key(1, i), "g", 5, ",\"max_concurrent\":2"), i <= 2);
  assert_int_equal(waits(WAIT_TASK), 3);
  assert_int_equal(live_waits_for(l, &(struct run_key){1, NOW, 1, 3}), WAIT_TASK);
  assert_int_equal(live_waits_for(l, &(struct run_key){1, NOW, 1, 1}), WAIT_NONE);
  live_out_clear(&out);
  end(key(1, 2));
  started_is(1, 3);
  assert_int_equal(out.updates[0].attempt, 1);
  settle();
  turn();
  assert_int_equal(out.dispatches_count, 0);
  end(key(1, 1));
  end(key(1, 3));
  assert_int_equal(out.dispatches_count, 2);
  settle();
  assert_int_equal(waits(WAIT_TASK), 0);
}

/* A group's bound counts the runs of all its tasks; the higher priority goes first, then the older one. */
static void test_group(void **state) {
  (void)state;
  bound("default", "g", 2, 0, 0);
  assert_true(fire(key(1, 1), "g", 5, ""));
  assert_true(fire(key(2, 1), "g", 5, ""));
  assert_true(fire(key(3, 1), "other", 5, ""));
  assert_false(fire(key(4, 1), "g", 1, ""));
  assert_false(fire(key(5, 1), "g", 5, ""));
  now++;
  assert_false(fire(key(6, 1), "g", 9, ""));
  assert_false(fire(key(7, 1), "g", 5, ""));
  assert_int_equal(waits(WAIT_GROUP), 4);
  assert_int_equal(live_waits_for(l, &(struct run_key){3, NOW, 7, 1}), WAIT_GROUP);
  static const int64_t order[] = {6, 5, 7, 4};
  int64_t running = 1;
  for (int i = 0; i < 4; i++) {
    live_out_clear(&out);
    end(key(running, 1));
    started_is(order[i], 1);
    settle();
    running = order[i];
  }
  assert_int_equal(waits(WAIT_GROUP), 0);
  end(key(2, 1));
  settle();
  assert_true(fire(key(8, 1), "g", 5, ""));
  assert_false(fire(key(9, 1), "g", 5, ""));
}

/* One namespace's bound over its groups' bounds: those whose group is full do not stand in the way of others. */
static void test_namespace(void **state) {
  (void)state;
  bound("default", "g", 1, 0, 0);
  bound("default", NULL, 3, 0, 0);
  assert_true(fire(key(1, 1), "g", 5, ""));
  assert_false(fire(key(2, 1), "g", 9, "")); /* its group is full */
  assert_true(fire(key(3, 1), "a", 5, ""));
  assert_true(fire(key(4, 1), "b", 5, ""));
  assert_false(fire(key(5, 1), "a", 1, ""));
  assert_false(fire(key(6, 1), "b", 2, ""));
  assert_int_equal(waits(WAIT_GROUP), 1);
  assert_int_equal(waits(WAIT_NAMESPACE), 2);
  live_out_clear(&out);
  end(key(3, 1));
  started_is(6, 1);
  settle();
  live_out_clear(&out);
  end(key(1, 1)); /* now its group has room, and it has the highest priority */
  started_is(2, 1);
  settle();
  live_out_clear(&out);
  end(key(4, 1));
  started_is(5, 1);
  settle();
}

/* A bucket: `burst` at once, then `rate` a second; who waits is woken in time. */
static void test_rate(void **state) {
  (void)state;
  bound("default", "g", 0, 2, 3);
  for (int32_t i = 1; i <= 5; i++)
    assert_int_equal(fire(key(i, 1), "g", 5, ""), i <= 3);
  assert_int_equal(waits(WAIT_RATE), 2);
  assert_true(live_next_wake(l) > NOW && live_next_wake(l) <= NOW + SEC / 2 + 1);
  live_out_clear(&out);
  now = NOW + SEC / 2 - 10;
  turn();
  assert_int_equal(out.dispatches_count, 0);
  settle();
  now = NOW + SEC / 2 + 1;
  turn();
  started_is(4, 1);
  settle();
  assert_true(live_next_wake(l) <= NOW + SEC + 2);
  now = NOW + SEC + 2;
  turn();
  started_is(5, 1);
  settle();
  now += 60 * SEC; /* a rest: no more than the burst */
  for (int32_t i = 1; i <= 4; i++)
    assert_int_equal(fire(key(10 + i, 1), "g", 5, ""), i <= 3);
  live_out_clear(&out);
  live_event(l, &(struct live_event){.kind = EV_CANCEL, .key = key(14, 1), .progress = -1}, now, &out);
  settle();
  now -= SEC; /* the estimate of the time is set back: the bucket does not wait for what was */
  assert_false(fire(key(15, 1), "g", 5, ""));
  now += SEC / 2 + 2;
  turn();
  started_is(15, 1);
  settle();
}

/* A further attempt is not held up; what begins next pays for it. */
static void test_rate_and_retries(void **state) {
  (void)state;
  bound("default", "g", 0, 1, 1);
  assert_true(
      fire(key(1, 1), "g", 5, ",\"retry\":{\"max_attempts\":2,\"initial_interval\":\"1s\",\"jitter\":0}"));
  live_event(l, &(struct live_event){.kind = EV_REFUSE, .key = key(1, 1), .progress = -1}, now, &out);
  settle();
  now += SEC;
  turn();
  started_is(1, 1);
  settle();
  assert_false(fire(key(2, 1), "g", 5, ""));
  now += SEC + 1;
  turn();
  started_is(2, 1);
  settle();
}

/* Bounds that come, change and go while runs are under way; none of it while a reservation is out. */
static void test_changes(void **state) {
  (void)state;
  for (int32_t i = 1; i <= 4; i++)
    assert_true(fire(key(i, 1), "g", 5, ""));
  bound("default", "g", 2, 0, 0);
  assert_false(fire(key(5, 1), "g", 5, ""));
  live_out_clear(&out);
  end(key(1, 1));
  end(key(2, 1));
  assert_int_equal(out.dispatches_count, 0); /* there are two still */
  settle();
  struct task_spec *s = in_group("x", 5, "");
  assert_int_equal(decide(6, s), OVERLAP_DO_START);
  bound("default", "g", 3, 0, 0);
  turn();
  assert_int_equal(out.dispatches_count, 0);
  live_undecide(l, 6, s, false);
  turn();
  started_is(5, 1);
  settle();
  assert_false(fire(key(7, 1), "g", 5, ""));
  assert_false(fire(key(8, 1), "g", 5, ""));
  live_out_clear(&out);
  end(key(3, 1)); /* in one turn with the change of the bound: the end counts once */
  bound("default", "g", 4, 0, 0);
  (void)live_tick(l, now, 10, &out);
  assert_int_equal(out.dispatches_count, 2);
  settle();
  bound("default", "g", 0, 0, 0);
  for (int32_t i = 10; i <= 15; i++)
    assert_true(fire(key(i, 1), "g", 5, ""));
  task_spec_unref(&s);
}

/* Reservations count, and those who wait are not overtaken. */
static void test_reservations(void **state) {
  (void)state;
  struct task_spec *s = in_group("g", 5, "");
  bound("default", "g", 1, 0, 0);
  assert_int_equal(decide(1, s), OVERLAP_DO_START);
  assert_false(fire_as(key(2, 1), s));
  live_undecide(l, 1, s, false);
  assert_int_equal(decide(3, s), OVERLAP_DO_QUEUE); /* the other one is about to start */
  live_undecide(l, 3, s, true);
  turn();
  started_is(2, 1);
  settle();
  task_spec_unref(&s);
}

/* Taken over, all count, even beyond the bound; while a shard is still to be read nothing starts; a shard that is lost makes room. */
static void test_take_over(void **state) {
  (void)state;
  struct task_spec *s = in_group("g", 5, ""), *free = in_group("free", 5, "");
  bound("default", "g", 2, 0, 0);
  live_hold(l, true);
  assert_false(fire_as(key(9, 1), s));
  assert_true(fire_as(key(9, 2), free));
  for (int64_t t = 1; t <= 3; t++) {
    struct run_row row = row_of(key(t, 1), REASON_DISPATCHING);
    assert_true(live_open(l, &row, s, true, now, &out));
  }
  turn();
  assert_int_equal(out.dispatches_count, 0);
  settle();
  live_hold(l, false);
  turn();
  assert_int_equal(out.dispatches_count, 0);
  settle();
  end(key(1, 1));
  assert_int_equal(out.dispatches_count, 0);
  settle();
  struct live_out lost = {0};
  live_drop_shard(l, 3, &lost);
  turn();
  started_is(9, 1);
  settle();
  live_out_done(&lost);
  task_spec_unref(&s);
  task_spec_unref(&free);
}

/* Whoever waits for a bound until its time is up has expired; a cancelled one lets the next go on. */
static void test_expires(void **state) {
  (void)state;
  bound("default", "g", 1, 0, 0);
  assert_true(fire(key(1, 1), "g", 5, ""));
  assert_false(fire(key(2, 1), "g", 9, ",\"timeout\":\"10s\""));
  assert_false(fire(key(3, 1), "g", 8, ""));
  assert_false(fire(key(4, 1), "g", 7, ""));
  live_out_clear(&out);
  live_event(l, &(struct live_event){.kind = EV_CANCEL, .key = key(3, 1), .progress = -1}, now, &out);
  settle();
  now += 10 * SEC;
  end(key(1, 1));
  started_is(4, 1);
  assert_int_equal(out.finishes_count, 2);
  assert_int_equal(out.finishes[1].reason, REASON_EXPIRED);
  settle();
}

/* ---------------------------------------------------------------- a random story */

enum { TASKS = 24, GROUPS = 4, RUNS_MOST = 400 };

struct story_run {
  struct run_key k;
  struct task_spec *spec;
  int group;
  bool queued, active;
};
static struct {
  struct rng rng;
  struct story_run runs[RUNS_MOST];
  size_t count;
  int64_t max[GROUPS], ns_max, task_max[TASKS];
  struct task_spec *specs[TASKS];
  int32_t parts;
} story;

static struct story_run *story_find(const struct run_key *k) {
  for (size_t i = 0; i < story.count; i++)
    if (run_key_eq(&story.runs[i].k, k))
      return &story.runs[i];
  return NULL;
}

static void story_fire(void) {
  int64_t task = (int64_t)rng_below(&story.rng, TASKS);
  if (story.count == RUNS_MOST)
    return;
  struct run_key k = key(task, ++story.parts);
  bool started = fire_as(k, story.specs[task]);
  story.runs[story.count++] =
      (struct story_run){k, story.specs[task], (int)(task % GROUPS), !started, started};
}

static void story_end(void) {
  if (!story.count)
    return;
  struct story_run *r = &story.runs[rng_below(&story.rng, story.count)];
  enum run_event kind = rng_below(&story.rng, 5) ? EV_DONE_OK : EV_CANCEL;
  live_event(l, &(struct live_event){.kind = kind, .key = r->k, .progress = -1}, now, &out);
}

/* Take in what the turn brought out. */
static void story_settle(void) {
  for (size_t i = 0; i < out.finishes_count; i++) {
    struct story_run *r = story_find(&out.finishes[i].key);
    assert_non_null(r);
    *r = story.runs[--story.count];
  }
  for (size_t i = 0; i < out.updates_count; i++) {
    struct story_run *r = story_find(&out.updates[i].key);
    assert_non_null(r);
    if (out.updates[i].reason == REASON_DISPATCHING) {
      assert_true(r->queued);
      r->queued = false;
      r->active = true;
    }
  }
  settle();
}

struct counts {
  int64_t task[TASKS], group[GROUPS], all;
};

static struct counts story_counts(void) {
  struct counts c = {0};
  for (size_t i = 0; i < story.count; i++)
    if (story.runs[i].active) {
      c.task[story.runs[i].k.task_id]++;
      c.group[story.runs[i].group]++;
      c.all++;
    }
  return c;
}

static bool story_has_room(const struct counts *c, const struct story_run *r) {
  int64_t task_max = story.task_max[r->k.task_id];
  return (!task_max || c->task[r->k.task_id] < task_max) &&
         (!story.max[r->group] || c->group[r->group] < story.max[r->group]) &&
         (!story.ns_max || c->all < story.ns_max);
}

static bool within(int64_t n, int64_t max, int64_t before) { return !max || n <= max || n <= before; }

/* After a turn: never more than the bounds, or than before they were lowered; and nobody waits who could go. */
static void story_check(struct counts *before) {
  struct counts c = story_counts();
  int64_t queued = 0, counted = 0, by[WAIT_MAX_];
  for (size_t i = 0; i < story.count; i++) {
    const struct story_run *r = &story.runs[i];
    queued += r->queued;
    assert_true(!r->queued || !story_has_room(&c, r));
    assert_int_equal(live_waits_for(l, &r->k) != WAIT_NONE, r->queued);
  }
  for (int i = 0; i < TASKS; i++)
    assert_true(!story.task_max[i] || c.task[i] <= story.task_max[i]);
  for (int i = 0; i < GROUPS; i++)
    assert_true(within(c.group[i], story.max[i], before->group[i]));
  assert_true(within(c.all, story.ns_max, before->all));
  *before = c;
  live_count_waits(l, by);
  for (int w = 0; w < WAIT_MAX_; w++) {
    assert_true(by[w] >= 0);
    counted += by[w];
  }
  assert_int_equal(counted, queued);
}

static void story_bounds(void) {
  static const char *const groups[] = {"a", "b", "c", "d"};
  int i = (int)rng_below(&story.rng, GROUPS + 1);
  int64_t max = (int64_t)rng_below(&story.rng, 7);
  if (i == GROUPS) {
    story.ns_max = max * 2;
    bound("default", NULL, max * 2, 0, 0);
  } else {
    story.max[i] = max;
    bound("default", groups[i], max, 0, 0);
  }
}

static void test_story(void **state) {
  (void)state;
  static const char *const groups[] = {"a", "b", "c", "d"};
  for (uint64_t seed = 1; seed <= 40; seed++) {
    rng_seed(&story.rng, seed);
    story.count = 0;
    story.ns_max = 0;
    memset(story.max, 0, sizeof story.max);
    for (int i = 0; i < TASKS; i++) {
      char rest[64] = "";
      story.task_max[i] = i % 3 == 0 ? 1 + i % 4 : 0;
      if (story.task_max[i])
        (void)snprintf(rest, sizeof rest, ",\"max_concurrent\":%d", (int)story.task_max[i]);
      story.specs[i] = in_group(groups[i % GROUPS], i % 10, rest);
    }
    struct counts before = {0};
    for (int n = 0; n < 300; n++) {
      live_out_clear(&out);
      now += (usec_t)rng_below(&story.rng, SEC);
      for (uint64_t i = rng_below(&story.rng, 4); i; i--)
        story_fire();
      live_out_clear(&out);
      if (n % 40 == 20) {
        before = story_counts();
        story_bounds();
      }
      for (uint64_t i = rng_below(&story.rng, 5); i; i--)
        story_end();
      (void)live_tick(l, now, 1000, &out);
      if (rng_below(&story.rng, 3) == 0) { /* between a step and its settle the trigger goes on */
        struct live_out step = out;
        out = (struct live_out){0};
        story_fire();
        live_out_done(&out);
        out = step;
      }
      story_settle();
      turn();
      story_settle();
      story_check(&before);
    }
    while (story.count) {
      now += SEC;
      live_out_clear(&out);
      story_end();
      story_settle();
      turn();
      story_settle();
    }
    for (int i = 0; i < TASKS; i++)
      task_spec_unref(&story.specs[i]);
    live_free(&l);
    l = live_new(&(struct live_limits){2 * SEC, 2 * SEC}, seed);
  }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
  const struct CMUnitTest tests[] = {TEST(test_task),
                                     TEST(test_group),
                                     TEST(test_namespace),
                                     TEST(test_rate),
                                     TEST(test_rate_and_retries),
                                     TEST(test_changes),
                                     TEST(test_reservations),
                                     TEST(test_take_over),
                                     TEST(test_expires),
                                     TEST(test_story)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
