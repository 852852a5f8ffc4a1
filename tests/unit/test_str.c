#include "base/str.h"
#include "base/mem.h"
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>

static void test_slices(void **state) {
  (void)state;
  struct slice rest;
  assert_true(slice_eq(SLICE("a"), slice_of("a")));
  assert_false(slice_eq(SLICE("a"), SLICE("ab")));
  assert_false(slice_eq(SLICE("a"), SLICE("b")));
  assert_true(slice_eq(slice_of(NULL), SLICE("")));
  assert_true(slice_eqz(slice_n("abc", 2), "ab"));
  assert_true(slice_eqz_nocase(SLICE("Content-Type"), "content-TYPE"));
  assert_false(slice_eqz_nocase(SLICE("a"), "b"));
  assert_false(slice_eqz_nocase(SLICE("a"), "aa"));
  assert_false(slice_eqz_nocase(SLICE("@["), "`{")); /* 32 apart, but not letters */
  assert_true(slice_eqz(slice_trim(SLICE(" \t a b\t ")), "a b"));
  assert_int_equal(slice_trim(SLICE(" \t ")).n, 0);
  assert_int_equal(slice_trim(slice_of(NULL)).n, 0);
  assert_true(slice_eqz(slice_cut(SLICE("k=v=w"), '=', &rest), "k"));
  assert_true(slice_eqz(rest, "v=w"));
  assert_true(slice_eqz(slice_cut(SLICE("k="), '=', &rest), "k"));
  assert_non_null(rest.p);
  assert_int_equal(rest.n, 0);
  assert_true(slice_eqz(slice_cut(SLICE("k"), '=', &rest), "k"));
  assert_null(rest.p);
  assert_int_equal(slice_cut(slice_of(NULL), '=', &rest).n, 0);
}

static void test_utf8(void **state) {
  (void)state;
  static const char *const good[] = {"",
                                     "a",
                                     "\xc2\x80",
                                     "\xdf\xbf",
                                     "\xe0\xa0\x80",
                                     "\xed\x9f\xbf",
                                     "\xee\x80\x80",
                                     "\xef\xbf\xbf",
                                     "\xf0\x90\x80\x80",
                                     "\xf4\x8f\xbf\xbf",
                                     "x\xe5\x88\xbby"};
  static const char *const bad[] = {"\x80",
                                    "\xbf",
                                    "\xc0\x80",
                                    "\xc1\xbf",
                                    "\xc2",
                                    "\xc2x",
                                    "\xe0\x9f\xbf",
                                    "\xed\xa0\x80",
                                    "\xed\xbf\xbf",
                                    "\xe5\x88",
                                    "\xe5\x88x",
                                    "\xf0\x8f\xbf\xbf",
                                    "\xf4\x90\x80\x80",
                                    "\xf5\x80\x80\x80",
                                    "\xf8\x88\x80\x80\x80",
                                    "\xff",
                                    "ok\xfe"};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++)
    assert_true(slice_utf8_valid(slice_of(good[i])));
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_false(slice_utf8_valid(slice_of(bad[i])));
  assert_true(slice_utf8_valid(slice_n("a\0b", 3)));
  assert_int_equal(slice_utf8_step(SLICE("")), 0);
  assert_int_equal(slice_utf8_step(SLICE("\xf0\x9f\x95\x92z")), 4);
}

static void test_hash_is_stable(void **state) {
  (void)state;
  /* stored places (shards, rendezvous hashing) depend on these values: they never change */
  assert_int_equal(slice_hash(SLICE("")), slice_hash(slice_of(NULL)));
  assert_true(slice_hash(SLICE("a")) == UINT64_C(0x5f29c2aadd9b8527));
  assert_true(slice_hash(SLICE("kelou")) == UINT64_C(0x3986754bb20b5353));
  assert_true(slice_hash(SLICE("ab")) != slice_hash(SLICE("ba")));
}

