/* Executor groups and instances: secrets, choice, slots, cooling, heartbeats, loss, and what other nodes do. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "executor/internal.h"
#include "net/crypto.h"
#include "store_util.h"

static struct test_store t;
static struct registry *r, *other; /* other: a second node's, never started */
static struct err e;
static struct arena mem;
static char secret[REGISTRY_SECRET_MAX];
static struct {
  int lost, capacity;
  char id[64];
  int64_t incarnation;
} told;

static void on_lost(void *arg, struct slice ns, struct slice group, struct slice id, int64_t incarnation) {
  (void)arg;
  assert_true(slice_eqz(ns, "default") && slice_eqz(group, "g"));
  told.lost++;
  told.incarnation = incarnation;
  assert_int_equal(text_copy(told.id, sizeof told.id, id), 0);
}
static void on_capacity(void *arg, struct slice ns, struct slice group) {
  (void)arg;
  assert_true(slice_eqz(ns, "default") && slice_eqz(group, "g"));
  told.capacity++;
}

static struct {
  int count;
  struct group_bounds last;
} bounds;

static void on_bounds(void *arg, struct slice ns, struct slice group, const struct group_bounds *b) {
  (void)arg;
  assert_true(slice_eqz(ns, "default") && slice_eqz(group, "g"));
  bounds.count++;
  bounds.last = *b;
}

static struct registry *node(uint8_t key) {
  struct registry_options o;
  struct registry *x = NULL;
  registry_options_default(&o);
  o.store = t.store;
  o.clock = &test_clock;
  memset(o.key, key, sizeof o.key);
  OK(registry_new(&o, &x, &e));
  return x;
}

