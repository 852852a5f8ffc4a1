#include "base/err.h"
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

static void test_set(void **state) {
  (void)state;
  struct err e;
  memset(&e, 0x5a, sizeof e);
  assert_int_equal(err_set(&e, ERR_INVALID, "expected %d", 7), ERR_INVALID);
  assert_int_equal(e.code, ERR_INVALID);
  assert_int_equal(e.column, 0);
  assert_string_equal(e.field, "");
  assert_string_equal(e.text, "expected 7");
  assert_int_equal(err_set(NULL, -ENOENT, "nobody reads %s", "this"), -ENOENT);
  assert_int_equal(err_field(NULL, ERR_MISSING, "/a", "x"), ERR_MISSING);
}

static void test_field_and_prefix(void **state) {
  (void)state;
  struct err e = {0};
  assert_int_equal(err_field(&e, ERR_MISSING, "/expression", "wanted"), ERR_MISSING);
  assert_int_equal(err_at(&e, "/schedule"), ERR_MISSING);
  assert_string_equal(e.field, "/schedule/expression");
  assert_string_equal(e.text, "wanted");
  assert_true(err_at(NULL, "/x") < 0);
}

static void test_own_text_as_argument(void **state) {
  (void)state;
  struct err e = {0};
  (void)err_field(&e, ERR_INVALID, "/a", "inner");
  (void)err_field(&e, ERR_CONFLICT, e.field, "outer: %s", e.text);
  assert_string_equal(e.text, "outer: inner");
  assert_string_equal(e.field, "/a");
}

static void test_cut_stays_utf8(void **state) {
  (void)state;
  struct err e = {0};
  char text[2 * ERR_TEXT_MAX];
  memset(text, 'a', sizeof text);
  text[sizeof text - 1] = 0;
  memcpy(text + ERR_TEXT_MAX - 3, "\xe5\x88\xbb", 3); /* only two of three bytes fit */
  (void)err_field(&e, ERR_INVALID, text, "%s", text);
  assert_int_equal(strlen(e.text), ERR_TEXT_MAX - 1);
  assert_string_equal(e.text + ERR_TEXT_MAX - 3, "??");
  assert_int_equal(strlen(e.field), ERR_FIELD_MAX - 1);
  (void)err_at(&e, text);
  assert_int_equal(strlen(e.field), ERR_FIELD_MAX - 1);
}

static void test_no_control_characters(void **state) {
  (void)state;
  struct err e = {0};
  (void)err_field(&e, ERR_INVALID, "/a\nb", "bad \x1b[31m\r\n\x7f \xff \xe5\x88\xbb");
  assert_string_equal(e.text, "bad ?[31m??? ? \xe5\x88\xbb");
  assert_string_equal(e.field, "/a?b");
}

static void test_tables(void **state) {
  (void)state;
  static const int codes[] = {
#define ERR(name, number, text, http, exit_code, title) ERR_##name,
#include "base/errors.def"
#undef ERR
  };
  for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
    assert_true(codes[i] < -1000);
    assert_true(err_http(codes[i]) >= 400 && err_http(codes[i]) < 600);
    assert_true(err_exit(codes[i]) > 0 && err_exit(codes[i]) < 126);
    assert_true(*err_title(codes[i]) != 0);
    assert_string_not_equal(err_name(codes[i]), "io_error");
    for (size_t j = 0; j < i; j++) {
      assert_int_not_equal(codes[i], codes[j]);
      assert_string_not_equal(err_name(codes[i]), err_name(codes[j]));
    }
  }
  assert_string_equal(err_name(ERR_STALE), "stale_version");
  assert_int_equal(err_http(ERR_STALE), 412);
  assert_string_equal(err_name(-EIO), "io_error");
  assert_int_equal(err_http(-EIO), 500);
  assert_int_equal(err_exit(-EIO), 1);
  assert_string_equal(err_name(0), "ok");
  assert_int_equal(err_exit(3), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_set),
      cmocka_unit_test(test_field_and_prefix),
      cmocka_unit_test(test_own_text_as_argument),
      cmocka_unit_test(test_cut_stays_utf8),
      cmocka_unit_test(test_no_control_characters),
      cmocka_unit_test(test_tables),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
