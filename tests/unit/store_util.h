#pragma once
/* A pooled SQLite store in a folder of its own, for tests of the services. The database's clock is `test_clock`: it runs with the
 * real one, and further when a test says so. */
#include "store/decorators.h"
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static _Atomic usec_t test_ahead; /* how far the test has moved the clocks */
static usec_t test_wall(const struct clock *c) {
  (void)c;
  return clock_system.wall(&clock_system) + test_ahead;
}
static usec_t test_mono(const struct clock *c) {
  (void)c;
  return clock_system.mono(&clock_system) + test_ahead;
}
static const struct clock test_clock = {test_wall, test_mono};

struct test_store {
  char dir[64];
  struct store_source *source;
  struct store *store;
};

static inline void test_store_open(struct test_store *t) {
  struct err e = {0};
  char url[128];
  (void)snprintf(t->dir, sizeof t->dir, "/tmp/kelou-unit-XXXXXX");
  assert_non_null(mkdtemp(t->dir));
  (void)snprintf(url, sizeof url, "sqlite:%s/kelou.db", t->dir);
  const struct store_options o = {.url = url, .shard_count = 4, .clock = &test_clock};
  if (store_source_open(&o, &t->source, &e) < 0 ||
      store_pool(t->source, STORE_API, 4, 5 * USEC_PER_SEC, &t->store, &e) < 0)
    fail_msg("%s", e.text);
}

static inline void test_store_close(struct test_store *t) {
  static const char *const names[] = {"kelou.db",    "kelou.db.lock",   "kelou.db-wal",   "kelou.db-shm",
                                      "admin.token", "admin.token.new", "admin.token.old"};
  char path[128];
  store_close(&t->store);
  store_source_close(&t->source);
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    (void)snprintf(path, sizeof path, "%s/%s", t->dir, names[i]);
    (void)unlink(path); /* it may not be there */
  }
  (void)rmdir(t->dir); /* what is left shows what went wrong */
}

/* The error's text in the test's log when a call fails. */
#define OK(call)                                                                                             \
  ({                                                                                                         \
    int ok_ = (call);                                                                                        \
    if (ok_ < 0)                                                                                             \
      fail_msg("%s: %s %s: %s", #call, err_name(ok_), e.field, e.text);                                      \
    ok_;                                                                                                     \
  })