static int setup(void **state) {
  (void)state;
  test_ahead = 0;
  test_store_open(&t);
  struct st_namespace_put ns = {SLICE("default")};
  struct st_namespace_put_ret out;
  OK(store_namespace_put(t.store, &ns, &out, &mem, &e));
  r = node(7);
  other = node(7);
  registry_hook(r, &(struct registry_hooks){on_lost, on_capacity, on_bounds, NULL});
  struct group_row row;
  OK(registry_group_create(
      r, &(struct group_new){SLICE("default"), SLICE("g"), CHANNEL_HTTP, ROUTING_ROUND_ROBIN, 16}, secret,
      &row, &mem, &e));
  memset(&told, 0, sizeof told);
  memset(&bounds, 0, sizeof bounds);
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

static int64_t join_with(struct registry *x, const char *id, const char *handler, int32_t slots) {
  const struct slice handlers[] = {slice_of(handler), SLICE("both")};
  struct executor_registered done;
  OK(registry_register(x,
                       &(struct executor_new){.ns = SLICE("default"),
                                              .group = SLICE("g"),
                                              .id = slice_of(id),
                                              .url = SLICE("http://127.0.0.1:8081"),
                                              .handlers = handlers,
                                              .handler_count = 2,
                                              .slots = slots,
                                              .weight = -1},
                       &done, &e));
  return done.incarnation;
}
static int64_t join(const char *id, int32_t slots) { return join_with(r, id, "h", slots); }

static int32_t running(const char *id) {
  return registry_here(r, SLICE("default"), SLICE("g"), slice_of(id)).running;
}

static int choose_as(struct choose_ask ask, struct instance **ret, usec_t *retry_at) {
  ask.ns = SLICE("default");
  ask.group = SLICE("g");
  if (!ask.routing) /* ROUND_ROBIN is what the group says */
    ask.routing = ROUTING_MAX_;
  if (!ask.handler.n)
    ask.handler = SLICE("h");
  return registry_choose(r, &ask, ret, retry_at, &e);
}
static struct instance *choose(void) {
  struct instance *i = NULL;
  OK(choose_as((struct choose_ask){0}, &i, NULL));
  return i;
}

static void test_secrets(void **state) {
  (void)state;
  join("a", 1);
  struct instance *i = choose();
  struct registry_secrets s;
  OK(registry_secrets(r, i, &s));
  assert_string_equal(s.text[0], secret);
  assert_string_equal(s.text[1], "");
  char fresh[REGISTRY_SECRET_MAX];
  struct group_row row;
  OK(registry_group_rotate(r, SLICE("default"), SLICE("g"), fresh, &row, &mem, &e));
  assert_int_equal(row.secret_sealed.n, 0); /* nothing sealed leaves */
  assert_string_not_equal(fresh, secret);
  OK(registry_secrets(r, i, &s));
  assert_string_equal(s.text[0], fresh);
  assert_string_equal(s.text[1], secret);

  OK(registry_refresh(other, &e)); /* the other node reads the same from the database */
  struct instance *there = NULL;
  OK(registry_adopt(other, SLICE("default"), SLICE("g"), SLICE("a"), &there));
  OK(registry_secrets(other, there, &s));
  assert_string_equal(s.text[0], fresh);
  OK(registry_group_retire(r, SLICE("default"), SLICE("g"), &e));
  OK(registry_refresh(other, &e));
  OK(registry_secrets(other, there, &s));
  assert_string_equal(s.text[1], "");
  registry_release(other, &there);

  struct registry *stranger = node(8); /* another key file: the group cannot be used, and nothing crashes */
  OK(registry_refresh(stranger, &e));
  assert_int_equal(registry_adopt(stranger, SLICE("default"), SLICE("g"), SLICE("a"), &there), ERR_NOT_FOUND);
  registry_free(&stranger);
  registry_release(r, &i);
}

/* Bounds are told when they change, whoever changed them, and when the group goes. */
static void test_bounds(void **state) {
  (void)state;
  struct group_row row;
  struct group_new g = {SLICE("default"), SLICE("g"), CHANNEL_HTTP, ROUTING_ROUND_ROBIN, 16, {3, 2500, 4}};
  assert_int_equal(bounds.count, 0);
  OK(registry_group_change(r, &g, 0, &row, &mem, &e));
  assert_int_equal(row.max_concurrent, 3);
  assert_int_equal(row.rate_milli, 2500);
  assert_int_equal(bounds.count, 1);
  assert_int_equal(bounds.last.rate_burst, 4);
  g.routing = ROUTING_LEAST_BUSY;
  OK(registry_group_change(r, &g, 0, &row, &mem, &e));
  assert_int_equal(bounds.count, 1);
  g.bounds.max_concurrent = 5;
  OK(registry_group_change(other, &g, 0, &row, &mem, &e));
  OK(registry_refresh(r, &e));
  assert_int_equal(bounds.count, 2);
  assert_int_equal(bounds.last.max_concurrent, 5);
  static const struct {
    struct group_bounds b;
    const char *field;
  } bad[] = {{{-1, 0, 0}, "/max_concurrent"},
             {{GROUP_CONCURRENT_MAX + 1, 0, 0}, "/max_concurrent"},
             {{0, -1, 0}, "/rate_limit"},
             {{0, 0, GROUP_BURST_MAX + 1}, "/rate_burst"}};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    g.bounds = bad[i].b;
    assert_int_equal(registry_group_change(r, &g, 0, &row, &mem, &e), ERR_INVALID);
    assert_string_equal(e.field, bad[i].field);
  }
  OK(registry_group_delete(r, SLICE("default"), SLICE("g"), &e));
  assert_int_equal(bounds.count, 3);
  assert_int_equal(bounds.last.max_concurrent, 0);
}

static void test_groups(void **state) {
  (void)state;
  struct group_row row;
  char text[REGISTRY_SECRET_MAX];
  struct group_new g = {SLICE("default"), SLICE("g"), CHANNEL_HTTP, ROUTING_LEAST_BUSY, 8};
  assert_int_equal(registry_group_create(r, &g, text, &row, &mem, &e), ERR_CONFLICT);
  OK(registry_group_get(r, g.ns, g.name, &row, &mem, &e));
  int32_t version = row.version;
  OK(registry_group_change(r, &g, version, &row, &mem, &e));
  assert_int_equal(row.routing, ROUTING_LEAST_BUSY);
  assert_true(row.version > version);
  assert_int_equal(registry_group_change(r, &g, version, &row, &mem, &e), ERR_STALE);
  g.max_connections = 0;
  assert_int_equal(registry_group_change(r, &g, 0, &row, &mem, &e), ERR_INVALID);
  assert_string_equal(e.field, "/max_connections");
  g = (struct group_new){SLICE("default"), SLICE("a/b"), CHANNEL_HTTP, ROUTING_LEAST_BUSY, 8};
  assert_int_equal(registry_group_create(r, &g, text, &row, &mem, &e), ERR_INVALID);
  struct st_group_list_ret all;
  OK(registry_group_list(r, SLICE("default"), &all, &mem, &e));
  assert_int_equal(all.count, 1);
  assert_int_equal(all.rows[0].secret_sealed.n, 0);
  join("a", 1);
  OK(registry_group_delete(r, SLICE("default"), SLICE("g"), &e));
  assert_int_equal(told.lost, 1);
  struct instance *i;
  assert_int_equal(choose_as((struct choose_ask){0}, &i, NULL), ERR_NOT_FOUND);
  assert_int_equal(registry_group_get(r, SLICE("default"), SLICE("g"), &row, &mem, &e), ERR_NOT_FOUND);
}

