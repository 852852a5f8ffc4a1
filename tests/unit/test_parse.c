#include "base/parse.h"
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

static int i64(const char *text, int64_t min, int64_t max, int64_t *ret) {
  return parse_i64(slice_of(text), min, max, ret, NULL);
}

static void test_i64(void **state) {
  (void)state;
  int64_t v = 77;
  static const char *const bad[] = {"",
                                    "-",
                                    "+1",
                                    " 1",
                                    "1 ",
                                    "01",
                                    "-01",
                                    "-0",
                                    "00",
                                    "1.0",
                                    "1e3",
                                    "0x10",
                                    "abc",
                                    "9223372036854775808",
                                    "-9223372036854775809",
                                    "18446744073709551616",
                                    "99999999999999999999999999",
                                    "1\n",
                                    "--1"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    assert_int_equal(i64(bad[i], INT64_MIN, INT64_MAX, &v), ERR_INVALID);
    assert_true(v == 77); /* untouched */
  }
  assert_int_equal(i64("9223372036854775807", INT64_MIN, INT64_MAX, &v), 0);
  assert_true(v == INT64_MAX);
  assert_int_equal(i64("-9223372036854775808", INT64_MIN, INT64_MAX, &v), 0);
  assert_true(v == INT64_MIN);
  assert_int_equal(i64("0", 0, 10, &v), 0);
  assert_int_equal(v, 0);
  assert_int_equal(i64("10", 0, 10, &v), 0);
  assert_int_equal(i64("11", 0, 10, &v), ERR_INVALID);
  assert_int_equal(i64("-1", 0, 10, &v), ERR_INVALID);
  struct err e = {0};
  assert_int_equal(parse_i64(slice_n("12345", 6 - 1), 1, 9, &v, &e), ERR_INVALID);
  assert_string_equal(e.text, "expected a whole number from 1 to 9");
  assert_int_equal(parse_i64(slice_n("42abc", 2), 1, 99, &v, NULL), 0); /* nothing past n is read */
  assert_int_equal(v, 42);
}

static void test_bool(void **state) {
  (void)state;
  bool b = true;
  assert_int_equal(parse_bool(SLICE("false"), &b, NULL), 0);
  assert_false(b);
  assert_int_equal(parse_bool(SLICE("true"), &b, NULL), 0);
  assert_true(b);
  assert_int_equal(parse_bool(SLICE("yes"), &b, NULL), ERR_INVALID);
  assert_int_equal(parse_bool(SLICE("True"), &b, NULL), ERR_INVALID);
  assert_int_equal(parse_bool(SLICE(""), &b, NULL), ERR_INVALID);
}

static void test_bytes(void **state) {
  (void)state;
  static const struct {
    const char *text;
    int64_t want;
  } good[] = {{"0", 0},
              {"512", 512},
              {"64KiB", 65536},
              {"10MiB", 10485760},
              {"1GiB", 1073741824},
              {"8589934591GiB", INT64_C(8589934591) << 30},
              {"9223372036854775807", INT64_MAX}};
  static const char *const bad[] = {"",       "KiB",           "1KB", "1kib", "1 KiB", "-1",
                                    "1.5MiB", "8589934592GiB", "1B",  "0x1",  "01KiB", "9223372036854775808"};
  int64_t v = -5;
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    assert_int_equal(parse_bytes(slice_of(good[i].text), 0, INT64_MAX, &v, NULL), 0);
    assert_true(v == good[i].want);
  }
  v = -5;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_int_equal(parse_bytes(slice_of(bad[i]), 0, INT64_MAX, &v, NULL), ERR_INVALID);
  assert_int_equal(v, -5);
  struct err e = {0};
  assert_int_equal(parse_bytes(SLICE("5"), 1000, 65536, &v, &e), ERR_INVALID);
  assert_string_equal(e.text, "expected a size such as 512, 64KiB or 10MiB, from 1000 to 64KiB");
}

static const char *const colours[] = {"red", "green", "blue", NULL};

static void test_enum(void **state) {
  (void)state;
  int v = -9;
  struct err e = {0};
  assert_int_equal(parse_enum(SLICE("blue"), colours, &v, NULL), 0);
  assert_int_equal(v, 2);
  assert_int_equal(parse_enum(SLICE("blu"), colours, &v, NULL), ERR_INVALID);
  assert_int_equal(parse_enum(SLICE("black"), colours, &v, &e), ERR_INVALID);
  assert_string_equal(e.text, "expected one of: red, green, blue");
  assert_int_equal(v, 2);
  char wide[200];
  memset(wide, 'w', sizeof wide - 1);
  wide[sizeof wide - 1] = 0;
  const char *const many[] = {wide, wide, wide, NULL}; /* longer than an error text */
  assert_int_equal(parse_enum(SLICE("black"), many, &v, &e), ERR_INVALID);
  assert_true(strlen(e.text) < ERR_TEXT_MAX);
}

static void test_nearest(void **state) {
  (void)state;
  static const char *const names[] = {"http.port", "http.address", "log.level", NULL};
  assert_string_equal(parse_nearest(SLICE("http.prot"), names), "http.port"); /* swapped */
  assert_string_equal(parse_nearest(SLICE("log.levle"), names), "log.level");
  assert_string_equal(parse_nearest(SLICE("http.adress"), names), "http.address");
  assert_string_equal(parse_nearest(SLICE("htp.port"), names), "http.port");
  assert_null(parse_nearest(SLICE("completely_else"), names));
  assert_null(parse_nearest(SLICE(""), names));
  char wide[100];
  memset(wide, 'w', sizeof wide - 1);
  wide[sizeof wide - 1] = 0;
  const char *const wides[] = {wide, NULL};
  assert_null(parse_nearest(slice_of(wide), names));
  assert_null(parse_nearest(SLICE("w"), wides));
  assert_string_equal(parse_nearest(SLICE("gren"), colours), "green");
}

