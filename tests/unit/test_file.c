#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/file.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[] = "/tmp/kelou-file-XXXXXX";

static void write_file(const char *name, const char *bytes, size_t n) {
  char path[128];
  (void)snprintf(path, sizeof path, "%s/%s", dir, name);
  FILE *f = fopen(path, "w");
  assert_non_null(f);
  assert_int_equal(fwrite(bytes, 1, n, f), n);
  assert_int_equal(fclose(f), 0);
}

static void test_read(void **state) {
  (void)state;
  auto_str out;
  struct err e = {0};
  str_init(&out, 100000);
  write_file("a", "x\0y", 3);
  assert_int_equal(file_read_below(dir, "a", 3, &out, &e), 0);
  assert_true(slice_eq(str_slice(&out), slice_n("x\0y", 3)));
  assert_int_equal(file_read_below(dir, "a", 2, &out, &e), ERR_TOO_LARGE);
  assert_int_equal(file_read_below(dir, "none", 10, &out, &e), -ENOENT);
  assert_non_null(strstr(e.text, "none"));
  assert_int_equal(file_read(dir, 10, &out, &e), -EISDIR);
  assert_int_equal(file_read("/dev/null", 10, &out, &e), -EINVAL);
  auto_str small;
  str_init(&small, 2);
  assert_int_equal(file_read_below(dir, "a", 100, &small, &e), ERR_TOO_LARGE);
  char fifo[128], name[300];
  (void)snprintf(fifo, sizeof fifo, "%s/fifo", dir);
  assert_int_equal(mkfifo(fifo, 0600), 0);
  assert_int_equal(file_read(fifo, 10, &out, &e), -EINVAL); /* and does not wait for a writer */
  memset(name, 'n', sizeof name);
  name[sizeof name - 1] = 0;
  assert_int_equal(file_read_below(dir, name, 10, &out, &e), -ENAMETOOLONG);
}

static void test_stamp(void **state) {
  (void)state;
  char path[128], other[128];
  (void)snprintf(path, sizeof path, "%s/s", dir);
  (void)snprintf(other, sizeof other, "%s/t", dir);
  assert_true(file_stamp(path) == 0);
  write_file("s", "1", 1);
  uint64_t before = file_stamp(path);
  assert_true(before != 0 && before == file_stamp(path));
  write_file("t", "22", 2);
  assert_int_equal(rename(other, path), 0); /* how packages replace files */
  assert_true(file_stamp(path) != before);
}

static int clean(void **state) {
  (void)state;
  static const char *const names[] = {"a", "fifo", "s", "t"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", dir, names[i]);
    (void)unlink(path);
  }
  return rmdir(dir);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_read), cmocka_unit_test(test_stamp)};
  return mkdtemp(dir) ? cmocka_run_group_tests(tests, NULL, clean) : 1;
}