static void test_round_robin(void **state) {
  (void)state;
  int64_t before = told.capacity;
  join("a", 10), join("b", 10), join("c", 10);
  assert_int_equal(told.capacity, before + 3);
  int count[3] = {0};
  struct instance *got[9];
  for (int n = 0; n < 9; n++) {
    got[n] = choose();
    count[got[n]->id[0] - 'a']++;
    if (n > 0)
      assert_string_not_equal(got[n]->id, got[n - 1]->id);
  }
  assert_true(count[0] == 3 && count[1] == 3 && count[2] == 3);
  assert_int_equal(running("a"), 3);
  for (int n = 0; n < 9; n++)
    registry_release(r, &got[n]);
  assert_int_equal(running("a"), 0);
}

static void test_least_busy(void **state) {
  (void)state;
  struct group_row row;
  OK(registry_group_change(
      r, &(struct group_new){SLICE("default"), SLICE("g"), CHANNEL_HTTP, ROUTING_LEAST_BUSY, 16}, 0, &row,
      &mem, &e));
  join("a", 2), join("b", 8);
  struct instance *got[10], *none;
  for (int n = 0; n < 10; n++) { /* filled in proportion */
    got[n] = choose();
    int32_t a = running("a"), b = running("b");
    assert_true(a <= 2 && b <= 8 && 4 * a <= b + 4 && b <= 4 * a + 4);
  }
  usec_t retry_at = 0;
  assert_int_equal(choose_as((struct choose_ask){0}, &none, &retry_at), ERR_BUSY);
  assert_int_equal(retry_at, USEC_NEVER);
  int before = told.capacity;
  registry_release(r, &got[0]);
  assert_int_equal(told.capacity, before + 1);
  for (int n = 1; n < 10; n++)
    registry_release(r, &got[n]);
  assert_int_equal(told.capacity, before + 1); /* nobody waited any more */
}

static void test_hints(void **state) {
  (void)state;
  join("a", 10), join("b", 10), join_with(r, "c", "*", 10), join_with(r, "d", "else", 10);
  struct instance *i;
  for (int n = 0; n < 8; n++) {
    OK(choose_as((struct choose_ask){.previous = SLICE("a"), .exclude = &SLICE("b"), .exclude_count = 1}, &i,
                 NULL));
    assert_string_equal(i->id, "c");
    registry_release(r, &i);
    OK(choose_as((struct choose_ask){.pin = SLICE("b")}, &i, NULL));
    assert_string_equal(i->id, "b");
    registry_release(r, &i);
    OK(choose_as((struct choose_ask){.handler = SLICE("unheard-of")}, &i, NULL));
    assert_string_equal(i->id, "c");
    registry_release(r, &i);
  }
  const struct slice all[] = {SLICE("a"), SLICE("b"), SLICE("c")};
  OK(choose_as((struct choose_ask){.exclude = all, .exclude_count = 3}, &i, NULL)); /* there is no other */
  registry_release(r, &i);
  assert_int_equal(choose_as((struct choose_ask){.pin = SLICE("d")}, &i, NULL), ERR_NOT_FOUND);
  assert_int_equal(choose_as((struct choose_ask){.pin = SLICE("x")}, &i, NULL), ERR_NOT_FOUND);
  OK(registry_set_state(r, SLICE("default"), SLICE("g"), SLICE("c"), EXECUTOR_OFFLINE, &e));
  assert_int_equal(choose_as((struct choose_ask){.handler = SLICE("unheard-of")}, &i, NULL), ERR_NOT_FOUND);
}

