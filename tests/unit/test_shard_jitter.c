/* Jitter that is edited: every instant is decided once, whatever is changed between its nominal and its due time, and a new owner comes to
 * the same from the watermark and the versions that it asks for. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "core/schedule.h"
#include "core/shard.h"
#include "spec_util.h"

#define SEC USEC_PER_SEC
#define T0  (1000 * SEC)
#define END (T0 + 58 * SEC)

#define JITTERED EVERY("10s") ",\"jitter\":\"9s\""
#define PLAIN    EVERY("10s")

enum { ID = 1, VERSIONS_MAX = 8, FIRED_MAX = 64 };
static struct plan { /* what the database holds */
  enum task_state state;
  usec_t begin;
  const char *schedule, *rest;
} plans[VERSIONS_MAX];
static int plan_count;

static struct fired {
  usec_t at;
  int32_t version;
  enum run_reason reason;
} fired[FIRED_MAX];
static size_t fired_count;
static int64_t runs; /* as stored */

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
  plan_count = 0;
  return 0;
}

static int teardown(void **state) {
  (void)state;
  fire_batch_done(&b);
  shard_free(&s);
  specs_close();
  return 0;
}

static void add(enum task_state state, usec_t begin, const char *schedule, const char *rest) {
  plans[plan_count++] = (struct plan){state, begin, schedule, rest};
}

static struct shard_version version(int no) {
  const struct plan *p = &plans[no - 1];
  return (struct shard_version){ID, no, p->state, p->begin, T0, spec_of(p->schedule, p->rest)};
}

/* When the jittered schedule has this instant due. */
static usec_t due_of(usec_t nominal) {
  struct task_spec *spec = spec_of(JITTERED, "");
  usec_t due = nominal + schedule_jitter(spec->schedule, ID, nominal);
  task_spec_unref(&spec);
  return due;
}

/* An instant whose jitter is at least `least`, and a moment in the middle of it. */
static usec_t N, D, MIDDLE;
static void choose(usec_t least) {
  for (N = T0 + 10 * SEC; due_of(N) - N < least; N += 10 * SEC)
    assert_true(N < T0 + 40 * SEC);
  D = due_of(N);
  MIDDLE = N + (D - N) / 2;
}

/* ---------------------------------------------------------------- owners */

/* As an owner loads: the newest version, and of those before what is asked for. */
static void load(int newest, usec_t at) {
  shard_free(&s);
  s = shard_new(3, &(struct shard_limits){.max_rows = 100, .max_work = 1000, .idle_advance = 10 * SEC});
  shard_reset(s, 5, newest, at, INT64_MAX);
  usec_t since = at;
  int known = newest;
  for (int no = newest; no >= 1; no--) { /* its successor rules later than `since`: it is asked for */
    if (no < newest && plans[no].begin <= since)
      break;
    struct shard_version v = version(no);
    usec_t needs = shard_needs_since(&v, at);
    since = needs < since ? needs : since;
    shard_put(s, &v);
    known = no;
  }
  assert_true(known >= 1);
  shard_put_progress(s, ID, 0, runs, false);
  shard_loaded(s);
}

static void collect(usec_t now) {
  if (!shard_collect(s, now, &OVERLAP, NULL, 0, &b))
    return;
  for (size_t i = 0; i < b.count; i++) {
    const struct fire_item *it = &b.items[i];
    assert_true(fired_count < FIRED_MAX);
    fired[fired_count++] = (struct fired){it->key.scheduled_at, it->version, it->reason};
  }
  if (b.progress_count)
    runs = b.progress[0].fired;
  shard_fired(s, &b);
}

enum mode { AT_ONCE, IN_STEP, TAKEN_OVER, MODES };

/* All versions are known beforehand, or each comes when it is made; with a new owner after every step, or the same all the time. */
static void play(enum mode mode) {
  fired_count = 0;
  runs = 0;
  if (mode == AT_ONCE) {
    load(plan_count, T0);
    collect(END);
    return;
  }
  load(1, T0);
  int known = 1;
  for (usec_t now = T0; now < END;) {
    usec_t next = now + SEC / 4;
    if (known < plan_count && plans[known].begin <= next)
      next = plans[known].begin;
    collect(next); /* up to the edit: its version begins where the watermark stands */
    while (known < plan_count && plans[known].begin == next) {
      struct shard_version v = version(++known);
      if (mode == IN_STEP)
        shard_change(s, &v, known);
      else
        task_spec_unref(&v.spec);
    }
    usec_t at;
    int64_t task;
    shard_watermark(s, &at, &task);
    if (mode == TAKEN_OVER)
      load(known, at);
    now = next > now ? next : now + 1;
  }
  collect(END);
}

