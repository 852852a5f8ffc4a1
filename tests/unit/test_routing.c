/* Which instance gets a run: each routing with free, full, failing and missing instances; weights, labels, the breaker's driver. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>
#include "executor/internal.h"
#include "store_util.h"

static struct test_store t;
static struct registry *r, *other; /* other: a second node's */
static struct err e;
static struct arena mem;
static int capacity;

static void on_capacity(void *arg, struct slice ns, struct slice group) {
  (void)arg, (void)ns, (void)group;
  capacity++;
}

static struct registry *node(void) {
  struct registry_options o;
  struct registry *x = NULL;
  registry_options_default(&o);
  o.store = t.store;
  o.clock = &test_clock;
  OK(registry_new(&o, &x, &e));
  return x;
}

static int setup(void **state) {
  (void)state;
  test_ahead = 0;
  test_store_open(&t);
  struct st_namespace_put_ret out;
  OK(store_namespace_put(t.store, &(struct st_namespace_put){SLICE("default")}, &out, &mem, &e));
  r = node();
  other = node();
  registry_hook(r, &(struct registry_hooks){.on_capacity = on_capacity});
  struct group_row row;
  char secret[REGISTRY_SECRET_MAX];
  OK(registry_group_create(
      r, &(struct group_new){SLICE("default"), SLICE("g"), CHANNEL_HTTP, ROUTING_ROUND_ROBIN, 16}, secret,
      &row, &mem, &e));
  capacity = 0;
  return 0;
}

static int teardown(void **state) {
  (void)state;
  registry_free(&r);
  registry_free(&other);
  test_store_close(&t);
  arena_clear(&mem);
  return 0;
}

static void join(const char *id, int32_t slots, int32_t weight, const char *labels) {
  const struct slice handlers[] = {SLICE("h"), SLICE("b"), SLICE("a")};
  struct executor_registered done;
  OK(registry_register(r,
                       &(struct executor_new){.ns = SLICE("default"),
                                              .group = SLICE("g"),
                                              .id = slice_of(id),
                                              .url = SLICE("http://127.0.0.1:8081"),
                                              .handlers = handlers,
                                              .handler_count = 3,
                                              .slots = slots,
                                              .weight = weight,
                                              .labels = slice_of(labels)},
                       &done, &e));
}

static void leave(const char *id) {
  OK(registry_set_state(r, SLICE("default"), SLICE("g"), slice_of(id), EXECUTOR_OFFLINE, &e));
}

static int ask(struct choose_ask a, struct instance **ret) {
  a.ns = SLICE("default");
  a.group = SLICE("g");
  if (!a.handler.n)
    a.handler = SLICE("h");
  return registry_choose(r, &a, ret, NULL, &e);
}

/* The id of who gets it (given back at once), or the error's name. */
static const char *who(struct choose_ask a) {
  struct instance *i = NULL;
  int code = ask(a, &i);
  if (code < 0)
    return code == ERR_BUSY ? "busy" : code == ERR_UNAVAILABLE ? "open" : "none";
  const char *id = arena_strdup(&mem, i->id);
  registry_release(r, &i);
  return id;
}
static const char *by(enum routing how) { return who((struct choose_ask){.routing = how}); }
static const char *hashed(uint64_t key) {
  return who((struct choose_ask){.routing = ROUTING_CONSISTENT_HASH, .key = key});
}
static const char *only(struct choose_ask a) {
  char id[REGISTRY_ID_MAX];
  a.ns = SLICE("default");
  a.group = SLICE("g");
  a.handler = SLICE("h");
  registry_only(r, &a, id);
  return arena_strdup(&mem, id);
}

static struct instance *hold(const char *id) {
  struct instance *i = NULL;
  OK(ask((struct choose_ask){.pin = slice_of(id)}, &i));
  return i;
}

static void answer(const char *id, enum breaker_event ev, int times) {
  struct instance *i;
  OK(registry_adopt(r, SLICE("default"), SLICE("g"), slice_of(id), &i));
  for (int n = 0; n < times; n++)
    registry_answered(r, i, ev);
  registry_release(r, &i);
}

