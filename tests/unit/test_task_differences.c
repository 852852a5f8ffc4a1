/* What differs between two documents. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/mem.h"
#include "task/task.h"

static json_t *parse(const char *text) {
  json_t *j = NULL;
  if (text)
    assert_int_equal(json_read(slice_of(text), 65536, &j, NULL), 0);
  return j;
}

static void test_differences(void **state) {
  (void)state;
  static const char *const rows[][3] = {
      {"{\"a\":1}", "{\"a\":1}", "[]"},
      {"{\"a\":1}", "{\"a\":2}", "[{\"field\":\"/a\",\"from\":1,\"to\":2}]"},
      {"{\"a\":1}", "{\"a\":1.0}", "[{\"field\":\"/a\",\"from\":1,\"to\":1.0}]"},
      {"{\"a\":1,\"b\":2}", "{\"b\":2,\"c\":null}",
       "[{\"field\":\"/a\",\"from\":1},{\"field\":\"/c\",\"to\":null}]"},
      {"{\"a\":{\"b\":{\"c\":1,\"d\":2}}}", "{\"a\":{\"b\":{\"c\":1,\"d\":3}}}",
       "[{\"field\":\"/a/b/d\",\"from\":2,\"to\":3}]"},
      {"{\"a\":[1,2]}", "{\"a\":[1,3]}", "[{\"field\":\"/a\",\"from\":[1,2],\"to\":[1,3]}]"},
      {"{\"a\":{\"b\":1}}", "{\"a\":[]}", "[{\"field\":\"/a\",\"from\":{\"b\":1},\"to\":[]}]"},
      {"{\"a\":{}}", "{}", "[{\"field\":\"/a\",\"from\":{}}]"},
      {"{\"a\":{}}", "{\"a\":{\"b\":1}}", "[{\"field\":\"/a/b\",\"to\":1}]"},
      {"{\"a/b\":{\"~\":1}}", "{\"a/b\":{\"~\":2}}", "[{\"field\":\"/a~1b/~0\",\"from\":1,\"to\":2}]"},
      {NULL, "{\"a\":{\"b\":1},\"c\":2}", "[{\"field\":\"/a/b\",\"to\":1},{\"field\":\"/c\",\"to\":2}]"},
      {"{\"a\":1}", NULL, "[{\"field\":\"/a\",\"from\":1}]"},
      {"1", "2", "[{\"field\":\"\",\"from\":1,\"to\":2}]"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    auto_json *from = parse(rows[i][0]), *to = parse(rows[i][1]), *list = json_array();
    task_differences(list, from, to);
    auto_free char *text = json_text(list);
    assert_string_equal(text, rows[i][2]);
  }
}

/* A name beyond what a pointer holds: what is inside it is compared as a whole. */
static void test_long_names(void **state) {
  (void)state;
  char name[2000];
  memset(name, 'x', sizeof name - 1);
  name[sizeof name - 1] = 0;
  auto_json *from = json_pack("{s{si}}", "a", name, 1), *to = json_pack("{s{si}}", "a", name, 2),
            *list = json_array();
  task_differences(list, from, to);
  assert_int_equal(json_array_size(list), 1);
  assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "field")), "/a");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_differences), cmocka_unit_test(test_long_names)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
