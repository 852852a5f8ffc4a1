#include "base/json.h"
#include "base/mem.h"
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

static json_t *read_ok(const char *text) {
  json_t *j = NULL;
  struct err e = {0};
  if (json_read(slice_of(text), 100000, &j, &e) < 0)
    fail_msg("%s: %s", text, e.text);
  return j;
}

static void round_trip(const char *text, const char *want) {
  auto_json *j = read_ok(text);
  auto_free char *back = json_text(j);
  assert_string_equal(back, want);
}

static void test_values(void **state) {
  (void)state;
  round_trip(" { \"b\" : [ 1 , -2 , true , false , null , \"x\" ] , \"a\" : { } } ",
             "{\"b\":[1,-2,true,false,null,\"x\"],\"a\":{}}");
  round_trip("9223372036854775807", "9223372036854775807");
  round_trip("-9223372036854775808", "-9223372036854775808");
  round_trip("9007199254740993", "9007199254740993"); /* not exact as a double */
  round_trip("0.1", "0.1");
  round_trip("1.0", "1.0");
  round_trip("-0.0", "-0.0");
  round_trip("1e300", "1e+300");
  round_trip("0.30000000000000004", "0.30000000000000004");
  round_trip("\"\\u523b\\u0041\\u000a\\/\\ud83d\\udd52\"", "\"\xe5\x88\xbb"
                                                           "A\\n/\xf0\x9f\x95\x92\"");
}

static void test_strict(void **state) {
  (void)state;
  static const char *const bad[] = {"",
                                    " ",
                                    "{",
                                    "[1,]",
                                    "{\"a\":1,}",
                                    "{\"a\":1,\"a\":2}",
                                    "{\"o\":{\"a\":1,\"a\":1}}",
                                    "{} x",
                                    "{}{}",
                                    "\"\\u0000\"",
                                    "{\"\\u0000\":1}",
                                    "\"\xff\"",
                                    "\"\xed\xa0\x80\"",
                                    "\"\\ud800\"",
                                    "\"a\nb\"",
                                    "01",
                                    "+1",
                                    ".5",
                                    "1.",
                                    "NaN",
                                    "Infinity",
                                    "'a'",
                                    "{a:1}",
                                    "// c\n1",
                                    "tru",
                                    "9223372036854775808",
                                    "-9223372036854775809",
                                    "1e999",
                                    "\xef\xbb\xbf{}"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    json_t *j = (json_t *)(uintptr_t)8;
    struct err e = {0};
    if (json_read(slice_of(bad[i]), 1000, &j, &e) != ERR_MALFORMED)
      fail_msg("accepted: %s", bad[i]);
    assert_ptr_equal(j, (json_t *)(uintptr_t)8);
    assert_int_equal(strncmp(e.text, "line ", 5), 0);
  }
  json_t *j = NULL;
  assert_int_equal(json_read(slice_n("1\0", 2), 1000, &j, NULL), ERR_MALFORMED);
  assert_int_equal(json_read(slice_n("[1,\0 2]", 7), 1000, &j, NULL), ERR_MALFORMED);
  assert_int_equal(json_read(slice_of(NULL), 1000, &j, NULL), ERR_MALFORMED);
  struct err e = {0};
  assert_int_equal(json_read(SLICE("{\n  \"a\": x\n}"), 1000, &j, &e), ERR_MALFORMED);
  assert_int_equal(strncmp(e.text, "line 2, column ", 15), 0);
}

static void test_limits(void **state) {
  (void)state;
  json_t *j = NULL;
  assert_int_equal(json_read(SLICE("[1,2]"), 4, &j, NULL), ERR_TOO_LARGE);
  assert_int_equal(json_read(SLICE("[1,2]"), 5, &j, NULL), 0);
  json_decref(j);
  char deep[10000];
  memset(deep, '[', 5000);
  memset(deep + 5000, ']', 5000);
  assert_int_equal(json_read(slice_n(deep, sizeof deep), sizeof deep, &j, NULL), ERR_MALFORMED);
}