static void test_first(void **state) {
  (void)state;
  join("b", 1, -1, ""), join("c", 9, -1, ""), join("a", 1, -1, ""); /* by id, not by registration */
  for (int n = 0; n < 3; n++)
    assert_string_equal(by(ROUTING_FIRST), "a");
  assert_string_equal(only((struct choose_ask){.routing = ROUTING_FIRST}), "a");
  struct instance *a = hold("a");
  assert_string_equal(by(ROUTING_FIRST), "busy");
  registry_release(r, &a);
  answer("a", BREAKER_FAILED, 5);
  assert_string_equal(by(ROUTING_FIRST), "open"); /* only that one */
  leave("a");
  assert_string_equal(by(ROUTING_FIRST), "b");
  assert_string_equal(who((struct choose_ask){.routing = ROUTING_FIRST, .previous = SLICE("b")}), "b");
}

static void test_failover(void **state) {
  (void)state;
  join("b", 1, -1, ""), join("c", 9, -1, ""), join("a", 1, -1, "");
  for (int n = 0; n < 3; n++)
    assert_string_equal(by(ROUTING_FAILOVER), "a");
  assert_string_equal(who((struct choose_ask){.routing = ROUTING_FAILOVER, .previous = SLICE("a")}), "a");
  assert_string_equal(
      who((struct choose_ask){.routing = ROUTING_FAILOVER, .exclude = &SLICE("a"), .exclude_count = 1}), "b");
  struct instance *a = hold("a");
  assert_string_equal(by(ROUTING_FAILOVER), "b"); /* full: the next one */
  registry_cool(a, test_mono(NULL) + USEC_PER_SEC);
  registry_release(r, &a);
  assert_string_equal(by(ROUTING_FAILOVER), "b"); /* busy, as it says */
  test_ahead += USEC_PER_SEC;
  assert_string_equal(by(ROUTING_FAILOVER), "a");
  answer("a", BREAKER_FAILED, 1);
  assert_string_equal(by(ROUTING_FAILOVER), "b"); /* suspect */
  test_ahead += 5 * USEC_PER_SEC;
  assert_string_equal(by(ROUTING_FAILOVER), "a");
  answer("a", BREAKER_FAILED, 5);
  leave("b");
  assert_string_equal(by(ROUTING_FAILOVER), "c");
  assert_string_equal(only((struct choose_ask){.routing = ROUTING_FAILOVER}), "");
}

static void test_random(void **state) {
  (void)state;
  enum { N = 6000 };
  join("a", 10, 1, ""), join("b", 10, 2, ""), join("c", 10, 3, ""), join("d", 10, 0, "");
  int count[4] = {0};
  for (int n = 0; n < N; n++)
    count[by(ROUTING_RANDOM)[0] - 'a']++;
  for (int n = 0; n < 3; n++)
    assert_true(count[n] > N / 6 * (n + 1) * 8 / 10 && count[n] < N / 6 * (n + 1) * 12 / 10);
  assert_int_equal(count[3], 0);
  for (int n = 0; n < 50; n++)
    assert_string_not_equal(who((struct choose_ask){.routing = ROUTING_RANDOM, .previous = SLICE("c")}), "c");
  answer("a", BREAKER_FAILED, 5);
  answer("b", BREAKER_FAILED, 5);
  for (int n = 0; n < 20; n++)
    assert_string_equal(by(ROUTING_RANDOM), "c");
}

static void test_round_robin_by_weight(void **state) {
  (void)state;
  join("a", 10, 5, ""), join("b", 10, 1, ""), join("c", 10, 1, "");
  char seen[15] = "";
  for (int n = 0; n < 14; n++)
    seen[n] = by(ROUTING_ROUND_ROBIN)[0];
  assert_string_equal(seen, "aabacaaaabacaa"); /* spread out, not in blocks */
  int count[3] = {0};
  answer("a", BREAKER_FAILED, 5);
  for (int n = 0; n < 8; n++)
    count[by(ROUTING_ROUND_ROBIN)[0] - 'a']++;
  assert_true(count[0] == 0 && count[1] == 4 && count[2] == 4);
  assert_string_equal(who((struct choose_ask){.routing = ROUTING_ROUND_ROBIN,
                                              .previous = SLICE("b"),
                                              .exclude = &SLICE("c"),
                                              .exclude_count = 1}),
                      "b"); /* there is no other */
}

static void test_least_busy_by_weight(void **state) {
  (void)state;
  join("a", 100, 1, ""), join("b", 100, 3, "");
  struct instance *got[40];
  int count[2] = {0};
  for (int n = 0; n < 40; n++) {
    OK(ask((struct choose_ask){.routing = ROUTING_LEAST_BUSY}, &got[n]));
    count[got[n]->id[0] - 'a']++;
  }
  assert_true(count[0] == 10 && count[1] == 30);
  for (int n = 0; n < 40; n++)
    registry_release(r, &got[n]);
}