static void test_cooling(void **state) {
  (void)state;
  join("a", 10), join("b", 10);
  struct instance *a, *b, *i;
  OK(choose_as((struct choose_ask){.pin = SLICE("a")}, &a, NULL));
  OK(choose_as((struct choose_ask){.pin = SLICE("b")}, &b, NULL));
  usec_t now = test_mono(NULL), retry_at = 0;
  registry_cool(a, now + 50 * USEC_PER_SEC);
  for (int n = 0; n < 4; n++) {
    i = choose();
    assert_string_equal(i->id, "b");
    registry_release(r, &i);
  }
  registry_cool(b, now + 20 * USEC_PER_SEC);
  assert_int_equal(choose_as((struct choose_ask){0}, &i, &retry_at), ERR_BUSY);
  assert_int_equal(retry_at, now + 20 * USEC_PER_SEC);
  test_ahead += 20 * USEC_PER_SEC;
  i = choose();
  assert_string_equal(i->id, "b");
  registry_release(r, &i);
  registry_release(r, &a);
  registry_release(r, &b);
}

static void test_new_incarnation(void **state) {
  (void)state;
  int64_t first = join("a", 1);
  struct instance *old = choose(), *i;
  assert_int_equal(choose_as((struct choose_ask){0}, &i, NULL), ERR_BUSY);
  int64_t second = join("a", 1); /* it was restarted: its former runs are lost, its slots free */
  assert_true(second > first);
  assert_true(told.lost == 1 && told.incarnation == first);
  i = choose();
  assert_int_equal(i->incarnation, second);
  enum executor_state st;
  assert_int_equal(
      registry_beat(r, &(struct executor_beat){SLICE("default"), SLICE("g"), SLICE("a"), first, 0}, &st, &e),
      ERR_STALE);
  OK(registry_beat(r, &(struct executor_beat){SLICE("default"), SLICE("g"), SLICE("a"), second, 0}, &st, &e));
  assert_string_equal(old->id, "a"); /* alive as long as it is held */
  registry_release(r, &old);
  registry_release(r, &i);
}

static void test_drain(void **state) {
  (void)state;
  join("a", 5);
  struct instance *i = choose(), *none;
  enum executor_state st;
  OK(registry_set_state(r, SLICE("default"), SLICE("g"), SLICE("a"), EXECUTOR_DRAINING, &e));
  assert_int_equal(choose_as((struct choose_ask){0}, &none, NULL), ERR_NOT_FOUND);
  OK(registry_beat(r, &(struct executor_beat){SLICE("default"), SLICE("g"), SLICE("a"), 0, 1}, &st, &e));
  assert_int_equal(st, EXECUTOR_DRAINING);
  assert_int_equal(told.lost, 0);
  struct instance *mine;
  OK(registry_adopt(r, SLICE("default"), SLICE("g"), SLICE("a"), &mine));
  registry_release(r, &mine);
  OK(registry_set_state(r, SLICE("default"), SLICE("g"), SLICE("a"), EXECUTOR_ONLINE, &e));
  registry_release(r, &i);
  i = choose();
  OK(registry_set_state(r, SLICE("default"), SLICE("g"), SLICE("a"), EXECUTOR_OFFLINE, &e));
  assert_int_equal(told.lost, 1);
  assert_int_equal(
      registry_beat(r, &(struct executor_beat){SLICE("default"), SLICE("g"), SLICE("a"), 0, 0}, &st, &e),
      ERR_NOT_FOUND);
  assert_int_equal(registry_set_state(r, SLICE("default"), SLICE("g"), SLICE("zz"), EXECUTOR_DRAINING, &e),
                   ERR_NOT_FOUND);
  registry_release(r, &i);
}

static void add_counts(void *arg, const struct group_counts *c) {
  int64_t *n = arg;
  for (int i = 0; i < EXECUTOR_STATE_MAX_; i++)
    n[i] += c->by_state[i];
}

static int counts(enum executor_state st) {
  int64_t n[EXECUTOR_STATE_MAX_] = {0};
  registry_counts(r, add_counts, n);
  return (int)n[st];
}