/* N is decided by this version, 0: by none; every other instant by the version that rules when it comes, if that is ENABLED. */
static void expect(int of_n) {
  static const char *const names[] = {"at once", "in step", "taken over"};
  for (int mode = 0; mode < MODES; mode++) {
    play((enum mode)mode);
    size_t found = 0;
    for (size_t i = 0; i < fired_count; i++) {
      for (size_t k = 0; k < i; k++)
        if (fired[k].at == fired[i].at)
          fail_msg("%s: twice at %lld", names[mode], (long long)(fired[i].at - T0));
      if (fired[i].at != N)
        continue;
      found++;
      assert_int_equal(fired[i].version, of_n);
    }
    if (found != (of_n != 0))
      fail_msg("%s: N has %zu rows", names[mode], found);
  }
}

static size_t rows_at(usec_t at) {
  size_t n = 0;
  for (size_t i = 0; i < fired_count; i++)
    n += fired[i].at == at;
  return n;
}

/* ---------------------------------------------------------------- what is edited */

static void test_shortened(void **state) {
  (void)state;
  choose(SEC);
  add(TASK_ENABLED, T0, JITTERED, "");
  add(TASK_ENABLED, MIDDLE, PLAIN, "");
  expect(2);
  for (usec_t at = T0 + 10 * SEC; at < END; at += 10 * SEC)
    assert_int_equal(rows_at(at), 1);
}

static void test_lengthened(void **state) {
  (void)state;
  choose(SEC);
  add(TASK_ENABLED, T0, PLAIN, "");
  add(TASK_ENABLED, N + 1, JITTERED, "");
  expect(1);
}

static void test_shortened_and_lengthened(void **state) {
  (void)state;
  choose(SEC);
  add(TASK_ENABLED, T0, JITTERED, "");
  add(TASK_ENABLED, MIDDLE, PLAIN, "");
  add(TASK_ENABLED, MIDDLE + 1000, JITTERED, "");
  expect(2);
}

/* The first of two edits at the same moment rules nothing: what it would have decided goes on. */
static void test_two_edits_at_once(void **state) {
  (void)state;
  choose(SEC);
  add(TASK_ENABLED, T0, JITTERED, "");
  add(TASK_ENABLED, MIDDLE, PLAIN, "");
  add(TASK_ENABLED, MIDDLE, JITTERED, "");
  expect(3);
  plans[2].schedule = PLAIN;
  expect(3);
}

static void test_three_lengths(void **state) {
  (void)state;
  choose(2 * SEC);
  add(TASK_ENABLED, T0, JITTERED, "");
  add(TASK_ENABLED, N + 1, EVERY("10s") ",\"jitter\":\"8s\"", ""); /* due before D, after the next edit */
  add(TASK_ENABLED, N + 2, EVERY("10s") ",\"jitter\":\"1ms\"", "");
  expect(3);
}

static void test_paused_in_between(void **state) {
  (void)state;
  choose(SEC);
  add(TASK_ENABLED, T0, JITTERED, "");
  add(TASK_PAUSED, MIDDLE, JITTERED, "");
  add(TASK_ENABLED, MIDDLE + 1000, JITTERED, "");
  expect(3); /* due after the pause */
  plans[2].begin = D;
  expect(0); /* due in the pause */
  plans[2].begin = D - 1;
  expect(3);
  plans[1].schedule = PLAIN;
  expect(0);               /* due at once, in the pause */
  plans[2].begin = MIDDLE; /* a pause of no length */
  expect(3);
}

static void test_came_in_a_pause(void **state) {
  (void)state;
  choose(SEC);
  add(TASK_ENABLED, T0, JITTERED, "");
  add(TASK_PAUSED, N - 1, JITTERED, "");
  add(TASK_ENABLED, MIDDLE, JITTERED, "");
  expect(3);
  plans[1].schedule = PLAIN;
  expect(0);
}

