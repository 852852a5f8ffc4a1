/* The migrations' rules over a list in memory, and the choice of the back end by the URL. */
#include "store/migrate.h"
#include "store/store.h"
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

static const struct migration known[] = {
    {1, "0001_one.sql", "one"}, {2, "0002_two.sql", "two"}, {3, "0003_three.sql", "three"}, {0, NULL, NULL}};

struct fake {
  struct migration_applied applied[8];
  char checksums[8][MIGRATION_CHECKSUM_LEN + 1];
  size_t count;
  int32_t fails; /* this number's script */
};

static int list(void *db, struct arena *mem, struct migration_applied **ret, size_t *ret_count,
                struct err *e) {
  struct fake *f = db;
  (void)mem;
  (void)e;
  *ret = f->applied;
  *ret_count = f->count;
  return 0;
}

static int apply(void *db, const struct migration *m, const char *checksum, struct err *e) {
  struct fake *f = db;
  if (m->number == f->fails)
    return err_set(e, ERR_UNAVAILABLE, "no");
  assert_int_equal(text_copy(f->checksums[f->count], sizeof f->checksums[0], slice_of(checksum)), 0);
  f->applied[f->count] =
      (struct migration_applied){m->number, slice_of(m->name), slice_of(f->checksums[f->count])};
  f->count++;
  return 0;
}

static const struct migrate_ops ops = {list, apply};

static int run(struct fake *f, struct err *e) {
  int32_t version = -1;
  int r = migrate_run(known, &ops, f, &version, e);
  assert_int_equal(version, r == 0 ? 3 : -1);
  return r;
}

static void test_applies_what_is_missing(void **state) {
  struct fake f = {.fails = 3};
  struct err e;
  (void)state;
  assert_int_equal(run(&f, &e), ERR_UNAVAILABLE);
  assert_int_equal(f.count, 2);
  f.fails = 0;
  assert_int_equal(run(&f, &e), 0);
  assert_int_equal(f.count, 3);
  assert_int_equal(run(&f, &e), 0);
  assert_int_equal(f.count, 3);
}

static void test_refuses(void **state) {
  struct fake f = {};
  struct err e;
  (void)state;
  assert_int_equal(run(&f, &e), 0);
  f.checksums[1][0] ^= 1;
  assert_int_equal(run(&f, &e), ERR_SCHEMA);
  assert_non_null(strstr(e.text, "0002_two.sql"));
  f.checksums[1][0] ^= 1;
  f.applied[2].name = SLICE("0003_other.sql");
  assert_int_equal(run(&f, &e), ERR_SCHEMA);
  f.applied[2].name = SLICE("0003_three.sql");
  f.applied[f.count++] = (struct migration_applied){4, SLICE("0004_newer.sql"), SLICE("0123456789abcdef")};
  assert_int_equal(run(&f, &e), ERR_SCHEMA);
  assert_non_null(strstr(e.text, "0004_newer.sql"));
  f.applied[1] = f.applied[2]; /* number 2 is missing */
  f.count = 2;
  assert_int_equal(run(&f, &e), ERR_SCHEMA);
}

static void test_url(void **state) {
  static const char *const bad[] = {"", "mysql://x/y", "sqlite", "sqlite:", "sqlite:/tmp/x?mode=ro"};
  struct store_source *source = NULL;
  struct err e;
  (void)state;
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
    assert_int_equal(store_source_open(&(struct store_options){.url = bad[i], .shard_count = 4}, &source, &e),
                     ERR_INVALID);
  assert_int_equal(
      store_source_open(&(struct store_options){.url = "sqlite:/nowhere/at/all.db", .shard_count = 4},
                        &source, &e),
      -ENOENT);
  assert_null(source);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_applies_what_is_missing),
                                     cmocka_unit_test(test_refuses), cmocka_unit_test(test_url)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