static void test_expiry(void **state) {
  (void)state;
  int64_t inc = join("a", 5);
  join("b", 5);
  enum executor_state st;
  struct executor_beat beat = {SLICE("default"), SLICE("g"), SLICE("b"), 0, 2};
  r->expire_after = test_mono(NULL) + r->o.lost_after;
  test_ahead += 29 * USEC_PER_SEC;
  OK(registry_beat(r, &beat, &st, &e));
  OK(beats_flush(r, &e));
  test_ahead += 2 * USEC_PER_SEC;
  OK(beats_expire(r, &e));
  assert_true(told.lost == 1 && told.incarnation == inc);
  assert_string_equal(told.id, "a");
  assert_int_equal(counts(EXECUTOR_LOST), 1);
  struct instance *i = choose();
  assert_string_equal(i->id, "b");
  registry_release(r, &i);

  beat.id = SLICE("a"); /* it was only silent: online again by its next beat, and may be lost again */
  OK(registry_beat(r, &beat, &st, &e));
  assert_int_equal(st, EXECUTOR_ONLINE);
  assert_int_equal(counts(EXECUTOR_ONLINE), 2);
  test_ahead += 31 * USEC_PER_SEC;
  OK(beats_expire(r, &e));
  assert_int_equal(told.lost, 3);
  test_ahead += USEC_PER_DAY;
  OK(beats_expire(r, &e));
  OK(registry_refresh(r, &e));
  assert_int_equal(counts(EXECUTOR_LOST), 0);
  assert_int_equal(registry_beat(r, &beat, &st, &e), ERR_NOT_FOUND);
}

/* While the database was away nobody could beat: nobody is lost for it. */
static bool broken;
static enum store_fault decide(void *arg, const char *op) {
  (void)arg;
  return broken && strcmp(op, "executor_beat") == 0 ? STORE_FAULT_UNAVAILABLE : STORE_FAULT_NONE;
}

static void test_outage(void **state) {
  (void)state;
  join("a", 5);
  enum executor_state st;
  struct executor_beat beat = {SLICE("default"), SLICE("g"), SLICE("a"), 0, 2};
  t.store = r->o.store = other->o.store = store_faults(t.store, decide, NULL);
  r->expire_after = 0;
  broken = true;
  test_ahead += 40 * USEC_PER_SEC;
  OK(registry_beat(r, &beat, &st, &e));
  assert_int_equal(beats_flush(r, &e), ERR_UNAVAILABLE);
  broken = false;
  OK(beats_expire(r, &e));
  assert_int_equal(told.lost, 0);
  OK(beats_flush(r, &e)); /* the beat was kept */
  test_ahead += 29 * USEC_PER_SEC;
  OK(beats_expire(r, &e));
  assert_int_equal(told.lost, 0);
  test_ahead += 2 * USEC_PER_SEC;
  OK(beats_expire(r, &e));
  assert_int_equal(told.lost, 1);
}

/* What another node did is here after a refresh. */
static void test_other_node(void **state) {
  (void)state;
  OK(registry_refresh(other, &e));
  int64_t first = join_with(other, "a", "h", 3);
  struct instance *i;
  assert_int_equal(choose_as((struct choose_ask){0}, &i, NULL), ERR_NOT_FOUND);
  enum executor_state st;
  struct executor_beat beat = {SLICE("default"), SLICE("g"), SLICE("a"), first, 0};
  OK(registry_beat(r, &beat, &st, &e)); /* known to the store */
  OK(registry_refresh(r, &e));
  i = choose();
  assert_int_equal(i->incarnation, first);
  assert_int_equal(i->slots, 3);
  registry_release(r, &i);
  OK(registry_set_state(other, SLICE("default"), SLICE("g"), SLICE("a"), EXECUTOR_DRAINING, &e));
  OK(registry_refresh(r, &e));
  assert_int_equal(choose_as((struct choose_ask){0}, &i, NULL), ERR_NOT_FOUND);
  assert_int_equal(told.lost, 0);
  join_with(other, "a", "h", 3);
  OK(registry_refresh(r, &e));
  assert_true(told.lost == 1 && told.incarnation == first);
  OK(registry_group_delete(other, SLICE("default"), SLICE("g"), &e));
  OK(registry_refresh(r, &e));
  assert_int_equal(told.lost, 2);
}