static void test_consistent_hash(void **state) {
  (void)state;
  enum { KEYS = 600 };
  const char *before[KEYS];
  int moved = 0;
  for (int n = 0; n < 5; n++)
    join(arena_printf(&mem, "x%d", n), 1, -1, "");
  for (uint64_t k = 0; k < KEYS; k++) {
    before[k] = hashed(k);
    assert_string_equal(before[k], hashed(k));
  }
  join("x5", 1, -1, "");
  for (uint64_t k = 0; k < KEYS; k++) {
    const char *now = hashed(k);
    if (strcmp(now, before[k]) == 0)
      continue;
    moved++;
    assert_string_equal(now, "x5");
  }
  print_message("%d of %d keys moved when the 6th came\n", moved, KEYS);
  assert_true(moved > KEYS / 6 * 7 / 10 && moved < KEYS / 6 * 13 / 10);
  leave("x5");
  for (uint64_t k = 0; k < KEYS; k++)
    assert_string_equal(hashed(k), before[k]);
  OK(registry_set_weight(r, SLICE("default"), SLICE("g"), SLICE("x0"), 0, &e));
  for (uint64_t k = 0; k < KEYS; k++)
    assert_true(strcmp(before[k], "x0") == 0 ? strcmp(hashed(k), "x0") != 0
                                             : strcmp(hashed(k), before[k]) == 0);
}

static void test_consistent_hash_waits_and_moves_on(void **state) {
  (void)state;
  join("a", 1, -1, ""), join("b", 1, -1, ""), join("c", 1, -1, "");
  const char *home = hashed(7);
  struct instance *i = hold(home);
  assert_string_equal(hashed(7), "busy"); /* the key waits for its place */
  assert_string_equal(only((struct choose_ask){.routing = ROUTING_CONSISTENT_HASH, .key = 7}), home);
  registry_release(r, &i);
  answer(home, BREAKER_FAILED, 1);
  assert_string_equal(hashed(7), home);
  answer(home, BREAKER_FAILED, 4); /* until it is out of order */
  const char *next = hashed(7);
  assert_string_not_equal(next, home);
  assert_string_equal(hashed(7), next);
  test_ahead += 2 * USEC_PER_SEC;
  assert_string_equal(hashed(7), home); /* the probe */
  assert_string_equal(hashed(7), next);
  answer(home, BREAKER_ANSWERED, 1);
  assert_string_equal(hashed(7), home);
  for (const char *id = "a"; *id; id = *id == 'a' ? "b" : *id == 'b' ? "c" : "")
    answer(id, BREAKER_FAILED, 5);
  assert_string_equal(hashed(7), "open");
}

static void test_pinned(void **state) {
  (void)state;
  join("a", 1, -1, "{\"zone\": \"x\"}"), join("b", 1, 0, "");
  assert_string_equal(who((struct choose_ask){.routing = ROUTING_PINNED, .pin = SLICE("b")}), "b");
  assert_string_equal(who((struct choose_ask){.routing = ROUTING_RANDOM, .pin = SLICE("a")}), "a");
  struct instance *a = hold("a");
  assert_string_equal(who((struct choose_ask){.pin = SLICE("a")}), "busy");
  registry_release(r, &a);
  assert_string_equal(by(ROUTING_PINNED), "none");
  assert_non_null(strstr(e.text, "names no executor"));
  assert_string_equal(who((struct choose_ask){.pin = SLICE("z")}), "none");
  assert_non_null(strstr(e.text, "no executor \"z\" of \"default/g\""));
  assert_string_equal(who((struct choose_ask){.pin = SLICE("b"), .labels = SLICE("{\"zone\":\"x\"}")}),
                      "none");
  assert_string_equal(only((struct choose_ask){.routing = ROUTING_FIRST, .pin = SLICE("z")}), "z");
}

/* The group says which, unless the task does. */
static void test_group_and_task(void **state) {
  (void)state;
  struct group_row row;
  OK(registry_group_change(r,
                           &(struct group_new){SLICE("default"), SLICE("g"), CHANNEL_HTTP, ROUTING_FIRST, 16},
                           0, &row, &mem, &e));
  join("a", 9, -1, ""), join("b", 9, -1, "");
  for (int n = 0; n < 3; n++)
    assert_string_equal(by(ROUTING_MAX_), "a");
  const char *one = by(ROUTING_ROUND_ROBIN), *two = by(ROUTING_ROUND_ROBIN);
  assert_string_not_equal(one, two);
}