static void test_builder(void **state) {
  (void)state;
  auto_str s;
  str_init(&s, 1000);
  assert_string_equal(s.p, "");
  str_addz(&s, "a");
  str_addc(&s, 'b');
  str_add(&s, slice_n("cde", 2));
  str_add(&s, slice_of(NULL));
  str_addf(&s, "-%d-", 5);
  str_addi(&s, INT64_MIN);
  str_addc(&s, ' ');
  str_addi(&s, INT64_MAX);
  str_addc(&s, ' ');
  str_addi(&s, 0);
  assert_string_equal(s.p, "abcd-5--9223372036854775808 9223372036854775807 0");
  assert_int_equal(str_slice(&s).n, strlen(s.p));
  str_clear(&s);
  assert_string_equal(s.p, "");
  str_addf(&s, "%0500d|", 7); /* longer than the first buffer of the formatter */
  assert_int_equal(s.n, 501);
  assert_false(str_failed(&s));
}

static void test_cap(void **state) {
  (void)state;
  auto_str s;
  str_init(&s, 5);
  str_addz(&s, "12345");
  assert_false(str_failed(&s));
  str_addc(&s, '6');
  assert_true(str_failed(&s));
  str_addz(&s, "");
  assert_string_equal(s.p, "12345");
  assert_null(str_take(&s));
  str_clear(&s);
  assert_false(str_failed(&s));
  str_addf(&s, "%0300d", 1);
  assert_true(str_failed(&s));
  assert_string_equal(s.p, "");
  str_done(&s);
  str_init(&s, 0);
  assert_string_equal(s.p, "");
  str_addz(&s, "");
  assert_false(str_failed(&s));
  str_addc(&s, 'x');
  assert_true(str_failed(&s));
  str_done(&s);
  str_init(&s, 100); /* the growth stops at the cap */
  for (int i = 0; i < 100; i++)
    str_addc(&s, 'y');
  assert_false(str_failed(&s));
  assert_true(s.cap <= 101);
  str_addc(&s, 'y');
  assert_true(str_failed(&s));
}

static void test_length_overflow(void **state) {
  (void)state;
  auto_str s;
  str_init(&s, SIZE_MAX - 1);
  str_addc(&s, 'a');
  str_add(&s, slice_n("", SIZE_MAX));
  assert_true(str_failed(&s));
  assert_string_equal(s.p, "a");
}

static void test_take(void **state) {
  (void)state;
  struct str s;
  str_init(&s, 100);
  str_addz(&s, "mine");
  char *p = str_take(&s);
  assert_string_equal(p, "mine");
  mem_free(p);
  p = str_take(&s); /* taken twice: an empty text */
  assert_string_equal(p, "");
  mem_free(p);
  str_clear(&s);
  str_addz(&s, "again"); /* and usable still */
  assert_string_equal(s.p, "again");
  str_done(&s);
  str_done(&s);
}

static void test_json_escapes(void **state) {
  (void)state;
  auto_str s;
  str_init(&s, 1000);
  str_add_json(&s, slice_n("a\"\\/\b\f\n\r\t\x01\x1f\0z", 13));
  assert_string_equal(s.p, "a\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f\\u0000z");
  str_clear(&s);
  str_add_json(&s, SLICE("\xe5\x88\xbb\x7f\xc2\x9b\xe2\x80\xa8\xe2\x80\xa9\xff\xe5\x88"));
  assert_string_equal(s.p, "\xe5\x88\xbb\\u007f\\u009b\\u2028\\u2029\\ufffd\\ufffd\\ufffd");
  str_clear(&s);
  str_add_json(&s, slice_of(NULL));
  assert_string_equal(s.p, "");
}

static void test_text_copy(void **state) {
  (void)state;
  char buf[4];
  assert_int_equal(text_copy(buf, sizeof buf, SLICE("abc")), 0);
  assert_string_equal(buf, "abc");
  assert_int_equal(text_copy(buf, sizeof buf, SLICE("abcd")), -ENOSPC);
  assert_string_equal(buf, "abc");
  assert_int_equal(text_copy(buf, sizeof buf, slice_of(NULL)), 0);
  assert_string_equal(buf, "");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_slices),
      cmocka_unit_test(test_utf8),
      cmocka_unit_test(test_hash_is_stable),
      cmocka_unit_test(test_builder),
      cmocka_unit_test(test_cap),
      cmocka_unit_test(test_length_overflow),
      cmocka_unit_test(test_take),
      cmocka_unit_test(test_json_escapes),
      cmocka_unit_test(test_text_copy),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