static void test_canonical(void **state) {
  (void)state;
  auto_json *a = read_ok("{\"b\":{\"y\":1,\"x\":[{\"d\":1,\"c\":2}]},\"a\":\"\\u00e9\",\"ab\":0}");
  auto_json *b = read_ok("{\"ab\":0,\"a\":\"\xc3\xa9\",\"b\":{\"x\":[{\"c\":2,\"d\":1}],\"y\":1}}");
  auto_free char *x = json_canonical(a), *y = json_canonical(b);
  assert_string_equal(x, "{\"a\":\"\xc3\xa9\",\"ab\":0,\"b\":{\"x\":[{\"c\":2,\"d\":1}],\"y\":1}}");
  assert_string_equal(x, y);
  mem_free(y);
  y = json_text(NULL);
  assert_string_equal(y, "null");
}

static void test_escapes(void **state) {
  (void)state;
  auto_json *j = json_pack("{s:s}", "k\"\n", "v\\\x01\x7f");
  auto_free char *text = json_text(j);
  assert_string_equal(text, "{\"k\\\"\\n\":\"v\\\\\\u0001\\u007f\"}");
  auto_json *back = read_ok(text);
  assert_true(json_equal(j, back));
}

#define DOC                                                                                                  \
  "{\"i\":5,\"big\":9223372036854775807,\"r\":1.5,\"b\":true,\"s\":\"text\",\"n\":null,\"e\":\"green\","     \
  "\"t\":\"2026-11-23T04:46:10Z\",\"d\":\"1h30m\",\"a/b~c\":1}"
static const char *const colours[] = {"red", "green", NULL};

static void test_get_good(void **state) {
  (void)state;
  auto_json *j = read_ok(DOC);
  int64_t i = 0;
  bool b = false;
  struct slice s = {0};
  int which = 0;
  usec_t t = 0;
  double d = 0;
  assert_int_equal(json_get_i64(j, "i", 5, 5, &i, NULL), 1);
  assert_int_equal(i, 5);
  assert_int_equal(json_get_i64(j, "big", INT64_MIN, INT64_MAX, &i, NULL), 1);
  assert_true(i == INT64_MAX);
  assert_int_equal(json_get_bool(j, "b", &b, NULL), 1);
  assert_true(b);
  assert_int_equal(json_get_slice(j, "s", 4, &s, NULL), 1);
  assert_true(slice_eqz(s, "text"));
  assert_int_equal(json_get_enum(j, "e", colours, &which, NULL), 1);
  assert_int_equal(which, 1);
  assert_int_equal(json_get_time(j, "t", &t, NULL), 1);
  assert_true(t == INT64_C(1795409170) * USEC_PER_SEC);
  assert_int_equal(json_get_duration(j, "d", 0, USEC_PER_DAY, &t, NULL), 1);
  assert_true(t == 90 * USEC_PER_MIN);
  assert_int_equal(json_get_double(j, "r", 0, 2, &d, NULL), 1);
  assert_true(d == 1.5);
  assert_int_equal(json_get_double(j, "i", 0, 9, &d, NULL), 1);
  assert_true(d == 5.0);
}

static void test_get_absent(void **state) {
  (void)state;
  auto_json *j = read_ok(DOC);
  static const char *const keys[] = {"n", "nothing"};
  for (int k = 0; k < 2; k++) {
    int64_t i = -1;
    bool b = true;
    struct slice s = SLICE("before");
    int which = -1;
    usec_t t = -1;
    double d = -1;
    assert_int_equal(json_get_i64(j, keys[k], 0, 1, &i, NULL), 0);
    assert_int_equal(json_get_bool(j, keys[k], &b, NULL), 0);
    assert_int_equal(json_get_slice(j, keys[k], 1, &s, NULL), 0);
    assert_int_equal(json_get_enum(j, keys[k], colours, &which, NULL), 0);
    assert_int_equal(json_get_time(j, keys[k], &t, NULL), 0);
    assert_int_equal(json_get_duration(j, keys[k], 0, 1, &t, NULL), 0);
    assert_int_equal(json_get_double(j, keys[k], 0, 1, &d, NULL), 0);
    assert_true(i == -1 && b && slice_eqz(s, "before") && which == -1 && t == -1 && d < 0);
  }
}

