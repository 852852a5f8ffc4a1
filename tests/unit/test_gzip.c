#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/file.h"
#include "base/gzip.h"
#include "base/mem.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINES 3000

static char dir[64], path[96], other[96];

static int before(void **state) {
  (void)state;
  (void)snprintf(dir, sizeof dir, "/tmp/kelou-gzip-XXXXXX");
  if (!mkdtemp(dir))
    return -1;
  (void)snprintf(path, sizeof path, "%s/one", dir);
  (void)snprintf(other, sizeof other, "%s/two", dir);
  return 0;
}
static int after(void **state) {
  (void)state;
  (void)unlink(path); /* it may not be there */
  (void)unlink(other);
  return rmdir(dir);
}

/* Lines of every length up to several chunks. */
static struct slice line_of(int i, char *buf) {
  size_t n = (size_t)i % 7 == 0 ? (size_t)i * 97 : (size_t)i % 50;
  for (size_t k = 0; k < n; k++)
    buf[k] = (char)('a' + (k * 31 + (size_t)i) % 26);
  return slice_n(buf, n);
}

static void write_lines(const char *to) {
  struct gzip_writer *w = NULL;
  struct err e = {0};
  char *buf = mem_alloc((size_t)LINES * 97);
  assert_int_equal(gzip_create(to, 6, &w, &e), 0);
  for (int i = 0; i < LINES; i++) {
    assert_int_equal(gzip_write(w, line_of(i, buf), &e), 0);
    assert_int_equal(gzip_write(w, SLICE("\n"), &e), 0);
  }
  assert_int_equal(gzip_finish(&w, &e), 0);
  assert_null(w);
  mem_free(buf);
}

/* How many lines are good; *ret_code is what the end says. */
static int read_lines(const char *from, int *ret_code, struct err *e) {
  struct gzip_reader *r = NULL;
  struct slice line;
  int n = 0;
  char *buf = mem_alloc((size_t)LINES * 97);
  *ret_code = gzip_open(from, &r, e);
  while (r && (*ret_code = gzip_line(r, &line, e)) == 1) {
    assert_true(slice_eq(line, line_of(n % LINES, buf)));
    n++;
  }
  gzip_close(&r);
  mem_free(buf);
  return n;
}

static void test_there_and_back(void **state) {
  struct stat st;
  struct err e = {0};
  int code;
  (void)state;
  write_lines(path);
  assert_int_equal(stat(path, &st), 0);
  assert_int_equal(st.st_mode & 0777, 0600);
  assert_int_equal(read_lines(path, &code, &e), LINES);
  assert_int_equal(code, 0);
  /* two streams, one after the other, are one text */
  auto_str all;
  str_init(&all, (size_t)64 << 20);
  assert_int_equal(file_read(path, (size_t)32 << 20, &all, &e), 0);
  FILE *f = fopen(other, "w");
  assert_non_null(f);
  assert_int_equal(fwrite(all.p, 1, all.n, f), all.n);
  assert_int_equal(fwrite(all.p, 1, all.n, f), all.n);
  assert_int_equal(fclose(f), 0);
  assert_int_equal(read_lines(other, &code, &e), 2 * LINES);
  assert_int_equal(code, 0);
}

static void test_damage(void **state) {
  struct stat st;
  struct err e = {0};
  int code;
  (void)state;
  write_lines(path);
  assert_int_equal(stat(path, &st), 0);
  assert_int_equal(truncate(path, st.st_size - 1), 0);
  assert_true(read_lines(path, &code, &e) <= LINES);
  assert_int_equal(code, ERR_MALFORMED);
  assert_non_null(strstr(e.text, "ends in the middle"));
  assert_int_equal(truncate(path, st.st_size / 2), 0);
  assert_true(read_lines(path, &code, &e) < LINES);
  assert_int_equal(code, ERR_MALFORMED);
  FILE *f = fopen(path, "r+");
  assert_non_null(f);
  assert_int_equal(fseek(f, 200, SEEK_SET), 0);
  for (int i = 0; i < 400; i++)
    assert_int_not_equal(fputc(0xee, f), EOF);
  assert_int_equal(fclose(f), 0);
  struct gzip_reader *r = NULL;
  struct slice line;
  assert_int_equal(gzip_open(path, &r, &e), 0);
  while ((code = gzip_line(r, &line, &e)) == 1) {
  }
  gzip_close(&r);
  assert_int_equal(code, ERR_MALFORMED);
  assert_int_equal(truncate(path, 0), 0);
  assert_int_equal(read_lines(path, &code, &e), 0);
  assert_int_equal(code, 0); /* nothing is in an empty file */
}

static void test_names(void **state) {
  struct gzip_writer *w = NULL;
  struct gzip_reader *r = NULL;
  struct err e = {0};
  (void)state;
  assert_int_equal(gzip_open(path, &r, &e), -ENOENT);
  assert_int_equal(gzip_create("/nowhere/at/all", 6, &w, &e), -ENOENT);
  assert_int_equal(gzip_create(path, 1, &w, &e), 0);
  gzip_abandon(&w);
  assert_int_equal(access(path, F_OK), -1);
  gzip_abandon(&w);
  write_lines(path);
  assert_int_equal(file_publish(path, other, &e), 0);
  assert_int_equal(access(path, F_OK), -1);
  assert_int_equal(file_publish(path, other, &e), -ENOENT);
  assert_int_equal(file_copy(other, path, false, &e), 0);
  assert_int_equal(file_copy(other, path, false, &e), -EEXIST);
  assert_int_equal(file_copy(other, path, true, &e), 0);
  int code;
  assert_int_equal(read_lines(path, &code, &e), LINES);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_there_and_back, before, after),
      cmocka_unit_test_setup_teardown(test_damage, before, after),
      cmocka_unit_test_setup_teardown(test_names, before, after),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
