/* YAML documents as JSON. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/mem.h"
#include "base/yaml_doc.h"
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

static void test_good(void **state) {
  (void)state;
  static const char *const rows[][2] = {
      {"a: 1\nb: [x, 'y', \"z\"]\n", "{\"a\":1,\"b\":[\"x\",\"y\",\"z\"]}"},
      {"schedule:\n  kind: CRON\n  expression: 0 0 9 ? * MON-FRI\n",
       "{\"schedule\":{\"expression\":\"0 0 9 ? * MON-FRI\",\"kind\":\"CRON\"}}"},
      {"[~, null, '', true, FALSE, no, on, yes]", "[null,null,\"\",true,false,\"no\",\"on\",\"yes\"]"},
      {"[-5, 9223372036854775807, 9223372036854775808, 007, 1.5, -2.5e3, 1e5, .5, 1.2.3, 0x10]",
       "[-5,9223372036854775807,\"9223372036854775808\",\"007\",1.5,-2500.0,\"1e5\",0.5,\"1.2.3\",\"0x10\"]"},
      {"[1:30, 2026-01-01, 10s, ., \"1\"]", "[\"1:30\",\"2026-01-01\",\"10s\",\".\",\"1\"]"},
      {"- |\n  two\n  lines\n- - 1\n  - 刻\n", "[\"two\\nlines\\n\",[1,\"刻\"]]"},
      {"{\"json\": {\"too\": [1, 2.5, null]}}", "{\"json\":{\"too\":[1,2.5,null]}}"},
      {"text", "\"text\""},
      {"a:\n", "{\"a\":null}"},
  };
  for (size_t i = 0; i < COUNT(rows); i++) {
    struct err e = {0};
    auto_json *j = NULL;
    int r = yaml_doc_read(slice_of(rows[i][0]), 65536, &j, &e);
    assert_string_equal(e.text, "");
    assert_int_equal(r, 0);
    auto_free char *text = json_canonical(j);
    assert_string_equal(text, rows[i][1]);
  }
}

static void test_bad(void **state) {
  (void)state;
  char deep[200];
  memset(deep, '[', sizeof deep - 1);
  deep[sizeof deep - 1] = 0;
  const char *const rows[][2] = {{"", "empty"},
                                 {"# nothing\n", "empty"},
                                 {"a: 1\na: 2\n", "line 2, column 1: this field stands here twice"},
                                 {"a: &x 1\n", "anchors"},
                                 {"a: *x\n", "anchors"},
                                 {"a: !!str 1\n", "tags"},
                                 {"a: 1\n---\nb: 2\n", "one YAML document"},
                                 {"a: [1\n", "line"},
                                 {"? [a]\n: 1\n", "name of a field"},
                                 {"\"\\0\"", "NUL"},
                                 {"\xff", "not valid YAML"},
                                 {deep, "too deeply"},
                                 {"a: b: c\n", "not valid YAML"}};
  for (size_t i = 0; i < COUNT(rows); i++) {
    struct err e = {0};
    json_t *j = NULL;
    assert_int_equal(yaml_doc_read(slice_of(rows[i][0]), 65536, &j, &e), ERR_MALFORMED);
    assert_null(j);
    assert_non_null(strstr(e.text, rows[i][1]));
  }
  struct err e = {0};
  json_t *j = NULL;
  assert_int_equal(yaml_doc_read(SLICE("a: 1"), 3, &j, &e), ERR_TOO_LARGE);
}

static void test_several(void **state) {
  (void)state;
  static const char *const rows[][2] = {{"a: 1", "[{\"a\":1}]"},
                                        {"--- 1\n---\n- x\n...\n---\n", "[1,[\"x\"],null]"},
                                        {"a: 1\n---\nb: 2\n", "[{\"a\":1},{\"b\":2}]"}};
  for (size_t i = 0; i < COUNT(rows); i++) {
    auto_json *j = NULL;
    assert_int_equal(yaml_doc_read_all(slice_of(rows[i][0]), 65536, &j, NULL), 0);
    auto_free char *text = json_text(j);
    assert_string_equal(text, rows[i][1]);
  }
  struct err e = {0};
  json_t *j = NULL;
  assert_int_equal(yaml_doc_read(SLICE("a: 1\n---\nb: 2\n"), 65536, &j, &e), ERR_MALFORMED);
  assert_non_null(strstr(e.text, "one YAML document"));
  assert_int_equal(yaml_doc_read_all(SLICE("a: 1\n---\nb: [\n"), 65536, &j, &e), ERR_MALFORMED);
  assert_non_null(strstr(e.text, "line 4"));
  assert_null(j);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_good), cmocka_unit_test(test_bad),
                                     cmocka_unit_test(test_several)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