static void test_hex(void **state) {
  (void)state;
  uint8_t in[3] = {0x00, 0x9f, 0xff}, out[3] = {1, 1, 1};
  char text[7];
  hex_encode(in, 3, text);
  assert_string_equal(text, "009fff");
  assert_int_equal(hex_decode(SLICE("009fff"), out, 3, NULL), 0);
  assert_memory_equal(in, out, 3);
  assert_int_equal(hex_decode(SLICE("009fFF"), out, 3, NULL), ERR_INVALID);
  assert_int_equal(hex_decode(SLICE("009ff"), out, 3, NULL), ERR_INVALID);
  assert_int_equal(hex_decode(SLICE("009fff0"), out, 3, NULL), ERR_INVALID);
  assert_int_equal(hex_decode(SLICE("00 fff"), out, 3, NULL), ERR_INVALID);
  assert_int_equal(hex_decode(SLICE("00gfff"), out, 3, NULL), ERR_INVALID);
  assert_int_equal(hex_decode(SLICE(""), out, 0, NULL), 0);
}

static void test_base32hex(void **state) {
  (void)state;
  /* RFC 4648 §10, lower case and without padding */
  static const char *const pairs[][2] = {{"", ""},
                                         {"f", "co"},
                                         {"fo", "cpng"},
                                         {"foo", "cpnmu"},
                                         {"foob", "cpnmuog"},
                                         {"fooba", "cpnmuoj1"},
                                         {"foobar", "cpnmuoj1e8"}};
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
    char text[17];
    uint8_t back[6];
    size_t n = strlen(pairs[i][0]);
    base32hex_encode((const uint8_t *)pairs[i][0], n, text);
    assert_string_equal(text, pairs[i][1]);
    assert_int_equal(base32hex_decode(slice_of(text), back, n, NULL), 0);
    assert_memory_equal(back, pairs[i][0], n);
  }
  uint8_t out[1] = {9};
  assert_int_equal(base32hex_decode(SLICE("cp"), out, 1, NULL), ERR_INVALID); /* spare bits set */
  assert_int_equal(base32hex_decode(SLICE("c"), out, 1, NULL), ERR_INVALID);
  assert_int_equal(base32hex_decode(SLICE("CO"), out, 1, NULL), ERR_INVALID);
  assert_int_equal(base32hex_decode(SLICE("cw"), out, 1, NULL), ERR_INVALID);
  assert_int_equal(out[0], 9);
}

static void test_base32hex_sorts(void **state) {
  (void)state;
  char before[17] = "", text[17];
  for (unsigned i = 0; i < 1000; i++) {
    uint8_t id[10] = {0};
    id[3] = (uint8_t)(i >> 8);
    id[4] = (uint8_t)i;
    base32hex_encode(id, 10, text);
    assert_int_equal(strlen(text), 16);
    assert_true(strcmp(before, text) < 0);
    memcpy(before, text, sizeof text);
  }
}

static void test_name(void **state) {
  (void)state;
  static const char *const good[] = {"a",
                                     "A-z_0.9:x",
                                     "nightly report",
                                     "\xe5\x88\xbb\xe6\xbc\x8f",
                                     "\xc3\xa9t\xc3\xa9",
                                     "\xf0\x9f\x95\x92"};
  static const char *const bad[] = {"",
                                    " a",
                                    "a ",
                                    "a/b",
                                    "a\nb",
                                    "a\tb",
                                    "a\x7f",
                                    "\x1b[0m",
                                    "a\"b",
                                    "<b>",
                                    "\xff",
                                    "\xc2\x85",
                                    "a\xc2\xa0",
                                    "a\xe2\x80\xae"
                                    "b",
                                    "a\xe2\x80\x8b",
                                    "\xef\xbb\xbf"
                                    "a",
                                    "\xe3\x80\x80",
                                    "\xee\x80\x80",
                                    "\xef\xbf\xbe",
                                    "\xf0\x9f\xbf\xbe",
                                    "\xf3\xa0\x81\x81"};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++)
    assert_int_equal(parse_name(slice_of(good[i]), 64, NULL), 0);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_int_equal(parse_name(slice_of(bad[i]), 64, NULL), ERR_INVALID);
  assert_int_equal(parse_name(slice_n("a\0b", 3), 64, NULL), ERR_INVALID);
  assert_int_equal(parse_name(SLICE("12345"), 5, NULL), 0);
  assert_int_equal(parse_name(SLICE("123456"), 5, NULL), ERR_INVALID);
  struct err e = {0};
  assert_int_equal(parse_name(SLICE("ab/c"), 64, &e), ERR_INVALID);
  assert_int_equal(e.column, 3);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_i64),       cmocka_unit_test(test_bool),
      cmocka_unit_test(test_bytes),     cmocka_unit_test(test_enum),
      cmocka_unit_test(test_nearest),   cmocka_unit_test(test_hex),
      cmocka_unit_test(test_base32hex), cmocka_unit_test(test_base32hex_sorts),
      cmocka_unit_test(test_name),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