static void test_register_refusals(void **state) {
  (void)state;
  const struct slice h = SLICE("h"), empty = SLICE("");
  struct executor_new ok = {.ns = SLICE("default"),
                            .group = SLICE("g"),
                            .id = SLICE("a"),
                            .url = SLICE("http://127.0.0.1:1"),
                            .handlers = &h,
                            .handler_count = 1,
                            .slots = 1,
                            .weight = -1},
                      x;
  struct executor_registered done;
#define BAD(member, value, code, place)                                                                      \
  do {                                                                                                       \
    x = ok;                                                                                                  \
    x.member = value;                                                                                        \
    assert_int_equal(registry_register(r, &x, &done, &e), code);                                             \
    assert_string_equal(e.field, place);                                                                     \
  } while (0)
  BAD(group, SLICE("none"), ERR_NOT_FOUND, "/group");
  BAD(id, SLICE(""), ERR_INVALID, "/id");
  BAD(slots, 0, ERR_INVALID, "/slots");
  BAD(weight, REGISTRY_WEIGHT_MAX + 1, ERR_INVALID, "/weight");
  BAD(handler_count, 0, ERR_INVALID, "/handlers");
  BAD(handlers, &empty, ERR_INVALID, "/handlers/0");
  BAD(labels, SLICE("[]"), ERR_INVALID, "/labels");
  BAD(url, SLICE("ftp://127.0.0.1/"), ERR_INVALID, "/url");
  BAD(url, SLICE("http://169.254.169.254/"), ERR_ADDRESS, "/url");
  BAD(url, SLICE("http://8.8.8.8/"), ERR_ADDRESS, "/url");
}

/* The threads: a beat reaches the store, a registration elsewhere gets here, without anyone asking. */
static void test_threads(void **state) {
  (void)state;
  r->o.refresh = 20 * USEC_PER_MS;
  r->o.beat_flush = 10 * USEC_PER_MS;
  OK(registry_start(r, &e));
  OK(registry_refresh(other, &e));
  join_with(other, "a", "h", 3);
  struct instance *i = NULL;
  for (int n = 0; n < 2000 && choose_as((struct choose_ask){0}, &i, NULL) < 0; n++)
    (void)usleep(5000);
  assert_non_null(i);
  registry_release(r, &i);
  enum executor_state st;
  OK(registry_beat(r, &(struct executor_beat){SLICE("default"), SLICE("g"), SLICE("a"), 0, 2}, &st, &e));
  struct st_executor_list_ret list = {0};
  for (int n = 0; n < 2000 && (!list.count || list.rows[0].running != 2); n++) {
    OK(registry_list(r, &(struct st_executor_list){SLICE("default"), SLICE("g")}, &list, &mem, &e));
    (void)usleep(5000);
  }
  assert_int_equal(list.rows[0].running, 2);
  registry_stop(r);
}

/* Not a limit, a figure for the log: what a choice among 100 costs. */
static void test_cost(void **state) {
  (void)state;
  for (int n = 0; n < 100; n++) {
    char id[16];
    (void)snprintf(id, sizeof id, "x%d", n);
    join(id, 10);
  }
  for (int routing = 0; routing < 2; routing++) {
    struct group_row row;
    OK(registry_group_change(
        r, &(struct group_new){SLICE("default"), SLICE("g"), CHANNEL_HTTP, (enum routing)routing, 16}, 0,
        &row, &mem, &e));
    for (int busy = 0; busy < 2; busy++) {
      enum { N = 20000, HELD = 500 };
      struct instance *held[HELD];
      for (int n = 0; busy && n < HELD; n++)
        held[n] = choose();
      usec_t t0 = test_mono(NULL);
      for (int n = 0; n < N; n++) {
        struct instance *i = choose();
        registry_release(r, &i);
      }
      print_message("%s among 100 %s: %d ns a choose and release\n", routing_names[routing],
                    busy ? "busy" : "idle", (int)((test_mono(NULL) - t0) * 1000 / N));
      for (int n = 0; busy && n < HELD; n++)
        registry_release(r, &held[n]);
    }
  }
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
  const struct CMUnitTest tests[] = {T(test_secrets),
                                     T(test_groups),
                                     T(test_bounds),
                                     T(test_round_robin),
                                     T(test_least_busy),
                                     T(test_hints),
                                     T(test_cooling),
                                     T(test_new_incarnation),
                                     T(test_drain),
                                     T(test_expiry),
                                     T(test_outage),
                                     T(test_other_node),
                                     T(test_register_refusals),
                                     T(test_threads),
                                     T(test_cost)};
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  arena_done(&mem);
  return failed;
}