static void test_another_schedule(void **state) {
  (void)state;
  choose(SEC);
  add(TASK_ENABLED, T0, JITTERED, "");
  add(TASK_ENABLED, MIDDLE, EVERY("7h"), "");
  expect(0); /* which has not got that instant */
  plans[1].schedule = JITTERED ",\"end_at\":\"1970-01-01T00:16:41Z\"";
  expect(0);
  plans[1].schedule = JITTERED ",\"start_at\":\"1970-01-01T00:17:30Z\"";
  expect(0);
  plans[1].schedule = MANUAL;
  expect(0);
  plans[1].schedule = DELAY("9h");
  expect(0);
  plans[1] = (struct plan){TASK_DELETED, MIDDLE, JITTERED, ""};
  expect(0);
}

/* Not what came before it was made, or before it has that instant. */
static void test_before_its_time(void **state) {
  (void)state;
  choose(SEC);
  add(TASK_ENABLED, T0, EVERY("7h"), "");
  add(TASK_ENABLED, MIDDLE, JITTERED, "");
  expect(0);
}

/* What waits is due right when the next version begins, and so is one of its own. */
static void test_two_at_once(void **state) {
  (void)state;
  choose(2 * SEC);
  add(TASK_ENABLED, T0, JITTERED, "");
  add(TASK_ENABLED, N + SEC - 1, EVERY("1s"), "");
  expect(2);
  assert_int_equal(rows_at(N + SEC), 1);
  add(TASK_ENABLED, N + SEC, EVERY("1s"), ""); /* right between the two */
  expect(2);
  assert_int_equal(rows_at(N + SEC), 1);
  assert_int_equal(rows_at(N + 2 * SEC), 1);
}

static void test_max_runs(void **state) {
  (void)state;
  choose(SEC);
  bool later = N > T0 + 10 * SEC; /* then the first can have had its last run before */
  add(TASK_ENABLED, T0, later ? JITTERED ",\"max_runs\":1" : JITTERED, "");
  add(TASK_ENABLED, MIDDLE, PLAIN ",\"max_runs\":50", "");
  add(TASK_ENABLED, MIDDLE + 1000, JITTERED ",\"max_runs\":50", "");
  expect(2); /* also when the first had had its last run */
  plans[1].schedule = PLAIN ",\"max_runs\":1";
  if (later)
    expect(0);
}

/* Lateness counts from when it is due under the version that decides it. */
static void test_not_missed(void **state) {
  (void)state;
  choose(SEC);
  static const char *const skip = ",\"misfire_policy\":\"SKIP\",\"misfire_threshold\":\"15s\"";
  add(TASK_ENABLED, T0, JITTERED, skip);
  add(TASK_ENABLED, D - 1, PLAIN, skip);
  for (int late = 0; late < 2; late++) {
    fired_count = 0;
    load(2, D - 2);
    collect(D - 1 + 15 * SEC + 1 + late);
    assert_int_equal(fired[0].version, 2);
    assert_int_equal(fired[0].reason, late ? REASON_MISFIRE : REASON_DISPATCHING);
  }
}

/* A ONE_TIME in the past is due when its task is made, with the next version if that comes at once. */
static void test_past_one_time(void **state) {
  (void)state;
  choose(SEC);
  N = T0;
  add(TASK_ENABLED, T0 + SEC, "\"kind\":\"ONE_TIME\",\"run_at\":\"1970-01-01T00:16:40Z\"", "");
  plans[0].rest = ",\"misfire_policy\":\"FIRE_ONCE\"";
  expect(1);
  add(TASK_ENABLED, T0 + SEC, plans[0].schedule, plans[0].rest);
  expect(2);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_shortened),         TEST(test_lengthened),       TEST(test_shortened_and_lengthened),
      TEST(test_two_edits_at_once), TEST(test_three_lengths),    TEST(test_paused_in_between),
      TEST(test_came_in_a_pause),   TEST(test_another_schedule), TEST(test_before_its_time),
      TEST(test_two_at_once),       TEST(test_max_runs),         TEST(test_not_missed),
      TEST(test_past_one_time)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