static void test_labels(void **state) {
  (void)state;
  static const enum routing all[] = {ROUTING_ROUND_ROBIN,     ROUTING_LEAST_BUSY, ROUTING_RANDOM,
                                     ROUTING_CONSISTENT_HASH, ROUTING_FIRST,      ROUTING_FAILOVER};
  join("a", 9, -1, "{\"zone\": \"x\", \"gpu\": true}");
  join("b", 9, -1, "{\"zone\": \"y\", \"cores\": 8, \"nested\": {}}");
  join("c", 9, -1, "");
  for (size_t n = 0; n < sizeof all / sizeof *all; n++)
    for (int k = 0; k < 4; k++) {
      struct choose_ask a = {.routing = all[n], .labels = SLICE("{\"zone\":\"y\"}"), .key = (uint64_t)k};
      assert_string_equal(who(a), "b");
      a.labels = SLICE("{\"cores\":8,\"zone\":\"y\"}");
      assert_string_equal(who(a), "b");
      a.labels = SLICE("{\"gpu\":true}");
      assert_string_equal(who(a), "a");
      a.labels = SLICE("{\"gpu\":true,\"zone\":\"y\"}"); /* all of them */
      assert_string_equal(who(a), "none");
      a.labels = SLICE("{\"cores\":\"8\"}");
      assert_string_equal(who(a), "none");
    }
  assert_string_equal(e.text,
                      "no executor of \"default/g\" is online for \"h\" with the labels {\"cores\":\"8\"}");
  int count[3] = {0};
  for (int n = 0; n < 6; n++) { /* rounds of different labels do not disturb each other */
    (void)who((struct choose_ask){.routing = ROUTING_MAX_, .labels = SLICE("{\"zone\":\"y\"}")});
    count[by(ROUTING_MAX_)[0] - 'a']++;
  }
  assert_true(count[0] == 2 && count[1] == 2 && count[2] == 2);
  join("c", 9, -1, "{\"cores\": \"8\"}"); /* a new incarnation has other labels */
  assert_string_equal(who((struct choose_ask){.labels = SLICE("{\"cores\":\"8\"}")}), "c");
}

static void test_weights_change(void **state) {
  (void)state;
  struct slice ns = SLICE("default"), g = SLICE("g");
  join("a", 9, 0, ""), join("b", 9, -1, "");
  for (int n = 0; n < 4; n++)
    assert_string_equal(by(ROUTING_MAX_), "b");
  leave("b");
  assert_string_equal(by(ROUTING_MAX_), "none");
  assert_non_null(strstr(e.text, "but with the weight 0"));
  int before = capacity;
  OK(registry_set_weight(r, ns, g, SLICE("a"), 3, &e));
  assert_int_equal(capacity, before + 1);
  assert_string_equal(by(ROUTING_MAX_), "a");
  join("a", 9, -1, ""); /* says nothing of a weight: it stays */
  struct st_executor_list_ret list;
  OK(registry_list(r, &(struct st_executor_list){ns, g}, &list, &mem, &e));
  assert_int_equal(list.rows[0].weight, 3);
  OK(registry_refresh(other, &e));
  OK(registry_set_weight(other, ns, g, SLICE("a"), 0, &e)); /* by another node */
  assert_string_equal(by(ROUTING_MAX_), "a");
  OK(registry_refresh(r, &e));
  assert_string_equal(by(ROUTING_MAX_), "none");
  assert_int_equal(registry_set_weight(r, ns, g, SLICE("a"), REGISTRY_WEIGHT_MAX + 1, &e), ERR_INVALID);
  assert_string_equal(e.field, "/weight");
  assert_int_equal(registry_set_weight(r, ns, g, SLICE("zz"), 1, &e), ERR_NOT_FOUND);
}