static void refused(int code, struct err *e, const char *field) {
  assert_int_equal(code, ERR_INVALID);
  assert_int_equal(e->code, ERR_INVALID);
  assert_string_equal(e->field, field);
  assert_true(*e->text != 0);
  *e = (struct err){0};
}

static void test_get_wrong(void **state) {
  (void)state;
  auto_json *j = read_ok(DOC);
  struct err e = {0};
  int64_t i;
  bool b;
  struct slice s;
  int which;
  usec_t t;
  double d;
  refused(json_get_i64(j, "i", 6, 9, &i, &e), &e, "/i");
  refused(json_get_i64(j, "i", 0, 4, &i, &e), &e, "/i");
  refused(json_get_i64(j, "s", 0, 4, &i, &e), &e, "/s");
  refused(json_get_i64(j, "r", 0, 4, &i, &e), &e, "/r");
  refused(json_get_i64(j, "a/b~c", 2, 4, &i, &e), &e, "/a~1b~0c");
  refused(json_get_bool(j, "i", &b, &e), &e, "/i");
  refused(json_get_slice(j, "i", 9, &s, &e), &e, "/i");
  refused(json_get_slice(j, "s", 3, &s, &e), &e, "/s");
  refused(json_get_enum(j, "s", colours, &which, &e), &e, "/s");
  refused(json_get_enum(j, "i", colours, &which, &e), &e, "/i");
  refused(json_get_time(j, "s", &t, &e), &e, "/s");
  refused(json_get_time(j, "i", &t, &e), &e, "/i");
  refused(json_get_duration(j, "d", 0, USEC_PER_HOUR, &t, &e), &e, "/d");
  refused(json_get_duration(j, "i", 0, USEC_PER_HOUR, &t, &e), &e, "/i");
  refused(json_get_double(j, "r", 2, 3, &d, &e), &e, "/r");
  refused(json_get_double(j, "s", 2, 3, &d, &e), &e, "/s");
  assert_int_equal(json_get_i64(j, "i", 6, 9, &i, NULL), ERR_INVALID);
  refused(json_want_object(json_object_get(j, "i"), "/i", &e), &e, "/i");
  refused(json_want_object(NULL, "", &e), &e, "");
  assert_int_equal(json_want_object(j, "", &e), 0);
}

static void test_check_keys(void **state) {
  (void)state;
  static const char *const known[] = {"name", "schedule", "timeout", NULL};
  struct err e = {0};
  auto_json *good = read_ok("{\"timeout\":1,\"name\":2}");
  assert_int_equal(json_check_keys(good, known, &e), 0);
  auto_json *near = read_ok("{\"name\":2,\"shedule\":1}");
  assert_int_equal(json_check_keys(near, known, &e), ERR_UNKNOWN_FIELD);
  assert_string_equal(e.field, "/shedule");
  assert_string_equal(e.text, "this field is not known; did you mean \"schedule\"?");
  auto_json *far = read_ok("{\"a/b\\n\":1}");
  assert_int_equal(json_check_keys(far, known, &e), ERR_UNKNOWN_FIELD);
  assert_string_equal(e.field, "/a~1b?");
  assert_string_equal(e.text, "this field is not known");
  auto_json *wide = json_object();
  char key[300];
  memset(key, '/', sizeof key - 1);
  key[sizeof key - 1] = 0;
  json_object_set_new(wide, key, json_null());
  assert_int_equal(json_check_keys(wide, known, &e), ERR_UNKNOWN_FIELD);
  assert_true(strlen(e.field) < ERR_FIELD_MAX);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_values),     cmocka_unit_test(test_strict),    cmocka_unit_test(test_limits),
      cmocka_unit_test(test_canonical),  cmocka_unit_test(test_escapes),   cmocka_unit_test(test_get_good),
      cmocka_unit_test(test_get_absent), cmocka_unit_test(test_get_wrong), cmocka_unit_test(test_check_keys),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