static void test_breaker(void **state) {
  (void)state;
  join("a", 9, -1, ""), join("b", 9, -1, "");
  struct choose_ask any = {
      .ns = SLICE("default"), .group = SLICE("g"), .handler = SLICE("h"), .routing = ROUTING_MAX_};
  struct instance *a = hold("a"), *i = NULL;
  usec_t now = test_mono(NULL), retry_at = 0;
  answer("a", BREAKER_REFUSED, 9); /* refusals count for nothing but the order */
  assert_int_equal(registry_here(r, any.ns, any.group, SLICE("a")).breaker, BREAKER_CLOSED);
  for (int n = 0; n < 4; n++)
    assert_string_equal(by(ROUTING_MAX_), "b");
  answer("a", BREAKER_FAILED, 5);
  answer("b", BREAKER_FAILED, 5);
  assert_int_equal(registry_here(r, any.ns, any.group, SLICE("a")).breaker, BREAKER_OPEN);
  assert_int_equal(registry_choose(r, &any, &i, &retry_at, &e), ERR_UNAVAILABLE);
  assert_true(retry_at >= now + 2 * USEC_PER_SEC && retry_at <= test_mono(NULL) + 2 * USEC_PER_SEC);
  test_ahead += 2 * USEC_PER_SEC;
  struct instance *probe[2];
  OK(registry_choose(r, &any, &probe[0], NULL, &e)); /* one for each */
  OK(registry_choose(r, &any, &probe[1], NULL, &e));
  assert_string_not_equal(probe[0]->id, probe[1]->id);
  assert_int_equal(registry_choose(r, &any, &i, NULL, &e), ERR_UNAVAILABLE);
  assert_int_equal(registry_here(r, any.ns, any.group, SLICE("b")).breaker, BREAKER_HALF_OPEN);
  int before = capacity;
  registry_answered(r, probe[0], BREAKER_ANSWERED);
  assert_int_equal(capacity, before + 1); /* those who wait are told */
  assert_string_equal(by(ROUTING_MAX_), probe[0]->id);
  registry_answered(r, probe[1], BREAKER_FAILED);
  assert_int_equal(registry_here(r, any.ns, any.group, slice_of(probe[1]->id)).breaker, BREAKER_OPEN);
  for (int n = 0; n < 2; n++)
    registry_release(r, &probe[n]);
  answer("a", BREAKER_FAILED, 5);
  join("a", 9, -1, ""); /* started anew: nothing is held against it */
  assert_int_equal(registry_here(r, any.ns, any.group, SLICE("a")).breaker, BREAKER_CLOSED);
  registry_answered(r, a, BREAKER_FAILED); /* the one before: nobody is hurt */
  registry_release(r, &a);
}

/* Not a limit, a figure for the log: what a choice among 100 costs. */
static void cost(const char *what) {
  static const enum routing all[] = {ROUTING_ROUND_ROBIN,     ROUTING_LEAST_BUSY, ROUTING_RANDOM,
                                     ROUTING_CONSISTENT_HASH, ROUTING_FIRST,      ROUTING_FAILOVER};
  for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
    enum { N = 20000 };
    usec_t t0 = test_mono(NULL);
    for (uint64_t n = 0; n < N; n++) {
      struct instance *i = NULL;
      OK(ask((struct choose_ask){.routing = all[k], .key = n}, &i));
      registry_release(r, &i);
    }
    print_message("%s among 100, %s: %d ns a choose and release\n", routing_names[all[k]], what,
                  (int)((test_mono(NULL) - t0) * 1000 / N));
  }
}

static void test_cost(void **state) {
  (void)state;
  for (int n = 0; n < 100; n++)
    join(arena_printf(&mem, "x%d", n), 10, -1, "");
  cost("equal weights");
  OK(registry_set_weight(r, SLICE("default"), SLICE("g"), SLICE("x7"), 2, &e));
  cost("weights");
}

/* More sets of labels than are kept: each is answered all the same. */
static void test_many_routes(void **state) {
  (void)state;
  join("a", 9, -1, "{\"n\": 4500}");
  for (int n = 0; n <= 4500; n++) {
    struct slice labels = slice_of(arena_printf(&mem, "{\"n\":%d}", n));
    assert_string_equal(who((struct choose_ask){.labels = labels}), n == 4500 ? "a" : "none");
  }
  assert_true(HASH_COUNT(group_find(r, SLICE("default"), SLICE("g"))->routes) < 4500);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
  const struct CMUnitTest tests[] = {T(test_first),
                                     T(test_failover),
                                     T(test_random),
                                     T(test_round_robin_by_weight),
                                     T(test_least_busy_by_weight),
                                     T(test_consistent_hash),
                                     T(test_consistent_hash_waits_and_moves_on),
                                     T(test_pinned),
                                     T(test_group_and_task),
                                     T(test_labels),
                                     T(test_weights_change),
                                     T(test_breaker),
                                     T(test_many_routes),
                                     T(test_cost)};
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  arena_done(&mem);
  return failed;
}
